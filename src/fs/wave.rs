//! What is not durable yet, and the wait that makes it durable.
//!
//! Every call of [`FileSystem`](super::FileSystem) that changes a name or data
//! returns an [`Unsynced`] debt, which goes into a [`Wave`]. `sync` turns a
//! wave into a [`Durable`] receipt. The protocol's states cannot be built
//! without the receipt, so code with a missing sync does not compile. This
//! module knows no protocol and no system; it only counts debts.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use crate::path::RelativePath;

/// A file whose bytes may not be on disk yet, and the handle that wrote it.
///
/// It must be that handle: an error of write-back is reported only to descriptions that were open when
/// it happened (fsync(2), ERRORS; `errseq.rst` in the kernel).
pub trait OpenFile: Send + Sync + fmt::Debug {
    /// The path under which the file was opened, for messages.
    fn path(&self) -> &RelativePath;
    /// Waits until data, length and attributes are on disk. Does not cover the file's name.
    ///
    /// # Errors
    /// Any error of the system. It is final: a second call proves nothing.
    fn sync(&self) -> io::Result<()>;
    /// Lets implementations of [`FileSystem`](super::FileSystem) recognise their own files.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A debt: names or data that a power loss may still undo.
#[must_use = "this change is not durable: add it to a wave, or say why it need not be"]
#[derive(Debug, Default)]
pub struct Unsynced {
    directories: BTreeSet<RelativePath>,
    files: Vec<Box<dyn OpenFile>>,
}

impl Unsynced {
    /// A debt for the names in `directory`.
    pub fn directory(directory: RelativePath) -> Self {
        Self { directories: [directory].into(), files: Vec::new() }
    }

    /// A debt for the bytes of `file`.
    pub fn file(file: Box<dyn OpenFile>) -> Self {
        Self { directories: BTreeSet::new(), files: vec![file] }
    }

    /// Adds another debt.
    pub fn add(&mut self, other: Self) {
        self.directories.extend(other.directories);
        self.files.extend(other.files);
    }

    /// Both debts as one.
    pub fn and(mut self, other: Self) -> Self {
        self.add(other);
        self
    }

    /// Gives the debt up, because a power loss may undo this change without harm, for the reason given.
    pub fn waive(self, reason: &str) {
        debug_assert!(!reason.is_empty(), "a waived sync needs a reason");
    }
}

/// The protocol's waits for the disk, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Barrier {
    /// The control directory exists durably before anything relies on it.
    Create,
    /// The session has recorded where it is about to stage before it stages there.
    Session,
    /// Barrier 1, of long saves: staged files, their directories, new directories and the manifest.
    Staged,
    /// Barrier 2, the commit point: the manifest's published name. For small saves also what barrier 1
    /// has for long ones.
    Published,
    /// Barrier 3: the directories whose files were moved into place.
    Applied,
    /// Recovery: staged files that a power loss took, written anew from a small save's manifest.
    Restored,
    /// Recovery's first wait: what a killed writer left visible is durable before anything is moved.
    Inherited,
    /// The mark of a copy, before a target that cannot be renamed over is overwritten.
    Copying,
    /// Recovery: originals of a commit whose history a power loss took are kept before they go.
    Kept,
    /// A history that was to be removed as a whole does not come back.
    Forgotten,
    /// Recovery: manifests beyond a gap are gone before their numbers are used again.
    Discarded,
    /// Recovery: a file that others wrote has a second name before a move takes its first one away.
    SetAside,
    /// Recovery's last wait: the moves are durable before the manifest is retired.
    Recovered,
    /// Recovery: a manifest is retired for good if others have removed the directory of its files.
    Retired,
    /// The sweep's removals are durable before the record of the session is removed.
    Swept,
    /// A single file's bytes, before its rename.
    SingleStaged,
    /// A single file's name.
    SingleRenamed,
    /// What was appended to a file, or found in it when it was opened for that.
    Appended,
    /// The names of a file that was set aside full, and of the empty one in its place.
    Rotated,
}

/// Debts that are paid together: many syncs, one wait.
#[derive(Debug)]
#[must_use = "wait for a wave with `sync`, or waive it with a reason"]
pub struct Wave {
    // Only the simulated disk asks which wait this is.
    #[cfg(feature = "sim")]
    barrier: Barrier,
    debt: Unsynced,
}

impl Wave {
    /// An empty wave for `barrier`.
    pub fn new(barrier: Barrier) -> Self {
        #[cfg(not(feature = "sim"))]
        let _ = barrier;
        Self {
            #[cfg(feature = "sim")]
            barrier,
            debt: Unsynced::default(),
        }
    }

    /// Adds a debt.
    pub fn add(&mut self, debt: Unsynced) {
        self.debt.add(debt);
    }

    /// Adds all debts of another wave.
    pub fn absorb(&mut self, other: Self) {
        self.add(other.debt);
    }

    /// Which wait this is.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn barrier(&self) -> Barrier {
        self.barrier
    }

    /// Gives all its debts up, because a power loss may undo these changes without harm, for the reason
    /// given.
    pub fn waive(self, reason: &str) {
        self.debt.waive(reason);
    }

    /// How many files this wave keeps open.
    #[must_use]
    pub fn files_open(&self) -> usize {
        self.debt.files.len()
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.debt.files.is_empty() && self.debt.directories.is_empty()
    }

    /// For implementations of `sync`: the files and the directories, each once and sorted.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Box<dyn OpenFile>>, BTreeSet<RelativePath>) {
        (self.debt.files, self.debt.directories)
    }
}

/// A receipt: what is on disk of a wave, from the strongest answer to the weakest.
#[must_use = "the receipt of a sync is what the next step of the protocol is built from"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durable {
    /// Every file and every directory is synced.
    Synced,
    /// Every file is synced, but the system refuses to sync directories. That is EINVAL or ENOTSUP on
    /// some FUSE and SMB mounts, and the rule on Windows.
    NamesUnsupported,
    /// No wait at all, because the caller chose [`Durability::Process`](crate::Durability::Process).
    Waived,
}

impl Durable {
    /// The weaker of two receipts.
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

/// A sync failed. If it was attempted this is final: a later sync of the same things proves nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot make `{path}` durable")]
pub struct SyncError {
    /// The first file or directory whose sync failed.
    pub path: RelativePath,
    /// Whether the sync was attempted. If a directory could not even be opened, most often because too
    /// many files are open, nothing is lost. Then the next sync can be trusted.
    pub attempted: bool,
    /// The system's error.
    #[source]
    pub source: io::Error,
}
