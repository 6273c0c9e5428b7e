//! The crash tests: the real protocol on a disk that loses power.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print")]
#![allow(unreachable_pub, reason = "the helpers are shared by modules, not exported")]

mod again;
mod append;
mod away;
mod built;
mod control;
mod controls;
mod durabilities;
mod exploration;
mod faults;
mod folding;
mod forgotten;
mod generated;
mod history;
mod links;
mod locked;
mod model;
mod mount_point;
mod mutations;
mod past;
mod property;
mod readers;
mod recovered;
mod reference;
mod restored;
mod reused;
mod room;
mod rules;
mod script;
mod single_file;
mod strangers;
mod stuck;
mod sweeping;
mod trees;
mod undone;
