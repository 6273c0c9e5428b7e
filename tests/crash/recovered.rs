//! What a recovery tells, keeps and leaves, beyond the files that it finishes.

use cosave::fs::sim::{Aftermath, Crash, Fault, Granularity, Model, SimDisk};
use cosave::{Durability, Finding, Generation, Manifest, RelativePath, Store};

use crate::rules::{content, open, sim};

const EIO: i32 = 5;

/// How often two threads make and remove a directory: they meet many times.
const ABORTS: u32 = 500;

/// Commits with a new store, and is killed between the commit point and the first move.
fn published(disk: &SimDisk, change: impl Fn(&mut cosave::Transaction) -> cosave::Result<()>) -> SimDisk {
    let before = disk.files();
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(Crash { after, reversed: false });
        let committed = Store::options().open_on(machine.process()).and_then(|store| store.update(&change));
        if machine.control_names().iter().any(|name| name.contains(".pending")) {
            let mut files = machine.files();
            files.retain(|path, _| !path.ends_with(".cosave"));
            assert_eq!(files, before);
            return machine.kill();
        }
        assert!(committed.is_err(), "a commit without a pending manifest");
    }
    unreachable!("a commit has an end")
}

/// A recovery that was cut short had set a file aside. The next one must find that out, or it leaves
/// the same edit under two names.
#[test]
fn an_edit_is_set_aside_once_however_often_the_recovery_is_cut_short() {
    let edited = published(&sim(), |tx| tx.write("a", "a1"));
    edited.put("a", b"an edit", 0o644);
    edited.sync_file("a");
    edited.sync_name("a");
    for after in 0.. {
        let machine = edited.copy();
        machine.crash_at(Crash { after, reversed: false });
        let ended = Store::options().open_on(machine.process()).is_ok();
        let killed = machine.kill();
        let report = open(&killed).last_recovery();
        assert_eq!(content(&killed, "a"), "a1");
        let kept: Vec<_> = killed.files().into_iter().filter(|(_, bytes)| bytes == b"an edit").collect();
        assert_eq!(kept.len(), 1, "cut short after {after}: {kept:?}, {report:?}");
        if ended {
            assert!(after > 3, "a recovery of {after} steps");
            return;
        }
    }
}

/// Saves `d/x`, whose original somebody puts back after it was moved. On this clock no stamp tells that.
fn put_back(disk: &SimDisk) -> Store {
    disk.clock(Granularity::Still);
    disk.make_directory("d", 0);
    for path in ["a", "d/x"] {
        disk.put(path, b"x0", 0o644);
    }
    disk.settle();
    let store = Store::options().durability(Durability::Committed).open_on(disk.process()).unwrap();
    store.update(|tx| tx.write("d/x", "x1")).unwrap();
    store
}

/// A file of a small save that was in place was not lost, so nothing is restored over what somebody has put
/// there since. That holds while its writer lives, after its death, and after a later wave.
#[test]
fn nothing_is_restored_that_was_in_place() {
    let disk = sim();
    let living = put_back(&disk);
    disk.replace("d/x", b"x0", 0o644);
    let killed = disk.kill();
    assert_eq!(open(&killed).last_recovery().differences.len(), 1);
    assert_eq!(content(&killed, "d/x"), "x0", "over what was put back after the writer's death");
    drop(open(&disk));
    assert_eq!(content(&disk, "d/x"), "x0", "over what was put back beside the living writer");
    drop(living);

    let disk = sim();
    let living = put_back(&disk);
    living.update(|tx| tx.write("a", "a1")).unwrap();
    let has = |found: &SimDisk, name: &str| found.control_names().iter().any(|other| other == name);
    let losses = disk.power_losses(1000, 1).into_iter();
    let both = losses.filter(|found| has(found, "1.pending-inline") && has(found, "2.pending-inline"));
    let both: Vec<_> = both.collect();
    assert!(!both.is_empty(), "no power loss undoes a retirement");
    for found in both {
        assert_eq!(content(&found, "d/x"), "x1");
        found.replace("d/x", b"x0", 0o644);
        drop(open(&found));
        assert_eq!(content(&found, "d/x"), "x0", "over what was put back after the next wave");
    }
}

/// Where a stamp proves nothing, recovery reads what it would replace. If that cannot be read, it is not
/// replaced.
#[test]
fn an_edit_that_cannot_be_read_is_not_taken_for_the_original() {
    let disk = sim();
    disk.clock(Granularity::Still);
    disk.put("a", b"a0", 0o644);
    disk.settle();
    let edited = published(&disk, |tx| tx.write("a", "a1"));
    edited.put("a", b"e9", 0o644);
    for after in 0.. {
        let machine = edited.copy();
        let aftermath = Aftermath::CacheShowsNew;
        machine.fail_at(&[Fault { after, error: EIO, persistent: false, aftermath }]);
        drop(Store::options().open_on(machine.process()));
        let kept = machine.files().values().any(|bytes| bytes == b"e9");
        assert!(kept, "an error at call {after}: {:?}", machine.files());
        if machine.calls() <= after {
            break;
        }
    }
}

/// Where a stamp proves nothing, the bytes say whether it is still the file that was to be removed.
#[test]
fn an_edit_is_not_removed_in_place_of_the_original() {
    let disk = sim();
    disk.clock(Granularity::Still);
    disk.put("a", b"a0", 0o644);
    disk.settle();
    let edited = published(&disk, |tx| tx.remove("a"));
    let same = edited.copy();
    drop(open(&same));
    assert_eq!(content(&same, "a"), "nothing");
    edited.put("a", b"e9", 0o644);
    let differences = open(&edited).last_recovery().differences;
    assert_eq!(content(&edited, "a"), "e9");
    assert!(matches!(&differences[..], [found] if found.finding == Finding::NotRemoved), "{differences:?}");
}

/// Where no file can have two names, an edit is set aside as a copy. The copy takes nobody's name.
#[test]
fn an_edit_is_set_aside_as_a_copy_where_there_are_no_hard_links() {
    let edited = published(&sim(), |tx| tx.write("a", "a1"));
    edited.put("a", b"an edit", 0o644);
    edited.put("a.set-aside-1", b"precious", 0o644);
    edited.without_links();
    let full = edited.copy();
    let report = open(&edited).last_recovery();
    let [found] = report.differences.as_slice() else { panic!("{report:?}") };
    let Finding::SetAside(name) = &found.finding else { panic!("{found:?}") };
    assert_eq!(content(&edited, "a"), "a1");
    assert_eq!(content(&edited, "a.set-aside-1"), "precious");
    assert_eq!(content(&edited, &name.to_string()), "an edit");

    // Without room for the copy nothing is moved, and the reason is told.
    full.free_bytes(Some(0));
    let error = Store::options().open_on(full.process()).unwrap_err();
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(content(&full, "a"), "an edit");
}

/// The file to remove may still exist, in the directory under its new name.
#[test]
fn a_removal_whose_directory_was_renamed_is_told() {
    let disk = sim();
    disk.make_directory("d", 0);
    disk.put("d/x", b"x0", 0o644);
    disk.settle();
    let killed = published(&disk, |tx| tx.remove("d/x"));
    killed.move_away("d", "elsewhere");
    let differences = open(&killed).last_recovery().differences;
    let [found] = differences.as_slice() else { panic!("{differences:?}") };
    assert_eq!((found.path.to_string(), &found.finding), ("d/x".to_owned(), &Finding::DirectoryMissing));
    assert_eq!(content(&killed, "elsewhere/x"), "x0");
}

/// Saves `a` once for each content, with a store that never waits.
fn saved_without_waiting(contents: &[&str]) -> SimDisk {
    let disk = sim();
    let store = Store::options().durability(Durability::Process).open_on(disk.process()).unwrap();
    for content in contents {
        store.update(|tx| tx.write("a", content)).unwrap();
    }
    disk
}

/// What `Process` promises is cheap because nothing is waited for, also not for earlier commits.
#[test]
fn a_store_that_need_not_wait_leaves_everything_to_the_system() {
    let disk = saved_without_waiting(&["a1", "a2", "a3"]);
    let outcomes = disk.power_losses(200, 1);
    let is_lost = |found: &SimDisk| open(found).generation().unwrap() == 0 && content(found, "a") == "a0";
    assert!(outcomes.iter().any(is_lost), "none of {} outcomes has lost all commits", outcomes.len());
}

/// A generation whose manifest is left, but not those before it, was acknowledged and is lost.
#[test]
fn every_lost_generation_up_to_the_newest_name_is_told() {
    let disk = saved_without_waiting(&["a1", "a2", "a3"]);
    let mut lost = 0;
    for found in disk.power_losses(200, 1) {
        let number = |name: String| name.split_once('.')?.0.parse::<u64>().ok();
        let names = found.control_names().into_iter().filter(|name| name.ends_with("-waived"));
        let newest = names.filter_map(number).max().unwrap_or_default();
        let store = open(&found);
        let generation = store.generation().unwrap().get();
        let expected: Vec<Generation> = (generation + 1..=newest).map(Generation::from).collect();
        assert_eq!(store.last_recovery().lost, expected, "of {newest}, {generation} is left");
        lost += expected.len();
    }
    assert!(lost > 10, "only {lost} generations were lost");
}

/// A power loss had torn the newest manifest of commits that did not wait, and left its name. The next such
/// commit was lost together with it, without any further power loss.
#[test]
fn a_commit_that_did_not_wait_rests_on_no_torn_one() {
    let mut torn = 0;
    for found in saved_without_waiting(&["a1", "a2"]).power_losses(500, 1) {
        torn += found.control_names().iter().filter(|name| is_torn(&found, name)).count();
        let store = Store::options().durability(Durability::Process).open_on(found.process()).unwrap();
        let generation = store.update(|tx| tx.write("b", "b9")).unwrap().generation();
        let store = open(&found.kill());
        assert!(store.generation().unwrap() >= generation, "{}", store.last_recovery());
        assert_eq!(store.view().unwrap().read("b").unwrap(), b"b9", "{:?}", found.control_names());
    }
    assert!(torn > 5, "only {torn} manifests are torn");
}

fn is_torn(disk: &SimDisk, name: &str) -> bool {
    let mut bytes = Vec::new();
    let path = RelativePath::new(format!(".cosave/{name}")).unwrap();
    name.ends_with(".applied-waived")
        && disk.process().open(&path).unwrap().read_to_end(&mut bytes).is_ok()
        && Manifest::decode(&bytes).is_err()
}

/// Another transaction has staged in a directory that an aborted one had made, so it stays. Who goes
/// last takes it away, unless a commit has put something there, even if that is removed later.
#[test]
fn a_made_directory_goes_with_the_last_who_used_it_unless_it_was_committed_to() {
    for is_committed in [false, true] {
        let disk = SimDisk::new(Model::WeakPosix);
        let store = Store::options().inline_max(0).open_on(disk.process()).unwrap();
        let (mut first, mut second) = (store.begin().unwrap(), store.begin().unwrap());
        first.write("new/x", "x1").unwrap();
        second.write("new/y", "y1").unwrap();
        first.abort();
        assert_eq!(disk.directories(), ["new"], "somebody has staged there");
        if is_committed {
            second.commit().unwrap();
            store.update(|tx| tx.remove("new/y")).unwrap();
        } else {
            second.abort();
        }
        let expected: &[&str] = if is_committed { &["new"] } else { &[] };
        assert_eq!(disk.directories(), expected);
        drop(store);
        assert_eq!(disk.directories(), expected);
    }
}

/// Who aborts removes the directories that it has made. Another transaction that was about to stage there
/// makes them again, whenever they go.
#[test]
fn transactions_that_make_and_remove_one_directory_do_not_fail_each_other() {
    for path in ["new", "new/dir"] {
        let disk = SimDisk::new(Model::WeakPosix);
        let store = Store::options().inline_max(0).open_on(disk.process()).unwrap();
        std::thread::scope(|scope| {
            for number in 0..2 {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..ABORTS {
                        let mut tx = store.begin().unwrap();
                        tx.write(format!("{path}/{number}"), "never").unwrap();
                        tx.abort();
                    }
                });
            }
        });
        drop(store);
        assert_eq!((disk.directories().len(), sessions(&disk)), (0, 0));
    }
}

/// Commits a file, while another process removes something at the call 0, 1, 2 ... of this.
fn while_something_goes(path: &str, gone: &str, inline_max: usize) {
    for after in 0.. {
        let disk = sim();
        disk.make_directory("new", 0);
        disk.settle();
        let store = Store::options().inline_max(inline_max).open_on(disk.process()).unwrap();
        let mut tx = store.begin().unwrap();
        let gone_at = disk.calls() + after;
        disk.remove_at(gone_at, gone);
        let committed = tx.write(path, "x1").and_then(|()| tx.commit());
        let is_over = disk.calls() <= gone_at;
        let case = format!("{path}, {inline_max} bytes in the manifest, {gone} gone at call {after}");
        assert!(committed.is_ok(), "{case}: {}", committed.unwrap_err());
        // A program may remove the committed file, too.
        let is_there = disk.files().contains_key(path);
        for found in disk.power_losses(10, after).into_iter().filter(|_| is_there) {
            drop(open(&found));
            assert_eq!(content(&found, path), "x1", "{case}");
        }
        if is_over {
            assert!(after > 20 && is_there, "{case}: a transaction of {after} calls");
            break;
        }
    }
}

/// Another process had made the directory, and removed it again between the look at it and the first file or
/// directory in it. That was an error, and only two threads could show it, by chance.
#[test]
fn a_directory_that_goes_at_any_call_of_a_transaction_is_made_again() {
    for (path, inline_max) in [("new/x", 0), ("new/x", 100), ("new/dir/x", 0), ("new/dir/x", 100)] {
        while_something_goes(path, "new", inline_max);
    }
}

/// A file that may be missing went between two looks at it, and could not be removed.
#[test]
fn a_file_that_goes_at_any_call_of_a_transaction_is_removed() {
    for after in 0.. {
        let disk = sim();
        let store = Store::options().inline_max(0).open_on(disk.process()).unwrap();
        let mut tx = store.begin().unwrap();
        let gone_at = disk.calls() + after;
        disk.remove_at(gone_at, "a");
        let removed = tx.remove_if_exists("a").and_then(|_| tx.commit());
        assert!(removed.is_ok(), "gone at call {after}: {}", removed.unwrap_err());
        let is_over = disk.calls() <= gone_at;
        drop(store);
        assert_eq!(content(&disk, "a"), "nothing");
        let generation = open(&disk).generation().unwrap();
        assert!(disk.power_losses(10, after).iter().all(|found| generation == 0 || !has(found, "a")));
        if is_over {
            assert!(after > 10 && generation == 1, "a transaction of {after} calls");
            break;
        }
    }
}

fn has(disk: &SimDisk, path: &str) -> bool {
    disk.files().contains_key(path)
}

/// It may go between two looks at it. Then there is nothing that could not be replaced.
#[test]
fn a_target_that_goes_at_any_call_of_a_transaction_is_made_anew() {
    for inline_max in [0, 100] {
        while_something_goes("a", "a", inline_max);
    }
}

/// A small save needs room for its bytes twice. It was refused where a long one had room.
#[test]
fn a_save_that_does_not_fit_with_its_bytes_in_the_manifest_is_a_long_one() {
    let (mut refused, mut long, mut small) = (0, 0, 0);
    for free in (0..8000).step_by(100) {
        let disk = sim();
        let store = Store::options().durability(Durability::Committed).open_on(disk.process()).unwrap();
        store.update(|tx| tx.write("a", "a1")).unwrap();
        store.flush().unwrap();
        disk.free_bytes(Some(free));
        let committed = store.update(|tx| tx.write("a", [7; 2000]));
        let name = |name| disk.control_names().iter().any(|other| other == name);
        match committed {
            Ok(_) if name("2.pending") => long += 1,
            Ok(_) => small += 1,
            Err(error) => {
                assert_eq!((long, small), (0, 0), "{free} bytes are too few: {error}");
                assert_eq!(content(&disk, "a"), "a1");
                refused += 1;
                continue;
            }
        }
        assert!(name("2.pending") || name("2.pending-inline"));
        for found in disk.power_losses(20, free) {
            drop(open(&found));
            assert_eq!(found.files()["a"], [7; 2000], "{free} bytes");
        }
    }
    assert!(refused > 20 && long > 10 && small > 20, "{refused} refused, {long} long, {small} small");
}

/// A file was removed by a commit that did not wait, and later its directory was, too. The next stronger
/// commit told that the file might still exist.
#[test]
fn a_directory_that_goes_after_the_file_in_it_is_not_told() {
    let disk = sim();
    disk.make_directory("d", 0);
    disk.put("d/x", b"x0", 0o644);
    disk.settle();
    let store = Store::options().durability(Durability::Process).open_on(disk.process()).unwrap();
    store.update(|tx| tx.remove("d/x")).unwrap();
    disk.delete("d");
    drop(store);
    let store = open(&disk);
    store.update(|tx| tx.write("a", "a1")).unwrap();
    assert!(store.last_recovery().differences.is_empty(), "{}", store.last_recovery());
}

/// A store that makes `new` in a transaction, which is aborted when somebody else uses the directory.
fn with_an_orphan(disk: &SimDisk, use_it: impl FnOnce()) -> Store {
    let store = Store::options().inline_max(0).open_on(disk.process()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("new/x", "never").unwrap();
    use_it();
    tx.abort();
    assert_eq!(disk.directories(), ["new"]);
    store
}

fn sessions(disk: &SimDisk) -> usize {
    disk.control_names().iter().filter(|name| name.starts_with("sessions/")).count()
}

/// If another process still stages there, a session leaves its record, so that a later sweep finds the
/// directory. What belongs to no transaction keeps nobody's session.
#[test]
fn a_made_directory_is_left_to_a_sweep_only_while_another_process_stages_there() {
    let disk = SimDisk::new(Model::WeakPosix);
    let other = Store::options().inline_max(0).open_on(disk.process()).unwrap();
    let mut beside = other.begin().unwrap();
    let store = with_an_orphan(&disk, || beside.write("new/y", "never").unwrap());
    drop(store);
    beside.abort();
    drop(other);
    assert_eq!(disk.directories(), ["new"], "who did not make it does not remove it");
    drop(open(&disk));
    assert_eq!((disk.directories().len(), sessions(&disk)), (0, 0));

    let disk = SimDisk::new(Model::WeakPosix);
    drop(with_an_orphan(&disk, || disk.put("new/theirs", b"theirs", 0o644)));
    assert_eq!(sessions(&disk), 0, "a session was left behind for a directory that is in use");
    assert_eq!(content(&disk, "new/theirs"), "theirs");
}
