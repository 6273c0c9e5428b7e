//! Renames that keep what they would replace, on the systems that have them.

use std::io;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::unix::Directories;
use crate::path::RelativePath;

impl Directories {
    /// Moves a name to a free one.
    pub(super) fn rename_new(&self, from: &RelativePath, to: &RelativePath) -> io::Result<()> {
        match self.rename_with(from, to, RenameFlags::NOREPLACE) {
            Err(error) if is_unknown(&error) => {}
            result => return result,
        }
        // Some file systems do not know the flag (rename(2), EINVAL). A link and a removal would not replace
        // anything either, but a crash between the two would leave two names.
        match self.metadata(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename(from, to),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    pub(super) fn rename_with(
        &self,
        from: &RelativePath,
        to: &RelativePath,
        flags: RenameFlags,
    ) -> io::Result<()> {
        self.with_fresh(&to.parent(), || {
            let target = self.handle(&to.parent())?;
            self.at(from, |directory, name| {
                rustix::fs::renameat_with(directory, name, &*target, to.name(), flags)
            })
        })
    }
}

/// Whether the kernel or the file system does not know this kind of rename.
pub(super) fn is_unknown(error: &io::Error) -> bool {
    let unknown = [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP];
    unknown.iter().any(|unknown| error.raw_os_error() == Some(unknown.raw_os_error()))
}
