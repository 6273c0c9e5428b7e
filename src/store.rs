//! The store: an open root.
//!
//! Opening recovers and sweeps; the rest hands out transactions and views. Knows
//! the order in which the protocol's steps are called, and none of their work.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Operation, Result};
use crate::fs::os::OsFileSystem;
use crate::fs::{Barrier, FileSystem, Kind, Wave};
use crate::generation::Generation;
use crate::manifest::{Action, Entry, Stamp};
use crate::options::StoreOptions;
use crate::protocol::control::{self, Control};
use crate::protocol::{Engine, Settings, layout, lock, publish, recover, stage, sweep};
use crate::report::{Commit, Mismatch, Problem, RecoveryReport, Status};
use crate::transaction::Transaction;
use crate::view::View;

/// An open root: a directory whose files are saved together, or not at all.
///
/// Cheap to clone; clones share one session. Any number of stores, in any number
/// of processes, may be open on one root.
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
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
}

/// Tries of [`Store::update`] before a conflict is given back.
const UPDATE_TRIES_MAX: u32 = 100;

impl Store {
    /// Opens an existing directory. Finishes what was published before a crash, and removes what
    /// dead sessions left behind. A root that was left clean costs a fixed number of system calls.
    ///
    /// # Errors
    /// As [`StoreOptions::open`].
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(root)
    }

    /// Says how to open a root.
    pub fn options() -> StoreOptions {
        StoreOptions::default()
    }

    pub(crate) fn open_with(options: &StoreOptions, root: &Path) -> Result<Self> {
        let failed = |error| Error::io(Operation::Open, root)(error);
        if options.create {
            OsFileSystem::create_root(root).map_err(failed)?;
        }
        let fs = OsFileSystem::open(root, options.control.as_deref()).map_err(failed)?;
        Self::open_on(options, Arc::new(fs))
    }

    pub(crate) fn open_on(options: &StoreOptions, fs: Arc<dyn FileSystem>) -> Result<Self> {
        let settings = Settings {
            durability: options.durability,
            lock_timeout: options.lock_timeout,
            strategy: options.strategy,
            read_only: options.read_only,
        };
        let engine = Engine::new(fs, settings);
        if options.recover && !options.read_only {
            settle(&engine)?;
        }
        Ok(Self { inner: Arc::new(Inner { engine }) })
    }

    /// Begins a transaction. Holds no lock: any number can be under way at once.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in a read-only store or after a `fork`, [`Error::Poisoned`] after a
    /// failed sync.
    pub fn begin(&self) -> Result<Transaction> {
        self.engine().may_change()?;
        Ok(Transaction::new(Arc::clone(self.engine())))
    }

    /// Runs `change` in a transaction and commits it; runs it again when a file that it read, or a
    /// precondition, has changed by then.
    ///
    /// # Errors
    /// Those of `change` and of [`Transaction::commit`]; a conflict only after many tries.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # cosave::write(dir.path().join("count"), "41")?;
    /// let commit = store.update(|tx| {
    ///     let count: u32 = String::from_utf8_lossy(&tx.read("count")?).parse().unwrap_or(0);
    ///     tx.write("count", (count + 1).to_string())
    /// })?;
    /// assert_eq!(std::fs::read(dir.path().join("count"))?, b"42");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update(&self, mut change: impl FnMut(&mut Transaction) -> Result<()>) -> Result<Commit> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut transaction = self.begin()?;
            let result = change(&mut transaction).and_then(|()| transaction.commit());
            match result {
                Err(error) if error.is_conflict() && tries < UPDATE_TRIES_MAX => {}
                result => return result,
            }
        }
    }

    /// Reads one consistent state: all of every commit up to some generation, and nothing of later
    /// ones. Writers wait while a view is open, so keep it short.
    ///
    /// # Errors
    /// [`Error::Locked`] when a writer holds the lock too long, [`Error::Corrupt`] when a published
    /// manifest cannot be trusted.
    pub fn view(&self) -> Result<View> {
        View::new(Arc::clone(self.engine()))
    }

    /// Finishes what is published, whoever published it. Done by `open` and by every commit.
    ///
    /// # Errors
    /// As [`StoreOptions::open`].
    pub fn recover(&self) -> Result<RecoveryReport> {
        self.engine().may_change()?;
        let locked = lock::exclusive(self.engine())?;
        recover::recover(self.engine(), &locked).map(|recovered| recovered.report)
    }

    /// Recovers, then removes what dead sessions left. Done by `open`. Never touches the work of a
    /// living session, or anything that cosave did not make.
    ///
    /// # Errors
    /// As [`StoreOptions::open`].
    pub fn sweep(&self) -> Result<RecoveryReport> {
        self.engine().may_change()?;
        let locked = lock::exclusive(self.engine())?;
        recover_and_sweep(self.engine(), &locked)
    }

    /// Waits until everything that was committed is durably in place. Only needed with
    /// [`Durability::Committed`](crate::Durability::Committed), before other programs read the files.
    ///
    /// # Errors
    /// [`Error::Io`] when a sync fails; the commits stay published, and the next opening finishes them.
    pub fn flush(&self) -> Result<()> {
        flush(self.engine())
    }

    /// Gives up a generation that is published but cannot be recovered
    /// ([`Error::Corrupt`](crate::Error::Corrupt)). Its targets stay as they are, its staged files go
    /// with the next sweep: copy what you need of them first. Generations after it go on.
    ///
    /// A root that cannot be opened for such a generation can be opened to give it up with
    /// [`StoreOptions::recover`].
    ///
    /// # Errors
    /// [`Error::Io`] when the generation is not pending, [`Error::Unsupported`] when an earlier one is
    /// pending as well: what can be recovered is recovered first.
    pub fn abandon(&self, generation: impl Into<Generation>) -> Result<()> {
        self.engine().may_change()?;
        let locked = lock::exclusive(self.engine())?;
        publish::abandon(self.engine(), &locked, generation.into())
    }

    /// Looks at the root without changing anything.
    ///
    /// # Errors
    /// [`Error::Io`] when the control directory cannot be read.
    pub fn status(&self) -> Result<Status> {
        let control = Control::look(self.engine())?;
        Ok(Status {
            generation: control.newest(),
            pending: control.pending.range(control.settled().next()..).copied().collect(),
            sessions_alive: sweep::alive(self.engine())?,
            needs_sweep: sweep::is_needed(self.engine(), &control)?,
        })
    }

    /// Compares the files of the newest commits with the checksums in their manifests. Reads every
    /// byte of them; changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read, [`Error::Corrupt`] for a damaged manifest.
    pub fn verify(&self) -> Result<Vec<Mismatch>> {
        let _share = lock::shared(self.engine())?;
        let control = Control::look(self.engine())?;
        let mut mismatches = Vec::new();
        let pending = control.pending.iter().map(|number| (*number, layout::pending(*number)));
        let applied = control.applied.iter().map(|number| (*number, layout::applied(*number)));
        let mut seen = std::collections::HashSet::new();
        let mut manifests: Vec<_> = applied.chain(pending).collect();
        manifests.sort();
        for (generation, path) in manifests.iter().rev() {
            let Some(manifest) = control::manifest(self.engine(), path)? else { continue };
            for entry in manifest.entries {
                if seen.insert(entry.path.clone()) {
                    let problem = compare(self.engine(), &entry)?;
                    mismatches.extend(problem.map(|problem| Mismatch {
                        path: entry.path,
                        generation: *generation,
                        problem,
                    }));
                }
            }
        }
        Ok(mismatches)
    }

    /// What this store's last recovery that found anything did: at open, or before a commit or a
    /// view that came upon what a dead writer had left.
    #[must_use]
    pub fn last_recovery(&self) -> RecoveryReport {
        self.engine().last_recovery()
    }

    /// The newest generation that is published; 0 before the first commit.
    ///
    /// # Errors
    /// [`Error::Io`] when the control directory cannot be read.
    pub fn generation(&self) -> Result<Generation> {
        Ok(Control::look(self.engine())?.newest())
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }
}

impl StoreOptions {
    /// Opens a root: finishes what was published and not applied, sweeps what dead sessions left.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the root is missing or no directory,
    /// [`Error::Locked`](crate::Error::Locked) when somebody holds the lock too long,
    /// [`Error::Corrupt`](crate::Error::Corrupt) when a published manifest cannot be trusted,
    /// [`Error::NotApplied`](crate::Error::NotApplied) when a committed file cannot be moved.
    pub fn open(self, root: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(&self, root.as_ref())
    }

    /// Opens a root on another file system than the real one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "sim")]
    pub fn open_on(self, file_system: Arc<dyn FileSystem>) -> Result<Store> {
        Store::open_on(&self, file_system)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.engine.is_poisoned() && self.engine.may_change().is_ok() {
            // What cannot be flushed stays published: the next opening finishes it.
            let _ = flush(&self.engine);
        }
        self.engine.end_session();
    }
}

/// Recovers and sweeps, if there is anything to do. Takes no lock where a root was left clean.
fn settle(engine: &Engine) -> Result<()> {
    let control = Control::look(engine)?;
    // Also those that are applied, when a power loss has brought their old names back.
    let published =
        !control.pending.is_empty() || !control.unsynced.is_empty() || !control.discarded.is_empty();
    let litter = sweep::is_needed(engine, &control)?;
    if !published && !litter {
        return Ok(());
    }
    let locked = lock::exclusive(engine)?;
    recover_and_sweep(engine, &locked).map(drop)
}

fn recover_and_sweep(engine: &Engine, locked: &lock::Locked) -> Result<RecoveryReport> {
    let recovered = recover::recover(engine, locked)?;
    let swept = sweep::sweep(engine, locked, &recovered)?;
    let report = RecoveryReport { swept, ..recovered.report };
    engine.note_recovery(&report);
    Ok(report)
}

/// Barrier 3 of what was carried, and its retirement.
fn flush(engine: &Engine) -> Result<()> {
    if crate::protocol::lock(&engine.carried).is_empty() {
        return Ok(());
    }
    engine.may_change()?;
    let mut wave = Wave::new(Barrier::Applied);
    let passengers = crate::protocol::lock(&engine.carried).board(&mut wave);
    // Lost without this sync: the moves of commits that were only promised to be recoverable.
    let _durable = stage::sync_with(engine, wave, passengers)?;
    let locked = lock::exclusive(engine)?;
    publish::finish_earlier(engine, &locked).map(drop)
}

fn compare(engine: &Engine, entry: &Entry) -> Result<Option<Problem>> {
    let found = crate::protocol::if_found(engine.fs.metadata(&entry.path));
    let found = found.map_err(engine.error(Operation::Look, &entry.path))?;
    match (&entry.action, found) {
        (Action::Remove, None) => Ok(None),
        (Action::Remove, Some(_)) => Ok(Some(Problem::Present)),
        (Action::Write(_), None) => Ok(Some(Problem::Missing)),
        (Action::Write(content), Some(found)) => {
            if Stamp::of(&found) != content.after || found.kind != Kind::File {
                return Ok(Some(Problem::Changed));
            }
            let checksum = stage::checksum(engine, &entry.path);
            let checksum = checksum.map_err(engine.error(Operation::Read, &entry.path))?;
            Ok((checksum != content.checksum).then_some(Problem::Damaged))
        }
    }
}
