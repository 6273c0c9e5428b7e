//! The options of a store, given when it is opened: plain data.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::preserve::Preserve;
use crate::progress::{OnProgress, Progress};

/// What a commit waits for before it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Durability {
    /// The commit is atomic if the process is killed, but not if the power fails. It does not wait for
    /// the disk, except for every 128th such commit in a row. A power loss can leave the changed files
    /// old, new, empty or damaged. The next opening with another durability reports which it finds.
    ///
    /// Stronger commits never build on it: a `Full` or `Committed` commit of any store of the root, and
    /// [`Store::flush`](crate::Store::flush), first make all earlier commits durable.
    Process,
    /// One wait for a small save, two for a long one. The commit survives a power loss, but until the
    /// root is opened again other programs may then find old files. The next commit,
    /// [`Store::flush`](crate::Store::flush) or closing the store ends that.
    ///
    /// If the process is killed before that, the next opening reports the last commit as finished, even
    /// if every file was in place.
    Committed,
    /// Two waits for a small save, three for a long one. The commit survives a power loss, and every
    /// program finds the new files.
    #[default]
    Full,
}

/// How files are made durable, and how many at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncStrategy {
    /// Like [`PerFile`](Self::PerFile), but measures how many syncs to have in flight at once. If those
    /// of the last wave returned within 200 µs, a thread would cost more than the wait it saves. Then a
    /// few syncs are made one after another, and many with 8 threads. Such disks are in memory, or have
    /// a cache that survives power loss.
    ///
    /// On Linux a wave of 8 files and directories or more is synced like [`FileSystem`](Self::FileSystem). On
    /// XFS and btrfs any wave with files is. Both only if little else waits to be written: at most 256 KiB for
    /// each file and directory of the wave.
    #[default]
    Auto,
    /// One `fsync` for each file and directory, up to 128 in flight at once, so that the file system
    /// can merge them. On btrfs without its `ssd` option, so many can be slower than few.
    PerFile,
    /// One `syncfs` for each file system. Fastest for many files, but it waits for everything that any
    /// program has written to that disk. For callers who have the disk to themselves.
    ///
    /// Only where that call reaches the medium: on ext4 with a journal, XFS and btrfs, with Linux 5.17 or later. Elsewhere
    /// the same as `PerFile`.
    FileSystem,
}

/// How long to wait for a lock by default.
const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The longest small save. Enough for the most common saves, and little for a process.
const INLINE_MAX_DEFAULT: usize = 1 << 20;
/// A manifest with more bytes might be longer than is read.
const INLINE_MAX_MOST: usize = 512 << 20;

/// How to open a root. Made by [`Store::options`](crate::Store::options).
///
/// # Examples
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
    pub(crate) settings: Settings,
}

/// What an open store needs of its options.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) strategy: SyncStrategy,
    pub(crate) lock_timeout: Duration,
    pub(crate) read_only: bool,
    /// Whether its transactions only say what they would change.
    pub(crate) dry_run: Option<DryRun>,
    /// Whether opening recovers and sweeps, unless it is read-only.
    pub(crate) recover: bool,
    /// The longest small save.
    pub(crate) inline_max: usize,
    pub(crate) root_moved: bool,
    pub(crate) preserve: Preserve,
    /// How many generations' originals are kept.
    pub(crate) keep: u32,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) on_progress: Option<OnProgress>,
}

/// What a dry run takes for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DryRun {
    /// Nothing: what the system would refuse is refused.
    Nothing,
    /// The permission to write, which a read-only store does not need.
    Permission,
}

/// A lock for which a call is waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The lock file, or the root itself.
    pub path: PathBuf,
    /// How long the call has waited.
    pub waited: Duration,
    /// Who may hold it, as far as is known. If a view of this store is open, this process. Otherwise the
    /// processes with a session here; those that only read have none.
    pub holder: Option<String>,
}

/// The function to call when a lock is waited for.
#[derive(Clone)]
pub(crate) struct OnWait(pub(crate) Arc<dyn Fn(&Waiting) + Send + Sync>);

impl fmt::Debug for OnWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a function")
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        let settings = Settings {
            durability: Durability::default(),
            strategy: SyncStrategy::default(),
            lock_timeout: LOCK_TIMEOUT_DEFAULT,
            read_only: false,
            dry_run: None,
            recover: true,
            inline_max: INLINE_MAX_DEFAULT,
            root_moved: false,
            preserve: Preserve::default(),
            keep: 0,
            on_wait: None,
            on_progress: None,
        };
        Self { create: false, control: None, settings }
    }
}

impl StoreOptions {
    /// Makes the root directory and its parents if they do not exist. Otherwise a missing root is an
    /// error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::Store;
    ///
    /// let root = dir.path().join("new/project");
    /// assert!(Store::options().open(&root).is_err());
    /// Store::options().create(true).open(&root)?;
    /// assert!(root.is_dir());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Puts the control directory here instead of at `.cosave` in the root. A relative path starts at
    /// the root, not at the working directory. Missing directories above it are made, too, unless the store is
    /// read-only. It must be on a disk that survives whatever the root
    /// survives. Every store of one root must be given the same directory. It may lie in the root, where
    /// no path in it is a valid target then. It cannot be the root itself, nor a directory above.
    ///
    /// It serves one root and stores that root's path. Another root is refused
    /// ([`Error::OtherRoot`](crate::Error::OtherRoot)). A root that was moved is recognised, unless
    /// something else is at its old path. In that case use [`root_moved`](Self::root_moved). Containers
    /// should mount the root at the same path everywhere.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::Store;
    ///
    /// let root = dir.path().join("project");
    /// # std::fs::create_dir(&root)?;
    /// let store = Store::options().control_dir("../control").open(&root)?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// assert!(dir.path().join("control").is_dir() && !root.join(".cosave").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn control_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.control = Some(path.into());
        self
    }

    /// What every commit waits for. [`Durability::Full`] by default.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::{Durability, Store};
    ///
    /// let store = Store::options().durability(Durability::Committed).open(dir.path())?;
    /// let commit = store.update(|tx| tx.write("a", "1"))?;
    /// assert_eq!(commit.durability(), Durability::Committed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// How files are made durable. [`SyncStrategy::Auto`] by default.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::{Store, SyncStrategy};
    ///
    /// let store = Store::options().sync_strategy(SyncStrategy::PerFile).open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// assert_eq!(std::fs::read(dir.path().join("a"))?, b"1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync_strategy(mut self, strategy: SyncStrategy) -> Self {
        self.settings.strategy = strategy;
        self
    }

    /// How strictly a replaced file's owner, group and extended attributes are kept.
    /// [`Preserve::Possible`] by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use cosave::{Preserve, Store};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::write(dir.path().join("settings"), "old")?;
    /// let store = Store::options().preserve(Preserve::Strict).open(dir.path())?;
    /// let commit = store.update(|tx| tx.write("settings", "new"))?;
    /// assert!(commit.not_preserved().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn preserve(mut self, preserve: Preserve) -> Self {
        self.settings.preserve = preserve;
        self
    }

    /// How long to wait for others who publish, recover or read. 30 seconds by default. A commit and an
    /// [update](crate::Store::update), with all that it reads and all its tries, wait so long in all. So does
    /// each thread of many that wait for the same holder. What the work itself takes is not counted, nor the
    /// disk. A lock that is free is taken even when the time is over.
    ///
    /// [`Store::lock`](crate::Store::lock) waits for the holder for so long, and then for the commits that are
    /// under way.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::time::Duration;
    /// use cosave::{Error, Store};
    ///
    /// let store = Store::options().lock_timeout(Duration::from_millis(10)).open(dir.path())?;
    /// let view = store.view()?;
    /// let refused = store.update(|tx| tx.write("a", "1"));
    /// assert!(matches!(refused, Err(Error::Locked { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.settings.lock_timeout = timeout;
        self
    }

    /// Says that the control directory belongs to this root, even if something else is now at the
    /// root's old path. Use it after the root was moved, or was replaced by a copy. Only with
    /// [`control_dir`](Self::control_dir).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::Store;
    ///
    /// let [old, new, control] = ["old", "new", "control"].map(|name| dir.path().join(name));
    /// let options = || Store::options().control_dir(&control);
    /// options().create(true).open(&old)?.update(|tx| tx.write("a", "1"))?;
    /// std::fs::rename(&old, &new)?;
    /// std::fs::create_dir(&old)?;                     // something else
    /// assert!(options().open(&new).is_err());
    /// options().root_moved(true).open(&new)?.update(|tx| tx.write("a", "2"))?;
    /// assert_eq!(std::fs::read(new.join("a"))?, b"2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn root_moved(mut self, moved: bool) -> Self {
        self.settings.root_moved = moved;
        self
    }

    /// Calls a function after a tenth of a second of waiting for a lock, and then every second. It can
    /// show what the program waits for, and for whom. It runs on the waiting thread.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use std::time::Duration;
    /// use cosave::Store;
    ///
    /// let told = Arc::new(AtomicBool::new(false));
    /// let tell = Arc::clone(&told);
    /// let options = Store::options().lock_timeout(Duration::from_millis(200));
    /// let store = options.on_wait(move |waiting| {
    ///     eprintln!("waiting for {}", waiting.holder.as_deref().unwrap_or("others"));
    ///     tell.store(true, Ordering::Relaxed);
    /// });
    /// let store = store.open(dir.path())?;
    /// let view = store.view()?;
    /// assert!(store.update(|tx| tx.write("a", "1")).is_err() && told.load(Ordering::Relaxed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_wait(mut self, tell: impl Fn(&Waiting) + Send + Sync + 'static) -> Self {
        self.settings.on_wait = Some(OnWait(Arc::new(tell)));
        self
    }

    /// Calls a function at each step of a save, and of a recovery: for a progress bar, or to cancel.
    ///
    /// If it returns `Break` before the commit point, that commit is refused with
    /// [`Error::Cancelled`](crate::Error::Cancelled), and nothing is changed. So is a write or a copy that
    /// is under way: the transaction goes on without it. A wait for a lock ends with that error, too, whoever
    /// waits. After the commit point it is too late: the answer has no effect, and the commit returns what
    /// it would return otherwise.
    ///
    /// The function runs on the thread that does the work, which may commit for other threads of this
    /// store, too. It may hold the lock, so the function must not use the store.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::ops::ControlFlow;
    /// use cosave::{Error, Progress, Store};
    ///
    /// let stop = |progress: &Progress| match progress {
    ///     Progress::Committing { files, .. } if *files > 1 => ControlFlow::Break(()),
    ///     _ => ControlFlow::Continue(()),
    /// };
    /// let store = Store::options().on_progress(stop).open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// let refused = store.update(|tx| { tx.write("a", "2")?; tx.write("b", "2") });
    /// assert!(matches!(refused, Err(Error::Cancelled { .. })));
    /// assert_eq!(std::fs::read(dir.path().join("a"))?, b"1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A bar of the crate `indicatif`, for long files, many files, a lock and a recovery:
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # #[derive(Clone)]
    /// # struct ProgressBar;
    /// # impl ProgressBar {
    /// #     fn no_length() -> Self { Self }
    /// #     fn set_length(&self, _: u64) {}
    /// #     fn set_position(&self, position: u64) { assert!(position <= 10 << 20) }
    /// #     fn set_message(&self, _: String) {}
    /// # }
    /// use std::ops::ControlFlow;
    /// use cosave::{Progress, Store};
    ///
    /// fn show(bar: &ProgressBar, progress: &Progress) {
    ///     match progress {
    ///         Progress::Staging { path, bytes, length, .. } => {
    ///             bar.set_message(format!("writing {path}"));
    ///             if let Some(length) = length {
    ///                 bar.set_length(*length);
    ///             }
    ///             bar.set_position(*bytes);
    ///         }
    ///         Progress::Waiting { holder, .. } => {
    ///             bar.set_message(format!("waiting for {}", holder.as_deref().unwrap_or("others")));
    ///         }
    ///         Progress::Recovering { .. } => bar.set_message("finishing an earlier save".into()),
    ///         Progress::Applied { files, all, .. } => {
    ///             bar.set_length(*all as u64);
    ///             bar.set_position(*files as u64);
    ///         }
    ///         _ => {}
    ///     }
    /// }
    ///
    /// let bar = ProgressBar::no_length();
    /// let options = Store::options().on_progress(move |progress| {
    ///     show(&bar, progress);
    ///     ControlFlow::Continue(())
    /// });
    /// options.open(dir.path())?.update(|tx| tx.write("film", vec![0; 10 << 20]))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_progress(
        mut self,
        tell: impl Fn(&Progress) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_progress = Some(OnProgress(Arc::new(tell)));
        self
    }

    /// Opens without recovering, sweeping or writing anything: not even the root is [made](Self::create). If a
    /// dead writer left a commit pending, views show it as applied. That needs the right to read the pending
    /// manifest, which only those have who may write in the root, unless all may read what it holds. Off by
    /// default.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().read_only(true).open(dir.path())?;
    /// assert!(store.begin().is_err());
    /// assert!(store.view()?.list("")?.is_empty());
    /// assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.settings.read_only = read_only;
        self
    }

    /// How long a small save may be, in bytes of all its files together. A mebibyte by default, and at
    /// most 512 of them; 0 makes every save a long one.
    ///
    /// A small save waits twice for the disk, and a long one three times. With
    /// [`Durability::Committed`] it is once and twice. A small save stays in memory until it commits.
    /// Its bytes are then written twice: beside their targets, and into its manifest.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().inline_max(0).open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// let manifest = std::fs::read(dir.path().join(".cosave/1.applied"))?;
    /// assert!(cosave::Manifest::decode(&manifest)?.inline.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inline_max(mut self, bytes: usize) -> Self {
        self.settings.inline_max = bytes.min(INLINE_MAX_MOST);
        self
    }

    /// Keeps what the last `generations` commits replaced or removed, so that
    /// [`Store::undo`](crate::Store::undo), [`Store::restore`](crate::Store::restore) and
    /// [`Store::view_at`](crate::Store::view_at) can go back to it. Off by default, and free when off.
    ///
    /// An undo is a commit, too. So about half as many saves can be undone one after the other.
    ///
    /// An original is kept as a hard link below the control directory, or as a copy where there can be no
    /// hard link. It is read once under the lock, so that its checksum is known. A commit waits no more often
    /// than without. What lies beyond the last `generations` goes with the next commit. In a root with the
    /// sticky bit it goes only with a commit of the user who has made it, or of the root's owner.
    ///
    /// Nobody can read a kept file who could not read the original: only those who may write in the root
    /// can enter the directory. If fewer could read the original, it is a copy that only its maker can read.
    /// A file that cannot be read, by this user or at all, is not kept. Symlinks are not kept: a commit that makes,
    /// replaces or removes one cannot be undone. And nothing goes back beyond a commit that moved, removed or
    /// replaced a whole directory. Both are refused with [`Reason::NotKept`](crate::Reason::NotKept).
    ///
    /// Give all stores of a root the same number. A commit of a store without it ends the history: nothing
    /// before that commit can be reached any more, and [`Store::history`](crate::Store::history) does not
    /// show it. It stays on disk, until a store with a history commits so often that it falls out, or
    /// [`Store::forget_history`](crate::Store::forget_history) removes it.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().keep(10).open(dir.path())?;
    /// store.update(|tx| tx.write("a", "one"))?;
    /// store.update(|tx| tx.write("a", "two"))?;
    /// store.undo()?;
    /// assert_eq!(std::fs::read(dir.path().join("a"))?, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep(mut self, generations: u32) -> Self {
        self.settings.keep = generations;
        self
    }

    /// Whether opening recovers and sweeps. On by default. Turn it off to open a root whose published
    /// manifest is damaged: to look at it ([`Store::status`](crate::Store::status)) or to give that
    /// generation up ([`Store::abandon`](crate::Store::abandon)). Commits and views still recover
    /// first.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().recover(false).open(dir.path())?;
    /// assert!(store.status()?.pending.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recover(mut self, recover: bool) -> Self {
        self.settings.recover = recover;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_small_save_is_longer_than_a_manifest_that_is_read() {
        let options = StoreOptions::default().inline_max(usize::MAX);
        assert_eq!(options.settings.inline_max, INLINE_MAX_MOST);
        assert_eq!(StoreOptions::default().inline_max(5).settings.inline_max, 5);
    }
}
