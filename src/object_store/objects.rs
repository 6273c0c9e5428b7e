//! The type: a root, and the ETags that are known of its objects.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::tags::Tags;
use crate::error::Result;
use crate::options::StoreOptions;
use crate::tokio::Store;

/// A root as a store of objects. It is an [`ObjectStore`](::object_store::ObjectStore), and
/// [the module](crate::object_store) says what it promises.
///
/// Clones are cheap, and share the session and the known ETags. Make one for a root and clone it.
///
/// # Examples
///
/// As in [the module](crate::object_store).
#[derive(Clone)]
pub struct Objects {
    pub(super) store: Store,
    pub(super) tags: Arc<Tags>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("root", &self.store.root()).finish_non_exhaustive()
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cosave({})", self.store.root().display())
    }
}

impl From<Store> for Objects {
    fn from(store: Store) -> Self {
        Self { store, tags: Arc::default() }
    }
}

impl Objects {
    /// Opens an existing directory, as [`Store::open`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Examples
    ///
    /// As in [the module](crate::object_store).
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        Store::open(root).await.map(Self::from)
    }

    /// Opens a root with options, as [`Store::open_with`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> cosave::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use cosave::object_store::Objects;
    ///
    /// // As durable, and one wait for the disk less for each put.
    /// let options = cosave::Store::options().create(true).durability(cosave::Durability::Committed);
    /// let objects = Objects::open_with(options, dir.path().join("objects")).await?;
    /// # Ok(()) }
    /// ```
    pub async fn open_with(options: StoreOptions, root: impl AsRef<Path>) -> Result<Self> {
        Store::open_with(options, root).await.map(Self::from)
    }

    /// The store whose files the objects are: for views, transactions, or to close it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::object_store::Objects;
    /// use object_store::ObjectStoreExt;
    ///
    /// let objects = Objects::open(dir.path()).await?;
    /// objects.put(&"a".into(), "1".into()).await?;
    /// // Several objects of one state.
    /// assert_eq!(objects.store().view().await?.read("a").await?, b"1");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}
