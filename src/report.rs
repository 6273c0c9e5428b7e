//! What happened, as plain data.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::generation::{Generation, TransactionId};
use crate::options::Durability;
use crate::path::RelativePath;
use crate::preserve::NotPreserved;

/// One change that a commit makes, or would make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new file.
    #[non_exhaustive]
    Create {
        /// The file.
        path: RelativePath,
        /// Its length in bytes.
        length: u64,
        /// The mode that it is given, or copied with. `None` if it gets that of any new file.
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// A file that replaces another.
    #[non_exhaustive]
    Replace {
        /// The file.
        path: RelativePath,
        /// Its length in bytes when it was last looked at.
        old_length: u64,
        /// Its new length in bytes.
        length: u64,
        /// The mode that it is given, or copied with. `None` if it keeps that of the file that it replaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// A file that is removed.
    #[non_exhaustive]
    Remove {
        /// The file.
        path: RelativePath,
        /// Its length in bytes when it was last looked at.
        old_length: u64,
    },
    /// A symlink that is made, in place of a file, of another symlink or of nothing.
    #[non_exhaustive]
    Link {
        /// The symlink.
        path: RelativePath,
        /// Where it leads to, as written in it.
        #[serde(serialize_with = "as_text")]
        to: PathBuf,
    },
    /// A directory that is made for itself, and not for a file.
    #[non_exhaustive]
    CreateDirectory {
        /// The directory.
        path: RelativePath,
        /// The mode that it is given. `None` if it gets that of any new directory.
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// A directory that is removed.
    #[non_exhaustive]
    RemoveDirectory {
        /// The directory.
        path: RelativePath,
    },
    /// A directory that is moved with everything in it.
    MoveTree {
        /// Where it was.
        from: RelativePath,
        /// Where it will be.
        path: RelativePath,
        /// Whether it replaces a directory, or a file that the same transaction removes.
        replaces: bool,
    },
    /// A directory that is removed with everything in it.
    RemoveTree {
        /// The directory.
        path: RelativePath,
    },
}

impl Change {
    /// The changed file or directory, with every symlink in its path resolved.
    #[must_use]
    pub fn path(&self) -> &RelativePath {
        match self {
            Self::Create { path, .. } | Self::Replace { path, .. } | Self::Remove { path, .. } => path,
            Self::CreateDirectory { path, .. } | Self::RemoveDirectory { path } => path,
            Self::Link { path, .. } => path,
            Self::MoveTree { path, .. } | Self::RemoveTree { path } => path,
        }
    }

    fn is_of_directory(&self) -> bool {
        !matches!(self, Self::Create { .. } | Self::Replace { .. } | Self::Remove { .. } | Self::Link { .. })
    }
}

fn in_octal(mode: Option<u32>) -> String {
    mode.map(|mode| format!(", mode {mode:o}")).unwrap_or_default()
}

/// As text. What is not Unicode is replaced, as by `Display`.
fn as_text<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, length, mode } => {
                write!(f, "create  {path} ({length} bytes{})", in_octal(*mode))
            }
            Self::Replace { path, old_length, length, mode } => {
                write!(f, "replace {path} ({old_length} -> {length} bytes{})", in_octal(*mode))
            }
            Self::Remove { path, old_length } => write!(f, "remove  {path} ({old_length} bytes)"),
            Self::Link { path, to } => write!(f, "link    {path} -> {}", to.display()),
            Self::CreateDirectory { path, mode: None } => write!(f, "create  {path}/"),
            Self::CreateDirectory { path, mode: Some(mode) } => write!(f, "create  {path}/ (mode {mode:o})"),
            Self::RemoveDirectory { path } => write!(f, "remove  {path}/"),
            Self::MoveTree { from, path, replaces: false } => write!(f, "move    {from}/ -> {path}/"),
            Self::MoveTree { from, path, replaces: true } => write!(f, "replace {path}/ (by {from}/)"),
            Self::RemoveTree { path } => write!(f, "remove  {path}/ (with everything in it)"),
        }
    }
}

/// A committed transaction, and what the function returned that made it.
///
/// [`Store::update`](crate::Store::update) gives the value of its closure. A commit without a closure has
/// no value.
#[derive(Clone, Debug, Serialize)]
pub struct Commit<T = ()> {
    pub(crate) generation: Generation,
    pub(crate) transaction: TransactionId,
    pub(crate) durability: Durability,
    pub(crate) names_are_durable: bool,
    pub(crate) changes: Vec<Change>,
    pub(crate) not_preserved: Vec<NotPreserved>,
    #[serde(skip)]
    pub(crate) value: T,
}

impl Commit {
    /// The same commit, with a value.
    pub(crate) fn with<T>(self, value: T) -> Commit<T> {
        let Self {
            generation,
            transaction,
            durability,
            names_are_durable,
            changes,
            not_preserved,
            value: (),
        } = self;
        Commit { generation, transaction, durability, names_are_durable, changes, not_preserved, value }
    }
}

impl<T> Commit<T> {
    /// What the closure returned.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let commit = store.update(|tx| { tx.write("a", "1")?; Ok::<_, cosave::Error>("done") })?;
    /// assert_eq!(*commit.value(), "done");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What the closure returned, without the rest.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let commit = store.update(|tx| { tx.write("a", "1")?; Ok::<_, cosave::Error>(vec![1]) })?;
    /// assert_eq!(commit.into_value(), [1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    /// The commit's number. A transaction without changes has the generation of the state it found.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// assert_eq!(store.update(|tx| tx.write("a", "1"))?.generation(), 1);
    /// assert_eq!(store.update(|tx| tx.read("a").map(drop))?.generation(), 1);
    /// assert_eq!(store.update(|tx| tx.write("a", "2"))?.generation(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The transaction's id.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let commit = store.update(|tx| tx.write("a", "1"))?;
    /// let id: cosave::TransactionId = commit.transaction().to_string().parse()?;
    /// assert_eq!(id, commit.transaction());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// What the commit waited for.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let commit = store.update(|tx| tx.write("a", "1"))?;
    /// assert_eq!(commit.durability(), cosave::Durability::Full);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether the file system makes names durable when asked. Some network and FUSE mounts and Windows
    /// refuse. Then every file's bytes are on disk, but the system decides when its name will be.
    /// Always `false` with [`Durability::Process`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let commit = store.update(|tx| tx.write("a", "1"))?;
    /// if !commit.names_are_durable() {
    ///     eprintln!("this file system decides when the new names are on disk");
    /// }
    /// # #[cfg(target_os = "linux")]
    /// assert!(commit.names_are_durable());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn names_are_durable(&self) -> bool {
        self.names_are_durable
    }

    /// What was changed, in the order of writing.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let commit = store.update(|tx| { tx.write("a", "12")?; tx.write("d/b", "1") })?;
    /// let shown: Vec<_> = commit.changes().iter().map(ToString::to_string).collect();
    /// assert_eq!(shown, ["create  a (2 bytes)", "create  d/b (1 bytes)"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What the replaced and moved files had besides their bytes, and the new ones could not get. Always empty
    /// with [`Preserve::Strict`](crate::Preserve::Strict).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # std::fs::write(dir.path().join("settings"), "old")?;
    /// let commit = store.update(|tx| tx.write("settings", "new"))?;
    /// for lost in commit.not_preserved() {
    ///     eprintln!("{lost}");                 // settings has lost the owner
    /// }
    /// # assert!(commit.not_preserved().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn not_preserved(&self) -> &[NotPreserved] {
        &self.not_preserved
    }
}

impl<T> fmt::Display for Commit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return write!(f, "nothing to commit after generation {}", self.generation);
        }
        let directories = self.changes.iter().filter(|change| change.is_of_directory()).count();
        let counted = |count: usize, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{count} {many}")),
        };
        let files = counted(self.changes.len() - directories, "file", "files");
        let directories = counted(directories, "directory", "directories");
        let both: Vec<_> = files.into_iter().chain(directories).collect();
        write!(f, "generation {}: {} changed", self.generation, both.join(" and "))
    }
}

/// What a recovery and its sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Commits whose writer was killed after publishing them, and that are now finished.
    pub rolled_forward: Vec<Generation>,
    /// Published manifests that were never acknowledged, and could not be finished because others of
    /// their batch are missing.
    pub discarded: Vec<Generation>,
    /// Commits with [`Durability::Process`] that a power loss undid, or left incomplete. The files that
    /// they changed may be old, new, empty or damaged.
    pub lost: Vec<Generation>,
    /// What dead sessions left, and the sweep removed.
    pub swept: Vec<RelativePath>,
    /// Directories in which the sweep could not look for or remove what dead sessions left. Their
    /// records stay, and the next opening tries again.
    pub unswept: Vec<RelativePath>,
    /// Files that differ from what the manifests say.
    pub differences: Vec<Difference>,
}

impl RecoveryReport {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// A recovery in one line.
struct Summary<'a>(&'a RecoveryReport);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        let counts = [
            (report.rolled_forward.len(), "finished"),
            (report.discarded.len(), "discarded"),
            (report.lost.len(), "lost"),
            (report.swept.len(), "files or directories removed"),
            (report.unswept.len(), "directories not swept"),
            (report.differences.len(), "files not as committed"),
        ];
        let told: Vec<_> = counts.iter().filter(|(count, _)| *count > 0).collect();
        if told.is_empty() {
            return f.write_str("nothing to recover");
        }
        let told: Vec<_> = told.into_iter().map(|(count, what)| format!("{count} {what}")).collect();
        f.write_str(&told.join(", "))
    }
}

impl RecoveryReport {
    /// The report in one line, however much there is to tell: how many commits were finished, how many
    /// files were removed. `Display` has a line for each of them.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// assert_eq!(store.last_recovery().summary().to_string(), "nothing to recover");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn summary(&self) -> impl fmt::Display + '_ {
        Summary(self)
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("nothing to recover");
        }
        let mut lines = Vec::new();
        for generation in &self.rolled_forward {
            lines.push(format!("finished generation {generation}"));
        }
        for generation in &self.discarded {
            lines.push(format!("discarded generation {generation}, which was never acknowledged"));
        }
        for generation in &self.lost {
            lines.push(format!(
                "generation {generation} is lost: it had not waited for the disk before a power loss"
            ));
        }
        for path in &self.swept {
            lines.push(format!("removed {path}"));
        }
        for directory in &self.unswept {
            lines.push(format!(
                "cannot sweep {directory}: what a dead session left there stays for the next opening"
            ));
        }
        for difference in &self.differences {
            lines.push(difference.to_string());
        }
        f.write_str(&lines.join("\n"))
    }
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum TransactionOutcome {
    /// It is committed.
    Committed {
        /// Its generation.
        generation: Generation,
    },
    /// It is not committed, and never will be.
    NotCommitted,
    /// Nothing is left that tells.
    Unknown,
}

/// A generation that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Abandoned {
    /// The generation.
    pub generation: Generation,
    /// Its files that were already moved into place or removed. They stay so.
    pub in_place: Vec<RelativePath>,
    /// Its files that stay as they were before the commit.
    pub left: Vec<RelativePath>,
    /// What could not get its own name back, since others use that by now: the names that it has instead.
    pub set_aside: Vec<RelativePath>,
}

/// A file that was not what a manifest says; never destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
                write!(f, "{} was changed by another program: set aside as {name}", self.path)
            }
            Finding::NotRemoved => {
                write!(f, "{} is not the file that was to be removed: not removed", self.path)
            }
            Finding::DirectoryMissing => {
                write!(f, "{} was to be removed, and its directory is gone", self.path)
            }
            Finding::Lost => write!(
                f,
                "{} is not what was committed without waiting for the disk: a power loss undid it, or another program changed it",
                self.path
            ),
            Finding::ChangedSince => write!(f, "{} was changed after it was committed", self.path),
            Finding::WrittenInPlace => {
                write!(f, "{} was written to after it was committed: its new content was left", self.path)
            }
        }
    }
}

/// What was found instead of what a manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Another program changed the target between crash and recovery. Its file is kept under this name.
    SetAside(RelativePath),
    /// Another file is at a path that was to be removed. It was not removed.
    NotRemoved,
    /// The target was changed or removed after it had been moved into place. It was left so.
    ChangedSince,
    /// The directory of a file that was to be removed is gone. For a file that was to be written
    /// recovery stops instead, since its directory may have been renamed.
    DirectoryMissing,
    /// The file was committed with [`Durability::Process`], and is not what was committed: a power loss
    /// took it, or somebody changed it since. What is there was left.
    Lost,
    /// Another program wrote into the committed file. Its content was left there.
    WrittenInPlace,
}

/// The state of a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The newest generation that is published.
    pub generation: Generation,
    /// Generations that are published and not yet retired.
    pub pending: Vec<Generation>,
    /// Living sessions, including this store's once it has begun a transaction.
    pub sessions_alive: usize,
    /// Whether a dead session left something to sweep.
    pub needs_sweep: bool,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.generation)?;
        if !self.pending.is_empty() {
            let pending: Vec<_> = self.pending.iter().map(ToString::to_string).collect();
            write!(f, ", pending: {}", pending.join(" "))?;
        }
        write!(f, ", living sessions: {}", self.sessions_alive)?;
        f.write_str(if self.needs_sweep { ", something to sweep" } else { "" })
    }
}

/// A file whose content differs from what the last commits wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Mismatch {
    /// The file.
    pub path: RelativePath,
    /// The generation that committed it.
    pub generation: Generation,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of generation {} {}", self.path, self.generation, self.problem)
    }
}

/// What is wrong with a committed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// It is missing.
    Missing,
    /// It should have been removed, but is there.
    Present,
    /// It was changed later: its length or time stamp differs.
    Changed,
    /// Its bytes differ, but its length and time stamp do not: the medium is damaged.
    Damaged,
    /// This user may not read it, so it was not compared. The path may be that of a manifest: then no
    /// file of its commit, and of all earlier ones, was compared. The manifest of a small save is read
    /// only by those who may write in the root.
    Unreadable,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Present => "should have been removed, but is there",
            Self::Changed => "was changed later",
            Self::Damaged => "is damaged: its bytes differ, but its length and time stamp do not",
            Self::Unreadable => "could not be read by this user, so it was not compared",
        })
    }
}
