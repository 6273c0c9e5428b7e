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
