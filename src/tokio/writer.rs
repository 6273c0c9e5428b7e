//! A writer of one file of a transaction, filled piece by piece.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::pool::run;
use crate::error::{Error, Result};
use crate::writer;

/// The twin.
type Blocking = writer::FileWriter;

/// [`FileWriter`](crate::FileWriter) with futures. Made by [`Transaction::writer`](super::Transaction::writer).
///
/// If a future of [`write_all`](Self::write_all) is dropped before it is ready, the piece may be in the file
/// or not. So the writer cannot be finished any more.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> cosave::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = cosave::tokio::Store::open(dir.path()).await?;
/// # let pieces = ["one, ", "two"];
/// let mut tx = store.begin().await?;
/// let mut file = tx.writer("upload").await?;
/// for piece in pieces {
///     file.write_all(piece).await?;
/// }
/// file.finish().await?;
/// tx.commit().await?;
/// assert_eq!(std::fs::read(dir.path().join("upload")).unwrap(), b"one, two");
/// # Ok(()) }
/// ```
#[must_use = "a file that is not finished cannot be committed"]
pub struct FileWriter {
    inner: Arc<Mutex<Option<Blocking>>>,
    root: PathBuf,
    is_torn: bool,
}

impl fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWriter").field("root", &self.root).finish_non_exhaustive()
    }
}

impl FileWriter {
    pub(super) fn new(writer: Blocking, root: PathBuf) -> Self {
        Self { inner: Arc::new(Mutex::new(Some(writer))), root, is_torn: false }
    }

    /// Writes one piece, whole.
    ///
    /// # Errors
    /// As for [`Transaction::write`](crate::Transaction::write).
    pub async fn write_all(&mut self, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let bytes = bytes.into();
        if self.is_torn {
            return Err(self.unfinished());
        }
        self.is_torn = true;
        let unfinished = self.unfinished();
        let mut writer = Arc::clone(&self.inner).lock_owned().await;
        let written = run(self.root.clone(), move || match writer.as_mut() {
            Some(writer) => writer.write_all(&bytes).map_err(Error::of_writer),
            None => Err(unfinished),
        });
        written.await?;
        self.is_torn = false;
        Ok(())
    }

    /// [`FileWriter::finish`](crate::FileWriter::finish) as a future. If it is dropped before it is ready, the
    /// file may be in the transaction or not.
    ///
    /// # Errors
    /// As there, and [`Error::Unfinished`] if a piece was not written to its end.
    pub async fn finish(self) -> Result<()> {
        if self.is_torn {
            return Err(self.unfinished());
        }
        let unfinished = self.unfinished();
        let mut writer = Arc::clone(&self.inner).lock_owned().await;
        let finish = move || writer.take().map_or(Err(unfinished), Blocking::finish);
        run(self.root, finish).await
    }

    fn unfinished(&self) -> Error {
        Error::Unfinished { path: self.root.clone().into() }
    }
}
