//! A file that grows, with futures: many tasks, dropped futures, and the end.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use cosave::fs::sim::{Aftermath, Fault, Model, SimDisk};
use cosave::tokio::AppendFile;
use cosave::{Error, RelativePath};
use tokio::runtime::{Builder, Runtime};

use crate::common::{text, tree, waits};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn runtime(pool: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).max_blocking_threads(pool).build().unwrap()
}

/// Polls a future once, and drops it. It cannot be ready: the only thread of the pool is busy meanwhile.
fn drop_at_once<T>(future: impl Future<Output = T>) {
    let (busy, until) = mpsc::channel::<()>();
    drop(tokio::task::spawn_blocking(move || until.recv()));
    assert!(pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(busy);
}

#[test]
fn records_of_many_tasks_are_durable_and_in_the_order_of_each_while_the_file_is_rotated() {
    const TASKS: usize = 100;
    const EACH: usize = 10;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    runtime(64).block_on(async {
        let options = cosave::AppendFile::options().sync_every(1);
        let log = Arc::new(AppendFile::open_with(options, &path).await.unwrap());
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    for number in 0..EACH {
                        log.append(format!("{task} {number}\n")).await.unwrap();
                    }
                })
            })
            .collect();
        for number in 0..3 {
            log.rotate(format!("log.{number}")).await.unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(log.synced_len().await.unwrap(), log.len().await.unwrap());
        Arc::into_inner(log).unwrap().close().await.unwrap();
    });
    let files = ["log.0", "log.1", "log.2", "log"].map(|name| text(root.path().join(name)));
    let all = files.concat();
    for task in 0..TASKS {
        let own = all.lines().filter_map(|line| line.strip_prefix(&format!("{task} ")));
        assert!(own.eq((0..EACH).map(|number| number.to_string())), "the records of task {task}");
    }
    assert_eq!((all.lines().count(), tree(root.path()).len()), (TASKS * EACH, 4));
}

#[test]
fn a_record_and_a_rotation_whose_futures_were_dropped_in_time_leave_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    runtime(1).block_on(async {
        let log = AppendFile::open(&path).await.unwrap();
        drop_at_once(log.append("never\n"));
        drop_at_once(log.rotate("never"));
        drop_at_once(log.sync());
        log.append("1\n").await.unwrap();
        assert_eq!(log.sync().await.unwrap(), 2);
        log.rotate("log.1").await.unwrap();
        assert!(log.is_empty().await.unwrap());
        log.close().await.unwrap();
    });
    assert_eq!(tree(root.path()).len(), 2);
    assert_eq!((text(root.path().join("log.1")), text(&path)), ("1\n".to_owned(), String::new()));
}

/// Both were on threads of the pool already, where they waited for a record that took its time.
#[cfg(unix)] // Windows tells how long an open file is only later.
#[test]
fn a_record_and_a_rotation_that_wait_on_the_pool_are_given_up_with_their_futures() {
    const LONG_BYTES: u64 = 64 << 20;
    // In memory, where it exists: no disk need take the long records.
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = root.path().join("log");
    let written = || std::fs::metadata(&path).unwrap().len();
    // Whoever comes late on a busy machine finds that they had their turn, and tries again.
    let was_seen = (0..20).any(|_| {
        let _ = std::fs::remove_file(&path);
        runtime(64).block_on(async {
            let log = Arc::new(AppendFile::open(&path).await.unwrap());
            let own = Arc::clone(&log);
            let first = tokio::spawn(async move { own.append(vec![b'.'; LONG_BYTES as usize]).await });
            assert!(waits(|| written() > 0));
            let (mut record, mut rotation) = (Box::pin(log.append("never\n")), Box::pin(log.rotate("never")));
            let mut context = Context::from_waker(Waker::noop());
            let is_pending = record.as_mut().poll(&mut context).is_pending()
                && rotation.as_mut().poll(&mut context).is_pending();
            let is_there = || root.path().join("never").exists();
            assert!(waits(|| written() > LONG_BYTES / 2 || is_there()));
            drop((record, rotation));
            let were_waiting = is_pending && (1..LONG_BYTES).contains(&written());
            first.await.unwrap().unwrap();
            if were_waiting {
                log.append("1\n").await.unwrap();
                assert_eq!(log.len().await.unwrap(), LONG_BYTES + 2);
                assert!(!is_there(), "it was renamed");
            }
            Arc::into_inner(log).unwrap().close().await.unwrap();
            let _ = std::fs::remove_file(root.path().join("never"));
            were_waiting
        })
    });
    assert!(was_seen, "they never waited");
}

/// Its record was written, or it was not: nothing in between, and what came later came after it.
#[test]
fn a_record_dropped_at_any_moment_is_there_whole_or_never_comes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    let record = |number: u32| format!("{number}:{}\n", "x".repeat(100_000));
    let landed = Mutex::new(0);
    runtime(64).block_on(async {
        let log = Arc::new(AppendFile::open(&path).await.unwrap());
        for number in 0..100 {
            let own = Arc::clone(&log);
            let task = tokio::spawn(async move { own.append(record(2 * number)).await });
            for _ in 0..number {
                std::thread::yield_now();
            }
            task.abort();
            *landed.lock().unwrap() += u32::from(task.await.is_ok());
            log.append(record(2 * number + 1)).await.unwrap();
        }
        drop(log);
    });
    let found = text(&path);
    let numbers: Vec<u32> =
        found.lines().map(|line| line.split_once(':').unwrap().0.parse().unwrap()).collect();
    assert!(numbers.iter().zip(found.split_inclusive('\n')).all(|(number, line)| *line == record(*number)));
    assert!(numbers.is_sorted(), "an older record has come after a newer one: {numbers:?}");
    assert_eq!(numbers.iter().filter(|number| *number % 2 == 1).count(), 100);
    assert!(numbers.len() >= 100 + *landed.lock().unwrap() as usize);
}

#[test]
fn after_a_failed_sync_every_task_is_refused_and_the_file_says_what_is_good() {
    let disk = SimDisk::new(Model::WeakPosix);
    let path = RelativePath::new("log").unwrap();
    let options = cosave::AppendFile::options().sync_every(1);
    let log = options.open_on(disk.process(), &path, |_| Ok(0)).unwrap();
    runtime(64).block_on(async {
        let log = AppendFile::from(log);
        log.append("1\n").await.unwrap();
        // The calls before it write the record, and ask what it owes.
        let (after, aftermath) = (disk.calls() + 2, Aftermath::CacheShowsNew);
        disk.fail_at(&[Fault { after, error: 5, persistent: false, aftermath }]);
        for refused in [
            log.append("2\n").await.err(),
            log.append("3\n").await.err(),
            log.sync().await.err(),
            log.rotate("log.1").await.err(),
        ] {
            assert!(matches!(refused, Some(Error::NotAppended { synced: 2, .. })), "{refused:?}");
        }
        assert_eq!((log.len().await.unwrap(), log.synced_len().await.unwrap()), (2, 2));
        assert!(log.close().await.is_err());
    });
    assert_eq!(disk.files(), [("log".to_owned(), b"1\n".to_vec())].into());
}

/// A task that drops a file must not wait for the disk.
#[test]
fn a_file_that_is_dropped_is_closed_on_the_pool() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    runtime(1).block_on(async {
        let log = AppendFile::open(&path).await.unwrap();
        log.append("1\n").await.unwrap();
        let (busy, until) = mpsc::channel::<()>();
        let parked = tokio::task::spawn_blocking(move || until.recv());
        drop(log);
        assert!(matches!(cosave::AppendFile::open(&path), Err(Error::InUse { .. })), "it is closed already");
        drop(busy);
        parked.await.unwrap().unwrap_err();
        assert!(waits(|| cosave::AppendFile::open(&path).is_ok()), "nobody has closed it");
    });
}

#[test]
fn a_file_that_is_dropped_is_closed_a_moment_later() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    runtime(64).block_on(async {
        let log = AppendFile::from(cosave::AppendFile::open(&path).unwrap());
        log.append("1\n").await.unwrap();
        assert!(matches!(AppendFile::open(&path).await, Err(Error::InUse { .. })));
        drop(log);
        let begun = Instant::now();
        let again = loop {
            match AppendFile::open(&path).await {
                Err(Error::InUse { .. }) => assert!(begun.elapsed() < LONG, "nobody has closed it"),
                opened => break opened.unwrap(),
            }
        };
        assert_eq!(again.len().await.unwrap(), 2);
        let only_lines = |file: &mut dyn std::io::BufRead| Ok(file.read_line(&mut String::new())? as u64);
        again.append("torn").await.unwrap();
        again.close().await.unwrap();
        let options = cosave::AppendFile::options();
        let cut = AppendFile::open_with_framing(options, &path, only_lines).await.unwrap();
        assert_eq!(cut.len().await.unwrap(), 2);
    });
}
