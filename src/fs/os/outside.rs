//! Files outside the root, which are read and never written.
//!
//! Any path may lead to them. So whatever would block on being opened, or act on
//! it, is refused before. Knows nothing of the root.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a file of the system to read it, and nothing else: a pipe waits for a writer, and some devices act.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    if !std::fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = open(path)?;
    // It may have become a pipe since.
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Without waiting for the writer of a pipe (open(2), `O_NONBLOCK`).
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Whether an open file has an access control list that says more than its mode.
#[cfg(target_os = "linux")]
pub(crate) fn is_listed(file: &File) -> io::Result<bool> {
    Ok(super::linux::file_has_access_list(file)?)
}

/// Other systems do not tell, or have no mode that a list could contradict.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(crate) fn is_listed(_file: &File) -> io::Result<bool> {
    Ok(false)
}
