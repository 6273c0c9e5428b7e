//! Verify: compares the files of the newest commits with the checksums in their
//! manifests. Reads every byte of them, and changes nothing.

use std::collections::HashSet;

use super::layout::Fate;
use super::root::Root;
use super::{control, copy, lock, pending};
use crate::error::{Operation, Result};
use crate::fs::Kind;
use crate::generation::Generation;
use crate::manifest::{Action, Entry, Stamp};
use crate::report::{Mismatch, Problem};

/// Compares every path in the newest manifests, down to the first gap, with the newest entry that names
/// it.
pub(crate) fn verify(root: &Root) -> Result<Vec<Mismatch>> {
    let share = lock::shared(root)?;
    // Recovery has yet to discard these.
    let beyond = pending::read(root, &share.control)?.beyond;
    let mut later: Option<Generation> = None;
    let mut seen = HashSet::new();
    let mut mismatches = Vec::new();
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
        let Some(manifest) = control::manifest(root, &path)? else { continue };
        for entry in manifest.entries {
            if seen.insert(entry.path.clone()) {
                let problem = compare(root, &entry)?;
                let mismatch = |problem| Mismatch { path: entry.path, generation, problem };
                mismatches.extend(problem.map(mismatch));
            }
        }
    }
    Ok(mismatches)
}

fn compare(root: &Root, entry: &Entry) -> Result<Option<Problem>> {
    let found = root.look(&entry.path)?;
    let (content, found) = match (&entry.action, found) {
        (Action::Remove, found) => return Ok(found.map(|_| Problem::Present)),
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
