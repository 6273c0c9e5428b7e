//! The queue of commits, in every order that its threads can run in: `src/protocol/queue.rs` itself, on
//! a model checker's mutexes.
//!
//! Each schedule is one that the checker chose; a failing one is printed, and can be replayed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

/// What `queue.rs` takes its mutexes from, here the model checker's.
mod sync {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::PoisonError;

    use shuttle::rand::Rng as _;
    use std::time::Duration;

    /// Waits as long as `condition` holds, or until the checker says that the time is over.
    pub(crate) fn wait_while<'a, T>(
        mutex: &'a Mutex<T>,
        _condvar: &Condvar,
        mut guard: MutexGuard<'a, T>,
        _most: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let least = super::PATIENCE.get();
        let mut looked = 0;
        while condition(&mut guard) && (looked < least || shuttle::rand::thread_rng().r#gen()) {
            looked += 1;
            drop(guard);
            shuttle::thread::yield_now();
            guard = mutex.lock().unwrap();
        }
        guard
    }
}

std::thread_local! {
    /// How often a wait of this test lets the other threads go on before its time can be over.
    static PATIENCE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[path = "../src/protocol/queue.rs"]
mod queue;

use queue::{Job, Queue, Round};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// Schedules for each test; the checker explores them with priorities that change at random, which
/// finds bugs that need up to so many preemptions.
const SCHEDULES: usize = 3000;
const PREEMPTIONS: usize = 3;

#[derive(Debug)]
struct Numbered {
    id: u32,
    keys: Vec<&'static str>,
}

impl Job for Numbered {
    type Id = u32;
    type Key = &'static str;

    fn id(&self) -> u32 {
        self.id
    }

    fn keys(&self) -> impl Iterator<Item = &&'static str> {
        self.keys.iter()
    }
}

/// What the leaders saw: each batch, whether two led at once, and what they left to the next.
#[derive(Debug, Default)]
struct Seen {
    batches: Vec<Vec<u32>>,
    leading: bool,
    left: Vec<u32>,
    left_ever: bool,
    /// The jobs that a leader handed back once, undone.
    handed_back: std::collections::HashSet<u32>,
}

/// The checker alone says when a time is over.
fn no_clock() -> std::time::Duration {
    std::time::Duration::ZERO
}

/// Submits a job for each of `keys`, a thread each; returns the batches.
fn run(keys: &[&[&'static str]]) -> Vec<Vec<u32>> {
    let queue = Arc::new(Queue::<Numbered, u32>::default());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let threads: Vec<_> = (0..)
        .zip(keys)
        .map(|(id, keys)| {
            let (queue, seen, keys) = (Arc::clone(&queue), Arc::clone(&seen), keys.to_vec());
            thread::spawn(move || {
                let work = |batch: Vec<Numbered>, round: &Round<'_, Numbered, u32>| lead(&seen, batch, round);
                let answer =
                    queue.submit(Numbered { id, keys }, work, |_| panic!("no leader panics here"), no_clock);
                assert_eq!(answer, id * 10, "an answer is one's own");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let seen = seen.lock().unwrap();
    assert!(!seen.leading && seen.left.is_empty(), "nobody leads any more, and nothing is left");
    LEFT.fetch_or(seen.left_ever, std::sync::atomic::Ordering::SeqCst);
    seen.batches.clone()
}

/// Answers what the last leader has left, and leaves its own batch to the next if others wait.
fn lead(seen: &Mutex<Seen>, batch: Vec<Numbered>, round: &Round<'_, Numbered, u32>) {
    let mut taken = std::collections::HashSet::new();
    for key in batch.iter().flat_map(|job| &job.keys) {
        assert!(taken.insert(*key), "two jobs of a batch share {key}");
    }
    {
        let mut seen = seen.lock().unwrap();
        assert!(!std::mem::replace(&mut seen.leading, true), "two lead at once");
        assert!(!batch.is_empty() || !seen.left.is_empty(), "nobody leads for nothing");
        if !batch.is_empty() {
            seen.batches.push(batch.iter().map(|job| job.id).collect());
        }
        let left = std::mem::take(&mut seen.left);
        round.answer(left.into_iter().map(|id| (id, id * 10)));
    }
    // Others come while this one works.
    thread::yield_now();
    let mut seen = seen.lock().unwrap();
    seen.leading = false;
    seen.left = batch.iter().map(|job| job.id).collect();
    if round.others_wait() {
        seen.left_ever |= !seen.left.is_empty();
    } else {
        let own = std::mem::take(&mut seen.left);
        round.answer(own.into_iter().map(|id| (id, id * 10)));
    }
}

/// Whether any leader left its batch to the next.
static LEFT: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Every job is done exactly once, whoever leads; returns the largest batch that any schedule made.
fn explore(keys: &'static [&'static [&'static str]]) -> usize {
    let largest = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let reached = std::sync::Arc::clone(&largest);
    shuttle::check_pct(
        move || {
            let batches = run(keys);
            let mut done: Vec<u32> = batches.iter().flatten().copied().collect();
            done.sort_unstable();
            assert!(done.iter().copied().eq(0..u32::try_from(keys.len()).unwrap()), "done: {done:?}");
            let longest = batches.iter().map(Vec::len).max().unwrap_or_default();
            reached.fetch_max(longest, std::sync::atomic::Ordering::SeqCst);
        },
        SCHEDULES,
        PREEMPTIONS,
    );
    largest.load(std::sync::atomic::Ordering::SeqCst)
}

#[test]
fn every_job_is_answered_once_and_those_that_wait_share_a_leader() {
    let largest = explore(&[&["a"], &["b"], &["c"], &["d"]]);
    assert!(largest >= 3, "the exploration reached no batch of three: {largest}");
    assert!(LEFT.load(std::sync::atomic::Ordering::SeqCst), "no leader ever left its batch to the next");
}

/// A leader that gives up answers those who give up with it, wherever they wait, and hands the others back.
fn give_up(seen: &Mutex<Seen>, batch: Vec<Numbered>, round: &Round<'_, Numbered, u32>) {
    let gives_up = |job: &Numbered| job.id % 2 == 0;
    let (over, others) = batch.into_iter().partition::<Vec<_>, _>(gives_up);
    let behind = round.take_out(gives_up);
    round.answer(over.into_iter().chain(behind).map(|job| (job.id, job.id * 10)));
    thread::yield_now();
    let is_new = |job: &Numbered| seen.lock().unwrap().handed_back.insert(job.id);
    let (back, now) = others.into_iter().partition::<Vec<_>, _>(is_new);
    round.answer(now.into_iter().map(|job| (job.id, job.id * 10)));
    round.give_back(back);
}

#[test]
fn what_a_leader_hands_back_is_done_by_another_one() {
    let keys: [&[&'static str]; 5] = [&["a"], &["a"], &["b"], &["a", "b"], &["a"]];
    let run = move || {
        let (queue, seen) =
            (Arc::new(Queue::<Numbered, u32>::default()), Arc::new(Mutex::new(Seen::default())));
        let threads = (0..).zip(keys).map(|(id, keys)| {
            let (queue, seen, keys) = (Arc::clone(&queue), Arc::clone(&seen), keys.to_vec());
            thread::spawn(move || {
                let work =
                    |batch: Vec<Numbered>, round: &Round<'_, Numbered, u32>| give_up(&seen, batch, round);
                queue.submit(Numbered { id, keys }, work, |_| panic!("no leader panics here"), no_clock)
            })
        });
        let threads: Vec<_> = threads.collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        assert!(answers.eq((0..5).map(|id| id * 10)), "an answer is one's own");
        assert_eq!(seen.lock().unwrap().handed_back.len(), 2, "each of the others was handed back once");
    };
    shuttle::check_pct(run, SCHEDULES, PREEMPTIONS);
}

#[test]
fn those_who_are_answered_together_and_come_back_are_in_one_batch_again() {
    const LAST: u32 = 3;
    let together = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let reached = std::sync::Arc::clone(&together);
    let run = move || {
        PATIENCE.set(100);
        let queue = Arc::new(Queue::<Numbered, u32>::default());
        let batches = Arc::new(Mutex::new(Vec::<Vec<u32>>::new()));
        let threads = [1, 2, 3].map(|thread| {
            let (queue, batches) = (Arc::clone(&queue), Arc::clone(&batches));
            thread::spawn(move || {
                let work = |batch: Vec<Numbered>, round: &Round<'_, Numbered, u32>| {
                    batches.lock().unwrap().push(batch.iter().map(|job| job.id % 10).collect());
                    thread::yield_now();
                    round.answer(batch.into_iter().map(|job| (job.id, 0)));
                };
                for turn in 1..=LAST {
                    let job = Numbered { id: thread * 10 + turn, keys: vec![] };
                    queue.submit(job, work, |_| panic!("no leader panics here"), no_clock);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let batches = batches.lock().unwrap();
        for pair in batches.windows(2).filter(|pair| pair[0].len() > 1 && !pair[0].contains(&LAST)) {
            assert!(pair[1].len() >= pair[0].len(), "somebody missed a batch: {batches:?}");
            reached.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    shuttle::check_pct(run, SCHEDULES, PREEMPTIONS);
    PATIENCE.set(0);
    assert!(together.load(std::sync::atomic::Ordering::SeqCst) > 0, "nobody was answered together");
}

#[test]
fn jobs_that_share_a_key_are_never_done_together() {
    let largest = explore(&[&["a"], &["a"], &["a", "b"], &["b"]]);
    assert_eq!(largest, 2, "`a` and `b` can share a batch, no others");
}

#[cfg(feature = "sim")]
#[test]
fn one_thread_alone_makes_the_same_batches() {
    shuttle::check_dfs(
        || {
            let (queue, seen) = (Queue::<Numbered, u32>::default(), Mutex::new(Seen::default()));
            let jobs = [vec!["a"], vec!["b"], vec!["a"]].into_iter().zip(0..);
            let jobs = jobs.map(|(keys, id)| Numbered { id, keys }).collect();
            let answers = queue.submit_all(jobs, |batch, round| lead(&seen, batch, round));
            assert_eq!(answers, [(0, 0), (1, 10), (2, 20)]);
            let seen = seen.lock().unwrap();
            assert_eq!(seen.batches, [vec![0, 1], vec![2]]);
            assert!(seen.left_ever, "the first batch was left to the second");
        },
        None,
    );
}
