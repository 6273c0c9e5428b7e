//! Open: the order of an opening, and what an open store holds.
//!
//! ```text
//! look      at the control directory, without a lock; a root that was left clean is open now
//! lock      exclusive, and what is there is looked at under it
//! recover   finish what was published
//! sweep     remove what dead sessions left
//! ```
//!
//! [`Opened`] holds what the commits of one store share, above the steps: its
//! session, the queue of its commits, and its deferred waits.

use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use super::apply;
use super::caller::Caller;
use super::commit::{self, CommitQueue, Receipt};
use super::control::{self, Control, Owner};
use super::flush;
use super::gate::{self, Closed};
use super::history;
use super::lease::{self, Held, Sharing};
use super::lock::{self, Turn, Wait};
use super::read::{self, Reading};
use super::recover;
use super::refused::Refused;
use super::root::{Root, guard};
use super::session::Session;
use super::stage::Collected;
#[cfg(feature = "sim")]
use super::stage::Staged;
use super::sweep::{self, Swept};
use crate::error::Result;
use crate::fs::FileSystem;
use crate::generation::{Generation, TransactionId};
use crate::mutation::{Rule, keeps};
use crate::options::{DryRun, Settings};
use crate::report::{Abandoned, RecoveryReport, TransactionOutcome};

/// How long is tried at least to lock a root. A commit that only looks whether it is locked holds the lock for a
/// moment, and is not to be taken for one who has locked it.
const TRY_MIN: Duration = Duration::from_millis(10);

/// An open root, and everything that its transactions share.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) root: Arc<Root>,
    session: Mutex<Option<Arc<Session>>>,
    queue: CommitQueue,
    lease: lease::Slot,
}

/// Opens a root. Takes no lock if it was left clean.
pub(crate) fn open(fs: Arc<dyn FileSystem>, settings: Settings) -> Result<Opened> {
    let repairs = settings.recover && !settings.read_only;
    let root = Arc::new(Root::new(fs, settings));
    let opened = Opened::new(root);
    control::refuse_other_root(&opened.root)?;
    if repairs {
        if opened.root.fs.has_control_elsewhere() && control::owner(&opened.root)? == Owner::Moved {
            // Otherwise the next directory at the old path would be taken for the root.
            lock::claim(&opened.root)?;
        }
        let control = Control::look(&opened.root)?;
        let unpaid = recover::must_be_paid(&opened.root, &control, opened.root.settings.durability)?;
        if control.needs_recovery() || unpaid || sweep::is_needed(&opened.root, &control)? {
            opened.sweep()?;
        }
    }
    Ok(opened)
}

/// The root, locked for one caller. First others of this store may go on, then other stores.
#[derive(Debug)]
pub(crate) struct Locking {
    pub(crate) closed: Closed,
    _lease: Arc<Held>,
}

impl Opened {
    fn new(root: Arc<Root>) -> Self {
        Self { root, session: Mutex::default(), queue: CommitQueue::default(), lease: Mutex::default() }
    }

    /// The same root for a dry run: nothing is written in it, not even a lock file, and all that is
    /// collected stays in memory.
    pub(crate) fn for_dry_run(&self) -> Self {
        let assumed = if self.root.settings.read_only { DryRun::Permission } else { DryRun::Nothing };
        let settings = Settings {
            read_only: true,
            dry_run: Some(assumed),
            inline_max: usize::MAX,
            ..self.root.settings.clone()
        };
        let root = Arc::new(Root::new(Arc::clone(&self.root.fs), settings));
        Self::new(root)
    }

    /// Has the root to itself, for this store.
    pub(crate) fn lease(&self, timeout: Duration, sharing: Sharing) -> Result<Arc<Held>> {
        self.root.may_change()?;
        lease::take(&self.root, &self.lease, &mut Wait::within(&self.root, timeout), sharing)
    }

    /// Has the root to itself, for one caller: for this thread, and for all who have the key.
    pub(crate) fn lock(&self, timeout: Duration, thread: Option<ThreadId>) -> Result<Locking> {
        self.root.may_change()?;
        let mut wait = Wait::within(&self.root, timeout.max(TRY_MIN));
        let closed = gate::close(&self.root, &self.queue.gate, &mut wait, thread)?;
        let lease = lease::take(&self.root, &self.lease, &mut wait, Sharing::Shared)?;
        Ok(Locking { closed, _lease: lease })
    }

    /// Finishes every published commit, whoever published it.
    pub(crate) fn recover(&self) -> Result<RecoveryReport> {
        let mut locked = lock::exclusive(&self.root)?;
        recover::recover(&self.root, &mut locked).map(|recovered| recovered.report)
    }

    /// Recovers, then removes what dead sessions left.
    pub(crate) fn sweep(&self) -> Result<RecoveryReport> {
        let mut locked = lock::exclusive(&self.root)?;
        let recovered = recover::recover(&self.root, &mut locked)?;
        let swept = sweep::sweep(&self.root, &locked, &recovered)?;
        let Swept { removed: swept, refused: unswept } = swept;
        let report = RecoveryReport { swept, unswept, ..recovered.report };
        self.root.note_recovery(&report);
        Ok(report)
    }

    /// Removes the whole history, after a recovery, which may need what a pending commit has kept.
    pub(crate) fn forget_history(&self) -> Result<()> {
        let mut locked = lock::exclusive(&self.root)?;
        recover::recover(&self.root, &mut locked)?;
        history::forget_all(&self.root)
    }

    /// The outcome of a transaction.
    pub(crate) fn outcome_of(&self, id: TransactionId) -> Result<TransactionOutcome> {
        let mut locked = lock::exclusive(&self.root)?;
        recover::recover(&self.root, &mut locked)?;
        recover::outcome_of(&self.root, &locked, id)
    }

    /// Gives up a generation that cannot be recovered.
    pub(crate) fn abandon(&self, generation: Generation) -> Result<Abandoned> {
        let locked = lock::exclusive(&self.root)?;
        recover::abandon(&self.root, &locked, generation)
    }

    /// Sweeps, then looks for staged files in the whole tree.
    pub(crate) fn deep_sweep(&self) -> Result<RecoveryReport> {
        let mut locked = lock::exclusive(&self.root)?;
        let recovered = recover::recover(&self.root, &mut locked)?;
        let Swept { removed: mut swept, refused: unswept } = sweep::sweep(&self.root, &locked, &recovered)?;
        let own = guard(&self.session).as_ref().map(|session| session.id());
        swept.extend(sweep::deep(&self.root, &locked, &recovered, own)?);
        let report = RecoveryReport { swept, unswept, ..recovered.report };
        self.root.note_recovery(&report);
        Ok(report)
    }

    /// Begins to read one state of the root.
    pub(crate) fn read(&self, caller: &Caller) -> Result<Reading> {
        self.root.refuse_child()?;
        read::begin_in(&self.root, &mut Wait::of(&self.root, caller))
    }

    /// Commits what a transaction has collected.
    pub(crate) fn commit(&self, mut collected: Collected, turn: Option<&Turn>) -> Result<Receipt, Refused> {
        collected.caller = collected.caller.for_call(self.root.settings.lock_timeout);
        if collected.caller.claim.is_withdrawn() {
            return Err(Refused { error: self.root.cancelled(), collected: Some(Box::new(collected)) });
        }
        let receipt = commit::commit(&self.root, &self.queue, collected, turn)?;
        Ok(self.delete_hidden(receipt))
    }

    /// Deletes what a commit has removed, when it is acknowledged. That can take long, and nobody waits for it.
    fn delete_hidden(&self, mut receipt: Receipt) -> Receipt {
        apply::delete_hidden(&self.root, receipt.hidden.0.drain(..), &receipt.hidden.1);
        receipt
    }

    /// Asks all others to let an update go first.
    pub(crate) fn turn(&self, caller: &Caller) -> Option<Turn> {
        lock::turn(&self.root, caller)
    }

    /// Waits until every commit is durably in place.
    pub(crate) fn flush(&self) -> Result<()> {
        self.root.refuse_child()?;
        flush::flush(&self.root)
    }

    /// Stages what a transaction has collected, for a batch that a test makes.
    #[cfg(feature = "sim")]
    pub(crate) fn stage(&self, collected: Collected) -> Result<Staged, Refused> {
        commit::stage(&self.root, collected)
    }

    /// Commits what a test has staged, in the batches that threads would make of it.
    #[cfg(feature = "sim")]
    pub(crate) fn commit_batches(
        &self,
        staged: Vec<Staged>,
    ) -> Vec<(TransactionId, Result<Receipt, Refused>)> {
        let answers = commit::commit_all(&self.root, &self.queue, staged).into_iter();
        answers.map(|(id, answer)| (id, answer.map(|receipt| self.delete_hidden(receipt)))).collect()
    }

    /// This store's session. It is made when it is first needed.
    pub(crate) fn session(&self) -> Result<Arc<Session>> {
        self.root.may_change()?;
        let mut slot = guard(&self.session);
        if let Some(session) = slot.as_ref() {
            // A session without a mark counts as dead, and its records are gone with the mark.
            if !keeps(Rule::RenewSession) || session.is_marked() {
                return Ok(Arc::clone(session));
            }
        }
        lock::ensure(&self.root)?;
        let session = Arc::new(Session::start(&self.root)?);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Waits for what was put off.
    pub(crate) fn finish(&self) -> Result<()> {
        self.root.refuse_child()?;
        if self.root.settings.read_only {
            return Ok(());
        }
        self.root.may_change()?;
        flush::close(&self.root)
    }

    /// Waits for what was put off, and ends the session as soon as no transaction needs it.
    pub(crate) fn close(&self) {
        if !self.root.is_own_process() {
            return;
        }
        if self.root.may_change().is_ok() {
            // If a flush fails, the commits stay published, and the next opening finishes them.
            let _ = flush::close(&self.root);
        }
        let session = guard(&self.session).take();
        if let Some(session) = session.filter(|_| self.root.is_poisoned()) {
            // After a failed sync the mark must stay, to lead recovery to what is left.
            session.leave_mark();
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Transactions can outlive their store, and commit.
        self.close();
    }
}
