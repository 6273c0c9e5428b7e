//! Stores in memory, for the tests of programs that save with cosave (feature
//! `sim`). The disk is the simulated one; nothing here knows the protocol.

use crate::error::Result;
use crate::fs::sim::{Model, SimDisk};
use crate::options::StoreOptions;
use crate::store::Store;

impl Store {
    /// Opens an empty root in memory, with the default options. See [`StoreOptions::open_in_memory`].
    ///
    /// # Errors
    /// As for [`StoreOptions::open_in_memory`].
    ///
    /// # Examples
    ///
    /// ```
    /// /// What a program does, and its test wants to see.
    /// fn rename_user(store: &cosave::Store, name: &str) -> cosave::Result<()> {
    ///     store.update(|tx| tx.write("name", name))?;
    ///     Ok(())
    /// }
    ///
    /// let store = cosave::Store::in_memory()?;
    /// rename_user(&store, "Ada")?;
    /// assert_eq!(store.view()?.read_to_string("name")?, "Ada");
    /// # Ok::<(), cosave::Error>(())
    /// ```
    pub fn in_memory() -> Result<Self> {
        StoreOptions::default().open_in_memory()
    }
}

impl StoreOptions {
    /// Opens an empty root in memory. Everything works as on a disk, and nothing is ever written to one.
    ///
    /// [`SimDisk`] makes several stores on one memory, and disks that lose power or are full. The
    /// example `crash_test_your_save` shows how.
    ///
    /// # Errors
    /// None: an empty root has nothing to recover. The type is that of [`open`](Self::open).
    ///
    /// # Examples
    ///
    /// ```
    /// use cosave::{Durability, Store};
    ///
    /// let store = Store::options().durability(Durability::Committed).open_in_memory()?;
    /// store.update(|tx| tx.write("settings.json", "{}"))?;
    /// assert_eq!(store.view()?.read("settings.json")?, b"{}");
    /// # Ok::<(), cosave::Error>(())
    /// ```
    pub fn open_in_memory(self) -> Result<Store> {
        let disk = SimDisk::new(Model::OrderedPrefix);
        disk.real_time();
        self.open_on(disk.process())
    }
}
