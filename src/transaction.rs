//! The transaction: collects changes, and stages them.
//!
//! No target is changed before `commit`. A small transaction stays in memory
//! until then. A larger one is streamed to disk as it is written, so memory
//! does not grow with it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::draft::{Content, Draft, Slot};
use crate::error::{Error, Operation, Result};
use crate::fs::{Durable, Metadata, ReadFile};
#[cfg(feature = "sim")]
use crate::generation::Generation;
use crate::generation::TransactionId;
use crate::options::Durability;
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::open::Opened;
use crate::protocol::resolve::{self, Target};
use crate::protocol::root::{Root, guard};
use crate::protocol::snapshot::{self, Seen, Snapshot};
use crate::protocol::stage::{Collected, Preconditions, Presence, StagedChange};
use crate::protocol::{check, copy};
use crate::report::{Change, Commit};
use crate::writer::FileWriter;

/// A set of changes that happen together, or not at all.
///
/// A transaction holds no lock and borrows nothing. So any number can be under way at once, and each
/// can be moved to another thread. Dropping it aborts it, and removes what it staged.
///
/// # Examples
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
#[must_use = "a dropped transaction is aborted: call `commit`"]
pub struct Transaction {
    opened: Arc<Opened>,
    draft: Arc<Mutex<Draft>>,
    /// What was read. Writers do not need it, so none waits for a read.
    snapshot: Mutex<Snapshot>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root().debug(f, "Transaction").finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn new(opened: Arc<Opened>) -> Self {
        Self { opened, draft: Arc::default(), snapshot: Mutex::default() }
    }

    /// Stages a file's next content. Its permissions are copied from the file that it replaces, and
    /// missing directories are made. A later write to the same path wins. Up to a megabyte of a
    /// transaction stays in memory until it commits. So a full disk may be noticed only by
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// After an error the transaction goes on without this write.
    ///
    /// - [`Error::InvalidPath`] if the path cannot be a target.
    /// - [`Error::Io`] if staging fails.
    pub fn write(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let mut writer = self.writer(path)?;
        if let Err(error) = writer.take(bytes.as_ref()) {
            writer.discard();
            return Err(error);
        }
        writer.finish()
    }

    /// Like [`write`](Self::write), with a function that writes the content to a buffered writer.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and [`Error::Io`] with the error that `fill` returns. Nothing is
    /// staged for this path then.
    pub fn write_with(
        &mut self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut FileWriter) -> io::Result<()>,
    ) -> Result<()> {
        let mut writer = self.writer(path)?;
        if let Err(error) = fill(&mut writer) {
            let path = writer.full_path();
            writer.discard();
            return Err(Error::io(Operation::Stage, path)(error));
        }
        writer.finish()
    }

    /// Returns a writer of a file's next content. Fill it on any thread, then
    /// [finish](FileWriter::finish) it. The commit fails if it was not finished.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn writer(&mut self, path: impl AsRef<Path>) -> Result<FileWriter> {
        self.root().may_change()?;
        let target = self.resolve_to_stage(path.as_ref())?;
        let mut draft = guard(&self.draft);
        draft.numbers += 1;
        let number = draft.numbers;
        // An earlier write to this path is dropped only when this one is finished, so that a failed
        // write does not lose it.
        draft.put(Slot { path: target.path.clone(), number, content: Content::Open });
        Ok(FileWriter::new(Arc::clone(&self.opened), Arc::clone(&self.draft), number, target))
    }

    /// Like [`write`](Self::write), but the commit is a [`Conflict`](Error::Conflict) if the file
    /// exists by then. If several transactions try, one wins.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn create_new(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.write(path.as_ref(), bytes)?;
        let target = self.resolve(path.as_ref())?.path;
        guard(&self.draft).preconditions.insert(target, Presence::Absent);
        Ok(())
    }

    /// Like [`write`](Self::write), unless the file has exactly these bytes already. Then it is left as
    /// it is, with its time stamp, so that build tools see no change. Returns whether the file was
    /// staged.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and [`Error::Conflict`] as for [`read`](Self::read). The commit
    /// is a conflict too if a file that was left as it was has changed by then.
    pub fn write_if_changed(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<bool> {
        let (path, bytes) = (path.as_ref(), bytes.as_ref());
        let target = self.resolve(path)?;
        let staged_before = guard(&self.draft).newest(&target.path).is_some();
        let same_length = target.existing.is_some_and(|found| found.length == bytes.len() as u64);
        if same_length && !staged_before {
            let (content, seen) = self.see(&target.path)?;
            if content.as_deref() == Some(bytes) {
                guard(&self.snapshot).remember(self.root(), &target.path, seen)?;
                return Ok(false);
            }
        }
        self.write(path, bytes)?;
        Ok(true)
    }

    /// Stages a copy of any file. The copy is streamed.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and [`Error::Io`] if `source` cannot be read.
    pub fn copy_from(&mut self, path: impl AsRef<Path>, source: impl AsRef<Path>) -> Result<()> {
        let mut file = File::open(source.as_ref()).map_err(Error::io(Operation::Read, source.as_ref()))?;
        self.write_with(path, |out| copy::bytes(&mut file, out))
    }

    /// Removes a file. The commit is a [`Conflict`](Error::Conflict) if the file is gone by then.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if the path cannot be a target.
    /// - [`Error::Io`], of kind `NotFound` if there is no such file.
    pub fn remove(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let target = self.resolve_to_remove(path.as_ref())?;
        let existed = target.existing.is_some();
        let file = target.path.clone();
        if !self.remove_target(target)? {
            return Err(self.root().error(Operation::Remove, &file)(io::ErrorKind::NotFound.into()));
        }
        if existed {
            guard(&self.draft).preconditions.insert(file, Presence::Exists);
        }
        Ok(())
    }

    /// Removes a file if there is one. Returns whether there was one.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if the path cannot be a target.
    pub fn remove_if_exists(&mut self, path: impl AsRef<Path>) -> Result<bool> {
        let target = self.resolve_to_remove(path.as_ref())?;
        self.remove_target(target)
    }

    /// Reads a file as this transaction would leave it, with the transaction's own writes. The commit
    /// is a [`Conflict`](Error::Conflict) if a file that was read from disk has changed by then. The
    /// content decides, or the absence of a file, whatever the file's time says. A file that was
    /// written anew with the same bytes has not changed.
    ///
    /// Everything that a transaction reads is of one state. If others have committed since the last
    /// read and changed what was read, this returns a conflict. So does every later read, and the
    /// commit.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if no file of the root can have this path.
    /// - [`Error::Io`], of kind `NotFound` if there is no such file.
    /// - [`Error::Conflict`] if something that was read has changed.
    /// - Those of [`Store::view`](crate::Store::view).
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = self.resolve(path.as_ref())?.path;
        let missing = || self.root().error(Operation::Read, &path)(io::ErrorKind::NotFound.into());
        self.read_target(&path)?.ok_or_else(missing)
    }

    /// Like [`read`](Self::read), but `None` if there is no such file. The commit is a
    /// [`Conflict`](Error::Conflict) if there is one by then.
    ///
    /// # Errors
    /// As for [`read`](Self::read), but a missing file is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// let list = tx.read_if_exists("list.txt")?.unwrap_or_default();
    /// tx.write("list.txt", [list.as_slice(), b"one more\n"].concat())?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("list.txt"))?, b"one more\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_if_exists(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        self.read_target(&self.resolve(path.as_ref())?.path)
    }

    /// Reads a file whose path is resolved; `None` if there is none.
    fn read_target(&self, path: &RelativePath) -> Result<Option<Vec<u8>>> {
        let staged = {
            let draft = guard(&self.draft);
            match draft.newest(path) {
                Some(Slot { content: Content::Kept(file), .. }) => return Ok(Some(file.bytes.clone())),
                Some(Slot { content: Content::Ready(StagedChange::Write(file)), .. }) => {
                    Some(file.staged.clone())
                }
                Some(Slot { content: Content::Ready(StagedChange::Remove(_)), .. }) => return Ok(None),
                Some(_) => return Err(Error::Unfinished { path: self.root().full(path) }),
                None => None,
            }
        };
        if let Some(staged) = staged {
            let bytes = self.root().fs.open(&staged).and_then(read_all);
            return bytes.map(Some).map_err(self.root().error(Operation::Read, path));
        }
        let (content, seen) = self.see(path)?;
        guard(&self.snapshot).remember(self.root(), path, seen)?;
        Ok(content)
    }

    /// The changes that a commit would make now. A dry run calls this, and then
    /// [`abort`](Self::abort).
    ///
    /// A dry run needs a store that may write. It makes the control directory if it reads, or if it
    /// writes more than stays in memory.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let draft = guard(&self.draft);
        draft.slots.values().filter_map(describe).collect()
    }

    /// Commits all changes, or none.
    ///
    /// With [`Durability::Full`](crate::Durability::Full), every file is in place when this returns
    /// `Ok`, and a power loss cannot undo that. Other programs see each file whole at any moment, but
    /// between two moves they may see one new and one old. Views never do.
    ///
    /// # Errors
    /// [`Error::outcome`] says which of three things is true.
    ///
    /// - Nothing was changed: [`Error::Conflict`], [`Error::Locked`], [`Error::Unfinished`],
    ///   [`Error::Io`], [`Error::Poisoned`], [`Error::Blocked`].
    /// - It is committed, and will be finished: [`Error::NotApplied`].
    /// - It is not known whether it is committed: [`Error::InDoubt`].
    pub fn commit(self) -> Result<Commit> {
        self.root().may_change()?;
        let (collected, changes) = match self.collect()? {
            Collection::Changes(collected, changes) => (*collected, changes),
            Collection::Nothing(id, preconditions, snapshot) => {
                return self.commit_nothing(id, &preconditions, snapshot);
            }
        };
        let id = collected.staging.id;
        let receipt = self.opened.commit(collected)?;
        Ok(Commit {
            generation: receipt.generation,
            transaction: id,
            durability: self.root().settings.durability,
            names_are_durable: receipt.durable == Durable::Synced,
            changes,
        })
    }

    /// Stages several transactions before it publishes the first, as threads that are ready together
    /// do. For crash tests, which need this without threads.
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
                let answers = opened.commit_batches(batch).into_iter();
                answers.map(|(_, result)| result.map(|receipt| receipt.generation)).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    /// Aborts, and removes everything that was staged. No target has changed.
    pub fn abort(self) {
        drop(self);
    }

    /// Takes everything that was collected from the shared draft.
    fn collect(&self) -> Result<Collection> {
        let mut draft = guard(&self.draft);
        draft.closed = true;
        if let Some(slot) = draft.slots.values().find(|slot| slot.target().is_none()) {
            return Err(Error::Unfinished { path: self.root().full(&slot.path) });
        }
        let preconditions = std::mem::take(&mut draft.preconditions);
        let snapshot = std::mem::take(&mut *guard(&self.snapshot));
        snapshot.intact(self.root())?;
        if draft.slots.is_empty() {
            let id = TransactionId { session: uuid::Uuid::nil(), number: 0 };
            let id = draft.staging.as_ref().map_or(id, |staging| staging.id);
            return Ok(Collection::Nothing(id, preconditions, snapshot));
        }
        refuse_aliases(self.root(), draft.slots.values().filter_map(Slot::target))?;
        let described = draft.slots.values().filter_map(describe).collect();
        let is_small = draft.is_small();
        draft.stage_kept(&self.opened, BTreeSet::new(), is_small)?;
        let slots = std::mem::take(&mut draft.slots);
        let changes: Vec<_> = slots.into_values().filter_map(Slot::into_change).collect();
        let Some(mut staging) = draft.staging.take() else {
            return Err(Error::Unfinished { path: self.root().path() });
        };
        let removed = staging.cleanup.remove_all_but(changes.iter().filter_map(StagedChange::staged));
        staging.wave.add(removed);
        Ok(Collection::Changes(Box::new(Collected { staging, changes, preconditions, snapshot }), described))
    }

    /// Commits a transaction without changes. It publishes nothing, but what it read must still be
    /// true.
    fn commit_nothing(
        &self,
        id: TransactionId,
        preconditions: &Preconditions,
        mut snapshot: Snapshot,
    ) -> Result<Commit> {
        let reading = self.opened.read()?;
        check::preconditions(self.root(), preconditions)?;
        snapshot.check(self.root(), &reading)?;
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

    /// Resolves a path that is to be removed. If no file is visible, a pending manifest may be about to
    /// create it. So pending manifests are finished before the answer is that there is nothing to
    /// remove.
    fn resolve_to_remove(&self, path: &Path) -> Result<Target> {
        let target = self.resolve(path)?;
        if target.existing.is_some() {
            return Ok(target);
        }
        drop(self.opened.read()?);
        guard(&self.draft).resolver.clear();
        self.resolve(path)
    }

    /// Resolves a path at which a file is to be staged. A directory above it may have been removed or
    /// replaced since it was looked at, so it is looked at anew before anything is refused.
    fn resolve_to_stage(&self, path: &Path) -> Result<Target> {
        let target = self.resolve(path)?;
        if check::may_stage(self.root(), &target).is_ok() {
            return Ok(target);
        }
        guard(&self.draft).resolver.clear();
        let target = self.resolve(path)?;
        check::may_stage(self.root(), &target)?;
        Ok(target)
    }

    fn root(&self) -> &Root {
        &self.opened.root
    }

    /// Removes a target. Returns whether there is anything to remove.
    fn remove_target(&mut self, target: Target) -> Result<bool> {
        check::may_remove(self.root(), &target)?;
        let mut draft = guard(&self.draft);
        let path = target.path.clone();
        let newest = draft.newest(&path).map(|slot| &slot.content);
        if matches!(newest, Some(Content::Ready(StagedChange::Remove(_)))) {
            // It is removed already, and that removal stays with its precondition.
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

    /// Reads the committed file at `path`, in one state with everything that was read before.
    fn see(&self, path: &RelativePath) -> Result<(Option<Vec<u8>>, Seen)> {
        let reading = self.opened.read()?;
        guard(&self.snapshot).join(self.root(), &reading)?;
        // The lock is still held, so this is the state that was joined.
        snapshot::see(self.root(), &reading, path)
    }

    /// Whether something that was read has changed since, so that decisions based on it are void.
    pub(crate) fn has_read_what_changed(&self) -> bool {
        let mut snapshot = guard(&self.snapshot);
        if snapshot.is_empty() {
            return false;
        }
        let checked = self.opened.read().and_then(|reading| snapshot.check(self.root(), &reading));
        checked.is_err_and(|error| error.is_conflict())
    }
}

enum Collection {
    Changes(Box<Collected>, Vec<Change>),
    Nothing(TransactionId, Preconditions, Snapshot),
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.root().is_own_process() {
            return;
        }
        let mut draft = guard(&self.draft);
        draft.closed = true;
        // Dropping the cleanup guard in it removes what was staged.
        draft.staging.take();
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
    let identity = |path| Ok(root.look(path)?.and_then(|found| found.identity));
    let (first, second, third) = (identity(one)?, identity(other)?, identity(one)?);
    Ok(first.is_some() && first == second && second == third)
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
