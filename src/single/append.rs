//! A file that only grows: a log, or a journal of records. Its face, and how it
//! is opened; `growing` has what happens then.
//!
//! It has one writer, which many threads can share. Threads that wait for the
//! disk at the same time share one sync. A sync that fails is never repeated,
//! because the next one would succeed and prove nothing (fsync(2), ERRORS).
//! What it was to make durable is cut off instead, so that nobody reads what
//! the disk may not have.

mod growing;
mod options;
mod timer;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use self::growing::{Shared, State};
pub use self::options::AppendOptions;
use self::timer::Timer;
use super::atomic;
use super::durable::sync_parents;
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, FileSystem, GrowingFile, Kind, NewFile, SyncError, Unsynced, Wave};
use crate::mutation::{Rule, keeps};
use crate::options::SyncStrategy;
use crate::path::{InvalidPath, RelativePath};
use crate::place::Place;
use crate::protocol::caller::Claim;
use crate::protocol::root::{guard, if_found};

/// A file to whose end records are added.
///
/// A record is added whole or not at all, unless the process is killed within the call. It is visible to other programs at once. It survives a power
/// loss once a sync that began later has ended: see [`synced_len`](Self::synced_len). By default only
/// [`sync`](Self::sync), [`rotate`](Self::rotate) and [`close`](Self::close) wait for one. Options let it
/// happen by itself, after so many records, bytes or milliseconds.
///
/// A power loss during an append can leave a part of it, or zeros, at the end of the file. So a record
/// should show whether it is whole, by its length and a checksum. Then
/// [`AppendOptions::open_with`] cuts off what is torn.
///
/// If a sync fails, whatever was not durable is cut off, and nothing can be appended any more:
/// [`Error::NotAppended`]. Open the file again to go on. If nothing can be cut off any more, as on a disk that
/// has become read-only, readers still see what may be lost. The next opening then sees it, too.
///
/// Other programs may read the file meanwhile. They can see a part of a record that is being written, and one
/// that is cut off a moment later. What others cut off is not noticed.
///
/// On systems that cannot sync a directory, such as Windows, the name of a new or rotated file can be lost with a
/// power loss. Its records are as durable as elsewhere.
///
/// A child process after a fork cannot use the file of its parent: whatever it asks is refused, and
/// dropping its copy does nothing. It must not ask for lengths while other threads of its parent append.
///
/// Only one writer can have a file open: a second one gets [`Error::InUse`], in this process or in another.
/// Threads can share it, since all methods take `&self`.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("journal");
/// let journal = cosave::AppendFile::open(&path)?;
/// journal.append("first\n")?;
/// journal.append("second\n")?;
/// assert_eq!(journal.synced_len(), 0);
/// journal.sync()?;
/// assert_eq!(journal.synced_len(), 13);
/// # assert_eq!(std::fs::read(&path)?, b"first\nsecond\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AppendFile {
    shared: Arc<Shared>,
    timer: Option<Timer>,
}

/// Reads a file from its beginning, and returns how many bytes of it are whole records.
type Framing<'a> = &'a mut dyn FnMut(&mut dyn BufRead) -> io::Result<u64>;

impl AppendFile {
    /// Opens a file to append to it, and makes it if it does not exist, with its directories. Waits until what
    /// it finds is durable. Keeps it as it is: see [`AppendOptions::open_with`].
    ///
    /// A symlink at the path is followed, and has to lead to a file.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if the path is empty, or leads to anything but a file.
    /// - [`Error::InUse`] if another writer has it open.
    /// - [`Error::Io`] if it may not be read and written, or the sync failed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Options for when to sync.
    pub fn options() -> AppendOptions {
        AppendOptions::default()
    }

    /// Adds a record at the end. Returns where it begins.
    ///
    /// It is not durable yet, unless the options ask for a sync after this one.
    ///
    /// # Errors
    /// - [`Error::Io`] if the record could not be written, as on a full disk. Nothing of it is left.
    /// - [`Error::NotYetSynced`] if it was written, and the sync after it could not begin.
    /// - [`Error::NotAppended`] if a sync has failed, now or earlier.
    pub fn append(&self, record: impl AsRef<[u8]>) -> Result<u64> {
        self.append_for(&Claim::default(), record.as_ref())
    }

    /// For a caller who can give it up.
    pub(crate) fn append_for(&self, claim: &Claim, record: &[u8]) -> Result<u64> {
        self.shared.refuse_child()?;
        let (begin, due) = {
            let mut state = guard(&self.shared.state);
            let has_woken = state.since.is_some();
            let begin = self.shared.append(&mut state, claim, record)?;
            if !has_woken {
                self.shared.changed.notify_all();
            }
            let is_due = self.shared.options.is_due(state.unsynced, state.length - state.synced);
            (begin, is_due.then_some(state.rotations))
        };
        let Some(rotations) = due else { return Ok(begin) };
        match self.shared.sync_up_to(begin + record.len() as u64, rotations) {
            Ok(_) => Ok(begin),
            Err(Error::Io { path, source, .. }) => Err(Error::NotYetSynced { path, begin, source }),
            Err(error) => Err(error),
        }
    }

    /// Waits until everything that was appended before this call is durable. Returns
    /// [`synced_len`](Self::synced_len). Does not wait if it is durable already.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if the sync failed, now or earlier: what is not durable was cut off.
    /// [`Error::Io`] if it could not begin; then nothing is lost, and it can be tried again.
    pub fn sync(&self) -> Result<u64> {
        self.shared.refuse_child()?;
        let (length, rotations) = {
            let state = guard(&self.shared.state);
            (state.length, state.rotations)
        };
        self.shared.sync_up_to(length, rotations)
    }

    /// How many bytes the file has.
    #[must_use]
    pub fn len(&self) -> u64 {
        guard(&self.shared.state).length
    }

    /// Whether the file has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes, from the beginning, survive a power loss. After an error it says up to where the
    /// file is good.
    #[must_use]
    pub fn synced_len(&self) -> u64 {
        guard(&self.shared.state).synced
    }

    /// Gives the file another name in its directory, and begins an empty one in its place. The old one is
    /// whole and durable under its new name. The new one has the permissions of the old one. After a crash
    /// either nothing has happened, or there may be no file at the old name: [`open`](Self::open) makes
    /// one, with the permissions of any new file there.
    ///
    /// No other file is ever replaced. On Windows, and on mounts that cannot promise that (some network
    /// mounts), a file is only looked for right before the rename.
    ///
    /// During the second wait there is no file at the old name, and a writer that waits for one can get it.
    /// Then this one ends with [`Error::NotSynced`]. A kill can leave an empty temporary file, which
    /// [`sweep_temporary_files`](crate::sweep_temporary_files) removes.
    ///
    /// Two waits for the disk, or one if everything is durable already. Other threads wait meanwhile, and
    /// append to the new file.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if `name` is no name of a file.
    /// - [`Error::Conflict`] if something has this name, or another program has given the file another one.
    ///   Nothing was changed. (Windows does not tell the latter.)
    /// - [`Error::Io`] if the name cannot be changed, or no new file can be made. Nothing was changed.
    /// - [`Error::NotAppended`] as for [`sync`](Self::sync).
    /// - [`Error::NotSynced`] if the new name could not be made durable, or somebody else has taken the old one.
    ///   After a power loss the file may have either name. Nothing can be appended any more; open it again.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("log");
    /// let log = cosave::AppendFile::open(&path)?;
    /// log.append("today\n")?;
    /// log.rotate("log.1")?;
    /// log.append("tomorrow\n")?;
    /// log.close()?;
    /// assert_eq!(std::fs::read(dir.path().join("log.1"))?, b"today\n");
    /// assert_eq!(std::fs::read(&path)?, b"tomorrow\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rotate(&self, name: impl AsRef<OsStr>) -> Result<()> {
        self.rotate_for(&Claim::default(), name.as_ref())
    }

    /// For a caller who can give it up.
    pub(crate) fn rotate_for(&self, claim: &Claim, name: &OsStr) -> Result<()> {
        let shared = &*self.shared;
        shared.refuse_child()?;
        let invalid = |reason| Error::invalid(Path::new(name), reason);
        let parsed = RelativePath::new(name).map_err(invalid)?;
        if !parsed.parent().is_root() {
            return Err(invalid(InvalidPath::NoName));
        }
        if parsed.name() == shared.path.name() {
            return Err(invalid(InvalidPath::Itself));
        }
        let _syncing = guard(&shared.syncing);
        let mut state = guard(&shared.state);
        shared.rotate(&mut state, claim, &shared.path.with_name(name))
    }

    /// Where it lies.
    #[cfg(feature = "tokio")]
    pub(crate) fn path(&self) -> &Path {
        self.shared.place.path()
    }

    /// Waits until everything is durable, and closes the file. Dropping it does the same, and cannot tell
    /// whether that failed: see [`AppendOptions::on_error`].
    ///
    /// # Errors
    /// As for [`sync`](Self::sync).
    pub fn close(self) -> Result<()> {
        self.sync().map(drop)
    }

    fn start(
        fs: Arc<dyn FileSystem>,
        path: RelativePath,
        given: &Path,
        options: AppendOptions,
        framing: Option<Framing<'_>>,
    ) -> Result<Self> {
        let place = Place::from(fs.full_path(&path)).given_as(given);
        let io = |operation| Error::io(operation, place.clone());
        let is_new = is_missing(&*fs, &path, &place)?;
        let mut made = Made { directories: Vec::new(), file: is_new.then(|| path.clone()) };
        let mut wave = Wave::new(Barrier::Appended);
        for directory in path.parent().chain() {
            if if_found(fs.metadata(&directory)).map_err(io(Operation::Look))?.is_none() {
                made.directories.push(directory.clone());
            }
            wave.add(fs.ensure_dir(&directory).map_err(io(Operation::Create))?);
        }
        let sync = |wave| fs.sync(wave, SyncStrategy::PerFile).map_err(|SyncError { source, .. }| source);
        if is_new && made.directories.is_empty() {
            let mut names = Wave::new(Barrier::Rotated);
            names.add(Unsynced::directory(path.parent()));
            // Lost without this sync: a file that a killed writer has just given another name, and all its
            // records. A power loss could keep the new file, and not the other name.
            let _durable = sync(names).map_err(io(Operation::Sync))?;
        }
        let (mut file, name) =
            fs.open_to_append(&path, NewFile::Ordinary).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Error::InUse { path: place.clone() },
                _ => io(Operation::Open)(error),
            })?;
        wave.add(name);
        let length = cut_torn(&mut file, framing, &place)?;
        if length > 0 {
            // Another writer has made it since, and may have told somebody that its records are durable.
            made = Made { directories: Vec::new(), file: None };
        }
        wave.add(file.debt().map_err(io(Operation::Sync))?);
        if keeps(Rule::SyncFound) {
            // Lost without this sync: what a killed writer left here, and the file's name. Records that are
            // made durable later would follow a gap, or be in a file without a name.
            if let Err(error) = sync(wave) {
                made.remove(&*fs);
                return Err(io(Operation::Sync)(error));
            }
        } else {
            wave.waive("a crash test asked for it");
        }
        let state = State {
            file,
            owes_name: false,
            length,
            synced: length,
            unsynced: 0,
            since: None,
            under_way: (0, None),
            rotations: 0,
            failed: None,
            is_closed: false,
        };
        let (state, syncing, changed) = (Mutex::new(state), Mutex::default(), Condvar::new());
        let process = fs.process();
        let shared = Arc::new(Shared { fs, path, place, options, state, syncing, changed, process });
        let timer = shared.options.within().map(|within| Timer::start(&shared, within)).transpose();
        let timer = timer.map_err(|error| Error::io(Operation::Open, shared.place.clone())(error))?;
        Ok(Self { shared, timer })
    }
}

/// Opening.
impl AppendOptions {
    /// As [`AppendFile::open`], with these options.
    ///
    /// # Errors
    /// As for [`AppendFile::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<AppendFile> {
        self.open_at(path.as_ref(), None)
    }

    /// Like [`open`](Self::open), and cuts off what a crash has torn. `framing` reads the file from its
    /// beginning, and returns how many bytes of it are whole records. The rest is removed before anything
    /// is appended.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and the error of `framing`; then nothing was cut off.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("journal");
    /// use std::io::BufRead;
    ///
    /// /// A record is a line.
    /// fn whole_lines(file: &mut dyn BufRead) -> std::io::Result<u64> {
    ///     let (mut whole, mut line) = (0, Vec::new());
    ///     while file.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
    ///         whole += line.len() as u64;
    ///         line.clear();
    ///     }
    ///     Ok(whole)
    /// }
    ///
    /// std::fs::write(&path, "one\ntwo\nthr")?;
    /// let journal = cosave::AppendFile::options().open_with(&path, whole_lines)?;
    /// journal.append("three\n")?;
    /// journal.close()?;
    /// assert_eq!(std::fs::read(&path)?, b"one\ntwo\nthree\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_with(
        self,
        path: impl AsRef<Path>,
        mut framing: impl FnMut(&mut dyn BufRead) -> io::Result<u64>,
    ) -> Result<AppendFile> {
        self.open_at(path.as_ref(), Some(&mut framing))
    }

    fn open_at(self, given: &Path, framing: Option<Framing<'_>>) -> Result<AppendFile> {
        let (fs, target) = atomic::open(given, atomic::Existing::Replace)?;
        let root = fs.root_path();
        let file = AppendFile::start(fs, target, given, self, framing)?;
        if file.is_empty() {
            // Lost without these syncs: directories that a killed program has made here, and every record in
            // them. One that this user may not read was made by somebody else.
            match sync_parents(root) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        Ok(file)
    }

    /// Like [`open_with`](Self::open_with), on a file system of your choice. `path` is relative to its root.
    ///
    /// # Errors
    /// As for [`open_with`](Self::open_with).
    #[cfg(feature = "sim")]
    pub fn open_on(
        self,
        fs: Arc<dyn FileSystem>,
        path: &RelativePath,
        mut framing: impl FnMut(&mut dyn BufRead) -> io::Result<u64>,
    ) -> Result<AppendFile> {
        let given = fs.full_path(path);
        AppendFile::start(fs, path.clone(), &given, self, Some(&mut framing))
    }
}

impl Drop for AppendFile {
    fn drop(&mut self) {
        if !self.shared.is_own_process() {
            // The timer's thread is the parent's: here is none that could be waited for.
            std::mem::forget(self.timer.take());
            return;
        }
        if let Some(timer) = self.timer.take() {
            guard(&self.shared.state).is_closed = true;
            self.shared.changed.notify_all();
            timer.join();
        }
        let is_owed = {
            let state = guard(&self.shared.state);
            state.failed.is_none() && state.synced < state.length
        };
        if is_owed {
            if let Err(error) = self.sync() {
                self.shared.options.tell(&error);
            }
        }
    }
}

/// Each call of `write` appends one record. Nothing is buffered.
impl Write for AppendFile {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.append(record)?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Each call of `write` appends one record. Nothing is buffered.
impl Write for &AppendFile {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.append(record)?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for AppendFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = guard(&self.shared.state);
        let (length, synced) = (state.length, state.synced);
        let mut shown = f.debug_struct("AppendFile");
        shown.field("path", &self.shared.place).field("len", &length).field("synced_len", &synced);
        shown.finish_non_exhaustive()
    }
}

/// What opening a file has made.
struct Made {
    directories: Vec<RelativePath>,
    file: Option<RelativePath>,
}

impl Made {
    /// A second sync of these names would prove nothing. If they are removed, they are made anew.
    fn remove(self, fs: &dyn FileSystem) {
        let directories = self.directories.iter().rev().map(|directory| fs.remove_dir(directory));
        for removed in self.file.iter().map(|file| fs.remove_file(file)).chain(directories).flatten() {
            removed.waive("an empty file or directory that a power loss brings back is opened as it is");
        }
    }
}

/// Whether no file is there yet. Anything else than a file is refused.
fn is_missing(fs: &dyn FileSystem, path: &RelativePath, place: &Place) -> Result<bool> {
    let invalid = |reason| Error::invalid(place.clone(), reason);
    let found = if_found(fs.metadata(path)).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => invalid(InvalidPath::NotADirectory),
        _ => Error::io(Operation::Look, place.clone())(error),
    })?;
    match found.map(|found| found.kind) {
        None => Ok(true),
        Some(Kind::File) => Ok(false),
        Some(Kind::Directory) => Err(invalid(InvalidPath::Directory)),
        Some(_) => Err(invalid(InvalidPath::Special)),
    }
}

/// Cuts off what is torn. Returns how long the file is then.
fn cut_torn(file: &mut Box<dyn GrowingFile>, framing: Option<Framing<'_>>, place: &Place) -> Result<u64> {
    let io = |operation| Error::io(operation, place.clone());
    let length = file.length().map_err(io(Operation::Look))?;
    let Some(framing) = framing else { return Ok(length) };
    let whole = framing(&mut BufReader::new(&mut *file)).map_err(io(Operation::Read))?;
    if whole > length {
        let source = io::Error::other("the framing has found more bytes than the file has");
        return Err(io(Operation::Read)(source));
    }
    if whole < length {
        file.cut(whole).map_err(io(Operation::Write))?;
    }
    Ok(whole)
}
