//! Directories that a transaction makes, removes and empties, on the real file system.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use cosave::{Error, InvalidPath, Store};

use crate::common::{LARGE_BYTES, assert_no_litter, invalid, kind, paths, put, quick};

#[test]
fn directories_are_made_and_removed_with_the_commit_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("old/a", "a0"), ("keep/b", "b0")]);
    let mut tx = store.begin().unwrap();
    tx.create_dir("empty").unwrap();
    tx.create_dir("empty/inner").unwrap();
    tx.create_dir_all("x/y/z").unwrap();
    tx.create_dir_all("keep").unwrap();
    tx.remove("old/a").unwrap();
    tx.remove_dir("old").unwrap();
    let shown: Vec<_> = tx.changes().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "create  empty/",
            "create  empty/inner/",
            "create  x/",
            "create  x/y/",
            "create  x/y/z/",
            "remove  old/a (2 bytes)",
            "remove  old/"
        ]
    );
    assert_eq!(paths(dir.path()), ["keep", "keep/b", "old", "old/a"].map(PathBuf::from));
    tx.commit().unwrap();
    let expected = ["empty", "empty/inner", "keep", "keep/b", "x", "x/y", "x/y/z"].map(PathBuf::from);
    assert_eq!(paths(dir.path()), expected);
    let listed = store.view().unwrap().list("").unwrap();
    assert_eq!(listed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["empty", "keep", "x"]);
    assert!(store.verify().unwrap().is_empty());
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn an_aborted_transaction_leaves_no_directory_and_removes_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    fs::create_dir(dir.path().join("old")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.create_dir_all("x/y").unwrap();
    tx.write("x/large", vec![0; LARGE_BYTES]).unwrap();
    tx.remove_dir("old").unwrap();
    tx.abort();
    assert_eq!(paths(dir.path()), [PathBuf::from("old")]);
}

#[test]
fn what_is_no_directory_or_not_empty_is_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("file", "f"), ("full/a", "a0"), ("full/b", "b0")]);
    let mut tx = store.begin().unwrap();
    let exists = Some(ErrorKind::AlreadyExists);
    assert_eq!(kind(&tx.create_dir("full").unwrap_err()), exists);
    assert_eq!(kind(&tx.create_dir("file").unwrap_err()), exists);
    assert!(tx.create_dir("missing/x").unwrap_err().is_not_found());
    assert!(tx.remove_dir("missing").unwrap_err().is_not_found());
    let no_directory = Some(InvalidPath::NotADirectory);
    assert_eq!(invalid(&tx.create_dir_all("file/x").unwrap_err()), no_directory);
    assert_eq!(invalid(&tx.create_dir_all("file").unwrap_err()), no_directory);
    assert_eq!(invalid(&tx.remove_dir("file").unwrap_err()), no_directory);
    assert_eq!(invalid(&tx.remove_dir(".cosave").unwrap_err()), Some(InvalidPath::Control));
    assert_eq!(invalid(&tx.create_dir("../x").unwrap_err()), Some(InvalidPath::Parent));
    assert_eq!(kind(&tx.remove_dir("full").unwrap_err()), Some(ErrorKind::DirectoryNotEmpty));
    tx.remove("full/a").unwrap();
    assert_eq!(kind(&tx.remove_dir("full").unwrap_err()), Some(ErrorKind::DirectoryNotEmpty));
    tx.remove("full/b").unwrap();
    tx.remove_dir("full").unwrap();
    assert!(tx.remove_dir("full").unwrap_err().is_not_found());
    tx.create_dir("made").unwrap();
    assert_eq!(kind(&tx.create_dir("made").unwrap_err()), exists);
    assert_eq!(invalid(&tx.remove("made").unwrap_err()), Some(InvalidPath::Directory));
    tx.remove("file").unwrap();
    tx.create_dir("file").unwrap();
    tx.commit().unwrap();
    assert_eq!(paths(dir.path()), ["file", "made"].map(PathBuf::from));
}

#[test]
fn the_last_change_of_a_directory_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("d/a", "a0")]);
    let mut tx = store.begin().unwrap();
    tx.create_dir("x").unwrap();
    tx.remove_dir("x").unwrap();
    tx.remove("d/a").unwrap();
    tx.remove_dir("d").unwrap();
    tx.create_dir("d").unwrap();
    tx.write("d/b", "b1").unwrap();
    tx.commit().unwrap();
    assert_eq!(paths(dir.path()), ["d", "d/b"].map(PathBuf::from));
}

#[test]
fn changes_that_contradict_each_other_are_refused_before_anything_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    fs::create_dir(dir.path().join("d")).unwrap();
    type Work = fn(&mut cosave::Transaction) -> cosave::Result<()>;
    let contradictions: [Work; 4] = [
        |tx| tx.remove_dir("d").and_then(|()| tx.write("d/a", "a")),
        |tx| tx.remove_dir("d").and_then(|()| tx.write("d/x/y", "y")),
        |tx| tx.write("f/a", "a").and_then(|()| tx.write("f", "f")),
        |tx| tx.create_dir_all("n/m").and_then(|()| tx.write("n", "n")),
    ];
    for (number, work) in contradictions.into_iter().enumerate() {
        let mut tx = store.begin().unwrap();
        let error = work(&mut tx).and_then(|()| tx.try_commit().map(drop)).unwrap_err();
        assert_eq!(invalid(&error), Some(InvalidPath::Contradiction), "{number}: {error}");
        assert_eq!(paths(dir.path()), [PathBuf::from("d")], "{number}");
    }
}

#[test]
fn a_directory_that_others_fill_before_the_commit_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("d/a", "a0")]);
    let mut tx = store.begin().unwrap();
    tx.remove("d/a").unwrap();
    tx.remove_dir("d").unwrap();
    let mut gone = store.begin().unwrap();
    fs::create_dir(dir.path().join("e")).unwrap();
    gone.remove_dir("e").unwrap();
    fs::remove_dir(dir.path().join("e")).unwrap();
    fs::write(dir.path().join("d/theirs"), "t").unwrap();
    for tx in [tx, gone] {
        let error = tx.commit().unwrap_err();
        assert!(error.is_conflict(), "{error}");
    }
    assert_eq!(paths(dir.path()), ["d", "d/a", "d/theirs"].map(PathBuf::from));
}

#[test]
fn a_file_in_the_place_of_a_directory_to_be_made_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    let mut tx = store.begin().unwrap();
    tx.create_dir("x").unwrap();
    fs::write(dir.path().join("x"), "theirs").unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    let mut tx = store.begin().unwrap();
    tx.create_dir("y").unwrap();
    fs::create_dir(dir.path().join("y")).unwrap();
    tx.commit().unwrap();
    assert_eq!(paths(dir.path()), ["x", "y"].map(PathBuf::from));
}

#[test]
fn emptied_directories_go_with_the_commit_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("a/b/c/1", ""), ("a/b/2", ""), ("a/keep", ""), ("moved/3", ""), ("again/4", "")]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove("a/b/c/1").unwrap();
    tx.remove("a/b/2").unwrap();
    tx.rename("moved/3", "3").unwrap();
    tx.remove("again/4").unwrap();
    tx.write("again/deep/5", "").unwrap();
    tx.prune_empty_parents();
    tx.commit().unwrap();
    let expected = ["3", "a", "a/keep", "again", "again/deep", "again/deep/5", "empty"].map(PathBuf::from);
    assert_eq!(paths(dir.path()), expected);
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn without_pruning_emptied_directories_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a/b/1", "")]);
    let mut tx = store.begin().unwrap();
    tx.remove("a/b/1").unwrap();
    tx.commit().unwrap();
    assert_eq!(paths(dir.path()), ["a", "a/b"].map(PathBuf::from));
}

/// A directory made anew can have the number of the one that was removed. Then a session that knew the old
/// one must not take the new one's name for durable.
#[test]
fn a_removed_directory_can_be_made_and_filled_again_by_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for round in 0..5 {
        let text = round.to_string();
        put(&store, &[("d/a", text.as_str())]);
        assert_eq!(store.view().unwrap().read("d/a").unwrap(), text.as_bytes());
        let mut tx = store.begin().unwrap();
        tx.remove("d/a").unwrap();
        tx.prune_empty_parents();
        tx.commit().unwrap();
        assert!(!dir.path().join("d").exists());
    }
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
#[cfg(unix)]
fn a_directory_is_made_in_a_linked_directory_and_no_link_is_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    fs::create_dir(dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.create_dir("link/x").unwrap();
    assert_eq!(invalid(&tx.remove_dir("link").unwrap_err()), Some(InvalidPath::NotADirectory));
    assert_eq!(kind(&tx.create_dir("link").unwrap_err()), Some(ErrorKind::AlreadyExists));
    tx.commit().unwrap();
    assert!(dir.path().join("real/x").is_dir());
}

/// Published together, the one would have been in the other's way after the commit point.
#[test]
fn a_directory_is_not_removed_together_with_a_commit_that_makes_one_in_it() {
    for removal_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (mut removes, mut makes) = (store.begin().unwrap(), store.begin().unwrap());
        removes.remove_dir("d").unwrap();
        makes.create_dir("d/x").unwrap();
        let together = if removal_first { vec![removes, makes] } else { vec![makes, removes] };
        let answers = cosave::Transaction::commit_together(together);
        assert!(answers.iter().any(Result::is_ok), "{answers:?}");
        let refused = answers.iter().filter_map(|answer| answer.as_ref().err()).collect::<Vec<_>>();
        assert!(matches!(refused[..], [error] if error.is_conflict()), "{refused:?}");
        assert!(store.status().unwrap().pending.is_empty());
        let expected: &[&str] = if dir.path().join("d").exists() { &["d", "d/x"] } else { &[] };
        assert_eq!(paths(dir.path()), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
    }
}

/// The directory stayed, though the commit said that it was removed: its removal came before that of a file
/// which was written again and removed again after it.
#[test]
fn a_directory_goes_after_all_that_was_in_it_in_whatever_order_that_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("d/a", "1")]);
    fs::create_dir(dir.path().join("d/inner")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove("d/a").unwrap();
    tx.remove_dir("d/inner").unwrap();
    tx.remove_dir("d").unwrap();
    tx.write("d/a", "2").unwrap();
    tx.remove("d/a").unwrap();
    tx.commit().unwrap();
    assert_eq!(paths(dir.path()), Vec::<PathBuf>::new());
}

// A dotfiles manager asked for `bin` and removed the last file of it: `bin` was gone.
#[test]
fn a_directory_that_was_asked_for_is_not_pruned() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("bin/deep/a", "1"), ("other/a", "1")]);
    let mut tx = store.begin().unwrap();
    tx.prune_empty_parents();
    tx.create_dir_all("bin").unwrap();
    tx.remove("bin/deep/a").unwrap();
    tx.remove("other/a").unwrap();
    tx.commit().unwrap();
    assert!(root.path().join("bin").is_dir() && !root.path().join("bin/deep").exists());
    assert!(!root.path().join("other").exists());
    // The last word counts.
    let mut tx = store.begin().unwrap();
    tx.create_dir_all("bin").unwrap();
    tx.remove_dir("bin").unwrap();
    tx.commit().unwrap();
    assert!(!root.path().join("bin").exists());
}

// The standard library takes it for a directory that is there.
#[cfg(unix)]
#[test]
fn a_symlink_to_a_directory_is_as_good_as_one_that_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("real/a", "1"), ("file", "1")]);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.path().join(name)).unwrap();
    link("real", "link");
    link("file", "no directory");
    link("nowhere", "dangling");
    let mut tx = store.begin().unwrap();
    tx.create_dir_all("link").unwrap();
    tx.create_dir_all("link/made").unwrap();
    for name in ["no directory", "dangling"] {
        assert!(matches!(tx.create_dir_all(name), Err(Error::InvalidPath { .. })), "{name}");
    }
    tx.commit().unwrap();
    assert!(root.path().join("real/made").is_dir() && root.path().join("link").is_symlink());
}

// After a failed sync an empty directory is made anew, so that there is a new name to sync. One that somebody
// had closed since the commit was open to all again.
#[cfg(unix)]
#[test]
fn a_directory_that_is_made_anew_after_a_failed_sync_keeps_its_mode() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let store = Store::open(root.path()).unwrap();
    store
        .update(|tx| {
            tx.create_dir("closed")?;
            tx.create_dir("open")
        })
        .unwrap();
    drop(store);
    let before = ["closed", "open"].map(|name| fs::metadata(at(name)).unwrap());
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(at(".cosave/1.applied"), at(".cosave/1.pending")).unwrap();
    fs::write(at(".cosave/1.sync-failed"), "").unwrap();
    let store = Store::open(root.path()).unwrap();
    assert!(store.status().unwrap().pending.is_empty());
    let after = ["closed", "open"].map(|name| fs::metadata(at(name)).unwrap());
    assert_eq!(after[0].mode() & 0o7777, 0o700);
    assert_eq!(after[1].mode(), before[1].mode());
    let made_anew = |index: usize| {
        let time = |found: &fs::Metadata| (found.ino(), found.mtime(), found.mtime_nsec());
        time(&after[index]) != time(&before[index])
    };
    assert!(made_anew(0) && made_anew(1), "they were not made anew, so nothing was tested");
    drop(store);
    assert_no_litter(root.path());
}
