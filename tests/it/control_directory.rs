//! The control directory: where it lies, what makes it last, and what others may put into it.

#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use cosave::{Error, Store};

use crate::common::{ROOT, child, child_arguments, child_root, put, run, say, text};

fn open_elsewhere(root: &Path, control: &Path) -> Store {
    Store::options().control_dir(control).open(root).unwrap()
}

/// A pipe under a manifest's name hung whoever opened the root: recovery opens what is pending to
/// sync it, and opening a pipe waits for somebody who writes into it.
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
