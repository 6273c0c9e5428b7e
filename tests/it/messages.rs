//! What people read: reports, error messages, and the `Debug` of what a program holds.

use std::error::Error as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use cosave::{Error, Manifest, Problem, Store};

use crate::common::{Crash, put, quick};

/// `println!` of a report ended with a blank line, but not if there was nothing to recover.
#[test]
fn a_report_ends_without_a_line_break() {
    let root = tempfile::tempdir().unwrap();
    put(&Store::open(root.path()).unwrap(), &[("a", "1"), ("b", "1")]);
    let mut crash = Crash::new(root.path());
    crash.write("a", "2");
    crash.publish(2);
    fs::write(root.path().join("a"), "by hand").unwrap();
    let report = Store::open(root.path()).unwrap().last_recovery();
    let shown = report.to_string();
    assert!(shown.starts_with("finished generation 2\n") && !shown.ends_with('\n'), "{shown:?}");
    let told = report.rolled_forward.len() + report.swept.len() + report.differences.len();
    assert!(told >= 2 && shown.lines().count() == told, "{shown:?}");
    let manifest = Manifest::decode(&fs::read(root.path().join(".cosave/1.applied")).unwrap()).unwrap();
    let shown = manifest.to_string();
    assert!(shown.lines().count() == 3 && !shown.ends_with('\n'), "{shown:?}");
}

#[test]
fn a_mismatch_says_what_is_wrong_with_which_file() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "1"), ("b", "1")]);
    fs::remove_file(root.path().join("a")).unwrap();
    fs::write(root.path().join("b"), "another length").unwrap();
    let mut shown: Vec<_> = store.verify().unwrap().iter().map(ToString::to_string).collect();
    shown.sort();
    assert_eq!(shown, ["a of generation 1 is missing", "b of generation 1 was changed later"]);
    let damaged = "is damaged: its bytes differ, but its length and time stamp do not";
    for (problem, words) in
        [(Problem::Present, "should have been removed, but is there"), (Problem::Damaged, damaged)]
    {
        assert_eq!(problem.to_string(), words);
    }
}

/// The `Debug` of a store was six kilobytes long, and that of a transaction held the files' bytes.
#[test]
fn debug_output_is_short_and_names_the_root() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1")]);
    let mut tx = store.begin().unwrap();
    tx.write("a", [77; 1000]).unwrap();
    let mut writer = tx.writer("b").unwrap();
    writer.write_all(&[77; 1000]).unwrap();
    let view = store.view().unwrap();
    let name_of_root = root.path().file_name().unwrap().to_str().unwrap();
    for (name, shown) in [
        ("Store", format!("{store:?}")),
        ("Transaction", format!("{tx:?}")),
        ("FileWriter", format!("{writer:?}")),
        ("View", format!("{view:?}")),
    ] {
        assert!(shown.starts_with(&format!("{name} {{ root: ")), "{shown}");
        assert!(shown.contains(name_of_root) && shown.contains("durability: Process"), "{shown}");
        assert!(shown.len() < root.path().as_os_str().len() + 100, "{shown}");
    }
}

/// A transaction named the path as it was given, and a view named it in full.
#[test]
fn an_error_names_a_file_in_full_whoever_looked_for_it() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    let view = store.view().unwrap();
    let whole = Path::new(root.path().file_name().unwrap()).join("d").join("a");
    for error in [
        tx.read("d/a").unwrap_err(),
        view.read("./d/a").unwrap_err(),
        view.open("d/a").map(drop).unwrap_err(),
        tx.remove("d//a").unwrap_err(),
    ] {
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(&whole)), "{error}");
    }
}

#[test]
fn the_systems_reason_is_in_the_source_of_an_error_and_of_its_io_error() {
    let root = tempfile::tempdir().unwrap();
    let error = quick(root.path()).view().unwrap().read("a").unwrap_err();
    let reason = error.source().unwrap().to_string();
    let message = error.to_string();
    assert!(message.ends_with("; no target was changed") && !message.contains(&reason), "{message}");
    let error = std::io::Error::from(error);
    assert_eq!((error.kind(), error.to_string()), (std::io::ErrorKind::NotFound, message));
    assert_eq!(error.source().unwrap().to_string(), reason);
}

/// A thread that committed while it held a view was told of "one of the processes" with its own number.
#[test]
fn a_thread_that_waits_for_its_own_view_is_told_so() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().lock_timeout(Duration::from_millis(60)).open(root.path()).unwrap();
    let view = store.view().unwrap();
    let error = store.update(|tx| tx.write("a", "1")).unwrap_err();
    assert!(error.to_string().contains("(held by this process: is a view still open?)"), "{error}");
    drop(view);
    put(&store, &[("a", "1")]);
}
