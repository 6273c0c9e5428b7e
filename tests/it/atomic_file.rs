//! The writer of one file without a store, and the single steps of a durable save.

use std::fs;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};

use cosave::{AtomicFile, Error, InvalidPath, Outcome};

use crate::common::{text, tree};

#[test]
fn a_file_that_is_written_here_and_there_is_seen_only_after_its_commit() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("made/table");
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(&[b'-'; 100_000]).unwrap();
    assert_eq!(file.seek(SeekFrom::Start(10)).unwrap(), 10);
    file.write_all(b"here").unwrap();
    assert_eq!(file.seek(SeekFrom::Current(-4)).unwrap(), 10);
    file.write_all(b"HERE").unwrap();
    assert_eq!(file.seek(SeekFrom::End(5)).unwrap(), 100_005);
    file.write_all(b"!").unwrap();
    assert!(!path.exists());
    file.commit().unwrap();
    let mut expected = vec![b'-'; 100_000];
    expected[10..14].copy_from_slice(b"HERE");
    expected.extend_from_slice(b"\0\0\0\0\0!");
    assert!(fs::read(&path).unwrap() == expected);
    assert_eq!(tree(root.path()).len(), 2, "{:?}", tree(root.path()).keys());
}

#[test]
fn a_file_that_is_dropped_stays_as_it_was_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    fs::write(&path, "old").unwrap();
    let before = tree(root.path());
    let mut file = BufWriter::new(AtomicFile::create(&path).unwrap());
    file.write_all(b"never").unwrap();
    drop(file);
    assert_eq!(tree(root.path()), before);
    let panicked = std::thread::scope(|scope| {
        let write = || {
            let mut file = AtomicFile::create(&path).unwrap();
            file.write_all(b"never").unwrap();
            panic!("the caller's own");
        };
        scope.spawn(write).join()
    });
    assert!(panicked.is_err());
    assert_eq!(tree(root.path()), before);
}

#[test]
fn of_two_that_may_not_replace_each_other_the_first_wins() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("id");
    let mut files = [AtomicFile::create(&path).unwrap(), AtomicFile::create(&path).unwrap()];
    files[0].write_all(b"0").unwrap();
    files[1].write_all(b"1").unwrap();
    let [first, second] = files;
    second.commit_new().unwrap();
    let error = first.commit_new().unwrap_err();
    assert!(error.is_conflict() && error.outcome() == Outcome::NothingHappened, "{error:?}");
    assert_eq!((text(&path).as_str(), tree(root.path()).len()), ("1", 1));
}

#[test]
fn a_temporary_name_of_ones_own_is_used_once_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("settings");
    let mut file = AtomicFile::create_under(&path, "settings.new").unwrap();
    file.write_all(b"1").unwrap();
    assert!(root.path().join("settings.new").exists());
    let error = AtomicFile::create_under(&path, "settings.new").unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains("settings.new"), "{error}");
    file.commit().unwrap();
    assert_eq!((text(&path).as_str(), tree(root.path()).len()), ("1", 1));
    for name in ["settings", "", ".", "..", "a/b", "nul\0"] {
        let error = AtomicFile::create_under(&path, name).unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{name:?}: {error}");
    }
    assert_eq!(tree(root.path()).len(), 1);
}

#[test]
fn what_cannot_be_written_as_a_file_is_refused_before_anything_is_made() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let before = tree(root.path());
    for path in ["directory", "file/below", "nul\0byte", ".."] {
        let error = AtomicFile::create(root.path().join(path)).unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{path:?}: {error:?}");
    }
    let error = AtomicFile::create(root.path().join("n".repeat(256))).unwrap_err();
    assert!(matches!(error, Error::InvalidPath { reason: InvalidPath::TooLong, .. }), "{error:?}");
    assert_eq!(tree(root.path()), before);
}

#[test]
fn the_single_steps_name_what_they_cannot_do() {
    let root = tempfile::tempdir().unwrap();
    let (missing, file) = (root.path().join("missing"), root.path().join("file"));
    fs::write(&file, "1").unwrap();
    let errors = [
        cosave::sync_file(&missing),
        cosave::sync_directory(&missing),
        cosave::sync_directory(&file),
        cosave::rename_durably(&missing, &file),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert!(error.to_string().contains(&root.path().display().to_string()), "{error}");
    }
    assert_eq!(text(&file), "1");
}

#[test]
fn a_file_is_renamed_over_another_between_directories() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("a/from"), root.path().join("b/to"));
    for path in [&from, &to] {
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(path, path.to_string_lossy().as_bytes()).unwrap();
    }
    cosave::sync_file(&from).unwrap();
    cosave::rename_durably(&from, &to).unwrap();
    cosave::sync_parents(&to).unwrap();
    let mut found = String::new();
    fs::File::open(&to).unwrap().read_to_string(&mut found).unwrap();
    assert_eq!(found, from.to_string_lossy());
    assert!(!from.exists());
}
