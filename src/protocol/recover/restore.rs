//! Restores the staged files that a power loss took of a small save, from the
//! bytes in the manifest. From then on recovery finds what it finds after a long
//! save.
//!
//! A staged file that is gone proves nothing here. If its target is as it was
//! before, the power was lost in the wave of the commit point. If its target is
//! as it should be, it was moved. Anything else was done by another program.

use std::io::Write as _;
use std::time::SystemTime;

use super::super::control::Control;
use super::super::layout::{self, StagedId};
use super::super::mounts;
use super::super::original;
use super::super::pending;
use super::super::root::Root;
use super::plan::{Named, Trust};
use super::{rewrite, set_aside};
use crate::error::{Operation, Result};
use crate::fs::{Barrier, Kind, Metadata, NewFile, SET_ID, Wave};
use crate::generation::Generation;
use crate::manifest::{Action, Entry, Manifest, StagedContent, Stamp, TimeStamp};
use crate::mutation::{Rule, keeps};
use crate::path::RelativePath;
use crate::report::{Difference, Finding};

/// What a power loss can have taken of small saves.
#[derive(Debug)]
pub(crate) struct Lost<'a> {
    root: &'a Root,
    control: &'a Control,
    named: Named,
    /// The first generation of the newest wave. Everything of earlier ones was durable before this wave
    /// began.
    newest_wave: Option<Generation>,
}

impl<'a> Lost<'a> {
    pub(crate) fn new(
        root: &'a Root,
        control: &'a Control,
        manifests: &[(Generation, Result<Manifest>)],
    ) -> Self {
        let newest = manifests.iter().rev().find_map(|(_, manifest)| manifest.as_ref().ok());
        let newest_wave = newest.and_then(|manifest| manifest.inline.as_ref()).map(|inline| inline.wave);
        Self { root, control, named: Named::new(manifests, |_| Trust::Durable), newest_wave }
    }

    /// Whether files of this manifest can be lost: its writer is dead, and may have died in its wave.
    fn may_be(&self, generation: Generation, manifest: &Manifest) -> bool {
        let is_of_newest = self.newest_wave.is_some_and(|first| first <= generation);
        manifest.has_contents()
            && is_of_newest
            && !self.control.is_in_place(self.root, generation)
            && pending::is_orphaned(self.root, self.control, generation, manifest)
    }

    /// Whether the content of an entry is in its manifest alone.
    pub(crate) fn is_lost(
        &self,
        generation: Generation,
        manifest: &Manifest,
        (index, entry): (usize, &Entry),
    ) -> Result<bool> {
        Ok(self.may_be(generation, manifest)
            && self.is_gone_or_torn((generation, manifest), (index, entry))?)
    }

    /// Restores the staged files that `manifest` has the bytes of. Returns the debts of their names. Adds to
    /// `differences` what another program had written to one of them.
    pub(super) fn restore(
        &self,
        generation: Generation,
        manifest: &Manifest,
        differences: &mut Vec<Difference>,
    ) -> Result<Wave> {
        let mut names = Wave::new(Barrier::Inherited);
        if !self.may_be(generation, manifest) || !keeps(Rule::RestoreStaged) {
            return Ok(names);
        }
        let root = self.root;
        let mut restored = Vec::new();
        let mut wave = Wave::new(Barrier::Restored);
        let transaction = rewrite::own_transaction(root, manifest);
        let writer = root.look(&self.control.published(generation))?.map(|found| found.owner);
        for ((index, (entry, bytes)), number) in manifest.contents().enumerate().zip(0..) {
            let (Action::Write(content), Some(bytes)) = (&entry.action, bytes) else { continue };
            // Nothing is lost of what is on a file system that is not mounted now.
            let is_lost = self.is_gone_or_torn((generation, manifest), (index, entry))?;
            if is_lost && !mounts::is_away(root, &manifest.mounts, entry)? {
                let id = StagedId { transaction, number };
                let fresh = layout::staged(&entry.path.parent(), entry.path.name(), id);
                let staged = entry.path.with_name(&content.name);
                if is_edited(root, &staged, bytes)? && keeps(Rule::KeepEdited) {
                    let kept = set_aside::second_name(root, generation, (&entry.path, &staged), &mut wave)?;
                    let finding = Finding::SetAside(kept);
                    differences.push(Difference { path: entry.path.clone(), finding });
                }
                write(root, (entry, content, writer), bytes, &fresh, &mut wave)?;
                restored.push((fresh, staged));
                root.sync_if_full(&mut wave, Barrier::Restored)?;
            }
        }
        // Lost without this sync: the bytes of a restored file behind its staged name. It would be
        // younger than the manifest says, so the next recovery would take it for another program's. Also lost:
        // the second name of what another program has written.
        let _durable = root.sync_always(wave)?;
        for (fresh, staged) in restored {
            names.add(root.fs.rename(&fresh, &staged).map_err(root.error(Operation::Stage, &staged))?);
        }
        Ok(names)
    }

    fn is_gone_or_torn(
        &self,
        (generation, manifest): (Generation, &Manifest),
        (index, entry): (usize, &Entry),
    ) -> Result<bool> {
        let Action::Write(content) = &entry.action else { return Ok(false) };
        let (root, target) = (self.root, &entry.path);
        let path = target.with_name(&content.name);
        if let Some(staged) = root.look(&path)? {
            // A file that was changed after it was staged was in place for a while. Then a program wrote
            // to it, and a power loss has undone the move.
            let is_own = Stamp::of(&staged).modified <= content.after.modified || !keeps(Rule::LeaveWritten);
            return Ok(staged.kind == Kind::File && is_own && !is_after(root, &path, &staged, content)?);
        }
        match root.look(target)? {
            Some(found) if is_after(root, target, &found, content)? => Ok(false),
            Some(found) => Ok(is_older(&found, content)
                || self.is_kept(layout::kept(generation, manifest.transaction, index), &found)?
                || original::is_itself(root, target, entry.before.as_ref(), &found)?
                || self.named.was(root, generation, target, &found)?),
            // Somebody may have removed it. Or the power loss took it, because others had made it just before
            // the commit. The committed file takes its place either way, as after a long save. But a missing
            // directory was renamed or removed by another program: those of a small save were durable before
            // it.
            None => root.has_directory(&target.parent()),
        }
    }

    /// Whether a file is the very one that the commit has kept by a link, so that it is the original, whatever
    /// a power loss has made of it. The link has changed its times.
    fn is_kept(&self, kept: RelativePath, found: &Metadata) -> Result<bool> {
        if found.identity.is_none() || !self.control.has(layout::HISTORY) || !keeps(Rule::KnowKept) {
            return Ok(false);
        }
        Ok(self.root.look(&kept)?.is_some_and(|kept| kept.identity == found.identity))
    }
}

/// Whether another program has written to a staged file while it was in place. A file that a power loss tore
/// has some of our bytes, and zeros where they are missing. A program can have synced its bytes without their
/// time (fdatasync(2), `O_DSYNC` and msync(2) on ext4), so the time tells nothing.
fn is_edited(root: &Root, staged: &RelativePath, ours: &[u8]) -> Result<bool> {
    let Some(found) = root.read(staged)? else { return Ok(false) };
    let is_foreign = |(found, ours): (&u8, &u8)| found != ours && *found != 0;
    Ok(found.len() == ours.len() && found.iter().zip(ours).any(is_foreign))
}

fn is_after(root: &Root, path: &RelativePath, found: &Metadata, content: &StagedContent) -> Result<bool> {
    original::has_bytes(root, path, found, content.after, content.checksum)
}

/// Whether a file has not changed in any respect since the staged file was written. So it is no edit of
/// what was in place: the power loss has undone what others did before the commit. No program can set
/// this time back.
fn is_older(found: &Metadata, content: &StagedContent) -> bool {
    let is_older = |changed: SystemTime| TimeStamp::from(changed) < content.after.modified;
    found.kind == Kind::File && found.changed.is_some_and(is_older)
}

/// The owner and group that a restored file gets. The administrator can give a file to anybody, others can
/// name anybody in a manifest. So only the administrator's own manifest is believed. A file of any other
/// belongs to whoever the manifest belongs to, in this group or in that of a new file here.
fn believed(named: (u32, u32), new_file: (u32, u32), writer: Option<(u32, u32)>) -> (u32, u32) {
    const ADMINISTRATOR: u32 = 0;
    match writer {
        Some((ADMINISTRATOR, _)) => named,
        Some((user, _)) if named.1 == new_file.1 => (user, named.1),
        Some(writer) => writer,
        None => new_file,
    }
}

/// Writes a file with the permissions that the lost one had.
///
/// A manifest can be forged. If an administrator recovers it, a set-user-ID bit would make a program of
/// the forger run with the rights of its owner. So no such bit is ever set here, and a file that has one
/// is never in a manifest.
fn write(
    root: &Root,
    (entry, content, writer): (&Entry, &StagedContent, Option<(u32, u32)>),
    bytes: &[u8],
    fresh: &RelativePath,
    wave: &mut Wave,
) -> Result<()> {
    let failed = |error| root.error(Operation::Stage, &entry.path)(error);
    // Nobody else can open it until it has its own permissions, which can be narrower than those of a new file.
    let (mut file, name) = root.fs.create_new(fresh, NewFile::Private).map_err(failed)?;
    wave.add(name);
    file.write_all(bytes).map_err(failed)?;
    let (model, like) = match root.look(&entry.path)?.filter(|found| found.kind == Kind::File) {
        Some(existing) => (&entry.path, existing),
        None => {
            let own = root.fs.metadata(fresh).map_err(failed)?;
            let owner = content.owner.map_or(own.owner, |named| believed(named, own.owner, writer));
            // Its own access list is the one that its directory gives to a new file.
            (fresh, Metadata { mode: content.mode, owner, ..own })
        }
    };
    let like = Metadata { mode: like.mode & !SET_ID, ..like };
    file.copy_permissions(model, &like).map_err(failed)?;
    wave.add(file.finish().map_err(failed)?.1);
    Ok(())
}
