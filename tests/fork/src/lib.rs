//! What a child after `fork` may do with its copies of its parent's values: drop them, and no more.
//!
//! A child shares its parent's open files, and with them its locks (flock(2)). It gets a copy of every
//! store, transaction and view, whose destructors run when it ends in an orderly way.

#![cfg(all(test, unix))]

use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cosave::{AppendFile, AtomicFile, Durability, Error, Outcome, Store};

/// How long a child may take, in seconds: one that waits for a lock that no thread will ever give back
/// ends all the same.
const CHILD_SECONDS: u32 = 60;

/// One test at a time, so that no other thread holds anything when a test forks.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forks; `None` in the child, which runs nothing but the calling thread and must [`end`].
fn fork() -> Option<libc::pid_t> {
    // SAFETY: the child calls only code that needs no other thread: glibc makes its allocator safe in
    // a child, and no other thread uses the values of the calling test.
    match unsafe { libc::fork() } {
        0 => None,
        pid if pid > 0 => Some(pid),
        _ => panic!("cannot fork: {}", std::io::Error::last_os_error()),
    }
}

/// Does a child's work and ends it. The test fails if `work` panics.
fn end(work: impl FnOnce()) -> ! {
    // SAFETY: sets a timer of this process alone.
    unsafe { libc::alarm(CHILD_SECONDS) };
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    // SAFETY: ends the process at once, as a child must that shares its parent's harness.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}

fn wait(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `status` is valid for the whole call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child, "{}", std::io::Error::last_os_error());
    assert_eq!(status, 0, "the child failed");
}

fn staged(root: &Path) -> usize {
    let names = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".cosave") && name != ".cosave").count()
}

fn impatient(root: &Path) -> Store {
    Store::options().lock_timeout(Duration::from_millis(20)).open(root).unwrap()
}

#[test]
fn a_child_that_drops_its_copies_leaves_its_parents_work_alone() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = Store::options().inline_max(0).open(root).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("a", "a").unwrap();
    tx.write("made/b", "b").unwrap();
    let mut writer = tx.writer("c").unwrap();
    writer.write_all(b"c").unwrap();
    writer.flush().unwrap();
    let before = staged(root);
    assert!(before > 0);
    match fork() {
        None => end(move || drop((writer, tx, store))),
        Some(child) => wait(child),
    }
    assert_eq!(staged(root), before, "the child removed its parent's staged files");
    // Somebody else sweeps: the session must still be seen to live.
    let other = impatient(root);
    assert_eq!(other.status().unwrap().sessions_alive, 1, "the child ended its parent's session");
    other.sweep().unwrap();
    assert_eq!(staged(root), before, "the child unlocked its parent's session");
    writer.finish().unwrap();
    tx.commit().unwrap();
    for (path, content) in [("a", "a"), ("made/b", "b"), ("c", "c")] {
        assert_eq!(std::fs::read_to_string(root.join(path)).unwrap(), content);
    }
    assert_eq!(staged(root), 0);
}

#[test]
fn a_child_that_drops_its_copy_of_a_view_lets_no_writer_in() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = Store::open(root).unwrap();
    store.update(|tx| tx.write("a", "old")).unwrap();
    let view = store.view().unwrap();
    match fork() {
        None => end(move || drop((view, store))),
        Some(child) => wait(child),
    }
    let refused = impatient(root).update(|tx| tx.write("a", "new")).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    assert_eq!(view.read("a").unwrap(), b"old");
}

#[test]
fn a_child_commits_nothing_under_its_parents_lock_and_does_not_release_it() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = Store::open(root).unwrap();
    let lock = store.lock().unwrap();
    lock.update(|tx| tx.write("a", "old")).unwrap();
    match fork() {
        None => end(move || {
            let refused = lock.update(|tx| tx.write("a", "the child's")).unwrap_err();
            assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
            drop((lock, store));
        }),
        Some(child) => wait(child),
    }
    let refused = impatient(root).update(|tx| tx.write("a", "another's")).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    lock.update(|tx| tx.write("a", "new")).unwrap();
    drop(lock);
    impatient(root).update(|tx| tx.write("b", "another's")).unwrap();
    assert_eq!(std::fs::read_to_string(root.join("a")).unwrap(), "new");
}

#[test]
fn a_lock_is_free_when_its_owner_lets_go_though_a_child_lives() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = Store::open(root).unwrap();
    store.update(|tx| tx.write("a", "old")).unwrap();
    let view = store.view().unwrap();
    let mut gate = [0; 2];
    // SAFETY: `gate` has room for the two descriptors.
    assert_eq!(unsafe { libc::pipe(gate.as_mut_ptr()) }, 0);
    let [read, write] = gate;
    let child = fork().unwrap_or_else(|| {
        end(|| {
            // Holds every copy until its parent closes the pipe.
            // SAFETY: both descriptors are this process's own, and the buffer outlives the call.
            unsafe { libc::close(write) };
            let mut byte = [0_u8];
            unsafe { libc::read(read, byte.as_mut_ptr().cast(), 1) };
        })
    });
    drop(view);
    let committed = impatient(root).update(|tx| tx.write("a", "new"));
    // SAFETY: the descriptors are open and nobody else's.
    unsafe { libc::close(read) };
    unsafe { libc::close(write) };
    wait(child);
    committed.unwrap();
}

#[test]
fn a_child_is_refused_whatever_it_asks_of_its_copies() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = Store::options().durability(Durability::Committed).open(root).unwrap();
    store.update(|tx| tx.write("a", "old")).unwrap();
    let view = store.view().unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("b", "new").unwrap();
    let mut writer = tx.writer("c").unwrap();
    writer.write_all(b"c").unwrap();
    match fork() {
        None => end(move || {
            let mut other = store.begin().map(|_| ()).unwrap_err();
            for error in [
                store.view().map(|_| ()).unwrap_err(),
                store.sweep().map(|_| ()).unwrap_err(),
                store.recover().map(|_| ()).unwrap_err(),
                view.read("a").map(|_| ()).unwrap_err(),
                tx.write("d", "new").unwrap_err(),
                writer.finish().unwrap_err(),
                tx.commit().map(|_| ()).unwrap_err(),
                store.flush().unwrap_err(),
            ] {
                assert_eq!(error.outcome(), Outcome::NothingHappened);
                assert!(matches!(error, Error::Unsupported { .. }), "{error}");
                other = error;
            }
            assert!(other.to_string().contains("fork"), "{other}");
        }),
        Some(child) => wait(child),
    }
    drop(view);
    writer.finish().unwrap();
    tx.commit().unwrap();
    assert_eq!(std::fs::read_to_string(root.join("b")).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(root.join("c")).unwrap(), "c");
}

#[test]
fn a_childs_own_store_is_as_good_as_any() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = Store::open(root).unwrap();
    store.update(|tx| tx.write("a", "parent")).unwrap();
    match fork() {
        None => end(|| {
            let own = Store::open(root).unwrap();
            own.update(|tx| tx.write("b", "child")).unwrap();
        }),
        Some(child) => wait(child),
    }
    assert_eq!(store.view().unwrap().read("b").unwrap(), b"child");
}

/// A child that dropped its copy of a transaction once removed what its parent had staged: the parent's
/// commit was then refused, since it had lost a staged file.
#[test]
fn a_child_that_drops_its_copy_of_a_transaction_takes_nothing_away() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = Store::open(root).unwrap();
    let mut tx = store.begin().unwrap();
    // More than a transaction keeps in memory, so that there is something on disk to take away.
    tx.write("big", vec![1; 4 << 20]).unwrap();
    let mut writer = tx.writer("open").unwrap();
    writer.write_all(&vec![2; 4 << 20]).unwrap();
    match fork() {
        None => end(move || drop((writer, tx, store))),
        Some(child) => wait(child),
    }
    writer.finish().unwrap();
    tx.commit().unwrap();
    assert_eq!(std::fs::read(root.join("big")).unwrap().len(), 4 << 20);
    assert_eq!(std::fs::read(root.join("open")).unwrap().len(), 4 << 20);
}

/// As above, for a commit that a child tries: it is refused, and must not cost its parent anything.
#[test]
fn a_child_that_commits_its_copy_of_a_transaction_takes_nothing_away() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = Store::open(root).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("big", vec![1; 4 << 20]).unwrap();
    match fork() {
        None => end(move || {
            let refused = tx.commit().unwrap_err();
            assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
        }),
        Some(child) => wait(child),
    }
    tx.commit().unwrap();
    assert_eq!(std::fs::read(root.join("big")).unwrap().len(), 4 << 20);
}

/// A child shared the lock of its parent's file, and each of the two had its own idea of where it ended. An
/// error in one of them cut off what the other one had synced. Dropping the child's copy waited for ever for
/// the thread that syncs, which is its parent's.
#[test]
fn a_child_appends_nothing_to_its_parents_file_and_leaves_it_locked() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    let log = AppendFile::options().sync_within(Duration::from_secs(3600)).open(&path).unwrap();
    log.append("parent\n").unwrap();
    match fork() {
        None => end(move || {
            for refused in [
                log.append("child\n").map(drop).unwrap_err(),
                log.sync().map(drop).unwrap_err(),
                log.rotate("log.1").unwrap_err(),
            ] {
                assert_eq!(refused.outcome(), Outcome::NothingHappened);
                assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
                assert!(refused.to_string().contains("fork"), "{refused}");
            }
            drop(log);
        }),
        Some(child) => wait(child),
    }
    assert!(matches!(AppendFile::open(&path), Err(Error::InUse { .. })), "the child has unlocked it");
    assert_eq!(log.synced_len(), 0);
    log.append("again\n").unwrap();
    log.close().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "parent\nagain\n");
    AppendFile::open(&path).unwrap();
}

/// A child that dropped its copy of a file removed the temporary file of its parent, whose commit then failed.
#[test]
fn a_child_takes_nothing_of_a_single_file_away_and_commits_nothing() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    let (mut file, other) = (AtomicFile::create(&path).unwrap(), AtomicFile::create(&path).unwrap());
    file.write_all(b"parent").unwrap();
    match fork() {
        None => end(move || {
            assert!(file.write_all(b"child").is_err());
            let refused = other.commit().unwrap_err();
            assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
            drop(file);
        }),
        Some(child) => wait(child),
    }
    assert!(cosave::sweep_temporary_files(root.path()).unwrap().is_empty(), "the child has unlocked it");
    assert!(!path.exists());
    file.commit().unwrap();
    other.commit_new().unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "parent");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}
