//! A lock that is held, and released by the process that took it alone. The
//! kernel releases it when that process dies.
#![allow(clippy::disallowed_methods, reason = "this is the one place that calls the system")]

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::fs::Lock;

/// A held lock, and the process that took it.
#[derive(Debug)]
pub(super) struct OsLock {
    file: Arc<File>,
    process: u32,
}

impl OsLock {
    /// The lock on a file that this process has just locked.
    pub(super) fn of(file: impl Into<Arc<File>>) -> Self {
        Self { file: file.into(), process: std::process::id() }
    }
}

impl Lock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        // A child after `fork` shares the open file, so unlocking here would unlock it for the parent
        // too (flock(2)). A child therefore only closes its duplicate. The owner unlocks explicitly,
        // because closing alone would leave the lock held until every child has closed its duplicate.
        if std::process::id() == self.process {
            let _ = fs2::FileExt::unlock(&*self.file);
        }
    }
}

/// Whether the error of a lock only says that another has it.
pub(super) fn is_contended(error: &io::Error) -> bool {
    error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
}

/// Whether the error of a lock says that nothing can be locked here. Either the file system has no locks
/// (flock(2)), or its server lends none (ENOLCK).
#[cfg(unix)]
pub(super) fn has_no_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let without = [Errno::NOLCK, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::INVAL];
    without.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

/// Windows locks files everywhere.
#[cfg(not(unix))]
pub(super) fn has_no_locks(_error: &io::Error) -> bool {
    false
}
