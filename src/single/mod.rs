//! One file, atomic and durable, with no root and no control directory: the
//! functions that do it in one call. `atomic` has the writer behind them,
//! `durable` the single steps. `append` is for files that only grow.

mod append;
mod atomic;
mod durable;
mod sweeping;

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

pub use self::append::{AppendFile, AppendOptions};
pub use self::atomic::AtomicFile;
use self::atomic::Existing;
pub use self::durable::{rename_durably, sync_directory, sync_file, sync_parents};
pub use self::sweeping::sweep_temporary_files;
#[cfg(feature = "sim")]
pub use self::sweeping::sweep_temporary_files_on;
use crate::error::{Error, Result};
#[cfg(feature = "sim")]
use crate::fs::FileSystem;
#[cfg(feature = "sim")]
use crate::path::RelativePath;
use crate::protocol::caller::Claim;

/// How many bytes are buffered.
const BUFFER_BYTES: usize = 64 * 1024;

/// Replaces or creates one file, atomically and durably.
///
/// After a crash at any moment the file has its old content or `bytes`, whole. Once this returns `Ok`,
/// `bytes` survive a power loss. Other programs see the old file until the new one replaces it. Missing
/// parent directories are made, permissions are copied from the old file, and a symlink is followed.
///
/// # Errors
/// - [`Error::InvalidPath`] if the path is empty or a directory.
/// - [`Error::NotSynced`] if the last sync failed: after a power loss the file may have either content.
/// - [`Error::Io`] otherwise; the file has its old content.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("made/on/the/way/settings.json");
/// cosave::write(&path, b"{}")?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
    write_for(Arc::default(), path.as_ref(), bytes.as_ref())
}

pub(crate) fn write_for(claim: Arc<Claim>, path: &Path, bytes: &[u8]) -> Result<()> {
    save(AtomicFile::begin(path, Existing::Replace)?.claimed(claim), Existing::Replace, bytes)
}

/// Like [`write()`], with a function that writes the content to a buffered writer. Returns what the
/// function returns.
///
/// # Errors
/// As for [`write()`], and the error that `fill` returns, as it is; the file then has its old content.
/// `fill` may have an error type of its own.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("list.txt");
/// use std::io::Write;
///
/// cosave::write_with(&path, |out| (1..=3).try_for_each(|n| writeln!(out, "{n}")))?;
/// assert_eq!(std::fs::read(&path)?, b"1\n2\n3\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_with<T, E: From<Error>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    write_with_for(Arc::default(), path.as_ref(), fill)
}

pub(crate) fn write_with_for<T, E: From<Error>>(
    claim: Arc<Claim>,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let mut file = AtomicFile::begin(path, Existing::Replace)?.claimed(claim);
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, &mut file);
    let value = fill(&mut buffered)?;
    buffered.flush().map_err(Error::of_writer)?;
    drop(buffered);
    file.publish(Existing::Replace)?;
    Ok(value)
}

/// Like [`write()`], but never replaces a file. If several processes try at once, one of them wins.
///
/// # Errors
/// As for [`write()`], and [`Error::Conflict`] if the file exists.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("id");
/// cosave::create_new(&path, "1")?;
/// assert!(cosave::create_new(&path, "2").unwrap_err().is_conflict());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn create_new(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
    create_new_for(Arc::default(), path.as_ref(), bytes.as_ref())
}

pub(crate) fn create_new_for(claim: Arc<Claim>, path: &Path, bytes: &[u8]) -> Result<()> {
    save(AtomicFile::begin(path, Existing::Refuse)?.claimed(claim), Existing::Refuse, bytes)
}

/// Like [`write`](crate::write), on a file system of your choice. `path` is relative to its root.
///
/// # Errors
/// As for [`write`](crate::write).
#[cfg(feature = "sim")]
pub fn write_on(fs: Arc<dyn FileSystem>, path: &RelativePath, bytes: impl AsRef<[u8]>) -> Result<()> {
    save(AtomicFile::begin_on(fs, path, Existing::Replace)?, Existing::Replace, bytes.as_ref())
}

/// Like [`create_new`](crate::create_new), on a file system of your choice.
///
/// # Errors
/// As for [`create_new`](crate::create_new).
#[cfg(feature = "sim")]
pub fn create_new_on(fs: Arc<dyn FileSystem>, path: &RelativePath, bytes: impl AsRef<[u8]>) -> Result<()> {
    save(AtomicFile::begin_on(fs, path, Existing::Refuse)?, Existing::Refuse, bytes.as_ref())
}

fn save(mut file: AtomicFile, existing: Existing, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes).map_err(Error::of_writer)?;
    file.publish(existing)
}
