//! Publish: renames the manifest. The wave that makes this durable is the commit
//! point.
//!
//! The manifest of a small save is written only here, under the lock: it holds
//! the bytes of all files, so that recovery needs nothing else. Moves no target
//! and waits for nothing; `commit` does the waiting.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::sync::Arc;

use super::control::Control;
use super::layout::{self, ControlName, Fate};
use super::root::{MANIFEST_BYTES_MAX, Root, if_there};
use super::session::Session;
use super::stage::{Backing, Staged, StagedChange, StagedEntry};
use super::writers::{Writers, is_listed};
use super::{history, mounts};
use crate::error::{Error, Operation, Reason, Result};
use crate::fs::{Barrier, Durable, Metadata, NewFile, SET_ID, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::{Action, Entry, Manifest};
use crate::mutation::{Rule, keeps};
use crate::options::{Durability, Settings};
use crate::path::RelativePath;
use crate::preserve::NotPreserved;

/// A committed transaction. Whatever happens, recovery finishes it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) generation: Generation,
    pub(crate) id: TransactionId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) session: Arc<Session>,
    /// The records of the directories that were made.
    pub(crate) made: Vec<RelativePath>,
    /// The receipt of the waits up to the commit point.
    pub(crate) durable: Durable,
    /// What the replaced files had and the new ones have not.
    pub(crate) lost: Vec<NotPreserved>,
}

impl Published {
    /// Whether it moves or removes directories with everything in them.
    pub(crate) fn has_trees(&self) -> bool {
        self.entries.iter().any(Entry::is_of_tree)
    }
}

impl Staged {
    /// Notes that the manifest's published name is durable.
    pub(crate) fn published(mut self, generation: Generation, durable: Durable) -> Published {
        let made = self.cleanup.disarm();
        let staged = match self.backing {
            Backing::StagedFiles(staged) => staged,
            Backing::Manifest(_) => durable,
        };
        let mut lost = Vec::new();
        for StagedEntry { entry, copied, contents, .. } in &mut self.entries {
            let built = contents.iter_mut().filter_map(|change| match change {
                StagedChange::Write(file) => Some((&file.target.path, &mut file.copied)),
                _ => None,
            });
            for (path, copied) in built.chain([(&entry.path, copied)]) {
                let not_preserved = |attribute| NotPreserved { path: path.clone(), attribute };
                lost.extend(copied.take().unwrap_or_default().lost.into_iter().map(not_preserved));
            }
        }
        Published {
            generation,
            id: self.id,
            entries: self.entries.into_iter().map(|staged| staged.entry).collect(),
            session: self.session,
            made,
            durable: staged.and(durable),
            lost,
        }
    }
}

/// Writes the manifest of a long save under its temporary name. Returns what it owes.
pub(crate) fn write_manifest(root: &Root, staged: &mut Staged, path: &RelativePath) -> Result<Unsynced> {
    staged.readers = readers(root, &staged.entries).map_err(root.error(Operation::Stage, path))?;
    let entries = staged.entries.iter().map(|staged| &staged.entry);
    let mounts = mounts::above(root, entries.clone())?;
    let bytes = Manifest::encode_entries((staged.id, root.fs.now().into(), None), &mounts, entries);
    write(root, path, staged.readers, &bytes)
}

/// Writes the manifest of a small save, with the bytes of its files. Nobody may read it but those who
/// may write in the root and so must be able to recover it.
fn write_with_contents(root: &Root, staged: &Staged, wave: Generation) -> Result<Unsynced> {
    let entries = staged.entries.iter().map(|staged| &staged.entry);
    let mounts = mounts::above(root, entries.clone())?;
    let head = (staged.id, root.fs.now().into(), Some(wave));
    let mut bytes = Manifest::encode_entries(head, &mounts, entries);
    staged.entries.iter().filter_map(|staged| staged.bytes.as_ref()).for_each(|own| bytes.extend(own));
    write(root, &staged.unpublished, NewFile::Private, &bytes)
}

fn write(root: &Root, path: &RelativePath, readers: NewFile, bytes: &[u8]) -> Result<Unsynced> {
    if !is_readable(bytes.len() as u64) {
        let reason = Reason::TooMuch;
        return Err(Error::Unsupported { path: root.path().into(), reason });
    }
    let failed = |error| root.error(Operation::Stage, path)(error);
    let (mut file, name) = root.fs.create_new(path, readers).map_err(failed)?;
    name.waive("the wave of the commit point makes the published name durable");
    file.write_all(bytes).map_err(failed)?;
    let (_, content) = file.finish().map_err(failed)?;
    Ok(content)
}

/// Whether recovery reads all of a manifest of this length.
fn is_readable(bytes: u64) -> bool {
    bytes <= MANIFEST_BYTES_MAX
}

/// A manifest has names, lengths and checksums, from which a short secret can be guessed. So if it
/// names a file that not everybody may read or reach, only those who may write in the root may read the
/// manifest. They need it for recovery.
fn readers(root: &Root, entries: &[StagedEntry]) -> io::Result<NewFile> {
    let is_public = entries.iter().all(StagedEntry::is_readable_by_all)
        && !has_lists(root, entries.iter())?
        && every_directory(root, entries.iter(), is_open_to_all)?;
    Ok(if is_public { NewFile::Ordinary } else { NewFile::Private })
}

fn is_open_to_all(directory: &Metadata) -> bool {
    directory.mode & 0o555 == 0o555
}

/// Whether a directory was closed since the manifest of a long save was written for all to read. Whatever
/// happens to a file is noticed elsewhere, and its manifest written again.
pub(crate) fn is_too_open(root: &Root, staged: &Staged) -> Result<bool> {
    if staged.readers != NewFile::Ordinary {
        return Ok(false);
    }
    let is_public = every_directory(root, staged.entries.iter(), is_open_to_all);
    is_public.map(|is_public| !is_public).map_err(root.error(Operation::Look, &RelativePath::root()))
}

/// Whether every directory on the paths of these entries exists and is as wanted.
fn every_directory<'a>(
    root: &Root,
    entries: impl Iterator<Item = &'a StagedEntry>,
    is_wanted: impl Fn(&Metadata) -> bool,
) -> io::Result<bool> {
    let paths = entries.flat_map(|staged| staged.entry.paths());
    let parents: BTreeSet<_> = paths.map(RelativePath::parent).collect();
    let directories: BTreeSet<_> = parents.iter().flat_map(RelativePath::chain).collect();
    for directory in directories {
        // In a directory that is gone there may have been secrets.
        if !if_there(root.fs.metadata(&directory))?.is_some_and(|found| is_wanted(&found))
            || is_listed(root, &directory)?
        {
            return Ok(false);
        }
    }
    Ok(!is_listed(root, &RelativePath::root())?)
}

/// Whether one of these files has an access control list, either now or once it is in place.
fn has_lists<'a>(root: &Root, mut entries: impl Iterator<Item = &'a StagedEntry>) -> io::Result<bool> {
    entries.try_fold(false, |found, StagedEntry { entry, attributes, copied, .. }| match copied {
        // Both have the list that was copied. If it changes later, that is noticed under the lock, and the
        // list copied anew.
        Some(copied) if attributes.model.is_none() => Ok(found || copied.has_access_list),
        _ => {
            let staged = || entry.staged().map_or(Ok(false), |staged| is_listed(root, &staged));
            Ok(found || is_listed(root, &entry.path)? || staged()?)
        }
    })
}

/// Whether the manifest may hold the bytes of a transaction's files. All of them must be at hand, and all
/// directories durable. And whoever may read the manifest must be allowed to read the files too. A file
/// with a set-ID bit is never in it, since recovery gives this bit to no file that it writes from a
/// manifest.
///
/// A directory cannot travel in a manifest. If its sync failed, nothing could make it durable anew. A
/// symlink could, but recovery restores files only.
pub(crate) fn may_hold_contents(root: &Root, staged: &Staged) -> Result<bool> {
    let entries = &staged.entries;
    let parents = entries.iter().map(|staged| staged.entry.path.parent()).collect();
    if !staged.session.undurable(&parents).is_empty() {
        return Ok(false);
    }
    let is_long = |entry: &Entry| entry.action.is_of_directory() || entry.is_of_link() || entry.is_of_tree();
    if entries.iter().any(|staged| is_long(&staged.entry)) {
        return Ok(false);
    }
    let is_write = |staged: &&StagedEntry| matches!(staged.entry.action, Action::Write(_));
    let written = || entries.iter().filter(is_write);
    let Settings { durability, inline_max, .. } = root.settings;
    // Without a limit of its own, a save of removals and empty files alone would be small, too.
    if durability == Durability::Process || inline_max == 0 || written().any(|staged| staged.bytes.is_none())
    {
        return Ok(false);
    }
    let failed = |error| root.error(Operation::Look, &RelativePath::root())(error);
    let writers = Writers::of(root)?;
    let is_readable = |staged: &StagedEntry| match &staged.entry.action {
        Action::Write(content) => {
            let is_readable = content.owner.is_some_and(|owner| writers.may_with(content.mode, owner, 0o4));
            is_readable && content.mode & SET_ID == 0
        }
        _ => true,
    };
    let is_reachable = |found: &Metadata| writers.may(found, 0o5);
    let are_open = || {
        let are_readable = written().all(is_readable) && !has_lists(root, written())?;
        Ok(are_readable && every_directory(root, written(), is_reachable)?)
    };
    Ok(are_open().map_err(failed)? || !keeps(Rule::KeepSecrets))
}

/// Writes an outdated manifest of a long save again, under a new name. Returns the old name.
pub(crate) fn rewrite_manifest(root: &Root, staged: &mut Staged, wave: &mut Wave) -> Result<RelativePath> {
    let fresh = ControlName::Unpublished(staged.session.next_transaction()).path();
    let outdated = std::mem::replace(&mut staged.unpublished, fresh.clone());
    staged.cleanup.add_file(fresh.clone());
    wave.add(write_manifest(root, staged, &fresh)?);
    Ok(outdated)
}

/// The name under which a transaction is published. The name shows whether the manifest was durable
/// before: nothing else of an unsynced manifest is sure to survive a power loss.
pub(crate) fn published_name(root: &Root, staged: &Staged, generation: Generation) -> ControlName {
    match root.settings.durability {
        Durability::Process if keeps(Rule::MarkWaived) => Fate::PendingWaived.of(generation),
        _ if staged.is_small() => Fate::PendingInline.of(generation),
        _ => Fate::Pending.of(generation),
    }
}

/// Gives the manifest its published name. Adds what must be durable before the first file is moved to
/// the wave that begins with generation `first`.
pub(crate) fn publish(
    root: &Root,
    staged: &mut Staged,
    (generation, first): (Generation, Generation),
    wave: &mut Wave,
) -> Result<()> {
    history::keep_for(root, staged, generation, wave)?;
    give_name(root, staged, (generation, first), wave)
        .inspect_err(|_| history::take_back(root, staged.id, generation))
}

fn give_name(
    root: &Root,
    staged: &mut Staged,
    (generation, first): (Generation, Generation),
    wave: &mut Wave,
) -> Result<()> {
    let pending = published_name(root, staged, generation).path();
    if ControlName::parse(pending.name()).is_none() {
        let reason = Reason::NoMoreGenerations;
        return Err(Error::Unsupported { path: root.path().into(), reason });
    }
    let content = match staged.is_small() {
        true => write_with_contents(root, staged, first)?,
        false => Unsynced::default(),
    };
    let name = match keeps(Rule::PublishByRename) {
        // A rename is atomic (rename(2)): a manifest is published whole or not at all.
        true => {
            let rename = || root.fs.rename(&staged.unpublished, &pending);
            // Whoever gives up later has committed, and whatever he does next comes after it.
            let renamed = staged.caller.claim.perform(rename).ok_or_else(|| root.cancelled())?;
            renamed.map_err(root.error(Operation::Publish, &pending))?
        }
        false => write_manifest(root, staged, &pending)?.and(Unsynced::directory(layout::control())),
    };
    wave.add(content.and(name));
    if let Backing::Manifest(owed) = &mut staged.backing {
        wave.absorb(std::mem::replace(owed, Wave::new(Barrier::Published)));
    }
    Ok(())
}

/// Removes older applied manifests, since the commit point has made the newest one's name durable. Before that
/// they must stay. A power loss could leave no applied manifest at all, and recovery would not know
/// which generation comes next.
pub(crate) fn remove_superseded(root: &Root, control: &Control) {
    for manifest in control.superseded() {
        // If it cannot be removed now, the next commit tries again.
        root.try_remove(&manifest.path(), "a superseded manifest that comes back is removed again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A gibibyte: too much for a test to write.
    #[test]
    fn no_manifest_is_written_that_would_not_be_read() {
        for length in [0, MANIFEST_BYTES_MAX - 1, MANIFEST_BYTES_MAX] {
            assert!(is_readable(length), "{length}");
        }
        assert!(MANIFEST_BYTES_MAX > 1_000_000_000 && !is_readable(MANIFEST_BYTES_MAX + 1));
    }
}
