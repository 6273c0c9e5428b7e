//! What a transaction does with files that exist: copies, moves, permissions.
//!
//! Each is a staged file like any other, so nothing below this module knows of
//! them, and recovery finishes them from the same manifest. A file that was
//! read from disk for this is part of the transaction's snapshot.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Transaction;
use super::trees::Occupied;
use crate::draft::{Content, Slot};
use crate::error::{Error, Operation, Reason, Result};
use crate::fs::os::{self, outside};
use crate::fs::{Kind, Metadata, ReadFile};
use crate::path::{InvalidPath, RelativePath};
use crate::place::Place;
use crate::protocol::check;
use crate::protocol::resolve::{Attributes, Target, for_any_group};
use crate::protocol::root::guard;
use crate::protocol::snapshot::{self, Found, Seen};
use crate::protocol::stage::StagedChange;
use crate::writer::FileWriter;

/// The bits that a mode can have (chmod(2)).
const MODE_BITS: u32 = 0o7777;
/// The bits of a mode that say who may read, write and execute.
const PERMISSION_BITS: u32 = 0o777;

/// A file of a transaction, before it is written: what it gets besides its bytes.
///
/// [`Transaction::file`] makes one.
#[derive(Debug)]
#[must_use = "nothing is written before `write` or `writer`"]
pub struct FileBuilder<'a> {
    transaction: &'a mut Transaction,
    path: PathBuf,
    mode: Option<u32>,
    group: Option<u32>,
}

impl FileBuilder<'_> {
    /// Gives the file this mode, whatever the umask says and whatever the file had that it replaces. It
    /// keeps the owner of the file that it replaces. If it cannot have the owner's group, its own group
    /// gets only the rights that all others have. With another owner or group it does not get the set-ID
    /// bit of that one. A system without permission bits ignores the mode.
    ///
    /// No other user can read the file before it has its mode. A save that sets a mode waits for the
    /// disk as a long one does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)]
    /// # {
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.file("key").mode(0o600).write("secret"))?;
    /// use std::os::unix::fs::PermissionsExt;
    /// assert_eq!(std::fs::metadata(dir.path().join("key"))?.permissions().mode() & 0o777, 0o600);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Says for which group the mode's bits hold. Another group gets only the rights of all others.
    pub(super) fn of_group(mut self, group: Option<u32>) -> Self {
        self.group = group;
        self
    }

    /// Stages the file with these bytes, as [`Transaction::write`] does.
    ///
    /// # Errors
    /// As for [`writer`](Self::writer).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.file("run.sh").mode(0o755).write("#!/bin/sh\n"))?;
    /// assert_eq!(std::fs::read(dir.path().join("run.sh"))?, b"#!/bin/sh\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write(self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.writer()?.fill(bytes.as_ref())
    }

    /// Stages the file with these bytes, as [`Transaction::create_new`] does: the commit is a conflict if
    /// something is at its path by then.
    ///
    /// # Errors
    /// As for [`writer`](Self::writer).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.file("key").mode(0o600).create_new("first"))?;
    /// let again = store.update(|tx| tx.file("key").mode(0o600).create_new("second"));
    /// assert!(again.unwrap_err().is_conflict());
    /// assert_eq!(std::fs::read(dir.path().join("key"))?, b"first");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_new(self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let Self { transaction, path, mode, group } = self;
        let file = FileBuilder { transaction: &mut *transaction, path: path.clone(), mode, group };
        file.write(bytes)?;
        transaction.expect_free(&path)
    }

    /// Stages the file, unless it has these bytes and this mode already, as
    /// [`Transaction::write_if_changed`] does. Returns whether it was staged.
    ///
    /// # Errors
    /// As for [`writer`](Self::writer) and [`Transaction::write_if_changed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let save = |mode| store.update(|tx| tx.file("run.sh").mode(mode).write_if_changed("#!/bin/sh\n"));
    /// assert!(*save(0o755)?.value());
    /// assert!(!*save(0o755)?.value());
    /// # #[cfg(unix)]
    /// assert!(*save(0o700)?.value());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_if_changed(self, bytes: impl AsRef<[u8]>) -> Result<bool> {
        let Self { transaction, path, mode, group } = self;
        transaction.refuse_mode(&path, mode)?;
        if transaction.has_mode(&path, mode)? && transaction.is_unchanged(&path, bytes.as_ref())? {
            return Ok(false);
        }
        FileBuilder { transaction, path, mode, group }.write(bytes)?;
        Ok(true)
    }

    /// Returns a writer of the file's bytes, as [`Transaction::writer`] does.
    ///
    /// # Errors
    /// As for [`Transaction::writer`], and [`Error::Unsupported`] if no file can have this mode.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// use std::io::Write;
    ///
    /// let mut tx = store.begin()?;
    /// let mut writer = tx.file("run.sh").mode(0o755).writer()?;
    /// writeln!(writer, "#!/bin/sh")?;
    /// writer.finish()?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("run.sh"))?, b"#!/bin/sh\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn writer(self) -> Result<FileWriter> {
        let Self { transaction, path, mode, group } = self;
        transaction.root().may_collect()?;
        transaction.refuse_mode(&path, mode)?;
        let mut target = transaction.resolve_to_stage(&path)?;
        target.attributes = guard(&transaction.draft).attributes(&target.path);
        if mode.is_some() {
            target.attributes = Attributes { mode, group, ..target.attributes };
        }
        Ok(transaction.writer_of(target))
    }
}

/// A file as a transaction would leave it, before it is copied.
struct Source {
    bytes: Bytes,
    mode: ModeModel,
    /// What it got when it was staged, if this transaction has staged it.
    attributes: Attributes,
    modified: Option<SystemTime>,
}

/// The mode that a copy gets, and whose rights it is about.
struct ModeModel {
    mode: Option<u32>,
    /// The group for which the mode's bits hold, if there is a file that has one.
    group: Option<u32>,
    /// Whether an access control list says more, of the file or of the one that a copy replaces. Then the bits of the group are those of the list's mask.
    is_listed: bool,
}

impl ModeModel {
    /// Gives the mode to a copy, without set-ID bits. A list is not copied, so what it says of the group
    /// is not known: the group then gets only the rights of all others.
    fn give(&self, attributes: &mut Attributes) {
        let mode = self.mode.map(|mode| mode & PERMISSION_BITS);
        attributes.mode = mode.map(|mode| if self.is_listed { for_any_group(mode) } else { mode });
        attributes.group = self.group;
    }
}

enum Bytes {
    InMemory(Vec<u8>),
    Staged(Box<dyn ReadFile>),
    /// From disk, as one of the transaction's reads.
    Read(RelativePath, Found),
}

impl Transaction {
    /// Begins a file that gets more than its bytes, such as a mode.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let mut tx = store.begin()?;
    /// tx.file("secret").mode(0o600).write("hunter2")?;
    /// tx.file("run.sh").mode(0o755).write("#!/bin/sh\n")?;
    /// tx.commit()?;
    /// # #[cfg(unix)]
    /// # {
    /// use std::os::unix::fs::PermissionsExt;
    /// let mode = std::fs::metadata(dir.path().join("secret"))?.permissions().mode();
    /// assert_eq!(mode & 0o777, 0o600);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn file(&mut self, path: impl AsRef<Path>) -> FileBuilder<'_> {
        FileBuilder { transaction: self, path: path.as_ref().to_path_buf(), mode: None, group: None }
    }

    /// Stages a copy of a file of the root, as this transaction would leave it. The copy has the mode that
    /// the file has now, without set-ID bits. If the copy has another group than the file, or one of
    /// them has an access control list, the copy's group gets only the rights that all others have. The copy
    /// replaces any file at `to`, and has the owner of that file. Where the file system can share blocks
    /// between files, a long file is not copied byte by byte. A symlink at `from` or `to` is followed: the
    /// file that it leads to is copied or replaced. To copy the symlink itself, give what
    /// [`read_link`](Self::read_link) says to [`symlink`](Self::symlink).
    ///
    /// `from` counts as read: the commit is a [`Conflict`](Error::Conflict) if it has changed by then, or is
    /// there where nothing was.
    ///
    /// # Errors
    /// - [`Error::InvalidPath`] if no file can be read at `from` or written at `to`, or if they are one.
    /// - [`Error::Io`], of kind `NotFound` if there is no file at `from`, or if staging fails.
    /// - [`Error::Conflict`] as for [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("settings", "old"))?;
    /// let mut tx = store.begin()?;
    /// tx.copy("settings", "settings.bak")?;
    /// tx.write("settings", "new")?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("settings.bak"))?, b"old");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        self.root().may_collect()?;
        let source = self.resolve(from.as_ref())?;
        let mut target = self.resolve_to_stage(to.as_ref())?;
        self.refuse_itself(&source, &target)?;
        let mut source = self.source(&source)?;
        source.mode.is_listed |= self.model(&target)?.is_listed;
        source.mode.give(&mut target.attributes);
        self.stage_copy(source, target)?.finish()
    }

    /// Stages a copy of any file of the system, inside the root or outside. The copy has its mode as in
    /// [`copy`](Self::copy). Where the file system can share blocks between files, a long file is not
    /// copied byte by byte.
    ///
    /// Nothing notices if `source` changes while it is copied. For a file of the root use
    /// [`copy`](Self::copy).
    ///
    /// # Errors
    /// As for [`write`](Self::write), and [`Error::Io`] if `source` cannot be read. That is so for anything
    /// but a file, such as a pipe, which is not even opened.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # let source = dir.path().join("outside");
    /// # std::fs::write(&source, "bytes")?;
    /// let mut tx = store.begin()?;
    /// tx.copy_from("vendor/file", &source)?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("vendor/file"))?, b"bytes");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy_from(&mut self, path: impl AsRef<Path>, source: impl AsRef<Path>) -> Result<()> {
        self.root().may_collect()?;
        let source = source.as_ref();
        let unread = |error| Error::io(Operation::Read, source)(error);
        let mut file = outside::open_regular(source).map_err(unread)?;
        let found = os::metadata(&file).map_err(unread)?;
        let mut target = self.resolve_to_stage(path.as_ref())?;
        let is_listed = outside::is_listed(&file).map_err(unread)? || self.model(&target)?.is_listed;
        let model = ModeModel { mode: Some(found.mode), group: Some(found.owner.1), is_listed };
        model.give(&mut target.attributes);
        let mut writer = self.writer_of(target);
        if let Err(error) = writer.copy(&mut file, |file| Some(file), found.length, unread) {
            writer.discard();
            return Err(error);
        }
        writer.finish()
    }

    /// Moves a file, or a directory with everything in it.
    ///
    /// A file replaces any file at `to`. It keeps its mode, its access control list, its time
    /// stamp, and its owner if the system allows it. With another owner or group it loses the set-ID bit of
    /// that one. Other programs see it at both paths for a moment, and never at none. Views see it at one.
    ///
    /// The new file is a staged copy, which shares its blocks with the old one where the file system can.
    /// So a long file takes its time before the commit, and hard links to it stay where they are.
    ///
    /// Moves of one transaction build on each other: two files are swapped by way of a third name, which
    /// then is never made. `from` counts as read, as in [`copy`](Self::copy).
    ///
    /// A directory is moved by one rename, however much is in it. Other programs see it at one of the two
    /// paths. Nothing may be at `to` but a file or a symlink that this transaction has removed. See
    /// [`replace_dir`](Self::replace_dir) for another directory there, and for what holds for all
    /// changes of whole directories.
    ///
    /// # Errors
    /// As for [`copy`](Self::copy), and [`Error::InvalidPath`] if `from` or `to` is a symlink, or if
    /// `from` cannot be removed. For a directory, as for [`replace_dir`](Self::replace_dir), and
    /// [`Error::Io`], of kind `AlreadyExists` if something is at `to`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| { tx.write("a", "1")?; tx.write("b", "2") })?;
    /// let mut tx = store.begin()?;
    /// tx.rename("a", "swap")?;
    /// tx.rename("b", "a")?;
    /// tx.rename("swap", "b")?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("a"))?, b"2");
    /// assert_eq!(std::fs::read(dir.path().join("b"))?, b"1");
    /// assert!(!dir.path().join("swap").exists());
    ///
    /// // A directory, which takes the place of a file.
    /// std::fs::create_dir(dir.path().join("a.new"))?;
    /// std::fs::write(dir.path().join("a.new/1"), "2")?;
    /// let mut tx = store.begin()?;
    /// tx.remove("a")?;
    /// tx.rename("a.new", "a")?;
    /// tx.commit()?;
    /// assert_eq!(std::fs::read(dir.path().join("a/1"))?, b"2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rename(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        self.root().may_collect()?;
        if self.is_tree(from)? {
            return self.move_tree(from, to, Occupied::Refused).map_err(|error| self.named(error));
        }
        let source = self.resolve_to_remove(from)?;
        let mut target = self.resolve_to_stage(to)?;
        self.refuse_itself(&source, &target)?;
        self.refuse_link(from)?;
        self.refuse_link(to)?;
        check::may_remove(self.root(), &source).map_err(|error| self.named(error))?;
        let moved = self.source(&source)?;
        target.attributes = Attributes {
            mode: moved.attributes.mode,
            model: moved.attributes.model.clone().or_else(|| source.existing.map(|_| source.path.clone())),
            modified: moved.modified,
            group: moved.attributes.group,
        };
        self.stage_copy(moved, target)?.finish()?;
        let mut draft = guard(&self.draft);
        draft.take(&source.path, u64::MAX);
        if source.existing.is_some() {
            draft.numbers += 1;
            let number = draft.numbers;
            let path = source.path.clone();
            draft.put(Slot { path, number, content: Content::Ready(StagedChange::Remove(source)) });
        }
        Ok(())
    }

    /// Gives a file this mode. It is a staged copy with the new mode, which keeps the file's time stamp:
    /// a mode that is changed in place could not be undone. See [`FileBuilder::mode`] for owners and
    /// groups, and [`copy`](Self::copy) for what is read. The mode of a directory cannot be changed:
    /// [`directory`](Self::directory) makes one with a mode.
    ///
    /// # Errors
    /// As for [`copy`](Self::copy), [`Error::InvalidPath`] for a directory, and [`Error::Unsupported`] if no
    /// file can have this mode.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// # store.update(|tx| tx.write("run.sh", "#!/bin/sh\n"))?;
    /// let mut tx = store.begin()?;
    /// tx.set_permissions("run.sh", 0o755)?;
    /// tx.commit()?;
    /// # #[cfg(unix)]
    /// # {
    /// use std::os::unix::fs::PermissionsExt;
    /// let mode = std::fs::metadata(dir.path().join("run.sh"))?.permissions().mode();
    /// assert_eq!(mode & 0o777, 0o755);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_permissions(&mut self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        self.root().may_collect()?;
        self.refuse_mode(path.as_ref(), Some(mode))?;
        let mut target = self.resolve_to_stage(path.as_ref())?;
        let source = self.source(&target)?;
        let model = source.attributes.model.clone();
        target.attributes = Attributes { mode: Some(mode), model, modified: source.modified, group: None };
        self.stage_copy(source, target)?.finish()
    }

    /// The file at a path, as this transaction would leave it.
    fn source(&self, target: &Target) -> Result<Source> {
        self.find_source(target).map_err(|error| self.named(error))
    }

    fn find_source(&self, target: &Target) -> Result<Source> {
        let path = &target.path;
        let failed = |error| self.root().error(Operation::Read, path)(error);
        let path = &self.on_disk(path).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let staged = {
            let draft = guard(&self.draft);
            match draft.newest(path).map(|slot| &slot.content) {
                Some(Content::Kept(file)) => {
                    let attributes = file.target.attributes.clone();
                    let model = self.model(&file.target)?;
                    let mode = ModeModel { mode: attributes.mode.or(model.mode), ..model };
                    let modified = attributes.modified;
                    let bytes = Bytes::InMemory(file.bytes.clone());
                    return Ok(Source { bytes, mode, attributes, modified });
                }
                Some(Content::Ready(StagedChange::Write(file))) => {
                    Some((file.staged.clone(), file.target.attributes.clone()))
                }
                Some(Content::Ready(change)) if change.makes_directory() => {
                    return Err(Error::invalid(self.root().full(path), InvalidPath::Directory));
                }
                Some(Content::Link(_) | Content::Ready(StagedChange::Link(_))) => {
                    return Err(Error::invalid(self.root().full(path), InvalidPath::Symlink));
                }
                Some(Content::Ready(_)) => return Err(failed(io::ErrorKind::NotFound.into())),
                Some(Content::Open | Content::Unfinished) => {
                    return Err(Error::Unfinished { path: self.root().full(path).into() });
                }
                None => None,
            }
        };
        if let Some((staged, attributes)) = staged {
            let file = self.root().fs.open(&staged).map_err(failed)?;
            let found = file.metadata().map_err(failed)?;
            let is_listed = self.root().fs.has_access_list(&staged).map_err(failed)?;
            let mode = ModeModel { mode: Some(found.mode), group: Some(found.owner.1), is_listed };
            let modified = attributes.modified;
            return Ok(Source { bytes: Bytes::Staged(file), mode, attributes, modified });
        }
        let reading = self.join()?;
        let Some(found) = snapshot::find(self.root(), &reading, path)? else {
            // Others may make it before the commit.
            guard(&self.snapshot).remember(self.root(), path, Seen::nothing())?;
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let modified = Some(found.metadata.modified);
        let is_listed = self.root().fs.has_access_list(path).map_err(failed)?;
        let Metadata { mode, owner: (_, group), .. } = found.metadata;
        let mode = ModeModel { mode: Some(mode), group: Some(group), is_listed };
        let bytes = Bytes::Read(path.clone(), found);
        Ok(Source { bytes, mode, attributes: Attributes::default(), modified })
    }

    /// The mode of the file whose permissions a staged file will get.
    fn model(&self, target: &Target) -> Result<ModeModel> {
        let model = target.attributes.model.as_ref().unwrap_or(&target.path);
        let found = self.root().look(model)?.filter(|found| found.kind == Kind::File);
        let is_listed = match found {
            Some(_) => self.root().fs.has_access_list(model),
            None => Ok(false),
        };
        let is_listed = is_listed.map_err(self.root().error(Operation::Read, model))?;
        Ok(ModeModel {
            mode: found.map(|found| found.mode),
            group: found.map(|found| found.owner.1),
            is_listed,
        })
    }

    /// Stages a copy. What was read for it becomes one of the transaction's reads.
    fn stage_copy(&mut self, source: Source, target: Target) -> Result<FileWriter> {
        let mut writer = self.writer_of(target);
        match self.fill(&mut writer, source.bytes) {
            Ok(()) => Ok(writer),
            Err(error) => {
                writer.discard();
                Err(error)
            }
        }
    }

    fn fill(&self, writer: &mut FileWriter, bytes: Bytes) -> Result<()> {
        match bytes {
            Bytes::InMemory(bytes) => writer.take(&bytes),
            Bytes::Staged(mut file) => {
                let path = writer.full_path();
                let length = file.metadata().map_err(Error::io(Operation::Read, &path))?.length;
                let unread = Error::io(Operation::Read, path);
                writer.copy(&mut *file, |file| file.system_file(), length, unread).map(drop)
            }
            Bytes::Read(path, mut found) => {
                let length = found.metadata.length;
                let unread = self.root().error(Operation::Read, &path);
                let checksum = writer.copy(&mut *found.file, |file| file.system_file(), length, unread)?;
                guard(&self.snapshot).remember(self.root(), &path, found.seen(checksum))
            }
        }
    }

    /// Whether a file has a mode that is wanted. Then it must still have it at the commit.
    fn has_mode(&self, path: &Path, mode: Option<u32>) -> Result<bool> {
        let Some(mode) = mode.filter(|_| self.root().fs.has_modes()) else { return Ok(true) };
        match self.metadata(path) {
            Ok(found) => Ok(found.mode() == Some(mode)),
            // There is no such file.
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn refuse_mode(&self, path: &Path, mode: Option<u32>) -> Result<()> {
        if mode.is_none_or(|mode| mode & !MODE_BITS == 0) {
            return Ok(());
        }
        let reason = Reason::Mode;
        let place = Place::from(self.root().path().join(path)).given_as(path);
        Err(Error::Unsupported { path: place, reason })
    }

    /// Refuses a path whose last name is a symlink.
    fn refuse_link(&self, given: &Path) -> Result<()> {
        let Some(link) = self.find_link(given)? else { return Ok(()) };
        let place = Place::from(self.root().full(&link.path)).given_as(given);
        Err(Error::invalid(place, InvalidPath::Symlink))
    }

    fn refuse_itself(&self, source: &Target, target: &Target) -> Result<()> {
        if source.path == target.path {
            return Err(self.named(Error::invalid(self.root().full(&target.path), InvalidPath::Itself)));
        }
        Ok(())
    }
}
