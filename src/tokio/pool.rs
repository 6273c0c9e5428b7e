//! How blocking work is done for a task: on the runtime's blocking pool, and not
//! at all if the task has gone before it began.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, spawn_blocking};

use crate::error::{Error, Result};
use crate::protocol::caller::Claim;

/// How many commits of one store are on the pool at once. More wait as futures, which cost no thread. Enough
/// for all to be in one batch, and few beside tokio's 512 threads.
const COMMITS_MAX: usize = 32;

/// How many tasks of one store open views at once.
const VIEWS_MAX: usize = 16;

/// How many tasks of one store wait on the pool for a lock that others hold.
const LOCKERS_MAX: usize = 4;

/// Does work on the blocking pool. `root` is for the error if the runtime ends before the work begins.
///
/// If the future is dropped, work that has not begun never begins. What has begun goes on to its end.
pub(crate) async fn run<T, E>(
    root: PathBuf,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let task = spawn_blocking(work);
    let _unless_begun = Abort(task.abort_handle());
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(cancelled(root).into()),
        },
    }
}

fn cancelled(root: PathBuf) -> Error {
    Error::Cancelled { path: root.into() }
}

struct Abort(AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Withdraws the claim to a commit when the future that wants it is dropped. Does nothing once it has
/// its answer.
pub(super) struct Withdrawn(Arc<Claim>);

impl Withdrawn {
    pub(super) fn new() -> (Self, Arc<Claim>) {
        let claim = Arc::new(Claim::default());
        (Self(Arc::clone(&claim)), claim)
    }
}

impl Drop for Withdrawn {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// How much of one store's work is on the pool. Whoever waits on the pool for others must leave threads to
/// them, or nobody could go on.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    commits: Arc<Semaphore>,
    views: Arc<Semaphore>,
    lockers: Arc<Semaphore>,
}

/// The right to a thread of the pool.
pub(super) type Permit = OwnedSemaphorePermit;

impl Limits {
    pub(super) fn new() -> Self {
        let of = |most| Arc::new(Semaphore::new(most));
        Self { commits: of(COMMITS_MAX), views: of(VIEWS_MAX), lockers: of(LOCKERS_MAX) }
    }

    pub(super) async fn commit(&self, root: PathBuf) -> Result<Permit> {
        Self::acquire(&self.commits, root).await
    }

    pub(super) async fn view(&self, root: PathBuf) -> Result<Permit> {
        Self::acquire(&self.views, root).await
    }

    pub(super) async fn locker(&self, root: PathBuf) -> Result<Permit> {
        Self::acquire(&self.lockers, root).await
    }

    /// Waits until nothing is on the pool, and keeps it so.
    pub(super) async fn all(&self, root: PathBuf) -> Result<[Permit; 2]> {
        let of = |semaphore: &Arc<Semaphore>, most: usize| {
            Arc::clone(semaphore).acquire_many_owned(u32::try_from(most).unwrap_or(u32::MAX))
        };
        match (of(&self.commits, COMMITS_MAX).await, of(&self.views, VIEWS_MAX).await) {
            (Ok(commits), Ok(views)) => Ok([commits, views]),
            _ => Err(cancelled(root)),
        }
    }

    async fn acquire(semaphore: &Arc<Semaphore>, root: PathBuf) -> Result<Permit> {
        // It is never closed, so this is never an error.
        Arc::clone(semaphore).acquire_owned().await.map_err(|_| cancelled(root))
    }
}
