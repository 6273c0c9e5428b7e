//! Every sync and every rule of the protocol is taken away in turn, and the exploration must notice.
//!
//! A step whose absence nothing notices is not needed, or not tested. Where a model makes a step
//! superfluous (ext4 and XFS make a directory's names durable with any sync), the table says so by
//! leaving that model out: those cells are required to stay green, which keeps the models honest.

use cosave::fs::sim::explore::Explorer;
use cosave::fs::sim::{Model, Part, Sabotage};
use cosave::fs::{Barrier, Rule};

use crate::script::{Script, scenarios};

use Model::{JumpingPrefix, OrderedPrefix, WeakPosix};

const ALL: &[Model] = &[OrderedPrefix, JumpingPrefix, WeakPosix];

/// What is taken away, and the models in which that must be noticed.
const TEETH: &[(Sabotage, &[Model])] = &[
    (Sabotage::Skip(Barrier::Create, Part::Everything), &[WeakPosix]),
    (Sabotage::Skip(Barrier::Session, Part::Everything), &[WeakPosix]),
    (Sabotage::Skip(Barrier::Staged, Part::Everything), ALL),
    (Sabotage::Skip(Barrier::Staged, Part::Files), ALL),
    (Sabotage::Skip(Barrier::Staged, Part::ControlFiles), ALL),
    (Sabotage::Skip(Barrier::Staged, Part::Directories), &[WeakPosix]),
    (Sabotage::Skip(Barrier::Published, Part::Everything), &[JumpingPrefix, WeakPosix]),
    (Sabotage::Skip(Barrier::Applied, Part::Everything), &[JumpingPrefix, WeakPosix]),
    (Sabotage::Skip(Barrier::Inherited, Part::Everything), &[JumpingPrefix, WeakPosix]),
    (Sabotage::Skip(Barrier::Inherited, Part::ControlDirectories), &[WeakPosix]),
    (Sabotage::Skip(Barrier::Recovered, Part::Everything), &[JumpingPrefix, WeakPosix]),
    (Sabotage::Skip(Barrier::Swept, Part::Everything), &[WeakPosix]),
    (Sabotage::Break(Rule::PublishByRename), ALL),
    (Sabotage::Break(Rule::ApplyAfterPublish), &[JumpingPrefix, WeakPosix]),
    (Sabotage::Break(Rule::RetireAfterApply), &[JumpingPrefix, WeakPosix]),
    (Sabotage::Break(Rule::RecordFirst), &[WeakPosix]),
    (Sabotage::Break(Rule::StopAtGap), &[WeakPosix]),
    (Sabotage::Break(Rule::CarriedWave), &[JumpingPrefix, WeakPosix]),
];

/// Scenarios that need to be there for one tooth or another, beside the common ones.
fn all_scenarios() -> Vec<Script> {
    scenarios().into_iter().map(|script| Script { lenient: true, ..script }).collect()
}

/// The first violation that any scenario shows.
fn noticed(model: Model, sabotage: Sabotage) -> Option<String> {
    all_scenarios().iter().find_map(|script| {
        let explorer =
            Explorer { depth: 1, outcomes_max: 16, sabotage: Some(sabotage), ..Explorer::new(model) };
        explorer.explore(script).err().map(|case| case.to_string())
    })
}

#[test]
fn every_sync_and_every_rule_that_is_taken_away_is_missed() {
    let mut wrong = Vec::new();
    for (sabotage, models) in TEETH {
        for model in models.iter() {
            match noticed(*model, *sabotage) {
                Some(case) => println!("{sabotage:?} in {model:?}: {case}"),
                None => wrong.push(format!("{sabotage:?} is not missed in {model:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
