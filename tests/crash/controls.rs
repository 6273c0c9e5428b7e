//! Disks on which cosave cannot fulfil its promise, or only a part of it: what
//! must be true even there.
//!
//! If a rename can be torn, or a sync does nothing, no protocol made of renames
//! can keep its promise. Even then nothing may panic, and no file may change
//! that no transaction named. If the tree is not that of one generation, the
//! first recovery that finishes must report it. If directories cannot be
//! synced, the newest commits may be lost, but on one file system never a part
//! of one.

use std::sync::Arc;

use cosave::fs::FileSystem;
use cosave::fs::sim::explore::{Bounds, Explorer, Progress, Report, Workload};
use cosave::fs::sim::{Model, SimDisk};
use cosave::{Durability, Store};

use crate::exploration::is_in_every_run;
use crate::script::{Act, Script, found_on, remove, scenarios, write};

/// A script on a disk that breaks its own promises.
struct Control {
    script: Script,
    mixtures: Mixtures,
}

/// Trees that mix the files of several generations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mixtures {
    /// They may not occur.
    Forbidden,
    /// Recovery must report them.
    Reported,
    /// Recovery must report them, unless the disk has lost every manifest, so that nothing can tell.
    ReportedIfKnown,
    /// They may have been reported to a process that was killed.
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
        let mut found = found_on(disk);
        let foreign = found.remove("foreign.cosave");
        if foreign.as_deref() != Some(b"f") {
            return Err(format!("a foreign file is {foreign:?}"));
        }
        // Without syncs, staged files can survive while the session's record of them is lost.
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
        Err(format!("a mixture that no recovery reports: {found:?}"))
    }
}

fn explore(script: Script, model: Model, mixtures: Mixtures) -> Report {
    // A killed recovery cannot report anything.
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
    let model = Model::NoDirectorySync;
    let wanted = |script: &Script| plain(script) && is_in_every_run(model, &script.name());
    for script in scenarios().into_iter().filter(wanted) {
        let report = explore(script, model, Mixtures::Forbidden);
        assert!(report.states > 1000, "{report}");
    }
}
