//! Commits of this process whose files are in place, but whose third barrier is
//! still owed ([`Durability::Committed`](crate::options::Durability::Committed)).
//!
//! A deferred wave is attached to the next commit's first wave, or waited for by
//! a flush. Until then the manifest stays published, so that a power loss loses
//! nothing; this account only saves this process from recovering its own work.

use std::collections::{BTreeMap, BTreeSet};

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::fs::{Durable, Wave};
use crate::generation::Generation;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// A generation whose files are all in place, but perhaps not after a power loss.
#[derive(Debug)]
#[must_use = "moved files must be made durable and retired, or deferred"]
pub(crate) struct Moved {
    pub(crate) generation: Generation,
    pub(crate) paths: BTreeSet<RelativePath>,
    pub(crate) wave: Wave,
}

/// A generation whose files are durably in place: it may be retired.
#[derive(Debug)]
#[must_use = "an applied generation is to be retired"]
pub(crate) struct Applied {
    pub(crate) generation: Generation,
    pub(crate) durable: Durable,
}

impl Applied {
    pub(crate) fn new(generation: Generation, durable: Durable) -> Self {
        Self { generation, durable }
    }
}

/// What this process has moved and not retired.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// In place; nobody waits for the debt yet.
    owed: Vec<Moved>,
    /// The debt is attached to somebody's wave right now: which paths it is about.
    in_flight: BTreeMap<Generation, BTreeSet<RelativePath>>,
    /// Paid; only the manifest's name is left to change, under the lock.
    paid: BTreeMap<Generation, Applied>,
}

/// The generations whose deferred debts are attached to one wave.
#[derive(Debug, Default)]
#[must_use = "a debt in flight is either paid or lost with its wave"]
pub(crate) struct InFlight(Vec<Generation>);

impl Deferred {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts off the third barrier of a commit that is in place.
    pub(crate) fn defer(&self, moved: Moved) {
        self.state().owed.push(moved);
    }

    /// Attaches all that is owed to `wave`.
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

    /// As `attach`, if something that is owed concerns one of `paths`.
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

    /// The wave was waited for: what was attached to it may be retired.
    pub(crate) fn paid(&self, in_flight: InFlight, durable: Durable) {
        let mut state = self.state();
        for generation in in_flight.0 {
            state.in_flight.remove(&generation);
            state.paid.insert(generation, Applied::new(generation, durable));
        }
        self.changed.notify_all();
    }

    /// The wave failed: what was attached to it can only be put right by recovery. Says which.
    pub(crate) fn lost(&self, in_flight: InFlight) -> Vec<Generation> {
        let mut state = self.state();
        for generation in &in_flight.0 {
            state.in_flight.remove(generation);
        }
        self.changed.notify_all();
        in_flight.0
    }

    /// Waits until what is attached to somebody's wave now is paid or lost.
    pub(crate) fn wait_for_in_flight(&self) {
        let mut state = self.state();
        let awaited: Vec<_> = state.in_flight.keys().copied().collect();
        while awaited.iter().any(|generation| state.in_flight.contains_key(generation)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether this process has put `generation` in place, so that recovery need not.
    pub(crate) fn is_ours(&self, generation: Generation) -> bool {
        let state = self.state();
        state.paid.contains_key(&generation)
            || state.in_flight.contains_key(&generation)
            || state.owed.iter().any(|moved| moved.generation == generation)
    }

    /// Whether a debt that is attached to somebody's wave concerns this path.
    pub(crate) fn is_in_flight(&self, path: &RelativePath) -> bool {
        self.state().in_flight.values().any(|paths| paths.contains(path))
    }

    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state();
        state.owed.is_empty() && state.in_flight.is_empty() && state.paid.is_empty()
    }

    /// Takes the receipts of the oldest `pending` generations that are paid, up to the first that is not:
    /// a later one must not look applied while an earlier one is not.
    pub(crate) fn take_paid(&self, pending: &BTreeSet<Generation>) -> Vec<Applied> {
        let mut state = self.state();
        let mut applied = Vec::new();
        for generation in pending {
            match state.paid.remove(generation) {
                Some(receipt) => applied.push(receipt),
                None => break,
            }
        }
        // What is not pending any more was retired by another process.
        state.paid.retain(|generation, _| pending.contains(generation));
        applied
    }

    /// Recovery has taken over: it makes every pending generation durable itself.
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

    /// A flush once returned while another thread had the debt in flight: what it was to make sure of
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
            deferred.paid(in_flight, Durable::synced());
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
