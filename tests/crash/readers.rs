//! What readers and waiting writers are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cosave::fs::sim::{Aftermath, Fault};
use cosave::{Error, Store};

use crate::rules::{content, open, sim};

const EIO: i32 = 5;

/// A reader that may make no control directory locks the root. Where directories cannot be locked, it
/// looks again after every read, and never shows half of the first commit.
#[test]
fn a_reader_that_can_lock_nothing_is_told_of_a_commit_meanwhile() {
    let disk = sim();
    disk.without_directory_locks();
    let reader = Store::options().read_only(true).open_on(disk.process()).unwrap();
    let view = reader.view().unwrap();
    assert_eq!(view.read("a").unwrap(), b"a0");
    let both = |tx: &mut cosave::Transaction| {
        tx.write("a", "a1")?;
        tx.write("b", "b1")
    };
    open(&disk).update(both).unwrap();
    let error = view.read("b").unwrap_err();
    assert!(error.is_conflict(), "{error}");
    drop(view);
    let view = reader.view().unwrap();
    assert_eq!((view.generation().get(), view.read("b").unwrap()), (1, b"b1".to_vec()));
}

/// A wait is told after a moment and then every second, with those who may be holding the lock.
#[test]
fn a_writer_that_waits_is_told_for_whom_and_how_long() {
    let disk = sim();
    let other = Store::options().inline_max(0).open_on(disk.process()).unwrap();
    let mut beside = other.begin().unwrap();
    beside.write("b", "never").unwrap();
    let view = other.view().unwrap();
    let waits = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&waits);
    let writer = Store::options()
        .lock_timeout(Duration::from_secs(5))
        .on_wait(move |wait| told.lock().unwrap().push((wait.waited, wait.holder.clone())))
        .open_on(disk.process())
        .unwrap();
    let calls = disk.calls();
    let error = writer.update(|tx| tx.write("a", "a1")).unwrap_err();
    let Error::Locked { waited, holder: Some(holder), .. } = error else { panic!("{error:?}") };
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");
    assert!(holder.starts_with("process ") && holder.ends_with(", or this process"), "{holder}");
    assert!(disk.calls() - calls < 10_000, "{} tries in five seconds", disk.calls() - calls);

    let waits = waits.lock().unwrap();
    let seconds: Vec<_> = waits.iter().map(|(waited, _)| waited.as_secs()).collect();
    assert_eq!(seconds, [0, 1, 2, 3, 4]);
    assert!(waits.iter().all(|(_, told)| told.as_ref() == Some(&holder)), "{waits:?}");
    assert!(waits[0].0 >= Duration::from_millis(100), "{waits:?}");
    drop(view);
    assert_eq!(content(&disk, "a"), "a0");
}

/// A transaction that has read tries again after a conflict, and so must not be told one that is none.
#[test]
fn an_error_of_the_disk_is_no_conflict() {
    for after in 0.. {
        let disk = sim();
        let store = open(&disk);
        let mut tx = store.begin().unwrap();
        assert_eq!(tx.read("b").unwrap(), b"b0");
        tx.write("a", "from b0").unwrap();
        let call = disk.calls() + after;
        let aftermath = Aftermath::CacheShowsNew;
        disk.fail_at(&[Fault { after: call, error: EIO, persistent: false, aftermath }]);
        let committed = tx.commit();
        assert!(!committed.is_err_and(|error| error.is_conflict()), "call {after}");
        if disk.calls() <= call {
            assert!(after > 10, "only {after} calls");
            break;
        }
    }
}
