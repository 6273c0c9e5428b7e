//! Multipart uploads of objects: parts in any order, and what is left of uploads that end early.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use cosave::Checksum;
use cosave::fs::sim::{Model, SimDisk};
use cosave::object_store::Objects;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore as _, ObjectStoreExt as _};
use tokio::runtime::{Builder, Runtime};

use crate::common::{LARGE_BYTES, assert_no_litter, child, child_root, litter, paths, run, say, tree, waits};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

async fn begin(objects: &Objects, location: &str) -> Box<dyn MultipartUpload> {
    objects.put_multipart(&location.into()).await.unwrap()
}

/// An upload of one part that was refused, since somebody read for too long. Nobody reads any more.
async fn refused(root: &std::path::Path) -> (Objects, Box<dyn MultipartUpload>) {
    let options = cosave::Store::options().lock_timeout(std::time::Duration::from_millis(20));
    let objects = Objects::open_with(options, root).await.unwrap();
    let mut upload = begin(&objects, "a").await;
    upload.put_part(part(1).into()).await.unwrap();
    let view = objects.store().view().await.unwrap();
    let refused = upload.complete().await.unwrap_err();
    assert!(matches!(refused, Error::Generic { .. }), "{refused}");
    drop(view);
    (objects, upload)
}

/// Of no two parts alike, and longer than what stays in memory.
fn part(number: u8) -> Vec<u8> {
    vec![number; LARGE_BYTES / 2]
}

#[test]
fn the_order_of_an_upload_is_that_in_which_parts_were_handed_over() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let objects = Objects::open(root.path()).await.unwrap();
        let mut upload = begin(&objects, "d/a").await;
        let mut parts: Vec<_> = (0..5).map(|number| upload.put_part(part(number).into())).collect();
        // The last one first, then another one, one that is given up when it has begun, and two that nobody awaits.
        parts.pop().unwrap().await.unwrap();
        parts.remove(1).await.unwrap();
        let waker = Waker::noop();
        let _ready_or_not = pin!(parts.remove(0)).as_mut().poll(&mut Context::from_waker(waker));
        drop(parts);
        drop(upload.put_part("end".into()));
        assert_eq!(tree(root.path()).get(std::path::Path::new("d/a")), None, "nobody sees it yet");
        let put = upload.complete().await.unwrap();
        let bytes = [(0..5).flat_map(part).collect(), b"end".to_vec()].concat();
        assert_eq!(put.e_tag, Some(Checksum::of(&bytes).to_string()));
        assert!(objects.get(&"d/a".into()).await.unwrap().bytes().await.unwrap() == bytes);
        // It is over.
        for refused in [upload.put_part("more".into()).await.err(), upload.complete().await.err()] {
            let refused = refused.unwrap();
            assert!(matches!(refused, Error::Generic { .. }), "{refused}");
        }
        assert_eq!(objects.head(&"d/a".into()).await.unwrap().size, bytes.len() as u64);
    });
    assert_no_litter(root.path());
}

#[test]
fn nothing_is_left_of_an_upload_that_is_aborted_or_dropped() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let objects = Objects::open(root.path()).await.unwrap();
        objects.put(&"there".into(), "1".into()).await.unwrap();
        let mut aborted = begin(&objects, "d/aborted").await;
        aborted.put_part(part(1).into()).await.unwrap();
        let mut late = aborted.put_part(part(2).into());
        let mut dropped = begin(&objects, "d/dropped").await;
        dropped.put_part(part(3).into()).await.unwrap();
        let unfinished = dropped.put_part(part(4).into());
        assert_eq!(
            litter(root.path()).iter().filter(|path| path.contains("d/.") || path.contains("d\\.")).count(),
            2
        );
        assert_eq!(objects.list_with_delimiter(None).await.unwrap().common_prefixes, [] as [Path; 0]);

        aborted.abort().await.unwrap();
        assert!(!litter(root.path()).iter().any(|path| path.contains("aborted")), "gone when it returns");
        assert!(late.as_mut().await.is_err(), "a part of an upload that is over");
        assert!(aborted.complete().await.is_err());
        aborted.abort().await.unwrap();

        drop(dropped);
        drop(unfinished);
        assert!(waits(|| !root.path().join("d").exists()), "{:?}", litter(root.path()));
    });
    assert_eq!(paths(root.path()), [std::path::Path::new("there")]);
    assert_no_litter(root.path());
}

#[test]
fn an_upload_outlives_its_runtime_no_longer_than_it_takes_to_drop_it() {
    let root = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let upload = runtime.block_on(async {
        let objects = Objects::open(root.path()).await.unwrap();
        let mut upload = begin(&objects, "a").await;
        upload.put_part(part(1).into()).await.unwrap();
        upload
    });
    drop(runtime);
    drop(upload);
    assert_eq!(paths(root.path()), [] as [&std::path::Path; 0]);
    assert_no_litter(root.path());
}

#[test]
fn a_refused_upload_can_be_completed_later() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let (objects, mut upload) = refused(root.path()).await;
        upload.complete().await.unwrap();
        assert_eq!(objects.head(&"a".into()).await.unwrap().size, part(1).len() as u64);
    });
    assert_no_litter(root.path());
}

/// The part was lost, and the object said to be whole.
#[test]
fn an_upload_that_cannot_take_a_part_any_more_is_never_complete() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let (objects, mut upload) = refused(root.path()).await;
        drop(upload.put_part("more".into()));
        upload.complete().await.unwrap_err();
        upload.complete().await.unwrap_err();
        let missing = objects.head(&"a".into()).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    });
    assert_no_litter(root.path());
}

/// A part met a full disk, and was lost. When there was room again, the object was whole without it.
#[test]
fn an_upload_that_meets_a_full_disk_is_never_complete_and_keeps_saying_why() {
    // The second part is written at once, and fails. A few bytes wait for the end of the upload, and fail there.
    for second in [part(2), b"2".to_vec()] {
        let disk = SimDisk::new(Model::WeakPosix);
        runtime().block_on(async {
            let store = cosave::Store::options().inline_max(0).open_on(disk.process()).unwrap();
            let objects = Objects::from(cosave::tokio::Store::from(store));
            let mut upload = begin(&objects, "a").await;
            upload.put_part(part(1).into()).await.unwrap();
            disk.free_bytes(Some(0));
            let is_late = upload.put_part(second.into()).await.is_ok();
            if is_late {
                let refused = upload.complete().await.unwrap_err();
                assert_eq!(system_error(&refused), Some(NO_SPACE), "{refused:?}");
            }
            disk.free_bytes(None);
            drop(upload.put_part(part(3).into()));
            for _ in 0..2 {
                let refused = upload.complete().await.unwrap_err();
                assert_eq!(system_error(&refused), Some(NO_SPACE), "{refused:?}");
            }
            let missing = objects.head(&"a".into()).await.unwrap_err();
            assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
        });
    }
}

/// What the simulated disk says when it is full (`ENOSPC`), whatever that number means on this system.
const NO_SPACE: i32 = 28;

/// What the system has said.
fn system_error(refused: &Error) -> Option<i32> {
    match std::error::Error::source(refused)?.downcast_ref()? {
        cosave::Error::Io { source, .. } => source.raw_os_error(),
        _ => None,
    }
}

/// The end of the upload waited on the only thread for a part that needed that thread.
#[test]
fn an_upload_that_is_dropped_beside_its_parts_holds_no_thread_up() {
    let root = tempfile::tempdir().unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).enable_time().build();
    let runtime = runtime.unwrap();
    let done = runtime.block_on(async {
        let objects = Objects::open(root.path()).await.unwrap();
        let mut upload = begin(&objects, "a").await;
        let mut late = upload.put_part(part(1).into());
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let parked = tokio::task::spawn_blocking(move || wait.recv());
        drop(upload);
        // It has the lock now, and waits for the thread.
        let mut context = Context::from_waker(Waker::noop());
        assert!(late.as_mut().poll(&mut context).is_pending());
        release.send(()).unwrap();
        parked.await.unwrap().unwrap();
        let other = Path::from("b");
        let put = objects.put(&other, "1".into());
        tokio::time::timeout(std::time::Duration::from_secs(60), put).await.is_ok_and(|put| put.is_ok())
    });
    // A thread that waits for ever would hold up the end of the runtime, too.
    runtime.shutdown_background();
    assert!(done, "nothing goes on");
}

#[test]
fn what_a_killed_uploader_has_left_goes_with_the_next_opening() {
    let root = tempfile::tempdir().unwrap();
    let mut command = child("object_uploads::child_that_uploads_and_dies", root.path());
    command.env("COSAVE_TEST_DIES", "1");
    let said: Vec<_> = run(command);
    assert_eq!(said, ["staged"]);
    assert!(!litter(root.path()).is_empty(), "it has left nothing, so this shows nothing");
    runtime().block_on(async {
        let objects = Objects::open(root.path()).await.unwrap();
        assert_eq!(objects.list_with_delimiter(None).await.unwrap().objects, []);
    });
    assert_eq!(paths(root.path()), [] as [&std::path::Path; 0]);
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of what_a_killed_uploader_has_left_goes_with_the_next_opening"]
fn child_that_uploads_and_dies() {
    let Some(root) = child_root() else { return };
    runtime().block_on(async {
        let objects = Objects::open(root).await.unwrap();
        let mut upload = begin(&objects, "d/a").await;
        upload.put_part(part(1).into()).await.unwrap();
        upload.put_part(part(2).into()).await.unwrap();
        say("staged");
        // As a kill does, without a word to anybody.
        std::process::exit(0);
    });
}
