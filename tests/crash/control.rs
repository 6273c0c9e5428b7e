//! The control directory while it is made and looked at, and commits that share its lock: an error at
//! any call is told, and is never taken for an answer.

use cosave::fs::sim::{Aftermath, Fault, SimDisk};
use cosave::{Error, InvalidPath, Outcome, Store, Transaction};

use crate::rules::{open, sim};

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn fault(after: u64, error: i32) -> Fault {
    Fault { after, error, persistent: false, aftermath: Aftermath::CacheShowsNew }
}

/// Runs a case on a copy of the disk, with an error at call 0, 1, 2 ..., as long as there are such calls.
fn at_every_call(disk: &SimDisk, error: i32, case: impl Fn(&SimDisk)) {
    for after in 0.. {
        let machine = disk.copy();
        machine.fail_at(&[fault(after, error)]);
        case(&machine);
        if machine.calls() <= after {
            assert!(after > 5, "only {after} calls");
            return;
        }
    }
}

/// A part that is missing would be made by every later session, and waited for.
#[test]
fn a_first_commit_leaves_a_whole_control_directory_or_fails() {
    at_every_call(&sim(), ENOSPC, |machine| {
        let store = Store::options().open_on(machine.process());
        if store.and_then(|store| store.update(|tx| tx.write("a", "a1"))).is_ok() {
            let names = machine.control_names();
            for part in ["lock", "queue", ".gitignore"] {
                assert!(names.iter().any(|name| name == part), "{part} is missing: {names:?}");
            }
        }
    });
}

/// The missing part was looked for and not found, and nobody was told what had gone wrong.
#[test]
fn a_part_that_cannot_be_made_is_told_as_what_it_is() {
    let told = std::cell::Cell::new(0);
    at_every_call(&sim(), ENOSPC, |machine| {
        let viewed = Store::options().open_on(machine.process()).and_then(|store| store.view().map(drop));
        if let Err(error) = viewed {
            assert!(!error.is_not_found(), "{error}");
            told.set(told.get() + 1);
        }
    });
    assert!(told.get() > 5, "{} errors were told", told.get());
}

/// Only where nothing is left of the owner, its root was moved.
#[test]
fn a_control_directory_whose_owner_cannot_be_looked_at_is_not_taken_over() {
    let disk = sim();
    for root in ["one", "two"] {
        disk.make_directory(root, 0);
    }
    let open =
        |disk: &SimDisk, root| Store::options().open_on(disk.process_with_control(root, "control").unwrap());
    open(&disk, "one").unwrap().update(|tx| tx.write("a", "one's")).unwrap();
    at_every_call(&disk, EIO, |machine| {
        assert!(open(machine, "two").is_err(), "a second root was let in");
        machine.fail_at(&[]);
        assert!(open(machine, "one").is_ok(), "the owner was refused");
    });
}

/// Two transactions of one batch that write one file under two names are published one after the other.
/// After a failed sync of the first, the second must not begin.
#[test]
fn what_comes_later_in_a_batch_does_not_begin_after_a_failed_sync() {
    let disk = sim();
    disk.make_directory("d", 0);
    disk.put("d/x", b"0", 0o644);
    disk.bind("d", "again");
    disk.settle();
    let (mut failed, mut together) = (0, 0);
    for after in 0.. {
        let machine = disk.copy();
        let store = open(&machine);
        let stage = |path: &str, content: &str| {
            let mut tx = store.begin().unwrap();
            tx.write(path, content).unwrap();
            tx
        };
        let both = vec![stage("d/x", "1"), stage("again/x", "2")];
        let call = machine.calls() + after;
        machine.fail_at(&[fault(call, EIO)]);
        let answers = Transaction::commit_together(both);
        if machine.calls() <= call {
            break;
        }
        // An error before the lock is taken is the only answer.
        let [first, second] = &answers[..] else { continue };
        if first.is_err() && store.begin().is_err() {
            failed += 1;
            let later = second.as_ref().unwrap_err();
            // The last wait of the first is in the wave of the second, so that one wave can fail both.
            let is_in_place = matches!(first, Err(Error::NotApplied { .. }));
            let expected = if is_in_place { Outcome::Unknown } else { Outcome::NothingHappened };
            assert_eq!(later.outcome(), expected, "call {after}: {first:?}, then {later}");
            together += u32::from(is_in_place);
        }
    }
    assert!(failed > 1 && together > 0, "only {failed} syncs failed, {together} of them that of both");
}

/// What was a file when it was staged can be a directory at the commit.
#[test]
fn a_target_that_has_become_a_directory_is_refused_by_its_name() {
    let disk = sim();
    let mut tx = open(&disk).begin().unwrap();
    tx.write("a", "a1").unwrap();
    disk.delete("a");
    disk.make_directory("a", 0);
    let error = tx.commit().unwrap_err();
    let is_named = matches!(&error, Error::InvalidPath { reason: InvalidPath::Directory, .. });
    assert!(is_named, "{error}");

    disk.make_directory("d", 0);
    let mut tx = open(&disk).begin().unwrap();
    tx.write("d/x", "x1").unwrap();
    disk.delete("d");
    disk.put("d", b"a file", 0o644);
    let error = tx.write("d/y", "y1").unwrap_err();
    let is_named = matches!(&error, Error::InvalidPath { reason: InvalidPath::NotADirectory, .. });
    assert!(is_named, "{error}");
}

/// Another program may remove the file between two looks at it. Only its directory cannot go.
#[test]
fn a_file_that_goes_away_while_it_is_looked_at_can_be_written() {
    let mut refused = 0;
    for after in 0.. {
        let machine = sim();
        let store = open(&machine);
        let mut tx = store.begin().unwrap();
        let call = machine.calls() + after;
        machine.fail_at(&[fault(call, ENOENT)]);
        refused += u32::from(tx.write("a", "a1").is_err());
        if machine.calls() <= call {
            assert!(after > 2, "only {after} looks");
            break;
        }
    }
    assert!(refused <= 1, "{refused} looks were refused");
}
