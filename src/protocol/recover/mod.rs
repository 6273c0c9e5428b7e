//! Recover: finishes every published commit, whoever published it.
//!
//! Runs under the lock, at open and before the next publication. What a killed
//! process left is visible, but perhaps not durable. So recovery syncs before
//! it moves, and syncs again before it retires. `plan` looks at every entry of
//! a manifest before the first one is moved. Every step can be repeated, and no
//! unexpected file is ever destroyed.

mod abandon;
mod doubt;
mod plan;
mod restore;
mod rewrite;
mod set_aside;
mod trees;
mod waived;

pub(crate) use abandon::abandon;
pub(crate) use doubt::outcome_of;
pub(crate) use restore::Lost;
pub(crate) use waived::must_be_paid;

use std::collections::HashSet;
use std::io;

use super::control::{self, Control};
use super::deferred::Applied;
use super::layout::{self, ControlName, Fate};
use super::lock::Locked;
use super::pending::{self, Pending};
use super::root::Root;
use super::{apply, history, mounts, tree};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Unsynced, Wave};
use crate::generation::Generation;
use crate::manifest::{Entry, Manifest};
use crate::mutation::{Rule, keeps};
use crate::options::Durability;
use crate::path::RelativePath;
use crate::progress::Progress;
use crate::report::{Difference, Finding, RecoveryReport};
use plan::{Named, PlannedEntry, Step, Trust};

/// Proves that nothing is pending while the lock is held, so whatever dead sessions have staged may be
/// swept.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) report: RecoveryReport,
}

/// Finishes every published manifest, oldest first.
pub(crate) fn recover(root: &Root, locked: &mut Locked) -> Result<Recovered> {
    finish_all(root, locked).inspect_err(|_| {
        // A failed sync may have lost any move that is not durable yet, whatever it was for.
        for generation in locked.control.open().into_iter().filter(|_| root.is_poisoned()) {
            root.mark_sync_failed(generation);
        }
    })
}

fn finish_all(root: &Root, locked: &mut Locked) -> Result<Recovered> {
    let control = &mut locked.control;
    let mut report = RecoveryReport::default();
    let Pending { chain: manifests, beyond } = pending::read(root, control)?;
    if manifests.is_empty() && beyond.is_empty() && control.generations(Fate::Discarded).is_empty() {
        doubt::resolve(root, control);
        remove_stale(root, control);
        return Ok(Recovered { report });
    }
    root.tell_only(|| Progress::Recovering { generations: manifests.len() });
    root.deferred.hand_over_to_recovery();
    waived::report_losses(&mut report, control, &manifests, &beyond);
    inherit(root, control, &manifests, &mut report.differences)?;
    discard(root, &beyond, control)?;

    let trust = |generation| if control.is_waived(generation) { Trust::Waived } else { Trust::Durable };
    let named = Named::new(&manifests, trust);
    let not_in_place = control.not_in_place();
    let mut wave = Wave::new(Barrier::Recovered);
    let mut moved = Vec::new();
    let mut of_the_living = HashSet::new();
    let mut stopped = None;
    for (generation, manifest) in manifests {
        let sync_failed = control.has(Fate::SyncFailed.of(generation));
        let trust = trust(generation);
        let finished = manifest.and_then(|manifest| {
            let copying = copying(control, generation, &manifest);
            let is_living = !pending::is_orphaned(root, control, generation, &manifest);
            if is_living {
                of_the_living.insert(generation);
            }
            // Once the files are in place, others may remove them, directory and all.
            let may_miss =
                is_living || control.is_in_place(root, generation) || !not_in_place.contains(&generation);
            let away = prepare(root, control, (generation, &manifest, may_miss), &mut wave)?;
            let published = (generation, &manifest, trust, may_miss);
            roll_forward(root, published, (&copying, &away), &named, &mut wave, &mut report)?;
            if sync_failed && keeps(Rule::WriteAnew) {
                let is_last = |target: &_| named.is_last(generation, target);
                let mark = |target: &_| copying_mark(generation, &manifest, target);
                let fresh = rewrite::targets(root, &manifest, is_last, mark);
                wave.absorb(fresh.map_err(|error| error.not_applied(generation))?);
            }
            Ok(())
        });
        match finished {
            Ok(()) => moved.push(generation),
            Err(error) => {
                stopped = Some(error);
                break;
            }
        }
    }
    let durable = make_durable(root, moved, wave)?;
    if stopped.is_none() {
        doubt::resolve(root, control);
    }
    for applied in &durable {
        // A commit that was in place already is now durable too, and is not reported. A living writer
        // has put its commits in place.
        let was_left = !of_the_living.contains(&applied.generation);
        if was_left && control.not_in_place().contains(&applied.generation) {
            report.rolled_forward.push(applied.generation);
        }
    }
    let retired = retire(root, control, &durable, &report);
    remove_stale(root, control);
    root.note_recovery(&report);
    retired.and(stopped.map_or(Ok(Recovered { report }), Err))
}

/// Finishes what others left pending.
///
/// Waived commits are made durable if the next commit needs that for its `durability`.
pub(crate) fn finish_earlier(root: &Root, locked: &mut Locked, durability: Durability) -> Result<()> {
    let control = &locked.control;
    let ours = root.deferred.generations();
    let inherited = !control.generations(Fate::Discarded).is_empty()
        || control.not_in_place().iter().any(|generation| !ours.contains(generation))
        || must_be_paid(root, control, durability)?;
    if inherited && keeps(Rule::FinishEarlier) {
        recover(root, locked).map_err(Error::blocked)?;
    }
    control::remove_marks(root, &mut locked.control);
    Ok(())
}

/// Makes everything that was found durable, before anything is moved.
fn inherit(
    root: &Root,
    control: &Control,
    chain: &[(Generation, Result<Manifest>)],
    differences: &mut Vec<Difference>,
) -> Result<()> {
    let lost = Lost::new(root, control, chain);
    let (mut wave, mut added) = (Wave::new(Barrier::Inherited), HashSet::new());
    wave.add(Unsynced::directory(layout::control()));
    for (generation, manifest) in chain {
        let path = control.published(*generation);
        if control.has(Fate::SyncFailed.of(*generation)) && keeps(Rule::WriteAnew) {
            wave.absorb(rewrite::manifest(root, &path)?);
        } else {
            wave.add(root.fs.inherit(&path).map_err(root.error(Operation::Read, &path))?);
        }
        let Ok(manifest) = manifest else { continue };
        history::inherit(root, control, (*generation, manifest), &mut wave)?;
        wave.absorb(lost.restore(*generation, manifest, differences)?);
        if control.is_waived(*generation) || manifest.has_contents() && keeps(Rule::InheritStaged) {
            waived::inherit_files(root, manifest, &mut added, &mut wave)?;
        }
    }
    // Lost without this sync: the manifest of a writer that was killed before its own barrier 2. A
    // power loss could keep some of the moves made below, and not the manifest. SQLite syncs an
    // inherited journal for the same reason (pager.c, pagerSyncHotJournal). Also lost: the files of
    // small saves and of waived commits, once their manifests are retired.
    root.sync_always(wave).map(drop)
}

/// Removes manifests that were never acknowledged, before their numbers can be used again. It takes two
/// steps: if this recovery is killed in between, the next one must see that the removal may not be
/// durable.
fn discard(root: &Root, beyond: &[Generation], control: &mut Control) -> Result<()> {
    let mut wave = Wave::new(Barrier::Discarded);
    for generation in beyond {
        remove_other_names(root, control, *generation);
        let (published, discarded) = (control.published(*generation), Fate::Discarded.of(*generation).path());
        let renamed = root.fs.rename(&published, &discarded);
        wave.add(renamed.map_err(root.error(Operation::Remove, &published))?);
    }
    // Lost without this sync: the removal of the published name. The old manifest would come back, and
    // count as a later commit with the same number. Manifests found discarded are covered by the sync
    // of inherited names.
    if let Err(error) = root.sync_always(wave) {
        for generation in beyond {
            let back =
                root.fs.rename(&Fate::Discarded.of(*generation).path(), &control.published(*generation));
            if let Ok(debt) = back {
                debt.waive(
                    "the next recovery discards it anew, since a second sync of this rename proves nothing",
                );
            }
        }
        return Err(error);
    }
    for generation in beyond {
        control.set_closed(*generation);
        control.names.insert(Fate::Discarded.of(*generation));
    }
    for discarded in control.take(|name| matches!(name, ControlName::Numbered(_, Fate::Discarded))) {
        root.try_remove(&discarded.path(), "a discarded manifest that comes back is removed again");
    }
    Ok(())
}

/// Removes the names of a generation that do not count. If the one that counts went alone, another would
/// be found by the next recovery.
fn remove_other_names(root: &Root, control: &Control, generation: Generation) {
    for other in control.other_names(generation) {
        root.try_remove(&other.path(), "a name that comes back is removed again, with the one that counts");
    }
}

/// Looks at every entry of a generation, then moves its files.
fn roll_forward(
    root: &Root,
    (generation, manifest, trust, may_miss): (Generation, &Manifest, Trust, bool),
    (copying, away): (&HashSet<RelativePath>, &HashSet<RelativePath>),
    named: &Named,
    wave: &mut Wave,
    report: &mut RecoveryReport,
) -> Result<()> {
    let mut findings = Vec::new();
    let at_once = if keeps(Rule::LookFirst) { manifest.entries.len() } else { 1 };
    for entries in manifest.entries.chunks(at_once.max(1)) {
        let planned = plan::plan(root, (generation, trust), (entries, away), copying, named, &mut findings);
        let moves = planned.and_then(|planned| {
            let must_be_there = |path: &_| !may_miss && named.is_last(generation, path);
            refuse_missing(root, entries, &findings, must_be_there)?;
            for missing in findings.iter().filter(|found| found.finding == Finding::DirectoryMissing) {
                wave.add(apply::others_removal(root, &missing.path)?);
            }
            let set_aside = set_aside::set_aside(root, generation, &planned)?;
            report.differences.extend(set_aside);
            (1..).zip(&planned).try_for_each(|(files, step)| {
                carry_out(root, (generation, manifest), step, wave)?;
                let (all, path) = (planned.len(), Some(step.entry.path.clone()));
                root.tell_only(|| Progress::Applied { generation, files, all, path });
                Ok(())
            })
        });
        moves.map_err(|error| error.not_applied(generation))?;
    }
    // A file that was removed already is not in the directory, wherever that is now.
    let removes = manifest.entries.iter().filter(|entry| entry.staged().is_none());
    let removed: HashSet<_> = removes.map(|entry| &entry.path).collect();
    let is_news = |difference: &Difference| {
        let is_missing = difference.finding == Finding::DirectoryMissing;
        named.is_last(generation, &difference.path)
            && !(may_miss && is_missing && removed.contains(&difference.path))
    };
    findings.retain(is_news);
    report.differences.extend(findings);
    Ok(())
}

/// What must be true and durable before the first move of a generation. Returns the paths that are on a file
/// system which is not mounted now, if they may be missing.
fn prepare(
    root: &Root,
    control: &Control,
    (generation, manifest, may_miss): (Generation, &Manifest, bool),
    wave: &mut Wave,
) -> Result<HashSet<RelativePath>> {
    let away = mounts::away(root, manifest)?;
    if let Some(path) = away.iter().min().filter(|_| !may_miss) {
        return Err(mounts::missing(root, Operation::Look, path).not_applied(generation));
    }
    settle_before_trees(root, (generation, manifest), wave)?;
    history::keep_late(root, control, generation, manifest)?;
    Ok(away)
}

/// Makes the moves of earlier generations durable before a tree is moved that they may lie in.
fn settle_before_trees(
    root: &Root,
    (generation, manifest): (Generation, &Manifest),
    wave: &mut Wave,
) -> Result<()> {
    if !manifest.entries.iter().any(Entry::is_of_tree) || !keeps(Rule::SettleBeforeTrees) {
        return Ok(());
    }
    let earlier = std::mem::replace(wave, Wave::new(Barrier::Recovered));
    // Lost without this sync: what an earlier generation has put into the tree. A power loss could keep the
    // tree's move without it, and the next recovery leaves to the tree what is in it.
    root.sync_always(earlier).map(drop).map_err(|error| error.not_applied(generation))
}

/// The mark for a target that is copied over. Such targets are rare.
fn copying_mark(generation: Generation, manifest: &Manifest, target: &RelativePath) -> RelativePath {
    let earlier = manifest.entries.iter().take_while(|entry| entry.path != *target);
    ControlName::Copying(generation, earlier.count() as u64).path()
}

/// The targets of a generation that were being copied over.
fn copying(control: &Control, generation: Generation, manifest: &Manifest) -> HashSet<RelativePath> {
    let numbered = (0..).zip(&manifest.entries);
    let is_copied = |number: u64| control.has(ControlName::Copying(generation, number));
    numbered.filter(|(number, _)| is_copied(*number)).map(|(_, entry)| entry.path.clone()).collect()
}

/// A file to write and its directory cannot be found. The directory may have been renamed, with the
/// staged file in it. Nothing is moved until it is back, or the generation is given up.
fn refuse_missing(
    root: &Root,
    entries: &[Entry],
    findings: &[Difference],
    is_newest: impl Fn(&RelativePath) -> bool,
) -> Result<()> {
    let missing = findings.iter().filter(|found| found.finding == Finding::DirectoryMissing);
    let missing: HashSet<_> = missing.map(|found| &found.path).collect();
    let is_missing = |entry: &&Entry| {
        let is_made = entry.staged().is_some() || entry.action.is_new_directory();
        is_made && missing.contains(&entry.path)
    };
    let Some(entry) = entries.iter().filter(is_missing).find(|entry| is_newest(&entry.path)) else {
        return Ok(());
    };
    let directory = entry.path.parent();
    let kind = match root.look(&directory)? {
        Some(_) => io::ErrorKind::NotADirectory,
        None => io::ErrorKind::NotFound,
    };
    Err(root.error(Operation::Look, &directory)(kind.into()))
}

fn carry_out(
    root: &Root,
    (generation, manifest): (Generation, &Manifest),
    planned: &PlannedEntry<'_>,
    wave: &mut Wave,
) -> Result<()> {
    let entry = planned.entry;
    let target = &entry.path;
    // The directory is in the wave even if nothing is moved: a killed writer's move may be visible but
    // not durable.
    wave.add(Unsynced::directory(target.parent()));
    if entry.over.is_some() {
        wave.add(tree::make_way(root, entry)?);
    }
    match &planned.step {
        Step::Nothing => {}
        Step::Gone => {
            wave.add(apply::others_removal(root, target)?);
            // Others may have removed a tree as soon as it was in place. What it has replaced still goes.
            wave.add(tree::hide_replaced(root, entry)?);
        }
        Step::Tree | Step::SetAsideAndTree => wave.add(tree::put(root, entry)?),
        Step::MakeDirectory { new } => wave.add(apply::make_directory(root, target, new)?),
        Step::RemoveDirectory => wave.add(apply::remove_directory(root, target)?),
        Step::Remove => wave.add(apply::remove(root, target)?),
        Step::Replace { staged } | Step::SetAsideAndReplace { staged } => {
            wave.add(apply::replace(root, staged, target, || copying_mark(generation, manifest, target))?);
        }
        Step::Unlink { staged } => wave.add(apply::remove(root, staged)?),
    }
    Ok(())
}

/// Makes every move durable, including those of the killed writer.
fn make_durable(root: &Root, moved: Vec<Generation>, mut wave: Wave) -> Result<Vec<Applied>> {
    let Some(first) = moved.first().copied() else {
        wave.waive("no generation was moved completely, so none is retired");
        return Ok(Vec::new());
    };
    // The writer has removed the record of the directories that it made. If a power loss brought the record
    // back, the sweep would remove such a directory once it is empty.
    wave.add(Unsynced::directory(layout::SESSIONS.path()));
    // Lost without this sync: moves that recovery has reported, once the manifest is retired. A crash
    // before it leaves the manifest pending, and recovery begins again.
    let durable = root.sync_always(wave).map_err(|error| error.not_applied(first))?;
    let applied = |generation| Applied { generation, durable };
    Ok(moved.into_iter().map(applied).collect())
}

fn retire(root: &Root, control: &mut Control, durable: &[Applied], report: &RecoveryReport) -> Result<()> {
    for applied in durable {
        remove_other_names(root, control, applied.generation);
        apply::retire(root, control, applied);
        let marker = Fate::SyncFailed.of(applied.generation).path();
        let reason = "the power loss that brings the marker back also discards the stale page cache";
        root.try_remove(&marker, reason);
    }
    let is_missing = |found: &Difference| found.finding == Finding::DirectoryMissing;
    let mut wave = Wave::new(Barrier::Retired);
    if report.differences.iter().any(is_missing) && !durable.is_empty() {
        wave.add(Unsynced::directory(layout::control()));
    }
    // Lost without this sync: the fact that these files were in place before their directory was
    // removed. Their writer is dead after a power loss, so the root would be closed until somebody
    // gives the commit up. A power loss before it has that effect.
    root.sync_always(wave).map(drop)
}

/// Removes pending names of applied generations. A power loss can bring such names back.
fn remove_stale(root: &Root, control: &mut Control) {
    let retired = control.retired();
    let is_stale = |name| match name {
        ControlName::Numbered(_, Fate::Applied | Fate::Abandoned | Fate::Discarded) => false,
        ControlName::Numbered(generation, _) => generation <= retired,
        _ => false,
    };
    for stale in control.take(is_stale) {
        root.try_remove(&stale.path(), "a stale name that comes back is removed again");
    }
    control::remove_marks(root, control);
}
