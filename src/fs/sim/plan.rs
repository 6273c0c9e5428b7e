//! What is planned for a simulated machine: which rules its disk follows, when it
//! crashes, which calls fail, and what is taken out of the protocol. Plain data.

use crate::fs::Barrier;
use crate::mutation::Rule;

/// What a disk and its file system may do to what is not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Model {
    /// Names become durable in the order in which they changed, and every sync makes all earlier
    /// changes of names durable (ext4 with a journal, XFS).
    OrderedPrefix,
    /// As `OrderedPrefix`, but a sync makes only what concerns its own file or directory durable,
    /// ahead of what came before (btrfs).
    JumpingPrefix,
    /// Any subset of the changes of names, until their directory is synced; the sync of a file says
    /// nothing of its name. What POSIX promises.
    WeakPosix,
    /// As `WeakPosix`, and a rename falls into parts. No protocol of renames survives that: a
    /// negative control.
    TornRename,
    /// Syncs answer at once, and do nothing. A negative control.
    LyingSync,
    /// As `OrderedPrefix`, with no way to sync a directory.
    NoDirectorySync,
}

impl Model {
    /// Every model.
    pub const ALL: [Self; 6] = [
        Self::OrderedPrefix,
        Self::JumpingPrefix,
        Self::WeakPosix,
        Self::TornRename,
        Self::LyingSync,
        Self::NoDirectorySync,
    ];
}

/// What a failed sync leaves behind; every later sync of the same thing succeeds and does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Aftermath {
    /// The disk has the old bytes, the cache goes on showing the new ones (ext4, XFS).
    CacheShowsNew,
    /// The disk has the old bytes, and so has the cache (btrfs).
    CacheShowsOld,
    /// The sync succeeds; the next one reports the failure.
    ReportedLater,
}

/// One thing taken out of the protocol, to see that the exploration notices.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A barrier that is not waited for.
    Skip(Barrier, Part),
    /// A rule that is not kept.
    Break(Rule),
}

impl Mutation {
    /// The rule that is broken, if one is.
    #[must_use]
    pub fn rule(self) -> Option<Rule> {
        match self {
            Self::Break(rule) => Some(rule),
            Self::Skip(..) => None,
        }
    }
}

/// Which part of a barrier is skipped.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Everything,
    /// The staged files of a wave, but not the files of the control directory.
    Files,
    /// The files of the control directory.
    ControlFiles,
    /// The directories of the tree.
    Directories,
    /// The control directory and what is below it.
    ControlDirectories,
}

/// When a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// How many calls that change something, and syncs of single members, are let through.
    pub after: u64,
    /// Whether the members of a wave are synced in reverse order.
    pub reversed: bool,
}

/// An error that calls meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How many calls of any kind are let through first.
    pub after: u64,
    /// The system's error number.
    pub error: i32,
    /// Whether every later call fails as well.
    pub persistent: bool,
    /// What a failing sync leaves.
    pub aftermath: Aftermath,
}
