//! The lock of the control directory: held by one writer or by many readers.
//!
//! Both lock the queue file first. A waiting writer holds the queue, so readers
//! that come later wait behind it, however many they are. But a view may last
//! long, and its owner may need a second view. So a writer that has waited in
//! vain lets the waiting readers pass, and then holds the queue for twice as
//! long. A reader then waits little longer than the longest view lasts. The
//! writer gets the lock once it holds the queue for longer than that.
//!
//! If there is no control directory yet, a reader that may not make one locks
//! the root itself. The first writer that makes the control directory waits for
//! this lock.
//!
//! A lock call may hang, or the lock may lie on a network mount. So locks are
//! only tried, never waited for, and every wait has an end. The lock files are
//! never removed: locking a removed file would exclude nobody.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::caller::{Caller, Claim, Patience};
use super::control::{self, Control, Owner};
use super::root::{Reader, Root};
use super::{layout, session};
use crate::error::{Error, Operation, Reason, Result};
use crate::expect::Clash;
use crate::fs::{Lock, LockKind};
use crate::mutation::{Rule, keeps};
use crate::options::{OnWait, Waiting};
use crate::path::RelativePath;
use crate::progress::Progress;

/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// How long a writer first holds the queue, and how long it then lets readers pass. This is longer than
/// most views, and enough for several tries.
const QUEUE_CLOSED_MIN: Duration = Duration::from_millis(250);
const QUEUE_OPEN: Duration = Duration::from_millis(10);

/// After what time a wait for a lock is reported, and how often again.
const TELL_AFTER: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long a commit lets an update go first that has failed too often. Long enough for most updates, and
/// short for a commit that the update itself waits for.
const TURN_MAX: Duration = Duration::from_secs(2);

/// How often to look for the control directory and its lock. Two tries are enough unless another
/// program removes it.
const SHARE_TRIES_MAX: u32 = 8;

/// The right to publish, apply, recover and sweep, and what was found under it.
#[must_use = "the lock is held as long as this lives"]
#[derive(Debug)]
pub(crate) struct Locked {
    _lock: Box<dyn Lock>,
    /// The control directory as it is now. Code that changes it under the lock updates this too.
    pub(crate) control: Control,
}

/// The right to read one state, and what was found under it.
#[derive(Debug)]
pub(crate) struct Share {
    /// `None` if nothing can be locked. Then another look follows every read.
    lock: Option<Box<dyn Lock>>,
    pub(crate) control: Control,
    _reader: Reader,
}

impl Share {
    /// Refuses what was just read if another process may have committed meanwhile, because nothing
    /// could be locked.
    pub(crate) fn confirm(&self, root: &Root) -> Result<()> {
        if self.lock.is_some() || Control::look(root)?.shows_the_state_of(&self.control) {
            return Ok(());
        }
        Err(Error::Conflict { path: root.path().into(), found: Clash::NotLocked })
    }
}

/// Waits until all others have released the lock.
pub(crate) fn exclusive(root: &Root) -> Result<Locked> {
    exclusive_in(&mut Wait::new(root))
}

/// Like `exclusive`, as part of a longer wait.
pub(crate) fn exclusive_in(wait: &mut Wait<'_>) -> Result<Locked> {
    let root = wait.root;
    let lock = made_if_missing(wait, writers_lock)?;
    // An earlier holder of the lock may have moved directories.
    root.fs.forget_directories();
    Ok(Locked { _lock: lock, control: Control::look(root)? })
}

/// Goes on counting after the control directory was removed while this store was open. So an
/// acknowledged generation never stands for another commit.
pub(crate) fn count_on(root: &Root, locked: &mut Locked) -> Result<()> {
    let newest = root.newest_published();
    if locked.control.newest() >= newest || !keeps(Rule::CountOn) {
        return Ok(());
    }
    let wave = control::mark_end(root, newest)?;
    // Lost without this sync: the start of the generations. The next commit would lie beyond a gap, and
    // recovery would discard it.
    let _durable = root.sync_always(wave)?;
    locked.control.names.insert(layout::Fate::Abandoned.of(newest));
    Ok(())
}

/// Waits until the writer, and the writers already waiting, have released the lock.
pub(crate) fn shared(root: &Root) -> Result<Share> {
    shared_in(&mut Wait::new(root))
}

/// Like `shared`, as part of a longer wait.
pub(crate) fn shared_in(wait: &mut Wait<'_>) -> Result<Share> {
    let root = wait.root;
    let lock = if root.settings.read_only {
        lock_without_making(wait)?
    } else {
        Some(made_if_missing(wait, readers_lock)?)
    };
    root.fs.forget_directories();
    Ok(Share { lock, control: Control::look(root)?, _reader: root.reader() })
}

/// Takes a lock. Makes the control directory first if there is none.
fn made_if_missing<'a>(
    wait: &mut Wait<'a>,
    take: impl Fn(&mut Wait<'a>) -> Result<Box<dyn Lock>>,
) -> Result<Box<dyn Lock>> {
    match take(wait) {
        Err(error) if error.is_not_found() => {
            ensure(wait.root)?;
            take(wait)
        }
        lock => lock,
    }
}

/// The turn of one update. As long as this lives, the commits of others wait before they begin.
#[must_use = "the turn is over when this is dropped"]
#[derive(Debug)]
pub(crate) struct Turn {
    _lock: Box<dyn Lock>,
}

/// Asks all others to let this update go first. `None` if the turn is another's for too long, or cannot be
/// had. Then the update goes on without it.
pub(crate) fn turn(root: &Root, caller: &Caller) -> Option<Turn> {
    let path = layout::TURN.path();
    let mut wait = Wait::of(root, caller).for_courtesy();
    let lock = match wait.take(&path, LockKind::Exclusive) {
        Err(error) if error.is_not_found() => {
            control::make_turn(root).ok()?;
            wait.take(&path, LockKind::Exclusive)
        }
        lock => lock,
    };
    lock.ok().map(|lock| Turn { _lock: lock })
}

/// Lets an update go first whose turn it is. This is a courtesy and protects nothing, so the wait is short
/// and every error is ignored. So an update can wait for a commit of another thread or process, too.
pub(crate) fn give_way(root: &Root, caller: &Caller) {
    drop(Wait::of(root, caller).for_courtesy().take(&layout::TURN.path(), LockKind::Shared));
}

/// Makes the control directory, unless it exists, is complete and durable.
///
/// A process may have been killed between making it and syncing it. Then it is visible, but a power
/// loss could undo it, with every manifest in it. So it is synced again until `.gitignore` shows that
/// this was done.
pub(crate) fn ensure(root: &Root) -> Result<()> {
    if Control::look(root)?.is_whole(root) {
        return Ok(());
    }
    let wave = control::make(root).map_err(|error| match error.is_not_found() {
        // A directory that was removed takes no name any more, whatever has its name now.
        true if !root.fs.has_control_elsewhere() => {
            Error::Unsupported { path: root.path().into(), reason: Reason::RootGone }
        }
        _ => error,
    })?;
    // Lost without this sync: the control directory's name, and with it every commit that was ever
    // published there.
    let _durable = root.sync_always(wave)?;
    claim(root)?;
    if keeps(Rule::WaitForRootReaders) {
        // Readers that began before there was a lock file have locked the root instead.
        drop(if_supported(Wait::new(root).take(&RelativePath::root(), LockKind::Exclusive))?);
    }
    control::prove_durable(root)
}

/// Writes the root of a control directory that lies outside of it. Refuses one that belongs to another
/// root.
pub(crate) fn claim(root: &Root) -> Result<()> {
    if !root.fs.has_control_elsewhere() {
        return Ok(());
    }
    // Two roots may try at once.
    let _queue = Wait::new(root).take(&layout::QUEUE.path(), LockKind::Exclusive)?;
    match control::owner(root)? {
        Owner::This => Ok(()),
        Owner::Other(owner) => Err(control::other_root(root, owner)),
        Owner::Nobody | Owner::Moved => {
            let written = control::write_owner(root)?;
            // Lost without this sync: the owner's path behind its name. No store could open the root
            // any more.
            let _durable = root.sync_always(written)?;
            let named = control::name_owner(root)?;
            // Lost without this sync: the owner of a control directory that has commits of this root.
            // Another root could take them for its own.
            root.sync_always(named).map(drop)
        }
    }
}

/// Holds the queue while it waits for the lock, and lets waiting readers pass from time to time.
fn writers_lock(wait: &mut Wait<'_>) -> Result<Box<dyn Lock>> {
    let path = layout::LOCK.path();
    let mut closed = QUEUE_CLOSED_MIN;
    loop {
        let queue = wait.take(&layout::QUEUE.path(), LockKind::Exclusive)?;
        let opens = wait.root.fs.elapsed().saturating_add(closed);
        while wait.root.fs.elapsed() < opens {
            if let Some(lock) = wait.try_once(&path, LockKind::Exclusive)? {
                return Ok(lock);
            }
            wait.pause(&path)?;
        }
        drop(queue);
        wait.rest(QUEUE_OPEN);
        closed = closed.saturating_mul(2);
    }
}

fn readers_lock(wait: &mut Wait<'_>) -> Result<Box<dyn Lock>> {
    let _queue = wait.take(&layout::QUEUE.path(), LockKind::Shared)?;
    wait.take(&layout::LOCK.path(), LockKind::Shared)
}

/// A lock for a reader that makes nothing; `None` if nothing can be locked.
fn lock_without_making(wait: &mut Wait<'_>) -> Result<Option<Box<dyn Lock>>> {
    for _ in 0..SHARE_TRIES_MAX {
        match readers_lock(wait) {
            Err(error) if error.is_not_found() => {}
            lock => return if_supported(lock),
        }
        let Some(lock) = if_supported(wait.take(&RelativePath::root(), LockKind::Shared))? else {
            return Ok(None);
        };
        if wait.root.look(&layout::QUEUE.path())?.is_none() {
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

/// Asked at each pause of a wait for many: lets those go who wait no longer. Is given the time, and the error
/// of one who has waited for so long. An error ends the wait.
pub(crate) type Ask<'a> = dyn Fn(Duration, &dyn Fn(Duration) -> Error) -> Result<()> + 'a;

/// Who waits.
enum Waiter<'a> {
    One {
        patience: Arc<Patience>,
        claim: Option<&'a Claim>,
    },
    /// A leader, for all whom he leads. Each has a time-out of his own.
    Many(&'a Ask<'a>),
}

/// One wait, from the first try to the time-out.
pub(crate) struct Wait<'a> {
    root: &'a Root,
    waiter: Waiter<'a>,
    started: Duration,
    /// When it ends before its time-out.
    until: Option<Duration>,
    tell: Duration,
    pause: Duration,
}

impl<'a> Wait<'a> {
    pub(crate) fn new(root: &'a Root) -> Self {
        Self::within(root, root.settings.lock_timeout)
    }

    /// A wait with a time-out of its own.
    pub(crate) fn within(root: &'a Root, timeout: Duration) -> Self {
        Self::by(root, Waiter::One { patience: Arc::new(Patience::new(timeout)), claim: None })
    }

    /// A wait in a call that may wait several times, and ends with the time-out of the call. It ends at once
    /// if the caller gives it up.
    pub(crate) fn of(root: &'a Root, caller: &'a Caller) -> Self {
        let patience = match &caller.patience {
            Some(patience) => Arc::clone(patience),
            None => Arc::new(Patience::new(root.settings.lock_timeout)),
        };
        Self::by(root, Waiter::One { patience, claim: Some(&*caller.claim) })
    }

    /// A wait for all whom a leader leads, until `ask` says that nobody wants it any more.
    pub(crate) fn of_many(root: &'a Root, ask: &'a Ask<'a>) -> Self {
        Self::by(root, Waiter::Many(ask))
    }

    fn by(root: &'a Root, waiter: Waiter<'a>) -> Self {
        let started = root.fs.elapsed();
        let tell = started.saturating_add(TELL_AFTER);
        Self { root, waiter, started, until: None, tell, pause: PAUSE_MIN }
    }

    /// A wait that lets others go first. It leaves half of the time for what follows.
    fn for_courtesy(mut self) -> Self {
        let longest = match &self.waiter {
            Waiter::One { patience, .. } => TURN_MAX.min(patience.rest(self.started) / 2),
            Waiter::Many(_) => TURN_MAX,
        };
        self.until = Some(self.started.saturating_add(longest));
        self
    }

    pub(crate) fn take(&mut self, path: &RelativePath, kind: LockKind) -> Result<Box<dyn Lock>> {
        loop {
            if let Some(lock) = self.try_once(path, kind)? {
                return Ok(lock);
            }
            self.pause(path)?;
        }
    }

    pub(crate) fn try_once(&self, path: &RelativePath, kind: LockKind) -> Result<Option<Box<dyn Lock>>> {
        self.root.fs.try_lock(path, kind).map_err(self.root.error(Operation::Lock, path))
    }

    pub(crate) fn pause(&mut self, path: &RelativePath) -> Result<()> {
        self.pause_for(path, session::holder)
    }

    /// Waits a moment for whom `holder` names.
    pub(crate) fn pause_for(
        &mut self,
        path: &RelativePath,
        holder: impl Fn(&Root) -> Option<String>,
    ) -> Result<()> {
        let now = self.root.fs.elapsed();
        let waited = self.go_on(now, &|waited| {
            let holder = holder(self.root);
            Error::Locked { path: self.root.full(path).into(), waited, holder }
        })?;
        if now >= self.tell {
            self.tell = now.saturating_add(TELL_EVERY);
            let (path, holder) = (self.root.full(path), holder(self.root));
            if let Some(OnWait(tell)) = &self.root.settings.on_wait {
                tell(&Waiting { path: path.clone(), waited, holder: holder.clone() });
            }
            self.root.tell(|| Progress::Waiting { path, waited, holder })?;
        }
        self.rest(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    /// Whether the wait goes on, and how long it has taken. `locked` makes the error of one who has waited for
    /// so long.
    fn go_on(&self, now: Duration, locked: &dyn Fn(Duration) -> Error) -> Result<Duration> {
        match &self.waiter {
            Waiter::One { claim: Some(claim), .. } if claim.is_withdrawn() => Err(self.root.cancelled()),
            Waiter::One { patience, .. } => match patience.waited(now) {
                (waited, true) => Err(locked(waited)),
                (waited, false) if self.until.is_some_and(|until| now >= until) => Err(locked(waited)),
                (waited, false) => Ok(waited),
            },
            Waiter::Many(ask) => {
                ask(now, locked)?;
                Ok(now.saturating_sub(self.started))
            }
        }
    }

    /// Does nothing for a while. Only this is counted: what is done between two pauses is no wait.
    fn rest(&self, pause: Duration) {
        let begun = self.root.fs.elapsed();
        self.root.fs.wait(pause);
        if let Waiter::One { patience, .. } = &self.waiter {
            patience.spend(self.root.fs.elapsed().saturating_sub(begun));
        }
    }
}
