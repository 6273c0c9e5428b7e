//! A new directory as JSON.

use super::name::content;
use super::{ManifestError, NewDirectory};

/// What is written of a directory, if that is anything.
pub(super) fn text(new: NewDirectory) -> Option<NewDirectory> {
    new.mode.map(|_| new)
}

pub(super) fn decode(text: Option<NewDirectory>) -> Result<NewDirectory, ManifestError> {
    match text {
        None => Ok(NewDirectory::default()),
        Some(new) if new.mode.is_some_and(NewDirectory::can_have) => Ok(new),
        Some(_) => Err(content("no directory is made with this mode")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::TransactionId;
    use crate::manifest::{Action, Entry, Manifest, TimeStamp};
    use crate::path::RelativePath;
    use std::time::SystemTime;
    use uuid::Uuid;

    fn made(mode: Option<u32>, group: Option<u32>) -> Manifest {
        let path = RelativePath::new("d").expect("valid");
        let action = Action::CreateDirectory(NewDirectory { mode, group });
        Manifest {
            transaction: TransactionId { session: Uuid::from_u128(1), number: 2 },
            time: TimeStamp::from(SystemTime::UNIX_EPOCH),
            mounts: std::collections::BTreeSet::new(),
            entries: vec![Entry { path, before: None, action, over: None }],
            inline: None,
        }
    }

    #[test]
    fn a_mode_says_who_may_enter_a_directory_and_nothing_else() {
        for (mode, group) in [(0o700, None), (0o755, Some(7)), (0o777, None)] {
            let written = made(Some(mode), group);
            assert!(written.encode().starts_with(b"cosave-manifest 4 "));
            assert_eq!(Manifest::decode(&written.encode()), Ok(written));
        }
        assert!(made(None, None).encode().starts_with(b"cosave-manifest 3 "));
        for mode in [0o4700, 0o2755, 0o1777, 0o10700, u32::MAX, 0o500, 0o077, 0] {
            let error = Manifest::decode(&made(Some(mode), None).encode()).expect_err("a forged mode");
            assert!(matches!(error, ManifestError::Content(_)), "{mode:o}: {error}");
        }
    }

    #[test]
    fn nothing_but_a_new_directory_has_its_fields() {
        let text = String::from_utf8(made(Some(0o700), None).encode()).expect("text");
        let body = text.split_once('\n').expect("two parts").1;
        for (from, to) in [
            ("create-directory", "remove-directory"),
            ("create-directory", "remove"),
            ("{\"mode\":448}", "{\"group\":7}"),
            ("{\"mode\":448}", "{}"),
            ("{\"mode\":448}", "{\"mode\":448,\"owner\":0}"),
        ] {
            assert!(body.contains(from), "{body}");
            let body = body.replacen(from, to, 1);
            let forged = format!("cosave-manifest 4 {}\n{body}", blake3::hash(body.as_bytes()).to_hex());
            let decoded = Manifest::decode(forged.as_bytes());
            assert!(matches!(decoded, Err(ManifestError::Content(_))), "{from} -> {to}");
        }
    }
}
