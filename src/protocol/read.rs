//! Read: one consistent state, under a shared lock.
//!
//! If a dead writer left a published manifest behind, it is recovered first. A
//! read-only store may not do that, and reads the state *through* the manifest:
//! the staged file if it is there, otherwise the target. So a reader sees all
//! of a commit or none of it, whatever happened to its writer.

use std::collections::HashMap;

use super::control::{self, Control};
use super::deferred::Deferred;
use super::lock::{self, Share};
use super::original;
use super::recover;
use super::root::{Root, if_found};
use super::snapshot::State;
use crate::error::{Error, Operation, Result};
use crate::fs::{DirectoryEntry, ReadFile};
use crate::generation::Generation;
use crate::manifest::{Before, Manifest};
use crate::path::RelativePath;

/// How often recovery is tried before a read. Once is enough unless more writers die.
const RECOVERY_TRIES_MAX: u32 = 8;

/// One state of the root, which no commit changes while this lives.
#[derive(Debug)]
pub(crate) struct Reading {
    share: Share,
    pub(crate) generation: Generation,
    /// The paths whose content may not be in place yet.
    overlay: HashMap<RelativePath, Overlay>,
}

/// What a pending manifest says about a path.
#[derive(Debug)]
enum Overlay {
    /// Its content is in the staged file, until that is moved.
    Staged(RelativePath),
    /// This file is removed. Any other file at the path was put there later.
    Removed(Option<Before>),
}

/// Begins to read, after finishing what dead writers left.
pub(crate) fn begin(root: &Root, deferred: &Deferred) -> Result<Reading> {
    for _ in 0..RECOVERY_TRIES_MAX {
        let share = lock::shared(root)?;
        let pending = pending(root, &share.control)?;
        let dead = |(generation, manifest): &(Generation, Manifest)| {
            recover::is_orphaned(root, &share.control, *generation, manifest)
        };
        let is_left = pending.is_torn || pending.manifests.iter().any(dead);
        if root.settings.read_only || root.is_poisoned() || !is_left {
            return Ok(Reading::new(share, &pending));
        }
        drop(share);
        let mut locked = lock::exclusive(root)?;
        recover::recover(root, &mut locked, deferred).map_err(Error::blocked)?;
    }
    let share = lock::shared(root)?;
    let pending = pending(root, &share.control)?;
    Ok(Reading::new(share, &pending))
}

/// The manifests that follow the applied one without a gap.
#[derive(Debug)]
struct Pending {
    newest: Generation,
    /// Those that may not be in place.
    manifests: Vec<(Generation, Manifest)>,
    /// Whether a power loss has torn the next one, which is a waived commit.
    is_torn: bool,
}

fn pending(root: &Root, control: &Control) -> Result<Pending> {
    let mut pending = Pending { newest: control.retired(), manifests: Vec::new(), is_torn: false };
    let not_in_place = control.not_in_place();
    for generation in control.open() {
        if generation != pending.newest.next() {
            break;
        }
        if not_in_place.contains(&generation) {
            let path = control.published(generation);
            if control.is_waived(generation) && !control::is_whole(root, &path)? {
                pending.is_torn = true;
                break;
            }
            let Some(manifest) = control::manifest(root, &path)? else { break };
            pending.manifests.push((generation, manifest));
        }
        pending.newest = generation;
    }
    Ok(pending)
}

impl Reading {
    fn new(share: Share, pending: &Pending) -> Self {
        let mut overlay = HashMap::new();
        for entry in pending.manifests.iter().flat_map(|(_, manifest)| &manifest.entries) {
            let over = entry.staged().map_or(Overlay::Removed(entry.before), Overlay::Staged);
            overlay.insert(entry.path.clone(), over);
        }
        Self { generation: pending.newest, share, overlay }
    }

    fn find(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        let open =
            |path: &RelativePath| if_found(root.fs.open(path)).map_err(root.error(Operation::Read, path));
        match self.overlay.get(path) {
            None => open(path),
            Some(Overlay::Removed(before)) => match open(path)? {
                Some(file) => {
                    let found = file.metadata().map_err(root.error(Operation::Read, path))?;
                    Ok((!original::is_itself(root, path, before.as_ref(), &found)?).then_some(file))
                }
                None => Ok(None),
            },
            Some(Overlay::Staged(staged)) => match open(staged)? {
                Some(file) => Ok(Some(file)),
                None => open(path),
            },
        }
    }

    /// The current names in a directory; `None` if there is no such directory.
    pub(crate) fn list(&self, root: &Root, directory: &RelativePath) -> Result<Option<Vec<DirectoryEntry>>> {
        let names = if_found(root.fs.list(directory)).map_err(root.error(Operation::Read, directory))?;
        self.share.confirm(root)?;
        Ok(names)
    }

    /// The paths in `directory` for which a listing may be wrong.
    pub(crate) fn overlaid_in<'a>(
        &'a self,
        directory: &'a RelativePath,
    ) -> impl Iterator<Item = &'a RelativePath> {
        self.overlay.keys().filter(move |path| path.parent() == *directory)
    }
}

impl State for Reading {
    fn generation(&self) -> Generation {
        self.generation
    }

    fn open(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        let found = self.find(root, path)?;
        self.share.confirm(root)?;
        Ok(found)
    }
}
