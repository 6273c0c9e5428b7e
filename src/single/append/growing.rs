//! What the threads of a growing file share: its end, and up to where it is
//! durable. Appending, the syncs, and the rotation.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::super::atomic::LIVING_TRIES_MAX;
use super::options::AppendOptions;
use crate::error::{Error, Operation, Reason, Result};
use crate::expect::Clash;
use crate::fs::{Barrier, FileSystem, GrowingFile, NewFile, SyncError, Unsynced, Wave};
use crate::mutation::{Rule, keeps};
use crate::options::SyncStrategy;
use crate::path::RelativePath;
use crate::place::Place;
use crate::protocol::caller::Claim;
use crate::protocol::layout;
use crate::protocol::root::{guard, if_found};

/// A growing file, for many threads.
pub(super) struct Shared {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) path: RelativePath,
    /// Where it lies, and the path as the caller gave it, for errors.
    pub(super) place: Place,
    pub(super) options: AppendOptions,
    pub(super) state: Mutex<State>,
    /// Held by the thread that waits for the disk. The others can append meanwhile.
    pub(super) syncing: Mutex<()>,
    /// Wakes the timer.
    pub(super) changed: Condvar,
    /// The process that has opened it.
    pub(super) process: u32,
}

pub(super) struct State {
    pub(super) file: Box<dyn GrowingFile>,
    /// The file was made by a rotation, and no sync has made its name durable yet.
    pub(super) owes_name: bool,
    pub(super) length: u64,
    pub(super) synced: u64,
    /// How many records no sync has begun to make durable.
    pub(super) unsynced: u64,
    /// When the first of them was appended.
    pub(super) since: Option<Duration>,
    /// Those of the records that a sync has begun with, and has not ended.
    pub(super) under_way: (u64, Option<Duration>),
    /// How often the file was rotated.
    pub(super) rotations: u64,
    /// Why nothing can be appended any more.
    pub(super) failed: Option<Error>,
    pub(super) is_closed: bool,
}

impl Shared {
    fn io(&self, operation: Operation) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(operation, self.place.clone())
    }

    /// Whether this is the process that has opened the file, and not a child after `fork`.
    pub(super) fn is_own_process(&self) -> bool {
        self.fs.process() == self.process || !keeps(Rule::LeaveToParent)
    }

    /// Refuses everything in a child, which shares the lock with its parent (flock(2)) and knows nothing of
    /// what that one appends. Called before any mutex is locked: one that another thread held at the fork
    /// is never released.
    pub(super) fn refuse_child(&self) -> Result<()> {
        if self.is_own_process() {
            return Ok(());
        }
        Err(Error::Unsupported { path: self.place.clone(), reason: Reason::Forked })
    }

    pub(super) fn append(&self, state: &mut State, claim: &Claim, record: &[u8]) -> Result<u64> {
        state.check()?;
        let begin = state.length;
        self.decide(claim)?;
        if record.is_empty() {
            return Ok(begin);
        }
        if let Err(error) = state.file.append(record) {
            if let Err(cut) = state.file.cut(begin) {
                // A part of a record is in the midst of the file. Nothing may follow it.
                let error = self.not_appended(state.synced, cut);
                state.failed = Some(error.clone());
                return Err(error);
            }
            return Err(self.io(Operation::Write)(error));
        }
        state.length += record.len() as u64;
        state.unsynced += 1;
        state.since.get_or_insert_with(|| self.fs.elapsed());
        Ok(begin)
    }

    /// From now on the caller gets what he has asked for, unless he has given it up before. Nobody else changes
    /// the file meanwhile, so what is asked for later comes later.
    fn decide(&self, claim: &Claim) -> Result<()> {
        claim.perform(|| ()).ok_or_else(|| Error::Cancelled { path: self.place.clone() })
    }

    fn not_appended(&self, synced: u64, source: io::Error) -> Error {
        Error::NotAppended { path: self.place.clone(), synced, source: Arc::new(source) }
    }

    /// Waits until the first `length` bytes are durable, of the file that was rotated so often. One sync
    /// serves all threads that wait for it.
    pub(super) fn sync_up_to(&self, length: u64, rotations: u64) -> Result<u64> {
        let _syncing = guard(&self.syncing);
        let (wave, reached) = {
            let mut state = guard(&self.state);
            if state.rotations > rotations {
                // It has another name now, and is durable under that.
                return Ok(state.synced);
            }
            state.check()?;
            if state.synced >= length {
                return Ok(state.synced);
            }
            (self.begin_sync(&mut state)?, state.length)
        };
        let synced = self.fs.sync(wave, SyncStrategy::PerFile).map(drop);
        self.end_sync(&mut guard(&self.state), reached, synced)
    }

    fn begin_sync(&self, state: &mut State) -> Result<Wave> {
        let debt = state.file.debt().map_err(self.io(Operation::Sync))?;
        state.under_way = (std::mem::take(&mut state.unsynced), state.since.take());
        let mut wave = Wave::new(Barrier::Appended);
        // Lost without this sync: records that were said to be durable, and the name of a file that a
        // rotation has made.
        wave.add(debt);
        if state.owes_name {
            wave.add(Unsynced::directory(self.path.parent()));
        }
        Ok(wave)
    }

    fn end_sync(&self, state: &mut State, reached: u64, synced: Result<(), SyncError>) -> Result<u64> {
        let (records, since) = std::mem::take(&mut state.under_way);
        match synced {
            Ok(()) => (state.synced, state.owes_name) = (reached, false),
            Err(SyncError { attempted: false, source, .. }) => {
                // They are as unsynced as before.
                state.unsynced += records;
                state.since = since.or(state.since);
                self.changed.notify_all();
                return Err(self.io(Operation::Sync)(source));
            }
            Err(SyncError { source, .. }) => {
                let error = self.not_appended(state.synced, source);
                state.failed = keeps(Rule::RefuseToAppend).then(|| error.clone());
                if keeps(Rule::CutUnsynced) && state.file.cut(state.synced).is_ok() {
                    // Otherwise the page cache would show what the disk may not have, and whoever opens
                    // the file next would take it for durable.
                    state.length = state.synced;
                }
                return Err(error);
            }
        }
        Ok(reached)
    }

    pub(super) fn rotate(&self, state: &mut State, claim: &Claim, to: &RelativePath) -> Result<()> {
        state.check()?;
        let target = Place::from(self.fs.full_path(to));
        let taken = || Error::Conflict { path: target.clone(), found: Clash::Exists };
        // Only to wait for nothing if it is taken already.
        if if_found(self.fs.metadata(to)).map_err(Error::io(Operation::Look, target.clone()))?.is_some() {
            return Err(taken());
        }
        if state.synced < state.length && keeps(Rule::SyncRotated) {
            let (wave, reached) = (self.begin_sync(state)?, state.length);
            // Lost without this sync: the last records of the old file, although later ones are durable.
            let synced = self.fs.sync(wave, SyncStrategy::PerFile).map(drop);
            self.end_sync(state, reached, synced)?;
        }
        let is_own = state.file.is_at(&self.path).map_err(self.io(Operation::Look))?;
        if !is_own && keeps(Rule::RotateOwn) {
            return Err(Error::Conflict { path: self.place.clone(), found: Clash::Changed });
        }
        let next = self.make_next().map_err(self.io(Operation::Create))?;
        self.decide(claim)?;
        let mut names = Wave::new(Barrier::Rotated);
        // Somebody may have made one during the wait.
        names.add(self.rename(&self.path, to).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(),
            _ => self.io(Operation::Rename)(error),
        })?);
        // Lost without this sync: the old file's new name, and with it all its records, if its old name is
        // already another file's. POSIX promises no order among names.
        if let Err(SyncError { source, .. }) = self.fs.sync(names, SyncStrategy::PerFile) {
            // A second sync would prove nothing. So nobody may find the old name free, and use it. Whoever
            // has done so by now keeps it.
            if let Ok(back) = self.rename(to, &self.path) {
                back.waive("whichever name the file has, no other file can have taken it");
            }
            return Err(self.stop(state, source));
        }
        let file = next.take_place().map_err(|error| self.stop(state, error))?;
        (state.file, state.length, state.owes_name) = (file, 0, true);
        (state.synced, state.unsynced, state.since) = (0, 0, None);
        state.rotations += 1;
        Ok(())
    }

    /// Makes the empty file that is to take the place of this one, under a temporary name. So nobody sees it
    /// before it has the rights of this one, and if it cannot be made, nothing has happened yet.
    fn make_next(&self) -> io::Result<Next<'_>> {
        let like = self.fs.metadata(&self.path)?;
        let next = self.open_next()?;
        // Windows has no rights to copy, and would not open the file a second time to write.
        if self.fs.has_modes() {
            let (_, rights) = self.fs.copy_permissions(&self.path, &like, &next.temporary)?;
            rights.waive("the sync of the first record makes them durable, too");
        }
        Ok(next)
    }

    /// A sweep that has met the file before it was locked has the lock, and removes it.
    fn open_next(&self) -> io::Result<Next<'_>> {
        let mut tries = 1;
        loop {
            let temporary = layout::single(&self.path, self.fs.unique());
            match self.fs.open_to_append(&temporary, NewFile::Private) {
                Ok((file, name)) => {
                    name.waive("it gets the name that must last later");
                    return Ok(Next { shared: self, file: Some(file), temporary });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < LIVING_TRIES_MAX => {
                    tries += 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives a file a name that is free.
    fn rename(&self, from: &RelativePath, to: &RelativePath) -> io::Result<Unsynced> {
        if keeps(Rule::RotateToFree) { self.fs.rename_new(from, to) } else { self.fs.rename(from, to) }
    }

    /// Refuses everything from now on, since the file has another name, or none that lasts.
    fn stop(&self, state: &mut State, source: io::Error) -> Error {
        let error = Error::NotSynced { path: self.place.clone(), source: Arc::new(source) };
        state.failed = Some(error.clone());
        error
    }
}

/// The file that is to take the place of another one. Removed if it does not.
struct Next<'a> {
    shared: &'a Shared,
    /// Locked, so that no sweep takes it for that of a dead writer.
    file: Option<Box<dyn GrowingFile>>,
    temporary: RelativePath,
}

impl Next<'_> {
    fn take_place(mut self) -> io::Result<Box<dyn GrowingFile>> {
        let name = self.shared.rename(&self.temporary, &self.shared.path)?;
        name.waive("the next sync makes it durable; without it the file has no records");
        self.file.take().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Next<'_> {
    fn drop(&mut self) {
        // It is closed before it is removed, since Windows keeps the name of an open file.
        if self.file.take().is_some() {
            if let Ok(debt) = self.shared.fs.remove_file(&self.temporary) {
                debt.waive("an empty temporary file that a power loss brings back is swept");
            }
        }
    }
}

impl State {
    fn check(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::super::AppendFile;
    use super::*;
    use crate::fs::sim::{Aftermath, Fault, Model, SimDisk};

    /// A thread had appended, and waited for its turn to sync. Meanwhile another one rotated the file, and the
    /// sync of the new one failed. The first one was told that its record was lost.
    #[test]
    fn a_record_is_durable_if_the_file_was_rotated_while_its_thread_waited() {
        let disk = SimDisk::new(Model::WeakPosix);
        let path = RelativePath::new("log").expect("a valid path");
        let file = AppendFile::options().open_on(disk.process(), &path, |_| Ok(0)).expect("open");
        file.append("old").expect("appended");
        file.rotate("log.1").expect("rotated");
        file.append("new").expect("appended");
        let (persistent, aftermath) = (true, Aftermath::CacheShowsNew);
        disk.fail_at(&[Fault { after: disk.calls(), error: 5, persistent, aftermath }]);
        assert_eq!(file.shared.sync_up_to(3, 0).expect("durable under its other name"), 0);
        file.shared.sync_up_to(3, 1).expect_err("the new one is not");
    }

    #[test]
    fn what_was_given_up_is_not_appended_and_not_rotated() {
        let disk = SimDisk::new(Model::WeakPosix);
        let path = RelativePath::new("log").expect("a valid path");
        let file = AppendFile::options().open_on(disk.process(), &path, |_| Ok(0)).expect("open");
        let gone = Claim::default();
        gone.withdraw();
        for refused in [file.append_for(&gone, b"never").map(drop), file.rotate_for(&gone, "log.1".as_ref())]
        {
            assert!(matches!(refused, Err(Error::Cancelled { .. })), "{refused:?}");
        }
        file.append("1").expect("as good as before");
        assert_eq!(disk.files(), [("log".to_owned(), b"1".to_vec())].into());
    }
}
