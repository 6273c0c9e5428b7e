//! What recovery will do with whole trees, and what later moves of trees mean for
//! the entries of earlier generations. Looks, and changes nothing.

use std::io;

use super::super::root::Root;
use super::super::tree;
use crate::error::{Operation, Result};
use crate::generation::Generation;
use crate::manifest::{Action, Entry};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use crate::report::Finding;

/// The trees that manifests name, in the order of their generations.
#[derive(Debug, Default)]
pub(super) struct Trees(Vec<(Generation, Entry)>);

impl Trees {
    /// Notes an entry, if it is of a tree.
    pub(super) fn note(&mut self, generation: Generation, entry: &Entry) {
        if entry.is_of_tree() {
            self.0.push((generation, entry.clone()));
        }
    }

    /// The trees of later generations that a path is in, before or after their move.
    pub(super) fn after(&self, generation: Generation, path: &RelativePath) -> impl Iterator<Item = &Entry> {
        let later = self.0.iter().filter(move |(later, _)| *later > generation);
        later.map(|(_, entry)| entry).filter(|entry| entry.paths().any(|tree| tree::holds(tree, path)))
    }

    /// Whether a later generation has moved or removed the tree that a path was in. It did so after
    /// whatever this generation had to do there was durable.
    pub(super) fn have_overtaken(
        &self,
        root: &Root,
        generation: Generation,
        path: &RelativePath,
    ) -> Result<bool> {
        for entry in self.after(generation, path) {
            let is_done = match &entry.action {
                Action::RemoveTree(hidden) => !tree::is_at(root, &entry.path, hidden.tree)?,
                Action::MoveTree(moved) => !tree::is_at(root, &moved.from, moved.tree)?,
                _ => false,
            };
            if is_done && keeps(Rule::LeaveToLaterTrees) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is left to do with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// To move or to hide it, or a part of that.
    Something,
}

/// What is left to do with a tree, and what differs. If another directory has its place, that one stays as it
/// is. If the tree is nowhere, `gone` says so.
pub(super) fn left(root: &Root, entry: &Entry, gone: Finding) -> Result<(Left, Option<Finding>)> {
    let something = Ok((Left::Something, None));
    match &entry.action {
        Action::RemoveTree(hidden) if tree::is_at(root, &entry.path, hidden.tree)? => something,
        Action::MoveTree(moved) => match tree::place(root, &entry.path, moved)? {
            Some(place) if place != entry.path => {
                let is_replaced = || match &moved.replaced {
                    Some(hidden) => tree::is_at(root, &entry.path, hidden.tree),
                    None => Ok(false),
                };
                if root.look(&entry.path)?.is_some() && !is_replaced()? {
                    return Err(root.error(Operation::Move, &entry.path)(
                        io::ErrorKind::AlreadyExists.into(),
                    ));
                }
                something
            }
            Some(_) => something,
            None => Ok((Left::Nothing, Some(gone))),
        },
        // The tree that was to be removed is gone. Whatever is at its path was put there later.
        _ => Ok((Left::Nothing, None)),
    }
}
