//! A full disk, of which a long file asks before it is staged.

use cosave::fs::sim::{Rule, SimDisk};

use crate::property;
use crate::rules::{content, expect, open, sim};

const LONG: usize = 8 << 20;

/// It would fill the disk before it fails, and others would be refused meanwhile.
fn a_long_file_that_does_not_fit_is_refused_before_it_is_staged(disk: &SimDisk) -> Result<(), String> {
    let store = open(disk);
    store.update(|tx| tx.write("a", "a1")).unwrap();
    disk.free_bytes(Some(LONG as u64 - 1));
    let mut tx = store.begin().unwrap();
    let steps = disk.steps();
    let error = tx.write("made/long", vec![1; LONG]).unwrap_err();
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    expect(disk.steps() == steps, "something was staged")?;
    expect(
        reason.as_deref() == Some("8388608 bytes are needed, and 8388607 are free"),
        &format!("the reason is {reason:?}"),
    )?;
    // The transaction goes on without this write.
    tx.write("a", "a2").unwrap();
    tx.commit().unwrap();
    expect(content(disk, "a") == "a2", "the rest was not saved")
}

#[test]
fn room_is_looked_for_and_that_is_missed() {
    let case = a_long_file_that_does_not_fit_is_refused_before_it_is_staged;
    property::holds_by(Rule::LookForRoom, || case(&sim()));
}

#[test]
fn a_long_file_that_fits_is_saved_and_so_is_one_of_which_nobody_knows() {
    for free_bytes in [Some(LONG as u64 + 8192), None] {
        let disk = sim();
        disk.free_bytes(free_bytes);
        open(&disk).update(|tx| tx.write("made/long", vec![1; LONG])).unwrap();
        assert_eq!(disk.files()["made/long"].len(), LONG, "{free_bytes:?}");
    }
}
