//! The sweep of what killed writers of single files have left.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cosave::{AtomicFile, sweep_temporary_files};

use crate::common::{Over, child, child_root, heard, say, text, tree};

const WRITERS: usize = 3;

#[test]
fn what_a_killed_writer_left_is_swept_beside_a_living_one() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir(root.join("below")).unwrap();
    // Names that look like ours, and are not.
    let id = "0123456789abcdef0123456789abcdef";
    let others = [format!(".a.{id}"), format!("a.{id}.cosave"), ".a.1-2.3.cosave".into(), ".mine.new".into()];
    others.iter().for_each(|name| fs::write(root.join(name), "somebody's").unwrap());
    fs::write(root.join(format!("below/.a.{id}.cosave")), "elsewhere").unwrap();
    fs::create_dir(root.join(format!(".d.{id}.cosave"))).unwrap();
    std::os::unix::fs::symlink(root.join(&others[0]), root.join(format!(".l.{id}.cosave"))).unwrap();
    let before = tree(root);

    let mut living = AtomicFile::create(root.join("living")).unwrap();
    living.write_all(b"alive").unwrap();
    let mut other = child("single_sweep::child_that_writes", root).spawn().unwrap();
    let mut killed = child("single_sweep::child_that_writes", root).spawn().unwrap();
    for child in [&mut other, &mut killed] {
        assert_eq!(heard(child).next().as_deref(), Some("writing"));
    }
    let beside = tree(root);
    assert_eq!(sweep_temporary_files(root).unwrap(), Vec::<std::path::PathBuf>::new());
    assert_eq!(tree(root), beside, "a living writer's file was swept");

    killed.kill().unwrap();
    killed.wait().unwrap();
    let swept = sweep_temporary_files(root).unwrap();
    assert_eq!(swept.len(), WRITERS, "{swept:?}");
    assert_eq!(tree(root).len(), beside.len() - WRITERS);
    assert!(swept.iter().all(|path| !path.exists() && path.parent() == Some(&root.canonicalize().unwrap())));
    living.commit().unwrap();
    assert_eq!(text(root.join("living")), "alive");
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(sweep_temporary_files(root).unwrap().len(), WRITERS);
    fs::remove_file(root.join("living")).unwrap();
    assert_eq!(tree(root), before);
}

#[test]
#[ignore = "child of what_a_killed_writer_left_is_swept_beside_a_living_one"]
fn child_that_writes() {
    let Some(root) = child_root() else { return };
    let begin = |number| {
        let mut file = AtomicFile::create(root.join(format!("file {number}"))).unwrap();
        file.write_all(b"never").unwrap();
        file
    };
    let files: Vec<_> = (0..WRITERS).map(begin).collect();
    say("writing");
    // The end of its input never comes: it is killed.
    let _ = std::io::read_to_string(std::io::stdin());
    drop(files);
}

/// Works beside sweeps that go on until it is done.
fn beside_sweeps(sweeps: usize, root: &Path, work: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..sweeps {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    sweep_temporary_files(root).unwrap();
                }
            });
        }
        let _over = Over(&over);
        work();
    });
}

#[test]
fn saves_beside_a_sweep_that_never_ends_are_all_made() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    beside_sweeps(1, root, || {
        for number in 0..300 {
            cosave::write(root.join("a"), number.to_string()).unwrap();
            assert_eq!(text(root.join("a")), number.to_string());
        }
    });
    assert_eq!(tree(root).len(), 1);
}

/// A sweep that met the new file before it was locked took it for that of a dead writer. The rotation failed.
#[test]
fn rotations_beside_sweeps_that_never_end_are_all_made() {
    const ROTATIONS: usize = 60;
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let log = cosave::AppendFile::open(root.join("log")).unwrap();
    beside_sweeps(3, root, || {
        for number in 0..ROTATIONS {
            log.append(number.to_string()).unwrap();
            log.rotate(format!("log.{number}")).unwrap();
        }
    });
    log.close().unwrap();
    assert_eq!(tree(root).len(), ROTATIONS + 1);
    assert!((0..ROTATIONS).all(|number| text(root.join(format!("log.{number}"))) == number.to_string()));
}

#[test]
fn a_sweep_of_what_is_no_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    assert!(sweep_temporary_files(root.path().join("missing")).unwrap_err().is_not_found());
    assert!(sweep_temporary_files(root.path().join("file")).is_err());
    assert!(sweep_temporary_files("").is_err());
    assert_eq!(text(root.path().join("file")), "");
}

/// The lock was on a second descriptor. A mount whose locks are mandatory then let the first one write nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_writer_has_one_descriptor_open_and_that_is_locked() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let mut file = AtomicFile::create(root.join("a")).unwrap();
    file.write_all(b"1").unwrap();
    let temporary = root.join(tree(&root).keys().next().unwrap());
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    assert_eq!(links.filter(|link| *link == temporary).count(), 1);
    assert!(sweep_temporary_files(&root).unwrap().is_empty());
    file.commit().unwrap();
    assert_eq!(text(root.join("a")), "1");
}
