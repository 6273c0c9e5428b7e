//! A generation that cannot be recovered has a way out, also after a restart.

use cosave::{Error, Store};

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
