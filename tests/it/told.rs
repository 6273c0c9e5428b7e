//! What errors and reports say: the path and the operation that are meant, and what to do.

use std::fs;
use std::path::Path;

use cosave::{AppendFile, AtomicFile, Durability, Store};

use crate::common::put;

fn open(root: &Path) -> Store {
    Store::options().durability(Durability::Process).open(root).unwrap()
}

/// "Read it again and retry", a thousand times, over a file that somebody had removed by hand.
#[test]
fn a_conflict_that_no_retry_can_end_says_so() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().keep(10).durability(Durability::Process).open(root.path()).unwrap();
    put(&store, &[("a", "1")]);
    put(&store, &[("a", "2")]);
    fs::remove_file(root.path().join("a")).unwrap();
    let by_hand = store.undo().unwrap_err();
    let log = AppendFile::open(root.path().join("log")).unwrap();
    fs::write(root.path().join("taken"), "1").unwrap();
    let rotated = log.rotate("taken").unwrap_err();
    let under = AtomicFile::create_under(root.path().join("b"), "taken").unwrap_err();
    for error in [by_hand, rotated, under] {
        assert!(error.is_conflict() && !error.is_retryable(), "{error}");
        assert!(error.to_string().ends_with("look at what is there, and decide anew"), "{error}");
    }
}

/// Two stores wrote the same new file. The second one said that it had created it.
#[test]
fn a_commit_tells_what_it_has_replaced_though_others_made_it_meanwhile() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (open(root.path()), open(root.path()));
    put(&store, &[("old", "1"), ("gone", "1")]);
    let mut tx = store.begin().unwrap();
    for path in ["new", "old", "gone"] {
        tx.write(path, "22").unwrap();
    }
    tx.remove("gone").unwrap();
    put(&other, &[("new", "333"), ("old", "4444"), ("gone", "55555")]);
    let commit = tx.commit().unwrap();
    let shown: Vec<_> = commit.changes().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["replace new (3 -> 2 bytes)", "replace old (4 -> 2 bytes)", "remove  gone (5 bytes)"]);
}

#[test]
fn directories_are_not_counted_as_files() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let made = store.update(|tx| tx.create_dir("d")).unwrap();
    assert_eq!(made.to_string(), "generation 1: 1 directory changed");
    let both = store.update(|tx| {
        tx.create_dir("e")?;
        tx.remove_dir("d")?;
        tx.write("a", "1")
    });
    assert_eq!(both.unwrap().to_string(), "generation 2: 1 file and 2 directories changed");
}
