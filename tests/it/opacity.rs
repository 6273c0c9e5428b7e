//! Everything that a transaction reads is of one state, however it asks: attacked by threads, by another
//! process, in dry runs, and in stores that may not write.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cosave::{Error, Store, Transaction};

use crate::common::{child, child_root, heard, quick, random_seed, say};

/// Writes generation `number` all over the root: two contents, a length, and a name.
fn write(store: &Store, number: u64) {
    let save = |tx: &mut Transaction| {
        tx.write("a", number.to_string())?;
        tx.write("deep/b", number.to_string())?;
        tx.write("length", vec![1; usize::try_from(number).unwrap()])?;
        tx.write(format!("names/{number}"), "")?;
        if number > 1 {
            tx.remove_if_exists(format!("names/{}", number - 1))?;
        }
        Ok::<_, Error>(())
    };
    store.update(save).unwrap();
}

/// What one question says of the number, in one of the ways in which it can be asked.
fn ask(tx: &Transaction, way: usize, known: Option<u64>) -> cosave::Result<u64> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text:?} was never written"));
    Ok(match way {
        0 => number(std::str::from_utf8(&tx.read("a")?).unwrap()),
        1 => number(&tx.read_to_string("deep/b")?),
        2 => tx.metadata("length")?.length(),
        3 => {
            let names = tx.list("names")?;
            assert_eq!(names.len(), 1, "a name of another state: {names:?}");
            number(names[0].name().to_str().unwrap())
        }
        4 => {
            let mut text = String::new();
            tx.open("a")?.read_to_string(&mut text).unwrap();
            number(&text)
        }
        _ => match known {
            Some(known) => {
                assert!(tx.exists(format!("names/{known}"))?, "the file of {known} is missing");
                assert!(!tx.exists(format!("names/{}", known + 1))?, "a file of a later state is there");
                known
            }
            None => tx.read_if_exists("length")?.unwrap_or_default().len() as u64,
        },
    })
}

/// Asks in a random order until something has changed. Returns whether all was answered.
fn look(tx: &Transaction, random: &mut fastrand::Rng) -> bool {
    let mut ways = [0, 1, 2, 3, 4, 5];
    random.shuffle(&mut ways);
    let mut answers: Vec<u64> = Vec::new();
    for way in ways {
        match ask(tx, way, answers.first().copied()) {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                assert!(error.is_conflict(), "{error}");
                let again = ask(tx, random.usize(..5), None);
                assert!(again.is_err_and(|error| error.is_conflict()), "a changed state is read on");
                return false;
            }
        }
    }
    let distinct: BTreeSet<_> = answers.iter().collect();
    assert_eq!(distinct.len(), 1, "asked in the order {ways:?}, a transaction saw {answers:?}");
    true
}

/// A way in which a transaction that reads can begin, and its name.
type Reader = (&'static str, Store, fn(&Store) -> cosave::Result<Transaction>);

fn readers(root: &Path) -> [Reader; 3] {
    let read_only = Store::options().read_only(true).open(root).unwrap();
    [
        ("a transaction", quick(root), Store::begin),
        ("a dry run", quick(root), Store::dry_run),
        ("a dry run of a read-only store", read_only, Store::dry_run),
    ]
}

const LOOKS: u64 = 40;

#[test]
fn no_thread_sees_two_states_in_one_transaction() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    write(&store, 1);
    let seed = random_seed();
    let (whole, cut) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let looking: Vec<_> = readers(root.path())
            .into_iter()
            .map(|(name, reader, begin)| {
                let (whole, cut, mut random) = (&whole, &cut, fastrand::Rng::with_seed(seed));
                scope.spawn(move || {
                    let mut looks = 0;
                    while looks < LOOKS {
                        if look(&begin(&reader).unwrap(), &mut random) {
                            looks += 1;
                            whole.fetch_add(1, Ordering::SeqCst);
                        } else {
                            cut.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    println!("{name}: {looks} whole looks");
                })
            })
            .collect();
        let mut number = 1;
        while looking.iter().any(|reader| !reader.is_finished()) {
            number += 1;
            write(&store, number);
            // Between two saves somebody gets a whole look, so this has an end.
            let before = whole.load(Ordering::SeqCst);
            while number % 4 == 0
                && whole.load(Ordering::SeqCst) == before
                && looking.iter().any(|reader| !reader.is_finished())
            {
                thread::yield_now();
            }
        }
    });
    let (whole, cut) = (whole.into_inner(), cut.into_inner());
    println!("{whole} whole looks, {cut} cut short");
    assert_eq!(whole, 3 * LOOKS);
}

const SAVES: u64 = 60;

#[test]
fn no_process_sees_two_states_of_another() {
    let root = tempfile::tempdir().unwrap();
    write(&quick(root.path()), 1);
    let mut writer = child("opacity::child_that_writes", root.path()).spawn().unwrap();
    let said = heard(&mut writer);
    let writes = thread::spawn(move || said.collect::<Vec<_>>());
    let mut random = fastrand::Rng::with_seed(random_seed());
    let readers = readers(root.path());
    let (mut whole, mut cut) = (0, 0);
    while !writes.is_finished() {
        for (_, reader, begin) in &readers {
            let seen = look(&begin(reader).unwrap(), &mut random);
            *(if seen { &mut whole } else { &mut cut }) += 1;
        }
    }
    println!("{whole} whole looks, {cut} cut short");
    assert_eq!(writes.join().unwrap(), ["done"]);
    assert!(writer.wait().unwrap().success());
    for (name, reader, begin) in &readers {
        let tx = begin(reader).unwrap();
        assert!(look(&tx, &mut random), "{name}");
        assert_eq!(ask(&tx, 0, None).unwrap(), SAVES, "{name}");
    }
}

#[test]
#[ignore = "child of no_process_sees_two_states_of_another"]
fn child_that_writes() {
    let Some(root) = child_root() else { return };
    let store = quick(&root);
    (2..=SAVES).for_each(|number| write(&store, number));
    say("done");
}

/// A user who may not write sees whole states, plans changes, and leaves nothing behind.
#[cfg(unix)]
#[test]
fn a_user_who_may_not_write_reads_whole_states_and_plans() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65534;
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    (1..=3).for_each(|number| write(&store, number));
    drop(store);
    let directories = ["names", "deep", ""].map(|directory| root.path().join(directory));
    let set_mode = |mode: u32| {
        for directory in &directories {
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set_mode(0o555);
    let before = crate::common::tree(root.path());
    let mut other = child("opacity::child_that_may_not_write", root.path());
    // Root may write anywhere. Without the right to become somebody else, this process is that user.
    if std::fs::write(root.path().join("probe"), "").is_ok() {
        std::fs::remove_file(root.path().join("probe")).unwrap();
        other.uid(NOBODY).gid(NOBODY);
    }
    match other.spawn() {
        Ok(mut other) => {
            let said: Vec<_> = heard(&mut other).collect();
            assert!(other.wait().unwrap().success(), "{said:?}");
            assert_eq!(said, ["done"]);
        }
        Err(error) => crate::common::skipped("opacity", &format!("another user cannot run this: {error}")),
    }
    assert_eq!(crate::common::tree(root.path()), before);
    set_mode(0o755);
}

#[test]
#[ignore = "child of a_user_who_may_not_write_reads_whole_states_and_plans"]
fn child_that_may_not_write() {
    let Some(root) = child_root() else { return };
    assert!(std::fs::write(root.join("probe"), "").is_err());
    let store = Store::options().read_only(true).open(&root).unwrap();
    let mut random = fastrand::Rng::with_seed(random_seed());
    let mut plan = store.dry_run().unwrap();
    assert!(look(&plan, &mut random));
    plan.write("a", "four").unwrap();
    plan.remove("names/3").unwrap();
    let shown: Vec<_> = plan.changes().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["replace a (1 -> 4 bytes)", "remove  names/3 (0 bytes)"]);
    assert_eq!(plan.read_to_string("a").unwrap(), "four");
    assert!(plan.list("names").unwrap().is_empty());
    assert!(matches!(plan.try_commit(), Err(Error::Unsupported { .. })));
    assert!(matches!(store.begin(), Err(Error::Unsupported { .. })));
    say("done");
}
