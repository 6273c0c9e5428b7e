//! What follows from a transaction's changes together: which directories they
//! empty, and which of them cannot both be.
//!
//! Looks at the disk and at the draft. The removals that it adds are changes like
//! any other.

use std::collections::{BTreeSet, HashSet};

use crate::draft::{Content, Draft, Slot};
use crate::error::{Error, Result};
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::check;
use crate::protocol::resolve::Target;
use crate::protocol::root::Root;
use crate::protocol::stage::StagedChange;

/// Whether a change removes what is at its path.
pub(crate) fn goes(slot: &Slot) -> bool {
    slot.goes()
}

/// Refuses two changes that cannot both be: something below a file, or in a directory that is moved or
/// removed.
pub(crate) fn refuse_contradictions(root: &Root, draft: &Draft) -> Result<()> {
    let is_no_directory = |slot: &&Slot| {
        !matches!(slot.content, Content::Ready(StagedChange::CreateDirectory(_)))
            && !draft.is_gone(&slot.path)
    };
    let others: HashSet<_> = draft.slots.values().filter(is_no_directory).map(|slot| &slot.path).collect();
    for slot in draft.slots.values() {
        let change = match &slot.content {
            Content::Ready(change) => Some(change),
            _ => None,
        };
        let trees: Vec<_> = change.into_iter().flat_map(StagedChange::trees).collect();
        for path in trees.iter().copied().chain([&slot.path]) {
            let is_own =
                |tree: &RelativePath| tree == path && (trees.contains(&tree) || draft.is_refilled(tree));
            if draft.tree_above(&path.parent()).is_some()
                || draft.tree_above(path).is_some_and(|tree| !is_own(&tree))
            {
                return Err(Error::invalid(root.full(path), InvalidPath::Contradiction));
            }
        }
    }
    for slot in draft.slots.values().filter(|slot| !goes(slot)) {
        let mut above = slot.path.parent();
        while !above.is_root() {
            if others.contains(&above) {
                return Err(Error::invalid(root.full(&slot.path), InvalidPath::Contradiction));
            }
            above = above.parent();
        }
    }
    Ok(())
}

/// Takes back the removals that were added.
pub(crate) fn unprune(draft: &mut Draft) {
    for directory in std::mem::take(&mut draft.pruned) {
        let was_asked_for = draft.preconditions.contains_key(&directory);
        if !was_asked_for && draft.newest(&directory).is_some_and(goes) {
            draft.take(&directory, u64::MAX);
        }
    }
}

/// Adds the removal of every directory that the transaction empties, if it is to prune.
pub(crate) fn prune(root: &Root, draft: &mut Draft) -> Result<()> {
    unprune(draft);
    if !draft.prunes {
        return Ok(());
    }
    let made = draft.slots.values().filter(|slot| !goes(slot)).map(|slot| &slot.path);
    let needed: HashSet<_> = made.chain(&draft.asked_for).flat_map(RelativePath::chain).collect();
    let mut gone: HashSet<_> =
        draft.slots.values().filter(|slot| goes(slot)).map(|slot| slot.path.clone()).collect();
    // The deepest last, so that it is taken first.
    let depth = |path: &RelativePath| (path.names().count(), path.clone());
    let mut emptied: BTreeSet<_> = gone.iter().map(|path| depth(&path.parent())).collect();
    while let Some((_, directory)) = emptied.pop_last() {
        if directory.is_root() || needed.contains(&directory) || gone.contains(&directory) {
            continue;
        }
        let Some(found) = root.look(&directory)? else { continue };
        let is_free = check::is_emptied(root, &directory, |path| gone.contains(path))?
            && check::may_remove_directory(root, &directory).is_ok();
        if !is_free {
            continue;
        }
        emptied.insert(depth(&directory.parent()));
        draft.pruned.push(directory.clone());
        gone.insert(directory.clone());
        draft.numbers += 1;
        let number = draft.numbers;
        let target = Target::new(directory.clone(), Some(found), directory.parent());
        let content = Content::Ready(StagedChange::RemoveDirectory(target));
        draft.put(Slot { path: directory, number, content });
    }
    Ok(())
}
