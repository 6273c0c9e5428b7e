//! Caller: on whose behalf a commit is made, whether he still wants it, and how
//! long he waits for it.
//!
//! Travels with a transaction from its beginning to its commit point. Plain
//! data: what a key opens is known to `gate`, and the time to whoever waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// What is left of the time-out of the call under way; `None` between two calls.
    pub(crate) patience: Option<Arc<Patience>>,
}

impl Caller {
    /// The same caller, for one call that waits no longer than this in all. A call within a call waits no
    /// longer than that one.
    pub(crate) fn for_call(&self, limit: Duration) -> Self {
        let patience = self.patience.clone().unwrap_or_else(|| Arc::new(Patience::new(limit)));
        Self { patience: Some(patience), ..self.clone() }
    }
}

/// How long one call waits for others, and how long it has waited. It may wait several times, on several
/// threads.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    /// How long the waits took that are over.
    before: Duration,
    /// When it began to wait in the queue, while it is there.
    since: Option<Duration>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, spent: Mutex::default() }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Spent) -> T) -> T {
        change(&mut self.spent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a wait that is over.
    pub(crate) fn spend(&self, waited: Duration) {
        self.change(|spent| spent.before = spent.before.saturating_add(waited));
    }

    /// Notes that it waits in the queue from now on.
    pub(crate) fn begin(&self, now: Duration) {
        self.change(|spent| spent.since = Some(now));
    }

    /// Notes that it does not wait in the queue any more.
    pub(crate) fn end(&self, now: Duration) {
        self.change(|spent| {
            spent.before = spent.waited(now);
            spent.since = None;
        });
    }

    /// How long it has waited, and whether that was too long.
    pub(crate) fn waited(&self, now: Duration) -> (Duration, bool) {
        let waited = self.change(|spent| spent.waited(now));
        (waited, waited >= self.limit)
    }

    /// For how long it may still wait.
    pub(crate) fn rest(&self, now: Duration) -> Duration {
        self.limit.saturating_sub(self.waited(now).0)
    }
}

impl Spent {
    fn waited(&self, now: Duration) -> Duration {
        let queued = self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.before.saturating_add(queued)
    }
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
