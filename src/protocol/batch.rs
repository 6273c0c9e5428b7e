//! Batch: which transactions may be published in one wave, and which must come
//! after them. Looks, and changes nothing.

use std::collections::{BTreeSet, HashSet};

use super::queue::Job as _;
use super::root::Root;
use super::stage::Staged;
use super::twins;
use crate::error::Error;
use crate::mutation::{Rule, keeps};

/// A batch, divided.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    pub(crate) now: Vec<Staged>,
    pub(crate) later: Vec<Staged>,
    pub(crate) failed: Vec<(Staged, Error)>,
}

/// Puts off the transactions that may change a file of another one in the batch, under another name.
pub(crate) fn apart(root: &Root, batch: Vec<Staged>) -> Apart {
    let mut apart = Apart::default();
    if batch.len() < 2 || !keeps(Rule::TellPlacesApart) {
        apart.now = batch;
        return apart;
    }
    let mut taken = HashSet::new();
    let mut changed = BTreeSet::new();
    for staged in batch {
        // One that moves a whole tree changes every path below, so it is alone.
        let now = &apart.now;
        let is_beside_trees = !now.is_empty() && (staged.has_trees() || now.iter().any(Staged::has_trees));
        if is_beside_trees && keeps(Rule::TreesApart) {
            apart.later.push(staged);
            continue;
        }
        // It may have listed a directory in which another one makes a file, and is checked after that.
        if staged.snapshot.may_change_with(&changed) && keeps(Rule::CheckNamesAfter) {
            apart.later.push(staged);
            continue;
        }
        match twins::places(root, staged.keys()) {
            Ok(places) if taken.is_disjoint(&places) => {
                taken.extend(places);
                changed.extend(staged.entries.iter().map(|staged| staged.entry.path.clone()));
                apart.now.push(staged);
            }
            Ok(_) => apart.later.push(staged),
            Err(error) => apart.failed.push((staged, error)),
        }
    }
    apart
}

/// Takes away what may not be published in one wave with those before it. A power loss in the wave can
/// tear the manifests of small saves. So no long one follows them: a torn one is followed only by others
/// that could be torn, or is damaged.
pub(crate) fn after_smalls(checked: &mut Vec<Staged>) -> Vec<Staged> {
    let first_small = checked.iter().position(Staged::is_small).unwrap_or(checked.len());
    let smalls = checked[first_small..].iter().take_while(|staged| staged.is_small()).count();
    checked.split_off(first_small + smalls)
}
