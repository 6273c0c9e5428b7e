//! Symlinks that a transaction makes, replaces and removes.
//!
//! A symlink is staged like a file, and is moved into place with one rename.
//! Where it leads to is never looked at.

use std::io;
use std::path::{Path, PathBuf};

use super::Transaction;
use crate::draft::built::WithoutGone;
use crate::draft::{Content, Draft, Slot};
use crate::error::{Error, Operation, Result};
use crate::fs::Kind;
use crate::manifest::StagedLink;
use crate::mutation::{Rule, keeps};
use crate::path::{InvalidPath, RelativePath};
use crate::protocol::check;
use crate::protocol::glance::{Answer, Question};
use crate::protocol::resolve::{self, Target};
use crate::protocol::root::guard;
use crate::protocol::stage::{KeptLink, StagedChange};

impl Transaction {
    /// Makes a symlink at `path` that leads to `to`, in place of any file or symlink there. Programs see
    /// the old one or the new one, and never none. What a replaced symlink leads to stays as it is.
    ///
    /// `to` is written into the symlink as it is. It may be absolute or relative to the symlink's directory,
    /// may lead out of the root, and need not exist. Other programs follow it wherever it leads. This library
    /// follows none out of the root.
    ///
    /// The symlink leads somewhere only after the commit. Until then a path that goes through it is refused,
    /// and so is a path through one that the transaction removes. [`write`](Self::write) follows a
    /// symlink. But at a path where the transaction has made or removed one, the last change counts: a
    /// write puts a file there. So [`remove`](Self::remove) and `write` replace a symlink by a file.
    ///
    /// A save with symlinks waits for the disk as a long one does. There is no way to make one on Windows.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if no symlink can be at `path`, for example because a directory is there.
    ///   Also if `to` is empty, longer than 4095 bytes, or has a NUL.
    /// - [`Error::Unsupported`] on Windows.
    /// - [`Error::Io`] if `path` may not be written.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)]
    /// # {
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.write("releases/2/app", "new")?;
    /// tx.symlink("current", "releases/2")?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("current/app"))?, b"new");
    /// assert_eq!(store.view()?.read_link("current")?, std::path::Path::new("releases/2"));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn symlink(&mut self, path: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (path, to) = (path.as_ref(), to.as_ref());
        self.root().may_collect()?;
        refuse_text(to)?;
        let target = self.resolve_name(path)?;
        let is_made = |slot: &Slot| matches!(slot.content, Content::Ready(StagedChange::CreateDirectory(_)));
        if guard(&self.draft).newest(&target.path).is_some_and(is_made) {
            return Err(self.named(Error::invalid(self.root().full(&target.path), InvalidPath::Directory)));
        }
        self.refuse_contradiction(&target.path)?;
        check::may_link(self.root(), &target).map_err(|error| self.named(error))?;
        let mut draft = guard(&self.draft);
        draft.take(&target.path, u64::MAX);
        draft.resolver.own_link(&target.path);
        draft.keep_link(KeptLink { target, to: to.to_path_buf() });
        Ok(())
    }

    /// Where the symlink at `path` leads to, as written in it. The symlink itself is not followed, those
    /// above it are. It counts as read: if it leads elsewhere by then, the commit is a conflict.
    ///
    /// # Errors
    /// As for [`read`](Self::read), with kind `NotFound` if nothing is there, and `InvalidInput` if it is no
    /// symlink.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)]
    /// # {
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.symlink("current", "releases/6"))?;
    /// store.update(|tx| match tx.read_link("current")?.ends_with("6") {
    ///     true => tx.symlink("current", "releases/7"),
    ///     false => Ok(()),
    /// })?;
    /// assert_eq!(store.view()?.read_link("current")?, std::path::Path::new("releases/7"));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.resolve_name(path.as_ref())?.path;
        let failed = |kind: io::ErrorKind| self.named(self.root().error(Operation::Read, &path)(kind.into()));
        match guard(&self.draft).newest(&path).map(|slot| &slot.content) {
            Some(Content::Link(link)) => return Ok(link.to.clone()),
            Some(Content::Ready(StagedChange::Link(link))) => return Ok(link.to.clone()),
            Some(Content::Ready(StagedChange::Remove(_))) => return Err(failed(io::ErrorKind::NotFound)),
            Some(_) => return Err(failed(io::ErrorKind::InvalidInput)),
            None => {}
        }
        let path = self.on_disk(&path).ok_or_else(|| failed(io::ErrorKind::NotFound))?;
        match (self.glance(&path, Question::Link)?, self.glance(&path, Question::Kind)?) {
            (Answer::Link(Some(to)), _) => Ok(to),
            (_, Answer::Kind(None)) => Err(failed(io::ErrorKind::NotFound)),
            _ => Err(failed(io::ErrorKind::InvalidInput)),
        }
    }

    /// The name itself, if it is that of a symlink on disk.
    pub(super) fn link_on_disk(&self, path: &Path) -> Result<Option<RelativePath>> {
        if resolve::is_root(self.root(), path) {
            return Ok(None);
        }
        let target = match self.resolve_name(path) {
            // What is wrong with the path is said by whoever resolves it as that of a file.
            Err(Error::InvalidPath { .. }) => return Ok(None),
            target => target?,
        };
        Ok(target.existing.is_some_and(|found| found.kind == Kind::Symlink).then_some(target.path))
    }

    /// A path whose last name is not followed if it is a symlink.
    pub(super) fn resolve_name(&self, path: &Path) -> Result<Target> {
        self.root().refuse_child()?;
        let relative = resolve::relative(self.root(), path)?;
        let mut draft = guard(&self.draft);
        self.refuse_if_over(&draft)?;
        let mut resolver = std::mem::take(&mut draft.resolver);
        let resolved = resolver.resolve_name(self.root(), &WithoutGone(&draft), &relative);
        draft.resolver = resolver;
        self.note_followed(&mut draft);
        let mut target = resolved.map_err(|error| match draft.forbids(&relative) {
            Some(reason) => Error::invalid(path, reason),
            None => error.given_as(path),
        })?;
        if draft.clears(&target.path) {
            target.existing = None;
        }
        drop(draft);
        self.note(&target.path, path);
        Ok(target)
    }

    /// The symlink at a path, if there is one, on disk or in this transaction.
    pub(super) fn find_link(&self, path: &Path) -> Result<Option<Target>> {
        let target = match self.resolve_name(path) {
            // What is wrong with the path is said by whoever resolves it as that of a file.
            Err(Error::InvalidPath { .. }) => return Ok(None),
            target => target?,
        };
        let is_link = match guard(&self.draft).newest(&target.path).map(|slot| &slot.content) {
            Some(content) => {
                let is_own = matches!(content, Content::Link(_) | Content::Ready(StagedChange::Link(_)));
                let is_removal = matches!(content, Content::Ready(StagedChange::Remove(_)));
                is_own || is_removal && target.existing.is_some_and(|found| found.kind == Kind::Symlink)
            }
            None => target.existing.is_some_and(|found| found.kind == Kind::Symlink),
        };
        Ok(is_link.then_some(target))
    }

    /// Makes the symlinks that were followed part of what the transaction has read.
    pub(super) fn note_followed(&self, draft: &mut Draft) {
        let followed = draft.resolver.take_followed();
        if followed.is_empty() || !keeps(Rule::RememberLinks) {
            return;
        }
        let mut snapshot = guard(&self.snapshot);
        // It is compared where it is until the commit.
        let followed = followed.into_iter().filter_map(|(link, to)| Some((draft.on_disk(&link)?, to)));
        followed.for_each(|(link, to)| snapshot.follow(link, to));
    }
}

fn refuse_text(to: &Path) -> Result<()> {
    let bytes = to.as_os_str().as_encoded_bytes();
    let reason = match bytes {
        _ if StagedLink::can_lead(to) => return Ok(()),
        [] => InvalidPath::Empty,
        _ if bytes.contains(&0) => InvalidPath::Nul,
        _ => InvalidPath::TooLong,
    };
    Err(Error::invalid(to, reason))
}
