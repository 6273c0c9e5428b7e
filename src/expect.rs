//! What a transaction expects of the root, and what a conflict found instead:
//! plain data.

use crate::checksum::Checksum;
use crate::generation::Generation;

/// What must be true of a path when a transaction commits. Given to
/// [`Transaction::expect`](crate::Transaction::expect).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expect {
    /// Nothing is there, not even a symlink.
    Absent,
    /// A file, a directory or a symlink is there, whatever is in it.
    Present,
    /// The file has the content that it has now, or is missing as it is now. A symlink leads where it
    /// leads now.
    Unchanged,
    /// There is a file with this checksum.
    Checksum(Checksum),
}

/// What was found instead of what a transaction relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Clash {
    /// Something is at a path that was to be free.
    #[error("exists already")]
    Exists,
    /// Nothing is at a path where something was to be.
    #[error("does not exist any more")]
    Missing,
    /// It is not what the transaction has read or seen.
    #[error("has changed since it was read")]
    Changed,
    /// A symlink is where a file was, so the file to replace may be elsewhere.
    #[error("has become a symlink")]
    Symlink,
    /// Something else is where a symlink was.
    #[error("is no symlink any more")]
    NoSymlink,
    /// The file has another checksum than was expected.
    #[error("has not the checksum that was expected")]
    Checksum,
    /// Others have committed.
    #[non_exhaustive]
    #[error("is of generation {found}, and generation {expected} was expected")]
    Generation {
        /// The generation that was expected.
        expected: Generation,
        /// The generation that was found.
        found: Generation,
    },
    /// Another program has removed a staged file.
    #[error("has lost its staged file")]
    StagedMissing,
    /// Another program has changed a staged file.
    #[error("has a staged file that was changed")]
    StagedChanged,
    /// Another program has replaced a staged file.
    #[error("has a staged file that was replaced")]
    StagedReplaced,
    /// The directory in which one is to be made is gone.
    #[error("has lost its directory")]
    DirectoryMissing,
    /// Something else is where a directory is needed, or is to be made or removed.
    #[error("is no directory any more")]
    NoDirectory,
    /// Something is in a directory that is to be removed.
    #[error("is not empty any more")]
    NotEmpty,
    /// Others have committed while it was read, and nothing could be locked.
    #[error("was committed to while it was read without a lock")]
    NotLocked,
}
