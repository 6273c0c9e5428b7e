//! An open file to whose end bytes are added, the same on every system.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

#[cfg(unix)]
use super::unix as system;
#[cfg(windows)]
use super::windows as system;
use super::written::Written;
use crate::fs::{GrowingFile, Unsynced};
use crate::path::RelativePath;

/// A file that this process alone has open to append. The system lets go of it with the process.
#[derive(Debug)]
pub(super) struct Growing {
    file: Arc<File>,
    path: RelativePath,
    directories: Arc<system::Directories>,
    /// Up to where the kernel was asked to write the bytes to the disk.
    started: u64,
    #[cfg(unix)]
    process: u32,
}

impl Growing {
    pub(super) fn new(file: File, path: RelativePath, directories: Arc<system::Directories>) -> Self {
        Self {
            file: Arc::new(file),
            path,
            directories,
            started: 0,
            #[cfg(unix)]
            process: std::process::id(),
        }
    }
}

impl Read for Growing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Growing {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl GrowingFile for Growing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // On Unix the file is open with O_APPEND (open(2)), so every write goes to its end.
        #[cfg(not(unix))]
        self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        // Somebody else may have cut it, and zeros in its midst would look like records.
        let length = length.min(self.length()?);
        self.started = self.started.min(length);
        self.file.set_len(length)
    }

    fn is_at(&self, path: &RelativePath) -> io::Result<bool> {
        match self.directories.is_at(&self.file, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            is_at => is_at,
        }
    }

    fn debt(&mut self) -> io::Result<Unsynced> {
        let (file, length) = (Arc::clone(&self.file), self.length()?);
        let unstarted = self.started.min(length)..length;
        self.started = length;
        Ok(Unsynced::file(Box::new(Written::new(file, self.path.clone(), unstarted))))
    }
}

#[cfg(unix)]
impl Drop for Growing {
    fn drop(&mut self) {
        // A child's duplicate would keep the lock (flock(2)), and a child must not let go of its parent's.
        if std::process::id() == self.process {
            let _ = fs2::FileExt::unlock(&*self.file);
        }
    }
}
