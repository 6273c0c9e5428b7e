//! The lock of the control directory: one writer, or many readers.
//!
//! Both go through the queue file first. A writer stays in the queue until it
//! has the lock, so readers that come after it wait behind it, however many
//! there are and however they overlap. Every wait has an end: a lock may hang
//! or lie on a network mount, so it is always tried, never waited for.
//!
//! The lock files are never removed: whoever waits on a removed one would hold
//! a lock that nobody else sees.

use std::io;
use std::time::Duration;

use super::{Engine, control, layout};
use crate::error::{Error, Operation, Result};
use crate::fs::{Lock, LockKind};
use crate::path::RelativePath;

/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// The right to publish, apply, recover and sweep.
#[must_use = "the lock is held as long as this lives"]
#[derive(Debug)]
pub(crate) struct Locked {
    _lock: Box<dyn Lock>,
}

/// The right to read one state.
#[derive(Debug)]
pub(crate) struct Share {
    _lock: Option<Box<dyn Lock>>,
}

/// Waits for all others to let go.
pub(crate) fn exclusive(engine: &Engine) -> Result<Locked> {
    let deadline = engine.fs.elapsed() + engine.settings.lock_timeout;
    let queue = first(engine, LockKind::Exclusive, deadline)?;
    let lock = wait_for(engine, &layout::lock(), LockKind::Exclusive, deadline)?;
    drop(queue);
    // Whoever held the lock before may have moved directories about.
    engine.fs.forget_directories();
    Ok(Locked { _lock: lock })
}

/// Waits for the writer to let go, behind the writers that wait already.
///
/// Where a store is read-only and no lock can be had (a read-only medium, no permission, no control
/// directory), nobody can be writing through the same door, and the state is read as it is.
pub(crate) fn shared(engine: &Engine) -> Result<Share> {
    let deadline = engine.fs.elapsed() + engine.settings.lock_timeout;
    let take = || {
        let queue = first(engine, LockKind::Shared, deadline)?;
        let lock = wait_for(engine, &layout::lock(), LockKind::Shared, deadline)?;
        drop(queue);
        Ok(lock)
    };
    match take() {
        Ok(lock) => Ok(Share { _lock: Some(lock) }),
        Err(Error::Io { source, .. }) if engine.settings.read_only && cannot_write(&source) => {
            Ok(Share { _lock: None })
        }
        Err(error) => Err(error),
    }
}

/// The queue's lock; on a root that was never used, in a control directory made for it.
fn first(engine: &Engine, kind: LockKind, deadline: Duration) -> Result<Box<dyn Lock>> {
    match wait_for(engine, &layout::queue(), kind, deadline) {
        Err(Error::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound && !engine.settings.read_only =>
        {
            control::ensure(engine)?;
            wait_for(engine, &layout::queue(), kind, deadline)
        }
        result => result,
    }
}

fn cannot_write(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound
    )
}

fn wait_for(
    engine: &Engine,
    path: &RelativePath,
    kind: LockKind,
    deadline: Duration,
) -> Result<Box<dyn Lock>> {
    let mut pause = PAUSE_MIN;
    loop {
        let tried = engine.fs.try_lock(path, kind).map_err(engine.error(Operation::Lock, path))?;
        if let Some(lock) = tried {
            return Ok(lock);
        }
        if engine.fs.elapsed() >= deadline {
            return Err(Error::Locked {
                path: engine.full(path),
                waited: engine.settings.lock_timeout,
                holder: super::session::living(engine),
            });
        }
        engine.fs.wait(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
