//! A root as a store of objects: the trait's own tests, and what they do not ask.

use std::fs;
use std::future::Future;
use std::path::Path as FilePath;
use std::time::{Duration, SystemTime};

use cosave::fs::sim::{Granularity, Model, SimDisk};
use cosave::object_store::Objects;
use cosave::{Checksum, Durability, InvalidPath};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, CopyMode, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, TagSet, UpdateVersion, integration,
};

use crate::common::{LARGE_BYTES, assert_no_litter, invalid, put, waits};

/// Runs a test on the objects of an empty root.
fn with_objects<F: Future<Output = ()>>(test: impl FnOnce(Objects) -> F) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async { test(Objects::open(root.path()).await.unwrap()).await });
    drop(runtime);
    assert_no_litter(root.path());
    root
}

async fn listed(objects: &Objects, prefix: &str) -> Vec<String> {
    let found = objects.list(Some(&prefix.into())).map_ok(|meta| meta.location.to_string());
    found.try_collect().await.unwrap()
}

async fn get(objects: &Objects, location: &str) -> String {
    let bytes = objects.get(&location.into()).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.into()).unwrap()
}

/// The error of this crate behind an error of the trait.
fn source(error: &Error) -> &cosave::Error {
    let source = std::error::Error::source(error).unwrap_or_else(|| panic!("{error} has no source"));
    source.downcast_ref().unwrap_or_else(|| panic!("{error} has another source"))
}

#[test]
fn the_tests_of_the_trait_pass() {
    with_objects(|objects| async move {
        integration::put_get_delete_list(&objects).await;
        integration::list_with_offset_exclusivity(&objects).await;
        integration::list_uses_directories_correctly(&objects).await;
        integration::list_with_delimiter(&objects).await;
        integration::get_opts(&objects).await;
        integration::put_opts(&objects, true).await;
        integration::put_get_attributes(&objects).await;
        integration::rename_and_copy(&objects).await;
        integration::copy_if_not_exists(&objects).await;
        integration::copy_rename_nonexistent_object(&objects).await;
        let missing = integration::get_nonexistent_object(&objects, None).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    });
}

#[test]
fn the_tests_of_uploads_pass() {
    with_objects(|objects| async move {
        integration::stream_get(&objects).await;
        integration::multipart_race_condition(&objects, true).await;
        integration::multipart_out_of_order(&objects).await;
    });
}

#[test]
fn an_etag_is_the_checksum_of_the_bytes_and_of_no_others() {
    with_objects(|objects| async move {
        let location = Path::from("a");
        let mut seen = Vec::new();
        // Of one length, and faster than any clock ticks.
        for number in 100..150 {
            let text = number.to_string();
            let put = objects.put(&location, text.clone().into()).await.unwrap();
            let head = objects.head(&location).await.unwrap();
            assert_eq!(put.e_tag, Some(Checksum::of(text.as_bytes()).to_string()));
            assert_eq!((&head.e_tag, head.version), (&put.e_tag, None));
            assert!(!seen.contains(&put.e_tag), "{text} has the ETag of another text");
            seen.push(put.e_tag);
        }
        let pieces = PutPayload::from_iter(["14".into(), "9".into()] as [bytes::Bytes; 2]);
        let in_pieces = objects.put(&"b".into(), pieces).await.unwrap();
        assert_eq!(Some(&in_pieces.e_tag), seen.last(), "the same bytes have the same ETag");
    });
}

/// Within one tick of the clock a file can change again and again, and have the same metadata.
#[test]
fn an_object_that_changes_within_a_tick_of_the_clock_has_another_etag() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let disk = SimDisk::new(Model::OrderedPrefix);
        disk.clock(Granularity::Changes(40));
        let store = cosave::Store::options().open_on(disk.process()).unwrap();
        let objects = Objects::from(cosave::tokio::Store::from(store));
        for number in 100..300 {
            let text = number.to_string();
            // Another program writes in place.
            disk.put("a", text.as_bytes(), 0o644);
            let found = objects.head(&"a".into()).await.unwrap().e_tag;
            assert_eq!(found, Some(Checksum::of(text.as_bytes()).to_string()), "{text}");
            if number % 10 == 0 {
                objects.put(&"b".into(), text.into()).await.unwrap();
            }
        }
    });
}

/// On Windows no time of change is told, so nothing is known without reading.
#[cfg(unix)]
#[test]
fn an_etag_is_known_without_reading_until_another_program_changes_the_object() {
    with_objects(|objects| async move {
        let (location, root) = (Path::from("a"), objects.store().root());
        objects.put(&location, "one".into()).await.unwrap();
        let known = || async {
            let all: Vec<_> = objects.list(None).try_collect().await.unwrap();
            all.into_iter().find(|meta| meta.location.as_ref() == "a").unwrap().e_tag
        };
        // A young file proves nothing, so this takes a tick of the clock.
        let mut tries = 0;
        while known().await.is_none() {
            tries += 1;
            assert!(tries < 10_000, "the ETag is never known");
            objects.put(&"later".into(), tries.to_string().into()).await.unwrap();
            objects.head(&location).await.unwrap();
        }
        let range = GetOptions::new().with_range(Some(0..1));
        let part = objects.get_opts(&location, range.clone()).await.unwrap();
        assert_eq!(part.meta.e_tag, Some(Checksum::of(b"one").to_string()));
        fs::write(root.join("a"), "two").unwrap();
        assert_eq!(known().await, None, "a list tells the ETag of other bytes");
        assert_eq!(objects.get_opts(&location, range).await.unwrap().meta.e_tag, None);
        assert_eq!(objects.head(&location).await.unwrap().e_tag, Some(Checksum::of(b"two").to_string()));
    });
}

#[test]
fn an_update_needs_the_etag_of_what_is_there() {
    with_objects(|objects| async move {
        let location = Path::from("a");
        let of = |e_tag: Option<&str>| {
            let version = UpdateVersion { e_tag: e_tag.map(Into::into), version: None };
            PutOptions::from(PutMode::Update(version))
        };
        let first = objects.put(&location, "1".into()).await.unwrap().e_tag.unwrap();
        let other = Checksum::of(b"other").to_string();
        for tag in [other.as_str(), "", "*", "no ETag", &first[1..], &format!("\"{first}\"")] {
            let refused = objects.put_opts(&location, "2".into(), of(Some(tag))).await.unwrap_err();
            assert!(matches!(refused, Error::Precondition { .. }), "{tag}: {refused}");
        }
        let refused = objects.put_opts(&location, "2".into(), of(None)).await.unwrap_err();
        assert!(matches!(refused, Error::Generic { .. }), "{refused}");
        let missing = objects.put_opts(&"b".into(), "2".into(), of(Some(&first))).await.unwrap_err();
        assert!(matches!(&missing, Error::Precondition { path, .. } if path == "b"), "{missing}");
        // What another program has written counts, too.
        fs::write(objects.store().root().join("a"), "3").unwrap();
        let refused = objects.put_opts(&location, "2".into(), of(Some(&first))).await.unwrap_err();
        assert!(matches!(refused, Error::Precondition { .. }), "{refused}");
        let third = Checksum::of(b"3").to_string();
        objects.put_opts(&location, "4".into(), of(Some(&third))).await.unwrap();
        assert_eq!(get(&objects, "a").await, "4");
    });
}

#[test]
fn what_cannot_be_kept_is_refused_and_not_dropped() {
    with_objects(|objects| async move {
        let location = Path::from("a");
        let attributes = Attributes::from_iter([(Attribute::ContentType, "text/plain")]);
        let update = UpdateVersion { e_tag: Some(Checksum::of(b"").to_string()), version: Some("1".into()) };
        for options in [PutOptions::from(attributes.clone()), PutMode::Update(update).into()] {
            let refused = objects.put_opts(&location, "1".into(), options.clone()).await.unwrap_err();
            assert!(matches!(refused, Error::NotImplemented { .. }), "{refused}");
            let refused = objects.batch().put_opts(&location, "1".into(), options).err().unwrap();
            assert!(matches!(refused, Error::NotImplemented { .. }), "{refused}");
        }
        let refused = objects.put_multipart_opts(&location, attributes.into()).await.unwrap_err();
        assert!(matches!(refused, Error::NotImplemented { .. }), "{refused}");
        let version = GetOptions::new().with_version(Some("1"));
        let refused = objects.get_opts(&location, version).await.unwrap_err();
        assert!(matches!(refused, Error::NotImplemented { .. }), "{refused}");
        assert!(listed(&objects, "").await.is_empty());
        // The trait wants these to be ignored.
        let mut tags = TagSet::default();
        tags.push("key", "value");
        objects.put_opts(&location, "1".into(), tags.into()).await.unwrap();
        assert_eq!(listed(&objects, "").await, ["a"]);
    });
}

#[test]
fn no_object_can_be_where_no_file_can() {
    with_objects(|objects| async move {
        objects.put(&"d/a".into(), "1".into()).await.unwrap();
        let staged = format!("d/.a.{}-1-1.cosave", "0".repeat(32));
        let long = "n".repeat(256);
        let cases = [
            ("", InvalidPath::Empty),
            (".cosave", InvalidPath::Control),
            (".cosave/lock", InvalidPath::Control),
            ("d", InvalidPath::Directory),
            ("d/a/b", InvalidPath::NotADirectory),
            (staged.as_str(), InvalidPath::Staged),
            (long.as_str(), InvalidPath::TooLong),
        ];
        for (location, reason) in cases {
            let location = Path::from(location);
            for mode in [PutMode::Overwrite, PutMode::Create] {
                let refused = objects.put_opts(&location, "1".into(), mode.into()).await.unwrap_err();
                assert!(matches!(refused, Error::Generic { .. }), "{location}: {refused}");
                assert_eq!(invalid(source(&refused)), Some(reason), "{location}: {refused}");
            }
            let refused = objects.put_multipart(&location).await.unwrap_err();
            assert_eq!(invalid(source(&refused)), Some(reason), "{location}: {refused}");
            // No object is there.
            for missing in [
                objects.get(&location).await.err(),
                objects.head(&location).await.err(),
                objects.delete(&location).await.err(),
                objects.copy(&location, &"copy".into()).await.err(),
                objects.rename(&location, &"copy".into()).await.err(),
            ] {
                let missing = missing.unwrap();
                assert!(matches!(missing, Error::NotFound { .. }), "{location}: {missing}");
            }
            assert!(objects.copy(&"d/a".into(), &location).await.is_err(), "{location}");
            assert!(objects.rename(&"d/a".into(), &location).await.is_err(), "{location}");
        }
        assert_eq!(listed(&objects, "").await, ["d/a"]);
        assert!(listed(&objects, ".cosave").await.is_empty());
        let hidden = objects.list_with_delimiter(Some(&".cosave".into())).await.unwrap();
        assert!(hidden.objects.is_empty() && hidden.common_prefixes.is_empty());
    });
}

#[test]
fn a_deleted_object_takes_empty_directories_with_it_and_what_is_not_there_is_not_found() {
    let root = with_objects(|objects| async move {
        for location in ["d/e/a", "d/e/b", "f/a"] {
            objects.put(&location.into(), "1".into()).await.unwrap();
        }
        let locations = ["d/e/a", "d/none", "d/e/b", "d/e/b"].map(|location| Ok(Path::from(location)));
        let failed = Error::NotSupported { source: "the stream's own".into() };
        let locations = stream::iter(locations.into_iter().chain([Err(failed), Ok("f/a".into())]));
        let deleted: Vec<_> = objects.delete_stream(locations.boxed()).collect().await;
        let shown: Vec<_> = deleted
            .iter()
            .map(|deleted| match deleted {
                Ok(location) => format!("deleted {location}"),
                Err(Error::NotFound { path, .. }) => format!("no {path}"),
                Err(error) => error.to_string(),
            })
            .collect();
        let own = "Operation not supported: the stream's own";
        assert_eq!(shown, ["deleted d/e/a", "no d/none", "deleted d/e/b", "no d/e/b", own, "deleted f/a"]);
        assert_eq!(objects.store().generation().await.unwrap(), 4, "they went in one commit");
        // What was a directory can be an object.
        objects.put(&"d".into(), "1".into()).await.unwrap();
        objects.rename(&"d".into(), &"g/h".into()).await.unwrap();
        objects.rename(&"g/h".into(), &"g".into()).await.unwrap_err();
        objects.rename(&"g/h".into(), &"i".into()).await.unwrap();
    });
    let left: Vec<_> = crate::common::paths(root.path());
    assert_eq!(left, [FilePath::new("i")]);
}

#[test]
fn more_objects_than_one_commit_deletes_are_deleted_in_order() {
    with_objects(|objects| async move {
        let locations: Vec<_> = (0..1500).map(|number| Path::from(format!("d/{number}"))).collect();
        let mut batch = objects.batch();
        for location in &locations {
            batch.put(location, "1".into());
        }
        assert_eq!(batch.commit().await.unwrap().len(), 1500);
        assert_eq!(listed(&objects, "d").await.len(), 1500);
        let stream = stream::iter(locations.clone()).map(Ok).boxed();
        let deleted: Vec<_> = objects.delete_stream(stream).try_collect().await.unwrap();
        assert_eq!(deleted, locations);
        assert!(listed(&objects, "").await.is_empty());
        assert_eq!(objects.store().generation().await.unwrap(), 3);
    });
}

#[test]
fn a_list_is_sorted_and_has_objects_only() {
    with_objects(|objects| async move {
        let root = objects.store().root();
        for location in ["a/b", "a.b", "a/a", "b"] {
            objects.put(&location.into(), location.to_owned().into()).await.unwrap();
        }
        fs::create_dir_all(root.join("empty/below")).unwrap();
        assert_eq!(listed(&objects, "").await, ["a.b", "a/a", "a/b", "b"]);
        let found = objects.list_with_delimiter(None).await.unwrap();
        assert_eq!(found.common_prefixes, [Path::from("a")], "an empty directory is no prefix");
        let names: Vec<_> = found.objects.iter().map(|meta| (meta.location.as_ref(), meta.size)).collect();
        assert_eq!(names, [("a.b", 3), ("b", 1)]);
        for nothing in ["c", "b", "b/c", "a/a", "empty"] {
            assert!(listed(&objects, nothing).await.is_empty(), "{nothing}");
        }
        let after: Vec<_> = objects.list_with_offset(None, &"a/a".into()).try_collect().await.unwrap();
        assert_eq!(after.iter().map(|meta| meta.location.as_ref()).collect::<Vec<_>>(), ["a/b", "b"]);
    });
}

#[cfg(unix)]
#[test]
fn what_other_programs_leave_is_an_object_if_it_can_be_one() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    with_objects(|objects| async move {
        let root = objects.store().root();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/a"), "1").unwrap();
        for (link, to) in [("to_file", "d/a"), ("to_directory", "d"), ("to_nothing", "none"), ("out", "/etc")]
        {
            symlink(to, root.join(link)).unwrap();
        }
        fs::write(root.join("control\ncharacter"), "1").unwrap();
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"no\xfftext")), "1").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        assert_eq!(listed(&objects, "").await, ["d/a", "to_file"]);
        assert_eq!(get(&objects, "to_file").await, "1");
        assert_eq!(get(&objects, "to_directory/a").await, "1");
        let refused = objects.get(&"out/passwd".into()).await.unwrap_err();
        assert_eq!(invalid(source(&refused)), Some(InvalidPath::Escapes), "{refused}");
        assert!(matches!(refused, Error::Generic { .. }), "it is there, and not to be read: {refused}");
        objects.delete(&"to_file".into()).await.unwrap();
        assert_eq!(listed(&objects, "").await, ["d/a"], "the symlink goes, and not the file");
    });
}

#[test]
fn times_that_the_trait_cannot_tell_are_told_as_near_as_possible() {
    with_objects(|objects| async move {
        objects.put(&"a".into(), "1".into()).await.unwrap();
        let path = objects.store().root().join("a");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000);
        fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        let told = objects.head(&"a".into()).await.unwrap().last_modified;
        assert_eq!(SystemTime::from(told), SystemTime::UNIX_EPOCH);
        let all: Vec<_> = objects.list(None).try_collect().await.unwrap();
        assert_eq!(all[0].last_modified, told);
    });
}

#[test]
fn a_long_object_is_read_in_parts_and_stays_what_it_was() {
    with_objects(|objects| async move {
        let location = Path::from("long");
        let bytes: Vec<u8> = (0..LARGE_BYTES + 7).map(|at| u8::try_from(at % 251).unwrap()).collect();
        objects.put(&location, bytes.clone().into()).await.unwrap();
        let got = objects.get(&location).await.unwrap();
        assert_eq!(got.meta.e_tag, Some(Checksum::of(&bytes).to_string()));
        let mut parts = got.into_stream();
        let first = parts.next().await.unwrap().unwrap();
        // On Windows no file is replaced while it is open.
        if cfg!(unix) {
            objects.put(&location, "short".into()).await.unwrap();
        }
        let rest: Vec<_> = parts.try_collect().await.unwrap();
        assert_eq!([&[first][..], &rest].concat().concat(), bytes);
        objects.put(&location, bytes.clone().into()).await.unwrap();
        let end = bytes.len() as u64;
        for range in [3..5, 0..end, 1..end - 1, 1 << 20..(2 << 20) + 1, end - 1..end] {
            let got = objects.get_range(&location, range.clone()).await.unwrap();
            let (from, to) = (range.start as usize, range.end as usize);
            assert!(got == bytes[from..to], "{range:?}");
        }
        let several = [5..9, 2 << 20..(2 << 20) + 3, 0..2, end - 2..end + 5];
        let got = objects.get_ranges(&location, &several).await.unwrap();
        let lengths: Vec<_> = got.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [4, 3, 2, 2], "what lies beyond the end is not there");
        assert_eq!(got[2], bytes[..2]);
    });
}

#[test]
fn a_part_that_is_not_there_is_refused() {
    with_objects(|objects| async move {
        let location = Path::from("a");
        objects.put(&location, "123".into()).await.unwrap();
        for range in [GetRange::Bounded(3..4), GetRange::Bounded(1..1), GetRange::Offset(3)] {
            let options = GetOptions::new().with_range(Some(range.clone()));
            let refused = objects.get_opts(&location, options).await.unwrap_err();
            assert!(matches!(refused, Error::Generic { .. }), "{range:?}: {refused}");
        }
        assert!(objects.get_ranges(&location, &[0..1, 5..6]).await.is_err());
        assert!(objects.get_ranges(&location, &[]).await.unwrap().is_empty());
        let missing = objects.get_ranges(&"b".into(), &[0..1, 1..2]).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
        let head = objects.get_opts(&location, GetOptions::new().with_head(true)).await.unwrap();
        assert_eq!((head.meta.size, head.bytes().await.unwrap().len()), (3, 0));
    });
}

#[test]
fn objects_are_copied_and_moved_by_one_commit_and_onto_themselves() {
    with_objects(|objects| async move {
        let [a, b, none] = ["d/a", "b", "none"].map(Path::from);
        objects.put(&a, "1".into()).await.unwrap();
        for refused in [objects.copy_if_not_exists(&a, &a).await, objects.rename_if_not_exists(&a, &a).await]
        {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, Error::AlreadyExists { .. }), "{refused}");
        }
        objects.copy(&a, &a).await.unwrap();
        objects.rename(&a, &a).await.unwrap();
        let missing = objects.copy(&none, &none).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
        let generation = objects.store().generation().await.unwrap();
        objects.rename_if_not_exists(&a, &b).await.unwrap();
        assert_eq!(objects.store().generation().await.unwrap(), generation.get() + 1);
        assert_eq!(listed(&objects, "").await, ["b"]);
        objects.put(&a, "2".into()).await.unwrap();
        let refused = objects.rename_if_not_exists(&a, &b).await.unwrap_err();
        assert!(matches!(&refused, Error::AlreadyExists { path, .. } if path == "b"), "{refused}");
        assert_eq!((get(&objects, "d/a").await, get(&objects, "b").await), ("2".into(), "1".into()));
        let directory = objects.rename(&"d".into(), &"e".into()).await.unwrap_err();
        assert!(matches!(directory, Error::NotFound { .. }), "a directory is no object: {directory}");
    });
}

#[test]
fn a_batch_is_one_commit_and_a_refused_one_changes_nothing() {
    with_objects(|objects| async move {
        let [a, b, c] = ["a", "b", "d/c"].map(Path::from);
        let mut batch = objects.batch();
        batch.put(&a, "1".into()).put(&b, "1".into()).put(&a, "2".into());
        batch.copy(&a, &c, CopyMode::Create);
        let put = batch.commit().await.unwrap();
        let tags: Vec<_> = put.into_iter().map(|put| put.e_tag.unwrap()).collect();
        assert_eq!(tags, ["1", "1", "2"].map(|text| Checksum::of(text.as_bytes()).to_string()));
        assert_eq!(objects.store().generation().await.unwrap(), 1);
        assert_eq!((get(&objects, "a").await, get(&objects, "d/c").await), ("2".into(), "2".into()));
        let stale = PutMode::Update(UpdateVersion { e_tag: Some(tags[0].clone()), version: None });
        let mut refused = Vec::new();
        for condition in [PutMode::Create, stale] {
            let mut batch = objects.batch();
            batch.delete(&b).rename(&c, &"e".into(), CopyMode::Overwrite);
            batch.put_opts(&a, "3".into(), condition.into()).unwrap();
            refused.push(batch.commit().await.unwrap_err());
        }
        let mut batch = objects.batch();
        batch.put(&a, "3".into()).delete(&"none".into());
        refused.push(batch.commit().await.unwrap_err());
        let mut batch = objects.batch();
        batch.put(&b, "3".into()).put(&".cosave/x".into(), "3".into());
        refused.push(batch.commit().await.unwrap_err());
        assert!(
            matches!(
                &refused[..],
                [
                    Error::AlreadyExists { .. },
                    Error::Precondition { .. },
                    Error::NotFound { .. },
                    Error::Generic { .. }
                ]
            ),
            "{refused:?}"
        );
        assert_eq!(listed(&objects, "").await, ["a", "b", "d/c"]);
        assert_eq!((get(&objects, "a").await, get(&objects, "b").await), ("2".into(), "1".into()));
        assert!(objects.batch().commit().await.unwrap().is_empty());
    });
}

/// A delete removes a directory that it empties, and a put makes it anew: neither may fail for the other. On Windows
/// a directory that somebody has open goes later, and none can be made in its place until then.
#[cfg(unix)]
#[test]
fn tasks_that_empty_and_fill_one_directory_are_not_in_each_others_way() {
    with_objects(|objects| async move {
        let tasks = (0..8).map(|task| {
            let objects = objects.clone();
            tokio::spawn(async move {
                let location = Path::from(format!("d/e/{task}"));
                for round in 0..20 {
                    objects.put(&location, round.to_string().into()).await.unwrap();
                    assert_eq!(objects.head(&location).await.unwrap().location, location);
                    objects.delete(&location).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(listed(&objects, "").await.is_empty());
    });
}

#[test]
fn a_put_whose_future_is_dropped_has_happened_or_never_will() {
    let root = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_time().worker_threads(2).build().unwrap();
    let options = cosave::Store::options().durability(Durability::Process);
    let mut random = fastrand::Rng::with_seed(crate::common::random_seed());
    runtime.block_on(async {
        let objects = Objects::open_with(options, root.path()).await.unwrap();
        let location = Path::from("a");
        for round in 0..50_u32 {
            let (late, now) = (format!("late {round}"), format!("now {round}"));
            let given_up = objects.put(&location, late.into());
            let moment = Duration::from_micros(random.u64(..2_000));
            let _has_or_has_not = tokio::time::timeout(moment, given_up).await;
            objects.put(&location, now.clone().into()).await.unwrap();
            // What was given up is older than what came after it.
            assert_eq!(get(&objects, "a").await, now);
        }
    });
    drop(runtime);
    assert_no_litter(root.path());
    assert!(fs::read_to_string(root.path().join("a")).unwrap().starts_with("now 49"));
}

#[test]
fn files_and_objects_are_the_same_and_a_store_that_may_not_write_says_so() {
    let root = tempfile::tempdir().unwrap();
    let blocking = cosave::Store::open(root.path()).unwrap();
    put(&blocking, &[("d/a", "1")]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let objects = Objects::from(cosave::tokio::Store::from(blocking.clone()));
        assert_eq!(get(&objects, "d/a").await, "1");
        objects.put(&"d/b".into(), "2".into()).await.unwrap();
        assert_eq!(blocking.view().unwrap().read("d/b").unwrap(), b"2");
        assert!(objects.to_string().starts_with("cosave("), "{objects}");
        let reader = Objects::open_with(cosave::Store::options().read_only(true), root.path()).await.unwrap();
        assert_eq!(listed(&reader, "").await, ["d/a", "d/b"]);
        let refused = reader.put(&"a".into(), "1".into()).await.unwrap_err();
        assert!(matches!(source(&refused), cosave::Error::Unsupported { .. }), "{refused}");
        let refused = reader.delete(&"d/a".into()).await.unwrap_err();
        assert!(matches!(source(&refused), cosave::Error::Unsupported { .. }), "{refused}");
    });
    assert!(waits(|| blocking.view().is_ok()));
}
