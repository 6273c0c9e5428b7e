//! Directories that others rename, replace or remove, a control directory among them.

use std::fs;
use std::path::Path;

use cosave::fs::sim::{Model, SimDisk};
use cosave::{Durability, RelativePath, Store};

#[cfg(unix)]
use crate::common::litter;
use crate::common::{assert_no_litter, put, quick, text};

/// A store that stages everything at once.
fn eager(root: &Path) -> Store {
    Store::options().durability(Durability::Process).inline_max(0).open(root).unwrap()
}

/// Handles of directories are kept, and led to the removed one for ever after: staging failed before
/// anything looked the path up again.
#[test]
fn a_directory_that_was_removed_and_made_anew_can_be_written() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = eager(root);
    put(&store, &[("d/e/a", "1")]);
    for number in 2..5 {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir_all(root.join("d/e")).unwrap();
        put(&store, &[("d/e/a", &number.to_string()), ("d/e/b", "new")]);
        assert_eq!(text(root.join("d/e/a")), number.to_string());
    }
    drop(store);
    assert_no_litter(root);
}

/// A removal was refused because flags were asked of a directory that somebody had removed meanwhile, file
/// and all: what was asked for had happened.
#[test]
fn a_file_that_goes_with_its_directory_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = quick(root);
    put(&store, &[("d/a", "1")]);
    let mut tx = store.begin().unwrap();
    assert!(tx.remove_if_exists("d/a").unwrap());
    tx.write("b", "2").unwrap();
    fs::remove_dir_all(root.join("d")).unwrap();
    tx.commit().unwrap();
    assert!(!root.join("d").exists());
    assert_eq!(text(root.join("b")), "2");
}

/// Whoever looked whether a session lives held its lock alone for a moment. An opening that swept at that
/// moment took the looker for the session, and left its staged files where they were.
#[test]
fn one_who_looks_whether_a_session_lives_is_not_taken_for_it() {
    let disk = SimDisk::new(Model::WeakPosix);
    let store = Store::options().open_on(disk.process()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("a", vec![1; 4 << 20]).unwrap();
    let after = disk.kill();
    assert_eq!(after.files().len(), 1, "nothing is staged");
    let looker = after.process();
    let sessions = RelativePath::new(".cosave/sessions").unwrap();
    let names = looker.list(&sessions).unwrap().into_iter().map(|entry| entry.name);
    let marks = names.filter(|name| !name.to_string_lossy().contains('.'));
    let paths = marks.map(|name| RelativePath::new(sessions.as_path().join(name)).unwrap());
    let looks: Vec<_> =
        paths.map(|path| looker.try_lock(&path, cosave::fs::LockKind::Shared).unwrap().unwrap()).collect();
    assert_eq!(looks.len(), 1);
    let opened = Store::options().open_on(after.process()).unwrap();
    assert_eq!(opened.last_recovery().swept.len(), 1);
    assert!(after.files().is_empty());
}

/// The kept handle followed the directory out of the root.
#[test]
fn nothing_is_staged_in_a_directory_that_was_moved_out_of_the_root() {
    let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = root.path();
    let store = eager(root);
    put(&store, &[("d/a", "1")]);
    let moved = elsewhere.path().join("moved");
    fs::rename(root.join("d"), &moved).unwrap();
    fs::create_dir(root.join("d")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("d/b", "2").unwrap();
    assert_eq!(fs::read_dir(&moved).unwrap().count(), 1, "something was staged outside the root");
    tx.commit().unwrap();
    assert_eq!(text(root.join("d/b")), "2");
    drop(store);
    assert_no_litter(root);
}

/// What had been staged was looked for by its old path alone.
// Windows has no handle through which a file could be removed wherever its directory is now.
#[cfg(unix)]
#[test]
fn a_directory_renamed_between_stage_and_commit_keeps_no_litter() {
    let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = root.path();
    let store = eager(root);
    put(&store, &[("d/a", "1"), ("e/a", "1"), ("f/a", "1")]);
    for target in [root.join("renamed"), elsewhere.path().join("moved")] {
        let mut tx = store.begin().unwrap();
        tx.write("d/a", "2").unwrap();
        tx.write("d/b", "2").unwrap();
        tx.write("e/a", "2").unwrap();
        fs::rename(root.join("d"), &target).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        tx.commit().unwrap_err();
        let left: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["a"], "left in the renamed directory");
        assert_eq!(text(root.join("e/a")), "1");
        fs::remove_dir(root.join("d")).unwrap();
        fs::rename(&target, root.join("d")).unwrap();
    }
    // The same when the transaction is dropped.
    let mut tx = store.begin().unwrap();
    tx.write("f/b", "2").unwrap();
    fs::rename(root.join("f"), root.join("g")).unwrap();
    drop(tx);
    assert_eq!(fs::read_dir(root.join("g")).unwrap().count(), 1);
    drop(store);
    assert_no_litter(root);
}

/// `git clean -fdx` while a program has the root open. The session's mark went with the directory, so
/// every later commit failed.
// Windows lets nobody remove a directory in which somebody has a file open.
#[cfg(unix)]
#[test]
fn a_control_directory_removed_under_an_open_store_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (store, other) = (eager(root), eager(root));
    put(&other, &[("a", "1")]);
    put(&store, &[("a", "2"), ("d/b", "2")]);
    fs::remove_dir_all(root.join(".cosave")).unwrap();
    // A transaction of each, one of them under way while the other commits.
    let mut tx = other.begin().unwrap();
    tx.write("d/c", "other's").unwrap();
    let third = put(&store, &[("a", "3"), ("d/b", "3")]);
    assert!(third.generation() > 2, "a generation was used twice: {}", third.generation());
    let fourth = tx.commit().unwrap();
    assert!(fourth.generation() > third.generation());
    assert_eq!(store.view().unwrap().read("d/c").unwrap(), b"other's");
    assert_eq!(store.status().unwrap().sessions_alive, 2);
    // The new session is found by a sweep as the first was.
    let mut tx = store.begin().unwrap();
    tx.write("d/b", "never").unwrap();
    other.sweep().unwrap();
    tx.commit().unwrap();
    drop((store, other));
    assert_no_litter(root);
    let store = Store::open(root).unwrap();
    assert!(store.last_recovery().is_clean());
    assert_eq!(text(root.join("d/b")), "never");
    assert!(store.generation().unwrap() > fourth.generation());
}

/// The same with a transaction under way: it is refused or committed, and nothing is lost silently.
// As above.
#[cfg(unix)]
#[test]
fn a_transaction_whose_control_directory_is_removed_says_what_became_of_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = eager(root);
    put(&store, &[("a", "1"), ("d/b", "1")]);
    let mut tx = store.begin().unwrap();
    tx.write("a", "2").unwrap();
    tx.write("d/b", "2").unwrap();
    fs::remove_dir_all(root.join(".cosave")).unwrap();
    let expected = if tx.commit().is_ok() { "2" } else { "1" };
    assert_eq!(text(root.join("a")), expected);
    assert_eq!(text(root.join("d/b")), expected);
    put(&store, &[("a", "3"), ("d/b", "3")]);
    assert_eq!(text(root.join("d/b")), "3");
    drop(store);
    assert_eq!(litter(root), Vec::<String>::new());
}

/// A commit was in place, and only its last wait was still owed. When somebody removed its directory, the
/// root was closed for everybody else: recovery took the directory, with the staged file in it, for renamed.
#[test]
fn a_directory_that_is_removed_after_a_living_writers_commit_keeps_no_root_closed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let writer = Store::options().durability(Durability::Committed).open(root).unwrap();
    put(&writer, &[("build/a", "1"), ("b", "1")]);
    fs::remove_dir_all(root.join("build")).unwrap();
    let other = Store::open(root).unwrap();
    assert_eq!(put(&other, &[("b", "2")]).generation(), 2);
    assert_eq!(put(&writer, &[("build/a", "3")]).generation(), 3);
    assert_eq!((text(root.join("b")), text(root.join("build/a"))), ("2".to_owned(), "3".to_owned()));
}

/// The directory was missing when the transaction first looked. Now it is a link, and is followed.
#[cfg(unix)]
#[test]
fn a_missing_directory_that_somebody_makes_as_a_link_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("real/a", "1"), ("real/b", "2")]);
    let tx = store.begin().unwrap();
    assert_eq!(tx.read_if_exists("later/a").unwrap(), None);
    std::os::unix::fs::symlink("real", root.path().join("later")).unwrap();
    assert_eq!(tx.read_if_exists("later/b").unwrap().as_deref(), Some(&b"2"[..]));
}
