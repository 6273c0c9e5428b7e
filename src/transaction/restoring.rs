//! How an earlier state is brought back: the changes of an ordinary transaction,
//! each of which expects what the newest commit of its path has left.

use std::cmp::Reverse;

use super::Transaction;
use crate::error::{Error, Operation, Reason, Result};
use crate::expect::{Clash, Expect};
use crate::protocol::history_record::{Becomes, Original, Undo, Was};
use crate::protocol::past::{self, Plan, PlannedStep};
use crate::protocol::resolve::for_any_group;
use crate::protocol::root::guard;

/// The bits of a mode that say who may read, write and execute. A set-ID bit is not given back.
const PERMISSION_BITS: u32 = 0o777;

impl Transaction {
    /// Collects all changes of a plan.
    pub(crate) fn put_back(&mut self, plan: &Plan, undo: Option<Undo>) -> Result<()> {
        self.expect_generation(plan.newest)?;
        guard(&self.snapshot).undo = undo;
        let of = |wanted: fn(&PlannedStep) -> bool| plan.steps.iter().filter(move |step| wanted(step));
        for step in plan.steps.iter() {
            self.expect_what_was_left(step)?;
        }
        for step in of(|step| step.was == Was::Directory) {
            self.create_dir_all(&step.path)?;
        }
        for step in of(|step| step.was == Was::Nothing && step.now != Becomes::Directory) {
            self.remove_if_exists(&step.path)?;
        }
        for step in &plan.steps {
            if let Was::File(original) = &step.was {
                self.put_back_file(step, original)?;
            }
        }
        let mut made: Vec<_> =
            of(|step| step.was == Was::Nothing && step.now == Becomes::Directory).collect();
        made.sort_by_key(|step| Reverse(step.path.names().count()));
        for step in made {
            // What others have put there since keeps it in place.
            if self.exists(&step.path)? && self.list(&step.path)?.is_empty() {
                self.remove_dir(&step.path)?;
            }
        }
        Ok(())
    }

    /// Expects that nobody but cosave has changed the path since its newest commit.
    fn expect_what_was_left(&mut self, step: &PlannedStep) -> Result<()> {
        if self.resolve_any(step.path.as_ref())? != step.path {
            // A symlink leads elsewhere now.
            return Err(Error::Conflict { path: self.root().full(&step.path).into(), found: Clash::Changed });
        }
        match &step.now {
            Becomes::File(written) => match written.blake3 {
                Some(checksum) => Self::expect(self, &step.path, Expect::Checksum(checksum)),
                None => Self::expect(self, &step.path, Expect::Present),
            },
            Becomes::Nothing if matches!(step.was, Was::File(_)) => {
                Self::expect(self, &step.path, Expect::Absent)
            }
            Becomes::Nothing | Becomes::Directory => Ok(()),
            // No plan has a step from these.
            Becomes::Link(_) | Becomes::MovedTree(_) | Becomes::RemovedTree => Ok(()),
        }
    }

    fn put_back_file(&mut self, step: &PlannedStep, original: &Original) -> Result<()> {
        let mut kept = past::open(self.root(), &step.kept, &step.path, original)?;
        let mode = original.mode & PERMISSION_BITS;
        // Whoever could not read the original may not read what comes back.
        let is_known = original.group.is_some() && (step.mode.is_none() || step.group == original.group);
        let mode = if is_known { mode } else { for_any_group(mode) };
        let mut writer = match step.mode {
            Some(now) if now == mode => self.writer(&step.path)?,
            _ => self.file(&step.path).mode(mode).of_group(original.group).writer()?,
        };
        let unread = self.root().error(Operation::Read, &step.kept);
        let length = original.stamp.length;
        let copied = writer.copy(&mut *kept, |file| file.system_file(), length, unread);
        match copied {
            Ok(checksum) if original.blake3 == Some(checksum) => writer.finish(),
            Ok(_) => {
                writer.discard();
                let path = self.root().full(&step.path);
                Err(Error::Unsupported { path: path.into(), reason: Reason::KeptChanged })
            }
            Err(error) => {
                writer.discard();
                Err(error)
            }
        }
    }
}
