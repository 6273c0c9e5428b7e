//! The manifest as text: encoding and decoding, with no I/O.
//!
//! The first line holds the format's version and the BLAKE3 checksum of
//! everything after it. Then comes JSON that a person can read. Whatever does
//! not match exactly is refused: no bytes can make decoding panic or guess.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use super::{Action, Before, Entry, Manifest, ManifestError, StagedContent, Stamp, TimeStamp};
use crate::generation::TransactionId;
use crate::path::RelativePath;

const FORMAT: &str = "cosave-manifest";
const VERSION: &str = "1";

/// An entry as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    path: Name,
    operation: OperationText,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    staged: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    modified: Option<TimeStamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    blake3: Option<String>,
    before: Option<BeforeText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BeforeText {
    length: u64,
    modified: TimeStamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    blake3: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OperationText {
    Write,
    Remove,
}

/// A path or name: as text if it is text, otherwise its bytes in hexadecimal (Unix).
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Name {
    Text(String),
    Bytes { bytes: String },
}

impl Name {
    pub(crate) fn new(name: &OsStr) -> Self {
        match name.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes { bytes: to_hex(name.as_encoded_bytes()) },
        }
    }

    pub(crate) fn decode(self) -> Result<OsString, ManifestError> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Bytes { bytes } => from_hex(&bytes)
                .and_then(os_string)
                .ok_or_else(|| ManifestError::Content(format!("not a file name on this system: {bytes}"))),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if digits.len() % 2 != 0 {
        return None;
    }
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(unix)]
fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    Some(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

/// Here names are always text. A name that is not text comes from another system, and is refused rather
/// than guessed.
#[cfg(not(unix))]
fn os_string(_bytes: Vec<u8>) -> Option<OsString> {
    None
}

impl BeforeText {
    fn new(Before { stamp: Stamp { length, modified }, checksum }: Before) -> Self {
        Self { length, modified, blake3: checksum.map(|checksum| checksum.to_hex().to_string()) }
    }

    fn decode(self) -> Result<Before, ManifestError> {
        let stamp = Stamp { length: self.length, modified: self.modified };
        Ok(Before { stamp, checksum: self.blake3.map(|text| hash(&text)).transpose()? })
    }
}

fn hash(text: &str) -> Result<blake3::Hash, ManifestError> {
    blake3::Hash::from_hex(text).map_err(|_| ManifestError::Content("no BLAKE3 checksum".to_owned()))
}

impl EntryText {
    fn new(entry: &Entry) -> Self {
        let path = Name::new(entry.path.as_path().as_os_str());
        let empty = Self {
            path,
            operation: OperationText::Remove,
            staged: None,
            length: None,
            modified: None,
            mode: None,
            blake3: None,
            before: entry.before.map(BeforeText::new),
        };
        match &entry.action {
            Action::Remove => empty,
            Action::Write(content) => Self {
                operation: OperationText::Write,
                staged: Some(Name::new(&content.name)),
                length: Some(content.after.length),
                modified: Some(content.after.modified),
                mode: Some(content.mode),
                blake3: Some(content.checksum.to_hex().to_string()),
                ..empty
            },
        }
    }

    fn decode(self) -> Result<Entry, ManifestError> {
        let wrong = |what: &str| ManifestError::Content(what.to_owned());
        let path = self.path.decode()?;
        let path = RelativePath::new(&path)
            .map_err(|reason| ManifestError::Content(format!("the path {path:?}: {reason}")))?;
        let action = match (self.operation, self.staged, self.length, self.modified, self.mode, self.blake3) {
            (OperationText::Remove, None, None, None, None, None) => Action::Remove,
            (OperationText::Write, Some(name), Some(length), Some(modified), Some(mode), Some(text)) => {
                Action::Write(StagedContent {
                    name: plain_name(name.decode()?)?,
                    after: Stamp { length, modified },
                    mode,
                    checksum: hash(&text)?,
                })
            }
            _ => return Err(wrong("an entry's fields do not fit its operation")),
        };
        let before = self.before.map(BeforeText::decode).transpose()?;
        Ok(Entry { path, before, action })
    }
}

/// A staged name must be one plain name: with a `/` in it, it could lead anywhere.
fn plain_name(name: OsString) -> Result<OsString, ManifestError> {
    match RelativePath::new(&name) {
        Ok(path) if path.as_path().as_os_str() == name && path.parent().is_root() => Ok(name),
        _ => Err(ManifestError::Content(format!("{name:?} is not one plain name"))),
    }
}

/// All entries of a manifest are checked before the first file is moved. So no entry may change a file
/// that another entry checks.
fn each_file_once(entries: &[Entry]) -> Result<(), ManifestError> {
    let mut seen = HashSet::new();
    for entry in entries {
        for path in std::iter::once(entry.path.clone()).chain(entry.staged()) {
            if let Some(twice) = seen.replace(path) {
                return Err(ManifestError::Content(format!("it names `{twice}` twice")));
            }
        }
    }
    for entry in entries {
        let mut above = entry.path.parent();
        while !above.is_root() {
            if seen.contains(&above) {
                return Err(ManifestError::Content(format!("it names `{}` below a file", entry.path)));
            }
            above = above.parent();
        }
    }
    Ok(())
}

/// A manifest as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestText {
    transaction: String,
    time: TimeStamp,
    entries: Vec<EntryText>,
}

impl Manifest {
    /// The manifest as it is written to disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Self::encode_entries(self.transaction, self.time, self.entries.iter())
    }

    /// Like `encode`, for entries that are stored elsewhere.
    pub(crate) fn encode_entries<'a>(
        transaction: TransactionId,
        time: TimeStamp,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Vec<u8> {
        let mut body =
            format!("{{\"transaction\":\"{transaction}\",\"time\":{},\"entries\":[", time.nanoseconds());
        for (index, entry) in entries.enumerate() {
            body.push_str(if index == 0 { "\n" } else { ",\n" });
            // Strings and numbers always have a JSON form, so the empty default is never used. If it
            // were, decoding would refuse the manifest before it is published.
            body.push_str(&serde_json::to_string(&EntryText::new(entry)).unwrap_or_default());
        }
        body.push_str("\n]}\n");
        seal(FORMAT, &body)
    }

    /// Reads a manifest, and verifies its checksum.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong. No bytes make this panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::parse(unseal(FORMAT, bytes)?)
    }

    /// Like `decode`, but accepts a wrong checksum. Only for tests that look at the consequences.
    pub(crate) fn decode_unverified(bytes: &[u8]) -> Result<Self, ManifestError> {
        let body = bytes.splitn(2, |b| *b == b'\n').nth(1).ok_or(ManifestError::Header)?;
        Self::parse(std::str::from_utf8(body).map_err(|_| ManifestError::Checksum)?)
    }

    fn parse(body: &str) -> Result<Self, ManifestError> {
        let text: ManifestText =
            serde_json::from_str(body).map_err(|error| ManifestError::Content(error.to_string()))?;
        let transaction = TransactionId::parse(&text.transaction)
            .ok_or_else(|| ManifestError::Content("it has no valid transaction id".to_owned()))?;
        let entries = text.entries.into_iter().map(EntryText::decode).collect::<Result<Vec<_>, _>>()?;
        each_file_once(&entries)?;
        Ok(Self { transaction, time: text.time, entries })
    }
}

/// Puts a first line before `body`: the format, and a checksum that proves that `body` is whole.
pub(crate) fn seal(format: &str, body: &str) -> Vec<u8> {
    let hash = blake3::hash(body.as_bytes()).to_hex();
    format!("{format} {VERSION} {hash}\n{body}").into_bytes()
}

/// Checks the first line and returns the rest.
pub(crate) fn unseal<'a>(format: &str, bytes: &'a [u8]) -> Result<&'a str, ManifestError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(ManifestError::Header)?;
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let header = std::str::from_utf8(header).map_err(|_| ManifestError::Header)?;
    let mut words = header.split(' ');
    let (name, version, hash) = (words.next(), words.next(), words.next());
    match (name, version, hash, words.next()) {
        (Some(name), Some(version), Some(hash), None) if name == format => {
            if version != VERSION {
                return Err(ManifestError::Version(version.chars().take(20).collect()));
            }
            if *hash != *blake3::hash(body).to_hex() {
                return Err(ManifestError::Checksum);
            }
        }
        _ => return Err(ManifestError::Header),
    }
    std::str::from_utf8(body).map_err(|_| ManifestError::Content("it is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;
    use uuid::Uuid;

    fn manifest() -> Manifest {
        let stamp = Stamp {
            length: 3,
            modified: TimeStamp::from(SystemTime::UNIX_EPOCH - std::time::Duration::from_nanos(5)),
        };
        let path = |text| RelativePath::new(text).expect("valid");
        let old = Before { stamp, checksum: None };
        let young = Before { stamp, checksum: Some(blake3::hash(b"c")) };
        let content = StagedContent {
            name: ".a.x.cosave".into(),
            after: stamp,
            mode: 0o640,
            checksum: blake3::hash(b"abc"),
        };
        Manifest {
            transaction: TransactionId { session: Uuid::from_u128(1), number: 2 },
            time: TimeStamp::from(SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(9)),
            entries: vec![
                Entry { path: path("dir/a"), before: None, action: Action::Write(content) },
                Entry { path: path("b 'quoted'"), before: Some(old), action: Action::Remove },
                Entry { path: path("c"), before: Some(young), action: Action::Remove },
            ],
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_manifest_survives_the_round_trip_with_any_name() {
        use std::os::unix::ffi::OsStrExt;
        let mut written = manifest();
        written.entries[0].path = RelativePath::new(OsStr::from_bytes(b"d/\xff\xfe")).expect("valid");
        assert_eq!(Manifest::decode(&written.encode()), Ok(written));
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let mut written = manifest();
        written.entries[1].path = RelativePath::new("b").expect("valid");
        let bytes = written.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(written));
        for index in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..index]).is_err(), "cut at {index}");
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[index] ^= 1 << bit;
                assert!(Manifest::decode(&changed).is_err(), "bit {bit} of byte {index}");
            }
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let text = String::from_utf8(manifest().encode()).expect("text");
        let later = text.replacen("cosave-manifest 1 ", "cosave-manifest 2 ", 1);
        assert_eq!(Manifest::decode(later.as_bytes()), Err(ManifestError::Version("2".to_owned())));
    }

    #[test]
    fn a_file_is_named_once() {
        let twice = |change: fn(&mut Manifest)| {
            let mut written = manifest();
            change(&mut written);
            let error = Manifest::decode(&written.encode()).expect_err("one file in two entries");
            assert!(error.to_string().contains("twice"), "{error}");
        };
        twice(|manifest| manifest.entries[1].path = manifest.entries[0].path.clone());
        twice(|manifest| {
            manifest.entries[1].path = RelativePath::new("dir/b").expect("valid");
            manifest.entries[1].action = manifest.entries[0].action.clone();
        });
        twice(|manifest| {
            manifest.entries[1].path = RelativePath::new("dir/.a.x.cosave").expect("valid");
        });
        let mut below = manifest();
        below.entries[1].path = RelativePath::new("dir/a/b/c").expect("valid");
        assert!(Manifest::decode(&below.encode()).is_err(), "a file in a file");
    }

    #[test]
    fn a_valid_checksum_does_not_make_hostile_paths_valid() {
        for (from, to) in
            [("dir/a", "../a"), ("dir/a", "/a"), (".a.x.cosave", "../x"), (".a.x.cosave", "x/y")]
        {
            let text = String::from_utf8(manifest().encode()).expect("text");
            let body = text.split_once('\n').expect("two parts").1.replacen(from, to, 1);
            let error = Manifest::decode(&seal(FORMAT, &body)).expect_err(to);
            assert!(matches!(error, ManifestError::Content(_)), "{to}: {error}");
        }
    }
}
