//! Stamps: which time stamps prove that a file was not changed.
//!
//! A clock can stand still: for a second on an ext4 with small inodes, and for
//! a tick of 4 ms on most kernels before 6.13. Meanwhile a young file can be
//! changed again and have the same stamps. A file that is older than one
//! written a moment ago cannot, as long as clocks run forward. Git calls the
//! young ones "racily clean" (racy-git.txt). Stamps decide nothing here; they
//! only save reading a file.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::fs::Metadata;

/// The stamps that each file system last gave to a file of this process, by device.
#[derive(Debug, Default)]
pub(crate) struct Stamps(Mutex<HashMap<u64, SystemTime>>);

impl Stamps {
    /// Notes a file that this process has just written.
    pub(crate) fn note(&self, own: &Metadata) {
        if let (Some(identity), Some(changed)) = (own.identity, own.changed) {
            let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            newest.insert(identity.device, changed.min(own.modified));
        }
    }

    /// Whether every later change of this file gives it other stamps. No program can set the time of
    /// change back, so without that time nothing is proven.
    pub(crate) fn prove(&self, found: &Metadata) -> bool {
        let (Some(identity), Some(changed)) = (found.identity, found.changed) else { return false };
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest.get(&identity.device).is_some_and(|newest| changed < *newest && found.modified < *newest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fs::{Identity, Kind};

    /// A file on a device, changed and modified so many seconds after the epoch.
    fn file(device: u64, changed: u64, modified: u64) -> Metadata {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Metadata {
            kind: Kind::File,
            length: 0,
            modified: at(modified),
            changed: Some(at(changed)),
            mode: 0o644,
            owner: (0, 0),
            identity: Some(Identity { device, inode: 1 }),
            links: 1,
        }
    }

    #[test]
    fn only_both_stamps_before_those_of_a_later_file_of_the_device_prove_something() {
        let stamps = Stamps::default();
        assert!(!stamps.prove(&file(1, 5, 5)), "nothing was written there yet");
        stamps.note(&file(1, 10, 10));
        assert!(stamps.prove(&file(1, 9, 9)));
        for (device, changed, modified) in [(1, 10, 9), (1, 9, 10), (1, 11, 9), (1, 9, 11), (2, 9, 9)] {
            assert!(!stamps.prove(&file(device, changed, modified)), "{device}, {changed}, {modified}");
        }
        assert!(!stamps.prove(&Metadata { changed: None, ..file(1, 9, 9) }));
        assert!(!stamps.prove(&Metadata { identity: None, ..file(1, 9, 9) }));
    }

    /// A copy can keep an old time of change of content, and then proves nothing beyond it.
    #[test]
    fn a_file_that_was_written_proves_no_more_than_its_older_stamp() {
        let stamps = Stamps::default();
        stamps.note(&file(1, 10, 4));
        assert!(stamps.prove(&file(1, 3, 3)) && !stamps.prove(&file(1, 9, 4)));
    }
}
