//! What a store can be asked about its root, and what puts a root in order:
//! recovery, sweeps, and the ways out where neither helps.

use super::Store;
use crate::error::Result;
use crate::generation::{Generation, TransactionId};
use crate::protocol::control::Control;
use crate::protocol::{sweep, verify};
use crate::report::{Abandoned, Mismatch, RecoveryReport, Status, TransactionOutcome};

impl Store {
    /// Finishes every published commit, whoever published it. `open` and every commit do this too.
    ///
    /// # Errors
    /// As for [`StoreOptions::open`](crate::StoreOptions::open).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let report = store.recover()?;
    /// assert!(report.rolled_forward.is_empty(), "nobody was killed: {report}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recover(&self) -> Result<RecoveryReport> {
        self.state().may_change()?;
        self.opened.recover()
    }

    /// Recovers, then removes what dead sessions left. `open` does this too. Never touches the work of
    /// a living session, or anything that cosave did not make.
    ///
    /// # Errors
    /// As for [`StoreOptions::open`](crate::StoreOptions::open).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// std::fs::write(dir.path().join("somebody's.tmp"), "")?;
    /// assert!(store.sweep()?.swept.is_empty());
    /// assert!(dir.path().join("somebody's.tmp").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sweep(&self) -> Result<RecoveryReport> {
        self.state().may_change()?;
        self.opened.sweep()
    }

    /// Sweeps, then looks in every directory of the root for staged files and directories that belong to no
    /// living session of this root, and removes them. Such files stay behind if the control directory was
    /// removed (`git clean -fdx`). Opens every directory, so it takes time in a large tree.
    ///
    /// Symlinks are not followed. Mount points, and directories that are roots themselves, are left
    /// out, since files staged there may belong to another root. If other processes had open
    /// transactions when the control directory was removed, these lose what they have staged, and fail
    /// with nothing changed.
    ///
    /// # Errors
    /// As for [`StoreOptions::open`](crate::StoreOptions::open), and:
    ///
    /// - [`Error::Unsupported`](crate::Error::Unsupported) if this root lies in another one, whose living sessions may have staged
    ///   files here.
    /// - [`Error::Io`](crate::Error::Io) if a directory cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.write("d/a", "1"))?;
    /// assert!(store.deep_sweep()?.swept.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deep_sweep(&self) -> Result<RecoveryReport> {
        self.state().may_change()?;
        self.opened.deep_sweep()
    }

    /// Waits until a power loss can undo none of the earlier commits, for any program. Only commits
    /// weaker than [`Durability::Full`](crate::Durability::Full) need it. Without a power loss, other
    /// programs see each commit as soon as it returns, whether a flush follows or not.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io) if a sync fails. The commits stay published, and the next opening finishes them.
    /// - [`Error::Locked`](crate::Error::Locked) if others hold the lock for too long.
    /// - [`Error::Poisoned`](crate::Error::Poisoned) after a failed sync.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::{Durability, Store};
    ///
    /// let store = Store::options().durability(Durability::Process).open(dir.path())?;
    /// for number in 0..100 {
    ///     store.update(|tx| tx.write("progress", number.to_string()))?;
    /// }
    /// store.flush()?;                       // one wait for all of them
    /// assert_eq!(store.generation()?, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush(&self) -> Result<()> {
        self.opened.flush()
    }

    /// Gives up a generation that is published but cannot be recovered
    /// ([`Error::Corrupt`](crate::Error::Corrupt)). Its targets stay as they are. The next sweep
    /// removes its staged files, so copy what you need of them first. Later generations are not
    /// affected. A directory that was hidden gets its name back. If others have made something there by now,
    /// it is set aside: [`Abandoned::set_aside`].
    ///
    /// If such a generation prevents the root from opening, open it with [`StoreOptions::recover`](crate::StoreOptions::recover) set
    /// to `false`.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io) if the generation is not pending.
    /// - [`Error::Unsupported`](crate::Error::Unsupported) if an earlier one is still pending: what can be recovered is recovered
    ///   first.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// let refused = store.abandon(1).unwrap_err();    // it is in place, and nothing is in its way
    /// assert!(matches!(refused, cosave::Error::Io { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abandon(&self, generation: impl Into<Generation>) -> Result<Abandoned> {
        self.state().may_change()?;
        self.opened.abandon(generation.into())
    }

    /// The outcome of a transaction whose commit returned [`Error::InDoubt`](crate::Error::InDoubt).
    /// Finishes published commits first, so ask a store that was opened after the error.
    ///
    /// The manifest gives the answer until a later commit has superseded it. The recovery that finds
    /// the doubt keeps the answer. The outcome is [`Unknown`](TransactionOutcome::Unknown) if a power
    /// loss has erased every trace. Then the transaction is not committed if the root's generation is
    /// below that of the error. For an acknowledged commit the outcome is unknown once it is
    /// superseded.
    ///
    /// # Errors
    /// As for [`StoreOptions::open`](crate::StoreOptions::open).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// use cosave::TransactionOutcome;
    ///
    /// let commit = store.update(|tx| tx.write("a", "1"))?;
    /// let outcome = store.outcome_of(commit.transaction())?;
    /// assert_eq!(outcome, TransactionOutcome::Committed { generation: commit.generation() });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn outcome_of(&self, transaction: TransactionId) -> Result<TransactionOutcome> {
        self.state().may_change()?;
        self.opened.outcome_of(transaction)
    }

    /// The state of the root. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the control directory cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// let status = store.status()?;
    /// assert_eq!(status.generation, 1);
    /// assert!(status.pending.is_empty() && !status.needs_sweep);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn status(&self) -> Result<Status> {
        let control = Control::look(self.state())?;
        Ok(Status {
            generation: control.newest(),
            pending: control.not_in_place().into_iter().collect(),
            sessions_alive: sweep::alive(self.state(), &control)?,
            needs_sweep: sweep::is_needed(self.state(), &control)?,
        })
    }

    /// Compares the files of the newest commits with the checksums in their manifests. Reads every byte
    /// of them, and changes nothing. What this user may not read is
    /// [`Unreadable`](crate::Problem::Unreadable), and was not compared.
    ///
    /// A root has the manifests of its last commit or two, so files that only earlier commits wrote are not
    /// looked at. Only bytes, lengths and times are compared, and whether something is there. Modes, owners
    /// and attributes are not.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io) if a file cannot be read for another reason.
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if a manifest is damaged that is not superseded.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// store.update(|tx| tx.write("a", "1"))?;
    /// assert!(store.verify()?.is_empty());
    /// std::fs::write(dir.path().join("a"), "edited")?;
    /// assert_eq!(store.verify()?[0].to_string(), "a of generation 1 was changed later");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify(&self) -> Result<Vec<Mismatch>> {
        verify::verify(self.state())
    }

    /// What this store's last recovery did, if it found anything: at open, or before a commit or a view
    /// that found a dead writer's commit.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// let report = store.last_recovery();
    /// if !report.is_clean() {
    ///     eprintln!("{report}");
    /// }
    /// assert!(report.rolled_forward.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn last_recovery(&self) -> RecoveryReport {
        self.state().last_recovery()
    }

    /// The newest generation that is published; 0 before the first commit.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the control directory cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = cosave::Store::open(dir.path())?;
    /// assert_eq!(store.generation()?, 0);
    /// store.update(|tx| tx.write("a", "1"))?;
    /// assert_eq!(store.generation()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(&self) -> Result<Generation> {
        Ok(Control::look(self.state())?.newest())
    }
}
