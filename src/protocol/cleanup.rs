//! What a transaction has put on disk and must remove again if it does not commit.
//!
//! Dropping the guard removes the files and the directories (while empty),
//! quietly: what cannot be removed now is left to the sweep of the next opening,
//! and the session's mark stays behind to lead it there.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use super::root::Root;
use super::session::Session;
use crate::fs::Unsynced;
use crate::options::Durability;
use crate::path::RelativePath;

/// Files and directories of a transaction that is not published.
#[derive(Debug)]
pub(crate) struct CleanupGuard {
    root: Arc<Root>,
    session: Arc<Session>,
    files: BTreeSet<RelativePath>,
    directories: Vec<RelativePath>,
}

impl CleanupGuard {
    pub(crate) fn new(root: &Arc<Root>, session: &Arc<Session>) -> Self {
        Self {
            root: Arc::clone(root),
            session: Arc::clone(session),
            files: BTreeSet::new(),
            directories: Vec::new(),
        }
    }

    /// Removes `path` too if the transaction aborts.
    pub(crate) fn add_file(&mut self, path: RelativePath) {
        self.files.insert(path);
    }

    /// Removes the directory `path` too if the transaction aborts; parents are added before children.
    pub(crate) fn add_directory(&mut self, path: RelativePath) {
        self.directories.push(path);
    }

    /// A file that is to be removed has another name now.
    pub(crate) fn renamed(&mut self, from: &RelativePath, to: RelativePath) {
        if self.files.remove(from) {
            self.files.insert(to);
        }
    }

    /// Removes one file now.
    pub(crate) fn remove(&mut self, path: &RelativePath) {
        self.files.remove(path);
        self.remove_file(path);
    }

    /// Removes every file but the `wanted` ones now: those of writers that a later write has superseded
    /// while they were open, and of writes that failed as they began.
    pub(crate) fn remove_all_but<'a>(&mut self, wanted: impl Iterator<Item = &'a RelativePath>) {
        let wanted: HashSet<_> = wanted.collect();
        let stray: Vec<_> = self.files.iter().filter(|path| !wanted.contains(path)).cloned().collect();
        for path in &stray {
            self.remove(path);
        }
    }

    /// The transaction is published: everything is where it belongs, or recovery's to move.
    pub(crate) fn disarm(&mut self) {
        self.files.clear();
        self.directories.clear();
    }

    /// It is not known whether the transaction is published: only a later opening can tell, and
    /// must be led here.
    pub(crate) fn leave_to_recovery(&mut self) {
        self.disarm();
        self.session.leave_mark();
    }

    fn owe(&self, debt: Unsynced) {
        match self.root.settings.durability {
            Durability::Process => debt.waive("Durability::Process promises nothing for a power loss"),
            _ => self.session.owe(debt),
        }
    }

    fn remove_file(&self, path: &RelativePath) {
        match self.root.fs.remove_file(path) {
            // Not synced now: nobody waits for an abort. The session syncs it before its own mark
            // goes, since without the mark a staged name that came back would stay for ever.
            Ok(debt) => self.owe(debt),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => self.session.leave_mark(),
        }
    }
}

impl Drop for CleanupGuard {
    fn drop(&mut self) {
        for path in std::mem::take(&mut self.files) {
            self.remove_file(&path);
        }
        for path in std::mem::take(&mut self.directories).iter().rev() {
            match self.root.fs.remove_dir(path) {
                Ok(debt) => self.owe(debt),
                // Somebody else has put something there, or has removed it: theirs.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                }
                Err(_) => self.session.leave_mark(),
            }
        }
    }
}
