//! A root as a store of objects (feature `object_store`): the trait of the crate
//! [`object_store`](https://docs.rs/object_store), which databases and query engines take.
//!
//! An object is a file of the root, and its location is the file's path. What a put returns for is durable, and
//! everything is atomic between processes: any number of them can have a root open.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! use cosave::object_store::Objects;
//! use object_store::path::Path;
//! use object_store::{ObjectStoreExt, ObjectStore, PutMode};
//!
//! let objects = Objects::open(dir.path()).await?;
//! let (manifest, segment) = (Path::from("db/manifest"), Path::from("db/segments/1"));
//!
//! // It survives a power loss from here on.
//! let first = objects.put(&manifest, "segments: 0".into()).await?;
//!
//! // Whoever has seen the newest manifest may replace it, and nobody else.
//! let update = PutMode::Update(first.clone().into());
//! objects.put_opts(&manifest, "segments: 1".into(), update.clone().into()).await?;
//! let late = objects.put_opts(&manifest, "segments: 7".into(), update.into()).await;
//! assert!(matches!(late, Err(object_store::Error::Precondition { .. })));
//!
//! // Two objects, or none.
//! let mut batch = objects.batch();
//! batch.put(&segment, "rows".into()).put(&manifest, "segments: 2".into());
//! batch.commit().await?;
//! assert_eq!(objects.get(&segment).await?.bytes().await?, "rows");
//! # Ok(()) }
//! ```
//!
//! # What is promised
//!
//! - **Durable:** a put, a copy, a rename, a delete or an upload that has returned survives a power loss. Only a
//!   store with [`Durability::Process`](crate::Durability::Process) does not wait for that.
//! - **Conditional:** `PutMode::Create` has one winner, and so have `copy_if_not_exists` and
//!   `rename_if_not_exists`. `PutMode::Update` replaces the content that its ETag is of, and no other. Both
//!   hold between processes.
//! - **Atomic:** a rename and a [`Batch`] are one commit. A get, a list and a [view](crate::Store::view) have all
//!   of it or nothing. An object that is being read stays as it is when others replace it.
//! - **Nothing is left** of an upload that is aborted or dropped. What a killed process has left goes with the next
//!   opening. Nothing of it ever shows in a list.
//! - **No error of what was done:** a commit that is made and could not move all its files into place
//!   ([`Error::NotApplied`](crate::Error::NotApplied)) is told as made. Everybody sees it through the store, and the next
//!   operation finishes it.
//! - **A dropped future** leaves what it does for the operations [of this crate](crate::tokio#what-a-dropped-future-leaves):
//!   a put, a batch, a copy, a rename, a delete or `complete` has committed, or never will.
//!
//! # ETags
//!
//! The ETag of an object is the BLAKE3 [`Checksum`](crate::Checksum) of its bytes, as its `Display` prints it, and
//! never that of other bytes. The
//! same bytes have the same ETag, so one that was A, then B, then A again is replaced by an update that expects A.
//! Where that matters, put something into the object that does not come back, such as a number.
//!
//! Tasks that replace one object again and again by its ETag should wait a moment after a refusal, each a random
//! one. There are no turns, and the slow ones can lose many times.
//! [`store().update`](crate::tokio::Store::update) gives turns: what its closure reads is what it replaces.
//!
//! A conditional put reads the old object twice, the second time under the lock. It is meant for small ones. `head`,
//! a get of the whole object and one with `if_match` or `if_none_match` need the ETag. They read the object for it, once, and
//! know it from then on. This holds until its inode, its length or a time stamp changes. It begins
//! when this process has written a later file, since a young file can change without a new time stamp.
//! On Windows, which tells no time of change, they read it each time, and so does a process that only reads.
//! A get of a range and a list never read an object for its ETag, and tell it only if it is known. Whoever sets the
//! clock back can make a known ETag wrong, but no conditional put.
//!
//! # Limits
//!
//! - Locations are paths of files. So `a` and `a/b` cannot both be objects, and the second one is refused. A directory
//!   without objects shows in no list.
//! - A directory that somebody else has made holds its name, even if it is empty: no object can be put there. To put
//!   an object into it and delete that removes it. Directories that a delete or a rename empties go, whoever has
//!   made them. Two that empty one at the same moment can each leave it to the other.
//! - A copy and a rename take the time of copying the bytes, unless the file system can share them. If others commit
//!   meanwhile, the object is read again under the lock, as in a conditional put. The new object has a new time.
//! - `last_modified` is the time of the file, with the precision of its file system. Two puts can have the same one.
//! - A get waits for the commits that are under way, and so for the disk, whatever object it is of.
//! - Writers wait for a list for as long as their `lock_timeout`, and fail with [`Error::Locked`](crate::Error::Locked)
//!   then. A list by delimiter reads the names of the directories one level down, too.
//! - Names that the file system does not allow are refused, and so are `.cosave` and the names of
//!   staged files. Where `A` and `a` are one file, they are one object.
//! - A symlink to a file in the root is an object. A list does not follow one to a directory. On Windows `\` separates
//!   names as `/` does.
//! - Deleting what is not there is `NotFound`. A stream of locations is deleted in commits of up to 1000, each of
//!   as many as are ready.
//! - Attributes and versions are refused (`NotImplemented`). Tags are ignored, as the trait wants it.
//! - A list is of one state, and in memory before its first object is returned. Writers wait meanwhile, and so
//!   they do while a file is found for a get. Reading it is in nobody's way.
//! - Uploads are written in the order in which their parts were handed over. All that was handed over is in the object,
//!   whichever futures were awaited.
//! - On Windows no file can be replaced while it is open. So a put waits for the streams of gets that have not
//!   ended, if the object is longer than a mebibyte. If that takes too long, the put is told as
//!   made, and the next operation finishes it.
//!   A delete that empties a directory can be in the way of a put into it, which then fails and can be tried again.
//! - A process that may only read needs a store with [`read_only`](crate::StoreOptions::read_only). Until somebody
//!   who may write has opened the root after a kill, it can be refused.
//! - A name that is not UTF-8, or has a control character, is that of no object, and shows in no list. Lists are
//!   sorted by location. Each call makes the whole list anew, also one with an offset.
//! - A rename makes a copy first, and needs the room for it.
//! - `complete` can be called again after its future was dropped, and after an error that has changed nothing. Where
//!   the upload was committed before, it returns the same result. An `abort` after that undoes nothing.
//! - A missing permission is `PermissionDenied`. Every other error is `Generic`. Their source is an
//!   [`Error`](crate::Error). It is another one for a range that the object does not have, and for what is refused
//!   before the store is asked, such as an update without an ETag.
//! - As all futures of this crate, these need a tokio runtime.

mod batch;
mod change;
mod get;
mod list;
mod objects;
mod refused;
mod store;
mod tags;
mod upload;

pub use self::batch::Batch;
pub use self::objects::Objects;
