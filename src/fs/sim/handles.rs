//! What a simulated process holds: open files, written files that wait for a
//! sync, and locks.
//!
//! Knows nothing of paths or names. A handle leads to an inode, whatever
//! happens to the name.

use std::ffi::OsStr;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::SystemTime;

use super::directories::Directories;
use super::disk::{Body, Number, Place};
use super::machine::Shared;
use crate::fs::{
    Copied, GrowingFile, HeldDirectory, Lock, LockKind, Metadata, OpenFile, ReadFile, Unsynced, WriteFile,
};
use crate::path::RelativePath;

/// "No space left on device".
const ENOSPC: i32 = 28;
/// "Input/output error".
const EIO: i32 = 5;

/// A written file that waits for its sync.
#[derive(Clone, Debug)]
pub(super) struct SimOpen {
    pub(super) inode: Number,
    pub(super) device: u32,
    pub(super) path: RelativePath,
}

impl OpenFile for SimOpen {
    fn path(&self) -> &RelativePath {
        &self.path
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::Error::other("a simulated file is synced as part of a wave"))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct SimWriter {
    pub(super) machine: Shared,
    pub(super) process: u32,
    pub(super) directories: Arc<Directories>,
    pub(super) open: SimOpen,
    /// The mode that `finish` will give it.
    pub(super) hidden_mode: Option<u32>,
    pub(super) position: usize,
}

impl Write for SimWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        if let Some(free) = &mut machine.free_bytes {
            let needed = bytes.len() as u64;
            if *free < needed {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            *free -= needed;
        }
        let now = machine.state.tick();
        if let Body::File { visible, lost, changed, .. } = machine.state.body_mut(self.open.inode)? {
            let end = self.position + bytes.len();
            let content = Arc::make_mut(&mut visible.bytes);
            content.resize(content.len().max(end), 0);
            content[self.position..end].copy_from_slice(bytes);
            self.position = end;
            (visible.modified, *changed, *lost) = (now, now, false);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimWriter {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let end = machine.metadata(self.open.inode)?.length;
        let position = match position {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => end.checked_add_signed(offset),
            SeekFrom::Current(offset) => (self.position as u64).checked_add_signed(offset),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        self.position = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(position)
    }
}

impl WriteFile for SimWriter {
    fn copy_permissions(&mut self, _path: &RelativePath, like: &Metadata) -> io::Result<Copied> {
        self.hidden_mode = None;
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        machine.set_mode(self.open.inode, like.mode)?;
        machine.state.touch(self.open.inode);
        Ok(Copied::default())
    }

    fn set_mode(&mut self, mode: u32) -> io::Result<()> {
        self.hidden_mode = None;
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        machine.set_mode(self.open.inode, mode)?;
        machine.state.touch(self.open.inode);
        Ok(())
    }

    fn set_modified(&mut self, modified: SystemTime) -> io::Result<()> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        machine.state.touch(self.open.inode);
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if let Body::File { visible, .. } = machine.state.body_mut(self.open.inode)? {
            visible.modified = since.as_secs();
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let inode = self.open.inode;
        let is_there = self.directories.lookup(&machine.state, &self.open.path).is_ok_and(|at| at == inode);
        let id = if is_there { machine.lock_file(inode, LockKind::Exclusive, self.process) } else { None };
        let lock = |id| SimLock { machine: self.machine.clone(), process: self.process, id };
        Ok(id.map(|id| Box::new(lock(id)) as Box<dyn Lock>))
    }

    fn finish(self: Box<Self>) -> io::Result<(Metadata, Unsynced)> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        if let Some(mode) = self.hidden_mode {
            machine.set_mode(self.open.inode, mode)?;
        }
        let metadata = machine.metadata(self.open.inode)?;
        Ok((metadata, Unsynced::file(Box::new(self.open.clone()))))
    }
}

/// A file that is being read, as it was when it was opened.
#[derive(Debug)]
pub(super) struct SimReader {
    pub(super) bytes: io::Cursor<Vec<u8>>,
    /// Otherwise there is an error where it ends.
    pub(super) is_readable: bool,
    pub(super) metadata: Metadata,
}

impl Read for SimReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.bytes.read(buffer)? {
            0 if !self.is_readable && !buffer.is_empty() => Err(io::Error::from_raw_os_error(EIO)),
            read => Ok(read),
        }
    }
}

impl Seek for SimReader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(position)
    }
}

impl ReadFile for SimReader {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.metadata)
    }
}

/// A file to whose end bytes are added.
#[derive(Debug)]
pub(super) struct SimGrowing {
    pub(super) machine: Shared,
    pub(super) process: u32,
    pub(super) directories: Arc<Directories>,
    pub(super) open: SimOpen,
    pub(super) position: usize,
    pub(super) _lock: Box<dyn Lock>,
}

impl SimGrowing {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let now = machine.state.tick();
        if let Body::File { visible, changed, .. } = machine.state.body_mut(self.open.inode)? {
            change(Arc::make_mut(&mut visible.bytes));
            (visible.modified, *changed) = (now, now);
        }
        Ok(())
    }
}

impl Read for SimGrowing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        let Body::File { visible, .. } = machine.state.body_mut(self.open.inode)? else { return Ok(0) };
        let read = visible.bytes.get(self.position..).unwrap_or_default().read(buffer)?;
        self.position += read;
        Ok(read)
    }
}

impl Seek for SimGrowing {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(position) = position else { return Err(io::ErrorKind::Unsupported.into()) };
        self.position = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(position)
    }
}

impl GrowingFile for SimGrowing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = {
            let mut machine = self.machine.lock();
            let room = machine.free_bytes.map_or(bytes.len() as u64, |free| free.min(bytes.len() as u64));
            machine.free_bytes = machine.free_bytes.map(|free| free - room);
            usize::try_from(room).unwrap_or(bytes.len())
        };
        self.change(|visible| visible.extend(&bytes[..room]))?;
        if room < bytes.len() { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.machine.lock().metadata(self.open.inode)?.length)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.change(|visible| visible.truncate(length))?;
        let mut machine = self.machine.lock();
        if let Body::File { visible, durable, lost, .. } = machine.state.body_mut(self.open.inode)? {
            // What the failed sync has dropped is gone from the cache, too.
            *lost &= durable.as_ref().is_none_or(|durable| durable.bytes != visible.bytes);
        }
        Ok(())
    }

    fn is_at(&self, path: &RelativePath) -> io::Result<bool> {
        let mut machine = self.machine.lock();
        machine.call(self.process)?;
        Ok(self.directories.lookup(&machine.state, path).is_ok_and(|inode| inode == self.open.inode))
    }

    fn debt(&mut self) -> io::Result<Unsynced> {
        self.machine.lock().call(self.process)?;
        Ok(Unsynced::file(Box::new(self.open.clone())))
    }
}

/// A directory's handle.
#[derive(Debug)]
pub(super) struct SimHeld {
    pub(super) machine: Shared,
    pub(super) process: u32,
    pub(super) inode: Number,
}

impl HeldDirectory for SimHeld {
    fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        let mut machine = self.machine.lock();
        machine.change(self.process)?;
        let place = Place { directory: self.inode, name: name.into() };
        machine.state.at(&place).ok_or(io::ErrorKind::NotFound)?;
        let model = machine.model;
        machine.state.operate(model, vec![place.to_nothing()]);
        Ok(())
    }
}

/// A lock. It is released when it is dropped or when its process dies.
#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) machine: Shared,
    pub(super) process: u32,
    pub(super) id: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let (process, id) = (self.process, self.id);
        let mut machine = self.machine.lock();
        // A child only closes its duplicate, since the lock belongs to its parent (flock(2)).
        if machine.current(process) == process {
            machine.locks.retain(|held| held.id != id || held.process != process);
        }
    }
}
