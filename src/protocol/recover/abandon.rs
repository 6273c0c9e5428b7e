//! Abandon: gives up a generation that is published but cannot be recovered.
//! Its targets stay as they are, and the sweep removes its staged files.

use super::super::layout;
use super::super::lock::Locked;
use super::super::root::Root;
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Wave};
use crate::generation::Generation;

/// Gives up a generation, durably.
pub(crate) fn abandon(root: &Root, locked: &Locked, generation: Generation) -> Result<()> {
    let control = &locked.control;
    let path = control.published(generation);
    if control.open().first().is_some_and(|earlier| *earlier < generation) {
        // Otherwise the earlier generation would count as finished.
        let reason = "an earlier generation is still pending; recover, or give that one up first";
        return Err(Error::Unsupported { path: root.full(&path), reason });
    }
    let renamed = root.fs.rename(&path, &layout::abandoned(generation));
    let mut wave = Wave::new(Barrier::Discarded);
    wave.add(renamed.map_err(root.error(Operation::Publish, &path))?);
    // Lost without this sync: the decision. A power loss would bring the generation back.
    let _durable = root.sync_always(wave)?;
    if let Ok(debt) = root.fs.remove_file(&layout::sync_failed(generation)) {
        debt.waive("the marker of a generation that is given up has no meaning any more");
    }
    Ok(())
}
