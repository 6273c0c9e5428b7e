//! What Linux can do with directories as a whole.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::renaming::is_unknown;
use super::unix::Directories;
use crate::fs::CONTROL_DIRECTORY;
use crate::path::RelativePath;

impl Directories {
    /// Gives each of two directories the name of the other.
    pub(super) fn exchange(&self, one: &RelativePath, other: &RelativePath) -> io::Result<()> {
        match self.rename_with(one, other, RenameFlags::EXCHANGE) {
            Err(error) if is_unknown(&error) => Err(io::ErrorKind::Unsupported.into()),
            result => result,
        }
    }

    /// Whether a directory can be moved. Overlayfs answers that before it looks whether the target is empty
    /// (`ovl_rename` in the kernel's `fs/overlayfs/dir.c`). So it is asked to put the directory in the place of
    /// one that never is.
    pub(super) fn may_move_directory(&self, path: &RelativePath) -> io::Result<()> {
        if rustix::fs::fstatfs(&*self.handle(path)?)?.f_type != OVERLAYFS {
            return Ok(());
        }
        let full = RelativePath::root().child(CONTROL_DIRECTORY).child("sessions");
        let device = |path| Ok::<_, io::Error>(self.metadata(path)?.identity.map(|found| found.device));
        if device(&full)? != device(path)? {
            return Ok(());
        }
        match self.rename(path, &full) {
            // Somebody has removed the control directory, with the marks of all sessions in it.
            Ok(()) => self.rename(&full, path),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// When a directory was made, if its file system tells.
    pub(super) fn born(&self, path: &RelativePath) -> io::Result<Option<SystemTime>> {
        let found = self.at(path, |directory, name| {
            match rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME) {
                Err(Errno::NOSYS) => Ok(None),
                found => found.map(Some),
            }
        })?;
        let known = found.filter(|found| found.stx_mask & StatxFlags::BTIME.bits() != 0);
        Ok(known.and_then(|found| {
            let seconds = Duration::from_secs(u64::try_from(found.stx_btime.tv_sec).ok()?);
            SystemTime::UNIX_EPOCH.checked_add(seconds + Duration::from_nanos(found.stx_btime.tv_nsec.into()))
        }))
    }
}

/// What overlayfs calls itself (statfs(2), `OVERLAYFS_SUPER_MAGIC`).
const OVERLAYFS: rustix::fs::FsWord = 0x794c_7630;

/// Whether the table of mounts names something below this directory (proc_pid_mountinfo(5)).
pub(super) fn has_mounts_below(directory: &Path) -> io::Result<bool> {
    let table = match std::fs::read("/proc/self/mountinfo") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        table => table?,
    };
    let mut lines = table.split(|byte| *byte == b'\n');
    Ok(lines.any(|line| {
        let place = line.split(|byte| *byte == b' ').nth(4).map(unescaped);
        place.is_some_and(|place| Path::new(&place) != directory && Path::new(&place).starts_with(directory))
    }))
}

/// A path as it was, without the three octal digits for a space, a tab, a line end or a backslash.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        (rest, _) = match code.filter(|_| *first == b'\\') {
            Some(code) => (&after[3..], bytes.push(code)),
            None => (after, bytes.push(*first)),
        };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_space_in_the_table_of_mounts_is_read_back() {
        assert_eq!(unescaped(br"/mnt/a\040b\134").as_bytes(), br"/mnt/a b\");
        assert_eq!(unescaped(b"/plain").as_bytes(), b"/plain");
    }
}
