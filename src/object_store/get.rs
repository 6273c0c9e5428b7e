//! Reading an object: its metadata, its conditions, its bytes.
//!
//! The lock is held until the file is open, and no longer. The file is that object from then on, whatever
//! is committed meanwhile. Blocks, so all of it runs on the pool.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, SystemTime};

use ::object_store::path::Path;
use ::object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, Result};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::change::name;
use super::refused;
use super::tags::Tags;
use crate::checksum::Checksum;
use crate::error::{Error, Operation};
use crate::fs::{Kind, Metadata, ReadFile};
use crate::path::RelativePath;
use crate::protocol::snapshot::Found;
use crate::tokio::run;
use crate::view::View;

/// How much of an object is read at once. What is not longer is in memory when a get returns.
const CHUNK_BYTES: u64 = 1 << 20;

/// The times that the trait's type can hold: those of four-digit years.
const SECONDS_MAX: u64 = 253_402_300_799;

/// An object that was found, and the part of it that was asked for.
pub(super) struct Fetched {
    meta: ObjectMeta,
    range: Range<u64>,
    body: Body,
}

enum Body {
    Whole(Bytes),
    /// At its place, with so many bytes to come.
    File(Box<dyn ReadFile>, u64),
}

/// Finds an object, checks the conditions, and reads what fits into memory.
pub(super) fn fetch(
    view: View,
    tags: &Tags,
    location: Path,
    options: &GetOptions,
    root: &FilePath,
) -> Result<Fetched> {
    let (path, mut found) = open(view, &location, root)?;
    let tag = match needs_tag(options) {
        true => Some(tags.of(&path, &mut found).map_err(|error| unread(root, &location, error))?),
        false => tags.known(&path, &found.metadata),
    };
    let meta = describe(location, &found.metadata, tag);
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        Some(range) => range.as_range(meta.size).map_err(refused::generic)?,
        None => 0..meta.size,
    };
    let length = range.end - range.start;
    let failed = |error| unread(root, &meta.location, error);
    let body = if options.head {
        Body::Whole(Bytes::new())
    } else if length <= CHUNK_BYTES {
        Body::Whole(read(&mut *found.file, &range).map_err(failed)?)
    } else {
        found.file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
        Body::File(found.file, length)
    };
    Ok(Fetched { meta, range, body })
}

/// Reads several parts of one object.
pub(super) fn fetch_ranges(
    view: View,
    location: &Path,
    ranges: &[Range<u64>],
    root: &FilePath,
) -> Result<Vec<Bytes>> {
    let (_, mut found) = open(view, location, root)?;
    let length = found.metadata.length;
    let part = |range: &Range<u64>| {
        let range = GetRange::Bounded(range.clone()).as_range(length).map_err(refused::generic)?;
        read(&mut *found.file, &range).map_err(|error| unread(root, location, error))
    };
    ranges.iter().map(part).collect()
}

impl Fetched {
    /// The answer to the caller, who may take the bytes when he wants.
    pub(super) fn into_result(self, root: PathBuf) -> GetResult {
        let Self { meta, range, body } = self;
        let stream = match body {
            Body::Whole(bytes) => stream::once(async { Ok(bytes) }).boxed(),
            Body::File(file, length) => chunks(file, length, meta.location.clone(), root),
        };
        GetResult {
            payload: GetResultPayload::Stream(stream),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        }
    }
}

/// What the trait tells of an object.
pub(super) fn describe(location: Path, found: &Metadata, tag: Option<Checksum>) -> ObjectMeta {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS_MAX);
    let last_modified = found.modified.clamp(SystemTime::UNIX_EPOCH, end).into();
    let e_tag = tag.map(|checksum| checksum.to_string());
    ObjectMeta { location, last_modified, size: found.length, e_tag, version: None }
}

/// Whether the whole object is read anyway, or the ETag is asked for.
fn needs_tag(options: &GetOptions) -> bool {
    options.head || options.range.is_none() || options.if_match.is_some() || options.if_none_match.is_some()
}

fn open(view: View, location: &Path, root: &FilePath) -> Result<(RelativePath, Found)> {
    let path = RelativePath::new(name(location))
        .map_err(|reason| refused::of_source(root, Error::invalid(root.join(name(location)), reason)))?;
    let found = match view.find(path.as_path()) {
        // A pipe or a device cannot be opened as a file is.
        Err(_)
            if view.look_at(path.as_path()).is_ok_and(|found| found.is_none_or(|f| f.kind != Kind::File)) =>
        {
            None
        }
        found => found.map_err(|error| refused::of_source(root, error))?,
    };
    // Writers need not wait any more.
    drop(view);
    let missing = || unread(root, location, io::ErrorKind::NotFound.into());
    Ok((path, found.ok_or_else(missing)?))
}

fn unread(root: &FilePath, location: &Path, error: io::Error) -> ::object_store::Error {
    refused::of_source(root, Error::io(Operation::Read, root.join(name(location)))(error))
}

fn read(file: &mut dyn ReadFile, range: &Range<u64>) -> io::Result<Bytes> {
    file.seek(SeekFrom::Start(range.start))?;
    next(file, range.end - range.start)
}

/// Reads the next bytes, which must be there.
fn next(file: &mut dyn ReadFile, length: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "another program has cut it off"));
    }
    Ok(bytes.into())
}

/// Reads a long object piece by piece, each on the pool.
fn chunks(
    file: Box<dyn ReadFile>,
    length: u64,
    location: Path,
    root: PathBuf,
) -> BoxStream<'static, Result<Bytes>> {
    let chunk = move |(mut file, rest): (Box<dyn ReadFile>, u64)| {
        let (location, root) = (location.clone(), root.clone());
        async move {
            if rest == 0 {
                return Ok(None);
            }
            let length = rest.min(CHUNK_BYTES);
            let read = run(root.clone(), move || {
                let unread = Error::io(Operation::Read, root.join(name(&location)));
                let bytes = next(&mut *file, length).map_err(unread)?;
                Ok::<_, Error>((bytes, file))
            });
            let (bytes, file) = read.await.map_err(refused::generic)?;
            Ok(Some((bytes, (file, rest - length))))
        }
    };
    stream::try_unfold((file, length), chunk).boxed()
}
