//! What a commit of very many changes costs, and what a small one costs beside very many other files.
//! `cargo bench --bench many [-- DIR]`
//!
//! `DIR` chooses the disk; without it `/dev/shm`, where waits cost nothing, so that what is left is
//! cosave's own. Each figure comes from a process of its own, for its peak of memory.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and has nothing to recover from an error"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use cosave::{Store, Transaction};

const COUNTS: [usize; 3] = [1_000, 10_000, 100_000];
const FILES_OF_A_DIRECTORY: usize = 1_000;
const CONTENT: &[u8] = b"a few bytes, as in a small file of a package";

type Change = fn(&mut Transaction, usize) -> cosave::Result<()>;

/// What an operation finds.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Files,
    /// Each with a file in it.
    Directories,
}

/// An operation, what it finds, and one change of a commit.
const OPERATIONS: [(&str, Before, Change); 12] = [
    ("write new files", Before::Nothing, |tx, index| tx.write(path(index), CONTENT)),
    ("replace files", Before::Files, |tx, index| tx.write(path(index), "new")),
    ("remove files", Before::Files, |tx, index| tx.remove(path(index))),
    ("rename files", Before::Files, |tx, index| tx.rename(path(index), format!("{}-new", path(index)))),
    ("copy files", Before::Files, |tx, index| tx.copy(path(index), format!("{}-new", path(index)))),
    ("set permissions", Before::Files, |tx, index| tx.set_permissions(path(index), 0o600)),
    ("make symlinks", Before::Nothing, |tx, index| tx.symlink(format!("link{index}"), "elsewhere")),
    ("make directories", Before::Nothing, |tx, index| tx.create_dir(format!("made{index}"))),
    ("make nested directories", Before::Nothing, |tx, index| {
        tx.create_dir_all(format!("made{}/{index}/deep", index / FILES_OF_A_DIRECTORY))
    }),
    ("prune directories", Before::Directories, |tx, index| {
        tx.prune_empty_parents();
        tx.remove(format!("d{index}/f"))
    }),
    ("move directories", Before::Directories, |tx, index| {
        tx.rename(format!("d{index}"), format!("moved{index}"))
    }),
    ("remove whole directories", Before::Directories, |tx, index| tx.remove_dir_all(format!("d{index}"))),
];

/// Two files, in a root that holds others already.
const BESIDE: &str = "two files beside others";

/// Files are replaced by a store that keeps what it replaces.
const KEPT: &str = "replace files, kept";
/// And then brought back.
const UNDONE: &str = "undo that";

fn path(index: usize) -> String {
    format!("d{}/f{index}", index / FILES_OF_A_DIRECTORY)
}

fn fill(root: &Path, count: usize) {
    for index in 0..count {
        if index % FILES_OF_A_DIRECTORY == 0 {
            fs::create_dir(root.join(format!("d{}", index / FILES_OF_A_DIRECTORY))).unwrap();
        }
        fs::write(root.join(path(index)), CONTENT).unwrap();
    }
}

fn fill_directories(root: &Path, count: usize) {
    for index in 0..count {
        let directory = root.join(format!("d{index}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("f"), CONTENT).unwrap();
    }
}

/// The most memory that this process has had, in mebibytes, where the system tells.
fn peak() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kibibytes| kibibytes / 1024.0)
}

fn peak_before_and_after(work: impl FnOnce()) -> f64 {
    let before = peak().unwrap_or_default();
    work();
    peak().unwrap_or_default() - before
}

/// Microseconds for each change (of the whole save beside others), and mebibytes.
fn measure(operation: &str, count: usize, root: &Path) -> (f64, f64) {
    if operation == BESIDE {
        const SAVES: u32 = 200;
        fill(root, count);
        let mut time = 0.0;
        let memory = peak_before_and_after(|| {
            let started = Instant::now();
            for number in 0..SAVES {
                let store = Store::open(root).unwrap();
                let save = |tx: &mut Transaction| {
                    tx.write("manifest", number.to_string())?;
                    tx.write("d0/lock", number.to_string())
                };
                store.update(save).unwrap();
            }
            time = started.elapsed().as_secs_f64() * 1e6 / f64::from(SAVES);
        });
        return (time, memory);
    }
    if operation == KEPT || operation == UNDONE {
        fill(root, count);
        let store = Store::options().keep(5).open(root).unwrap();
        let replace =
            || store.update(|tx| (0..count).try_for_each(|index| tx.write(path(index), "new"))).unwrap();
        let mut time = 0.0;
        let mut timed = |work: &dyn Fn() -> cosave::Commit| {
            let started = Instant::now();
            work();
            time = started.elapsed().as_secs_f64() * 1e6 / count as f64;
        };
        if operation == KEPT {
            let memory = peak_before_and_after(|| timed(&replace));
            return (time, memory);
        }
        replace();
        let memory = peak_before_and_after(|| timed(&|| store.undo().unwrap()));
        return (time, memory);
    }
    let (_, before, change) = OPERATIONS.into_iter().find(|(name, ..)| *name == operation).unwrap();
    match before {
        Before::Nothing => {}
        Before::Files => fill(root, count),
        Before::Directories => fill_directories(root, count),
    }
    let store = Store::open(root).unwrap();
    let mut time = 0.0;
    let memory = peak_before_and_after(|| {
        let started = Instant::now();
        let mut tx = store.begin().unwrap();
        (0..count).try_for_each(|index| change(&mut tx, index)).unwrap();
        tx.commit().unwrap();
        time = started.elapsed().as_secs_f64() * 1e6 / count as f64;
    });
    (time, memory)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let [operation, count, root] = words.as_slice() {
        let (time, memory) = measure(operation, count.parse().unwrap(), Path::new(root));
        println!("{time} {memory}");
        return;
    }
    let in_memory = Path::new("/dev/shm");
    let default = if in_memory.is_dir() { in_memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    let dir = words.first().map_or(default.to_owned(), PathBuf::from);
    println!("microseconds for each change (of a whole save in the last row), and mebibytes of memory, in");
    println!(
        "{}, for this number of changes in one commit (of files in the root in the last row)",
        dir.display()
    );
    print!("{:<26}", "");
    COUNTS.iter().for_each(|count| print!("{count:>20}"));
    println!();
    for operation in OPERATIONS.map(|(name, ..)| name).into_iter().chain([KEPT, UNDONE, BESIDE]) {
        print!("{operation:<26}");
        for count in COUNTS {
            let root = tempfile::tempdir_in(&dir).unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap());
            let child = child.arg(operation).arg(count.to_string()).arg(root.path());
            let said = String::from_utf8(child.output().unwrap().stdout).unwrap();
            let figures: Vec<f64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
            print!("{:>11.1} {:>4.0} MiB", figures[0], figures[1]);
            std::io::stdout().flush().unwrap();
        }
        println!();
    }
}
