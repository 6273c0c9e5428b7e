//! The manifest as text: encoding and decoding, with no I/O.
//!
//! The first line holds the format's version and the BLAKE3 checksum of the text
//! after it: JSON that a person can read. In the manifest of a small save the
//! first line also has the text's length, and the bytes of the written files
//! follow the text. Each entry has the checksum of its own. Whatever does not
//! match exactly is refused: no bytes can make decoding panic or guess.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::directory;
use super::name::{self, Name, content, plain_name};
use super::tree::TreeText;
use super::{
    Action, Before, Entry, Inline, Manifest, ManifestError, NewDirectory, StagedContent, StagedLink, Stamp,
    TimeStamp,
};
use crate::checksum::Checksum;
use crate::generation::{Generation, TransactionId, parse_number};
use crate::path::RelativePath;

const FORMAT: &str = "cosave-manifest";
const VERSION: &str = "1";
/// The version of manifests that hold the bytes of their files.
const VERSION_INLINE: &str = "2";
/// The version of manifests that make or remove directories.
const VERSION_DIRECTORIES: &str = "3";
/// The version of manifests with symlinks or modes of directories, or that move or remove whole trees.
const VERSION_LINKS: &str = "4";

const VERSIONS: [&str; 4] = [VERSION, VERSION_INLINE, VERSION_DIRECTORIES, VERSION_LINKS];

/// The earliest version of a long save's manifest that can say this.
fn version(entry: &Entry) -> &'static str {
    match entry.action {
        _ if entry.is_of_link() || entry.is_of_tree() => VERSION_LINKS,
        Action::CreateDirectory(NewDirectory { mode: Some(_), .. }) => VERSION_LINKS,
        Action::CreateDirectory(_) | Action::RemoveDirectory => VERSION_DIRECTORIES,
        _ => VERSION,
    }
}

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
    owner: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    blake3: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    to: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tree: Option<TreeText>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    directory: Option<NewDirectory>,
    before: Option<BeforeText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BeforeText {
    length: u64,
    modified: TimeStamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    blake3: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    link: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OperationText {
    Write,
    Remove,
    Link,
    CreateDirectory,
    RemoveDirectory,
    MoveTree,
    RemoveTree,
}

impl BeforeText {
    fn new(Before { stamp: Stamp { length, modified }, checksum, is_link: link }: Before) -> Self {
        Self { length, modified, blake3: checksum.map(|checksum| checksum.to_string()), link }
    }

    fn decode(self) -> Result<Before, ManifestError> {
        let stamp = Stamp { length: self.length, modified: self.modified };
        let checksum = self.blake3.map(|text| hash(&text)).transpose()?;
        if self.link && checksum.is_none() {
            return Err(content("a symlink was there, and it does not say which"));
        }
        Ok(Before { stamp, checksum, is_link: self.link })
    }
}

fn hash(text: &str) -> Result<Checksum, ManifestError> {
    text.parse().map_err(|_| content("no BLAKE3 checksum"))
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
            owner: None,
            blake3: None,
            to: None,
            tree: entry.over.as_ref().map(TreeText::of_removed),
            directory: None,
            before: entry.before.map(BeforeText::new),
        };
        match &entry.action {
            Action::Remove => empty,
            Action::Link(link) => Self {
                operation: OperationText::Link,
                staged: Some(Name::new(&link.name)),
                to: Some(Name::new(link.to.as_os_str())),
                ..empty
            },
            Action::CreateDirectory(new) => {
                Self { operation: OperationText::CreateDirectory, directory: directory::text(*new), ..empty }
            }
            Action::RemoveDirectory => Self { operation: OperationText::RemoveDirectory, ..empty },
            Action::MoveTree(moved) => {
                Self { operation: OperationText::MoveTree, tree: Some(TreeText::of_moved(moved)), ..empty }
            }
            Action::RemoveTree(hidden) => Self {
                operation: OperationText::RemoveTree,
                tree: Some(TreeText::of_removed(hidden)),
                ..empty
            },
            Action::Write(content) => Self {
                operation: OperationText::Write,
                staged: Some(Name::new(&content.name)),
                length: Some(content.after.length),
                modified: Some(content.after.modified),
                mode: Some(content.mode),
                owner: content.owner,
                blake3: Some(content.checksum.to_string()),
                ..empty
            },
        }
    }

    fn decode(self) -> Result<Entry, ManifestError> {
        let path = self.path.path()?;
        if self.directory.is_some() && !matches!(self.operation, OperationText::CreateDirectory) {
            return Err(content("it gives a mode to what is no new directory"));
        }
        let before = self.before.as_ref();
        let (tree, over) = match self.operation {
            OperationText::MoveTree | OperationText::RemoveTree => (self.tree, None),
            OperationText::Write | OperationText::Link | OperationText::CreateDirectory
                if before.is_none() && self.tree.is_some() =>
            {
                (None, Some(TreeText::removed(self.tree)?))
            }
            _ if self.tree.is_some() => {
                return Err(content("an entry's fields do not fit its operation"));
            }
            _ => (None, None),
        };
        let action = match (self.operation, self.staged, self.length, self.modified, self.mode, self.blake3) {
            (operation, staged, None, None, None, None) if self.owner.is_none() => {
                match (operation, staged, self.to) {
                    (OperationText::Remove, None, None) => Action::Remove,
                    (OperationText::Link, Some(name), Some(to)) => Action::Link(StagedLink {
                        name: plain_name(name.decode()?)?,
                        to: link_text(to.decode()?)?,
                    }),
                    (OperationText::CreateDirectory, None, None) if before.is_none() => {
                        Action::CreateDirectory(directory::decode(self.directory)?)
                    }
                    (OperationText::RemoveDirectory, None, None) if before.is_none() => {
                        Action::RemoveDirectory
                    }
                    (OperationText::MoveTree, None, None) => TreeText::moved(tree, before.is_some())?,
                    (OperationText::RemoveTree, None, None) if before.is_none() => {
                        Action::RemoveTree(TreeText::removed(tree)?)
                    }
                    _ => return Err(content("an entry's fields do not fit its operation")),
                }
            }
            (OperationText::Write, Some(name), Some(length), Some(modified), Some(mode), Some(text))
                if self.to.is_none() =>
            {
                Action::Write(StagedContent {
                    name: plain_name(name.decode()?)?,
                    after: Stamp { length, modified },
                    mode,
                    owner: self.owner,
                    checksum: hash(&text)?,
                })
            }
            _ => return Err(content("an entry's fields do not fit its operation")),
        };
        let before = self.before.map(BeforeText::decode).transpose()?;
        Ok(Entry { path, before, action, over })
    }
}

fn link_text(to: OsString) -> Result<PathBuf, ManifestError> {
    match StagedLink::can_lead(Path::new(&to)) {
        true => Ok(to.into()),
        false => Err(content("no symlink can lead there")),
    }
}

/// All entries of a manifest are checked before the first file is moved. So no entry may change a file
/// that another entry checks.
fn each_file_once(entries: &[Entry]) -> Result<(), ManifestError> {
    let mut seen = HashSet::new();
    for entry in entries {
        for path in entry.paths().cloned().chain(entry.staged()).chain(entry.hidden()) {
            if let Some(twice) = seen.replace(path) {
                return Err(content(format!("it names `{twice}` twice")));
            }
        }
    }
    let directories: HashMap<_, _> = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.action.is_of_directory() && entry.over.is_none())
        .map(|(place, entry)| (&entry.path, (place, &entry.action)))
        .collect();
    let named = |(place, entry)| Entry::paths(entry).map(move |path| (place, entry, path));
    for (place, entry, path) in entries.iter().enumerate().flat_map(named) {
        let mut above = path.parent();
        while !above.is_root() {
            let fits = match directories.get(&above) {
                None => !seen.contains(&above),
                Some((made, Action::CreateDirectory(_))) => !entry.action.is_new_directory() || *made < place,
                // What is in a directory goes before it does.
                Some((removed, _)) => {
                    matches!(entry.action, Action::Remove | Action::RemoveDirectory) && *removed > place
                }
            };
            if !fits {
                return Err(content(format!("it names `{path}` below what is no directory then")));
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
    wave: Option<Generation>,
    #[serde(default)]
    mounts: Vec<Name>,
    entries: Vec<EntryText>,
}

impl Manifest {
    /// The manifest as it is written to disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let wave = self.inline.as_ref().map(|inline| inline.wave);
        let (head, entries) = ((self.transaction, self.time, wave), self.entries.iter());
        let mut bytes = Self::encode_entries(head, &self.mounts, entries);
        bytes.extend(self.inline.iter().flat_map(|inline| &inline.bytes));
        bytes
    }

    /// Like `encode`, for entries that are stored elsewhere, and without the bytes of the files.
    pub(crate) fn encode_entries<'a>(
        (transaction, time, wave): (TransactionId, TimeStamp, Option<Generation>),
        mounts: &BTreeSet<RelativePath>,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Vec<u8> {
        let mut needed = VERSION;
        let mut body = format!("{{\"transaction\":\"{transaction}\",\"time\":{},", time.nanoseconds());
        // Names, strings and numbers always have a JSON form, so the empty default is never used. If it
        // were, decoding would refuse the manifest before it is published.
        if let Some(wave) = wave {
            body.push_str(&format!("\"wave\":{wave},"));
        }
        body.push_str(&name::field("mounts", mounts));
        body.push_str("\"entries\":[");
        for (index, entry) in entries.enumerate() {
            needed = needed.max(version(entry));
            body.push_str(if index == 0 { "\n" } else { ",\n" });
            body.push_str(&serde_json::to_string(&EntryText::new(entry)).unwrap_or_default());
        }
        body.push_str("\n]}\n");
        match wave {
            Some(_) => seal_inline(&body),
            None => seal_as(FORMAT, needed, &body),
        }
    }

    /// Reads a manifest, and verifies its checksum.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong. No bytes make this panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (header, body) = split(bytes)?;
        match header[..] {
            [FORMAT, VERSION_INLINE, hash, length] => Self::decode_inline(hash, length, body),
            [FORMAT, version @ (VERSION_DIRECTORIES | VERSION_LINKS), hash] => {
                Self::parse(verified(hash, body)?)?.without_contents(version)
            }
            _ => Self::parse(unseal(FORMAT, bytes)?)?.without_contents(VERSION),
        }
    }

    /// Checks a manifest that has no contents behind its text. It says what its version can say, and no
    /// earlier one could.
    fn without_contents(self, version: &str) -> Result<Self, ManifestError> {
        if self.inline.is_some() {
            return Err(content("it has a wave, but no contents"));
        }
        if self.needed_version() != version {
            return Err(content("its version does not fit its operations"));
        }
        Ok(self)
    }

    fn needed_version(&self) -> &'static str {
        self.entries.iter().map(version).max().unwrap_or(VERSION)
    }

    /// Like `decode`, but accepts a wrong checksum. Only for tests that look at the consequences.
    pub(crate) fn decode_unverified(bytes: &[u8]) -> Result<Self, ManifestError> {
        let body = bytes.splitn(2, |b| *b == b'\n').nth(1).ok_or(ManifestError::Header)?;
        let text = String::from_utf8_lossy(body);
        let text = text.find("\n]}\n").map_or(&*text, |end| &text[..end + 4]);
        Self::parse(text)
    }

    fn decode_inline(hash: &str, length: &str, body: &[u8]) -> Result<Self, ManifestError> {
        let length = parse_number(length).and_then(|length| usize::try_from(length).ok());
        let parts = body.split_at_checked(length.ok_or(ManifestError::Header)?);
        let (text, contents) = parts.ok_or(ManifestError::Checksum)?;
        let mut manifest = Self::parse(verified(hash, text)?)?;
        if manifest.needed_version() != VERSION {
            return Err(content("its version does not fit its operations"));
        }
        let inline = manifest.inline.as_mut().ok_or_else(|| content("it has no wave"))?;
        inline.bytes = contents.to_vec();
        let mut found: usize = 0;
        for (entry, bytes) in manifest.contents() {
            let Action::Write(content) = &entry.action else { continue };
            let bytes = bytes.ok_or(ManifestError::Checksum)?;
            if Checksum::of(bytes) != content.checksum {
                return Err(ManifestError::Checksum);
            }
            found += bytes.len();
        }
        if found == contents.len() { Ok(manifest) } else { Err(ManifestError::Checksum) }
    }

    fn parse(body: &str) -> Result<Self, ManifestError> {
        let text: ManifestText = serde_json::from_str(body).map_err(|error| content(error.to_string()))?;
        let transaction = TransactionId::parse(&text.transaction)
            .ok_or_else(|| content("it has no valid transaction id"))?;
        let entries = text.entries.into_iter().map(EntryText::decode).collect::<Result<Vec<_>, _>>()?;
        each_file_once(&entries)?;
        let inline = text.wave.map(|wave| Inline { wave, bytes: Vec::new() });
        let mounts = text.mounts.into_iter().map(Name::path).collect::<Result<_, _>>()?;
        Ok(Self { transaction, time: text.time, mounts, entries, inline })
    }
}

/// Puts the first line of a small save's manifest before `body`.
fn seal_inline(body: &str) -> Vec<u8> {
    let hash = blake3::hash(body.as_bytes()).to_hex();
    format!("{FORMAT} {VERSION_INLINE} {hash} {}\n{body}", body.len()).into_bytes()
}

/// Puts a first line before `body`: the format, and a checksum that proves that `body` is whole.
pub(crate) fn seal(format: &str, body: &str) -> Vec<u8> {
    seal_as(format, VERSION, body)
}

fn seal_as(format: &str, version: &str, body: &str) -> Vec<u8> {
    let hash = blake3::hash(body.as_bytes()).to_hex();
    format!("{format} {version} {hash}\n{body}").into_bytes()
}

/// Checks the first line and returns the rest.
pub(crate) fn unseal<'a>(format: &str, bytes: &'a [u8]) -> Result<&'a str, ManifestError> {
    let (header, body) = split(bytes)?;
    match header[..] {
        [name, VERSION, hash] if name == format => verified(hash, body),
        [name, version, ..] if name == format && !VERSIONS.contains(&version) => {
            Err(ManifestError::Version(version.chars().take(20).collect()))
        }
        _ => Err(ManifestError::Header),
    }
}

/// The words of the first line, and what follows it.
fn split(bytes: &[u8]) -> Result<(Vec<&str>, &[u8]), ManifestError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(ManifestError::Header)?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| ManifestError::Header)?;
    Ok((header.split(' ').collect(), &bytes[end + 1..]))
}

/// The text, if it has this checksum.
fn verified<'a>(hash: &str, text: &'a [u8]) -> Result<&'a str, ManifestError> {
    if *hash != *blake3::hash(text).to_hex() {
        return Err(ManifestError::Checksum);
    }
    std::str::from_utf8(text).map_err(|_| content("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::RelativePath;
    use std::time::SystemTime;
    use uuid::Uuid;

    fn manifest() -> Manifest {
        let stamp = Stamp {
            length: 3,
            modified: TimeStamp::from(SystemTime::UNIX_EPOCH - std::time::Duration::from_nanos(5)),
        };
        let path = |text| RelativePath::new(text).expect("valid");
        let old = Before { stamp, checksum: None, is_link: false };
        let young = Before { stamp, checksum: Some(Checksum::of(b"c")), is_link: false };
        let content = StagedContent {
            name: ".a.x.cosave".into(),
            after: stamp,
            mode: 0o640,
            owner: Some((1, 2)),
            checksum: Checksum::of(b"abc"),
        };
        Manifest {
            transaction: TransactionId { session: Uuid::from_u128(1), number: 2 },
            time: TimeStamp::from(SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(9)),
            mounts: [path("dir")].into(),
            entries: vec![
                Entry { path: path("dir/a"), before: None, action: Action::Write(content), over: None },
                Entry { path: path("b 'quoted'"), before: Some(old), action: Action::Remove, over: None },
                Entry { path: path("c"), before: Some(young), action: Action::Remove, over: None },
            ],
            inline: None,
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_manifest_survives_the_round_trip_with_any_name() {
        use std::ffi::OsStr;
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
        let later = text.replacen("cosave-manifest 1 ", "cosave-manifest 5 ", 1);
        assert_eq!(Manifest::decode(later.as_bytes()), Err(ManifestError::Version("5".to_owned())));
    }

    const MADE: Action = Action::CreateDirectory(NewDirectory { mode: None, group: None });

    fn directories(entries: &[(&str, Action)]) -> Manifest {
        let path = |text: &str| RelativePath::new(text).expect("valid");
        let entry = |(text, action): &(&str, Action)| Entry {
            path: path(text),
            before: None,
            action: action.clone(),
            over: None,
        };
        Manifest { entries: entries.iter().map(entry).collect(), ..manifest() }
    }

    #[test]
    fn directories_are_of_a_version_of_their_own_and_of_no_other() {
        use Action::RemoveDirectory;
        let written = directories(&[("new", MADE), ("new/x", MADE), ("b", RemoveDirectory)]);
        let text = String::from_utf8(written.encode()).expect("text");
        assert!(text.starts_with("cosave-manifest 3 "), "{text}");
        assert_eq!(Manifest::decode(text.as_bytes()), Ok(written));
        let earlier = text.replacen("cosave-manifest 3 ", "cosave-manifest 1 ", 1);
        assert!(matches!(Manifest::decode(earlier.as_bytes()), Err(ManifestError::Content(_))));
        let plain = String::from_utf8(manifest().encode()).expect("text");
        let later = plain.replacen("cosave-manifest 1 ", "cosave-manifest 3 ", 1);
        assert!(matches!(Manifest::decode(later.as_bytes()), Err(ManifestError::Content(_))));
    }

    #[test]
    fn symlinks_are_of_a_version_of_their_own_and_lead_anywhere() {
        let link = |to: &str| Action::Link(StagedLink { name: ".l.x.cosave".into(), to: to.into() });
        let text = |manifest: &Manifest| String::from_utf8(manifest.encode()).expect("text");
        for to in ["a", "../../outside", "/absolute", "a//b/."] {
            let written = directories(&[("d", MADE), ("d/l", link(to))]);
            assert!(text(&written).starts_with("cosave-manifest 4 "));
            assert_eq!(Manifest::decode(&written.encode()), Ok(written));
        }
        let mut replacing = manifest();
        let checksum = Some(StagedLink::checksum(Path::new("a")));
        replacing.entries[1].before =
            Some(Before { checksum, is_link: true, ..replacing.entries[1].before.expect("old") });
        assert!(text(&replacing).starts_with("cosave-manifest 4 "));
        assert_eq!(Manifest::decode(&replacing.encode()), Ok(replacing.clone()));
        for wrong in [
            text(&replacing).replacen("cosave-manifest 4 ", "cosave-manifest 3 ", 1),
            text(&directories(&[("l", link(""))])),
            text(&directories(&[("l", link(&"x".repeat(4096)))])),
        ] {
            assert!(matches!(Manifest::decode(wrong.as_bytes()), Err(ManifestError::Content(_))), "{wrong}");
        }
        replacing.entries[1].before.as_mut().expect("a link").checksum = None;
        assert!(Manifest::decode(&replacing.encode()).is_err(), "a symlink that nothing identifies");
    }

    #[test]
    fn what_is_in_a_directory_is_removed_before_it_and_made_after_it() {
        use Action::{Remove, RemoveDirectory};
        let fits = |entries: &[(&str, Action)]| Manifest::decode(&directories(entries).encode()).is_ok();
        assert!(fits(&[("d/a", Remove), ("d", RemoveDirectory)]));
        assert!(!fits(&[("d", RemoveDirectory), ("d/a", Remove)]));
        assert!(!fits(&[("d/a", MADE), ("d", RemoveDirectory)]));
        assert!(fits(&[("d", MADE), ("d/a", MADE)]));
        assert!(!fits(&[("d/a", MADE), ("d", MADE)]));
        assert!(!fits(&[("d", Remove), ("d/a", MADE)]));
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
