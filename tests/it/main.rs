//! What cosave promises, tried on the real file system through the public face.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print")]
#![cfg_attr(not(target_os = "linux"), allow(unused_imports, reason = "some tests run on Linux alone"))]
#![allow(unreachable_pub, reason = "the helpers are shared by modules, not exported")]
#![allow(dead_code, reason = "some helpers are for tests/kill.rs, or for one system only")]

mod abandon;
mod after_commit;
mod append;
mod atomic_file;
mod bad_input;
mod common;
mod control_directory;
mod directories;
#[cfg(unix)]
mod directory_modes;
mod dry_run;
mod expecting;
mod files_replaced;
mod fixtures;
// Threads that are in each other's way: minutes under Wine, where every lock is a round trip.
#[cfg(unix)]
mod futures;
mod futures_append;
mod handed_on;
mod history;
mod in_memory;
mod kinds;
mod limits;
#[cfg(unix)]
mod links;
mod locking;
mod messages;
mod mounts;
mod object_processes;
mod object_uploads;
mod objects;
mod objects_beside;
mod objects_refused;
mod opacity;
mod operations;
mod outcomes;
#[cfg(target_os = "linux")]
mod preserving;
mod processes;
mod progress;
mod prose;
mod readers;
mod reading;
mod recovery;
mod roots;
mod several;
mod shared;
mod single;
#[cfg(unix)]
mod single_sweep;
mod small;
mod staging;
// Threads that are in each other's way: minutes under Wine, where every lock is a round trip.
#[cfg(unix)]
mod stamps;
mod strangers;
mod tidy;
// Threads that are in each other's way: minutes under Wine, where every lock is a round trip.
#[cfg(unix)]
mod time_outs;
mod told;
mod transactions;
mod trees;
#[cfg(unix)]
mod undone_rights;
mod updates;
