//! Makes one wave durable: many syncs are in flight together, so that the file
//! system can merge them.
//!
//! The threads wait and do not compute, so there may be many more of them than
//! cores. They live as long as the wave. Every member is attempted exactly
//! once, even if others fail.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use super::linux;
#[cfg(unix)]
use super::unix::Directories;
#[cfg(windows)]
use super::windows::Directories;
#[cfg(target_os = "linux")]
use super::written::Written;
use crate::fs::{Durable, OpenFile, SyncError, Wave};
use crate::options::SyncStrategy;
use crate::path::RelativePath;

/// How many syncs are in flight at once. Measured for 1000 files on ext4, on a disk that flushes in 2
/// ms: 32 take 233 ms, 64 take 171 ms, 128 take 142 ms, 256 take 143 ms.
const IN_FLIGHT_MAX: usize = 128;

/// A sync faster than this costs less than a thread to wait for it (60 µs with its stack).
const QUICK: Duration = Duration::from_micros(200);

/// From this many quick syncs on, a few threads are worth their cost, since one flush serves every sync
/// that waits for it. Measured for 100 files on ext4 in memory: one after another 10.2 ms, 4 at once
/// 6.0 ms, 8 at once 5.9 ms, 32 at once 9.5 ms. With 10 files there is no difference.
const QUICK_MANY: usize = 16;
const QUICK_IN_FLIGHT: usize = 8;

/// From this many members of a wave on, `Auto` may sync their file system with one call, and from two on
/// where [`is_best_for_few`]. Measured for saves of 10 and of 100 files on ext4, on a disk that flushes in
/// 2 ms: 10.9 and 17.2 ms instead of 11.1 and 25.8 ms.
#[cfg(target_os = "linux")]
const TOGETHER_MIN: u64 = 8;

/// How many unwritten bytes of others such a call may wait for, for each member of the wave. A disk writes
/// about so many in the time that a request of its own would cost.
#[cfg(target_os = "linux")]
const FOREIGN_BYTES_MAX: u64 = 256 * 1024;

/// How long the syncs of the last wave took, counting those at the same time once. Used to guess
/// whether threads help on this disk; nothing but speed depends on it. In nanoseconds; 0 before the first
/// wave.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// Syncs at the same time slow each other down, so each may take longer than it would alone.
    fn is_quick(&self) -> bool {
        let last = u128::from(self.0.load(Ordering::Relaxed));
        last > 0 && last < 2 * QUICK.as_nanos()
    }

    fn set(&self, one: Duration) {
        self.0.store(u64::try_from(one.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Syncs everything in a wave.
pub(super) fn wave(
    directories: &Directories,
    pace: &Pace,
    wave: Wave,
    strategy: SyncStrategy,
) -> Result<Durable, SyncError> {
    let (files, names) = wave.into_parts();
    let names: Vec<_> = names.into_iter().collect();
    // Elsewhere no call syncs a whole file system, or only an administrator may make it.
    #[cfg(target_os = "linux")]
    if is_together(pace, strategy, &files, &names) {
        if let Some(durable) = file_systems(directories, pace, &files, &names)? {
            return Ok(durable);
        }
    }
    start_write_back(&files);
    let measured = strategy == SyncStrategy::Auto && pace.is_quick();
    let ready = || {
        if !measured {
            wait_for_write_back(&files);
        }
    };
    let count = files.len() + names.len();
    // One after another, files come first, and the last of them commits the names too. At once, names
    // come first: on ext4 the sync of a directory commits whatever has changed so far
    // (`ext4_force_commit`). Late, it would begin another commit, and all would wait for that.
    let first = if measured { names.len() } else { 0 };
    let answers = paced(pace, measured, count, ready, |index| {
        let index = (first + index) % count;
        match names.get(index) {
            Some(name) => sync_names(directories, name),
            None => {
                let file = &files[index - names.len()];
                let failed = |source| SyncError { path: file.path().clone(), attempted: true, source };
                file.sync().map(|()| Durable::Synced).map_err(failed)
            }
        }
    });
    let mut durable = Durable::Synced;
    let mut error: Option<SyncError> = None;
    for answer in answers {
        match answer {
            Ok(one) => durable = durable.and(one),
            // The error of a failed sync counts more than that of a sync that could not begin.
            Err(other) if error.as_ref().is_none_or(|error| other.attempted && !error.attempted) => {
                error = Some(other);
            }
            Err(_) => {}
        }
    }
    error.map_or(Ok(durable), Err)
}

/// Asks the kernel to write the bytes of all files, so that no sync waits for its own alone.
#[cfg(target_os = "linux")]
fn start_write_back(files: &[Box<dyn OpenFile>]) {
    for file in written(files) {
        let length = file.unstarted.end - file.unstarted.start;
        linux::start_write_back(&file.file, file.unstarted.start, length);
    }
}

/// Elsewhere the sync starts it.
#[cfg(not(target_os = "linux"))]
fn start_write_back(_files: &[Box<dyn OpenFile>]) {}

#[cfg(target_os = "linux")]
fn written(files: &[Box<dyn OpenFile>]) -> impl Iterator<Item = &Written> {
    files.iter().filter_map(|file| file.as_any().downcast_ref::<Written>())
}

/// Whether to sync whole file systems instead of each member of the wave. `Auto` does so where that
/// saves much and costs little.
#[cfg(target_os = "linux")]
fn is_together(
    pace: &Pace,
    strategy: SyncStrategy,
    files: &[Box<dyn OpenFile>],
    names: &[RelativePath],
) -> bool {
    let count = (files.len() + names.len()) as u64;
    match strategy {
        _ if count < 2 => false,
        SyncStrategy::PerFile => false,
        SyncStrategy::FileSystem => true,
        SyncStrategy::Auto => {
            let own: u64 = written(files).map(|file| file.unstarted.end).sum();
            let foreign = |dirty: u64| dirty.saturating_sub(own);
            (count >= TOGETHER_MIN || is_best_for_few(pace, files))
                && linux::dirty_bytes().is_some_and(|dirty| foreign(dirty) <= count * FOREIGN_BYTES_MAX)
        }
    }
}

/// Whether one call for all is faster even for two. On XFS and btrfs syncs at the same time write the log more
/// than once. On a disk that flushes in 2 ms, a save of 2 files takes 9.6 instead of 14.2 ms on XFS, and 11.3
/// instead of 13.8 ms on btrfs. On ext4 there is no difference for one thread. If another one stages
/// meanwhile, the call waits for a second commit (`ext4_sync_fs`).
#[cfg(target_os = "linux")]
fn is_best_for_few(pace: &Pace, files: &[Box<dyn OpenFile>]) -> bool {
    !pace.is_quick() && !files.is_empty() && !written(files).any(|file| linux::is_ext(&file.file))
}

/// Waits until the bytes of all files are written, before the first sync. That sync commits the file
/// system's journal, and so does one call for all. On ext4 a file whose blocks are recorded after that
/// begins has to wait for the next commit (`ext4_convert_unwritten_extents`). Measured for 10 files on a
/// disk that flushes in 2 ms: 5.1 ms a wave, instead of 5.1 or 10.0 ms by chance.
#[cfg(target_os = "linux")]
fn wait_for_write_back(files: &[Box<dyn OpenFile>]) {
    for file in written(files) {
        linux::wait_for_write_back(&file.file);
    }
}

/// Elsewhere no call waits for bytes alone.
#[cfg(not(target_os = "linux"))]
fn wait_for_write_back(_files: &[Box<dyn OpenFile>]) {}

fn sync_names(directories: &Directories, name: &RelativePath) -> Result<Durable, SyncError> {
    let failed = |attempted| move |source| SyncError { path: name.clone(), attempted, source };
    match directories.handle_to_sync(name) {
        Ok(handle) => directory(|| directories.sync_directory(name, &handle)).map_err(failed(true)),
        Err(error) => directory(|| Err(error)).map_err(failed(false)),
    }
}

/// Syncs every file system of the wave with one call for each. Returns `None` if such a call cannot be
/// trusted.
#[cfg(target_os = "linux")]
fn file_systems(
    directories: &Directories,
    pace: &Pace,
    files: &[Box<dyn OpenFile>],
    names: &[RelativePath],
) -> Result<Option<Durable>, SyncError> {
    let mut handles = Vec::new();
    for name in names {
        match directories.handle_to_sync(name) {
            Ok(handle) => handles.push((handle, name)),
            // A directory that no longer exists has no names to lose, whatever is in its place.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(source) => return Err(SyncError { path: name.clone(), attempted: false, source }),
        }
    }
    // The written files' handles come first: an error is reported only to descriptions that were open
    // before it.
    let written: Option<Vec<_>> = files.iter().map(|file| file.as_any().downcast_ref::<Written>()).collect();
    let Some(written) = written else { return Ok(None) };
    let handles = written
        .iter()
        .map(|written| (written.file.as_fd(), &written.path))
        .chain(handles.iter().map(|(handle, name)| (handle.as_fd(), *name)));
    let Some(systems) = linux::FileSystems::of(handles)? else { return Ok(None) };
    start_write_back(files);
    wait_for_write_back(files);
    let start = Instant::now();
    systems.sync()?;
    // What many cost together says nothing of one alone.
    if (files.len() + names.len()) < QUICK_MANY {
        pace.set(start.elapsed());
    }
    Ok(Some(Durable::Synced))
}

/// Syncs one directory. A system that refuses to do so lowers the promise; any other failure is an
/// error. A directory that no longer exists has no names to lose.
pub(super) fn directory(sync: impl FnOnce() -> io::Result<()>) -> io::Result<Durable> {
    match sync() {
        Ok(()) => Ok(Durable::Synced),
        // A file can be in its place, or in that of a directory above it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Durable::Synced)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(Durable::NamesUnsupported)
        }
        Err(error) => Err(error),
    }
}

/// Runs `work` for every index below `count`. On a `quick` disk, a few syncs run one after another, and
/// many on few threads. Otherwise all run at once.
fn paced<T: Send>(
    pace: &Pace,
    quick: bool,
    count: usize,
    ready: impl FnOnce(),
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let start = Instant::now();
    let in_flight = if quick { QUICK_IN_FLIGHT } else { IN_FLIGHT_MAX };
    let mut answers = Vec::with_capacity(count);
    let mut last = Duration::ZERO;
    while quick && count < QUICK_MANY && answers.len() < count && last < QUICK {
        let start = Instant::now();
        answers.push(work(answers.len()));
        last = start.elapsed();
    }
    let done = answers.len();
    answers.extend(concurrently(count - done, in_flight, ready, |index| work(done + index)));
    let rounds = done + (count - done).div_ceil(in_flight);
    if let Some(one) = u32::try_from(rounds).ok().and_then(|rounds| start.elapsed().checked_div(rounds)) {
        pace.set(one);
    }
    answers
}

/// Runs `work` for every index below `count`, at most `in_flight` at once, after `ready`.
fn concurrently<T: Send>(
    count: usize,
    in_flight: usize,
    ready: impl FnOnce(),
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    if count <= 1 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::with_capacity(count));
    let run = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return;
        }
        let answer = work(index);
        answers.lock().unwrap_or_else(PoisonError::into_inner).push((index, answer));
    };
    // No thread begins before all are ready. The first sync makes the file system commit its journal. A
    // thread that arrives after that commit has started its flush must wait for a second flush (jbd2,
    // `jbd2_trans_will_send_data_barrier`). Starting a thread takes longer than that.
    let gate = RwLock::new(());
    std::thread::scope(|scope| {
        let closed = gate.write();
        for _ in 1..count.min(in_flight) {
            let run = || {
                drop(gate.read());
                run();
            };
            // If no thread can be started, the others do its part.
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        ready();
        drop(closed);
        run();
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}
