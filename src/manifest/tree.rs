//! A moved or removed tree as JSON.

use serde::{Deserialize, Serialize};

use super::name::{Name, content, plain_name};
use super::{Action, HiddenTree, ManifestError, MovedTree, TreeIdentity};

/// What an entry says of trees.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TreeText {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    from: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    moved: Option<TreeIdentity>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    hidden: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    removed: Option<TreeIdentity>,
}

impl TreeText {
    pub(super) fn of_removed(hidden: &HiddenTree) -> Self {
        Self { from: None, moved: None, hidden: Some(Name::new(&hidden.name)), removed: Some(hidden.tree) }
    }

    pub(super) fn of_moved(moved: &MovedTree) -> Self {
        Self {
            from: Some(Name::new(moved.from.as_path().as_os_str())),
            moved: Some(moved.tree),
            hidden: moved.replaced.as_ref().map(|hidden| Name::new(&hidden.name)),
            removed: moved.replaced.as_ref().map(|hidden| hidden.tree),
        }
    }

    /// The directory that goes, if the text names one.
    fn hidden(name: Option<Name>, tree: Option<TreeIdentity>) -> Result<Option<HiddenTree>, ManifestError> {
        match (name, tree) {
            (Some(name), Some(tree)) => {
                Ok(Some(HiddenTree { name: plain_name(name.decode()?)?, tree: known(tree)? }))
            }
            (None, None) => Ok(None),
            _ => Err(unfit()),
        }
    }

    pub(super) fn removed(text: Option<Self>) -> Result<HiddenTree, ManifestError> {
        match text {
            Some(Self { from: None, moved: None, hidden, removed }) => {
                Self::hidden(hidden, removed)?.ok_or_else(unfit)
            }
            _ => Err(unfit()),
        }
    }

    /// A moved tree. A file in its place is replaced, so it is hidden, too.
    pub(super) fn moved(text: Option<Self>, is_over_file: bool) -> Result<Action, ManifestError> {
        match text {
            Some(Self { from: Some(from), moved: Some(tree), hidden, removed }) => {
                let replaced = Self::hidden(hidden, removed)?;
                if is_over_file && replaced.is_none() {
                    return Err(unfit());
                }
                Ok(Action::MoveTree(MovedTree { from: from.path()?, tree: known(tree)?, replaced }))
            }
            _ => Err(unfit()),
        }
    }
}

/// A directory of which nothing is known would be taken for any other.
fn known(tree: TreeIdentity) -> Result<TreeIdentity, ManifestError> {
    match tree {
        TreeIdentity { inode: None, born: None } => Err(content("it does not say which directory it means")),
        tree => Ok(tree),
    }
}

fn unfit() -> ManifestError {
    content("an entry's fields do not fit its operation")
}
