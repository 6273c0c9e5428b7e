//! Files and symlinks that a transaction removes.
//!
//! Nothing is staged for them. The names go at the commit, if they still lead to
//! what was there.

use std::io;
use std::path::Path;

use super::Transaction;
use crate::draft::{Content, Slot};
use crate::error::{Error, Operation, Result};
use crate::fs::Kind;
use crate::path::InvalidPath;
use crate::protocol::check;
use crate::protocol::resolve::Target;
use crate::protocol::root::guard;
use crate::protocol::stage::{Presence, StagedChange};

impl Transaction {
    /// Removes a file or a symlink, and not what that leads to. The commit is a
    /// [`Conflict`](Error::Conflict) if it is gone by then. If others have changed it by then, it goes all the
    /// same: [`read`](Self::read) it first, or [`expect`](Self::expect) it unchanged, to make that a conflict too.
    ///
    /// After this a directory can take its place: the same transaction can [`write`](Self::write) files below its
    /// path, copy or move files there, and make symlinks and directories. The directory is built beside the file,
    /// waited for whatever the durability, and comes as a whole. Where the system can exchange two names, other
    /// programs see the file or the whole directory. Elsewhere nothing is there for a moment. What holds for whole
    /// directories holds for this one: no [`undo`](crate::Store::undo) goes back over it, and
    /// [`verify`](crate::Store::verify) and the [`history`](crate::Store::history) do not look into it. A removal
    /// and then the files below, as two commits, can be undone. It gets the mode of a new directory, and not that of
    /// the file. A file that was touched meanwhile is a conflict. To move a file below its own path, `rename` it
    /// to another name first, and then there. No directory can be moved into it in the same
    /// transaction, and no file into a directory that takes its own place. A file of which the
    /// permissions were copied must have them still, or the commit is a conflict.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if the path cannot be a target.
    /// - [`Error::Io`], of kind `NotFound` if there is no such file.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// store.update(|tx| tx.remove("a"))?;
    /// assert!(!dir.path().join("a").exists());
    /// assert!(store.update(|tx| tx.remove("a")).unwrap_err().is_not_found());
    ///
    /// // A file that becomes a directory.
    /// store.update(|tx| tx.write("notes", "one\ntwo\n"))?;
    /// let mut tx = store.begin()?;
    /// let notes = tx.read_to_string("notes")?;
    /// tx.remove("notes")?;
    /// for note in notes.lines() {
    ///     tx.write(format!("notes/{note}.md"), note)?;
    /// }
    /// tx.commit()?;
    /// assert!(dir.path().join("notes/two.md").is_file());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let target = self.resolve_to_remove(path.as_ref())?;
        let existed = target.existing.is_some();
        let file = target.path.clone();
        if !self.remove_target(target)? {
            let error = self.root().error(Operation::Remove, &file)(io::ErrorKind::NotFound.into());
            return Err(self.named(error));
        }
        if existed {
            guard(&self.draft).preconditions.insert(file, Presence::Exists);
        }
        Ok(())
    }

    /// Removes a file if there is one. Returns whether there was one.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if the path cannot be a target.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.write("a", "1")?;
    /// assert!(tx.remove_if_exists("a")?);
    /// assert!(!tx.remove_if_exists("a")?);
    /// assert!(tx.commit()?.changes().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove_if_exists(&mut self, path: impl AsRef<Path>) -> Result<bool> {
        match self.resolve_to_remove(path.as_ref()) {
            // Nothing can be below a file.
            Err(Error::InvalidPath { reason: InvalidPath::NotADirectory, .. }) => Ok(false),
            target => self.remove_target(target?),
        }
    }

    /// Resolves a path that is to be removed. If no file is visible, a pending manifest may be about to
    /// create it. So pending manifests are finished before the answer is that there is nothing to
    /// remove.
    pub(super) fn resolve_to_remove(&self, path: &Path) -> Result<Target> {
        if let Some(link) = self.find_link(path)? {
            return Ok(link);
        }
        let target = self.resolve(path)?;
        if target.existing.is_some() {
            return Ok(target);
        }
        drop(self.opened.read(&self.caller)?);
        guard(&self.draft).resolver.clear();
        match self.find_link(path)? {
            Some(link) => Ok(link),
            None => self.resolve(path),
        }
    }

    /// Removes a target. Returns whether there is anything to remove.
    fn remove_target(&mut self, target: Target) -> Result<bool> {
        check::may_remove(self.root(), &target).map_err(|error| self.named(error))?;
        let mut draft = guard(&self.draft);
        let path = target.path.clone();
        if draft.tree_above(&path.parent()).is_some() {
            let contradiction = InvalidPath::Contradiction;
            return Err(self.named(Error::invalid(self.root().full(&path), contradiction)));
        }
        let newest = draft.newest(&path).map(|slot| &slot.content);
        if draft.becomes_directory(&path) {
            return Err(self.named(Error::invalid(self.root().full(&path), InvalidPath::Directory)));
        }
        if matches!(newest, Some(Content::Ready(StagedChange::Remove(_)))) {
            // It is removed already, and that removal stays with its precondition.
            return Ok(false);
        }
        if matches!(newest, Some(Content::Ready(change)) if change.makes_directory()) {
            return Err(self.named(Error::invalid(self.root().full(&path), InvalidPath::Directory)));
        }
        let removed = draft.take(&path, u64::MAX);
        if target.existing.is_some_and(|found| found.kind == Kind::Symlink) {
            draft.resolver.own_link(&path);
        }
        if target.existing.is_some() {
            draft.numbers += 1;
            let number = draft.numbers;
            let content = Content::Ready(StagedChange::Remove(target));
            draft.put(Slot { path, number, content });
            return Ok(true);
        }
        Ok(match removed {
            Some(Content::Ready(change)) => !change.is_removal(),
            Some(Content::Kept(_) | Content::Link(_) | Content::Open) => true,
            Some(Content::Unfinished) | None => false,
        })
    }
}
