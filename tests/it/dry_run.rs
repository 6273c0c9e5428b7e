//! What a transaction would change, when nothing may be written.

use std::io::Write as _;

use cosave::{Change, Error, Expect, Store, Transaction};

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
    "create  copy (6 bytes, mode …)",
    "create  c (1 bytes)",
];

/// The changes as text. The mode of a copied file comes from the umask.
fn shown(changes: &[Change]) -> Vec<String> {
    let without_mode = |shown: String| match shown.split_once(", mode ") {
        Some((before, _)) => format!("{before}, mode …)"),
        None => shown,
    };
    changes.iter().map(|change| without_mode(change.to_string())).collect()
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
            assert_eq!(shown(&tx.changes().unwrap()), SHOWN);
            assert_eq!(tx.read("a").unwrap(), b"longer");
            assert_eq!(tx.metadata("new/deep/b").unwrap().length(), 3 << 20);
            assert!(!tx.exists("gone").unwrap() && tx.exists("new/deep").unwrap());
            assert!(tx.read("missing").unwrap_err().is_not_found());
            assert!(matches!(tx.write("../a", ""), Err(Error::InvalidPath { .. })));
            assert!(matches!(tx.try_commit(), Err(Error::Unsupported { .. })));
            assert_eq!(shown(&tx.changes().unwrap()), SHOWN);
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
    let planned = plan.changes().unwrap();
    let done = store.update(edit).unwrap();
    assert_eq!(planned, done.changes());
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
    assert_eq!(shown(&plan.changes().unwrap()), ["replace a (1 -> 2 bytes)"]);
}

// A plan that was shown and agreed to was refused when it was committed.
#[test]
fn a_plan_is_refused_for_what_its_commit_would_be_refused_for() {
    type Work = fn(&mut Transaction) -> cosave::Result<()>;
    let cases: [(&str, Work); 6] = [
        ("a directory that goes and a file in it", |tx| {
            tx.remove("d/f")?;
            tx.remove_dir("d")?;
            tx.write("d/g", "2")
        }),
        ("a new file where one is", |tx| tx.create_new("a", "2")),
        ("another generation", |tx| tx.expect_generation(7).or_else(|_| tx.write("a", "2"))),
        ("a file that is not there", |tx| {
            let _ = tx.expect("missing", Expect::Present);
            tx.write("a", "2")
        }),
        ("what has changed since it was read", |tx| {
            tx.read("a")?;
            tx.write("b", "1")
        }),
        ("a writer that is not finished", |tx| tx.writer("c").map(drop)),
    ];
    for (case, work) in cases {
        for is_dry in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let store = quick(root.path());
            put(&store, &[("a", "1"), ("d/f", "")]);
            let mut tx = if is_dry { store.dry_run().unwrap() } else { store.begin().unwrap() };
            work(&mut tx).unwrap();
            if case.contains("changed") {
                put(&store, &[("a", "changed")]);
            }
            let planned = tx.changes().unwrap_err();
            if !is_dry {
                let refused = tx.try_commit().unwrap_err();
                assert_eq!(planned.to_string(), refused.to_string(), "{case}");
            }
            assert_ne!(text(root.path().join("a")), "2", "{case}");
        }
    }
}

#[test]
fn a_plan_has_the_directories_that_are_pruned() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("d/e/a", "1"), ("d/b", "1"), ("kept/a", "1")]);
    let mut tx = store.begin().unwrap();
    tx.prune_empty_parents();
    tx.remove("d/e/a").unwrap();
    let shown = |tx: &Transaction| shown(&tx.changes().unwrap());
    assert_eq!(shown(&tx), ["remove  d/e/a (1 bytes)", "remove  d/e/"]);
    // A plan takes nothing away from the transaction.
    assert!(tx.exists("d/e").unwrap());
    tx.remove("d/b").unwrap();
    let pruned = ["remove  d/e/a (1 bytes)", "remove  d/b (1 bytes)", "remove  d/e/", "remove  d/"];
    assert_eq!(shown(&tx), pruned);
    tx.write("d/new", "1").unwrap();
    assert_eq!(shown(&tx)[2..], ["create  d/new (1 bytes)", "remove  d/e/"]);
    tx.remove("d/new").unwrap();
    assert_eq!(shown(&tx), pruned);
    let planned = tx.changes().unwrap();
    assert_eq!(planned, tx.commit().unwrap().changes());
    assert!(!root.path().join("d").exists());
}
