//! The manifest: the checksummed list of what a transaction changes, as data.
//!
//! The form on disk is known to `text` alone. Nothing here reads a file.

mod directory;
pub(crate) mod name;
pub(crate) mod text;
mod tree;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::checksum::Checksum;
use crate::fs::Metadata;
use crate::generation::{Generation, TransactionId};
use crate::path::RelativePath;

/// A time stamp with the precision of file systems: nanoseconds since 1970, negative before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeStamp(i64);

impl TimeStamp {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn nanoseconds(self) -> i64 {
        self.0
    }
}

impl From<SystemTime> for TimeStamp {
    fn from(time: SystemTime) -> Self {
        let nanoseconds = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        Self(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => nanoseconds(after),
            Err(before) => -nanoseconds(before.duration()),
        })
    }
}

impl From<TimeStamp> for SystemTime {
    fn from(stamp: TimeStamp) -> Self {
        let distance = Duration::from_nanos(stamp.0.unsigned_abs());
        if stamp.0 < 0 { Self::UNIX_EPOCH - distance } else { Self::UNIX_EPOCH + distance }
    }
}

/// A file's length and time stamp. They do not identify a file: a clock can stand still, and any
/// program can set a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Length in bytes.
    pub length: u64,
    /// Time of the last change of content.
    pub modified: TimeStamp,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.length, modified: metadata.modified.into() }
    }
}

/// What a transaction does with one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file's path.
    pub path: RelativePath,
    /// What was there before the transaction: nothing, or this file.
    pub before: Option<Before>,
    /// What the transaction does.
    pub action: Action,
    /// The directory that goes with everything in it, where a file, a symlink or an empty directory takes its
    /// place.
    pub over: Option<HiddenTree>,
}

/// A file that is replaced or removed, and how to recognise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Its length and time stamp.
    pub stamp: Stamp,
    /// The BLAKE3 of its bytes, if it was so young that its stamp could not tell it from a later file
    /// in its place. Of a symlink it is that of its text, and always there.
    pub checksum: Option<Checksum>,
    /// Whether it is a symlink.
    pub is_link: bool,
}

/// What is done with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The staged file replaces whatever is at the path.
    Write(StagedContent),
    /// The path is removed.
    Remove,
    /// The staged symlink replaces the file or symlink at the path.
    Link(StagedLink),
    /// A directory is made, unless there is one.
    CreateDirectory(NewDirectory),
    /// A directory is removed, if it is empty by then.
    RemoveDirectory,
    /// A directory is moved to the path, with everything in it.
    MoveTree(MovedTree),
    /// A directory is removed, with everything in it.
    RemoveTree(HiddenTree),
}

/// A directory that is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDirectory {
    /// Its permission bits, whatever the umask says; those of any new directory if there are none. Its owner has
    /// all rights, since recovery may have to make something in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<u32>,
    /// The group for which they hold. Another group gets only the rights of all others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<u32>,
}

impl NewDirectory {
    /// Whether a directory can be made with this mode.
    pub(crate) fn can_have(mode: u32) -> bool {
        mode & !0o777 == 0 && mode & 0o700 == 0o700
    }
}

/// What tells a directory from another one at its path. A number can be used again after the directory is
/// gone, so its time of birth counts too, on systems that tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeIdentity {
    /// Its inode; `None` on systems that have no such thing.
    pub inode: Option<u64>,
    /// When it was made.
    pub born: Option<TimeStamp>,
}

/// A directory that is moved with everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedTree {
    /// Where it was.
    pub from: RelativePath,
    /// Which directory it is.
    pub tree: TreeIdentity,
    /// The directory that it replaces; the file or symlink if the entry says that one was there before.
    pub replaced: Option<HiddenTree>,
}

/// A directory that is removed with everything in it. It is moved to a hidden name before its contents go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenTree {
    /// The hidden name, in the directory that it was in.
    pub name: OsString,
    /// Which directory it is.
    pub tree: TreeIdentity,
}

/// A symlink, staged beside its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedLink {
    /// The staged symlink's name, in the same directory.
    pub name: OsString,
    /// Where it leads to, as written in it.
    pub to: PathBuf,
}

/// The longest symlink that Linux takes (`PATH_MAX` with its final zero).
const LINK_BYTES_MAX: usize = 4095;

impl StagedLink {
    /// The checksum of where a symlink leads to, as written in it.
    pub(crate) fn checksum(to: &Path) -> Checksum {
        Checksum::of(to.as_os_str().as_encoded_bytes())
    }

    /// Whether a symlink can lead there: anywhere, since none is ever followed out of the root. It has a
    /// text, which is not too long (symlink(2), ENOENT and ENAMETOOLONG).
    pub(crate) fn can_lead(to: &Path) -> bool {
        let bytes = to.as_os_str().as_encoded_bytes();
        !bytes.is_empty() && bytes.len() <= LINK_BYTES_MAX && !bytes.contains(&0)
    }
}

impl Action {
    /// Whether it makes or removes a directory, and so changes nothing that has content.
    pub(crate) fn is_of_directory(&self) -> bool {
        matches!(self, Self::CreateDirectory(_) | Self::RemoveDirectory)
    }

    /// Whether it makes an empty directory.
    pub(crate) fn is_new_directory(&self) -> bool {
        matches!(self, Self::CreateDirectory(_))
    }

    /// Whether it moves or removes a directory with everything in it, and nothing else.
    pub(crate) fn is_of_tree(&self) -> bool {
        matches!(self, Self::MoveTree(_) | Self::RemoveTree(_))
    }
}

/// The next content of a file, staged beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedContent {
    /// The staged file's name, in the target's directory.
    pub name: OsString,
    /// Its length and time stamp.
    pub after: Stamp,
    /// Its permission bits.
    pub mode: u32,
    /// Its user and group; (0, 0) on systems without owners, `None` if the manifest does not tell.
    pub owner: Option<(u32, u32)>,
    /// The BLAKE3 of its bytes.
    pub checksum: Checksum,
}

impl Entry {
    /// The length of its next content; 0 if no file is written.
    pub(crate) fn length(&self) -> u64 {
        match &self.action {
            Action::Write(content) => content.after.length,
            _ => 0,
        }
    }

    /// Whether it makes, replaces or removes a symlink.
    pub(crate) fn is_of_link(&self) -> bool {
        matches!(self.action, Action::Link(_)) || self.before.is_some_and(|before| before.is_link)
    }

    /// Where the staged file lies, if something is written.
    pub(crate) fn staged(&self) -> Option<RelativePath> {
        match &self.action {
            Action::Write(content) => Some(self.path.with_name(&content.name)),
            Action::Link(link) => Some(self.path.with_name(&link.name)),
            _ => None,
        }
    }

    /// Where a directory that goes is hidden until its contents are gone.
    pub(crate) fn hidden(&self) -> Option<RelativePath> {
        let hidden = match &self.action {
            Action::MoveTree(moved) => moved.replaced.as_ref()?,
            Action::RemoveTree(hidden) => hidden,
            _ => self.over.as_ref()?,
        };
        Some(self.path.with_name(&hidden.name))
    }

    /// Whether it moves or removes a directory with everything in it.
    pub(crate) fn is_of_tree(&self) -> bool {
        self.action.is_of_tree() || self.over.is_some()
    }

    /// The paths that it changes.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        let from = match &self.action {
            Action::MoveTree(moved) => Some(&moved.from),
            _ => None,
        };
        std::iter::once(&self.path).chain(from)
    }
}

/// The checksummed list of what a transaction changes.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = cosave::Store::open(dir.path())?;
/// # let mut tx = store.begin()?;
/// # tx.write("a", b"1")?;
/// # tx.commit()?;
/// let text = std::fs::read(dir.path().join(".cosave/1.applied"))?;
/// let manifest = cosave::Manifest::decode(&text)?;
/// assert_eq!(manifest.entries[0].path.to_string(), "a");
/// println!("{manifest}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The transaction that wrote it.
    pub transaction: TransactionId,
    /// When it was written, by the writer's clock. For people; nothing is decided by it.
    pub time: TimeStamp,
    /// The directories on the way to its files that were mount points.
    pub mounts: BTreeSet<RelativePath>,
    /// What it changes, in the order of writing.
    pub entries: Vec<Entry>,
    /// The bytes of the written files, in the manifest of a small save; `None` in that of a long one.
    pub inline: Option<Inline>,
}

/// What the manifest of a small save holds besides its entries, so that recovery can write every file
/// from it alone. It becomes durable in the same wave as the staged files. So after a power loss it may
/// name files that never reached the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inline {
    /// The first generation that was published in the same wave.
    pub wave: Generation,
    /// The bytes of all written files, in the order of the entries.
    pub bytes: Vec<u8>,
}

/// Why bytes are not a valid manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The first line is not that of a manifest.
    #[error("the first line is not that of a manifest")]
    Header,
    /// A later version of cosave wrote it.
    #[error("it has format version {0}, which this version of cosave cannot read; use a newer one")]
    Version(String),
    /// Bytes were changed or are missing.
    #[error("its checksum does not match: it was changed or cut short")]
    Checksum,
    /// The checksum matches, but cosave never writes such content.
    #[error("its content is not valid: {0}")]
    Content(String),
}

impl Manifest {
    /// Each entry with the bytes that the manifest holds for it.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (&Entry, Option<&[u8]>)> {
        let mut rest = self.inline.as_ref().map(|inline| inline.bytes.as_slice());
        self.entries.iter().map(move |entry| {
            let Action::Write(content) = &entry.action else { return (entry, None) };
            let length = usize::try_from(content.after.length).unwrap_or(usize::MAX);
            let parts = rest.and_then(|rest| rest.split_at_checked(length));
            rest = parts.map(|(_, rest)| rest);
            (entry, parts.map(|(own, _)| own))
        })
    }

    /// Whether it has the bytes of its files.
    pub(crate) fn has_contents(&self) -> bool {
        self.inline.is_some()
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}", self.transaction)?;
        for entry in &self.entries {
            match &entry.action {
                Action::Write(content) => write!(
                    f,
                    "\nwrite  {} ({} bytes, blake3 {})",
                    entry.path, content.after.length, content.checksum
                )?,
                Action::Remove => write!(f, "\nremove {}", entry.path)?,
                Action::Link(link) => write!(f, "\nlink   {} -> {}", entry.path, link.to.display())?,
                Action::CreateDirectory(NewDirectory { mode, .. }) => {
                    let mode = mode.map(|mode| format!(" (mode {mode:o})")).unwrap_or_default();
                    write!(f, "\nmake the directory {}{mode}", entry.path)?;
                }
                Action::RemoveDirectory => write!(f, "\nremove the directory {}", entry.path)?,
                Action::MoveTree(moved) => write!(f, "\nmove the tree {} to {}", moved.from, entry.path)?,
                Action::RemoveTree(_) => write!(f, "\nremove the tree {}", entry.path)?,
            }
            if entry.over.is_some() {
                write!(f, " (in place of a tree)")?;
            }
        }
        Ok(())
    }
}
