//! What recovery will do with whole trees, and what later moves of trees mean for
//! the entries of earlier generations. Looks, and changes nothing.

use std::collections::HashMap;

use super::super::root::Root;
use super::super::{original, tree};
use crate::error::Result;
use crate::generation::Generation;
use crate::manifest::{Action, Entry};
use crate::path::RelativePath;

/// The trees that manifests name, by each path that they are or were at.
#[derive(Debug, Default)]
pub(super) struct Trees(HashMap<RelativePath, Vec<(Generation, Entry)>>);

impl Trees {
    /// Notes an entry, if it is of a tree.
    pub(super) fn note(&mut self, generation: Generation, entry: &Entry) {
        if entry.is_of_tree() {
            for path in entry.paths() {
                self.0.entry(path.clone()).or_default().push((generation, entry.clone()));
            }
        }
    }

    /// The trees of later generations that a path is in, before or after their move.
    pub(super) fn after(&self, generation: Generation, path: &RelativePath) -> impl Iterator<Item = &Entry> {
        // Most roots have none.
        let above = if self.0.is_empty() { Vec::new() } else { path.chain() };
        let trees = above.into_iter().filter_map(|above| self.0.get(&above)).flatten();
        trees.filter(move |(later, _)| *later > generation).map(|(_, entry)| entry)
    }
}

/// What is left to do with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Its removal is done. Whatever is at its path was put there later.
    Nothing,
    /// To move or to hide it, or a part of that.
    Something,
    /// The same, after the file whose place it takes got a second name: another program has changed it.
    SetAside,
    /// Something else has the place that it is to have.
    Occupied,
    /// It is nowhere.
    Gone,
}

pub(super) fn left(root: &Root, entry: &Entry) -> Result<Left> {
    match &entry.action {
        Action::RemoveTree(hidden) if tree::is_at(root, &entry.path, hidden.tree)? => Ok(Left::Something),
        Action::MoveTree(moved) => {
            let Some(place) = tree::place(root, &entry.path, moved)? else { return Ok(Left::Gone) };
            let found = root.look(&entry.path)?;
            let gives_way = match &moved.replaced {
                Some(hidden) => tree::gives_way_at(root, entry, &entry.path, hidden)?,
                None => false,
            };
            let before = entry.before.as_ref();
            Ok(match found {
                _ if place == entry.path => Left::Something,
                None => Left::Something,
                Some(_) if !gives_way => Left::Occupied,
                Some(_) if before.is_none() => Left::Something,
                Some(found) if original::has_content(root, &entry.path, before, &found)? => Left::Something,
                Some(_) => Left::SetAside,
            })
        }
        _ => Ok(Left::Nothing),
    }
}
