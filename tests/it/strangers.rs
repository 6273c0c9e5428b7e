//! Directories that others rename, replace or remove.

use std::fs;

use cosave::fs::sim::{Model, SimDisk};
use cosave::{RelativePath, Store};

use crate::common::{assert_no_litter, put, quick, text};

/// Handles of directories are kept, and led to the removed one for ever after: staging failed before
/// anything looked the path up again.
#[test]
fn a_directory_that_was_removed_and_made_anew_can_be_written() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = quick(root);
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

/// Whoever looked whether a session lives held its lock for a moment, and was itself taken for the session:
/// 60 of 60 openings beside a program that asked for the status again and again left litter behind.
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
    let looks: Vec<_> = paths.map(|path| looker.try_lock_existing(&path).unwrap().unwrap()).collect();
    assert_eq!(looks.len(), 1);
    let opened = Store::options().open_on(after.process()).unwrap();
    assert_eq!(opened.last_recovery().swept.len(), 1);
    assert!(after.files().is_empty());
}
