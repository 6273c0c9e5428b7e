//! Roots that several users share.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use cosave::{Durability, Error, Store};

use crate::common::{Crash, LARGE_BYTES, assert_no_litter, child, child_root, put, run, say, skipped, text};

/// Somebody without any rights of their own.
const NOBODY: u32 = 65_534;
const ANOTHER: u32 = 65_533;

/// A root that belongs to nobody, or `None` where this process may not give files away.
fn given_root(mode: u32) -> Option<tempfile::TempDir> {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(mode)).unwrap();
    if chown(root.path(), Some(NOBODY), Some(NOBODY)).is_err() {
        skipped("shared", "only a privileged process can be somebody else");
        return None;
    }
    Some(root)
}

/// A child that runs as somebody else, in the test's own directory.
fn child_as(user: u32, group: u32, test: &str, root: &Path) -> Command {
    let mut command = child(test, root);
    command.uid(user).gid(group);
    command
}

fn control_files(root: &Path) -> Vec<(String, fs::Metadata)> {
    let mut found = Vec::new();
    for directory in [root.join(".cosave"), root.join(".cosave/sessions")] {
        found.push((directory.display().to_string(), fs::metadata(&directory).unwrap()));
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            found.push((entry.path().display().to_string(), entry.metadata().unwrap()));
        }
    }
    found
}

/// One commit with `sudo` left a control directory that the root's owner could not use.
#[test]
fn a_commit_by_root_leaves_the_control_directory_to_the_roots_owner() {
    let Some(root) = given_root(0o755) else { return };
    let root = root.path();
    let store = Store::options().inline_max(0).open(root).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("d/a", "sudo's".repeat(LARGE_BYTES)).unwrap();
    for (path, found) in control_files(root) {
        assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{path}");
    }
    tx.commit().unwrap();
    drop(store);
    fs::remove_file(root.join("d/a")).unwrap();
    fs::remove_dir(root.join("d")).unwrap();
    assert_eq!(run(child_as(NOBODY, NOBODY, "shared::child_that_commits", root)), ["done"]);
    assert_eq!(text(root.join("a")), "the child's");
    assert_no_litter(root);
}

/// A group's project, in which everybody works with a umask that shuts the group out.
#[test]
fn two_users_of_a_group_commit_to_one_root_whatever_their_umask() {
    let Some(root) = given_root(0o2775) else { return };
    let root = root.path();
    for user in [NOBODY, ANOTHER, NOBODY] {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        command.args(crate::common::child_arguments("shared::child_that_commits"));
        command.env(crate::common::ROOT, root).stdout(std::process::Stdio::piped());
        command.uid(user).gid(NOBODY);
        assert_eq!(run(command), ["done"]);
        for (path, found) in control_files(root) {
            assert_eq!(found.gid(), NOBODY, "{path}");
            // With this umask nobody else may read the file that is saved, nor then its manifest.
            let is_manifest = path.ends_with(".applied");
            let expected = if found.is_dir() {
                0o2775
            } else if is_manifest {
                0o660
            } else {
                0o664
            };
            assert_eq!(format!("{:o}", found.mode() & 0o7777), format!("{expected:o}"), "{path}");
        }
        assert_eq!(text(root.join("a")), "the child's");
        fs::remove_file(root.join("a")).unwrap();
    }
    assert_no_litter(root);
}

#[test]
#[ignore = "child of tests of shared roots"]
fn child_that_commits() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    put(&store, &[("a", "the child's")]);
    assert_eq!(store.view().unwrap().read("a").unwrap(), b"the child's");
    say("done");
}

/// Names and checksums of private files stood in manifests that everybody could read.
#[test]
fn nobody_reads_a_manifest_who_may_not_read_the_root() {
    for (mode, expected) in [(0o700, 0o600), (0o750, 0o640), (0o711, 0o600)] {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(mode)).unwrap();
        put(&Store::options().inline_max(0).open(root.path()).unwrap(), &[("a", "secret")]);
        let manifest = fs::metadata(root.path().join(".cosave/1.applied")).unwrap();
        assert_eq!(format!("{:o}", manifest.mode() & 0o7777), format!("{expected:o}"));
    }
}

/// The manifest of a commit lay readable for all beside a private key. Its checksum and length are enough
/// to guess a short secret, and its paths tell the names in a closed directory.
#[test]
fn a_manifest_that_tells_of_a_secret_is_read_only_by_those_who_may_write_in_the_root() {
    let mode = |root: &Path, name: &str| {
        format!("{:o}", fs::metadata(root.join(".cosave").join(name)).unwrap().permissions().mode() & 0o777)
    };
    let open = |mode| fs::Permissions::from_mode(mode);
    for (root_mode, private) in [(0o755, "600"), (0o775, "660"), (0o777, "666")] {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::set_permissions(root, open(root_mode)).unwrap();
        for (name, mode) in [("public", 0o755), ("closed", 0o700)] {
            fs::create_dir(root.join(name)).unwrap();
            fs::set_permissions(root.join(name), open(mode)).unwrap();
        }
        for name in ["public/file", "public/pin", "public/group", "closed/file"] {
            fs::write(root.join(name), "0").unwrap();
            fs::set_permissions(root.join(name), open(0o644)).unwrap();
        }
        fs::set_permissions(root.join("public/pin"), open(0o600)).unwrap();
        fs::set_permissions(root.join("public/group"), open(0o604)).unwrap();
        let store = Store::options().inline_max(0).open(root).unwrap();
        put(&store, &[("public/file", "1")]);
        let ordinary = format!("{:o}", root_mode & 0o666 | 0o600);
        assert_eq!(mode(root, "1.applied"), ordinary, "{root_mode:o}");
        put(&store, &[("public/pin", "1234")]);
        assert_eq!(mode(root, "2.applied"), private, "{root_mode:o}: a secret file is written");
        put(&store, &[("closed/file", "1")]);
        assert_eq!(mode(root, "3.applied"), private, "{root_mode:o}: a file in a closed directory");
        store.update(|tx| tx.remove("public/pin")).unwrap();
        assert_eq!(mode(root, "4.applied"), private, "{root_mode:o}: a secret file is removed");
        put(&store, &[("public/group", "1234")]);
        assert_eq!(mode(root, "5.applied"), private, "{root_mode:o}: a file is closed to a group");
    }
}

/// A root that this user may not look at is not gone, and its control directory is not free.
#[test]
fn a_control_directory_of_a_root_that_cannot_be_looked_at_is_not_taken_over() {
    let Some(base) = given_root(0o755) else { return };
    let base = base.path();
    let (closed, control) = (base.join("closed"), base.join("control"));
    fs::create_dir_all(closed.join("one")).unwrap();
    let store = Store::options().control_dir(&control).open(closed.join("one")).unwrap();
    put(&store, &[("a", "one's")]);
    drop(store);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    for path in [control.clone(), control.join("sessions")] {
        for entry in fs::read_dir(&path).unwrap() {
            chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    assert_eq!(
        run(child_as(NOBODY, NOBODY, "shared::child_with_anothers_control_directory", base)),
        ["done"]
    );
}

#[test]
#[ignore = "child of a_control_directory_of_a_root_that_cannot_be_looked_at_is_not_taken_over"]
fn child_with_anothers_control_directory() {
    let Some(base) = child_root() else { return };
    let two = base.join("two");
    fs::create_dir(&two).unwrap();
    let error = Store::options().control_dir(base.join("control")).open(&two).map(drop).unwrap_err();
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::PermissionDenied);
    say("done");
}

/// Some may write a file and not read it. What was moved over it is known by its stamp, so the root is not
/// closed to them.
#[test]
fn a_file_that_was_moved_and_cannot_be_read_is_in_place() {
    let Some(root) = given_root(0o755) else { return };
    let said = run(child_as(NOBODY, NOBODY, "shared::child_that_may_not_read_its_file", root.path()));
    assert_eq!(said, ["done"]);
}

#[test]
#[ignore = "child of a_file_that_was_moved_and_cannot_be_read_is_in_place"]
fn child_that_may_not_read_its_file() {
    let Some(root) = child_root() else { return };
    fs::write(root.join("a"), "old").unwrap();
    let mut crash = Crash::new(&root);
    let staged = crash.write("a", "the new a");
    crash.publish(1);
    fs::rename(staged, root.join("a")).unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o200)).unwrap();
    assert!(fs::read(root.join("a")).is_err());
    let store = Store::open(&root).unwrap();
    let report = store.last_recovery();
    assert_eq!((report.rolled_forward.len(), report.differences.len()), (1, 0), "{report}");
    drop(store);
    assert_no_litter(&root);
    say("done");
}

/// Nobody but root could finish the commit of a file that may be written and not read: its staged file was not
/// moved yet.
#[test]
fn a_staged_file_that_cannot_be_read_is_moved() {
    let Some(root) = given_root(0o755) else { return };
    let said = run(child_as(NOBODY, NOBODY, "shared::child_that_may_not_read_its_staged_file", root.path()));
    assert_eq!(said, ["done"]);
}

#[test]
#[ignore = "child of a_staged_file_that_cannot_be_read_is_moved"]
fn child_that_may_not_read_its_staged_file() {
    let Some(root) = child_root() else { return };
    let closed = fs::Permissions::from_mode(0o200);
    fs::write(root.join("a"), "old").unwrap();
    let mut crash = Crash::new(&root);
    let staged = crash.write("a", "the new a");
    crash.publish(1);
    fs::set_permissions(staged, closed.clone()).unwrap();
    let report = Store::open(&root).unwrap().last_recovery();
    assert_eq!((report.rolled_forward.len(), report.differences.len()), (1, 0), "{report}");
    assert_eq!(fs::metadata(root.join("a")).unwrap().mode() & 0o777, 0o200);
    assert_eq!(fs::metadata(root.join("a")).unwrap().len(), 9);
    assert_no_litter(&root);
    say("done");
}

/// A reader that might not open the lock guessed that nobody was writing.
#[test]
fn a_reader_that_may_not_open_the_lock_is_told_so() {
    let Some(root) = given_root(0o755) else { return };
    let root = root.path();
    put(&Store::open(root).unwrap(), &[("a", "old")]);
    fs::set_permissions(root.join(".cosave/lock"), fs::Permissions::from_mode(0o600)).unwrap();
    let said = run(child_as(ANOTHER, ANOTHER, "shared::child_that_may_not_read", root));
    assert_eq!(said, ["done"]);
    // Whoever may read it may also lock it, and needs no right to write.
    fs::set_permissions(root.join(".cosave/lock"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(run(child_as(ANOTHER, ANOTHER, "shared::child_that_reads", root)), ["done"]);
}

/// A store that had put off its last wait kept all other users from reading. Only those who may write in the
/// root can read the manifest of its small save.
#[cfg(target_os = "linux")]
#[test]
fn another_user_reads_what_a_living_store_has_put_in_place() {
    let Some(root) = given_root(0o755) else { return };
    let root = root.path();
    let store = Store::options().durability(Durability::Committed).open(root).unwrap();
    put(&store, &[("a", "older")]);
    put(&store, &[("a", "old")]);
    assert!(root.join(".cosave/2.pending-inline").exists());
    assert_eq!(run(child_as(ANOTHER, ANOTHER, "shared::child_that_reads", root)), ["done"]);
}

/// The manifest of a small save is closed to those who may not write in the root. For them `verify` was an
/// error, and the files that they may read were not compared.
#[test]
fn a_check_by_another_user_says_what_it_could_not_read_and_compares_the_rest() {
    let Some(root) = given_root(0o755) else { return };
    let root = root.path();
    let verified = || run(child_as(ANOTHER, ANOTHER, "shared::child_that_verifies", root));
    let long = Store::options().inline_max(0).open(root).unwrap();
    put(&long, &[("a", "a"), ("b", "b"), ("d/c", "c")]);
    assert_eq!(verified(), ["done"]);
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(root.join("b"), "other").unwrap();
    let told = ["a Unreadable", "b Changed", "d/c Unreadable", "done"];
    assert_eq!(verified(), told);
    put(&Store::open(root).unwrap(), &[("b", "b2")]);
    assert_eq!(verified(), [".cosave/2.applied Unreadable", "done"]);
    let store = Store::options().durability(Durability::Committed).open(root).unwrap();
    put(&store, &[("b", "b3")]);
    assert_eq!(verified(), [".cosave/3.pending-inline Unreadable", "done"]);
    assert!(store.verify().unwrap().is_empty());
}

#[test]
#[ignore = "child of a_check_by_another_user_says_what_it_could_not_read_and_compares_the_rest"]
fn child_that_verifies() {
    let Some(root) = child_root() else { return };
    let store = Store::options().read_only(true).open(&root).unwrap();
    for found in store.verify().unwrap() {
        say(format!("{} {:?}", found.path, found.problem));
    }
    say("done");
}

#[test]
#[ignore = "child of a_reader_that_may_not_open_the_lock_is_told_so"]
fn child_that_may_not_read() {
    let Some(root) = child_root() else { return };
    let store = Store::options().read_only(true).open(&root).unwrap();
    let error = store.view().map(drop).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(error.to_string().contains(".cosave/lock"), "{error}");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::PermissionDenied);
    say("done");
}

#[test]
#[ignore = "child of a_reader_that_may_not_open_the_lock_is_told_so"]
fn child_that_reads() {
    let Some(root) = child_root() else { return };
    let store = Store::options().read_only(true).open(&root).unwrap();
    assert_eq!(store.view().unwrap().read("a").unwrap(), b"old");
    say("done");
}
