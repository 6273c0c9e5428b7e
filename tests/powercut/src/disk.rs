//! The kernel's file systems on a device: made once, mounted again and again.
//!
//! All is done by the system's own commands, in processes of their own: this one serves the device
//! and must not wait for it. `mount -o loop` lets go of its loop device by itself, and the mounts
//! are in a namespace of their own, so nothing is left behind, whatever ends this program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::device::Device;
use crate::image::Image;

const MIB: u64 = 1 << 20;

/// A file system, as it is made and mounted.
pub struct Kind {
    pub name: &'static str,
    bytes: u64,
    /// The command that makes it, with its arguments. Each run's has an identity of its own: the
    /// kernel takes two disks with the same for one.
    make: &'static [&'static str],
    /// Mount options, of which each round takes one.
    pub options: &'static [&'static str],
}

pub const KINDS: [Kind; 3] = [
    Kind {
        name: "ext4",
        bytes: 64 * MIB,
        make: &["mkfs.ext4", "-q", "-F", "-b4096", "-Enodiscard,lazy_itable_init=0,lazy_journal_init=0"],
        options: &["data=ordered", "data=ordered,commit=1", "data=writeback", "data=ordered,noauto_da_alloc"],
    },
    Kind {
        name: "xfs",
        bytes: 320 * MIB,
        make: &["mkfs.xfs", "-q", "-f", "-K"],
        options: &["defaults", "logbsize=32k", "wsync"],
    },
    Kind {
        name: "btrfs",
        bytes: 256 * MIB,
        make: &["mkfs.btrfs", "-q", "-f", "-K"],
        options: &["defaults", "commit=1", "nossd", "notreelog", "compress=zstd"],
    },
];

impl Kind {
    /// The command that makes it.
    pub fn tool(&self) -> &'static str {
        self.make[0]
    }
}

/// A device with a file system on it.
pub struct Disk {
    pub kind: &'static Kind,
    pub device: Device,
    point: PathBuf,
    /// The file system as it is when it has just been made.
    pub fresh: Image,
}

impl Disk {
    /// Serves a device below `scratch`, and makes the file system.
    pub fn new(kind: &'static Kind, scratch: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("no FUSE device can be made: {error}");
        let point = scratch.join(format!("{}-mount", kind.name));
        fs::create_dir(&point).map_err(failed)?;
        let device = Device::serve(&scratch.join(kind.name), kind.bytes).map_err(failed)?;
        run(Command::new(kind.tool()).args(&kind.make[1..]).arg(device.file()))?;
        let mut disk = Self { kind, device, point, fresh: Image::new(0) };
        // The first mount writes what only a first mount writes.
        drop(disk.mount(kind.options[0])?);
        let made = disk.device.image();
        let mut fresh = Image::new(kind.bytes);
        made.pages().for_each(|(offset, page)| fresh.write(offset, page));
        disk.fresh = fresh;
        Ok(disk)
    }

    pub fn mount(&self, options: &str) -> Result<Mounted<'_>, String> {
        let options = format!("loop,noatime,{options}");
        let mut command = Command::new("mount");
        run(command.args(["-t", self.kind.name, "-o", &options]).args([self.device.file(), &self.point]))?;
        Ok(Mounted(&self.point))
    }
}

/// Mounted as long as this lives.
pub struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    pub fn point(&self) -> &Path {
        self.0
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(self.0)) {
            eprintln!("{error}");
            let _ = run(Command::new("umount").arg("--lazy").arg(self.0));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
}
