//! How an earlier state is brought back: the changes of an ordinary transaction,
//! each of which expects what the newest commit of its path has left.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::Transaction;
use crate::error::{Error, Operation, Reason, Result};
use crate::expect::{Clash, Expect};
use crate::manifest::NewDirectory;
use crate::path::RelativePath;
use crate::protocol::history_record::{Becomes, Original, Undo, Was};
use crate::protocol::past::{self, Plan, PlannedStep};
use crate::protocol::resolve::for_any_group;
use crate::protocol::root::guard;

/// The bits of a mode that say who may read, write and execute. A set-ID bit is not given back.
const PERMISSION_BITS: u32 = 0o777;

/// The mode of a directory that comes back. Nobody may do more in it than before. Its sticky bit does not come
/// back, which kept others from removing what is not theirs.
fn mode_again(old: NewDirectory) -> u32 {
    const STICKY: u32 = 0o1000;
    let Some(mode) = old.mode else { return 0o700 };
    let open = if mode & STICKY == 0 { mode } else { mode & !0o022 };
    let open = if old.group.is_none() { for_any_group(open) } else { open };
    open & PERMISSION_BITS | 0o700
}

impl Transaction {
    /// Collects all changes of a plan.
    pub(crate) fn put_back(&mut self, plan: &Plan, undo: Option<Undo>) -> Result<()> {
        self.expect_generation(plan.newest)?;
        guard(&self.snapshot).undo = undo;
        let of = |wanted: fn(&PlannedStep) -> bool| plan.steps.iter().filter(move |step| wanted(step));
        for step in plan.steps.iter() {
            self.expect_what_was_left(step)?;
        }
        self.put_back_directories(plan)?;
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

    /// Makes the directories that come back, and those above what comes back, parents first. They are closed
    /// before anything is in them.
    fn put_back_directories(&mut self, plan: &Plan) -> Result<()> {
        let mut known = HashSet::new();
        for step in plan.steps.iter().filter(|step| matches!(step.was, Was::Directory(_) | Was::File(_))) {
            for above in step.path.parent().chain() {
                if known.insert(above.clone()) && !self.exists(&above)? {
                    // No list says what it was.
                    self.put_back_directory(&above, NewDirectory::default())?;
                }
            }
            let Was::Directory(old) = step.was else { continue };
            match self.exists(&step.path)? {
                // Whoever made it again has said who may enter it.
                true => self.create_dir_all(&step.path)?,
                false => self.put_back_directory(&step.path, old)?,
            }
            known.insert(step.path.clone());
        }
        Ok(())
    }

    fn put_back_directory(&mut self, path: &RelativePath, old: NewDirectory) -> Result<()> {
        self.directory(path).mode(mode_again(old)).of_group(old.group).create()
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
