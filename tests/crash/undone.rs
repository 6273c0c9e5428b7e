//! Random saves, undos, redos and restores with crashes in between. What is
//! there afterwards, and every generation that is kept, must be as the reference
//! says.
//!
//! The reference is a list of all generations, and knows nothing of records or
//! links. One file lies on another file system, so that it is kept as a copy.

use std::collections::BTreeMap;

use cosave::fs::Barrier;
use cosave::fs::sim::{Crash, Granularity, Model, Mutation, Part, Rule, SimDisk};
use cosave::{Durability, Error, Reason, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::property;

const PATHS: [&str; 4] = ["a", "b", "mnt/c", "new"];

/// Two of the same length.
const CONTENTS: [&str; 3] = ["one", "two", "longer than those"];

/// The files that exist at first, with the permissions of any new file.
const FILES: [(&str, &str); 2] = [("a", "one"), ("mnt/c", "old")];
const MODE: u32 = 0o644;

const CASES: u32 = 600;
const OUTCOMES_MAX: usize = 16;

type Files = BTreeMap<&'static str, &'static str>;

#[derive(Clone, Debug)]
enum Step {
    /// Writes files, and removes those without content.
    Save(Vec<(&'static str, Option<&'static str>)>),
    Undo,
    Redo,
    /// Goes back so many generations.
    Restore(u64),
    Reopen,
    /// A crash after so many more changes of the disk: a kill, or a power loss with one of its outcomes.
    CrashSoon(u64, bool, Option<usize>),
}

use Step::{CrashSoon, Redo, Reopen, Restore, Save, Undo};

fn step() -> impl Strategy<Value = Step> {
    let content = prop_oneof![3 => select(&CONTENTS[..]).prop_map(Some), 1 => Just(None)];
    let loss = prop_oneof![1 => Just(None), 2 => (0..OUTCOMES_MAX * 8).prop_map(Some)];
    prop_oneof![
        8 => vec((select(&PATHS[..]), content), 1..3).prop_map(Save),
        5 => Just(Undo),
        3 => Just(Redo),
        2 => (0..5_u64).prop_map(Restore),
        1 => Just(Reopen),
        4 => (0..40_u64, any::<bool>(), loss)
            .prop_map(|(after, reversed, loss)| CrashSoon(after, reversed, loss)),
    ]
}

/// A disk, a store and how many generations it keeps.
type Machine = (Model, Granularity, Durability, usize, u64);

fn case() -> impl Strategy<Value = (Machine, Vec<Step>)> {
    let model = select(&[Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix][..]);
    let clock = select(&[Granularity::Fine, Granularity::Still][..]);
    let durability = select(&[Durability::Full, Durability::Committed][..]);
    let machine = (model, clock, durability, select(&[1 << 20, 0][..]), 1..5_u64);
    (machine, vec(step(), 1..25))
}

/// One generation.
#[derive(Clone, Debug)]
struct Generation {
    files: Files,
    /// For an undo or a redo: the generation whose state it has brought back, and the newest one that can be
    /// redone.
    undo: Option<(u64, u64)>,
}

struct World {
    disk: SimDisk,
    options: cosave::StoreOptions,
    store: Option<Store>,
    keep: u64,
    generations: Vec<Generation>,
    planned: Option<Option<usize>>,
    /// A power loss may bring back what has fallen out of the history.
    is_exact: bool,
}

fn is_refused(error: &Error) -> bool {
    let Error::Unsupported { reason, .. } = error else { return false };
    matches!(reason, Reason::NoHistory | Reason::NothingToUndo)
}

impl property::World for World {
    type Machine = Machine;
    type Step = Step;

    fn new((model, clock, durability, inline_max, keep): Machine, mutation: Option<Mutation>) -> Self {
        let disk = SimDisk::new(model);
        disk.clock(clock);
        disk.make_directory("mnt", 1);
        for (path, content) in FILES {
            disk.put(path, content.as_bytes(), MODE);
        }
        disk.settle();
        disk.mutate(mutation);
        let options =
            Store::options().durability(durability).inline_max(inline_max).keep(u32::try_from(keep).unwrap());
        let first = Generation { files: FILES.into(), undo: None };
        let generations = vec![first];
        Self { disk, options, store: None, keep, generations, planned: None, is_exact: true }
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        if let CrashSoon(after, reversed, loss) = step {
            if self.planned.is_none() {
                self.disk.crash_at(Crash { after: self.disk.steps() + after, reversed: *reversed });
                self.planned = Some(*loss);
            }
            return Ok(());
        }
        let store = match self.open() {
            Ok(store) => store,
            Err(error) => return self.crash(None, &error),
        };
        let oldest = match self.oldest(&store) {
            Err(_) if self.disk.has_crashed() => return self.crash(None, &"while it was read"),
            oldest => oldest?,
        };
        let newest = self.newest();
        let mut next = self.generations[self.generations.len() - 1].clone();
        next.undo = None;
        let (answer, wanted) = match step {
            Save(changes) => {
                for (path, content) in changes {
                    match content {
                        Some(content) => _ = next.files.insert(path, content),
                        None => _ = next.files.remove(path),
                    }
                }
                let save = |tx: &mut cosave::Transaction| -> cosave::Result<()> {
                    changes.iter().try_for_each(|(path, content)| match content {
                        Some(content) => tx.write(path, content),
                        None => tx.remove_if_exists(path).map(drop),
                    })
                };
                (store.update(save), Some(next))
            }
            Undo | Redo => {
                let is_undo = matches!(step, Undo);
                let wanted = self.wanted(is_undo, oldest).map(|(state, top)| Generation {
                    files: self.files(state).clone(),
                    undo: Some((state, top)),
                });
                (if is_undo { store.undo() } else { store.redo() }, wanted)
            }
            Restore(back) => {
                let generation = newest.saturating_sub(*back);
                next.files = self.files(generation).clone();
                (store.restore(generation), (generation + 1 >= oldest).then_some(next))
            }
            Reopen => {
                drop(store);
                self.store = None;
                return Ok(());
            }
            CrashSoon(..) => return Ok(()),
        };
        self.answered(answer, wanted)
    }
}

impl World {
    fn newest(&self) -> u64 {
        self.generations.len() as u64 - 1
    }

    fn files(&self, generation: u64) -> &Files {
        &self.generations[usize::try_from(generation).unwrap()].files
    }

    fn open(&mut self) -> cosave::Result<Store> {
        if self.store.is_none() {
            self.store = Some(self.options.clone().open_on(self.disk.process())?);
        }
        Ok(self.store.clone().unwrap())
    }

    /// The oldest generation that can be undone, which is one more than the newest if there is none.
    fn oldest(&self, store: &Store) -> Result<u64, String> {
        let history = store.history().map_err(|error| error.to_string())?;
        let newest = self.newest();
        let found = history.last().map_or(newest + 1, |commit| commit.generation().get());
        let promised = newest.saturating_sub(self.keep - 1).max(1);
        if found > promised || self.is_exact && found < promised {
            return Err(format!("the history of {newest} begins at {found}, not at {promised}"));
        }
        for commit in history {
            let own = &self.generations[usize::try_from(commit.generation().get()).unwrap()];
            let brought_back = commit.brought_back().map(cosave::Generation::get);
            if brought_back != own.undo.map(|(state, _)| state) {
                return Err(format!("{commit} should have brought back {:?}", own.undo));
            }
        }
        Ok(found)
    }

    /// The generation that first had the state of this one, as far as that is kept.
    fn first(&self, generation: u64, oldest: u64) -> u64 {
        let undo = self.generations[usize::try_from(generation).unwrap()].undo;
        undo.filter(|_| generation >= oldest).map_or(generation, |(state, _)| state)
    }

    /// The state that an undo or a redo must bring back, and its note; `None` if it must be refused.
    fn wanted(&self, is_undo: bool, oldest: u64) -> Option<(u64, u64)> {
        let newest = self.newest();
        let now = self.first(newest, oldest);
        let undo = self.generations.last()?.undo.filter(|_| newest >= oldest);
        let top = undo.map_or(newest, |(_, top)| top);
        // What first had a state, and the latest generation on the way that had it.
        let at = |generation: u64| (self.first(generation, oldest), generation);
        let before = |(first, latest): &(u64, u64)| {
            let earlier = first.checked_sub(1).filter(|_| *latest >= oldest)?;
            Some(at(earlier))
        };
        let mut states: Vec<_> = if is_undo {
            std::iter::successors(before(&at(newest)), before).collect()
        } else {
            std::iter::successors(Some(at(top)), before).take_while(|(first, _)| *first > now).collect()
        };
        if !is_undo {
            states.reverse();
        }
        for (first, latest) in states {
            if latest + 1 < oldest {
                return None;
            }
            if self.files(latest) != self.files(newest) {
                return Some((first, top));
            }
        }
        None
    }

    fn answered(
        &mut self,
        answer: cosave::Result<cosave::Commit>,
        wanted: Option<Generation>,
    ) -> Result<(), String> {
        let newest = self.newest();
        match (answer, wanted) {
            (Err(error), wanted) if self.disk.has_crashed() => return self.crash(wanted, &error),
            (Ok(commit), Some(next)) if commit.generation() == newest + 1 => {
                self.generations.push(next);
                self.is_exact = true;
            }
            // Nothing had to be changed.
            (Ok(_), Some(next)) if next.files == *self.files(newest) => {}
            (Err(error), None) if is_refused(&error) => {}
            (answer, wanted) => return Err(format!("{answer:?}, and the reference has {wanted:?}")),
        }
        self.check()
    }

    /// What can be found after a crash is the newest generation, or the one that was being committed.
    fn crash(&mut self, in_flight: Option<Generation>, error: &dyn std::fmt::Display) -> Result<(), String> {
        let Some(loss) = self.planned.take().filter(|_| self.disk.has_crashed()) else {
            return Err(error.to_string());
        };
        self.store = None;
        self.is_exact = false;
        self.disk = property::after(&self.disk, loss, OUTCOMES_MAX);
        let store = self.open().map_err(|error| error.to_string())?;
        let found = store.generation().map_err(|error| error.to_string())?;
        if let Some(mut next) = in_flight.filter(|_| found == self.newest() + 1) {
            let history = store.history().map_err(|error| error.to_string())?;
            // A power loss may have taken the note. Then it is a commit like any other.
            next.undo = next.undo.filter(|_| history.first().is_some_and(|own| own.brought_back().is_some()));
            self.generations.push(next);
        }
        self.check()
    }

    /// All generations that are kept are as they were, and the newest is in place.
    fn check(&mut self) -> Result<(), String> {
        let checked = self.check_with_open_disk();
        if self.disk.has_crashed() { self.crash(None, &"after a step") } else { checked }
    }

    fn check_with_open_disk(&mut self) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let store = self.open().map_err(text)?;
        let found = store.generation().map_err(text)?;
        if found != self.newest() {
            return Err(format!("the newest generation is {found}, not {}", self.newest()));
        }
        let oldest = self.oldest(&store)?;
        for generation in 0..=self.newest() {
            let view = match store.view_at(generation) {
                Err(error) if generation + 1 < oldest && is_refused(&error) => continue,
                view => view.map_err(text)?,
            };
            for path in PATHS {
                let seen = view.read_if_exists(path).map_err(text)?;
                let expected = self.files(generation).get(path);
                if seen.as_deref() != expected.map(|content| content.as_bytes()) {
                    return Err(format!("{path} of {generation} is {seen:?}, not {expected:?}"));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn any_sequence_of_saves_and_undos_is_as_the_reference_says() {
    property::hold(CASES, &case(), |(machine, steps)| property::check::<World>(*machine, None, steps));
}

/// How many cases are tried to notice what was removed.
const MUTATIONS_CASES: u32 = 5_000;

const MUTATIONS: [Mutation; 6] = [
    Mutation::Skip(Barrier::Kept, Part::Everything),
    Mutation::Break(Rule::KeepBeforeMoves),
    Mutation::Break(Rule::KeepInRecovery),
    Mutation::Break(Rule::KeepMissing),
    Mutation::Break(Rule::InheritHistory),
    Mutation::Break(Rule::ForgetOld),
];

#[test]
fn a_broken_history_is_told_from_the_reference() {
    property::miss::<World>(MUTATIONS_CASES, &case(), &MUTATIONS);
}
