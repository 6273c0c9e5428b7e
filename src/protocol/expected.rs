//! Expected: what the caller says must be true when a transaction commits.
//!
//! Checked when it is said, and again under the lock. It is about the disk alone,
//! before the transaction's own changes. Looks and reads, and changes nothing.

use std::collections::HashSet;

use super::glance::{Answer, Glances, Question};
use super::root::Root;
use super::state::State;
use crate::checksum::Checksum;
use crate::error::{Error, Operation, Result};
use crate::expect::Clash;
use crate::fs::Kind;
use crate::generation::Generation;
use crate::path::RelativePath;

/// What must be true of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Expected {
    Absent,
    Present,
    Checksum(Checksum),
}

/// Everything that a transaction expects.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    paths: Vec<(RelativePath, Expected)>,
    /// The same, to find one among very many.
    known: HashSet<(RelativePath, Expected)>,
    generation: Option<Generation>,
}

impl Expectations {
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.generation.is_none()
    }

    /// Adds an expectation, whether it is true now or not.
    pub(crate) fn add(&mut self, path: RelativePath, expected: Expected) {
        if self.known.insert((path.clone(), expected)) {
            self.paths.push((path, expected));
        }
    }

    /// Expects the newest generation to be this one.
    pub(crate) fn expect_generation(&mut self, generation: Generation) {
        self.generation = Some(generation);
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        self.paths.iter().map(|(path, _)| path)
    }

    /// Whether nothing may be committed before this transaction.
    pub(crate) fn is_of_one_generation(&self) -> bool {
        self.generation.is_some()
    }

    /// Checks everything in a state.
    pub(crate) fn check(&self, root: &Root, state: &impl State, glances: &Glances) -> Result<()> {
        let found = state.generation();
        if let Some(expected) = self.generation.filter(|expected| *expected != found) {
            let found = Clash::Generation { expected, found };
            return Err(Error::Conflict { path: root.path().into(), found });
        }
        self.paths.iter().try_for_each(|(path, expected)| check(root, state, glances, path, *expected))
    }
}

/// Checks what is expected of one path.
pub(crate) fn check(
    root: &Root,
    state: &impl State,
    glances: &Glances,
    path: &RelativePath,
    expected: Expected,
) -> Result<()> {
    let conflict = |found| Err(Error::Conflict { path: root.full(path).into(), found });
    let found = glances.ask(root, state, path, Question::Kind)?;
    match (expected, found) {
        (Expected::Absent, Answer::Kind(None)) => Ok(()),
        (Expected::Absent, _) => conflict(Clash::Exists),
        (_, Answer::Kind(None)) => conflict(Clash::Missing),
        (Expected::Present, _) => Ok(()),
        (Expected::Checksum(expected), Answer::Kind(Some(Kind::File))) => {
            let Some(file) = state.open(root, path)? else { return conflict(Clash::Missing) };
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file).map_err(root.error(Operation::Read, path))?;
            if Checksum::of_all(&hasher) == expected { Ok(()) } else { conflict(Clash::Checksum) }
        }
        (Expected::Checksum(_), _) => conflict(Clash::Checksum),
    }
}
