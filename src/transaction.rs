//! The transaction: collects changes, and stages them as they come.
//!
//! Nothing that anybody reads is changed before `commit`. Files are streamed to
//! disk as they are written, so memory does not grow with them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Metadata, ReadFile, Wave};
use crate::manifest::{Stamp, TransactionId};
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::check::{self, Resolver, Target};
use crate::protocol::layout::StagedId;
use crate::protocol::leftovers::Leftovers;
use crate::protocol::session::Session;
use crate::protocol::stage::{self, Collected, Precondition, StagedChange, StagedWriter};
use crate::protocol::{Engine, group, lock, read};
use crate::report::{Change, Commit};

/// How much a writer buffers, in bytes: few system calls, and little memory for many writers.
const BUFFER_BYTES: usize = 64 * 1024;

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
    engine: Arc<Engine>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Present from the first staged file on.
    started: Option<Started>,
    /// By number, that is, in the order in which they were begun.
    slots: BTreeMap<u64, Slot>,
    /// The numbers of the slots of each path, rising; more than one while a later write is open.
    numbers_of: HashMap<RelativePath, Vec<u64>>,
    resolver: Resolver,
    reads: HashMap<RelativePath, Option<Stamp>>,
    preconditions: Vec<Precondition>,
    numbers: u64,
    /// Committed or aborted: a writer that finishes now is too late.
    closed: bool,
}

#[derive(Debug)]
struct Started {
    id: TransactionId,
    session: Arc<Session>,
    leftovers: Leftovers,
    wave: Wave,
}

/// One path of the transaction, in the order of the last write to each.
#[derive(Debug)]
struct Slot {
    path: RelativePath,
    number: u64,
    content: Content,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are ready, so a box would only cost")]
enum Content {
    /// A writer has it.
    Open,
    /// Its writer was dropped without `finish`.
    Unfinished,
    Ready(StagedChange),
}

impl Transaction {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, state: Arc::default() }
    }

    /// Stages a file's next content. The file keeps the permissions of the one it replaces; missing
    /// directories are made. A later write to the same path wins.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] for a path that cannot be a target, [`Error::Io`] when staging fails;
    /// the transaction goes on without this write.
    pub fn write(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let mut open = self.begin_file(path)?;
        let written = open.write(|file| file.write_all(bytes.as_ref()));
        if let Err(error) = written {
            open.forget();
            return Err(Error::io(Operation::Stage, path)(error));
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
            writer.forget();
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
        Ok(FileWriter { inner: Some(BufWriter::with_capacity(BUFFER_BYTES, open)) })
    }

    /// As [`write`](Self::write), but the commit is a [`Conflict`](Error::Conflict) if the file
    /// exists by then. Of several that try, one wins.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn create_new(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.write(path.as_ref(), bytes)?;
        let target = self.resolve(path.as_ref())?.path;
        lock(&self.state).preconditions.push(Precondition::Absent(target));
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
        let staged_before = lock(&self.state).newest(&target.path).is_some();
        let same_length = target.existing.is_some_and(|found| found.length == bytes.len() as u64);
        if same_length && !staged_before {
            let (content, stamp) = self.read_target(&target.path)?;
            if content.as_deref() == Some(bytes) {
                lock(&self.state).preconditions.push(Precondition::Same(target.path, stamp));
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
        self.write_with(path, |out| stage::copy_bytes(&mut file, out).map(drop))
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
            lock(&self.state).preconditions.push(Precondition::Exists(file));
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
            let state = lock(&self.state);
            match state.newest(&target.path) {
                Some(Slot { content: Content::Ready(StagedChange::Write(file)), .. }) => {
                    Some(file.staged.clone())
                }
                Some(Slot { content: Content::Ready(StagedChange::Remove(_)), .. }) => return Err(missing()),
                Some(_) => return Err(Error::Unfinished { path: path.to_path_buf() }),
                None => None,
            }
        };
        if let Some(staged) = staged {
            let file = self.engine.fs.open(&staged).map_err(Error::io(Operation::Read, path))?;
            return read_all(file).map_err(Error::io(Operation::Read, path));
        }
        let (content, stamp) = self.read_target(&target.path)?;
        // What was read first is what everything else was decided by.
        lock(&self.state).reads.entry(target.path).or_insert(stamp);
        content.ok_or_else(missing)
    }

    /// What a commit would do now: a dry run.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let state = lock(&self.state);
        let ready = state.slots.values().filter_map(|slot| match &slot.content {
            Content::Ready(change) => Some(describe(change)),
            Content::Open | Content::Unfinished => None,
        });
        ready.collect()
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
        self.engine.may_change()?;
        let (collected, changes) = match self.collect()? {
            Collection::Changes(collected, changes) => (*collected, changes),
            Collection::Nothing(id, preconditions) => return self.commit_nothing(id, &preconditions),
        };
        let id = collected.id;
        let staged = stage::stage(&self.engine, collected)?;
        let receipt = group::commit(&self.engine, staged)?;
        Ok(Commit {
            generation: receipt.generation,
            transaction: id,
            durability: self.engine.settings.durability,
            names_are_durable: receipt.durable.names_are_durable(),
            changes,
        })
    }

    /// Commits several transactions as one batch, as threads that are ready together do; only so that
    /// crash tests can make a batch without threads.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn commit_together(transactions: Vec<Self>) -> Vec<Result<crate::Generation>> {
        let Some(first) = transactions.first() else { return Vec::new() };
        let engine = Arc::clone(&first.engine);
        let stage = |transaction: Self| match transaction.collect()? {
            Collection::Changes(collected, _) => stage::stage(&engine, *collected),
            Collection::Nothing(..) => Err(Error::Unfinished { path: engine.root() }),
        };
        match transactions.into_iter().map(stage).collect::<Result<Vec<_>>>() {
            Ok(batch) => group::commit_batch(&engine, batch)
                .into_iter()
                .map(|(_, result)| result.map(|receipt| receipt.generation))
                .collect(),
            Err(error) => vec![Err(error)],
        }
    }

    /// Gives up: removes everything that was staged. Nothing that anybody reads was changed.
    pub fn abort(self) {
        drop(self);
    }

    /// Takes everything that was collected out of the shared state.
    fn collect(&self) -> Result<Collection> {
        let mut state = lock(&self.state);
        state.closed = true;
        if let Some(slot) = state.slots.values().find(|slot| !matches!(slot.content, Content::Ready(_))) {
            return Err(Error::Unfinished { path: self.engine.full(&slot.path) });
        }
        let mut preconditions = std::mem::take(&mut state.preconditions);
        let reads = std::mem::take(&mut state.reads);
        preconditions.extend(reads.into_iter().map(|(path, stamp)| Precondition::Same(path, stamp)));
        let slots = std::mem::take(&mut state.slots);
        let changes: Vec<_> = slots.into_values().filter_map(Slot::into_change).collect();
        refuse_aliases(&self.engine, &changes)?;
        let described = changes.iter().map(describe).collect();
        let Started { id, session, mut leftovers, wave } = match state.started.take() {
            Some(started) => started,
            None if changes.is_empty() => {
                let id = TransactionId { session: uuid::Uuid::nil(), number: 0 };
                return Ok(Collection::Nothing(id, preconditions));
            }
            None => self.start(&RelativePath::root())?,
        };
        if changes.is_empty() {
            return Ok(Collection::Nothing(id, preconditions));
        }
        leftovers.keep_only(changes.iter().filter_map(StagedChange::staged));
        let collected = Collected { id, session, changes, preconditions, leftovers, wave };
        Ok(Collection::Changes(Box::new(collected), described))
    }

    /// A transaction without changes publishes nothing; what it read must still be true.
    fn commit_nothing(&self, id: TransactionId, preconditions: &[Precondition]) -> Result<Commit> {
        let reading = read::begin(&self.engine)?;
        check::preconditions(&self.engine, preconditions)?;
        Ok(Commit {
            generation: reading.generation,
            transaction: id,
            durability: self.engine.settings.durability,
            names_are_durable: self.engine.settings.durability != crate::Durability::Process,
            changes: Vec::new(),
        })
    }

    fn start(&self, directory: &RelativePath) -> Result<Started> {
        let session = self.engine.session(directory)?;
        Ok(Started {
            id: session.next_transaction(),
            leftovers: Leftovers::new(&self.engine, &session),
            session,
            wave: Wave::new(Barrier::Staged),
        })
    }

    fn resolve(&self, path: &Path) -> Result<Target> {
        let relative = check::relative(&self.engine, path)?;
        lock(&self.state).resolver.resolve(&self.engine, &relative)
    }

    /// Where nothing is to be seen, a published manifest may be about to put something: it is finished
    /// before anybody is told that there is nothing to remove.
    fn resolve_to_remove(&self, path: &Path) -> Result<Target> {
        let target = self.resolve(path)?;
        if target.existing.is_some() {
            return Ok(target);
        }
        drop(read::begin(&self.engine)?);
        lock(&self.state).resolver.forget();
        self.resolve(path)
    }

    fn begin_file(&mut self, path: &Path) -> Result<OpenFile> {
        self.engine.may_change()?;
        let target = self.resolve(path)?;
        check::may_replace(&self.engine, &target)?;
        let mut state = lock(&self.state);
        if state.started.is_none() {
            state.started = Some(self.start(&target.nearest)?);
        }
        state.numbers += 1;
        let number = state.numbers;
        let Some(started) = state.started.as_mut() else {
            return Err(Error::Unfinished { path: path.to_path_buf() });
        };
        let id = StagedId { transaction: started.id, number };
        let file = target.path.clone();
        let begun = stage::begin(&self.engine, &started.session, &mut started.leftovers, target, id);
        let writer = match begun {
            Ok(writer) => writer,
            Err(error) => {
                // A directory on the way may have gone or changed since it was looked at.
                state.resolver.forget();
                return Err(error);
            }
        };
        // What was written to this path before goes when this write is finished: one that fails
        // must not take it along.
        state.put(Slot { path: file, number, content: Content::Open });
        Ok(OpenFile {
            engine: Arc::clone(&self.engine),
            state: Arc::clone(&self.state),
            number,
            writer: Some(writer),
        })
    }

    /// Returns whether there is anything to remove.
    fn remove_target(&mut self, target: Target) -> Result<bool> {
        check::may_remove(&self.engine, &target)?;
        let mut state = lock(&self.state);
        let path = target.path.clone();
        let newest = state.newest(&path).map(|slot| &slot.content);
        if matches!(newest, Some(Content::Ready(StagedChange::Remove(_)))) {
            // Removed already; that removal stands, with what it relies on.
            return Ok(false);
        }
        let removed = state.take(&path, u64::MAX);
        if target.existing.is_some() {
            state.numbers += 1;
            let number = state.numbers;
            let content = Content::Ready(StagedChange::Remove(target));
            state.put(Slot { path, number, content });
            return Ok(true);
        }
        Ok(matches!(removed, Some(Content::Ready(StagedChange::Write(_)) | Content::Open)))
    }

    /// Reads what is committed at `path`, with its stamp.
    fn read_target(&self, path: &RelativePath) -> Result<(Option<Vec<u8>>, Option<Stamp>)> {
        let reading = read::begin(&self.engine)?;
        let failed = |error| self.engine.error(Operation::Read, path)(error);
        match reading.open(&self.engine, path)? {
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
        let mut state = lock(&self.state);
        state.closed = true;
        // The leftovers' own drop removes what was staged.
        state.started.take();
    }
}

impl Slot {
    fn into_change(self) -> Option<StagedChange> {
        match self.content {
            Content::Ready(change) => Some(change),
            Content::Open | Content::Unfinished => None,
        }
    }
}

impl State {
    /// Takes the writes to a path that were begun before `number` out of the transaction, and their
    /// staged files away. Returns the newest.
    fn take(&mut self, path: &RelativePath, number: u64) -> Option<Content> {
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
            started.leftovers.remove(&file.staged);
        }
        Some(slot.content)
    }

    fn put(&mut self, slot: Slot) {
        self.numbers_of.entry(slot.path.clone()).or_default().push(slot.number);
        self.slots.insert(slot.number, slot);
    }

    fn remove(&mut self, number: u64) -> Option<Slot> {
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
    fn newest(&self, path: &RelativePath) -> Option<&Slot> {
        self.slots.get(self.numbers_of.get(path)?.last()?)
    }
}

/// Two spellings of one file, on a file system that folds case or normalises, would be two renames
/// over one name. Two hard links are two names, and each is replaced for itself.
fn refuse_aliases(engine: &Engine, changes: &[StagedChange]) -> Result<()> {
    let mut seen = HashSet::new();
    for target in changes.iter().map(StagedChange::target) {
        let Some(Metadata { identity: Some(identity), links: 1, .. }) = target.existing else { continue };
        if !seen.insert(identity) {
            return Err(Error::invalid(engine.full(&target.path), InvalidPath::Alias));
        }
    }
    Ok(())
}

fn describe(change: &StagedChange) -> Change {
    match change {
        StagedChange::Remove(target) => Change::Remove { path: target.path.clone() },
        StagedChange::Write(file) => {
            let (path, length) = (file.target.path.clone(), file.length());
            match file.target.existing {
                Some(_) => Change::Replace { path, length },
                None => Change::Create { path, length },
            }
        }
    }
}

fn read_all(mut file: Box<dyn ReadFile>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file of a transaction that is being written, on whatever thread.
#[derive(Debug)]
struct OpenFile {
    engine: Arc<Engine>,
    state: Arc<Mutex<State>>,
    number: u64,
    writer: Option<StagedWriter>,
}

impl OpenFile {
    fn write<T>(&mut self, work: impl FnOnce(&mut StagedWriter) -> io::Result<T>) -> io::Result<T> {
        match &mut self.writer {
            Some(writer) => work(writer),
            None => Err(io::Error::other("the writer is finished")),
        }
    }

    fn finish(mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let staged = writer.path().clone();
        let (file, debt) = match writer.finish(&self.engine) {
            Ok(finished) => finished,
            Err(error) => {
                self.leave(&staged, None);
                return Err(error);
            }
        };
        let mut state = lock(&self.state);
        let state = &mut *state;
        match (state.slots.get_mut(&self.number), &mut state.started) {
            (Some(slot), Some(started)) if !state.closed => {
                let path = file.target.path.clone();
                slot.content = Content::Ready(StagedChange::Write(file));
                started.wave.add(debt);
                let synced = stage::sync_early(&self.engine, &mut started.wave);
                // The later write has won.
                state.take(&path, self.number);
                synced
            }
            (None, Some(started)) if !state.closed => {
                // The path was written again since; the later write has won.
                debt.need_not_last();
                started.leftovers.remove(&file.staged);
                Ok(())
            }
            _ => {
                debt.need_not_last();
                Err(Error::Unfinished { path: self.engine.full(&file.target.path) })
            }
        }
    }

    /// Leaves the transaction as if this file had never been begun.
    fn forget(mut self) {
        self.give_up(None);
    }

    fn give_up(&mut self, content: Option<Content>) {
        let Some(writer) = self.writer.take() else { return };
        let staged = writer.path().clone();
        // Closed first: Windows keeps the name of an open file.
        drop(writer);
        self.leave(&staged, content);
    }

    /// Takes the staged file away, and leaves `content` in its place, if anything.
    fn leave(&self, staged: &RelativePath, content: Option<Content>) {
        let mut state = lock(&self.state);
        if let Some(started) = &mut state.started {
            started.leftovers.remove(staged);
        }
        match content {
            Some(content) => {
                if let Some(slot) = state.slots.get_mut(&self.number) {
                    slot.content = content;
                }
            }
            None => _ = state.remove(self.number),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.give_up(Some(Content::Unfinished));
    }
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        OpenFile::write(self, |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        OpenFile::write(self, StagedWriter::flush)
    }
}

/// Writes a file's next content; buffered. Can be filled on another thread than its transaction's.
///
/// ```
/// use std::io::Write;
///
/// # let dir = tempfile::tempdir()?;
/// # let store = cosave::Store::open(dir.path())?;
/// let mut tx = store.begin()?;
/// let (mut a, mut b) = (tx.writer("a")?, tx.writer("b")?);
/// let one = std::thread::spawn(move || {
///     a.write_all(b"one")?;
///     a.finish().map_err(std::io::Error::from)
/// });
/// b.write_all(b"two")?;
/// b.finish()?;
/// one.join().expect("no panic")?;
/// tx.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a writer that is dropped without `finish` makes the commit fail"]
pub struct FileWriter {
    inner: Option<BufWriter<OpenFile>>,
}

impl FileWriter {
    /// Ends the file: it is part of the transaction now. Its write-back begins; nobody waits for it.
    ///
    /// # Errors
    /// [`Error::Io`] when what is buffered cannot be written; the transaction goes on as if this
    /// writer had never been. [`Error::Unfinished`] when the transaction is over.
    pub fn finish(mut self) -> Result<()> {
        match self.inner.take().map(BufWriter::into_inner) {
            None => Ok(()),
            Some(Ok(open)) => open.finish(),
            Some(Err(error)) => {
                let (error, writer) = error.into_parts();
                let (open, _unwritten) = writer.into_parts();
                let path = open.writer.as_ref().map(|writer| open.engine.full(writer.path()));
                open.forget();
                Err(Error::io(Operation::Stage, path.unwrap_or_default())(error))
            }
        }
    }

    fn forget(mut self) {
        if let Some(writer) = self.inner.take() {
            let (open, _unwritten) = writer.into_parts();
            open.forget();
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.inner.take() {
            // What is buffered is not worth writing: the file is given up.
            let (open, _unwritten) = writer.into_parts();
            drop(open);
        }
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Some(writer) => writer.write(bytes),
            None => Err(io::Error::other("the writer is finished")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Some(writer) => writer.flush(),
            None => Ok(()),
        }
    }
}
