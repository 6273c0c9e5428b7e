//! Past: an earlier state of the root, as far as it was kept.
//!
//! The lists of the commits are read from the newest back, each confirmed by the
//! one after it. What the first commit after a generation has replaced at a path
//! is what that generation had there. Everything else is as it is now. What
//! other programs have changed is an error where it shows, and never served as
//! the past. Runs under a shared lock, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, SeekFrom};
use std::ops::Bound;
use std::path::PathBuf;

use super::history;
use super::history_record::{self as record, Becomes, Kept, Original, Record, Was, Written};
use super::layout;
use super::read::{self, Reading};
use super::resolve::Lookup;
use super::root::{Root, is_gone};
use super::state::{Names, State};
use crate::checksum::Checksum;
use crate::error::{Error, Operation, Reason, Result};
use crate::fs::{Kind, Metadata, ReadFile};
use crate::generation::{Generation, TransactionId};
use crate::manifest::Stamp;
use crate::mutation::{Rule, keeps};
use crate::path::{InvalidPath, RelativePath};

/// The bits of a mode that a file can be given back.
const PERMISSION_BITS: u32 = 0o777;

/// What is known of earlier commits, the newest first and without a gap.
#[derive(Debug)]
pub(crate) struct History {
    reading: Reading,
    pub(crate) records: Vec<Record>,
}

/// What a commit must do to bring an earlier state back.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The generation that it starts from.
    pub(crate) newest: Generation,
    pub(crate) steps: Vec<PlannedStep>,
}

/// One path to bring back.
#[derive(Debug)]
pub(crate) struct PlannedStep {
    pub(crate) path: RelativePath,
    pub(crate) was: Was,
    /// Where the original is kept.
    pub(crate) kept: RelativePath,
    /// What the newest commit of this path has put there.
    pub(crate) now: Becomes,
    /// The permissions that the file has now.
    pub(crate) mode: Option<u32>,
    /// The group for which they hold, unless an access control list says more.
    pub(crate) group: Option<u32>,
}

/// Reads the history, after finishing what dead writers left.
pub(crate) fn read(root: &Root) -> Result<History> {
    let reading = read::begin(root)?;
    let mut records = Vec::new();
    let mut generation = reading.generation;
    if !reading.control().has(layout::HISTORY) {
        // Whoever may not read the manifests can know that.
        return Ok(History { reading, records });
    }
    let mut next = history::transaction_of(root, reading.control(), generation)?;
    while let Some(transaction) = next {
        let found = record::read(root, generation, transaction)?;
        let Some(record) = found else { break };
        generation = Generation::from(generation.get().saturating_sub(1));
        next = record.previous;
        records.push(record);
    }
    Ok(History { reading, records })
}

/// What a path was in a generation.
#[derive(Debug)]
struct Then {
    /// The commit that has replaced it.
    generation: Generation,
    transaction: TransactionId,
    number: usize,
    was: Was,
    /// Whether another program has changed it after the generation, or before it, as nobody can tell.
    is_uncertain: bool,
}

impl History {
    /// The newest generation.
    pub(crate) fn newest(&self) -> Generation {
        self.reading.generation
    }

    pub(crate) fn record(&self, generation: Generation) -> Option<&Record> {
        self.records.iter().find(|record| record.generation == generation)
    }

    /// Refuses a generation whose state cannot be told.
    fn reach(&self, root: &Root, generation: Generation) -> Result<()> {
        let refuse = |reason| Err(Error::Unsupported { path: root.path().into(), reason });
        let oldest = self.records.last().map_or(self.newest().next(), |record| record.generation);
        if generation > self.newest() {
            return refuse(Reason::NotCommitted);
        }
        if generation.next() < oldest {
            return refuse(self.why_none(root));
        }
        let later = self.records.iter().filter(|record| record.generation > generation);
        if let Some(tree) = later.filter_map(Record::tree).next() {
            return Err(Error::Unsupported { path: root.full(tree).into(), reason: Reason::NotKept });
        }
        Ok(())
    }

    /// Why there is no way further back.
    pub(crate) fn why_none(&self, root: &Root) -> Reason {
        if self.records.is_empty() && root.settings.keep == 0 {
            Reason::KeepsNothing
        } else {
            Reason::NoHistory
        }
    }

    /// What each path was that later commits have changed, and what the commits up to the generation had left
    /// at each of theirs.
    fn split(
        &self,
        generation: Generation,
    ) -> (BTreeMap<RelativePath, Then>, BTreeMap<RelativePath, Becomes>) {
        let mut then = BTreeMap::new();
        let mut left = BTreeMap::new();
        // What was left before a tree was moved may now be elsewhere.
        let moved = self.records.iter().filter(|record| record.generation <= generation);
        let moved = moved.filter(|record| record.tree().is_some()).map(|record| record.generation).max();
        for record in self.records.iter().take_while(|record| Some(record.generation) >= moved) {
            let Record { generation: own, transaction, entries, .. } = record;
            for (number, past) in entries.iter().enumerate() {
                let path = past.path.clone();
                if *own <= generation {
                    if !past.after.is_tree() {
                        left.entry(path).or_insert_with(|| past.after.clone());
                    }
                    continue;
                }
                let (generation, transaction, was) = (*own, *transaction, past.before.clone());
                then.insert(path, Then { generation, transaction, number, was, is_uncertain: false });
            }
        }
        for (path, then) in &mut then {
            // The very next commit has found what the generation had at its end.
            let is_next = then.generation == generation.next();
            let differs = |left: &Becomes| !is_as_left(left, &then.was);
            then.is_uncertain = !is_next && left.get(path).is_some_and(differs);
        }
        (then, left)
    }

    /// What brings the state of a generation back.
    pub(crate) fn plan(&self, root: &Root, generation: Generation) -> Result<Plan> {
        self.reach(root, generation)?;
        let now = self.split(self.newest()).1;
        let mut steps = Vec::new();
        for (path, then) in self.split(generation).0 {
            let Some(now) = now.get(&path).cloned() else { continue };
            let found = root.look(&path)?;
            let mode = found.map(|found| found.mode & PERMISSION_BITS);
            if is_same(&then.was, &now, mode) && !then.is_uncertain {
                continue;
            }
            then.refuse_unknown(root, &path)?;
            let is_other_kind = match (&then.was, &now) {
                (Was::File(_), Becomes::Directory) => true,
                (Was::Directory(_), Becomes::File(_)) => true,
                // A write would follow it.
                (_, now) => matches!(now, Becomes::Link(_)),
            };
            if is_other_kind {
                let reason = Reason::NotKept;
                return Err(Error::Unsupported { path: root.full(&path).into(), reason });
            }
            let kept = layout::kept(then.generation, then.transaction, then.number);
            let has_list = root.fs.has_access_list(&path).unwrap_or(true);
            let group = found.filter(|_| !has_list).map(|found| found.owner.1);
            steps.push(PlannedStep { path, was: then.was, kept, now, mode, group });
        }
        steps.iter().try_for_each(|step| refuse_below_file(root, step))?;
        Ok(Plan { newest: self.newest(), steps })
    }

    /// The state of a generation.
    pub(crate) fn into_state(self, root: &Root, generation: Generation) -> Result<PastState> {
        self.reach(root, generation)?;
        let (then, left) = self.split(generation);
        Ok(PastState { reading: self.reading, generation, then, left })
    }
}

/// Refuses what comes back below a path that is a file now. A directory in its place would be a new one, and no
/// list says who could enter the old one.
fn refuse_below_file(root: &Root, step: &PlannedStep) -> Result<()> {
    if step.was == Was::Nothing {
        return Ok(());
    }
    for above in step.path.parent().chain() {
        if root.look(&above)?.is_some_and(|found| !matches!(found.kind, Kind::Directory | Kind::Symlink)) {
            let reason = Reason::NotKept;
            return Err(Error::Unsupported { path: root.full(&above).into(), reason });
        }
    }
    Ok(())
}

/// Whether a commit has left what a later one has found.
fn is_as_left(left: &Becomes, was: &Was) -> bool {
    match (left, was) {
        (Becomes::Nothing, Was::Nothing) | (Becomes::Directory, Was::Directory(_)) => true,
        (Becomes::File(written), Was::File(original)) => match (written.blake3, original.blake3) {
            (Some(written), Some(original)) => written == original,
            _ => written.stamp == original.stamp,
        },
        // What a symlink became is not known. A directory that was not empty has stayed.
        (Becomes::Nothing, Was::Directory(_)) | (_, Was::Unknown) => true,
        _ => false,
    }
}

/// Whether a path is already what it was.
fn is_same(was: &Was, now: &Becomes, mode: Option<u32>) -> bool {
    match (was, now) {
        (Was::Nothing, Becomes::Nothing) | (Was::Directory(_), Becomes::Directory) => true,
        (Was::File(original), Becomes::File(written)) => {
            original.blake3.is_some()
                && original.blake3 == written.blake3
                && mode == Some(original.mode & PERMISSION_BITS)
        }
        _ => false,
    }
}

impl Then {
    fn refuse_unknown(&self, root: &Root, path: &RelativePath) -> Result<()> {
        let refuse = |reason| Err(Error::Unsupported { path: root.full(path).into(), reason });
        match self.was {
            _ if self.is_uncertain => refuse(Reason::ChangedOutside),
            Was::Unknown | Was::File(Original { kept: Kept::Not, .. }) => refuse(Reason::NotKept),
            _ => Ok(()),
        }
    }
}

/// Opens a kept file, and makes sure that it has the original's bytes.
pub(crate) fn open(
    root: &Root,
    kept: &RelativePath,
    path: &RelativePath,
    original: &Original,
) -> Result<Box<dyn ReadFile>> {
    let refuse = |reason| Error::Unsupported { path: root.full(path).into(), reason };
    let mut file = match root.fs.open(kept) {
        Err(error) if is_gone(&error) => return Err(refuse(Reason::NotKept)),
        file => file.map_err(root.error(Operation::Read, kept))?,
    };
    if checksum_of(root, path, &mut *file)? != original.blake3 && keeps(Rule::VerifyKept) {
        return Err(refuse(Reason::KeptChanged));
    }
    Ok(file)
}

/// The checksum of an open file, which is at its start again afterwards.
fn checksum_of(root: &Root, path: &RelativePath, file: &mut dyn ReadFile) -> Result<Option<Checksum>> {
    let mut hasher = blake3::Hasher::new();
    let read = hasher.update_reader(&mut *file).map(drop).and_then(|()| file.seek(SeekFrom::Start(0)));
    read.map_err(root.error(Operation::Read, path))?;
    Ok(Some(Checksum::of_all(&hasher)))
}

/// A kept file, with the metadata of the original.
#[derive(Debug)]
struct KeptFile {
    file: Box<dyn ReadFile>,
    metadata: Metadata,
}

impl io::Read for KeptFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl io::Seek for KeptFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl ReadFile for KeptFile {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.metadata)
    }

    fn system_file(&self) -> Option<&std::fs::File> {
        self.file.system_file()
    }
}

fn metadata(original: &Original) -> Metadata {
    Metadata {
        kind: Kind::File,
        length: original.stamp.length,
        modified: original.stamp.modified.into(),
        changed: None,
        mode: original.mode,
        owner: (0, 0),
        identity: None,
        links: 1,
    }
}

/// The state of an earlier generation.
#[derive(Debug)]
pub(crate) struct PastState {
    reading: Reading,
    generation: Generation,
    then: BTreeMap<RelativePath, Then>,
    left: BTreeMap<RelativePath, Becomes>,
}

impl PastState {
    /// Whether nothing was at a path, because a directory above it was not there.
    fn is_below_nothing(&self, path: &RelativePath) -> bool {
        let was_none = |above: &RelativePath| {
            let was = self.then.get(above).map(|then| &then.was);
            matches!(was, Some(Was::Nothing | Was::File(_)))
        };
        path.parent().chain().iter().any(was_none)
    }

    /// Whether something was below a path, so that it was a directory.
    fn was_above_something(&self, path: &RelativePath) -> bool {
        let mut then = below(&self.then, path);
        then.any(|(_, then)| matches!(then.was, Was::File(_) | Was::Directory(_)))
    }

    /// What was at a path, as far as somebody wants to know it.
    fn find(&self, root: &Root, path: &RelativePath, wanted: Wanted) -> Result<Option<Metadata>> {
        let directory = || match State::look(&self.reading, root, path)? {
            Some(found) if found.kind == Kind::Directory => Ok(Some(found)),
            // It was a directory like any other, and the root is one.
            _ => root.look(&RelativePath::root()),
        };
        let Some(then) = self.then.get(path) else {
            return match self.is_below_nothing(path) {
                true => Ok(None),
                false if self.was_above_something(path) => directory(),
                false => self.current(root, path, wanted),
            };
        };
        match &then.was {
            Was::Nothing => Ok(None),
            Was::Directory(_) => directory(),
            Was::File(original) if !then.is_uncertain => Ok(Some(metadata(original))),
            Was::File(_) | Was::Unknown => then.refuse_unknown(root, path).map(|()| None),
        }
    }

    /// What is at a path that no later commit has named. Another program's change shows where a commit up to
    /// the generation has left something else.
    fn current(&self, root: &Root, path: &RelativePath, wanted: Wanted) -> Result<Option<Metadata>> {
        let found = State::look(&self.reading, root, path)?;
        let is_as_left = match (self.left.get(path), &found) {
            (None, _) | (Some(Becomes::Nothing), None) => true,
            (Some(Becomes::Directory), Some(found)) => found.kind == Kind::Directory,
            (Some(Becomes::Nothing), Some(found)) => found.kind == Kind::Directory,
            (Some(Becomes::File(written)), Some(found)) => {
                self.is_written(root, path, (written, found), wanted)?
            }
            (Some(Becomes::Link(link)), Some(_)) => {
                self.reading.read_link(root, path)?.as_ref() == Some(&link.to)
            }
            (Some(_), None) => false,
            // These are in no such list.
            (Some(Becomes::MovedTree(_) | Becomes::RemovedTree), Some(_)) => true,
        };
        if is_as_left {
            return Ok(found);
        }
        Err(Error::Unsupported { path: root.full(path).into(), reason: Reason::ChangedOutside })
    }

    /// Whether a file is the one that was written. It is only read if that decides what is shown of it.
    fn is_written(
        &self,
        root: &Root,
        path: &RelativePath,
        (written, found): (&Written, &Metadata),
        wanted: Wanted,
    ) -> Result<bool> {
        if found.kind != Kind::File || wanted == Wanted::Kind {
            return Ok(found.kind == Kind::File);
        }
        if found.length != written.stamp.length {
            return Ok(false);
        }
        if Stamp::of(found) == written.stamp && (wanted == Wanted::Metadata || root.stamps.prove(found)) {
            return Ok(true);
        }
        let Some(mut file) = self.reading.open(root, path)? else { return Ok(false) };
        Ok(checksum_of(root, path, &mut *file)? == written.blake3)
    }
}

/// What somebody wants to know of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Whether something is there, and of which kind.
    Kind,
    Metadata,
    Content,
}

/// What a list says of all paths below a directory.
fn below<'a, T>(
    list: &'a BTreeMap<RelativePath, T>,
    directory: &'a RelativePath,
) -> impl Iterator<Item = (&'a RelativePath, &'a T)> {
    // Paths are ordered by their names, so all of one directory come together, right after it.
    let after = list.range((Bound::Excluded(directory), Bound::Unbounded));
    after.take_while(|(path, _)| path.as_path().starts_with(directory.as_path()))
}

impl State for PastState {
    fn generation(&self) -> Generation {
        self.generation
    }

    fn open(&self, root: &Root, path: &RelativePath) -> Result<Option<Box<dyn ReadFile>>> {
        let Some(then) = self.then.get(path) else {
            if self.is_below_nothing(path) || self.current(root, path, Wanted::Content)?.is_none() {
                return Ok(None);
            }
            return self.reading.open(root, path);
        };
        then.refuse_unknown(root, path)?;
        match &then.was {
            Was::File(original) => {
                let kept = layout::kept(then.generation, then.transaction, then.number);
                let file = open(root, &kept, path, original)?;
                Ok(Some(Box::new(KeptFile { file, metadata: metadata(original) })))
            }
            Was::Directory(_) => Err(Error::invalid(path.as_path(), InvalidPath::Directory)),
            Was::Nothing | Was::Unknown => Ok(None),
        }
    }

    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        self.find(root, path, Wanted::Metadata)
    }

    fn read_link(&self, root: &Root, path: &RelativePath) -> Result<Option<PathBuf>> {
        match State::look(self, root, path)? {
            Some(found) if found.kind == Kind::Symlink => self.reading.read_link(root, path),
            _ => Ok(None),
        }
    }

    fn names(&self, root: &Root, directory: &RelativePath) -> Result<Option<Names>> {
        let is_directory = match State::look(self, root, directory) {
            _ if directory.is_root() => true,
            found => found?.is_some_and(|found| found.kind == Kind::Directory),
        };
        if !is_directory {
            return Ok(None);
        }
        let mut names = self.reading.names(root, directory)?.unwrap_or_default();
        let depth = directory.names().count();
        let known = below(&self.then, directory).map(|(path, _)| path);
        let known = known.chain(below(&self.left, directory).map(|(path, _)| path));
        let known: BTreeSet<_> = known.filter_map(|path| path.names().nth(depth)).collect();
        for name in known {
            match self.find(root, &directory.child(name), Wanted::Kind)? {
                Some(found) => _ = names.insert(name.to_owned(), found.kind),
                None => _ = names.remove(name),
            }
        }
        Ok(Some(names))
    }
}

/// Symlinks are followed as they are now, where no later commit has put something else.
impl Lookup for PastState {
    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        let is_current =
            !self.then.contains_key(path) && !self.is_below_nothing(path) && !self.was_above_something(path);
        // Another program's change of it is refused by whoever shows it.
        if is_current { Lookup::look(&self.reading, root, path) } else { State::look(self, root, path) }
    }

    fn link(&self, root: &Root, path: &RelativePath) -> Result<PathBuf> {
        self.reading.link(root, path)
    }
}
