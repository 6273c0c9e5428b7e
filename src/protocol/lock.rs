//! The lock of the control directory: held by one writer or by many readers.
//!
//! Both lock the queue file first. A writer holds it until it has the lock
//! itself, so readers that come later wait behind the writer, however many they
//! are. A lock call may hang, or the lock may lie on a network mount. So locks
//! are only tried, never waited for, and every wait has an end.
//!
//! The lock files are never removed: locking a removed file would exclude
//! nobody.

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
#[must_use = "the lock is released when this is dropped"]
#[derive(Debug)]
pub(crate) struct Locked {
    _lock: Box<dyn Lock>,
    /// The control directory as it is now. Code that changes it under the lock updates this too.
    pub(crate) control: Control,
}

/// The right to read one state, and what was found under it.
#[derive(Debug)]
pub(crate) struct Share {
    _lock: Option<Box<dyn Lock>>,
    pub(crate) control: Control,
}

/// Waits until all others have released the lock.
pub(crate) fn exclusive(root: &Root) -> Result<Locked> {
    let deadline = root.fs.elapsed().saturating_add(root.settings.lock_timeout);
    let queue = queue(root, LockKind::Exclusive, deadline)?;
    let lock = wait_for(root, &layout::lock_file(), LockKind::Exclusive, deadline)?;
    drop(queue);
    // An earlier holder of the lock may have moved directories.
    root.fs.forget_directories();
    Ok(Locked { _lock: lock, control: Control::look(root)? })
}

/// Waits until the writer, and the writers already waiting, have released the lock.
///
/// A read-only store may be unable to lock: the medium is read-only, it has no permission, or there is
/// no control directory. Then it reads the state as it is, since nobody can write by the same way.
pub(crate) fn shared(root: &Root) -> Result<Share> {
    let deadline = root.fs.elapsed().saturating_add(root.settings.lock_timeout);
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

/// Locks the queue file. If the root was never used, makes the control directory first.
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
