//! The store: an open root.
//!
//! The public type over what `protocol::open` holds. It hands out transactions
//! and views, and knows nothing of the protocol's steps.

mod history;
pub(crate) mod locking;
mod maintenance;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Operation, Result};
#[cfg(feature = "sim")]
use crate::fs::FileSystem;
use crate::fs::os::{OsFileSystem, Parents};
use crate::lease::Lease;
use crate::mutation::{Rule, keeps};
use crate::options::StoreOptions;
use crate::path::RelativePath;
use crate::protocol::caller::Caller;
use crate::protocol::open::{self, Opened};
use crate::protocol::resolve;
use crate::protocol::root::Root;
use crate::reader::Snapshot;
use crate::report::Commit;
use crate::transaction::Transaction;
use crate::view::View;

/// An open root: a directory whose files are saved together, or not at all.
///
/// Clones are cheap and share one session. Any number of stores, in any number of processes, may be
/// open on one root.
///
/// The first view or commit makes the control directory; a read-only store never does.
///
/// Dropping the last clone closes the store. With [`Durability::Committed`](crate::Durability::Committed)
/// that waits for the disk. It cannot report errors, and [`std::process::exit`] skips it. So call
/// [`flush`](Self::flush) before the program ends.
///
/// # Examples
///
/// ```
/// use cosave::Store;
///
/// # let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path())?;
/// let mut tx = store.begin()?;
/// tx.write("Cargo.toml", b"[package]\n")?;
/// tx.write("Cargo.lock", b"version = 4\n")?;
/// let commit = tx.commit()?;
/// assert_eq!(commit.generation(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    opened: Arc<Opened>,
    /// How it was opened.
    origin: Arc<Origin>,
    /// Whose transactions it begins.
    caller: Caller,
    _closing: Arc<Closing>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().debug(f, "Store").finish_non_exhaustive()
    }
}

/// Where a store comes from, so that it can be opened again.
enum Origin {
    System(StoreOptions),
    #[cfg(feature = "sim")]
    Other(StoreOptions),
}

/// Closes the store when its last clone is dropped, also while a transaction or a view is still open.
#[derive(Debug)]
struct Closing(Arc<Opened>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How often [`Store::update`] tries before it returns a conflict.
const UPDATE_TRIES_MAX: u32 = 100;

/// After how many tries [`Store::update`] asks others to let it go first.
const UPDATE_TRIES_BEFORE_TURN: u32 = 4;

impl Store {
    fn new(opened: Opened, origin: Origin) -> Self {
        let opened = Arc::new(opened);
        let closing = Arc::new(Closing(Arc::clone(&opened)));
        Self { opened, origin: Arc::new(origin), caller: Caller::default(), _closing: closing }
    }

    /// Opens an existing directory. Finishes what was published before a crash, and removes what dead
    /// sessions left. Opening a clean root costs a fixed number of system calls.
    ///
    /// # Errors
    /// As for [`StoreOptions::open`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::open(dir.path())?;
    /// assert!(store.last_recovery().is_clean());
    /// assert!(cosave::Store::open(dir.path().join("missing")).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(root)
    }

    /// Options that say how to open a root.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().create(true).open(dir.path().join("new"))?;
    /// assert!(dir.path().join("new").is_dir());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn options() -> StoreOptions {
        StoreOptions::default()
    }

    /// Begins a transaction. It holds no lock, so any number can be under way at once.
    ///
    /// # Errors
    /// - [`Error::Unsupported`] in a read-only store, or in a child after a `fork`.
    /// - [`Error::Poisoned`] after a failed sync.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.write("a", "1")?;
    /// assert!(!dir.path().join("a").exists());
    /// tx.commit()?;
    /// assert!(dir.path().join("a").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin(&self) -> Result<Transaction> {
        self.begin_for(&self.caller)
    }

    fn begin_for(&self, caller: &Caller) -> Result<Transaction> {
        self.state().may_change()?;
        if caller.claim.is_withdrawn() {
            return Err(self.state().cancelled());
        }
        // Others may have moved or removed directories since the last transaction.
        if keeps(Rule::LookAgain) {
            self.state().fs.forget_directories();
        }
        Ok(Transaction::new(Arc::clone(&self.opened), caller.clone()))
    }

    /// Begins a transaction that only says what it [would change](Transaction::changes). It writes
    /// nothing at all, neither staged files nor a control directory. It reads like any other, and sees
    /// its own changes. What it writes stays in memory, whatever its length. Its commit is refused.
    ///
    /// A read-only store can do this, too. Then nobody asks whether the changes would be allowed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in a child after a `fork`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # cosave::write(dir.path().join("Cargo.lock"), "version = 3\n")?;
    /// use cosave::{Store, Transaction};
    ///
    /// fn upgrade(tx: &mut Transaction) -> cosave::Result<()> {
    ///     tx.write("Cargo.lock", "version = 4\n# new\n")?;
    ///     tx.write("Cargo.toml", "[package]\n")
    /// }
    ///
    /// let store = Store::options().read_only(true).open(dir.path())?;
    /// let mut plan = store.dry_run()?;
    /// upgrade(&mut plan)?;
    /// let shown: Vec<_> = plan.changes()?.iter().map(ToString::to_string).collect();
    /// assert_eq!(shown, ["replace Cargo.lock (12 -> 18 bytes)", "create  Cargo.toml (10 bytes)"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dry_run(&self) -> Result<Transaction> {
        self.state().refuse_child()?;
        Ok(Transaction::new(Arc::new(self.opened.for_dry_run()), Caller::default()))
    }

    /// Runs `change` in a transaction and commits it. Runs it again if a file that it read, or a
    /// precondition, has changed meanwhile, even if `change` itself failed. Everything that it reads is
    /// of one state, so it never sees a mix of two commits. If nobody else changes what it read, it
    /// runs once.
    ///
    /// After four conflicts in a row, other commits to this root wait up to two seconds before they begin,
    /// whoever makes them. So a `change` that takes less than that gets its turn beside writers that never
    /// pause. It holds no lock that a view, a read or a commit of its own would need; only such a commit
    /// waits these two seconds, too.
    ///
    /// `change` may return a value and an error of its own, so `?` works in it on every error that yours
    /// is made of. The value is in the [`Commit`]. Nothing is committed if it returns an error.
    ///
    /// # Errors
    /// Those of `change`, [`begin`](Self::begin) and [`Transaction::commit`]. A conflict is returned only
    /// after 100 tries, or if another try would end in the same one: the file of a
    /// [`create_new`](Transaction::create_new) was there before, and is there still. Or `change` expects a
    /// [generation](Transaction::expect_generation) that has passed. One that is the same at each try is never
    /// there again.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let commit = store.update(|tx| {
    ///     let found = tx.read_if_exists("count")?.unwrap_or_default();
    ///     let count: u32 = String::from_utf8_lossy(&found).parse().unwrap_or(0);
    ///     tx.write("count", (count + 1).to_string())
    /// })?;
    /// assert_eq!(std::fs::read(dir.path().join("count"))?, b"1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// With an error and a value of the caller's own:
    ///
    /// ```
    /// type Failure = Box<dyn std::error::Error>;
    ///
    /// fn take_one(store: &cosave::Store) -> Result<u32, Failure> {
    ///     let commit = store.update(|tx| {
    ///         let stock: u32 = String::from_utf8(tx.read("stock")?)?.parse()?;
    ///         let rest = stock.checked_sub(1).ok_or("sold out")?;
    ///         tx.write("stock", rest.to_string())?;
    ///         Ok::<_, Failure>(rest)
    ///     })?;
    ///     Ok(commit.into_value())
    /// }
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # cosave::write(dir.path().join("stock"), "1")?;
    /// assert_eq!(take_one(&store)?, 0);
    /// assert_eq!(take_one(&store).unwrap_err().to_string(), "sold out");
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn update<T, E: From<Error>>(
        &self,
        mut change: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<Commit<T>, E> {
        let mut tries = 0;
        let mut turn = None;
        let caller = self.caller.for_call(self.state().settings.lock_timeout);
        loop {
            tries += 1;
            if tries > UPDATE_TRIES_BEFORE_TURN && turn.is_none() && keeps(Rule::TakeTurns) {
                turn = self.opened.turn(&caller);
            }
            let mut transaction = self.begin_for(&caller)?;
            let value = match change(&mut transaction) {
                Ok(value) => value,
                // The reason for the error no longer exists, so the error is not returned.
                Err(_) if tries < UPDATE_TRIES_MAX && transaction.has_read_what_changed() => continue,
                Err(error) => return Err(error),
            };
            match transaction.try_commit_in(turn.as_ref()) {
                Ok(commit) => return Ok(commit.with(value)),
                Err(error) if tries < UPDATE_TRIES_MAX && transaction.may_be_mended(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Opens a view of one consistent state: every commit up to a generation, and nothing of later
    /// ones. Writers wait while a view is open, so drop it soon. A view makes the control directory if
    /// there is none, unless the store is read-only.
    ///
    /// # Errors
    /// - [`Error::Locked`] if a writer holds the lock for too long.
    /// - [`Error::Corrupt`] if a published manifest cannot be trusted.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| { tx.write("a", "1")?; tx.write("b", "1") })?;
    /// let view = store.view()?;
    /// assert_eq!(view.read("a")?, view.read("b")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn view(&self) -> Result<View> {
        View::new(Arc::clone(&self.opened), &self.caller)
    }

    /// Opens several files of one generation, and holds no lock after that. So writers do not wait
    /// however long the files are read. Each file stays open, and takes one file descriptor.
    ///
    /// On Windows no file can be replaced while it is open. There a commit of such a file waits until it
    /// is closed, and ends with [`Error::NotApplied`] if that takes too long.
    ///
    /// # Errors
    /// As for [`view`](Self::view) and [`View::open`], but a missing file is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| { tx.write("a", "1")?; tx.write("b", "1") })?;
    /// let snapshot = store.snapshot(&["a", "b", "c"])?;
    /// assert_eq!(snapshot.generation(), 1);
    /// store.update(|tx| tx.write("d", "2"))?;    // nobody is in the way
    /// let read = |file: Option<cosave::FileReader>| file.map(std::io::read_to_string).transpose();
    /// let texts: Vec<_> = snapshot.into_files().into_iter().map(read).collect::<Result<_, _>>()?;
    /// assert_eq!(texts, [Some("1".into()), Some("1".into()), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn snapshot(&self, paths: &[impl AsRef<Path>]) -> Result<Snapshot> {
        let view = self.view()?;
        let files = paths.iter().map(|path| view.open_if_exists(path)).collect::<Result<_>>()?;
        Ok(Snapshot { generation: view.generation(), files })
    }

    /// Has the root to itself as long as the [`Lease`] lives: the commits of every other store, in this
    /// process or another, are refused. Views go on, and so does recovery. Waits for the commits that
    /// are under way, and for another store's lease, as long as
    /// [`lock_timeout`](StoreOptions::lock_timeout) says.
    ///
    /// Views are in nobody's way. To keep the other threads of this store out, too, use
    /// [`lock`](Self::lock).
    ///
    /// A commit of this store, of its clones and of its transactions is not refused. The lease of a
    /// process that dies ends at once. If another program removes the control directory, the lease is
    /// gone with it.
    ///
    /// # Errors
    /// - [`Error::Locked`], with the name of the holder, if another store has the lease. The commits of
    ///   other stores get the same error.
    /// - Those of [`begin`](Self::begin).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::time::Duration;
    /// use cosave::{Error, Store};
    ///
    /// let store = Store::open(dir.path())?;
    /// let other = Store::options().lock_timeout(Duration::ZERO).open(dir.path())?;
    /// let lease = store.exclusive()?;
    /// store.update(|tx| tx.write("a", "mine"))?;
    /// assert!(matches!(other.update(|tx| tx.write("a", "theirs")), Err(Error::Locked { .. })));
    /// drop(lease);
    /// other.update(|tx| tx.write("a", "theirs"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exclusive(&self) -> Result<Lease> {
        Lease::take(Arc::clone(&self.opened))
    }

    /// The root's path, with every symlink resolved.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// assert!(store.root().is_absolute() && store.root().join("a").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.state().path()
    }

    /// A path of the root, whether it is given relative to the root or is absolute and lies below it. Such a
    /// path is what [`Change::path`](crate::Change::path) and [`Transaction::list`] return, and every method
    /// takes it. Symlinks below the root are not followed.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if it is absolute and does not lie below the root, or if no file of the root can
    /// have it.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let path = store.relative(dir.path().join("config/app.toml"))?;
    /// assert_eq!(path, cosave::RelativePath::new("config/app.toml")?);
    /// assert!(store.relative("/somewhere/else").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn relative(&self, path: impl AsRef<Path>) -> Result<RelativePath> {
        resolve::relative(self.state(), path.as_ref())
    }

    /// Whether a sync of this store has failed, so that it refuses to go on ([`Error::Poisoned`]).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// assert!(!store.is_poisoned());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.state().is_poisoned()
    }

    /// Drops this store, and opens its root again with the same options. After a failed sync this is the
    /// way to go on: the new store's recovery writes anew what may be lost. Other clones, transactions
    /// and views still belong to the old store, so drop them first.
    ///
    /// # Errors
    /// As for [`StoreOptions::open`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let mut store = cosave::Store::open(dir.path())?;
    /// if store.is_poisoned() {
    ///     store = store.reopen()?;
    /// }
    /// store.update(|tx| tx.write("a", "1"))?;
    /// store.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reopen(self) -> Result<Self> {
        let (origin, path) = (Arc::clone(&self.origin), self.root());
        #[cfg(feature = "sim")]
        let file_system = Arc::clone(&self.state().fs);
        drop(self);
        match &*origin {
            Origin::System(options) => options.clone().open(path),
            #[cfg(feature = "sim")]
            Origin::Other(options) => options.clone().open_on(file_system),
        }
    }

    /// Closes the store, and says what dropping it cannot say: whether the waits that were put off by
    /// [`Durability::Committed`](crate::Durability::Committed) have succeeded. Other clones go on.
    ///
    /// # Errors
    /// - [`Error::Io`] if a sync fails. The commits stay published, and the next opening finishes them.
    /// - [`Error::Locked`] if others hold the lock for too long.
    /// - [`Error::Poisoned`] after an earlier failed sync.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::{Durability, Store};
    ///
    /// let store = Store::options().durability(Durability::Committed).open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// store.close()?;
    /// assert_eq!(std::fs::read(dir.path().join("a"))?, b"1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(self) -> Result<()> {
        self.opened.finish()
    }

    fn state(&self) -> &Root {
        &self.opened.root
    }
}

impl StoreOptions {
    /// Opens a root. Finishes what was published but not applied, and sweeps what dead sessions left.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io) if the root is missing or not a directory.
    /// - [`Error::Locked`](crate::Error::Locked) if others hold the lock for too long.
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if a published manifest cannot be trusted.
    /// - [`Error::NotApplied`](crate::Error::NotApplied) if a committed file cannot be moved.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().read_only(true).open(dir.path())?;
    /// assert_eq!(store.generation()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(self, root: impl AsRef<Path>) -> Result<Store> {
        let root = root.as_ref();
        let failed = |error| Error::io(Operation::Open, root)(error);
        if self.create && !self.settings.read_only {
            OsFileSystem::create_root(root).map_err(failed)?;
        }
        let parents = if self.settings.read_only { Parents::Leave } else { Parents::Make };
        let fs = OsFileSystem::open(root, self.control.as_deref(), parents).map_err(failed)?;
        let opened = open::open(Arc::new(fs), self.settings.clone())?;
        // The root exists now. If it is gone when it is opened again, that is an error.
        Ok(Store::new(opened, Origin::System(Self { create: false, ..self })))
    }

    /// Opens a root on a file system of your choice, such as a simulated one.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    #[cfg(feature = "sim")]
    pub fn open_on(self, file_system: Arc<dyn FileSystem>) -> Result<Store> {
        let opened = open::open(file_system, self.settings.clone())?;
        Ok(Store::new(opened, Origin::Other(self)))
    }
}
