//! Abandon: gives up a generation that is published but cannot be recovered.
//! Its targets stay as they are, and the sweep removes its staged files.

use super::super::control;
use super::super::layout::Fate;
use super::super::lock::Locked;
use super::super::mounts;
use super::super::root::Root;
use super::super::tree;
use super::restore::Lost;
use super::set_aside;
use crate::error::{Error, Operation, Reason, Result};
use crate::fs::{Barrier, Kind, Unsynced, Wave};
use crate::generation::Generation;
use crate::manifest::{Action, Entry};
use crate::report::Abandoned;

/// Durably gives up a generation. Returns which of its files are in place nevertheless.
pub(crate) fn abandon(root: &Root, locked: &Locked, generation: Generation) -> Result<Abandoned> {
    let control = &locked.control;
    let path = control.published(generation);
    if control.open().first().is_some_and(|earlier| *earlier < generation) {
        // Otherwise the earlier generation would count as finished.
        let reason = Reason::EarlierPending;
        return Err(Error::Unsupported { path: root.full(&path).into(), reason });
    }
    let mut abandoned =
        Abandoned { generation, in_place: Vec::new(), left: Vec::new(), set_aside: Vec::new() };
    // A manifest that cannot be read is given up too, but nobody can say what it named.
    let manifest = control::manifest(root, &path).ok().flatten();
    let manifests: Vec<_> = manifest.map(|manifest| (generation, Ok(manifest))).into_iter().collect();
    let lost = Lost::new(root, control, &manifests);
    for manifest in manifests.iter().flat_map(|(_, manifest)| manifest) {
        for (index, entry) in manifest.entries.iter().enumerate() {
            let is_lost = lost.is_lost(generation, manifest, (index, entry)).unwrap_or(true);
            let is_away = mounts::is_away(root, &manifest.mounts, entry)?;
            if is_away && entry.is_of_tree() {
                // It could not be taken back, and would stay under a name that nobody knows any more.
                return Err(mounts::missing(root, Operation::Abandon, &entry.path));
            }
            let is_in_place = !is_lost && !is_away && is_in_place(root, entry);
            let list = if is_in_place { &mut abandoned.in_place } else { &mut abandoned.left };
            list.push(entry.path.clone());
        }
    }
    let mut wave = Wave::new(Barrier::Discarded);
    let entries = manifests.iter().flat_map(|(_, manifest)| manifest).flat_map(|manifest| &manifest.entries);
    for entry in entries.filter(|entry| entry.is_of_tree()) {
        wave.add(tree::debts(root, entry)?);
        // Otherwise a half moved tree would lie under a name that nobody knows any more.
        wave.add(match abandoned.left.contains(&entry.path) {
            true => take_back(root, entry, &mut abandoned)?,
            false => tree::hide_replaced(root, entry)?,
        });
    }
    // Lost without this sync: the way back of trees, if a power loss keeps the decision. The sweep would delete
    // those that are hidden.
    let _durable = root.sync_always(wave)?;
    let mut wave = Wave::new(Barrier::Discarded);
    let renamed = root.fs.rename(&path, &Fate::Abandoned.of(generation).path());
    wave.add(renamed.map_err(root.error(Operation::Abandon, &path))?);
    // Lost without this sync: the decision. A power loss would bring the generation back.
    let _durable = root.sync_always(wave)?;
    let marker = Fate::SyncFailed.of(generation).path();
    root.try_remove(&marker, "the marker of a generation that is given up has no meaning any more");
    Ok(abandoned)
}

/// Undoes what was done with a tree. What cannot go back, because others use its name by now, is set aside.
/// Otherwise nobody could give the commit up, or the sweep would delete what is hidden.
fn take_back(root: &Root, entry: &Entry, abandoned: &mut Abandoned) -> Result<Unsynced> {
    let mut owed = Unsynced::default();
    for (from, to) in tree::ways_back(root, entry)? {
        match root.fs.rename_directory(&from, &to) {
            Err(error) if tree::is_taken(&error) => {
                let files = (&entry.path, &from);
                let (name, renamed) = set_aside::other_name(root, abandoned.generation, files)?;
                abandoned.set_aside.push(name);
                owed.add(renamed);
            }
            renamed => owed.add(renamed.map_err(root.error(Operation::MoveDirectory, &to))?),
        }
    }
    Ok(owed)
}

/// If a staged file is gone, it is in place. If the target of a removal is gone, it is removed.
fn is_in_place(root: &Root, entry: &Entry) -> bool {
    match &entry.action {
        Action::MoveTree(moved) => return tree::is_at(root, &entry.path, moved.tree).unwrap_or(false),
        Action::RemoveTree(hidden) => {
            return tree::is_at(root, &entry.path, hidden.tree).is_ok_and(|is_there| !is_there);
        }
        _ => {}
    }
    let source = entry.staged().unwrap_or_else(|| entry.path.clone());
    let found = root.look(&source);
    if entry.action.is_new_directory() {
        let is_old = tree::is_in_the_way(root, entry).unwrap_or(true);
        return found.is_ok_and(|found| found.is_some_and(|found| found.kind == Kind::Directory)) && !is_old;
    }
    let is_gone = found.is_ok_and(|found| found.is_none());
    is_gone && root.has_directory(&entry.path.parent()).is_ok_and(|is_there| is_there)
}
