//! The control directory: made once, and looked at as a whole.
//!
//! One listing says everything that opening a root needs to know; its length
//! depends on what is in flight, never on the tree. Only `.gitignore` is made
//! after the wait that makes the rest durable, so its presence proves that the
//! control directory cannot vanish in a power loss.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};

use super::layout::{self, ControlName};
use super::{Engine, if_found};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Kind, NewFile, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::Manifest;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// The longest manifest that is read: a million entries of a kilobyte.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// What lies in the control directory.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Fully applied manifests, and those that were given up.
    pub(crate) applied: BTreeSet<Generation>,
    pub(crate) abandoned: BTreeSet<Generation>,
    /// Manifests that could not be kept, whose published names may not be gone for good.
    pub(crate) discarded: BTreeSet<Generation>,
    /// Published manifests.
    pub(crate) pending: BTreeSet<Generation>,
    /// Generations of which a sync failed since the machine was started.
    pub(crate) unsynced: BTreeSet<Generation>,
    /// Manifests that were never published.
    pub(crate) unpublished: Vec<TransactionId>,
    /// Whether the control directory is known to be durable.
    durable: bool,
}

impl Control {
    /// Looks; an absent control directory is an empty one.
    pub(crate) fn look(engine: &Engine) -> Result<Self> {
        let directory = layout::control();
        let listed = if_found(engine.fs.list(&directory));
        let names = listed.map_err(engine.error(Operation::Look, &directory))?.unwrap_or_default();
        let mut control = Self::default();
        for entry in names {
            match layout::parse_control(&entry.name) {
                ControlName::Pending(generation) => _ = control.pending.insert(generation),
                ControlName::Applied(generation) => _ = control.applied.insert(generation),
                ControlName::Abandoned(generation) => _ = control.abandoned.insert(generation),
                ControlName::Discarded(generation) => _ = control.discarded.insert(generation),
                ControlName::Unsynced(generation) => _ = control.unsynced.insert(generation),
                // Not ours, and not to be removed, if it is no file.
                ControlName::Unpublished(_) if entry.kind != Kind::File => {}
                ControlName::Unpublished(transaction) => control.unpublished.push(transaction),
                ControlName::Ignore => control.durable = true,
                ControlName::Foreign => {}
            }
        }
        Ok(control)
    }

    /// The newest generation that needs nothing any more; 0 before the first commit.
    pub(crate) fn settled(&self) -> Generation {
        let newest = self.applied.last().max(self.abandoned.last());
        newest.copied().unwrap_or_default()
    }

    /// The newest generation that is published, applied or not.
    pub(crate) fn newest(&self) -> Generation {
        self.settled().max(self.pending.last().copied().unwrap_or_default())
    }

    /// Manifests that a newer, durable one has made superfluous.
    pub(crate) fn superseded(&self) -> Vec<RelativePath> {
        let newest = self.settled();
        let old = |set: &BTreeSet<Generation>, name: fn(Generation) -> RelativePath| {
            set.range(..newest).map(|generation| name(*generation)).collect::<Vec<_>>()
        };
        let mut names = old(&self.applied, layout::applied);
        names.extend(old(&self.abandoned, layout::abandoned));
        names
    }
}

/// Makes the control directory, unless it is there and durable.
///
/// A process may have been killed between making it and the sync; then it is visible, but a power
/// loss could take it, with every manifest in it. So what is found is synced again until
/// `.gitignore` says that this was done.
pub(crate) fn ensure(engine: &Engine) -> Result<()> {
    if Control::look(engine)?.durable {
        return Ok(());
    }
    let mut wave = Wave::new(Barrier::Create);
    for directory in [layout::control(), layout::sessions()] {
        match engine.fs.create_dir(&directory) {
            Ok(debt) => wave.add(debt),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                wave.add(Unsynced::directory(directory.parent()));
            }
            Err(error) => return Err(engine.error(Operation::Create, &directory)(error)),
        }
    }
    // Lost without this sync: the control directory's name, and with it every commit, acknowledged
    // or not, that was ever published in it.
    let _durable = engine.sync_always(wave)?;
    let ignore = layout::ignore();
    match engine.fs.create_new(&ignore, NewFile::Ordinary) {
        Ok((mut file, name)) => {
            // No sync: if a power loss takes this file, it is made again.
            name.need_not_last();
            file.write_all(b"*\n").map_err(engine.error(Operation::Create, &ignore))?;
            let (_, content) = file.finish().map_err(engine.error(Operation::Create, &ignore))?;
            content.need_not_last();
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(engine.error(Operation::Create, &ignore)(error)),
    }
}

/// Reads a small file of the control directory.
pub(crate) fn read(engine: &Engine, path: &RelativePath) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    engine.fs.open(path)?.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads and verifies a published manifest. `None` when it is not there.
pub(crate) fn manifest(engine: &Engine, path: &RelativePath) -> Result<Option<Manifest>> {
    let read = if_found(read(engine, path)).map_err(engine.error(Operation::Read, path))?;
    let Some(bytes) = read else { return Ok(None) };
    let decoded = match Manifest::decode(&bytes) {
        Err(_) if !keeps(Rule::VerifyManifest) => Manifest::decode_unverified(&bytes),
        decoded => decoded,
    };
    let manifest = decoded.map_err(|error| Error::corrupt(engine.full(path), error.to_string()))?;
    // A checksum can be forged: what a manifest names is checked as a caller's paths are.
    for entry in &manifest.entries {
        super::check::names(entry).map_err(|reason| Error::corrupt(engine.full(path), reason))?;
    }
    Ok(Some(manifest))
}
