//! A queue in which the first thread to arrive leads: it takes a batch of
//! waiting jobs, works for all of them, and hands each thread its answer.
//!
//! Jobs that arrive while a leader works form the next batch. Jobs that share a
//! key are never in one batch, and stay in order. If others wait, a leader may
//! leave jobs unanswered; then the next leader answers them. Before that one
//! begins, it waits a moment for those who were answered together. Generic:
//! knows nothing of transactions. Takes its mutexes from `sync`, so that a
//! model checker can replace them with its own.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use super::sync::{self, Condvar, Mutex, MutexGuard, PoisonError};

/// For which part of the last leader's time the next one waits for those whom that one has answered. Measured
/// for commits of two files, on a disk that flushes in 2 ms. 16 threads make 840 to 1,100 a second instead
/// of 660, and 4 threads 340 instead of 200.
const PAUSE_PART: u32 = 8;

/// For how long at most, whatever the last leader waited for.
const PAUSE_MAX: Duration = Duration::from_millis(2);

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
    /// A job has arrived while somebody leads.
    arrived: Condvar,
}

struct State<J: Job, A> {
    waiting: Vec<J>,
    /// The jobs that leaders have taken and not answered.
    unanswered: HashSet<J::Id>,
    answers: HashMap<J::Id, A>,
    leading: bool,
    /// How many jobs the last leader has answered.
    answered: usize,
    /// For how long it worked.
    worked: Duration,
}

impl<J: Job, A> fmt::Debug for Queue<J, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl<J: Job, A> Default for Queue<J, A> {
    fn default() -> Self {
        let state = State {
            waiting: Vec::new(),
            unanswered: HashSet::new(),
            answers: HashMap::new(),
            leading: false,
            answered: 0,
            worked: Duration::ZERO,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), arrived: Condvar::new() }
    }
}

impl<J: Job, A> Queue<J, A> {
    fn state(&self) -> MutexGuard<'_, State<J, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets a job done, by this thread or by another that leads. `work` answers every job that is
    /// unanswered, or leaves some to the next round if other jobs wait. `panicked` gives the answer to those
    /// whose leader panicked. `clock` tells the time.
    pub(crate) fn submit(
        &self,
        job: J,
        work: impl Fn(Vec<J>, &Round<'_, J, A>),
        panicked: impl Fn(J::Id) -> A,
        clock: impl Fn() -> Duration,
    ) -> A {
        let id = job.id();
        let mut state = self.state();
        state.waiting.push(job);
        self.arrived.notify_one();
        loop {
            if let Some(answer) = state.answers.remove(&id) {
                return answer;
            }
            if state.leading {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            state = self.pause(state);
            let batch = state.take_batch();
            drop(state);
            let begun = clock();
            let mut lead = Lead { queue: self, panicked: &panicked, is_done: false };
            work(batch, &Round { queue: self });
            lead.is_done = true;
            drop(lead);
            state = self.state();
            state.worked = clock().saturating_sub(begun);
        }
    }

    /// Waits a moment for those who were answered together, since they often come back together. Whoever
    /// misses a batch waits for two. A thread that is alone is answered alone, and so never waits here.
    fn pause<'a>(&'a self, mut state: MutexGuard<'a, State<J, A>>) -> MutexGuard<'a, State<J, A>> {
        let answered = std::mem::take(&mut state.answered);
        let most = PAUSE_MAX.min(state.worked / PAUSE_PART);
        let is_early = |state: &mut State<J, A>| answered > 1 && state.waiting.len() < answered;
        sync::wait_while(&self.state, &self.arrived, state, most, is_early)
    }

    /// Gets all jobs done by this thread alone, in the batches that threads would make of them.
    #[cfg(feature = "sim")]
    pub(crate) fn submit_all(
        &self,
        jobs: Vec<J>,
        work: impl Fn(Vec<J>, &Round<'_, J, A>),
    ) -> Vec<(J::Id, A)> {
        let ids: Vec<_> = jobs.iter().map(Job::id).collect();
        self.state().waiting.extend(jobs);
        loop {
            let batch = self.state().take_batch();
            if batch.is_empty() && self.state().unanswered.is_empty() {
                let mut answers = std::mem::take(&mut self.state().answers);
                return ids.iter().filter_map(|id| answers.remove_entry(id)).collect();
            }
            work(batch, &Round { queue: self });
        }
    }
}

impl<J: Job, A> State<J, A> {
    fn take_batch(&mut self) -> Vec<J> {
        let batch = take_batch(&mut self.waiting);
        self.unanswered.extend(batch.iter().map(Job::id));
        batch
    }
}

/// What a leader can ask and tell while it works.
pub(crate) struct Round<'a, J: Job, A> {
    queue: &'a Queue<J, A>,
}

impl<J: Job, A> Round<'_, J, A> {
    /// Lets threads go on with their answers: of this batch, or of an earlier one.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = (J::Id, A)>) {
        let mut state = self.queue.state();
        for (id, answer) in answers {
            state.answered += 1;
            state.unanswered.remove(&id);
            state.answers.insert(id, answer);
        }
        self.queue.changed.notify_all();
    }

    /// Takes jobs out of the queue that are not in this batch and are to be answered at once.
    pub(crate) fn take_out(&self, is_over: impl Fn(&J) -> bool) -> Vec<J> {
        let mut state = self.queue.state();
        let (over, others) = std::mem::take(&mut state.waiting).into_iter().partition(is_over);
        state.waiting = others;
        over
    }

    /// Leaves jobs of this batch to the next leader, before those that came later.
    pub(crate) fn give_back(&self, jobs: Vec<J>) {
        let mut state = self.queue.state();
        for job in &jobs {
            state.unanswered.remove(&job.id());
        }
        state.waiting.splice(0..0, jobs);
    }

    /// Whether other jobs wait, so that another round follows this one at once.
    pub(crate) fn others_wait(&self) -> bool {
        !self.queue.state().waiting.is_empty()
    }
}

/// Lets the next thread lead when this leader is done or panics, so that nobody waits forever.
struct Lead<'a, J: Job, A, P: Fn(J::Id) -> A> {
    queue: &'a Queue<J, A>,
    panicked: &'a P,
    /// Not told by the thread, since it may lead in a destructor while it panics for another reason.
    is_done: bool,
}

impl<J: Job, A, P: Fn(J::Id) -> A> Drop for Lead<'_, J, A, P> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.leading = false;
        if !self.is_done {
            let unanswered = std::mem::take(&mut state.unanswered);
            state.answers.extend(unanswered.into_iter().map(|id| (id, (self.panicked)(id))));
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
