//! What one batch of commits leaves to the next, while the lock stays with the store.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cosave::{Error, Outcome, Progress, Store, Transaction};

use crate::common::{put, quick, text, waits};

/// A store that does something once, when all files of this generation are in place. Its lock is held then.
fn store(root: &Path, when: u64, act: impl Fn() + Send + Sync + 'static) -> Store {
    let options = Store::options().on_progress(move |progress| {
        match progress {
            Progress::Applied { generation, files, all, .. } if *generation == when && files == all => act(),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    options.open(root).unwrap()
}

fn stage(store: &Store, files: &[(&str, &str)]) -> Transaction {
    let mut tx = store.begin().unwrap();
    files.iter().for_each(|(path, content)| tx.write(path, content).unwrap());
    tx
}

/// Two batches, since both write `a`.
fn two_batches(store: &Store, second: &str) -> [cosave::Result<u64>; 2] {
    let both = vec![stage(store, &[("a", "1"), ("d/y", "1")]), stage(store, &[("a", "2"), (second, "2")])];
    let answers = Transaction::commit_together(both).into_iter();
    let answers: Vec<_> = answers.map(|answer| answer.map(cosave::Generation::get)).collect();
    answers.try_into().unwrap()
}

/// The store went on with the handle of a directory that was moved away, and saved the file there.
#[test]
fn the_next_batch_looks_again_where_a_directory_is() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    put(&quick(&path), &[("d/x", "0")]);
    let store = store(&path, 2, {
        let path = path.clone();
        move || {
            fs::rename(path.join("d"), path.join("moved")).unwrap();
            fs::create_dir(path.join("d")).unwrap();
        }
    });
    let [first, second] = two_batches(&store, "d/x");
    assert_eq!(first.unwrap(), 2);
    assert_eq!(text(path.join("moved/x")), "0", "a file outside of `d` was replaced: {second:?}");
    assert_eq!(second.unwrap_err().outcome(), Outcome::NothingHappened);
    assert_eq!(text(path.join("a")), "1");
}

/// It began to count anew, under a lock that nobody else saw.
// Windows removes no directory with an open file in it, and the lock is one.
#[cfg(unix)]
#[test]
fn the_next_batch_counts_on_after_the_control_directory_was_removed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let store = store(&path, 1, {
        let path = path.clone();
        move || {
            fs::remove_dir_all(path.join(".cosave")).unwrap();
            quick(&path).view().unwrap();
        }
    });
    let [first, second] = two_batches(&store, "b");
    assert_eq!(first.unwrap(), 1);
    assert_eq!(second.unwrap(), 2);
    assert_eq!([text(path.join("a")), text(path.join("b"))], ["2", "2"]);
}

/// Its last wait was left to the next batch, which could not even begin.
#[test]
fn a_commit_in_place_is_not_told_of_another_one_that_is_not() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let store = store(&path, 1, {
        let path = path.clone();
        move || fs::create_dir(path.join("b")).unwrap()
    });
    let all = vec![stage(&store, &[("a", "1")]), stage(&store, &[("b", "1")]), stage(&store, &[("a", "2")])];
    let answers = Transaction::commit_together(all);
    let [first, second, third] = &answers[..] else { panic!("{answers:?}") };
    assert!(matches!(second, Err(Error::NotApplied { .. })), "{second:?}");
    assert_eq!(third.as_ref().unwrap_err().outcome(), Outcome::NothingHappened);
    assert_eq!(first.as_ref().unwrap().get(), 1);
}

struct SaveOnDrop<'a>(&'a Store, &'a Mutex<Option<cosave::Result<u64>>>);

impl Drop for SaveOnDrop<'_> {
    fn drop(&mut self) {
        let saved = stage(self.0, &[("a", "1")]).commit().map(|commit| commit.generation().get());
        *self.1.lock().unwrap() = Some(saved);
    }
}

/// A thread can lead while it unwinds. That it panics is no reason to take its commit for a doubtful one.
#[test]
fn a_commit_in_a_destructor_is_not_in_doubt_because_its_thread_panics() {
    let root = tempfile::tempdir().unwrap();
    let (committing, applied) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (counted, seen) = (Arc::clone(&committing), Arc::clone(&applied));
    let options = Store::options().on_progress(move |progress| {
        match progress {
            Progress::Committing { .. } => _ = counted.fetch_add(1, Ordering::SeqCst),
            Progress::Applied { files: 1, .. } if seen.fetch_add(1, Ordering::SeqCst) == 0 => {
                assert!(waits(|| counted.load(Ordering::SeqCst) == 2));
                // The other thread is about to wait in the queue.
                thread::sleep(Duration::from_millis(100));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let store = options.open(root.path()).unwrap();
    let saved = Mutex::new(None);
    thread::scope(|scope| {
        let unwinding = scope.spawn(|| {
            let _save = SaveOnDrop(&store, &saved);
            panic!("this one is expected");
        });
        assert!(waits(|| applied.load(Ordering::SeqCst) == 1));
        assert_eq!(stage(&store, &[("b", "2")]).commit().unwrap().generation(), 2);
        assert!(unwinding.join().is_err());
    });
    let saved = saved.into_inner().unwrap();
    assert_eq!(saved.unwrap().unwrap(), 1);
}
