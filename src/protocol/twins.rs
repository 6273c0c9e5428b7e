//! Twins: two paths of a transaction that are one file or directory, under two
//! names or in a directory that is mounted twice.
//!
//! The draft compares paths as they are spelled. What the file system takes for
//! one is asked under the lock. After the commit point a second move to one
//! name would fail, and what is staged in a tree would go with it. Looks, and
//! makes a file for a moment only to see whether two new names are one.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};

use super::layout::{self, StagedId};
use super::resolve::look;
use super::root::{Root, if_there};
use super::stage::{Staged, StagedEntry};
use crate::error::{Error, Operation, Result};
use crate::fs::{Identity, Kind, NewFile};
use crate::generation::TransactionId;
use crate::manifest::Action;
use crate::mutation::{Rule, keeps};
use crate::path::{InvalidPath, RelativePath};

/// Refuses two entries that are one, and those that lie in the tree of another one by its other name.
pub(crate) fn refuse(root: &Root, staged: &Staged) -> Result<()> {
    refuse_new(root, staged)?;
    refuse_trees(root, &staged.entries)
}

/// Refuses a path that leads to a tree that moves or goes, or into it, by another spelling. The rest would be
/// looked for where the tree was, or go with it.
fn refuse_trees(root: &Root, entries: &[StagedEntry]) -> Result<()> {
    let mut trees = HashMap::new();
    for path in entries.iter().filter(|staged| staged.entry.is_of_tree()).flat_map(|one| one.entry.paths()) {
        if let Some(identity) = identity(root, path)? {
            trees.insert(identity, path);
        }
    }
    if trees.is_empty() {
        return Ok(());
    }
    let mut seen = HashSet::new();
    for path in entries.iter().flat_map(|staged| staged.entry.paths()) {
        for above in path.chain() {
            if !seen.insert(above.clone()) {
                continue;
            }
            let Some(found) = identity(root, &above)? else { break };
            if trees.get(&found).is_some_and(|tree| **tree != above) {
                return Err(Error::invalid(root.full(path), InvalidPath::Alias));
            }
        }
    }
    Ok(())
}

/// What tells a directory from all others.
fn identity(root: &Root, path: &RelativePath) -> Result<Option<Identity>> {
    if !root.has_directory(path)? {
        return Ok(None);
    }
    Ok(if_there(root.fs.identity(path)).map_err(root.error(Operation::Look, path))?.flatten())
}

/// The number of a file that no transaction stages: it counts from 1.
const UNUSED: u64 = 0;

/// New names of one directory that may be one.
#[derive(Default)]
struct Names<'a> {
    names: HashSet<&'a OsStr>,
    others: Vec<&'a StagedEntry>,
    /// Whether the directory ignores case. Only asked if there are two names.
    folds: Option<bool>,
}

/// Refuses two entries that are one new file or directory under two names. The second move would silently
/// replace the file of the first, or fail.
fn refuse_new(root: &Root, staged: &Staged) -> Result<()> {
    let mut by_name: HashMap<String, Vec<&StagedEntry>> = HashMap::new();
    let is_new = |one: &&StagedEntry| is_moved(one) || one.entry.action.is_new_directory();
    for staged in staged.entries.iter().filter(is_new) {
        by_name.entry(folded(&staged.entry.path.name().to_string_lossy())).or_default().push(staged);
    }
    for alike in by_name.into_values().filter(|alike| alike.len() > 1) {
        let mut seen: HashMap<_, Names<'_>> = HashMap::new();
        for one in alike {
            let path = &one.entry.path;
            // Nothing is moved to where no directory is yet, or the checks that follow refuse it.
            let parent = look(root, &path.parent())?.filter(|found| found.kind == Kind::Directory);
            let Some(found) = parent else { continue };
            let directory = (found.identity, found.identity.is_none().then(|| path.parent()));
            let Names { names, others, folds } = seen.entry(directory).or_default();
            if !others.is_empty() && folds.is_none() {
                // Two directories that are made, and are one, do no harm.
                let moved = others.iter().copied().chain([one]).filter(|one| is_moved(one));
                let moved = moved.max_by_key(|one| one.entry.staged().is_some());
                *folds = moved.map(|moved| folds_case(root, staged.id, moved)).transpose()?;
            }
            let is_twin = !names.insert(path.name())
                || *folds == Some(true) && is_one_of(root, staged.id, others, one)?;
            others.push(one);
            if is_twin {
                return Err(Error::invalid(root.full(path), InvalidPath::Alias));
            }
        }
    }
    Ok(())
}

/// Whether something gets this name by a move, which fails or replaces what has the name already.
fn is_moved(staged: &StagedEntry) -> bool {
    let is_tree = matches!(staged.entry.action, Action::MoveTree(_)) && keeps(Rule::CheckBuilt);
    staged.entry.staged().is_some() || is_tree
}

/// Whether a directory ignores case in names.
fn folds_case(root: &Root, id: TransactionId, moved: &StagedEntry) -> Result<bool> {
    is_found_as(root, id, moved, |name| Some(name.to_string_lossy().to_uppercase().into()))
}

/// Whether a directory that folds names takes the name of an entry for that of one of `others`.
fn is_one_of(root: &Root, id: TransactionId, others: &[&StagedEntry], one: &StagedEntry) -> Result<bool> {
    for other in others {
        // A staged file is there already. For a tree one must be made.
        let is_own = one.entry.staged().is_some() || !is_moved(other);
        let (probe, other) = if is_own { (one, *other) } else { (*other, one) };
        if !is_moved(probe) {
            continue;
        }
        let other = other.entry.path.name();
        let as_other = |name: &OsStr| {
            let staged = layout::staged(&RelativePath::root(), other, layout::parse_staged(name)?);
            // Long names that differ only where they are cut are taken for two.
            Some(staged.name().to_owned()).filter(|staged| staged != name)
        };
        if is_found_as(root, id, probe, as_other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an entry's staged file is found under another name. If there is none, one is made for this.
fn is_found_as(
    root: &Root,
    id: TransactionId,
    probe: &StagedEntry,
    as_other: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<bool> {
    let path = &probe.entry.path;
    let is_found = |file: &RelativePath| match as_other(file.name()) {
        Some(name) => Ok(look(root, &file.with_name(name))?.is_some()),
        None => Ok(false),
    };
    if let Some(file) = probe.entry.staged() {
        return is_found(&file);
    }
    // Its directory is on record, since a tree is moved there.
    let file = layout::staged(&path.parent(), path.name(), StagedId { transaction: id, number: UNUSED });
    let made = root.fs.create_new(&file, NewFile::Private).map_err(root.error(Operation::Stage, path))?;
    drop(made.0);
    made.1.waive("it is removed at once, or swept");
    let found = is_found(&file);
    root.try_remove(&file, "it is swept");
    found
}

/// Where a path lies, in whatever form it is written. It has the directory, and a name that is equal
/// for all names that a file system may take for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    directory: Directory,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Directory {
    Known(Identity),
    /// If directories cannot be told apart, their paths without links can.
    Named(String),
}

/// The places of all paths that a transaction changes or relies on. Two paths may be one file: in a
/// directory that is mounted twice, or if the file system ignores case or composition of characters.
pub(crate) fn places<'a>(
    root: &Root,
    paths: impl Iterator<Item = &'a RelativePath>,
) -> Result<HashSet<Place>> {
    let mut directories = HashMap::new();
    let mut places = HashSet::new();
    for path in paths {
        let parent = path.parent();
        if !directories.contains_key(&parent) {
            let identity = look(root, &parent)?.and_then(|found| found.identity);
            let named = || Directory::Named(folded(&parent.to_string()));
            directories.insert(parent.clone(), identity.map_or_else(named, Directory::Known));
        }
        places.insert(Place {
            directory: directories[&parent].clone(),
            name: folded(&path.name().to_string_lossy()),
        });
    }
    Ok(places)
}

/// Equal for all names that some file system may take for one. Case is ignored. Two names with non-ASCII
/// characters may be one if they have the same digits, dots and dashes. No letter with an accent is
/// composed of these, and no case changes them (Unicode Standard Annex #15; `CaseFolding.txt`).
fn folded(name: &str) -> String {
    let lower = name.to_lowercase();
    if lower.is_ascii() {
        return lower;
    }
    let is_fixed = |c: &char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    std::iter::once('\u{0}').chain(lower.chars().filter(is_fixed)).collect()
}
