//! Sets a stranger's file aside: gives it a second name, durably, before a move
//! takes its first one. So no program ever sees the target missing.

use std::io;

use super::super::root::Root;
use super::super::{copy, layout};
use super::plan::{PlannedEntry, Step};
use crate::error::{Operation, Result};
use crate::fs::{Barrier, Kind, Unsynced, Wave};
use crate::generation::Generation;
use crate::path::RelativePath;
use crate::report::{Difference, Finding};

/// How many names are tried. The first is free unless files were set aside here before.
const NAME_TRIES_MAX: u32 = 1000;

/// Gives a second name to every file of another program.
pub(super) fn set_aside(
    root: &Root,
    generation: Generation,
    planned: &[PlannedEntry<'_>],
) -> Result<Vec<Difference>> {
    let mut wave = Wave::new(Barrier::SetAside);
    let mut differences = Vec::new();
    let sets_aside = |entry: &&PlannedEntry<'_>| {
        matches!(entry.step, Step::SetAsideAndReplace { .. } | Step::SetAsideAndTree)
    };
    for entry in planned.iter().filter(sets_aside) {
        let target = &entry.entry.path;
        let name = second_name(root, generation, (target, target), &mut wave)?;
        differences.push((entry.entry.path.clone(), name));
    }
    // Lost without this sync: the second name, if a power loss keeps the move over the first one.
    if let Err(error) = root.sync_always(wave) {
        for (_, name) in differences {
            root.try_remove(
                &name,
                "the next recovery makes the name anew, since a second sync of it proves nothing",
            );
        }
        return Err(error);
    }
    let difference = |(path, name)| Difference { path, finding: Finding::SetAside(name) };
    Ok(differences.into_iter().map(difference).collect())
}

/// Gives a file beside a target a second name that says so.
pub(super) fn second_name(
    root: &Root,
    generation: Generation,
    (target, file): (&RelativePath, &RelativePath),
    wave: &mut Wave,
) -> Result<RelativePath> {
    let failed = |error| root.error(Operation::SetAside, target)(error);
    let found = root.fs.metadata(file).map_err(failed)?;
    for number in 0..NAME_TRIES_MAX {
        let name = layout::set_aside(target, generation, number);
        match root.fs.link(file, &name) {
            Ok(debt) => {
                wave.add(debt);
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let same = root.fs.metadata(&name).map_err(failed)?.identity == found.identity;
                if same && found.identity.is_some() {
                    wave.add(Unsynced::directory(name.parent()));
                    return Ok(name);
                }
            }
            // Some systems link what a symlink leads to, or nothing.
            Err(_) if found.kind == Kind::Symlink => {
                let to = root.fs.read_link(file).map_err(failed)?;
                match root.fs.symlink(&to, &name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => {
                        wave.add(made.map_err(failed)?);
                        return Ok(name);
                    }
                }
            }
            // There are no hard links here, so a copy gets the bytes and the permissions.
            Err(_) => match copy::file(root, file, &name, wave) {
                Ok(_) => return Ok(name),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            },
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}

/// Moves what is hidden beside a target to a name that says so.
pub(super) fn other_name(
    root: &Root,
    generation: Generation,
    (target, hidden): (&RelativePath, &RelativePath),
) -> Result<(RelativePath, Unsynced)> {
    let failed = |error| root.error(Operation::SetAside, target)(error);
    for number in 0..NAME_TRIES_MAX {
        let name = layout::set_aside(target, generation, number);
        match root.fs.rename_directory(hidden, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            renamed => return Ok((name, renamed.map_err(failed)?)),
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}
