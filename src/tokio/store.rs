//! A store whose operations are futures.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::pool::{Limits, Withdrawn, run};
use super::transaction::Transaction;
use super::twins::twins;
use super::view::View;
use crate::error::{Error, Result};
use crate::generation::{Generation, TransactionId};
use crate::history::PastCommit;
use crate::lease::Lease;
use crate::options::StoreOptions;
use crate::reader::Snapshot;
use crate::report::{Abandoned, Commit, Mismatch, RecoveryReport, Status, TransactionOutcome};
use crate::store;
use crate::store::locking;
use crate::transaction;
#[cfg(feature = "object_store")]
use crate::view;

/// The twin.
type Blocking = store::Store;

/// [`Store`](crate::Store) with futures.
///
/// Clones are cheap. They share one session, and the places of those that commit.
///
/// Dropping the last clone closes the store on the thread that drops it, as the blocking one does. With
/// [`Durability::Committed`](crate::Durability::Committed) that waits for the disk; [`close`](Self::close)
/// waits on the pool.
///
/// # Examples
///
/// As in [the module](crate::tokio).
#[derive(Clone)]
pub struct Store {
    blocking: Blocking,
    limits: Limits,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.blocking.fmt(f)
    }
}

impl From<Blocking> for Store {
    fn from(blocking: Blocking) -> Self {
        Self { blocking, limits: Limits::new() }
    }
}

impl Store {
    /// [`Store::open`](crate::Store::open) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(Blocking::options(), root).await
    }

    /// [`StoreOptions::open`] as a future.
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
    /// # let root = dir.path().join("state");
    /// use cosave::tokio::Store;
    ///
    /// let options = cosave::Store::options().create(true).durability(cosave::Durability::Committed);
    /// let store = Store::open_with(options, &root).await?;
    /// store.close().await?;
    /// # Ok(()) }
    /// ```
    pub async fn open_with(options: StoreOptions, root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref().to_path_buf();
        run(root.clone(), move || options.open(root)).await.map(Self::from)
    }

    /// The same store, for blocking code.
    #[must_use]
    pub fn blocking(&self) -> &Blocking {
        &self.blocking
    }

    /// [`Store::begin`](crate::Store::begin) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn begin(&self) -> Result<Transaction> {
        Ok(Transaction::new(self.blocking.begin()?, self.root(), self.limits.clone()))
    }

    /// [`Store::dry_run`](crate::Store::dry_run) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn dry_run(&self) -> Result<Transaction> {
        Ok(Transaction::new(self.blocking.dry_run()?, self.root(), self.limits.clone()))
    }

    /// [`Store::update`](crate::Store::update) as a future. All of it is one trip to the pool, where `change`
    /// may block. It is the fastest way to commit, and commits at most once. Decided at once if it is
    /// dropped: see [the module](crate::tokio#what-a-dropped-future-leaves).
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
    /// use std::time::Duration;
    ///
    /// let store = cosave::tokio::Store::open(dir.path()).await?;
    /// let save = store.update(|tx| tx.write("settings.json", "{}"));
    /// match tokio::time::timeout(Duration::from_secs(10), save).await {
    ///     Ok(commit) => println!("saved as generation {}", commit?.generation()),
    ///     Err(_) => println!("not saved, unless it was being saved at this moment"),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn update<T, E>(
        &self,
        change: impl FnMut(&mut transaction::Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<Commit<T>, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.commit(move |store| store.update(change)).await
    }

    twins! { Store, commit, &Self;
        restore(generation: impl Into<Generation> = generation.into()) -> Commit;
        undo() -> Commit;
        redo() -> Commit;
    }

    /// [`Store::view`](crate::Store::view) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn view(&self) -> Result<View> {
        let permit = self.limits.view(self.root()).await?;
        let view = self.with(move |store| {
            let view = store.view();
            drop(permit);
            view
        });
        Ok(View::new(view.await?, self.root()))
    }

    /// Does something with a view, in one trip to the pool.
    #[cfg(feature = "object_store")]
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(view::View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.limits.view(self.root()).await?;
        self.with(move |store| {
            let view = store.view();
            drop(permit);
            work(view?)
        })
        .await
    }

    /// [`Store::snapshot`](crate::Store::snapshot) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn snapshot(&self, paths: &[impl AsRef<Path>]) -> Result<Snapshot> {
        let paths: Vec<_> = paths.iter().map(|path| path.as_ref().to_path_buf()).collect();
        let permit = self.limits.view(self.root()).await?;
        self.with(move |store| {
            let snapshot = store.snapshot(&paths);
            drop(permit);
            snapshot
        })
        .await
    }

    /// [`Store::lock`](crate::Store::lock) as a future. The lock belongs to the guard, not to a thread: what
    /// is begun or updated through the [`LockGuard`] is committed under it, whatever task does it.
    ///
    /// A few tasks of one store wait for it at a time, the others for their turn to do so. So the
    /// time-out begins when the turn has come.
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
    /// # let store = cosave::tokio::Store::open(dir.path()).await?;
    /// let lock = store.lock().await?;
    /// lock.update(|tx| tx.write("a", "1")).await?;
    /// assert_eq!(store.view().await?.read("a").await?, b"1");
    /// lock.update(|tx| tx.write("b", "2")).await?;
    /// drop(lock);
    /// # Ok(()) }
    /// ```
    pub async fn lock(&self) -> Result<LockGuard> {
        self.try_lock_for(self.blocking.lock_timeout()).await
    }

    /// [`Store::try_lock`](crate::Store::try_lock) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn try_lock(&self) -> Result<LockGuard> {
        self.with(|store| store.lock_for_key(Duration::ZERO)).await.map(LockGuard::new)
    }

    /// [`Store::try_lock_for`](crate::Store::try_lock_for) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn try_lock_for(&self, timeout: Duration) -> Result<LockGuard> {
        let permit = self.limits.locker(self.root()).await?;
        let locked = self.with(move |store| {
            let locked = store.lock_for_key(timeout);
            drop(permit);
            locked
        });
        locked.await.map(LockGuard::new)
    }

    /// [`Store::exclusive`](crate::Store::exclusive) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn exclusive(&self) -> Result<Lease> {
        let permit = self.limits.locker(self.root()).await?;
        let leased = self.with(move |store| {
            let leased = store.exclusive();
            drop(permit);
            leased
        });
        leased.await
    }

    twins! { Store, with, &Self;
        recover() -> RecoveryReport;
        sweep() -> RecoveryReport;
        deep_sweep() -> RecoveryReport;
        flush() -> ();
        abandon(generation: impl Into<Generation> = generation.into()) -> Abandoned;
        outcome_of(transaction: TransactionId = transaction) -> TransactionOutcome;
        status() -> Status;
        verify() -> Vec<Mismatch>;
        generation() -> Generation;
        history() -> Vec<PastCommit>;
        forget_history() -> ();
    }

    /// [`Store::view_at`](crate::Store::view_at) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn view_at(&self, generation: impl Into<Generation>) -> Result<View> {
        let generation = generation.into();
        let permit = self.limits.view(self.root()).await?;
        let view = self.with(move |store| {
            let view = store.view_at(generation);
            drop(permit);
            view
        });
        Ok(View::new(view.await?, self.root()))
    }

    /// As [`Store::last_recovery`](crate::Store::last_recovery).
    #[must_use]
    pub fn last_recovery(&self) -> RecoveryReport {
        self.blocking.last_recovery()
    }

    /// As [`Store::root`](crate::Store::root).
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.blocking.root()
    }

    /// As [`Store::is_poisoned`](crate::Store::is_poisoned).
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.blocking.is_poisoned()
    }

    /// [`Store::reopen`](crate::Store::reopen) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn reopen(self) -> Result<Self> {
        let (root, blocking) = (self.root(), self.blocking);
        run(root, move || blocking.reopen()).await.map(Self::from)
    }

    /// [`Store::close`](crate::Store::close) as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn close(self) -> Result<()> {
        let (root, blocking) = (self.root(), self.blocking);
        run(root, move || blocking.close()).await
    }

    async fn commit<T, E>(
        &self,
        work: impl FnOnce(&Blocking) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let permit = self.limits.commit(self.root()).await?;
        let (_withdrawn, claim) = Withdrawn::new();
        let store = self.blocking.for_claim(claim);
        run(self.root(), move || {
            let done = work(&store);
            drop(permit);
            done
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blocking) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // A view that nobody wants any more need not be waited for.
        let (_withdrawn, claim) = Withdrawn::new();
        let store = self.blocking.for_claim(claim);
        run(self.root(), move || work(&store)).await
    }
}

/// [`LockGuard`](crate::LockGuard) with futures. Made by [`Store::lock`].
///
/// It is a [`Store`], too: what is begun or updated through it is committed under the lock. Dropping it
/// releases the lock at once.
#[must_use = "the lock is released when this is dropped"]
#[derive(Debug)]
pub struct LockGuard {
    store: Store,
    _guard: locking::LockGuard,
}

impl LockGuard {
    /// Its commits have places of their own: those of others may be taken by tasks that wait for the lock.
    fn new(guard: locking::LockGuard) -> Self {
        Self { store: Store::from(Blocking::clone(&guard)), _guard: guard }
    }
}

impl Deref for LockGuard {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}
