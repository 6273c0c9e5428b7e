//! A file of a transaction while it is written, on any thread.
//!
//! Knows how a staged file is filled, finished and given up. The draft decides
//! which write counts in the end.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::checksum::Checksum;
use crate::draft::{Content, Draft};
use crate::error::{Error, Operation, Result};
use crate::path::RelativePath;
use crate::protocol::commit;
use crate::protocol::open::Opened;
use crate::protocol::resolve::Target;
use crate::protocol::room;
use crate::protocol::root::guard;
use crate::protocol::stage::{self, KeptFile, STRIDE_BYTES, StagedChange, StagedWriter};
use crate::spelling::Spellings;

/// How many bytes a writer buffers: enough for few system calls, and little memory even for many
/// writers.
const BUFFER_BYTES: usize = 64 * 1024;

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
#[must_use = "a writer that is dropped without `finish` makes the commit fail"]
pub struct FileWriter {
    opened: Arc<Opened>,
    draft: Arc<Mutex<Draft>>,
    number: u64,
    target: Target,
    spellings: Arc<Spellings>,
    /// How many bytes it will have, if that is known.
    length: Option<u64>,
    body: Body,
}

impl fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.opened.root.debug(f, "FileWriter").field("path", &self.target.path).finish_non_exhaustive()
    }
}

/// Where the bytes go.
#[derive(Debug)]
enum Body {
    /// Into memory, as long as the transaction is small.
    Kept(Vec<u8>),
    Staged(Box<BufWriter<StagedWriter>>),
    Finished,
}

impl FileWriter {
    pub(crate) fn new(
        opened: Arc<Opened>,
        draft: Arc<Mutex<Draft>>,
        number: u64,
        target: Target,
        spellings: Arc<Spellings>,
    ) -> Self {
        Self { opened, draft, number, target, spellings, length: None, body: Body::Kept(Vec::new()) }
    }

    /// Turns an error of the system into one about this file.
    fn failed(&self, error: io::Error) -> Error {
        self.spellings.named(self.opened.root.error(Operation::Stage, &self.target.path)(error))
    }

    /// The full path that the file will have.
    pub(crate) fn full_path(&self) -> PathBuf {
        self.opened.root.full(&self.target.path)
    }

    fn unfinished(&self) -> Error {
        self.spellings.named(Error::Unfinished { path: self.full_path().into() })
    }

    /// Writes all of `bytes`.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.opened.root.refuse_child()?;
        if self.keep(bytes)? {
            return Ok(());
        }
        for bytes in bytes.chunks(STRIDE_BYTES) {
            let Body::Staged(writer) = &mut self.body else { return Err(self.unfinished()) };
            writer.get_mut().tell(&self.opened.root)?;
            let written = writer.write_all(bytes);
            written.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Writes all that the file will hold, and finishes it.
    pub(crate) fn fill(mut self, bytes: &[u8]) -> Result<()> {
        let length = bytes.len() as u64;
        self.length = Some(length);
        let fits = room::look(&self.opened.root, &self.target.path, length);
        let fits = fits.map_err(|error| self.spellings.named(error));
        if let Err(error) = fits.and_then(|()| self.take(bytes)) {
            self.discard();
            return Err(error);
        }
        self.finish()
    }

    /// Keeps bytes in memory, if the transaction is still in memory and has room for them. Otherwise this
    /// file goes to disk from now on.
    fn keep(&mut self, bytes: &[u8]) -> Result<bool> {
        let Body::Kept(kept) = &mut self.body else { return Ok(false) };
        let mut draft = guard(&self.draft);
        if draft.closed {
            return Err(self.unfinished());
        }
        if draft.reserve(bytes.len(), self.opened.root.settings.inline_max) {
            kept.extend_from_slice(bytes);
            return Ok(true);
        }
        drop(draft);
        self.leave_memory()?;
        Ok(false)
    }

    /// Stages what is in memory, and lets this file go to disk.
    fn leave_memory(&mut self) -> Result<()> {
        let Body::Kept(kept) = &mut self.body else { return Ok(()) };
        let mut draft = guard(&self.draft);
        if draft.closed {
            return Err(self.unfinished());
        }
        let mut writer = draft.outgrow(&self.opened, &self.target, self.number)?;
        if let Err(error) = writer.write_all(kept) {
            draft.discard(writer.path());
            return Err(self.failed(error));
        }
        draft.release(kept.len());
        if let Some(length) = self.length {
            writer.expect_length(length);
        }
        self.body = Body::Staged(Box::new(BufWriter::with_capacity(BUFFER_BYTES, writer)));
        Ok(())
    }

    /// Writes all bytes of a file of this length, and returns their checksum. What is too long for memory
    /// shares its blocks with the source, if the file system can. Nothing was written yet.
    pub(crate) fn copy<R: Read + ?Sized>(
        &mut self,
        source: &mut R,
        system_file: impl FnOnce(&R) -> Option<&File>,
        length: u64,
        unread: impl FnOnce(io::Error) -> Error,
    ) -> Result<Checksum> {
        self.opened.root.refuse_child()?;
        self.length = Some(length);
        if length > self.opened.root.settings.inline_max as u64 {
            self.leave_memory()?;
            if let (Body::Staged(writer), Some(file)) = (&mut self.body, system_file(source)) {
                if let Some(checksum) = writer.get_mut().share(&self.opened.root, file)? {
                    return Ok(checksum);
                }
            }
        }
        let fits = room::look(&self.opened.root, &self.target.path, length);
        fits.map_err(|error| self.spellings.named(error))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = match source.read(&mut buffer) {
                Ok(0) => return Ok(Checksum::of_all(&hasher)),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unread(error)),
            };
            hasher.update(&buffer[..length]);
            self.take(&buffer[..length])?;
        }
    }

    /// Finishes the file and makes it part of the transaction. Its write-back starts, but this does not
    /// wait for it.
    ///
    /// # Errors
    /// - [`Error::Io`] if the buffered bytes cannot be written. The transaction goes on without this
    ///   write.
    /// - [`Error::Unfinished`] if the transaction is over.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// use std::io::Write;
    ///
    /// let mut tx = store.begin()?;
    /// let mut writer = tx.writer("a")?;
    /// writer.write_all(b"bytes")?;
    /// writer.finish()?;
    /// tx.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(mut self) -> Result<()> {
        self.opened.root.refuse_child()?;
        match std::mem::replace(&mut self.body, Body::Finished) {
            Body::Kept(bytes) => self.finish_kept(bytes),
            Body::Staged(writer) => self.finish_staged(*writer),
            Body::Finished => Ok(()),
        }
    }

    fn finish_kept(&self, bytes: Vec<u8>) -> Result<()> {
        let mut draft = guard(&self.draft);
        if draft.closed {
            return Err(self.unfinished());
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

    fn finish_staged(&self, mut writer: BufWriter<StagedWriter>) -> Result<()> {
        let root = &self.opened.root;
        let flushed = writer.flush().map_err(|error| self.failed(error));
        let (writer, _written) = writer.into_parts();
        let staged = writer.path().clone();
        let (file, debt) = match flushed.and_then(|()| writer.finish(root)) {
            Ok(finished) => finished,
            Err(error) => {
                self.leave(0, Some(&staged), None);
                return Err(error);
            }
        };
        stage::tell_staged(root, &file);
        let mut draft = guard(&self.draft);
        let draft = &mut *draft;
        match (draft.slots.get_mut(&self.number), &mut draft.staging) {
            (Some(slot), Some(staging)) if !draft.closed => {
                slot.content = Content::Ready(StagedChange::Write(file));
                staging.wave.add(debt);
                let synced = commit::sync_early(&self.opened.root, staging);
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
                Err(self.unfinished())
            }
        }
    }

    /// Leaves the transaction as if this write had never begun.
    pub(crate) fn discard(mut self) {
        self.give_up(None);
    }

    fn give_up(&mut self, content: Option<Content>) {
        let (kept_bytes, staged) = match std::mem::replace(&mut self.body, Body::Finished) {
            Body::Kept(bytes) => (bytes.len(), None),
            Body::Staged(writer) => {
                // What is in the buffer is not written. The file is closed before it is removed, since
                // Windows keeps the name of an open file.
                let (writer, _unwritten) = writer.into_parts();
                (0, Some(writer.path().clone()))
            }
            Body::Finished => return,
        };
        if self.opened.root.is_own_process() {
            self.leave(kept_bytes, staged.as_ref(), content);
        }
    }

    /// Removes what was written, and leaves `content` in its place, if there is any.
    fn leave(&self, kept_bytes: usize, staged: Option<&RelativePath>, content: Option<Content>) {
        let mut draft = guard(&self.draft);
        draft.release(kept_bytes);
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

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.give_up(Some(Content::Unfinished));
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.opened.root.refuse_child()?;
        if let Body::Staged(writer) = &mut self.body {
            writer.get_mut().tell(&self.opened.root)?;
            let written = writer.write(&bytes[..bytes.len().min(STRIDE_BYTES)]);
            return written.map_err(|error| self.failed(error).into());
        }
        self.take(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.body {
            Body::Staged(writer) => writer.flush(),
            Body::Kept(_) | Body::Finished => Ok(()),
        }
    }
}
