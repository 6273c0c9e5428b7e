//! What cannot be done is refused, before anything is touched.

use std::fs;
use std::path::{Path, PathBuf};

use cosave::{Error, InvalidPath, Outcome, Store};

use crate::common::{Crash, assert_no_litter, put, quick, sealed, skipped, text, tree};

fn reason(store: &Store, path: impl AsRef<Path>) -> InvalidPath {
    let path = path.as_ref();
    let mut tx = store.begin().unwrap();
    let error = tx.write(path, "x").unwrap_err();
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    match error {
        Error::InvalidPath { reason, .. } => reason,
        other => panic!("{}: {other:?}", path.display()),
    }
}

#[test]
fn paths_that_are_no_targets_are_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let store = quick(root.path());
    let uuid = "0123456789abcdef0123456789abcdef";
    let outside = root.path().parent().unwrap().join("outside");
    let cases = [
        (PathBuf::from(""), InvalidPath::Empty),
        (".".into(), InvalidPath::Empty),
        (outside, InvalidPath::Absolute),
        ("..".into(), InvalidPath::Parent),
        ("../outside".into(), InvalidPath::Parent),
        ("directory/../file".into(), InvalidPath::Parent),
        ("nul\0byte".into(), InvalidPath::Nul),
        (".cosave".into(), InvalidPath::Control),
        (".cosave/lock".into(), InvalidPath::Control),
        (".COSAVE/1.pending".into(), InvalidPath::Control),
        (format!(".file.{uuid}-1-1.cosave").into(), InvalidPath::Staged),
        (format!("directory/.file.{uuid}.cosave").into(), InvalidPath::Staged),
        (format!(".d.{uuid}-1-1.cosave/file").into(), InvalidPath::Staged),
        ("directory".into(), InvalidPath::Directory),
        ("file/below".into(), InvalidPath::NotADirectory),
        ("file/below/deep".into(), InvalidPath::NotADirectory),
        ("n".repeat(256).into(), InvalidPath::TooLong),
        (format!("new/{}", "n".repeat(256)).into(), InvalidPath::TooLong),
    ];
    let before = tree(root.path());
    for (path, expected) in cases {
        assert_eq!(reason(&store, &path), expected, "{}", path.display());
    }
    drop(store);
    assert_eq!(tree(root.path()), before);
    assert_no_litter(root.path());
}

#[test]
fn a_refused_path_leaves_the_rest_of_the_transaction_usable() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    tx.write("a", "1").unwrap();
    tx.write("../b", "2").unwrap_err();
    tx.write("c", "3").unwrap();
    assert_eq!(tx.commit().unwrap().changes().len(), 2);
    assert_eq!(text(root.path().join("a")) + &text(root.path().join("c")), "13");
}

#[test]
fn an_absolute_path_inside_the_root_is_accepted() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    tx.write(root.path().join("d/a"), "1").unwrap();
    assert_eq!(tx.read("d/a").unwrap(), b"1");
    tx.commit().unwrap();
    assert_eq!(store.view().unwrap().read(root.path().join("d/a")).unwrap(), b"1");
}

#[cfg(unix)]
#[test]
fn an_absolute_path_may_name_the_root_as_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("real"), directory.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    std::os::unix::fs::symlink(link.join("target"), real.join("inside")).unwrap();
    let store = quick(&link);
    let mut tx = store.begin().unwrap();
    tx.write(link.join("d/a"), "1").unwrap();
    tx.write(real.join("d/b"), "1").unwrap();
    tx.write("inside", "1").unwrap();
    tx.commit().unwrap();
    for path in ["d/a", "d/b", "target"] {
        assert_eq!(fs::read(real.join(path)).unwrap(), b"1");
    }
    let view = store.view().unwrap();
    assert_eq!(view.list(&link).unwrap(), view.list(&real).unwrap());
    let mut tx = store.begin().unwrap();
    assert!(tx.write(directory.path().join("outside"), "1").is_err());
}

#[test]
fn names_of_255_bytes_work() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let names = ["n".repeat(255), "ü".repeat(127), format!("{}/{}", "d".repeat(255), "e".repeat(255))];
    for content in ["new", "replaced"] {
        let mut tx = store.begin().unwrap();
        for name in &names {
            tx.write(name, content).unwrap();
        }
        tx.commit().unwrap();
    }
    for name in &names {
        assert_eq!(text(root.path().join(name)), "replaced");
    }
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn a_root_must_be_a_directory_that_exists() {
    let root = tempfile::tempdir().unwrap();
    let missing = root.path().join("missing");
    assert!(Store::open(&missing).unwrap_err().is_not_found());
    assert!(!missing.exists());
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == file), "{error:?}");
    assert!(Store::options().create(true).open(&file).is_err());
    let made = root.path().join("made/deep");
    put(&Store::options().create(true).open(&made).unwrap(), &[("a", "1")]);
    assert_eq!(text(made.join("a")), "1");
}

#[test]
fn removing_what_is_not_there_is_an_error_unless_asked() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    assert!(tx.remove("missing").unwrap_err().is_not_found());
    assert!(tx.remove("missing/deep").unwrap_err().is_not_found());
    assert!(!tx.remove_if_exists("missing").unwrap());
    let error = tx.remove("directory").unwrap_err();
    assert!(matches!(error, Error::InvalidPath { reason: InvalidPath::Directory, .. }), "{error:?}");
    assert_eq!(tx.commit().unwrap().changes().len(), 0);
}

/// What a manifest by hand must not do: opening refuses it, and everything stays where it is.
fn assert_refused(root: &Path, pending: &Path, generation: u64) {
    let before = tree(root);
    let bytes = fs::read(pending).unwrap();
    let error = Store::open(root).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if path == pending), "{error:?}");
    assert!(error.to_string().contains("abandon"), "{error}");
    assert_eq!(tree(root), before, "something was moved");
    assert_eq!(fs::read(pending).unwrap(), bytes);
    // The way out: a store that does not recover gives it up. A read-only one changes nothing.
    let look = Store::options().read_only(true).open(root).unwrap();
    assert_eq!(look.status().unwrap().pending, [cosave::Generation::from(generation)]);
    assert!(look.abandon(generation).is_err(), "a read-only store changes nothing");
}

/// A root with one commit, and a pending manifest of a second that writes `a` and `b`.
fn crashed(root: &Path) -> PathBuf {
    put(&quick(root), &[("a", "old a"), ("b", "old b")]);
    let mut crash = Crash::new(root);
    crash.write("a", "the new a");
    crash.write("b", "the new b");
    crash.publish(2)
}

#[test]
fn a_truncated_manifest_is_refused_and_everything_stays() {
    let root = tempfile::tempdir().unwrap();
    let pending = crashed(root.path());
    let whole = fs::read(&pending).unwrap();
    for length in [0, 1, 20, 80, whole.len() / 2, whole.len() - 1] {
        fs::write(&pending, &whole[..length]).unwrap();
        assert_refused(root.path(), &pending, 2);
    }
    fs::write(&pending, &whole).unwrap();
    Store::open(root.path()).unwrap();
    assert_eq!(text(root.path().join("b")), "the new b");
}

#[test]
fn a_manifest_with_a_flipped_bit_is_refused_and_everything_stays() {
    let root = tempfile::tempdir().unwrap();
    let pending = crashed(root.path());
    let whole = fs::read(&pending).unwrap();
    for position in (0..whole.len()).step_by(whole.len() / 12) {
        let mut flipped = whole.clone();
        flipped[position] ^= 4;
        fs::write(&pending, &flipped).unwrap();
        assert_refused(root.path(), &pending, 2);
    }
}

#[test]
fn a_manifest_of_a_later_version_is_refused_and_everything_stays() {
    let root = tempfile::tempdir().unwrap();
    let pending = crashed(root.path());
    fs::write(&pending, sealed("5", "{\"something\":\"else\"}\n")).unwrap();
    assert_refused(root.path(), &pending, 2);
    let error = Store::open(root.path()).unwrap_err();
    assert!(error.to_string().contains("version 5"), "{error}");
}

#[test]
fn a_forged_manifest_leads_nowhere_outside_the_root() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    let outside = outer.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    let checksum = blake3::hash(b"evil").to_hex().to_string();
    let entry = |path: &str, staged: &str| {
        serde_json::json!({
            "path": path, "operation": "write", "staged": staged, "length": 4, "modified": 0,
            "mode": 0o644, "blake3": checksum, "before": null,
        })
    };
    let remove = |path: &str| serde_json::json!({"path": path, "operation": "remove", "before": null});
    let name = |crash: &Crash| crash.staged_name("x", 1);
    let forgeries: [&dyn Fn(&Crash) -> serde_json::Value; 9] = [
        &|crash| entry("../outside", &name(crash)),
        &|crash| entry(outside.to_str().unwrap(), &name(crash)),
        &|crash| entry("x", &format!("../{}", name(crash))),
        &|_| entry("x", "innocent"),
        &|_| remove("../outside"),
        &|_| remove(outside.to_str().unwrap()),
        &|_| remove(".cosave/lock"),
        &|crash| remove(&name(crash)),
        &|_| remove(""),
    ];
    for (number, forgery) in forgeries.iter().enumerate() {
        let mut crash = Crash::new(&root);
        fs::write(root.join("innocent"), "evil").unwrap();
        crash.forge(forgery(&crash));
        let pending = crash.publish(1);
        println!("forgery {number}");
        assert_refused(&root, &pending, 1);
        assert_eq!(text(&outside), "precious");
    }
}

#[cfg(unix)]
#[test]
fn a_forged_manifest_does_not_follow_a_link_out_of_the_root() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let outside = outer.path().join("outside");
    fs::create_dir(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
    let mut crash = Crash::new(&root);
    let staged = crash.write("link/file", "evil");
    crash.remove("link/other");
    crash.publish(1);
    let opened = Store::open(&root);
    assert!(opened.is_err(), "the link was followed");
    assert_eq!(text(outside.join("file")), "precious");
    assert_eq!(text(staged), "evil");
}

#[test]
fn a_corrupt_generation_can_be_abandoned() {
    let root = tempfile::tempdir().unwrap();
    // Opened before the damage: the way out must not need a root that opens.
    put(&quick(root.path()), &[("a", "old a"), ("b", "old b")]);
    let store = quick(root.path());
    let mut crash = Crash::new(root.path());
    let staged = crash.write("a", "the new a");
    let pending = crash.publish(2);
    fs::write(&pending, "garbage").unwrap();
    assert!(matches!(store.recover().unwrap_err(), Error::Corrupt { .. }));
    assert!(matches!(store.view().unwrap_err(), Error::Corrupt { .. }));
    let mut tx = store.begin().unwrap();
    tx.write("b", "3").unwrap();
    assert!(matches!(tx.commit().unwrap_err(), Error::Corrupt { .. }));
    assert!(store.abandon(3).is_err(), "generation 3 is not pending");
    store.abandon(2).unwrap();
    assert_eq!(text(root.path().join("a")), "old a");
    assert_eq!(put(&store, &[("b", "after")]).generation(), 3);
    assert!(staged.exists(), "nobody knows whose it is");
    drop(store);
    assert!(Store::open(root.path()).unwrap().last_recovery().is_clean());
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::process::Command;

    use crate::common::{ROOT, child_arguments, child_root, run};

    #[test]
    fn a_link_out_of_the_root_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(outer.path().join("outside"), "precious").unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink(outer.path().join("outside"), root.join("absolute")).unwrap();
        symlink(outer.path(), root.join("parent")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let store = quick(&root);
        for path in ["relative", "absolute", "parent/outside", "parent/new"] {
            assert_eq!(reason(&store, path), InvalidPath::Escapes, "{path}");
            let error = store.view().unwrap().read(path).unwrap_err();
            assert!(matches!(error, Error::InvalidPath { .. }), "{path}: {error:?}");
        }
        assert_eq!(reason(&store, "loop"), InvalidPath::NotADirectory);
        assert_eq!(text(outer.path().join("outside")), "precious");
    }

    #[test]
    fn a_link_inside_the_root_is_kept_and_its_file_replaced() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::write(root.join("real/file"), "old").unwrap();
        symlink("real/file", root.join("link")).unwrap();
        symlink(root.join("real/file"), root.join("absolute")).unwrap();
        symlink("real", root.join("parent")).unwrap();
        symlink("../file", root.join("real/deep/up")).unwrap();
        let store = quick(root);
        for path in ["link", "absolute", "parent/file", "parent/deep/up"] {
            let mut tx = store.begin().unwrap();
            tx.write(path, path).unwrap();
            assert_eq!(tx.read("real/file").unwrap(), path.as_bytes());
            assert_eq!(tx.changes().unwrap()[0].path().to_string(), "real/file");
            tx.commit().unwrap();
            assert_eq!(text(root.join("real/file")), path);
            assert_eq!(store.view().unwrap().read(path).unwrap(), path.as_bytes());
        }
        put(&store, &[("parent/new/file", "through a parent")]);
        assert_eq!(text(root.join("real/new/file")), "through a parent");
        for link in ["link", "absolute", "parent", "real/deep/up"] {
            assert!(root.join(link).is_symlink(), "{link} was replaced");
        }
        drop(store);
        assert_no_litter(root);
    }

    /// A directory is looked up once in a transaction. After a link to a file of the same name elsewhere,
    /// the link's directory was taken for that one. Every later write beside the link went there, and
    /// replaced what it found. All links in the tests had other names than what they led to.
    #[test]
    fn a_link_beside_other_files_leads_only_itself_elsewhere() {
        let names = ["p/a", "p/link", "p/b", "p/other", "p/c"];
        for order in [[0, 1, 2, 3, 4], [1, 0, 3, 2, 4], [1, 3, 4, 2, 0]] {
            let root = tempfile::tempdir().unwrap();
            let root = root.path();
            for directory in ["p", "q"] {
                fs::create_dir(root.join(directory)).unwrap();
            }
            symlink("../q/linked", root.join("p/link")).unwrap();
            symlink("../q/other", root.join("p/other")).unwrap();
            let files = order.map(|index| (names[index], names[index]));
            put(&quick(root), &files);
            let read = |path: &str| text(root.join(path));
            assert_eq!(["p/a", "p/b", "p/c"].map(read), ["p/a", "p/b", "p/c"]);
            assert_eq!(["q/linked", "q/other"].map(read), ["p/link", "p/other"]);
            assert!(root.join("p/link").is_symlink() && root.join("p/other").is_symlink());
            assert_eq!(fs::read_dir(root.join("q")).unwrap().count(), 2);
        }
    }

    #[test]
    fn as_many_links_are_followed_as_the_system_follows() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for number in 1..=41 {
            symlink(format!("{}", number - 1), root.join(number.to_string())).unwrap();
        }
        fs::write(root.join("0"), "old").unwrap();
        let store = quick(root);
        assert!(fs::read(root.join("40")).is_ok() && fs::read(root.join("41")).is_err());
        put(&store, &[("40", "new")]);
        assert_eq!(text(root.join("0")), "new");
        assert_eq!(reason(&store, "41"), InvalidPath::NotADirectory);
    }

    #[test]
    fn a_link_to_what_is_missing_makes_it() {
        let root = tempfile::tempdir().unwrap();
        symlink("made", root.path().join("link")).unwrap();
        put(&quick(root.path()), &[("link", "x")]);
        assert_eq!(text(root.path().join("made")), "x");
        assert!(root.path().join("link").is_symlink());
    }

    #[test]
    fn two_spellings_of_one_file_are_one_file() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        symlink("real", root.path().join("parent")).unwrap();
        let store = quick(root.path());
        let mut tx = store.begin().unwrap();
        tx.write("real/a", "first").unwrap();
        tx.write("parent//./a", "second").unwrap();
        assert_eq!(tx.commit().unwrap().changes().len(), 1);
        assert_eq!(text(root.path().join("real/a")), "second");
    }

    #[test]
    fn a_pipe_is_no_target_and_nobody_waits_for_it() {
        let root = tempfile::tempdir().unwrap();
        let made = Command::new("mkfifo").arg(root.path().join("pipe")).status();
        assert!(made.unwrap().success());
        let store = quick(root.path());
        assert_eq!(reason(&store, "pipe"), InvalidPath::Special);
        let error = cosave::write(root.path().join("pipe"), "x").unwrap_err();
        assert!(matches!(error, Error::InvalidPath { reason: InvalidPath::Special, .. }), "{error:?}");
        let mut tx = store.begin().unwrap();
        assert!(tx.remove("pipe").is_err());
    }

    #[test]
    fn a_hard_link_is_replaced_for_itself() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        fs::write(&one, "old").unwrap();
        fs::hard_link(&one, &two).unwrap();
        let store = quick(root.path());
        put(&store, &[("one", "new")]);
        assert_eq!((text(&one).as_str(), text(&two).as_str()), ("new", "old"));
        put(&store, &[("one", "both"), ("two", "each")]);
        assert_eq!((text(&one).as_str(), text(&two).as_str()), ("both", "each"));
        assert_eq!(fs::metadata(&one).unwrap().nlink(), 1);
    }

    #[test]
    fn what_may_not_be_written_is_refused_as_the_standard_library_would() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("read-only");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
        let allowed = fs::OpenOptions::new().write(true).open(&file).is_ok();
        let store = quick(root.path());
        let mut tx = store.begin().unwrap();
        let result = tx.write("read-only", "new");
        assert_eq!(result.is_ok(), allowed, "{result:?}");
    }

    #[test]
    fn without_permission_nothing_happens() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        // Root may do anything, so a child that is nobody does it; it needs the program in a place
        // that it can reach.
        let program = path.join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let inner = path.join("inner");
        fs::create_dir_all(inner.join("closed")).unwrap();
        fs::write(inner.join("read-only"), "old").unwrap();
        fs::write(inner.join("closed/file"), "old").unwrap();
        let mut command = Command::new(&program);
        command.args(child_arguments("bad_input::unix::child_without_permission"));
        command.env(ROOT, &inner).current_dir(path).stdout(std::process::Stdio::piped());
        if rustix::process::geteuid().is_root() {
            use std::os::unix::process::CommandExt as _;
            let nobody = Some(65534);
            for name in ["inner", "inner/read-only", "inner/closed", "inner/closed/file"] {
                std::os::unix::fs::chown(path.join(name), nobody, nobody).unwrap();
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            fs::create_dir(inner.join("sticky")).unwrap();
            fs::set_permissions(inner.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
            fs::write(inner.join("sticky/anothers"), "old").unwrap();
            let all = fs::Permissions::from_mode(0o666);
            fs::set_permissions(inner.join("sticky/anothers"), all).unwrap();
            fs::create_dir(inner.join("sticky/directory")).unwrap();
            fs::write(inner.join("program"), "#!/bin/sh").unwrap();
            for (name, mode) in [("sticky/directory", 0o777), ("program", 0o6777)] {
                fs::set_permissions(inner.join(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            command.uid(65534).gid(65534);
        }
        let mode = |name: &str, mode| fs::set_permissions(inner.join(name), fs::Permissions::from_mode(mode));
        mode("read-only", 0o444).unwrap();
        mode("closed", 0o555).unwrap();
        run(command);
        assert_eq!(text(inner.join("read-only")), "old");
        assert_eq!(text(inner.join("closed/file")), "old");
        assert_eq!(text(inner.join("allowed")), "new");
        assert_no_litter(&inner);
        mode("closed", 0o755).unwrap();
    }

    /// In a sticky directory another's file can be written, but neither replaced nor removed.
    fn refuses_what_a_sticky_directory_keeps(store: &Store) {
        let (mut replace, mut remove) = (store.begin().unwrap(), store.begin().unwrap());
        let error = match replace.write("sticky/anothers", "new") {
            Err(error) => error,
            Ok(()) => replace.commit().unwrap_err(),
        };
        assert_eq!(error.outcome(), Outcome::NothingHappened, "{error:?}");
        let error = match remove.remove("sticky/anothers") {
            Err(error) => error,
            Ok(()) => remove.commit().unwrap_err(),
        };
        assert_eq!(error.outcome(), Outcome::NothingHappened, "{error:?}");
        let mut remove = store.begin().unwrap();
        // It passed the commit point, and nobody but the owner could commit here any more.
        let error = match remove.remove_dir("sticky/directory") {
            Err(error) => error,
            Ok(()) => remove.commit().unwrap_err(),
        };
        assert_eq!(error.outcome(), Outcome::NothingHappened, "{error:?}");
        put(store, &[("sticky/own", "new"), ("sticky/directory/own", "new")]);
        put(store, &[("sticky/own", "again")]);
        let mut prune = store.begin().unwrap();
        prune.remove("sticky/directory/own").unwrap();
        prune.prune_empty_parents();
        prune.commit().unwrap();
    }

    /// Permissions that were taken away between a change of a directory and its commit were only found
    /// after the commit point. Then nobody could commit here any more.
    fn refuses_directories_that_were_closed_meanwhile(store: &Store, root: &Path) {
        fs::create_dir_all(root.join("shut/old")).unwrap();
        let (mut make, mut remove) = (store.begin().unwrap(), store.begin().unwrap());
        make.create_dir("shut/new").unwrap();
        remove.remove_dir("shut/old").unwrap();
        fs::set_permissions(root.join("shut"), fs::Permissions::from_mode(0o555)).unwrap();
        for tx in [make, remove] {
            let error = tx.commit().unwrap_err();
            assert_eq!(error.outcome(), Outcome::NothingHappened, "{error:?}");
            assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::PermissionDenied);
        }
        put(store, &[("allowed", "after")]);
        fs::set_permissions(root.join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
        store.update(|tx| tx.remove_dir("shut/old")).unwrap();
        assert!(!root.join("shut/new").exists() && !root.join("shut/old").exists());
        store.update(|tx| tx.remove_dir("shut")).unwrap();
        store.update(|tx| tx.remove("allowed")).unwrap();
    }

    /// A moved program of another user belonged to whoever moved it, and still had its set-ID bits. So what
    /// the other user had written ran with the rights of the mover.
    fn moves_no_set_id_bit_of_another_user(store: &Store, root: &Path) {
        let mut tx = store.begin().unwrap();
        tx.rename("program", "moved").unwrap();
        tx.commit().unwrap();
        let moved = fs::metadata(root.join("moved")).unwrap();
        assert_eq!(moved.permissions().mode() & 0o7777, 0o777);
    }

    #[test]
    #[ignore = "child of without_permission_nothing_happens"]
    fn child_without_permission() {
        let Some(root) = child_root() else { return };
        let store = Store::open(&root).unwrap();
        refuses_directories_that_were_closed_meanwhile(&store, &root);
        let mut tx = store.begin().unwrap();
        for path in ["read-only", "closed/file", "closed/new", "closed/new/deep"] {
            let mut tx = store.begin().unwrap();
            tx.write("allowed", "half").unwrap();
            // Refused at once, or by the commit, but never after the commit point.
            let error = match tx.write(path, "new") {
                Err(error) => error,
                Ok(()) => tx.commit().unwrap_err(),
            };
            assert_eq!(error.outcome(), Outcome::NothingHappened, "{error:?}");
            let kind = std::io::Error::from(error).kind();
            assert_eq!(kind, std::io::ErrorKind::PermissionDenied, "{path}");
            assert!(!root.join("allowed").exists());
        }
        // A removal stages nothing, and yet must be refused before the commit point.
        let error = match tx.remove("closed/file") {
            Err(error) => error,
            Ok(()) => tx.commit().unwrap_err(),
        };
        assert_eq!(error.outcome(), Outcome::NothingHappened, "{error:?}");
        assert!(cosave::write(root.join("read-only"), "new").is_err());
        if root.join("sticky").exists() {
            refuses_what_a_sticky_directory_keeps(&store);
            moves_no_set_id_bit_of_another_user(&store, &root);
        }
        put(&store, &[("allowed", "new")]);
    }
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_nobody_may_change_is_refused_before_the_commit_point() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("immutable");
        fs::write(&file, "old").unwrap();
        let store = quick(root.path());
        let chattr = |flag| Command::new("chattr").arg(flag).arg(&file).output();
        if !chattr("+i").is_ok_and(|output| output.status.success()) {
            let test = "a_file_that_nobody_may_change_is_refused_before_the_commit_point";
            skipped(test, "files cannot be made immutable");
            return;
        }
        let (mut replace, mut remove) = (store.begin().unwrap(), store.begin().unwrap());
        replace.write("beside", "new").unwrap();
        let replaced = replace.write("immutable", "new").and_then(|()| replace.commit().map(drop));
        let removed = remove.remove("immutable").and_then(|()| remove.commit().map(drop));
        chattr("-i").unwrap();
        for result in [replaced, removed] {
            let error = result.unwrap_err();
            assert_eq!(error.outcome(), Outcome::NothingHappened, "{error:?}");
        }
        assert!(!root.path().join("beside").exists());
        put(&store, &[("immutable", "new")]);
    }
}
