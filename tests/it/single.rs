//! One file, with no root and no control directory.

use std::fs;
use std::io;
use std::sync::Barrier;
use std::thread;

use cosave::{Error, InvalidPath, Outcome};

use crate::common::{text, tree};

#[test]
fn a_single_file_is_written_with_its_parents_and_nothing_beside() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("made/on/the/way");
    cosave::write(&path, "one").unwrap();
    assert_eq!(text(&path), "one");
    cosave::write(&path, "two, longer").unwrap();
    cosave::write_with(&path, |out| (0..3).try_for_each(|n| write!(out, "{n}"))).unwrap();
    assert_eq!(text(&path), "012");
    assert_eq!(tree(root.path()).len(), 4, "{:?}", tree(root.path()).keys());
    assert!(!root.path().join(".cosave").exists());
}

#[test]
fn sixteen_writers_of_a_single_file_never_tear_it() {
    const EACH: usize = 12;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    let content = |number: usize| format!("{number:02}\n").repeat(5000 + number);
    cosave::write(&path, content(0)).unwrap();
    let start = Barrier::new(17);
    thread::scope(|scope| {
        for number in 0..16 {
            let (path, start) = (&path, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..EACH {
                    while let Err(error) = cosave::write(path, content(number)) {
                        // Wine refuses to replace a file that somebody has open, and somebody always has
                        // here; the write gives up in the end, and the old file is whole.
                        assert!(cfg!(windows) && error.outcome() == Outcome::NothingHappened, "{error}");
                    }
                }
            });
        }
        start.wait();
        for _ in 0..500 {
            let found = text(&path);
            assert!(found == content(found[..2].parse().unwrap()), "torn");
        }
    });
    assert_eq!(tree(root.path()).len(), 1, "{:?}", tree(root.path()).keys());
}

#[test]
fn of_sixteen_that_create_a_single_file_one_wins() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("deep/id");
    let start = Barrier::new(16);
    let winners: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let (path, start) = (&path, &start);
                scope.spawn(move || {
                    start.wait();
                    match cosave::create_new(path, number.to_string()) {
                        Ok(()) => Some(number.to_string()),
                        Err(error) => {
                            assert!(error.is_conflict(), "{error:?}");
                            None
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(text(&path), winners[0]);
    assert_eq!(tree(root.path()).len(), 2);
}

#[test]
fn a_writer_that_fails_leaves_the_old_file_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    fs::write(&path, "old").unwrap();
    let result = cosave::write_with(&path, |out| {
        out.write_all(&[b'x'; 200_000])?;
        Err::<(), _>(io::Error::other("the caller's own"))
    });
    assert_eq!(result.unwrap_err().to_string(), "the caller's own");
    assert_eq!(text(&path), "old");
    assert_eq!(tree(root.path()).len(), 1);
}

#[test]
fn what_is_no_file_cannot_be_written_as_one() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let before = tree(root.path());
    for path in ["directory", "file/below", "file/below/deep", "nul\0byte", ".."] {
        let error = cosave::write(root.path().join(path), "x").unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{path:?}: {error:?}");
    }
    let long = root.path().join("n".repeat(256));
    let error = cosave::write(long, "x").unwrap_err();
    assert!(matches!(error, Error::InvalidPath { reason: InvalidPath::TooLong, .. }), "{error:?}");
    assert_eq!(tree(root.path()), before);
    cosave::write(root.path().join("n".repeat(255)), "x").unwrap();
}

#[cfg(unix)]
#[test]
fn a_single_file_keeps_its_permissions_and_its_link() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let root = tempfile::tempdir().unwrap();
    let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777;
    let path = root.path().join("script");
    fs::write(&path, "#!").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    symlink("script", root.path().join("link")).unwrap();
    cosave::write(root.path().join("link"), "new").unwrap();
    assert_eq!((text(&path).as_str(), mode("script")), ("new", 0o750));
    assert!(root.path().join("link").is_symlink());
    fs::File::create(root.path().join("ordinary")).unwrap();
    cosave::write(root.path().join("ours"), "").unwrap();
    assert_eq!(mode("ours"), mode("ordinary"));
}
