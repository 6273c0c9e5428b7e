//! The control directory: how it is made, and how its content is read.
//!
//! One listing tells everything that opening a root needs to know. Its length
//! depends on the commits under way, never on the size of the tree.
//! `.gitignore` is made last, after the wait that makes the rest durable. So
//! its presence proves that no power loss can undo the control directory.
//!
//! A control directory that is not at its default place names the root that it
//! belongs to, and every look refuses another root. One at the default place is
//! moved and copied with its root, and needs no such name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use super::layout::{self, ControlName};
use super::root::{Root, if_found};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Kind, NewFile, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::text::{Name, seal, unseal};
use crate::manifest::{Action, Entry, Manifest, ManifestError};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// The longest manifest that is read: a million entries of a kilobyte.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// How far a waived commit has come: one that did not wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waived {
    /// In place, as programs see it.
    Applied,
    /// Perhaps not in place.
    Pending,
}

/// The most waived commits that are published at once. The next one makes them all durable. This bounds
/// the number of manifests, and what a power loss can undo.
pub(crate) const WAIVED_MAX: usize = 128;

/// What lies in the control directory.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Manifests that are fully applied, or that were given up.
    pub(crate) applied: BTreeSet<Generation>,
    pub(crate) abandoned: BTreeSet<Generation>,
    /// Discarded manifests whose published names may not be gone for good.
    pub(crate) discarded: BTreeSet<Generation>,
    /// Published manifests.
    pub(crate) pending: BTreeSet<Generation>,
    /// Published manifests of waived commits.
    pub(crate) waived: BTreeMap<Generation, Waived>,
    /// Generations whose sync has failed since the machine was started.
    pub(crate) sync_failed: BTreeSet<Generation>,
    /// Entries whose targets were being copied over, by generation.
    pub(crate) copying: BTreeSet<(Generation, u64)>,
    /// Transactions in doubt: their writers could not tell whether they are committed.
    pub(crate) in_doubt: BTreeSet<TransactionId>,
    /// The outcomes of such transactions.
    pub(crate) resolved: BTreeMap<TransactionId, Option<Generation>>,
    /// Manifests that were never published.
    pub(crate) unpublished: Vec<TransactionId>,
    /// Other names.
    parts: Vec<ControlName>,
}

impl Control {
    /// Lists the control directory. A missing one counts as empty.
    pub(crate) fn look(root: &Root) -> Result<Self> {
        refuse_other_root(root)?;
        let directory = layout::control();
        let listed = if_found(root.fs.list(&directory));
        let names = listed.map_err(root.error(Operation::Look, &directory))?.unwrap_or_default();
        let mut control = Self::default();
        for entry in names {
            match layout::parse_control(&entry.name) {
                ControlName::Pending(generation) => _ = control.pending.insert(generation),
                ControlName::Applied(generation) => _ = control.applied.insert(generation),
                ControlName::PendingWaived(generation) => control.found_waived(generation, Waived::Pending),
                ControlName::AppliedWaived(generation) => control.found_waived(generation, Waived::Applied),
                ControlName::Abandoned(generation) => _ = control.abandoned.insert(generation),
                ControlName::Discarded(generation) => _ = control.discarded.insert(generation),
                ControlName::SyncFailed(generation) => _ = control.sync_failed.insert(generation),
                // Something other than a file under this name is not ours, and must not be removed.
                ControlName::Unpublished(_) if entry.kind != Kind::File => {}
                ControlName::Unpublished(transaction) => control.unpublished.push(transaction),
                ControlName::Copying(generation, entry) => _ = control.copying.insert((generation, entry)),
                ControlName::InDoubt(id) => _ = control.in_doubt.insert(id),
                ControlName::Resolved(id, committed) => _ = control.resolved.insert(id, committed),
                ControlName::Foreign => {}
                part => control.parts.push(part),
            }
        }
        Ok(control)
    }

    /// A power loss may leave both names of one generation. The one that asks for more work counts.
    fn found_waived(&mut self, generation: Generation, waived: Waived) {
        let known = self.waived.entry(generation).or_insert(waived);
        *known = waived.max(*known);
    }

    /// Whether a published generation is a waived commit.
    pub(crate) fn is_waived(&self, generation: Generation) -> bool {
        self.waived.contains_key(&generation) && !self.pending.contains(&generation)
    }

    /// The manifest of a published generation that may not be durably in place.
    pub(crate) fn published(&self, generation: Generation) -> RelativePath {
        match self.waived.get(&generation).filter(|_| self.is_waived(generation)) {
            Some(Waived::Applied) => layout::applied_waived(generation),
            Some(Waived::Pending) => layout::pending_waived(generation),
            None => layout::pending(generation),
        }
    }

    /// The published generations that may not be durably in place.
    pub(crate) fn open(&self) -> BTreeSet<Generation> {
        let next = self.retired().next();
        self.pending
            .range(next..)
            .chain(self.waived.range(next..).map(|(number, _)| number))
            .copied()
            .collect()
    }

    /// Those of them that may not be in place at all.
    pub(crate) fn not_in_place(&self) -> BTreeSet<Generation> {
        let applied = Some(&Waived::Applied);
        let mut open = self.open();
        open.retain(|number| self.pending.contains(number) || self.waived.get(number) != applied);
        open
    }

    /// Whether everything that is made once exists and is durable.
    pub(crate) fn is_whole(&self, root: &Root) -> bool {
        let mut parts =
            vec![ControlName::Ignore, ControlName::Sessions, ControlName::Lock, ControlName::Queue];
        if root.fs.has_control_elsewhere() {
            parts.push(ControlName::Owner);
        }
        parts.iter().all(|part| self.parts.contains(part))
    }

    /// Whether no commit lies between two looks.
    pub(crate) fn shows_the_state_of(&self, other: &Self) -> bool {
        let state = |control: &Self| (control.newest(), control.retired(), control.open());
        state(self) == state(other)
    }

    /// The newest generation that needs no more work; 0 before the first commit.
    pub(crate) fn retired(&self) -> Generation {
        let newest = self.applied.last().max(self.abandoned.last());
        newest.copied().unwrap_or_default()
    }

    /// The newest generation that is published, applied or not.
    pub(crate) fn newest(&self) -> Generation {
        self.open().last().copied().unwrap_or_default().max(self.retired())
    }

    /// Whether there is anything to finish or to clean up. A pending name of an applied manifest counts
    /// too: a power loss can bring it back.
    pub(crate) fn needs_recovery(&self) -> bool {
        !self.pending.is_empty()
            || !self.not_in_place().is_empty()
            || !self.sync_failed.is_empty()
            || !self.discarded.is_empty()
            || !self.in_doubt.is_empty()
            || !self.copying.is_empty()
    }

    /// Notes that a published manifest was retired.
    pub(crate) fn set_applied(&mut self, generation: Generation) {
        self.pending.remove(&generation);
        self.waived.remove(&generation);
        self.applied.insert(generation);
    }

    /// Manifests that are no longer needed, because a newer one is durable.
    pub(crate) fn superseded(&self) -> Vec<RelativePath> {
        let newest = self.retired();
        let old = |set: &BTreeSet<Generation>, name: fn(Generation) -> RelativePath| {
            set.range(..newest).map(|generation| name(*generation)).collect::<Vec<_>>()
        };
        let mut names = old(&self.applied, layout::applied);
        names.extend(old(&self.abandoned, layout::abandoned));
        names
    }
}

/// Marks a generation in which a step after the commit point failed, most often a sync. The kernel may
/// have dropped what was to be written and may report the next sync as a success (fsync(2), ERRORS). So
/// recovery must write everything anew.
pub(crate) fn mark_sync_failed(root: &Root, generation: Generation) {
    mark(root, &layout::sync_failed(generation));
}

/// Removes the marks of copies whose generation is retired.
pub(crate) fn remove_copying(root: &Root, control: &mut Control) {
    if root.take_copied() {
        // Adds copies that were made after the control directory was listed. If this fails, their marks
        // stay for the next recovery.
        control.copying.extend(Control::look(root).map(|found| found.copying).unwrap_or_default());
    }
    let retired = control.retired();
    for (generation, entry) in std::mem::take(&mut control.copying) {
        if generation > retired {
            control.copying.insert((generation, entry));
        } else if let Ok(debt) = root.fs.remove_file(&layout::copying(generation, entry)) {
            debt.waive("a mark that comes back is of a generation that is retired");
        }
    }
}

/// Makes an empty file. Only its name matters, and only until the machine restarts.
pub(crate) fn mark(root: &Root, path: &RelativePath) {
    // If even the marker is refused, one more try is all that can be done.
    for _ in 0..2 {
        if let Ok((file, name)) = root.fs.create_new(path, NewFile::Ordinary) {
            name.waive("the power loss that erases the marker also discards the stale page cache");
            if let Ok((_, content)) = file.finish() {
                content.waive("the marker is empty");
            }
            return;
        }
    }
}

/// Makes the missing directories and lock files.
pub(crate) fn make(root: &Root) -> Result<Wave> {
    let mut wave = Wave::new(Barrier::Create);
    for directory in [layout::control(), layout::sessions()] {
        match root.fs.create_dir(&directory) {
            Ok(debt) => wave.add(debt),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                wave.add(Unsynced::directory(directory.parent()));
            }
            Err(error) => return Err(root.error(Operation::Create, &directory)(error)),
        }
    }
    // The queue file comes last: a reader that finds it finds the lock file too.
    for path in [layout::lock_file(), layout::queue_file()] {
        create_with(root, &path, b"")?;
    }
    Ok(wave)
}

/// Marks the control directory as durable, as the last step.
pub(crate) fn prove_durable(root: &Root) -> Result<()> {
    create_with(root, &layout::ignore(), b"*\n")
}

/// Makes a file unless it exists. If a power loss undoes the file or its content, it is made again.
fn create_with(root: &Root, path: &RelativePath, bytes: &[u8]) -> Result<()> {
    let failed = |error| root.error(Operation::Create, path)(error);
    match root.fs.create_new(path, NewFile::Ordinary) {
        Ok((mut file, name)) => {
            name.waive("if a power loss takes this file, it is made again");
            file.write_all(bytes).map_err(failed)?;
            let (_, content) = file.finish().map_err(failed)?;
            content.waive("cosave never reads what is in it");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

const OWNER_FORMAT: &str = "cosave-root";

/// The root of a control directory that lies outside of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Nobody,
    This,
    /// Nothing is at the root's old path, so the root was moved here.
    Moved,
    Other(PathBuf),
}

/// Reads to which root the control directory belongs.
///
/// The path and its destination decide, not inode numbers, which are used again.
pub(crate) fn owner(root: &Root) -> Result<Owner> {
    let path = layout::owner();
    let read = if_found(read(root, &path)).map_err(root.error(Operation::Read, &path))?;
    let Some(bytes) = read else { return Ok(Owner::Nobody) };
    let corrupt = |error: String| Error::corrupt(root.full(&path), error);
    let text = unseal(OWNER_FORMAT, &bytes).map_err(|error| corrupt(error.to_string()))?;
    let name: Name = serde_json::from_str(text).map_err(|error| corrupt(error.to_string()))?;
    let owner = PathBuf::from(name.decode().map_err(|error| corrupt(error.to_string()))?);
    if owner == root.path() {
        return Ok(Owner::This);
    }
    match root.fs.leads_to_root(&owner) {
        Ok(true) => Ok(Owner::This),
        Ok(false) if root.settings.root_moved => Ok(Owner::Moved),
        Ok(false) => Ok(Owner::Other(owner)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Owner::Moved)
        }
        Err(error) => Err(Error::io(Operation::Look, owner)(error)),
    }
}

/// Refuses a control directory that belongs to another root.
pub(crate) fn refuse_other_root(root: &Root) -> Result<()> {
    if !root.fs.has_control_elsewhere() || !keeps(Rule::OneRoot) {
        return Ok(());
    }
    match owner(root)? {
        Owner::Other(owner) => Err(other_root(root, owner)),
        Owner::Nobody | Owner::This | Owner::Moved => Ok(()),
    }
}

pub(crate) fn other_root(root: &Root, owner: PathBuf) -> Error {
    Error::OtherRoot { path: root.path(), control: root.full(&layout::control()), owner }
}

/// Writes this root as the owner, under a temporary name.
pub(crate) fn write_owner(root: &Root) -> Result<Wave> {
    let path = layout::unnamed_owner();
    let failed = |error| root.error(Operation::Create, &path)(error);
    if let Some(debt) = if_found(root.fs.remove_file(&path)).map_err(failed)? {
        debt.waive("it is made anew on the next line");
    }
    let text = serde_json::to_string(&Name::new(root.path().as_os_str())).unwrap_or_default();
    let (mut file, name) = root.fs.create_new(&path, NewFile::Ordinary).map_err(failed)?;
    name.waive("nobody looks for it under this name");
    file.write_all(&seal(OWNER_FORMAT, &text)).map_err(failed)?;
    let (_, content) = file.finish().map_err(failed)?;
    let mut wave = Wave::new(Barrier::Create);
    wave.add(content);
    Ok(wave)
}

/// Renames what `write_owner` wrote to its final name.
pub(crate) fn name_owner(root: &Root) -> Result<Wave> {
    let path = layout::owner();
    let mut wave = Wave::new(Barrier::Create);
    let renamed = root.fs.rename(&layout::unnamed_owner(), &path);
    wave.add(renamed.map_err(root.error(Operation::Create, &path))?);
    Ok(wave)
}

/// Marks where the generations ended, in a control directory that was removed and made anew while a
/// store was open. The mark is an abandoned generation, so nothing of it is left to finish.
pub(crate) fn mark_end(root: &Root, generation: Generation) -> Result<Wave> {
    let path = layout::abandoned(generation);
    let failed = |error| root.error(Operation::Create, &path)(error);
    let (file, name) = root.fs.create_new(&path, NewFile::Ordinary).map_err(failed)?;
    let (_, content) = file.finish().map_err(failed)?;
    content.waive("the mark is empty");
    let mut wave = Wave::new(Barrier::Create);
    wave.add(name);
    Ok(wave)
}

/// Reads a small file of the control directory.
pub(crate) fn read(root: &Root, path: &RelativePath) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    root.fs.open(path)?.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a manifest is there and not torn. A power loss before its sync can leave neither.
pub(crate) fn is_whole(root: &Root, path: &RelativePath) -> Result<bool> {
    let bytes = if_found(read(root, path)).map_err(root.error(Operation::Read, path))?;
    let is_torn = |error: &ManifestError| matches!(error, ManifestError::Header | ManifestError::Checksum);
    Ok(bytes.is_some_and(|bytes| !Manifest::decode(&bytes).is_err_and(|error| is_torn(&error))))
}

/// Reads and verifies a published manifest. `None` when it is not there.
pub(crate) fn manifest(root: &Root, path: &RelativePath) -> Result<Option<Manifest>> {
    let read = if_found(read(root, path)).map_err(root.error(Operation::Read, path))?;
    let Some(bytes) = read else { return Ok(None) };
    let decoded = match Manifest::decode(&bytes) {
        Err(_) if !keeps(Rule::VerifyManifest) => Manifest::decode_unverified(&bytes),
        decoded => decoded,
    };
    let manifest = decoded.map_err(|error| Error::corrupt(root.full(path), error.to_string()))?;
    // A checksum can be forged, so the manifest's names are checked like a caller's paths.
    for entry in &manifest.entries {
        check_names(root, entry).map_err(|reason| Error::corrupt(root.full(path), reason))?;
    }
    Ok(Some(manifest))
}

/// Checks the names in a manifest as a caller's paths are checked, since its checksum may be forged.
fn check_names(root: &Root, entry: &Entry) -> Result<(), String> {
    root.refuse_reserved(&entry.path).map_err(|reason| format!("it names `{}`: {reason}", entry.path))?;
    match &entry.action {
        Action::Write(content) if layout::parse_staged(&content.name).is_none() => {
            Err(format!("it moves `{}`, which is no staged file", content.name.to_string_lossy()))
        }
        _ => Ok(()),
    }
}
