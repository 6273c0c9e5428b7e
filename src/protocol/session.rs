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

use super::control;
use super::layout::{self, SessionName};
use super::root::{Root, guard};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Durable, Lock, LockKind, NewFile, Unsynced, Wave};
use crate::generation::TransactionId;
use crate::manifest::text::{Name, seal, unseal};
use crate::path::RelativePath;

const FORMAT: &str = "cosave-session";

/// Tries to find a name that no sweeper is looking at just now; one is enough but for a race.
const START_TRIES_MAX: u32 = 100;

/// One open store's mark, alive as long as this value.
#[derive(Debug)]
pub(crate) struct Session {
    id: Uuid,
    root: Arc<Root>,
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

/// Records that are written, and not yet durable.
#[derive(Debug)]
#[must_use = "a record counts once its wave was waited for"]
pub(crate) struct Recording {
    pub(crate) wave: Wave,
    pub(crate) directories: Vec<RelativePath>,
    /// The record of the directories that are about to be made.
    pub(crate) made: Option<RelativePath>,
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
    /// Makes and locks the mark. Nothing may be staged before its directory is recorded.
    pub(crate) fn start(root: &Arc<Root>) -> Result<Self> {
        control::ensure(root)?;
        let (id, lock) = Self::mark(root)?;
        Ok(Self {
            id,
            root: Arc::clone(root),
            transactions: AtomicU64::new(0),
            state: Mutex::new(State {
                directories: BTreeSet::new(),
                records: Vec::new(),
                numbers: 0,
                removals: Wave::new(Barrier::Swept),
            }),
            marked: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Between making the mark and locking it a sweeper may come by and take it for dead. Then it
    /// either holds the lock (try another name) or has removed the file (`try_lock` notices).
    fn mark(root: &Root) -> Result<(Uuid, Box<dyn Lock>)> {
        for _ in 0..START_TRIES_MAX {
            let id = root.fs.unique();
            let path = layout::session(id);
            let tried = root.fs.try_lock(&path, LockKind::Exclusive);
            if let Some(lock) = tried.map_err(root.error(Operation::Begin, &path))? {
                return Ok((id, lock));
            }
        }
        Err(Error::Unsupported {
            path: root.full(&layout::sessions()),
            reason: "files cannot be locked here, so nobody could tell the living from the dead",
        })
    }

    /// The next transaction's name.
    pub(crate) fn next_transaction(&self) -> TransactionId {
        TransactionId { session: self.id, number: self.transactions.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// The nearest directory at or above `directory` in which something may be staged now.
    pub(crate) fn nearest_on_record(&self, directory: &RelativePath) -> RelativePath {
        let state = guard(&self.state);
        let mut nearest = directory.clone();
        while !nearest.is_root() && !state.directories.contains(&nearest) {
            nearest = nearest.parent();
        }
        nearest
    }

    /// Writes down where this session is about to stage, and what it is about to make. The record of
    /// what is made goes when the transaction is committed.
    pub(crate) fn write_records(
        &self,
        directories: BTreeSet<RelativePath>,
        made: Vec<RelativePath>,
    ) -> Result<Recording> {
        let mut state = guard(&self.state);
        let new: Vec<_> = directories.difference(&state.directories).cloned().collect();
        let mut wave = Wave::new(Barrier::Session);
        // Whoever made a directory that was there before may not have synced its name, without which
        // a power loss takes everything in it.
        for found in new.iter().filter(|directory| !made.contains(directory)) {
            for directory in found.chain() {
                wave.add(Unsynced::directory(directory.parent()));
            }
        }
        let process = self.root.fs.process();
        let staging = Record { process, directories: new.clone(), made: Vec::new() };
        if !staging.directories.is_empty() {
            self.write(&mut state, &staging, &mut wave)?;
        }
        let making = Record { process, directories: Vec::new(), made };
        let made = match making.made.is_empty() {
            true => None,
            false => Some(self.write(&mut state, &making, &mut wave)?),
        };
        Ok(Recording { wave, directories: new, made })
    }

    fn write(&self, state: &mut State, record: &Record, wave: &mut Wave) -> Result<RelativePath> {
        let path = layout::record(self.id, state.numbers);
        state.numbers += 1;
        state.records.push(path.clone());
        let failed = |error| self.root.error(Operation::Begin, &path)(error);
        let (mut file, name) = self.root.fs.create_new(&path, NewFile::Ordinary).map_err(failed)?;
        wave.add(name);
        file.write_all(&record.encode()).map_err(failed)?;
        let (_, content) = file.finish().map_err(failed)?;
        wave.add(content);
        Ok(path)
    }

    /// The records are durable: it may be staged in what they name. Returns the record of what is made.
    pub(crate) fn recorded(
        &self,
        directories: Vec<RelativePath>,
        made: Option<RelativePath>,
        _durable: Durable,
    ) -> Option<RelativePath> {
        guard(&self.state).directories.extend(directories);
        made
    }

    /// The directories made for a transaction are its commit's now: their record goes.
    pub(crate) fn remove_record(&self, record: &RelativePath) -> Option<Unsynced> {
        guard(&self.state).records.retain(|other| other != record);
        // A record that cannot be removed leads the sweep to directories that it finds not empty.
        self.root.fs.remove_file(record).ok()
    }

    /// Puts the debt of a removed staged file off until the session ends.
    pub(crate) fn owe(&self, debt: Unsynced) {
        guard(&self.state).removals.add(debt);
    }

    /// Leaves the mark behind when the session ends, so that the next opening sweeps after it.
    pub(crate) fn leave_mark(&self) {
        self.marked.store(true, Ordering::SeqCst);
    }

    /// Takes the session's files away, the mark last. Errors leave the rest to the next sweep.
    fn end(&self) -> Result<()> {
        let mut state = guard(&self.state);
        let removals = std::mem::replace(&mut state.removals, Wave::new(Barrier::Swept));
        // Lost without this sync: staged names that a power loss brings back, with no mark left that
        // leads to them.
        let _durable = self.root.sync_always(removals)?;
        let mark = layout::session(self.id);
        for path in std::mem::take(&mut state.records).iter().chain([&mark]) {
            let removed = self.root.fs.remove_file(path).map_err(self.root.error(Operation::Remove, path));
            removed?.waive("a record or mark that comes back leads a sweep to nothing");
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // In a child after fork the parent's session goes on: touch nothing.
        if self.root.is_own_process() && !self.marked.load(Ordering::SeqCst) {
            // What could not be removed is what the next sweep is for.
            let _ = self.end();
        }
        guard(&self.lock).take();
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
pub(crate) fn living(root: &Root) -> Option<String> {
    let names = root.fs.list(&layout::sessions()).ok()?;
    let mut processes = BTreeSet::new();
    for entry in names {
        if let SessionName::Record(id, number) = layout::parse_session(&entry.name) {
            let record = control::read(root, &layout::record(id, number)).ok()?;
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
