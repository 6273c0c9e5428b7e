//! The protocol: the order of the steps, on one page.
//!
//! ```text
//! stage    beside the target, no lock            stage.rs     barrier 1
//! publish  one rename of the manifest, locked    publish.rs   barrier 2: the commit point
//! apply    staged files over their targets       apply.rs     barrier 3
//! retire   pending -> applied                    apply.rs     no barrier
//! recover  finish what was published             recover.rs
//! sweep    remove what dead sessions left        sweep.rs
//! read     one state under a shared lock         read.rs
//! ```
//!
//! [`Engine`] is what every step shares: the file system, the settings, and
//! what this process knows about its own commits. Steps call the world only
//! through [`FileSystem`], and know only the step before them.

pub(crate) mod apply;
pub(crate) mod carried;
pub(crate) mod check;
pub(crate) mod control;
pub(crate) mod group;
pub(crate) mod layout;
pub(crate) mod leftovers;
pub(crate) mod lock;
pub(crate) mod publish;
pub(crate) mod read;
pub(crate) mod recover;
pub(crate) mod session;
pub(crate) mod stage;
pub(crate) mod sweep;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Durable, FileSystem, SyncError, Wave};
use crate::options::{Durability, SyncStrategy};
use crate::path::RelativePath;
use crate::report::RecoveryReport;
use carried::Carried;
use session::Session;

/// What a store was told when it was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) lock_timeout: Duration,
    pub(crate) strategy: SyncStrategy,
    pub(crate) read_only: bool,
}

/// What all steps of one open store share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) settings: Settings,
    pub(crate) carried: Mutex<Carried>,
    pub(crate) queue: group::Queue,
    session: Mutex<Option<Arc<Session>>>,
    poisoned: AtomicBool,
    process: u32,
    recovered: Mutex<RecoveryReport>,
}

impl Engine {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, settings: Settings) -> Arc<Self> {
        let process = fs.process();
        Arc::new(Self {
            fs,
            settings,
            carried: Mutex::default(),
            queue: group::Queue::default(),
            session: Mutex::default(),
            poisoned: AtomicBool::new(false),
            process,
            recovered: Mutex::default(),
        })
    }

    /// Waits for a wave, unless the caller asked never to wait.
    ///
    /// What recovery and the sweep wait for is waited for always: they finish the commits of
    /// others, who may have been promised more.
    pub(crate) fn sync(&self, wave: Wave) -> Result<Durable> {
        let own = matches!(
            wave.barrier(),
            Barrier::Session | Barrier::Staged | Barrier::Published | Barrier::Applied
        );
        if own && self.settings.durability == Durability::Process {
            return Ok(Durable::waived());
        }
        self.sync_always(wave)
    }

    /// Waits for a wave. After a failure nothing this store is told by the disk can be trusted
    /// (the kernel may have dropped the pages and call the next sync a success: fsync(2), ERRORS),
    /// so it refuses to go on.
    fn sync_always(&self, wave: Wave) -> Result<Durable> {
        if wave.is_empty() {
            return Ok(Durable::synced());
        }
        self.fs.sync(wave, self.settings.strategy).map_err(|SyncError { path, source }| {
            self.poison();
            self.error(Operation::Sync, &path)(source)
        })
    }

    /// Keeps what a recovery found, whoever asked for it.
    pub(crate) fn note_recovery(&self, report: &RecoveryReport) {
        if !report.is_clean() {
            lock(&self.recovered).clone_from(report);
        }
    }

    pub(crate) fn last_recovery(&self) -> RecoveryReport {
        lock(&self.recovered).clone()
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    /// Refuses to change anything where that cannot be done truthfully: after a failed sync, in a
    /// read-only store, and in a child after `fork`, which shares its parent's locks (flock(2)).
    pub(crate) fn may_change(&self) -> Result<()> {
        let unsupported = |reason| Error::Unsupported { path: self.root(), reason };
        if self.fs.process() != self.process {
            return Err(unsupported("this store was opened before a fork; open the root in the child"));
        }
        if self.settings.read_only {
            return Err(unsupported("the store was opened read-only"));
        }
        if self.is_poisoned() {
            return Err(Error::Poisoned { path: self.root() });
        }
        Ok(())
    }

    /// This store's session, made when it is first needed, with `directory` on its record.
    pub(crate) fn session(self: &Arc<Self>, directory: &RelativePath) -> Result<Arc<Session>> {
        self.may_change()?;
        let mut slot = lock(&self.session);
        if let Some(session) = slot.as_ref() {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Session::start(self, directory)?);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Lets go of the session; it ends with its last transaction.
    pub(crate) fn end_session(&self) {
        let session = lock(&self.session).take();
        if let Some(session) = session.filter(|_| self.is_poisoned()) {
            // What a failed sync left is recovery's, which must be led there.
            session.leave_mark();
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.fs.root_path()
    }

    /// What is left of an absolute path below the root, which may be named as it was given at open or
    /// with every symlink resolved; `None` outside.
    pub(crate) fn below_root(&self, path: &Path) -> Option<PathBuf> {
        let roots = [self.fs.root_path(), self.fs.given_root()];
        roots.iter().find_map(|root| path.strip_prefix(root).ok()).map(Path::to_path_buf)
    }

    /// A path as a person can use it.
    pub(crate) fn full(&self, path: &RelativePath) -> PathBuf {
        self.fs.full_path(path)
    }

    /// Makes a system's answer an error about `operation` on `path`.
    pub(crate) fn error(
        &self,
        operation: Operation,
        path: &RelativePath,
    ) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(operation, self.full(path))
    }
}

/// Locks a mutex. A panic of another thread leaves no half-made state behind in any of ours.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns "there is nothing" into `None`.
pub(crate) fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
