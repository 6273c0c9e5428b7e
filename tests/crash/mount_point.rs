//! A target that is itself a mount point cannot be renamed over, and is copied over instead. Killed in
//! the copy, recovery took our own half-written bytes for somebody's edit, and kept them.

use cosave::Store;
use cosave::fs::Barrier;
use cosave::fs::sim::{Aftermath, Crash, Fault, Model, Mutation, Part, SimDisk};

const OUTCOMES_MAX: usize = 60;
const NESTED_OUTCOMES_MAX: usize = 12;
const ENOSPC: i32 = 28;

fn disk(model: Model) -> SimDisk {
    let disk = SimDisk::new(model);
    for (path, content) in [("target", "the old one"), ("beside", "old")] {
        disk.put(path, content.as_bytes(), 0o644);
    }
    disk.settle();
    disk.mount_over("target");
    disk
}

fn save(disk: &SimDisk) -> cosave::Result<()> {
    let store = Store::options().open_on(disk.process())?;
    store.update(|tx| {
        tx.write("beside", "new")?;
        tx.write("target", "all of the new one")
    })?;
    Ok(())
}

fn check(disk: &SimDisk) -> Result<(), String> {
    let store = Store::options().open_on(disk.process()).map_err(|error| format!("{error:?}"))?;
    let report = store.last_recovery();
    if !report.differences.is_empty() {
        return Err(format!("nobody has edited anything: {report:?}"));
    }
    let files = disk.files();
    let new = store.generation().map_err(|error| error.to_string())? == 1;
    let expected: [&[u8]; 2] = if new { [b"new", b"all of the new one"] } else { [b"old", b"the old one"] };
    if [files["beside"].as_slice(), &files["target"]] != expected || files.len() != 2 {
        return Err(format!("new: {new}, {files:?}"));
    }
    drop(store);
    let left = disk.control_names().into_iter().find(|name| name.contains("copying"));
    left.map_or(Ok(()), |name| Err(format!("{name} is left")))
}

/// Cuts the recovery short at every step.
fn check_nested(disk: &SimDisk) -> Result<(), String> {
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(Crash { after, reversed: false });
        let ended = Store::options().open_on(machine.process()).is_ok();
        let losses = machine.power_losses(NESTED_OUTCOMES_MAX, after);
        for found in [machine.kill()].into_iter().chain(losses) {
            check(&found).map_err(|problem| format!("recovery cut short after {after}: {problem}"))?;
        }
        if ended {
            break;
        }
    }
    Ok(())
}

fn explore(model: Model, mutation: Option<Mutation>) -> Result<(), String> {
    for after in 0.. {
        let machine = disk(model);
        machine.mutate(mutation);
        machine.crash_at(Crash { after, reversed: after % 2 == 1 });
        let saved = save(&machine);
        check_nested(&machine.kill())
            .map_err(|problem| format!("{model:?}, crash after {after}: {problem}"))?;
        let losses = machine.power_losses(OUTCOMES_MAX, after);
        for (index, found) in [machine.kill()].into_iter().chain(losses).enumerate() {
            check(&found)
                .map_err(|problem| format!("{model:?}, crash after {after}, outcome {index}: {problem}"))?;
        }
        if saved.is_ok() {
            return check(&machine.kill());
        }
    }
    unreachable!("a commit has an end")
}

#[test]
fn a_copy_over_a_mount_point_can_be_cut_short_anywhere() {
    for model in [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix] {
        explore(model, None).unwrap();
    }
}

/// A copy whose mark cannot be made does not begin: cut short, it would pass for an edit.
#[test]
fn an_error_at_any_call_of_a_copy_can_be_followed_by_a_crash() {
    let calls = {
        let machine = disk(Model::WeakPosix);
        save(&machine).unwrap();
        machine.calls()
    };
    for failing in 0..calls {
        for after in 0.. {
            let machine = disk(Model::WeakPosix);
            let aftermath = Aftermath::CacheShowsNew;
            machine.fail_at(&[Fault { after: failing, error: ENOSPC, persistent: false, aftermath }]);
            machine.crash_at(Crash { after, reversed: false });
            drop(save(&machine));
            let was_cut = machine.has_crashed();
            for found in machine.power_losses(NESTED_OUTCOMES_MAX, after).into_iter().chain([machine.kill()])
            {
                check(&found)
                    .unwrap_or_else(|problem| panic!("an error at {failing}, cut after {after}: {problem}"));
            }
            if !was_cut {
                break;
            }
        }
    }
}

#[test]
fn the_mark_of_a_copy_is_missed() {
    let mutation = Mutation::Skip(Barrier::Copying, Part::Everything);
    assert!(explore(Model::WeakPosix, Some(mutation)).is_err());
}
