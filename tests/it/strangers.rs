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
