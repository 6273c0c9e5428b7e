//! Objects of several processes: one winner, no lost update, and kills.

use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use cosave::Store;
use cosave::object_store::Objects;
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, UpdateVersion};

use crate::common::{assert_no_litter, child, child_root, heard, random_seed, run, say, text, told};

const PROCESSES: u64 = 4;
const INCREMENTS: u64 = if cfg!(windows) { 8 } else { 25 };
/// To start a process takes long under Wine.
const KILLS: u64 = if cfg!(windows) { 8 } else { 40 };

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(future)
}

/// Adds one to a counter, and puts a second object with the same number beside it. Returns the number.
async fn increment(objects: &Objects) -> u64 {
    let (counter, copy) = (Path::from("counter"), Path::from("d/copy"));
    loop {
        let (mode, next) = match objects.get(&counter).await {
            Ok(found) => {
                let seen = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: None };
                let number: u64 =
                    String::from_utf8(found.bytes().await.unwrap().into()).unwrap().parse().unwrap();
                (PutMode::Update(seen), number + 1)
            }
            Err(Error::NotFound { .. }) => (PutMode::Create, 1),
            Err(error) => panic!("{error}"),
        };
        let mut batch = objects.batch();
        batch.put_opts(&counter, next.to_string().into(), mode.into()).unwrap();
        batch.put(&copy, next.to_string().into());
        match batch.commit().await {
            Ok(_) => return next,
            Err(Error::Precondition { .. } | Error::AlreadyExists { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn processes_that_update_one_object_lose_no_update_and_one_creates_each() {
    let root = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..PROCESSES)
        .map(|number| {
            let mut command = child("object_processes::child_that_increments", root.path());
            command.env("NUMBER", number.to_string());
            std::thread::spawn(move || run(command))
        })
        .collect();
    let said: Vec<String> = children.into_iter().flat_map(|child| child.join().unwrap()).collect();
    let mut created: Vec<_> = said.iter().filter_map(|said| said.strip_prefix("created ")).collect();
    created.sort_unstable();
    let mut expected: Vec<_> = (0..INCREMENTS).map(|number| number.to_string()).collect();
    expected.sort_unstable();
    assert_eq!(created, expected, "each object has one who created it");
    let mut counted: Vec<u64> =
        said.iter().filter_map(|said| said.strip_prefix("counted ")?.parse().ok()).collect();
    counted.sort_unstable();
    assert_eq!(counted, (1..=PROCESSES * INCREMENTS).collect::<Vec<_>>(), "an update was lost");
    assert_eq!(text(root.path().join("counter")), (PROCESSES * INCREMENTS).to_string());
    // Two that emptied it at the same moment may each have left it to the other.
    block_on(async {
        let (objects, last) = (Objects::open(root.path()).await.unwrap(), Path::from("emptied/again/last"));
        objects.put(&last, "1".into()).await.unwrap();
        objects.delete(&last).await.unwrap();
    });
    assert!(!root.path().join("emptied").exists(), "it is not empty, or is left");
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of processes_that_update_one_object_lose_no_update_and_one_creates_each"]
fn child_that_increments() {
    let Some(root) = child_root() else { return };
    let number = told("NUMBER");
    block_on(async {
        let objects = Objects::open(root).await.unwrap();
        for round in 0..INCREMENTS {
            let location = Path::from(format!("created/{round}"));
            match objects.put_opts(&location, number.to_string().into(), PutMode::Create.into()).await {
                Ok(_) => say(format!("created {round}")),
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            say(format!("counted {}", increment(&objects).await));
            // Each empties the directory for the others, and fills it again. On Windows one that is open goes later.
            if cfg!(windows) {
                continue;
            }
            let own = Path::from(format!("emptied/again/{number}"));
            objects.put(&own, round.to_string().into()).await.unwrap();
            objects.delete(&own).await.unwrap();
        }
    });
}

#[test]
fn killed_writers_lose_nothing_that_was_acknowledged_and_leave_no_half_of_a_batch() {
    let root = tempfile::tempdir().unwrap();
    let seed = random_seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    for kill in 0..KILLS {
        let acknowledged = kill_two(root.path(), count, &mut random);
        let failed = format!("COSAVE_TEST_SEED={seed}: after kill {kill}");
        let store = Store::open(root.path()).unwrap();
        let view = store.view().unwrap();
        let [counter, copy] = ["counter", "d/copy"].map(|path| view.read_to_string(path).unwrap());
        assert_eq!(counter, copy, "{failed}: half a batch");
        count = counter.parse().unwrap();
        assert!(count >= acknowledged, "{failed}: {acknowledged} was acknowledged, and {count} is there");
        assert!(
            count <= acknowledged + 2,
            "{failed}: {count}, and each may have one more than {acknowledged}"
        );
    }
    assert!(count > KILLS, "COSAVE_TEST_SEED={seed}: hardly anything was done");
    assert_no_litter(root.path());
}

/// Two children count. Kills them after a moment. Returns the highest number that one has acknowledged.
fn kill_two(root: &FilePath, acknowledged: u64, random: &mut fastrand::Rng) -> u64 {
    let mut children: Vec<_> = (0..2)
        .map(|_| child("object_processes::child_that_counts_until_it_is_killed", root).spawn().unwrap())
        .collect();
    let mut said: Vec<_> = children.iter_mut().map(heard).collect();
    // Whichever is first, both have begun.
    let first: Vec<_> = said.iter_mut().filter_map(|said| said.next()?.parse().ok()).collect();
    let moment = Duration::from_micros(random.u64(..20_000));
    let start = Instant::now();
    while start.elapsed() < moment {
        std::hint::spin_loop();
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = said.into_iter().flatten().filter_map(|said| said.parse().ok()).chain(first).max();
    last.unwrap_or(0).max(acknowledged)
}

#[test]
#[ignore = "child of killed_writers_lose_nothing_that_was_acknowledged_and_leave_no_half_of_a_batch"]
fn child_that_counts_until_it_is_killed() {
    let Some(root) = child_root() else { return };
    block_on(async {
        let objects = Objects::open(root).await.unwrap();
        loop {
            say(increment(&objects).await);
        }
    });
}
