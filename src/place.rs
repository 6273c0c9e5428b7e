//! The path of an error: where it lies, and how the caller gave it.
//!
//! Text only. It never looks at a disk.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The path of an error. It can be used like a [`Path`]: the full one, below the root, with symlinks
/// followed.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # std::fs::create_dir_all(dir.path().join("releases/7"))?;
/// # #[cfg(unix)]
/// # {
/// use cosave::{Error, Store};
///
/// std::os::unix::fs::symlink("releases/7", dir.path().join("current"))?;
/// let error = Store::open(dir.path())?.begin()?.read("current/list").unwrap_err();
/// let Error::Io { path, .. } = &error else { panic!("{error}") };
/// assert!(path.ends_with("releases/7/list"));
/// assert_eq!(path.given(), Some("current/list".as_ref()));
/// assert!(error.to_string().contains("releases/7/list` (given as `current/list`)"));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    given: Option<Box<Path>>,
}

impl Place {
    /// The full path. If the path cannot lie in the root at all, it is as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as the caller gave it, if the full path does not simply end with it.
    #[must_use]
    pub fn given(&self) -> Option<&Path> {
        self.given.as_deref()
    }

    /// The same place, given by this path.
    pub(crate) fn given_as(mut self, given: &Path) -> Self {
        if self.given.is_none() && is_another(given, &self.path) {
            self.given = Some(given.into());
        }
        self
    }

    /// For a message.
    pub(crate) fn quoted(&self) -> impl fmt::Display + '_ {
        Quoted(self)
    }
}

/// Whether a full path shows more than where the given one begins.
fn is_another(given: &Path, path: &Path) -> bool {
    let (given, path) = (given.as_os_str().as_encoded_bytes(), path.as_os_str().as_encoded_bytes());
    let is_whole = |above: &[u8]| above.last().is_none_or(|last| std::path::is_separator(char::from(*last)));
    !path.strip_suffix(given).is_some_and(is_whole)
}

struct Quoted<'a>(&'a Place);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0.path.display())?;
        match &self.0.given {
            Some(given) => write!(f, " (given as `{}`)", given.display()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)?;
        match &self.given {
            Some(given) => write!(f, " (given as {given:?})"),
            None => Ok(()),
        }
    }
}

impl Deref for Place {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        Self { path, given: None }
    }
}

impl From<&PathBuf> for Place {
    fn from(path: &PathBuf) -> Self {
        path.clone().into()
    }
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        path.to_path_buf().into()
    }
}

impl PartialEq<Path> for Place {
    fn eq(&self, other: &Path) -> bool {
        self.path == other
    }
}

impl PartialEq<PathBuf> for Place {
    fn eq(&self, other: &PathBuf) -> bool {
        self.path == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_twice_only_if_that_tells_more() {
        let shown =
            |given: &str| Place::from(Path::new("/r/d/a")).given_as(Path::new(given)).quoted().to_string();
        for same in ["a", "d/a", "/r/d/a"] {
            assert_eq!(shown(same), "`/r/d/a`", "{same}");
        }
        for other in ["./d/a", "d//a", "link", "/link/d/a", "r/d/b"] {
            assert_eq!(shown(other), format!("`/r/d/a` (given as `{other}`)"));
        }
    }
}
