//! Crash states, made by hand, and what opening the root makes of them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cosave::{Difference, Durability, Error, Finding, Generation, Problem, RelativePath, Store};

use crate::common::{Crash, assert_no_litter, litter, put, quick, text, tree};

fn path(text: &str) -> RelativePath {
    RelativePath::new(text).unwrap()
}

/// A root with one commit of `a`, `b` and `d/c`.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    put(&quick(root.path()), &[("a", "old a"), ("b", "old b"), ("d/c", "old c")]);
    root
}

/// Opens, and expects generation 2 to be finished with these differences.
fn finish(root: &Path, differences: &[(&str, Finding)]) {
    let store = Store::open(root).unwrap();
    let report = store.last_recovery();
    assert_eq!(report.rolled_forward, [Generation::from(2)]);
    let expected: Vec<_> = differences.iter().map(|(file, finding)| (path(file), finding.clone())).collect();
    let found: Vec<_> = report
        .differences
        .iter()
        .map(|Difference { path, finding, .. }| (path.clone(), finding.clone()))
        .collect();
    assert_eq!(found, expected);
    assert!(report.to_string().contains("finished generation 2"), "{report}");
    assert_eq!(store.generation().unwrap(), 2);
    drop(store);
    assert_no_litter(root);
    assert!(Store::open(root).unwrap().last_recovery().is_clean());
}

#[test]
fn what_was_published_is_finished() {
    let root = root();
    let mut crash = Crash::new(root.path());
    crash.write("a", "the new a");
    crash.write("d/c", "the new c");
    crash.write("new", "new");
    crash.remove("b");
    crash.publish(2);
    finish(root.path(), &[]);
    let read = |name: &str| text(root.path().join(name));
    assert_eq!((read("a"), read("d/c"), read("new")), ("the new a".into(), "the new c".into(), "new".into()));
    assert!(!root.path().join("b").exists());
}

/// A store had put off its last wait. Whoever opened the root beside it was told that a commit was finished,
/// as after a crash. Nobody had crashed, and nothing was moved.
#[test]
fn what_a_living_store_has_put_off_is_made_durable_and_is_no_news() {
    let root = tempfile::tempdir().unwrap();
    let living = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
    put(&living, &[("a", "1")]);
    let pending = |store: &Store| store.status().unwrap().pending;
    let reader = Store::options().recover(false).open(root.path()).unwrap();
    assert_eq!(reader.view().unwrap().read("a").unwrap(), b"1");
    assert_eq!(pending(&living), [Generation::from(1)], "a view has recovered what is in place");
    let opened = Store::open(root.path()).unwrap();
    assert!(opened.last_recovery().is_clean(), "{}", opened.last_recovery());
    assert!(pending(&opened).is_empty());
    put(&living, &[("a", "2")]);
    put(&opened, &[("b", "3")]);
    assert!(opened.last_recovery().is_clean(), "{}", opened.last_recovery());
    assert!(pending(&opened).is_empty());
    assert!(living.last_recovery().is_clean());
    assert_eq!((text(root.path().join("a")), text(root.path().join("b"))), ("2".to_owned(), "3".to_owned()));
}

#[test]
fn what_was_moved_already_is_not_moved_again() {
    let root = root();
    let mut crash = Crash::new(root.path());
    let staged = crash.write("a", "the new a");
    crash.write("d/c", "the new c");
    crash.publish(2);
    fs::rename(staged, root.path().join("a")).unwrap();
    finish(root.path(), &[]);
    assert_eq!(text(root.path().join("a")), "the new a");
    assert_eq!(text(root.path().join("d/c")), "the new c");
}

#[test]
#[cfg_attr(windows, ignore = "no two names can be told to be one file there; the second is kept")]
fn a_staged_name_of_the_target_itself_is_removed() {
    let root = root();
    let mut crash = Crash::new(root.path());
    let staged = crash.write("a", "the new a");
    crash.publish(2);
    // As a rename whose first half alone survived.
    fs::remove_file(root.path().join("a")).unwrap();
    fs::hard_link(&staged, root.path().join("a")).unwrap();
    finish(root.path(), &[]);
    assert_eq!(text(root.path().join("a")), "the new a");
    assert!(!staged.exists());
}

#[test]
fn what_somebody_wrote_between_crash_and_recovery_is_kept() {
    let root = root();
    let mut crash = Crash::new(root.path());
    crash.write("a", "the new a");
    crash.write("fresh", "fresh");
    crash.publish(2);
    fs::write(root.path().join("a"), "edited by hand").unwrap();
    fs::write(root.path().join("fresh"), "somebody was first").unwrap();
    finish(
        root.path(),
        &[
            ("a", Finding::SetAside(path("a.set-aside-2"))),
            ("fresh", Finding::SetAside(path("fresh.set-aside-2"))),
        ],
    );
    let read = |name: &str| text(root.path().join(name));
    assert_eq!((read("a").as_str(), read("a.set-aside-2").as_str()), ("the new a", "edited by hand"));
    assert_eq!((read("fresh").as_str(), read("fresh.set-aside-2").as_str()), ("fresh", "somebody was first"));
}

#[test]
fn what_is_kept_never_replaces_what_was_kept_before() {
    let root = root();
    fs::write(root.path().join("a.set-aside-2"), "precious").unwrap();
    let mut crash = Crash::new(root.path());
    crash.write("a", "the new a");
    crash.publish(2);
    fs::write(root.path().join("a"), "edited by hand").unwrap();
    finish(root.path(), &[("a", Finding::SetAside(path("a.set-aside-2-1")))]);
    assert_eq!(text(root.path().join("a.set-aside-2")), "precious");
    assert_eq!(text(root.path().join("a.set-aside-2-1")), "edited by hand");
}

#[test]
fn another_file_than_the_one_to_be_removed_is_left() {
    let root = root();
    let mut crash = Crash::new(root.path());
    crash.remove("a");
    crash.remove("b");
    crash.publish(2);
    fs::write(root.path().join("a"), "another file").unwrap();
    finish(root.path(), &[("a", Finding::NotRemoved)]);
    assert_eq!(text(root.path().join("a")), "another file");
    assert!(!root.path().join("b").exists());
}

#[test]
fn a_file_changed_after_it_was_moved_is_left_and_reported() {
    let root = root();
    let mut crash = Crash::new(root.path());
    let staged = crash.write("a", "the new a");
    crash.publish(2);
    fs::rename(staged, root.path().join("a")).unwrap();
    fs::write(root.path().join("a"), "edited afterwards").unwrap();
    finish(root.path(), &[("a", Finding::ChangedSince)]);
    assert_eq!(text(root.path().join("a")), "edited afterwards");
}

#[test]
fn a_directory_where_a_file_is_to_go_stops_recovery_and_loses_nothing() {
    let root = root();
    let mut crash = Crash::new(root.path());
    crash.write("b", "the new b");
    let staged = crash.write("a", "the new a");
    crash.publish(2);
    fs::remove_file(root.path().join("a")).unwrap();
    fs::create_dir(root.path().join("a")).unwrap();
    let error = Store::open(root.path()).unwrap_err();
    assert!(matches!(error, Error::NotApplied { generation, .. } if generation == 2), "{error:?}");
    assert!(staged.exists());
    assert_eq!(text(root.path().join("b")), "old b", "it moved before it had looked at everything");
    fs::remove_dir(root.path().join("a")).unwrap();
    finish(root.path(), &[]);
    assert_eq!(text(root.path().join("a")), "the new a");
}

#[test]
fn generations_beyond_a_gap_are_discarded() {
    let root = root();
    let mut second = Crash::new(root.path());
    second.write("a", "the new a");
    second.publish(2);
    let mut fourth = Crash::new(root.path());
    let orphan = fourth.write("b", "never acknowledged");
    fourth.publish(4);
    let store = Store::open(root.path()).unwrap();
    let report = store.last_recovery();
    assert_eq!(report.rolled_forward, [Generation::from(2)]);
    assert_eq!(report.discarded, [Generation::from(4)]);
    assert_eq!(text(root.path().join("a")), "the new a");
    assert_eq!(text(root.path().join("b")), "old b");
    assert_eq!(put(&store, &[("a", "3")]).generation(), 3);
    drop(store);
    // This one's session has left no record, as no real one can: nobody sweeps it.
    fs::remove_file(orphan).unwrap();
    assert_no_litter(root.path());
}

#[test]
fn several_generations_are_finished_in_their_order() {
    let root = root();
    let mut second = Crash::new(root.path());
    let moved = second.write("a", "second");
    second.publish(2);
    fs::rename(moved, root.path().join("a")).unwrap();
    let mut third = Crash::new(root.path());
    third.write("a", "the third");
    third.remove("b");
    third.publish(3);
    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.last_recovery().rolled_forward, [2, 3].map(Generation::from));
    assert!(store.last_recovery().differences.is_empty(), "{}", store.last_recovery());
    assert_eq!(text(root.path().join("a")), "the third");
    assert_eq!(store.generation().unwrap(), 3);
}

#[test]
fn a_damaged_staged_file_is_corrupt_and_nothing_moves() {
    let root = root();
    let mut crash = Crash::new(root.path());
    crash.write("b", "the new b");
    let staged = crash.write("a", "the new a");
    let pending = crash.publish(2);
    let stamp = fs::metadata(&staged).unwrap().modified().unwrap();
    fs::write(&staged, "the NEW a").unwrap();
    fs::File::options().write(true).open(&staged).unwrap().set_modified(stamp).unwrap();
    let before = tree(root.path());
    let error = Store::open(root.path()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == staged), "{error:?}");
    assert_eq!(tree(root.path()), before);
    assert!(pending.exists());
    // Restored, it goes on.
    fs::write(&staged, "the new a").unwrap();
    finish(root.path(), &[]);
    assert_eq!(text(root.path().join("b")), "the new b");
}

/// A database synced its bytes in a committed file without their time, and a power loss undid the move. The
/// only way out was to give up the commit, with all its files.
#[test]
fn a_staged_file_with_other_bytes_and_the_same_time_is_moved_once_somebody_touches_it() {
    let root = root();
    let mut crash = Crash::new(root.path());
    crash.write("b", "the new b");
    let staged = crash.write("a", "the new a");
    crash.publish(2);
    let file = fs::File::options().write(true).open(&staged).unwrap();
    let stamp = file.metadata().unwrap().modified().unwrap();
    fs::write(&staged, "database ").unwrap();
    file.set_modified(stamp).unwrap();
    let error = Store::open(root.path()).unwrap_err();
    assert!(error.to_string().contains("`touch` it"), "{error}");
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    finish(root.path(), &[("a", Finding::WrittenInPlace)]);
    assert_eq!(
        (text(root.path().join("a")), text(root.path().join("b"))),
        ("database ".into(), "the new b".into())
    );
}

#[test]
fn a_staged_file_that_somebody_wrote_to_is_moved_and_reported() {
    let root = root();
    let mut crash = Crash::new(root.path());
    let staged = crash.write("a", "the new a");
    crash.publish(2);
    fs::write(&staged, "the NEW a").unwrap();
    let later = SystemTime::now() + Duration::from_secs(5);
    fs::File::options().write(true).open(&staged).unwrap().set_modified(later).unwrap();
    finish(root.path(), &[("a", Finding::WrittenInPlace)]);
    assert_eq!(text(root.path().join("a")), "the NEW a");
}

#[test]
fn a_read_only_store_reads_through_what_is_pending() {
    let root = root();
    let mut crash = Crash::new(root.path());
    let staged = crash.write("a", "the new a");
    crash.write("d/c", "the new c");
    crash.write("d/new", "new");
    crash.remove("b");
    crash.publish(2);
    fs::rename(staged, root.path().join("a")).unwrap();
    let before = (tree(root.path()), litter(root.path()));
    let store = Store::options().read_only(true).open(root.path()).unwrap();
    {
        let view = store.view().unwrap();
        assert_eq!(view.generation(), 2);
        assert_eq!(view.read("a").unwrap(), b"the new a");
        assert_eq!(view.read("d/c").unwrap(), b"the new c");
        assert!(view.exists("d/new").unwrap());
        assert!(!view.exists("b").unwrap());
        assert!(view.read("b").unwrap_err().is_not_found());
        assert_eq!(view.list("").unwrap(), [path("a"), path("d")]);
        assert_eq!(view.list("d").unwrap(), [path("d/c"), path("d/new")]);
    }
    let status = store.status().unwrap();
    assert_eq!((status.generation, status.pending), (2.into(), vec![2.into()]));
    drop(store);
    assert_eq!((tree(root.path()), litter(root.path())), before, "a read-only store changed something");
    finish(root.path(), &[]);
}

#[test]
fn a_view_finishes_what_a_dead_writer_left() {
    let root = root();
    let store = quick(root.path());
    let mut crash = Crash::new(root.path());
    crash.write("a", "the new a");
    crash.publish(2);
    let view = store.view().unwrap();
    assert_eq!(view.generation(), 2);
    assert_eq!(text(root.path().join("a")), "the new a");
}

#[test]
fn a_commit_finishes_what_a_dead_writer_left() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("b", "third").unwrap();
    let mut crash = Crash::new(root.path());
    crash.write("a", "the new a");
    crash.publish(2);
    assert_eq!(tx.commit().unwrap().generation(), 3);
    assert_eq!(text(root.path().join("a")), "the new a");
    assert_eq!(text(root.path().join("b")), "third");
}

#[test]
fn recover_says_what_it_did() {
    let root = root();
    let store = quick(root.path());
    assert!(store.recover().unwrap().is_clean());
    assert!(store.last_recovery().is_clean());
    assert_eq!(store.last_recovery().to_string(), "nothing to recover");
    let mut crash = Crash::new(root.path());
    crash.write("a", "the new a");
    crash.publish(2);
    let report = store.recover().unwrap();
    assert_eq!(report.rolled_forward, [Generation::from(2)]);
    assert!(report.discarded.is_empty() && report.swept.is_empty() && report.differences.is_empty());
    assert_eq!(store.last_recovery(), report);
}

#[test]
fn sweeping_leaves_everything_that_is_not_cosaves() {
    let root = root();
    let uuid = "0123456789abcdef0123456789abcdef";
    let foreign = [
        ".x.cosave".to_owned(),
        format!("x.{uuid}-1-2.cosave"),
        format!(".x.{uuid}-01-2.cosave"),
        format!(".x.{uuid}-1-2.cosave.bak"),
        format!(".x.{uuid}.cosave"),
        format!("d/.x.{}-1-2.cosave", "A".repeat(32)),
        ".cosave/notes".to_owned(),
        ".cosave/01.pending".to_owned(),
        ".cosave/1.pending.bak".to_owned(),
        format!(".cosave/{uuid}-1.tmp/"),
        ".cosave/sessions/readme".to_owned(),
        "d/empty/".to_owned(),
    ];
    for name in &foreign {
        match name.strip_suffix('/') {
            Some(directory) => fs::create_dir(root.path().join(directory)).unwrap(),
            None => fs::write(root.path().join(name), "foreign").unwrap(),
        }
    }
    // A directory with a staged name is nobody's staged file.
    fs::create_dir(root.path().join(format!(".y.{uuid}-1-2.cosave"))).unwrap();
    let report = quick(root.path()).sweep().unwrap();
    assert!(report.swept.is_empty(), "{report}");
    for name in &foreign {
        assert!(root.path().join(name).exists(), "{name} was removed");
    }
    assert!(root.path().join(format!(".y.{uuid}-1-2.cosave")).is_dir());
}

/// A power cut on btrfs kept the removal of two old manifests and undid that of the one before them. It
/// still named a file that they had removed, and `verify` said that the file was missing.
#[test]
fn verify_asks_no_manifest_below_a_gap() {
    let root = tempfile::tempdir().unwrap();
    let control = root.path().join(".cosave");
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "first"), ("b", "first")]);
    let old = fs::read(control.join("1.applied")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove("a").unwrap();
    tx.commit().unwrap();
    put(&store, &[("b", "third")]);
    put(&store, &[("b", "fourth")]);
    assert!(!control.join("2.applied").exists());
    fs::write(control.join("1.applied"), old).unwrap();
    assert_eq!(store.verify().unwrap(), []);
    fs::remove_file(root.path().join("b")).unwrap();
    assert_eq!(store.verify().unwrap().len(), 1);
}

/// A power cut on ext4 with `data=writeback` brought a superseded manifest back with another file's bytes.
/// `verify` refused the whole root for it. The newest manifest is another matter.
#[test]
fn verify_passes_over_a_superseded_manifest_that_is_damaged() {
    let root = tempfile::tempdir().unwrap();
    let control = root.path().join(".cosave");
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "first"), ("b", "first")]);
    put(&store, &[("a", "second")]);
    fs::write(control.join("1.applied"), "the bytes of another file").unwrap();
    assert_eq!(store.verify().unwrap(), []);
    fs::write(root.path().join("a"), "edited").unwrap();
    assert_eq!(store.verify().unwrap().len(), 1);
    fs::write(control.join("2.applied"), "the bytes of another file").unwrap();
    assert!(matches!(store.verify(), Err(Error::Corrupt { .. })));
}

#[test]
fn verify_tells_changed_missing_and_damaged_apart() {
    let root = root();
    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.verify().unwrap(), []);
    let mut tx = store.begin().unwrap();
    tx.write("a", "new a").unwrap();
    tx.write("new", "new").unwrap();
    tx.write("d/c", "new c").unwrap();
    tx.remove("b").unwrap();
    tx.commit().unwrap();
    assert_eq!(store.verify().unwrap(), []);
    let file = root.path().join("a");
    let stamp = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "NEW a").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(stamp).unwrap();
    fs::remove_file(root.path().join("new")).unwrap();
    fs::write(root.path().join("d/c"), "edited by hand").unwrap();
    fs::write(root.path().join("b"), "back").unwrap();
    let mut found: Vec<_> = store
        .verify()
        .unwrap()
        .into_iter()
        .map(|mismatch| (mismatch.path.to_string(), mismatch.generation.get(), mismatch.problem))
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("a", Problem::Damaged),
        ("b", Problem::Present),
        ("d/c", Problem::Changed),
        ("new", Problem::Missing),
    ];
    assert_eq!(found, expected.map(|(path, problem)| (path.to_owned(), 2, problem)));
}

#[test]
fn status_looks_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let status = store.status().unwrap();
    assert_eq!((status.generation, status.sessions_alive, status.needs_sweep), (0.into(), 0, false));
    assert!(status.pending.is_empty());
    assert!(!root.path().join(".cosave").exists(), "opening or looking made something");
    put(&store, &[("a", "1")]);
    let status = store.status().unwrap();
    assert_eq!((status.generation, status.sessions_alive, status.needs_sweep), (1.into(), 1, false));
    assert_eq!(store.generation().unwrap(), 1);
}
