//! Stage: writes each file's next content beside its target.
//!
//! No lock is held, and any number of transactions stage at once. A staged file
//! always lies in its target's own directory. Only a rename within one
//! directory leaves the old name or the new one after any power loss. And only
//! there does a file get the group, the access control list and the label that
//! its target would have. Nobody else can read it until it is finished and has
//! its target's permissions.
//!
//! A directory must be on record before anything is staged in it, and recording
//! costs a wait. So small contents stay in memory until the transaction commits
//! or outgrows it. Then all their directories are recorded with one wait.
//! `commit` does the waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::caller::Caller;
use super::cleanup::CleanupGuard;
use super::layout::{self, StagedId};
use super::original;
use super::queue::Job;
use super::resolve::{Attributes, Target, for_any_group};
use super::root::{Root, if_found};
use super::session::{Looked, Session};
use super::snapshot::Snapshot;
use crate::checksum::Checksum;
use crate::error::{Error, Operation, Result};
use crate::expect::Clash;
use crate::fs::{Barrier, Copied, Durable, Identity, Kind, Metadata, NewFile, Unsynced, Wave, WriteFile};
use crate::generation::TransactionId;
use crate::manifest::{Action, Entry, HiddenTree, MovedTree, NewDirectory, StagedContent, StagedLink, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use crate::progress::Progress;

/// What must still be true of a path when the transaction commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nothing is there.
    Absent,
    /// Something is there.
    Exists,
    /// A directory is there, with nothing in it but what the transaction removes.
    Emptied,
}

/// What must still be true when the transaction commits.
pub(crate) type Preconditions = BTreeMap<RelativePath, Presence>;

/// After how many bytes of one file the caller is told: fractions of a second on any disk.
pub(crate) const STRIDE_BYTES: usize = 4 << 20;

/// A staged file that is being written. Computes the checksum of what passes.
#[derive(Debug)]
pub(crate) struct StagedWriter {
    file: Box<dyn WriteFile>,
    hasher: blake3::Hasher,
    name: Unsynced,
    staged: RelativePath,
    target: Target,
    /// How many bytes it will have, if that is known.
    length: Option<u64>,
    /// How many bytes the caller was last told of.
    told: u64,
}

/// A staged file that is complete, but not durable yet.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) staged: RelativePath,
    pub(crate) target: Target,
    pub(super) content: StagedContent,
    pub(super) identity: Option<Identity>,
    /// The file whose permissions it has, if any.
    pub(super) like: Option<Metadata>,
    /// What came of the copy of its permissions.
    pub(super) copied: Option<Copied>,
    /// Its bytes, if the transaction is small enough to have them in its manifest.
    pub(crate) bytes: Option<Vec<u8>>,
}

impl StagedFile {
    pub(crate) fn length(&self) -> u64 {
        self.content.after.length
    }

    pub(crate) fn mode(&self) -> u32 {
        self.content.mode
    }
}

/// An entry of the manifest, and what identifies its staged file.
#[derive(Debug)]
pub(crate) struct StagedEntry {
    pub(crate) entry: Entry,
    pub(crate) identity: Option<Identity>,
    /// The file whose permissions a staged file has, or the one that is removed.
    pub(crate) like: Option<Metadata>,
    /// What came of the copy of its permissions.
    pub(crate) copied: Option<Copied>,
    /// The file that is replaced or removed.
    pub(super) existing: Option<Metadata>,
    pub(crate) attributes: Attributes,
    /// The bytes of a small save's file.
    pub(crate) bytes: Option<Vec<u8>>,
    /// What is in a directory that is built.
    pub(crate) contents: Vec<StagedChange>,
}

impl StagedEntry {
    /// Whether everybody who can reach the target may read it, both before and after the commit.
    pub(crate) fn is_readable_by_all(&self) -> bool {
        let after = match &self.entry.action {
            Action::Write(content) => content.mode,
            _ => 0o444,
        };
        let mode = |found: Option<Metadata>| found.map_or(0o444, |found| found.mode);
        after & mode(self.existing) & mode(self.like) & 0o444 == 0o444
    }

    /// The change that this entry was made of.
    pub(crate) fn into_change(self) -> StagedChange {
        let Self { entry, identity, like, copied, existing, attributes, bytes, contents } = self;
        let staged = entry.staged();
        let nearest = entry.path.parent();
        let target = Target { attributes, ..Target::new(entry.path, existing, nearest) };
        let change = match (entry.action, staged) {
            (Action::Write(content), Some(staged)) => {
                StagedChange::Write(StagedFile { staged, target, content, identity, like, copied, bytes })
            }
            (Action::Link(link), Some(staged)) => {
                StagedChange::Link(StagedSymlink { staged, target, to: link.to, identity })
            }
            (Action::CreateDirectory(_), _) => StagedChange::CreateDirectory(target),
            (Action::RemoveDirectory, _) => StagedChange::RemoveDirectory(target),
            (Action::MoveTree(moved), _) if contents.is_empty() => StagedChange::MoveTree(target, moved),
            (Action::MoveTree(moved), _) => StagedChange::BuildTree(target, moved, contents),
            (Action::RemoveTree(hidden), _) => StagedChange::RemoveTree(target, hidden),
            (Action::Write(_) | Action::Link(_) | Action::Remove, _) => StagedChange::Remove(target),
        };
        match entry.over {
            Some(hidden) => StagedChange::Over(Box::new(change), hidden),
            None => change,
        }
    }
}

/// What recovery can finish a transaction from, once it is published.
#[derive(Debug)]
pub(crate) enum Backing {
    /// The staged files. They are durable, and so is the manifest under its temporary name.
    StagedFiles(Durable),
    /// The manifest, which is written when it is published, with the bytes of all files in it. It
    /// becomes durable together with the staged files. The wave has what they owe.
    Manifest(Wave),
}

/// A transaction that is staged, and not published yet.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) id: TransactionId,
    pub(crate) entries: Vec<StagedEntry>,
    pub(crate) preconditions: Preconditions,
    pub(crate) snapshot: Snapshot,
    /// The manifest under its temporary name.
    pub(crate) unpublished: RelativePath,
    /// Who may read that.
    pub(crate) readers: NewFile,
    /// Removes everything if it is dropped before publication.
    pub(crate) cleanup: CleanupGuard,
    pub(crate) session: Arc<Session>,
    /// Without which nothing is published.
    pub(crate) backing: Backing,
    pub(crate) caller: Caller,
}

impl Staged {
    /// Whether it moves or removes directories with everything in them.
    pub(crate) fn has_trees(&self) -> bool {
        self.entries.iter().any(|staged| staged.entry.is_of_tree())
    }

    /// Whether it has built a directory.
    pub(crate) fn builds(&self) -> bool {
        self.entries.iter().any(|staged| !staged.contents.is_empty())
    }

    /// Whether the manifest will hold everything, so that one wait is enough for all of it.
    pub(crate) fn is_small(&self) -> bool {
        matches!(self.backing, Backing::Manifest(_))
    }
}

/// Tells the caller of a staged file. Whoever cancels is asked again before the commit point.
pub(crate) fn tell_staged(root: &Root, staged: &StagedFile) {
    let (path, length) = (&staged.target.path, staged.length());
    root.tell_only(|| Progress::Staged { path: path.clone(), length });
}

/// Transactions that change or rely on a common path are never published together, since each must be
/// checked against the one before it.
impl Job for Staged {
    type Id = TransactionId;
    type Key = RelativePath;

    fn id(&self) -> TransactionId {
        self.id
    }

    fn keys(&self) -> impl Iterator<Item = &RelativePath> {
        let entries = self.entries.iter().flat_map(|staged| staged.entry.paths());
        entries.chain(self.preconditions.keys()).chain(self.snapshot.paths())
    }
}

/// A file's next content, in memory.
#[derive(Debug)]
pub(crate) struct KeptFile {
    pub(crate) target: Target,
    pub(crate) bytes: Vec<u8>,
}

/// A symlink that is not staged yet.
#[derive(Debug)]
pub(crate) struct KeptLink {
    pub(crate) target: Target,
    /// Where it is to lead, as written in it.
    pub(crate) to: PathBuf,
}

/// What a transaction has on disk, once it has staged a file.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) id: TransactionId,
    pub(crate) session: Arc<Session>,
    /// What is not durable yet. It is dropped before the guard, because it holds files open: on Windows
    /// these keep their names, and so their directories, until they are closed.
    pub(crate) wave: Wave,
    /// Removes everything when dropped, unless it is published.
    pub(crate) cleanup: CleanupGuard,
    /// Why some of what it staged may never become durable, so that it cannot be committed.
    pub(crate) unpaid: Option<Error>,
    /// What those directories get that are to have a mode, among those in which it stages and above.
    pub(crate) modes: HashMap<RelativePath, NewDirectory>,
    /// Whether it builds directories, so that it waits for all that it stages.
    pub(crate) builds: bool,
}

impl Staging {
    pub(crate) fn new(root: &Arc<Root>, session: Arc<Session>) -> Self {
        Self {
            id: session.next_transaction(),
            cleanup: CleanupGuard::new(root, &session),
            session,
            wave: Wave::new(Barrier::Staged),
            unpaid: None,
            modes: HashMap::new(),
            builds: false,
        }
    }
}

/// Adds the debts for names that others may not have synced: of directories in which something is removed,
/// and of trees.
pub(crate) fn owe_names(root: &Root, staged: &mut Staged) -> Result<()> {
    let removals = staged.entries.iter().filter(|staged| staged.entry.staged().is_none());
    let removed = removals.flat_map(|staged| staged.entry.paths()).map(RelativePath::parent);
    let looked = look(root, &removed.collect())?;
    let Backing::Manifest(owed) = &mut staged.backing else { return Ok(()) };
    for tree in staged.entries.iter().filter(|staged| staged.entry.is_of_tree()) {
        // A power loss could take a tree when its move is published already, and the rest of the commit
        // would happen without it.
        tree.entry.paths().for_each(|path| owed.add(Unsynced::directory(path.parent())));
    }
    for directory in staged.session.unknown(&looked) {
        // A power loss could undo what others did to the directory, and so bring the removed file back.
        owed.add(Unsynced::directory(directory.parent()));
    }
    Ok(())
}

/// Looks at these directories and at all above them, once at each.
pub(crate) fn look(root: &Root, directories: &BTreeSet<RelativePath>) -> Result<Looked> {
    let mut looked = Looked::default();
    for directory in directories.iter().flat_map(RelativePath::chain) {
        if looked.existing.contains_key(&directory) || looked.missing.contains(&directory) {
            continue;
        }
        if looked.missing.contains(&directory.parent()) {
            looked.missing.insert(directory);
            continue;
        }
        match root.look(&directory)? {
            Some(found) if found.kind != Kind::Directory => {
                // It was one when the path was followed, or nothing was there.
                let found = if found.kind == Kind::Symlink { Clash::Symlink } else { Clash::NoDirectory };
                return Err(Error::Conflict { path: root.full(&directory).into(), found });
            }
            Some(found) => _ = looked.existing.insert(directory, found.identity),
            None => _ = looked.missing.insert(directory),
        }
    }
    Ok(looked)
}

/// Begins a staged file for `target`. Its directory is on record.
pub(crate) fn begin(
    root: &Root,
    staging: &mut Staging,
    target: &Target,
    number: u64,
) -> Result<StagedWriter> {
    let id = StagedId { transaction: staging.id, number };
    let staged = layout::staged(&target.place().parent(), target.path.name(), id);
    let access = match target.existing.filter(|existing| existing.kind == Kind::File) {
        _ if !keeps(Rule::HideStaged) => NewFile::Ordinary,
        None if target.attributes.are_inherited() => NewFile::Hidden,
        _ => NewFile::Private,
    };
    let made = root.fs.create_new(&staged, access);
    let (file, name) = made.map_err(root.error(Operation::Stage, &target.path))?;
    staging.cleanup.add_file(staged.clone());
    let (hasher, target) = (blake3::Hasher::new(), target.clone());
    Ok(StagedWriter { file, hasher, name, staged, target, length: None, told: 0 })
}

/// Stages a symlink. Its directory is on record.
pub(crate) fn link(
    root: &Root,
    staging: &mut Staging,
    link: &KeptLink,
    number: u64,
) -> Result<StagedSymlink> {
    let target = &link.target;
    let id = StagedId { transaction: staging.id, number };
    let staged = layout::staged(&target.place().parent(), target.path.name(), id);
    let failed = || root.error(Operation::Stage, &target.path);
    staging.wave.add(root.fs.symlink(&link.to, &staged).map_err(failed())?);
    staging.cleanup.add_file(staged.clone());
    let found = root.fs.metadata(&staged).map_err(failed())?;
    Ok(StagedSymlink { staged, target: target.clone(), to: link.to.clone(), identity: found.identity })
}

/// Writes a file from memory to its staged file, and finishes it.
pub(crate) fn fill(
    root: &Root,
    staging: &mut Staging,
    mut writer: StagedWriter,
    bytes: &[u8],
) -> Result<StagedFile> {
    let staged = writer.path().clone();
    writer.expect_length(bytes.len() as u64);
    let written = bytes.chunks(STRIDE_BYTES).try_for_each(|bytes| {
        writer.tell(root)?;
        writer.write_all(bytes).map_err(root.error(Operation::Stage, &writer.target.path))
    });
    match written.and_then(|()| writer.finish(root)) {
        Ok((file, debt)) => {
            staging.wave.add(debt);
            Ok(file)
        }
        Err(error) => {
            staging.cleanup.remove(&staged);
            Err(error)
        }
    }
}

impl StagedWriter {
    pub(crate) fn path(&self) -> &RelativePath {
        &self.staged
    }

    /// Says how long the file will be.
    pub(crate) fn expect_length(&mut self, length: u64) {
        self.length = Some(length);
    }

    /// Tells the caller now and then how many bytes are written. An error if the caller cancels. Called
    /// before bytes are written, so that such an error takes none.
    pub(crate) fn tell(&mut self, root: &Root) -> Result<()> {
        let bytes = self.hasher.count();
        if bytes - self.told < STRIDE_BYTES as u64 {
            return Ok(());
        }
        self.told = bytes;
        root.tell(|| Progress::Staging { path: self.target.path.clone(), bytes, length: self.length })
    }

    /// Shares the bytes of an open file instead of copying them, if the file system can. Nothing was
    /// written yet. Returns their checksum.
    pub(crate) fn share(&mut self, root: &Root, source: &std::fs::File) -> Result<Option<Checksum>> {
        let path = self.target.path.clone();
        let failed = || root.error(Operation::Stage, &path);
        if !self.file.share_bytes(source).map_err(failed())? {
            return Ok(None);
        }
        // Read from the copy, which nobody else can change.
        let mut shared = root.fs.open(&self.staged).map_err(failed())?;
        loop {
            let before = self.hasher.count();
            let next = shared.by_ref().take(STRIDE_BYTES as u64);
            self.hasher.update_reader(next).map_err(failed())?;
            if self.hasher.count() == before {
                return Ok(Some(Checksum::of_all(&self.hasher)));
            }
            self.tell(root)?;
        }
    }

    /// Finishes the file: gives it its permissions, which are the current ones of its target unless
    /// others were asked for, and starts its write-back without waiting for it.
    pub(crate) fn finish(mut self, root: &Root) -> Result<(StagedFile, Unsynced)> {
        let path = &self.target.path;
        let failed = || root.error(Operation::Stage, path);
        // Nothing is in a directory that is built.
        let found = self.target.site.is_none().then(|| if_found(root.fs.metadata(path)));
        let found = found.transpose().map_err(failed())?.flatten();
        // A directory makes way, or the commit is refused.
        let found = found.filter(|found| found.kind != Kind::Directory);
        let is_link = |found: Option<Metadata>| found.is_some_and(|found| found.kind == Kind::Symlink);
        if is_link(found) && !is_link(self.target.existing) {
            // It would have been followed.
            return Err(Error::Conflict { path: root.full(path).into(), found: Clash::Symlink });
        }
        let attributes = &self.target.attributes;
        let Attributes { model, modified, .. } = attributes;
        let like = match model {
            Some(model) => if_found(root.fs.metadata(model)).map_err(failed())?,
            // If the target is gone or no file any more, its last known permissions are used. A symlink has
            // none.
            None => [found, self.target.existing].into_iter().flatten().find(|f| f.kind == Kind::File),
        };
        let mut copied = None;
        match (&like, attributes.mode) {
            (Some(like), _) => {
                let mode = attributes.mode_for(like.owner.1).unwrap_or(like.mode);
                let like = Metadata { mode, ..*like };
                let model = model.as_ref().unwrap_or(path);
                let given = self.file.copy_permissions(model, &like).map_err(failed())?;
                root.may_lose(path, &given.lost)?;
                copied = Some(given);
            }
            (None, Some(mode)) => {
                let mode = own_mode(root, &self.staged, attributes, mode).map_err(failed())?;
                self.file.set_mode(mode).map_err(failed())?;
            }
            (None, None) => {}
        }
        if let Some(modified) = modified {
            self.file.set_modified(*modified).map_err(failed())?;
        }
        let (metadata, content) = self.file.finish().map_err(failed())?;
        if modified.is_none() {
            root.stamps.note(&metadata);
        }
        let file = StagedFile {
            content: StagedContent {
                name: self.staged.name().to_owned(),
                after: Stamp::of(&metadata),
                mode: metadata.mode,
                owner: Some(metadata.owner),
                checksum: Checksum::of_all(&self.hasher),
            },
            identity: metadata.identity,
            like,
            copied,
            bytes: None,
            staged: self.staged,
            target: Target { existing: found, ..self.target },
        };
        Ok((file, self.name.and(content)))
    }
}

/// The mode of a new file, as far as it holds for its group. A list that it has inherited from its directory
/// could let in others whom the mode was not meant for.
fn own_mode(root: &Root, staged: &RelativePath, attributes: &Attributes, mode: u32) -> io::Result<u32> {
    if attributes.group.is_none() {
        return Ok(mode);
    }
    let group = root.fs.metadata(staged)?.owner.1;
    let is_listed = root.fs.has_access_list(staged)?;
    Ok(if is_listed { for_any_group(mode) } else { attributes.mode_for(group).unwrap_or(mode) })
}

impl Write for StagedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// One change of a transaction, ready to be made durable.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are writes, so a box would only cost")]
pub(crate) enum StagedChange {
    Write(StagedFile),
    Remove(Target),
    Link(StagedSymlink),
    CreateDirectory(Target),
    RemoveDirectory(Target),
    MoveTree(Target, MovedTree),
    /// A directory that takes the place of a file, with all that is staged in it. A draft has slots for these.
    BuildTree(Target, MovedTree, Vec<StagedChange>),
    RemoveTree(Target, HiddenTree),
    /// A change that takes the place of a tree. A draft has two slots for it.
    Over(Box<StagedChange>, HiddenTree),
}

/// A staged symlink. Its text is durable with its name.
#[derive(Debug)]
pub(crate) struct StagedSymlink {
    pub(crate) staged: RelativePath,
    pub(crate) target: Target,
    /// Where it leads to, as written in it.
    pub(crate) to: PathBuf,
    pub(super) identity: Option<Identity>,
}

impl StagedChange {
    /// This change as an entry of the manifest.
    pub(crate) fn into_entry(self, root: &Root) -> StagedEntry {
        let attributes = self.target().attributes.clone();
        let existing = self.target().existing;
        let (mut copied_permissions, mut contents) = (None, Vec::new());
        let (entry, identity, like, bytes) = match self {
            Self::Write(StagedFile { target, content, identity, like, copied, bytes, .. }) => {
                copied_permissions = copied;
                (entry(root, target, Action::Write(content)), identity, like, bytes)
            }
            Self::Remove(target) => {
                let like = target.existing;
                (entry(root, target, Action::Remove), None, like, None)
            }
            Self::Link(StagedSymlink { staged, target, to, identity }) => {
                let link = StagedLink { name: staged.name().to_owned(), to };
                (entry(root, target, Action::Link(link)), identity, None, None)
            }
            Self::CreateDirectory(target) => {
                let new = target.attributes.new_directory();
                (directory(target, Action::CreateDirectory(new)), None, None, None)
            }
            Self::RemoveDirectory(target) => (directory(target, Action::RemoveDirectory), None, None, None),
            Self::MoveTree(target, moved) => {
                let is_file = target.existing.is_some_and(|found| found.kind != Kind::Directory);
                let entry =
                    if is_file { entry } else { |_: &Root, target, action| directory(target, action) };
                (entry(root, target, Action::MoveTree(moved)), None, None, None)
            }
            Self::BuildTree(target, moved, staged) => {
                contents = staged;
                (entry(root, target, Action::MoveTree(moved)), None, None, None)
            }
            Self::RemoveTree(target, hidden) => {
                (directory(target, Action::RemoveTree(hidden)), None, None, None)
            }
            Self::Over(change, hidden) => {
                let mut staged = change.into_entry(root);
                staged.entry.over = Some(hidden);
                return staged;
            }
        };
        let copied = copied_permissions;
        StagedEntry { entry, identity, like, copied, existing, attributes, bytes, contents }
    }
}

fn entry(root: &Root, target: Target, action: Action) -> Entry {
    let before = target.existing.as_ref().map(|found| original::record(root, &target.path, found));
    Entry { before, path: target.path, action, over: None }
}

/// An empty directory has no content that could be lost, so nothing identifies it.
fn directory(target: Target, action: Action) -> Entry {
    Entry { before: None, path: target.path, action, over: None }
}

/// Everything that a transaction has collected.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) staging: Staging,
    pub(crate) changes: Vec<StagedChange>,
    pub(crate) preconditions: Preconditions,
    pub(crate) snapshot: Snapshot,
    pub(crate) caller: Caller,
}
