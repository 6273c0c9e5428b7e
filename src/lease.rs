//! A store that has its root to itself.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::fs::Lock;
use crate::protocol::lease;
use crate::protocol::open::Opened;

/// As long as this lives, only the store that took it commits in its root.
///
/// Made by [`Store::exclusive`](crate::Store::exclusive). Dropping it ends the lease.
#[must_use = "the lease ends when this is dropped"]
pub struct Lease {
    opened: Arc<Opened>,
    _lock: Box<dyn Lock>,
}

impl Lease {
    pub(crate) fn take(opened: Arc<Opened>) -> Result<Self> {
        opened.root.may_change()?;
        Ok(Self { _lock: lease::take(&opened.root)?, opened })
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.opened.root.debug(f, "Lease").finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // In a child after `fork` the parent's lease goes on.
        if self.opened.root.is_own_process() {
            lease::end(&self.opened.root);
        }
    }
}
