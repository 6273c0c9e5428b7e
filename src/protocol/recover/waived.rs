//! Commits that have waited for nothing
//! ([`Durability::Process`](crate::options::Durability::Process)): their manifests
//! prove nothing of what a power loss has left.
//!
//! Before a stronger commit rests on them, their files are made durable like any
//! that a killed process left. What a power loss took is told by gaps in the
//! generations and by torn manifests, which only such commits can leave.

use super::super::control::{self, Control, WAIVED_MAX};
use super::super::root::{Root, if_found};
use crate::error::{Operation, Result};
use crate::fs::{Barrier, Kind, Unsynced, Wave};
use crate::generation::Generation;
use crate::manifest::Manifest;
use crate::mutation::{Rule, keeps};
use crate::options::Durability;
use crate::report::RecoveryReport;

/// Whether what was published without waiting is to be made durable now: something stronger will rest
/// on it, or there is too much of it, or a power loss has taken some of it.
pub(crate) fn must_be_paid(root: &Root, control: &Control, rests_on_it: Durability) -> Result<bool> {
    if control.waived.is_empty() || !keeps(Rule::PayWaived) {
        return Ok(false);
    }
    if rests_on_it != Durability::Process || control.waived.len() >= WAIVED_MAX {
        return Ok(true);
    }
    root.look_once_for_losses(|| {
        let mut next = control.retired().next();
        for generation in control.open() {
            if generation != next || !control::is_whole(root, &control.published(generation))? {
                return Ok(true);
            }
            next = next.next();
        }
        Ok(false)
    })
}

/// Cuts the chain where a manifest is torn: what it named nobody can tell, and what comes after it
/// rests on it.
pub(super) fn cut_torn(
    root: &Root,
    control: &Control,
    chain: &mut Vec<Generation>,
    beyond: &mut Vec<Generation>,
) -> Result<()> {
    for (index, generation) in chain.iter().enumerate() {
        if control.is_waived(*generation) && !control::is_whole(root, &control.published(*generation))? {
            let mut torn = chain.split_off(index);
            torn.append(beyond);
            *beyond = torn;
            break;
        }
    }
    Ok(())
}

/// Those beyond the chain were never acknowledged, or have waited for nothing and are lost. A number
/// that is missing below a lost one is lost, too.
pub(super) fn report_losses(
    report: &mut RecoveryReport,
    control: &Control,
    chain: &[Generation],
    beyond: &[Generation],
) {
    let is_waived = |generation: &&Generation| control.is_waived(**generation);
    report.discarded = beyond.iter().filter(|generation| !is_waived(generation)).copied().collect();
    let Some(last) = beyond.iter().rfind(is_waived) else { return };
    let mut next = chain.last().copied().unwrap_or(control.retired()).next();
    while next <= *last {
        if !report.discarded.contains(&next) {
            report.lost.push(next);
        }
        next = next.next();
    }
}

/// The files of a commit that has waited for nothing, staged or in place, with all directories that
/// are needed to find them.
pub(super) fn inherit_files(root: &Root, manifest: &Manifest, wave: &mut Wave) -> Result<()> {
    for entry in &manifest.entries {
        for directory in entry.path.parent().chain() {
            wave.add(Unsynced::directory(directory.parent()));
        }
        let Some(staged) = entry.staged() else { continue };
        for file in [&staged, &entry.path] {
            let found = if_found(root.fs.metadata(file)).map_err(root.error(Operation::Look, file))?;
            if found.is_some_and(|found| found.kind == Kind::File) {
                wave.add(root.fs.inherit(file).map_err(root.error(Operation::Read, file))?);
                break;
            }
        }
        if wave.files_open() >= root.fs.files_open_max() {
            let full = std::mem::replace(wave, Wave::new(Barrier::Inherited));
            // The same sync that the whole wave would do, early, so that the files can be closed.
            let _durable = root.sync_always(full)?;
        }
    }
    Ok(())
}
