//! A block device in memory that writes down what it is asked: a FUSE file for the kernel's loop driver.
//!
//! The kernel sends a disk's flush to the loop driver. The driver makes an `fsync` of it, and FUSE
//! hands that to this module. So the log has every write and every flush, in the order in which the
//! disk answered them. One thread serves, and answers a request before it reads the next. The protocol
//! is the kernel's `include/uapi/linux/fuse.h`, as little of it as one file needs; the file is the
//! root of its mount. This process must never touch what is mounted from the device: it would wait
//! for itself.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::image::Image;

/// What a disk is asked, as far as a power cut cares.
#[derive(Clone)]
pub enum Entry {
    /// Bytes that may stay in the disk's cache.
    Write { offset: u64, bytes: Arc<[u8]> },
    /// Everything before it is on the medium.
    Flush,
}

/// The disk, and what it was asked since it was loaded.
struct State {
    image: Image,
    log: Vec<Entry>,
    recording: bool,
}

/// A device that is served as long as this lives.
pub struct Device {
    state: Arc<Mutex<State>>,
    file: PathBuf,
}

impl Device {
    /// Serves a device of zeros as the file `file`, which is made.
    pub fn serve(file: &Path, bytes: u64) -> io::Result<Self> {
        fs::write(file, b"")?;
        let fuse = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", fuse.as_raw_fd());
        mount("cosave-powercut", file, "fuse", MountFlags::empty(), CString::new(options)?.as_c_str())?;
        let state = State { image: Image::new(bytes), log: Vec::new(), recording: false };
        let state = Arc::new(Mutex::new(state));
        let device = Self { state: Arc::clone(&state), file: file.to_path_buf() };
        thread::spawn(move || answer_all(fuse, &state, bytes));
        Ok(device)
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Puts a disk in, and begins a new log. Nothing may be mounted from the device.
    pub fn load(&self, image: Image) {
        *self.state() = State { image, log: Vec::new(), recording: true };
    }

    /// How much has been asked since the disk was loaded.
    pub fn position(&self) -> usize {
        self.state().log.len()
    }

    /// The power is gone: what is asked from here on is not written down.
    pub fn cut(&self) -> Vec<Entry> {
        let mut state = self.state();
        state.recording = false;
        std::mem::take(&mut state.log)
    }

    /// The disk as it is now.
    pub fn image(&self) -> Image {
        self.state().image.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Forced, so that whoever still waits for the device is told that it is gone.
        let _ = unmount(&self.file, UnmountFlags::FORCE | UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.file);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The longest write in one request, in bytes; the kernel's limit is 256 pages.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Operations, from `enum fuse_opcode`.
mod operation {
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

/// Answers until the mount is gone.
fn answer_all(mut fuse: File, state: &Mutex<State>, size: u64) {
    let mut buffer = vec![0; WRITE_BYTES_MAX + 4096];
    loop {
        let length = match fuse.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            // ENODEV: unmounted or aborted. The rest are requests that went away before they came.
            Err(error) if error.raw_os_error() == Some(19) => return,
            Err(_) => continue,
        };
        let request = Request(&buffer[..length]);
        let answer = match request.operation() {
            operation::FORGET | operation::BATCH_FORGET | operation::INTERRUPT => continue,
            _ => answer(&request, state, size),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error.raw_os_error(), Vec::new()),
        };
        let mut reply = Reply::default();
        reply.u32(16 + body.len() as u32).u32(error as u32).u64(request.unique());
        reply.0.extend(body);
        // Refused only when the request was interrupted.
        let _ = fuse.write_all(&reply.0);
    }
}

fn answer(request: &Request<'_>, state: &Mutex<State>, size: u64) -> rustix::io::Result<Vec<u8>> {
    let mut reply = Reply::default();
    match request.operation() {
        operation::INIT => {
            // Asynchronous reads, big writes, asynchronous direct I/O, so many pages at once.
            let flags = 1 | 1 << 5 | 1 << 15 | 1 << 22;
            reply.u32(7).u32(31).u32(request.u32(8)).u32(flags);
            // Requests in the background and when they are too many; the longest write, the clock's
            // granularity in ns, the most pages; then what is not used.
            reply.u32(64 | 48 << 16).u32(WRITE_BYTES_MAX as u32).u32(1).u32((WRITE_BYTES_MAX / 4096) as u32);
            reply.0.resize(64, 0);
        }
        operation::GETATTR | operation::SETATTR => {
            // The answer holds for an hour. Then inode, size, blocks, three times and their parts.
            reply.u64(3600).u64(0).u64(1).u64(size).u64(size / 512).u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
            // Mode, links, user, group, device, block size, flags.
            reply.u32(0o100_600).u32(1).u32(0).u32(0).u32(0).u32(4096).u32(0);
        }
        // Writes go straight through to this process. What is read is cached by the kernel until the
        // next opening, and every mount opens the file anew.
        operation::OPEN => _ = reply.u64(0).u32(0).u32(0),
        operation::READ => reply.0 = lock(state).image.read(request.u64(8), request.u32(16) as usize),
        operation::WRITE => {
            let (offset, length) = (request.u64(8), request.u32(16) as usize);
            let bytes = &request.body()[40..40 + length];
            let mut state = lock(state);
            state.image.write(offset, bytes);
            if state.recording {
                state.log.push(Entry::Write { offset, bytes: bytes.into() });
            }
            reply.u32(length as u32).u32(0);
        }
        operation::FSYNC => {
            let mut state = lock(state);
            if state.recording {
                state.log.push(Entry::Flush);
            }
        }
        operation::FLUSH | operation::RELEASE => {}
        _ => return Err(rustix::io::Errno::NOSYS),
    }
    Ok(reply.0)
}

/// A request: a header of 40 bytes, then what the operation needs.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn operation(&self) -> u32 {
        number(self.0, 4) as u32
    }

    fn unique(&self) -> u64 {
        number(self.0, 8) | number(self.0, 12) << 32
    }

    fn body(&self) -> &[u8] {
        &self.0[40..]
    }

    fn u32(&self, at: usize) -> u32 {
        number(self.body(), at) as u32
    }

    fn u64(&self, at: usize) -> u64 {
        number(self.body(), at) | number(self.body(), at + 4) << 32
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    (0..4).map(|index| u64::from(bytes[at + index]) << (8 * index)).sum()
}

#[derive(Default)]
struct Reply(Vec<u8>);

impl Reply {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }
}
