//! A sweep of what killed writers of single files have left.
//!
//! A writer holds a lock on its temporary file for as long as it lives. The
//! kernel releases it when the process dies. So whoever gets the lock knows that
//! nobody writes the file any more. Asked for by a caller, never done by itself.

use std::io;
use std::path::{Path, PathBuf};
#[cfg(feature = "sim")]
use std::sync::Arc;

use crate::error::{Error, Operation, Reason, Result};
use crate::fs::os::{OsFileSystem, Parents};
use crate::fs::{FileSystem, Kind, LockKind};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use crate::protocol::layout;
use crate::protocol::root::if_found;

/// Removes the temporary files of killed writers from one directory: those of [`write()`](crate::write()),
/// [`write_with`](crate::write_with), [`create_new`](crate::create_new) and
/// [`AtomicFile::create`](crate::AtomicFile::create). Returns what was removed.
///
/// A file whose writer lives is never touched, in whatever process that is: a writer holds a lock on its file,
/// and only what can be locked is removed. Files under names that a caller has chosen
/// ([`create_under`](crate::AtomicFile::create_under)), files of stores, and everything else stay. So does a
/// file that this user may not open. Directories below this one are not looked at.
///
/// On a mount without locks (some network mounts) nobody can tell whether a writer lives, so nothing is
/// removed, and the error says so. Where one machine sees the locks of another, both are safe.
///
/// # Errors
/// - [`Error::Unsupported`] on Windows, where a locked file could not be written.
/// - [`Error::Io`] if the directory cannot be read, or a file can neither be locked nor removed. Others may
///   have been removed.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::io::Write;
///
/// let mut alive = cosave::AtomicFile::create(dir.path().join("settings.json"))?;
/// alive.write_all(b"{}")?;
/// # #[cfg(unix)]
/// for removed in cosave::sweep_temporary_files(dir.path())? {
///     println!("{} was left by a killed program", removed.display());
/// }
/// alive.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sweep_temporary_files(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let given = directory.as_ref();
    let fs = OsFileSystem::open(given, None, Parents::Leave).map_err(Error::io(Operation::Open, given))?;
    sweep(&fs, &RelativePath::root())
}

/// Like [`sweep_temporary_files`], on a file system of your choice.
///
/// # Errors
/// As there.
#[cfg(feature = "sim")]
pub fn sweep_temporary_files_on(fs: &Arc<dyn FileSystem>, directory: &RelativePath) -> Result<Vec<PathBuf>> {
    sweep(&**fs, directory)
}

fn sweep(fs: &dyn FileSystem, directory: &RelativePath) -> Result<Vec<PathBuf>> {
    if !fs.may_lock_written() {
        let reason = Reason::NoWriterLocks;
        return Err(Error::Unsupported { path: fs.full_path(directory).into(), reason });
    }
    let listed = fs.list(directory).map_err(Error::io(Operation::Look, fs.full_path(directory)))?;
    let mut removed = Vec::new();
    for entry in listed {
        if entry.kind == Kind::File && layout::is_single(&entry.name) {
            let path = directory.child(&entry.name);
            if remove_dead(fs, &path)? {
                removed.push(fs.full_path(&path));
            }
        }
    }
    Ok(removed)
}

/// Removes a file that nobody writes. Returns whether it was removed by this call.
fn remove_dead(fs: &dyn FileSystem, path: &RelativePath) -> Result<bool> {
    let full = || fs.full_path(path);
    let lock = match if_found(fs.try_lock(path, LockKind::Exclusive)) {
        // Its writer lives. Or it is committed, or another sweep was faster.
        Ok(None) => return Ok(false),
        Ok(Some(None)) if keeps(Rule::SpareWriters) => return Ok(false),
        Ok(Some(lock)) => lock,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) => return Err(Error::io(Operation::Lock, full())(error)),
    };
    // Removed while it is locked, so that a writer that has just made it sees that it was swept.
    let gone = if_found(fs.remove_file(path)).map_err(Error::io(Operation::Sweep, full()))?;
    drop(lock);
    Ok(gone.map(|debt| debt.waive("a temporary file that a power loss brings back is swept again")).is_some())
}
