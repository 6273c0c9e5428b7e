//! Original: the file that a commit replaces or removes, and how recovery
//! recognises it.
//!
//! Between a crash and its recovery another program may replace the original,
//! and its file must not be destroyed. A length and a time stamp identify the
//! original only if it was older than the clock's granule when it was recorded.
//! Otherwise its checksum is recorded too. A symlink is identified by its text
//! alone. This module looks and reads, and changes nothing.

use std::io;

use super::copy;
use super::root::Root;
use crate::checksum::Checksum;
use crate::error::{Operation, Result};
use crate::fs::{Kind, Metadata};
use crate::manifest::{Before, StagedLink, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// What the manifest records of the file at `path`.
pub(crate) fn record(root: &Root, path: &RelativePath, found: &Metadata) -> Before {
    if found.kind == Kind::Symlink {
        // One that is gone again has the text of none, so recovery leaves whatever is there.
        let to = root.fs.read_link(path).unwrap_or_default();
        let checksum = Some(StagedLink::checksum(&to));
        return Before { stamp: Stamp::of(found), checksum, is_link: true };
    }
    let is_young = !root.stamps.prove(found) && keeps(Rule::ChecksumBefore);
    // A file that may be replaced but not read is identified by its stamp alone.
    let checksum = is_young.then(|| copy::checksum(root, path).ok()).flatten();
    Before { stamp: Stamp::of(found), checksum, is_link: false }
}

/// Whether what was recorded still describes the file.
pub(crate) fn is_current(
    root: &Root,
    path: &RelativePath,
    recorded: Option<&Before>,
    found: Option<&Metadata>,
) -> bool {
    match (recorded, found) {
        (None, None) => true,
        (Some(before), Some(found)) if before.is_link || found.kind == Kind::Symlink => {
            is_same_link(root, path, before, found)
        }
        (Some(before), Some(found)) => {
            before.stamp == Stamp::of(found)
                && before
                    .checksum
                    .is_none_or(|known| copy::checksum(root, path).is_ok_and(|now| now == known))
        }
        _ => false,
    }
}

/// Whether the file at `path` has the bytes of the original, so that it may be replaced.
pub(crate) fn has_content(
    root: &Root,
    path: &RelativePath,
    recorded: Option<&Before>,
    found: &Metadata,
) -> Result<bool> {
    let Some(before) = recorded else { return Ok(false) };
    if before.is_link || found.kind == Kind::Symlink {
        return Ok(is_same_link(root, path, before, found));
    }
    match before.checksum {
        Some(checksum) => has_bytes(root, path, found, before.stamp, checksum),
        None => Ok(before.stamp == Stamp::of(found)),
    }
}

/// Whether the file at `path` is the original itself, so that it may be removed. If another program has
/// written the same bytes since, the file belongs to that program.
pub(crate) fn is_itself(
    root: &Root,
    path: &RelativePath,
    recorded: Option<&Before>,
    found: &Metadata,
) -> Result<bool> {
    // Of a symlink its text says all. Copies of a root and version control keep no time of it.
    let is_stamped = recorded.is_some_and(|before| before.is_link || before.stamp == Stamp::of(found));
    Ok(is_stamped && has_content(root, path, recorded, found)?)
}

/// Whether a symlink was recorded, and there is one with the same text.
fn is_same_link(root: &Root, path: &RelativePath, before: &Before, found: &Metadata) -> bool {
    let leads_there =
        || root.fs.read_link(path).is_ok_and(|to| Some(StagedLink::checksum(&to)) == before.checksum);
    before.is_link && found.kind == Kind::Symlink && (leads_there() || !keeps(Rule::CompareLinks))
}

/// Whether the symlink at `path` is a staged one. Paths are equal if only a slash at the end differs, and
/// texts are not.
pub(crate) fn is_link(root: &Root, path: &RelativePath, found: &Metadata, link: &StagedLink) -> bool {
    found.kind == Kind::Symlink
        && root.fs.read_link(path).is_ok_and(|to| to.as_os_str() == link.to.as_os_str())
}

/// Whether a file has the bytes of the one that had this stamp. Its own stamp may differ.
pub(crate) fn has_bytes(
    root: &Root,
    path: &RelativePath,
    found: &Metadata,
    stamp: Stamp,
    checksum: Checksum,
) -> Result<bool> {
    if found.kind != Kind::File || found.length != stamp.length {
        return Ok(false);
    }
    match copy::checksum(root, path) {
        Ok(now) => Ok(now == checksum),
        // A file that may not be read is identified by its stamp alone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Stamp::of(found) == stamp),
        Err(error) => Err(root.error(Operation::Read, path)(error)),
    }
}
