//! The writer of one file. A single file needs no manifest, because a rename is
//! atomic by itself (rename(2)).
//!
//! There are two waits: for the bytes, then for the name. A crash leaves the old
//! file or the new one, and perhaps the temporary file beside it. A writer has
//! that locked as long as it lives, so that a sweep can tell. No store sweeps it.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Operation, Reason, Result};
use crate::expect::Clash;
use crate::fs::os::{OsFileSystem, Parents};
use crate::fs::{Barrier, FileSystem, Kind, Lock, Metadata, NewFile, SyncError, Wave, WriteFile};
use crate::mutation::{Rule, keeps};
use crate::options::SyncStrategy;
use crate::path::{InvalidPath, RelativePath};
use crate::place::Place;
use crate::protocol::caller::Claim;
use crate::protocol::layout;
use crate::protocol::root::if_found;

/// Writes the next content of one file, which takes its place when it is committed.
///
/// Until then it has a temporary name in the same directory, and other programs see the old file. After a
/// crash at any moment the file has its old content or the new one, whole. If this is dropped, the
/// file stays as it was, and nothing is left. Not buffered: put it in a [`BufWriter`](std::io::BufWriter)
/// if you write in small pieces.
///
/// Permissions are copied from the old file, and missing parent directories are made. A symlink at the
/// path is followed. In a child after `fork` it is its parent's: whatever is asked of it is refused, and
/// dropping it does nothing.
///
/// # Examples
///
/// ```
/// use std::io::{Seek, SeekFrom, Write};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("table");
/// let mut file = cosave::AtomicFile::create(&path)?;
/// file.write_all(b"count: ?\na\nb\n")?;
/// file.seek(SeekFrom::Start(7))?;
/// file.write_all(b"2")?;
/// assert!(!path.exists());
/// file.commit()?;
/// assert_eq!(std::fs::read(&path)?, b"count: 2\na\nb\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a file that is dropped without `commit` stays as it was"]
pub struct AtomicFile {
    fs: Arc<dyn FileSystem>,
    target: RelativePath,
    /// Where it lies, and the path as the caller gave it, for errors.
    place: Place,
    found: Option<Metadata>,
    /// Directories that were made, whose names must last, too.
    names: Wave,
    /// Both are `None` when it is over.
    file: Option<Box<dyn WriteFile>>,
    temporary: Option<RelativePath>,
    /// Shows a sweep that this lives.
    living: Option<Box<dyn Lock>>,
    /// That of the caller, who may have gone before it is committed.
    claim: Arc<Claim>,
    /// The process that has begun it.
    process: u32,
}

/// How often a file is begun that a sweep takes for one of the dead. It can do so only at one moment, between two
/// calls. But the scheduler can stop a writer at this moment again and again, beside a sweep without a pause.
/// Measured for 45,000 saves on two busy cores: 378 were begun a second time, and one ten times.
pub(super) const LIVING_TRIES_MAX: u32 = 1000;

/// What is done if the target exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Replace,
    Refuse,
}

impl AtomicFile {
    /// Begins to write, under a temporary name that was never used before.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if the path is empty, a directory, or no place for a file.
    /// - [`Error::Io`] if the old file may not be replaced, or no file can be made there.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::io::Write;
    ///
    /// let path = dir.path().join("report");
    /// let mut file = cosave::AtomicFile::create(&path)?;
    /// writeln!(file, "all is well")?;
    /// assert!(!path.exists());
    /// file.commit()?;
    /// assert_eq!(std::fs::read(&path)?, b"all is well\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::begin(path.as_ref(), Existing::Replace)
    }

    /// Like [`create`](Self::create), under a temporary name of your choice, in the same directory.
    ///
    /// A name that never changes leaves no more than one file after crashes. But only one program may
    /// write at a time: what it finds under this name it takes for another's.
    ///
    /// # Errors
    /// As for [`create`](Self::create), and [`Error::Conflict`] if a file has this name. If its writer was
    /// killed, remove it. [`Error::InvalidPath`] if the name is a path, or that of the file itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("settings.json");
    /// let mut file = cosave::AtomicFile::create_under(&path, ".settings.json.new")?;
    /// file.write_all(b"{}")?;
    /// assert!(cosave::AtomicFile::create_under(&path, ".settings.json.new").unwrap_err().is_conflict());
    /// file.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_under(path: impl AsRef<Path>, temporary_name: impl AsRef<OsStr>) -> Result<Self> {
        let (path, name) = (path.as_ref(), temporary_name.as_ref());
        let (fs, target) = open(path, Existing::Replace)?;
        let invalid = |reason| Error::invalid(Path::new(name), reason);
        let parsed = RelativePath::new(name).map_err(invalid)?;
        if !parsed.parent().is_root() {
            return Err(invalid(InvalidPath::NoName));
        }
        if parsed.name() == target.name() {
            return Err(invalid(InvalidPath::Itself));
        }
        let temporary = target.with_name(name);
        Self::start(fs, target, path, temporary, Existing::Replace)
    }

    pub(super) fn begin(path: &Path, existing: Existing) -> Result<Self> {
        let (fs, target) = open(path, existing)?;
        Self::begin_living(&fs, &target, path, existing)
    }

    /// Begins under a name that was never used before, and has the file locked. A sweep that came between
    /// the two has the lock, or has removed the file.
    fn begin_living(
        fs: &Arc<dyn FileSystem>,
        target: &RelativePath,
        given: &Path,
        existing: Existing,
    ) -> Result<Self> {
        let mut tries = 1;
        loop {
            let temporary = layout::single(target, fs.unique());
            let mut file = Self::start(Arc::clone(fs), target.clone(), given, temporary.clone(), existing)?;
            let Some(writer) = file.file.as_ref().filter(|_| fs.may_lock_written()) else { return Ok(file) };
            let error = match writer.lock() {
                Ok(Some(lock)) => {
                    file.living = Some(lock);
                    return Ok(file);
                }
                Ok(None) if tries < LIVING_TRIES_MAX => {
                    tries += 1;
                    continue;
                }
                // Where nothing can be locked, nothing is swept.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
                Ok(None) => io::ErrorKind::WouldBlock.into(),
                Err(error) => error,
            };
            return Err(Error::io(Operation::Lock, file.place.clone())(error));
        }
    }

    /// Begins to write on any file system, at a path below its root.
    #[cfg(feature = "sim")]
    pub(super) fn begin_on(fs: Arc<dyn FileSystem>, path: &RelativePath, existing: Existing) -> Result<Self> {
        let given = fs.full_path(path);
        Self::begin_living(&fs, path, &given, existing)
    }

    /// Like [`create`](Self::create), on a file system of your choice.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    #[cfg(feature = "sim")]
    pub fn create_on(fs: Arc<dyn FileSystem>, path: &RelativePath) -> Result<Self> {
        Self::begin_on(fs, path, Existing::Replace)
    }

    fn start(
        fs: Arc<dyn FileSystem>,
        target: RelativePath,
        given: &Path,
        temporary: RelativePath,
        existing: Existing,
    ) -> Result<Self> {
        let place = Place::from(fs.full_path(&target)).given_as(given);
        let io = |operation| Error::io(operation, place.clone());
        let found = if_found(fs.metadata(&target)).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => Error::invalid(place.clone(), InvalidPath::NotADirectory),
            _ => io(Operation::Look)(error),
        })?;
        may_replace(&*fs, &target, &place, found.as_ref(), existing)?;
        let mut names = Wave::new(Barrier::SingleRenamed);
        for directory in target.parent().chain() {
            names.add(fs.ensure_dir(&directory).map_err(io(Operation::Create))?);
        }
        let access = if found.is_some() { NewFile::Private } else { NewFile::Ordinary };
        let (file, name) = fs.create_new(&temporary, access).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&fs.full_path(&temporary).into()),
            _ => io(Operation::Stage)(error),
        })?;
        name.waive("the rename gives the file the name that must last");
        let (file, temporary, process) = (Some(file), Some(temporary), fs.process());
        let (living, claim) = (None, Arc::default());
        Ok(Self { fs, target, place, found, names, file, temporary, living, claim, process })
    }

    /// The same file, for a caller who can give it up.
    pub(crate) fn claimed(self, claim: Arc<Claim>) -> Self {
        let mut claimed = self;
        claimed.claim = claim;
        claimed
    }

    /// Lets the file take its place. Once this returns `Ok`, it survives a power loss.
    ///
    /// # Errors
    /// - [`Error::NotSynced`] if the last sync failed: after a power loss the file may have either content.
    /// - [`Error::Io`] otherwise; the file has its old content.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::io::Write;
    ///
    /// let path = dir.path().join("report");
    /// # cosave::write(&path, "old")?;
    /// let mut file = cosave::AtomicFile::create(&path)?;
    /// file.write_all(b"new")?;
    /// assert_eq!(std::fs::read(&path)?, b"old");
    /// file.commit()?;
    /// assert_eq!(std::fs::read(&path)?, b"new");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn commit(self) -> Result<()> {
        self.publish(Existing::Replace)
    }

    /// Like [`commit`](Self::commit), but never replaces a file. If several programs try at once, one of
    /// them wins.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit), and [`Error::Conflict`] if the file exists.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("id");
    /// let mut one = cosave::AtomicFile::create(&path)?;
    /// let mut other = cosave::AtomicFile::create(&path)?;
    /// one.write_all(b"1")?;
    /// other.write_all(b"2")?;
    /// one.commit_new()?;
    /// assert!(other.commit_new().unwrap_err().is_conflict());
    /// assert_eq!(std::fs::read(&path)?, b"1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn commit_new(self) -> Result<()> {
        self.publish(Existing::Refuse)
    }

    pub(super) fn publish(mut self, existing: Existing) -> Result<()> {
        self.refuse_child()?;
        let (Some(mut file), Some(temporary)) = (self.file.take(), self.temporary.clone()) else {
            return Err(Error::Unfinished { path: self.place.clone() });
        };
        let place = self.place.clone();
        let io = |operation| Error::io(operation, place.clone());
        let fs = Arc::clone(&self.fs);
        let sync = |wave| fs.sync(wave, SyncStrategy::PerFile).map_err(|SyncError { source, .. }| source);
        if let Some(found) = &self.found {
            file.copy_permissions(&self.target, found).map_err(io(Operation::Stage))?;
        }
        let (_, content) = file.finish().map_err(io(Operation::Stage))?;
        let mut wave = Wave::new(Barrier::SingleStaged);
        wave.add(content);
        // Lost without this sync: the bytes behind a durable name. After a power loss ext4 and XFS then
        // show an empty file or zeros.
        let _durable = sync(wave).map_err(io(Operation::Sync))?;
        let mut names = std::mem::replace(&mut self.names, Wave::new(Barrier::SingleRenamed));
        let gone = || Error::Cancelled { path: place.clone() };
        match existing {
            Existing::Replace => {
                let renamed = self.claim.perform(|| fs.rename(&temporary, &self.target));
                names.add(renamed.ok_or_else(gone)?.map_err(io(Operation::Move))?);
                self.temporary = None;
            }
            // A link never replaces (link(2)), so if several processes try, one wins.
            Existing::Refuse => {
                match self.claim.perform(|| fs.link(&temporary, &self.target)).ok_or_else(gone)? {
                    Ok(debt) => names.add(debt),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(&place)),
                    Err(error) => return Err(io(Operation::Move)(error)),
                }
            }
        }
        drop(self);
        // Lost without this sync: the new name, and with it the whole save.
        let not_synced = |source| Error::NotSynced { path: place.clone(), source: Arc::new(source) };
        sync(names).map(drop).map_err(not_synced)
    }

    /// Whether this is the process that has begun the file, and not a child after `fork`.
    fn is_own_process(&self) -> bool {
        self.fs.process() == self.process || !keeps(Rule::LeaveToParent)
    }

    /// Refuses everything in a child, whose writes would be those of its parent.
    fn refuse_child(&self) -> Result<()> {
        if self.is_own_process() {
            return Ok(());
        }
        Err(Error::Unsupported { path: self.place.clone(), reason: Reason::Forked })
    }

    fn file(&mut self) -> io::Result<&mut Box<dyn WriteFile>> {
        self.refuse_child()?;
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl fmt::Debug for AtomicFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicFile").field("path", &self.place).finish_non_exhaustive()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // It is closed before it is removed, since Windows keeps the name of an open file.
        self.file = None;
        if !self.is_own_process() {
            // The file is its parent's.
            return;
        }
        if let Some(Ok(debt)) = self.temporary.take().map(|path| self.fs.remove_file(&path)) {
            debt.waive("a temporary file that a power loss brings back harms nobody");
        }
    }
}

/// Errors name the path as it was given.
impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file()?.write(bytes);
        written.map_err(|error| Error::io(Operation::Stage, self.place.clone())(error).into())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file()?.flush();
        flushed.map_err(|error| Error::io(Operation::Stage, self.place.clone())(error).into())
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let moved = self.file()?.seek(position);
        moved.map_err(|error| Error::io(Operation::Stage, self.place.clone())(error).into())
    }
}

pub(super) fn open(given: &Path, existing: Existing) -> Result<(Arc<dyn FileSystem>, RelativePath)> {
    let (directory, target) = locate(given, existing)?;
    let opened = OsFileSystem::open(&directory, None, Parents::Leave);
    Ok((Arc::new(opened.map_err(Error::io(Operation::Open, &directory))?), target))
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
