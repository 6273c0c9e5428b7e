//! What errors and reports say: the path and the operation that are meant, and what to do.

use std::fs;
use std::path::Path;

use cosave::{AppendFile, AtomicFile, Durability, Error, InvalidPath, Operation, Reason, Store, Transaction};

use crate::common::put;

fn open(root: &Path) -> Store {
    Store::options().durability(Durability::Process).open(root).unwrap()
}

fn invalid<T: std::fmt::Debug>(result: cosave::Result<T>) -> InvalidPath {
    match result.unwrap_err() {
        Error::InvalidPath { reason, .. } => reason,
        error => panic!("{error}"),
    }
}

/// The operation and the name of the path in an error of the system.
fn named<T: std::fmt::Debug>(result: cosave::Result<T>) -> (Operation, String) {
    match result.unwrap_err() {
        Error::Io { operation, path, .. } => {
            (operation, path.path().file_name().unwrap().to_string_lossy().into_owned())
        }
        error => panic!("{error}"),
    }
}

/// Somebody was told that a directory could not be listed since it was not there. It was a file.
#[test]
fn a_list_of_a_file_says_that_it_is_no_directory() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    put(&store, &[("file", "1")]);
    let mut tx = store.begin().unwrap();
    tx.write("own", "1").unwrap();
    for path in ["file", "own"] {
        assert_eq!(invalid(tx.list(path)), InvalidPath::NotADirectory, "{path}");
    }
    assert!(tx.list("missing").unwrap_err().is_not_found());
}

/// A directory of the same transaction was told as missing, or as the target of a rename.
#[test]
fn a_directory_of_the_same_transaction_is_moved_only_once_it_is_committed() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let ways: [fn(&mut Transaction) -> cosave::Result<()>; 2] =
        [|tx| tx.create_dir("k"), |tx| tx.write("k/a", "1")];
    for make in ways {
        let mut tx = store.begin().unwrap();
        make(&mut tx).unwrap();
        assert_eq!(invalid(tx.rename("k", "l")), InvalidPath::Contradiction);
    }
    put(&store, &[("k/a", "1")]);
    store.update(|tx| tx.rename("k", "l")).unwrap();
    assert!(root.path().join("l/a").exists());
}

/// "It is the file itself", of a name in another directory.
#[test]
fn a_name_that_leads_elsewhere_is_no_name() {
    let root = tempfile::tempdir().unwrap();
    let log = AppendFile::open(root.path().join("log")).unwrap();
    assert_eq!(invalid(log.rotate("sub/log")), InvalidPath::NoName);
    assert_eq!(invalid(log.rotate("log")), InvalidPath::Itself);
    let under = |name| AtomicFile::create_under(root.path().join("a"), name);
    assert_eq!(invalid(under("sub/a")), InvalidPath::NoName);
    assert_eq!(invalid(under("a")), InvalidPath::Itself);
}

#[test]
fn an_error_names_what_is_missing_and_what_was_to_be_done_with_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let renamed = cosave::rename_durably(root.path().join("missing"), root.path().join("to"));
    assert_eq!(named(renamed), (Operation::Rename, "missing".to_owned()));
    let mut tx = store.begin().unwrap();
    assert_eq!(named(tx.remove_dir_all("missing")), (Operation::Remove, "missing".to_owned()));
    assert_eq!(named(store.abandon(9)).0, Operation::Abandon);
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_written_cannot_be_removed_and_not_be_staged() {
    use crate::common::{child, run, skipped};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(root.path().join("theirs"), "1").unwrap();
    fs::set_permissions(root.path().join("theirs"), fs::Permissions::from_mode(0o444)).unwrap();
    let mut command = child("told::child_who_may_not_write_a_file", root.path());
    if fs::metadata(root.path()).unwrap().uid() == 0 {
        const NOBODY: u32 = 65_534;
        std::os::unix::process::CommandExt::uid(&mut command, NOBODY);
        std::os::unix::process::CommandExt::gid(&mut command, NOBODY);
    }
    if command.spawn().is_ok_and(|mut child| child.wait().is_ok_and(|status| status.success())) {
        assert_eq!(run(command), ["remove", "stage"]);
    } else {
        skipped("told", "another user cannot run this test");
    }
}

#[cfg(unix)]
#[test]
#[ignore = "child of a_file_that_may_not_be_written_cannot_be_removed_and_not_be_staged"]
fn child_who_may_not_write_a_file() {
    let Some(root) = crate::common::child_root() else { return };
    let store = open(&root);
    let mut tx = store.begin().unwrap();
    crate::common::say(named(tx.remove("theirs")).0);
    crate::common::say(named(tx.write("theirs", "2")).0);
}

/// "Cannot create `.cosave`: no such file", for ever.
#[cfg(unix)]
#[test]
fn a_root_that_was_made_anew_says_to_open_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let store = open(&root);
    put(&store, &[("a", "1")]);
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    for error in [store.update(|tx| tx.write("a", "2")).unwrap_err(), store.view().unwrap_err()] {
        assert!(matches!(error, Error::Unsupported { reason: Reason::RootGone, .. }), "{error}");
    }
    put(&store.reopen().unwrap(), &[("a", "2")]);
}

/// An undo said that the history did not reach back that far, where there was none at all.
#[test]
fn a_store_that_keeps_nothing_says_so() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    put(&store, &[("a", "1")]);
    put(&store, &[("a", "2")]);
    let errors = [store.undo().unwrap_err(), store.restore(1).unwrap_err(), store.view_at(1).unwrap_err()];
    for error in errors {
        assert!(matches!(error, Error::Unsupported { reason: Reason::KeepsNothing, .. }), "{error}");
        assert!(error.to_string().contains("`keep`"), "{error}");
    }
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
