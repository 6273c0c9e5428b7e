//! What people read: reports, error messages, and the `Debug` of what a program holds.

use std::error::Error as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use cosave::{Error, Expect, Manifest, Outcome, Problem, Reason, Store};

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

/// Most errors named one path: where the file lies or how it was given, and not always the same of the two.
#[cfg(unix)]
#[test]
fn an_error_names_a_path_as_it_was_given_and_where_it_lies() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("releases/7/a", "1"), ("releases/7/taken", "1")]);
    std::os::unix::fs::symlink("releases/7", root.path().join("now")).unwrap();
    std::os::unix::fs::symlink("now/late", root.path().join("link")).unwrap();
    let mut tx = store.begin().unwrap();
    let view = store.view().unwrap();
    let mut errors = vec![
        (view.read("now/b").unwrap_err(), "now/b", "releases/7/b"),
        (view.metadata("now/b").unwrap_err(), "now/b", "releases/7/b"),
        (view.list("now/b").map(drop).unwrap_err(), "now/b", "releases/7/b"),
        (view.read("now").unwrap_err(), "now", "now"),
        (tx.read("./now/b").unwrap_err(), "./now/b", "releases/7/b"),
        (tx.open("now//b").map(drop).unwrap_err(), "now//b", "releases/7/b"),
        (tx.remove("now/b").unwrap_err(), "now/b", "releases/7/b"),
        (tx.write("now/../b", "").unwrap_err(), "now/../b", "now/../b"),
        (tx.write("now/a/b", "").unwrap_err(), "now/a/b", "now/a/b"),
        (tx.expect("now/a", Expect::Absent).unwrap_err(), "now/a", "releases/7/a"),
        (tx.rename("now/a", "./now/a").unwrap_err(), "./now/a", "releases/7/a"),
        (tx.create_dir("now/b/c").unwrap_err(), "now/b/c", "releases/7/b/c"),
        (tx.remove_dir("now/b").unwrap_err(), "now/b", "releases/7/b"),
        (tx.set_permissions("now/b", 0o600).unwrap_err(), "now/b", "releases/7/b"),
    ];
    drop(view);
    let mut late = store.begin().unwrap();
    late.create_new("link", "mine").unwrap();
    put(&store, &[("now/late", "theirs")]);
    errors.push((late.commit().unwrap_err(), "link", "releases/7/late"));
    let mut read = store.begin().unwrap();
    read.read("now/a").unwrap();
    read.write("other", "").unwrap();
    put(&store, &[("releases/7/a", "2")]);
    errors.push((read.commit().unwrap_err(), "now/a", "releases/7/a"));
    let alone = root.path().join("now/taken");
    let alone = alone.to_str().unwrap();
    for (error, given, lies) in errors {
        let place = error.place().unwrap_or_else(|| panic!("{error:?}"));
        assert!(place.ends_with(lies), "{error}");
        assert_eq!(place.given().unwrap_or(Path::new(lies)), Path::new(given), "{error}");
        let shown = error.to_string();
        assert!(shown.contains(&format!("{lies}`")), "{shown}");
        assert_eq!(shown.contains(&format!("(given as `{given}`)")), given != lies, "{shown}");
    }
    let error = cosave::create_new(alone, "").unwrap_err();
    let place = error.place().unwrap();
    assert!(place.ends_with("releases/7/taken") && error.is_conflict(), "{error}");
    assert_eq!(place.given(), Some(Path::new(alone)));
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

#[test]
fn a_commit_a_status_and_an_outcome_are_shown_in_one_line() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    assert_eq!(put(&store, &[("a", "1"), ("b", "1")]).to_string(), "generation 1: 2 files changed");
    assert_eq!(put(&store, &[("a", "2")]).to_string(), "generation 2: 1 file changed");
    assert_eq!(put(&store, &[]).to_string(), "nothing to commit after generation 2");
    assert_eq!(store.status().unwrap().to_string(), "generation 2, living sessions: 1");
    let mut crash = Crash::new(root.path());
    crash.write("a", "3");
    crash.publish(3);
    let status = store.status().unwrap().to_string();
    assert!(status.starts_with("generation 3, pending: 3, "), "{status}");
    let outcomes = [Outcome::NothingHappened, Outcome::Committed, Outcome::Unknown];
    let shown: Vec<_> = outcomes.iter().map(ToString::to_string).collect();
    assert_eq!(shown[0], "nothing was changed");
    assert!(shown.iter().all(|shown| !shown.contains('\n')) && shown[1] != shown[2]);
}

/// A report of 300 files had 300 lines, and nothing shorter.
#[test]
fn a_long_report_has_a_short_form() {
    let root = tempfile::tempdir().unwrap();
    put(&Store::open(root.path()).unwrap(), &[("a", "1")]);
    let mut crash = Crash::new(root.path());
    (0..300).for_each(|number| drop(crash.write(&format!("{number}"), "new")));
    crash.publish(2);
    fs::write(root.path().join("7"), "by hand").unwrap();
    let report = Store::open(root.path()).unwrap().last_recovery();
    let summary = report.summary().to_string();
    let expected = format!("1 finished, {} files or directories removed", report.swept.len());
    assert!(summary.starts_with("1 finished") && summary.ends_with("1 files not as committed"), "{summary}");
    assert!(report.swept.is_empty() || summary.starts_with(&expected), "{summary}");
    assert_eq!(summary.lines().count(), 1);
    assert_eq!(cosave::RecoveryReport::default().summary().to_string(), "nothing to recover");
}

#[test]
fn reports_and_changes_can_be_serialised() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("d/a", "12"), ("gone", "1")]);
    let commit = store.update(|tx| {
        tx.write("d/a", "123")?;
        tx.write("new", "")?;
        tx.remove("gone")
    });
    let commit = serde_json::to_value(commit.unwrap()).unwrap();
    assert_eq!((&commit["generation"], &commit["durability"]), (&2.into(), &"process".into()));
    let changes = serde_json::json!([
        { "replace": { "path": "d/a", "old_length": 2, "length": 3 } },
        { "create": { "path": "new", "length": 0 } },
        { "remove": { "path": "gone", "old_length": 1 } },
    ]);
    assert_eq!(commit["changes"], changes);
    assert_eq!(serde_json::to_value(store.status().unwrap()).unwrap()["generation"], 2);
    fs::remove_file(root.path().join("new")).unwrap();
    let mismatches = serde_json::to_value(store.verify().unwrap()).unwrap();
    assert_eq!(mismatches, serde_json::json!([{ "path": "new", "generation": 2, "problem": "missing" }]));
    let report = serde_json::to_value(store.last_recovery()).unwrap();
    assert_eq!(report["rolled_forward"], serde_json::json!([]));
}

#[test]
fn an_error_says_whether_the_same_work_may_succeed_later() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().lock_timeout(Duration::ZERO).open(root.path()).unwrap();
    put(&store, &[("a", "1")]);
    let view = store.view().unwrap();
    let locked = store.update(|tx| tx.write("a", "2")).unwrap_err();
    drop(view);
    let exists = cosave::create_new(root.path().join("a"), "2").unwrap_err();
    let late = store.begin().unwrap().expect_generation(7).unwrap_err();
    let missing = store.begin().unwrap().read("missing").unwrap_err();
    let told = |error: &Error| (error.is_conflict(), error.is_retryable());
    assert_eq!(
        [&locked, &exists, &late, &missing].map(told),
        [(false, true), (true, false), (true, false), (false, false)]
    );
    let closed = store.dry_run().unwrap().commit().unwrap_err();
    assert!(matches!(closed, Error::Unsupported { reason: Reason::DryRun, .. }), "{closed}");
}

#[test]
fn a_store_is_closed_and_opened_again_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let options = Store::options().durability(cosave::Durability::Committed).control_dir("control");
    let store = options.open(root.path()).unwrap();
    assert_eq!(store.root().canonicalize().unwrap(), root.path().canonicalize().unwrap());
    assert!(!store.is_poisoned());
    put(&store, &[("a", "1")]);
    let store = store.reopen().unwrap();
    assert!(format!("{store:?}").contains("Committed"), "{store:?}");
    put(&store, &[("a", "2")]);
    assert_eq!(store.status().unwrap().pending.len(), 1, "the last waits were put off");
    store.close().unwrap();
    let names = fs::read_dir(root.path().join("control")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("pending")), "{names:?}");
    let again = Store::options().read_only(true).control_dir("control").open(root.path()).unwrap();
    again.close().unwrap();
    assert!(!root.path().join(".cosave").exists());
}

/// A failed `expect` said "cannot commit", though nobody had committed, and to try again, in vain.
#[test]
fn a_conflict_says_what_to_do_next() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1")]);
    let mut tx = store.begin().unwrap();
    let absent = tx.expect("a", Expect::Absent).unwrap_err().to_string();
    let path = Path::new(root.path().file_name().unwrap()).join("a");
    let named = format!("{}` exists already", path.display());
    assert!(absent.starts_with("cannot go on: `") && absent.contains(&named), "{absent}");
    assert!(absent.ends_with("exists already; nothing was changed, look at what is there, and decide anew"));
    let other = cosave::Checksum::of(b"2");
    let differs = tx.expect("a", Expect::Checksum(other)).unwrap_err().to_string();
    assert!(differs.ends_with("nothing was changed, look at what is there, and decide anew"), "{differs}");
    assert!(tx.expect_generation(9).unwrap_err().to_string().ends_with("decide anew"));
}

/// The names of error kinds were shown: "entity not found".
#[test]
fn an_error_of_the_librarys_own_has_words_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("d/a", "1")]);
    let mut tx = store.begin().unwrap();
    let reasons = [
        (tx.remove("missing"), "there is no such file or directory"),
        (tx.create_dir("d"), "something is there already"),
        (tx.remove_dir("d"), "the directory is not empty"),
        (tx.read("missing").map(drop), "there is no such file or directory"),
        (tx.read_link("d/a").map(drop), "it is not of the kind that is needed here"),
    ];
    for (refused, reason) in reasons {
        let error = refused.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), reason, "{error}");
    }
}

#[test]
fn an_absolute_path_below_the_root_is_turned_into_a_path_of_the_root() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let relative = |path: &Path| store.relative(path).map(|path| path.to_string());
    assert_eq!(relative(&root.path().join("d/../a")).map_err(drop), Err(()));
    assert_eq!(relative(&root.path().join("d/./a")).unwrap(), "d/a");
    assert_eq!(relative(&store.root().join("a")).unwrap(), "a");
    assert_eq!(relative(Path::new("a")).unwrap(), "a");
    let beside = root.path().with_file_name("beside");
    let message = relative(&beside).unwrap_err().to_string();
    assert!(
        message.contains("does not lie below a root") && message.contains("`Store::relative`"),
        "{message}"
    );
    for refused in [root.path().to_path_buf(), root.path().join(".cosave/lock"), "".into()] {
        assert!(matches!(store.relative(&refused), Err(Error::InvalidPath { .. })), "{}", refused.display());
    }
}
