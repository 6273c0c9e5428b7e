//! Every name in the control directory, and the staged names beside the
//! targets: made and parsed here, and nowhere else.
//!
//! Pure text: nothing here looks at a disk. A name that differs from what this
//! module would make is not ours, and is never touched.

use std::ffi::OsStr;
use std::fmt;

use uuid::Uuid;

use crate::fs::CONTROL_DIRECTORY;
use crate::generation::{Generation, TransactionId, parse_number, parse_uuid};
use crate::path::{InvalidPath, NAME_BYTES_MAX, RelativePath};

const STAGED_SUFFIX: &str = ".cosave";

/// The control directory.
pub(crate) fn control() -> RelativePath {
    RelativePath::root().child(CONTROL_DIRECTORY)
}

/// Locked exclusively to publish, apply and recover; shared to read.
pub(crate) fn lock_file() -> RelativePath {
    control().child("lock")
}

/// Everybody locks this file before `lock`. Writers hold it until they have `lock`, so that an endless
/// series of readers cannot keep a writer waiting.
pub(crate) fn queue_file() -> RelativePath {
    control().child("queue")
}

/// Names the root of a control directory that lies outside of it.
pub(crate) fn owner() -> RelativePath {
    control().child("root")
}

/// The same file under its temporary name.
pub(crate) fn unnamed_owner() -> RelativePath {
    control().child("root.tmp")
}

/// Hides the control directory from version control. It is made last, so its presence also shows that
/// the control directory is durable.
pub(crate) fn ignore() -> RelativePath {
    control().child(".gitignore")
}

/// The directory of the sessions.
pub(crate) fn sessions() -> RelativePath {
    control().child("sessions")
}

/// A session's file, locked as long as the session lives.
pub(crate) fn session(id: Uuid) -> RelativePath {
    sessions().child(id.simple().to_string())
}

/// The session's record number `number` of the directories it stages in.
pub(crate) fn record(session: Uuid, number: u32) -> RelativePath {
    sessions().child(format!("{}.{number}", session.simple()))
}

/// A manifest before it is published.
pub(crate) fn unpublished(id: TransactionId) -> RelativePath {
    control().child(format!("{id}.tmp"))
}

/// A published manifest that may not be fully applied.
pub(crate) fn pending(generation: Generation) -> RelativePath {
    control().child(format!("{generation}.pending"))
}

/// A fully applied manifest.
pub(crate) fn applied(generation: Generation) -> RelativePath {
    control().child(format!("{generation}.applied"))
}

/// The `pending` manifest of a commit that did not wait: the files that it names may not be on disk.
pub(crate) fn pending_waived(generation: Generation) -> RelativePath {
    control().child(format!("{generation}.pending-waived"))
}

/// The `applied` manifest of a commit that did not wait: its files may not be on disk.
pub(crate) fn applied_waived(generation: Generation) -> RelativePath {
    control().child(format!("{generation}.applied-waived"))
}

/// A manifest whose generation was given up.
pub(crate) fn abandoned(generation: Generation) -> RelativePath {
    control().child(format!("{generation}.abandoned"))
}

/// A manifest beyond a gap, until its published name is gone for good.
pub(crate) fn discarded(generation: Generation) -> RelativePath {
    control().child(format!("{generation}.discarded"))
}

/// Marks a generation in which a step after the commit point failed. What is visible may not be on
/// disk, or may be incomplete.
pub(crate) fn sync_failed(generation: Generation) -> RelativePath {
    control().child(format!("{generation}.sync-failed"))
}

/// Marks that the target of this entry is being copied over, so that it may hold half of our own bytes.
pub(crate) fn copying(generation: Generation, entry: u64) -> RelativePath {
    control().child(format!("{generation}.copying-{entry}"))
}

/// Marks a transaction in doubt: its writer could not tell whether it is committed.
pub(crate) fn in_doubt(id: TransactionId) -> RelativePath {
    control().child(format!("{id}.in-doubt"))
}

/// The outcome of a transaction that was in doubt.
pub(crate) fn resolved(id: TransactionId, committed: Option<Generation>) -> RelativePath {
    match committed {
        Some(generation) => control().child(format!("{id}.committed-{generation}")),
        None => control().child(format!("{id}.not-committed")),
    }
}

/// What a name in the control directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlName {
    Pending(Generation),
    Applied(Generation),
    PendingWaived(Generation),
    AppliedWaived(Generation),
    Abandoned(Generation),
    Discarded(Generation),
    SyncFailed(Generation),
    Unpublished(TransactionId),
    Copying(Generation, u64),
    InDoubt(TransactionId),
    Resolved(TransactionId, Option<Generation>),
    Ignore,
    Sessions,
    Lock,
    Queue,
    Owner,
    Foreign,
}

/// Parses a name in the control directory.
pub(crate) fn parse_control(name: &OsStr) -> ControlName {
    parse_control_text(name).unwrap_or(ControlName::Foreign)
}

fn parse_control_text(name: &OsStr) -> Option<ControlName> {
    let name = name.to_str()?;
    match name {
        ".gitignore" => return Some(ControlName::Ignore),
        "sessions" => return Some(ControlName::Sessions),
        "lock" => return Some(ControlName::Lock),
        "queue" => return Some(ControlName::Queue),
        "root" => return Some(ControlName::Owner),
        _ => {}
    }
    let (stem, kind) = name.split_once('.')?;
    match kind {
        "pending" => Generation::parse(stem).map(ControlName::Pending),
        "applied" => Generation::parse(stem).map(ControlName::Applied),
        "pending-waived" => Generation::parse(stem).map(ControlName::PendingWaived),
        "applied-waived" => Generation::parse(stem).map(ControlName::AppliedWaived),
        "abandoned" => Generation::parse(stem).map(ControlName::Abandoned),
        "discarded" => Generation::parse(stem).map(ControlName::Discarded),
        "sync-failed" => Generation::parse(stem).map(ControlName::SyncFailed),
        "in-doubt" => TransactionId::parse(stem).map(ControlName::InDoubt),
        "not-committed" => TransactionId::parse(stem).map(|id| ControlName::Resolved(id, None)),
        "tmp" => TransactionId::parse(stem).map(ControlName::Unpublished),
        _ if kind.starts_with("copying-") => {
            let entry = parse_number(kind.strip_prefix("copying-")?)?;
            Generation::parse(stem).map(|generation| ControlName::Copying(generation, entry))
        }
        _ => {
            let generation = Generation::parse(kind.strip_prefix("committed-")?)?;
            TransactionId::parse(stem).map(|id| ControlName::Resolved(id, Some(generation)))
        }
    }
}

/// What a name in the sessions' directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionName {
    Mark(Uuid),
    Record(Uuid, u32),
    Foreign,
}

/// Parses a name in the sessions' directory.
pub(crate) fn parse_session(name: &OsStr) -> SessionName {
    let parse = || {
        let name = name.to_str()?;
        match name.split_once('.') {
            None => parse_uuid(name).map(SessionName::Mark),
            Some((id, number)) => {
                let number = u32::try_from(parse_number(number)?).ok()?;
                parse_uuid(id).map(|id| SessionName::Record(id, number))
            }
        }
    };
    parse().unwrap_or(SessionName::Foreign)
}

/// What makes a staged file's name unique: the transaction and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StagedId {
    pub(crate) transaction: TransactionId,
    pub(crate) number: u64,
}

impl fmt::Display for StagedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.transaction, self.number)
    }
}

/// The staged name for `target`: `.<target>.<transaction>-<number>.cosave`, in `directory`.
pub(crate) fn staged(directory: &RelativePath, target: &OsStr, id: StagedId) -> RelativePath {
    directory.child(temporary_name(target, &id.to_string()))
}

/// The temporary name of a single file outside a store: `.<target>.<uuid>.cosave`. No sweep touches it.
pub(crate) fn single(target: &RelativePath, id: Uuid) -> RelativePath {
    target.with_name(temporary_name(target.name(), &id.simple().to_string()))
}

/// The name of a file that recovery has set aside. It differs from every staged name.
pub(crate) fn set_aside(target: &RelativePath, generation: Generation, number: u32) -> RelativePath {
    let ending = match number {
        0 => format!(".set-aside-{generation}"),
        _ => format!(".set-aside-{generation}-{number}"),
    };
    let part = cut(&target.name().to_string_lossy(), NAME_BYTES_MAX - ending.len()).to_owned();
    target.with_name(part + &ending)
}

/// The target's part is cut if the whole name would be too long.
fn temporary_name(target: &OsStr, id: &str) -> String {
    let room = NAME_BYTES_MAX - STAGED_SUFFIX.len() - id.len() - 2;
    format!(".{}.{id}{STAGED_SUFFIX}", cut(&target.to_string_lossy(), room))
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Parses a staged name. `None` for every name that `staged` does not make.
pub(crate) fn parse_staged(name: &OsStr) -> Option<StagedId> {
    let stem = name.to_str()?.strip_prefix('.')?.strip_suffix(STAGED_SUFFIX)?;
    let (_, id) = stem.rsplit_once('.')?;
    let (transaction, number) = id.rsplit_once('-')?;
    Some(StagedId { transaction: TransactionId::parse(transaction)?, number: parse_number(number)? })
}

/// Whether only cosave makes such names, so that none of them is a valid target. Case is ignored, since
/// some file systems ignore it.
pub(crate) fn is_reserved(name: &OsStr) -> bool {
    let lower = name.to_string_lossy().to_ascii_lowercase();
    let single = || {
        let stem = lower.strip_prefix('.')?.strip_suffix(STAGED_SUFFIX)?;
        let (_, id) = stem.rsplit_once('.')?;
        parse_uuid(id)
    };
    parse_staged(OsStr::new(&lower)).is_some() || single().is_some()
}

/// Refuses paths that belong to cosave alone. `elsewhere` is the control directory's path in the root, if
/// that is not the default one.
pub(crate) fn refuse_reserved(
    path: &RelativePath,
    elsewhere: Option<&RelativePath>,
) -> Result<(), InvalidPath> {
    if is_control(path, elsewhere) {
        return Err(InvalidPath::Control);
    }
    if path.names().any(is_reserved) {
        return Err(InvalidPath::Staged);
    }
    Ok(())
}

/// Whether a path is the control directory or lies in it. Case is ignored, as above. The default place
/// is reserved even if the control directory lies `elsewhere`.
pub(crate) fn is_control(path: &RelativePath, elsewhere: Option<&RelativePath>) -> bool {
    path.names().next().is_some_and(|first| first.eq_ignore_ascii_case(CONTROL_DIRECTORY))
        || elsewhere.is_some_and(|control| lies_in(path, control))
}

fn lies_in(path: &RelativePath, directory: &RelativePath) -> bool {
    let fold = |name: &OsStr| name.to_string_lossy().to_lowercase();
    let mut names = path.names().map(fold);
    directory.names().map(fold).all(|name| names.next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> StagedId {
        let transaction = TransactionId { session: Uuid::from_u128(0xabc), number: 7 };
        StagedId { transaction, number: 12 }
    }

    fn target(name: &str) -> RelativePath {
        RelativePath::new(name).expect("valid")
    }

    #[test]
    fn a_staged_name_is_read_back_and_lies_beside_its_target() {
        let path = target("src/Cargo.toml");
        let staged = staged(&path.parent(), path.name(), id());
        assert_eq!(staged.parent(), path.parent());
        assert_eq!(parse_staged(staged.name()), Some(id()));
        assert!(is_reserved(staged.name()));
    }

    #[test]
    fn a_staged_name_fits_where_its_target_fits() {
        for name in ["n".repeat(255), "ü".repeat(127)] {
            let staged = staged(&RelativePath::root(), OsStr::new(&name), id());
            assert!(staged.name().len() <= 255);
            assert_eq!(parse_staged(staged.name()), Some(id()));
            assert!(set_aside(&target(&name), Generation::from(u64::MAX), 9).name().len() <= 255);
        }
    }

    #[test]
    fn names_that_only_resemble_ours_are_not_ours() {
        let uuid = "0123456789abcdef0123456789abcdef";
        for name in [
            "Cargo.toml".to_owned(),
            ".x.cosave".to_owned(),
            format!("x.{uuid}-1-2.cosave"),
            format!(".x.{uuid}-01-2.cosave"),
            format!(".x.{uuid}-1-+2.cosave"),
            format!(".x.{}-1-2.cosave", uuid.to_uppercase()),
            format!(".x.{uuid}-1-2.cosave.bak"),
            format!(".x.{uuid}.cosave"),
        ] {
            assert_eq!(parse_staged(OsStr::new(&name)), None, "{name}");
        }
        for name in [
            "0.pending",
            "01.pending",
            "+1.pending",
            "18446744073709551615.pending",
            "1.pending.bak",
            "x.tmp",
            "pending",
        ] {
            assert_eq!(parse_control(OsStr::new(name)), ControlName::Foreign, "{name}");
        }
    }

    #[test]
    fn every_control_name_is_read_back() {
        let generation = Generation::from(42);
        let transaction = id().transaction;
        for (path, meaning) in [
            (pending(generation), ControlName::Pending(generation)),
            (applied(generation), ControlName::Applied(generation)),
            (pending_waived(generation), ControlName::PendingWaived(generation)),
            (applied_waived(generation), ControlName::AppliedWaived(generation)),
            (abandoned(generation), ControlName::Abandoned(generation)),
            (discarded(generation), ControlName::Discarded(generation)),
            (sync_failed(generation), ControlName::SyncFailed(generation)),
            (unpublished(transaction), ControlName::Unpublished(transaction)),
            (copying(generation, 7), ControlName::Copying(generation, 7)),
            (in_doubt(transaction), ControlName::InDoubt(transaction)),
            (resolved(transaction, None), ControlName::Resolved(transaction, None)),
            (resolved(transaction, Some(generation)), ControlName::Resolved(transaction, Some(generation))),
            (ignore(), ControlName::Ignore),
            (sessions(), ControlName::Sessions),
            (lock_file(), ControlName::Lock),
            (queue_file(), ControlName::Queue),
            (owner(), ControlName::Owner),
        ] {
            assert_eq!(parse_control(path.name()), meaning);
        }
        let uuid = transaction.session;
        assert_eq!(parse_session(session(uuid).name()), SessionName::Mark(uuid));
        assert_eq!(parse_session(record(uuid, 3).name()), SessionName::Record(uuid, 3));
    }

    #[test]
    fn a_control_directory_elsewhere_in_the_root_is_reserved_in_any_case() {
        let path = |text| RelativePath::new(text).expect("valid");
        let control = path("var/Zust\u{e4}nde");
        for inside in
            ["var/Zust\u{e4}nde", "var/Zust\u{e4}nde/lock", "VAR/ZUST\u{c4}NDE/lock", ".Cosave/lock"]
        {
            assert!(is_control(&path(inside), Some(&control)), "{inside}");
        }
        for outside in ["var", "var/other", "Zust\u{e4}nde", "a/var/Zust\u{e4}nde"] {
            assert!(!is_control(&path(outside), Some(&control)), "{outside}");
        }
    }

    #[test]
    fn a_single_files_temporary_is_reserved_but_never_swept() {
        let single = single(&target("a"), Uuid::from_u128(5));
        assert!(is_reserved(single.name()));
        assert_eq!(parse_staged(single.name()), None);
    }
}
