//! The kernel is asked for exactly the syncs that the barriers promise, on the right files and at the
//! right moment. Each kind of commit runs under strace. What it called is compared with what it must call.
//!
//! The simulated disk cannot see this: it has its own `sync`. Needs Linux and strace, and says so
//! where they are missing.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print")]
#![allow(unreachable_pub, dead_code, reason = "the helpers are shared with the other test binary")]

#[path = "it/common.rs"]
mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use cosave::{AppendFile, Durability, Store, SyncStrategy};

/// What a traced process did, in order. Paths are below the scenario's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Sync(String),
    Rename(String, String),
    Link(String),
    Remove(String),
    MakeDirectory(String),
    /// What the scenario itself says, between its steps.
    Mark(String),
}

/// What is synced by the one call for a whole file system.
const WHOLE: &str = "everything";

use Event::{Link, MakeDirectory, Mark, Remove, Rename, Sync};

/// More files than are always synced one by one.
const MANY: usize = 60;

/// Enough for a small save.
const SMALL: usize = 1 << 20;

/// A scenario: what is done under strace, in a directory of its own.
type Scenario = (&'static str, fn(&Path));

const SCENARIOS: &[Scenario] = &[
    ("full", |root| replace(root, Durability::Full, SMALL)),
    ("full, long", |root| replace(root, Durability::Full, 0)),
    ("committed", |root| replace(root, Durability::Committed, SMALL)),
    ("committed, long", |root| replace(root, Durability::Committed, 0)),
    ("committed, twice", |root| {
        let store = Store::options().durability(Durability::Committed).open(root).unwrap();
        store.update(|tx| tx.write("a", "1")).unwrap();
        mark("begin");
        store.update(|tx| tx.write("a", "2")).unwrap();
        mark("end");
    }),
    ("whole file systems", |root| {
        let store = Store::options().sync_strategy(SyncStrategy::FileSystem).open(root).unwrap();
        let save = |content: &str| {
            store.update(|tx| {
                tx.write("a", content)?;
                tx.write("d/b", content)
            })
        };
        save("1").unwrap();
        mark("begin");
        save("2").unwrap();
        mark("end");
    }),
    ("many files", |root| {
        let store = Store::open(root).unwrap();
        store.update(|tx| tx.write("d/b", "1")).unwrap();
        mark("begin");
        store.update(|tx| (0..MANY).try_for_each(|file| tx.write(format!("d/{file}"), "2"))).unwrap();
        mark("end");
    }),
    ("process", |root| replace(root, Durability::Process, SMALL)),
    ("one shot", |root| {
        mark("begin");
        let store = Store::open(root).unwrap();
        store.update(|tx| tx.write("a", "1")).unwrap();
        drop(store);
        mark("end");
    }),
    ("new directories", |root| {
        let store = Store::open(root).unwrap();
        mark("begin");
        store.update(|tx| tx.write("new/dir/file", "1")).unwrap();
        mark("end");
    }),
    ("removal", |root| {
        let store = Store::open(root).unwrap();
        mark("begin");
        store.update(|tx| tx.remove("d/b")).unwrap();
        mark("end");
    }),
    ("trees", |root| {
        for file in 0..MANY {
            for place in ["from", "to", "gone"] {
                std::fs::create_dir_all(root.join(place)).unwrap();
                std::fs::write(root.join(place).join(file.to_string()), place).unwrap();
            }
        }
        let store = Store::open(root).unwrap();
        store.update(|tx| tx.write("first", "")).unwrap();
        mark("begin");
        store
            .update(|tx| {
                tx.rename("from", "moved")?;
                tx.remove_dir_all("gone")
            })
            .unwrap();
        mark("replace");
        store.update(|tx| tx.replace_dir("moved", "to")).unwrap();
        mark("end");
    }),
    ("one file", |root| {
        mark("begin");
        cosave::write(root.join("a"), "1").unwrap();
        mark("end");
    }),
    ("one file, in a new directory", |root| {
        mark("begin");
        cosave::write(root.join("new/dir/file"), "1").unwrap();
        mark("end");
    }),
    ("one new file", |root| {
        mark("begin");
        cosave::create_new(root.join("new"), "1").unwrap();
        mark("end");
    }),
    ("steps by hand", |root| {
        std::fs::create_dir(root.join("new")).unwrap();
        std::fs::create_dir(root.join("to")).unwrap();
        std::fs::write(root.join("new/data"), "1").unwrap();
        mark("begin");
        cosave::sync_file(root.join("new/data")).unwrap();
        mark("parents");
        cosave::sync_parents(root.join("new/data")).unwrap();
        mark("rename");
        cosave::rename_durably(root.join("new/data"), root.join("to/data")).unwrap();
        mark("end");
    }),
    ("a growing file", |root| {
        // By a program that was killed before it could sync them.
        std::fs::create_dir_all(root.join("new/dir")).unwrap();
        mark("begin");
        let file = AppendFile::open(root.join("new/dir/file")).unwrap();
        mark("open");
        file.append("1").unwrap();
        file.close().unwrap();
        mark("again");
        drop(AppendFile::open(root.join("new/dir/file")).unwrap());
        mark("end");
    }),
    ("mount point", |root| {
        let store = Store::open(root).unwrap();
        store.update(|tx| tx.write("new", "1")).unwrap();
        mark("begin");
        store.update(|tx| tx.write("a", "1")).unwrap();
        mark("end");
    }),
    ("recovery", |root| {
        mark("begin");
        drop(Store::open(root).unwrap());
        mark("end");
    }),
];

/// Replaces `a` and `d/b` after a first commit has recorded the directories, then flushes.
fn replace(root: &Path, durability: Durability, inline_max: usize) {
    let store = Store::options().durability(durability).inline_max(inline_max).open(root).unwrap();
    let save = |content: &str| {
        store.update(|tx| {
            tx.write("a", content)?;
            tx.write("d/b", content)
        })
    };
    save("1").unwrap();
    store.flush().unwrap();
    mark("begin");
    save("2").unwrap();
    mark("flush");
    store.flush().unwrap();
    mark("end");
}

/// How a child ends that may not mount.
const CANNOT_MOUNT: i32 = 77;

/// A call that strace shows and that does nothing else.
fn mark(what: &str) {
    assert!(std::fs::create_dir(format!("/nowhere-at-all/mark-{what}")).is_err());
}

/// The traced child; runs the scenario that the environment names.
#[test]
#[ignore = "run under strace by the other tests"]
fn traced() {
    let name = std::env::var("COSAVE_SCENARIO").unwrap();
    let root = std::env::var("COSAVE_ROOT").unwrap();
    let (_, run) = SCENARIOS.iter().find(|(scenario, _)| *scenario == name).unwrap();
    run(Path::new(&root));
}

/// What a scenario called between its marks `begin` and `end`; `None` where strace is missing.
fn trace(scenario: &str, root: &Path) -> Option<Vec<Event>> {
    trace_under(&[], scenario, root)
}

/// As `trace`, under a command that prepares the child's surroundings.
fn trace_under(prepare: &[&str], scenario: &str, root: &Path) -> Option<Vec<Event>> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let calls = "trace=fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,link,linkat,\
                 unlink,unlinkat,rmdir,mkdir,mkdirat";
    let command = [prepare, &["strace"]].concat();
    let traced = Command::new(command[0])
        .args(&command[1..])
        .args(["-f", "-y", "-qq", "-e", calls, "-o"])
        .arg(out.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "traced", "--ignored", "--nocapture"])
        .env("COSAVE_SCENARIO", scenario)
        .env("COSAVE_ROOT", root)
        .output();
    let strace = Command::new("strace").arg("-V").output();
    let (Ok(traced), Ok(_)) = (traced, strace) else {
        common::skipped(scenario, "no strace to see syncs with");
        return None;
    };
    if traced.status.code() == Some(CANNOT_MOUNT) {
        common::skipped(scenario, "nothing can be mounted");
        return None;
    }
    assert!(traced.status.success(), "{}", String::from_utf8_lossy(&traced.stdout));
    let text = std::fs::read_to_string(out.path()).unwrap();
    let root = root.canonicalize().unwrap();
    let events: Vec<_> = text.lines().filter_map(|line| event(line, root.to_str().unwrap())).collect();
    let at = |name: &str| events.iter().position(|event| *event == Mark(name.to_owned())).unwrap();
    Some(events[at("begin") + 1..at("end")].to_vec())
}

/// Reads one line of strace; `None` for calls that failed or that concern other places.
fn event(line: &str, root: &str) -> Option<Event> {
    let (_, call) = line.split_once(' ')?;
    let (name, rest) = call.trim_start().split_once('(')?;
    if let Some((_, mark)) = rest.split_once("/nowhere-at-all/mark-") {
        return Some(Mark(mark.split('"').next()?.to_owned()));
    }
    let below = |path: String| {
        let rest = path.strip_prefix(root)?.trim_start_matches('/').to_owned();
        Some(if rest.is_empty() { ".".to_owned() } else { rest })
    };
    assert!(name != "fsync" || !rest.contains("= -1"), "a sync failed: {line}");
    if rest.contains("= -1") {
        return None;
    }
    // A handle is printed with its path: `5</path>`; a path below a handle as `5</path>, "name"`.
    let handle = rest.split_once('<').and_then(|(_, path)| path.split_once('>')).map(|(path, _)| path);
    let quoted: Vec<&str> = rest.split('"').skip(1).step_by(2).collect();
    let joined = |directory: &str, name: &str| match name.starts_with('/') {
        true => name.to_owned(),
        false => format!("{directory}/{name}"),
    };
    match name {
        "syncfs" => below(handle?.to_owned()).map(|_| Sync(WHOLE.to_owned())),
        "fsync" | "fdatasync" => Some(Sync(below(handle?.to_owned())?)),
        "renameat" | "renameat2" | "linkat" => {
            let second = rest.split('<').nth(2).and_then(|path| path.split_once('>')).map(|(path, _)| path);
            let from = below(joined(handle?, quoted.first()?))?;
            let to = below(joined(second?, quoted.get(1)?))?;
            Some(if name == "linkat" { Link(to) } else { Rename(from, to) })
        }
        // By whole paths, as the standard library does.
        "rename" => Some(Rename(below((*quoted.first()?).to_owned())?, below((*quoted.get(1)?).to_owned())?)),
        "unlinkat" => Some(Remove(below(joined(handle?, quoted.first()?))?)),
        "mkdirat" => Some(MakeDirectory(below(joined(handle?, quoted.first()?))?)),
        _ => None,
    }
}

fn prepared() -> tempfile::TempDir {
    prepared_in(&std::env::temp_dir())
}

fn prepared_in(place: &Path) -> tempfile::TempDir {
    let root = tempfile::tempdir_in(place).unwrap();
    std::fs::create_dir(root.path().join("d")).unwrap();
    std::fs::write(root.path().join("a"), "0").unwrap();
    std::fs::write(root.path().join("d/b"), "0").unwrap();
    root
}

/// A staged or unpublished name says what it is, without its random part.
fn plain(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
    let name = match name.strip_prefix('.').and_then(|name| name.strip_suffix(".cosave")) {
        Some(stem) => format!("staged-{}", stem.split('.').next().unwrap()),
        None if name.ends_with(".tmp") => "manifest".to_owned(),
        None if directory.ends_with("sessions") => "session".to_owned(),
        None => name.to_owned(),
    };
    if directory.is_empty() { name } else { format!("{directory}/{name}") }
}

/// The events in phases: what is synced at the same time, and what happens in between, in order.
fn phases(events: &[Event]) -> Vec<String> {
    let mut phases = Vec::new();
    let mut wave = BTreeSet::new();
    let flush = |wave: &mut BTreeSet<String>, phases: &mut Vec<String>| {
        if !wave.is_empty() {
            let members: Vec<_> = std::mem::take(wave).into_iter().collect();
            phases.push(format!("sync {}", members.join(" ")));
        }
    };
    for event in events {
        if let Sync(path) = event {
            assert!(wave.insert(plain(path)), "{path} is synced twice in one wave: {events:?}");
            continue;
        }
        flush(&mut wave, &mut phases);
        phases.push(match event {
            Rename(_, to) | Link(to) if to.starts_with(".cosave/") => {
                format!("rename {}", to.rsplit('.').next().unwrap())
            }
            Rename(_, to) => format!("move {}", plain(to)),
            Link(to) => format!("link {}", plain(to)),
            Remove(path) => format!("remove {}", plain(path)),
            MakeDirectory(path) => format!("make {path}"),
            Mark(what) => format!("-- {what}"),
            Sync(_) => unreachable!("handled above"),
        });
    }
    flush(&mut wave, &mut phases);
    // Superseded manifests and records go without a wait, whenever they go.
    phases.retain(|phase| !phase.starts_with("remove .cosave/"));
    phases
}

/// Runs a scenario and compares it with what it must do.
fn check(scenario: &str, root: &Path, expected: &[&str]) {
    if let Some(events) = trace(scenario, root) {
        assert_eq!(phases(&events), expected, "{scenario}: {events:#?}");
    }
}

const STAGED: &str = "sync . .cosave/manifest d d/staged-b staged-a";
const SMALL_SAVE: &str = "sync . .cosave .cosave/2.pending-inline d d/staged-b staged-a";

#[test]
fn a_small_full_commit_waits_for_two_waves_on_the_right_files() {
    let root = prepared();
    let expected =
        ["rename pending-inline", SMALL_SAVE, "move a", "move d/b", "sync . d", "rename applied", "-- flush"];
    check("full", root.path(), &expected);
}

#[test]
fn a_small_committed_commit_waits_for_one_wave() {
    let root = prepared();
    let expected =
        ["rename pending-inline", SMALL_SAVE, "move a", "move d/b", "-- flush", "sync . d", "rename applied"];
    check("committed", root.path(), &expected);
}

/// The earlier move is durable before the later one is made, in the same wave as the commit point.
#[test]
fn a_path_that_is_committed_again_costs_one_wave() {
    let root = prepared();
    let expected = [
        "rename pending-inline",
        "sync . .cosave .cosave/2.pending-inline staged-a",
        "rename applied",
        "move a",
    ];
    check("committed, twice", root.path(), &expected);
}

/// What a program waits for that opens an existing root, saves once and ends.
#[test]
fn one_save_of_one_process_waits_for_three_waves() {
    let root = prepared();
    drop(Store::open(root.path()).unwrap().update(|tx| tx.write("d/b", "1")).unwrap());
    let Some(events) = trace("one shot", root.path()) else { return };
    let phases = phases(&events);
    let waits: Vec<_> = phases.iter().filter(|phase| phase.starts_with("sync ")).collect();
    assert_eq!(waits.len(), 3, "{phases:?}");
    assert_eq!(waits[0], "sync .cosave/sessions .cosave/sessions/session", "the record: {phases:?}");
    assert!(waits[1].contains(".cosave/2.pending-inline") && waits[1].contains("staged-a"), "{phases:?}");
    assert_eq!(waits[2], "sync .", "{phases:?}");
}

/// Whether ext4 at this place has a journal; nothing where that cannot be read, or it is not ext4.
fn has_journal(place: &Path) -> Option<bool> {
    let device = std::fs::metadata(place).ok()?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let disk = std::fs::canonicalize(Path::new("/sys/dev/block").join(number)).ok()?;
    let task = Path::new("/sys/fs/ext4").join(disk.file_name()?).join("journal_task");
    Some(!std::fs::read_to_string(task).ok()?.starts_with('<'))
}

/// One call is enough on a file system that then commits and flushes. The server of a FUSE file system
/// would not even be told; a file system in memory stands for all that are not known. ext4 without a journal
/// flushed the disk before it had written its last blocks.
#[test]
fn whole_file_systems_are_synced_only_where_that_reaches_the_medium() {
    let whole = ["rename pending-inline", "sync everything", "move a", "move d/b", "sync everything"];
    let each = ["rename pending-inline", SMALL_SAVE, "move a", "move d/b", "sync . d"];
    for (place, known) in [(std::env::temp_dir(), true), ("/dev/shm".into(), false)] {
        let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(&place).output();
        let kind = kind.map(|kind| String::from_utf8_lossy(&kind.stdout).trim().to_owned());
        let is_as_wanted = kind.as_ref().is_ok_and(|kind| match known {
            true => ["ext2/ext3", "xfs", "btrfs"].contains(&kind.as_str()),
            false => kind == "tmpfs",
        });
        if !is_as_wanted {
            common::skipped("whole file systems", &format!("{} is {kind:?}", place.display()));
            continue;
        }
        let root = prepared_in(&place);
        let is_ext4 = kind.as_ref().is_ok_and(|kind| kind == "ext2/ext3");
        let known = known && (!is_ext4 || has_journal(root.path()) == Some(true));
        let Some(events) = trace("whole file systems", root.path()) else { return };
        assert_eq!(phases(&events)[..5], if known { whole } else { each }, "{events:#?}");
    }
}

/// How many are synced with one call depends on what else waits to be written.
#[test]
fn many_files_are_synced_together_or_each_on_its_own_and_none_is_left_out() {
    let root = prepared();
    let Some(events) = trace("many files", root.path()) else { return };
    let phases = phases(&events);
    let waits: Vec<_> = phases.iter().filter(|phase| phase.starts_with("sync ")).collect();
    let staged: Vec<_> = (0..MANY).map(|file| format!("d/staged-{file}")).collect();
    let members: BTreeSet<_> = waits[0].split(' ').skip(1).collect();
    let others = [".cosave", ".cosave/2.pending-inline", "d"];
    let each = staged.iter().map(String::as_str).chain(others).collect();
    assert!(members == BTreeSet::from([WHOLE]) || members == each, "{phases:?}");
    assert_eq!(waits[1..], ["sync d"], "{phases:?}");
    assert_eq!(phases.iter().position(|phase| phase == waits[0]), Some(1), "before the moves: {phases:?}");
}

#[test]
fn a_long_full_commit_waits_for_three_waves_on_the_right_files() {
    let root = prepared();
    check(
        "full, long",
        root.path(),
        &[
            STAGED,
            "rename pending",
            "sync .cosave",
            "move a",
            "move d/b",
            "sync . d",
            "rename applied",
            "-- flush",
        ],
    );
}

#[test]
fn a_long_committed_commit_puts_the_third_wave_off_and_a_flush_waits_for_it() {
    let root = prepared();
    check(
        "committed, long",
        root.path(),
        &[
            STAGED,
            "rename pending",
            "sync .cosave",
            "move a",
            "move d/b",
            "-- flush",
            "sync . d",
            "rename applied",
        ],
    );
}

#[test]
fn a_process_commit_waits_for_nothing_and_a_flush_for_all_of_it() {
    let root = prepared();
    let Some(events) = trace("process", root.path()) else { return };
    let at = |wanted: &Event| events.iter().position(|event| event == wanted).unwrap();
    let (commit, flush) = events.split_at(at(&Mark("flush".to_owned())));
    assert!(!commit.iter().any(|event| matches!(event, Sync(_))), "{events:#?}");
    assert!(commit.iter().any(|event| matches!(event, Rename(_, to) if to == "d/b")), "{events:#?}");
    let retired = flush
        .iter()
        .position(|event| matches!(event, Rename(_, to) if to.ends_with(".applied")))
        .unwrap_or_else(|| panic!("{events:#?}"));
    for path in ["a", "d/b", ".", "d", ".cosave"] {
        assert!(flush[..retired].contains(&Sync(path.to_owned())), "{path}: {events:#?}");
    }
}

#[test]
fn a_removal_waits_for_its_directory_before_the_manifest_is_retired() {
    let root = prepared();
    let Some(events) = trace("removal", root.path()) else { return };
    let phases = phases(&events);
    let tail: Vec<_> = phases.iter().skip_while(|phase| *phase != "rename pending-inline").collect();
    let commit_point = "sync . .cosave .cosave/1.pending-inline";
    assert_eq!(
        tail,
        ["rename pending-inline", commit_point, "remove d/b", "sync d", "rename applied"],
        "{events:#?}"
    );
}

/// As many waits as a long save of two files, and no call for each file of a tree before it is hidden.
#[test]
fn whole_directories_are_moved_and_removed_with_three_waves() {
    let root = prepared();
    let Some(events) = trace("trees", root.path()) else { return };
    let mut phases = phases(&events);
    let is_hidden = |phase: &&String| phase.contains(".cosave/") || phase.contains("staged-");
    let removed = phases.iter().filter(|phase| phase.starts_with("remove "));
    let deleted = removed.filter(is_hidden).count();
    assert_eq!(deleted, 2 * (MANY + 1), "{phases:#?}");
    phases.retain(|phase| !phase.starts_with("remove "));
    let commit_point = ["sync . .cosave/manifest", "rename pending", "sync .cosave"];
    let hide = ["move moved", "move staged-gone", "sync .", "rename applied", "-- replace"];
    let exchange = ["move staged-to", "move to", "move staged-to", "sync .", "rename applied"];
    assert_eq!(phases, [&commit_point[..], &hide, &commit_point, &exchange].concat(), "{phases:#?}");
}

#[test]
fn new_directories_and_the_names_that_lead_to_them_are_synced_before_the_manifest_is_published() {
    let root = prepared();
    let Some(events) = trace("new directories", root.path()) else { return };
    let made = |path: &str| events.iter().position(|event| *event == MakeDirectory(path.to_owned())).unwrap();
    let published =
        events.iter().position(|event| matches!(event, Rename(_, to) if to.ends_with(".pending"))).unwrap();
    let synced_between =
        |path: &str, from: usize| events[from..published].iter().any(|event| *event == Sync(path.to_owned()));
    assert!(synced_between(".", made("new")), "the name of `new`: {events:#?}");
    assert!(synced_between("new", made("new/dir")), "the name of `new/dir`: {events:#?}");
    assert!(synced_between("new/dir", made("new/dir")), "the staged file's name: {events:#?}");
}

#[test]
fn one_file_is_synced_before_its_rename_and_its_directory_after() {
    let root = prepared();
    check("one file", root.path(), &["sync staged-a", "move a", "sync ."]);
}

#[test]
fn one_file_in_a_new_directory_is_synced_with_every_name_on_the_way() {
    let root = prepared();
    let expected =
        ["make new", "make new/dir", "sync new/dir/staged-file", "move new/dir/file", "sync . new new/dir"];
    check("one file, in a new directory", root.path(), &expected);
}

#[test]
fn one_new_file_is_synced_before_its_link_and_its_directory_after() {
    let root = prepared();
    let expected = ["sync staged-new", "link new", "remove staged-new", "sync ."];
    check("one new file", root.path(), &expected);
}

#[test]
fn the_steps_of_a_save_by_hand_sync_what_they_say() {
    let root = prepared();
    let Some(events) = trace("steps by hand", root.path()) else { return };
    let sync = |path: &str| Sync(path.to_owned());
    let marked = |name: &str| events.iter().position(|event| *event == Mark(name.to_owned())).unwrap();
    let (parents, rename) = (marked("parents"), marked("rename"));
    assert_eq!(events[..parents], [sync("new/data")]);
    // The directories above the root are not shown.
    assert_eq!(events[parents + 1..][..2], [sync("new"), sync(".")], "{events:?}");
    let moved = Rename("new/data".to_owned(), "to/data".to_owned());
    // The new name comes first: without a journal, a power loss in between would leave the file none.
    assert_eq!(events[rename + 1..], [moved, sync("to"), sync("new")], "{events:?}");
}

/// A target that is a mount point is copied over: its bytes are synced before the staged file goes.
#[test]
fn a_mount_point_is_synced_before_the_staged_file_is_removed() {
    let root = prepared();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let mount = format!(
        "mount --bind '{}' '{}' || exit {CANNOT_MOUNT}; exec \"$0\" \"$@\"",
        outside.path().display(),
        root.path().join("a").display(),
    );
    let prepare = ["unshare", "--mount", "sh", "-c", &mount];
    let Some(events) = trace_under(&prepare, "mount point", root.path()) else { return };
    let copied = events.iter().position(|event| *event == Sync("a".to_owned())).unwrap();
    let sync = |path: &str| Sync(path.to_owned());
    // The mark that a copy is under way, then the copy itself.
    let (waits, after) = events[copied - 1..].split_at(2);
    assert_eq!(waits, [sync(".cosave"), sync("a")], "{events:#?}");
    assert!(matches!(&after[0], Remove(path) if plain(path) == "staged-a"), "{events:#?}");
    assert_eq!(after[1], sync("."), "{events:#?}");
    assert_eq!(std::fs::read(outside.path()).unwrap(), b"1");
}

#[test]
fn recovery_syncs_what_it_inherits_before_it_moves_and_what_it_moved_before_it_retires() {
    let root = prepared();
    // What a writer leaves that is killed between the commit point and the first move.
    let store = Store::options().inline_max(0).open(root.path()).unwrap();
    store
        .update(|tx| {
            tx.write("a", "1")?;
            tx.write("d/b", "1")
        })
        .unwrap();
    drop(store);
    let manifest = cosave::Manifest::decode(&std::fs::read(root.path().join(".cosave/1.applied")).unwrap());
    for entry in manifest.unwrap().entries {
        let cosave::Action::Write(content) = &entry.action else { panic!("only writes") };
        let target = root.path().join(&entry.path);
        std::fs::rename(&target, target.with_file_name(&content.name)).unwrap();
    }
    std::fs::rename(root.path().join(".cosave/1.applied"), root.path().join(".cosave/1.pending")).unwrap();
    let expected = [
        "sync .cosave .cosave/1.pending",
        "move a",
        "move d/b",
        "sync . .cosave/sessions d",
        "rename applied",
    ];
    check("recovery", root.path(), &expected);
}

/// A program was killed after it had made directories, and before it synced them. The next one found them, and
/// told of durable records in a file whose directory a power loss could take.
#[test]
fn an_empty_growing_file_has_all_directories_above_it_synced_and_a_longer_one_its_own() {
    let root = prepared();
    let Some(events) = trace("a growing file", root.path()) else { return };
    let mut steps = events.split(|event| matches!(event, Mark(_))).map(|step| {
        let synced = step.iter().filter_map(|event| match event {
            Sync(path) => Some(path.as_str()),
            _ => None,
        });
        synced.collect::<BTreeSet<_>>()
    });
    assert_eq!(steps.next().unwrap(), BTreeSet::from(["new/dir/file", "new/dir", "new", "."]), "{events:?}");
    assert_eq!(steps.next().unwrap(), BTreeSet::from(["new/dir/file"]), "{events:?}");
    assert_eq!(steps.next().unwrap(), BTreeSet::from(["new/dir/file", "new/dir"]), "{events:?}");
}
