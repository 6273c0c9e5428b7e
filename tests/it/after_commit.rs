//! What can go wrong after the commit point, what is found before it, and the way out of the rest.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cosave::{Error, Finding, Generation, Outcome, Store};

use crate::common::{Crash, assert_no_litter, child, child_root, put, run, say, text, tree};
use crate::mounts::run_under;

/// An ext4 of the child's own, mounted at `$ROOT/disk`: it knows `chattr`, and is the kernel's.
const EXT4: &str = "truncate -s 16m \"$ROOT/image\" && mkfs.ext4 -q -F \"$ROOT/image\" \
                    && mkdir \"$ROOT/disk\" && mount -o loop \"$ROOT/image\" \"$ROOT/disk\"";

fn chattr(flag: &str, path: &Path) {
    assert!(Command::new("chattr").arg(flag).arg(path).status().unwrap().success(), "{flag}");
}

/// Append-only targets and directories passed every check, and the move failed after the commit point:
/// from then on every commit and every opening failed.
#[test]
fn a_target_that_cannot_be_replaced_is_refused_before_the_commit_point() {
    let root = tempfile::tempdir().unwrap();
    run_under(EXT4, "after_commit::child_with_frozen_targets", root.path());
    assert!(!root.path().join("disk/a").exists(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_target_that_cannot_be_replaced_is_refused_before_the_commit_point"]
fn child_with_frozen_targets() {
    let Some(root) = child_root() else { return };
    let root = root.join("disk");
    let store = Store::open(&root).unwrap();
    put(&store, &[("a", "old"), ("d/b", "old"), ("beside", "old")]);
    let mut generation = 1;
    for (flag, frozen) in [("+a", "a"), ("+i", "a"), ("+a", "d"), ("+i", "d"), ("+a", "d/b"), ("+i", "d/b")] {
        chattr(flag, &root.join(frozen));
        for remove in [false, true] {
            let path = if frozen == "a" { "a" } else { "d/b" };
            let mut tx = store.begin().unwrap();
            tx.write("beside", "never").unwrap();
            let result = if remove { tx.remove(path) } else { tx.write(path, "never") };
            let error = result.and_then(|()| tx.commit()).unwrap_err();
            assert_eq!(error.outcome(), Outcome::NothingHappened, "{flag} {frozen}: {error}");
        }
        let beside = root.join("d/new");
        if frozen == "d" {
            let mut tx = store.begin().unwrap();
            let error = tx.write("d/new", "never").and_then(|()| tx.commit()).unwrap_err();
            assert_eq!(error.outcome(), Outcome::NothingHappened, "{flag} {frozen}: {error}");
            assert!(!beside.exists());
        }
        chattr(&flag.replace('+', "-"), &root.join(frozen));
        generation += 1;
        assert_eq!(put(&store, &[("beside", "new")]).generation(), generation);
        assert_eq!((text(root.join("a")), text(root.join("d/b"))), ("old".to_owned(), "old".to_owned()));
    }
    drop(store);
    assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), 1, "something is left in `d`");
    say("done");
}

/// The same, when the flag is set after the file was staged.
#[test]
fn a_target_that_is_frozen_while_its_successor_is_staged_is_refused_at_the_commit() {
    let root = tempfile::tempdir().unwrap();
    run_under(EXT4, "after_commit::child_with_a_target_that_is_frozen_later", root.path());
    assert!(!root.path().join("disk/a").exists(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_target_that_is_frozen_while_its_successor_is_staged_is_refused_at_the_commit"]
fn child_with_a_target_that_is_frozen_later() {
    let Some(root) = child_root() else { return };
    let root = root.join("disk");
    let store = Store::open(&root).unwrap();
    put(&store, &[("a", "old"), ("d/b", "old")]);
    for frozen in ["a", "d"] {
        let mut tx = store.begin().unwrap();
        tx.write("a", "never").unwrap();
        tx.write("d/b", "never").unwrap();
        chattr("+a", &root.join(frozen));
        assert_eq!(tx.commit().unwrap_err().outcome(), Outcome::NothingHappened);
        chattr("-a", &root.join(frozen));
    }
    assert_eq!((text(root.join("a")), text(root.join("d/b"))), ("old".to_owned(), "old".to_owned()));
    drop(store);
    // What could not be removed while the flag was set is swept by the next opening.
    drop(Store::open(&root).unwrap());
    assert_no_litter_but(&root, &["lost+found"]);
    say("done");
}

fn assert_no_litter_but(root: &Path, others: &[&str]) {
    let found = crate::common::litter(root);
    assert!(found.iter().all(|path| others.contains(&path.as_str())), "left behind: {found:?}");
}

/// Too many open files made a directory's sync fail before it had begun; that was taken for a disk that
/// fails, and the store refused everything from then on.
#[test]
fn too_many_open_files_are_no_failed_sync() {
    let root = tempfile::tempdir().unwrap();
    let said = run(child("after_commit::child_with_few_descriptors", root.path()));
    let committed: usize = said[0].parse().unwrap();
    assert!(committed > 0, "no commit went through");
    // What could not be removed for want of a descriptor is swept by the next opening.
    drop(Store::open(root.path()).unwrap());
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of too_many_open_files_are_no_failed_sync"]
fn child_with_few_descriptors() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    put(&store, &[("0/0", "first"), ("1/0", "first")]);
    let null = || fs::File::open("/dev/null");
    rlimit(200);
    let mut committed = 0;
    for free in 0..40 {
        let mut held: Vec<_> = std::iter::from_fn(|| null().ok()).collect();
        held.truncate(held.len().saturating_sub(free));
        let mut tx = store.begin().unwrap();
        // Every directory has to be opened anew for its sync.
        let staged = (0..6).try_for_each(|number| tx.write(format!("{number}/{free}"), free.to_string()));
        match staged.and_then(|()| tx.commit()) {
            Ok(_) => committed += 1,
            Err(error @ (Error::Io { .. } | Error::NotApplied { .. } | Error::Blocked { .. })) => {
                assert!(format!("{error:?}").contains("Too many open files"), "with {free} free: {error:?}");
            }
            Err(error) => panic!("with {free} free: {error:?}"),
        }
        drop(held);
        put(&store, &[("0/0", "goes on"), ("1/0", &free.to_string())]);
    }
    say(committed);
}

/// The soft limit of open files, through the shell's own tool: the crate has no call for it.
fn rlimit(files: u32) {
    let me = format!("--pid={}", std::process::id());
    assert!(Command::new("prlimit").arg(me).arg(format!("--nofile={files}:")).status().unwrap().success());
}

/// A commit can fail after the commit point for a reason that nobody could know before. That must not keep
/// a root closed for ever. The error says so, and the generation can be given up.
#[test]
fn a_generation_that_cannot_be_applied_can_be_given_up() {
    let root = tempfile::tempdir().unwrap();
    run_under(EXT4, "after_commit::child_that_gives_up", root.path());
    assert!(!root.path().join("disk/a").exists(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_generation_that_cannot_be_applied_can_be_given_up"]
fn child_that_gives_up() {
    let Some(root) = child_root() else { return };
    let root = root.join("disk");
    fs::write(root.join("a"), "old").unwrap();
    fs::write(root.join("b"), "old").unwrap();
    let mut crash = Crash::new(&root);
    crash.write("a", "new");
    let staged = crash.write("b", "new");
    crash.publish(1);
    chattr("+i", &root.join("b"));

    let error = Store::open(&root).unwrap_err();
    assert_eq!((error.outcome(), error.generation()), (Outcome::Committed, Some(1.into())));
    assert!(error.to_string().contains("abandon"), "{error}");
    let store = Store::options().recover(false).open(&root).unwrap();
    let error = store.update(|tx| tx.write("c", "blocked")).unwrap_err();
    assert!(matches!(error, Error::Blocked { .. }), "{error}");
    assert!(error.to_string().contains("abandon"), "{error}");

    let given_up = store.abandon(1).unwrap();
    assert_eq!(given_up.generation, 1);
    let paths = |paths: &[cosave::RelativePath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (paths(&given_up.in_place), paths(&given_up.left)),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
    assert_eq!(store.update(|tx| tx.write("c", "2")).unwrap().generation(), 2);
    drop(store);
    assert_eq!((text(root.join("a")), text(root.join("b"))), ("new".to_owned(), "old".to_owned()));
    chattr("-i", &root.join("b"));
    let store = Store::open(&root).unwrap();
    assert!(store.last_recovery().differences.is_empty());
    assert!(!staged.exists() || store.status().unwrap().pending.is_empty());
    say("done");
}

/// A directory was renamed between a crash and the recovery. Its entries passed for finished, since
/// neither staged file nor target could be found, and the sweep later took what had been committed.
#[test]
fn a_directory_that_was_renamed_is_missed_and_not_taken_for_finished() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("d")).unwrap();
    fs::write(root.path().join("d/b"), "old").unwrap();
    let mut crash = Crash::new(root.path());
    crash.write("a", "new");
    crash.write("d/b", "new");
    crash.publish(1);
    let (here, away) = (root.path().join("d"), root.path().join("e"));
    fs::rename(&here, &away).unwrap();
    let before = tree(root.path());

    let error = Store::open(root.path()).unwrap_err();
    assert_eq!((error.outcome(), error.generation()), (Outcome::Committed, Some(1.into())));
    assert!(error.to_string().contains(&here.display().to_string()), "{error}");
    assert_eq!(tree(root.path()), before, "something was moved");
    // Back in its place, nothing is missing.
    fs::rename(&away, &here).unwrap();
    assert_eq!(Store::open(root.path()).unwrap().last_recovery().rolled_forward, [Generation::from(1)]);
    assert_eq!(text(root.path().join("d/b")), "new");
}

#[test]
fn a_generation_whose_directory_is_gone_can_be_given_up() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("d")).unwrap();
    let mut crash = Crash::new(root.path());
    crash.write("d/b", "new");
    crash.publish(1);
    fs::remove_dir_all(root.path().join("d")).unwrap();
    assert!(Store::open(root.path()).is_err());
    let store = Store::options().recover(false).open(root.path()).unwrap();
    assert_eq!(store.abandon(1).unwrap().left.len(), 1);
    assert_eq!(store.update(|tx| tx.write("d/b", "2")).unwrap().generation(), 2);
    drop(store);
    assert_no_litter_but(root.path(), &[".cosave/1.abandoned"]);
}

/// One directory on a dead session's record in which nothing can be removed kept the whole root closed.
#[test]
fn a_directory_that_cannot_be_swept_keeps_no_root_closed() {
    let root = tempfile::tempdir().unwrap();
    run_under(EXT4, "after_commit::child_that_cannot_sweep", root.path());
    assert!(!root.path().join("disk/a").exists(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_directory_that_cannot_be_swept_keeps_no_root_closed"]
fn child_that_cannot_sweep() {
    let Some(root) = child_root() else { return };
    let root = root.join("disk");
    fs::create_dir(root.join("d")).unwrap();
    let staged = killed_while_staging(&root);
    chattr("+a", &root.join("d"));
    let store = Store::open(&root).unwrap();
    let report = store.last_recovery();
    let unswept: Vec<_> = report.unswept.iter().map(ToString::to_string).collect();
    assert_eq!(unswept, ["d"], "{report}");
    assert!(report.to_string().contains("cannot sweep d"), "{report}");
    put(&store, &[("a", "1")]);
    drop(store);
    assert!(staged.exists());
    // The record is still there: as soon as it can be done, it is.
    chattr("-a", &root.join("d"));
    drop(Store::open(&root).unwrap());
    assert!(!staged.exists());
    assert_no_litter_but(&root, &["lost+found"]);
    say("done");
}

/// A child stages `d/b` and is killed. Returns what it left.
fn killed_while_staging(root: &Path) -> PathBuf {
    let mut command = child("after_commit::child_that_is_killed_while_staging", root);
    let mut child = command.spawn().unwrap();
    assert_eq!(crate::common::heard(&mut child).next().as_deref(), Some("staged"));
    child.kill().unwrap();
    child.wait().unwrap();
    let staged = fs::read_dir(root.join("d")).unwrap().map(|entry| entry.unwrap().path());
    let staged: Vec<_> = staged.collect();
    assert_eq!(staged.len(), 1, "{staged:?}");
    staged[0].clone()
}

#[test]
#[ignore = "child of a_directory_that_cannot_be_swept_keeps_no_root_closed"]
fn child_that_is_killed_while_staging() {
    let Some(root) = child_root() else { return };
    let store = Store::open(root).unwrap();
    let mut tx = store.begin().unwrap();
    // Too much to be kept in memory until the commit.
    tx.write("d/b", vec![1; 4 << 20]).unwrap();
    say("staged");
    std::io::read_to_string(std::io::stdin()).unwrap();
    drop(tx);
}

/// A time that moved was called a change, though not one byte had: `touch` and a checkout do that.
#[test]
fn verify_reads_the_bytes_of_a_file_whose_time_has_moved() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "same"), ("b", "same")]);
    for name in ["a", "b"] {
        let file = fs::File::options().write(true).open(root.path().join(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    assert_eq!(store.verify().unwrap(), []);
    fs::write(root.path().join("b"), "diff").unwrap();
    let found = store.verify().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].path.to_string(), found[0].problem), ("b".to_owned(), cosave::Problem::Changed));
}

/// A link to what it replaced has the bytes, and the length of its own text can be that of the file.
#[cfg(unix)]
#[test]
fn verify_takes_no_link_for_the_file() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "beside"), ("b", "b")]);
    fs::rename(root.path().join("a"), root.path().join("beside")).unwrap();
    std::os::unix::fs::symlink("beside", root.path().join("a")).unwrap();
    let found = store.verify().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].path.to_string(), found[0].problem), ("a".to_owned(), cosave::Problem::Changed));
}

#[test]
fn a_lock_can_be_waited_for_without_end() {
    let root = tempfile::tempdir().unwrap();
    let options = Store::options().lock_timeout(std::time::Duration::MAX);
    let store = options.open(root.path()).unwrap();
    assert_eq!(put(&store, &[("a", "1")]).generation(), 1);
    assert_eq!(store.view().unwrap().read("a").unwrap(), b"1");
}

/// A file that is a mount point is copied over. Killed in the copy, recovery took our own half-written
/// bytes for somebody's edit, and kept them.
#[test]
fn a_copy_over_a_mount_point_that_was_cut_short_is_our_own() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("source"), "old").unwrap();
    fs::write(root.path().join("target"), "below").unwrap();
    let bind = "mount --bind \"$ROOT/source\" \"$ROOT/target\"";
    if run_under(bind, "after_commit::child_with_half_a_copy", root.path()) {
        assert_eq!(text(root.path().join("source")), "the whole of it");
    }
}

#[test]
#[ignore = "child of a_copy_over_a_mount_point_that_was_cut_short_is_our_own"]
fn child_with_half_a_copy() {
    let Some(root) = child_root() else { return };
    let mut crash = Crash::new(&root);
    crash.write("beside", "new");
    crash.write("target", "the whole of it");
    crash.publish(1);
    // As far as a writer comes: it says that it is about to copy the second entry, then it does.
    fs::write(root.join(".cosave/1.copying-1"), "").unwrap();
    fs::write(root.join("target"), "the wh").unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(store.last_recovery().differences, []);
    assert_eq!(
        (text(root.join("target")), text(root.join("beside"))),
        ("the whole of it".into(), "new".into())
    );
    drop(store);
    assert_no_litter(&root);

    // Where no copy had begun, it is somebody's edit, and is kept.
    let mut crash = Crash::new(&root);
    crash.write("target", "the next");
    crash.publish(2);
    fs::write(root.join("target"), "an edit").unwrap();
    let differences = Store::open(&root).unwrap().last_recovery().differences;
    assert!(
        matches!(&differences[..], [one] if matches!(one.finding, Finding::SetAside(_))),
        "{differences:?}"
    );
    assert_eq!(text(root.join("target.set-aside-2")), "an edit");
    fs::remove_file(root.join("target.set-aside-2")).unwrap();
    fs::write(root.join("target"), "the whole of it").unwrap();
    say("done");
}
