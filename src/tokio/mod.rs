//! For async programs on tokio (feature `tokio`): the operations of this crate as futures, under the same
//! names.
//!
//! The work is done on tokio's pool of blocking threads, by the very code that blocking programs use. So
//! every promise is the same, and both kinds of store can be open on one root. They can share one, too:
//! [`Store::from`] makes an async store of a blocking one, and [`Store::blocking`] gives it back.
//!
//! The module is named for the runtime, as it needs that runtime's pool. All of it must be called in a
//! tokio runtime, of any kind, or it panics. It uses neither its timer nor its I/O.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> cosave::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! use cosave::tokio::Store;
//!
//! let store = Store::open(dir.path()).await?;
//! let mut tx = store.begin().await?;
//! tx.write("Cargo.toml", "[package]\n").await?;
//! tx.write("Cargo.lock", "version = 4\n").await?;
//! tx.commit().await?;
//!
//! // Reads, changes, commits, and again if somebody else was faster: all of it in one trip to the pool.
//! store.update(|tx| {
//!     let text = tx.read_to_string("Cargo.toml")?;
//!     tx.write("Cargo.toml", text + "name = \"a\"\n")
//! }).await?;
//! assert_eq!(store.view().await?.read("Cargo.toml").await?, b"[package]\nname = \"a\"\n");
//! # Ok(()) }
//! ```
//!
//! # What a dropped future leaves
//!
//! A future can be dropped at every `await`: by a time-out, a `select!`, an aborted task, or the end of the
//! runtime.
//!
//! - **A commit** ([`Transaction::commit`], [`try_commit`](Transaction::try_commit), [`Store::update`],
//!   [`write()`], [`write_with`], [`create_new`], [`AtomicFile::commit`]) is decided at the instant of
//!   the drop. If its one rename was made, it goes on to its end on the pool, as if it were awaited.
//!   Otherwise it never commits, and leaves nothing. So a save whose caller has given up never lands over
//!   a newer one. What begins after the drop comes after it.
//! - **A record** of an [`AppendFile`], and its rotation, are decided at the instant of the drop, too. A
//!   record will be in the file whole, or never. A sync that follows goes on.
//! - **A change** that is not a commit, such as [`Transaction::write`], may be in the transaction or not.
//!   So the transaction is unfinished from then on, and its commit is refused
//!   ([`Error::Unfinished`](crate::Error::Unfinished)). Begin anew.
//! - **A read, a view or a lock** is dropped with its future. A lock or view that was had just then is
//!   released at once.
//! - **Whatever else** has begun goes on to its end: an opening, a recovery, a sweep, a flush. Each can be
//!   done again.
//!
//! What never committed is removed by the pool as soon as the thread that works for it sees that its caller
//! has gone. A thread that waits for the lock sees it within milliseconds.
//!
//! # Many tasks
//!
//! Tasks that commit at the same time wait for the disk together, as threads do: up to 32 of one store are
//! in a batch. More wait as futures, in the order in which they came, and take no thread. So a thousand
//! tasks that save need no thousand threads, and leave the pool to others. The
//! [`lock_timeout`](crate::StoreOptions::lock_timeout) of a save begins when it has a thread. To bound all of it, use
//! tokio's `timeout`.
//!
//! The commits, openings of views and locks of a store take at most 52 threads of the pool, however many
//! wait. Any other call takes one for as long as it waits: a first read of a transaction, for instance, or a
//! change that is staged. Tokio's pool has 512. A pool of less than 64 (`max_blocking_threads`) is too
//! small, since a view that is waited for needs a thread to be read.
//!
//! # The end of the runtime
//!
//! When a runtime ends, work that has not begun is dropped, and leaves nothing. What has begun goes on,
//! and `Runtime::drop` waits for it. Saves that were given up do not wait for the lock any more. A lock
//! that is still awaited, a recovery or a slow disk can take longer: `Runtime::shutdown_timeout` waits no
//! longer than it is told, and leaves the rest to the process. If the process ends before that, this is a kill like any other: the
//! next opening finishes or removes what it left.

mod append;
mod file;
mod pool;
mod store;
mod transaction;
mod twins;
mod view;
mod writer;

pub use self::append::AppendFile;
pub use self::file::{
    AtomicFile, create_new, rename_durably, sweep_temporary_files, sync_directory, sync_file, sync_parents,
    write, write_with,
};
#[cfg(feature = "object_store")]
pub(crate) use self::pool::run;
pub use self::store::{LockGuard, Store};
pub use self::transaction::Transaction;
pub use self::view::View;
pub use self::writer::FileWriter;
