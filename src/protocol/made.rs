//! The directories that a transaction makes before its commit, because it stages
//! something in them.
//!
//! They are on record before they are made, and are removed again if it does not
//! commit. One that is to have a mode has it before anything is staged in it.
//! Waits for nothing.

use std::collections::BTreeSet;
use std::io;

use super::new_directory;
use super::root::Root;
use super::session::Looked;
use super::stage::Staging;
use crate::error::{Error, Operation, Result};
use crate::expect::Clash;
use crate::fs::Unsynced;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// Refuses a directory that is to have a mode, and was made by others since. It could be open to more, and what
/// is staged in it would be, too.
pub(crate) fn refuse_taken(root: &Root, staging: &Staging, looked: &Looked) -> Result<()> {
    if staging.modes.is_empty() || !keeps(Rule::CheckNewDirectories) {
        return Ok(());
    }
    let own = staging.cleanup.directories();
    let is_taken = |path: &&RelativePath| staging.modes.contains_key(path) && !own.contains(path);
    looked.existing.keys().find(is_taken).map_or(Ok(()), |path| taken(root, path))
}

fn taken(root: &Root, path: &RelativePath) -> Result<()> {
    Err(Error::Conflict { path: root.full(path).into(), found: Clash::Exists })
}

/// Makes directories, parents before children. They are on record.
pub(crate) fn make(root: &Root, staging: &mut Staging, directories: BTreeSet<RelativePath>) -> Result<()> {
    for directory in directories {
        let new = staging.modes.get(&directory).copied().unwrap_or_default();
        match new_directory::make(root, &directory, &new) {
            Ok(debt) => {
                staging.wave.add(debt);
                // If it cannot be looked at, its name is synced once more when it is used again.
                let found = root.fs.metadata(&directory).ok();
                staging.session.made(&directory, found.and_then(|found| found.identity));
                staging.cleanup.add_directory(directory);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if new.mode.is_some() && keeps(Rule::CheckNewDirectories) {
                    return taken(root, &directory);
                }
                // Another transaction has made it meanwhile, and may not have synced it yet.
                staging.wave.add(Unsynced::directory(directory.parent()));
            }
            Err(error) => return Err(root.error(Operation::Create, &directory)(error)),
        }
    }
    Ok(())
}
