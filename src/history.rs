//! What a store's history says: plain data, and the order of undoing and redoing.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::error::{Error, Reason, Result};
use crate::generation::{Generation, TransactionId};
use crate::path::RelativePath;
use crate::protocol::history_record::{Becomes, Kept, Original, Past, Record, Undo, Was};
use crate::protocol::past::{History, Plan};
use crate::protocol::root::Root;
use crate::report::Change;

/// An earlier commit, as [`Store::history`](crate::Store::history) shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastCommit {
    generation: Generation,
    transaction: TransactionId,
    time: SystemTime,
    brought_back: Option<Generation>,
    changes: Vec<Change>,
    not_kept: Vec<RelativePath>,
}

impl PastCommit {
    pub(crate) fn new(record: &Record) -> Self {
        let not_kept =
            |past: &&Past| matches!(past.before, Was::Unknown | Was::File(Original { kept: Kept::Not, .. }));
        Self {
            generation: record.generation,
            transaction: record.transaction,
            time: record.time.into(),
            brought_back: record.undo.map(|undo| undo.state),
            changes: record.entries.iter().flat_map(changes).collect(),
            not_kept: record.entries.iter().filter(not_kept).map(|past| past.path.clone()).collect(),
        }
    }

    /// The commit's number.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The transaction's id.
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// When it was committed, by the clock of its process.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.time
    }

    /// The generation whose state an undo or a redo has brought back.
    #[must_use]
    pub fn brought_back(&self) -> Option<Generation> {
        self.brought_back
    }

    /// What it changed, path by path, without the modes that files were given.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The paths whose originals were not kept, so that they cannot be brought back.
    #[must_use]
    pub fn not_kept(&self) -> &[RelativePath] {
        &self.not_kept
    }
}

impl fmt::Display for PastCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.generation)?;
        if let Some(state) = self.brought_back {
            write!(f, ", which brought back generation {state}")?;
        }
        for change in &self.changes {
            write!(f, "\n{change}")?;
            if self.not_kept.contains(change.path()) {
                write!(f, ", not kept")?;
            }
        }
        Ok(())
    }
}

/// What a commit did at a path.
fn changes(past: &Past) -> impl Iterator<Item = Change> {
    let path = || past.path.clone();
    let removed = match &past.after {
        _ if past.over => Some(Change::RemoveTree { path: path() }),
        Becomes::MovedTree(moved) if moved.is_built() => Some(Change::Remove { path: path(), old_length: 0 }),
        _ => None,
    };
    removed.into_iter().chain([change(past)])
}

fn change(past: &Past) -> Change {
    let path = past.path.clone();
    match (&past.before, &past.after) {
        (_, Becomes::MovedTree(moved)) if moved.is_built() => Change::CreateDirectory { path, mode: None },
        (_, Becomes::Directory) => Change::CreateDirectory { path, mode: None },
        (Was::Directory(_), Becomes::Nothing) => Change::RemoveDirectory { path },
        (Was::File(original), Becomes::Nothing) => Change::Remove { path, old_length: original.stamp.length },
        (_, Becomes::Nothing) => Change::Remove { path, old_length: 0 },
        (Was::File(original), Becomes::File(written)) => {
            let (old_length, length) = (original.stamp.length, written.stamp.length);
            Change::Replace { path, old_length, length, mode: None }
        }
        (_, Becomes::File(written)) => Change::Create { path, length: written.stamp.length, mode: None },
        (_, Becomes::MovedTree(moved)) => {
            Change::MoveTree { from: moved.from.clone(), path, replaces: moved.replaces }
        }
        (_, Becomes::RemovedTree) => Change::RemoveTree { path },
        (_, Becomes::Link(link)) => Change::Link { path, to: link.to.clone() },
    }
}

/// Which way to go through the states that were committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Back,
    Forth,
}

/// The generation that first had the state of this one: an undo brings an earlier one back.
fn first_with_state(history: &History, generation: Generation) -> Generation {
    let undo = history.record(generation).and_then(|record| record.undo);
    undo.map_or(generation, |undo| undo.state)
}

/// A state on the way back or forth.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// The generation that first had it.
    first: Generation,
    /// The latest one on this way that had it. The history reaches back to it longer.
    latest: Generation,
}

impl Stop {
    fn at(history: &History, generation: Generation) -> Self {
        Self { first: first_with_state(history, generation), latest: generation }
    }

    /// Whether the way on is not known any more.
    fn is_at_the_end(self, history: &History) -> bool {
        self.latest > Generation::default() && history.record(self.latest).is_none()
    }

    /// The state before this one, if that is known.
    fn before(self, history: &History) -> Option<Self> {
        let earlier = self.first.get().checked_sub(1).filter(|_| !self.is_at_the_end(history))?;
        Some(Self::at(history, Generation::from(earlier)))
    }
}

/// The plan of an undo or redo. A state that is the same as the current one is skipped, since to bring it
/// back would change nothing.
pub(crate) fn step(root: &Root, history: &History, direction: Direction) -> Result<(Plan, Undo)> {
    let newest = history.newest();
    let now = Stop::at(history, newest);
    let top = history.record(newest).and_then(|record| record.undo).map_or(newest, |undo| undo.top);
    let back_from = |start| std::iter::successors(start, |stop: &Stop| stop.before(history));
    let stops: Vec<_> = match direction {
        Direction::Back => back_from(now.before(history)).collect(),
        Direction::Forth => {
            let above = back_from(Some(Stop::at(history, top)));
            let mut above: Vec<_> = above.take_while(|stop| stop.first > now.first).collect();
            above.reverse();
            above
        }
    };
    let end = stops.last().copied().unwrap_or(now);
    for stop in stops {
        let plan = history.plan(root, stop.latest)?;
        if !plan.steps.is_empty() {
            return Ok((plan, Undo { state: stop.first, top }));
        }
    }
    let reason = match direction {
        Direction::Back if end.is_at_the_end(history) => history.why_none(root),
        Direction::Back | Direction::Forth => Reason::NothingToUndo,
    };
    Err(Error::Unsupported { path: root.path().into(), reason })
}
