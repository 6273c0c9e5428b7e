//! A disk that gives the blocks of a removed file to others at once.
//!
//! ext4 does so with `data=writeback`. A power loss can then bring a removed or
//! replaced file back with somebody else's bytes, as a cut on a real disk has
//! shown. What was committed must be found all the same, nothing may be
//! refused, and only what was removed may stay, with bytes that are nobody's.

use std::sync::Arc;

use cosave::fs::FileSystem;
use cosave::fs::sim::explore::{Bounds, Explorer, Progress, Workload};
use cosave::fs::sim::{Model, Mutation, Rule, SimDisk};
use cosave::{Problem, Store};

use crate::exploration::is_in_every_run;
use crate::script::{Script, found_on, scenarios, seen_at};

/// A scenario whose removed files may come back with other bytes.
struct Reused(Script);

impl Reused {
    /// Whether a commit or the beginning has these bytes at any path.
    fn knows(&self, bytes: &[u8]) -> bool {
        self.0.trees().iter().flat_map(|tree| tree.values()).any(|known| known == bytes)
    }
}

impl Workload for Reused {
    fn name(&self) -> String {
        self.0.name()
    }

    fn prepare(&self, disk: &SimDisk) {
        self.0.prepare(disk);
    }

    fn run(&self, disk: &SimDisk, fs: Arc<dyn FileSystem>, progress: &Progress) {
        self.0.run(disk, fs, progress);
    }

    fn glance(&self, disk: &SimDisk, bounds: Bounds) -> Result<(), String> {
        let text = |error: cosave::Error| error.to_string();
        let store = Store::options().read_only(true).open_on(disk.copy().process()).map_err(text)?;
        let view = store.view().map_err(text)?;
        let generation = view.generation().get();
        if generation > bounds.ceiling {
            return Err(format!("a view shows generation {generation}, which nobody asked for"));
        }
        for (path, bytes) in &self.0.trees()[generation as usize] {
            let found = seen_at(&view, path).map_err(text)?;
            if found.as_ref() != Some(bytes) {
                return Err(format!("a view of generation {generation} shows {path} as {found:?}"));
            }
        }
        Ok(())
    }

    fn recover(&self, fs: Arc<dyn FileSystem>) -> Result<u64, String> {
        let text = |error: cosave::Error| error.to_string();
        let store = Store::options().keep(self.0.keep).open_on(fs).map_err(text)?;
        let found = store.verify().map_err(|error| format!("verify: {error}"))?;
        if let Some(wrong) = found.into_iter().find(|found| found.problem != Problem::Present) {
            return Err(format!("verify found {wrong}"));
        }
        store.generation().map(cosave::Generation::get).map_err(text)
    }

    fn check(&self, disk: &SimDisk, bounds: Bounds, recovered: u64) -> Result<(), String> {
        if recovered < bounds.floor || recovered > bounds.ceiling {
            return Err(format!("recovered generation {recovered}, outside {bounds:?}"));
        }
        let (found, trees) = (found_on(disk), self.0.trees());
        let expected = &trees[recovered as usize];
        for (path, bytes) in expected {
            if found.get(path) != Some(bytes) {
                return Err(format!("generation {recovered} has {path} as {:?}", found.get(path)));
            }
        }
        let is_wrong =
            |(path, bytes): &(&String, &Vec<u8>)| !expected.contains_key(*path) && self.knows(bytes);
        match found.iter().find(is_wrong) {
            Some((path, _)) => Err(format!("generation {recovered} has {path}, which it has not")),
            None => Ok(()),
        }
    }
}

/// The first problem of any scenario, and how many states were looked at.
fn explore(mutation: Option<Mutation>) -> Result<u64, String> {
    let is_plain = |script: &Script| {
        script.stranger.is_none() && !script.successor && is_in_every_run(Model::WeakPosix, &script.name)
    };
    let mut states = 0;
    for script in scenarios().into_iter().filter(is_plain) {
        let explorer = Explorer { depth: 1, outcomes_max: 2, mutation, ..Explorer::new(Model::ReusedBlocks) };
        let report = explorer.explore(&Reused(script)).map_err(|case| case.to_string())?;
        states += report.states;
    }
    Ok(states)
}

#[test]
fn files_that_come_back_with_the_bytes_of_others_harm_no_commit() {
    let states = explore(None).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(states > 10_000, "{states}");
}

#[test]
fn a_superseded_manifest_that_comes_back_damaged_would_be_noticed() {
    let found = explore(Some(Mutation::Break(Rule::DistrustRemoved)));
    assert!(found.as_ref().is_err_and(|problem| problem.contains("verify")), "{found:?}");
}
