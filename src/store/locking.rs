//! The lock of a root: other work is done under it, and its commits share it.
//!
//! It is the lease of the store, and the gate that keeps the other threads of
//! the store out. Each commit under it takes the same steps as any other, and
//! keeps the same promises.

use std::fmt;
use std::ops::Deref;
#[cfg(feature = "tokio")]
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use super::Store;
use crate::error::Result;
use crate::protocol::caller::Caller;
#[cfg(feature = "tokio")]
use crate::protocol::caller::Claim;
use crate::protocol::open::Locking;

/// As long as this lives, nobody else commits in the root: no other process, no other store of this
/// process, and no other thread of this store.
///
/// Made by [`Store::lock`]. It is a [`Store`], too: what is begun or updated through it is committed
/// under the lock, on whatever thread. Dropping it releases the lock.
///
/// The lock does nothing else. It commits nothing and undoes nothing, and each commit under it is whole
/// and durable by itself. If the process dies, the lock is released, and what was committed stays.
#[must_use = "the lock is released when this is dropped"]
pub struct LockGuard {
    /// The store, for whoever has the lock.
    store: Store,
    _locking: Locking,
}

impl Deref for LockGuard {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.state().debug(f, "LockGuard").finish_non_exhaustive()
    }
}

impl Store {
    /// Locks the root, so that other work can be done under the lock: several commits in a row, or a
    /// program that must not be disturbed. Waits for another lock or [lease](Self::exclusive) as long as
    /// [`lock_timeout`](crate::StoreOptions::lock_timeout) says, and for the commits that are under way.
    ///
    /// - **Commits under it** go on: those of this thread, and those that any thread makes through the
    ///   [`LockGuard`].
    /// - **Other threads of this store, other stores and other processes** may begin transactions and
    ///   write to them. Their commits wait, and are refused with [`Error::Locked`](crate::Error::Locked)
    ///   after their time-out.
    /// - **Reads** go on for everybody: neither a view nor a read in a transaction waits for this lock,
    ///   and the lock does not wait for them.
    /// - **Programs that write without cosave** are not held back.
    ///
    /// A thread that has the lock and asks for it again waits for itself, and is refused after the
    /// time-out. If the process dies, the lock is released at once. In a child after `fork` the guard does
    /// nothing, and commits are refused. If another program removes the control directory, other
    /// processes do not see the lock any more.
    ///
    /// To keep others out for as long as a store is open, but not its own threads, use
    /// [`exclusive`](Self::exclusive). To change what was read, use [`update`](Self::update), which needs
    /// no lock.
    ///
    /// # Errors
    /// - [`Error::Locked`](crate::Error::Locked) if another has the lock for too long.
    /// - Those of [`begin`](Self::begin).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::time::Duration;
    /// use cosave::{Error, Store};
    ///
    /// let store = Store::open(dir.path())?;
    /// let other = Store::options().lock_timeout(Duration::ZERO).open(dir.path())?;
    ///
    /// let lock = store.lock()?;
    /// lock.update(|tx| tx.write("Cargo.toml", "[package]\n"))?;
    /// let text = store.view()?.read_to_string("Cargo.toml")?;    // what a resolver would read
    /// assert!(matches!(other.update(|tx| tx.write("Cargo.toml", "")), Err(Error::Locked { .. })));
    /// lock.update(|tx| tx.write("Cargo.lock", format!("# of {} bytes\n", text.len())))?;
    /// drop(lock);
    ///
    /// other.update(|tx| tx.write("Cargo.toml", ""))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock(&self) -> Result<LockGuard> {
        self.try_lock_for(self.state().settings.lock_timeout)
    }

    /// Like [`lock`](Self::lock), but does not wait for another lock. Commits that are under way are no
    /// lock: it waits for them.
    ///
    /// # Errors
    /// As for [`lock`](Self::lock). [`Error::Locked`](crate::Error::Locked) says who has it.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # use cosave::{Error, Store};
    /// let (store, other) = (Store::open(dir.path())?, Store::open(dir.path())?);
    /// let lock = store.try_lock()?;
    /// match other.try_lock() {
    ///     Err(Error::Locked { holder, .. }) => println!("locked by {}", holder.unwrap_or_default()),
    ///     locked => panic!("two have the lock: {locked:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_lock(&self) -> Result<LockGuard> {
        self.try_lock_for(Duration::ZERO)
    }

    /// Like [`lock`](Self::lock), but waits for another lock for this long.
    ///
    /// # Errors
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let lock = store.try_lock_for(std::time::Duration::from_secs(2))?;
    /// # drop(lock);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_lock_for(&self, timeout: Duration) -> Result<LockGuard> {
        self.lock_as(timeout, Some(std::thread::current().id()))
    }

    /// Like [`try_lock_for`](Self::try_lock_for), for a caller whose work moves from thread to thread.
    #[cfg(feature = "tokio")]
    pub(crate) fn lock_for_key(&self, timeout: Duration) -> Result<LockGuard> {
        self.lock_as(timeout, None)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn lock_timeout(&self) -> Duration {
        self.state().settings.lock_timeout
    }

    /// The same store, for a caller who can give up what it commits.
    #[cfg(feature = "tokio")]
    pub(crate) fn for_claim(&self, claim: Arc<Claim>) -> Self {
        Self { caller: Caller { claim, ..self.caller.clone() }, ..self.clone() }
    }

    fn lock_as(&self, timeout: Duration, thread: Option<ThreadId>) -> Result<LockGuard> {
        let locking = self.opened.lock(timeout, thread)?;
        let caller = Caller { key: Some(locking.closed.key), ..Caller::default() };
        Ok(LockGuard { store: Self { caller, ..self.clone() }, _locking: locking })
    }
}
