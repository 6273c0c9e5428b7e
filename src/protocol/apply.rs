//! Apply: moves the staged files over their targets, and retires the manifest
//! once the moves are durable.
//!
//! Runs only on published manifests, both for the writer and for recovery.
//! Every move can be repeated. Nothing here decides whether to move: the writer
//! has checked under the lock, and recovery has looked at every entry.

use std::io;

use super::control::Control;
use super::copy;
use super::deferred::{Applied, Moved};
use super::layout::{ControlName, Fate};
use super::new_directory;
use super::publish::Published;
use super::root::{Root, is_gone};
use super::session::Session;
use super::tree;
use crate::error::{Operation, Result};
use crate::fs::{Barrier, Durable, NewFile, Unsynced, Wave};
use crate::generation::Generation;
use crate::manifest::{Action, Entry, NewDirectory};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use crate::progress::Progress;

/// Moves every staged file over its target, in the order in which they were written.
pub(crate) fn apply(root: &Root, published: &Published) -> Result<Moved> {
    let (generation, all) = (published.generation, published.entries.len());
    let last = |files: usize| published.entries.get(files.checked_sub(1)?).map(|entry| entry.path.clone());
    let tell = |files| root.tell_only(|| Progress::Applied { generation, files, all, path: last(files) });
    // Asked for an entry when those before it are in place.
    let entries = published.entries.iter().enumerate().inspect(|(files, _)| tell(*files));
    let mut wave = move_all(root, generation, entries.map(|(_, entry)| entry))?;
    tell(all);
    if !keeps(Rule::HideFirst) {
        delete_hidden(root, published.entries.iter().filter_map(Entry::hidden), &published.session);
    }
    for debt in published.made.iter().filter_map(|record| published.session.remove_record(record)) {
        // Part of barrier 3: if a power loss brought the record back, the sweep would remove a
        // directory that this commit made and that was emptied later.
        wave.add(debt);
    }
    for entry in &published.entries {
        if entry.over.is_some() {
            published.session.forget_tree(&entry.path);
        }
        match entry.action {
            Action::CreateDirectory(_) => published.session.adopt(&entry.path),
            Action::RemoveDirectory => published.session.forget(&entry.path),
            Action::MoveTree(_) | Action::RemoveTree(_) => {
                entry.paths().for_each(|path| published.session.forget_tree(path));
                published.session.adopt(&entry.path.parent());
            }
            _ => published.session.adopt(&entry.path.parent()),
        }
    }
    Ok(Moved { generation: published.generation, wave })
}

/// Does what the entries say, without any checks.
pub(crate) fn move_all<'a>(
    root: &Root,
    generation: Generation,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<Wave> {
    let mut wave = Wave::new(Barrier::Applied);
    for (number, entry) in (0..).zip(entries) {
        wave.add(tree::make_way(root, entry)?);
        wave.add(match (&entry.action, entry.staged()) {
            (_, Some(staged)) => {
                let mark = || ControlName::Copying(generation, number).path();
                replace(root, &staged, &entry.path, mark)?
            }
            (Action::CreateDirectory(new), None) => make_directory(root, &entry.path, new)?,
            (Action::RemoveDirectory, None) => remove_directory(root, &entry.path)?,
            (Action::MoveTree(_) | Action::RemoveTree(_), None) => tree::put(root, entry)?,
            (_, None) => remove(root, &entry.path)?,
        });
    }
    Ok(wave)
}

/// Renames one staged file over its target. Every program sees the whole old file or the whole new one
/// (rename(2)).
///
/// `mark` shows recovery that this copy was made.
pub(crate) fn replace(
    root: &Root,
    staged: &RelativePath,
    target: &RelativePath,
    mark: impl FnOnce() -> RelativePath,
) -> Result<Unsynced> {
    match root.fs.rename(staged, target) {
        // A file that is itself a mount point cannot be renamed over (EBUSY: rename(2)).
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => copy_over(root, staged, target, &mark()),
        result => result.map_err(root.error(Operation::Move, target)),
    }
}

/// Copies the staged bytes over the target, and makes them durable before it removes the staged file. A
/// program that reads meanwhile may see a part. Recovery repeats the copy as long as the staged file is
/// there.
fn copy_over(
    root: &Root,
    staged: &RelativePath,
    target: &RelativePath,
    mark: &RelativePath,
) -> Result<Unsynced> {
    let mut wave = Wave::new(Barrier::Copying);
    wave.add(match root.fs.create_new(mark, NewFile::Ordinary) {
        Ok((_, name)) => name,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Unsynced::directory(mark.parent()),
        Err(error) => return Err(root.error(Operation::Move, target)(error)),
    });
    root.note_copy();
    // Lost without this sync: the mark. After a power loss recovery would take our own half-written
    // bytes for an edit. A crash before it leaves the target as it was.
    let _durable = root.sync_always(wave)?;
    let copied = || {
        let mut file = root.fs.overwrite(target)?;
        copy::bytes(&mut *root.fs.open(staged)?, &mut *file)?;
        file.finish()
    };
    let (_, content) = copied().map_err(root.error(Operation::Move, target))?;
    let mut wave = Wave::new(Barrier::Applied);
    wave.add(content);
    // Lost without this sync: the target's bytes, after the staged file is gone. The wait is here and
    // not with barrier 3, because the next line removes the staged file.
    let _durable = root.sync_always(wave)?;
    root.fs.remove_file(staged).map_err(root.error(Operation::Move, target))
}

/// Removes a target. If it is already gone, nothing is left to do.
pub(crate) fn remove(root: &Root, target: &RelativePath) -> Result<Unsynced> {
    match root.fs.remove_file(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => others_removal(root, target),
        result => result.map_err(root.error(Operation::Remove, target)),
    }
}

/// Makes a directory. Others may have made it, and may not have synced it. A killed writer may not have finished
/// it.
pub(crate) fn make_directory(root: &Root, path: &RelativePath, new: &NewDirectory) -> Result<Unsynced> {
    let is_there = |error: &io::Error| {
        error.kind() == io::ErrorKind::AlreadyExists
            && root.has_directory(path).is_ok_and(|is_there| is_there)
    };
    match new_directory::make(root, path, new) {
        Err(error) if is_there(&error) => new_directory::complete(root, path, new),
        result => result.map_err(root.error(Operation::Create, path)),
    }
}

/// Removes a directory. If others have put something there since the commit was checked, it stays.
pub(crate) fn remove_directory(root: &Root, path: &RelativePath) -> Result<Unsynced> {
    match root.fs.remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(Unsynced::default()),
        Err(error) if is_gone(&error) => others_removal(root, path),
        result => result.map_err(root.error(Operation::Remove, path)),
    }
}

/// The debt of whoever removed this path, perhaps with the directories above it. A power loss could
/// bring them back as they were before the commit, after the manifest that could repeat it is retired.
pub(crate) fn others_removal(root: &Root, path: &RelativePath) -> Result<Unsynced> {
    let mut above = path.parent();
    while keeps(Rule::SyncRemovedDirectories) && !root.has_directory(&above)? {
        above = above.parent();
    }
    Ok(Unsynced::directory(above))
}

/// Deletes what was in the directories that a commit has removed, once that is durable. What a crash
/// leaves, or the system refuses to delete, is swept: it lies in a directory on record.
pub(crate) fn delete_hidden(root: &Root, hidden: impl IntoIterator<Item = RelativePath>, session: &Session) {
    for hidden in hidden {
        match tree::delete(root, &hidden) {
            // Waited for before the record that leads there is removed. No sync is needed here, since
            // nobody takes a hidden name for anything.
            Ok(debt) => session.owe(debt),
            Err(_) => session.leave_mark(),
        }
    }
}

/// Marks a published manifest as fully applied. Its bytes stay: whatever changes them in place could be
/// torn, and then pass for a commit that nobody was told of.
///
/// A failure does no harm: recovery looks at the pending manifest once more, and finds nothing left to
/// do. For the same reason this needs no sync.
pub(crate) fn retire(root: &Root, control: &mut Control, applied: &Applied) {
    let is_waived = applied.durable == Durable::Waived && keeps(Rule::MarkWaived);
    let retired = if is_waived { Fate::AppliedWaived } else { Fate::Applied }.of(applied.generation);
    let waive = |debt: Unsynced| debt.waive("if a power loss undoes it, recovery finds nothing left to do");
    if root.fs.rename(&control.published(applied.generation), &retired.path()).map(waive).is_err() {
        return;
    }
    control.set_retired(applied.generation, retired);
}
