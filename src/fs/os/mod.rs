//! The real file system.
//!
//! The portable part is here: locks, and waves of syncs in flight together.
//! Whatever differs between systems is in one module for each, with functions
//! of the same names, and nowhere else in the crate. Knows no transactions.
#![allow(clippy::disallowed_methods, reason = "this is the one place that calls the system")]

mod growing;
mod held;
#[cfg(target_os = "linux")]
mod linux;
pub(crate) mod outside;
#[cfg(unix)]
mod own;
#[cfg(unix)]
mod permissions;
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
mod renaming;
#[cfg(unix)]
mod rights;
#[cfg(unix)]
mod room;
mod sync;
#[cfg(target_os = "linux")]
mod trees;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;
#[cfg(test)]
mod tests;
mod writer;
mod written;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::fs::time::RealTime;
use crate::fs::{
    CONTROL_DIRECTORY, Copied, DirectoryEntry, Durable, FileSystem, GrowingFile, HeldDirectory, Kind, Lock,
    LockKind, Metadata, NewFile, ReadFile, SyncError, Unsynced, Wave, WriteFile,
};
use crate::options::SyncStrategy;
use crate::path::RelativePath;
use growing::Growing;
use held::{OsLock, is_contended};
use writer::Writer;
use written::Written;

/// How often a lock file may be replaced while we lock it before we give up.
const LOCK_TRIES_MAX: u32 = 100;

/// What to do about missing directories above the control directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parents {
    Make,
    Leave,
}

/// The real file system below one root.
#[derive(Debug)]
pub(crate) struct OsFileSystem {
    root: PathBuf,
    given: PathBuf,
    control: Option<PathBuf>,
    directories: Arc<system::Directories>,
    pace: sync::Pace,
    time: RealTime,
}

impl OsFileSystem {
    /// Opens an existing directory as a root.
    pub(crate) fn open(root: &Path, control: Option<&Path>, parents: Parents) -> io::Result<Self> {
        let given = std::path::absolute(root)?;
        let root = system::canonical(root)?;
        let control = control.map(|path| control_place(&root, path)).transpose()?;
        // The default place need not be given.
        let control = control.filter(|path| *path != root.join(CONTROL_DIRECTORY));
        let directories = Arc::new(system::Directories::open(&root, control.as_deref())?);
        if let Some(control) = &control {
            // The root may have a second name there: in another case, or through another mount.
            if root.starts_with(control) || directories.leads_to_root(control).is_ok_and(|is_root| is_root) {
                return refused("the control directory can neither be the root nor hold it");
            }
            if let (Some(parent), Parents::Make) = (control.parent(), parents) {
                Self::create_root(parent)?;
            }
        }
        Ok(Self { root, given, control, directories, pace: sync::Pace::default(), time: RealTime::start() })
    }

    /// Renames a file of any directory (rename(2)).
    pub(crate) fn rename_anywhere(from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    /// Makes a directory outside of any root, with its parents, and makes it durable.
    pub(crate) fn create_root(root: &Path) -> io::Result<()> {
        let root = std::path::absolute(root)?;
        if root.is_dir() {
            return Ok(());
        }
        let mut missing: Vec<&Path> = root.ancestors().take_while(|path| !path.exists()).collect();
        std::fs::create_dir_all(&root)?;
        while let Some(path) = missing.pop() {
            if let Some(parent) = path.parent() {
                // Lost without this sync: the directory's own name, and everything that is ever saved
                // in it.
                let _durable = sync::directory(|| system::sync_path(parent))?;
            }
        }
        Ok(())
    }

    fn writer(&self, file: File, path: &RelativePath) -> Writer {
        Writer::new(file, path.clone(), Arc::clone(&self.directories))
    }

    fn lock(&self, path: &RelativePath, kind: LockKind) -> io::Result<Option<Box<dyn Lock>>> {
        for _ in 0..LOCK_TRIES_MAX {
            let file = self.directories.open_to_lock(path)?;
            let tried = match kind {
                LockKind::Shared => fs2::FileExt::try_lock_shared(&file),
                LockKind::Exclusive => fs2::FileExt::try_lock_exclusive(&file),
            };
            match tried {
                Ok(()) => {}
                Err(error) if is_contended(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            // Locking a removed lock file would exclude nobody, since others lock the new one.
            match self.directories.is_at(&file, path) {
                Ok(true) => {
                    return Ok(Some(Box::new(OsLock::of(file))));
                }
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("the lock file was replaced again and again"))
    }
}

fn refused<T>(reason: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

/// The path of the control directory, with every symlink above it resolved. Makes nothing. A relative
/// path starts at the root and not at the working directory, so that every program finds the same one.
fn control_place(root: &Path, given: &Path) -> io::Result<PathBuf> {
    let path = root.join(given);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return refused("the path of the control directory must end with its name");
    };
    let existing = parent.ancestors().find(|path| path.exists()).unwrap_or(root);
    let missing = parent.strip_prefix(existing).unwrap_or(Path::new(""));
    if missing.components().any(|component| component == Component::ParentDir) {
        return refused("the path of the control directory climbs out of a directory that does not exist");
    }
    Ok(system::canonical(existing)?.join(missing).join(name))
}

/// What the system says about an open file.
pub(crate) fn metadata(file: &File) -> io::Result<Metadata> {
    system::file_metadata(file)
}

/// Accepts only a regular file.
fn regular(file: File) -> io::Result<File> {
    match system::file_metadata(&file)?.kind {
        Kind::File => Ok(file),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// A file that is being read.
#[derive(Debug)]
struct Reader(File);

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for Reader {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl ReadFile for Reader {
    fn metadata(&self) -> io::Result<Metadata> {
        system::file_metadata(&self.0)
    }

    fn system_file(&self) -> Option<&File> {
        Some(&self.0)
    }
}

impl FileSystem for OsFileSystem {
    fn metadata(&self, path: &RelativePath) -> io::Result<Metadata> {
        self.directories.metadata(path)
    }

    fn list(&self, directory: &RelativePath) -> io::Result<Vec<DirectoryEntry>> {
        self.directories.list(directory)
    }

    fn read_link(&self, path: &RelativePath) -> io::Result<PathBuf> {
        self.directories.read_link(path)
    }

    fn root_path(&self) -> PathBuf {
        self.root.clone()
    }

    fn given_root(&self) -> PathBuf {
        self.given.clone()
    }

    fn has_control_elsewhere(&self) -> bool {
        self.control.is_some()
    }

    fn control_in_root(&self) -> Option<RelativePath> {
        let inside = self.control.as_ref()?.strip_prefix(&self.root).ok()?;
        RelativePath::new(inside).ok()
    }

    fn leads_to_root(&self, path: &Path) -> io::Result<bool> {
        self.directories.leads_to_root(path)
    }

    fn enclosing_root(&self) -> io::Result<Option<PathBuf>> {
        for directory in self.root.ancestors().skip(1) {
            match std::fs::symlink_metadata(directory.join(CONTROL_DIRECTORY)) {
                Ok(found) if found.is_dir() => return Ok(Some(directory.to_path_buf())),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }

    fn is_mount_point(&self, path: &RelativePath) -> io::Result<bool> {
        self.directories.is_mount_point(path)
    }

    fn full_path(&self, path: &RelativePath) -> PathBuf {
        match (&self.control, path.as_path().strip_prefix(CONTROL_DIRECTORY)) {
            (Some(control), Ok(rest)) if rest.as_os_str().is_empty() => control.clone(),
            (Some(control), Ok(rest)) => control.join(rest),
            _ => self.root.join(path.as_path()),
        }
    }

    fn open(&self, path: &RelativePath) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(Reader(regular(self.directories.open_to_read(path)?)?)))
    }

    fn may_write(&self, path: &RelativePath, known: &Metadata) -> io::Result<()> {
        self.directories.may_write(path, known)
    }

    fn has_access_list(&self, path: &RelativePath) -> io::Result<bool> {
        self.directories.has_access_list(path)
    }

    fn may_rename_over(&self, path: &RelativePath) -> io::Result<()> {
        self.directories.may_rename_over(path)
    }

    fn may_remove(&self, path: &RelativePath) -> io::Result<()> {
        self.directories.may_remove(path)
    }

    fn create_new(&self, path: &RelativePath, access: NewFile) -> io::Result<(Box<dyn WriteFile>, Unsynced)> {
        let hidden_mode = match access {
            NewFile::Hidden => self.directories.new_file_mode(&path.parent())?,
            NewFile::Private | NewFile::Ordinary | NewFile::Own => None,
        };
        let mode = if access == NewFile::Private || hidden_mode.is_some() { 0o600 } else { 0o666 };
        let file = match access {
            NewFile::Own => self.directories.create_own(path)?,
            _ => self.directories.create_new(path, mode)?,
        };
        let writer = self.writer(file, path).hidden(hidden_mode);
        Ok((Box::new(writer), Unsynced::directory(path.parent())))
    }

    fn may_create_in(&self, directory: &RelativePath) -> io::Result<()> {
        self.directories.may_create_in(directory)
    }

    fn copy_permissions(
        &self,
        model: &RelativePath,
        like: &Metadata,
        path: &RelativePath,
    ) -> io::Result<(Copied, Unsynced)> {
        let file = self.directories.open_to_sync(path)?;
        let copied = self.directories.copy_permissions(&file, model, like)?;
        Ok((copied, Unsynced::file(Box::new(Written::new(file, path.clone(), 0..0)))))
    }

    fn overwrite(&self, path: &RelativePath) -> io::Result<Box<dyn WriteFile>> {
        let file = self.directories.open_to_write(path)?;
        file.set_len(0)?;
        Ok(Box::new(self.writer(file, path)))
    }

    fn open_to_append(
        &self,
        path: &RelativePath,
        access: NewFile,
    ) -> io::Result<(Box<dyn GrowingFile>, Unsynced)> {
        for _ in 0..LOCK_TRIES_MAX {
            let file = self.directories.open_to_append(path, access)?;
            if !file.metadata()?.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // Another may have renamed it since, and made a new one.
            match self.directories.is_at(&file, path) {
                Ok(true) => {
                    let growing = Growing::new(file, path.clone(), Arc::clone(&self.directories));
                    return Ok((Box::new(growing), Unsynced::directory(path.parent())));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Err(io::Error::other("the file is replaced again and again"))
    }

    fn create_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.directories.create_dir(path)?;
        Ok(Unsynced::directory(path.parent()))
    }

    #[cfg(unix)]
    fn create_unfinished_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.directories.create_unfinished_dir(path)?;
        Ok(Unsynced::directory(path.parent()))
    }

    #[cfg(unix)]
    fn finish_dir(&self, path: &RelativePath, mode: u32, group: Option<u32>) -> io::Result<Unsynced> {
        self.directories.finish_dir(path, mode, group)?;
        Ok(Unsynced::directory(path.clone()))
    }

    fn create_private_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.directories.create_private_dir(path)?;
        Ok(Unsynced::directory(path.parent()))
    }

    fn rename(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        self.directories.rename(from, to)?;
        Ok(Unsynced::directory(from.parent()).and(Unsynced::directory(to.parent())))
    }

    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    fn rename_new(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        self.directories.rename_new(from, to)?;
        Ok(Unsynced::directory(from.parent()).and(Unsynced::directory(to.parent())))
    }

    #[cfg(target_os = "linux")]
    fn exchange(&self, one: &RelativePath, other: &RelativePath) -> io::Result<Unsynced> {
        let exchanged = self.directories.exchange(one, other);
        self.directories.forget();
        exchanged.map(|()| Unsynced::directory(one.parent()).and(Unsynced::directory(other.parent())))
    }

    #[cfg(target_os = "linux")]
    fn born(&self, path: &RelativePath) -> io::Result<Option<SystemTime>> {
        self.directories.born(path)
    }

    #[cfg(windows)]
    fn identity(&self, path: &RelativePath) -> io::Result<Option<crate::fs::Identity>> {
        self.directories.identity(path).map(Some)
    }

    #[cfg(not(any(target_os = "linux", windows)))]
    fn born(&self, path: &RelativePath) -> io::Result<Option<SystemTime>> {
        Ok(std::fs::symlink_metadata(self.full_path(path))?.created().ok())
    }

    #[cfg(target_os = "linux")]
    fn may_move_directory(&self, path: &RelativePath) -> io::Result<()> {
        self.directories.may_move_directory(path)
    }

    #[cfg(target_os = "linux")]
    fn has_mounts_below(&self, path: &RelativePath) -> io::Result<bool> {
        trees::has_mounts_below(&self.full_path(path))
    }

    fn link(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        self.directories.link(from, to)?;
        Ok(Unsynced::directory(to.parent()))
    }

    /// Linux syncs what a new symlink says with its directory (xfstests generic/348, after btrfs did not).
    fn symlink(&self, to: &Path, path: &RelativePath) -> io::Result<Unsynced> {
        self.directories.symlink(to, path)?;
        Ok(Unsynced::directory(path.parent()))
    }

    #[cfg(unix)]
    fn free_bytes(&self, directory: &RelativePath) -> io::Result<Option<u64>> {
        self.directories.free_bytes(directory)
    }

    fn has_modes(&self) -> bool {
        cfg!(unix)
    }

    fn has_symlinks(&self) -> bool {
        cfg!(unix)
    }

    fn remove_file(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.directories.remove_file(path)?;
        Ok(Unsynced::directory(path.parent()))
    }

    fn remove_dir(&self, path: &RelativePath) -> io::Result<Unsynced> {
        self.directories.remove_dir(path)?;
        self.directories.forget();
        Ok(Unsynced::directory(path.parent()))
    }

    fn inherit(&self, path: &RelativePath) -> io::Result<Unsynced> {
        let file = regular(self.directories.open_to_sync(path)?)?;
        Ok(Unsynced::file(Box::new(Written::new(file, path.clone(), 0..0))))
    }

    fn sync(&self, wave: Wave, strategy: SyncStrategy) -> Result<Durable, SyncError> {
        sync::wave(&self.directories, &self.pace, wave, strategy)
    }

    fn try_lock(&self, path: &RelativePath, kind: LockKind) -> io::Result<Option<Box<dyn Lock>>> {
        match self.lock(path, kind) {
            // Systems and network file systems differ in the error with which they refuse to lock a
            // directory.
            Err(error) if path.is_root() && error.kind() != io::ErrorKind::PermissionDenied => {
                Err(io::Error::new(io::ErrorKind::Unsupported, error))
            }
            result => result,
        }
    }

    fn may_lock_written(&self) -> bool {
        cfg!(not(windows))
    }

    fn forget_directories(&self) {
        self.directories.forget();
    }

    fn hold(&self, directory: &RelativePath) -> io::Result<Arc<dyn HeldDirectory>> {
        Ok(self.directories.hold(directory)?)
    }

    fn files_open_max(&self) -> usize {
        system::files_open_max()
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        self.time.elapsed()
    }

    fn unique(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn wait(&self, duration: Duration) {
        RealTime::wait(duration);
    }

    fn boot(&self) -> Option<Uuid> {
        system::boot()
    }

    fn process(&self) -> u32 {
        std::process::id()
    }
}
