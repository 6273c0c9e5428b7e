//! The transaction: collects changes, and stages them as they come.
//!
//! Nothing that anybody reads is changed before `commit`. A small transaction stays
//! in memory until then; what goes beyond that is streamed to disk as it is
//! written, so memory does not grow with it.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::draft::{Content, Draft, Presence, Slot};
use crate::error::{Error, Operation, Result};
use crate::fs::{Metadata, ReadFile};
#[cfg(feature = "sim")]
use crate::generation::Generation;
use crate::generation::TransactionId;
use crate::manifest::Stamp;
use crate::options::Durability;
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::open::Opened;
use crate::protocol::resolve::{self, Target};
use crate::protocol::root::{Root, guard};
use crate::protocol::stage::{Collected, Precondition, StagedChange};
use crate::protocol::{check, copy};
use crate::report::{Change, Commit};
use crate::writer::{FileWriter, OpenFile};

/// A set of changes that happen together, or not at all.
///
/// Holds no lock and borrows nothing: any number can be under way at once, and a transaction can be
/// moved to another thread. Dropping it aborts it, and removes what it staged.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = cosave::Store::open(dir.path())?;
/// let mut tx = store.begin()?;
/// tx.write("config.json", b"{}")?;
/// tx.write_with("log.txt", |out| {
///     use std::io::Write;
///     writeln!(out, "configured")
/// })?;
/// tx.remove_if_exists("config.old")?;
/// for change in tx.changes() {
///     println!("{change}");
/// }
/// tx.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted: call `commit`"]
pub struct Transaction {
    opened: Arc<Opened>,
    draft: Arc<Mutex<Draft>>,
}

impl Transaction {
    pub(crate) fn new(opened: Arc<Opened>) -> Self {
        Self { opened, draft: Arc::default() }
    }

    /// Stages a file's next content. The file keeps the permissions of the one it replaces; missing
    /// directories are made. A later write to the same path wins. Up to a megabyte of a transaction
    /// stays in memory until it commits, so [`commit`](Self::commit) may be what finds the disk full.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] for a path that cannot be a target, [`Error::Io`] when staging fails;
    /// the transaction goes on without this write.
    pub fn write(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let mut open = self.begin_file(path.as_ref())?;
        if let Err(error) = open.take(bytes.as_ref()) {
            open.discard();
            return Err(error);
        }
        open.finish()
    }

    /// As [`write`](Self::write), with a function that writes the content to a buffered writer.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`Error::Io`] with what `fill` returns; then nothing is staged
    /// for this path.
    pub fn write_with(
        &mut self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut FileWriter) -> io::Result<()>,
    ) -> Result<()> {
        let path = path.as_ref();
        let mut writer = self.writer(path)?;
        if let Err(error) = fill(&mut writer) {
            writer.discard();
            return Err(Error::io(Operation::Stage, path)(error));
        }
        writer.finish()
    }

    /// A writer of a file's next content, to be filled on any thread and then
    /// [finished](FileWriter::finish). The commit fails if it was not.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn writer(&mut self, path: impl AsRef<Path>) -> Result<FileWriter> {
        let open = self.begin_file(path.as_ref())?;
        Ok(FileWriter::new(open))
    }

    /// As [`write`](Self::write), but the commit is a [`Conflict`](Error::Conflict) if the file
    /// exists by then. Of several that try, one wins.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn create_new(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.write(path.as_ref(), bytes)?;
        let target = self.resolve(path.as_ref())?.path;
        guard(&self.draft).presence.insert(target, Presence::Absent);
        Ok(())
    }

    /// As [`write`](Self::write), unless the file has these very bytes already: then it is left as
    /// it is, with its time stamp, so that build tools see no change. Returns whether it was staged.
    ///
    /// # Errors
    /// As [`write`](Self::write). The commit is a [`Conflict`](Error::Conflict) if a file that was
    /// left has changed by then.
    pub fn write_if_changed(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<bool> {
        let (path, bytes) = (path.as_ref(), bytes.as_ref());
        let target = self.resolve(path)?;
        let staged_before = guard(&self.draft).newest(&target.path).is_some();
        let same_length = target.existing.is_some_and(|found| found.length == bytes.len() as u64);
        if same_length && !staged_before {
            let (content, stamp) = self.read_target(&target.path)?;
            if content.as_deref() == Some(bytes) {
                guard(&self.draft).preconditions.push(Precondition::Same(target.path, stamp));
                return Ok(false);
            }
        }
        self.write(path, bytes)?;
        Ok(true)
    }

    /// Stages a copy of a file from anywhere, streamed.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`Error::Io`] when `source` cannot be read.
    pub fn copy_from(&mut self, path: impl AsRef<Path>, source: impl AsRef<Path>) -> Result<()> {
        let mut file = File::open(source.as_ref()).map_err(Error::io(Operation::Read, source.as_ref()))?;
        self.write_with(path, |out| copy::bytes(&mut file, out))
    }

    /// Removes a file. The commit is a [`Conflict`](Error::Conflict) if it is gone by then.
    ///
    /// # Errors
    /// [`Error::Io`] (`NotFound`) when there is no such file, [`Error::InvalidPath`].
    pub fn remove(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let target = self.resolve_to_remove(path)?;
        let existed = target.existing.is_some();
        let file = target.path.clone();
        if !self.remove_target(target)? {
            return Err(Error::io(Operation::Remove, path)(io::ErrorKind::NotFound.into()));
        }
        if existed {
            guard(&self.draft).presence.insert(file, Presence::Exists);
        }
        Ok(())
    }

    /// Removes a file if there is one. Returns whether there is one now.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] for a path that cannot be a target.
    pub fn remove_if_exists(&mut self, path: impl AsRef<Path>) -> Result<bool> {
        let target = self.resolve_to_remove(path.as_ref())?;
        self.remove_target(target)
    }

    /// Reads a file as this transaction would leave it: its own writes first. What is read from the
    /// disk is remembered: if it has changed by the commit, that is a [`Conflict`](Error::Conflict).
    ///
    /// # Errors
    /// [`Error::Io`] (`NotFound`) where there is none, [`Error::InvalidPath`], and those of
    /// [`Store::view`](crate::Store::view).
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let missing = || Error::io(Operation::Read, path)(io::ErrorKind::NotFound.into());
        let target = self.resolve(path)?;
        let staged = {
            let draft = guard(&self.draft);
            match draft.newest(&target.path) {
                Some(Slot { content: Content::Kept(file), .. }) => return Ok(file.bytes.clone()),
                Some(Slot { content: Content::Ready(StagedChange::Write(file)), .. }) => {
                    Some(file.staged.clone())
                }
                Some(Slot { content: Content::Ready(StagedChange::Remove(_)), .. }) => return Err(missing()),
                Some(_) => return Err(Error::Unfinished { path: path.to_path_buf() }),
                None => None,
            }
        };
        if let Some(staged) = staged {
            let file = self.root().fs.open(&staged).map_err(Error::io(Operation::Read, path))?;
            return read_all(file).map_err(Error::io(Operation::Read, path));
        }
        let (content, stamp) = self.read_target(&target.path)?;
        // What was read first is what everything else was decided by.
        guard(&self.draft).reads.entry(target.path).or_insert(stamp);
        content.ok_or_else(missing)
    }

    /// What a commit would do now: a dry run.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let draft = guard(&self.draft);
        draft.slots.values().filter_map(describe).collect()
    }

    /// Commits: all of the changes, or none.
    ///
    /// With [`Durability::Full`](crate::Durability::Full), when this returns `Ok` every file is in
    /// place, and stays so through a power loss.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Locked`], [`Error::Unfinished`], [`Error::Io`],
    /// [`Error::Poisoned`], [`Error::Blocked`]: nothing happened. [`Error::NotApplied`]: it is committed, and will be
    /// finished. [`Error::InDoubt`]: not known. [`Error::outcome`] tells these apart.
    pub fn commit(self) -> Result<Commit> {
        self.root().may_change()?;
        let (collected, changes) = match self.collect()? {
            Collection::Changes(collected, changes) => (*collected, changes),
            Collection::Nothing(id, preconditions) => return self.commit_nothing(id, &preconditions),
        };
        let id = collected.staging.id;
        let receipt = self.opened.commit(collected)?;
        Ok(Commit {
            generation: receipt.generation,
            transaction: id,
            durability: self.root().settings.durability,
            names_are_durable: receipt.durable.names_are_durable(),
            changes,
        })
    }

    /// Commits several transactions as one batch, as threads that are ready together do; only so that
    /// crash tests can make a batch without threads.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn commit_together(transactions: Vec<Self>) -> Vec<Result<Generation>> {
        let Some(first) = transactions.first() else { return Vec::new() };
        let opened = Arc::clone(&first.opened);
        let stage = |transaction: Self| match transaction.collect()? {
            Collection::Changes(collected, _) => opened.stage(*collected),
            Collection::Nothing(..) => Err(Error::Unfinished { path: opened.root.path() }),
        };
        match transactions.into_iter().map(stage).collect::<Result<Vec<_>>>() {
            Ok(batch) => {
                let answers = opened.commit_batch(batch).into_iter();
                answers.map(|(_, result)| result.map(|receipt| receipt.generation)).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    /// Gives up: removes everything that was staged. Nothing that anybody reads was changed.
    pub fn abort(self) {
        drop(self);
    }

    /// Takes everything that was collected out of the shared draft.
    fn collect(&self) -> Result<Collection> {
        let mut draft = guard(&self.draft);
        draft.closed = true;
        if let Some(slot) = draft.slots.values().find(|slot| slot.target().is_none()) {
            return Err(Error::Unfinished { path: self.root().full(&slot.path) });
        }
        let preconditions = draft.take_preconditions();
        if draft.slots.is_empty() {
            let id = TransactionId { session: uuid::Uuid::nil(), number: 0 };
            let id = draft.staging.as_ref().map_or(id, |staging| staging.id);
            return Ok(Collection::Nothing(id, preconditions));
        }
        refuse_aliases(self.root(), draft.slots.values().filter_map(Slot::target))?;
        let described = draft.slots.values().filter_map(describe).collect();
        draft.stage_kept(&self.opened, BTreeSet::new())?;
        let slots = std::mem::take(&mut draft.slots);
        let changes: Vec<_> = slots.into_values().filter_map(Slot::into_change).collect();
        let Some(mut staging) = draft.staging.take() else {
            return Err(Error::Unfinished { path: self.root().path() });
        };
        let removed = staging.cleanup.remove_all_but(changes.iter().filter_map(StagedChange::staged));
        removed.into_iter().for_each(|debt| staging.wave.add(debt));
        Ok(Collection::Changes(Box::new(Collected { staging, changes, preconditions }), described))
    }

    /// A transaction without changes publishes nothing; what it read must still be true.
    fn commit_nothing(&self, id: TransactionId, preconditions: &[Precondition]) -> Result<Commit> {
        let reading = self.opened.read()?;
        check::preconditions(self.root(), preconditions)?;
        Ok(Commit {
            generation: reading.generation,
            transaction: id,
            durability: self.root().settings.durability,
            names_are_durable: self.root().settings.durability != Durability::Process,
            changes: Vec::new(),
        })
    }

    fn resolve(&self, path: &Path) -> Result<Target> {
        self.root().refuse_child()?;
        let relative = resolve::relative(self.root(), path)?;
        guard(&self.draft).resolver.resolve(self.root(), &relative)
    }

    /// Where nothing is to be seen, a published manifest may be about to put something: it is finished
    /// before anybody is told that there is nothing to remove.
    fn resolve_to_remove(&self, path: &Path) -> Result<Target> {
        let target = self.resolve(path)?;
        if target.existing.is_some() {
            return Ok(target);
        }
        drop(self.opened.read()?);
        guard(&self.draft).resolver.clear();
        self.resolve(path)
    }

    fn begin_file(&mut self, path: &Path) -> Result<OpenFile> {
        self.root().may_change()?;
        let target = self.resolve(path)?;
        let checked = check::may_stage(self.root(), &target);
        let mut draft = guard(&self.draft);
        if let Err(error) = checked {
            // A directory on the way may have gone or changed since it was looked at.
            draft.resolver.clear();
            return Err(error);
        }
        draft.numbers += 1;
        let number = draft.numbers;
        // What was written to this path before goes when this write is finished: one that fails
        // must not take it along.
        draft.put(Slot { path: target.path.clone(), number, content: Content::Open });
        Ok(OpenFile::new(Arc::clone(&self.opened), Arc::clone(&self.draft), number, target))
    }

    fn root(&self) -> &Root {
        &self.opened.root
    }

    /// Returns whether there is anything to remove.
    fn remove_target(&mut self, target: Target) -> Result<bool> {
        check::may_remove(self.root(), &target)?;
        let mut draft = guard(&self.draft);
        let path = target.path.clone();
        let newest = draft.newest(&path).map(|slot| &slot.content);
        if matches!(newest, Some(Content::Ready(StagedChange::Remove(_)))) {
            // Removed already; that removal stands, with what it relies on.
            return Ok(false);
        }
        let removed = draft.take(&path, u64::MAX);
        if target.existing.is_some() {
            draft.numbers += 1;
            let number = draft.numbers;
            let content = Content::Ready(StagedChange::Remove(target));
            draft.put(Slot { path, number, content });
            return Ok(true);
        }
        Ok(matches!(removed, Some(Content::Ready(StagedChange::Write(_)) | Content::Kept(_) | Content::Open)))
    }

    /// Reads what is committed at `path`, with its stamp.
    fn read_target(&self, path: &RelativePath) -> Result<(Option<Vec<u8>>, Option<Stamp>)> {
        let reading = self.opened.read()?;
        let failed = |error| self.root().error(Operation::Read, path)(error);
        match reading.open(self.root(), path)? {
            None => Ok((None, None)),
            Some(file) => {
                let stamp = Stamp::of(&file.metadata().map_err(failed)?);
                Ok((Some(read_all(file).map_err(failed)?), Some(stamp)))
            }
        }
    }
}

enum Collection {
    Changes(Box<Collected>, Vec<Change>),
    Nothing(TransactionId, Vec<Precondition>),
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.root().is_own_process() {
            return;
        }
        let mut draft = guard(&self.draft);
        draft.closed = true;
        // The guard in it removes what was staged.
        draft.staging.take();
    }
}

/// Two spellings of one file, on a file system that folds case or normalises, would be two renames
/// over one name. Two hard links are two names, and each is replaced for itself.
fn refuse_aliases<'a>(root: &Root, targets: impl Iterator<Item = &'a Target>) -> Result<()> {
    let mut seen = HashSet::new();
    for target in targets {
        let Some(Metadata { identity: Some(identity), links: 1, .. }) = target.existing else { continue };
        if !seen.insert(identity) {
            return Err(Error::invalid(root.full(&target.path), InvalidPath::Alias));
        }
    }
    Ok(())
}

fn describe(slot: &Slot) -> Option<Change> {
    let path = slot.path.clone();
    let (target, length) = match &slot.content {
        Content::Kept(file) => (&file.target, file.bytes.len() as u64),
        Content::Ready(StagedChange::Write(file)) => (&file.target, file.length()),
        Content::Ready(StagedChange::Remove(_)) => return Some(Change::Remove { path }),
        Content::Open | Content::Unfinished => return None,
    };
    Some(match target.existing {
        Some(_) => Change::Replace { path, length },
        None => Change::Create { path, length },
    })
}

fn read_all(mut file: Box<dyn ReadFile>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
