//! Several processes, and programs that know nothing of cosave.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cosave::{Durability, Error, Outcome, Store};

use crate::common::{
    LARGE_BYTES, Over, assert_no_litter, child, child_root, heard, put, quick, run, say, text, told,
};

const WRITERS: u64 = 4;
const READERS: u64 = 2;
const COMMITS: u64 = 50;

#[test]
fn four_processes_commit_and_no_reader_sees_a_mix() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    put(&Store::open(root).unwrap(), &[("a", "start"), ("b/b", "start"), ("count", "0")]);
    let readers: Vec<_> =
        (0..READERS).map(|_| child("processes::child_that_reads_views", root).spawn().unwrap()).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let mut command = child("processes::child_that_commits", root);
            command.env("NUMBER", number.to_string());
            std::thread::spawn(move || run(command))
        })
        .collect();
    let mut generations = BTreeSet::new();
    for writer in writers {
        for said in writer.join().unwrap() {
            assert!(generations.insert(said.parse::<u64>().unwrap()), "generation {said} was given twice");
        }
    }
    for mut reader in readers {
        // The end of its input is its sign to stop.
        drop(reader.stdin.take());
        let said: Vec<_> = heard(&mut reader).collect();
        assert!(reader.wait().unwrap().success(), "a reader saw a mix");
        assert!(said.last().unwrap().parse::<u64>().unwrap() > 0, "a reader never got a view");
    }
    assert_eq!(generations, (2..=1 + WRITERS * COMMITS).collect(), "generations have gaps");
    assert_eq!(text(root.join("count")), (WRITERS * COMMITS / 2).to_string(), "an update was lost");
    for number in 0..WRITERS {
        for index in 0..COMMITS {
            assert_eq!(text(root.join(format!("own/{number}-{index}"))), format!("{number}-{index}"));
        }
    }
    assert_no_litter(root);
}

#[test]
#[ignore = "child of four_processes_commit_and_no_reader_sees_a_mix"]
fn child_that_commits() {
    let Some(root) = child_root() else { return };
    let number = told("NUMBER");
    // Each waits for the disk in its own way; what others see must not depend on it.
    let durability = [Durability::Full, Durability::Committed, Durability::Process, Durability::Full];
    let durability = durability[usize::try_from(number).unwrap()];
    let store = Store::options().durability(durability).open(root).unwrap();
    for index in 0..COMMITS {
        let tag = format!("{number}-{index}");
        let commit = store.update(|tx| {
            if index % 2 == 0 {
                let count: u64 = String::from_utf8(tx.read("count")?).unwrap().parse().unwrap();
                tx.write("count", (count + 1).to_string())?;
            }
            tx.write("a", &tag)?;
            tx.write("b/b", &tag)?;
            tx.write(format!("own/{tag}"), &tag)
        });
        say(commit.unwrap().generation());
    }
}

#[test]
#[ignore = "child of four_processes_commit_and_no_reader_sees_a_mix"]
fn child_that_reads_views() {
    let Some(root) = child_root() else { return };
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let told_to_stop = std::sync::Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::read_to_string(std::io::stdin());
        told_to_stop.store(true, Ordering::SeqCst);
    });
    let store = Store::open(root).unwrap();
    let (mut views, mut generation) = (0, cosave::Generation::from(0));
    while !stop.load(Ordering::SeqCst) || views == 0 {
        let view = store.view().unwrap();
        assert!(view.generation() >= generation, "a view went back in time");
        generation = view.generation();
        let a = view.read("a").unwrap();
        std::thread::yield_now();
        assert_eq!(a, view.read("b/b").unwrap());
        if a != b"start" {
            assert_eq!(a, view.read(format!("own/{}", String::from_utf8_lossy(&a))).unwrap());
        }
        views += 1;
    }
    say(views);
}

#[test]
fn a_plain_reader_never_finds_a_file_missing_or_partial() {
    const LINES: usize = 800;
    // On Windows each move has to wait until the reader has closed the file.
    const COMMITS: u64 = if cfg!(windows) { 100 } else { 600 };
    let content = |number: u64| format!("{number:08}\n").repeat(LINES);
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let store = quick(root);
    let files = ["a", "b", "c"];
    let commit = |number: u64| {
        let mut tx = store.begin().unwrap();
        for file in files {
            tx.write(file, content(number)).unwrap();
        }
        tx.commit().unwrap();
    };
    commit(0);
    let done = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = [0; 3];
            while !done.load(Ordering::SeqCst) {
                for (file, last) in files.iter().zip(&mut last) {
                    let found = String::from_utf8(fs::read(root.join(file)).unwrap()).unwrap();
                    let number: u64 = found[..8].parse().unwrap();
                    assert_eq!(found, content(number), "{file} is torn");
                    assert!(number >= *last, "{file} went back in time");
                    *last = number;
                    reads.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let _over = Over(&done);
        (1..=COMMITS).for_each(commit);
    });
    assert!(reads.into_inner() > 100, "the reader hardly read");
}

#[test]
fn readers_that_always_overlap_do_not_starve_a_writer() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "0")]);
    let (open, views) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    let mut met_a_reader = 0;
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let (store, open, views, done) = (store.clone(), &open, &views, &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let view = store.view().unwrap();
                    open.fetch_add(1, Ordering::SeqCst);
                    let start = Instant::now();
                    // Different lengths, so that they never all end at once.
                    while start.elapsed() < Duration::from_millis(3 + reader) {
                        std::thread::yield_now();
                    }
                    views.fetch_add(1, Ordering::SeqCst);
                    open.fetch_sub(1, Ordering::SeqCst);
                    drop(view);
                }
            });
        }
        let _over = Over(&done);
        for number in 0..50 {
            while open.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            met_a_reader += 1;
            let start = Instant::now();
            put(&store, &[("a", &number.to_string())]);
            assert!(start.elapsed() < Duration::from_secs(5), "a writer waited {:?}", start.elapsed());
        }
    });
    assert_eq!(met_a_reader, 50);
    assert!(views.into_inner() > 4, "readers were starved");
}

#[test]
fn a_lock_held_too_long_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    put(&Store::open(root.path()).unwrap(), &[("a", "1")]);
    let mut reader = child("processes::child_that_holds_a_view", root.path()).spawn().unwrap();
    let mut said = heard(&mut reader);
    assert_eq!(said.next().unwrap(), "held");
    let wait = Duration::from_millis(60);
    let store = Store::options().lock_timeout(wait).open(root.path()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("a", "2").unwrap();
    let error = tx.commit().unwrap_err();
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    match &error {
        Error::Locked { path, waited, holder, .. } => {
            assert!(path.ends_with(".cosave/lock"), "{}", path.display());
            assert_eq!(holder.as_deref(), Some("this process, or one that only reads"));
            assert!(*waited >= wait);
        }
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains("lock"), "{error}");
    assert_eq!(text(root.path().join("a")), "1");
    drop(reader.stdin.take());
    assert_eq!(said.next(), None);
    assert!(reader.wait().unwrap().success());
    put(&store, &[("a", "3")]);
    drop(store);
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of a_lock_held_too_long_is_an_error_that_names_it"]
fn child_that_holds_a_view() {
    let Some(root) = child_root() else { return };
    let store = Store::open(root).unwrap();
    let view = store.view().unwrap();
    say("held");
    std::io::read_to_string(std::io::stdin()).unwrap();
    assert_eq!(view.read("a").unwrap(), b"1");
}

#[test]
fn a_writer_in_another_process_is_never_swept() {
    let root = tempfile::tempdir().unwrap();
    put(&quick(root.path()), &[("a", "1")]);
    let mut writer = child("processes::child_that_stages_and_waits", root.path()).spawn().unwrap();
    let mut said = heard(&mut writer);
    assert_eq!(said.next().unwrap(), "staged");
    for _ in 0..20 {
        let store = quick(root.path());
        assert!(store.sweep().unwrap().swept.is_empty(), "a living writer was swept");
        assert!(store.status().unwrap().sessions_alive >= 1);
    }
    drop(writer.stdin.take());
    assert_eq!(said.next().unwrap(), "committed");
    assert!(writer.wait().unwrap().success());
    assert_eq!(text(root.path().join("new/deep/file")), "s".repeat(LARGE_BYTES));
    assert_no_litter(root.path());
}

#[test]
fn what_a_killed_process_staged_is_swept_with_its_directories() {
    let root = tempfile::tempdir().unwrap();
    put(&quick(root.path()), &[("a", "1")]);
    let before = crate::common::tree(root.path());
    let mut writer = child("processes::child_that_stages_and_waits", root.path()).spawn().unwrap();
    assert_eq!(heard(&mut writer).next().unwrap(), "staged");
    writer.kill().unwrap();
    writer.wait().unwrap();
    let look = Store::options().read_only(true).open(root.path()).unwrap();
    assert!(look.status().unwrap().needs_sweep);
    let store = Store::open(root.path()).unwrap();
    assert!(!store.last_recovery().swept.is_empty());
    assert!(!store.status().unwrap().needs_sweep);
    drop(store);
    assert_eq!(crate::common::tree(root.path()), before);
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of a_writer_in_another_process_is_never_swept"]
fn child_that_stages_and_waits() {
    let Some(root) = child_root() else { return };
    let store = Store::open(root).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("a", "2").unwrap();
    tx.write("new/deep/file", "s".repeat(LARGE_BYTES)).unwrap();
    say("staged");
    std::io::read_to_string(std::io::stdin()).unwrap();
    tx.commit().unwrap();
    say("committed");
}

#[test]
fn a_store_that_is_not_closed_has_its_last_commit_reported() {
    let root = tempfile::tempdir().unwrap();
    let child = child("processes::child_that_exits_without_closing", root.path());
    assert_eq!(run(child), ["2"]);
    assert_eq!(text(root.path().join("a")), "2", "the file was in place");
    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.last_recovery().rolled_forward, [2]);
    drop(store);
    assert!(Store::open(root.path()).unwrap().last_recovery().is_clean());
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of a_store_that_is_not_closed_has_its_last_commit_reported"]
fn child_that_exits_without_closing() {
    let Some(root) = child_root() else { return };
    let store = Store::options().durability(Durability::Committed).open(root).unwrap();
    put(&store, &[("a", "1")]);
    say(put(&store, &[("a", "2")]).generation());
    std::process::exit(0);
}
