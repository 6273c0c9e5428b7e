//! What a transaction has collected so far: one slot for each write or removal,
//! in the order in which they were begun.
//!
//! Shared by the transaction and its open writers. Knows which of several writes
//! to one path counts; writes no file itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::fs::Wave;
use crate::generation::TransactionId;
use crate::manifest::Stamp;
use crate::path::RelativePath;
use crate::protocol::cleanup::CleanupGuard;
use crate::protocol::resolve::Resolver;
use crate::protocol::session::Session;
use crate::protocol::stage::{Precondition, StagedChange};

#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// Present from the first staged file on.
    pub(crate) started: Option<Started>,
    /// By number, that is, in the order in which they were begun.
    pub(crate) slots: BTreeMap<u64, Slot>,
    /// The numbers of the slots of each path, rising; more than one while a later write is open.
    pub(crate) numbers_of: HashMap<RelativePath, Vec<u64>>,
    pub(crate) resolver: Resolver,
    pub(crate) reads: HashMap<RelativePath, Option<Stamp>>,
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) numbers: u64,
    /// Committed or aborted: a writer that finishes now is too late.
    pub(crate) closed: bool,
}

#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) id: TransactionId,
    pub(crate) session: Arc<Session>,
    pub(crate) cleanup: CleanupGuard,
    pub(crate) wave: Wave,
}

/// One path of the transaction, in the order of the last write to each.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) path: RelativePath,
    pub(crate) number: u64,
    pub(crate) content: Content,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are ready, so a box would only cost")]
pub(crate) enum Content {
    /// A writer has it.
    Open,
    /// Its writer was dropped without `finish`.
    Unfinished,
    Ready(StagedChange),
}

impl Slot {
    pub(crate) fn into_change(self) -> Option<StagedChange> {
        match self.content {
            Content::Ready(change) => Some(change),
            Content::Open | Content::Unfinished => None,
        }
    }
}

impl Draft {
    /// Takes the writes to a path that were begun before `number` out of the transaction, and their
    /// staged files away. Returns the newest.
    pub(crate) fn take(&mut self, path: &RelativePath, number: u64) -> Option<Content> {
        let numbers = self.numbers_of.get(path).cloned().unwrap_or_default();
        let earlier = numbers.into_iter().filter(|own| *own < number);
        earlier.filter_map(|number| self.take_one(number)).last()
    }

    fn take_one(&mut self, number: u64) -> Option<Content> {
        let slot = self.remove(number)?;
        let path = &slot.path;
        self.preconditions.retain(
            |condition| !matches!(condition, Precondition::Absent(other) | Precondition::Exists(other) if other == path),
        );
        if let (Content::Ready(StagedChange::Write(file)), Some(started)) = (&slot.content, &mut self.started)
        {
            started.cleanup.remove(&file.staged);
        }
        Some(slot.content)
    }

    pub(crate) fn put(&mut self, slot: Slot) {
        self.numbers_of.entry(slot.path.clone()).or_default().push(slot.number);
        self.slots.insert(slot.number, slot);
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Slot> {
        let slot = self.slots.remove(&number)?;
        if let Some(numbers) = self.numbers_of.get_mut(&slot.path) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.numbers_of.remove(&slot.path);
            }
        }
        Some(slot)
    }

    /// What was written to a path last.
    pub(crate) fn newest(&self, path: &RelativePath) -> Option<&Slot> {
        self.slots.get(self.numbers_of.get(path)?.last()?)
    }
}
