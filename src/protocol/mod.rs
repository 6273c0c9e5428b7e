//! The protocol. Its steps, in the order in which they may know each other: each
//! knows what stands below it, never what stands above.
//!
//! ```text
//! open      the order of an opening; what an open store holds
//! flush     what was put off, waited for
//! commit    the order of a commit: every wait in sight
//! shift     the lock, and what is owed under it
//! leading   the wait for the lock, for all who wait behind one
//! verify    the newest commits' files against their checksums
//! past      an earlier state, as far as it was kept
//! read      one state, under a shared lock
//! sweep     remove what dead sessions left
//! recover   finish what was published
//! pending   what is published and not retired
//! apply     staged files over their targets; retire
//! history   what a commit replaces or removes, kept before it goes
//! history_record  the list of that, as text
//! publish   one rename of the manifest
//! batch     which transactions share a wave
//! check     what can be refused before the commit point
//! twins     two paths that are one file or directory
//! built     directories that take the place of files
//! refused   a commit that did nothing, to be tried again
//! stage     changes, beside their targets
//! permissions   of staged files, copied anew
//! cleanup   what goes if a transaction aborts
//! gate      one caller of a store alone
//! lease     one store alone, for longer than a commit
//! lock      one writer, or many readers
//! snapshot  what a transaction has read
//! expected  what the caller says must be true
//! glance    what it has seen without reading
//! state     the root under a lock
//! session   who lives, and where it stages
//! resolve   what a caller's path leads to, inside the root
//! queue     who commits for whom
//! original  what is replaced or removed, to be known again
//! tree      directories that are moved or removed as a whole
//! control   what lies in the control directory
//! copy      bytes, permissions, checksums
//! writers   who may write in the root
//! room      whether a long file fits on the disk
//! mounts    which directories are a file system of their own
//! root      what every step shares
//! deferred  waits that were put off
//! stamps    which time stamps prove something
//! layout    the names on disk
//! caller    on whose behalf a commit is made, and how long he waits
//! ```
//!
//! Steps call the world only through [`FileSystem`](crate::fs::FileSystem).

pub(crate) mod apply;
pub(crate) mod batch;
pub(crate) mod built;
pub(crate) mod caller;
pub(crate) mod check;
pub(crate) mod cleanup;
pub(crate) mod commit;
pub(crate) mod control;
pub(crate) mod copy;
pub(crate) mod deferred;
pub(crate) mod expected;
pub(crate) mod flush;
pub(crate) mod gate;
pub(crate) mod glance;
pub(crate) mod history;
pub(crate) mod history_record;
pub(crate) mod layout;
mod leading;
pub(crate) mod lease;
pub(crate) mod lock;
mod made;
mod mounts;
mod new_directory;
pub(crate) mod open;
pub(crate) mod original;
pub(crate) mod past;
pub(crate) mod pending;
mod permissions;
pub(crate) mod publish;
pub(crate) mod queue;
pub(crate) mod read;
pub(crate) mod recover;
pub(crate) mod refused;
pub(crate) mod resolve;
pub(crate) mod room;
pub(crate) mod root;
pub(crate) mod session;
mod shift;
pub(crate) mod snapshot;
pub(crate) mod stage;
mod staged_trees;
mod stamps;
pub(crate) mod state;
pub(crate) mod sweep;
mod sync;
pub(crate) mod tree;
mod twins;
pub(crate) mod verify;
mod writers;
