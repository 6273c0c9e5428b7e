//! File systems that are full, that are read-only, and targets that are mount points. The mounts are
//! made in a mount namespace of the child's own (unshare(1)), so nobody else ever sees them. Where
//! that is not allowed, the tests say that they were skipped.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use cosave::{Error, InvalidPath, Outcome, Progress, Store};

use crate::common::{
    Crash, ROOT, assert_no_litter, child_arguments, child_root, put, quick, run, say, skipped, text, tree,
};

/// Runs a child after `mounts`, a shell command that finds the root in `$ROOT`. Returns whether it
/// could.
pub fn run_under(mounts: &str, test: &str, root: &Path) -> bool {
    let script =
        format!("ROOT=\"${ROOT}\"; {mounts} || {{ echo '@cosave@ skipped'; exit 0; }}; exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    command.args(child_arguments(test)).env(ROOT, root).stdin(Stdio::null()).stdout(Stdio::piped());
    let may = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) || run(command) != ["done"] {
        skipped(test, "nothing can be mounted");
        return false;
    }
    true
}

#[test]
fn a_full_disk_fails_the_write_and_keeps_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    run_under("mount -t tmpfs -o size=2m tmpfs \"$ROOT\"", "mounts::child_on_a_full_disk", root.path());
    assert!(tree(root.path()).is_empty(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_full_disk_fails_the_write_and_keeps_what_was_there"]
fn child_on_a_full_disk() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    put(&store, &[("a", "old"), ("b", "old")]);
    let mut tx = store.begin().unwrap();
    tx.write("a", "new").unwrap();
    let error = tx.write("made/large", vec![1; 4 << 20]).unwrap_err();
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull);
    drop(tx);
    assert_eq!(tree(&root).len(), 2, "{:?}", tree(&root).keys());
    let error = cosave::write(root.join("a"), vec![1; 4 << 20]).unwrap_err();
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull);
    // What is long is refused before anything of it is staged, and the numbers are told.
    let mut tx = store.begin().unwrap();
    let error = tx.write("made/longer", vec![1; 8 << 20]).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        reason.starts_with("8388608 bytes are needed, and ") && reason.ends_with(" are free"),
        "{reason}"
    );
    assert!(!root.join("made").exists(), "something was staged");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull);
    fs::File::create(root.join("sparse")).unwrap().set_len(9 << 20).unwrap();
    let error = tx.copy_from("copied", root.join("sparse")).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.starts_with("9437184 bytes are needed"), "{reason}");
    fs::remove_file(root.join("sparse")).unwrap();
    drop(tx);
    // What was given up makes room again, also for the same transaction.
    let mut tx = store.begin().unwrap();
    tx.write("a", vec![1; 4 << 20]).unwrap_err();
    tx.write("b", "new").unwrap();
    let mut filler = tx.writer("filler").unwrap();
    while filler.write_all(&[1; 4096]).and_then(|()| filler.flush()).is_ok() {}
    // A little stays in memory, and finds at the commit that there is no room.
    let mut other = store.begin().unwrap();
    other.write("b", [2; 60_000]).unwrap();
    other.write("made/little", [2; 60_000]).unwrap();
    let error = other.commit().unwrap_err();
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull);
    assert!(!root.join("made").exists());
    let mut tx = {
        drop(filler);
        // The filler was dropped unfinished, so this transaction is over.
        assert!(matches!(tx.commit().unwrap_err(), Error::Unfinished { .. }));
        store.begin().unwrap()
    };
    tx.write("b", "new").unwrap();
    tx.commit().unwrap();
    assert_eq!((text(root.join("a")).as_str(), text(root.join("b")).as_str()), ("old", "new"));
    drop(store);
    assert_no_litter(&root);
    say("done");
}

/// The look whether it can be moved has copied it to the upper layer, with another time of birth. So it was not
/// found any more, and the commit succeeded without it.
#[test]
fn a_directory_of_a_lower_layer_is_moved_where_the_kernel_can() {
    let root = tempfile::tempdir().unwrap();
    let mounts = "mount -t tmpfs tmpfs \"$ROOT\" && cd \"$ROOT\" && mkdir -p lower/d lower/n merged upper work \
        && echo f0 > lower/d/f && echo n0 > lower/n/f && mount -t overlay overlay \
        -o redirect_dir=on,lowerdir=lower,upperdir=upper,workdir=work merged && cd /";
    run_under(mounts, "mounts::child_with_a_directory_that_moves_to_the_upper_layer", root.path());
}

#[test]
#[ignore = "child of a_directory_of_a_lower_layer_is_moved_where_the_kernel_can"]
fn child_with_a_directory_that_moves_to_the_upper_layer() {
    let Some(root) = child_root().map(|root| root.join("merged")) else { return };
    let store = Store::open(&root).unwrap();
    store.update(|tx| tx.rename("n", "m").and_then(|()| tx.write("other", "1"))).unwrap();
    assert_eq!((text(root.join("m/f")), root.join("n").exists()), ("n0\n".into(), false));
    store.update(|tx| tx.remove_dir_all("d").and_then(|()| tx.write("d", "a file"))).unwrap();
    assert_eq!(text(root.join("d")), "a file");
    drop(store);
    assert_no_litter(&root);
    say("done");
}

/// An exchange gives a file of a lower layer another time of birth, and it stayed behind under a hidden name.
#[test]
fn a_file_of_a_lower_layer_becomes_a_directory() {
    let root = tempfile::tempdir().unwrap();
    run_under(
        "mount -t tmpfs tmpfs \"$ROOT\" && cd \"$ROOT\" && mkdir lower upper work && echo x0 > lower/x \
         && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work \"$ROOT\" && cd /",
        "mounts::child_with_a_file_of_a_lower_layer",
        root.path(),
    );
}

#[test]
#[ignore = "child of a_file_of_a_lower_layer_becomes_a_directory"]
fn child_with_a_file_of_a_lower_layer() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove("x").unwrap();
    tx.write("x/a", "a1").unwrap();
    tx.commit().unwrap();
    assert_eq!(text(root.join("x/a")), "a1");
    drop(store);
    assert_no_litter(&root);
    say("done");
}

#[test]
fn a_read_only_medium_is_read_through_what_is_pending() {
    let root = tempfile::tempdir().unwrap();
    put(&quick(root.path()), &[("a", "old"), ("b", "old")]);
    let mut crash = Crash::new(root.path());
    crash.write("a", "the new a");
    crash.remove("b");
    crash.publish(2);
    let before = tree(root.path());
    run_under(
        "mount --bind \"$ROOT\" \"$ROOT\" && mount -o remount,bind,ro \"$ROOT\"",
        "mounts::child_on_a_read_only_medium",
        root.path(),
    );
    assert_eq!(tree(root.path()), before);
}

#[test]
#[ignore = "child of a_read_only_medium_is_read_through_what_is_pending"]
fn child_on_a_read_only_medium() {
    let Some(root) = child_root() else { return };
    assert!(fs::write(root.join("probe"), "").is_err());
    let store = Store::options().read_only(true).open(&root).unwrap();
    let view = store.view().unwrap();
    assert_eq!((view.read("a").unwrap(), view.generation().get()), (b"the new a".to_vec(), 2));
    assert!(!view.exists("b").unwrap());
    // Its own share of the lock would keep the next one waiting.
    drop(view);
    assert!(Store::open(&root).is_err(), "what is pending cannot be finished here");
    say("done");
}

#[test]
fn a_target_that_is_a_mount_point_is_written_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("target"), "below").unwrap();
    fs::write(root.path().join("source"), "old").unwrap();
    let ran = run_under(
        "mount --bind \"$ROOT/source\" \"$ROOT/target\"",
        "mounts::child_with_a_mount_point",
        root.path(),
    );
    if ran {
        // What is mounted over the target is what has the bytes.
        assert_eq!(text(root.path().join("source")), "the second");
        assert_eq!(text(root.path().join("target")), "below");
        assert_eq!(text(root.path().join("beside")), "the second");
    }
}

#[test]
#[ignore = "child of a_target_that_is_a_mount_point_is_written_all_the_same"]
fn child_with_a_mount_point() {
    let Some(root) = child_root() else { return };
    for content in ["first", "the second"] {
        put(&Store::open(&root).unwrap(), &[("target", content), ("beside", content)]);
        assert_eq!(text(root.join("target")), content);
        assert_no_litter(&root);
    }
    // It cannot be removed, which is said before anything is committed.
    let store = Store::open(&root).unwrap();
    let mut tx = store.begin().unwrap();
    let error = tx.remove("target").unwrap_err();
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ResourceBusy);
    tx.write("beside", "the second").unwrap();
    tx.commit().unwrap();
    assert!(Store::open(&root).unwrap().last_recovery().is_clean());
    say("done");
}

// A staged file lay in the root, whatever was mounted below it. So what was meant for a tmpfs reached the
// disk, and a large file for a large mount below a small root found no space.
#[test]
fn a_file_for_a_mount_below_the_root_is_staged_on_that_mount() {
    let root = tempfile::tempdir().unwrap();
    run_under(
        "mount -t tmpfs -o size=1m tmpfs \"$ROOT\" && mkdir \"$ROOT/big\" \
         && mount -t tmpfs -o size=16m tmpfs \"$ROOT/big\"",
        "mounts::child_with_a_large_mount_below_a_small_root",
        root.path(),
    );
    assert!(tree(root.path()).is_empty(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_file_for_a_mount_below_the_root_is_staged_on_that_mount"]
fn child_with_a_large_mount_below_a_small_root() {
    use std::os::unix::fs::MetadataExt as _;

    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("big/large", vec![1; 4 << 20]).unwrap();
    tx.write("big/made/large", vec![1; 4 << 20]).unwrap();
    tx.write("big/small", "small").unwrap();
    let mount = fs::metadata(root.join("big")).unwrap().dev();
    let staged: Vec<_> =
        tree(&root).into_keys().filter(|path| path.to_string_lossy().ends_with(".cosave")).collect();
    assert_eq!(staged.len(), 2);
    for path in staged {
        assert_eq!(fs::metadata(root.join(&path)).unwrap().dev(), mount, "{}", path.display());
    }
    tx.commit().unwrap();
    assert_eq!(fs::metadata(root.join("big/large")).unwrap().len(), 4 << 20);
    assert_eq!(text(root.join("big/small")), "small");
    drop(store);
    assert_no_litter(&root);
    say("done");
}

/// The sweep through the other path took the staged files of a living transaction for litter, or the
/// second root retired what the first had committed.
#[test]
fn a_root_and_a_part_of_it_seen_through_bind_mounts_are_the_same_files() {
    let root = tempfile::tempdir().unwrap();
    for directory in ["here/d", "there", "part"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    let binds = "mount --bind \"$ROOT/here\" \"$ROOT/there\" && mount --bind \"$ROOT/here/d\" \"$ROOT/part\"";
    if run_under(binds, "mounts::child_with_bind_mounts", root.path()) {
        assert_eq!(text(root.path().join("here/d/b")), "2");
        assert!(tree(&root.path().join("there")).is_empty(), "the mount was not the child's own");
    }
}

#[test]
#[ignore = "child of a_root_and_a_part_of_it_seen_through_bind_mounts_are_the_same_files"]
fn child_with_bind_mounts() {
    let Some(root) = child_root() else { return };
    let here = Store::options().inline_max(0).open(root.join("here")).unwrap();
    put(&here, &[("a", "1"), ("d/b", "1")]);
    let mut tx = here.begin().unwrap();
    tx.write("a", "2").unwrap();
    tx.write("d/b", "2").unwrap();
    let mut late = here.begin().unwrap();
    late.create_new("new", "here").unwrap();
    // Both sweep when they are opened, and when they are asked to.
    let there = Store::open(root.join("there")).unwrap();
    there.sweep().unwrap();
    let part = Store::open(root.join("part")).unwrap();
    put(&part, &[("own", "1")]);
    part.sweep().unwrap();
    assert_eq!(there.generation().unwrap(), 1, "it is the same root");
    assert_eq!(there.view().unwrap().read("a").unwrap(), b"1");
    assert_eq!(tx.commit().unwrap().generation().get(), 2);
    assert_eq!(there.view().unwrap().read("d/b").unwrap(), b"2");
    there.update(|tx| tx.create_new("new", "there")).unwrap();
    assert!(late.commit().unwrap_err().is_conflict(), "one file, two names");
    assert_eq!(text(root.join("here/new")), "there");
    drop((here, there, part));
    fs::remove_dir_all(root.join("part/.cosave")).unwrap();
    assert_no_litter(&root.join("here"));
    // What is staged in a directory under its other name would be deleted with it.
    let all = Store::open(&root).unwrap();
    let mut tx = all.begin().unwrap();
    tx.remove_dir_all("here/d").unwrap();
    tx.write("part/new", "").unwrap();
    assert!(matches!(tx.commit(), Err(Error::InvalidPath { reason: InvalidPath::Alias, .. })));
    say("done");
}

/// The kernel refuses to move a directory of a lower layer. That was noticed after the commit point, and the
/// root then refused every later commit.
#[test]
fn a_directory_of_a_lower_layer_is_refused_before_the_commit_point() {
    let root = tempfile::tempdir().unwrap();
    let mounts = "mount -t tmpfs tmpfs \"$ROOT\" && cd \"$ROOT\" && mkdir -p lower/d merged upper work \
        && echo f0 > lower/d/f && echo a0 > lower/a \
        && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && cd /";
    run_under(mounts, "mounts::child_on_an_overlay", root.path());
    assert!(tree(root.path()).is_empty(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_directory_of_a_lower_layer_is_refused_before_the_commit_point"]
fn child_on_an_overlay() {
    let Some(root) = child_root().map(|root| root.join("merged")) else { return };
    let store = Store::open(&root).unwrap();
    let works: [fn(&mut cosave::Transaction) -> cosave::Result<()>; 2] =
        [|tx| tx.remove_dir_all("d"), |tx| tx.rename("d", "moved")];
    for work in works {
        let mut tx = store.begin().unwrap();
        tx.write("a", "new").unwrap();
        work(&mut tx).unwrap();
        let error = tx.commit().unwrap_err();
        assert_eq!(error.outcome(), Outcome::NothingHappened, "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::CrossesDevices);
    }
    // One that was made since can be moved.
    store.update(|tx| tx.write("own/f", "")).unwrap();
    store.update(|tx| tx.rename("own", "moved").and_then(|()| tx.write("a", "new"))).unwrap();
    assert!(root.join("moved/f").exists() && root.join("d/f").exists());
    drop(store);
    say("done");
}

/// A root was opened before the file system below it was mounted. Recovery took what it did not find there for
/// done, and the commit was torn.
#[test]
fn a_commit_waits_until_the_file_system_below_its_root_is_mounted() {
    let root = tempfile::tempdir().unwrap();
    let mount = "mkdir \"$ROOT/mnt\" \"$ROOT/keep\" && mount -t tmpfs tmpfs \"$ROOT/mnt\"";
    run_under(mount, "mounts::child_whose_mount_is_missing", root.path());
    assert!(!root.path().join("mnt/a").exists(), "the mount was not the child's own");
}

#[test]
#[ignore = "child of a_commit_waits_until_the_file_system_below_its_root_is_mounted"]
fn child_whose_mount_is_missing() {
    let Some(root) = child_root() else { return };
    let shell = |command: &str| {
        let done = Command::new("sh").args(["-c", command]).env(ROOT, &root).status().unwrap();
        assert!(done.success(), "{command}");
    };
    shell(&format!("mount --bind \"${ROOT}/mnt\" \"${ROOT}/keep\""));
    for inline_max in [0, 1024] {
        put(&Store::open(&root).unwrap(), &[("a", "1"), ("mnt/a", "1")]);
        let panicking = |progress: &Progress| {
            assert!(!matches!(progress, Progress::Applied { files: 1, .. }), "killed after one move");
            ControlFlow::Continue(())
        };
        let store = Store::options().inline_max(inline_max).on_progress(panicking).open(&root).unwrap();
        let mut tx = store.begin().unwrap();
        tx.write("a", "2").unwrap();
        tx.write("mnt/a", "2").unwrap();
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tx.commit()));
        assert!(killed.is_err());
        drop(store);
        assert_eq!((text(root.join("a")), text(root.join("mnt/a"))), ("2".into(), "1".into()));

        shell(&format!("umount \"${ROOT}/mnt\""));
        let error = Store::open(&root).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Committed);
        assert!(error.to_string().contains("mnt"), "{error}");
        assert_eq!(fs::read_dir(root.join("mnt")).unwrap().count(), 0, "nothing is made below the mount");
        shell(&format!("mount --bind \"${ROOT}/keep\" \"${ROOT}/mnt\""));
        drop(Store::open(&root).unwrap());
        assert_eq!((text(root.join("a")), text(root.join("mnt/a"))), ("2".into(), "2".into()));
    }
    shell(&format!("umount \"${ROOT}/keep\""));
    assert_no_litter(&root);
    say("done");
}
