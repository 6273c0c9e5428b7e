//! What is at a path: plain data that views and transactions return.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use crate::fs::{Kind, Metadata};
use crate::path::RelativePath;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (on Windows also a junction).
    Link,
    /// A device, socket or pipe.
    Other,
}

impl From<Kind> for FileKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Symlink => Self::Link,
            Kind::Other => Self::Other,
        }
    }
}

/// What a view or a transaction knows of a path without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    kind: FileKind,
    length: u64,
    modified: Option<SystemTime>,
    mode: Option<u32>,
}

impl FileInfo {
    /// A file that a transaction has written, and not committed.
    pub(crate) fn uncommitted(length: u64, mode: Option<u32>) -> Self {
        Self { kind: FileKind::File, length, modified: None, mode }
    }

    /// A symlink that a transaction makes, and that leads nowhere before the commit.
    pub(crate) fn link(to: &Path) -> Self {
        let length = to.as_os_str().len() as u64;
        Self { kind: FileKind::Link, length, modified: None, mode: None }
    }

    /// A directory, whose time and length say nothing that lasts.
    pub(crate) fn directory() -> Self {
        Self { kind: FileKind::Directory, length: 0, modified: None, mode: None }
    }

    /// A file, a directory, or something else. Symlinks are followed, except one that the transaction
    /// itself makes.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// The file's length in bytes; 0 for a directory.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// When the file was written. `None` for a directory, and for a file that the transaction itself
    /// has written.
    #[must_use]
    pub fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// The file's permissions, as Unix writes them. `None` for a directory, and for a new file that the
    /// transaction itself has written without a mode: it gets that of any new file.
    #[must_use]
    pub fn mode(&self) -> Option<u32> {
        self.mode
    }
}

impl From<Metadata> for FileInfo {
    fn from(found: Metadata) -> Self {
        if found.kind == Kind::Directory {
            return Self::directory();
        }
        Self {
            kind: found.kind.into(),
            length: found.length,
            modified: Some(found.modified),
            mode: Some(found.mode),
        }
    }
}

/// A name in a directory, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirEntry {
    path: RelativePath,
    kind: FileKind,
}

impl DirEntry {
    pub(crate) fn new(path: RelativePath, kind: Kind) -> Self {
        Self { path, kind: kind.into() }
    }

    /// Its path, from the root.
    #[must_use]
    pub fn path(&self) -> &RelativePath {
        &self.path
    }

    /// Its path, from the root.
    #[must_use]
    pub fn into_path(self) -> RelativePath {
        self.path
    }

    /// What it stands for. A symlink is not followed.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }
}

impl fmt::Display for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
