//! A file that goes, and a directory with what the same transaction makes in its place.

use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cosave::{Change, Durability, Error, Expect, InvalidPath, Progress, Reason, Store, Transaction};

use crate::common::{Crash, assert_no_litter, identity, invalid, litter, paths, put, quick, text, tree};

type Changes<'a> = &'a dyn Fn(&mut Transaction) -> cosave::Result<()>;

fn names(root: &Path) -> Vec<String> {
    paths(root).iter().map(|path| path.to_string_lossy().replace('\\', "/")).collect()
}

fn shown(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

fn listed(tx: &Transaction, directory: &str) -> Vec<String> {
    tx.list(directory).unwrap().iter().map(|path| path.to_string().replace('\\', "/")).collect()
}

/// It was refused: `a removed file becomes a directory only in a later commit`.
#[test]
fn a_removed_file_becomes_a_directory_of_files_in_one_commit() {
    for durability in [Durability::Full, Durability::Committed, Durability::Process] {
        for inline_max in [0, 1 << 20] {
            let dir = tempfile::tempdir().unwrap();
            let store =
                Store::options().durability(durability).inline_max(inline_max).open(dir.path()).unwrap();
            put(&store, &[("x", "x0"), ("list", "0"), ("d/x", "deep")]);
            let mut tx = store.begin().unwrap();
            tx.remove("x").unwrap();
            tx.write("x/a", "a1").unwrap();
            tx.write("x/b/c", "c1").unwrap();
            tx.write("list", "1").unwrap();
            tx.remove("d/x").unwrap();
            tx.copy("x/a", "d/x/copy").unwrap();
            tx.create_dir("x/empty").unwrap();
            tx.commit().unwrap();
            let expected = ["d", "d/x", "d/x/copy", "list", "x", "x/a", "x/b", "x/b/c", "x/empty"];
            assert_eq!(names(dir.path()), expected);
            let path = |name: &str| dir.path().join(name);
            assert_eq!((text(path("x/a")), text(path("x/b/c"))), ("a1".into(), "c1".into()));
            assert_eq!((text(path("d/x/copy")), text(path("list"))), ("a1".into(), "1".into()));
            assert!(store.verify().unwrap().is_empty());
            // It is a directory like any other.
            store.update(|tx| tx.write("x/a", "a2").and_then(|()| tx.remove("x/b/c"))).unwrap();
            drop(store);
            assert!(Store::open(dir.path()).unwrap().last_recovery().differences.is_empty());
            assert_eq!(text(path("x/a")), "a2");
            assert_no_litter(dir.path());
        }
    }
}

#[test]
fn the_transaction_and_a_dry_run_show_the_directory_before_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    put(&quick(dir.path()), &[("d/x", "x0"), ("d/other", "")]);
    let before = tree(dir.path());
    let store = Store::options().read_only(true).open(dir.path()).unwrap();
    let mut tx = store.dry_run().unwrap();
    tx.remove("d/x").unwrap();
    assert!(!tx.exists("d/x/a").unwrap());
    assert!(tx.read("d/x/a").unwrap_err().is_not_found());
    tx.write("d/x/a", "one").unwrap();
    tx.write_with("d/x/b/c", |out| out.write_all(&vec![7; 2 << 20])).unwrap();
    tx.create_dir_all("d/x/e/f").unwrap();
    assert!(tx.exists("d/x").unwrap() && tx.metadata("d/x").unwrap().is_directory());
    assert!(tx.exists("d/x/b").unwrap() && tx.metadata("d/x/e").unwrap().is_directory());
    assert!(!tx.exists("d/x/none").unwrap());
    assert_eq!(
        (tx.read("d/x/a").unwrap(), tx.metadata("d/x/b/c").unwrap().length()),
        (b"one".into(), 2 << 20)
    );
    assert_eq!(listed(&tx, "d"), ["d/other", "d/x"]);
    assert_eq!(listed(&tx, "d/x"), ["d/x/a", "d/x/b", "d/x/e"]);
    assert_eq!(listed(&tx, "d/x/e"), ["d/x/e/f"]);
    assert_eq!(tx.entries("d").unwrap()[1].kind(), cosave::FileKind::Directory);
    assert_eq!(invalid(&tx.read("d/x").unwrap_err()), Some(InvalidPath::Directory));
    let changes = [
        "remove  d/x (2 bytes)",
        "create  d/x/a (3 bytes)",
        "create  d/x/b/c (2097152 bytes)",
        "create  d/x/e/",
        "create  d/x/e/f/",
    ];
    assert_eq!(shown(&tx.changes().unwrap()), changes);
    drop((tx, store));
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn a_removed_file_becomes_an_empty_directory_and_that_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("x", "x0"), ("y", "y0"), ("z", "z0"), ("w", "w0")]);
    let mut tx = store.begin().unwrap();
    tx.remove("x").unwrap();
    tx.create_dir("x").unwrap();
    assert!(tx.list("x").unwrap().is_empty() && tx.create_dir("x").is_err());
    tx.remove("y").unwrap();
    tx.create_dir_all("y/deep").unwrap();
    tx.remove_dir("y/deep").unwrap();
    // What would be in it can be taken back, too. Then the file still goes.
    tx.remove("z").unwrap();
    tx.create_dir("z").unwrap();
    tx.write("z/a", "").unwrap();
    assert!(tx.remove_dir("z").is_err());
    tx.remove("z/a").unwrap();
    tx.remove_dir("z").unwrap();
    assert!(!tx.exists("z").unwrap());
    // Or another file comes in its place.
    tx.remove("w").unwrap();
    tx.write("w/a", "").unwrap();
    tx.remove("w/a").unwrap();
    tx.write("w", "w1").unwrap();
    tx.commit().unwrap();
    assert_eq!(names(dir.path()), ["w", "x", "y"]);
    assert!(dir.path().join("y").is_dir());
    assert_eq!(text(dir.path().join("w")), "w1");
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn files_come_into_the_new_directory_in_each_way() {
    let ways: [Changes<'_>; 7] = [
        &|tx| tx.copy("a", "x/y"),
        &|tx| tx.rename("a", "x/y"),
        &|tx| tx.create_new("x/y", "a0"),
        &|tx| tx.write_if_changed("x/y", "a0").map(drop),
        &|tx| tx.write_with("x/y", |out| out.write_all(b"a0").map_err(Error::from)),
        &|tx| tx.write("x/z", "a0").and_then(|()| tx.rename("x/z", "x/y")),
        &|tx| tx.write("x/y", "").and_then(|()| tx.write("x/y", "a0")),
    ];
    for (number, way) in ways.iter().enumerate() {
        for inline_max in [0, 1 << 20] {
            let dir = tempfile::tempdir().unwrap();
            let options = Store::options().durability(Durability::Process).inline_max(inline_max);
            let store = options.open(dir.path()).unwrap();
            put(&store, &[("x", "x0"), ("a", "a0")]);
            let mut tx = store.begin().unwrap();
            tx.remove("x").unwrap();
            way(&mut tx).unwrap();
            assert_eq!(tx.read("x/y").unwrap(), b"a0", "{number}");
            tx.commit().unwrap();
            assert_eq!(text(dir.path().join("x/y")), "a0", "{number}");
            assert_eq!(dir.path().join("a").exists(), number != 1);
            assert!(!dir.path().join("x/z").exists());
            drop(store);
            assert_no_litter(dir.path());
        }
    }
}

#[test]
#[cfg(unix)]
fn modes_and_symlinks_are_kept_in_the_new_directory_and_a_symlink_can_make_way() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("v1/a", "a1"), ("run", "run")]);
    store.update(|tx| tx.symlink("current", "v1").and_then(|()| tx.set_permissions("run", 0o750))).unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove("current").unwrap();
    tx.directory("current").mode(0o700).create().unwrap();
    tx.rename("run", "current/run").unwrap();
    tx.file("current/secret").mode(0o600).write("s").unwrap();
    tx.symlink("current/old", "../v1").unwrap();
    assert_eq!(tx.read_link("current/old").unwrap(), Path::new("../v1"));
    tx.commit().unwrap();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("current"), mode("current/run"), mode("current/secret")), (0o700, 0o750, 0o600));
    assert_eq!(text(dir.path().join("current/old/a")), "a1");
    assert_eq!(text(dir.path().join("v1/a")), "a1");
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn a_refused_commit_goes_on_with_all_that_was_in_the_new_directory() {
    for inline_max in [0, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options().inline_max(inline_max).open(dir.path()).unwrap();
        put(&store, &[("x", "x0"), ("lock", "")]);
        let mut tx = store.begin().unwrap();
        tx.remove("x").unwrap();
        tx.write("x/a", "a1").unwrap();
        tx.write("x/b", "b1").unwrap();
        tx.create_dir("x/c").unwrap();
        tx.create_new("new", "").unwrap();
        fs::write(dir.path().join("new"), "of others").unwrap();
        assert!(tx.try_commit().unwrap_err().is_conflict());
        fs::remove_file(dir.path().join("new")).unwrap();
        assert_eq!((tx.read("x/a").unwrap(), listed(&tx, "x").len()), (b"a1".to_vec(), 3));
        tx.write("x/a", "a2").unwrap();
        tx.remove("x/b").unwrap();
        tx.write("x/d", "d2").unwrap();
        tx.commit().unwrap();
        assert_eq!(names(dir.path()), ["lock", "new", "x", "x/a", "x/c", "x/d"]);
        assert_eq!(text(dir.path().join("x/a")), "a2");
        drop(store);
        assert_no_litter(dir.path());
    }
}

#[test]
fn an_aborted_transaction_leaves_the_file_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().inline_max(0).open(dir.path()).unwrap();
    put(&store, &[("d/x", "x0")]);
    let mut tx = store.begin().unwrap();
    tx.remove("d/x").unwrap();
    tx.write("d/x/a/b", "1").unwrap();
    assert!(!litter(dir.path()).is_empty());
    tx.abort();
    assert_eq!(names(dir.path()), ["d", "d/x"]);
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn others_who_change_the_file_or_what_is_built_beside_it_cause_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().inline_max(0).open(dir.path()).unwrap();
    let path = |name: &str| dir.path().join(name);
    let begin = || {
        put(&store, &[("x", "x0"), ("a", "a0")]);
        let mut tx = store.begin().unwrap();
        tx.remove("x").unwrap();
        tx.write("x/y", "y1").unwrap();
        tx
    };
    let staged = || {
        let site = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let site = site.into_iter().find(|path| path.to_string_lossy().contains(".x.")).unwrap();
        fs::read_dir(site).unwrap().next().unwrap().unwrap().path()
    };
    let mut tx = begin();
    fs::write(path("x"), "edited").unwrap();
    assert!(tx.try_commit().unwrap_err().is_conflict());
    assert_eq!(text(path("x")), "edited");
    // The next try means what is there now.
    tx.try_commit().unwrap();
    drop(tx);
    assert_eq!(text(path("x/y")), "y1");
    store.update(|tx| tx.remove_dir_all("x")).unwrap();
    let mut tx = begin();
    fs::remove_file(path("x")).unwrap();
    assert!(tx.try_commit().unwrap_err().is_conflict());
    drop(tx);
    let mut tx = begin();
    fs::write(staged(), "not what was staged").unwrap();
    assert!(tx.try_commit().unwrap_err().is_conflict());
    drop(tx);
    // On Windows a file that is open keeps its name.
    if cfg!(unix) {
        let tx = begin();
        fs::remove_file(staged()).unwrap();
        assert!(tx.commit().is_err());
    }
    assert_eq!(names(dir.path()), ["a", "x"]);
}

#[test]
fn a_state_before_a_file_became_a_directory_is_refused_like_one_before_a_moved_tree() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().keep(5).open(dir.path()).unwrap();
    put(&store, &[("x", "x0")]);
    put(&store, &[("x", "x1")]);
    store.update(|tx| tx.remove("x").and_then(|()| tx.write("x/y", "y2"))).unwrap();
    assert!(matches!(store.undo(), Err(Error::Unsupported { .. })), "{:?}", store.undo());
    let history = store.history().unwrap();
    let newest = history.first().map(|commit| shown(commit.changes())).unwrap();
    assert_eq!(newest, ["remove  x (0 bytes)", "create  x/"]);
    assert_eq!(names(dir.path()), ["x", "x/y"]);
}

#[test]
fn what_cannot_be_in_the_new_directory_is_refused_at_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("x", ""), ("dir/f", ""), ("a", "")]);
    let removed: [(Changes<'_>, InvalidPath); 7] = [
        (&|tx| tx.rename("dir", "x/dir"), InvalidPath::FileToDirectory),
        (&|tx| tx.write("x/y", "").and_then(|()| tx.rename("dir", "x")), InvalidPath::Contradiction),
        (&|tx| tx.write("x/y", "").and_then(|()| tx.rename("x", "n")), InvalidPath::Contradiction),
        (&|tx| tx.write("x/y", "").and_then(|()| tx.write("x", "")), InvalidPath::Contradiction),
        (&|tx| tx.write("x/y", "").and_then(|()| tx.remove("x")), InvalidPath::Directory),
        (&|tx| tx.write("x/y", "").and_then(|()| tx.write("x/y/z", "")), InvalidPath::Contradiction),
        (&|tx| tx.write("x/../y", ""), InvalidPath::Parent),
    ];
    for (number, (work, reason)) in removed.iter().enumerate() {
        let mut tx = store.begin().unwrap();
        tx.remove("x").unwrap();
        let error = work(&mut tx).expect_err("refused at the call");
        assert_eq!(invalid(&error), Some(*reason), "{number}: {error}");
    }
    // A file cannot go into a directory of its own name.
    let error = store.begin().unwrap().rename("x", "x/y").unwrap_err();
    assert_eq!(invalid(&error), Some(InvalidPath::NotADirectory), "{error}");
    assert_eq!(names(dir.path()), ["a", "dir", "dir/f", "x"]);
}

/// It was said that the system could not tell directories apart.
#[test]
fn of_two_that_make_a_directory_of_one_file_the_second_tries_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("x", "x0")]);
    let mut tx = store.begin().unwrap();
    tx.remove("x").unwrap();
    tx.write("x/a", "a1").unwrap();
    store.update(|tx| tx.remove("x").and_then(|()| tx.write("x/b", "b1"))).unwrap();
    let error = tx.try_commit().unwrap_err();
    assert!(error.is_conflict(), "{error}");
    drop(tx);
    let mut tries = 0;
    store
        .update(|tx| {
            tries += 1;
            if tx.metadata("x")?.is_directory() {
                tx.remove_dir_all("x")?;
                return tx.write("x", "x1");
            }
            Ok(())
        })
        .unwrap();
    assert_eq!((tries, names(dir.path()), text(dir.path().join("x"))), (1, vec!["x".into()], "x1".into()));
}

/// A file was asked for that only a later layout has. It was a wrong path, and not a missing file.
#[test]
fn nothing_is_below_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("config", "x0"), ("d/f", "f0")]);
    let mut tx = store.begin().unwrap();
    for path in ["config/main", "config/a/b"] {
        assert_eq!(tx.read_if_exists(path).unwrap(), None);
        assert!(tx.read(path).unwrap_err().is_not_found() && tx.open(path).unwrap_err().is_not_found());
        assert!(tx.read_to_string(path).unwrap_err().is_not_found());
        assert!(!tx.remove_if_exists(path).unwrap() && !tx.exists(path).unwrap());
        tx.expect(path, Expect::Unchanged).unwrap();
        let view = store.view().unwrap();
        assert_eq!(view.read_if_exists(path).unwrap(), None);
        assert!(view.read(path).unwrap_err().is_not_found() && view.open(path).unwrap_err().is_not_found());
        drop(view);
        let files = store.snapshot(&["config", path]).unwrap().into_files();
        assert!(files[0].is_some() && files[1].is_none());
        assert_eq!(invalid(&tx.write(path, "1").unwrap_err()), Some(InvalidPath::NotADirectory));
    }
    // That nothing was there is checked by the commit.
    store.update(|tx| tx.remove("config").and_then(|()| tx.write("config/main", "of others"))).unwrap();
    tx.write("d/f", "f1").unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    assert_eq!(text(dir.path().join("d/f")), "f0");
}

#[test]
fn what_is_built_counts_before_the_commit_point() {
    let dir = tempfile::tempdir().unwrap();
    put(&quick(dir.path()), &[("x", "x0")]);
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let store = Store::options().on_progress(move |progress| {
        if let Progress::Committing { files, bytes, .. } = progress {
            *tell.lock().unwrap() = Some((*files, *bytes));
        }
        ControlFlow::Continue(())
    });
    let mut tx = store.open(dir.path()).unwrap().begin().unwrap();
    tx.remove("x").unwrap();
    tx.write("x/a", [1; 3000]).unwrap();
    tx.write("x/b/c", [2; 20]).unwrap();
    tx.write("y", "1").unwrap();
    tx.commit().unwrap();
    // The directory in the place of the file, two files in it, and one beside it.
    assert_eq!(*told.lock().unwrap(), Some((4, 3021)));
}

/// The directory was made anew by others than those who could enter it, and without its mode.
#[test]
fn nothing_comes_back_below_a_file_that_took_the_place_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().keep(5).open(dir.path()).unwrap();
    fs::create_dir(dir.path().join("x")).unwrap();
    store.update(|tx| tx.write("x/y", "a secret")).unwrap();
    store.update(|tx| tx.remove("x/y")).unwrap();
    fs::remove_dir(dir.path().join("x")).unwrap();
    store.update(|tx| tx.write("x", "a file")).unwrap();
    let error = store.restore(1).unwrap_err();
    assert!(matches!(error, Error::Unsupported { reason: Reason::NotKept, .. }), "{error}");
    assert_eq!((names(dir.path()), text(dir.path().join("x"))), (vec!["x".into()], "a file".into()));
    store.undo().unwrap();
    store.undo().unwrap();
    assert_eq!(text(dir.path().join("x/y")), "a secret");
}

/// The commit was `NotApplied` until that file was gone, since a directory is not renamed over another file.
#[test]
fn a_file_that_is_renamed_there_at_the_last_moment_makes_way_too() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    put(&quick(&root), &[("x", "x0")]);
    fs::write(root.join("other"), "another program's").unwrap();
    let renames = root.clone();
    let store = Store::options().on_progress(move |progress| {
        if matches!(progress, Progress::Applied { files: 0, .. }) {
            fs::rename(renames.join("other"), renames.join("x")).unwrap();
        }
        ControlFlow::Continue(())
    });
    let mut tx = store.open(&root).unwrap().begin().unwrap();
    tx.remove("x").unwrap();
    tx.write("x/a", "a1").unwrap();
    tx.commit().unwrap();
    assert_eq!((names(&root), text(root.join("x/a"))), (vec!["x".into(), "x/a".into()], "a1".into()));
    assert_no_litter(&root);
}

/// A manifest that moves what was built at `from` to the place of the file `x`, and is not applied.
fn publish(root: &Path, from: impl Fn(&Crash) -> String) -> Store {
    put(&Store::open(root).unwrap(), &[("x", "x0"), ("d/other", "")]);
    let mut crash = Crash::new(root);
    let (from, hidden) = (from(&crash), crash.staged_name("x", 2));
    fs::create_dir(root.join(&from)).unwrap();
    fs::write(root.join(&from).join("y"), "y1").unwrap();
    crash.remove("x");
    let mut entry = crash.entries.pop().unwrap();
    entry["operation"] = "move-tree".into();
    entry["tree"] = serde_json::json!({
        "from": from, "moved": identity(&root.join(&from)),
        "hidden": hidden, "removed": identity(&root.join("x")),
    });
    crash.forge(entry);
    crash.publish(2);
    Store::options().read_only(true).open(root).unwrap()
}

#[test]
fn a_view_of_a_commit_that_is_not_applied_shows_the_directory_and_recovery_finishes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = publish(dir.path(), |crash| crash.staged_name("x", 1));
    let view = store.view().unwrap();
    assert_eq!((view.read("x/y").unwrap(), view.generation().get()), (b"y1".to_vec(), 2));
    assert!(view.metadata("x").unwrap().is_directory());
    let shown: Vec<_> = view.list("").unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["d", "x"]);
    drop((view, store));
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.last_recovery().differences, []);
    // No session has recorded that it hides the file.
    let mut found = names(dir.path());
    found.retain(|name| !name.ends_with(".cosave"));
    assert_eq!(found, ["d", "d/other", "x", "x/y"]);
}

#[test]
fn an_abandoned_commit_leaves_the_file_that_was_to_become_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    drop(publish(dir.path(), |crash| crash.staged_name("x", 1)));
    Store::options().recover(false).open(dir.path()).unwrap().abandon(2).unwrap();
    assert_eq!(text(dir.path().join("x")), "x0");
    let store = Store::open(dir.path()).unwrap();
    assert_eq!((store.generation().unwrap().get(), text(dir.path().join("x"))), (2, "x0".into()));
}

#[test]
fn a_manifest_moves_no_other_staged_directory() {
    for below in ["d/", ".cosave/"] {
        let dir = tempfile::tempdir().unwrap();
        let store = publish(dir.path(), |crash| format!("{below}{}", crash.staged_name("x", 1)));
        assert!(matches!(store.view().unwrap_err(), Error::Corrupt { .. }), "{below}");
        drop(store);
        assert!(matches!(Store::open(dir.path()).unwrap_err(), Error::Corrupt { .. }));
        assert_eq!(text(dir.path().join("x")), "x0");
    }
}

/// The directory was made without the mode, and emptied again. Then somebody asked for the mode, and the secret lay
/// where everybody could read it.
#[cfg(unix)]
#[test]
fn a_directory_that_was_built_before_its_mode_was_asked_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().inline_max(0).open(dir.path()).unwrap();
    put(&store, &[("x", "x0")]);
    let mut tx = store.begin().unwrap();
    tx.remove("x").unwrap();
    tx.write("x/other", "o").unwrap();
    tx.write("x/sub/a", "a").unwrap();
    tx.remove("x/sub/a").unwrap();
    let made = tx.directory("x/sub").mode(0o700).create().and_then(|()| tx.write("x/sub/key", "secret"));
    let refused = made.and_then(|()| tx.commit().map(drop)).unwrap_err();
    assert!(refused.is_conflict(), "{refused:?}");
    assert_eq!(text(dir.path().join("x")), "x0");
    drop(store);
    assert_no_litter(dir.path());
}
