//! History: what a commit replaces or removes is kept before it goes.
//!
//! Runs under the lock, before the commit point, and waits for nothing itself.
//! What it makes is part of the wave of the commit point, which ends before the
//! first file is moved. So after any power loss an original is at its path, or
//! it is kept. A transaction has a directory of its own, so what one that was
//! refused has left is never taken for that of another one.
//!
//! A kept file is a hard link of the original, or a copy. The link is made to
//! what the path's own name leads to, and it costs no bytes. Relies on the checks
//! under the lock. Changes no target.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write as _};

use super::control::{self, Control};
use super::history_record::{self as record, Becomes, Kept, Original, Past, Record, Undo, Was};
use super::layout::{self, ControlName, Fate};
use super::root::{Root, if_found};
use super::stage::Staged;
use super::writers::{Writers, is_listed};
use super::{copy, state};
use crate::checksum::Checksum;
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Kind, Metadata, NewFile, ReadFile, SET_ID, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::{Entry, Manifest, NewDirectory, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;

/// Why what is removed here need not be gone for good.
const FORGOTTEN_AGAIN: &str = "if a power loss brings it back, it is removed again, and nobody believes it";

/// A commit whose originals are kept.
#[derive(Clone, Copy, Debug)]
struct Commit<'a> {
    generation: Generation,
    transaction: TransactionId,
    /// The transaction of the generation before; `None` if that is not known.
    previous: Option<TransactionId>,
    undo: Option<Undo>,
    /// The directories that were made for its files.
    made: &'a [RelativePath],
    /// Whether a file that differs from what the manifest says is not the original.
    is_late: bool,
}

/// Keeps what a transaction replaces or removes, if the store has a history.
pub(crate) fn keep_for(root: &Root, staged: &Staged, generation: Generation, wave: &mut Wave) -> Result<()> {
    if root.settings.keep == 0 {
        return Ok(());
    }
    // In a batch the manifest of the one before has just got its name.
    let previous = transaction_before(root, &Control::look(root)?, generation);
    let (transaction, undo, made) = (staged.id, staged.snapshot.undo, staged.cleanup.directories());
    let commit = Commit { generation, transaction, previous, undo, made, is_late: false };
    keep(root, commit, staged.entries.iter().map(|staged| &staged.entry), wave)
}

/// Removes what was kept for a transaction that is not published.
pub(crate) fn take_back(root: &Root, transaction: TransactionId, generation: Generation) {
    if root.settings.keep > 0 {
        clear(root, &layout::history(generation, transaction));
    }
}

/// Keeps what these entries replace or remove. Adds what it owes to the wave, which must end before the
/// first file is moved. After an error nothing is left of it.
fn keep<'a>(
    root: &Root,
    commit: Commit<'_>,
    entries: impl Iterator<Item = &'a Entry>,
    wave: &mut Wave,
) -> Result<()> {
    let directory = layout::history(commit.generation, commit.transaction);
    let mut own = Wave::new(Barrier::Published);
    let kept = make_directory(root, &directory, &mut own).and_then(|()| {
        let mut keeper = Keeper::new(root, commit, own)?;
        keeper.keep_all(entries)?;
        Ok(keeper.wave)
    });
    match kept {
        Ok(own) if keeps(Rule::KeepBeforeMoves) => wave.absorb(own),
        Ok(own) => own.waive("a crash test asked for it"),
        Err(error) => {
            clear(root, &directory);
            return Err(error);
        }
    }
    Ok(())
}

/// Makes the directory of one transaction. If it is there, a refused commit of the same transaction has
/// left it.
fn make_directory(root: &Root, directory: &RelativePath, wave: &mut Wave) -> Result<()> {
    let failed = || root.error(Operation::Keep, directory);
    let make = || root.fs.create_private_dir(directory);
    let made = match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            wave.add(root.fs.ensure_dir(&layout::HISTORY.path()).map_err(failed())?);
            make()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            clear(root, directory);
            make()
        }
        made => made,
    };
    wave.add(made.map_err(failed())?);
    Ok(())
}

/// Keeps the originals of one commit.
struct Keeper<'a> {
    root: &'a Root,
    commit: Commit<'a>,
    /// The directories that were made for its files.
    made: HashSet<&'a RelativePath>,
    wave: Wave,
    writers: Writers,
    /// Whether all who may write in the root can reach what is in a directory.
    open: BTreeMap<RelativePath, bool>,
}

impl<'a> Keeper<'a> {
    fn new(root: &'a Root, commit: Commit<'a>, wave: Wave) -> Result<Self> {
        let made = commit.made.iter().collect();
        Ok(Self { root, commit, made, wave, writers: Writers::of(root)?, open: BTreeMap::new() })
    }

    fn keep_all<'e>(&mut self, entries: impl Iterator<Item = &'e Entry>) -> Result<()> {
        let Commit { generation, transaction, previous, undo, made, .. } = self.commit;
        let mut past: Vec<_> = (0..)
            .zip(entries)
            .map(|(number, entry)| {
                Ok(Past {
                    path: entry.path.clone(),
                    before: self.was(number, entry)?,
                    after: Becomes::of(entry),
                    over: entry.over.is_some(),
                })
            })
            .collect::<Result<_>>()?;
        // One that was made for a file may also be one that the transaction makes for itself.
        let named: HashSet<_> = past.iter().map(|past: &Past| past.path.clone()).collect();
        // Those that are built have another path after the commit, and go with a tree.
        let is_final = |path: &&RelativePath| self.root.refuse_reserved(path).is_ok();
        let made = made.iter().filter(|path| !named.contains(*path)).filter(is_final);
        past.extend(made.map(|path| Past {
            path: path.clone(),
            before: Was::Nothing,
            after: Becomes::Directory,
            over: false,
        }));
        let time = self.root.fs.now().into();
        let record = Record { generation, transaction, previous, time, undo, entries: past };
        let path = layout::history_record(generation, transaction);
        let failed = |error| self.root.error(Operation::Keep, &path)(error);
        let bytes = record.encode().map_err(|error| failed(error.into()))?;
        let (mut file, name) = self.root.fs.create_new(&path, NewFile::Private).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        let (_, content) = file.finish().map_err(failed)?;
        self.wave.add(name.and(content));
        Ok(())
    }

    /// What is at the path of an entry. A file is kept.
    fn was(&mut self, number: usize, entry: &Entry) -> Result<Was> {
        let found = state::look(self.root, &entry.path)?;
        if entry.is_of_tree() {
            return Ok(Was::Unknown);
        }
        let is_link = entry.before.is_some_and(|before| before.is_link);
        if self.commit.is_late && (entry.action.is_of_directory() || is_link) {
            // It may be made, removed or replaced already.
            return Ok(Was::Unknown);
        }
        if self.commit.is_late && entry.before.map(|before| before.stamp) != found.as_ref().map(Stamp::of) {
            let original = |stamp, blake3| Original { stamp, blake3, mode: 0, group: None, kept: Kept::Not };
            let lost = entry.before.map(|before| Was::File(original(before.stamp, before.checksum)));
            return Ok(lost.unwrap_or(Was::Nothing));
        }
        Ok(match found.filter(|_| !self.made.contains(&entry.path)) {
            None => Was::Nothing,
            Some(found) => match found.kind {
                Kind::File => Was::File(self.original(number, entry, &found)?),
                Kind::Directory => {
                    let has_list = is_listed(self.root, &entry.path).unwrap_or(true);
                    let group = (!has_list).then_some(found.owner.1);
                    Was::Directory(NewDirectory { mode: Some(found.mode), group })
                }
                Kind::Symlink | Kind::Other => Was::Unknown,
            },
        })
    }

    fn original(&mut self, number: usize, entry: &Entry, found: &Metadata) -> Result<Original> {
        let Commit { generation, transaction, .. } = self.commit;
        let to = layout::kept(generation, transaction, number);
        let failed = |error| self.root.error(Operation::Keep, &entry.path)(error);
        let stamp = Stamp::of(found);
        let known = entry
            .before
            .filter(|before| before.stamp == stamp && !before.is_link)
            .and_then(|before| before.checksum);
        let has_list = is_listed(self.root, &entry.path).unwrap_or(true);
        let group = (!has_list).then_some(found.owner.1);
        let original = |blake3, kept| Original { stamp, blake3, mode: found.mode, group, kept };
        // What cannot be read cannot be kept: one that this user may not read, or one on a damaged disk. A
        // commit may be what repairs it.
        let Ok(checksum) = known.map_or_else(|| copy::checksum(self.root, &entry.path), Ok) else {
            return Ok(original(None, Kept::Not));
        };
        let is_open = self.is_open(&entry.path, found).map_err(failed)?;
        if is_open || !keeps(Rule::HideKept) {
            // Refused by a mount point, by a file system without links, or for a file of another user
            // (link(2); `protected_hardlinks` in proc_sys_fs(5)). Then a copy says what is wrong, if it is
            // anything else.
            if let Ok(debt) = self.root.fs.link(&entry.path, &to) {
                self.wave.add(debt);
                return Ok(original(Some(checksum), Kept::Link));
            }
        }
        let access = if is_open { NewFile::Private } else { NewFile::Own };
        let Some(copied) = self.copy(&entry.path, &to, access).map_err(failed)? else {
            self.root.try_remove(&to, FORGOTTEN_AGAIN);
            return Ok(original(None, Kept::Not));
        };
        self.sync_if_full()?;
        Ok(original(Some(copied), Kept::Copy))
    }

    /// Copies a file, and shares its blocks where the file system can. Returns the checksum of what was copied;
    /// `None` if the file cannot be read.
    fn copy(
        &mut self,
        from: &RelativePath,
        to: &RelativePath,
        access: NewFile,
    ) -> io::Result<Option<Checksum>> {
        let fs = &self.root.fs;
        let Ok(file) = fs.open(from) else { return Ok(None) };
        let mut source = Source { file, is_unreadable: false };
        let (mut file, name) = fs.create_new(to, access)?;
        self.wave.add(name);
        let is_shared = match source.file.system_file() {
            Some(source) => file.share_bytes(source)?,
            None => false,
        };
        if !is_shared {
            match copy::bytes(&mut source, &mut *file) {
                Err(_) if source.is_unreadable => return Ok(None),
                copied => copied?,
            }
        }
        let (_, content) = file.finish()?;
        self.wave.add(content);
        copy::checksum(self.root, to).map(Some)
    }

    /// A copy stays open until it is synced.
    fn sync_if_full(&mut self) -> Result<()> {
        if self.wave.files_open() < self.root.fs.files_open_max() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.wave, Wave::new(Barrier::Published));
        // The wave of the commit point would sync these files anyway. It is done early so that they can be
        // closed.
        let synced = if self.commit.is_late { self.root.sync_always(full) } else { self.root.sync(full) };
        synced.map(drop)
    }

    /// Whether all who may enter the history may read the original, too. A file with a set-ID bit is never
    /// linked, since nobody may run it from here.
    fn is_open(&mut self, path: &RelativePath, found: &Metadata) -> io::Result<bool> {
        if found.mode & SET_ID != 0
            || !self.writers.may(found, 0o4)
            || is_listed(self.root, path)?
            || is_listed(self.root, &RelativePath::root())?
        {
            return Ok(false);
        }
        for directory in path.parent().chain() {
            let is_open = match self.open.get(&directory) {
                Some(is_open) => *is_open,
                None => {
                    let found = if_found(self.root.fs.metadata(&directory))?;
                    found.is_some_and(|found| self.writers.may(&found, 0o5))
                        && !is_listed(self.root, &directory)?
                }
            };
            self.open.insert(directory, is_open);
            if !is_open {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// An original while it is copied, which tells its own errors from those of the copy.
struct Source {
    file: Box<dyn ReadFile>,
    is_unreadable: bool,
}

impl io::Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer);
        self.is_unreadable |= read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}

/// The transaction of a generation whose manifest is still there. A generation that was given up is none,
/// since nobody knows what it has left.
pub(crate) fn transaction_of(
    root: &Root,
    control: &Control,
    generation: Generation,
) -> Result<Option<TransactionId>> {
    if control.has(Fate::Abandoned.of(generation)) {
        return Ok(None);
    }
    let Some(path) = control.manifests().remove(&generation) else { return Ok(None) };
    match control::manifest(root, &path) {
        // What cannot be trusted names nobody.
        Err(Error::Corrupt { .. }) => Ok(None),
        found => Ok(found?.map(|manifest| manifest.transaction)),
    }
}

/// The transaction of the generation before, which a list names. If it cannot be read, the history ends
/// there, and nothing else is lost. So no commit is refused for it.
fn transaction_before(root: &Root, control: &Control, generation: Generation) -> Option<TransactionId> {
    transaction_of(root, control, Generation::from(generation.get().saturating_sub(1))).ok().flatten()
}

/// Removes what has fallen out, if the store has a history.
pub(crate) fn forget_old(root: &Root, newest: Generation) {
    if root.settings.keep > 0 {
        forget(root, newest);
    }
}

/// Removes what has fallen out of the history, and what was never committed. A failure does no harm: the
/// next commit tries again.
pub(crate) fn forget(root: &Root, newest: Generation) {
    let keep = u64::from(root.settings.keep);
    for entry in root.list(&layout::HISTORY.path()).unwrap_or_default() {
        let Some((generation, transaction)) = layout::parse_history(&entry.name) else { continue };
        let is_old = keep > 0 && generation.get().saturating_add(keep) <= newest.get();
        if generation > newest || is_old && keeps(Rule::ForgetOld) {
            clear(root, &layout::history(generation, transaction));
        }
    }
}

/// Removes the whole history, durably.
pub(crate) fn forget_all(root: &Root) -> Result<()> {
    for entry in root.list(&layout::HISTORY.path())? {
        if let Some((generation, transaction)) = layout::parse_history(&entry.name) {
            clear(root, &layout::history(generation, transaction));
        }
    }
    let removed = if_found(root.fs.remove_dir(&layout::HISTORY.path()));
    let removed = removed.map_err(root.error(Operation::Remove, &layout::HISTORY.path()))?;
    let mut wave = Wave::new(Barrier::Forgotten);
    // One that is gone may have been removed by a process that was killed before it waited.
    wave.add(removed.unwrap_or_else(|| Unsynced::directory(layout::control())));
    // Lost without this sync: the removal. Each list names the one before it, and the newest manifest the
    // newest of them. So all that came back would be believed, and in a store that keeps nothing no later commit
    // would remove it.
    root.sync_always(wave).map(drop)
}

/// Removes the directory of one commit. Its list goes first: what is left without it is believed by nobody.
fn clear(root: &Root, directory: &RelativePath) {
    root.try_remove(&directory.child("record"), FORGOTTEN_AGAIN);
    for entry in root.list(directory).unwrap_or_default() {
        root.try_remove(&directory.child(entry.name), FORGOTTEN_AGAIN);
    }
    if let Ok(debt) = root.fs.remove_dir(directory) {
        debt.waive(FORGOTTEN_AGAIN);
    }
}

/// Adds what a killed process has kept to recovery's first wave, since the next lines of recovery may
/// remove the originals. What a failed sync was for is removed, since a second one would prove nothing. Then it
/// is kept anew.
pub(crate) fn inherit(
    root: &Root,
    control: &Control,
    (generation, manifest): (Generation, &Manifest),
    wave: &mut Wave,
) -> Result<()> {
    let transaction = manifest.transaction;
    if !control.has(layout::HISTORY) || !keeps(Rule::InheritHistory) {
        return Ok(());
    }
    // Whoever may not read it can finish the commit all the same.
    let Some(record) = record::read(root, generation, transaction).ok().flatten() else { return Ok(()) };
    let has_failed =
        control.has(ControlName::InDoubt(transaction)) || control.has(Fate::SyncFailed.of(generation));
    // Once an original has gone, all were kept durably before, and nobody could keep that one again.
    if has_failed && (all_are_there(root, (&record, manifest))? || !keeps(Rule::LeaveKept)) {
        // Its directory stays, and says that something was kept.
        root.try_remove(&layout::history_record(generation, transaction), FORGOTTEN_AGAIN);
        return Ok(());
    }
    wave.add(Unsynced::directory(layout::HISTORY.path()));
    wave.add(Unsynced::directory(layout::history(generation, transaction)));
    // Also those that were linked: a recovery may have copied some of them instead.
    let files = (0..).zip(&record.entries).filter(|(_, past)| kept_original(past).is_some());
    let files = files.map(|(number, _)| layout::kept(generation, transaction, number));
    for path in files.chain([layout::history_record(generation, transaction)]) {
        if let Ok(debt) = root.fs.inherit(&path) {
            wave.add(debt);
        }
        root.sync_if_full(wave, Barrier::Inherited)?;
    }
    Ok(())
}

/// The original of a path, if it is kept.
fn kept_original(past: &Past) -> Option<Original> {
    match past.before {
        Was::File(original) if original.kept != Kept::Not => Some(original),
        _ => None,
    }
}

/// Whether all originals that a list names are at their paths.
fn all_are_there(root: &Root, (record, manifest): (&Record, &Manifest)) -> Result<bool> {
    for (past, entry) in record.entries.iter().zip(&manifest.entries) {
        let Some(original) = kept_original(past) else { continue };
        if original_at(root, entry, &original)?.is_none() || !has_its_bytes(root, &entry.path, &original) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The original at its path, if it is still there by its stamp.
fn original_at(root: &Root, entry: &Entry, original: &Original) -> Result<Option<Metadata>> {
    Ok(state::look(root, &entry.path)?.filter(|found| Stamp::of(found) == original.stamp))
}

fn has_its_bytes(root: &Root, path: &RelativePath, original: &Original) -> bool {
    copy::checksum(root, path).is_ok_and(|checksum| Some(checksum) == original.blake3)
}

/// Keeps what a published commit replaces or removes, if a power loss took what its process had kept, or a
/// part of it. That was before the first move, so the originals are still there. A commit with
/// `Durability::Process` has waited for nothing, so its originals may be gone: a lost list stays lost.
///
/// The new list does not know an undo, nor the directories that were made. If this fails, the commit is
/// finished without, and the history ends there.
pub(crate) fn keep_late(
    root: &Root,
    control: &Control,
    generation: Generation,
    manifest: &Manifest,
) -> Result<()> {
    let (transaction, previous) = (manifest.transaction, transaction_before(root, control, generation));
    if !was_kept(root, control, (generation, transaction))? || !keeps(Rule::KeepInRecovery) {
        return Ok(());
    }
    let commit = Commit { generation, transaction, previous, undo: None, made: &[], is_late: true };
    let mut wave = Wave::new(Barrier::Kept);
    let kept = match record::read(root, generation, transaction) {
        Ok(Some(record)) => keep_missing(root, commit, (&record, manifest), &mut wave),
        Ok(None) if !control.is_waived(generation) => keep(root, commit, manifest.entries.iter(), &mut wave),
        Ok(None) | Err(_) => Ok(()),
    };
    if let Err(error @ Error::Poisoned { .. }) = kept {
        return Err(error);
    }
    // Lost without this sync: originals that the next line of recovery replaces or removes. A crash before
    // it leaves them in place.
    root.sync_always(wave).map(drop)
}

/// Whether the writer of a commit has kept what it replaced, as far as that shows after a power loss. Either this
/// store keeps a history, or the commit has a directory. Otherwise a root that once had a history would grow with
/// every recovery.
fn was_kept(
    root: &Root,
    control: &Control,
    (generation, transaction): (Generation, TransactionId),
) -> Result<bool> {
    if root.settings.keep > 0 || !control.has(layout::HISTORY) || !keeps(Rule::EndHistory) {
        return Ok(root.settings.keep > 0 || control.has(layout::HISTORY));
    }
    Ok(root.look(&layout::history(generation, transaction))?.is_some())
}

/// Keeps what a list names, and a power loss took. The files of a directory become durable in any order.
fn keep_missing(
    root: &Root,
    commit: Commit<'_>,
    (record, manifest): (&Record, &Manifest),
    wave: &mut Wave,
) -> Result<()> {
    let mut keeper = Keeper::new(root, commit, Wave::new(Barrier::Kept))?;
    for (number, (past, entry)) in record.entries.iter().zip(&manifest.entries).enumerate() {
        let Some(original) = kept_original(past) else { continue };
        let to = layout::kept(commit.generation, commit.transaction, number);
        let Some(found) = original_at(root, entry, &original)? else { continue };
        let is_kept = match root.look(&to)? {
            Some(kept) if kept.identity.is_some() && kept.identity == found.identity => true,
            Some(_) => has_its_bytes(root, &to, &original),
            None => false,
        };
        // What is no longer at its path was replaced after all of this was durable.
        if is_kept || !has_its_bytes(root, &entry.path, &original) || !keeps(Rule::KeepMissing) {
            continue;
        }
        root.try_remove(&to, FORGOTTEN_AGAIN);
        keeper.original(number, entry, &found)?;
    }
    wave.absorb(keeper.wave);
    Ok(())
}
