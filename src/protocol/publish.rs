//! Publish: one rename of the manifest, and the sync that makes it last
//! (barrier 2, the commit point).
//!
//! Takes transactions that are durable in every part, under the lock; what
//! cannot be committed is refused here, before its manifest is renamed. Moves no
//! target.

use super::carried::Passengers;
use super::control::Control;
use super::layout::ControlName;
use super::lock::Locked;
use super::session::Session;
use super::stage::{self, Staged};
use super::{Engine, apply, check, layout, lock, recover};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Durable, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::Entry;
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use std::sync::Arc;

/// A transaction that is committed: whatever happens, recovery finishes it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) generation: Generation,
    pub(crate) id: TransactionId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) session: Arc<Session>,
    /// The record of the directories that were made.
    pub(crate) made: Option<RelativePath>,
    /// How durable everything so far is: barriers 1 and 2.
    pub(crate) durable: Durable,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    pub(crate) published: Vec<Published>,
    /// Those for which nothing happened, or of which it is not known.
    pub(crate) refused: Vec<(TransactionId, Error)>,
}

/// Publishes a batch of transactions that concern different paths: several renames, one barrier.
pub(crate) fn publish(engine: &Engine, locked: &Locked, batch: Vec<Staged>) -> Result<Publication> {
    let control = finish_earlier(engine, locked)?;
    let mut publication = Publication::default();
    let mut renamed = Vec::new();
    let mut wave = Wave::new(Barrier::Published);
    let mut generation = control.newest();
    for mut staged in batch {
        match prepare(engine, &mut staged).and_then(|()| rename(engine, &staged, generation.next())) {
            Ok(debt) => {
                generation = generation.next();
                wave.add(debt);
                renamed.push((generation, staged));
            }
            Err(error) => publication.refused.push((staged.id, error)),
        }
    }
    if !keeps(Rule::ApplyAfterPublish) {
        for (_, staged) in &renamed {
            let _moved = apply::move_all(engine, &staged.manifest.entries);
        }
    }
    if !keeps(Rule::KeepApplied) {
        remove_superseded(engine, &control);
    }
    // The commit point. Lost without this sync: the manifest's published name, while targets are
    // already being moved: a mix of old and new that nobody can finish. A crash before it leaves
    // all old, or a manifest that recovery makes durable before it moves anything.
    match engine.sync(wave) {
        Ok(durable) => {
            for (generation, staged) in renamed {
                publication.published.push(publish_one(generation, staged, durable));
            }
            remove_superseded(engine, &control);
        }
        Err(error) => doubt(engine, &mut publication, renamed, &error),
    }
    Ok(publication)
}

fn publish_one(generation: Generation, mut staged: Staged, durable: Durable) -> Published {
    staged.leftovers.published();
    Published {
        generation,
        id: staged.id,
        entries: std::mem::take(&mut staged.manifest.entries),
        session: staged.session,
        made: staged.made,
        durable: staged.durable.and(durable),
    }
}

/// The sync of the commit point failed: the manifests can be seen, but perhaps not after a power
/// loss. Only recovery can tell, so everything stays where it is.
fn doubt(engine: &Engine, publication: &mut Publication, renamed: Vec<(Generation, Staged)>, error: &Error) {
    for (generation, mut staged) in renamed {
        recover::mark_unsynced(engine, generation);
        staged.leftovers.leave();
        publication.refused.push((staged.id, error.clone().in_doubt(generation)));
    }
}

/// Finishes what others left pending, and retires what this process has made durable since.
pub(crate) fn finish_earlier(engine: &Engine, locked: &Locked) -> Result<Control> {
    let mut control = Control::look(engine)?;
    let settled = control.settled();
    let inherited = {
        let carried = lock(&engine.carried);
        !control.discarded.is_empty()
            || control.pending.iter().any(|generation| !carried.is_ours(*generation))
    };
    if inherited && keeps(Rule::FinishEarlier) {
        recover::recover(engine, locked).map_err(Error::blocked)?;
        control = Control::look(engine)?;
    }
    let open: std::collections::BTreeSet<_> =
        control.pending.iter().copied().filter(|generation| *generation > settled).collect();
    let paid = lock(&engine.carried).retirable(&open);
    if paid.is_empty() {
        return Ok(control);
    }
    for applied in paid {
        apply::retire(engine, applied);
    }
    Control::look(engine)
}

/// The checks under the lock, and what they find out of date put right.
fn prepare(engine: &Engine, staged: &mut Staged) -> Result<()> {
    let moved = check::under_lock(engine, staged)?;
    if !moved.is_empty() {
        for (index, before) in moved {
            staged.manifest.entries[index].before = before;
        }
        rewrite_manifest(engine, staged)?;
    }
    settle_carried(engine, staged)
}

/// Somebody committed to one of the targets since this manifest was written: it must say what it
/// really replaces.
fn rewrite_manifest(engine: &Engine, staged: &mut Staged) -> Result<()> {
    let fresh = layout::unpublished(staged.session.next_transaction());
    let old = std::mem::replace(&mut staged.unpublished, fresh.clone());
    staged.leftovers.add_file(fresh.clone());
    let mut wave = Wave::new(Barrier::Staged);
    wave.add(stage::write_manifest(engine, &fresh, &staged.manifest)?);
    // Lost without this sync: the manifest's content, once its name is published.
    staged.durable = staged.durable.and(engine.sync(wave)?);
    staged.leftovers.remove(&old);
    Ok(())
}

/// A path must never be part of two commits whose moves are both not durable: a power loss could
/// keep the later move and undo the earlier, and recovery would repeat the earlier over the later.
fn settle_carried(engine: &Engine, staged: &Staged) -> Result<()> {
    let mut wave = Wave::new(Barrier::Applied);
    let mut passengers = Passengers::default();
    {
        let mut carried = lock(&engine.carried);
        for path in staged.paths().filter(|path| carried.rides_for(path)) {
            wave.add(Unsynced::directory(path.parent()));
        }
        if staged.paths().any(|path| carried.waits_for(path)) {
            passengers = carried.board(&mut wave);
        }
    }
    if wave.is_empty() {
        return Ok(());
    }
    stage::sync_with(engine, wave, passengers).map(drop)
}

fn rename(engine: &Engine, staged: &Staged, generation: Generation) -> Result<Unsynced> {
    let pending = layout::pending(generation);
    if layout::parse_control(pending.name()) != ControlName::Pending(generation) {
        let reason = "the numbers of its generations are used up";
        return Err(Error::Unsupported { path: engine.root(), reason });
    }
    if !keeps(Rule::PublishByRename) {
        let content = stage::write_manifest(engine, &pending, &staged.manifest)?;
        return Ok(content.and(Unsynced::directory(layout::control())));
    }
    // Atomic for everybody who looks (rename(2)): a manifest is published whole or not at all.
    engine.fs.rename(&staged.unpublished, &pending).map_err(engine.error(Operation::Publish, &pending))
}

/// Barrier 2 has made the newest applied manifest's name durable, so the older ones can go. Until
/// then they must stay: a power loss could leave no applied manifest at all, and recovery would not
/// know where the generations begin.
fn remove_superseded(engine: &Engine, control: &Control) {
    for path in control.superseded() {
        if let Ok(debt) = engine.fs.remove_file(&path) {
            debt.need_not_last();
        }
        // One that cannot be removed is superseded again next time.
    }
}

/// Gives up a generation that cannot be recovered.
pub(crate) fn abandon(engine: &Engine, _locked: &Locked, generation: Generation) -> Result<()> {
    let path = layout::pending(generation);
    let failed = |error| engine.error(Operation::Publish, &path)(error);
    let control = Control::look(engine)?;
    let settled = control.settled();
    if control.pending.iter().any(|earlier| *earlier > settled && *earlier < generation) {
        // It would pass for finished.
        let reason = "an earlier generation is still pending; recover, or give that one up first";
        return Err(Error::Unsupported { path: engine.full(&path), reason });
    }
    let mut wave = Wave::new(Barrier::Discarded);
    wave.add(engine.fs.rename(&path, &layout::abandoned(generation)).map_err(failed)?);
    // Lost without this sync: the decision. The generation would come back.
    let _durable = engine.sync_always(wave)?;
    if let Ok(debt) = engine.fs.remove_file(&layout::unsynced(generation)) {
        debt.need_not_last();
    }
    Ok(())
}
