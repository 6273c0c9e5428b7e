//! Where a staged file lies, who can read it, and what it inherits: as a file that was made there in the
//! ordinary way. Access control lists, groups and users need root, `setfacl` or `setpriv`; where these
//! are missing, the tests say that they were skipped.

#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cosave::{Change, Durability, Store, Transaction};

use crate::common::{
    LARGE_BYTES, ROOT, assert_no_litter, child_arguments, child_root, put, quick, run, say, skipped, tree,
};

/// A group and user that is not the one who runs the tests.
const NOBODY: u32 = 65534;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The staged files below `root`.
fn staged(root: &Path) -> Vec<PathBuf> {
    tree(root).into_keys().filter(|path| path.to_string_lossy().ends_with(".cosave")).collect()
}

/// Stages a file that is too large for memory, of these bytes.
fn stage_large(tx: &mut Transaction, path: &str, byte: u8) {
    tx.write(path, vec![byte; LARGE_BYTES]).unwrap();
}

/// Says that this test cannot run here.
fn skip(reason: &str) {
    skipped(std::thread::current().name().unwrap_or("staging"), reason);
}

fn is_root(root: &Path) -> bool {
    let is_root = fs::metadata(root).unwrap().uid() == 0;
    if !is_root {
        skip("needs root");
    }
    is_root
}

/// Whether a command is there and succeeds.
fn can(command: &str, arguments: &[&str], path: &Path) -> bool {
    let ran = Command::new(command).args(arguments).arg(path).status().is_ok_and(|status| status.success());
    if !ran {
        skip(&format!("{command} cannot be run here"));
    }
    ran
}

/// A file's access control list, without its name.
fn access_list(path: &Path) -> String {
    let output =
        Command::new("getfacl").args(["--absolute-names", "--omit-header"]).arg(path).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// A new file of cosave's has what a file has that is made beside it in the ordinary way.
fn assert_like_a_file_made_here(path: &Path) {
    let ordinary = path.with_file_name("made in the ordinary way");
    File::create(&ordinary).unwrap();
    let (found, expected) = (fs::metadata(path).unwrap(), fs::metadata(&ordinary).unwrap());
    let name = path.display();
    assert_eq!(format!("{:o}", found.mode()), format!("{:o}", expected.mode()), "{name}");
    assert_eq!((found.uid(), found.gid()), (expected.uid(), expected.gid()), "{name}");
    if Command::new("getfacl").arg("--version").output().is_ok() {
        assert_eq!(access_list(path), access_list(&ordinary), "{name}");
    }
    fs::remove_file(ordinary).unwrap();
}

// `private/key` lay in the root as `.key.<id>.cosave`, readable for all, whenever the session had not
// staged in `private` before. No test looked where a staged file was.
#[test]
fn a_staged_file_lies_in_its_targets_directory_and_is_hidden_until_it_is_finished() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("private")).unwrap();
    set_mode(&root.path().join("private"), 0o700);
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("elsewhere", "1")]);
    let mut tx = store.begin().unwrap();
    tx.write("private/small", "secret").unwrap();
    let mut writer = tx.writer("private/key").unwrap();
    writer.write_all(&vec![7; LARGE_BYTES]).unwrap();
    let unfinished = staged(root.path());
    assert!(!unfinished.is_empty());
    for path in &unfinished {
        assert_eq!(path.parent(), Some(Path::new("private")), "{}", path.display());
    }
    let key = unfinished.iter().find(|path| path.to_string_lossy().contains("key")).unwrap();
    assert_eq!(mode(&root.path().join(key)), 0o600);
    writer.finish().unwrap();
    stage_large(&mut tx, "private/new/deep", 8);
    for path in staged(root.path()) {
        assert!(path.starts_with("private"), "{}", path.display());
    }
    tx.commit().unwrap();
    for path in ["private/small", "private/key", "private/new/deep"] {
        assert_like_a_file_made_here(&root.path().join(path));
    }
    drop(store);
    assert_no_litter(root.path());
}

// Another user read the key while the transaction was open, and after a kill for as long as nobody
// opened the root.
#[test]
fn another_user_finds_no_secret_at_any_time() {
    let root = tempfile::tempdir().unwrap();
    let nobody = NOBODY.to_string();
    let run_as = [format!("--reuid={nobody}"), format!("--regid={nobody}"), "--clear-groups".to_owned()];
    let search = |root: &Path| {
        let found =
            Command::new("setpriv").args(&run_as).args(["grep", "-rlsa", "the secret"]).arg(root).output();
        String::from_utf8(found.unwrap().stdout).unwrap()
    };
    let arguments: Vec<&str> = run_as.iter().map(String::as_str).chain(["test", "-d"]).collect();
    if !is_root(root.path()) || !can("setpriv", &arguments, Path::new("/")) {
        return;
    }
    set_mode(root.path(), 0o755);
    let private = root.path().join("private");
    fs::create_dir(&private).unwrap();
    set_mode(&private, 0o700);
    fs::write(root.path().join("guarded"), "old").unwrap();
    set_mode(&root.path().join("guarded"), 0o640);
    fs::write(root.path().join("known"), "the secret that everybody knows").unwrap();
    let known = format!("{}\n", root.path().join("known").display());
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("elsewhere", "1")]);
    for bytes in [100, LARGE_BYTES] {
        let secret = "the secret ".repeat(bytes / 11);
        let mut tx = store.begin().unwrap();
        let mut writer = tx.writer("private/key").unwrap();
        writer.write_all(secret.as_bytes()).unwrap();
        writer.flush().unwrap();
        assert_eq!(search(root.path()), known, "while it is written");
        writer.finish().unwrap();
        tx.write("guarded", &secret).unwrap();
        tx.write("private/new/key", &secret).unwrap();
        assert_eq!(search(root.path()), known, "while it is staged");
        tx.commit().unwrap();
        assert_eq!(search(root.path()), known, "when it is committed");
    }
}

// The first file of a session in a setgid directory got the group of the root's directory, for good;
// its neighbours got the right one.
#[test]
fn a_new_file_has_the_group_of_its_directory() {
    let root = tempfile::tempdir().unwrap();
    if !is_root(root.path()) {
        return;
    }
    let shared = root.path().join("shared");
    fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, None, Some(NOBODY)).unwrap();
    set_mode(&shared, 0o2775);
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("elsewhere", "1")]);
    put(&store, &[("shared/first", "1"), ("shared/new/file", "2")]);
    put(&store, &[("shared/second", "3")]);
    let mut tx = store.begin().unwrap();
    stage_large(&mut tx, "shared/large", 1);
    stage_large(&mut tx, "shared/other/large", 1);
    tx.commit().unwrap();
    for path in ["first", "second", "new/file", "large", "other/large"] {
        assert_like_a_file_made_here(&shared.join(path));
        assert_eq!(fs::metadata(shared.join(path)).unwrap().gid(), NOBODY, "{path}");
    }
}

#[test]
fn a_replaced_file_keeps_its_group_and_its_mode_in_a_setgid_directory() {
    let root = tempfile::tempdir().unwrap();
    if !is_root(root.path()) {
        return;
    }
    let shared = root.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("mine"), "old").unwrap();
    set_mode(&shared.join("mine"), 0o4640);
    std::os::unix::fs::chown(&shared, None, Some(NOBODY)).unwrap();
    set_mode(&shared, 0o2775);
    let before = fs::metadata(shared.join("mine")).unwrap();
    put(&quick(root.path()), &[("shared/mine", "new")]);
    let after = fs::metadata(shared.join("mine")).unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino());
}

// As with the group: the first file in a directory with a default list had none.
#[test]
fn a_new_file_inherits_its_directorys_access_control_list() {
    for list in ["u:1234:rw,m::rw,o::---", "u::rw,g::r,o::---", "u::rwx,g::rwx,o::rwx,g:4321:r,m::rx"] {
        let root = tempfile::tempdir().unwrap();
        let team = root.path().join("team");
        fs::create_dir(&team).unwrap();
        if !can("setfacl", &["-d", "-m", list], &team) {
            return;
        }
        let store = Store::open(root.path()).unwrap();
        put(&store, &[("elsewhere", "1")]);
        put(&store, &[("team/first", "1"), ("team/new/file", "2")]);
        let mut tx = store.begin().unwrap();
        stage_large(&mut tx, "team/large", 1);
        stage_large(&mut tx, "team/other/large", 1);
        tx.commit().unwrap();
        for path in ["team/first", "team/new/file", "team/large", "team/other/large", "elsewhere"] {
            assert_like_a_file_made_here(&root.path().join(path));
        }
    }
}

// A file no longer had the default list of its directory. Once cosave had replaced it, those whom the list
// names could read it. A file with a list of its own lost it, and its mask became the right of its group.
#[test]
fn a_replaced_file_keeps_its_own_access_control_list() {
    let root = tempfile::tempdir().unwrap();
    let team = root.path().join("team");
    fs::create_dir(&team).unwrap();
    fs::write(team.join("plain"), "old").unwrap();
    fs::write(root.path().join("listed"), "old").unwrap();
    set_mode(&team.join("plain"), 0o640);
    if !can("setfacl", &["-d", "-m", "u:1234:rw"], &team)
        || !can("setfacl", &["-m", "u:1234:rw,g::-"], &root.path().join("listed"))
    {
        return;
    }
    let paths = ["team/plain", "listed"];
    let before = paths.map(|path| access_list(&root.path().join(path)));
    assert!(!before[0].contains("1234") && before[1].contains("1234"), "{before:?}");
    let store = quick(root.path());
    for bytes in [10, LARGE_BYTES] {
        let mut tx = store.begin().unwrap();
        paths.iter().for_each(|path| tx.write(path, vec![1; bytes]).unwrap());
        tx.commit().unwrap();
        assert_eq!(paths.map(|path| access_list(&root.path().join(path))), before);
    }
}

// A list that names a user can close a file to this user alone. By its mode the file was open to all, and its
// bytes lay in a manifest of the whole group, its checksum in one of everybody.
#[test]
fn the_bytes_of_a_file_with_an_access_control_list_are_in_no_manifest() {
    let saved = |listed: &str, inline_max| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        set_mode(root, 0o775);
        fs::create_dir(root.join("d")).unwrap();
        set_mode(&root.join("d"), 0o755);
        fs::write(root.join("d/file"), "0").unwrap();
        set_mode(&root.join("d/file"), 0o644);
        if !listed.is_empty() && !can("setfacl", &["-m", "u:1234:-"], &root.join(listed)) {
            return None;
        }
        let options = Store::options().durability(Durability::Committed).inline_max(inline_max);
        let store = options.open(root).unwrap();
        put(&store, &[("d/file", "the secret")]);
        let is_small = root.join(".cosave/1.pending-inline").exists();
        let manifest = if is_small { ".cosave/1.pending-inline" } else { ".cosave/1.pending" };
        Some((is_small, format!("{:o}", mode(&root.join(manifest)))))
    };
    assert_eq!(saved("", 100), Some((true, "660".to_owned())));
    assert_eq!(saved("", 0), Some((false, "664".to_owned())));
    for (listed, inline_max) in [("d/file", 100), ("d", 100), (".", 100), ("d/file", 0), ("d", 0), (".", 0)] {
        let Some(found) = saved(listed, inline_max) else { return };
        assert_eq!(found, (false, "660".to_owned()), "{listed:?}, up to {inline_max} bytes");
    }
}

// The permissions were those of the moment of `write`: whoever took a file from the public while a
// transaction was open had it public again after the commit.
#[test]
fn a_change_of_permissions_between_staging_and_commit_is_not_undone() {
    for bytes in [10, LARGE_BYTES] {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        put(&store, &[("a", "old"), ("b", "old")]);
        let mut tx = store.begin().unwrap();
        tx.write("a", vec![1; bytes]).unwrap();
        tx.write("b", vec![1; bytes]).unwrap();
        tx.write("made", vec![1; bytes]).unwrap();
        set_mode(&root.path().join("a"), 0o600);
        set_mode(&root.path().join("b"), 0o664);
        tx.commit().unwrap();
        let modes = ["a", "b"].map(|path| mode(&root.path().join(path)));
        assert_eq!(modes, [0o600, 0o664], "{bytes} bytes");
        assert_eq!(fs::metadata(root.path().join("a")).unwrap().len(), bytes as u64);
        assert_like_a_file_made_here(&root.path().join("made"));
        assert!(store.verify().unwrap().is_empty());
    }
}

// Each refused commit that was to make a directory left a record of it behind for as long as the
// session lived: 1,003 files after 1,000.
#[test]
fn refused_commits_leave_no_records_behind() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    put(&store, &[("a", "1")]);
    let records = || fs::read_dir(root.path().join(".cosave/sessions")).unwrap().count();
    for number in 0..200 {
        let mut tx = store.begin().unwrap();
        tx.create_new("a", "2").unwrap();
        tx.write("the same/file", "2").unwrap();
        tx.write(format!("another {number}/file"), "2").unwrap();
        assert!(tx.commit().unwrap_err().is_conflict());
    }
    assert!(records() <= 16, "{} records", records());
    // A session that stages in many directories one after the other is no different.
    for number in 0..200 {
        put(&store, &[(&format!("kept {number}/file"), "2")]);
    }
    assert!(records() <= 16, "{} records", records());
    assert_eq!(tree(root.path()).len(), 1 + 2 * 200);
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn a_directory_that_an_aborted_transaction_takes_away_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let mut first = store.begin().unwrap();
    stage_large(&mut first, "new/deep/large", 1);
    let mut second = store.begin().unwrap();
    second.write("new/deep/file", "the second's").unwrap();
    let mut third = store.begin().unwrap();
    stage_large(&mut third, "new/large", 3);
    first.abort();
    assert!(!root.path().join("new/deep").exists());
    second.commit().unwrap();
    third.commit().unwrap();
    assert_eq!(crate::common::text(root.path().join("new/deep/file")), "the second's");
    drop(store);
    assert_no_litter(root.path());
}

#[test]
fn a_new_file_gets_its_mode_from_the_umask_of_the_moment() {
    for umask in ["077", "027", "002"] {
        let root = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("umask {umask}; exec \"$0\" \"$@\""))
            .arg(std::env::current_exe().unwrap());
        command.args(child_arguments("staging::child_that_makes_files")).env(ROOT, root.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        assert_eq!(run(command), ["done"]);
        let expected = 0o666 & !u32::from_str_radix(umask, 8).unwrap();
        for path in ["small", "new/small", "large", "new/large"] {
            assert_eq!(format!("{:o}", mode(&root.path().join(path))), format!("{expected:o}"), "{path}");
        }
    }
}

#[test]
#[ignore = "child of a_new_file_gets_its_mode_from_the_umask_of_the_moment"]
fn child_that_makes_files() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    put(&store, &[("small", "1"), ("new/small", "1")]);
    let mut tx = store.begin().unwrap();
    stage_large(&mut tx, "large", 1);
    stage_large(&mut tx, "new/large", 1);
    tx.commit().unwrap();
    for path in ["small", "large", "new/small", "new/large"] {
        assert_like_a_file_made_here(&root.join(path));
    }
    say("done");
}

// A record that names every directory again each time makes staging in many directories quadratic.
#[test]
fn most_records_of_a_session_name_only_what_is_new() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let (mut seen, mut named) = (BTreeSet::new(), 0);
    for number in 0..64 {
        let mut tx = store.begin().unwrap();
        stage_large(&mut tx, &format!("{number}/file"), 1);
        tx.commit().unwrap();
        for entry in fs::read_dir(root.path().join(".cosave/sessions")).unwrap() {
            let path = entry.unwrap().path();
            if seen.insert(path.clone()) {
                let record = fs::read_to_string(&path).unwrap();
                named += (0..64).filter(|other| record.contains(&format!("\"{other}\""))).count();
            }
        }
    }
    assert!((64..500).contains(&named), "64 directories are named {named} times");
}

// What was found when the writer began would be told as created, though it replaces a file.
#[test]
fn a_file_that_somebody_makes_while_it_is_staged_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let store = quick(root.path());
    let mut tx = store.begin().unwrap();
    let mut writer = tx.writer("a").unwrap();
    writer.write_all(&vec![7; LARGE_BYTES]).unwrap();
    fs::write(root.path().join("a"), "somebody's").unwrap();
    writer.finish().unwrap();
    assert!(
        matches!(tx.changes().unwrap().as_slice(), [Change::Replace { .. }]),
        "{:?}",
        tx.changes().unwrap()
    );
    assert!(matches!(tx.commit().unwrap().changes(), [Change::Replace { .. }]));
    assert_eq!(fs::metadata(root.path().join("a")).unwrap().len(), LARGE_BYTES as u64);
}
