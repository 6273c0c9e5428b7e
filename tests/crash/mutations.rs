//! Every sync and every rule is removed from the protocol in turn, and the
//! exploration must notice.
//!
//! If nothing notices that a step is missing, the step is not needed or not
//! tested. On some models a step is superfluous: on ext4 and XFS any sync makes
//! all earlier names of its file system durable. There no scenario may notice
//! its absence, which keeps the models honest. Rules that no crash alone can
//! test are in `rules`.

use cosave::fs::Barrier;
use cosave::fs::sim::explore::{Explorer, Workload};
use cosave::fs::sim::{Model, Mutation, Part, Rule};

use crate::append::Journal;
use crate::exploration::OUTCOMES_MAX;
use crate::forgotten::Forgetting;
use crate::script::{Script, scenarios};
use crate::single_file::SingleFile;

use Model::{JumpingPrefix, OrderedPrefix, WeakPosix};

const MODELS: [Model; 3] = [OrderedPrefix, JumpingPrefix, WeakPosix];

/// The first model, in the order of `MODELS`, in which the absence is noticed. Each model allows more
/// than the one before; in earlier ones the absence must not be noticed.
const EVERYWHERE: usize = 0;
const FROM_JUMPING: usize = 1;
const FROM_WEAK: usize = 2;

const fn all_of(barrier: Barrier) -> Mutation {
    Mutation::Skip(barrier, Part::Everything)
}

/// What is removed, and the first model in which that must be noticed.
const MUTATIONS: &[(Mutation, usize)] = &[
    (all_of(Barrier::Create), FROM_JUMPING),
    (all_of(Barrier::Session), EVERYWHERE),
    (all_of(Barrier::Staged), EVERYWHERE),
    (Mutation::Skip(Barrier::Staged, Part::Files), EVERYWHERE),
    (Mutation::Skip(Barrier::Staged, Part::ControlFiles), EVERYWHERE),
    (Mutation::Skip(Barrier::Staged, Part::Directories), FROM_JUMPING),
    (all_of(Barrier::Published), EVERYWHERE),
    (Mutation::Skip(Barrier::Published, Part::Files), EVERYWHERE),
    (Mutation::Skip(Barrier::Published, Part::ControlFiles), EVERYWHERE),
    (Mutation::Skip(Barrier::Published, Part::ControlDirectories), EVERYWHERE),
    (Mutation::Skip(Barrier::Published, Part::Directories), FROM_JUMPING),
    (all_of(Barrier::Applied), EVERYWHERE),
    (all_of(Barrier::Restored), EVERYWHERE),
    (all_of(Barrier::Inherited), EVERYWHERE),
    (Mutation::Skip(Barrier::Inherited, Part::ControlDirectories), FROM_WEAK),
    (all_of(Barrier::Discarded), FROM_JUMPING),
    (all_of(Barrier::Kept), EVERYWHERE),
    (all_of(Barrier::Forgotten), EVERYWHERE),
    (Mutation::Break(Rule::KeepBeforeMoves), EVERYWHERE),
    (Mutation::Break(Rule::KeepInRecovery), EVERYWHERE),
    (Mutation::Break(Rule::KeepMissing), EVERYWHERE),
    (Mutation::Break(Rule::InheritHistory), EVERYWHERE),
    (all_of(Barrier::SetAside), FROM_WEAK),
    (all_of(Barrier::Recovered), EVERYWHERE),
    (all_of(Barrier::Swept), EVERYWHERE),
    (all_of(Barrier::SingleStaged), EVERYWHERE),
    (all_of(Barrier::SingleRenamed), EVERYWHERE),
    (all_of(Barrier::Appended), EVERYWHERE),
    (all_of(Barrier::Rotated), FROM_WEAK),
    (Mutation::Break(Rule::SyncRotated), EVERYWHERE),
    (Mutation::Break(Rule::PublishByRename), EVERYWHERE),
    (Mutation::Break(Rule::ApplyAfterPublish), EVERYWHERE),
    (Mutation::Break(Rule::HideStaged), EVERYWHERE),
    (Mutation::Break(Rule::CheckPermissions), EVERYWHERE),
    (Mutation::Break(Rule::RemoveThenForget), FROM_JUMPING),
    (Mutation::Break(Rule::StopAtGap), EVERYWHERE),
    (Mutation::Break(Rule::AttachDeferred), FROM_JUMPING),
    (Mutation::Break(Rule::DiscardTorn), EVERYWHERE),
    (Mutation::Break(Rule::RestoreStaged), EVERYWHERE),
    (Mutation::Break(Rule::InheritStaged), EVERYWHERE),
    (Mutation::Break(Rule::LeaveWritten), FROM_WEAK),
    (Mutation::Break(Rule::SetAside), EVERYWHERE),
    (Mutation::Break(Rule::RemoveByIdentity), EVERYWHERE),
    (Mutation::Break(Rule::DiagnoseChecksum), FROM_WEAK),
    (Mutation::Break(Rule::KeepApplied), FROM_WEAK),
    (Mutation::Break(Rule::SweepTrees), EVERYWHERE),
    (Mutation::Break(Rule::CloseFirst), EVERYWHERE),
    (Mutation::Break(Rule::FinishDirectories), EVERYWHERE),
    (Mutation::Break(Rule::SyncDirectoryModes), FROM_JUMPING),
    (Mutation::Break(Rule::SettleBeforeTrees), FROM_JUMPING),
];

/// The scenario to begin with, if most others would not notice.
fn first(mutation: Mutation) -> &'static str {
    match mutation {
        Mutation::Skip(Barrier::Appended | Barrier::Rotated, _) | Mutation::Break(Rule::SyncRotated) => {
            "a file that grows"
        }
        Mutation::Skip(Barrier::Forgotten, _) => "a history that is removed",
        Mutation::Break(Rule::StopAtGap) => "several published together",
        Mutation::Break(Rule::LeaveWritten | Rule::SetAside) => "somebody else writes into a file",
        Mutation::Break(Rule::KeepApplied) => "three commits",
        Mutation::Skip(Barrier::Staged, Part::Directories) => "new nested directories, as long saves",
        Mutation::Skip(Barrier::Applied | Barrier::Recovered | Barrier::Swept, _)
        | Mutation::Skip(Barrier::Published, Part::ControlDirectories) => "two file systems",
        Mutation::Skip(Barrier::Kept, _)
        | Mutation::Break(Rule::KeepBeforeMoves | Rule::KeepInRecovery | Rule::InheritHistory) => {
            "with a history"
        }
        Mutation::Break(Rule::KeepMissing) => "with a history, over two file systems",
        Mutation::Skip(Barrier::Discarded, _) => "whoever recovers goes on",
        Mutation::Break(Rule::AttachDeferred) | Mutation::Skip(Barrier::Published, Part::Directories) => {
            "a commit after an unretired one, elsewhere"
        }
        Mutation::Break(Rule::SweepTrees) => "trees moved and removed",
        Mutation::Break(Rule::CloseFirst | Rule::FinishDirectories | Rule::SyncDirectoryModes) => {
            "directories with modes"
        }
        Mutation::Break(Rule::SettleBeforeTrees) => "a tree replaced, unretired",
        Mutation::Break(Rule::RemoveThenForget) => "dropped after staging",
        Mutation::Break(Rule::CheckPermissions) => "somebody else changes permissions",
        _ => "one file",
    }
}

/// How much is explored if nothing must be noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quiet {
    /// The two smallest scenarios.
    Short,
    /// All.
    Long,
}

fn workloads(mutation: Mutation, quiet: Option<Quiet>) -> Vec<Box<dyn Workload>> {
    let wanted = |script: &Script| quiet != Some(Quiet::Short) || script.name == "one file";
    let lenient = |script| Box::new(Script { lenient: true, ..script }) as Box<dyn Workload>;
    let scripts = scenarios().into_iter().filter(wanted).map(lenient);
    let mut all: Vec<_> = scripts
        .chain([Box::new(SingleFile) as Box<dyn Workload>, Box::new(Journal), Box::new(Forgetting)])
        .collect();
    // The fast ones come next. Among them are those that alone notice certain steps.
    let quick =
        [first(mutation), "a single file", "a removed file", "somebody else", "one file", "three commits"];
    let place = |name: &str| quick.iter().position(|start| name.starts_with(start)).unwrap_or(quick.len());
    all.sort_by_key(|workload| place(&workload.name()));
    all
}

/// The first violation that any scenario shows.
fn noticed(model: Model, mutation: Mutation, quiet: Option<Quiet>) -> Option<String> {
    workloads(mutation, quiet).iter().find_map(|workload| {
        let explorer = Explorer {
            depth: 1,
            outcomes_max: OUTCOMES_MAX,
            mutation: Some(mutation),
            ..Explorer::new(model)
        };
        explorer.explore(&**workload).err().map(|case| case.to_string())
    })
}

fn bite(quiet: Quiet, is_wanted: impl Fn(&str) -> bool) {
    let mut wrong = Vec::new();
    for (mutation, from) in MUTATIONS.iter().filter(|(mutation, _)| is_wanted(&format!("{mutation:?}"))) {
        let (superfluous, needed) = MODELS.split_at(*from);
        for model in needed {
            match noticed(*model, *mutation, None) {
                Some(case) => println!("{mutation:?} in {model:?}: {case}"),
                None => {
                    println!("{mutation:?} is not missed in {model:?}");
                    wrong.push(format!("{mutation:?} is not missed in {model:?}"));
                }
            }
        }
        for model in superfluous {
            if let Some(case) = noticed(*model, *mutation, Some(quiet)) {
                wrong.push(format!("{mutation:?} is missed in {model:?}: {case}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_sync_and_every_rule_that_is_taken_away_is_missed_where_it_is_needed() {
    bite(Quiet::Short, |_| true);
}

#[test]
#[ignore = "takes many minutes"]
fn no_sync_is_missed_where_the_file_system_makes_it_superfluous() {
    bite(Quiet::Long, |_| true);
}

/// Tries the mutations whose names contain `MUTATION`, while somebody works on them.
#[test]
#[ignore = "needs the name of a mutation"]
fn some_mutations() {
    let wanted = std::env::var("MUTATION").unwrap();
    assert!(MUTATIONS.iter().any(|(mutation, _)| format!("{mutation:?}").contains(&wanted)), "{wanted}");
    bite(Quiet::Short, |name| name.contains(&wanted));
}
