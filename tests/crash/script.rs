//! Workloads as data: what is saved, in which order, and so what must be found
//! after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cosave::fs::FileSystem;
use cosave::fs::sim::explore::{Bounds, Progress, Workload};
use cosave::fs::sim::{Granularity, SimDisk};
use cosave::{Durability, Error, Store, Transaction, View};

/// One change of a transaction.
#[derive(Clone, Debug)]
pub enum Change {
    Write(String, String),
    Remove(String),
    /// Another program durably changes a file's permissions.
    SetMode(String, u32),
    WithMode(String, String, u32),
    SetPermissions(String, u32),
    Copy(String, String),
    Rename(String, String),
    Symlink(String, String),
    CreateDirectory(String),
    /// A directory with a mode.
    MakeDirectory(String, u32),
    RemoveDirectory(String),
    MoveTree(String, String),
    RemoveTree(String),
    Prune,
}

/// One thing that a program does with its store.
#[derive(Clone, Debug)]
pub enum Act {
    /// A transaction that is committed.
    Commit(Vec<Change>),
    /// Several that are published together.
    Together(Vec<Vec<Change>>),
    /// A transaction that is dropped.
    Drop(Vec<Change>),
    /// Another program begins a transaction, and never finishes it.
    Beside(Vec<Change>),
    /// The program opens the root anew.
    Reopen,
}

impl Act {
    /// What each of its transactions changes.
    fn changes(&self) -> &[Vec<Change>] {
        match self {
            Self::Commit(changes) | Self::Drop(changes) | Self::Beside(changes) => {
                std::slice::from_ref(changes)
            }
            Self::Together(sets) => sets,
            Self::Reopen => &[],
        }
    }
}

/// What a program that knows nothing of cosave does between a crash and the recovery.
#[derive(Clone, Debug)]
pub enum Stranger {
    /// Makes a file again, if it was removed.
    Recreates(String),
    /// Writes into a file, in place.
    Edits(String),
    /// Replaces it with another file.
    Replaces(String),
}

/// What the stranger writes, and a note that there was a stranger.
const STRANGE: &str = "the stranger's";
const NOTE: &str = "untouched/a stranger was here";

/// Where a successor counts its commits, and its other file.
const SUCCESSOR: [&str; 2] = ["last", "a"];

/// A successor's count is below this, so that a script's generation and the count fit into one number.
const SUCCESSORS_MAX: u64 = 1000;

/// A workload: a tree, and what is done to it.
#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    pub durability: Durability,
    /// The files that exist at first.
    pub files: Vec<(String, String)>,
    /// Directories that are file systems of their own.
    pub mounts: Vec<String>,
    pub acts: Vec<Act>,
    /// How many bytes a small save may have.
    pub inline_max: usize,
    /// A mutated protocol may return errors.
    pub lenient: bool,
    /// What a stranger does before the recovery.
    pub stranger: Option<Stranger>,
    /// The process that recovers also commits something.
    pub successor: bool,
    /// The granularity of time stamps.
    pub clock: Granularity,
    /// How many generations are kept.
    pub keep: u32,
}

type Tree = BTreeMap<String, Vec<u8>>;

pub fn write(path: &str, content: &str) -> Change {
    Change::Write(path.to_owned(), content.to_owned())
}

pub fn remove(path: &str) -> Change {
    Change::Remove(path.to_owned())
}

pub fn set_mode(path: &str, mode: u32) -> Change {
    Change::SetMode(path.to_owned(), mode)
}

pub fn with_mode(path: &str, content: &str, mode: u32) -> Change {
    Change::WithMode(path.to_owned(), content.to_owned(), mode)
}

pub fn set_permissions(path: &str, mode: u32) -> Change {
    Change::SetPermissions(path.to_owned(), mode)
}

pub fn copy(from: &str, to: &str) -> Change {
    Change::Copy(from.to_owned(), to.to_owned())
}

pub fn create_dir(path: &str) -> Change {
    Change::CreateDirectory(path.to_owned())
}

pub fn make_dir(path: &str, mode: u32) -> Change {
    Change::MakeDirectory(path.to_owned(), mode)
}

pub fn remove_dir(path: &str) -> Change {
    Change::RemoveDirectory(path.to_owned())
}

/// Moves a directory, and replaces any other.
pub fn move_tree(from: &str, to: &str) -> Change {
    Change::MoveTree(from.to_owned(), to.to_owned())
}

pub fn remove_tree(path: &str) -> Change {
    Change::RemoveTree(path.to_owned())
}

pub fn rename(from: &str, to: &str) -> Change {
    Change::Rename(from.to_owned(), to.to_owned())
}

pub fn symlink(path: &str, to: &str) -> Change {
    Change::Symlink(path.to_owned(), to.to_owned())
}

/// How a symlink stands in a tree.
pub fn link_bytes(to: &Path) -> Vec<u8> {
    format!("-> {}", to.display()).into_bytes()
}

fn is_link(bytes: &[u8]) -> bool {
    bytes.starts_with(b"-> ")
}

/// The files and symlinks of a disk.
pub fn found_on(disk: &SimDisk) -> Tree {
    let links = disk.links().into_iter().map(|(path, to)| (path, link_bytes(&to)));
    disk.files().into_iter().chain(links).collect()
}

/// What a view shows at a path.
pub fn seen_at(view: &View, path: &str) -> cosave::Result<Option<Vec<u8>>> {
    let is_file =
        |error: &Error| matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::InvalidInput);
    // A directory is there, or a file is above it.
    let is_none = |error: &Error| {
        let Error::InvalidPath { reason, .. } = error else { return false };
        matches!(reason, cosave::InvalidPath::Directory | cosave::InvalidPath::NotADirectory)
    };
    match view.read_link(path) {
        Ok(to) => Ok(Some(link_bytes(&to))),
        Err(error) if is_file(&error) => match view.read(path) {
            Err(error) if is_none(&error) => Ok(None),
            found => found.map(Some),
        },
        Err(error) if error.is_not_found() || is_none(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn collect(disk: &SimDisk, tx: &mut Transaction, changes: &[Change]) -> cosave::Result<()> {
    for change in changes {
        match change {
            Change::SetMode(path, mode) => disk.set_mode(path, *mode),
            Change::Write(path, content) => tx.write(path, content)?,
            Change::Remove(path) => drop(tx.remove_if_exists(path)?),
            Change::WithMode(path, content, mode) => tx.file(path).mode(*mode).write(content)?,
            Change::SetPermissions(path, mode) => tx.set_permissions(path, *mode)?,
            Change::Copy(from, to) => tx.copy(from, to)?,
            Change::Rename(from, to) => tx.rename(from, to)?,
            Change::Symlink(path, to) => tx.symlink(path, to)?,
            Change::CreateDirectory(path) => tx.create_dir_all(path)?,
            Change::MakeDirectory(path, mode) => tx.directory(path).mode(*mode).create()?,
            Change::RemoveDirectory(path) => tx.remove_dir(path)?,
            Change::MoveTree(from, to) => tx.replace_dir(from, to)?,
            Change::RemoveTree(path) => tx.remove_dir_all(path)?,
            Change::Prune => tx.prune_empty_parents(),
        }
    }
    Ok(())
}

fn apply(tree: &mut Tree, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Write(path, content) | Change::WithMode(path, content, _) => {
                tree.insert(path.clone(), content.clone().into_bytes());
            }
            Change::Remove(path) => drop(tree.remove(path)),
            Change::Symlink(path, to) => drop(tree.insert(path.clone(), link_bytes(Path::new(to)))),
            Change::SetMode(..) | Change::SetPermissions(..) => {}
            Change::CreateDirectory(_) | Change::MakeDirectory(..) => {}
            Change::RemoveDirectory(_) | Change::Prune => {}
            Change::RemoveTree(path) => tree.retain(|file, _| !is_below(file, path)),
            Change::MoveTree(from, to) => move_below(tree, from, to),
            Change::Copy(from, to) => drop(tree.insert(to.clone(), tree[from].clone())),
            Change::Rename(from, to) => {
                let moved = tree.remove(from).unwrap_or_default();
                tree.insert(to.clone(), moved);
            }
        }
    }
}

/// The name that a staged name stands for. Any other stands for itself.
fn target_of(name: &str) -> &str {
    let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".cosave"));
    stem.map_or(name, |stem| stem.rsplit_once('.').map_or(stem, |(target, _)| target))
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Moves all that lies below a directory to the place of what lies below another one.
fn move_below<T: Clone>(tree: &mut BTreeMap<String, T>, from: &str, to: &str) {
    tree.retain(|path, _| !is_below(path, to));
    let moved: Vec<_> = tree.iter().filter(|(path, _)| is_below(path, from)).collect();
    let moved: Vec<_> =
        moved.into_iter().map(|(path, value)| (path.replacen(from, to, 1), value.clone())).collect();
    tree.retain(|path, _| !is_below(path, from));
    tree.extend(moved);
}

/// The directories that a path lies in.
fn parents(path: &str) -> impl Iterator<Item = String> {
    path.match_indices('/').map(|(index, _)| path[..index].to_owned())
}

/// The modes that files must have after a transaction, where it says so.
fn apply_modes(modes: &mut BTreeMap<String, u32>, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Write(..) | Change::CreateDirectory(_) | Change::Prune => {}
            Change::Remove(path)
            | Change::RemoveDirectory(path)
            | Change::SetMode(path, _)
            | Change::Symlink(path, _) => {
                modes.remove(path);
            }
            Change::RemoveTree(path) => modes.retain(|file, _| !is_below(file, path)),
            Change::MoveTree(from, to) => move_below(modes, from, to),
            Change::WithMode(path, _, mode)
            | Change::SetPermissions(path, mode)
            | Change::MakeDirectory(path, mode) => {
                modes.insert(path.clone(), *mode);
            }
            Change::Copy(from, to) => {
                let mode = modes.get(from).copied();
                modes.remove(to);
                modes.extend(mode.map(|mode| (to.clone(), mode)));
            }
            Change::Rename(from, to) => {
                let mode = modes.remove(from);
                modes.remove(to);
                modes.extend(mode.map(|mode| (to.clone(), mode)));
            }
        }
    }
}

impl Script {
    pub fn new(name: &str, files: &[(&str, &str)], acts: Vec<Act>) -> Self {
        Self {
            name: name.to_owned(),
            durability: Durability::Full,
            files: files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect(),
            mounts: Vec::new(),
            acts,
            inline_max: INLINE_MAX,
            lenient: false,
            stranger: None,
            successor: false,
            clock: Granularity::Fine,
            keep: 0,
        }
    }

    pub fn stranger(mut self, stranger: Stranger) -> Self {
        self.stranger = Some(stranger);
        self
    }

    pub fn successor(mut self) -> Self {
        self.successor = true;
        self
    }

    pub fn on_a_still_clock(mut self) -> Self {
        self.name.push_str(", on a clock that stands still");
        self.clock = Granularity::Still;
        self
    }

    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The same with files that are staged at once, so that every save is a long one.
    fn long(mut self) -> Self {
        let still = ", on a clock that stands still";
        self.name = match self.name.strip_suffix(still) {
            Some(name) => format!("{name}, as long saves{still}"),
            None => format!("{}, as long saves", self.name),
        };
        self.staged_at_once()
    }

    /// Nothing is kept in memory.
    pub fn staged_at_once(self) -> Self {
        self.keeping(0)
    }

    /// Keeps what so many generations replace.
    pub fn history(mut self, generations: u32) -> Self {
        self.keep = generations;
        self
    }

    /// Sets how many bytes of a transaction are kept in memory.
    pub fn keeping(mut self, bytes: usize) -> Self {
        self.inline_max = bytes;
        self
    }

    pub fn mount(mut self, path: &str) -> Self {
        self.mounts.push(path.to_owned());
        self
    }

    /// The trees that may be found: that of generation 0, 1, 2 ...
    pub fn trees(&self) -> Vec<Tree> {
        let mut tree: Tree =
            self.files.iter().map(|(path, content)| (path.clone(), content.clone().into_bytes())).collect();
        let mut trees = vec![tree.clone()];
        for changes in self.commits() {
            apply(&mut tree, changes);
            trees.push(tree.clone());
        }
        trees
    }

    /// The changes of each generation.
    fn commits(&self) -> impl Iterator<Item = &Vec<Change>> {
        self.acts.iter().flat_map(|act| match act {
            Act::Commit(changes) => std::slice::from_ref(changes),
            Act::Together(sets) => sets.as_slice(),
            Act::Drop(_) | Act::Beside(_) | Act::Reopen => &[],
        })
    }

    /// The modes that files must have in a generation, where that is certain.
    fn certain_modes(&self, generation: u64) -> BTreeMap<String, u32> {
        let mut modes = self.files.iter().map(|(path, _)| (path.clone(), MODE)).collect();
        let generation = usize::try_from(generation).unwrap_or(usize::MAX);
        self.commits().take(generation).for_each(|changes| apply_modes(&mut modes, changes));
        modes
    }

    /// Whether a transaction, and not the file that is replaced, decides a path's mode.
    fn decides_mode(&self, path: &str) -> bool {
        self.commits().flatten().any(|change| match change {
            Change::WithMode(other, ..) | Change::SetPermissions(other, _) => other == path,
            Change::MakeDirectory(other, _) => other == path,
            Change::Copy(_, to) => to == path,
            Change::Rename(from, to) => from == path || to == path,
            _ => false,
        })
    }

    fn directories(&self, tree: &Tree) -> BTreeSet<String> {
        let initial = self.files.iter().flat_map(|(path, _)| parents(path));
        let mounts = self.mounts.iter().flat_map(|path| [path.clone()].into_iter().chain(parents(path)));
        initial.chain(mounts).chain(tree.keys().flat_map(|path| parents(path))).collect()
    }

    /// The directories of each generation, in a script that makes or removes some.
    fn directories_of(&self, generation: u64) -> Option<BTreeSet<String>> {
        let is_of_directory = |change: &Change| {
            matches!(
                change,
                Change::CreateDirectory(_)
                    | Change::MakeDirectory(..)
                    | Change::RemoveDirectory(_)
                    | Change::MoveTree(..)
                    | Change::RemoveTree(_)
                    | Change::Prune
            )
        };
        if !self.commits().flatten().any(is_of_directory) {
            return None;
        }
        let mut trees = self.trees().into_iter();
        let mut directories: BTreeSet<_> = trees.next()?.keys().flat_map(|path| parents(path)).collect();
        let generation = usize::try_from(generation).ok()?;
        for (changes, tree) in self.commits().zip(trees).take(generation) {
            for change in changes {
                match change {
                    Change::CreateDirectory(path) | Change::MakeDirectory(path, _) => {
                        directories.extend(parents(path).chain([path.clone()]));
                    }
                    Change::RemoveDirectory(path) => _ = directories.remove(path),
                    Change::RemoveTree(tree) => {
                        directories.retain(|path| path != tree && !is_below(path, tree));
                    }
                    Change::MoveTree(from, to) => {
                        directories.retain(|path| path != from && path != to);
                        directories.retain(|path| !is_below(path, from) && !is_below(path, to));
                        directories.extend(parents(to).chain([to.clone()]));
                    }
                    Change::Prune => {
                        let is_used = |directory: &String| {
                            let below = format!("{directory}/");
                            tree.keys().any(|path| path.starts_with(&below))
                        };
                        directories.retain(is_used);
                    }
                    _ => {}
                }
            }
            directories.extend(tree.keys().flat_map(|path| parents(path)));
        }
        Some(directories)
    }

    fn open(&self, fs: Arc<dyn FileSystem>) -> cosave::Result<Store> {
        self.open_keeping(fs, self.inline_max)
    }

    fn open_keeping(&self, fs: Arc<dyn FileSystem>, bytes: usize) -> cosave::Result<Store> {
        Store::options().durability(self.durability).inline_max(bytes).keep(self.keep).open_on(fs)
    }

    fn act(&self, disk: &SimDisk, fs: &Arc<dyn FileSystem>, progress: &Progress) -> cosave::Result<()> {
        let mut store = self.open(Arc::clone(fs))?;
        let mut generation = 0;
        let mut beside = Vec::new();
        for act in &self.acts {
            match act {
                Act::Reopen => {
                    drop(store);
                    store = self.open(Arc::clone(fs))?;
                }
                Act::Commit(changes) => {
                    generation += 1;
                    progress.request(self.numbered(generation));
                    let mut tx = store.begin()?;
                    collect(disk, &mut tx, changes)?;
                    assert_eq!(tx.commit()?.generation(), generation);
                    progress.acknowledge(self.numbered(generation));
                }
                Act::Together(sets) => {
                    let mut transactions = Vec::new();
                    for changes in sets {
                        let mut tx = store.begin()?;
                        collect(disk, &mut tx, changes)?;
                        transactions.push(tx);
                    }
                    progress.request(self.numbered(generation + sets.len() as u64));
                    for result in Transaction::commit_together(transactions) {
                        generation = result?.get();
                        progress.acknowledge(self.numbered(generation));
                    }
                }
                Act::Drop(changes) => collect(disk, &mut store.begin()?, changes)?,
                Act::Beside(changes) => {
                    let other = self.open_keeping(disk.process(), 0)?;
                    let mut tx = other.begin()?;
                    collect(disk, &mut tx, changes)?;
                    beside.push((other, tx));
                }
            }
        }
        Ok(())
    }

    /// A file that is removed and made again is a new file.
    fn removes(&self, path: &str) -> bool {
        self.trees().iter().any(|tree| tree.get(path).is_none_or(|bytes| is_link(bytes)))
    }

    /// The generation from which a path has other permissions, and these permissions.
    fn changed_mode(&self, path: &str) -> Option<(u64, u32)> {
        let commits = self.acts.iter().filter_map(|act| match act {
            Act::Commit(changes) => Some(changes),
            _ => None,
        });
        (1..).zip(commits).find_map(|(generation, changes)| {
            changes.iter().find_map(|change| match change {
                Change::SetMode(other, mode) if other == path => Some((generation, *mode)),
                _ => None,
            })
        })
    }

    /// The permissions that a file may have in this generation or a later one.
    fn modes(&self, path: &str, generation: u64) -> Vec<u32> {
        let is_old = self.files.iter().any(|(other, _)| other == path);
        let mut modes = if is_old && !self.removes(path) { vec![MODE] } else { vec![MODE, NEW_MODE] };
        if let Some((from, mode)) = self.changed_mode(path) {
            if from <= generation {
                modes.clear();
            }
            modes.push(mode);
        }
        modes
    }

    /// A staged file lies beside its target, and only those who may read the target can read it.
    fn staged_files_are_hidden(&self, disk: &SimDisk) -> Result<(), String> {
        for path in disk.files().into_keys().filter(|path| path.ends_with(".cosave")) {
            // It may lie in a directory that is staged, too.
            let target = path.split('/').map(target_of).collect::<Vec<_>>().join("/");
            let becomes_directory =
                || self.trees().iter().flat_map(Tree::keys).any(|path| is_below(path, &target));
            if !self.writes(&target) && !becomes_directory() {
                return Err(format!("{path} is not beside its target"));
            }
            let mode = disk.mode(&path).unwrap_or_default();
            let is_own = || {
                (0..)
                    .zip(self.trees())
                    .any(|(generation, _)| self.certain_modes(generation).get(&target) == Some(&mode))
            };
            if mode != HIDDEN_MODE && !self.modes(&target, 0).contains(&mode) && !is_own() {
                return Err(format!("{path} can be read by others: its mode is {mode:o}"));
            }
        }
        Ok(())
    }

    /// A directory that is to have a mode is never open to more.
    fn directories_are_closed(&self, disk: &SimDisk) -> Result<(), String> {
        for change in self.acts.iter().flat_map(Act::changes).flatten() {
            let Change::MakeDirectory(path, mode) = change else { continue };
            // A file may be there before.
            let is_there = disk.directories().contains(path);
            let found = disk.mode(path).filter(|_| is_there).unwrap_or(UNFINISHED_MODE);
            if ![UNFINISHED_MODE, *mode].contains(&found) {
                return Err(format!("{path} is open to others: its mode is {found:o}"));
            }
        }
        Ok(())
    }

    /// Whether any transaction writes to this path.
    fn writes(&self, path: &str) -> bool {
        let sets = self.acts.iter().flat_map(Act::changes);
        let own = sets.flatten().any(|change| match change {
            Change::Write(to, _) | Change::WithMode(to, ..) | Change::SetPermissions(to, _) => to == path,
            Change::Copy(_, to) | Change::Rename(_, to) | Change::MoveTree(_, to) => to == path,
            _ => false,
        });
        own || self.successor && SUCCESSOR.contains(&path)
    }

    /// A run's generation as the number that is compared.
    fn numbered(&self, generation: u64) -> u64 {
        if self.successor { generation * SUCCESSORS_MAX } else { generation }
    }

    /// The tree of a numbered generation.
    fn tree(&self, number: u64) -> Option<Tree> {
        let (generation, successors) =
            if self.successor { (number / SUCCESSORS_MAX, number % SUCCESSORS_MAX) } else { (number, 0) };
        let mut tree = self.trees().into_iter().nth(usize::try_from(generation).ok()?)?;
        if successors > 0 {
            for path in SUCCESSOR {
                tree.insert(path.to_owned(), number.to_string().into_bytes());
            }
        }
        Some(tree)
    }

    /// Commits on top of the recovered state. The next recovery must find that commit.
    fn succeed(&self, store: &Store, generation: u64) -> cosave::Result<u64> {
        let last = match store.view()?.read(SUCCESSOR[0]) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).parse().unwrap_or(0),
            Err(error) if error.is_not_found() => generation * SUCCESSORS_MAX,
            Err(error) => return Err(error),
        };
        let number = last + 1;
        store.update(|tx| SUCCESSOR.iter().try_for_each(|path| tx.write(path, number.to_string())))?;
        Ok(number)
    }

    /// Removes what the stranger wrote from both trees. It must be somewhere, and nothing else may be
    /// in its place.
    fn without_the_stranger(&self, found: &mut Tree, expected: &mut Tree) -> Result<(), String> {
        let Some(stranger) = &self.stranger else { return Ok(()) };
        let (Stranger::Recreates(path) | Stranger::Edits(path) | Stranger::Replaces(path)) = stranger;
        if found.remove(NOTE).is_none() {
            return Ok(());
        }
        let is_strange = |bytes: &Vec<u8>| bytes == STRANGE.as_bytes();
        if !found.values().any(is_strange) {
            return Err(format!("what the stranger wrote to {path} is lost"));
        }
        let before = found.get(path).is_some_and(is_strange);
        found.retain(|_, bytes| !is_strange(bytes));
        if before {
            expected.remove(path);
        }
        Ok(())
    }

    /// Every earlier generation is as it was, as far back as it is kept.
    fn past_is_whole(&self, store: &Store, newest: u64) -> Result<(), String> {
        let trees = self.trees();
        let text = |error: cosave::Error| error.to_string();
        for generation in newest.saturating_sub(self.keep.into())..=newest {
            let past = store.view_at(generation);
            let past = past.map_err(|error| format!("generation {generation} of {newest}: {error}"))?;
            for path in trees.iter().flat_map(BTreeMap::keys) {
                let found = past.read_if_exists(path).map_err(text)?;
                if found.as_ref() != trees[usize::try_from(generation).unwrap()].get(path) {
                    return Err(format!("{path} of generation {generation} is {found:?} in {newest}"));
                }
            }
        }
        Ok(())
    }

    fn tree_differs(&self, disk: &SimDisk, generation: u64) -> Option<String> {
        let Some(mut expected) = self.tree(generation) else {
            return Some(format!("there is no generation {generation}"));
        };
        let mut found = found_on(disk);
        if let Err(problem) = self.without_the_stranger(&mut found, &mut expected) {
            return Some(problem);
        }
        if found != expected {
            let show = |tree: &Tree| -> Vec<String> {
                let text =
                    |(path, bytes): (&String, &Vec<u8>)| format!("{path}={}", String::from_utf8_lossy(bytes));
                tree.iter().map(text).collect()
            };
            return Some(format!("generation {generation} is {:?}, not {:?}", show(&found), show(&expected)));
        }
        let found: BTreeSet<String> = disk.directories().into_iter().collect();
        let expected = self.directories_of(generation).unwrap_or_else(|| self.directories(&expected));
        (found != expected)
            .then(|| format!("generation {generation} has the directories {found:?}, not {expected:?}"))
    }
}

impl Workload for Script {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn prepare(&self, disk: &SimDisk) {
        disk.clock(self.clock);
        for (device, mount) in (1..).zip(&self.mounts) {
            disk.make_directory(mount, device);
        }
        for (path, content) in &self.files {
            if let Some((directory, _)) = path.rsplit_once('/') {
                disk.make_directory(directory, 0);
            }
            disk.put(path, content.as_bytes(), MODE);
        }
    }

    fn run(&self, disk: &SimDisk, fs: Arc<dyn FileSystem>, progress: &Progress) {
        // A killed process gets errors that it can report to nobody.
        let result = self.act(disk, &fs, progress);
        assert!(result.is_ok() || disk.has_crashed() || self.lenient, "{}: {result:?}", self.name);
    }

    fn meddle(&self, disk: &SimDisk) {
        let (path, meddles) = match &self.stranger {
            None => return,
            Some(Stranger::Recreates(path)) => (path, !disk.files().contains_key(path)),
            Some(Stranger::Edits(path)) => (path, true),
            Some(Stranger::Replaces(path)) => {
                disk.delete(path);
                (path, true)
            }
        };
        if !meddles {
            return;
        }
        for (path, bytes) in [(path.as_str(), STRANGE), (NOTE, "")] {
            let is_new = !disk.files().contains_key(path);
            disk.put(path, bytes.as_bytes(), MODE);
            disk.sync_file(path);
            if is_new {
                disk.sync_name(path);
            }
        }
    }

    fn glance(&self, disk: &SimDisk, bounds: Bounds) -> Result<(), String> {
        self.staged_files_are_hidden(disk)?;
        self.directories_are_closed(disk)?;
        if self.stranger.is_some() || self.successor {
            return Ok(());
        }
        let text = |error: cosave::Error| error.to_string();
        let store = Store::options().read_only(true).open_on(disk.copy().process()).map_err(text)?;
        let view = store.view().map_err(text)?;
        let generation = view.generation().get();
        let trees = self.trees();
        if generation > bounds.ceiling {
            return Err(format!("a view shows generation {generation}, which nobody asked for"));
        }
        let tree = &trees[usize::try_from(generation).map_err(|error| error.to_string())?];
        for path in trees.iter().flat_map(BTreeMap::keys) {
            let found = seen_at(&view, path).map_err(text)?;
            if found.as_ref() != tree.get(path) {
                return Err(format!("a view of generation {generation} shows {path} as {found:?}"));
            }
        }
        Ok(())
    }

    fn recover(&self, fs: Arc<dyn FileSystem>) -> Result<u64, String> {
        let store = self.open(fs).map_err(|error| format!("recovery: {error}"))?;
        let differences = &store.last_recovery().differences;
        if !differences.is_empty() && self.stranger.is_none() {
            return Err(format!("recovery found {differences:?}, though nobody touched anything"));
        }
        let generation =
            store.generation().map(cosave::Generation::get).map_err(|error| error.to_string())?;
        if self.keep > 0 {
            self.past_is_whole(&store, generation)?;
        }
        if self.successor {
            return self.succeed(&store, generation).map_err(|error| format!("the successor: {error}"));
        }
        Ok(generation)
    }

    fn check(&self, disk: &SimDisk, bounds: Bounds, recovered: u64) -> Result<(), String> {
        // A successor adds one to the count that it finds. So finding the same count again means that a
        // commit was lost.
        let (floor, ceiling) = match self.successor {
            true => (bounds.floor + 1, bounds.ceiling + SUCCESSORS_MAX - 1),
            false => (bounds.floor, bounds.ceiling),
        };
        if recovered < floor || recovered > ceiling {
            return Err(format!("recovered generation {recovered}, outside {bounds:?}"));
        }
        if let Some(problem) = self.tree_differs(disk, recovered) {
            return Err(problem);
        }
        for (path, mode) in self.certain_modes(recovered).into_iter().filter(|_| !self.successor) {
            let found = disk.mode(&path).filter(|_| self.stranger.is_none());
            if self.decides_mode(&path) && found.is_some_and(|found| found != mode) {
                return Err(format!("{path} has the mode {found:?}, not {mode:o}"));
            }
        }
        let is_own = |path: &String| self.removes(path) || self.decides_mode(path);
        for (path, _) in self.files.iter().filter(|(path, _)| !is_own(path)) {
            if disk.mode(path).is_some_and(|mode| !self.modes(path, recovered).contains(&mode)) {
                return Err(format!("{path} has lost its permissions"));
            }
        }
        let litter =
            |name: &String| name.ends_with(".tmp") || name.contains(".pending") || name.contains("sessions/");
        match disk.control_names().into_iter().find(litter) {
            Some(name) => Err(format!("recovery left {name}")),
            None => Ok(()),
        }
    }
}

/// A mode that no new file gets by itself, so that a lost mode is noticed.
const MODE: u32 = 0o640;

/// Enough for every save of a scenario to be a small one.
const INLINE_MAX: usize = 1 << 20;

/// The modes of a new file, and of a staged file before it is finished.
const NEW_MODE: u32 = 0o644;
const HIDDEN_MODE: u32 = 0o600;

/// The mode of a directory that has not got its own yet.
const UNFINISHED_MODE: u32 = 0o400;

/// The scenarios that every model is tried with: all as small saves, and most as long ones too.
pub fn scenarios() -> Vec<Script> {
    let small = small_scenarios();
    let is_small = |script: &&Script| script.inline_max == INLINE_MAX;
    let long: Vec<_> = small.iter().filter(is_small).cloned().map(Script::long).collect();
    small.into_iter().chain(long).collect()
}

fn small_scenarios() -> Vec<Script> {
    let old = [("a", "a0"), ("b", "b0"), ("d/c", "c0"), ("e/f/g", "g0"), ("untouched/me", "me")];
    vec![
        Script::new(
            "replace two files in one directory",
            &old,
            vec![
                Act::Commit(vec![write("a", "a1"), write("b", "b1")]),
                Act::Commit(vec![write("a", "a2"), write("b", "b2")]),
            ],
        ),
        Script::new(
            "create, replace and remove over three directories",
            &old,
            vec![
                Act::Commit(vec![write("d/c", "c1"), write("e/f/new", "n1"), remove("a")]),
                Act::Commit(vec![write("a", "back"), remove("e/f/new"), write("d/c", "c2")]),
            ],
        ),
        Script::new(
            "new nested directories",
            &old,
            vec![Act::Commit(vec![write("x/y/z", "z1"), write("x/w", "w1"), write("a", "a1")])],
        ),
        Script::new(
            "several published together",
            &old,
            vec![
                Act::Together(vec![
                    vec![write("a", "a1")],
                    vec![write("d/c", "c1")],
                    vec![write("b", "b1"), remove("e/f/g")],
                ]),
                Act::Commit(vec![write("a", "a2")]),
            ],
        ),
        Script::new(
            "a commit after an unretired one, elsewhere",
            &old,
            vec![
                Act::Commit(vec![write("a", "a1"), write("d/c", "c1")]),
                Act::Commit(vec![write("e/f/g", "g1"), remove("b")]),
                Act::Commit(vec![write("a", "a2")]),
            ],
        )
        .durability(Durability::Committed),
        Script::new(
            "the same file again and again, unretired",
            &old,
            vec![
                Act::Commit(vec![write("a", "a1")]),
                Act::Together(vec![vec![write("a", "a2")], vec![write("b", "b2")]]),
                Act::Commit(vec![write("a", "a3"), write("b", "b3")]),
            ],
        )
        .durability(Durability::Committed),
        Script::new(
            "beside another session's stage",
            &old,
            vec![
                Act::Beside(vec![write("a", "never"), write("new/dir/file", "never")]),
                Act::Commit(vec![write("a", "a1"), write("b", "b1")]),
            ],
        ),
        Script::new(
            "two file systems",
            &[("a", "a0"), ("mnt/b", "b0")],
            vec![
                Act::Commit(vec![write("a", "a1"), write("mnt/b", "b1")]),
                Act::Commit(vec![write("mnt/b", "b2"), write("mnt/sub/c", "c2"), remove("a")]),
            ],
        )
        .mount("mnt"),
        Script::new(
            "a transaction that is dropped",
            &old,
            vec![
                Act::Drop(vec![write("a", "never"), write("p/q", "never"), write("d/c", "never")]),
                Act::Commit(vec![write("b", "b1")]),
                Act::Drop(vec![write("b", "never")]),
            ],
        ),
        Script::new(
            "whoever recovers goes on",
            &[("a", "a0")],
            vec![Act::Together(vec![vec![write("a", "a1")], vec![write("b", "b1")]])],
        )
        .successor(),
        Script::new(
            "with a history",
            &[("a", "a0"), ("b", "b0")],
            vec![
                Act::Commit(vec![write("a", "a1"), remove("b")]),
                Act::Commit(vec![write("a", "a2"), write("b", "b2")]),
                Act::Commit(vec![write("b", "b3")]),
            ],
        )
        .history(2),
        Script::new(
            "with a history, unretired",
            &[("a", "a0"), ("b", "b0")],
            vec![
                Act::Commit(vec![write("a", "a1")]),
                Act::Together(vec![vec![write("a", "a2")], vec![remove("b")]]),
            ],
        )
        .durability(Durability::Committed)
        .history(3),
        // Across file systems there are no hard links.
        Script::new(
            "with a history, over two file systems",
            &[("a", "a0"), ("mnt/b", "b0"), ("untouched/me", "me")],
            vec![
                Act::Commit(vec![write("mnt/b", "b1"), write("a", "a1")]),
                Act::Commit(vec![remove("mnt/b")]),
            ],
        )
        .mount("mnt")
        .history(2),
        Script::new(
            "a removed file is made anew by somebody else",
            &old,
            vec![Act::Commit(vec![remove("a"), write("b", "b1")]), Act::Commit(vec![write("b", "b2")])],
        )
        .stranger(Stranger::Recreates("a".to_owned())),
        Script::new(
            "somebody else writes into a file",
            &old,
            vec![Act::Commit(vec![write("a", "a1"), write("b", "b1")])],
        )
        .stranger(Stranger::Edits("a".to_owned())),
        // All of one length, so that neither length nor time tells them apart.
        Script::new(
            "a removed file is made anew by somebody else",
            &[("a", "the original's"), ("b", "b0"), ("untouched/me", "me")],
            vec![Act::Commit(vec![remove("a"), write("b", "b1")])],
        )
        .stranger(Stranger::Recreates("a".to_owned()))
        .on_a_still_clock(),
        Script::new(
            "somebody else replaces a file",
            &[("a", "the original's"), ("b", "b0"), ("untouched/me", "me")],
            vec![Act::Commit(vec![write("a", "the committed."), write("b", "b1")])],
        )
        .stranger(Stranger::Replaces("a".to_owned()))
        .on_a_still_clock(),
        Script::new(
            "a file is removed and written again, unretired",
            &[("a", "a0"), ("b", "b0")],
            vec![
                Act::Together(vec![vec![remove("a")], vec![write("a", "a0"), write("b", "b2")]]),
                Act::Commit(vec![write("b", "b3")]),
            ],
        )
        .durability(Durability::Committed)
        .on_a_still_clock(),
        Script::new(
            "staged at once over several directories",
            &old,
            vec![
                Act::Commit(vec![write("d/c", "c1"), write("x/y/z", "z1"), write("a", "a1"), remove("b")]),
                Act::Commit(vec![write("x/y/z", "z2"), write("e/f/g", "g2")]),
            ],
        )
        .staged_at_once(),
        Script::new(
            "outgrowing memory",
            &old,
            vec![
                Act::Commit(vec![write("d/c", "c1"), write("x/y", "long enough"), write("a", "a1")]),
                Act::Commit(vec![write("a", "a2"), write("b", "b2"), write("x/y", "y2"), write("e/n", "n2")]),
            ],
        )
        .keeping(5),
        Script::new(
            "dropped after staging, before other directories are made",
            &old,
            vec![
                Act::Drop(vec![write("p/q", "never"), write("d/c", "never")]),
                Act::Commit(vec![write("r/s", "s1"), write("a", "a1")]),
                Act::Drop(vec![write("p/q", "never"), write("a", "never")]),
            ],
        )
        .staged_at_once(),
        Script::new(
            "somebody else changes permissions before the commit",
            &[("a", "a0"), ("b", "b0")],
            vec![Act::Commit(vec![write("a", "a1"), set_mode("a", 0o600), write("b", "b1")])],
        )
        .staged_at_once(),
        Script::new(
            "three commits",
            &[("a", "a0")],
            vec![
                Act::Commit(vec![write("a", "a1")]),
                Act::Commit(vec![write("a", "a2")]),
                Act::Commit(vec![write("a", "a3")]),
            ],
        ),
        Script::new(
            "three commits",
            &[("a", "a0")],
            vec![
                Act::Commit(vec![write("a", "a1")]),
                Act::Commit(vec![remove("a")]),
                Act::Commit(vec![write("a", "a3")]),
            ],
        )
        .on_a_still_clock(),
        Script::new(
            "copies and modes",
            &old,
            vec![
                Act::Commit(vec![copy("a", "x/y"), with_mode("s", "s1", 0o600), set_permissions("b", 0o750)]),
                Act::Commit(vec![copy("b", "a"), write("s", "s2"), set_permissions("x/y", 0o604)]),
            ],
        ),
        Script::new(
            "moves that build on each other",
            &old,
            vec![
                Act::Commit(vec![
                    rename("d/c", "x/c"),
                    rename("a", "d/c"),
                    write("a", "a1"),
                    copy("b", "x/stays"),
                ]),
                Act::Commit(vec![rename("x/c", "b"), rename("b", "b2"), remove("a")]),
            ],
        ),
        Script::new(
            "directories made and removed",
            &old,
            vec![
                Act::Commit(vec![create_dir("x/y"), remove("d/c"), remove_dir("d"), write("a", "a1")]),
                Act::Commit(vec![remove_dir("x/y"), write("d/c", "back"), create_dir("z")]),
                Act::Commit(vec![rename("d/c", "x/c"), remove_dir("d"), remove_dir("z")]),
            ],
        ),
        Script::new(
            "directories with modes",
            &old,
            vec![
                Act::Commit(vec![make_dir("v", 0o700), write("v/k", "k1"), write("a", "a1")]),
                Act::Commit(vec![make_dir("w", 0o711), make_dir("w/x", 0o700), write("a", "a2")]),
                Act::Commit(vec![remove("v/k"), remove_dir("v"), write("w/y", "y3")]),
            ],
        ),
        Script::new(
            "emptied directories go, and come again, unretired",
            &old,
            vec![
                Act::Commit(vec![remove("e/f/g"), rename("d/c", "b"), Change::Prune]),
                Act::Commit(vec![write("e/f/g", "g2")]),
                Act::Commit(vec![remove("e/f/g"), write("e/h", "h3"), Change::Prune]),
            ],
        )
        .durability(Durability::Committed),
        Script::new(
            "trees moved and removed",
            &[("a", "a0"), ("old/x/f", "f0"), ("old/g", "g0"), ("gone/h", "h0"), ("gone/i/j", "j0")],
            vec![
                Act::Commit(vec![move_tree("old", "n/tree"), remove_tree("gone"), write("a", "a1")]),
                Act::Commit(vec![write("n/tree/g", "g2"), write("gone/h", "h2")]),
            ],
        ),
        Script::new(
            "a tree replaced, unretired",
            &[("a", "a0"), ("new/f", "f1"), ("d/to/f", "f0"), ("d/to/x/g", "g0")],
            vec![
                Act::Commit(vec![write("d/to/f", "f0+"), write("new/f", "f1+")]),
                Act::Commit(vec![move_tree("new", "d/to"), write("a", "a1")]),
                Act::Commit(vec![remove_tree("d"), write("a", "a2")]),
            ],
        )
        .durability(Durability::Committed),
        Script::new(
            "directories become files, symlinks and empty ones, unretired",
            &[("a", "a0"), ("d/x", "x0"), ("d/y/z", "z0"), ("e/f", "f0"), ("l/g", "g0")],
            vec![
                Act::Commit(vec![write("d/x", "x1"), write("a", "a1")]),
                Act::Commit(vec![remove_tree("d"), write("d", "d2"), remove_tree("l"), symlink("l", "e")]),
                Act::Commit(vec![remove_tree("e"), create_dir("e"), write("d", "d3"), write("a", "a3")]),
            ],
        )
        .durability(Durability::Committed),
        Script::new(
            "a tree replaces a file, and goes for one",
            &[("a", "a0"), ("f", "f0"), ("d/new/g", "g0")],
            vec![
                Act::Commit(vec![remove("f"), move_tree("d/new", "f"), write("a", "a1")]),
                Act::Commit(vec![remove_tree("f"), write("f", "f2")]),
            ],
        ),
        Script::new(
            "files become directories",
            &[("a", "a0"), ("f", "f0"), ("d/g", "g0")],
            vec![
                Act::Commit(vec![remove("f"), write("f/x", "x1"), write("f/y/z", "z1"), write("a", "a1")]),
                Act::Commit(vec![
                    remove("d/g"),
                    make_dir("d/g", 0o700),
                    copy("f/x", "d/g/h"),
                    create_dir("d/g/e"),
                    write("f/x", "x2"),
                ]),
            ],
        ),
        Script::new(
            "a file becomes a directory and goes with it, unretired",
            &[("a", "a0"), ("f", "f0")],
            vec![
                Act::Commit(vec![write("f", "f1"), write("a", "a1")]),
                Act::Drop(vec![remove("a"), write("a/n", "n")]),
                Act::Commit(vec![remove("f"), symlink("f/l", "../a"), write("f/x", "x2")]),
                Act::Commit(vec![remove_tree("f"), write("f", "f3")]),
            ],
        )
        .durability(Durability::Committed),
        Script::new(
            "two files swapped",
            &[("a", "a0"), ("d/b", "b0"), ("untouched/me", "me")],
            vec![
                Act::Commit(vec![set_permissions("a", 0o600)]),
                Act::Commit(vec![rename("a", "t"), rename("d/b", "a"), rename("t", "d/b")]),
                Act::Commit(vec![rename("a", "t"), rename("d/b", "a"), rename("t", "d/b")]),
            ],
        )
        .durability(Durability::Committed)
        .on_a_still_clock(),
        Script::new(
            "somebody else makes a file anew that was moved away",
            &[("a", "the original's"), ("b", "b0"), ("untouched/me", "me")],
            vec![Act::Commit(vec![rename("a", "b")])],
        )
        .stranger(Stranger::Recreates("a".to_owned()))
        .on_a_still_clock(),
        Script::new(
            "symlinks made, replaced and removed",
            &old,
            vec![
                Act::Commit(vec![symlink("l", "a"), symlink("x/y", "../outside"), write("a", "a1")]),
                Act::Commit(vec![symlink("l", "d"), symlink("b", "/nowhere")]),
                Act::Commit(vec![
                    remove("l"),
                    write("l", "l3"),
                    remove("b"),
                    symlink("x/y", "../a"),
                    write("d/c", "c3"),
                ]),
            ],
        )
        // Whatever is kept in memory, these are long saves.
        .keeping(1000),
        Script::new(
            "a symlink that is changed again and again, unretired",
            &[("a", "a0"), ("d/c", "c0"), ("untouched/me", "me")],
            vec![
                Act::Commit(vec![symlink("l", "a")]),
                Act::Together(vec![vec![symlink("l", "d")], vec![write("a", "a2")]]),
                Act::Commit(vec![remove("l"), write("a", "a3")]),
                Act::Commit(vec![symlink("l", "a"), write("a", "a4")]),
            ],
        )
        .keeping(1000)
        .durability(Durability::Committed)
        .on_a_still_clock(),
        Script::new("one file", &[("a", "a0")], vec![Act::Commit(vec![write("a", "a1")])]),
        Script::new(
            "opened anew between commits",
            &old,
            vec![
                Act::Commit(vec![write("a", "a1"), remove("b")]),
                Act::Reopen,
                Act::Commit(vec![write("b", "b2"), write("a", "a2")]),
            ],
        ),
    ]
}
