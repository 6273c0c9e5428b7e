//! Stage: write each file's next content beside its target, and make it all
//! durable together with the manifest that names it (barrier 1).
//!
//! No lock is held, and any number of transactions stage at once. A staged file
//! belongs beside its target, because only a rename within one directory keeps
//! one name or the other through any power loss. But a directory that this
//! session has not recorded yet, or that does not exist yet, would cost a wait
//! for each; so such a file is first written in the nearest directory on record,
//! and all of them move beside their targets at the end, after one wait for all
//! their directories.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use super::cleanup::CleanupGuard;
use super::copy;
use super::layout::{self, StagedId};
use super::queue::Job;
use super::resolve::Target;
use super::root::{Root, if_found};
use super::session::Session;
use crate::error::{Operation, Result};
use crate::fs::{Durable, Identity, NewFile, Unsynced, Wave, WriteFile};
use crate::generation::TransactionId;
use crate::manifest::{Action, Entry, StagedContent, Stamp};
use crate::path::RelativePath;

/// What must still be true at the commit.
#[derive(Clone, Debug)]
pub(crate) enum Precondition {
    /// Nothing is at the path.
    Absent(RelativePath),
    /// Something is at the path.
    Exists(RelativePath),
    /// The path is as it was when it was read.
    Same(RelativePath, Option<Stamp>),
}

impl Precondition {
    pub(crate) fn path(&self) -> &RelativePath {
        let (Self::Absent(path) | Self::Exists(path) | Self::Same(path, _)) = self;
        path
    }
}

/// A staged file that is being written; hashes what passes.
#[derive(Debug)]
pub(crate) struct StagedWriter {
    file: Box<dyn WriteFile>,
    hasher: blake3::Hasher,
    name: Unsynced,
    staged: RelativePath,
    target: Target,
}

/// A staged file that is complete, but not durable.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) staged: RelativePath,
    pub(crate) target: Target,
    content: StagedContent,
    identity: Option<Identity>,
}

impl StagedFile {
    pub(crate) fn length(&self) -> u64 {
        self.content.after.length
    }
}

/// An entry of the manifest, and what its staged file is known by.
#[derive(Debug)]
pub(crate) struct StagedEntry {
    pub(crate) entry: Entry,
    pub(crate) identity: Option<Identity>,
}

/// A transaction that is durable in every part, and published in none.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) id: TransactionId,
    pub(crate) entries: Vec<StagedEntry>,
    pub(crate) preconditions: Vec<Precondition>,
    /// The manifest's own file.
    pub(crate) unpublished: RelativePath,
    /// Removes everything again, if dropped before publication.
    pub(crate) cleanup: CleanupGuard,
    pub(crate) session: Arc<Session>,
    /// The record of the directories that were made.
    pub(crate) made: Option<RelativePath>,
    /// Nothing is published without this receipt.
    pub(crate) durable: Durable,
}

/// Transactions that change or rely on a common path are never published together: each must be
/// checked against what the one before it did.
impl Job for Staged {
    type Id = TransactionId;
    type Key = RelativePath;

    fn id(&self) -> TransactionId {
        self.id
    }

    fn keys(&self) -> impl Iterator<Item = &RelativePath> {
        let entries = self.entries.iter().map(|staged| &staged.entry.path);
        entries.chain(self.preconditions.iter().map(Precondition::path))
    }
}

/// Begins a staged file for `target` in `directory`, which is on record. `cleanup` removes what is made.
pub(crate) fn begin(
    root: &Root,
    cleanup: &mut CleanupGuard,
    target: Target,
    directory: &RelativePath,
    id: StagedId,
) -> Result<StagedWriter> {
    let access = if target.existing.is_some() { NewFile::Private } else { NewFile::Ordinary };
    let staged = layout::staged(directory, target.path.name(), id);
    let failed = |error| root.error(Operation::Stage, &target.path)(error);
    let (mut file, name) = root.fs.create_new(&staged, access).map_err(failed)?;
    cleanup.add_file(staged.clone());
    if let Some(existing) = &target.existing {
        file.copy_permissions(existing).map_err(failed)?;
    }
    Ok(StagedWriter { file, hasher: blake3::Hasher::new(), name, staged, target })
}

impl StagedWriter {
    pub(crate) fn path(&self) -> &RelativePath {
        &self.staged
    }

    /// Ends the file, and starts its write-back without waiting for it.
    pub(crate) fn finish(self, root: &Root) -> Result<(StagedFile, Unsynced)> {
        let (metadata, content) =
            self.file.finish().map_err(root.error(Operation::Stage, &self.target.path))?;
        let file = StagedFile {
            content: StagedContent {
                name: self.staged.name().to_owned(),
                after: Stamp::of(&metadata),
                mode: metadata.mode,
                checksum: self.hasher.finalize(),
            },
            identity: metadata.identity,
            staged: self.staged,
            target: self.target,
        };
        Ok((file, self.name.and(content)))
    }
}

impl Write for StagedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// One change of a transaction, ready to be made durable.
#[derive(Debug)]
pub(crate) enum StagedChange {
    Write(StagedFile),
    Remove(Target),
}

impl StagedChange {
    pub(crate) fn target(&self) -> &Target {
        let (Self::Write(StagedFile { target, .. }) | Self::Remove(target)) = self;
        target
    }

    /// The staged file, if there is one.
    pub(crate) fn staged(&self) -> Option<&RelativePath> {
        match self {
            Self::Write(file) => Some(&file.staged),
            Self::Remove(_) => None,
        }
    }

    /// What the manifest says of this change.
    pub(crate) fn into_entry(self) -> StagedEntry {
        match self {
            Self::Write(StagedFile { target, content, identity, .. }) => {
                StagedEntry { entry: entry(target, Action::Write(content)), identity }
            }
            Self::Remove(target) => StagedEntry { entry: entry(target, Action::Remove), identity: None },
        }
    }
}

fn entry(target: Target, action: Action) -> Entry {
    Entry { before: target.before(), path: target.path, action }
}

/// Everything that a transaction has collected.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) id: TransactionId,
    pub(crate) session: Arc<Session>,
    pub(crate) changes: Vec<StagedChange>,
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) cleanup: CleanupGuard,
    /// What is not durable yet.
    pub(crate) wave: Wave,
}

/// Where staged files are to lie that lie elsewhere, for want of a record or of the directory itself.
#[derive(Debug)]
pub(crate) struct Destinations {
    /// Directories to be recorded.
    pub(crate) directories: BTreeSet<RelativePath>,
    /// Those among them, and above them, that do not exist; parents come before their children.
    pub(crate) missing: Vec<RelativePath>,
}

/// The destinations of staged files that do not lie beside their targets yet.
pub(crate) fn destinations(root: &Root, collected: &Collected) -> Result<Option<Destinations>> {
    let mut directories = BTreeSet::new();
    let mut new = BTreeSet::new();
    for change in &collected.changes {
        let StagedChange::Write(file) = change else { continue };
        let directory = file.target.path.parent();
        if file.staged.parent() == directory {
            continue;
        }
        if !file.target.directory_exists() {
            let known = file.target.nearest.as_path().components().count();
            new.extend(directory.chain().into_iter().skip(known));
        }
        directories.insert(directory);
    }
    if directories.is_empty() {
        return Ok(None);
    }
    let mut missing = Vec::new();
    for directory in new {
        let found = if_found(root.fs.metadata(&directory));
        if found.map_err(root.error(Operation::Look, &directory))?.is_none() {
            missing.push(directory);
        }
    }
    Ok(Some(Destinations { directories, missing }))
}

/// Makes the directories that do not exist, and moves every staged file beside its target.
pub(crate) fn move_beside(root: &Root, collected: &mut Collected, missing: Vec<RelativePath>) -> Result<()> {
    for directory in missing {
        match root.fs.create_dir(&directory) {
            Ok(debt) => {
                collected.wave.add(debt);
                collected.cleanup.add_directory(directory);
            }
            // Another transaction made it meanwhile, and may not have synced it yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                collected.wave.add(Unsynced::directory(directory.parent()));
            }
            Err(error) => return Err(root.error(Operation::Create, &directory)(error)),
        }
    }
    let Collected { changes, cleanup, wave, .. } = collected;
    let mut chained = BTreeSet::new();
    for change in changes {
        let StagedChange::Write(file) = change else { continue };
        let directory = file.target.path.parent();
        // A new directory's name may be another transaction's that is not synced: make sure of the
        // chain, up to the nearest directory that was there when the file was staged.
        if !file.target.directory_exists() && chained.insert(directory.clone()) {
            let known = file.target.nearest.as_path().components().count();
            for made in directory.chain().into_iter().skip(known) {
                wave.add(Unsynced::directory(made.parent()));
            }
        }
        if file.staged.parent() != directory {
            move_one(root, file, directory.child(file.staged.name()), cleanup, wave)?;
        }
    }
    Ok(())
}

fn move_one(
    root: &Root,
    file: &mut StagedFile,
    beside: RelativePath,
    cleanup: &mut CleanupGuard,
    wave: &mut Wave,
) -> Result<()> {
    match root.fs.rename(&file.staged, &beside) {
        Ok(debt) => {
            wave.add(debt);
            cleanup.renamed(&file.staged, beside.clone());
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_beside(root, file, &beside, cleanup, wave)?;
        }
        Err(error) => return Err(root.error(Operation::Stage, &file.target.path)(error)),
    }
    file.staged = beside;
    Ok(())
}

/// The target's directory is another file system: what was staged is copied there.
fn copy_beside(
    root: &Root,
    file: &mut StagedFile,
    beside: &RelativePath,
    cleanup: &mut CleanupGuard,
    wave: &mut Wave,
) -> Result<()> {
    let failed = |error| root.error(Operation::Stage, &file.target.path)(error);
    cleanup.add_file(beside.clone());
    let metadata = copy::file(root, &file.staged, beside, wave).map_err(failed)?;
    file.content.after = Stamp::of(&metadata);
    file.content.mode = metadata.mode;
    file.identity = metadata.identity;
    cleanup.remove(&file.staged);
    Ok(())
}
