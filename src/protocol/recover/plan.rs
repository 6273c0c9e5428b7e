//! What recovery will do with each entry of a published manifest, decided for
//! all entries before anything is moved. Looks, and changes nothing.

use std::collections::{HashMap, HashSet};
use std::io;

use super::super::root::Root;
use super::super::{copy, original, tree};
use super::trees::{self, Left, Trees};
use crate::error::{Error, Operation, Result};
use crate::fs::{Kind, Metadata};
use crate::generation::Generation;
use crate::manifest::{Action, Entry, Manifest, NewDirectory, StagedContent, StagedLink, Stamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use crate::report::{Difference, Finding};

/// What a published manifest proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Everything that it names was on disk before the manifest was.
    Durable,
    /// Nothing: its writer did not wait, and a power loss may have undone any part of it.
    Waived,
}

/// An entry, and what to do at its path.
#[derive(Debug)]
pub(super) struct PlannedEntry<'a> {
    pub(super) entry: &'a Entry,
    pub(super) step: Step,
}

/// What to do with one entry.
#[derive(Debug)]
pub(super) enum Step {
    /// Done already, though perhaps not durably.
    Nothing,
    /// Rename the staged file over the target.
    Replace { staged: RelativePath },
    /// Like `Replace`, but first set aside the file at the target, which belongs to another program.
    SetAsideAndReplace { staged: RelativePath },
    /// Staged file and target are one file, so only unlink the staged name.
    Unlink { staged: RelativePath },
    /// Remove the target.
    Remove,
    /// Gone with its directory, perhaps not durably.
    Gone,
    /// Make the directory, or finish it.
    MakeDirectory { new: NewDirectory },
    /// Remove the directory, if it is empty.
    RemoveDirectory,
    /// Move or hide a tree, or what is left to do of that.
    Tree,
    /// The same, but first set aside the file at the target, which another program has changed.
    SetAsideAndTree,
}

/// What the generations to recover say about each path, in order, and the newest of them.
#[derive(Debug)]
pub(super) struct Named {
    named: HashMap<RelativePath, Vec<(Generation, Trust, Entry)>>,
    /// The newest generation that names a path, or anything below it.
    needed: HashMap<RelativePath, Generation>,
    trees: Trees,
}

impl Named {
    /// A manifest that cannot be read is skipped here. It stops recovery when its turn comes.
    pub(super) fn new(
        manifests: &[(Generation, Result<Manifest>)],
        trust: impl Fn(Generation) -> Trust,
    ) -> Self {
        let (mut named, mut trees): (HashMap<_, Vec<_>>, _) = (HashMap::new(), Trees::default());
        let mut needed: HashMap<_, Generation> = HashMap::new();
        for (generation, manifest) in manifests {
            for entry in manifest.iter().flat_map(|manifest| &manifest.entries) {
                let says = (*generation, trust(*generation), entry.clone());
                named.entry(entry.path.clone()).or_default().push(says);
                for directory in entry.path.chain() {
                    let newest = needed.entry(directory).or_default();
                    *newest = (*newest).max(*generation);
                }
                trees.note(*generation, entry);
            }
        }
        Self { named, needed, trees }
    }

    /// Whether a generation is the last to name a path. If an earlier one finds it changed, a later one
    /// has changed it.
    pub(super) fn is_last(&self, generation: Generation, path: &RelativePath) -> bool {
        self.named.get(path).and_then(|named| named.last()).is_none_or(|(last, ..)| *last == generation)
            && self.trees.after(generation, path).next().is_none()
    }

    /// Whether this generation or a later one has removed a directory above a path, with what was in it.
    fn goes_with_directory(&self, generation: Generation, path: &RelativePath) -> bool {
        let removes = |above: &RelativePath| {
            let named = self.named.get(above).into_iter().flatten();
            let mut named = named.filter(|(other, ..)| *other >= generation);
            named.any(|(_, _, entry)| entry.action == Action::RemoveDirectory)
        };
        path.parent().chain().iter().any(removes)
    }

    /// Whether a later generation needs this directory.
    fn is_needed_later(&self, generation: Generation, directory: &RelativePath) -> bool {
        self.needed.get(directory).is_some_and(|newest| *newest > generation)
    }

    /// Whether a file is what was at its path before an earlier generation, or after it. A power loss
    /// can undo moves of several commits.
    pub(super) fn was(
        &self,
        root: &Root,
        generation: Generation,
        path: &RelativePath,
        found: &Metadata,
    ) -> Result<bool> {
        for entry in self.earlier(generation, path) {
            let is_after = match &entry.action {
                Action::Write(content) => {
                    Stamp::of(found) == content.after
                        && original::has_bytes(root, path, found, content.after, content.checksum)?
                }
                Action::Link(link) => original::is_link(root, path, found, link),
                _ => false,
            };
            if is_after || original::is_itself(root, path, entry.before.as_ref(), found)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn earlier(&self, generation: Generation, path: &RelativePath) -> impl Iterator<Item = &Entry> {
        let named = self.named.get(path).into_iter().flatten();
        named.filter(move |(other, ..)| *other < generation).map(|(_, _, entry)| entry)
    }

    /// Whether a later generation has put its file at a path, which shows in its staged file being
    /// gone. A waived commit may have lost its staged file, so its bytes must be at the path.
    fn is_taken(
        &self,
        root: &Root,
        generation: Generation,
        path: &RelativePath,
        found: Option<&Metadata>,
    ) -> Result<bool> {
        let named = self.named.get(path).map_or(&[][..], Vec::as_slice).iter();
        // The newest first: its file is most often there, and then no other needs to be compared.
        for (_, trust, entry) in named.rev().take_while(|(later, ..)| *later > generation) {
            let Some(staged) = entry.staged() else { continue };
            if root.look(&staged)?.is_some() {
                continue;
            }
            let is_moved = match (trust, found, &entry.action) {
                (Trust::Durable, ..) => true,
                (Trust::Waived, Some(found), Action::Write(content)) => {
                    original::has_bytes(root, path, found, content.after, content.checksum)?
                }
                (Trust::Waived, Some(found), Action::Link(link)) => {
                    original::is_link(root, path, found, link)
                }
                (Trust::Waived, ..) => false,
            };
            if is_moved {
                return Ok(keeps(Rule::LeaveToLater));
            }
        }
        Ok(false)
    }
}

/// Plans all entries. Adds to `findings` whatever differs from the manifest.
pub(super) fn plan<'a>(
    root: &Root,
    (generation, trust): (Generation, Trust),
    (entries, away): (&'a [Entry], &HashSet<RelativePath>),
    copying: &HashSet<RelativePath>,
    named: &Named,
    findings: &mut Vec<Difference>,
) -> Result<Vec<PlannedEntry<'a>>> {
    let mut planned = Vec::with_capacity(entries.len());
    let makes = entries.iter().filter(|entry| entry.action.is_new_directory());
    let made: HashSet<_> = makes.map(|entry| &entry.path).collect();
    for entry in entries.iter().filter(|entry| !away.contains(&entry.path)) {
        // A tree that it replaces is moved out of the way first.
        let found = if tree::is_in_the_way(root, entry)? { None } else { root.look(&entry.path)? };
        let is_missing =
            found.is_none() && keeps(Rule::MissDirectories) && directory_is_gone(root, &entry.path)?;
        if entry.action.is_of_tree() {
            let (step, finding) = moved(root, (generation, trust), entry, named)?;
            findings.extend(finding.map(|finding| Difference { path: entry.path.clone(), finding }));
            planned.push(PlannedEntry { entry, step });
            continue;
        }
        if entry.action.is_of_directory() {
            let is_missing = is_missing && !made.contains(&entry.path.parent());
            let (step, finding) =
                directory(root, (generation, trust), entry, found.as_ref(), is_missing, named)?;
            findings.extend(finding.map(|finding| Difference { path: entry.path.clone(), finding }));
            planned.push(PlannedEntry { entry, step });
            continue;
        }
        let is_taken = named.is_taken(root, generation, &entry.path, found.as_ref())?;
        let goes = is_missing && named.goes_with_directory(generation, &entry.path);
        let (step, finding) = match &entry.action {
            _ if goes => (Step::Gone, None),
            Action::Remove if is_missing => (Step::Nothing, Some(Finding::DirectoryMissing)),
            Action::Write(_) | Action::Link(_) if is_missing && trust == Trust::Durable => {
                (Step::Nothing, Some(Finding::DirectoryMissing))
            }
            Action::Remove if is_taken => (Step::Nothing, None),
            Action::Remove => removal(root, entry, found.as_ref())?,
            Action::Write(_) | Action::Link(_) if is_taken => (superseded(root, entry)?, None),
            Action::Link(link) => symlink(root, (entry, link), trust, found.as_ref())?,
            Action::Write(content) => {
                write(root, (entry, content), (trust, copying.contains(&entry.path)), found.as_ref())?
            }
            _ => continue,
        };
        let difference = |finding| Difference { path: entry.path.clone(), finding };
        findings.extend(finding.map(difference));
        planned.push(PlannedEntry { entry, step });
    }
    Ok(planned)
}

/// What is left to do with a tree. A commit with one waits until it is in place. So a later one that uses its
/// paths was published after that.
fn moved(
    root: &Root,
    (generation, trust): (Generation, Trust),
    entry: &Entry,
    named: &Named,
) -> Result<(Step, Option<Finding>)> {
    if trust == Trust::Durable && entry.paths().any(|path| named.is_needed_later(generation, path)) {
        return Ok((Step::Gone, None));
    }
    Ok(match (trees::left(root, entry)?, trust) {
        (Left::Nothing, _) => (Step::Gone, None),
        (Left::Something, _) => (Step::Tree, None),
        (Left::SetAside, _) => (Step::SetAsideAndTree, None),
        (Left::Gone, Trust::Durable) => (Step::Gone, Some(Finding::ChangedSince)),
        (Left::Occupied, Trust::Durable) => {
            return Err(root.error(Operation::MoveDirectory, &entry.path)(
                io::ErrorKind::AlreadyExists.into(),
            ));
        }
        // A power loss has kept what came later, without what emptied the place for it.
        (Left::Gone | Left::Occupied, Trust::Waived) => (Step::Gone, Some(Finding::Lost)),
    })
}

/// What is left to do with a directory. A later generation that names it, or needs it, decides.
fn directory(
    root: &Root,
    (generation, trust): (Generation, Trust),
    entry: &Entry,
    found: Option<&Metadata>,
    is_missing: bool,
    named: &Named,
) -> Result<(Step, Option<Finding>)> {
    let found = found.map(|found| found.kind);
    let is_last = named.is_last(generation, &entry.path);
    Ok(match (&entry.action, found) {
        _ if is_missing && named.goes_with_directory(generation, &entry.path) => (Step::Gone, None),
        _ if !is_last => (Step::Nothing, None),
        (Action::RemoveDirectory, None) => (Step::Gone, None),
        (Action::RemoveDirectory, Some(Kind::Directory))
            if !named.is_needed_later(generation, &entry.path) =>
        {
            (Step::RemoveDirectory, None)
        }
        (Action::CreateDirectory(_), None) if is_missing => match trust {
            Trust::Durable => (Step::Nothing, Some(Finding::DirectoryMissing)),
            Trust::Waived => (Step::Nothing, Some(Finding::Lost)),
        },
        (Action::CreateDirectory(new), None) => (Step::MakeDirectory { new: *new }, None),
        // It may not be finished, or not durable.
        (Action::CreateDirectory(new), Some(Kind::Directory)) if new.mode.is_some() => {
            (Step::MakeDirectory { new: *new }, None)
        }
        (Action::CreateDirectory(_), Some(kind)) if kind != Kind::Directory => {
            return Err(root.error(Operation::Create, &entry.path)(io::ErrorKind::AlreadyExists.into()));
        }
        _ => (Step::Nothing, None),
    })
}

/// Whether a directory was renamed or removed since a file was staged in it, or replaced by a file or a
/// symlink. Then neither the staged file nor the target can be found, which does not mean that the file
/// was moved.
fn directory_is_gone(root: &Root, path: &RelativePath) -> Result<bool> {
    Ok(!root.has_directory(&path.parent())?)
}

fn removal(root: &Root, entry: &Entry, found: Option<&Metadata>) -> Result<(Step, Option<Finding>)> {
    let Some(found) = found else { return Ok((Step::Nothing, None)) };
    let is_itself = found.kind != Kind::Directory
        && (original::is_itself(root, &entry.path, entry.before.as_ref(), found)?
            || !keeps(Rule::RemoveByIdentity));
    Ok(if is_itself { (Step::Remove, None) } else { (Step::Nothing, Some(Finding::NotRemoved)) })
}

/// What is left to do if a later generation has put its file there: its own staged file is no longer
/// needed. If the original is there all the same, the later file has the same bytes.
fn superseded(root: &Root, entry: &Entry) -> Result<Step> {
    let Some(staged) = entry.staged() else { return Ok(Step::Nothing) };
    Ok(match root.look(&staged)? {
        Some(_) => Step::Unlink { staged },
        None => Step::Nothing,
    })
}

fn write(
    root: &Root,
    (entry, content): (&Entry, &StagedContent),
    (trust, is_copied): (Trust, bool),
    found: Option<&Metadata>,
) -> Result<(Step, Option<Finding>)> {
    let path = entry.path.with_name(&content.name);
    let staged = root.look(&path)?;
    if found.is_some_and(|found| found.kind == Kind::Directory) {
        return match staged {
            None => Ok((Step::Nothing, None)),
            Some(_) => Err(root.error(Operation::Move, &entry.path)(io::ErrorKind::IsADirectory.into())),
        };
    }
    let is_after = || match found {
        Some(found) => original::has_bytes(root, &entry.path, found, content.after, content.checksum),
        None => Ok(false),
    };
    let Some(staged) = staged else {
        // It was moved already, and whatever is there now is newer than this commit.
        let finding = match trust {
            Trust::Durable => Finding::ChangedSince,
            Trust::Waived => Finding::Lost,
        };
        return Ok((Step::Nothing, (!is_after()?).then_some(finding)));
    };
    let finding = match trust {
        Trust::Durable => verify(root, &path, &staged, content)?,
        Trust::Waived if original::has_bytes(root, &path, &staged, content.after, content.checksum)? => None,
        // Torn before its sync, so of no use.
        Trust::Waived => return Ok((Step::Unlink { staged: path }, Some(Finding::Lost))),
    };
    let one_file = staged.identity.is_some() && found.is_some_and(|found| found.identity == staged.identity);
    // Nobody loses anything if the file there is the original, or already has the new bytes.
    let is_nobodys = match found {
        Some(found) => {
            original::has_content(root, &entry.path, entry.before.as_ref(), found)?
                || finding.is_none() && is_after()?
        }
        None => true,
    };
    let step = match found {
        Some(_) if one_file && keeps(Rule::UnlinkAlias) => Step::Unlink { staged: path },
        // Half of our own bytes are not an edit by another program.
        Some(_) if !is_nobodys && !is_copied && keeps(Rule::SetAside) => {
            Step::SetAsideAndReplace { staged: path }
        }
        _ => Step::Replace { staged: path },
    };
    Ok((step, finding))
}

/// As `write`, for a symlink. It cannot be written to in place, so a staged one that says something else was
/// never durable, or damaged.
fn symlink(
    root: &Root,
    (entry, link): (&Entry, &StagedLink),
    trust: Trust,
    found: Option<&Metadata>,
) -> Result<(Step, Option<Finding>)> {
    let path = entry.path.with_name(&link.name);
    let is_after = found.is_some_and(|found| original::is_link(root, &entry.path, found, link));
    let Some(staged) = root.look(&path)? else {
        let finding = match trust {
            Trust::Durable => Finding::ChangedSince,
            Trust::Waived => Finding::Lost,
        };
        return Ok((Step::Nothing, (!is_after).then_some(finding)));
    };
    if found.is_some_and(|found| found.kind == Kind::Directory) {
        return Err(root.error(Operation::Move, &entry.path)(io::ErrorKind::IsADirectory.into()));
    }
    if !original::is_link(root, &path, &staged, link) {
        return match trust {
            Trust::Waived => Ok((Step::Unlink { staged: path }, Some(Finding::Lost))),
            Trust::Durable => Err(Error::corrupt(root.full(&path), "it is not the staged link")),
        };
    }
    let one_link = staged.identity.is_some() && found.is_some_and(|found| found.identity == staged.identity);
    let is_nobodys = match found {
        Some(found) => is_after || original::has_content(root, &entry.path, entry.before.as_ref(), found)?,
        None => true,
    };
    let step = match found {
        Some(_) if one_link && keeps(Rule::UnlinkAlias) => Step::Unlink { staged: path },
        Some(_) if !is_nobodys && keeps(Rule::SetAside) => Step::SetAsideAndReplace { staged: path },
        _ => Step::Replace { staged: path },
    };
    Ok((step, None))
}

/// Compares a staged file with what the manifest says about it.
///
/// A published manifest proves that the staged file was durable, so a difference has one of two causes.
/// If length or time stamp differ, another program wrote into the applied file before a power loss
/// undid the move. Its change counts, and the file is moved. If they do not differ, the medium is
/// damaged, or the program has synced its bytes without their time. Only a person can tell, who gives the file
/// a new time if it is to be moved.
fn verify(
    root: &Root,
    path: &RelativePath,
    staged: &Metadata,
    content: &StagedContent,
) -> Result<Option<Finding>> {
    if staged.kind != Kind::File {
        return Err(Error::corrupt(root.full(path), "the staged file is not a regular file"));
    }
    let checksum = match copy::checksum(root, path) {
        // Its owner may write it and not read it. Then its stamp alone identifies it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => content.checksum,
        checksum => checksum.map_err(root.error(Operation::Read, path))?,
    };
    if checksum == content.checksum {
        return Ok(None);
    }
    if Stamp::of(staged) == content.after || !keeps(Rule::DiagnoseChecksum) {
        let reason = "it has other bytes than were committed, of the same length and time: the medium is \
                      damaged, or a program wrote to it and synced its bytes alone (then `touch` it, and it is \
                      moved as it is)";
        return Err(Error::corrupt(root.full(path), reason));
    }
    Ok(Some(Finding::WrittenInPlace))
}
