//! Commit: all waits of a commit, in order, on this page.
//!
//! ```text
//! record    where it will be staged                   before the first staged file of a directory
//! stage     beside the target, no lock                barrier 1, of long saves only
//! publish   one rename of the manifest, locked        barrier 2: the commit point
//! apply     staged files over their targets           barrier 3
//! retire    pending -> applied                        no barrier
//! ```
//!
//! A small save has the bytes of its files in its manifest. Recovery needs no
//! staged file then, so staged files, manifest and its published name all wait
//! together in barrier 2.
//!
//! The steps are in `stage`, `check`, `publish` and `apply`, the waits here.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use super::batch::{self, Apart};
use super::check::Freshness;
use super::control::{self, Control, WAIVED_MAX};
use super::deferred::Moved;
use super::gate::{self, Gate};
use super::layout::ControlName;
use super::leading::Leader;
use super::lock::{Locked, Turn, Wait};
use super::publish::{self, Published};
use super::queue::{self, Queue};
use super::refused::Refused;
use super::root::{Root, guard};
use super::session::Session;
use super::shift::{self, Shift};
use super::stage::{self, Backing, Collected, KeptFile, Staged, StagedFile, Staging};
use super::state::InPlace;
use super::{apply, built, check, history, made, permissions, recover};
use crate::error::{Error, Operation, Result};
use crate::fs::{Barrier, Durable, NewFile, Unsynced, Wave};
use crate::generation::{Generation, TransactionId};
use crate::manifest::{Before, Entry};
use crate::mutation::{Rule, keeps};
use crate::options::Durability;
use crate::path::RelativePath;
use crate::preserve::NotPreserved;
use crate::progress::Progress;

/// What a commit returns to its transaction.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) generation: Generation,
    pub(crate) durable: Durable,
    pub(crate) lost: Vec<NotPreserved>,
    /// What it has found at its paths under the lock.
    pub(crate) found: Vec<(RelativePath, Option<Before>)>,
    /// What it has hidden, to be deleted without the lock, and who records that.
    pub(crate) hidden: (Vec<RelativePath>, Arc<Session>),
}

/// The transactions of one store that wait to be published, and what the last batch has left to the next.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    threads: Queue<Staged, Answer>,
    left: Mutex<Option<Shift>>,
    /// Who may commit, while one has the root locked.
    pub(crate) gate: Arc<Gate>,
}

type Answer = Result<Receipt, Refused>;
type Round<'a> = queue::Round<'a, Staged, Answer>;

/// Commits what a transaction has collected, in one batch with others that are ready. Without a turn of its
/// own it first lets an update go whose turn it is, and who has the root locked. It does so before it can
/// lead others, who may be these.
pub(crate) fn commit(
    root: &Root,
    queue: &CommitQueue,
    collected: Collected,
    turn: Option<&Turn>,
) -> Result<Receipt, Refused> {
    let staged = stage(root, collected)?;
    let (files, bytes) = built::count(&staged.entries);
    // The last moment to cancel: another thread may publish it as soon as it waits in the queue.
    if let Err(error) = root.tell(|| Progress::Committing { files, bytes }) {
        return Err(Refused::with(error, staged));
    }
    let _pass = match gate::enter(root, &queue.gate, &staged.caller, turn) {
        Ok(pass) => pass,
        Err(error) => return Err(Refused::with(error, staged)),
    };
    let panicked = |id: TransactionId| {
        let source = io::Error::other("the thread that published this batch panicked");
        let error = Error::io(Operation::Publish, root.path())(source);
        Err(error.in_doubt(Generation::default(), id).into())
    };
    let (own, patience) = (Some(staged.id), staged.caller.patience.clone());
    patience.iter().for_each(|patience| patience.begin(root.fs.elapsed()));
    let work = |batch, round: &Round<'_>| commit_batch(&Leader { root, round, own, refused }, queue, batch);
    let answer = queue.threads.submit(staged, work, panicked, || root.fs.elapsed());
    patience.iter().for_each(|patience| patience.end(root.fs.elapsed()));
    answer
}

/// Commits what a test has staged, in the batches that threads would make of it.
#[cfg(feature = "sim")]
pub(crate) fn commit_all(
    root: &Root,
    queue: &CommitQueue,
    staged: Vec<Staged>,
) -> Vec<(TransactionId, Answer)> {
    let work = |batch, round: &Round<'_>| {
        commit_batch(&Leader { root, round, own: None, refused }, queue, batch);
    };
    queue.threads.submit_all(staged, work)
}

/// How often a directory may disappear before we give up. It does so once when the transaction that
/// made it is aborted, and several threads may abort again and again.
const BEGIN_TRIES_MAX: u32 = 32;

/// Durably records where a transaction will stage and which directories it will make, and makes them. An
/// aborted transaction may have removed a directory since it was found; then it is made again.
pub(crate) fn prepare(
    root: &Root,
    staging: &mut Staging,
    directories: &BTreeSet<RelativePath>,
) -> Result<()> {
    for _ in 1..BEGIN_TRIES_MAX {
        match prepare_once(root, staging, directories) {
            Err(error) if error.is_not_found() => root.fs.forget_directories(),
            result => return result,
        }
    }
    prepare_once(root, staging, directories)
}

/// This is one wait for all directories, and none if all are on record.
fn prepare_once(root: &Root, staging: &mut Staging, directories: &BTreeSet<RelativePath>) -> Result<()> {
    // Another transaction of this session may have made one of them, and may not have synced it.
    for directory in staging.session.undurable(directories) {
        staging.wave.add(Unsynced::directory(directory.parent()));
    }
    let looked = stage::look(root, directories)?;
    made::refuse_taken(root, staging, &looked)?;
    let (wave, written) = staging.session.write_records(directories, &looked)?;
    // Lost without this sync: the knowledge of what was staged or made there, which would then stay for
    // ever. Also lost: a directory that others have made anew, and this commit with it. A crash before
    // it leaves only this session's own files, which the sweep finds by listing `sessions`.
    let durable = root.sync(wave)?;
    if let Some(record) = staging.session.recorded(written, &looked.missing, durable) {
        staging.cleanup.add_record(record);
    }
    made::make(root, staging, looked.missing)
}

/// Stages something in a directory that is prepared. An aborted transaction may have removed the directory
/// meanwhile; then it is prepared again.
pub(crate) fn stage_in<T>(
    root: &Root,
    staging: &mut Staging,
    directory: &RelativePath,
    stage: impl Fn(&Root, &mut Staging) -> Result<T>,
) -> Result<T> {
    for _ in 1..BEGIN_TRIES_MAX {
        match stage(root, staging) {
            Err(error) if error.is_not_found() => {
                root.fs.forget_directories();
                prepare(root, staging, &[directory.clone()].into())?;
            }
            result => return result,
        }
    }
    stage(root, staging)
}

/// Stages a file from memory. Its directory is prepared.
pub(crate) fn stage_kept(root: &Root, staging: &mut Staging, file: &KeptFile, at: u64) -> Result<StagedFile> {
    let begin = |root: &Root, staging: &mut Staging| stage::begin(root, staging, &file.target, at);
    let writer = stage_in(root, staging, &file.target.place().parent(), begin)?;
    let staged = stage::fill(root, staging, writer, &file.bytes)?;
    sync_early(root, staging)?;
    stage::tell_staged(root, &staged);
    Ok(staged)
}

/// Barrier 1, early, if more files are open than one transaction may hold open.
pub(crate) fn sync_early(root: &Root, staging: &mut Staging) -> Result<()> {
    if staging.wave.files_open() < root.fs.files_open_max() {
        return Ok(());
    }
    let full = std::mem::replace(&mut staging.wave, Wave::new(Barrier::Staged));
    // A part of barrier 1, so that these files can be closed. If it fails, nobody knows what it was for.
    let synced = built::sync(root, staging.builds, full).map(drop);
    synced.inspect_err(|error| staging.unpaid = Some(error.clone()))
}

/// Ends the staging of a transaction. A small one owes everything to the wave of its commit point. A
/// long one waits here.
pub(crate) fn stage(root: &Root, collected: Collected) -> Result<Staged, Refused> {
    let Collected { staging, changes, preconditions, snapshot, caller } = collected;
    let Staging { id, session, mut cleanup, wave, unpaid, .. } = staging;
    if let Some(error) = unpaid {
        return Err(error.into());
    }
    let entries: Vec<_> = changes.into_iter().map(|change| change.into_entry(root)).collect();
    let (unpublished, backing) = (ControlName::Unpublished(id).path(), Backing::Manifest(wave));
    cleanup.add_file(unpublished.clone());
    let readers = NewFile::Private;
    let mut staged = Staged {
        id,
        entries,
        preconditions,
        snapshot,
        unpublished,
        readers,
        cleanup,
        session,
        backing,
        caller,
    };
    match end_staging(root, &mut staged) {
        Ok(()) => Ok(staged),
        Err(error) => Err(Refused::with(error, staged)),
    }
}

fn end_staging(root: &Root, staged: &mut Staged) -> Result<()> {
    stage::owe_names(root, staged)?;
    if publish::may_hold_contents(root, staged)? { Ok(()) } else { make_durable(root, staged) }
}

/// Barrier 1, of long saves: makes everything that the manifest names, and the manifest itself, durable
/// in one wave.
fn make_durable(root: &Root, staged: &mut Staged) -> Result<()> {
    let content = publish::write_manifest(root, staged, &staged.unpublished.clone())?;
    let Backing::Manifest(owed) = &mut staged.backing else { return Ok(()) };
    let mut wave = std::mem::replace(owed, Wave::new(Barrier::Staged));
    wave.add(content);
    // Lost without this sync: the staged files. The manifest could be durable while they are empty,
    // garbage, or without a name. A crash before the end of it leaves staged files that no published
    // manifest names; they are swept.
    let durable = built::sync(root, staged.builds(), wave)?;
    staged.session.durable(staged.cleanup.directories());
    staged.backing = Backing::StagedFiles(durable);
    Ok(())
}

/// Publish, apply, retire, under the lock. If other transactions wait already, barrier 3 is attached to
/// their barrier 2. Then the lock stays with this store, and the next batch acknowledges this one.
fn commit_batch(leader: &Leader<'_, Answer>, queue: &CommitQueue, batch: Vec<Staged>) {
    let (root, round, left) = (leader.root, leader.round, guard(&queue.left).take());
    let begun = leader.wait(batch, |wait| match left {
        None => shift::begin(root, wait),
        Some(shift) => go_on(root, shift, round, wait),
    });
    let Some((mut batch, mut shift)) = begun else { return };
    loop {
        let (published, later) = publish(root, &mut shift, batch, round);
        let (all, newest) = (published.len(), published.last().map(|published| published.generation));
        let moved = apply(root, published, round);
        let is_next = !later.is_empty() || round.others_wait() && !shift.is_over(root);
        // A recovery of what could not be moved would take over what is in place.
        let followed = is_next && moved.len() == all;
        finish(root, &mut shift, moved, followed, round);
        // Large files take a while to remove. Nobody waits for that to see the commit.
        newest.into_iter().for_each(|newest| history::forget_old(root, newest));
        if root.take_copied() {
            // If this fails, the next recovery removes the mark.
            let _ = Control::look(root).map(|mut control| control::remove_marks(root, &mut control));
        }
        if later.is_empty() {
            break;
        }
        // They are checked against what is in place now, as if they were committed one after the other.
        let next = leader.wait(later, |wait| go_on(root, shift, round, wait));
        let Some(next) = next else { return };
        (batch, shift) = next;
    }
    if !shift.owed.is_empty() {
        *guard(&queue.left) = Some(shift);
    }
}

/// Looks again, for the next batch under the same lock. After an error nothing is owed any more.
fn go_on(root: &Root, mut shift: Shift, round: &Round<'_>, wait: &mut Wait<'_>) -> Result<Shift> {
    let look = |locked: &mut Locked| -> Result<bool> {
        root.may_change()?;
        // Others may have moved directories since the last batch.
        root.fs.forget_directories();
        locked.control = Control::look(root)?;
        let is_same = locked.control.newest() >= root.newest_published();
        if is_same {
            recover::finish_earlier(root, locked, root.settings.durability)?;
        }
        Ok(is_same)
    };
    match look(&mut shift.locked) {
        Ok(true) => Ok(shift),
        // Somebody has removed the control directory, and the lock with it.
        Ok(false) => {
            pay(root, &mut shift, round);
            drop(shift);
            shift::begin(root, wait)
        }
        Err(error) => {
            let deferred = root.deferred.generations();
            if shift.owed.iter().all(|published| deferred.contains(&published.generation)) {
                pay(root, &mut shift, round);
            } else {
                // A recovery has taken it over, and failed.
                let failed = Error::io(Operation::Retire, root.path())(io::Error::other(error.to_string()));
                acknowledge(root, &mut shift.owed, &Err(failed), round);
            }
            Err(error)
        }
    }
}

/// The answer to a transaction that is not published.
fn refused(staged: Staged, error: Error) -> (TransactionId, Answer) {
    (staged.id, Err(Refused::with(error, staged)))
}

/// Barrier 2, the commit point: several renames and one wait. A conflict fails only its own
/// transaction. Also returns the transactions that must come after the others.
fn publish(
    root: &Root,
    shift: &mut Shift,
    batch: Vec<Staged>,
    round: &Round<'_>,
) -> (Vec<Published>, Vec<Staged>) {
    let Shift { locked, owed, .. } = shift;
    let Apart { now: batch, mut later, failed } = batch::apart(root, batch);
    round.answer(failed.into_iter().map(|(staged, error)| refused(staged, error)));
    let mut renamed = Vec::new();
    let mut wave = Wave::new(Barrier::Published);
    let mut generation = locked.control.newest();
    let first = generation.next();
    for mut staged in check_all(root, &InPlace(generation), batch, &mut later, round) {
        match publish::publish(root, &mut staged, (generation.next(), first), &mut wave) {
            Ok(()) => {
                // Recovery moves what is published, even if this thread panics.
                staged.cleanup.release();
                generation = generation.next();
                renamed.push((generation, staged));
            }
            Err(error) if staged.is_small() && error.is_out_of_room() => match make_long(root, &mut staged) {
                Ok(()) => later.push(staged),
                Err(error) => round.answer([refused(staged, error)]),
            },
            Err(error) => round.answer([refused(staged, error)]),
        }
    }
    break_rules(root, locked, &renamed);
    if renamed.is_empty() {
        // No wait, so nothing is removed: the newest manifest's name may not be durable.
        wave.waive("nothing was published");
        return (Vec::new(), later);
    }
    // Earlier moves are durable before later ones are made. Otherwise a power loss could keep a later
    // move over a path and undo an earlier one, and recovery would repeat the earlier one over it.
    root.deferred.attach(&locked.control.open(), &mut wave);
    // The commit point. Lost without this sync: the manifest's published name, and the bytes of a small
    // save, while targets are already being moved. That leaves a mix of old and new files that nothing
    // can finish. A crash before it leaves all files old, or a manifest that recovery makes durable
    // before it moves anything.
    let synced = match locked.control.superseded().len() {
        // Otherwise superseded manifests would pile up in a root whose stores never wait.
        WAIVED_MAX.. => root.sync_always(wave),
        _ => root.sync(wave),
    };
    match synced {
        Ok(durable) => {
            if durable != Durable::Waived || !keeps(Rule::KeepWaived) {
                publish::remove_superseded(root, &locked.control);
            }
            retire_paid(root, locked, durable);
            acknowledge(root, owed, &Ok(durable), round);
            root.note_published(generation);
            let publish = |(generation, staged): (Generation, Staged)| {
                locked.control.names.insert(publish::published_name(root, &staged, generation));
                staged.published(generation, durable)
            };
            (renamed.into_iter().map(publish).collect(), later)
        }
        Err(error) => {
            leave_deferred(root);
            round.answer(renamed.into_iter().map(|renamed| leave_in_doubt(root, renamed, &error)));
            acknowledge(root, owed, &Err(error), round);
            (Vec::new(), later)
        }
    }
}

/// Makes a small save a long one, because there is no room for its bytes in a manifest, too.
fn make_long(root: &Root, staged: &mut Staged) -> Result<()> {
    root.remove(Operation::Stage, &staged.unpublished, "it is written anew, or swept")?;
    make_durable(root, staged)
}

/// The manifest is visible, but a power loss may undo it. Only recovery can tell, so everything stays
/// where it is.
fn leave_in_doubt(
    root: &Root,
    (generation, mut staged): (Generation, Staged),
    error: &Error,
) -> (TransactionId, Answer) {
    root.mark_sync_failed(generation);
    root.mark(ControlName::InDoubt(staged.id));
    staged.cleanup.leave_to_recovery();
    (staged.id, Err(error.clone().in_doubt(generation, staged.id).into()))
}

/// Checks a batch under the lock. Returns those that may be published in one wave.
///
/// A check can make a small save a long one, so only after all of them it is known which come `later`.
fn check_all(
    root: &Root,
    state: &InPlace,
    batch: Vec<Staged>,
    later: &mut Vec<Staged>,
    round: &Round<'_>,
) -> Vec<Staged> {
    let mut checked = Vec::with_capacity(batch.len());
    for mut staged in batch {
        match check_under_lock(root, state, &mut staged) {
            Ok(()) => checked.push(staged),
            Err(error) => round.answer([refused(staged, error)]),
        }
    }
    later.splice(0..0, batch::after_smalls(&mut checked));
    checked
}

/// Does steps too early, for crash tests that check that this is noticed.
fn break_rules(root: &Root, locked: &Locked, renamed: &[(Generation, Staged)]) {
    for (generation, staged) in renamed.iter().filter(|_| !keeps(Rule::ApplyAfterPublish)) {
        let moved = apply::move_all(root, *generation, staged.entries.iter().map(|staged| &staged.entry));
        let _ = moved.map(|wave| wave.waive("a crash test asked for it"));
    }
    if !keeps(Rule::KeepApplied) {
        publish::remove_superseded(root, &locked.control);
    }
}

/// Checks a transaction under the lock, and updates what is out of date.
fn check_under_lock(root: &Root, state: &InPlace, staged: &mut Staged) -> Result<()> {
    let changed = match check::under_lock(root, state, staged)? {
        Freshness::Current => None,
        Freshness::Outdated(changed) => Some(changed),
    };
    let mut wave = Wave::new(Barrier::Staged);
    let copied = changed.iter().flatten().try_for_each(|(index, found)| {
        wave.add(permissions::copy(root, &mut staged.entries[*index], found)?);
        Ok(())
    });
    let asks_again = changed.is_some() || keeps(Rule::AskAgain);
    if let Backing::Manifest(owed) = &mut staged.backing {
        owed.absorb(wave);
        copied?;
        // Files and directories may have been closed since this was asked, and the bytes be a secret.
        let stays_small = !asks_again || publish::may_hold_contents(root, staged)?;
        return if stays_small { Ok(()) } else { make_durable(root, staged) };
    }
    if changed.is_none() && !(asks_again && publish::is_too_open(root, staged)?) {
        return Ok(());
    }
    let outdated = match copied.and_then(|()| publish::rewrite_manifest(root, staged, &mut wave)) {
        Ok(outdated) => outdated,
        Err(error) => {
            // If it is tried again, it still owes the wait for the permissions.
            staged.backing = Backing::Manifest(wave);
            return Err(error);
        }
    };
    // Lost without this sync: permissions, and the manifest's content behind its published name.
    let rewritten = root.sync(wave)?;
    if let Backing::StagedFiles(durable) = &mut staged.backing {
        *durable = durable.and(rewritten);
    }
    staged.cleanup.remove(&outdated);
    Ok(())
}

/// Moves the files of published commits, in order. A later generation may not be in place before an
/// earlier one.
fn apply(root: &Root, published: Vec<Published>, round: &Round<'_>) -> Vec<(Published, Moved)> {
    let mut in_place = Vec::new();
    let mut failed: Option<Error> = None;
    for published in published {
        let moved = match &failed {
            Some(error) => Err(error.clone()),
            None => apply::apply(root, &published),
        };
        match moved {
            Ok(moved) => in_place.push((published, moved)),
            Err(error) => {
                published.session.leave_mark();
                // Otherwise views would take it for a commit that is in place, because its session
                // lives.
                root.mark_sync_failed(published.generation);
                failed.get_or_insert_with(|| error.clone());
                round.answer([(published.id, Err(error.not_applied(published.generation).into()))]);
            }
        }
    }
    in_place
}

/// Barrier 3 is owed now. It is waited for here, unless it was put off with `Committed`, or another batch
/// follows at once.
fn finish(
    root: &Root,
    shift: &mut Shift,
    in_place: Vec<(Published, Moved)>,
    followed: bool,
    round: &Round<'_>,
) {
    let durability = root.settings.durability;
    let has_trees = in_place.iter().any(|(published, _)| published.has_trees());
    for (published, moved) in in_place {
        let generation = published.generation;
        if durability == Durability::Committed {
            control::mark_in_place(root, &shift.locked.control, generation, &published.entries);
        }
        // Until it is paid the manifest stays pending, so recovery would repeat the moves.
        root.deferred.defer(moved);
        // A sync of another thread that failed before this line knew nothing of this commit.
        root.mark_if_sync_failed(generation);
        shift.owed.push(published);
    }
    match durability {
        // What was in removed trees is deleted once their removal is durable.
        _ if has_trees => pay(root, shift, round),
        // Attached to the next commit's wave, or waited for on close.
        Durability::Committed => acknowledge(root, &mut shift.owed, &Ok(Durable::Synced), round),
        // Attached to the wave of the batch that follows. Nobody is told of it before that.
        Durability::Full if followed && keeps(Rule::AnswerPaid) => {}
        Durability::Full if followed => acknowledge(root, &mut shift.owed, &Ok(Durable::Synced), round),
        Durability::Full | Durability::Process => pay(root, shift, round),
    }
}

/// Barrier 3 of everything that is owed.
fn pay(root: &Root, shift: &mut Shift, round: &Round<'_>) {
    if !shift.owed.is_empty() {
        let paid = finish_deferred(root, &mut shift.locked);
        acknowledge(root, &mut shift.owed, &paid, round);
    }
}

/// Answers transactions that are in place, after the wave to which their moves were attached.
fn acknowledge(root: &Root, owed: &mut Vec<Published>, paid: &Result<Durable>, round: &Round<'_>) {
    let answer = |published: Published| {
        let Published { generation, id, durable, session, lost, entries, .. } = published;
        let answer = match paid {
            Ok(paid) => {
                let hidden = (entries.iter().filter_map(Entry::hidden).collect(), session);
                let found = entries.into_iter().map(|entry| (entry.path, entry.before)).collect();
                Ok(Receipt { generation, durable: durable.and(*paid), lost, found, hidden })
            }
            Err(error) => {
                session.leave_mark();
                root.mark_if_sync_failed(generation);
                Err(error.clone().not_applied(generation).into())
            }
        };
        (id, answer)
    };
    round.answer(owed.drain(..).map(answer).collect::<Vec<_>>());
}

/// Barrier 3: syncs every directory whose names were moved, each once and all in one wave. Then retires
/// the manifests.
pub(crate) fn finish_deferred(root: &Root, locked: &mut Locked) -> Result<Durable> {
    let mut wave = Wave::new(Barrier::Applied);
    root.deferred.attach(&locked.control.open(), &mut wave);
    // Lost without this sync: some of the moves, after the manifest that could repeat them is retired.
    // A crash before it leaves a pending manifest, which recovery applies again.
    let durable = root.sync(wave).inspect_err(|_| leave_deferred(root))?;
    retire_paid(root, locked, durable);
    Ok(durable)
}

/// Leaves deferred commits to recovery after their wave has failed, or could not begin. Their debts are
/// gone with it.
fn leave_deferred(root: &Root) {
    if keeps(Rule::LeaveUnpaid) {
        root.deferred.hand_over_to_recovery();
    }
}

/// Retires the deferred commits whose debts were in a wave that is durable now.
fn retire_paid(root: &Root, locked: &mut Locked, durable: Durable) {
    let paid = root.deferred.paid(durable);
    paid.iter().for_each(|applied| apply::retire(root, &mut locked.control, applied));
    if !paid.is_empty() {
        control::remove_marks(root, &mut locked.control);
    }
}
