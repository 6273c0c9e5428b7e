//! What cosave was doing when the system refused, in the words of a message.

/// What was being done when the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Opening the root.
    Open,
    /// Making the control directory.
    Create,
    /// Making a session's mark.
    Begin,
    /// Looking at a file or directory.
    Look,
    /// Reading a file.
    Read,
    /// Writing a staged file.
    Stage,
    /// Keeping the history.
    Keep,
    /// Appending to a file.
    Write,
    /// Waiting for the disk.
    Sync,
    /// Taking a lock.
    Lock,
    /// Publishing the manifest.
    Publish,
    /// Moving a staged file over its target.
    Move,
    /// Giving a file another name.
    Rename,
    /// Giving up a generation.
    Abandon,
    /// Moving a directory with everything in it.
    MoveDirectory,
    /// Removing a file.
    Remove,
    /// Marking a manifest as applied.
    Retire,
    /// Setting a file aside that another program changed.
    SetAside,
    /// Removing what a dead session left.
    Sweep,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Begin => "begin a session in",
            Self::Look => "look at",
            Self::Read => "read",
            Self::Stage => "stage",
            Self::Keep => "keep the history of",
            Self::Write => "write to",
            Self::Sync => "make durable",
            Self::Lock => "lock",
            Self::Publish => "publish",
            Self::Move => "move a staged file to",
            Self::Rename => "rename",
            Self::Abandon => "give up",
            Self::MoveDirectory => "move the directory",
            Self::Remove => "remove",
            Self::Retire => "retire",
            Self::SetAside => "set aside",
            Self::Sweep => "sweep",
        })
    }
}
