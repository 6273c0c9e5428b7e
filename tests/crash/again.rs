//! One path that is saved again and again before anything is retired. A power loss in the last wave can
//! undo the move of the commit before it, and lose the last staged file.
//!
//! A setting that was switched on and off again came back on, though the last commit was said to be
//! finished. The original has the bytes of the last commit, so nothing was missing there. But recovery
//! moved the file of the commit in between over it. No scenario went back to an old content.

use cosave::fs::sim::{Crash, Granularity, Model, SimDisk};
use cosave::{Durability, Store};

use crate::rules::{content, open};

const OUTCOMES_MAX: usize = 300;

/// The contents of a path, one commit after the other; `None` where it is removed.
type Contents = &'static [Option<&'static str>];

/// The first content is there at first. All have one length, so that no stamp tells them apart on a clock
/// that stands still.
const CASES: &[Contents] = &[
    &[Some("x0"), Some("x1"), Some("x2")],
    &[Some("x0"), Some("x1"), Some("x0")],
    &[Some("x0"), None, Some("x2")],
    &[Some("x0"), Some("x1"), None, Some("x3")],
    &[None, Some("x1"), Some("x2")],
    &[None, Some("x1"), None, Some("x3")],
];

fn save(disk: &SimDisk, contents: Contents) -> cosave::Result<()> {
    let store = Store::options().durability(Durability::Committed).open_on(disk.process())?;
    for content in &contents[1..] {
        store.update(|tx| match content {
            Some(content) => tx.write("x", content),
            None => tx.remove("x"),
        })?;
    }
    // Nothing is waited for when it ends.
    disk.crash_at(Crash { after: 0, reversed: false });
    Ok(())
}

fn check(found: &SimDisk, contents: Contents) {
    let store = open(found);
    let report = store.last_recovery();
    let generation = usize::try_from(store.generation().unwrap().get()).unwrap();
    assert_eq!(content(found, "x"), contents[generation].unwrap_or("nothing"), "{contents:?}: {report}");
    assert!(report.differences.is_empty(), "{contents:?}: {report}");
}

#[test]
fn a_path_that_is_saved_again_and_again_is_as_one_of_its_commits_left_it() {
    for contents in CASES {
        for (clock, reversed) in [(Granularity::Fine, false), (Granularity::Still, true)] {
            for after in 0.. {
                let disk = SimDisk::new(Model::WeakPosix);
                disk.clock(clock);
                if let Some(first) = contents[0] {
                    disk.put("x", first.as_bytes(), 0o644);
                }
                disk.settle();
                disk.crash_at(Crash { after, reversed });
                let saved = save(&disk, contents);
                for found in disk.power_losses(OUTCOMES_MAX, after).iter().chain([&disk.kill()]) {
                    check(found, contents);
                }
                if saved.is_ok() {
                    break;
                }
            }
        }
    }
}
