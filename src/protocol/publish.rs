//! Publish: one rename of the manifest. Its sync, barrier 2, is the commit point.
//!
//! Takes transactions that are durable in every part, under the lock. Moves no
//! target, and waits for nothing: the waits are `commit`'s.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::sync::Arc;

use super::control::{Control, MANIFEST_BYTES_MAX};
use super::layout::{self, ControlName};
use super::root::{Root, if_found};
use super::session::Session;
use super::stage::{Staged, StagedEntry};
use crate::error::{Error, Operation, Result};
use crate::fs::{Durable, NewFile, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::{Entry, Manifest};
use crate::mutation::{Rule, keeps};
use crate::options::Durability;
use crate::path::RelativePath;

/// A transaction that is committed: whatever happens, recovery finishes it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) generation: Generation,
    pub(crate) id: TransactionId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) session: Arc<Session>,
    /// The records of the directories that were made.
    pub(crate) made: Vec<RelativePath>,
    /// How durable everything so far is: barriers 1 and 2.
    pub(crate) durable: Durable,
}

impl Staged {
    /// The manifest has its published name, durably.
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

/// Writes a manifest under a name that is not published.
pub(crate) fn write_manifest(
    root: &Root,
    path: &RelativePath,
    transaction: TransactionId,
    entries: &[StagedEntry],
) -> Result<Unsynced> {
    let failed = |error| root.error(Operation::Stage, path)(error);
    let readers = readers(root, entries).map_err(failed)?;
    let (mut file, name) = root.fs.create_new(path, readers).map_err(failed)?;
    name.waive("barrier 2 makes the name durable under which the manifest is published");
    let entries = entries.iter().map(|staged| &staged.entry);
    let text = Manifest::encode_entries(transaction, root.fs.now().into(), entries);
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        let reason = "it changes more than one manifest can say; commit less at once";
        return Err(Error::Unsupported { path: root.path(), reason });
    }
    file.write_all(&text).map_err(failed)?;
    let (_, content) = file.finish().map_err(failed)?;
    Ok(content)
}

/// A manifest tells names, lengths and checksums, by which a short secret can be guessed. If it tells of
/// a file that not everybody may read, or may not reach, only those may read the manifest who may
/// write in the root, since they must be able to recover it.
fn readers(root: &Root, entries: &[StagedEntry]) -> io::Result<NewFile> {
    if !entries.iter().all(StagedEntry::is_readable_by_all) {
        return Ok(NewFile::Private);
    }
    let parents: BTreeSet<_> = entries.iter().map(|staged| staged.entry.path.parent()).collect();
    let directories: BTreeSet<_> = parents.iter().flat_map(RelativePath::chain).collect();
    for directory in directories {
        // One that is gone may have been private.
        let found = if_found(root.fs.metadata(&directory))?;
        if found.is_none_or(|found| found.mode & 0o005 != 0o005) {
            return Ok(NewFile::Private);
        }
    }
    Ok(NewFile::Ordinary)
}

/// Writes an outdated manifest again, under a fresh name. Returns the old name.
pub(crate) fn rewrite_manifest(root: &Root, staged: &mut Staged, wave: &mut Wave) -> Result<RelativePath> {
    let fresh = layout::unpublished(staged.session.next_transaction());
    let outdated = std::mem::replace(&mut staged.unpublished, fresh.clone());
    staged.cleanup.add_file(fresh.clone());
    wave.add(write_manifest(root, &fresh, staged.id, &staged.entries)?);
    Ok(outdated)
}

/// The name under which this store publishes: it says whether anything was waited for, since nothing
/// else of a manifest is sure to survive a power loss that comes before its sync.
pub(crate) fn published_name(root: &Root, generation: Generation) -> RelativePath {
    match root.settings.durability {
        Durability::Process if keeps(Rule::MarkWaived) => layout::pending_waived(generation),
        _ => layout::pending(generation),
    }
}

/// Gives the manifest its published name.
pub(crate) fn rename(root: &Root, staged: &Staged, generation: Generation) -> Result<Unsynced> {
    let pending = published_name(root, generation);
    if layout::parse_control(pending.name()) == ControlName::Foreign {
        let reason = "the numbers of its generations are used up";
        return Err(Error::Unsupported { path: root.path(), reason });
    }
    if !keeps(Rule::PublishByRename) {
        let content = write_manifest(root, &pending, staged.id, &staged.entries)?;
        return Ok(content.and(Unsynced::directory(layout::control())));
    }
    // Atomic for everybody who looks (rename(2)): a manifest is published whole or not at all.
    root.fs.rename(&staged.unpublished, &pending).map_err(root.error(Operation::Publish, &pending))
}

/// Barrier 2 has made the newest applied manifest's name durable, so the older ones can go. Until
/// then they must stay: a power loss could leave no applied manifest at all, and recovery would not
/// know where the generations begin.
pub(crate) fn remove_superseded(root: &Root, control: &Control) {
    for path in control.superseded() {
        if let Ok(debt) = root.fs.remove_file(&path) {
            debt.waive("a superseded manifest that comes back is superseded again");
        }
        // One that cannot be removed is superseded again next time.
    }
}
