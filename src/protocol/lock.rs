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

use super::control::{self, Control};
use super::root::Root;
use super::{layout, session};
use crate::error::{Error, Operation, Result};
use crate::fs::{Lock, LockKind};
use crate::path::RelativePath;

/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// The right to publish, apply, recover and sweep, and what was found under it.
#[must_use = "the lock is held as long as this lives"]
#[derive(Debug)]
pub(crate) struct Locked {
    _lock: Box<dyn Lock>,
    /// The control directory as it is now: whoever changes it under the lock says so here.
    pub(crate) control: Control,
}

/// The right to read one state, and what was found under it.
#[derive(Debug)]
pub(crate) struct Share {
    _lock: Option<Box<dyn Lock>>,
    pub(crate) control: Control,
}

/// Waits for all others to let go.
pub(crate) fn exclusive(root: &Root) -> Result<Locked> {
    let deadline = root.fs.elapsed() + root.settings.lock_timeout;
    let queue = queue(root, LockKind::Exclusive, deadline)?;
    let lock = wait_for(root, &layout::lock_file(), LockKind::Exclusive, deadline)?;
    drop(queue);
    // Whoever held the lock before may have moved directories about.
    root.fs.forget_directories();
    Ok(Locked { _lock: lock, control: Control::look(root)? })
}

/// Waits for the writer to let go, behind the writers that wait already.
///
/// Where a store is read-only and no lock can be had (a read-only medium, no permission, no control
/// directory), nobody can be writing through the same door, and the state is read as it is.
pub(crate) fn shared(root: &Root) -> Result<Share> {
    let deadline = root.fs.elapsed() + root.settings.lock_timeout;
    let take = || {
        let queue = queue(root, LockKind::Shared, deadline)?;
        let lock = wait_for(root, &layout::lock_file(), LockKind::Shared, deadline)?;
        drop(queue);
        Ok(lock)
    };
    let lock = match take() {
        Ok(lock) => Some(lock),
        Err(Error::Io { source, .. }) if root.settings.read_only && cannot_write(&source) => None,
        Err(error) => return Err(error),
    };
    root.fs.forget_directories();
    Ok(Share { _lock: lock, control: Control::look(root)? })
}

/// The queue's lock; on a root that was never used, in a control directory made for it.
fn queue(root: &Root, kind: LockKind, deadline: Duration) -> Result<Box<dyn Lock>> {
    match wait_for(root, &layout::queue_file(), kind, deadline) {
        Err(Error::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound && !root.settings.read_only =>
        {
            control::ensure(root)?;
            wait_for(root, &layout::queue_file(), kind, deadline)
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

fn wait_for(root: &Root, path: &RelativePath, kind: LockKind, deadline: Duration) -> Result<Box<dyn Lock>> {
    let mut pause = PAUSE_MIN;
    loop {
        let tried = root.fs.try_lock(path, kind).map_err(root.error(Operation::Lock, path))?;
        if let Some(lock) = tried {
            return Ok(lock);
        }
        if root.fs.elapsed() >= deadline {
            return Err(Error::Locked {
                path: root.full(path),
                waited: root.settings.lock_timeout,
                holder: session::living(root),
            });
        }
        root.fs.wait(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
