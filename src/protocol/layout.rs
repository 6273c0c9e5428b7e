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

/// A session's file, locked as long as the session lives.
pub(crate) fn session(id: Uuid) -> RelativePath {
    SESSIONS.path().child(id.simple().to_string())
}

/// The session's record number `number` of the directories it stages in.
pub(crate) fn record(session: Uuid, number: u32) -> RelativePath {
    SESSIONS.path().child(format!("{}.{number}", session.simple()))
}

/// Locked exclusively to publish, apply and recover; shared to read.
pub(crate) const LOCK: ControlName = ControlName::Part("lock");
/// Everybody locks this file before `LOCK`. Writers hold it until they have `LOCK`, so that an endless
/// series of readers cannot keep a writer waiting.
pub(crate) const QUEUE: ControlName = ControlName::Part("queue");
/// Locked by the store that has the root to itself. Made by the first one that wants that.
pub(crate) const LEASE: ControlName = ControlName::Part("lease");
/// Who holds the lease, for an error message. A locked file cannot be read on Windows.
pub(crate) const LEASE_HOLDER: ControlName = ControlName::Part("lease-holder");
/// Locked by an update that has failed too often because of others, which then let it go first. It is made
/// when it is first needed.
pub(crate) const TURN: ControlName = ControlName::Part("turn");
/// The directory of the sessions.
pub(crate) const SESSIONS: ControlName = ControlName::Part("sessions");
/// Names the root of a control directory that lies outside of it.
pub(crate) const OWNER: ControlName = ControlName::Part("root");
/// The same file under its temporary name.
pub(crate) const UNNAMED_OWNER: ControlName = ControlName::Part("root.tmp");
/// Hides the control directory from version control. It is made last, so its presence also shows that
/// the control directory is durable.
pub(crate) const IGNORE: ControlName = ControlName::Part(".gitignore");

/// The directory of what commits have replaced or removed.
pub(crate) const HISTORY: ControlName = ControlName::Part("history");

const PARTS: [ControlName; 10] =
    [LOCK, QUEUE, LEASE, LEASE_HOLDER, TURN, SESSIONS, OWNER, UNNAMED_OWNER, IGNORE, HISTORY];

/// What a commit has replaced or removed. A transaction that was not committed leaves a directory that no
/// other one ever has.
pub(crate) fn history(generation: Generation, transaction: TransactionId) -> RelativePath {
    HISTORY.path().child(format!("{generation}.{transaction}"))
}

/// The list of it.
pub(crate) fn history_record(generation: Generation, transaction: TransactionId) -> RelativePath {
    history(generation, transaction).child("record")
}

/// What was kept for the entry with this number.
pub(crate) fn kept(generation: Generation, transaction: TransactionId, number: usize) -> RelativePath {
    history(generation, transaction).child(number.to_string())
}

/// Parses a name in the history's directory; `None` if it is not ours.
pub(crate) fn parse_history(name: &OsStr) -> Option<(Generation, TransactionId)> {
    let (generation, transaction) = name.to_str()?.split_once('.')?;
    Some((Generation::parse(generation)?, TransactionId::parse(transaction)?))
}

/// What a name in the control directory means. Each has one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ControlName {
    /// Made once, under this name.
    Part(&'static str),
    /// What is known of a generation; most often this is its manifest.
    Numbered(Generation, Fate),
    /// Marks that the target of this entry is being copied over, so that it may hold half of our own
    /// bytes.
    Copying(Generation, u64),
    /// Marks a generation whose files were moved since the machine was started, though not durably. The
    /// second part tells that time from others.
    InPlace(Generation, Uuid),
    /// A manifest before it is published.
    Unpublished(TransactionId),
    /// Marks a transaction in doubt: its writer could not tell whether it is committed.
    InDoubt(TransactionId),
    /// The outcome of a transaction that was in doubt.
    Resolved(TransactionId, Option<Generation>),
}

/// What a name in the control directory says of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// A published manifest that may not be fully applied.
    Pending,
    /// Like `Pending`, of a small save. It became durable in the wave of its commit point, so a power loss
    /// can tear it. Nothing but its name is sure to show that.
    PendingInline,
    /// Like `Pending`, of a commit that did not wait: the files that it names may not be on disk.
    PendingWaived,
    /// The applied manifest of a commit that did not wait: its files may not be on disk.
    AppliedWaived,
    /// A fully applied manifest.
    Applied,
    /// A manifest whose generation was given up.
    Abandoned,
    /// A manifest beyond a gap, until its published name is gone for good.
    Discarded,
    /// Marks a generation in which a step after the commit point failed. What is visible may not be on
    /// disk, or may be incomplete.
    SyncFailed,
}

const FATES: [(Fate, &str); 8] = [
    (Fate::Pending, "pending"),
    (Fate::PendingInline, "pending-inline"),
    (Fate::PendingWaived, "pending-waived"),
    (Fate::AppliedWaived, "applied-waived"),
    (Fate::Applied, "applied"),
    (Fate::Abandoned, "abandoned"),
    (Fate::Discarded, "discarded"),
    (Fate::SyncFailed, "sync-failed"),
];

impl Fate {
    /// The name that says this of `generation`.
    pub(crate) fn of(self, generation: Generation) -> ControlName {
        ControlName::Numbered(generation, self)
    }

    fn text(self) -> &'static str {
        FATES.iter().find(|(fate, _)| *fate == self).map_or("", |(_, text)| text)
    }
}

impl fmt::Display for ControlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(name) => f.write_str(name),
            Self::Numbered(generation, fate) => write!(f, "{generation}.{}", fate.text()),
            Self::Copying(generation, entry) => write!(f, "{generation}.copying-{entry}"),
            Self::InPlace(generation, boot) => write!(f, "{generation}.in-place-{}", boot.simple()),
            Self::Unpublished(id) => write!(f, "{id}.tmp"),
            Self::InDoubt(id) => write!(f, "{id}.in-doubt"),
            Self::Resolved(id, Some(generation)) => write!(f, "{id}.committed-{generation}"),
            Self::Resolved(id, None) => write!(f, "{id}.not-committed"),
        }
    }
}

impl ControlName {
    pub(crate) fn path(self) -> RelativePath {
        control().child(self.to_string())
    }

    /// Reads a name back; `None` if it is not ours.
    pub(crate) fn parse(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        if let Some(part) = PARTS.into_iter().find(|part| matches!(part, Self::Part(text) if *text == name)) {
            return Some(part);
        }
        let (stem, kind) = name.split_once('.')?;
        if let Some((fate, _)) = FATES.into_iter().find(|(_, text)| *text == kind) {
            return Generation::parse(stem).map(|generation| fate.of(generation));
        }
        if let Some(entry) = kind.strip_prefix("copying-") {
            return Some(Self::Copying(Generation::parse(stem)?, parse_number(entry)?));
        }
        if let Some(boot) = kind.strip_prefix("in-place-") {
            return Some(Self::InPlace(Generation::parse(stem)?, parse_uuid(boot)?));
        }
        let id = TransactionId::parse(stem)?;
        match kind {
            "tmp" => Some(Self::Unpublished(id)),
            "in-doubt" => Some(Self::InDoubt(id)),
            "not-committed" => Some(Self::Resolved(id, None)),
            _ => Some(Self::Resolved(id, Some(Generation::parse(kind.strip_prefix("committed-")?)?))),
        }
    }
}

/// What a name in the sessions' directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionName {
    Mark(Uuid),
    Record(Uuid, u32),
}

/// Parses a name in the sessions' directory; `None` if it is not ours.
pub(crate) fn parse_session(name: &OsStr) -> Option<SessionName> {
    let name = name.to_str()?;
    match name.split_once('.') {
        None => parse_uuid(name).map(SessionName::Mark),
        Some((id, number)) => {
            let number = u32::try_from(parse_number(number)?).ok()?;
            parse_uuid(id).map(|id| SessionName::Record(id, number))
        }
    }
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

/// The temporary name of a single file outside a store: `.<target>.<uuid>.cosave`. No store sweeps it.
pub(crate) fn single(target: &RelativePath, id: Uuid) -> RelativePath {
    target.with_name(temporary_name(target.name(), &id.simple().to_string()))
}

/// Whether this is a name that [`single`] makes.
pub(crate) fn is_single(name: &OsStr) -> bool {
    let id = || name.to_str()?.strip_prefix('.')?.strip_suffix(STAGED_SUFFIX)?.rsplit_once('.');
    id().is_some_and(|(target, id)| {
        let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        !target.is_empty() && id.len() == 32 && id.bytes().all(is_digit)
    })
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
            for number in [0, 9] {
                let aside = set_aside(&target(&name), Generation::from(u64::MAX), number);
                assert!((254..=255).contains(&aside.name().len()), "{aside}");
            }
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
            assert_eq!(ControlName::parse(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn every_control_name_is_read_back() {
        let generation = Generation::from(42);
        let transaction = id().transaction;
        let of_transaction = [
            ControlName::Copying(generation, 7),
            ControlName::InPlace(generation, transaction.session),
            ControlName::Unpublished(transaction),
            ControlName::InDoubt(transaction),
            ControlName::Resolved(transaction, None),
            ControlName::Resolved(transaction, Some(generation)),
        ];
        let of_generation = FATES.map(|(fate, _)| fate.of(generation));
        for name in PARTS.into_iter().chain(of_generation).chain(of_transaction) {
            assert_eq!(ControlName::parse(name.path().name()), Some(name));
        }
        let uuid = transaction.session;
        assert_eq!(parse_session(session(uuid).name()), Some(SessionName::Mark(uuid)));
        assert_eq!(parse_session(record(uuid, 3).name()), Some(SessionName::Record(uuid, 3)));
        assert_eq!(parse_history(history(generation, transaction).name()), Some((generation, transaction)));
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
    fn a_single_files_temporary_is_reserved_and_swept_by_no_store() {
        let single = single(&target("a"), Uuid::from_u128(5));
        assert!(is_reserved(single.name()) && is_single(single.name()));
        assert_eq!(parse_staged(single.name()), None);
        let id = "0123456789abcdef0123456789abcdef";
        let staged = staged(&RelativePath::root(), OsStr::new("a"), self::id());
        for other in [
            staged.name().to_string_lossy().into_owned(),
            format!("a.{id}.cosave"),
            format!(".{id}.cosave"),
            format!("..{id}.cosave"),
            format!(".a.{}.cosave", &id[1..]),
            format!(".a.{}.cosave", id.to_uppercase()),
            format!(".a.{id}.cosave.old"),
        ] {
            assert!(!is_single(OsStr::new(&other)), "{other}");
        }
    }
}
