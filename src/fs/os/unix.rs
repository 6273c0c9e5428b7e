//! Unix: every call is relative to a directory's handle, and no symlink is ever
//! followed.
//!
//! A directory is opened name by name from the root's own handle, each time
//! with `O_NOFOLLOW`. So neither a link nor a race can lead outside the root. A
//! bounded number of handles is cached, so that paths are not walked again. The
//! cache is dropped whenever the store takes its lock, since directories may
//! have been replaced.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::rights::Rights;
use crate::fs::{CONTROL_DIRECTORY, DirectoryEntry, HeldDirectory, Identity, Kind, Metadata, NewFile};
use crate::path::RelativePath;

/// How many directory handles are cached: enough for trees that are saved often, and few beside the 256
/// that a process may have open on macOS.
const HANDLES_MAX: usize = 32;

/// How often to try to open a directory while too many files are open, and the pause between two tries.
const DESCRIPTOR_TRIES_MAX: u32 = 50;
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);

pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Directory handles below one root.
#[derive(Debug)]
pub(super) struct Directories {
    pub(super) root: Arc<OwnedFd>,
    control: Option<Elsewhere>,
    kept: Mutex<HashMap<RelativePath, Arc<OwnedFd>>>,
}

/// A control directory that is not at its default place.
#[derive(Debug)]
struct Elsewhere {
    path: PathBuf,
    /// The directory that holds it, once that exists.
    parent: OnceLock<OwnedFd>,
}

impl Elsewhere {
    fn parent(&self) -> io::Result<&OwnedFd> {
        if let Some(parent) = self.parent.get() {
            return Ok(parent);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = self.path.parent().unwrap_or(Path::new("/"));
        let opened = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(self.parent.get_or_init(|| opened))
    }

    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

/// A directory's own handle.
#[derive(Debug)]
pub(super) struct Held(Arc<OwnedFd>);

impl HeldDirectory for Held {
    fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        rustix::fs::unlinkat(&*self.0, name, AtFlags::empty()).map_err(io::Error::from)
    }
}

impl Directories {
    pub(super) fn open(root: &Path, control: Option<&Path>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Arc::new(rustix::fs::open(root, flags, Mode::empty())?);
        let control = control.map(|path| Elsewhere { path: path.to_path_buf(), parent: OnceLock::new() });
        Ok(Self { root, control, kept: Mutex::default() })
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
    pub(super) fn at<T>(
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
            Some(control) if path.as_path() == Path::new(CONTROL_DIRECTORY) => {
                call(control.parent()?, control.name())
            }
            _ if path.is_root() => call(&self.root, OsStr::new(".")),
            _ => {
                let directory = path.parent();
                self.with_fresh(&directory, || call(&*self.handle(&directory)?, path.name()))
            }
        }
    }

    /// Does `work` in a directory. If it fails because the cached handle leads to a removed directory,
    /// looks the path up anew and does it once more.
    pub(super) fn with_fresh<T>(
        &self,
        directory: &RelativePath,
        work: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        match work() {
            Err(error) if self.is_stale(directory, &error) => {
                self.forget();
                work()
            }
            result => result,
        }
    }

    /// Whether an error only means that the cached handle leads to a directory that is gone: it has no
    /// name any more, or the server no longer knows it (ESTALE).
    fn is_stale(&self, directory: &RelativePath, error: &io::Error) -> bool {
        if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) {
            return true;
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(directory).map(Arc::clone);
        let is_gone = |handle: Arc<OwnedFd>| rustix::fs::fstat(&*handle).is_ok_and(|stat| stat.st_nlink == 0);
        error.kind() == io::ErrorKind::NotFound && kept.is_some_and(is_gone)
    }

    pub(super) fn hold(&self, directory: &RelativePath) -> io::Result<Arc<Held>> {
        Ok(Arc::new(Held(self.handle(directory)?)))
    }

    pub(super) fn leads_to_root(&self, path: &Path) -> io::Result<bool> {
        let found = from_stat(&rustix::fs::stat(path)?);
        Ok(found.identity == from_stat(&rustix::fs::fstat(&*self.root)?).identity)
    }

    pub(super) fn is_mount_point(&self, path: &RelativePath) -> io::Result<bool> {
        self.at(path, |directory, name| is_mount_point(directory, name))
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
                // Some file systems do not tell the kind (readdir(3)).
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

    pub(super) fn open_with(&self, path: &RelativePath, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.at(path, |directory, name| rustix::fs::openat(directory, name, flags, mode)).map(File::from)
    }

    /// `O_NONBLOCK`, so that a pipe under this name blocks nobody.
    pub(super) fn open_to_read(&self, path: &RelativePath) -> io::Result<File> {
        self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
    }

    /// A handle for syncing; on Linux any handle will do (fsync(2)). `O_NONBLOCK` as above.
    pub(super) fn open_to_sync(&self, path: &RelativePath) -> io::Result<File> {
        match self.open_to_read(path) {
            // Its owner may write it and not read it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.open_with(path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).map_err(|_| error)
            }
            opened => opened,
        }
    }

    pub(super) fn open_to_write(&self, path: &RelativePath) -> io::Result<File> {
        self.open_with(path, OFlags::WRONLY, Mode::empty())
    }

    /// Locked for as long as it is open. `O_NONBLOCK` as above.
    pub(super) fn open_to_append(&self, path: &RelativePath, access: NewFile) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK;
        let mode = if access == NewFile::Ordinary { 0o666 } else { 0o600 };
        let file = self.open_with(path, flags, Mode::from_raw_mode(mode))?;
        match fs2::FileExt::try_lock_exclusive(&file) {
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            locked => locked.map(|()| file),
        }
    }

    pub(super) fn create_new(&self, path: &RelativePath, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        if !is_control(path) {
            return self.open_with(path, flags, Mode::from_raw_mode(mode as _));
        }
        // At first no more open than it will be in the end, and cut by the umask.
        let mut rights = Rights::of(&rustix::fs::fstat(&*self.root)?);
        if mode & 0o077 == 0 {
            rights.file = rights.private_file;
        }
        let file = self.open_with(path, flags, Mode::from_raw_mode(rights.file as _))?;
        rights.give(&file)?;
        Ok(file)
    }

    /// The mode that `std::fs::File::create` would give a file here, if it can be known beforehand.
    pub(super) fn new_file_mode(&self, directory: &RelativePath) -> io::Result<Option<u32>> {
        Ok(new_file_mode(&*self.handle(directory)?))
    }

    /// Asks the kernel, for the same reasons as `may_write`.
    pub(super) fn may_create_in(&self, directory: &RelativePath) -> io::Result<()> {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        self.at(directory, |parent, name| rustix::fs::accessat(parent, name, wanted, AtFlags::EACCESS))
    }

    /// Opened for writing, since a lock on NFS needs that (flock(2)). If nothing can be written, a
    /// reader's lock is better than none.
    pub(super) fn open_to_lock(&self, path: &RelativePath) -> io::Result<File> {
        if path.is_root() {
            return self.open_with(path, DIRECTORY, Mode::empty());
        }
        let refusals = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
        match self.open_with(path, OFlags::RDWR, Mode::empty()) {
            Err(error) if refusals.contains(&error.kind()) => {
                self.open_with(path, OFlags::RDONLY, Mode::empty()).map_err(|_| error)
            }
            opened => opened,
        }
    }

    /// Whether `path` leads to this open file.
    pub(super) fn is_at(&self, file: &File, path: &RelativePath) -> io::Result<bool> {
        Ok(self.metadata(path)?.identity == file_metadata(file)?.identity)
    }

    /// Asks the kernel even if owner and mode allow it: an immutable file (chattr(1)) and a read-only
    /// mount refuse their owner too. In a sticky directory another user's file can be written, but
    /// neither replaced nor removed (unlink(2), EPERM).
    pub(super) fn may_write(&self, path: &RelativePath, known: &Metadata) -> io::Result<()> {
        self.at(path, |directory, name| {
            rustix::fs::accessat(directory, name, Access::WRITE_OK, AtFlags::EACCESS)
        })?;
        if known.kind == Kind::Directory || is_superuser_or(known.owner) {
            return Ok(());
        }
        refuse_if_kept(&self.metadata(&path.parent())?, known.owner)
    }

    pub(super) fn has_access_list(&self, path: &RelativePath) -> io::Result<bool> {
        self.at(path, has_access_list)
    }

    /// These flags bind the superuser too, and `access` ignores the append-only one.
    pub(super) fn may_rename_over(&self, path: &RelativePath) -> io::Result<()> {
        let frozen = |directory: &OwnedFd, name: &OsStr| {
            Ok(is_frozen(directory, OsStr::new("."))? || if_any(is_frozen(directory, name))?)
        };
        if self.at(path, frozen)? { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    pub(super) fn may_remove(&self, path: &RelativePath) -> io::Result<()> {
        let parent = path.parent();
        let directory = self.metadata(&parent)?;
        self.may_write(&parent, &directory)?;
        if directory.mode & STICKY != 0 {
            refuse_if_kept(&directory, self.metadata(path)?.owner)?;
        }
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
        // An existing directory gets them too: its maker may have been killed before this step.
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

    pub(super) fn symlink(&self, to: &Path, path: &RelativePath) -> io::Result<()> {
        self.at(path, |directory, name| rustix::fs::symlinkat(to, directory, name))
    }

    pub(super) fn remove_file(&self, path: &RelativePath) -> io::Result<()> {
        self.at(path, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::empty()))
    }

    pub(super) fn remove_dir(&self, path: &RelativePath) -> io::Result<()> {
        self.at(path, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR))
    }

    /// A directory's handle, to sync it. Waits for a free descriptor, which is no second sync.
    pub(super) fn handle_to_sync(&self, directory: &RelativePath) -> io::Result<Arc<OwnedFd>> {
        for _ in 0..DESCRIPTOR_TRIES_MAX {
            match self.handle(directory) {
                Err(error) if is_out_of_descriptors(&error) => {
                    // The cached handles use descriptors too.
                    self.forget();
                    std::thread::sleep(DESCRIPTOR_PAUSE);
                }
                result => return result,
            }
        }
        self.handle(directory)
    }

    /// Waits until a directory's names are on disk (fsync(2), NOTES).
    pub(super) fn sync_directory(&self, directory: &RelativePath, handle: &Arc<OwnedFd>) -> io::Result<()> {
        rustix::fs::fsync(&**handle).map_err(io::Error::from)?;
        if directory.is_root() {
            if let Some(control) = &self.control {
                // If the control directory lies elsewhere, its own name is not in the root.
                rustix::fs::fsync(control.parent()?)?;
            }
        }
        Ok(())
    }
}

fn is_control(path: &RelativePath) -> bool {
    path.names().next().is_some_and(|name| name == CONTROL_DIRECTORY)
}

/// Turns the different errors for a symlink in place of a directory into one.
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
    let time = |seconds: i64, nanoseconds: u64| {
        let (length, rest) = (Duration::from_secs(seconds.unsigned_abs()), Duration::from_nanos(nanoseconds));
        let whole =
            if seconds >= 0 { SystemTime::UNIX_EPOCH + length } else { SystemTime::UNIX_EPOCH - length };
        whole + rest
    };
    Metadata {
        kind: kind(FileType::from_raw_mode(stat.st_mode as _)),
        length: stat.st_size as u64,
        modified: time(stat.st_mtime.into(), stat.st_mtime_nsec as u64),
        changed: Some(time(stat.st_ctime.into(), stat.st_ctime_nsec as u64)),
        mode: stat.st_mode as u32 & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        identity: Some(Identity { device: stat.st_dev as u64, inode: stat.st_ino as u64 }),
        links: stat.st_nlink as u64,
    }
}

pub(super) fn file_metadata(file: &File) -> io::Result<Metadata> {
    Ok(from_stat(&rustix::fs::fstat(file)?))
}

/// Ends writing, and returns what the file is now.
pub(super) fn finish(file: &File, modified: Option<SystemTime>) -> io::Result<Metadata> {
    if let Some(modified) = modified {
        file.set_modified(modified)?;
    }
    file_metadata(file)
}

/// In such a directory only its owner and their own may remove what is in it (unlink(2) and rmdir(2), EPERM).
const STICKY: u32 = 0o1000;

fn is_superuser_or(owner: (u32, u32)) -> bool {
    let user = rustix::process::geteuid();
    user.is_root() || owner.0 == user.as_raw()
}

/// Refuses to touch a name of this owner if its directory keeps it from all others.
fn refuse_if_kept(directory: &Metadata, owner: (u32, u32)) -> io::Result<()> {
    if directory.mode & STICKY == 0 || is_superuser_or(owner) || is_superuser_or(directory.owner) {
        return Ok(());
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

pub(super) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode as _)).map_err(io::Error::from)
}

#[cfg(target_os = "linux")]
pub(super) use super::linux::boot;
#[cfg(target_os = "linux")]
pub(super) use super::linux::share_bytes;
#[cfg(target_os = "linux")]
use super::linux::{has_access_list, is_frozen, is_mount_point, new_file_mode};

/// Other systems do not tell without a call that needs `unsafe`.
#[cfg(not(target_os = "linux"))]
pub(super) fn boot() -> Option<uuid::Uuid> {
    None
}

/// Other systems share bytes between names only, not between open files.
#[cfg(not(target_os = "linux"))]
pub(super) fn share_bytes(_source: &File, _file: &File) -> io::Result<bool> {
    Ok(false)
}

/// Other systems do not tell the umask.
#[cfg(not(target_os = "linux"))]
fn new_file_mode(_directory: &OwnedFd) -> Option<u32> {
    None
}

#[cfg(not(target_os = "linux"))]
fn has_access_list(_directory: &OwnedFd, _name: &OsStr) -> rustix::io::Result<bool> {
    Ok(false)
}

fn if_any(answer: rustix::io::Result<bool>) -> rustix::io::Result<bool> {
    if answer == Err(Errno::NOENT) { Ok(false) } else { answer }
}

/// The append-only and immutable flags of the owner and of the superuser (chflags(2)).
#[cfg(target_vendor = "apple")]
fn is_frozen(directory: impl std::os::fd::AsFd, name: &OsStr) -> rustix::io::Result<bool> {
    const FROZEN: u32 = 0x2 | 0x4 | 0x2_0000 | 0x4_0000;
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(stat.st_flags & FROZEN != 0)
}

/// Other systems notice only when they move the file, after the commit point.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn is_frozen(_directory: impl std::os::fd::AsFd, _name: &OsStr) -> rustix::io::Result<bool> {
    Ok(false)
}

/// Other systems only find out when they remove the file.
#[cfg(not(target_os = "linux"))]
fn is_mount_point(_directory: impl std::os::fd::AsFd, _name: &OsStr) -> rustix::io::Result<bool> {
    Ok(false)
}

#[cfg(target_os = "linux")]
pub(super) use super::linux::start_write_back;

/// On other systems the sync starts the write-back.
#[cfg(not(target_os = "linux"))]
pub(super) fn start_write_back(_file: &File, _offset: u64, _length: u64) {}

/// The path with every symlink resolved.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// Syncs a directory outside any root.
pub(super) fn sync_path(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Whether opening failed because too many files are open (open(2), EMFILE and ENFILE).
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::MFILE.raw_os_error()) || code == Some(Errno::NFILE.raw_os_error())
}

/// A third of the files that the process may have open, so that several transactions can run at once.
pub(super) fn files_open_max() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
        usize::try_from(limit.saturating_sub(64) / 3).unwrap_or(usize::MAX).clamp(16, 1024)
    })
}
