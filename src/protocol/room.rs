//! Room: whether a long file of known length fits on the disk, looked at before
//! its first byte is staged.
//!
//! Saves the time that it takes to fill a disk, and leaves the room to others
//! meanwhile. Promises nothing: others may take the room while the file is
//! written. What cannot be found out is no reason to refuse. Changes nothing.

use std::io;

use super::root::Root;
use crate::error::{Operation, Result};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// The shortest file that is worth a look. To write so much takes far longer than to ask a file system, also
/// one on a network.
const LOOK_BYTES_MIN: u64 = 8 << 20;

/// That a file does not fit.
#[derive(Debug, thiserror::Error)]
#[error("{needed_bytes} bytes are needed, and {free_bytes} are free")]
struct NoRoom {
    needed_bytes: u64,
    free_bytes: u64,
}

/// Refuses a file of this length if it does not fit beside the path.
pub(crate) fn look(root: &Root, path: &RelativePath, needed_bytes: u64) -> Result<()> {
    if needed_bytes < LOOK_BYTES_MIN || !keeps(Rule::LookForRoom) {
        return Ok(());
    }
    let mut directory = path.parent();
    let free_bytes = loop {
        match root.fs.free_bytes(&directory) {
            // It will be made on the disk of the one above.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.is_root() => {
                directory = directory.parent();
            }
            found => break found.ok().flatten(),
        }
    };
    match free_bytes {
        Some(free_bytes) if free_bytes < needed_bytes => {
            let no_room = NoRoom { needed_bytes, free_bytes };
            Err(root.error(Operation::Stage, path)(io::Error::new(io::ErrorKind::StorageFull, no_room)))
        }
        _ => Ok(()),
    }
}
