//! Copies, moves and permissions in a transaction, on the real file system.

use std::fs;
use std::path::Path;

use cosave::{Error, InvalidPath, Store};

use crate::common::{LARGE_BYTES, assert_no_litter, invalid, modified, put, quick, text};

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) {}

/// Checks a file's mode, on systems that have modes.
#[cfg(unix)]
fn assert_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, mode, "{}", path.display());
}

#[cfg(not(unix))]
fn assert_mode(path: &Path, _mode: u32) {
    assert!(path.exists());
}

#[test]
fn a_file_gets_the_mode_that_was_asked_for_whether_it_is_new_replaced_or_large() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("old"), "old").unwrap();
    set_mode(&at("old"), 0o644);
    let store = Store::open(dir.path()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.file("new").mode(0o755).write("new").unwrap();
    tx.file("old").mode(0o600).write("replaced").unwrap();
    let mut writer = tx.file("large").mode(0o640).writer().unwrap();
    std::io::Write::write_all(&mut writer, &vec![7; LARGE_BYTES]).unwrap();
    writer.finish().unwrap();
    tx.file("plain").write("as ever").unwrap();
    tx.commit().unwrap();
    for (name, mode) in [("new", 0o755), ("old", 0o600), ("large", 0o640)] {
        assert_mode(&at(name), mode);
    }
    assert_eq!((text(at("old")), text(at("plain"))), ("replaced".to_owned(), "as ever".to_owned()));
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn a_mode_that_no_file_can_have_is_refused_before_anything_is_staged() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a", "a0")]);
    let mut tx = store.begin().unwrap();
    assert!(matches!(tx.file("b").mode(0o10000).write(""), Err(Error::Unsupported { .. })));
    assert!(matches!(tx.set_permissions("a", 0o10000), Err(Error::Unsupported { .. })));
    assert!(tx.set_permissions("missing", 0o600).unwrap_err().is_not_found());
    assert!(tx.changes().unwrap().is_empty());
}

/// A secret that was written twice in one transaction was readable to all.
#[test]
fn a_file_keeps_the_mode_that_the_transaction_gave_it_when_it_is_written_again() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for name in ["old", "set", "from"] {
        fs::write(path(name), "0").unwrap();
        set_mode(&path(name), 0o644);
    }
    set_mode(&path("from"), 0o640);
    for size in [1, LARGE_BYTES] {
        let bytes = vec![b'x'; size];
        let store = Store::open(root.path()).unwrap();
        let mut tx = store.begin().unwrap();
        tx.file("new").mode(0o600).write("hunter1").unwrap();
        tx.write("new", &bytes).unwrap();
        tx.file("old").mode(0o600).write("hunter1").unwrap();
        tx.write_if_changed("old", &bytes).unwrap();
        tx.set_permissions("set", 0o600).unwrap();
        tx.file("set").write(&bytes).unwrap();
        tx.copy("from", "to").unwrap();
        tx.write("to", &bytes).unwrap();
        tx.file("twice").mode(0o600).write("hunter1").unwrap();
        tx.file("twice").mode(0o755).write(&bytes).unwrap();
        tx.commit().unwrap();
        let modes = [("new", 0o600), ("old", 0o600), ("set", 0o600), ("to", 0o640), ("twice", 0o755)];
        for (name, mode) in modes {
            assert_eq!(fs::read(path(name)).unwrap().len(), size, "{name}");
            assert_mode(&path(name), mode);
        }
    }
}

#[test]
fn a_copy_has_the_bytes_and_the_mode_of_its_source_and_both_stay() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let large = vec![42; LARGE_BYTES];
    for (name, bytes) in [("small", b"small".as_slice()), ("large", &large), ("replaced", b"r")] {
        fs::write(at(name), bytes).unwrap();
        set_mode(&at(name), 0o604);
    }
    set_mode(&at("replaced"), 0o666);
    let store = Store::open(dir.path()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.copy("small", "d/small").unwrap();
    tx.copy("large", "d/large").unwrap();
    tx.copy("small", "replaced").unwrap();
    tx.commit().unwrap();
    for (name, bytes) in [("d/small", b"small".as_slice()), ("d/large", &large), ("replaced", b"small")] {
        assert!(fs::read(at(name)).unwrap() == bytes, "{name}");
        assert_mode(&at(name), 0o604);
    }
    assert!(fs::read(at("large")).unwrap() == large);
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
fn a_file_from_elsewhere_keeps_its_mode_but_no_set_id_bit() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = elsewhere.path().join("tool");
    fs::write(&source, "#!/bin/sh\n").unwrap();
    set_mode(&source, 0o4755);
    let store = Store::open(dir.path()).unwrap();
    let mut tx = store.begin().unwrap();
    tx.copy_from("bin/tool", &source).unwrap();
    tx.commit().unwrap();
    assert_mode(&dir.path().join("bin/tool"), 0o755);
    assert_eq!(text(dir.path().join("bin/tool")), "#!/bin/sh\n");
}

#[test]
fn copies_and_moves_see_what_the_transaction_has_done_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a", "a0"), ("b", "b0")]);
    let mut tx = store.begin().unwrap();
    tx.write("a", "a1").unwrap();
    tx.copy("a", "copy").unwrap();
    tx.write("large", vec![1; LARGE_BYTES]).unwrap();
    tx.rename("large", "d/large").unwrap();
    tx.rename("b", "c").unwrap();
    assert!(tx.rename("b", "e").unwrap_err().is_not_found(), "it was moved away");
    assert!(tx.copy("b", "e").unwrap_err().is_not_found());
    assert_eq!(tx.read("c").unwrap(), b"b0");
    assert_eq!(tx.read_if_exists("b").unwrap(), None);
    let writer = tx.writer("open").unwrap();
    assert!(matches!(tx.copy("open", "e"), Err(Error::Unfinished { .. })));
    writer.finish().unwrap();
    tx.commit().unwrap();
    let view = store.view().unwrap();
    assert_eq!((view.read("copy").unwrap(), view.read("c").unwrap()), (b"a1".to_vec(), b"b0".to_vec()));
    assert_eq!(view.read("d/large").unwrap().len(), LARGE_BYTES);
    for gone in ["b", "large", "e"] {
        assert!(!view.exists(gone).unwrap(), "{gone}");
    }
    drop((view, store));
    assert_no_litter(dir.path());
}

#[test]
fn a_moved_file_keeps_its_mode_and_its_time_also_in_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("a", "moved"), ("b", "replaced")]);
    set_mode(&at("a"), 0o751);
    set_mode(&at("b"), 0o600);
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(at("a")).unwrap().set_modified(long_ago).unwrap();
    let mut tx = store.begin().unwrap();
    tx.rename("a", "b").unwrap();
    let shown: Vec<_> = tx.changes().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["replace b (8 -> 5 bytes)", "remove  a (5 bytes)"]);
    tx.commit().unwrap();
    assert!(!at("a").exists());
    assert_eq!(text(at("b")), "moved");
    assert_eq!(modified(&at("b")), 1_000_000_000_000_000_000);
    assert_mode(&at("b"), 0o751);
    let mut tx = store.begin().unwrap();
    tx.set_permissions("b", 0o640).unwrap();
    tx.commit().unwrap();
    assert_mode(&at("b"), 0o640);
    assert_eq!(modified(&at("b")), 1_000_000_000_000_000_000);
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
#[cfg(unix)]
fn a_mode_that_others_give_to_a_moved_file_before_the_commit_moves_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("a", "a0"), ("b", "b0")]);
    let mut tx = store.begin().unwrap();
    tx.rename("a", "b").unwrap();
    tx.file("asked").mode(0o600).write("").unwrap();
    fs::write(dir.path().join("asked"), "others make it").unwrap();
    set_mode(&dir.path().join("asked"), 0o666);
    set_mode(&dir.path().join("a"), 0o700);
    tx.commit().unwrap();
    assert_mode(&dir.path().join("b"), 0o700);
    assert_mode(&dir.path().join("asked"), 0o600);
}

#[test]
fn a_file_that_changes_while_it_is_being_copied_or_moved_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a", "a0")]);
    type Work = fn(&mut cosave::Transaction) -> cosave::Result<()>;
    let operations: [Work; 3] =
        [|tx| tx.copy("a", "b"), |tx| tx.rename("a", "b"), |tx| tx.set_permissions("a", 0o600)];
    for (number, operation) in operations.into_iter().enumerate() {
        let mut tx = store.begin().unwrap();
        operation(&mut tx).unwrap();
        fs::write(dir.path().join("a"), format!("a{}", number + 1)).unwrap();
        let error = tx.commit().unwrap_err();
        assert!(error.is_conflict(), "{number}: {error}");
    }
    assert_eq!(text(dir.path().join("a")), "a3");
    assert!(!dir.path().join("b").exists());
}

#[test]
fn a_file_is_neither_copied_to_itself_nor_moved_into_what_is_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a", "a0"), ("d/b", "b0")]);
    let mut tx = store.begin().unwrap();
    for result in [tx.rename("a", "./a"), tx.copy("a", "a")] {
        assert_eq!(invalid(&result.unwrap_err()), Some(InvalidPath::Itself));
    }
    for (from, to, reason) in [
        ("a", "a/b", InvalidPath::NotADirectory),
        ("a", "d", InvalidPath::Directory),
        ("a", ".cosave/a", InvalidPath::Control),
        ("../a", "b", InvalidPath::Parent),
    ] {
        assert_eq!(invalid(&tx.rename(from, to).unwrap_err()), Some(reason), "{from} to {to}");
        assert_eq!(invalid(&tx.copy(from, to).unwrap_err()), Some(reason), "{from} to {to}");
    }
    assert_eq!(invalid(&tx.copy("d", "e").unwrap_err()), Some(InvalidPath::Directory));
    assert!(tx.rename("missing", "b").unwrap_err().is_not_found());
    assert!(tx.copy("missing", "b").unwrap_err().is_not_found());
    assert!(tx.changes().unwrap().is_empty());
    tx.commit().unwrap();
    assert_eq!(text(dir.path().join("a")), "a0");
}

#[test]
#[cfg(unix)]
fn a_symlink_is_copied_as_the_file_that_it_leads_to_and_not_moved() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a", "a0"), ("b", "b0")]);
    std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
    let mut tx = store.begin().unwrap();
    for (from, to) in [("link", "x"), ("b", "link")] {
        assert_eq!(invalid(&tx.rename(from, to).unwrap_err()), Some(InvalidPath::Symlink), "{from} to {to}");
    }
    assert_eq!(invalid(&tx.copy("link", "a").unwrap_err()), Some(InvalidPath::Itself));
    tx.copy("link", "x").unwrap();
    tx.commit().unwrap();
    assert_eq!(text(dir.path().join("x")), "a0");
    assert!(!fs::symlink_metadata(dir.path().join("x")).unwrap().is_symlink());
}

#[test]
#[cfg(unix)]
fn a_file_that_is_moved_over_a_hard_link_of_itself_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    put(&store, &[("a", "a0")]);
    fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let mut tx = store.begin().unwrap();
    tx.rename("a", "b").unwrap();
    tx.commit().unwrap();
    assert!(!dir.path().join("a").exists());
    assert_eq!(text(dir.path().join("b")), "a0");
    drop(store);
    assert_no_litter(dir.path());
}

#[test]
#[cfg(unix)]
fn what_a_manifest_says_of_a_replaced_secret_stays_secret() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, &[("open", "open"), ("secret", "hunter2")]);
    set_mode(&dir.path().join("secret"), 0o600);
    let mut tx = store.begin().unwrap();
    tx.rename("open", "secret").unwrap();
    let generation = tx.commit().unwrap().generation();
    let manifest = dir.path().join(format!(".cosave/{generation}.applied"));
    assert_eq!(fs::metadata(manifest).unwrap().mode() & 0o077, 0);
    assert_mode(&dir.path().join("secret"), 0o644);
}

/// Opening a pipe waits for somebody who writes into it, and opening a device can act on it.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_copied_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let pipe = outside.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let store = quick(dir.path());
    let mut tx = store.begin().unwrap();
    for source in [pipe.as_path(), outside.path(), Path::new("/dev/zero")] {
        let refused = tx.copy_from("copy", source).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
    }
    assert!(tx.changes().unwrap().is_empty());
}

/// The bits for the group were copied, and then held for another group, which had no rights before.
#[cfg(unix)]
#[test]
fn a_copy_gives_no_group_rights_that_it_had_not() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = quick(dir.path());
    for name in ["source", "replaced", "listed"] {
        fs::write(at(name), name).unwrap();
        set_mode(&at(name), 0o660);
    }
    let own = fs::metadata(at("source")).unwrap().gid();
    if chown(at("source"), None, Some(own + 1)).is_err() {
        crate::common::skipped("operations::a_copy_gives_no_group_rights", "it needs to be root");
        return;
    }
    set_mode(&at("source"), 0o2664);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "").unwrap();
    chown(outside.path().join("file"), None, Some(own + 1)).unwrap();
    set_mode(&outside.path().join("file"), 0o670);
    let mut tx = store.begin().unwrap();
    tx.copy("source", "new").unwrap();
    tx.copy("source", "replaced").unwrap();
    tx.copy("replaced", "copy of a copy").unwrap();
    tx.copy_from("from outside", outside.path().join("file")).unwrap();
    tx.commit().unwrap();
    assert_mode(&at("new"), 0o644);
    assert_mode(&at("replaced"), 0o644);
    assert_mode(&at("from outside"), 0o600);
    // The same group keeps its rights.
    chown(at("replaced"), None, Some(own + 1)).unwrap();
    set_mode(&at("replaced"), 0o660);
    store.update(|tx| tx.copy("source", "replaced")).unwrap();
    assert_mode(&at("replaced"), 0o664);
    // A list's mask stands where the bits of the group are.
    let listed =
        std::process::Command::new("setfacl").args(["-m", "g::-,g:12345:rw"]).arg(at("listed")).status();
    if listed.is_ok_and(|status| status.success()) {
        assert_mode(&at("listed"), 0o660);
        store.update(|tx| tx.copy("listed", "unlisted")).unwrap();
        assert_mode(&at("unlisted"), 0o600);
        // Nor may the list of the replaced file let those in whom neither file lets in.
        set_mode(&at("listed"), 0o600);
        store.update(|tx| tx.copy("source", "listed")).unwrap();
        assert_mode(&at("listed"), 0o644);
        store.update(|tx| tx.copy_from("listed", outside.path().join("file"))).unwrap();
        assert_mode(&at("listed"), 0o600);
    }
}

#[cfg(unix)]
#[test]
fn what_a_transaction_has_written_has_the_mode_that_it_will_have() {
    let dir = tempfile::tempdir().unwrap();
    for inline_max in [0, 100] {
        let store = Store::options().inline_max(inline_max).open(dir.path()).unwrap();
        put(&store, &[("old", "1")]);
        set_mode(&dir.path().join("old"), 0o604);
        let mut tx = store.begin().unwrap();
        tx.write("old", "2").unwrap();
        tx.file("run").mode(0o751).write("1").unwrap();
        let modes = |tx: &cosave::Transaction| ["old", "run"].map(|path| tx.metadata(path).unwrap().mode());
        assert_eq!(modes(&tx), [Some(0o604), Some(0o751)]);
        tx.set_permissions("old", 0o640).unwrap();
        assert_eq!(modes(&tx), [Some(0o640), Some(0o751)]);
        let commit = tx.commit().unwrap();
        let shown: Vec<_> = commit.changes().iter().map(ToString::to_string).collect();
        assert!(shown[0].ends_with("run (1 bytes, mode 751)"), "{shown:?}");
        assert_eq!(shown[1], "replace old (1 -> 1 bytes, mode 640)");
        assert_mode(&dir.path().join("old"), 0o640);
        store.update(|tx| tx.remove("run")).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_is_written_only_if_changed_has_the_mode_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path());
    let mut tx = store.begin().unwrap();
    assert!(tx.file("a").mode(0o700).write_if_changed("1").unwrap());
    tx.commit().unwrap();
    let mut tx = store.begin().unwrap();
    assert!(!tx.file("a").write_if_changed("1").unwrap());
    assert!(!tx.file("a").mode(0o700).write_if_changed("1").unwrap());
    assert!(matches!(tx.file("a").mode(0o10000).write_if_changed("1"), Err(Error::Unsupported { .. })));
    // What was left as it was must still be so.
    set_mode(&dir.path().join("a"), 0o777);
    assert!(tx.commit().unwrap_err().is_conflict());
    let mut tx = store.begin().unwrap();
    assert!(tx.file("a").mode(0o700).write_if_changed("1").unwrap());
    tx.commit().unwrap();
    assert_mode(&dir.path().join("a"), 0o700);
}
