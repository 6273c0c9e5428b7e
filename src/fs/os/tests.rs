//! What the real file system promises the protocol.

use std::io::Write as _;

use super::*;
use crate::fs::{Barrier, LockKind, NewFile, Wave};

fn fixture() -> (tempfile::TempDir, OsFileSystem) {
    let directory = tempfile::tempdir().expect("a directory");
    let fs = OsFileSystem::open(directory.path(), None, Parents::Leave).expect("a root");
    (directory, fs)
}

fn path(text: &str) -> RelativePath {
    RelativePath::new(text).expect("a valid path")
}

fn make(fs: &OsFileSystem, name: &str, bytes: &[u8]) -> Unsynced {
    let (mut file, debt) = fs.create_new(&path(name), NewFile::Ordinary).expect("made");
    file.write_all(bytes).expect("written");
    debt.and(file.finish().expect("finished").1)
}

#[test]
fn a_new_file_is_made_once() {
    let (_root, fs) = fixture();
    make(&fs, "a", b"1").waive("the test needs no sync");
    let again = fs.create_new(&path("a"), NewFile::Private).expect_err("exists");
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn a_rename_replaces_and_the_open_file_stays_readable() {
    let (root, fs) = fixture();
    make(&fs, "a", b"new").and(make(&fs, "b", b"old")).waive("the test needs no sync");
    let mut open = fs.open(&path("b")).expect("open");
    if cfg!(unix) {
        fs.rename(&path("a"), &path("b")).expect("renamed").waive("the test needs no sync");
        assert_eq!(std::fs::read(root.path().join("b")).expect("read"), b"new");
    }
    let mut text = String::new();
    open.read_to_string(&mut text).expect("read");
    assert_eq!(text, "old");
}

#[test]
fn a_wave_of_many_files_is_synced() {
    let (_root, fs) = fixture();
    for strategy in [SyncStrategy::PerFile, SyncStrategy::FileSystem] {
        let mut wave = Wave::new(Barrier::Staged);
        for number in 0..300 {
            wave.add(make(&fs, &format!("{strategy:?}{number}"), b"x"));
        }
        fs.sync(wave, strategy).map(|_| ()).expect("synced");
    }
}

#[test]
fn two_locks_of_an_existing_file_exclude_each_other_within_one_process() {
    let (_root, fs) = fixture();
    let lock = path("lock");
    let error = fs.try_lock(&lock, LockKind::Shared).map(|_| ()).expect_err("absent");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    make(&fs, "lock", b"").waive("the test needs no sync");
    let held = fs.try_lock(&lock, LockKind::Exclusive).expect("tried").expect("free");
    assert!(fs.try_lock(&lock, LockKind::Shared).expect("tried").is_none());
    drop(held);
    let shared = fs.try_lock(&lock, LockKind::Shared).expect("tried").expect("free");
    assert!(fs.try_lock(&lock, LockKind::Shared).expect("tried").is_some());
    assert!(fs.try_lock(&lock, LockKind::Exclusive).expect("tried").is_none());
    drop(shared);
}

#[test]
#[cfg(unix)]
fn no_symlink_is_followed() {
    let (root, fs) = fixture();
    let outside = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(outside.path(), root.path().join("out")).expect("linked");
    for result in [
        fs.create_new(&path("out/a"), NewFile::Ordinary).map(|_| ()),
        fs.metadata(&path("out/a")).map(|_| ()),
        fs.list(&path("out")).map(|_| ()),
        fs.create_dir(&path("out/d")).map(|_| ()),
    ] {
        assert_eq!(result.expect_err("refused").kind(), io::ErrorKind::NotADirectory);
    }
    assert_eq!(std::fs::read_dir(outside.path()).expect("listed").count(), 0);
}

#[test]
fn a_directory_that_was_replaced_is_looked_up_anew() {
    let (root, fs) = fixture();
    std::fs::create_dir(root.path().join("d")).expect("made");
    make(&fs, "d/a", b"1").waive("the test needs no sync");
    std::fs::rename(root.path().join("d"), root.path().join("e")).expect("moved");
    std::fs::create_dir(root.path().join("d")).expect("made");
    fs.forget_directories();
    make(&fs, "d/b", b"2").waive("the test needs no sync");
    assert!(root.path().join("d/b").exists());
}

#[test]
fn the_control_directory_can_lie_elsewhere() {
    let (root, elsewhere) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    let control = elsewhere.path().join("control");
    let fs = OsFileSystem::open(root.path(), Some(&control), Parents::Make).expect("a root");
    let mut wave = Wave::new(Barrier::Create);
    wave.add(fs.create_dir(&path(CONTROL_DIRECTORY)).expect("made"));
    wave.add(make(&fs, ".cosave/a", b"1"));
    fs.sync(wave, SyncStrategy::Auto).map(|_| ()).expect("synced");
    assert!(control.join("a").exists());
    assert!(!root.path().join(CONTROL_DIRECTORY).exists());
}

#[cfg(target_os = "linux")]
#[test]
fn the_time_since_the_machine_was_started_has_one_id() {
    let (one, two) = (fixture(), fixture());
    assert!(one.1.boot().is_some());
    assert_eq!(one.1.boot(), two.1.boot());
}

#[test]
fn a_directory_that_is_gone_owes_nothing() {
    let (_root, fs) = fixture();
    let mut wave = Wave::new(Barrier::Applied);
    wave.add(Unsynced::directory(path("gone")));
    // A file has taken its place.
    make(&fs, "file", b"1").waive("a test");
    wave.add(Unsynced::directory(path("file")));
    wave.add(Unsynced::directory(path("file/below")));
    fs.sync(wave, SyncStrategy::PerFile).map(|_| ()).expect("nothing to lose");
}

/// A directory was removed and made anew while a handle of the old one was cached. Every call below it
/// failed until the cache was dropped.
#[test]
fn a_directory_that_was_removed_and_made_anew_is_looked_up_at_once() {
    let (root, fs) = fixture();
    let below = |name: &str| root.path().join(name);
    std::fs::create_dir_all(below("d/e")).expect("made");
    make(&fs, "d/e/a", b"1").waive("a test");
    std::fs::remove_dir_all(below("d")).expect("removed");
    let gone = fs.metadata(&path("d/e/a")).expect_err("gone");
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    std::fs::create_dir_all(below("d/e")).expect("made");
    make(&fs, "d/e/b", b"2").waive("a test");
    assert!(below("d/e/b").exists());
    std::fs::remove_dir_all(below("d")).expect("removed");
    std::fs::create_dir_all(below("d/e")).expect("made");
    make(&fs, "c", b"3").waive("a test");
    fs.rename(&path("c"), &path("d/e/c")).expect("renamed").waive("a test");
    assert!(below("d/e/c").exists());
}

#[cfg(unix)]
mod rights {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    /// The umask of the first committer must not decide who can commit later.
    #[test]
    fn the_control_directory_is_as_open_as_the_root() {
        for (root_mode, directory_mode, file_mode) in [
            (0o755, 0o755, 0o644),
            (0o700, 0o700, 0o600),
            (0o775, 0o775, 0o664),
            (0o770, 0o770, 0o660),
            (0o2775, 0o2775, 0o664),
            (0o1777, 0o1777, 0o666),
            (0o711, 0o711, 0o600),
            (0o555, 0o755, 0o644),
        ] {
            let (root, fs) = fixture();
            std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(root_mode)).expect("set");
            if root_mode & 0o200 == 0 && !rustix::process::geteuid().is_root() {
                continue;
            }
            let control = path(CONTROL_DIRECTORY);
            fs.create_dir(&control).expect("made").waive("a test");
            make(&fs, ".cosave/a", b"1").waive("a test");
            let control = root.path().join(CONTROL_DIRECTORY);
            assert_eq!(format!("{:o}", mode(&control)), format!("{directory_mode:o}"));
            assert_eq!(format!("{:o}", mode(&control.join("a"))), format!("{file_mode:o}"));
        }
    }

    /// One commit with `sudo` made the control directory unusable for the root's owner.
    #[test]
    fn what_a_privileged_process_makes_belongs_to_the_roots_owner() {
        let (root, fs) = fixture();
        if std::os::unix::fs::chown(root.path(), Some(12345), Some(54321)).is_err() {
            // Only a privileged process can give files away.
            return;
        }
        let control = path(CONTROL_DIRECTORY);
        std::fs::create_dir(root.path().join(CONTROL_DIRECTORY)).expect("made by somebody killed then");
        assert!(fs.create_dir(&control).is_err());
        make(&fs, ".cosave/a", b"1").waive("a test");
        for name in ["", "a"] {
            let made = std::fs::metadata(root.path().join(CONTROL_DIRECTORY).join(name)).expect("there");
            assert_eq!((made.uid(), made.gid()), (12345, 54321), "{name}");
        }
    }
}

/// What a change owes, as the wave that makes it durable sees it.
fn owed(debt: Unsynced) -> (usize, Vec<String>) {
    let mut wave = Wave::new(Barrier::Staged);
    wave.add(debt);
    let (files, directories) = wave.into_parts();
    (files.len(), directories.iter().map(ToString::to_string).collect())
}

/// If a change owed too little, no barrier would sync it, and only a power loss would show it.
#[test]
fn every_change_owes_the_sync_of_each_directory_whose_names_it_changed() {
    let (_root, fs) = fixture();
    let directory = |name: &str| vec![name.to_owned()];
    assert_eq!(owed(fs.create_dir(&path("d")).expect("made")), (0, directory(".")));
    assert_eq!(owed(fs.create_dir(&path("e")).expect("made")), (0, directory(".")));
    let (file, name) = fs.create_new(&path("d/a"), NewFile::Ordinary).expect("made");
    assert_eq!(owed(name), (0, directory("d")));
    assert_eq!(owed(file.finish().expect("finished").1), (1, vec![]));
    assert_eq!(owed(fs.inherit(&path("d/a")).expect("opened")), (1, vec![]));
    assert_eq!(owed(fs.link(&path("d/a"), &path("e/b")).expect("linked")), (0, directory("e")));
    let both = vec!["d".to_owned(), "e".to_owned()];
    assert_eq!(owed(fs.rename(&path("d/a"), &path("e/c")).expect("moved")), (0, both));
    assert_eq!(owed(fs.remove_file(&path("e/c")).expect("removed")), (0, directory("e")));
    assert_eq!(owed(fs.remove_dir(&path("d")).expect("removed")), (0, directory(".")));
}

/// A replaced file lost what its user had noted on it. What is about its bytes, or gives rights, must go.
#[cfg(target_os = "linux")]
#[test]
fn a_replaced_file_keeps_the_attributes_of_its_user() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let (root, fs) = fixture();
    make(&fs, "old", b"1").and(make(&fs, "plain", b"1")).waive("the test needs no sync");
    let at = |name: &str| root.path().join(name);
    let long = vec![7; 2000];
    for (name, value) in [("user.note", b"kept".as_slice()), ("user.long", &long)] {
        if setxattr(at("old"), name, value, XattrFlags::empty()).is_err() {
            return;
        }
    }
    // Only the administrator can set this one.
    let _ = setxattr(at("old"), "trusted.test", b"1", XattrFlags::empty());
    for (like, is_kept) in [("old", true), ("plain", false)] {
        let model = fs.metadata(&path(like)).expect("looked at");
        let (mut file, name) = fs.create_new(&path(&format!("new {like}")), NewFile::Private).expect("made");
        file.copy_permissions(&path(like), &model).expect("copied");
        name.and(file.finish().expect("finished").1).waive("the test needs no sync");
        let mut buffer = vec![0; 4000];
        let made = at(&format!("new {like}"));
        let mut value = |name: &str| {
            let length = getxattr(&made, name, &mut buffer[..]).ok()?;
            Some(buffer[..length].to_vec())
        };
        assert_eq!(value("user.note"), is_kept.then(|| b"kept".to_vec()), "{like}");
        assert_eq!(value("user.long"), is_kept.then(|| long.clone()), "{like}");
        assert_eq!(value("trusted.test"), None, "{like}");
    }
}

/// Somebody had emptied a file that grows. When its last record was to be cut off, it became long again, with
/// zeros in its midst.
#[test]
fn a_file_that_others_have_cut_is_never_made_longer() {
    let (_root, fs) = fixture();
    let (mut file, name) = fs.open_to_append(&path("log"), NewFile::Ordinary).expect("open");
    name.waive("the test needs no sync");
    file.append(b"12345678").expect("appended");
    file.cut(2).expect("cut");
    file.cut(4).expect("left alone");
    assert_eq!(file.length().expect("a length"), 2);
}
