//! What a draft makes below the paths of files that go. A directory takes the
//! place of each of these, and is built beside it (`protocol::built`).
//!
//! Knows where each is built. Until something is staged that is nowhere, so a plan
//! needs no disk.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Content, Draft, Slot};
use crate::error::Result;
use crate::fs::Metadata;
use crate::generation::TransactionId;
use crate::path::RelativePath;
use crate::protocol::built;
use crate::protocol::layout::{self, StagedId};
use crate::protocol::resolve::{Lookup, OnDisk, Target};
use crate::protocol::root::Root;
use crate::protocol::stage::StagedChange;

fn makes_empty_directory(slot: &Slot) -> bool {
    matches!(slot.content, Content::Ready(StagedChange::CreateDirectory(_)))
}

impl Draft {
    /// Whether the file or symlink at a path goes, so that a directory can take its place.
    pub(crate) fn is_gone(&self, path: &RelativePath) -> bool {
        self.building.gone.contains(path)
    }

    /// Whether a directory takes the place of the file at a path.
    pub(crate) fn becomes_directory(&self, path: &RelativePath) -> bool {
        self.is_gone(path) && (self.makes_below(path) || self.newest(path).is_some_and(makes_empty_directory))
    }

    /// Whether a path lies below that of a file that goes. Nothing of it is on disk.
    pub(crate) fn is_built(&self, path: &RelativePath) -> bool {
        !self.building.gone.is_empty() && path.parent().chain().iter().any(|above| self.is_gone(above))
    }

    /// Takes the last change of a path, if that makes an empty directory in the place of a file.
    pub(crate) fn take_built(&mut self, path: &RelativePath) -> bool {
        let newest = self.newest(path).filter(|slot| self.is_gone(path) && makes_empty_directory(slot));
        let number = newest.map(|slot| slot.number);
        number.and_then(|number| self.remove(number)).is_some()
    }

    /// The same target, with the place where it is staged. That is known once something is.
    pub(super) fn placed(&self, target: &Target) -> Target {
        Target { site: self.building.site(&target.path), ..target.clone() }
    }

    /// Decides where each directory is built, and returns those in which something is staged for that.
    pub(super) fn choose_sites(&mut self, transaction: TransactionId) -> BTreeSet<RelativePath> {
        let mut needed = BTreeSet::new();
        let ways = self.building.gone.iter().filter(|path| self.becomes_directory(path));
        for way in ways.cloned().collect::<Vec<_>>() {
            if !self.building.sites.contains_key(&way) {
                let site = self.beside(&way, transaction);
                self.building.sites.insert(way.clone(), site);
            }
            needed.insert(way.parent());
            for number in self.numbers_in(&way) {
                self.place(number, &mut needed);
            }
        }
        needed
    }

    /// All slots of a path and of those below it, also the superseded ones.
    fn numbers_in(&self, way: &RelativePath) -> Vec<u64> {
        let from = self.numbers_of.range(way.clone()..);
        let all = from.take_while(|(path, _)| path.as_path().starts_with(way.as_path()));
        all.flat_map(|(_, numbers)| numbers).copied().collect()
    }

    /// A name for something beside a path, of which a sweep leaves nothing.
    fn beside(&mut self, path: &RelativePath, transaction: TransactionId) -> RelativePath {
        self.numbers += 1;
        layout::staged(&path.parent(), path.name(), StagedId { transaction, number: self.numbers })
    }

    fn place(&mut self, number: u64, needed: &mut BTreeSet<RelativePath>) {
        let Some(slot) = self.slots.get_mut(&number) else { return };
        let Some(site) = self.building.site(&slot.path) else { return };
        let target = match &mut slot.content {
            Content::Kept(file) => &mut file.target,
            Content::Link(link) => &mut link.target,
            Content::Ready(StagedChange::CreateDirectory(target)) => {
                needed.insert(site.clone());
                target
            }
            Content::Open | Content::Unfinished => {
                needed.insert(site.parent());
                return;
            }
            // It has its place.
            Content::Ready(_) => return,
        };
        needed.insert(site.parent());
        target.site = Some(site);
    }

    /// Ends what is built, when everything in it is staged.
    pub(crate) fn finish_building(&mut self, root: &Root, transaction: TransactionId) -> Result<()> {
        self.building.moves.clear();
        let ways = self.building.gone.iter().filter(|path| self.becomes_directory(path));
        for way in ways.cloned().collect::<Vec<_>>() {
            for number in self.numbers_in(&way) {
                let slot = self.slots.get_mut(&number).map(|slot| &mut slot.content);
                if let (Some(Content::Ready(change)), Some(staging)) = (slot, &mut self.staging) {
                    built::name(root, staging, change)?;
                }
            }
            let hidden = self.beside(&way, transaction).name().to_owned();
            if let Some(site) = self.building.sites.get(&way) {
                let moved = built::as_moved(root, site, &way, hidden)?;
                self.building.moves.insert(way, moved);
            }
        }
        Ok(())
    }
}

/// The names that the disk has, without the files that go.
pub(crate) struct WithoutGone<'a>(pub(crate) &'a Draft);

impl Lookup for WithoutGone<'_> {
    fn look(&self, root: &Root, path: &RelativePath) -> Result<Option<Metadata>> {
        OnDisk.look(root, path)
    }

    fn link(&self, root: &Root, path: &RelativePath) -> Result<PathBuf> {
        OnDisk.link(root, path)
    }

    fn makes_way(&self, path: &RelativePath) -> bool {
        self.0.is_gone(path)
    }
}
