//! Multipart uploads: an object that comes in parts, which may be sent at once.
//!
//! The order of the parts is that in which they were handed over, whichever future is polled first. So they
//! wait in a queue, and whoever comes first writes all that are there. What is written is a staged file of a
//! transaction: nobody sees it, and it goes when the upload is aborted, dropped, or its process dies.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as Queue};

use ::object_store::path::Path;
use ::object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task;

use super::change::{name, result};
use super::refused;
use crate::checksum::Checksum;
use crate::error::{Error, Reason};
use crate::protocol::root::guard;
use crate::tokio::{Store, Transaction, run};
use crate::writer::FileWriter;

/// An upload that is under way.
pub(super) struct Upload {
    /// Gone before the transaction: a file that is open cannot be removed everywhere.
    shared: Arc<Shared>,
    transaction: Option<Transaction>,
}

/// What the futures of the parts have in common.
struct Shared {
    parts: Queue<VecDeque<PutPayload>>,
    object: Arc<Mutex<Object>>,
    root: PathBuf,
}

/// The object, as far as it is written.
#[derive(Default)]
struct Object {
    writer: Option<FileWriter>,
    hasher: blake3::Hasher,
    /// What it has, once it is whole.
    checksum: Option<Checksum>,
    /// Why it will never be whole.
    failed: Option<Error>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) async fn begin(store: &Store, location: &Path) -> Result<Self> {
        let root = store.root();
        let failed = |error| refused::of_change(&root, error);
        let mut transaction = store.begin().await.map_err(failed)?;
        let path = name(location).to_owned();
        let writer = transaction.with(move |tx| tx.writer(path)).await.map_err(failed)?;
        let object = Arc::new(Mutex::new(Object { writer: Some(writer), ..Object::default() }));
        let shared = Shared { parts: Queue::default(), object, root };
        Ok(Self { shared: Arc::new(shared), transaction: Some(transaction) })
    }
}

impl Shared {
    /// Does something with the object, on the pool. The parts stay in the queue until it has begun, so a
    /// future that is dropped before loses none.
    async fn work<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&mut Object, &Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T> {
        let mut object = Arc::clone(&self.object).lock_owned().await;
        let shared = Arc::clone(&self);
        let done = run(self.root.clone(), move || work(&mut object, &shared));
        done.await.map_err(|error| refused::of_change(&self.root, error))
    }

    fn over(&self) -> Error {
        Error::Unsupported { path: self.root.clone().into(), reason: Reason::TransactionOver }
    }
}

impl Object {
    /// Writes every part that was handed over and is not written yet.
    fn write(&mut self, shared: &Shared) -> Result<(), Error> {
        let parts = std::mem::take(&mut *guard(&shared.parts));
        for piece in parts.iter().flatten() {
            let Some(writer) = &mut self.writer else {
                // It can no more be what was handed over, so it never will be whole.
                let error = self.failed.clone().unwrap_or_else(|| shared.over());
                return Err(self.give_up(error));
            };
            if let Err(error) = writer.take(piece) {
                return Err(self.give_up(error));
            }
            self.hasher.update(piece);
        }
        // Another future may have written this part, or tried to.
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Ends the object. Whatever was handed over is in it. Can be done again.
    fn finish(&mut self, shared: &Shared) -> Result<Checksum, Error> {
        self.write(shared)?;
        if let Some(writer) = self.writer.take() {
            writer.finish().map_err(|error| self.give_up(error))?;
            self.checksum = Some(Checksum::of_all(&self.hasher));
        }
        self.checksum.ok_or_else(|| shared.over())
    }

    fn give_up(&mut self, error: Error) -> Error {
        self.writer = None;
        self.failed.insert(error).clone()
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        guard(&self.shared.parts).push_back(data);
        Box::pin(Arc::clone(&self.shared).work(Object::write))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let failed = |error| refused::of_change(&self.shared.root, error);
        let Some(transaction) = &mut self.transaction else { return Err(failed(self.shared.over())) };
        let checksum = Arc::clone(&self.shared).work(Object::finish).await?;
        let made = match transaction.try_commit().await {
            // By an earlier call, whose future may have been dropped after the commit.
            Err(Error::Unsupported { reason: Reason::TransactionOver, .. })
                if transaction.is_committed().await =>
            {
                Ok(())
            }
            made => made.map(drop),
        };
        refused::unless_committed(made).map_err(failed)?;
        Ok(result(checksum))
    }

    async fn abort(&mut self) -> Result<()> {
        let give_up = |object: &mut Object, shared: &Shared| {
            guard(&shared.parts).clear();
            object.give_up(shared.over());
            Ok(())
        };
        Arc::clone(&self.shared).work(give_up).await?;
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        transaction.abort().await.map_err(|error| refused::of_change(&self.shared.root, error))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (shared, transaction) = (Arc::clone(&self.shared), self.transaction.take());
        // If the runtime has ended, nobody writes any more, and all of it is dropped here.
        let Ok(runtime) = Handle::try_current() else { return };
        let end = async move {
            // Parts may still be written by futures that nobody waits for. No thread of the pool may wait for
            // them: the one that has the lock may need it.
            let mut object = Arc::clone(&shared.object).lock_owned().await;
            let end = move || {
                object.give_up(shared.over());
                drop(transaction);
            };
            drop(task::spawn_blocking(end));
        };
        drop(runtime.spawn(end));
    }
}
