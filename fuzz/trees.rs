//! Symlinks and whole directories in a scene, and what must hold whatever a
//! manifest says of them: nothing foreign is touched, and a root that opens is
//! clean. What must become of the files in a tree is not worked out here.

use std::ffi::OsStr;

use cosave::{Action, Entry, Error, RelativePath};
use serde_json::{Value, json};

use super::{Scene, files, lasting, options};

/// The names of staged and hidden things.
pub(crate) fn names(entry: &Entry) -> impl Iterator<Item = &OsStr> {
    let (own, hidden) = match &entry.action {
        Action::Write(content) => (Some(&content.name), None),
        Action::Link(link) => (Some(&link.name), None),
        Action::MoveTree(moved) => (None, moved.replaced.as_ref()),
        Action::RemoveTree(hidden) => (None, Some(hidden)),
        _ => (None, None),
    };
    let hidden = [hidden, entry.over.as_ref()].into_iter().flatten().map(|hidden| &hidden.name);
    own.into_iter().chain(hidden).map(|name| name.as_os_str())
}

impl Scene {
    fn identity(&self, path: &str, flags: &str) -> Value {
        let process = self.disk.process();
        let path = RelativePath::new(path).ok();
        let found = path.as_ref().and_then(|path| process.metadata(path).ok());
        let inode = found.and_then(|found| found.identity).map_or(u64::MAX, |identity| identity.inode);
        let born = path.and_then(|path| process.born(&path).ok().flatten()).map(cosave::TimeStamp::from);
        json!({ "inode": if flags.contains('n') { u64::MAX - 1 } else { inode }, "born": born })
    }

    fn name(&self, path: &str, kind: &str) -> String {
        let name = path.rsplit('/').next().unwrap_or_default();
        let open = self.open.as_ref();
        let id = open.map(|open| open.transaction.clone()).unwrap_or_default();
        format!(".{name}.{id}-{kind}{}.cosave", open.map_or(0, |open| open.entries.len() + 1))
    }

    /// What an entry says of the directory whose place it takes.
    pub(super) fn over(&mut self, path: &str, flags: &str) -> Value {
        if !flags.contains('o') {
            return Value::Null;
        }
        self.has_trees = true;
        json!({ "hidden": self.name(path, "9"), "removed": self.identity(path, flags) })
    }

    /// An entry of a symlink or a tree.
    pub(super) fn tree(&mut self, kind: &str, first: &str, second: &str, flags: &str) {
        self.has_trees = true;
        let entry = match kind {
            "l" => {
                let name = self.name(first, "");
                let staged =
                    first.rsplit_once('/').map_or(name.clone(), |(above, _)| format!("{above}/{name}"));
                self.disk.symlink(if flags.contains('m') { first } else { &staged }, second);
                json!({ "path": first, "operation": "link", "staged": name, "to": second, "before": null,
                    "tree": self.over(first, flags) })
            }
            "m" => {
                let mut tree = json!({ "from": first, "moved": self.identity(first, flags) });
                if flags.contains('o') {
                    tree["hidden"] = self.name(second, "9").into();
                    tree["removed"] = self.identity(second, flags);
                }
                let before = self
                    .before(second, "b")
                    .filter(|_| flags.contains('o') && self.disk.files().contains_key(second));
                if flags.contains('m') {
                    self.move_now(first, second);
                }
                json!({ "path": second, "operation": "move-tree", "before": before, "tree": tree })
            }
            _ => {
                let hidden = self.name(first, "9");
                let tree = json!({ "hidden": hidden, "removed": self.identity(first, second) });
                if second.contains('m') {
                    let to = first
                        .rsplit_once('/')
                        .map_or(hidden.clone(), |(above, _)| format!("{above}/{hidden}"));
                    self.move_now(first, &to);
                }
                json!({ "path": first, "operation": "remove-tree", "before": null, "tree": tree })
            }
        };
        self.open.iter_mut().for_each(|open| open.entries.push(entry.clone()));
    }

    fn move_now(&self, from: &str, to: &str) {
        if let (Ok(from), Ok(to)) = (RelativePath::new(from), RelativePath::new(to)) {
            // Whatever is impossible here still leaves a valid scene.
            if let Ok(debt) = self.disk.process().rename_directory(&from, &to) {
                debt.waive("the test needs no sync");
            }
        }
    }

    /// Whether any manifest names this file, or a directory above it.
    fn is_in_reach(&self, path: &str) -> bool {
        let entries = self.manifests();
        let paths = entries.iter().flat_map(|entry| {
            let from = match &entry.action {
                Action::MoveTree(moved) => Some(&moved.from),
                _ => None,
            };
            [Some(&entry.path), from].into_iter().flatten()
        });
        paths.into_iter().any(|named| std::path::Path::new(path).starts_with(named.as_path()))
    }

    fn manifests(&self) -> Vec<Entry> {
        let decoded = files(&self.disk).into_iter().filter(|(path, _)| path.starts_with(".cosave/"));
        let decoded = decoded.filter_map(|(_, bytes)| cosave::Manifest::decode(&bytes).ok());
        decoded.flat_map(|manifest| manifest.entries).collect()
    }
}

/// Opens the root read-only, then for writing, then again.
pub(crate) fn recovery(scene: &Scene) {
    let disk = scene.disk.copy();
    let before = lasting(&disk);
    let store = options().read_only(true).open_on(disk.process()).expect("looking needs no recovery");
    let _any = (store.status(), store.verify());
    if let Ok(view) = store.view() {
        let _walked: Vec<_> = ["foreign", "d", "d/f", "a"].map(|path| view.read(path).is_ok()).into();
    }
    drop(store);
    assert_eq!(lasting(&disk), before, "a read-only store changed something");
    let disk = scene.disk.copy();
    let _living = scene.living(&disk);
    let opened = options().open_on(disk.process());
    let after = files(&disk);
    for (path, bytes) in &before {
        let is_others = path.starts_with("foreign") && !scene.is_in_reach(path);
        assert!(!is_others || after.get(path) == Some(bytes), "{path:?} belongs to others and was changed");
    }
    match opened {
        Ok(store) => {
            assert!(store.recover().expect("recovered before").is_clean());
            assert!(store.sweep().expect("swept before").is_clean());
            drop(store);
            let clean = lasting(&disk);
            let again = options().open_on(disk.process()).expect("opened before");
            assert!(again.last_recovery().is_clean(), "{:?}", again.last_recovery());
            assert_eq!(lasting(&disk), clean, "opening it again changed something");
        }
        Err(error) => {
            let is_answer =
                matches!(error, Error::Corrupt { .. } | Error::NotApplied { .. } | Error::Io { .. });
            assert!(is_answer, "not an answer to a damaged root: {error:?}");
        }
    }
}
