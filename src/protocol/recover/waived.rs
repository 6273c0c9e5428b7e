//! Commits that did not wait for the disk
//! ([`Durability::Process`](crate::options::Durability::Process)). Their
//! manifests do not prove that anything survived a power loss.
//!
//! Before a stronger commit builds on them, their files are made durable, like
//! the files that a killed process left. Gaps in the generations and torn
//! manifests show that a power loss undid some of them. Only such commits can
//! leave these.

use std::collections::HashSet;

use super::super::control::{self, Control, WAIVED_MAX};
use super::super::root::Root;
use crate::error::{Operation, Result};
use crate::fs::{Barrier, Kind, Unsynced, Wave};
use crate::generation::Generation;
use crate::manifest::Manifest;
use crate::mutation::{Rule, keeps};
use crate::options::Durability;
use crate::path::RelativePath;
use crate::report::RecoveryReport;

/// Whether the commits that did not wait must be made durable now. That is so if a stronger commit will
/// build on them, if there are too many, or if a power loss has undone some.
pub(crate) fn must_be_paid(root: &Root, control: &Control, rests_on_it: Durability) -> Result<bool> {
    let waived = control.waived().len();
    if waived == 0 || !keeps(Rule::PayWaived) {
        return Ok(false);
    }
    if rests_on_it != Durability::Process || waived >= WAIVED_MAX {
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

/// Reports the manifests beyond the chain. They were never acknowledged, or they did not wait and are
/// lost. A missing number below a lost one is lost too.
pub(super) fn report_losses(
    report: &mut RecoveryReport,
    control: &Control,
    chain: &[(Generation, Result<Manifest>)],
    beyond: &[Generation],
) {
    let is_waived = |generation: &&Generation| control.is_waived(**generation);
    report.discarded = beyond.iter().filter(|generation| !is_waived(generation)).copied().collect();
    let Some(last) = beyond.iter().rfind(is_waived) else { return };
    let mut next = chain.last().map_or(control.retired(), |(newest, _)| *newest).next();
    while next <= *last {
        if !report.discarded.contains(&next) {
            report.lost.push(next);
        }
        next = next.next();
    }
}

/// Adds the files of a commit that did not wait, staged or in place, and all directories needed to find
/// them. Those that are `added` already are synced once.
pub(super) fn inherit_files(
    root: &Root,
    manifest: &Manifest,
    added: &mut HashSet<RelativePath>,
    wave: &mut Wave,
) -> Result<()> {
    for entry in &manifest.entries {
        // With the staged name: a target that is copied over can only be repaired from the staged file.
        let parent = entry.path.parent();
        parent.chain().into_iter().for_each(|directory| wave.add(Unsynced::directory(directory.parent())));
        wave.add(Unsynced::directory(parent));
        let Some(staged) = entry.staged() else { continue };
        for file in [&staged, &entry.path] {
            let found = root.look(file)?;
            if found.is_some_and(|found| found.kind == Kind::File) {
                if added.insert(file.clone()) {
                    wave.add(root.fs.inherit(file).map_err(root.error(Operation::Read, file))?);
                }
                break;
            }
        }
        root.sync_if_full(wave, Barrier::Inherited)?;
    }
    Ok(())
}
