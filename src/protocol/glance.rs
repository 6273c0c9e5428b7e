//! Glance: what a transaction has seen of paths without reading a file: whether
//! something is there, what it is, and the names in a directory.
//!
//! The commit looks again and compares. The directories that the transaction has
//! made for its own files are no part of what it sees, as long as nothing of
//! others is in them. Looks, and changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::root::Root;
use super::state::{Names, State};
use crate::error::Result;
use crate::fs::{Kind, Metadata};
use crate::listed::FileInfo;
use crate::path::RelativePath;

/// What is asked of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// What is there.
    Kind,
    /// What is there, how long it is, and when it was written.
    Info,
    /// Which names it has.
    Names,
    /// Where it leads to, if it is a symlink.
    Link,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Kind(Option<Kind>),
    Info(Option<FileInfo>),
    Names(Option<Names>),
    Link(Option<PathBuf>),
}

/// What a transaction has seen so far.
#[derive(Debug, Default)]
pub(crate) struct Glances {
    seen: HashMap<(RelativePath, Question), Answer>,
    /// The directories that the transaction has made.
    own: BTreeSet<RelativePath>,
}

impl Glances {
    pub(crate) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        self.seen.keys().map(|(path, _)| path)
    }

    /// Notes which directories the transaction has made.
    pub(crate) fn own(&mut self, made: &[RelativePath]) {
        self.own = made.iter().cloned().collect();
    }

    /// Looks at `path` in a state.
    pub(crate) fn ask(
        &self,
        root: &Root,
        state: &impl State,
        path: &RelativePath,
        question: Question,
    ) -> Result<Answer> {
        let look = || -> Result<Option<Metadata>> {
            let found = state.look(root, path)?;
            let is_own =
                found.is_some_and(|found| found.kind == Kind::Directory) && self.is_own(root, path)?;
            Ok(found.filter(|_| !is_own))
        };
        Ok(match question {
            Question::Kind => Answer::Kind(look()?.map(|found| found.kind)),
            Question::Info => Answer::Info(look()?.map(FileInfo::from)),
            Question::Names => Answer::Names(self.names(root, state, path)?),
            Question::Link => Answer::Link(state.read_link(root, path)?),
        })
    }

    fn names(&self, root: &Root, state: &impl State, path: &RelativePath) -> Result<Option<Names>> {
        if self.is_own(root, path)? {
            return Ok(None);
        }
        let Some(mut names) = state.names(root, path)? else { return Ok(None) };
        for own in self.own.iter().filter(|own| own.parent() == *path) {
            if self.is_own(root, own)? {
                names.remove(own.name());
            }
        }
        Ok(Some(names))
    }

    /// Whether the transaction has made this directory, and nothing of others is in it.
    pub(crate) fn is_own(&self, root: &Root, directory: &RelativePath) -> Result<bool> {
        if !self.own.contains(directory) {
            return Ok(false);
        }
        for name in root.names(directory)?.unwrap_or_default().keys() {
            if !self.is_own(root, &directory.child(name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes what was found. Returns whether it is what was found before, if it was asked before.
    pub(crate) fn remember(&mut self, path: &RelativePath, question: Question, answer: &Answer) -> bool {
        self.seen.entry((path.clone(), question)).or_insert_with(|| answer.clone()) == answer
    }

    /// A path of which something else is true in this state.
    pub(crate) fn find_changed(&self, root: &Root, state: &impl State) -> Result<Option<RelativePath>> {
        for ((path, question), seen) in &self.seen {
            if self.ask(root, state, path, *question)? != *seen {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }
}
