//! A store that has its root to itself.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::protocol::lease::{Held, Sharing};
use crate::protocol::open::Opened;

/// As long as this lives, only the store that took it commits in its root.
///
/// Made by [`Store::exclusive`](crate::Store::exclusive). Dropping it ends the lease.
#[must_use = "the lease ends when this is dropped"]
pub struct Lease {
    opened: Arc<Opened>,
    _held: Arc<Held>,
}

impl Lease {
    pub(crate) fn take(opened: Arc<Opened>) -> Result<Self> {
        let timeout = opened.root.settings.lock_timeout;
        Ok(Self { _held: opened.lease(timeout, Sharing::Alone)?, opened })
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.opened.root.debug(f, "Lease").finish_non_exhaustive()
    }
}
