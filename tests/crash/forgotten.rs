//! A history that is removed as a whole: gone for good once that is acknowledged.

use std::sync::Arc;

use cosave::Store;
use cosave::fs::FileSystem;
use cosave::fs::sim::SimDisk;
use cosave::fs::sim::explore::{Bounds, Progress, Workload};

/// Saves a secret, replaces it, and removes the history.
pub struct Forgetting;

/// How far a run can come: two commits, and then the history is removed.
const COMMITS: u64 = 2;
const FORGOTTEN: u64 = COMMITS + 1;

impl Workload for Forgetting {
    fn name(&self) -> String {
        "a history that is removed".to_owned()
    }

    fn prepare(&self, disk: &SimDisk) {
        disk.put("a", b"0", 0o600);
    }

    fn run(&self, _: &SimDisk, fs: Arc<dyn FileSystem>, progress: &Progress) {
        let Ok(store) = Store::options().keep(5).open_on(fs) else { return };
        for generation in 1..=COMMITS {
            progress.request(generation);
            if store.update(|tx| tx.write("a", generation.to_string())).is_ok() {
                progress.acknowledge(generation);
            }
        }
        progress.request(FORGOTTEN);
        if store.forget_history().is_ok() {
            progress.acknowledge(FORGOTTEN);
        }
    }

    fn recover(&self, fs: Arc<dyn FileSystem>) -> Result<u64, String> {
        let store = Store::options().open_on(fs).map_err(|error| error.to_string())?;
        store.generation().map(cosave::Generation::get).map_err(|error| error.to_string())
    }

    fn check(&self, disk: &SimDisk, bounds: Bounds, recovered: u64) -> Result<(), String> {
        let found = disk.files().get("a").map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        if found != Some(recovered.to_string()) {
            return Err(format!("the file is {found:?} in generation {recovered}"));
        }
        if recovered < bounds.floor.min(COMMITS) || recovered > bounds.ceiling {
            return Err(format!("found generation {recovered}, outside {bounds:?}"));
        }
        let kept = disk.control_names().into_iter().find(|name| name.starts_with("history"));
        match kept.filter(|_| bounds.floor == FORGOTTEN) {
            Some(kept) => Err(format!("{kept} has come back")),
            None => Ok(()),
        }
    }
}
