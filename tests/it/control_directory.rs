//! The control directory: where it lies, what makes it last, and what others may put into it.

use std::error::Error as _;
use std::fs;
use std::path::Path;
#[cfg(unix)]
use std::process::{Command, Stdio};
use std::time::Duration;

use cosave::{Error, InvalidPath, Outcome, Store};

use crate::common::{LARGE_BYTES, child, child_root, put, run, say, text, tree};
#[cfg(target_os = "linux")]
use crate::common::{ROOT, child_arguments};

fn open_elsewhere(root: &Path, control: &Path) -> Store {
    Store::options().control_dir(control).open(root).unwrap()
}

/// A pipe under a manifest's name hung whoever opened the root: recovery opens what is pending to
/// sync it, and opening a pipe waits for somebody who writes into it.
#[cfg(unix)]
#[test]
fn a_pipe_under_a_manifests_name_hangs_nobody() {
    let root = tempfile::tempdir().unwrap();
    put(&Store::open(root.path()).unwrap(), &[("a", "1")]);
    let pipe = root.path().join(".cosave/2.pending");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = child("control_directory::child_that_opens_beside_a_pipe", root.path());
    let mut child = child.stdout(Stdio::null()).spawn().unwrap();
    let ended = crate::common::waits(|| child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    assert!(child.wait().unwrap().success() && ended, "opening a root waits for a pipe");
    fs::remove_file(pipe).unwrap();
    assert_eq!(Store::open(root.path()).unwrap().generation().unwrap(), 1);
}

#[cfg(unix)]
#[test]
#[ignore = "child of a_pipe_under_a_manifests_name_hangs_nobody"]
fn child_that_opens_beside_a_pipe() {
    let Some(root) = child_root() else { return };
    let error = Store::open(root).unwrap_err();
    assert!(matches!(error, Error::Io { .. } | Error::Corrupt { .. }), "{error}");
}

/// `control_dir("state")` meant another directory for each working directory that it was said in: a
/// program that was started elsewhere did not find what a dead one had left pending.
#[test]
fn a_relative_control_directory_is_the_roots_wherever_the_program_runs() {
    let root = tempfile::tempdir().unwrap();
    put(&open_elsewhere(root.path(), "state/control".as_ref()), &[("a", "1")]);
    assert!(root.path().join("state/control/1.applied").exists());
    let elsewhere = tempfile::tempdir().unwrap();
    let mut child = child("control_directory::child_that_commits_with_a_relative_one", root.path());
    child.current_dir(elsewhere.path());
    assert_eq!(run(child), ["2"]);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(text(root.path().join("a")), "2");
}

#[test]
#[ignore = "child of a_relative_control_directory_is_the_roots_wherever_the_program_runs"]
fn child_that_commits_with_a_relative_one() {
    let Some(root) = child_root() else { return };
    say(put(&open_elsewhere(&root, "state/control".as_ref()), &[("a", "2")]).generation());
}

/// `control_dir("state")` was no reserved path: a commit of `state/lock` replaced the lock that it held.
/// Then two writers no longer excluded each other.
#[test]
fn a_control_directory_in_the_root_is_no_target_is_not_listed_and_not_swept() {
    for place in ["state", "var/lib/state"] {
        let root = tempfile::tempdir().unwrap();
        let store = open_elsewhere(root.path(), place.as_ref());
        put(&store, &[("a", "1")]);
        let before: Vec<_> = tree(root.path()).into_keys().collect();
        let (upper, lock) = (format!("{}/lock", place.to_uppercase()), format!("{place}/lock"));
        for path in [place, &lock, &format!("{place}/sessions/new"), &upper] {
            let refused = store.update(|tx| tx.write(path, "x")).unwrap_err();
            let is_reserved = matches!(refused, Error::InvalidPath { reason: InvalidPath::Control, .. });
            assert!(is_reserved, "{path}: {refused}");
            assert!(store.update(|tx| tx.remove_if_exists(path).map(drop)).is_err(), "{path} was removed");
        }
        let view = store.view().unwrap();
        assert!(view.read(&lock).is_err() && view.list(place).is_err());
        let directory = Path::new(place).parent().unwrap();
        let listed = view.list(directory).unwrap();
        assert!(listed.iter().all(|path| path.as_path() != Path::new(place)), "{listed:?}");
        drop(view);
        let id = "0123456789abcdef0123456789abcdef";
        let named_like_litter = root.path().join(place).join(format!(".a.{id}-1-1.cosave"));
        fs::write(&named_like_litter, "").unwrap();
        assert!(store.deep_sweep().unwrap().swept.is_empty());
        fs::remove_file(named_like_litter).unwrap();
        assert_eq!(tree(root.path()).into_keys().collect::<Vec<_>>(), before);
    }
}

#[cfg(unix)]
#[test]
fn no_link_leads_a_commit_into_a_control_directory_in_the_root() {
    let root = tempfile::tempdir().unwrap();
    let store = open_elsewhere(root.path(), "state".as_ref());
    std::os::unix::fs::symlink("state", root.path().join("link")).unwrap();
    let refused = store.update(|tx| tx.write("link/lock", "x")).unwrap_err();
    let is_reserved = matches!(refused, Error::InvalidPath { reason: InvalidPath::Control, .. });
    assert!(is_reserved, "{refused}");
}

/// `control_dir(".")` put the lock, the manifests, and a `.gitignore` that hides everything into the root.
#[test]
fn a_control_directory_that_would_be_the_root_or_hold_it_is_refused_and_nothing_is_made() {
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("root");
    fs::create_dir_all(root.join("d")).unwrap();
    let (of_root, of_base) = (root.display().to_string(), base.path().display().to_string());
    let more = ["", ".", "..", "../root", "d/..", "d/../../root", "new/..", "new/../../root"];
    for place in more.into_iter().chain([&*of_root, &*of_base]) {
        let refused = Store::options().control_dir(place).open(&root).map(drop).unwrap_err();
        assert!(
            refused.source().is_some_and(|why| why.to_string().contains("control directory")),
            "{refused}"
        );
        assert_eq!(refused.outcome(), Outcome::NothingHappened);
        assert_eq!(tree(base.path()).len(), 2, "{place:?} made something");
    }
    put(&open_elsewhere(&root, "d/../d/control".as_ref()), &[("a", "1")]);
    assert!(root.join("d/control/1.applied").exists());
}

/// A read-only store made the missing parents of its control directory.
#[test]
fn a_read_only_store_makes_no_parents_and_sees_them_when_others_have_made_them() {
    let base = tempfile::tempdir().unwrap();
    let (root, control) = (base.path().join("root"), base.path().join("far/away/control"));
    fs::create_dir(&root).unwrap();
    let reader = Store::options().read_only(true).control_dir(&control).open(&root).unwrap();
    assert_eq!(reader.view().unwrap().generation(), 0);
    assert_eq!(tree(base.path()).len(), 1, "something was made");
    put(&open_elsewhere(&root, &control), &[("a", "1")]);
    let view = reader.view().unwrap();
    assert_eq!(view.generation(), 1);
    assert_eq!(view.read("a").unwrap(), b"1");
    let writer = Store::options().control_dir(&control).lock_timeout(Duration::ZERO).open(&root).unwrap();
    let refused = writer.update(|tx| tx.write("a", "2")).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "the view does not hold the lock: {refused}");
}

/// The parents that were made for a control directory elsewhere were never synced: a power loss took
/// them, with every commit that was ever published in it.
#[cfg(target_os = "linux")]
#[test]
fn new_parents_of_a_control_directory_are_made_durable() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: there is no strace here to see syncs with");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let trace = root.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", "trace=fsync", "-o"]).arg(&trace);
    command.arg(std::env::current_exe().unwrap());
    command.args(child_arguments("control_directory::child_with_a_far_control_directory"));
    command.env(ROOT, root.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    assert_eq!(run(command), ["1"]);
    let trace = fs::read_to_string(trace).unwrap();
    let root = root.path().canonicalize().unwrap();
    for directory in ["", "far", "far/away"] {
        let synced = format!("<{}>", root.join(directory).display()).replace("/>", ">");
        assert!(trace.contains(&synced), "{synced} is not synced:\n{trace}");
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "child of new_parents_of_a_control_directory_are_made_durable"]
fn child_with_a_far_control_directory() {
    let Some(root) = child_root() else { return };
    let project = root.join("project");
    fs::create_dir(&project).unwrap();
    say(put(&open_elsewhere(&project, &root.join("far/away/control")), &[("a", "1")]).generation());
}

#[test]
fn the_first_view_or_commit_makes_the_control_directory() {
    for begins_with_a_view in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert!(!root.path().join(".cosave").exists(), "an opening made it");
        let reader = Store::options().read_only(true).open(root.path()).unwrap();
        assert_eq!(reader.view().unwrap().generation(), 0);
        assert!(!root.path().join(".cosave").exists(), "a read-only store made it");
        if begins_with_a_view {
            assert_eq!(store.view().unwrap().generation(), 0);
        } else {
            put(&store, &[("a", "1")]);
        }
        assert!(root.path().join(".cosave").exists());
    }
}

#[test]
fn a_transaction_makes_a_control_directory_only_if_it_reads_or_is_large() {
    for (reads, bytes, makes) in [(false, 1, false), (true, 1, true), (false, LARGE_BYTES, true)] {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let mut tx = store.begin().unwrap();
        if reads {
            assert!(tx.read("a").unwrap_err().is_not_found());
        }
        tx.write("a", vec![0; bytes]).unwrap();
        assert_eq!(tx.changes().unwrap().len(), 1);
        tx.abort();
        assert_eq!(root.path().join(".cosave").exists(), makes, "{reads} {bytes}");
        assert!(tree(root.path()).is_empty());
    }
}
