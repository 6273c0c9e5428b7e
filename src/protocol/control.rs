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
use std::io;
use std::path::PathBuf;

use super::layout::{self, ControlName, Fate};
use super::root::{Root, is_gone};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, DirectoryEntry, Kind, Wave};
use crate::generation::Generation;
use crate::manifest::name::Name;
use crate::manifest::text::{seal, unseal};
use crate::manifest::{Action, Entry, Manifest, ManifestError};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// The most waived commits that are published at once. The next one makes them all durable. This bounds
/// the number of manifests, and what a power loss can undo.
pub(crate) const WAIVED_MAX: usize = 128;

/// What says that a published manifest may not be durably in place. A power loss may leave several such
/// names of one generation. Then the first of these counts, which asks for the most work.
const OPEN: [Fate; 4] = [Fate::Pending, Fate::PendingInline, Fate::PendingWaived, Fate::AppliedWaived];

/// What says that it may not be in place at all.
const NOT_IN_PLACE: [Fate; 3] = [Fate::Pending, Fate::PendingInline, Fate::PendingWaived];

/// What lies in the control directory.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) names: BTreeSet<ControlName>,
}

impl Control {
    /// Lists the control directory. A missing one counts as empty.
    pub(crate) fn look(root: &Root) -> Result<Self> {
        refuse_other_root(root)?;
        let name = |entry: DirectoryEntry| match ControlName::parse(&entry.name) {
            // Something other than a file under this name is not ours, and must not be removed.
            Some(ControlName::Unpublished(_)) if entry.kind != Kind::File => None,
            name => name,
        };
        Ok(Self { names: root.list(&layout::control())?.into_iter().filter_map(name).collect() })
    }

    pub(crate) fn has(&self, name: ControlName) -> bool {
        self.names.contains(&name)
    }

    /// Takes out names that will be removed.
    pub(crate) fn take(&mut self, is_wanted: impl Fn(ControlName) -> bool) -> BTreeSet<ControlName> {
        let (taken, left) = std::mem::take(&mut self.names).into_iter().partition(|name| is_wanted(*name));
        self.names = left;
        taken
    }

    /// The generations of which a name says this.
    pub(crate) fn generations(&self, fate: Fate) -> BTreeSet<Generation> {
        self.any_of(&[fate])
    }

    fn any_of(&self, fates: &[Fate]) -> BTreeSet<Generation> {
        let of_name = |name: &ControlName| match name {
            ControlName::Numbered(generation, fate) if fates.contains(fate) => Some(*generation),
            _ => None,
        };
        self.names.iter().filter_map(of_name).collect()
    }

    /// The generations of commits that did not wait.
    pub(crate) fn waived(&self) -> BTreeSet<Generation> {
        self.any_of(&[Fate::PendingWaived, Fate::AppliedWaived])
    }

    /// Whether a published generation is a commit that did not wait.
    pub(crate) fn is_waived(&self, generation: Generation) -> bool {
        let [pending, inline, waived, applied] = OPEN.map(|fate| self.has(fate.of(generation)));
        !pending && !inline && (waived || applied)
    }

    /// The manifest of a published generation that may not be durably in place.
    pub(crate) fn published(&self, generation: Generation) -> RelativePath {
        let found = OPEN.into_iter().find(|fate| self.has(fate.of(generation)));
        found.unwrap_or(Fate::Pending).of(generation).path()
    }

    /// The names of a published generation that do not count.
    pub(crate) fn other_names(&self, generation: Generation) -> Vec<ControlName> {
        let names = OPEN.into_iter().map(|fate| fate.of(generation)).filter(|name| self.has(*name));
        names.skip(1).collect()
    }

    /// Every manifest.
    pub(crate) fn manifests(&self) -> BTreeMap<Generation, RelativePath> {
        let retired = |fate: Fate| {
            self.generations(fate).into_iter().map(move |number| (number, fate.of(number).path()))
        };
        let open = self.open().into_iter().map(|generation| (generation, self.published(generation)));
        retired(Fate::Abandoned).chain(retired(Fate::Applied)).chain(open).collect()
    }

    /// The published generations that may not be durably in place.
    pub(crate) fn open(&self) -> BTreeSet<Generation> {
        self.any_of(&OPEN).split_off(&self.retired().next())
    }

    /// Those of them that may not be in place at all.
    pub(crate) fn not_in_place(&self) -> BTreeSet<Generation> {
        self.any_of(&NOT_IN_PLACE).split_off(&self.retired().next())
    }

    /// Whether a generation's files were moved since the machine was started, so that all moves are
    /// visible. A power loss can leave the mark and undo the moves.
    pub(crate) fn is_in_place(&self, root: &Root, generation: Generation) -> bool {
        let is_mark = |name: &ControlName| match name {
            ControlName::InPlace(marked, boot) => {
                let is_now = root.fs.boot() == Some(*boot) || !keeps(Rule::DistrustOldMarks);
                *marked == generation && is_now
            }
            _ => false,
        };
        self.names.iter().any(is_mark)
    }

    /// The published generations of which a mark says that their files are in place.
    pub(crate) fn marked_in_place(&self, root: &Root) -> BTreeSet<Generation> {
        let is_marked = |generation: &Generation| {
            self.is_in_place(root, *generation) && !self.has(Fate::SyncFailed.of(*generation))
        };
        self.not_in_place().into_iter().filter(is_marked).collect()
    }

    /// Whether everything that is made once exists and is durable.
    pub(crate) fn is_whole(&self, root: &Root) -> bool {
        let parts = [layout::IGNORE, layout::SESSIONS, layout::LOCK, layout::QUEUE];
        let has_owner = self.has(layout::OWNER) || !root.fs.has_control_elsewhere();
        has_owner && parts.into_iter().all(|part| self.has(part))
    }

    /// Whether no commit lies between two looks.
    pub(crate) fn shows_the_state_of(&self, other: &Self) -> bool {
        let state = |control: &Self| (control.newest(), control.retired(), control.open());
        state(self) == state(other)
    }

    /// The newest generation that needs no more work; 0 before the first commit.
    pub(crate) fn retired(&self) -> Generation {
        self.any_of(&[Fate::Applied, Fate::Abandoned]).last().copied().unwrap_or_default()
    }

    /// The newest generation that is published, applied or not.
    pub(crate) fn newest(&self) -> Generation {
        self.open().last().copied().unwrap_or_default().max(self.retired())
    }

    /// Whether there is anything to finish or to clean up. A pending name of an applied manifest counts
    /// too: a power loss can bring it back.
    pub(crate) fn needs_recovery(&self) -> bool {
        let needs = |name: &ControlName| match name {
            ControlName::Numbered(_, fate) => {
                NOT_IN_PLACE.contains(fate) || matches!(fate, Fate::Discarded | Fate::SyncFailed)
            }
            ControlName::InDoubt(_) | ControlName::Copying(..) => true,
            _ => false,
        };
        self.names.iter().any(needs)
    }

    /// Notes that a published manifest has lost its published name.
    pub(crate) fn set_closed(&mut self, generation: Generation) {
        self.take(|name| OPEN.iter().any(|fate| fate.of(generation) == name));
    }

    /// Notes that a published manifest was retired under this name.
    pub(crate) fn set_retired(&mut self, generation: Generation, name: ControlName) {
        self.set_closed(generation);
        self.names.insert(name);
    }

    /// Manifests that are no longer needed, because a newer one is durable.
    pub(crate) fn superseded(&self) -> Vec<ControlName> {
        let retired = self.retired();
        let is_old = |name: &&ControlName| match name {
            ControlName::Numbered(number, Fate::Applied | Fate::Abandoned) => *number < retired,
            _ => false,
        };
        self.names.iter().filter(is_old).copied().collect()
    }
}

/// Marks a generation whose files are in place, though not durably. If its process dies, recovery must
/// not wait for files whose directory somebody has removed since. It must not restore a file of a small
/// save that somebody has removed, either. The root itself is never removed.
pub(crate) fn mark_in_place(root: &Root, control: &Control, generation: Generation, entries: &[Entry]) {
    let is_small = control.has(Fate::PendingInline.of(generation));
    if !is_small && entries.iter().all(|entry| entry.path.parent().is_root()) {
        return;
    }
    if let Some(boot) = root.fs.boot() {
        root.mark(ControlName::InPlace(generation, boot));
    }
}

/// Removes the marks of generations that are retired.
pub(crate) fn remove_marks(root: &Root, control: &mut Control) {
    if root.take_copied() {
        // Adds copies that were made after the control directory was listed. If this fails, their marks
        // stay for the next recovery.
        let found = Control::look(root).unwrap_or_default();
        control.names.extend(found.names.iter().filter(|name| matches!(name, ControlName::Copying(..))));
    }
    let retired = control.retired();
    let is_spent = |name| match name {
        ControlName::Copying(generation, _) | ControlName::InPlace(generation, _) => generation <= retired,
        _ => false,
    };
    for mark in control.take(is_spent) {
        root.try_remove(&mark.path(), "a mark that comes back is of a generation that is retired");
    }
}

/// Makes the missing directories and lock files.
pub(crate) fn make(root: &Root) -> Result<Wave> {
    let mut wave = Wave::new(Barrier::Create);
    for directory in [layout::control(), layout::SESSIONS.path()] {
        let made = root.fs.ensure_dir(&directory);
        wave.add(made.map_err(root.error(Operation::Create, &directory))?);
    }
    // The queue file comes last: a reader that finds it finds the lock file too.
    for name in [layout::LOCK, layout::QUEUE] {
        create_with(root, &name.path(), b"")?;
    }
    Ok(wave)
}

/// Makes the file that the holder of the lease locks.
pub(crate) fn make_lease(root: &Root) -> Result<()> {
    create_with(root, &layout::LEASE.path(), b"")
}

/// Marks the control directory as durable, as the last step.
pub(crate) fn prove_durable(root: &Root) -> Result<()> {
    create_with(root, &layout::IGNORE.path(), b"*\n")
}

/// Makes the file that an update locks when others let it go first.
pub(crate) fn make_turn(root: &Root) -> Result<()> {
    create_with(root, &layout::TURN.path(), b"")
}

/// Makes a file unless it exists. If a power loss undoes the file or its content, it is made again.
fn create_with(root: &Root, path: &RelativePath, bytes: &[u8]) -> Result<()> {
    match root.make(path, bytes) {
        Ok((name, content)) => {
            name.waive("if a power loss takes this file, it is made again");
            content.waive("cosave never reads what is in it");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(root.error(Operation::Create, path)(error)),
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
    let path = layout::OWNER.path();
    let Some(bytes) = root.read(&path)? else { return Ok(Owner::Nobody) };
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
        Err(error) if is_gone(&error) => Ok(Owner::Moved),
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
    Error::OtherRoot { path: root.path().into(), control: root.full(&layout::control()), owner }
}

/// Writes this root as the owner, under a temporary name.
pub(crate) fn write_owner(root: &Root) -> Result<Wave> {
    let path = layout::UNNAMED_OWNER.path();
    let failed = |error| root.error(Operation::Create, &path)(error);
    root.remove(Operation::Create, &path, "it is made anew on the next line")?;
    let text = serde_json::to_string(&Name::new(root.path().as_os_str())).unwrap_or_default();
    let (name, content) = root.make(&path, &seal(OWNER_FORMAT, &text)).map_err(failed)?;
    name.waive("nobody looks for it under this name");
    let mut wave = Wave::new(Barrier::Create);
    wave.add(content);
    Ok(wave)
}

/// Renames what `write_owner` wrote to its final name.
pub(crate) fn name_owner(root: &Root) -> Result<Wave> {
    let path = layout::OWNER.path();
    let mut wave = Wave::new(Barrier::Create);
    let renamed = root.fs.rename(&layout::UNNAMED_OWNER.path(), &path);
    wave.add(renamed.map_err(root.error(Operation::Create, &path))?);
    Ok(wave)
}

/// Marks where the generations ended, in a control directory that was removed and made anew while a
/// store was open. The mark is an abandoned generation, so nothing of it is left to finish.
pub(crate) fn mark_end(root: &Root, generation: Generation) -> Result<Wave> {
    let path = Fate::Abandoned.of(generation).path();
    let (name, content) = root.make(&path, b"").map_err(root.error(Operation::Create, &path))?;
    content.waive("the mark is empty");
    let mut wave = Wave::new(Barrier::Create);
    wave.add(name);
    Ok(wave)
}

/// Whether a manifest is there and not torn. A power loss before its sync can leave neither.
pub(crate) fn is_whole(root: &Root, path: &RelativePath) -> Result<bool> {
    let bytes = root.read(path)?;
    let is_torn = |error: &ManifestError| matches!(error, ManifestError::Header | ManifestError::Checksum);
    Ok(bytes.is_some_and(|bytes| !Manifest::decode(&bytes).is_err_and(|error| is_torn(&error))))
}

/// Reads and verifies a published manifest. `None` when it is not there.
pub(crate) fn manifest(root: &Root, path: &RelativePath) -> Result<Option<Manifest>> {
    root.read(path)?.map(|bytes| decode(root, path, &bytes)).transpose()
}

/// Verifies a manifest that was read.
pub(crate) fn decode(root: &Root, path: &RelativePath, bytes: &[u8]) -> Result<Manifest> {
    let decoded = match Manifest::decode(bytes) {
        Err(_) if !keeps(Rule::VerifyManifest) => Manifest::decode_unverified(bytes),
        decoded => decoded,
    };
    let manifest = decoded.map_err(|error| Error::corrupt(root.full(path), error.to_string()))?;
    // A checksum can be forged, so the manifest's names are checked like a caller's paths.
    for entry in &manifest.entries {
        check_names(root, entry).map_err(|reason| Error::corrupt(root.full(path), reason))?;
    }
    Ok(manifest)
}

/// Whether this is the staged name of a directory that takes the place of a file beside it.
fn is_built(entry: &Entry, path: &RelativePath) -> bool {
    let takes_place = matches!(entry.action, Action::MoveTree(_)) && entry.before.is_some();
    let is_beside = path.parent() == entry.path.parent() && *path != entry.path;
    takes_place && is_beside && layout::parse_staged(path.name()).is_some()
}

/// Checks the names in a manifest as a caller's paths are checked, since its checksum may be forged.
fn check_names(root: &Root, entry: &Entry) -> Result<(), String> {
    for path in entry.paths().filter(|path| !is_built(entry, path)) {
        root.refuse_reserved(path).map_err(|reason| format!("it names `{path}`: {reason}"))?;
    }
    if let Some(hidden) = entry.hidden().filter(|hidden| layout::parse_staged(hidden.name()).is_none()) {
        return Err(format!("it hides a directory as `{hidden}`, which is no staged name"));
    }
    let control = root.fs.control_in_root();
    if let Some(control) = control.filter(|_| entry.is_of_tree()) {
        if entry.paths().any(|path| control.as_path().starts_with(path.as_path())) {
            return Err(format!("it moves `{control}`, the control directory"));
        }
    }
    match &entry.action {
        Action::Write(content) if layout::parse_staged(&content.name).is_none() => {
            Err(format!("it moves `{}`, which is no staged file", content.name.to_string_lossy()))
        }
        Action::Link(link) if layout::parse_staged(&link.name).is_none() => {
            Err(format!("it moves `{}`, which is no staged link", link.name.to_string_lossy()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A power loss can leave several names of one generation. The one that asks for the most work counts.
    #[test]
    fn of_several_names_of_one_generation_the_first_counts() {
        let generation = Generation::from(2);
        let (waited, waived) = OPEN.split_at(2);
        for first in waited {
            for second in OPEN {
                let names = [first.of(generation), second.of(generation)].into();
                let control = Control { names };
                assert!(!control.is_waived(generation), "{first:?} beside {second:?}");
            }
        }
        for fate in waived {
            let control = Control { names: [fate.of(generation)].into() };
            assert!(control.is_waived(generation), "{fate:?}");
            assert_eq!(control.published(generation), fate.of(generation).path());
        }
        assert!(!Control::default().is_waived(generation));
    }
}
