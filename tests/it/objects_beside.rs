//! Objects beside other programs: files that grow, links, directories in the way, and commits that meet an
//! error when they are made.

use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cosave::object_store::Objects;
use cosave::{Checksum, InvalidPath, Progress, Store, StoreOptions};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, UpdateVersion};

use crate::common::{Over, invalid, waits};

fn with_objects<F: Future<Output = ()>>(
    root: &std::path::Path,
    options: StoreOptions,
    test: impl FnOnce(Objects) -> F,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async { test(Objects::open_with(options, root).await.unwrap()).await });
}

async fn listed(objects: &Objects, prefix: &str) -> Vec<String> {
    let found = objects.list(Some(&prefix.into())).map_ok(|meta| meta.location.to_string());
    found.try_collect().await.unwrap()
}

/// The ETag was of all that was in the file by then, and an update that expected it dropped what its caller had
/// never seen.
#[test]
fn the_etag_of_a_file_that_grows_is_that_of_the_bytes_that_were_read() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    fs::write(&path, vec![b'.'; 4 << 20]).unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                log.write_all(b"another record").unwrap();
            }
        });
        let _over = Over(&is_over);
        with_objects(root.path(), Store::options(), |objects| async move {
            for _ in 0..5 {
                let found = objects.get(&"log".into()).await.unwrap();
                let tag = found.meta.e_tag.clone();
                let bytes = found.bytes().await.unwrap();
                let has_grown = || fs::metadata(&path).unwrap().len() > bytes.len() as u64;
                assert!(waits(has_grown), "nobody appends");
                assert_eq!(tag, Some(Checksum::of(&bytes).to_string()));
                let update = PutMode::Update(UpdateVersion { e_tag: tag, version: None });
                let late = objects.put_opts(&"log".into(), "".into(), update.into()).await;
                assert!(matches!(late, Err(Error::Precondition { .. })), "{late:?}");
            }
        });
    });
}

/// A list below a link named objects that do not begin with the prefix. Whoever deleted what it was told deleted
/// elsewhere. A delete removed links that are no objects, and all below them was gone.
#[cfg(unix)]
#[test]
fn a_link_that_is_no_object_has_none_below_it_in_a_list_and_is_not_deleted() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("releases/7")).unwrap();
    fs::write(root.path().join("releases/7/a"), "1").unwrap();
    let long = "n".repeat(300);
    let links = [("current", "releases/7"), ("nothing", "none"), ("out", "/etc"), ("long", &*long)];
    for (link, to) in links {
        std::os::unix::fs::symlink(to, root.path().join(link)).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    with_objects(root.path(), Store::options(), |objects| async move {
        assert_eq!(listed(&objects, "").await, ["releases/7/a"]);
        assert_eq!(listed(&objects, "current").await, [""; 0]);
        let below = objects.list_with_delimiter(Some(&"current".into())).await.unwrap();
        assert!(below.objects.is_empty() && below.common_prefixes.is_empty(), "{below:?}");
        for location in ["current", "nothing", "socket"] {
            let refused = objects.delete(&location.into()).await.unwrap_err();
            assert!(matches!(refused, Error::NotFound { .. }), "{location}: {refused}");
            let refused = objects.get(&location.into()).await.unwrap_err();
            assert!(matches!(refused, Error::NotFound { .. }), "{location}: {refused}");
        }
        assert!(
            objects.delete(&"out".into()).await.is_err() && objects.delete(&"long".into()).await.is_err()
        );
    });
    for (link, _) in links {
        assert!(root.path().join(link).is_symlink(), "{link} is gone");
    }
}

/// Whoever made what was not there, and read what was, never came to an end.
#[test]
fn a_directory_in_the_way_is_no_object_that_exists() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("empty")).unwrap();
    with_objects(root.path(), Store::options(), |objects| async move {
        let [a, empty] = ["a", "empty"].map(Path::from);
        objects.put(&a, "1".into()).await.unwrap();
        for refused in [
            objects.copy_if_not_exists(&a, &empty).await.unwrap_err(),
            objects.rename_if_not_exists(&a, &empty).await.unwrap_err(),
            objects.put_opts(&empty, "1".into(), PutMode::Create.into()).await.unwrap_err(),
        ] {
            let source = std::error::Error::source(&refused).unwrap();
            let source = source.downcast_ref().unwrap_or_else(|| panic!("{refused}"));
            assert_eq!(invalid(source), Some(InvalidPath::Directory), "{refused}");
            assert!(matches!(refused, Error::Generic { .. }), "{refused}");
        }
    });
}

/// An object that was moved had the time of its bytes. Who asked for what is newer than the object before was told
/// that it had not changed.
#[test]
fn an_object_that_was_moved_is_newer_than_the_one_that_it_replaced() {
    let root = tempfile::tempdir().unwrap();
    with_objects(root.path(), Store::options(), |objects| async move {
        let [old, new] = ["old", "new"].map(Path::from);
        objects.put(&old, "old bytes".into()).await.unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        let file = fs::File::options().write(true).open(objects.store().root().join("old")).unwrap();
        file.set_modified(long_ago).unwrap();
        drop(file);
        objects.put(&new, "new bytes".into()).await.unwrap();
        let replaced = objects.head(&new).await.unwrap().last_modified;
        objects.rename(&old, &new).await.unwrap();
        assert!(objects.head(&new).await.unwrap().last_modified >= replaced);
        let bytes = objects.get(&new).await.unwrap().bytes().await.unwrap();
        assert_eq!((bytes.as_ref(), listed(&objects, "").await), (&b"old bytes"[..], vec!["new".into()]));
    });
}

/// Options of a store whose next commit finds a directory at this path once so many of its files are in place. It
/// is the turn of that one then.
fn in_the_way(path: PathBuf, files: usize) -> StoreOptions {
    let is_first = AtomicBool::new(true);
    Store::options().on_progress(move |progress| {
        let is_its_turn = matches!(progress, Progress::Applied { files: found, .. } if *found == files);
        if is_its_turn && is_first.swap(false, Ordering::Relaxed) {
            let _missing = fs::remove_file(&path);
            fs::create_dir(&path).unwrap();
        }
        ControlFlow::Continue(())
    })
}

/// It was told as refused. Whoever tried again was refused by his own object, or did it twice.
#[test]
fn a_change_that_is_made_and_cannot_be_moved_into_place_is_told_as_made() {
    let root = tempfile::tempdir().unwrap();
    let way = root.path().join("b");
    with_objects(root.path(), in_the_way(way.clone(), 1), |objects| async move {
        let mut batch = objects.batch();
        batch.put(&"a".into(), "1".into()).put(&"b".into(), "2".into());
        let put = batch.commit().await.unwrap();
        let tags: Vec<_> = put.into_iter().map(|put| put.e_tag.unwrap()).collect();
        assert_eq!(tags, [Checksum::of(b"1").to_string(), Checksum::of(b"2").to_string()]);
        assert!(way.is_dir(), "nothing was in its way");
        fs::remove_dir(&way).unwrap();
        assert_eq!(objects.get(&"b".into()).await.unwrap().bytes().await.unwrap(), "2");
    });
}

/// As above. The second try said that there was no such object.
#[test]
fn a_deletion_that_is_made_and_cannot_remove_every_file_is_told_as_made() {
    let root = tempfile::tempdir().unwrap();
    let way = root.path().join("b");
    for name in ["a", "b"] {
        fs::write(root.path().join(name), "1").unwrap();
    }
    with_objects(root.path(), in_the_way(way.clone(), 1), |objects| async move {
        let locations = ["a", "none", "b"].map(|location| Ok(Path::from(location)));
        let deleted: Vec<_> = objects.delete_stream(stream::iter(locations).boxed()).collect().await;
        assert!(way.is_dir(), "nothing was in its way");
        let [Ok(a), Err(Error::NotFound { .. }), Ok(b)] = &deleted[..] else { panic!("{deleted:?}") };
        assert_eq!((a.as_ref(), b.as_ref()), ("a", "b"));
        fs::remove_dir(&way).unwrap();
        assert_eq!(listed(&objects, "").await, [""; 0]);
    });
}

/// As above. The second try said that the upload is over.
#[test]
fn an_upload_that_is_made_and_cannot_be_moved_into_place_is_told_as_made() {
    let root = tempfile::tempdir().unwrap();
    let way = root.path().join("a");
    with_objects(root.path(), in_the_way(way.clone(), 0), |objects| async move {
        let mut upload = objects.put_multipart(&"a".into()).await.unwrap();
        upload.put_part("1".into()).await.unwrap();
        let put = upload.complete().await.unwrap();
        assert!(way.is_dir(), "nothing was in its way");
        assert_eq!(put.e_tag, Some(Checksum::of(b"1").to_string()));
        fs::remove_dir(&way).unwrap();
        assert_eq!(objects.get(&"a".into()).await.unwrap().bytes().await.unwrap(), "1");
    });
}
