//! Directories that are built in the place of files: a try that is refused, and another one.

use cosave::fs::sim::{Model, Rule, SimDisk, without};

use crate::rules::{content, expect, open};

/// The built files had their own names already. One was removed before the next try, and nothing synced that. It
/// came back in the new directory, after the commit was acknowledged.
#[test]
fn a_file_that_is_removed_after_a_refused_try_stays_removed() {
    for model in [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix] {
        assert_eq!(removed_after_a_refused_try(model), Ok(()), "{model:?}");
    }
    for model in [Model::JumpingPrefix, Model::WeakPosix] {
        let broken = without(Some(Rule::SyncBuilt), || removed_after_a_refused_try(model));
        assert!(broken.is_err(), "nobody noticed in {model:?}");
    }
}

fn removed_after_a_refused_try(model: Model) -> Result<(), String> {
    let disk = SimDisk::new(model);
    disk.put("x", b"x0", 0o644);
    disk.settle();
    let text = |error: cosave::Error| error.to_string();
    let store = open(&disk);
    let mut tx = store.begin().map_err(text)?;
    tx.remove("x").map_err(text)?;
    for path in ["x/a", "x/b", "x/s/t/c", "x/s/d"] {
        tx.write(path, path).map_err(text)?;
    }
    tx.create_new("new", "").map_err(text)?;
    disk.put("new", b"of others", 0o644);
    expect(tx.try_commit().is_err_and(|error| error.is_conflict()), "it was not refused")?;
    disk.delete("new");
    tx.remove("x/b").map_err(text)?;
    tx.remove("x/s/t/c").map_err(text)?;
    tx.commit().map_err(text)?;
    for found in disk.power_losses(1000, 1) {
        drop(open(&found));
        expect(content(&found, "x/a") == "x/a" && content(&found, "x/s/d") == "x/s/d", "a file is lost")?;
        for path in ["x/b", "x/s/t/c"] {
            expect(content(&found, path) == "nothing", &format!("{path} has come back"))?;
        }
    }
    Ok(())
}
