//! Errors of this crate as those of the trait.
//!
//! What a caller of an object store decides by, such as that an object exists or has another ETag, has its
//! own kind, and so has a missing permission. Everything else is `Generic`, with the error of this crate as
//! its source.

use std::io::ErrorKind;
use std::path::Path as FilePath;

use ::object_store::Error as Refused;
use ::object_store::path::Path;

use crate::error::{Error, Outcome};
use crate::expect::Clash;
use crate::path::InvalidPath;

/// How the store is named in errors.
pub(super) const STORE: &str = "cosave";

/// Why a change of objects was refused.
#[derive(Debug)]
pub(super) enum Failure {
    /// What is to be written, or the commit.
    Change(Error),
    /// An object that has to be there.
    Source(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Change(error)
    }
}

impl Failure {
    /// The same, unless the change was made.
    pub(super) fn unless_committed(self) -> Result<(), Self> {
        match self {
            Self::Change(error) => unless_committed(Err(error)).map_err(Self::Change),
            Self::Source(_) => Err(self),
        }
    }

    /// The same as an error of the trait, for objects of a root.
    pub(super) fn of(self, root: &FilePath) -> Refused {
        match self {
            Self::Change(error) => of_change(root, error),
            Self::Source(error) => of_source(root, error),
        }
    }
}

/// Why a change was refused.
pub(super) fn of_change(root: &FilePath, error: Error) -> Refused {
    let path = location(root, &error);
    match &error {
        Error::Conflict { found: Clash::Exists, .. } => {
            Refused::AlreadyExists { path, source: Box::new(error) }
        }
        Error::Conflict { found: Clash::Checksum | Clash::Missing, .. } => {
            Refused::Precondition { path, source: Box::new(error) }
        }
        _ => other(root, error),
    }
}

/// Whether a change was made. A commit that could not move all its files is made: it is durable, everybody
/// sees it through the store, and the next one finishes it. Whoever took it for refused would do it twice.
pub(super) fn unless_committed(made: Result<(), Error>) -> Result<(), Error> {
    match made {
        Err(error) if error.outcome() == Outcome::Committed => Ok(()),
        made => made,
    }
}

/// Why an object cannot be read, or removed. Where no object can be, none is.
pub(super) fn of_source(root: &FilePath, error: Error) -> Refused {
    let is_nowhere = match &error {
        Error::InvalidPath { reason, .. } => !matches!(reason, InvalidPath::Escapes | InvalidPath::Itself),
        error => error.is_not_found(),
    };
    if is_nowhere {
        return Refused::NotFound { path: location(root, &error), source: Box::new(error) };
    }
    other(root, error)
}

/// Whether this user may not do it.
pub(super) fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

/// An error that is no answer about an object.
pub(super) fn other(root: &FilePath, error: Error) -> Refused {
    if is_denied(&error) {
        return Refused::PermissionDenied { path: location(root, &error), source: Box::new(error) };
    }
    generic(error)
}

/// What the trait has, and this store has not.
pub(super) fn not_implemented(operation: &str, implementer: impl ToString) -> Refused {
    Refused::NotImplemented { operation: operation.into(), implementer: implementer.to_string() }
}

/// Any other error.
pub(super) fn generic(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Refused {
    Refused::Generic { store: STORE, source: error.into() }
}

/// The ETag of an object is not what was expected.
pub(super) fn another_tag(location: &Path, expected: &str) -> Refused {
    let source = format!("`{expected}` is the ETag of no object");
    Refused::Precondition { path: location.to_string(), source: source.into() }
}

/// The path of an error as it is given to an object store, if it lies in the root.
fn location(root: &FilePath, error: &Error) -> String {
    let Some(place) = error.place() else { return String::new() };
    let path = place.given().unwrap_or_else(|| place.path());
    let path = path.strip_prefix(root).unwrap_or(path).display().to_string();
    if cfg!(windows) { path.replace('\\', "/") } else { path }
}
