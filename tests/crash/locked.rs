//! Commits under the lock of a root, with every crash and power loss. Each keeps the promises of any other
//! commit, and the lock dies with its holder.

use std::collections::BTreeMap;
use std::time::Duration;

use cosave::fs::sim::{Crash, Model, SimDisk};
use cosave::{Durability, Store};

use crate::rules::staged_names;

const MODELS: [Model; 3] = [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix];
const OUTCOMES_MAX: usize = 40;

/// The commits under the lock, one after the other. `None` removes a path.
type Changes = &'static [(&'static str, Option<&'static str>)];
const COMMITS: [Changes; 3] = [
    &[("a", Some("a1")), ("b", Some("b1"))],
    &[("a", Some("a2")), ("new/c", Some("c2")), ("b", None)],
    &[("b", Some("b3")), ("new/c", None)],
];

/// The files after each generation.
fn trees() -> Vec<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::from([("a".to_owned(), b"a0".to_vec()), ("b".to_owned(), b"b0".to_vec())]);
    let mut trees = vec![files.clone()];
    for changes in COMMITS {
        for (path, content) in changes {
            match content {
                Some(content) => files.insert((*path).to_owned(), content.as_bytes().to_vec()),
                None => files.remove(*path),
            };
        }
        trees.push(files.clone());
    }
    trees
}

fn work(disk: &SimDisk, durability: Durability, acknowledged: &mut u64) -> cosave::Result<()> {
    let store = Store::options().durability(durability).open_on(disk.process())?;
    let lock = store.lock()?;
    for (index, changes) in COMMITS.iter().enumerate() {
        // Through the guard, and by the thread that has the lock.
        let through = if index % 2 == 0 { &lock } else { &store };
        let commit = through.update(|tx| {
            changes.iter().try_for_each(|(path, content)| match content {
                Some(content) => tx.write(path, content),
                None => tx.remove(path),
            })
        })?;
        *acknowledged = commit.generation().get();
    }
    drop(lock);
    drop(store.lock()?);
    Ok(())
}

fn check(found: &SimDisk, acknowledged: u64, trees: &[BTreeMap<String, Vec<u8>>]) -> Result<(), String> {
    let next = Store::options().lock_timeout(Duration::ZERO).open_on(found.process()).unwrap();
    let generation = next.generation().unwrap().get();
    let files: BTreeMap<_, _> =
        found.files().into_iter().filter(|(path, _)| !path.starts_with(".cosave/")).collect();
    if generation < acknowledged || generation > acknowledged + 1 {
        return Err(format!("generation {generation}, and {acknowledged} was acknowledged"));
    }
    if files != trees[usize::try_from(generation).unwrap()] {
        return Err(format!("generation {generation} has {files:?}"));
    }
    let lock = next.lock().map_err(|error| format!("a dead holder keeps the lock: {error}"))?;
    lock.update(|tx| tx.write("after", "it"))
        .map_err(|error| format!("nothing can be committed: {error}"))?;
    if staged_names(found).is_empty() { Ok(()) } else { Err("a staged file is left".into()) }
}

#[test]
fn commits_under_a_lock_keep_every_promise_and_the_lock_dies_with_its_holder() {
    let trees = trees();
    let mut seen = 0;
    for model in MODELS {
        for durability in [Durability::Full, Durability::Committed] {
            for after in 0.. {
                let disk = SimDisk::new(model);
                for (path, content) in [("a", b"a0"), ("b", b"b0")] {
                    disk.put(path, content, 0o644);
                }
                disk.settle();
                disk.crash_at(Crash { after, reversed: after % 2 == 0 });
                let mut acknowledged = 0;
                let worked = work(&disk, durability, &mut acknowledged);
                for found in disk.power_losses(OUTCOMES_MAX, after).iter().chain([&disk.kill()]) {
                    seen += 1;
                    let checked = check(found, acknowledged, &trees);
                    assert_eq!(checked, Ok(()), "{model:?}, {durability:?}, after {after} steps");
                }
                if worked.is_ok() {
                    break;
                }
            }
        }
    }
    assert!(seen > 1000, "only {seen} crashes");
}
