//! Leading: how a leader waits for the lock, for all whom he leads.
//!
//! Each of them gives up when the time of his own call is over, or when his
//! caller has gone: those of the batch, and those who wait behind it. The leader
//! gives up, too, and hands the others over to the next one. So nobody waits for
//! as long as several of them together. Relies on the queue for the rest, and
//! knows nothing of what is done under the lock.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::lock::Wait;
use super::queue::Round;
use super::root::Root;
use super::stage::Staged;
use crate::error::{Error, Result};
use crate::generation::TransactionId;

/// A leader, and those whom he can answer.
pub(crate) struct Leader<'a, A> {
    pub(crate) root: &'a Root,
    pub(crate) round: &'a Round<'a, Staged, A>,
    /// His own transaction; `None` if a test leads.
    pub(crate) own: Option<TransactionId>,
    /// The answer to a transaction that is not published.
    pub(crate) refused: fn(Staged, Error) -> (TransactionId, A),
}

impl<A> Leader<'_, A> {
    /// Waits for the lock, which `take` takes. Returns who still wants it; `None` if nobody does, or the
    /// leader does not, or there was an error. Then all are answered or left to the next leader.
    pub(crate) fn wait<T>(
        &self,
        batch: Vec<Staged>,
        take: impl FnOnce(&mut Wait<'_>) -> Result<T>,
    ) -> Option<(Vec<Staged>, T)> {
        let (batch, is_left) = (RefCell::new(batch), Cell::new(false));
        let ask = |now: Duration, locked: &dyn Fn(Duration) -> Error| {
            let mut batch = batch.borrow_mut();
            let goes_on = !self.answer_over(&mut batch, now, locked) && !batch.is_empty();
            is_left.set(!goes_on);
            if goes_on { Ok(()) } else { Err(self.root.cancelled()) }
        };
        let taken = take(&mut Wait::of_many(self.root, &ask));
        let batch = batch.into_inner();
        match taken {
            Ok(taken) => {
                let now = self.root.fs.elapsed();
                batch
                    .iter()
                    .filter_map(|staged| staged.caller.patience.as_ref())
                    .for_each(|own| own.end(now));
                Some((batch, taken))
            }
            Err(_) if is_left.get() => {
                self.round.give_back(batch);
                None
            }
            Err(error) => {
                self.round.answer(batch.into_iter().map(|staged| (self.refused)(staged, error.clone())));
                None
            }
        }
    }

    /// Answers those who wait no longer. Returns whether the leader is one of them.
    fn answer_over(
        &self,
        batch: &mut Vec<Staged>,
        now: Duration,
        locked: &dyn Fn(Duration) -> Error,
    ) -> bool {
        let reason = |staged: &Staged| {
            if staged.caller.claim.is_withdrawn() {
                return Some(self.root.cancelled());
            }
            let (waited, is_over) = staged.caller.patience.as_ref()?.waited(now);
            is_over.then(|| locked(waited))
        };
        let is_over = |staged: &Staged| {
            let patience = staged.caller.patience.as_ref();
            staged.caller.claim.is_withdrawn() || patience.is_some_and(|own| own.waited(now).1)
        };
        let (over, others) = std::mem::take(batch).into_iter().partition::<Vec<_>, _>(is_over);
        *batch = others;
        let behind = self.round.take_out(is_over);
        let over: Vec<_> = over.into_iter().chain(behind).collect();
        let is_own = over.iter().any(|staged| Some(staged.id) == self.own);
        self.round.answer(over.into_iter().map(|staged| {
            let error = reason(&staged).unwrap_or_else(|| self.root.cancelled());
            (self.refused)(staged, error)
        }));
        is_own
    }
}
