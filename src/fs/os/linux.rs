//! What Linux can do beyond other Unix systems.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::{Advice, AtFlags, StatxAttributes, StatxFlags};

use crate::fs::{Durable, SyncError};
use crate::path::RelativePath;

/// Asks the kernel to start writing a range to disk. Does not wait, and promises nothing.
///
/// `POSIX_FADV_DONTNEED` starts write-back of dirty pages (mm/fadvise.c) and then drops the clean ones.
/// A range that was just written has no clean pages.
pub(super) fn start_write_back(file: &File, offset: u64, length: u64) {
    // Only a hint: the sync will report any failure.
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
}

/// Syncs the file systems of these handles, with one call for each (syncfs(2)). Returns `None` on
/// kernels before 5.8, which do not report errors of write-back.
pub(super) fn sync_each_file_system<'a>(
    handles: impl Iterator<Item = (BorrowedFd<'a>, &'a RelativePath)>,
) -> Result<Option<Durable>, SyncError> {
    if !reports_errors() {
        return Ok(None);
    }
    let mut devices = BTreeMap::new();
    for (handle, path) in handles {
        let stat = rustix::fs::fstat(handle);
        let stat =
            stat.map_err(|error| SyncError { path: path.clone(), attempted: false, source: error.into() })?;
        devices.entry(stat.st_dev).or_insert((handle, path));
    }
    let mut failed = None;
    for (handle, path) in devices.into_values() {
        // Lost without this sync: everything in the wave on this file system.
        if let Err(error) = rustix::fs::syncfs(handle) {
            failed.get_or_insert(SyncError { path: path.clone(), attempted: true, source: error.into() });
        }
    }
    failed.map_or(Ok(Some(Durable::synced())), Err)
}

/// Whether this name is a mount point, which cannot be removed (rmdir(2) and unlink(2), EBUSY). The
/// kernel says so since Linux 5.8 (statx(2), STATX_ATTR_MOUNT_ROOT); before, the answer is no.
pub(super) fn is_mount_point(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<bool> {
    match rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOSYS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a file or directory is append-only or immutable (chattr(1)). Told since Linux 4.11 on the
/// file systems that have such flags (statx(2), STATX_ATTR_APPEND).
pub(super) fn is_frozen(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<bool> {
    let frozen = StatxAttributes::APPEND | StatxAttributes::IMMUTABLE;
    match rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.intersects(frozen)),
        Err(rustix::io::Errno::NOSYS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Since Linux 5.8 syncfs reports errors of write-back (syncfs(2), VERSIONS).
fn reports_errors() -> bool {
    static REPORTS: OnceLock<bool> = OnceLock::new();
    *REPORTS.get_or_init(|| {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        version >= (5, 8)
    })
}
