//! A session: the liveness of one open store, and where it stages.
//!
//! A session is a file that its process keeps locked; the kernel lets go of the
//! lock when the process dies, however it dies, so nothing is ever decided by
//! process numbers or by age. Beside it lie records: which directories the
//! session stages in, and which it makes. A record is durable before the first
//! thing that it tells of exists, so that no power loss can leave something that
//! no record leads to. After that a directory costs nothing.
//!
//! The session relies on the control directory being there, and never touches a
//! target or a staged file.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::layout::{self, SessionName};
use super::{Engine, control, lock};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, FileSystem, Lock, LockKind, NewFile, Unsynced, Wave};
use crate::generation::TransactionId;
use crate::manifest::{Name, seal, unseal};
use crate::path::RelativePath;

const FORMAT: &str = "cosave-session";

/// Tries to find a name that no sweeper is looking at just now; one is enough but for a race.
const START_TRIES_MAX: u32 = 100;

/// One open store's mark, alive as long as this value.
#[derive(Debug)]
pub(crate) struct Session {
    id: Uuid,
    fs: Arc<dyn FileSystem>,
    strategy: crate::options::SyncStrategy,
    process: u32,
    transactions: AtomicU64,
    state: Mutex<State>,
    marked: AtomicBool,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

#[derive(Debug)]
struct State {
    directories: BTreeSet<RelativePath>,
    records: Vec<RelativePath>,
    numbers: u32,
    /// Removals of staged files that are not durable yet.
    removals: Wave,
}

/// Where a session stages, as recorded.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Who it is, for people.
    pub(crate) process: u32,
    /// Directories in which it stages.
    pub(crate) directories: Vec<RelativePath>,
    /// Directories that a transaction makes; parents before children.
    pub(crate) made: Vec<RelativePath>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordText {
    process: u32,
    directories: Vec<Name>,
    made: Vec<Name>,
}

impl Session {
    /// Makes and locks the mark, and records the root and `directory` as places where it stages.
    pub(crate) fn start(engine: &Engine, directory: &RelativePath) -> Result<Self> {
        control::ensure(engine)?;
        let (id, lock) = Self::mark(engine)?;
        let session = Self {
            id,
            fs: Arc::clone(&engine.fs),
            strategy: engine.settings.strategy,
            process: engine.fs.process(),
            transactions: AtomicU64::new(0),
            state: Mutex::new(State {
                directories: BTreeSet::new(),
                records: Vec::new(),
                numbers: 0,
                removals: Wave::new(Barrier::Swept),
            }),
            marked: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        };
        let first = [RelativePath::root(), directory.clone()].into();
        session.record(engine, first, Vec::new())?;
        Ok(session)
    }

    /// Between making the mark and locking it a sweeper may come by and take it for dead. Then it
    /// either holds the lock (try another name) or has removed the file (`try_lock` notices).
    fn mark(engine: &Engine) -> Result<(Uuid, Box<dyn Lock>)> {
        for _ in 0..START_TRIES_MAX {
            let id = engine.fs.unique();
            let path = layout::session(id);
            let tried = engine.fs.try_lock(&path, LockKind::Exclusive);
            if let Some(lock) = tried.map_err(engine.error(Operation::Begin, &path))? {
                return Ok((id, lock));
            }
        }
        Err(Error::Unsupported {
            path: engine.full(&layout::sessions()),
            reason: "files cannot be locked here, so nobody could tell the living from the dead",
        })
    }

    /// The next transaction's name.
    pub(crate) fn next_transaction(&self) -> TransactionId {
        TransactionId { session: self.id, number: self.transactions.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Whether something may be staged in `directory` without recording it first.
    pub(crate) fn has_recorded(&self, directory: &RelativePath) -> bool {
        lock(&self.state).directories.contains(directory)
    }

    /// Records, durably, where this session is about to stage and what it is about to make. Returns
    /// the record of what is made, which goes when the transaction is committed.
    pub(crate) fn record(
        &self,
        engine: &Engine,
        directories: BTreeSet<RelativePath>,
        made: Vec<RelativePath>,
    ) -> Result<Option<RelativePath>> {
        let mut state = lock(&self.state);
        let new: Vec<_> = directories.difference(&state.directories).cloned().collect();
        let mut wave = Wave::new(Barrier::Session);
        // Whoever made a directory that was there before may not have synced its name, without which
        // a power loss takes everything in it.
        for found in new.iter().filter(|directory| !made.contains(directory)) {
            for directory in found.chain() {
                wave.add(Unsynced::directory(directory.parent()));
            }
        }
        let mut written = Vec::new();
        for record in [
            Record { process: self.process, directories: new.clone(), made: Vec::new() },
            Record { process: self.process, directories: Vec::new(), made },
        ] {
            if record.directories.is_empty() && record.made.is_empty() {
                written.push(None);
                continue;
            }
            let path = layout::record(self.id, state.numbers);
            state.numbers += 1;
            state.records.push(path.clone());
            wave.add(self.write(engine, &path, &record)?);
            written.push(Some(path));
        }
        // Lost without this sync: after a power loss nobody would know that something was staged
        // or made there, and it would lie there for ever. A crash before it leaves only this
        // session's own files, which the sweep finds by listing `sessions`.
        let _durable = engine.sync(wave)?;
        state.directories.extend(new);
        Ok(written.pop().flatten())
    }

    fn write(&self, engine: &Engine, path: &RelativePath, record: &Record) -> Result<Unsynced> {
        let failed = |error| engine.error(Operation::Begin, path)(error);
        let (mut file, name) = engine.fs.create_new(path, NewFile::Ordinary).map_err(failed)?;
        file.write_all(&record.encode()).map_err(failed)?;
        let (_, content) = file.finish().map_err(failed)?;
        Ok(name.and(content))
    }

    /// The directories made for a transaction are its commit's now: their record goes.
    pub(crate) fn forget(&self, record: &RelativePath) -> Option<Unsynced> {
        lock(&self.state).records.retain(|other| other != record);
        // A record that cannot be removed leads the sweep to directories that it finds not empty.
        self.fs.remove_file(record).ok()
    }

    /// Keeps the debt of a removed staged file until the session ends.
    pub(crate) fn owe(&self, debt: Unsynced) {
        lock(&self.state).removals.add(debt);
    }

    /// Leaves the mark behind when the session ends, so that the next opening sweeps after it.
    pub(crate) fn leave_mark(&self) {
        self.marked.store(true, Ordering::SeqCst);
    }

    /// Takes the session's files away, the mark last. Errors leave the rest to the next sweep.
    fn end(&self) -> std::io::Result<()> {
        let mut state = lock(&self.state);
        let removals = std::mem::replace(&mut state.removals, Wave::new(Barrier::Swept));
        if !removals.is_empty() {
            // Lost without this sync: staged names that a power loss brings back, with no mark left
            // that leads to them.
            let _durable = self.fs.sync(removals, self.strategy).map_err(|error| error.source)?;
        }
        for record in std::mem::take(&mut state.records) {
            // No sync: a record or mark that comes back leads a sweep to nothing.
            self.fs.remove_file(&record)?.need_not_last();
        }
        self.fs.remove_file(&layout::session(self.id))?.need_not_last();
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // In a child after fork the parent's session goes on: touch nothing.
        if self.fs.process() == self.process && !self.marked.load(Ordering::SeqCst) {
            // What could not be removed is what the next sweep is for.
            let _ = self.end();
        }
        lock(&self.lock).take();
    }
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let names =
            |paths: &[RelativePath]| paths.iter().map(|path| Name::new(path.as_path().as_os_str())).collect();
        let text = RecordText {
            process: self.process,
            directories: names(&self.directories),
            made: names(&self.made),
        };
        // Names and numbers always have a JSON form.
        seal(FORMAT, &serde_json::to_string(&text).unwrap_or_default())
    }

    /// Reads a record. One that is not whole was never relied upon, and tells of nothing.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text: RecordText = serde_json::from_str(unseal(FORMAT, bytes).ok()?).ok()?;
        let paths = |names: Vec<Name>| {
            names
                .into_iter()
                .map(|name| {
                    let name = name.decode().ok()?;
                    if name.is_empty() { Some(RelativePath::root()) } else { RelativePath::new(name).ok() }
                })
                .collect::<Option<Vec<_>>>()
        };
        Some(Self { process: text.process, directories: paths(text.directories)?, made: paths(text.made)? })
    }
}

/// Who is alive here, for an error message; as far as it can be known.
pub(crate) fn living(engine: &Engine) -> Option<String> {
    let names = engine.fs.list(&layout::sessions()).ok()?;
    let mut processes = BTreeSet::new();
    for entry in names {
        if let SessionName::Record(id, number) = layout::parse_session(&entry.name) {
            let record = control::read(engine, &layout::record(id, number)).ok()?;
            processes.extend(Record::decode(&record).map(|record| record.process));
        }
    }
    let all: Vec<_> = processes.iter().map(u32::to_string).collect();
    (!all.is_empty()).then(|| format!("one of the processes {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_a_torn_one_tells_of_nothing() {
        let path = |text| RelativePath::new(text).expect("valid");
        let record = Record {
            process: 7,
            directories: vec![RelativePath::root(), path("a/b")],
            made: vec![path("a")],
        };
        let bytes = record.encode();
        let read = Record::decode(&bytes).expect("whole");
        assert_eq!((read.directories, read.made), (record.directories, record.made));
        for end in 0..bytes.len() {
            assert!(Record::decode(&bytes[..end]).is_none());
        }
    }
}
