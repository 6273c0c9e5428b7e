//! A directory of a transaction that gets more than its name: a mode.

use std::path::{Path, PathBuf};

use super::Transaction;
use crate::error::{Error, Reason, Result};
use crate::manifest::NewDirectory;
use crate::place::Place;

/// A directory of a transaction, before it is made: what it gets.
///
/// [`Transaction::directory`] makes one.
#[derive(Debug)]
#[must_use = "nothing is made before `create`"]
pub struct DirectoryBuilder<'a> {
    transaction: &'a mut Transaction,
    path: PathBuf,
    new: NewDirectory,
}

impl DirectoryBuilder<'_> {
    /// Gives the directory these permission bits, whatever the umask says. A set-group-ID bit that it
    /// inherits from the directory above stays. Its owner must have all rights. A system without permission bits
    /// ignores the mode.
    ///
    /// Nobody else can enter the directory before it has its mode, wherever a crash comes. So what is staged in it
    /// is as private as what is committed.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)]
    /// # {
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| {
    ///     tx.directory("vault").mode(0o700).create()?;
    ///     tx.write("vault/key", "secret")
    /// })?;
    /// use std::os::unix::fs::PermissionsExt;
    /// assert_eq!(std::fs::metadata(dir.path().join("vault"))?.permissions().mode() & 0o777, 0o700);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mode(mut self, mode: u32) -> Self {
        self.new.mode = Some(mode);
        self
    }

    /// Says for which group the mode's bits hold. Another group gets only the rights of all others.
    pub(super) fn of_group(mut self, group: Option<u32>) -> Self {
        self.new.group = group;
        self
    }

    /// Makes the directory, as [`Transaction::create_dir`] does. With a mode it is always this transaction that
    /// makes it: if others have made it by then, the commit is a [`Conflict`](Error::Conflict), and so is a
    /// write into it. A mode is said before anything is written into the directory.
    ///
    /// # Errors
    /// As for [`Transaction::create_dir`], and [`Error::Unsupported`] if no directory is made with this mode.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.directory("vault").mode(0o700).create())?;
    /// assert!(dir.path().join("vault").is_dir());
    /// let again = store.update(|tx| tx.directory("vault").mode(0o700).create());
    /// assert!(again.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(self) -> Result<()> {
        let Self { transaction, path, new } = self;
        if new.mode.is_some_and(|mode| !NewDirectory::can_have(mode)) {
            let place = Place::from(transaction.root().path().join(&path)).given_as(&path);
            return Err(Error::Unsupported { path: place, reason: Reason::DirectoryMode });
        }
        transaction.create_dir_as(&path, new)
    }
}

impl Transaction {
    /// Begins a directory that gets a mode.
    ///
    /// The mode of a directory that is there cannot be changed by a transaction.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.directory("keys").mode(0o700).create()?;
    /// tx.write("keys/1", "secret")?;
    /// let shown: Vec<_> = tx.changes()?.iter().map(ToString::to_string).collect();
    /// assert_eq!(shown, ["create  keys/ (mode 700)", "create  keys/1 (6 bytes)"]);
    /// tx.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn directory(&mut self, path: impl AsRef<Path>) -> DirectoryBuilder<'_> {
        let path = path.as_ref().to_path_buf();
        DirectoryBuilder { transaction: self, path, new: NewDirectory::default() }
    }
}
