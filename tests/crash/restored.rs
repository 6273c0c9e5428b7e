//! Files that recovery writes from the manifest of a small save.

use std::collections::BTreeSet;
use std::time::SystemTime;

use cosave::fs::sim::{Crash, Model, Rule, SimDisk, without};
use cosave::{
    Action, Durability, Entry, Generation, Inline, Manifest, RelativePath, StagedContent, Stamp, Store,
    Transaction, TransactionId,
};

use crate::rules::{content, sim, staged_names};

const SESSION: &str = "0123456789abcdef0123456789abcdef";

/// A disk on which a power loss has left nothing of a small save but its manifest. It makes one file.
fn with_a_manifest_alone(path: &str, bytes: &[u8], mode: u32) -> SimDisk {
    let disk = sim();
    let transaction: TransactionId = format!("{SESSION}-1").parse().unwrap();
    let content = StagedContent {
        name: format!(".{path}.{transaction}-1.cosave").into(),
        after: Stamp { length: bytes.len() as u64, modified: SystemTime::UNIX_EPOCH.into() },
        mode,
        owner: None,
        checksum: cosave::Checksum::of(bytes),
    };
    let path = RelativePath::new(path).unwrap();
    let entries = vec![Entry { path, before: None, action: Action::Write(content), over: None }];
    let inline = Some(Inline { wave: Generation::from(1), bytes: bytes.to_vec() });
    let manifest = Manifest {
        transaction,
        time: SystemTime::UNIX_EPOCH.into(),
        mounts: BTreeSet::new(),
        entries,
        inline,
    };
    disk.make_directory(".cosave/sessions", 0);
    disk.put(".cosave/1.pending-inline", &manifest.encode(), 0o600);
    disk.settle();
    disk
}

/// A new file that only its owner could read was restored with the rights of an ordinary new file, and got its
/// own mode afterwards. Meanwhile everybody could open it.
#[test]
fn a_restored_file_is_never_open_to_more_than_the_lost_one_was() {
    for mode in [0o600, 0o640, 0o644] {
        let disk = with_a_manifest_alone("secret", b"the secret", mode);
        for after in 0.. {
            let machine = disk.copy();
            machine.crash_at(Crash { after, reversed: false });
            let opened = Store::options().open_on(machine.process());
            for path in staged_names(&machine).into_iter().chain(["secret".to_owned()]) {
                let found = machine.mode(&path).unwrap_or_default();
                assert_eq!(found & !mode, 0, "after {after} steps {path} has mode {found:o}, not {mode:o}");
            }
            if opened.is_ok() {
                assert!(after > 4, "it was restored in {after} steps");
                assert_eq!(
                    (content(&machine, "secret"), machine.mode("secret")),
                    ("the secret".to_owned(), Some(mode))
                );
                break;
            }
        }
    }
}

/// A store that had put off its last wait was killed, and somebody removed a new file of its last save. Recovery
/// took the file for one that a power loss had taken, and made it again.
#[test]
fn a_new_file_that_somebody_removes_before_the_recovery_stays_removed() {
    let disk = sim();
    let living = Store::options().durability(Durability::Committed).open_on(disk.process()).unwrap();
    let both = |tx: &mut Transaction| {
        tx.write("new", "1")?;
        tx.write("a", "a1")
    };
    living.update(both).unwrap();
    let killed = disk.kill();
    killed.delete("new");
    let report = Store::options().open_on(killed.process()).unwrap().last_recovery();
    assert_eq!(report.rolled_forward, [Generation::from(1)]);
    assert_eq!(report.differences.len(), 1, "nobody is told what was removed: {report}");
    assert_eq!((content(&killed, "new"), content(&killed, "a")), ("nothing".to_owned(), "a1".to_owned()));
    for found in disk.power_losses(1000, 1) {
        drop(Store::options().open_on(found.process()).unwrap());
        assert_eq!((content(&found, "new"), content(&found, "a")), ("1".to_owned(), "a1".to_owned()));
    }
}

/// Whether a small save of `d/a` and `d/b` is done by half after a power loss, if a program has changed `d/a`
/// before, and not synced that.
fn half_a_save(model: Model, keep: u32, is_new: bool, edit: impl Fn(&SimDisk)) -> Option<String> {
    for after in 0.. {
        let disk = SimDisk::new(model);
        disk.make_directory("d", 0);
        for path in ["d/a", "d/b", "c"].into_iter().filter(|path| !is_new || *path != "d/a") {
            disk.put(path, b"0", 0o644);
        }
        disk.settle();
        let store = Store::options().keep(keep).open_on(disk.process()).unwrap();
        store.update(|tx| tx.write("d/b", "1")).unwrap();
        edit(&disk);
        disk.crash_at(Crash { after, reversed: false });
        let both = |tx: &mut Transaction| {
            tx.write("d/a", "2")?;
            tx.write("d/b", "2")
        };
        let saved = store.update(both);
        for found in disk.power_losses(32, after) {
            let report = Store::options().open_on(found.process()).unwrap().last_recovery();
            let (a, b) = (content(&found, "d/a"), content(&found, "d/b"));
            if (a == "2") != (b == "2") {
                return Some(format!("{model:?}, {keep} kept, after {after} steps: {a}, {b}: {report}"));
            }
        }
        if saved.is_ok() {
            break;
        }
    }
    None
}

const EDITS: [fn(&SimDisk); 4] = [
    |disk| disk.put("d/a", b"edit", 0o644),
    |disk| disk.replace("d/a", b"edit", 0o644),
    |disk| disk.delete("d/a"),
    |disk| disk.rename("c", "d/a"),
];

/// A power loss took the staged file of `d/a`, and what the other program had done. Recovery took what it found for
/// an edit or a removal, left it, and finished `d/b` alone. Later it did so only with a history: the link that
/// keeps `d/a` gives it a later time.
#[test]
fn what_a_power_loss_undoes_from_before_a_small_save_is_no_edit() {
    for model in [Model::JumpingPrefix, Model::WeakPosix] {
        for (edit, is_new) in EDITS.into_iter().flat_map(|edit| [(edit, false), (edit, true)]) {
            for keep in [0, 5] {
                assert_eq!(half_a_save(model, keep, is_new, edit), None);
            }
        }
    }
    let is_missed = |edit: &fn(&SimDisk)| half_a_save(Model::WeakPosix, 5, false, edit).is_some();
    let is_missed = without(Some(Rule::KnowKept), || EDITS.iter().any(is_missed));
    assert!(is_missed, "the link of the history is not needed to know the original");
}

/// A program wrote into a committed file in place, and synced the bytes alone, as a database does. ext4 kept
/// them, and neither their time nor the move. The power loss undid the move. Recovery took the
/// file for a torn one, and wrote the bytes of the commit over those of the program.
#[test]
fn bytes_that_a_program_has_synced_without_their_time_are_kept() {
    assert_eq!(edited_and_lost(), Ok(()));
    let broken = without(Some(Rule::KeepEdited), edited_and_lost);
    assert!(broken.is_err_and(|lost| lost > 0), "nobody noticed");
}

/// After how many power losses the program's bytes are nowhere.
fn edited_and_lost() -> Result<(), usize> {
    let disk = SimDisk::new(Model::WeakPosix);
    disk.put("a", b"a0", 0o644);
    disk.put("b", b"b0", 0o644);
    disk.settle();
    let store = Store::options().durability(Durability::Committed).open_on(disk.process()).unwrap();
    store.update(|tx| tx.write("a", "a1").and_then(|()| tx.write("b", "b1"))).unwrap();
    disk.put_keeping_time("a", b"db", 0o644);
    disk.sync_file("a");
    let (mut lost, mut kept_aside) = (0, 0);
    for found in disk.power_losses(1000, 1) {
        let report = Store::options().open_on(found.process()).unwrap().last_recovery();
        assert_eq!(content(&found, "b"), "b1");
        if content(&found, "a") == "db" {
            continue;
        }
        let aside = found.files().into_iter().find(|(_, bytes)| bytes == b"db");
        let is_told = |name: &String| format!("{report:?}").contains(name.as_str());
        match aside {
            Some((name, _)) if is_told(&name) => kept_aside += 1,
            _ => lost += 1,
        }
    }
    assert!(kept_aside + lost > 0, "no power loss has undone the move");
    if lost == 0 { Ok(()) } else { Err(lost) }
}
