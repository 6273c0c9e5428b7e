//! A store's history: what earlier commits have replaced or removed.

use std::sync::Arc;

use super::Store;
use crate::error::{Error, Outcome, Result};
use crate::expect::Clash;
use crate::generation::Generation;
use crate::history::{self, Direction, PastCommit};
use crate::protocol::history_record::Undo;
use crate::protocol::past::{self, History, Plan};
use crate::report::Commit;
use crate::view::View;

/// How often to begin anew if others commit meanwhile.
const TRIES_MAX: u32 = 100;

impl Store {
    /// The commits that can be undone, the newest first: those whose originals were kept
    /// ([`StoreOptions::keep`](crate::StoreOptions::keep)). It ends at a commit of a store that keeps none,
    /// and where a power loss took what a commit with
    /// [`Durability::Process`](crate::Durability::Process) had kept. And it ends at a generation that was given up
    /// ([`abandon`](Self::abandon)), or whose manifest cannot be read any more.
    ///
    /// # Errors
    /// - Those of [`view`](Self::view).
    /// - [`Error::Io`] if the history cannot be read. Only those who may write in the root can.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().keep(10).open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// store.update(|tx| tx.write("a", "two"))?;
    /// let history = store.history()?;
    /// assert_eq!(history[0].to_string(), "generation 2\nreplace a (1 -> 3 bytes)");
    /// assert_eq!(history[1].generation(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn history(&self) -> Result<Vec<PastCommit>> {
        self.state().refuse_child()?;
        Ok(past::read(self.state())?.records.iter().map(PastCommit::new).collect())
    }

    /// Opens a view of an earlier generation, as far as its files were kept. Writers wait while it is open,
    /// as for [`view`](Self::view). Generation 0 is the state before the first commit.
    ///
    /// A path that a later commit has changed is shown as that commit found it. So if another program changed
    /// it just before that, this change is in the view. Other paths are shown as they are now. Each kept
    /// file is read once when it is opened, and compared with its checksum. Symlinks are followed as they are
    /// now. What cannot be known is an error: see [`Reason`](crate::Reason).
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the history does not reach back to this generation. The view's methods return it,
    /// too: if a file was not kept, or has changed since it was kept. And if a program that knows nothing
    /// of cosave has changed it, so that nobody knows what it was. Those of [`history`](Self::history).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().keep(10).open(dir.path())?;
    /// let first = store.update(|tx| tx.write("a", "1"))?.generation();
    /// store.update(|tx| { tx.write("a", "2")?; tx.write("b", "2") })?;
    /// let view = store.view_at(first)?;
    /// assert_eq!(view.read("a")?, b"1");
    /// assert!(!view.exists("b")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn view_at(&self, generation: impl Into<Generation>) -> Result<View> {
        self.state().refuse_child()?;
        let state = past::read(self.state())?.into_state(self.state(), generation.into())?;
        Ok(View::of(Arc::clone(&self.opened), state))
    }

    /// Brings the files of an earlier generation back, as a new commit. Files that no commit has changed since
    /// then stay as they are. A file that exists gets its old bytes and permissions. One that is gone is
    /// made anew: it belongs to this user, and has no set-ID bit. If its group is not the old one, or there was
    /// or is an access control list, its group gets only the rights that all others have. Its time stamp is
    /// new. Directories that were made since then go if they are empty.
    ///
    /// A directory that comes back has its old mode before anything is in it, without set-ID and sticky bits. It
    /// belongs to this user, and to its old group if the system allows that. What was said of a file's group holds
    /// for it, too. If no commit has removed it, but another program, it is open to its owner alone.
    ///
    /// If another program has changed a file since its newest commit, that is a [`Conflict`](Error::Conflict),
    /// and nothing is changed. If nothing has to be changed, nothing is committed. Whoever may write in the
    /// root may change its history, too.
    ///
    /// # Errors
    /// Those of [`view_at`](Self::view_at) and [`Transaction::commit`](crate::Transaction::commit).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().keep(10).open(dir.path())?;
    /// let good = store.update(|tx| tx.write("a", "good"))?.generation();
    /// store.update(|tx| tx.write("a", "bad"))?;
    /// store.update(|tx| tx.remove("a"))?;
    /// let commit = store.restore(good)?;
    /// assert_eq!(commit.generation(), 4);
    /// assert_eq!(std::fs::read(dir.path().join("a"))?, b"good");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restore(&self, generation: impl Into<Generation>) -> Result<Commit> {
        let generation = generation.into();
        self.bring_back(|history| Ok((history.plan(self.state(), generation)?, None)))
    }

    /// Undoes the newest commit, as a new commit: brings back what it has replaced or removed. A second undo
    /// goes one commit further back, as in an editor, and [`redo`](Self::redo) goes forth again. A
    /// [`restore`](Self::restore) is a commit like any other here, and is undone like it.
    ///
    /// Each undo is a commit. So it uses one of the generations that are kept. A commit that left every file with
    /// the bytes that it had is passed over: nothing of it can be undone.
    ///
    /// # Errors
    /// - [`Error::Unsupported`] if there is nothing to undo, or it was not kept.
    /// - Those of [`restore`](Self::restore).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().keep(10).open(dir.path())?;
    /// for text in ["one", "two", "three"] {
    ///     store.update(|tx| tx.write("a", text))?;
    /// }
    /// let text = || std::fs::read_to_string(dir.path().join("a"));
    /// store.undo()?;
    /// assert_eq!(text()?, "two");
    /// store.undo()?;
    /// assert_eq!(text()?, "one");
    /// store.redo()?;
    /// store.redo()?;
    /// assert_eq!(text()?, "three");
    /// assert!(store.redo().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn undo(&self) -> Result<Commit> {
        self.go(Direction::Back)
    }

    /// Redoes what was undone last, as a new commit. After another commit nothing can be redone.
    ///
    /// # Errors
    /// Those of [`undo`](Self::undo).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().keep(10).open(dir.path())?;
    /// store.update(|tx| tx.write("a", "one"))?;
    /// store.update(|tx| tx.write("a", "two"))?;
    /// store.undo()?;
    /// store.redo()?;
    /// assert_eq!(std::fs::read(dir.path().join("a"))?, b"two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn redo(&self) -> Result<Commit> {
        self.go(Direction::Forth)
    }

    /// Removes the whole history, for a root that is to keep none any more. Recovers first. A
    /// [lock](Self::lock) of another process does not hold it up, as it is no commit.
    ///
    /// Waits once for the disk, whatever the durability: afterwards no power loss brings the history back. The
    /// bytes of its files are not overwritten.
    ///
    /// # Errors
    /// - Those of [`recover`](Self::recover).
    /// - [`Error::Io`] if it cannot be removed, or not be made durable. Then a part of it may be gone.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = cosave::Store::options().keep(10).open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// store.forget_history()?;
    /// assert!(store.history()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forget_history(&self) -> Result<()> {
        self.state().may_change()?;
        self.opened.forget_history()
    }

    fn go(&self, direction: Direction) -> Result<Commit> {
        self.bring_back(|history| {
            let (plan, undo) = history::step(self.state(), history, direction)?;
            Ok((plan, Some(undo)))
        })
    }

    /// Commits a plan. If others commit meanwhile, it is made anew.
    fn bring_back(&self, plan: impl Fn(&History) -> Result<(Plan, Option<Undo>)>) -> Result<Commit> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.state().may_change()?;
            let (plan, undo) = plan(&past::read(self.state())?)?;
            let mut transaction = self.begin()?;
            let committed = transaction.put_back(&plan, undo).and_then(|()| transaction.commit());
            match committed {
                Err(Error::Conflict { found: Clash::Generation { .. }, .. }) if tries < TRIES_MAX => {}
                // It is published, and may be in place. Another try would go back twice.
                Err(error) if error.outcome() != Outcome::NothingHappened => return Err(error),
                // What was kept may have fallen out meanwhile.
                Err(_) if tries < TRIES_MAX && self.generation()? != plan.newest => {}
                result => return result,
            }
        }
    }
}
