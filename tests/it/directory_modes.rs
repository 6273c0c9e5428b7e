//! Directories that a transaction makes with a mode, on the real file system.

#![cfg(unix)]

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use cosave::{Error, InvalidPath, Reason, Store};
use serde_json::json;

use crate::common::{Crash, LARGE_BYTES, assert_no_litter, invalid, kind, put, quick, skipped, text};

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_has_its_mode_whatever_the_umask_says() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    let store = quick(dir.path());
    store
        .update(|tx| {
            tx.directory("closed").mode(0o700).create()?;
            tx.directory("open").mode(0o777).create()?;
            tx.directory("open/group").mode(0o750).create()?;
            tx.directory("plain").create()?;
            tx.write("closed/deep/key", "secret")?;
            tx.create_dir("like plain")
        })
        .unwrap();
    let modes = ["closed", "open", "open/group"].map(|path| mode(at(path)));
    assert_eq!(modes, [0o700, 0o777, 0o750]);
    assert_eq!(mode(at("plain")), mode(at("like plain")));
    assert_eq!(text(at("closed/deep/key")), "secret");
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn what_is_staged_is_in_a_closed_directory_already() {
    let dir = tempfile::tempdir().unwrap();
    let vault = dir.path().join("vault");
    let store = quick(dir.path());
    let mut tx = store.begin().unwrap();
    tx.directory("vault").mode(0o700).create().unwrap();
    assert!(!vault.exists(), "nothing is staged yet");
    let mut writer = tx.writer("vault/inner/key").unwrap();
    writer.write_all(&vec![b'k'; LARGE_BYTES]).unwrap();
    writer.finish().unwrap();
    assert_eq!(mode(&vault), 0o700);
    assert_eq!(fs::read_dir(vault.join("inner")).unwrap().count(), 1, "the staged file");
    tx.abort();
    assert!(!vault.exists());
    // The last word counts.
    let mut tx = store.begin().unwrap();
    tx.directory("vault").mode(0o755).create().unwrap();
    tx.remove_dir("vault").unwrap();
    tx.directory("vault").mode(0o711).create().unwrap();
    tx.write("vault/key", vec![b'k'; LARGE_BYTES]).unwrap();
    tx.commit().unwrap();
    assert_eq!(mode(&vault), 0o711);
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn no_mode_but_one_that_says_who_may_enter_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    let mut tx = store.begin().unwrap();
    for wrong in [0o1700, 0o2700, 0o4700, 0o10700, 0o500, 0o077, 0] {
        match tx.directory("d").mode(wrong).create() {
            Err(Error::Unsupported { reason: Reason::DirectoryMode, .. }) => {}
            other => panic!("{wrong:o}: {other:?}"),
        }
    }
    assert!(tx.changes().unwrap().is_empty());
}

/// Its mode is not this transaction's to say.
#[test]
fn a_directory_that_is_there_gets_no_mode() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    fs::create_dir(dir.path().join("d")).unwrap();
    let mut tx = store.begin().unwrap();
    let exists = Some(ErrorKind::AlreadyExists);
    assert_eq!(kind(&tx.directory("d").mode(0o700).create().unwrap_err()), exists);
    assert_eq!(invalid(&tx.set_permissions("d", 0o700).unwrap_err()), Some(InvalidPath::Directory));
    tx.remove_dir("d").unwrap();
    assert_eq!(kind(&tx.directory("d").mode(0o700).create().unwrap_err()), exists);
    // Something of this transaction is in it already.
    tx.write("new/file", vec![0; LARGE_BYTES]).unwrap();
    assert_eq!(kind(&tx.directory("new").mode(0o700).create().unwrap_err()), exists);
    drop(tx);
    // One that goes with everything in it makes room for another one.
    put(&store, &[("d/old", "old")]);
    store.update(|tx| tx.remove_dir_all("d").and_then(|()| tx.directory("d").mode(0o700).create())).unwrap();
    assert_eq!(mode(dir.path().join("d")), 0o700);
    assert_eq!(fs::read_dir(dir.path().join("d")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_others_make_first_is_a_conflict() {
    for stages in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = quick(dir.path());
        let mut tx = store.begin().unwrap();
        tx.directory("vault").mode(0o700).create().unwrap();
        if stages {
            tx.write("vault/key", "secret").unwrap();
        }
        fs::create_dir(dir.path().join("vault")).unwrap();
        let error = tx.try_commit().unwrap_err();
        assert!(error.is_conflict(), "{error}");
        assert_eq!(fs::read_dir(dir.path().join("vault")).unwrap().count(), 0);
        // The same transaction succeeds once it is gone, and still knows the mode.
        fs::remove_dir(dir.path().join("vault")).unwrap();
        tx.try_commit().unwrap();
        assert_eq!(mode(dir.path().join("vault")), 0o700);
        assert_eq!(dir.path().join("vault/key").exists(), stages);
    }
}

#[test]
fn a_plan_and_a_commit_tell_the_mode() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    let commit = store
        .update(|tx| {
            tx.directory("vault").mode(0o710).create()?;
            assert_eq!(tx.changes()?[0].to_string(), "create  vault/ (mode 710)");
            tx.create_dir("plain")
        })
        .unwrap();
    let changes = serde_json::to_value(commit.changes()).unwrap();
    let expected = json!([
        {"create_directory": {"path": "vault", "mode": 0o710}},
        {"create_directory": {"path": "plain"}},
    ]);
    assert_eq!(changes, expected);
    let mut planned = store.dry_run().unwrap();
    planned.directory("next").mode(0o700).create().unwrap();
    assert_eq!(planned.changes().unwrap()[0].to_string(), "create  next/ (mode 700)");
    assert!(!dir.path().join("next").exists());
}

/// The next directories in it belong to the same group.
#[test]
fn a_set_group_id_bit_that_a_directory_inherits_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    set_mode(dir.path(), 0o2755);
    if mode(dir.path()) != 0o2755 {
        return skipped("directory_modes", "this file system has no set-group-ID bit");
    }
    fs::create_dir(dir.path().join("plain")).unwrap();
    let inherited = mode(dir.path().join("plain")) & 0o7000;
    store.update(|tx| tx.directory("d").mode(0o700).create()).unwrap();
    assert_eq!(mode(dir.path().join("d")), 0o700 | inherited);
}

/// A crash state: the directory is published, and a writer was killed at some point after that.
fn published(root: &Path, entry: serde_json::Value) {
    let mut crash = Crash::new(root);
    crash.forge(entry);
    crash.publish(1);
}

#[test]
fn recovery_gives_a_directory_the_mode_of_the_commit() {
    let entry =
        json!({"path": "d", "operation": "create-directory", "directory": {"mode": 0o750}, "before": null});
    // Not made; made and not finished; finished, and closed by somebody since.
    for (found, filled, expected) in [
        (None, false, 0o750),
        (Some(0o400), false, 0o750),
        (Some(0o400), true, 0o750),
        (Some(0o700), false, 0o700),
    ] {
        let dir = tempfile::tempdir().unwrap();
        published(dir.path(), entry.clone());
        let path = dir.path().join("d");
        if let Some(found) = found {
            fs::create_dir(&path).unwrap();
            if filled {
                fs::write(path.join("file"), "in it").unwrap();
            }
            set_mode(&path, found);
        }
        let store = Store::open(dir.path()).unwrap();
        assert_eq!((mode(&path), store.generation().unwrap().get()), (expected, 1), "{found:?} {filled}");
        assert_eq!(path.join("file").exists(), filled);
        assert!(store.last_recovery().differences.is_empty());
        drop(store);
        assert_no_litter(dir.path());
    }
}

/// The bits of a group hold for that group. Whoever recovers may not be in it.
#[test]
fn recovery_gives_no_other_group_what_one_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let own = fs::metadata(dir.path()).unwrap().gid();
    if fs::metadata(dir.path()).unwrap().uid() != 0 {
        return skipped("directory_modes", "needs root");
    }
    let make = |path: &str, group: u32| {
        let new = json!({"mode": 0o770, "group": group});
        json!({"path": path, "operation": "create-directory", "directory": new, "before": null})
    };
    let mut crash = Crash::new(dir.path());
    crash.forge(make("own", own));
    crash.forge(make("given", 12_345));
    crash.publish(1);
    Store::open(dir.path()).unwrap();
    for (path, group) in [("own", own), ("given", 12_345)] {
        let found = fs::metadata(dir.path().join(path)).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o777), (group, 0o770), "{path}");
    }
}

#[test]
fn a_forged_mode_opens_no_root() {
    for (operation, new) in [
        ("create-directory", json!({"mode": 0o4755})),
        ("create-directory", json!({"mode": 0o1777})),
        ("create-directory", json!({"mode": 0o20_700})),
        ("create-directory", json!({"mode": 0o055})),
        ("create-directory", json!({"mode": -1})),
        ("create-directory", json!({"group": 0})),
        ("remove-directory", json!({"mode": 0o700})),
        ("remove", json!({"mode": 0o700})),
    ] {
        let dir = tempfile::tempdir().unwrap();
        published(dir.path(), json!({"path": "d", "operation": operation, "directory": new, "before": null}));
        let refused = Store::open(dir.path()).unwrap_err();
        assert!(matches!(refused, Error::Corrupt { .. }), "{operation} {new}: {refused}");
        assert!(!dir.path().join("d").exists());
    }
}
