//! Small saves, whose bytes travel in their manifest: what a power loss in their one wave leaves, who can read
//! the manifest, and what becomes of the bytes.

use std::fs;
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use cosave::{Durability, Error, Generation, Manifest, Store};

use crate::common::{Crash, assert_no_litter, put, text, tree};

/// A copy of a root with all time stamps, as a killed process leaves it: nobody holds its locks.
pub fn copy(from: &Path) -> tempfile::TempDir {
    fn copy_directory(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            let name = entry.file_name();
            if from.ends_with("sessions") || name == "lock" || name == "queue" {
                // Windows lets nobody read what another has locked. A dead session is one without a mark.
                if !from.ends_with("sessions") {
                    fs::write(&target, "").unwrap();
                }
            } else if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&target).unwrap();
                copy_directory(&entry.path(), &target);
            } else {
                copy_file(&entry.path(), &target);
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy_directory(from, to.path());
    to
}

fn copy_file(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    let modified = fs::metadata(from).unwrap().modified().unwrap();
    fs::File::options().write(true).open(to).unwrap().set_modified(modified).unwrap();
}

fn pending(root: &Path) -> PathBuf {
    root.join(".cosave/2.pending-inline")
}

/// A small save that waits for its commit point only, with one file that is replaced and one that is new.
/// Returns the root before it, and the root after a power loss that kept nothing of its wave but
/// the manifest.
fn with_a_manifest_alone() -> (tempfile::TempDir, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("new/dir")).unwrap();
    let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
    put(&store, &[("a", "old a")]);
    store.flush().unwrap();
    let before = copy(root.path());
    put(&store, &[("a", "the new a"), ("new/dir/b", "the new b")]);
    let lost = copy(root.path());
    assert!(pending(lost.path()).exists());
    copy_file(&before.path().join("a"), &lost.path().join("a"));
    fs::remove_file(lost.path().join("new/dir/b")).unwrap();
    remove_marks(lost.path());
    (before, lost)
}

/// Removes the marks of files that are in place, since what they say counts only until the machine is started
/// again.
pub fn remove_marks(root: &Path) {
    for entry in fs::read_dir(root.join(".cosave")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(".in-place-") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_save_of_which_only_the_manifest_survived_is_finished() {
    let (_, root) = with_a_manifest_alone();
    let store = Store::open(root.path()).unwrap();
    let report = store.last_recovery();
    assert_eq!(report.rolled_forward, [Generation::from(2)], "{report}");
    assert!(report.differences.is_empty(), "{report}");
    assert_eq!(text(root.path().join("a")), "the new a");
    assert_eq!(text(root.path().join("new/dir/b")), "the new b");
    drop(store);
    assert_no_litter(root.path());
    assert!(Store::open(root.path()).unwrap().last_recovery().is_clean());
}

#[test]
fn a_read_only_view_shows_what_only_the_manifest_holds() {
    let (_, root) = with_a_manifest_alone();
    let untouched = tree(root.path());
    let store = Store::options().read_only(true).open(root.path()).unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.generation(), 2);
    assert_eq!(view.read("a").unwrap(), b"the new a");
    assert_eq!(view.read("new/dir/b").unwrap(), b"the new b");
    let mut file = view.open("a").unwrap();
    assert_eq!((file.length().unwrap(), file.seek(SeekFrom::End(-1)).unwrap()), (9, 8));
    assert_eq!(std::io::read_to_string(file).unwrap(), "a");
    assert_eq!(tree(root.path()), untouched);
}

#[test]
fn an_edit_of_a_target_is_kept_though_the_staged_file_is_gone() {
    let (_, root) = with_a_manifest_alone();
    fs::write(root.path().join("a"), "somebody's edit").unwrap();
    let reader = Store::options().read_only(true).open(root.path()).unwrap();
    assert_eq!(reader.view().unwrap().read("a").unwrap(), b"somebody's edit");
    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.last_recovery().differences.len(), 1, "{}", store.last_recovery());
    assert_eq!(text(root.path().join("a")), "somebody's edit");
    assert_eq!(text(root.path().join("new/dir/b")), "the new b");
}

#[test]
fn a_torn_manifest_that_nobody_was_told_of_is_discarded_and_reported() {
    let (before, root) = with_a_manifest_alone();
    let whole = fs::read(pending(root.path())).unwrap();
    let text_bytes = whole.len() - "the new athe new b".len();
    for length in [0, 1, 20, text_bytes / 2, text_bytes - 1, text_bytes, text_bytes + 1, whole.len() - 1] {
        let root = copy(root.path());
        fs::write(pending(root.path()), &whole[..length]).unwrap();
        let store = Store::open(root.path()).unwrap();
        let report = store.last_recovery();
        assert_eq!(report.discarded, [Generation::from(2)], "{length}: {report}");
        assert_eq!(store.generation().unwrap(), 1);
        drop(store);
        assert_eq!(tree(root.path()), tree(before.path()), "{length}");
        assert_no_litter(root.path());
        assert_eq!(put(&Store::open(root.path()).unwrap(), &[("a", "next")]).generation(), 2);
    }
}

#[test]
fn a_torn_manifest_that_a_later_commit_follows_is_damage() {
    let (_, root) = with_a_manifest_alone();
    fs::write(pending(root.path()), "").unwrap();
    let mut crash = Crash::new(root.path());
    crash.write("c", "the new c");
    crash.publish(3);
    let before = tree(root.path());
    let error = Store::open(root.path()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == pending(root.path())), "{error:?}");
    assert_eq!(tree(root.path()), before, "something was moved");
}

/// What is known of two commits: who published them in which waves.
fn two_pending(is_one_wave: bool) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
    put(&store, &[("a", "old a"), ("b", "old b")]);
    store.flush().unwrap();
    let before = copy(root.path());
    let stage = |name: &str| {
        let mut tx = store.begin().unwrap();
        tx.write(name, format!("the new {name}")).unwrap();
        tx
    };
    let lost = if is_one_wave {
        let answers = cosave::Transaction::commit_together(vec![stage("a"), stage("b")]);
        assert!(answers.iter().all(Result::is_ok));
        copy(root.path())
    } else {
        stage("a").commit().unwrap();
        let first = copy(root.path());
        stage("b").commit().unwrap();
        copy_file(
            &root.path().join(".cosave/3.pending-inline"),
            &first.path().join(".cosave/3.pending-inline"),
        );
        first
    };
    // A power loss in the wave: nothing was moved.
    for name in ["a", "b"] {
        copy_file(&before.path().join(name), &lost.path().join(name));
    }
    lost
}

/// Nobody was told of a commit whose wave has not ended, whichever of its manifests are whole. If the next
/// wave has begun, it has ended.
#[test]
fn a_torn_manifest_takes_along_what_was_published_in_its_own_wave_and_nothing_else() {
    for torn in [&[2][..], &[2, 3], &[3]] {
        let root = two_pending(true);
        for number in torn {
            fs::write(root.path().join(format!(".cosave/{number}.pending-inline")), "torn").unwrap();
        }
        let store = Store::open(root.path()).unwrap();
        let discarded: Vec<_> = (torn[0]..=3).map(Generation::from).collect();
        assert_eq!(store.last_recovery().discarded, discarded, "{torn:?}");
        assert_eq!(text(root.path().join("b")), "old b", "{torn:?}");
    }
    let root = two_pending(false);
    fs::write(pending(root.path()), "torn").unwrap();
    let error = Store::open(root.path()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == pending(root.path())), "{error:?}");
    assert_eq!(text(root.path().join("b")), "old b");
}

/// The newest manifest keeps the bytes of its files, and no other does.
#[test]
fn the_bytes_of_a_file_go_with_its_manifest() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    put(&store, &[("a", "the secret")]);
    put(&store, &[("a", "2")]);
    put(&store, &[("a", "3")]);
    let names = fs::read_dir(root.path().join(".cosave")).unwrap().map(|entry| entry.unwrap().path());
    for path in names.filter(|path| path.is_file()) {
        let bytes = fs::read(&path).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("the secret"), "{}", path.display());
    }
    let applied = fs::read(root.path().join(".cosave/3.applied")).unwrap();
    assert_eq!(Manifest::decode(&applied).unwrap().inline.unwrap().bytes, b"3");
}

#[test]
fn a_save_is_small_up_to_the_limit_and_long_beyond_it() {
    for (limit, is_small) in [(5, false), (6, true), (7, true), (0, false)] {
        let root = tempfile::tempdir().unwrap();
        let options = Store::options().durability(Durability::Committed).inline_max(limit);
        fs::create_dir(root.path().join("d")).unwrap();
        let store = options.open(root.path()).unwrap();
        put(&store, &[("a", "123"), ("d/b", "456")]);
        assert_eq!(root.path().join(".cosave/1.pending-inline").exists(), is_small, "{limit}");
        assert_eq!(root.path().join(".cosave/1.pending").exists(), !is_small, "{limit}");
        let found = (text(root.path().join("a")), text(root.path().join("d/b")));
        assert_eq!(found, ("123".to_owned(), "456".to_owned()));
    }
}

/// A staged file that is gone is no proof of a move, if the manifest has its bytes.
#[test]
fn a_save_that_is_given_up_says_what_a_power_loss_has_taken_of_it() {
    let (before, root) = with_a_manifest_alone();
    let store = Store::options().recover(false).open(root.path()).unwrap();
    let given_up = store.abandon(2).unwrap();
    assert!(given_up.in_place.is_empty(), "{given_up:?}");
    let left: Vec<_> = given_up.left.iter().map(ToString::to_string).collect();
    assert_eq!(left, ["a", "new/dir/b"]);
    assert_eq!(text(root.path().join("a")), text(before.path().join("a")));
}

/// The store knows that its files are in place, so its readers need not look into the manifest each time.
#[test]
fn a_reader_does_not_read_the_manifest_of_its_own_store() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
    put(&store, &[("a", "1")]);
    put(&store, &[("a", "2")]);
    let manifest = fs::read(pending(root.path())).unwrap();
    fs::write(pending(root.path()), "somebody's mistake").unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.generation(), 2);
    assert_eq!(view.read("a").unwrap(), b"2");
    drop(view);
    let other = Store::options().read_only(true).open(root.path()).unwrap();
    remove_marks(root.path());
    assert_eq!(other.view().unwrap().generation(), 1, "another store takes it for torn");
    fs::write(pending(root.path()), manifest).unwrap();
    assert_eq!(other.view().unwrap().generation(), 2);
}

/// A save that has no bytes at all fitted into every limit.
#[test]
fn a_limit_of_0_makes_even_a_save_without_bytes_a_long_one() {
    for (limit, expected) in [(0, "pending"), (1, "pending-inline")] {
        let root = tempfile::tempdir().unwrap();
        let options = Store::options().durability(Durability::Committed).inline_max(limit);
        let store = options.open(root.path()).unwrap();
        put(&store, &[("empty", "")]);
        assert!(root.path().join(format!(".cosave/1.{expected}")).exists(), "{limit}: an empty file");
        store.update(|tx| tx.remove("empty")).unwrap();
        assert!(root.path().join(format!(".cosave/2.{expected}")).exists(), "{limit}: a removal");
    }
}

/// Nothing could make a directory durable anew after a failed sync.
#[test]
fn a_save_that_makes_a_directory_is_a_long_one() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
    put(&store, &[("a", "1"), ("new/b", "1")]);
    assert!(root.path().join(".cosave/1.pending").exists());
    put(&store, &[("a", "2"), ("new/b", "2")]);
    assert!(root.path().join(".cosave/2.pending-inline").exists());
}

#[cfg(unix)]
mod readers {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    use std::sync::{Arc, Mutex};

    use cosave::fs::sim::{Rule, without};
    use cosave::{
        Action, Before, Entry, Inline, RelativePath, StagedContent, Stamp, Transaction, TransactionId,
    };
    use uuid::Uuid;

    use crate::common::{ROOT, child_arguments, child_root, run, say, skipped};

    const NOBODY: u32 = 65534;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Who may write in the root must be able to recover what is pending. Nobody else may read it.
    #[test]
    fn a_pending_manifest_with_bytes_is_read_by_nobody_but_those_who_may_write_in_the_root() {
        for (root_mode, expected) in [(0o755, 0o600), (0o775, 0o660), (0o700, 0o600)] {
            let root = tempfile::tempdir().unwrap();
            set_mode(root.path(), root_mode);
            let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
            put(&store, &[("a", "1")]);
            let mode =
                fs::metadata(root.path().join(".cosave/1.pending-inline")).unwrap().permissions().mode();
            assert_eq!(format!("{:o}", mode & 0o777), format!("{expected:o}"), "{root_mode:o}");
        }
    }

    /// A lost file is written anew by whoever recovers, perhaps with another umask. The permissions of its
    /// target may have changed since, and count.
    #[test]
    fn a_restored_file_has_the_permissions_of_the_lost_one() {
        let (_, root) = with_a_manifest_alone();
        set_mode(&root.path().join("a"), 0o640);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        command.args(child_arguments("small::readers::child_that_recovers"));
        command.env(ROOT, root.path()).stdout(std::process::Stdio::piped());
        assert_eq!(run(command), ["done"]);
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(text(root.path().join("new/dir/b")), "the new b");
        assert_eq!((format!("{:o}", mode("a")), mode("new/dir/b") & 0o044), ("640".to_owned(), 0o044));
    }

    #[test]
    #[ignore = "child of a_restored_file_has_the_permissions_of_the_lost_one"]
    fn child_that_recovers() {
        let Some(root) = child_root() else { return };
        assert_eq!(Store::open(root).unwrap().last_recovery().rolled_forward.len(), 1);
        say("done");
    }

    /// Whether saving `private/file` puts its bytes into the manifest.
    fn is_held(root_mode: u32, directory: (u32, u32), file: (u32, u32)) -> Option<bool> {
        let root = tempfile::tempdir().unwrap();
        set_mode(root.path(), root_mode);
        let (parent, path) = (root.path().join("private"), root.path().join("private/file"));
        fs::create_dir(&parent).unwrap();
        fs::write(&path, "0").unwrap();
        for (path, (mode, owner)) in [(&path, file), (&parent, directory)] {
            set_mode(path, mode);
            if owner != 0 && chown(path, Some(owner), None).is_err() {
                skipped("small", "only a privileged process can save for somebody else");
                return None;
            }
        }
        let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
        put(&store, &[("private/file", "the secret")]);
        let names = fs::read_dir(root.path().join(".cosave")).unwrap().map(|entry| entry.unwrap().path());
        let files = names.filter(|path| path.is_file());
        Some(
            files
                .map(|path| fs::read(path).unwrap())
                .any(|bytes| String::from_utf8_lossy(&bytes).contains("the secret")),
        )
    }

    #[test]
    fn the_bytes_of_a_file_that_fewer_may_read_are_in_no_manifest() {
        let open = (0o755, 0);
        assert_eq!(is_held(0o755, open, (0o600, 0)), Some(true), "the root's owner may read it");
        assert_eq!(is_held(0o775, open, (0o600, 0)), Some(false), "a group writes in the root");
        assert_eq!(is_held(0o775, open, (0o644, 0)), Some(true), "everybody may read it");
        assert_eq!(is_held(0o775, (0o700, 0), (0o644, 0)), Some(false), "it lies in a closed directory");
        assert_eq!(
            is_held(0o775, open, (0o604, 0)),
            Some(false),
            "its group may not read it, but all others"
        );
        assert_eq!(is_held(0o775, (0o705, 0), (0o644, 0)), Some(false), "its directory is closed to a group");
        let of_another = is_held(0o755, open, (0o600, NOBODY));
        assert!(of_another.is_none_or(|held| !held), "it belongs to somebody else");
        let in_anothers = is_held(0o755, (0o700, NOBODY), (0o644, 0));
        assert!(in_anothers.is_none_or(|held| !held), "its directory belongs to somebody else");
        let broken = without(Some(Rule::KeepSecrets), || is_held(0o775, open, (0o600, 0)));
        assert_eq!(broken, Some(true), "the rule is broken, and nobody notices");
    }

    /// A save that had become a long one shared a wave with the small one before it. If a power loss tore
    /// the small one's manifest, the long one behind it made that look like damage.
    #[test]
    fn a_save_that_becomes_a_long_one_under_the_lock_is_published_after_the_small_one() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        set_mode(&root, 0o775);
        for name in ["a", "b"] {
            fs::write(root.join(name), "0").unwrap();
            set_mode(&root.join(name), 0o644);
        }
        let reader = Store::options().read_only(true).open(&root).unwrap();
        drop(Store::open(&root).unwrap().update(|tx| tx.write("c", "1")).unwrap());
        let view = Arc::new(Mutex::new(Some(reader.view().unwrap())));
        let (held, private) = (Arc::clone(&view), root.join("b"));
        // The batch is staged when it waits for the view. Only then does `b` become private.
        let store = Store::options()
            .durability(Durability::Committed)
            .on_wait(move |_| {
                set_mode(&private, 0o600);
                held.lock().unwrap().take();
            })
            .open(&root)
            .unwrap();
        let stage = |name: &str| {
            let mut tx = store.begin().unwrap();
            tx.write(name, "1").unwrap();
            tx
        };
        let answers = Transaction::commit_together(vec![stage("a"), stage("b")]);
        let generations: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().get()).collect();
        assert_eq!(generations, [2, 3]);
        assert!(view.lock().unwrap().is_none(), "nobody waited for the view");
        let has = |name: &str| root.join(".cosave").join(name).exists();
        assert!(has("3.pending"), "the second save is not a long one");
        assert!(has("2.applied"), "both were published in one wave");
    }

    /// Whether the bytes may be in the manifest, and who may read it, was asked before the wait for the lock.
    /// What was closed during the wait stood open in the manifest.
    #[test]
    fn what_is_closed_while_a_save_waits_for_the_lock_is_not_open_in_its_manifest() {
        let saved = |limit: usize, closed: &'static str, mode: u32| {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path().to_owned();
            fs::create_dir(root.join("d")).unwrap();
            for (path, mode) in [("", if closed.is_empty() { 0o755 } else { 0o775 }), ("d", 0o755)] {
                set_mode(&root.join(path), mode);
            }
            fs::write(root.join("d/file"), "0").unwrap();
            set_mode(&root.join("d/file"), if closed.is_empty() { 0o600 } else { 0o644 });
            drop(Store::open(&root).unwrap().update(|tx| tx.write("c", "1")).unwrap());
            let reader = Store::options().read_only(true).open(&root).unwrap();
            let view = Mutex::new(Some(reader.view().unwrap()));
            let path = root.join(closed);
            let options = Store::options().durability(Durability::Committed).inline_max(limit);
            let options = options.on_wait(move |_| {
                set_mode(&path, mode);
                view.lock().unwrap().take();
            });
            let store = options.open(&root).unwrap();
            put(&store, &[("d/file", "the secret")]);
            let is_small = root.join(".cosave/2.pending-inline").exists();
            let name = if is_small { "2.pending-inline" } else { "2.pending" };
            let found = fs::metadata(root.join(".cosave").join(name)).unwrap().permissions().mode();
            (is_small, format!("{:o}", found & 0o777))
        };
        let asked_once = |limit, closed, mode| without(Some(Rule::AskAgain), || saved(limit, closed, mode));
        assert_eq!(saved(100, "d", 0o755), (true, "660".to_owned()), "nothing is closed");
        assert_eq!(saved(100, "d", 0o700), (false, "660".to_owned()), "a directory is closed");
        assert_eq!(saved(100, "", 0o777), (false, "666".to_owned()), "all may write in the root");
        assert_eq!(saved(0, "d", 0o755), (false, "664".to_owned()), "a long save");
        assert_eq!(saved(0, "d", 0o700), (false, "660".to_owned()), "a long save in a closed directory");
        assert_eq!(asked_once(100, "d", 0o700), (true, "660".to_owned()));
        assert_eq!(asked_once(0, "d", 0o700), (false, "664".to_owned()));
    }

    /// The owner of a restored file stood in the manifest. So whoever could write one, and waited for root to
    /// recover, gave a file to anybody.
    #[test]
    fn a_restored_file_belongs_to_whoever_wrote_its_manifest_unless_that_is_root() {
        const ANOTHER: u32 = NOBODY - 1;
        for (writer, named, expected) in [
            (0, (ANOTHER, ANOTHER), (ANOTHER, ANOTHER)),
            (NOBODY, (NOBODY, NOBODY), (NOBODY, NOBODY)),
            (NOBODY, (0, 0), (NOBODY, 0)),
            (NOBODY, (ANOTHER, ANOTHER), (NOBODY, NOBODY)),
        ] {
            let root = tempfile::tempdir().unwrap();
            forge(root.path(), "file", 0o644, Some(named), None);
            let manifest = root.path().join(".cosave/1.pending-inline");
            if chown(&manifest, Some(writer), Some(writer)).is_err() {
                return skipped("small", "only a privileged process can recover for somebody else");
            }
            drop(Store::open(root.path()).unwrap());
            let found = fs::metadata(root.path().join("file")).unwrap();
            assert_eq!((found.uid(), found.gid()), expected, "of {writer}, named {named:?}");
        }
    }

    /// Publishes a small save of one file, whose staged file is lost.
    fn forge(root: &Path, name: &str, mode: u32, owner: Option<(u32, u32)>, before: Option<Before>) {
        fs::create_dir_all(root.join(".cosave")).unwrap();
        let bytes = b"#!/bin/sh\n".to_vec();
        let transaction: TransactionId = format!("{}-1", Uuid::new_v4().simple()).parse().unwrap();
        let content = StagedContent {
            name: format!(".{name}.{transaction}-1.cosave").into(),
            after: Stamp { length: bytes.len() as u64, modified: std::time::SystemTime::now().into() },
            mode,
            owner,
            checksum: cosave::Checksum::of(&bytes),
        };
        let path = RelativePath::new(name).unwrap();
        let entries = vec![Entry { path, before, action: Action::Write(content), over: None }];
        let time = std::time::SystemTime::now().into();
        let inline = Some(Inline { wave: Generation::from(1), bytes });
        let manifest = Manifest { transaction, time, mounts: BTreeSet::new(), entries, inline };
        fs::write(root.join(".cosave/1.pending-inline"), manifest.encode()).unwrap();
    }

    /// A stranger who could write in a root published a manifest with the bytes of a program. The next opening
    /// by root made this program, owned by root and with the set-user-ID bit.
    #[test]
    fn a_forged_manifest_makes_no_program_that_runs_with_the_rights_of_another() {
        for (name, mode) in [("program", 0o4755), ("taken", 0o6711), ("plain", 0o755)] {
            let root = tempfile::tempdir().unwrap();
            let mut before = None;
            if name == "taken" {
                let path = root.path().join(name);
                fs::write(&path, "a program of root's").unwrap();
                set_mode(&path, mode);
                before = Some(Before { stamp: stamp(&path), checksum: None, is_link: false });
            }
            forge(root.path(), name, mode, Some((0, 0)), before);
            drop(Store::open(root.path()).unwrap());
            assert_eq!(text(root.path().join(name)), "#!/bin/sh\n");
            let found = fs::metadata(root.path().join(name)).unwrap().permissions().mode();
            assert_eq!(format!("{:o}", found & 0o7777), format!("{:o}", mode & 0o777), "{name}");
        }
    }

    fn stamp(path: &Path) -> Stamp {
        let found = fs::metadata(path).unwrap();
        Stamp { length: found.len(), modified: found.modified().unwrap().into() }
    }

    #[test]
    fn a_program_that_runs_with_the_rights_of_its_owner_is_saved_the_long_way() {
        for (mode, expected) in [(0o4755, "pending"), (0o2755, "pending"), (0o1755, "pending-inline")] {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("program");
            fs::write(&path, "0").unwrap();
            set_mode(&path, mode);
            let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
            put(&store, &[("program", "1")]);
            assert!(root.path().join(".cosave").join(format!("1.{expected}")).exists(), "{mode:o}");
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(format!("{:o}", found & 0o7777), format!("{mode:o}"));
        }
    }

    /// With the new permissions the bytes that were ready for the manifest would be a secret.
    #[test]
    fn a_file_that_becomes_private_before_its_commit_is_saved_the_long_way() {
        let root = tempfile::tempdir().unwrap();
        set_mode(root.path(), 0o775);
        fs::write(root.path().join("a"), "0").unwrap();
        set_mode(&root.path().join("a"), 0o644);
        let store = Store::options().durability(Durability::Committed).open(root.path()).unwrap();
        let mut tx = store.begin().unwrap();
        tx.write("a", "the secret").unwrap();
        set_mode(&root.path().join("a"), 0o600);
        tx.commit().unwrap();
        assert!(root.path().join(".cosave/1.pending").exists());
        assert_eq!(text(root.path().join("a")), "the secret");
    }
}
