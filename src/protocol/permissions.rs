//! Permissions of staged files: whether those of the file that they were copied
//! from have changed since, and the copy of what it has now. The bytes are left
//! alone.

use super::root::Root;
use super::stage::StagedEntry;
use crate::error::{Operation, Result};
use crate::fs::{Kind, Metadata, Unsynced};
use crate::manifest::Action;
use crate::mutation::{Rule, keeps};

/// Whether the permissions of the file from which they were copied may have changed since. A mode that
/// was asked for comes from no file.
///
/// Access control lists and attributes show in no mode, but every change of them moves the time of the
/// last change in any respect. Two changes within one tick of its clock are seen as one.
pub(crate) fn differ(staged: &StagedEntry, found: &Metadata) -> bool {
    let has_own_mode = staged.attributes.mode.is_some();
    let same = |like: Metadata| {
        (has_own_mode || like.mode == found.mode)
            && like.owner == found.owner
            && like.changed == found.changed
    };
    let is_write = matches!(staged.entry.action, Action::Write(_));
    is_write && found.kind == Kind::File && !staged.like.is_some_and(same) && keeps(Rule::CheckPermissions)
}

/// Gives a staged file the current permissions of its target, or of its model.
pub(crate) fn copy(root: &Root, staged: &mut StagedEntry, found: &Metadata) -> Result<Unsynced> {
    let name = staged.entry.staged();
    let (Some(name), Action::Write(content)) = (name, &mut staged.entry.action) else {
        return Ok(Unsynced::default());
    };
    let mode = staged.attributes.mode_for(found.owner.1).unwrap_or(found.mode);
    let wanted = Metadata { mode, ..*found };
    let path = &staged.entry.path;
    let model = staged.attributes.model.as_ref();
    let copied = root.fs.copy_permissions(model.unwrap_or(path), &wanted, &name);
    let (copied, debt) = copied.map_err(root.error(Operation::Stage, path))?;
    root.may_lose(path, &copied.lost)?;
    staged.copied = Some(copied);
    content.mode = wanted.mode;
    content.owner = Some(found.owner);
    staged.like = Some(*found);
    if model.is_none() {
        staged.existing = Some(*found);
    }
    Ok(debt)
}
