//! How long a commit takes, compared with the plain loop that it replaces.
//! `cargo bench --bench commit [-- DIR]`
//!
//! `DIR` chooses the disk to measure; without it, that of the build directory.
//! The comparison with other libraries is in `benches/peers`.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and has nothing to recover from an error"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use cosave::{Durability, Store, SyncStrategy};

const COUNTS: [usize; 5] = [1, 2, 10, 100, 1000];
const FILE_SIZE: usize = 4096;
const SAVES_MIN: usize = 3;
const BUDGET: Duration = Duration::from_millis(500);

/// The median time of one save in milliseconds. The first save is not counted.
fn median(mut save: impl FnMut(&[u8])) -> f64 {
    let mut content = vec![0; FILE_SIZE];
    save(&content);
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < SAVES_MIN || start.elapsed() < BUDGET {
        content.fill(times.len() as u8);
        let start = Instant::now();
        save(&content);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn plain(root: &Path, count: usize, content: &[u8]) {
    for index in 0..count {
        let (new, path) = (root.join("new"), root.join(format!("file{index}")));
        let mut file = File::create(&new).unwrap();
        file.write_all(content).unwrap();
        file.sync_all().unwrap();
        fs::rename(&new, path).unwrap();
        File::open(root).unwrap().sync_all().unwrap();
    }
}

fn commit(store: &Store, count: usize, content: &[u8]) {
    let mut transaction = store.begin().unwrap();
    for index in 0..count {
        transaction.write(format!("file{index}"), content).unwrap();
    }
    transaction.commit().unwrap();
}

fn main() {
    // Cargo adds `--bench`, so the directory is the argument without dashes.
    let dir = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let dir = dir.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());
    let dir = tempfile::tempdir_in(dir).unwrap();
    let row = |name: &str, measure: &dyn Fn(&Path, usize) -> f64| {
        print!("{name:<24}");
        for count in COUNTS {
            let root = tempfile::tempdir_in(dir.path()).unwrap();
            print!("{:>12.2}", measure(root.path(), count));
            std::io::stdout().flush().unwrap();
        }
        println!();
    };
    println!("milliseconds to replace N files of 4 KiB, in {}", dir.path().display());
    print!("{:<24}", "");
    COUNTS.iter().for_each(|count| print!("{count:>12}"));
    println!();
    row("plain loop", &|root, count| median(|content| plain(root, count, content)));
    for (name, durability, strategy) in [
        ("cosave full", Durability::Full, SyncStrategy::Auto),
        ("cosave full, syncfs", Durability::Full, SyncStrategy::FileSystem),
        ("cosave committed", Durability::Committed, SyncStrategy::Auto),
        ("cosave process", Durability::Process, SyncStrategy::Auto),
    ] {
        row(name, &|root, count| {
            let store = Store::options().durability(durability).sync_strategy(strategy).open(root).unwrap();
            median(|content| commit(&store, count, content))
        });
    }
}
