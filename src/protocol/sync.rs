//! The mutexes of the queue: the standard library's. A model checker that explores `queue.rs` puts
//! its own here.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
