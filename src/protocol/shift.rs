//! Shift: the lock, and what the batches of one store owe that follow each other
//! under it.
//!
//! It begins with what earlier writers left. `commit` says when it ends, and pays
//! what is owed.

use std::time::Duration;

use super::lock::{self, Locked, Wait};
use super::publish::Published;
use super::root::Root;
use super::{lease, recover};
use crate::error::Result;

/// For how long batches may follow each other under one lock, before readers and other processes get it.
const SHIFT_MAX: Duration = Duration::from_millis(100);

/// The lock, and what the batches under it owe.
#[derive(Debug)]
pub(crate) struct Shift {
    pub(crate) locked: Locked,
    /// Commits that are in place and not acknowledged, since barrier 3 is still to come.
    pub(crate) owed: Vec<Published>,
    /// When the lock was taken.
    since: Duration,
}

/// Takes the lock, and finishes what earlier writers left.
pub(crate) fn begin(root: &Root, wait: &mut Wait<'_>) -> Result<Shift> {
    root.may_change()?;
    let mut locked = lease::exclusive(root, wait)?;
    recover::finish_earlier(root, &mut locked, root.settings.durability)?;
    lock::count_on(root, &mut locked)?;
    Ok(Shift { locked, owed: Vec::new(), since: root.fs.elapsed() })
}

impl Shift {
    /// Whether others should get the lock now.
    pub(crate) fn is_over(&self, root: &Root) -> bool {
        root.fs.elapsed().saturating_sub(self.since) > SHIFT_MAX
    }
}
