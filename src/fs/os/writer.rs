//! A new file that is being written, the same on every system.
#![allow(clippy::disallowed_methods, reason = "this is the one place that calls the system")]

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use super::held::{self, OsLock, is_contended};
#[cfg(unix)]
use super::unix as system;
#[cfg(windows)]
use super::windows as system;
use super::written::Written;
use crate::fs::{Copied, Lock, Metadata, Unsynced, WriteFile};
use crate::path::RelativePath;

/// How many bytes are written before the system is asked to start write-back.
const KICK_BYTES: u64 = 8 * 1024 * 1024;
/// From this many bytes on, the rest of a finished file is written at once. Fewer are left to its wave,
/// which may write many small files with one request.
const KICK_BYTES_LAST: u64 = 128 * 1024;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    file: Arc<File>,
    path: RelativePath,
    /// The mode that `finish` will give it.
    hidden_mode: Option<u32>,
    /// The time of change that `finish` will give it.
    modified: Option<SystemTime>,
    directories: Arc<system::Directories>,
    position: u64,
    /// The bytes before this were written.
    written: u64,
    /// The system was asked to write the bytes before this.
    kicked: u64,
}

impl Writer {
    pub(super) fn new(file: File, path: RelativePath, directories: Arc<system::Directories>) -> Self {
        Self {
            file: Arc::new(file),
            path,
            hidden_mode: None,
            modified: None,
            directories,
            position: 0,
            written: 0,
            kicked: 0,
        }
    }

    /// The same, which gets this mode when it is finished.
    pub(super) fn hidden(self, hidden_mode: Option<u32>) -> Self {
        Self { hidden_mode, ..self }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.position += length as u64;
        self.written = self.written.max(self.position);
        if self.written - self.kicked >= KICK_BYTES {
            system::start_write_back(&self.file, self.kicked, self.written - self.kicked);
            self.kicked = self.written;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for Writer {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(position)?;
        // What was written there already may be written again.
        self.kicked = self.kicked.min(self.position);
        Ok(self.position)
    }
}

impl WriteFile for Writer {
    fn copy_permissions(&mut self, path: &RelativePath, like: &Metadata) -> io::Result<Copied> {
        self.hidden_mode = None;
        self.directories.copy_permissions(&self.file, path, like)
    }

    fn set_mode(&mut self, mode: u32) -> io::Result<()> {
        self.hidden_mode = None;
        system::set_mode(&self.file, mode)
    }

    fn set_modified(&mut self, modified: SystemTime) -> io::Result<()> {
        self.modified = Some(modified);
        Ok(())
    }

    fn share_bytes(&mut self, source: &File) -> io::Result<bool> {
        system::share_bytes(source, &self.file)
    }

    /// By this very handle, since some mounts let no other one write then (`cifs_flock` in the kernel's
    /// `fs/smb/client/file.c`).
    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        match fs2::FileExt::try_lock_exclusive(&*self.file) {
            Ok(()) => {}
            Err(error) if is_contended(&error) => return Ok(None),
            Err(error) if held::has_no_locks(&error) => return Err(io::ErrorKind::Unsupported.into()),
            Err(error) => return Err(error),
        }
        let lock = OsLock::of(Arc::clone(&self.file));
        match self.directories.is_at(&self.file, &self.path) {
            Ok(is_at) => Ok(is_at.then(|| Box::new(lock) as Box<dyn Lock>)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn finish(self: Box<Self>) -> io::Result<(Metadata, Unsynced)> {
        if let Some(mode) = self.hidden_mode {
            system::set_mode(&self.file, mode)?;
        }
        let metadata = system::finish(&self.file, self.modified)?;
        let Self { file, path, written, mut kicked, .. } = *self;
        if written - kicked >= KICK_BYTES_LAST {
            system::start_write_back(&file, kicked, written - kicked);
            kicked = written;
        }
        Ok((metadata, Unsynced::file(Box::new(Written::new(file, path, kicked..written)))))
    }
}
