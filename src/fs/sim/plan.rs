//! The plan of a simulated machine, as plain data: the rules of its disk, when
//! it crashes, which calls fail, and what is removed from the protocol.

use crate::fs::Barrier;
use crate::mutation::Rule;

/// What a disk and its file system may do to changes that are not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Model {
    /// Names become durable in the order in which they changed. Every sync makes all earlier changes of
    /// names durable (ext4 with a journal, XFS).
    OrderedPrefix,
    /// Like `OrderedPrefix`, but a sync makes only the changes of its own file or directory durable,
    /// ahead of earlier ones (btrfs).
    JumpingPrefix,
    /// Any subset of the changes of names survives until their directory is synced. The sync of a file
    /// does not cover its name. This is what POSIX promises.
    WeakPosix,
    /// Like `WeakPosix`, but a rename can be torn. No protocol made of renames survives that: a
    /// negative control.
    TornRename,
    /// Syncs return at once and do nothing: a negative control.
    LyingSync,
    /// Like `OrderedPrefix`, but directories cannot be synced.
    NoDirectorySync,
    /// Like `OrderedPrefix`, but the blocks of a removed or replaced file may be used again at once. If a
    /// power loss brings its name back, it has somebody else's bytes (ext4 with `data=writeback`).
    ReusedBlocks,
}

impl Model {
    /// Every model.
    pub const ALL: [Self; 7] = [
        Self::OrderedPrefix,
        Self::JumpingPrefix,
        Self::WeakPosix,
        Self::TornRename,
        Self::LyingSync,
        Self::NoDirectorySync,
        Self::ReusedBlocks,
    ];
}

/// The granularity of a file system's time stamps. The simulated clock advances with every change of a
/// file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Granularity {
    /// Every change has its own stamp.
    #[default]
    Fine,
    /// This many changes share one stamp, as within a second on an ext4 with small inodes, or within a
    /// tick of the kernel's clock before Linux 6.13.
    Changes(u64),
    /// All changes have the same stamp.
    Still,
}

/// What a failed sync leaves behind. Every later sync of the same thing succeeds and does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Aftermath {
    /// The disk has the old bytes, but the cache still shows the new ones (ext4, XFS).
    CacheShowsNew,
    /// Disk and cache both have the old bytes (btrfs).
    CacheShowsOld,
    /// The sync succeeds; the next one reports the failure.
    ReportedLater,
}

/// One thing removed from the protocol, to see that the exploration notices.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Does not wait at a barrier.
    Skip(Barrier, Part),
    /// Breaks a rule.
    Break(Rule),
}

impl Mutation {
    /// The broken rule, if there is one.
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
    /// The staged files of a wave, but not the files in the control directory.
    Files,
    /// The files in the control directory.
    ControlFiles,
    /// The directories outside the control directory.
    Directories,
    /// The control directory and the directories in it.
    ControlDirectories,
}

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// How many steps are allowed first. A step is a call that changes something, or the sync of one
    /// member of a wave.
    pub after: u64,
    /// Whether the members of a wave are synced in reverse order.
    pub reversed: bool,
}

/// An error that calls return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How many calls of any kind are allowed first.
    pub after: u64,
    /// The system's error number.
    pub error: i32,
    /// Whether every later call fails as well.
    pub persistent: bool,
    /// What a failed sync leaves behind.
    pub aftermath: Aftermath,
}
