//! One wave of syncs: many in flight together, so that the file system merges them.
//!
//! The threads wait and do not compute, so there are many more than cores; they
//! live as long as the wave. Every member is attempted exactly once, whatever
//! becomes of the others.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

#[cfg(unix)]
use super::unix::{self as system, Directories};
#[cfg(windows)]
use super::windows::{self as system, Directories};
use crate::fs::{Durable, OpenFile, SyncError, Wave};
use crate::options::SyncStrategy;
use crate::path::RelativePath;

/// How many syncs are in flight at once. Measured on ext4 with a disk that flushes in 2 ms, saving
/// 1000 files: 32 take 233 ms, 64 171 ms, 128 142 ms, 256 143 ms.
const IN_FLIGHT_MAX: usize = 128;

/// A sync that returns sooner costs less than the thread that would wait for it (60 us with its stack).
const QUICK: Duration = Duration::from_micros(200);

/// From so many quick syncs on, a few threads pay for themselves all the same, since a flush serves
/// all that wait for one. Measured on ext4 in memory, saving 100 files: one after another 10.2 ms,
/// 4 at once 6.0, 8 5.9, 32 9.5; with 10 files there is no difference.
const QUICK_MANY: usize = 16;
const QUICK_IN_FLIGHT: usize = 8;

/// How long the syncs of the last wave took, those at the same time counted once: whether this disk
/// is worth threads. A guess, for speed alone.
#[derive(Debug)]
pub(super) struct Pace(AtomicU64);

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Pace {
    /// Syncs at the same time are in each other's way, so each may take longer than one alone.
    fn is_quick(&self) -> bool {
        u128::from(self.0.load(Ordering::Relaxed)) < 2 * QUICK.as_nanos()
    }

    fn set(&self, one: Duration) {
        self.0.store(u64::try_from(one.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Pays all debts of a wave.
pub(super) fn wave(
    directories: &Directories,
    pace: &Pace,
    wave: Wave,
    strategy: SyncStrategy,
) -> Result<Durable, SyncError> {
    let (files, names) = wave.into_parts();
    let names: Vec<_> = names.into_iter().collect();
    if strategy == SyncStrategy::FileSystem && files.len() + names.len() > 1 {
        if let Some(durable) = system::sync_file_systems(directories, &files, &names)? {
            return Ok(durable);
        }
    }
    let measured = strategy == SyncStrategy::Auto && pace.is_quick();
    let answers = paced(pace, measured, files.len() + names.len(), |index| match files.get(index) {
        Some(file) => file.sync().map(|()| Durable::synced()),
        None => directory(|| directories.sync_directory(&names[index - files.len()])),
    });
    let mut durable = Durable::synced();
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(one) => durable = durable.and(one),
            Err(source) => return Err(SyncError { path: path(&files, &names, index), source }),
        }
    }
    Ok(durable)
}

fn path(files: &[Box<dyn OpenFile>], names: &[RelativePath], index: usize) -> RelativePath {
    match files.get(index) {
        Some(file) => file.path().clone(),
        None => names[index - files.len()].clone(),
    }
}

/// Syncs one directory. A system that refuses lowers the promise; one that fails is an error; a
/// directory that is gone has no names to lose.
pub(super) fn directory(sync: impl FnOnce() -> io::Result<()>) -> io::Result<Durable> {
    match sync() {
        Ok(()) => Ok(Durable::synced()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Durable::synced()),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(Durable::names_unsupported())
        }
        Err(error) => Err(error),
    }
}

/// Runs `work` for every index below `count`: on a disk known to be `quick` a few one after another,
/// or many with few threads; else all at once.
fn paced<T: Send>(pace: &Pace, quick: bool, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
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
    answers.extend(concurrently(count - done, in_flight, |index| work(done + index)));
    let rounds = done + (count - done).div_ceil(in_flight);
    if let Some(one) = u32::try_from(rounds).ok().and_then(|rounds| start.elapsed().checked_div(rounds)) {
        pace.set(one);
    }
    answers
}

/// Runs `work` for every index below `count`, at most `in_flight` at once.
fn concurrently<T: Send>(count: usize, in_flight: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
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
    // Nobody begins before all are there. The first sync makes the file system commit its journal;
    // whoever comes after that commit has begun its flush waits for a flush of its own (jbd2,
    // `jbd2_trans_will_send_data_barrier`), and a thread takes longer to start than the flush to begin.
    let gate = RwLock::new(());
    std::thread::scope(|scope| {
        let closed = gate.write();
        for _ in 1..count.min(in_flight) {
            let run = || {
                drop(gate.read());
                run();
            };
            // Where no thread can be had, the others do its part.
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        drop(closed);
        run();
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}
