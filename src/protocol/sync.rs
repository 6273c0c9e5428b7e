//! The mutexes of the queue: the standard library's. A model checker that explores `queue.rs` puts
//! its own here.

use std::time::Duration;

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Waits as long as `condition` holds, but at most for `most`. `condvar` is told when it may have changed.
pub(crate) fn wait_while<'a, T>(
    _mutex: &'a Mutex<T>,
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    most: Duration,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    condvar.wait_timeout_while(guard, most, condition).unwrap_or_else(PoisonError::into_inner).0
}
