//! The list of what one commit has replaced or removed, as data and as text.
//!
//! Its form is that of a manifest: a first line with a checksum, then JSON. It
//! names the transaction before it. So a list counts only if the commit after it
//! knows it, and a number that was used twice deceives nobody. Reads one file,
//! and changes nothing.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layout;
use super::root::Root;
use crate::checksum::Checksum;
use crate::error::Result;
use crate::generation::{Generation, TransactionId};
use crate::manifest::name::Name;
use crate::manifest::text::{seal, unseal};
use crate::manifest::{Action, Entry, ManifestError, NewDirectory, Stamp, TimeStamp};
use crate::path::RelativePath;

const FORMAT: &str = "cosave-history";

/// What one commit has replaced or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) generation: Generation,
    pub(crate) transaction: TransactionId,
    /// The transaction of the generation before.
    pub(crate) previous: Option<TransactionId>,
    pub(crate) time: TimeStamp,
    pub(crate) undo: Option<Undo>,
    pub(crate) entries: Vec<Past>,
}

/// That a commit has undone or redone others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    /// The generation whose state it has brought back.
    pub(crate) state: Generation,
    /// The newest one that can be redone.
    pub(crate) top: Generation,
}

/// One path of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) path: RelativePath,
    pub(crate) before: Was,
    pub(crate) after: Becomes,
    /// Whether it has taken the place of a directory with everything in it, which is gone for good.
    pub(crate) over: bool,
}

/// What was at a path before a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Was {
    Nothing,
    /// A directory, with its whole mode. Without a group, if an access control list said more than the mode. A
    /// list of an earlier version has neither.
    Directory(NewDirectory),
    /// Something that is not kept, such as a symlink or a whole directory, or that nobody looked at in time.
    Unknown,
    File(Original),
}

/// A file that was replaced or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Original {
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
    #[serde(with = "checksum_text", skip_serializing_if = "Option::is_none", default)]
    pub(crate) blake3: Option<Checksum>,
    pub(crate) mode: u32,
    /// The group for which the mode's bits hold. `None` if an access control list said more than the mode,
    /// and in a list of an earlier version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) group: Option<u32>,
    pub(crate) kept: Kept,
}

/// How an original is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kept {
    Not,
    Link,
    Copy,
}

/// What a commit has put at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Becomes {
    Nothing,
    Directory,
    File(Written),
    Link(WrittenLink),
    /// A directory with everything in it. Nobody can tell what other paths were before that.
    MovedTree(MovedFrom),
    RemovedTree,
}

/// A file that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
    #[serde(with = "checksum_text")]
    pub(crate) blake3: Option<Checksum>,
}

/// A symlink that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "LinkText", try_from = "LinkText")]
pub(crate) struct WrittenLink {
    /// Where it leads to, as written in it.
    pub(crate) to: PathBuf,
}

/// Its form in the list.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkText {
    to: Name,
}

impl From<WrittenLink> for LinkText {
    fn from(link: WrittenLink) -> Self {
        Self { to: Name::new(link.to.as_os_str()) }
    }
}

impl TryFrom<LinkText> for WrittenLink {
    type Error = ManifestError;

    /// Its text is shown and compared. Nobody follows it.
    fn try_from(text: LinkText) -> Result<Self, ManifestError> {
        Ok(Self { to: text.to.decode()?.into() })
    }
}

/// Where a directory came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "MovedText", try_from = "MovedText")]
pub(crate) struct MovedFrom {
    pub(crate) from: RelativePath,
    pub(crate) replaces: bool,
}

impl MovedFrom {
    /// Whether the transaction has built it, in the place of a file.
    pub(crate) fn is_built(&self) -> bool {
        layout::parse_staged(self.from.name()).is_some()
    }
}

/// Its form in the list.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MovedText {
    from: Name,
    replaces: bool,
}

impl From<MovedFrom> for MovedText {
    fn from(moved: MovedFrom) -> Self {
        Self { from: Name::new(moved.from.as_path().as_os_str()), replaces: moved.replaces }
    }
}

impl TryFrom<MovedText> for MovedFrom {
    type Error = ManifestError;

    fn try_from(text: MovedText) -> Result<Self, ManifestError> {
        let name = text.from.decode()?;
        let from =
            RelativePath::new(&name).map_err(|error| ManifestError::Content(format!("{name:?}: {error}")))?;
        Ok(Self { from, replaces: text.replaces })
    }
}

impl Becomes {
    /// Whether it is about a directory with everything in it.
    pub(crate) fn is_tree(&self) -> bool {
        matches!(self, Self::MovedTree(_) | Self::RemovedTree)
    }

    pub(crate) fn of(entry: &Entry) -> Self {
        match &entry.action {
            Action::Write(content) => {
                Self::File(Written { stamp: content.after, blake3: Some(content.checksum) })
            }
            Action::Link(link) => Self::Link(WrittenLink { to: link.to.clone() }),
            Action::Remove | Action::RemoveDirectory => Self::Nothing,
            Action::CreateDirectory(_) => Self::Directory,
            Action::MoveTree(moved) => {
                Self::MovedTree(MovedFrom { from: moved.from.clone(), replaces: moved.replaced.is_some() })
            }
            Action::RemoveTree(_) => Self::RemovedTree,
        }
    }
}

mod checksum_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::checksum::Checksum;

    pub(super) fn serialize<S: Serializer>(sum: &Option<Checksum>, to: S) -> Result<S::Ok, S::Error> {
        match sum {
            Some(sum) => to.collect_str(sum),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Checksum>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordText {
    generation: Generation,
    transaction: String,
    previous: Option<String>,
    time: TimeStamp,
    undo: Option<Undo>,
    entries: Vec<PastText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PastText {
    path: Name,
    before: Was,
    after: Becomes,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    over: bool,
}

impl Record {
    /// The path of a directory that the commit has moved or removed with everything in it.
    pub(crate) fn tree(&self) -> Option<&RelativePath> {
        self.entries.iter().find(|past| past.over || past.after.is_tree()).map(|past| &past.path)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let entry = |past: &Past| PastText {
            path: Name::new(past.path.as_path().as_os_str()),
            before: past.before.clone(),
            after: past.after.clone(),
            over: past.over,
        };
        let text = RecordText {
            generation: self.generation,
            transaction: self.transaction.to_string(),
            previous: self.previous.map(|previous| previous.to_string()),
            time: self.time,
            undo: self.undo,
            entries: self.entries.iter().map(entry).collect(),
        };
        Ok(seal(FORMAT, &serde_json::to_string_pretty(&text)?))
    }

    /// Reads it back, and verifies its checksum. Its checksum can be forged, so its paths are checked like a
    /// caller's, and an undo leads to earlier generations only. Otherwise the way back could be a circle.
    fn decode(root: &Root, bytes: &[u8]) -> Result<Self, ManifestError> {
        let wrong = |what: String| ManifestError::Content(what);
        let text: RecordText =
            serde_json::from_str(unseal(FORMAT, bytes)?).map_err(|error| wrong(error.to_string()))?;
        let id = |text: &str| {
            TransactionId::parse(text).ok_or_else(|| wrong("it has no valid transaction id".to_owned()))
        };
        if text.undo.is_some_and(|undo| undo.state.max(undo.top) >= text.generation) {
            return Err(wrong("it undoes what came later".to_owned()));
        }
        let mut seen = HashSet::new();
        let mut past = |entry: PastText| {
            let name = entry.path.decode()?;
            let path = RelativePath::new(&name).map_err(|error| wrong(format!("{name:?}: {error}")))?;
            root.refuse_reserved(&path).map_err(|error| wrong(format!("{path}: {error}")))?;
            if path.is_root() || !seen.insert(path.clone()) {
                return Err(wrong(format!("{path} cannot be in it, or is in it twice")));
            }
            Ok(Past { path, before: entry.before, after: entry.after, over: entry.over })
        };
        Ok(Self {
            generation: text.generation,
            transaction: id(&text.transaction)?,
            previous: text.previous.as_deref().map(id).transpose()?,
            time: text.time,
            undo: text.undo,
            entries: text.entries.into_iter().map(&mut past).collect::<Result<_, _>>()?,
        })
    }
}

/// The list of one commit; `None` if there is none, or none that is whole.
pub(crate) fn read(
    root: &Root,
    generation: Generation,
    transaction: TransactionId,
) -> Result<Option<Record>> {
    let bytes = root.read(&layout::history_record(generation, transaction))?;
    let record = bytes.and_then(|bytes| Record::decode(root, &bytes).ok());
    let is_its_own = |record: &Record| record.generation == generation && record.transaction == transaction;
    Ok(record.filter(is_its_own))
}
