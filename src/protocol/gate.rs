//! Gate: which callers of one store may commit while one of them has the root
//! locked.
//!
//! Every commit passes the gate before it waits in the queue, so nobody leads a
//! batch of others who may not commit. The one that closes it waits until all
//! that have passed are through. It knows only this store: other stores see the
//! lease. Is in memory alone, so nothing of it can be left behind.

use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use super::caller::{Caller, Key};
use super::lease;
use super::lock::{self, Turn, Wait};
use super::root::{Root, guard};
use crate::error::Result;
use crate::mutation::{Rule, keeps};

/// The gate of one store.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<Holder>,
    /// How many commits have passed, and are not through.
    passing: usize,
    /// How often it was closed.
    closed: u64,
}

#[derive(Debug)]
struct Holder {
    key: Key,
    /// The thread that passes without the key.
    thread: Option<ThreadId>,
}

/// A commit on its way through.
#[must_use = "the commit is through when this is dropped"]
#[derive(Debug)]
pub(crate) struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        guard(&self.0.state).passing -= 1;
    }
}

/// The gate, closed to all but one. Opens when it is dropped.
#[must_use = "the gate opens when this is dropped"]
#[derive(Debug)]
pub(crate) struct Closed {
    root: Arc<Root>,
    gate: Arc<Gate>,
    pub(crate) key: Key,
}

impl Drop for Closed {
    fn drop(&mut self) {
        // In a child after `fork` another thread may hold the mutex for ever.
        if self.root.is_own_process() {
            guard(&self.gate.state).holder = None;
        }
    }
}

/// Closes the gate to all but one thread, and to all who do not have the key. Waits for the one who has closed
/// it before, and then for the commits that have passed.
pub(crate) fn close(
    root: &Arc<Root>,
    gate: &Arc<Gate>,
    wait: &mut Wait<'_>,
    thread: Option<ThreadId>,
) -> Result<Closed> {
    let closed = loop {
        if let Some(key) = gate.try_close(thread) {
            break Closed { root: Arc::clone(root), gate: Arc::clone(gate), key };
        }
        lease::pause(root, wait)?;
    };
    // They end by themselves, so this wait has its own time-out.
    let mut wait = Wait::new(root);
    while guard(&gate.state).passing > 0 {
        lease::pause(root, &mut wait)?;
    }
    Ok(closed)
}

/// Waits until a caller may commit. First lets an update go whose turn it is.
pub(crate) fn enter<'a>(
    root: &Root,
    gate: &'a Gate,
    caller: &Caller,
    turn: Option<&Turn>,
) -> Result<Pass<'a>> {
    // While this store has the root to itself, nobody else can commit, whoever's turn it is.
    if turn.is_none() && !root.has_lease() {
        lock::give_way(root, caller);
    }
    let mut wait = Wait::of(root, caller);
    loop {
        if caller.claim.is_withdrawn() {
            return Err(root.cancelled());
        }
        if let Some(pass) = gate.try_enter(caller.key) {
            return Ok(pass);
        }
        lease::pause(root, &mut wait)?;
    }
}

impl Gate {
    fn try_close(&self, thread: Option<ThreadId>) -> Option<Key> {
        let mut state = guard(&self.state);
        if state.holder.is_some() {
            return None;
        }
        state.closed += 1;
        let key = Key(state.closed);
        state.holder = Some(Holder { key, thread });
        Some(key)
    }

    fn try_enter(&self, key: Option<Key>) -> Option<Pass<'_>> {
        let mut state = guard(&self.state);
        let may_pass =
            |holder: &Holder| key == Some(holder.key) || holder.thread == Some(std::thread::current().id());
        if state.holder.as_ref().is_some_and(|holder| !may_pass(holder)) && keeps(Rule::PassGate) {
            return None;
        }
        state.passing += 1;
        Some(Pass(self))
    }
}
