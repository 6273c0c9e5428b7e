//! Roots within roots, and roots that share a control directory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cosave::{Error, Outcome, Store};

use crate::common::{Crash, assert_no_litter, litter, put, quick, text};

/// What a session that died in `root` leaves: its mark, and a record that it staged in the root.
fn dead_session(root: &Path) {
    let sessions = root.join(".cosave/sessions");
    fs::create_dir_all(&sessions).unwrap();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let body = r#"{"process":1,"directories":[""],"made":[]}"#;
    let record = format!("cosave-session 1 {}\n{body}", blake3::hash(body.as_bytes()).to_hex());
    fs::write(sessions.join(format!("{id}.0")), record).unwrap();
    fs::write(sessions.join(id), "").unwrap();
}

/// The sweep of the inner root took a session that it did not know for dead.
#[test]
fn an_inner_root_leaves_alone_what_the_outer_root_stages_in_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let inner = root.join("inner");
    put(&Store::options().create(true).open(&inner).unwrap(), &[("a", "old")]);
    let outer = Store::options().inline_max(0).open(root).unwrap();
    let mut tx = outer.begin().unwrap();
    tx.write("inner/a", "outer's").unwrap();
    tx.write("b", "outer's").unwrap();
    dead_session(&inner);
    let store = Store::open(&inner).unwrap();
    assert_eq!(store.status().unwrap().sessions_alive, 0);
    assert!(litter(&inner).iter().all(|name| !name.contains("session")), "the dead session is swept");
    store.sweep().unwrap();
    tx.commit().unwrap();
    assert_eq!((text(inner.join("a")), text(root.join("b"))), ("outer's".to_owned(), "outer's".to_owned()));
}

/// The same for what the outer root has published: it was then finished as a mix of old and new.
#[test]
fn an_inner_root_leaves_alone_what_the_outer_root_has_published() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let inner = root.join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a"), "old").unwrap();
    fs::write(root.join("b"), "old").unwrap();
    let mut crash = Crash::new(root);
    crash.write("inner/a", "new a");
    crash.write("b", "new b");
    crash.publish(1);
    dead_session(&inner);
    drop(Store::open(&inner).unwrap());
    drop(Store::open(root).unwrap());
    assert_eq!((text(inner.join("a")), text(root.join("b"))), ("new a".to_owned(), "new b".to_owned()));
    assert_no_litter(&inner);
}

/// Opening the second root retired what the first had committed.
#[test]
fn one_control_directory_serves_one_root() {
    let base = tempfile::tempdir().unwrap();
    let (one, two, control) = (base.path().join("one"), base.path().join("two"), base.path().join("control"));
    let open = |root: &Path| Store::options().create(true).control_dir(&control).open(root);
    let store = open(&one).unwrap();
    put(&store, &[("a", "old")]);
    let mut tx = store.begin().unwrap();
    tx.write("a", "new").unwrap();
    fs::create_dir(&two).unwrap();
    for read_only in [false, true] {
        let opened = Store::options().control_dir(&control).read_only(read_only).open(&two);
        let refused = opened.map(drop).unwrap_err();
        assert!(matches!(refused, Error::OtherRoot { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("one") && said.contains("two"), "{said}");
        assert_eq!(refused.outcome(), Outcome::NothingHappened);
    }
    tx.commit().unwrap();
    drop(store);
    assert_eq!(text(one.join("a")), "new");
    // The same root is the same by any name.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&one, base.path().join("link")).unwrap();
        put(&open(&base.path().join("link")).unwrap(), &[("a", "through a link")]);
    }
    put(&open(&one).unwrap(), &[("b", "again")]);
}

/// Two roots that are opened with one new control directory: whoever commits first has it.
#[test]
fn a_root_that_comes_second_to_a_new_control_directory_cannot_commit() {
    let base = tempfile::tempdir().unwrap();
    let (one, two, control) = (base.path().join("one"), base.path().join("two"), base.path().join("control"));
    let open = |root: &Path| Store::options().create(true).control_dir(&control).open(root).unwrap();
    let (first, second) = (open(&one), open(&two));
    let mut tx = second.begin().unwrap();
    put(&first, &[("a", "1")]);
    let refused = tx.write("a", "2").and_then(|()| tx.commit().map(drop)).unwrap_err();
    assert!(matches!(refused, Error::OtherRoot { .. }), "{refused}");
    assert!(second.view().is_err());
    assert!(fs::read_dir(&two).unwrap().next().is_none());
    put(&first, &[("a", "3")]);
    assert_eq!(text(one.join("a")), "3");
}

#[test]
fn a_root_that_was_moved_keeps_its_control_directory() {
    let base = tempfile::tempdir().unwrap();
    let (one, two, control) = (base.path().join("one"), base.path().join("two"), base.path().join("control"));
    let options = || Store::options().control_dir(&control);
    put(&options().create(true).open(&one).unwrap(), &[("a", "1")]);
    fs::rename(&one, &two).unwrap();
    let store = options().open(&two).unwrap();
    assert_eq!(store.generation().unwrap(), 1);
    put(&store, &[("a", "2")]);
    drop(store);
    // It is known by its new place now, whatever comes to its old one.
    fs::create_dir(&one).unwrap();
    assert!(options().open(&one).is_err());
    put(&options().open(&two).unwrap(), &[("a", "3")]);
    // A copy is another root, unless its owner says that it is to be the one.
    let three = base.path().join("three");
    fs::create_dir(&three).unwrap();
    fs::copy(two.join("a"), three.join("a")).unwrap();
    assert!(options().open(&three).is_err());
    put(&options().root_moved(true).open(&three).unwrap(), &[("a", "4")]);
    assert!(options().open(&two).is_err());
}

/// Paths in the control directory are relative, so a project can be moved and copied with it.
#[test]
fn a_control_directory_in_its_root_moves_and_is_copied_with_it() {
    let base = tempfile::tempdir().unwrap();
    let (one, two) = (base.path().join("one"), base.path().join("two"));
    // Named or not, it is the same.
    let named = |root: &Path| Store::options().create(true).control_dir(root.join(".cosave")).open(root);
    put(&named(&one).unwrap(), &[("a", "1")]);
    fs::create_dir_all(two.join(".cosave/sessions")).unwrap();
    for entry in fs::read_dir(one.join(".cosave")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), two.join(".cosave").join(entry.file_name())).unwrap();
        }
    }
    for store in [named(&two), Store::open(&two), Store::open(&one)] {
        assert_eq!(store.unwrap().generation().unwrap(), 1);
    }
    let three = base.path().join("three");
    fs::rename(&one, &three).unwrap();
    put(&named(&three).unwrap(), &[("a", "2")]);
}

/// After `rm -rf .cosave` nobody found what had been staged.
#[test]
fn a_deep_sweep_finds_what_no_session_remembers() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = quick(root);
    put(&store, &[("a", "1"), ("d/e/b", "1")]);
    let forgotten = |directory: &str, name: &str| {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let path = root.join(directory).join(format!(".{name}.{id}-1-1.cosave"));
        fs::write(&path, "forgotten").unwrap();
        path
    };
    let lost = [forgotten("", "a"), forgotten("d/e", "b")];
    // A directory that was to take the place of a file, or was removed.
    let directory = forgotten("d", "x");
    fs::remove_file(&directory).unwrap();
    fs::create_dir_all(directory.join("deep")).unwrap();
    fs::write(directory.join("deep/f"), "").unwrap();
    // Not ours, another root's, and a living session's: all stay.
    let inner = root.join("inner");
    put(&quick_root(&inner), &[("a", "1")]);
    let others = [forgotten("inner", "a"), root.join(".a.cosave"), root.join("d/.b.old.cosave")];
    fs::write(&others[1], "").unwrap();
    fs::write(&others[2], "").unwrap();
    fs::create_dir(root.join("d/.y.cosave")).unwrap();
    let other = Store::options().inline_max(0).open(root).unwrap();
    let mut tx = other.begin().unwrap();
    tx.write("d/e/b", "2").unwrap();
    #[cfg(unix)]
    let outside = {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join(lost[0].file_name().unwrap());
        fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("link")).unwrap();
        (outside, path)
    };
    // An ordinary sweep knows nothing of them.
    assert!(store.sweep().unwrap().swept.is_empty());
    let report = store.deep_sweep().unwrap();
    let mut swept: Vec<_> = report.swept.iter().map(|path| root.join(path.as_path())).collect();
    swept.sort();
    let mut expected = [&lost[..], &[directory]].concat();
    expected.sort();
    assert_eq!(swept, expected);
    assert!(expected.iter().all(|path| !path.exists()));
    assert!(others.iter().all(|path| path.exists()) && root.join("d/.y.cosave").is_dir());
    #[cfg(unix)]
    assert!(outside.1.exists(), "a link was followed");
    tx.commit().unwrap();
    assert_eq!(text(root.join("d/e/b")), "2");
    assert!(store.deep_sweep().unwrap().swept.is_empty());
}

/// An outer root's living sessions may stage in an inner one, and only the outer root knows them.
#[test]
fn a_deep_sweep_of_an_inner_root_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let outer = Store::options().inline_max(0).open(root).unwrap();
    let inner = root.join("a/inner");
    put(&quick_root(&inner), &[("a", "1")]);
    let mut tx = outer.begin().unwrap();
    tx.write("a/inner/a", "2").unwrap();
    let refused = Store::open(&inner).unwrap().deep_sweep().unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    tx.commit().unwrap();
    assert_eq!(text(inner.join("a")), "2");
}

fn quick_root(root: &Path) -> Store {
    Store::options().create(true).lock_timeout(Duration::from_secs(5)).open(root).unwrap()
}
