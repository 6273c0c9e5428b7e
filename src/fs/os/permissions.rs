//! Copies what a file has besides its bytes: owner, mode, access control list
//! and extended attributes. No step gives anybody rights that they had not.

use std::fs::File;
use std::io;

use rustix::fs::Mode;
use rustix::io::Errno;

#[cfg(target_os = "linux")]
use super::linux::{copy_access_list, copy_attributes};
use super::unix::{DIRECTORY, Directories, file_metadata, set_mode};
use crate::fs::{Copied, Metadata, UNFINISHED};
use crate::path::RelativePath;
use crate::preserve::Attribute;

impl Directories {
    /// Gives `file` the permissions of the file at `model`, and its owner if that is allowed. The owner
    /// comes first, because changing it clears the set-user-ID and set-group-ID bits (chown(2)). The
    /// mode comes last, so that nothing changes it afterwards. Returns what came of it.
    pub(super) fn copy_permissions(
        &self,
        file: &File,
        model: &RelativePath,
        like: &Metadata,
    ) -> io::Result<Copied> {
        let own = file_metadata(file)?;
        let mut lost = Vec::new();
        let mut mode = like.mode;
        let mut changed = own.mode != mode;
        if own.owner != like.owner {
            let (user, group) = like.owner;
            let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
            let both = rustix::fs::fchown(file, Some(user), Some(group));
            if both.is_err() && own.owner.0 != like.owner.0 {
                // What one user has written may not run with the rights of another.
                mode &= !0o4000;
                lost.push(Attribute::Owner);
            }
            // A process may give a file to one of its own groups even if it may not give the file away.
            if both.is_err() && rustix::fs::fchown(file, None, Some(group)).is_err() {
                // Another group may not get the rights of the original group, so it gets those of all
                // others. Nor may the file run with its rights.
                mode &= !0o2070 | (mode & 0o007) << 3;
                lost.push(Attribute::Group);
            }
            changed = true;
        }
        let copied = self.at(model, |directory, name| {
            let lost = copy_attributes(directory, name, file)?;
            Ok((lost, copy_access_list(directory, name, file, mode)?))
        });
        let (names, (has_access_list, has_changed)) = copied.map_err(explain)?;
        lost.extend(names.into_iter().map(Attribute::Extended));
        if changed || has_changed {
            set_mode(file, mode)?;
        }
        Ok(Copied { lost, has_access_list })
    }
}

impl Directories {
    pub(super) fn create_unfinished_dir(&self, path: &RelativePath) -> io::Result<()> {
        // The umask and a default list can only take from this (mkdir(2), acl(5)).
        let mode = Mode::from_raw_mode(UNFINISHED as _);
        self.at(path, |directory, name| rustix::fs::mkdirat(directory, name, mode))
    }

    /// The mode comes last, so that nobody gets a right before the group is the one that it is for.
    pub(super) fn finish_dir(&self, path: &RelativePath, mode: u32, group: Option<u32>) -> io::Result<()> {
        let directory = self.open_with(path, DIRECTORY, Mode::empty())?;
        let found = file_metadata(&directory)?;
        let mut mode = mode;
        if let Some(group) = group {
            let to = rustix::fs::Gid::from_raw(group);
            let is_given = found.owner.1 == group || rustix::fs::fchown(&directory, None, Some(to)).is_ok();
            if !is_given || self.has_access_list(path)? {
                mode &= !0o070 | (mode & 0o007) << 3;
            }
        }
        let special = found.mode & !0o777;
        set_mode(&directory, mode | special)
    }
}

/// The kernel's own text says that an argument list is too long.
fn explain(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(Errno::TOOBIG.raw_os_error()) {
        return error;
    }
    let reason = "the names of its extended attributes are longer than the 64 KiB that the system lists";
    io::Error::new(error.kind(), reason)
}

/// On other systems access control lists are not part of a file's mode. They stay as they were
/// inherited.
#[cfg(not(target_os = "linux"))]
fn copy_access_list(
    _from: &std::os::fd::OwnedFd,
    _name: &std::ffi::OsStr,
    _to: &File,
    _mode: u32,
) -> rustix::io::Result<(bool, bool)> {
    Ok((false, false))
}

/// Other systems' attributes are not looked at.
#[cfg(not(target_os = "linux"))]
fn copy_attributes(
    _from: &std::os::fd::OwnedFd,
    _name: &std::ffi::OsStr,
    _to: &File,
) -> rustix::io::Result<Vec<String>> {
    Ok(Vec::new())
}
