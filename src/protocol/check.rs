//! What can be refused before the commit point is refused here.
//!
//! After the commit point there is no way back, so whatever can be known to
//! fail is found before it: at staging, and once more under the lock. This step
//! looks and compares; it writes nothing.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::stage::{Precondition, Staged};
use super::{Engine, if_found, layout};
use crate::error::{Error, Operation, Result};
use crate::fs::{Kind, Metadata};
use crate::manifest::{Action, Entry, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::{InvalidPath, RelativePath};

/// As many links as Linux follows in one path (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// A path whose symlinks have been followed, inside the root.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The path without any symlink.
    pub(crate) path: RelativePath,
    /// What is there now.
    pub(crate) existing: Option<Metadata>,
    /// Its directory, if that exists; else the nearest one above that does.
    pub(crate) nearest: RelativePath,
}

impl Target {
    pub(crate) fn directory_exists(&self) -> bool {
        self.nearest == self.path.parent()
    }

    pub(crate) fn before(&self) -> Option<Stamp> {
        self.existing.as_ref().map(Stamp::of)
    }
}

/// Parents that were followed already, so that no path is walked twice.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    parents: HashMap<RelativePath, RelativePath>,
}

/// What the caller gave, as a path below the root.
pub(crate) fn relative(engine: &Engine, given: &Path) -> Result<RelativePath> {
    let inside = if given.is_absolute() { engine.below_root(given) } else { Some(given.to_path_buf()) };
    let path = inside
        .ok_or(InvalidPath::Absolute)
        .and_then(|path| RelativePath::new(&path))
        .map_err(|reason| Error::invalid(given, reason))?;
    reserved(&path).map_err(|reason| Error::invalid(given, reason))?;
    Ok(path)
}

/// Refuses what belongs to cosave alone.
fn reserved(path: &RelativePath) -> Result<(), InvalidPath> {
    if layout::is_control(path) {
        return Err(InvalidPath::Control);
    }
    if path.names().any(layout::is_reserved) {
        return Err(InvalidPath::Staged);
    }
    Ok(())
}

/// Checks what a manifest names as a caller's paths are checked: its checksum may be forged.
pub(crate) fn names(entry: &Entry) -> Result<(), String> {
    reserved(&entry.path).map_err(|reason| format!("it names `{}`: {reason}", entry.path))?;
    match &entry.action {
        Action::Write(content) if layout::parse_staged(&content.name).is_none() => {
            Err(format!("it moves `{}`, which is no staged file", content.name.to_string_lossy()))
        }
        _ => Ok(()),
    }
}

impl Resolver {
    /// Follows every symlink in `path`, as long as it stays inside the root.
    pub(crate) fn resolve(&mut self, engine: &Engine, path: &RelativePath) -> Result<Target> {
        if let Some(parent) = self.parents.get(&path.parent()) {
            let target = parent.child(path.name());
            let existing = look(engine, &target)?;
            // A link is followed, and a directory refused, as if nothing were known of the parent.
            if existing.is_none_or(|found| !matches!(found.kind, Kind::Symlink | Kind::Directory)) {
                return Ok(Target { nearest: target.parent(), path: target, existing });
            }
        }
        let target = follow(engine, path, Wanted::File)?;
        reserved(&target.path).map_err(|reason| Error::invalid(path.as_path(), reason))?;
        if target.directory_exists() && target.path.name() == path.name() {
            self.parents.insert(path.parent(), target.path.parent());
        }
        Ok(target)
    }

    /// Directories may have been removed or replaced since.
    pub(crate) fn forget(&mut self) {
        self.parents.clear();
    }
}

fn look(engine: &Engine, path: &RelativePath) -> Result<Option<Metadata>> {
    match if_found(engine.fs.metadata(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Error::invalid(path.as_path(), InvalidPath::NotADirectory))
        }
        other => other.map_err(engine.error(Operation::Look, path)),
    }
}

/// The directory that `path` leads to, without symlinks.
pub(crate) fn resolve_directory(engine: &Engine, path: &RelativePath) -> Result<RelativePath> {
    let target = follow(engine, path, Wanted::Directory)?;
    match target.existing {
        Some(_) => Ok(target.path),
        None => Err(engine.error(Operation::Look, path)(io::ErrorKind::NotFound.into())),
    }
}

/// What a path is to lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    File,
    Directory,
}

fn follow(engine: &Engine, path: &RelativePath, wanted: Wanted) -> Result<Target> {
    let invalid = |reason| Error::invalid(path.as_path(), reason);
    let mut ahead: VecDeque<OsString> = path.names().map(OsString::from).collect();
    let mut reached = RelativePath::root();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if reached.is_root() {
                return Err(invalid(InvalidPath::Escapes));
            }
            reached = reached.parent();
            continue;
        }
        let next = reached.child(&name);
        let found = look(engine, &next)?;
        match found.map(|metadata| metadata.kind) {
            Some(Kind::Symlink) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(invalid(InvalidPath::NotADirectory));
                }
                let link = engine.fs.read_link(&next).map_err(engine.error(Operation::Look, &next))?;
                splice(engine, &link, &mut reached, &mut ahead).map_err(invalid)?;
            }
            Some(Kind::Directory) => {
                reached = next;
                if ahead.is_empty() {
                    break;
                }
            }
            _ if ahead.is_empty() && wanted == Wanted::File => {
                return Ok(Target { path: next, existing: found, nearest: reached });
            }
            Some(_) => return Err(invalid(InvalidPath::NotADirectory)),
            None => return missing(&next, &reached, ahead).map_err(invalid),
        }
    }
    // What is left is a directory, or the root itself.
    if wanted == Wanted::File {
        return Err(invalid(InvalidPath::Directory));
    }
    let existing = look(engine, &reached)?;
    Ok(Target { nearest: reached.clone(), path: reached, existing })
}

/// Nothing is at `first`: the rest of the path is still to be made.
fn missing(
    first: &RelativePath,
    nearest: &RelativePath,
    ahead: VecDeque<OsString>,
) -> Result<Target, InvalidPath> {
    if ahead.iter().any(|name| name == "..") {
        return Err(InvalidPath::NotADirectory);
    }
    let path = ahead.iter().fold(first.clone(), |path, name| path.child(name));
    Ok(Target { path, existing: None, nearest: nearest.clone() })
}

/// Puts what a link says in front of what is still ahead.
fn splice(
    engine: &Engine,
    link: &Path,
    reached: &mut RelativePath,
    ahead: &mut VecDeque<OsString>,
) -> Result<(), InvalidPath> {
    let mut rest = PathBuf::from(link);
    if link.is_absolute() {
        rest = engine.below_root(link).ok_or(InvalidPath::Escapes)?;
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

/// Whether a file may be written here: a regular file that its owner has not made read-only, or
/// nothing at all.
pub(crate) fn may_replace(engine: &Engine, target: &Target) -> Result<()> {
    let Some(existing) = &target.existing else { return Ok(()) };
    match existing.kind {
        Kind::File => {
            engine.fs.may_write(&target.path, existing).map_err(engine.error(Operation::Stage, &target.path))
        }
        Kind::Directory => Err(Error::invalid(target.path.as_path(), InvalidPath::Directory)),
        _ => Err(Error::invalid(target.path.as_path(), InvalidPath::Special)),
    }
}

/// Whether a file may be removed: as `may_replace`, and its name can go. A write finds that out when
/// it stages there; a removal stages nothing, and would find it out too late.
pub(crate) fn may_remove(engine: &Engine, target: &Target) -> Result<()> {
    may_replace(engine, target)?;
    if target.existing.is_none() {
        return Ok(());
    }
    engine.fs.may_remove(&target.path).map_err(engine.error(Operation::Remove, &target.path))
}

/// Checks a transaction under the lock. Returns which entries' `before` is no longer what is there:
/// the manifest must say what is really replaced, or recovery would take another's commit for an
/// edit by hand.
pub(crate) fn under_lock(engine: &Engine, staged: &Staged) -> Result<Vec<(usize, Option<Stamp>)>> {
    if keeps(Rule::CheckPreconditions) {
        preconditions(engine, &staged.preconditions)?;
    }
    let mut moved = Vec::new();
    for (index, entry) in staged.manifest.entries.iter().enumerate() {
        let found = look(engine, &entry.path)?;
        let target = Target { path: entry.path.clone(), existing: found, nearest: entry.path.parent() };
        if let Some(Kind::Symlink | Kind::Other | Kind::Directory) = found.map(|found| found.kind) {
            may_replace(engine, &target)?;
        }
        if target.before() != entry.before && keeps(Rule::CheckTargets) {
            moved.push((index, target.before()));
        }
        if keeps(Rule::CheckStaged) {
            still_staged(engine, entry, staged.identities[index])?;
        }
    }
    Ok(moved)
}

/// A sweep that took a living session for dead, or a person, may have removed or changed a staged file.
fn still_staged(engine: &Engine, entry: &Entry, identity: Option<crate::fs::Identity>) -> Result<()> {
    let (Some(path), Action::Write(content)) = (entry.staged(), &entry.action) else { return Ok(()) };
    let conflict = |found| Err(Error::Conflict { path: engine.full(&entry.path), found });
    match look(engine, &path)? {
        None => conflict("has lost its staged file"),
        Some(found) if found.kind != Kind::File || Stamp::of(&found) != content.after => {
            conflict("has a staged file that was changed")
        }
        Some(found) if found.identity != identity => conflict("has a staged file that was replaced"),
        Some(_) => Ok(()),
    }
}

/// Checks what a transaction relies on.
pub(crate) fn preconditions(engine: &Engine, preconditions: &[Precondition]) -> Result<()> {
    preconditions.iter().try_for_each(|precondition| holds(engine, precondition))
}

fn holds(engine: &Engine, precondition: &Precondition) -> Result<()> {
    let (path, found) = match precondition {
        Precondition::Absent(path) => match look(engine, path)? {
            Some(_) => (path, "exists already"),
            None => return Ok(()),
        },
        Precondition::Exists(path) => match look(engine, path)? {
            Some(_) => return Ok(()),
            None => (path, "does not exist any more"),
        },
        Precondition::Same(path, before) => match look(engine, path)? {
            found if found.as_ref().map(Stamp::of) == *before => return Ok(()),
            _ => (path, "has changed since it was read"),
        },
    };
    Err(Error::Conflict { path: engine.full(path), found })
}
