//! What a replaced file has besides its bytes: what the new file gets of it, what it cannot get, and who is
//! told. Files of others need root; where that is missing, the tests say that they were skipped.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use cosave::{Attribute, Commit, Error, Preserve, Store};
use rustix::fs::XattrFlags;

use crate::common::{LARGE_BYTES, assert_no_litter, child, child_root, quick, run, say, skipped, text};

/// Somebody without any rights of their own.
const NOBODY: u32 = 65_534;

fn skip(reason: &str) {
    skipped(std::thread::current().name().unwrap_or("preserving"), reason);
}

/// Gives a file an extended attribute, if that is possible here.
fn note(path: &Path, name: &str, value: &str) -> bool {
    let noted = rustix::fs::setxattr(path, name, value.as_bytes(), XattrFlags::empty()).is_ok();
    if !noted {
        skip("the attribute cannot be set here");
    }
    noted
}

fn noted(path: &Path, name: &str) -> Option<String> {
    let mut buffer = [0; 100];
    let length = rustix::fs::getxattr(path, name, &mut buffer[..]).ok()?;
    Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
}

fn told(commit: &Commit) -> Vec<String> {
    commit.not_preserved().iter().map(ToString::to_string).collect()
}

#[test]
fn what_another_user_cannot_keep_is_in_the_commit() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("roots");
    fs::write(&path, "old").unwrap();
    if fs::metadata(&path).unwrap().uid() != 0 {
        return skip("needs root");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = child("preserving::child_that_replaces_a_file_of_another", root.path());
    command.uid(NOBODY).gid(NOBODY);
    assert_eq!(run(command), ["roots has lost the owner", "roots has lost the group"]);
    assert_eq!(text(&path), "possible");
    assert_eq!(fs::metadata(&path).unwrap().uid(), NOBODY);
    assert_no_litter(root.path());
}

#[test]
#[ignore = "child of what_another_user_cannot_keep_is_in_the_commit"]
fn child_that_replaces_a_file_of_another() {
    let Some(root) = child_root() else { return };
    let strict = Store::options().preserve(Preserve::Strict).open(&root).unwrap();
    let long = "strict".repeat(LARGE_BYTES);
    for bytes in ["strict", &long] {
        let refused = strict.update(|tx| tx.write("roots", bytes)).unwrap_err();
        assert!(matches!(&refused, Error::NotPreserved { attribute: Attribute::Owner, .. }), "{refused}");
        let message = refused.to_string();
        assert!(message.contains("cannot keep the owner of") && message.contains("roots"), "{message}");
        assert_eq!(text(root.join("roots")), "old");
    }
    strict.update(|tx| tx.write("own", "1")).unwrap();
    assert!(strict.update(|tx| tx.write("own", "2")).unwrap().not_preserved().is_empty());
    strict.update(|tx| tx.remove("own")).unwrap();
    drop(strict);
    let commit = Store::open(&root).unwrap().update(|tx| tx.write("roots", "possible")).unwrap();
    told(&commit).iter().for_each(say);
}

#[test]
fn an_attribute_that_is_nobodys_to_give_away_is_told_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    fs::write(&path, "old").unwrap();
    // Only the administrator can set this one.
    if !note(&path, "trusted.note", "1") || !note(&path, "user.note", "2") {
        return;
    }
    for bytes in [10, LARGE_BYTES] {
        let strict = Store::options().preserve(Preserve::Strict).open(root.path()).unwrap();
        let refused = strict.update(|tx| tx.write("a", vec![1; bytes])).unwrap_err();
        let is_told = |attribute: &Attribute| *attribute == Attribute::Extended("trusted.note".to_owned());
        assert!(matches!(&refused, Error::NotPreserved { attribute, .. } if is_told(attribute)), "{refused}");
        assert_eq!((text(&path), noted(&path, "trusted.note").as_deref()), ("old".to_owned(), Some("1")));
    }
    let commit = quick(root.path()).update(|tx| tx.write("a", "new")).unwrap();
    assert_eq!(told(&commit), ["a has lost the extended attribute `trusted.note`"]);
    assert_eq!((noted(&path, "trusted.note"), noted(&path, "user.note").as_deref()), (None, Some("2")));
    assert_eq!(serde_json::to_value(commit.not_preserved()).unwrap()[0]["path"], "a");
    let again = quick(root.path()).update(|tx| tx.write("a", "newer")).unwrap();
    assert_eq!(told(&again), [""; 0]);
}

// The mode and the owner alone were compared. Whoever closed a file to somebody by a list, or took a note
// from it, while a transaction was open had it undone by the commit.
#[test]
fn a_change_of_attributes_between_staging_and_commit_is_not_undone() {
    for bytes in [10, LARGE_BYTES] {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let at = |name: &str| root.path().join(name);
        store
            .update(|tx| {
                tx.write("a", "old")?;
                tx.write("b", "old")
            })
            .unwrap();
        if !note(&at("a"), "user.taken", "1") {
            return;
        }
        let mut tx = store.begin().unwrap();
        tx.write("a", vec![1; bytes]).unwrap();
        tx.write("b", vec![1; bytes]).unwrap();
        // Two changes within one tick of the clock are seen as one.
        let known = ["a", "b"].map(|name| fs::metadata(at(name)).unwrap());
        let has_ticked = |before: &fs::Metadata, name: &str| {
            let after = fs::metadata(at(name)).unwrap();
            (after.ctime(), after.ctime_nsec()) != (before.ctime(), before.ctime_nsec())
        };
        while !has_ticked(&known[0], "a") {
            rustix::fs::removexattr(at("a"), "user.taken").unwrap_or_default();
            assert!(note(&at("a"), "user.given", "2"));
        }
        while !has_ticked(&known[1], "b") {
            assert!(note(&at("b"), "user.late", "3"));
        }
        assert!(tx.commit().unwrap().not_preserved().is_empty());
        assert_eq!(fs::metadata(at("a")).unwrap().len(), bytes as u64);
        assert_eq!(noted(&at("a"), "user.taken"), None, "{bytes} bytes");
        assert_eq!(noted(&at("a"), "user.given").as_deref(), Some("2"), "{bytes} bytes");
        assert_eq!(noted(&at("b"), "user.late").as_deref(), Some("3"), "{bytes} bytes");
        assert!(store.verify().unwrap().is_empty());
    }
}

// The system's own words for it are "argument list too long".
#[test]
fn attributes_whose_names_cannot_be_listed_are_a_clear_error() {
    let shared_memory = Path::new("/dev/shm");
    let Ok(root) = tempfile::tempdir_in(shared_memory) else { return skip("needs /dev/shm") };
    let path = root.path().join("a");
    fs::write(&path, "old").unwrap();
    let name = |number| format!("user.{}{number}", "n".repeat(240));
    if !(0..300).all(|number| rustix::fs::setxattr(&path, name(number), b"", XattrFlags::empty()).is_ok()) {
        return skip("so many attributes cannot be set here");
    }
    let refused = quick(root.path()).update(|tx| tx.write("a", "new")).unwrap_err();
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(
        reason,
        "the names of its extended attributes are longer than the 64 KiB that the system lists"
    );
    assert_eq!(text(&path), "old");
    assert_no_litter(root.path());
}
