//! One file, atomic and durable, with no root and no control directory.
//!
//! A single file needs no manifest, because a rename is atomic by itself
//! (rename(2)). There are two waits: for the bytes, then for the name. A crash
//! leaves the old file or the new one, and perhaps a temporary file beside it.
//! No store sweeps that temporary file, since nobody can tell whether its
//! writer still lives.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Operation, Result};
use crate::expect::Clash;
use crate::fs::os::{OsFileSystem, Parents};
use crate::fs::{Barrier, FileSystem, Kind, Metadata, NewFile, SyncError, Wave, WriteFile};
use crate::options::SyncStrategy;
use crate::path::{InvalidPath, RelativePath};
use crate::place::Place;
use crate::protocol::layout;
use crate::protocol::root::if_found;

/// How many bytes are buffered.
const BUFFER_BYTES: usize = 64 * 1024;

/// Replaces or creates one file, atomically and durably.
///
/// After a crash at any moment the file has its old content or `bytes`, whole. Once this returns `Ok`,
/// `bytes` survive a power loss. Other programs see the old file until the new one replaces it. Missing
/// parent directories are made, permissions are copied from the old file, and a symlink is followed.
///
/// # Errors
/// - [`Error::InvalidPath`] if the path is empty or a directory.
/// - [`Error::NotSynced`] if the last sync failed: after a power loss the file may have either content.
/// - [`Error::Io`] otherwise; the file has its old content.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("made/on/the/way/settings.json");
/// cosave::write(&path, b"{}")?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
    save(path.as_ref(), Existing::Replace, |file| file.write_all(bytes.as_ref()).map_err(Error::of_writer))
}

/// Like [`write()`], with a function that writes the content to a buffered writer. Returns what the
/// function returns.
///
/// # Errors
/// As for [`write()`], and the error that `fill` returns, as it is; the file then has its old content.
/// `fill` may have an error type of its own.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("list.txt");
/// use std::io::Write;
///
/// cosave::write_with(&path, |out| (1..=3).try_for_each(|n| writeln!(out, "{n}")))?;
/// assert_eq!(std::fs::read(&path)?, b"1\n2\n3\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_with<T, E: From<Error>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    save(path.as_ref(), Existing::Replace, |file| {
        let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, file);
        let value = fill(&mut buffered)?;
        buffered.flush().map_err(Error::of_writer)?;
        Ok(value)
    })
}

/// Like [`write()`], but never replaces a file. If several processes try at once, one of them wins.
///
/// # Errors
/// As for [`write()`], and [`Error::Conflict`] if the file exists.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("id");
/// cosave::create_new(&path, "1")?;
/// assert!(cosave::create_new(&path, "2").unwrap_err().is_conflict());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn create_new(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
    save(path.as_ref(), Existing::Refuse, |file| file.write_all(bytes.as_ref()).map_err(Error::of_writer))
}

/// Like [`write`](crate::write), on a file system of your choice. `path` is relative to its root.
///
/// # Errors
/// As for [`write`](crate::write).
#[cfg(feature = "sim")]
pub fn write_on(fs: &dyn FileSystem, path: &RelativePath, bytes: impl AsRef<[u8]>) -> Result<()> {
    save_on(fs, path, &fs.full_path(path), Existing::Replace, |file| {
        file.write_all(bytes.as_ref()).map_err(Error::of_writer)
    })
}

/// Like [`create_new`](crate::create_new), on a file system of your choice.
///
/// # Errors
/// As for [`create_new`](crate::create_new).
#[cfg(feature = "sim")]
pub fn create_new_on(fs: &dyn FileSystem, path: &RelativePath, bytes: impl AsRef<[u8]>) -> Result<()> {
    save_on(fs, path, &fs.full_path(path), Existing::Refuse, |file| {
        file.write_all(bytes.as_ref()).map_err(Error::of_writer)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Replace,
    Refuse,
}

/// Removes the temporary file when dropped, unless it has become the target.
struct Temporary<'a> {
    fs: &'a dyn FileSystem,
    path: Option<RelativePath>,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(Ok(debt)) = self.path.take().map(|path| self.fs.remove_file(&path)) {
            debt.waive("a temporary file that a power loss brings back harms nobody");
        }
    }
}

/// A file whose errors name its target.
struct Named<'a> {
    file: &'a mut dyn WriteFile,
    place: &'a Place,
}

impl Write for Named<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| Error::io(Operation::Stage, self.place.clone())(error).into())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| Error::io(Operation::Stage, self.place.clone())(error).into())
    }
}

fn save<T, E: From<Error>>(
    given: &Path,
    existing: Existing,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let (directory, target) = locate(given, existing)?;
    let open = OsFileSystem::open(&directory, None, Parents::Leave);
    let fs = open.map_err(Error::io(Operation::Open, &directory))?;
    save_on(&fs, &target, given, existing, fill)
}

/// Saves a single file, on any file system. Errors name the target and the `given` path.
fn save_on<T, E: From<Error>>(
    fs: &dyn FileSystem,
    target: &RelativePath,
    given: &Path,
    existing: Existing,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let place = &Place::from(fs.full_path(target)).given_as(given);
    let io = |operation| Error::io(operation, place.clone());
    let sync = |wave| fs.sync(wave, SyncStrategy::PerFile).map_err(|SyncError { source, .. }| source);
    let found = if_found(fs.metadata(target)).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => Error::invalid(place.clone(), InvalidPath::NotADirectory),
        _ => io(Operation::Look)(error),
    })?;
    may_replace(fs, target, place, found.as_ref(), existing)?;

    let mut wave = Wave::new(Barrier::SingleStaged);
    let mut names = Wave::new(Barrier::SingleRenamed);
    for directory in target.parent().chain() {
        names.add(fs.ensure_dir(&directory).map_err(io(Operation::Create))?);
    }
    let staged = layout::single(target, fs.unique());
    let access = if found.is_some() { NewFile::Private } else { NewFile::Ordinary };
    let (mut file, name) = fs.create_new(&staged, access).map_err(io(Operation::Stage))?;
    let mut temporary = Temporary { fs, path: Some(staged.clone()) };
    name.waive("the rename gives the file the name that must last");
    let value = fill(&mut Named { file: &mut *file, place })?;
    if let Some(found) = &found {
        file.copy_permissions(target, found).map_err(io(Operation::Stage))?;
    }
    let (_, content) = file.finish().map_err(io(Operation::Stage))?;
    wave.add(content);
    // Lost without this sync: the bytes behind a durable name. After a power loss ext4 and XFS then
    // show an empty file or zeros.
    let _durable = sync(wave).map_err(io(Operation::Sync))?;
    match existing {
        Existing::Replace => {
            names.add(fs.rename(&staged, target).map_err(io(Operation::Move))?);
            temporary.path = None;
        }
        // A link never replaces (link(2)), so if several processes try, one wins.
        Existing::Refuse => match fs.link(&staged, target) {
            Ok(debt) => names.add(debt),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(place).into()),
            Err(error) => return Err(io(Operation::Move)(error).into()),
        },
    }
    drop(temporary);
    // Lost without this sync: the new name, and with it the whole save.
    let not_synced = |source| Error::NotSynced { path: place.clone(), source: Arc::new(source) };
    let _durable = sync(names).map_err(not_synced)?;
    Ok(value)
}

fn may_replace(
    fs: &dyn FileSystem,
    target: &RelativePath,
    place: &Place,
    found: Option<&Metadata>,
    existing: Existing,
) -> Result<()> {
    match found {
        None => Ok(()),
        Some(_) if existing == Existing::Refuse => Err(exists(place)),
        Some(found) if found.kind == Kind::File => {
            fs.may_write(target, found).map_err(Error::io(Operation::Stage, place.clone()))
        }
        Some(found) if found.kind == Kind::Directory => {
            Err(Error::invalid(place.clone(), InvalidPath::Directory))
        }
        Some(_) => Err(Error::invalid(place.clone(), InvalidPath::Special)),
    }
}

fn exists(place: &Place) -> Error {
    Error::Conflict { path: place.clone(), found: Clash::Exists }
}

/// Splits a path, with every symlink followed, into the nearest existing directory and the target below
/// it.
fn locate(given: &Path, existing: Existing) -> Result<(PathBuf, RelativePath)> {
    let invalid = |reason| Error::invalid(given, reason);
    if given.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(invalid(InvalidPath::Nul));
    }
    let followed = match existing {
        Existing::Replace if given.is_symlink() => {
            given.canonicalize().map_err(Error::io(Operation::Look, given))?
        }
        _ => given.to_path_buf(),
    };
    let name = followed.file_name().ok_or_else(|| invalid(InvalidPath::Empty))?;
    let mut missing = PathBuf::from(name);
    let mut directory = followed.parent().unwrap_or(Path::new("")).to_path_buf();
    loop {
        let here = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
        if here.is_dir() {
            let target = RelativePath::new(&missing).map_err(invalid)?;
            return Ok((here.to_path_buf(), target));
        }
        let Some(name) = directory.file_name() else { return Err(invalid(InvalidPath::NotADirectory)) };
        missing = Path::new(name).join(&missing);
        directory.pop();
    }
}
