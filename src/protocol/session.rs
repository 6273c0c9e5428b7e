//! A session: shows that an open store lives, and where it stages.
//!
//! A session's mark is a file that its process holds locked. The kernel
//! releases the lock when the process dies, however it dies. So no process
//! number or age decides anything. Beside the mark lie records of the
//! directories in which the session stages, and of those that it makes. A
//! record is durable before anything that it names exists. So no power loss can
//! leave a file to which no record leads. A directory that is on record costs
//! no more waits, unless others have put another one in its place.
//!
//! The session relies on an existing control directory, and never touches a
//! target or a staged file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::layout::{self, SessionName};
use super::root::{Root, guard, if_found};
use crate::error::{Error, Operation, Reason, Result};
use crate::fs::{Barrier, Durable, Identity, Lock, LockKind, NewFile, Unsynced, Wave};
use crate::generation::TransactionId;
use crate::manifest::name::Name;
use crate::manifest::text::{seal, unseal};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

const FORMAT: &str = "cosave-session";

/// How many names are tried. More than one is needed only if a sweep looks at a new mark.
const START_TRIES_MAX: u32 = 100;

/// From this many records of directories on, one record replaces them all.
const RECORDS_MAX: usize = 8;

/// The mark of one open store, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    id: Uuid,
    root: Arc<Root>,
    transactions: AtomicU64,
    state: Mutex<State>,
    marked: AtomicBool,
    _lock: Box<dyn Lock>,
}

#[derive(Debug, Default)]
struct State {
    /// The directories on record.
    directories: BTreeSet<RelativePath>,
    /// Directories whose names are durable, and what identified them then.
    durable: BTreeMap<RelativePath, Option<Identity>>,
    /// The records of directories in which it stages.
    records: Vec<RelativePath>,
    /// The records of directories that transactions make.
    made: BTreeSet<RelativePath>,
    /// Records that are no longer needed. They are removed once the removals of what they name are
    /// durable.
    spent: BTreeSet<RelativePath>,
    numbers: u32,
    /// Directories that a transaction has made, and whose names may not be durable yet.
    undurable: BTreeMap<RelativePath, Option<Identity>>,
    /// Directories that an aborted transaction has made, and could not remove because they were not
    /// empty.
    orphans: BTreeSet<RelativePath>,
    /// Removals of staged files and made directories that are not durable yet.
    removals: Unsynced,
}

impl State {
    /// The existing directories whose names may not be durable, as far as this session knows.
    fn unknown(&self, looked: &Looked) -> BTreeMap<RelativePath, Option<Identity>> {
        let mut names = BTreeMap::new();
        for (directory, found) in &looked.existing {
            // A directory that was moved into a new one has a new name there.
            if names.contains_key(&directory.parent()) || !self.knows(directory, *found) {
                names.insert(directory.clone(), *found);
            }
        }
        names
    }

    /// Whether the directory at this path is the one whose name is durable, or soon will be.
    fn knows(&self, directory: &RelativePath, found: Option<Identity>) -> bool {
        let is_same = |known: &Option<Identity>| *known == found || !keeps(Rule::RecogniseDirectories);
        self.durable.get(directory).is_some_and(is_same) || self.undurable.get(directory).is_some_and(is_same)
    }
}

/// The directories in which a transaction will stage, and all above them: what was found there.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) missing: BTreeSet<RelativePath>,
    pub(crate) existing: BTreeMap<RelativePath, Option<Identity>>,
}

/// What is on record once a wave is durable.
#[derive(Debug, Default)]
#[must_use = "a record counts only after its wave was waited for"]
pub(crate) struct Written {
    directories: BTreeSet<RelativePath>,
    /// Directories whose names are in the wave.
    names: BTreeMap<RelativePath, Option<Identity>>,
    /// The record of the directories.
    stages: Option<RelativePath>,
    /// The record of the directories that will be made.
    makes: Option<RelativePath>,
    /// Records that may be removed then.
    spent: Vec<RelativePath>,
}

/// A record: where a session stages.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Its process, for people to read.
    pub(crate) process: u32,
    /// Directories in which it stages.
    #[serde(serialize_with = "write_paths", deserialize_with = "read_paths")]
    pub(crate) directories: Vec<RelativePath>,
    /// Directories that a transaction makes, parents before children.
    #[serde(serialize_with = "write_paths", deserialize_with = "read_paths")]
    pub(crate) made: Vec<RelativePath>,
}

impl Session {
    /// Makes and locks the mark, in an existing control directory. A directory must be recorded before
    /// anything is staged in it.
    pub(crate) fn start(root: &Arc<Root>) -> Result<Self> {
        let (id, lock) = Self::mark(root)?;
        Ok(Self {
            id,
            root: Arc::clone(root),
            transactions: AtomicU64::new(1),
            state: Mutex::default(),
            marked: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// A sweep may find the mark before it is locked, and take the session for dead. Then the sweep
    /// holds the lock, or it has removed the file, and another name is tried.
    fn mark(root: &Root) -> Result<(Uuid, Box<dyn Lock>)> {
        for _ in 0..START_TRIES_MAX {
            let id = root.fs.unique();
            let path = layout::session(id);
            let failed = || root.error(Operation::Begin, &path);
            let (_, name) = root.fs.create_new(&path, NewFile::Ordinary).map_err(failed())?;
            name.waive("nothing is staged before a record beside it is durable, and its name with it");
            let locked = if_found(root.fs.try_lock(&path, LockKind::Exclusive)).map_err(failed())?;
            if let Some(lock) = locked.flatten() {
                return Ok((id, lock));
            }
        }
        Err(Error::Unsupported { path: root.full(&layout::SESSIONS.path()).into(), reason: Reason::NoLocks })
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// Whether the mark can still be seen. Another program may have removed the control directory.
    pub(crate) fn is_marked(&self) -> bool {
        self.root.fs.metadata(&layout::session(self.id)).is_ok()
    }

    /// The next transaction's id.
    pub(crate) fn next_transaction(&self) -> TransactionId {
        TransactionId { session: self.id, number: self.transactions.fetch_add(1, Ordering::Relaxed) }
    }

    /// Writes records of where this session will stage, and of which directories it will make.
    pub(crate) fn write_records(
        &self,
        directories: &BTreeSet<RelativePath>,
        looked: &Looked,
    ) -> Result<(Wave, Written)> {
        let made = &looked.missing;
        let mut state = guard(&self.state);
        // A directory that is made anew may be on a record that is removed with an earlier transaction.
        let is_new =
            |directory: &&RelativePath| !state.directories.contains(*directory) || made.contains(*directory);
        let new: BTreeSet<_> = directories.iter().filter(is_new).cloned().collect();
        let names = state.unknown(looked);
        let mut wave = Wave::new(Barrier::Session);
        if new.is_empty() && made.is_empty() && names.is_empty() {
            return Ok((wave, Written::default()));
        }
        // Others may have made an existing directory, or put another one in its place, without syncing
        // its name. A power loss could then undo that, and take everything in it along.
        for directory in names.keys() {
            wave.add(Unsynced::directory(directory.parent()));
        }
        let mut spent = Vec::new();
        let mut listed = new.clone();
        if state.records.len() >= RECORDS_MAX {
            listed.extend(state.directories.iter().cloned());
            spent.clone_from(&state.records);
        }
        let process = self.root.fs.process();
        let stages = Record { process, directories: listed.into_iter().collect(), made: Vec::new() };
        let makes = Record { process, directories: Vec::new(), made: made.iter().cloned().collect() };
        let stages = self.write(&mut state, &stages, &mut wave)?;
        let makes = self.write(&mut state, &makes, &mut wave)?;
        // A spent record may be removed once the removals of what it names are durable.
        let earlier = std::mem::take(&mut state.spent).into_iter();
        spent.extend(earlier.filter(|record| ![&stages, &makes].contains(&&Some(record.clone()))));
        if keeps(Rule::RemoveThenForget) {
            wave.add(std::mem::take(&mut state.removals));
        }
        Ok((wave, Written { directories: new, names, stages, makes, spent }))
    }

    /// The existing directories that others may have made, or put in the place of others, without syncing
    /// their names.
    pub(crate) fn unknown(&self, looked: &Looked) -> Vec<RelativePath> {
        guard(&self.state).unknown(looked).into_keys().collect()
    }

    /// Writes a record, unless it is empty. It counts as spent until it is durable.
    fn write(&self, state: &mut State, record: &Record, wave: &mut Wave) -> Result<Option<RelativePath>> {
        if record.directories.is_empty() && record.made.is_empty() {
            return Ok(None);
        }
        let path = layout::record(self.id, state.numbers);
        state.numbers += 1;
        state.spent.insert(path.clone());
        let failed = self.root.error(Operation::Begin, &path);
        let (name, content) = self.root.make(&path, &record.encode()).map_err(failed)?;
        wave.add(name.and(content));
        Ok(Some(path))
    }

    /// Notes that the records are durable: files may be staged in the directories that they name, and
    /// `made` may be made. Returns the record of what is made, which is removed when the transaction is
    /// over.
    pub(crate) fn recorded(
        &self,
        written: Written,
        made: &BTreeSet<RelativePath>,
        _durable: Durable,
    ) -> Option<RelativePath> {
        let Written { directories, names, stages, makes, spent } = written;
        let mut state = guard(&self.state);
        state.directories.extend(directories);
        names.keys().for_each(|directory| _ = state.undurable.remove(directory));
        state.durable.extend(names);
        for directory in made {
            state.undurable.entry(directory.clone()).or_default();
        }
        state.records.extend(stages);
        state.made.extend(makes.clone());
        for record in spent {
            state.records.retain(|other| *other != record);
            self.root.try_remove(&record, "a record that comes back leads a sweep to nothing");
        }
        makes
    }

    /// Those directories on the paths to these, and among these, that a transaction of this session has
    /// made, and that may not be durable yet. Parents come before children.
    pub(crate) fn undurable(&self, directories: &BTreeSet<RelativePath>) -> Vec<RelativePath> {
        let state = guard(&self.state);
        if state.undurable.is_empty() || !keeps(Rule::SyncOthersDirectories) {
            return Vec::new();
        }
        let chain: BTreeSet<_> = directories.iter().flat_map(RelativePath::chain).collect();
        chain.into_iter().filter(|directory| state.undurable.contains_key(directory)).collect()
    }

    /// Notes what identifies a directory that a transaction has made.
    pub(crate) fn made(&self, directory: &RelativePath, identity: Option<Identity>) {
        guard(&self.state).undurable.insert(directory.clone(), identity);
    }

    /// Notes that directories that were made are durable.
    pub(crate) fn durable(&self, directories: &[RelativePath]) {
        let mut state = guard(&self.state);
        for directory in directories {
            if let Some(identity) = state.undurable.remove(directory) {
                state.durable.insert(directory.clone(), identity);
            }
        }
    }

    /// Notes that directories that were made are removed again, not yet durably, and that these records
    /// name nothing else.
    pub(crate) fn unmade(&self, directories: &[RelativePath], records: Vec<RelativePath>, debt: Unsynced) {
        let mut state = guard(&self.state);
        state.removals.add(debt);
        for directory in directories {
            state.undurable.remove(directory);
            state.durable.remove(directory);
            state.directories.remove(directory);
            state.orphans.remove(directory);
        }
        for record in records {
            state.made.remove(&record);
            state.spent.insert(record);
        }
    }

    /// Notes a directory that an aborted transaction made, and that is not empty. Removing it is tried
    /// again when another transaction is aborted, and when the session ends.
    pub(crate) fn orphan(&self, directory: RelativePath) {
        guard(&self.state).orphans.insert(directory);
    }

    /// The directories whose removal is to be tried again, parents first.
    pub(crate) fn orphans(&self) -> Vec<RelativePath> {
        guard(&self.state).orphans.iter().cloned().collect()
    }

    /// Notes that a commit needs this directory, so it stays, and those above it.
    pub(crate) fn adopt(&self, directory: &RelativePath) {
        let mut state = guard(&self.state);
        if !state.orphans.is_empty() {
            directory.chain().iter().for_each(|directory| _ = state.orphans.remove(directory));
        }
    }

    /// Notes that a commit removes this directory. If there is another one at this path, even with the
    /// same number, its name is not durable yet.
    pub(crate) fn forget(&self, directory: &RelativePath) {
        self.unmade(std::slice::from_ref(directory), Vec::new(), Unsynced::default());
    }

    /// Notes that a commit moves or removes this directory, with all that are in it.
    pub(crate) fn forget_tree(&self, directory: &RelativePath) {
        let mut state = guard(&self.state);
        let stays = |path: &RelativePath| !path.as_path().starts_with(directory.as_path());
        state.durable.retain(|path, _| stays(path));
        state.undurable.retain(|path, _| stays(path));
        state.directories.retain(stays);
        state.orphans.retain(stays);
    }

    /// Removes the record of directories that a transaction made, because its commit needs them now.
    pub(crate) fn remove_record(&self, record: &RelativePath) -> Option<Unsynced> {
        guard(&self.state).made.remove(record);
        // A record that cannot be removed leads a sweep to directories that are not empty.
        self.root.fs.remove_file(record).ok()
    }

    /// Defers the debt of a removed staged file until the session ends.
    pub(crate) fn owe(&self, debt: Unsynced) {
        guard(&self.state).removals.add(debt);
    }

    /// Leaves the mark behind when the session ends, so that the next opening sweeps what it left.
    pub(crate) fn leave_mark(&self) {
        self.marked.store(true, Ordering::SeqCst);
    }

    /// Removes the session's files, the mark last. After an error the next sweep does the rest.
    fn end(&self) -> Result<()> {
        let mut state = guard(&self.state);
        let mut removals = Wave::new(Barrier::Swept);
        removals.add(std::mem::take(&mut state.removals));
        for directory in std::mem::take(&mut state.orphans).iter().rev() {
            match self.root.fs.remove_dir(directory) {
                Ok(debt) => removals.add(debt),
                // Another process still stages there. A sweep after both sessions finds the directory
                // by its record.
                Err(error) if self.is_staged_in(directory) => {
                    return Err(self.root.error(Operation::Remove, directory)(error));
                }
                // It is gone, or another program uses it.
                Err(_) => {}
            }
        }
        // Lost without this sync: the removal of staged names. A power loss could bring them back, with
        // no mark left that leads to them.
        let _durable = self.root.sync_always(removals)?;
        let State { records, made, spent, .. } = &mut *state;
        let all = records.drain(..).chain(std::mem::take(made)).chain(std::mem::take(spent));
        for path in all.chain([layout::session(self.id)]) {
            let reason = "a record or mark that comes back leads a sweep to nothing";
            self.root.remove(Operation::Remove, &path, reason)?;
        }
        Ok(())
    }

    fn is_staged_in(&self, directory: &RelativePath) -> bool {
        let names = self.root.fs.list(directory).unwrap_or_default();
        names.iter().any(|entry| layout::parse_staged(&entry.name).is_some())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // In a child after `fork` the parent's session goes on, so nothing may be touched.
        if self.root.is_own_process() && !self.marked.load(Ordering::SeqCst) {
            // The next sweep removes what could not be removed here.
            let _ = self.end();
        }
        // The mark's lock is released last, with the rest of the session.
    }
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        // Names and numbers always have a JSON form.
        seal(FORMAT, &serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads a record. One that is not whole was never relied upon, and counts as missing.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_str(unseal(FORMAT, bytes).ok()?).ok()
    }
}

fn write_paths<S: Serializer>(paths: &[RelativePath], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|path| Name::new(path.as_path().as_os_str())))
}

fn read_paths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RelativePath>, D::Error> {
    let path = |name: Name| {
        let name = name.decode().map_err(D::Error::custom)?;
        if name.is_empty() {
            Ok(RelativePath::root())
        } else {
            RelativePath::new(name).map_err(D::Error::custom)
        }
    };
    Vec::deserialize(from)?.into_iter().map(path).collect()
}

/// Who may hold a lock of this root, as far as is known, for an error message.
pub(crate) fn holder(root: &Root) -> Option<String> {
    if root.is_read() {
        return Some("this process: is a view still open?".to_owned());
    }
    let names = root.fs.list(&layout::SESSIONS.path()).ok()?;
    let mut processes = BTreeSet::new();
    for entry in names {
        if let Some(SessionName::Record(id, number)) = layout::parse_session(&entry.name) {
            let record = root.read(&layout::record(id, number)).ok()??;
            processes.extend(Record::decode(&record).map(|record| record.process));
        }
    }
    holder_among(&mut processes, root.fs.process())
}

/// Names the processes that have a session. Readers have none, so they cannot be named.
fn holder_among(processes: &mut BTreeSet<u32>, own: u32) -> Option<String> {
    let is_own = processes.remove(&own);
    let others: Vec<_> = processes.iter().map(u32::to_string).collect();
    let others = match others.as_slice() {
        [] => return is_own.then(|| "this process, or one that only reads".to_owned()),
        [one] => format!("process {one}"),
        _ => format!("one of the processes {}", others.join(", ")),
    };
    Some(if is_own { format!("{others}, or this process") } else { others })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_named_as_exactly_as_it_is_known() {
        let cases: [(&[u32], Option<&str>); 6] = [
            (&[], None),
            (&[7], Some("this process, or one that only reads")),
            (&[8], Some("process 8")),
            (&[7, 8], Some("process 8, or this process")),
            (&[8, 9], Some("one of the processes 8, 9")),
            (&[7, 8, 9], Some("one of the processes 8, 9, or this process")),
        ];
        for (processes, named) in cases {
            let mut living = processes.iter().copied().collect();
            assert_eq!(holder_among(&mut living, 7).as_deref(), named, "{processes:?}");
        }
    }

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
