//! What is not durable yet, and the wait that makes it so.
//!
//! Every call of [`FileSystem`](super::FileSystem) that changes a name or data
//! returns an [`Unsynced`] debt, which goes into a [`Wave`]; `sync` turns a wave
//! into a [`Durable`] receipt. The protocol's states cannot be built without
//! the receipt, so a forgotten sync does not compile. This module knows no
//! protocol and no system: it only keeps the account.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use crate::path::RelativePath;

/// A file whose bytes may not be on disk yet, kept open by the handle that wrote it.
///
/// The handle matters: an error of write-back is reported to descriptions that
/// were open when it happened (fsync(2), ERRORS; `errseq.rst` in the kernel).
pub trait OpenFile: Send + Sync + fmt::Debug {
    /// The file's path when it was opened, for messages.
    fn path(&self) -> &RelativePath;
    /// Waits until data, length and attributes are on disk. Says nothing of the file's name.
    ///
    /// # Errors
    /// What the system answers. Final: a second call proves nothing.
    fn sync(&self) -> io::Result<()>;
    /// For implementations of [`FileSystem`](super::FileSystem) that recognise their own files.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A debt: names or data that a power loss may still take.
#[must_use = "this change is not durable: add it to a wave, or say why it need not be"]
#[derive(Debug, Default)]
pub struct Unsynced {
    directories: BTreeSet<RelativePath>,
    files: Vec<Box<dyn OpenFile>>,
}

impl Unsynced {
    /// The entries of `directory`.
    pub fn directory(directory: RelativePath) -> Self {
        Self { directories: [directory].into(), files: Vec::new() }
    }

    /// The bytes of `file`.
    pub fn file(file: Box<dyn OpenFile>) -> Self {
        Self { directories: BTreeSet::new(), files: vec![file] }
    }

    /// Both debts as one.
    pub fn and(mut self, other: Self) -> Self {
        self.directories.extend(other.directories);
        self.files.extend(other.files);
        self
    }

    /// Gives the debt up: a power loss may undo this change without harm, for the reason given.
    pub fn waive(self, reason: &str) {
        debug_assert!(!reason.is_empty(), "a waived sync says why");
    }
}

/// The waits of the protocol, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Barrier {
    /// The control directory exists before anything relies on it.
    Create,
    /// The session says where it is about to stage, before it does.
    Session,
    /// Barrier 1: staged files, their directories, new directories and the manifest.
    Staged,
    /// Barrier 2, the commit point: the manifest's published name.
    Published,
    /// Barrier 3: the directories whose files were moved into place.
    Applied,
    /// Recovery, first: what a killed writer left visible is made durable before anything moves.
    Inherited,
    /// Recovery: manifests beyond a gap are gone before their numbers are used again.
    Discarded,
    /// Recovery: what somebody else wrote has a second name before a move takes its first.
    SetAside,
    /// Recovery, last: the moves are durable before the manifest is retired.
    Recovered,
    /// The sweep's removals are durable before the session that recorded them is forgotten.
    Swept,
    /// A single file's bytes, before its rename.
    SingleStaged,
    /// A single file's name.
    SingleRenamed,
}

/// Debts that are paid together: many syncs, one wait.
#[derive(Debug)]
#[must_use = "a wave is waited for with `sync`, or waived with a reason"]
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

    /// Takes a debt in.
    pub fn add(&mut self, debt: Unsynced) {
        self.debt.directories.extend(debt.directories);
        self.debt.files.extend(debt.files);
    }

    /// Takes another wave's debts in.
    pub fn absorb(&mut self, other: Self) {
        self.add(other.debt);
    }

    /// Which wait this is.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn barrier(&self) -> Barrier {
        self.barrier
    }

    /// Gives all its debts up: a power loss may undo these changes without harm, for the reason given.
    pub fn waive(self, reason: &str) {
        self.debt.waive(reason);
    }

    /// How many files are kept open for this wave.
    #[must_use]
    pub fn files_open(&self) -> usize {
        self.debt.files.len()
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.debt.files.is_empty() && self.debt.directories.is_empty()
    }

    /// For implementations of `sync`: the files and the directories (each once, sorted).
    #[must_use]
    pub fn into_parts(self) -> (Vec<Box<dyn OpenFile>>, BTreeSet<RelativePath>) {
        (self.debt.files, self.debt.directories)
    }
}

/// A receipt: everything in the wave is on disk.
#[must_use = "the receipt of a sync is what the next step of the protocol is built from"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    names: Names,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Synced,
    Unsupported,
    Waived,
}

impl Durable {
    /// For implementations of `sync`: every file and every directory was synced.
    pub fn synced() -> Self {
        Self { names: Names::Synced }
    }

    /// For implementations of `sync`: every file was synced, but the system refuses to sync
    /// directories (EINVAL or ENOTSUP on some FUSE and SMB mounts; Windows).
    pub fn names_unsupported() -> Self {
        Self { names: Names::Unsupported }
    }

    /// No wait at all, because the caller asked for [`Durability::Process`](crate::Durability::Process).
    pub(crate) fn waived() -> Self {
        Self { names: Names::Waived }
    }

    /// Whether the system took part in making names durable.
    #[must_use]
    pub fn names_are_durable(&self) -> bool {
        self.names == Names::Synced
    }

    /// The weaker of two receipts.
    pub fn and(self, other: Self) -> Self {
        match (self.names, other.names) {
            (Names::Synced, _) => other,
            _ => self,
        }
    }
}

/// A sync failed. Final: nothing in the wave may be synced again and believed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make `{path}` durable")]
pub struct SyncError {
    /// The first file or directory whose sync failed.
    pub path: RelativePath,
    /// What the system said.
    #[source]
    pub source: io::Error,
}
