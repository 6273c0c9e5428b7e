//! What a transaction does, and what it leaves alone.

use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use cosave::{Change, Durability, Error, Outcome, RelativePath, Store, SyncStrategy};

use crate::common::{Over, assert_no_litter, put, quick, text, tree};

fn path(text: &str) -> RelativePath {
    RelativePath::new(text).unwrap()
}

#[test]
fn a_transaction_reads_its_own_writes_and_nobody_else_does() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "old")]);
    let mut tx = store.begin().unwrap();
    assert_eq!(tx.read("a").unwrap(), b"old");
    tx.write("a", "new").unwrap();
    tx.write("deep/b", "new b").unwrap();
    assert_eq!(tx.read("./a").unwrap(), b"new");
    assert_eq!(tx.read("deep//b").unwrap(), b"new b");
    assert_eq!(text(root.path().join("a")), "old");
    assert!(!root.path().join("deep/b").exists());
    assert!(store.view().unwrap().read("deep/b").unwrap_err().is_not_found());
    tx.remove("a").unwrap();
    assert!(tx.read("a").unwrap_err().is_not_found());
    tx.commit().unwrap();
    assert!(!root.path().join("a").exists());
}

#[test]
fn the_later_write_wins() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    for (path, text) in [("a/b", "first"), ("c", "c"), ("./a//b", "second"), ("a/./b", "third")] {
        tx.write(path, text).unwrap();
    }
    let changes = tx.changes().unwrap();
    assert_eq!(changes, tx.commit().unwrap().changes(), "the dry run and the commit do not agree");
    assert_eq!(changes.iter().map(|change| change.path().to_string()).collect::<Vec<_>>(), ["c", "a/b"]);
    assert_eq!(text(root.path().join("a/b")), "third");
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn a_removal_after_a_write_and_a_write_after_a_removal() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "old"), ("b", "old")]);
    let mut tx = store.begin().unwrap();
    tx.write("a", "new").unwrap();
    tx.remove("a").unwrap();
    tx.remove("b").unwrap();
    tx.write("b", "again").unwrap();
    tx.write("c", "never there").unwrap();
    assert!(tx.remove_if_exists("c").unwrap());
    assert!(tx.remove("c").unwrap_err().is_not_found());
    tx.commit().unwrap();
    assert!(!root.path().join("a").exists() && !root.path().join("c").exists());
    assert_eq!(text(root.path().join("b")), "again");
}

#[test]
fn a_dry_run_says_what_a_commit_would_do() {
    // With files that are kept in memory, and with files that are staged at once.
    for inline_max in [100, 0] {
        let root = tempfile::tempdir().unwrap();
        let store = Store::options().inline_max(inline_max).open(root.path()).unwrap();
        put(&store, &[("a", "old"), ("b", "old")]);
        let mut tx = store.begin().unwrap();
        assert!(tx.changes().unwrap().is_empty());
        tx.write("a", "12345").unwrap();
        tx.write("new/c", "1").unwrap();
        tx.remove("b").unwrap();
        let changes = tx.changes().unwrap();
        assert!(matches!(&changes[0], Change::Replace { path, length: 5, .. } if path.to_string() == "a"));
        assert!(matches!(&changes[1], Change::Create { path, length: 1, .. } if path.to_string() == "new/c"));
        assert!(matches!(&changes[2], Change::Remove { path, .. } if path.to_string() == "b"));
        let shown: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["replace a (3 -> 5 bytes)", "create  new/c (1 bytes)", "remove  b (3 bytes)"]);
        tx.abort();
        assert_eq!(text(root.path().join("a")), "old");
    }
}

#[test]
fn what_is_dropped_or_aborted_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "old")]);
    let before = tree(root.path());
    for abort in [true, false] {
        let mut tx = store.begin().unwrap();
        tx.write("a", "new").unwrap();
        tx.write("made/on/the/way", "new").unwrap();
        tx.remove("a").unwrap();
        let mut open = tx.writer("made/too").unwrap();
        open.write_all(&[1; 100_000]).unwrap();
        if abort {
            tx.abort()
        } else {
            drop(tx)
        }
        let late = open.finish().unwrap_err();
        assert!(matches!(late, Error::Unfinished { .. }), "{late:?}");
        assert_eq!(tree(root.path()), before);
    }
    assert_eq!(store.generation().unwrap(), 1);
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "old")]);
    let mut tx = store.begin().unwrap();
    tx.read("a").unwrap();
    tx.write("made/on/the/way", "new").unwrap();
    fs::write(root.path().join("a"), "changed by hand").unwrap();
    let before = tree(root.path());
    let error = tx.commit().unwrap_err();
    assert!(error.is_conflict());
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    let after = tree(root.path());
    assert!(!root.path().join("made").exists(), "{:?}", after.keys());
    assert!(before.len() >= after.len());
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn an_unfinished_writer_fails_the_commit() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    for keep_open in [true, false] {
        let mut tx = store.begin().unwrap();
        tx.write("b", "finished").unwrap();
        let mut writer = tx.writer("a").unwrap();
        writer.write_all(b"half").unwrap();
        let open = keep_open.then_some(writer);
        let error = tx.commit().unwrap_err();
        assert!(matches!(&error, Error::Unfinished { path, .. } if path.ends_with("a")), "{error:?}");
        drop(open);
        assert!(tree(root.path()).is_empty());
    }
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn a_writer_that_fails_is_as_if_it_had_never_been() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    tx.write("b", "kept").unwrap();
    let result = tx.write_with("a", |out| {
        out.write_all(&[0; 200_000])?;
        Err::<(), _>(io::Error::other("the caller's own"))
    });
    assert_eq!(result.unwrap_err().to_string(), "the caller's own");
    assert_eq!(tx.commit().unwrap().changes().len(), 1);
    assert!(!root.path().join("a").exists());
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn a_write_that_fails_does_not_take_an_earlier_one_along() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    tx.write("a", "first").unwrap();
    tx.write_with("a", |_| Err::<(), _>(io::Error::other("the caller's own"))).unwrap_err();
    assert_eq!(tx.read("a").unwrap(), b"first");
    tx.commit().unwrap();
    assert_eq!(text(root.path().join("a")), "first");
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn of_two_writers_of_one_path_the_one_begun_later_wins() {
    for later_first in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let store = quick(root.path());
        let mut tx = store.begin().unwrap();
        let (mut one, mut two) = (tx.writer("a").unwrap(), tx.writer("./a").unwrap());
        one.write_all(b"one").unwrap();
        two.write_all(b"two").unwrap();
        if later_first {
            two.finish().unwrap();
            one.finish().unwrap();
        } else {
            one.finish().unwrap();
            assert!(matches!(tx.read("a").unwrap_err(), Error::Unfinished { .. }));
            two.finish().unwrap();
        }
        assert_eq!(tx.commit().unwrap().changes().len(), 1);
        assert_eq!(text(root.path().join("a")), "two");
        drop(store);
        assert_no_litter(root.path());
    }
}

#[test]
fn an_empty_transaction_commits_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "1")]);
    let commit = store.begin().unwrap().commit().unwrap();
    assert_eq!((commit.generation().get(), commit.changes().len()), (1, 0));
    let tx = store.begin().unwrap();
    tx.read("a").unwrap();
    fs::write(root.path().join("a"), "changed").unwrap();
    assert!(tx.commit().unwrap_err().is_conflict(), "what it read must still be true");
    assert_eq!(store.generation().unwrap(), 1);
}

#[test]
fn a_file_that_was_read_as_missing_must_still_be_missing() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    assert!(tx.read("a").unwrap_err().is_not_found());
    tx.write("b", "there was no a").unwrap();
    put(&store, &[("a", "1")]);
    assert!(tx.commit().unwrap_err().is_conflict());
    let mut tx = store.begin().unwrap();
    tx.remove("a").unwrap();
    fs::remove_file(root.path().join("a")).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
}

#[test]
fn a_file_that_appears_after_read_if_exists_is_a_conflict() {
    for commits in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let store = quick(root.path());
        let mut tx = store.begin().unwrap();
        assert_eq!(tx.read_if_exists("a").unwrap(), None);
        tx.write("b", "there was no a").unwrap();
        if commits {
            put(&store, &[("a", "1")]);
        } else {
            fs::write(root.path().join("a"), "by hand").unwrap();
        }
        let error = tx.commit().unwrap_err();
        assert!(matches!(&error, Error::Conflict { path, .. } if path.ends_with("a")), "{error}");
        assert!(!root.path().join("b").exists());
    }
}

#[test]
fn read_if_exists_reads_what_read_reads() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1"), ("removed", "1")]);
    let mut tx = store.begin().unwrap();
    tx.write("own", "2").unwrap();
    tx.remove("removed").unwrap();
    let open = tx.writer("open").unwrap();
    assert!(matches!(tx.read_if_exists("open").unwrap_err(), Error::Unfinished { .. }));
    drop(open);
    let view = store.view().unwrap();
    for (path, in_transaction, in_view) in [
        ("./a", Some("1"), Some("1")),
        ("own", Some("2"), None),
        ("removed", None, Some("1")),
        ("no/x", None, None),
    ] {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        assert_eq!(tx.read_if_exists(path).unwrap(), bytes(in_transaction), "{path}");
        assert_eq!(tx.read(path).ok(), bytes(in_transaction), "{path}");
        assert_eq!(view.read_if_exists(path).unwrap(), bytes(in_view), "{path}");
        assert_eq!(view.read(path).ok(), bytes(in_view), "{path}");
    }
    for error in [tx.read_if_exists("../a").unwrap_err(), view.read_if_exists("../a").unwrap_err()] {
        assert!(matches!(error, Error::InvalidPath { .. }), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn permissions_are_kept_and_new_files_are_ordinary() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = tempfile::tempdir().unwrap();
    let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777;
    let modes = [("private", 0o600), ("group", 0o640), ("script", 0o755), ("open", 0o666)];
    for (name, bits) in modes {
        fs::write(root.path().join(name), "old").unwrap();
        fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(bits)).unwrap();
    }
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    for (name, _) in modes {
        tx.write(name, "new").unwrap();
    }
    tx.write("fresh", "new").unwrap();
    tx.write("directory/fresh", "new").unwrap();
    tx.commit().unwrap();
    for (name, bits) in modes {
        assert_eq!((text(root.path().join(name)).as_str(), mode(name)), ("new", bits), "{name}");
    }
    fs::File::create(root.path().join("ordinary")).unwrap();
    fs::create_dir(root.path().join("ordinary-directory")).unwrap();
    assert_eq!(mode("fresh"), mode("ordinary"));
    assert_eq!(mode("directory/fresh"), mode("ordinary"));
    assert_eq!(mode("directory"), mode("ordinary-directory"));
}

#[test]
#[cfg_attr(windows, ignore = "a file that somebody reads all the time cannot be replaced there")]
fn files_are_moved_in_the_order_in_which_they_were_written() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = quick(root);
    let names = ["z", "d/m", "a", "d/b", "last"];
    let commit = |number: u64| {
        let mut tx = store.begin().unwrap();
        // Written first and again: it counts as the last.
        tx.write("last", "overwritten").unwrap();
        for name in names {
            tx.write(name, number.to_string()).unwrap();
        }
        tx.commit().unwrap();
    };
    commit(0);
    let done = AtomicBool::new(false);
    let number_in = |name: &str| text(root.join(name)).parse::<u64>().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                // From the last to the first: each must be at least as new as the one after it.
                let numbers: Vec<_> = names.iter().rev().map(|name| number_in(name)).collect();
                assert!(numbers.is_sorted(), "{numbers:?}");
            }
        });
        let _over = Over(&done);
        (1..=300).for_each(commit);
    });
    assert_eq!(number_in("z"), 300);
}

#[test]
fn new_directories_are_made_at_any_depth() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let deep: String = (0..30).map(|level| format!("level-{level}/")).collect();
    let mut tx = store.begin().unwrap();
    tx.write(format!("{deep}file"), "deep").unwrap();
    tx.write(format!("{deep}other/file"), "deeper").unwrap();
    tx.write("top/file", "top").unwrap();
    tx.commit().unwrap();
    assert_eq!(text(root.path().join(&deep).join("other/file")), "deeper");
    drop(store);
    // Emptied by hand, they are not cosave's any more: no later sweep takes them.
    fs::remove_file(root.path().join("top/file")).unwrap();
    Store::open(root.path()).unwrap().sweep().unwrap();
    assert!(root.path().join("top").is_dir());
    assert_no_litter(root.path());
}

#[test]
fn unchanged_bytes_leave_the_file_and_its_time_alone() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "same")]);
    let stamp = fs::metadata(root.path().join("a")).unwrap().modified().unwrap();
    let mut tx = store.begin().unwrap();
    assert!(!tx.write_if_changed("a", "same").unwrap());
    assert!(tx.write_if_changed("b", "new").unwrap());
    tx.commit().unwrap();
    assert_eq!(fs::metadata(root.path().join("a")).unwrap().modified().unwrap(), stamp);
    let mut tx = store.begin().unwrap();
    assert!(tx.write_if_changed("a", "diff").unwrap());
    assert!(tx.write_if_changed("a", "same").unwrap(), "the transaction has written it already");
    tx.commit().unwrap();
    let mut tx = store.begin().unwrap();
    assert!(!tx.write_if_changed("a", "same").unwrap());
    tx.write("b", "relies on a").unwrap();
    put(&store, &[("a", "changed meanwhile")]);
    assert!(tx.commit().unwrap_err().is_conflict());
}

#[test]
fn a_file_is_copied_from_anywhere() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let source = elsewhere.path().join("source");
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    fs::write(&source, &bytes).unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    tx.copy_from("copy", &source).unwrap();
    assert!(tx.copy_from("nothing", elsewhere.path().join("missing")).unwrap_err().is_not_found());
    tx.commit().unwrap();
    assert!(fs::read(root.path().join("copy")).unwrap() == bytes);
    assert!(!root.path().join("nothing").exists());
}

#[test]
fn every_durability_commits_and_leaves_a_clean_root() {
    for durability in [Durability::Process, Durability::Committed, Durability::Full] {
        for strategy in [SyncStrategy::Auto, SyncStrategy::PerFile, SyncStrategy::FileSystem] {
            let root = tempfile::tempdir().unwrap();
            let options = Store::options().durability(durability).sync_strategy(strategy);
            let store = options.open(root.path()).unwrap();
            for number in 1..=5_u64 {
                let mut tx = store.begin().unwrap();
                tx.write("a", number.to_string()).unwrap();
                tx.write(format!("d/{number}"), "new").unwrap();
                let commit = tx.commit().unwrap();
                assert_eq!((commit.generation().get(), commit.durability()), (number, durability));
                assert_eq!(store.view().unwrap().read("a").unwrap(), number.to_string().as_bytes());
            }
            drop(store);
            let store = Store::open(root.path()).unwrap();
            assert!(store.last_recovery().is_clean(), "{durability:?}: {}", store.last_recovery());
            assert_eq!((store.generation().unwrap().get(), text(root.path().join("a")).as_str()), (5, "5"));
            assert_no_litter(root.path());
        }
    }
}

#[test]
fn a_flush_settles_what_was_only_committed() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
    put(&store, &[("a", "1")]);
    assert_eq!(store.status().unwrap().pending, [cosave::Generation::from(1)]);
    assert_eq!(text(root.path().join("a")), "1");
    store.flush().unwrap();
    assert!(store.status().unwrap().pending.is_empty());
    assert_eq!(store.generation().unwrap(), 1);
    store.flush().unwrap();
}

#[test]
fn a_view_lists_and_opens_and_what_it_opened_stays() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "old a"), ("d/b", "old b"), ("d/c", "c")]);
    let mut staged = store.begin().unwrap();
    staged.write("d/staged", "not yet").unwrap();
    let mut file = {
        let view = store.view().unwrap();
        assert_eq!(view.generation(), 1);
        assert_eq!(view.list("").unwrap(), [path("a"), path("d")]);
        assert_eq!(view.list(".").unwrap(), view.list(root.path()).unwrap());
        assert_eq!(view.list("d").unwrap(), [path("d/b"), path("d/c")]);
        assert!(view.list("missing").unwrap_err().is_not_found());
        assert!(view.exists("d/b").unwrap() && !view.exists("d/staged").unwrap());
        assert!(view.read("missing/deep").unwrap_err().is_not_found());
        view.open("a").unwrap()
    };
    staged.commit().unwrap();
    let mut tx = store.begin().unwrap();
    tx.remove("a").unwrap();
    tx.commit().unwrap();
    let mut found = String::new();
    assert_eq!(file.length().unwrap(), 5);
    file.seek(io::SeekFrom::Start(4)).unwrap();
    file.read_to_string(&mut found).unwrap();
    assert_eq!(found, "a");
    // Windows before POSIX deletion, and Wine, keep the name until the last handle is closed.
    drop(file);
    assert!(!store.view().unwrap().exists("a").unwrap());
}

#[test]
fn a_view_keeps_writers_out_until_it_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1"), ("b", "1")]);
    let view = store.view().unwrap();
    let started = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut tx = store.begin().unwrap();
            tx.write("a", "2").unwrap();
            tx.write("b", "2").unwrap();
            started.wait();
            tx.commit().unwrap();
        });
        started.wait();
        for _ in 0..1000 {
            assert_eq!((view.read("a").unwrap(), view.read("b").unwrap()), (b"1".into(), b"1".into()));
        }
        assert!(!writer.is_finished());
        drop(view);
        writer.join().unwrap();
    });
    assert_eq!(text(root.path().join("b")), "2");
}

#[test]
fn the_control_directory_can_lie_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let control = elsewhere.path().join("control");
    let open = || Store::options().control_dir(&control).open(root.path()).unwrap();
    let store = open();
    put(&store, &[("a", "1"), ("d/b", "1")]);
    put(&store, &[("a", "2")]);
    assert!(!root.path().join(".cosave").exists());
    assert!(control.join("2.applied").is_file());
    drop(store);
    assert_eq!(open().generation().unwrap(), 2);
    assert_eq!(open().view().unwrap().list("").unwrap(), [path("a"), path("d")]);
    assert_eq!(fs::read_dir(control.join("sessions")).unwrap().count(), 0);
    assert_no_litter(root.path());
}

#[test]
fn a_read_only_store_reads_and_refuses_the_rest() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), "1").unwrap();
    let open = || Store::options().read_only(true).open(root.path()).unwrap();
    let store = open();
    assert_eq!(store.view().unwrap().read("a").unwrap(), b"1");
    assert_eq!(store.view().unwrap().generation(), 0);
    for error in [
        store.begin().map(drop).unwrap_err(),
        store.recover().map(drop).unwrap_err(),
        store.sweep().map(drop).unwrap_err(),
        store.abandon(1).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    }
    drop(store);
    assert_eq!(tree(root.path()).len(), 1);
    assert!(!root.path().join(".cosave").exists());
    put(&quick(root.path()), &[("a", "2")]);
    let view = open().view().unwrap();
    assert_eq!((view.read("a").unwrap(), view.generation().get()), (b"2".to_vec(), 1));
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_not_text_works_like_any_other() {
    use std::os::unix::ffi::OsStrExt as _;
    let root = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let below = std::path::Path::new(std::ffi::OsStr::from_bytes(b"d\xff")).join(name);
    let store = Store::open(root.path()).unwrap();
    for content in ["first", "second"] {
        let mut tx = store.begin().unwrap();
        tx.write(name, content).unwrap();
        tx.write(&below, content).unwrap();
        tx.commit().unwrap();
        assert_eq!(text(root.path().join(&below)), content);
    }
    assert_eq!(store.verify().unwrap(), []);
    let view = store.view().unwrap();
    assert_eq!(view.read(name).unwrap(), b"second");
    assert_eq!(view.list("").unwrap().len(), 2);
    drop(view);
    let mut tx = store.begin().unwrap();
    tx.remove(&below).unwrap();
    tx.commit().unwrap();
    assert!(!root.path().join(below).exists());
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn the_manifest_of_a_commit_can_be_read() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let commit = put(&store, &[("a", "1"), ("d/b", "2")]);
    let bytes = fs::read(root.path().join(".cosave/1.applied")).unwrap();
    let manifest = cosave::Manifest::decode(&bytes).unwrap();
    assert_eq!(manifest.transaction, commit.transaction());
    assert_eq!(manifest.entries.len(), 2);
    assert!(manifest.to_string().contains("d/b"), "{manifest}");
    assert_eq!(text(root.path().join(".cosave/.gitignore")), "*\n");
}

/// Two files of one transaction were looked at one after the other, while others committed. The second had got
/// the number of the first one's old file, and was refused as a second name of it.
#[test]
fn a_file_that_has_the_number_of_another_ones_old_file_is_no_alias_of_it() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), "0").unwrap();
    let store = Store::open(root.path()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("a", "1").unwrap();
    fs::rename(root.path().join("a"), root.path().join("b")).unwrap();
    fs::write(root.path().join("a"), "another file").unwrap();
    tx.write("b", "1").unwrap();
    tx.commit().unwrap();
    assert_eq!((text(root.path().join("a")), text(root.path().join("b"))), ("1".to_owned(), "1".to_owned()));
}
