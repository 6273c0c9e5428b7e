//! The state of a simulated disk: what programs see, what survives a power
//! loss, and the operations in between.
//!
//! Every directory has two maps of names: one that programs see, and one that
//! is durable. Every file has two contents in the same way. A change of names
//! shows in the visible map at once. It stays in an ordered log until a sync,
//! or luck, makes it durable. Knows nothing of processes, errors or time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::plan::{Granularity, Model};
use crate::fs::Kind;
use crate::path::RelativePath;

/// An inode's number; 0 is the root.
pub(super) type Number = u32;

/// The names in a directory.
pub(super) type Names = BTreeMap<Arc<OsStr>, Number>;

/// A file's content with the attributes that are synced with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) modified: u64,
    pub(super) mode: u32,
}

/// What an inode is.
#[derive(Clone, Debug)]
pub(super) enum Body {
    File {
        visible: Data,
        durable: Option<Data>,
        /// A failed sync has dropped the file's new bytes, but the cache still shows them.
        lost: bool,
        /// A sync has failed without reporting it. The next one reports it.
        owes_error: bool,
        /// It was opened to append. A power loss leaves what was durable at its beginning.
        grows: bool,
        /// When the file was last changed in any way, including its names. A power loss that changes the bytes
        /// takes it back to theirs.
        changed: u64,
    },
    Directory {
        visible: Names,
        durable: Names,
        /// Which file system it lies on.
        device: u32,
        /// Refuses new names.
        read_only: bool,
        visible_mode: u32,
        durable_mode: u32,
    },
    Symlink(PathBuf),
}

/// A name in a directory, even if it leads to nothing.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) directory: Number,
    pub(super) name: Arc<OsStr>,
}

/// The new inode of a name.
pub(super) type Setting = (Number, Arc<OsStr>, Option<Number>);

impl Place {
    pub(super) fn to(&self, inode: Number) -> Setting {
        (self.directory, Arc::clone(&self.name), Some(inode))
    }

    pub(super) fn to_nothing(&self) -> Setting {
        (self.directory, Arc::clone(&self.name), None)
    }
}

/// One operation on names that may not be durable yet. A power loss keeps all of its settings, or none.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) device: u32,
    pub(super) settings: Vec<Setting>,
    /// The new mode of a directory.
    mode: Option<(Number, u32)>,
}

impl Operation {
    fn touches_directory(&self, directory: Number) -> bool {
        let is_own = |(other, _): (Number, u32)| other == directory;
        self.settings.iter().any(|(set_in, ..)| *set_in == directory) || self.mode.is_some_and(is_own)
    }

    pub(super) fn names_inode(&self, inode: Number) -> bool {
        self.settings.iter().any(|(_, _, to)| *to == Some(inode))
    }

    pub(super) fn shares_a_name(&self, other: &Self) -> bool {
        self.settings.iter().any(|(directory, name, _)| {
            other
                .settings
                .iter()
                .any(|(other_directory, other_name, _)| directory == other_directory && name == other_name)
        })
    }
}

/// The whole disk.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) inodes: Vec<Option<Arc<Body>>>,
    pub(super) log: Vec<Operation>,
    /// Grows with every change of a file. Time stamps show it in the granularity of the disk.
    pub(super) clock: u64,
    pub(super) granularity: Granularity,
    /// How many times the machine was started. Makes unique names differ.
    pub(super) boots: u64,
    /// How many power losses there were.
    pub(super) power_losses: u64,
    /// Whether two names that differ only in case are one.
    pub(super) folds_case: bool,
    /// Whether directories cannot be locked.
    pub(super) without_directory_locks: bool,
    /// Whether no file can have a second name.
    pub(super) without_links: bool,
    /// Files that are mount points themselves.
    pub(super) busy: Vec<Number>,
    /// Append-only files and directories, whose names may not be moved or removed.
    pub(super) frozen: Vec<Number>,
    /// Files whose end cannot be read.
    pub(super) unreadable: Vec<Number>,
    /// Directories without a name, of which a process may have a handle.
    removed: BTreeSet<Number>,
}

pub(super) const ROOT: Number = 0;

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            inodes: vec![Some(Arc::new(directory(0, DIRECTORY_MODE)))],
            log: Vec::new(),
            clock: 1,
            granularity: Granularity::Fine,
            boots: 0,
            power_losses: 0,
            folds_case: false,
            without_directory_locks: false,
            without_links: false,
            busy: Vec::new(),
            frozen: Vec::new(),
            unreadable: Vec::new(),
            removed: BTreeSet::new(),
        }
    }

    pub(super) fn body(&self, inode: Number) -> io::Result<&Body> {
        self.inodes.get(inode as usize).and_then(Option::as_deref).ok_or_else(not_found)
    }

    pub(super) fn body_mut(&mut self, inode: Number) -> io::Result<&mut Body> {
        let slot = self.inodes.get_mut(inode as usize).and_then(Option::as_mut);
        slot.map(Arc::make_mut).ok_or_else(not_found)
    }

    /// The clock as a time stamp shows it.
    pub(super) fn now(&self) -> u64 {
        match self.granularity {
            Granularity::Fine => self.clock,
            Granularity::Changes(changes) => self.clock / changes.max(1),
            Granularity::Still => 0,
        }
    }

    /// Advances the clock. Returns the time stamp of a change now.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.now()
    }

    /// Notes a change of a file's names or permissions, but not of its bytes.
    pub(super) fn touch(&mut self, inode: Number) {
        let now = self.tick();
        if let Ok(Body::File { changed, .. }) = self.body_mut(inode) {
            *changed = now;
        }
    }

    pub(super) fn add(&mut self, body: Body) -> Number {
        self.inodes.push(Some(Arc::new(body)));
        // Memory cannot hold a simulated disk with four thousand million files.
        Number::try_from(self.inodes.len() - 1).unwrap_or(Number::MAX)
    }

    /// The inode of a directory, without following links.
    pub(super) fn directory(&self, path: &RelativePath) -> io::Result<Number> {
        let mut inode = ROOT;
        for name in path.names() {
            if !matches!(self.body(inode)?, Body::Directory { .. }) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            inode = self.child(inode, name).ok_or_else(not_found)?;
        }
        match self.body(inode)? {
            Body::Directory { .. } => Ok(inode),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The inode that a path leads to, without following links.
    pub(super) fn lookup(&self, path: &RelativePath) -> io::Result<Number> {
        if path.is_root() {
            return Ok(ROOT);
        }
        let parent = self.directory(&path.parent())?;
        self.child(parent, path.name()).ok_or_else(not_found)
    }

    /// What a name leads to.
    pub(super) fn at(&self, place: &Place) -> Option<Number> {
        self.child(place.directory, &place.name)
    }

    /// No process has handles of removed directories any more, and a power loss may have brought some
    /// back.
    pub(super) fn forget_removed(&mut self) {
        self.removed.clear();
    }

    /// Whether a directory has no name any more, so that nothing can be made in it.
    pub(super) fn is_removed(&self, directory: Number) -> bool {
        self.removed.contains(&directory)
    }

    pub(super) fn child(&self, directory: Number, name: &OsStr) -> Option<Number> {
        match self.body(directory).ok()? {
            Body::Directory { visible, .. } if !self.folds_case => visible.get(name).copied(),
            Body::Directory { visible, .. } => visible.get(&*self.stored(directory, name)).copied(),
            _ => None,
        }
    }

    /// The form in which a directory has this name. A new name gets the form in which it was given.
    fn stored(&self, directory: Number, name: &OsStr) -> Arc<OsStr> {
        let fold = |name: &OsStr| name.to_string_lossy().to_lowercase();
        let names = match self.body(directory) {
            Ok(Body::Directory { visible, .. }) => Some(visible.keys()),
            _ => None,
        };
        let found = names.and_then(|mut names| names.find(|own| fold(own) == fold(name)));
        found.cloned().unwrap_or_else(|| name.into())
    }

    pub(super) fn device(&self, inode: Number) -> u32 {
        match self.body(inode) {
            Ok(Body::Directory { device, .. }) => *device,
            _ => 0,
        }
    }

    pub(super) fn refuses_names(&self, inode: Number) -> bool {
        matches!(self.body(inode), Ok(Body::Directory { read_only: true, .. }))
    }

    /// Does an operation on names: visible at once, durable later.
    pub(super) fn operate(&mut self, model: Model, mut settings: Vec<Setting>) {
        for (directory, name, _) in settings.iter_mut().filter(|_| self.folds_case) {
            *name = self.stored(*directory, name);
        }
        for (directory, name, to) in &settings {
            let Ok(Body::Directory { visible, .. }) = self.body_mut(*directory) else { continue };
            let before = visible.get(name).copied();
            set(visible, name, *to);
            self.removed
                .extend(before.filter(|inode| matches!(self.body(*inode), Ok(Body::Directory { .. }))));
            if let Some(inode) = to {
                self.removed.remove(inode);
            }
        }
        let device = settings.first().map_or(0, |(directory, ..)| self.device(*directory));
        if model != Model::TornRename || settings.len() < 2 {
            self.log.push(Operation { device, settings, mode: None });
            return;
        }
        // A rename in three parts: the old target disappears, the new one appears, the source
        // disappears.
        let (source, target) = (settings[0].clone(), settings[1].clone());
        for part in [(target.0, target.1.clone(), None), target, source] {
            self.log.push(Operation { device, settings: vec![part], mode: None });
        }
    }

    /// Changes the mode of a directory: visible at once, durable later.
    pub(super) fn set_directory_mode(&mut self, directory: Number, mode: u32) {
        if let Ok(Body::Directory { visible_mode, device, .. }) = self.body_mut(directory) {
            *visible_mode = mode;
            let device = *device;
            self.log.push(Operation { device, settings: Vec::new(), mode: Some((directory, mode)) });
        }
    }

    /// Makes one logged operation durable.
    pub(super) fn persist(&mut self, operation: &Operation) {
        for (directory, name, to) in &operation.settings {
            if let Ok(Body::Directory { durable, .. }) = self.body_mut(*directory) {
                set(durable, name, *to);
            }
        }
        if let Some((directory, mode)) = operation.mode {
            if let Ok(Body::Directory { durable_mode, .. }) = self.body_mut(directory) {
                *durable_mode = mode;
            }
        }
    }

    /// What a file's sync makes durable besides its data.
    pub(super) fn sync_names_of_file(&mut self, model: Model, inode: Number, device: u32) {
        match model {
            Model::OrderedPrefix | Model::ReusedBlocks => {
                self.persist_where(|operation| operation.device == device);
            }
            Model::JumpingPrefix => self.persist_where(|operation| operation.names_inode(inode)),
            _ => {}
        }
    }

    /// What a directory's sync makes durable.
    pub(super) fn sync_names_in(&mut self, model: Model, directory: Number) {
        let device = self.device(directory);
        match model {
            Model::OrderedPrefix | Model::ReusedBlocks => {
                self.persist_where(|operation| operation.device == device);
            }
            Model::NoDirectorySync => {}
            _ => self.persist_where(|operation| operation.touches_directory(directory)),
        }
    }

    /// A sync of a directory has failed, and the kernel has dropped what it was to write.
    pub(super) fn lose_names_in(&mut self, directory: Number) {
        self.log.retain(|operation| !operation.touches_directory(directory));
    }

    /// Makes durable what is wanted, and every earlier operation on the same names.
    fn persist_where(&mut self, wanted: impl Fn(&Operation) -> bool) {
        let mut chosen: Vec<bool> = self.log.iter().map(wanted).collect();
        for later in (0..self.log.len()).rev() {
            let (earlier, rest) = chosen.split_at_mut(later);
            if rest[0] {
                for (chosen, operation) in earlier.iter_mut().zip(&self.log) {
                    *chosen |= operation.shares_a_name(&self.log[later]);
                }
            }
        }
        let log = std::mem::take(&mut self.log);
        for (operation, chosen) in log.into_iter().zip(chosen) {
            if chosen {
                self.persist(&operation);
            } else {
                self.log.push(operation);
            }
        }
    }

    /// Makes everything visible durable. Tests use it to set a disk up.
    pub(super) fn make_durable(&mut self) {
        self.log.clear();
        for slot in self.inodes.iter_mut().flatten() {
            match Arc::make_mut(slot) {
                Body::File { visible, durable, lost, owes_error, .. } => {
                    *durable = Some(visible.clone());
                    (*lost, *owes_error) = (false, false);
                }
                Body::Directory { visible, durable, visible_mode, durable_mode, .. } => {
                    durable.clone_from(visible);
                    *durable_mode = *visible_mode;
                }
                Body::Symlink(_) => {}
            }
        }
    }

    /// Which inodes a program can find by a name.
    pub(super) fn named(&self) -> BTreeSet<Number> {
        let (mut found, mut ahead) = (BTreeSet::new(), vec![ROOT]);
        while let Some(inode) = ahead.pop() {
            if !found.insert(inode) {
                continue;
            }
            if let Ok(Body::Directory { visible, .. }) = self.body(inode) {
                ahead.extend(visible.values());
            }
        }
        found
    }

    /// Removes inodes that no name leads to.
    pub(super) fn collect(&mut self) {
        let mut reached = vec![false; self.inodes.len()];
        // A power loss can bring back what only the log leads to, with everything in it.
        let logged = self.log.iter().flat_map(|operation| &operation.settings);
        let mut ahead: Vec<Number> = logged.filter_map(|(_, _, to)| *to).collect();
        ahead.push(ROOT);
        while let Some(inode) = ahead.pop() {
            if std::mem::replace(&mut reached[inode as usize], true) {
                continue;
            }
            if let Ok(Body::Directory { visible, durable, .. }) = self.body(inode) {
                ahead.extend(visible.values().chain(durable.values()));
            }
        }
        for (slot, reached) in self.inodes.iter_mut().zip(reached) {
            if !reached {
                *slot = None;
            }
        }
    }

    /// A fingerprint that does not depend on how inodes are numbered.
    pub(super) fn fingerprint(&self) -> [u8; 16] {
        let mut writer = Fingerprint {
            state: self,
            numbers: HashMap::new(),
            ahead: Vec::new(),
            bytes: Vec::with_capacity(2048),
        };
        writer.number(ROOT);
        let mut next = 0;
        while next < writer.ahead.len() {
            let inode = writer.ahead[next];
            next += 1;
            writer.inode(inode);
        }
        for operation in &self.log {
            writer.bytes.push(0xfe);
            for (directory, name, to) in &operation.settings {
                let directory = writer.number(*directory);
                writer.text(name);
                let to = to.map_or(u32::MAX, |to| writer.number(to));
                writer.bytes.extend([directory, to].map(u32::to_le_bytes).concat());
            }
            if let Some((directory, mode)) = operation.mode {
                let directory = writer.number(directory);
                writer.bytes.extend([directory, mode].map(u32::to_le_bytes).concat());
            }
        }
        let hash = blake3::hash(&writer.bytes);
        std::array::from_fn(|index| hash.as_bytes()[index])
    }
}

struct Fingerprint<'a> {
    state: &'a State,
    numbers: HashMap<Number, u32>,
    ahead: Vec<Number>,
    bytes: Vec<u8>,
}

impl Fingerprint<'_> {
    fn number(&mut self, inode: Number) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(inode).or_insert_with(|| {
            self.ahead.push(inode);
            next
        })
    }

    fn text(&mut self, text: &OsStr) {
        self.bytes.extend(text.as_encoded_bytes());
        self.bytes.push(0);
    }

    fn data(&mut self, data: Option<&Data>) {
        let Some(data) = data else { return self.bytes.push(0xfd) };
        self.bytes.extend((data.bytes.len() as u64).to_le_bytes());
        self.bytes.extend(data.bytes.iter());
        self.bytes.extend(data.modified.to_le_bytes());
        self.bytes.extend(data.mode.to_le_bytes());
    }

    fn names(&mut self, names: &Names) {
        for (name, inode) in names {
            self.text(name);
            let number = self.number(*inode);
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.push(0xff);
    }

    fn inode(&mut self, inode: Number) {
        match self.state.body(inode) {
            Ok(Body::File { visible, durable, lost, owes_error, .. }) => {
                self.bytes.extend([1, u8::from(*lost), u8::from(*owes_error)]);
                self.data(Some(visible));
                self.data(durable.as_ref().filter(|durable| *durable != visible));
            }
            Ok(Body::Directory { visible, durable, visible_mode, durable_mode, .. }) => {
                self.bytes.push(2);
                self.bytes.extend([*visible_mode, *durable_mode].map(u32::to_le_bytes).concat());
                self.names(visible);
                if visible != durable {
                    self.names(durable);
                }
            }
            Ok(Body::Symlink(to)) => {
                self.bytes.push(3);
                self.text(to.as_os_str());
            }
            Err(_) => self.bytes.push(4),
        }
    }
}

fn set(names: &mut Names, name: &Arc<OsStr>, to: Option<Number>) {
    match to {
        Some(inode) => names.insert(Arc::clone(name), inode),
        None => names.remove(name),
    };
}

pub(super) fn directory(device: u32, mode: u32) -> Body {
    let (visible, durable) = (Names::new(), Names::new());
    Body::Directory { visible, durable, device, read_only: false, visible_mode: mode, durable_mode: mode }
}

/// The mode of a new directory.
pub(super) const DIRECTORY_MODE: u32 = 0o755;

pub(super) fn file(mode: u32, modified: u64) -> Body {
    let visible = Data { bytes: Arc::default(), modified, mode };
    Body::File { visible, durable: None, lost: false, owes_error: false, grows: false, changed: modified }
}

pub(super) fn kind(body: &Body) -> Kind {
    match body {
        Body::File { .. } => Kind::File,
        Body::Directory { .. } => Kind::Directory,
        Body::Symlink(_) => Kind::Symlink,
    }
}

pub(super) fn shared(name: &OsStr) -> Arc<OsStr> {
    OsString::from(name).into()
}
