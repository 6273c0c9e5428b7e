//! A view whose operations are futures.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pool::run;
use super::twins::twins;
use crate::error::Result;
use crate::generation::Generation;
use crate::listed::{DirEntry, FileInfo};
use crate::path::RelativePath;
use crate::reader::FileReader;
use crate::view;

/// The twin.
type Blocking = view::View;

/// [`View`](crate::View) with futures. Made by [`Store::view`](super::Store::view).
///
/// Writers wait while it is open, so drop it soon: before an `await` that waits for something else.
#[derive(Clone)]
pub struct View {
    inner: Arc<Blocking>,
    root: PathBuf,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl View {
    pub(super) fn new(view: Blocking, root: PathBuf) -> Self {
        Self { inner: Arc::new(view), root }
    }

    twins! { View, with, &Self;
        read(path: impl AsRef<Path> = owned(path)) -> Vec<u8>;
        read_if_exists(path: impl AsRef<Path> = owned(path)) -> Option<Vec<u8>>;
        read_to_string(path: impl AsRef<Path> = owned(path)) -> String;
        read_link(path: impl AsRef<Path> = owned(path)) -> PathBuf;
        open(path: impl AsRef<Path> = owned(path)) -> FileReader;
        open_if_exists(path: impl AsRef<Path> = owned(path)) -> Option<FileReader>;
        exists(path: impl AsRef<Path> = owned(path)) -> bool;
        metadata(path: impl AsRef<Path> = owned(path)) -> FileInfo;
        list(directory: impl AsRef<Path> = owned(directory)) -> Vec<RelativePath>;
        entries(directory: impl AsRef<Path> = owned(directory)) -> Vec<DirEntry>;
        walk(directory: impl AsRef<Path> = owned(directory)) -> Vec<DirEntry>;
    }

    /// The generation that this view shows; 0 before the first commit.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.inner.generation()
    }

    /// Does several things with the blocking view, in one trip to the pool.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Cancelled`](crate::Error::Cancelled) if the runtime ends first.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> cosave::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = cosave::tokio::Store::open(dir.path()).await?;
    /// # store.update(|tx| { tx.write("a", "1")?; tx.write("b", "1") }).await?;
    /// let view = store.view().await?;
    /// let (a, b) = view.with(|view| Ok::<_, cosave::Error>((view.read("a")?, view.read("b")?))).await?;
    /// assert_eq!(a, b);
    /// # Ok(()) }
    /// ```
    pub async fn with<T, E>(
        &self,
        work: impl FnOnce(&Blocking) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<crate::error::Error> + Send + 'static,
    {
        let view = Arc::clone(&self.inner);
        run(self.root.clone(), move || work(&view)).await
    }
}

fn owned(path: impl AsRef<Path>) -> PathBuf {
    path.as_ref().to_path_buf()
}
