//! What a transaction would do: its changes in the order of writing, and what
//! would refuse them.
//!
//! A plan asks the same questions as a commit, and changes nothing.

use std::collections::HashMap;

use super::Transaction;
use crate::draft::{Content, Draft, Slot};
use crate::error::{Error, Result};
use crate::fs::Metadata;
use crate::generation::TransactionId;
use crate::manifest::Before;
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::check;
use crate::protocol::resolve::Target;
use crate::protocol::root::{Root, guard};
use crate::protocol::stage::{KeptLink, StagedChange, StagedSymlink, Staging};
use crate::pruning;
use crate::report::Change;

impl Transaction {
    /// The id that its commit will have. Write it down before the commit: whoever does not learn what became
    /// of that, because a time-out dropped its future or the process was killed, can ask
    /// [`Store::outcome_of`](crate::Store::outcome_of). That knows it until the next commits have superseded this
    /// one. With [`keep`](crate::StoreOptions::keep), [`Store::history`](crate::Store::history) has it for
    /// longer.
    ///
    /// In [`Store::update`](crate::Store::update) each try has an id of its own.
    ///
    /// # Errors
    /// - [`Error::Unsupported`] if the transaction is over, and in a dry run.
    /// - [`Error::Io`] if no session can begin.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// use cosave::TransactionOutcome;
    ///
    /// let mut tx = store.begin()?;
    /// let id = tx.id()?;
    /// tx.write("a", "1")?;
    /// let commit = tx.commit()?;
    /// assert_eq!(commit.transaction(), id);
    /// assert!(matches!(store.outcome_of(id)?, TransactionOutcome::Committed { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> Result<TransactionId> {
        let mut draft = guard(&self.draft);
        self.refuse_if_over(&draft)?;
        if let Some(staging) = draft.staging.as_ref().or(draft.reserved.as_ref()) {
            return Ok(staging.id);
        }
        let reserved = Staging::new(&self.opened.root, self.opened.session()?);
        Ok(draft.reserved.insert(reserved).id)
    }

    /// The changes that a commit would make now, in the order of the last write to each path, with the
    /// directories that would be [pruned](Self::prune_empty_parents). Stages nothing that is not staged
    /// already. [`Store::dry_run`](crate::Store::dry_run) begins a transaction that never stages.
    ///
    /// # Errors
    /// Those with which a commit would refuse these changes now, as far as that can be known without
    /// staging them.
    ///
    /// - [`Error::InvalidPath`] if two changes contradict each other.
    /// - [`Error::Unfinished`] if a writer is not finished.
    /// - [`Error::Conflict`] if a precondition is not met, or what was read has changed.
    /// - [`Error::Unsupported`] if the transaction is over.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("a", "old"))?;
    /// let mut tx = store.begin()?;
    /// tx.write("a", "newer")?;
    /// tx.file("run.sh").mode(0o755).write("")?;
    /// let shown: Vec<_> = tx.changes()?.iter().map(ToString::to_string).collect();
    /// assert_eq!(shown, ["replace a (3 -> 5 bytes)", "create  run.sh (0 bytes, mode 755)"]);
    /// tx.create_new("a", "mine")?;
    /// assert!(tx.changes().unwrap_err().is_conflict());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn changes(&self) -> Result<Vec<Change>> {
        self.plan().map_err(|error| self.named(error))
    }

    fn plan(&self) -> Result<Vec<Change>> {
        self.root().refuse_child()?;
        self.refuse_if_over(&guard(&self.draft))?;
        let relies_on_something = {
            let snapshot = guard(&self.snapshot);
            !snapshot.is_empty() || !snapshot.expectations.is_empty()
        };
        if relies_on_something {
            let reading = self.join()?;
            let mut snapshot = guard(&self.snapshot);
            snapshot.check(self.root(), &reading)?;
            snapshot.check_expected(self.root(), &reading)?;
        }
        let mut draft = guard(&self.draft);
        self.refuse_unfinished(&draft)?;
        let settled = self.settle(&mut draft);
        // Later changes may need what would be pruned now.
        pruning::unprune(&mut draft);
        let changes = settled?;
        check::preconditions(self.root(), &draft.preconditions)?;
        Ok(changes)
    }

    pub(super) fn refuse_unfinished(&self, draft: &Draft) -> Result<()> {
        match draft.slots.values().find(|slot| slot.target().is_none()) {
            Some(slot) => Err(Error::Unfinished { path: self.root().full(&slot.path).into() }),
            None => Ok(()),
        }
    }

    /// Adds what follows from all changes together, refuses what cannot be, and says what is left.
    pub(super) fn settle(&self, draft: &mut Draft) -> Result<Vec<Change>> {
        pruning::prune(self.root(), draft)?;
        pruning::refuse_contradictions(self.root(), draft)?;
        refuse_aliases(self.root(), draft.slots.values().filter_map(Slot::target))?;
        Ok(draft.slots.values().filter_map(describe).collect())
    }

    /// The changes as they were made. Others may have made or replaced a file since it was looked at, and a write
    /// that expects nothing is over theirs.
    pub(super) fn as_found(changes: Vec<Change>, found: Vec<(RelativePath, Option<Before>)>) -> Vec<Change> {
        let mut found: HashMap<_, _> = found.into_iter().collect();
        let as_made = |change: Change| {
            let Some(before) = found.remove(change.path()) else { return change };
            match (change, before) {
                (Change::Create { path, length, mode }, Some(Before { stamp, is_link: false, .. })) => {
                    Change::Replace { path, old_length: stamp.length, length, mode }
                }
                (Change::Replace { path, length, mode, .. }, None) => Change::Create { path, length, mode },
                (Change::Replace { path, length, mode, .. }, Some(before)) => {
                    Change::Replace { path, old_length: before.stamp.length, length, mode }
                }
                (Change::Remove { path, .. }, Some(before)) => {
                    Change::Remove { path, old_length: before.stamp.length }
                }
                (change, _) => change,
            }
        };
        changes.into_iter().map(as_made).collect()
    }
}

/// Refuses two spellings of one file, on a file system that folds case or normalises names: they would
/// be two renames over one name. Two hard links are two names, and each is replaced by itself.
fn refuse_aliases<'a>(root: &Root, targets: impl Iterator<Item = &'a Target>) -> Result<()> {
    let mut seen = HashMap::new();
    for target in targets {
        let Some(Metadata { identity: Some(identity), links: 1, .. }) = target.existing else { continue };
        if let Some(other) = seen.insert(identity, &target.path) {
            if are_one(root, other, &target.path)? {
                return Err(Error::invalid(root.full(&target.path), InvalidPath::Alias));
            }
        }
    }
    Ok(())
}

/// Whether two paths lead to one file now. They were looked at one after the other, and others may have
/// replaced a file in between. Its number is used again at once. So the first is looked at twice.
fn are_one(root: &Root, one: &RelativePath, other: &RelativePath) -> Result<bool> {
    let identity = |path| -> Result<_> { Ok(root.look(path)?.and_then(|found| found.identity)) };
    let (first, second, third) = (identity(one)?, identity(other)?, identity(one)?);
    Ok(first.is_some() && first == second && second == third)
}

fn describe(slot: &Slot) -> Option<Change> {
    let path = slot.path.clone();
    let (target, length) = match &slot.content {
        Content::Kept(file) => (&file.target, file.bytes.len() as u64),
        Content::Ready(StagedChange::Write(file)) => (&file.target, file.length()),
        Content::Link(KeptLink { to, .. }) | Content::Ready(StagedChange::Link(StagedSymlink { to, .. })) => {
            return Some(Change::Link { path, to: to.clone() });
        }
        Content::Ready(StagedChange::Remove(target)) => {
            let old_length = target.existing.map_or(0, |found| found.length);
            return Some(Change::Remove { path, old_length });
        }
        Content::Ready(StagedChange::CreateDirectory(target)) => {
            return Some(Change::CreateDirectory { path, mode: target.attributes.mode });
        }
        Content::Ready(StagedChange::RemoveDirectory(_)) => return Some(Change::RemoveDirectory { path }),
        Content::Ready(StagedChange::MoveTree(_, moved)) => {
            let (from, replaces) = (moved.from.clone(), moved.replaced.is_some());
            return Some(Change::MoveTree { from, path, replaces });
        }
        Content::Ready(StagedChange::RemoveTree(..)) => return Some(Change::RemoveTree { path }),
        Content::Ready(StagedChange::Over(..) | StagedChange::BuildTree(..)) => return None,
        Content::Open | Content::Unfinished => return None,
    };
    let mode = target.attributes.mode;
    Some(match target.existing {
        Some(found) => Change::Replace { path, old_length: found.length, length, mode },
        None => Change::Create { path, length, mode },
    })
}
