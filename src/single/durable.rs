//! The steps of a durable save, one by one, for programs that write their files
//! themselves. Each reports its errors, and after a failed sync none is tried
//! again (fsync(2), ERRORS).

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Operation, Result};
use crate::fs::os::{OsFileSystem, Parents};
use crate::fs::{Barrier, FileSystem, SyncError, Unsynced, Wave};
use crate::options::SyncStrategy;
use crate::path::{InvalidPath, RelativePath};
use crate::place::Place;

/// Makes the bytes of an existing file durable, whoever wrote them. Its name may still be lost: see
/// [`sync_parents`].
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened, or the sync failed. After that the bytes may be lost, even if
/// a later sync succeeds: write the file anew.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// std::fs::write(&path, "1")?;
/// cosave::sync_file(&path)?;
/// cosave::sync_parents(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sync_file(path: impl AsRef<Path>) -> Result<()> {
    let given = path.as_ref();
    let (fs, file) = beside(given)?;
    let content = fs.inherit(&file).map_err(Error::io(Operation::Open, given))?;
    sync(&fs, given, content)
}

/// Makes the names in a directory durable: files that were made, renamed and removed in it. What they
/// hold is not synced. Does nothing on systems that cannot sync a directory, such as Windows.
///
/// # Errors
/// [`Error::Io`] if it is not a directory, or may not be read, or the sync failed.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("old"), "")?;
/// std::fs::remove_file(dir.path().join("old"))?;
/// cosave::sync_directory(dir.path())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sync_directory(path: impl AsRef<Path>) -> Result<()> {
    let given = path.as_ref();
    let fs = open(given)?;
    sync(&fs, given, Unsynced::directory(RelativePath::root()))
}

/// Makes the name of a file or directory durable, and those of the directories above it, up to the root
/// of the system. A file whose directories were made a moment ago needs all of them.
///
/// # Errors
/// As for [`sync_directory`].
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// std::fs::create_dir_all(dir.path().join("made/on/the/way"))?;
/// cosave::sync_parents(dir.path().join("made/on/the/way"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sync_parents(path: impl AsRef<Path>) -> Result<()> {
    let given = path.as_ref();
    let absolute = std::path::absolute(given).map_err(Error::io(Operation::Look, given))?;
    absolute.ancestors().skip(1).try_for_each(sync_directory)
}

/// Renames a file, replacing one at `to`, and makes that durable. Other programs see the old state or the
/// new one. The bytes are not synced: see [`sync_file`].
///
/// # Errors
/// [`Error::Io`] if it cannot be renamed; then nothing has happened. [`Error::NotSynced`] if the sync
/// failed: after a power loss it may have either name.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let (from, to) = (dir.path().join("log"), dir.path().join("log.1"));
/// std::fs::write(&from, "1")?;
/// cosave::sync_file(&from)?;
/// cosave::rename_durably(&from, &to)?;
/// assert!(to.exists() && !from.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn rename_durably(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    OsFileSystem::rename_anywhere(from, to).map_err(Error::io(Operation::Rename, from))?;
    let (left, entered) = (directory_of(from), directory_of(to));
    // Without a journal a power loss between the two keeps one of them. Then the file has both names, and not
    // none.
    let directories = [entered, left].into_iter().take(if left == entered { 1 } else { 2 });
    let not_synced = |error| Error::NotSynced { path: Place::from(to), source: Arc::new(error) };
    directories.into_iter().try_for_each(sync_directory).map_err(|error| not_synced(error.into()))
}

/// The directory in which a path is a name.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn open(directory: &Path) -> Result<OsFileSystem> {
    OsFileSystem::open(directory, None, Parents::Leave).map_err(Error::io(Operation::Open, directory))
}

/// The directory of a file, with every symlink followed, and the file's name in it.
fn beside(given: &Path) -> Result<(OsFileSystem, RelativePath)> {
    let followed = given.canonicalize().map_err(Error::io(Operation::Look, given))?;
    let name = followed.file_name().ok_or_else(|| Error::invalid(given, InvalidPath::Directory))?;
    let name = RelativePath::new(name).map_err(|reason| Error::invalid(given, reason))?;
    Ok((open(directory_of(&followed))?, name))
}

fn sync(fs: &OsFileSystem, given: &Path, debt: Unsynced) -> Result<()> {
    let mut wave = Wave::new(Barrier::SingleStaged);
    wave.add(debt);
    let synced = fs.sync(wave, SyncStrategy::PerFile);
    synced.map(drop).map_err(|SyncError { source, .. }| Error::io(Operation::Sync, given)(source))
}
