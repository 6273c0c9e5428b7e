//! A queue whose first comer leads: it takes a batch of what waits, works for all
//! of it, and hands each its answer.
//!
//! Those who come while a leader works are the next batch. Jobs that share a key
//! never share a batch, and keep their order. Generic: knows nothing of
//! transactions, and takes its mutexes from `sync`, so that a model checker can
//! put its own in their place.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What can be done together with others of its kind.
pub(crate) trait Job {
    /// Tells jobs apart.
    type Id: Copy + Eq + Hash;
    /// What no two jobs of a batch may share.
    type Key: Clone + Eq + Hash;

    fn id(&self) -> Self::Id;
    fn keys(&self) -> impl Iterator<Item = &Self::Key>;
}

/// The jobs of one store that wait to be done.
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

    /// Has a job done, by this thread or by another that leads. `work` answers every job of a batch;
    /// `panicked` is the answer of those whose leader panicked.
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

/// Lets the next one lead, also when this one panics; nobody waits for ever.
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

/// Takes the jobs that share no key; the others keep their place.
fn take_batch<J: Job>(waiting: &mut Vec<J>) -> Vec<J> {
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
