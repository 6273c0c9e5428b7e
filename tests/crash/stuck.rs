//! Names that others use while a commit with whole directories is not finished. It is finished or given up all
//! the same, nothing of anybody is lost, and nothing stays under a hidden name.

use cosave::fs::sim::{Aftermath, Crash, Fault, Model, SimDisk};
use cosave::{Abandoned, RelativePath, Result, Store, Transaction};

use crate::rules::{at_every_step, content, expect};

const EIO: i32 = 5;
const OUTCOMES_MAX: usize = 16;
const LOG: &str = "the stranger's";

type Change = fn(&mut Transaction) -> Result<()>;
type Act<'a> = dyn Fn(&SimDisk, &str) + 'a;
type Tested<T = ()> = std::result::Result<T, String>;

fn prepared() -> SimDisk {
    let disk = SimDisk::new(Model::WeakPosix);
    for directory in ["d", "n", "p/n"] {
        disk.make_directory(directory, 0);
    }
    for (path, content) in
        [("d/f", "of d"), ("n/f", "of n"), ("p/n/f", "of p"), ("x", "of x"), ("other", "0")]
    {
        disk.put(path, content.as_bytes(), 0o644);
    }
    disk.settle();
    disk
}

fn become_file(tx: &mut Transaction) -> Result<()> {
    tx.remove_dir_all("d")?;
    tx.write("d", "a file")
}

fn become_directory(tx: &mut Transaction) -> Result<()> {
    tx.remove("x")?;
    tx.write("x/f", "new")
}

fn replace(tx: &mut Transaction) -> Result<()> {
    tx.replace_dir("n", "d")
}

fn commit(disk: &SimDisk, change: Change) -> bool {
    let store = Store::options().inline_max(0).open_on(disk.process());
    store.and_then(|store| store.update(change)).is_ok()
}

fn is_pending(disk: &SimDisk) -> bool {
    disk.control_names().iter().any(|name| name.contains(".pending"))
}

fn has(disk: &SimDisk, path: &str) -> bool {
    disk.files().contains_key(path) || disk.directories().iter().any(|directory| directory == path)
}

/// Makes a directory with a file in it, durably.
fn make(disk: &SimDisk, directory: &str) {
    disk.make_directory(directory, 0);
    let file = format!("{directory}/log");
    disk.put(&file, LOG.as_bytes(), 0o644);
    for path in [directory, &file] {
        disk.sync_name(path);
    }
    disk.sync_file(&file);
}

fn remove_durably(disk: &SimDisk, path: &str) {
    disk.remove_all(path);
    disk.sync_name(path);
}

fn fault(after: u64) -> Fault {
    Fault { after, error: EIO, persistent: false, aftermath: Aftermath::CacheShowsNew }
}

fn hidden(disk: &SimDisk) -> Vec<String> {
    let mut found = disk.directories();
    found.extend(disk.files().into_keys());
    found.retain(|path| path.contains(".cosave"));
    found
}

/// Finishes what is pending, or gives it up. Then nothing may be hidden any more.
fn get_out(disk: &SimDisk) -> Tested<Option<Abandoned>> {
    let store = Store::options().recover(false).open_on(disk.process()).map_err(|error| error.to_string())?;
    let given_up = match store.recover() {
        Ok(_) => None,
        Err(_) => Some(store.abandon(1).map_err(|error| format!("abandon: {error}"))?),
    };
    drop(store);
    drop(Store::options().open_on(disk.process()).map_err(|error| format!("afterwards: {error}"))?);
    match &hidden(disk)[..] {
        [] => Ok(given_up),
        left => Err(format!("{left:?} is left")),
    }
}

/// The same with a death at every step of the way out, or a power loss there.
fn get_out_at_every_step(disk: &SimDisk, check: impl Fn(&SimDisk) -> Tested) -> Tested {
    at_every_step(disk, |machine, after| {
        machine.crash_at(Crash { after, reversed: false });
        let ended = get_out(machine);
        let is_over = !machine.has_crashed();
        if is_over {
            ended?;
        }
        for found in machine.power_losses(OUTCOMES_MAX, after).into_iter().chain([machine.kill()]) {
            get_out(&found)?;
            check(&found)?;
        }
        Ok(is_over)
    })
}

fn kept_somewhere(disk: &SimDisk, contents: &[&str]) -> Tested {
    let files = disk.files();
    for content in contents {
        let is_kept = files.values().any(|bytes| bytes == content.as_bytes());
        expect(is_kept, &format!("{content:?} is lost: {:?}", files.keys()))?;
    }
    Ok(())
}

/// Makes a directory in the place of what is hidden just then.
fn fill(disk: &SimDisk, path: &str) -> bool {
    let is_free = !has(disk, path);
    if is_free {
        make(disk, path);
    }
    is_free
}

/// What a commit changes, what others do in the midst of it if they can, and what is to be kept.
type Gap = (Change, fn(&SimDisk) -> bool, &'static [&'static str]);

const GAPS: [Gap; 4] = [
    (become_file, |disk| fill(disk, "d"), &["of d", LOG]),
    (become_directory, |disk| fill(disk, "x"), &["of x", LOG]),
    (replace, |disk| fill(disk, "d"), &["of d", "of n", LOG]),
    // The new tree waits, and can go neither on nor back.
    (
        replace,
        |disk| {
            let is_waiting = content(disk, "d/f") == "of d" && fill(disk, "n");
            if is_waiting {
                remove_durably(disk, "d");
                make(disk, "d");
            }
            is_waiting
        },
        &["of n", LOG],
    ),
];

/// Between two renames another program found a place empty, and has made a directory there. Neither the recovery
/// nor `abandon` came to an end.
#[test]
fn a_commit_is_given_up_where_others_have_the_place_of_what_is_hidden() {
    for (number, (change, act, kept)) in GAPS.into_iter().enumerate() {
        let disk = prepared();
        // Then nothing can be exchanged.
        disk.without_links();
        let mut tried = 0;
        let tested = at_every_step(&disk, |machine, after| {
            machine.crash_at(Crash { after, reversed: false });
            let is_over = commit(machine, change);
            let killed = machine.kill();
            if is_pending(&killed) && act(&killed) {
                tried += 1;
                let given_up =
                    get_out(&killed.copy())?.ok_or("it was finished over a directory of others")?;
                expect(given_up.set_aside.len() == 1, &format!("what was set aside? {given_up:?}"))?;
                get_out_at_every_step(&killed, |found| kept_somewhere(found, kept))?;
            }
            Ok(is_over)
        });
        assert_eq!(tested, Ok(()), "case {number}");
        assert!(tried > 0, "case {number}: no death between the two renames");
    }
}

/// What others do with a name that a commit has freed, and what is there in the end.
type Reuse = (Change, fn(&SimDisk), fn(&SimDisk) -> bool);

fn remove(tx: &mut Transaction) -> Result<()> {
    tx.remove_dir_all("d")?;
    tx.write("other", "1")
}

fn rename(tx: &mut Transaction) -> Result<()> {
    tx.rename("p/n", "m")?;
    tx.write("other", "1")
}

fn replace_and_write(tx: &mut Transaction) -> Result<()> {
    replace(tx)?;
    tx.write("other", "1")
}

const REUSES: [Reuse; 5] = [
    (remove, |disk| make(disk, "d"), |disk| content(disk, "d/log") == LOG && !has(disk, "d/f")),
    (
        rename,
        |disk| make(disk, "p/n"),
        |disk| content(disk, "p/n/log") == LOG && content(disk, "m/f") == "of p",
    ),
    (rename, |disk| remove_durably(disk, "p"), |disk| !has(disk, "p") && content(disk, "m/f") == "of p"),
    (
        replace_and_write,
        |disk| make(disk, "n"),
        |disk| content(disk, "n/log") == LOG && content(disk, "d/f") == "of n" && !has(disk, "d/log"),
    ),
    (replace_and_write, |disk| remove_durably(disk, "d"), |disk| content(disk, "d/f") != "of d"),
];

/// Every disk on which a call of this commit has failed after its moves, so that its bytes may be lost.
fn after_a_failed_sync(change: Change) -> Vec<SimDisk> {
    let mut failed = Vec::new();
    for call in 0.. {
        let disk = prepared();
        disk.fail_at(&[fault(call)]);
        commit(&disk, change);
        if disk.calls() <= call {
            break;
        }
        let is_moved = content(&disk, "other") == "1" && is_pending(&disk);
        if is_moved && disk.control_names().iter().any(|name| name.ends_with("sync-failed")) {
            failed.push(disk.kill());
        }
    }
    assert!(!failed.is_empty(), "no failed sync after the moves");
    failed
}

/// The last sync of a commit failed. Every recovery moved the trees back and again, and found the name taken.
#[test]
fn after_a_failed_sync_a_name_that_others_use_again_stops_nothing() {
    for (number, (change, reuse, is_done)) in REUSES.into_iter().enumerate() {
        for disk in after_a_failed_sync(change) {
            reuse(&disk);
            let check = |found: &SimDisk| {
                expect(get_out(found)?.is_none(), "it cannot be finished")?;
                let is_done = is_done(found) && content(found, "other") == "1";
                expect(is_done, &format!("it is not done: {:?}", found.files().keys()))
            };
            let ended = at_every_step(&disk, |machine, after| {
                machine.crash_at(Crash { after, reversed: false });
                let is_over = get_out(machine).is_ok();
                check(&machine.kill())?;
                for found in machine.power_losses(OUTCOMES_MAX, 1).iter().filter(|_| is_over) {
                    check(found).map_err(|problem| format!("after a power loss: {problem}"))?;
                }
                Ok(is_over)
            });
            assert_eq!(ended, Ok(()), "case {number}");
        }
    }
}

/// Each try to write anew what a failed sync may have lost left a copy of every file.
#[test]
fn a_recovery_that_fails_leaves_no_copies() {
    let mut tried = 0;
    for failed in after_a_failed_sync(remove) {
        for call in 0.. {
            let machine = failed.copy();
            let tries = || {
                let store = Store::options().recover(false).open_on(machine.process()).unwrap();
                machine.fail_at(&[fault(machine.calls() + call)]);
                let is_over = store.recover().is_ok();
                machine.fail_at(&[]);
                let copies = machine.files().into_keys().filter(|path| path.starts_with(".other."));
                (is_over, copies.count())
            };
            let ((_, first), (is_over, second)) = (tries(), tries());
            assert!(first <= 1 && second <= first, "an error at call {call}: {first}, then {second} copies");
            if is_over {
                break;
            }
            tried += 1;
        }
    }
    assert!(tried > 10, "only {tried} errors");
}

/// Killed after the exchange. Then somebody removed what was put in place, or gave the commit up.
#[test]
fn what_was_replaced_goes_although_what_replaced_it_is_gone() {
    let cases: [(Change, &str, &str); 2] = [(replace, "d", "of n"), (become_directory, "x", "new")];
    let give_up = |disk: &SimDisk| {
        let store = Store::options().recover(false).open_on(disk.process()).unwrap();
        store.abandon(1).unwrap()
    };
    let acts: [&Act<'_>; 4] = [
        &remove_durably,
        &|disk, path| disk.move_away(path, "elsewhere"),
        &|disk, path| assert_eq!(give_up(disk).in_place, [RelativePath::new(path).unwrap()]),
        &|disk, path| {
            remove_durably(disk, path);
            assert_eq!(give_up(disk).left, [RelativePath::new(path).unwrap()]);
            kept_somewhere(disk, &[if path == "d" { "of d" } else { "of x" }]).unwrap();
        },
    ];
    for (case, (change, path, new)) in cases.into_iter().enumerate() {
        for (number, act) in acts.into_iter().enumerate() {
            let mut tried = 0;
            let tested = at_every_step(&prepared(), |machine, after| {
                machine.crash_at(Crash { after, reversed: false });
                let is_over = commit(machine, change);
                let killed = machine.kill();
                if is_pending(&killed) && content(&killed, &format!("{path}/f")) == new {
                    tried += 1;
                    act(&killed, path);
                    get_out_at_every_step(&killed, |_| Ok(()))?;
                }
                Ok(is_over)
            });
            assert_eq!(tested, Ok(()), "case {case}, act {number}");
            assert!(tried > 1, "case {case}, act {number}: no death after the exchange");
        }
    }
}
