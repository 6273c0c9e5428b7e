//! Rules about symlinks. Each has a case that passes with the whole protocol, and
//! fails if the rule is broken.

use std::path::Path;

use cosave::fs::sim::{Crash, Granularity, Rule, SimDisk, without};
use cosave::{Error, Store};

use crate::rules::{Case, content, expect, open, sim};

/// A disk with a release, and a symlink to it.
fn with_a_release() -> SimDisk {
    let disk = sim();
    disk.clock(Granularity::Still);
    for directory in ["r1", "r2"] {
        disk.make_directory(directory, 0);
        disk.put(&format!("{directory}/x"), directory.as_bytes(), 0o644);
    }
    disk.symlink("current", "r1");
    disk.settle();
    disk
}

/// Makes `current` lead to another release, and is killed between the commit point and the first move.
fn published(disk: &SimDisk) -> SimDisk {
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(Crash { after, reversed: false });
        let committed = Store::options().open_on(machine.process()).and_then(|store| {
            store.update(|tx| {
                tx.symlink("current", "r2")?;
                tx.write("r2/x", "r2, new")
            })
        });
        if machine.control_names().iter().any(|name| name.ends_with(".pending")) {
            assert_eq!(machine.links()["current"], Path::new("r1"));
            return machine.kill();
        }
        assert!(committed.is_err(), "a commit without a pending manifest");
    }
    unreachable!("a commit has an end")
}

fn a_view_follows_a_symlink_that_is_not_in_place_yet(disk: &SimDisk) -> Result<(), String> {
    let killed = published(disk);
    let store = Store::options().read_only(true).open_on(killed.process()).unwrap();
    let view = store.view().unwrap();
    expect(view.read_link("current").unwrap() == Path::new("r2"), "a view shows an old symlink")?;
    let read = String::from_utf8(view.read("current/x").unwrap()).unwrap();
    expect(read == "r2, new", &format!("a view of the new state has followed the old symlink to {read}"))
}

/// A symlink has neither content nor a time that tells two apart, so only its text does.
fn a_symlink_that_others_have_made_is_set_aside(disk: &SimDisk) -> Result<(), String> {
    let killed = published(disk);
    killed.delete("current");
    killed.symlink("current", "r3");
    let store = open(&killed);
    expect(store.last_recovery().differences.len() == 1, "somebody's symlink is not reported")?;
    expect(killed.links()["current"] == Path::new("r2"), "the commit was not finished")?;
    let is_kept = killed.links().iter().any(|(path, to)| path != "current" && to == Path::new("r3"));
    expect(is_kept, "somebody's symlink was destroyed")
}

fn what_is_read_through_a_symlink_is_of_one_state(disk: &SimDisk) -> Result<(), String> {
    let store = open(disk);
    let mut tx = store.begin().unwrap();
    let read = String::from_utf8(tx.read("current/x").unwrap()).unwrap();
    tx.write("b", format!("from {read}")).unwrap();
    store.update(|other| other.symlink("current", "r2")).unwrap();
    expect(tx.commit().is_err_and(|error| error.is_conflict()), "it was committed from an old release")?;
    expect(content(disk, "b") == "b0", "a refused commit has changed something")
}

/// A refused commit leaves what it staged, so that it can be tried again.
fn a_staged_symlink_that_others_have_removed_is_not_published(disk: &SimDisk) -> Result<(), String> {
    let store = open(disk);
    let mut tx = store.begin().unwrap();
    tx.symlink("current", "r2").unwrap();
    let view = store.view().unwrap();
    expect(matches!(tx.try_commit(), Err(Error::Locked { .. })), "it does not wait for a view")?;
    let staged = disk.links().into_keys().find(|path| path.ends_with(".cosave")).unwrap();
    disk.delete(&staged);
    drop(view);
    expect(tx.try_commit().is_err_and(|error| error.is_conflict()), "nothing was published as a symlink")?;
    expect(disk.links()["current"] == Path::new("r1"), "a refused commit has changed something")
}

const CASES: &[Case] = &[
    (Rule::FollowInState, a_view_follows_a_symlink_that_is_not_in_place_yet),
    (Rule::CompareLinks, a_symlink_that_others_have_made_is_set_aside),
    (Rule::CheckStaged, a_staged_symlink_that_others_have_removed_is_not_published),
    (Rule::RememberLinks, what_is_read_through_a_symlink_is_of_one_state),
];

#[test]
fn every_rule_about_symlinks_holds_and_is_missed_when_it_is_broken() {
    for (rule, case) in CASES {
        assert_eq!(case(&with_a_release()), Ok(()), "{rule:?} is kept");
        match without(Some(*rule), || case(&with_a_release())) {
            Err(problem) => println!("{rule:?}: {problem}"),
            Ok(()) => panic!("{rule:?} was broken, and the case still passes"),
        }
    }
}

/// A manifest says where its symlinks lead. So one that says something else was damaged, or is another's.
#[test]
fn a_staged_symlink_that_leads_elsewhere_is_never_moved() {
    let killed = published(&with_a_release());
    let staged = killed.links().into_keys().find(|path| path.ends_with(".cosave")).unwrap();
    killed.delete(&staged);
    killed.symlink(&staged, "/outside");
    let refused = Store::options().open_on(killed.process()).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused:?}");
    assert_eq!(killed.links()["current"], Path::new("r1"));
    assert_eq!(content(&killed, "r2/x"), "r2");
}
