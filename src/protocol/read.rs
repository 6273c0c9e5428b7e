//! Read: one consistent state, under a shared lock.
//!
//! If a dead writer left a published manifest behind, it is recovered first. A
//! read-only store may not do that, and reads the state *through* the manifest:
//! the staged file if it is there, otherwise the target. So a reader sees all
//! of a commit or none of it, whatever happened to its writer.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::control::Control;
use super::lock::{self, Share, Wait};
use super::mounts;
use super::original;
use super::pending::{self, Pending};
use super::recover;
use super::resolve::Lookup;
use super::root::Root;
use super::state::{self, Names, State};
use super::tree;
use crate::error::{Error, Operation, Result};
use crate::fs::{Kind, Metadata, ReadFile};
use crate::generation::Generation;
use crate::manifest::{Action, Before, Entry, Manifest};
use crate::mutation::{Rule, keeps};
use crate::path::{InvalidPath, RelativePath};

/// How often recovery is tried before a read. Once is enough unless more writers die.
const RECOVERY_TRIES_MAX: u32 = 8;

/// One state of the root, which no commit changes while this lives.
#[derive(Debug)]
pub(crate) struct Reading {
    share: Share,
    pub(crate) generation: Generation,
    /// The paths whose content may not be in place yet.
    overlay: HashMap<RelativePath, Overlay>,
    /// The trees that are not in place yet, the newest first.
    trees: Vec<Tree>,
}

/// A tree that a pending manifest moves or removes.
#[derive(Debug)]
struct Tree {
    /// Where it will be, and where it is now.
    moved: Option<(RelativePath, RelativePath)>,
    /// Where nothing of it will be.
    gone: RelativePath,
    /// Whether something else will be in its place.
    is_replaced: bool,
}

impl Tree {
    /// What of an entry is not in place yet.
    fn new(root: &Root, entry: &Entry) -> Result<Option<Self>> {
        if tree::is_in_the_way(root, entry)? {
            return Ok(Some(Self { moved: None, gone: entry.path.clone(), is_replaced: true }));
        }
        let is_replaced = false;
        Ok(match &entry.action {
            Action::MoveTree(moved) => match tree::place(root, &entry.path, moved)? {
                Some(place) if place != entry.path => {
                    let shown = Some((entry.path.clone(), place));
                    Some(Self { moved: shown, gone: moved.from.clone(), is_replaced })
                }
                _ => None,
            },
            Action::RemoveTree(hidden) if tree::is_at(root, &entry.path, hidden.tree)? => {
                Some(Self { moved: None, gone: entry.path.clone(), is_replaced })
            }
            _ => None,
        })
    }
}

/// What a pending manifest says about a path.
#[derive(Debug)]
enum Overlay {
    /// Its content is in the staged file, until that is moved.
    Staged(RelativePath),
    /// Its content is in the manifest alone, because a power loss took the staged file.
    Held(Held),
    /// This file is removed. Any other file at the path was put there later.
    Removed(Option<Before>),
    /// The staged symlink, until it is moved, and where it leads to.
    Link(RelativePath, PathBuf),
    /// A directory is made.
    MadeDirectory,
    /// A directory is removed, if it is empty.
    RemovedDirectory,
}

/// A file's content from the manifest of a small save.
#[derive(Clone, Debug)]
struct Held {
    bytes: io::Cursor<Vec<u8>>,
    metadata: Metadata,
}

impl Held {
    fn new(entry: &Entry, bytes: &[u8]) -> Self {
        let (mode, modified) = match &entry.action {
            Action::Write(content) => (content.mode, content.after.modified.into()),
            _ => (0, SystemTime::UNIX_EPOCH),
        };
        let metadata = Metadata {
            kind: Kind::File,
            length: bytes.len() as u64,
            modified,
            changed: None,
            mode,
            owner: (0, 0),
            identity: None,
            links: 1,
        };
        Self { bytes: io::Cursor::new(bytes.to_vec()), metadata }
    }
}

impl io::Read for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl io::Seek for Held {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.bytes.seek(position)
    }
}

impl ReadFile for Held {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.metadata)
    }
}

/// Begins to read, after finishing what dead writers left.
pub(crate) fn begin(root: &Root) -> Result<Reading> {
    begin_in(root, &mut Wait::new(root))
}

/// Like `begin`, as part of a longer wait.
pub(crate) fn begin_in(root: &Root, wait: &mut Wait<'_>) -> Result<Reading> {
    for _ in 0..RECOVERY_TRIES_MAX {
        let share = lock::shared_in(wait)?;
        let pending = visible(root, &share.control)?;
        if root.settings.read_only || root.is_poisoned() || !pending.needs_recovery {
            return Reading::new(root, share, pending);
        }
        drop(share);
        let mut locked = lock::exclusive_in(wait)?;
        recover::recover(root, &mut locked).map_err(Error::blocked)?;
    }
    let share = lock::shared_in(wait)?;
    let pending = visible(root, &share.control)?;
    Reading::new(root, share, pending)
}

/// What a reader sees of the pending manifests.
struct Visible {
    newest: Generation,
    manifests: Vec<(Generation, Result<Manifest>)>,
    /// Whether their writer is dead, or a power loss has torn the next one.
    needs_recovery: bool,
}

fn visible(root: &Root, control: &Control) -> Result<Visible> {
    // The share keeps everyone from paying what this store has put off. Those moves are visible.
    let mut not_in_place = &control.not_in_place() - &root.deferred.generations();
    if root.settings.read_only {
        // Whoever may not write here may not read the manifest of a small save, either. Its store may live for
        // long after its files are in place.
        not_in_place = &not_in_place - &control.marked_in_place(root);
    }
    if not_in_place.is_empty() {
        return Ok(Visible {
            newest: pending::newest(control),
            manifests: Vec::new(),
            needs_recovery: false,
        });
    }
    let Pending { mut chain, beyond } = pending::read(root, control)?;
    let newest = chain.last().map_or(control.retired(), |(newest, _)| *newest);
    let mut needs_recovery = !beyond.is_empty();
    chain.retain(|(generation, _)| not_in_place.contains(generation));
    for (generation, manifest) in &chain {
        let manifest = manifest.as_ref().map_err(Error::clone)?;
        needs_recovery |= pending::is_orphaned(root, control, *generation, manifest);
    }
    Ok(Visible { newest, manifests: chain, needs_recovery })
}

impl Reading {
    fn new(root: &Root, share: Share, visible: Visible) -> Result<Self> {
        let (mut overlay, mut trees) = (HashMap::new(), Vec::new());
        let lost = recover::Lost::new(root, &share.control, &visible.manifests);
        for (generation, manifest) in &visible.manifests {
            let Ok(manifest) = manifest else { continue };
            if let Some(path) = mounts::away(root, manifest)?.iter().min() {
                return Err(mounts::missing(root, Operation::Look, path).not_applied(*generation).blocked());
            }
            for (index, (entry, bytes)) in manifest.contents().enumerate() {
                trees.extend(Tree::new(root, entry)?);
                let over = match (&entry.action, bytes) {
                    (Action::MoveTree(_) | Action::RemoveTree(_), _) => continue,
                    (Action::CreateDirectory(_), _) => Overlay::MadeDirectory,
                    (Action::RemoveDirectory, _) => Overlay::RemovedDirectory,
                    (Action::Remove, _) => Overlay::Removed(entry.before),
                    (Action::Link(link), _) => {
                        Overlay::Link(entry.path.with_name(&link.name), link.to.clone())
                    }
                    (Action::Write(_), Some(bytes))
                        if lost.is_lost(*generation, manifest, (index, entry))? =>
                    {
                        Overlay::Held(Held::new(entry, bytes))
                    }
                    (Action::Write(content), _) => Overlay::Staged(entry.path.with_name(&content.name)),
                };
                overlay.insert(entry.path.clone(), over);
            }
        }
        trees.reverse();
        Ok(Self { generation: visible.newest, share, overlay, trees })
    }

    /// Where a path of this state is on disk; `None` if the tree that it was in is gone.
    fn on_disk(&self, path: &RelativePath) -> Option<RelativePath> {
        let mut path = path.clone();
        for tree in &self.trees {
            match &tree.moved {
                Some((shown, place)) if tree::holds(shown, &path) => path = path.moved(shown, place),
                _ if tree.is_replaced && tree.gone == path => {}
                _ if tree::holds(&tree.gone, &path) => return None,
                _ => {}
            }
        }
        Some(path)
    }

    /// Whether a directory is there that will be replaced by something else.
    fn is_replaced(&self, path: &RelativePath) -> bool {
        self.trees.iter().any(|tree| tree.is_replaced && tree.gone == *path)
    }

    fn find(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        let open = |path: &RelativePath| root.open_if_there(path);
        match self.overlay.get(path) {
            None => open(path),
            Some(Overlay::MadeDirectory) => Err(Error::invalid(root.full(path), InvalidPath::Directory)),
            Some(Overlay::RemovedDirectory) => Ok(None),
            Some(Overlay::Held(held)) => Ok(Some(Box::new(held.clone()))),
            Some(Overlay::Removed(_)) => match self.found(root, path)? {
                Some(_) => open(path),
                None => Ok(None),
            },
            // Paths are followed before. So this is a file that others have put in the link's place.
            Some(Overlay::Link(..)) => open(path),
            Some(Overlay::Staged(staged)) => match open(staged)? {
                Some(file) => Ok(Some(file)),
                None => open(path),
            },
        }
    }

    /// What lies in the control directory.
    pub(crate) fn control(&self) -> &Control {
        &self.share.control
    }

    /// What is at a path.
    fn found(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        Ok(match self.overlay.get(path) {
            None => state::look(root, path)?,
            Some(Overlay::Held(held)) => Some(held.metadata),
            Some(Overlay::MadeDirectory) => match state::look(root, path)? {
                // It will be a directory like any other, and the root is one.
                None => root.look(&RelativePath::root())?,
                found => found,
            },
            Some(Overlay::RemovedDirectory) => {
                let is_removed = self.removes_directory(root, path)?;
                state::look(root, path)?.filter(|_| !is_removed)
            }
            Some(Overlay::Removed(before)) => match state::look(root, path)? {
                Some(found) if matches!(found.kind, Kind::File | Kind::Symlink) => {
                    (!original::is_itself(root, path, before.as_ref(), &found)?).then_some(found)
                }
                found => found,
            },
            Some(Overlay::Staged(staged) | Overlay::Link(staged, _)) => match state::look(root, staged)? {
                Some(found) => Some(found),
                None => state::look(root, path)?,
            },
        })
    }

    /// Where the symlink at a path leads to.
    fn found_link(&self, root: &Root, path: &RelativePath) -> Result<Option<PathBuf>> {
        match self.overlay.get(path) {
            None => state::read_link(root, path),
            Some(Overlay::Link(staged, to)) if root.look(staged)?.is_some() => Ok(Some(to.clone())),
            Some(_) if self.found(root, path)?.is_some_and(|found| found.kind == Kind::Symlink) => {
                state::read_link(root, path)
            }
            Some(_) => Ok(None),
        }
    }

    /// Whether a pending commit makes this directory.
    fn makes_directory(&self, path: &RelativePath) -> bool {
        matches!(self.overlay.get(path), Some(Overlay::MadeDirectory))
    }

    /// Whether a pending commit removes this directory, and nothing is left in it.
    pub(crate) fn removes_directory(&self, root: &Root, path: &RelativePath) -> Result<bool> {
        if !matches!(self.overlay.get(path), Some(Overlay::RemovedDirectory)) {
            return Ok(false);
        }
        for entry in root.list(path)? {
            let child = path.child(&entry.name);
            let is_left = match self.overlay.get(&child) {
                Some(Overlay::Removed(_)) => self.found(root, &child)?.is_some(),
                Some(Overlay::RemovedDirectory) => !self.removes_directory(root, &child)?,
                _ => true,
            };
            if is_left {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The paths in `directory` for which a listing may be wrong.
    fn overlaid_in<'a>(&'a self, directory: &'a RelativePath) -> impl Iterator<Item = &'a RelativePath> {
        self.overlay.keys().filter(move |path| path.parent() == *directory)
    }
}

/// Paths are followed as this state has them, whatever of it is in place.
impl Lookup for Reading {
    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        match self.on_disk(path) {
            _ if !keeps(Rule::FollowInState) => state::look(root, path),
            Some(place) => self.found(root, &place),
            None => Ok(None),
        }
    }

    fn link(&self, root: &Root, path: &RelativePath) -> Result<PathBuf> {
        let missing = || root.error(Operation::Look, path)(io::ErrorKind::NotFound.into());
        let found = match self.on_disk(path) {
            _ if !keeps(Rule::FollowInState) => state::read_link(root, path)?,
            Some(place) => self.found_link(root, &place)?,
            None => None,
        };
        found.ok_or_else(missing)
    }
}

impl State for Reading {
    fn generation(&self) -> Generation {
        self.generation
    }

    fn open(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        let Some(path) = &self.on_disk(path) else { return Ok(None) };
        let found = self.find(root, path)?;
        self.share.confirm(root)?;
        Ok(found)
    }

    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        let Some(path) = &self.on_disk(path) else { return Ok(None) };
        let found = self.found(root, path)?;
        self.share.confirm(root)?;
        Ok(found)
    }

    fn read_link(&self, root: &Root, path: &RelativePath) -> Result<Option<PathBuf>> {
        let Some(path) = &self.on_disk(path) else { return Ok(None) };
        let found = self.found_link(root, path)?;
        self.share.confirm(root)?;
        Ok(found)
    }

    fn names(&self, root: &Root, shown: &RelativePath) -> Result<Option<Names>> {
        let Some(directory) = &self.on_disk(shown) else { return Ok(None) };
        if self.removes_directory(root, directory)? {
            return Ok(None);
        }
        let names = if self.is_replaced(directory) { None } else { root.names(directory)? };
        self.share.confirm(root)?;
        let is_made = self.makes_directory(directory);
        let Some(mut names) = names.or_else(|| is_made.then(Names::new)) else { return Ok(None) };
        for path in self.overlaid_in(directory) {
            // A directory that another program has put there stays in the list, and cannot be opened as
            // a file.
            let is_directory = state::look(root, path)?.is_some_and(|found| found.kind == Kind::Directory);
            let is_of_others = is_directory && !self.is_replaced(path);
            if is_of_others && !matches!(self.overlay.get(path), Some(Overlay::RemovedDirectory)) {
                continue;
            }
            match self.found(root, path)? {
                Some(found) => _ = names.insert(path.name().to_owned(), found.kind),
                None => _ = names.remove(path.name()),
            }
        }
        for tree in self.trees.iter().rev() {
            if tree.gone.parent() == *shown && !tree.is_replaced {
                names.remove(tree.gone.name());
            }
            let moved = tree.moved.iter().map(|(path, _)| path).filter(|path| path.parent() == *shown);
            names.extend(moved.map(|path| (path.name().to_owned(), Kind::Directory)));
        }
        Ok(Some(names))
    }
}
