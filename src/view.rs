//! Views: one consistent state of a root, and files that stay readable after
//! the view is closed.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Operation, Result};
use crate::fs::{Kind, ReadFile};
use crate::generation::Generation;
use crate::path::RelativePath;
use crate::protocol::layout;
use crate::protocol::open::Opened;
use crate::protocol::read::Reading;
use crate::protocol::resolve::{self, Resolver};
use crate::protocol::root::{Root, guard, if_found};
use crate::protocol::snapshot::State as _;

/// One consistent state of a root: every commit up to its generation, and nothing of later ones.
///
/// Writers wait while a view is open. Programs that write without cosave are not held back.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = cosave::Store::open(dir.path())?;
/// # store.update(|tx| { tx.write("a", "1")?; tx.write("b", "1") })?;
/// let view = store.view()?;
/// assert_eq!(view.read("a")?, view.read("b")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct View {
    opened: Arc<Opened>,
    reading: Reading,
    resolver: Mutex<Resolver>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root().debug(f, "View").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn new(opened: Arc<Opened>) -> Result<Self> {
        let reading = opened.read()?;
        Ok(Self { opened, reading, resolver: Mutex::default() })
    }

    /// The generation that this view shows; 0 before the first commit.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.reading.generation
    }

    /// Reads a whole file, as it is in this state.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`](crate::Error::InvalidPath) if no file of the root can have this path.
    /// - [`Error::Io`](crate::Error::Io), of kind `NotFound` if this state has no such file.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = self.resolve(path.as_ref())?;
        self.read_resolved(&path)?.ok_or_else(|| self.missing(&path))
    }

    /// Like [`read`](Self::read), but `None` if this state has no such file.
    ///
    /// # Errors
    /// As for [`read`](Self::read), but a missing file is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("a", "1"))?;
    /// let view = store.view()?;
    /// assert_eq!(view.read_if_exists("a")?, Some(b"1".to_vec()));
    /// assert_eq!(view.read_if_exists("b")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_if_exists(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        self.read_resolved(&self.resolve(path.as_ref())?)
    }

    /// Opens a file of this state. It stays readable and unchanged even after the view is closed and
    /// the file replaced.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn open(&self, path: impl AsRef<Path>) -> Result<FileReader> {
        let path = self.resolve(path.as_ref())?;
        match self.reading.open(self.root(), &path)? {
            Some(file) => Ok(FileReader { file }),
            None => Err(self.missing(&path)),
        }
    }

    /// Whether there is a file at `path` in this state.
    ///
    /// # Errors
    /// As for [`read`](Self::read), but a missing file is no error.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = self.resolve(path.as_ref())?;
        Ok(self.reading.open(self.root(), &path)?.is_some())
    }

    /// The paths of the files and directories in a directory, in this state, sorted. `""` and `"."` are
    /// the root. Staged files and the control directory are left out.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`](crate::Error::InvalidPath) if no directory of the root can have this
    ///   path.
    /// - [`Error::Io`](crate::Error::Io), of kind `NotFound` if there is no such directory.
    pub fn list(&self, directory: impl AsRef<Path>) -> Result<Vec<RelativePath>> {
        let directory = self.resolve_directory(directory.as_ref())?;
        let failed = |error| self.root().error(Operation::Read, &directory)(error);
        let mut names: BTreeSet<RelativePath> = self
            .reading
            .list(self.root(), &directory)?
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?
            .into_iter()
            .filter(|entry| !layout::is_reserved(&entry.name))
            .map(|entry| directory.child(&entry.name))
            .filter(|path| !self.root().is_control(path))
            .collect();
        for path in self.reading.overlaid_in(&directory) {
            // A directory that another program has put there stays in the list, and cannot be opened as
            // a file.
            let found = if_found(self.root().fs.metadata(path)).map_err(failed)?;
            if found.is_some_and(|found| found.kind == Kind::Directory) {
                continue;
            }
            match self.reading.open(self.root(), path)? {
                Some(_) => names.insert(path.clone()),
                None => names.remove(path),
            };
        }
        Ok(names.into_iter().collect())
    }

    fn root(&self) -> &Root {
        &self.opened.root
    }

    fn missing(&self, path: &RelativePath) -> Error {
        self.root().error(Operation::Read, path)(io::ErrorKind::NotFound.into())
    }

    fn read_resolved(&self, path: &RelativePath) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.reading.open(self.root(), path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(self.root().error(Operation::Read, path))?;
        Ok(Some(bytes))
    }

    fn resolve(&self, path: &Path) -> Result<RelativePath> {
        self.opened.root.refuse_child()?;
        let path = resolve::relative(self.root(), path)?;
        Ok(guard(&self.resolver).resolve(self.root(), &path)?.path)
    }

    fn resolve_directory(&self, path: &Path) -> Result<RelativePath> {
        self.opened.root.refuse_child()?;
        let is_root = path.components().all(|c| matches!(c, std::path::Component::CurDir));
        if is_root || self.root().below(path).is_some_and(|rest| rest.as_os_str().is_empty()) {
            return Ok(RelativePath::root());
        }
        resolve::resolve_directory(self.root(), &resolve::relative(self.root(), path)?)
    }
}

/// A file of a view, open for reading.
#[derive(Debug)]
pub struct FileReader {
    file: Box<dyn ReadFile>,
}

impl FileReader {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.length)
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for FileReader {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}
