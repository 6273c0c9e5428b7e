//! What each error means, in one table.

use super::*;

const PLACE: &str = "/root/a";

fn system() -> Arc<io::Error> {
    Arc::new(io::ErrorKind::Other.into())
}

/// One error of each variant, and of each kind of conflict.
fn every_error() -> Vec<Error> {
    let path = || Place::from(Path::new(PLACE));
    let generation = Generation::from(7);
    let transaction = TransactionId { session: uuid::Uuid::nil(), number: 1 };
    let operation = Operation::Sync;
    let clashes = [
        Clash::Exists,
        Clash::Missing,
        Clash::Changed,
        Clash::Checksum,
        Clash::Generation { expected: generation, found: generation },
        Clash::StagedMissing,
        Clash::StagedChanged,
        Clash::StagedReplaced,
        Clash::DirectoryMissing,
        Clash::NoDirectory,
        Clash::NotEmpty,
        Clash::NotLocked,
        Clash::Symlink,
        Clash::NoSymlink,
    ];
    let mut errors: Vec<_> = clashes.map(|found| Error::Conflict { path: path(), found }).into();
    errors.extend([
        Error::InvalidPath { path: path(), reason: InvalidPath::Empty },
        Error::Locked { path: path(), waited: Duration::ZERO, holder: None },
        Error::Corrupt { path: path(), reason: "no manifest".to_owned() },
        Error::Unsupported { path: path(), reason: Reason::ReadOnly },
        Error::NotPreserved { path: path(), attribute: Attribute::Owner },
        Error::OtherRoot { path: path(), control: PLACE.into(), owner: PLACE.into() },
        Error::Unfinished { path: path() },
        Error::Poisoned { path: path() },
        Error::Io { operation, path: path(), source: system() },
        Error::Cancelled { path: path() },
        Error::Caller { source: system() },
        Error::Blocked { generation, operation, path: path(), source: system() },
        Error::NotApplied { generation, operation, path: path(), source: system() },
        Error::NotSynced { path: path(), source: system() },
        Error::NotAppended { path: path(), synced: 7, source: system() },
        Error::NotYetSynced { path: path(), begin: 7, source: system() },
        Error::InUse { path: path() },
        Error::InDoubt { generation, transaction, operation, path: path(), source: system() },
    ]);
    errors
}

/// What each variant means for the caller. A new one does not compile before it is answered here.
fn meaning(error: &Error) -> (Outcome, bool, bool) {
    use Outcome::{Committed, NothingHappened, Unknown};
    match error {
        Error::Conflict { found, .. } => {
            let may_pass = match found {
                Clash::Changed | Clash::StagedMissing => true,
                Clash::StagedChanged | Clash::StagedReplaced | Clash::DirectoryMissing => true,
                Clash::NoDirectory
                | Clash::NotEmpty
                | Clash::NotLocked
                | Clash::Symlink
                | Clash::NoSymlink => true,
                Clash::Checksum | Clash::Generation { .. } | Clash::Exists | Clash::Missing => false,
            };
            (NothingHappened, true, may_pass)
        }
        Error::Locked { .. } | Error::InUse { .. } => (NothingHappened, false, true),
        Error::InvalidPath { .. }
        | Error::Corrupt { .. }
        | Error::Unsupported { .. }
        | Error::NotPreserved { .. }
        | Error::OtherRoot { .. }
        | Error::Unfinished { .. }
        | Error::Poisoned { .. }
        | Error::Io { .. }
        | Error::Cancelled { .. }
        | Error::Caller { .. }
        | Error::Blocked { .. } => (NothingHappened, false, false),
        Error::NotApplied { .. } => (Committed, false, false),
        Error::NotSynced { .. }
        | Error::NotAppended { .. }
        | Error::NotYetSynced { .. }
        | Error::InDoubt { .. } => (Unknown, false, false),
    }
}

#[test]
fn each_error_says_what_happened_and_whether_the_same_work_may_succeed() {
    let mut variants = std::collections::HashSet::new();
    for error in every_error() {
        let told = (error.outcome(), error.is_conflict(), error.is_retryable());
        assert_eq!(told, meaning(&error), "{error:?}");
        variants.insert(std::mem::discriminant(&error));
    }
    assert_eq!(variants.len(), 19, "the table has every variant");
}

/// A caller that tries again must be sure that the work was not done.
#[test]
fn only_what_has_changed_nothing_is_worth_another_try() {
    for error in every_error().iter().filter(|error| error.is_retryable()) {
        assert_eq!(error.outcome(), Outcome::NothingHappened, "{error:?}");
    }
}

#[test]
fn each_error_about_a_path_names_it() {
    for error in every_error() {
        let is_of_caller = matches!(error, Error::Caller { .. });
        assert_eq!(error.place().map(Place::path), (!is_of_caller).then_some(Path::new(PLACE)));
        assert_eq!(error.to_string().contains("`/root/a`"), !is_of_caller, "{error}");
        let error = error.given_as(Path::new("link"));
        let names_both = error.to_string().contains("`/root/a` (given as `link`)");
        assert_eq!(error.place().is_some_and(|place| place.given().is_some()), names_both, "{error}");
    }
}

#[test]
fn the_error_of_a_writer_is_found_in_the_io_error_that_it_became() {
    let inner = Error::Unfinished { path: Path::new(PLACE).into() };
    let through = Error::of_writer(io::Error::from(inner));
    assert!(matches!(through, Error::Unfinished { .. }), "{through:?}");
    let own = Error::of_writer(io::Error::other("the program's own"));
    assert!(matches!(own, Error::Caller { .. }), "{own:?}");
}

/// A sync of a directory was interrupted (on FUSE). `write_all` tries again what was interrupted, and the file
/// refused each of these tries with the same error: for ever.
#[test]
fn an_error_that_stays_does_not_say_that_the_call_was_interrupted() {
    let source = Arc::new(io::Error::from(io::ErrorKind::Interrupted));
    let path = Place::from(Path::new(PLACE));
    let error = Error::NotAppended { path, synced: 7, source };
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Other);
}
