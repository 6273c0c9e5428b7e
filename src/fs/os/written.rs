//! A written file that waits for its sync, the same on every system.

use std::any::Any;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::fs::OpenFile;
use crate::path::RelativePath;

/// A written file, kept open by the handle that wrote it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: Arc<File>,
    pub(super) path: RelativePath,
    /// The bytes that the kernel was not yet asked to write to the disk. They end with the last one.
    #[cfg(target_os = "linux")]
    pub(super) unstarted: Range<u64>,
}

impl Written {
    #[cfg(target_os = "linux")]
    pub(super) fn new(file: impl Into<Arc<File>>, path: RelativePath, unstarted: Range<u64>) -> Self {
        Self { file: file.into(), path, unstarted }
    }

    /// Elsewhere the sync starts the write-back.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(file: impl Into<Arc<File>>, path: RelativePath, _unstarted: Range<u64>) -> Self {
        Self { file: file.into(), path }
    }
}

impl OpenFile for Written {
    fn path(&self) -> &RelativePath {
        &self.path
    }

    fn sync(&self) -> io::Result<()> {
        // Lost without this sync: the file's bytes, length and permissions (fsync(2)).
        sync_file(&self.file)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// On Apple systems fsync does not reach the medium (fsync(2) of Darwin), so the standard library uses
/// `F_FULLFSYNC`. Volumes that do not support it get a plain fsync.
#[cfg(target_vendor = "apple")]
fn sync_file(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) => {
            rustix::fs::fsync(file).map_err(io::Error::from)
        }
        result => result,
    }
}

#[cfg(not(target_vendor = "apple"))]
fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()
}
