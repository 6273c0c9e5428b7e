//! What a rename does to the names of a simulated disk. Knows nothing of processes.

use std::io;

use super::directories::Directories;
use super::disk::Body;
use super::machine::Machine;
use crate::fs::Unsynced;
use crate::path::RelativePath;

/// What a rename does to a file that has the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Replace,
    Refuse,
}

/// Moves a name. Returns what that owes.
pub(super) fn move_name(
    machine: &mut Machine,
    directories: &Directories,
    (from, to): (&RelativePath, &RelativePath),
    replaces: Existing,
) -> io::Result<Unsynced> {
    let (source, target) = (
        directories.writable_parent(&machine.state, from)?,
        directories.writable_parent(&machine.state, to)?,
    );
    let inode = directories.lookup(&machine.state, from)?;
    if machine.state.device(source.directory) != machine.state.device(target.directory) {
        return Err(io::ErrorKind::CrossesDevices.into());
    }
    let existing = machine.state.at(&target);
    if replaces == Existing::Refuse && existing.is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    machine.may_move(source.directory, Some(inode))?;
    machine.may_move(target.directory, existing)?;
    if existing.is_some_and(|existing| machine.state.busy.contains(&existing)) {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    if existing.is_some_and(|existing| matches!(machine.state.body(existing), Ok(Body::Directory { .. }))) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if existing != Some(inode) {
        let settings = vec![source.to_nothing(), target.to(inode)];
        let model = machine.model;
        machine.state.operate(model, settings);
        machine.state.touch(inode);
    }
    Ok(Unsynced::directory(from.parent()).and(Unsynced::directory(to.parent())))
}
