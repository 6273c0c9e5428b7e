//! Removes what a transaction has put on disk, if it does not commit.
//!
//! Dropping the guard removes the files, and the directories if they are empty.
//! It reports no errors. What cannot be removed now is left to the sweep of the
//! next opening, and the session's mark stays behind to lead it there.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use super::root::{Root, is_gone};
use super::session::Session;
use crate::fs::{HeldDirectory, Unsynced};
use crate::mutation::{Rule, keeps};
use crate::options::Durability;
use crate::path::RelativePath;

/// Files and directories of a transaction that is not published.
#[derive(Debug)]
pub(crate) struct CleanupGuard {
    root: Arc<Root>,
    session: Arc<Session>,
    files: BTreeSet<RelativePath>,
    directories: Vec<RelativePath>,
    /// The session's records of these directories.
    records: Vec<RelativePath>,
    /// The directories in which the first files were made.
    held: BTreeMap<RelativePath, Arc<dyn HeldDirectory>>,
}

/// How many directories one transaction holds open: enough for most, and few beside the 256 files that
/// a process may have open on macOS. Files in other directories are found only by their paths.
const HELD_MAX: usize = 16;

impl CleanupGuard {
    pub(crate) fn new(root: &Arc<Root>, session: &Arc<Session>) -> Self {
        Self {
            root: Arc::clone(root),
            session: Arc::clone(session),
            files: BTreeSet::new(),
            directories: Vec::new(),
            records: Vec::new(),
            held: BTreeMap::new(),
        }
    }

    /// Removes `path` too if the transaction aborts, even if its directory is renamed.
    pub(crate) fn add_file(&mut self, path: RelativePath) {
        let directory = path.parent();
        if self.held.len() < HELD_MAX && !self.held.contains_key(&directory) {
            // If it cannot be held, only the path leads to it.
            if let Ok(held) = self.root.fs.hold(&directory) {
                self.held.insert(directory, held);
            }
        }
        self.files.insert(path);
    }

    /// Notes that a file was renamed.
    pub(crate) fn rename_file(&mut self, from: &RelativePath, to: RelativePath) {
        self.files.remove(from);
        self.files.insert(to);
    }

    /// Removes the directory `path` too if the transaction aborts; parents are added before children.
    pub(crate) fn add_directory(&mut self, path: RelativePath) {
        self.directories.push(path);
    }

    /// Adds the record of directories that will be made.
    pub(crate) fn add_record(&mut self, record: RelativePath) {
        self.records.push(record);
    }

    /// The directories that were made.
    pub(crate) fn directories(&self) -> &[RelativePath] {
        &self.directories
    }

    /// Removes one file now.
    pub(crate) fn remove(&mut self, path: &RelativePath) {
        self.files.remove(path);
        self.remove_file(path);
    }

    /// Removes now every file except the `wanted` ones, and every directory in which none of these
    /// lies, or will lie, and which is none of them. These belong to superseded writes, and to writes that
    /// failed when they began. The returned debt must be paid before the record of the directories is removed.
    pub(crate) fn remove_all_but<'a>(&mut self, wanted: impl Iterator<Item = &'a RelativePath>) -> Unsynced {
        let wanted: HashSet<_> = wanted.collect();
        let stray: Vec<_> = self.files.iter().filter(|path| !wanted.contains(path)).cloned().collect();
        for path in &stray {
            self.remove(path);
        }
        if self.directories.is_empty() {
            return Unsynced::default();
        }
        let parents: BTreeSet<_> = wanted.iter().map(|path| path.parent()).collect();
        let needed: HashSet<_> = parents.iter().flat_map(RelativePath::chain).collect();
        let made = std::mem::take(&mut self.directories).into_iter();
        let (kept, stray) = made.partition(|path| needed.contains(path) || wanted.contains(path));
        self.directories = kept;
        let (gone, debt) = self.remove_directories(stray);
        self.session.unmade(&gone, Vec::new(), Unsynced::default());
        debt
    }

    /// Notes that the manifest has its published name. Nothing may be removed from now on, even if this
    /// thread panics.
    pub(crate) fn release(&mut self) {
        self.files.clear();
        self.directories.clear();
    }

    /// Keeps everything, because the transaction is published. Returns the records of the directories
    /// that were made.
    pub(crate) fn disarm(&mut self) -> Vec<RelativePath> {
        self.release();
        self.held.clear();
        std::mem::take(&mut self.records)
    }

    /// Leaves everything, because nobody knows whether the transaction is published. Only a later
    /// opening can tell, and the session's mark leads it here.
    pub(crate) fn leave_to_recovery(&mut self) {
        self.disarm().clear();
        self.session.leave_mark();
    }

    /// The debt of removals that the session has to pay.
    fn owed(&self, debt: Unsynced) -> Unsynced {
        if self.root.settings.durability != Durability::Process {
            return debt;
        }
        debt.waive("Durability::Process promises nothing for a power loss");
        Unsynced::default()
    }

    fn remove_file(&self, path: &RelativePath) {
        // In a child after `fork` the parent's transaction goes on.
        if !self.root.is_own_process() {
            return;
        }
        match self.root.fs.remove_file(path) {
            // Not synced now, since nobody waits for an abort. The session syncs it before it removes
            // its own mark. Without the mark, a staged name that a power loss brings back would stay
            // for ever.
            Ok(debt) => self.session.owe(self.owed(debt)),
            Err(error) if is_gone(&error) => self.remove_elsewhere(path),
            Err(_) => self.session.leave_mark(),
        }
    }

    /// The file is gone, or its directory has another name now. There is no debt: nothing that a power
    /// loss brings back can be found at the old path.
    fn remove_elsewhere(&self, path: &RelativePath) {
        let held = self.held.get(&path.parent()).filter(|_| keeps(Rule::RemoveWhereMade));
        let Some(held) = held else { return };
        if held.remove_file(path.name()).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            self.session.leave_mark();
        }
    }

    /// Removes empty directories, children first. Returns those that are gone, and the debt of their
    /// removal.
    fn remove_directories(&self, made: Vec<RelativePath>) -> (Vec<RelativePath>, Unsynced) {
        let (mut gone, mut owed) = (Vec::new(), Unsynced::default());
        for path in made.into_iter().rev() {
            match self.root.fs.remove_dir(&path) {
                Ok(debt) => {
                    owed.add(debt);
                    gone.push(path);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => gone.push(path),
                // Another transaction or program has put something there.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => self.session.orphan(path),
                Err(_) => self.session.leave_mark(),
            }
        }
        (gone, owed)
    }
}

impl Drop for CleanupGuard {
    fn drop(&mut self) {
        if !self.root.is_own_process() {
            // Everything belongs to the parent, which goes on with it.
            return;
        }
        for path in std::mem::take(&mut self.files) {
            self.remove_file(&path);
        }
        let made = std::mem::take(&mut self.directories);
        let count = made.len();
        let (gone, debt) = self.remove_directories(made);
        let records = std::mem::take(&mut self.records);
        let spent = if gone.len() == count { records } else { Vec::new() };
        self.session.unmade(&gone, spent, self.owed(debt));
        // The files of this transaction may have prevented an earlier one from removing its
        // directories.
        let (gone, debt) = self.remove_directories(self.session.orphans());
        self.session.unmade(&gone, Vec::new(), self.owed(debt));
    }
}
