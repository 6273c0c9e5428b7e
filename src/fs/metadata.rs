//! What a system says about its files: plain data.

use std::ffi::OsString;
use std::time::SystemTime;

/// The set-user-ID and set-group-ID bits of a mode (chmod(2)).
pub(crate) const SET_ID: u32 = 0o6000;

/// The permission bits of a directory that has not got its own yet. Its owner can open it, to give it these.
/// Nobody can use it, and nobody gives a directory this mode for any other reason.
pub(crate) const UNFINISHED: u32 = 0o400;

/// What the system says about a path, without following it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// File, directory, symlink or something else.
    pub kind: Kind,
    /// Length in bytes.
    pub length: u64,
    /// Time of the last change of content. Any program can set it.
    pub modified: SystemTime,
    /// Time of the last change of the file in any respect, on most systems including its names
    /// (`st_ctime`). No program can set it. `None` if the system does not tell.
    pub changed: Option<SystemTime>,
    /// Permission bits (`st_mode & 0o7777`); on Windows 0o777 for directories, 0o444 for read-only
    /// files, else 0o666.
    pub mode: u32,
    /// User and group that own it; (0, 0) on systems without owners.
    pub owner: (u32, u32),
    /// Tells files apart as long as both exist. A hint only: it is reused after removal, and unstable
    /// on some network and overlay mounts. `None` on systems that have no such thing.
    pub identity: Option<Identity>,
    /// How many names it has; 1 where that is unknown.
    pub links: u64,
}

/// Device and inode number, or what the system has instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The device or volume.
    pub device: u64,
    /// The inode or file index.
    pub inode: u64,
}

/// What a name stands for.
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
    /// What it stands for.
    pub kind: Kind,
}
