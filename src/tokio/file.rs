//! One file without a store, with futures.

use std::fmt;
use std::io::{Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::pool::{Withdrawn, run};
use crate::error::{Error, Result};
use crate::single;

/// The twin.
type Blocking = single::AtomicFile;

/// [`cosave::write`](crate::write()) as a future. Decided at once if it is dropped: see
/// [the module](crate::tokio#what-a-dropped-future-leaves).
///
/// # Errors
/// As there.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> cosave::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("settings.json");
/// cosave::tokio::write(&path, "{}").await?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"{}");
/// # Ok(()) }
/// ```
pub async fn write(path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) -> Result<()> {
    let (path, bytes) = (owned(path), bytes.into());
    let (_withdrawn, claim) = Withdrawn::new();
    run(path.clone(), move || single::write_for(claim, &path, &bytes)).await
}

/// [`cosave::write_with`](crate::write_with) as a future. `fill` runs on the pool, and may block. Decided at
/// once if it is dropped, as [`write()`] is.
///
/// # Errors
/// As there.
pub async fn write_with<T, E>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let path = owned(path);
    let (_withdrawn, claim) = Withdrawn::new();
    run(path.clone(), move || single::write_with_for(claim, &path, fill)).await
}

/// [`cosave::create_new`](crate::create_new) as a future. Decided at once if it is dropped, as [`write()`] is.
///
/// # Errors
/// As there.
pub async fn create_new(path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) -> Result<()> {
    let (path, bytes) = (owned(path), bytes.into());
    let (_withdrawn, claim) = Withdrawn::new();
    run(path.clone(), move || single::create_new_for(claim, &path, &bytes)).await
}

/// [`cosave::sync_file`](crate::sync_file) as a future.
///
/// # Errors
/// As there.
pub async fn sync_file(path: impl AsRef<Path>) -> Result<()> {
    let path = owned(path);
    run(path.clone(), move || single::sync_file(path)).await
}

/// [`cosave::sync_directory`](crate::sync_directory) as a future.
///
/// # Errors
/// As there.
pub async fn sync_directory(path: impl AsRef<Path>) -> Result<()> {
    let path = owned(path);
    run(path.clone(), move || single::sync_directory(path)).await
}

/// [`cosave::sync_parents`](crate::sync_parents) as a future.
///
/// # Errors
/// As there.
pub async fn sync_parents(path: impl AsRef<Path>) -> Result<()> {
    let path = owned(path);
    run(path.clone(), move || single::sync_parents(path)).await
}

/// [`cosave::sweep_temporary_files`](crate::sweep_temporary_files) as a future.
///
/// # Errors
/// As there.
pub async fn sweep_temporary_files(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let directory = owned(directory);
    run(directory.clone(), move || single::sweep_temporary_files(directory)).await
}

/// [`cosave::rename_durably`](crate::rename_durably) as a future. If it is dropped once it has begun, the
/// file has the new name.
///
/// # Errors
/// As there.
pub async fn rename_durably(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (owned(from), owned(to));
    run(to.clone(), move || single::rename_durably(from, to)).await
}

/// [`AtomicFile`](crate::AtomicFile) with futures.
///
/// If a future of a write or a seek is dropped before it is ready, nobody knows what the file has. So it
/// cannot be committed any more. If it is dropped, what was written is removed by the pool a moment later.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> cosave::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("table");
/// use std::io::SeekFrom;
///
/// let mut file = cosave::tokio::AtomicFile::create(&path).await?;
/// file.write_all("count: ?\na\nb\n").await?;
/// file.seek(SeekFrom::Start(7)).await?;
/// file.write_all("2").await?;
/// file.commit().await?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"count: 2\na\nb\n");
/// # Ok(()) }
/// ```
#[must_use = "a file that is dropped without `commit` stays as it was"]
pub struct AtomicFile {
    inner: Arc<Mutex<Option<Blocking>>>,
    path: PathBuf,
    is_torn: bool,
}

impl fmt::Debug for AtomicFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl AtomicFile {
    /// [`AtomicFile::create`](crate::AtomicFile::create) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = owned(path);
        let given = path.clone();
        let file = run(path.clone(), move || Blocking::create(given)).await?;
        Ok(Self { inner: Arc::new(Mutex::new(Some(file))), path, is_torn: false })
    }

    /// [`AtomicFile::create_under`](crate::AtomicFile::create_under) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn create_under(
        path: impl AsRef<Path>,
        temporary_name: impl AsRef<std::ffi::OsStr>,
    ) -> Result<Self> {
        let (path, name) = (owned(path), temporary_name.as_ref().to_owned());
        let given = path.clone();
        let file = run(path.clone(), move || Blocking::create_under(given, name)).await?;
        Ok(Self { inner: Arc::new(Mutex::new(Some(file))), path, is_torn: false })
    }

    /// Writes one piece, whole.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, and [`Error::Unfinished`] if an earlier piece was not written to
    /// its end.
    pub async fn write_all(&mut self, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let bytes = bytes.into();
        self.change(move |file| file.write_all(&bytes)).await
    }

    /// Goes to another place in the file, as [`Seek`](std::io::Seek) does. Returns where that is.
    ///
    /// # Errors
    /// As for [`write_all`](Self::write_all).
    pub async fn seek(&mut self, position: SeekFrom) -> Result<u64> {
        self.change(move |file| file.seek(position)).await
    }

    /// [`AtomicFile::commit`](crate::AtomicFile::commit) as a future. Decided at once if it is dropped, as
    /// [`write()`] is.
    ///
    /// # Errors
    /// As there, and [`Error::Unfinished`] if a piece was not written to its end.
    pub async fn commit(self) -> Result<()> {
        self.publish(Blocking::commit).await
    }

    /// [`AtomicFile::commit_new`](crate::AtomicFile::commit_new) as a future. Decided at once if it is dropped,
    /// as [`write()`] is.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit), and [`Error::Conflict`] if the file exists.
    pub async fn commit_new(self) -> Result<()> {
        self.publish(Blocking::commit_new).await
    }

    async fn publish(self, publish: fn(Blocking) -> Result<()>) -> Result<()> {
        if self.is_torn {
            return Err(self.unfinished());
        }
        let unfinished = self.unfinished();
        let mut file = Arc::clone(&self.inner).lock_owned().await;
        let (_withdrawn, claim) = Withdrawn::new();
        let publish = move || match file.take() {
            Some(file) => publish(file.claimed(claim)),
            None => Err(unfinished),
        };
        run(self.path.clone(), publish).await
    }

    async fn change<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut Blocking) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.is_torn {
            return Err(self.unfinished());
        }
        self.is_torn = true;
        let unfinished = self.unfinished();
        let mut file = Arc::clone(&self.inner).lock_owned().await;
        let changed = run(self.path.clone(), move || match file.as_mut() {
            Some(file) => change(file).map_err(Error::of_writer),
            None => Err(unfinished),
        });
        let value = changed.await?;
        self.is_torn = false;
        Ok(value)
    }

    fn unfinished(&self) -> Error {
        Error::Unfinished { path: self.path.clone().into() }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Ok(runtime) = Handle::try_current() {
            let inner = Arc::clone(&self.inner);
            drop(runtime.spawn_blocking(move || inner.blocking_lock().take()));
        }
    }
}

fn owned(path: impl AsRef<Path>) -> PathBuf {
    path.as_ref().to_path_buf()
}
