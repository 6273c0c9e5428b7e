//! Views: one consistent state of a root, and files that stay readable after
//! the view is closed.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Operation, Result};
use crate::fs::{Metadata, ReadFile};
use crate::generation::Generation;
use crate::listed::{DirEntry, FileInfo, FileKind};
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::caller::Caller;
use crate::protocol::open::Opened;
use crate::protocol::resolve::{self, Lookup, Resolver};
use crate::protocol::root::{Root, guard};
#[cfg(feature = "object_store")]
use crate::protocol::snapshot::{self, Found};
use crate::protocol::state::State;
use crate::reader::FileReader;
use crate::spelling::Spellings;

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
    state: Box<dyn Shown>,
    resolver: Mutex<Resolver>,
    /// How the paths were given.
    spellings: Spellings,
}

/// A state that a view can show.
trait Shown: State + Lookup + Send + Sync {}

impl<T: State + Lookup + Send + Sync> Shown for T {}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root().debug(f, "View").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn new(opened: Arc<Opened>, caller: &Caller) -> Result<Self> {
        let reading = opened.read(caller)?;
        Ok(Self::of(opened, reading))
    }

    /// A view of any state.
    pub(crate) fn of(opened: Arc<Opened>, state: impl State + Lookup + Send + Sync + 'static) -> Self {
        let (resolver, spellings) = (Mutex::default(), Spellings::default());
        Self { opened, state: Box::new(state), resolver, spellings }
    }

    /// The generation that this view shows; 0 before the first commit.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let view = store.view()?;
    /// assert_eq!(view.generation(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.state.generation()
    }

    /// Reads a whole file, as it is in this state.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`](crate::Error::InvalidPath) if no file of the root can have this path.
    /// - [`Error::Io`](crate::Error::Io), of kind `NotFound` if this state has no such file.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("a", "1"))?;
    /// let view = store.view()?;
    /// assert_eq!(view.read("a")?, b"1");
    /// assert!(view.read("b").unwrap_err().is_not_found());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// Where Windows refuses to replace a file that is open, a commit that replaces it ends with
    /// [`Error::NotApplied`](crate::Error::NotApplied) instead. It is finished once the file is closed.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("a", "old"))?;
    /// let file = store.view()?.open("a")?;
    /// # if cfg!(not(windows)) {
    /// store.update(|tx| tx.write("a", "new"))?;
    /// # }
    /// assert_eq!(std::io::read_to_string(file)?, "old");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(&self, path: impl AsRef<Path>) -> Result<FileReader> {
        let path = self.resolve(path.as_ref())?;
        let file = self.open_resolved(&path)?.ok_or_else(|| self.missing(&path))?;
        Ok(FileReader::new(file))
    }

    /// Like [`open`](Self::open), but `None` if this state has no such file.
    ///
    /// # Errors
    /// As for [`read`](Self::read), but a missing file is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// assert!(store.view()?.open_if_exists("a")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_if_exists(&self, path: impl AsRef<Path>) -> Result<Option<FileReader>> {
        let path = self.resolve(path.as_ref())?;
        Ok(self.open_resolved(&path)?.map(FileReader::new))
    }

    /// Like [`read`](Self::read), as text.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and [`Error::Io`](crate::Error::Io) of kind `InvalidData` if the file
    /// is not UTF-8.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("a", "text"))?;
    /// assert_eq!(store.view()?.read_to_string("a")?, "text");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_to_string(&self, path: impl AsRef<Path>) -> Result<String> {
        let path = self.resolve(path.as_ref())?;
        let bytes = self.read_resolved(&path)?.ok_or_else(|| self.missing(&path))?;
        self.root().text(&path, bytes)
    }

    /// Whether there is a file or a directory at `path` in this state. A symlink is followed, and one
    /// that leads nowhere does not exist.
    ///
    /// # Errors
    /// As for [`read`](Self::read), but what is missing is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("d/a", "1"))?;
    /// let view = store.view()?;
    /// assert!(view.exists("d")? && view.exists("d/a")? && !view.exists("d/b")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = self.resolve_any(path.as_ref())?;
        Ok(self.look(&path)?.is_some())
    }

    /// What is at `path` in this state, without reading it. A symlink is followed.
    ///
    /// # Errors
    /// As for [`read`](Self::read). A directory is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("d/a", "123"))?;
    /// let view = store.view()?;
    /// assert_eq!(view.metadata("d/a")?.length(), 3);
    /// assert!(view.metadata("d")?.is_directory());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<FileInfo> {
        let path = self.resolve_any(path.as_ref())?;
        let found = self.look(&path)?.ok_or_else(|| self.missing(&path))?;
        Ok(found.into())
    }

    /// Where the symlink at `path` leads to in this state, as written in it. The symlink itself is not
    /// followed, those above it are.
    ///
    /// # Errors
    /// As for [`read`](Self::read), with kind `NotFound` if nothing is there, and `InvalidInput` if it is no
    /// symlink.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)]
    /// # {
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.symlink("current", "releases/7"))?;
    /// assert_eq!(store.view()?.read_link("current")?, std::path::Path::new("releases/7"));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        self.opened.root.refuse_child()?;
        let given = path.as_ref();
        let path = resolve::relative(self.root(), given)?;
        let resolved = guard(&self.resolver).resolve_name(self.root(), &*self.state, &path);
        let path = self.note(resolved.map(|target| target.path), given)?;
        if let Some(to) = self.state.read_link(self.root(), &path)? {
            return Ok(to);
        }
        self.look(&path)?.ok_or_else(|| self.missing(&path))?;
        Err(self.root().error(Operation::Read, &path)(io::ErrorKind::InvalidInput.into()))
    }

    /// The paths of the files and directories in a directory, in this state, sorted. `""` and `"."` are
    /// the root. Staged files and the control directory are left out.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`](crate::Error::InvalidPath) if no directory of the root can have this
    ///   path.
    /// - [`Error::Io`](crate::Error::Io), of kind `NotFound` if there is no such directory.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| { tx.write("d/b", "1")?; tx.write("d/a", "1") })?;
    /// let listed = store.view()?.list("d")?;
    /// let listed: Vec<_> = listed.iter().map(ToString::to_string).collect();
    /// assert_eq!(listed, ["d/a", "d/b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn list(&self, directory: impl AsRef<Path>) -> Result<Vec<RelativePath>> {
        Ok(self.entries(directory)?.into_iter().map(DirEntry::into_path).collect())
    }

    /// Like [`list`](Self::list), and says of each whether it is a file, a directory or a symlink.
    ///
    /// # Errors
    /// As for [`list`](Self::list).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("d/a", "1"))?;
    /// let found = store.view()?.entries("")?;
    /// assert_eq!(found[0].kind(), cosave::FileKind::Directory);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn entries(&self, directory: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let directory = self.resolve_directory(directory.as_ref())?;
        self.entries_in(&directory)?.ok_or_else(|| self.missing(&directory))
    }

    /// Everything below a directory, in this state: each directory before what is in it, and otherwise
    /// sorted. Symlinks are listed, and not followed.
    ///
    /// # Errors
    /// As for [`list`](Self::list).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("d/e/a", "1"))?;
    /// use cosave::FileKind::{Directory, File};
    ///
    /// let found = store.view()?.walk("")?;
    /// let found: Vec<_> = found.iter().map(|entry| (entry.to_string(), entry.kind())).collect();
    /// let expected = [("d", Directory), ("d/e", Directory), ("d/e/a", File)];
    /// assert_eq!(found, expected.map(|(path, kind)| (path.to_owned(), kind)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn walk(&self, directory: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let mut ahead = self.entries(directory)?;
        ahead.reverse();
        let mut walked = Vec::new();
        while let Some(entry) = ahead.pop() {
            if entry.kind() == FileKind::Directory {
                // Another program may have removed it meanwhile.
                let below = self.entries_in(entry.path())?.unwrap_or_default();
                ahead.extend(below.into_iter().rev());
            }
            walked.push(entry);
        }
        Ok(walked)
    }

    /// Finds the file at `path`, to be read after the view is closed.
    #[cfg(feature = "object_store")]
    pub(crate) fn find(&self, path: &Path) -> Result<Option<Found>> {
        let path = self.resolve(path)?;
        snapshot::find(self.root(), &*self.state, &path).map_err(|error| self.spellings.named(error))
    }

    /// What is at `path`, a symlink followed; `None` if there is nothing.
    #[cfg(feature = "object_store")]
    pub(crate) fn look_at(&self, path: &Path) -> Result<Option<Metadata>> {
        self.look(&self.resolve_any(path)?)
    }

    fn entries_in(&self, directory: &RelativePath) -> Result<Option<Vec<DirEntry>>> {
        let names = self.state.names(self.root(), directory)?;
        let entry = |(name, kind)| DirEntry::new(directory.child(name), kind);
        Ok(names.map(|names| names.into_iter().map(entry).collect()))
    }

    fn look(&self, path: &RelativePath) -> Result<Option<Metadata>> {
        State::look(&*self.state, self.root(), path)
    }

    fn root(&self) -> &Root {
        &self.opened.root
    }

    fn missing(&self, path: &RelativePath) -> Error {
        self.spellings.named(self.root().error(Operation::Read, path)(io::ErrorKind::NotFound.into()))
    }

    fn read_resolved(&self, path: &RelativePath) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open_resolved(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let unread = self.root().error(Operation::Read, path);
        file.read_to_end(&mut bytes).map_err(|error| self.spellings.named(unread(error)))?;
        Ok(Some(bytes))
    }

    fn open_resolved(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        self.state.open(self.root(), path).map_err(|error| self.spellings.named(error))
    }

    fn resolve(&self, path: &Path) -> Result<RelativePath> {
        self.opened.root.refuse_child()?;
        let relative = resolve::relative(self.root(), path)?;
        let resolved = guard(&self.resolver).resolve_in(self.root(), &*self.state, &relative);
        let resolved = match resolved {
            // Nothing can be below a file.
            Err(Error::InvalidPath { reason: InvalidPath::NotADirectory, .. }) => Ok(relative),
            resolved => resolved.map(|target| target.path),
        };
        self.note(resolved, path)
    }

    /// Notes where a path leads, or names it in the error.
    fn note(&self, resolved: Result<RelativePath>, given: &Path) -> Result<RelativePath> {
        let path = resolved.map_err(|error| error.given_as(given))?;
        if !path.is_root() {
            self.spellings.note(path.as_path(), given, || self.root().full(&path));
        }
        Ok(path)
    }

    fn resolve_any(&self, path: &Path) -> Result<RelativePath> {
        self.opened.root.refuse_child()?;
        let resolved = resolve::resolve_any(self.root(), &*self.state, &mut guard(&self.resolver), path);
        self.note(resolved, path)
    }

    fn resolve_directory(&self, path: &Path) -> Result<RelativePath> {
        self.opened.root.refuse_child()?;
        if resolve::is_root(self.root(), path) {
            return Ok(RelativePath::root());
        }
        let relative = resolve::relative(self.root(), path)?;
        let resolver = &mut guard(&self.resolver);
        let resolved = resolve::resolve_directory(self.root(), &*self.state, resolver, &relative);
        self.note(resolved, path)
    }
}
