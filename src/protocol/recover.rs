//! Recover: finish what was published, whoever published it.
//!
//! Runs under the lock, at open and before the next publication. What a killed
//! process left is visible but perhaps not durable, so recovery syncs before it
//! moves, and syncs again before it retires. It looks at every entry of a
//! manifest before it moves the first, every step can be repeated, and nothing
//! that it did not expect to find is ever destroyed.

use std::collections::{BTreeSet, HashMap};
use std::io;

use super::apply::{self, Applied};
use super::control::{self, Control};
use super::layout::{self, StagedId};
use super::lock::Locked;
use super::{Engine, if_found, lock, stage};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Durable, Kind, Metadata, NewFile, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::{Action, Entry, Manifest, StagedContent, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use crate::report::{Difference, Finding, RecoveryReport};

/// A root in which nothing is pending any more, as long as it is locked: whatever dead sessions have
/// staged is litter.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) report: RecoveryReport,
}

/// Finishes every published manifest, oldest first.
pub(crate) fn recover(engine: &Engine, _locked: &Locked) -> Result<Recovered> {
    let control = Control::look(engine)?;
    let mut report = RecoveryReport::default();
    let (chain, beyond) = split(&control);
    if chain.is_empty() && beyond.is_empty() && control.discarded.is_empty() {
        remove_stale(engine, &control);
        return Ok(Recovered { report });
    }
    lock(&engine.carried).forget();
    inherit(engine, &control, &chain)?;
    discard(engine, &beyond, &control)?;
    report.discarded.clone_from(&beyond);

    let mut wave = Wave::new(Barrier::Recovered);
    let mut moved = Vec::new();
    let mut stopped = None;
    let newest = newest_of_paths(engine, &chain);
    for generation in chain {
        match roll_forward(engine, generation, &control, &newest, &mut wave, &mut report) {
            Ok(()) => moved.push(generation),
            Err(error) => {
                stopped = Some(error);
                break;
            }
        }
    }
    for applied in settle(engine, moved, wave)? {
        report.rolled_forward.push(applied.0);
        retire(engine, applied);
    }
    remove_stale(engine, &control);
    engine.note_recovery(&report);
    match stopped {
        Some(error) => Err(error),
        None => Ok(Recovered { report }),
    }
}

/// The generations that follow the applied one without a gap, and those beyond a gap: of a batch
/// that was renamed but never synced, a power loss can keep any part. Nobody was told that those
/// beyond the gap are committed.
fn split(control: &Control) -> (Vec<Generation>, Vec<Generation>) {
    let mut next = control.settled().next();
    let open = control.pending.range(next..).copied();
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

/// Makes durable what was found, before anything is moved.
fn inherit(engine: &Engine, control: &Control, chain: &[Generation]) -> Result<()> {
    let mut wave = Wave::new(Barrier::Inherited);
    wave.add(Unsynced::directory(layout::control()));
    for generation in chain {
        let path = layout::pending(*generation);
        if control.unsynced.contains(generation) && keeps(Rule::WriteAnew) {
            wave.absorb(write_manifest_anew(engine, &path)?);
        } else {
            wave.add(engine.fs.inherit(&path).map_err(engine.error(Operation::Read, &path))?);
        }
    }
    // Lost without this sync: the manifest of a writer that was killed before its own barrier 2,
    // after a power loss that keeps some of the moves made below. SQLite syncs an inherited journal
    // for the same reason (pager.c, pagerSyncHotJournal).
    engine.sync_always(wave).map(drop).inspect_err(|_| {
        for generation in chain {
            mark_unsynced(engine, *generation);
        }
    })
}

/// Removes what was never acknowledged, before its number can be used again. In two steps: whoever
/// comes after a recovery that was killed in between must see that the removal may not be durable.
fn discard(engine: &Engine, beyond: &[Generation], control: &Control) -> Result<()> {
    let mut wave = Wave::new(Barrier::Discarded);
    for generation in beyond {
        let (pending, discarded) = (layout::pending(*generation), layout::discarded(*generation));
        let renamed = engine.fs.rename(&pending, &discarded);
        wave.add(renamed.map_err(engine.error(Operation::Remove, &pending))?);
    }
    // Lost without this sync: that the published name is gone. The old manifest would come back, and
    // pass for the commit that has its number by then. Those found discarded are covered by the
    // sync of what was inherited.
    if let Err(error) = engine.sync_always(wave) {
        for generation in beyond {
            // The next recovery discards anew: a second sync of this rename would prove nothing.
            let back = engine.fs.rename(&layout::discarded(*generation), &layout::pending(*generation));
            if let Ok(debt) = back {
                debt.need_not_last();
            }
        }
        return Err(error);
    }
    for generation in beyond.iter().chain(&control.discarded) {
        if let Ok(debt) = engine.fs.remove_file(&layout::discarded(*generation)) {
            // What comes back is removed again.
            debt.need_not_last();
        }
    }
    Ok(())
}

/// What is to be done with one entry.
#[derive(Debug)]
enum Step {
    /// Done before; perhaps not durably.
    Nothing,
    /// The staged file takes the target's name.
    Replace,
    /// As `Replace`, but what is at the target is somebody's, and is kept beside.
    KeepAndReplace,
    /// Staged file and target are one file: only the staged name is to go.
    Unlink,
    /// The target goes.
    Remove,
}

/// Which generation is the last to name a path: what an earlier one finds changed there is its doing.
fn newest_of_paths(engine: &Engine, chain: &[Generation]) -> HashMap<RelativePath, Generation> {
    let mut newest = HashMap::new();
    for generation in chain {
        // A manifest that cannot be read stops recovery when its turn comes.
        if let Ok(Some(manifest)) = control::manifest(engine, &layout::pending(*generation)) {
            newest.extend(manifest.entries.into_iter().map(|entry| (entry.path, *generation)));
        }
    }
    newest
}

/// Looks at every entry of a generation, then moves.
fn roll_forward(
    engine: &Engine,
    generation: Generation,
    control: &Control,
    newest: &HashMap<RelativePath, Generation>,
    wave: &mut Wave,
    report: &mut RecoveryReport,
) -> Result<()> {
    let path = layout::pending(generation);
    let manifest = control::manifest(engine, &path)?
        .ok_or_else(|| engine.error(Operation::Read, &path)(io::ErrorKind::NotFound.into()))?;
    let mut findings = Vec::new();
    let at_once = if keeps(Rule::LookFirst) { manifest.entries.len() } else { 1 };
    for entries in manifest.entries.chunks(at_once.max(1)) {
        let looks = entries.iter().map(|entry| look(engine, entry, &mut findings));
        let steps: Vec<Step> = looks.collect::<Result<_>>().map_err(|error| error.not_applied(generation))?;
        let moves = keep_all(engine, generation, entries, &steps, report).and_then(|()| {
            entries.iter().zip(&steps).try_for_each(|(entry, step)| step_once(engine, entry, step, wave))
        });
        moves.map_err(|error| error.not_applied(generation))?;
    }
    findings.retain(|difference: &Difference| newest.get(&difference.path) == Some(&generation));
    report.differences.extend(findings);
    if control.unsynced.contains(&generation) && keeps(Rule::WriteAnew) {
        wave.absorb(write_targets_anew(engine, &manifest).map_err(|error| error.not_applied(generation))?);
    }
    Ok(())
}

/// Decides what to do with an entry; changes nothing.
fn look(engine: &Engine, entry: &Entry, findings: &mut Vec<Difference>) -> Result<Step> {
    let metadata =
        |path: &RelativePath| if_found(engine.fs.metadata(path)).map_err(engine.error(Operation::Look, path));
    let found = metadata(&entry.path)?;
    let mut differs = |finding| findings.push(Difference { path: entry.path.clone(), finding });
    if found.is_some_and(|found| found.kind == Kind::Directory) {
        return match &entry.action {
            Action::Write(_)
                if entry.staged().map(|path| metadata(&path)).transpose()?.flatten().is_none() =>
            {
                Ok(Step::Nothing)
            }
            Action::Write(_) => {
                Err(engine.error(Operation::Move, &entry.path)(io::ErrorKind::IsADirectory.into()))
            }
            Action::Remove => {
                differs(Finding::NotRemoved);
                Ok(Step::Nothing)
            }
        };
    }
    let before = found.as_ref().map(Stamp::of);
    match &entry.action {
        Action::Remove => Ok(match found {
            None => Step::Nothing,
            Some(_) if before == entry.before || !keeps(Rule::RemoveByIdentity) => Step::Remove,
            Some(_) => {
                differs(Finding::NotRemoved);
                Step::Nothing
            }
        }),
        Action::Write(content) => {
            let path = entry.path.with_name(&content.name);
            let Some(staged) = metadata(&path)? else {
                // Moved before; what is there now is newer than this commit, whatever it is.
                if before != Some(content.after) {
                    differs(Finding::ChangedSince);
                }
                return Ok(Step::Nothing);
            };
            if verify(engine, &path, &staged, content)? {
                differs(Finding::WrittenInPlace);
            }
            let one_file =
                staged.identity.is_some() && found.is_some_and(|found| found.identity == staged.identity);
            Ok(match found {
                Some(_) if one_file && keeps(Rule::UnlinkAlias) => Step::Unlink,
                Some(_) if before != entry.before && keeps(Rule::SetAside) => Step::KeepAndReplace,
                _ => Step::Replace,
            })
        }
    }
}

/// Compares a staged file with what the manifest says of it. A published manifest proves that it was
/// durable, so a difference is a diagnosis: `true` means that somebody wrote to it in place, after
/// it was applied and before a power loss undid the move; it is theirs, and is moved. If neither
/// length nor time stamp moved, nobody wrote and the medium is damaged.
fn verify(engine: &Engine, path: &RelativePath, staged: &Metadata, content: &StagedContent) -> Result<bool> {
    if staged.kind != Kind::File {
        return Err(Error::corrupt(engine.full(path), "the staged file is not a regular file"));
    }
    let checksum = stage::checksum(engine, path).map_err(engine.error(Operation::Read, path))?;
    if checksum == content.checksum {
        return Ok(false);
    }
    if Stamp::of(staged) == content.after || !keeps(Rule::DiagnoseChecksum) {
        let reason = "the staged file's checksum does not match, though nobody wrote to it";
        return Err(Error::corrupt(engine.full(path), reason));
    }
    Ok(true)
}

fn step_once(engine: &Engine, entry: &Entry, step: &Step, wave: &mut Wave) -> Result<()> {
    // The directory is in the wave even where nothing is moved: a killed writer's move can be seen,
    // but need not be durable.
    wave.add(Unsynced::directory(entry.path.parent()));
    let staged = entry.staged();
    match (step, &staged) {
        (Step::Remove, _) => wave.add(apply::remove(engine, &entry.path)?),
        (Step::Replace | Step::KeepAndReplace, Some(staged)) => {
            wave.add(apply::replace(engine, staged, &entry.path)?);
        }
        (Step::Unlink, Some(staged)) => wave.add(apply::remove(engine, staged)?),
        (Step::Nothing, _) | (Step::Replace | Step::Unlink | Step::KeepAndReplace, None) => {}
    }
    Ok(())
}

/// Gives every file of somebody else's a second name, before any loses its first.
fn keep_all(
    engine: &Engine,
    generation: Generation,
    entries: &[Entry],
    steps: &[Step],
    report: &mut RecoveryReport,
) -> Result<()> {
    let mut wave = Wave::new(Barrier::Kept);
    let mut names = Vec::new();
    for (entry, _) in entries.iter().zip(steps).filter(|(_, step)| matches!(step, Step::KeepAndReplace)) {
        names.push((entry.path.clone(), keep(engine, generation, &entry.path, &mut wave)?));
    }
    if wave.is_empty() {
        return Ok(());
    }
    // Lost without this sync: the second name, after a power loss that keeps the move over the first.
    if let Err(error) = engine.sync_always(wave) {
        for (_, kept) in names {
            // The next recovery gives the name anew: a second sync of this one would prove nothing.
            if let Ok(debt) = engine.fs.remove_file(&kept) {
                debt.need_not_last();
            }
        }
        return Err(error);
    }
    let kept = names.into_iter().map(|(path, kept)| Difference { path, finding: Finding::Kept(kept) });
    report.differences.extend(kept);
    Ok(())
}

/// Tries to find a free name for a file that is kept; one is enough, but for files kept before.
const KEPT_TRIES_MAX: u32 = 1000;

/// Gives what is at `target` a second name, so that nobody ever sees the target missing.
fn keep(
    engine: &Engine,
    generation: Generation,
    target: &RelativePath,
    wave: &mut Wave,
) -> Result<RelativePath> {
    let failed = |error| engine.error(Operation::Keep, target)(error);
    let found = engine.fs.metadata(target).map_err(failed)?;
    for number in 0..KEPT_TRIES_MAX {
        let kept = layout::kept(target, generation, number);
        match engine.fs.link(target, &kept) {
            Ok(debt) => {
                wave.add(debt);
                return Ok(kept);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let same = engine.fs.metadata(&kept).map_err(failed)?.identity == found.identity;
                if same && found.identity.is_some() {
                    wave.add(Unsynced::directory(kept.parent()));
                    return Ok(kept);
                }
            }
            // No hard links here: a copy keeps the bytes and the permissions.
            Err(_) => match stage::copy(engine, target, &kept, wave) {
                Ok(_) => return Ok(kept),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            },
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}

/// Makes every move durable, those of the killed writer included.
fn settle(engine: &Engine, moved: Vec<Generation>, wave: Wave) -> Result<Vec<(Generation, Applied)>> {
    let Some(first) = moved.first().copied() else { return Ok(Vec::new()) };
    // Lost without this sync: moves that recovery reported as done, once the manifest is retired.
    // A crash before it leaves the manifest pending, and recovery begins again.
    match engine.sync_always(wave) {
        Ok(durable) => Ok(receipts(moved, durable)),
        Err(error) => {
            for generation in moved {
                mark_unsynced(engine, generation);
            }
            Err(error.not_applied(first))
        }
    }
}

fn receipts(moved: Vec<Generation>, durable: Durable) -> Vec<(Generation, Applied)> {
    moved.into_iter().map(|generation| (generation, Applied::carried(generation, durable))).collect()
}

fn retire(engine: &Engine, (generation, applied): (Generation, Applied)) {
    apply::retire(engine, applied);
    if let Ok(debt) = engine.fs.remove_file(&layout::unsynced(generation)) {
        // A power loss drops the caches that this mark warns of.
        debt.need_not_last();
    }
}

/// Removes pending names of generations that are applied: a power loss can bring them back.
fn remove_stale(engine: &Engine, control: &Control) {
    let settled = control.settled();
    let stale = control.pending.range(..=settled).map(|generation| layout::pending(*generation));
    let marks = control.unsynced.range(..=settled).map(|generation| layout::unsynced(*generation));
    for path in stale.chain(marks).collect::<BTreeSet<_>>() {
        if let Ok(debt) = engine.fs.remove_file(&path) {
            // What comes back is stale again.
            debt.need_not_last();
        }
    }
}

/// Says that a step after the commit point of this generation failed, as a rule a sync. The kernel
/// may have dropped what was to be written and call the next sync a success (fsync(2), ERRORS), so
/// recovery must write it anew. The mark itself needs no sync: a power loss that takes it takes the
/// deceiving cache as well.
pub(crate) fn mark_unsynced(engine: &Engine, generation: Generation) {
    let path = layout::unsynced(generation);
    // One more try is all that can be done where even this is refused.
    for _ in 0..2 {
        if let Ok((file, name)) = engine.fs.create_new(&path, NewFile::Ordinary) {
            name.need_not_last();
            if let Ok((_, content)) = file.finish() {
                content.need_not_last();
            }
            return;
        }
    }
}

/// A manifest whose sync failed, in a new file under the same name.
fn write_manifest_anew(engine: &Engine, pending: &RelativePath) -> Result<Wave> {
    let fresh = layout::unpublished(TransactionId { session: engine.fs.unique(), number: 0 });
    let failed = |error| engine.error(Operation::Publish, pending)(error);
    let mut wave = Wave::new(Barrier::Inherited);
    stage::copy(engine, pending, &fresh, &mut wave).map_err(failed)?;
    // Lost without this sync: the manifest's bytes, when the name already leads to the new file.
    let _durable = engine.sync_always(wave)?;
    let mut wave = Wave::new(Barrier::Inherited);
    wave.add(engine.fs.rename(&fresh, pending).map_err(failed)?);
    Ok(wave)
}

/// The moves of a generation whose sync failed, made once more with new files: a sync of the old ones
/// would be believed, and do nothing.
fn write_targets_anew(engine: &Engine, manifest: &Manifest) -> Result<Wave> {
    let transaction = TransactionId { session: engine.fs.unique(), number: 0 };
    let mut copies = Vec::new();
    let mut wave = Wave::new(Barrier::Recovered);
    for (entry, number) in manifest.entries.iter().zip(0..) {
        let failed = |error| engine.error(Operation::Move, &entry.path)(error);
        let fresh = layout::staged(&entry.path.parent(), entry.path.name(), StagedId { transaction, number });
        let found = if_found(engine.fs.metadata(&entry.path)).map_err(failed)?;
        match (entry.staged(), found.map(|found| found.kind)) {
            (Some(staged), Some(Kind::File)) => {
                stage::copy(engine, &entry.path, &fresh, &mut wave).map_err(failed)?;
                copies.push((fresh, Some(staged), &entry.path));
            }
            // What was removed appears for a moment, empty: the directory must see the name go again.
            (None, None) => {
                // A directory that is gone has no names that could come back.
                let made = if_found(engine.fs.create_new(&fresh, NewFile::Private)).map_err(failed)?;
                let Some((file, name)) = made else { continue };
                wave.add(name.and(file.finish().map_err(failed)?.1));
                copies.push((fresh, None, &entry.path));
            }
            _ => {}
        }
    }
    // Lost without this sync: the bytes of the new files, when the names already lead to them.
    let _durable = engine.sync_always(wave)?;
    let mut wave = Wave::new(Barrier::Recovered);
    for (fresh, staged, target) in copies {
        // Through the staged name, since its removal is not durable either.
        if let Some(staged) = &staged {
            let renamed = engine.fs.rename(&fresh, staged);
            wave.add(renamed.map_err(engine.error(Operation::Move, target))?);
        }
        wave.add(apply::replace(engine, staged.as_ref().unwrap_or(&fresh), target)?);
        if staged.is_none() {
            wave.add(apply::remove(engine, target)?);
        }
    }
    Ok(wave)
}
