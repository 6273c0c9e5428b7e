//! Sweep: removes what dead sessions left, and never anything else.
//!
//! A session in this control directory is dead if its lock can be taken. An
//! unknown session may belong to another root: above this one, below it, or
//! mounted in it. The sweep only removes regular files with exactly the name of
//! a dead session's staged file, in directories that a dead session recorded.
//! No pending manifest names such a file: the sweep runs under the lock, after
//! a recovery that has finished all manifests. If anything is not understood,
//! nothing is removed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use uuid::Uuid;

use super::control::Control;
use super::history;
use super::layout::{self, ControlName, SessionName};
use super::lock::Locked;
use super::recover::Recovered;
use super::root::{Root, if_found, is_gone};
use super::session::Record;
use super::tree;
use crate::error::{Error, Operation, Reason, Result};
use crate::fs::{Barrier, CONTROL_DIRECTORY, DirectoryEntry, Kind, Lock, LockKind, Unsynced, Wave};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// Why the removal of a session's own file need not be durable.
const SWEPT_AGAIN: &str = "if a power loss brings it back, it is swept again";

/// The sessions in this control directory, and their records.
#[derive(Debug, Default)]
struct Sessions {
    /// Dead sessions, each with its lock, so that nobody takes its name while it is swept.
    dead: BTreeMap<Uuid, Option<Box<dyn Lock>>>,
    living: HashSet<Uuid>,
    records: Vec<(Uuid, RelativePath)>,
}

/// Whether there is anything to sweep. The cost depends on the open sessions, not on the tree.
pub(crate) fn is_needed(root: &Root, control: &Control) -> Result<bool> {
    Ok(!Sessions::find(root, control)?.dead.is_empty())
}

/// How many sessions are alive.
pub(crate) fn alive(root: &Root, control: &Control) -> Result<usize> {
    Ok(Sessions::find(root, control)?.living.len())
}

/// What a sweep did.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) removed: Vec<RelativePath>,
    /// Directories that do not allow looking or removing.
    pub(crate) refused: Vec<RelativePath>,
}

/// Removes what dead sessions left. If a directory refuses, the sweep goes on with the others, and the
/// records of that directory stay for a later sweep.
pub(crate) fn sweep(root: &Root, locked: &Locked, _recovered: &Recovered) -> Result<Swept> {
    let sessions = Sessions::find(root, &locked.control)?;
    let (directories, made) = sessions.recorded(root)?;
    let mut removal = Removal::new(root);
    let mut refused = Vec::new();
    for directory in directories {
        match removal.staged_in(&directory, &sessions) {
            Err(error) if is_refusal(&error) => refused.push(directory),
            result => result?,
        }
    }
    for directory in made.iter().rev() {
        match removal.made(directory) {
            Err(error) if is_refusal(&error) => refused.push(directory.clone()),
            result => result?,
        }
    }
    // Lost without this sync: the removals, once the records that lead to these files are gone.
    let Removal { wave, mut removed, .. } = removal;
    let _durable = root.sync_always(wave)?;
    for name in locked.control.names.iter().copied() {
        if matches!(name, ControlName::Unpublished(id) if sessions.is_dead(id.session)) {
            root.remove(Operation::Sweep, &name.path(), SWEPT_AGAIN)?;
            removed.push(name.path());
        }
    }
    if locked.control.has(layout::HISTORY) {
        history::forget(root, locked.control.newest());
    }
    sessions.remove_dead(root, &refused)?;
    Ok(Swept { removed, refused })
}

/// Whether the rights or flags of a directory forbid the operation.
fn is_refusal(error: &Error) -> bool {
    // Something may be mounted in a removed directory, or others may have put something there just now.
    let refusals = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::CrossesDevices,
        io::ErrorKind::ResourceBusy,
        io::ErrorKind::DirectoryNotEmpty,
    ];
    matches!(error, Error::Io { source, .. } if refusals.contains(&source.kind()))
}

impl Sessions {
    fn find(root: &Root, control: &Control) -> Result<Self> {
        let mut sessions = Self::default();
        for entry in root.list(&layout::SESSIONS.path())? {
            // A session makes only files. Anything else under such a name belongs to another program.
            if entry.kind != Kind::File {
                continue;
            }
            let id = match layout::parse_session(&entry.name) {
                Some(SessionName::Mark(id)) => id,
                Some(SessionName::Record(id, number)) => {
                    sessions.records.push((id, layout::record(id, number)));
                    id
                }
                None => continue,
            };
            sessions.look(root, id)?;
        }
        for name in control.names.iter().copied() {
            if let ControlName::Unpublished(id) = name {
                sessions.look(root, id.session)?;
            }
        }
        Ok(sessions)
    }

    /// Whether a session of this control directory is dead. An unknown session belongs to another root,
    /// or began after the sessions were listed.
    fn is_dead(&self, id: Uuid) -> bool {
        self.dead.contains_key(&id)
            || !keeps(Rule::SweepDeadOnly)
            || !keeps(Rule::SweepKnownOnly) && !self.living.contains(&id)
    }

    /// Finds out whether a session lives.
    fn look(&mut self, root: &Root, id: Uuid) -> Result<()> {
        if !keeps(Rule::SweepDeadOnly) {
            self.dead.entry(id).or_default();
            return Ok(());
        }
        if self.living.contains(&id) || self.dead.contains_key(&id) {
            return Ok(());
        }
        let path = layout::session(id);
        let lock = match if_found(root.fs.try_lock(&path, LockKind::Shared)) {
            Ok(None) => None,
            Ok(Some(Some(lock))) => Some(lock),
            Ok(Some(None)) => {
                self.living.insert(id);
                return Ok(());
            }
            // A directory is not the mark of any session.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => None,
            Err(error) => return Err(root.error(Operation::Lock, &path)(error)),
        };
        self.dead.insert(id, lock);
        Ok(())
    }

    /// The directories in which dead sessions staged, and the directories that they made.
    fn recorded(&self, root: &Root) -> Result<(BTreeSet<RelativePath>, BTreeSet<RelativePath>)> {
        let (mut directories, mut made) = (BTreeSet::new(), BTreeSet::new());
        for (_, path) in self.records.iter().filter(|(id, _)| self.dead.contains_key(id)) {
            let record = record(root, path)?;
            directories.extend(record.directories);
            made.extend(record.made);
        }
        let is_ours = |directory: &RelativePath| !root.is_control(directory);
        directories.retain(is_ours);
        made.retain(is_ours);
        Ok((directories, made))
    }

    /// Removes the records and marks of dead sessions, each mark last, except those that lead to a
    /// directory that refused.
    fn remove_dead(mut self, root: &Root, refused: &[RelativePath]) -> Result<()> {
        for (id, path) in self.records.iter().filter(|_| !refused.is_empty()) {
            let record = record(root, path)?;
            if record.directories.iter().chain(&record.made).any(|directory| refused.contains(directory)) {
                self.dead.remove(id);
            }
        }
        for (_, path) in self.records.iter().filter(|(id, _)| self.dead.contains_key(id)) {
            root.remove(Operation::Sweep, path, SWEPT_AGAIN)?;
        }
        for (id, lock) in self.dead {
            if lock.is_some() || !keeps(Rule::SweepDeadOnly) {
                root.remove(Operation::Sweep, &layout::session(id), SWEPT_AGAIN)?;
            }
            drop(lock);
        }
        Ok(())
    }
}

/// Reads a record. One that is not whole was never made durable, so nothing was staged in its directories.
fn record(root: &Root, path: &RelativePath) -> Result<Record> {
    Ok(root.read(path)?.and_then(|bytes| Record::decode(&bytes)).unwrap_or_default())
}

/// The removals of a sweep.
struct Removal<'a> {
    root: &'a Root,
    wave: Wave,
    removed: Vec<RelativePath>,
}

impl<'a> Removal<'a> {
    fn new(root: &'a Root) -> Self {
        Self { root, wave: Wave::new(Barrier::Swept), removed: Vec::new() }
    }

    /// Removes what dead sessions have staged in a directory.
    fn staged_in(&mut self, directory: &RelativePath, sessions: &Sessions) -> Result<()> {
        let names = match self.root.fs.list(directory) {
            Ok(names) => names,
            // If the directory is gone or replaced, what was staged there is gone too.
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(self.root.error(Operation::Sweep, directory)(error)),
        };
        // A name that a killed process removed may no longer be visible but still be on disk.
        self.wave.add(Unsynced::directory(directory.clone()));
        for entry in names {
            let Some(id) = layout::parse_staged(&entry.name) else { continue };
            if !sessions.is_dead(id.transaction.session) {
                continue;
            }
            match entry.kind {
                kind if is_staged_kind(kind) => self.staged(directory.child(&entry.name))?,
                Kind::Directory if keeps(Rule::SweepTrees) => self.hidden(directory.child(&entry.name))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes what is left of a directory that a commit has removed.
    fn hidden(&mut self, path: RelativePath) -> Result<()> {
        let debt = tree::delete(self.root, &path).map_err(self.root.error(Operation::Sweep, &path))?;
        self.wave.add(debt);
        self.removed.push(path);
        Ok(())
    }

    /// Removes a staged file.
    fn staged(&mut self, path: RelativePath) -> Result<()> {
        let result = if_found(self.root.fs.remove_file(&path));
        if let Some(debt) = result.map_err(self.root.error(Operation::Sweep, &path))? {
            self.wave.add(debt);
            self.removed.push(path);
        }
        Ok(())
    }

    /// Removes a directory that a dead transaction made, if it is empty.
    fn made(&mut self, directory: &RelativePath) -> Result<()> {
        match self.root.fs.remove_dir(directory) {
            Ok(debt) => {
                self.wave.add(debt);
                self.removed.push(directory.clone());
            }
            Err(error) => match error.kind() {
                // A killed process may have removed it. That is visible, but perhaps not durable.
                io::ErrorKind::NotFound => {
                    let parent = directory.parent();
                    if self.root.fs.metadata(&parent).is_ok_and(|found| found.kind == Kind::Directory) {
                        self.wave.add(Unsynced::directory(parent));
                    }
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::DirectoryNotEmpty => {}
                _ => return Err(self.root.error(Operation::Sweep, directory)(error)),
            },
        }
        Ok(())
    }
}

/// Removes every staged file and directory in the tree that belongs to no living session of this control directory.
/// Returns what was removed. `own` counts as living, even without its mark.
///
/// The staged files of other roots are not known here. So nothing is looked for where another root may
/// stage: in a root within this one, behind a mount point, or anywhere if this root lies in another.
pub(crate) fn deep(
    root: &Root,
    locked: &Locked,
    _recovered: &Recovered,
    own: Option<Uuid>,
) -> Result<Vec<RelativePath>> {
    let enclosing = root.fs.enclosing_root().map_err(root.error(Operation::Sweep, &RelativePath::root()))?;
    if let Some(path) = enclosing {
        let reason = Reason::EnclosingRoot;
        return Err(Error::Unsupported { path: path.into(), reason });
    }
    let mut sessions = Sessions::find(root, &locked.control)?;
    sessions.living.extend(own);
    let mut removal = Removal::new(root);
    let mut ahead = vec![RelativePath::root()];
    while let Some(directory) = ahead.pop() {
        let names = root.list(&directory)?;
        let is_root =
            |entry: &DirectoryEntry| entry.name == CONTROL_DIRECTORY && entry.kind == Kind::Directory;
        if !directory.is_root() && names.iter().any(is_root) {
            continue;
        }
        for entry in names {
            let path = directory.child(&entry.name);
            match entry.kind {
                Kind::Directory if root.is_control(&path) => {}
                Kind::Directory if is_forgotten(&entry, &sessions) && keeps(Rule::SweepTrees) => {
                    removal.hidden(path)?;
                }
                Kind::Directory => {
                    let mounted = if_found(root.fs.is_mount_point(&path));
                    if mounted.map_err(root.error(Operation::Sweep, &path))? == Some(false) {
                        ahead.push(path);
                    }
                }
                kind if is_staged_kind(kind) && is_forgotten(&entry, &sessions) => removal.staged(path)?,
                _ => {}
            }
        }
    }
    // Lost without this sync: the removals. Only another deep sweep would find these files again, so
    // what this one reports as removed must stay removed.
    let _durable = root.sync_always(removal.wave)?;
    Ok(removal.removed)
}

fn is_forgotten(entry: &DirectoryEntry, sessions: &Sessions) -> bool {
    layout::parse_staged(&entry.name).is_some_and(|id| !sessions.living.contains(&id.transaction.session))
}

/// What is staged is a file or a symlink.
fn is_staged_kind(kind: Kind) -> bool {
    matches!(kind, Kind::File | Kind::Symlink)
}
