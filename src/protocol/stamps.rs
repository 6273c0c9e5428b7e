//! Stamps: which time stamps prove that a file was not changed.
//!
//! A clock can stand still: for a second on an ext4 with small inodes, for a tick
//! of 4 ms on most kernels before 6.13. A file that is as young as the clock can be
//! changed again and keep its stamps. Only a file that is older than one that was
//! written a moment ago cannot, as long as clocks run forward: git calls the
//! others "racily clean" (racy-git.txt). Decides nothing; saves reading a file.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::fs::Metadata;

/// The stamps that each file system gave last to a file of this process's own, by device.
#[derive(Debug, Default)]
pub(crate) struct Stamps(Mutex<HashMap<u64, SystemTime>>);

impl Stamps {
    /// A file of our own has just been written.
    pub(crate) fn note(&self, own: &Metadata) {
        if let (Some(identity), Some(changed)) = (own.identity, own.changed) {
            let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            newest.insert(identity.device, changed.min(own.modified));
        }
    }

    /// Whether everybody who changes this file from now on gives it other stamps. Nobody can set the
    /// time of change back, so without one nothing is proven.
    pub(crate) fn prove(&self, found: &Metadata) -> bool {
        let (Some(identity), Some(changed)) = (found.identity, found.changed) else { return false };
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest.get(&identity.device).is_some_and(|newest| changed < *newest && found.modified < *newest)
    }
}
