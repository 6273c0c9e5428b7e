//! What must hold for any bytes: the checks that the fuzzer and
//! `tests/corpus.rs` share.
//!
//! Each check takes bytes, gives them to the library as hostile input, and
//! panics if a promise is broken. It uses the public API only. It works out the
//! right answer itself instead of asking the library: the checksum, the normal
//! form of a path, and which files belong to others (`small`, `chain`). Knows
//! nothing of fuzzers, of the corpus, or of how bytes are chosen.

mod chain;
mod small;
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Component, Path};

use cosave::fs::sim::{Model, SimDisk};
use cosave::fs::{FileSystem, Kind, LockKind, NewFile};
use cosave::{Action, Error, Generation, InvalidPath, Manifest, RelativePath, Store, StoreOptions};

use chain::{End, Published, each_path_once, is_expected, staged, torn_beyond};

const NAME_BYTES_MAX: usize = 255;

/// Checks the manifest's decoder with the bytes as they are, and as the body of manifests with a right
/// checksum. Then the same without their own first line. A body is the text of format 1, or text and
/// contents of format 2.
pub fn manifest(bytes: &[u8]) {
    decode(bytes);
    let end = bytes.iter().position(|byte| *byte == b'\n');
    for body in [Some(bytes), end.map(|end| &bytes[end + 1..])].into_iter().flatten() {
        decode(&sealed("cosave-manifest", body));
        decode(&sealed_as("cosave-manifest", 3, body));
        decode(&sealed_as("cosave-manifest", 4, body));
        small::with_any_length(body).iter().for_each(|bytes| decode(bytes));
        small::fitted(body).iter().for_each(|bytes| decode(bytes));
    }
}

/// Puts the first line with the right checksum before `body`.
fn sealed(format: &str, body: &[u8]) -> Vec<u8> {
    sealed_as(format, 1, body)
}

fn sealed_as(format: &str, version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{format} {version} {}\n", blake3::hash(body).to_hex()).into_bytes();
    bytes.extend(body);
    bytes
}

/// Whether the first line of `bytes` matches the rest, and the entries match the contents.
fn is_whole(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let is_text = end.is_some_and(|end| {
        let body = &bytes[end + 1..];
        [1, 3, 4].iter().any(|version| sealed_as("cosave-manifest", *version, body) == bytes)
    });
    is_text || small::is_whole(bytes)
}

fn decode(bytes: &[u8]) {
    let manifest = match Manifest::decode(bytes) {
        Ok(manifest) => manifest,
        Err(error) => return assert!(!error.to_string().is_empty(), "an error says what is wrong"),
    };
    assert!(is_whole(bytes), "bytes with a wrong checksum were accepted: {manifest:?}");
    let mut seen = BTreeSet::new();
    for entry in &manifest.entries {
        stays_inside(&entry.path);
        assert!(seen.insert(&entry.path), "{:?} is named twice", entry.path);
        for name in trees::names(entry).map(|name| name.as_encoded_bytes()) {
            assert!(!name.is_empty() && !name.contains(&0) && !name.contains(&b'/'), "{entry:?}");
            assert!(name != b"." && name != b"..", "{entry:?}");
            assert!(name.len() <= NAME_BYTES_MAX, "{entry:?}");
        }
        if let Action::MoveTree(moved) = &entry.action {
            stays_inside(&moved.from);
            assert!(seen.insert(&moved.from), "{:?} is named twice", moved.from);
        }
    }
    let printed = manifest.to_string();
    for entry in &manifest.entries {
        assert!(printed.contains(&entry.path.to_string()), "{:?} is not printed: {printed}", entry.path);
    }
    let lengths = manifest.entries.iter().map(|entry| match &entry.action {
        Action::Write(content) => content.after.length,
        _ => 0,
    });
    if let Some(inline) = &manifest.inline {
        assert_eq!(inline.bytes.len() as u64, lengths.sum::<u64>(), "other bytes than the entries say");
    }
    let again = manifest.encode();
    assert_eq!(Manifest::decode(&again).as_ref(), Ok(&manifest), "what is written is read back");
    assert!(is_whole(&again), "what is written has a wrong checksum");
    let sum = usize::from(bytes.iter().fold(0_u16, |sum, byte| sum.wrapping_add((*byte).into())));
    let held = manifest.inline.as_ref().map_or(0, |inline| inline.bytes.len());
    let mut places = vec![sum % again.len()];
    places.extend((held > 0).then(|| again.len() - 1 - sum % held));
    for place in places {
        let mut changed = again.clone();
        changed[place] ^= 1 << (place % 8);
        assert!(Manifest::decode(&changed).is_err(), "byte {place} was changed, and decoding did not notice");
        assert!(Manifest::decode(&again[..place]).is_err(), "cut at {place}, and decoding did not notice");
    }
    let longer = [&again[..], b"x"].concat();
    assert!(Manifest::decode(&longer).is_err(), "a byte was added, and decoding did not notice");
}

/// Joined to a root, the path stays below the root, and each of its names can be a file's.
fn stays_inside(path: &RelativePath) {
    assert!(!path.is_root() && !path.as_path().as_os_str().is_empty(), "an empty path was accepted");
    assert!(!path.as_path().has_root(), "{path:?} is absolute");
    for component in path.as_path().components() {
        let Component::Normal(name) = component else { panic!("{path:?} has {component:?} in it") };
        assert!(name.len() <= NAME_BYTES_MAX, "{path:?} has a name of {} bytes", name.len());
    }
    assert!(!path.as_path().as_os_str().as_encoded_bytes().contains(&0), "{path:?} has a NUL byte");
    let root = Path::new("root");
    let joined = root.join(path.as_path());
    assert!(joined.starts_with(root) && joined != root, "{joined:?} is not below the root");
}

/// Up to this many bytes a path is never too long. With the second number it always is.
const PATH_BYTES_FINE: usize = 3000;
const PATH_BYTES_TOO_MANY: usize = 4096;

/// `RelativePath::new` and `RelativePath::join`.
pub fn path(bytes: &[u8]) {
    let Some(given) = os_string(bytes) else { return };
    let accepted = RelativePath::new(&given);
    match &accepted {
        Ok(path) => {
            stays_inside(path);
            assert_eq!(RelativePath::new(path.as_path()).as_ref(), Ok(path), "the normal spelling is normal");
            assert!(path.as_path().starts_with(path.parent().as_path()), "{path:?}");
            assert_eq!(path.parent().join(path.name()).as_ref(), Ok(path), "taken apart and put together");
            assert!(path.as_path().as_os_str().len() < PATH_BYTES_TOO_MANY, "{} bytes", given.len());
        }
        Err(error) => assert!(!error.to_string().is_empty(), "an error says what is wrong"),
    }
    if cfg!(unix) {
        is_as_on_unix(bytes, &accepted);
    }
    let directory = RelativePath::new("some/directory").expect("a valid path");
    if let Ok(joined) = directory.join(&given) {
        stays_inside(&joined);
        assert_eq!(joined.parent(), directory, "{given:?} is not one plain name");
        assert_eq!(joined.name(), given, "{given:?} became another name");
    }
}

/// Checks the answer for a path of bytes separated by slashes, as on Unix.
fn is_as_on_unix(given: &[u8], accepted: &Result<RelativePath, InvalidPath>) {
    let names: Vec<&[u8]> =
        given.split(|byte| *byte == b'/').filter(|name| !matches!(name, [] | [b'.'])).collect();
    let normal = names.join(&b'/');
    let too_long = names.iter().any(|name| name.len() > NAME_BYTES_MAX);
    match accepted {
        Ok(path) => {
            assert_eq!(path.as_path().as_os_str().as_encoded_bytes(), normal, "another path");
            assert!(!too_long && given.first() != Some(&b'/'), "{path:?}");
            assert!(!names.contains(&&b".."[..]), "{path:?}");
        }
        Err(InvalidPath::Nul) => assert!(given.contains(&0)),
        Err(InvalidPath::Absolute) => assert_eq!(given.first(), Some(&b'/')),
        Err(InvalidPath::Empty) => assert!(normal.is_empty()),
        Err(InvalidPath::Parent) => assert!(names.contains(&&b".."[..])),
        Err(InvalidPath::TooLong) => assert!(too_long || normal.len() > PATH_BYTES_FINE),
        Err(other) => panic!("{given:?} is refused for {other:?}"),
    }
}

#[cfg(unix)]
fn os_string(bytes: &[u8]) -> Option<OsString> {
    Some(std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec()))
}

/// Here paths are text, so bytes that are not text are no path.
#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> Option<OsString> {
    std::str::from_utf8(bytes).ok().map(OsString::from)
}

/// Opens a root on a disk that the bytes describe (see [`Scene`]): read-only, then for writing, then
/// again.
pub fn recovery(bytes: &[u8]) {
    let scene = Scene::new(bytes);
    if scene.has_trees {
        return trees::recovery(&scene);
    }
    only_looking_changes_nothing(&scene);
    let disk = scene.disk.copy();
    let _living = scene.living(&disk);
    let calls = disk.calls();
    let opened = options().open_on(disk.process());
    let spent = disk.calls() - calls;
    assert!(spent <= scene.calls_max(), "{spent} calls, {} allowed", scene.calls_max());
    let (chain, beyond) = scene.published();
    let end = scene.end(&chain);
    let finished = end.map_or(&chain[..], |end| end.of(&chain));
    let torn = match end {
        Some(_) => scene.torn_files(finished),
        None => scene.files_that_may_be_torn(finished),
    };
    scene.nothing_foreign_is_gone(&disk, finished, &torn);
    scene.no_manifest_is_gone(&disk, opened.as_ref().err());
    if end.is_some() {
        scene.nothing_else_appears(&disk, finished, opened.is_ok());
    }
    scene.new_directories_are_as_closed_as_said(&disk, &chain);
    match opened {
        Ok(store) => {
            let discarded = chain[finished.len()..].iter().map(|other| other.generation).chain(beyond);
            if end.is_some() {
                scene.is_finished(&disk, finished);
                let reported = store.last_recovery().discarded;
                assert!(reported.iter().map(|other| other.get()).eq(discarded), "reported: {reported:?}");
            }
            clean_for_good(&scene, &disk, store);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "an error says what is wrong");
            assert!(
                matches!(error, Error::Corrupt { .. } | Error::NotApplied { .. } | Error::Io { .. }),
                "not an answer to a damaged root: {error:?}"
            );
            let missing = matches!(&error, Error::NotApplied { source, .. } | Error::Io { source, .. }
                if source.kind() == std::io::ErrorKind::NotFound);
            let may_be = finished.iter().any(|published| scene.misses_a_directory(published));
            assert!(!missing || may_be, "what is missing keeps the root from opening: {error:?}");
            let is_of_manifest = matches!(&error, Error::Corrupt { path, .. }
                if path.extension().is_some_and(|kind| kind.to_string_lossy().starts_with("pending")));
            let is_damaged = matches!(end, Some(End::Damaged(_)) | None);
            assert!(is_damaged || !is_of_manifest, "no manifest is damaged, but one is refused: {error:?}");
            can_be_given_up(&scene, &disk);
        }
    }
}

fn options() -> StoreOptions {
    Store::options()
}

/// A disk described by lines, made durable.
///
/// A line is a letter and fields separated by `|`. In a field, `%7` is the name of session 7, and `\n`
/// is a line break.
///
/// ```text
/// F path|content              a file                       D path|mode  a directory
/// L path|to                   a symlink                    A 7       session 7 is alive
/// S path|body                 a file with the body of a manifest, well sealed
/// I path|text|contents        the same of a small save; its entries are made to fit the contents
/// R path|body                 a file with the body of a session's record, well sealed
/// M generation|session|flags  a published manifest, of what the lines after it say
/// w path|content|flags        it writes, and the staged file is there
/// r path|flags                it removes
/// c path|mode                 it makes a directory, with this mode if one is given
/// x path                      it removes a directory
/// l path|to|flags             it makes a symlink, and the staged one is there
/// m from|path|flags           it moves the directory that is at `from`
/// t path|flags                it removes the directory that is there, with everything in it
/// ```
///
/// Flags of `M`:
///
/// - `a`: it is applied
/// - `c`: its checksum is wrong
/// - `v`: it has a later version
/// - `i`: it is that of a small save, and has the contents of its `w` lines
/// - `f2`: its wave began with generation 2; without it, with its own
/// - `t90`: a power loss has cut it after 90 bytes, or before its last one
/// - `z90`: the same, with zeros instead of what was cut off
///
/// Flags of `w` and `r`:
///
/// - `b`: the file at the path is what the manifest expects there
/// - `k`: the same, known by its checksum
/// - `m`: the staged file was moved
/// - `g`: the staged file is gone
/// - `d`: the medium has damaged the staged file
/// - `e`: another program has written to the staged file
/// - `t`: a power loss has cut the staged file
/// - `h`: the target is a hard link to the staged file
/// - `s`: the staged file has the name of the one before
/// - `o`: of `w`, `l` and `m`: it takes the place of the directory or file that is at the path
///
/// Flags of `l`, `m` and `t`: `m`, if it is done; `n`, if another directory is meant than the one there.
struct Scene {
    disk: SimDisk,
    alive: BTreeSet<String>,
    /// The manifest whose entries are being collected.
    open: Option<Open>,
    lines: usize,
    has_links: bool,
    /// Whether a manifest has symlinks or trees. Then less is known of what must become of the files.
    has_trees: bool,
}

struct Open {
    path: String,
    transaction: String,
    flags: String,
    entries: Vec<serde_json::Value>,
    contents: Vec<u8>,
    last: String,
}

/// How many lines, and bytes of a line, are used: a scene is small.
const LINES_MAX: usize = 48;
const LINE_BYTES_MAX: usize = 2048;

impl Scene {
    fn new(bytes: &[u8]) -> Self {
        let disk = SimDisk::new(Model::WeakPosix);
        let mut scene =
            Self { disk, alive: BTreeSet::new(), open: None, lines: 0, has_links: false, has_trees: false };
        scene.disk.make_directory(".cosave/sessions", 0);
        scene.disk.make_directory("foreign", 0);
        for (path, content) in [("foreign/file", "of somebody"), ("foreign.txt", "of somebody else")] {
            scene.disk.put(path, content.as_bytes(), 0o644);
        }
        for line in bytes.split(|byte| *byte == b'\n').take(LINES_MAX) {
            scene.line(&String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]));
            scene.lines += 1;
        }
        scene.publish();
        // A directory is not the file of any session.
        let is_directory = |id: &String| {
            let path = RelativePath::new(format!(".cosave/sessions/{id}")).expect("a valid path");
            scene.disk.process().metadata(&path).is_ok_and(|found| found.kind == Kind::Directory)
        };
        scene.alive = scene.alive.iter().filter(|id| !is_directory(id)).cloned().collect();
        scene.disk.settle();
        scene
    }

    fn line(&mut self, line: &str) {
        let Some((kind, rest)) = line.split_once(' ') else { return };
        let fields: Vec<String> = rest.split('|').map(expanded).collect();
        let field = |number: usize| fields.get(number).map_or("", String::as_str);
        let (path, content) = (field(0), field(1));
        match kind {
            "F" => self.put(path, content.as_bytes()),
            "D" => {
                self.disk.make_directory(path, 0);
                if let Ok(mode) = u32::from_str_radix(content, 8) {
                    self.disk.set_mode(path, mode);
                }
            }
            "L" => {
                self.disk.symlink(path, content);
                self.has_links = true;
            }
            "A" => _ = self.alive.insert(session(path)),
            "S" => self.put(path, &sealed("cosave-manifest", content.as_bytes())),
            "I" => {
                let body = [content.as_bytes(), field(2).as_bytes()].concat();
                self.put(path, &small::fitted(&body).unwrap_or(body));
            }
            "R" => self.put(path, &sealed("cosave-session", content.as_bytes())),
            "M" => {
                self.publish();
                let kind = match field(2) {
                    flags if flags.contains('a') => "applied",
                    flags if flags.contains('i') => "pending-inline",
                    _ => "pending",
                };
                self.open = Some(Open {
                    path: format!(".cosave/{path}.{kind}"),
                    transaction: format!("{}-{}", session(content), 1),
                    flags: field(2).to_owned(),
                    entries: Vec::new(),
                    contents: Vec::new(),
                    last: String::new(),
                });
            }
            "w" => self.write(path, content, field(2)),
            "c" | "x" => {
                let operation = if kind == "c" { "create-directory" } else { "remove-directory" };
                let mut entry = serde_json::json!({"path": path, "operation": operation, "before": null});
                if let Ok(mode) = u32::from_str_radix(content, 8) {
                    entry["directory"] = serde_json::json!({"mode": mode});
                }
                self.open.iter_mut().for_each(|open| open.entries.push(entry.clone()));
            }
            "l" | "m" | "t" => self.tree(kind, path, content, field(2)),
            "r" => {
                let before = self.before(path, content);
                let entry = serde_json::json!({"path": path, "operation": "remove", "before": before});
                self.open.iter_mut().for_each(|open| open.entries.push(entry.clone()));
            }
            _ => {}
        }
    }

    /// Makes a file and its directories. Never replaces anything but a file.
    fn put(&self, path: &str, content: &[u8]) {
        let Ok(valid) = RelativePath::new(path) else { return };
        if !valid.parent().is_root() {
            self.disk.make_directory(&valid.parent().as_path().to_string_lossy(), 0);
        }
        self.disk.put(path, content, 0o644);
    }

    fn stamp(&self, path: &str) -> Option<serde_json::Value> {
        let found = self.disk.process().metadata(&RelativePath::new(path).ok()?).ok()?;
        let modified = cosave::TimeStamp::from(found.modified).nanoseconds();
        Some(serde_json::json!({"length": found.length, "modified": modified}))
    }

    fn before(&self, path: &str, flags: &str) -> Option<serde_json::Value> {
        let mut before = self.stamp(path).filter(|_| flags.contains(['b', 'k']))?;
        if let Some(bytes) = self.disk.files().get(path).filter(|_| flags.contains('k')) {
            before["blake3"] = blake3::hash(bytes).to_hex().to_string().into();
            // The time is no matter then.
            before["modified"] = 0.into();
        }
        Some(before)
    }

    /// An entry that writes, and its staged file in the state that the flags describe.
    fn write(&mut self, path: &str, content: &str, flags: &str) {
        let before = self.before(path, flags);
        let Some(open) = &self.open else { return };
        let (directory, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let fresh = format!(".{}.{}-{}.cosave", name, open.transaction, open.entries.len() + 1);
        let name = if flags.contains('s') && !open.last.is_empty() { open.last.clone() } else { fresh };
        let staged = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
        self.put(&staged, content.as_bytes());
        let after = self.stamp(&staged).unwrap_or_else(|| serde_json::json!({"length": 0, "modified": 0}));
        let process = self.disk.process();
        if let (Ok(from), Ok(to)) = (RelativePath::new(&staged), RelativePath::new(path)) {
            // Whatever is impossible here still leaves a valid scene.
            let _debt = match flags.bytes().find(|flag| b"mgdeht".contains(flag)) {
                Some(b'm') => process.rename(&from, &to).ok(),
                Some(b'g') => process.remove_file(&from).ok(),
                Some(b'h') => process.link(&from, &to).ok(),
                other => {
                    match other {
                        Some(b'd') => self.disk.damage(&staged),
                        Some(b't') => {
                            let half = &content.as_bytes()[..content.len() / 2];
                            self.disk.put_keeping_time(&staged, half, 0o644);
                        }
                        Some(b'e') => self.disk.put(&staged, b"of somebody who wrote here", 0o644),
                        _ => {}
                    }
                    None
                }
            }
            .map(|debt| debt.waive("the test needs no sync"));
        }
        let entry = serde_json::json!({
            "path": path, "operation": "write", "staged": name, "length": after["length"],
            "modified": after["modified"], "mode": 0o644, "before": before, "tree": self.over(path, flags),
            "blake3": blake3::hash(content.as_bytes()).to_hex().to_string(),
        });
        self.open.iter_mut().for_each(|open| {
            open.entries.push(entry.clone());
            open.contents.extend(content.as_bytes());
            open.last.clone_from(&name);
        });
    }

    /// Puts the collected manifest into the control directory.
    fn publish(&mut self) {
        let Some(open) = self.open.take() else { return };
        let mut body =
            serde_json::json!({"transaction": open.transaction, "time": 0, "entries": open.entries});
        let flags = &open.flags;
        let mut bytes = if flags.contains('i') {
            let generation = open.path.split(['/', '.']).find_map(|part| part.parse::<u64>().ok());
            body["wave"] = number_after(flags, 'f').or(generation).unwrap_or(1).into();
            let text = body.to_string();
            let whole = [text.as_bytes(), &open.contents].concat();
            small::sealed(&whole, text.len(), &text.len().to_string())
        } else {
            let is_of_tree = |entry: &serde_json::Value| {
                entry["operation"] == "link"
                    || entry.get("tree").is_some_and(|tree| !tree.is_null())
                    || entry.get("directory").is_some()
            };
            let is_of_directory = |entry: &serde_json::Value| {
                entry["operation"].as_str().is_some_and(|operation| operation.ends_with("directory"))
            };
            let version = match &open.entries {
                entries if entries.iter().any(is_of_tree) => 4,
                entries if entries.iter().any(is_of_directory) => 3,
                _ => 1,
            };
            sealed_as("cosave-manifest", version, body.to_string().as_bytes())
        };
        let seal = "cosave-manifest 1 ".len();
        if flags.contains('c') {
            bytes[seal] = if bytes[seal] == b'0' { b'1' } else { b'0' };
        }
        if flags.contains('v') {
            bytes[seal - 2] = b'9';
        }
        let place = |letter| {
            let number = number_after(flags, letter)?;
            Some(usize::try_from(number).unwrap_or(usize::MAX).min(bytes.len() - 1))
        };
        match (place('t'), place('z')) {
            (Some(place), _) => bytes.truncate(place),
            (None, Some(place)) => bytes[place..].fill(0),
            (None, None) => {}
        }
        self.put(&open.path, &bytes);
    }
}

/// The number that follows a letter in flags.
fn number_after(flags: &str, letter: char) -> Option<u64> {
    let (_, rest) = flags.split_once(letter)?;
    let end = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// A field with its escapes replaced.
fn expanded(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field.chars().peekable();
    while let Some(next) = rest.next() {
        match (next, rest.peek()) {
            ('%', Some(digit)) if digit.is_ascii_digit() => text += &session(&digit.to_string()),
            ('\\', Some('n')) => text.push('\n'),
            _ => {
                text.push(next);
                continue;
            }
        }
        rest.next();
    }
    text
}

/// The name of a session.
fn session(number: &str) -> String {
    format!("{:032x}", number.parse::<u16>().unwrap_or_default())
}

/// Every file of a disk with its bytes, including those of the control directory.
type Files = BTreeMap<String, Vec<u8>>;

fn files(disk: &SimDisk) -> Files {
    let mut found = Files::new();
    // A copy of the disk, so that no calls are counted and no locks are in the way.
    collect(&*disk.copy().process(), &RelativePath::root(), &mut found);
    found
}

fn collect(fs: &dyn FileSystem, directory: &RelativePath, found: &mut Files) {
    for entry in fs.list(directory).expect("a directory that is there") {
        let path = directory.join(&entry.name).expect("a name that is there");
        match entry.kind {
            Kind::Directory => collect(fs, &path, found),
            Kind::File => {
                let mut bytes = Vec::new();
                fs.open(&path).expect("it is there").read_to_end(&mut bytes).expect("it can be read");
                found.insert(path.to_string(), bytes);
            }
            _ => {}
        }
    }
}

/// What every writer makes in the control directory if it is missing.
const MADE_BY_ANY_WRITER: [&str; 3] = [".cosave/lock", ".cosave/queue", ".cosave/.gitignore"];

/// Every file except those that any writer makes.
fn lasting(disk: &SimDisk) -> Files {
    let mut files = files(disk);
    files.retain(|path, _| !MADE_BY_ANY_WRITER.contains(&path.as_str()));
    files
}

/// Whether a name has the form of those that cosave makes beside targets, which it may remove.
fn is_temporary(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with('.') && name.to_ascii_lowercase().ends_with(".cosave"))
}

impl Scene {
    /// Makes and locks the files of the sessions that should be alive.
    fn living(&self, disk: &SimDisk) -> Vec<impl Drop + use<>> {
        let process = disk.process();
        let lock = |id: &String| {
            let path = RelativePath::new(format!(".cosave/sessions/{id}")).ok()?;
            if let Ok((_, name)) = process.create_new(&path, NewFile::Ordinary) {
                name.waive("the test needs no sync");
            }
            process.try_lock(&path, LockKind::Exclusive).ok()?.map(Held)
        };
        self.alive.iter().filter_map(lock).collect()
    }

    /// A bound that grows with the size of the scene and nothing else.
    fn calls_max(&self) -> u64 {
        1000 + 2000 * self.lines as u64
    }

    /// No file that belongs to others is changed. Of the files that a manifest names, only those that
    /// it expected may lose their bytes, and staged files that a power loss has torn.
    fn nothing_foreign_is_gone(&self, disk: &SimDisk, finished: &[Published], torn: &BTreeSet<String>) {
        let (before, after) = (files(&self.disk), files(disk));
        let entries: Vec<_> = finished.iter().flat_map(Published::entries).collect();
        let staged = |entry: &cosave::Entry| staged(entry).map(|path| path.to_string());
        let named: BTreeSet<String> = entries
            .iter()
            .flat_map(|entry| [Some(entry.path.to_string()), staged(entry)])
            .flatten()
            .collect();
        let process = self.disk.process();
        // The staged file of a generation whose target a later one has replaced already.
        let superseded = |path: &String| {
            let earlier = entries.iter().position(|entry| staged(entry).as_ref() == Some(path));
            earlier.is_some_and(|index| {
                let later = entries[index + 1..].iter().filter(|later| later.path == entries[index].path);
                later.filter_map(|later| staged(later)).any(|staged| !before.contains_key(&staged))
            })
        };
        for (path, bytes) in &before {
            if named.contains(path) {
                let found = RelativePath::new(path).map(|path| process.metadata(&path).expect("it is there"));
                let found = found.expect("a valid path");
                let expected = |before: cosave::Before| is_expected(before, &found, bytes);
                let replaced = entries.iter().any(|entry| entry.before.is_some_and(expected));
                let there = replaced
                    || torn.contains(path)
                    || superseded(path)
                    || after.values().any(|other| other == bytes);
                assert!(there, "the content of {path:?} is lost: {:?}", after.keys());
            } else if !self.may_go(path) {
                assert_eq!(after.get(path), Some(bytes), "{path:?} belongs to others and was changed");
            }
        }
    }

    /// Whether a file that no manifest names has a name that cosave gives, and no living owner.
    fn may_go(&self, path: &str) -> bool {
        let Some(name) = path.strip_prefix(".cosave/") else {
            let name = path.rsplit('/').next().unwrap_or_default();
            let owner = name.rsplit('.').nth(1).unwrap_or_default();
            return is_temporary(name) && !self.alive.iter().any(|session| owner.starts_with(&**session));
        };
        match name.strip_prefix("sessions/") {
            Some(name) => name.get(..32).is_some_and(|id| {
                id.bytes().all(|byte| byte.is_ascii_hexdigit()) && !self.alive.contains(id)
            }),
            None => [".pending", ".pending-inline", ".sync-failed", ".tmp"]
                .iter()
                .any(|kind| name.ends_with(kind)),
        }
    }

    /// Opening retires a manifest with all its bytes, or leaves it in place. One that cannot be read
    /// stays, and prevents the root from opening. Only those that a power loss has torn in their wave are
    /// discarded, with what follows them.
    fn no_manifest_is_gone(&self, disk: &SimDisk, error: Option<&Error>) {
        let (after, chain) = (files(disk), self.chain());
        let end = self.end(&chain);
        let kept = match end {
            Some(End::Discarded(index)) => index,
            Some(End::Damaged(index)) => torn_beyond(&chain, index),
            Some(End::Finished) | None => chain.len(),
        };
        for published in &chain[kept..] {
            let generation = published.generation;
            let has = |kind: &str| after.contains_key(&format!(".cosave/{generation}.{kind}"));
            assert!(!has("applied"), "generation {generation} is torn, but counts as applied");
            let is_left = has("pending") || has("pending-inline") || has("discarded");
            assert!(error.is_some() || !is_left, "generation {generation} is torn, and can come back");
        }
        for Published { generation, path, bytes, manifest, .. } in &chain[..kept] {
            if end.is_none() && path.ends_with("-inline") {
                continue;
            }
            if bytes.is_empty() && !after.contains_key(path) {
                // A directory, a link or an empty file is not a manifest.
                assert!(error.is_some(), "generation {generation} is no file, and no error says so");
                continue;
            }
            let applied = format!(".cosave/{generation}.applied");
            let place = if after.contains_key(path) { path } else { &applied };
            assert_eq!(after.get(place), Some(bytes), "generation {generation} has other bytes");
            if manifest.is_none() {
                assert_ne!(place, &applied, "{place} cannot be read, but counts as applied");
                assert!(error.is_some(), "generation {generation} cannot be read, and no error says so");
            }
        }
    }

    /// No path is new but those of finished manifests, and files set aside. A root that does not open
    /// may have staged files more, which were lost and are there again.
    fn nothing_else_appears(&self, disk: &SimDisk, finished: &[Published], is_open: bool) {
        let before = files(&self.disk);
        let named: BTreeSet<String> =
            finished.iter().flat_map(Published::entries).map(|entry| entry.path.to_string()).collect();
        for path in files(disk).into_keys().filter(|path| !before.contains_key(path)) {
            let may_be = path.starts_with(".cosave/")
                || named.contains(&path)
                || path.contains(".set-aside-")
                || !is_open && is_temporary(&path);
            assert!(may_be, "{path:?} was made, and no finished commit names it");
        }
    }

    /// What finished manifests name is as they say, whatever a power loss took of the staged files.
    fn is_finished(&self, disk: &SimDisk, finished: &[Published]) {
        let after = files(disk);
        for (path, content) in self.expected(finished, &self.alive) {
            assert_eq!(after.get(&path), content.as_ref(), "{path:?} is not as its commit says");
        }
    }
}

/// A lock that is released when this is dropped.
struct Held(Box<dyn cosave::fs::Lock>);

impl Drop for Held {
    fn drop(&mut self) {
        let _held = &self.0;
    }
}

/// A read-only store can look at everything, changes nothing, and shows what recovery would make.
fn only_looking_changes_nothing(scene: &Scene) {
    let disk = scene.disk.copy();
    let before = lasting(&disk);
    let store = options().read_only(true).open_on(disk.process()).expect("looking needs no recovery");
    let _any = (store.status(), store.verify(), store.generation());
    assert!(store.begin().is_err() && store.recover().is_err() && store.sweep().is_err());
    assert!(store.abandon(1).is_err() && store.last_recovery().is_clean());
    let seen = store.view().ok().map(|view| {
        let mut seen = Files::new();
        see(&view, &RelativePath::root(), !scene.has_links, &mut seen);
        seen
    });
    drop(store);
    assert_eq!(lasting(&disk), before, "a read-only store changed something");
    let chain = scene.chain();
    let end = scene.end(&chain);
    let finished = end.map_or(&chain[..], |end| end.of(&chain));
    let Some(seen) = seen.filter(|_| !scene.has_links && each_path_once(finished)) else { return };
    if options().open_on(disk.process()).is_ok() {
        let mut recovered = disk.files();
        recovered.retain(|path, _| {
            seen.contains_key(path) || !is_temporary(path) && !path.contains(".set-aside-")
        });
        assert_eq!(seen, recovered, "a view showed another state than the one that was published");
        for (path, content) in
            scene.expected(finished, &BTreeSet::new()).into_iter().filter(|_| end.is_some())
        {
            assert_eq!(seen.get(&path), content.as_ref(), "a view showed {path:?} otherwise");
        }
    }
}

/// Reads everything that a view shows. Goes into directories only if no link can lead in circles.
fn see(view: &cosave::View, directory: &RelativePath, deep: bool, seen: &mut Files) {
    for path in view.list(directory).unwrap_or_default() {
        match view.read(&path) {
            Ok(bytes) => _ = seen.insert(path.to_string(), bytes),
            Err(Error::InvalidPath { reason: InvalidPath::Directory, .. }) if deep => {
                see(view, &path, deep, seen);
            }
            Err(error) => assert!(!error.to_string().is_empty(), "an error says what is wrong"),
        }
    }
}

/// An opened root is clean: opening it again, recovering, sweeping or a power loss changes nothing, and
/// it can be written to.
fn clean_for_good(scene: &Scene, disk: &SimDisk, store: Store) {
    let before = lasting(disk);
    let status = store.status().expect("an open root has a status");
    assert!(status.pending.is_empty() && !status.needs_sweep, "{status:?}");
    assert!(store.recover().expect("recovered before").is_clean());
    assert!(store.sweep().expect("swept before").is_clean());
    let _any = store.verify();
    drop(store);
    assert_eq!(lasting(disk), before, "a second recovery changed something");
    let chain = scene.chain();
    let end = scene.end(&chain);
    let finished = end.map_or(&chain[..], |end| end.of(&chain));
    // A living writer has moved its files. A scene in which it has not cannot lose power.
    let can_be = each_path_once(finished) && !finished.iter().any(|small| scene.has_living_writer(small));
    let losses = if can_be { disk.power_losses(3, 0) } else { Vec::new() };
    for after in losses.into_iter().chain([disk.kill()]) {
        let store = options().open_on(after.process()).expect("it was clean before the power loss");
        assert!(store.status().expect("an open root has a status").pending.is_empty());
        let ours =
            |files: Files| files.into_iter().filter(|(path, _)| !is_temporary(path)).collect::<Files>();
        assert_eq!(ours(after.files()), ours(disk.files()), "a power loss undid what was recovered");
    }
    let again = options().open_on(disk.process()).expect("opened before");
    assert!(again.last_recovery().is_clean(), "{:?}", again.last_recovery());
    assert_eq!(lasting(disk), before, "opening it again changed something");
    let found = disk.files();
    match again.update(|tx| tx.write("new file", "new")) {
        Ok(commit) => {
            assert!(commit.generation() > status.generation, "{} was used", commit.generation());
            let mut expected = found;
            expected.insert("new file".to_owned(), b"new".to_vec());
            assert_eq!(disk.files(), expected, "a commit changes exactly what it says");
            if matches!(end, Some(End::Discarded(_))) {
                // It has the number of the one that was discarded.
                for after in disk.power_losses(3, 0) {
                    let store = options().open_on(after.process()).expect("it was clean");
                    assert_eq!(store.generation().expect("it was clean"), commit.generation());
                    assert_eq!(after.files().get("new file"), expected.get("new file"));
                }
            }
        }
        Err(error) => assert_eq!(error.outcome(), cosave::Outcome::NothingHappened, "{error:?}"),
    }
}

/// A root that does not open can be opened to give up the damaged generations, one after the other.
fn can_be_given_up(scene: &Scene, disk: &SimDisk) {
    let chain = scene.chain();
    if let [_, second, ..] = &chain[..] {
        let disk = scene.disk.copy();
        let store = options().recover(false).open_on(disk.process()).expect("nothing was asked of it");
        assert!(store.abandon(second.generation).is_err(), "the one before it would be lost");
    }
    for _ in 0..=chain.len() {
        let Err(error) = options().open_on(disk.process()) else { return };
        let store = options().recover(false).open_on(disk.process()).expect("nothing was asked of it");
        let pending = store.status().ok().and_then(|status| status.pending.first().copied());
        let Some(first) = pending.filter(|_| !matches!(error, Error::Io { .. })) else {
            assert!(matches!(error, Error::Io { .. }), "nothing is pending: {error:?}");
            return;
        };
        store.abandon(first).expect("it is pending");
        let newest: Generation = store.generation().expect("it can be looked at");
        assert!(newest >= first, "{first} was given up, but {newest} is the newest");
        scene.nothing_foreign_is_gone(disk, &chain, &scene.files_that_may_be_torn(&chain));
    }
    panic!("all was given up, but the root does not open");
}
