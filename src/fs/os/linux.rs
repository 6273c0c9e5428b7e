//! What Linux can do beyond other Unix systems.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use fiemap::{Fiemap, FiemapFlags};
use rustix::fs::{Advice, AtFlags, Mode, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags, XattrFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::fs::SyncError;
use crate::path::RelativePath;

/// Asks the kernel to start writing a range to disk. Does not wait, and promises nothing.
///
/// `POSIX_FADV_DONTNEED` starts write-back of dirty pages (mm/fadvise.c) and then drops the clean ones.
/// A range that was just written has no clean pages.
pub(super) fn start_write_back(file: &File, offset: u64, length: u64) {
    // Without a length the hint would be for the whole file, and drop what readers have in memory. It is
    // only a hint: the sync will report any failure.
    if length > 0 {
        let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
    }
}

/// Waits until the bytes of a file are written, without a flush of the disk. Promises nothing.
///
/// The kernel does this before it tells where a file's blocks are (fiemap.rst, `FIEMAP_FLAG_SYNC`). Where
/// it does not tell, there is no wait. An error of write-back is still reported by the sync, because each
/// description has a cursor of its own (errseq.rst), and this call does not move it.
pub(super) fn wait_for_write_back(file: &File) {
    // Only for speed: the sync will report any failure.
    let _ = Fiemap::with_flags(file, FiemapFlags::SYNC).next();
}

/// Differs after every start of the machine (random(4), `boot_id`).
pub(super) fn boot() -> Option<Uuid> {
    static BOOT: OnceLock<Option<Uuid>> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok();
    *BOOT.get_or_init(read)
}

/// How many bytes wait to be written, or are being written, on all file systems together (`Dirty` and
/// `Writeback` in proc_meminfo(5)).
pub(super) fn dirty_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((field("Dirty:")? + field("Writeback:")?) * 1024)
}

/// File systems that one call each makes durable (syncfs(2)), and a handle on each that was open before
/// any error that is to be reported.
pub(super) struct FileSystems<'a>(BTreeMap<u64, (BorrowedFd<'a>, &'a RelativePath)>);

impl<'a> FileSystems<'a> {
    /// Those of these handles. `None` on kernels before 5.17, which do not report all errors, and if
    /// one of the file systems is not known to reach the medium by this call.
    pub(super) fn of(
        handles: impl Iterator<Item = (BorrowedFd<'a>, &'a RelativePath)>,
    ) -> Result<Option<Self>, SyncError> {
        if !reports_errors() {
            return Ok(None);
        }
        let mut devices = BTreeMap::new();
        for (handle, path) in handles {
            let failed =
                |error: Errno| SyncError { path: path.clone(), attempted: false, source: error.into() };
            let device = rustix::fs::fstat(handle).map_err(failed)?.st_dev;
            if let Entry::Vacant(vacant) = devices.entry(device) {
                if !reaches_the_medium(handle, device).map_err(failed)? {
                    return Ok(None);
                }
                vacant.insert((handle, path));
            }
        }
        Ok(Some(Self(devices)))
    }

    /// Syncs each of them, even if another one fails.
    pub(super) fn sync(self) -> Result<(), SyncError> {
        let mut failed = None;
        for (handle, path) in self.0.into_values() {
            // Lost without this sync: everything in the wave on this file system.
            let synced = rustix::fs::syncfs(handle).and_then(|()| stayed_writable(handle));
            if let Err(error) = synced {
                failed.get_or_insert(SyncError { path: path.clone(), attempted: true, source: error.into() });
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Of a file system that is read-only by now, after an error of its journal, `sync_filesystem` syncs nothing and
/// reports nothing. We have just written to it.
fn stayed_writable(handle: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = rustix::fs::fstatvfs(handle)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) { Err(Errno::ROFS) } else { Ok(()) }
}

/// The magic number of ext2, ext3 and ext4 (statfs(2)).
const EXT: u64 = 0xef53;

/// Whether a file is on ext2, ext3 or ext4, or may be.
pub(super) fn is_ext(file: &File) -> bool {
    rustix::fs::fstatfs(file).map_or(true, |system| u64::try_from(system.f_type) == Ok(EXT))
}

/// Whether syncfs makes everything on this file system durable, including the disk's cache.
///
/// ext4, XFS and btrfs commit and flush (`ext4_sync_fs`, `xfs_fs_sync_fs`, `btrfs_sync_fs`). The server of
/// a FUSE file system is not even told (`fuse_sync_fs`). The old ext2 does not flush the disk. ext4 without a
/// journal flushes it before the last blocks are written (`sync_filesystem`). Both have the magic number of
/// ext4.
fn reaches_the_medium(handle: BorrowedFd<'_>, device: u64) -> rustix::io::Result<bool> {
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    Ok(match u64::try_from(rustix::fs::fstatfs(handle)?.f_type) {
        Ok(XFS | BTRFS) => true,
        Ok(EXT) => has_journal(device).unwrap_or(false),
        _ => false,
    })
}

/// Whether the driver of ext4 serves this device and keeps a journal, if that can be read (kernel,
/// `Documentation/ABI/testing/sysfs-fs-ext4`).
fn has_journal(device: u64) -> Option<bool> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let disk = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let task = Path::new("/sys/fs/ext4").join(disk.file_name()?).join("journal_task");
    Some(is_task(&std::fs::read_to_string(task).ok()?))
}

/// Whether this names the task that writes the journal. Without one it is `<none>`.
fn is_task(text: &str) -> bool {
    text.trim().parse::<u32>().is_ok()
}

/// Whether this name is a mount point, which cannot be removed (rmdir(2) and unlink(2), EBUSY). The
/// kernel says so since Linux 5.8 (statx(2), STATX_ATTR_MOUNT_ROOT); before, the answer is no.
pub(super) fn is_mount_point(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<bool> {
    attributes(directory, name).map(|found| found.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether a file or directory is append-only or immutable (chattr(1)). Linux says so since 4.11, on
/// file systems that have such flags (statx(2), STATX_ATTR_APPEND).
pub(super) fn is_frozen(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<bool> {
    let frozen = StatxAttributes::APPEND | StatxAttributes::IMMUTABLE;
    attributes(directory, name).map(|found| found.intersects(frozen))
}

/// What statx(2) says of a name; nothing where the kernel has no such call.
fn attributes(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<StatxAttributes> {
    match rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes),
        Err(Errno::NOSYS) => Ok(StatxAttributes::empty()),
        Err(error) => Err(error),
    }
}

/// Gives an empty file the bytes of another one, as blocks that both share (ioctl_ficlone(2)). Whatever the
/// reason for a refusal, they can be copied instead: the file system cannot do it, the two lie on different
/// ones, or the disk is full.
pub(super) fn share_bytes(source: &File, file: &File) -> std::io::Result<bool> {
    if rustix::fs::ioctl_ficlone(file, source).is_ok() {
        return Ok(true);
    }
    // A part may have been shared before the refusal.
    file.set_len(0)?;
    Ok(false)
}

/// The access control list that files inherit from their directory (acl(5)).
const DEFAULT_LIST: &str = "system.posix_acl_default";
/// The access control list of a file, if it says more than the mode.
const ACCESS_LIST: &str = "system.posix_acl_access";
/// The longest value that an extended attribute can have (xattr(7)).
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;
/// Enough for nearly every list: a header and 127 entries (`posix_acl_xattr.h` of the kernel).
const ATTRIBUTE_BYTES_USUAL: usize = 1024;

/// The mode of a file that `std::fs::File::create` would make in this directory. Under a default access
/// control list the umask does not count (umask(2)). `None` if it cannot be known, because there is no
/// `/proc` or the list has an unknown form.
pub(super) fn new_file_mode(directory: &OwnedFd) -> Option<u32> {
    match attribute(|buffer| rustix::fs::fgetxattr(directory, DEFAULT_LIST, buffer)) {
        Ok(Some(list)) => list_mode(&list).map(|mode| mode & 0o666),
        Ok(None) => Some(0o666 & !umask()?),
        Err(_) => None,
    }
}

/// The umask of this thread (proc_pid_status(5)). To ask umask(2) would change it for a moment, for
/// every thread.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

/// The mode that a file gets from a list, as `posix_acl_create` of the kernel computes it. If the list
/// has a mask, the mask takes the place of the group's bits.
fn list_mode(list: &[u8]) -> Option<u32> {
    const VERSION: [u8; 4] = 2_u32.to_le_bytes();
    let entries = list.strip_prefix(&VERSION)?.chunks_exact(8);
    let (mut owner, mut group, mut mask, mut other) = (None, None, None, None);
    for entry in entries {
        let bits = u32::from(u16::from_le_bytes([entry[2], entry[3]])) & 0o7;
        match u16::from_le_bytes([entry[0], entry[1]]) {
            0x01 => owner = Some(bits),
            0x04 => group = Some(bits),
            0x10 => mask = Some(bits),
            0x20 => other = Some(bits),
            // Named users and groups are inherited unchanged.
            _ => {}
        }
    }
    Some(owner? << 6 | mask.or(group)? << 3 | other?)
}

/// A list as chmod(2) would change it: the mask gets the bits of the group, if there is one (acl(5)).
fn with_mode(mut list: Vec<u8>, mode: u32) -> Vec<u8> {
    const VERSION_BYTES: usize = 4;
    let tag = |entry: &[u8]| u16::from_le_bytes([entry[0], entry[1]]);
    let entries = list.get_mut(VERSION_BYTES..).unwrap_or_default();
    let has_mask = entries.chunks_exact(8).any(|entry| tag(entry) == 0x10);
    for entry in entries.chunks_exact_mut(8) {
        let bits = match tag(entry) {
            0x01 => mode >> 6,
            0x04 if !has_mask => mode >> 3,
            0x10 => mode >> 3,
            0x20 => mode,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&[bits.to_le_bytes()[0] & 0o7, 0]);
    }
    list
}

/// The access control list of the file `name` in `directory`, if it has one.
fn access_list(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<Vec<u8>>> {
    attribute_at(directory, name, Wanted::Value(ACCESS_LIST.as_bytes()))
}

pub(super) fn has_access_list(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    Ok(access_list(directory, name)?.is_some())
}

pub(super) fn file_has_access_list(file: &File) -> rustix::io::Result<bool> {
    Ok(Wanted::Value(ACCESS_LIST.as_bytes()).of_file(file)?.is_some())
}

/// Gives a file the access control list of the file `name` in `directory`, as the `mode` limits it that the
/// file will get. Otherwise the list would let others in until then. If there is no list, removes an
/// inherited one. Returns whether there is a list, and whether that has changed, and the file's mode with it.
pub(super) fn copy_access_list(
    directory: &OwnedFd,
    name: &OsStr,
    file: &File,
    mode: u32,
) -> rustix::io::Result<(bool, bool)> {
    let wanted = access_list(directory, name)?.map(|list| with_mode(list, mode));
    let is_there = wanted.is_some();
    let own = Wanted::Value(ACCESS_LIST.as_bytes()).of_file(file)?;
    match wanted {
        wanted if wanted == own => return Ok((is_there, false)),
        Some(list) => rustix::fs::fsetxattr(file, ACCESS_LIST, &list, XattrFlags::empty())?,
        None => rustix::fs::fremovexattr(file, ACCESS_LIST)?,
    }
    Ok((is_there, true))
}

/// Gives a file the extended attributes of the file `name` in `directory` that are its user's, and its
/// label, and takes away what others of its user's it has. Returns the names of those that it could not
/// give: the system may forbid them here, or have no room for them.
pub(super) fn copy_attributes(
    directory: &OwnedFd,
    name: &OsStr,
    file: &File,
) -> rustix::io::Result<Vec<String>> {
    let wanted = attribute_at(directory, name, Wanted::Names)?.unwrap_or_default();
    let own = Wanted::Names.of_file(file)?.unwrap_or_default();
    for name in names(&own).filter(|own| own.starts_with(USERS) && names(&wanted).all(|name| name != *own)) {
        // Somebody has removed it from the model since it was copied.
        rustix::fs::fremovexattr(file, name)?;
    }
    let mut lost = Vec::new();
    for attribute in names(&wanted).filter(|name| !goes_with_bytes(name)) {
        let value = attribute_at(directory, name, Wanted::Value(attribute));
        let is_given = match &value {
            Ok(value) if Wanted::Value(attribute).of_file(file).as_ref() == Ok(value) => true,
            Ok(Some(value)) if attribute.starts_with(USERS) || LABELS.contains(&attribute) => {
                rustix::fs::fsetxattr(file, attribute, value, XattrFlags::empty()).is_ok()
            }
            // Others have removed it meanwhile.
            Ok(None) => true,
            // It is nobody's to give away, or nobody may read it.
            Ok(Some(_)) | Err(_) => false,
        };
        if !is_given {
            lost.push(String::from_utf8_lossy(attribute).into_owned());
        }
    }
    Ok(lost)
}

fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}

/// The attributes of a file's user (xattr(7)).
const USERS: &[u8] = b"user.";
/// The labels of security modules.
const LABELS: [&[u8]; 2] = [b"security.selinux", b"security.SMACK64"];

/// Whether a write to the file would take the attribute away, or it is about layers of a file system. An
/// access control list is copied apart.
fn goes_with_bytes(name: &[u8]) -> bool {
    let others: [&[u8]; 4] =
        [b"security.capability", b"security.ima", b"security.evm", ACCESS_LIST.as_bytes()];
    others.contains(&name) || name.starts_with(b"trusted.overlay.")
}

/// What is asked of a file.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// The names of its attributes.
    Names,
    /// The value of one.
    Value(&'a [u8]),
}

impl Wanted<'_> {
    fn of_path(self, path: &Path) -> rustix::io::Result<Option<Vec<u8>>> {
        attribute(|buffer| match self {
            Self::Names => rustix::fs::llistxattr(path, buffer),
            Self::Value(name) => rustix::fs::lgetxattr(path, name, buffer),
        })
    }

    fn of_file(self, file: impl AsFd) -> rustix::io::Result<Option<Vec<u8>>> {
        attribute(|buffer| match self {
            Self::Names => rustix::fs::flistxattr(&file, buffer),
            Self::Value(name) => rustix::fs::fgetxattr(&file, name, buffer),
        })
    }

    /// Of a file that is opened for this. A symlink has none of what is asked for here.
    fn of_opened(self, directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => self.of_file(file),
            Err(Errno::NOENT | Errno::LOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is asked of the file `name` in `directory`; `None` if it has no such thing.
///
/// Before Linux 6.13 no call reads attributes relative to a directory's handle, so this uses the
/// handle's name in `/proc`. Where there is no `/proc`, the file must be opened. A file that may not be
/// opened is an error then: it could have a list that takes rights away.
fn attribute_at(
    directory: &OwnedFd,
    name: &OsStr,
    wanted: Wanted<'_>,
) -> rustix::io::Result<Option<Vec<u8>>> {
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    match wanted.of_path(&path) {
        Err(Errno::NOENT) => wanted.of_opened(directory, name),
        found => found,
    }
}

/// An attribute's value; `None` if there is none, or if the file system has no attributes.
fn attribute(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Option<Vec<u8>>> {
    for size in [ATTRIBUTE_BYTES_USUAL, ATTRIBUTE_BYTES_MAX] {
        let mut buffer = vec![0; size];
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

/// Since Linux 5.8 syncfs reports errors of write-back (syncfs(2), VERSIONS), and since 5.17 those of the file
/// system's own sync (`sync_filesystem` returned none of `->sync_fs` before).
fn reports_errors() -> bool {
    static REPORTS: OnceLock<bool> = OnceLock::new();
    *REPORTS.get_or_init(|| {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        version >= (5, 17)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::{XattrFlags, fremovexattr, fsetxattr};

    use super::{ACCESS_LIST, Wanted, attribute_at, dirty_bytes, is_task, list_mode, with_mode};

    /// Where `/proc` is not mounted, every file passed for one without an access control list.
    #[test]
    fn attributes_are_read_without_proc_too() {
        let directory = tempfile::tempdir().expect("made");
        let file = std::fs::File::create(directory.path().join("a")).expect("made");
        std::os::unix::fs::symlink("a", directory.path().join("link")).expect("made");
        let handle: OwnedFd = std::fs::File::open(directory.path()).expect("opened").into();
        if fsetxattr(&file, "user.note", b"1", XattrFlags::empty()).is_err() {
            return;
        }
        let note = Wanted::Value(b"user.note");
        for (name, value) in [("a", Some(b"1".to_vec())), ("missing", None), ("link", None)] {
            assert_eq!(note.of_opened(&handle, name.as_ref()), Ok(value.clone()), "{name}");
            if name != "link" {
                assert_eq!(attribute_at(&handle, name.as_ref(), note), Ok(value), "{name}");
            }
        }
        assert_eq!(Wanted::Names.of_opened(&handle, "a".as_ref()), Ok(Some(b"user.note\0".to_vec())));
        fremovexattr(&file, "user.note").expect("removed");
        assert_eq!(note.of_opened(&handle, "a".as_ref()), Ok(None));
        assert_eq!(Wanted::Value(ACCESS_LIST.as_bytes()).of_opened(&handle, ".".as_ref()), Ok(None));
    }

    /// The staged file of a save that closes a file was open to those on the old file's list, until it got its
    /// mode.
    #[test]
    fn a_list_is_limited_by_the_mode_before_the_file_gets_it() {
        let entry = |tag: u8, bits: u8| [tag, 0, bits, 0, 0xff, 0xff, 0xff, 0xff];
        let list = |entries: &[[u8; 8]]| [&[2, 0, 0, 0], entries.concat().as_slice()].concat();
        let (owner, user, group, others) = (entry(1, 6), entry(2, 6), entry(4, 4), entry(0x20, 4));
        let masked = list(&[owner, user, group, entry(0x10, 6), others]);
        let limited = list(&[owner, user, group, entry(0x10, 0), entry(0x20, 0)]);
        assert_eq!(with_mode(masked.clone(), 0o600), limited);
        assert_eq!(with_mode(masked.clone(), 0o664), masked);
        assert_eq!(
            with_mode(list(&[owner, group, others]), 0o705),
            list(&[entry(1, 7), entry(4, 0), entry(0x20, 5)])
        );
        assert_eq!(list_mode(&with_mode(masked, 0o751)), Some(0o751));
        assert_eq!(with_mode(vec![2], 0o600), [2]);
    }

    #[test]
    fn a_journal_is_told_by_its_task() {
        assert!(is_task("312\n"));
        for none in ["<none>\n", "", "\n"] {
            assert!(!is_task(none), "{none:?}");
        }
    }

    #[test]
    fn what_waits_to_be_written_is_known() {
        assert!(dirty_bytes().is_some());
    }
}
