//! A file that grows, with futures.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;

use super::pool::{Limits, Permit, Withdrawn, run};
use crate::error::{Error, Result};
use crate::single::{self, AppendOptions};

/// The twin.
type Blocking = single::AppendFile;

/// [`AppendFile`](crate::AppendFile) with futures.
///
/// Tasks can share it, in an [`Arc`] for instance. Those that wait for the disk at the same time share one sync.
/// Up to 32 do so on the pool; more wait as futures.
///
/// If a future of [`append`](Self::append) is dropped, its record is decided at once: it will be in the file
/// whole, or it never will. The same is true of [`rotate`](Self::rotate). Records that one task appends are
/// in the order in which it awaits them.
///
/// Dropping it syncs what is owed on the pool, a moment later. The file can be opened again once that is done:
/// [`close`](Self::close) waits for it.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> cosave::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("journal");
/// let journal = cosave::tokio::AppendFile::open(&path).await?;
/// journal.append("first\n").await?;
/// journal.append("second\n").await?;
/// assert_eq!(journal.sync().await?, 13);
/// journal.close().await?;
/// # assert_eq!(std::fs::read(&path).unwrap(), b"first\nsecond\n");
/// # Ok(()) }
/// ```
pub struct AppendFile {
    /// `None` once it is over.
    inner: Option<Arc<Blocking>>,
    path: PathBuf,
    limits: Limits,
}

impl fmt::Debug for AppendFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl From<Blocking> for AppendFile {
    fn from(file: Blocking) -> Self {
        let path = file.path().to_path_buf();
        Self { inner: Some(Arc::new(file)), path, limits: Limits::new() }
    }
}

impl AppendFile {
    /// [`AppendFile::open`](crate::AppendFile::open) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(Blocking::options(), path).await
    }

    /// [`AppendOptions::open`] as a future.
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
    /// # let path = dir.path().join("journal");
    /// use cosave::tokio::AppendFile;
    ///
    /// // Every record is durable once its future is ready.
    /// let options = cosave::AppendFile::options().sync_every(1);
    /// let journal = AppendFile::open_with(options, &path).await?;
    /// journal.append("paid\n").await?;
    /// assert_eq!(journal.synced_len().await?, 5);
    /// # Ok(()) }
    /// ```
    pub async fn open_with(options: AppendOptions, path: impl AsRef<Path>) -> Result<Self> {
        let path = owned(path);
        run(path.clone(), move || options.open(path)).await.map(Self::from)
    }

    /// [`AppendOptions::open_with`] as a future. `framing` runs on the pool, and may block.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with_framing(
        options: AppendOptions,
        path: impl AsRef<Path>,
        framing: impl FnMut(&mut dyn BufRead) -> io::Result<u64> + Send + 'static,
    ) -> Result<Self> {
        let path = owned(path);
        run(path.clone(), move || options.open_with(path, framing)).await.map(Self::from)
    }

    /// [`AppendFile::append`](crate::AppendFile::append) as a future. If it is dropped, the record will be in the
    /// file whole, or never: that is decided at once. A sync that was due after it goes on.
    ///
    /// # Errors
    /// As there.
    pub async fn append(&self, record: impl Into<Vec<u8>>) -> Result<u64> {
        let record = record.into();
        let permit = self.limits.commit(self.path.clone()).await?;
        let (_withdrawn, claim) = Withdrawn::new();
        self.with(permit, move |file| file.append_for(&claim, &record)).await
    }

    /// [`AppendFile::sync`](crate::AppendFile::sync) as a future. If it is dropped once it has begun, it goes on.
    ///
    /// # Errors
    /// As there.
    pub async fn sync(&self) -> Result<u64> {
        let permit = self.limits.commit(self.path.clone()).await?;
        self.with(permit, Blocking::sync).await
    }

    /// [`AppendFile::rotate`](crate::AppendFile::rotate) as a future. If it is dropped before its rename, nothing
    /// was changed. Otherwise it goes on to its end.
    ///
    /// # Errors
    /// As there.
    pub async fn rotate(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = name.as_ref().to_owned();
        let permit = self.limits.commit(self.path.clone()).await?;
        let (_withdrawn, claim) = Withdrawn::new();
        self.with(permit, move |file| file.rotate_for(&claim, &name)).await
    }

    /// [`AppendFile::len`](crate::AppendFile::len) as a future. A rotation that is under way has to end first.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the runtime ends first.
    pub async fn len(&self) -> Result<u64> {
        self.look(Blocking::len).await
    }

    /// [`AppendFile::is_empty`](crate::AppendFile::is_empty) as a future.
    ///
    /// # Errors
    /// As for [`len`](Self::len).
    pub async fn is_empty(&self) -> Result<bool> {
        self.look(Blocking::is_empty).await
    }

    /// [`AppendFile::synced_len`](crate::AppendFile::synced_len) as a future.
    ///
    /// # Errors
    /// As for [`len`](Self::len).
    pub async fn synced_len(&self) -> Result<u64> {
        self.look(Blocking::synced_len).await
    }

    /// [`AppendFile::close`](crate::AppendFile::close) as a future. What was begun and given up is over then, too.
    ///
    /// # Errors
    /// As there.
    pub async fn close(mut self) -> Result<()> {
        // With all of them, nobody else is on the pool any more, and this is the last to have the file.
        let permits = self.limits.all(self.path.clone()).await?;
        let inner = self.inner.take();
        run(self.path.clone(), move || {
            let closed = inner.map_or(Ok(()), |file| match Arc::try_unwrap(file) {
                Ok(file) => file.close(),
                Err(shared) => shared.sync().map(drop),
            });
            drop(permits);
            closed
        })
        .await
    }

    async fn look<T: Send + 'static>(&self, look: fn(&Blocking) -> T) -> Result<T> {
        let permit = self.limits.view(self.path.clone()).await?;
        self.with(permit, move |file| Ok(look(file))).await
    }

    async fn with<T: Send + 'static>(
        &self,
        permit: Permit,
        work: impl FnOnce(&Blocking) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(file) = self.inner.clone() else { return Err(self.cancelled()) };
        run(self.path.clone(), move || {
            let done = work(&file);
            // In this order, so that whoever has all permits has the file alone.
            drop(file);
            drop(permit);
            done
        })
        .await
    }

    fn cancelled(&self) -> Error {
        Error::Cancelled { path: self.path.clone().into() }
    }
}

impl Drop for AppendFile {
    fn drop(&mut self) {
        let (Some(inner), Ok(runtime)) = (self.inner.take(), Handle::try_current()) else { return };
        // If the runtime has ended, that is done here.
        drop(runtime.spawn_blocking(move || drop(inner)));
    }
}

fn owned(path: impl AsRef<Path>) -> PathBuf {
    path.as_ref().to_path_buf()
}
