//! State: the root as it is under a lock, in which paths are looked up.
//!
//! A view's state may show a file before it is in place. A commit's state is what
//! lies on the disk. Reads, and changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::root::{Root, if_found};
use crate::error::{Operation, Result};
use crate::fs::{Kind, Metadata, ReadFile};
use crate::generation::Generation;
use crate::path::RelativePath;

/// The names in a directory, and what they stand for.
pub(crate) type Names = BTreeMap<OsString, Kind>;

/// A state of the root, in which paths are looked up under a lock.
pub(crate) trait State {
    /// The newest generation that it shows.
    fn generation(&self) -> Generation;

    /// Opens the file at `path` (without symlinks); `None` if there is none.
    fn open(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>>;

    /// What is at `path` (without symlinks); `None` if there is nothing.
    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>>;

    /// Where the symlink at `path` leads to, as written in it; `None` if there is none.
    fn read_link(&self, root: &Root, path: &RelativePath) -> Result<Option<PathBuf>>;

    /// The names in a directory, without those of cosave; `None` if there is no such directory.
    fn names(&self, root: &Root, directory: &RelativePath) -> Result<Option<Names>>;
}

/// What is at a path; nothing if a parent of it is no directory.
pub(crate) fn look(root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
    root.look(path)
}

/// Where the symlink at a path leads to; `None` if there is none.
pub(crate) fn read_link(root: &Root, path: &RelativePath) -> Result<Option<PathBuf>> {
    if look(root, path)?.is_none_or(|found| found.kind != Kind::Symlink) {
        return Ok(None);
    }
    if_found(root.fs.read_link(path)).map_err(root.error(Operation::Look, path))
}

/// The state that the exclusive lock shows once everything published is in place.
#[derive(Debug)]
pub(crate) struct InPlace(pub(crate) Generation);

impl State for InPlace {
    fn generation(&self) -> Generation {
        self.0
    }

    fn open(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        root.open_if_there(path)
    }

    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        look(root, path)
    }

    fn read_link(&self, root: &Root, path: &RelativePath) -> Result<Option<PathBuf>> {
        read_link(root, path)
    }

    fn names(&self, root: &Root, directory: &RelativePath) -> Result<Option<Names>> {
        root.names(directory)
    }
}
