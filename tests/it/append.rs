//! A file to whose end records are added.

use std::fs;
use std::io::{self, BufRead, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cosave::{AppendFile, Error, InvalidPath};

use crate::common::{text, tree};

#[test]
fn records_of_eight_threads_are_whole_and_where_they_were_said_to_be() {
    const EACH: usize = 50;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("made/on/the/way/log");
    let log = AppendFile::options().sync_every(1).open(&path).unwrap();
    let start = Barrier::new(8);
    let placed: Vec<(u64, String)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (log, start) = (&log, &start);
                scope.spawn(move || {
                    start.wait();
                    let append = |number: usize| {
                        let record = format!("{thread}:{number}:{}\n", "x".repeat(number));
                        let begin = log.append(&record).unwrap();
                        assert!(log.synced_len() >= begin + record.len() as u64);
                        (begin, record)
                    };
                    (0..EACH).map(append).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let found = text(&path);
    for (begin, record) in &placed {
        let begin = usize::try_from(*begin).unwrap();
        assert_eq!(&found[begin..begin + record.len()], record);
    }
    assert_eq!(found.len(), placed.iter().map(|(_, record)| record.len()).sum::<usize>());
    assert_eq!(log.synced_len(), found.len() as u64);
}

#[test]
fn a_second_writer_is_refused_while_the_first_one_has_the_file_open() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    let first = AppendFile::open(&path).unwrap();
    first.append("1").unwrap();
    let error = AppendFile::open(&path).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }) && error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("log"), "{error}");
    first.rotate("log.1").unwrap();
    assert!(matches!(AppendFile::open(&path), Err(Error::InUse { .. })));
    let rotated = AppendFile::open(root.path().join("log.1")).unwrap();
    assert_eq!(rotated.len(), 1);
    drop((first, rotated));
    AppendFile::open(&path).unwrap();
}

#[test]
fn what_is_no_file_cannot_be_appended_to() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    fs::write(root.path().join("file"), "old").unwrap();
    let before = tree(root.path());
    for path in ["directory", "file/below", "nul\0byte", ".."] {
        let error = AppendFile::open(root.path().join(path)).unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{path:?}: {error:?}");
    }
    let file = AppendFile::open(root.path().join("file")).unwrap();
    for name in ["file", "a/b", "../b", "", "."] {
        let error = file.rotate(name).unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{name:?}: {error:?}");
    }
    assert!(file.rotate("directory").unwrap_err().is_conflict());
    assert_eq!(tree(root.path()), before);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_at_once() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = AppendFile::open(&path).unwrap_err();
    assert!(matches!(error, Error::InvalidPath { reason: InvalidPath::Special, .. }), "{error:?}");
}

#[test]
fn only_the_framing_cuts_anything_off() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    fs::write(&path, "whole\ntor").unwrap();
    assert_eq!(AppendFile::open(&path).unwrap().len(), 9);
    let lines = |file: &mut dyn BufRead| {
        let (mut whole, mut line) = (0, Vec::new());
        while file.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            whole += line.len() as u64;
            line.clear();
        }
        Ok(whole)
    };
    let refuses = |_: &mut dyn BufRead| Err(io::Error::other("the caller's own"));
    let error = AppendFile::options().open_with(&path, refuses).unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the caller's own");
    let too_much = AppendFile::options().open_with(&path, |_: &mut dyn BufRead| Ok(10));
    assert!(matches!(too_much, Err(Error::Io { .. })));
    assert_eq!(text(&path), "whole\ntor");
    let mut log = AppendFile::options().open_with(&path, lines).unwrap();
    assert_eq!((log.len(), log.synced_len()), (6, 6));
    writeln!(log, "next").unwrap();
    log.close().unwrap();
    assert_eq!(text(&path), "whole\nnext\n");
}

#[test]
fn bytes_and_records_make_it_sync_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let by_records = AppendFile::options().sync_every(3).open(root.path().join("records")).unwrap();
    let by_bytes = AppendFile::options().sync_every_bytes(100).open(root.path().join("bytes")).unwrap();
    let mut synced = Vec::new();
    for _ in 0..7 {
        by_records.append([0; 10]).unwrap();
        by_bytes.append([0; 40]).unwrap();
        synced.push((by_records.synced_len(), by_bytes.synced_len()));
    }
    assert_eq!(synced, [(0, 0), (0, 0), (30, 120), (30, 120), (30, 120), (60, 240), (60, 240)]);
}

#[test]
fn time_makes_it_sync_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let options = AppendFile::options().sync_within(Duration::from_millis(5));
    let log = options.open(root.path().join("log")).unwrap();
    for length in [4, 8] {
        log.append("1234").unwrap();
        let begun = Instant::now();
        while log.synced_len() < length {
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody has synced it");
            thread::yield_now();
        }
    }
    log.rotate("log.1").unwrap();
    assert_eq!((log.len(), log.synced_len()), (0, 0));
}

#[test]
fn a_file_that_is_dropped_is_closed_and_another_can_open_it_at_once() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    let told = Arc::new(Mutex::new(Vec::new()));
    for number in 0..20_u64 {
        let told = Arc::clone(&told);
        let tell = move |error: &Error| told.lock().unwrap().push(error.to_string());
        let options = AppendFile::options().sync_within(Duration::from_secs(3600)).on_error(tell);
        let log = options.open(&path).unwrap();
        assert_eq!(log.synced_len(), number);
        log.append("x").unwrap();
    }
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn threads_append_while_the_file_is_rotated_and_no_record_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    let log = AppendFile::options().sync_every(5).open(&path).unwrap();
    let appended = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    log.append("record\n").unwrap();
                    appended.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| (1..=5).for_each(|number| log.rotate(format!("log.{number}")).unwrap()));
    });
    log.close().unwrap();
    let all: String = tree(root.path()).keys().map(|name| text(root.path().join(name))).collect();
    assert_eq!(all, "record\n".repeat(400));
    assert_eq!(appended.load(Ordering::SeqCst), 400);
}

#[cfg(unix)]
#[test]
fn a_rotated_file_leaves_its_permissions_to_the_next_one() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    let log = AppendFile::open(&path).unwrap();
    for mode in [0o600, 0o640, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let before = fs::metadata(&path).unwrap();
        log.append("x").unwrap();
        log.rotate(format!("log.{mode:o}")).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.mode(), after.gid()), (before.mode(), before.gid()));
    }
    assert_eq!(tree(root.path()).len(), 4, "no temporary file is left");
}

/// The file of another program was rotated, and was called the old one from then on.
#[cfg(unix)]
#[test]
fn a_file_that_others_have_renamed_is_not_rotated() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    let log = AppendFile::open(&path).unwrap();
    log.append("mine").unwrap();
    fs::rename(&path, root.path().join("taken")).unwrap();
    assert!(log.rotate("log.1").unwrap_err().is_conflict());
    fs::write(&path, "theirs").unwrap();
    assert!(log.rotate("log.1").unwrap_err().is_conflict());
    log.close().unwrap();
    let left = [(String::from("log"), "theirs"), (String::from("taken"), "mine")];
    for (name, content) in left {
        assert_eq!(text(root.path().join(name)), content);
    }
    assert_eq!(tree(root.path()).len(), 2);
}
