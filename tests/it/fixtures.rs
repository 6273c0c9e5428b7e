//! Roots as cosave wrote them, kept for ever: what an earlier version left must open as it should.
//!
//! `tests/fixtures/v1/` has three roots of format 1. One is clean. The writer of the second was killed after
//! the commit point, before it moved a file, and that of the third between two moves. `tests/fixtures/v2/`
//! has the same of format 2, whose manifests hold the bytes of small saves, and a root whose staged files a
//! power loss has taken. Those in `tests/fixtures/v3/` make and remove directories, and those in
//! `tests/fixtures/v4/` symlinks, whole directories and one with a mode. `tests/fixtures/history/` has one that keeps what its commits replace, with
//! an undo. Beside each lies a list of its files with their time stamps, which version control does not keep,
//! and of its symlinks. `write_the_fixtures` made them on the simulated disk, so that a kill comes at the very step
//! that is wanted.
//!
//! Once a version of the format is released, its fixtures are never written again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cosave::fs::sim::{Crash, Model, SimDisk};
use cosave::fs::{FileSystem, Kind};
use cosave::{Generation, RelativePath, Store, Transaction};

use crate::common::{assert_no_litter, identity, sealed, tree};

/// The files of generation 1, and of generation 2, which removes one, changes two and makes a directory.
const OLD: [(&str, &str); 3] = [("a", "old a\n"), ("b", "old b\n"), ("d/c", "old c\n")];
const NEW: [(&str, &str); 3] = [("a", "new a\n"), ("d/c", "new c\n"), ("new/e", "new e\n")];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A copy of a fixture, with the time stamps that its files had.
fn copy(name: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let list = fs::read_to_string(directory().join(format!("{name}.list"))).unwrap();
    let mut trees = BTreeMap::new();
    for line in list.lines() {
        let (stamp, path) = line.split_once(' ').unwrap();
        let target = root.path().join(path);
        if stamp == "directory" {
            fs::create_dir_all(target).unwrap();
            continue;
        }
        if let Some(inode) = stamp.strip_prefix("tree:") {
            fs::create_dir_all(&target).unwrap();
            trees.insert(inode.parse::<u64>().unwrap(), target);
            continue;
        }
        if let Some(to) = stamp.strip_prefix("link:") {
            make_link(to, &target);
            continue;
        }
        let bytes =
            fs::read(directory().join(name).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        fs::write(&target, bytes).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(stamp.parse().unwrap());
        fs::File::options().write(true).open(&target).unwrap().set_modified(modified).unwrap();
    }
    if !trees.is_empty() {
        name_trees(&root.path().join(".cosave/2.pending"), &trees);
    }
    root
}

/// Lets a manifest name the directories of a copy, which have other numbers than those of the fixture.
fn name_trees(manifest: &Path, trees: &BTreeMap<u64, PathBuf>) {
    fn rename(value: &mut serde_json::Value, trees: &BTreeMap<u64, PathBuf>, named: &mut usize) {
        if let Some(path) = value.get("inode").and_then(|inode| trees.get(&inode.as_u64()?)) {
            *value = identity(path);
            *named += 1;
        } else if let Some(fields) = value.as_object_mut() {
            fields.values_mut().for_each(|field| rename(field, trees, named));
        } else if let Some(values) = value.as_array_mut() {
            values.iter_mut().for_each(|value| rename(value, trees, named));
        }
    }
    let text = fs::read_to_string(manifest).unwrap();
    let (header, body) = text.split_once('\n').unwrap();
    assert!(header.starts_with("cosave-manifest 4 "), "{header}");
    let (mut body, mut named) = (serde_json::from_str(body).unwrap(), 0);
    rename(&mut body, trees, &mut named);
    assert_eq!(named, TREES_NAMED, "{body}");
    fs::write(manifest, sealed("4", &body.to_string())).unwrap();
}

/// How many directories the manifest of a fixture with whole directories names.
const TREES_NAMED: usize = 5;

#[cfg(unix)]
fn make_link(to: &str, path: &Path) {
    std::os::unix::fs::symlink(to, path).unwrap();
}

#[cfg(not(unix))]
fn make_link(_to: &str, path: &Path) {
    panic!("{} is no file of this system", path.display());
}

fn files(root: &Path) -> BTreeMap<String, String> {
    let all = tree(root).into_iter().filter_map(|(path, content)| Some((path, content?)));
    let text = |(path, content): (PathBuf, Vec<u8>)| {
        (path.to_string_lossy().replace('\\', "/"), String::from_utf8(content).unwrap())
    };
    all.map(text).collect()
}

fn expected(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// What a view shows of every path that the two generations name.
fn seen(store: &Store) -> BTreeMap<String, String> {
    let view = store.view().unwrap();
    let paths = OLD.iter().chain(&NEW).map(|(path, _)| *path);
    let read = |path: &str| Some((path.to_owned(), String::from_utf8(view.read(path).ok()?).unwrap()));
    paths.filter_map(read).collect()
}

/// Opens a copy, which must finish these generations and hold these files then, and takes a commit.
fn opens(name: &str, finished: &[u64], generation: u64, files_after: &[(&str, &str)]) {
    let root = copy(name);
    let untouched = tree(root.path());
    let look = Store::options().read_only(true).open(root.path()).unwrap();
    assert_eq!(seen(&look), expected(files_after));
    assert_eq!(look.view().unwrap().generation(), generation);
    drop(look);
    assert_eq!(tree(root.path()), untouched, "a read-only store changed something");

    let store = Store::open(root.path()).unwrap();
    let report = store.last_recovery();
    let generations: Vec<_> = finished.iter().copied().map(Generation::from).collect();
    assert_eq!(report.rolled_forward, generations);
    assert_eq!(report.is_clean(), finished.is_empty(), "{report}");
    assert!(report.differences.is_empty(), "{report}");
    assert_eq!(store.generation().unwrap(), generation);
    assert_eq!(seen(&store), expected(files_after));
    assert_eq!(files(root.path()), expected(files_after));
    assert!(store.verify().unwrap().is_empty());
    drop(store);
    assert_no_litter(root.path());

    let store = Store::open(root.path()).unwrap();
    assert!(store.last_recovery().is_clean(), "{}", store.last_recovery());
    let commit = store.update(|tx| tx.write("a", "newest a\n")).unwrap();
    assert_eq!(commit.generation(), generation + 1);
}

#[test]
fn a_clean_root_of_format_1_opens_as_it_was() {
    opens("v1/clean", &[], 1, &OLD);
}

#[test]
fn a_clean_root_of_format_2_opens_as_it_was() {
    opens("v2/clean", &[], 1, &OLD);
}

#[test]
fn a_published_root_of_format_2_is_finished() {
    opens("v2/pending", &[2], 2, &NEW);
}

#[test]
fn a_half_applied_root_of_format_2_is_finished() {
    opens("v2/half-applied", &[2], 2, &NEW);
}

#[test]
fn a_root_of_format_2_that_has_lost_its_staged_files_is_finished() {
    opens("v2/power-loss", &[2], 2, &NEW);
}

#[test]
fn a_published_root_of_format_1_is_finished() {
    opens("v1/pending", &[2], 2, &NEW);
}

#[test]
fn a_half_applied_root_of_format_1_is_finished() {
    opens("v1/half-applied", &[2], 2, &NEW);
}

/// A commit that makes a directory and removes another is finished, and its directories are as it says.
fn opens_with_directories(name: &str) {
    let root = copy(name);
    let look = Store::options().read_only(true).open(root.path()).unwrap();
    let shown: Vec<_> = look.view().unwrap().list("").unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["a", "b", "made"]);
    drop(look);
    recovers_whole(root.path());
    let found: Vec<_> = tree(root.path()).into_keys().collect();
    assert_eq!(found, ["a", "b", "made", "made/deep"].map(PathBuf::from));
    assert_no_litter(root.path());
}

#[test]
fn a_published_root_of_format_3_is_finished() {
    opens_with_directories("v3/pending");
}

#[test]
fn a_half_applied_root_of_format_3_is_finished() {
    opens_with_directories("v3/half-applied");
}

/// Generation 2 is finished, and every file is what it should be.
fn recovers_whole(root: &Path) {
    let store = Store::open(root).unwrap();
    assert_eq!(store.last_recovery().rolled_forward, [Generation::from(2)]);
    assert!(store.last_recovery().differences.is_empty(), "{}", store.last_recovery());
    assert!(store.verify().unwrap().is_empty());
}

/// A commit that makes, replaces and removes symlinks is finished, and its directory gets its mode. A view shows it before that.
#[cfg(unix)]
fn opens_with_links(name: &str) {
    let root = copy(name);
    let look = Store::options().read_only(true).open(root.path()).unwrap();
    let view = look.view().unwrap();
    let links = [("replaced", "d"), ("a", "b"), ("made/deep", "../../outside")];
    for (path, to) in links {
        assert_eq!(view.read_link(path).unwrap(), Path::new(to), "{path}");
    }
    assert_eq!(view.read("replaced/c").unwrap(), b"new c\n");
    assert!(view.read_link("removed").unwrap_err().is_not_found());
    assert!(view.metadata("closed").unwrap().is_directory());
    drop((view, look));
    recovers_whole(root.path());
    for (path, to) in links {
        assert_eq!(fs::read_link(root.path().join(path)).unwrap(), Path::new(to), "{path}");
    }
    let text = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
    assert_eq!((text("was a link"), text("d/c")), ("a file\n".to_owned(), "new c\n".to_owned()));
    let closed = fs::metadata(root.path().join("closed")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&closed.permissions()) & 0o777, 0o710);
    assert!(!root.path().join("was a link").is_symlink() && !root.path().join("removed").is_symlink());
    assert_no_litter(root.path());
}

#[test]
#[cfg(unix)]
fn a_published_root_of_format_4_is_finished() {
    opens_with_links("v4/pending");
}

#[test]
#[cfg(unix)]
fn a_half_applied_root_of_format_4_is_finished() {
    opens_with_links("v4/half-applied");
}

/// `cargo test --test it write_the_fixtures_of_format_4 -- --ignored`, as below.
#[test]
#[ignore = "writes tests/fixtures/v4, which is done once for each version of the format"]
fn write_the_fixtures_of_format_4() {
    let _ = fs::remove_dir_all(directory().join("v4"));
    let disk = SimDisk::new(Model::WeakPosix);
    let store = Store::options().open_on(disk.process()).unwrap();
    let mut tx = store.begin().unwrap();
    OLD.iter().try_for_each(|(path, text)| tx.write(path, text)).unwrap();
    ["replaced", "removed", "was a link"].iter().try_for_each(|path| tx.symlink(path, "a")).unwrap();
    tx.commit().unwrap();
    drop(store);
    disk.settle();
    let published = |disk: &SimDisk| disk.control_names().iter().any(|name| name == "2.pending");
    write_fixture("v4/pending", &killed_with(&disk, change_links, published));
    let half = |disk: &SimDisk| disk.links().get("replaced").is_some_and(|to| to == Path::new("d"));
    write_fixture("v4/half-applied", &killed_with(&disk, change_links, half));
}

fn change_links(tx: &mut Transaction) -> cosave::Result<()> {
    tx.symlink("replaced", "d")?;
    tx.symlink("made/deep", "../../outside")?;
    tx.symlink("a", "b")?;
    tx.remove("removed")?;
    tx.remove("was a link")?;
    tx.write("was a link", "a file\n")?;
    tx.write("d/c", "new c\n")?;
    tx.directory("closed").mode(0o710).create()
}

/// A commit that moves, replaces and removes whole directories is finished. A view shows it before that.
fn opens_with_trees(name: &str) {
    let root = copy(name);
    let trees = [("moved/c", "old c\n"), ("replaced/f", "the new one\n"), ("was a directory", "a file\n")];
    let look = Store::options().read_only(true).open(root.path()).unwrap();
    let view = look.view().unwrap();
    for (path, text) in trees {
        assert_eq!(view.read(path).unwrap(), text.as_bytes(), "{path}");
    }
    assert!(!view.exists("gone").unwrap() && !view.exists("d").unwrap() && !view.exists("by").unwrap());
    drop((view, look));
    recovers_whole(root.path());
    let others = OLD.into_iter().filter(|(path, _)| *path != "d/c");
    assert_eq!(files(root.path()), expected(&others.chain(trees).collect::<Vec<_>>()));
    assert_no_litter(root.path());
}

#[test]
fn a_published_root_of_format_4_with_whole_directories_is_finished() {
    opens_with_trees("v4/trees-pending");
}

#[test]
fn a_half_applied_root_of_format_4_with_whole_directories_is_finished() {
    opens_with_trees("v4/trees-half-applied");
}

/// `cargo test --test it write_the_fixtures_of_whole_directories -- --ignored`, as below.
#[test]
#[ignore = "writes a part of tests/fixtures/v4, which is done once for each version of the format"]
fn write_the_fixtures_of_whole_directories() {
    let disk = SimDisk::new(Model::WeakPosix);
    let store = Store::options().open_on(disk.process()).unwrap();
    let mut tx = store.begin().unwrap();
    OLD.iter().try_for_each(|(path, text)| tx.write(path, text)).unwrap();
    ["gone/f", "replaced/f", "was a directory/f"]
        .iter()
        .try_for_each(|path| tx.write(path, "old\n"))
        .unwrap();
    tx.write("by/f", "the new one\n").unwrap();
    tx.commit().unwrap();
    drop(store);
    disk.settle();
    let published = |disk: &SimDisk| disk.control_names().iter().any(|name| name == "2.pending");
    let has = |disk: &SimDisk, path: &str| disk.files().contains_key(path);
    let half = |disk: &SimDisk| has(disk, "moved/c") == has(disk, "gone/f");
    for (name, disk) in [
        ("v4/trees-pending", killed_with(&disk, change_trees, published)),
        ("v4/trees-half-applied", killed_with(&disk, change_trees, half)),
    ] {
        let _ = fs::remove_dir_all(directory().join(name));
        write_fixture(name, &disk);
        let list = directory().join(format!("{name}.list"));
        let (text, process) = (fs::read_to_string(&list).unwrap(), disk.process());
        let line = |line: &str| match line.strip_prefix("directory ") {
            Some(path) if !path.starts_with(".cosave") => {
                let found = process.identity(&RelativePath::new(path).unwrap()).unwrap().unwrap();
                format!("tree:{} {path}\n", found.inode)
            }
            _ => format!("{line}\n"),
        };
        fs::write(list, text.lines().map(line).collect::<String>()).unwrap();
    }
}

fn change_trees(tx: &mut Transaction) -> cosave::Result<()> {
    tx.rename("d", "moved")?;
    tx.replace_dir("by", "replaced")?;
    tx.remove_dir_all("gone")?;
    tx.remove_dir_all("was a directory")?;
    tx.write("was a directory", "a file\n")
}

/// `cargo test --test it write_the_fixtures_of_format_3 -- --ignored`, as below.
#[test]
#[ignore = "writes tests/fixtures/v3, which is done once for each version of the format"]
fn write_the_fixtures_of_format_3() {
    let _ = fs::remove_dir_all(directory().join("v3"));
    let disk = SimDisk::new(Model::WeakPosix);
    let store = Store::options().open_on(disk.process()).unwrap();
    store.update(|tx| OLD.iter().try_for_each(|(path, text)| tx.write(path, text))).unwrap();
    drop(store);
    disk.settle();
    let published = |disk: &SimDisk| disk.control_names().iter().any(|name| name == "2.pending");
    write_fixture("v3/pending", &killed_with(&disk, change_directories, published));
    let half = |disk: &SimDisk| disk.directories().iter().any(|path| path == "made");
    write_fixture("v3/half-applied", &killed_with(&disk, change_directories, half));
}

fn change_directories(tx: &mut Transaction) -> cosave::Result<()> {
    tx.create_dir_all("made/deep")?;
    tx.remove("d/c")?;
    tx.remove_dir("d")
}

fn killed_with(
    disk: &SimDisk,
    change: impl Fn(&mut Transaction) -> cosave::Result<()>,
    wished: impl Fn(&SimDisk) -> bool,
) -> SimDisk {
    for after in 0..1000 {
        let machine = disk.copy();
        machine.crash_at(Crash { after, reversed: false });
        let _any = Store::options().open_on(machine.process()).and_then(|store| {
            let mut tx = store.begin()?;
            change(&mut tx)?;
            tx.commit()
        });
        if wished(&machine) {
            return machine.kill();
        }
    }
    unreachable!("no step leaves what is wished");
}

/// Writes what is to be seen on a simulated disk, and the list of it.
fn write_fixture(name: &str, disk: &SimDisk) {
    let mut list = String::new();
    fs::create_dir_all(directory().join(name)).unwrap();
    write_directory(&directory().join(name), &*disk.process(), &RelativePath::root(), &mut list);
    fs::write(directory().join(format!("{name}.list")), list).unwrap();
}

fn write_directory(root: &Path, from: &dyn FileSystem, directory: &RelativePath, list: &mut String) {
    let mut entries = from.list(directory).unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries {
        let path = RelativePath::new(directory.as_path().join(entry.name)).unwrap();
        let target = root.join(path.as_path());
        if entry.kind == Kind::Directory {
            fs::create_dir_all(target).unwrap();
            *list += &format!("directory {path}\n");
            write_directory(root, from, &path, list);
            continue;
        }
        if entry.kind == Kind::Symlink {
            *list += &format!("link:{} {path}\n", from.read_link(&path).unwrap().display());
            continue;
        }
        let mut bytes = Vec::new();
        from.open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        fs::write(target, bytes).unwrap();
        let modified = from.metadata(&path).unwrap().modified;
        let stamp = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        *list += &format!("{stamp} {path}\n");
    }
}

#[test]
fn a_root_with_a_history_goes_back_to_every_generation_of_it() {
    let root = copy("history/clean");
    let store = Store::options().keep(5).open(root.path()).unwrap();
    assert_eq!(store.history().unwrap().len(), 3);
    assert_eq!(store.view_at(0).unwrap().walk("").unwrap().len(), 0);
    assert_eq!(store.view_at(1).unwrap().read("d/c").unwrap(), b"old c\n");
    store.redo().unwrap();
    assert_eq!(files(root.path()), expected(&NEW));
    store.restore(1).unwrap();
    assert_eq!(files(root.path()), expected(&OLD));
}

/// `cargo test --test it write_the_fixture_of_a_history -- --ignored`, as below.
#[test]
#[ignore = "writes tests/fixtures/history, which is done once for each form of the history"]
fn write_the_fixture_of_a_history() {
    let _ = fs::remove_dir_all(directory().join("history"));
    let disk = SimDisk::new(Model::WeakPosix);
    let store = Store::options().keep(5).open_on(disk.process()).unwrap();
    store.update(|tx| OLD.iter().try_for_each(|(path, text)| tx.write(path, text))).unwrap();
    let mut tx = store.begin().unwrap();
    NEW.iter().try_for_each(|(path, text)| tx.write(path, text)).unwrap();
    tx.remove("b").unwrap();
    tx.commit().unwrap();
    store.undo().unwrap();
    drop(store);
    disk.settle();
    write_fixture("history/clean", &disk);
}

/// The second commit, killed at the first step after which the disk is as wished.
fn killed(disk: &SimDisk, wished: impl Fn(&SimDisk) -> bool) -> SimDisk {
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(Crash { after, reversed: false });
        let committed = Store::options().open_on(machine.process()).and_then(|store| {
            let mut tx = store.begin()?;
            for (path, text) in NEW {
                tx.write(path, text)?;
            }
            tx.remove("b")?;
            tx.commit()
        });
        if wished(&machine) {
            return machine.kill();
        }
        assert!(committed.is_err(), "no step leaves what is wished");
    }
    unreachable!("a commit has an end")
}

/// `cargo test --test it write_the_fixtures -- --ignored`, then `git add --force tests/fixtures`: the roots'
/// own `.gitignore` hides them from version control.
#[test]
#[ignore = "writes tests/fixtures/v2, which is done once for each version of the format"]
fn write_the_fixtures() {
    let _ = fs::remove_dir_all(directory().join("v2"));
    let disk = SimDisk::new(Model::WeakPosix);
    let store = Store::options().open_on(disk.process()).unwrap();
    let mut tx = store.begin().unwrap();
    for (path, text) in OLD {
        tx.write(path, text).unwrap();
    }
    tx.commit().unwrap();
    drop(store);
    // A save that makes a directory is a long one.
    disk.make_directory("new", 0);
    disk.settle();
    write_fixture("v2/clean", &disk);
    let has = |disk: &SimDisk, path: &str, text: &str| {
        disk.files().get(path).is_some_and(|bytes| bytes == text.as_bytes())
    };
    let published = |disk: &SimDisk| disk.control_names().iter().any(|name| name == "2.pending-inline");
    let pending = killed(&disk, published);
    assert!(has(&pending, "a", "old a\n"));
    write_fixture("v2/pending", &pending);
    for staged in pending.files().into_keys().filter(|path| path.ends_with(".cosave")) {
        pending.delete(&staged);
    }
    write_fixture("v2/power-loss", &pending);
    let half = |disk: &SimDisk| has(disk, "a", "new a\n") && has(disk, "d/c", "old c\n");
    write_fixture("v2/half-applied", &killed(&disk, half));
}
