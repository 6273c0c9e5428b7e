//! What is saved: every state of every file, worked out from a seed.
//!
//! The one who saves, the one who checks and the one who cuts the power work it out each for
//! themselves, so none of them has to believe another. One thread goes through a *track*: a row of
//! states, numbered from 0 (nothing). These are a writer's transactions in the store, or the versions
//! of one file that is saved without a store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use cosave::{Durability, SyncStrategy};

use crate::random::Random;

/// Files that are saved without a store, below the directory `saves`: by `cosave::write`, again and
/// again, or, where there is a `#`, a new file for each version, by `cosave::create_new`.
pub const SINGLES: [&str; 4] = ["settings", "state", "made/on/the/way", "born/#"];

/// What the commits promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Promise {
    #[default]
    Full,
    Committed,
    /// Any of the three, by turns: what `Full` and `Committed` rest on must last with them. What is
    /// only promised by `Process` may be lost, torn, and leave its staged files.
    Mixed,
}

impl Promise {
    pub const ALL: [(&str, Self); 3] =
        [("full", Self::Full), ("committed", Self::Committed), ("mixed", Self::Mixed)];
}

/// Everything about what is saved.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub promise: Promise,
    pub writers: usize,
    pub steps: usize,
}

/// The writer's files after a step: which step wrote each.
pub type Tree = BTreeMap<String, usize>;

/// One thread's row of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    Writer(usize),
    Single(usize),
}

impl Plan {
    pub fn tracks(&self) -> Vec<Track> {
        (0..self.writers).map(Track::Writer).chain((0..SINGLES.len()).map(Track::Single)).collect()
    }

    /// How the commit of a writer's step is made durable.
    pub fn durability(&self, writer: usize, step: usize) -> Durability {
        match self.promise {
            Promise::Full => Durability::Full,
            Promise::Committed => Durability::Committed,
            Promise::Mixed => match Random::of(&[self.seed, 2, writer as u64, step as u64]).below(6) {
                0 => Durability::Full,
                1 => Durability::Committed,
                _ => Durability::Process,
            },
        }
    }

    /// How the waits of a wave are made; all ways must hold.
    pub fn strategy(&self) -> SyncStrategy {
        match Random::of(&[self.seed, 6]).below(4) {
            0 => SyncStrategy::PerFile,
            1 => SyncStrategy::FileSystem,
            _ => SyncStrategy::Auto,
        }
    }

    /// Whether all writers share a store, so that their commits are published together.
    pub fn shares_store(&self) -> bool {
        self.promise != Promise::Mixed && Random::of(&[self.seed, 7]).one_in(2)
    }

    /// The writer's files after each step, from 0, nothing.
    pub fn trees(&self, writer: usize) -> Vec<Tree> {
        let mut trees = vec![Tree::new()];
        for step in 1..=self.steps {
            let mut tree = trees[step - 1].clone();
            for (path, change) in self.changes(writer, step, &trees[step - 1]) {
                match change {
                    Change::Write => _ = tree.insert(path, step),
                    Change::Remove => _ = tree.remove(&path),
                }
            }
            trees.push(tree);
        }
        trees
    }

    /// What a step changes, in order.
    pub fn changes(&self, writer: usize, step: usize, before: &Tree) -> Vec<(String, Change)> {
        let mut random = Random::of(&[self.seed, 1, writer as u64, step as u64]);
        let mut paths = BTreeSet::new();
        for _ in 0..=random.below(5) {
            paths.insert(random.pick(&PLACES).replace('#', &writer.to_string()));
        }
        if random.one_in(4) {
            paths.insert(format!("new{writer}/{step}/leaf"));
        }
        if random.one_in(6) {
            paths.insert(format!("new{writer}/{step}/twig/bud/leaf"));
        }
        // So many are synced together.
        if random.one_in(5) {
            paths.extend((0..50).map(|file| format!("many{writer}/{file}")));
        }
        let mut changes: Vec<_> = paths
            .into_iter()
            .map(|path| match before.contains_key(&path) && random.one_in(4) {
                true => (path, Change::Remove),
                false => (path, Change::Write),
            })
            .collect();
        // A step that only removes what an earlier one made would be another step's state.
        changes.push((format!("last{writer}"), Change::Write));
        changes
    }
}

/// Where the writer `#` saves: directories of its own, and some that all share.
const PLACES: [&str; 10] = [
    "a#",
    "b#",
    "c#.toml",
    "own#/a",
    "own#/b",
    "own#/deep/a",
    "own#/deep/down/a",
    "shared/a#",
    "shared/b#",
    "shared/deep/a#",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Write,
    Remove,
}

/// Which writer saves at `path`; none for a path that is nobody's.
pub fn owner(path: &str) -> Option<usize> {
    path.chars().find_map(|letter| letter.to_digit(10)).map(|digit| digit as usize)
}

/// What a step writes at a path. Never empty, so that a file torn to nothing is seen.
pub fn content(seed: u64, path: &str, step: usize) -> Vec<u8> {
    let numbers: Vec<u64> = path.bytes().map(u64::from).chain([seed, step as u64]).collect();
    let mut random = Random::of(&numbers);
    let length = match random.below(80) {
        0..32 => random.below(200),
        32..56 => random.below(6_000),
        56..79 => random.below(40_000),
        // A few are larger than what is worth copying into a manifest.
        _ => random.below(1_500_000),
    };
    let mut bytes = format!("{path} {step}\n").into_bytes();
    let end = bytes.len() + length;
    while bytes.len() < end {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(end);
    bytes
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Promise::ALL.into_iter().find(|(_, promise)| *promise == self.promise);
        let (promise, _) = named.unwrap_or_default();
        write!(f, "{promise} {} {} {}", self.seed, self.writers, self.steps)
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no plan");
        let parts: Vec<&str> = text.split(' ').collect();
        let [promise, seed, writers, steps] = parts[..] else { return Err(wrong()) };
        let (_, promise) = Promise::ALL.into_iter().find(|(name, _)| *name == promise).ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        Ok(Self {
            seed: number(seed)?,
            promise,
            writers: number(writers)? as usize,
            steps: number(steps)? as usize,
        })
    }
}
