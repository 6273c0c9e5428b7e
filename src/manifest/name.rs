//! A path or a name in the JSON that is kept on disk, whatever its bytes are.

use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use super::ManifestError;
use crate::path::RelativePath;

/// A path or name: as text if it is text, otherwise its bytes in hexadecimal (Unix).
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Name {
    Text(String),
    Bytes { bytes: String },
}

impl Name {
    pub(crate) fn new(name: &OsStr) -> Self {
        match name.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes { bytes: to_hex(name.as_encoded_bytes()) },
        }
    }

    /// A path below the root.
    pub(super) fn path(self) -> Result<RelativePath, ManifestError> {
        let name = self.decode()?;
        RelativePath::new(&name).map_err(|reason| content(format!("the path {name:?}: {reason}")))
    }

    pub(crate) fn decode(self) -> Result<OsString, ManifestError> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Bytes { bytes } => from_hex(&bytes)
                .and_then(os_string)
                .ok_or_else(|| content(format!("not a file name on this system: {bytes}"))),
        }
    }
}

/// A list of paths as a field of a JSON object, with the comma after it; nothing if there are none.
pub(super) fn field<'a>(name: &str, paths: impl IntoIterator<Item = &'a RelativePath>) -> String {
    let names: Vec<_> = paths.into_iter().map(|path| Name::new(path.as_path().as_os_str())).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("\"{name}\":{},", serde_json::to_string(&names).unwrap_or_default()),
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if digits.len() % 2 != 0 {
        return None;
    }
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(unix)]
fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    Some(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

/// Here names are always text. A name that is not text comes from another system, and is refused rather
/// than guessed.
#[cfg(not(unix))]
fn os_string(_bytes: Vec<u8>) -> Option<OsString> {
    None
}

/// What a checksum does not show: content that cosave never writes.
pub(super) fn content(what: impl Into<String>) -> ManifestError {
    ManifestError::Content(what.into())
}

/// A staged name must be one plain name: with a `/` in it, it could lead anywhere.
pub(super) fn plain_name(name: OsString) -> Result<OsString, ManifestError> {
    match RelativePath::new(&name) {
        Ok(path) if path.as_path().as_os_str() == name && path.parent().is_root() => Ok(name),
        _ => Err(content(format!("{name:?} is not one plain name"))),
    }
}
