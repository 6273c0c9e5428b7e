//! A transaction whose operations are futures.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::pool::{Limits, Withdrawn, run};
use super::twins::twins;
use super::writer::FileWriter;
use crate::error::{Error, Reason, Result};
use crate::expect::Expect;
use crate::generation::{Generation, TransactionId};
use crate::listed::{DirEntry, FileInfo};
use crate::path::RelativePath;
use crate::reader::FileReader;
use crate::report::{Change, Commit};
use crate::transaction;
use crate::writer;

/// The twin.
type Blocking = transaction::Transaction;

/// [`Transaction`](crate::Transaction) with futures.
///
/// Dropping it aborts it. What it staged is removed by the pool a moment later;
/// [`abort`](Self::abort) waits for that. If a future of a change is dropped before it is ready, the
/// transaction is unfinished, and its commit is refused.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> cosave::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = cosave::tokio::Store::open(dir.path()).await?;
/// let mut tx = store.begin().await?;
/// tx.create_dir_all("settings/by user").await?;
/// tx.write("settings/window.json", "{}").await?;
/// tx.write_with("settings/list.txt", |out| {
///     use std::io::Write;
///     (1..=3).try_for_each(|n| writeln!(out, "{n}"))
/// }).await?;
/// assert_eq!(tx.commit().await?.generation(), 1);
/// # Ok(()) }
/// ```
#[must_use = "a dropped transaction is aborted: call `commit`"]
pub struct Transaction {
    /// `None` once it is over.
    inner: Option<Arc<Mutex<Blocking>>>,
    root: PathBuf,
    limits: Limits,
    /// Whether a future of a change was dropped before it was ready.
    is_torn: bool,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Transaction {
    pub(super) fn new(transaction: Blocking, root: PathBuf, limits: Limits) -> Self {
        Self { inner: Some(Arc::new(Mutex::new(transaction))), root, limits, is_torn: false }
    }

    twins! { Transaction, change, &mut Self;
        write(path: impl AsRef<Path> = owned(path), bytes: impl Into<Vec<u8>> = bytes.into()) -> ();
        create_new(path: impl AsRef<Path> = owned(path), bytes: impl Into<Vec<u8>> = bytes.into()) -> ();
        write_if_changed(path: impl AsRef<Path> = owned(path), bytes: impl Into<Vec<u8>> = bytes.into()) -> bool;
        remove(path: impl AsRef<Path> = owned(path)) -> ();
        remove_if_exists(path: impl AsRef<Path> = owned(path)) -> bool;
        copy(from: impl AsRef<Path> = owned(from), to: impl AsRef<Path> = owned(to)) -> ();
        copy_from(path: impl AsRef<Path> = owned(path), source: impl AsRef<Path> = owned(source)) -> ();
        rename(from: impl AsRef<Path> = owned(from), to: impl AsRef<Path> = owned(to)) -> ();
        set_permissions(path: impl AsRef<Path> = owned(path), mode: u32 = mode) -> ();
        create_dir(path: impl AsRef<Path> = owned(path)) -> ();
        create_dir_all(path: impl AsRef<Path> = owned(path)) -> ();
        remove_dir(path: impl AsRef<Path> = owned(path)) -> ();
        remove_dir_all(path: impl AsRef<Path> = owned(path)) -> ();
        replace_dir(from: impl AsRef<Path> = owned(from), to: impl AsRef<Path> = owned(to)) -> ();
        symlink(path: impl AsRef<Path> = owned(path), to: impl AsRef<Path> = owned(to)) -> ();
        expect(path: impl AsRef<Path> = owned(path), expect: Expect = expect) -> ();
        expect_generation(generation: impl Into<Generation> = generation.into()) -> ();
    }

    twins! { Transaction, read_in, &Self;
        changes() -> Vec<Change>;
        id() -> TransactionId;
        read(path: impl AsRef<Path> = owned(path)) -> Vec<u8>;
        read_if_exists(path: impl AsRef<Path> = owned(path)) -> Option<Vec<u8>>;
        read_to_string(path: impl AsRef<Path> = owned(path)) -> String;
        read_link(path: impl AsRef<Path> = owned(path)) -> PathBuf;
        open(path: impl AsRef<Path> = owned(path)) -> FileReader;
        exists(path: impl AsRef<Path> = owned(path)) -> bool;
        metadata(path: impl AsRef<Path> = owned(path)) -> FileInfo;
        list(directory: impl AsRef<Path> = owned(directory)) -> Vec<RelativePath>;
        entries(directory: impl AsRef<Path> = owned(directory)) -> Vec<DirEntry>;
    }

    /// Does several things with the blocking transaction, in one trip to the pool. Whatever it offers can
    /// be done here.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Cancelled`] if the runtime ends first.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> cosave::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = cosave::tokio::Store::open(dir.path()).await?;
    /// let mut tx = store.begin().await?;
    /// tx.with(|tx| {
    ///     (0..200).try_for_each(|number| tx.write(format!("{number}.json"), "{}"))
    /// }).await?;
    /// tx.commit().await?;
    /// # Ok(()) }
    /// ```
    pub async fn with<T, E>(
        &mut self,
        work: impl FnOnce(&mut Blocking) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.change(work).await
    }

    /// [`Transaction::write_with`](crate::Transaction::write_with) as a future. `fill` runs on the pool, and
    /// may block.
    ///
    /// # Errors
    /// As there.
    pub async fn write_with<T, E>(
        &mut self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut writer::FileWriter) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let path = owned(path);
        self.change(move |tx| tx.write_with(path, fill)).await
    }

    /// [`Transaction::writer`](crate::Transaction::writer) as a future: for content that comes piece by
    /// piece, from a socket perhaps.
    ///
    /// # Errors
    /// As there.
    pub async fn writer(&mut self, path: impl AsRef<Path>) -> Result<FileWriter> {
        let path = owned(path);
        let writer = self.change(move |tx| tx.writer(path)).await?;
        Ok(FileWriter::new(writer, self.root.clone()))
    }

    /// [`Transaction::prune_empty_parents`](crate::Transaction::prune_empty_parents) as a future.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the runtime ends first.
    pub async fn prune_empty_parents(&mut self) -> Result<()> {
        let prune = |tx: &mut Blocking| {
            tx.prune_empty_parents();
            Ok(())
        };
        self.change(prune).await
    }

    /// [`Transaction::commit`](crate::Transaction::commit) as a future. Decided at once if it is dropped:
    /// see [the module](crate::tokio#what-a-dropped-future-leaves).
    ///
    /// # Errors
    /// As there.
    pub async fn commit(mut self) -> Result<Commit> {
        let committing = self.committing().await?;
        // It ends with this, on the pool.
        self.inner = None;
        committing.run().await
    }

    /// [`Transaction::try_commit`](crate::Transaction::try_commit) as a future. If it is dropped before it
    /// has committed, the transaction goes on. If it has, the transaction is over.
    ///
    /// # Errors
    /// As there.
    pub async fn try_commit(&mut self) -> Result<Commit> {
        self.committing().await?.run().await
    }

    /// [`Transaction::abort`](crate::Transaction::abort) as a future: what was staged is gone when it is
    /// ready.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the runtime ends first. Then nothing is left either.
    pub async fn abort(mut self) -> Result<()> {
        let guard = self.lock().await?;
        self.inner = None;
        run(self.root.clone(), move || {
            drop(guard);
            Ok(())
        })
        .await
    }

    /// Whether it has committed, also for a future that was dropped.
    #[cfg(feature = "object_store")]
    pub(crate) async fn is_committed(&self) -> bool {
        self.lock().await.is_ok_and(|transaction| transaction.is_committed())
    }

    /// Waits for what is under way, and for a place among those that commit.
    async fn committing(&self) -> Result<Committing> {
        if self.is_torn {
            return Err(Error::Unfinished { path: self.root.clone().into() });
        }
        let permit = self.limits.commit(self.root.clone()).await?;
        Ok(Committing { guard: self.lock().await?, permit, root: self.root.clone() })
    }

    async fn change<T, E>(
        &mut self,
        work: impl FnOnce(&mut Blocking) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let mut guard = self.lock().await?;
        let was_torn = std::mem::replace(&mut self.is_torn, true);
        let result = run(self.root.clone(), move || work(&mut guard)).await;
        self.is_torn = was_torn;
        result
    }

    async fn read_in<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blocking) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let guard = self.lock().await?;
        run(self.root.clone(), move || work(&guard)).await
    }

    async fn lock(&self) -> Result<OwnedMutexGuard<Blocking>> {
        match &self.inner {
            Some(inner) => Ok(Arc::clone(inner).lock_owned().await),
            None => {
                let reason = Reason::TransactionOver;
                Err(Error::Unsupported { path: self.root.clone().into(), reason })
            }
        }
    }
}

/// A transaction that is about to be committed.
struct Committing {
    guard: OwnedMutexGuard<Blocking>,
    permit: super::pool::Permit,
    root: PathBuf,
}

impl Committing {
    async fn run(self) -> Result<Commit> {
        let Self { mut guard, permit, root } = self;
        let (_withdrawn, claim) = Withdrawn::new();
        run(root, move || {
            let committed = guard.commit_for(claim);
            // What is left of the transaction is removed before others get the thread.
            drop((guard, permit));
            committed
        })
        .await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let (Some(inner), Ok(runtime)) = (self.inner.take(), Handle::try_current()) else { return };
        // What it staged is removed there. If the runtime has ended, that is done here.
        drop(runtime.spawn_blocking(move || drop(inner)));
    }
}

fn owned(path: impl AsRef<Path>) -> PathBuf {
    path.as_ref().to_path_buf()
}
