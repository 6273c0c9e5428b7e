//! A directory that is made with a mode of its own, and is never open to more.
//!
//! It is made with a mode that nobody chooses and that lets nobody in. It gets
//! its own mode before anything is put in it. Between the two a crash leaves a
//! directory that tells by its mode that it is not finished. Recovery finishes
//! it. What others have done to a finished one stays. Waits for nothing.

use std::io;

use super::root::Root;
use crate::error::{Operation, Result};
use crate::fs::{Kind, Metadata, UNFINISHED, Unsynced};
use crate::manifest::NewDirectory;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// The bits of a mode that say who may read, write and enter.
const PERMISSION_BITS: u32 = 0o777;

/// The mode that it gets, if that is not the one of any new directory.
fn own_mode(root: &Root, new: &NewDirectory) -> Option<u32> {
    new.mode.filter(|_| root.fs.has_modes())
}

/// Makes a directory that is not there. If it cannot get its mode, it is removed again.
pub(crate) fn make(root: &Root, path: &RelativePath, new: &NewDirectory) -> io::Result<Unsynced> {
    let Some(mode) = own_mode(root, new) else { return root.fs.create_dir(path) };
    let is_closed = keeps(Rule::CloseFirst);
    let name = if is_closed { root.fs.create_unfinished_dir(path)? } else { root.fs.create_dir(path)? };
    match finish(root, path, mode, new) {
        Ok(own) => Ok(name.and(own)),
        Err(error) => {
            if let Ok(removed) = root.fs.remove_dir(path) {
                removed.waive("an unfinished directory that comes back is finished or removed again");
            }
            Err(error)
        }
    }
}

fn finish(root: &Root, path: &RelativePath, mode: u32, new: &NewDirectory) -> io::Result<Unsynced> {
    let own = root.fs.finish_dir(path, mode, new.group)?;
    // Lost without the sync that this asks for: the mode. A power loss would leave a directory that
    // nobody can use, after the manifest is retired that says what mode it has.
    if keeps(Rule::SyncDirectoryModes) {
        return Ok(own);
    }
    own.waive("a crash test asked for it");
    Ok(Unsynced::default())
}

/// Whether a directory has not got its mode yet.
pub(crate) fn is_unfinished(root: &Root, found: &Metadata, new: &NewDirectory) -> bool {
    found.kind == Kind::Directory
        && own_mode(root, new).is_some()
        && found.mode & PERMISSION_BITS == UNFINISHED
}

/// Finishes a directory that is there, and returns what whoever made it may still owe.
pub(crate) fn complete(root: &Root, path: &RelativePath, new: &NewDirectory) -> Result<Unsynced> {
    let failed = || root.error(Operation::Create, path);
    let name = Unsynced::directory(path.parent());
    let Some(mode) = own_mode(root, new) else { return Ok(name) };
    let found = root.fs.metadata(path).map_err(failed())?;
    if !is_unfinished(root, &found, new) || !keeps(Rule::FinishDirectories) {
        // Whoever may not open it cannot sync it. Then its mode is as durable as its maker has left it.
        let is_closed = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let owes = !root.fs.hold(path).is_err_and(is_closed) && keeps(Rule::SyncDirectoryModes);
        return Ok(if owes { name.and(Unsynced::directory(path.clone())) } else { name });
    }
    // It may belong to another user, who alone can change its mode.
    match root.fs.remove_dir(path) {
        Ok(removed) => Ok(removed.and(make(root, path, new).map_err(failed())?)),
        Err(_) => Ok(name.and(finish(root, path, mode, new).map_err(failed())?)),
    }
}

/// Gives a directory once more the mode that it has, so that a sync has something to write. The one before has
/// failed.
pub(crate) fn renew(root: &Root, path: &RelativePath, mode: u32) -> Result<Unsynced> {
    match root.fs.finish_dir(path, mode & PERMISSION_BITS, None) {
        // It is another user's, who alone can do that.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Unsynced::default()),
        result => result.map_err(root.error(Operation::Create, path)),
    }
}
