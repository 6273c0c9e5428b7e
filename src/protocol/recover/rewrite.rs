//! Writes anew what a failed sync may have lost: copies it, syncs the copy and
//! renames it. The caller syncs the name. A second sync of the old file might
//! report success and do nothing.

use super::super::layout::{self, ControlName, StagedId};
use super::super::resolve::for_any_group;
use super::super::root::{Root, if_found};
use super::super::{apply, copy, new_directory, tree};
use crate::error::{Operation, Result};
use crate::fs::{Barrier, Kind, Metadata, NewFile, Unsynced, Wave};
use crate::generation::TransactionId;
use crate::manifest::{Action, Entry, Manifest, NewDirectory};
use crate::path::RelativePath;

/// Replaces a manifest whose sync failed by a new file with the same name.
pub(super) fn manifest(root: &Root, pending: &RelativePath) -> Result<Wave> {
    let fresh = ControlName::Unpublished(unique(root)).path();
    let failed = |error| root.error(Operation::Publish, pending)(error);
    let mut wave = Wave::new(Barrier::Inherited);
    copy::file(root, pending, &fresh, &mut wave).map_err(failed)?;
    // Lost without this sync: the manifest's bytes behind a name that already leads to the new file.
    let _durable = root.sync_always(wave)?;
    let mut wave = Wave::new(Barrier::Inherited);
    wave.add(root.fs.rename(&fresh, pending).map_err(failed)?);
    Ok(wave)
}

/// A move that is repeated with a new file.
enum Again<'a> {
    Written { fresh: &'a RelativePath, staged: RelativePath, target: &'a RelativePath },
    Removed { fresh: &'a RelativePath, target: &'a RelativePath },
    Made { target: &'a RelativePath, new: NewDirectory, like: Metadata },
    Tree { entry: &'a Entry },
}

/// Repeats the moves of a generation whose sync failed, with new files. What a later generation changes
/// is left to it: it would take a new file for another program's.
pub(super) fn targets(
    root: &Root,
    manifest: &Manifest,
    is_last: impl Fn(&RelativePath) -> bool,
    mark: impl Fn(&RelativePath) -> RelativePath,
) -> Result<Wave> {
    let transaction = own_transaction(root, manifest);
    let entries = manifest.entries.iter().filter(|entry| is_last(&entry.path));
    let fresh = |(number, entry): (u64, _)| (entry, fresh(entry, StagedId { transaction, number }));
    let copies: Vec<_> = (0..).zip(entries).map(fresh).collect();
    let repeated = copy_all(root, &copies).and_then(|again| repeat(root, again, mark));
    if repeated.is_err() {
        for (_, fresh) in &copies {
            // Otherwise each try would leave one more copy of every file.
            root.try_remove(fresh, "a copy that comes back is swept");
        }
    }
    repeated
}

/// The name of a new file for an entry.
fn fresh(entry: &Entry, id: StagedId) -> RelativePath {
    layout::staged(&entry.path.parent(), entry.path.name(), id)
}

/// Copies all files that are moved once more, durably.
fn copy_all<'a>(root: &Root, copies: &'a [(&'a Entry, RelativePath)]) -> Result<Vec<Again<'a>>> {
    let mut again = Vec::new();
    let mut wave = Wave::new(Barrier::Recovered);
    for (entry, fresh) in copies {
        again.extend(copy_anew(root, entry, fresh, &mut wave)?);
        root.sync_if_full(&mut wave, Barrier::Recovered)?;
    }
    // Lost without this sync: the bytes of the new files behind names that already lead to them.
    let _durable = root.sync_always(wave)?;
    Ok(again)
}

/// Repeats the moves.
fn repeat(root: &Root, again: Vec<Again<'_>>, mark: impl Fn(&RelativePath) -> RelativePath) -> Result<Wave> {
    let mut wave = Wave::new(Barrier::Recovered);
    for again in again.iter().rev() {
        // What is in it goes first. One in which others have put something stays. If the transaction's own
        // files are in it, it was durable before the manifest was.
        if let Again::Made { target, .. } = again {
            wave.add(apply::remove_directory(root, target)?);
        }
        // So that its directories have renames to sync again. Its files are not in danger: they were durable
        // before, or nobody said so.
        if let Again::Tree { entry } = again {
            wave.add(tree::take_back(root, entry)?);
        }
    }
    for again in again {
        match again {
            Again::Written { fresh, staged, target } => {
                // By way of the staged name, since its removal may not be durable either.
                let renamed = root.fs.rename(fresh, &staged);
                wave.add(renamed.map_err(root.error(Operation::Move, target))?);
                wave.add(apply::replace(root, &staged, target, || mark(target))?);
            }
            Again::Removed { fresh, target } => {
                wave.add(apply::replace(root, fresh, target, || mark(target))?);
                wave.add(apply::remove(root, target)?);
            }
            Again::Made { target, new, like } => {
                wave.add(apply::make_directory(root, target, &new)?);
                wave.add(new_directory::renew(root, target, like.mode)?);
                wave.add(give_back(root, target, &like)?);
            }
            Again::Tree { entry } => wave.add(tree::put(root, entry)?),
        }
    }
    Ok(wave)
}

/// An id for files that recovery writes in the name of the writer's own session, whose record leads the
/// sweep to them. The number is half of a unique id, whose highest bit is set (RFC 9562, variant). No
/// session ever counts so far.
pub(super) fn own_transaction(root: &Root, manifest: &Manifest) -> TransactionId {
    let (_, number) = unique(root).session.as_u64_pair();
    TransactionId { session: manifest.transaction.session, number }
}

fn copy_anew<'a>(
    root: &Root,
    entry: &'a Entry,
    fresh: &'a RelativePath,
    wave: &mut Wave,
) -> Result<Option<Again<'a>>> {
    let target = &entry.path;
    match &entry.action {
        // It is gone, or what came later has its place.
        Action::MoveTree(moved) if !tree::is_at(root, target, moved.tree)? => return Ok(None),
        Action::MoveTree(_) | Action::RemoveTree(_) => return Ok(Some(Again::Tree { entry })),
        _ => {}
    }
    let failed = |error| root.error(Operation::Move, target)(error);
    let found = if_found(root.fs.metadata(target)).map_err(failed)?;
    if let (Some(found), Action::CreateDirectory(new)) = (found, &entry.action) {
        let found = Some(found).filter(|found| found.kind == Kind::Directory);
        return found.map(|found| made_anew(root, target, new, found)).transpose();
    }
    match (entry.staged(), found.map(|found| found.kind)) {
        (Some(staged), Some(Kind::File)) => {
            copy::file(root, target, fresh, wave).map_err(failed)?;
            Ok(Some(Again::Written { fresh, staged, target }))
        }
        (Some(staged), Some(Kind::Symlink)) => {
            let to = root.fs.read_link(target).map_err(failed)?;
            wave.add(root.fs.symlink(&to, fresh).map_err(failed)?);
            Ok(Some(Again::Written { fresh, staged, target }))
        }
        // A removed file appears for a moment, empty, so that the directory has a removal to sync
        // again.
        (None, None) => {
            // A directory that no longer exists has no names that could come back.
            let made = if_found(root.fs.create_new(fresh, NewFile::Private)).map_err(failed)?;
            let Some((file, name)) = made else { return Ok(None) };
            wave.add(name.and(file.finish().map_err(failed)?.1));
            Ok(Some(Again::Removed { fresh, target }))
        }
        _ => Ok(None),
    }
}

/// A directory that is made anew, with the mode that it has by now.
fn made_anew<'a>(
    root: &Root,
    target: &'a RelativePath,
    new: &NewDirectory,
    found: Metadata,
) -> Result<Again<'a>> {
    if new_directory::is_unfinished(root, &found, new) {
        let mode = new.mode.unwrap_or(found.mode);
        return Ok(Again::Made { target, new: *new, like: Metadata { mode, ..found } });
    }
    // A list is lost with its directory. Then the mode's bits of the group are those of the list's mask.
    let is_listed = root.fs.has_access_list(target);
    let is_listed = is_listed.map_err(root.error(Operation::Move, target))?;
    let mode = if is_listed { for_any_group(found.mode) } else { found.mode };
    let new = NewDirectory { mode: Some(mode & 0o777), group: None };
    Ok(Again::Made { target, new, like: Metadata { mode, ..found } })
}

/// Gives a directory that was made anew the mode and the owner that it had. Somebody may have closed it
/// since the commit.
fn give_back(root: &Root, directory: &RelativePath, like: &Metadata) -> Result<Unsynced> {
    let failed = |error| root.error(Operation::Create, directory)(error);
    let found = root.fs.metadata(directory).map_err(failed)?;
    if !root.fs.has_modes() || (found.mode, found.owner) == (like.mode, like.owner) {
        return Ok(Unsynced::default());
    }
    let (_, debt) = root.fs.copy_permissions(directory, like, directory).map_err(failed)?;
    Ok(debt)
}

fn unique(root: &Root) -> TransactionId {
    TransactionId { session: root.fs.unique(), number: 0 }
}
