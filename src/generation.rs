//! The number of a commit and the id of a transaction: plain data that is
//! printed and parsed in exactly one form. Knows nothing of files.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

const UUID_DIGITS: usize = 32;

/// The number of a commit. The first is 1, and it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// The plain number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Parses a number that is written exactly as it would be printed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = parse_number(text)?;
        // The largest number is never used, so every generation has a next one and counting ends.
        (number > 0 && number < u64::MAX).then_some(Self(number))
    }
}

impl From<u64> for Generation {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl PartialEq<u64> for Generation {
    fn eq(&self, other: &u64) -> bool {
        self.0 == *other
    }
}

impl PartialOrd<u64> for Generation {
    fn partial_cmp(&self, other: &u64) -> Option<std::cmp::Ordering> {
        self.0.partial_cmp(other)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a transaction, never used twice: its session, and a number within that session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId {
    pub(crate) session: Uuid,
    pub(crate) number: u64,
}

impl TransactionId {
    /// Parses `<session>-<number>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (session, number) = text.split_once('-')?;
        Some(Self { session: parse_uuid(session)?, number: parse_number(number)? })
    }
}

impl std::str::FromStr for TransactionId {
    type Err = InvalidTransactionId;

    /// Parses what `Display` prints.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or(InvalidTransactionId)
    }
}

/// A text that is not the id of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a transaction")]
pub struct InvalidTransactionId;

impl Serialize for TransactionId {
    /// As `Display` prints it.
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.session.simple(), self.number)
    }
}

/// Parses a number that is written exactly as it would be printed: no sign, no leading zero.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Parses a UUID of 32 lower-case hexadecimal digits.
pub(crate) fn parse_uuid(text: &str) -> Option<Uuid> {
    let plain = text.len() == UUID_DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| Uuid::try_parse(text).ok()).flatten()
}
