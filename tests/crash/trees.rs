//! Random commits that move, remove and replace whole directories, beside files,
//! with crashes in between. What is there afterwards must be as a plain map says.
//!
//! Knows which directory goes where, and nothing of hidden names or identities. A
//! transaction reads what it is about to do, a view and the disk what it has done.

use cosave::fs::Barrier;
use cosave::fs::sim::{Crash, Granularity, Model, Mutation, Part, Rule, SimDisk};
use cosave::{Durability, Error, Outcome, Store, Transaction};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::property;
use crate::reference::{State, directories_of};

const DIRECTORIES: [&str; 5] = ["d", "e", "d/x", "n/y", "n/y/z"];
const FILES: [&str; 7] = ["a", "d/f", "e/f", "d/x/f", "d/x/g", "n/f", "n/y/f"];
const CONTENTS: [&str; 2] = ["one", "another"];
const MODE: u32 = 0o644;

const CASES: u32 = 600;
const OUTCOMES_MAX: usize = 16;

/// A change of a whole directory.
#[derive(Clone, Copy, Debug)]
enum Change {
    Move(&'static str, &'static str),
    Replace(&'static str, &'static str),
    Remove(&'static str),
    /// It is removed, and a file takes its place.
    BecomeFile(&'static str),
    /// A file is removed, and a directory with another one takes its place.
    BecomeDirectory(&'static str),
}

use Change::{BecomeDirectory, BecomeFile, Move, Replace};

#[derive(Clone, Debug)]
enum Step {
    /// Writes files, and removes those without content. The whole directory comes before so many of them.
    Save(Vec<(&'static str, Option<&'static str>)>, Option<Change>, usize),
    Reopen,
    /// A crash after so many more changes of the disk: a kill, or a power loss with one of its outcomes.
    CrashSoon(u64, bool, Option<usize>),
}

use Step::{CrashSoon, Reopen, Save};

fn change() -> impl Strategy<Value = Change> {
    let directory = || select(&DIRECTORIES[..]);
    prop_oneof![
        4 => (directory(), directory()).prop_map(|(from, to)| Move(from, to)),
        3 => (directory(), directory()).prop_map(|(from, to)| Replace(from, to)),
        2 => directory().prop_map(Change::Remove),
        1 => directory().prop_map(BecomeFile),
        2 => prop_oneof![3 => select(&FILES[..]), 1 => directory()].prop_map(BecomeDirectory),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let content = prop_oneof![4 => select(&CONTENTS[..]).prop_map(Some), 1 => Just(None)];
    let path = prop_oneof![6 => select(&FILES[..]), 1 => select(&DIRECTORIES[..])];
    let loss = prop_oneof![1 => Just(None), 2 => (0..OUTCOMES_MAX * 8).prop_map(Some)];
    prop_oneof![
        8 => (vec((path, content), 0..3), proptest::option::weighted(0.7, change()), 0..3_usize)
            .prop_map(|(files, change, before)| Save(files, change, before)),
        1 => Just(Reopen),
        4 => (0..60_u64, any::<bool>(), loss)
            .prop_map(|(after, reversed, loss)| CrashSoon(after, reversed, loss)),
    ]
}

type Machine = (Model, Granularity, Durability, usize);

fn case() -> impl Strategy<Value = (Machine, Vec<Step>)> {
    let model = select(&[Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix][..]);
    let clock = select(&[Granularity::Fine, Granularity::Still][..]);
    let durability = select(&[Durability::Full, Durability::Committed][..]);
    ((model, clock, durability, select(&[1 << 20, 0][..])), vec(step(), 1..20))
}

/// Whether a path is a directory's, or lies in it.
fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn are_related(one: &str, other: &str) -> bool {
    is_at_or_below(one, other) || is_at_or_below(other, one)
}

fn is_below_a_file(state: &State, path: &str) -> bool {
    directories_of(path).any(|above| state.files.contains_key(&above))
}

impl Change {
    fn paths(self) -> Vec<&'static str> {
        match self {
            Move(from, to) | Replace(from, to) => vec![from, to],
            Self::Remove(path) | BecomeFile(path) | BecomeDirectory(path) => vec![path],
        }
    }

    fn call(self, tx: &mut Transaction) -> cosave::Result<()> {
        match self {
            Move(from, to) => tx.rename(from, to),
            Replace(from, to) => tx.replace_dir(from, to),
            Self::Remove(path) => tx.remove_dir_all(path),
            BecomeFile(path) => tx.remove_dir_all(path).and_then(|()| tx.write(path, "a file")),
            BecomeDirectory(path) => {
                tx.remove(path)?;
                tx.write(format!("{path}/in"), "in it")?;
                tx.write(format!("{path}/deep/in"), "deep in it")
            }
        }
    }

    /// Whether it must be refused.
    fn is_refused(self, state: &State) -> bool {
        let is_there = |path: &str| state.directories.contains(path);
        match self {
            Move(from, to) | Replace(from, to) => {
                let may_replace = matches!(self, Replace(..)) && is_there(to);
                !is_there(from)
                    || are_related(from, to)
                    || is_below_a_file(state, to)
                    || state.files.contains_key(to)
                    || is_there(to) && !may_replace
            }
            Self::Remove(path) | BecomeFile(path) => !is_there(path),
            BecomeDirectory(path) => !state.files.contains_key(path),
        }
    }

    fn apply(self, state: &mut State) {
        let remove = |state: &mut State, directory: &str| {
            state.files.retain(|path, _| !is_at_or_below(path, directory));
            state.directories.retain(|path| !is_at_or_below(path, directory));
        };
        match self {
            Move(from, to) | Replace(from, to) => {
                remove(state, to);
                let moved = |path: &String| {
                    path.strip_prefix(from)
                        .filter(|_| is_at_or_below(path, from))
                        .map_or_else(|| path.clone(), |rest| format!("{to}{rest}"))
                };
                state.files =
                    state.files.iter().map(|(path, content)| (moved(path), content.clone())).collect();
                state.directories = state.directories.iter().map(moved).collect();
                state.directories.extend(directories_of(to));
            }
            Self::Remove(path) => remove(state, path),
            BecomeFile(path) => {
                remove(state, path);
                state.put(path, "a file");
            }
            BecomeDirectory(path) => {
                state.files.remove(path);
                state.put(&format!("{path}/in"), "in it");
                state.put(&format!("{path}/deep/in"), "deep in it");
            }
        }
    }
}

struct World {
    disk: SimDisk,
    /// There a directory that is replaced can have two names.
    is_weak: bool,
    options: cosave::StoreOptions,
    store: Option<Store>,
    state: State,
    planned: Option<Option<usize>>,
}

impl property::World for World {
    type Machine = Machine;
    type Step = Step;

    fn new((model, clock, durability, inline_max): Machine, mutation: Option<Mutation>) -> Self {
        let disk = SimDisk::new(model);
        disk.clock(clock);
        let mut state = State::default();
        for directory in ["d", "d/x", "e"] {
            disk.make_directory(directory, 0);
            state.directories.insert(directory.to_owned());
        }
        for path in ["a", "d/f", "d/x/f", "e/f"] {
            disk.put(path, b"old", MODE);
            state.put(path, "old");
        }
        disk.settle();
        disk.mutate(mutation);
        let options = Store::options().durability(durability).inline_max(inline_max);
        Self { disk, is_weak: model == Model::WeakPosix, options, store: None, state, planned: None }
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            CrashSoon(after, reversed, loss) => {
                if self.planned.is_none() {
                    self.disk.crash_at(Crash { after: self.disk.steps() + after, reversed: *reversed });
                    self.planned = Some(*loss);
                }
                Ok(())
            }
            Reopen => {
                self.store = None;
                self.check()
            }
            Save(files, change, before) => self.save(files, *change, *before),
        }
    }
}

impl World {
    fn open(&mut self) -> cosave::Result<Store> {
        if self.store.is_none() {
            self.store = Some(self.options.clone().open_on(self.disk.process())?);
        }
        Ok(self.store.clone().unwrap())
    }

    fn save(
        &mut self,
        files: &[(&'static str, Option<&'static str>)],
        change: Option<Change>,
        before: usize,
    ) -> Result<(), String> {
        let mut next = self.state.clone();
        next.generation += 1;
        let change = change.filter(|change| {
            matches!(change, BecomeDirectory(_))
                || !change.paths().iter().any(|path| next.files.contains_key(*path))
        });
        let has_two_names = |change: &Change| matches!(change, Replace(..) | BecomeDirectory(_));
        let change = change.filter(|change| !self.is_weak || !has_two_names(change));
        let is_refused = change.is_some_and(|change| change.is_refused(&next));
        let is_possible = |path: &str, next: &State| {
            !change.is_some_and(|change| change.paths().iter().any(|other| are_related(path, other)))
                && !is_below_a_file(next, path)
                && !next.directories.contains(path)
        };
        let (mut calls, mut is_empty) = (Vec::new(), change.is_none());
        for (path, content) in files {
            if !is_possible(path, &next) || calls.iter().any(|(other, _)| other == path) {
                continue;
            }
            let is_there = next.files.contains_key(*path);
            match content {
                Some(content) => next.put(path, content),
                None => _ = next.files.remove(*path),
            }
            is_empty &= content.is_none() && !is_there;
            calls.push((*path, *content));
        }
        if let Some(change) = change.filter(|_| !is_refused) {
            change.apply(&mut next);
        }
        let store = match self.open() {
            Ok(store) => store,
            Err(error) => return self.crash(None, &error),
        };
        let (answer, wrong) = commit(&store, &calls, (change, before), &next);
        drop(store);
        match answer {
            Err(error) if self.disk.has_crashed() => self.crash((!is_refused).then_some(next), &error),
            Err(error) if is_refused && error.outcome() == Outcome::NothingHappened => self.check(),
            Ok(commit) if !is_refused && wrong.is_none() => {
                let found = commit.generation().get();
                if !is_empty && found != next.generation {
                    return Err(format!("it is generation {found}, not {}", next.generation));
                }
                if found == next.generation {
                    self.state = next;
                }
                self.check()
            }
            answer => Err(format!("{:?}, {wrong:?}, refused: {is_refused}", answer.map(|_| "committed"))),
        }
    }

    /// What can be found after a crash is the newest generation, or the one that was being committed.
    fn crash(&mut self, in_flight: Option<State>, error: &dyn std::fmt::Display) -> Result<(), String> {
        let Some(loss) = self.planned.take().filter(|_| self.disk.has_crashed()) else {
            return Err(error.to_string());
        };
        self.store = None;
        self.disk = property::after(&self.disk, loss, OUTCOMES_MAX);
        let store = self.open().map_err(|error| error.to_string())?;
        let found = store.generation().map_err(|error| error.to_string())?;
        if let Some(next) = in_flight.filter(|next| found == next.generation) {
            self.state = next;
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        let checked = self.check_with_open_disk();
        if self.disk.has_crashed() { self.crash(None, &"after a step") } else { checked }
    }

    fn check_with_open_disk(&mut self) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let view = self.open().map_err(text)?.view().map_err(text)?;
        if view.generation() != self.state.generation {
            return Err(format!("generation {} instead of {}", view.generation(), self.state.generation));
        }
        for path in FILES.into_iter().chain(self.state.files.keys().map(String::as_str)) {
            if !is_below_a_file(&self.state, path) && !self.state.directories.contains(path) {
                let seen = view.read_if_exists(path).map_err(text)?;
                if seen.as_deref() != self.state.content(path).map(str::as_bytes) {
                    return Err(format!(
                        "a view shows {seen:?} at {path}, not {:?}",
                        self.state.content(path)
                    ));
                }
            }
        }
        let files = self.disk.files().into_iter();
        let files: Vec<_> =
            files.map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned())).collect();
        let expected: Vec<_> = self.state.files.clone().into_iter().collect();
        let mut directories = self.disk.directories();
        directories.sort();
        let made: Vec<_> = self.state.directories.iter().cloned().collect();
        if files != expected || directories != made {
            return Err(format!("there is {files:?} in {directories:?}, not {expected:?} in {made:?}"));
        }
        Ok(())
    }
}

/// Commits, and says what the transaction has shown otherwise than it will be.
fn commit(
    store: &Store,
    calls: &[(&str, Option<&str>)],
    (change, before): (Option<Change>, usize),
    next: &State,
) -> (cosave::Result<cosave::Commit>, Option<String>) {
    let mut wrong = None;
    let mut collect = |tx: &mut Transaction| -> cosave::Result<()> {
        let at = before.min(calls.len());
        for (index, (path, content)) in calls.iter().enumerate() {
            if index == at {
                change.map_or(Ok(()), |change| change.call(tx))?;
            }
            match content {
                Some(content) => tx.write(path, content)?,
                None => _ = tx.remove_if_exists(path)?,
            }
        }
        if at == calls.len() {
            change.map_or(Ok(()), |change| change.call(tx))?;
        }
        for path in next.files.keys() {
            let seen = tx.read_if_exists(path)?;
            if seen.as_deref() != next.content(path).map(str::as_bytes) {
                wrong = Some(format!("the transaction shows {seen:?} at {path}"));
            }
        }
        Ok(())
    };
    let committed = store.begin().and_then(|mut tx| {
        collect(&mut tx)?;
        tx.commit()
    });
    (committed, wrong)
}

#[test]
fn any_sequence_of_moved_and_removed_directories_is_as_a_plain_map_says() {
    property::hold(CASES, &case(), |(machine, steps)| property::check::<World>(*machine, None, steps));
}

/// How many cases are tried to notice what was removed.
const MUTATIONS_CASES: u32 = 5_000;

const MUTATIONS: [Mutation; 5] = [
    Mutation::Skip(Barrier::Staged, Part::Everything),
    Mutation::Skip(Barrier::Inherited, Part::Everything),
    Mutation::Skip(Barrier::Published, Part::Everything),
    Mutation::Break(Rule::KnowTrees),
    Mutation::Break(Rule::SweepTrees),
];

#[test]
fn a_broken_move_is_told_from_the_plain_map() {
    property::miss::<World>(MUTATIONS_CASES, &case(), &MUTATIONS);
}
