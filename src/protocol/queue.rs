//! A queue in which the first thread to arrive leads: it takes a batch of
//! waiting jobs, works for all of them, and hands each thread its answer.
//!
//! Jobs that arrive while a leader works form the next batch. Jobs that share a
//! key are never in one batch, and stay in order. Generic: knows nothing of
//! transactions. Takes its mutexes from `sync`, so that a model checker can
//! replace them with its own.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Work that can be done together with other work of its kind.
pub(crate) trait Job {
    /// Tells jobs apart.
    type Id: Copy + Eq + Hash;
    /// What two jobs of one batch may not share.
    type Key: Clone + Eq + Hash;

    fn id(&self) -> Self::Id;
    fn keys(&self) -> impl Iterator<Item = &Self::Key>;
}

/// The waiting jobs of one store.
pub(crate) struct Queue<J: Job, A> {
    state: Mutex<State<J, A>>,
    changed: Condvar,
}

struct State<J: Job, A> {
    waiting: Vec<J>,
    answers: HashMap<J::Id, A>,
    leading: bool,
}

impl<J: Job, A> fmt::Debug for Queue<J, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl<J: Job, A> Default for Queue<J, A> {
    fn default() -> Self {
        let state = State { waiting: Vec::new(), answers: HashMap::new(), leading: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<J: Job, A> Queue<J, A> {
    fn state(&self) -> MutexGuard<'_, State<J, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets a job done, by this thread or by another that leads. `work` answers every job of a batch.
    /// `panicked` gives the answer to those whose leader panicked.
    pub(crate) fn submit(
        &self,
        job: J,
        work: impl Fn(Vec<J>) -> Vec<(J::Id, A)>,
        panicked: impl Fn(J::Id) -> A,
    ) -> A {
        let id = job.id();
        let mut state = self.state();
        state.waiting.push(job);
        loop {
            if let Some(answer) = state.answers.remove(&id) {
                return answer;
            }
            if state.leading {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let batch = take_batch(&mut state.waiting);
            drop(state);
            let lead = Lead { queue: self, ids: batch.iter().map(Job::id).collect(), panicked: &panicked };
            let answers = work(batch);
            self.state().answers.extend(answers);
            drop(lead);
            state = self.state();
        }
    }
}

/// Lets the next thread lead when this leader is done or panics, so that nobody waits forever.
struct Lead<'a, J: Job, A, P: Fn(J::Id) -> A> {
    queue: &'a Queue<J, A>,
    ids: Vec<J::Id>,
    panicked: &'a P,
}

impl<J: Job, A, P: Fn(J::Id) -> A> Drop for Lead<'_, J, A, P> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.leading = false;
        if std::thread::panicking() {
            for id in &self.ids {
                state.answers.entry(*id).or_insert_with(|| (self.panicked)(*id));
            }
        }
        self.queue.changed.notify_all();
    }
}

/// Takes the jobs that share no key. The others stay in the queue in their order.
pub(crate) fn take_batch<J: Job>(waiting: &mut Vec<J>) -> Vec<J> {
    let mut taken = HashSet::new();
    let mut batch = Vec::new();
    let mut later = Vec::new();
    for job in waiting.drain(..) {
        if job.keys().any(|key| taken.contains(key)) {
            later.push(job);
        } else {
            taken.extend(job.keys().cloned());
            batch.push(job);
        }
    }
    *waiting = later;
    batch
}
