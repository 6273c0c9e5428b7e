//! The process that finds a disk after a power cut, recovers, and looks whether all is as promised.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

use cosave::{Problem, Store};

use crate::events::{Bounds, Event};
use crate::plan::{Plan, Promise, SINGLES, Tree, content, owner};
use crate::workload::{ROOT, SAVES, speak, told};

/// What becomes of the blocks of a file that is removed or replaced, until that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    Kept,
    /// They are given to other files, so what comes back can be torn (ext4 with `data=writeback`).
    Reused,
}

impl Blocks {
    /// As these mount options have it.
    pub fn under(options: &str) -> Self {
        if options.contains("data=writeback") { Self::Reused } else { Self::Kept }
    }
}

/// The step of a torn file.
const TORN: usize = usize::MAX;

/// Looks as a program that knows nothing of cosave, then opens the store, and looks again.
pub fn run(mount: &Path, plan: &Plan, bounds: &[Bounds], blocks: Blocks) {
    let (writers, singles) = bounds.split_at(plan.writers);
    let root = mount.join(ROOT);
    check_singles(&mount.join(SAVES), plan, singles, blocks);
    for (writer, bounds) in writers.iter().enumerate() {
        check_whole(&root, plan, (writer, bounds), blocks);
    }
    match Store::options().create(true).open(&root) {
        Err(error) => violation(told("the store does not open", &error)),
        Ok(store) => {
            let recovery = store.last_recovery();
            if !recovery.is_clean() {
                speak(&Event::Worked { finished: recovery.rolled_forward.len() });
            }
            check_states(&root, plan, writers, blocks);
            match store.verify() {
                Ok(mut found) => {
                    found.retain(|found| blocks == Blocks::Kept || found.problem != Problem::Present);
                    // After a `Process` commit that the power took, checksums may say so.
                    if !found.is_empty() && plan.promise != Promise::Mixed {
                        violation(format!("verify: {found:?}"));
                    }
                }
                Err(error) => violation(told("verify", &error)),
            }
        }
    }
    check_control(&root);
}

fn violation(text: String) {
    speak(&Event::Violation(text));
}

/// Which step of `among` wrote what is there; 0 where nothing is. None for a torn file.
pub fn version(directory: &Path, path: &str, seed: u64, among: RangeInclusive<usize>) -> Option<usize> {
    let found = match fs::read(directory.join(path)) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Some(0);
        }
        Err(_) => return None,
    };
    // Its first line says which step it claims to be of.
    let line = found.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let step = String::from_utf8_lossy(line).rsplit_once(' ').and_then(|(_, step)| step.parse().ok())?;
    (among.contains(&step) && step > 0 && found == content(seed, path, step)).then_some(step)
}

/// Which version of a single file is there; None for a torn one.
pub fn single_version(saves: &Path, single: &str, plan: &Plan) -> Option<usize> {
    if !single.contains('#') {
        return version(saves, single, plan.seed, 0..=plan.steps);
    }
    let born = |step: usize| version(saves, &single.replace('#', &step.to_string()), plan.seed, step..=step);
    let missing = (1..=plan.steps).find(|step| born(*step) != Some(*step)).unwrap_or(plan.steps + 1);
    // Each was acknowledged before the next was begun.
    (missing..=plan.steps).all(|step| born(step) == Some(0)).then_some(missing - 1)
}

/// The tree that is there, of the files that a writer has by step `begun`. A torn file is of step `TORN`.
pub fn versions(root: &Path, plan: &Plan, trees: &[Tree], begun: usize) -> Tree {
    let paths: BTreeSet<_> = trees[..=begun].iter().flat_map(Tree::keys).collect();
    let version = |path: &str| version(root, path, plan.seed, 0..=begun).unwrap_or(TORN);
    paths.into_iter().map(|path| (path.clone(), version(path))).filter(|(_, version)| *version > 0).collect()
}

/// Single files are whole, and not older than acknowledged.
fn check_singles(saves: &Path, plan: &Plan, singles: &[Bounds], blocks: Blocks) {
    for (path, bounds) in SINGLES.iter().zip(singles) {
        match single_version(saves, path, plan) {
            // What replaces nothing cannot be torn.
            None if blocks == Blocks::Reused && !path.contains('#') => {}
            None => violation(format!("{SAVES}/{path} is torn ({})", seen(&saves.join(path)))),
            Some(step) if step < bounds.placed || step > bounds.begun => {
                violation(format!(
                    "{SAVES}/{path} is of save {step}, not of {}..={}",
                    bounds.placed, bounds.begun
                ));
            }
            Some(_) => {}
        }
    }
}

/// Before any recovery, each file is whole by itself, and not older than what is in place.
fn check_whole(root: &Path, plan: &Plan, (writer, bounds): (usize, &Bounds), blocks: Blocks) {
    let trees = plan.trees(writer);
    let loose = loose(plan, writer, bounds);
    let found = versions(root, plan, &trees, plan.steps);
    let paths: BTreeSet<_> = trees[..=plan.steps].iter().flat_map(Tree::keys).collect();
    for path in paths.into_iter().filter(|path| !loose.contains(*path)) {
        let step = found.get(path);
        if blocks == Blocks::Reused && step == Some(&TORN) {
            continue;
        }
        let among = &trees[bounds.placed..=bounds.begun];
        if !among.iter().any(|tree| tree.get(path) == step) {
            let range = format!("{}..={}", bounds.placed, bounds.begun);
            let seen = seen(&root.join(path));
            violation(format!("before recovery {path} is {seen}, not as after any of the steps {range}"));
        }
    }
}

/// What a `Process` commit may have changed since the last commit that promised more: there a power
/// loss may leave anything.
fn loose(plan: &Plan, writer: usize, bounds: &Bounds) -> BTreeSet<String> {
    let trees = plan.trees(writer);
    let steps = (bounds.kept + 1..=bounds.begun).filter(|_| plan.promise == Promise::Mixed);
    steps.flat_map(|step| plan.changes(writer, step, &trees[step - 1])).map(|(path, _)| path).collect()
}

/// After recovery each writer's files are those of one step, and nothing else is there.
fn check_states(root: &Path, plan: &Plan, writers: &[Bounds], blocks: Blocks) {
    let mut files = BTreeSet::new();
    let mut directories = BTreeSet::new();
    let mut all_loose = BTreeSet::new();
    for (writer, bounds) in writers.iter().enumerate() {
        let trees = plan.trees(writer);
        let found = versions(root, plan, &trees, plan.steps);
        let among = bounds.kept..=bounds.begun;
        let is_state = |tree: &Tree| {
            let removed = |path: &str, step: usize| step == TORN && !tree.contains_key(path);
            let mut found = found.clone();
            found.retain(|path, step| blocks == Blocks::Kept || !removed(path, *step));
            *tree == found
        };
        let state = among.clone().rev().find(|step| is_state(&trees[*step]));
        let loose = loose(plan, writer, bounds);
        match state {
            Some(step) if plan.promise != Promise::Mixed => speak(&Event::Placed { track: writer, step }),
            Some(_) => {}
            None => {
                let differs = differs(root, &trees[bounds.kept], &found, &loose);
                if loose.is_empty() || !differs.is_empty() {
                    let other = trees.iter().rposition(|tree| *tree == found);
                    let state = other.map_or("of no step".to_owned(), |step| format!("of step {step}"));
                    let against = bounds.kept;
                    violation(format!(
                        "writer {writer}'s files are {state}, not of one of {among:?}; \
                         not as after step {against}: {}",
                        differs.join(", ")
                    ));
                }
            }
        }
        let until = if plan.promise == Promise::Mixed { bounds.begun } else { state.unwrap_or(bounds.begun) };
        files.extend(found.into_keys());
        all_loose.extend(loose);
        for tree in &trees[..=until] {
            directories.extend(tree.keys().flat_map(|path| parents(path)));
        }
    }
    walk(root, "", &mut |path, is_directory| {
        let known = if is_directory { directories.contains(path) } else { files.contains(path) };
        // A `Process` commit waits for nothing, so not for the record of where it stages either. If a power loss
        // has taken its manifest and left its file, that one is a stranger's to an earlier `Process` commit.
        let is_loose = path.rsplit_once(SET_ASIDE).is_some_and(|(path, _)| all_loose.contains(path));
        let excused = plan.promise == Promise::Mixed && is_staged(path)
            || is_loose
            || blocks == Blocks::Reused && path.contains(SET_ASIDE);
        if !known && !excused {
            violation(format!("left over: {path} (writer {:?})", owner(path)));
        }
    });
}

/// In the name of a file that recovery took for somebody's edit.
const SET_ASIDE: &str = ".set-aside-";

fn differs(root: &Path, expected: &Tree, found: &Tree, loose: &BTreeSet<String>) -> Vec<String> {
    let paths: BTreeSet<_> =
        expected.keys().chain(found.keys()).filter(|path| !loose.contains(*path)).collect();
    let other = paths.into_iter().filter(|path| expected.get(*path) != found.get(*path));
    other
        .map(|path| format!("{path} is {}, wanted {:?}", seen(&root.join(path)), expected.get(path)))
        .collect()
}

/// In a few words, what is at a path.
fn seen(path: &Path) -> String {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "missing".to_owned(),
        Err(error) => error.to_string(),
        Ok(bytes) if bytes.is_empty() => "empty".to_owned(),
        Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => format!("{} zeros", bytes.len()),
        Ok(bytes) => {
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            format!(
                "{} bytes of \"{}\"",
                bytes.len(),
                String::from_utf8_lossy(&line[..line.len().min(40)]).escape_default()
            )
        }
    }
}

fn parents(path: &str) -> impl Iterator<Item = String> {
    path.match_indices('/').map(|(end, _)| path[..end].to_owned())
}

/// Whether a path is that of a file that was on its way to its target.
fn is_staged(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with('.') && name.ends_with(".cosave")
}

/// Calls `found` with everything below the root but the control directory.
fn walk(root: &Path, below: &str, found: &mut impl FnMut(&str, bool)) {
    let Ok(names) = fs::read_dir(root.join(below)) else {
        violation(format!("the directory `{below}` cannot be read"));
        return;
    };
    for entry in names.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if path == ".cosave" {
            continue;
        }
        found(&path, is_directory);
        if is_directory {
            walk(root, &path, found);
        }
    }
}

/// Once the store is closed, nothing in the control directory waits for anybody.
fn check_control(root: &Path) {
    for entry in fs::read_dir(root.join(".cosave")).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if [".tmp", ".pending", ".discarded"].iter().any(|kind| name.contains(kind)) {
            violation(format!("left over: .cosave/{name}"));
        }
    }
}
