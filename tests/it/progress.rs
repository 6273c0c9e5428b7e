//! What a caller is told of a save, and how it is cancelled.

use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cosave::{Error, Outcome, Progress, Store, StoreOptions};

use crate::common::{Crash, put, text};

/// Everything that was told, in one word each, and whether to cancel.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    /// Options whose function cancels at each step with this name.
    fn options(&self, cancelled: &'static str) -> StoreOptions {
        let told = self.clone();
        Store::options().on_progress(move |progress| {
            let name = match progress {
                Progress::Staged { path, length, .. } => format!("staged {path} {length}"),
                Progress::Committing { files, bytes, .. } => format!("committing {files} {bytes}"),
                Progress::Applied { generation, files, all, path, .. } => {
                    let last = path.as_ref().map(|path| format!(": {path}")).unwrap_or_default();
                    format!("applied {files} of {all} in {generation}{last}")
                }
                Progress::Recovering { generations, .. } => format!("recovering {generations}"),
                Progress::Staging { path, bytes, length, .. } => {
                    format!("staging {path} {bytes} of {length:?}")
                }
                Progress::Waiting { path, holder, .. } => {
                    format!("waiting for {} {holder:?}", path.display())
                }
                other => format!("{other:?}"),
            };
            let cancels = !cancelled.is_empty() && name.starts_with(cancelled);
            told.0.lock().unwrap().push(name);
            if cancels { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn save(store: &Store) -> cosave::Result<cosave::Commit> {
    store.update(|tx| {
        tx.write("a", "123")?;
        tx.write("d/b", "1")?;
        tx.remove_if_exists("gone").map(drop)
    })
}

#[test]
fn every_step_of_a_save_is_told() {
    for inline_max in [0, 1 << 20] {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("gone"), "1").unwrap();
        let told = Told::default();
        let store = told.options("").inline_max(inline_max).open(root.path()).unwrap();
        save(&store).unwrap();
        let steps = [
            "staged a 3",
            "staged d/b 1",
            "committing 3 4",
            "applied 0 of 3 in 1",
            "applied 1 of 3 in 1: a",
            "applied 2 of 3 in 1: d/b",
            "applied 3 of 3 in 1: gone",
        ];
        assert_eq!(told.take(), steps);
    }
}

#[test]
fn a_save_is_cancelled_before_its_commit_point_and_can_be_tried_again() {
    for inline_max in [0, 1 << 20] {
        let root = tempfile::tempdir().unwrap();
        let told = Told::default();
        let store = told.options("committing 1 3").inline_max(inline_max).open(root.path()).unwrap();
        put(&store, &[("a", "old")].map(|(path, _)| (path, "older")));
        let mut tx = store.begin().unwrap();
        tx.write("a", "new").unwrap();
        for _ in 0..2 {
            let error = tx.try_commit().unwrap_err();
            assert!(matches!(error, Error::Cancelled { .. }), "{error}");
            assert_eq!(error.outcome(), Outcome::NothingHappened);
            assert_eq!(text(root.path().join("a")), "older");
        }
        tx.write("b", "more").unwrap();
        tx.try_commit().unwrap();
        assert_eq!(text(root.path().join("a")), "new");
    }
}

#[test]
fn after_the_commit_point_it_is_too_late_to_cancel() {
    let root = tempfile::tempdir().unwrap();
    let told = Told::default();
    let store = told.options("applied").open(root.path()).unwrap();
    assert_eq!(save(&store).unwrap().generation(), 1);
    assert_eq!(told.take().last().unwrap(), "applied 2 of 2 in 1: d/b");
    assert_eq!(text(root.path().join("d/b")), "1");
}

/// A long file took minutes without a word, and could not be cancelled before its end.
#[test]
fn every_few_mebibytes_of_a_long_file_are_told() {
    const LONG: usize = 10 << 20;
    let told = Told::default();
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), vec![1; LONG]).unwrap();
    let store = told.options("").open(root.path()).unwrap();
    let steps = |path: &str, length: Option<u64>| {
        let bytes = told.take().into_iter().filter_map(|step| {
            let rest = step.strip_prefix("staging ")?.strip_prefix(path)?;
            let (bytes, found) = rest.trim().split_once(" of ")?;
            assert_eq!(found, format!("{length:?}"));
            Some(bytes.parse::<usize>().unwrap())
        });
        let bytes: Vec<_> = bytes.collect();
        assert!(
            bytes.is_sorted() && bytes.len() >= 2 && bytes.iter().all(|bytes| *bytes <= LONG),
            "{bytes:?}"
        );
    };
    let mut tx = store.begin().unwrap();
    tx.write("slice", vec![1; LONG]).unwrap();
    steps("slice", Some(LONG as u64));
    let mut writer = tx.writer("stream").unwrap();
    (0..LONG / 8192).for_each(|_| writer.write_all(&[1; 8192]).unwrap());
    writer.finish().unwrap();
    steps("stream", None);
    tx.copy_from("outside", outside.path()).unwrap();
    steps("outside", Some(LONG as u64));
    tx.copy("slice", "inside").unwrap();
    steps("inside", Some(LONG as u64));
    tx.commit().unwrap();
    for path in ["slice", "stream", "outside", "inside"] {
        assert_eq!(fs::metadata(root.path().join(path)).unwrap().len(), LONG as u64, "{path}");
    }
}

#[test]
fn a_long_file_that_is_cancelled_leaves_nothing() {
    let told = Told::default();
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), vec![1; 10 << 20]).unwrap();
    let store = told.options("staging").open(root.path()).unwrap();
    let mut tx = store.begin().unwrap();
    let mut streamed = tx.writer("d/streamed").unwrap();
    let stopped = std::io::copy(&mut fs::File::open(outside.path()).unwrap(), &mut streamed).unwrap_err();
    drop(streamed);
    let errors = [
        Error::from(stopped),
        tx.write("d/written", vec![1; 10 << 20]).unwrap_err(),
        tx.copy_from("d/copied", outside.path()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
    }
    assert!(matches!(tx.try_commit(), Err(Error::Unfinished { .. })), "its writer was not finished");
    tx.write("d/streamed", "short").unwrap();
    tx.commit().unwrap();
    let names = fs::read_dir(root.path().join("d")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["streamed"]);
}

#[test]
fn a_wait_for_a_lock_is_told_and_can_be_cancelled() {
    let told = Told::default();
    let root = tempfile::tempdir().unwrap();
    let store = told.options("waiting").open(root.path()).unwrap();
    let view = store.view().unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("a", "1").unwrap();
    told.take();
    let error = tx.try_commit().unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }) && !error.is_retryable(), "{error}");
    let told = told.take();
    let is_of_view = |step: &String| step.starts_with("waiting") && step.contains("this process");
    assert!(told.iter().any(is_of_view), "{told:?}");
    drop(view);
    assert_eq!(tx.commit().unwrap().generation(), 1);
}

#[test]
fn a_recovery_is_told() {
    let root = tempfile::tempdir().unwrap();
    put(&Store::open(root.path()).unwrap(), &[("a", "1")]);
    let mut crash = Crash::new(root.path());
    crash.write("a", "2");
    crash.publish(2);
    let told = Told::default();
    drop(told.options("recovering").open(root.path()).unwrap());
    assert_eq!(told.take(), ["recovering 1", "applied 1 of 1 in 2: a"]);
    assert_eq!(text(Path::new(root.path()).join("a")), "2");
}
