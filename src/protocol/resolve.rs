//! Turns the caller's paths into targets inside the root, with every symlink
//! followed.
//!
//! No result can lead outside the root. Looks at the disk and writes nothing.
//! `check` decides whether a target may be written.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::root::{Root, if_found};
use crate::error::{Error, Operation, Result};
use crate::fs::{Kind, Metadata};
use crate::manifest::NewDirectory;
use crate::path::{InvalidPath, RelativePath};

/// As many symlinks as Linux follows in one path (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// What a file gets besides its bytes, where that does not come from the file that it replaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    /// Its mode.
    pub(crate) mode: Option<u32>,
    /// The file whose owner, access list and mode it gets.
    pub(crate) model: Option<RelativePath>,
    /// The time of its last change of content.
    pub(crate) modified: Option<SystemTime>,
    /// The group for which the mode's bits hold. Another group gets only the rights of all others.
    pub(crate) group: Option<u32>,
}

/// A mode that gives a group no rights that not all have.
pub(crate) fn for_any_group(mode: u32) -> u32 {
    mode & (!0o070 | (mode & 0o007) << 3)
}

impl Attributes {
    /// The mode, if one was asked for, of a file that has this group.
    pub(crate) fn mode_for(&self, group: u32) -> Option<u32> {
        let is_same = self.group.is_none_or(|own| own == group);
        self.mode.map(|mode| if is_same { mode } else { for_any_group(mode) })
    }

    /// What a new directory gets.
    pub(crate) fn new_directory(&self) -> NewDirectory {
        NewDirectory { mode: self.mode, group: self.group }
    }

    /// The same for other bytes, which get a time of their own.
    pub(crate) fn untimed(self) -> Self {
        Self { modified: None, ..self }
    }

    /// Whether all of them come from the file that is replaced, or are those of a new file.
    pub(crate) fn are_inherited(&self) -> bool {
        self.mode.is_none() && self.model.is_none() && self.modified.is_none()
    }
}

/// A path whose symlinks have been followed, inside the root.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The path without any symlink.
    pub(crate) path: RelativePath,
    /// What is there now.
    pub(crate) existing: Option<Metadata>,
    /// Its directory if that exists, otherwise the nearest existing directory above it.
    pub(crate) nearest: RelativePath,
    /// What a file that is written there gets.
    pub(crate) attributes: Attributes,
    /// Where it is until the commit, if that builds the directory that it lies in.
    pub(crate) site: Option<RelativePath>,
}

impl Target {
    pub(crate) fn new(path: RelativePath, existing: Option<Metadata>, nearest: RelativePath) -> Self {
        Self { path, existing, nearest, attributes: Attributes::default(), site: None }
    }

    /// The path beside which it is staged.
    pub(crate) fn place(&self) -> &RelativePath {
        self.site.as_ref().unwrap_or(&self.path)
    }

    pub(crate) fn directory_exists(&self) -> bool {
        self.nearest == self.path.parent()
    }
}

/// Where paths are looked up: on disk, or in a state over it.
pub(crate) trait Lookup {
    /// What is at a path that has no symlink in it.
    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>>;

    /// Where the symlink at a path leads to, as written in it.
    fn link(&self, root: &Root, path: &RelativePath) -> Result<PathBuf>;

    /// Whether the file or symlink at a path goes, so that a directory can take its place.
    fn makes_way(&self, _path: &RelativePath) -> bool {
        false
    }
}

/// The names that the disk has now.
#[derive(Debug)]
pub(crate) struct OnDisk;

impl Lookup for OnDisk {
    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        look(root, path)
    }

    fn link(&self, root: &Root, path: &RelativePath) -> Result<PathBuf> {
        root.fs.read_link(path).map_err(root.error(Operation::Look, path))
    }
}

/// Parents whose symlinks were followed already, so that no path is walked twice.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    parents: HashMap<RelativePath, RelativePath>,
    /// Where the transaction itself has made or removed a symlink. These are names, and not followed.
    own: HashSet<RelativePath>,
    /// The symlinks that were followed, with their texts.
    followed: HashMap<RelativePath, PathBuf>,
}

/// The caller's path, as a path below the root.
pub(crate) fn relative(root: &Root, given: &Path) -> Result<RelativePath> {
    let inside = if given.is_absolute() { root.below(given) } else { Some(given.to_path_buf()) };
    let path = inside
        .ok_or(InvalidPath::Absolute)
        .and_then(|path| RelativePath::new(&path))
        .map_err(|reason| Error::invalid(given, reason))?;
    root.refuse_reserved(&path).map_err(|reason| Error::invalid(given, reason))?;
    Ok(path)
}

impl Resolver {
    /// Follows every symlink in `path`, as a state has them, and refuses to leave the root.
    pub(crate) fn resolve_in(
        &mut self,
        root: &Root,
        names: &(impl Lookup + ?Sized),
        path: &RelativePath,
    ) -> Result<Target> {
        if let Some(parent) = self.parents.get(&path.parent()) {
            let target = parent.child(path.name());
            let existing = names.look(root, &target)?;
            // A link must be followed, and a directory refused, even if the parent was resolved before.
            if existing.is_none_or(|found| !matches!(found.kind, Kind::Symlink | Kind::Directory)) {
                let nearest = target.parent();
                return Ok(Target::new(target, existing, nearest));
            }
        }
        let Followed { target, last_is_link } = self.follow(root, names, path, Wanted::File)?;
        root.refuse_reserved(&target.path).map_err(|reason| Error::invalid(root.full(path), reason))?;
        // A link leads to another directory, often to a file of the same name there.
        if target.directory_exists() && !last_is_link {
            self.parents.insert(path.parent(), target.path.parent());
        }
        Ok(target)
    }

    /// Follows every symlink in `path` but the last.
    pub(crate) fn resolve_name(
        &mut self,
        root: &Root,
        names: &(impl Lookup + ?Sized),
        path: &RelativePath,
    ) -> Result<Target> {
        let parent = path.parent();
        let refuse = |name: &RelativePath| {
            root.refuse_reserved(name).map_err(|reason| Error::invalid(root.full(path), reason))
        };
        let directory = match self.parents.get(&parent) {
            _ if parent.is_root() => parent,
            Some(known) => known.clone(),
            None => {
                let directory = self.follow(root, names, &parent, Wanted::Directory)?.target;
                if directory.existing.is_none() {
                    let name = directory.path.child(path.name());
                    refuse(&name)?;
                    return Ok(Target::new(name, None, directory.nearest));
                }
                directory.path
            }
        };
        let name = directory.child(path.name());
        refuse(&name)?;
        let existing = names.look(root, &name)?;
        Ok(Target::new(name, existing, directory))
    }

    fn follow(
        &mut self,
        root: &Root,
        names: &(impl Lookup + ?Sized),
        path: &RelativePath,
        wanted: Wanted,
    ) -> Result<Followed> {
        let invalid = |reason| Error::invalid(root.full(path), reason);
        let mut ahead: VecDeque<OsString> = path.names().map(OsString::from).collect();
        let mut reached = RelativePath::root();
        let mut links = 0;
        let mut last_is_link = false;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                if reached.is_root() {
                    return Err(invalid(InvalidPath::Escapes));
                }
                reached = reached.parent();
                continue;
            }
            let next = reached.child(&name);
            if (!ahead.is_empty() || wanted == Wanted::Directory) && names.makes_way(&next) {
                let target = missing(&next, &reached, ahead).map_err(invalid)?;
                return Ok(Followed { target, last_is_link });
            }
            let found = names.look(root, &next)?;
            if self.own.contains(&next) {
                let is_name = ahead.is_empty() && wanted == Wanted::File;
                let target = Target::new(next, found, reached);
                return is_name
                    .then_some(Followed { target, last_is_link })
                    .ok_or_else(|| invalid(InvalidPath::Contradiction));
            }
            match found.map(|metadata| metadata.kind) {
                Some(Kind::Symlink) => {
                    links += 1;
                    last_is_link |= ahead.is_empty();
                    if links > LINKS_MAX {
                        return Err(invalid(InvalidPath::NotADirectory));
                    }
                    let link = names.link(root, &next)?;
                    splice(root, &link, &mut reached, &mut ahead).map_err(invalid)?;
                    self.followed.insert(next, link);
                }
                Some(Kind::Directory) => {
                    reached = next;
                    if ahead.is_empty() {
                        break;
                    }
                }
                _ if ahead.is_empty() && wanted == Wanted::File => {
                    let target = Target::new(next, found, reached);
                    return Ok(Followed { target, last_is_link });
                }
                Some(_) => return Err(invalid(InvalidPath::NotADirectory)),
                None => {
                    let target = missing(&next, &reached, ahead).map_err(invalid)?;
                    return Ok(Followed { target, last_is_link });
                }
            }
        }
        // What remains is a directory, or the root itself.
        if wanted == Wanted::File {
            return Err(invalid(InvalidPath::Directory));
        }
        let existing = names.look(root, &reached)?;
        let target = Target::new(reached.clone(), existing, reached);
        Ok(Followed { target, last_is_link })
    }

    /// Notes that the transaction makes or removes a symlink here. What leads through it leads nowhere
    /// before the commit, so such paths are refused. The last change of the path itself counts.
    pub(crate) fn own_link(&mut self, path: &RelativePath) {
        self.own.insert(path.clone());
        self.parents.clear();
    }

    /// The symlinks that were followed since this was asked.
    pub(crate) fn take_followed(&mut self) -> HashMap<RelativePath, PathBuf> {
        std::mem::take(&mut self.followed)
    }

    /// Drops what was resolved, since directories may have been removed or replaced.
    pub(crate) fn clear(&mut self) {
        self.parents.clear();
    }
}

/// What is at a path that has no symlink in it.
pub(crate) fn look(root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
    match if_found(root.fs.metadata(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Error::invalid(root.full(path), InvalidPath::NotADirectory))
        }
        other => other.map_err(root.error(Operation::Look, path)),
    }
}

/// The directory that `path` leads to, without symlinks.
pub(crate) fn resolve_directory(
    root: &Root,
    names: &(impl Lookup + ?Sized),
    resolver: &mut Resolver,
    path: &RelativePath,
) -> Result<RelativePath> {
    let Followed { target, .. } = resolver.follow(root, names, path, Wanted::Directory)?;
    match target.existing {
        Some(_) => Ok(target.path),
        None => Err(root.error(Operation::Look, &target.path)(io::ErrorKind::NotFound.into())),
    }
}

/// Where a path leads, whether to a file, a directory or nothing. A path below a file stays as it is,
/// since nothing can be there.
pub(crate) fn resolve_any(
    root: &Root,
    names: &(impl Lookup + ?Sized),
    resolver: &mut Resolver,
    given: &Path,
) -> Result<RelativePath> {
    if is_root(root, given) {
        return Ok(RelativePath::root());
    }
    let path = relative(root, given)?;
    match resolver.resolve_in(root, names, &path) {
        Ok(target) => Ok(target.path),
        Err(Error::InvalidPath { reason: InvalidPath::Directory, .. }) => {
            resolve_directory(root, names, resolver, &path)
        }
        Err(Error::InvalidPath { reason: InvalidPath::NotADirectory, .. }) => Ok(path),
        Err(error) => Err(error),
    }
}

/// Whether the caller means the root itself.
pub(crate) fn is_root(root: &Root, given: &Path) -> bool {
    given.components().all(|component| matches!(component, Component::CurDir))
        || root.below(given).is_some_and(|rest| rest.as_os_str().is_empty())
}

/// What a path should lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    File,
    Directory,
}

/// Where a path leads.
struct Followed {
    target: Target,
    /// Whether the last name of the path is a symlink, so that the target may be in another directory.
    last_is_link: bool,
}

/// Nothing exists at `first`, so the rest of the path has yet to be made.
fn missing(
    first: &RelativePath,
    nearest: &RelativePath,
    ahead: VecDeque<OsString>,
) -> Result<Target, InvalidPath> {
    if ahead.iter().any(|name| name == "..") {
        return Err(InvalidPath::NotADirectory);
    }
    let path = ahead.iter().fold(first.clone(), |path, name| path.child(name));
    Ok(Target::new(path, None, nearest.clone()))
}

/// Puts the target of a link in front of the rest of the path.
fn splice(
    root: &Root,
    link: &Path,
    reached: &mut RelativePath,
    ahead: &mut VecDeque<OsString>,
) -> Result<(), InvalidPath> {
    let mut rest = PathBuf::from(link);
    if link.is_absolute() {
        rest = root.below(link).ok_or(InvalidPath::Escapes)?;
        *reached = RelativePath::root();
    }
    for component in rest.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(InvalidPath::Escapes),
        }
    }
    Ok(())
}
