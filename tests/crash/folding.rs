//! Directories that take two names for one if they differ only in case, as APFS, NTFS and ext4's `casefold`
//! do.

use cosave::fs::sim::{Crash, Model, SimDisk};
use cosave::{Error, InvalidPath, Store, Transaction};

use crate::rules::{content, expect, open, staged_names};

fn folding() -> SimDisk {
    let disk = SimDisk::new(Model::WeakPosix);
    disk.fold_case();
    disk
}

fn commit(store: &Store, names: &[&str]) -> cosave::Result<()> {
    let mut tx = store.begin()?;
    for name in names {
        tx.write(name, name)?;
    }
    tx.commit().map(drop)
}

#[test]
fn two_new_files_that_are_one_are_refused() -> Result<(), String> {
    for names in [["a.txt", "A.TXT"], ["\u{e4}.txt", "\u{c4}.txt"], ["x-1\u{e9}", "X-1\u{c9}"]] {
        let disk = folding();
        let refused = commit(&open(&disk), &names);
        let is_alias = matches!(refused, Err(Error::InvalidPath { reason: InvalidPath::Alias, .. }));
        expect(is_alias, &format!("{names:?} were taken for two files"))?;
        expect(disk.files().is_empty(), "a refused commit has left something")?;
        let apart = SimDisk::new(Model::WeakPosix);
        commit(&open(&apart), &names).map_err(|error| format!("where case counts: {error}"))?;
        expect(apart.files().len() == 2, "a file is missing")?;
    }
    Ok(())
}

/// The file was moved over the directory after the commit point, which no file system allows.
#[test]
fn a_new_file_and_a_new_directory_that_are_one_are_refused() -> Result<(), String> {
    let save = |disk: &SimDisk, directory_first: bool| {
        let store = open(disk);
        let mut tx = store.begin()?;
        if directory_first {
            tx.create_dir("n\u{e4}me")?;
        }
        tx.write("N\u{c4}ME", "")?;
        if !directory_first {
            tx.create_dir("n\u{e4}me")?;
        }
        tx.commit().map(drop)
    };
    for directory_first in [true, false] {
        let disk = folding();
        let is_alias = |error| matches!(error, Error::InvalidPath { reason: InvalidPath::Alias, .. });
        expect(save(&disk, directory_first).is_err_and(is_alias), "they were taken for two")?;
        expect(
            disk.files().is_empty() && disk.directories().is_empty(),
            "a refused commit has left something",
        )?;
        let apart = SimDisk::new(Model::WeakPosix);
        save(&apart, directory_first).map_err(|error| format!("where case counts: {error}"))?;
        expect(apart.files().len() == 1 && apart.directories().len() == 1, "something is missing")?;
    }
    Ok(())
}

/// One would have replaced the other before anybody could compare them.
#[test]
fn two_names_that_are_one_are_refused_in_a_directory_that_takes_the_place_of_a_file() -> Result<(), String> {
    let save = |disk: &SimDisk, others: [&str; 2]| {
        let store = open(disk);
        let mut tx = store.begin()?;
        tx.remove("x")?;
        for name in others {
            tx.write(name, name)?;
        }
        tx.commit().map(drop)
    };
    for others in [["x/a", "x/A"], ["x/a", "x/A/b"], ["x/A/b", "x/a"]] {
        let (disk, apart) = (folding(), SimDisk::new(Model::WeakPosix));
        for disk in [&disk, &apart] {
            disk.put("x", b"x0", 0o644);
            disk.settle();
        }
        let is_alias = |error| matches!(error, Error::InvalidPath { reason: InvalidPath::Alias, .. });
        expect(save(&disk, others).is_err_and(is_alias), &format!("{others:?} were taken for two"))?;
        expect(
            disk.files().len() == 1 && content(&disk, "x") == "x0",
            "a refused commit has left something",
        )?;
        expect(disk.directories().is_empty(), "a refused commit has left a directory")?;
        save(&apart, others).map_err(|error| format!("where case counts: {error}"))?;
        expect(apart.files().len() == 2, "a file is missing")?;
    }
    Ok(())
}

/// The file was moved over the directory that had just been moved there, which no file system allows.
#[test]
fn a_new_file_and_a_moved_directory_that_are_one_are_refused() -> Result<(), String> {
    let save = |disk: &SimDisk, file_first: bool| {
        let store = open(disk);
        let mut tx = store.begin()?;
        if file_first {
            tx.write("NEW", "")?;
        }
        tx.rename("old", "new")?;
        if !file_first {
            tx.write("NEW", "")?;
        }
        tx.commit().map(drop)
    };
    let with_directory = |disk: SimDisk| {
        disk.make_directory("old", 0);
        disk.put("old/a", b"a", 0o644);
        disk.settle();
        disk
    };
    for file_first in [false, true] {
        let disk = with_directory(folding());
        let refused = save(&disk, file_first);
        let is_alias = |error| matches!(error, Error::InvalidPath { reason: InvalidPath::Alias, .. });
        expect(refused.is_err_and(is_alias), "they were taken for two")?;
        drop(open(&disk));
        expect(
            disk.files().len() == 1 && content(&disk, "old/a") == "a",
            "a refused commit has left something",
        )?;
        let apart = with_directory(SimDisk::new(Model::WeakPosix));
        save(&apart, file_first).map_err(|error| format!("where case counts: {error}"))?;
        expect(apart.files().len() == 2, "a file is missing")?;
    }
    Ok(())
}

/// Some directories, each with a file, and a file beside them.
fn with_directories(disk: SimDisk) -> SimDisk {
    for (directory, file) in [("n1", "n1/a"), ("n1/s", "n1/s/c"), ("n2", "n2/b"), ("d", "d/k")] {
        disk.make_directory(directory, 0);
        disk.put(file, file.as_bytes(), 0o644);
    }
    disk.put("e", b"e0", 0o644);
    disk.settle();
    disk
}

type Change = fn(&mut Transaction) -> cosave::Result<()>;

/// Changes of which one means a directory under a name that the other has not.
const UNDER_TWO_NAMES: [(&str, Change); 11] = [
    ("two directories moved to one name", |tx| tx.rename("n1", "T").and_then(|()| tx.rename("n2", "t"))),
    ("the same with a letter that has an accent", |tx| {
        tx.rename("n1", "\u{e4}").and_then(|()| tx.rename("n2", "\u{c4}"))
    }),
    ("one moved to where one is made", |tx| tx.create_dir("T").and_then(|()| tx.rename("n1", "t"))),
    ("one made where one is moved to", |tx| tx.rename("n1", "t").and_then(|()| tx.create_dir("T"))),
    ("a file in a removed one", |tx| tx.remove_dir_all("d").and_then(|()| tx.write("D/z", "z"))),
    ("a file in a moved one", |tx| tx.rename("n1", "m").and_then(|()| tx.write("N1/z", "z"))),
    ("a file that is removed from a moved one", |tx| tx.rename("n1", "m").and_then(|()| tx.remove("N1/a"))),
    ("one moved twice", |tx| tx.rename("n1", "m").and_then(|()| tx.rename("N1", "o"))),
    ("one moved into another that moves", |tx| tx.rename("n1", "m").and_then(|()| tx.rename("n2", "N1/x"))),
    ("one that is to replace itself", |tx| tx.replace_dir("n1", "N1")),
    ("one that is to replace what it lies in", |tx| tx.replace_dir("n1/s", "N1")),
];

fn save(disk: &SimDisk, change: Change) -> cosave::Result<()> {
    let store = Store::options().open_on(disk.process())?;
    let mut tx = store.begin()?;
    change(&mut tx)?;
    tx.write("e", "e1")?;
    tx.commit().map(drop)
}

/// All were published, and most could not be finished, not even by the next opening.
#[test]
fn a_directory_under_two_names_is_refused() -> Result<(), String> {
    for (what, change) in UNDER_TWO_NAMES {
        let disk = with_directories(folding());
        let (files, directories) = (disk.files(), disk.directories());
        let is_refused = |error: &Error| {
            let reason = |reason| matches!(reason, InvalidPath::Alias | InvalidPath::Itself);
            matches!(error, Error::InvalidPath { reason: found, .. } if reason(*found))
        };
        let refused = save(&disk, change);
        let is_refused = refused.as_ref().is_err_and(is_refused);
        expect(is_refused, &format!("{what}: taken for two: {refused:?}"))?;
        let is_as_before = disk.files() == files && disk.directories() == directories;
        expect(is_as_before, &format!("{what}: a refused commit has changed something"))?;
        save(&disk, |_| Ok(())).map_err(|error| format!("{what}: the next commit: {error}"))?;
    }
    Ok(())
}

/// Whether two names are one is tried with a file of ours, which a kill could leave.
#[test]
fn two_names_of_moved_directories_are_compared_without_a_trace() -> Result<(), String> {
    let apart: Change = |tx| tx.rename("n1", "\u{e4}").and_then(|()| tx.rename("n2", "\u{f6}"));
    save(&with_directories(folding()), apart).map_err(|error| format!("two letters: {error}"))?;
    let mut is_cut = false;
    for (what, change) in &UNDER_TWO_NAMES[..4] {
        let disk = with_directories(SimDisk::new(Model::WeakPosix));
        save(&disk, *change).map_err(|error| format!("{what}, where case counts: {error}"))?;
        expect(staged_names(&disk).is_empty(), &format!("{what}: a file is left"))?;
        for model in [folding, || SimDisk::new(Model::WeakPosix)] {
            let disk = with_directories(model());
            let before = disk.steps();
            let _ = save(&disk, *change);
            for step in before..disk.steps() {
                let disk = with_directories(model());
                disk.crash_at(Crash { after: step, reversed: false });
                let _ = save(&disk, *change);
                let survived = disk.kill();
                is_cut |= staged_names(&survived).iter().any(|name| name.ends_with("-0.cosave"));
                drop(open(&survived));
                let left = staged_names(&survived);
                expect(left.is_empty(), &format!("{what}: after a kill at {step}: {left:?}"))?;
            }
        }
    }
    expect(is_cut, "no kill has left the file")
}

/// The file was acknowledged, and deleted with the directory.
#[test]
fn a_removed_directory_under_the_name_of_a_mount_is_refused() -> Result<(), String> {
    let disk = with_directories(SimDisk::new(Model::WeakPosix));
    disk.bind("d", "again");
    disk.settle();
    let refused = save(&disk, |tx| tx.remove_dir_all("d").and_then(|()| tx.write("again/z", "z")));
    let is_alias = matches!(refused, Err(Error::InvalidPath { reason: InvalidPath::Alias, .. }));
    expect(is_alias, &format!("they were taken for two: {refused:?}"))?;
    expect(content(&disk, "d/k") == "d/k" && content(&disk, "e") == "e0", "something has changed")
}

/// Any two new files with a non-ASCII letter were refused as one file where case is ignored.
#[test]
fn two_names_with_other_letters_are_two_files() -> Result<(), String> {
    let disk = folding();
    let names = ["\u{e4}.txt", "\u{f6}.txt", "\u{fc}.txt", "\u{6587}.txt"];
    commit(&open(&disk), &names).map_err(|error| error.to_string())?;
    for name in names {
        expect(content(&disk, name) == name, &format!("{name} is not in place"))?;
    }
    expect(staged_names(&disk).is_empty(), "a staged file is left")
}

#[test]
fn a_file_is_replaced_under_its_name_in_another_case() -> Result<(), String> {
    let disk = folding();
    let store = open(&disk);
    commit(&store, &["Read\u{e9}.md"]).map_err(|error| error.to_string())?;
    commit(&store, &["rEAD\u{c9}.md"]).map_err(|error| error.to_string())?;
    expect(disk.files().len() == 1, "one file became two")?;
    expect(content(&disk, "Read\u{e9}.md") == "rEAD\u{c9}.md", "the file was not replaced")
}

/// Each name was compared with each other one.
#[test]
fn many_numbered_names_cost_what_they_should() {
    let calls = |count: u32| {
        let disk = folding();
        let names: Vec<_> = (0..count).map(|number| format!("\u{e4}-{number}.txt")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        commit(&open(&disk), &names).unwrap();
        disk.calls()
    };
    let (few, many) = (calls(20), calls(80));
    assert!(many < 5 * few, "{few} calls for 20 names, {many} for 80");
}
