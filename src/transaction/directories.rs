//! Directories that a transaction makes and removes.
//!
//! A directory that files need is made when they are staged, and needs nothing
//! here. These are directories that matter by themselves: made empty, removed
//! empty, or removed because the transaction has emptied them. They are made
//! and removed after the commit point, and recovery repeats both.

use std::io;
use std::path::Path;

use super::Transaction;
use crate::draft::{Content, Slot};
use crate::error::{Error, Operation, Result};
use crate::fs::Kind;
use crate::manifest::NewDirectory;
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::check;
use crate::protocol::resolve::{Attributes, Target};
use crate::protocol::root::guard;
use crate::protocol::stage::{Presence, StagedChange};
use crate::pruning::goes;

impl Transaction {
    /// Makes an empty directory. The directories that files need are made anyway.
    ///
    /// It has the mode that `std::fs::create_dir` gives it, and is not there before the commit, unless this
    /// transaction stages a file in it. If others have made it by then, that is as good. If one of
    /// them is a transaction that made it for its own files and is aborted, it takes the directory with it
    /// while it is empty. [`directory`](Self::directory) gives it a mode.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if the path cannot be a directory's.
    /// - [`Error::Io`], of kind `AlreadyExists` if something is there, and `NotFound` if the directory
    ///   above is missing.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.create_dir("cache")?;
    /// tx.create_dir_all("logs/old/archive")?;
    /// tx.write("settings", "cache = 'cache'")?;
    /// tx.commit()?;
    /// assert!(dir.path().join("cache").is_dir() && dir.path().join("logs/old/archive").is_dir());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_dir(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.create_dir_as(path.as_ref(), NewDirectory::default())
    }

    pub(super) fn create_dir_as(&mut self, path: &Path, new: NewDirectory) -> Result<()> {
        self.root().may_collect()?;
        let mut target = self.resolve_name(path)?;
        let failed = |kind| self.failed(Operation::Create, &target.path, kind);
        // One that this transaction removes stays in its place, with the mode that it has.
        let stays = || {
            let draft = guard(&self.draft);
            target.existing.is_some() && !draft.clears(&target.path) && !draft.is_gone(&target.path)
        };
        if self.is_there(&target) || new.mode.is_some() && stays() {
            return Err(failed(io::ErrorKind::AlreadyExists));
        }
        let above = target.path.parent();
        if !above.is_root() && !self.is_directory(&above)? {
            return Err(failed(io::ErrorKind::NotFound));
        }
        let NewDirectory { mode, group } = new;
        target.attributes = Attributes { mode, group, ..Attributes::default() };
        self.make_directory(target)
    }

    /// Makes an empty directory, and all missing ones above it. If it is there already, or a symlink leads to
    /// one, nothing is made, and [`prune_empty_parents`](Self::prune_empty_parents) leaves it in place.
    ///
    /// # Errors
    /// As for [`create_dir`](Self::create_dir), but an existing directory is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.create_dir_all("a/b/c")?;
    /// tx.create_dir_all("a/b")?;
    /// tx.commit()?;
    /// assert!(dir.path().join("a/b/c").is_dir());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_dir_all(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.root().may_collect()?;
        let target = self.resolve_name(path.as_ref())?;
        if self.leads_to_directory(path.as_ref(), &target)? {
            return Ok(());
        }
        for directory in target.path.chain() {
            if self.is_directory(&directory)? {
                guard(&self.draft).asked_for.insert(directory);
                continue;
            }
            let is_cleared = guard(&self.draft).clears(&directory);
            let found = self.root().look(&directory)?.filter(|_| !is_cleared);
            let nearest = if found.is_some() { directory.parent() } else { target.nearest.clone() };
            let missing = Target::new(directory, found, nearest);
            if self.is_there(&missing) {
                return Err(
                    self.named(Error::invalid(self.root().full(&target.path), InvalidPath::NotADirectory))
                );
            }
            self.make_directory(missing)?;
        }
        Ok(())
    }

    /// Removes a directory that is empty, or that holds nothing but what this transaction has removed. The
    /// commit is a [`Conflict`](Error::Conflict) if anything else is in it by then, or if it is gone.
    /// A staged file of another transaction counts too. If somebody puts something there after
    /// the commit point, the directory stays.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if no directory can be removed here.
    /// - [`Error::Io`], of kind `NotFound` if there is none, and `DirectoryNotEmpty`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("plugin/main.lua", "print 1"))?;
    /// let mut tx = store.begin()?;
    /// tx.remove("plugin/main.lua")?;
    /// tx.remove_dir("plugin")?;
    /// tx.commit()?;
    /// assert!(!dir.path().join("plugin").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove_dir(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.root().may_collect()?;
        let target = self.resolve_name(path.as_ref())?;
        let failed = |kind| self.failed(Operation::Remove, &target.path, kind);
        if !self.is_there(&target) {
            return Err(failed(io::ErrorKind::NotFound));
        }
        if !self.is_directory(&target.path)? {
            return Err(
                self.named(Error::invalid(self.root().full(&target.path), InvalidPath::NotADirectory))
            );
        }
        if self.has_something_in(&target)? {
            return Err(failed(io::ErrorKind::DirectoryNotEmpty));
        }
        if guard(&self.draft).take_built(&target.path) {
            // The file whose place it would have taken still goes.
            return Ok(());
        }
        if target.existing.is_none() {
            guard(&self.draft).take(&target.path, u64::MAX);
            return Ok(());
        }
        let allowed = check::may_remove_directory(self.root(), &target.path);
        allowed.map_err(|error| self.named(error))?;
        let directory = target.path.clone();
        self.change_directory(target, StagedChange::RemoveDirectory);
        guard(&self.draft).preconditions.insert(directory, Presence::Emptied);
        Ok(())
    }

    /// Lets the directories that this transaction's removals and moves empty go with the commit, and those
    /// above that are empty then. Never the root, nor what [`create_dir_all`](Self::create_dir_all) was asked
    /// for. One in which something else is found by then stays. So does one that two transactions empty at the
    /// same time: each can leave it to the other. What moves or removes a whole directory
    /// ([`remove_dir_all`](Self::remove_dir_all), [`rename`](Self::rename) of a directory) does not count.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("cache/a/b/entry", ""))?;
    /// let mut tx = store.begin()?;
    /// tx.remove("cache/a/b/entry")?;
    /// tx.prune_empty_parents();
    /// tx.commit()?;
    /// assert!(!dir.path().join("cache").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prune_empty_parents(&mut self) {
        guard(&self.draft).prunes = true;
    }

    fn failed(&self, operation: Operation, path: &RelativePath, kind: io::ErrorKind) -> Error {
        self.named(self.root().error(operation, path)(kind.into()))
    }

    /// The directory above must stay until the commit, if it is there now. As a precondition it also keeps
    /// this commit out of a batch with one that removes it.
    fn make_directory(&self, target: Target) -> Result<()> {
        check::may_make_directory(self.root(), &target).map_err(|error| self.named(error))?;
        if let Some(reason) = guard(&self.draft).forbids(&target.path) {
            return Err(self.named(Error::invalid(self.root().full(&target.path), reason)));
        }
        let above = target.path.parent();
        if guard(&self.draft).is_gone(&target.path) {
            self.make_in_place_of_file(target);
        } else {
            self.change_directory(target, StagedChange::CreateDirectory);
        }
        if !above.is_root() && self.root().look(&above)?.is_some() {
            guard(&self.draft).preconditions.entry(above).or_insert(Presence::Exists);
        }
        Ok(())
    }

    /// The file still goes, so both changes stay.
    fn make_in_place_of_file(&self, target: Target) {
        let mut draft = guard(&self.draft);
        draft.numbers += 1;
        let (path, number) = (target.path.clone(), draft.numbers);
        let content = Content::Ready(StagedChange::CreateDirectory(Target { existing: None, ..target }));
        draft.put(Slot { path, number, content });
    }

    /// Puts a change of a directory in the place of every earlier change of this path.
    pub(super) fn change_directory(&self, target: Target, change: impl FnOnce(Target) -> StagedChange) {
        let mut draft = guard(&self.draft);
        let path = target.path.clone();
        draft.take(&path, u64::MAX);
        draft.asked_for.remove(&path);
        draft.numbers += 1;
        let number = draft.numbers;
        draft.put(Slot { path, number, content: Content::Ready(change(target)) });
    }

    /// Whether anything is at a path, as this transaction would leave it.
    pub(super) fn is_there(&self, target: &Target) -> bool {
        let draft = guard(&self.draft);
        match draft.newest(&target.path).map(|slot| &slot.content) {
            _ if draft.becomes_directory(&target.path) => true,
            Some(Content::Ready(change)) => !change.is_removal(),
            Some(_) => true,
            None => target.existing.is_some(),
        }
    }

    /// Whether a path is that of a symlink to a directory, which is as good as a directory.
    fn leads_to_directory(&self, given: &Path, target: &Target) -> Result<bool> {
        let is_link = target.existing.is_some_and(|found| found.kind == Kind::Symlink);
        if !is_link || guard(&self.draft).newest(&target.path).is_some() {
            return Ok(false);
        }
        match self.resolve_any(given) {
            Ok(directory) if self.is_directory(&directory)? => {
                guard(&self.draft).asked_for.insert(directory);
                Ok(true)
            }
            // What is wrong with the path is said by whoever makes a directory there.
            _ => Ok(false),
        }
    }

    /// Whether a directory is at a path, as this transaction would leave it, or is made for its files.
    fn is_directory(&self, path: &RelativePath) -> Result<bool> {
        let draft = guard(&self.draft);
        if draft.becomes_directory(path) {
            return Ok(true);
        }
        if let Some(slot) = draft.newest(path) {
            return Ok(matches!(&slot.content, Content::Ready(change) if change.makes_directory()));
        }
        if self.root().look(path)?.is_some_and(|found| found.kind == Kind::Directory) {
            return Ok(true);
        }
        Ok(draft.makes_below(path))
    }

    /// Whether a directory has something in it, as this transaction would leave it.
    fn has_something_in(&self, directory: &Target) -> Result<bool> {
        let draft = guard(&self.draft);
        if draft.makes_below(&directory.path) {
            return Ok(true);
        }
        if directory.existing.is_none() || draft.is_gone(&directory.path) {
            return Ok(false);
        }
        let is_removed = |path: &RelativePath| draft.newest(path).is_some_and(goes);
        Ok(!check::is_emptied(self.root(), &directory.path, is_removed)?)
    }
}
