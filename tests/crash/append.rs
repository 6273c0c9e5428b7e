//! A file that grows: what was said to be durable is there after a crash, whole
//! and in order, and nothing follows a gap.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cosave::fs::sim::explore::{Bounds, Progress, Workload};
use cosave::fs::sim::{Aftermath, Crash, Fault, Model, Rule, SimDisk, without};
use cosave::fs::{Barrier, FileSystem};
use cosave::{AppendFile, Error, Outcome, RelativePath};

use crate::property;

/// Appends to one file, and rotates it once, in a directory that is made for it.
pub struct Journal;

const PATH: &str = "new/log";
const ROTATED: &str = "new/log.1";
const EIO: i32 = 5;
const EMFILE: i32 = 24;

fn record(number: u64) -> String {
    format!("{number:04}:{:04}\n", 9999 - number)
}

/// The records at the beginning that are whole, and where they end.
fn whole(file: &mut dyn BufRead) -> io::Result<(Vec<u64>, u64)> {
    let (mut numbers, mut end, mut line) = (Vec::new(), 0, Vec::new());
    while file.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line).into_owned();
        let number = text.get(..4).and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|number| record(*number) == text) else { break };
        numbers.push(number);
        end += line.len() as u64;
        line.clear();
    }
    Ok((numbers, end))
}

fn framing(file: &mut dyn BufRead) -> io::Result<u64> {
    Ok(whole(file)?.1)
}

fn open(fs: Arc<dyn FileSystem>) -> cosave::Result<AppendFile> {
    AppendFile::options().open_on(fs, &RelativePath::new(PATH).unwrap(), framing)
}

/// All records on a disk, of the rotated file and of the new one.
fn records(disk: &SimDisk) -> Result<Vec<u64>, String> {
    let files = disk.files();
    let read = |path: &str| {
        let bytes = files.get(path).map_or(&[][..], Vec::as_slice);
        let (numbers, end) = whole(&mut { bytes }).unwrap();
        (numbers, end == bytes.len() as u64)
    };
    let ((mut all, is_whole), (newer, _)) = (read(ROTATED), read(PATH));
    if !is_whole {
        return Err("the rotated file is torn".to_owned());
    }
    all.extend(newer);
    if all.iter().copied().eq(1..=all.len() as u64) {
        Ok(all)
    } else {
        Err(format!("records are missing in the midst: {all:?}"))
    }
}

fn last(disk: &SimDisk) -> Result<u64, String> {
    Ok(records(disk)?.last().copied().unwrap_or(0))
}

impl Journal {
    fn append(
        journal: &AppendFile,
        progress: &Progress,
        numbers: std::ops::RangeInclusive<u64>,
    ) -> cosave::Result<()> {
        for number in numbers {
            progress.request(number);
            journal.append(record(number))?;
        }
        Ok(())
    }

    fn work(fs: &Arc<dyn FileSystem>, progress: &Progress) -> cosave::Result<()> {
        let journal = open(Arc::clone(fs))?;
        Self::append(&journal, progress, 1..=2)?;
        journal.sync()?;
        progress.acknowledge(2);
        Self::append(&journal, progress, 3..=4)?;
        journal.rotate("log.1")?;
        progress.acknowledge(4);
        Self::append(&journal, progress, 5..=5)?;
        journal.close()?;
        progress.acknowledge(5);
        let journal = open(Arc::clone(fs))?;
        Self::append(&journal, progress, 6..=7)?;
        journal.sync()?;
        progress.acknowledge(7);
        Self::append(&journal, progress, 8..=8)
    }
}

impl Workload for Journal {
    fn name(&self) -> String {
        "a file that grows".to_owned()
    }

    fn prepare(&self, disk: &SimDisk) {
        disk.put("foreign", b"f", 0o600);
    }

    fn run(&self, _: &SimDisk, fs: Arc<dyn FileSystem>, progress: &Progress) {
        let _ = Self::work(&fs, progress);
    }

    fn glance(&self, disk: &SimDisk, bounds: Bounds) -> Result<(), String> {
        self.check(disk, bounds, 0)
    }

    fn recover(&self, fs: Arc<dyn FileSystem>) -> Result<u64, String> {
        let opened = open(Arc::clone(&fs)).and_then(AppendFile::close);
        let directory = RelativePath::new(PATH).unwrap().parent();
        let swept = opened.and_then(|()| cosave::sweep_temporary_files_on(&fs, &directory));
        swept.map(|_| 0).map_err(|error| error.to_string())
    }

    fn check(&self, disk: &SimDisk, bounds: Bounds, _: u64) -> Result<(), String> {
        let found = last(disk)?;
        if found < bounds.floor || found > bounds.ceiling {
            return Err(format!("found {found}, outside {bounds:?}"));
        }
        match disk.files().get("foreign") {
            Some(bytes) if bytes == b"f" => Ok(()),
            found => Err(format!("somebody else's file is {found:?}")),
        }
    }
}

/// A program that goes on after errors: it opens the file again, and appends the record that is missing.
fn persevere(fs: &Arc<dyn FileSystem>, disk: &SimDisk) -> Result<u64, String> {
    let (mut durable, mut journal) = (0, None);
    for _ in 0..6 {
        let opened = match journal.take() {
            Some(journal) => journal,
            None => match open(Arc::clone(fs)) {
                Ok(opened) => opened,
                Err(_) => continue,
            },
        };
        let next = last(disk)? + 1;
        let done = opened.append(record(next)).and_then(|_| opened.sync());
        match done {
            Ok(_) => durable = next,
            Err(Error::NotAppended { .. }) => {
                // Other threads had appended, too. They are told, and not answered as if nothing were missing.
                if opened.append(record(next)).is_ok() || opened.sync().is_ok() {
                    return Err("a file was used after its sync had failed".to_owned());
                }
                continue;
            }
            Err(_) => {}
        }
        journal = Some(opened);
    }
    drop(journal);
    Ok(durable)
}

fn a_failed_sync_loses_nothing_durable() -> Result<(), String> {
    for aftermath in [Aftermath::CacheShowsNew, Aftermath::CacheShowsOld] {
        for after in 0.. {
            let disk = SimDisk::new(Model::WeakPosix);
            disk.fail_at(&[Fault { after, error: EIO, persistent: false, aftermath }]);
            let durable = persevere(&disk.process(), &disk)?;
            if disk.calls() <= after {
                break;
            }
            for found in disk.power_losses(64, 1) {
                let kept = last(&found).map_err(|problem| format!("an error at call {after}: {problem}"))?;
                if kept < durable {
                    return Err(format!("an error at call {after}: {kept} of {durable} are left"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn after_a_failed_sync_nothing_is_appended_and_nothing_is_shown_that_the_disk_may_not_have() {
    assert_eq!(a_failed_sync_loses_nothing_durable(), Ok(()));
    for rule in [Rule::RefuseToAppend, Rule::CutUnsynced] {
        let broken = without(Some(rule), a_failed_sync_loses_nothing_durable);
        println!("{rule:?}: {broken:?}");
        assert!(broken.is_err(), "nobody noticed that {rule:?} is broken");
    }
}

/// The writer was killed, and the records that it had not synced were read and built upon.
fn what_a_killed_writer_left_is_durable_once_it_is_open() -> Result<(), String> {
    for after in 0.. {
        let disk = SimDisk::new(Model::WeakPosix);
        disk.crash_at(Crash { after, reversed: false });
        let ended = Journal::work(&disk.process(), &Progress::default()).is_ok();
        let killed = disk.kill();
        let journal = open(killed.process()).map_err(|error| error.to_string())?;
        assert_eq!(journal.synced_len(), journal.len());
        let (found, was) = (journal.len(), last(&killed)?);
        for loss in killed.power_losses(64, 1) {
            if last(&loss)? < was && found > 0 {
                return Err(format!("death after {after} steps: {} of {was} are left", last(&loss)?));
            }
        }
        if ended {
            break;
        }
    }
    Ok(())
}

#[test]
fn what_is_found_in_a_file_is_durable_before_anything_is_appended() {
    property::holds_by(Rule::SyncFound, what_a_killed_writer_left_is_durable_once_it_is_open);
}

/// So threads that wait for the disk at the same time share one sync: all but the first find it done.
#[test]
fn what_is_durable_is_not_synced_again() {
    let disk = SimDisk::new(Model::WeakPosix);
    let journal = open(disk.process()).unwrap();
    (1..=3).for_each(|number| _ = journal.append(record(number)).unwrap());
    let before = disk.waits(Barrier::Appended);
    (0..3).for_each(|_| _ = journal.sync().unwrap());
    assert_eq!(disk.waits(Barrier::Appended), before + 1);
    journal.append(record(4)).unwrap();
    journal.close().unwrap();
    assert_eq!(disk.waits(Barrier::Appended), before + 2);
    assert_eq!(records(&disk), Ok(vec![1, 2, 3, 4]));
}

#[test]
fn a_record_that_does_not_fit_leaves_nothing_of_itself() {
    let disk = SimDisk::new(Model::WeakPosix);
    let journal = open(disk.process()).unwrap();
    journal.append(record(1)).unwrap();
    disk.free_bytes(Some(4));
    let error = journal.append(record(2)).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert_eq!(disk.files()[PATH], record(1).as_bytes());
    disk.free_bytes(None);
    journal.append(record(2)).unwrap();
    journal.close().unwrap();
    assert_eq!(records(&disk), Ok(vec![1, 2]));
}

#[test]
fn an_error_in_a_rotation_leaves_every_record_and_a_file_that_can_be_opened() {
    for after in 0.. {
        let disk = SimDisk::new(Model::WeakPosix);
        let journal = open(disk.process()).unwrap();
        journal.append(record(1)).unwrap();
        journal.sync().unwrap();
        journal.append(record(2)).unwrap();
        let calls = disk.calls();
        let aftermath = Aftermath::CacheShowsNew;
        disk.fail_at(&[Fault { after: calls + after, error: EIO, persistent: false, aftermath }]);
        let rotated = journal.rotate("log.1");
        let is_over = disk.calls() <= calls + after;
        let next = if journal.append(record(3)).and_then(|_| journal.sync()).is_ok() { 3 } else { 1 };
        drop(journal);
        drop(open(disk.process()).unwrap_or_else(|error| panic!("an error at call {after}: {error}")));
        for found in disk.power_losses(64, 1) {
            let kept = last(&found).unwrap_or_else(|problem| panic!("an error at call {after}: {problem}"));
            assert!(kept >= next, "an error at call {after}: {kept} of {next} are left");
        }
        if is_over {
            assert!(rotated.is_ok());
            break;
        }
    }
}

/// A file of another program appeared at a name that a rotation uses, after the rotation had looked for it.
/// The rename replaced it, and so did the rename back after a failed sync, with all that it had acknowledged.
fn a_rotation_replaces_nothing_that_appears_meanwhile() -> Result<(), String> {
    const STRANGER: &[u8] = b"acknowledged by another program";
    for arrives in [PATH, ROTATED] {
        for (after, fails) in (0..16).flat_map(|after| (0..16).map(move |fails| (after, fails))) {
            let disk = SimDisk::new(Model::WeakPosix);
            let journal = open(disk.process()).unwrap();
            journal.append(record(1)).unwrap();
            journal.sync().unwrap();
            journal.append(record(2)).unwrap();
            let calls = disk.calls();
            disk.make_at(calls + after, arrives, STRANGER);
            let (persistent, aftermath) = (false, Aftermath::CacheShowsNew);
            disk.fail_at(&[Fault { after: calls + fails, error: EIO, persistent, aftermath }]);
            let rotated = journal.rotate("log.1");
            let files = disk.files();
            let is_there = |bytes: &[u8]| files.values().any(|found| found.starts_with(bytes));
            if !is_there(record(1).as_bytes()) || disk.has_made() && !is_there(STRANGER) {
                let case = format!("{arrives} appears at call {after}, an error at call {fails}");
                return Err(format!("{case}: {rotated:?}, and {files:?} is left"));
            }
        }
    }
    Ok(())
}

#[test]
fn a_rotation_replaces_no_file_that_appears_in_its_midst() {
    property::holds_by(Rule::RotateToFree, a_rotation_replaces_nothing_that_appears_meanwhile);
}

/// A child after a fork has its parent's lock, and appended at its parent's end.
fn a_child_leaves_the_file_to_its_parent() -> Result<(), String> {
    let disk = SimDisk::new(Model::WeakPosix);
    let parent = disk.process();
    let journal = open(Arc::clone(&parent)).unwrap();
    journal.append(record(1)).unwrap();
    disk.fork(&*parent);
    let before = disk.fingerprint();
    for refused in [journal.append(record(2)).map(drop), journal.sync().map(drop), journal.rotate("log.1")] {
        if !matches!(refused, Err(Error::Unsupported { .. })) {
            return Err(format!("a child was answered {refused:?}"));
        }
    }
    drop(journal);
    match open(disk.process()) {
        Err(Error::InUse { .. }) if disk.fingerprint() == before => Ok(()),
        opened => Err(format!("a child has changed something: {opened:?}")),
    }
}

#[test]
fn a_child_after_a_fork_leaves_the_file_to_its_parent() {
    property::holds_by(Rule::LeaveToParent, a_child_leaves_the_file_to_its_parent);
}

/// The sync after a record could not begin, since too many files were open. The answer was that nothing had
/// happened. So the record was appended again, and was there twice.
#[test]
fn an_append_says_truthfully_whether_its_record_is_in_the_file() {
    let mut not_begun = 0;
    for (error, after) in [EIO, EMFILE].into_iter().flat_map(|error| (0..8).map(move |after| (error, after)))
    {
        let disk = SimDisk::new(Model::WeakPosix);
        let options = AppendFile::options().sync_every(2);
        let journal = options.open_on(disk.process(), &RelativePath::new(PATH).unwrap(), framing).unwrap();
        // The name that the rotation leaves to the next sync can be out of descriptors, too.
        journal.rotate("log.1").unwrap();
        journal.append(record(1)).unwrap();
        let (persistent, aftermath) = (false, Aftermath::CacheShowsNew);
        disk.fail_at(&[Fault { after: disk.calls() + after, error, persistent, aftermath }]);
        let appended = journal.append(record(2));
        disk.fail_at(&[]);
        let is_there = disk.files()[PATH].ends_with(record(2).as_bytes());
        let is_answered = match &appended {
            Ok(_) => is_there && journal.synced_len() == journal.len(),
            Err(error @ Error::NotYetSynced { .. }) => is_there && error.outcome() == Outcome::Unknown,
            Err(error) => {
                !is_there && (error.outcome() == Outcome::NothingHappened) == journal.sync().is_ok()
            }
        };
        assert!(is_answered, "error {error} at call {after}: {appended:?}");
        if matches!(appended, Err(Error::NotYetSynced { .. })) {
            not_begun += 1;
            // The sync is as due as before.
            journal.append(record(3)).unwrap();
            assert_eq!(journal.synced_len(), journal.len());
            assert_eq!(records(&disk), Ok(vec![1, 2, 3]));
        }
    }
    assert!(not_begun >= 3, "only {not_begun} syncs could not begin");
}

/// The function that was told of an error panicked, as `eprintln!` does if nobody reads it. The thread that
/// syncs ended with it.
#[test]
fn a_panic_of_whoever_is_told_of_an_error_does_not_end_the_syncs() {
    let disk = SimDisk::new(Model::WeakPosix);
    disk.real_time();
    let options = AppendFile::options().sync_within(Duration::from_millis(1));
    let options = options.on_error(|error| panic!("nobody reads this: {error}"));
    let journal = options.open_on(disk.process(), &RelativePath::new(PATH).unwrap(), framing).unwrap();
    let (persistent, aftermath) = (false, Aftermath::CacheShowsNew);
    // The first call is the record's own.
    disk.fail_at(&[Fault { after: disk.calls() + 1, error: EMFILE, persistent, aftermath }]);
    journal.append(record(1)).unwrap();
    let begun = Instant::now();
    while journal.synced_len() < journal.len() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody syncs any more");
        std::thread::yield_now();
    }
}

/// Another program had renamed the file, and put its own in the place. A rotation took that one for its own.
fn a_rotation_leaves_the_file_of_another_program_where_it_is() -> Result<(), String> {
    let disk = SimDisk::new(Model::WeakPosix);
    let journal = open(disk.process()).unwrap();
    journal.append(record(1)).unwrap();
    disk.rename(PATH, "new/taken");
    disk.put(PATH, b"another's", 0o644);
    let rotated = journal.rotate("log.1");
    let is_left = disk.files().get(PATH).is_some_and(|bytes| bytes == b"another's");
    disk.delete(PATH);
    let missing = journal.rotate("log.1");
    let is_conflict = |rotated: &cosave::Result<()>| rotated.as_ref().is_err_and(Error::is_conflict);
    if !is_left || !is_conflict(&rotated) || !is_conflict(&missing) {
        return Err(format!("{rotated:?}, then {missing:?}, and {:?} is left", disk.files()));
    }
    // The file itself is as good as before.
    journal.append(record(2)).unwrap();
    journal.close().unwrap();
    assert_eq!(disk.files()["new/taken"], [record(1), record(2)].concat().as_bytes());
    Ok(())
}

#[test]
fn a_rotation_renames_no_file_but_its_own() {
    property::holds_by(Rule::RotateOwn, a_rotation_leaves_the_file_of_another_program_where_it_is);
}

/// A log that others may not read became readable to all with its first rotation.
#[test]
fn a_rotation_opens_the_new_file_to_nobody_at_no_moment() {
    let mut rotated = false;
    for after in 0.. {
        let disk = SimDisk::new(Model::WeakPosix);
        disk.make_directory("new", 0);
        disk.put(PATH, b"", 0o640);
        let journal = open(disk.process()).unwrap();
        let steps = disk.steps();
        disk.crash_at(Crash { after: steps + after, reversed: false });
        rotated |= journal.rotate("log.1").is_ok();
        let visible = disk.kill();
        for path in visible.files().into_keys() {
            let mode = visible.mode(&path).unwrap();
            assert_eq!(mode & !0o640, 0, "{path} has {mode:o} after {after} steps");
        }
        if !disk.has_crashed() {
            assert!(rotated && visible.mode(PATH) == Some(0o640));
            break;
        }
    }
}
