//! What the protocol may ask of the operating system.
//!
//! [`FileSystem`] is all that cosave needs: files, a clock, unique names and a
//! way to wait. Each call says what it promises about atomicity and durability,
//! and names the source. The protocol is written once, against this trait. `os`
//! is the real file system; `sim` (feature `sim`) is a disk in memory that
//! loses power. Nothing here knows of transactions.
//!
//! Paths are [`RelativePath`]s below the root. No call follows a symlink,
//! neither in the last name nor in a parent. A symlink where a directory should
//! be is an error (`NotADirectory`). An implementation may store the control
//! directory elsewhere. Files and directories made in the control directory
//! take owner, group and rights from the root, as far as the system allows. So
//! whoever may change the root may change them too, whoever made them, and
//! nobody else may read them.

mod metadata;
pub(crate) mod os;
#[cfg(feature = "sim")]
pub mod sim;
mod time;
mod wave;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::options::SyncStrategy;
use crate::path::RelativePath;
use crate::preserve::Attribute;
pub use metadata::{DirectoryEntry, Identity, Kind, Metadata};
pub(crate) use metadata::{SET_ID, UNFINISHED};
pub use wave::{Barrier, Durable, OpenFile, SyncError, Unsynced, Wave};

/// The name of the control directory in the root.
pub(crate) const CONTROL_DIRECTORY: &str = ".cosave";

/// Who may read a new file while it is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewFile {
    /// Nobody else (mode 0600). Its final mode comes from the file it will replace.
    Private,
    /// Whoever could read a file made by `std::fs::File::create`: mode 0666 without the umask's bits,
    /// or what the directory's default ACL says.
    Ordinary,
    /// Nobody else, until [`WriteFile::finish`] gives it the rights of `Ordinary`. `Ordinary` from the
    /// start if the system cannot say what these are.
    Hidden,
    /// Nobody but its maker, for good, also in the control directory.
    Own,
}

/// An open file that is being read.
pub trait ReadFile: io::Read + io::Seek + Send + Sync + fmt::Debug {
    /// The open file's metadata.
    ///
    /// # Errors
    /// Any error of the system.
    fn metadata(&self) -> io::Result<Metadata>;

    /// The system's own handle, if there is one.
    fn system_file(&self) -> Option<&std::fs::File> {
        None
    }
}

/// What came of a copy of permissions.
#[derive(Clone, Debug, Default)]
pub struct Copied {
    /// What the new file could not get.
    pub lost: Vec<Attribute>,
    /// Whether the model has an access control list, and the new file now, too.
    pub has_access_list: bool,
}

/// A new file that is being written.
pub trait WriteFile: io::Write + io::Seek + Send + Sync + fmt::Debug {
    /// Gives the file the permissions of the file at `path`, whose metadata is `like`: its mode and its
    /// access ACL. Also what is allowed of its owner, its label and the attributes of its user.
    ///
    /// # Errors
    /// Any error of the system in setting the mode and the ACL. An owner that may not be set is no
    /// error.
    fn copy_permissions(&mut self, path: &RelativePath, like: &Metadata) -> io::Result<Copied>;

    /// Gives the file this mode. Does nothing on systems without permission bits.
    ///
    /// # Errors
    /// Any error of the system.
    fn set_mode(&mut self, mode: u32) -> io::Result<()>;

    /// Sets the time of the last change of content. Nothing is written after that.
    ///
    /// # Errors
    /// Any error of the system.
    fn set_modified(&mut self, modified: SystemTime) -> io::Result<()>;

    /// Gives a new, empty file all bytes of another one, without copying them, if the file system can
    /// (FICLONE: ioctl_ficlone(2)). Returns whether it has. If not, the file is still empty.
    ///
    /// # Errors
    /// Any error of the system, except that it cannot do this.
    fn share_bytes(&mut self, _source: &std::fs::File) -> io::Result<bool> {
        Ok(false)
    }

    /// Locks the file, by the handle that writes it, until the lock is dropped. `None` if another has it locked,
    /// or has taken its name away.
    ///
    /// # Errors
    /// `Unsupported` on file systems without locks, or any other error of the system.
    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>>;

    /// Ends writing and asks the system to start write-back, which is a hint and promises nothing.
    /// Returns the final metadata and the debt. The debt keeps the handle open until it is synced.
    ///
    /// # Errors
    /// Any error of the system.
    fn finish(self: Box<Self>) -> io::Result<(Metadata, Unsynced)>;
}

/// An open file to whose end bytes are added. Nobody else has it open for that.
pub trait GrowingFile: io::Read + io::Seek + Send + Sync + fmt::Debug {
    /// Adds all bytes at the end, wherever it is.
    ///
    /// # Errors
    /// Any error of the system. A part of the bytes may be there then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// How many bytes the file has.
    ///
    /// # Errors
    /// Any error of the system.
    fn length(&self) -> io::Result<u64>;

    /// Removes everything beyond `length` (ftruncate(2)), also from the page cache. Adds nothing if the file is
    /// shorter.
    ///
    /// # Errors
    /// Any error of the system.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Whether `path` leads to this file. On Windows only whether it leads to a file.
    ///
    /// # Errors
    /// Any error of the system, except that there is none.
    fn is_at(&self, path: &RelativePath) -> io::Result<bool>;

    /// The debt for everything that was appended and cut so far, by the handle that did it.
    ///
    /// # Errors
    /// Any error of the system; then nothing was synced, and nothing is lost.
    fn debt(&mut self) -> io::Result<Unsynced>;
}

/// A held lock. Dropping it, or the end of its process, releases it.
pub trait Lock: Send + Sync + fmt::Debug {}

/// How a lock is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Held by many at once.
    Shared,
    /// Held by one alone.
    Exclusive,
}

/// A directory that can be reached even after it was renamed. On systems without calls relative to a
/// handle, only its old path leads to it.
pub trait HeldDirectory: Send + Sync + fmt::Debug {
    /// Removes the name of a file.
    ///
    /// # Errors
    /// `NotFound`, or any other error of the system.
    fn remove_file(&self, name: &OsStr) -> io::Result<()>;
}

/// Everything the protocol needs of the operating system.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// What `path` is (`lstat`). The root itself is `RelativePath::root()`.
    ///
    /// # Errors
    /// `NotFound` if there is nothing; `NotADirectory` if a parent is a file or a symlink.
    fn metadata(&self, path: &RelativePath) -> io::Result<Metadata>;

    /// The names in a directory, unsorted, without `.` and `..`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, or any other error of the system.
    fn list(&self, directory: &RelativePath) -> io::Result<Vec<DirectoryEntry>>;

    /// The target of a symlink, as written in it.
    ///
    /// # Errors
    /// Any error of the system.
    fn read_link(&self, path: &RelativePath) -> io::Result<PathBuf>;

    /// The root's own path with every symlink resolved. Absolute links are compared with it.
    fn root_path(&self) -> PathBuf;

    /// The root's own path as the caller gave it, made absolute.
    fn given_root(&self) -> PathBuf {
        self.root_path()
    }

    /// The full path of `path`, as a person would write it.
    fn full_path(&self, path: &RelativePath) -> PathBuf {
        self.root_path().join(path.as_path())
    }

    /// Whether the control directory has another place than the default one, so that another root could
    /// use the same one.
    fn has_control_elsewhere(&self) -> bool {
        false
    }

    /// The path of the control directory, if it lies in the root, but not at its default place. Nothing
    /// at or below this path is a file of the caller's.
    fn control_in_root(&self) -> Option<RelativePath> {
        None
    }

    /// Whether a path of the system leads to this root, under any name.
    ///
    /// # Errors
    /// `NotFound` if it leads nowhere, or any other error of the system.
    fn leads_to_root(&self, path: &Path) -> io::Result<bool>;

    /// A directory above the root that is a root itself, because it has a control directory.
    ///
    /// # Errors
    /// Any error of the system.
    fn enclosing_root(&self) -> io::Result<Option<PathBuf>>;

    /// Whether another file system, or another part of the same one, is mounted at this path. `false`
    /// if the system does not tell.
    ///
    /// # Errors
    /// Any error of the system.
    fn is_mount_point(&self, path: &RelativePath) -> io::Result<bool>;

    /// Opens a regular file for reading. It stays readable and unchanged after its name is replaced.
    ///
    /// # Errors
    /// `NotFound`, or another error for anything but a regular file.
    fn open(&self, path: &RelativePath) -> io::Result<Box<dyn ReadFile>>;

    /// Whether the system would allow writing to the existing file, as it would allow `std::fs::write`.
    ///
    /// # Errors
    /// `PermissionDenied` or `ReadOnlyFilesystem` if it would not.
    fn may_write(&self, path: &RelativePath, known: &Metadata) -> io::Result<()>;

    /// Whether the file or directory has an access control list that says more than its mode, and can close
    /// it to some whom the mode lets in (acl(5)). `false` if the system does not tell.
    ///
    /// # Errors
    /// `NotFound` if a directory above it is missing, or any other error of the system.
    fn has_access_list(&self, path: &RelativePath) -> io::Result<bool> {
        let _ = path;
        Ok(false)
    }

    /// Whether the name can be given to another file, as far as flags decide that permissions do not
    /// show. These are `chattr +a` and `+i` (append-only, immutable), on the file at `path`, if there
    /// is one, or on its directory.
    ///
    /// # Errors
    /// `PermissionDenied` if the flags forbid it; `NotFound` if the directory is missing.
    fn may_rename_over(&self, path: &RelativePath) -> io::Result<()>;

    /// Whether the name of the existing file could be removed: its directory allows removals, and the
    /// file is not a mount point.
    ///
    /// # Errors
    /// `PermissionDenied`, `ReadOnlyFilesystem` or `ResourceBusy` if it could not.
    fn may_remove(&self, path: &RelativePath) -> io::Result<()>;

    /// Makes a file that did not exist (`O_CREAT | O_EXCL`: open(2)). The debt returned here covers the
    /// file's name. The debt for its bytes comes from [`WriteFile::finish`].
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` if the parent is missing, or any other error of the system.
    fn create_new(&self, path: &RelativePath, access: NewFile) -> io::Result<(Box<dyn WriteFile>, Unsynced)>;

    /// Whether files can be made in this directory. Asked before anything is made there.
    ///
    /// # Errors
    /// `PermissionDenied` or `ReadOnlyFilesystem` if none can.
    fn may_create_in(&self, directory: &RelativePath) -> io::Result<()>;

    /// Gives `path` the permissions of the file at `model`, whose metadata is `like`, as
    /// [`WriteFile::copy_permissions`] does. Owes the file's sync.
    ///
    /// # Errors
    /// `NotFound`, or any other error of the system.
    fn copy_permissions(
        &self,
        model: &RelativePath,
        like: &Metadata,
        path: &RelativePath,
    ) -> io::Result<(Copied, Unsynced)>;

    /// Opens an existing file, empties it, and lets it be overwritten in place. Only for targets that
    /// cannot be renamed over (mount points), and only while a published manifest protects them.
    ///
    /// # Errors
    /// Any error of the system.
    fn overwrite(&self, path: &RelativePath) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file to append to it, and makes it if it does not exist, for those who may read it. Also returns
    /// the debt for its name, since whoever made it may not have synced that.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else has it open to append, `InvalidInput` if it is no regular file, or any
    /// other error of the system.
    fn open_to_append(
        &self,
        path: &RelativePath,
        access: NewFile,
    ) -> io::Result<(Box<dyn GrowingFile>, Unsynced)>;

    /// Makes a directory, with the mode that `std::fs::create_dir` gives it. Owes the parent's sync.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` if the parent is missing, or any other error of the system.
    fn create_dir(&self, path: &RelativePath) -> io::Result<Unsynced>;

    /// Makes a directory that nobody can enter yet, with the mode 0400. Owes the parent's sync.
    ///
    /// # Errors
    /// As for [`create_dir`](Self::create_dir).
    fn create_unfinished_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.create_dir(path)
    }

    /// Gives a directory these permission bits, and leaves the set-ID and sticky bits that it has. If a
    /// `group` is named, the bits hold for that one, and the directory is given to it if that is allowed. If it
    /// is not, or an access control list says more, its group gets only the rights of all others. Owes the
    /// directory's own sync. Does nothing on systems without permission bits.
    ///
    /// # Errors
    /// `NotFound`, or any other error of the system.
    fn finish_dir(&self, path: &RelativePath, mode: u32, group: Option<u32>) -> io::Result<Unsynced> {
        let _ = (path, mode, group);
        Ok(Unsynced::default())
    }

    /// Makes a directory in the control directory that only those can enter who may write in the root. One
    /// that exists is left as it is. Owes the parent's sync.
    ///
    /// # Errors
    /// As for [`create_dir`](Self::create_dir).
    fn create_private_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.create_dir(path)
    }

    /// Makes a directory unless it exists. Owes the parent's sync also if another process has made it, since
    /// that process may not have synced it.
    ///
    /// # Errors
    /// `NotFound` if the parent is missing, or any other error of the system.
    fn ensure_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        match self.create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Unsynced::directory(path.parent()))
            }
            made => made,
        }
    }

    /// Moves a name, replacing a file at `to`. Others see the old state or the new one (rename(2)); it
    /// is durable only after the directories are synced. Does nothing if both names lead to one inode
    /// (rename(2)).
    ///
    /// # Errors
    /// `NotFound`, `CrossesDevices`, `ResourceBusy` for a mount point, or any other error of the
    /// system. Neither name has changed then. On Windows, sharing violations have been retried.
    fn rename(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced>;

    /// Moves a name to a free one. Others see it at one or at the other (rename(2)). It never replaces
    /// anything, where the system can promise that (`RENAME_NOREPLACE`: rename(2), Linux; `RENAME_EXCL`:
    /// renameatx_np(2), macOS). Elsewhere it is looked for first.
    ///
    /// # Errors
    /// `AlreadyExists`, or as for [`rename`](Self::rename).
    fn rename_new(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        match self.metadata(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename(from, to),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// Moves a directory, with everything in it, as [`rename_new`](Self::rename_new) does.
    ///
    /// # Errors
    /// As for [`rename_new`](Self::rename_new).
    fn rename_directory(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        let renamed = self.rename_new(from, to);
        // Cached handles lead to where they have led, and that has other paths now.
        self.forget_directories();
        renamed
    }

    /// Gives each of two directories the name of the other. Others see both old or both new
    /// (`RENAME_EXCHANGE`: rename(2), Linux).
    ///
    /// # Errors
    /// `Unsupported` if the system cannot do this, or any other error of the system. Nothing has changed
    /// then.
    fn exchange(&self, one: &RelativePath, other: &RelativePath) -> io::Result<Unsynced> {
        let _ = (one, other);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Tells a file or directory apart from all others. `None` if the system does not tell.
    ///
    /// # Errors
    /// Any error of the system.
    fn identity(&self, path: &RelativePath) -> io::Result<Option<Identity>> {
        Ok(self.metadata(path)?.identity)
    }

    /// When a directory was made; `None` if the system does not tell (statx(2), `stx_btime`).
    ///
    /// # Errors
    /// Any error of the system.
    fn born(&self, path: &RelativePath) -> io::Result<Option<SystemTime>> {
        let _ = path;
        Ok(None)
    }

    /// Whether a directory can be moved at all. Asked under the lock. On overlayfs those of a lower layer cannot
    /// (kernel `overlayfs.rst`, *Renaming directories*).
    ///
    /// # Errors
    /// `CrossesDevices`, or any other error of the system.
    fn may_move_directory(&self, path: &RelativePath) -> io::Result<()> {
        let _ = path;
        Ok(())
    }

    /// Whether something is mounted below this directory. `false` if the system does not tell.
    ///
    /// # Errors
    /// Any error of the system.
    fn has_mounts_below(&self, path: &RelativePath) -> io::Result<bool> {
        let _ = path;
        Ok(false)
    }

    /// How many bytes can still be written to the disk of this directory. `None` if the system does not tell.
    ///
    /// # Errors
    /// `NotFound` if there is no such directory, or any other error of the system.
    fn free_bytes(&self, directory: &RelativePath) -> io::Result<Option<u64>> {
        let _ = directory;
        Ok(None)
    }

    /// Gives a file a second name. Never replaces a file (link(2)).
    ///
    /// # Errors
    /// `AlreadyExists`; `Unsupported` or `PermissionDenied` on file systems without hard links.
    fn link(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced>;

    /// Makes a symlink that leads to `to`, as written. What it says is durable with its name.
    ///
    /// # Errors
    /// `AlreadyExists`; `Unsupported` on systems where a program may not simply make one.
    fn symlink(&self, to: &Path, path: &RelativePath) -> io::Result<Unsynced>;

    /// Whether a program may simply make symlinks.
    fn has_symlinks(&self) -> bool;

    /// Whether files have permission bits that can be set.
    fn has_modes(&self) -> bool {
        true
    }

    /// Removes a name of a file or symlink.
    ///
    /// # Errors
    /// `NotFound`, or any other error of the system.
    fn remove_file(&self, path: &RelativePath) -> io::Result<Unsynced>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotFound`, or any other error of the system.
    fn remove_dir(&self, path: &RelativePath) -> io::Result<Unsynced>;

    /// Opens a file that another process wrote, and may not have synced. Returns its debt.
    ///
    /// # Errors
    /// `NotFound`, or any other error of the system.
    fn inherit(&self, path: &RelativePath) -> io::Result<Unsynced>;

    /// Waits until the whole wave is on disk, with many syncs in flight at once. Afterwards no power
    /// loss can undo any of it (fsync(2)). Promises no order among the files and directories: a power
    /// loss during the call can leave any of them synced. A failed sync is never tried again.
    ///
    /// # Errors
    /// [`SyncError`] for the first failure. Every member has been attempted once.
    fn sync(&self, wave: Wave, strategy: SyncStrategy) -> Result<Durable, SyncError>;

    /// Tries to lock the existing file at `path`. The holder never removes a shared lock file. Every call
    /// opens the file anew, so two threads of one process exclude each other too (flock(2)). After
    /// locking, checks that `path` still leads to the locked file, and tries again if it does not.
    /// `None` means that another holds the lock. The root itself can be locked too if the system can
    /// lock directories.
    ///
    /// # Errors
    /// `NotFound`, or any other error of the system; `Unsupported` on file systems without locks, or if
    /// directories cannot be locked.
    fn try_lock(&self, path: &RelativePath, kind: LockKind) -> io::Result<Option<Box<dyn Lock>>>;

    /// Whether a file can be written through one handle while another one has it locked. Not on Windows
    /// (LockFileEx, Microsoft Learn).
    fn may_lock_written(&self) -> bool {
        true
    }

    /// Drops all cached directory handles, so that paths are looked up anew.
    fn forget_directories(&self);

    /// Holds the directory to which `directory` leads now, whatever happens to its name.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, or any other error of the system.
    fn hold(&self, directory: &RelativePath) -> io::Result<Arc<dyn HeldDirectory>>;

    /// How many files one transaction may keep open at once.
    fn files_open_max(&self) -> usize;

    /// The wall clock, for people to read. No decision depends on it.
    fn now(&self) -> SystemTime;

    /// A clock that never runs backwards, for time-outs.
    fn elapsed(&self) -> Duration;

    /// A name that was never used before and will never be used again.
    fn unique(&self) -> Uuid;

    /// Waits before another try.
    fn wait(&self, duration: Duration);

    /// An id of the time since the machine was started: what is visible outlives a process, but not this
    /// time. `None` if the system does not tell.
    fn boot(&self) -> Option<Uuid> {
        None
    }

    /// The id of this process. It differs in a child after `fork`.
    fn process(&self) -> u32;
}
