//! What a staged change says of its paths, and of whole directories.

use super::layout::{self, StagedId};
use super::resolve::Target;
use super::stage::{StagedChange, StagedFile};
use crate::manifest::MovedTree;
use crate::path::RelativePath;

impl StagedChange {
    /// Whether nothing is left at its path.
    pub(crate) fn is_removal(&self) -> bool {
        matches!(self, Self::Remove(_) | Self::RemoveDirectory(_) | Self::RemoveTree(..))
    }

    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Write(StagedFile { target, .. }) | Self::Remove(target) => target,
            Self::CreateDirectory(target) | Self::RemoveDirectory(target) => target,
            Self::Link(link) => &link.target,
            Self::MoveTree(target, _) | Self::RemoveTree(target, _) => target,
            Self::BuildTree(target, ..) => target,
            Self::Over(change, _) => change.target(),
        }
    }

    /// The staged file, if there is one.
    pub(crate) fn staged(&self) -> Option<&RelativePath> {
        match self {
            Self::Write(file) => Some(&file.staged),
            Self::Link(link) => Some(&link.staged),
            Self::Over(change, _) => change.staged(),
            _ => None,
        }
    }

    /// Gives a tree that goes the name under which it waits for its contents to be deleted.
    pub(crate) fn hide_as(&mut self, id: StagedId) {
        let (target, hidden) = match self {
            Self::RemoveTree(target, hidden) => (target, hidden),
            Self::MoveTree(target, MovedTree { replaced: Some(hidden), .. }) => (target, hidden),
            _ => return,
        };
        let path = layout::staged(&target.path.parent(), target.path.name(), id);
        hidden.name = path.name().to_owned();
    }

    /// Whether a directory is at its path then.
    pub(crate) fn makes_directory(&self) -> bool {
        matches!(self, Self::CreateDirectory(_) | Self::MoveTree(..) | Self::BuildTree(..))
    }

    /// The directories that it moves or removes with everything in them: its own path, and where it was.
    pub(crate) fn trees(&self) -> impl Iterator<Item = &RelativePath> {
        let (own, from) = match self {
            Self::MoveTree(target, moved) | Self::BuildTree(target, moved, _) => {
                (Some(&target.path), Some(&moved.from))
            }
            Self::RemoveTree(target, _) => (Some(&target.path), None),
            Self::Over(change, _) => (Some(&change.target().path), None),
            _ => (None, None),
        };
        own.into_iter().chain(from)
    }

    /// The paths whose directories it needs, and the directories that it has built: of its staged file, of its
    /// trees, or of all that is in one.
    pub(crate) fn needed(&self) -> impl Iterator<Item = &RelativePath> {
        let contents = match self {
            Self::BuildTree(_, _, contents) => contents.as_slice(),
            _ => &[],
        };
        let built = contents.iter().map(|change| change.target().place());
        self.staged().into_iter().chain(self.trees()).chain(built)
    }
}
