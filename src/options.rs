//! What a store can be told when it is opened: plain data.

use std::path::PathBuf;
use std::time::Duration;

/// How much a commit has waited for when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// Atomic when the process is killed, not when the power fails: no wait for the disk at all.
    Process,
    /// Two waits. The commit survives a power loss: the next opening of the root finishes it. Until
    /// then (or the next commit, [`Store::flush`](crate::Store::flush) or close), a program that
    /// knows nothing of cosave may find old files after a power loss.
    Committed,
    /// Three waits. The commit survives a power loss, also for programs that know nothing of cosave.
    #[default]
    Full,
}

/// How many files are made durable at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncStrategy {
    /// One sync for each file and directory, as with [`PerFile`](Self::PerFile), but how many are in
    /// flight at once is decided by measuring: where those of the last wave returned within 200 µs
    /// (a disk in memory, or one with a cache that survives power loss), a few are made one after the
    /// other and many with 8 threads, since a thread would cost more than the wait that it saves.
    #[default]
    Auto,
    /// `fsync` for each file and directory, up to 128 in flight at once, so that the file system merges
    /// them. On btrfs without its `ssd` option so many can be slower than few.
    PerFile,
    /// `syncfs` once per file system (Linux): fastest for many files, but waits for everything that
    /// anybody has written to that disk. For callers who own it. Elsewhere the same as `PerFile`.
    FileSystem,
}

/// How long a lock is waited for, unless told otherwise.
const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// How a root is opened; made by [`Store::options`](crate::Store::options).
///
/// ```
/// use std::time::Duration;
/// use cosave::{Durability, Store};
///
/// # let dir = tempfile::tempdir()?;
/// # let root = dir.path().join("project");
/// let store = Store::options()
///     .create(true)
///     .durability(Durability::Full)
///     .lock_timeout(Duration::from_secs(5))
///     .open(&root)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `open` is called"]
pub struct StoreOptions {
    pub(crate) create: bool,
    pub(crate) control: Option<PathBuf>,
    pub(crate) durability: Durability,
    pub(crate) strategy: SyncStrategy,
    pub(crate) lock_timeout: Duration,
    pub(crate) read_only: bool,
    pub(crate) recover: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            create: false,
            control: None,
            durability: Durability::default(),
            strategy: SyncStrategy::default(),
            lock_timeout: LOCK_TIMEOUT_DEFAULT,
            read_only: false,
            recover: true,
        }
    }
}

impl StoreOptions {
    /// Makes the root directory, with its parents, if it does not exist. Without it a missing root
    /// is an error.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Puts the control directory here instead of `.cosave` in the root. A relative path begins at the
    /// root, wherever the program runs. It must be on a disk that survives with the root's, and every
    /// store of one root must name the same one.
    pub fn control_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.control = Some(path.into());
        self
    }

    /// How much every commit waits for.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How many files are made durable at once.
    pub fn sync_strategy(mut self, strategy: SyncStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// How long to wait for others who publish, recover or read. 30 seconds unless told otherwise.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Opens without recovering, sweeping or writing anything; views read through what a dead
    /// writer left pending.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Whether opening recovers and sweeps, as it does unless told otherwise. Without it a root can be
    /// opened whose published manifest is damaged, to look at it ([`Store::status`]) or to give the
    /// generation up ([`Store::abandon`]); commits and views still recover first.
    pub fn recover(mut self, recover: bool) -> Self {
        self.recover = recover;
        self
    }
}
