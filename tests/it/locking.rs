//! The lock of a root: who commits under it, who waits, and how it ends.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use cosave::{Durability, Error, Outcome, Reason, Store};

use crate::common::{assert_no_litter, child, child_root, heard, put, say, text};

const MOMENT: Duration = Duration::from_millis(20);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn open(root: &std::path::Path, timeout: Duration) -> Store {
    Store::options().durability(Durability::Process).lock_timeout(timeout).open(root).unwrap()
}

fn is_locked<T: std::fmt::Debug>(result: cosave::Result<T>) -> bool {
    let error = result.unwrap_err();
    let name = "this process, which has the root to itself: is a lock or a lease still held?";
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    matches!(&error, Error::Locked { holder: Some(holder), .. } if *holder == name)
}

#[test]
fn commits_of_the_holder_share_the_lock_and_all_others_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (open(root.path(), MOMENT), open(root.path(), MOMENT));
    let lock = store.lock().unwrap();
    // By the guard, by the thread that has it, and by a transaction that began before.
    put(&lock, &[("a", "1")]);
    put(&store, &[("a", "2")]);
    let mut begun = other.begin().unwrap();
    begun.write("a", "theirs").unwrap();
    assert!(is_locked(begun.try_commit()));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert!(is_locked(store.update(|tx| tx.write("a", "another thread's"))));
            // Whoever is given the guard commits under it.
            put(&lock, &[("a", "3")]);
        });
        thread.join().unwrap();
    });
    assert_eq!(text(root.path().join("a")), "3");
    drop(lock);
    begun.try_commit().unwrap();
    std::thread::scope(|scope| scope.spawn(|| put(&store, &[("b", "1")])).join().unwrap());
    assert_eq!((text(root.path().join("a")).as_str(), store.generation().unwrap().get()), ("theirs", 5));
    drop((store, other));
    assert_no_litter(root.path());
}

#[test]
fn reads_under_the_lock_and_beside_it_wait_for_nobody() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (open(root.path(), LONG), open(root.path(), LONG));
    put(&store, &[("a", "1")]);
    let before = other.view().unwrap();
    let started = Instant::now();
    let lock = store.lock().unwrap();
    assert_eq!(lock.view().unwrap().read("a").unwrap(), b"1");
    assert_eq!(store.view().unwrap().read("a").unwrap(), b"1");
    assert_eq!(other.begin().unwrap().read("a").unwrap(), b"1");
    drop(before);
    put(&lock, &[("a", "2")]);
    assert_eq!(other.view().unwrap().read("a").unwrap(), b"2");
    assert!(started.elapsed() < LONG, "somebody waited for a time-out");
}

#[test]
fn one_lock_waits_for_another_and_is_refused_in_time() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (open(root.path(), LONG), open(root.path(), LONG));
    let lock = store.try_lock().unwrap();
    assert!(is_locked(store.try_lock()), "a thread has it twice");
    assert!(is_locked(other.try_lock()));
    assert!(is_locked(other.try_lock_for(MOMENT)));
    assert!(is_locked(other.clone().try_lock_for(MOMENT)));
    let (told, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            told.send(()).unwrap();
            let lock = other.lock().unwrap();
            put(&lock, &[("a", "second")]);
        });
        heard.recv().unwrap();
        put(&lock, &[("a", "first")]);
        assert!(!waiting.is_finished(), "two have the lock");
        drop(lock);
        waiting.join().unwrap();
    });
    assert_eq!(text(root.path().join("a")), "second");
}

#[test]
fn a_commit_that_waits_for_the_lock_is_made_when_it_is_released() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LONG);
    let lock = store.lock().unwrap();
    let (told, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            told.send(()).unwrap();
            put(&store, &[("a", "second")]).generation()
        });
        heard.recv().unwrap();
        put(&lock, &[("a", "first")]);
        drop(lock);
        assert_eq!(waiting.join().unwrap(), 2);
    });
    assert_eq!(text(root.path().join("a")), "second");
}

#[test]
fn a_guard_that_is_dropped_leaves_nothing_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), MOMENT);
    put(&store, &[("a", "1")]);
    let lock = store.lock().unwrap();
    let mut begun = lock.begin().unwrap();
    begun.write("a", "never").unwrap();
    let outlives = Store::clone(&lock);
    drop((begun, lock));
    assert_eq!((text(root.path().join("a")).as_str(), store.generation().unwrap().get()), ("1", 1));
    // What was given out with the guard is an ordinary store then, and no key to the next lock.
    put(&outlives, &[("a", "2")]);
    let next = store.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(is_locked(outlives.update(|tx| tx.write("a", "3"))))).join().unwrap();
    });
    drop((next, outlives, store));
    assert_eq!(text(root.path().join("a")), "2");
    assert_no_litter(root.path());
}

#[test]
fn a_store_that_has_the_root_to_itself_locks_it_and_has_it_until_both_have_ended() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (open(root.path(), MOMENT), open(root.path(), MOMENT));
    let lease = store.exclusive().unwrap();
    let lock = store.lock().unwrap();
    drop(lease);
    assert!(is_locked(other.update(|tx| tx.write("a", "theirs"))));
    let lease = {
        assert!(is_locked(store.exclusive()), "the lock is no lease");
        drop(lock);
        store.exclusive().unwrap()
    };
    drop(store.lock().unwrap());
    assert!(is_locked(other.update(|tx| tx.write("a", "theirs"))));
    drop(lease);
    put(&other, &[("a", "theirs")]);
}

/// An update that has failed too often asks others to let it go first. A holder that did so waited two
/// seconds before each of its commits, for one who could not commit before it released the lock.
#[test]
fn a_holder_gives_way_to_nobody() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (open(root.path(), LONG), open(root.path(), LONG));
    put(&store, &[("count", "0")]);
    let (told, heard) = mpsc::channel();
    let (go, told_to_go) = mpsc::channel();
    std::thread::scope(|scope| {
        let updating = scope.spawn(move || {
            let update = other.update(|tx| {
                let count: u32 = tx.read_to_string("count")?.parse().unwrap();
                told.send(()).unwrap();
                told_to_go.recv().unwrap();
                tx.write("count", (count + 1).to_string())
            });
            update.unwrap();
        });
        for tries in 1..5 {
            heard.recv().unwrap();
            put(&store, &[("count", &(tries * 10).to_string())]);
            go.send(()).unwrap();
        }
        // The fifth has its turn.
        heard.recv().unwrap();
        let lock = store.lock().unwrap();
        let started = Instant::now();
        put(&lock, &[("count", "50")]);
        let waited = started.elapsed();
        assert!(waited < Duration::from_secs(1), "a commit took {waited:?}");
        go.send(()).unwrap();
        drop(lock);
        heard.recv().unwrap();
        go.send(()).unwrap();
        updating.join().unwrap();
    });
    assert_eq!(text(root.path().join("count")), "51");
}

/// Whoever waited was told that it was this process, or one that only reads. Only the error named the holder.
#[test]
fn who_waits_for_a_lock_is_told_who_has_it() {
    let root = tempfile::tempdir().unwrap();
    let (told, waits) = mpsc::channel();
    let options = Store::options().lock_timeout(Duration::from_millis(250));
    let store = options.on_wait(move |waiting| drop(told.send(waiting.holder.clone()))).open(root.path());
    let (holder, store) = (open(root.path(), MOMENT), store.unwrap());
    let _lock = holder.lock().unwrap();
    assert!(is_locked(store.update(|tx| tx.write("a", "1"))));
    let name = "this process, which has the root to itself: is a lock or a lease still held?";
    assert_eq!(waits.try_recv().unwrap().as_deref(), Some(name));
}

#[test]
fn a_lock_is_refused_where_nothing_may_be_committed() {
    let root = tempfile::tempdir().unwrap();
    put(&open(root.path(), MOMENT), &[("a", "1")]);
    let read_only = Store::options().read_only(true).open(root.path()).unwrap();
    let error = read_only.lock().unwrap_err();
    assert!(matches!(error, Error::Unsupported { reason: Reason::ReadOnly, .. }), "{error}");
    let gone = tempfile::tempdir().unwrap();
    let store = Store::open(gone.path()).unwrap();
    gone.close().unwrap();
    assert!(store.lock().is_err());
}

#[test]
fn the_lock_of_a_killed_process_is_free_and_its_commits_stay() {
    let root = tempfile::tempdir().unwrap();
    let mut holder = child("locking::child_that_is_killed_under_its_lock", root.path()).spawn().unwrap();
    assert_eq!(heard(&mut holder).next().as_deref(), Some("locked"));
    let store = open(root.path(), MOMENT);
    let error = store.try_lock().unwrap_err();
    let name = format!("process {}, which has the root to itself", holder.id());
    assert!(matches!(&error, Error::Locked { holder: Some(holder), .. } if *holder == name), "{error}");
    assert!(store.update(|tx| tx.write("a", "theirs")).is_err());
    holder.kill().unwrap();
    holder.wait().unwrap();
    let lock = store.try_lock().unwrap();
    assert_eq!(lock.view().unwrap().read("a").unwrap(), b"the killed one's");
    put(&lock, &[("a", "theirs")]);
    store.sweep().unwrap();
    drop((lock, store));
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of the_lock_of_a_killed_process_is_free_and_its_commits_stay"]
fn child_that_is_killed_under_its_lock() {
    let Some(root) = child_root() else { return };
    let store = Store::open(root).unwrap();
    let lock = store.lock().unwrap();
    put(&lock, &[("a", "the killed one's")]);
    let mut begun = lock.begin().unwrap();
    begun.write("a", vec![0; crate::common::LARGE_BYTES]).unwrap();
    say("locked");
    // The end of its input never comes: it is killed.
    let _ = std::io::read_to_string(std::io::stdin());
}

/// What happens in the two threads of a store, one of which takes the lease while the other one commits.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    CommitWaits,
    TakerWaits,
    CommitWaitsForTheLease,
    Taken,
}

/// One thread took the lease: it had the lease's file locked, and waited for its turn. Another thread of the
/// same store had its turn before, and took the lease for somebody else's. It waited for its end, and was
/// refused. Returns the answer to that commit, if it came at this moment.
fn commit_while_the_lease_is_taken(root: &std::path::Path) -> Option<cosave::Result<()>> {
    let (told, events) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let (said, may_go) = (std::sync::Mutex::new(told.clone()), std::sync::Mutex::new(may_go));
    let options = Store::options().durability(Durability::Process).lock_timeout(LONG / 3);
    let options = options.on_wait(move |waiting| {
        let is_taker = std::thread::current().name() == Some("taker");
        let name = waiting.path.file_name().unwrap_or_default();
        let told = |event| said.lock().unwrap().send(event).unwrap();
        match name.to_str() {
            Some("lock") if !is_taker => told(Event::CommitWaits),
            Some("queue") if is_taker => {
                told(Event::TakerWaits);
                let _ = may_go.lock().unwrap().recv();
            }
            Some("lease") if !is_taker => told(Event::CommitWaitsForTheLease),
            _ => {}
        }
    });
    let (store, other) = (options.open(root).unwrap(), open(root, LONG));
    put(&other, &[("a", "1")]);
    std::thread::scope(|scope| {
        let until = |event| assert!(events.iter().any(|told| told == event));
        let view = other.view().unwrap();
        let commit = scope.spawn(|| store.update(|tx| tx.write("a", "2")).map(drop));
        until(Event::CommitWaits);
        let taker = std::thread::Builder::new().name("taker".to_owned());
        let take = || {
            let lease = store.exclusive().unwrap();
            told.send(Event::Taken).unwrap();
            lease
        };
        let taker = taker.spawn_scoped(scope, take).unwrap();
        // A commit that waits lets readers pass from time to time, and that is what the taker is just then.
        let is_met = events.iter().find(|event| *event != Event::CommitWaits) == Some(Event::TakerWaits);
        drop(view);
        if is_met {
            until(Event::CommitWaitsForTheLease);
        }
        drop(go);
        let _lease = taker.join().unwrap();
        let committed = commit.join().unwrap();
        is_met.then_some(committed)
    })
}

#[test]
fn a_commit_is_not_refused_because_its_own_store_has_just_taken_the_lease() {
    let root = tempfile::tempdir().unwrap();
    let committed = (0..20).find_map(|_| commit_while_the_lease_is_taken(root.path()));
    committed.expect("the two never met").unwrap();
    assert_eq!(text(root.path().join("a")), "2");
}
