//! A file's checksum, without the crate that computes it.

use std::fmt;
use std::str::FromStr;

/// The BLAKE3 checksum of a file's bytes: 32 bytes, printed as 64 hexadecimal digits.
///
/// # Examples
///
/// ```
/// use cosave::Checksum;
///
/// let checksum = Checksum::of(b"abc");
/// assert_eq!(checksum.to_string().parse(), Ok(checksum));
/// assert_eq!(Checksum::from_bytes(*checksum.as_bytes()), checksum);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// The checksum of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// The checksum of all that a hasher has seen.
    pub(crate) fn of_all(seen: &blake3::Hasher) -> Self {
        Self(seen.finalize().into())
    }

    /// The checksum whose bytes are known.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

/// A text that is no checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a checksum of 64 hexadecimal digits")]
pub struct InvalidChecksum;

impl FromStr for Checksum {
    type Err = InvalidChecksum;

    /// Parses what `Display` prints.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(|hash| Self(hash.into())).map_err(|_| InvalidChecksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_read_as_it_is_printed_and_nothing_else_is() {
        let checksum = Checksum::of(b"abc");
        let text = checksum.to_string();
        assert_eq!(text, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_eq!(text.parse(), Ok(checksum));
        assert_eq!(format!("{checksum:?}"), format!("Checksum({text})"));
        for bad in ["", "abc", &text[1..], &format!("{text}0"), &text.replace('6', "g")] {
            assert_eq!(bad.parse::<Checksum>(), Err(InvalidChecksum), "{bad}");
        }
    }
}
