//! How much room there is on a disk.

use std::io;

use super::unix::Directories;
use crate::path::RelativePath;

impl Directories {
    /// How many bytes this process may still write to the disk of a directory; `None` if its file system does
    /// not say, as some do that FUSE serves.
    pub(super) fn free_bytes(&self, directory: &RelativePath) -> io::Result<Option<u64>> {
        self.with_fresh(directory, || {
            let found = rustix::fs::fstatvfs(&*self.handle(directory)?)?;
            // The reserve of an ext4 is for root (mke2fs(8), -m).
            let is_root = rustix::process::geteuid().is_root();
            let blocks = if is_root { found.f_bfree } else { found.f_bavail };
            Ok((found.f_blocks > 0).then(|| blocks.saturating_mul(found.f_frsize)))
        })
    }
}
