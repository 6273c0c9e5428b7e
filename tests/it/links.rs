//! Symlinks in a transaction, on the real file system.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cosave::{
    Change, Clash, Error, Expect, FileKind, InvalidPath, Problem, Store, SyncStrategy, Transaction,
};

use crate::common::{assert_no_litter, invalid, put, quick, text};

fn leads(path: impl AsRef<Path>) -> PathBuf {
    fs::read_link(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn symlinks_are_made_replaced_and_removed_with_the_files_of_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = Store::open(dir.path()).unwrap();
    let texts = ["releases/1", "/absolute/nowhere", "../outside", "itself", "a//b/./c/"];
    let mut tx = store.begin().unwrap();
    tx.write("releases/1/app", "one").unwrap();
    for (number, to) in texts.iter().enumerate() {
        tx.symlink(format!("links/{number}"), to).unwrap();
    }
    tx.commit().unwrap();
    for (number, to) in texts.iter().enumerate() {
        assert_eq!(leads(at(&format!("links/{number}"))), Path::new(to));
        assert_eq!(store.view().unwrap().read_link(format!("links/{number}")).unwrap(), Path::new(to));
    }
    assert!(store.verify().unwrap().is_empty());

    let mut tx = store.begin().unwrap();
    tx.symlink("links/0", "../releases/2").unwrap();
    tx.write("releases/2/app", "two").unwrap();
    tx.remove("links/1").unwrap();
    assert!(tx.remove_if_exists("links/2").unwrap());
    tx.commit().unwrap();
    assert_eq!(text(at("links/0/app")), "two");
    assert_eq!(text(at("releases/1/app")), "one");
    assert!(!at("links/1").is_symlink() && !at("links/2").is_symlink());
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn removing_a_symlink_leaves_what_it_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(outside.path().join("file"), "outside").unwrap();
    fs::create_dir(at("d")).unwrap();
    fs::write(at("a"), "kept").unwrap();
    symlink("a", at("to a file")).unwrap();
    symlink("d", at("to a directory")).unwrap();
    symlink(outside.path(), at("to outside")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut tx = store.begin().unwrap();
    for link in ["to a file", "to a directory", "to outside", "dangling"] {
        tx.remove(link).unwrap();
        assert!(!tx.remove_if_exists(link).unwrap(), "{link} is removed twice");
    }
    tx.commit().unwrap();
    for link in ["to a file", "to a directory", "to outside", "dangling"] {
        assert!(!at(link).is_symlink(), "{link}");
    }
    assert_eq!((text(at("a")), text(outside.path().join("file"))), ("kept".to_owned(), "outside".to_owned()));
    assert!(at("d").is_dir());
}

#[test]
fn a_file_becomes_a_symlink_and_a_symlink_a_file_with_the_mode_of_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("file", "1"), ("target", "kept"), ("new", "")]);
    fs::set_permissions(at("target"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("target", at("link")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.symlink("file", "target").unwrap();
    tx.remove("link").unwrap();
    tx.write("link", "a file").unwrap();
    tx.commit().unwrap();
    assert_eq!(leads(at("file")), Path::new("target"));
    assert!(!at("link").is_symlink());
    assert_eq!((text(at("link")), text(at("target"))), ("a file".to_owned(), "kept".to_owned()));
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("link"), mode("new"));
    store.update(|tx| tx.write("file", "through it")).unwrap();
    assert_eq!(leads(at("file")), Path::new("target"));
    assert_eq!(text(at("target")), "through it");
}

/// Each pair of changes of one path, and what is there then.
#[test]
fn the_last_change_of_a_path_counts() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = quick(dir.path());
    let mut tx = store.begin().unwrap();
    tx.write("a", "1").unwrap();
    tx.symlink("a", "x").unwrap();
    tx.symlink("b", "x").unwrap();
    tx.write("b", "1").unwrap();
    tx.symlink("c", "x").unwrap();
    tx.symlink("c", "y").unwrap();
    tx.symlink("d", "x").unwrap();
    tx.remove("d").unwrap();
    tx.commit().unwrap();
    assert_eq!((leads(at("a")), text(at("b")), leads(at("c"))), ("x".into(), "1".to_owned(), "y".into()));
    assert!(!at("d").is_symlink());
    let mut tx = store.begin().unwrap();
    tx.remove("a").unwrap();
    tx.symlink("a", "z").unwrap();
    tx.symlink("c", "z").unwrap();
    tx.remove("c").unwrap();
    tx.commit().unwrap();
    assert_eq!(leads(at("a")), Path::new("z"));
    assert!(!at("c").is_symlink());
}

#[test]
fn a_symlink_that_cannot_be_is_refused_before_anything_is_staged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("d/a", "1"), ("file", "1")]);
    let mut tx = store.begin().unwrap();
    let long = "x".repeat(4096);
    for (path, to, reason) in [
        ("d", "x", InvalidPath::Directory),
        ("file/below", "x", InvalidPath::NotADirectory),
        ("../out", "x", InvalidPath::Parent),
        (".cosave/x", "x", InvalidPath::Control),
        ("l", "", InvalidPath::Empty),
        ("l", "a\0b", InvalidPath::Nul),
        ("l", &long, InvalidPath::TooLong),
    ] {
        let refused = tx.symlink(path, to).unwrap_err();
        assert_eq!(invalid(&refused), Some(reason), "{path} -> {to}: {refused}");
    }
    tx.create_dir("made").unwrap();
    assert_eq!(invalid(&tx.symlink("made", "x").unwrap_err()), Some(InvalidPath::Directory));
    assert_eq!(tx.changes().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(), ["create  made/"]);

    // Nothing leads through a symlink before the commit, and nothing lies below one.
    tx.symlink("l", "d").unwrap();
    for refused in [
        tx.write("l/x", "1").unwrap_err(),
        tx.read("l/a").unwrap_err(),
        tx.symlink("l/m", "x").unwrap_err(),
        tx.create_dir("l/x").unwrap_err(),
        tx.remove("l/a").unwrap_err(),
    ] {
        assert_eq!(invalid(&refused), Some(InvalidPath::Contradiction), "{refused}");
    }
    for refused in [
        tx.read("l").unwrap_err(),
        tx.copy("l", "m").unwrap_err(),
        tx.rename("l", "m").unwrap_err(),
        tx.set_permissions("l", 0o600).unwrap_err(),
    ] {
        assert_eq!(invalid(&refused), Some(InvalidPath::Symlink), "{refused}");
    }
    assert!(tx.create_dir("l").is_err());
    tx.commit().unwrap();
    assert_eq!(leads(dir.path().join("l")), Path::new("d"));
}

#[test]
fn a_transaction_and_a_view_say_what_is_a_symlink() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("d/a", "1")]);
    let mut tx = store.begin().unwrap();
    tx.symlink("d/l", "a").unwrap();
    let kinds = |entries: Vec<cosave::DirEntry>| -> Vec<(String, FileKind)> {
        entries.into_iter().map(|entry| (entry.to_string(), entry.kind())).collect()
    };
    let expected = [("d/a", FileKind::File), ("d/l", FileKind::Link)];
    let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
    assert_eq!(kinds(tx.entries("d").unwrap()), expected);
    assert!(tx.exists("d/l").unwrap());
    let own = tx.metadata("d/l").unwrap();
    assert_eq!((own.kind(), own.length()), (FileKind::Link, 1));
    let change = &tx.changes().unwrap()[0];
    assert!(matches!(change, Change::Link { to, .. } if to == Path::new("a")), "{change:?}");
    assert_eq!(change.to_string(), "link    d/l -> a");
    tx.commit().unwrap();
    let view = store.view().unwrap();
    assert_eq!(kinds(view.entries("d").unwrap()), expected);
    assert_eq!(view.metadata("d/l").unwrap().kind(), FileKind::File);
    assert_eq!(view.read("d/l").unwrap(), b"1");
    assert!(view.read_link("d/a").is_err_and(|error| !error.is_not_found()));
    assert!(view.read_link("d/missing").unwrap_err().is_not_found());
}

#[test]
fn what_was_written_through_a_symlink_that_others_change_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("r1/x", "1"), ("r2/x", "2")]);
    store.update(|tx| tx.symlink("current", "r1")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("current/x", "new").unwrap();
    store.update(|tx| tx.symlink("current", "r2")).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    let read = |name: &str| text(dir.path().join(name));
    assert_eq!((read("r1/x"), read("r2/x")), ("1".to_owned(), "2".to_owned()));
    let mut tries = 0;
    store
        .update(|tx| {
            tries += 1;
            tx.write("current/x", "new")?;
            if tries == 1 {
                store.update(|other| other.symlink("current", "r1"))?;
            }
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!((tries, read("r1/x"), read("r2/x")), (2, "new".to_owned(), "2".to_owned()));
}

#[test]
fn a_symlink_that_is_gone_or_another_one_by_the_commit_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.update(|tx| tx.symlink("l", "a")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove("l").unwrap();
    fs::remove_file(dir.path().join("l")).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    // In place of another one, as a write is put in place of another file.
    let mut tx = store.begin().unwrap();
    tx.symlink("l", "b").unwrap();
    symlink("theirs", dir.path().join("l")).unwrap();
    tx.commit().unwrap();
    assert_eq!(leads(dir.path().join("l")), Path::new("b"));
    // A file that has become a symlink: the file to replace may be elsewhere.
    let mut tx = store.begin().unwrap();
    tx.write("n", "1").unwrap();
    symlink("elsewhere", dir.path().join("n")).unwrap();
    assert!(tx.commit().unwrap_err().is_retryable());
    assert_eq!(leads(dir.path().join("n")), Path::new("elsewhere"));
    // Something that a symlink cannot replace.
    let mut tx = store.begin().unwrap();
    tx.symlink("m", "b").unwrap();
    fs::create_dir(dir.path().join("m")).unwrap();
    assert_eq!(invalid(&tx.commit().unwrap_err()), Some(InvalidPath::Directory));
    assert!(dir.path().join("m").is_dir());
}

#[test]
fn verify_compares_where_a_symlink_leads() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.update(|tx| tx.symlink("l", "a")).unwrap();
    assert!(store.verify().unwrap().is_empty());
    let problems = |store: &Store| -> Vec<Problem> {
        store.verify().unwrap().into_iter().map(|mismatch| mismatch.problem).collect()
    };
    fs::remove_file(dir.path().join("l")).unwrap();
    assert_eq!(problems(&store), [Problem::Missing]);
    symlink("b", dir.path().join("l")).unwrap();
    assert_eq!(problems(&store), [Problem::Changed]);
}

#[test]
fn a_refused_commit_with_symlinks_can_be_tried_again_and_an_aborted_one_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().lock_timeout(Duration::from_millis(10)).open(dir.path()).unwrap();
    put(&store, &[("a", "1")]);
    let mut tx = store.begin().unwrap();
    tx.symlink("l", "a").unwrap();
    tx.write("new/b", "1").unwrap();
    let view = store.view().unwrap();
    assert!(matches!(tx.try_commit(), Err(Error::Locked { .. })));
    tx.symlink("l", "b").unwrap();
    tx.symlink("new/m", "a").unwrap();
    assert!(matches!(tx.try_commit(), Err(Error::Locked { .. })));
    drop(view);
    tx.try_commit().unwrap();
    assert_eq!((leads(dir.path().join("l")), leads(dir.path().join("new/m"))), ("b".into(), "a".into()));
    let mut tx = store.begin().unwrap();
    tx.symlink("gone/l", "a").unwrap();
    let view = store.view().unwrap();
    assert!(matches!(tx.try_commit(), Err(Error::Locked { .. })));
    drop((tx, view));
    assert!(!dir.path().join("gone").exists());
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn an_emptied_directory_of_symlinks_goes_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.update(|tx| tx.symlink("d/e/l", "a")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove("d/e/l").unwrap();
    tx.prune_empty_parents();
    tx.commit().unwrap();
    assert!(!dir.path().join("d").exists());
}

/// A file that somebody had put in the place of a link was removed with it.
#[test]
fn what_is_no_link_any_more_is_neither_removed_nor_replaced_as_one() {
    type Change = fn(&mut cosave::Transaction) -> cosave::Result<()>;
    let changes: [Change; 2] = [|tx| tx.remove("link"), |tx| tx.symlink("link", "elsewhere")];
    for to in ["file", "nowhere", "/outside"] {
        for change in changes {
            let root = tempfile::tempdir().unwrap();
            let store = Store::open(root.path()).unwrap();
            let link = root.path().join("link");
            symlink(to, &link).unwrap();
            let mut tx = store.begin().unwrap();
            change(&mut tx).unwrap();
            fs::remove_file(&link).unwrap();
            fs::write(&link, "precious").unwrap();
            let error = tx.commit().unwrap_err();
            assert!(matches!(error, Error::Conflict { found: Clash::NoSymlink, .. }), "{error:?}");
            assert_eq!(fs::read_to_string(&link).unwrap(), "precious");
        }
    }
}

#[test]
fn what_is_expected_of_a_link_is_about_the_link_itself() {
    for to in ["nowhere", "/outside", "../outside", "file"] {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let link = root.path().join("link");
        fs::write(root.path().join("file"), "1").unwrap();
        symlink(to, &link).unwrap();
        let mut tx = store.begin().unwrap();
        let absent = tx.expect("link", Expect::Absent).unwrap_err();
        assert!(matches!(absent, Error::Conflict { found: Clash::Exists, .. }), "{to}: {absent:?}");
        let mut tx = store.begin().unwrap();
        tx.expect("link", Expect::Present).unwrap();
        tx.expect("link", Expect::Unchanged).unwrap();
        assert_eq!(tx.read_link("link").unwrap(), Path::new(to));
        tx.write("other", "1").unwrap();
        tx.commit().unwrap();
        let mut tx = store.begin().unwrap();
        tx.expect("link", Expect::Unchanged).unwrap();
        tx.write("other", "2").unwrap();
        fs::remove_file(&link).unwrap();
        symlink("another", &link).unwrap();
        assert!(tx.commit().unwrap_err().is_conflict(), "{to}");
        let mut tx = store.begin().unwrap();
        tx.expect("new", Expect::Absent).unwrap();
        tx.write("other", "3").unwrap();
        symlink(to, root.path().join("new")).unwrap();
        assert!(tx.commit().unwrap_err().is_conflict(), "{to}");
    }
}

#[test]
fn a_link_is_read_as_the_transaction_would_leave_it_and_counts_as_read() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    fs::write(root.path().join("file"), "1").unwrap();
    symlink("one", root.path().join("link")).unwrap();
    let mut tx = store.begin().unwrap();
    assert_eq!(tx.read_link("link").unwrap(), Path::new("one"));
    let kind =
        |path: &str, tx: &cosave::Transaction| std::io::Error::from(tx.read_link(path).unwrap_err()).kind();
    assert_eq!(kind("file", &tx), std::io::ErrorKind::InvalidInput);
    assert_eq!(kind("missing", &tx), std::io::ErrorKind::NotFound);
    tx.symlink("link", "two").unwrap();
    assert_eq!(tx.read_link("link").unwrap(), Path::new("two"));
    tx.remove("link").unwrap();
    assert_eq!(kind("link", &tx), std::io::ErrorKind::NotFound);
    fs::remove_file(root.path().join("link")).unwrap();
    symlink("three", root.path().join("link")).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
}

/// A store whose commits did not wait, and the last of which has put something in a directory's place.
fn replaced_directory(root: &Path, replace: impl Fn(&mut Transaction) -> cosave::Result<()>) -> Store {
    let store = quick(root);
    put(&store, &[("r/x", "2"), ("d/x", "1")]);
    let mut tx = store.begin().unwrap();
    tx.remove("d/x").unwrap();
    tx.prune_empty_parents();
    tx.commit().unwrap();
    store.update(replace).unwrap();
    store
}

/// The manifests that named files in it could no longer be recovered, and no other commit be made.
#[test]
fn what_takes_the_place_of_a_directory_keeps_nobody_from_recovering_its_files() {
    let link = |tx: &mut Transaction| tx.symlink("d", "r");
    let file = |tx: &mut Transaction| tx.write("d", "a file");
    for (replace, is_link) in [(&link as &dyn Fn(&mut _) -> _, true), (&file, false)] {
        let dir = tempfile::tempdir().unwrap();
        let is_new = |root: &Path| match is_link {
            true => text(root.join("d/x")) == "2",
            false => text(root.join("d")) == "a file",
        };
        let store = replaced_directory(dir.path(), replace);
        assert!(store.verify().unwrap().is_empty());
        // As after a kill: nobody holds the copy's locks.
        let killed = tempfile::tempdir().unwrap();
        let copied =
            std::process::Command::new("cp").arg("-a").arg(dir.path().join(".")).arg(killed.path()).status();
        assert!(copied.unwrap().success());
        let strategy = if is_link { SyncStrategy::PerFile } else { SyncStrategy::FileSystem };
        let recovered = Store::options().sync_strategy(strategy).open(killed.path()).unwrap();
        assert!(recovered.last_recovery().differences.is_empty(), "{}", recovered.last_recovery());
        put(&Store::open(dir.path()).unwrap(), &[("other", "1")]);
        assert!(is_new(killed.path()) && is_new(dir.path()));
    }
}

/// An update was refused, and not tried again.
#[test]
fn a_symlink_in_place_of_a_directory_that_is_written_to_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("r/x", "1"), ("d/x", "1")]);
    for directory in ["d", "missing"] {
        let mut tries = 0;
        let write = |tx: &mut Transaction| {
            tries += 1;
            tx.write(format!("{directory}/x"), directory)?;
            if tries == 1 {
                store.update(|other| {
                    other.prune_empty_parents();
                    other.remove_if_exists(format!("{directory}/x")).map(drop)
                })?;
                store.update(|other| other.symlink(directory, "r"))?;
            }
            Ok::<_, Error>(())
        };
        store.update(write).unwrap();
        assert_eq!((tries, text(dir.path().join("r/x")).as_str()), (2, directory));
    }
}

#[test]
fn no_symlink_leads_into_the_control_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("a", "1")]);
    for to in [".cosave", ".cosave/missing", ".cosave/sessions"] {
        let link = to.replace('/', "-");
        symlink(to, dir.path().join(&link[1..])).unwrap();
        let inside = Path::new(&link[1..]).join("new");
        let mut tx = store.begin().unwrap();
        for refused in [
            tx.write(&inside, "1").unwrap_err(),
            tx.symlink(&inside, "a").unwrap_err(),
            tx.create_dir(&inside).unwrap_err(),
            tx.create_dir_all(&inside).unwrap_err(),
        ] {
            assert_eq!(invalid(&refused), Some(InvalidPath::Control), "{to}: {refused}");
        }
    }
}

/// Paths are equal if only a slash at the end differs, so such a symlink passed for the committed one.
#[test]
fn a_symlink_is_compared_by_every_byte_of_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (to, others) in [("a/", "a"), ("a/b", "a//b"), ("a/b", "a/./b")] {
        store.update(|tx| tx.symlink("l", to)).unwrap();
        assert_eq!(leads(dir.path().join("l")).as_os_str(), to);
        fs::remove_file(dir.path().join("l")).unwrap();
        symlink(others, dir.path().join("l")).unwrap();
        assert_eq!(store.verify().unwrap().len(), 1, "{to} and {others}");
    }
}
