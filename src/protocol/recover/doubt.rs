//! Transactions whose commit point could not be synced: their outcomes, for
//! those who ask later.
//!
//! The mark of a doubt is never synced. If a power loss erases it, only the
//! manifest can answer. An answer stays after the manifest that proves it is
//! gone.

use super::super::control::{self, Control};
use super::super::layout::{ControlName, Fate};
use super::super::lock::Locked;
use super::super::root::Root;
use crate::error::{Error, Result};
use crate::generation::{Generation, TransactionId};
use crate::report::TransactionOutcome;

/// How many answers are kept.
const RESOLVED_MAX: usize = 256;

/// The generation of a transaction, by the manifests that still exist. Damage stops the search, unless
/// that generation counts as gone.
fn find(
    root: &Root,
    control: &Control,
    id: TransactionId,
    is_gone: impl Fn(Generation) -> bool,
) -> Result<Option<Generation>> {
    for (generation, path) in control.manifests().into_iter().rev() {
        let manifest = match control::manifest(root, &path) {
            // Such a generation is often given up because its manifest cannot be read.
            Err(_) if control.has(Fate::Abandoned.of(generation)) => continue,
            Err(Error::Corrupt { .. }) if is_gone(generation) => continue,
            manifest => manifest?,
        };
        if manifest.is_some_and(|manifest| manifest.transaction == id) {
            return Ok(Some(generation));
        }
    }
    Ok(None)
}

/// Records an answer for every transaction in doubt. Runs when nothing is pending except what recovery
/// has finished, and before a manifest that proves an answer is retired.
pub(super) fn resolve(root: &Root, control: &mut Control) {
    for doubt in control.take(|name| matches!(name, ControlName::InDoubt(_))) {
        let ControlName::InDoubt(id) = doubt else { continue };
        // If a manifest cannot be read, the doubt stays until the manifest is repaired.
        let Ok(committed) = find(root, control, id, |_| false) else { continue };
        let answer = ControlName::Resolved(id, committed);
        if let Ok(debt) = root.fs.rename(&doubt.path(), &answer.path()) {
            debt.waive("a mark that a power loss brings back is resolved again");
            control.names.insert(answer);
        }
    }
    let answers = control.names.iter().filter(|name| matches!(name, ControlName::Resolved(..)));
    let too_many = answers.clone().count().saturating_sub(RESOLVED_MAX);
    for answer in answers.take(too_many) {
        root.try_remove(&answer.path(), "an answer that comes back is true");
    }
}

/// The outcome of a transaction, if manifests and answers still show it.
pub(crate) fn outcome_of(root: &Root, locked: &Locked, id: TransactionId) -> Result<TransactionOutcome> {
    // A superseded manifest may be gone at any moment, so nothing is concluded from its absence.
    let retired = locked.control.retired();
    if let Some(generation) = find(root, &locked.control, id, |generation| generation < retired)? {
        return Ok(TransactionOutcome::Committed { generation });
    }
    let answer = |name| match name {
        ControlName::Resolved(other, committed) if other == id => Some(committed),
        _ => None,
    };
    Ok(match locked.control.names.iter().copied().find_map(answer) {
        Some(Some(generation)) => TransactionOutcome::Committed { generation },
        Some(None) => TransactionOutcome::NotCommitted,
        None => TransactionOutcome::Unknown,
    })
}
