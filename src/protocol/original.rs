//! Original: what a commit replaces or removes, and how it is known again.
//!
//! Between a crash and its recovery anybody may put something else in the place of
//! the original, which must not be destroyed. A length and a time stamp tell it
//! from the original only if that was older than the clock's granule when it was
//! recorded; where it was not, its checksum is recorded too. Looks and reads;
//! changes nothing.

use std::io;

use super::copy;
use super::root::Root;
use crate::error::{Operation, Result};
use crate::fs::{Kind, Metadata};
use crate::manifest::{Before, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// What the manifest is to say of the file that is at `path`.
pub(crate) fn record(root: &Root, path: &RelativePath, found: &Metadata) -> Before {
    let is_young = !root.stamps.prove(found) && keeps(Rule::ChecksumBefore);
    // A file that may be replaced but not read is known by its stamp alone.
    let checksum = is_young.then(|| copy::checksum(root, path).ok()).flatten();
    Before { stamp: Stamp::of(found), checksum }
}

/// Whether what was recorded is still what is to be recorded.
pub(crate) fn is_current(
    root: &Root,
    path: &RelativePath,
    recorded: Option<&Before>,
    found: Option<&Metadata>,
) -> bool {
    match (recorded, found) {
        (None, None) => true,
        (Some(before), Some(found)) => {
            before.stamp == Stamp::of(found)
                && before
                    .checksum
                    .is_none_or(|known| copy::checksum(root, path).is_ok_and(|now| now == known))
        }
        _ => false,
    }
}

/// Whether the file at `path` has the bytes of the original: what may be replaced.
pub(crate) fn has_content(
    root: &Root,
    path: &RelativePath,
    recorded: Option<&Before>,
    found: &Metadata,
) -> Result<bool> {
    let Some(before) = recorded else { return Ok(false) };
    match before.checksum {
        Some(checksum) => has_bytes(root, path, found, before.stamp, checksum),
        None => Ok(before.stamp == Stamp::of(found)),
    }
}

/// Whether the file at `path` is the very original: what may be removed. The same bytes that somebody
/// has put there since are theirs.
pub(crate) fn is_itself(
    root: &Root,
    path: &RelativePath,
    recorded: Option<&Before>,
    found: &Metadata,
) -> Result<bool> {
    let is_stamped = recorded.is_some_and(|before| before.stamp == Stamp::of(found));
    Ok(is_stamped && has_content(root, path, recorded, found)?)
}

/// Whether a file has the bytes of one that had this stamp; its own stamp may be another.
pub(crate) fn has_bytes(
    root: &Root,
    path: &RelativePath,
    found: &Metadata,
    stamp: Stamp,
    checksum: blake3::Hash,
) -> Result<bool> {
    if found.kind != Kind::File || found.length != stamp.length {
        return Ok(false);
    }
    match copy::checksum(root, path) {
        Ok(now) => Ok(now == checksum),
        // What may not be read is known by its stamp alone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Stamp::of(found) == stamp),
        Err(error) => Err(root.error(Operation::Read, path)(error)),
    }
}
