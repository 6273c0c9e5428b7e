//! Windows: calls by path, since the standard library has no calls relative to
//! a handle.
//!
//! Before a path is used, each of its parents is checked not to be a symlink or
//! junction. Checked directories are cached until the cache is dropped. Unlike
//! on Unix, a race can slip in between the check and the use. A rename or
//! removal that fails because another program has the file open is tried again
//! for a while.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::fs::{
    CONTROL_DIRECTORY, Copied, DirectoryEntry, HeldDirectory, Identity, Kind, Metadata, NewFile,
};
use crate::path::RelativePath;

/// Lets a directory be opened as a file (CreateFileW, Microsoft Learn).
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
/// Opens a symlink itself.
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
/// Enough to ask what a file or directory is.
const FILE_READ_ATTRIBUTES: u32 = 0x80;
/// "Access is denied", "sharing violation", "lock violation": another program has the file open, often
/// a virus scanner or an indexer, and only for a moment.
const HELD_BY_OTHERS: [i32; 3] = [5, 32, 33];
const ERROR_SHARING_VIOLATION: i32 = 32;
/// What others may do with an open file (CreateFileW, Microsoft Learn).
const FILE_SHARE_READ: u32 = 1;
const FILE_SHARE_DELETE: u32 = 4;
/// The pauses double from 1 ms and add up to 1 s.
const TRIES_MAX: u32 = 10;

/// How many files one transaction may have open: far below the C runtime's limit of 8192, since others
/// use files too.
const FILES_OPEN_MAX: usize = 512;

/// Paths below one root.
#[derive(Debug)]
pub(super) struct Directories {
    root: PathBuf,
    control: Option<PathBuf>,
    checked: Mutex<HashSet<RelativePath>>,
}

/// A directory's path. An open handle would prevent others from renaming the directory.
#[derive(Debug)]
pub(super) struct Held(PathBuf);

impl HeldDirectory for Held {
    fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        let path = self.0.join(name);
        again_while_held(|| std::fs::remove_file(&path))
    }
}

impl Directories {
    pub(super) fn open(root: &Path, control: Option<&Path>) -> io::Result<Self> {
        if !std::fs::metadata(root)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let control = control.map(Path::to_path_buf);
        Ok(Self { root: root.to_path_buf(), control, checked: Mutex::default() })
    }

    pub(super) fn forget(&self) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn hold(&self, directory: &RelativePath) -> io::Result<Arc<Held>> {
        self.check(directory)?;
        Ok(Arc::new(Held(self.full(directory))))
    }

    pub(super) fn leads_to_root(&self, path: &Path) -> io::Result<bool> {
        Ok(canonical(path)? == self.root)
    }

    /// On Windows a junction counts as a symlink, and nothing else is mounted in a directory.
    pub(super) fn is_mount_point(&self, _path: &RelativePath) -> io::Result<bool> {
        Ok(false)
    }

    /// The full path, after checking that every parent is a plain directory.
    fn at(&self, path: &RelativePath) -> io::Result<PathBuf> {
        self.check(&path.parent())?;
        Ok(self.full(path))
    }

    fn full(&self, path: &RelativePath) -> PathBuf {
        match (&self.control, path.as_path().strip_prefix(CONTROL_DIRECTORY)) {
            (Some(control), Ok(rest)) => control.components().chain(rest.components()).collect(),
            _ => self.root.components().chain(path.as_path().components()).collect(),
        }
    }

    fn check(&self, directory: &RelativePath) -> io::Result<()> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        for parent in directory.chain() {
            if checked.contains(&parent) {
                continue;
            }
            if std::fs::symlink_metadata(self.full(&parent))?.is_dir() {
                checked.insert(parent);
            } else {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        Ok(())
    }

    pub(super) fn metadata(&self, path: &RelativePath) -> io::Result<Metadata> {
        Ok(from_std(&std::fs::symlink_metadata(self.at(path)?)?))
    }

    pub(super) fn list(&self, directory: &RelativePath) -> io::Result<Vec<DirectoryEntry>> {
        self.check(directory)?;
        std::fs::read_dir(self.full(directory))?
            .map(|entry| {
                let entry = entry?;
                Ok(DirectoryEntry { name: entry.file_name(), kind: kind(entry.file_type()?) })
            })
            .collect()
    }

    pub(super) fn read_link(&self, path: &RelativePath) -> io::Result<PathBuf> {
        std::fs::read_link(self.at(path)?)
    }

    pub(super) fn open_to_read(&self, path: &RelativePath) -> io::Result<File> {
        let path = self.at(path)?;
        again_while_held(|| {
            if std::fs::symlink_metadata(&path)?.is_file() {
                File::open(&path)
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
            }
        })
    }

    /// `FlushFileBuffers` needs a handle that may write.
    pub(super) fn open_to_sync(&self, path: &RelativePath) -> io::Result<File> {
        let path = self.at(path)?;
        again_while_held(|| OpenOptions::new().read(true).write(true).open(&path))
    }

    pub(super) fn open_to_write(&self, path: &RelativePath) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.at(path)?)
    }

    /// While it is open, others can read, rename and remove it, and not write (CreateFileW, Microsoft Learn).
    pub(super) fn open_to_append(&self, path: &RelativePath, access: NewFile) -> io::Result<File> {
        let path = self.at(path)?;
        let shared = FILE_SHARE_READ | FILE_SHARE_DELETE;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).share_mode(shared);
        // Under a name that nobody else knows, only a scanner can have it open.
        let opened = match access {
            NewFile::Ordinary => options.open(path),
            _ => again_while_held(|| options.open(&path)),
        };
        opened.map_err(|error| match error.raw_os_error() {
            Some(ERROR_SHARING_VIOLATION) => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }

    pub(super) fn create_new(&self, path: &RelativePath, _mode: u32) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.at(path)?)
    }

    /// On Windows only the access control list of its directory hides a file.
    pub(super) fn new_file_mode(&self, _directory: &RelativePath) -> io::Result<Option<u32>> {
        Ok(None)
    }

    /// Windows tells only when a file is made.
    pub(super) fn may_create_in(&self, _directory: &RelativePath) -> io::Result<()> {
        Ok(())
    }

    /// The standard library tells no file index. NTFS uses one again only with another sequence number, so
    /// it needs no time of birth beside it. (That of two directories can be the same: the clock ticks every
    /// few milliseconds.)
    pub(super) fn identity(&self, path: &RelativePath) -> io::Result<Identity> {
        let mut options = OpenOptions::new();
        options.access_mode(FILE_READ_ATTRIBUTES);
        options.custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT);
        let found = winapi_util::file::information(options.open(self.at(path)?)?)?;
        Ok(Identity { device: found.volume_serial_number(), inode: found.file_index() })
    }

    /// Windows has no permission bits, and a read-only file is never replaced.
    pub(super) fn copy_permissions(
        &self,
        _file: &File,
        _model: &RelativePath,
        _like: &Metadata,
    ) -> io::Result<Copied> {
        Ok(Copied::default())
    }

    pub(super) fn open_to_lock(&self, path: &RelativePath) -> io::Result<File> {
        if path.is_root() {
            // Windows locks only files (LockFileEx, Microsoft Learn).
            return Err(io::ErrorKind::Unsupported.into());
        }
        let full = self.at(path)?;
        match again_while_held(|| OpenOptions::new().read(true).write(true).open(&full)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                File::open(&full).map_err(|_| error)
            }
            result => result,
        }
    }

    /// Whether `path` still leads to some file. On Windows an open file keeps its name until it is
    /// closed, or is marked as removed, and then it cannot be opened.
    pub(super) fn is_at(&self, _file: &File, path: &RelativePath) -> io::Result<bool> {
        self.metadata(path).map(|_| true)
    }

    pub(super) fn may_write(&self, _path: &RelativePath, known: &Metadata) -> io::Result<()> {
        if known.mode & 0o200 == 0 { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    /// Access control lists are not part of a file's mode here. Files inherit those of their directory.
    pub(super) fn has_access_list(&self, _path: &RelativePath) -> io::Result<bool> {
        Ok(false)
    }

    /// The only such attribute is the one that `may_write` checks.
    pub(super) fn may_rename_over(&self, _path: &RelativePath) -> io::Result<()> {
        Ok(())
    }

    /// Only a file's own read-only attribute can prevent its removal, and `may_write` checks that.
    pub(super) fn may_remove(&self, _path: &RelativePath) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn create_dir(&self, path: &RelativePath) -> io::Result<()> {
        std::fs::create_dir(self.at(path)?)
    }

    /// Rights are inherited from the directory above.
    pub(super) fn create_private_dir(&self, path: &RelativePath) -> io::Result<()> {
        self.create_dir(path)
    }

    pub(super) fn create_own(&self, path: &RelativePath) -> io::Result<File> {
        self.create_new(path, 0o600)
    }

    /// `std::fs::rename` first asks for POSIX semantics (FileRenameInfoEx), which replace a target even
    /// while others have it open.
    pub(super) fn rename(&self, from: &RelativePath, to: &RelativePath) -> io::Result<()> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        again_while_held(|| std::fs::rename(&from, &to))
    }

    pub(super) fn link(&self, from: &RelativePath, to: &RelativePath) -> io::Result<()> {
        std::fs::hard_link(self.at(from)?, self.at(to)?)
    }

    /// A link there leads to a file or to a directory, and needs a privilege or developer mode.
    pub(super) fn symlink(&self, _to: &Path, _path: &RelativePath) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn remove_file(&self, path: &RelativePath) -> io::Result<()> {
        let path = self.at(path)?;
        again_while_held(|| std::fs::remove_file(&path))
    }

    pub(super) fn remove_dir(&self, path: &RelativePath) -> io::Result<()> {
        let path = self.at(path)?;
        match std::fs::remove_dir(&path) {
            Err(error) if error.raw_os_error() == Some(145) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            result => result,
        }
    }

    /// Checks that the directory is no link to another place.
    pub(super) fn handle_to_sync(&self, directory: &RelativePath) -> io::Result<()> {
        self.check(directory)
    }

    /// No documented call makes a directory's names durable. Flushing its handle works on NTFS where it
    /// is allowed.
    pub(super) fn sync_directory(&self, directory: &RelativePath, _handle: &()) -> io::Result<()> {
        sync_path(&self.full(directory))
    }
}

/// Tries again, with pauses that double, while another program has the file open.
fn again_while_held<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut pause = Duration::from_millis(1);
    for _ in 0..TRIES_MAX {
        match work() {
            Err(error) if error.raw_os_error().is_some_and(|code| HELD_BY_OTHERS.contains(&code)) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            result => return result,
        }
    }
    work()
}

fn kind(file_type: std::fs::FileType) -> Kind {
    if file_type.is_symlink() {
        Kind::Symlink
    } else if file_type.is_dir() {
        Kind::Directory
    } else {
        Kind::File
    }
}

fn from_std(metadata: &std::fs::Metadata) -> Metadata {
    Metadata {
        kind: kind(metadata.file_type()),
        length: metadata.len(),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        // The standard library does not tell this time.
        changed: None,
        mode: match (metadata.permissions().readonly(), metadata.is_dir()) {
            (_, true) => 0o777,
            (true, false) => 0o444,
            (false, false) => 0o666,
        },
        owner: (0, 0),
        identity: None,
        links: 1,
    }
}

pub(super) fn file_metadata(file: &File) -> io::Result<Metadata> {
    Ok(from_std(&file.metadata()?))
}

/// Ends writing. Setting the time stamp explicitly stops the system from changing it when the handle is
/// closed (SetFileTime, Microsoft Learn).
pub(super) fn finish(file: &File, modified: Option<SystemTime>) -> io::Result<Metadata> {
    file.set_modified(modified.unwrap_or_else(SystemTime::now))?;
    file_metadata(file)
}

/// Windows has no permission bits for a new file.
pub(super) fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// The standard library has no call for it.
pub(super) fn share_bytes(_source: &File, _file: &File) -> io::Result<bool> {
    Ok(false)
}

/// Windows has no such hint. The sync starts the write-back.
pub(super) fn start_write_back(_file: &File, _offset: u64, _length: u64) {}

/// The path with every symlink resolved, in the form that people use. `canonicalize` returns
/// `\\?\C:\...`, which cannot be compared with the callers' paths.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let resolved = path.canonicalize()?;
    match resolved.to_str().and_then(|text| text.strip_prefix(r"\\?\")) {
        Some(plain) if plain.as_bytes().get(1) == Some(&b':') => Ok(plain.into()),
        _ => Ok(resolved),
    }
}

/// Syncs a directory by its path. A refusal is reported as unsupported, not as a failure.
pub(super) fn sync_path(directory: &Path) -> io::Result<()> {
    let opened = OpenOptions::new().write(true).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(directory);
    match opened.and_then(|file| file.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(io::ErrorKind::Unsupported.into())
        }
        result => result,
    }
}

pub(super) fn files_open_max() -> usize {
    FILES_OPEN_MAX
}

/// The standard library does not tell.
pub(super) fn boot() -> Option<uuid::Uuid> {
    None
}
