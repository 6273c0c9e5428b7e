//! A simulated process: the file-system trait over a simulated disk.
//!
//! Every call that changes something is a step, and so is the sync of one file
//! or directory. The process can be killed before each step, and every call can
//! fail. A dead process changes nothing any more, so clean-up code does nothing
//! either, as in a real crash.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::directories::Directories;
use super::disk::{self, Body, Number};
use super::handles::{SimGrowing, SimHeld, SimLock, SimOpen, SimReader, SimWriter};
use super::machine::{Machine, Shared, dead};
use super::plan::{Aftermath, Model};
use super::renaming::{self, Existing};
use crate::fs::time::RealTime;
use crate::fs::{
    Barrier, CONTROL_DIRECTORY, Copied, DirectoryEntry, Durable, FileSystem, GrowingFile, HeldDirectory,
    Kind, Lock, LockKind, Metadata, NewFile, ReadFile, SyncError, UNFINISHED, Unsynced, Wave, WriteFile,
};
use crate::options::SyncStrategy;
use crate::path::RelativePath;

/// The umask of simulated processes.
const UMASK: u32 = 0o022;

/// One process's view of a disk.
#[derive(Clone, Debug)]
pub(super) struct SimFileSystem {
    pub(super) machine: Shared,
    pub(super) process: u32,
    /// Below the disk's own root.
    pub(super) root: PathBuf,
    pub(super) directories: Arc<Directories>,
}

/// The path of the disk's own root, as a person would write it. Absolute on every system.
pub(super) const DISK: &str = if cfg!(windows) { r"C:\simulated" } else { "/simulated" };

/// "Too many open files".
const EMFILE: i32 = 24;

impl SimFileSystem {
    fn sync_one_file(&self, machine: &mut Machine, barrier: Barrier, file: &SimOpen) -> io::Result<()> {
        machine.step(self.process)?;
        if machine.skips(barrier, true, &file.path) {
            return Ok(());
        }
        let owed = match machine.state.body_mut(file.inode) {
            Ok(Body::File { owes_error, .. }) => std::mem::take(owes_error),
            _ => false,
        };
        if owed {
            return Err(io::ErrorKind::Other.into());
        }
        let answer = machine.call(self.process);
        let lost = matches!(machine.state.body(file.inode), Ok(Body::File { lost: true, .. }));
        machine.note_retry(&file.path, file.inode, !lost);
        match answer {
            Ok(()) => {
                machine.sync_file(file.inode, file.device);
                Ok(())
            }
            Err(error) => {
                let aftermath = machine.aftermath();
                machine.failed.push(file.inode);
                machine.fail_file(file.inode, aftermath);
                if aftermath == Aftermath::ReportedLater { Ok(()) } else { Err(error) }
            }
        }
    }

    fn sync_one_directory(
        &self,
        machine: &mut Machine,
        barrier: Barrier,
        path: &RelativePath,
    ) -> io::Result<()> {
        machine.step(self.process)?;
        if machine.skips(barrier, false, path) {
            return Ok(());
        }
        // A directory that no longer exists has no names to lose.
        let Ok(inode) = self.directories.directory(&machine.state, path) else { return Ok(()) };
        let model = machine.model;
        match machine.call(self.process) {
            Ok(()) if model == Model::LyingSync => Ok(()),
            Ok(()) => {
                machine.state.sync_names_in(model, inode);
                if let Some(elsewhere) = self.directories.holds_control().filter(|_| path.is_root()) {
                    machine.state.sync_names_in(model, elsewhere);
                }
                Ok(())
            }
            // The sync did not begin, so nothing is lost.
            Err(error) if error.raw_os_error() == Some(EMFILE) => Err(error),
            Err(error) => {
                machine.failed.push(inode);
                machine.state.lose_names_in(inode);
                Err(error)
            }
        }
    }

    fn make_directory(&self, path: &RelativePath, mode: u32) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let place = self.directories.writable_parent(&machine.state, path)?;
        if machine.state.at(&place).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let device = machine.state.device(place.directory);
        let inode = machine.state.add(disk::directory(device, mode));
        let model = machine.model;
        machine.state.operate(model, vec![place.to(inode)]);
        Ok(Unsynced::directory(path.parent()))
    }
}

impl FileSystem for SimFileSystem {
    fn metadata(&self, path: &RelativePath) -> io::Result<Metadata> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        machine.metadata(inode)
    }

    fn list(&self, directory: &RelativePath) -> io::Result<Vec<DirectoryEntry>> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = self.directories.directory(&machine.state, directory)?;
        let Body::Directory { visible, .. } = machine.state.body(inode)? else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        let entry = |(name, inode): (&Arc<std::ffi::OsStr>, &Number)| {
            let kind = machine.state.body(*inode).map_or(Kind::Other, disk::kind);
            DirectoryEntry { name: name.to_os_string(), kind }
        };
        Ok(visible.iter().map(entry).collect())
    }

    fn read_link(&self, path: &RelativePath) -> io::Result<PathBuf> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        match machine.state.body(self.directories.lookup(&machine.state, path)?)? {
            Body::Symlink(to) => Ok(to.clone()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn root_path(&self) -> PathBuf {
        Path::new(DISK).join(&self.root)
    }

    fn has_control_elsewhere(&self) -> bool {
        self.directories.holds_control().is_some()
    }

    fn control_in_root(&self) -> Option<RelativePath> {
        self.directories.control_in_root()
    }

    fn leads_to_root(&self, path: &Path) -> io::Result<bool> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let below = path.strip_prefix(DISK).map_err(|_| io::ErrorKind::NotFound)?;
        let path = match below.as_os_str().is_empty() {
            true => RelativePath::root(),
            false => RelativePath::new(below).map_err(|_| io::ErrorKind::NotFound)?,
        };
        Ok(machine.state.lookup(&path)? == self.directories.root())
    }

    fn enclosing_root(&self) -> io::Result<Option<PathBuf>> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let above = self.root.ancestors().skip(1);
        let mut roots = above.filter(|directory| {
            let control = RelativePath::new(directory.join(CONTROL_DIRECTORY));
            control.is_ok_and(|control| machine.state.directory(&control).is_ok())
        });
        Ok(roots.next().map(|root| Path::new(DISK).join(root)))
    }

    fn is_mount_point(&self, path: &RelativePath) -> io::Result<bool> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        let parent = self.directories.directory(&machine.state, &path.parent())?;
        let is_directory = matches!(machine.state.body(inode)?, Body::Directory { .. });
        let crosses = is_directory && machine.state.device(inode) != machine.state.device(parent);
        Ok(crosses || machine.state.busy.contains(&inode))
    }

    fn open(&self, path: &RelativePath) -> io::Result<Box<dyn ReadFile>> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        let metadata = machine.metadata(inode)?;
        match machine.state.body(inode)? {
            Body::File { visible, .. } => {
                let is_readable = !machine.state.unreadable.contains(&inode);
                let bytes = io::Cursor::new(visible.bytes.to_vec());
                Ok(Box::new(SimReader { bytes, is_readable, metadata }))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn may_write(&self, path: &RelativePath, known: &Metadata) -> io::Result<()> {
        self.directories.lookup(&self.machine.lock().state, path)?;
        if known.mode & 0o200 == 0 { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    fn may_rename_over(&self, path: &RelativePath) -> io::Result<()> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let parent = machine.state.directory(&path.parent())?;
        machine.may_move(parent, machine.state.child(parent, path.name()))
    }

    fn may_remove(&self, path: &RelativePath) -> io::Result<()> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        self.directories.writable_parent(&machine.state, path)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        if machine.state.busy.contains(&inode) { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    }

    fn create_new(&self, path: &RelativePath, access: NewFile) -> io::Result<(Box<dyn WriteFile>, Unsynced)> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let place = self.directories.writable_parent(&machine.state, path)?;
        if machine.state.at(&place).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ordinary = 0o666 & !UMASK;
        let (mode, hidden_mode) = match access {
            NewFile::Private | NewFile::Own => (0o600, None),
            NewFile::Ordinary => (ordinary, None),
            NewFile::Hidden => (0o600, Some(ordinary)),
        };
        let now = machine.state.tick();
        let inode = machine.state.add(disk::file(mode, now));
        let (model, device) = (machine.model, machine.state.device(place.directory));
        machine.state.operate(model, vec![place.to(inode)]);
        let open = SimOpen { inode, device, path: path.clone() };
        let (machine, process) = (self.machine.clone(), self.process);
        let directories = Arc::clone(&self.directories);
        let writer = SimWriter { machine, process, directories, open, hidden_mode, position: 0 };
        Ok((Box::new(writer), Unsynced::directory(path.parent())))
    }

    fn may_create_in(&self, directory: &RelativePath) -> io::Result<()> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = machine.state.directory(directory)?;
        match machine.state.refuses_names(inode) {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        }
    }

    fn copy_permissions(
        &self,
        _model: &RelativePath,
        like: &Metadata,
        path: &RelativePath,
    ) -> io::Result<(Copied, Unsynced)> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let inode = machine.state.lookup(path)?;
        machine.set_mode(inode, like.mode)?;
        let parent = machine.state.directory(&path.parent())?;
        let device = machine.state.device(parent);
        Ok((Copied::default(), Unsynced::file(Box::new(SimOpen { inode, device, path: path.clone() }))))
    }

    fn overwrite(&self, path: &RelativePath) -> io::Result<Box<dyn WriteFile>> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        machine.may_move(inode, None)?;
        let now = machine.state.tick();
        if let Body::File { visible, lost, changed, .. } = machine.state.body_mut(inode)? {
            visible.bytes = Arc::default();
            (visible.modified, *changed, *lost) = (now, now, false);
        }
        let parent = self.directories.directory(&machine.state, &path.parent())?;
        let open = SimOpen { inode, device: machine.state.device(parent), path: path.clone() };
        let (machine, process) = (self.machine.clone(), self.process);
        let directories = Arc::clone(&self.directories);
        Ok(Box::new(SimWriter { machine, process, directories, open, hidden_mode: None, position: 0 }))
    }

    fn open_to_append(
        &self,
        path: &RelativePath,
        access: NewFile,
    ) -> io::Result<(Box<dyn GrowingFile>, Unsynced)> {
        match self.metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_new(path, access)?.1.waive("the same debt is returned below");
            }
            Err(error) => return Err(error),
            Ok(found) if found.kind != Kind::File => return Err(io::ErrorKind::InvalidInput.into()),
            Ok(_) => {}
        }
        let lock = self.try_lock(path, LockKind::Exclusive)?.ok_or(io::ErrorKind::WouldBlock)?;
        let mut machine = self.machine.lock();
        let inode = self.directories.lookup(&machine.state, path)?;
        if let Body::File { grows, .. } = machine.state.body_mut(inode)? {
            *grows = true;
        }
        let parent = self.directories.directory(&machine.state, &path.parent())?;
        let open = SimOpen { inode, device: machine.state.device(parent), path: path.clone() };
        let (machine, process) = (self.machine.clone(), self.process);
        let directories = Arc::clone(&self.directories);
        let growing = SimGrowing { machine, process, directories, open, position: 0, _lock: lock };
        Ok((Box::new(growing), Unsynced::directory(path.parent())))
    }

    fn create_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.make_directory(path, disk::DIRECTORY_MODE)
    }

    fn create_unfinished_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.make_directory(path, UNFINISHED)
    }

    fn finish_dir(&self, path: &RelativePath, mode: u32, _group: Option<u32>) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        machine.set_mode(inode, mode)?;
        Ok(Unsynced::directory(path.clone()))
    }

    fn rename(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        renaming::move_name(&mut machine, &self.directories, (from, to), Existing::Replace)
    }

    fn rename_new(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        renaming::move_name(&mut machine, &self.directories, (from, to), Existing::Refuse)
    }

    fn exchange(&self, one: &RelativePath, other: &RelativePath) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        if machine.model == Model::TornRename || machine.state.without_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (first, second) = (
            self.directories.writable_parent(&machine.state, one)?,
            self.directories.writable_parent(&machine.state, other)?,
        );
        let inode = self.directories.lookup(&machine.state, one)?;
        let place = self.directories.lookup(&machine.state, other)?;
        machine.may_move(first.directory, Some(inode))?;
        machine.may_move(second.directory, Some(place))?;
        // One operation, so that a power loss keeps all of it or nothing.
        let settings = vec![first.to_nothing(), second.to(inode), first.to(place)];
        let model = machine.model;
        machine.state.operate(model, settings);
        self.directories.forget();
        Ok(Unsynced::directory(one.parent()).and(Unsynced::directory(other.parent())))
    }

    fn link(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let source = self.directories.directory(&machine.state, &from.parent())?;
        let target = self.directories.writable_parent(&machine.state, to)?;
        let inode = self.directories.lookup(&machine.state, from)?;
        // A mount point lies on a mount of its own (link(2), EXDEV).
        if machine.state.device(source) != machine.state.device(target.directory)
            || machine.state.busy.contains(&inode)
        {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        if machine.state.without_links {
            // As FAT does (link(2), EPERM).
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if machine.state.at(&target).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let model = machine.model;
        machine.state.operate(model, vec![target.to(inode)]);
        machine.state.touch(inode);
        Ok(Unsynced::directory(to.parent()))
    }

    fn free_bytes(&self, directory: &RelativePath) -> io::Result<Option<u64>> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        self.directories.directory(&machine.state, directory)?;
        Ok(machine.free_bytes)
    }

    fn has_symlinks(&self) -> bool {
        true
    }

    fn symlink(&self, to: &Path, path: &RelativePath) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let place = self.directories.writable_parent(&machine.state, path)?;
        if machine.state.at(&place).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = machine.state.add(Body::Symlink(to.to_path_buf()));
        let model = machine.model;
        machine.state.operate(model, vec![place.to(inode)]);
        Ok(Unsynced::directory(path.parent()))
    }

    fn remove_file(&self, path: &RelativePath) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let place = self.directories.writable_parent(&machine.state, path)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        if matches!(machine.state.body(inode)?, Body::Directory { .. }) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if machine.state.busy.contains(&inode) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        machine.may_move(place.directory, Some(inode))?;
        let model = machine.model;
        machine.state.operate(model, vec![place.to_nothing()]);
        Ok(Unsynced::directory(path.parent()))
    }

    fn remove_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let place = self.directories.writable_parent(&machine.state, path)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        match machine.state.body(inode)? {
            Body::Directory { visible, .. } if visible.is_empty() => {}
            Body::Directory { .. } => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        }
        machine.may_move(place.directory, Some(inode))?;
        let model = machine.model;
        machine.state.operate(model, vec![place.to_nothing()]);
        Ok(Unsynced::directory(path.parent()))
    }

    fn inherit(&self, path: &RelativePath) -> io::Result<Unsynced> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        let parent = self.directories.directory(&machine.state, &path.parent())?;
        let device = machine.state.device(parent);
        Ok(Unsynced::file(Box::new(SimOpen { inode, device, path: path.clone() })))
    }

    fn sync(&self, wave: Wave, _strategy: SyncStrategy) -> Result<Durable, SyncError> {
        let barrier = wave.barrier();
        let (files, directories) = wave.into_parts();
        let mut machine = self.machine.lock();
        let machine = &mut *machine;
        let mut members: Vec<(RelativePath, Option<&SimOpen>)> = files
            .iter()
            .filter_map(|file| file.as_any().downcast_ref::<SimOpen>())
            .map(|file| (file.path.clone(), Some(file)))
            .chain(directories.into_iter().map(|directory| (directory, None)))
            .collect();
        // The members are synced in no particular order, so both directions are tried.
        if machine.crash.is_some_and(|crash| crash.reversed) {
            members.reverse();
        }
        machine.waits.push(barrier);
        let mut failed = None;
        for (number, (path, file)) in members.into_iter().enumerate() {
            if machine.crashed || machine.dead.contains(&self.process) {
                return Err(SyncError { path, attempted: true, source: dead() });
            }
            let answer = match file {
                Some(file) => self.sync_one_file(machine, barrier, file),
                None => self.sync_one_directory(machine, barrier, &path),
            };
            machine.crashed_in_wave |= machine.crashed && number > 0;
            if let Err(source) = answer {
                // A written file is open already; a directory must be opened first.
                let attempted = file.is_some() || source.raw_os_error() != Some(EMFILE);
                failed.get_or_insert(SyncError { path, attempted, source });
            }
        }
        match failed {
            Some(error) => Err(error),
            None if machine.model == Model::NoDirectorySync => Ok(Durable::NamesUnsupported),
            None => Ok(Durable::Synced),
        }
    }

    fn try_lock(&self, path: &RelativePath, kind: LockKind) -> io::Result<Option<Box<dyn Lock>>> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = self.directories.lookup(&machine.state, path)?;
        if matches!(machine.state.body(inode)?, Body::Directory { .. }) && !path.is_root() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if path.is_root() && machine.state.without_directory_locks {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let Some(id) = machine.lock_file(inode, kind, self.process) else { return Ok(None) };
        Ok(Some(Box::new(SimLock { machine: self.machine.clone(), process: self.process, id })))
    }

    fn forget_directories(&self) {
        self.directories.forget();
    }

    fn hold(&self, directory: &RelativePath) -> io::Result<Arc<dyn HeldDirectory>> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = self.directories.directory(&machine.state, directory)?;
        Ok(Arc::new(SimHeld { machine: self.machine.clone(), process: self.process, inode }))
    }

    fn files_open_max(&self) -> usize {
        64
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn elapsed(&self) -> Duration {
        let machine = self.machine.lock();
        machine.time.map_or(machine.waited, RealTime::elapsed)
    }

    fn unique(&self) -> Uuid {
        let mut machine = self.machine.lock();
        machine.unique += 1;
        Uuid::from_u128(u128::from((machine.state.boots + 1) << 32 | machine.unique))
    }

    fn wait(&self, duration: Duration) {
        let mut machine = self.machine.lock();
        machine.waited += duration;
        if machine.time.is_some() {
            drop(machine);
            RealTime::wait(duration);
        }
    }

    fn boot(&self) -> Option<Uuid> {
        Some(Uuid::from_u128(u128::from(self.machine.lock().state.power_losses) + 1))
    }

    fn process(&self) -> u32 {
        self.machine.lock().current(self.process)
    }
}
