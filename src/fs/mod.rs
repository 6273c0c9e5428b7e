//! What the protocol may ask of the world.
//!
//! [`FileSystem`] is everything cosave needs of a file system, a clock, a source
//! of unique names and a way to wait; each call says what it promises about
//! atomicity and durability, and where that is written. The protocol is written
//! once against this trait. `os` is the real thing; `sim` (feature `sim`) is a
//! disk in memory that loses power. Nothing here knows of transactions.
//!
//! Paths are [`RelativePath`]s below the root. No call follows a symlink, in
//! the last name or in a parent: a symlink where a directory should be is an
//! error (`NotADirectory`). What lies under the control directory's name may be
//! mounted elsewhere by the implementation. Whatever is made there takes owner,
//! group and rights from the root, as far as the system allows: whoever may
//! change the root may change it too, whoever made it, and nobody else may read it.

pub(crate) mod os;
#[cfg(feature = "sim")]
pub mod sim;
mod wave;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::options::SyncStrategy;
use crate::path::RelativePath;
pub use wave::{Barrier, Durable, OpenFile, SyncError, Unsynced, Wave};

/// The name of the control directory in the root.
pub(crate) const CONTROL_DIRECTORY: &str = ".cosave";

/// What is known about a path without following it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// File, directory, symlink or something else.
    pub kind: Kind,
    /// Length in bytes.
    pub length: u64,
    /// Time of the last change of content.
    pub modified: SystemTime,
    /// Permission bits (`st_mode & 0o7777`); on Windows 0o444 for read-only files, else 0o666.
    pub mode: u32,
    /// User and group that own it; (0, 0) where there is no such thing.
    pub owner: (u32, u32),
    /// Tells files apart, as long as both exist. A hint: reused after removal, unstable on some
    /// network and overlay mounts. `None` where the system has none.
    pub identity: Option<Identity>,
    /// Number of names; 1 where unknown.
    pub links: u64,
}

/// Device and inode number, or what the system has in their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The device or volume.
    pub device: u64,
    /// The inode or file index.
    pub inode: u64,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (on Windows also a junction).
    Symlink,
    /// A device, socket or pipe.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name.
    pub name: OsString,
    /// What it leads to.
    pub kind: Kind,
}

/// Who may read a new file while it is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewFile {
    /// Nobody else (mode 0600): its final mode comes from the file it will replace.
    Private,
    /// What `std::fs::File::create` would give it (0666 less the umask).
    Ordinary,
}

/// An open file that is being read.
pub trait ReadFile: io::Read + io::Seek + Send + Sync + fmt::Debug {
    /// The open file's metadata.
    ///
    /// # Errors
    /// What the system answers.
    fn metadata(&self) -> io::Result<Metadata>;
}

/// A new file that is being written.
pub trait WriteFile: io::Write + Send + fmt::Debug {
    /// Gives the file the permissions of `like` (and its owner, as far as allowed).
    ///
    /// # Errors
    /// What the system answers for the mode; an owner that may not be given is left.
    fn copy_permissions(&mut self, like: &Metadata) -> io::Result<()>;
    /// Ends writing: asks the system to start write-back (a hint, never durability), and returns
    /// the final metadata with the debt, which keeps the handle open until it is synced.
    ///
    /// # Errors
    /// What the system answers.
    fn finish(self: Box<Self>) -> io::Result<(Metadata, Unsynced)>;
}

/// A lock that is held; dropping it lets go. Dies with its process.
pub trait Lock: Send + Sync + fmt::Debug {}

/// How a lock is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Many at once.
    Shared,
    /// One alone.
    Exclusive,
}

/// Everything the protocol needs of the world.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// What `path` is (`lstat`). The root itself is `RelativePath::root()`.
    ///
    /// # Errors
    /// `NotFound` where there is nothing; `NotADirectory` where a parent is a file or a symlink.
    fn metadata(&self, path: &RelativePath) -> io::Result<Metadata>;

    /// The names in a directory, unsorted, without `.` and `..`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, or what the system answers.
    fn list(&self, directory: &RelativePath) -> io::Result<Vec<DirectoryEntry>>;

    /// Where a symlink leads, as written in it.
    ///
    /// # Errors
    /// What the system answers.
    fn read_link(&self, path: &RelativePath) -> io::Result<PathBuf>;

    /// The root's own path with every symlink resolved, against which absolute links are compared.
    fn root_path(&self) -> PathBuf;

    /// The root's own path as it was given, made absolute.
    fn given_root(&self) -> PathBuf {
        self.root_path()
    }

    /// Where `path` lies, as a person would write it.
    fn full_path(&self, path: &RelativePath) -> PathBuf {
        self.root_path().join(path.as_path())
    }

    /// Opens a regular file for reading. Stays readable, unchanged, after the name is replaced.
    ///
    /// # Errors
    /// `NotFound`; anything but a regular file is an error.
    fn open(&self, path: &RelativePath) -> io::Result<Box<dyn ReadFile>>;

    /// Whether writing to the existing file would be allowed, as `std::fs::write` would find it.
    ///
    /// # Errors
    /// `PermissionDenied` or `ReadOnlyFilesystem` where it would not.
    fn may_write(&self, path: &RelativePath, known: &Metadata) -> io::Result<()>;

    /// Whether the name of the existing file could be removed: names may go from its directory, and
    /// it is no mount point.
    ///
    /// # Errors
    /// `PermissionDenied`, `ReadOnlyFilesystem` or `ResourceBusy` where it could not.
    fn may_remove(&self, path: &RelativePath) -> io::Result<()>;

    /// Makes a file that did not exist (`O_CREAT | O_EXCL`: open(2)). The returned debt is the
    /// *name's*; the bytes' debt comes from [`WriteFile::finish`].
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for the parent, or what the system answers.
    fn create_new(&self, path: &RelativePath, access: NewFile) -> io::Result<(Box<dyn WriteFile>, Unsynced)>;

    /// Opens an existing file to be overwritten in place, emptied. Only for targets that cannot be
    /// renamed over (a mount point), under the protection of a published manifest.
    ///
    /// # Errors
    /// What the system answers.
    fn overwrite(&self, path: &RelativePath) -> io::Result<Box<dyn WriteFile>>;

    /// Makes a directory, with the mode `std::fs::create_dir` gives it. Owes the parent's sync.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for the parent, or what the system answers.
    fn create_dir(&self, path: &RelativePath) -> io::Result<Unsynced>;

    /// Moves a name, replacing a file at `to`. Atomic for everybody who looks (rename(2)); durable
    /// only after the directories are synced. If both are one inode nothing happens (rename(2)).
    ///
    /// # Errors
    /// `NotFound`, `CrossesDevices`, `ResourceBusy` for a mount point, or what the system answers;
    /// then neither name has changed. Windows: sharing violations have been retried.
    fn rename(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced>;

    /// Gives a file a second name; never replaces (link(2)).
    ///
    /// # Errors
    /// `AlreadyExists`; `Unsupported` or `PermissionDenied` where there are no hard links.
    fn link(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced>;

    /// Removes a name of a file or symlink.
    ///
    /// # Errors
    /// `NotFound`, or what the system answers.
    fn remove_file(&self, path: &RelativePath) -> io::Result<Unsynced>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotFound`, or what the system answers.
    fn remove_dir(&self, path: &RelativePath) -> io::Result<Unsynced>;

    /// The debt of a file that somebody else wrote and may not have synced: opens it to be synced.
    ///
    /// # Errors
    /// `NotFound`, or what the system answers.
    fn inherit(&self, path: &RelativePath) -> io::Result<Unsynced>;

    /// Waits until everything in the wave is on disk: first every file, then every directory, as
    /// many at once as helps. Afterwards a power loss takes nothing of it (fsync(2)). No order
    /// among the members is promised. A failure is final; nothing is tried twice.
    ///
    /// # Errors
    /// [`SyncError`] for the first failure; every member has been attempted once.
    fn sync(&self, wave: Wave, strategy: SyncStrategy) -> Result<Durable, SyncError>;

    /// Tries to lock the file at `path`, made if absent and never removed by the holder while it is
    /// a shared lock file. Every call opens a description of its own, so that two threads of a
    /// process exclude each other too (flock(2)). After locking, checks that `path` still leads to
    /// the locked file, and tries anew if not. `None`: somebody else holds it.
    ///
    /// # Errors
    /// What the system answers; `Unsupported` where there are no locks.
    fn try_lock(&self, path: &RelativePath, kind: LockKind) -> io::Result<Option<Box<dyn Lock>>>;

    /// As [`try_lock`](Self::try_lock), exclusive, but never makes the file. `NotFound` when absent.
    ///
    /// # Errors
    /// `NotFound`, or what the system answers.
    fn try_lock_existing(&self, path: &RelativePath) -> io::Result<Option<Box<dyn Lock>>>;

    /// Forgets every directory handle it keeps: paths are looked up anew from here on.
    fn forget_directories(&self);

    /// How many files one transaction may keep open at once.
    fn files_open_max(&self) -> usize;

    /// The wall clock, for people to read. Nothing is decided by it.
    fn now(&self) -> SystemTime;

    /// A clock that only runs forward, for time-outs.
    fn elapsed(&self) -> Duration;

    /// A name that was never used and never will be.
    fn unique(&self) -> Uuid;

    /// Waits, before trying something again.
    fn wait(&self, duration: Duration);

    /// Which process this is; differs in a child after `fork`.
    fn process(&self) -> u32;
}
