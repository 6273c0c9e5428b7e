//! An application whose state is spread over fifty files. It saves snapshots of
//! all of them while readers check that they only ever see one whole snapshot.
//!
//! ```text
//! cargo run --release --example app_state [-- [SNAPSHOTS] [READERS]]
//! ```
//!
//! Ends with an error if a reader ever saw a mix of two.

#![allow(clippy::print_stdout, reason = "a program's output")]
#![allow(clippy::disallowed_methods, reason = "only the library must go through its file-system trait")]

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cosave::{Durability, Store};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const FILES: usize = 50;
const DIRECTORIES: usize = 5;
const FILE_BYTES: usize = 4096;
/// Writers wait while a view is open, so a reader that never rests would stop them.
const REST: Duration = Duration::from_millis(1);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let snapshots: u64 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let readers: usize = arguments.next().map_or(Ok(4), |text| text.parse())?;

    let directory = std::env::temp_dir().join(format!("cosave-app-state-{}", std::process::id()));
    let result = [Durability::Full, Durability::Committed, Durability::Process]
        .into_iter()
        .try_for_each(|durability| measure(&directory, durability, snapshots, readers));
    std::fs::remove_dir_all(&directory)?;
    result
}

fn measure(
    directory: &std::path::Path,
    durability: Durability,
    snapshots: u64,
    readers: usize,
) -> Result<()> {
    let root = directory.join(format!("{durability:?}"));
    let store = Store::options().create(true).durability(durability).open(&root)?;
    save(&store, 0)?;
    let done = AtomicBool::new(false);

    let (took, views) = std::thread::scope(|scope| -> Result<(Duration, u64)> {
        let readers: Vec<_> = (0..readers).map(|_| scope.spawn(|| read_until(&root, &done))).collect();
        let began = Instant::now();
        let saved = (1..=snapshots).try_for_each(|snapshot| save(&store, snapshot));
        let took = began.elapsed();
        done.store(true, Ordering::SeqCst);
        let mut views = 0;
        for reader in readers {
            views += reader.join().map_err(|_| "a reader panicked")??;
        }
        saved?;
        Ok((took, views))
    })?;

    println!(
        "{:<10} {snapshots} snapshots of {FILES} files in {:.2} s: {:.1} a second; {views} views, no mix",
        format!("{durability:?}"),
        took.as_secs_f64(),
        snapshots as f64 / took.as_secs_f64(),
    );
    Ok(())
}

fn path(file: usize) -> String {
    format!("state-{}/part-{file:02}.txt", file % DIRECTORIES)
}

/// Saves one snapshot. Every file names its snapshot at its beginning and at its end.
fn save(store: &Store, snapshot: u64) -> Result<()> {
    let mut tx = store.begin()?;
    for file in 0..FILES {
        let line = format!("snapshot {snapshot}\n");
        tx.write(path(file), line.repeat(FILE_BYTES / line.len()))?;
    }
    tx.commit()?;
    Ok(())
}

/// Reads views until told to stop, through its own store, as another process would.
fn read_until(root: &std::path::Path, done: &AtomicBool) -> Result<u64> {
    let store = Store::open(root)?;
    let mut views = 0;
    let mut newest = 0;
    while !done.load(Ordering::SeqCst) {
        let snapshot = read_snapshot(&store)?;
        if snapshot < newest {
            return Err(format!("snapshot {snapshot} after {newest}").into());
        }
        newest = snapshot;
        views += 1;
        std::thread::sleep(REST);
    }
    Ok(views)
}

/// Reads every file of one view, checks that all are of one snapshot, and returns which.
fn read_snapshot(store: &Store) -> Result<u64> {
    let view = store.view()?;
    let mut seen = None;
    for file in 0..FILES {
        let text = String::from_utf8(view.read(path(file))?)?;
        for line in text.lines() {
            let snapshot: u64 = line.trim_start_matches("snapshot ").parse()?;
            if *seen.get_or_insert(snapshot) != snapshot {
                return Err(format!("a mix: {} is of snapshot {snapshot}, not {seen:?}", path(file)).into());
            }
        }
    }
    seen.ok_or_else(|| "an empty snapshot".into())
}
