//! Lease: one store may have the root to itself for longer than a commit.
//!
//! It holds a lock file of its own. Whoever commits looks, under the lock, whether
//! another store holds that. The one that takes the lease waits once for the lock,
//! so that no commit is under way that has looked before. The kernel releases the
//! lease of a process that dies.

use std::sync::{Arc, Mutex, Weak};

use super::control;
use super::layout;
use super::lock::{self, Locked, Wait};
use super::root::{Root, guard};
use super::session;
use crate::error::{Operation, Result};
use crate::fs::{Lock, LockKind};
use crate::mutation::{Rule, keeps};

/// The lease. It ends when the last of those of this store who share it has dropped it.
#[derive(Debug)]
pub(crate) struct Held {
    root: Arc<Root>,
    _lock: Box<dyn Lock>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // In a child after `fork` the parent's lease goes on.
        if self.root.is_own_process() {
            end(&self.root);
        }
    }
}

/// The lease of one store, if it has it.
pub(crate) type Slot = Mutex<Weak<Held>>;

/// Whether a lease that this store has already will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    Alone,
}

/// Takes the lease. Waits for the one who has it, and then for commits that are under way.
pub(crate) fn take(
    root: &Arc<Root>,
    slot: &Slot,
    wait: &mut Wait<'_>,
    sharing: Sharing,
) -> Result<Arc<Held>> {
    lock::ensure(root)?;
    control::make_lease(root)?;
    let path = layout::LEASE.path();
    let lock = loop {
        if let Some(held) = guard(slot).upgrade().filter(|_| sharing == Sharing::Shared) {
            return Ok(held);
        }
        if let Some(lock) = wait.try_once(&path, LockKind::Exclusive)? {
            break lock;
        }
        pause(root, wait)?;
    };
    // Whoever looked before this holds the lock until its commit is over. Readers are in nobody's way.
    if keeps(Rule::AwaitCommits) {
        drop(lock::shared(root)?);
    }
    let holder = layout::LEASE_HOLDER.path();
    root.try_remove(&holder, "it names an earlier holder, and is made anew");
    // Without the name an error says only that somebody holds it.
    if let Ok((name, content)) = root.make(&holder, format!("process {}", root.fs.process()).as_bytes()) {
        name.waive("after a power loss nobody holds it");
        content.waive("after a power loss nobody holds it");
    }
    root.note_lease(true);
    let held = Arc::new(Held { root: Arc::clone(root), _lock: lock });
    *guard(slot) = Arc::downgrade(&held);
    Ok(held)
}

/// Says that the lease ends. Its lock is released after this.
fn end(root: &Root) {
    root.try_remove(&layout::LEASE_HOLDER.path(), "a name that comes back is that of nobody");
    root.note_lease(false);
}

/// Waits until all others have released the lock, and nobody else has the root to itself.
pub(crate) fn exclusive(root: &Root, wait: &mut Wait<'_>) -> Result<Locked> {
    loop {
        let locked = lock::exclusive_in(wait)?;
        if root.has_lease() || !keeps(Rule::HonourLease) || is_free(root)? {
            return Ok(locked);
        }
        drop(locked);
        wait_for_it(root, wait)?;
    }
}

/// Waits until nobody else has the lease.
fn wait_for_it(root: &Root, wait: &mut Wait<'_>) -> Result<()> {
    let path = layout::LEASE.path();
    // Its file may be locked by another thread of this store, which is just taking it.
    while !root.has_lease() && wait.try_once(&path, LockKind::Shared)?.is_none() {
        pause(root, wait)?;
    }
    Ok(())
}

fn is_free(root: &Root) -> Result<bool> {
    let path = layout::LEASE.path();
    if root.look(&path)?.is_none() {
        return Ok(true);
    }
    let tried = root.fs.try_lock(&path, LockKind::Shared).map_err(root.error(Operation::Lock, &path))?;
    Ok(tried.is_some())
}

/// Waits a moment for the holder of the lease.
pub(crate) fn pause(root: &Root, wait: &mut Wait<'_>) -> Result<()> {
    wait.pause_for(&layout::LEASE.path(), |_| holder(root))
}

/// Names the holder of the lease. If nobody has it, a commit is under way.
fn holder(root: &Root) -> Option<String> {
    let name = root.read(&layout::LEASE_HOLDER.path()).ok().flatten();
    let name = name.and_then(|name| String::from_utf8(name).ok());
    let own = format!("process {}", root.fs.process());
    let told = |name: String| match name == own {
        // A number would not tell the caller that he waits for himself.
        true => "this process, which has the root to itself: is a lock or a lease still held?".to_owned(),
        false => format!("{name}, which has the root to itself"),
    };
    name.map(told).or_else(|| session::holder(root))
}
