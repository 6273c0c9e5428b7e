//! ETags: which checksums are known without reading the object again.
//!
//! A checksum is kept for as long as nothing of the file's metadata has changed, and only if a later change
//! would have given it other time stamps (`protocol::stamps`). It saves reading, and decides nothing: a
//! conditional put reads the object, whatever is known here.

use std::collections::HashMap;
use std::io::{self, Read as _, Seek as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checksum::Checksum;
use crate::fs::Metadata;
use crate::path::RelativePath;
use crate::protocol::snapshot::Found;

/// How many checksums are kept: some twenty megabytes.
const KNOWN_MAX: usize = 1 << 16;

/// The checksums that are known, and of which file each is.
#[derive(Debug, Default)]
pub(super) struct Tags(Mutex<HashMap<RelativePath, (Metadata, Checksum)>>);

impl Tags {
    /// The checksum of a file, if it is known.
    pub(super) fn known(&self, path: &RelativePath, found: &Metadata) -> Option<Checksum> {
        let known = self.lock();
        known.get(path).filter(|(metadata, _)| metadata == found).map(|(_, checksum)| *checksum)
    }

    /// The checksum of an open file, which is read for it unless it is known.
    pub(super) fn of(&self, path: &RelativePath, found: &mut Found) -> io::Result<Checksum> {
        if let Some(known) = self.known(path, &found.metadata) {
            return Ok(known);
        }
        // As many bytes as the reader gets. Another program may append to the file, and an update must not take
        // that for what the reader has seen.
        let length = found.metadata.length;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader((&mut *found.file).take(length))?;
        if hasher.count() < length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "another program has cut it off"));
        }
        found.file.rewind()?;
        let checksum = Checksum::of_all(&hasher);
        if found.is_proof {
            self.keep(path, found.metadata, checksum);
        }
        Ok(checksum)
    }

    fn keep(&self, path: &RelativePath, metadata: Metadata, checksum: Checksum) {
        let mut known = self.lock();
        // Whoever has more objects than that reads some of them again.
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(path.clone(), (metadata, checksum));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RelativePath, (Metadata, Checksum)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::fs::os::{OsFileSystem, Parents};
    use crate::fs::{FileSystem as _, Identity, Kind};

    fn file(length: u64) -> Metadata {
        Metadata {
            kind: Kind::File,
            length,
            modified: SystemTime::UNIX_EPOCH,
            changed: Some(SystemTime::UNIX_EPOCH),
            mode: 0o644,
            owner: (0, 0),
            identity: Some(Identity { device: 1, inode: 1 }),
            links: 1,
        }
    }

    #[test]
    fn a_checksum_is_known_of_the_very_file_and_there_is_an_end_to_how_many() {
        let (tags, checksum) = (Tags::default(), Checksum::of(b"1"));
        let path = |number: usize| RelativePath::new(number.to_string()).expect("valid");
        tags.keep(&path(0), file(1), checksum);
        assert_eq!(tags.known(&path(0), &file(1)), Some(checksum));
        assert_eq!(tags.known(&path(0), &file(2)), None, "it has another length now");
        assert_eq!(tags.known(&path(1), &file(1)), None, "another object");
        for number in 0..=KNOWN_MAX {
            tags.keep(&path(number), file(1), checksum);
        }
        assert!(tags.lock().len() <= KNOWN_MAX);
        assert_eq!(tags.known(&path(KNOWN_MAX), &file(1)), Some(checksum), "the newest is known");
    }
    /// An open file that another program writes anew before it is read, and its ETag then.
    fn tag_after(before: &str, after: &str) -> (Tags, Found, io::Result<Checksum>) {
        let root = tempfile::tempdir().expect("a directory");
        let path = RelativePath::new("a").expect("valid");
        std::fs::write(root.path().join("a"), before).expect("written");
        let fs = OsFileSystem::open(root.path(), None, Parents::Leave).expect("opened");
        let file = fs.open(&path).expect("opened");
        let mut found = Found { metadata: file.metadata().expect("known"), file, is_proof: true };
        std::fs::write(root.path().join("a"), after).expect("written");
        let tags = Tags::default();
        let tag = tags.of(&path, &mut found);
        (tags, found, tag)
    }

    /// The ETag was of more than the reader got, and an update that expected it dropped what nobody had seen.
    #[test]
    fn an_object_that_grows_while_it_is_read_has_the_etag_of_what_is_read() {
        let (_, mut found, tag) = tag_after("one", "one more");
        assert_eq!(tag.expect("read"), Checksum::of(b"one"));
        let mut bytes = String::new();
        found.file.read_to_string(&mut bytes).expect("read");
        assert_eq!(bytes, "one more", "the reader begins at its first byte");
    }

    /// The ETag was of fewer bytes than the reader was told of.
    #[test]
    fn an_object_that_is_cut_off_while_it_is_read_has_no_etag() {
        let (tags, found, tag) = tag_after("whole", "who");
        assert_eq!(tag.expect_err("two bytes are missing").kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(tags.known(&RelativePath::new("a").expect("valid"), &found.metadata), None);
    }
}
