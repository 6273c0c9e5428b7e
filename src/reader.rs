//! Files that are open for reading, and stay as they are when the lock is gone.

use std::io::{self, Read, Seek};

use crate::fs::ReadFile;
use crate::generation::Generation;

/// A file of a view, a snapshot or a transaction, open for reading.
///
/// It stays readable and unchanged when a later commit replaces the file. The one exception is a target
/// that is a mount point, which a commit writes over.
#[derive(Debug)]
pub struct FileReader {
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(Box<dyn ReadFile>),
    /// What a transaction has written and not staged.
    Memory(io::Cursor<Vec<u8>>),
}

impl FileReader {
    pub(crate) fn new(file: Box<dyn ReadFile>) -> Self {
        Self { source: Source::File(file) }
    }

    pub(crate) fn in_memory(bytes: Vec<u8>) -> Self {
        Self { source: Source::Memory(io::Cursor::new(bytes)) }
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// Any error of the system.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("a", "123"))?;
    /// assert_eq!(store.view()?.open("a")?.length()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn length(&self) -> io::Result<u64> {
        match &self.source {
            Source::File(file) => Ok(file.metadata()?.length),
            Source::Memory(bytes) => Ok(bytes.get_ref().len() as u64),
        }
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::File(file) => file.read(buffer),
            Source::Memory(bytes) => bytes.read(buffer),
        }
    }
}

impl Seek for FileReader {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        match &mut self.source {
            Source::File(file) => file.seek(position),
            Source::Memory(bytes) => bytes.seek(position),
        }
    }
}

/// Several files of one generation, open for reading. Holds no lock.
///
/// Made by [`Store::snapshot`](crate::Store::snapshot).
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) generation: Generation,
    pub(crate) files: Vec<Option<FileReader>>,
}

impl Snapshot {
    /// The generation that all the files are of; 0 before the first commit.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The files, in the order of their paths; `None` where there was none.
    #[must_use]
    pub fn into_files(self) -> Vec<Option<FileReader>> {
        self.files
    }
}
