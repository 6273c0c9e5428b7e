//! Time as a program with threads sees it. The one place besides `os` that asks
//! a clock; everything else asks its file system.

use std::time::{Duration, Instant};

/// Time since something was started.
#[derive(Clone, Copy, Debug)]
pub(in crate::fs) struct RealTime {
    started: Instant,
}

#[allow(clippy::disallowed_methods, reason = "file systems ask this clock, and the protocol asks them")]
impl RealTime {
    pub(in crate::fs) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(in crate::fs) fn elapsed(self) -> Duration {
        self.started.elapsed()
    }

    pub(in crate::fs) fn wait(duration: Duration) {
        std::thread::sleep(duration);
    }
}
