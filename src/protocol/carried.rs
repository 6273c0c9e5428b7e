//! Commits of this process that are in place, but whose third barrier is still
//! owed ([`Durability::Committed`](crate::Durability::Committed)).
//!
//! The debt rides on the next transaction's first barrier, or on close. Until
//! then each stays published, so that a power loss loses nothing; this account
//! only saves this process from recovering its own work.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{Applied, Moved};
use crate::fs::{Durable, Wave};
use crate::generation::Generation;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// What this process has applied and not retired.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// In place; the debt is nobody's yet.
    waiting: Vec<Moved>,
    /// The debt is part of somebody's wave right now: which paths it is about.
    riding: BTreeMap<Generation, BTreeSet<RelativePath>>,
    /// Paid; only the name of the manifest is left to change, under the lock.
    settled: BTreeMap<Generation, Applied>,
}

/// Debts that travel with a wave.
#[derive(Debug, Default)]
#[must_use = "a passenger that is neither settled nor lost would never be retired"]
pub(crate) struct Passengers(Vec<Generation>);

impl Carried {
    /// Keeps a commit that is in place.
    pub(crate) fn keep(&mut self, moved: Moved) {
        self.waiting.push(moved);
    }

    /// Puts all waiting debts into `wave`.
    pub(crate) fn board(&mut self, wave: &mut Wave) -> Passengers {
        let mut passengers = Passengers::default();
        for moved in std::mem::take(&mut self.waiting) {
            let (generation, paths, debt) = moved.into_parts();
            if keeps(Rule::AttachDeferred) {
                wave.absorb(debt);
            }
            self.riding.insert(generation, paths);
            passengers.0.push(generation);
        }
        passengers
    }

    /// The wave arrived: its passengers may be retired.
    pub(crate) fn settle(&mut self, passengers: Passengers, durable: Durable) {
        for generation in passengers.0 {
            self.riding.remove(&generation);
            self.settled.insert(generation, Applied::carried(generation, durable));
        }
    }

    /// The wave failed: what it carried can only be put right by recovery. Says which.
    pub(crate) fn lose(&mut self, passengers: Passengers) -> Vec<Generation> {
        for generation in &passengers.0 {
            self.riding.remove(generation);
        }
        passengers.0
    }

    /// Whether this process has put `generation` in place, so that recovery need not.
    pub(crate) fn is_ours(&self, generation: Generation) -> bool {
        self.settled.contains_key(&generation)
            || self.riding.contains_key(&generation)
            || self.waiting.iter().any(|moved| moved.generation() == generation)
    }

    /// Whether a debt that nobody has taken up concerns one of these paths.
    pub(crate) fn waits_for(&self, path: &RelativePath) -> bool {
        self.waiting.iter().any(|moved| moved.concerns(path))
    }

    /// Whether a debt that travels with somebody's wave concerns this path.
    pub(crate) fn rides_for(&self, path: &RelativePath) -> bool {
        self.riding.values().any(|paths| paths.contains(path))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.riding.is_empty() && self.settled.is_empty()
    }

    /// Takes the receipts of the oldest `pending` generations that are paid, up to the first that is not:
    /// a later one must not look applied while an earlier one is not.
    pub(crate) fn retirable(&mut self, pending: &BTreeSet<Generation>) -> Vec<Applied> {
        let mut applied = Vec::new();
        for generation in pending {
            match self.settled.remove(generation) {
                Some(receipt) => applied.push(receipt),
                None => break,
            }
        }
        // What is not pending any more was retired by another process.
        self.settled.retain(|generation, _| pending.contains(generation));
        applied
    }

    /// Forgets all: recovery has taken over.
    pub(crate) fn forget(&mut self) -> Vec<Generation> {
        let waiting = self.waiting.drain(..).map(|moved| moved.generation()).collect::<Vec<_>>();
        let mut all: Vec<_> = self.riding.keys().chain(self.settled.keys()).copied().collect();
        all.extend(waiting);
        self.riding.clear();
        self.settled.clear();
        all
    }
}
