//! Whole directories: moved, removed and replaced with everything in them, each
//! by a few renames at the commit, however much is in it.
//!
//! Nothing is staged for them. What they are is noted when the transaction is
//! told of them, and compared at the commit.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::Transaction;
use crate::draft::{Content, Slot};
use crate::error::{Error, Operation, Result};
use crate::fs::Kind;
use crate::manifest::{HiddenTree, MovedTree, TreeIdentity};
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::resolve::Target;
use crate::protocol::root::guard;
use crate::protocol::stage::StagedChange;
use crate::protocol::tree;

/// What to do about a directory at the place to which another one is moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupied {
    Refused,
    Replaced,
}

impl Transaction {
    /// Removes a directory with everything in it, including what others put there before the commit, or between a
    /// crash and the recovery. The commit is a [`Conflict`](Error::Conflict) if another directory is at this path by then.
    ///
    /// The directory gets a hidden name beside it, by one rename, so other programs see all of it or
    /// nothing. It is deleted when that is durable. No symlink is followed. What the system refuses to delete
    /// keeps its hidden name, and a later opening tries again and
    /// [reports it](crate::RecoveryReport::unswept).
    ///
    /// Another transaction that has staged files there loses them, and its commit is a conflict.
    ///
    /// After this the path is free: the same transaction can [`write`](Self::write) a file there, or make a
    /// symlink or an empty directory. For other programs nothing is there for a moment then.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if there is no directory that can be removed, or if this transaction changes
    ///   something at this path, below it, or as a whole above it. Later changes below it are refused, too.
    /// - [`Error::Io`], of kind `NotFound` if nothing is there, and `ResourceBusy` or `CrossesDevices` if
    ///   something is mounted there, or below it as far as the system tells.
    /// - [`Error::Unsupported`] if it is a root of its own, or cannot be told from others.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| { tx.write("vendor/one/lib.rs", "")?; tx.write("list", "one two") })?;
    /// let mut tx = store.begin()?;
    /// tx.remove_dir_all("vendor/one")?;
    /// tx.write("list", "two")?;
    /// tx.commit()?;
    /// assert!(!dir.path().join("vendor/one").exists());
    ///
    /// // A directory that becomes a file.
    /// store.update(|tx| tx.write("cache/a", ""))?;
    /// let mut tx = store.begin()?;
    /// tx.remove_dir_all("cache")?;
    /// tx.write("cache", "none")?;
    /// tx.commit()?;
    /// assert!(dir.path().join("cache").is_file());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove_dir_all(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.root().may_collect()?;
        let named = |error| self.named(error);
        let (target, tree) = self.tree_to_go(path.as_ref(), Operation::Remove).map_err(named)?;
        tree::may_be_deleted(self.root(), &target.path)?;
        let hidden = HiddenTree { name: OsString::new(), tree };
        self.change_directory(target, |target| StagedChange::RemoveTree(target, hidden));
        Ok(())
    }

    /// Puts the directory `from` in the place of the directory `to`, which is removed with everything in it.
    /// If nothing is at `to`, this is a [`rename`](Self::rename).
    ///
    /// Other programs see the old directory at `to` or the new one, each whole, where the system can
    /// exchange two directories. That is Linux with ext4, XFS, btrfs or tmpfs. Elsewhere nothing is at `to`
    /// for a moment. `from` is gone before the new directory is at `to`, and the old one is never seen
    /// there. Views see both changes at once.
    ///
    /// What is true of all changes of whole directories:
    ///
    /// - Nothing in them is copied, synced or looked at. A file in them that another program has written, and
    ///   has not synced, is no more durable than before.
    /// - The commit waits as a long save does. With [`Durability::Committed`](crate::Durability::Committed)
    ///   it waits until the directories are in place.
    /// - Two of them in one transaction have nothing to do with each other. So two directories are swapped
    ///   by two commits.
    /// - A staged file of another transaction moves along. Then that one's commit is a
    ///   [`Conflict`](Error::Conflict), and it removes the file.
    /// - Where directories are on different file systems, or one is a mount point, they cannot be moved.
    ///
    /// # Errors
    /// As for [`remove_dir_all`](Self::remove_dir_all), and [`Error::InvalidPath`] if one of them lies in the
    /// other, or if they are one.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| { tx.write("site/index", "old")?; tx.write("site/gone", "") })?;
    /// std::fs::create_dir(dir.path().join("site.new"))?;
    /// std::fs::write(dir.path().join("site.new/index"), "new")?;
    /// let mut tx = store.begin()?;
    /// tx.replace_dir("site.new", "site")?;
    /// tx.write("version", "2")?;
    /// assert_eq!(tx.read("site/index")?, b"new");
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("site/index"))?, b"new");
    /// assert!(!dir.path().join("site/gone").exists() && !dir.path().join("site.new").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replace_dir(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        self.root().may_collect()?;
        let moved = self.move_tree(from.as_ref(), to.as_ref(), Occupied::Replaced);
        moved.map_err(|error| self.named(error))
    }

    /// The target at a path whose directory goes with everything in it, so that nothing is there any more.
    pub(super) fn cleared(&self, path: &Path) -> Result<Option<Target>> {
        if !guard(&self.draft).has_trees() {
            return Ok(None);
        }
        let target = match self.resolve_name(path) {
            // What is wrong with the path is said by whoever resolves it as that of a file.
            Err(Error::InvalidPath { .. }) => return Ok(None),
            target => target?,
        };
        Ok(guard(&self.draft).clears(&target.path).then_some(target))
    }

    /// Refuses what cannot be together with the other changes. That is anything in a directory that is moved
    /// or removed, or below a file, and a file where something is made below.
    pub(super) fn refuse_contradiction(&self, path: &RelativePath) -> Result<()> {
        let draft = guard(&self.draft);
        let is_moved = draft.tree_above(path).is_some_and(|tree| !draft.clears(&tree));
        let own = (is_moved || draft.makes_below(path)).then_some(InvalidPath::Contradiction);
        match draft.forbids(path).or(own) {
            Some(reason) => Err(self.named(Error::invalid(self.root().full(path), reason))),
            None => Ok(()),
        }
    }

    /// Whether a directory is at this path.
    pub(super) fn is_tree(&self, path: &Path) -> Result<bool> {
        let target = self.resolve_name(path)?;
        let draft = guard(&self.draft);
        let is_moved = draft.tree_above(&target.path).is_some_and(|tree| tree == target.path)
            && !draft.is_refilled(&target.path);
        if is_moved || draft.becomes_directory(&target.path) {
            return Err(Error::invalid(path, InvalidPath::Contradiction));
        }
        let is_own = draft.makes_below(&target.path)
            || draft
                .newest(&target.path)
                .is_some_and(|slot| matches!(slot.content, Content::Ready(StagedChange::CreateDirectory(_))));
        if target.existing.is_none() && is_own {
            // It is there once this is committed, and can be moved then.
            return Err(
                self.named(Error::invalid(self.root().full(&target.path), InvalidPath::Contradiction))
            );
        }
        Ok(target.existing.is_some_and(|found| found.kind == Kind::Directory))
    }

    pub(super) fn move_tree(&mut self, from: &Path, to: &Path, occupied: Occupied) -> Result<()> {
        let (source, tree) = self.tree_to_go(from, Operation::MoveDirectory)?;
        let target = self.resolve_name(to)?;
        if source.path == target.path {
            return Err(Error::invalid(to, InvalidPath::Itself));
        }
        if tree::holds(&source.path, &target.path) || tree::holds(&target.path, &source.path) {
            return Err(Error::invalid(to, InvalidPath::BelowItself));
        }
        let (becomes, is_built) = {
            let draft = guard(&self.draft);
            (draft.becomes_directory(&target.path), draft.is_built(&target.path))
        };
        if becomes || is_built {
            let reason = if becomes { InvalidPath::Contradiction } else { InvalidPath::FileToDirectory };
            return Err(Error::invalid(to, reason));
        }
        let removed = self.removed_file(&target)?;
        if removed.is_none() {
            self.refuse_beside(&target.path, to)?;
        }
        let replaced = match (self.is_there(&target), occupied) {
            _ if removed.is_some() => removed,
            (false, _) if target.existing.is_none() => None,
            (true, Occupied::Replaced) => {
                let (_, replaced) = self.tree_to_go(to, Operation::MoveDirectory)?;
                if replaced == tree {
                    return Err(Error::invalid(to, InvalidPath::Itself));
                }
                tree::may_be_deleted(self.root(), &target.path)?;
                Some(HiddenTree { name: OsString::new(), tree: replaced })
            }
            _ => {
                let occupied = io::ErrorKind::AlreadyExists.into();
                return Err(self.root().error(Operation::MoveDirectory, &target.path)(occupied));
            }
        };
        tree::may_move_into(self.root(), &source.path, &target.nearest)?;
        let moved = MovedTree { from: source.path, tree, replaced };
        self.change_directory(target, |target| StagedChange::MoveTree(target, moved));
        Ok(())
    }

    /// The file that this transaction removes at a path, so that a directory can take its place.
    fn removed_file(&self, target: &Target) -> Result<Option<HiddenTree>> {
        let is_removed = |slot: &Slot| matches!(slot.content, Content::Ready(StagedChange::Remove(_)));
        if !guard(&self.draft).newest(&target.path).is_some_and(is_removed) {
            return Ok(None);
        }
        let tree = tree::file_identity(self.root(), &target.path)?;
        let tree = tree.ok_or_else(|| tree::unidentified(self.root(), &target.path, Kind::File))?;
        Ok(Some(HiddenTree { name: OsString::new(), tree }))
    }

    /// A directory that can go with everything in it. A missing one is an error of `operation`.
    fn tree_to_go(&self, given: &Path, operation: Operation) -> Result<(Target, TreeIdentity)> {
        let target = self.resolve_name(given)?;
        self.refuse_beside(&target.path, given)?;
        match target.existing.map(|found| found.kind) {
            None => {
                return Err(self.root().error(operation, &target.path)(io::ErrorKind::NotFound.into()));
            }
            Some(Kind::Directory) => {}
            Some(_) => return Err(Error::invalid(given, InvalidPath::NotADirectory)),
        }
        tree::may_go(self.root(), &target.path)?;
        let tree = tree::identity(self.root(), &target.path)?;
        let tree = tree.ok_or_else(|| tree::unidentified(self.root(), &target.path, Kind::Directory))?;
        Ok((target, tree))
    }

    /// Refuses a whole directory in which this transaction changes something already, or that lies in another
    /// one. What is changed below it later is refused by the commit.
    fn refuse_beside(&self, path: &RelativePath, given: &Path) -> Result<()> {
        let draft = guard(&self.draft);
        if draft.newest(path).is_some() || draft.makes_below(path) || draft.tree_above(path).is_some() {
            return Err(Error::invalid(given, InvalidPath::Contradiction));
        }
        Ok(())
    }
}
