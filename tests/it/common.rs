//! What the tests share: children, a seed, a look at a tree, litter, crash states made by hand.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use cosave::{Commit, Durability, Error, InvalidPath, Store};

/// What children print comes after this mark: the harness prints on the same stream.
const MARK: &str = "@cosave@ ";

/// Says that something is over when this is dropped, so also if a test fails. Whoever goes on until then, and is
/// waited for, would otherwise never end, nor would the test.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The environment variable that tells a child its root; without it, a child's test does nothing.
pub const ROOT: &str = "COSAVE_TEST_ROOT";

/// The root that a child is to work in, if this process is a child.
pub fn child_root() -> Option<PathBuf> {
    std::env::var_os(ROOT).map(PathBuf::from)
}

/// A number that the parent told this child.
pub fn told(name: &str) -> u64 {
    let text = std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    text.parse().unwrap()
}

/// The arguments with which this test binary runs one child.
pub fn child_arguments(test: &str) -> [String; 5] {
    [test, "--exact", "--ignored", "--nocapture", "--test-threads=1"].map(str::to_owned)
}

/// This test binary again, to run one `#[ignore]`d test on `root`.
pub fn child(test: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(child_arguments(test)).env(ROOT, root);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Tells the parent.
pub fn say(what: impl std::fmt::Display) {
    use std::io::Write as _;
    // One write a line, and no panic when the parent is gone.
    let line = format!("{MARK}{what}\n");
    let mut out = std::io::stdout().lock();
    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(3);
    }
}

/// What a child says, line by line.
pub fn heard(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| line.split_once(MARK).map(|(_, said)| said.to_owned()))
}

/// Runs a child to its end; it must succeed. Returns what it said.
pub fn run(mut command: Command) -> Vec<String> {
    let mut child = command.spawn().unwrap();
    let said: Vec<_> = heard(&mut child).collect();
    let status = child.wait().unwrap();
    assert!(status.success(), "the child failed: {status}, having said {said:?}");
    said
}

/// Says that a test cannot run here, to a person and, in the file that `COSAVE_SKIPPED_TESTS` names, to `.ci/run`.
pub fn skipped(test: &str, reason: &str) {
    use std::io::Write as _;
    println!("skipped: {reason}");
    if let Some(list) = std::env::var_os("COSAVE_SKIPPED_TESTS") {
        let mut list = fs::File::options().create(true).append(true).open(list).unwrap();
        // One write, so that tests that run at the same time do not mix their lines.
        list.write_all(format!("{test}: {reason}\n").as_bytes()).unwrap();
    }
}

/// The seed of a test's random choices: from `COSAVE_TEST_SEED`, or anew. A failure prints it.
pub fn random_seed() -> u64 {
    match std::env::var("COSAVE_TEST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    }
}

/// More than a transaction keeps in memory: a file of this length is staged at once.
pub const LARGE_BYTES: usize = 3 << 20;

/// Commits these files together.
pub fn put(store: &Store, files: &[(&str, &str)]) -> Commit {
    let mut tx = store.begin().unwrap();
    for (path, text) in files {
        tx.write(path, text).unwrap();
    }
    tx.commit().unwrap()
}

/// A store that never waits for the disk, where a test is not about waiting.
pub fn quick(root: &Path) -> Store {
    Store::options().durability(Durability::Process).open(root).unwrap()
}

pub fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every path below `root`, the control directory left out: text of files, `None` for directories.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    walk(root, Path::new(""), &mut |path, is_directory| {
        let content = (!is_directory).then(|| fs::read(root.join(path)).unwrap_or_default());
        found.insert(path.to_path_buf(), content);
    });
    found
}

fn walk(root: &Path, below: &Path, visit: &mut impl FnMut(&Path, bool)) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if path == Path::new(".cosave") {
            continue;
        }
        let is_directory = entry.file_type().unwrap().is_dir();
        visit(&path, is_directory);
        if is_directory {
            walk(root, &path, visit);
        }
    }
}

/// Waits until something is so, half a minute at most. Returns whether it came to be.
pub fn waits(mut is_so: impl FnMut() -> bool) -> bool {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so() {
        if std::time::Instant::now() > end {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// What should not be there when no store is open: staged names, sessions, manifests in flight.
pub fn litter(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(root, Path::new(""), &mut |path, _| {
        if path.to_string_lossy().ends_with(".cosave") {
            found.push(path.display().to_string());
        }
    });
    let control = root.join(".cosave");
    if let Ok(names) = fs::read_dir(&control) {
        for entry in names {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let belongs = ["lock", "queue", "turn", "lease", "sessions", "history", ".gitignore"]
                .contains(&name.as_str());
            let says_where_generations_end =
                [".applied", ".applied-waived", ".abandoned"].iter().any(|end| name.ends_with(end));
            if !belongs && !says_where_generations_end {
                found.push(format!(".cosave/{name}"));
            }
        }
        if let Ok(names) = fs::read_dir(control.join("sessions")) {
            found.extend(names.map(|entry| format!("session {:?}", entry.unwrap().file_name())));
        }
    }
    found
}

pub fn assert_no_litter(root: &Path) {
    let found = litter(root);
    assert!(found.is_empty(), "left behind: {found:?}");
}

/// Nanoseconds since 1970 of a file's last change.
pub fn modified(path: &Path) -> i64 {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// A crash state made by hand: what a writer that died after its commit point leaves.
pub struct Crash {
    root: PathBuf,
    id: String,
    pub entries: Vec<serde_json::Value>,
}

impl Crash {
    pub fn new(root: &Path) -> Self {
        fs::create_dir_all(root.join(".cosave/sessions")).unwrap();
        fs::write(root.join(".cosave/.gitignore"), "*\n").unwrap();
        let id = format!("{}-1", uuid::Uuid::new_v4().simple());
        Self { root: root.to_path_buf(), id, entries: Vec::new() }
    }

    fn stamp(&self, path: &str) -> serde_json::Value {
        let path = self.root.join(path);
        match fs::metadata(&path) {
            Ok(found) => serde_json::json!({"length": found.len(), "modified": modified(&path)}),
            Err(_) => serde_json::Value::Null,
        }
    }

    /// Stages `text` for `path`. Returns where.
    pub fn write(&mut self, path: &str, text: &str) -> PathBuf {
        let target = Path::new(path);
        let number = self.entries.len() + 1;
        let name = format!(".{}.{}-{number}.cosave", target.file_name().unwrap().to_string_lossy(), self.id);
        let staged = self.root.join(target).with_file_name(&name);
        fs::write(&staged, text).unwrap();
        self.entries.push(serde_json::json!({
            "path": path, "operation": "write", "staged": name, "length": text.len(),
            "modified": modified(&staged), "mode": 0o644,
            "blake3": blake3::hash(text.as_bytes()).to_hex().to_string(), "before": self.stamp(path),
        }));
        staged
    }

    /// Lets what was written last take the place of a directory.
    pub fn over(&mut self, tree: serde_json::Value) {
        let entry = self.entries.last_mut().unwrap();
        entry["before"] = serde_json::Value::Null;
        entry["tree"] = tree;
    }

    pub fn remove(&mut self, path: &str) {
        let before = self.stamp(path);
        self.entries.push(serde_json::json!({"path": path, "operation": "remove", "before": before}));
    }

    /// Puts an entry in as it is, for manifests that nobody honest writes.
    pub fn forge(&mut self, entry: serde_json::Value) {
        self.entries.push(entry);
    }

    /// The staged name that this transaction would give to a target.
    pub fn staged_name(&self, target: &str, number: usize) -> String {
        format!(".{target}.{}-{number}.cosave", self.id)
    }

    /// Publishes what was collected under this number. Returns where.
    pub fn publish(&self, generation: u64) -> PathBuf {
        let body = serde_json::json!({"transaction": self.id, "time": 0, "entries": self.entries});
        let path = self.root.join(format!(".cosave/{generation}.pending"));
        let is_new = |entry: &serde_json::Value| entry.get("tree").or(entry.get("directory")).is_some();
        let version = if self.entries.iter().any(is_new) { "4" } else { "1" };
        fs::write(&path, sealed(version, &body.to_string())).unwrap();
        path
    }
}

/// What a manifest says of a directory or a file that it moves, so that it is known again.
pub fn identity(path: &Path) -> serde_json::Value {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::symlink_metadata(path).unwrap());
    #[cfg(windows)]
    let inode = {
        let handle = winapi_util::Handle::from_path_any(path).unwrap();
        winapi_util::file::information(&handle).unwrap().file_index()
    };
    serde_json::json!({ "inode": inode, "born": null })
}

/// A manifest's text with a checksum that is right.
pub fn sealed(version: &str, body: &str) -> String {
    format!("cosave-manifest {version} {}\n{body}", blake3::hash(body.as_bytes()).to_hex())
}

/// Why a path was refused.
pub fn invalid(error: &Error) -> Option<InvalidPath> {
    match error {
        Error::InvalidPath { reason, .. } => Some(*reason),
        _ => None,
    }
}

/// The system's error.
pub fn kind(error: &Error) -> Option<ErrorKind> {
    match error {
        Error::Io { source, .. } => Some(source.kind()),
        _ => None,
    }
}

/// All paths below a root.
pub fn paths(root: &Path) -> Vec<PathBuf> {
    tree(root).into_keys().collect()
}
