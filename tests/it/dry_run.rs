//! What a transaction would change, when nothing may be written.

use std::io::Write as _;

use cosave::{Change, Error, Store, Transaction};

use crate::common::{put, quick, text, tree};

/// Some of everything, and more than stays in memory otherwise.
fn edit(tx: &mut Transaction) -> cosave::Result<()> {
    tx.write("a", "longer")?;
    tx.write_with("new/deep/b", |out| out.write_all(&vec![1; 3 << 20]))?;
    tx.remove("gone")?;
    tx.copy("a", "copy")?;
    tx.create_new("c", "1")
}

const SHOWN: [&str; 5] = [
    "replace a (2 -> 6 bytes)",
    "create  new/deep/b (3145728 bytes)",
    "remove  gone (4 bytes)",
    "create  copy (6 bytes)",
    "create  c (1 bytes)",
];

fn shown(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_dry_run_says_what_a_commit_would_change_and_writes_nothing() {
    for read_only in [true, false] {
        for has_control in [true, false] {
            let root = tempfile::tempdir().unwrap();
            if has_control {
                put(&quick(root.path()), &[("a", "12"), ("gone", "1234")]);
            } else {
                cosave::write(root.path().join("a"), "12").unwrap();
                cosave::write(root.path().join("gone"), "1234").unwrap();
            }
            let store = Store::options().read_only(read_only).open(root.path()).unwrap();
            let before = tree(root.path());
            let mut tx = store.dry_run().unwrap();
            assert_eq!(tx.read("a").unwrap(), b"12");
            edit(&mut tx).unwrap();
            assert_eq!(shown(&tx.changes()), SHOWN);
            assert_eq!(tx.read("a").unwrap(), b"longer");
            assert_eq!(tx.metadata("new/deep/b").unwrap().length(), 3 << 20);
            assert!(!tx.exists("gone").unwrap() && tx.exists("new/deep").unwrap());
            assert!(tx.read("missing").unwrap_err().is_not_found());
            assert!(matches!(tx.write("../a", ""), Err(Error::InvalidPath { .. })));
            assert!(matches!(tx.try_commit(), Err(Error::Unsupported { .. })));
            assert_eq!(shown(&tx.changes()), SHOWN);
            drop((tx, store));
            assert_eq!(tree(root.path()), before);
        }
    }
}

#[test]
fn a_commit_changes_what_the_dry_run_said() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "12"), ("gone", "1234")]);
    let mut plan = store.dry_run().unwrap();
    edit(&mut plan).unwrap();
    let done = store.update(edit).unwrap();
    assert_eq!(plan.changes(), done.changes());
    assert_eq!(shown(done.changes()), SHOWN);
    assert_eq!(text(root.path().join("copy")), "longer");
}

#[test]
fn a_dry_run_reads_one_state_and_sees_what_has_changed() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1"), ("b", "1")]);
    let plan = store.dry_run().unwrap();
    assert_eq!(plan.read("a").unwrap(), b"1");
    put(&store, &[("a", "2"), ("b", "2")]);
    assert!(plan.read("b").unwrap_err().is_conflict());
}

#[cfg(unix)]
#[test]
fn a_dry_run_tells_what_would_not_be_allowed_unless_the_store_is_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    cosave::write(root.path().join("a"), "1").unwrap();
    let unwritable = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(root.path().join("a"), unwritable).unwrap();
    let writable = Store::open(root.path()).unwrap();
    let mut real = writable.begin().unwrap();
    let mut plan = writable.dry_run().unwrap();
    assert_eq!(plan.write("a", "2").is_ok(), real.write("a", "2").is_ok());
    let store = Store::options().read_only(true).open(root.path()).unwrap();
    let mut plan = store.dry_run().unwrap();
    plan.write("a", "23").unwrap();
    assert_eq!(shown(&plan.changes()), ["replace a (1 -> 2 bytes)"]);
}
