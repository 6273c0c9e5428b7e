//! What a package manager does when a dependency is added: it edits its
//! manifest and its lockfile, and saves both or neither. The example also shows
//! what a crash half-way leaves, and how the next run repairs it.
//!
//! ```text
//! cargo run --example save_manifest_and_lock [-- [DIRECTORY] [--crash-at stage|publish|apply]]
//! ```
//!
//! `DIRECTORY` is a Cargo project whose `Cargo.toml` and `Cargo.lock` are
//! really edited, so give it a copy. Without one, the example copies this
//! project's two files into the temporary directory. That copy stays there, so
//! that the next run can show what was recovered.

#![allow(clippy::print_stdout, reason = "a program's output")]
#![allow(clippy::disallowed_methods, reason = "only the library must go through its file-system trait")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use cosave::Store;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The dependency that is added, and updated by every run. No such crate exists.
const DEPENDENCY: &str = "cosave-example-dependency";

/// A kill must hit a moment of some microseconds, so it is tried this often and this long.
const TRIES_MAX: u32 = 2000;
const TRYING_MAX: Duration = Duration::from_secs(60);

/// Where the save is to be cut short.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CrashAt {
    /// Both files are staged, and nothing is committed.
    Stage,
    /// The manifest is published, and no file is moved.
    Publish,
    /// The first file is moved, and the last is not.
    Apply,
}

impl CrashAt {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "stage" => Ok(Self::Stage),
            "publish" => Ok(Self::Publish),
            "apply" => Ok(Self::Apply),
            other => Err(format!("cannot crash at `{other}`: choose stage, publish or apply").into()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Publish => "publish",
            Self::Apply => "apply",
        }
    }
}

struct Arguments {
    directory: Option<PathBuf>,
    crash_at: Option<CrashAt>,
    /// Set for the child process that is to be killed: the number of the try.
    victim: Option<u32>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = arguments()?;
    let project = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => copy_of_this_project()?,
    };
    match arguments.crash_at {
        None => save_and_tell(&project),
        Some(crash_at) => match arguments.victim {
            Some(number) => die(&project, crash_at, number),
            None => crash(&project, crash_at),
        },
    }
}

fn arguments() -> Result<Arguments> {
    let mut arguments = Arguments { directory: None, crash_at: None, victim: None };
    let mut given = std::env::args_os().skip(1);
    while let Some(argument) = given.next() {
        match argument.to_str() {
            Some("--crash-at") => {
                let point = given.next().ok_or("--crash-at needs stage, publish or apply")?;
                arguments.crash_at = Some(CrashAt::parse(&point.to_string_lossy())?);
            }
            Some("--victim") => {
                let number = given.next().ok_or("--victim needs a number")?;
                arguments.victim = Some(number.to_string_lossy().parse()?);
            }
            Some(text) if text.starts_with("--") => return Err(format!("unknown option {text}").into()),
            _ => arguments.directory = Some(argument.into()),
        }
    }
    Ok(arguments)
}

/// Copies this project's two files in one transaction, unless an earlier run did so.
fn copy_of_this_project() -> Result<PathBuf> {
    let copy = std::env::temp_dir().join("cosave-example");
    if copy.join("Cargo.toml").exists() && copy.join("Cargo.lock").exists() {
        return Ok(copy);
    }
    let original = Path::new(env!("CARGO_MANIFEST_DIR"));
    let store = Store::options().create(true).open(&copy)?;
    store.update(|tx| {
        tx.copy_from("Cargo.toml", original.join("Cargo.toml"))?;
        if original.join("Cargo.lock").exists() {
            tx.copy_from("Cargo.lock", original.join("Cargo.lock"))
        } else {
            tx.write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"cosave\"\nversion = \"0.1.0\"\n")
        }
    })?;
    Ok(copy)
}

/// A plain run: recovers, edits both files, and saves them together.
fn save_and_tell(project: &Path) -> Result<()> {
    println!("project   {}", project.display());
    let store = Store::open(project)?;
    if store.last_recovery().is_clean() {
        println!("recovery  nothing to recover");
    }
    for line in store.last_recovery().to_string().lines().filter(|_| !store.last_recovery().is_clean()) {
        println!("recovery  {line}");
    }
    println!("found     {}", Versions::of(project)?.consistent()?);

    let commit = store.update(edit)?;
    for change in commit.changes() {
        println!("saved     {change}");
    }
    println!("commit    generation {}", commit.generation());
    println!("now       {}", Versions::of(project)?.consistent()?);
    Ok(())
}

/// Edits both files. If another program changes a file that was read here before the commit,
/// `Store::update` calls this function again.
fn edit(tx: &mut cosave::Transaction) -> cosave::Result<()> {
    let mut manifest = parse(tx, "Cargo.toml")?;
    let mut lock = parse(tx, "Cargo.lock")?;
    let version = next_version(locked_version(&lock).as_deref());
    let package = manifest["package"]["name"].as_str().unwrap_or_default().to_owned();

    manifest["dependencies"].or_insert(toml_edit::table())[DEPENDENCY] = value(version.as_str());
    lock_dependency(&mut lock, &package, &version);

    // In the order in which they should appear: once the lockfile has changed, both have.
    tx.write("Cargo.toml", manifest.to_string())?;
    tx.write("Cargo.lock", lock.to_string())
}

fn parse(tx: &cosave::Transaction, path: &str) -> cosave::Result<DocumentMut> {
    let text = String::from_utf8_lossy(&tx.read(path)?).into_owned();
    let unreadable = |error: toml_edit::TomlError| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{path}: {error}"))
    };
    Ok(text.parse().map_err(unreadable)?)
}

fn next_version(version: Option<&str>) -> String {
    let minor = version.and_then(|version| version.split('.').nth(1)?.parse::<u64>().ok());
    format!("1.{}.0", minor.map_or(0, |minor| minor + 1))
}

fn locked_version(lock: &DocumentMut) -> Option<String> {
    let packages = lock.get("package")?.as_array_of_tables()?;
    let found = packages.iter().find(|package| name(package) == DEPENDENCY)?;
    Some(found.get("version")?.as_str()?.to_owned())
}

fn name(package: &Table) -> &str {
    package.get("name").and_then(Item::as_str).unwrap_or_default()
}

/// Adds the dependency to the packages, sorted by name as Cargo sorts them, and to the dependencies of
/// the project's own package.
fn lock_dependency(lock: &mut DocumentMut, project: &str, version: &str) {
    let packages = lock["package"].or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(packages) = packages.as_array_of_tables_mut() else { return };
    let mut sorted: Vec<Table> = packages.iter().cloned().collect();
    sorted.retain(|package| name(package) != DEPENDENCY);
    for own in sorted.iter_mut().filter(|package| name(package) == project) {
        add_to_dependencies(own);
    }
    let mut added = Table::new();
    added["name"] = value(DEPENDENCY);
    added["version"] = value(version);
    sorted.push(added);
    sorted.sort_by(|a, b| name(a).cmp(name(b)));
    packages.clear();
    for (position, mut package) in sorted.into_iter().enumerate() {
        package.set_position(position + 1);
        packages.push(package);
    }
}

fn add_to_dependencies(package: &mut Table) {
    let listed = package["dependencies"].or_insert(value(toml_edit::Array::new()));
    let Some(listed) = listed.as_array_mut() else { return };
    let mut names: Vec<String> = listed.iter().filter_map(|item| item.as_str()).map(str::to_owned).collect();
    if !names.iter().any(|name| name == DEPENDENCY) {
        names.push(DEPENDENCY.to_owned());
    }
    names.sort();
    listed.clear();
    for name in &names {
        listed.push_formatted(toml_edit::Value::from(name.as_str()).decorated("\n ", ""));
    }
    listed.set_trailing("\n");
    listed.set_trailing_comma(true);
}

/// The version in each of the two files, read without cosave, as any other program would.
#[derive(Clone, PartialEq, Eq)]
struct Versions {
    manifest: Option<String>,
    lock: Option<String>,
}

impl Versions {
    fn of(project: &Path) -> Result<Self> {
        let read =
            |name: &str| -> Result<DocumentMut> { Ok(std::fs::read_to_string(project.join(name))?.parse()?) };
        let manifest = read("Cargo.toml")?;
        let required = manifest.get("dependencies").and_then(|table| table.get(DEPENDENCY));
        Ok(Self {
            manifest: required.and_then(Item::as_str).map(str::to_owned),
            lock: locked_version(&read("Cargo.lock")?),
        })
    }

    fn consistent(&self) -> Result<String> {
        match (&self.manifest, &self.lock) {
            (None, None) => Ok(format!("no {DEPENDENCY} in either file")),
            (Some(manifest), Some(lock)) if manifest == lock => {
                Ok(format!("{DEPENDENCY} {manifest} in both files"))
            }
            _ => Err(format!("a mix: {self}").into()),
        }
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        write!(f, "Cargo.toml {}, Cargo.lock {}", text(&self.manifest), text(&self.lock))
    }
}

/// Lets another process save and be killed, until one is killed at the wished moment.
fn crash(project: &Path, crash_at: CrashAt) -> Result<()> {
    println!("project   {}", project.display());
    let began = Instant::now();
    let mut tries = 0;
    while tries < TRIES_MAX && began.elapsed() < TRYING_MAX {
        tries += 1;
        // What an earlier try left is finished first, so that each try starts from a clean state.
        drop(Store::open(project)?);
        let before = Versions::of(project)?;
        before.consistent()?;
        let died = !Command::new(std::env::current_exe()?)
            .arg(project)
            .args(["--crash-at", crash_at.name(), "--victim", &tries.to_string()])
            .stderr(std::process::Stdio::null())
            .status()?
            .success();
        let after = Versions::of(project)?;
        if died && is_wished(project, crash_at, &before, &after)? {
            println!("killed    at {} (try {tries})", crash_at.name());
            println!("left      {after}");
            for name in left_behind(project)? {
                println!("left      {name}");
            }
            println!("next      run this again without --crash-at to see what is recovered");
            return Ok(());
        }
    }
    // A machine with one processor may never be fast enough. What the last try left is repaired by the
    // next opening, as always.
    println!("missed    no process died at the wished moment in {tries} tries; try again");
    Ok(())
}

/// Whether the files look as they do when a process was killed at that point.
fn is_wished(project: &Path, crash_at: CrashAt, before: &Versions, after: &Versions) -> Result<bool> {
    let published = left_behind(project)?.iter().any(|name| name.contains(".pending"));
    Ok(match crash_at {
        CrashAt::Stage => !published && after == before,
        CrashAt::Publish => published && after == before,
        CrashAt::Apply => published && after.manifest != before.manifest && after.lock == before.lock,
    })
}

/// The names that only an unfinished save leaves.
fn left_behind(project: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for directory in ["", ".cosave"] {
        for entry in std::fs::read_dir(project.join(directory))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.contains(".pending") || (name.ends_with(".cosave") && name != ".cosave") {
                names.push(Path::new(directory).join(name).display().to_string());
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Saves, and is killed on the way.
fn die(project: &Path, crash_at: CrashAt, number: u32) -> Result<()> {
    let store = Store::open(project)?;
    let mut tx = store.begin()?;
    edit(&mut tx)?;
    let pending = project.join(format!(".cosave/{}.pending-inline", store.generation()?.get() + 1));
    match crash_at {
        CrashAt::Stage => std::process::abort(),
        CrashAt::Publish => watch(move || pending.exists()),
        CrashAt::Apply if number % 2 == 1 => {
            let target = project.join("Cargo.toml");
            let look = move || std::fs::metadata(&target).and_then(|found| found.modified()).ok();
            let before = look();
            watch(move || look() != before);
        }
        CrashAt::Apply => {
            // On a disk in memory both files are moved before the first move can be seen. So the kill
            // is aimed at some microseconds after the publication.
            let aim = Duration::from_micros(u64::from(number % 64));
            watch(move || {
                pending.exists() && {
                    let seen = Instant::now();
                    while seen.elapsed() < aim {
                        std::hint::spin_loop();
                    }
                    true
                }
            });
        }
    }
    tx.commit()?;
    Ok(())
}

/// Kills this process as soon as `moment` returns true, whatever its other threads are doing.
fn watch(moment: impl Fn() -> bool + Send + 'static) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = ready.send(());
        while !moment() {
            std::hint::spin_loop();
        }
        std::process::abort();
    });
    let _ = is_ready.recv();
}
