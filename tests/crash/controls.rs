//! Disks on which the promise cannot hold, or only half of it: what must hold all the same.
//!
//! Where a rename falls into parts, or a sync is a lie, no protocol of renames can keep its promise.
//! Then nothing may panic, no file that no transaction named may be touched, and a tree that is not
//! one generation's must be reported by the first recovery that ends. Where directories cannot be
//! synced, the newest commits may be lost, but on one file system never a part of one.

use std::sync::Arc;

use cosave::fs::FileSystem;
use cosave::fs::sim::explore::{Bounds, Explorer, Progress, Report, Workload};
use cosave::fs::sim::{Model, SimDisk};
use cosave::{Durability, Store};

use crate::script::{Act, Script, remove, scenarios, write};

/// A script on a disk that does not keep its word.
struct Control {
    script: Script,
    mixtures: Mixtures,
}

/// Trees that are not one generation's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mixtures {
    /// Must not be.
    Forbidden,
    /// Must be reported.
    Reported,
    /// Must be reported, unless the disk has lost every manifest, so that nobody can know.
    ReportedIfKnown,
    /// May have been reported to a process that was killed.
    Allowed,
}

const UNKNOWN: u64 = 0;
const CLEAN: u64 = 1;
const REPORTED: u64 = 2;

impl Workload for Control {
    fn name(&self) -> String {
        self.script.name()
    }

    fn prepare(&self, disk: &SimDisk) {
        self.script.prepare(disk);
        disk.put("foreign.cosave", b"f", 0o600);
    }

    fn run(&self, disk: &SimDisk, fs: Arc<dyn FileSystem>, progress: &Progress) {
        self.script.run(disk, fs, progress);
    }

    fn recover(&self, fs: Arc<dyn FileSystem>) -> Result<u64, String> {
        let looked = Store::options().open_on(fs).and_then(|store| {
            let reported = !store.last_recovery().differences.is_empty() || !store.verify()?.is_empty();
            Ok((reported, store.generation()?.get()))
        });
        let found = match looked {
            Err(error) if self.mixtures == Mixtures::Forbidden => return Err(error.to_string()),
            Err(_) | Ok((true, _)) => REPORTED,
            Ok((false, 0)) => UNKNOWN,
            Ok((false, _)) => CLEAN,
        };
        Ok(found)
    }

    fn check(&self, disk: &SimDisk, _: Bounds, recovered: u64) -> Result<(), String> {
        let mut found = disk.files();
        let foreign = found.remove("foreign.cosave");
        if foreign.as_deref() != Some(b"f") {
            return Err(format!("a foreign file is {foreign:?}"));
        }
        // What a session staged can outlast the record of where, when no sync keeps the record.
        found.retain(|path, _| !path.ends_with(".cosave"));
        let is_accepted = match self.mixtures {
            Mixtures::Forbidden => false,
            Mixtures::Reported => recovered == REPORTED,
            Mixtures::ReportedIfKnown => recovered != CLEAN,
            Mixtures::Allowed => true,
        };
        if is_accepted || self.script.trees().contains(&found) {
            return Ok(());
        }
        Err(format!("a mixture that nobody reports: {found:?}"))
    }
}

fn explore(script: Script, model: Model, mixtures: Mixtures) -> Report {
    // A recovery that is killed has nobody to report to.
    let depth = if matches!(mixtures, Mixtures::Reported | Mixtures::ReportedIfKnown) { 0 } else { 1 };
    let explorer = Explorer { depth, outcomes_max: 4, ..Explorer::new(model) };
    let control = Control { script, mixtures };
    match explorer.explore(&control) {
        Ok(report) => {
            println!("{model:?} {}: {report}", control.name());
            report
        }
        Err(case) => panic!("{case}"),
    }
}

#[test]
fn on_a_disk_that_lies_nothing_is_silently_mixed_and_nothing_foreign_is_touched() {
    let old = [("a", "a0"), ("b", "b0"), ("d/c", "c0"), ("untouched/me", "me")];
    for (model, reported) in
        [(Model::TornRename, Mixtures::Reported), (Model::LyingSync, Mixtures::ReportedIfKnown)]
    {
        for (durability, mixtures) in [
            (Durability::Full, reported),
            (Durability::Committed, reported),
            (Durability::Full, Mixtures::Allowed),
        ] {
            let changes = vec![write("a", "a1"), write("d/c", "c1"), write("d/new", "n1"), remove("b")];
            let script = Script::new("one commit", &old, vec![Act::Commit(changes)]).durability(durability);
            let report = explore(Script { lenient: true, ..script }, model, mixtures);
            assert!(report.states > 400, "{report}");
        }
    }
}

#[test]
fn where_directories_cannot_be_synced_every_commit_is_whole_or_not_there() {
    let plain = |script: &Script| script.stranger.is_none() && !script.successor && script.mounts.is_empty();
    for script in scenarios().into_iter().filter(plain) {
        let report = explore(script, Model::NoDirectorySync, Mixtures::Forbidden);
        assert!(report.states > 1000, "{report}");
    }
}
