//! History: what commits have replaced or removed is kept, on the real file system.

use std::fs;
use std::path::Path;

use cosave::{Durability, Error, Reason, Store};

use crate::common::{assert_no_litter, put, tree};

/// A store that keeps ten generations, with few waits.
fn keeping(root: &Path) -> Store {
    Store::options().keep(10).durability(Durability::Process).open(root).unwrap()
}

fn reason(error: &Error) -> Option<Reason> {
    match error {
        Error::Unsupported { reason, .. } => Some(*reason),
        _ => None,
    }
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|_| "nothing".to_owned())
}

/// The names in the history's directory.
fn kept(root: &Path) -> Vec<String> {
    let Ok(listed) = fs::read_dir(root.join(".cosave/history")) else { return Vec::new() };
    let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_undo_passes_over_a_commit_that_changed_no_bytes() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().keep(10).open(root.path()).unwrap();
    for (path, content) in [("a", "1"), ("b", "1"), ("a", "1")] {
        put(&store, &[(path, content)]);
    }
    store.undo().unwrap();
    assert!(root.path().join("a").exists() && !root.path().join("b").exists());
}

#[test]
fn every_generation_can_be_seen_and_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "a0").unwrap();
    fs::write(dir.path().join("untouched"), "u").unwrap();
    let store = keeping(dir.path());
    put(&store, &[("a", "a1"), ("d/b", "b1")]);
    put(&store, &[("d/b", "b2 longer")]);
    store.update(|tx| tx.remove("a")).unwrap();
    put(&store, &[("a", "a4"), ("e/f/c", "c4")]);
    let states: [&[(&str, &str)]; 5] = [
        &[("a", "a0")],
        &[("a", "a1"), ("d/b", "b1")],
        &[("a", "a1"), ("d/b", "b2 longer")],
        &[("d/b", "b2 longer")],
        &[("a", "a4"), ("d/b", "b2 longer"), ("e/f/c", "c4")],
    ];
    for (generation, state) in (0_u64..).zip(states) {
        let view = store.view_at(generation).unwrap();
        assert_eq!(view.generation(), generation);
        for path in ["a", "d/b", "e/f/c"] {
            let expected = state.iter().find(|(other, _)| *other == path).map(|(_, text)| *text);
            assert_eq!(view.exists(path).unwrap(), expected.is_some(), "{path} in {generation}");
            let found = view.read_if_exists(path).unwrap();
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path} in {generation}");
        }
        let files: Vec<_> = view.walk("").unwrap().into_iter().map(|entry| entry.to_string()).collect();
        let is_there = |path: &&str| state.iter().any(|(file, _)| file.starts_with(*path));
        let all = ["a", "d", "d/b", "e", "e/f", "e/f/c"];
        let mut expected: Vec<_> = all.into_iter().filter(is_there).collect();
        expected.push("untouched");
        assert_eq!(files, expected, "in {generation}");
    }
    for (generation, state) in [0_u64, 1, 2, 3, 4].into_iter().zip(states).rev() {
        store.restore(generation).unwrap();
        for path in ["a", "d/b", "e/f/c"] {
            let expected = state.iter().find(|(other, _)| *other == path).map_or("nothing", |found| found.1);
            assert_eq!(text(dir.path(), path), expected, "{path} in {generation}");
        }
    }
    assert_eq!(tree(dir.path()).into_keys().collect::<Vec<_>>(), [Path::new("a"), Path::new("untouched")]);
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn undo_goes_further_back_each_time_and_redo_forth_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    for content in ["1", "2", "3"] {
        put(&store, &[("a", content)]);
    }
    let undo = |expected: &str| {
        store.undo().unwrap();
        assert_eq!(text(dir.path(), "a"), expected);
    };
    undo("2");
    undo("1");
    store.redo().unwrap();
    assert_eq!(text(dir.path(), "a"), "2");
    undo("1");
    undo("nothing");
    assert_eq!(reason(&store.undo().unwrap_err()), Some(Reason::NothingToUndo));
    for expected in ["1", "2", "3"] {
        store.redo().unwrap();
        assert_eq!(text(dir.path(), "a"), expected);
    }
    assert_eq!(reason(&store.redo().unwrap_err()), Some(Reason::NothingToUndo));
}

#[test]
fn a_commit_after_an_undo_ends_what_can_be_redone() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("a", "1")]);
    put(&store, &[("a", "2")]);
    store.undo().unwrap();
    put(&store, &[("a", "other")]);
    assert_eq!(reason(&store.redo().unwrap_err()), Some(Reason::NothingToUndo));
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "a"), "1");
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "a"), "nothing");
    // A restore is a commit like any other, and is undone like one.
    store.restore(2).unwrap();
    assert_eq!(text(dir.path(), "a"), "2");
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "a"), "nothing");
}

/// An undo had brought back a state whose own generation had fallen out meanwhile. Going back to it was
/// refused, though the generation of the undo could still be reached. And nothing could be redone when the
/// undo itself had fallen out.
#[test]
fn an_undone_state_is_reached_as_long_as_any_generation_that_had_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().keep(2).open(dir.path()).unwrap();
    for content in ["1", "2"] {
        put(&store, &[("a", content)]);
    }
    store.undo().unwrap();
    put(&store, &[("a", "4")]);
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "a"), "1");
    assert_eq!(store.history().unwrap()[0].brought_back(), Some(1.into()));
    assert_eq!(reason(&store.undo().unwrap_err()), Some(Reason::NoHistory));
    store.redo().unwrap();
    assert_eq!(text(dir.path(), "a"), "4");
}

#[test]
fn what_falls_out_is_removed_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().keep(2).open(dir.path()).unwrap();
    for content in ["1", "2", "3", "4"] {
        put(&store, &[("a", content)]);
    }
    assert_eq!(kept(dir.path()).len(), 2);
    assert_eq!(store.view_at(2).unwrap().read("a").unwrap(), b"2");
    assert_eq!(reason(&store.view_at(1).unwrap_err()), Some(Reason::NoHistory));
    assert_eq!(reason(&store.restore(1).unwrap_err()), Some(Reason::NoHistory));
    assert_eq!(reason(&store.view_at(5).unwrap_err()), Some(Reason::NotCommitted));
    let shown: Vec<_> = store.history().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["generation 4\nreplace a (1 -> 1 bytes)", "generation 3\nreplace a (1 -> 1 bytes)"]);
    store.forget_history().unwrap();
    assert!(kept(dir.path()).is_empty() && !dir.path().join(".cosave/history").exists());
}

#[test]
fn a_commit_without_a_history_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("a", "1")]);
    put(&store, &[("a", "2")]);
    let other = Store::options().durability(Durability::Process).open(dir.path()).unwrap();
    put(&other, &[("a", "3")]);
    assert!(store.history().unwrap().is_empty());
    assert_eq!(reason(&store.view_at(1).unwrap_err()), Some(Reason::NoHistory));
    assert_eq!(reason(&store.undo().unwrap_err()), Some(Reason::NoHistory));
    put(&store, &[("a", "4")]);
    assert_eq!(store.view_at(3).unwrap().read("a").unwrap(), b"3");
    assert_eq!(reason(&store.view_at(2).unwrap_err()), Some(Reason::NoHistory));
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "a"), "3");
}

#[test]
fn a_store_without_a_history_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("a", "1")]);
    put(&store, &[("a", "2")]);
    assert!(!dir.path().join(".cosave/history").exists());
    assert!(store.history().unwrap().is_empty());
    assert_eq!(store.view_at(2).unwrap().read("a").unwrap(), b"2");
}

#[test]
fn what_other_programs_have_changed_is_never_served_as_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("a", "a1"), ("b", "b1")]);
    put(&store, &[("other", "2")]);
    fs::write(dir.path().join("a"), "by hand").unwrap();
    fs::remove_file(dir.path().join("b")).unwrap();
    let view = store.view_at(1).unwrap();
    for path in ["a", "b"] {
        assert_eq!(reason(&view.read(path).unwrap_err()), Some(Reason::ChangedOutside), "{path}");
        assert_eq!(reason(&view.metadata(path).unwrap_err()), Some(Reason::ChangedOutside), "{path}");
    }
    drop(view);
    put(&store, &[("a", "a3")]);
    // Whoever undoes the last save wants the edit by hand back that it replaced.
    assert_eq!(store.view_at(2).unwrap().read("a").unwrap(), b"by hand");
    let error = store.view_at(1).unwrap().read("a").unwrap_err();
    assert_eq!(reason(&error), Some(Reason::ChangedOutside));
    assert_eq!(reason(&store.restore(1).unwrap_err()), Some(Reason::ChangedOutside));
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "a"), "by hand");
}

#[test]
fn a_file_that_was_changed_since_is_a_conflict_and_nothing_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("a", "1"), ("b", "1")]);
    put(&store, &[("a", "2"), ("b", "2")]);
    fs::write(dir.path().join("b"), "by hand").unwrap();
    let error = store.undo().unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert_eq!((text(dir.path(), "a"), text(dir.path(), "b")), ("2".to_owned(), "by hand".to_owned()));
    assert_eq!(store.generation().unwrap(), 2);
}

#[test]
#[cfg(unix)]
fn a_kept_file_that_was_written_in_place_is_not_served() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("a", "1111")]);
    // A program has the file open, and goes on writing into it after it was replaced.
    let mut open = fs::File::options().write(true).open(dir.path().join("a")).unwrap();
    put(&store, &[("a", "2")]);
    open.write_all(b"late").unwrap();
    let error = store.view_at(1).unwrap().read("a").unwrap_err();
    assert_eq!(reason(&error), Some(Reason::KeptChanged));
    assert_eq!(reason(&store.undo().unwrap_err()), Some(Reason::KeptChanged));
    assert_eq!(text(dir.path(), "a"), "2");
}

#[test]
fn directories_come_and_go_with_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    store.update(|tx| tx.create_dir_all("x/y")).unwrap();
    put(&store, &[("x/y/a", "1"), ("new/b", "1")]);
    store
        .update(|tx| {
            tx.remove("x/y/a")?;
            tx.remove_dir("x/y")
        })
        .unwrap();
    let then = store.view_at(2).unwrap();
    assert!(then.metadata("x/y").unwrap().is_directory());
    assert_eq!(then.list("x/y").unwrap().len(), 1);
    assert!(!store.view_at(1).unwrap().exists("new").unwrap());
    assert!(store.view_at(1).unwrap().list("x/y").unwrap().is_empty());
    drop(then);
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "x/y/a"), "1");
    store.undo().unwrap();
    assert!(!dir.path().join("new").exists() && dir.path().join("x/y").is_dir());
    fs::write(dir.path().join("x/y/foreign"), "theirs").unwrap();
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "x/y/foreign"), "theirs");
}

#[cfg(unix)]
#[test]
fn symlinks_are_not_kept_and_nothing_goes_back_over_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("releases/1/app", "1"), ("releases/2/app", "2"), ("config", "c1")]);
    store.update(|tx| tx.symlink("current", "releases/1")).unwrap();
    store.update(|tx| tx.symlink("current", "releases/2")).unwrap();
    put(&store, &[("config", "c4")]);
    let history = store.history().unwrap();
    let link = history[1].changes()[0].to_string();
    assert!(link.contains("current") && link.contains("releases/2"), "{link}");
    assert_eq!(history[1].not_kept()[0].as_path(), Path::new("current"));
    let before = store.view_at(3).unwrap();
    assert_eq!(before.read_link("current").unwrap(), Path::new("releases/2"));
    assert_eq!(before.read("current/app").unwrap(), b"2");
    assert_eq!(before.read("config").unwrap(), b"c1");
    drop(before);
    let replaced = store.view_at(2).unwrap();
    for error in [replaced.read("current/app").unwrap_err(), replaced.read_link("current").unwrap_err()] {
        assert_eq!(reason(&error), Some(Reason::NotKept), "{error}");
    }
    assert_eq!(replaced.read("releases/1/app").unwrap(), b"1");
    drop(replaced);
    assert!(!store.view_at(1).unwrap().exists("current").unwrap());
    store.undo().unwrap();
    assert_eq!(text(dir.path(), "config"), "c1");
    for error in [store.undo().unwrap_err(), store.restore(2).unwrap_err(), store.restore(1).unwrap_err()] {
        assert_eq!(reason(&error), Some(Reason::NotKept), "{error}");
    }
    assert_eq!(text(dir.path(), "current/app"), "2");
    fs::remove_file(dir.path().join("current")).unwrap();
    std::os::unix::fs::symlink("releases/1", dir.path().join("current")).unwrap();
    let error = store.view_at(3).unwrap().read_link("current").unwrap_err();
    assert_eq!(reason(&error), Some(Reason::ChangedOutside), "{error}");
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn nothing_goes_back_beyond_a_commit_that_moved_or_removed_a_whole_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("d/a", "a1"), ("e/b", "b1"), ("c", "c1")]);
    put(&store, &[("d/a", "a2")]);
    store.update(|tx| tx.rename("d", "moved")).unwrap();
    put(&store, &[("moved/a", "a4"), ("c", "c4")]);
    let history = store.history().unwrap();
    assert!(history[1].to_string().contains("moved"), "{}", history[1]);
    let after = store.view_at(3).unwrap();
    assert_eq!(after.read("moved/a").unwrap(), b"a2");
    assert!(!after.exists("d/a").unwrap() && !after.exists("d").unwrap());
    drop(after);
    let error = store.view_at(2).unwrap_err();
    assert_eq!(reason(&error), Some(Reason::NotKept), "{error}");
    store.undo().unwrap();
    assert_eq!((text(dir.path(), "moved/a"), text(dir.path(), "c")), ("a2".into(), "c1".into()));
    for error in [store.undo().unwrap_err(), store.restore(1).unwrap_err()] {
        assert_eq!(reason(&error), Some(Reason::NotKept), "{error}");
    }
    store.update(|tx| tx.remove_dir_all("e")).unwrap();
    assert_eq!(reason(&store.undo().unwrap_err()), Some(Reason::NotKept));
    assert!(!dir.path().join("e").exists());
    drop(store);
    assert_no_litter(dir.path());
}

#[cfg(unix)]
fn mode(path: impl AsRef<Path>) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[cfg(unix)]
fn set_mode(path: impl AsRef<Path>, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The kept file of a generation's first entry.
#[cfg(unix)]
fn kept_file(root: &Path, generation: u64) -> std::path::PathBuf {
    let name = kept(root).into_iter().find(|name| name.starts_with(&format!("{generation}."))).unwrap();
    root.join(".cosave/history").join(name).join("0")
}

#[test]
#[cfg(unix)]
fn only_those_who_may_write_in_the_root_can_enter_the_history() {
    for (root_mode, expected) in [(0o755, 0o700), (0o775, 0o770), (0o777, 0o777), (0o700, 0o700)] {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), root_mode);
        let store = keeping(dir.path());
        put(&store, &[("a", "1")]);
        put(&store, &[("a", "2")]);
        let entered = kept_file(dir.path(), 2).parent().unwrap().to_path_buf();
        assert_eq!(mode(&entered), expected, "{root_mode:o}");
        assert_eq!(mode(entered.join("record")) & 0o777 & !expected, 0, "{root_mode:o}");
    }
}

#[test]
#[cfg(unix)]
fn a_kept_file_is_open_to_nobody_who_could_not_read_the_original() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    // Everybody may write here, and so enter the history.
    set_mode(dir.path(), 0o777);
    fs::create_dir(dir.path().join("closed")).unwrap();
    for (path, bits) in [("open", 0o644), ("secret", 0o600), ("group", 0o640), ("closed/file", 0o644)] {
        fs::write(dir.path().join(path), "first").unwrap();
        set_mode(dir.path().join(path), bits);
    }
    set_mode(dir.path().join("closed"), 0o700);
    let store = keeping(dir.path());
    for (generation, path) in (1_u64..).zip(["open", "secret", "group", "closed/file"]) {
        let original = fs::metadata(dir.path().join(path)).unwrap();
        put(&store, &[(path, "second")]);
        let kept = fs::metadata(kept_file(dir.path(), generation)).unwrap();
        let is_link = kept.ino() == original.ino();
        assert_eq!(is_link, path == "open", "{path}");
        let bits = kept.mode() & 0o777;
        assert_eq!(bits, if is_link { 0o644 } else { 0o600 }, "{path}");
    }
    store.restore(0).unwrap();
    for (path, bits) in [("open", 0o644), ("secret", 0o600), ("group", 0o640), ("closed/file", 0o644)] {
        assert_eq!((text(dir.path(), path).as_str(), mode(dir.path().join(path))), ("first", bits), "{path}");
    }
}

#[test]
#[cfg(unix)]
fn a_removed_file_comes_back_with_its_permissions_and_without_a_set_id_bit() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    for (path, bits) in [("private", 0o600), ("run", 0o755), ("set-id", 0o4755)] {
        fs::write(dir.path().join(path), path).unwrap();
        set_mode(dir.path().join(path), bits);
        store.update(|tx| tx.remove(path)).unwrap();
        store.undo().unwrap();
        assert_eq!(text(dir.path(), path), path);
        assert_eq!(mode(dir.path().join(path)), bits & 0o777, "{path}");
    }
    store.update(|tx| tx.set_permissions("run", 0o700)).unwrap();
    assert_eq!(mode(dir.path().join("run")), 0o700);
    store.undo().unwrap();
    assert_eq!(mode(dir.path().join("run")), 0o755);
}

#[test]
fn stores_that_save_at_once_have_one_history() {
    let dir = tempfile::tempdir().unwrap();
    let stores: Vec<_> = (0..4)
        .map(|_| Store::options().keep(100).durability(Durability::Process).open(dir.path()).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for (number, store) in stores.iter().enumerate() {
            scope.spawn(move || {
                for turn in 0..10 {
                    put(store, &[("shared", &format!("{number} {turn}")), (&format!("own{number}"), "x")]);
                }
            });
        }
    });
    let history = stores[0].history().unwrap();
    assert_eq!(history.len(), 40);
    let seen: Vec<_> = (0..40_u64)
        .map(|generation| stores[1].view_at(generation).unwrap().read_if_exists("shared"))
        .collect();
    assert!(seen[0].as_ref().unwrap().is_none());
    let texts: std::collections::BTreeSet<_> = seen[1..].iter().map(|text| text.as_ref().unwrap()).collect();
    assert_eq!(texts.len(), 39, "each generation has a text of its own");
    stores[2].restore(0).unwrap();
    assert!(tree(dir.path()).is_empty());
}

/// Writes the list of a generation anew, with a right checksum.
fn forge(root: &Path, generation: u64, change: impl Fn(&mut serde_json::Value)) {
    let name = kept(root).into_iter().find(|name| name.starts_with(&format!("{generation}."))).unwrap();
    let path = root.join(".cosave/history").join(name).join("record");
    let list = fs::read_to_string(&path).unwrap();
    let (header, body) = list.split_once('\n').unwrap();
    let mut list = serde_json::from_str(body).unwrap();
    change(&mut list);
    let (body, format) = (list.to_string(), header.rsplit_once(' ').unwrap().0);
    fs::write(path, format!("{format} {}\n{body}", blake3::hash(body.as_bytes()).to_hex())).unwrap();
}

/// A list said of an undo that it had brought back the generation after its own. So the way back was a circle,
/// and the next undo went round until all memory was used.
#[test]
fn a_forged_list_leads_no_undo_in_a_circle() {
    for (state, top, is_whole) in [(1, 1, true), (1, 2, true), (3, 2, false), (4, 2, false), (1, 3, false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = keeping(dir.path());
        ["1", "2", "3"].iter().for_each(|content| _ = put(&store, &[("a", content)]));
        forge(dir.path(), 3, |list| list["undo"] = serde_json::json!({ "state": state, "top": top }));
        assert_eq!(store.history().unwrap().len(), if is_whole { 3 } else { 0 }, "{state}, {top}");
        if !is_whole {
            assert_eq!(reason(&store.undo().unwrap_err()), Some(Reason::NoHistory), "{state}, {top}");
        }
    }
}

/// The list of a commit that put a file in the place of a directory named the removed directory alone. So
/// nobody knew what the file had been, and a stranger's edit of it was shown as the past, and brought back.
#[test]
fn what_others_do_to_a_file_in_the_place_of_a_directory_is_never_served_as_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("d/f", "f1"), ("q", "q1")]);
    store.update(|tx| tx.remove_dir_all("d").and_then(|()| tx.write("d", "d2"))).unwrap();
    let changes = store.history().unwrap()[0].changes().to_vec();
    assert_eq!(
        changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["remove  d/ (with everything in it)", "create  d (2 bytes)"]
    );
    assert_eq!(store.view_at(2).unwrap().read("d").unwrap(), b"d2");
    fs::write(dir.path().join("d"), "a stranger's").unwrap();
    let changed = |generation: u64| {
        let read = store.view_at(generation).unwrap().read("d");
        assert_eq!(read.as_ref().err().and_then(reason), Some(Reason::ChangedOutside), "{read:?}");
    };
    changed(2);
    put(&store, &[("q", "q3")]);
    put(&store, &[("d", "d4")]);
    changed(2);
    assert_eq!(reason(&store.restore(2).unwrap_err()), Some(Reason::ChangedOutside));
    assert_eq!(store.view_at(3).unwrap().read("d").unwrap(), b"a stranger's");
    assert_eq!(reason(&store.view_at(1).unwrap_err()), Some(Reason::NotKept));
}

/// To go back over a commit that had put a file in the place of a directory failed with an error about a wrong
/// path. Single steps do it.
#[test]
fn a_file_becomes_a_directory_again_by_single_steps_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    put(&store, &[("d/a", "a1"), ("f", "f1")]);
    store
        .update(|tx| {
            tx.remove("d/a")?;
            tx.remove_dir("d")?;
            tx.remove("f")
        })
        .unwrap();
    put(&store, &[("d", "a file")]);
    store.update(|tx| tx.create_dir("f")).unwrap();
    let before = tree(dir.path());
    assert_eq!(reason(&store.restore(1).unwrap_err()), Some(Reason::NotKept));
    assert_eq!(tree(dir.path()), before);
    (0..3).for_each(|_| _ = store.undo().unwrap());
    assert_eq!((text(dir.path(), "d/a"), text(dir.path(), "f")), ("a1".to_owned(), "f1".to_owned()));
}

/// To somebody who might not read the manifests, the history was empty, and too short for an undo.
#[test]
fn a_history_that_cannot_be_read_is_an_error_and_not_empty() {
    let root = tempfile::tempdir().unwrap();
    let store = keeping(root.path());
    for text in ["1", "2"] {
        put(&store, &[("a", text)]);
    }
    drop(store);
    let mut names = fs::read_dir(root.path().join(".cosave")).unwrap().map(|entry| entry.unwrap().path());
    let newest = names.find(|path| path.file_stem().is_some_and(|stem| stem == "2")).unwrap();
    let manifest = fs::read(&newest).unwrap();
    // As it is for a user without the right: it is there, and reading it is an error.
    fs::remove_file(&newest).unwrap();
    fs::create_dir(&newest).unwrap();
    let store = Store::options().keep(10).recover(false).open(root.path()).unwrap();
    let errors = [
        store.history().unwrap_err(),
        store.undo().unwrap_err(),
        store.restore(1).unwrap_err(),
        store.view_at(1).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.place().is_some_and(|place| place.path().file_name() == newest.file_name()), "{error}");
    }
    fs::remove_dir(&newest).unwrap();
    fs::write(&newest, manifest).unwrap();
    assert_eq!(store.history().unwrap().len(), 2);
}
