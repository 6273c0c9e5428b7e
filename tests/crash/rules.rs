//! Rules of the protocol that no crash alone can test. Each has a case that
//! passes with the whole protocol, and fails if the rule is broken.

use cosave::fs::sim::{Aftermath, Fault, Granularity, Model, Rule, SimDisk, without};
use std::ops::ControlFlow;
use std::time::Duration;

use cosave::{Error, Expect, Outcome, Progress, RelativePath, Store, Transaction, TransactionOutcome};

pub(crate) fn sim() -> SimDisk {
    let disk = SimDisk::new(Model::WeakPosix);
    for (path, content) in [("a", "a0"), ("b", "b0")] {
        disk.put(path, content.as_bytes(), 0o644);
    }
    disk.settle();
    disk
}

pub(crate) fn open(disk: &SimDisk) -> Store {
    Store::options().open_on(disk.process()).unwrap()
}

/// A store whose transactions keep nothing in memory.
fn open_staging_at_once(disk: &SimDisk) -> Store {
    Store::options().inline_max(0).open_on(disk.process()).unwrap()
}

/// Ensures a condition, in words.
pub(crate) fn expect(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

pub(crate) fn content(disk: &SimDisk, path: &str) -> String {
    disk.files().get(path).map_or("nothing".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

pub(crate) fn staged_names(disk: &SimDisk) -> Vec<String> {
    disk.files().into_keys().filter(|path| path.ends_with(".cosave")).collect()
}

/// Commits `a` and `b` in a long save, and is killed between the commit point and the first move.
fn published(disk: &SimDisk) -> SimDisk {
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(cosave::fs::sim::Crash { after, reversed: false });
        let committed = Store::options().inline_max(0).open_on(machine.process()).and_then(|store| {
            store.update(|tx| {
                tx.write("a", "a1")?;
                tx.write("b", "b1")
            })
        });
        let pending = machine.control_names().iter().any(|name| name.ends_with(".pending"));
        if pending {
            assert_eq!(content(&machine, "a"), "a0");
            return machine.kill();
        }
        assert!(committed.is_err(), "a commit without a pending manifest");
    }
    unreachable!("a commit has an end")
}

fn a_staged_file_that_was_changed_is_not_published(disk: &SimDisk) -> Result<(), String> {
    let store = open_staging_at_once(disk);
    let mut tx = store.begin().unwrap();
    tx.write("a", "a1").unwrap();
    disk.put(&staged_names(disk)[0], b"changed", 0o644);
    let outcome = tx.commit().map_err(|error| error.outcome());
    expect(matches!(outcome, Err(Outcome::NothingHappened)), "a changed staged file was committed")?;
    expect(content(disk, "a") == "a0", "a refused commit has moved a file")?;
    disk.clock(Granularity::Still);
    let mut tx = store.begin().unwrap();
    tx.write("a", "a1").unwrap();
    disk.replace(&staged_names(disk)[0], b"a9", 0o644);
    let outcome = tx.commit().map_err(|error| error.outcome());
    expect(matches!(outcome, Err(Outcome::NothingHappened)), "a replaced staged file was committed")
}

/// What somebody does with a staged file.
type Meddling<'a> = (&'static str, &'a dyn Fn(&str));

fn what_was_changed_in_a_directory_that_takes_the_place_of_a_file_is_not_published(
    disk: &SimDisk,
) -> Result<(), String> {
    let store = open_staging_at_once(disk);
    let begin = || {
        let mut tx = store.begin().unwrap();
        tx.remove("a").unwrap();
        tx.write("a/x", "x1").unwrap();
        tx
    };
    let changes: [Meddling<'_>; 3] = [
        ("changed", &|staged| disk.put(staged, b"changed", 0o644)),
        ("replaced", &|staged| disk.replace(staged, b"x9", 0o644)),
        ("removed", &|staged| disk.delete(staged)),
    ];
    disk.clock(Granularity::Still);
    for (number, (what, change)) in changes.into_iter().enumerate() {
        let mut tx = begin();
        tx.create_new("new", "").unwrap();
        disk.put("new", b"", 0o644);
        // After a refused commit it has its own name there.
        expect(tx.try_commit().is_err_and(|error| error.is_conflict()), "a file that exists was created")?;
        disk.delete("new");
        let built = disk.files().into_keys().find(|path| path.ends_with(".cosave/x"));
        change(&built.unwrap());
        let outcome = tx.commit().map_err(|error| error.outcome());
        expect(matches!(outcome, Err(Outcome::NothingHappened)), &format!("a {what} file was committed"))?;
        expect(content(disk, "a") == "a0", &format!("{number}: a refused commit has moved a file"))?;
    }
    let mut tx = begin();
    tx.rename("b", "a/b").unwrap();
    disk.set_mode("b", 0o600);
    expect(tx.commit().is_err_and(|error| error.is_conflict()), "a file has permissions of before")
}

/// Between a look and the rename after it another program puts its own directory there, and moves the old one away.
fn a_directory_of_others_that_is_moved_by_mistake_is_put_back(disk: &SimDisk) -> Result<(), String> {
    for (path, bytes) in [("d/f", "f0"), ("n/f", "n0"), ("mine/p", "precious")] {
        disk.make_directory(&path[..path.len() - 2], 0);
        disk.put(path, bytes.as_bytes(), 0o644);
    }
    disk.settle();
    type Work = fn(&mut cosave::Transaction) -> cosave::Result<()>;
    let works: [(&str, &str, Work); 4] = [
        ("d", "", |tx| tx.remove_dir_all("d")),
        ("d", "d", |tx| tx.remove_dir_all("d").and_then(|()| tx.write("d", "n0"))),
        ("d", "d/f", |tx| tx.replace_dir("n", "d")),
        ("n", "m/f", |tx| tx.rename("n", "m")),
    ];
    for (path, made, work) in works {
        for call in 0.. {
            let machine = disk.copy();
            let mut tx = open(&machine).begin().unwrap();
            work(&mut tx).unwrap();
            let at = machine.calls() + call;
            machine.replace_at(at, path, "mine", "away");
            let committed = tx.commit();
            let problem = |what: &str| format!("{path} replaced before call {call}: {what}");
            let stays = ["mine/p", &format!("{path}/p")].iter().any(|at| content(&machine, at) == "precious");
            expect(stays, &problem("what a program has put there is gone"))?;
            // It was moved away afterwards, or is there.
            let places = [made.to_owned(), made.replacen(path, "away", 1)];
            let is_made = made.is_empty() || places.iter().any(|made| content(&machine, made) == "n0");
            expect(committed.is_err() || is_made, &problem("it was acknowledged, and is not done"))?;
            if machine.calls() < at {
                break;
            }
        }
    }
    Ok(())
}

/// Between the commit point and the move another program has renamed a new file there. The commit stayed pending,
/// and nobody could commit in that root.
fn a_new_file_where_a_directory_is_to_be_is_set_aside(disk: &SimDisk) -> Result<(), String> {
    let mut tried = 0;
    at_every_step(disk, |machine, after| {
        machine.crash_at(cosave::fs::sim::Crash { after, reversed: false });
        let commit = || {
            let mut tx = Store::options().open_on(machine.process())?.begin()?;
            tx.remove("a")?;
            tx.write("a/x", "x1")?;
            tx.commit()
        };
        let is_over = commit().is_ok();
        let killed = machine.kill();
        let is_published = killed.control_names().iter().any(|name| name.ends_with(".pending"));
        if is_published && content(&killed, "a") == "a0" {
            tried += 1;
            killed.replace("a", b"the stranger's", 0o644);
            let report = Store::options().open_on(killed.process()).map_err(|error| error.to_string())?;
            let differences = report.last_recovery().differences.clone();
            expect(content(&killed, "a/x") == "x1", "the directory is not in place")?;
            let [cosave::Difference { finding: cosave::Finding::SetAside(name), .. }] = &differences[..]
            else {
                return Err(format!("it is reported as {differences:?}"));
            };
            expect(content(&killed, &name.to_string()) == "the stranger's", "a stranger's file is gone")?;
        }
        Ok(is_over)
    })?;
    expect(tried > 0, "no death between the commit point and the move")
}

fn a_file_that_must_not_exist_is_looked_for_under_the_lock(disk: &SimDisk) -> Result<(), String> {
    let mut tx = open(disk).begin().unwrap();
    tx.create_new("new", "ours").unwrap();
    disk.put("new", b"theirs", 0o644);
    expect(tx.commit().is_err_and(|error| error.is_conflict()), "a file that exists was created")?;
    expect(content(disk, "new") == "theirs", "somebody's file was replaced")
}

/// Runs a case on a copy of the disk, with a kill after 0, 1, 2 ... steps, until a run ends without a
/// kill.
pub(crate) fn at_every_step(
    disk: &SimDisk,
    mut case: impl FnMut(&SimDisk, u64) -> Result<bool, String>,
) -> Result<(), String> {
    for after in 0.. {
        let ended = case(&disk.copy(), after);
        if ended.map_err(|problem| format!("death after {after} steps: {problem}"))? {
            break;
        }
    }
    Ok(())
}

fn a_target_that_another_commit_replaced_is_no_foreign_file(disk: &SimDisk) -> Result<(), String> {
    at_every_step(disk, |machine, after| {
        let mut tx = open_staging_at_once(machine).begin().unwrap();
        tx.write("a", "mine").unwrap();
        open(machine).update(|other| other.write("a", "a9")).unwrap();
        machine.crash_at(cosave::fs::sim::Crash { after: machine.steps() + after, reversed: false });
        let is_over = tx.commit().is_ok();
        let killed = machine.kill();
        let differences = open(&killed).last_recovery().differences;
        expect(differences.is_empty(), "a commit was taken for an edit by hand")?;
        Ok(is_over)
    })
}

fn a_commit_finishes_earlier_ones_first(disk: &SimDisk) -> Result<(), String> {
    at_every_step(disk, |machine, after| {
        let living = open(machine);
        let victim = machine.process();
        machine.crash_process_at(&*victim, after);
        let killed = Store::options().open_on(victim).and_then(|store| {
            store.update(|tx| {
                tx.write("a", "a1")?;
                tx.write("b", "b1")
            })
        });
        let published = living.generation().unwrap() == 1;
        living.update(|tx| tx.write("b", "b2")).unwrap();
        let expected = if published { "a1" } else { "a0" };
        expect(content(machine, "a") == expected, "an earlier commit is not finished")?;
        expect(content(machine, "b") == "b2", "an earlier commit was finished over a later one")?;
        Ok(killed.is_ok())
    })
}

fn a_manifest_with_another_path_is_refused(disk: &SimDisk) -> Result<(), String> {
    let killed = published(disk);
    let name = killed.control_names().into_iter().find(|name| name.ends_with(".pending")).unwrap();
    let path = format!(".cosave/{name}");
    let mut text = String::new();
    let relative = RelativePath::new(&path).unwrap();
    killed.process().open(&relative).unwrap().read_to_string(&mut text).unwrap();
    let forged = text.replacen("\"path\":\"b\"", "\"path\":\"c\"", 1);
    assert_ne!(forged, text);
    killed.put(&path, forged.as_bytes(), 0o644);
    let opened = Store::options().open_on(killed.process());
    expect(matches!(opened, Err(Error::Corrupt { .. })), "a forged manifest was followed")?;
    expect(content(&killed, "a") == "a0", "a file was moved on the word of a forged manifest")
}

fn nothing_is_moved_before_everything_was_looked_at(disk: &SimDisk) -> Result<(), String> {
    let killed = published(disk);
    let staged_names = staged_names(&killed);
    let of_b = staged_names.iter().find(|name| killed.files()[*name] == b"b1").unwrap();
    killed.damage(of_b);
    let opened = Store::options().open_on(killed.process());
    let corrupt = opened.is_err_and(|error| error.to_string().contains("other bytes than were committed"));
    expect(corrupt, "a damaged staged file was not noticed")?;
    expect(content(&killed, "a") == "a0", "half of a commit was moved")
}

fn a_staged_name_of_the_target_itself_goes(disk: &SimDisk) -> Result<(), String> {
    let killed = published(disk);
    let staged_names = staged_names(&killed);
    let of_a = staged_names.iter().find(|name| killed.files()[*name] == b"a1").unwrap();
    let fs = killed.process();
    killed.delete("a");
    let (from, to) = (RelativePath::new(of_a).unwrap(), RelativePath::new("a").unwrap());
    fs.link(&from, &to).unwrap().waive("the test needs no sync");
    // Without the sweep, which would remove what is left.
    let store = Store::options().recover(false).open_on(killed.process()).unwrap();
    store.recover().unwrap();
    expect(content(&killed, "a") == "a1", "the commit was not finished")?;
    expect(killed.files().len() == 2, "the target has a second name")
}

fn a_directory_of_another_open_transaction_takes_no_commit_along(disk: &SimDisk) -> Result<(), String> {
    let store = Store::options().inline_max(0).open_on(disk.process()).unwrap();
    let mut first = store.begin().unwrap();
    first.write("new/dir/first", "1").unwrap();
    store.update(|second| second.write("new/dir/second", "2")).unwrap();
    for found in disk.power_losses(64, 1) {
        drop(Store::options().open_on(found.process()).map_err(|error| error.to_string())?);
        expect(content(&found, "new/dir/second") == "2", "an acknowledged commit is lost")?;
    }
    first.abort();
    expect(content(disk, "new/dir/second") == "2", "an aborted transaction has taken another's directory")
}

fn staged_names_are_gone(disk: &SimDisk) -> bool {
    staged_names(disk).is_empty()
}

fn the_living_are_not_swept(disk: &SimDisk) -> Result<(), String> {
    at_every_step(disk, |machine, after| {
        let mut tx = open_staging_at_once(machine).begin().unwrap();
        tx.write("a", "the living's").unwrap();
        tx.write("new/dir/file", "the living's").unwrap();
        let victim = machine.process();
        machine.crash_process_at(&*victim, after);
        let killed = Store::options().open_on(victim).and_then(|store| {
            let mut tx = store.begin()?;
            tx.write("b", "b1")?;
            tx.write("other/dir/file", "b1")?;
            tx.commit()
        });
        let sweeper = open(machine);
        sweeper.sweep().map_err(|error| format!("the sweep: {error}"))?;
        let committed = tx.commit();
        expect(committed.is_ok(), "what a living session staged was swept")?;
        for found in machine.power_losses(16, after).into_iter().chain([machine.kill()]) {
            drop(Store::options().open_on(found.process()).map_err(|error| error.to_string())?);
            for path in ["a", "new/dir/file"] {
                expect(content(&found, path) == "the living's", "an acknowledged commit is lost")?;
            }
            let other = content(&found, "other/dir/file") == "b1";
            expect((content(&found, "b") == "b1") == other, "half of the dead one's commit is there")?;
            expect(staged_names_are_gone(&found), "something staged is left")?;
            expect(killed.is_err() || other, "the dead one's acknowledged commit is lost")?;
        }
        Ok(killed.is_ok())
    })
}

#[test]
fn a_directory_that_somebody_made_and_did_not_sync_takes_no_commit_along() {
    let disk = sim();
    disk.make_directory("n", 0);
    disk.make_directory("n/m", 0);
    open(&disk).update(|tx| tx.write("n/m/file", "1")).unwrap();
    let losses = disk.power_losses(1000, 1);
    assert!(losses.len() > 1);
    for after in losses {
        drop(open(&after));
        assert_eq!(content(&after, "n/m/file"), "1");
    }
}

// What `Committed` had put off was waited for only when the last transaction was gone, too.
#[test]
fn a_closed_store_has_its_commits_in_place_beside_an_open_transaction() {
    let disk = sim();
    let options = Store::options().durability(cosave::Durability::Committed);
    let store = options.open_on(disk.process()).unwrap();
    let open = store.begin().unwrap();
    store.update(|tx| tx.write("new", "1")).unwrap();
    drop(store);
    let losses = disk.power_losses(64, 1);
    assert!(losses.iter().all(|found| content(found, "new") == "1"));
    open.abort();
}

/// A transaction can outlive its store, and then ends what its own commit had put off.
#[test]
fn a_transaction_that_outlives_its_store_leaves_its_commit_in_place() {
    let disk = sim();
    let store = Store::options().durability(cosave::Durability::Committed).open_on(disk.process()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.write("new", "1").unwrap();
    drop(store);
    tx.commit().unwrap();
    let names = disk.control_names();
    assert!(names.iter().all(|name| !name.contains("pending") && !name.contains("sessions/")), "{names:?}");
    assert!(disk.power_losses(64, 1).iter().all(|found| content(found, "new") == "1"));
}

#[test]
fn what_is_kept_survives_an_error_at_any_call_of_the_recovery() {
    let killed = published(&sim());
    killed.put("a", b"the stranger's", 0o644);
    killed.sync_file("a");
    for after in 0.. {
        let disk = killed.copy();
        let fault = Fault { after, error: 5, persistent: false, aftermath: Aftermath::CacheShowsNew };
        disk.fail_at(&[fault]);
        drop(Store::options().open_on(disk.process()));
        let reached = disk.calls() > after;
        let again = disk.kill();
        drop(open(&again));
        for found in [disk.power_losses(24, 1), again.power_losses(24, 1)].concat() {
            drop(open(&found));
            let files = found.files();
            let kept = files.values().any(|bytes| bytes == b"the stranger's");
            // The commit itself need not survive a power loss that comes before its recovery.
            let whole = (content(&found, "a") == "a1") == (content(&found, "b") == "b1");
            assert!(kept && whole, "an error at call {after}: {files:?}");
        }
        if !reached {
            return;
        }
    }
}

/// A disk on which the second manifest of a batch survived a power loss, and the first did not.
fn with_a_gap() -> SimDisk {
    for after in 0.. {
        let disk = sim();
        disk.crash_at(cosave::fs::sim::Crash { after, reversed: false });
        let run = || -> cosave::Result<()> {
            let store = Store::options().open_on(disk.process())?;
            let (mut first, mut second) = (store.begin()?, store.begin()?);
            first.write("a", "a1")?;
            second.write("b", "b2")?;
            Transaction::commit_together(vec![first, second]).into_iter().try_for_each(|one| one.map(drop))
        };
        assert!(run().is_err(), "the batch was published without a gap");
        let has = |disk: &SimDisk, name| disk.control_names().iter().any(|own| own.starts_with(name));
        // `.gitignore` must exist, or opening would sync the control directory.
        let is_gap =
            |loss: &SimDisk| has(loss, "2.pending") && !has(loss, "1.pending") && has(loss, ".gitignore");
        if let Some(gap) = disk.power_losses(64, 1).into_iter().find(is_gap) {
            return gap;
        }
    }
    unreachable!("a batch has an end")
}

#[test]
fn a_number_is_used_again_only_when_its_old_manifest_is_gone_for_good() {
    let gap = with_a_gap();
    for killed_after in 0..20 {
        let recovery = gap.copy();
        recovery.crash_at(cosave::fs::sim::Crash { after: killed_after, reversed: false });
        drop(Store::options().open_on(recovery.process()));
        let killed = recovery.kill();
        for after in 0..60 {
            let successor = killed.copy();
            successor.crash_at(cosave::fs::sim::Crash { after, reversed: false });
            let committed = Store::options()
                .open_on(successor.process())
                .and_then(|store| store.update(|tx| tx.write("a", "the successor's")));
            for found in successor.power_losses(24, 1) {
                let store = open(&found);
                let differences = store.last_recovery().differences;
                let (a, b) = (content(&found, "a"), content(&found, "b"));
                let kept = a == "the successor's" || committed.is_err() && a == "a0";
                assert!(
                    differences.is_empty() && kept && b == "b0",
                    "recovery killed after {killed_after} steps, successor after {after}: {a}, {b}, {differences:?}"
                );
            }
        }
    }
}

fn a_target_that_was_frozen_since_is_not_published(disk: &SimDisk) -> Result<(), String> {
    let store = open(disk);
    let mut tx = store.begin().unwrap();
    tx.write("a", "a1").unwrap();
    tx.write("b", "b1").unwrap();
    disk.freeze("b", true);
    let outcome = tx.commit().map_err(|error| error.outcome());
    expect(matches!(outcome, Err(Outcome::NothingHappened)), "what cannot be moved was committed")?;
    expect(content(disk, "a") == "a0", "a refused commit has moved a file")?;
    disk.freeze("b", false);
    expect(store.update(|tx| tx.write("b", "b2")).is_ok(), "a refused commit is in the way")
}

/// Neither staged file nor target is found where a directory was renamed. That once passed for a finished
/// move, and the sweep removed what had been committed.
fn a_file_whose_directory_is_gone_is_missing(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("d", 0);
    disk.put("d/c", b"c0", 0o644);
    disk.settle();
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(cosave::fs::sim::Crash { after, reversed: false });
        let store = Store::options().open_on(machine.process());
        let committed = store.and_then(|store| {
            store.update(|tx| {
                tx.write("a", "a1")?;
                tx.write("d/c", "c1")
            })
        });
        if committed.is_ok() {
            return Ok(());
        }
        let killed = machine.kill();
        if !killed.control_names().iter().any(|name| name.starts_with("1.pending"))
            || content(&killed, "d/c") == "c1"
        {
            continue;
        }
        killed.move_away("d", "e");
        let opened = Store::options().open_on(killed.process());
        let blocked = matches!(&opened, Err(error) if error.outcome() == Outcome::Committed);
        expect(blocked, "what cannot be found passed for finished")?;
        killed.move_away("e", "d");
        drop(open(&killed));
        expect(content(&killed, "d/c") == "c1", "a committed file is lost")?;
    }
    unreachable!("a commit has an end")
}

fn a_directory_that_another_of_the_batch_fills_has_changed(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("filled", 0);
    disk.settle();
    let store = open(disk);
    let (mut one, mut other) = (store.begin().unwrap(), store.begin().unwrap());
    one.write("filled/new", "one").unwrap();
    expect(other.list("filled").unwrap().is_empty(), "something is there already")?;
    other.write("b", "nothing is there").unwrap();
    let answers = Transaction::commit_together(vec![one, other]);
    expect(answers[0].is_ok(), "the one that relies on nothing was refused")?;
    let is_conflict = answers[1].as_ref().is_err_and(|error| error.is_conflict());
    expect(is_conflict, "what it relied on had changed in a generation before its own")
}

fn of_two_that_expect_one_generation_one_commits(disk: &SimDisk) -> Result<(), String> {
    let store = open(disk);
    let generation = store.generation().unwrap();
    let (mut one, mut other) = (store.begin().unwrap(), store.begin().unwrap());
    for (tx, path) in [(&mut one, "a"), (&mut other, "b")] {
        tx.expect_generation(generation).unwrap();
        tx.write(path, "next").unwrap();
    }
    let answers = Transaction::commit_together(vec![one, other]);
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    expect(won == 1, "two commits are the next after one generation")
}

fn what_is_expected_is_looked_for_under_the_lock(disk: &SimDisk) -> Result<(), String> {
    let store = open(disk);
    let mut tx = store.begin().unwrap();
    tx.expect("new", Expect::Absent).unwrap();
    tx.write("b", "mine").unwrap();
    disk.put("new", b"theirs", 0o644);
    expect(tx.commit().is_err_and(|error| error.is_conflict()), "a file that must not exist was not noticed")
}

/// After the commit point nobody could refuse any more: the directory would stay, and the removal be
/// acknowledged.
fn a_directory_that_others_have_filled_meanwhile_is_a_conflict(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("d", 0);
    disk.settle();
    let mut tx = open(disk).begin().unwrap();
    tx.remove_dir("d").unwrap();
    disk.put("d/theirs", b"theirs", 0o644);
    expect(tx.commit().is_err_and(|error| error.is_conflict()), "a full directory was removed")
}

fn a_file_where_a_directory_is_to_be_is_a_conflict(disk: &SimDisk) -> Result<(), String> {
    let mut tx = open(disk).begin().unwrap();
    tx.create_dir("made").unwrap();
    disk.put("made", b"theirs", 0o644);
    expect(tx.commit().is_err_and(|error| error.is_conflict()), "a file passed for a directory")
}

/// It may be open to more than the transaction has asked for.
fn a_directory_that_others_have_made_gets_no_mode(disk: &SimDisk) -> Result<(), String> {
    let mut tx = open(disk).begin().unwrap();
    tx.directory("made").mode(0o700).create().unwrap();
    disk.make_directory("made", 0);
    expect(tx.commit().is_err_and(|error| error.is_conflict()), "an open directory passed for a closed one")
}

/// The secret would have been readable until the commit was refused.
fn nothing_is_staged_in_a_directory_that_others_have_made(disk: &SimDisk) -> Result<(), String> {
    let store = Store::options().inline_max(0).open_on(disk.process()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.directory("made").mode(0o700).create().unwrap();
    disk.make_directory("made", 0);
    let refused = tx.write("made/key", "secret");
    expect(refused.is_err_and(|error| error.is_conflict()), "a secret was staged in an open directory")?;
    expect(disk.files().keys().all(|path| !path.starts_with("made/")), "something was left there")
}

fn a_listing_that_has_changed_is_a_conflict(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("d", 0);
    disk.put("d/one", b"one", 0o644);
    disk.settle();
    let mut tx = open(disk).begin().unwrap();
    tx.list("d").unwrap();
    tx.write("b", "there is one").unwrap();
    disk.put("d/two", b"two", 0o644);
    expect(tx.commit().is_err_and(|error| error.is_conflict()), "a new name was not noticed")
}

fn nobody_commits_in_a_root_that_another_store_has_to_itself(disk: &SimDisk) -> Result<(), String> {
    let holder = open(disk);
    let other = Store::options().lock_timeout(Duration::ZERO).open_on(disk.process()).unwrap();
    let lease = holder.exclusive().unwrap();
    holder.update(|tx| tx.write("a", "the holder's")).unwrap();
    let refused = other.update(|tx| tx.write("a", "another's"));
    expect(refused.is_err(), "a commit came between those of a store that has the root to itself")?;
    drop(lease);
    expect(other.update(|tx| tx.write("a", "another's")).is_ok(), "the lease outlives its holder")
}

/// Another program removes a directory after the commit point, and makes one of its own there.
fn another_directory_in_the_place_of_a_removed_one_stays(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("d", 0);
    disk.put("d/f", b"f0", 0o644);
    disk.settle();
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(cosave::fs::sim::Crash { after, reversed: false });
        let _ = Store::options()
            .open_on(machine.process())
            .and_then(|store| store.update(|tx| tx.remove_dir_all("d")));
        if machine.control_names().iter().any(|name| name.ends_with(".pending")) {
            let machine = machine.kill();
            expect(content(&machine, "d/f") == "f0", "the directory went before the commit point")?;
            machine.remove_all("d");
            machine.make_directory("d", 0);
            machine.put("d/mine", b"the stranger's", 0o644);
            drop(open(&machine));
            return expect(
                content(&machine, "d/mine") == "the stranger's",
                "a stranger's directory was removed",
            );
        }
    }
    unreachable!("a commit has an end")
}

/// Its contents are deleted only when its removal is durable. Otherwise whoever gives the commit up after a
/// power loss, or looks before the recovery, finds half of it.
fn a_removed_directory_is_whole_for_as_long_as_it_has_its_name(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("d", 0);
    for file in ["d/f", "d/g"] {
        disk.put(file, b"0", 0o644);
    }
    disk.settle();
    at_every_step(disk, |machine, after| {
        machine.crash_at(cosave::fs::sim::Crash { after, reversed: false });
        let removed = Store::options()
            .open_on(machine.process())
            .and_then(|store| store.update(|tx| tx.remove_dir_all("d")));
        for found in machine.power_losses(32, after) {
            let has = |path| found.files().contains_key(path);
            expect(has("d/f") == has("d/g"), "half of a removed directory has its name")?;
        }
        Ok(removed.is_ok())
    })
}

/// Nobody waited, so recovery repeats everything: there and back, and what came in its place.
#[test]
fn a_directory_that_moved_there_and_back_leaves_its_place_to_what_came_later() {
    let disk = sim();
    disk.make_directory("d", 0);
    disk.put("d/f", b"f0", 0o644);
    disk.settle();
    let store = Store::options().durability(cosave::Durability::Process).open_on(disk.process()).unwrap();
    store.update(|tx| tx.rename("d", "e")).unwrap();
    store.update(|tx| tx.rename("e", "d")).unwrap();
    store.update(|tx| tx.write("e/new", "new")).unwrap();
    let killed = disk.kill();
    for found in disk.power_losses(64, 1).into_iter().chain([killed]) {
        drop(Store::options().open_on(found.process()).unwrap());
        let (there, back) = (content(&found, "e/f") == "f0", content(&found, "d/f") == "f0");
        assert!(there != back, "the directory is lost, or has two names");
    }
    drop(store);
}

/// One transaction of a batch moves the directory in which another one has staged a file.
fn a_tree_that_moves_takes_no_file_of_the_batch_along(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("d", 0);
    disk.put("d/f", b"f0", 0o644);
    disk.settle();
    let store = open_staging_at_once(disk);
    let (mut mover, mut writer) = (store.begin().unwrap(), store.begin().unwrap());
    writer.write("d/g", "g1").unwrap();
    mover.rename("d", "e").unwrap();
    let answers = Transaction::commit_together(vec![mover, writer]);
    expect(answers[0].is_ok(), "the move failed")?;
    let conflict = answers[1].as_ref().is_err_and(Error::is_conflict);
    expect(conflict, "a file was published whose directory had moved")?;
    expect(content(disk, "e/f") == "f0", "the directory has lost its file")?;
    drop(store);
    expect(staged_names(disk).is_empty(), "a staged file was left where its directory is now")
}

/// Two transactions of one batch created the same file by way of a directory that is mounted twice, and
/// both were told that it was theirs.
fn two_names_of_one_new_file_are_one_conflict(disk: &SimDisk) -> Result<(), String> {
    disk.make_directory("d", 0);
    disk.bind("d", "again");
    disk.settle();
    let store = open(disk);
    let (mut one, mut other) = (store.begin().unwrap(), store.begin().unwrap());
    one.create_new("d/new", "one").unwrap();
    other.create_new("again/new", "other").unwrap();
    let answers = Transaction::commit_together(vec![one, other]);
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    let lost = answers.iter().filter(|answer| matches!(answer, Err(error) if error.is_conflict())).count();
    expect((won, lost) == (1, 1), "two have created one file")?;
    expect(content(disk, "d/new") == "one", "the one that lost has changed the file")
}

#[test]
fn one_transaction_cannot_create_a_file_under_two_names() {
    let disk = sim();
    disk.make_directory("d", 0);
    disk.bind("d", "again");
    disk.settle();
    let store = open(&disk);
    let mut tx = store.begin().unwrap();
    tx.write("d/new", "one").unwrap();
    tx.write("again/new", "other").unwrap();
    assert!(matches!(tx.commit(), Err(Error::InvalidPath { .. })));
    assert_eq!(content(&disk, "d/new"), "nothing");
}

/// A panic after the publication removed the staged files of what was published: its targets could
/// never be moved, and every later opening failed.
#[test]
fn a_panic_at_any_step_leaves_all_or_nothing() {
    let mut published = 0;
    for after in 0.. {
        let disk = sim();
        let store = open(&disk);
        disk.panic_at(disk.steps() + after);
        let commit = || {
            store.update(|tx| {
                tx.write("a", "a1")?;
                tx.write("b", "b1")
            })
        };
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(commit));
        disk.panic_at(u64::MAX);
        let is_published = store.generation().unwrap() == 1;
        let next = store.update(|tx| tx.write("c", "c"));
        drop(store);
        drop(open(&disk));
        let expected = if is_published { ("a1", "b1") } else { ("a0", "b0") };
        let found = (content(&disk, "a"), content(&disk, "b"));
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            expected,
            "a panic after {after} steps, then {next:?}"
        );
        assert_eq!(staged_names(&disk), [""; 0], "a panic after {after} steps");
        published += u32::from(is_published);
        if answer.is_ok() {
            break;
        }
    }
    assert!(published > 2, "only {published} panics came after the publication");
}

/// An error at the commit point named a number alone, which can be another transaction's by the time
/// that somebody asks.
#[test]
fn a_transaction_that_was_in_doubt_is_answered_for() {
    let mut doubts = 0;
    let calls = {
        let disk = sim();
        open(&disk).update(|tx| tx.write("a", "a1")).unwrap();
        disk.calls()
    };
    for after in 0..calls {
        let disk = sim();
        let (error, aftermath) = (5, Aftermath::CacheShowsNew);
        disk.fail_at(&[Fault { after, error, persistent: false, aftermath }]);
        let Ok(store) = Store::options().open_on(disk.process()) else { continue };
        let Err(Error::InDoubt { transaction, generation, .. }) = store.update(|tx| tx.write("a", "a1"))
        else {
            continue;
        };
        doubts += 1;
        assert_eq!(generation, 1);
        drop(store);
        let asked = transaction.to_string().parse().unwrap();
        let cut = disk.power_losses(32, 0).into_iter().map(|machine| (machine, true));
        for (machine, is_cut) in [(disk.kill(), false)].into_iter().chain(cut) {
            let store = open(&machine);
            let is_there = content(&machine, "a") == "a1";
            let answer = store.outcome_of(asked).unwrap();
            let expected = TransactionOutcome::Committed { generation };
            assert_eq!(answer == expected, is_there, "{answer:?}, {:?}", machine.control_names());
            // What others commit meanwhile changes nothing of the answer, when one was left.
            for content in ["b1", "b2", "b3"] {
                store.update(|tx| tx.write("b", content)).unwrap();
            }
            let later = store.outcome_of(asked).unwrap();
            // A kill leaves the doubt on the disk, so a recovery keeps the answer.
            let forgot = is_cut
                && later == TransactionOutcome::Unknown
                && !machine.control_names().iter().any(|name| name.contains("committed"));
            assert!(later == answer || forgot, "{answer:?} became {later:?}");
        }
    }
    assert!(doubts > 0, "no commit was in doubt");
}

/// A commit that was refused waited for nothing, and removed the superseded manifests all the same. A
/// power loss could keep that removal, and undo the retirement of the newest generation. Then the newest
/// lay beyond a gap, and recovery discarded an acknowledged commit. No scenario had a conflict in it.
#[test]
fn a_refused_commit_removes_no_manifest_that_is_still_needed() {
    let disk = sim();
    let store = open(&disk);
    store.update(|tx| tx.write("a", "a1")).unwrap();
    store.update(|tx| tx.write("a", "a2")).unwrap();
    let mut refused = store.begin().unwrap();
    refused.create_new("a", "never").unwrap();
    assert!(refused.commit().is_err_and(|error| error.is_conflict()));
    let outcomes = disk.power_losses(1000, 1);
    assert!(outcomes.len() > 10, "only {} outcomes", outcomes.len());
    for found in outcomes {
        let store = open(&found);
        assert_eq!(store.generation().unwrap(), 2, "{:?}", store.last_recovery());
        assert_eq!(content(&found, "a"), "a2");
    }
}

/// On a clock that stands still, a file that is committed or edited meanwhile has the length and time
/// of the old one.
fn still(disk: &SimDisk) -> &SimDisk {
    disk.clock(Granularity::Still);
    for (path, content) in [("a", "a0"), ("b", "b0")] {
        disk.put(path, content.as_bytes(), 0o644);
    }
    disk.settle();
    disk
}

fn what_was_read_is_compared_by_content(disk: &SimDisk) -> Result<(), String> {
    let others: [fn(&SimDisk); 3] = [
        |disk| drop(open(disk).update(|other| other.write("a", "a9")).unwrap()),
        |disk| disk.put("a", b"a9", 0o644),
        |disk| disk.put_keeping_time("a", b"a9", 0o644),
    ];
    for (number, change) in others.into_iter().enumerate() {
        for clock in [Granularity::Fine, Granularity::Changes(1000), Granularity::Still] {
            let machine = disk.copy();
            machine.clock(clock);
            machine.put("a", b"a0", 0o644);
            let mut tx = open(&machine).begin().unwrap();
            tx.write("b", "from a0").unwrap();
            expect(tx.read("a").is_ok_and(|bytes| bytes == b"a0"), "a file cannot be read")?;
            change(&machine);
            let refused = tx.commit().is_err_and(|error| error.is_conflict());
            expect(refused, &format!("change {number} of what was read was not noticed, {clock:?}"))?;
        }
    }
    Ok(())
}

fn a_change_between_two_reads_is_noticed(disk: &SimDisk) -> Result<(), String> {
    let store = open(disk);
    let tx = store.begin().unwrap();
    tx.read("a").unwrap();
    store
        .update(|other| {
            other.write("a", "a1")?;
            other.write("b", "b1")
        })
        .unwrap();
    expect(tx.read("b").is_err_and(|error| error.is_conflict()), "two reads are of two states")
}

fn an_edit_in_the_granule_of_the_original_is_set_aside(disk: &SimDisk) -> Result<(), String> {
    let killed = published(still(disk));
    killed.put("a", b"e9", 0o644);
    killed.sync_file("a");
    drop(open(&killed));
    expect(content(&killed, "a") == "a1", "the commit was not finished")?;
    expect(killed.files().values().any(|bytes| bytes == b"e9"), "somebody's edit was destroyed")
}

fn what_another_commit_put_in_the_same_granule_is_no_edit(disk: &SimDisk) -> Result<(), String> {
    at_every_step(still(disk), |machine, after| {
        let store = open(machine);
        let (mut first, mut second) = (store.begin().unwrap(), store.begin().unwrap());
        first.write("a", "a1").unwrap();
        second.write("a", "a2").unwrap();
        machine.crash_at(cosave::fs::sim::Crash { after: machine.steps() + after, reversed: false });
        let results = Transaction::commit_together(vec![first, second]);
        let killed = machine.kill();
        let differences = open(&killed).last_recovery().differences;
        expect(differences.is_empty(), "a commit was taken for an edit by hand")?;
        Ok(results.iter().all(Result::is_ok))
    })
}

fn a_removal_leaves_what_a_later_generation_wrote(disk: &SimDisk) -> Result<(), String> {
    at_every_step(still(disk), |machine, after| {
        let options = Store::options().durability(cosave::Durability::Committed);
        let store = options.open_on(machine.process()).unwrap();
        let (mut removal, mut later) = (store.begin().unwrap(), store.begin().unwrap());
        removal.remove("a").unwrap();
        later.write("a", "a0").unwrap();
        later.write("b", "b2").unwrap();
        machine.crash_at(cosave::fs::sim::Crash { after: machine.steps() + after, reversed: false });
        let results = Transaction::commit_together(vec![removal, later]);
        // A power loss can undo the retirement of the earlier one.
        for crashed in [machine.kill()].into_iter().chain(machine.power_losses(24, 1)) {
            let recovered = open(&crashed);
            let differences = recovered.last_recovery().differences;
            expect(
                differences.is_empty(),
                &format!("a commit was taken for an edit by hand: {differences:?}"),
            )?;
            let expected =
                ["a0", "nothing", "a0"][usize::try_from(recovered.generation().unwrap().get()).unwrap()];
            let found = content(&crashed, "a");
            expect(found == expected, &format!("a is {found}, and should be {expected}"))?;
        }
        Ok(results.iter().all(Result::is_ok))
    })
}

/// The first one's last wait is attached to the wave of the second. It is not acknowledged before that.
fn a_commit_that_another_follows_is_acknowledged_when_it_is_durably_in_place(
    disk: &SimDisk,
) -> Result<(), String> {
    at_every_step(disk, |machine, after| {
        let store = open(machine);
        let (mut first, mut second) = (store.begin().unwrap(), store.begin().unwrap());
        for (tx, new) in [(&mut first, "1"), (&mut second, "2")] {
            tx.write("a", format!("a{new}")).unwrap();
            tx.write(format!("new{new}"), new).unwrap();
        }
        machine.crash_at(cosave::fs::sim::Crash { after: machine.steps() + after, reversed: false });
        let results = Transaction::commit_together(vec![first, second]);
        let [first, second] = &results[..] else { return Ok(false) };
        expect(first.is_ok() || second.is_err(), "the second was acknowledged, and not the first")?;
        for loss in machine.power_losses(24, 1) {
            // Nobody has recovered anything.
            let (a, new) = (content(&loss, "a"), content(&loss, "new1"));
            let is_in_place = ["a1", "a2"].contains(&a.as_str()) && new == "1";
            expect(first.is_err() || is_in_place, &format!("acknowledged, and a is {a}, new1 is {new}"))?;
        }
        Ok(second.is_ok())
    })
}

/// A case, and the rule without which it fails.
pub(crate) type Case = (Rule, fn(&SimDisk) -> Result<(), String>);

fn nobody_commits_while_another_has_the_root_locked(disk: &SimDisk) -> Result<(), String> {
    let holder = open(disk);
    let other = Store::options().lock_timeout(Duration::ZERO).open_on(disk.process()).unwrap();
    let lock = holder.lock().unwrap();
    lock.update(|tx| tx.write("a", "the holder's")).unwrap();
    let refused = other.update(|tx| tx.write("a", "another's"));
    expect(refused.is_err(), "a commit came between those of one who has the root locked")?;
    drop(lock);
    expect(other.update(|tx| tx.write("a", "another's")).is_ok(), "the lock outlives its holder")
}

fn a_thread_without_the_key_does_not_pass(disk: &SimDisk) -> Result<(), String> {
    let store = Store::options().lock_timeout(Duration::ZERO).open_on(disk.process()).unwrap();
    let locked_elsewhere = std::thread::scope(|scope| scope.spawn(|| store.lock()).join().unwrap());
    let lock = locked_elsewhere.unwrap();
    lock.update(|tx| tx.write("a", "the holder's")).unwrap();
    let refused = store.update(|tx| tx.write("a", "another's"));
    expect(refused.is_err(), "another thread committed while one had the root locked")?;
    drop(lock);
    expect(store.update(|tx| tx.write("a", "another's")).is_ok(), "the gate stays closed")
}

fn a_single_file_whose_writer_lives_is_not_swept(disk: &SimDisk) -> Result<(), String> {
    use std::io::Write as _;
    let (path, root) = (RelativePath::new("a").unwrap(), RelativePath::root());
    let mut alive = cosave::AtomicFile::create_on(disk.process(), &path).unwrap();
    alive.write_all(b"a1").unwrap();
    let swept = cosave::sweep_temporary_files_on(&disk.process(), &root).unwrap();
    expect(swept.is_empty(), "the file of a living writer was swept")?;
    alive.commit().map_err(|error| error.to_string())?;
    expect(content(disk, "a") == "a1", "a commit has changed nothing")
}

fn a_commit_that_was_given_up_never_lands(disk: &SimDisk) -> Result<(), String> {
    // Small and long, given up before it is staged and at the last moment but one.
    for (inline_max, at_once) in [(1000, true), (1000, false), (0, true), (0, false)] {
        let withdraw = std::sync::Arc::new(std::sync::Mutex::new(None::<Box<dyn Fn() + Send>>));
        let late = std::sync::Arc::clone(&withdraw);
        let options = Store::options().inline_max(inline_max).on_progress(move |progress| {
            if matches!(progress, Progress::Committing { .. }) {
                late.lock().unwrap().iter().for_each(|withdraw| withdraw());
            }
            ControlFlow::Continue(())
        });
        let store = options.open_on(disk.process()).unwrap();
        let mut tx = store.begin().unwrap();
        tx.write("a", "given up").unwrap();
        let withdrawal = tx.withdrawal();
        match at_once {
            true => withdrawal(),
            false => *withdraw.lock().unwrap() = Some(Box::new(withdrawal)),
        }
        let given_up = tx.try_commit().map(|commit| commit.generation());
        expect(matches!(given_up, Err(Error::Cancelled { .. })), &format!("it ends with {given_up:?}"))?;
        drop(tx);
        expect(content(disk, "a") == "a0", "a commit landed that was given up")?;
        expect(staged_names(disk).is_empty(), "something of it is left")?;
        *withdraw.lock().unwrap() = None;
        // Whoever else commits is not concerned.
        store.update(|tx| tx.write("a", "a0")).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn the_root_is_locked_after_the_commits_that_are_under_way(disk: &SimDisk) -> Result<(), String> {
    let holder = Store::options().lock_timeout(Duration::ZERO).open_on(disk.process()).unwrap();
    let tried = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (told, locker) = (std::sync::Arc::clone(&tried), holder.clone());
    let committing = Store::options().on_progress(move |progress| {
        if matches!(progress, Progress::Applied { .. }) {
            told.lock().unwrap().push(locker.lock().is_ok());
        }
        ControlFlow::Continue(())
    });
    committing.open_on(disk.process()).unwrap().update(|tx| tx.write("a", "under way")).unwrap();
    let tried = std::mem::take(&mut *tried.lock().unwrap());
    expect(
        !tried.is_empty() && !tried.contains(&true),
        &format!("the root was locked in the midst of a commit: {tried:?}"),
    )?;
    expect(holder.lock().is_ok(), "the lock is not free after the commit")
}

const CASES: &[Case] = &[
    (Rule::SyncOthersDirectories, a_directory_of_another_open_transaction_takes_no_commit_along),
    (Rule::CheckStaged, a_staged_file_that_was_changed_is_not_published),
    (Rule::CheckBuilt, what_was_changed_in_a_directory_that_takes_the_place_of_a_file_is_not_published),
    (Rule::ReplaceAnyFile, a_new_file_where_a_directory_is_to_be_is_set_aside),
    (Rule::CheckPreconditions, a_file_that_must_not_exist_is_looked_for_under_the_lock),
    (Rule::CheckTargets, a_target_that_another_commit_replaced_is_no_foreign_file),
    (Rule::CheckFlags, a_target_that_was_frozen_since_is_not_published),
    (Rule::MissDirectories, a_file_whose_directory_is_gone_is_missing),
    (Rule::KnowMounts, crate::away::a_commit_waits_for_the_file_system_that_its_files_are_on),
    (Rule::TellPlacesApart, two_names_of_one_new_file_are_one_conflict),
    (Rule::CheckNamesAfter, a_directory_that_another_of_the_batch_fills_has_changed),
    (Rule::CheckNamesAfter, of_two_that_expect_one_generation_one_commits),
    (Rule::CheckExpected, what_is_expected_is_looked_for_under_the_lock),
    (Rule::CheckDirectories, a_directory_that_others_have_filled_meanwhile_is_a_conflict),
    (Rule::CheckDirectories, a_file_where_a_directory_is_to_be_is_a_conflict),
    (Rule::CheckNewDirectories, a_directory_that_others_have_made_gets_no_mode),
    (Rule::CheckNewDirectories, nothing_is_staged_in_a_directory_that_others_have_made),
    (Rule::CheckPreconditions, a_listing_that_has_changed_is_a_conflict),
    (Rule::CheckMoved, a_directory_of_others_that_is_moved_by_mistake_is_put_back),
    (Rule::KnowTrees, another_directory_in_the_place_of_a_removed_one_stays),
    (Rule::HideFirst, a_removed_directory_is_whole_for_as_long_as_it_has_its_name),
    (Rule::TreesApart, a_tree_that_moves_takes_no_file_of_the_batch_along),
    (Rule::HonourLease, nobody_commits_in_a_root_that_another_store_has_to_itself),
    (Rule::HonourLease, nobody_commits_while_another_has_the_root_locked),
    (Rule::PassGate, a_thread_without_the_key_does_not_pass),
    (Rule::SpareWriters, a_single_file_whose_writer_lives_is_not_swept),
    (Rule::AskCaller, a_commit_that_was_given_up_never_lands),
    (Rule::AwaitCommits, the_root_is_locked_after_the_commits_that_are_under_way),
    (Rule::FinishEarlier, a_commit_finishes_earlier_ones_first),
    (Rule::VerifyManifest, a_manifest_with_another_path_is_refused),
    (Rule::LookFirst, nothing_is_moved_before_everything_was_looked_at),
    (Rule::UnlinkAlias, a_staged_name_of_the_target_itself_goes),
    (Rule::SweepDeadOnly, the_living_are_not_swept),
    (Rule::CompareContent, what_was_read_is_compared_by_content),
    (Rule::OneSnapshot, a_change_between_two_reads_is_noticed),
    (Rule::ChecksumBefore, an_edit_in_the_granule_of_the_original_is_set_aside),
    (Rule::CheckTargets, what_another_commit_put_in_the_same_granule_is_no_edit),
    (Rule::AnswerPaid, a_commit_that_another_follows_is_acknowledged_when_it_is_durably_in_place),
    (Rule::LeaveToLater, a_removal_leaves_what_a_later_generation_wrote),
];

#[test]
fn every_rule_holds_and_is_missed_when_it_is_broken() {
    for (rule, case) in CASES {
        assert_eq!(case(&sim()), Ok(()), "{rule:?} is kept");
        match without(Some(*rule), || case(&sim())) {
            Err(problem) => println!("{rule:?}: {problem}"),
            Ok(()) => panic!("{rule:?} was broken, and the case still passes"),
        }
    }
}
