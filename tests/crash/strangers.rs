//! Other roots, other processes, and strangers who move and remove directories: each case holds as the
//! protocol is, and fails when its rule is broken.

use std::time::Duration;

use cosave::fs::Barrier;
use cosave::fs::sim::{Model, Mutation, Part, Rule, SimDisk, without};
use cosave::{Durability, Error, Generation, Store, StoreOptions};

use crate::rules::{Case, content, expect, sim, staged_names};

/// Everything is staged at once, so that there is something for others to find.
fn options() -> StoreOptions {
    Store::options().inline_max(0)
}

fn open(disk: &SimDisk) -> Store {
    options().open_on(disk.process()).unwrap()
}

fn what_another_root_stages_is_not_swept(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("inner", 0);
    let victim = disk.process_at("inner").unwrap();
    let store = options().open_on(victim.clone()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("x", "never").unwrap();
    disk.crash_process_at(&*victim, 0);
    drop((tx, store));
    let outer = open(disk);
    let mut tx = outer.begin().unwrap();
    tx.write("inner/a", "the outer root's").unwrap();
    drop(options().open_on(disk.process_at("inner").unwrap()).unwrap());
    expect(tx.commit().is_ok(), "an inner root removed what the outer one had staged")?;
    expect(content(disk, "inner/a") == "the outer root's", "a commit is not in place")?;
    expect(content(disk, "inner/x") == "nothing" && staged_names(disk).is_empty(), "the dead left something")
}

fn a_child_changes_nothing(disk: &SimDisk) -> Result<(), String> {
    let parent = disk.process();
    let store = options().open_on(parent.clone()).unwrap();
    store.update(|tx| tx.write("a", "a1")).unwrap();
    let view = store.view().unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("new/b", "b1").unwrap();
    let writer = tx.writer("c").unwrap();
    let before = (disk.fingerprint(), disk.steps());
    disk.fork(&*parent);
    expect(view.read("a").is_err() && store.begin().is_err(), "a child was allowed to work")?;
    drop((writer, tx, view, store));
    expect((disk.fingerprint(), disk.steps()) == before, "a child changed its parent's files")?;
    let other = options().lock_timeout(Duration::ZERO).open_on(disk.process()).unwrap();
    expect(other.status().unwrap().sessions_alive == 1, "a child ended its parent's session")?;
    let locked = other.update(|tx| tx.write("a", "a2"));
    expect(matches!(locked, Err(Error::Locked { .. })), "a child unlocked its parent's view")
}

/// A store that has written in `d`, and so knows it.
fn acquainted(disk: &SimDisk) -> Store {
    disk.make_directory("d", 0);
    let store = open(disk);
    store.update(|tx| tx.write("d/x", "1")).unwrap();
    store
}

fn nothing_is_staged_where_a_directory_was_moved_to(disk: &SimDisk) -> Result<(), String> {
    let store = acquainted(disk);
    disk.rename("d", "moved");
    disk.make_directory("d", 0);
    let mut tx = store.begin().unwrap();
    tx.write("d/y", "2").unwrap();
    let outside = staged_names(disk).iter().any(|name| name.starts_with("moved/"));
    expect(!outside, "something was staged in a directory that was moved away")?;
    expect(tx.commit().is_ok() && content(disk, "d/y") == "2", "the new directory could not be written")
}

fn a_renamed_directory_keeps_no_staged_file(disk: &SimDisk) -> Result<(), String> {
    let store = acquainted(disk);
    let mut tx = store.begin().unwrap();
    tx.write("d/y", "2").unwrap();
    disk.rename("d", "moved");
    disk.make_directory("d", 0);
    expect(tx.commit().is_err(), "a commit whose staged file is elsewhere succeeded")?;
    expect(staged_names(disk).is_empty(), "a staged file was left in a renamed directory")
}

fn a_removed_control_directory_is_made_anew(disk: &SimDisk) -> Result<(), String> {
    let store = acquainted(disk);
    disk.remove_all(".cosave");
    let again = store.update(|tx| tx.write("d/x", "2"));
    expect(again.is_ok(), "no commit succeeds after the control directory was removed")?;
    expect(store.status().unwrap().sessions_alive == 1, "the session is not known")
}

fn generations_go_on_in_a_new_control_directory(disk: &SimDisk) -> Result<(), String> {
    let store = acquainted(disk);
    store.update(|tx| tx.write("d/x", "2")).unwrap();
    disk.remove_all(".cosave");
    let commit = store.update(|tx| tx.write("d/x", "3")).unwrap();
    for found in disk.power_losses(1000, 1) {
        let opened = open(&found);
        expect(content(&found, "d/x") == "3", "an acknowledged commit was lost")?;
        expect(opened.generation().unwrap() == commit.generation(), "a generation was lost")?;
    }
    expect(commit.generation() == 3, "a generation stands for two commits")
}

fn a_control_directory_serves_one_root(disk: &SimDisk) -> Result<(), String> {
    for root in ["one", "two"] {
        disk.make_directory(root, 0);
    }
    disk.settle();
    let open = |disk: &SimDisk, root| options().open_on(disk.process_with_control(root, "control").unwrap());
    let first = open(disk, "one").unwrap();
    first.update(|tx| tx.write("a", "one's")).unwrap();
    expect(matches!(open(disk, "two"), Err(Error::OtherRoot { .. })), "a second root was let in")?;
    for found in disk.power_losses(1000, 1) {
        let refused = open(&found, "two");
        expect(matches!(refused, Err(Error::OtherRoot { .. })), "a power loss took the owner's name")?;
        expect(open(&found, "one").is_ok(), "the owner was refused after a power loss")?;
        expect(content(&found, "one/a") == "one's", "an acknowledged commit was lost")?;
    }
    disk.rename("one", "three");
    expect(open(disk, "three").is_ok(), "a root that was moved was refused")?;
    disk.make_directory("one", 0);
    expect(matches!(open(disk, "one"), Err(Error::OtherRoot { .. })), "the old place was taken for the root")
}

fn a_reader_without_a_control_directory_is_waited_for(disk: &SimDisk) -> Result<(), String> {
    let reader = options().read_only(true).open_on(disk.process()).unwrap();
    let view = reader.view().unwrap();
    let a = view.read("a").unwrap();
    let writer = options().lock_timeout(Duration::ZERO).open_on(disk.process()).unwrap();
    let both = |tx: &mut cosave::Transaction| {
        tx.write("a", "a1")?;
        tx.write("b", "b1")
    };
    let committed = writer.update(both);
    expect(view.read("b").unwrap() == b"b0" && a == b"a0", "a view showed half of the first commit")?;
    expect(matches!(committed, Err(Error::Locked { .. })), "the first commit did not wait for a view")?;
    drop(view);
    expect(writer.update(both).is_ok(), "the first commit failed")
}

/// What a stranger does to directories that a store knows, without a sync.
type Deed = fn(&SimDisk);

fn moved_away_and_made_anew(disk: &SimDisk) {
    disk.rename("p/d", "e");
    disk.make_directory("p/d", 0);
}

fn removed_and_made_anew(disk: &SimDisk) {
    disk.remove_all("p/d");
    disk.make_directory("p/d", 0);
}

fn replaced_by_another(disk: &SimDisk) {
    disk.rename("p/d", "e");
    disk.rename("p/other", "p/d");
}

fn given_another_parent(disk: &SimDisk) {
    disk.rename("p", "q");
    disk.make_directory("p", 0);
    disk.rename("q/d", "p/d");
}

fn with_a_file_below_two_directories(model: Model) -> SimDisk {
    let disk = SimDisk::new(model);
    disk.make_directory("p/d", 0);
    disk.make_directory("p/other", 0);
    disk.put("p/d/x", b"0", 0o644);
    disk.settle();
    disk
}

fn a_commit_where_a_stranger_has_been(model: Model, deed: Deed) -> Result<(), String> {
    let disk = with_a_file_below_two_directories(model);
    let store = open(&disk);
    for content in ["1", "2"] {
        store.update(|tx| tx.write("p/d/x", content)).unwrap();
    }
    deed(&disk);
    for content in ["3", "4"] {
        store.update(|tx| tx.write("p/d/x", content)).unwrap();
        for found in disk.power_losses(256, 1) {
            drop(options().open_on(found.process()).map_err(|error| error.to_string())?);
            expect(self::content(&found, "p/d/x") == content, "an acknowledged commit was lost")?;
        }
    }
    Ok(())
}

/// A removal stages nothing, so nothing else looks at its directory.
fn a_removal_where_a_stranger_has_been(model: Model, deed: Deed) -> Result<(), String> {
    let disk = with_a_file_below_two_directories(model);
    let store = open(&disk);
    store.update(|tx| tx.write("p/d/x", "1")).unwrap();
    deed(&disk);
    disk.put("p/d/x", b"the stranger's", 0o644);
    store.update(|tx| tx.remove("p/d/x")).unwrap();
    for found in disk.power_losses(256, 1) {
        drop(options().open_on(found.process()).map_err(|error| error.to_string())?);
        expect(self::content(&found, "p/d/x") == "nothing", "an acknowledged removal was undone")?;
    }
    Ok(())
}

#[test]
fn a_removal_in_a_directory_that_a_stranger_has_replaced_stays() {
    for model in [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix] {
        for (number, deed) in [moved_away_and_made_anew, removed_and_made_anew].into_iter().enumerate() {
            let run = || a_removal_where_a_stranger_has_been(model, deed);
            assert_eq!(run(), Ok(()), "deed {number} in {model:?}");
        }
    }
    let broken = || a_removal_where_a_stranger_has_been(Model::WeakPosix, moved_away_and_made_anew);
    assert!(without(Some(Rule::RecogniseDirectories), broken).is_err(), "nobody noticed");
}

/// Somebody moved a directory away and made it anew while a store was open. The store took it for the one
/// that it knew, and nobody synced its name. A power loss took an acknowledged commit, in 42 of 93 outcomes.
#[test]
fn a_directory_that_a_stranger_has_replaced_is_made_durable_again() {
    use Model::{JumpingPrefix, OrderedPrefix, WeakPosix};
    let deeds: [Deed; 4] =
        [moved_away_and_made_anew, removed_and_made_anew, replaced_by_another, given_another_parent];
    for (number, deed) in deeds.into_iter().enumerate() {
        for (model, is_missed) in [(OrderedPrefix, false), (JumpingPrefix, true), (WeakPosix, true)] {
            let run = || a_commit_where_a_stranger_has_been(model, deed);
            assert_eq!(run(), Ok(()), "deed {number} in {model:?}");
            let broken = without(Some(Rule::RecogniseDirectories), run);
            assert_eq!(broken.is_err(), is_missed, "deed {number} in {model:?}: {broken:?}");
        }
    }
}

/// A directory that somebody made and did not sync was synced by nobody if what was committed lay in a new
/// directory below it.
#[test]
fn a_new_directory_in_one_that_somebody_has_just_made_survives() {
    for model in [Model::JumpingPrefix, Model::WeakPosix] {
        let disk = SimDisk::new(model);
        let store = open(&disk);
        disk.make_directory("theirs", 0);
        store.update(|tx| tx.write("theirs/new/x", "1")).unwrap();
        let losses = disk.power_losses(256, 1);
        assert!(losses.len() > 1);
        for found in losses {
            drop(open(&found));
            assert_eq!(content(&found, "theirs/new/x"), "1", "{model:?}");
        }
    }
}

/// What a store had put off is taken over by the next that opens the root. If somebody has removed a directory
/// meanwhile, its commit was retired, and nobody had synced that removal. A power loss brought the directory
/// back as it was before the commit, and the commit's other file stayed.
fn a_directory_that_was_removed_does_not_come_back_older(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("p/d", 0);
    disk.put("p/d/x", b"x0", 0o644);
    disk.put("p/d/gone", b"g0", 0o644);
    disk.settle();
    let living = options().durability(Durability::Committed).open_on(disk.process()).unwrap();
    let change = |tx: &mut cosave::Transaction| {
        tx.write("p/d/x", "x1")?;
        tx.remove("p/d/gone")?;
        tx.write("a", "a1")
    };
    living.update(change).unwrap();
    disk.remove_all("p/d");
    let other = open(disk);
    expect(other.status().unwrap().pending.is_empty(), "the commit is not retired")?;
    let losses = disk.power_losses(256, 1);
    expect(losses.len() > 1, "nothing can be lost")?;
    for found in losses {
        drop(options().open_on(found.process()).map_err(|error| error.to_string())?);
        expect(content(&found, "a") == "a1", "an acknowledged commit was lost")?;
        let (x, gone) = (content(&found, "p/d/x"), content(&found, "p/d/gone"));
        expect(["nothing", "x1"].contains(&&*x) && gone == "nothing", "a commit came back by half")?;
        expect(staged_names(&found).is_empty(), "something staged came back")?;
    }
    Ok(())
}

/// A transaction was to remove a file, and somebody removed its whole directory before the commit. Nobody had
/// synced that, so a power loss brought the file back after the commit was acknowledged.
fn a_file_that_went_with_its_directory_stays_removed(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("p/d", 0);
    disk.put("p/d/x", b"x0", 0o644);
    disk.settle();
    let store = open(disk);
    let mut tx = store.begin().unwrap();
    assert!(tx.remove_if_exists("p/d/x").unwrap());
    tx.write("a", "a1").unwrap();
    disk.remove_all("p/d");
    tx.commit().unwrap();
    for found in disk.power_losses(256, 1) {
        drop(options().open_on(found.process()).map_err(|error| error.to_string())?);
        expect(content(&found, "a") == "a1", "an acknowledged commit was lost")?;
        expect(content(&found, "p/d/x") == "nothing", "a removed file came back")?;
    }
    Ok(())
}

/// Somebody removed the control directory while a store had put off the last wait of a commit. The store dropped
/// the wait, too, so a power loss left one file of that commit old, and the next commit whole.
#[test]
fn a_wait_that_was_put_off_is_paid_without_the_control_directory() {
    for model in [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix] {
        let disk = SimDisk::new(model);
        disk.make_directory("d", 0);
        disk.put("d/x", b"x0", 0o644);
        disk.settle();
        let store = Store::options().durability(Durability::Committed).open_on(disk.process()).unwrap();
        let both = |tx: &mut cosave::Transaction| {
            tx.write("a", "a1")?;
            tx.write("d/x", "x1")
        };
        store.update(both).unwrap();
        disk.remove_all(".cosave");
        store.update(|tx| tx.write("b", "b1")).unwrap();
        for found in disk.power_losses(200, 1) {
            drop(open(&found));
            let all = ["a", "d/x", "b"].map(|path| content(&found, path));
            assert_eq!(all, ["a1", "x1", "b1"], "{model:?}");
        }
    }
}

#[test]
fn a_manifest_whose_directory_is_gone_is_retired_for_good() {
    for model in [Model::JumpingPrefix, Model::WeakPosix] {
        let disk = SimDisk::new(model);
        disk.mutate(Some(Mutation::Skip(Barrier::Retired, Part::Everything)));
        let unsynced = a_directory_that_was_removed_does_not_come_back_older(&disk);
        assert!(
            unsynced.is_err_and(|why| why.contains("cannot look at")),
            "{model:?}: nobody misses the sync"
        );
        let kept = a_directory_that_was_removed_does_not_come_back_older(&SimDisk::new(model));
        assert_eq!(kept, Ok(()), "{model:?}");
    }
}

/// A writer that had put off its last wait was killed, and somebody removed a directory. Although all its files
/// had been in place, the root stayed closed until somebody gave the commit up. The writer leaves a mark now.
/// A power loss can keep the mark and undo the moves, so it counts only until the machine is started again.
fn a_mark_that_files_are_in_place_counts_until_the_machine_restarts(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("p/d", 0);
    disk.put("p/d/x", b"x0", 0o644);
    disk.settle();
    let living = options().durability(Durability::Committed).open_on(disk.process()).unwrap();
    let change = |tx: &mut cosave::Transaction| {
        tx.write("p/d/x", "x1")?;
        tx.write("a", "a1")
    };
    living.update(change).unwrap();
    let marked = |disk: &SimDisk| disk.control_names().iter().any(|name| name.contains("in-place"));
    expect(marked(disk), "there is no mark")?;

    let killed = disk.kill();
    killed.remove_all("p/d");
    let opened = options().open_on(killed.process());
    let report = opened.map_err(|error| format!("the root is closed: {error}"))?.last_recovery();
    expect(report.rolled_forward == [Generation::from(1)], "the commit is not finished")?;
    expect(report.differences.len() == 1, "nobody is told what is missing")?;
    expect(!marked(&killed), "the mark is left")?;

    let losses = disk.power_losses(1000, 1);
    let undone = |found: &&SimDisk| marked(found) && content(found, "p/d/x") == "x0";
    expect(losses.iter().any(|found| undone(&found)), "no power loss undoes the move alone")?;
    for found in losses.iter().filter(undone) {
        found.rename("p/d", "elsewhere");
        let opened = options().open_on(found.process());
        expect(matches!(opened, Err(Error::NotApplied { .. })), "what was not moved passed for in place")?;
        found.rename("elsewhere", "p/d");
        drop(open(found));
        expect(content(found, "p/d/x") == "x1" && !marked(found), "the commit is not finished")?;
    }
    living.update(|tx| tx.write("p/d/x", "x2")).unwrap();
    drop(living);
    expect(!marked(disk), "a store that was closed has left a mark")
}

/// Recognising directories costs no wait: one that a commit has made is known to the next.
#[test]
fn a_directory_is_recorded_and_synced_once() {
    let disk = sim();
    disk.make_directory("old", 0);
    let store = Store::options().open_on(disk.process()).unwrap();
    let save = |content: &str| {
        let before = disk.steps();
        let both = |tx: &mut cosave::Transaction| {
            tx.write("old/a", content)?;
            tx.write("new/dir/b", content)
        };
        store.update(both).unwrap();
        disk.steps() - before
    };
    let (first, _, usual) = (save("1"), save("2"), save("3"));
    assert!(usual < first);
    assert_eq!(save("4"), usual, "a directory that is known costs something");
    disk.rename("new/dir", "e");
    disk.make_directory("new/dir", 0);
    disk.put("new/dir/b", b"the stranger's", 0o644);
    assert!(save("5") > usual, "another directory was taken for the one that is known");
    assert_eq!(save("6"), usual);
}

const CASES: &[Case] = &[
    (Rule::SweepKnownOnly, what_another_root_stages_is_not_swept),
    (Rule::LeaveToParent, a_child_changes_nothing),
    (Rule::LookAgain, nothing_is_staged_where_a_directory_was_moved_to),
    (Rule::RemoveWhereMade, a_renamed_directory_keeps_no_staged_file),
    (Rule::RenewSession, a_removed_control_directory_is_made_anew),
    (Rule::CountOn, generations_go_on_in_a_new_control_directory),
    (Rule::OneRoot, a_control_directory_serves_one_root),
    (Rule::DistrustOldMarks, a_mark_that_files_are_in_place_counts_until_the_machine_restarts),
    (Rule::SyncRemovedDirectories, a_file_that_went_with_its_directory_stays_removed),
    (Rule::SyncRemovedDirectories, a_directory_that_was_removed_does_not_come_back_older),
    (Rule::WaitForRootReaders, a_reader_without_a_control_directory_is_waited_for),
];

#[test]
fn every_rule_about_others_holds_and_is_missed_when_it_is_broken() {
    for (rule, case) in CASES {
        assert_eq!(case(&sim()), Ok(()), "{rule:?} is kept");
        let broken = std::panic::catch_unwind(|| without(Some(*rule), || case(&sim())));
        assert!(!matches!(broken, Ok(Ok(()))), "{rule:?} was broken, and nobody noticed");
    }
}

/// A removed directory that is made anew is looked up at once, also in the middle of a transaction.
#[test]
fn a_directory_that_is_removed_and_made_anew_can_be_written() {
    for model in [Model::WeakPosix, Model::OrderedPrefix] {
        let disk = SimDisk::new(model);
        let store = acquainted(&disk);
        let mut tx = store.begin().unwrap();
        tx.write("a", "1").unwrap();
        disk.remove_all("d");
        disk.make_directory("d", 0);
        tx.write("d/x", "2").unwrap();
        tx.commit().unwrap();
        assert_eq!(content(&disk, "d/x"), "2");
        assert!(staged_names(&disk).is_empty());
    }
}

/// What a killed process had staged was nobody's to find once its records were removed.
#[test]
fn a_deep_sweep_finds_what_a_removed_control_directory_knew() {
    let disk = sim();
    let store = acquainted(&disk);
    let victim = disk.process();
    let other = options().open_on(victim.clone()).unwrap();
    let mut tx = other.begin().unwrap();
    tx.write("d/x", "never").unwrap();
    disk.crash_process_at(&*victim, 0);
    drop((tx, other));
    disk.remove_all(".cosave");
    assert!(store.sweep().unwrap().swept.is_empty());
    let forgotten = staged_names(&disk);
    assert_eq!(forgotten.len(), 1);
    let swept = store.deep_sweep().unwrap().swept;
    assert_eq!(swept.iter().map(ToString::to_string).collect::<Vec<_>>(), forgotten);
    for found in disk.power_losses(1000, 1) {
        assert!(staged_names(&found).is_empty(), "a removal that was reported came back");
    }
}

/// The session of the store itself lives, even if nothing on the disk says so any more.
#[test]
fn a_deep_sweep_keeps_what_its_own_store_has_staged() {
    let disk = sim();
    let store = acquainted(&disk);
    let mut tx = store.begin().unwrap();
    tx.write("d/x", "mine").unwrap();
    let staged = staged_names(&disk);
    assert_eq!(staged.len(), 1);
    disk.remove_all(".cosave");
    assert!(store.deep_sweep().unwrap().swept.is_empty());
    assert_eq!(staged_names(&disk), staged);
    drop(tx);
    assert!(staged_names(&disk).is_empty());
}

/// What was read is gone, and its directory is a file now. That is a conflict, not an error of the
/// system.
#[test]
fn a_read_file_whose_directory_became_a_file_is_a_conflict() {
    let disk = sim();
    let store = acquainted(&disk);
    let mut tx = store.begin().unwrap();
    tx.write("a", "from d/x").unwrap();
    assert_eq!(tx.read("d/x").unwrap(), b"1");
    disk.remove_all("d");
    disk.put("d", b"a file", 0o644);
    let error = tx.commit().unwrap_err();
    assert!(error.is_conflict(), "{error:?}");
    assert_eq!(content(&disk, "a"), "a0");
}
