//! The directories that a draft builds in the place of files: which files these
//! are, where each directory is built, and what becomes of that.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::MovedTree;
use crate::path::RelativePath;
use crate::protocol::stage::StagedChange;

#[derive(Debug, Default)]
pub(crate) struct Building {
    /// The files and symlinks that go, in whose place a directory could come.
    pub(crate) gone: BTreeSet<RelativePath>,
    /// Where those directories are built that take the place of one.
    pub(crate) sites: BTreeMap<RelativePath, RelativePath>,
    /// The moves of those that are ready.
    pub(crate) moves: BTreeMap<RelativePath, MovedTree>,
}

impl Building {
    /// Where a path is built, once something is staged there.
    pub(crate) fn site(&self, path: &RelativePath) -> Option<RelativePath> {
        if self.gone.is_empty() {
            return None;
        }
        let way = path.chain().into_iter().find(|above| self.gone.contains(above))?;
        Some(path.moved(&way, self.sites.get(&way)?))
    }

    /// Takes what is ready, since the draft is collected.
    pub(crate) fn take_moves(&mut self) -> BTreeMap<RelativePath, MovedTree> {
        self.gone.clear();
        std::mem::take(&mut self.moves)
    }
}

/// Puts all that was staged in a directory into the change that moves it, which comes where its file goes.
pub(crate) fn gather(
    changes: Vec<StagedChange>,
    mut moves: BTreeMap<RelativePath, MovedTree>,
) -> Vec<StagedChange> {
    let ways: BTreeSet<_> = moves.keys().cloned().collect();
    if ways.is_empty() {
        return changes;
    }
    let mut contents: BTreeMap<RelativePath, Vec<StagedChange>> = BTreeMap::new();
    let mut rest = Vec::with_capacity(changes.len());
    for change in changes {
        let way = change.target().path.chain().into_iter().find(|above| ways.contains(above));
        match way.filter(|_| change.target().site.is_some()) {
            Some(way) => contents.entry(way).or_default().push(change),
            None => rest.push(change),
        }
    }
    let built = |change| match change {
        StagedChange::Remove(target) if ways.contains(&target.path) => {
            let contents = contents.remove(&target.path).unwrap_or_default();
            match moves.remove(&target.path) {
                Some(moved) => StagedChange::BuildTree(target, moved, contents),
                None => StagedChange::Remove(target),
            }
        }
        change => change,
    };
    rest.into_iter().map(built).collect()
}
