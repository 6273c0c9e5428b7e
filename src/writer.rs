//! A file of a transaction while it is written, on any thread.
//!
//! Knows how a staged file is filled, finished and given up. The draft decides
//! which write counts in the end.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::draft::{Content, Draft};
use crate::error::{Error, Operation, Result};
use crate::path::RelativePath;
use crate::protocol::commit;
use crate::protocol::open::Opened;
use crate::protocol::resolve::Target;
use crate::protocol::root::guard;
use crate::protocol::stage::{KeptFile, StagedChange, StagedWriter};

/// How many bytes a writer buffers: enough for few system calls, and little memory even for many
/// writers.
const BUFFER_BYTES: usize = 64 * 1024;

/// A file of a transaction that is being written, on any thread.
#[derive(Debug)]
pub(crate) struct OpenFile {
    opened: Arc<Opened>,
    draft: Arc<Mutex<Draft>>,
    number: u64,
    target: Target,
    body: Body,
}

/// Where the bytes go.
#[derive(Debug)]
enum Body {
    /// Into memory, as long as the transaction is small.
    Kept(Vec<u8>),
    Staged(Box<StagedWriter>),
    Finished,
}

impl OpenFile {
    pub(crate) fn new(opened: Arc<Opened>, draft: Arc<Mutex<Draft>>, number: u64, target: Target) -> Self {
        Self { opened, draft, number, target, body: Body::Kept(Vec::new()) }
    }

    /// The full path that the file will have.
    fn full_path(&self) -> PathBuf {
        self.opened.root.full(&self.target.path)
    }

    /// Writes all of `bytes`.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.opened.root.refuse_child()?;
        if let Body::Kept(kept) = &mut self.body {
            let mut draft = guard(&self.draft);
            if draft.closed {
                return Err(Error::Unfinished { path: self.opened.root.full(&self.target.path) });
            }
            if draft.reserve(bytes.len(), self.opened.root.settings.kept_bytes_max) {
                kept.extend_from_slice(bytes);
                return Ok(());
            }
            let mut writer = draft.outgrow(&self.opened, &self.target, self.number)?;
            if let Err(error) = writer.write_all(kept) {
                draft.discard(writer.path());
                return Err(self.opened.root.error(Operation::Stage, &self.target.path)(error));
            }
            draft.release(kept.len());
            self.body = Body::Staged(Box::new(writer));
        }
        match &mut self.body {
            Body::Staged(writer) => {
                writer.write_all(bytes).map_err(self.opened.root.error(Operation::Stage, &self.target.path))
            }
            Body::Kept(_) | Body::Finished => Err(Error::Unfinished { path: self.full_path() }),
        }
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        match std::mem::replace(&mut self.body, Body::Finished) {
            Body::Kept(bytes) => self.finish_kept(bytes),
            Body::Staged(writer) => self.finish_staged(*writer),
            Body::Finished => Ok(()),
        }
    }

    fn finish_kept(&self, bytes: Vec<u8>) -> Result<()> {
        let mut draft = guard(&self.draft);
        if draft.closed {
            return Err(Error::Unfinished { path: self.full_path() });
        }
        if draft.slots.contains_key(&self.number) {
            draft.keep(self.number, KeptFile { target: self.target.clone(), bytes });
            // The later write has won.
            draft.take(&self.target.path, self.number);
        } else {
            // The path was written again meanwhile, and the later write has won.
            draft.release(bytes.len());
        }
        Ok(())
    }

    fn finish_staged(&self, writer: StagedWriter) -> Result<()> {
        let staged = writer.path().clone();
        let (file, debt) = match writer.finish(&self.opened.root) {
            Ok(finished) => finished,
            Err(error) => {
                self.leave(Body::Finished, Some(&staged), None);
                return Err(error);
            }
        };
        let mut draft = guard(&self.draft);
        let draft = &mut *draft;
        match (draft.slots.get_mut(&self.number), &mut draft.staging) {
            (Some(slot), Some(staging)) if !draft.closed => {
                slot.content = Content::Ready(StagedChange::Write(file));
                staging.wave.add(debt);
                let synced = commit::sync_early(&self.opened.root, &mut staging.wave);
                // The later write has won.
                draft.take(&self.target.path, self.number);
                synced
            }
            (None, Some(staging)) if !draft.closed => {
                // The path was written again meanwhile, and the later write has won.
                debt.waive("the file is removed on the next line");
                staging.cleanup.remove(&staged);
                Ok(())
            }
            _ => {
                debt.waive("the transaction is over, and its clean-up removes the file");
                Err(Error::Unfinished { path: self.full_path() })
            }
        }
    }

    /// Leaves the transaction as if this write had never begun.
    pub(crate) fn discard(mut self) {
        self.give_up(None);
    }

    fn give_up(&mut self, content: Option<Content>) {
        if !self.opened.root.is_own_process() {
            return;
        }
        match std::mem::replace(&mut self.body, Body::Finished) {
            Body::Kept(bytes) => self.leave(Body::Kept(bytes), None, content),
            Body::Staged(writer) => {
                let staged = writer.path().clone();
                // Closed before it is removed: Windows keeps the name of an open file.
                drop(writer);
                self.leave(Body::Finished, Some(&staged), content);
            }
            Body::Finished => {}
        }
    }

    /// Removes what was written, and leaves `content` in its place, if there is any.
    fn leave(&self, body: Body, staged: Option<&RelativePath>, content: Option<Content>) {
        let mut draft = guard(&self.draft);
        if let Body::Kept(bytes) = body {
            draft.release(bytes.len());
        }
        if let Some(staged) = staged {
            draft.discard(staged);
        }
        match content {
            Some(content) => {
                if let Some(slot) = draft.slots.get_mut(&self.number) {
                    slot.content = content;
                }
            }
            None => _ = draft.remove(self.number),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.give_up(Some(Content::Unfinished));
    }
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.body {
            Body::Staged(writer) => writer.write(bytes),
            Body::Finished => Err(io::Error::other("the writer is finished")),
            Body::Kept(_) => {
                self.take(bytes)?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.body {
            Body::Staged(writer) => writer.flush(),
            Body::Kept(_) | Body::Finished => Ok(()),
        }
    }
}

/// Writes a file's next content, buffered. It can be used on another thread than its transaction.
///
/// # Examples
///
/// ```
/// use std::io::Write;
///
/// # let dir = tempfile::tempdir()?;
/// # let store = cosave::Store::open(dir.path())?;
/// let mut tx = store.begin()?;
/// let (mut a, mut b) = (tx.writer("a")?, tx.writer("b")?);
/// let one = std::thread::spawn(move || {
///     a.write_all(b"one")?;
///     a.finish().map_err(std::io::Error::from)
/// });
/// b.write_all(b"two")?;
/// b.finish()?;
/// one.join().expect("no panic")?;
/// tx.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a writer that is dropped without `finish` makes the commit fail"]
pub struct FileWriter {
    inner: Option<BufWriter<OpenFile>>,
}

impl FileWriter {
    pub(crate) fn new(file: OpenFile) -> Self {
        Self { inner: Some(BufWriter::with_capacity(BUFFER_BYTES, file)) }
    }

    /// Finishes the file and makes it part of the transaction. Its write-back starts, but this does not
    /// wait for it.
    ///
    /// # Errors
    /// - [`Error::Io`] if the buffered bytes cannot be written. The transaction goes on without this
    ///   write.
    /// - [`Error::Unfinished`] if the transaction is over.
    pub fn finish(mut self) -> Result<()> {
        if let Some(writer) = &self.inner {
            writer.get_ref().opened.root.refuse_child()?;
        }
        match self.inner.take().map(BufWriter::into_inner) {
            None => Ok(()),
            Some(Ok(open)) => open.finish(),
            Some(Err(error)) => {
                let (error, writer) = error.into_parts();
                let (open, _unwritten) = writer.into_parts();
                let path = open.full_path();
                open.discard();
                // An error of our own that has passed through the buffer is returned unchanged.
                Err(error.downcast().unwrap_or_else(Error::io(Operation::Stage, path)))
            }
        }
    }

    pub(crate) fn discard(mut self) {
        if let Some(writer) = self.inner.take() {
            let (open, _unwritten) = writer.into_parts();
            open.discard();
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.inner.take() {
            // The buffered bytes are not written, since the file is given up.
            let (open, _unwritten) = writer.into_parts();
            drop(open);
        }
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Some(writer) => writer.write(bytes),
            None => Err(io::Error::other("the writer is finished")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Some(writer) => writer.flush(),
            None => Ok(()),
        }
    }
}
