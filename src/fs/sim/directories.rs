//! The root of a simulated process, and the directories that it has open.
//!
//! As on the real file system, a process caches a handle of every directory
//! that it has looked up. A handle leads to an inode, whatever happens to the
//! name, until the cache is dropped. Knows nothing of calls, steps or planned
//! errors.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk::{Body, Number, Place, State};
use crate::fs::CONTROL_DIRECTORY;
use crate::path::RelativePath;

/// Directory handles below one root.
#[derive(Debug)]
pub(super) struct Directories {
    root: Number,
    /// The control directory's, if it lies elsewhere.
    control: Option<Place>,
    /// Its path, if that elsewhere is in the root.
    control_in_root: Option<RelativePath>,
    kept: Mutex<HashMap<RelativePath, Number>>,
}

fn is_control(path: &RelativePath) -> bool {
    !path.is_root() && path.parent().is_root() && path.name() == CONTROL_DIRECTORY
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Directories {
    pub(super) fn new(root: Number, control: Option<Place>) -> Self {
        Self { root, control, control_in_root: None, kept: Mutex::default() }
    }

    /// With a control directory that lies elsewhere in the root.
    pub(super) fn with_control_at(self, path: Option<RelativePath>) -> Self {
        Self { control_in_root: path, ..self }
    }

    pub(super) fn control_in_root(&self) -> Option<RelativePath> {
        self.control_in_root.clone()
    }

    pub(super) fn root(&self) -> Number {
        self.root
    }

    /// The directory that holds the control directory, if that is not the root.
    pub(super) fn holds_control(&self) -> Option<Number> {
        self.control.as_ref().map(|place| place.directory)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<RelativePath, Number>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self) {
        self.kept().clear();
    }

    /// The inode of a directory, without following links.
    pub(super) fn directory(&self, state: &State, path: &RelativePath) -> io::Result<Number> {
        if path.is_root() {
            return Ok(self.root);
        }
        if let Some(inode) = self.kept().get(path) {
            return Ok(*inode);
        }
        let inode = self.lookup(state, path)?;
        match state.body(inode)? {
            Body::Directory { .. } => {
                self.kept().insert(path.clone(), inode);
                Ok(inode)
            }
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The inode that a path leads to, without following links.
    pub(super) fn lookup(&self, state: &State, path: &RelativePath) -> io::Result<Number> {
        if path.is_root() {
            return Ok(self.root);
        }
        match &self.control {
            Some(place) if is_control(path) => state.at(place).ok_or_else(not_found),
            _ => {
                let parent = self.living_directory(state, &path.parent())?;
                state.child(parent, path.name()).ok_or_else(not_found)
            }
        }
    }

    /// The place of a name to make, change or remove.
    pub(super) fn writable_parent(&self, state: &State, path: &RelativePath) -> io::Result<Place> {
        let place = match &self.control {
            Some(place) if is_control(path) => place.clone(),
            _ => Place { directory: self.living_directory(state, &path.parent())?, name: path.name().into() },
        };
        if state.refuses_names(place.directory) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(place)
    }

    /// A directory that can hold names. If its cached handle leads to a removed directory, the path is
    /// looked up anew.
    fn living_directory(&self, state: &State, path: &RelativePath) -> io::Result<Number> {
        let inode = self.directory(state, path)?;
        if !state.is_removed(inode) {
            return Ok(inode);
        }
        self.forget();
        let inode = self.directory(state, path)?;
        if state.is_removed(inode) { Err(not_found()) } else { Ok(inode) }
    }
}
