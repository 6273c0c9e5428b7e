//! Copies a file's bytes and permissions, and computes checksums. Memory use
//! does not grow with the file.

use std::io::{self, BufWriter, Read, Write};

use super::root::Root;
use crate::checksum::Checksum;
use crate::fs::{Metadata, NewFile, Wave};
use crate::path::RelativePath;

/// How many bytes are copied at once: enough for few system calls.
const COPY_BYTES: usize = 256 * 1024;

/// Copies all bytes.
pub(crate) fn bytes<R: Read + ?Sized, W: Write + ?Sized>(source: &mut R, target: &mut W) -> io::Result<()> {
    // `io::copy` reads directly into a writer's own buffer.
    let mut buffered = BufWriter::with_capacity(COPY_BYTES, target);
    io::copy(source, &mut buffered)?;
    buffered.flush()
}

/// Copies a file's bytes and permissions to a new name.
pub(crate) fn file(
    root: &Root,
    from: &RelativePath,
    to: &RelativePath,
    wave: &mut Wave,
) -> io::Result<Metadata> {
    let mut source = root.fs.open(from)?;
    let like = source.metadata()?;
    let (mut file, name) = root.fs.create_new(to, NewFile::Private)?;
    wave.add(name);
    bytes(&mut *source, &mut *file)?;
    file.copy_permissions(from, &like)?;
    let (metadata, content) = file.finish()?;
    wave.add(content);
    Ok(metadata)
}

/// The checksum of a file's bytes.
pub(crate) fn checksum(root: &Root, path: &RelativePath) -> io::Result<Checksum> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(root.fs.open(path)?)?;
    Ok(Checksum::of_all(&hasher))
}
