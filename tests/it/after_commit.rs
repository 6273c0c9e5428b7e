//! What can go wrong after the commit point, what is found before it, and the way out of the rest.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Command;

use cosave::{Error, Outcome, Store};

use crate::common::{assert_no_litter, child, child_root, put, run, say, text};
use crate::mounts::run_under;

/// An ext4 of the child's own, mounted at `$ROOT/disk`: it knows `chattr`, and is the kernel's.
const EXT4: &str = "truncate -s 16m \"$ROOT/image\" && mkfs.ext4 -q -F \"$ROOT/image\" \
                    && mkdir \"$ROOT/disk\" && mount -o loop \"$ROOT/image\" \"$ROOT/disk\"";

fn chattr(flag: &str, path: &Path) {
    assert!(Command::new("chattr").arg(flag).arg(path).status().unwrap().success(), "{flag}");
}

/// Append-only targets and directories passed every check, and the move failed after the commit point:
/// from then on every commit and every opening failed.
#[test]
fn a_target_that_cannot_be_replaced_is_refused_before_the_commit_point() {
    let root = tempfile::tempdir().unwrap();
    run_under(EXT4, "after_commit::child_with_frozen_targets", root.path());
    assert!(!root.path().join("disk/a").exists(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_target_that_cannot_be_replaced_is_refused_before_the_commit_point"]
fn child_with_frozen_targets() {
    let Some(root) = child_root() else { return };
    let root = root.join("disk");
    let store = Store::open(&root).unwrap();
    put(&store, &[("a", "old"), ("d/b", "old"), ("beside", "old")]);
    let mut generation = 1;
    for (flag, frozen) in [("+a", "a"), ("+i", "a"), ("+a", "d"), ("+i", "d"), ("+a", "d/b"), ("+i", "d/b")] {
        chattr(flag, &root.join(frozen));
        for remove in [false, true] {
            let path = if frozen == "a" { "a" } else { "d/b" };
            let mut tx = store.begin().unwrap();
            tx.write("beside", "never").unwrap();
            let result = if remove { tx.remove(path) } else { tx.write(path, "never") };
            let error = result.and_then(|()| tx.commit()).unwrap_err();
            assert_eq!(error.outcome(), Outcome::NothingHappened, "{flag} {frozen}: {error}");
        }
        let beside = root.join("d/new");
        if frozen == "d" {
            let mut tx = store.begin().unwrap();
            let error = tx.write("d/new", "never").and_then(|()| tx.commit()).unwrap_err();
            assert_eq!(error.outcome(), Outcome::NothingHappened, "{flag} {frozen}: {error}");
            assert!(!beside.exists());
        }
        chattr(&flag.replace('+', "-"), &root.join(frozen));
        generation += 1;
        assert_eq!(put(&store, &[("beside", "new")]).generation(), generation);
        assert_eq!((text(root.join("a")), text(root.join("d/b"))), ("old".to_owned(), "old".to_owned()));
    }
    drop(store);
    assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), 1, "something is left in `d`");
    say("done");
}

/// The same, when the flag is set after the file was staged.
#[test]
fn a_target_that_is_frozen_while_its_successor_is_staged_is_refused_at_the_commit() {
    let root = tempfile::tempdir().unwrap();
    run_under(EXT4, "after_commit::child_with_a_target_that_is_frozen_later", root.path());
    assert!(!root.path().join("disk/a").exists(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_target_that_is_frozen_while_its_successor_is_staged_is_refused_at_the_commit"]
fn child_with_a_target_that_is_frozen_later() {
    let Some(root) = child_root() else { return };
    let root = root.join("disk");
    let store = Store::open(&root).unwrap();
    put(&store, &[("a", "old"), ("d/b", "old")]);
    for frozen in ["a", "d"] {
        let mut tx = store.begin().unwrap();
        tx.write("a", "never").unwrap();
        tx.write("d/b", "never").unwrap();
        chattr("+a", &root.join(frozen));
        assert_eq!(tx.commit().unwrap_err().outcome(), Outcome::NothingHappened);
        chattr("-a", &root.join(frozen));
    }
    assert_eq!((text(root.join("a")), text(root.join("d/b"))), ("old".to_owned(), "old".to_owned()));
    drop(store);
    // What could not be removed while the flag was set is swept by the next opening.
    drop(Store::open(&root).unwrap());
    assert_no_litter_but(&root, &["lost+found"]);
    say("done");
}

fn assert_no_litter_but(root: &Path, others: &[&str]) {
    let found = crate::common::litter(root);
    assert!(found.iter().all(|path| others.contains(&path.as_str())), "left behind: {found:?}");
}

/// Too many open files made a directory's sync fail before it had begun; that was taken for a disk that
/// fails, and the store refused everything from then on.
#[test]
fn too_many_open_files_are_no_failed_sync() {
    let root = tempfile::tempdir().unwrap();
    let said = run(child("after_commit::child_with_few_descriptors", root.path()));
    let committed: usize = said[0].parse().unwrap();
    assert!(committed > 0, "no commit went through");
    // What could not be removed for want of a descriptor is swept by the next opening.
    drop(Store::open(root.path()).unwrap());
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of too_many_open_files_are_no_failed_sync"]
fn child_with_few_descriptors() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    put(&store, &[("0/0", "first"), ("1/0", "first")]);
    let null = || fs::File::open("/dev/null");
    rlimit(200);
    let mut committed = 0;
    for free in 0..40 {
        let mut held: Vec<_> = std::iter::from_fn(|| null().ok()).collect();
        held.truncate(held.len().saturating_sub(free));
        let mut tx = store.begin().unwrap();
        // Every directory has to be opened anew for its sync.
        let staged = (0..6).try_for_each(|number| tx.write(format!("{number}/{free}"), free.to_string()));
        match staged.and_then(|()| tx.commit()) {
            Ok(_) => committed += 1,
            Err(error @ (Error::Io { .. } | Error::NotApplied { .. } | Error::Blocked { .. })) => {
                assert!(format!("{error:?}").contains("Too many open files"), "with {free} free: {error:?}");
            }
            Err(error) => panic!("with {free} free: {error:?}"),
        }
        drop(held);
        put(&store, &[("0/0", "goes on"), ("1/0", &free.to_string())]);
    }
    say(committed);
}

/// The soft limit of open files, through the shell's own tool: the crate has no call for it.
fn rlimit(files: u32) {
    let me = format!("--pid={}", std::process::id());
    assert!(Command::new("prlimit").arg(me).arg(format!("--nofile={files}:")).status().unwrap().success());
}
