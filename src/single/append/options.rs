//! When a growing file syncs by itself, and who is told if that fails.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// Options for [`AppendFile`](crate::AppendFile): when it syncs by itself. Several can be given, and the first that holds counts.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// use std::time::Duration;
///
/// let log = cosave::AppendFile::options()
///     .sync_every_bytes(64 * 1024)
///     .sync_within(Duration::from_millis(100))
///     .on_error(|error| eprintln!("{error}"))
///     .open(&path)?;
/// log.append("started\n")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "options do nothing before `open`"]
pub struct AppendOptions {
    records: Option<u64>,
    bytes: Option<u64>,
    within: Option<Duration>,
    on_error: Option<Told>,
}

type Told = Arc<dyn Fn(&Error) + Send + Sync>;

impl AppendOptions {
    /// Syncs when so many records were appended since the last sync. The last of them waits for it. With 1,
    /// every record is durable when [`append`](crate::AppendFile::append) returns; records of several threads
    /// share their syncs. 0 counts as 1.
    pub fn sync_every(mut self, records: u64) -> Self {
        self.records = Some(records);
        self
    }

    /// Syncs when so many bytes are not durable. The record that reaches this waits for it.
    pub fn sync_every_bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Begins a sync at most so long after a record was appended, in a thread of its own. Nobody waits for it.
    pub fn sync_within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Is told the error of a sync that nobody waits for: that of [`sync_within`](Self::sync_within), and
    /// that of a file which is dropped and not closed. The drop waits until `tell` is done, so `tell` must not
    /// wait for the thread that drops the file. A panic in it ends nothing.
    pub fn on_error(mut self, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(tell));
        self
    }

    /// Whether so many records and bytes that are not durable are too many.
    pub(super) fn is_due(&self, records: u64, bytes: u64) -> bool {
        let reaches = |limit: Option<u64>, reached| limit.is_some_and(|limit| reached >= limit);
        reaches(self.records, records) || reaches(self.bytes, bytes)
    }

    pub(super) fn within(&self) -> Option<Duration> {
        self.within
    }

    pub(super) fn tell(&self, error: &Error) {
        if let Some(tell) = &self.on_error {
            // If it went on, nobody would sync any more, or a drop would panic.
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tell(error)));
            drop(told);
        }
    }
}

impl fmt::Debug for AppendOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AppendOptions");
        shown.field("records", &self.records).field("bytes", &self.bytes).field("within", &self.within);
        shown.finish_non_exhaustive()
    }
}
