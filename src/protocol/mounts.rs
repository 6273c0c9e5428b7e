//! Mounts: which directories on the way to a commit's files are a file system
//! of their own.
//!
//! A commit writes them down. Recovery may run while one of them is not mounted,
//! as when a service starts too early. Then the staged files are not gone, and
//! what is at their targets was never part of the commit. Looks, and changes
//! nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;

use super::root::{Root, if_there};
use super::{original, tree};
use crate::error::{Error, Operation, Result};
use crate::manifest::{Action, Entry, Manifest, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// The directories above these entries, below the root, that are not on the file system of the directory they
/// are in.
pub(crate) fn above<'a>(
    root: &Root,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<BTreeSet<RelativePath>> {
    let parents: BTreeSet<_> = entries.flat_map(Entry::paths).map(RelativePath::parent).collect();
    let directories: BTreeSet<_> = parents.iter().flat_map(RelativePath::chain).collect();
    let mut mounts = BTreeSet::new();
    let mut devices = HashMap::new();
    let device = |path: &RelativePath| -> Result<Option<u64>> {
        let found = if_there(root.fs.metadata(path)).map_err(root.error(Operation::Look, path))?;
        Ok(found.and_then(|found| found.identity).map(|identity| identity.device))
    };
    if !directories.is_empty() {
        devices.insert(RelativePath::root(), device(&RelativePath::root())?);
    }
    // Each after the one that it is in.
    for directory in directories {
        let own = device(&directory)?;
        if own.is_some() && devices.get(&directory.parent()) != Some(&own) {
            mounts.insert(directory.clone());
        }
        devices.insert(directory, own);
    }
    Ok(mounts)
}

/// The paths of a commit that are on a file system which is not there now.
pub(crate) fn away(root: &Root, manifest: &Manifest) -> Result<HashSet<RelativePath>> {
    let mut away = HashSet::new();
    for entry in &manifest.entries {
        if is_away(root, &manifest.mounts, entry)? {
            away.insert(entry.path.clone());
        }
    }
    Ok(away)
}

/// Says that a path is on a file system which is not there.
pub(crate) fn missing(root: &Root, operation: Operation, path: &RelativePath) -> Error {
    let reason = "something else is mounted here or above than when this was committed";
    root.error(operation, &path.parent())(io::Error::new(io::ErrorKind::NotFound, reason))
}

/// Whether what an entry names cannot be found, and the file system that it was committed on is not there
/// now. `noted` are the mounts of its commit.
pub(crate) fn is_away(root: &Root, noted: &BTreeSet<RelativePath>, entry: &Entry) -> Result<bool> {
    // This look comes first: some file systems are mounted when somebody looks into them (autofs(5)).
    let is_there = |path: &RelativePath| root.look(path).map(|found| found.is_some());
    if entry.staged().as_ref().map_or(Ok(false), is_there)? {
        return Ok(false);
    }
    let directories = entry.paths().flat_map(|path| path.parent().chain());
    let then: BTreeSet<_> = directories.filter(|directory| noted.contains(directory)).collect();
    if above(root, std::iter::once(entry))? == then || !keeps(Rule::KnowMounts) {
        return Ok(false);
    }
    // All the same it can be there, if somebody has copied the root to another disk. Below a mount point there can
    // be others of the same names, with the same bytes, and no directory can be told from those.
    let found = root.look(&entry.path)?;
    Ok(match (&entry.action, found) {
        (Action::Write(content), Some(found)) => {
            Stamp::of(&found) != content.after
                || !original::has_bytes(root, &entry.path, &found, content.after, content.checksum)?
        }
        (Action::Link(link), Some(found)) => !original::is_link(root, &entry.path, &found, link),
        (Action::MoveTree(moved), _) => tree::place(root, &entry.path, moved)?.is_none(),
        (Action::RemoveTree(hidden), Some(_)) => !tree::is_at(root, &entry.path, hidden.tree)?,
        (Action::Remove, Some(found)) => {
            !original::is_itself(root, &entry.path, entry.before.as_ref(), &found)?
        }
        _ => true,
    })
}
