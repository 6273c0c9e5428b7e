//! Sweeps that meet an error, a directory that refuses, or a name that somebody else uses. Whatever
//! they meet, they touch no living session's files, and the next sweep finds what this one has left.

use cosave::Store;
use cosave::fs::sim::{Aftermath, Crash, Fault, Model, SimDisk};

use crate::rules::{content, open, sim, staged_names};

const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;

fn fault(after: u64, error: i32) -> Fault {
    Fault { after, error, persistent: false, aftermath: Aftermath::CacheShowsNew }
}

/// A process stages in `d` and in `new/dir`, which it makes, and is killed.
fn killed_while_staging() -> SimDisk {
    let disk = sim();
    disk.make_directory("d", 0);
    disk.settle();
    let store = Store::options().inline_max(0).open_on(disk.process()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("d/x", "never").unwrap();
    tx.write("new/dir/y", "never").unwrap();
    let killed = disk.kill();
    assert_eq!((staged_names(&killed).len(), killed.directories().len()), (2, 3));
    killed
}

fn assert_swept(disk: &SimDisk) {
    assert_eq!(staged_names(disk), [""; 0]);
    assert_eq!(disk.directories(), ["d"]);
    let sessions = disk.control_names().into_iter().filter(|name| name.contains("sessions/"));
    assert_eq!(sessions.count(), 0);
}

/// An error of the disk is no refusal, and is told. Where a directory refuses, the sweep goes on with the
/// others. After either, the next sweep finds everything that is left.
#[test]
fn an_error_at_any_call_of_a_sweep_leaves_everything_to_the_next_one() {
    let killed = killed_while_staging();
    for error in [EIO, EACCES] {
        let mut refused = 0;
        for after in 0.. {
            let machine = killed.copy();
            machine.fail_at(&[fault(after, error)]);
            let opened = Store::options().open_on(machine.process());
            let reached = machine.calls() > after;
            if let Ok(store) = opened {
                let unswept = store.last_recovery().unswept;
                assert!(error == EACCES || unswept.is_empty(), "call {after}: {unswept:?} refused nothing");
                refused += unswept.len();
            }
            machine.fail_at(&[]);
            drop(open(&machine));
            assert_swept(&machine);
            if !reached {
                break;
            }
        }
        assert!(error == EIO || refused > 2, "only {refused} refusals");
    }
}

/// A directory may let go of nothing: then all others are swept, and its record stays.
#[test]
fn what_a_frozen_directory_keeps_is_swept_once_it_lets_go() {
    for (frozen, left) in [("d", "d"), ("new/dir", "new/dir"), ("new", "new/dir")] {
        let machine = killed_while_staging();
        machine.freeze(frozen, true);
        for _ in 0..2 {
            let store = open(&machine);
            let unswept = store.last_recovery().unswept;
            assert_eq!(unswept.iter().map(ToString::to_string).collect::<Vec<_>>(), [left], "{frozen}");
            if frozen == "new" {
                // Nothing staged is left in it, so only the directory that was made stays.
                assert_eq!(store.deep_sweep().unwrap().unswept, unswept, "{frozen}");
            }
            assert!(staged_names(&machine).iter().all(|name| name.starts_with(frozen)), "{frozen}");
        }
        machine.freeze(frozen, false);
        drop(open(&machine));
        assert_swept(&machine);
    }
}

/// Whoever cannot find out whether a session lives must not take it for dead.
#[test]
fn an_error_while_looking_whether_a_session_lives_costs_it_nothing() {
    let killed = killed_while_staging();
    for after in 0.. {
        let machine = killed.copy();
        let living = Store::options().inline_max(0).recover(false).open_on(machine.process()).unwrap();
        let mut tx = living.begin().unwrap();
        tx.write("a", "the living's").unwrap();
        let call = machine.calls() + after;
        machine.fail_at(&[fault(call, EMFILE)]);
        drop(Store::options().open_on(machine.process()));
        let reached = machine.calls() > call;
        machine.fail_at(&[]);
        tx.commit().unwrap_or_else(|error| panic!("an error at call {after}: {error}"));
        assert_eq!(content(&machine, "a"), "the living's");
        if !reached {
            assert!(after > 10, "a sweep of {after} calls");
            break;
        }
    }
}

/// A sweep asks for the lock of a mark. Somebody's directory under its name has none, and stays.
#[test]
fn a_directory_in_the_place_of_a_mark_is_no_session() {
    let machine = killed_while_staging();
    let names = machine.control_names();
    let mark = names.iter().find(|name| name.starts_with("sessions/") && !name.contains('.')).unwrap();
    let mark = format!(".cosave/{mark}");
    machine.delete(&mark);
    machine.make_directory(&mark, 0);
    assert_eq!(open(&machine).last_recovery().swept.len(), 4);
    machine.remove_all(&mark);
    assert_swept(&machine);
}

/// What an aborted transaction cannot remove is left to a sweep, and what others have removed is not.
#[test]
fn a_made_directory_that_cannot_be_removed_yet_is_swept_later() {
    let disk = sim();
    disk.make_directory("d", 0);
    let stage = || {
        let store = Store::options().inline_max(0).open_on(disk.process()).unwrap();
        let mut tx = store.begin().unwrap();
        tx.write("new/dir/y", "never").unwrap();
        (store, tx)
    };
    let (store, tx) = stage();
    disk.freeze("new", true);
    tx.abort();
    drop(store);
    disk.freeze("new", false);
    assert_eq!(disk.directories().len(), 3);
    drop(open(&disk));
    assert_swept(&disk);

    let (store, tx) = stage();
    disk.remove_all("new");
    tx.abort();
    drop(store);
    assert_swept(&disk);
}

/// A killed process had removed the directory that it had made, and nobody had synced that. Once the record was
/// gone, a power loss brought the directory back for ever.
#[test]
fn a_made_directory_that_a_killed_process_has_removed_stays_removed() {
    let mut removed = 0;
    for after in 0.. {
        let disk = SimDisk::new(Model::WeakPosix);
        disk.crash_at(Crash { after, reversed: false });
        let aborted = Store::options().inline_max(0).open_on(disk.process()).and_then(|store| {
            let mut tx = store.begin()?;
            tx.write("new/x", "never")?;
            tx.abort();
            Ok(())
        });
        let killed = disk.kill();
        removed += u32::from(aborted.is_ok() && killed.directories().is_empty());
        drop(open(&killed));
        for found in killed.power_losses(100, after) {
            drop(open(&found));
            assert_eq!(found.directories(), [""; 0], "killed after {after} steps");
        }
        if !disk.has_crashed() {
            assert!(removed > 3, "only {removed} processes were killed after they had removed the directory");
            break;
        }
    }
}
