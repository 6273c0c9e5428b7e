//! Transactions whose commit point could not be synced: what became of them, for
//! those who ask later.
//!
//! The mark is never synced: where a power loss takes it, the manifest alone can
//! answer. An answer stays after the manifest is gone that proves it.

use super::super::control::{self, Control};
use super::super::layout;
use super::super::lock::Locked;
use super::super::root::Root;
use crate::error::Result;
use crate::generation::{Generation, TransactionId};
use crate::report::TransactionOutcome;

/// So many answers are kept.
const RESOLVED_MAX: usize = 256;

/// Which generation a transaction is, by the manifests that are still there.
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

/// Answers for every transaction in doubt, once nothing is pending but what recovery has finished, and
/// before a manifest that proves it is retired.
pub(super) fn resolve(root: &Root, control: &mut Control) {
    for id in std::mem::take(&mut control.in_doubt) {
        // Where a manifest cannot be read, the doubt stays until it is mended.
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

/// What became of a transaction, as far as manifests and answers are still there.
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
