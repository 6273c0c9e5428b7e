//! Commits of this process whose files are in place, but whose last wait is
//! still owed ([`Durability::Committed`](crate::options::Durability::Committed)).
//!
//! The next commit pays it in its own wave, before it moves any file, or a flush
//! does. Until then the manifest stays published, so a power loss loses nothing.
//! This list only saves the process from recovering its own work. Both take it
//! under the exclusive lock, so nobody ever waits for another's wave. Knows
//! neither the disk nor the control directory.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fs::{Barrier, Durable, Wave};
use crate::generation::Generation;
use crate::mutation::{Rule, keeps};

/// A generation whose files are all in place, though a power loss may still undo that.
#[derive(Debug)]
#[must_use = "moved files must be made durable and retired, or deferred"]
pub(crate) struct Moved {
    pub(crate) generation: Generation,
    pub(crate) wave: Wave,
}

/// A generation whose files are durably in place. It may be retired.
#[derive(Debug)]
#[must_use = "an applied generation must be retired"]
pub(crate) struct Applied {
    pub(crate) generation: Generation,
    pub(crate) durable: Durable,
}

/// What this process has moved but not retired.
#[derive(Debug, Default)]
pub(crate) struct Deferred(Mutex<Vec<Moved>>);

impl Deferred {
    fn moved(&self) -> MutexGuard<'_, Vec<Moved>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Defers the last wait of a commit whose files are in place.
    pub(crate) fn defer(&self, moved: Moved) {
        self.moved().push(moved);
    }

    /// Attaches the debts of all generations to a wave, and keeps those that are still `open`. If one is
    /// not, another process has paid and retired it, or somebody has removed the control directory.
    pub(crate) fn attach(&self, open: &BTreeSet<Generation>, wave: &mut Wave) {
        let mut all = self.moved();
        for moved in all.iter_mut() {
            let debt = std::mem::replace(&mut moved.wave, Wave::new(Barrier::Applied));
            if keeps(Rule::AttachDeferred) {
                wave.absorb(debt);
            } else {
                debt.waive("a crash test asked for it");
            }
        }
        all.retain(|moved| open.contains(&moved.generation));
    }

    /// Notes that the wave to which all debts were attached is durable. Returns what may be retired, in
    /// order.
    pub(crate) fn paid(&self, durable: Durable) -> Vec<Applied> {
        let applied = |Moved { generation, wave }| {
            wave.waive("its debts were attached to the wave that is paid");
            Applied { generation, durable }
        };
        std::mem::take(&mut *self.moved()).into_iter().map(applied).collect()
    }

    /// The generations that this process has put in place, so that recovery need not do it. A failed
    /// sync may have lost their moves, whatever it was for.
    pub(crate) fn generations(&self) -> BTreeSet<Generation> {
        self.moved().iter().map(|moved| moved.generation).collect()
    }

    /// Drops all debts for a recovery, which makes every pending generation durable itself.
    pub(crate) fn hand_over_to_recovery(&self) {
        for moved in self.moved().drain(..) {
            moved.wave.waive("recovery syncs every directory of a pending generation itself");
        }
    }
}
