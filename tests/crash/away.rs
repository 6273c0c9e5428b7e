//! A commit in a root with a mount below it, recovered while that is not mounted.

use std::collections::BTreeSet;

use cosave::fs::sim::{Crash, Rule, SimDisk, without};
use cosave::{Outcome, Store, Transaction};

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

/// As above, with one other change below the mount.
fn waits_for_one(change: fn(&mut Transaction) -> cosave::Result<()>) {
    let disk = sim();
    with_a_mount(&disk);
    for path in ["mnt/d/e", "mnt/empty"] {
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
    let (old, mut refused, mut after) = (names(&disk), 0, 0);
    let mut lefts = Vec::new();
    let new = loop {
        let machine = disk.copy();
        machine.crash_at(Crash { after, reversed: false });
        let store = Store::options().open_on(machine.process());
        let committed = store.and_then(|store| {
            store.update(|tx| {
                tx.write("a", "a1")?;
                change(tx)
            })
        });
        if committed.is_ok() {
            break names(&machine);
        }
        lefts.push(machine.kill());
        after += 1;
    };
    for left in lefts {
        unmount(&left, true);
        refused += usize::from(Store::options().open_on(left.process()).is_err());
        mount_again(&left);
        Store::options().open_on(left.process()).unwrap();
        let is_new = content(&left, "a") == "a1";
        assert_eq!(names(&left), *if is_new { &new } else { &old });
    }
    assert!(refused > 0, "it was never refused");
}

#[test]
fn every_kind_of_change_waits_for_the_file_system_that_it_is_on() {
    waits_for_one(|tx| tx.remove("mnt/b"));
    waits_for_one(|tx| tx.symlink("mnt/link", "b"));
    waits_for_one(|tx| tx.create_dir("mnt/made"));
    waits_for_one(|tx| tx.remove_dir("mnt/empty"));
    waits_for_one(|tx| tx.remove_dir_all("mnt/d"));
    waits_for_one(|tx| tx.rename("mnt/d", "mnt/moved"));
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
