//! Why something is not possible, in the words of a message.

/// Why something is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The store was opened read-only.
    #[error("the store was opened read-only")]
    ReadOnly,
    /// The transaction is a dry run.
    #[error("a dry run changes nothing")]
    DryRun,
    /// The process was forked after the store or the file was opened.
    #[error("it was opened before a fork; open it again in the child")]
    Forked,
    /// The transaction was committed, or a wait for the disk has failed.
    #[error("the transaction is over, since it was committed or a wait for the disk failed")]
    TransactionOver,
    /// The file system has no locks.
    #[error("files cannot be locked here, so nobody could tell which sessions live")]
    NoLocks,
    /// A deep sweep of a root that lies in another one.
    #[error("it is a root that encloses this one, and may have staged files in it")]
    EnclosingRoot,
    /// The transaction is too large for a manifest.
    #[error("it changes more than one manifest can hold; commit less at once")]
    TooMuch,
    /// Every number of a generation is used.
    #[error("it has used all generation numbers")]
    NoMoreGenerations,
    /// Nobody can tell here whether the writer of a file lives.
    #[error(
        "a file cannot be locked here while it is written, so nobody could tell whether its writer lives"
    )]
    NoWriterLocks,
    /// A generation is to be given up, and an earlier one is still pending.
    #[error("an earlier generation is still pending; recover, or give that one up first")]
    EarlierPending,
    /// A symlink is to be made on Windows.
    #[error("symlinks are not made on Windows, where they need a privilege")]
    NoSymlinks,
    /// The directory of the root was removed or replaced since it was opened.
    #[error("the root was removed since it was opened; open it again if it was made anew")]
    RootGone,
    /// A directory is to be moved or removed, and another root is in it.
    #[error("it is a root of its own, which may be open; remove its control directory first")]
    RootInTree,
    /// A directory that cannot be told from another one.
    #[error("directories cannot be told apart here, so none is moved or removed with its contents")]
    NoIdentity,
    /// A generation that was not committed yet.
    #[error("nothing was committed with this number yet")]
    NotCommitted,
    /// The history does not reach back to a generation: it was not kept, it was removed, or a store without
    /// [`keep`](crate::StoreOptions::keep) has committed since.
    #[error("the history does not reach back that far")]
    NoHistory,
    /// This store keeps nothing, and nothing is kept: it was opened without [`keep`](crate::StoreOptions::keep).
    #[error("nothing was kept of it; open the store with `keep` to have a history from then on")]
    KeepsNothing,
    /// There is no commit to undo, or none that was undone.
    #[error("there is nothing to undo or redo")]
    NothingToUndo,
    /// What was at a path was not kept. Symlinks are not, and neither are directories that were moved, removed
    /// or replaced as a whole. Or a file has to become a directory again, or a directory a file, which only single
    /// steps of [`Store::undo`](crate::Store::undo) do.
    #[error("what was there then was not kept")]
    NotKept,
    /// What was kept has changed since.
    #[error("what was kept of it has changed since, so it is not what it was")]
    KeptChanged,
    /// Another program has changed a path, so nobody knows what was there at that time.
    #[error("another program has changed it, so nobody knows what was there then")]
    ChangedOutside,
    /// A mode that no file can have.
    #[error("no file can have this mode: it has bits beyond 0o7777")]
    Mode,
    /// A mode with which no directory is made.
    #[error(
        "no directory is made with this mode: it must have all rights of the owner, and no bits beyond 0o777"
    )]
    DirectoryMode,
}
