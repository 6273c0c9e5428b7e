//! A child commits in a loop and is killed, again and again, at random moments. After each kill the
//! root must show one commit, whole, none of those that were acknowledged may be missing, and
//! nothing may be left behind.
//!
//! A failure prints the seed and the iteration; `COSAVE_TEST_SEED` repeats the choices.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print")]
#![allow(unreachable_pub, dead_code, reason = "the helpers are shared with the other test binary")]

#[path = "it/common.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{assert_no_litter, child, child_root, heard, random_seed, say, told};
use cosave::{Durability, RecoveryReport, Store};

/// Eight files in three directories.
const FILES: [&str; 8] = ["a/one", "a/two", "a/three", "b/one", "b/two", "b/c/one", "b/c/two", "b/c/three"];
/// A symlink that each commit makes lead elsewhere.
const LINK: &str = "b/newest";
const KILLS: u64 = 300;
const COMMITS_MAX: u64 = 4;
/// The longest spin after the last commit waited for: somewhat more than a commit takes.
const SPIN_MAX: Duration = Duration::from_millis(8);

/// What file `index` has after commit `count`; lengths differ, so that no two files look alike.
fn content(count: u64, index: usize) -> String {
    format!("{count}\n{}", format!("{count} in {index}\n").repeat(1 + index * 150))
}

fn link_text(count: u64) -> PathBuf {
    Path::new("../made").join(count.to_string())
}

#[test]
fn a_killed_writer_leaves_one_whole_commit_and_nothing_else() {
    let seed = random_seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let root = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let mut found = Found::default();
    for iteration in 0..KILLS {
        let durability = iteration % 3;
        acknowledged = acknowledged.max(kill_one(root.path(), durability, &mut random));
        // Every fourth is killed again while it finishes, or sweeps, what the one before left.
        if iteration % 4 == 3 {
            continue;
        }
        let checked = std::panic::catch_unwind(|| check(root.path(), acknowledged));
        let (count, report) = checked.unwrap_or_else(|_| {
            panic!("COSAVE_TEST_SEED={seed}: failed after kill {iteration}, durability {durability}")
        });
        acknowledged = count;
        found.add(&report);
    }
    // Kills that never hit anything would prove nothing.
    println!("COSAVE_TEST_SEED={seed}: {KILLS} kills, {found:?}");
    // Small contents stay in memory until the commit, so few kills leave a staged file; under Windows none may.
    let has_swept = found.swept > 0 || cfg!(windows);
    assert!(found.finished > 0 && has_swept, "COSAVE_TEST_SEED={seed}: {found:?}");
}

/// In how many of the openings there was something to do.
#[derive(Debug, Default)]
struct Found {
    finished: u64,
    swept: u64,
    clean: u64,
}

impl Found {
    fn add(&mut self, report: &RecoveryReport) {
        self.finished += u64::from(!report.rolled_forward.is_empty());
        self.swept += u64::from(!report.swept.is_empty());
        self.clean += u64::from(report.is_clean());
    }
}

/// Starts a child, kills it after some commits and a moment. Returns the last commit it acknowledged.
fn kill_one(root: &Path, durability: u64, random: &mut fastrand::Rng) -> u64 {
    let mut command = child("child_that_commits_until_it_is_killed", root);
    let mut child = command.env("DURABILITY", durability.to_string()).spawn().unwrap();
    let mut said = heard(&mut child);
    // The first word is that it is about to open the root, so that opening is cut short as well.
    let mut acknowledged = 0;
    for _ in 0..=random.u64(..COMMITS_MAX) {
        acknowledged = said.next().map_or(acknowledged, |count| count.parse().unwrap());
    }
    let moment = Duration::from_micros(random.u64(..u64::try_from(SPIN_MAX.as_micros()).unwrap()));
    let start = Instant::now();
    while start.elapsed() < moment {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died counts, also where nobody had listened yet.
    said.map(|count| count.parse().unwrap()).last().unwrap_or(acknowledged)
}

fn check(root: &Path, acknowledged: u64) -> (u64, RecoveryReport) {
    let store = Store::open(root).unwrap();
    assert!(store.last_recovery().differences.is_empty(), "{}", store.last_recovery());
    // What the commits made was removed here; that is looked at below.
    let mut wrong = store.verify().unwrap();
    wrong.retain(|mismatch| !mismatch.path.as_path().starts_with("made"));
    assert_eq!(wrong, []);
    let count = count_in(root);
    assert!(count >= acknowledged, "commit {acknowledged} was acknowledged, but {count} is there");
    assert_eq!(store.generation().unwrap(), count);
    for (index, path) in FILES.iter().enumerate() {
        let found = fs::read_to_string(root.join(path)).unwrap_or_default();
        let expected = if count == 0 { String::new() } else { content(count, index) };
        assert!(found == expected, "{path} is not that of commit {count}");
    }
    if cfg!(unix) && count > 0 {
        assert_eq!(fs::read_link(root.join(LINK)).unwrap(), link_text(count), "of commit {count}");
    }
    check_directories(root, count);
    let report = store.last_recovery().clone();
    drop(store);
    assert_no_litter(root);
    (count, report)
}

/// Every commit makes a directory of its own: those of commits that were not made must be gone.
fn check_directories(root: &Path, count: u64) {
    let made = root.join("made");
    let Ok(names) = fs::read_dir(&made) else { return };
    for entry in names {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(made.join(&name).join("deep/file").is_file(), "made/{name} was left empty");
        assert!(name.parse::<u64>().unwrap() <= count, "made/{name} is of a commit that was not made");
    }
    // The next children begin without it.
    fs::remove_dir_all(made).unwrap();
}

fn count_in(root: &Path) -> u64 {
    let first = fs::read_to_string(root.join(FILES[0])).unwrap_or_default();
    first.lines().next().map_or(0, |line| line.parse().unwrap())
}

#[test]
#[ignore = "child of a_killed_writer_leaves_one_whole_commit_and_nothing_else"]
fn child_that_commits_until_it_is_killed() {
    let Some(root) = child_root() else { return };
    say(0);
    let durability = match told("DURABILITY") {
        0 => Durability::Process,
        1 => Durability::Committed,
        _ => Durability::Full,
    };
    let store = Store::options().durability(durability).open(&root).unwrap();
    for count in count_in(&root) + 1.. {
        let mut tx = store.begin().unwrap();
        for (index, path) in FILES.iter().enumerate() {
            tx.write(path, content(count, index)).unwrap();
        }
        tx.write(format!("made/{count}/deep/file"), "made").unwrap();
        if cfg!(unix) {
            tx.symlink(LINK, link_text(count)).unwrap();
        }
        tx.commit().unwrap();
        say(count);
    }
}
