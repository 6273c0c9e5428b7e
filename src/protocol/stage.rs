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
use std::io::{self, Read as _, Write};
use std::sync::Arc;

use super::carried::Passengers;
use super::check::Target;
use super::layout::{self, StagedId};
use super::leftovers::Leftovers;
use super::session::Session;
use super::{Engine, lock};
use crate::error::{Operation, Result};
use crate::fs::{Barrier, Durable, Identity, NewFile, Unsynced, Wave, WriteFile};
use crate::generation::TransactionId;
use crate::manifest::{Action, Entry, Manifest, StagedContent, Stamp};
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

/// A transaction that is durable in every part, and published in none.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) id: TransactionId,
    pub(crate) manifest: Manifest,
    /// Of each entry's staged file, to know it again.
    pub(crate) identities: Vec<Option<Identity>>,
    pub(crate) preconditions: Vec<Precondition>,
    /// The manifest's own file.
    pub(crate) unpublished: RelativePath,
    /// Removes everything again, if dropped before publication.
    pub(crate) leftovers: Leftovers,
    pub(crate) session: Arc<Session>,
    /// The record of the directories that were made.
    pub(crate) made: Option<RelativePath>,
    /// Nothing is published without this receipt.
    pub(crate) durable: Durable,
}

impl Staged {
    /// Every path that the transaction changes or relies on.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        let entries = self.manifest.entries.iter().map(|entry| &entry.path);
        entries.chain(self.preconditions.iter().map(Precondition::path))
    }
}

/// Begins a staged file for `target`. What is made is `leftovers`' to remove.
pub(crate) fn begin(
    engine: &Engine,
    session: &Session,
    leftovers: &mut Leftovers,
    target: Target,
    id: StagedId,
) -> Result<StagedWriter> {
    let access = if target.existing.is_some() { NewFile::Private } else { NewFile::Ordinary };
    let mut directory = target.nearest.clone();
    while !session.has_recorded(&directory) {
        directory = directory.parent();
    }
    let mut staged = layout::staged(&directory, target.path.name(), id);
    let mut made = engine.fs.create_new(&staged, access);
    if made.is_err() && directory != target.nearest {
        // The directory on record refuses; the target's own may not, at the price of a wait.
        session.record(engine, [target.nearest.clone()].into(), Vec::new())?;
        staged = layout::staged(&target.nearest, target.path.name(), id);
        made = engine.fs.create_new(&staged, access);
    }
    let (mut file, name) = made.map_err(engine.error(Operation::Stage, &target.path))?;
    leftovers.add_file(staged.clone());
    if let Some(existing) = &target.existing {
        file.keep(existing).map_err(engine.error(Operation::Stage, &target.path))?;
    }
    Ok(StagedWriter { file, hasher: blake3::Hasher::new(), name, staged, target })
}

impl StagedWriter {
    pub(crate) fn path(&self) -> &RelativePath {
        &self.staged
    }

    /// Ends the file, and starts its write-back without waiting for it.
    pub(crate) fn finish(self, engine: &Engine) -> Result<(StagedFile, Unsynced)> {
        let (metadata, content) =
            self.file.finish().map_err(engine.error(Operation::Stage, &self.target.path))?;
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

    fn entry(&self) -> Entry {
        let action = match self {
            Self::Write(file) => Action::Write(file.content.clone()),
            Self::Remove(_) => Action::Remove,
        };
        Entry { path: self.target().path.clone(), before: self.target().before(), action }
    }
}

/// Everything that a transaction has collected.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) id: TransactionId,
    pub(crate) session: Arc<Session>,
    pub(crate) changes: Vec<StagedChange>,
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) leftovers: Leftovers,
    /// What is not durable yet.
    pub(crate) wave: Wave,
}

/// Barrier 1: all that the manifest names, and the manifest itself, made durable in one wave.
pub(crate) fn stage(engine: &Engine, mut collected: Collected) -> Result<Staged> {
    let made = settle_beside(engine, &mut collected)?;
    let Collected { id, session, changes, preconditions, mut leftovers, mut wave } = collected;
    let manifest = Manifest {
        transaction: id,
        time: engine.fs.now().into(),
        entries: changes.iter().map(StagedChange::entry).collect(),
    };
    let unpublished = layout::unpublished(id);
    leftovers.add_file(unpublished.clone());
    wave.add(write_manifest(engine, &unpublished, &manifest)?);

    let passengers = lock(&engine.carried).board(&mut wave);
    // Lost without this sync: the manifest could be durable while what it names is empty, garbage,
    // or has no name. A crash before or within it leaves staged files that nothing names: swept.
    let durable = sync_with(engine, wave, passengers)?;
    let identities = changes
        .iter()
        .map(|change| match change {
            StagedChange::Write(file) => file.identity,
            StagedChange::Remove(_) => None,
        })
        .collect();
    Ok(Staged { id, manifest, identities, preconditions, unpublished, leftovers, session, made, durable })
}

/// Waits for a wave that carries other commits' third barrier.
pub(crate) fn sync_with(engine: &Engine, wave: Wave, passengers: Passengers) -> Result<Durable> {
    match engine.sync(wave) {
        Ok(durable) => {
            lock(&engine.carried).settle(passengers, durable);
            Ok(durable)
        }
        Err(error) => {
            for generation in lock(&engine.carried).lose(passengers) {
                super::recover::mark_unsynced(engine, generation);
            }
            Err(error)
        }
    }
}

/// Writes a manifest under a name that is not published.
pub(crate) fn write_manifest(engine: &Engine, path: &RelativePath, manifest: &Manifest) -> Result<Unsynced> {
    let failed = |error| engine.error(Operation::Stage, path)(error);
    let (mut file, name) = engine.fs.create_new(path, NewFile::Ordinary).map_err(failed)?;
    // Barrier 2 makes the name durable under which it is published; nobody looks for this one.
    name.need_not_last();
    file.write_all(&manifest.encode()).map_err(failed)?;
    let (_, content) = file.finish().map_err(failed)?;
    Ok(content)
}

/// Makes the directories that do not exist, and moves every staged file beside its target.
/// Returns the record of what was made.
fn settle_beside(engine: &Engine, collected: &mut Collected) -> Result<Option<RelativePath>> {
    let writes = || {
        collected.changes.iter().filter_map(|change| match change {
            StagedChange::Write(file) => Some(file),
            StagedChange::Remove(_) => None,
        })
    };
    let mut record = BTreeSet::new();
    let mut new = BTreeSet::new();
    for file in writes() {
        let directory = file.target.path.parent();
        if file.staged.parent() == directory {
            continue;
        }
        if !file.target.directory_exists() {
            let known = file.target.nearest.as_path().components().count();
            new.extend(directory.chain().into_iter().skip(known));
        }
        record.insert(directory);
    }
    if record.is_empty() {
        return Ok(None);
    }
    // Sorted, so parents come before their children.
    let new = missing(engine, new)?;
    let made = collected.session.record(engine, record, new.clone())?;
    for directory in new {
        match engine.fs.create_dir(&directory) {
            Ok(debt) => {
                collected.wave.add(debt);
                collected.leftovers.add_directory(directory);
            }
            // Another transaction made it meanwhile, and may not have synced it yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                collected.wave.add(Unsynced::directory(directory.parent()));
            }
            Err(error) => return Err(engine.error(Operation::Create, &directory)(error)),
        }
    }
    move_beside(engine, collected)?;
    Ok(made)
}

fn missing(engine: &Engine, directories: BTreeSet<RelativePath>) -> Result<Vec<RelativePath>> {
    let mut missing = Vec::new();
    for directory in directories {
        match super::if_found(engine.fs.metadata(&directory)) {
            Ok(None) => missing.push(directory),
            Ok(Some(_)) => {}
            Err(error) => return Err(engine.error(Operation::Look, &directory)(error)),
        }
    }
    Ok(missing)
}

fn move_beside(engine: &Engine, collected: &mut Collected) -> Result<()> {
    let Collected { changes, leftovers, wave, .. } = collected;
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
        if file.staged.parent() == directory {
            continue;
        }
        let beside = directory.child(file.staged.name());
        match engine.fs.rename(&file.staged, &beside) {
            Ok(debt) => {
                wave.add(debt);
                leftovers.moved(&file.staged, beside.clone());
            }
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy_beside(engine, file, &beside, leftovers, wave)?;
            }
            Err(error) => return Err(engine.error(Operation::Stage, &file.target.path)(error)),
        }
        file.staged = beside;
    }
    Ok(())
}

/// The target's directory is another file system: what was staged is copied there.
fn copy_beside(
    engine: &Engine,
    file: &mut StagedFile,
    beside: &RelativePath,
    leftovers: &mut Leftovers,
    wave: &mut Wave,
) -> Result<()> {
    let failed = |error| engine.error(Operation::Stage, &file.target.path)(error);
    leftovers.add_file(beside.clone());
    let metadata = copy(engine, &file.staged, beside, wave).map_err(failed)?;
    file.content.after = Stamp::of(&metadata);
    file.content.mode = metadata.mode;
    file.identity = metadata.identity;
    leftovers.remove(&file.staged);
    Ok(())
}

/// Copies a file's bytes and permissions to a name that does not exist.
pub(crate) fn copy(
    engine: &Engine,
    from: &RelativePath,
    to: &RelativePath,
    wave: &mut Wave,
) -> io::Result<crate::fs::Metadata> {
    let mut source = engine.fs.open(from)?;
    let like = source.metadata()?;
    let (mut file, name) = engine.fs.create_new(to, NewFile::Private)?;
    wave.add(name);
    copy_bytes(&mut *source, &mut *file)?;
    file.keep(&like)?;
    let (metadata, content) = file.finish()?;
    wave.add(content);
    Ok(metadata)
}

/// How much is copied at once, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// Copies all bytes with a buffer of fixed size.
pub(crate) fn copy_bytes<R, W>(source: &mut R, target: &mut W) -> io::Result<u64>
where
    R: io::Read + ?Sized,
    W: Write + ?Sized,
{
    let mut buffer = vec![0; COPY_BYTES];
    let mut total = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => {
                target.write_all(&buffer[..length])?;
                total += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The checksum of a file's bytes.
pub(crate) fn checksum(engine: &Engine, path: &RelativePath) -> io::Result<blake3::Hash> {
    let mut file = engine.fs.open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(length) => _ = hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Syncs what has been staged so far, when more files are open than one transaction may keep.
pub(crate) fn sync_early(engine: &Engine, wave: &mut Wave) -> Result<()> {
    if wave.files_open() < engine.fs.files_open_max() {
        return Ok(());
    }
    let full = std::mem::replace(wave, Wave::new(Barrier::Staged));
    // The same sync that barrier 1 would do, early, so that the files can be closed.
    let _durable = engine.sync(full)?;
    Ok(())
}
