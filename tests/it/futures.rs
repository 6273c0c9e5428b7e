//! The operations as futures: what a dropped one leaves, many tasks, and the end of the runtime.

use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cosave::fs::Barrier;
use cosave::fs::sim::{Model, SimDisk};
use cosave::tokio::{AtomicFile, Store};
use cosave::{Durability, Error, Progress, Reason};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::common::{LARGE_BYTES, assert_no_litter, put, random_seed, text};

const MOMENT: Duration = Duration::from_millis(20);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

fn options() -> cosave::StoreOptions {
    cosave::Store::options().durability(Durability::Process).lock_timeout(LONG)
}

/// Polls a future once, and drops it unless it is ready.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Polls a future once, and drops it. It cannot be ready: the only thread of the pool is busy meanwhile.
fn drop_at_once<T>(future: impl Future<Output = T>) {
    let (busy, until) = mpsc::channel::<()>();
    drop(tokio::task::spawn_blocking(move || until.recv()));
    assert!(poll_once(future).is_none(), "a pool with one busy thread has done something else");
    drop(busy);
}

/// Waits until all that was begun on the pool is over.
fn end(runtime: Runtime) {
    drop(runtime);
}

#[test]
fn futures_do_what_their_blocking_twins_do() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    runtime().block_on(async {
        let store = Store::open(path).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.write("a", "1").await.unwrap();
        tx.create_dir_all("made/on").await.unwrap();
        tx.write_with("made/b", |out| std::io::Write::write_all(out, b"2")).await.unwrap();
        let mut writer = tx.writer("c").await.unwrap();
        writer.write_all("3").await.unwrap();
        writer.write_all(vec![b'!'; LARGE_BYTES]).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(tx.read("a").await.unwrap(), b"1");
        assert_eq!(tx.changes().await.unwrap().len(), 5);
        assert_eq!(tx.commit().await.unwrap().generation(), 1);
        let view = store.view().await.unwrap();
        assert_eq!(view.read_to_string("made/b").await.unwrap(), "2");
        assert_eq!(view.metadata("c").await.unwrap().length(), LARGE_BYTES as u64 + 1);
        assert!(view.exists("made/on").await.unwrap() && view.generation() == 1);
        drop(view);
        let commit = store.update(|tx| {
            tx.remove("c")?;
            Ok::<_, Error>(tx.read("a")?.len())
        });
        assert_eq!(commit.await.unwrap().into_value(), 1);
        let aborted = store.begin().await.unwrap();
        aborted.abort().await.unwrap();
        assert_eq!(store.status().await.unwrap().generation, 2);
        assert!(store.verify().await.unwrap().is_empty());
        store.flush().await.unwrap();
        store.reopen().await.unwrap().close().await.unwrap();
    });
    assert!(!path.join("c").exists());
    assert_no_litter(path);
}

#[test]
fn errors_are_those_of_the_blocking_twins() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        assert!(Store::open(root.path().join("missing")).await.unwrap_err().is_not_found());
        let store = Store::open(root.path()).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        for path in ["", "../a", "/elsewhere", ".cosave/lock", "a\0b"] {
            let error = tx.write(path, "").await.unwrap_err();
            assert!(matches!(error, Error::InvalidPath { .. }), "{path:?}: {error}");
        }
        assert!(tx.read("missing").await.unwrap_err().is_not_found());
        // An error is the end of its change alone.
        tx.write("a", "1").await.unwrap();
        tx.try_commit().await.unwrap();
        let error = tx.write("a", "2").await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { reason: Reason::TransactionOver, .. }), "{error}");
        let failure = store.update(|_| Err::<(), _>(std::io::Error::other("mine"))).await.unwrap_err();
        assert_eq!(failure.to_string(), "mine");
        let error = cosave::tokio::create_new(root.path().join("a"), "2").await.unwrap_err();
        assert!(error.is_conflict());
        assert!(cosave::tokio::write(root.path(), "").await.is_err());
    });
    assert_eq!(text(root.path().join("a")), "1");
}

#[test]
fn a_panic_in_a_closure_is_that_of_the_task_and_the_store_goes_on() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = Store::open(root.path()).await.unwrap();
        let own = store.clone();
        let task = tokio::spawn(async move {
            own.update(|tx| -> Result<(), Error> {
                tx.write("a", "never")?;
                panic!("a bug of the caller")
            })
            .await
        });
        assert!(task.await.unwrap_err().is_panic());
        store.update(|tx| tx.write("b", "1")).await.unwrap();
    });
    assert!(!root.path().join("a").exists());
    assert_eq!(text(root.path().join("b")), "1");
    assert_no_litter(root.path());
}

/// A program saved with a time-out. The save was given up, a newer one was made, and then the first one landed
/// over it: its thread had only waited.
#[test]
fn a_save_that_was_given_up_while_it_waited_never_lands_over_a_newer_one() {
    let root = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let other = options().open(root.path()).unwrap();
    put(&other, &[("a", "old")]);
    runtime.block_on(async {
        let store = Store::from(options().open(root.path()).unwrap());
        for long in [false, true] {
            let view = other.view().unwrap();
            let content = if long { vec![b'x'; LARGE_BYTES] } else { b"given up".to_vec() };
            let bytes = content.clone();
            let save = store.update(move |tx| tx.write("a", &bytes));
            assert!(timeout(MOMENT, save).await.is_err(), "it did not wait for the view");
            let mut tx = store.begin().await.unwrap();
            tx.write("a", content).await.unwrap();
            assert!(timeout(MOMENT, tx.commit()).await.is_err());
            drop(view);
            store.update(|tx| tx.write("a", "newer")).await.unwrap();
        }
        store.close().await.unwrap();
    });
    end(runtime);
    assert_eq!(text(root.path().join("a")), "newer");
    assert_eq!(other.generation().unwrap(), 3);
    drop(other);
    assert_no_litter(root.path());
}

#[test]
fn a_transaction_whose_commit_was_given_up_in_time_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let other = options().open(root.path()).unwrap();
    put(&other, &[("a", "old")]);
    runtime.block_on(async {
        let store = Store::from(options().open(root.path()).unwrap());
        let mut tx = store.begin().await.unwrap();
        tx.write("a", "1").await.unwrap();
        let view = other.view().unwrap();
        assert!(timeout(MOMENT, tx.try_commit()).await.is_err());
        drop(view);
        tx.write("b", "2").await.unwrap();
        assert_eq!(tx.try_commit().await.unwrap().generation(), 2);
    });
    end(runtime);
    assert_eq!((text(root.path().join("a")), text(root.path().join("b"))), ("1".into(), "2".into()));
}

/// Stops a commit at a step, drops its future there, and lets it go on. Returns what is found in the end.
fn dropped_at(root: &Path, is_there: fn(&Progress) -> bool) -> String {
    put(&options().open(root).unwrap(), &[("a", "old")]);
    let runtime = runtime();
    let (reached, at_step) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let (reached, may_go) = (Mutex::new(reached), Mutex::new(may_go));
    let stop = move |progress: &Progress| {
        if is_there(progress) {
            // It is told of more than one step, and stops at the first.
            let _ = reached.lock().unwrap().send(());
            let _ = may_go.lock().unwrap().recv();
        }
        ControlFlow::Continue(())
    };
    let store = Store::from(options().on_progress(stop).open(root).unwrap());
    let own = store.clone();
    let task = runtime.spawn(async move { own.update(|tx| tx.write("a", "new")).await });
    at_step.recv().unwrap();
    task.abort();
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    drop(go);
    runtime.block_on(store.close()).unwrap();
    end(runtime);
    assert_no_litter(root);
    text(root.join("a"))
}

#[test]
fn a_commit_that_is_dropped_before_its_rename_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(dropped_at(root.path(), |step| matches!(step, Progress::Committing { .. })), "old");
}

#[test]
fn a_commit_that_is_dropped_after_its_rename_goes_on_to_its_end() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(dropped_at(root.path(), |step| matches!(step, Progress::Applied { .. })), "new");
}

#[test]
fn a_change_that_is_dropped_makes_its_transaction_unfinished() {
    let root = tempfile::tempdir().unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let store = Store::from(options().open(root.path()).unwrap());
        let mut tx = store.begin().await.unwrap();
        tx.write("a", "1").await.unwrap();
        drop_at_once(tx.write("b", "2"));
        let error = tx.try_commit().await.unwrap_err();
        assert!(matches!(error, Error::Unfinished { .. }), "{error}");
        // A read that is dropped has changed nothing.
        let mut next = store.begin().await.unwrap();
        drop_at_once(next.read("a"));
        next.write("c", "3").await.unwrap();
        let mut writer = next.writer("d").await.unwrap();
        drop_at_once(writer.write_all("4"));
        assert!(matches!(writer.finish().await, Err(Error::Unfinished { .. })));
        assert!(matches!(next.commit().await, Err(Error::Unfinished { .. })));
        let mut file = AtomicFile::create(root.path().join("e")).await.unwrap();
        drop_at_once(file.write_all("5"));
        assert!(matches!(file.commit().await, Err(Error::Unfinished { .. })));
        drop(tx);
        store.close().await.unwrap();
    });
    end(runtime);
    let left: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| root.path().join(name).exists()).into();
    assert_eq!(left, [false; 5]);
    assert_no_litter(root.path());
}

/// One kind of save, of a number to a path below a root.
async fn save(kind: usize, store: &Store, root: &Path, number: usize) -> cosave::Result<()> {
    // Some are long, so that there is more time to give them up in.
    let content = format!("{number:08}").repeat(if number % 3 == 0 { 200_000 } else { 1 });
    match kind {
        0 => store.update(move |tx| tx.write("a", &content)).await.map(drop),
        1 => {
            let mut tx = store.begin().await?;
            tx.write("a", content).await?;
            tx.commit().await.map(drop)
        }
        2 => cosave::tokio::write(root.join("a"), content).await,
        _ => {
            let mut file = AtomicFile::create(root.join("a")).await?;
            file.write_all(content).await?;
            file.commit().await
        }
    }
}

#[test]
fn a_save_dropped_at_any_moment_has_landed_or_leaves_nothing_and_newer_ones_stay() {
    const ROUNDS: usize = 60;
    let seed = random_seed();
    println!("COSAVE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for kind in 0..4 {
        let root = tempfile::tempdir().unwrap();
        let (mut dropped, mut landed) = (0, 0);
        for round in 0..ROUNDS {
            let runtime = runtime();
            let store = Store::from(options().open(root.path()).unwrap());
            let before = text_if_there(root.path());
            let patience = Duration::from_micros(random.u64(0..if round % 3 == 0 { 20_000 } else { 1_500 }));
            let newest = runtime.block_on(async {
                let given_up = timeout(patience, save(kind, &store, root.path(), round * 3)).await.is_err();
                dropped += usize::from(given_up);
                // Half of the time something newer is saved at once.
                let newer = random.bool();
                if newer {
                    save(kind, &store, root.path(), round * 3 + 1).await.unwrap();
                }
                (given_up, newer)
            });
            drop(store);
            end(runtime);
            let found = text_if_there(root.path());
            let is = |number: usize| found.starts_with(&format!("{number:08}"));
            match newest {
                (_, true) => assert!(is(round * 3 + 1), "an older save has landed over a newer one"),
                (false, false) => assert!(is(round * 3), "an acknowledged save is lost"),
                (true, false) => {
                    landed += usize::from(found != before);
                    assert!(found == before || is(round * 3), "neither the old nor the new one");
                }
            }
            assert_no_litter(root.path());
        }
        assert!(dropped > 0, "kind {kind}: nothing was given up");
        println!("kind {kind}: {dropped} of {ROUNDS} were given up, and {landed} landed all the same");
    }
}

fn text_if_there(root: &Path) -> String {
    std::fs::read_to_string(root.join("a")).unwrap_or_default()
}

#[test]
fn sixty_four_tasks_update_and_no_update_is_lost() {
    const TASKS: usize = 64;
    const UPDATES: usize = 5;
    let root = tempfile::tempdir().unwrap();
    put(&options().open(root.path()).unwrap(), &[("count", "0")]);
    let runtime = runtime();
    runtime.block_on(async {
        let store = Store::open(root.path()).await.unwrap();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for number in 0..UPDATES {
                        let update = store.update(move |tx| {
                            if number == 0 {
                                let count: usize = tx.read_to_string("count")?.parse().unwrap();
                                tx.write("count", (count + 1).to_string())?;
                            }
                            tx.write(format!("own/{task}"), number.to_string())
                        });
                        update.await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let generation = store.generation().await.unwrap();
        assert_eq!(generation, (1 + TASKS * UPDATES) as u64);
        store.close().await.unwrap();
    });
    end(runtime);
    assert_eq!(text(root.path().join("count")), TASKS.to_string());
    for task in 0..TASKS {
        assert_eq!(text(root.path().join(format!("own/{task}"))), (UPDATES - 1).to_string());
    }
    assert_no_litter(root.path());
}

/// Counted on the simulated disk, which knows each of its waits.
#[test]
fn the_commits_of_many_tasks_share_their_waits_for_the_disk() {
    const TASKS: usize = 32;
    let disk = SimDisk::new(Model::OrderedPrefix);
    disk.real_time();
    let open = || cosave::Store::options().lock_timeout(LONG).open_on(disk.process()).unwrap();
    let (store, other) = (Store::from(open()), open());
    put(&other, &[("a", "1")]);
    let runtime = runtime();
    let asked = Arc::new(AtomicUsize::new(0));
    let before = disk.waits(Barrier::Published);
    runtime.block_on(async {
        // Whoever comes first waits for this view, and the others for him.
        let view = other.view().unwrap();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (store, asked) = (store.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    let save = store.update(move |tx| {
                        tx.write(format!("own/{task}"), "1")?;
                        asked.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, Error>(())
                    });
                    save.await.unwrap().generation()
                })
            })
            .collect();
        let begun = Instant::now();
        while asked.load(Ordering::SeqCst) < TASKS {
            assert!(begun.elapsed() < LONG / 2, "the tasks wait for each other");
            tokio::task::yield_now().await;
        }
        drop(view);
        let mut generations = Vec::new();
        for task in tasks {
            generations.push(task.await.unwrap());
        }
        generations.sort_unstable();
        assert!(generations.iter().map(|generation| generation.get()).eq(2..2 + TASKS as u64));
    });
    let waits = disk.waits(Barrier::Published) - before;
    assert!(waits <= TASKS / 4, "{TASKS} commits have waited {waits} times");
    drop((store, other));
    end(runtime);
}

/// All threads of the pool waited to commit, and the view that they waited for could not be read and closed.
#[test]
fn tasks_that_wait_to_commit_leave_the_pool_to_the_one_they_wait_for() {
    let root = tempfile::tempdir().unwrap();
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).max_blocking_threads(64).enable_time().build().unwrap();
    let started = Instant::now();
    runtime.block_on(async {
        let store = Store::from(options().open(root.path()).unwrap());
        store.update(|tx| tx.write("a", "1")).await.unwrap();
        let view = store.view().await.unwrap();
        let tasks: Vec<_> = (0..300)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    match task % 3 {
                        0 => drop(store.lock().await.unwrap()),
                        _ => drop(store.update(move |tx| tx.write("a", task.to_string())).await.unwrap()),
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(view.read("a").await.unwrap(), b"1");
            tokio::task::yield_now().await;
        }
        drop(view);
        for task in tasks {
            task.await.unwrap();
        }
    });
    end(runtime);
    assert!(started.elapsed() < LONG, "somebody waited for a time-out");
    assert_no_litter(root.path());
}

#[test]
fn tasks_that_lock_come_one_after_the_other() {
    let root = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let inside = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let store = Store::from(options().open(root.path()).unwrap());
        store.update(|tx| tx.write("count", "0")).await.unwrap();
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let (store, inside) = (store.clone(), Arc::clone(&inside));
                tokio::spawn(async move {
                    let lock = store.lock().await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two tasks have the lock");
                    // Not an update: only the lock keeps others out between the read and the write.
                    let view = store.view().await.unwrap();
                    let count: u32 = view.read_to_string("count").await.unwrap().parse().unwrap();
                    drop(view);
                    let mut tx = lock.begin().await.unwrap();
                    tx.write("count", (count + 1).to_string()).await.unwrap();
                    tx.commit().await.unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let lock = store.try_lock().await.unwrap();
        assert!(matches!(store.try_lock().await, Err(Error::Locked { .. })));
        assert!(matches!(store.try_lock_for(MOMENT).await, Err(Error::Locked { .. })));
        // No thread has it, so whoever does not come through the guard waits.
        assert!(timeout(MOMENT, store.update(|tx| tx.write("count", "never"))).await.is_err());
        assert!(poll_once(store.lock()).is_none());
        drop(lock);
        store.update(|tx| tx.write("other", "1")).await.unwrap();
        drop(store.lock().await.unwrap());
    });
    end(runtime);
    assert_eq!(text(root.path().join("count")), "40");
    assert_no_litter(root.path());
}

#[test]
fn the_end_of_the_runtime_in_the_midst_leaves_whole_saves_only() {
    let seed = random_seed();
    println!("COSAVE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..20 {
        let root = tempfile::tempdir().unwrap();
        put(&options().open(root.path()).unwrap(), &[("a", "0"), ("b", "0")]);
        let runtime = runtime();
        let (told, heard) = mpsc::channel();
        let store = Store::from(options().open(root.path()).unwrap());
        for _ in 0..12 {
            let (store, told) = (store.clone(), told.clone());
            runtime.spawn(async move {
                loop {
                    let saved = store.update(|tx| {
                        let count: u64 = tx.read_to_string("a")?.parse().unwrap();
                        tx.write("a", (count + 1).to_string())?;
                        tx.write("b", (count + 1).to_string())
                    });
                    match saved.await {
                        Ok(commit) => told.send(commit.generation()).unwrap_or_default(),
                        Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
                    }
                }
            });
        }
        drop(told);
        for _ in 0..random.usize(1..20) {
            heard.recv().unwrap();
        }
        let acknowledged = heard.try_iter().last();
        // Waits for what has begun.
        if round % 2 == 0 {
            drop(runtime)
        } else {
            runtime.shutdown_timeout(LONG)
        }
        let last = heard.iter().last().or(acknowledged);
        drop(store);
        let reopened = options().open(root.path()).unwrap();
        assert!(reopened.last_recovery().is_clean(), "{}", reopened.last_recovery());
        let generation = reopened.generation().unwrap();
        assert!(last.is_none_or(|last| last <= generation));
        let view = reopened.view().unwrap();
        let count = view.read_to_string("a").unwrap();
        assert_eq!(count, view.read_to_string("b").unwrap());
        assert_eq!(count, (generation.get() - 1).to_string());
        drop((view, reopened));
        assert_no_litter(root.path());
    }
}

#[test]
fn an_operation_after_the_end_of_its_runtime_is_cancelled() {
    let root = tempfile::tempdir().unwrap();
    let ended = runtime();
    let handle = ended.handle().clone();
    let store = Store::from(options().open(root.path()).unwrap());
    drop(ended);
    let _entered = handle.enter();
    let mut save = pin!(store.update(|tx| tx.write("a", "never")));
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = save.as_mut().poll(&mut context) else {
        panic!("a save is under way without a runtime")
    };
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    assert!(!root.path().join("a").exists());
}
