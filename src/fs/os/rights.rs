//! Ownership of the control directory's files. On Unix they take owner, group
//! and rights from the root, so that everybody who may write in the root can
//! save there.

use std::fs::File;
use std::io;

use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;

/// Owner, group and rights of what lies in the control directory, taken from the root.
pub(super) struct Rights {
    user: u32,
    group: u32,
    pub(super) file: u32,
    /// For nobody but those who may write in the root.
    pub(super) private_file: u32,
    pub(super) directory: u32,
    /// For nobody but those who may write in the root.
    pub(super) private_directory: u32,
}

#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the widths of `stat`'s fields differ between systems"
)]
impl Rights {
    /// The owner always gets full rights, even if the root's owner may not write to the root.
    pub(super) fn of(root: &Stat) -> Self {
        let mode = root.st_mode as u32;
        Self {
            user: root.st_uid,
            group: root.st_gid,
            file: mode & 0o666 | 0o600,
            private_file: mode & 0o022 | (mode & 0o022) << 1 | 0o600,
            // Set-group-ID and sticky mean the same for the control directory as for the root.
            directory: mode & 0o3777 | 0o700,
            private_directory: mode & 0o3022 | (mode & 0o022) << 1 | (mode & 0o022) >> 1 | 0o700,
        }
    }

    /// Sets them on a file or directory that was just made, whatever mode the umask left.
    ///
    /// Only a privileged process can give a file away; others can only choose a group of their own
    /// (chown(2)). If the group cannot be the root's, it gets the rights of all others.
    pub(super) fn give(&self, made: &File) -> io::Result<()> {
        let found = rustix::fs::fstat(made)?;
        let is_directory = FileType::from_raw_mode(found.st_mode as _) == FileType::Directory;
        let mut mode = if is_directory { self.directory } else { self.file };
        let user = (found.st_uid != self.user && rustix::process::geteuid().is_root()).then_some(self.user);
        let group = (found.st_gid != self.group).then_some(self.group);
        let mut changed = false;
        if user.is_some() || group.is_some() {
            let user = user.map(rustix::fs::Uid::from_raw);
            changed = rustix::fs::fchown(made, user, group.map(rustix::fs::Gid::from_raw)).is_ok();
        }
        if group.is_some() && !changed {
            mode = mode & !0o2070 | (mode & 0o7) << 3;
        }
        if changed || found.st_mode as u32 & 0o7777 != mode {
            match rustix::fs::fchmod(made, Mode::from_raw_mode(mode as _)) {
                // A file system without rights (FAT), or a directory of another user.
                Err(Errno::PERM | Errno::OPNOTSUPP) => {}
                result => result?,
            }
        }
        Ok(())
    }
}
