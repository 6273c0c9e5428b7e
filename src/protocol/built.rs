//! Directories that take the place of files: built beside them, before the commit.
//!
//! A file is still at its path when something below that path is staged. So a
//! directory with a staged file's name is made beside it, and everything is
//! staged there. Once all is staged, each file gets its own name in it. From
//! then on this is a tree that is moved over a file (`tree`), and the manifest
//! says no more of it. A directory that nobody moves is swept.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::original;
use super::resolve::look;
use super::root::Root;
use super::stage::{StagedChange, StagedEntry, StagedFile, StagedSymlink, Staging};
use super::tree;
use crate::error::{Error, Operation, Result};
use crate::expect::Clash;
use crate::fs::{Durable, Identity, Kind, Metadata, Wave};
use crate::manifest::{Action, HiddenTree, MovedTree, StagedLink, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::{InvalidPath, RelativePath};

/// Gives what is staged in a directory its own name there.
pub(crate) fn name(root: &Root, staging: &mut Staging, change: &mut StagedChange) -> Result<()> {
    let (staged, target) = match change {
        StagedChange::Write(StagedFile { staged, target, .. }) => (staged, target),
        StagedChange::Link(StagedSymlink { staged, target, .. }) => (staged, target),
        _ => return Ok(()),
    };
    let Some(site) = target.site.clone().filter(|site| site != staged) else { return Ok(()) };
    // Only another file of the transaction can be there, under a name that the file system takes for this one.
    if look(root, &site)?.is_some() {
        return Err(Error::invalid(root.full(&target.path), InvalidPath::Alias));
    }
    let renamed = root.fs.rename(staged, &site);
    staging.wave.add(renamed.map_err(root.error(Operation::Stage, &target.path))?);
    staging.cleanup.rename_file(staged, site.clone());
    *staged = site;
    Ok(())
}

/// The move of a directory that is built to the path of the file that goes.
pub(crate) fn as_moved(
    root: &Root,
    site: &RelativePath,
    path: &RelativePath,
    hidden: OsString,
) -> Result<MovedTree> {
    let tree = tree::identity(root, site)?.ok_or_else(|| tree::unidentified(root, site, Kind::Directory))?;
    let file = tree::file_identity(root, path)?.ok_or_else(|| tree::unidentified(root, path, Kind::File))?;
    let replaced = Some(HiddenTree { name: hidden, tree: file });
    Ok(MovedTree { from: site.clone(), tree, replaced })
}

/// Waits for what is staged, whatever the durability if a directory is built. The manifest does not say what
/// is in the directory. So after a power loss recovery could not tell whether that is whole.
pub(crate) fn sync(root: &Root, builds: bool, wave: Wave) -> Result<Durable> {
    if builds && keeps(Rule::SyncBuilt) { root.sync_always(wave) } else { root.sync(wave) }
}

/// How many changes there are, and how many bytes they have staged, also in directories that are built.
pub(crate) fn count(entries: &[StagedEntry]) -> (usize, u64) {
    let length = |change: &StagedChange| match change {
        StagedChange::Write(file) => file.length(),
        _ => 0,
    };
    entries.iter().fold((0, 0), |(files, bytes), staged| {
        let built: u64 = staged.contents.iter().map(length).sum();
        (files + 1 + staged.contents.len(), bytes + staged.entry.length() + built)
    })
}

/// The directories that are built for a change.
pub(crate) fn directories(staged: &StagedEntry) -> BTreeSet<RelativePath> {
    let Action::MoveTree(moved) = &staged.entry.action else { return BTreeSet::new() };
    let all = staged.contents.iter().flat_map(|change| change.target().place().parent().chain());
    all.filter(|path| path.as_path().starts_with(moved.from.as_path())).collect()
}

/// Checks under the lock that everything in a directory is still what was staged there, with the permissions
/// that it was to have.
pub(crate) fn check(root: &Root, contents: &[StagedChange]) -> Result<()> {
    contents.iter().filter(|_| keeps(Rule::CheckBuilt)).try_for_each(|change| check_one(root, change))
}

fn check_one(root: &Root, change: &StagedChange) -> Result<()> {
    let target = change.target();
    let place = target.place();
    let conflict = |found| Err(Error::Conflict { path: root.full(&target.path).into(), found });
    let Some(found) = look(root, place)? else { return conflict(Clash::StagedMissing) };
    let is_same = |identity: Option<Identity>| found.identity == identity;
    match change {
        StagedChange::Write(file) if found.kind != Kind::File || Stamp::of(&found) != file.content.after => {
            conflict(Clash::StagedChanged)
        }
        StagedChange::Write(file) if !is_same(file.identity) => conflict(Clash::StagedReplaced),
        StagedChange::Write(file) => check_permissions(root, file),
        StagedChange::Link(link) => {
            let text = StagedLink { name: place.name().to_owned(), to: link.to.clone() };
            let is_link = original::is_link(root, place, &found, &text);
            if is_link && is_same(link.identity) { Ok(()) } else { conflict(Clash::StagedReplaced) }
        }
        _ if found.kind != Kind::Directory => conflict(Clash::NoDirectory),
        // It was made before somebody asked for the mode, and what is in it may be a secret.
        _ if root.fs.has_modes()
            && target.attributes.mode.is_some_and(|mode| (found.mode ^ mode) & 0o777 != 0) =>
        {
            conflict(Clash::Exists)
        }
        _ => Ok(()),
    }
}

/// A file that was moved or copied has the permissions that the other one had then.
fn check_permissions(root: &Root, file: &StagedFile) -> Result<()> {
    let attributes = &file.target.attributes;
    let Some(model) = &attributes.model else { return Ok(()) };
    let is_same = |like: Metadata, found: Metadata| {
        (attributes.mode.is_some() || like.mode == found.mode)
            && like.owner == found.owner
            && like.changed == found.changed
    };
    match look(root, model)? {
        Some(found) if !file.like.is_some_and(|like| is_same(like, found)) => {
            Err(Error::Conflict { path: root.full(model).into(), found: Clash::Changed })
        }
        _ => Ok(()),
    }
}
