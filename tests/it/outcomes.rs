//! What a store tells of transactions whose commit was in doubt.

use std::fs;
use std::path::Path;

use cosave::{Error, Store, TransactionId, TransactionOutcome};

use crate::common::put;

fn committed(generation: u64) -> TransactionOutcome {
    TransactionOutcome::Committed { generation: generation.into() }
}

/// Leaves the mark that a writer leaves if it could not sync its commit point.
fn doubt(root: &Path, id: TransactionId) {
    fs::write(root.join(format!(".cosave/{id}.in-doubt")), "").unwrap();
}

/// A transaction of a session that is long dead.
fn stranger(number: u32) -> TransactionId {
    format!("{:032x}-{number}", 7).parse().unwrap()
}

/// Every answer is kept under the transaction's own name, and stays after the manifests are gone.
#[test]
fn every_transaction_that_was_in_doubt_gets_its_own_answer() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "0")]);
    for number in [1, 3] {
        doubt(root.path(), stranger(number));
    }
    let ids = ["1", "2", "3"].map(|content| {
        let id = put(&store, &[("a", content)]).transaction();
        doubt(root.path(), id);
        drop(Store::open(root.path()).unwrap());
        assert!(
            !root.path().join(format!(".cosave/{id}.in-doubt")).exists(),
            "nobody has looked at the doubt"
        );
        id
    });
    for content in ["4", "5"] {
        put(&store, &[("a", content)]);
    }
    assert!(!root.path().join(".cosave/4.applied").exists());
    for (id, generation) in ids.into_iter().zip(2..) {
        assert_eq!(store.outcome_of(id).unwrap(), committed(generation));
    }
    assert_eq!(store.outcome_of(stranger(1)).unwrap(), TransactionOutcome::NotCommitted);
    assert_eq!(store.outcome_of(stranger(2)).unwrap(), TransactionOutcome::Unknown);
    assert_eq!(store.outcome_of(stranger(3)).unwrap(), TransactionOutcome::NotCommitted);
}

/// A manifest that cannot be read may be the very one that was asked for. So nobody is told that nothing
/// was committed, and the doubt stays until the manifest is repaired.
#[test]
fn a_manifest_that_cannot_be_read_denies_no_transaction() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let id = put(&store, &[("a", "1")]).transaction();
    drop(store);
    let manifest = root.path().join(".cosave/1.applied");
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, "damaged").unwrap();
    doubt(root.path(), id);
    let store = Store::open(root.path()).unwrap();
    assert!(matches!(store.outcome_of(id), Err(Error::Corrupt { .. })));
    fs::write(&manifest, whole).unwrap();
    assert_eq!(store.outcome_of(id).unwrap(), committed(1));
}

/// The id was known only once the commit had returned. Whoever gave up before could not ask what became of it.
#[test]
fn the_id_of_a_transaction_is_known_before_its_commit() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    // In memory, and in staged files.
    for length in [1, crate::common::LARGE_BYTES] {
        let mut tx = store.begin().unwrap();
        let id = tx.id().unwrap();
        tx.write("a", vec![b'1'; length]).unwrap();
        assert_eq!(tx.id().unwrap(), id);
        let commit = tx.try_commit().unwrap();
        assert_eq!(commit.transaction(), id);
        assert!(tx.id().is_err(), "it is over");
        assert_eq!(store.outcome_of(id).unwrap(), committed(commit.generation().get()));
    }
    // One that changes nothing has it too, and one that is never committed leaves nothing.
    let nothing = store.begin().unwrap();
    let id = nothing.id().unwrap();
    assert_eq!(nothing.commit().unwrap().transaction(), id);
    let aborted = store.begin().unwrap();
    assert_eq!(store.outcome_of(aborted.id().unwrap()).unwrap(), TransactionOutcome::Unknown);
    drop((aborted, store));
    crate::common::assert_no_litter(root.path());
}

/// A power loss can bring a superseded manifest back with another file's bytes. Then nobody could be told of any
/// transaction that was not found in a newer one.
#[test]
fn a_superseded_manifest_that_is_damaged_answers_nothing_and_stops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let first = put(&store, &[("a", "1")]).transaction();
    let second = put(&store, &[("a", "2")]).transaction();
    fs::write(root.path().join(".cosave/1.applied"), "the bytes of another file").unwrap();
    assert_eq!(store.outcome_of(first).unwrap(), TransactionOutcome::Unknown);
    assert_eq!(store.outcome_of(second).unwrap(), committed(2));
}
