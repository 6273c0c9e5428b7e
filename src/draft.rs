//! What a transaction has collected so far: one slot for each write or removal,
//! in the order in which they began.
//!
//! Shared by the transaction and its open writers. Knows which of several
//! writes to one path counts, and how much is kept in memory. The protocol
//! knows how a file is staged.

mod building;
pub(crate) mod built;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use self::building::Building;
use crate::error::{Error, Result};
use crate::fs::{Kind, Metadata};
use crate::manifest::NewDirectory;
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::commit;
use crate::protocol::layout::StagedId;
use crate::protocol::open::Opened;
use crate::protocol::resolve::{Attributes, Lookup, OnDisk, Resolver, Target};
use crate::protocol::root::Root;
use crate::protocol::stage::{self, KeptFile, KeptLink, Preconditions, StagedChange, StagedWriter, Staging};
use crate::protocol::state::Names;

#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// Present once a file was staged.
    pub(crate) staging: Option<Staging>,
    /// What it will stage with, if somebody has asked for its id before.
    pub(crate) reserved: Option<Staging>,
    /// By number, which is the order in which they began.
    pub(crate) slots: BTreeMap<u64, Slot>,
    /// The rising numbers of the slots of each path. There are several while a later write is open.
    pub(crate) numbers_of: BTreeMap<RelativePath, Vec<u64>>,
    pub(crate) resolver: Resolver,
    /// Whether a file must exist at a path that the transaction changes.
    pub(crate) preconditions: Preconditions,
    /// Paths that must be free for the commit, and were not when that was said.
    pub(crate) occupied: BTreeSet<RelativePath>,
    pub(crate) numbers: u64,
    /// Whether the transaction is committed or aborted. A writer that finishes now is too late.
    pub(crate) closed: bool,
    /// Whether directories that it empties go, too.
    pub(crate) prunes: bool,
    /// Those that went when it was last collected. It may be collected again, with other changes.
    pub(crate) pruned: Vec<RelativePath>,
    /// Existing directories that the transaction was told to make.
    pub(crate) asked_for: BTreeSet<RelativePath>,
    /// The slots of trees, by each path that they move or remove.
    trees: HashMap<RelativePath, u64>,
    /// The directories that take the place of files.
    building: Building,
    /// The directories that are to have a mode.
    modes: HashMap<RelativePath, NewDirectory>,
    /// How many slots below a directory make something.
    made_below: HashMap<RelativePath, usize>,
    /// The slots whose content is kept in memory.
    kept: BTreeSet<u64>,
    /// How many bytes are kept in memory, including those of open writers.
    kept_bytes: usize,
}

/// One path of the transaction, in the order of the last write to each.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) path: RelativePath,
    pub(crate) number: u64,
    pub(crate) content: Content,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are ready, so a box would only cost")]
pub(crate) enum Content {
    /// Its writer is open.
    Open,
    /// Its writer was dropped without `finish`.
    Unfinished,
    /// In memory.
    Kept(KeptFile),
    /// A symlink that is not staged yet.
    Link(KeptLink),
    /// Staged on disk, or a removal.
    Ready(StagedChange),
}

impl Slot {
    /// Whether it removes one file or one directory.
    pub(crate) fn goes(&self) -> bool {
        matches!(self.content, Content::Ready(StagedChange::Remove(_) | StagedChange::RemoveDirectory(_)))
    }

    fn removes_file(&self) -> bool {
        matches!(self.content, Content::Ready(StagedChange::Remove(_)))
    }

    /// Whether a directory goes with everything in it, so that something else can take its place.
    fn clears(&self) -> bool {
        matches!(self.content, Content::Ready(StagedChange::RemoveTree(..)))
    }

    pub(crate) fn into_change(self) -> Option<StagedChange> {
        match self.content {
            Content::Ready(change) => Some(change),
            Content::Open | Content::Unfinished | Content::Kept(_) | Content::Link(_) => None,
        }
    }

    /// The target to replace, make or remove, once it is known.
    pub(crate) fn target(&self) -> Option<&Target> {
        match &self.content {
            Content::Kept(file) => Some(&file.target),
            Content::Link(link) => Some(&link.target),
            Content::Ready(change) => Some(change.target()),
            Content::Open | Content::Unfinished => None,
        }
    }
}

impl Draft {
    /// Removes the writes to a path that began before `number`, with their staged files. Returns the
    /// newest of them.
    pub(crate) fn take(&mut self, path: &RelativePath, number: u64) -> Option<Content> {
        let numbers = self.numbers_of.get(path).cloned().unwrap_or_default();
        let earlier: Vec<_> = numbers.into_iter().filter(|own| *own < number).collect();
        // A directory still goes with everything in it, whatever takes its place.
        let earlier = earlier.into_iter().filter(|own| !self.slots.get(own).is_some_and(Slot::clears));
        let earlier: Vec<_> = earlier.collect();
        earlier.into_iter().filter_map(|number| self.take_one(number)).last()
    }

    fn take_one(&mut self, number: u64) -> Option<Content> {
        let slot = self.remove(number)?;
        self.preconditions.remove(&slot.path);
        self.occupied.remove(&slot.path);
        match (&slot.content, &mut self.staging) {
            (Content::Kept(file), _) => self.release(file.bytes.len()),
            (Content::Ready(change), Some(staging)) => {
                change.staged().into_iter().for_each(|staged| staging.cleanup.remove(staged));
            }
            _ => {}
        }
        Some(slot.content)
    }

    /// Adds a finished file that stays in memory for now.
    pub(crate) fn keep(&mut self, number: u64, file: KeptFile) {
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.content = Content::Kept(file);
            self.kept.insert(number);
        }
    }

    /// Adds a symlink, which is staged with the files that are in memory.
    pub(crate) fn keep_link(&mut self, link: KeptLink) {
        self.numbers += 1;
        let (path, number) = (link.target.path.clone(), self.numbers);
        self.put(Slot { path, number, content: Content::Link(link) });
        self.kept.insert(number);
    }

    /// Reserves room for bytes in memory, if there is enough.
    pub(crate) fn reserve(&mut self, bytes: usize, bytes_max: usize) -> bool {
        let fits = bytes <= bytes_max.saturating_sub(self.kept_bytes);
        if fits {
            self.kept_bytes += bytes;
        }
        fits
    }

    /// Removes a staged file that nothing needs any more.
    pub(crate) fn discard(&mut self, staged: &RelativePath) {
        if let Some(staging) = &mut self.staging {
            staging.cleanup.remove(staged);
        }
    }

    /// Releases reserved room.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.kept_bytes -= bytes;
    }

    /// Stages everything in memory, because the transaction has outgrown it, and begins a staged file
    /// for the write that did not fit.
    pub(crate) fn outgrow(&mut self, opened: &Opened, target: &Target, number: u64) -> Result<StagedWriter> {
        let wanted = if self.is_built(&target.path) { None } else { Some(target.path.parent()) };
        self.stage_kept(opened, wanted.into_iter().collect(), false)?;
        let target = self.placed(target);
        let Some(staging) = &mut self.staging else {
            return Err(Error::Unfinished { path: opened.root.full(&target.path).into() });
        };
        let begin = |root: &Root, staging: &mut Staging| stage::begin(root, staging, &target, number);
        commit::stage_in(&opened.root, staging, &target.place().parent(), begin)
    }

    /// Whether all that it writes is in memory, so that its manifest can hold it.
    pub(crate) fn is_small(&self) -> bool {
        self.staging.is_none()
    }

    /// Stages everything that is kept in memory. Its directories and the `wanted` ones are recorded
    /// with one wait. The bytes stay in memory too if they are to be `retained`.
    pub(crate) fn stage_kept(
        &mut self,
        opened: &Opened,
        wanted: BTreeSet<RelativePath>,
        retained: bool,
    ) -> Result<&mut Staging> {
        let staging = match self.staging.take().or_else(|| self.reserved.take()) {
            Some(staging) => staging,
            None => Staging::new(&opened.root, opened.session()?),
        };
        let sites = self.choose_sites(staging.id);
        let staging = self.staging.insert(staging);
        staging.builds |= !sites.is_empty();
        let builds = staging.builds;
        let kept = self.kept.iter().filter_map(|number| self.slots.get(number)?.target());
        let mut directories = wanted;
        directories.extend(kept.map(|target| target.place().parent()));
        directories.extend(sites);
        let trees: BTreeSet<_> = self.trees.values().copied().collect();
        for number in trees {
            let Some(slot) = self.slots.get_mut(&number) else { continue };
            directories.insert(slot.path.parent());
            if let Content::Ready(change) = &mut slot.content {
                change.hide_as(StagedId { transaction: staging.id, number });
            }
        }
        for directory in directories.iter().flat_map(RelativePath::chain) {
            staging.modes.extend(self.modes.get(&directory).map(|new| (directory, *new)));
        }
        for (path, new) in self.modes.iter().filter(|_| builds) {
            staging.modes.extend(self.building.site(path).map(|site| (site, *new)));
        }
        commit::prepare(&opened.root, staging, &directories)?;
        while let Some(number) = self.kept.first().copied() {
            if let Some(slot) = self.slots.get_mut(&number) {
                if let Content::Kept(file) = &mut slot.content {
                    let mut staged = commit::stage_kept(&opened.root, staging, file, number)?;
                    self.kept_bytes -= file.bytes.len();
                    // What a manifest holds is restored with the permissions of its target.
                    let is_inherited = file.target.attributes.are_inherited() && file.target.site.is_none();
                    let is_held = retained && is_inherited;
                    staged.bytes = is_held.then(|| std::mem::take(&mut file.bytes));
                    slot.content = Content::Ready(StagedChange::Write(staged));
                } else if let Content::Link(link) = &slot.content {
                    let stage = |root: &Root, staging: &mut Staging| stage::link(root, staging, link, number);
                    let directory = link.target.place().parent();
                    let staged = commit::stage_in(&opened.root, staging, &directory, stage)?;
                    slot.content = Content::Ready(StagedChange::Link(staged));
                }
            }
            self.kept.pop_first();
        }
        Ok(staging)
    }

    pub(crate) fn put(&mut self, slot: Slot) {
        if let Content::Ready(StagedChange::CreateDirectory(target)) = &slot.content {
            let new = target.attributes.new_directory();
            self.modes.extend(new.mode.map(|_| (slot.path.clone(), new)));
        }
        if let Content::Ready(change) = &slot.content {
            self.trees.extend(change.trees().map(|path| (path.clone(), slot.number)));
        }
        if slot.removes_file() {
            self.building.gone.insert(slot.path.clone());
        }
        if !slot.goes() {
            for directory in slot.path.parent().chain() {
                *self.made_below.entry(directory).or_default() += 1;
            }
        }
        self.numbers_of.entry(slot.path.clone()).or_default().push(slot.number);
        self.slots.insert(slot.number, slot);
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Slot> {
        let slot = self.slots.remove(&number)?;
        if let Content::Ready(change) = &slot.content {
            change.trees().for_each(|path| _ = self.trees.remove(path));
            if matches!(change, StagedChange::CreateDirectory(_)) {
                self.modes.remove(&slot.path);
            }
        }
        if slot.removes_file() {
            self.building.gone.remove(&slot.path);
        }
        if !slot.goes() {
            for directory in slot.path.parent().chain() {
                if let Some(count) = self.made_below.get_mut(&directory) {
                    *count -= 1;
                }
            }
        }
        self.kept.remove(&number);
        if let Some(numbers) = self.numbers_of.get_mut(&slot.path) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.numbers_of.remove(&slot.path);
            }
        }
        Some(slot)
    }

    /// The names that a directory would have after the transaction; `None` if there is no such directory.
    pub(crate) fn names_in(&self, directory: &RelativePath, found: Option<Names>) -> Option<Names> {
        let found = found.filter(|_| !self.clears(directory));
        let mut names = match self.newest(directory).map(|slot| &slot.content) {
            Some(Content::Ready(StagedChange::RemoveDirectory(_))) => return None,
            Some(Content::Ready(StagedChange::CreateDirectory(_))) => Some(found.unwrap_or_default()),
            _ => found,
        };
        let from = self.numbers_of.range(directory.clone()..).map(|(path, _)| path);
        for path in from {
            // All that is below a directory comes right after it.
            let Ok(rest) = path.as_path().strip_prefix(directory) else { break };
            let rest: Vec<_> = rest.iter().collect();
            let Some(first) = rest.first() else { continue };
            let is_own = rest.len() == 1;
            let content = self.newest(path).map(|slot| &slot.content);
            let change = match content {
                Some(Content::Ready(change)) => Some(change),
                _ => None,
            };
            let is_link = matches!(content, Some(Content::Link(_) | Content::Ready(StagedChange::Link(_))));
            let is_directory = !is_own || change.is_some_and(StagedChange::makes_directory);
            let kind = match is_directory {
                true => Kind::Directory,
                false if is_link => Kind::Symlink,
                false => Kind::File,
            };
            if change.is_some_and(StagedChange::is_removal) {
                if let (true, Some(names)) = (is_own, &mut names) {
                    names.remove(*first);
                }
            } else {
                names.get_or_insert_default().insert((*first).to_owned(), kind);
            }
        }
        let leaves =
            |path: &&RelativePath| path.parent() == *directory && !self.numbers_of.contains_key(*path);
        for path in self.trees.keys().filter(leaves) {
            names.as_mut().map(|names| names.remove(path.name()));
        }
        names
    }

    /// Where the transaction finds a path on disk, if it moves the directory that the path is in; `None` if
    /// nothing will be there.
    pub(crate) fn on_disk(&self, path: &RelativePath) -> Option<RelativePath> {
        if self.is_built(path) && self.newest(path).is_none() && !self.makes_below(path) {
            return None;
        }
        if self.trees.is_empty() {
            return Some(path.clone());
        }
        for tree in path.chain() {
            let slot = self.trees.get(&tree).and_then(|number| self.slots.get(number));
            match slot.map(|slot| &slot.content) {
                Some(Content::Ready(StagedChange::MoveTree(target, moved))) if target.path == tree => {
                    return Some(path.moved(&tree, &moved.from));
                }
                // What takes the place of the tree.
                _ if *path == tree && self.is_refilled(&tree) => {}
                Some(_) => return None,
                None => {}
            }
        }
        Some(path.clone())
    }

    /// Whether the directory at this path goes with everything in it, so that something else can take its
    /// place.
    pub(crate) fn clears(&self, path: &RelativePath) -> bool {
        let number = self.trees.get(path);
        number
            .and_then(|number| self.slots.get(number))
            .is_some_and(|slot| slot.path == *path && slot.clears())
    }

    /// Whether something takes the place of a directory that goes with everything in it.
    pub(crate) fn is_refilled(&self, path: &RelativePath) -> bool {
        self.clears(path) && self.numbers_of.get(path).is_some_and(|all| all.len() > 1)
    }

    /// Whether the transaction moves or removes directories with everything in them.
    pub(crate) fn has_trees(&self) -> bool {
        !self.trees.is_empty()
    }

    /// Why nothing can be made at a path: because of what happens to one above it.
    pub(crate) fn forbids(&self, path: &RelativePath) -> Option<InvalidPath> {
        path.parent().chain().iter().find_map(|above| match self.newest(above).map(|slot| &slot.content) {
            _ if self.trees.contains_key(above) => Some(InvalidPath::Contradiction),
            Some(Content::Ready(
                StagedChange::Remove(_) | StagedChange::CreateDirectory(_) | StagedChange::RemoveDirectory(_),
            )) => None,
            Some(Content::Unfinished) | None => None,
            Some(_) => Some(InvalidPath::Contradiction),
        })
    }

    /// A path that the transaction moves or removes with everything in it, at or above this one.
    pub(crate) fn tree_above(&self, path: &RelativePath) -> Option<RelativePath> {
        if self.trees.is_empty() {
            return None;
        }
        path.chain().into_iter().find(|tree| self.trees.contains_key(tree))
    }

    /// Whether the transaction makes anything below a directory.
    pub(crate) fn makes_below(&self, directory: &RelativePath) -> bool {
        self.made_below.get(directory).is_some_and(|count| *count > 0)
    }

    /// Whether the transaction writes a file below this path.
    pub(crate) fn makes_directory(&self, path: &RelativePath) -> bool {
        self.below(path).any(|slot| !matches!(&slot.content, Content::Ready(change) if change.is_removal()))
    }

    /// The last change of each path below a directory. Looks at no others, so that what asks this for every
    /// change stays linear.
    pub(crate) fn below<'a>(&'a self, directory: &'a RelativePath) -> impl Iterator<Item = &'a Slot> {
        let from = self.numbers_of.range(directory.clone()..).map(|(path, _)| path);
        let below = from.take_while(move |path| path.as_path().starts_with(directory));
        below.filter(move |path| *path != directory).filter_map(|path| self.newest(path))
    }

    /// Takes all changes, each of which is ready. A directory goes after all that was in it, in whatever
    /// order that was said.
    pub(crate) fn take_changes(&mut self) -> Vec<StagedChange> {
        self.trees.clear();
        self.made_below.clear();
        let moves = self.building.take_moves();
        let mut changes = Vec::with_capacity(self.slots.len());
        let mut cleared = HashMap::new();
        for slot in std::mem::take(&mut self.slots).into_values() {
            let is_last = self.numbers_of.get(&slot.path).and_then(|all| all.last()) == Some(&slot.number);
            match slot.into_change() {
                Some(StagedChange::RemoveTree(target, hidden)) if !is_last => {
                    cleared.insert(target.path, hidden);
                }
                Some(change) => changes.push(match cleared.remove(&change.target().path) {
                    Some(hidden) => StagedChange::Over(Box::new(change), hidden),
                    None => change,
                }),
                None => {}
            }
        }
        self.numbers_of.clear();
        let mut changes = building::gather(changes, moves);
        changes.sort_by_key(|change| match change {
            StagedChange::RemoveDirectory(target) => (true, Reverse(target.path.names().count())),
            _ => (false, Reverse(0)),
        });
        changes
    }

    /// Goes on with what a refused commit has returned.
    pub(crate) fn take_back(
        &mut self,
        root: &Root,
        staging: Staging,
        changes: Vec<StagedChange>,
        preconditions: Preconditions,
    ) {
        self.staging = Some(staging);
        self.preconditions = preconditions;
        for change in changes {
            let Target { path, nearest, .. } = change.target().clone();
            let target = Target::new(path, None, nearest);
            let (first, others) = match change {
                StagedChange::Over(change, hidden) => {
                    (StagedChange::RemoveTree(target, hidden), vec![*change])
                }
                StagedChange::BuildTree(target, _, contents) => {
                    // Whoever tries again means the file as it is now.
                    let found = root.look(&target.path).ok().flatten();
                    let existing = found.filter(|found| found.kind != Kind::Directory).or(target.existing);
                    (StagedChange::Remove(Target { existing, ..target }), contents)
                }
                change => (change, Vec::new()),
            };
            for change in std::iter::once(first).chain(others) {
                self.numbers += 1;
                let (path, number) = (change.target().path.clone(), self.numbers);
                self.put(Slot { path, number, content: Content::Ready(change) });
            }
        }
        self.closed = false;
    }

    /// The last write to a path.
    pub(crate) fn newest(&self, path: &RelativePath) -> Option<&Slot> {
        self.slots.get(self.numbers_of.get(path)?.last()?)
    }

    /// What an earlier write of this transaction gives a file besides its bytes. A later write keeps it, as
    /// it keeps the permissions of a file that it replaces.
    pub(crate) fn attributes(&self, path: &RelativePath) -> Attributes {
        let numbers = self.numbers_of.get(path).into_iter().flatten().rev();
        let newest = numbers.filter_map(|number| self.slots.get(number)).find(|slot| slot.target().is_some());
        match newest.map(|slot| &slot.content) {
            Some(Content::Kept(KeptFile { target, .. })) => target.attributes.clone().untimed(),
            Some(Content::Ready(StagedChange::Write(file))) => file.target.attributes.clone().untimed(),
            _ => Attributes::default(),
        }
    }
}

/// The names that the disk has, with directories where the transaction moves them.
impl Lookup for Draft {
    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        self.on_disk(path).map_or(Ok(None), |place| OnDisk.look(root, &place))
    }

    fn link(&self, root: &Root, path: &RelativePath) -> Result<PathBuf> {
        OnDisk.link(root, &self.on_disk(path).unwrap_or_else(|| path.clone()))
    }

    fn makes_way(&self, path: &RelativePath) -> bool {
        self.is_gone(path)
    }
}
