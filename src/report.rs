//! What happened, as data.

use std::fmt;

use crate::generation::{Generation, TransactionId};
use crate::options::Durability;
use crate::path::RelativePath;

/// One thing that a commit does, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A file that did not exist.
    Create {
        /// The file.
        path: RelativePath,
        /// Its length in bytes.
        length: u64,
    },
    /// A file that takes the place of another.
    Replace {
        /// The file.
        path: RelativePath,
        /// Its new length in bytes.
        length: u64,
    },
    /// A file that goes.
    Remove {
        /// The file.
        path: RelativePath,
    },
}

impl Change {
    /// The file that is changed, with every symlink in its path resolved.
    #[must_use]
    pub fn path(&self) -> &RelativePath {
        let (Self::Create { path, .. } | Self::Replace { path, .. } | Self::Remove { path }) = self;
        path
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, length } => write!(f, "create  {path} ({length} bytes)"),
            Self::Replace { path, length } => write!(f, "replace {path} ({length} bytes)"),
            Self::Remove { path } => write!(f, "remove  {path}"),
        }
    }
}

/// A transaction that is committed.
#[derive(Clone, Debug)]
pub struct Commit {
    pub(crate) generation: Generation,
    pub(crate) transaction: TransactionId,
    pub(crate) durability: Durability,
    pub(crate) names_are_durable: bool,
    pub(crate) changes: Vec<Change>,
}

impl Commit {
    /// The commit's number. A transaction without changes has that of the state it found.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The transaction's name.
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// What was waited for.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether the file system makes names durable when asked. Where it refuses to (some network
    /// and FUSE mounts, Windows), every file's bytes are on disk, but when its name will be is up
    /// to the system; also `false` with [`Durability::Process`].
    #[must_use]
    pub fn names_are_durable(&self) -> bool {
        self.names_are_durable
    }

    /// What was changed, in the order in which it was written.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// What a recovery and its sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Commits that were published by somebody who died, and are now finished.
    pub rolled_forward: Vec<Generation>,
    /// Published manifests that nobody was told of, and that could not be kept: others of their
    /// batch are missing.
    pub discarded: Vec<Generation>,
    /// Commits of stores that wait for nothing ([`Durability::Process`]) that a power loss took, or left
    /// in parts that are of no use. Files that they changed may be old, new, empty or damaged.
    pub lost: Vec<Generation>,
    /// Leftovers of dead sessions that were removed.
    pub swept: Vec<RelativePath>,
    /// Files that were not what the manifests say.
    pub differences: Vec<Difference>,
}

impl RecoveryReport {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("nothing to recover");
        }
        for generation in &self.rolled_forward {
            writeln!(f, "finished generation {generation}")?;
        }
        for generation in &self.discarded {
            writeln!(f, "discarded generation {generation}, which was never acknowledged")?;
        }
        for generation in &self.lost {
            writeln!(
                f,
                "generation {generation} is lost: it had not waited for the disk before a power loss"
            )?;
        }
        for path in &self.swept {
            writeln!(f, "removed {path}")?;
        }
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        Ok(())
    }
}

/// A file that was not what a manifest says; never destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The file.
    pub path: RelativePath,
    /// What was found.
    pub finding: Finding,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            Finding::SetAside(name) => {
                write!(f, "{} had been changed by somebody else: set aside as {name}", self.path)
            }
            Finding::NotRemoved => {
                write!(f, "{} is not the file that was to be removed: left as it is", self.path)
            }
            Finding::Lost => write!(
                f,
                "{} is not what was committed without waiting for the disk: a power loss took it, or somebody changed it",
                self.path
            ),
            Finding::ChangedSince => write!(f, "{} was changed after it was committed", self.path),
            Finding::WrittenInPlace => {
                write!(f, "{} was written to after it was committed: its new content was kept", self.path)
            }
        }
    }
}

/// What was found instead of what a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Somebody changed the target between crash and recovery; their file is kept under this name.
    SetAside(RelativePath),
    /// What is at a path that was to be removed is something else; it was left.
    NotRemoved,
    /// The target was changed or removed after it had been moved into place; it was left.
    ChangedSince,
    /// The file was committed with [`Durability::Process`], and is not what was committed: a power loss
    /// took it, or somebody changed it since. What is there was left.
    Lost,
    /// Somebody wrote into the committed file; what they wrote is what is there now.
    WrittenInPlace,
}

/// What state a root is in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The newest generation that is published.
    pub generation: Generation,
    /// Generations that are published, and not retired.
    pub pending: Vec<Generation>,
    /// Sessions that are alive, this one included once it has begun a transaction.
    pub sessions_alive: usize,
    /// Whether a dead session left something to sweep.
    pub needs_sweep: bool,
}

/// A file of the last commits that does not have the bytes that were committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The file.
    pub path: RelativePath,
    /// The generation that committed it.
    pub generation: Generation,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a committed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It is not there.
    Missing,
    /// It was to be removed, and is there.
    Present,
    /// Somebody has changed it: its length or time stamp moved.
    Changed,
    /// Nobody has changed it, and yet its bytes are others: the medium is damaged.
    Damaged,
}
