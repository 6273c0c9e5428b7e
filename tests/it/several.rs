//! Several stores, threads and transactions in one process.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use cosave::fs::sim::{Rule, without};
use cosave::{Commit, Durability, Error, Outcome, Store, Transaction};

use crate::common::{LARGE_BYTES, Over, assert_no_litter, put, quick, text};

#[test]
fn two_stores_of_one_process_are_strangers_that_get_along() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (Store::open(root.path()).unwrap(), Store::open(root.path()).unwrap());
    let mut staged = one.begin().unwrap();
    staged.write("a", "one").unwrap();
    // The other's sweep must not touch it, though it is the same process.
    assert!(two.sweep().unwrap().swept.is_empty());
    assert_eq!(put(&two, &[("b", "two")]).generation(), 1);
    assert_eq!(staged.commit().unwrap().generation(), 2);
    assert_eq!(two.view().unwrap().read("a").unwrap(), b"one");
    assert_eq!(one.generation().unwrap(), two.generation().unwrap());
    drop((one, two));
    assert_no_litter(root.path());
}

/// Updates a file beside a writer that never pauses. Every try waits until the writer has committed once
/// more, or has to let the update go first. Returns the number of tries, too.
fn update_beside_a_busy_writer() -> (cosave::Result<Commit>, u32) {
    let root = tempfile::tempdir().unwrap();
    let (is_over, gives_way) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let store = quick(root.path());
    put(&store, &[("a", "0")]);
    let waits = Arc::clone(&gives_way);
    let options = Store::options().durability(Durability::Process).on_wait(move |waiting| {
        if waiting.path.ends_with(".cosave/turn") {
            waits.store(true, Ordering::SeqCst);
        }
    });
    let writer = options.open(root.path()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                put(&writer, &[("a", &format!("{number}"))]);
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let _over = Over(&is_over);
        let mut tries = 0;
        let updated = store.update(|tx| {
            tries += 1;
            let seen = tx.read("a")?;
            let is_newer = || store.view().is_ok_and(|view| view.read("a").is_ok_and(|now| now != seen));
            while !gives_way.load(Ordering::SeqCst) && !is_newer() {
                thread::yield_now();
            }
            tx.write("seen", &seen)
        });
        (updated, tries)
    })
}

/// The update lost every race, and gave up after 100 tries.
#[test]
fn an_update_gets_its_turn_beside_a_writer_that_never_pauses() {
    let (updated, tries) = update_beside_a_busy_writer();
    assert!(updated.is_ok(), "after {tries} tries: {}", updated.unwrap_err());
    assert!((2..20).contains(&tries), "{tries} tries");
    let (updated, tries) = without(Some(Rule::TakeTurns), update_beside_a_busy_writer);
    assert!(updated.is_err_and(|error| error.is_conflict()), "the rule is broken, and nobody notices");
    assert_eq!(tries, 100);
}

/// Both wait to be published at the same time, so neither can see the other's file in place.
#[test]
fn what_one_transaction_has_read_is_not_changed_by_another_one_in_its_batch() {
    for is_first in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let store = quick(root.path());
        put(&store, &[("a", "0")]);
        let mut reader = store.begin().unwrap();
        assert_eq!(reader.read("a").unwrap(), b"0");
        reader.write("b", "a was 0").unwrap();
        let mut writer = store.begin().unwrap();
        writer.write("a", "1").unwrap();
        let together = if is_first { vec![writer, reader] } else { vec![reader, writer] };
        let mut answers = Transaction::commit_together(together);
        let (last, first) = (answers.pop().unwrap(), answers.pop().unwrap());
        assert_eq!(first.unwrap(), 2);
        if is_first {
            assert!(last.unwrap_err().is_conflict());
        } else {
            assert_eq!(last.unwrap(), 3);
        }
        assert_eq!(root.path().join("b").exists(), !is_first);
    }
}

#[test]
fn clones_share_one_session_and_can_outlive_the_first() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    // Small files stay in memory, and need no session yet.
    let (one, two) = ("1".repeat(LARGE_BYTES), "2".repeat(LARGE_BYTES));
    let mut tx = store.begin().unwrap();
    tx.write("a", &one).unwrap();
    let clone = store.clone();
    let mut other = clone.begin().unwrap();
    other.write("b", &two).unwrap();
    assert_eq!(store.status().unwrap().sessions_alive, 1);
    drop((store, clone));
    tx.commit().unwrap();
    other.commit().unwrap();
    assert_eq!([text(root.path().join("a")), text(root.path().join("b"))], [one, two]);
    assert_no_litter(root.path());
}

#[test]
fn one_transaction_is_filled_on_many_threads() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let mut tx = store.begin().unwrap();
    let writers: Vec<_> = (0..8).map(|n| (n, tx.writer(format!("d/{n}")).unwrap())).collect();
    thread::scope(|scope| {
        for (number, mut writer) in writers {
            scope.spawn(move || {
                for line in 0..20_000 {
                    writeln!(writer, "{number} {line}").unwrap();
                }
                writer.finish().unwrap();
            });
        }
    });
    assert_eq!(tx.commit().unwrap().changes().len(), 8);
    for number in 0..8 {
        let expected: String = (0..20_000).map(|line| format!("{number} {line}\n")).collect();
        assert!(text(root.path().join(format!("d/{number}"))) == expected);
    }
}

#[test]
fn a_transaction_can_be_committed_on_another_thread() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("a", "moved").unwrap();
    let generation = thread::spawn(move || tx.commit().unwrap().generation()).join().unwrap();
    assert_eq!(generation, 1);
    assert_eq!(text(root.path().join("a")), "moved");
}

#[test]
fn sweepers_never_touch_what_is_alive() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    quick(root);
    let done = AtomicBool::new(false);
    let swept = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let found = quick(root).sweep().unwrap().swept;
                    // A session that ends cleanly may lose the race to remove its own mark, but
                    // nothing of its work is ever there to be swept.
                    assert!(found.is_empty(), "swept {found:?}");
                    swept.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let writers: Vec<_> = (0..3)
            .map(|number| {
                scope.spawn(move || {
                    for index in 0..60 {
                        // A store each time, so that sessions begin and end all the time.
                        let store = quick(root);
                        let mut tx = store.begin().unwrap();
                        tx.write(format!("{number}/{index}/file"), "work").unwrap();
                        tx.write("shared", format!("{number}-{index}")).unwrap();
                        tx.commit().unwrap();
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        assert!(results.iter().all(Result::is_ok), "a writer failed");
    });
    assert!(swept.into_inner() > 0);
    for (number, index) in (0..3).flat_map(|n| (0..60).map(move |i| (n, i))) {
        assert_eq!(text(root.join(format!("{number}/{index}/file"))), "work");
    }
    assert_eq!(quick(root).generation().unwrap(), 180);
    assert_no_litter(root);
}

#[test]
fn two_transactions_of_one_store_are_apart() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let (mut one, mut two) = (store.begin().unwrap(), store.begin().unwrap());
    one.write("a", "one").unwrap();
    two.write("a", "two, later").unwrap();
    two.write("b", "two").unwrap();
    assert_eq!(one.read("a").unwrap(), b"one");
    assert!(one.read("b").unwrap_err().is_not_found());
    two.commit().unwrap();
    drop(one);
    assert_eq!(text(root.path().join("a")), "two, later");
}

#[test]
fn commits_of_sixteen_threads_have_distinct_and_dense_generations() {
    const THREADS: u64 = 16;
    const EACH: u64 = 10;
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let start = Barrier::new(16);
    let generations: BTreeSet<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (store, start) = (&store, &start);
                scope.spawn(move || {
                    start.wait();
                    (0..EACH)
                        .map(|index| {
                            let mut tx = store.begin().unwrap();
                            tx.write(format!("own/{number}"), index.to_string()).unwrap();
                            tx.write("shared", format!("{number}-{index}")).unwrap();
                            tx.commit().unwrap().generation().get()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| {
                let own = thread.join().unwrap();
                assert!(own.is_sorted(), "a later commit has an earlier number");
                own
            })
            .collect()
    });
    assert_eq!(generations, (1..=THREADS * EACH).collect());
    for number in 0..THREADS {
        assert_eq!(text(root.path().join(format!("own/{number}"))), (EACH - 1).to_string());
    }
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn a_conflict_fails_only_its_own_transaction() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("read", "old"), ("other", "old")]);
    let start = Barrier::new(8);
    let results: Vec<_> = thread::scope(|scope| {
        let mut transactions: Vec<_> = (0..8)
            .map(|number| {
                let mut tx = store.begin().unwrap();
                tx.write(format!("own/{number}"), "own").unwrap();
                if number == 3 {
                    tx.read("read").unwrap();
                }
                tx
            })
            .collect();
        put(&store, &[("read", "new, and longer")]);
        let threads: Vec<_> = transactions
            .drain(..)
            .map(|tx| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    tx.commit()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (number, result) in results.iter().enumerate() {
        let made = root.path().join(format!("own/{number}"));
        match result {
            Err(error) => {
                assert_eq!(number, 3);
                assert!(error.is_conflict(), "{error:?}");
                assert_eq!(error.outcome(), Outcome::NothingHappened);
                assert!(!made.exists());
            }
            Ok(_) => {
                assert_ne!(number, 3, "the conflict was not seen");
                assert!(made.exists());
            }
        }
    }
    drop(results);
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn of_sixteen_that_create_a_file_one_wins() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let start = Barrier::new(16);
    let winners: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let (store, start) = (&store, &start);
                scope.spawn(move || {
                    let mut tx = store.begin().unwrap();
                    tx.create_new("new/id", number.to_string()).unwrap();
                    tx.write(format!("mine/{number}"), "mine").unwrap();
                    start.wait();
                    match tx.commit() {
                        Ok(_) => Some(number.to_string()),
                        Err(error @ Error::Conflict { .. }) => {
                            assert!(error.to_string().contains("exists already"), "{error}");
                            None
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(text(root.path().join("new/id")), winners[0]);
    let mine: Vec<_> = std::fs::read_dir(root.path().join("mine")).unwrap().collect();
    assert_eq!(mine.len(), 1, "a loser left something");
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn an_update_is_tried_again_after_a_conflict() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("count", "0")]);
    let tries = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let update = store.update(|tx| {
                        tries.fetch_add(1, Ordering::SeqCst);
                        let count: u64 = String::from_utf8(tx.read("count")?).unwrap().parse().unwrap();
                        tx.write("count", (count + 1).to_string())
                    });
                    update.unwrap();
                }
            });
        }
    });
    assert_eq!(text(root.path().join("count")), "100");
    assert!(tries.into_inner() >= 100);
}

#[test]
fn an_update_gives_the_closures_own_error_back() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tries = 0;
    let error = store.update(|tx| {
        tries += 1;
        tx.write("a", "staged")?;
        tx.read("missing").map(drop)
    });
    assert!(error.unwrap_err().is_not_found());
    assert_eq!(tries, 1);
    assert!(!root.path().join("a").exists());
}

#[test]
fn a_dropped_store_ends_its_session() {
    let root = tempfile::tempdir().unwrap();
    let one = quick(root.path());
    assert_eq!(one.status().unwrap().sessions_alive, 0);
    put(&one, &[("a", "1")]);
    let two = quick(root.path());
    put(&two, &[("a", "2")]);
    assert_eq!(one.status().unwrap().sessions_alive, 2);
    drop(two);
    assert_eq!(one.status().unwrap().sessions_alive, 1);
    assert!(!one.status().unwrap().needs_sweep);
    drop(one);
    assert_no_litter(root.path());
}
