//! A disk in memory that loses power: crash-test cosave, or your own saves.
//!
//! [`SimDisk`] is a disk; [`SimDisk::process`] gives a simulated process a
//! [`FileSystem`] on it, over which a [`Store`](crate::Store)
//! runs the very protocol that it runs on a real disk. A plan says at which call
//! the process dies ([`SimDisk::crash_at`]) or meets an error
//! ([`SimDisk::fail_at`]); [`SimDisk::power_losses`] lists what may be found
//! after a power loss; [`explore`] does all of that at every call.
//!
//! Everything is deterministic: no clock, no threads, no randomness but a seed.
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

mod disk;
pub mod explore;
mod handles;
mod power;
mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Barrier, FileSystem, LockKind, Rule};
use crate::path::RelativePath;
use disk::{Body, Number, State};
use process::SimFileSystem;

/// What a disk and its file system may do to what is not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Model {
    /// Names become durable in the order in which they changed, and every sync makes all earlier
    /// changes of names durable (ext4 with a journal, XFS).
    OrderedPrefix,
    /// As `OrderedPrefix`, but a sync makes only what concerns its own file or directory durable,
    /// ahead of what came before (btrfs).
    JumpingPrefix,
    /// Any subset of the changes of names, until their directory is synced; the sync of a file says
    /// nothing of its name. What POSIX promises.
    WeakPosix,
    /// As `WeakPosix`, and a rename falls into parts. No protocol of renames survives that: a
    /// negative control.
    TornRename,
    /// Syncs answer at once, and do nothing. A negative control.
    LyingSync,
    /// As `OrderedPrefix`, with no way to sync a directory.
    NoDirectorySync,
}

impl Model {
    /// Every model.
    pub const ALL: [Self; 6] = [
        Self::OrderedPrefix,
        Self::JumpingPrefix,
        Self::WeakPosix,
        Self::TornRename,
        Self::LyingSync,
        Self::NoDirectorySync,
    ];
}

/// What a failed sync leaves behind; every later sync of the same thing succeeds and does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Aftermath {
    /// The disk has the old bytes, the cache goes on showing the new ones (ext4, XFS).
    CacheShowsNew,
    /// The disk has the old bytes, and so has the cache (btrfs).
    CacheShowsOld,
    /// The sync succeeds; the next one reports the failure.
    ReportedLater,
}

/// One way to break the protocol, to see that the exploration notices.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A barrier that is not waited for.
    Skip(Barrier, Part),
    /// A rule that is not kept.
    Break(Rule),
}

/// Which part of a barrier is skipped.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Everything,
    /// The staged files of a wave, but not the files of the control directory.
    Files,
    /// The files of the control directory.
    ControlFiles,
    /// The directories of the tree.
    Directories,
    /// The control directory and what is below it.
    ControlDirectories,
}

/// When a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// How many calls that change something, and syncs of single members, are let through.
    pub after: u64,
    /// Whether the members of a wave are synced in reverse order.
    pub reversed: bool,
}

/// An error that calls meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How many calls of any kind are let through first.
    pub after: u64,
    /// The system's error number.
    pub error: i32,
    /// Whether every later call fails as well.
    pub persistent: bool,
    /// What a failing sync leaves.
    pub aftermath: Aftermath,
}

/// A simulated disk, and the machine around it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
}

#[derive(Debug)]
struct Machine {
    state: State,
    model: Model,
    steps: u64,
    calls: u64,
    crash: Option<Crash>,
    faults: Vec<Fault>,
    sabotage: Option<Sabotage>,
    free_bytes: Option<u64>,
    locks: Vec<HeldLock>,
    next_lock: u64,
    next_process: u32,
    unique: u64,
    waited: std::time::Duration,
    retried_syncs: Vec<RelativePath>,
    failed: Vec<Number>,
    crashed: bool,
    death: Option<Death>,
    dead: Vec<u32>,
}

/// One process that is to die, while the others live on.
#[derive(Clone, Copy, Debug)]
struct Death {
    process: u32,
    step: u64,
}

#[derive(Debug)]
struct HeldLock {
    inode: Number,
    kind: LockKind,
    process: u32,
    id: u64,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(model: Model) -> Self {
        Self::with_state(State::new(), model)
    }

    fn with_state(state: State, model: Model) -> Self {
        let machine = Machine {
            state,
            model,
            steps: 0,
            calls: 0,
            crash: None,
            faults: Vec::new(),
            sabotage: None,
            free_bytes: None,
            locks: Vec::new(),
            next_lock: 0,
            next_process: 1,
            unique: 0,
            waited: std::time::Duration::ZERO,
            retried_syncs: Vec::new(),
            failed: Vec::new(),
            crashed: false,
            death: None,
            dead: Vec::new(),
        };
        Self { machine: Arc::new(Mutex::new(machine)) }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process; what it gets dies with it.
    #[must_use]
    pub fn process(&self) -> Arc<dyn FileSystem> {
        let mut machine = self.lock();
        machine.next_process += 1;
        Arc::new(SimFileSystem { disk: self.clone(), process: machine.next_process })
    }

    /// Kills every process at a step.
    pub fn crash_at(&self, crash: Crash) {
        self.lock().crash = Some(crash);
    }

    /// Kills one process at a step, counted from now on over all processes; the others live on.
    pub fn crash_process_at(&self, process: &dyn FileSystem, after: u64) {
        let mut machine = self.lock();
        machine.death = Some(Death { process: process.process(), step: machine.steps + after });
    }

    /// Makes calls fail.
    pub fn fail_at(&self, faults: &[Fault]) {
        self.lock().faults = faults.to_vec();
    }

    /// Breaks the protocol in one place.
    #[doc(hidden)]
    pub fn sabotage(&self, sabotage: Option<Sabotage>) {
        self.lock().sabotage = sabotage;
    }

    /// Leaves room for this many bytes more; `None` is no limit.
    pub fn free_bytes(&self, bytes: Option<u64>) {
        self.lock().free_bytes = bytes;
    }

    /// How many steps were done since the machine was started: the places where it can crash.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// How many calls were made since the machine was started: the places where one can fail.
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

    /// Syncs that were tried again after they had failed, with nothing new to sync.
    #[must_use]
    pub fn retried_syncs(&self) -> Vec<RelativePath> {
        self.lock().retried_syncs.clone()
    }

    /// The same machine after all its processes were killed: what was visible stays visible.
    #[must_use]
    pub fn kill(&self) -> Self {
        let machine = self.lock();
        let mut state = machine.state.clone();
        // Names made unique by counting must stay so.
        state.boots += 1;
        state.collect();
        self.booted(&machine, state)
    }

    /// What may be found after a power loss now: all that the model allows, or, where these are more
    /// than `outcomes_max`, the telling ones and a sample that `seed` decides.
    #[must_use]
    pub fn power_losses(&self, outcomes_max: usize, seed: u64) -> Vec<Self> {
        let machine = self.lock();
        let states = power::outcomes(&machine.state, machine.model, outcomes_max, seed);
        states.into_iter().map(|state| self.booted(&machine, state)).collect()
    }

    fn booted(&self, machine: &Machine, state: State) -> Self {
        let disk = Self::with_state(state, machine.model);
        disk.lock().sabotage = machine.sabotage;
        disk
    }

    /// A copy of the disk, on a machine of its own, with nobody on it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let machine = self.lock();
        self.booted(&machine, machine.state.clone())
    }

    /// A fingerprint of what is visible, durable and in between.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        self.lock().state.fingerprint()
    }

    /// Makes all that is visible durable: how a test sets the disk up.
    pub fn settle(&self) {
        self.lock().state.settle();
    }

    /// Every visible file but the control directory's, with its bytes.
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

    /// Every visible directory but the control directory.
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

    /// The names in the control directory and its sessions.
    #[must_use]
    pub fn control_names(&self) -> Vec<String> {
        let machine = self.lock();
        let mut names = Vec::new();
        if let Some(control) = machine.state.child(disk::ROOT, super::CONTROL_DIRECTORY.as_ref()) {
            machine.walk(control, "", &mut |path, _| names.push(path.to_owned()));
        }
        names
    }

    /// The permissions of a visible file.
    #[must_use]
    pub fn mode(&self, path: &str) -> Option<u32> {
        let machine = self.lock();
        let path = RelativePath::new(path).ok()?;
        match machine.state.body(machine.state.lookup(&path).ok()?).ok()? {
            Body::File { visible, .. } => Some(visible.mode),
            _ => None,
        }
    }
}

/// What somebody who knows nothing of cosave does, at once and visibly.
impl SimDisk {
    /// Makes a directory, with its parents, on a file system of its own if `device` is not 0.
    pub fn make_directory(&self, path: &str, device: u32) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        for directory in path.chain() {
            if machine.state.lookup(&directory).is_err() {
                let Ok(parent) = machine.state.directory(&directory.parent()) else { return };
                let own =
                    if directory == path && device != 0 { device } else { machine.state.device(parent) };
                let inode = machine.state.add(disk::directory(own));
                let name = disk::shared(directory.name());
                machine.state.operate(model, vec![(parent, name, Some(inode))]);
            }
        }
    }

    /// Writes a file in place, made if absent.
    pub fn put(&self, path: &str, bytes: &[u8], mode: u32) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        machine.state.clock += 1;
        let clock = machine.state.clock;
        let inode = match machine.state.lookup(&path) {
            Ok(inode) => inode,
            Err(_) => {
                let Ok(parent) = machine.state.directory(&path.parent()) else { return };
                let inode = machine.state.add(disk::file(mode, clock));
                let name = disk::shared(path.name());
                machine.state.operate(model, vec![(parent, name, Some(inode))]);
                inode
            }
        };
        if let Ok(Body::File { visible, lost, .. }) = machine.state.body_mut(inode) {
            visible.bytes = Arc::new(bytes.to_vec());
            (visible.modified, visible.mode, *lost) = (clock, mode, false);
        }
    }

    /// Makes a file's bytes durable, as `fsync` would: its name only where the model says so.
    pub fn sync_file(&self, path: &str) {
        let mut machine = self.lock();
        let Ok(path) = RelativePath::new(path) else { return };
        let (Ok(inode), Ok(parent)) = (machine.state.lookup(&path), machine.state.directory(&path.parent()))
        else {
            return;
        };
        let device = machine.state.device(parent);
        machine.sync_file(inode, device);
    }

    /// Makes the names in the directory of `path` durable, as `fsync` of the directory would.
    pub fn sync_name(&self, path: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        if let Ok(parent) = machine.state.directory(&path.parent()) {
            machine.state.sync_names_in(model, parent);
        }
    }

    /// Removes a name.
    pub fn delete(&self, path: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        if let (Ok(_), Ok(parent)) = (machine.state.lookup(&path), machine.state.directory(&path.parent())) {
            machine.state.operate(model, vec![(parent, disk::shared(path.name()), None)]);
        }
    }

    /// Makes a symlink.
    pub fn symlink(&self, path: &str, to: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        let inode = machine.state.add(Body::Symlink(PathBuf::from(to)));
        if let Ok(parent) = machine.state.directory(&path.parent()) {
            machine.state.operate(model, vec![(parent, disk::shared(path.name()), Some(inode))]);
        }
    }

    /// Changes bytes of a file without changing its length or time stamp, as a failing medium does.
    pub fn damage(&self, path: &str) {
        let mut machine = self.lock();
        let Ok(path) = RelativePath::new(path) else { return };
        let Ok(inode) = machine.state.lookup(&path) else { return };
        if let Ok(Body::File { visible, durable, .. }) = machine.state.body_mut(inode) {
            let damaged = Arc::new(visible.bytes.iter().map(|byte| byte ^ 1).collect());
            visible.bytes = damaged;
            *durable = Some(visible.clone());
        }
    }

    /// Makes a file a mount point, which cannot be renamed over.
    pub fn mount_over(&self, path: &str) {
        let mut machine = self.lock();
        let Ok(path) = RelativePath::new(path) else { return };
        if let Ok(inode) = machine.state.lookup(&path) {
            machine.state.busy.push(inode);
        }
    }

    /// Makes a directory refuse new names, or accept them again.
    pub fn refuse_names(&self, path: &str, refuse: bool) {
        let mut machine = self.lock();
        let directory = RelativePath::new(path).unwrap_or_else(|_| RelativePath::root());
        let Ok(inode) = machine.state.directory(&directory) else { return };
        if let Ok(Body::Directory { read_only, .. }) = machine.state.body_mut(inode) {
            *read_only = refuse;
        }
    }
}

impl Machine {
    fn walk(&self, directory: Number, prefix: &str, visit: &mut dyn FnMut(&str, &Body)) {
        let Ok(Body::Directory { visible, .. }) = self.state.body(directory) else { return };
        for (name, inode) in visible {
            if directory == disk::ROOT && **name == *super::CONTROL_DIRECTORY {
                continue;
            }
            let path = format!("{prefix}{}", name.to_string_lossy());
            if let Ok(body) = self.state.body(*inode) {
                visit(&path, body);
                self.walk(*inode, &format!("{path}/"), visit);
            }
        }
    }
}
