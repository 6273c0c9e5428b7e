//! Directories that others rename, replace or remove.

use std::fs;

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
