//! Which objects there are, all of one state.
//!
//! Names and metadata are read under the lock, so writers wait meanwhile. No object is read.

use ::object_store::path::Path;
use ::object_store::{ListResult, ObjectMeta};

use super::change::name;
use super::get::describe;
use super::tags::Tags;
use crate::error::{Error, Result};
use crate::fs::Kind;
use crate::listed::{DirEntry, FileKind};
use crate::path::InvalidPath;
use crate::view::View;

/// Every object below a prefix, and after an offset, by location.
pub(super) fn all(view: &View, tags: &Tags, prefix: &Path, offset: Option<&Path>) -> Result<Vec<ObjectMeta>> {
    let Some(found) = if_directory(view.walk(name(prefix)))? else { return Ok(Vec::new()) };
    let mut objects = Vec::new();
    for entry in &found {
        let Some(location) = location(entry).filter(|location| is_below(location, prefix)) else { continue };
        if offset.is_none_or(|offset| location > *offset) {
            objects.extend(look(view, tags, entry, location)?);
        }
    }
    objects.sort_unstable_by(|one, other| one.location.cmp(&other.location));
    Ok(objects)
}

/// The objects right below a prefix, and the prefixes that others have in common.
pub(super) fn right_below(view: &View, tags: &Tags, prefix: &Path) -> Result<ListResult> {
    let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
    for entry in if_directory(view.entries(name(prefix)))?.unwrap_or_default() {
        let Some(location) = location(&entry).filter(|location| is_below(location, prefix)) else { continue };
        if entry.kind() != FileKind::Directory {
            objects.extend(look(view, tags, &entry, location)?);
        } else if has_object(view, tags, &entry)? {
            common_prefixes.push(location);
        }
    }
    Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
}

/// Whether there is any object in a directory. One without is nothing to an object store.
fn has_object(view: &View, tags: &Tags, directory: &DirEntry) -> Result<bool> {
    let mut ahead = vec![directory.clone()];
    while let Some(directory) = ahead.pop() {
        for entry in if_directory(view.entries(directory.path()))?.unwrap_or_default() {
            let Some(location) = location(&entry) else { continue };
            if entry.kind() == FileKind::Directory {
                ahead.push(entry);
            } else if look(view, tags, &entry, location)?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What an entry is as an object, if it is one: a file, or a symlink to one.
fn look(view: &View, tags: &Tags, entry: &DirEntry, location: Path) -> Result<Option<ObjectMeta>> {
    if !matches!(entry.kind(), FileKind::File | FileKind::Link) {
        return Ok(None);
    }
    let found = match view.look_at(entry.path().as_path()) {
        Ok(found) => found.filter(|found| found.kind == Kind::File),
        // A symlink that leads to no file of the root.
        Err(Error::InvalidPath { .. }) => None,
        // Or to one that cannot be reached. It must not hide all others.
        Err(Error::Io { .. }) if entry.kind() == FileKind::Link => None,
        Err(error) => return Err(error),
    };
    Ok(found.map(|found| {
        let tag = tags.known(entry.path(), &found);
        describe(location, &found, tag)
    }))
}

/// Whether a location begins with the prefix. A prefix that is a symlink has led to others, which are listed
/// where they are.
fn is_below(location: &Path, prefix: &Path) -> bool {
    location.prefix_matches(prefix)
}

/// The location of an entry. A name that no location can have is that of no object.
fn location(entry: &DirEntry) -> Option<Path> {
    Path::parse(entry.path().as_path().to_str()?).ok()
}

/// What is in a directory. Where there is none, there is no object.
fn if_directory<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(Error::InvalidPath { reason, .. }) if reason != InvalidPath::Escapes => Ok(None),
        Err(error) => Err(error),
    }
}
