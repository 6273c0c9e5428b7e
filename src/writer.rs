//! A file of a transaction while it is written, on whatever thread.
//!
//! Knows how a staged file is filled, finished and given up; which write counts
//! in the end is the draft's to know.

use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex};

use crate::draft::{Content, Draft};
use crate::error::{Error, Operation, Result};
use crate::path::RelativePath;
use crate::protocol::commit;
use crate::protocol::open::Opened;
use crate::protocol::root::guard;
use crate::protocol::stage::{StagedChange, StagedWriter};

/// How much a writer buffers, in bytes: few system calls, and little memory for many writers.
const BUFFER_BYTES: usize = 64 * 1024;

/// A file of a transaction that is being written, on whatever thread.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) opened: Arc<Opened>,
    pub(crate) draft: Arc<Mutex<Draft>>,
    pub(crate) number: u64,
    pub(crate) writer: Option<StagedWriter>,
}

impl OpenFile {
    fn open(&mut self) -> io::Result<&mut StagedWriter> {
        self.writer.as_mut().ok_or_else(|| io::Error::other("the writer is finished"))
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let staged = writer.path().clone();
        let (file, debt) = match writer.finish(&self.opened.root) {
            Ok(finished) => finished,
            Err(error) => {
                self.leave(&staged, None);
                return Err(error);
            }
        };
        let mut draft = guard(&self.draft);
        let draft = &mut *draft;
        match (draft.slots.get_mut(&self.number), &mut draft.started) {
            (Some(slot), Some(started)) if !draft.closed => {
                let path = file.target.path.clone();
                slot.content = Content::Ready(StagedChange::Write(file));
                started.wave.add(debt);
                let synced = commit::sync_early(&self.opened.root, &mut started.wave);
                // The later write has won.
                draft.take(&path, self.number);
                synced
            }
            (None, Some(started)) if !draft.closed => {
                // The path was written again since; the later write has won.
                debt.waive("the file is removed on the next line");
                started.cleanup.remove(&file.staged);
                Ok(())
            }
            _ => {
                debt.waive("the transaction is over, and its clean-up removes the file");
                Err(Error::Unfinished { path: self.opened.root.full(&file.target.path) })
            }
        }
    }

    /// Leaves the transaction as if this file had never been begun.
    pub(crate) fn discard(mut self) {
        self.give_up(None);
    }

    fn give_up(&mut self, content: Option<Content>) {
        let Some(writer) = self.writer.take() else { return };
        let staged = writer.path().clone();
        // Closed first: Windows keeps the name of an open file.
        drop(writer);
        self.leave(&staged, content);
    }

    /// Takes the staged file away, and leaves `content` in its place, if anything.
    fn leave(&self, staged: &RelativePath, content: Option<Content>) {
        let mut draft = guard(&self.draft);
        if let Some(started) = &mut draft.started {
            started.cleanup.remove(staged);
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
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

/// Writes a file's next content; buffered. Can be filled on another thread than its transaction's.
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

    /// Ends the file: it is part of the transaction now. Its write-back begins; nobody waits for it.
    ///
    /// # Errors
    /// [`Error::Io`] when what is buffered cannot be written; the transaction goes on as if this
    /// writer had never been. [`Error::Unfinished`] when the transaction is over.
    pub fn finish(mut self) -> Result<()> {
        match self.inner.take().map(BufWriter::into_inner) {
            None => Ok(()),
            Some(Ok(open)) => open.finish(),
            Some(Err(error)) => {
                let (error, writer) = error.into_parts();
                let (open, _unwritten) = writer.into_parts();
                let path = open.writer.as_ref().map(|writer| open.opened.root.full(writer.path()));
                open.discard();
                Err(Error::io(Operation::Stage, path.unwrap_or_default())(error))
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
            // What is buffered is not worth writing: the file is given up.
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
