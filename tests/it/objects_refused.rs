//! A root as a store of objects: what is refused, and how it is told.

use cosave::Durability;
use cosave::object_store::Objects;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use tokio::runtime::{Builder, Runtime};

#[cfg(unix)]
use crate::common::{child, child_root, run, say, skipped};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

async fn open(root: &std::path::Path) -> Objects {
    let options = cosave::Store::options().durability(Durability::Process);
    Objects::open_with(options, root).await.unwrap()
}

/// A `complete` was given up after its commit. A second one said that nothing was changed, though the object was
/// there.
#[test]
fn a_complete_that_has_committed_can_be_asked_again_for_its_result() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let objects = open(root.path()).await;
        let location = Path::from("a");
        let mut upload = objects.put_multipart(&location).await.unwrap();
        upload.put_part("rows".into()).await.unwrap();
        let first = upload.complete().await.unwrap();
        let second = upload.complete().await.unwrap();
        assert!(first.e_tag.is_some() && second.e_tag == first.e_tag);
        assert_eq!(objects.head(&location).await.unwrap().e_tag, first.e_tag);
        // What was handed over since is not in it.
        upload.put_part("more".into()).await.unwrap_err();
        upload.complete().await.unwrap_err();
        // One that was aborted has no result.
        let mut aborted = objects.put_multipart(&location).await.unwrap();
        aborted.abort().await.unwrap();
        aborted.complete().await.unwrap_err();
    });
}

#[test]
fn a_second_complete_waits_for_the_first_one_that_was_dropped() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let objects = open(root.path()).await;
        let location = Path::from("a");
        for _ in 0..50 {
            let mut upload = objects.put_multipart(&location).await.unwrap();
            upload.put_part("rows".into()).await.unwrap();
            drop(tokio::time::timeout(std::time::Duration::from_micros(500), upload.complete()).await);
            let whole = upload.complete().await.unwrap();
            assert_eq!(objects.head(&location).await.unwrap().e_tag, whole.e_tag);
        }
    });
}

/// An update took upper case for the same ETag, and a get did not.
#[test]
fn an_etag_is_the_text_that_was_given_and_no_other_spelling_of_it() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let objects = open(root.path()).await;
        let location = Path::from("a");
        let tag = objects.put(&location, "1".into()).await.unwrap().e_tag.unwrap();
        let update = |tag: String| PutMode::Update(UpdateVersion { e_tag: Some(tag), version: None });
        let upper = objects.put_opts(&location, "2".into(), update(tag.to_uppercase()).into()).await;
        assert!(matches!(upper, Err(Error::Precondition { .. })), "{upper:?}");
        objects.put_opts(&location, "2".into(), update(tag).into()).await.unwrap();
    });
}

/// A mebibyte of a batch was four of text in a log.
#[test]
fn what_is_printed_to_find_errors_has_no_bytes_of_objects() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let objects = open(root.path()).await;
        objects.put(&"a".into(), "1".into()).await.unwrap();
        objects.head(&"a".into()).await.unwrap();
        let mut batch = objects.batch();
        batch.put(&"a".into(), vec![7; 1 << 20].into());
        let printed = format!("{objects:?} {batch:?}");
        assert!(printed.len() < 500, "{} bytes", printed.len());
        let name = root.path().file_name().unwrap().to_string_lossy();
        assert!(printed.contains(&*name), "{printed}");
    });
}

/// A user who may write in the root, but not replace an object of another one. He was told that the object could
/// not be staged, and not that it was there.
#[cfg(unix)]
#[test]
fn a_missing_permission_is_told_as_one_unless_the_answer_is_known_without() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    const NOBODY: u32 = 65_534;
    let root = tempfile::tempdir().unwrap();
    if std::fs::metadata(root.path()).unwrap().uid() != 0 {
        return skipped("objects_refused", "needs root");
    }
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(root.path().join("theirs"), "1").unwrap();
    std::fs::write(root.path().join("secret"), "1").unwrap();
    std::fs::set_permissions(root.path().join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = child("objects_refused::child_who_may_not_replace_an_object", root.path());
    std::os::unix::process::CommandExt::uid(&mut command, NOBODY);
    std::os::unix::process::CommandExt::gid(&mut command, NOBODY);
    if command.spawn().is_ok_and(|mut child| child.wait().is_ok_and(|status| status.success())) {
        assert_eq!(run(command), ["exists", "differs", "denied", "denied"]);
    } else {
        skipped("objects_refused", "another user cannot run this test");
    }
}

#[cfg(unix)]
#[test]
#[ignore = "child of a_missing_permission_is_told_as_one_unless_the_answer_is_known_without"]
fn child_who_may_not_replace_an_object() {
    let Some(root) = child_root() else { return };
    runtime().block_on(async {
        let objects = open(&root).await;
        let (theirs, secret) = (Path::from("theirs"), Path::from("secret"));
        let told = |error: Error| match error {
            Error::AlreadyExists { .. } => "exists".to_owned(),
            Error::Precondition { .. } => "differs".to_owned(),
            Error::PermissionDenied { path, source } if source.is::<cosave::Error>() => {
                assert!(["theirs", "secret"].contains(&&*path), "{path}");
                "denied".to_owned()
            }
            error => format!("{error:?}"),
        };
        let version = UpdateVersion { e_tag: Some(cosave::Checksum::of(b"2").to_string()), version: None };
        for mode in [PutMode::Create, PutMode::Update(version), PutMode::Overwrite] {
            say(told(objects.put_opts(&theirs, "2".into(), mode.into()).await.unwrap_err()));
        }
        say(told(objects.get(&secret).await.unwrap_err()));
    });
}
