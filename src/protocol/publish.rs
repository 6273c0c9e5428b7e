//! Publish: renames the manifest. The sync of that rename, barrier 2, is the
//! commit point.
//!
//! Takes transactions whose parts are all durable, under the lock. Moves no
//! target and waits for nothing; `commit` does the waiting.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::sync::Arc;

use super::control::Control;
use super::layout::{self, ControlName, Fate};
use super::root::{MANIFEST_BYTES_MAX, Root, if_found};
use super::session::Session;
use super::stage::{Staged, StagedEntry};
use crate::error::{Error, Operation, Result};
use crate::fs::{Durable, NewFile, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::{Entry, Manifest};
use crate::mutation::{Rule, keeps};
use crate::options::Durability;
use crate::path::RelativePath;

/// A committed transaction. Whatever happens, recovery finishes it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) generation: Generation,
    pub(crate) id: TransactionId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) session: Arc<Session>,
    /// The records of the directories that were made.
    pub(crate) made: Vec<RelativePath>,
    /// The receipt of barriers 1 and 2.
    pub(crate) durable: Durable,
}

impl Staged {
    /// Notes that the manifest's published name is durable.
    pub(crate) fn published(mut self, generation: Generation, durable: Durable) -> Published {
        let made = self.cleanup.disarm();
        Published {
            generation,
            id: self.id,
            entries: self.entries.into_iter().map(|staged| staged.entry).collect(),
            session: self.session,
            made,
            durable: self.durable.and(durable),
        }
    }
}

/// Writes a manifest under a temporary name.
pub(crate) fn write_manifest(
    root: &Root,
    path: &RelativePath,
    transaction: TransactionId,
    entries: &[StagedEntry],
) -> Result<Unsynced> {
    let failed = |error| root.error(Operation::Stage, path)(error);
    let readers = readers(root, entries).map_err(failed)?;
    let (mut file, name) = root.fs.create_new(path, readers).map_err(failed)?;
    name.waive("barrier 2 makes the published name durable");
    let entries = entries.iter().map(|staged| &staged.entry);
    let text = Manifest::encode_entries(transaction, root.fs.now().into(), entries);
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        let reason = "it changes more than one manifest can hold; commit less at once";
        return Err(Error::Unsupported { path: root.path(), reason });
    }
    file.write_all(&text).map_err(failed)?;
    let (_, content) = file.finish().map_err(failed)?;
    Ok(content)
}

/// A manifest has names, lengths and checksums, from which a short secret can be guessed. So if it
/// names a file that not everybody may read or reach, only those who may write in the root may read the
/// manifest. They need it for recovery.
fn readers(root: &Root, entries: &[StagedEntry]) -> io::Result<NewFile> {
    if !entries.iter().all(StagedEntry::is_readable_by_all) {
        return Ok(NewFile::Private);
    }
    let parents: BTreeSet<_> = entries.iter().map(|staged| staged.entry.path.parent()).collect();
    let directories: BTreeSet<_> = parents.iter().flat_map(RelativePath::chain).collect();
    for directory in directories {
        // A file that is gone may have been private.
        let found = if_found(root.fs.metadata(&directory))?;
        if found.is_none_or(|found| found.mode & 0o005 != 0o005) {
            return Ok(NewFile::Private);
        }
    }
    Ok(NewFile::Ordinary)
}

/// Writes an outdated manifest again, under a new name. Returns the old name.
pub(crate) fn rewrite_manifest(root: &Root, staged: &mut Staged, wave: &mut Wave) -> Result<RelativePath> {
    let fresh = ControlName::Unpublished(staged.session.next_transaction()).path();
    let outdated = std::mem::replace(&mut staged.unpublished, fresh.clone());
    staged.cleanup.add_file(fresh.clone());
    wave.add(write_manifest(root, &fresh, staged.id, &staged.entries)?);
    Ok(outdated)
}

/// The name under which this store publishes. The name shows whether the commit waited: nothing else of
/// an unsynced manifest is sure to survive a power loss.
pub(crate) fn published_name(root: &Root, generation: Generation) -> RelativePath {
    let name = match root.settings.durability {
        Durability::Process if keeps(Rule::MarkWaived) => Fate::PendingWaived.of(generation),
        _ => Fate::Pending.of(generation),
    };
    name.path()
}

/// Gives the manifest its published name.
pub(crate) fn rename(root: &Root, staged: &Staged, generation: Generation) -> Result<Unsynced> {
    let pending = published_name(root, generation);
    if ControlName::parse(pending.name()).is_none() {
        let reason = "it has used all generation numbers";
        return Err(Error::Unsupported { path: root.path(), reason });
    }
    if !keeps(Rule::PublishByRename) {
        let content = write_manifest(root, &pending, staged.id, &staged.entries)?;
        return Ok(content.and(Unsynced::directory(layout::control())));
    }
    // A rename is atomic (rename(2)): a manifest is published whole or not at all.
    root.fs.rename(&staged.unpublished, &pending).map_err(root.error(Operation::Publish, &pending))
}

/// Removes older applied manifests, since barrier 2 has made the newest one's name durable. Before that
/// they must stay. A power loss could leave no applied manifest at all, and recovery would not know
/// which generation comes next.
pub(crate) fn remove_superseded(root: &Root, control: &Control) {
    for manifest in control.superseded() {
        // If it cannot be removed now, the next commit tries again.
        root.try_remove(&manifest.path(), "a superseded manifest that comes back is removed again");
    }
}
