//! Snapshot: what a transaction has read, all of one state, known by its content.
//!
//! Between cosave's writers the generation tells: while it is the same, none of
//! them has changed anything. Others are not numbered, and stamps are no identity,
//! so what was read is read again and compared, but where its stamps prove that it
//! is the same. Runs under a lock, whoever holds it; changes nothing.

use std::collections::HashMap;
use std::io::{self, Read as _};

use super::root::{Root, if_found};
use crate::error::{Error, Operation, Result};
use crate::fs::{Kind, Metadata, ReadFile};
use crate::generation::Generation;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// A state of the root in which paths are looked up, under a lock.
pub(crate) trait State {
    /// The newest generation that it shows.
    fn generation(&self) -> Generation;

    /// Opens what `path` (without symlinks) leads to; `None` where there is nothing.
    fn open(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>>;
}

/// The state that the exclusive lock shows once everything published is in place.
#[derive(Debug)]
pub(crate) struct InPlace(pub(crate) Generation);

impl State for InPlace {
    fn generation(&self) -> Generation {
        self.0
    }

    fn open(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        if_found(root.fs.open(path)).map_err(root.error(Operation::Read, path))
    }
}

/// What was found at a path.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The BLAKE3 of the file's bytes; `None` where there was no file.
    checksum: Option<blake3::Hash>,
    /// A file of this metadata is the one that was read.
    proof: Option<Metadata>,
}

/// What a transaction has read so far.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The newest generation at which all of it was so.
    generation: Generation,
    reads: HashMap<RelativePath, Seen>,
    /// What was found changed: the transaction cannot be committed any more.
    changed: Option<RelativePath>,
}

/// Reads what a state has at `path`.
pub(crate) fn see(root: &Root, state: &impl State, path: &RelativePath) -> Result<(Option<Vec<u8>>, Seen)> {
    let failed = |error| root.error(Operation::Read, path)(error);
    let Some(mut file) = state.open(root, path)? else {
        return Ok((None, Seen { checksum: None, proof: None }));
    };
    // Before the bytes: whoever changes them while they are read changes the stamps after this.
    let found = file.metadata().map_err(failed)?;
    let is_proof = root.stamps.prove(&found) || !keeps(Rule::CompareContent);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    let seen = Seen { checksum: Some(blake3::hash(&bytes)), proof: is_proof.then_some(found) };
    Ok((Some(bytes), seen))
}

impl Snapshot {
    pub(crate) fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.changed.is_none()
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        self.reads.keys()
    }

    /// Refuses to go on once something was found changed.
    pub(crate) fn intact(&self, root: &Root) -> Result<()> {
        self.changed.as_ref().map_or(Ok(()), |path| Err(conflict(root, path)))
    }

    /// Moves on to another state, if all that was read so far is the same in it. What a
    /// transaction reads is one state, or it would see some that never were.
    pub(crate) fn join(&mut self, root: &Root, state: &impl State) -> Result<()> {
        self.intact(root)?;
        if self.generation != state.generation() && keeps(Rule::OneSnapshot) {
            self.check(root, state)?;
        }
        self.generation = state.generation();
        Ok(())
    }

    /// Compares all that was read with a state. What was changed stays so, or what was decided by a
    /// read that failed would pass for decided by one that did not.
    pub(crate) fn check(&mut self, root: &Root, state: &impl State) -> Result<()> {
        self.intact(root)?;
        self.changed = self.find_changed(root, state)?;
        self.intact(root)
    }

    /// Remembers what was seen. A file that somebody else changed between two reads of it is seen too.
    pub(crate) fn remember(&mut self, root: &Root, path: &RelativePath, seen: Seen) -> Result<()> {
        let first = self.reads.entry(path.clone()).or_insert_with(|| seen.clone());
        if first.checksum != seen.checksum {
            self.changed = Some(path.clone());
        }
        self.intact(root)
    }

    fn find_changed(&self, root: &Root, state: &impl State) -> Result<Option<RelativePath>> {
        for (path, seen) in &self.reads {
            let found = look(root, path)?;
            // Where others have committed, not even a proof is asked: clocks can be turned back.
            if self.generation == state.generation() && seen.proof.is_some() && seen.proof == found {
                continue;
            }
            let is_file = found.is_none_or(|found| found.kind == Kind::File);
            if !is_file || checksum(root, path, state.open(root, path)?)? != seen.checksum {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }
}

/// What is there; nothing where a parent is no directory any more.
fn look(root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
    match if_found(root.fs.metadata(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        found => found.map_err(root.error(Operation::Look, path)),
    }
}

fn checksum(
    root: &Root,
    path: &RelativePath,
    file: Option<Box<dyn ReadFile>>,
) -> Result<Option<blake3::Hash>> {
    let Some(file) = file else { return Ok(None) };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(root.error(Operation::Read, path))?;
    Ok(Some(hasher.finalize()))
}

fn conflict(root: &Root, path: &RelativePath) -> Error {
    Error::Conflict { path: root.full(path), found: "has changed since it was read" }
}
