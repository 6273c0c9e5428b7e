//! Trees: directories that are moved or removed with everything in them, each
//! by a few renames, however much is in it.
//!
//! A tree is known by its inode and its time of birth. So every step can be
//! repeated, and what others have put in its place is never touched. A tree
//! that goes gets a staged file's name first. Its contents go only after that
//! is durable: a sweep finds what a crash leaves of them. A tree that replaces
//! another one waits beside it, under a name that no sweep removes, until both
//! are exchanged. So nobody sees the old tree where the new one was.

use std::ffi::OsString;
use std::io;

use uuid::Uuid;

use super::layout;
use super::original;
use super::root::{Root, if_found, is_gone};
use crate::error::{Error, Operation, Reason, Result};
use crate::expect::Clash;
use crate::fs::{CONTROL_DIRECTORY, DirectoryEntry, Kind, Metadata, Unsynced};
use crate::manifest::{Action, Entry, HiddenTree, MovedTree, TreeIdentity};
use crate::mutation::{Rule, keeps};
use crate::path::{InvalidPath, RelativePath};

/// Which directory is at a path; `None` if there is none, or if the system cannot tell directories apart.
pub(crate) fn identity(root: &Root, path: &RelativePath) -> Result<Option<TreeIdentity>> {
    identity_of(root, path, is_directory)
}

/// The same of a file or a symlink, which a directory is to replace.
pub(crate) fn file_identity(root: &Root, path: &RelativePath) -> Result<Option<TreeIdentity>> {
    identity_of(root, path, is_file)
}

/// Why there is no identity: something else is there by now, or the system cannot tell.
pub(crate) fn unidentified(root: &Root, path: &RelativePath, wanted: Kind) -> Error {
    let found = match root.look(path) {
        Err(error) => return error,
        Ok(None) => Clash::Missing,
        Ok(Some(found)) if (found.kind == Kind::Directory) != (wanted == Kind::Directory) => Clash::Changed,
        Ok(Some(_)) => {
            return Error::Unsupported { path: root.full(path).into(), reason: Reason::NoIdentity };
        }
    };
    Error::Conflict { path: root.full(path).into(), found }
}

fn identity_of(
    root: &Root,
    path: &RelativePath,
    is_wanted: impl Fn(&Metadata) -> bool,
) -> Result<Option<TreeIdentity>> {
    if root.look(path)?.filter(is_wanted).is_none() {
        return Ok(None);
    }
    let failed = |error| root.error(Operation::Look, path)(error);
    let born = if_found(root.fs.born(path)).map_err(failed)?.flatten();
    let found = if_found(root.fs.identity(path)).map_err(failed)?.flatten();
    let inode = found.map(|identity| identity.inode);
    let tree = TreeIdentity { inode, born: born.map(Into::into) };
    Ok((tree.inode.is_some() || tree.born.is_some()).then_some(tree))
}

fn is_directory(found: &Metadata) -> bool {
    found.kind == Kind::Directory
}

fn is_file(found: &Metadata) -> bool {
    matches!(found.kind, Kind::File | Kind::Symlink)
}

/// Whether this very directory is at a path.
pub(crate) fn is_at(root: &Root, path: &RelativePath, tree: TreeIdentity) -> Result<bool> {
    Ok(is_same(identity(root, path)?, tree))
}

/// Whether something that is to go is at a path: the directory that a moved tree replaces, or any file if one
/// was there when the commit was checked.
///
/// Another program may have put a new file there since, by a rename. At the names that only we give it is the
/// same file as before, though overlayfs gives it another time of birth when it moves.
pub(crate) fn gives_way_at(
    root: &Root,
    entry: &Entry,
    path: &RelativePath,
    replaced: &HiddenTree,
) -> Result<bool> {
    match entry.before {
        Some(_) if keeps(Rule::ReplaceAnyFile) => Ok(root.look(path)?.is_some_and(|found| is_file(&found))),
        Some(_) => Ok(is_same(file_identity(root, path)?, replaced.tree)),
        None => is_at(root, path, replaced.tree),
    }
}

fn is_same(found: Option<TreeIdentity>, tree: TreeIdentity) -> bool {
    let Some(found) = found else { return false };
    let inodes = found.inode.zip(tree.inode).map(|(found, known)| found == known);
    let births = found.born.zip(tree.born).map(|(found, known)| found == known);
    let is_same = match (inodes, births) {
        (None, None) => false,
        (inodes, births) => inodes.unwrap_or(true) && births.unwrap_or(true),
    };
    is_same || !keeps(Rule::KnowTrees)
}

/// Whether a path is this directory's, or lies below it.
pub(crate) fn holds(directory: &RelativePath, path: &RelativePath) -> bool {
    path.as_path().starts_with(directory.as_path())
}

/// Where a tree waits until it is exchanged with the one that it replaces. No sweep removes it: while it
/// waits there, it has no other name.
pub(crate) fn waiting(target: &RelativePath, hidden: &HiddenTree) -> RelativePath {
    let hash = blake3::hash(hidden.name.as_encoded_bytes());
    layout::single(target, Uuid::from_bytes(std::array::from_fn(|index| hash.as_bytes()[index])))
}

/// Where any tree that is moved can wait, also one that replaces nothing.
fn beside(target: &RelativePath, moved: &MovedTree) -> RelativePath {
    let nothing = || HiddenTree { name: moved.from.as_path().into(), tree: moved.tree };
    waiting(target, &moved.replaced.clone().unwrap_or_else(nothing))
}

/// Where a tree that is to be moved is now; `None` if it is gone.
pub(crate) fn place(root: &Root, target: &RelativePath, moved: &MovedTree) -> Result<Option<RelativePath>> {
    for path in [target.clone(), beside(target, moved), moved.from.clone()] {
        if is_at(root, &path, moved.tree)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a directory can leave its place, as far as that can be known.
pub(crate) fn may_go(root: &Root, path: &RelativePath) -> Result<()> {
    let failed = |error| root.error(Operation::MoveDirectory, path)(error);
    let control = root.fs.control_in_root();
    if control.is_some_and(|control| holds(path, &control)) {
        return Err(Error::invalid(root.full(path), InvalidPath::Control));
    }
    if root.look(&path.child(CONTROL_DIRECTORY))?.is_some() {
        return Err(Error::Unsupported { path: root.full(path).into(), reason: Reason::RootInTree });
    }
    root.fs.may_rename_over(path).map_err(failed)?;
    root.fs.may_remove(path).map_err(failed)?;
    let devices = [path.clone(), path.parent()].map(|path| root.fs.metadata(&path).map(device));
    let [own, above] = devices;
    if own.map_err(failed)? != above.map_err(failed)? {
        return Err(failed(io::ErrorKind::CrossesDevices.into()));
    }
    Ok(())
}

fn device(found: Metadata) -> Option<u64> {
    found.identity.map(|identity| identity.device)
}

/// Whether nothing below a directory is mounted, so that all of it can be deleted.
pub(crate) fn may_be_deleted(root: &Root, path: &RelativePath) -> Result<()> {
    let failed = |error| root.error(Operation::Remove, path)(error);
    match root.fs.has_mounts_below(path).map_err(failed)? {
        true => Err(failed(io::ErrorKind::ResourceBusy.into())),
        false => Ok(()),
    }
}

/// Whether a directory can be moved into another one, which exists.
pub(crate) fn may_move_into(root: &Root, path: &RelativePath, directory: &RelativePath) -> Result<()> {
    let failed = |error| root.error(Operation::MoveDirectory, path)(error);
    root.fs.may_create_in(directory).map_err(failed)?;
    if path.parent() == *directory {
        return Ok(());
    }
    // Its entry `..` changes (rename(2), EACCES).
    root.fs.may_create_in(path).map_err(failed)?;
    let here = (mount(root, &path.parent())?, root.fs.metadata(path).map(device).map_err(failed)?);
    let there = (mount(root, directory)?, root.fs.metadata(directory).map(device).map_err(failed)?);
    if here == there { Ok(()) } else { Err(failed(io::ErrorKind::CrossesDevices.into())) }
}

/// The nearest mount point at or above a directory. A rename cannot leave it, even on one file system
/// (rename(2), EXDEV).
fn mount(root: &Root, directory: &RelativePath) -> Result<RelativePath> {
    for above in directory.chain().into_iter().rev() {
        if root.fs.is_mount_point(&above).map_err(root.error(Operation::Look, &above))? {
            return Ok(above);
        }
    }
    Ok(RelativePath::root())
}

/// Checks under the lock that a tree is still where it was, and can still go.
pub(crate) fn check(root: &Root, entry: &Entry) -> Result<()> {
    let changed = |path: &RelativePath, found| Err(Error::Conflict { path: root.full(path).into(), found });
    let stays = |path: &RelativePath, tree| -> Result<()> {
        match root.look(path)? {
            None => return changed(path, Clash::Missing),
            Some(found) if !is_directory(&found) => return changed(path, Clash::NoDirectory),
            Some(_) => {}
        }
        // Overlayfs may copy it for that, and it then has another time of birth.
        root.fs.may_move_directory(path).map_err(root.error(Operation::MoveDirectory, path))?;
        if is_at(root, path, tree)? { may_go(root, path) } else { changed(path, Clash::Changed) }
    };
    let goes = |hidden: &HiddenTree| {
        stays(&entry.path, hidden.tree)?;
        may_be_deleted(root, &entry.path)
    };
    match &entry.action {
        Action::RemoveTree(hidden) => goes(hidden),
        Action::MoveTree(moved) => {
            stays(&moved.from, moved.tree)?;
            match &moved.replaced {
                Some(hidden) if entry.before.is_some() => check_file(root, entry, hidden)?,
                Some(hidden) => goes(hidden)?,
                None if root.look(&entry.path)?.is_some() => return changed(&entry.path, Clash::Exists),
                None => {}
            }
            match root.look(&entry.path.parent())? {
                None => return changed(&entry.path, Clash::DirectoryMissing),
                Some(found) if !is_directory(&found) => {
                    return changed(&entry.path.parent(), Clash::NoDirectory);
                }
                Some(_) => {}
            }
            may_move_into(root, &moved.from, &entry.path.parent())
        }
        _ => entry.over.as_ref().map_or(Ok(()), goes),
    }
}

/// Checks that a file whose place a directory takes is still the same, and can go.
fn check_file(root: &Root, entry: &Entry, hidden: &HiddenTree) -> Result<()> {
    let path = &entry.path;
    let found = root.look(path)?;
    let is_same = is_same(file_identity(root, path)?, hidden.tree)
        && original::is_current(root, path, entry.before.as_ref(), found.as_ref());
    if !is_same {
        let found = found.map_or(Clash::Missing, |_| Clash::Changed);
        return Err(Error::Conflict { path: root.full(path).into(), found });
    }
    root.fs.may_rename_over(path).map_err(root.error(Operation::Remove, path))?;
    root.fs.may_remove(path).map_err(root.error(Operation::Remove, path))
}

/// The debt for a name in a directory, or for the directory that went with it.
fn debt(root: &Root, path: &RelativePath) -> Result<Unsynced> {
    let mut above = path.parent();
    while !root.has_directory(&above)? {
        above = above.parent();
    }
    Ok(Unsynced::directory(above))
}

/// The debts for all names of a tree. Whoever was killed may have renamed it, and not waited.
pub(crate) fn debts(root: &Root, entry: &Entry) -> Result<Unsynced> {
    entry.paths().try_fold(Unsynced::default(), |owed, path| Ok(owed.and(debt(root, path)?)))
}

fn rename(root: &Root, from: &RelativePath, to: &RelativePath) -> Result<Unsynced> {
    root.fs.rename_directory(from, to).map_err(root.error(Operation::MoveDirectory, to))
}

/// Moves or hides a tree. Every step can be repeated, and does nothing if it is done.
pub(crate) fn put(root: &Root, entry: &Entry) -> Result<Unsynced> {
    let mut owed = debts(root, entry)?;
    match &entry.action {
        Action::RemoveTree(hidden) => owed.add(hide(root, &entry.path, hidden)?),
        Action::MoveTree(moved) => owed.add(put_moved(root, entry, moved)?),
        _ => {}
    }
    Ok(owed)
}

/// Renames a tree that was at `from` a moment ago. Another directory, that a program has put there since, gets its
/// name again. Returns whether it was the tree.
fn rename_tree(
    root: &Root,
    (from, to): (&RelativePath, &RelativePath),
    tree: TreeIdentity,
) -> Result<(Unsynced, bool)> {
    let renamed = rename(root, from, to)?;
    if is_at(root, to, tree)? || !keeps(Rule::CheckMoved) {
        return Ok((renamed, true));
    }
    Ok((renamed.and(rename(root, to, from)?), false))
}

/// Hides a tree that goes, if it is still there.
fn hide(root: &Root, path: &RelativePath, hidden: &HiddenTree) -> Result<Unsynced> {
    match is_at(root, path, hidden.tree)? {
        true => Ok(rename_tree(root, (path, &path.with_name(&hidden.name)), hidden.tree)?.0),
        false => Ok(Unsynced::default()),
    }
}

fn moved_away(root: &Root, path: &RelativePath) -> Error {
    root.error(Operation::MoveDirectory, path)(io::ErrorKind::NotFound.into())
}

/// Renames a tree that is to be somewhere, from where it was a moment ago.
fn bring(root: &Root, names: (&RelativePath, &RelativePath), tree: TreeIdentity) -> Result<Unsynced> {
    match rename_tree(root, names, tree)? {
        (owed, true) => Ok(owed),
        (owed, false) => {
            owed.waive("the commit stays pending, and recovery syncs what it finds");
            Err(moved_away(root, names.0))
        }
    }
}

/// Hides the tree whose place an entry takes, if there is one and it is still there.
pub(crate) fn make_way(root: &Root, entry: &Entry) -> Result<Unsynced> {
    entry.over.as_ref().map_or_else(|| Ok(Unsynced::default()), |hidden| hide(root, &entry.path, hidden))
}

/// Whether the tree whose place an entry takes is still there.
pub(crate) fn is_in_the_way(root: &Root, entry: &Entry) -> Result<bool> {
    entry.over.as_ref().map_or(Ok(false), |hidden| is_at(root, &entry.path, hidden.tree))
}

fn put_moved(root: &Root, entry: &Entry, moved: &MovedTree) -> Result<Unsynced> {
    let target = &entry.path;
    let mut owed = Unsynced::default();
    let Some(mut place) = place(root, target, moved)? else {
        // Another program has moved it since the check.
        return Err(moved_away(root, &moved.from));
    };
    let Some(replaced) = &moved.replaced else {
        if place != *target {
            owed.add(bring(root, (&place, target), moved.tree)?);
        }
        return Ok(owed);
    };
    let (waiting, hidden) = (waiting(target, replaced), target.with_name(&replaced.name));
    if place != *target && gives_way_at(root, entry, target, replaced)? {
        if place != waiting {
            owed.add(bring(root, (&place, &waiting), moved.tree)?);
            place = waiting.clone();
        }
        match root.fs.exchange(&waiting, target) {
            Ok(exchanged) if gives_way_at(root, entry, &waiting, replaced)? || !keeps(Rule::CheckMoved) => {
                owed.add(exchanged);
                place = target.clone();
            }
            // Another program has put a directory there just before, which is not to be deleted.
            Ok(exchanged) => {
                let failed = |error| root.error(Operation::MoveDirectory, target)(error);
                let back = root.fs.exchange(&waiting, target).map_err(failed)?;
                exchanged.and(back).waive("the commit stays pending, and recovery syncs what it finds");
                return Err(failed(io::ErrorKind::AlreadyExists.into()));
            }
            // The name leads nowhere for a moment. Then the new tree is moved to a free name below.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                owed.add(match entry.before {
                    Some(_) => rename(root, target, &hidden)?,
                    None => hide(root, target, replaced)?,
                });
            }
            Err(error) => return Err(root.error(Operation::MoveDirectory, target)(error)),
        }
    }
    if place != *target {
        owed.add(bring(root, (&place, target), moved.tree)?);
    }
    owed.add(hide_replaced(root, entry)?);
    Ok(owed)
}

/// Hides what a tree has replaced, if it still waits where no sweep removes it.
pub(crate) fn hide_replaced(root: &Root, entry: &Entry) -> Result<Unsynced> {
    let replaced = match &entry.action {
        Action::MoveTree(moved) => moved.replaced.as_ref(),
        _ => None,
    };
    let Some(replaced) = replaced else { return Ok(Unsynced::default()) };
    let waiting = waiting(&entry.path, replaced);
    match gives_way_at(root, entry, &waiting, replaced)? {
        true => rename(root, &waiting, &entry.path.with_name(&replaced.name)),
        false => Ok(Unsynced::default()),
    }
}

/// The renames that undo what `put` has done, as far as it has, in order. Each is from where something is to
/// where it was.
pub(crate) fn ways_back(root: &Root, entry: &Entry) -> Result<Vec<(RelativePath, RelativePath)>> {
    let target = &entry.path;
    let mut ways = Vec::new();
    match (&entry.action, &entry.over) {
        (Action::MoveTree(moved), _) => {
            let place = place(root, target, moved)?.filter(|place| *place != moved.from);
            ways.extend(place.map(|place| (place, moved.from.clone())));
            let Some(replaced) = &moved.replaced else { return Ok(ways) };
            for name in [waiting(target, replaced), target.with_name(&replaced.name)] {
                if gives_way_at(root, entry, &name, replaced)? {
                    ways.push((name, target.clone()));
                }
            }
        }
        (Action::RemoveTree(removed), _) | (_, Some(removed)) => {
            let hidden = target.with_name(&removed.name);
            if is_at(root, &hidden, removed.tree)? {
                ways.push((hidden, target.clone()));
            }
        }
        _ => {}
    }
    Ok(ways)
}

/// Undoes what `put` has done, so that it can be done again. If others use the old name of a moved tree by now,
/// it goes to where it waits. A removed one stays hidden then: their own change of its name is new to sync.
pub(crate) fn take_back(root: &Root, entry: &Entry) -> Result<Unsynced> {
    let mut owed = Unsynced::default();
    for (from, to) in ways_back(root, entry)? {
        match (root.fs.rename_directory(&from, &to), &entry.action) {
            (Err(error), Action::MoveTree(moved)) if is_taken(&error) && to == moved.from => {
                owed.add(rename(root, &from, &beside(&entry.path, moved))?);
            }
            (Err(error), _) if is_taken(&error) => {}
            (renamed, _) => owed.add(renamed.map_err(root.error(Operation::MoveDirectory, &to))?),
        }
    }
    Ok(owed)
}

/// Whether something cannot have a name because others use it, or have removed the directory above it.
pub(crate) fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists || is_gone(error)
}

/// Deletes a hidden tree, as far as that is allowed. Follows no symlink, and leaves what is mounted in it.
pub(crate) fn delete(root: &Root, top: &RelativePath) -> io::Result<Unsynced> {
    let Some(found) = if_found(root.fs.metadata(top))? else { return Ok(Unsynced::default()) };
    if !is_directory(&found) {
        return root.fs.remove_file(top);
    }
    let mut deletion = Deletion { root, top, device: device(found), ahead: Vec::new(), failed: None };
    deletion.ahead.push((top.clone(), root.fs.list(top)?));
    while let Some((directory, entries)) = deletion.ahead.last_mut() {
        let Some(entry) = entries.pop() else {
            let directory = directory.clone();
            deletion.ahead.pop();
            if directory == *top {
                break;
            }
            let removed = root.fs.remove_dir(&directory);
            deletion.note(removed.map(|debt| debt.waive("the directory above it goes, too")));
            continue;
        };
        let path = directory.child(&entry.name);
        let done = match entry.kind {
            Kind::Directory => deletion.enter(path),
            _ => root.fs.remove_file(&path).map(|debt| debt.waive("its directory goes, too")),
        };
        deletion.note(done);
    }
    match deletion.failed {
        Some(error) => Err(error),
        None => root.fs.remove_dir(top),
    }
}

/// How deep a tree is deleted where it lies. The handle of a directory is found by way of all above it, of
/// which few are kept open.
const DEPTH_MAX: usize = 16;

/// The same where directories cannot be moved up. Below this the stack could end.
const DEPTH_MAX_IN_PLACE: usize = 256;

/// The deletion of a tree, without recursion.
struct Deletion<'a> {
    root: &'a Root,
    top: &'a RelativePath,
    device: Option<u64>,
    /// The directories on the way down, each with what is left to delete in it.
    ahead: Vec<(RelativePath, Vec<DirectoryEntry>)>,
    /// Why something stays. What is beside it goes all the same.
    failed: Option<io::Error>,
}

impl Deletion<'_> {
    fn note(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            self.failed.get_or_insert(error);
        }
    }

    /// Goes on in a directory. One that lies very deep is moved up first.
    fn enter(&mut self, path: RelativePath) -> io::Result<()> {
        let fs = &self.root.fs;
        let is_elsewhere = device(fs.metadata(&path)?) != self.device;
        if is_elsewhere || fs.is_mount_point(&path)? {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let depth = self.ahead.len();
        if depth >= DEPTH_MAX {
            let name: OsString = fs.unique().to_string().into();
            match fs.rename_directory(&path, &self.top.child(&name)) {
                Ok(moved) => {
                    moved.waive("the directory above it goes, too");
                    let entry = DirectoryEntry { name, kind: Kind::Directory };
                    self.ahead.first_mut().into_iter().for_each(|(_, entries)| entries.push(entry.clone()));
                    return Ok(());
                }
                Err(error) if depth >= DEPTH_MAX_IN_PLACE => return Err(error),
                Err(_) => {}
            }
        }
        let names = fs.list(&path)?;
        self.ahead.push((path, names));
        Ok(())
    }
}
