//! Every crash of every scenario, on every model that promises anything.

use cosave::fs::sim::Model;
use cosave::fs::sim::explore::{Explorer, Report};

use crate::script::scenarios;

const MODELS: [Model; 3] = [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix];

fn explore_all(depth: u32, outcomes_max: usize) -> Report {
    let mut total = Report::default();
    for model in MODELS {
        let mut of_model = Report::default();
        for script in scenarios() {
            let explorer = Explorer { depth, outcomes_max, ..Explorer::new(model) };
            match explorer.explore(&script) {
                Ok(report) => {
                    println!("{model:?} {}: {report}", script.name);
                    of_model += report;
                }
                Err(case) => panic!("{case}"),
            }
        }
        println!("{model:?}: {of_model}");
        total += of_model;
    }
    println!("all models: {total}");
    total
}

#[test]
fn every_crash_is_recovered_from() {
    let report = explore_all(1, 16);
    assert!(report.states > 1_000_000, "{report}");
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn every_crash_of_every_crashed_recovery_is_recovered_from() {
    let report = explore_all(2, 64);
    assert!(report.states > 20_000_000, "{report}");
}
