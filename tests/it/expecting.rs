//! What a transaction expects, and a store that has its root to itself.

use std::fs;
use std::time::Duration;

use cosave::{Checksum, Clash, Error, Expect, Outcome, Store};

use crate::common::{Crash, put, quick, text};

fn clash<T: std::fmt::Debug>(result: cosave::Result<T>) -> Clash {
    match result {
        Err(Error::Conflict { found, .. }) => found,
        other => panic!("{other:?}"),
    }
}

fn is_generation(clash: Clash, wanted: impl Into<cosave::Generation>, newest: u64) -> bool {
    let wanted = wanted.into();
    matches!(clash, Clash::Generation { expected, found, .. } if expected == wanted && found == newest)
}

#[test]
fn what_is_not_as_expected_is_a_conflict_at_once() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1"), ("d/b", "1")]);
    let checksum = Checksum::of(b"1");
    let mut tx = store.begin().unwrap();
    for (path, expect) in [
        ("a", Expect::Present),
        ("d", Expect::Present),
        ("new", Expect::Absent),
        ("a/below", Expect::Absent),
        ("a", Expect::Checksum(checksum)),
        ("a", Expect::Unchanged),
        ("new", Expect::Unchanged),
    ] {
        tx.expect(path, expect).unwrap();
    }
    tx.expect_generation(1).unwrap();
    tx.write("new/file", "mine").unwrap();
    tx.write("a", "2").unwrap();
    assert_eq!(tx.commit().unwrap().generation(), 2);

    let expect = |path, expect| clash(store.begin().unwrap().expect(path, expect));
    assert_eq!(expect("a", Expect::Absent), Clash::Exists);
    assert_eq!(expect("new", Expect::Absent), Clash::Exists);
    assert_eq!(expect("x", Expect::Present), Clash::Missing);
    assert_eq!(expect("x", Expect::Checksum(checksum)), Clash::Missing);
    assert_eq!(expect("a", Expect::Checksum(checksum)), Clash::Checksum);
    let generations = clash(store.begin().unwrap().expect_generation(1));
    assert!(is_generation(generations, 1, 2), "{generations:?}");
    let outside = store.begin().unwrap().expect("../a", Expect::Absent);
    assert!(matches!(outside, Err(Error::InvalidPath { .. })));
}

#[test]
fn what_is_expected_must_be_true_at_the_commit() {
    for (path, expect, found) in [
        ("new", Expect::Absent, Clash::Exists),
        ("gone", Expect::Present, Clash::Missing),
        ("a", Expect::Checksum(Checksum::of(b"1")), Clash::Checksum),
        ("a", Expect::Unchanged, Clash::Changed),
        ("new", Expect::Unchanged, Clash::Changed),
    ] {
        let root = tempfile::tempdir().unwrap();
        let store = quick(root.path());
        put(&store, &[("a", "1"), ("gone", "1")]);
        let mut tx = store.begin().unwrap();
        tx.expect(path, expect).unwrap();
        // What the transaction itself does with the path is no part of it.
        tx.write(path, "mine").unwrap();
        fs::write(root.path().join("new"), "theirs").unwrap();
        fs::write(root.path().join("a"), "2").unwrap();
        fs::remove_file(root.path().join("gone")).unwrap();
        assert_eq!(clash(tx.try_commit()), found, "{path} {expect:?}");
        assert_ne!(fs::read(root.path().join(path)).unwrap_or_default(), b"mine");
    }
}

#[test]
fn an_expectation_without_changes_is_checked_too() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1")]);
    let mut tx = store.begin().unwrap();
    tx.expect("a", Expect::Present).unwrap();
    fs::remove_file(root.path().join("a")).unwrap();
    assert_eq!(clash(tx.commit()), Clash::Missing);
}

/// A person looked at a state, others saved, and the late save of that person went over theirs.
#[test]
fn a_late_save_never_lands_over_a_newer_one() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let generation = put(&store, &[("a", "1")]).generation();
    let mut late = store.begin().unwrap();
    late.expect_generation(generation).unwrap();
    late.write("b", "late").unwrap();
    put(&store, &[("c", "newer")]);
    assert!(is_generation(clash(late.try_commit()), generation, 2));
    assert!(!root.path().join("b").exists());

    let mut runs = 0;
    let error = store.update(|tx| {
        runs += 1;
        tx.expect_generation(generation)?;
        tx.write("b", "late")
    });
    assert!(is_generation(clash(error), generation, 2));
    assert_eq!(runs, 1, "a generation never comes back");
}

#[test]
fn threads_that_expect_one_generation_never_commit_twice_after_it() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let store = store.clone();
                scope.spawn(move || {
                    (0..50_u64)
                        .filter(|generation| {
                            let mut tx = store.begin().unwrap();
                            let path = format!("{thread}");
                            let saved = tx.expect_generation(*generation).and_then(|()| tx.write(path, "x"));
                            saved.and_then(|()| tx.commit()).is_ok_and(|commit| {
                                assert_eq!(commit.generation(), generation + 1);
                                true
                            })
                        })
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(store.generation().unwrap().get(), won as u64);
    assert!(won > 0);
}

#[test]
fn a_store_that_has_the_root_to_itself_is_named_to_all_others() {
    let root = tempfile::tempdir().unwrap();
    let open = || Store::options().lock_timeout(Duration::from_millis(20)).open(root.path()).unwrap();
    let (holder, other) = (open(), open());
    put(&other, &[("a", "1")]);
    let lease = holder.exclusive().unwrap();
    let clone = holder.clone();
    let mut own = clone.begin().unwrap();
    own.write("a", "2").unwrap();
    own.commit().unwrap();
    let name = "this process, which has the root to itself: is a lock or a lease still held?";
    let mut refused = other.begin().unwrap();
    refused.write("a", "theirs").unwrap();
    for error in [refused.try_commit().unwrap_err(), other.exclusive().map(drop).unwrap_err()] {
        assert_eq!(error.outcome(), Outcome::NothingHappened);
        assert!(matches!(&error, Error::Locked { holder: Some(holder), .. } if *holder == name), "{error}");
    }
    assert_eq!(other.view().unwrap().read("a").unwrap(), b"2");
    assert_eq!(text(root.path().join("a")), "2");
    assert!(holder.exclusive().is_err(), "it has it already");
    drop(lease);
    refused.try_commit().unwrap();
    assert_eq!(text(root.path().join("a")), "theirs");
    drop(other.exclusive().unwrap());
}

#[test]
fn recovery_goes_on_while_a_store_has_the_root_to_itself() {
    let root = tempfile::tempdir().unwrap();
    let holder = Store::open(root.path()).unwrap();
    put(&holder, &[("a", "1")]);
    let _lease = holder.exclusive().unwrap();
    let mut crash = Crash::new(root.path());
    crash.write("a", "2");
    crash.publish(2);
    let other = Store::open(root.path()).unwrap();
    assert_eq!(other.last_recovery().rolled_forward, [cosave::Generation::from(2)]);
    assert_eq!(put(&holder, &[("a", "3")]).generation(), 3);
}
