//! What an undo gives back may be read by nobody who could not read it before. Groups and access control lists
//! need root and `setfacl`; where these are missing, the tests say that they were skipped.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use cosave::{Durability, Store};

use crate::common::{child, child_root, run, say, skipped, text};

/// A group that this process is not in.
const OTHERS: u32 = 12_345;

fn keeping(root: &Path) -> Store {
    Store::options().keep(10).durability(Durability::Process).open(root).unwrap()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root(root: &Path) -> bool {
    let is_root = fs::metadata(root).unwrap().uid() == 0;
    if !is_root {
        skipped("undone_rights", "needs root");
    }
    is_root
}

fn can_list(arguments: &[&str], path: &Path) -> bool {
    let listed = std::process::Command::new("setfacl").args(arguments).arg(path).status();
    let is_listed = listed.is_ok_and(|status| status.success());
    if !is_listed {
        skipped("undone_rights", "there is no `setfacl`, or this file system has no lists");
    }
    is_listed
}

/// Lets another user read a file. The mask of the list stands where the bits of the group are.
fn can_let_another_read(path: &Path) -> bool {
    let is_listed = can_list(&["-m", "u:1234:r"], path);
    assert!(!is_listed || mode(path) == 0o640, "{:o}", mode(path));
    is_listed
}

/// A closed directory with a file that says that all may read it, removed by a commit.
fn remove_vault(store: &Store, root: &Path, bits: u32) {
    store.update(|tx| tx.write("vault/key", "secret")).unwrap();
    set_mode(root.join("vault"), bits);
    empty_vault(store);
}

fn empty_vault(store: &Store) {
    let emptied = store.update(|tx| {
        tx.prune_empty_parents();
        tx.remove("vault/key")
    });
    emptied.unwrap();
}

/// A file with these bytes and this mode.
fn file(path: &Path, bytes: &str, mode: u32) {
    fs::write(path, bytes).unwrap();
    set_mode(path, mode);
}

/// The lists of a history.
fn lists(root: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(root.join(".cosave/history")).unwrap();
    listed.map(|entry| entry.unwrap().path().join("record")).collect()
}

/// Changes the lists of a history to what an earlier version would have written.
fn age_lists(root: &Path) {
    for path in lists(root) {
        let whole = text(&path);
        let (_, body) = whole.split_once('\n').unwrap();
        let mut list: serde_json::Value = serde_json::from_str(body).unwrap();
        for entry in list["entries"].as_array_mut().unwrap() {
            let before = entry["before"].as_object_mut().unwrap();
            before.remove("group");
            if before["kind"] == "directory" {
                before.remove("mode");
            }
        }
        let body = list.to_string();
        let hash = blake3::hash(body.as_bytes()).to_hex();
        fs::write(&path, format!("cosave-history 1 {hash}\n{body}")).unwrap();
    }
}

/// The history did not say which group a file had. So no group got more rights than all others.
#[test]
fn a_file_that_comes_back_to_its_group_has_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    file(&dir.path().join("secret"), "1", 0o640);
    file(&dir.path().join("open"), "1", 0o664);
    store.update(|tx| tx.remove("secret").and_then(|()| tx.remove("open"))).unwrap();
    store.undo().unwrap();
    assert_eq!(["secret", "open"].map(|path| mode(dir.path().join(path))), [0o640, 0o664]);
}

#[test]
fn a_list_that_does_not_tell_the_group_lets_no_group_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    for path in ["gone", "there"] {
        file(&dir.path().join(path), "1", 0o640);
    }
    store.update(|tx| tx.remove("gone").and_then(|()| tx.write("there", "2"))).unwrap();
    age_lists(dir.path());
    store.undo().unwrap();
    for path in ["gone", "there"] {
        assert_eq!(
            (text(dir.path().join(path)).as_str(), mode(dir.path().join(path))),
            ("1", 0o600),
            "{path}"
        );
    }
}

/// The bits for the old group were given to the group of the new file, which could never read the old one.
#[test]
fn a_file_that_comes_back_to_another_group_lets_that_group_in_no_further_than_all_others() {
    let dir = tempfile::tempdir().unwrap();
    if !is_root(dir.path()) {
        return;
    }
    let store = keeping(dir.path());
    for (path, bits) in [("secret", 0o640), ("open", 0o664)] {
        file(&dir.path().join(path), "1", bits);
        chown(dir.path().join(path), None, Some(OTHERS)).unwrap();
    }
    store.update(|tx| tx.remove("secret").and_then(|()| tx.remove("open"))).unwrap();
    store.undo().unwrap();
    for (path, bits) in [("secret", 0o600), ("open", 0o644)] {
        let found = fs::metadata(dir.path().join(path)).unwrap();
        assert_ne!(found.gid(), OTHERS);
        assert_eq!(found.mode() & 0o7777, bits, "{path}");
    }
}

/// The file had been given to another group meanwhile, with the same mode. So the old bytes were readable by
/// that group.
#[test]
fn a_file_that_was_given_to_another_group_gets_its_old_bytes_without_rights_for_that_group() {
    let dir = tempfile::tempdir().unwrap();
    if !is_root(dir.path()) {
        return;
    }
    let store = keeping(dir.path());
    let path = dir.path().join("secret");
    file(&path, "old secret", 0o640);
    store.update(|tx| tx.write("secret", "nothing special")).unwrap();
    chown(&path, None, Some(OTHERS)).unwrap();
    set_mode(&path, 0o640);
    store.undo().unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((text(&path).as_str(), found.gid(), found.mode() & 0o7777), ("old secret", OTHERS, 0o600));
}

/// The mask of a list stood where the bits of the group are. Without the list the group had these rights.
#[test]
fn a_file_that_had_a_list_comes_back_without_what_the_list_gave() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    let path = dir.path().join("secret");
    file(&path, "1", 0o600);
    if !can_let_another_read(&path) {
        return;
    }
    store.update(|tx| tx.remove("secret")).unwrap();
    store.undo().unwrap();
    assert_eq!((text(&path).as_str(), mode(&path)), ("1", 0o600));
}

/// The list was made for what the file had become. It let its users read what it had been.
#[test]
fn a_list_that_a_file_got_since_lets_nobody_read_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    let path = dir.path().join("secret");
    file(&path, "old secret", 0o640);
    store.update(|tx| tx.write("secret", "nothing special")).unwrap();
    if !can_let_another_read(&path) {
        return;
    }
    store.undo().unwrap();
    assert_eq!((text(&path).as_str(), mode(&path)), ("old secret", 0o600));
}

/// A new file inherits a list from its directory. That list was made after the file was removed.
#[test]
fn a_file_that_comes_back_into_a_directory_with_a_list_is_open_to_none_of_its_users() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(dir.path());
    file(&dir.path().join("secret"), "1", 0o640);
    store.update(|tx| tx.remove("secret")).unwrap();
    if !can_list(&["-d", "-m", "u:1234:r"], dir.path()) {
        return;
    }
    store.undo().unwrap();
    assert_eq!(mode(dir.path().join("secret")), 0o600);
}

/// The directory came back open to all, and so did its files. While they were removed, they were kept as a secret.
#[test]
fn a_directory_that_comes_back_is_as_closed_as_it_was() {
    for (bits, expected) in [(0o700, 0o700), (0o750, 0o750), (0o755, 0o755), (0o500, 0o700), (0o1777, 0o755)]
    {
        let dir = tempfile::tempdir().unwrap();
        let vault = dir.path().join("vault");
        let store = keeping(dir.path());
        remove_vault(&store, dir.path(), bits);
        assert!(!vault.exists());
        let restored = store.undo().unwrap();
        assert_eq!(mode(&vault), expected, "{bits:o}");
        assert_eq!((text(vault.join("key")).as_str(), mode(vault.join("key"))), ("secret", 0o644));
        let told = restored.changes().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told[0], format!("create  vault/ (mode {expected:o})"));
        // And again, from the list that the undo of the undo has made.
        store.redo().unwrap();
        assert!(!vault.exists());
        store.undo().unwrap();
        assert_eq!(mode(&vault), expected, "{bits:o}");
    }
}

#[test]
fn a_directory_whose_mode_nobody_knows_comes_back_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let vault = dir.path().join("vault");
    let store = keeping(dir.path());
    remove_vault(&store, dir.path(), 0o755);
    age_lists(dir.path());
    store.undo().unwrap();
    assert_eq!(mode(&vault), 0o700);
    // A program that knows nothing of cosave removes the directory.
    store.update(|tx| tx.write("vault/deep/key", "secret")).unwrap();
    store.update(|tx| tx.remove("vault/deep/key")).unwrap();
    fs::remove_dir_all(&vault).unwrap();
    store.undo().unwrap();
    assert_eq!(["vault", "vault/deep"].map(|path| mode(dir.path().join(path))), [0o700, 0o700]);
    assert_eq!(text(vault.join("deep/key")), "secret");
}

#[test]
fn a_directory_comes_back_to_its_group_if_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    if !is_root(dir.path()) {
        return;
    }
    let vault = dir.path().join("vault");
    let store = keeping(dir.path());
    store.update(|tx| tx.write("vault/key", "secret")).unwrap();
    chown(&vault, None, Some(OTHERS)).unwrap();
    set_mode(&vault, 0o750);
    empty_vault(&store);
    store.undo().unwrap();
    let found = fs::metadata(&vault).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o7777), (OTHERS, 0o750));
}

#[test]
fn a_directory_that_cannot_have_its_group_lets_no_group_in() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    if !is_root(dir.path()) {
        return;
    }
    let vault = dir.path().join("vault");
    fs::create_dir(&vault).unwrap();
    fs::write(vault.join("key"), "secret").unwrap();
    for path in [dir.path(), &vault, &vault.join("key")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(&vault, None, Some(OTHERS)).unwrap();
    set_mode(&vault, 0o770);
    use std::os::unix::process::CommandExt as _;
    let mut command = child("undone_rights::child_that_undoes_a_removal", dir.path());
    command.uid(NOBODY).gid(NOBODY);
    assert_eq!(run(command), ["undone"]);
    let found = fs::metadata(&vault).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o7777), (NOBODY, 0o700));
    assert_eq!(text(vault.join("key")), "secret");
}

#[test]
#[ignore = "child of a_directory_that_cannot_have_its_group_lets_no_group_in"]
fn child_that_undoes_a_removal() {
    let Some(root) = child_root() else { return };
    let store = keeping(&root);
    empty_vault(&store);
    assert!(!root.join("vault").exists());
    store.undo().unwrap();
    say("undone");
}

#[test]
fn a_directory_that_had_a_list_comes_back_without_what_the_list_gave() {
    let dir = tempfile::tempdir().unwrap();
    let vault = dir.path().join("vault");
    let store = keeping(dir.path());
    store.update(|tx| tx.write("vault/key", "secret")).unwrap();
    set_mode(&vault, 0o700);
    if !can_list(&["-m", "u:1234:rx"], &vault) {
        return;
    }
    assert_eq!(mode(&vault), 0o750);
    empty_vault(&store);
    store.undo().unwrap();
    assert_eq!(mode(&vault), 0o700);
}
