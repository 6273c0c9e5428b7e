//! Rules of the protocol that are not syncs, each of which a crash test takes
//! away to see that it is missed.
//!
//! Without the feature `sim` every rule is kept by a constant, so nothing of
//! this is left in a program. With it, [`without`] breaks one rule for the
//! thread that calls it. Knows nothing of what the rules are about.

/// One rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// Write the manifest under a temporary name and publish it by rename. Broken: written in place.
    PublishByRename,
    /// Move files only after the commit point.
    ApplyAfterPublish,
    /// Check under the lock that every staged file is still the one written.
    CheckStaged,
    /// Check preconditions under the lock.
    CheckPreconditions,
    /// Rewrite the manifest when a target changed since it was written.
    CheckTargets,
    /// Finish earlier pending manifests before publishing.
    FinishEarlier,
    /// Refuse a manifest whose checksum does not match.
    VerifyManifest,
    /// Do not roll forward across a gap in the generations.
    StopAtGap,
    /// Look at every entry before moving the first.
    LookFirst,
    /// Set a target aside that is neither old nor new.
    SetAside,
    /// Remove only the very file that was to be removed.
    RemoveByIdentity,
    /// A checksum that does not match is a diagnosis: stop only when nobody touched the file.
    DiagnoseChecksum,
    /// Staged and target one inode: unlink the staged name.
    UnlinkAlias,
    /// Keep the previous applied manifest until the next one is durable.
    KeepApplied,
    /// Sweep only what dead sessions staged.
    SweepDeadOnly,
    /// Never sync again what failed: write it anew.
    WriteAnew,
    /// Attach the deferred wave before retiring what it covers.
    AttachDeferred,
}

/// Whether the protocol keeps this rule.
#[cfg(not(feature = "sim"))]
pub(crate) const fn keeps(_rule: Rule) -> bool {
    true
}

#[cfg(feature = "sim")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether the protocol keeps this rule on this thread.
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
