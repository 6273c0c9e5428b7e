//! Changes of objects, as those of a transaction.
//!
//! One change or several of them are one commit. Each can be done again, since a commit that met a
//! faster one is tried anew.

use std::path::Path as FilePath;

use ::object_store::path::Path;
use ::object_store::{CopyMode, PutMode, PutPayload, PutResult};

use super::refused::{self, Failure};
use crate::checksum::Checksum;
use crate::error::Error;
use crate::expect::Expect;
use crate::path::InvalidPath;
use crate::transaction::Transaction;

/// A change of one object, or two.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put { location: Path, payload: PutPayload, condition: Condition },
    Delete(Path),
    Copy { from: Path, to: Path, mode: CopyMode },
    Rename { from: Path, to: Path, mode: CopyMode },
}

/// What must be true of an object before it is put.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    None,
    Absent,
    Is(Checksum),
}

impl Condition {
    /// What a mode asks for.
    pub(super) fn of(location: &Path, mode: PutMode, of: impl ToString) -> ::object_store::Result<Self> {
        match mode {
            PutMode::Overwrite => Ok(Self::None),
            PutMode::Create => Ok(Self::Absent),
            PutMode::Update(version) if version.version.is_some() => {
                Err(refused::not_implemented("`put_opts` with a version", of))
            }
            PutMode::Update(version) => match version.e_tag {
                None => Err(refused::generic("an update needs the ETag of what it replaces")),
                Some(tag) => match tag.parse() {
                    // Compared as text everywhere, as the conditions of a get are.
                    Ok(checksum) if Checksum::to_string(&checksum) == tag => Ok(Self::Is(checksum)),
                    Ok(_) | Err(_) => Err(refused::another_tag(location, &tag)),
                },
            },
        }
    }

    fn require(self, tx: &mut Transaction, path: &Path) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::Absent => Transaction::expect(tx, name(path), Expect::Absent),
            Self::Is(checksum) => Transaction::expect(tx, name(path), Expect::Checksum(checksum)),
        }
    }
}

impl Change {
    /// Adds the change to a transaction. Returns the checksum of an object that it puts.
    pub(super) fn add(&self, tx: &mut Transaction) -> Result<Option<Checksum>, Failure> {
        match self {
            Self::Put { location, payload, condition } => {
                return put(tx, location, payload, *condition).map(Some).map_err(Failure::Change);
            }
            Self::Delete(location) => delete(tx, location).map_err(Failure::Source)?,
            Self::Copy { from, to, mode } => {
                copy(tx, from, to, *mode)?;
            }
            Self::Rename { from, to, mode } => {
                copy(tx, from, to, *mode)?;
                if from != to {
                    delete(tx, from).map_err(Failure::Source)?;
                }
            }
        }
        Ok(None)
    }
}

/// Adds several changes, which happen together. Directories that they empty go with them: an object store
/// has none. Returns the checksums of the objects that they put.
pub(super) fn add_all(tx: &mut Transaction, changes: &[Change]) -> Result<Vec<Checksum>, Failure> {
    let mut put = Vec::new();
    for change in changes {
        put.extend(change.add(tx)?);
    }
    tx.prune_empty_parents();
    Ok(put)
}

/// Removes an object, which must be there.
pub(super) fn delete(tx: &mut Transaction, location: &Path) -> Result<(), Error> {
    look(tx, location)?;
    tx.remove(name(location))
}

/// Copies an object, which gets a time of its own. So does one that is moved: a date tells when this object came,
/// and not when its bytes did.
fn copy(tx: &mut Transaction, from: &Path, to: &Path, mode: CopyMode) -> Result<(), Failure> {
    look(tx, from).map_err(Failure::Source)?;
    // What cannot be a file is refused for that, and not for what is expected of it.
    if from != to {
        tx.copy(name(from), name(to))?;
    }
    match mode {
        CopyMode::Overwrite => Ok(()),
        CopyMode::Create => Ok(Transaction::expect(tx, name(to), Expect::Absent)?),
    }
}

/// What a put returns.
pub(super) fn result(checksum: Checksum) -> PutResult {
    PutResult { e_tag: Some(checksum.to_string()), version: None, extensions: Default::default() }
}

fn put(
    tx: &mut Transaction,
    location: &Path,
    payload: &PutPayload,
    condition: Condition,
) -> Result<Checksum, Error> {
    // What cannot be a file is refused for that, and not for what is expected of it.
    let mut writer = match tx.writer(name(location)) {
        // Whoever may not replace an object is first told that it is there, or is another one.
        Err(error) if refused::is_denied(&error) => {
            return Err(condition.require(tx, location).err().unwrap_or(error));
        }
        writer => writer?,
    };
    condition.require(tx, location)?;
    let mut hasher = blake3::Hasher::new();
    for piece in payload {
        hasher.update(piece);
    }
    match payload.as_ref() {
        [whole] => writer.fill(whole)?,
        pieces => {
            pieces.iter().try_for_each(|piece| writer.take(piece))?;
            writer.finish()?;
        }
    }
    Ok(Checksum::of_all(&hasher))
}

/// Refuses what is no object.
fn look(tx: &Transaction, location: &Path) -> Result<(), Error> {
    if tx.metadata(name(location))?.is_file() {
        return Ok(());
    }
    Err(Error::invalid(FilePath::new(name(location)), InvalidPath::Directory))
}

/// The path of an object's file, from the root.
pub(super) fn name(location: &Path) -> &str {
    location.as_ref()
}
