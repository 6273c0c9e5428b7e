//! Crash-tests two ways to save a manifest with its lockfile, on a simulated
//! disk that loses power at every step. The first saves one after the other,
//! and is caught. The second saves both in one transaction, and passes.
//!
//! ```text
//! cargo run --example crash_test_your_save --features sim
//! ```
//!
//! Copy `Release` and put your own save in it.

#![allow(clippy::print_stdout, reason = "a program's output")]

use std::sync::Arc;

use cosave::Store;
use cosave::fs::FileSystem;
use cosave::fs::sim::explore::{Bounds, Case, Explorer, Progress, Report, Workload};
use cosave::fs::sim::{Model, SimDisk};

/// A program that saves its manifest and its lockfile, two releases in a row.
struct Release {
    save: fn(&Store, release: u64) -> cosave::Result<()>,
}

/// Wrong: after a crash between the two the lockfile is that of the release before.
fn one_after_the_other(store: &Store, release: u64) -> cosave::Result<()> {
    store.update(|tx| tx.write("manifest", release.to_string()))?;
    store.update(|tx| tx.write("lockfile", release.to_string()))?;
    Ok(())
}

fn both_at_once(store: &Store, release: u64) -> cosave::Result<()> {
    store.update(|tx| {
        tx.write("manifest", release.to_string())?;
        tx.write("lockfile", release.to_string())
    })?;
    Ok(())
}

impl Workload for Release {
    fn name(&self) -> String {
        "release".to_owned()
    }

    fn prepare(&self, disk: &SimDisk) {
        disk.put("manifest", b"0", 0o644);
        disk.put("lockfile", b"0", 0o644);
    }

    /// The program. It is killed at every step, so errors are expected.
    fn run(&self, _: &SimDisk, fs: Arc<dyn FileSystem>, progress: &Progress) {
        let Ok(store) = Store::options().open_on(fs) else { return };
        for release in 1..=2 {
            progress.request(release);
            if (self.save)(&store, release).is_err() {
                return;
            }
            progress.acknowledge(release);
        }
    }

    /// What the program does first when it is started again. Returns the release that it finds.
    fn recover(&self, fs: Arc<dyn FileSystem>) -> Result<u64, String> {
        let found = || {
            let store = Store::options().open_on(fs)?;
            store.view()?.read_to_string("manifest")
        };
        let text = found().map_err(|error| error.to_string())?;
        text.parse().map_err(|_| format!("the manifest is of release {text:?}"))
    }

    /// What must be true then: both are of one release, and none is older than what was acknowledged.
    fn check(&self, disk: &SimDisk, bounds: Bounds, manifest: u64) -> Result<(), String> {
        let lockfile = String::from_utf8_lossy(&disk.files()["lockfile"]).into_owned();
        if lockfile != manifest.to_string() {
            return Err(format!("the manifest is of release {manifest}, the lockfile of {lockfile}"));
        }
        if manifest < bounds.floor || manifest > bounds.ceiling {
            return Err(format!("release {manifest} was found, which is not one of {bounds:?}"));
        }
        Ok(())
    }
}

fn crash_test(save: fn(&Store, u64) -> cosave::Result<()>) -> Result<Report, Box<Case>> {
    // Every crash, and every crash of the recovery after it. Larger numbers look at more.
    let explorer = Explorer { depth: 1, outcomes_max: 8, ..Explorer::new(Model::WeakPosix) };
    explorer.explore(&Release { save })
}

fn main() -> Result<(), String> {
    match crash_test(one_after_the_other) {
        Ok(report) => return Err(format!("nobody noticed that two saves are not one: {report}")),
        Err(case) => {
            println!("one after the other: caught, {}\n    repeat it: {}", case.problem(), case.line())
        }
    }
    let report = crash_test(both_at_once).map_err(|case| case.to_string())?;
    println!("both at once: passed, {report}");
    Ok(())
}
