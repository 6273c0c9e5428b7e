#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod checksum;
mod draft;
mod error;
mod expect;
mod generation;
mod history;
mod lease;
mod listed;
mod manifest;
#[cfg(feature = "sim")]
mod memory;
#[cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "public with the feature `sim`"))]
mod mutation;
#[cfg(feature = "object_store")]
pub mod object_store;
mod options;
mod path;
mod place;
mod preserve;
mod progress;
mod protocol;
mod pruning;
mod reader;
mod report;
mod single;
mod spelling;
mod store;
#[cfg(feature = "tokio")]
pub mod tokio;
mod transaction;
mod view;
mod writer;

#[cfg(feature = "sim")]
pub mod fs;
#[cfg(not(feature = "sim"))]
#[allow(unreachable_pub, reason = "public with the feature `sim`")]
mod fs;

pub use checksum::{Checksum, InvalidChecksum};
pub use error::{Error, Operation, Outcome, Reason, Result};
pub use expect::{Clash, Expect};
pub use generation::{Generation, InvalidTransactionId, TransactionId};
pub use history::PastCommit;
pub use lease::Lease;
pub use listed::{DirEntry, FileInfo, FileKind};
pub use manifest::{
    Action, Before, Entry, Inline, Manifest, ManifestError, NewDirectory, StagedContent, Stamp, TimeStamp,
};
pub use options::{Durability, StoreOptions, SyncStrategy, Waiting};
pub use path::{InvalidPath, RelativePath};
pub use place::Place;
pub use preserve::{Attribute, NotPreserved, Preserve};
pub use progress::Progress;
pub use reader::{FileReader, Snapshot};
pub use report::{
    Abandoned, Change, Commit, Difference, Finding, Mismatch, Problem, RecoveryReport, Status,
    TransactionOutcome,
};
pub use single::{
    AppendFile, AppendOptions, AtomicFile, create_new, rename_durably, sweep_temporary_files, sync_directory,
    sync_file, sync_parents, write, write_with,
};
#[cfg(feature = "sim")]
pub use single::{create_new_on, sweep_temporary_files_on, write_on};
pub use store::Store;
pub use store::locking::LockGuard;
pub use transaction::Transaction;
pub use transaction::new_directory::DirectoryBuilder;
pub use transaction::operations::FileBuilder;
pub use view::View;
pub use writer::FileWriter;
