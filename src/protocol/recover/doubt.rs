//! Transactions whose commit point could not be synced: their outcomes, for
//! those who ask later.
//!
//! The mark of a doubt is never synced. If a power loss erases it, only the
//! manifest can answer. An answer stays after the manifest that proves it is
//! gone.

use super::super::control::{self, Control};
use super::super::layout;
use super::super::lock::Locked;
use super::super::root::Root;
use crate::error::Result;
use crate::generation::{Generation, TransactionId};
use crate::report::TransactionOutcome;

/// How many answers are kept.
const RESOLVED_MAX: usize = 256;

/// The generation of a transaction, by the manifests that still exist.
fn find(root: &Root, control: &Control, id: TransactionId) -> Result<Option<Generation>> {
    let open = control.open().into_iter().map(|generation| (generation, control.published(generation)));
    let applied = control.applied.iter().map(|generation| (*generation, layout::applied(*generation)));
    let abandoned = control.abandoned.iter().map(|generation| (*generation, layout::abandoned(*generation)));
    for (generation, path) in open.chain(applied).chain(abandoned) {
        if control::manifest(root, &path)?.is_some_and(|manifest| manifest.transaction == id) {
            return Ok(Some(generation));
        }
    }
    Ok(None)
}

/// Records an answer for every transaction in doubt. Runs when nothing is pending except what recovery
/// has finished, and before a manifest that proves an answer is retired.
pub(super) fn resolve(root: &Root, control: &mut Control) {
    for id in std::mem::take(&mut control.in_doubt) {
        // If a manifest cannot be read, the doubt stays until the manifest is repaired.
        let Ok(committed) = find(root, control, id) else { continue };
        if let Ok(debt) = root.fs.rename(&layout::in_doubt(id), &layout::resolved(id, committed)) {
            debt.waive("a mark that a power loss brings back is resolved again");
            control.resolved.insert(id, committed);
        }
    }
    while control.resolved.len() > RESOLVED_MAX {
        let Some((id, committed)) = control.resolved.pop_first() else { return };
        if let Ok(debt) = root.fs.remove_file(&layout::resolved(id, committed)) {
            debt.waive("an answer that comes back is true");
        }
    }
}

/// The outcome of a transaction, if manifests and answers still show it.
pub(crate) fn outcome_of(root: &Root, locked: &Locked, id: TransactionId) -> Result<TransactionOutcome> {
    if let Some(generation) = find(root, &locked.control, id)? {
        return Ok(TransactionOutcome::Committed { generation });
    }
    Ok(match locked.control.resolved.get(&id) {
        Some(Some(generation)) => TransactionOutcome::Committed { generation: *generation },
        Some(None) => TransactionOutcome::NotCommitted,
        None => TransactionOutcome::Unknown,
    })
}
