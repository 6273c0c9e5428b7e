//! Unix: every call relative to a directory's handle, no symlink ever followed.
//!
//! A directory is opened name by name from the root's own handle, each with
//! `O_NOFOLLOW`, so neither a link nor a race can lead outside. A bounded number
//! of handles is kept, so that no path is walked twice; they are forgotten
//! whenever the store takes its lock, since a directory may have been replaced.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

#[cfg(target_os = "linux")]
use super::written::Written;
use crate::fs::{CONTROL_DIRECTORY, DirectoryEntry, Durable, Identity, Kind, Metadata, OpenFile, SyncError};
use crate::path::RelativePath;

/// How often a lock file may come and go while it is being opened before we give up.
const OPEN_TRIES_MAX: u32 = 100;

/// How many directory handles are kept: enough for the trees that are saved often, few beside the
/// 256 that a process may have on macOS.
const HANDLES_MAX: usize = 32;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What to do where there is no file to lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Make,
    Fail,
}

/// Directory handles below one root.
#[derive(Debug)]
pub(super) struct Directories {
    root: Arc<OwnedFd>,
    /// The directory that holds the control directory, and its name there, if it lies elsewhere.
    control: Option<(OwnedFd, std::ffi::OsString)>,
    kept: Mutex<HashMap<RelativePath, Arc<OwnedFd>>>,
}

impl Directories {
    pub(super) fn open(root: &Path, control: Option<&Path>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Arc::new(rustix::fs::open(root, flags, Mode::empty())?);
        let control = control.map(|path| {
            let parent = path.parent().unwrap_or(Path::new("/"));
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
            Ok::<_, io::Error>((rustix::fs::open(parent, flags, Mode::empty())?, name))
        });
        Ok(Self { root, control: control.transpose()?, kept: Mutex::default() })
    }

    pub(super) fn forget(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The handle of a directory.
    pub(super) fn handle(&self, directory: &RelativePath) -> io::Result<Arc<OwnedFd>> {
        if directory.is_root() {
            return Ok(Arc::clone(&self.root));
        }
        let kept = |map: &HashMap<_, Arc<OwnedFd>>| map.get(directory).map(Arc::clone);
        if let Some(handle) = kept(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(handle);
        }
        let opened =
            self.at(directory, |parent, name| rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()));
        let handle = Arc::new(opened.map_err(not_a_directory)?);
        let mut map = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= HANDLES_MAX {
            map.clear();
        }
        map.insert(directory.clone(), Arc::clone(&handle));
        Ok(handle)
    }

    /// Calls `work` with the handle of the directory that holds `path`, and the name there.
    fn at<T>(
        &self,
        path: &RelativePath,
        work: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let call = |directory: &OwnedFd, name: &OsStr| loop {
            match work(directory, name) {
                Err(Errno::INTR) => {}
                result => return result.map_err(io::Error::from),
            }
        };
        match &self.control {
            Some((parent, name)) if path.as_path() == Path::new(CONTROL_DIRECTORY) => call(parent, name),
            _ if path.is_root() => call(&self.root, OsStr::new(".")),
            _ => {
                let directory = path.parent();
                self.with_fresh(&directory, || call(&*self.handle(&directory)?, path.name()))
            }
        }
    }

    /// Does `work` in a directory. If it fails because the kept handle leads to a directory that was
    /// removed, looks the path up anew and does it once more.
    fn with_fresh<T>(&self, directory: &RelativePath, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if self.is_stale(directory, &error) => {
                self.forget();
                work()
            }
            result => result,
        }
    }

    /// Whether an error says nothing of the path, since the handle leads to a directory that is gone:
    /// one without a name, or one that a server has forgotten (ESTALE).
    fn is_stale(&self, directory: &RelativePath, error: &io::Error) -> bool {
        if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) {
            return true;
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(directory).map(Arc::clone);
        let is_gone = |handle: Arc<OwnedFd>| rustix::fs::fstat(&*handle).is_ok_and(|stat| stat.st_nlink == 0);
        error.kind() == io::ErrorKind::NotFound && kept.is_some_and(is_gone)
    }

    pub(super) fn metadata(&self, path: &RelativePath) -> io::Result<Metadata> {
        let stat =
            self.at(path, |directory, name| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(from_stat(&stat))
    }

    pub(super) fn list(&self, directory: &RelativePath) -> io::Result<Vec<DirectoryEntry>> {
        let opened =
            self.at(directory, |parent, name| rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()));
        let mut names = Vec::new();
        for entry in Dir::new(opened.map_err(not_a_directory)?)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not say (readdir(3)).
                FileType::Unknown => self.metadata(&directory.child(name))?.kind,
                known => kind(known),
            };
            names.push(DirectoryEntry { name: name.to_owned(), kind });
        }
        Ok(names)
    }

    pub(super) fn read_link(&self, path: &RelativePath) -> io::Result<PathBuf> {
        let link = self.at(path, |directory, name| rustix::fs::readlinkat(directory, name, Vec::new()))?;
        Ok(PathBuf::from(OsStr::from_bytes(link.to_bytes())))
    }

    fn open_with(&self, path: &RelativePath, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.at(path, |directory, name| rustix::fs::openat(directory, name, flags, mode)).map(File::from)
    }

    /// Without blocking, should the name lead to a pipe.
    pub(super) fn open_to_read(&self, path: &RelativePath) -> io::Result<File> {
        self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
    }

    /// On Linux any handle can be synced (fsync(2)). Without blocking, as above.
    pub(super) fn open_to_sync(&self, path: &RelativePath) -> io::Result<File> {
        self.open_to_read(path)
    }

    pub(super) fn open_to_overwrite(&self, path: &RelativePath) -> io::Result<File> {
        self.open_with(path, OFlags::WRONLY | OFlags::TRUNC, Mode::empty())
    }

    pub(super) fn create_new(&self, path: &RelativePath, mode: u32) -> io::Result<File> {
        self.make(path, OFlags::WRONLY, mode)
    }

    fn make(&self, path: &RelativePath, access: OFlags, mode: u32) -> io::Result<File> {
        let flags = access | OFlags::CREATE | OFlags::EXCL;
        if !is_control(path) {
            return self.open_with(path, flags, Mode::from_raw_mode(mode as _));
        }
        // Never more open than it will be, and cut by the umask at first.
        let rights = Rights::of(&rustix::fs::fstat(&*self.root)?);
        let file = self.open_with(path, flags, Mode::from_raw_mode(rights.file as _))?;
        rights.give(&file)?;
        Ok(file)
    }

    /// Writable, since a lock on NFS wants that (flock(2)); where nothing can be written, a reader's
    /// lock is better than none.
    pub(super) fn open_to_lock(&self, path: &RelativePath, absent: Absent) -> io::Result<File> {
        for _ in 0..OPEN_TRIES_MAX {
            // What is there is opened without `O_CREAT`, which a sticky directory of somebody else's
            // refuses (`fs.protected_regular`, proc_sys_fs(5)).
            let opened = match self.open_with(path, OFlags::RDWR, Mode::empty()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && absent == Absent::Make => {
                    self.make(path, OFlags::RDWR, 0o666)
                }
                opened => opened,
            };
            let Err(error) = opened else { return opened };
            match error.kind() {
                // Somebody else has just made it.
                io::ErrorKind::AlreadyExists => {}
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    return self.open_with(path, OFlags::RDONLY, Mode::empty()).map_err(|_| error);
                }
                _ => return Err(error),
            }
        }
        Err(io::Error::other("the lock file comes and goes"))
    }

    /// Whether `path` leads to this open file.
    pub(super) fn is_at(&self, file: &File, path: &RelativePath) -> io::Result<bool> {
        Ok(self.metadata(path)?.identity == file_metadata(file)?.identity)
    }

    /// Asked of the kernel even where owner and mode say yes: an immutable file (chattr(1)) and a
    /// read-only mount refuse their owner as well. In a sticky directory another's file can be
    /// written, but neither replaced nor removed (unlink(2), EPERM).
    pub(super) fn may_write(&self, path: &RelativePath, known: &Metadata) -> io::Result<()> {
        self.at(path, |directory, name| {
            rustix::fs::accessat(directory, name, Access::WRITE_OK, AtFlags::EACCESS)
        })?;
        let user = rustix::process::geteuid();
        if known.kind == Kind::Directory || user.is_root() || known.owner.0 == user.as_raw() {
            return Ok(());
        }
        let directory = self.metadata(&path.parent())?;
        if directory.mode & 0o1000 != 0 && directory.owner.0 != user.as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }

    pub(super) fn may_remove(&self, path: &RelativePath) -> io::Result<()> {
        let parent = path.parent();
        self.may_write(&parent, &self.metadata(&parent)?)?;
        if self.at(path, |directory, name| is_mount_point(directory, name))? {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(())
    }

    pub(super) fn create_dir(&self, path: &RelativePath) -> io::Result<()> {
        let make = |mode| self.at(path, |directory, name| rustix::fs::mkdirat(directory, name, mode));
        if !is_control(path) {
            return make(Mode::from_raw_mode(0o777));
        }
        let rights = Rights::of(&rustix::fs::fstat(&*self.root)?);
        let made = make(Mode::from_raw_mode(rights.directory as _));
        // Also to one that is there: its maker may have been killed in between.
        match self.open_with(path, DIRECTORY, Mode::empty()).and_then(|opened| rights.give(&opened)) {
            Err(error) if made.is_ok() => Err(error),
            _ => made,
        }
    }

    pub(super) fn rename(&self, from: &RelativePath, to: &RelativePath) -> io::Result<()> {
        self.with_fresh(&to.parent(), || {
            let target = self.handle(&to.parent())?;
            self.at(from, |directory, name| rustix::fs::renameat(directory, name, &*target, to.name()))
        })
    }

    pub(super) fn link(&self, from: &RelativePath, to: &RelativePath) -> io::Result<()> {
        self.with_fresh(&to.parent(), || {
            let target = self.handle(&to.parent())?;
            self.at(from, |directory, name| {
                rustix::fs::linkat(directory, name, &*target, to.name(), AtFlags::empty())
            })
        })
    }

    pub(super) fn remove_file(&self, path: &RelativePath) -> io::Result<()> {
        self.at(path, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::empty()))
    }

    pub(super) fn remove_dir(&self, path: &RelativePath) -> io::Result<()> {
        self.at(path, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR))
    }

    /// Waits until a directory's names are on disk (fsync(2), NOTES).
    pub(super) fn sync_directory(&self, directory: &RelativePath) -> io::Result<()> {
        rustix::fs::fsync(&*self.handle(directory)?).map_err(io::Error::from)?;
        if directory.is_root() {
            if let Some((parent, _)) = &self.control {
                // The control directory's own name is in another directory than the root.
                rustix::fs::fsync(parent)?;
            }
        }
        Ok(())
    }
}

fn is_control(path: &RelativePath) -> bool {
    path.names().next().is_some_and(|name| name == CONTROL_DIRECTORY)
}

/// Owner, group and rights of what lies in the control directory, taken from the root.
struct Rights {
    user: u32,
    group: u32,
    file: u32,
    directory: u32,
}

#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the widths of `stat`'s fields differ between systems"
)]
impl Rights {
    /// The owner can always use what is there, also below a root that its owner may not write.
    fn of(root: &Stat) -> Self {
        let mode = root.st_mode as u32;
        Self {
            user: root.st_uid,
            group: root.st_gid,
            file: mode & 0o666 | 0o600,
            // Set-group-ID and sticky mean the same there as in the root.
            directory: mode & 0o3777 | 0o700,
        }
    }

    /// Gives them to a file or directory that was just made, whatever the umask left of its mode.
    ///
    /// Only a privileged process can give a file away, and others can give it only a group of theirs
    /// (chown(2)). Where the group cannot be the root's, it gets what everybody gets.
    fn give(&self, made: &File) -> io::Result<()> {
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
                // A file system without rights of its own (FAT), or another's directory.
                Err(Errno::PERM | Errno::OPNOTSUPP) => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// A symlink where a directory should be is refused, in the same words everywhere.
fn not_a_directory(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) if code == Errno::LOOP.raw_os_error() => io::ErrorKind::NotADirectory.into(),
        _ => error,
    }
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    }
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::useless_conversion,
    reason = "the widths of `stat`'s fields differ between systems"
)]
fn from_stat(stat: &Stat) -> Metadata {
    let nanoseconds = Duration::from_nanos(stat.st_mtime_nsec as u64);
    let seconds = Duration::from_secs(stat.st_mtime.unsigned_abs().into());
    let modified = if stat.st_mtime >= 0 {
        SystemTime::UNIX_EPOCH + seconds + nanoseconds
    } else {
        SystemTime::UNIX_EPOCH - seconds + nanoseconds
    };
    Metadata {
        kind: kind(FileType::from_raw_mode(stat.st_mode as _)),
        length: stat.st_size as u64,
        modified,
        mode: stat.st_mode as u32 & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        identity: Some(Identity { device: stat.st_dev as u64, inode: stat.st_ino as u64 }),
        links: stat.st_nlink as u64,
    }
}

pub(super) fn file_metadata(file: &File) -> io::Result<Metadata> {
    Ok(from_stat(&rustix::fs::fstat(file)?))
}

/// The end of writing: what the file is now.
pub(super) fn finish(file: &File) -> io::Result<Metadata> {
    file_metadata(file)
}

/// Gives a file another's permissions, and its owner where that is allowed. The owner first, since
/// changing it clears the set-user bits (chown(2)).
pub(super) fn copy_permissions(file: &File, mode: u32, like: &Metadata) -> io::Result<u32> {
    let (user, group) = like.owner;
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut changed = false;
    if (user, group) != me {
        let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
        changed = rustix::fs::fchown(file, Some(user), Some(group)).is_ok();
    }
    if like.mode != mode || changed {
        rustix::fs::fchmod(file, Mode::from_raw_mode(like.mode as _))?;
    }
    Ok(like.mode)
}

#[cfg(target_os = "linux")]
use super::linux::{is_mount_point, sync_each_file_system};

/// Elsewhere the removal finds it out.
#[cfg(not(target_os = "linux"))]
fn is_mount_point(_directory: impl std::os::fd::AsFd, _name: &OsStr) -> rustix::io::Result<bool> {
    Ok(false)
}

#[cfg(target_os = "linux")]
pub(super) use super::linux::start_write_back;

/// Elsewhere the sync begins the write-back.
#[cfg(not(target_os = "linux"))]
pub(super) fn start_write_back(_file: &File, _offset: u64, _length: u64) {}

/// The path with every symlink resolved.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// Syncs a directory that is named by a path outside any root.
pub(super) fn sync_path(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A third of what the process may have open, so that several transactions find room.
pub(super) fn files_open_max() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
        usize::try_from(limit.saturating_sub(64) / 3).unwrap_or(usize::MAX).clamp(16, 1024)
    })
}

/// Everything that was written to the wave's file systems, each at once: `None` where one call
/// cannot be trusted to do so.
#[cfg(target_os = "linux")]
pub(super) fn sync_file_systems(
    directories: &Directories,
    files: &[Box<dyn OpenFile>],
    names: &[RelativePath],
) -> Result<Option<Durable>, SyncError> {
    let mut handles: Vec<(Arc<OwnedFd>, &RelativePath)> = Vec::new();
    for name in names {
        match directories.handle(name) {
            Ok(handle) => handles.push((handle, name)),
            // A directory that is gone has no names to lose.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SyncError { path: name.clone(), source }),
        }
    }
    // The files' own handles first: an error is reported to descriptions that were open before it.
    let written: Option<Vec<_>> = files.iter().map(|file| file.as_any().downcast_ref::<Written>()).collect();
    let Some(written) = written else { return Ok(None) };
    let files = written.iter().map(|written| (written.file.as_fd(), &written.path));
    sync_each_file_system(files.chain(handles.iter().map(|(handle, name)| (handle.as_fd(), *name))))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn sync_file_systems(
    _directories: &Directories,
    _files: &[Box<dyn OpenFile>],
    _names: &[RelativePath],
) -> Result<Option<Durable>, SyncError> {
    Ok(None)
}
