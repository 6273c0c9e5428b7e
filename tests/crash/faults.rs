//! An error at every call. What `commit` says must be true of the disk, no
//! acknowledged commit may be lost, and the next opening must repair
//! everything.

use std::collections::BTreeMap;

use cosave::fs::sim::{Aftermath, Fault, Model, Rule, SimDisk, without};
use cosave::{Durability, Outcome, Store};

use crate::property;

const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;

type Tree = BTreeMap<String, Vec<u8>>;

/// What happened to one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Gone,
    Either,
}

/// The transactions: for each path its next content, or none.
const TRANSACTIONS: [&[(&str, Option<&str>)]; 3] = [
    &[("a", Some("a1")), ("d/b", Some("b1")), ("gone", None)],
    &[("new/dir/c", Some("c2")), ("a", Some("a2"))],
    &[("d/b", Some("b3")), ("new/dir/c", None)],
];

fn prepared(model: Model) -> SimDisk {
    let disk = SimDisk::new(model);
    disk.make_directory("d", 0);
    for (path, content) in [("a", "a0"), ("d/b", "b0"), ("gone", "g0"), ("foreign", "f")] {
        disk.put(path, content.as_bytes(), 0o644);
    }
    disk.settle();
    disk
}

/// Runs all transactions, even after errors, and returns what each commit said.
fn run(disk: &SimDisk, durability: Durability) -> Vec<Fate> {
    let mut fates = vec![Fate::Gone; TRANSACTIONS.len()];
    let Ok(store) = Store::options().durability(durability).open_on(disk.process()) else { return fates };
    for (fate, changes) in fates.iter_mut().zip(TRANSACTIONS) {
        let committed = store.begin().and_then(|mut tx| {
            for (path, content) in changes {
                match content {
                    Some(content) => tx.write(path, content)?,
                    None => drop(tx.remove_if_exists(path)?),
                }
            }
            tx.commit()
        });
        *fate = match committed.map_err(|error| error.outcome()) {
            Ok(_) | Err(Outcome::Committed) => Fate::Kept,
            Err(Outcome::NothingHappened) => Fate::Gone,
            Err(Outcome::Unknown) => Fate::Either,
        };
    }
    fates
}

/// Every tree that these outcomes allow.
fn allowed(fates: &[Fate]) -> Vec<Tree> {
    let mut trees = vec![prepared(Model::OrderedPrefix).files()];
    for (fate, changes) in fates.iter().zip(TRANSACTIONS) {
        let with = trees.iter().cloned().map(|mut tree| {
            for (path, content) in changes {
                match content {
                    Some(content) => drop(tree.insert((*path).to_owned(), content.as_bytes().to_vec())),
                    None => drop(tree.remove(*path)),
                }
            }
            tree
        });
        trees = match fate {
            Fate::Kept => with.collect(),
            Fate::Gone => trees,
            Fate::Either => with.chain(trees.clone()).collect(),
        };
    }
    trees
}

/// Whether a staged file may be left. A failed sync can drop the removal of a staged name that is no
/// longer visible. If a sweep follows in the same boot and then a power loss, the name comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Litter {
    None,
    MayReappear,
}

/// Opens the root once more, without faults, and checks it.
fn check(disk: &SimDisk, fates: &[Fate], litter: Litter) -> Result<(), String> {
    let store = Store::options().open_on(disk.process()).map_err(|error| format!("reopening: {error}"))?;
    drop(store);
    let mut found = disk.files();
    if litter == Litter::MayReappear {
        found.retain(|path, _| !path.ends_with(".cosave"));
    }
    if !allowed(fates).contains(&found) {
        return Err(format!("{fates:?}, and yet the files are {found:?}"));
    }
    match disk.control_names().into_iter().find(|name| name.contains("sessions/") || name.ends_with(".tmp")) {
        Some(name) => Err(format!("{name} is left")),
        None => Ok(()),
    }
}

/// Runs with faults. Then the machine runs on, or loses power, at once or after the next opening.
fn explore(
    model: Model,
    durability: Durability,
    faults: &[Fault],
    outcomes_max: usize,
) -> Result<bool, String> {
    let disk = prepared(model);
    disk.fail_at(faults);
    let fates = run(&disk, durability);
    let reached = disk.calls() > faults[0].after;
    if let Some(path) = disk.retried_syncs().first() {
        return Err(format!("a failed sync of {path} was tried again"));
    }
    let same_boot = disk.kill();
    check(&same_boot, &fates, Litter::None)?;
    for after in disk.power_losses(outcomes_max, 1) {
        check(&after, &fates, Litter::None).map_err(|problem| format!("after a power loss: {problem}"))?;
    }
    // If the disk refuses every write, even the marker of a failed sync, nothing can know of the
    // failure once the process is gone.
    if faults.iter().any(|fault| fault.persistent) {
        return Ok(reached);
    }
    for after in same_boot.power_losses(outcomes_max, 1) {
        check(&after, &fates, Litter::MayReappear)
            .map_err(|problem| format!("after reopening and a power loss: {problem}"))?;
    }
    Ok(reached)
}

/// How many outcomes of each power loss are looked at.
const MANY: usize = 24;
const FEW: usize = 4;

fn fault(after: u64, error: i32, persistent: bool, aftermath: Aftermath) -> Fault {
    Fault { after, error, persistent, aftermath }
}

fn at_every_call(model: Model, outcomes_max: usize, make: impl Fn(u64) -> Vec<Fault>) {
    for durability in [Durability::Full, Durability::Committed] {
        let mut tried = 0;
        for after in 0.. {
            let faults = make(after);
            match explore(model, durability, &faults, outcomes_max) {
                Ok(true) => tried += 1,
                Ok(false) => break,
                Err(problem) => panic!(
                    "{problem}\nrepeat it: explore(Model::{model:?}, Durability::{durability:?}, &{faults:?}, {outcomes_max})"
                ),
            }
        }
        println!("{model:?} {durability:?}: an error at each of {tried} calls");
        assert!(tried > 100, "only {tried} calls");
    }
}

#[test]
fn one_error_at_any_call_is_told_truthfully_and_mended() {
    for (error, outcomes_max) in
        [(EIO, MANY), (ENOSPC, MANY), (EACCES, FEW), (EMFILE, FEW), (EROFS, FEW), (EDQUOT, FEW)]
    {
        at_every_call(Model::WeakPosix, outcomes_max, |after| {
            vec![fault(after, error, false, Aftermath::CacheShowsNew)]
        });
    }
    for model in [Model::OrderedPrefix, Model::JumpingPrefix] {
        at_every_call(model, MANY, |after| vec![fault(after, EIO, false, Aftermath::CacheShowsNew)]);
    }
}

#[test]
fn a_failed_sync_whose_bytes_the_cache_forgets_is_told_truthfully_and_mended() {
    for model in [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix] {
        at_every_call(model, MANY, |after| vec![fault(after, EIO, false, Aftermath::CacheShowsOld)]);
    }
}

/// A disk that reports a failed sync only at the next sync deceives the commit. Then the files must be
/// whole, or the damage must be reported; no more can be asked.
#[test]
fn a_failed_sync_that_is_reported_too_late_leaves_nothing_silently_mixed() {
    let whole = |disk: &SimDisk| {
        let fates = [Fate::Either; TRANSACTIONS.len()];
        let mut found = disk.files();
        found.retain(|path, _| !path.ends_with(".cosave"));
        allowed(&fates).contains(&found)
    };
    let mut deceived = 0;
    for after in 0.. {
        let disk = prepared(Model::WeakPosix);
        disk.fail_at(&[fault(after, EIO, false, Aftermath::ReportedLater)]);
        run(&disk, Durability::Full);
        if disk.calls() <= after {
            break;
        }
        for found in disk.power_losses(24, 1) {
            let reported = match Store::options().open_on(found.process()) {
                Err(_) => true,
                Ok(store) => {
                    let differences = !store.last_recovery().differences.is_empty();
                    differences || !store.verify().is_ok_and(|mismatches| mismatches.is_empty())
                }
            };
            deceived += u64::from(reported);
            assert!(reported || whole(&found), "call {after}: {:?}", found.files());
            assert_eq!(found.files()["foreign"], b"f", "call {after}");
        }
    }
    assert!(deceived > 0, "no disk deceived a commit");
}

/// If what failed to sync is not written anew, a power loss undoes an acknowledged commit.
#[test]
fn a_failed_sync_that_is_only_repeated_is_missed() {
    let missed = (0..1000).find_map(|after| {
        let faults = [fault(after, EIO, false, Aftermath::CacheShowsNew)];
        without(Some(Rule::WriteAnew), || explore(Model::WeakPosix, Durability::Full, &faults, MANY)).err()
    });
    assert!(missed.is_some(), "nobody noticed");
}

/// A flush failed because too many files were open. The next one had nothing left to wait for, and said
/// that everything was in place.
fn a_flush_that_could_not_begin_is_repeated() -> Result<(), String> {
    let prepared = prepared(Model::WeakPosix);
    let store = Store::options().durability(Durability::Committed).open_on(prepared.process()).unwrap();
    store.update(|tx| tx.write("d/b", "first")).unwrap();
    store.flush().unwrap();
    let mut refused = 0;
    for distance in 0.. {
        let content = format!("content {distance}");
        store.update(|tx| tx.write("d/b", &content)).map_err(|error| error.to_string())?;
        let after = prepared.calls() + distance;
        prepared.fail_at(&[fault(after, EMFILE, false, Aftermath::CacheShowsNew)]);
        if store.flush().is_ok() {
            break;
        }
        refused += 1;
        prepared.fail_at(&[]);
        if store.flush().is_ok() {
            for found in prepared.power_losses(64, 1) {
                if found.files()["d/b"] != content.as_bytes() {
                    return Err(format!("call {after}: what was flushed is lost"));
                }
            }
        }
    }
    assert!(refused > 0, "no flush was refused");
    Ok(())
}

#[test]
fn a_flush_that_could_not_begin_is_not_forgotten() {
    property::holds_by(Rule::LeaveUnpaid, a_flush_that_could_not_begin_is_repeated);
}

#[test]
fn a_disk_that_fails_from_some_call_on_loses_nothing_acknowledged() {
    for model in [Model::OrderedPrefix, Model::WeakPosix] {
        at_every_call(model, MANY, |after| vec![fault(after, EIO, true, Aftermath::CacheShowsNew)]);
    }
}

#[test]
fn a_second_error_does_not_undo_what_the_first_was_told() {
    for distance in [1, 2, 4, 9, 30] {
        at_every_call(Model::WeakPosix, FEW, |after| {
            let first = fault(after, EIO, false, Aftermath::CacheShowsNew);
            vec![first, fault(after + distance, ENOSPC, false, Aftermath::CacheShowsNew)]
        });
    }
}

/// Commits with an error at one call. If nothing was changed, tries again without one. Returns how often
/// the second try was needed.
fn tried_again(model: Model, error: i32, inline_max: usize) -> Result<u32, String> {
    let mut again = 0;
    for after in 0.. {
        let disk = prepared(model);
        let store = Store::options().inline_max(inline_max).open_on(disk.process()).unwrap();
        let mut tx = store.begin().unwrap();
        for (path, content) in TRANSACTIONS[0] {
            match content {
                Some(content) => tx.write(path, content).unwrap(),
                None => tx.remove(path).unwrap(),
            }
        }
        let first = disk.calls() + after;
        disk.fail_at(&[fault(first, error, false, Aftermath::CacheShowsNew)]);
        let told = tx.try_commit().map_err(|error| error.outcome());
        let reached = disk.calls() > first;
        disk.fail_at(&[]);
        let told = match told {
            // After a failed wait the transaction is over, and says so.
            Err(Outcome::NothingHappened) => {
                let second = tx.try_commit();
                again += u32::from(second.is_ok());
                second.map_err(|error| error.outcome())
            }
            told => told,
        };
        drop((tx, store));
        let mut fates = [Fate::Gone; TRANSACTIONS.len()];
        fates[0] = match told {
            Ok(_) | Err(Outcome::Committed) => Fate::Kept,
            Err(Outcome::NothingHappened) => Fate::Gone,
            Err(Outcome::Unknown) => Fate::Either,
        };
        let found = |problem| format!("call {after}: {problem}");
        check(&disk.kill(), &fates, Litter::None).map_err(found)?;
        for lost in disk.power_losses(24, 1) {
            let found = |problem| format!("call {after}, power loss: {problem}");
            check(&lost, &fates, Litter::None).map_err(found)?;
        }
        if !reached {
            break;
        }
    }
    Ok(again)
}

/// A refused commit keeps what its waits still owe, or a second try would promise what nobody synced.
#[test]
fn a_commit_that_is_tried_again_after_an_error_is_whole_and_durable() {
    for (error, inline_max) in [(ENOSPC, 0), (ENOSPC, 1 << 20), (EMFILE, 0), (EMFILE, 1 << 20)] {
        for model in [Model::WeakPosix, Model::OrderedPrefix] {
            match tried_again(model, error, inline_max) {
                Ok(again) => assert!(again > 5, "only {again} commits were tried again"),
                Err(problem) => panic!("{problem} (error {error}, {model:?}, inline_max {inline_max})"),
            }
        }
    }
}

/// Whoever met a failed sync had to keep the options and the path, to open the root again.
#[test]
fn a_poisoned_store_is_opened_again_and_goes_on() {
    let mut poisoned = 0;
    for after in 0.. {
        let disk = prepared(Model::WeakPosix);
        let store = Store::options().open_on(disk.process()).unwrap();
        let first = disk.calls() + after;
        disk.fail_at(&[fault(first, EIO, false, Aftermath::CacheShowsNew)]);
        let told = store.update(|tx| tx.write("a", "a1"));
        let reached = disk.calls() > first;
        disk.fail_at(&[]);
        if store.is_poisoned() {
            poisoned += 1;
            assert!(told.is_err(), "call {after}");
            assert!(store.clone().close().is_err() && store.begin().is_err(), "call {after}");
            let store = store.reopen().unwrap();
            assert!(!store.is_poisoned(), "call {after}");
            store.update(|tx| tx.write("d/b", "b1")).unwrap();
            for lost in disk.power_losses(24, 1) {
                drop(Store::options().open_on(lost.process()).unwrap());
                assert_eq!(lost.files()["d/b"], b"b1", "call {after}");
            }
        }
        if !reached {
            break;
        }
    }
    assert!(poisoned > 2, "only {poisoned} syncs failed");
}

/// A drop cannot say that the last waits have failed.
#[test]
fn closing_says_whether_the_last_waits_have_succeeded() {
    let (mut closed, mut refused) = (0, 0);
    for after in 0.. {
        let disk = prepared(Model::WeakPosix);
        let store = Store::options().durability(Durability::Committed).open_on(disk.process()).unwrap();
        store.update(|tx| tx.write("a", "a1")).unwrap();
        let first = disk.calls() + after;
        disk.fail_at(&[fault(first, EIO, false, Aftermath::CacheShowsOld)]);
        let told = store.close();
        let reached = disk.calls() > first;
        disk.fail_at(&[]);
        if told.is_ok() {
            closed += 1;
            for lost in disk.power_losses(24, 1) {
                assert_eq!(lost.files()["a"], b"a1", "call {after}: not in place, though it was said to be");
            }
        } else {
            refused += 1;
        }
        if !reached {
            break;
        }
    }
    assert!(closed > 0 && refused > 0, "{closed} closed, {refused} refused");
}

#[test]
fn a_full_disk_refuses_and_keeps_the_old_state() {
    let full = prepared(Model::WeakPosix);
    for free in 0..4096 {
        let disk = full.copy();
        disk.free_bytes(Some(free));
        let fates = run(&disk, Durability::Full);
        disk.free_bytes(None);
        if let Err(problem) = check(&disk.kill(), &fates, Litter::None) {
            panic!("{free} bytes free: {problem}");
        }
    }
}

/// The directories before and after a commit that makes some and removes others.
const BEFORE: [&str; 2] = ["d", "d/empty"];
const AFTER: [&str; 2] = ["made", "made/deep"];

fn change_directories(disk: &SimDisk, durability: Durability) -> Fate {
    let committed = Store::options().durability(durability).open_on(disk.process()).and_then(|store| {
        let mut tx = store.begin()?;
        tx.create_dir_all("made/deep")?;
        tx.remove("d/b")?;
        tx.remove_dir("d/empty")?;
        tx.remove_dir("d")?;
        tx.commit()
    });
    match committed.map_err(|error| error.outcome()) {
        Ok(_) | Err(Outcome::Committed) => Fate::Kept,
        Err(Outcome::NothingHappened) => Fate::Gone,
        Err(Outcome::Unknown) => Fate::Either,
    }
}

fn check_directories(disk: &SimDisk, fate: Fate) -> Result<(), String> {
    let store = Store::options().open_on(disk.process()).map_err(|error| format!("reopening: {error}"))?;
    let differences = store.last_recovery().differences;
    let (found, has_file) = (disk.directories(), disk.files().contains_key("d/b"));
    let is_whole = match fate {
        Fate::Kept => found == AFTER,
        Fate::Gone => found == BEFORE && has_file,
        Fate::Either => found == AFTER || found == BEFORE && has_file,
    };
    if is_whole && differences.is_empty() {
        return Ok(());
    }
    Err(format!("{fate:?}, and yet there are {found:?}, with a file: {has_file}, {differences:?}"))
}

#[test]
fn an_error_at_any_call_of_a_commit_of_directories_is_told_truthfully_and_mended() {
    for model in [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix] {
        for durability in [Durability::Full, Durability::Committed] {
            for after in 0.. {
                let disk = SimDisk::new(model);
                BEFORE.iter().for_each(|directory| disk.make_directory(directory, 0));
                disk.put("d/b", b"b0", 0o644);
                disk.settle();
                disk.fail_at(&[fault(after, EIO, false, Aftermath::CacheShowsNew)]);
                let fate = change_directories(&disk, durability);
                let check = |what: &str, disk: &SimDisk| {
                    let checked = check_directories(disk, fate);
                    checked.unwrap_or_else(|problem| {
                        panic!("{model:?}, {durability:?}, call {after}, {what}: {problem}")
                    });
                };
                assert!(disk.retried_syncs().is_empty(), "call {after}: {:?}", disk.retried_syncs());
                let same_boot = disk.kill();
                check("reopened", &same_boot);
                disk.power_losses(MANY, 1).iter().for_each(|after| check("after a power loss", after));
                let later = same_boot.power_losses(MANY, 1);
                later.iter().for_each(|after| check("reopened, and after a power loss", after));
                if disk.calls() <= after {
                    assert!(after > 50, "only {after} calls");
                    break;
                }
            }
        }
    }
}
