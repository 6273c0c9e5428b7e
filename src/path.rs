//! A path that cannot leave the root: checked once, at the door.
//!
//! The crate speaks of paths as [`RelativePath`], so no code checks a second time
//! that a path is relative, does not climb with `..`, and is not empty. The type
//! knows text only and never looks at a disk. Symlinks are left to the code that
//! resolves targets.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A path below the root, in its one normal form.
///
/// `a/b`, `./a//b` and `a/./b` are the same `RelativePath`. It never contains
/// `..`, a root, a drive prefix or a NUL byte.
///
/// # Examples
///
/// ```
/// use cosave::RelativePath;
///
/// let path = RelativePath::new("./src//lib.rs")?;
/// assert_eq!(path.as_path(), std::path::Path::new("src/lib.rs"));
/// assert!(RelativePath::new("../secret").is_err());
/// # Ok::<(), cosave::InvalidPath>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(PathBuf);

/// Why a path cannot be used. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPath {
    /// The path is empty, or names the root itself.
    #[error("the path is empty")]
    Empty,
    /// The path is absolute, and does not lie inside the root.
    /// [`Store::relative`](crate::Store::relative) turns one that does into a relative one.
    #[error("the path is absolute, and does not lie below a root that is known here (see `Store::relative`)")]
    Absolute,
    /// The path has a `..` component.
    #[error("the path climbs with `..`")]
    Parent,
    /// The path contains a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
    /// A component is longer than file systems allow (255 bytes), or the path is longer than the system
    /// can open.
    #[error("the path, or a name in it, is longer than the system allows")]
    TooLong,
    /// A component cannot be a file name on this system, such as `NUL` or
    /// `a<b` on Windows.
    #[error("a name in the path cannot be a file name on this system")]
    Forbidden,
    /// The path lies in the store's own control directory.
    #[error("the path lies in the store's own control directory")]
    Control,
    /// The name has the form of the store's staged files.
    #[error("the name has the form of a staged file, which only the store may use")]
    Staged,
    /// A directory is where the file would be.
    #[error("the target is a directory; `remove_dir_all` makes way for a file in the same transaction")]
    Directory,
    /// The target is neither a file nor a symlink to one (a socket, a device, a pipe).
    #[error("the target is not a regular file")]
    Special,
    /// A parent of the path is a file, or a symlink that leads nowhere. Or the path itself is, and a directory was
    /// asked for.
    #[error(
        "the path, or a parent of it, is not a directory; a file above it becomes one if the transaction removes it \
         first"
    )]
    NotADirectory,
    /// A symlink in the path leads outside the root.
    #[error("a symlink in the path leads outside the root")]
    Escapes,
    /// A file would be copied to itself, or moved to where it is.
    #[error("it is the file itself")]
    Itself,
    /// A name in the directory of the file is asked for, and this is no name, or leads elsewhere.
    #[error("it must be a plain name in the same directory")]
    NoName,
    /// A symlink is where a file should be.
    #[error("it is a symlink")]
    Symlink,
    /// A directory would be moved into itself, or take the place of one that it lies in.
    #[error("one of the two directories lies in the other")]
    BelowItself,
    /// Two changes of one transaction cannot both be: something below a file or a symlink that it makes, or
    /// in a directory that it moves or removes as a whole.
    #[error(
        "the transaction makes this path, or one above or below it, a file or a symlink, or moves or removes it \
         as a whole; commit one of the two changes first"
    )]
    Contradiction,
    /// A directory would be moved into another one that takes the place of a file or a symlink in the same
    /// transaction. That one comes as a whole, with what the transaction has staged in it.
    #[error("no directory can be moved into one that takes the place of a removed file in the same commit")]
    FileToDirectory,
    /// Two paths of one transaction are the same file or directory, or one lies in a directory that the
    /// transaction moves or removes under another name.
    #[error("two paths of the transaction lead to the same file or directory")]
    Alias,
}

/// The longest name that every common file system takes, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// The longest path that Linux opens in one call (`PATH_MAX`), minus room for the root.
const PATH_BYTES_MAX: usize = 4096 - 256;

impl RelativePath {
    /// Checks `path` and brings it into its normal form.
    ///
    /// # Errors
    /// [`InvalidPath`] when the path is empty, absolute, climbs with `..`,
    /// contains a NUL byte, or has a name that no file can have.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, InvalidPath> {
        let path = path.as_ref();
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(InvalidPath::Nul);
        }
        let mut normal = OsString::new();
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => return Err(InvalidPath::Parent),
                Component::RootDir | Component::Prefix(_) => return Err(InvalidPath::Absolute),
                Component::Normal(name) => {
                    check_name(name)?;
                    if !normal.is_empty() {
                        normal.push("/");
                    }
                    normal.push(name);
                }
            }
        }
        if normal.is_empty() {
            return Err(InvalidPath::Empty);
        }
        if normal.as_encoded_bytes().len() > PATH_BYTES_MAX {
            return Err(InvalidPath::TooLong);
        }
        Ok(Self(normal.into()))
    }

    /// The root itself: a directory, never a target.
    #[must_use]
    pub fn root() -> Self {
        Self(PathBuf::new())
    }

    /// Whether this is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.as_os_str().is_empty()
    }

    /// The path as the standard library's type; empty for the root.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The directory that holds this path; the root for a top-level name and for the root itself.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(self.0.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// The last name in the path; empty for the root.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        self.0.file_name().unwrap_or_default()
    }

    /// The path of `name` in this directory.
    ///
    /// # Errors
    /// [`InvalidPath`] when `name` is not one plain name.
    pub fn join(&self, name: impl AsRef<OsStr>) -> Result<Self, InvalidPath> {
        let name = name.as_ref();
        let plain = Self::new(name)?;
        if plain.0.as_os_str() != name || !plain.parent().is_root() {
            return Err(InvalidPath::Forbidden);
        }
        Self::new(self.child(name))
    }

    /// Another name in the same directory. The caller knows that it is one plain name.
    pub(crate) fn with_name(&self, name: impl AsRef<OsStr>) -> Self {
        self.parent().child(name)
    }

    /// Like `join`, for names that this crate made or that were read from a directory.
    pub(crate) fn child(&self, name: impl AsRef<OsStr>) -> Self {
        let mut text = self.0.clone().into_os_string();
        if !text.is_empty() {
            text.push("/");
        }
        text.push(name.as_ref());
        Self(text.into())
    }

    /// The same path in a directory that was moved.
    pub(crate) fn moved(&self, from: &Self, to: &Self) -> Self {
        match self.0.strip_prefix(&from.0) {
            Ok(rest) if !rest.as_os_str().is_empty() => to.child(rest),
            Ok(_) => to.clone(),
            Err(_) => self.clone(),
        }
    }

    /// The directories from just below the root down to this path, including the path itself.
    pub(crate) fn chain(&self) -> Vec<Self> {
        let mut chain = Vec::new();
        let mut current = Self::root();
        for name in self.0.iter() {
            current = current.child(name);
            chain.push(current.clone());
        }
        chain
    }

    /// The names, from the top down.
    pub fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.iter()
    }
}

fn check_name(name: &OsStr) -> Result<(), InvalidPath> {
    if name.as_encoded_bytes().len() > NAME_BYTES_MAX {
        return Err(InvalidPath::TooLong);
    }
    if cfg!(windows) && !is_windows_name(name) {
        return Err(InvalidPath::Forbidden);
    }
    Ok(())
}

/// Whether Windows allows a file of this name. Forbidden are device names, reserved characters, and a
/// dot or space at the end, which Windows drops silently. Source: "Naming Files, Paths, and
/// Namespaces", Microsoft Learn.
fn is_windows_name(name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    let stem = text.split('.').next().unwrap_or_default().trim_end();
    let device =
        ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].iter().any(|d| stem.eq_ignore_ascii_case(d));
    let port = stem.is_char_boundary(3)
        && ["COM", "LPT"].iter().any(|d| stem[..stem.len().min(3)].eq_ignore_ascii_case(d))
        && matches!(stem[3..].chars().collect::<Vec<_>>()[..], ['1'..='9' | '¹' | '²' | '³']);
    let reserved = |c: char| matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '/' | '\\') || c < ' ';
    !(device || port || text.chars().any(reserved) || text.ends_with(['.', ' ']))
}

impl AsRef<Path> for RelativePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl serde::Serialize for RelativePath {
    /// As text, with `/` between the names. What is not Unicode is replaced, as by `Display`.
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        self.0.display().fmt(f)
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_path_are_equal() {
        for spelling in ["a/b", "./a//b", "a/./b", "a/b/"] {
            assert_eq!(RelativePath::new(spelling), RelativePath::new("a/b"), "{spelling}");
        }
    }

    #[test]
    fn what_could_leave_the_root_is_refused() {
        let cases = [
            ("", InvalidPath::Empty),
            (".", InvalidPath::Empty),
            ("/etc/passwd", InvalidPath::Absolute),
            ("..", InvalidPath::Parent),
            ("a/../b", InvalidPath::Parent),
            ("a\0b", InvalidPath::Nul),
        ];
        for (path, reason) in cases {
            assert_eq!(RelativePath::new(path), Err(reason), "{path:?}");
        }
    }

    #[test]
    fn only_one_plain_name_is_joined() {
        let directory = RelativePath::new("d").expect("valid");
        assert_eq!(directory.join("a"), RelativePath::new("d/a"));
        assert_eq!(RelativePath::root().join("a"), RelativePath::new("a"));
        for name in ["", ".", "..", "a/b", "a/", "./a", "/a", "a\0"] {
            assert!(directory.join(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_of_255_bytes_is_the_longest() {
        assert!(RelativePath::new("n".repeat(255)).is_ok());
        assert_eq!(RelativePath::new("n".repeat(256)), Err(InvalidPath::TooLong));
    }

    #[test]
    fn windows_names_are_told_apart() {
        for bad in ["NUL", "con.txt", "COM1", "lpt9.log", "a<b", "dot.", "space ", "a\\b"] {
            assert!(!is_windows_name(OsStr::new(bad)), "{bad}");
        }
        for good in ["a", "console", "COM", "COM10", ".gitignore", "a.b"] {
            assert!(is_windows_name(OsStr::new(good)), "{good}");
        }
    }

    #[test]
    fn the_chain_runs_from_the_top_down() {
        let path = RelativePath::new("a/b/c").expect("valid");
        let chain: Vec<_> = path.chain().iter().map(ToString::to_string).collect();
        assert_eq!(chain, ["a", "a/b", "a/b/c"]);
        assert_eq!(path.parent().to_string(), "a/b");
    }
}
