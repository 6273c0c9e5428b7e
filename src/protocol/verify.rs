//! Verify: compares the files of the newest commits with the checksums in their
//! manifests. Reads every byte of them, and changes nothing. Tells what this user
//! may not read, and compares the rest.

use std::collections::HashSet;
use std::io;

use super::control::Control;
use super::layout::Fate;
use super::root::Root;
use super::{control, copy, lock, original, pending, tree};
use crate::error::{Error, Operation, Result};
use crate::fs::Kind;
use crate::generation::Generation;
use crate::manifest::{Action, Entry, Manifest, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use crate::report::{Mismatch, Problem};

/// Compares every path in the newest manifests, down to the first gap, with the newest entry that names
/// it. Ends at a manifest that this user may not read. It may have replaced any file, so nothing older
/// says what should be there.
pub(crate) fn verify(root: &Root) -> Result<Vec<Mismatch>> {
    let share = lock::shared(root)?;
    // Recovery has yet to discard these.
    let Some(pending) = if_allowed(pending::read(root, &share.control))? else {
        return unreadable(root, &share.control);
    };
    let beyond = pending.beyond;
    let mut later: Option<Generation> = None;
    let mut seen = HashSet::new();
    let mut mismatches = Vec::new();
    let mut trees: HashSet<RelativePath> = HashSet::new();
    let manifests = share.control.manifests().into_iter().rev();
    for (generation, path) in manifests.filter(|(generation, _)| !beyond.contains(generation)) {
        // A power loss can undo the removal of an old manifest and keep the removal of a later one
        // (seen on btrfs). Manifests below a gap know nothing of the commits in the gap.
        if later.is_some_and(|later| generation.next() != later) {
            break;
        }
        later = Some(generation);
        if share.control.has(Fate::Abandoned.of(generation)) {
            continue;
        }
        let found = standing(root, &share.control, generation, &path);
        let Some(found) = if_allowed(found)? else {
            mismatches.push(Mismatch { path, generation, problem: Problem::Unreadable });
            break;
        };
        let Some(manifest) = found else { break };
        for entry in manifest.entries {
            let is_moved = !trees.is_empty() && entry.path.chain().iter().any(|above| trees.contains(above));
            if entry.is_of_tree() {
                trees.extend(entry.paths().cloned());
            }
            if seen.insert(entry.path.clone()) && !is_moved {
                let problem = if_allowed(compare(root, &entry))?.unwrap_or(Some(Problem::Unreadable));
                let mismatch = |problem| Mismatch { path: entry.path, generation, problem };
                mismatches.extend(problem.map(mismatch));
            }
        }
    }
    Ok(mismatches)
}

/// Reads a manifest. A superseded one that cannot be decoded is as good as removed. ext4 with
/// `data=writeback` gives the blocks of a removed file to others before the removal is durable, and a power
/// loss brings its name back (Ts'o, linux-ext4, 2019-10, on `ext4_mb_clear_bb`).
fn standing(
    root: &Root,
    control: &Control,
    generation: Generation,
    path: &RelativePath,
) -> Result<Option<Manifest>> {
    match control::manifest(root, path) {
        Err(Error::Corrupt { .. }) if generation < control.retired() && keeps(Rule::DistrustRemoved) => {
            Ok(None)
        }
        found => found,
    }
}

/// The pending manifests that this user may not read.
fn unreadable(root: &Root, control: &Control) -> Result<Vec<Mismatch>> {
    let mut found = Vec::new();
    for generation in control.open() {
        let path = control.published(generation);
        if if_allowed(root.read(&path))?.is_none() {
            found.push(Mismatch { path, generation, problem: Problem::Unreadable });
        }
    }
    Ok(found)
}

/// Turns a refusal to read into `None`.
fn if_allowed<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

fn compare(root: &Root, entry: &Entry) -> Result<Option<Problem>> {
    let found = root.look(&entry.path)?;
    let (content, found) = match (&entry.action, found) {
        (Action::Remove, found) => return Ok(found.map(|_| Problem::Present)),
        (Action::Link(link), found) => {
            let Some(found) = found else { return Ok(Some(Problem::Missing)) };
            return Ok((!original::is_link(root, &entry.path, &found, link)).then_some(Problem::Changed));
        }
        (Action::CreateDirectory(_), Some(found)) if found.kind == Kind::Directory => return Ok(None),
        (Action::CreateDirectory(_), Some(_)) => return Ok(Some(Problem::Changed)),
        (Action::CreateDirectory(_), None) => return Ok(Some(Problem::Missing)),
        // A later commit may have made it again, for a file in it.
        (Action::RemoveDirectory, _) => return Ok(None),
        // What is in it was not compared, and what was there before is gone for good.
        (Action::RemoveTree(hidden), _) => {
            let is_there = tree::is_at(root, &entry.path, hidden.tree)?;
            return Ok(is_there.then_some(Problem::Present));
        }
        (Action::MoveTree(_), None) => return Ok(Some(Problem::Missing)),
        (Action::MoveTree(moved), Some(_)) => {
            let is_there = tree::is_at(root, &entry.path, moved.tree)?;
            return Ok((!is_there).then_some(Problem::Changed));
        }
        (Action::Write(_), None) => return Ok(Some(Problem::Missing)),
        (Action::Write(content), Some(found)) => (content, found),
    };
    if found.kind != Kind::File || found.length != content.after.length {
        return Ok(Some(Problem::Changed));
    }
    let checksum = copy::checksum(root, &entry.path);
    if checksum.map_err(root.error(Operation::Read, &entry.path))? == content.checksum {
        return Ok(None);
    }
    let is_untouched = Stamp::of(&found) == content.after;
    Ok(Some(if is_untouched { Problem::Damaged } else { Problem::Changed }))
}
