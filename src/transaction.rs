//! The transaction: collects changes, and stages them.
//!
//! No target is changed before `commit`. A small transaction stays in memory
//! until then. A larger one is streamed to disk as it is written, so memory
//! does not grow with it.

mod directories;
mod expecting;
mod links;
pub(crate) mod new_directory;
pub(crate) mod operations;
mod planning;
mod reading;
mod removing;
mod restoring;
mod trees;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::draft::{Content, Draft, Slot};
use crate::error::{Error, Outcome, Reason, Result};
use crate::fs::Durable;
#[cfg(feature = "sim")]
use crate::generation::Generation;
use crate::generation::TransactionId;
use crate::options::Durability;
use crate::path::RelativePath;
use crate::protocol::caller::Caller;
#[cfg(any(feature = "tokio", feature = "sim"))]
use crate::protocol::caller::Claim;
use crate::protocol::check;
#[cfg(feature = "sim")]
use crate::protocol::commit::Receipt;
use crate::protocol::lock::Turn;
use crate::protocol::open::Opened;
use crate::protocol::refused::Refused;
use crate::protocol::resolve::{self, Target};
use crate::protocol::root::{Root, guard};
use crate::protocol::snapshot::Snapshot;
use crate::protocol::stage::{Collected, Presence, StagedChange};
use crate::report::{Change, Commit};
use crate::spelling::Spellings;
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
/// for change in tx.changes()? {
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
    /// How the paths were given.
    spellings: Arc<Spellings>,
    /// Who commits it.
    caller: Caller,
    is_committed: bool,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root().debug(f, "Transaction").finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn new(opened: Arc<Opened>, caller: Caller) -> Self {
        let (draft, snapshot, spellings) = (Arc::default(), Mutex::default(), Arc::default());
        Self { opened, draft, snapshot, spellings, caller, is_committed: false }
    }

    /// Stages a file's next content. Its permissions are copied from the file that it replaces, and
    /// missing directories are made. A later write to the same path wins, and keeps a mode that this
    /// transaction gave it. Up to a megabyte of a
    /// transaction stays in memory until it commits. So a full disk may be noticed only by
    /// [`commit`](Self::commit).
    ///
    /// On Unix, 8 MiB or more are first compared with the free space. If they do not fit, they are refused
    /// before anything of them is staged, with the numbers in the error. A file system that compresses might have had
    /// room. [`write_with`](Self::write_with) does not ask, since it does not know the length. Copies ask if
    /// they cannot share blocks.
    ///
    /// # Errors
    /// After an error the transaction goes on without this write.
    ///
    /// - [`Error::InvalidPath`] if the path cannot be a target.
    /// - [`Error::Io`] if staging fails, or there is no room.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.write("new/directory/a", "1")?;
    /// tx.write("new/directory/a", "2")?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("new/directory/a"))?, b"2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.writer(path)?.fill(bytes.as_ref())
    }

    /// Like [`write`](Self::write), with a function that writes the content to a buffered writer.
    /// Returns what the function returns.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and the error that `fill` returns, as it is. Nothing is staged for
    /// this path then. `fill` may have an error type of its own. If that is [`io::Error`](std::io::Error), the errors of
    /// this method are in it, and `Error::from` takes them out again.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// use std::io::Write;
    ///
    /// let mut tx = store.begin()?;
    /// let sum: u32 = tx.write_with("sum", |out| {
    ///     let sum = "1 2 3".split(' ').map(str::parse::<u32>).sum::<Result<_, _>>()?;
    ///     writeln!(out, "{sum}")?;
    ///     Ok::<_, Box<dyn std::error::Error>>(sum)
    /// })?;
    /// tx.commit()?;
    /// assert_eq!((sum, std::fs::read(dir.path().join("sum"))?), (6, b"6\n".to_vec()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_with<T, E: From<Error>>(
        &mut self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut FileWriter) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = self.writer(path)?;
        match fill(&mut writer) {
            Ok(value) => {
                writer.finish()?;
                Ok(value)
            }
            Err(error) => {
                writer.discard();
                Err(error)
            }
        }
    }

    /// Returns a writer of a file's next content. Fill it on any thread, then
    /// [finish](FileWriter::finish) it. The commit fails if it was not finished.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// use std::io::Write;
    ///
    /// let mut tx = store.begin()?;
    /// let mut writer = tx.writer("numbers")?;
    /// for number in 0..3 {
    ///     writeln!(writer, "{number}")?;
    /// }
    /// writer.finish()?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("numbers"))?, b"0\n1\n2\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn writer(&mut self, path: impl AsRef<Path>) -> Result<FileWriter> {
        self.root().may_collect()?;
        let mut target = self.resolve_to_stage(path.as_ref())?;
        target.attributes = guard(&self.draft).attributes(&target.path);
        Ok(self.writer_of(target))
    }

    fn writer_of(&mut self, target: Target) -> FileWriter {
        let mut draft = guard(&self.draft);
        draft.numbers += 1;
        let number = draft.numbers;
        // An earlier write to this path is dropped only when this one is finished, so that a failed
        // write does not lose it.
        draft.put(Slot { path: target.path.clone(), number, content: Content::Open });
        let spellings = Arc::clone(&self.spellings);
        FileWriter::new(Arc::clone(&self.opened), Arc::clone(&self.draft), number, target, spellings)
    }

    /// Like [`write`](Self::write), but the commit is a [`Conflict`](Error::Conflict) if the file
    /// exists by then. If several transactions try, one wins.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.create_new("id", "first"))?;
    /// let again = store.update(|tx| tx.create_new("id", "second"));
    /// assert!(again.unwrap_err().is_conflict());
    /// assert_eq!(std::fs::read(dir.path().join("id"))?, b"first");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_new(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.write(path.as_ref(), bytes)?;
        self.expect_free(path.as_ref())
    }

    /// Lets the commit be a conflict if something is at this path by then.
    fn expect_free(&self, path: &Path) -> Result<()> {
        let target = self.resolve(path)?;
        let mut draft = guard(&self.draft);
        if draft.clears(&target.path) || draft.is_built(&target.path) {
            // What makes way is there, and checked.
            return Ok(());
        }
        if target.existing.is_some() {
            draft.occupied.insert(target.path.clone());
        }
        draft.preconditions.insert(target.path, Presence::Absent);
        Ok(())
    }

    /// Like [`write`](Self::write), unless the file has exactly these bytes already. Then it is left as
    /// it is, with its time stamp, so that build tools see no change. Returns whether the file was
    /// staged.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and [`Error::Conflict`] as for [`read`](Self::read). The commit
    /// is a conflict too if a file that was left as it was has changed by then.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let generate = |text: &str| store.update(|tx| tx.write_if_changed("generated.rs", text));
    /// assert!(*generate("1")?.value());
    /// assert!(!*generate("1")?.value());
    /// assert!(*generate("2")?.value());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_if_changed(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<bool> {
        let (path, bytes) = (path.as_ref(), bytes.as_ref());
        if self.is_unchanged(path, bytes)? {
            return Ok(false);
        }
        self.write(path, bytes)?;
        Ok(true)
    }

    /// Whether a file has exactly these bytes, and this transaction has not written it. Then it must still
    /// have them at the commit.
    fn is_unchanged(&self, path: &Path, bytes: &[u8]) -> Result<bool> {
        let target = self.resolve(path)?;
        let staged_before = guard(&self.draft).newest(&target.path).is_some();
        let same_length = target.existing.is_some_and(|found| found.length == bytes.len() as u64);
        if same_length && !staged_before {
            let (content, seen) = self.see(&target.path)?;
            if content.as_deref() == Some(bytes) {
                guard(&self.snapshot).remember(self.root(), &target.path, seen)?;
                return Ok(true);
            }
        }
        Ok(false)
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
    ///   [`Error::Io`], [`Error::Poisoned`], [`Error::Blocked`], [`Error::NotPreserved`]. To try again later,
    ///   use [`try_commit`](Self::try_commit).
    /// - It is committed, and will be finished: [`Error::NotApplied`].
    /// - It is not known whether it is committed: [`Error::InDoubt`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.write("a", "1")?;
    /// tx.write("b", "2")?;
    /// let commit = tx.commit()?;
    /// assert_eq!(commit.to_string(), "generation 1: 2 files changed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn commit(mut self) -> Result<Commit> {
        self.try_commit()
    }

    /// Like [`commit`](Self::commit), but if nothing was changed, the transaction goes on. It still has
    /// all its changes, and what it has read must still be true. So it can be committed again later, be
    /// changed before that, or be aborted. What was staged on disk stays there until then.
    ///
    /// After a commit, and after any other error, the transaction is over, and refuses everything. It is
    /// over after a failed wait for the disk, too, since such a wait cannot be repeated.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit), and [`Error::Unsupported`] if the transaction is over.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::time::Duration;
    /// use cosave::{Error, Store};
    ///
    /// let store = Store::options().lock_timeout(Duration::from_millis(10)).open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.write("a", "1")?;
    /// let view = store.view()?;
    /// assert!(matches!(tx.try_commit(), Err(Error::Locked { .. })));
    /// drop(view);
    /// assert_eq!(tx.try_commit()?.generation(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_commit(&mut self) -> Result<Commit> {
        self.try_commit_in(None)
    }

    /// Commits for a caller who can give it up.
    #[cfg(feature = "tokio")]
    pub(crate) fn commit_for(&mut self, claim: Arc<Claim>) -> Result<Commit> {
        self.caller.claim = claim;
        self.try_commit()
    }

    #[cfg(feature = "object_store")]
    pub(crate) fn is_committed(&self) -> bool {
        self.is_committed
    }

    /// Lets a test give up a commit at a moment of its choice.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn withdrawal(&mut self) -> impl Fn() + Send + Sync + use<> {
        let claim = Arc::new(Claim::default());
        self.caller.claim = Arc::clone(&claim);
        move || claim.withdraw()
    }

    /// Commits in the turn of an update, if there is one.
    pub(crate) fn try_commit_in(&mut self, turn: Option<&Turn>) -> Result<Commit> {
        let between = self.caller.clone();
        self.caller = between.for_call(self.root().settings.lock_timeout);
        let committed = self.commit_in(turn);
        self.caller = between;
        self.is_committed |= match &committed {
            Ok(_) => true,
            Err(error) => error.outcome() == Outcome::Committed,
        };
        committed.map_err(|error| self.named(error))
    }

    fn commit_in(&mut self, turn: Option<&Turn>) -> Result<Commit> {
        self.root().may_change()?;
        let (collected, changes) = match self.collect()? {
            Collection::Changes(collected, changes) => (*collected, changes),
            Collection::Nothing(id) => return self.commit_nothing(id),
        };
        let id = collected.staging.id;
        let receipt = self.opened.commit(collected, turn).map_err(|refused| self.take_back(refused))?;
        Ok(Commit {
            generation: receipt.generation,
            transaction: id,
            durability: self.root().settings.durability,
            names_are_durable: receipt.durable == Durable::Synced,
            changes: Self::as_found(changes, receipt.found),
            not_preserved: receipt.lost,
            value: (),
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
            Collection::Changes(collected, _) => opened.stage(*collected).map_err(|refused| refused.error),
            Collection::Nothing(..) => Err(Error::Unfinished { path: opened.root.path().into() }),
        };
        match transactions.into_iter().map(stage).collect::<Result<Vec<_>>>() {
            Ok(batch) => {
                let answers = opened.commit_batches(batch).into_iter();
                let generation = |receipt: Receipt| receipt.generation;
                answers.map(|(_, result)| result.map(generation).map_err(|refused| refused.error)).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    /// Aborts, and removes everything that was staged. No target has changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.write("new/a", vec![0; 2 << 20])?;
    /// tx.abort();
    /// assert!(!dir.path().join("new").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort(self) {
        drop(self);
    }

    /// Takes everything that was collected from the shared draft. After an error the draft still has it.
    fn collect(&self) -> Result<Collection> {
        let mut draft = guard(&self.draft);
        self.refuse_if_over(&draft)?;
        self.refuse_unfinished(&draft)?;
        guard(&self.snapshot).intact(self.root())?;
        if draft.slots.is_empty() {
            let id = TransactionId { session: uuid::Uuid::nil(), number: 0 };
            let staging = draft.staging.as_ref().or(draft.reserved.as_ref());
            return Ok(Collection::Nothing(staging.map_or(id, |staging| staging.id)));
        }
        let described = self.settle(&mut draft)?;
        let is_small = draft.is_small();
        let id = draft.stage_kept(&self.opened, BTreeSet::new(), is_small)?.id;
        draft.finish_building(self.root(), id)?;
        let Some(mut staging) = draft.staging.take() else {
            return Err(Error::Unfinished { path: self.root().path().into() });
        };
        draft.closed = true;
        let changes = draft.take_changes();
        let preconditions = std::mem::take(&mut draft.preconditions);
        let mut snapshot = std::mem::take(&mut *guard(&self.snapshot));
        snapshot.glances.own(staging.cleanup.directories());
        let removed = staging.cleanup.remove_all_but(changes.iter().flat_map(StagedChange::needed));
        staging.wave.add(removed);
        let caller = self.caller.clone();
        let collected = Collected { staging, changes, preconditions, snapshot, caller };
        Ok(Collection::Changes(Box::new(collected), described))
    }

    /// Takes back what a refused commit returns, if it can be tried again.
    fn take_back(&self, Refused { error, collected }: Refused) -> Error {
        if let Some(collected) = collected {
            let Collected { staging, changes, preconditions, snapshot, caller: _ } = *collected;
            *guard(&self.snapshot) = snapshot;
            guard(&self.draft).take_back(self.root(), staging, changes, preconditions);
        }
        error
    }

    /// Commits a transaction without changes. It publishes nothing, but what it read must still be
    /// true.
    fn commit_nothing(&self, id: TransactionId) -> Result<Commit> {
        let reading = self.opened.read(&self.caller)?;
        let mut draft = guard(&self.draft);
        check::preconditions(self.root(), &draft.preconditions)?;
        let mut snapshot = guard(&self.snapshot);
        snapshot.check(self.root(), &reading)?;
        snapshot.check_expected(self.root(), &reading)?;
        draft.closed = true;
        Ok(Commit {
            generation: reading.generation,
            transaction: id,
            durability: self.root().settings.durability,
            names_are_durable: self.root().settings.durability != Durability::Process,
            changes: Vec::new(),
            not_preserved: Vec::new(),
            value: (),
        })
    }

    /// Refuses everything once the transaction is committed, or nobody knows.
    fn refuse_if_over(&self, draft: &Draft) -> Result<()> {
        if !draft.closed {
            return Ok(());
        }
        let reason = Reason::TransactionOver;
        Err(Error::Unsupported { path: self.root().path().into(), reason })
    }

    fn resolve(&self, path: &Path) -> Result<Target> {
        self.root().refuse_child()?;
        if let Some(target) = self.cleared(path)? {
            return Ok(target);
        }
        let relative = resolve::relative(self.root(), path)?;
        let mut draft = guard(&self.draft);
        self.refuse_if_over(&draft)?;
        // It looks at the rest of the draft, and clears nothing there.
        let mut resolver = std::mem::take(&mut draft.resolver);
        let resolved = resolver.resolve_in(self.root(), &*draft, &relative);
        draft.resolver = resolver;
        self.note_followed(&mut draft);
        let target = resolved.map_err(|error| match draft.forbids(&relative) {
            Some(reason) => Error::invalid(path, reason),
            None => error.given_as(path),
        })?;
        drop(draft);
        self.note(&target.path, path);
        Ok(target)
    }

    /// Notes how a path was given.
    fn note(&self, path: &RelativePath, given: &Path) {
        self.spellings.note(path.as_path(), given, || self.root().full(path));
    }

    /// The same error, which also says how its path was given.
    fn named(&self, error: Error) -> Error {
        self.spellings.named(error)
    }

    /// Resolves a path at which a file is to be staged. A directory above it may have been removed or
    /// replaced since it was looked at, so it is looked at anew before anything is refused.
    fn resolve_to_stage(&self, path: &Path) -> Result<Target> {
        let target = self.resolve(path)?;
        self.refuse_contradiction(&target.path)?;
        if check::may_stage(self.root(), &target).is_ok() {
            return Ok(target);
        }
        guard(&self.draft).resolver.clear();
        let target = self.resolve(path)?;
        check::may_stage(self.root(), &target).map_err(|error| self.named(error))?;
        Ok(target)
    }

    fn root(&self) -> &Root {
        &self.opened.root
    }
}

enum Collection {
    Changes(Box<Collected>, Vec<Change>),
    Nothing(TransactionId),
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
        draft.reserved.take();
    }
}
