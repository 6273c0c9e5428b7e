//! What views, snapshots and transactions tell of paths, and that it is all of one state.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Seek as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cosave::{Error, FileKind, Store, Transaction};

use crate::common::{Crash, Over, put, quick, text, waits};

fn names(listed: &[cosave::RelativePath]) -> Vec<String> {
    listed.iter().map(ToString::to_string).collect()
}

fn in_memory_and_staged() -> [usize; 2] {
    [1 << 20, 0]
}

#[test]
fn a_transaction_sees_its_own_changes_in_everything_that_it_asks() {
    for inline_max in in_memory_and_staged() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::options().inline_max(inline_max).open(root.path()).unwrap();
        put(&store, &[("d/kept", "k"), ("d/gone", "g")]);
        let mut tx = store.begin().unwrap();
        assert_eq!(names(&tx.list("d").unwrap()), ["d/gone", "d/kept"]);
        tx.write("d/new", "12345").unwrap();
        tx.write("made/deep/file", "m").unwrap();
        tx.remove("d/gone").unwrap();
        assert_eq!(names(&tx.list("d").unwrap()), ["d/kept", "d/new"]);
        assert_eq!(names(&tx.list("").unwrap()), ["d", "made"]);
        assert_eq!(names(&tx.list("made").unwrap()), ["made/deep"]);
        let seen = |path: &str| tx.exists(path).unwrap();
        assert!(seen("d/new") && seen("d/kept") && seen("d") && seen("made/deep") && seen("."));
        assert!(!seen("d/gone") && !seen("missing") && !seen("d/kept/below"));
        let new = tx.metadata("d/new").unwrap();
        assert_eq!((new.length(), new.is_file(), new.modified()), (5, true, None));
        assert!(tx.metadata("made").unwrap().is_directory());
        assert!(tx.metadata("d/kept").unwrap().modified().is_some());
        for missing in [tx.metadata("d/gone").map(drop), tx.open("d/gone").map(drop), tx.list("x").map(drop)]
        {
            assert!(missing.unwrap_err().is_not_found());
        }
        assert_eq!(tx.read_to_string("d/new").unwrap(), "12345");
        for (path, content) in [("d/new", "12345"), ("d/kept", "k")] {
            let mut file = tx.open(path).unwrap();
            let mut twice = String::new();
            file.read_to_string(&mut twice).unwrap();
            file.rewind().unwrap();
            file.read_to_string(&mut twice).unwrap();
            assert_eq!((twice, file.length().unwrap()), (content.repeat(2), content.len() as u64));
        }
        tx.commit().unwrap();
        assert_eq!(text(root.path().join("made/deep/file")), "m");
    }
}

/// Asks a transaction, lets another commit, and commits. Returns whether that was a conflict.
fn is_conflict(ask: impl Fn(&Transaction), change: impl Fn(&mut Transaction) -> cosave::Result<()>) -> bool {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1"), ("d/b", "1")]);
    let mut tx = store.begin().unwrap();
    ask(&tx);
    store.update(change).unwrap();
    // Also in a directory that this transaction makes itself.
    tx.write("mine/new", "1").unwrap();
    match tx.commit() {
        Ok(_) => false,
        Err(error) if error.is_conflict() => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_a_transaction_has_asked_must_still_be_true_at_its_commit() {
    let exists = |path: &'static str| move |tx: &Transaction| _ = tx.exists(path).unwrap();
    assert!(is_conflict(exists("new"), |tx| tx.write("new", "1")), "absence");
    assert!(is_conflict(exists("new"), |tx| tx.write("new/below", "1")), "absence of a directory");
    assert!(is_conflict(exists("a"), |tx| tx.remove("a")), "presence");
    assert!(is_conflict(|tx| _ = tx.metadata("a").unwrap(), |tx| tx.write("a", "22")), "length");
    assert!(is_conflict(|tx| drop(tx.metadata("x").unwrap_err()), |tx| tx.write("x", "1")), "no length");
    assert!(is_conflict(|tx| drop(tx.list("d").unwrap()), |tx| tx.write("d/c", "1")), "a new name");
    assert!(is_conflict(|tx| drop(tx.list("d").unwrap()), |tx| tx.remove("d/b")), "a name less");
    assert!(is_conflict(|tx| drop(tx.list("x").unwrap_err()), |tx| tx.write("x/y", "1")), "no directory");
    assert!(is_conflict(|tx| drop(tx.open("a").unwrap()), |tx| tx.write("a", "2")), "content");
    assert!(is_conflict(|tx| drop(tx.read_to_string("a").unwrap()), |tx| tx.write("a", "2")), "text");
}

#[test]
fn what_a_transaction_has_not_asked_may_change() {
    let exists = |tx: &Transaction| assert!(tx.exists("a").unwrap() && !tx.exists("mine").unwrap());
    assert!(!is_conflict(exists, |tx| tx.write("a", "2")), "new content is no new file");
    let list = |tx: &Transaction| drop((tx.list("").unwrap(), tx.list("mine").unwrap_err()));
    assert!(!is_conflict(list, |tx| tx.write("d/c", "2")), "a name in a directory that was not listed");
    assert!(
        !is_conflict(|tx| drop(tx.list("d").unwrap()), |tx| tx.write("d/b", "2")),
        "the names are the same"
    );
    assert!(
        !is_conflict(|tx| _ = tx.metadata("d").unwrap(), |tx| tx.write("d/c", "2")),
        "a directory's time"
    );
}

/// A directory that a transaction made for its own file was a change of what it had listed before.
#[test]
fn the_directories_of_a_transactions_own_files_are_no_conflict() {
    for inline_max in in_memory_and_staged() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::options().inline_max(inline_max).open(root.path()).unwrap();
        put(&store, &[("a", "1")]);
        let mut tx = store.begin().unwrap();
        assert_eq!(names(&tx.list("").unwrap()), ["a"]);
        assert!(!tx.exists("new").unwrap());
        tx.write("new/deep/b", "1").unwrap();
        assert_eq!(names(&tx.list("").unwrap()), ["a", "new"]);
        put(&store, &[("other/c", "1")]);
        drop(tx);

        let mut tx = store.begin().unwrap();
        assert_eq!(names(&tx.list("").unwrap()), ["a", "other"]);
        assert!(tx.metadata("new").unwrap_err().is_not_found());
        tx.write("new/deep/b", "1").unwrap();
        put(&store, &[("a", "2")]);
        assert!(tx.exists("new/deep").unwrap());
        tx.try_commit().unwrap();

        let mut tx = store.begin().unwrap();
        assert!(!tx.exists("more").unwrap());
        tx.write("more/mine", "1").unwrap();
        put(&store, &[("more/theirs", "1")]);
        assert!(tx.commit().unwrap_err().is_conflict(), "the directory is not its own alone");
    }
}

/// Every commit puts one file into `d`, which says its own name and is named by `name`.
fn replace_until(store: &Store, over: &AtomicBool) {
    let mut number = 1;
    while !over.load(Ordering::SeqCst) {
        number += 1;
        let done = store.update(|tx| {
            let old = tx.read_to_string("name")?;
            tx.remove(format!("d/{old}"))?;
            let new = "x".repeat(number % 50 + 1);
            tx.write(format!("d/{new}"), &new)?;
            tx.write("name", new)
        });
        done.unwrap();
    }
}

#[test]
fn everything_that_is_asked_is_of_one_state_while_others_commit() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("name", "x"), ("d/x", "x")]);
    let over = AtomicBool::new(false);
    let mut generations = BTreeSet::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let writer = quick(root.path());
            scope.spawn({
                let over = &over;
                move || replace_until(&writer, over)
            });
        }
        let _over = Over(&over);
        let ended = waits(|| {
            let asked = store.update(|tx| {
                let name = tx.read_to_string("name")?;
                let path = format!("d/{name}");
                assert!(tx.exists(&path)?, "{path} is of another state");
                assert_eq!(tx.metadata(&path)?.length(), name.len() as u64);
                assert_eq!(names(&tx.list("d")?), [path.as_str()]);
                assert_eq!(std::io::read_to_string(tx.open(&path)?)?, name);
                Ok::<_, Error>(())
            });
            generations.insert(asked.unwrap().generation().get());

            let view = store.view().unwrap();
            let name = view.read_to_string("name").unwrap();
            let path = format!("d/{name}");
            assert!(view.exists(&path).unwrap() && view.exists("d").unwrap());
            assert_eq!(view.metadata(&path).unwrap().length(), name.len() as u64);
            let walked: Vec<_> = view.walk("").unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(walked, ["d", &path, "name"]);
            drop(view);

            let snapshot = store.snapshot(&["name", "d/x"]).unwrap();
            let files: Vec<_> = snapshot.into_files().into_iter().collect();
            let [Some(name), x] = <[_; 2]>::try_from(files).unwrap() else { panic!("no name") };
            assert_eq!(std::io::read_to_string(name).unwrap() == "x", x.is_some());
            generations.len() >= 8
        });
        assert!(ended, "only {} generations were seen", generations.len());
    });
}

#[test]
fn a_view_says_what_every_path_is() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "123"), ("d/e/b", "1"), ("d/c", "1")]);
    #[cfg(unix)]
    std::os::unix::fs::symlink("d", root.path().join("link")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", root.path().join("z")).unwrap();
    let view = store.view().unwrap();
    assert!(view.exists("d").unwrap() && view.exists("d/e/").unwrap() && view.exists("").unwrap());
    assert!(!view.exists("a/below").unwrap() && !view.exists("d/missing").unwrap());
    assert!(matches!(view.exists("../a"), Err(Error::InvalidPath { .. })));
    assert!(matches!(view.metadata(".cosave/lock"), Err(Error::InvalidPath { .. })));
    let info = view.metadata("a").unwrap();
    assert_eq!((info.kind(), info.length(), info.mode().is_some()), (FileKind::File, 3, true));
    let modified = fs::metadata(root.path().join("a")).unwrap().modified().unwrap();
    assert_eq!(info.modified(), Some(modified));
    assert!(view.metadata("x").unwrap_err().is_not_found());
    let walked = view.walk("").unwrap();
    let paths: Vec<_> = walked.iter().map(ToString::to_string).collect();
    let below: Vec<_> = view.walk("d").unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(below, ["d/c", "d/e", "d/e/b"]);
    let kind = |path: &str| walked.iter().find(|entry| entry.to_string() == path).unwrap().kind();
    assert_eq!((kind("a"), kind("d/e")), (FileKind::File, FileKind::Directory));
    if cfg!(unix) {
        assert_eq!(paths, ["a", "d", "d/c", "d/e", "d/e/b", "link", "z"], "a link was followed");
        assert_eq!((kind("link"), kind("z")), (FileKind::Link, FileKind::Link));
        assert!(view.exists("link/c").unwrap() && view.exists("link").unwrap() && !view.exists("z").unwrap());
        assert_eq!(view.metadata("link").unwrap().kind(), FileKind::Directory);
    }
    let entries = view.entries("d").unwrap();
    assert_eq!(
        entries.iter().map(|entry| entry.kind()).collect::<Vec<_>>(),
        [FileKind::File, FileKind::Directory]
    );
}

#[test]
fn a_view_tells_of_a_pending_commit_as_if_it_were_in_place() {
    let root = tempfile::tempdir().unwrap();
    put(&Store::open(root.path()).unwrap(), &[("a", "1"), ("b", "1")]);
    let mut crash = Crash::new(root.path());
    crash.write("a", "longer");
    crash.write("new", "12");
    crash.remove("b");
    crash.publish(2);
    let store = Store::options().read_only(true).open(root.path()).unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.metadata("a").unwrap().length(), 6);
    assert_eq!(view.metadata("new").unwrap().length(), 2);
    assert!(view.exists("new").unwrap() && !view.exists("b").unwrap());
    let entries: Vec<_> = view.walk("").unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(entries, ["a", "new"]);
    assert_eq!(view.read_to_string("a").unwrap(), "longer");
}

/// It made the root, and promised to write nothing.
#[test]
fn a_read_only_store_does_not_make_its_root() {
    let above = tempfile::tempdir().unwrap();
    let root = above.path().join("new");
    let refused = Store::options().read_only(true).create(true).open(&root).unwrap_err();
    assert!(refused.is_not_found() && !root.exists(), "{refused}");
}

// On Windows no file can be replaced while it is open.
#[cfg(not(windows))]
#[test]
fn a_snapshot_holds_no_lock_and_its_files_stay_as_they_are() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().lock_timeout(Duration::from_millis(50)).open(root.path()).unwrap();
    put(&store, &[("a", "1"), ("b", "1")]);
    let snapshot = store.snapshot(&["a", "missing", "b"]).unwrap();
    assert_eq!(snapshot.generation(), 1);
    put(&store, &[("a", "2"), ("b", "2"), ("missing", "2")]);
    let read = |file: cosave::FileReader| std::io::read_to_string(file).unwrap();
    let files: Vec<_> = snapshot.into_files().into_iter().map(|file| file.map(read)).collect();
    assert_eq!(files, [Some("1".to_owned()), None, Some("1".to_owned())]);
    assert!(matches!(store.snapshot(&["../a"]), Err(Error::InvalidPath { .. })));
}

#[test]
fn a_file_that_is_no_text_is_refused_as_text() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    fs::write(root.path().join("a"), [0xff]).unwrap();
    let invalid = |error: Error| std::io::Error::from(error).kind();
    assert_eq!(
        invalid(store.begin().unwrap().read_to_string("a").unwrap_err()),
        std::io::ErrorKind::InvalidData
    );
    assert_eq!(
        invalid(store.view().unwrap().read_to_string("a").unwrap_err()),
        std::io::ErrorKind::InvalidData
    );
}
