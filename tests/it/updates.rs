//! Functions of the caller: their values and errors, how often they run, and commits that are tried again.

use std::fs;
use std::io::Write as _;
use std::num::ParseIntError;
use std::time::Duration;

use cosave::{Error, Outcome, Store};

use crate::common::{assert_no_litter, put, quick};

/// An error as a program has it: its own reasons beside those of cosave.
#[derive(Debug)]
enum Failure {
    Store(Error),
    Number,
    SoldOut,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<ParseIntError> for Failure {
    fn from(_: ParseIntError) -> Self {
        Self::Number
    }
}

fn take_one(store: &Store) -> Result<u32, Failure> {
    let commit = store.update(|tx| {
        let stock: u32 = String::from_utf8_lossy(&tx.read("stock")?).parse()?;
        let rest = stock.checked_sub(1).ok_or(Failure::SoldOut)?;
        tx.write("stock", rest.to_string())?;
        Ok::<_, Failure>(rest)
    })?;
    assert_eq!((commit.changes().len(), commit.value()), (1, commit.value()));
    Ok(commit.into_value())
}

#[test]
fn an_update_returns_the_value_and_the_error_of_its_closure() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    assert!(matches!(take_one(&store), Err(Failure::Store(error)) if error.is_not_found()));
    put(&store, &[("stock", "1")]);
    assert_eq!(take_one(&store).unwrap(), 0);
    assert!(matches!(take_one(&store), Err(Failure::SoldOut)));
    put(&store, &[("stock", "many")]);
    assert!(matches!(take_one(&store), Err(Failure::Number)));
    assert_eq!(store.generation().unwrap(), 3, "a closure that failed was committed");
}

/// `update` ran a hundred times, and told only then that the file was there from the beginning.
#[test]
fn a_file_that_is_in_the_way_and_stays_is_told_at_once() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1"), ("b", "1")]);
    let mut runs = 0;
    let error = store.update(|tx| {
        runs += 1;
        tx.create_new("a", "mine")
    });
    assert!(error.unwrap_err().is_conflict());
    assert_eq!(runs, 1);

    let mut runs = 0;
    let error = store.update(|tx| {
        runs += 1;
        tx.create_new("new", "mine")?;
        fs::write(root.path().join("new"), "theirs").unwrap();
        Ok::<_, Error>(())
    });
    assert!(error.unwrap_err().is_conflict());
    assert_eq!(runs, 2, "the file appeared during the first try and was there in the second");

    let mut runs = 0;
    let done = store.update(|tx| {
        runs += 1;
        let b = tx.read("b")?;
        if b == b"1" {
            put(&store, &[("b", "2")]);
            tx.create_new("a", "mine")?;
        }
        Ok::<_, Error>(b)
    });
    assert_eq!(done.unwrap().value(), b"2", "what it had read was out of date, so it runs again");
    assert_eq!(runs, 2);
}

#[test]
fn a_writing_function_returns_its_own_value_and_error() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    let failed = tx.write_with("a", |out| {
        write!(out, "half").map_err(Error::from)?;
        Err::<(), _>(Failure::SoldOut)
    });
    assert!(matches!(failed, Err(Failure::SoldOut)), "{failed:?}");
    let refused = tx.write_with("../a", |_| Ok::<_, Failure>(()));
    assert!(matches!(refused, Err(Failure::Store(Error::InvalidPath { .. }))), "{refused:?}");
    assert!(tx.changes().unwrap().is_empty());
    let length = tx.write_with("a", |out| out.write_all(b"whole").map(|()| 5)).unwrap();
    assert_eq!((length, tx.commit().unwrap().changes().len()), (5, 1));

    let path = root.path().join("single");
    cosave::write(&path, "old").unwrap();
    let failed = cosave::write_with(&path, |out| {
        out.write_all(b"half").map_err(Error::from)?;
        Err::<(), _>(Failure::Number)
    });
    assert!(matches!(failed, Err(Failure::Number)), "{failed:?}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(cosave::write_with(&path, |out| out.write_all(b"new").map(|()| 3)).unwrap(), 3);
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn an_error_keeps_its_kind_on_its_way_through_an_io_error() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let missing = store.begin().unwrap().read("a").unwrap_err();
    let back = Error::from(std::io::Error::from(missing));
    assert!(back.is_not_found(), "{back}");
    let own = Error::from(std::io::Error::other("mine"));
    assert!(matches!(&own, Error::Caller { source, .. } if source.to_string() == "mine"), "{own}");
    assert_eq!(own.outcome(), Outcome::NothingHappened);
}

/// The transaction was gone, and with it the chance to try again later.
#[test]
fn a_commit_that_waited_in_vain_is_tried_again_with_all_its_changes() {
    for inline_max in [0, 1 << 20] {
        let root = tempfile::tempdir().unwrap();
        let options = Store::options().lock_timeout(Duration::from_millis(10)).inline_max(inline_max);
        let store = options.open(root.path()).unwrap();
        put(&store, &[("a", "old"), ("gone", "old")]);
        let mut tx = store.begin().unwrap();
        tx.read("a").unwrap();
        tx.write("a", "new").unwrap();
        tx.write("new/dir/b", "new").unwrap();
        tx.remove("gone").unwrap();
        let view = store.view().unwrap();
        let changes = tx.changes().unwrap();
        for _ in 0..2 {
            assert!(matches!(tx.try_commit(), Err(Error::Locked { .. })));
            assert_eq!(tx.changes().unwrap(), changes);
            assert_eq!(tx.read("a").unwrap(), b"new");
            assert!(tx.read("gone").unwrap_err().is_not_found());
        }
        drop(view);
        tx.write("new/dir/b", "newer").unwrap();
        tx.write("c", "added").unwrap();
        let commit = tx.try_commit().unwrap();
        assert_eq!((commit.generation().get(), commit.changes().len()), (2, 4));
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"new");
        assert_eq!(fs::read(root.path().join("new/dir/b")).unwrap(), b"newer");
        assert_eq!(fs::read(root.path().join("c")).unwrap(), b"added");
        assert!(!root.path().join("gone").exists());
        drop(store);
        assert_no_litter(root.path());
    }
}

#[test]
fn a_refused_transaction_that_is_dropped_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().lock_timeout(Duration::from_millis(10)).open(root.path()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("new/dir/a", "1").unwrap();
    let view = store.view().unwrap();
    assert!(matches!(tx.try_commit(), Err(Error::Locked { .. })));
    drop((tx, view));
    assert!(!root.path().join("new").exists());
    drop(store);
    assert!(Store::open(root.path()).unwrap().last_recovery().is_clean());
}

#[test]
fn what_was_in_the_way_can_be_removed_before_the_next_try() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    tx.create_new("a", "mine").unwrap();
    let mut open = tx.writer("b").unwrap();
    assert!(matches!(tx.try_commit(), Err(Error::Unfinished { .. })));
    open.write_all(b"late").unwrap();
    open.finish().unwrap();
    fs::write(root.path().join("a"), "theirs").unwrap();
    assert!(tx.try_commit().unwrap_err().is_conflict());
    fs::remove_file(root.path().join("a")).unwrap();
    assert_eq!(tx.try_commit().unwrap().changes().len(), 2);
    assert_eq!(fs::read(root.path().join("a")).unwrap(), b"mine");
}

#[test]
fn what_a_transaction_has_read_counts_at_every_try() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1"), ("b", "1")]);
    let mut tx = store.begin().unwrap();
    tx.read("a").unwrap();
    tx.write("b", "2").unwrap();
    put(&store, &[("a", "2")]);
    for _ in 0..3 {
        assert!(tx.try_commit().unwrap_err().is_conflict());
    }
    assert_eq!(fs::read(root.path().join("b")).unwrap(), b"1");
}

#[test]
fn a_transaction_is_over_after_its_commit() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    for path in ["a", ""] {
        let mut tx = store.begin().unwrap();
        if !path.is_empty() {
            tx.write(path, "1").unwrap();
        }
        tx.try_commit().unwrap();
        let refused = [tx.write("b", "1"), tx.read("a").map(drop), tx.remove("a"), tx.try_commit().map(drop)];
        for refused in refused.into_iter().chain([tx.changes().map(drop)]) {
            assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
        }
    }
}
