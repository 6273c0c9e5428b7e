//! Which of the published manifests count, and what must become of the files
//! that they name: worked out from what `ARCHITECTURE.md` promises, and not from
//! the code. What it does not decide is not judged here.

use std::collections::{BTreeMap, BTreeSet};

use cosave::fs::sim::SimDisk;
use cosave::fs::{Kind, Metadata};
use cosave::{Action, Before, Checksum, Entry, Manifest, RelativePath, TimeStamp};

use super::{Files, Scene, files, is_temporary, is_whole, small};

/// A published manifest, as far as its name and bytes tell.
pub(crate) struct Published {
    pub(crate) generation: u64,
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Option<Manifest>,
    condition: Condition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Whole,
    /// A power loss in its wave can have left it so.
    Torn,
    /// No power loss leaves it so.
    Damaged,
    /// It can be taken for one or the other.
    Unclear,
}

/// What becomes of the manifests in the chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All are finished.
    Finished,
    /// Those from this one on were never acknowledged.
    Discarded(usize),
    /// This one prevents the root from opening.
    Damaged(usize),
}

impl End {
    /// How many of the chain are finished before it.
    pub(crate) fn of(self, chain: &[Published]) -> &[Published] {
        match self {
            Self::Finished => chain,
            Self::Discarded(index) | Self::Damaged(index) => &chain[..index],
        }
    }
}

impl Published {
    fn new(generation: u64, path: String, found: Option<Vec<u8>>) -> Self {
        let is_file = found.is_some();
        let bytes = found.unwrap_or_default();
        let manifest = Manifest::decode(&bytes).ok().filter(|_| is_whole(&bytes));
        let is_ours = |manifest: &Manifest| manifest.entries.iter().all(has_names_of_ours);
        let condition = match &manifest {
            _ if !is_file => Condition::Unclear,
            Some(manifest) if is_ours(manifest) => Condition::Whole,
            Some(_) => Condition::Unclear,
            None if path.ends_with(".pending") || is_of_later_version(&bytes) => Condition::Damaged,
            None => match small::text_and_contents(&bytes) {
                Some((text, contents)) if small::has_its_contents(text, contents) => Condition::Damaged,
                Some((text, _)) if has_valid_entries(text) => Condition::Torn,
                // Its text is not valid either, so both can be said of it.
                Some(_) => Condition::Unclear,
                None if is_sealed_text(&bytes) => Condition::Damaged,
                None => Condition::Torn,
            },
        };
        Self { generation, path, bytes, manifest, condition }
    }

    /// Whether its wave began with this generation or before it.
    fn is_of_wave_from(&self, generation: u64) -> bool {
        match self.condition {
            Condition::Torn => true,
            Condition::Whole => self.wave().is_some_and(|first| first <= generation),
            Condition::Damaged | Condition::Unclear => false,
        }
    }

    fn wave(&self) -> Option<u64> {
        let inline = self.manifest.as_ref().and_then(|manifest| manifest.inline.as_ref());
        inline.map(|inline| inline.wave.get())
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.manifest.iter().flat_map(|manifest| &manifest.entries)
    }

    fn session(&self) -> Option<String> {
        let transaction = self.manifest.as_ref()?.transaction.to_string();
        Some(transaction.split('-').next()?.to_owned())
    }
}

fn is_of_later_version(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return false };
    let words = std::str::from_utf8(&bytes[..end]).unwrap_or_default().split(' ').collect::<Vec<_>>();
    matches!(words[..], ["cosave-manifest", version, ..] if !["1", "2", "3", "4"].contains(&version))
}

/// Whether a text that does not fit its contents would be valid if it did.
fn has_valid_entries(text: &[u8]) -> bool {
    let fitted = small::fitted(text).and_then(|bytes| Manifest::decode(&bytes).ok());
    fitted.is_some_and(|manifest| manifest.entries.iter().all(has_names_of_ours))
}

/// Whether it is of a format without contents, with a right checksum.
fn is_sealed_text(bytes: &[u8]) -> bool {
    [b"cosave-manifest 1", b"cosave-manifest 3", b"cosave-manifest 4"]
        .iter()
        .any(|first| bytes.starts_with(*first))
        && is_whole(bytes)
}

/// Whether an entry names what cosave would name: no target in its own directory or with one of its own
/// names, and a staged file with such a name.
fn has_names_of_ours(entry: &Entry) -> bool {
    let is_staged = |name: &str| {
        let id = name.strip_suffix(".cosave").and_then(|stem| stem.rsplit('.').next()).unwrap_or_default();
        let parts: Vec<&str> = id.split('-').collect();
        let is_number = |text: &str| text.parse::<u64>().is_ok_and(|number| number.to_string() == text);
        let is_session = |text: &str| {
            text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        name.starts_with('.')
            && matches!(parts[..], [session, transaction, number]
                if is_session(session) && is_number(transaction) && is_number(number))
    };
    let staged_is_ours = match &entry.action {
        Action::Write(content) => content.name.to_str().is_some_and(is_staged),
        _ => true,
    };
    staged_is_ours && !is_temporary(&entry.path.to_string())
}

/// Where an entry's staged file lies.
pub(crate) fn staged(entry: &Entry) -> Option<RelativePath> {
    match &entry.action {
        Action::Write(content) => entry.path.parent().join(&content.name).ok(),
        _ => None,
    }
}

/// Whether no path is named twice, or lies below another. Cosave publishes no such manifest before the
/// earlier one is applied.
pub(crate) fn each_path_once(chain: &[Published]) -> bool {
    let mut seen = BTreeSet::new();
    let once = chain.iter().flat_map(Published::entries).all(|entry| {
        seen.insert(entry.path.clone()) && staged(entry).is_none_or(|staged| seen.insert(staged))
    });
    let lies_below = |path: &RelativePath| {
        std::iter::successors(Some(path.parent()), |above| Some(above.parent()))
            .take_while(|above| !above.is_root())
            .any(|above| seen.contains(&above))
    };
    once && !seen.iter().any(lies_below)
}

/// Whether a file is what a manifest expects at a path.
pub(crate) fn is_expected(before: Before, found: &Metadata, bytes: &[u8]) -> bool {
    match before.checksum {
        Some(checksum) => checksum == Checksum::of(bytes),
        None => is_stamped(before, found),
    }
}

fn is_stamped(before: Before, found: &Metadata) -> bool {
    before.stamp.length == found.length && before.stamp.modified == found.modified.into()
}

impl Scene {
    /// The pending generations that follow without a gap, and those beyond a gap.
    pub(crate) fn published(&self) -> (Vec<Published>, Vec<u64>) {
        let files = files(&self.disk);
        // Directories with such names count as files do.
        let names = self.disk.control_names();
        let of_kind = |kind: &str| -> BTreeSet<u64> {
            let number = |name: &String| {
                let stem = name.strip_suffix(kind)?;
                stem.parse()
                    .ok()
                    .filter(|number: &u64| *number > 0 && *number < u64::MAX && number.to_string() == stem)
            };
            names.iter().filter_map(number).collect()
        };
        let retired = of_kind(".applied").union(&of_kind(".abandoned")).max().copied().unwrap_or_default();
        let (long, small) = (of_kind(".pending"), of_kind(".pending-inline"));
        let mut open: BTreeSet<u64> = long.union(&small).copied().collect();
        open.retain(|generation| *generation > retired);
        let mut chain = Vec::new();
        for generation in (retired..u64::MAX).map(|number| number + 1).take_while(|next| open.remove(next)) {
            // If a generation has both names, the one that promises more counts.
            let kind = if long.contains(&generation) { "pending" } else { "pending-inline" };
            let path = format!(".cosave/{generation}.{kind}");
            let found = files.get(&path).cloned();
            chain.push(Published::new(generation, path, found));
        }
        (chain, open.into_iter().collect())
    }

    pub(crate) fn chain(&self) -> Vec<Published> {
        self.published().0
    }

    /// Where the chain ends; `None` if nobody can tell.
    pub(crate) fn end(&self, chain: &[Published]) -> Option<End> {
        let is_other =
            |name: &String| [".pending-waived", ".applied-waived"].iter().any(|k| name.ends_with(k));
        let is_unclear = chain.iter().any(|published| published.condition == Condition::Unclear);
        if is_unclear || self.disk.control_names().iter().any(is_other) {
            return None;
        }
        let Some(first) = chain.iter().position(|published| published.condition != Condition::Whole) else {
            return Some(End::Finished);
        };
        Some(if ends_torn(&chain[first..]) { End::Discarded(first) } else { End::Damaged(first) })
    }

    /// What must be at the paths of these manifests when they are finished: the bytes, or nothing. A path
    /// that nobody can judge is left out.
    pub(crate) fn expected(&self, finished: &[Published], alive: &BTreeSet<String>) -> Expected {
        let names = self.disk.control_names();
        let is_mark = |name: &String| {
            [".copying-", ".in-place-", ".sync-failed"].iter().any(|mark| name.contains(mark))
        };
        if self.has_links || !each_path_once(finished) || names.iter().any(is_mark) {
            return Expected::new();
        }
        let files = files(&self.disk);
        let mut expected = Expected::new();
        for published in finished {
            for (entry, bytes) in contents(published) {
                let may_be_lost = self.may_have_lost(finished, published, alive);
                let found = self.expected_at(&files, entry, bytes.filter(|_| may_be_lost));
                expected.extend(found.map(|content| (entry.path.to_string(), content)));
            }
        }
        expected
    }

    /// Whether a power loss can have taken staged files of a manifest: it is a small save of the newest
    /// wave, and its writer is dead.
    fn may_have_lost(&self, finished: &[Published], published: &Published, alive: &BTreeSet<String>) -> bool {
        let newest = finished.iter().rev().find(|other| other.manifest.is_some()).and_then(Published::wave);
        let is_dead = published.session().is_none_or(|session| !alive.contains(&session));
        is_dead && published.wave().is_some() && newest.is_some_and(|first| first <= published.generation)
    }

    /// Whether it is a small save of a session that is alive.
    pub(crate) fn has_living_writer(&self, published: &Published) -> bool {
        let session = published.session().filter(|_| published.wave().is_some());
        session.is_some_and(|session| self.alive.contains(&session))
    }

    /// What must be at the path of an entry. `held` are the bytes of its manifest, if its staged file can
    /// be lost.
    fn expected_at(&self, files: &Files, entry: &Entry, held: Option<&[u8]>) -> Option<Option<Vec<u8>>> {
        let look = |path: &RelativePath| self.disk.copy().process().metadata(path).ok();
        let bytes = |path: &RelativePath| files.get(&path.to_string());
        let found = look(&entry.path);
        if found.is_some_and(|found| found.kind != Kind::File) {
            return None;
        }
        let there = bytes(&entry.path).cloned();
        let is_original = match (&entry.before, &found, &there) {
            (Some(before), Some(found), Some(bytes)) => {
                is_stamped(*before, found) && is_expected(*before, found, bytes)
            }
            (None, None, _) => true,
            _ => false,
        };
        let Action::Write(content) = &entry.action else {
            return Some(if is_original { None } else { there });
        };
        let path = staged(entry)?;
        let Some(own) = look(&path) else {
            // It was moved, or lost before it was. Nothing, or a file that nobody touched since, is not what
            // came after it.
            let is_older = |found: Metadata| {
                found.changed.is_some_and(|changed| TimeStamp::from(changed) < content.after.modified)
            };
            let is_lost = is_original || found.is_none_or(is_older);
            return Some(if is_lost && held.is_some() { held.map(<[u8]>::to_vec) } else { there });
        };
        let own_bytes = bytes(&path)?;
        let is_torn = TimeStamp::from(own.modified) <= content.after.modified;
        Some(match held {
            Some(held) if own.kind == Kind::File && is_torn => Some(held.to_vec()),
            _ => Some(own_bytes.clone()),
        })
    }

    /// Whether the directory of a file to write, or of one to make, is gone. It may have been renamed, so this is no reason to
    /// finish without it.
    pub(crate) fn misses_a_directory(&self, published: &Published) -> bool {
        let process = self.disk.copy().process();
        let is_made =
            |entry: &&Entry| staged(entry).is_some() || matches!(entry.action, Action::CreateDirectory(_));
        let mut parents = published.entries().filter(is_made).map(|entry| entry.path.parent());
        parents.any(|parent| !parent.is_root() && process.metadata(&parent).is_err())
    }

    /// A directory that was not there has a mode that a manifest says. If one makes it without saying any, or
    /// for a file, it is like any other.
    pub(crate) fn new_directories_are_as_closed_as_said(&self, disk: &SimDisk, chain: &[Published]) {
        let entries: Vec<_> = chain.iter().flat_map(Published::entries).collect();
        for path in disk.directories().into_iter().filter(|path| self.disk.mode(path).is_none()) {
            let own = entries.iter().filter(|entry| entry.path.to_string() == path);
            let said: Vec<_> = own
                .filter_map(|entry| match entry.action {
                    Action::CreateDirectory(new) => Some(new.mode.unwrap_or(0o755)),
                    _ => None,
                })
                .collect();
            let found = disk.mode(&path);
            assert!(said.is_empty() || said.iter().any(|mode| found == Some(*mode)), "{path}: {found:?}");
        }
    }

    /// The staged files that a power loss has torn, so that nobody misses their bytes.
    pub(crate) fn torn_files(&self, finished: &[Published]) -> BTreeSet<String> {
        let lost = finished.iter().filter(|other| self.may_have_lost(finished, other, &self.alive));
        lost.flat_map(|published| self.torn_files_of(published)).collect()
    }

    /// The same, if nobody can tell which manifests count.
    pub(crate) fn files_that_may_be_torn(&self, chain: &[Published]) -> BTreeSet<String> {
        let small = chain.iter().filter(|published| published.wave().is_some());
        small.flat_map(|published| self.torn_files_of(published)).collect()
    }

    fn torn_files_of(&self, published: &Published) -> BTreeSet<String> {
        let is_torn = |entry: &&Entry| match (&entry.action, staged(entry)) {
            (Action::Write(content), Some(path)) => {
                let found = self.disk.copy().process().metadata(&path);
                found.is_ok_and(|found| TimeStamp::from(found.modified) <= content.after.modified)
            }
            _ => false,
        };
        let torn = published.entries().filter(is_torn).filter_map(staged);
        torn.map(|path| path.to_string()).collect()
    }
}

/// The content of each path; `None` if nothing is there.
pub(crate) type Expected = BTreeMap<String, Option<Vec<u8>>>;

/// Whether the first of these was torn in its wave, so that it and those after it were never
/// acknowledged. Whatever follows it is of the same wave. Each says with which generation its wave began.
fn ends_torn(chain: &[Published]) -> bool {
    let Some((first, later)) = chain.split_first() else { return false };
    first.condition == Condition::Torn && later.iter().all(|other| other.is_of_wave_from(first.generation))
}

/// Those at the end of a chain that were torn in their wave, behind one that is damaged.
pub(crate) fn torn_beyond(chain: &[Published], damaged: usize) -> usize {
    (damaged..chain.len()).find(|index| ends_torn(&chain[*index..])).unwrap_or(chain.len())
}

/// Each entry with its bytes, if the manifest has them.
fn contents(published: &Published) -> Vec<(&Entry, Option<&[u8]>)> {
    let inline = published.manifest.as_ref().and_then(|manifest| manifest.inline.as_ref());
    let mut rest = inline.map(|inline| inline.bytes.as_slice());
    let own = |entry: &Entry| match &entry.action {
        Action::Write(content) => {
            let length = usize::try_from(content.after.length).expect("it was read into memory");
            let (own, others) = rest?.split_at_checked(length)?;
            rest = Some(others);
            Some(own)
        }
        _ => None,
    };
    let mut own = own;
    published.entries().map(|entry| (entry, own(entry))).collect()
}
