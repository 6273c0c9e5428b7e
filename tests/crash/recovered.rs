//! What a recovery tells, keeps and leaves, beyond the files that it finishes.

use cosave::fs::sim::{Crash, Model, SimDisk};
use cosave::{Durability, Finding, Generation, Store};

use crate::rules::{content, open, sim};

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
        drop(store);
        let expected: &[&str] = if is_committed { &["new"] } else { &[] };
        assert_eq!(disk.directories(), expected);
    }
}
