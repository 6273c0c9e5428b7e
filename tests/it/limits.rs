//! Many files, long files, large trees: what they cost has a bound.

#![cfg(unix)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cosave::{Durability, Store, Transaction};
use tempfile::TempDir;

use crate::common::{
    ROOT, assert_no_litter, child, child_arguments, child_root, put, quick, run, say, skipped,
};
use crate::small::{copy, remove_marks};

const FILES: usize = 10_000;

/// A directory for many files, in memory if the system has such a place: what is counted here is not
/// the disk's.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).unwrap()
}

/// A child under limits that a shell sets.
fn child_under(limits: &str, test: &str, root: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(std::env::current_exe().unwrap());
    command.args(child_arguments(test)).env(ROOT, root).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[test]
fn ten_thousand_files_need_no_more_than_256_descriptors() {
    let root = directory();
    let child = child_under("ulimit -n 256", "limits::child_that_commits_ten_thousand_files", root.path());
    assert_eq!(run(child), ["1"]);
    for number in [0, 1, FILES / 2, FILES - 1] {
        let path = root.path().join(format!("{}/{number}", number % 50));
        assert_eq!(crate::common::text(path), number.to_string());
    }
    assert_eq!(crate::common::tree(root.path()).len(), FILES + 50);
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of ten_thousand_files_need_no_more_than_256_descriptors"]
fn child_that_commits_ten_thousand_files() {
    let Some(root) = child_root() else { return };
    let store = Store::open(root).unwrap();
    let mut tx = store.begin().unwrap();
    for number in 0..FILES {
        tx.write(format!("{}/{number}", number % 50), number.to_string()).unwrap();
    }
    say(tx.commit().unwrap().generation());
}

/// A recovery that wrote files anew held all of them open until the sync. If a save had more files than a
/// process may open, its root stayed closed for ever.
#[test]
fn recovery_writes_three_hundred_files_with_256_descriptors() {
    let lost = |root: &Path| (0..300).for_each(|file| fs::remove_file(root.join(file.to_string())).unwrap());
    let unsynced = |root: &Path| fs::write(root.join(".cosave/1.sync-failed"), "").unwrap();
    for (what, inline_max, damage) in [("lost", 1 << 20, &lost as &dyn Fn(&Path)), ("unsynced", 0, &unsynced)]
    {
        let root = tempfile::tempdir().unwrap();
        let options = Store::options().durability(Durability::Committed).inline_max(inline_max);
        let store = options.open(root.path()).unwrap();
        let files = |tx: &mut Transaction| (0..300).try_for_each(|file| tx.write(file.to_string(), "1"));
        store.update(files).unwrap();
        let crashed = copy(root.path());
        damage(crashed.path());
        remove_marks(crashed.path());
        let child = child_under("ulimit -n 256", "limits::child_that_recovers", crashed.path());
        assert_eq!(run(child), ["1"], "{what}");
        assert_eq!(crate::common::tree(crashed.path()).len(), 300, "{what}");
        assert_eq!(crate::common::text(crashed.path().join("299")), "1", "{what}");
        assert_no_litter(crashed.path());
    }
}

#[test]
#[ignore = "child of recovery_writes_three_hundred_files_with_256_descriptors"]
fn child_that_recovers() {
    let Some(root) = child_root() else { return };
    say(Store::open(root).unwrap().last_recovery().rolled_forward.len());
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_of_a_gibibyte_passes_through_little_memory() {
    let root = tempfile::tempdir().unwrap();
    let said = run(child("limits::child_that_writes_a_gibibyte", root.path()));
    let growth: u64 = said[0].parse().unwrap();
    assert!(growth <= 64 * 1024, "memory grew by {growth} KiB");
    assert_eq!(fs::metadata(root.path().join("large")).unwrap().len(), 1 << 30);
    assert_no_litter(root.path());
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "child of a_file_of_a_gibibyte_passes_through_little_memory"]
fn child_that_writes_a_gibibyte() {
    let Some(root) = child_root() else { return };
    let store = Store::open(root).unwrap();
    let before = memory_peak_kib();
    let mut tx = store.begin().unwrap();
    let block = vec![7; 1 << 20];
    tx.write_with("large", |out| (0..1 << 10).try_for_each(|_| out.write_all(&block))).unwrap();
    tx.commit().unwrap();
    say(memory_peak_kib() - before);
}

#[cfg(target_os = "linux")]
fn memory_peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn opening_a_clean_root_costs_the_same_in_a_large_tree() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        skipped(
            "opening_a_clean_root_costs_the_same_in_a_large_tree",
            "no strace to count system calls with",
        );
        return;
    }
    let few = calls_to_open(10);
    let many = calls_to_open(100_000);
    assert!(!few.is_empty(), "strace saw nothing");
    assert_eq!(few.len(), many.len(), "few: {few:#?}\nmany: {many:#?}");
}

/// The system calls between the two marks that the child sets.
#[cfg(target_os = "linux")]
fn calls_to_open(files: usize) -> Vec<String> {
    let root = directory();
    for number in 0..files {
        let directory = root.path().join((number % 100).to_string());
        if number < 100 {
            fs::create_dir(&directory).unwrap();
        }
        fs::File::create(directory.join(number.to_string())).unwrap();
    }
    put(&Store::open(root.path()).unwrap(), &[("0/0", "committed"), ("1/1", "committed")]);
    let trace = root.path().join("trace");
    let mut command = Command::new("strace");
    command.arg("-f").arg("-o").arg(&trace).arg(std::env::current_exe().unwrap());
    command.args(child_arguments("limits::child_that_opens")).env(ROOT, root.path());
    run({
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    });
    let trace = fs::read_to_string(trace).unwrap();
    let mut calls = trace.lines().skip_while(|line| !line.contains("/cosave-mark-begin"));
    // What the harness does meanwhile in a thread of its own does not count, nor the ends of calls that
    // it has interrupted.
    let thread = calls.next().and_then(|line| line.split(' ').next()).unwrap();
    let calls = calls.filter(|line| line.starts_with(thread) && !line.contains("resumed>"));
    let calls = calls.take_while(|line| !line.contains("/cosave-mark-end"));
    // Memory is the allocator's business.
    let is_memory =
        |line: &str| ["mmap(", "munmap(", "brk(", "mprotect("].iter().any(|call| line.contains(call));
    calls.filter(|line| !is_memory(line)).map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "child of opening_a_clean_root_costs_the_same_in_a_large_tree"]
fn child_that_opens() {
    let Some(root) = child_root() else { return };
    assert!(fs::metadata("/cosave-mark-begin").is_err());
    let store = Store::open(&root).unwrap();
    assert!(fs::metadata("/cosave-mark-end").is_err());
    assert!(store.last_recovery().is_clean());
    assert_eq!(store.generation().unwrap(), 1);
}

/// Processor time of this thread in nanoseconds (proc_pid_schedstat of the kernel's documentation).
#[cfg(target_os = "linux")]
fn processor_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The processor time of `work` for so many files, over that for a quarter of them: about 4 where each
/// costs the same, 16 where each is compared with all. The least of a few, since others disturb.
#[cfg(target_os = "linux")]
fn growth(files: usize, work: impl Fn(&Store, usize)) -> Option<f64> {
    let cost = |files: usize| {
        let root = directory();
        let store = quick(root.path());
        put(&store, &[("a", "1")]);
        let before = processor_time()?;
        work(&store, files);
        Some(processor_time()? - before)
    };
    let least = |files| (0..2).map(|_| cost(files)).min().flatten();
    let (few, many) = (least(files / 4)?, least(files)?);
    Some(many as f64 / few as f64)
}

// 16,000 files in as many new directories took 15.7 s: each directory was looked for in a list of all.
#[cfg(target_os = "linux")]
#[test]
fn a_file_in_a_new_directory_costs_the_same_among_many() {
    let ratio = growth(4_000, |store, files| {
        let mut tx = store.begin().unwrap();
        (0..files).for_each(|number| tx.write(format!("{number}/file"), "").unwrap());
        tx.commit().unwrap();
    });
    match ratio {
        Some(ratio) => assert!(ratio < 9.0, "four times the files cost {ratio} times as much"),
        None => skipped(
            "limits::a_file_in_a_new_directory_costs_the_same_among_many",
            "nobody tells the processor time here",
        ),
    }
}

// Each write over a file of the same transaction looked at every precondition.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_written_again_costs_the_same_among_many() {
    let ratio = growth(12_000, |store, files| {
        let mut tx = store.begin().unwrap();
        for _ in 0..2 {
            (0..files).for_each(|number| tx.create_new(number.to_string(), "").unwrap());
        }
        tx.abort();
    });
    match ratio {
        Some(ratio) => assert!(ratio < 9.0, "four times the files cost {ratio} times as much"),
        None => skipped(
            "limits::a_file_that_is_written_again_costs_the_same_among_many",
            "nobody tells the processor time here",
        ),
    }
}
