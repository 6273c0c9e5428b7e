//! What others do to a simulated disk, visible at once: programs that know
//! nothing of cosave, and the medium itself.

use std::path::PathBuf;
use std::sync::Arc;

use super::SimDisk;
use super::disk::{self, Body, Place};
use crate::path::RelativePath;

impl SimDisk {
    /// Makes a directory and its parents, on a file system of its own if `device` is not 0.
    pub fn make_directory(&self, path: &str, device: u32) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        for directory in path.chain() {
            if machine.state.lookup(&directory).is_err() {
                let Ok(parent) = machine.state.directory(&directory.parent()) else { return };
                let own =
                    if directory == path && device != 0 { device } else { machine.state.device(parent) };
                let inode = machine.state.add(disk::directory(own, disk::DIRECTORY_MODE));
                let name = disk::shared(directory.name());
                machine.state.operate(model, vec![(parent, name, Some(inode))]);
            }
        }
    }

    /// Writes a file in place, and makes it if it is missing.
    pub fn put(&self, path: &str, bytes: &[u8], mode: u32) {
        self.write(path, bytes, mode, None);
    }

    /// Writes a file in place and restores its old time, as `cp -p` and `rsync -t` do.
    pub fn put_keeping_time(&self, path: &str, bytes: &[u8], mode: u32) {
        let kept = {
            let machine = self.lock();
            let Ok(path) = RelativePath::new(path) else { return };
            let found = machine.state.lookup(&path).and_then(|inode| machine.state.body(inode));
            match found {
                Ok(Body::File { visible, .. }) => Some(visible.modified),
                _ => None,
            }
        };
        self.write(path, bytes, mode, kept);
    }

    fn write(&self, path: &str, bytes: &[u8], mode: u32, modified: Option<u64>) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        let now = machine.state.tick();
        let inode = match machine.state.lookup(&path) {
            Ok(inode) => inode,
            Err(_) => {
                let Ok(parent) = machine.state.directory(&path.parent()) else { return };
                let inode = machine.state.add(disk::file(mode, now));
                let name = disk::shared(path.name());
                machine.state.operate(model, vec![(parent, name, Some(inode))]);
                inode
            }
        };
        if let Ok(Body::File { visible, lost, changed, .. }) = machine.state.body_mut(inode) {
            visible.bytes = Arc::new(bytes.to_vec());
            (visible.modified, visible.mode) = (modified.unwrap_or(now), mode);
            (*changed, *lost) = (now, false);
        }
    }

    /// Durably changes the permissions of a file or directory.
    pub fn set_mode(&self, path: &str, mode: u32) {
        let mut machine = self.lock();
        let Ok(path) = RelativePath::new(path) else { return };
        let Ok(inode) = machine.state.lookup(&path) else { return };
        match machine.state.body_mut(inode) {
            Ok(Body::File { visible, durable, .. }) => {
                visible.mode = mode;
                if let Some(durable) = durable {
                    durable.mode = mode;
                }
            }
            Ok(Body::Directory { visible_mode, durable_mode, .. }) => {
                (*visible_mode, *durable_mode) = (mode, mode);
            }
            _ => {}
        }
    }

    /// Makes a file's bytes durable, as `fsync` would. Its name becomes durable only if the model says
    /// so.
    pub fn sync_file(&self, path: &str) {
        let mut machine = self.lock();
        let Ok(path) = RelativePath::new(path) else { return };
        let (Ok(inode), Ok(parent)) = (machine.state.lookup(&path), machine.state.directory(&path.parent()))
        else {
            return;
        };
        let device = machine.state.device(parent);
        machine.sync_file(inode, device);
    }

    /// Makes the names in the directory of `path` durable, as `fsync` of the directory would.
    pub fn sync_name(&self, path: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        if let Ok(parent) = machine.state.directory(&path.parent()) {
            machine.state.sync_names_in(model, parent);
        }
    }

    /// Removes a name.
    pub fn delete(&self, path: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        if let (Ok(_), Ok(parent)) = (machine.state.lookup(&path), machine.state.directory(&path.parent())) {
            machine.state.operate(model, vec![(parent, disk::shared(path.name()), None)]);
        }
    }

    /// Renames a file or directory, over whatever is there.
    pub fn rename(&self, from: &str, to: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let (Ok(from), Ok(to)) = (RelativePath::new(from), RelativePath::new(to)) else { return };
        let place = |path: &RelativePath| {
            let directory = machine.state.directory(&path.parent())?;
            Ok::<_, std::io::Error>(Place { directory, name: disk::shared(path.name()) })
        };
        if let (Ok(inode), Ok(source), Ok(target)) = (machine.state.lookup(&from), place(&from), place(&to)) {
            machine.state.operate(model, vec![source.to_nothing(), target.to(inode)]);
        }
    }

    /// Makes a new file at a name, replacing any other.
    pub fn replace(&self, path: &str, bytes: &[u8], mode: u32) {
        self.delete(path);
        self.put(path, bytes, mode);
    }

    /// Removes a directory and everything in it.
    pub fn remove_all(&self, path: &str) {
        let Ok(directory) = RelativePath::new(path) else { return };
        let names: Vec<_> = {
            let machine = self.lock();
            let Ok(inode) = machine.state.directory(&directory) else { return };
            match machine.state.body(inode) {
                Ok(Body::Directory { visible, .. }) => {
                    visible.keys().map(|name| name.to_os_string()).collect()
                }
                _ => return,
            }
        };
        for name in names {
            let below = format!("{path}/{}", name.to_string_lossy());
            self.remove_all(&below);
            self.delete(&below);
        }
        self.delete(path);
    }

    /// Makes a symlink.
    pub fn symlink(&self, path: &str, to: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let Ok(path) = RelativePath::new(path) else { return };
        let inode = machine.state.add(Body::Symlink(PathBuf::from(to)));
        if let Ok(parent) = machine.state.directory(&path.parent()) {
            machine.state.operate(model, vec![(parent, disk::shared(path.name()), Some(inode))]);
        }
    }

    /// Changes bytes of a file but not its length or time stamp, as a failing medium does.
    pub fn damage(&self, path: &str) {
        let mut machine = self.lock();
        let Ok(path) = RelativePath::new(path) else { return };
        let Ok(inode) = machine.state.lookup(&path) else { return };
        if let Ok(Body::File { visible, durable, .. }) = machine.state.body_mut(inode) {
            let damaged = Arc::new(visible.bytes.iter().map(|byte| byte ^ 1).collect());
            visible.bytes = damaged;
            *durable = Some(visible.clone());
        }
    }

    /// Lets a file have a sector that cannot be read.
    pub fn make_unreadable(&self, path: &str) {
        let mut machine = self.lock();
        let Ok(path) = RelativePath::new(path) else { return };
        if let Ok(inode) = machine.state.lookup(&path) {
            machine.state.unreadable.push(inode);
        }
    }

    /// Turns a file into a mount point, which cannot be renamed over.
    pub fn mount_over(&self, path: &str) {
        let mut machine = self.lock();
        let Ok(path) = RelativePath::new(path) else { return };
        if let Ok(inode) = machine.state.lookup(&path) {
            machine.state.busy.push(inode);
        }
    }

    /// Makes a file or directory append-only, or ordinary again. In an append-only directory files can
    /// be made, but no name can be moved or removed.
    pub fn freeze(&self, path: &str, freeze: bool) {
        let mut machine = self.lock();
        let path = RelativePath::new(path).unwrap_or_else(|_| RelativePath::root());
        let Ok(inode) = machine.state.lookup(&path) else { return };
        machine.state.frozen.retain(|frozen| *frozen != inode);
        if freeze {
            machine.state.frozen.push(inode);
        }
    }

    /// Durably gives a file or directory another name.
    pub fn move_away(&self, from: &str, to: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let (Ok(from), Ok(to)) = (RelativePath::new(from), RelativePath::new(to)) else { return };
        let state = &mut machine.state;
        let (Ok(inode), Ok(source), Ok(target)) =
            (state.lookup(&from), state.directory(&from.parent()), state.directory(&to.parent()))
        else {
            return;
        };
        let names =
            [(source, disk::shared(from.name()), None), (target, disk::shared(to.name()), Some(inode))];
        state.operate(model, names.into());
        state.sync_names_in(model, source);
        state.sync_names_in(model, target);
    }

    /// Mounts a directory a second time under another name.
    pub fn bind(&self, directory: &str, name: &str) {
        let mut machine = self.lock();
        let model = machine.model;
        let (Ok(directory), Ok(name)) = (RelativePath::new(directory), RelativePath::new(name)) else {
            return;
        };
        let (Ok(inode), Ok(parent)) =
            (machine.state.directory(&directory), machine.state.directory(&name.parent()))
        else {
            return;
        };
        machine.state.operate(model, vec![(parent, disk::shared(name.name()), Some(inode))]);
    }

    /// Makes a directory refuse new names, or accept them again.
    pub fn refuse_names(&self, path: &str, refuse: bool) {
        let mut machine = self.lock();
        let directory = RelativePath::new(path).unwrap_or_else(|_| RelativePath::root());
        let Ok(inode) = machine.state.directory(&directory) else { return };
        if let Ok(Body::Directory { read_only, .. }) = machine.state.body_mut(inode) {
            *read_only = refuse;
        }
    }
}
