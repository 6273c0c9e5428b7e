//! What others are kept out of from the start.

use std::fs::File;
use std::io;

use rustix::fs::{Mode, OFlags};

use super::rights::Rights;
use super::unix::{DIRECTORY, Directories};
use crate::path::RelativePath;

impl Directories {
    /// A file of its maker alone.
    pub(super) fn create_own(&self, path: &RelativePath) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.open_with(path, flags, Mode::from_raw_mode(0o600))
    }

    /// Closed to others from the start: the umask may let them in until it has its rights.
    pub(super) fn create_private_dir(&self, path: &RelativePath) -> io::Result<()> {
        let mut rights = Rights::of(&rustix::fs::fstat(&*self.root)?);
        rights.directory = rights.private_directory;
        let own = Mode::from_raw_mode(0o700);
        self.at(path, |directory, name| rustix::fs::mkdirat(directory, name, own))?;
        rights.give(&self.open_with(path, DIRECTORY, Mode::empty())?)
    }
}
