//! Apply: move the staged files over their targets, wait once (barrier 3), and
//! retire the manifest.
//!
//! Runs only on what is published, by the writer and by recovery alike. Every
//! move can be repeated. Nothing here decides whether to move: the writer checked
//! under the lock, recovery looked at every entry first.

use std::collections::BTreeSet;
use std::io;

use super::publish::Published;
use super::{Engine, layout, recover, stage};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Durable, Unsynced, Wave};
use crate::generation::Generation;
use crate::manifest::Entry;
use crate::path::RelativePath;

/// A generation whose files are all in place, but perhaps not after a power loss.
#[derive(Debug)]
#[must_use = "a generation in place must be made durable and retired, or carried"]
pub(crate) struct Moved {
    generation: Generation,
    paths: BTreeSet<RelativePath>,
    wave: Wave,
}

/// A generation whose files are durably in place: it may be retired.
#[derive(Debug)]
#[must_use = "an applied generation is to be retired"]
pub(crate) struct Applied {
    generation: Generation,
    durable: Durable,
}

impl Moved {
    pub(crate) fn new(generation: Generation, paths: BTreeSet<RelativePath>, wave: Wave) -> Self {
        Self { generation, paths, wave }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn concerns(&self, path: &RelativePath) -> bool {
        self.paths.contains(path)
    }

    pub(crate) fn into_parts(self) -> (Generation, BTreeSet<RelativePath>, Wave) {
        (self.generation, self.paths, self.wave)
    }
}

impl Applied {
    /// The third barrier was part of another wave.
    pub(crate) fn carried(generation: Generation, durable: Durable) -> Self {
        Self { generation, durable }
    }

    pub(crate) fn durable(&self) -> Durable {
        self.durable
    }
}

/// Moves every staged file over its target, in the order in which they were written.
pub(crate) fn apply(engine: &Engine, published: &Published) -> Result<Moved> {
    let not_applied = |error: Error| error.not_applied(published.generation);
    let mut wave = move_all(engine, &published.entries).map_err(not_applied)?;
    if let Some(debt) = published.made.as_ref().and_then(|record| published.session.forget(record)) {
        // In barrier 3: a record that came back would take a directory that this commit made, and
        // that somebody has emptied since, for litter.
        wave.add(debt);
    }
    let paths = published.entries.iter().map(|entry| entry.path.clone()).collect();
    Ok(Moved::new(published.generation, paths, wave))
}

/// Moves what the entries say, unconditionally.
pub(crate) fn move_all(engine: &Engine, entries: &[Entry]) -> Result<Wave> {
    let mut wave = Wave::new(Barrier::Applied);
    for entry in entries {
        match entry.staged() {
            Some(staged) => wave.add(replace(engine, &staged, &entry.path)?),
            None => wave.add(remove(engine, &entry.path)?),
        }
    }
    Ok(wave)
}

/// One staged file takes its target's name: whoever looks sees the old file or the new one, whole
/// (rename(2)).
pub(crate) fn replace(engine: &Engine, staged: &RelativePath, target: &RelativePath) -> Result<Unsynced> {
    match engine.fs.rename(staged, target) {
        // A file that is itself a mount point cannot be renamed over (EBUSY: rename(2)).
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            copy_over(engine, staged, target).map_err(engine.error(Operation::Move, target))
        }
        result => result.map_err(engine.error(Operation::Move, target)),
    }
}

/// Copies the staged bytes over the target, and makes them durable before the staged file goes.
/// Not atomic for those who read meanwhile; recovery repeats it as long as the staged file is there.
fn copy_over(engine: &Engine, staged: &RelativePath, target: &RelativePath) -> io::Result<Unsynced> {
    let mut source = engine.fs.open(staged)?;
    let mut file = engine.fs.overwrite(target)?;
    stage::copy_bytes(&mut *source, &mut *file)?;
    let (_, content) = file.finish()?;
    let mut wave = Wave::new(Barrier::Applied);
    wave.add(content);
    // Lost without this sync: the target's bytes, when the staged file is already gone.
    let _durable = engine.fs.sync(wave, engine.settings.strategy).map_err(|error| {
        engine.poison();
        error.source
    })?;
    engine.fs.remove_file(staged)
}

/// Removes a target; one that is gone already is what was wanted.
pub(crate) fn remove(engine: &Engine, target: &RelativePath) -> Result<Unsynced> {
    match engine.fs.remove_file(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Unsynced::directory(target.parent())),
        result => result.map_err(engine.error(Operation::Remove, target)),
    }
}

/// Barrier 3: every directory whose names were moved, each once, all at once.
pub(crate) fn settle(engine: &Engine, moved: Vec<Moved>) -> Result<Vec<Applied>> {
    let mut wave = Wave::new(Barrier::Applied);
    let mut generations = Vec::new();
    for moved in moved {
        generations.push(moved.generation);
        wave.absorb(moved.wave);
    }
    // Lost without this sync: some of the moves, once the manifest that could repeat them is
    // retired. A crash before it leaves a pending manifest, which recovery applies again.
    match engine.sync(wave) {
        Ok(durable) => {
            Ok(generations.into_iter().map(|generation| Applied { generation, durable }).collect())
        }
        Err(error) => {
            let first = generations.first().copied().unwrap_or_default();
            for generation in generations {
                recover::mark_unsynced(engine, generation);
            }
            Err(error.not_applied(first))
        }
    }
}

/// Marks a manifest as fully applied.
pub(crate) fn retire(engine: &Engine, applied: Applied) {
    let Applied { generation, durable: _ } = applied;
    // No sync: if a power loss undoes this rename, recovery looks at the manifest once more and
    // finds nothing left to do. For the same reason a failure here is nobody's trouble.
    if let Ok(debt) = engine.fs.rename(&layout::pending(generation), &layout::applied(generation)) {
        debt.need_not_last();
    }
}
