//! The lock of the control directory: one writer, or many readers.
//!
//! Both go through the queue file first. A writer that waits holds the queue, so
//! readers that come after it wait behind it, however many there are and however
//! they overlap. A view may last, though, and its owner may want another one
//! first. So a writer that has waited in vain lets the waiting readers pass, and
//! then holds the queue for twice as long: a reader waits no longer than the
//! longest view lasts, or little more, and a writer gets in once it holds the
//! queue for longer than that.
//!
//! Where no control directory has been made yet, a reader that may not make one
//! locks the root itself. Whoever makes the control directory waits for it, once.
//!
//! Every wait has an end: a lock may hang or lie on a network mount, so it is
//! always tried, never waited for. The lock files are never removed: whoever
//! waits on a removed one would hold a lock that nobody else sees.

use std::io;
use std::time::Duration;

use super::control::{self, Control, Owner};
use super::root::{Root, if_found};
use super::{layout, session};
use crate::error::{Error, Operation, Result};
use crate::fs::{Lock, LockKind};
use crate::mutation::{Rule, keeps};
use crate::options::Waiting;
use crate::path::RelativePath;

/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// For how long a writer holds the queue at first, and lets readers pass after that: long beside most
/// views, and time for several tries.
const QUEUE_CLOSED_MIN: Duration = Duration::from_millis(250);
const QUEUE_OPEN: Duration = Duration::from_millis(10);

/// When somebody is told that a lock is waited for, and how often again.
const TELL_AFTER: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Tries to find either no control directory or its lock; two are enough unless somebody removes it.
const SHARE_TRIES_MAX: u32 = 8;

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
    /// Absent where nothing can be locked: then every read is followed by another look.
    lock: Option<Box<dyn Lock>>,
    pub(crate) control: Control,
}

impl Share {
    /// Refuses what was just read if somebody may have committed meanwhile, since nothing could be
    /// locked.
    pub(crate) fn confirm(&self, root: &Root) -> Result<()> {
        if self.lock.is_some() || Control::look(root)?.shows_the_state_of(&self.control) {
            return Ok(());
        }
        Err(Error::Conflict { path: root.path(), found: "was committed to while it was read without a lock" })
    }
}

/// Waits for all others to let go.
pub(crate) fn exclusive(root: &Root) -> Result<Locked> {
    let mut wait = Wait::new(root);
    let lock = match writers_lock(&mut wait) {
        Err(error) if error.is_not_found() => {
            ensure(root)?;
            writers_lock(&mut wait)?
        }
        lock => lock?,
    };
    // Whoever held the lock before may have moved directories about.
    root.fs.forget_directories();
    Ok(Locked { _lock: lock, control: Control::look(root)? })
}

/// Waits for the writer to let go, behind the writers that wait already.
pub(crate) fn shared(root: &Root) -> Result<Share> {
    let mut wait = Wait::new(root);
    let lock = if root.settings.read_only {
        lock_without_making(&mut wait)?
    } else {
        match readers_lock(&mut wait) {
            Err(error) if error.is_not_found() => {
                ensure(root)?;
                Some(readers_lock(&mut wait)?)
            }
            lock => Some(lock?),
        }
    };
    root.fs.forget_directories();
    Ok(Share { lock, control: Control::look(root)? })
}

/// Makes the control directory, unless it is there, whole and durable.
///
/// A process may have been killed between making it and the sync; then it is visible, but a power
/// loss could take it, with every manifest in it. So what is found is synced again until
/// `.gitignore` says that this was done.
pub(crate) fn ensure(root: &Root) -> Result<()> {
    if Control::look(root)?.is_whole(root) {
        return Ok(());
    }
    let wave = control::make(root)?;
    // Lost without this sync: the control directory's name, and with it every commit, acknowledged
    // or not, that was ever published in it.
    let _durable = root.sync_always(wave)?;
    claim(root)?;
    if keeps(Rule::WaitForRootReaders) {
        // Whoever began to read before there was a lock file to take has locked the root instead.
        match Wait::new(root).take(&RelativePath::root(), LockKind::Exclusive) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::Unsupported => {}
            lock => drop(lock?),
        }
    }
    control::prove_durable(root)
}

/// Writes down which root a control directory belongs to that does not lie in its root; refuses one that
/// belongs to another.
pub(crate) fn claim(root: &Root) -> Result<()> {
    if !root.fs.has_control_elsewhere() {
        return Ok(());
    }
    // Two roots may come at once.
    let _queue = Wait::new(root).take(&layout::queue_file(), LockKind::Exclusive)?;
    match control::owner(root)? {
        Owner::This => Ok(()),
        Owner::Other(owner) => Err(control::other_root(root, owner)),
        Owner::Nobody | Owner::Moved => {
            let written = control::write_owner(root)?;
            // Lost without this sync: the owner's path, while its name is there; nobody could open the
            // root any more.
            let _durable = root.sync_always(written)?;
            let named = control::name_owner(root)?;
            // Lost without this sync: the owner, while commits of this root are in the control
            // directory; another root could take them for its own.
            root.sync_always(named).map(drop)
        }
    }
}

/// Holds the queue while it waits for the lock, and lets waiting readers pass from time to time.
fn writers_lock(wait: &mut Wait<'_>) -> Result<Box<dyn Lock>> {
    let path = layout::lock_file();
    let mut closed = QUEUE_CLOSED_MIN;
    loop {
        let queue = wait.take(&layout::queue_file(), LockKind::Exclusive)?;
        let opens = wait.root.fs.elapsed().saturating_add(closed);
        while wait.root.fs.elapsed() < opens {
            if let Some(lock) = wait.try_once(&path, LockKind::Exclusive)? {
                return Ok(lock);
            }
            wait.pause(&path)?;
        }
        drop(queue);
        wait.root.fs.wait(QUEUE_OPEN);
        closed = closed.saturating_mul(2);
    }
}

fn readers_lock(wait: &mut Wait<'_>) -> Result<Box<dyn Lock>> {
    let _queue = wait.take(&layout::queue_file(), LockKind::Shared)?;
    wait.take(&layout::lock_file(), LockKind::Shared)
}

/// A reader's lock, for a reader that makes nothing; `None` where nothing can be locked.
fn lock_without_making(wait: &mut Wait<'_>) -> Result<Option<Box<dyn Lock>>> {
    for _ in 0..SHARE_TRIES_MAX {
        match readers_lock(wait) {
            Err(error) if error.is_not_found() => {}
            lock => return if_supported(lock),
        }
        let Some(lock) = if_supported(wait.take(&RelativePath::root(), LockKind::Shared))? else {
            return Ok(None);
        };
        let queue = layout::queue_file();
        let made = if_found(wait.root.fs.metadata(&queue));
        if made.map_err(wait.root.error(Operation::Look, &queue))?.is_none() {
            return Ok(Some(lock));
        }
    }
    Ok(None)
}

fn if_supported(lock: Result<Box<dyn Lock>>) -> Result<Option<Box<dyn Lock>>> {
    match lock {
        Ok(lock) => Ok(Some(lock)),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

/// One wait, from the first try to the time-out.
struct Wait<'a> {
    root: &'a Root,
    started: Duration,
    deadline: Duration,
    tell: Duration,
    pause: Duration,
}

impl<'a> Wait<'a> {
    fn new(root: &'a Root) -> Self {
        let started = root.fs.elapsed();
        Self {
            root,
            started,
            deadline: started.saturating_add(root.settings.lock_timeout),
            tell: started.saturating_add(TELL_AFTER),
            pause: PAUSE_MIN,
        }
    }

    fn take(&mut self, path: &RelativePath, kind: LockKind) -> Result<Box<dyn Lock>> {
        loop {
            if let Some(lock) = self.try_once(path, kind)? {
                return Ok(lock);
            }
            self.pause(path)?;
        }
    }

    fn try_once(&self, path: &RelativePath, kind: LockKind) -> Result<Option<Box<dyn Lock>>> {
        self.root.fs.try_lock_existing(path, kind).map_err(self.root.error(Operation::Lock, path))
    }

    fn pause(&mut self, path: &RelativePath) -> Result<()> {
        let now = self.root.fs.elapsed();
        let waited = now.saturating_sub(self.started);
        if now >= self.deadline {
            let holder = session::living(self.root);
            return Err(Error::Locked { path: self.root.full(path), waited, holder });
        }
        if now >= self.tell {
            self.tell = now.saturating_add(TELL_EVERY);
            if let Some(on_wait) = &self.root.settings.on_wait {
                let holder = session::living(self.root);
                on_wait.tell(&Waiting { path: self.root.full(path), waited, holder });
            }
        }
        self.root.fs.wait(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}
