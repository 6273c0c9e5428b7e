//! Commits of this process whose files are in place, but whose third barrier is
//! still owed ([`Durability::Committed`](crate::options::Durability::Committed)).
//!
//! A deferred wave is attached to the next commit's first wave, or a flush
//! waits for it. Until then the manifest stays published, so a power loss loses
//! nothing. This list only saves the process from recovering its own work.

use std::collections::{BTreeMap, BTreeSet};

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::fs::{Durable, Wave};
use crate::generation::Generation;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// A generation whose files are all in place, though a power loss may still undo that.
#[derive(Debug)]
#[must_use = "moved files must be made durable and retired, or deferred"]
pub(crate) struct Moved {
    pub(crate) generation: Generation,
    pub(crate) paths: BTreeSet<RelativePath>,
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
pub(crate) struct Deferred {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// In place, with a debt that is attached to no wave yet.
    owed: Vec<Moved>,
    /// The paths of debts that are attached to a wave in flight.
    in_flight: BTreeMap<Generation, BTreeSet<RelativePath>>,
    /// Durable. Only the manifest has still to be renamed, under the lock.
    paid: BTreeMap<Generation, Applied>,
}

/// The generations whose deferred debts are attached to one wave in flight.
#[derive(Debug, Default)]
#[must_use = "a debt in flight is either paid or lost with its wave"]
pub(crate) struct InFlight(Vec<Generation>);

impl Deferred {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Defers the third barrier of a commit whose files are in place.
    pub(crate) fn defer(&self, moved: Moved) {
        self.state().owed.push(moved);
    }

    /// Attaches all deferred debts to `wave`.
    pub(crate) fn attach(&self, wave: &mut Wave) -> InFlight {
        let mut state = self.state();
        let mut in_flight = InFlight::default();
        for Moved { generation, paths, wave: debt } in std::mem::take(&mut state.owed) {
            if keeps(Rule::AttachDeferred) {
                wave.absorb(debt);
            } else {
                debt.waive("a crash test asked for it");
            }
            state.in_flight.insert(generation, paths);
            in_flight.0.push(generation);
        }
        in_flight
    }

    /// Like `attach`, but only if a deferred debt concerns one of `paths`.
    pub(crate) fn attach_if_concerned<'a>(
        &self,
        mut paths: impl Iterator<Item = &'a RelativePath>,
        wave: &mut Wave,
    ) -> InFlight {
        let concerned = {
            let state = self.state();
            paths.any(|path| state.owed.iter().any(|moved| moved.paths.contains(path)))
        };
        if concerned { self.attach(wave) } else { InFlight::default() }
    }

    /// Notes that the wave is durable, so the generations attached to it may be retired.
    pub(crate) fn paid(&self, in_flight: InFlight, durable: Durable) {
        let mut state = self.state();
        for generation in in_flight.0 {
            state.in_flight.remove(&generation);
            state.paid.insert(generation, Applied { generation, durable });
        }
        self.changed.notify_all();
    }

    /// Notes that the wave failed, so only recovery can finish the generations attached to it. Returns
    /// them.
    pub(crate) fn lost(&self, in_flight: InFlight) -> Vec<Generation> {
        let mut state = self.state();
        for generation in &in_flight.0 {
            state.in_flight.remove(generation);
        }
        self.changed.notify_all();
        in_flight.0
    }

    /// Waits until every debt in flight is paid or lost.
    pub(crate) fn wait_for_in_flight(&self) {
        let mut state = self.state();
        let awaited: Vec<_> = state.in_flight.keys().copied().collect();
        while awaited.iter().any(|generation| state.in_flight.contains_key(generation)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether this process has put `generation` in place, so that recovery need not do it.
    pub(crate) fn is_ours(&self, generation: Generation) -> bool {
        let state = self.state();
        state.paid.contains_key(&generation)
            || state.in_flight.contains_key(&generation)
            || state.owed.iter().any(|moved| moved.generation == generation)
    }

    /// Whether a debt in flight concerns this path.
    pub(crate) fn is_in_flight(&self, path: &RelativePath) -> bool {
        self.state().in_flight.values().any(|paths| paths.contains(path))
    }

    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state();
        state.owed.is_empty() && state.in_flight.is_empty() && state.paid.is_empty()
    }

    /// Takes the receipts of the oldest `pending` generations that are paid, up to the first that is
    /// not. A later one may not look applied while an earlier one is not.
    pub(crate) fn take_paid(&self, pending: &BTreeSet<Generation>) -> Vec<Applied> {
        let mut state = self.state();
        let mut applied = Vec::new();
        for generation in pending {
            match state.paid.remove(generation) {
                Some(receipt) => applied.push(receipt),
                None => break,
            }
        }
        // A generation that is no longer pending was retired by another process.
        state.paid.retain(|generation, _| pending.contains(generation));
        applied
    }

    /// Drops all debts for a recovery, which makes every pending generation durable itself.
    pub(crate) fn hand_over_to_recovery(&self) {
        let mut state = self.state();
        for moved in state.owed.drain(..) {
            moved.wave.waive("recovery syncs every directory of a pending generation itself");
        }
        state.in_flight.clear();
        state.paid.clear();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Barrier;

    fn moved(generation: u64) -> Moved {
        let wave = Wave::new(Barrier::Applied);
        Moved { generation: generation.into(), paths: BTreeSet::new(), wave }
    }

    /// A flush returned while another thread had the debt in flight. What it should have made durable
    /// was not on disk yet.
    #[test]
    fn whoever_waits_for_what_is_in_flight_returns_after_it_is_paid() {
        let deferred = Deferred::default();
        deferred.defer(moved(1));
        let mut wave = Wave::new(Barrier::Staged);
        let in_flight = deferred.attach(&mut wave);
        wave.waive("nothing is synced here");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                deferred.wait_for_in_flight();
                deferred.take_paid(&[1.into()].into()).len()
            });
            // Whatever the other thread does first, it finds the debt in flight or paid.
            deferred.defer(moved(2));
            deferred.paid(in_flight, Durable::Synced);
            assert_eq!(waiting.join().expect("no panic"), 1);
        });
    }

    #[test]
    fn what_is_lost_ends_the_wait_too() {
        let deferred = Deferred::default();
        deferred.defer(moved(1));
        let mut wave = Wave::new(Barrier::Staged);
        let in_flight = deferred.attach(&mut wave);
        wave.waive("nothing is synced here");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| deferred.wait_for_in_flight());
            assert_eq!(deferred.lost(in_flight), [Generation::from(1)]);
            waiting.join().expect("no panic");
        });
        assert!(!deferred.is_ours(1.into()));
    }
}
