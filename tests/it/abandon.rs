//! A generation that cannot be recovered has a way out, also after a restart.

use cosave::{Error, Store, TransactionOutcome};

use crate::common::{Crash, text};

#[test]
fn a_root_that_cannot_be_opened_can_be_opened_to_abandon() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    store.update(|tx| tx.write("a", "1")).unwrap();
    drop(store);
    std::fs::write(root.path().join(".cosave/2.pending"), "damaged").unwrap();
    assert!(matches!(Store::open(root.path()), Err(Error::Corrupt { .. })));

    let store = Store::options().recover(false).open(root.path()).unwrap();
    assert_eq!(store.status().unwrap().pending, [cosave::Generation::from(2)]);
    assert!(matches!(store.update(|tx| tx.write("a", "no")), Err(Error::Corrupt { .. })));
    store.abandon(2).unwrap();
    assert_eq!(store.update(|tx| tx.write("a", "3")).unwrap().generation(), 3);
    drop(store);
    assert!(Store::open(root.path()).is_ok());
    assert_eq!(std::fs::read(root.path().join("a")).unwrap(), b"3");
}

#[test]
fn what_comes_before_is_not_given_up_with_it() {
    let root = tempfile::tempdir().unwrap();
    let mut crash = Crash::new(root.path());
    crash.write("a", "1");
    crash.publish(1);
    std::fs::write(root.path().join(".cosave/2.pending"), "damaged").unwrap();
    let store = Store::options().recover(false).open(root.path()).unwrap();
    assert!(matches!(store.abandon(2), Err(Error::Unsupported { .. })));
    assert!(matches!(store.recover(), Err(Error::Corrupt { .. })));
    assert_eq!(text(root.path().join("a")), "1");
    store.abandon(2).unwrap();
    drop(store);
    assert!(Store::open(root.path()).is_ok());
    assert_eq!(text(root.path().join("a")), "1");
}

/// Once a damaged manifest was given up, no store could tell the outcome of any transaction: the search
/// through the manifests stopped at the damaged one.
#[test]
fn outcomes_are_still_told_after_a_damaged_generation_is_given_up() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let commit = store.update(|tx| tx.write("a", "1")).unwrap();
    drop(store);
    std::fs::write(root.path().join(".cosave/2.pending"), "damaged").unwrap();
    let store = Store::options().recover(false).open(root.path()).unwrap();
    store.abandon(2).unwrap();
    let committed = TransactionOutcome::Committed { generation: 1.into() };
    assert_eq!(store.outcome_of(commit.transaction()).unwrap(), committed);
    let unknown = format!("{:032x}-1", 7).parse().unwrap();
    assert_eq!(store.outcome_of(unknown).unwrap(), TransactionOutcome::Unknown);
}
