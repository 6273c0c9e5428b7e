//! Transactions of several threads that are ready together are published by
//! one of them: one lock, several renames, one barrier 2, one barrier 3.
//!
//! Whoever comes first leads; those who come while it waits for the disk are the
//! next batch. A conflict fails only its own transaction. Transactions that
//! concern a common path never share a batch. Knows the order of the steps, and
//! nothing of how they are done.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::publish::{Publication, Published};
use super::stage::Staged;
use super::{Engine, apply, lock, publish, recover};
use crate::error::{Error, Operation, Result};
use crate::fs::Durable;
use crate::generation::{Generation, TransactionId};
use crate::options::Durability;

/// What a transaction learns of its commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    pub(crate) generation: Generation,
    pub(crate) durable: Durable,
}

/// The transactions of one store that wait to be published.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Staged>,
    done: HashMap<TransactionId, Result<Receipt>>,
    leading: bool,
}

/// Commits a staged transaction, together with whatever else is ready.
pub(crate) fn commit(engine: &Arc<Engine>, staged: Staged) -> Result<Receipt> {
    let id = staged.id;
    let queue = &engine.queue;
    let mut state = lock(&queue.state);
    state.waiting.push(staged);
    loop {
        if let Some(result) = state.done.remove(&id) {
            return result;
        }
        if state.leading {
            state = queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        state.leading = true;
        let batch = take_batch(&mut state.waiting);
        drop(state);
        let lead = Lead { queue, ids: batch.iter().map(|staged| staged.id).collect() };
        let results = commit_batch(engine, batch);
        lock(&queue.state).done.extend(results);
        drop(lead);
        state = lock(&queue.state);
    }
}

/// Lets the next one lead, also when this one panics; nobody waits for ever.
struct Lead<'a> {
    queue: &'a Queue,
    ids: Vec<TransactionId>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        state.leading = false;
        if std::thread::panicking() {
            for id in &self.ids {
                let source = io::Error::other("the thread that published this batch panicked");
                let error = Error::io(Operation::Publish, id.to_string())(source);
                state.done.entry(*id).or_insert(Err(error.in_doubt(Generation::default())));
            }
        }
        self.queue.changed.notify_all();
    }
}

/// Takes the transactions that concern no path twice; the others keep their place.
fn take_batch(waiting: &mut Vec<Staged>) -> Vec<Staged> {
    let mut taken = HashSet::new();
    let mut batch = Vec::new();
    let mut later = Vec::new();
    for staged in waiting.drain(..) {
        if staged.paths().any(|path| taken.contains(path)) {
            later.push(staged);
        } else {
            taken.extend(staged.paths().cloned());
            batch.push(staged);
        }
    }
    *waiting = later;
    batch
}

/// Publish, apply, retire: the second half of the protocol.
pub(crate) fn commit_batch(
    engine: &Arc<Engine>,
    batch: Vec<Staged>,
) -> Vec<(TransactionId, Result<Receipt>)> {
    let ids: Vec<_> = batch.iter().map(|staged| staged.id).collect();
    let publication = engine.may_change().and_then(|()| {
        let locked = super::lock::exclusive(engine)?;
        let publication = publish::publish(engine, &locked, batch)?;
        Ok((locked, publication))
    });
    match publication {
        Ok((_locked, Publication { published, refused })) => {
            let refused = refused.into_iter().map(|(id, error)| (id, Err(error)));
            refused.chain(finish(engine, published)).collect()
        }
        Err(error) => ids.into_iter().map(|id| (id, Err(error.clone()))).collect(),
    }
}

/// Applies what is published, in order, and settles it as the durability asks.
fn finish(engine: &Engine, published: Vec<Published>) -> Vec<(TransactionId, Result<Receipt>)> {
    let mut results = Vec::new();
    let mut in_place = Vec::new();
    let mut failed: Option<Error> = None;
    for published in published {
        let moved = match &failed {
            // A later generation must not be in place before an earlier one.
            Some(error) => Err(error.clone().for_generation(published.generation)),
            None => apply::apply(engine, &published),
        };
        match moved {
            Ok(moved) => in_place.push((published, moved)),
            Err(error) => {
                published.session.leave_mark();
                // Views must not take it for a commit that is in place since its session lives.
                recover::mark_unsynced(engine, published.generation);
                failed.get_or_insert_with(|| error.clone());
                results.push((published.id, Err(error)));
            }
        }
    }
    results.extend(settle(engine, in_place));
    results
}

fn settle(
    engine: &Engine,
    in_place: Vec<(Published, apply::Moved)>,
) -> Vec<(TransactionId, Result<Receipt>)> {
    let receipt = |published: &Published, durable: Durable| {
        let durable = published.durable.and(durable);
        (published.id, Ok(Receipt { generation: published.generation, durable }))
    };
    let (published, moved): (Vec<_>, Vec<_>) = in_place.into_iter().unzip();
    if engine.settings.durability == Durability::Committed {
        // No barrier 3 here: it rides on the next commit's barrier 1, or on close; until then the
        // manifests stay pending, and recovery covers the gap.
        let mut carried = lock(&engine.carried);
        moved.into_iter().for_each(|moved| carried.keep(moved));
        return published.iter().map(|published| receipt(published, published.durable)).collect();
    }
    match apply::settle(engine, moved) {
        Ok(applied) => published
            .iter()
            .zip(applied)
            .map(|(published, applied)| {
                let durable = applied.durable();
                apply::retire(engine, applied);
                receipt(published, durable)
            })
            .collect(),
        Err(error) => published
            .iter()
            .map(|published| {
                published.session.leave_mark();
                (published.id, Err(error.clone().for_generation(published.generation)))
            })
            .collect(),
    }
}
