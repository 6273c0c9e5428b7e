//! The thread that syncs a growing file some time after a record was appended,
//! if nobody else has done it by then.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::growing::Shared;
use crate::protocol::root::guard;

#[derive(Debug)]
pub(super) struct Timer(JoinHandle<()>);

impl Timer {
    pub(super) fn start(shared: &Arc<Shared>, within: Duration) -> io::Result<Self> {
        let shared = Arc::clone(shared);
        let name = "cosave-append".to_owned();
        Ok(Self(thread::Builder::new().name(name).spawn(move || run(&shared, within))?))
    }

    /// Waits for its end, once the file is closed.
    pub(super) fn join(self) {
        // The function that is told of errors can drop the last handle of the file, in this very thread.
        if self.0.thread().id() != thread::current().id() {
            let _ = self.0.join();
        }
    }
}

fn run(shared: &Shared, within: Duration) {
    let mut state = guard(&shared.state);
    while !state.is_closed {
        let Some(since) = state.since.filter(|_| state.failed.is_none()) else {
            state = shared.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        };
        let left = since.saturating_add(within).saturating_sub(shared.fs.elapsed());
        if !left.is_zero() {
            let waited = shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            continue;
        }
        let (length, rotations) = (state.length, state.rotations);
        drop(state);
        let synced = shared.sync_up_to(length, rotations);
        if let Err(error) = &synced {
            shared.options.tell(error);
        }
        state = guard(&shared.state);
        if synced.is_err() {
            // It is tried again only if it could not begin.
            state.since = Some(shared.fs.elapsed());
        }
    }
}
