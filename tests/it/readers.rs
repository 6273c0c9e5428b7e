//! Views where no lock can be had in the usual way, and views behind writers that wait.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cosave::{Error, Store};

use crate::common::{assert_no_litter, put, quick, text};

/// The reader found no lock to take, and read on while the first commit was applied.
///
/// Where directories cannot be locked (Windows), the commit goes on, and it is the view's next read that fails.
#[cfg(unix)]
#[test]
fn a_view_of_a_root_that_was_never_used_shows_no_half_of_the_first_commit() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["a", "b"] {
        fs::write(root.join(name), "old").unwrap();
    }
    let reader = Store::options().read_only(true).open(root).unwrap();
    let view = reader.view().unwrap();
    let a = view.read("a").unwrap();
    let writer = Store::options().lock_timeout(Duration::from_millis(50)).open(root).unwrap();
    let write = |content: &'static str| {
        writer.update(|tx| {
            tx.write("a", content)?;
            tx.write("b", content)
        })
    };
    let committed = write("new");
    assert_eq!(a, view.read("b").unwrap(), "the view shows a mix; the commit said {committed:?}");
    assert!(matches!(committed, Err(Error::Locked { .. })), "{committed:?}");
    // The next view of the same kind waits as any other.
    drop(view);
    write("newer").unwrap();
    let view = reader.view().unwrap();
    assert_eq!((view.read("a").unwrap(), view.generation().get()), (b"newer".to_vec(), 1));
    assert!(matches!(write("newest"), Err(Error::Locked { .. })));
    drop(view);
    drop(writer);
    assert_no_litter(root);
}

/// A read-only store made the lock files that it needed.
#[test]
fn a_read_only_store_makes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("a"), "old").unwrap();
    fs::create_dir(root.join(".cosave")).unwrap();
    let reader = Store::options().read_only(true).open(root).unwrap();
    assert_eq!(reader.view().unwrap().read("a").unwrap(), b"old");
    assert!(fs::read_dir(root.join(".cosave")).unwrap().next().is_none());
}

/// A writer that waited for one view shut out every other until it gave up, and then failed as well.
#[test]
fn a_view_passes_a_writer_that_waits_for_another_view() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    put(&quick(root), &[("a", "old")]);
    let (waiting, waits) = mpsc::channel();
    let writer = Store::options()
        .lock_timeout(Duration::from_secs(30))
        .on_wait(move |wait| drop(waiting.send(wait.clone())))
        .open(root)
        .unwrap();
    let reader = Store::open(root).unwrap();
    let first = reader.view().unwrap();
    let commit = std::thread::spawn(move || writer.update(|tx| tx.write("a", "new")));
    let wait = waits.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(wait.path.ends_with("lock"), "{wait:?}");
    let started = Instant::now();
    let second = reader.view().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "the view waited {:?}", started.elapsed());
    assert_eq!(second.read("a").unwrap(), first.read("a").unwrap());
    drop((first, second));
    commit.join().unwrap().unwrap();
    assert_eq!(text(root.join("a")), "new");
}

/// Passing must not starve: readers in an endless overlapping row let the writer in all the same.
#[test]
fn overlapping_views_that_last_do_not_keep_a_writer_out() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    put(&quick(root), &[("a", "old")]);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (stop, store) = (Arc::clone(&stop), Store::open(root).unwrap());
            std::thread::spawn(move || {
                // Each takes its next view before it lets go of the last.
                let mut view = store.view();
                let mut views = 0_u32;
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    let held = view.unwrap();
                    held.read("a").unwrap();
                    drop(held);
                    view = store.view();
                    views += 1;
                }
                views
            })
        })
        .collect();
    let writer = quick(root);
    for number in 0..20 {
        put(&writer, &[("a", &number.to_string())]);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    assert_eq!(text(root.join("a")), "19");
}
