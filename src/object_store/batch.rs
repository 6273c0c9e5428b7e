//! Several changes of objects in one commit.

use std::fmt;
use std::sync::{Arc, Mutex};

use ::object_store::path::Path;
use ::object_store::{CopyMode, PutOptions, PutPayload, PutResult, Result};

use super::change::{self, Change, Condition, result};
use super::objects::Objects;
use super::refused::{self, Failure};
use crate::protocol::root::guard;

/// Changes of objects that happen together, or not at all. Made by [`Objects::batch`].
///
/// Nobody sees one of them without the others: no get, no list, and no view. They are made in their order, so a
/// later one counts. Conditions are about what others have left there, and not about earlier changes of the batch.
/// Nothing is done before [`commit`](Self::commit). One batch cannot put an object where it empties a directory, nor
/// below an object that it deletes: the commit is refused then.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use cosave::object_store::Objects;
/// use object_store::path::Path;
/// use object_store::{ObjectStoreExt, PutMode};
///
/// let objects = Objects::open(dir.path()).await?;
/// let (table, log) = (Path::from("table/1.parquet"), Path::from("log/1.json"));
/// let mut batch = objects.batch();
/// batch.put(&table, "rows".into());
/// batch.put_opts(&log, "table/1.parquet".into(), PutMode::Create.into())?;
/// let put = batch.commit().await?;
/// assert_eq!(objects.head(&table).await?.e_tag, put[0].e_tag);
///
/// // The second time, the log entry is there: then nothing of the batch is done.
/// let mut batch = objects.batch();
/// batch.delete(&table).put_opts(&log, "none".into(), PutMode::Create.into())?;
/// let refused = batch.commit().await.unwrap_err();
/// assert!(matches!(refused, object_store::Error::AlreadyExists { .. }));
/// assert_eq!(objects.get(&table).await?.bytes().await?, "rows");
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a batch that is not committed does nothing"]
pub struct Batch {
    objects: Objects,
    changes: Vec<Change>,
}

impl fmt::Debug for Batch {
    /// Without the bytes, which can be many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Batch");
        debug.field("objects", &self.objects).field("changes", &self.changes.len()).finish()
    }
}

impl Batch {
    /// Puts an object, whatever is there.
    ///
    /// # Examples
    ///
    /// As for [`Batch`].
    pub fn put(&mut self, location: &Path, payload: PutPayload) -> &mut Self {
        self.changes.push(Change::Put { location: location.clone(), payload, condition: Condition::None });
        self
    }

    /// Puts an object, with options.
    ///
    /// # Errors
    /// At once, those of [`put_opts`](::object_store::ObjectStore::put_opts) that need no look at the store:
    /// `NotImplemented` for attributes and versions, `Precondition` for what is no ETag, and `Generic` for an
    /// update without one. The batch goes on without it.
    ///
    /// # Examples
    ///
    /// As for [`Batch`].
    pub fn put_opts(
        &mut self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<&mut Self> {
        self.changes.push(self.objects.put_of(location, payload, options)?);
        Ok(self)
    }

    /// Deletes an object. If it is not there at the commit, nothing of the batch is done.
    ///
    /// # Examples
    ///
    /// As for [`Batch`].
    pub fn delete(&mut self, location: &Path) -> &mut Self {
        self.changes.push(Change::Delete(location.clone()));
        self
    }

    /// Copies an object, as it is after the earlier changes of the batch.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::object_store::Objects;
    /// use object_store::{CopyMode, ObjectStoreExt, path::Path};
    ///
    /// let objects = Objects::open(dir.path()).await?;
    /// let (state, before) = (Path::from("state"), Path::from("state.before"));
    /// objects.put(&state, "1".into()).await?;
    /// let mut batch = objects.batch();
    /// batch.copy(&state, &before, CopyMode::Overwrite).put(&state, "2".into());
    /// batch.commit().await?;
    /// assert_eq!(objects.get(&before).await?.bytes().await?, "1");
    /// # Ok(()) }
    /// ```
    pub fn copy(&mut self, from: &Path, to: &Path, mode: CopyMode) -> &mut Self {
        self.changes.push(Change::Copy { from: from.clone(), to: to.clone(), mode });
        self
    }

    /// Moves an object, as it is after the earlier changes of the batch.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use cosave::object_store::Objects;
    /// use object_store::{CopyMode, ObjectStoreExt, path::Path};
    ///
    /// let objects = Objects::open(dir.path()).await?;
    /// let [a, b] = ["a", "b"].map(Path::from);
    /// objects.put(&a, "1".into()).await?;
    /// let mut batch = objects.batch();
    /// batch.rename(&a, &b, CopyMode::Create).put(&a, "2".into());
    /// batch.commit().await?;
    /// assert_eq!(objects.get(&b).await?.bytes().await?, "1");
    /// # Ok(()) }
    /// ```
    pub fn rename(&mut self, from: &Path, to: &Path, mode: CopyMode) -> &mut Self {
        self.changes.push(Change::Rename { from: from.clone(), to: to.clone(), mode });
        self
    }

    /// Makes all changes, in one commit. Returns what each put returns, in their order. Decided at once if the
    /// future is dropped: see [the module](crate::tokio#what-a-dropped-future-leaves).
    ///
    /// # Errors
    /// Those of the trait's methods, for the first change that is refused. Nothing was changed then, unless
    /// the source is an [`Error`](crate::Error) whose outcome says something else.
    ///
    /// # Examples
    ///
    /// As for [`Batch`].
    pub async fn commit(self) -> Result<Vec<PutResult>> {
        self.objects.change(self.changes).await
    }
}

impl Objects {
    /// Begins a batch: changes of several objects in one commit.
    ///
    /// # Examples
    ///
    /// As for [`Batch`].
    pub fn batch(&self) -> Batch {
        Batch { objects: self.clone(), changes: Vec::new() }
    }

    /// Makes changes in one commit.
    pub(super) async fn change(&self, changes: Vec<Change>) -> Result<Vec<PutResult>> {
        let changes = Arc::new(changes);
        let root = self.store.root();
        // Kept here, since a commit can be made and meet an error then.
        let put = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&put);
        let update = self.store.update(move |tx| {
            *guard(&noted) = change::add_all(tx, &changes)?;
            Ok::<_, Failure>(())
        });
        update.await.map(drop).or_else(Failure::unless_committed).map_err(|failure| failure.of(&root))?;
        let put = std::mem::take(&mut *guard(&put));
        Ok(put.into_iter().map(result).collect())
    }

    /// A put as a change, if it asks for nothing that cannot be kept.
    pub(super) fn put_of(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<Change> {
        if !options.attributes.is_empty() {
            return Err(refused::not_implemented("`put_opts` with attributes", self));
        }
        let condition = Condition::of(location, options.mode, self)?;
        Ok(Change::Put { location: location.clone(), payload, condition })
    }
}
