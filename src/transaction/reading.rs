//! What a transaction reads: one state of the root, with the transaction's own
//! changes over it.
//!
//! Everything that is read from disk is noted in the snapshot, so that the commit
//! can compare. Stages nothing and changes nothing.

use std::io::{self, Read as _};
use std::path::Path;

use super::Transaction;
use crate::draft::{Content, Slot};
use crate::error::{Error, Operation, Result};
use crate::fs::ReadFile;
use crate::path::RelativePath;
use crate::protocol::root::guard;
use crate::protocol::snapshot::{self, Seen};
use crate::protocol::stage::StagedChange;

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
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = self.resolve(path.as_ref())?.path;
        let missing = || self.root().error(Operation::Read, &path)(io::ErrorKind::NotFound.into());
        self.read_target(&path)?.ok_or_else(missing)
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
        self.read_target(&self.resolve(path.as_ref())?.path)
    }

    /// Reads a file whose path is resolved; `None` if there is none.
    fn read_target(&self, path: &RelativePath) -> Result<Option<Vec<u8>>> {
        let staged = {
            let draft = guard(&self.draft);
            match draft.newest(path) {
                Some(Slot { content: Content::Kept(file), .. }) => return Ok(Some(file.bytes.clone())),
                Some(Slot { content: Content::Ready(StagedChange::Write(file)), .. }) => {
                    Some(file.staged.clone())
                }
                Some(Slot { content: Content::Ready(StagedChange::Remove(_)), .. }) => return Ok(None),
                Some(_) => return Err(Error::Unfinished { path: self.root().full(path) }),
                None => None,
            }
        };
        if let Some(staged) = staged {
            let bytes = self.root().fs.open(&staged).and_then(read_all);
            return bytes.map(Some).map_err(self.root().error(Operation::Read, path));
        }
        let (content, seen) = self.see(path)?;
        guard(&self.snapshot).remember(self.root(), path, seen)?;
        Ok(content)
    }

    /// Reads the committed file at `path`, in one state with everything that was read before.
    pub(super) fn see(&self, path: &RelativePath) -> Result<(Option<Vec<u8>>, Seen)> {
        let reading = self.opened.read()?;
        guard(&self.snapshot).join(self.root(), &reading)?;
        // The lock is still held, so this is the state that was joined.
        snapshot::see(self.root(), &reading, path)
    }

    /// Whether something that was read has changed since, so that decisions based on it are void.
    pub(crate) fn has_read_what_changed(&self) -> bool {
        let mut snapshot = guard(&self.snapshot);
        if snapshot.is_empty() {
            return false;
        }
        let checked = self.opened.read().and_then(|reading| snapshot.check(self.root(), &reading));
        checked.is_err_and(|error| error.is_conflict())
    }

    /// Whether the same work, done again, may end in something else than this conflict. It does not if a
    /// file is in the way that was there before, and nothing that was read has changed.
    pub(crate) fn may_be_mended(&self, error: &Error) -> bool {
        let Error::Conflict { path, .. } = error else { return false };
        let is_here = |occupied: &RelativePath| self.root().full(occupied) == *path;
        let was_there = guard(&self.draft).occupied.iter().any(is_here);
        !was_there || self.has_read_what_changed()
    }
}

fn read_all(mut file: Box<dyn ReadFile>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
