//! What a store's history holds, where no crash alone shows it.

use cosave::fs::sim::{Aftermath, Crash, Fault, Model, Rule, SimDisk, without};
use cosave::{Durability, Outcome, Reason, Store};

use crate::rules::{content, expect, sim};

fn keeping(disk: &SimDisk, generations: u32) -> Store {
    Store::options().keep(generations).open_on(disk.process()).unwrap()
}

fn save(store: &Store, content: &str) {
    store.update(|tx| tx.write("a", content)).unwrap();
}

/// The names of what is kept, without those of the lists.
fn kept(disk: &SimDisk) -> Vec<String> {
    let names = disk.control_names().into_iter().filter(|name| name.starts_with("history/"));
    names.filter(|name| name.matches('/').count() == 2 && !name.ends_with("/record")).collect()
}

fn what_was_written_in_place_is_not_served(disk: &SimDisk) -> Result<(), String> {
    let store = keeping(disk, 5);
    save(&store, "a1");
    let path = format!(".cosave/{}", kept(disk)[0]);
    disk.put(&path, b"xx", 0o644);
    let read = store.view_at(0).unwrap().read("a");
    expect(read.is_err(), "a kept file that was changed was served")?;
    expect(store.undo().is_err() && content(disk, "a") == "a1", "it was brought back")
}

fn nobody_runs_a_kept_file_with_the_rights_of_its_owner(disk: &SimDisk) -> Result<(), String> {
    disk.set_mode("a", 0o4755);
    let store = keeping(disk, 5);
    save(&store, "a1");
    let mode = disk.mode(&format!(".cosave/{}", kept(disk)[0])).unwrap();
    expect(mode & 0o6077 == 0, "what was kept has a set-ID bit")?;
    store.undo().unwrap();
    expect(content(disk, "a") == "a0", "it was not brought back")
}

fn what_falls_out_is_removed(disk: &SimDisk) -> Result<(), String> {
    let store = keeping(disk, 2);
    for content in ["a1", "a2", "a3", "a4"] {
        save(&store, content);
    }
    expect(kept(disk).len() == 2, "what fell out of the history is still there")
}

/// A root that had once had a history kept the originals of every commit whose process was killed. Nothing ever
/// removed them.
fn a_store_without_a_history_keeps_nothing_in_its_recovery(disk: &SimDisk) -> Result<(), String> {
    save(&keeping(disk, 5), "a1");
    let mut disk = disk.kill();
    for content in ["a2", "a3", "a4"] {
        let store = Store::options().durability(Durability::Committed).open_on(disk.process()).unwrap();
        save(&store, content);
        disk = disk.kill();
    }
    drop(Store::options().open_on(disk.process()).unwrap());
    let lists = disk.control_names().into_iter().filter(|name| name.ends_with("/record"));
    expect(lists.count() == 1, "it keeps what its killed processes had replaced")?;
    expect(content(&disk, "a") == "a4", "what was committed is lost")
}

/// Recovery found that the sync of a commit had failed, and removed what it had kept, to keep it anew. A recovery
/// that was killed had replaced the originals by then, so they were lost.
fn what_was_kept_of_originals_that_are_gone_stays(disk: &SimDisk) -> Result<(), String> {
    let (mut in_doubt, mut half_done) = (0, 0);
    for call in 0.. {
        let disk = disk.copy();
        let store = keeping(&disk, 5);
        let (after, aftermath) = (disk.calls() + call, Aftermath::CacheShowsNew);
        disk.fail_at(&[Fault { after, error: 5, persistent: false, aftermath }]);
        let saved = store.update(|tx| tx.write("a", "a1").and_then(|()| tx.write("b", "b1")));
        let is_over = disk.calls() <= after;
        disk.fail_at(&[]);
        let disk = disk.kill();
        match saved {
            Ok(_) if is_over => break,
            Ok(_) => continue,
            Err(error) if error.outcome() != Outcome::Unknown => continue,
            Err(_) => in_doubt += 1,
        }
        for after in 0.. {
            let disk = disk.copy();
            disk.crash_at(Crash { after, reversed: false });
            let first = Store::options().open_on(disk.process());
            let disk = disk.kill();
            half_done += usize::from(content(&disk, "a") != "a0" && first.is_err());
            let store = keeping(&disk, 5);
            let undone = store.undo();
            let (a, b) = (content(&disk, "a"), content(&disk, "b"));
            let is_back = undone.is_ok() && a == "a0" && b == "b0";
            expect(is_back, &format!("call {call}, after {after}: {a}, {b}, {undone:?}"))?;
            if first.is_ok() {
                break;
            }
        }
    }
    assert!(in_doubt > 0 && half_done > 0, "{in_doubt}, {half_done}");
    Ok(())
}

type Case = (Rule, fn(&SimDisk) -> Result<(), String>);

const CASES: [Case; 5] = [
    (Rule::EndHistory, a_store_without_a_history_keeps_nothing_in_its_recovery),
    (Rule::LeaveKept, what_was_kept_of_originals_that_are_gone_stays),
    (Rule::VerifyKept, what_was_written_in_place_is_not_served),
    (Rule::HideKept, nobody_runs_a_kept_file_with_the_rights_of_its_owner),
    (Rule::ForgetOld, what_falls_out_is_removed),
];

#[test]
fn every_rule_of_the_history_holds_and_is_missed() {
    for (rule, case) in CASES {
        assert_eq!(case(&sim()), Ok(()), "{rule:?}");
        assert!(without(Some(rule), || case(&sim())).is_err(), "{rule:?} is not missed");
    }
}

/// A process that was killed before its commit point had kept files for a number that another commit then got.
#[test]
fn what_a_refused_commit_has_kept_is_never_taken_for_another_ones() {
    let mut litter = 0;
    for after in 0.. {
        let disk = sim();
        let living = Store::options().open_on(disk.process()).unwrap();
        let victim = disk.process();
        disk.crash_process_at(&*victim, after);
        let killed = Store::options()
            .keep(5)
            .open_on(victim)
            .and_then(|store| store.update(|tx| tx.write("a", "never")));
        if killed.is_ok() {
            break;
        }
        living.update(|tx| tx.write("b", "without a history")).unwrap();
        litter += usize::from(disk.control_names().iter().any(|name| name.starts_with("history/")));
        let store = keeping(&disk, 5);
        let newest = store.generation().unwrap().get();
        let past = store.view_at(newest - 1).map(drop).unwrap_err();
        assert!(matches!(past, cosave::Error::Unsupported { reason: Reason::NoHistory, .. }), "{past}");
        let (a, b) = (content(&disk, "a"), content(&disk, "b"));
        store.update(|tx| tx.write("b", "b9")).unwrap();
        store.undo().unwrap();
        assert_eq!((content(&disk, "a"), content(&disk, "b")), (a, b), "after {after} steps");
        // What was left falls out, like everything else.
        let store = keeping(&disk, 1);
        save(&store, "a8");
        save(&store, "a9");
        assert_eq!(kept(&disk).len(), 1, "after {after} steps");
    }
    assert!(litter > 5, "{litter}");
}

#[test]
fn where_files_have_one_name_only_they_are_copied() {
    for (model, links) in [(Model::WeakPosix, false), (Model::WeakPosix, true)] {
        let disk = SimDisk::new(model);
        disk.make_directory("mnt", 1);
        disk.put("a", b"a0", 0o640);
        disk.put("mnt/b", b"b0", 0o640);
        disk.settle();
        if !links {
            disk.without_links();
        }
        let store = keeping(&disk, 5);
        store
            .update(|tx| {
                tx.write("a", "a1")?;
                tx.remove("mnt/b")
            })
            .unwrap();
        assert_eq!(kept(&disk).len(), 2);
        assert_eq!(store.view_at(0).unwrap().read("mnt/b").unwrap(), b"b0");
        store.undo().unwrap();
        assert_eq!((content(&disk, "a"), content(&disk, "mnt/b")), ("a0".to_owned(), "b0".to_owned()));
        assert_eq!(disk.mode("mnt/b"), Some(0o640));
    }
}

/// A file that is a mount point itself is overwritten in place. A hard link would change with it.
#[test]
fn a_mount_point_that_is_overwritten_is_kept_as_a_copy() {
    let disk = sim();
    disk.mount_over("a");
    let store = keeping(&disk, 5);
    save(&store, "a1");
    assert_eq!(store.view_at(0).unwrap().read("a").unwrap(), b"a0");
    store.undo().unwrap();
    assert_eq!(content(&disk, "a"), "a0");
}

#[test]
fn a_full_disk_refuses_the_commit_and_leaves_nothing_kept() {
    let disk = sim();
    disk.without_links();
    let store = keeping(&disk, 5);
    save(&store, "a1");
    let before = kept(&disk);
    for bytes in [0, 40, 400, 800, 1200] {
        disk.free_bytes(Some(bytes));
        let saved = store.update(|tx| tx.write("a", "x".repeat(300)));
        disk.free_bytes(None);
        if saved.is_ok() {
            assert!(bytes > 400, "{bytes}");
            return;
        }
        assert_eq!(content(&disk, "a"), "a1");
        assert_eq!(kept(&disk), before, "{bytes}");
    }
}

/// A history was removed while a commit of a killed process was half applied. The next recovery kept what
/// was in the place of the originals, as if these were the originals.
#[test]
fn a_history_is_removed_only_after_a_recovery() {
    for after in 0.. {
        let disk = sim();
        drop(keeping(&disk, 5));
        let victim = disk.process();
        disk.crash_process_at(&*victim, after);
        let killed = Store::options().keep(5).open_on(victim).and_then(|store| {
            store.update(|tx| {
                tx.write("a", "a1")?;
                tx.write("b", "b1")
            })
        });
        let store = Store::options().recover(false).open_on(disk.process()).unwrap();
        store.forget_history().unwrap();
        let newest = store.generation().unwrap().get();
        assert_eq!((content(&disk, "a"), kept(&disk).len()), (format!("a{newest}"), 0), "after {after}");
        assert!(store.history().unwrap().is_empty(), "after {after} steps");
        if killed.is_ok() {
            break;
        }
    }
}

/// An undo whose files could not be moved into place was tried again, after a recovery had finished it. So
/// one undo went two states back.
#[test]
fn an_undo_that_an_error_interrupts_goes_back_once() {
    for after in 0.. {
        let disk = SimDisk::new(Model::WeakPosix);
        let store = Store::options().keep(5).open_on(disk.process()).unwrap();
        for content in ["1", "2", "3"] {
            store.update(|tx| tx.write("a", content)).unwrap();
        }
        let calls = disk.calls();
        let aftermath = Aftermath::CacheShowsNew;
        disk.fail_at(&[Fault { after: calls + after, error: 5, persistent: false, aftermath }]);
        let undone = store.undo();
        let is_over = disk.calls() <= calls + after;
        disk.fail_at(&[]);
        drop(store);
        let found = Store::options().open_on(disk.process()).unwrap().view().unwrap().read("a").unwrap();
        let may_be: &[&[u8]] = match undone.as_ref().map_err(cosave::Error::outcome) {
            Ok(_) | Err(Outcome::Committed) => &[b"2"],
            Err(Outcome::NothingHappened) => &[b"3"],
            Err(_) => &[b"2", b"3"],
        };
        assert!(may_be.contains(&&found[..]), "an error at call {after}: {found:?} after {undone:?}");
        if is_over {
            assert!(undone.is_ok());
            break;
        }
    }
}

/// A file with one sector that could not be read could not be replaced by a good one any more, nor removed. A
/// store with a history refused every such commit.
#[test]
fn a_file_that_cannot_be_read_is_replaced_and_removed_all_the_same() {
    for path in ["a", "b"] {
        for has_links in [true, false] {
            let disk = sim();
            if !has_links {
                disk.without_links();
            }
            let store = keeping(&disk, 5);
            disk.make_unreadable(path);
            store.update(|tx| tx.write("a", "a1").and_then(|()| tx.remove("b"))).unwrap();
            let commit = &store.history().unwrap()[0];
            assert_eq!(commit.not_kept().iter().map(ToString::to_string).collect::<Vec<_>>(), [path]);
            assert_eq!((content(&disk, "a"), content(&disk, "b")), ("a1".to_owned(), "nothing".to_owned()));
            assert_eq!(kept(&disk).len(), 1, "half a copy is left");
            let read = store.view_at(0).unwrap().read(path).unwrap_err();
            assert!(matches!(read, cosave::Error::Unsupported { reason: Reason::NotKept, .. }), "{read}");
        }
    }
}

/// What fell out of the history was removed before the files were moved. With large files that took seconds, in
/// which readers had to wait for a commit that was acknowledged by the disk already.
#[test]
fn a_commit_is_in_place_before_anything_falls_out_of_the_history() {
    let disk = sim();
    let store = keeping(&disk, 1);
    save(&store, "a1");
    let before = kept(&disk);
    drop(store);
    let mut has_fallen_out = 0;
    for after in 0.. {
        let disk = disk.copy();
        disk.crash_at(Crash { after, reversed: false });
        let _ = Store::options()
            .keep(1)
            .open_on(disk.process())
            .and_then(|store| store.update(|tx| tx.write("a", "a2")));
        if !kept(&disk).contains(&before[0]) {
            has_fallen_out += 1;
            assert_eq!(content(&disk, "a"), "a2", "after {after} steps");
        }
        if !disk.has_crashed() {
            break;
        }
    }
    assert!(has_fallen_out > 0);
}

/// To list a directory of an earlier generation, a process that had just begun read every byte of every file in it
/// that the history knows. So it took minutes, under the lock.
#[test]
fn a_list_of_the_past_reads_no_file() {
    let disk = sim();
    let store = keeping(&disk, 5);
    store.update(|tx| ["a", "d/b", "d/c"].iter().try_for_each(|path| tx.write(path, "1"))).unwrap();
    store.update(|tx| tx.write("d/c", "two")).unwrap();
    drop(store);
    ["a", "d/b", "d/c"].iter().for_each(|path| disk.make_unreadable(path));
    let view = keeping(&disk, 5).view_at(1).unwrap();
    let listed = |directory: &str| -> Vec<String> {
        view.list(directory).unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        (listed(""), listed("d")),
        (vec!["a".into(), "b".into(), "d".into()], vec!["d/b".into(), "d/c".into()])
    );
    assert!(view.exists("a").unwrap() && view.exists("d/b").unwrap());
    assert_eq!(view.metadata("d/b").unwrap().length(), 1);
    assert!(view.read("d/b").is_err(), "what cannot be read was served");
    // What another program has changed is refused as before, where it shows.
    disk.put("a", b"longer", 0o644);
    assert_eq!(listed("").len(), 3);
    assert!(view.metadata("a").is_err() && view.read("a").is_err());
    disk.delete("a");
    assert!(view.list("").is_err());
}
