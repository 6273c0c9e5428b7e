//! What the documentation promises of transactions, as plain data without
//! files, locks or disks.
//!
//! A [`State`] is the content of one generation. A [`Draft`] is what one
//! transaction has collected, and says what its commit must do. Knows nothing
//! of the library.

use std::collections::{BTreeMap, BTreeSet};

/// One generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub generation: u64,
    pub files: BTreeMap<String, String>,
    /// Directories stay when their files are removed.
    pub directories: BTreeSet<String>,
}

/// The directories that a path lies in.
pub fn directories_of(path: &str) -> impl Iterator<Item = String> {
    path.match_indices('/').map(|(index, _)| path[..index].to_owned())
}

/// Whether a path is directly in a directory.
fn is_in(path: &str, directory: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(parent, _)| parent == directory)
}

impl State {
    /// Puts a file there, with its directories.
    pub fn put(&mut self, path: &str, content: &str) {
        self.files.insert(path.to_owned(), content.to_owned());
        self.directories.extend(directories_of(path));
    }

    pub fn content(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The paths of the files in a directory.
    fn files_in(&self, directory: &str) -> BTreeSet<String> {
        self.files.keys().filter(|path| is_in(path, directory)).cloned().collect()
    }

    fn length(&self, path: &str) -> Option<usize> {
        self.content(path).map(str::len)
    }

    /// The paths in a directory, `""` being the root.
    pub fn list(&self, directory: &str) -> BTreeSet<String> {
        let parent = |path: &str| path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        let all = self.files.keys().chain(&self.directories);
        all.filter(|path| parent(path) == directory).cloned().collect()
    }
}

/// What a transaction will do with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Intent {
    /// A writer is still open.
    Open,
    /// A writer was dropped before it was finished.
    Unfinished,
    Write(String),
    Remove,
}

/// What a transaction relies on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Absent(String),
    Exists(String),
}

/// What must be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Nothing,
    Something,
    Content(String),
}

impl Wanted {
    fn is_met(&self, found: Option<&str>) -> bool {
        match self {
            Self::Nothing => found.is_none(),
            Self::Something => found.is_some(),
            Self::Content(content) => found == Some(content.as_str()),
        }
    }
}

/// What a read within a transaction returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Content(String),
    NotFound,
    Unfinished,
    /// It would not be of the same state as the earlier reads.
    Conflict,
}

/// What a commit does, if no other is in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Unfinished,
    Conflict,
    /// It changes nothing, so there is no new generation.
    Nothing,
    Commits(State),
}

/// What a transaction has collected.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// By number. Of two writes to one path, the one that began later wins.
    intents: BTreeMap<u64, (String, Intent)>,
    conditions: Vec<Condition>,
    reads: BTreeMap<String, Option<String>>,
    /// Whether there was a file, for those that were asked for and not read.
    seen: BTreeMap<String, bool>,
    /// The files of the directories that were listed.
    listed: BTreeMap<String, BTreeSet<String>>,
    /// The lengths of the files that were looked at, and the commits that wrote them.
    measured: BTreeMap<String, Option<(usize, u64)>>,
    /// What must be there, whatever the transaction does with it.
    expected: Vec<(String, Wanted)>,
    /// The generation that must be the newest one.
    expected_generation: Option<u64>,
    /// The generation that all reads show.
    snapshot: Option<u64>,
    doomed: bool,
    numbers: u64,
    /// The paths to which a file was copied or moved, with its mode.
    copied: BTreeSet<String>,
}

impl Draft {
    fn newest(&self, path: &str) -> Option<&Intent> {
        self.intents.values().rev().find(|(other, _)| other == path).map(|(_, intent)| intent)
    }

    /// Whether the transaction has changed a path.
    pub fn touches(&self, path: &str) -> bool {
        self.newest(path).is_some()
    }

    /// Drops what was begun for a path before `number`, and what it relied on.
    fn supersede(&mut self, path: &str, number: u64) {
        let before = self.intents.len();
        self.intents.retain(|own, (other, _)| other != path || *own >= number);
        if self.intents.len() < before {
            self.conditions.retain(|condition| {
                !matches!(condition, Condition::Absent(other) | Condition::Exists(other) if other == path)
            });
        }
    }

    /// A writer is opened; returns its number.
    pub fn begin(&mut self, path: &str) -> u64 {
        self.numbers += 1;
        self.intents.insert(self.numbers, (path.to_owned(), Intent::Open));
        self.numbers
    }

    /// A writer is finished.
    pub fn finish(&mut self, number: u64, content: &str) {
        if let Some((path, intent)) = self.intents.get_mut(&number) {
            *intent = Intent::Write(content.to_owned());
            let path = path.clone();
            self.supersede(&path, number);
        }
    }

    /// A writer is dropped.
    pub fn drop_writer(&mut self, number: u64) {
        if let Some((_, intent)) = self.intents.get_mut(&number) {
            *intent = Intent::Unfinished;
        }
    }

    pub fn write(&mut self, path: &str, content: &str) {
        let number = self.begin(path);
        self.finish(number, content);
    }

    pub fn create_new(&mut self, path: &str, content: &str) {
        self.write(path, content);
        self.conditions.push(Condition::Absent(path.to_owned()));
    }

    /// Returns whether it was staged; `None` for a conflict. A file of another length is not read.
    pub fn write_if_changed(&mut self, now: &State, path: &str, content: &str) -> Option<bool> {
        let found = now.content(path).filter(|found| found.len() == content.len());
        if let Some(found) = found.filter(|_| !self.touches(path)) {
            if !self.joins(now) {
                return None;
            }
            if found == content {
                self.reads.insert(path.to_owned(), Some(content.to_owned()));
                return Some(false);
            }
        }
        self.write(path, content);
        Some(true)
    }

    /// Whether a read now is of the same state as all earlier reads.
    fn joins(&mut self, now: &State) -> bool {
        let moved = self.snapshot.replace(now.generation).is_some_and(|seen| seen != now.generation);
        self.doomed |= moved && !self.reads_hold(now);
        !self.doomed
    }

    fn reads_hold(&self, now: &State) -> bool {
        let is_there = |path: &str| now.content(path).is_some();
        self.reads.iter().all(|(path, content)| now.content(path) == content.as_deref())
            && self.seen.iter().all(|(path, seen)| is_there(path) == *seen)
            && self.listed.iter().all(|(directory, files)| now.files_in(directory) == *files)
            && self.measured.iter().all(|(path, seen)| now.length(path) == seen.map(|(length, _)| length))
    }

    /// Whether a read has found another state, so that the transaction can no longer be committed.
    pub fn is_doomed(&self) -> bool {
        self.doomed
    }

    /// Returns whether there was a file to remove. A file that this transaction has removed counts as
    /// missing.
    pub fn remove_if_exists(&mut self, now: &State, path: &str) -> bool {
        if self.newest(path) == Some(&Intent::Remove) {
            return false;
        }
        let was_written = matches!(self.newest(path), Some(Intent::Write(_) | Intent::Open));
        self.supersede(path, u64::MAX);
        if now.files.contains_key(path) {
            self.numbers += 1;
            self.intents.insert(self.numbers, (path.to_owned(), Intent::Remove));
            return true;
        }
        was_written
    }

    /// Like `remove_if_exists`, but the file must still be there at the commit.
    pub fn remove(&mut self, now: &State, path: &str) -> bool {
        let removed = self.remove_if_exists(now, path);
        if removed && now.files.contains_key(path) {
            self.conditions.push(Condition::Exists(path.to_owned()));
        }
        removed
    }

    pub fn read(&mut self, now: &State, path: &str) -> Reading {
        let read = |draft: &mut Self, content: Option<&str>| {
            draft.reads.insert(path.to_owned(), content.map(str::to_owned));
        };
        self.find(now, path, read)
    }

    /// Like `read`, but new content is no conflict.
    pub fn exists(&mut self, now: &State, path: &str) -> Reading {
        let see = |draft: &mut Self, content: Option<&str>| {
            draft.seen.insert(path.to_owned(), content.is_some());
        };
        self.find(now, path, see)
    }

    /// Expects something of a path. Returns whether that is so now.
    pub fn expect(&mut self, now: &State, path: &str, wanted: Wanted) -> bool {
        if !self.joins(now) {
            return false;
        }
        let is_met = wanted.is_met(now.content(path));
        self.expected.push((path.to_owned(), wanted));
        is_met
    }

    /// Expects a file to stay as it is. Returns whether everything that was read still is.
    pub fn expect_unchanged(&mut self, now: &State, path: &str) -> bool {
        let joins = self.joins(now);
        if joins {
            self.reads.insert(path.to_owned(), now.content(path).map(str::to_owned));
        }
        joins
    }

    /// Expects this generation to be the newest. Returns whether it is.
    pub fn expect_generation(&mut self, now: &State, generation: u64) -> bool {
        if !self.joins(now) {
            return false;
        }
        self.expected_generation = Some(generation);
        now.generation == generation
    }

    /// The files of a directory, as the transaction would leave them; `None` for a conflict.
    pub fn list(&mut self, now: &State, directory: &str) -> Option<BTreeSet<String>> {
        if !self.joins(now) {
            return None;
        }
        let mut files = now.files_in(directory);
        self.listed.insert(directory.to_owned(), files.clone());
        for (path, _) in self.intents.values().filter(|(path, _)| is_in(path, directory)) {
            match self.newest(path) {
                Some(Intent::Remove) => _ = files.remove(path),
                _ => _ = files.insert(path.clone()),
            }
        }
        Some(files)
    }

    /// Like `read`, but only a file's length is a matter. `written` is the commit that wrote it.
    pub fn measure(&mut self, now: &State, path: &str, written: u64) -> Reading {
        let measure = |draft: &mut Self, content: Option<&str>| {
            draft.measured.insert(path.to_owned(), content.map(|content| (content.len(), written)));
        };
        self.find(now, path, measure)
    }

    /// Whether a file that was looked at was written again since, to the same length. Whether that is a
    /// change depends on the clock.
    pub fn is_in_doubt(&self, now: &State, written: impl Fn(&str) -> u64) -> bool {
        let is_again = |path: &str, (length, before): (usize, u64)| {
            written(path) != before && now.length(path) == Some(length)
        };
        self.measured.iter().any(|(path, seen)| seen.is_some_and(|seen| is_again(path, seen)))
    }

    /// Whether a file was looked at without reading it.
    pub fn has_measured(&self, path: &str) -> bool {
        self.measured.contains_key(path)
    }

    fn find(&mut self, now: &State, path: &str, note: impl Fn(&mut Self, Option<&str>)) -> Reading {
        match self.newest(path) {
            Some(Intent::Write(content)) => return Reading::Content(content.clone()),
            Some(Intent::Remove) => return Reading::NotFound,
            Some(Intent::Open | Intent::Unfinished) => return Reading::Unfinished,
            None => {}
        }
        if !self.joins(now) {
            return Reading::Conflict;
        }
        note(self, now.content(path));
        now.content(path).map_or(Reading::NotFound, |content| Reading::Content(content.to_owned()))
    }

    /// Returns what was read, which is copied if it is a file's content.
    pub fn copy(&mut self, now: &State, from: &str, to: &str) -> Reading {
        let read = self.read(now, from);
        if let Reading::Content(content) = &read {
            self.write(to, content);
            self.copied.insert(to.to_owned());
        }
        read
    }

    /// Like `copy`, and the source goes.
    pub fn rename(&mut self, now: &State, from: &str, to: &str) -> Reading {
        let read = self.copy(now, from, to);
        if matches!(read, Reading::Content(_)) {
            self.remove_if_exists(now, from);
        }
        read
    }

    /// Whether a file was ever copied to this path.
    pub fn has_copied(&self, path: &str) -> bool {
        self.copied.contains(path)
    }

    fn holds(&self, now: &State) -> bool {
        let conditions = self.conditions.iter().all(|condition| match condition {
            Condition::Absent(path) => !now.files.contains_key(path),
            Condition::Exists(path) => now.files.contains_key(path),
        });
        let expected = self.expected.iter().all(|(path, wanted)| wanted.is_met(now.content(path)))
            && self.expected_generation.is_none_or(|generation| generation == now.generation);
        conditions && expected && !self.doomed && self.reads_hold(now)
    }

    /// Whether a commit would change nothing.
    pub fn is_empty(&self) -> bool {
        self.intents.is_empty()
    }

    /// The paths that a commit would change, in the order of the last write to each.
    pub fn changed(&self) -> Vec<String> {
        let ready = |(path, intent): &(String, Intent)| {
            matches!(intent, Intent::Write(_) | Intent::Remove).then(|| path.clone())
        };
        self.intents.values().filter_map(ready).collect()
    }

    /// The directories that a commit would make if they are missing.
    pub fn directories(&self) -> BTreeSet<String> {
        self.intents.values().flat_map(|(path, _)| directories_of(path)).collect()
    }

    /// What a commit on top of `now` does.
    pub fn verdict(&self, now: &State) -> Verdict {
        let is_open = |(_, intent): &(String, Intent)| matches!(intent, Intent::Open | Intent::Unfinished);
        if self.intents.values().any(is_open) {
            return Verdict::Unfinished;
        }
        if !self.holds(now) {
            return Verdict::Conflict;
        }
        if self.intents.is_empty() {
            return Verdict::Nothing;
        }
        let mut next = State { generation: now.generation + 1, ..now.clone() };
        for (path, intent) in self.intents.values() {
            match intent {
                Intent::Write(content) => next.put(path, content),
                _ => _ = next.files.remove(path),
            }
        }
        Verdict::Commits(next)
    }
}
