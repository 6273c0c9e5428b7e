//! What a transaction reads: one state of the root, with the transaction's own
//! changes over it.
//!
//! Everything that is read from disk is noted in the snapshot, so that the commit
//! can compare. Stages nothing and changes nothing.

use std::io::{self, Read as _};
use std::path::Path;

use super::Transaction;
use crate::draft::{Content, Draft};
use crate::error::{Error, Operation, Result};
use crate::fs::ReadFile;
use crate::listed::{DirEntry, FileInfo};
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::glance::{Answer, Question};
use crate::protocol::read::Reading;
use crate::protocol::resolve;
use crate::protocol::root::guard;
use crate::protocol::snapshot::{self, Seen};
use crate::protocol::stage::{KeptLink, StagedChange, StagedSymlink};
use crate::reader::FileReader;

impl Transaction {
    /// Reads a file as this transaction would leave it, with the transaction's own writes. The commit
    /// is a [`Conflict`](Error::Conflict) if a file that was read from disk has changed by then. The
    /// content decides, or the absence of a file, whatever the file's time says. A file that was
    /// written anew with the same bytes has not changed.
    ///
    /// Everything that a transaction reads is of one state. If others have committed since the last
    /// read and changed what was read, this returns a conflict. So does every later read, and the
    /// commit.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if no file of the root can have this path.
    /// - [`Error::Io`], of kind `NotFound` if there is no such file.
    /// - [`Error::Conflict`] if something that was read has changed.
    /// - Those of [`Store::view`](crate::Store::view).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("a", "1"))?;
    /// let mut tx = store.begin()?;
    /// assert_eq!(tx.read("a")?, b"1");
    /// tx.write("a", "2")?;
    /// assert_eq!(tx.read("a")?, b"2");
    /// // Others have changed what was read from disk.
    /// store.update(|other| other.write("a", "3"))?;
    /// assert!(tx.commit().unwrap_err().is_conflict());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = self.resolve_to_read(path.as_ref())?;
        self.read_target(&path)?.ok_or_else(|| self.missing(&path))
    }

    /// Like [`read`](Self::read), but `None` if there is no such file. The commit is a
    /// [`Conflict`](Error::Conflict) if there is one by then.
    ///
    /// # Errors
    /// As for [`read`](Self::read), but a missing file is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// let list = tx.read_if_exists("list.txt")?.unwrap_or_default();
    /// tx.write("list.txt", [list.as_slice(), b"one more\n"].concat())?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("list.txt"))?, b"one more\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_if_exists(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        self.read_target(&self.resolve_to_read(path.as_ref())?)
    }

    /// Like [`read`](Self::read), as text.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and [`Error::Io`] of kind `InvalidData` if the file is not UTF-8.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.write("a", "text")?;
    /// assert_eq!(tx.read_to_string("a")?, "text");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_to_string(&self, path: impl AsRef<Path>) -> Result<String> {
        let path = self.resolve_to_read(path.as_ref())?;
        let bytes = self.read_target(&path)?.ok_or_else(|| self.missing(&path))?;
        self.root().text(&path, bytes)
    }

    /// Opens a file as this transaction would leave it. A file on disk is read once now, so that the
    /// commit can tell whether it has changed, and need not fit into memory. It stays readable and
    /// unchanged when others replace it.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("log", "one\ntwo\n"))?;
    /// use std::io::{BufRead, BufReader};
    ///
    /// let tx = store.begin()?;
    /// assert_eq!(BufReader::new(tx.open("log")?).lines().count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(&self, path: impl AsRef<Path>) -> Result<FileReader> {
        let path = self.resolve_to_read(path.as_ref())?;
        self.open_resolved(&path).map_err(|error| self.named(error))
    }

    fn open_resolved(&self, given: &RelativePath) -> Result<FileReader> {
        let path = &self.on_disk(given).ok_or_else(|| self.missing(given))?;
        match self.own_content(path)? {
            Some(Own::Kept(bytes)) => Ok(FileReader::in_memory(bytes)),
            Some(Own::Staged(staged)) => {
                let opened = self.root().fs.open(&staged);
                opened.map(FileReader::new).map_err(self.root().error(Operation::Read, path))
            }
            Some(Own::Removed) => Err(self.missing(path)),
            None => {
                let reading = self.join()?;
                let (file, seen) = snapshot::open(self.root(), &reading, path)?;
                guard(&self.snapshot).remember(self.root(), path, seen)?;
                file.map(FileReader::new).ok_or_else(|| self.missing(path))
            }
        }
    }

    /// Whether there would be a file or a directory at `path` after this transaction. The commit is a
    /// [`Conflict`](Error::Conflict) if that has changed by then on disk. New content alone is none.
    /// Symlinks are followed.
    ///
    /// This, [`metadata`](Self::metadata) and [`list`](Self::list) are of one state with everything that
    /// is [read](Self::read). A directory that another transaction has made for its files is seen as
    /// soon as it is made.
    ///
    /// # Errors
    /// As for [`read`](Self::read), but what is missing is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// if !tx.exists("config.json")? {
    ///     tx.write("config.json", "{}")?;
    /// }
    /// assert!(tx.exists("config.json")?);
    /// tx.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        let Some(path) = self.on_disk(&self.resolve_any(path.as_ref())?) else { return Ok(false) };
        if let Some(own) = self.own_info(&path)? {
            return Ok(own.is_some());
        }
        Ok(self.glance(&path, Question::Kind)? != Answer::Kind(None))
    }

    /// What would be at `path` after this transaction, without reading it. The commit is a
    /// [`Conflict`](Error::Conflict) if its kind, its length, its time or its mode has changed on disk
    /// by then. Symlinks are followed.
    ///
    /// # Errors
    /// As for [`read`](Self::read). A directory is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("a", "123"))?;
    /// let tx = store.begin()?;
    /// assert!(tx.metadata("a")?.is_file());
    /// assert_eq!(tx.metadata("a")?.length(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<FileInfo> {
        let given = self.resolve_any(path.as_ref())?;
        let path = self.on_disk(&given).ok_or_else(|| self.missing(&given))?;
        let found = match self.own_info(&path)? {
            Some(own) => own,
            None => match self.glance(&path, Question::Info)? {
                Answer::Info(found) => found,
                Answer::Kind(_) | Answer::Names(_) | Answer::Link(_) => None,
            },
        };
        found.ok_or_else(|| self.missing(&path))
    }

    /// The paths of the files and directories that would be in a directory after this transaction,
    /// sorted. The commit is a [`Conflict`](Error::Conflict) if others have added a name to it or removed
    /// one. `""` and `"."` are the root.
    ///
    /// # Errors
    /// As for [`read`](Self::read), with kind `NotFound` if there is no such directory.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("d/a", "1"))?;
    /// let mut tx = store.begin()?;
    /// tx.write("d/b", "1")?;
    /// let listed: Vec<_> = tx.list("d")?.iter().map(ToString::to_string).collect();
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
    /// let mut tx = store.begin()?;
    /// tx.write("d/a", "1")?;
    /// assert_eq!(tx.entries("")?[0].kind(), cosave::FileKind::Directory);
    /// assert_eq!(tx.entries("d")?[0].kind(), cosave::FileKind::File);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn entries(&self, directory: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let directory = self.resolve_any(directory.as_ref())?;
        let place = self.on_disk(&directory).ok_or_else(|| self.missing(&directory))?;
        let names = match self.glance(&place, Question::Names)? {
            Answer::Names(names) => names,
            Answer::Kind(_) | Answer::Info(_) | Answer::Link(_) => None,
        };
        let names = guard(&self.draft).names_in(&directory, names);
        let names = names.ok_or_else(|| self.not_listed(&directory))?;
        Ok(names.into_iter().map(|(name, kind)| DirEntry::new(directory.child(name), kind)).collect())
    }

    /// Why there are no names in a directory.
    fn not_listed(&self, directory: &RelativePath) -> Error {
        match self.exists(directory) {
            Ok(true) => self.named(Error::invalid(self.root().full(directory), InvalidPath::NotADirectory)),
            _ => self.missing(directory),
        }
    }

    /// What this transaction itself has made of a path. The inner `None` is a removal.
    fn own_info(&self, path: &RelativePath) -> Result<Option<Option<FileInfo>>> {
        let draft = guard(&self.draft);
        if draft.becomes_directory(path) {
            return Ok(Some(Some(FileInfo::directory())));
        }
        Ok(match draft.newest(path).map(|slot| &slot.content) {
            Some(Content::Kept(file)) => {
                let existing = file.target.existing.map(|found| found.mode);
                let mode = file.target.attributes.mode.or(existing);
                Some(Some(FileInfo::uncommitted(file.bytes.len() as u64, mode)))
            }
            Some(Content::Ready(StagedChange::Write(file))) => {
                Some(Some(FileInfo::uncommitted(file.length(), Some(file.mode()))))
            }
            Some(
                Content::Link(KeptLink { to, .. })
                | Content::Ready(StagedChange::Link(StagedSymlink { to, .. })),
            ) => Some(Some(FileInfo::link(to))),
            Some(Content::Ready(change)) if change.is_removal() => Some(None),
            Some(Content::Ready(_)) => Some(Some(FileInfo::directory())),
            Some(Content::Open | Content::Unfinished) => {
                return Err(Error::Unfinished { path: self.root().full(path).into() });
            }
            None => draft.makes_directory(path).then(|| Some(FileInfo::directory())),
        })
    }

    fn own_content(&self, path: &RelativePath) -> Result<Option<Own>> {
        let draft = guard(&self.draft);
        if draft.becomes_directory(path) {
            return Err(Error::invalid(self.root().full(path), InvalidPath::Directory));
        }
        Ok(match draft.newest(path).map(|slot| &slot.content) {
            Some(Content::Kept(file)) => Some(Own::Kept(file.bytes.clone())),
            Some(Content::Ready(StagedChange::Write(file))) => Some(Own::Staged(file.staged.clone())),
            Some(Content::Link(_) | Content::Ready(StagedChange::Link(_))) => {
                return Err(Error::invalid(self.root().full(path), InvalidPath::Symlink));
            }
            Some(Content::Ready(change)) if change.is_removal() => Some(Own::Removed),
            Some(Content::Ready(_)) => {
                return Err(Error::invalid(self.root().full(path), InvalidPath::Directory));
            }
            Some(Content::Open | Content::Unfinished) => {
                return Err(Error::Unfinished { path: self.root().full(path).into() });
            }
            None => None,
        })
    }

    /// Where a path is on disk, as this transaction moves trees; `None` if nothing will be there.
    pub(super) fn on_disk(&self, path: &RelativePath) -> Option<RelativePath> {
        guard(&self.draft).on_disk(path)
    }

    fn missing(&self, path: &RelativePath) -> Error {
        self.named(self.root().error(Operation::Read, path)(io::ErrorKind::NotFound.into()))
    }

    /// Where a path leads to a file, or to nothing: so it is below a file.
    pub(super) fn resolve_to_read(&self, path: &Path) -> Result<RelativePath> {
        match self.resolve(path) {
            Err(Error::InvalidPath { reason: InvalidPath::NotADirectory, .. }) => self.resolve_any(path),
            resolved => resolved.map(|target| target.path),
        }
    }

    pub(super) fn resolve_any(&self, path: &Path) -> Result<RelativePath> {
        self.root().refuse_child()?;
        let mut draft = guard(&self.draft);
        self.refuse_if_over(&draft)?;
        // It looks at the rest of the draft, and clears nothing there.
        let mut resolver = std::mem::take(&mut draft.resolver);
        let resolved = resolve::resolve_any(self.root(), &*draft, &mut resolver, path);
        draft.resolver = resolver;
        self.note_followed(&mut draft);
        let resolved = resolved.map_err(|error| error.given_as(path))?;
        if !resolve::is_root(self.root(), path) {
            self.note(&resolved, path);
        }
        Ok(resolved)
    }

    /// Reads a file whose path is resolved; `None` if there is none.
    fn read_target(&self, path: &RelativePath) -> Result<Option<Vec<u8>>> {
        self.read_own_or_committed(path).map_err(|error| self.named(error))
    }

    fn read_own_or_committed(&self, path: &RelativePath) -> Result<Option<Vec<u8>>> {
        let Some(path) = &self.on_disk(path) else { return Ok(None) };
        match self.own_content(path)? {
            Some(Own::Kept(bytes)) => Ok(Some(bytes)),
            Some(Own::Staged(staged)) => {
                let bytes = self.root().fs.open(&staged).and_then(read_all);
                bytes.map(Some).map_err(self.root().error(Operation::Read, path))
            }
            Some(Own::Removed) => Ok(None),
            None => {
                let (content, seen) = self.see(path)?;
                guard(&self.snapshot).remember(self.root(), path, seen)?;
                Ok(content)
            }
        }
    }

    /// Begins to read the newest state, if everything that was read before is the same in it.
    pub(super) fn join(&self) -> Result<Reading> {
        let reading = self.opened.read(&self.caller)?;
        let staging =
            |draft: &Draft| draft.staging.as_ref().map(|staging| staging.cleanup.directories().to_vec());
        let made = staging(&guard(&self.draft)).unwrap_or_default();
        let mut snapshot = guard(&self.snapshot);
        snapshot.glances.own(&made);
        snapshot.join(self.root(), &reading)?;
        Ok(reading)
    }

    /// Looks at `path` in one state with everything that was read before.
    pub(super) fn glance(&self, path: &RelativePath, question: Question) -> Result<Answer> {
        let reading = self.join()?;
        let glanced = guard(&self.snapshot).glance(self.root(), &reading, path, question);
        glanced.map_err(|error| self.named(error))
    }

    /// Reads the committed file at `path`, in one state with everything that was read before.
    pub(super) fn see(&self, path: &RelativePath) -> Result<(Option<Vec<u8>>, Seen)> {
        let reading = self.join()?;
        // The lock is still held, so this is the state that was joined.
        snapshot::see(self.root(), &reading, path).map_err(|error| self.named(error))
    }

    /// Whether something that was read has changed since, so that decisions based on it are void.
    pub(crate) fn has_read_what_changed(&self) -> bool {
        let mut snapshot = guard(&self.snapshot);
        if snapshot.is_empty() {
            return false;
        }
        let checked =
            self.opened.read(&self.caller).and_then(|reading| snapshot.check(self.root(), &reading));
        checked.is_err_and(|error| error.is_conflict())
    }

    /// Whether the same work, done again, may end in something else than this conflict. It does not if a
    /// file is in the way that was there before, and nothing that was read has changed.
    pub(crate) fn may_be_mended(&self, error: &Error) -> bool {
        let Error::Conflict { path, .. } = error else { return false };
        let is_here = |occupied: &RelativePath| *path == self.root().full(occupied);
        let was_there = guard(&self.draft).occupied.iter().any(is_here);
        !was_there || self.has_read_what_changed()
    }
}

fn read_all(mut file: Box<dyn ReadFile>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A path's content that the transaction itself has made.
enum Own {
    Kept(Vec<u8>),
    Staged(RelativePath),
    Removed,
}
