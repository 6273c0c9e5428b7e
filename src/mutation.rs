//! Rules of the protocol that are not syncs. A crash test breaks each of them
//! to see that the tests notice.
//!
//! Without the feature `sim` a constant says that every rule is followed, so
//! none of this is compiled into a program. With it, [`without`] breaks one
//! rule for the thread that calls it. Knows nothing of what the rules are
//! about.

/// One rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// Write the manifest under a temporary name and publish it by a rename. Broken: it is written in
    /// place.
    PublishByRename,
    /// Move files only after the commit point.
    ApplyAfterPublish,
    /// No other user can read an unfinished staged file.
    HideStaged,
    /// Check under the lock that a staged file has the current permissions of its target.
    CheckPermissions,
    /// Remove a record of directories only after their removal is durable.
    RemoveThenForget,
    /// Make the directories above a staged file durable, even if another transaction has made them.
    SyncOthersDirectories,
    /// Sync the name of a directory again if it is not the one whose name was synced.
    RecogniseDirectories,
    /// Check under the lock that every staged file is still the one that was written.
    CheckStaged,
    /// Check preconditions under the lock.
    CheckPreconditions,
    /// Check under the lock that directories can still be made and removed.
    CheckDirectories,
    /// Check under the lock what the caller expects.
    CheckExpected,
    /// Check under the lock that no target or its directory is append-only or immutable.
    CheckFlags,
    /// Let an update go first that has failed too often because of others.
    TakeTurns,
    /// Recognise what was read by its content if stamps prove nothing.
    CompareContent,
    /// Read earlier reads again if others have committed meanwhile.
    OneSnapshot,
    /// Record the checksum of a replaced or removed file if its stamp proves nothing.
    ChecksumBefore,
    /// Take a symlink for the original only if it leads where that one led.
    CompareLinks,
    /// Follow symlinks in a view as its state has them, and not as the disk has them.
    FollowInState,
    /// Count the symlinks that a path leads through as read.
    RememberLinks,
    /// Leave a path alone if a later generation has put its file there.
    LeaveToLater,
    /// Rewrite the manifest when a target has changed since the manifest was written.
    CheckTargets,
    /// Finish earlier pending manifests before publishing.
    FinishEarlier,
    /// Refuse a manifest whose checksum does not match.
    VerifyManifest,
    /// Do not roll forward across a gap in the generations.
    StopAtGap,
    /// Discard the newest manifest if a power loss has torn it.
    DiscardTorn,
    /// Restore lost staged files from the manifest of a small save.
    RestoreStaged,
    /// Keep what another program has written to a staged file that is restored.
    KeepEdited,
    /// Restore no staged file that was changed after it was staged.
    LeaveWritten,
    /// Make the files of a small save durable before its manifest is retired by recovery.
    InheritStaged,
    /// Put no bytes into a manifest that more people can read than the file.
    KeepSecrets,
    /// Ask again under the lock who may read the manifest, and whether it may have bytes.
    AskAgain,
    /// Look at every entry before moving the first.
    LookFirst,
    /// Set a target aside when it is neither the old file nor the new one.
    SetAside,
    /// Remove a file only if it is the very file that was to be removed.
    RemoveByIdentity,
    /// A checksum that does not match stops recovery only if nobody has touched the file.
    DiagnoseChecksum,
    /// When staged file and target are one inode, unlink the staged name.
    UnlinkAlias,
    /// Keep the last applied manifest until the next one is durable.
    KeepApplied,
    /// Publish one after the other two names that may be one file.
    TellPlacesApart,
    /// Check a transaction that has listed a directory after the others of its batch that change it.
    CheckNamesAfter,
    /// Wait for all that is in a directory that takes the place of a file, whatever the durability.
    SyncBuilt,
    /// Check under the lock that all that is in such a directory is still what was staged.
    CheckBuilt,
    /// Put such a directory in the place of any file that is there by then, and keep that of another program.
    ReplaceAnyFile,
    /// Look again at what a rename has moved away, since it will be deleted.
    CheckMoved,
    /// Move or remove a directory with its contents only if it is the very one that was meant.
    KnowTrees,
    /// Commit a move or removal of a whole directory apart from all others.
    TreesApart,
    /// Delete what was in a directory only after its removal is durable.
    HideFirst,
    /// Append nothing to a file after one of its syncs has failed.
    RefuseToAppend,
    /// Cut a file whose sync has failed back to what is durable.
    CutUnsynced,
    /// Sync what was found in a file before anything is appended to it.
    SyncFound,
    /// Sync a file before another takes its place.
    SyncRotated,
    /// Rotate a file over no other one that has either of its names.
    RotateToFree,
    /// Rotate a file only if it still has its name.
    RotateOwn,
    /// Make a directory that is to have a mode so that nobody can use it before it has that.
    CloseFirst,
    /// Make the mode of a new directory durable before the commit that made it is retired.
    SyncDirectoryModes,
    /// Recovery gives a new directory the mode that its maker could not give it any more.
    FinishDirectories,
    /// Make no directory with a mode where others have made one.
    CheckNewDirectories,
    /// Sweep what is left of removed directories.
    SweepTrees,
    /// Recovery makes earlier moves durable before it moves a tree that they may lie in.
    SettleBeforeTrees,
    /// Commit nothing while another store has the root to itself.
    HonourLease,
    /// Take the root for one store only after the commits that are under way.
    AwaitCommits,
    /// Let no other thread of a store commit while one has the root locked.
    PassGate,
    /// Sweep no temporary file of a single file whose writer lives.
    SpareWriters,
    /// Publish nothing whose caller has given up.
    AskCaller,
    /// Treat a file whose directory is gone as missing, not as finished.
    MissDirectories,
    /// Treat a file whose file system is not mounted as missing, not as finished or lost.
    KnowMounts,
    /// Make the removal of a directory durable before a commit whose file was in it is retired.
    SyncRemovedDirectories,
    /// Do not believe a mark that files are in place if the machine was started since.
    DistrustOldMarks,
    /// Take a superseded manifest that cannot be decoded for a removed one.
    DistrustRemoved,
    /// Make waived commits durable before a stronger commit builds on them.
    PayWaived,
    /// Remove no superseded manifest without having waited.
    KeepWaived,
    /// Publish the manifest of a waived commit under a name that says so.
    MarkWaived,
    /// Sweep only what dead sessions have staged.
    SweepDeadOnly,
    /// Sweep only what sessions of this control directory staged.
    SweepKnownOnly,
    /// Leave everything to the parent in a child after a fork.
    LeaveToParent,
    /// Look up every directory anew in each transaction.
    LookAgain,
    /// Remove staged files from the directory in which they were made, wherever that is now.
    RemoveWhereMade,
    /// Replace a session whose mark was removed.
    RenewSession,
    /// Go on counting generations after the control directory was removed.
    CountOn,
    /// Use a control directory for one root only.
    OneRoot,
    /// Wait for those who read without a control directory before making one.
    WaitForRootReaders,
    /// Never sync again what a failed sync covered: write it anew.
    WriteAnew,
    /// Acknowledge a commit only when barrier 3 was waited for, though its wave is that of the next batch.
    AnswerPaid,
    /// Make what a commit keeps durable before it moves its first file.
    KeepBeforeMoves,
    /// Keep in recovery what a power loss took from the history, before a file is moved.
    KeepInRecovery,
    /// Keep in recovery also what a power loss took although the list of it is whole.
    KeepMissing,
    /// Keep nothing in recovery for a store that had kept nothing.
    EndHistory,
    /// Remove nothing that is kept of originals that are gone, though a sync of it may have failed.
    LeaveKept,
    /// Take a file that a commit has kept by a link for its original, whatever is in it.
    KnowKept,
    /// Make what a killed process has kept durable before a file is moved.
    InheritHistory,
    /// Serve no kept file whose bytes are not the original's.
    VerifyKept,
    /// Keep what fewer people may read as a copy of the maker's own.
    HideKept,
    /// Remove what falls out of the history.
    ForgetOld,
    /// Refuse a long file that does not fit before anything of it is staged.
    LookForRoom,
    /// Leave deferred commits to recovery if their wave failed or could not begin.
    LeaveUnpaid,
    /// Attach the deferred wave before retiring the manifest that it belongs to.
    AttachDeferred,
}

/// Whether the protocol follows this rule.
#[cfg(not(feature = "sim"))]
pub(crate) const fn keeps(_rule: Rule) -> bool {
    true
}

#[cfg(feature = "sim")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether the protocol follows this rule on this thread.
#[cfg(feature = "sim")]
pub(crate) fn keeps(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// Runs `work` with one rule broken, on this thread.
#[cfg(feature = "sim")]
pub fn without<T>(rule: Option<Rule>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Rule>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BROKEN.set(self.0);
        }
    }
    let _restore = Restore(BROKEN.replace(rule));
    work()
}
