//! Stores in memory do what stores on a disk do.

use std::num::ParseIntError;

use cosave::{Durability, Store};

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Save(#[from] cosave::Error),
    #[error(transparent)]
    Number(#[from] ParseIntError),
}

/// Adds one to a counter, as a program would.
fn count(store: &Store) -> Result<(), Failed> {
    store.update(|tx| {
        let text = tx.read_if_exists("counter")?.unwrap_or_else(|| b"0".to_vec());
        let number: u32 = String::from_utf8_lossy(&text).parse()?;
        tx.write("counter", (number + 1).to_string())?;
        tx.write("log/last", format!("counted to {}", number + 1))?;
        Ok::<_, Failed>(())
    })?;
    Ok(())
}

#[test]
fn threads_that_update_one_counter_in_memory_lose_no_count() {
    for durability in [Durability::Full, Durability::Committed, Durability::Process] {
        let store = Store::options().durability(durability).open_in_memory().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| count(&store).unwrap()));
            }
        });
        let view = store.view().unwrap();
        assert_eq!(view.read_to_string("counter").unwrap(), "100", "{durability:?}");
        assert_eq!(view.read_to_string("log/last").unwrap(), "counted to 100", "{durability:?}");
    }
}

#[test]
fn a_store_in_memory_can_be_opened_again_and_keeps_what_was_saved() {
    let store = Store::in_memory().unwrap();
    count(&store).unwrap();
    let mut aborted = store.begin().unwrap();
    aborted.write("counter", "never").unwrap();
    drop(aborted);
    let store = store.reopen().unwrap();
    count(&store).unwrap();
    assert_eq!(store.view().unwrap().read_to_string("counter").unwrap(), "2");
    assert_eq!(store.generation().unwrap().get(), 2);
}

#[test]
fn two_stores_in_memory_have_nothing_in_common() {
    let (one, other) = (Store::in_memory().unwrap(), Store::in_memory().unwrap());
    count(&one).unwrap();
    assert!(!other.view().unwrap().exists("counter").unwrap());
}
