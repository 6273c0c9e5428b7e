//! Caller: on whose behalf a commit is made, and whether he still wants it.
//!
//! Travels with a transaction from its beginning to its commit point. Plain
//! data: what a key opens is known to `gate`.

use std::sync::{Arc, Mutex, PoisonError};

use crate::mutation::{Rule, keeps};

/// Opens the gate of a store for one who has the root locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64);

/// Who makes a commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// The key of the lock under which it is made.
    pub(crate) key: Option<Key>,
    pub(crate) claim: Arc<Claim>,
}

/// The claim of a caller to his commit, which he can withdraw up to the rename that commits.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    is_withdrawn: Mutex<bool>,
}

impl Claim {
    /// Does the one act that commits, unless the claim was withdrawn. It cannot be withdrawn meanwhile.
    pub(crate) fn perform<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let is_withdrawn = self.is_withdrawn.lock().unwrap_or_else(PoisonError::into_inner);
        (!*is_withdrawn || !keeps(Rule::AskCaller)).then(act)
    }

    /// Whether nobody waits for the commit any more.
    pub(crate) fn is_withdrawn(&self) -> bool {
        *self.is_withdrawn.lock().unwrap_or_else(PoisonError::into_inner) && keeps(Rule::AskCaller)
    }

    /// Gives the commit up. Once this returns, the act was done, or it never will be.
    #[cfg(any(feature = "tokio", feature = "sim"))]
    pub(crate) fn withdraw(&self) {
        *self.is_withdrawn.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
