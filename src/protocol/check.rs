//! Check: refuses before the commit point whatever can be refused.
//!
//! A commit cannot be undone after the commit point. So whatever can be known
//! to fail is found before it, at staging and once more under the lock. This
//! step looks and compares, and writes nothing.

use std::collections::HashSet;
use std::io;

use super::built;
use super::original;
use super::permissions;
use super::resolve::{Target, look};
use super::root::{Root, if_found};
use super::stage::{Preconditions, Presence, Staged, StagedEntry};
use super::state::InPlace;
use super::tree;
use super::twins;
use crate::error::{Error, Operation, Reason, Result};
use crate::expect::Clash;
use crate::fs::{Kind, Metadata};
use crate::manifest::{Action, Entry, NewDirectory, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::{InvalidPath, RelativePath};

/// Whether a file may be written here: there is a regular file that is not read-only, or nothing.
pub(crate) fn may_replace(root: &Root, target: &Target, operation: Operation) -> Result<()> {
    if target.directory_exists() && !root.assumes_permission() {
        not_frozen(root, &target.path)?;
    }
    let Some(existing) = &target.existing else { return Ok(()) };
    match existing.kind {
        Kind::File if root.assumes_permission() => Ok(()),
        Kind::File => {
            match root.fs.may_write(&target.path, existing) {
                // Another program has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result.map_err(root.error(operation, &target.path)),
            }
        }
        Kind::Directory => Err(Error::invalid(root.full(&target.path), InvalidPath::Directory)),
        _ => Err(Error::invalid(root.full(&target.path), InvalidPath::Special)),
    }
}

/// Whether neither the file nor its directory is append-only or immutable. Permissions do not show
/// that, and the move would fail after the commit point.
fn not_frozen(root: &Root, path: &RelativePath) -> Result<()> {
    // A directory that is gone forbids nothing, since the file to remove is gone too.
    let allowed = if_found(root.fs.may_rename_over(path));
    allowed.map(drop).map_err(root.error(Operation::Move, path))
}

/// Whether a file can be staged for this target: it may be replaced, and new names can be made in its
/// directory, or in the nearest existing one above.
pub(crate) fn may_stage(root: &Root, target: &Target) -> Result<()> {
    if is_link(target) {
        may_remove_link(root, &target.path)?;
    } else {
        may_replace(root, target, Operation::Stage)?;
    }
    if root.assumes_permission() {
        return Ok(());
    }
    root.fs.may_create_in(&target.nearest).map_err(root.error(Operation::Stage, &target.path))
}

/// Whether a file may be removed: it may be replaced, and its name can be removed. A write would notice
/// that when it stages there. A removal stages nothing, and would notice too late.
pub(crate) fn may_remove(root: &Root, target: &Target) -> Result<()> {
    if is_link(target) {
        return may_remove_link(root, &target.path);
    }
    may_replace(root, target, Operation::Remove)?;
    if target.existing.is_none() || root.assumes_permission() {
        return Ok(());
    }
    // Another program may have removed it meanwhile. Then nothing is left to remove.
    let allowed = if_found(root.fs.may_remove(&target.path));
    allowed.map(drop).map_err(root.error(Operation::Remove, &target.path))
}

/// Whether a directory may be removed, once it is empty.
pub(crate) fn may_remove_directory(root: &Root, path: &RelativePath) -> Result<()> {
    not_frozen(root, path)?;
    root.fs.may_remove(path).map_err(root.error(Operation::Remove, path))
}

/// Whether a directory may be made here: in its own directory, or in the nearest existing one above.
pub(crate) fn may_make_directory(root: &Root, target: &Target) -> Result<()> {
    if target.directory_exists() {
        not_frozen(root, &target.path)?;
    }
    root.fs.may_create_in(&target.nearest).map_err(root.error(Operation::Create, &target.path))
}

/// What the checks under the lock have found.
#[derive(Debug)]
#[must_use = "an outdated manifest must be written again"]
pub(crate) enum Freshness {
    Current,
    /// The manifest must be written again. It lists the entries whose targets have other permissions
    /// than those that were copied.
    Outdated(Vec<(usize, Metadata)>),
}

/// Checks a transaction under the lock. Another commit may have replaced a target since the manifest
/// was written. Then the entry is updated, or recovery would take that commit for an edit by hand. A
/// target's permissions may have changed. Then the staged file must get them, or the change would be
/// undone.
pub(crate) fn under_lock(root: &Root, state: &InPlace, staged: &mut Staged) -> Result<Freshness> {
    if keeps(Rule::CheckPreconditions) {
        preconditions(root, &staged.preconditions)?;
        staged.snapshot.check(root, state)?;
    }
    if keeps(Rule::CheckExpected) {
        staged.snapshot.check_expected(root, state)?;
    }
    twins::refuse(root, staged)?;
    let mut outdated = false;
    let mut changed = Vec::new();
    if keeps(Rule::CheckDirectories) {
        are_emptied(root, staged)?;
        directories(root, staged)?;
    }
    staged.entries.iter().try_for_each(|staged| tree::check(root, &staged.entry))?;
    staged.entries.iter().try_for_each(|staged| built::check(root, &staged.contents))?;
    for (index, staged_entry) in staged.entries.iter_mut().enumerate() {
        let entry = &mut staged_entry.entry;
        if entry.action.is_of_directory() || entry.action.is_of_tree() {
            continue;
        }
        // A tree that makes way was checked above.
        let found = if entry.over.is_some() { None } else { still_in_directory(root, &entry.path)? };
        let target = Target::new(entry.path.clone(), found, entry.path.parent());
        match found.map(|found| found.kind) {
            // A link stands for itself only if that was so when the transaction looked at it.
            Some(Kind::Symlink) if may_be_link(entry) => {}
            Some(Kind::Symlink) => {
                return Err(Error::Conflict { path: root.full(&entry.path).into(), found: Clash::Symlink });
            }
            // Whoever said that the link goes has not seen this.
            Some(_) if was_link(entry) => {
                return Err(Error::Conflict { path: root.full(&entry.path).into(), found: Clash::NoSymlink });
            }
            Some(Kind::Other | Kind::Directory) => may_replace(root, &target, Operation::Stage)?,
            _ => {}
        }
        if keeps(Rule::CheckFlags) {
            not_frozen(root, &entry.path)?;
        }
        let is_current = original::is_current(root, &entry.path, entry.before.as_ref(), found.as_ref());
        if !is_current && keeps(Rule::CheckTargets) {
            entry.before = found.map(|found| original::record(root, &entry.path, &found));
            outdated = true;
        }
        if keeps(Rule::CheckStaged) {
            still_staged(root, staged_entry)?;
        }
        let model = match &staged_entry.attributes.model {
            Some(model) => look(root, model)?,
            None => found,
        };
        if let Some(found) = model.filter(|found| permissions::differ(staged_entry, found)) {
            changed.push((index, found));
        }
    }
    let is_current = !outdated && changed.is_empty();
    Ok(if is_current { Freshness::Current } else { Freshness::Outdated(changed) })
}

/// What is at a path, if what is above it is still a directory.
fn still_in_directory(root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
    match look(root, path) {
        Err(Error::InvalidPath { reason: InvalidPath::NotADirectory, .. }) => {
            let found = Clash::NoDirectory;
            Err(Error::Conflict { path: root.full(&path.parent()).into(), found })
        }
        found => found,
    }
}

/// Whether a link at the path of an entry is what is replaced or removed, and not the file it leads to.
fn may_be_link(entry: &Entry) -> bool {
    matches!(entry.action, Action::Link(_)) || was_link(entry)
}

/// Whether a link was there when the transaction looked at it.
fn was_link(entry: &Entry) -> bool {
    entry.before.is_some_and(|before| before.is_link)
}

fn is_link(target: &Target) -> bool {
    target.existing.is_some_and(|found| found.kind == Kind::Symlink)
}

/// Whether a symlink may be made here: in place of nothing, a file or a symlink. It cannot be copied over
/// a file that is a mount point.
pub(crate) fn may_link(root: &Root, target: &Target) -> Result<()> {
    if !root.fs.has_symlinks() {
        let reason = Reason::NoSymlinks;
        return Err(Error::Unsupported { path: root.full(&target.path).into(), reason });
    }
    may_stage(root, target)?;
    may_remove(root, target)
}

/// Whether the name of a symlink may be removed.
fn may_remove_link(root: &Root, path: &RelativePath) -> Result<()> {
    if root.assumes_permission() {
        return Ok(());
    }
    not_frozen(root, path)?;
    let allowed = if_found(root.fs.may_remove(path));
    allowed.map(drop).map_err(root.error(Operation::Remove, path))
}

/// Checks that each directory can still be made or removed. Its permissions, too: another program can have
/// changed them since the transaction was told of it, and the system would refuse after the commit point.
fn directories(root: &Root, staged: &Staged) -> Result<()> {
    let mut made = HashSet::new();
    let own = staged.cleanup.directories();
    for entry in
        staged.entries.iter().map(|staged| &staged.entry).filter(|entry| entry.action.is_of_directory())
    {
        let conflict = |found| Err(Error::Conflict { path: root.full(&entry.path).into(), found });
        let parent = entry.path.parent();
        let is_made = entry.action.is_new_directory();
        if is_made && !made.contains(&parent) && look(root, &parent)?.is_none() {
            return conflict(Clash::DirectoryMissing);
        }
        let found = if made.contains(&parent) { None } else { look(root, &entry.path)? };
        match found.map(|found| found.kind) {
            None if is_made && !made.contains(&parent) => {
                root.fs.may_create_in(&parent).map_err(root.error(Operation::Create, &entry.path))?;
            }
            None => {}
            // Others have made it, and for other users perhaps.
            Some(Kind::Directory) if has_own_mode(entry) && !own.contains(&entry.path) => {
                return conflict(Clash::Exists);
            }
            Some(Kind::Directory) if is_made => not_frozen(root, &entry.path)?,
            Some(Kind::Directory) => may_remove_directory(root, &entry.path)?,
            Some(_) => return conflict(Clash::NoDirectory),
        }
        if is_made {
            made.insert(entry.path.clone());
        }
    }
    Ok(())
}

/// Whether a directory is to be made with a mode, where nothing is.
fn has_own_mode(entry: &Entry) -> bool {
    matches!(entry.action, Action::CreateDirectory(NewDirectory { mode: Some(_), .. }))
        && entry.over.is_none()
        && keeps(Rule::CheckNewDirectories)
}

/// Whether a directory would be empty without what a transaction removes.
pub(crate) fn is_emptied(
    root: &Root,
    directory: &RelativePath,
    is_removed: impl Fn(&RelativePath) -> bool,
) -> Result<bool> {
    Ok(root.list(directory)?.into_iter().all(|entry| is_removed(&directory.child(&entry.name))))
}

/// Checks that the directories to be removed are empty without what the transaction removes.
fn are_emptied(root: &Root, staged: &Staged) -> Result<()> {
    let emptied = |(path, presence): &(&RelativePath, &Presence)| {
        (**presence == Presence::Emptied).then_some(()).map(|()| (*path).clone())
    };
    let emptied: Vec<_> = staged.preconditions.iter().filter_map(|one| emptied(&one)).collect();
    if emptied.is_empty() {
        return Ok(());
    }
    let goes =
        |staged: &&StagedEntry| matches!(staged.entry.action, Action::Remove | Action::RemoveDirectory);
    let removed: HashSet<_> = staged.entries.iter().filter(goes).map(|staged| &staged.entry.path).collect();
    for path in emptied {
        if look(root, &path)?.is_some() && !is_emptied(root, &path, |path| removed.contains(path))? {
            return Err(Error::Conflict { path: root.full(&path).into(), found: Clash::NotEmpty });
        }
    }
    Ok(())
}

/// Checks that a staged file is still the one that was written. Another program, or a sweep where locks
/// fail, may have removed or changed it.
fn still_staged(root: &Root, staged: &StagedEntry) -> Result<()> {
    let entry = &staged.entry;
    if let (Some(path), Action::Link(link)) = (entry.staged(), &entry.action) {
        let Some(found) = look(root, &path)? else {
            return Err(Error::Conflict { path: root.full(&entry.path).into(), found: Clash::StagedMissing });
        };
        if original::is_link(root, &path, &found, link) && found.identity == staged.identity {
            return Ok(());
        }
        return Err(Error::Conflict { path: root.full(&entry.path).into(), found: Clash::StagedReplaced });
    }
    let (Some(path), Action::Write(content)) = (entry.staged(), &entry.action) else { return Ok(()) };
    let conflict = |found| Err(Error::Conflict { path: root.full(&entry.path).into(), found });
    match look(root, &path)? {
        None => conflict(Clash::StagedMissing),
        Some(found) if found.kind != Kind::File || Stamp::of(&found) != content.after => {
            conflict(Clash::StagedChanged)
        }
        Some(found) if found.identity != staged.identity => conflict(Clash::StagedReplaced),
        Some(_) => Ok(()),
    }
}

/// Checks the preconditions of a transaction.
pub(crate) fn preconditions(root: &Root, preconditions: &Preconditions) -> Result<()> {
    for (path, presence) in preconditions {
        let found = match (presence, look(root, path)?) {
            (Presence::Absent, Some(_)) => Clash::Exists,
            (Presence::Exists | Presence::Emptied, None) => Clash::Missing,
            _ => continue,
        };
        return Err(Error::Conflict { path: root.full(path).into(), found });
    }
    Ok(())
}
