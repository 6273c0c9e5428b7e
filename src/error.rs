//! What can go wrong, in variants that differ in what the caller should do
//! next.
//!
//! Every error names the operation and the path, and says which of three things
//! is true of the disk ([`Outcome`]). The system's own message is in `source()`
//! alone. Of the rest of the crate this module knows only paths and
//! generations.

mod operation;
mod reason;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::operation::Operation;
pub use self::reason::Reason;
use crate::expect::Clash;
use crate::generation::{Generation, TransactionId};
use crate::path::InvalidPath;
use crate::place::Place;
use crate::preserve::Attribute;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, and what is true of the disk now.
///
/// The message says both. It leaves out the system's own reason, such as a full disk. Print
/// [`source()`](std::error::Error::source) as well, or use a reporter that does.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = cosave::Store::open(dir.path())?;
/// let mut tx = store.begin()?;
/// let error = tx.write("../outside", b"no").unwrap_err();
/// assert!(matches!(error, cosave::Error::InvalidPath { .. }));
/// assert_eq!(error.outcome(), cosave::Outcome::NothingHappened);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path cannot be used. Nothing was changed; choose another path.
    #[non_exhaustive]
    #[error("cannot use the path {}: {reason}; nothing was changed", path.quoted())]
    InvalidPath {
        /// Where it lies, or as it was given if that is all that is known.
        path: Place,
        /// What is wrong with it.
        reason: InvalidPath,
    },
    /// A precondition no longer holds, because another program or transaction changed the file. Nothing
    /// was changed. Read the file again and retry; [`Store::update`](crate::Store::update) does both.
    #[non_exhaustive]
    #[error("cannot go on: {} {found}; nothing was changed, {}", path.quoted(), after(found))]
    Conflict {
        /// The file in question.
        path: Place,
        /// What was found instead of the expected state.
        found: Clash,
    },
    /// The lock was held by others for longer than the time-out. Nothing was changed; try again later.
    #[non_exhaustive]
    #[error("cannot lock {} within {} ms{}; nothing was changed, try again later", path.quoted(), waited.as_millis(), held_by(holder.as_ref()))]
    Locked {
        /// The lock file.
        path: Place,
        /// How long this call waited, in all its waits for others.
        waited: Duration,
        /// Who may hold the lock, as far as is known.
        holder: Option<String>,
    },
    /// Something on disk cannot be what cosave wrote. Nothing was moved and nothing is lost. Restore
    /// the file, or give its generation up with [`Store::abandon`](crate::Store::abandon).
    #[non_exhaustive]
    #[error("cannot trust {}: {reason}; nothing was moved, restore the file, or open with `recover(false)` and abandon its generation", path.quoted())]
    Corrupt {
        /// The damaged file.
        path: Place,
        /// What does not match.
        reason: String,
    },
    /// The file system or the store's options do not allow this. Nothing was changed.
    #[non_exhaustive]
    #[error("cannot do this at {}: {reason}; nothing was changed", path.quoted())]
    Unsupported {
        /// The path in question.
        path: Place,
        /// Why it is not possible.
        reason: Reason,
    },
    /// A replaced file has something that the new one cannot get, and the store was opened with
    /// [`Preserve::Strict`](crate::Preserve::Strict). Nothing was changed.
    #[non_exhaustive]
    #[error("cannot keep {attribute} of {}; nothing was changed", path.quoted())]
    NotPreserved {
        /// The file that was to be replaced.
        path: Place,
        /// What could not be kept. There may be more.
        attribute: Attribute,
    },
    /// The control directory belongs to another root. Nothing was changed. Give each root its own. If
    /// the root was moved or replaced, say so with
    /// [`StoreOptions::root_moved`](crate::StoreOptions::root_moved).
    #[non_exhaustive]
    #[error("cannot use {}: its control directory `{}` belongs to the root `{}`; nothing was changed", path.quoted(), control.display(), owner.display())]
    OtherRoot {
        /// The root.
        path: Place,
        /// The control directory.
        control: PathBuf,
        /// The root that it belongs to.
        owner: PathBuf,
    },
    /// A writer of this transaction is still open, or was dropped before it was finished. Nothing was
    /// changed.
    #[non_exhaustive]
    #[error("cannot commit: the writer of {} was not finished; nothing was changed", path.quoted())]
    Unfinished {
        /// The file whose writer was not finished.
        path: Place,
    },
    /// An earlier sync of this store failed, so the system's answers cannot be trusted any more.
    /// Nothing was changed. Drop every clone of the store and open the root again.
    #[non_exhaustive]
    #[error("cannot go on in {} after a failed sync; nothing was changed, open the root again", path.quoted())]
    Poisoned {
        /// The root.
        path: Place,
    },
    /// The system refused an operation. No target was changed.
    #[non_exhaustive]
    #[error("cannot {operation} {}; no target was changed", path.quoted())]
    Io {
        /// What was tried.
        operation: Operation,
        /// The path of the operation.
        path: Place,
        /// The system's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// The function of [`StoreOptions::on_progress`](crate::StoreOptions::on_progress) has cancelled the
    /// commit, the writing of a long file, or the wait for a lock. Or the future of a commit was dropped (feature
    /// `tokio`), and the caller is told by another one. Nothing was changed.
    #[non_exhaustive]
    #[error("the work in {} was cancelled; nothing was changed", path.quoted())]
    Cancelled {
        /// The root.
        path: Place,
    },
    /// A function of the caller failed, and cosave had asked for its result. No target was changed. Made
    /// by `?` from an [`io::Error`] in a closure whose error is this type.
    #[non_exhaustive]
    #[error("cannot go on after an error of the program's own; no target was changed")]
    Caller {
        /// The caller's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// An earlier commit, of this store or of another, cannot be finished. It stays committed. This
    /// transaction or view has changed nothing. Remove what the system complains of, and try again.
    #[non_exhaustive]
    #[error("generation {generation}, committed earlier, cannot be finished: cannot {operation} {}; nothing of this transaction was changed, fix the cause and try again, or open with `recover(false)` and abandon that generation", path.quoted())]
    Blocked {
        /// The generation that cannot be finished.
        generation: Generation,
        /// What was tried.
        operation: Operation,
        /// The path of the operation.
        path: Place,
        /// The system's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// The transaction is committed, but not every file is in place. Nothing is lost: the next opening
    /// of the root, or the next commit, finishes it.
    #[non_exhaustive]
    #[error("committed as generation {generation}, but cannot {operation} {}; the next opening of the root finishes it; if the cause cannot be fixed, open with `recover(false)` and abandon it", path.quoted())]
    NotApplied {
        /// The generation of the commit.
        generation: Generation,
        /// What was tried.
        operation: Operation,
        /// The path of the operation.
        path: Place,
        /// The system's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// The sync of a single file's name failed. The file has its new content now. After a power loss it
    /// has the old or the new content, whole. Write it again to be sure.
    #[non_exhaustive]
    #[error("not known whether the new {} survives a power loss: cannot make its name durable; write it again", path.quoted())]
    NotSynced {
        /// The file.
        path: Place,
        /// The system's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// A sync of a file that only grows has failed, now or earlier. What was not durable is cut off. Open the
    /// file again to go on.
    #[non_exhaustive]
    #[error("cannot append to {} after a failed sync; only its first {synced} bytes are durable, open it again", path.quoted())]
    NotAppended {
        /// The file.
        path: Place,
        /// How many bytes, from the beginning, survive a power loss.
        synced: u64,
        /// The system's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// A record was appended, and the sync that was due could not begin, most often because too many files are
    /// open. Sync the file later; if that succeeds, the record is durable. Do not append it again.
    #[non_exhaustive]
    #[error("not known whether what was appended to {} at byte {begin} survives a power loss: cannot begin a sync; sync the file again", path.quoted())]
    NotYetSynced {
        /// The file.
        path: Place,
        /// Where the record begins.
        begin: u64,
        /// The system's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another writer has the file open to append to it. Nothing was changed; try again when that one has
    /// closed it.
    #[non_exhaustive]
    #[error("cannot append to {} while another writer has it open; nothing was changed", path.quoted())]
    InUse {
        /// The file.
        path: Place,
    },
    /// The sync at the commit point failed, so nobody knows whether the transaction is committed. Open
    /// the root again and ask [`Store::outcome_of`](crate::Store::outcome_of) for `transaction`. The
    /// number of its generation may belong to another commit by then.
    #[non_exhaustive]
    #[error("not known whether transaction {transaction} is committed as generation {generation}: cannot {operation} {}; open the root again and ask for the transaction's outcome", path.quoted())]
    InDoubt {
        /// The generation that it has, if it is committed.
        generation: Generation,
        /// The transaction to ask about.
        transaction: TransactionId,
        /// What was tried.
        operation: Operation,
        /// The path of the operation.
        path: Place,
        /// The system's error.
        #[source]
        source: Arc<io::Error>,
    },
}

fn held_by(holder: Option<&String>) -> String {
    holder.map(|holder| format!(" (held by {holder})")).unwrap_or_default()
}

/// Whether somebody expects what is not so. That does not come back by itself.
fn is_unexpected(found: &Clash) -> bool {
    matches!(found, Clash::Generation { .. } | Clash::Checksum | Clash::Exists | Clash::Missing)
}

/// What to do after a conflict.
fn after(found: &Clash) -> &'static str {
    if is_unexpected(found) { "look at what is there, and decide anew" } else { "read it again and retry" }
}

/// Which of three things is true after an error. There is no fourth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This transaction has changed no target.
    NothingHappened,
    /// The transaction is committed, and recovery finishes what is left to do.
    Committed,
    /// It is not known. [`Store::outcome_of`](crate::Store::outcome_of) tells once the root is open
    /// again.
    Unknown,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NothingHappened => "nothing was changed",
            Self::Committed => "committed; recovery finishes what is left to do",
            Self::Unknown => "not known; ask for the transaction's outcome once the root is open again",
        })
    }
}

impl Error {
    /// What is true of the disk after this error. Each variant has one outcome.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotApplied { .. } => Outcome::Committed,
            Self::InDoubt { .. }
            | Self::NotSynced { .. }
            | Self::NotAppended { .. }
            | Self::NotYetSynced { .. } => Outcome::Unknown,
            _ => Outcome::NothingHappened,
        }
    }

    /// The generation that the error names, if it names one.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::NotApplied { generation, .. }
            | Self::InDoubt { generation, .. }
            | Self::Blocked { generation, .. } => Some(*generation),
            _ => None,
        }
    }

    /// Whether something is not as the caller relied on: a precondition, or what was read. Exactly
    /// [`Error::Conflict`]. Nothing was changed. A lock that others hold, and a path that cannot be used,
    /// are no conflicts.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Whether the same work, done again from its beginning, may succeed without any repair: what was in
    /// the way may be gone by itself. It is so for a lock that others hold, and for a conflict over what was
    /// read or staged. It is not if something else is there than the caller expects: a file where none was
    /// to be, none where one was to be, another content or another generation. Never after an error that
    /// leaves open whether something was changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict { found, .. } => !is_unexpected(found),
            Self::Locked { .. } | Self::InUse { .. } => true,
            _ => false,
        }
    }

    /// Whether the path of the operation does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the disk or a quota is full.
    pub(crate) fn is_out_of_room(&self) -> bool {
        let is_full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        matches!(self, Self::Io { source, .. } if is_full(source.kind()))
    }

    /// The path that the error is about, if it is about one: where it lies, and how it was given.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::InvalidPath { path, .. }
            | Self::Conflict { path, .. }
            | Self::Locked { path, .. }
            | Self::Corrupt { path, .. }
            | Self::Unsupported { path, .. }
            | Self::NotPreserved { path, .. }
            | Self::OtherRoot { path, .. }
            | Self::Unfinished { path }
            | Self::Poisoned { path }
            | Self::Io { path, .. }
            | Self::Cancelled { path }
            | Self::Blocked { path, .. }
            | Self::NotApplied { path, .. }
            | Self::NotSynced { path, .. }
            | Self::NotAppended { path, .. }
            | Self::NotYetSynced { path, .. }
            | Self::InUse { path }
            | Self::InDoubt { path, .. } => Some(path),
            Self::Caller { .. } => None,
        }
    }

    fn place_mut(&mut self) -> Option<&mut Place> {
        match self {
            Self::InvalidPath { path, .. }
            | Self::Conflict { path, .. }
            | Self::Unsupported { path, .. }
            | Self::NotPreserved { path, .. }
            | Self::Unfinished { path }
            | Self::Io { path, .. }
            | Self::NotApplied { path, .. }
            | Self::NotSynced { path, .. }
            | Self::NotAppended { path, .. }
            | Self::NotYetSynced { path, .. }
            | Self::InUse { path }
            | Self::InDoubt { path, .. } => Some(path),
            // These are about cosave's own files, and nobody has given their paths.
            Self::Locked { .. }
            | Self::Corrupt { .. }
            | Self::OtherRoot { .. }
            | Self::Poisoned { .. }
            | Self::Cancelled { .. }
            | Self::Caller { .. }
            | Self::Blocked { .. } => None,
        }
    }

    /// The same error about a path that the caller has given so.
    pub(crate) fn given_as(mut self, given: &Path) -> Self {
        if let Some(place) = self.place_mut() {
            *place = place.clone().given_as(given);
        }
        self
    }

    /// Turns a system error into an error about `operation` on `path`.
    pub(crate) fn io(operation: Operation, path: impl Into<Place>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source: Arc::new(in_words(source)) }
    }

    pub(crate) fn invalid(path: impl Into<Place>, reason: InvalidPath) -> Self {
        Self::InvalidPath { path: path.into(), reason }
    }

    pub(crate) fn corrupt(path: impl Into<Place>, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), reason: reason.into() }
    }

    /// Takes out the error of this crate that the error of a writer was made of. Any other is the caller's.
    pub(crate) fn of_writer(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(|own| Self::Caller { source: Arc::new(own) })
    }

    /// The same failure after the commit point.
    pub(crate) fn not_applied(self, generation: Generation) -> Self {
        match self {
            Self::Io { operation, path, source } => Self::NotApplied { generation, operation, path, source },
            other => other,
        }
    }

    /// The same failure while finishing an earlier commit before one's own.
    pub(crate) fn blocked(self) -> Self {
        match self {
            Self::NotApplied { generation, operation, path, source } => {
                Self::Blocked { generation, operation, path, source }
            }
            other => other,
        }
    }

    /// The same failure at the commit point.
    pub(crate) fn in_doubt(self, generation: Generation, transaction: TransactionId) -> Self {
        match self {
            Self::Io { operation, path, source } => {
                Self::InDoubt { generation, transaction, operation, path, source }
            }
            other => other,
        }
    }
}

/// The library's own errors of a kind have no text but the name of the kind, such as "entity not found".
fn in_words(error: io::Error) -> io::Error {
    use io::ErrorKind as Kind;
    let kind = error.kind();
    let has_own_text =
        error.raw_os_error().is_some() || error.get_ref().is_some() || error.to_string() != kind.to_string();
    let text = match kind {
        _ if has_own_text => return error,
        Kind::NotFound => "there is no such file or directory",
        Kind::AlreadyExists => "something is there already",
        Kind::NotADirectory => "it is not a directory, or its parent is not",
        Kind::IsADirectory => "it is a directory",
        Kind::DirectoryNotEmpty => "the directory is not empty",
        Kind::PermissionDenied => "it is not permitted",
        Kind::ReadOnlyFilesystem => "the file system is read-only",
        Kind::ResourceBusy => "it is in use, or something is mounted there",
        Kind::CrossesDevices => "it lies on another file system",
        Kind::InvalidInput => "it is not of the kind that is needed here",
        _ => return error,
    };
    io::Error::new(kind, text)
}

impl From<Error> for io::Error {
    /// For code that uses `std::io` errors throughout: keeps the message and the system's error kind.
    /// The system's own reason stays in [`source()`](std::error::Error::source).
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. }
            | Error::Blocked { source, .. }
            | Error::NotApplied { source, .. }
            | Error::InDoubt { source, .. }
            | Error::NotYetSynced { source, .. }
            | Error::Caller { source } => source.kind(),
            Error::NotSynced { source, .. } | Error::NotAppended { source, .. } => final_kind(source),
            Error::InvalidPath { .. } => io::ErrorKind::InvalidInput,
            Error::Locked { .. } => io::ErrorKind::TimedOut,
            Error::InUse { .. } => io::ErrorKind::WouldBlock,
            Error::Corrupt { .. } => io::ErrorKind::InvalidData,
            Error::Unsupported { .. } | Error::NotPreserved { .. } => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The kind of an error after which nothing must be tried again, as the standard library does it if a call was
/// interrupted.
fn final_kind(source: &io::Error) -> io::ErrorKind {
    match source.kind() {
        io::ErrorKind::Interrupted => io::ErrorKind::Other,
        kind => kind,
    }
}

// Not in unit tests: there a `?` on an `io::Error` of the crate's own does not compile, so that none passes
// for the caller's. Every such error of the crate says what was tried at which path.
#[cfg(not(test))]
impl From<io::Error> for Error {
    /// For closures that write: takes out the error of this crate that an [`io::Error`] was made of, such
    /// as the one of a writer. Any other is the caller's own.
    fn from(error: io::Error) -> Self {
        Self::of_writer(error)
    }
}

#[cfg(test)]
mod tests;
