//! Snapshot: what a transaction has read, all of one state, identified by
//! content.
//!
//! As long as the generation is the same, no writer of cosave has changed
//! anything. Changes by other programs have no number, and stamps are no
//! identity. So files that were read are read again and compared, unless their
//! stamps prove that they are the same. Runs under any lock, and changes
//! nothing.

use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Read as _, Seek as _};
use std::path::PathBuf;

use super::expected::Expectations;
use super::glance::{Answer, Glances, Question};
use super::history_record::Undo;
use super::root::{Root, if_found};
use super::state::State;
use crate::checksum::Checksum;
use crate::error::{Error, Operation, Result};
use crate::expect::Clash;
use crate::fs::{Kind, Metadata, ReadFile};
use crate::generation::Generation;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// What was found at a path.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The BLAKE3 of the file's bytes; `None` if there was no file.
    checksum: Option<Checksum>,
    /// Metadata that proves that a file is the one that was read.
    proof: Option<Metadata>,
}

/// What a transaction has read so far.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The newest generation in which all of it was the same.
    generation: Generation,
    reads: HashMap<RelativePath, Seen>,
    pub(crate) glances: Glances,
    pub(crate) expectations: Expectations,
    /// The earlier state that the transaction goes back to, if it undoes or redoes others.
    pub(crate) undo: Option<Undo>,
    /// A path that was found changed, so that the transaction can no longer be committed.
    changed: Option<RelativePath>,
}

impl Seen {
    /// No file.
    pub(crate) fn nothing() -> Self {
        Self { checksum: None, proof: None }
    }
}

/// A file of a state, open and not read yet.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) file: Box<dyn ReadFile>,
    pub(crate) metadata: Metadata,
    /// Whether every later change of it gives it other metadata.
    pub(crate) is_proof: bool,
}

impl Found {
    /// What was seen, once all bytes of the file were read.
    pub(crate) fn seen(&self, checksum: Checksum) -> Seen {
        Seen { checksum: Some(checksum), proof: self.is_proof.then_some(self.metadata) }
    }
}

/// Opens `path` in a state. The file can be read after the state's lock is released.
pub(crate) fn find(root: &Root, state: &(impl State + ?Sized), path: &RelativePath) -> Result<Option<Found>> {
    let Some(file) = state.open(root, path)? else { return Ok(None) };
    // The metadata comes before the bytes: a change during the read then changes the stamps.
    let metadata = file.metadata().map_err(root.error(Operation::Read, path))?;
    let is_proof = root.stamps.prove(&metadata) || !keeps(Rule::CompareContent);
    Ok(Some(Found { file, metadata, is_proof }))
}

/// Reads `path` in a state.
pub(crate) fn see(root: &Root, state: &impl State, path: &RelativePath) -> Result<(Option<Vec<u8>>, Seen)> {
    let Some(mut found) = find(root, state, path)? else {
        return Ok((None, Seen::nothing()));
    };
    let mut bytes = Vec::new();
    found.file.read_to_end(&mut bytes).map_err(root.error(Operation::Read, path))?;
    let seen = found.seen(Checksum::of(&bytes));
    Ok((Some(bytes), seen))
}

/// Opens `path` in a state. The file is read once, so that it is known again.
pub(crate) fn open(
    root: &Root,
    state: &impl State,
    path: &RelativePath,
) -> Result<(Option<Box<dyn ReadFile>>, Seen)> {
    let failed = |error| root.error(Operation::Read, path)(error);
    let Some(mut found) = find(root, state, path)? else { return Ok((None, Seen::nothing())) };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut *found.file).map_err(failed)?;
    found.file.rewind().map_err(failed)?;
    let seen = found.seen(Checksum::of_all(&hasher));
    Ok((Some(found.file), seen))
}

impl Snapshot {
    pub(crate) fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.glances.is_empty() && self.changed.is_none()
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        self.reads.keys().chain(self.glances.paths()).chain(self.expectations.paths())
    }

    /// Returns a conflict if something was found changed.
    pub(crate) fn intact(&self, root: &Root) -> Result<()> {
        self.changed.as_ref().map_or(Ok(()), |path| Err(conflict(root, path)))
    }

    /// Moves on to another state, if everything that was read so far is the same in it. Otherwise the
    /// transaction would see a state that never existed.
    pub(crate) fn join(&mut self, root: &Root, state: &impl State) -> Result<()> {
        self.intact(root)?;
        if self.generation != state.generation() && keeps(Rule::OneSnapshot) {
            self.check(root, state)?;
        }
        self.generation = state.generation();
        Ok(())
    }

    /// Compares everything that was read with a state. A change that was found once is never taken
    /// back, since the transaction may have decided something by a failed read.
    pub(crate) fn check(&mut self, root: &Root, state: &impl State) -> Result<()> {
        self.intact(root)?;
        self.changed = self.find_changed(root, state)?;
        self.intact(root)
    }

    /// Checks what the caller expects.
    pub(crate) fn check_expected(&self, root: &Root, state: &impl State) -> Result<()> {
        self.expectations.check(root, state, &self.glances)
    }

    /// Whether a change of these paths, in a generation before its own, may change what the transaction
    /// relies on, though none of them is among its own paths.
    pub(crate) fn may_change_with(&self, changed: &BTreeSet<RelativePath>) -> bool {
        if changed.is_empty() {
            return false;
        }
        let above: BTreeSet<_> = changed.iter().flat_map(RelativePath::chain).collect();
        let seen = self.glances.paths().chain(self.expectations.paths());
        let is_above = |path: &RelativePath| path.is_root() || above.contains(path);
        self.expectations.is_of_one_generation() || seen.into_iter().any(is_above)
    }

    /// Notes what was read. Also notices if another program changed the file between two reads of it.
    pub(crate) fn remember(&mut self, root: &Root, path: &RelativePath, seen: Seen) -> Result<()> {
        let first = self.reads.entry(path.clone()).or_insert_with(|| seen.clone());
        if first.checksum != seen.checksum {
            self.changed = Some(path.clone());
        }
        self.intact(root)
    }

    /// Looks at `path` without reading it, and notes what was found.
    pub(crate) fn glance(
        &mut self,
        root: &Root,
        state: &impl State,
        path: &RelativePath,
        question: Question,
    ) -> Result<Answer> {
        let answer = self.glances.ask(root, state, path, question)?;
        if !self.glances.remember(path, question, &answer) {
            self.changed = Some(path.clone());
        }
        self.intact(root).map(|()| answer)
    }

    /// Notes where a path led that was followed. It counts as read: if somebody makes the symlink lead
    /// elsewhere before the commit, what was read or is to be written lies at the wrong place.
    pub(crate) fn follow(&mut self, link: RelativePath, to: PathBuf) {
        if !self.glances.remember(&link, Question::Link, &Answer::Link(Some(to))) {
            self.changed = Some(link);
        }
    }

    fn find_changed(&self, root: &Root, state: &impl State) -> Result<Option<RelativePath>> {
        for (path, seen) in &self.reads {
            let found = match if_found(root.fs.metadata(path)) {
                // A parent is no longer a directory, so there is no file.
                Err(error) if error.kind() == ErrorKind::NotADirectory => match seen.checksum {
                    Some(_) => return Ok(Some(path.clone())),
                    None => continue,
                },
                found => found.map_err(root.error(Operation::Look, path))?,
            };
            // If others have committed, not even the proof is trusted, since clocks can be turned back.
            if self.generation == state.generation() && seen.proof.is_some() && seen.proof == found {
                continue;
            }
            // A directory that the transaction has made for its own files is nothing that it missed.
            if seen.checksum.is_none() && found.is_some() && self.glances.is_own(root, path)? {
                continue;
            }
            let is_file = found.is_none_or(|found| found.kind == Kind::File);
            if !is_file || checksum(root, path, state.open(root, path)?)? != seen.checksum {
                return Ok(Some(path.clone()));
            }
        }
        self.glances.find_changed(root, state)
    }
}

fn checksum(root: &Root, path: &RelativePath, file: Option<Box<dyn ReadFile>>) -> Result<Option<Checksum>> {
    let Some(file) = file else { return Ok(None) };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(root.error(Operation::Read, path))?;
    Ok(Some(Checksum::of_all(&hasher)))
}

fn conflict(root: &Root, path: &RelativePath) -> Error {
    Error::Conflict { path: root.full(path).into(), found: Clash::Changed }
}
