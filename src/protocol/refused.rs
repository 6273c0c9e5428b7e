//! Refused: a commit that has changed nothing, and all that is needed to try it
//! again.
//!
//! The staged files stay where they are. The manifest goes, since it will be
//! written anew. What a wave owed and did not pay is lost with it, so nothing is
//! given back after a wait that failed. Changes no target.

use std::collections::HashMap;

use super::built;
use super::stage::{Backing, Collected, Staged, StagedEntry, Staging};
use crate::error::{Error, Operation};
use crate::fs::{Barrier, Unsynced, Wave};
use crate::mutation::{Rule, keeps};

/// Why a commit was refused, and what it would have committed.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    /// `None` if it cannot be tried again.
    pub(crate) collected: Option<Box<Collected>>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, collected: None }
    }
}

impl Refused {
    /// Gives a transaction back that is not published.
    pub(crate) fn with(error: Error, staged: Staged) -> Self {
        // Even if the wait could not begin, nobody knows any more what it was for.
        if matches!(error, Error::Io { operation: Operation::Sync, .. } | Error::Poisoned { .. }) {
            return error.into();
        }
        Self { error, collected: Some(Box::new(staged.unstage())) }
    }
}

impl Staged {
    /// The transaction before it was staged to its end: without a manifest.
    fn unstage(self) -> Collected {
        let Self {
            id,
            entries,
            preconditions,
            snapshot,
            unpublished,
            readers: _,
            mut cleanup,
            session,
            backing,
            caller,
        } = self;
        cleanup.remove(&unpublished);
        let wave = match backing {
            Backing::Manifest(wave) => wave,
            Backing::StagedFiles(_) => {
                let mut wave = Wave::new(Barrier::Staged);
                // They are durable already. Only a second sync can say that the file system refuses it.
                entries.iter().for_each(|staged| wave.add(Unsynced::directory(staged.entry.path.parent())));
                // What is removed from a built directory before the next try has its own name there. If a power
                // loss brought it back, nobody would know that it is not of the commit.
                let built = entries.iter().flat_map(built::directories).filter(|_| keeps(Rule::SyncBuilt));
                built.for_each(|directory| wave.add(Unsynced::directory(directory)));
                wave
            }
        };
        let staging =
            Staging { id, session, cleanup, wave, unpaid: None, modes: HashMap::new(), builds: false };
        let changes = entries.into_iter().map(StagedEntry::into_change).collect();
        Collected { staging, changes, preconditions, snapshot, caller }
    }
}
