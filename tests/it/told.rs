//! What errors and reports say: the path and the operation that are meant, and what to do.

use std::path::Path;

use cosave::{Durability, Store};

use crate::common::put;

fn open(root: &Path) -> Store {
    Store::options().durability(Durability::Process).open(root).unwrap()
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
