//! Caller: on whose behalf a commit is made.
//!
//! Travels with a transaction from its beginning to its commit point. Plain
//! data: what a key opens is known to `gate`.

/// Opens the gate of a store for one who has the root locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64);

/// Who makes a commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// The key of the lock under which it is made.
    pub(crate) key: Option<Key>,
}
