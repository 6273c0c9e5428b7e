//! What a transaction expects of the root, beyond what it reads.

use std::path::Path;

use super::Transaction;
use crate::error::{Error, Result};
use crate::expect::{Clash, Expect};
use crate::generation::Generation;
use crate::path::RelativePath;
use crate::protocol::expected::{self, Expected};
use crate::protocol::glance::Question;
use crate::protocol::root::guard;
use crate::protocol::snapshot;

impl Transaction {
    /// Expects something of a path. If it is not true now, or not when the transaction commits, that is a
    /// [`Conflict`](Error::Conflict), and nothing is changed. It is about what others have left there: the
    /// transaction's own changes do not count. `Absent` and `Present` are about the name itself, even if it is
    /// that of a symlink that leads nowhere. `Unchanged` is about the symlink and the file that it leads to,
    /// if that lies in the root.
    ///
    /// # Errors
    /// - [`Error::Conflict`] if it is not true now. The commit is a conflict then, too, unless it is true
    ///   again by that time.
    /// - Those of [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::{Checksum, Expect, Store};
    ///
    /// let store = Store::open(dir.path())?;
    /// # cosave::write(dir.path().join("config"), "old")?;
    /// let known = Checksum::of(b"old");            // of what was shown to a person, perhaps hours ago
    /// let mut tx = store.begin()?;
    /// tx.expect("config", Expect::Checksum(known))?;
    /// tx.expect("config.lock", Expect::Absent)?;
    /// tx.write("config", "new")?;
    /// tx.commit()?;
    /// let mut tx = store.begin()?;
    /// assert!(tx.expect("config", Expect::Checksum(known)).unwrap_err().is_conflict());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expect(&mut self, path: impl AsRef<Path>, expect: Expect) -> Result<()> {
        let path = path.as_ref();
        let link = self.link_on_disk(path)?;
        let name = |link: Option<RelativePath>| link.map_or_else(|| self.resolve_any(path), Ok);
        let (path, expected) = match expect {
            Expect::Absent => (name(link)?, Expected::Absent),
            Expect::Present => (name(link)?, Expected::Present),
            Expect::Checksum(checksum) => (self.resolve(path)?.path, Expected::Checksum(checksum)),
            Expect::Unchanged => {
                let path = match (link, self.resolve_to_read(path)) {
                    (_, Ok(path)) => path,
                    // It leads to no file of the root.
                    (Some(link), Err(_)) => return self.glance(&link, Question::Link).map(drop),
                    (None, Err(error)) => return Err(error),
                };
                let reading = self.join()?;
                let (_, seen) = snapshot::open(self.root(), &reading, &path)?;
                return guard(&self.snapshot).remember(self.root(), &path, seen);
            }
        };
        let reading = self.join()?;
        let mut snapshot = guard(&self.snapshot);
        snapshot.expectations.add(path.clone(), expected);
        let met = expected::check(self.root(), &reading, &snapshot.glances, &path, expected);
        drop(snapshot);
        if met.is_err() {
            guard(&self.draft).occupied.insert(path);
        }
        met.map_err(|error| self.named(error))
    }

    /// Expects that nobody has committed since this generation, whatever the commit changed. So a save
    /// that was prepared long ago, or elsewhere, never lands over a newer one. In
    /// [`Store::update`](crate::Store::update) it is met at no later try, unless the function asks for the
    /// generation anew each time. The conflict is returned then.
    ///
    /// # Errors
    /// - [`Error::Conflict`] if the newest generation is another one now. So is the commit, then or if
    ///   others have committed by that time.
    /// - Those of [`Store::view`](crate::Store::view).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let generation = store.generation()?;
    /// let mut late = store.begin()?;
    /// late.expect_generation(generation)?;
    /// late.write("a", "late")?;
    /// store.update(|tx| tx.write("b", "meanwhile"))?;
    /// assert!(late.commit().unwrap_err().is_conflict());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expect_generation(&mut self, generation: impl Into<Generation>) -> Result<()> {
        let expected = generation.into();
        self.root().refuse_child()?;
        self.refuse_if_over(&guard(&self.draft))?;
        let found = self.join()?.generation;
        guard(&self.snapshot).expectations.expect_generation(expected);
        if found == expected {
            return Ok(());
        }
        Err(Error::Conflict { path: self.root().path().into(), found: Clash::Generation { expected, found } })
    }
}
