//! What every step shares: the file system, the settings, whether a sync has
//! failed, which process opened the root, and what the last recovery found.
//!
//! A leaf: knows nothing of transactions, sessions or manifests. Every wait for
//! the disk goes through [`Root::sync`] or [`Root::sync_always`]. What several
//! steps ask of the file system stands here once, with errors that name the
//! path.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::deferred::Deferred;
use super::layout;
use super::layout::{ControlName, Fate};
use super::stamps::Stamps;
use crate::error::{Error, Operation, Reason, Result};
use crate::fs::{
    Barrier, DirectoryEntry, Durable, FileSystem, Kind, Metadata, NewFile, ReadFile, SyncError, Unsynced,
    Wave,
};
use crate::generation::Generation;
use crate::mutation::{Rule, keeps};
use crate::options::{DryRun, Durability, Settings};

use crate::path::{InvalidPath, RelativePath};
use crate::preserve::{Attribute, Preserve};
use crate::progress::{OnProgress, Progress};
use crate::report::RecoveryReport;

/// The longest manifest that is read: a million entries of a kilobyte.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Counts one reader of a store for as long as it lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader(Arc<()>);

/// An open root, as every step sees it.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) settings: Settings,
    /// Which time stamps prove something.
    pub(crate) stamps: Stamps,
    /// Commits that are in place, but not durably.
    pub(crate) deferred: Deferred,
    process: u32,
    /// Who reads through this store now.
    readers: Reader,
    poisoned: AtomicBool,
    looked_for_losses: AtomicBool,
    copied: AtomicBool,
    /// Whether this store has the root to itself.
    leased: AtomicBool,
    recovered: Mutex<RecoveryReport>,
    /// The newest generation that this store has published.
    newest: Mutex<Generation>,
}

impl Root {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, settings: Settings) -> Self {
        let process = fs.process();
        let (poisoned, looked_for_losses) = (AtomicBool::new(false), AtomicBool::new(false));
        let copied = AtomicBool::new(false);
        let (recovered, newest) = (Mutex::default(), Mutex::default());
        let (stamps, deferred) = (Stamps::default(), Deferred::default());
        Self {
            fs,
            settings,
            stamps,
            deferred,
            process,
            readers: Reader::default(),
            poisoned,
            looked_for_losses,
            copied,
            leased: AtomicBool::new(false),
            recovered,
            newest,
        }
    }

    /// Waits for a wave of a commit, unless the caller chose never to wait.
    pub(crate) fn sync(&self, wave: Wave) -> Result<Durable> {
        if self.settings.durability == Durability::Process {
            wave.waive("Durability::Process promises nothing for a power loss");
            return Ok(Durable::Waived);
        }
        self.sync_always(wave)
    }

    /// Waits for a wave under every durability. Recovery and the sweep finish other writers' commits,
    /// which may have promised more.
    ///
    /// After a failed sync the store refuses to go on: the kernel may have dropped the pages and may
    /// report the next sync as a success (fsync(2), ERRORS).
    pub(crate) fn sync_always(&self, wave: Wave) -> Result<Durable> {
        if wave.is_empty() {
            return Ok(Durable::Synced);
        }
        let durable = self.fs.sync(wave, self.settings.strategy);
        let durable = durable.map_err(|SyncError { path, attempted, source }| {
            if attempted {
                self.poison();
                // It may have been for the same directories.
                self.deferred
                    .generations()
                    .into_iter()
                    .for_each(|generation| self.mark_sync_failed(generation));
            }
            self.error(Operation::Sync, &path)(source)
        })?;
        if self.is_poisoned() {
            // The failure may have been of the same directory, and only one of two syncs is told of it
            // (fsync(2), ERRORS).
            let source = io::Error::other("another sync of this store failed meanwhile");
            return Err(self.error(Operation::Sync, &RelativePath::root())(source));
        }
        Ok(durable)
    }

    /// Waits for a wave of a recovery early, if more files are open than it may hold open.
    pub(crate) fn sync_if_full(&self, wave: &mut Wave, barrier: Barrier) -> Result<()> {
        if wave.files_open() < self.fs.files_open_max() {
            return Ok(());
        }
        let full = std::mem::replace(wave, Wave::new(barrier));
        // The whole wave would sync these files anyway. It is done early so that they can be closed.
        self.sync_always(full).map(drop)
    }

    /// Marks a generation in which a step after the commit point failed, most often a sync. The kernel
    /// may have dropped what was to be written and may report the next sync as a success (fsync(2),
    /// ERRORS). So recovery must write everything anew.
    pub(crate) fn mark_sync_failed(&self, generation: Generation) {
        self.mark(Fate::SyncFailed.of(generation));
    }

    /// Marks it only if a sync has failed. If it could not begin, nothing is lost: recovery can sync again
    /// and trust the result.
    pub(crate) fn mark_if_sync_failed(&self, generation: Generation) {
        if self.is_poisoned() {
            self.mark_sync_failed(generation);
        }
    }

    /// Makes an empty file. Only its name matters, and only until the machine restarts.
    pub(crate) fn mark(&self, mark: ControlName) {
        // If even the marker is refused, one more try is all that can be done.
        for _ in 0..2 {
            if let Ok((name, content)) = self.make(&mark.path(), b"") {
                name.waive("the power loss that erases the marker also discards the stale page cache");
                content.waive("the marker is empty");
                return;
            }
        }
    }

    /// What is at a path; nothing if a parent of it is no directory.
    pub(crate) fn look(&self, path: &RelativePath) -> Result<Option<Metadata>> {
        match self.fs.metadata(path) {
            Err(error) if is_gone(&error) => Ok(None),
            found => found.map(Some).map_err(self.error(Operation::Look, path)),
        }
    }

    /// Whether there is a directory at a path. A later commit may have put a file or a symlink there.
    pub(crate) fn has_directory(&self, path: &RelativePath) -> Result<bool> {
        Ok(self.look(path)?.is_some_and(|found| found.kind == Kind::Directory))
    }

    /// Opens a file to read it; `None` if there is none, also because a file is above it.
    pub(crate) fn open_if_there(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        match self.fs.open(path) {
            // A symlink above it leads elsewhere, so nobody knows what is there.
            Err(error) if error.kind() == ErrorKind::NotADirectory && self.is_below_file(path)? => Ok(None),
            opened => if_found(opened).map_err(self.error(Operation::Read, path)),
        }
    }

    fn is_below_file(&self, path: &RelativePath) -> Result<bool> {
        for above in path.parent().chain() {
            match self.look(&above)?.map(|found| found.kind) {
                Some(Kind::Directory) => {}
                found => return Ok(found == Some(Kind::File)),
            }
        }
        Ok(false)
    }

    /// The names in a directory; none if it is missing.
    pub(crate) fn list(&self, directory: &RelativePath) -> Result<Vec<DirectoryEntry>> {
        let names = if_found(self.fs.list(directory)).map_err(self.error(Operation::Look, directory))?;
        Ok(names.unwrap_or_default())
    }

    /// The names in a directory that are not cosave's own; `None` if there is no such directory.
    pub(crate) fn names(&self, directory: &RelativePath) -> Result<Option<BTreeMap<OsString, Kind>>> {
        let listed = match self.fs.list(directory) {
            Err(error) if is_gone(&error) => return Ok(None),
            listed => listed.map_err(self.error(Operation::Read, directory))?,
        };
        let is_own = |name: &OsStr| layout::is_reserved(name) || self.is_control(&directory.child(name));
        let others = listed.into_iter().filter(|entry| !is_own(&entry.name));
        Ok(Some(others.map(|entry| (entry.name, entry.kind)).collect()))
    }

    /// A file's bytes as text.
    pub(crate) fn text(&self, path: &RelativePath, bytes: Vec<u8>) -> Result<String> {
        let is_no_text =
            |error| self.error(Operation::Read, path)(io::Error::new(ErrorKind::InvalidData, error));
        String::from_utf8(bytes).map_err(is_no_text)
    }

    /// Reads a whole file of the control directory.
    pub(crate) fn read(&self, path: &RelativePath) -> Result<Option<Vec<u8>>> {
        let read = || {
            let mut bytes = Vec::new();
            self.fs.open(path)?.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        if_found(read()).map_err(self.error(Operation::Read, path))
    }

    /// Makes a file of the control directory. Returns the debt of its name, and that of its content.
    pub(crate) fn make(&self, path: &RelativePath, bytes: &[u8]) -> io::Result<(Unsynced, Unsynced)> {
        let (mut file, name) = self.fs.create_new(path, NewFile::Ordinary)?;
        file.write_all(bytes)?;
        let (metadata, content) = file.finish()?;
        self.stamps.note(&metadata);
        Ok((name, content))
    }

    /// Removes a file that is no longer needed, if it is there. If a power loss brings it back, that does no
    /// harm, for the reason given.
    pub(crate) fn remove(&self, operation: Operation, path: &RelativePath, reason: &str) -> Result<()> {
        let removed = if_found(self.fs.remove_file(path)).map_err(self.error(operation, path))?;
        if let Some(debt) = removed {
            debt.waive(reason);
        }
        Ok(())
    }

    /// Like `remove`, but a file that cannot be removed stays, which does no harm either.
    pub(crate) fn try_remove(&self, path: &RelativePath, reason: &str) {
        if let Ok(debt) = self.fs.remove_file(path) {
            debt.waive(reason);
        }
    }

    /// Notes what a recovery found, whoever asked for it.
    pub(crate) fn note_recovery(&self, report: &RecoveryReport) {
        if !report.is_clean() {
            guard(&self.recovered).clone_from(report);
        }
    }

    pub(crate) fn last_recovery(&self) -> RecoveryReport {
        guard(&self.recovered).clone()
    }

    /// Looks once for what a power loss has undone; false at every later call. A power loss ends every
    /// process, so once is enough.
    pub(crate) fn look_once_for_losses(&self, look: impl FnOnce() -> Result<bool>) -> Result<bool> {
        if self.looked_for_losses.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let found = look()?;
        self.looked_for_losses.store(true, Ordering::SeqCst);
        Ok(found)
    }

    /// Notes that a target was copied over, so that its mark is removed later.
    pub(crate) fn note_copy(&self) {
        self.copied.store(true, Ordering::SeqCst);
    }

    /// Notes whether this store has the root to itself.
    pub(crate) fn note_lease(&self, has_lease: bool) {
        self.leased.store(has_lease, Ordering::SeqCst);
    }

    pub(crate) fn has_lease(&self) -> bool {
        self.leased.load(Ordering::SeqCst)
    }

    /// Whether a target was copied over since the last call.
    pub(crate) fn take_copied(&self) -> bool {
        self.copied.swap(false, Ordering::SeqCst)
    }

    /// Notes a generation that this store has published.
    pub(crate) fn note_published(&self, generation: Generation) {
        let mut newest = guard(&self.newest);
        *newest = generation.max(*newest);
    }

    /// The newest generation that this store has published; 0 before the first.
    pub(crate) fn newest_published(&self) -> Generation {
        *guard(&self.newest)
    }

    /// Counts a reader of this store, so that whoever waits for it can be told.
    pub(crate) fn reader(&self) -> Reader {
        self.readers.clone()
    }

    /// Whether anybody reads through this store now.
    pub(crate) fn is_read(&self) -> bool {
        Arc::strong_count(&self.readers.0) > 1
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    /// Whether this is the process that opened the root, and not a child after `fork`.
    pub(crate) fn is_own_process(&self) -> bool {
        self.fs.process() == self.process || !keeps(Rule::LeaveToParent)
    }

    /// Refuses everything in a child after `fork`, which shares its parent's locks (flock(2)). Called
    /// before any mutex is locked: one that another thread held at the fork is never released.
    pub(crate) fn refuse_child(&self) -> Result<()> {
        if self.is_own_process() {
            return Ok(());
        }
        let reason = Reason::Forked;
        Err(Error::Unsupported { path: self.path().into(), reason })
    }

    /// Refuses to change anything in a child after `fork`, in a read-only store, and after a failed
    /// sync.
    pub(crate) fn may_change(&self) -> Result<()> {
        self.refuse_child()?;
        if self.settings.dry_run.is_some() {
            return Err(Error::Unsupported { path: self.path().into(), reason: Reason::DryRun });
        }
        if self.settings.read_only {
            let reason = Reason::ReadOnly;
            return Err(Error::Unsupported { path: self.path().into(), reason });
        }
        if self.is_poisoned() {
            return Err(Error::Poisoned { path: self.path().into() });
        }
        Ok(())
    }

    /// Tells the caller how far a save is. An error if the caller cancels it.
    pub(crate) fn tell(&self, progress: impl FnOnce() -> Progress) -> Result<()> {
        match &self.settings.on_progress {
            Some(OnProgress(tell)) if tell(&progress()).is_break() => Err(self.cancelled()),
            _ => Ok(()),
        }
    }

    /// The error of a caller who does not want it any more.
    pub(crate) fn cancelled(&self) -> Error {
        Error::Cancelled { path: self.path().into() }
    }

    /// Like `tell`, after the commit point, where it is too late to cancel.
    pub(crate) fn tell_only(&self, progress: impl FnOnce() -> Progress) {
        let _too_late = self.tell(progress);
    }

    /// Refuses to collect changes, as `may_change` does. A dry run may collect them.
    pub(crate) fn may_collect(&self) -> Result<()> {
        match self.settings.dry_run {
            Some(_) => self.refuse_child(),
            None => self.may_change(),
        }
    }

    /// Whether a dry run does not ask if the system would allow its changes.
    pub(crate) fn assumes_permission(&self) -> bool {
        self.settings.dry_run == Some(DryRun::Permission)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.fs.root_path()
    }

    /// Begins the `Debug` of something that the caller holds: short, and without the content of files.
    pub(crate) fn debug<'a, 'b>(
        &self,
        f: &'a mut fmt::Formatter<'b>,
        name: &str,
    ) -> fmt::DebugStruct<'a, 'b> {
        let mut debug = f.debug_struct(name);
        debug.field("root", &self.path()).field("durability", &self.settings.durability);
        debug
    }

    /// The rest of an absolute path below the root; `None` if it lies outside. The root is recognised
    /// as it was given at open, and with every symlink resolved.
    pub(crate) fn below(&self, path: &Path) -> Option<PathBuf> {
        let roots = [self.fs.root_path(), self.fs.given_root()];
        roots.iter().find_map(|root| path.strip_prefix(root).ok()).map(Path::to_path_buf)
    }

    /// Whether a path is the control directory or lies in it.
    pub(crate) fn is_control(&self, path: &RelativePath) -> bool {
        layout::is_control(path, self.fs.control_in_root().as_ref())
    }

    /// Refuses paths that belong to cosave alone.
    pub(crate) fn refuse_reserved(&self, path: &RelativePath) -> Result<(), InvalidPath> {
        layout::refuse_reserved(path, self.fs.control_in_root().as_ref())
    }

    /// Refuses what a new file could not get of the file that it replaces, if all of it must be kept.
    pub(crate) fn may_lose(&self, path: &RelativePath, lost: &[Attribute]) -> Result<()> {
        match lost.first() {
            Some(attribute) if self.settings.preserve == Preserve::Strict => {
                Err(Error::NotPreserved { path: self.full(path).into(), attribute: attribute.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A path as a person can use it.
    pub(crate) fn full(&self, path: &RelativePath) -> PathBuf {
        self.fs.full_path(path)
    }

    /// Turns a system error into an error about `operation` on `path`.
    pub(crate) fn error(
        &self,
        operation: Operation,
        path: &RelativePath,
    ) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(operation, self.full(path))
    }
}

/// Locks a mutex. A panic in another thread is ignored, since it leaves no half-made state in any of
/// our mutexes.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether nothing is at a path, as a parent of it may be missing or no directory.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Turns it into `None` that nothing is at a path, also because one above it is no directory.
pub(crate) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if is_gone(&error) => Ok(None),
        found => found.map(Some),
    }
}

/// Turns `NotFound` into `None`.
pub(crate) fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
