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
mod rewrite;
mod set_aside;
mod waived;

pub(crate) use abandon::abandon;
pub(crate) use doubt::outcome_of;
pub(crate) use waived::must_be_paid;

use std::collections::HashSet;
use std::io;

use super::apply;
use super::control::{self, Control};
use super::deferred::{Applied, Deferred};
use super::layout::{self, ControlName, Fate};
use super::lock::Locked;
use super::root::Root;
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, LockKind, Unsynced, Wave};
use crate::generation::Generation;
use crate::manifest::{Entry, Manifest};
use crate::mutation::{Rule, keeps};
use crate::options::Durability;
use crate::path::RelativePath;
use crate::report::{Difference, Finding, RecoveryReport};
use plan::{Chain, PlannedEntry, Step, Trust};

/// Proves that nothing is pending while the lock is held, so whatever dead sessions have staged may be
/// swept.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) report: RecoveryReport,
}

/// Finishes every published manifest, oldest first.
pub(crate) fn recover(root: &Root, locked: &mut Locked, deferred: &Deferred) -> Result<Recovered> {
    let control = &mut locked.control;
    let mut report = RecoveryReport::default();
    let (mut chain, mut beyond) = split(control);
    waived::cut_torn(root, control, &mut chain, &mut beyond)?;
    if chain.is_empty() && beyond.is_empty() && control.generations(Fate::Discarded).is_empty() {
        doubt::resolve(root, control);
        remove_stale(root, control);
        return Ok(Recovered { report });
    }
    deferred.hand_over_to_recovery();
    let read = |generation: &Generation| (*generation, read(root, &control.published(*generation)));
    let manifests: Vec<_> = chain.iter().map(read).collect();
    waived::report_losses(&mut report, control, &chain, &beyond);
    inherit(root, control, &manifests)?;
    discard(root, &beyond, control)?;

    let trust = |generation| if control.is_waived(generation) { Trust::Waived } else { Trust::Durable };
    let chain = Chain::new(&manifests, trust);
    let mut wave = Wave::new(Barrier::Recovered);
    let mut moved = Vec::new();
    let mut of_the_living = HashSet::new();
    let mut stopped = None;
    for (generation, manifest) in manifests {
        let sync_failed = control.has(Fate::SyncFailed.of(generation));
        let trust = trust(generation);
        let finished = manifest.and_then(|manifest| {
            let copying = copying(control, generation, &manifest);
            let is_living = !is_orphaned(root, control, generation, &manifest);
            if is_living {
                of_the_living.insert(generation);
            }
            // Once the files are in place, others may remove them, directory and all.
            let may_miss = is_living || control.is_in_place(root, generation);
            let published = (generation, &manifest, trust, may_miss);
            roll_forward(root, published, &copying, &chain, &mut wave, &mut report)?;
            if sync_failed && keeps(Rule::WriteAnew) {
                let fresh =
                    rewrite::targets(root, &manifest, |target| copying_mark(generation, &manifest, target));
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

/// Finishes what others left pending, and retires what this process has made durable meanwhile.
///
/// Waived commits are made durable if the next commit needs that for its `durability`.
pub(crate) fn finish_earlier(
    root: &Root,
    locked: &mut Locked,
    deferred: &Deferred,
    durability: Durability,
) -> Result<()> {
    let control = &locked.control;
    let inherited = !control.generations(Fate::Discarded).is_empty()
        || control.not_in_place().iter().any(|generation| !deferred.is_ours(*generation))
        || must_be_paid(root, control, durability)?;
    if inherited && keeps(Rule::FinishEarlier) {
        recover(root, locked, deferred).map_err(Error::blocked)?;
    }
    let control = &mut locked.control;
    let open = control.generations(Fate::Pending).split_off(&control.retired().next());
    for applied in deferred.take_paid(&open) {
        if apply::retire(root, &control.published(applied.generation), &applied) {
            control.set_applied(applied.generation);
        }
    }
    control::remove_marks(root, control);
    Ok(())
}

/// Splits the generations into those that follow the applied one without a gap, and those beyond a gap.
/// A power loss can keep any part of a batch that was renamed but not synced. Those beyond the gap were
/// never acknowledged.
fn split(control: &Control) -> (Vec<Generation>, Vec<Generation>) {
    let mut next = control.retired().next();
    let open = control.open();
    let (mut chain, mut beyond) = (Vec::new(), Vec::new());
    for generation in open {
        if generation == next || !keeps(Rule::StopAtGap) {
            chain.push(generation);
            next = generation.next();
        } else {
            beyond.push(generation);
        }
    }
    (chain, beyond)
}

/// Makes everything that was found durable, before anything is moved.
fn inherit(root: &Root, control: &Control, chain: &[(Generation, Result<Manifest>)]) -> Result<()> {
    let mut wave = Wave::new(Barrier::Inherited);
    wave.add(Unsynced::directory(layout::control()));
    for (generation, manifest) in chain {
        let path = control.published(*generation);
        if control.has(Fate::SyncFailed.of(*generation)) && keeps(Rule::WriteAnew) {
            wave.absorb(rewrite::manifest(root, &path)?);
        } else {
            wave.add(root.fs.inherit(&path).map_err(root.error(Operation::Read, &path))?);
        }
        if let (true, Ok(manifest)) = (control.is_waived(*generation), manifest) {
            waived::inherit_files(root, manifest, &mut wave)?;
        }
    }
    // Lost without this sync: the manifest of a writer that was killed before its own barrier 2. A
    // power loss could keep some of the moves made below, and not the manifest. SQLite syncs an
    // inherited journal for the same reason (pager.c, pagerSyncHotJournal). Also lost: the files of
    // waived commits, once their manifests are retired.
    root.sync_always(wave).map(drop).inspect_err(|_| {
        for (generation, _) in chain {
            control::mark_sync_failed(root, *generation);
        }
    })
}

/// Removes manifests that were never acknowledged, before their numbers can be used again. It takes two
/// steps: if this recovery is killed in between, the next one must see that the removal may not be
/// durable.
fn discard(root: &Root, beyond: &[Generation], control: &mut Control) -> Result<()> {
    let mut wave = Wave::new(Barrier::Discarded);
    for generation in beyond {
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

fn read(root: &Root, path: &RelativePath) -> Result<Manifest> {
    control::manifest(root, path)?
        .ok_or_else(|| root.error(Operation::Read, path)(io::ErrorKind::NotFound.into()))
}

/// Looks at every entry of a generation, then moves its files.
fn roll_forward(
    root: &Root,
    (generation, manifest, trust, may_miss): (Generation, &Manifest, Trust, bool),
    copying: &HashSet<RelativePath>,
    chain: &Chain,
    wave: &mut Wave,
    report: &mut RecoveryReport,
) -> Result<()> {
    let mut findings = Vec::new();
    let at_once = if keeps(Rule::LookFirst) { manifest.entries.len() } else { 1 };
    for entries in manifest.entries.chunks(at_once.max(1)) {
        let planned = plan::plan(root, (generation, trust), entries, copying, chain, &mut findings);
        let moves = planned.and_then(|planned| {
            let must_be_there = |path: &_| !may_miss && chain.is_last(generation, path);
            refuse_missing(root, entries, &findings, must_be_there)?;
            for missing in findings.iter().filter(|found| found.finding == Finding::DirectoryMissing) {
                wave.add(apply::others_removal(root, &missing.path)?);
            }
            let set_aside = set_aside::set_aside(root, generation, &planned)?;
            report.differences.extend(set_aside);
            planned.iter().try_for_each(|planned| carry_out(root, (generation, manifest), planned, wave))
        });
        moves.map_err(|error| error.not_applied(generation))?;
    }
    findings.retain(|difference| chain.is_last(generation, &difference.path));
    report.differences.extend(findings);
    Ok(())
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

/// Whether a published manifest needs recovery because its writer is dead. A living writer has passed
/// the commit point and moved its files before it released the lock.
pub(crate) fn is_orphaned(
    root: &Root,
    control: &Control,
    generation: Generation,
    manifest: &Manifest,
) -> bool {
    if control.has(Fate::SyncFailed.of(generation)) {
        return true;
    }
    let mark = layout::session(manifest.transaction.session);
    !matches!(root.fs.try_lock(&mark, LockKind::Shared), Ok(None))
}

/// A file to write and its directory cannot be found. The directory may have been renamed, with the
/// staged file in it. Nothing is moved until it is back, or the generation is given up.
fn refuse_missing(
    root: &Root,
    entries: &[Entry],
    findings: &[Difference],
    is_newest: impl Fn(&RelativePath) -> bool,
) -> Result<()> {
    let is_missing = |entry: &&Entry| {
        let finding = findings.iter().find(|difference| difference.path == entry.path);
        entry.staged().is_some() && finding.is_some_and(|found| found.finding == Finding::DirectoryMissing)
    };
    match entries.iter().filter(is_missing).find(|entry| is_newest(&entry.path)) {
        Some(entry) => Err(root.error(Operation::Look, &entry.path.parent())(io::ErrorKind::NotFound.into())),
        None => Ok(()),
    }
}

fn carry_out(
    root: &Root,
    (generation, manifest): (Generation, &Manifest),
    planned: &PlannedEntry<'_>,
    wave: &mut Wave,
) -> Result<()> {
    let target = planned.target;
    // The directory is in the wave even if nothing is moved: a killed writer's move may be visible but
    // not durable.
    wave.add(Unsynced::directory(target.parent()));
    match &planned.step {
        Step::Nothing => {}
        Step::Remove => wave.add(apply::remove(root, target)?),
        Step::Replace { staged } | Step::SetAsideAndReplace { staged } => {
            wave.add(apply::replace(root, staged, target, || copying_mark(generation, manifest, target))?);
        }
        Step::Unlink { staged } => wave.add(apply::remove(root, staged)?),
    }
    Ok(())
}

/// Makes every move durable, including those of the killed writer.
fn make_durable(root: &Root, moved: Vec<Generation>, wave: Wave) -> Result<Vec<Applied>> {
    let Some(first) = moved.first().copied() else {
        wave.waive("no generation was moved completely, so none is retired");
        return Ok(Vec::new());
    };
    // Lost without this sync: moves that recovery has reported, once the manifest is retired. A crash
    // before it leaves the manifest pending, and recovery begins again.
    match root.sync_always(wave) {
        Ok(durable) => Ok(moved.into_iter().map(|generation| Applied { generation, durable }).collect()),
        Err(error) => {
            for generation in moved {
                control::mark_sync_failed(root, generation);
            }
            Err(error.not_applied(first))
        }
    }
}

fn retire(root: &Root, control: &mut Control, durable: &[Applied], report: &RecoveryReport) -> Result<()> {
    for applied in durable {
        if apply::retire(root, &control.published(applied.generation), applied) {
            control.set_applied(applied.generation);
        }
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
