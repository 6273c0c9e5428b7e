//! What a file has besides its bytes, and how strictly the file that replaces it must have the same:
//! plain data.

use std::fmt;

use serde::Serialize;

use crate::path::RelativePath;

/// How strictly the owner, the group and the extended attributes of a replaced file are kept.
///
/// It is about what a write to the file in place would keep, and what the system may refuse to give a
/// new file. Capabilities of a program (`security.capability`) and signatures of its bytes are not part of
/// that. The mode and the access control list are always kept: a commit that cannot keep them is refused,
/// since others could gain rights. On other systems than Linux extended attributes are not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preserve {
    /// What can be kept is kept, and [`Commit::not_preserved`](crate::Commit::not_preserved) says what could
    /// not. A file that cannot have the old owner loses the set-user-ID bit. If it cannot have the old
    /// group, its own group gets only the rights that all others have.
    #[default]
    Possible,
    /// A commit that cannot keep all of it is refused with
    /// [`Error::NotPreserved`](crate::Error::NotPreserved), or already the write is.
    Strict,
}

/// Something that a file has besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Attribute {
    /// The user that it belongs to.
    Owner,
    /// The group that it belongs to.
    Group,
    /// The extended attribute with this name, such as `user.note`.
    Extended(String),
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner => f.write_str("the owner"),
            Self::Group => f.write_str("the group"),
            Self::Extended(name) => write!(f, "the extended attribute `{name}`"),
        }
    }
}

/// Something that a file had before a commit, and has no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NotPreserved {
    /// The file.
    pub path: RelativePath,
    /// What it had.
    pub attribute: Attribute,
}

impl fmt::Display for NotPreserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has lost {}", self.path, self.attribute)
    }
}
