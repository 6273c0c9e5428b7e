//! A simulated machine: one disk, the processes on it, their locks, and a plan
//! that says when it crashes and which calls fail.
//!
//! Knows nothing of the file-system trait. Processes and handles call it, and
//! each call begins with [`Machine::call`] or [`Machine::change`].

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::disk::{self, Body, Number, Place, State};
use super::plan::{Aftermath, Crash, Fault, Model, Mutation, Part};
use crate::fs::time::RealTime;
use crate::fs::{Barrier, CONTROL_DIRECTORY, Identity, LockKind, Metadata};
use crate::path::RelativePath;

/// A machine, shared by its disk, its processes and their handles.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Machine>>);

impl Shared {
    pub(super) fn new(machine: Machine) -> Self {
        Self(Arc::new(Mutex::new(machine)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) state: State,
    pub(super) model: Model,
    pub(super) steps: u64,
    pub(super) calls: u64,
    pub(super) crash: Option<Crash>,
    pub(super) panic: Option<u64>,
    /// A file or empty directory that another process removes before this call.
    pub(super) removal: Option<(u64, RelativePath)>,
    /// What another process puts in the place of something before this call, which it moves away first.
    pub(super) replacement: Option<(u64, [RelativePath; 3])>,
    /// A file that another process makes and syncs before this call, or as soon as there is none.
    pub(super) arrival: Option<(u64, RelativePath, Vec<u8>)>,
    pub(super) faults: Vec<Fault>,
    pub(super) mutation: Option<Mutation>,
    pub(super) free_bytes: Option<u64>,
    pub(super) locks: Vec<HeldLock>,
    pub(super) next_lock: u64,
    pub(super) next_process: u32,
    pub(super) unique: u64,
    pub(super) waited: Duration,
    /// The clock, if waits take their time.
    pub(super) time: Option<RealTime>,
    /// Every wait for the disk.
    pub(super) waits: Vec<Barrier>,
    pub(super) retried_syncs: Vec<RelativePath>,
    pub(super) failed: Vec<Number>,
    pub(super) crashed: bool,
    /// Whether it crashed when some members of a wave were synced, and not all.
    pub(super) crashed_in_wave: bool,
    pub(super) death: Option<Death>,
    pub(super) dead: Vec<u32>,
    /// Processes whose copies now belong to a child, and that child.
    pub(super) forked: Vec<(u32, u32)>,
}

/// One process that is to be killed while the others live on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    pub(super) process: u32,
    pub(super) step: u64,
}

#[derive(Debug)]
pub(super) struct HeldLock {
    pub(super) inode: Number,
    pub(super) kind: LockKind,
    pub(super) process: u32,
    pub(super) id: u64,
}

impl Machine {
    pub(super) fn new(state: State, model: Model) -> Self {
        Self {
            state,
            model,
            steps: 0,
            calls: 0,
            crash: None,
            panic: None,
            removal: None,
            replacement: None,
            arrival: None,
            faults: Vec::new(),
            mutation: None,
            free_bytes: None,
            locks: Vec::new(),
            next_lock: 0,
            next_process: 1,
            unique: 0,
            waited: Duration::ZERO,
            time: None,
            waits: Vec::new(),
            retried_syncs: Vec::new(),
            failed: Vec::new(),
            crashed: false,
            crashed_in_wave: false,
            death: None,
            dead: Vec::new(),
            forked: Vec::new(),
        }
    }
}

pub(super) fn dead() -> io::Error {
    io::Error::other("the simulated process is dead")
}

impl Machine {
    /// Begins a call, which may fail.
    pub(super) fn call(&mut self, process: u32) -> io::Result<()> {
        if self.crashed || self.dead.contains(&process) {
            return Err(dead());
        }
        let number = self.calls;
        self.calls += 1;
        if let Some((_, path)) = self.removal.take_if(|(after, _)| *after <= number) {
            self.remove_unless_full(&path);
        }
        if let Some((_, paths)) = self.replacement.take_if(|(after, _)| *after <= number) {
            self.put_in_place(&paths);
        }
        if let Some((_, path, bytes)) = self.arrival.take_if(|(after, ..)| *after <= number) {
            if !self.make_if_missing(&path, &bytes) {
                self.arrival = Some((number, path, bytes));
            }
        }
        let hit = |fault: &&Fault| number == fault.after || fault.persistent && number > fault.after;
        match self.faults.iter().find(hit) {
            Some(fault) => Err(io::Error::from_raw_os_error(fault.error)),
            None => Ok(()),
        }
    }

    fn put_in_place(&mut self, [path, other, away]: &[RelativePath; 3]) {
        let place = |state: &State, path: &RelativePath| {
            let directory = state.directory(&path.parent())?;
            Ok::<_, io::Error>(Place { directory, name: disk::shared(path.name()) })
        };
        let state = &self.state;
        let (Ok(old), Ok(new)) = (state.lookup(path), state.lookup(other)) else { return };
        let (Ok(here), Ok(there), Ok(kept)) = (place(state, path), place(state, other), place(state, away))
        else {
            return;
        };
        self.state.operate(self.model, vec![there.to_nothing(), here.to(new), kept.to(old)]);
    }

    fn remove_unless_full(&mut self, path: &RelativePath) {
        let (Ok(inode), Ok(parent)) = (self.state.lookup(path), self.state.directory(&path.parent())) else {
            return;
        };
        let is_full =
            matches!(self.state.body(inode), Ok(Body::Directory { visible, .. }) if !visible.is_empty());
        if !is_full {
            self.state.operate(self.model, vec![(parent, disk::shared(path.name()), None)]);
        }
    }

    fn make_if_missing(&mut self, path: &RelativePath, bytes: &[u8]) -> bool {
        let Ok(parent) = self.state.directory(&path.parent()) else { return false };
        if self.state.lookup(path).is_ok() {
            return false;
        }
        let now = self.state.tick();
        let inode = self.state.add(disk::file(0o644, now));
        if let Ok(Body::File { visible, durable, .. }) = self.state.body_mut(inode) {
            visible.bytes = Arc::new(bytes.to_vec());
            *durable = Some(visible.clone());
        }
        self.state.operate(self.model, vec![(parent, disk::shared(path.name()), Some(inode))]);
        self.state.sync_names_in(self.model, parent);
        true
    }

    /// Begins a change. The machine may crash before it.
    pub(super) fn step(&mut self, process: u32) -> io::Result<()> {
        if self.death.is_some_and(|death| death.process == process && self.steps >= death.step) {
            self.dead.push(process);
            self.locks.retain(|held| held.process != process);
            return Err(dead());
        }
        if self.crash.is_some_and(|crash| self.steps >= crash.after) {
            self.crashed = true;
            self.locks.clear();
            return Err(dead());
        }
        self.steps += 1;
        assert!(self.panic.take_if(|step| *step < self.steps).is_none(), "a panic was planned here");
        Ok(())
    }

    /// The process that now uses what `process` has opened: itself, or a child after a fork.
    pub(super) fn current(&self, process: u32) -> u32 {
        let child = self.forked.iter().rev().find(|(parent, _)| *parent == process);
        child.map_or(process, |(_, child)| *child)
    }

    /// Locks a file, unless it is locked. Returns a number to know the lock by.
    pub(super) fn lock_file(&mut self, inode: Number, kind: LockKind, process: u32) -> Option<u64> {
        let excludes = |held: &HeldLock| {
            held.inode == inode && (kind == LockKind::Exclusive || held.kind == LockKind::Exclusive)
        };
        if self.locks.iter().any(excludes) {
            return None;
        }
        self.next_lock += 1;
        self.locks.push(HeldLock { inode, kind, process, id: self.next_lock });
        Some(self.next_lock)
    }

    pub(super) fn change(&mut self, process: u32) -> io::Result<()> {
        self.call(process)?;
        self.step(process)
    }

    pub(super) fn metadata(&self, inode: Number) -> io::Result<Metadata> {
        let body = self.state.body(inode)?;
        let (length, modified, changed, mode) = match body {
            Body::File { visible, changed, .. } => {
                (visible.bytes.len() as u64, visible.modified, *changed, visible.mode)
            }
            Body::Directory { visible_mode, .. } => (0, 0, 0, *visible_mode),
            Body::Symlink(_) => (0, 0, 0, 0o755),
        };
        let time = |stamp| SystemTime::UNIX_EPOCH + Duration::from_secs(stamp);
        Ok(Metadata {
            kind: disk::kind(body),
            length,
            modified: time(modified),
            changed: Some(time(changed)),
            mode,
            owner: (0, 0),
            identity: Some(Identity { device: self.state.device(inode).into(), inode: inode.into() }),
            links: 1,
        })
    }

    /// Whether the name of a file, or of no file, may be removed or given to another file.
    pub(super) fn may_move(&self, directory: Number, file: Option<Number>) -> io::Result<()> {
        let is_frozen = |inode: &Number| self.state.frozen.contains(inode);
        if is_frozen(&directory) || file.as_ref().is_some_and(is_frozen) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }

    pub(super) fn set_mode(&mut self, inode: Number, mode: u32) -> io::Result<()> {
        match self.state.body_mut(inode)? {
            Body::File { visible, .. } => visible.mode = mode,
            Body::Directory { .. } => self.state.set_directory_mode(inode, mode),
            Body::Symlink(_) => {}
        }
        Ok(())
    }

    pub(super) fn aftermath(&self) -> Aftermath {
        self.faults.first().map_or(Aftermath::CacheShowsNew, |fault| fault.aftermath)
    }

    pub(super) fn skips(&self, barrier: Barrier, is_file: bool, path: &RelativePath) -> bool {
        let Some(Mutation::Skip(skipped, part)) = self.mutation else { return false };
        let control = path.names().next().is_some_and(|name| name == CONTROL_DIRECTORY);
        skipped == barrier
            && match part {
                Part::Everything => true,
                Part::Files => is_file && !control,
                Part::ControlFiles => is_file && control,
                Part::Directories => !is_file && !control,
                Part::ControlDirectories => !is_file && control,
            }
    }

    pub(super) fn sync_file(&mut self, inode: Number, device: u32) {
        let model = self.model;
        if model == Model::LyingSync {
            return;
        }
        if let Ok(Body::File { visible, durable, lost, .. }) = self.state.body_mut(inode) {
            if !*lost {
                *durable = Some(visible.clone());
            }
        }
        self.state.sync_names_of_file(model, inode, device);
    }

    pub(super) fn fail_file(&mut self, inode: Number, aftermath: Aftermath) {
        if let Ok(Body::File { visible, durable, lost, owes_error, .. }) = self.state.body_mut(inode) {
            match aftermath {
                Aftermath::CacheShowsNew => *lost = true,
                Aftermath::CacheShowsOld => {
                    visible.bytes = durable.as_ref().map(|old| Arc::clone(&old.bytes)).unwrap_or_default();
                    *lost = true;
                }
                Aftermath::ReportedLater => (*lost, *owes_error) = (true, true),
            }
        }
    }

    /// Notes a sync that was asked for again after it had failed, with nothing new to write.
    pub(super) fn note_retry(&mut self, path: &RelativePath, inode: Number, has_news: bool) {
        if self.failed.contains(&inode) && !has_news {
            self.retried_syncs.push(path.clone());
        }
    }

    pub(super) fn walk(&self, directory: Number, prefix: &str, visit: &mut dyn FnMut(&str, &Body)) {
        let Ok(Body::Directory { visible, .. }) = self.state.body(directory) else { return };
        for (name, inode) in visible {
            if directory == disk::ROOT && **name == *CONTROL_DIRECTORY {
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
