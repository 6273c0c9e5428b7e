//! A lock that is held, and released by the process that took it alone. The
//! kernel releases it when that process dies.
#![allow(clippy::disallowed_methods, reason = "this is the one place that calls the system")]

use std::fs::File;

use crate::fs::Lock;

/// A held lock, and the process that took it.
#[derive(Debug)]
pub(super) struct OsLock {
    file: File,
    process: u32,
}

impl OsLock {
    /// The lock on a file that this process has just locked.
    pub(super) fn of(file: File) -> Self {
        Self { file, process: std::process::id() }
    }
}

impl Lock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        // A child after `fork` shares the open file, so unlocking here would unlock it for the parent
        // too (flock(2)). A child therefore only closes its duplicate. The owner unlocks explicitly,
        // because closing alone would leave the lock held until every child has closed its duplicate.
        if std::process::id() == self.process {
            let _ = fs2::FileExt::unlock(&self.file);
        }
    }
}
