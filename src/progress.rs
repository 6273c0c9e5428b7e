//! How far a save is, told to a function of the caller.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::generation::Generation;
use crate::path::RelativePath;

/// A step of a save, or of a recovery. Given to the function of
/// [`StoreOptions::on_progress`](crate::StoreOptions::on_progress).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Bytes of a long file have reached its staged file. Told every 4 MiB, while it is written or copied.
    #[non_exhaustive]
    Staging {
        /// The file.
        path: RelativePath,
        /// How many of its bytes are staged.
        bytes: u64,
        /// How many it will have, unless a writer has yet to say so.
        length: Option<u64>,
    },
    /// A file's next content is staged. The files of a small save are staged when it commits. Nothing can be
    /// cancelled here; that is asked at the next step.
    #[non_exhaustive]
    Staged {
        /// The file.
        path: RelativePath,
        /// Its length in bytes.
        length: u64,
    },
    /// Everything is staged, and the commit point is next. After this nothing can be cancelled.
    #[non_exhaustive]
    Committing {
        /// How many files will be written or removed.
        files: usize,
        /// How many bytes are staged.
        bytes: u64,
    },
    /// Others hold a lock. Told after a tenth of a second of waiting, and then every second.
    #[non_exhaustive]
    Waiting {
        /// The lock file, or the root itself.
        path: PathBuf,
        /// How long the call has waited.
        waited: Duration,
        /// Who may hold it, as in [`Waiting::holder`](crate::Waiting::holder).
        holder: Option<String>,
    },
    /// Some files of a commit are in place. Told of a recovery's commits, too.
    #[non_exhaustive]
    Applied {
        /// The commit.
        generation: Generation,
        /// How many of its files are in place.
        files: usize,
        /// How many it has.
        all: usize,
        /// The one that was put in place last; `None` if it is the first one's turn.
        path: Option<RelativePath>,
    },
    /// What a dead writer has published is being finished.
    #[non_exhaustive]
    Recovering {
        /// How many commits.
        generations: usize,
    },
}

/// The function to tell.
#[derive(Clone)]
pub(crate) struct OnProgress(pub(crate) Arc<Tell>);

type Tell = dyn Fn(&Progress) -> ControlFlow<()> + Send + Sync;

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a function")
    }
}
