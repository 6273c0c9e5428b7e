//! A disk in memory that loses power, to crash-test cosave or your own saves.
//!
//! [`SimDisk`] is a disk. [`SimDisk::process`] gives a simulated process a
//! [`FileSystem`] on it. A [`Store`](crate::Store) on that runs the same
//! protocol as on a real disk. A plan says at which call the process dies
//! ([`SimDisk::crash_at`]) or gets an error ([`SimDisk::fail_at`]).
//! [`SimDisk::power_losses`] lists what may be found after a power loss.
//! [`explore`] does all of this at every call.
//!
//! Everything is deterministic: no clock, no threads, and no randomness except
//! from a seed.
//!
//! ```
//! use cosave::fs::sim::{Model, SimDisk};
//! use cosave::Store;
//!
//! let disk = SimDisk::new(Model::WeakPosix);
//! let store = Store::options().open_on(disk.process())?;
//! store.update(|tx| { tx.write("a", "1")?; tx.write("b", "1") })?;
//! // The commit was acknowledged, so no power loss may undo it.
//! for after in disk.power_losses(1000, 0) {
//!     Store::options().open_on(after.process())?;
//!     assert_eq!(after.files()["a"], b"1");
//!     assert_eq!(after.files()["b"], b"1");
//! }
//! # Ok::<(), cosave::Error>(())
//! ```

mod directories;
mod disk;
pub mod explore;
mod handles;
mod machine;
mod plan;
mod power;
mod process;
mod renaming;
mod strangers;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use super::time::RealTime;
use super::{Barrier, FileSystem};
#[doc(hidden)]
pub use crate::mutation::{Rule, without};
use crate::path::RelativePath;
use directories::Directories;
use disk::{Body, Place, State};
use machine::{Death, Machine, Shared};
pub use plan::{Aftermath, Crash, Fault, Granularity, Model};
#[doc(hidden)]
pub use plan::{Mutation, Part};
use process::SimFileSystem;

/// A simulated disk, and the machine around it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    machine: Shared,
}

fn path_of(text: impl AsRef<Path>) -> io::Result<RelativePath> {
    RelativePath::new(text).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(model: Model) -> Self {
        Self::with_state(State::new(), model)
    }

    fn with_state(state: State, model: Model) -> Self {
        Self { machine: Shared::new(Machine::new(state, model)) }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }

    /// Starts a process. Everything it opens is closed when it dies.
    #[must_use]
    pub fn process(&self) -> Arc<dyn FileSystem> {
        self.start(PathBuf::new(), Directories::new(disk::ROOT, None))
    }

    /// Starts a process whose root is a directory of the disk.
    ///
    /// # Errors
    /// `NotFound` or `NotADirectory`, as for opening it.
    pub fn process_at(&self, root: &str) -> io::Result<Arc<dyn FileSystem>> {
        let root = path_of(root)?;
        let inode = self.lock().state.directory(&root)?;
        Ok(self.start(root.as_path().to_path_buf(), Directories::new(inode, None)))
    }

    /// Like [`process_at`](Self::process_at), with a control directory elsewhere on the disk.
    ///
    /// # Errors
    /// As for [`process_at`](Self::process_at), for the root and the control directory's parent.
    pub fn process_with_control(&self, root: &str, control: &str) -> io::Result<Arc<dyn FileSystem>> {
        let (root, control) = (path_of(root)?, path_of(control)?);
        let (inode, place) = {
            let machine = self.lock();
            let directory = machine.state.directory(&control.parent())?;
            (machine.state.directory(&root)?, Place { directory, name: control.name().into() })
        };
        let inside = control.as_path().strip_prefix(root.as_path()).ok().and_then(|path| path_of(path).ok());
        let directories = Directories::new(inode, Some(place)).with_control_at(inside);
        Ok(self.start(root.as_path().to_path_buf(), directories))
    }

    fn start(&self, root: PathBuf, directories: Directories) -> Arc<dyn FileSystem> {
        let mut machine = self.lock();
        machine.next_process += 1;
        let process = machine.next_process;
        Arc::new(SimFileSystem {
            machine: self.machine.clone(),
            process,
            root,
            directories: Arc::new(directories),
        })
    }

    /// Forks a process. From now on, what was opened through `process` is the child's copy. The files
    /// and locks behind it belong to the parent, which does nothing more.
    pub fn fork(&self, process: &dyn FileSystem) {
        let parent = process.process();
        let mut machine = self.lock();
        machine.next_process += 1;
        let child = machine.next_process;
        machine.forked.push((parent, child));
    }

    /// Kills every process at a step.
    pub fn crash_at(&self, crash: Crash) {
        self.lock().crash = Some(crash);
    }

    /// Makes the thread that takes a step panic, once, after this many steps. Its process lives on.
    pub fn panic_at(&self, after: u64) {
        self.lock().panic = Some(after);
    }

    /// Kills one process after so many steps, counted from now over all processes. The others live on.
    pub fn crash_process_at(&self, process: &dyn FileSystem, after: u64) {
        let process = process.process();
        let mut machine = self.lock();
        machine.death = Some(Death { process, step: machine.steps + after });
    }

    /// Makes calls fail.
    pub fn fail_at(&self, faults: &[Fault]) {
        self.lock().faults = faults.to_vec();
    }

    /// Lets another process remove a file or directory before a call, but no directory that has
    /// something in it then. An aborted transaction removes the directories that it has made.
    pub fn remove_at(&self, call: u64, path: &str) {
        self.lock().removal = path_of(path).ok().map(|path| (call, path));
    }

    /// Lets another process move what is at a path away before a call, and something else there.
    pub fn replace_at(&self, call: u64, path: &str, other: &str, away: &str) {
        let paths = [path, other, away].map(path_of);
        let [Ok(path), Ok(other), Ok(away)] = paths else { return };
        self.lock().replacement = Some((call, [path, other, away]));
    }

    /// Lets another process make a file and sync it before a call, or as soon after it as there is none.
    pub fn make_at(&self, call: u64, path: &str, bytes: &[u8]) {
        self.lock().arrival = path_of(path).ok().map(|path| (call, path, bytes.to_vec()));
    }

    /// Whether the other process has made it.
    #[must_use]
    pub fn has_made(&self) -> bool {
        self.lock().arrival.is_none()
    }

    /// Removes a sync from the protocol. To break a rule, use [`without`](crate::mutation::without).
    #[doc(hidden)]
    pub fn mutate(&self, mutation: Option<Mutation>) {
        self.lock().mutation = mutation;
    }

    /// Sets the granularity of time stamps.
    pub fn clock(&self, granularity: Granularity) {
        self.lock().state.granularity = granularity;
    }

    /// Lets waits for a lock take their time, for programs with several threads. Otherwise the clock of
    /// the machine advances at once, so that one thread's waits cost nothing and runs repeat.
    pub fn real_time(&self) {
        self.lock().time = Some(RealTime::start());
    }

    /// Makes two names one if they differ only in case.
    pub fn fold_case(&self) {
        self.lock().state.folds_case = true;
    }

    /// Lets no file have a second name, as FAT does.
    pub fn without_links(&self) {
        self.lock().state.without_links = true;
    }

    /// Lets nobody lock a directory, as Windows and some network file systems do.
    pub fn without_directory_locks(&self) {
        self.lock().state.without_directory_locks = true;
    }

    /// Leaves room for this many more bytes; `None` removes the limit.
    pub fn free_bytes(&self, bytes: Option<u64>) {
        self.lock().free_bytes = bytes;
    }

    /// How often a barrier was waited for.
    #[must_use]
    pub fn waits(&self, barrier: Barrier) -> usize {
        self.lock().waits.iter().filter(|waited| **waited == barrier).count()
    }

    /// How many steps were done since the machine was started. It can crash at each of them.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// How many calls were made since the machine was started. Each of them can fail.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Whether the planned crash has happened.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        let machine = self.lock();
        machine.crashed || !machine.dead.is_empty()
    }

    /// Whether it has crashed between two syncs of one wave. Only then can their order matter.
    #[must_use]
    pub fn has_crashed_in_wave(&self) -> bool {
        self.lock().crashed_in_wave
    }

    /// Syncs that were tried again after they had failed, with nothing new to write.
    #[must_use]
    pub fn retried_syncs(&self) -> Vec<RelativePath> {
        self.lock().retried_syncs.clone()
    }

    /// The same machine after all its processes were killed: what was visible stays visible.
    #[must_use]
    pub fn kill(&self) -> Self {
        let machine = self.lock();
        let mut state = machine.state.clone();
        // Unique names are made by counting, and must not repeat.
        state.boots += 1;
        state.collect();
        self.booted(&machine, state)
    }

    /// The states that may be found after a power loss now: every one that the model allows, if there
    /// are at most `outcomes_max`. Otherwise the most revealing ones, and a sample that `seed` chooses.
    #[must_use]
    pub fn power_losses(&self, outcomes_max: usize, seed: u64) -> Vec<Self> {
        let machine = self.lock();
        let states = power::outcomes(&machine.state, machine.model, outcomes_max, seed);
        states.into_iter().map(|state| self.booted(&machine, state)).collect()
    }

    fn booted(&self, machine: &Machine, mut state: State) -> Self {
        state.forget_removed();
        let disk = Self::with_state(state, machine.model);
        disk.lock().mutation = machine.mutation;
        disk
    }

    /// A copy of the disk, on a machine of its own without processes.
    #[must_use]
    pub fn copy(&self) -> Self {
        let machine = self.lock();
        self.booted(&machine, machine.state.clone())
    }

    /// A fingerprint of the visible state, the durable state and the log between them.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        self.lock().state.fingerprint()
    }

    /// Makes everything visible durable. Tests use it to set the disk up.
    pub fn settle(&self) {
        self.lock().state.make_durable();
    }

    /// Every visible file outside the control directory, with its bytes.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let machine = self.lock();
        machine.walk(disk::ROOT, "", &mut |path, body| {
            if let Body::File { visible, .. } = body {
                files.insert(path.to_owned(), visible.bytes.to_vec());
            }
        });
        files
    }

    /// Every visible symlink except those in the control directory, and where it leads to.
    #[must_use]
    pub fn links(&self) -> BTreeMap<String, PathBuf> {
        let mut links = BTreeMap::new();
        let machine = self.lock();
        machine.walk(disk::ROOT, "", &mut |path, body| {
            if let Body::Symlink(to) = body {
                links.insert(path.to_owned(), to.clone());
            }
        });
        links
    }

    /// Every visible directory except the control directory.
    #[must_use]
    pub fn directories(&self) -> Vec<String> {
        let mut directories = Vec::new();
        let machine = self.lock();
        machine.walk(disk::ROOT, "", &mut |path, body| {
            if matches!(body, Body::Directory { .. }) {
                directories.push(path.to_owned());
            }
        });
        directories
    }

    /// The names in the control directory and in its sessions directory.
    #[must_use]
    pub fn control_names(&self) -> Vec<String> {
        let machine = self.lock();
        let mut names = Vec::new();
        if let Some(control) = machine.state.child(disk::ROOT, super::CONTROL_DIRECTORY.as_ref()) {
            machine.walk(control, "", &mut |path, _| names.push(path.to_owned()));
        }
        names
    }

    /// The permissions of a visible file or directory.
    #[must_use]
    pub fn mode(&self, path: &str) -> Option<u32> {
        let machine = self.lock();
        let path = RelativePath::new(path).ok()?;
        match machine.state.body(machine.state.lookup(&path).ok()?).ok()? {
            Body::File { visible, .. } => Some(visible.mode),
            Body::Directory { visible_mode, .. } => Some(*visible_mode),
            Body::Symlink(_) => None,
        }
    }
}
