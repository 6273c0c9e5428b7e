//! Whole directories that are moved, removed and replaced, on the real file system.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cosave::{Durability, Error, InvalidPath, Store};

use crate::common::{Crash, assert_no_litter, identity, invalid, kind, paths, put, quick, text, tree};

type Changes<'a> = &'a dyn Fn(&mut cosave::Transaction) -> cosave::Result<()>;

fn names(root: &Path, names: &[&str]) {
    assert_eq!(paths(root), names.iter().map(PathBuf::from).collect::<Vec<_>>());
}

#[test]
fn a_directory_moves_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("old/deep/a", "a0"), ("old/b", "b0"), ("list", "old")]);
    let mut tx = store.begin().unwrap();
    tx.rename("old", "new/place").unwrap();
    tx.write("list", "new").unwrap();
    let shown: Vec<_> = tx.changes().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["move    old/ -> new/place/", "replace list (3 -> 3 bytes)"]);
    tx.commit().unwrap();
    names(dir.path(), &["list", "new", "new/place", "new/place/b", "new/place/deep", "new/place/deep/a"]);
    assert_eq!(text(dir.path().join("new/place/deep/a")), "a0");
    assert!(store.verify().unwrap().is_empty());
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn a_directory_is_removed_with_everything_in_it_and_no_link_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    let store = quick(dir.path());
    put(&store, &[("gone/deep/er/a", "a0"), ("gone/b", "b0"), ("stays", "")]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path(), dir.path().join("gone/deep/link")).unwrap();
        std::os::unix::fs::symlink("../stays", dir.path().join("gone/file")).unwrap();
    }
    fs::write(dir.path().join("gone/of others"), "").unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove_dir_all("gone").unwrap();
    assert_eq!(tx.changes().unwrap()[0].to_string(), "remove  gone/ (with everything in it)");
    assert!(!tx.exists("gone").unwrap() && !tx.exists("gone/deep/er/a").unwrap());
    assert_eq!(tx.list("").unwrap().len(), 1);
    tx.commit().unwrap();
    names(dir.path(), &["stays"]);
    assert_eq!(text(outside.path().join("kept")), "kept");
    assert!(store.verify().unwrap().is_empty());
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn a_directory_takes_the_place_of_another_one_with_every_durability() {
    for durability in [Durability::Full, Durability::Committed, Durability::Process] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options().durability(durability).open(dir.path()).unwrap();
        put(&store, &[("site/index", "old"), ("site/gone/x", ""), ("site.new/index", "new")]);
        let mut tx = store.begin().unwrap();
        tx.replace_dir("site.new", "site").unwrap();
        tx.commit().unwrap();
        names(dir.path(), &["site", "site/index"]);
        put(&store, &[("site.new/index", "newer"), ("site/index", "new, edited")]);
        let mut tx = store.begin().unwrap();
        tx.replace_dir("site.new", "site").unwrap();
        tx.commit().unwrap();
        assert_eq!(text(dir.path().join("site/index")), "newer");
        let mut tx = store.begin().unwrap();
        tx.replace_dir("site", "free").unwrap();
        tx.commit().unwrap();
        names(dir.path(), &["free", "free/index"]);
        drop(store);
        let opened = Store::open(dir.path()).unwrap();
        assert!(opened.last_recovery().differences.is_empty(), "{durability:?}");
        drop(opened);
        assert_no_litter(dir.path());
    }
}

#[test]
fn a_transaction_reads_trees_where_it_moves_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("from/sub/a", "a0"), ("to/a", "old"), ("gone/b", "b0")]);
    let mut tx = store.begin().unwrap();
    tx.replace_dir("from", "to").unwrap();
    tx.remove_dir_all("gone").unwrap();
    assert_eq!(tx.read("to/sub/a").unwrap(), b"a0");
    assert_eq!(tx.read_if_exists("to/a").unwrap(), None);
    assert!(tx.read("from/sub/a").unwrap_err().is_not_found());
    assert!(tx.exists("to").unwrap() && !tx.exists("from").unwrap() && !tx.exists("gone/b").unwrap());
    assert!(tx.metadata("to/sub").unwrap().is_directory());
    let shown = |paths: Vec<cosave::RelativePath>| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(tx.list("").unwrap()), ["to"]);
    assert_eq!(shown(tx.list("to").unwrap()), ["to/sub"]);
    assert!(tx.list("from").unwrap_err().is_not_found());
    tx.copy("to/sub/a", "copy").unwrap();
    tx.commit().unwrap();
    assert_eq!(text(dir.path().join("copy")), "a0");
}

#[test]
fn changes_that_cannot_be_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a/x/f", ""), ("b/f", ""), ("c/f", ""), ("file", "")]);
    let refused = |work: Changes<'_>| {
        let mut tx = store.begin().unwrap();
        let error = work(&mut tx).and_then(|()| tx.try_commit().map(drop)).unwrap_err();
        invalid(&error).unwrap_or_else(|| panic!("{error}"))
    };
    assert_eq!(refused(&|tx| tx.rename("a", "a")), InvalidPath::Itself);
    assert_eq!(refused(&|tx| tx.rename("a", "a/x/below")), InvalidPath::BelowItself);
    assert_eq!(refused(&|tx| tx.replace_dir("a/x", "a")), InvalidPath::BelowItself);
    assert_eq!(refused(&|tx| tx.remove_dir_all("file")), InvalidPath::NotADirectory);
    assert_eq!(refused(&|tx| tx.replace_dir("a", "file")), InvalidPath::NotADirectory);
    assert_eq!(refused(&|tx| tx.remove_dir_all("")), InvalidPath::Empty);
    assert_eq!(refused(&|tx| tx.remove_dir_all(".cosave")), InvalidPath::Control);
    let contradictions: [Changes<'_>; 9] = [
        &|tx| tx.write("a/f", "").and_then(|()| tx.remove_dir_all("a")),
        &|tx| tx.remove_dir_all("a").and_then(|()| tx.write("a/f", "")),
        &|tx| tx.remove_dir_all("a").and_then(|()| tx.remove("a/x/f")),
        &|tx| tx.rename("a", "n").and_then(|()| tx.write("n/f", "")),
        &|tx| tx.rename("a", "n").and_then(|()| tx.rename("n", "m")),
        &|tx| tx.rename("a/x", "n").and_then(|()| tx.remove_dir_all("a")),
        &|tx| tx.remove_dir_all("a").and_then(|()| tx.rename("b", "a")),
        &|tx| tx.rename("a", "t").and_then(|()| tx.rename("b", "a")),
        &|tx| tx.rename("a", "n").and_then(|()| tx.rename("b", "n/b")),
    ];
    for (number, work) in contradictions.iter().enumerate() {
        let mut tx = store.begin().unwrap();
        let error = work(&mut tx).and_then(|()| tx.try_commit().map(drop)).unwrap_err();
        let reason = invalid(&error);
        let is_refused = reason == Some(InvalidPath::Contradiction) || error.is_not_found();
        assert!(is_refused, "{number}: {error}");
    }
    let occupied = store.begin().unwrap().rename("a", "b").unwrap_err();
    assert_eq!(kind(&occupied), Some(ErrorKind::AlreadyExists));
    let missing = store.begin().unwrap().remove_dir_all("nothing").unwrap_err();
    assert_eq!(kind(&missing), Some(ErrorKind::NotFound));
    names(dir.path(), &["a", "a/x", "a/x/f", "b", "b/f", "c", "c/f", "file"]);
    assert_eq!(store.generation().unwrap().get(), 1);
}

#[test]
fn a_root_in_the_tree_and_a_control_directory_in_it_stay() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("outer/inner")).unwrap();
    put(&Store::open(dir.path().join("outer/inner")).unwrap(), &[("a", "")]);
    let store = Store::open(dir.path().join("outer")).unwrap();
    let error = store.begin().unwrap().remove_dir_all("inner").unwrap_err();
    assert!(error.to_string().contains("root of its own"), "{error}");
    let store = Store::options().control_dir("var/state").open(dir.path()).unwrap();
    put(&store, &[("var/a", "")]);
    let error = store.begin().unwrap().remove_dir_all("var").unwrap_err();
    assert_eq!(invalid(&error), Some(InvalidPath::Control));
    assert!(dir.path().join("outer/inner/a").exists());
}

#[test]
fn a_directory_that_others_replace_or_fill_before_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a/f", "a0"), ("b/f", "b0"), ("to/f", "")]);
    // Another directory is there: a conflict, and nothing is touched.
    let mut tx = store.begin().unwrap();
    tx.remove_dir_all("a").unwrap();
    fs::rename(dir.path().join("a"), dir.path().join("a.moved")).unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    // The place to which it was to be moved is taken.
    let mut tx = store.begin().unwrap();
    tx.rename("b", "n").unwrap();
    fs::create_dir(dir.path().join("n")).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    // More in the same directory is what it has then.
    let mut tx = store.begin().unwrap();
    tx.replace_dir("b", "to").unwrap();
    fs::write(dir.path().join("b/more"), "").unwrap();
    tx.commit().unwrap();
    names(dir.path(), &["a", "a.moved", "a.moved/f", "n", "to", "to/f", "to/more"]);
}

#[test]
fn what_others_read_or_stage_in_a_tree_that_goes_is_a_conflict_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().inline_max(0).open(dir.path()).unwrap();
    put(&store, &[("a/f", "a0"), ("b/f", "b0")]);
    let (mut reader, mut writer) = (store.begin().unwrap(), store.begin().unwrap());
    assert_eq!(reader.read("a/f").unwrap(), b"a0");
    reader.write("other", "").unwrap();
    writer.write("a/new", "new").unwrap();
    store.update(|tx| tx.rename("a", "moved")).unwrap();
    assert!(reader.commit().unwrap_err().is_conflict());
    let error = writer.commit().unwrap_err();
    assert!(error.is_conflict(), "{error}");
    drop(store);
    // On Windows no handle leads to a directory that has moved, and to what was staged in it.
    if cfg!(unix) {
        names(dir.path(), &["b", "b/f", "moved", "moved/f"]);
        assert_no_litter(dir.path());
    }
}

#[test]
fn a_tree_that_a_crash_left_half_replaced_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("to/f", "old"), ("from/f", "new")]);
    drop(store);
    #[cfg(unix)]
    std::os::unix::fs::symlink("f", dir.path().join("from/link")).unwrap();
    let identity = |path: &str| identity(&dir.path().join(path));
    let mut crash = Crash::new(dir.path());
    let hidden = crash.staged_name("to", 1);
    crash.forge(serde_json::json!({
        "path": "to", "operation": "move-tree", "before": null,
        "tree": {
            "from": "from", "moved": identity("from"), "hidden": hidden, "removed": identity("to"),
        },
    }));
    crash.publish(2);
    // A read-only store shows what recovery will make.
    let store = Store::options().read_only(true).open(dir.path()).unwrap();
    let view = store.view().unwrap();
    assert_eq!((view.read("to/f").unwrap(), view.generation().get()), (b"new".to_vec(), 2));
    assert!(!view.exists("from").unwrap() && !view.exists("from/f").unwrap());
    assert_eq!(view.list("").unwrap().len(), 1);
    assert_eq!(view.list("to").unwrap()[0].to_string(), "to/f");
    #[cfg(unix)]
    assert_eq!(
        view.read("to/link").unwrap(),
        b"new",
        "a symlink in the tree leads through where the tree will be"
    );
    drop((view, store));
    // A crash after both were exchanged in two renames.
    fs::rename(dir.path().join("to"), dir.path().join(&hidden)).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.generation().unwrap().get(), 2);
    assert_eq!(text(dir.path().join("to/f")), "new");
    assert!(!dir.path().join("from").exists());
}

#[test]
fn a_stranger_in_the_place_of_a_tree_stays_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    put(&quick(dir.path()), &[("gone/f", "the stranger's")]);
    let mut crash = Crash::new(dir.path());
    let hidden = crash.staged_name("gone", 1);
    crash.forge(serde_json::json!({
        "path": "gone", "operation": "remove-tree", "before": null,
        "tree": { "hidden": hidden, "removed": { "inode": 1, "born": 1 } },
    }));
    crash.publish(2);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.generation().unwrap().get(), 2);
    assert_eq!(text(dir.path().join("gone/f")), "the stranger's");
}

#[test]
fn forged_trees_are_refused() {
    let known = serde_json::json!({ "inode": 1, "born": 1 });
    let unknown = serde_json::json!({ "inode": null, "born": null });
    let staged = format!(".d.{}-1-1.cosave", uuid::Uuid::nil().simple());
    let moved = |path: &str, from: &str| {
        serde_json::json!({ "path": path, "operation": "move-tree", "before": null,
            "tree": { "from": from, "moved": known } })
    };
    let removed = |path: &str, hidden: &str, tree: &serde_json::Value| {
        serde_json::json!({ "path": path, "operation": "remove-tree", "before": null,
            "tree": { "hidden": hidden, "removed": tree } })
    };
    for (number, entries) in [
        vec![moved("a", "../b")],
        vec![moved("../a", "b")],
        vec![moved("a", ".cosave/sessions")],
        vec![moved(".cosave/x", "b")],
        vec![moved("a", "a")],
        vec![moved("a", "a/b")],
        vec![moved("a/b", "a")],
        vec![moved("a", "b"), moved("c", "b")],
        vec![moved("a", "b"), moved("b/c", "d")],
        vec![removed("a", "b", &known)],
        vec![removed("a", "../b", &known)],
        vec![removed("a", ".a.x.cosave", &known)],
        vec![serde_json::json!({ "path": "a", "operation": "remove-tree", "before": null })],
        vec![serde_json::json!({ "path": "a", "operation": "remove", "before": null,
            "tree": { "from": "b", "moved": known } })],
        // A directory in whose place another one comes, with what was never staged in it.
        vec![
            serde_json::json!({ "path": "d", "operation": "create-directory", "before": null,
                "tree": { "hidden": staged, "removed": known } }),
            serde_json::json!({ "path": "d/f", "operation": "remove", "before": null }),
        ],
        vec![serde_json::json!({ "path": "d", "operation": "create-directory", "before": null,
            "tree": { "hidden": "d/f", "removed": known } })],
        vec![serde_json::json!({ "path": "d", "operation": "create-directory", "before": null,
            "tree": { "hidden": "f", "removed": known } })],
        vec![serde_json::json!({ "path": "d", "operation": "create-directory", "before": null,
            "tree": { "from": "b", "hidden": staged, "removed": known } })],
        vec![serde_json::json!({ "path": "a", "operation": "move-tree",
            "before": { "length": 1, "modified": 0 }, "tree": { "from": "b", "moved": known } })],
        vec![serde_json::json!({ "path": "a", "operation": "move-tree", "before": null,
            "tree": { "from": "b", "moved": unknown } })],
    ]
    .into_iter()
    .enumerate()
    {
        let dir = tempfile::tempdir().unwrap();
        put(&quick(dir.path()), &[("b/f", "b"), ("d/f", "d")]);
        let before = tree(dir.path());
        let mut crash = Crash::new(dir.path());
        entries.into_iter().for_each(|entry| crash.forge(entry));
        crash.publish(2);
        let error = Store::open(dir.path()).expect_err("hostile");
        assert!(matches!(error, Error::Corrupt { .. }), "{number}: {error}");
        assert_eq!(tree(dir.path()), before, "{number}");
    }
}

#[test]
fn ten_thousand_files_go_with_one_rename() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    for directory in 0..10 {
        fs::create_dir_all(dir.path().join(format!("tree/{directory}"))).unwrap();
        for file in 0..1000 {
            fs::write(dir.path().join(format!("tree/{directory}/{file}")), "").unwrap();
        }
    }
    store.update(|tx| tx.rename("tree", "moved")).unwrap();
    assert!(dir.path().join("moved/9/999").exists() && !dir.path().join("tree").exists());
    store.update(|tx| tx.remove_dir_all("moved")).unwrap();
    names(dir.path(), &[]);
}

#[test]
fn thousands_of_directories_are_removed_in_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    for number in 0..5000 {
        fs::create_dir(dir.path().join(number.to_string())).unwrap();
    }
    let mut tx = store.begin().unwrap();
    (0..5000).for_each(|number| tx.remove_dir(number.to_string()).unwrap());
    tx.create_dir_all("new/one").unwrap();
    tx.commit().unwrap();
    names(dir.path(), &["new", "new/one"]);
}

/// The handle of a directory was found by recursion over all directories above it. So a thread that deleted
/// a deep tree ran out of stack, and so did every later opening, which swept the rest.
#[test]
fn a_tree_of_ten_thousand_levels_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let [tree, above] = ["tree", "above"].map(|name| dir.path().join(name));
    fs::create_dir(&tree).unwrap();
    for level in 0..10_000 {
        fs::create_dir(&above).unwrap();
        fs::rename(&tree, above.join("d")).unwrap();
        fs::rename(&above, &tree).unwrap();
        if level % 100 == 0 {
            fs::write(tree.join("file"), "").unwrap();
        }
    }
    quick(dir.path()).update(|tx| tx.remove_dir_all("tree")).unwrap();
    names(dir.path(), &[]);
    assert_no_litter(dir.path());
}

/// Only that something was there was looked at. A rename through a symlink fails, after the commit point.
#[test]
#[cfg(unix)]
fn a_directory_that_others_make_a_file_or_a_symlink_takes_no_tree() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("tree/f", ""), ("to/f", "")]);
    for make_link in [true, false] {
        let mut tx = store.begin().unwrap();
        tx.rename("tree", "to/tree").unwrap();
        let to = dir.path().join("to");
        fs::rename(&to, dir.path().join("kept")).unwrap();
        match make_link {
            true => std::os::unix::fs::symlink(outside.path(), &to).unwrap(),
            false => fs::write(&to, "").unwrap(),
        }
        let error = tx.commit().unwrap_err();
        assert_eq!(error.outcome(), cosave::Outcome::NothingHappened, "{error}");
        fs::remove_file(&to).unwrap();
        fs::rename(dir.path().join("kept"), &to).unwrap();
    }
    names(dir.path(), &["to", "to/f", "tree", "tree/f"]);
    assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
}

#[test]
#[cfg(unix)]
fn names_that_are_no_text_are_moved_and_found_again() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let name = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let (old, new) = (name(b"old\xff"), name(b"new\xfe/\xff"));
    let store = quick(dir.path());
    store.update(|tx| tx.write(old.join("f"), "f0")).unwrap();
    store.update(|tx| tx.rename(&old, &new)).unwrap();
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(text(dir.path().join(&new).join("f")), "f0");
    store.update(|tx| tx.remove_dir_all(&new).and_then(|()| tx.write(&new, "a file"))).unwrap();
    drop(store);
    assert!(Store::open(dir.path()).unwrap().last_recovery().differences.is_empty());
    assert_eq!(text(dir.path().join(&new)), "a file");
}

/// Symlinks in a directory that is to move were not followed, and could not be read.
#[test]
#[cfg(unix)]
fn a_transaction_follows_the_symlinks_in_a_tree_that_it_moves() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("x/a", "a0"), ("x/d/b", "b0")]);
    for (link, to) in [("x/l", "d"), ("x/back", "../x/a")] {
        std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
    }
    let mut tx = store.begin().unwrap();
    tx.rename("x", "y").unwrap();
    assert_eq!((tx.read("y/l/b").unwrap(), tx.read_link("y/l").unwrap()), (b"b0".to_vec(), "d".into()));
    assert_eq!(tx.list("y/l").unwrap()[0].to_string(), "y/d/b");
    assert!(tx.read("y/back").unwrap_err().is_not_found(), "it leads to where the tree was");
    tx.copy("y/l/b", "copy").unwrap();
    assert!(invalid(&tx.write("y/l/b", "").unwrap_err()).is_some());
    tx.commit().unwrap();
    assert_eq!(text(dir.path().join("copy")), "b0");
    // What a path led through must still lead there.
    let mut tx = store.begin().unwrap();
    tx.rename("y", "z").unwrap();
    tx.read("z/l/b").unwrap();
    fs::remove_file(dir.path().join("y/l")).unwrap();
    std::os::unix::fs::symlink("elsewhere", dir.path().join("y/l")).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
}
