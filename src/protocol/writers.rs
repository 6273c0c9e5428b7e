//! Who may write in the root, and so in the control directory, and what all of
//! them may read anyway. Looks, and changes nothing.

use std::io;

use super::root::{Root, if_there};
use crate::error::{Operation, Result};
use crate::fs::Metadata;
use crate::path::RelativePath;

/// Those who may write in the root: its owner alone, or others too.
#[derive(Debug)]
pub(crate) struct Writers {
    are_many: bool,
    owner: u32,
}

impl Writers {
    pub(crate) fn of(root: &Root) -> Result<Self> {
        let top = RelativePath::root();
        let found = root.fs.metadata(&top).map_err(root.error(Operation::Look, &top))?;
        Ok(Self { are_many: found.mode & 0o022 != 0, owner: found.owner.0 })
    }

    /// Whether each of them has these rights to what was found.
    pub(crate) fn may(&self, found: &Metadata, needed: u32) -> bool {
        self.may_with(found.mode, found.owner, needed)
    }

    /// Whether each of them has these rights to what has this mode and this owner.
    pub(crate) fn may_with(&self, mode: u32, owner: (u32, u32), needed: u32) -> bool {
        // Some files are closed to their group and open to all others.
        let by_all = needed << 6 | needed << 3 | needed;
        mode & by_all == by_all || !self.are_many && owner.0 == self.owner && mode >> 6 & needed == needed
    }
}

/// Whether an access control list may close this file or directory to some whom its mode lets in. What the
/// list says does not matter here: such a file is treated like a secret.
pub(crate) fn is_listed(root: &Root, path: &RelativePath) -> io::Result<bool> {
    Ok(if_there(root.fs.has_access_list(path))?.unwrap_or(false))
}
