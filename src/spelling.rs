//! How the caller has given the paths of a transaction or a view, for errors that come later.
//!
//! Most are where they seem to be, and cost nothing here. Never locks anything else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// The paths that lie elsewhere than they were given, by where they lie.
#[derive(Debug, Default)]
pub(crate) struct Spellings(Mutex<HashMap<PathBuf, PathBuf>>);

impl Spellings {
    /// Notes that this path below the root was given so.
    pub(crate) fn note(&self, path: &Path, given: &Path, full: impl FnOnce() -> PathBuf) {
        if path.as_os_str() != given.as_os_str() {
            let full = full();
            if full.as_os_str() != given.as_os_str() {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(full, given.to_path_buf());
            }
        }
    }

    /// The same error, which also says how its path was given.
    pub(crate) fn named(&self, error: Error) -> Error {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match error.place().and_then(|place| given.get(place.path())) {
            Some(given) => error.given_as(given),
            None => error,
        }
    }
}
