//! A commit in a root with a mount below it, recovered while that is not mounted.

use std::cell::Cell;
use std::collections::BTreeSet;

use cosave::fs::sim::{Crash, Rule, SimDisk, without};
use cosave::{Durability, Error, Outcome, Store, Transaction};

use crate::rules::{content, expect, sim};

/// Unmounts a directory of the disk, and shows what lies below it: nothing, or a file of the same name.
fn unmount(disk: &SimDisk, is_empty: bool) {
    disk.rename("mnt", "elsewhere");
    disk.make_directory("mnt", 0);
    if !is_empty {
        disk.put("mnt/b", b"below", 0o644);
    }
    disk.settle();
}

fn mount_again(disk: &SimDisk) {
    disk.remove_all("mnt");
    disk.rename("elsewhere", "mnt");
    disk.settle();
}

fn with_a_mount(disk: &SimDisk) {
    disk.make_directory("mnt", 1);
    disk.put("mnt/b", b"b0", 0o644);
    disk.put("mnt/old", b"o0", 0o644);
    disk.settle();
}

/// What recovery found missing was on a file system that was not mounted. It retired the commit, and the rest
/// of it was there.
pub(crate) fn a_commit_waits_for_the_file_system_that_its_files_are_on(disk: &SimDisk) -> Result<(), String> {
    with_a_mount(disk);
    let (mut refused, mut finished) = (0, 0);
    for (inline_max, is_empty) in [(0, true), (0, false), (1024, true), (1024, false)] {
        for after in 0.. {
            let machine = disk.copy();
            machine.crash_at(Crash { after, reversed: false });
            let options = Store::options().inline_max(inline_max);
            let committed = options.clone().open_on(machine.process()).and_then(|store| {
                store.update(|tx| {
                    tx.write("a", "a1")?;
                    tx.write("mnt/b", "b1")?;
                    tx.remove("mnt/old")?;
                    tx.write("mnt/new", "n1")
                })
            });
            for left in machine.power_losses(16, after).into_iter().chain([machine.kill()]) {
                unmount(&left, is_empty);
                if let Err(error) = options.clone().open_on(left.process()) {
                    refused += 1;
                    expect(error.outcome() == Outcome::Committed, &error.to_string())?;
                }
                mount_again(&left);
                let opened = options.clone().open_on(left.process()).map(drop);
                expect(opened.is_ok(), &format!("after {after}: {opened:?}"))?;
                let found = ["a", "mnt/b", "mnt/old", "mnt/new"].map(|path| content(&left, path));
                let (old, new) = (["a0", "b0", "o0", "nothing"], ["a1", "b1", "nothing", "n1"]);
                expect(found == old || found == new, &format!("torn after {after} steps: {found:?}"))?;
                finished += usize::from(found == new);
            }
            if committed.is_ok() {
                break;
            }
        }
    }
    expect(refused > 20 && finished > 20, &format!("refused {refused}, finished {finished}"))
}

/// As above, with one other change, and with something below the mount point.
fn waits_for_one(below: fn(&SimDisk), change: fn(&mut Transaction) -> cosave::Result<()>) {
    let disk = sim();
    with_a_mount(&disk);
    for path in ["mnt/d/e", "mnt/empty", "mnt/deep/empty"] {
        disk.make_directory(path, 1);
    }
    disk.put("mnt/d/e/f", b"f0", 0o644);
    disk.settle();
    let names = |disk: &SimDisk| {
        let all = disk.files().into_keys().chain(disk.links().into_keys()).chain(disk.directories());
        // What was only staged or hidden there is not there to be swept.
        let is_named = |path: &String| path.starts_with("mnt/") && !path.contains(".cosave");
        all.filter(is_named).collect::<BTreeSet<_>>()
    };
    let (old, mut lefts) = (names(&disk), Vec::new());
    let new = loop {
        let machine = disk.copy();
        machine.crash_at(Crash { after: lefts.len() as u64, reversed: false });
        let committed = Store::options().open_on(machine.process()).and_then(|store| {
            store.update(|tx| {
                tx.write("a", "a1")?;
                change(tx)
            })
        });
        if committed.is_ok() {
            break names(&machine);
        }
        lefts.push(machine.kill());
    };
    let mut refused = 0;
    for left in lefts {
        unmount(&left, true);
        below(&left);
        left.settle();
        let there = names(&left);
        refused += usize::from(Store::options().open_on(left.process()).is_err());
        assert_eq!(names(&left), there, "something was made or removed below the mount point");
        mount_again(&left);
        Store::options().open_on(left.process()).unwrap();
        let is_new = content(&left, "a") == "a1";
        assert_eq!(names(&left), *if is_new { &new } else { &old });
    }
    assert!(refused > 0, "it was never refused");
}

#[test]
fn every_kind_of_change_waits_for_the_file_system_that_it_is_on() {
    let nothing = |_: &SimDisk| {};
    waits_for_one(nothing, |tx| tx.remove("mnt/b"));
    waits_for_one(nothing, |tx| tx.symlink("mnt/link", "b"));
    waits_for_one(nothing, |tx| tx.create_dir("mnt/made"));
    waits_for_one(nothing, |tx| tx.remove_dir("mnt/empty"));
    waits_for_one(nothing, |tx| tx.remove_dir_all("mnt/d"));
    waits_for_one(nothing, |tx| tx.rename("mnt/d", "mnt/moved"));
}

/// The directories above them were missing, too. So removals counted as done.
#[test]
fn a_change_deep_below_a_mount_waits_for_it() {
    let nothing = |_: &SimDisk| {};
    waits_for_one(nothing, |tx| tx.remove("mnt/d/e/f"));
    waits_for_one(nothing, |tx| tx.remove_dir("mnt/deep/empty"));
    waits_for_one(nothing, |tx| tx.remove_dir_all("mnt/d/e"));
    waits_for_one(nothing, |tx| tx.rename("mnt/d/e", "mnt/d/x"));
    waits_for_one(nothing, |tx| tx.create_dir("mnt/d/new"));
    waits_for_one(nothing, |tx| {
        tx.remove_dir_all("mnt/d/e")?;
        tx.write("mnt/d/e", "file")
    });
    waits_for_one(|disk| disk.remove_all("mnt"), |tx| tx.remove("mnt/b"));
}

/// A service that starts too early makes the same files and directories below the mount point.
#[test]
fn what_lies_below_a_mount_point_is_not_taken_for_what_was_committed() {
    waits_for_one(|disk| disk.put("mnt/b", b"below", 0o644), |tx| tx.remove("mnt/b"));
    waits_for_one(|disk| disk.make_directory("mnt/made", 0), |tx| tx.create_dir("mnt/made"));
    waits_for_one(|disk| disk.make_directory("mnt/empty", 0), |tx| tx.remove_dir("mnt/empty"));
    waits_for_one(|disk| disk.put("mnt/flag", b"1", 0o644), |tx| tx.write("mnt/flag", "1"));
}

type Change = fn(&mut Transaction) -> cosave::Result<()>;

/// The first of two pending commits was retired without its file, because the second one names it, too.
#[test]
fn each_of_several_pending_commits_waits() {
    let chains: [[Change; 2]; 3] = [
        [
            |tx| tx.write("mnt/b", "b1"),
            |tx| {
                tx.write("a", "a2")?;
                tx.remove("mnt/b")
            },
        ],
        [
            |tx| tx.write("mnt/d/f", "f1"),
            |tx| {
                tx.write("b", "b2")?;
                tx.rename("mnt/d", "mnt/e")
            },
        ],
        [
            |tx| tx.write("mnt/b", "b1"),
            |tx| {
                tx.write("a", "a2")?;
                tx.write("mnt/b", "b2")
            },
        ],
    ];
    let disk = sim();
    with_a_mount(&disk);
    disk.make_directory("mnt/d", 1);
    disk.put("mnt/d/f", b"f0", 0o644);
    disk.settle();
    for ([first, second], inline_max) in chains.into_iter().flat_map(|chain| [(chain, 0), (chain, 1024)]) {
        let (mut after, mut refused) = (0, 0);
        loop {
            let machine = disk.copy();
            machine.crash_at(Crash { after, reversed: false });
            let options = Store::options().inline_max(inline_max).durability(Durability::Committed);
            let committed = options.clone().open_on(machine.process()).and_then(|store| {
                store.update(|tx| {
                    tx.write("a", "a1")?;
                    first(tx)
                })?;
                store.update(second)
            });
            for left in machine.power_losses(16, after).into_iter().chain([machine.kill()]) {
                let always = left.copy();
                drop(options.clone().open_on(always.process()));
                unmount(&left, true);
                refused += usize::from(options.clone().open_on(left.process()).is_err());
                mount_again(&left);
                drop(options.clone().open_on(left.process()).unwrap());
                let state = |disk: &SimDisk| {
                    let files = disk.files().into_iter();
                    files.filter(|(path, _)| !path.contains(".cosave")).collect::<Vec<_>>()
                };
                assert_eq!(state(&left), state(&always), "after {after} steps");
            }
            if committed.is_ok() {
                break;
            }
            after += 1;
        }
        assert!(refused > 20, "{refused}");
    }
}

/// Publishes a commit on a mount that is missing then. Shows it to `look` whenever recovery refuses it,
/// with a copy of the disk on which it is mounted.
fn refused(look: impl Fn(&SimDisk, &SimDisk), change: Change) {
    let disk = sim();
    with_a_mount(&disk);
    disk.make_directory("mnt/d", 1);
    disk.put("mnt/d/f", b"f0", 0o644);
    disk.settle();
    let (mut after, mut refused) = (0, 0);
    loop {
        let machine = disk.copy();
        machine.crash_at(Crash { after, reversed: false });
        let committed = Store::options().keep(3).open_on(machine.process()).and_then(|store| {
            store.update(|tx| {
                tx.write("a", "a1")?;
                change(tx)
            })
        });
        for left in machine.power_losses(16, after).into_iter().chain([machine.kill()]) {
            let mounted = left.copy();
            unmount(&left, false);
            if Store::options().keep(3).open_on(left.process()).is_err() {
                refused += 1;
                look(&left, &mounted);
            }
        }
        if committed.is_ok() {
            break;
        }
        after += 1;
    }
    assert!(refused > 2, "{refused}");
}

/// It was said to be in place, since neither its staged file nor anything else was there.
#[test]
fn what_is_given_up_while_its_file_system_is_missing_is_left() {
    let look = |left: &SimDisk, _: &SimDisk| {
        let store = Store::options().recover(false).open_on(left.process()).unwrap();
        let abandoned = store.abandon(1).unwrap();
        assert!(abandoned.in_place.iter().all(|path| path.to_string() == "a"), "{abandoned:?}");
    };
    refused(look, |tx| {
        tx.write("mnt/b", "b1")?;
        tx.remove("mnt/old")
    });
    let look = |left: &SimDisk, _: &SimDisk| {
        let store = Store::options().recover(false).open_on(left.process()).unwrap();
        store.abandon(1).unwrap_err();
        drop(store);
        mount_again(left);
        drop(Store::options().open_on(left.process()).unwrap());
        assert_eq!((content(left, "a"), content(left, "mnt/e/f")), ("a1".into(), "f0".into()));
    };
    refused(look, |tx| tx.rename("mnt/d", "mnt/e"));
}

/// Its originals were looked for below the mount point, and the list of them said that nothing was kept.
#[test]
fn a_commit_that_waited_for_its_file_system_can_be_undone() {
    let undone = Cell::new(0);
    let look = |left: &SimDisk, mounted: &SimDisk| {
        mount_again(left);
        let undo = |disk: &SimDisk| {
            let store = Store::options().keep(3).open_on(disk.process()).unwrap();
            store.undo().map(|_| (content(disk, "a"), content(disk, "mnt/b"))).ok()
        };
        let wanted = undo(mounted);
        undone.set(undone.get() + usize::from(wanted == Some(("a0".into(), "b0".into()))));
        assert_eq!(undo(left), wanted);
    };
    refused(look, |tx| tx.write("mnt/b", "b1"));
    assert!(undone.get() > 20, "{}", undone.get());
}

/// A view of a read-only store showed one file of the commit, and one that had nothing to do with it.
#[test]
fn a_view_waits_for_the_file_system_too() {
    let look = |left: &SimDisk, _: &SimDisk| {
        let store = Store::options().read_only(true).open_on(left.process()).unwrap();
        let error = store.view().map(drop).unwrap_err();
        assert!(matches!(error, Error::Blocked { .. }), "{error}");
    };
    refused(look, |tx| tx.write("mnt/b", "b1"));
}

/// A root that was copied to one disk has all files, and no mount.
#[test]
fn a_copy_of_the_root_on_one_file_system_is_recovered() {
    let disk = sim();
    with_a_mount(&disk);
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(Crash { after, reversed: false });
        let committed = Store::options().inline_max(0).open_on(machine.process()).and_then(|store| {
            store.update(|tx| {
                tx.write("a", "a1")?;
                tx.write("mnt/b", "b1")
            })
        });
        let copy = machine.kill();
        let files = copy.files();
        copy.rename("mnt", "old");
        copy.make_directory("mnt", 0);
        for name in files.keys().filter_map(|path| path.strip_prefix("mnt/")) {
            copy.rename(&format!("old/{name}"), &format!("mnt/{name}"));
        }
        copy.remove_all("old");
        copy.settle();
        Store::options().open_on(copy.process()).unwrap();
        assert_eq!(content(&copy, "a")[1..], content(&copy, "mnt/b")[1..], "after {after} steps");
        if committed.is_ok() {
            break;
        }
    }
}

#[test]
fn a_mount_that_is_missing_is_noticed_because_it_is_written_down() {
    let (whole, broken) = (sim(), sim());
    assert_eq!(a_commit_waits_for_the_file_system_that_its_files_are_on(&whole), Ok(()));
    let torn =
        without(Some(Rule::KnowMounts), || a_commit_waits_for_the_file_system_that_its_files_are_on(&broken));
    assert!(torn.is_err_and(|torn| torn.starts_with("torn")));
}
