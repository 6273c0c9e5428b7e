//! Every crash of every scenario, on every model that promises something.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cosave::fs::sim::Model;
use cosave::fs::sim::explore::{Explorer, Report, Workload};

use crate::append::Journal;
use crate::forgotten::Forgetting;
use crate::script::scenarios;
use crate::single_file::SingleFile;

const MODELS: [Model; 3] = [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix];

fn workloads() -> Vec<Box<dyn Workload>> {
    let scripts = scenarios().into_iter().map(|script| Box::new(script) as Box<dyn Workload>);
    scripts
        .chain([Box::new(SingleFile) as Box<dyn Workload>, Box::new(Journal), Box::new(Forgetting)])
        .collect()
}

/// The command that repeats a case.
fn repeat(line: &str) -> String {
    format!("REPEAT={line:?} cargo test --test crash repeat_one_case -- --ignored")
}

/// How many workloads are explored at once: as many as the smallest machine has cores.
const THREADS: usize = 2;

fn explore_all(depth: u32, outcomes_max: usize, wanted: impl Fn(Model, &str) -> bool) -> Report {
    let mut pairs = Vec::new();
    for model in MODELS {
        let is_possible = |name: &str| model != Model::WeakPosix || !name.starts_with(CHAIN);
        let of_model = workloads().into_iter();
        let of_model =
            of_model.filter(|workload| wanted(model, &workload.name()) && is_possible(&workload.name()));
        pairs.extend(of_model.map(|workload| (model, workload)));
    }
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some((model, workload)) = pairs.get(next.fetch_add(1, Ordering::SeqCst)) {
            let explorer = Explorer { depth, outcomes_max, ..Explorer::new(*model) };
            let report = explorer.explore(&**workload);
            let report = report.unwrap_or_else(|case| {
                panic!("{}\nrepeat it: {}", case.problem(), repeat(&case.line()));
            });
            reports.lock().unwrap().insert((format!("{model:?}"), workload.name()), report);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| _ = scope.spawn(work)));
    let mut total = Report::default();
    for ((model, workload), report) in reports.into_inner().unwrap() {
        println!("{model} {workload}: {report}");
        total += report;
    }
    println!("all models: {total}");
    total
}

/// Whether every run of the tests explores a scenario; the ignored tests explore all. Of the models,
/// `WeakPosix` has by far the most outcomes, and `NoDirectorySync` promises nothing but a control.
pub fn is_in_every_run(model: Model, name: &str) -> bool {
    let is_long = name.contains("as long saves");
    let is_chosen = LONG_SAVES.contains(&name);
    match model {
        Model::WeakPosix | Model::NoDirectorySync => !is_long && !LARGE.contains(&name),
        _ => !is_long || is_chosen,
    }
}

/// Long saves that every run explores.
const LONG_SAVES: [&str; 4] = [
    "one file, as long saves",
    "several published together, as long saves",
    "the same file again and again, unretired, as long saves",
    "new nested directories, as long saves",
];
/// A tree replaces something by renames that share a name. `WeakPosix` keeps a later one without an earlier one, and
/// so a directory with two names, which no file system has.
const CHAIN: &str = "a tree replace";

/// The scenarios with the most states.
const LARGE: [&str; 8] = [
    "with a history",
    "with a history, unretired",
    "the same file again and again, unretired",
    "whoever recovers goes on",
    "moves that build on each other",
    "emptied directories go, and come again, unretired",
    "two files swapped, on a clock that stands still",
    "a symlink that is changed again and again, unretired, on a clock that stands still",
];

#[test]
fn every_crash_is_recovered_from() {
    let report =
        explore_all(1, OUTCOMES_MAX, |model, name| !name.ends_with(STILL) && is_in_every_run(model, name));
    assert!(report.states > 1_000_000, "{report}");
}

/// The end of the names of scenarios in which all files have one time stamp.
const STILL: &str = "on a clock that stands still";

#[test]
fn every_crash_is_recovered_from_where_time_stamps_tell_nothing() {
    let report =
        explore_all(1, OUTCOMES_MAX, |model, name| name.ends_with(STILL) && is_in_every_run(model, name));
    assert!(report.states > 100_000, "{report}");
}

/// How many outcomes of each crash every run of the tests looks at, if the model has more. The same
/// number shows that every sync and every rule is missed.
pub const OUTCOMES_MAX: usize = 4;
const OUTCOMES_MAX_LONG: usize = 64;

#[test]
#[ignore = "takes many minutes"]
fn many_outcomes_of_every_crash_are_recovered_from() {
    let report = explore_all(1, OUTCOMES_MAX_LONG, |_, _| true);
    assert!(report.states > 10_000_000, "{report}");
}

#[test]
fn every_crash_of_a_crashed_recovery_of_one_file_is_recovered_from() {
    let report = explore_all(2, 12, |_, name| name == "one file");
    assert!(report.states > 100_000, "{report}");
}

#[test]
#[ignore = "takes most of an hour"]
fn every_crash_of_every_crashed_recovery_is_recovered_from() {
    let report = explore_all(2, 8, |_, _| true);
    assert!(report.states > 20_000_000, "{report}");
}

/// Explores the scenarios whose names contain `SCENARIO`, while somebody works on them.
#[test]
#[ignore = "needs the name of a scenario"]
fn some_scenarios() {
    let wanted = std::env::var("SCENARIO").unwrap();
    let report = explore_all(1, OUTCOMES_MAX, |_, name| name.contains(&wanted));
    assert!(report.states > 0, "no scenario is called {wanted}");
}

/// Runs the one case that `REPEAT` holds; `a_case_can_be_repeated_from_its_line` shows that it finds it.
#[test]
#[ignore = "needs a case to repeat"]
fn repeat_one_case() {
    let line = std::env::var("REPEAT").unwrap();
    repeat_line(&line).unwrap();
}

fn repeat_line(line: &str) -> Result<(), String> {
    let (workload, explorer, path) = Explorer::parse(line).ok_or_else(|| format!("{line:?} is no case"))?;
    let all = workloads();
    let named = all.iter().find(|candidate| candidate.name() == workload);
    let named = named.ok_or_else(|| format!("there is no workload {workload:?}"))?;
    explorer.replay(&**named, &path).map_err(|case| case.problem().to_owned())
}

#[test]
fn a_case_can_be_repeated_from_its_line() {
    use cosave::fs::Barrier;
    use cosave::fs::sim::{Mutation, Part};
    let mutation = Some(Mutation::Skip(Barrier::Published, Part::Everything));
    let explorer = Explorer { mutation, depth: 0, ..Explorer::new(Model::OrderedPrefix) };
    let case = explorer.explore(&scenarios()[0]).unwrap_err();
    // The line repeats the case with the whole protocol, and there the case holds.
    assert_eq!(repeat_line(&case.line()), Ok(()));
    let repeated = explorer.replay(&scenarios()[0], &case.path()).unwrap_err();
    assert_eq!(repeated.problem(), case.problem());
}
