//! A small package manager: a manifest, a lockfile and a vendored tree, saved together.
//!
//! ```text
//! cargo run --example vendored_tree                    a temporary project, and checks of the result
//! cargo run --example vendored_tree -- DIR             the same in DIR, which is empty or an earlier run's
//! cargo run --example vendored_tree -- DIR --dry-run   what would be done in DIR
//! ```
//!
//! One commit adds a package, removes one, renames one and updates one, with manifest and lockfile. Whatever
//! happens, the project is as before it or as after it. A dry run leaves the project as it is.

#![allow(clippy::disallowed_methods, reason = "only the library must go through its file-system trait")]

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cosave::{Progress, Store, Transaction};

type Outcome<T> = Result<T, Box<dyn Error>>;

const MANIFEST: &str = "packages.txt";
const LOCKFILE: &str = "packages.lock";

/// A package as it was downloaded: its files, each with its mode, and its links, each with what it leads to.
struct Package {
    name: &'static str,
    version: &'static str,
    files: &'static [(&'static str, &'static str, u32)],
    links: &'static [(&'static str, &'static str)],
}

const TABLES: Package = Package {
    name: "tables",
    version: "2.0",
    files: &[("lib.rs", "pub fn table() {}\n", 0o644), ("bin/print", "#!/bin/sh\n", 0o755)],
    links: &[("bin/show", "print")],
};
const COLOURS: Package = Package {
    name: "colours",
    version: "1.4",
    files: &[("lib.rs", "pub fn red() {}\n", 0o644), ("build.sh", "#!/bin/sh\n", 0o755)],
    links: &[("main.rs", "lib.rs")],
};

fn vendored(package: &str) -> PathBuf {
    Path::new("vendor").join(package)
}

/// Writes the files of a new package.
fn add(tx: &mut Transaction, package: &Package) -> cosave::Result<()> {
    for (path, content, mode) in package.files {
        tx.file(vendored(package.name).join(path)).mode(*mode).write(content)?;
    }
    // Windows has none without a privilege.
    for (path, to) in package.links.iter().filter(|_| cfg!(unix)) {
        tx.symlink(vendored(package.name).join(path), to)?;
    }
    Ok(())
}

/// Unpacks a package outside of any transaction, as a download does. Its tree then takes the place of the
/// old one. What is unpacked must be durable before that.
fn unpack(root: &Path, package: &Package) -> std::io::Result<PathBuf> {
    let place = Path::new("vendor").join(format!("{}.unpacked", package.name));
    remove_if_there(&root.join(&place))?;
    for (path, content, mode) in package.files {
        let path = root.join(&place).join(path);
        cosave::write(&path, content).map_err(std::io::Error::other)?;
        set_mode(&path, *mode)?;
    }
    #[cfg(unix)]
    for (path, to) in package.links {
        std::os::unix::fs::symlink(to, root.join(&place).join(path))?;
    }
    Ok(place)
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> std::io::Result<()> {
    Ok(())
}

fn remove_if_there(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// All that one run of the package manager changes.
fn plan(tx: &mut Transaction, unpacked: &Path) -> cosave::Result<()> {
    add(tx, &TABLES)?;
    if tx.exists(vendored("unused"))? {
        tx.remove_dir_all(vendored("unused"))?;
    }
    if tx.exists(vendored("old-name"))? {
        tx.rename(vendored("old-name"), vendored("new-name"))?;
    }
    tx.replace_dir(unpacked, vendored(COLOURS.name))?;
    tx.write(MANIFEST, "colours\nnew-name\ntables\n")?;
    tx.write(LOCKFILE, format!("colours {}\nnew-name 1.0\ntables {}\n", COLOURS.version, TABLES.version))
}

/// A project as an earlier run has left it.
fn prepare(root: &Path) -> cosave::Result<()> {
    Store::open(root)?.update(|tx| {
        for name in ["unused", "old-name", "colours"] {
            tx.write(vendored(name).join("lib.rs"), format!("// {name} 1.0\n"))?;
        }
        tx.write(MANIFEST, "colours\nold-name\nunused\n")?;
        tx.write(LOCKFILE, "colours 1.0\nold-name 1.0\nunused 1.0\n")
    })?;
    Ok(())
}

/// A bar of plain text.
fn draw(out: &mut impl std::io::Write, done: usize, all: usize) -> std::io::Result<()> {
    let full = (done * 20).checked_div(all).unwrap_or(20);
    write!(out, "\r[{}{}] {done}/{all}", "#".repeat(full), " ".repeat(20 - full))
}

fn bar(progress: &Progress) {
    let mut out = std::io::stderr();
    // Whoever does not read the bar misses nothing.
    let _ = match progress {
        Progress::Applied { files, all, .. } => draw(&mut out, *files, *all),
        _ => Ok(()),
    };
}

fn check(root: &Path) -> Outcome<()> {
    let text = |path: &str| std::fs::read_to_string(root.join(path));
    assert_eq!(text(MANIFEST)?, "colours\nnew-name\ntables\n");
    assert!(text(LOCKFILE)?.contains("colours 1.4"));
    assert_eq!(text("vendor/new-name/lib.rs")?, "// old-name 1.0\n");
    assert_eq!(text("vendor/colours/lib.rs")?, "pub fn red() {}\n");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("vendor"))? {
        names.push(entry?.file_name());
    }
    names.sort();
    assert_eq!(names, ["colours", "new-name", "tables"]);
    #[cfg(unix)]
    for path in ["vendor/tables/bin/print", "vendor/tables/bin/show", "vendor/colours/build.sh"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(root.join(path))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{path}");
    }
    #[cfg(unix)]
    assert_eq!(std::fs::read_link(root.join("vendor/colours/main.rs"))?, Path::new("lib.rs"));
    Ok(())
}

fn main() -> Outcome<()> {
    let mut out = std::io::stdout();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_dry = arguments.iter().any(|argument| argument == "--dry-run");
    let temporary = tempfile::tempdir()?;
    let root = match arguments.iter().find(|argument| !argument.starts_with("--")) {
        Some(given) => PathBuf::from(given),
        None => temporary.path().to_path_buf(),
    };
    if !root.join(MANIFEST).exists() {
        prepare(&root)?;
    }
    let unpacked = unpack(&root, &COLOURS)?;
    let store = Store::options().on_progress(|progress| {
        bar(progress);
        std::ops::ControlFlow::Continue(())
    });
    let store = store.open(&root)?;
    let mut dry = store.dry_run()?;
    plan(&mut dry, &unpacked)?;
    for change in dry.changes()? {
        writeln!(out, "{change}")?;
    }
    if is_dry {
        return Ok(remove_if_there(&root.join(unpacked))?);
    }
    let mut tx = store.begin()?;
    plan(&mut tx, &unpacked)?;
    let commit = tx.commit()?;
    writeln!(out, "\ncommitted as generation {}", commit.generation())?;
    check(&root)
}
