//! What durabilities promise for a power loss, as plain data: which generations
//! it may leave, and which files it may damage.
//!
//! A `Full` or `Committed` commit makes durable what came before it. What only
//! `Process` promised may be lost from some generation on. Knows nothing of the
//! library or the disk.

use std::collections::{BTreeMap, BTreeSet};

use cosave::Durability;

use crate::reference::State;

/// The commits that a power loss can undo, and what one has left to find out.
#[derive(Debug)]
pub struct Past {
    /// Every state that may be found. The oldest is promised.
    states: BTreeMap<u64, State>,
    /// What commits that did not wait have changed, by generation.
    weak: BTreeMap<u64, BTreeSet<String>>,
    /// The files that a power loss may have damaged.
    at_risk: BTreeSet<String>,
    /// Those that were found damaged, and that nobody has written since.
    damaged: BTreeSet<String>,
    /// A power loss may have undone commits, and no recovery has finished since.
    is_lost: bool,
    /// A recovery was cut short, or was one for a store without promises. It tells only once what it
    /// found, so the next one may not tell.
    is_told: bool,
}

impl Past {
    pub fn new(first: &State) -> Self {
        let states = [(first.generation, first.clone())].into();
        let (weak, at_risk, damaged) = Default::default();
        Self { states, weak, at_risk, damaged, is_lost: false, is_told: false }
    }

    /// Notes an acknowledged commit. Returns the paths that it has made durable together with its own.
    pub fn commit(&mut self, next: &State, durability: Durability, changed: &[String]) -> BTreeSet<String> {
        for path in changed {
            self.at_risk.remove(path);
            self.damaged.remove(path);
        }
        if durability != Durability::Process {
            return self.settle(next);
        }
        self.states.insert(next.generation, next.clone());
        self.weak.insert(next.generation, changed.iter().cloned().collect());
        BTreeSet::new()
    }

    /// Everything up to this state is durable. Returns the paths that were not.
    pub fn settle(&mut self, state: &State) -> BTreeSet<String> {
        self.damaged.append(&mut self.at_risk);
        self.states = [(state.generation, state.clone())].into();
        std::mem::take(&mut self.weak).into_values().flatten().collect()
    }

    /// The power is cut, perhaps while this commit was under way.
    pub fn cut_power(&mut self, in_flight: Option<(&State, Durability, &[String])>) {
        if let Some((state, Durability::Process, changed)) = in_flight {
            self.weak.insert(state.generation, changed.iter().cloned().collect());
        }
        self.is_lost |= !self.weak.is_empty();
        self.at_risk.extend(self.weak.values().flatten().cloned());
    }

    /// A recovery is cut short.
    pub fn interrupt(&mut self) {
        self.is_told |= self.is_lost;
    }

    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    pub fn states(&self) -> impl Iterator<Item = &State> {
        self.states.values()
    }

    /// The files that may be anything.
    pub fn at_risk(&self) -> &BTreeSet<String> {
        &self.at_risk
    }

    /// The files that need not be as a manifest says.
    pub fn may_differ(&self, path: &str) -> bool {
        self.at_risk.contains(path) || self.damaged.contains(path)
    }

    /// The directories that were there when something was promised last.
    pub fn promised_directories(&self) -> &BTreeSet<String> {
        let (_, oldest) = self.states.first_key_value().unwrap();
        &oldest.directories
    }

    /// A recovery has found this state. What a store with a promise finds and does not tell of is
    /// whole: after that, only what it told of and what later commits changed may be anything.
    pub fn find(&mut self, state: &State, durability: Durability, told: &BTreeSet<String>) {
        let generation = state.generation;
        if durability != Durability::Process && self.is_lost && !self.is_told {
            let later = self.weak.range(generation + 1..).flat_map(|(_, paths)| paths);
            self.at_risk = later.chain(told).cloned().collect();
        }
        self.states.retain(|number, _| *number <= generation);
        self.states.insert(generation, state.clone());
        self.weak.retain(|number, _| *number <= generation);
        (self.is_lost, self.is_told) = (false, durability == Durability::Process);
    }
}
