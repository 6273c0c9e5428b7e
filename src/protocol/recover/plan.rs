//! What recovery will do with each entry of a published manifest, decided for
//! all entries before anything is moved. Looks, and changes nothing.

use std::collections::HashSet;
use std::io;

use super::super::copy;
use super::super::root::{Root, if_found};
use crate::error::{Error, Operation, Result};
use crate::fs::{Kind, Metadata};
use crate::manifest::{Action, Entry, StagedContent, Stamp};
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

/// An entry's path, and what to do there.
#[derive(Debug)]
pub(super) struct PlannedEntry<'a> {
    pub(super) target: &'a RelativePath,
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
}

/// Plans all entries. Adds to `findings` whatever differs from the manifest.
pub(super) fn plan<'a>(
    root: &Root,
    entries: &'a [Entry],
    trust: Trust,
    copying: &HashSet<RelativePath>,
    findings: &mut Vec<Difference>,
) -> Result<Vec<PlannedEntry<'a>>> {
    let mut planned = Vec::with_capacity(entries.len());
    for entry in entries {
        let found = look(root, &entry.path)?;
        let is_missing =
            found.is_none() && keeps(Rule::MissDirectories) && directory_is_gone(root, &entry.path)?;
        let (step, finding) = match &entry.action {
            Action::Remove if is_missing => (Step::Nothing, Some(Finding::DirectoryMissing)),
            Action::Write(_) if is_missing && trust == Trust::Durable => {
                (Step::Nothing, Some(Finding::DirectoryMissing))
            }
            Action::Remove => removal(entry, found.as_ref()),
            Action::Write(content) => {
                write(root, (entry, content), (trust, copying.contains(&entry.path)), found.as_ref())?
            }
        };
        let difference = |finding| Difference { path: entry.path.clone(), finding };
        findings.extend(finding.map(difference));
        planned.push(PlannedEntry { target: &entry.path, step });
    }
    Ok(planned)
}

fn look(root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
    if_found(root.fs.metadata(path)).map_err(root.error(Operation::Look, path))
}

/// Whether a directory was renamed or removed since a file was staged in it. Then neither the staged
/// file nor the target can be found, which does not mean that the file was moved.
fn directory_is_gone(root: &Root, path: &RelativePath) -> Result<bool> {
    Ok(look(root, &path.parent())?.is_none())
}

fn removal(entry: &Entry, found: Option<&Metadata>) -> (Step, Option<Finding>) {
    match found {
        None => (Step::Nothing, None),
        Some(found) if found.kind == Kind::Directory => (Step::Nothing, Some(Finding::NotRemoved)),
        Some(found) if Some(Stamp::of(found)) == entry.before || !keeps(Rule::RemoveByIdentity) => {
            (Step::Remove, None)
        }
        Some(_) => (Step::Nothing, Some(Finding::NotRemoved)),
    }
}

fn write(
    root: &Root,
    (entry, content): (&Entry, &StagedContent),
    (trust, is_copied): (Trust, bool),
    found: Option<&Metadata>,
) -> Result<(Step, Option<Finding>)> {
    let path = entry.path.with_name(&content.name);
    let staged = look(root, &path)?;
    if found.is_some_and(|found| found.kind == Kind::Directory) {
        return match staged {
            None => Ok((Step::Nothing, None)),
            Some(_) => Err(root.error(Operation::Move, &entry.path)(io::ErrorKind::IsADirectory.into())),
        };
    }
    let before = found.map(Stamp::of);
    let Some(staged) = staged else {
        // It was moved already, and whatever is there now is newer than this commit.
        let is_as_committed = before == Some(content.after)
            || is_copied && found.is_some() && has_bytes(root, &entry.path, content)?;
        let finding = match trust {
            Trust::Durable => (!is_as_committed).then_some(Finding::ChangedSince),
            Trust::Waived if is_as_committed && has_bytes(root, &entry.path, content)? => None,
            Trust::Waived => Some(Finding::Lost),
        };
        return Ok((Step::Nothing, finding));
    };
    let finding = match trust {
        Trust::Durable => verify(root, &path, &staged, content)?,
        Trust::Waived if staged.kind == Kind::File && has_bytes(root, &path, content)? => None,
        // Torn before its sync, so of no use.
        Trust::Waived => return Ok((Step::Unlink { staged: path }, Some(Finding::Lost))),
    };
    let one_file = staged.identity.is_some() && found.is_some_and(|found| found.identity == staged.identity);
    let step = match found {
        Some(_) if one_file && keeps(Rule::UnlinkAlias) => Step::Unlink { staged: path },
        // Half of our own bytes are not an edit by another program.
        Some(_) if before != entry.before && !is_copied && keeps(Rule::SetAside) => {
            Step::SetAsideAndReplace { staged: path }
        }
        _ => Step::Replace { staged: path },
    };
    Ok((step, finding))
}

fn has_bytes(root: &Root, path: &RelativePath, content: &StagedContent) -> Result<bool> {
    let checksum = copy::checksum(root, path).map_err(root.error(Operation::Read, path))?;
    Ok(checksum == content.checksum)
}

/// Compares a staged file with what the manifest says about it.
///
/// A published manifest proves that the staged file was durable, so a difference has one of two causes.
/// If length or time stamp differ, another program wrote into the applied file before a power loss
/// undid the move. Its change counts, and the file is moved. If they do not differ, the medium is
/// damaged.
fn verify(
    root: &Root,
    path: &RelativePath,
    staged: &Metadata,
    content: &StagedContent,
) -> Result<Option<Finding>> {
    if staged.kind != Kind::File {
        return Err(Error::corrupt(root.full(path), "the staged file is not a regular file"));
    }
    let checksum = copy::checksum(root, path).map_err(root.error(Operation::Read, path))?;
    if checksum == content.checksum {
        return Ok(None);
    }
    if Stamp::of(staged) == content.after || !keeps(Rule::DiagnoseChecksum) {
        let reason = "the staged file's checksum does not match, though no program wrote to it";
        return Err(Error::corrupt(root.full(path), reason));
    }
    Ok(Some(Finding::WrittenInPlace))
}
