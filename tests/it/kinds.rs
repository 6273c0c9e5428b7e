//! A file that becomes a directory, and a directory that becomes a file, in one commit.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use cosave::{Durability, Error, InvalidPath, Store, Transaction};

use crate::common::{Crash, assert_no_litter, identity, put, quick, text, tree};

type Changes<'a> = &'a dyn Fn(&mut Transaction) -> cosave::Result<()>;

fn reason(error: &Error) -> Option<InvalidPath> {
    match error {
        Error::InvalidPath { reason, .. } => Some(*reason),
        _ => None,
    }
}

fn names(root: &Path) -> Vec<String> {
    tree(root).into_keys().map(|path| path.to_string_lossy().replace('\\', "/")).collect()
}

#[test]
fn a_directory_becomes_a_file_with_every_durability() {
    for durability in [Durability::Full, Durability::Committed, Durability::Process] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options().durability(durability).open(dir.path()).unwrap();
        put(&store, &[("x/a", "a0"), ("x/deep/b", "b0"), ("list", "0")]);
        let mut tx = store.begin().unwrap();
        tx.remove_dir_all("x").unwrap();
        tx.write("x", "a file").unwrap();
        tx.write("list", "1").unwrap();
        assert_eq!(tx.read("x").unwrap(), b"a file");
        assert!(!tx.exists("x/a").unwrap() && tx.metadata("x").unwrap().is_file());
        assert!(tx.list("x").is_err());
        let shown: Vec<_> = tx.changes().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["remove  x/ (with everything in it)", "create  x (6 bytes)", "replace list (1 -> 1 bytes)"]
        );
        tx.commit().unwrap();
        assert_eq!(
            (names(dir.path()), text(dir.path().join("x"))),
            (vec!["list".into(), "x".into()], "a file".into())
        );
        assert!(store.verify().unwrap().is_empty());
        drop(store);
        assert!(Store::open(dir.path()).unwrap().last_recovery().differences.is_empty());
        assert_no_litter(dir.path());
    }
}

#[test]
fn a_removed_directory_can_be_empty_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("x/a", "a0"), ("y/b", "b0"), ("z/c", "")]);
    let mut tx = store.begin().unwrap();
    tx.remove_dir_all("x").unwrap();
    tx.create_dir("x").unwrap();
    tx.remove_dir_all("y").unwrap();
    tx.create_dir_all("y").unwrap();
    assert!(tx.list("x").unwrap().is_empty() && tx.metadata("y").unwrap().is_directory());
    // What takes its place can be taken back, and then the directory still goes.
    tx.remove_dir_all("z").unwrap();
    tx.write("z", "z1").unwrap();
    tx.remove("z").unwrap();
    assert!(!tx.exists("z").unwrap() && !tx.exists("z/c").unwrap());
    tx.commit().unwrap();
    assert_eq!(names(dir.path()), ["x", "y"]);
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn a_file_takes_the_place_of_a_directory_in_each_way() {
    let ways: [Changes<'_>; 5] = [
        &|tx| tx.copy("a", "x"),
        &|tx| tx.rename("a", "x"),
        &|tx| tx.create_new("x", "a0"),
        &|tx| tx.write_if_changed("x", "a0").map(drop),
        &|tx| tx.write_with("x", |out| std::io::Write::write_all(out, b"a0").map_err(Error::from)),
    ];
    for (number, way) in ways.iter().enumerate() {
        for inline_max in [0, 1 << 20] {
            let dir = tempfile::tempdir().unwrap();
            let options = Store::options().durability(Durability::Process).inline_max(inline_max);
            let store = options.open(dir.path()).unwrap();
            put(&store, &[("x/f", "f0"), ("a", "a0")]);
            let mut tx = store.begin().unwrap();
            tx.remove_dir_all("x").unwrap();
            way(&mut tx).unwrap();
            tx.commit().unwrap();
            assert_eq!(text(dir.path().join("x")), "a0", "{number}");
            drop(store);
            assert_no_litter(dir.path());
        }
    }
}

#[test]
fn a_removed_file_becomes_a_directory_by_a_rename() {
    for durability in [Durability::Full, Durability::Committed, Durability::Process] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options().durability(durability).open(dir.path()).unwrap();
        put(&store, &[("x", "x0"), ("x.new/a", "a1"), ("list", "0")]);
        let mut tx = store.begin().unwrap();
        tx.remove("x").unwrap();
        tx.rename("x.new", "x").unwrap();
        tx.write("list", "1").unwrap();
        assert_eq!(tx.read("x/a").unwrap(), b"a1");
        assert!(tx.metadata("x").unwrap().is_directory() && !tx.exists("x.new").unwrap());
        tx.commit().unwrap();
        assert_eq!(names(dir.path()), ["list", "x", "x/a"]);
        assert!(store.verify().unwrap().is_empty());
        drop(store);
        assert!(Store::open(dir.path()).unwrap().last_recovery().differences.is_empty());
        assert_no_litter(dir.path());
    }
}

#[test]
#[cfg(unix)]
fn links_and_directories_take_each_others_places() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("current/a", "a0"), ("v2/a", "a2")]);
    let mut tx = store.begin().unwrap();
    tx.remove_dir_all("current").unwrap();
    tx.symlink("current", "v2").unwrap();
    assert_eq!(tx.read_link("current").unwrap(), Path::new("v2"));
    tx.commit().unwrap();
    assert_eq!(text(dir.path().join("current/a")), "a2");
    let mut tx = store.begin().unwrap();
    tx.remove("current").unwrap();
    tx.rename("v2", "current").unwrap();
    tx.commit().unwrap();
    assert_eq!(names(dir.path()), ["current", "current/a"]);
    assert_eq!(fs::read_link(dir.path().join("current")).unwrap_err().kind(), ErrorKind::InvalidInput);
    drop(store);
    assert_no_litter(dir.path());
}

/// Each of these had an answer of its own, and some of them only from the commit.
#[test]
fn what_cannot_be_a_file_and_a_directory_is_refused_at_the_call_and_the_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("file", ""), ("dir/f", ""), ("other/f", "")]);
    let contradictions: [Changes<'_>; 11] = [
        &|tx| tx.write("a", "").and_then(|()| tx.write("a/b", "")),
        &|tx| tx.write("a/b", "").and_then(|()| tx.write("a", "")),
        &|tx| tx.write("file", "").and_then(|()| tx.write("file/b", "")),
        &|tx| tx.write("file", "").and_then(|()| tx.create_dir_all("file/b/c")),
        &|tx| tx.write("a/b", "").and_then(|()| tx.copy("file", "a")),
        &|tx| tx.remove_dir_all("dir").and_then(|()| tx.write("dir/f", "")),
        &|tx| tx.remove_dir_all("dir").and_then(|()| tx.create_dir_all("dir/g")),
        &|tx| tx.remove_dir_all("dir").and_then(|()| tx.rename("other", "dir")),
        &|tx| tx.rename("dir", "n").and_then(|()| tx.write("n/f", "")),
        &|tx| tx.rename("dir", "n").and_then(|()| tx.write("dir/f", "")),
        &|tx| tx.write("dir/f", "").and_then(|()| tx.remove_dir_all("dir")),
    ];
    for (number, work) in contradictions.iter().enumerate() {
        let error = work(&mut store.begin().unwrap()).expect_err("refused at the call");
        assert_eq!(reason(&error), Some(InvalidPath::Contradiction), "{number}: {error}");
        assert!(error.to_string().contains("commit one of the two changes first"), "{error}");
    }
    let taken = store.begin().unwrap().write("dir", "").unwrap_err();
    assert_eq!(reason(&taken), Some(InvalidPath::Directory));
    assert_eq!(names(dir.path()), ["dir", "dir/f", "file", "other", "other/f"]);
}

#[test]
fn others_who_change_what_makes_way_cause_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("d/f", ""), ("file", "f0"), ("n/g", "")]);
    let mut tx = store.begin().unwrap();
    tx.remove_dir_all("d").unwrap();
    tx.write("d", "").unwrap();
    fs::rename(dir.path().join("d"), dir.path().join("moved")).unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    assert!(tx.try_commit().unwrap_err().is_conflict());
    // The transaction goes on with both changes.
    fs::remove_dir(dir.path().join("d")).unwrap();
    fs::rename(dir.path().join("moved"), dir.path().join("d")).unwrap();
    tx.commit().unwrap();
    assert!(dir.path().join("d").is_file());
    let mut tx = store.begin().unwrap();
    tx.remove("file").unwrap();
    tx.rename("n", "file").unwrap();
    fs::write(dir.path().join("file"), "edited").unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    assert_eq!(
        (text(dir.path().join("file")), names(dir.path())),
        ("edited".into(), vec!["d".into(), "file".into(), "n".into(), "n/g".into()])
    );
}

#[test]
fn a_file_in_the_place_of_a_directory_is_finished_after_a_crash_and_views_show_it_before() {
    for is_half_done in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        put(&quick(dir.path()), &[("x/f", "old"), ("x/deep/g", "old")]);
        let mut crash = Crash::new(dir.path());
        let hidden = crash.staged_name("x", 9);
        crash.write("x", "a file");
        crash.over(serde_json::json!({ "hidden": hidden, "removed": identity(&dir.path().join("x")) }));
        crash.publish(2);
        if is_half_done {
            fs::rename(dir.path().join("x"), dir.path().join(&hidden)).unwrap();
        }
        let store = Store::options().read_only(true).open(dir.path()).unwrap();
        let view = store.view().unwrap();
        assert_eq!((view.read("x").unwrap(), view.generation().get()), (b"a file".to_vec(), 2));
        assert!(!view.exists("x/f").unwrap() && view.list("x").is_err());
        assert_eq!(view.entries("").unwrap()[0].kind(), cosave::FileKind::File);
        drop((view, store));
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.last_recovery().differences, []);
        assert_eq!(text(dir.path().join("x")), "a file");
    }
}

/// What somebody writes between a crash and the recovery is never lost, also where a directory comes.
#[test]
fn an_edit_of_a_file_whose_place_a_directory_takes_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    put(&quick(dir.path()), &[("x", "old"), ("new/f", "f1")]);
    let path = |name: &str| dir.path().join(name);
    let mut crash = Crash::new(dir.path());
    let hidden = crash.staged_name("x", 1);
    crash.remove("x");
    let mut entry = crash.entries.pop().unwrap();
    entry["operation"] = "move-tree".into();
    entry["tree"] = serde_json::json!({
        "from": "new", "moved": identity(&path("new")), "hidden": hidden, "removed": identity(&path("x")),
    });
    crash.forge(entry);
    crash.publish(2);
    fs::write(path("x"), "edited since").unwrap();
    let store = Store::open(dir.path()).unwrap();
    let found = &store.last_recovery().differences;
    assert!(matches!(&found[..], [one] if matches!(one.finding, cosave::Finding::SetAside(_))), "{found:?}");
    assert_eq!(text(path("x/f")), "f1");
    let is_kept = |path: &std::path::PathBuf| path.to_string_lossy().contains("set-aside");
    let kept = tree(dir.path()).into_keys().filter(is_kept);
    let texts: Vec<_> = kept.map(|name| text(dir.path().join(name))).collect();
    assert_eq!(texts, ["edited since"]);
}

/// These ended with an error of the system, or with one that blamed the path, and so were not tried again.
#[test]
fn whoever_uses_a_directory_that_becomes_a_file_has_a_conflict() {
    for inline_max in [0, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options().inline_max(inline_max).open(dir.path()).unwrap();
        put(&store, &[("x/a", "a0"), ("x/d/b", "b0")]);
        let works: [Changes<'_>; 5] = [
            &|tx| tx.read("x/a").map(drop),
            &|tx| tx.list("x").map(drop),
            &|tx| tx.write("x/new", "1"),
            &|tx| tx.write("x/d/new", "1"),
            &|tx| tx.remove("x/a"),
        ];
        let mut others: Vec<_> = works.iter().map(|_| store.begin().unwrap()).collect();
        for (work, tx) in works.iter().zip(&mut others) {
            tx.write("other", "").and_then(|()| work(tx)).unwrap();
        }
        store.update(|tx| tx.remove_dir_all("x").and_then(|()| tx.write("x", "file"))).unwrap();
        for (number, tx) in others.into_iter().enumerate() {
            let error = tx.commit().unwrap_err();
            assert!(error.is_conflict(), "{number}: {error}");
        }
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"file");
        drop(store);
        // On Windows no handle leads to a directory that has moved, and to what was staged in it.
        if cfg!(unix) {
            assert_eq!(names(dir.path()), ["x"]);
            assert_no_litter(dir.path());
        }
    }
}
