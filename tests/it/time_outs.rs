//! How long one call waits for others: no longer than its own time-out, and not at all once it is given up.

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cosave::fs::sim::{Model, SimDisk};
use cosave::fs::{FileSystem, LockKind};
use cosave::{Error, RelativePath, Store};
use tokio::runtime::{Builder, Runtime};

use crate::common::{assert_no_litter, put};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn waited<T: std::fmt::Debug>(result: cosave::Result<T>) -> Duration {
    match result.unwrap_err() {
        Error::Locked { waited, .. } => waited,
        error => panic!("{error}"),
    }
}

/// Threads waited one after the other, each for as long as its time-out: six of them with two seconds took
/// ten and a half. Each said that it had waited for two.
#[test]
fn threads_that_wait_for_the_same_lock_give_up_at_the_same_time() {
    const THREADS: u32 = 6;
    let timeout = Duration::from_secs(1);
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().lock_timeout(timeout).open(root.path()).unwrap();
    put(&store, &[("index", "1")]);
    let other = Store::open(root.path()).unwrap();
    let lock = other.lock().unwrap();
    std::thread::scope(|scope| {
        let save = || {
            let begun = Instant::now();
            let saved = store.update(|tx| {
                tx.read("index")?;
                tx.write("index", "2")
            });
            (waited(saved), begun.elapsed())
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(save)).collect();
        for thread in threads {
            let (waited, took) = thread.join().unwrap();
            assert!(waited >= timeout, "it gave up after {waited:?}");
            assert!(took < timeout * THREADS / 2, "it took {took:?}");
        }
    });
    drop(lock);
    put(&store, &[("index", "2")]);
}

/// A read waited, and then the commit after it, each with a time-out of its own. On a disk whose clock only
/// waits, so that every moment is counted.
#[test]
fn an_update_that_waits_twice_ends_with_its_own_time_out() {
    let disk = SimDisk::new(Model::OrderedPrefix);
    let other = Store::options().open_on(disk.process()).unwrap();
    put(&other, &[("a", "1")]);
    let process = disk.process();
    let lock_queue = |process: &Arc<dyn FileSystem>| {
        let queue = RelativePath::new(".cosave/queue").unwrap();
        process.try_lock(&queue, LockKind::Exclusive).unwrap()
    };
    let held = Arc::new(Mutex::new(None));
    let releases = Arc::clone(&held);
    let options = Store::options().lock_timeout(Duration::from_secs(2)).on_wait(move |waiting| {
        if waiting.waited > Duration::from_secs(1) {
            drop(releases.lock().unwrap().take());
        }
    });
    let store = options.open_on(disk.process()).unwrap();
    let _lock = other.lock().unwrap();
    *held.lock().unwrap() = lock_queue(&process);
    let begun = process.elapsed();
    let saved = store.update(|tx| {
        tx.read("a")?;
        tx.write("a", "2")
    });
    let (waited, took) = (waited(saved), process.elapsed() - begun);
    assert!(held.lock().unwrap().is_none(), "the read has not waited");
    assert!(took < Duration::from_millis(2100), "it took {took:?}");
    assert!(waited.abs_diff(took) < Duration::from_millis(50), "it took {took:?}, and said {waited:?}");
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// A store whose waits are told, by the name of the file that they are for.
fn told_store(root: &Path) -> (cosave::tokio::Store, mpsc::Receiver<String>) {
    let (told, waits) = mpsc::channel();
    let options = Store::options().lock_timeout(LONG).on_wait(move |waiting| {
        let name = waiting.path.file_name().unwrap_or_default();
        drop(told.send(name.to_string_lossy().into_owned()));
    });
    (options.open(root).unwrap().into(), waits)
}

/// Saves whose callers had gone went on waiting, one after the other. The end of the runtime waited for all.
#[test]
fn saves_that_were_given_up_do_not_wait_for_the_lock() {
    let root = tempfile::tempdir().unwrap();
    let other = Store::open(root.path()).unwrap();
    put(&other, &[("index", "1")]);
    let (store, waits) = told_store(root.path());
    let lock = other.lock().unwrap();
    let runtime = runtime();
    let begun = Instant::now();
    let saves: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            let save = async move {
                let saved = store.update(|tx| {
                    tx.read("index")?;
                    tx.write("index", "2")
                });
                saved.await
            };
            runtime.spawn(save)
        })
        .collect();
    assert!(waits.iter().any(|name| name == "lease"), "nobody has waited for the lease");
    saves.iter().for_each(tokio::task::JoinHandle::abort);
    drop((saves, store));
    drop(runtime);
    assert!(begun.elapsed() < LONG / 2, "it took {:?}", begun.elapsed());
    drop((lock, other));
    assert_no_litter(root.path());
}

#[test]
fn a_view_or_a_read_of_a_save_that_was_given_up_does_not_wait_for_the_lock() {
    type Spawn = fn(&Runtime, cosave::tokio::Store) -> tokio::task::AbortHandle;
    let ways: [Spawn; 2] = [
        |runtime, store| {
            runtime.spawn(async move { store.update(|tx| tx.read("a")).await.map(drop) }).abort_handle()
        },
        |runtime, store| runtime.spawn(async move { store.view().await.map(drop) }).abort_handle(),
    ];
    for spawn in ways {
        let root = tempfile::tempdir().unwrap();
        put(&Store::open(root.path()).unwrap(), &[("a", "1")]);
        let (store, waits) = told_store(root.path());
        // As a writer does that waits for a reader.
        let queue = std::fs::File::open(root.path().join(".cosave/queue")).unwrap();
        fs2::FileExt::lock_exclusive(&queue).unwrap();
        let runtime = runtime();
        let begun = Instant::now();
        let task = spawn(&runtime, store);
        assert_eq!(waits.iter().next().as_deref(), Some("queue"));
        task.abort();
        drop(runtime);
        assert!(begun.elapsed() < LONG / 2, "it took {:?}", begun.elapsed());
        drop(queue);
    }
}
