//! How much room there is on a disk.

use std::io;

use super::unix::Directories;
use crate::path::RelativePath;

impl Directories {
    /// How many bytes this process may still write to the disk of a directory. `None` if its file system does
    /// not say, as some do that FUSE serves. The same if it may need less room than there are bytes.
    pub(super) fn free_bytes(&self, directory: &RelativePath) -> io::Result<Option<u64>> {
        self.with_fresh(directory, || {
            let handle = self.handle(directory)?;
            #[cfg(target_os = "linux")]
            if !u64::try_from(rustix::fs::fstatfs(&*handle)?.f_type).is_ok_and(writes_all_bytes) {
                return Ok(None);
            }
            let found = rustix::fs::fstatvfs(&*handle)?;
            // The reserve of an ext4 is for root (mke2fs(8), -m).
            let is_root = rustix::process::geteuid().is_root();
            let blocks = if is_root { found.f_bfree } else { found.f_bavail };
            Ok((found.f_blocks > 0).then(|| blocks.saturating_mul(found.f_frsize)))
        })
    }
}

/// Whether a file system writes every byte of a file, and so is full when its free bytes are used. Others may
/// compress (`compress` in btrfs(5), `compression` in zfsprops(7)).
#[cfg(target_os = "linux")]
fn writes_all_bytes(kind: u64) -> bool {
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const TMPFS: u64 = 0x0102_1994;
    matches!(kind, EXT | XFS | TMPFS)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A log of 10 GB was refused on a btrfs that would have stored it in 1 GB.
    #[test]
    fn nothing_is_refused_where_it_may_be_compressed() {
        for (name, kind, is_full) in
            [("ext4", 0xef53, true), ("tmpfs", 0x0102_1994, true), ("btrfs", 0x9123_683e, false)]
        {
            assert_eq!(writes_all_bytes(kind), is_full, "{name}");
        }
    }
}
