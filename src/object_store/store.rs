//! The trait, for a root.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use ::object_store::path::Path;
use ::object_store::{
    CopyMode, CopyOptions, Error as Refused, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode,
    Result,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::change::{self, Change};
use super::objects::Objects;
use super::refused::{self, Failure};
use super::upload::Upload;
use super::{get, list};
use crate::error::Error;
use crate::protocol::root::guard;
use crate::view::View;

/// How many objects of a stream are deleted in one commit.
const DELETED_MAX: usize = 1000;

#[async_trait]
impl ObjectStore for Objects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.put_of(location, payload, options)?;
        let mut results = self.change(vec![put]).await?;
        results.pop().ok_or_else(|| refused::generic("a put that has put nothing"))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !options.attributes.is_empty() {
            return Err(refused::not_implemented("`put_multipart_opts` with attributes", self));
        }
        Ok(Box::new(Upload::begin(&self.store, location).await?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.version.is_some() {
            return Err(refused::not_implemented("`get_opts` with a version", self));
        }
        let (location, tags, root) = (location.clone(), Arc::clone(&self.tags), self.store.root());
        let given = root.clone();
        let fetched = self.look(move |view| get::fetch(view, &tags, location, &options, &given)).await?;
        Ok(fetched.into_result(root))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (location, ranges, root) = (location.clone(), ranges.to_vec(), self.store.root());
        self.look(move |view| get::fetch_ranges(view, &location, &ranges, &root)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let objects = self.clone();
        let delete = move |chunk: Vec<Result<Path>>| {
            let objects = objects.clone();
            async move { stream::iter(objects.delete_all(chunk).await) }
        };
        locations.ready_chunks(DELETED_MAX).then(delete).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (prefix, tags) = (prefix.cloned().unwrap_or_default(), Arc::clone(&self.tags));
        let root = self.store.root();
        let list = move |view: View| {
            list::right_below(&view, &tags, &prefix).map_err(|error| refused::other(&root, error))
        };
        self.look(list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let copy = Change::Copy { from: from.clone(), to: to.clone(), mode: options.mode };
        self.change(vec![copy]).await.map(drop)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let mode = match options.target_mode {
            RenameTargetMode::Overwrite => CopyMode::Overwrite,
            RenameTargetMode::Create => CopyMode::Create,
        };
        let rename = Change::Rename { from: from.clone(), to: to.clone(), mode };
        self.change(vec![rename]).await.map(drop)
    }
}

impl Objects {
    /// Does something with one state, in one trip to the pool.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // An error of the trait is no error of the view.
        let looked = self.store.look(move |view| Ok(work(view))).await;
        looked.map_err(|error| refused::other(&self.store.root(), error))?
    }

    fn listed(&self, prefix: Option<&Path>, offset: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (objects, prefix, offset) = (self.clone(), prefix.cloned().unwrap_or_default(), offset.cloned());
        let found = async move {
            let (tags, root) = (Arc::clone(&objects.tags), objects.store.root());
            let all = move |view: View| {
                let found = list::all(&view, &tags, &prefix, offset.as_ref());
                found.map_err(|error| refused::other(&root, error))
            };
            let found = objects.look(all).await?;
            Ok::<_, Refused>(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(found).try_flatten().boxed()
    }

    /// Deletes what it can, in one commit.
    async fn delete_all(&self, locations: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let given: Vec<Path> = locations.iter().flatten().cloned().collect();
        let root = self.store.root();
        // Kept here, since a commit can be made and meet an error then.
        let deleted = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&deleted);
        let update = self.store.update(move |tx| {
            *guard(&noted) = given.iter().map(|location| change::delete(tx, location)).collect();
            tx.prune_empty_parents();
            Ok::<_, Error>(())
        });
        let made = refused::unless_committed(update.await.map(drop));
        let mut deleted = made.map(|()| std::mem::take(&mut *guard(&deleted)).into_iter());
        let mut answer = |location: Path| {
            let failure = match &mut deleted {
                Ok(answers) => answers.next().and_then(Result::err).map(Failure::Source),
                Err(error) => Some(Failure::Change(error.clone())),
            };
            failure.map_or(Ok(location), |failure| Err(failure.of(&root)))
        };
        locations.into_iter().map(|location| location.and_then(&mut answer)).collect()
    }
}
