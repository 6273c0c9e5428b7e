//! Stores of different durabilities on one disk, with every crash and power
//! loss recovered. What was promised to a stronger store stays true, whatever a
//! weaker one did before.
//!
//! A commit with `Durability::Process` left nothing that said so. A `Full`
//! commit built on it and survived a power loss, but what it was built on did
//! not: files came back empty. A `Full` opening then reported the root as
//! corrupt. A skipped barrier 2 had still removed the superseded manifest, so a
//! root could come back at generation 0. No test mixed durabilities with power
//! losses.

use std::collections::{BTreeMap, BTreeSet};

use cosave::fs::Barrier;
use cosave::fs::sim::{Crash, Model, Mutation, Part, Rule, SimDisk, without};
use cosave::{Durability, Error, Store};

use Durability::{Committed, Full, Process};

const MODELS: [Model; 3] = [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix];

/// How many outcomes of one power loss are looked at, and of one in the recovery after it.
const OUTCOMES_MAX: usize = 40;
const NESTED_OUTCOMES_MAX: usize = 6;

/// A commit: its durability, and its paths with their contents. `None` removes a path.
type Act = (Durability, &'static [(&'static str, Option<&'static str>)]);
type Tree = BTreeMap<String, Vec<u8>>;

const FILES: [(&str, &str); 4] = [("a", "a0"), ("b", "b0"), ("d/c", "c0"), ("untouched", "u0")];

/// The commits of a few programs, in turn. All of them stay open.
const SCENARIOS: &[&[Act]] = &[
    &[(Process, &[("a", Some("a1"))]), (Full, &[("b", Some("computed from a1"))])],
    &[
        (Full, &[("a", Some("a1"))]),
        (Process, &[("a", Some("a2")), ("new/e", Some("e2"))]),
        (Process, &[("d/c", Some("c3")), ("a", Some("a3"))]),
        (Committed, &[("b", Some("computed from a3"))]),
    ],
    &[
        (Full, &[("a", Some("a1"))]),
        (Process, &[("b", Some("b2"))]),
        (Process, &[("b", Some("b3"))]),
        (Process, &[("b", Some("b4")), ("d/c", None)]),
    ],
    &[
        (Committed, &[("a", Some("a1"))]),
        (Process, &[("a", Some("a2"))]),
        (Full, &[("a", Some("a3")), ("b", Some("b3"))]),
        (Process, &[("a", None), ("b", Some("b4"))]),
    ],
    &[
        (Process, &[("d/c", None), ("d/c/x", Some("x1")), ("d/c/y/z", Some("z1"))]),
        (Full, &[("b", Some("computed from x1"))]),
    ],
];

/// What was begun, generation by generation, and how much of it may not be lost.
#[derive(Debug, Default)]
struct History {
    trees: Vec<Tree>,
    /// The paths that each generation changes, and its durability.
    acts: Vec<Act>,
    acknowledged: usize,
    /// The newest generation that a power loss must leave, with all before it.
    promised: usize,
}

impl History {
    /// Paths of later generations, which a power loss may have damaged.
    fn at_risk(&self, after: usize) -> BTreeSet<&str> {
        let weak = self.acts[after..].iter().filter(|(durability, _)| *durability == Process);
        weak.flat_map(|(_, changes)| changes.iter().map(|(path, _)| *path)).collect()
    }
}

fn disk(model: Model) -> SimDisk {
    let disk = SimDisk::new(model);
    disk.make_directory("d", 0);
    for (path, content) in FILES {
        disk.put(path, content.as_bytes(), 0o644);
    }
    disk.settle();
    disk
}

fn open(disk: &SimDisk, durability: Durability) -> cosave::Result<Store> {
    Store::options().durability(durability).open_on(disk.process())
}

fn save(store: &Store, changes: &[(&str, Option<&str>)]) -> cosave::Result<cosave::Commit> {
    let mut tx = store.begin()?;
    for (path, content) in changes {
        match content {
            Some(content) => tx.write(path, content)?,
            None => tx.remove(path)?,
        }
    }
    tx.commit()
}

/// Runs until the crash.
fn run(disk: &SimDisk, acts: &[Act]) -> History {
    let tree: Tree = disk.files();
    let mut history = History { trees: vec![tree], ..History::default() };
    let mut stores: BTreeMap<Durability, Store> = BTreeMap::new();
    for (durability, changes) in acts {
        let mut tree = history.trees[history.acknowledged].clone();
        for (path, content) in *changes {
            match content {
                Some(content) => tree.insert((*path).to_owned(), content.as_bytes().to_vec()),
                None => tree.remove(*path),
            };
        }
        history.trees.push(tree);
        history.acts.push((*durability, changes));
        if !stores.contains_key(durability) {
            let Ok(store) = open(disk, *durability) else { break };
            // Opening a root with a durability asks for that durability of everything in it.
            history.promised = if *durability == Process { history.promised } else { history.acknowledged };
            stores.insert(*durability, store);
        }
        let Ok(commit) = save(&stores[durability], changes) else { break };
        history.acknowledged += 1;
        assert_eq!(commit.generation(), history.acknowledged as u64);
        if *durability != Process {
            history.promised = history.acknowledged;
        }
    }
    assert!(disk.has_crashed() || history.acknowledged == acts.len(), "a commit failed by itself");
    history
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Kill,
    Power,
    /// A power loss, and a second one during the recovery, which can report only once what it found.
    Again,
}

/// Opens what a crash left, and compares it with what was promised.
fn check(disk: &SimDisk, durability: Durability, history: &History, loss: Loss) -> Result<(), String> {
    let store = open(disk, durability).map_err(|error| format!("opening: {error:?}"))?;
    let report = store.last_recovery();
    let generation = store.generation().map_err(|error| error.to_string())?.get();
    let floor = if loss == Loss::Kill { history.acknowledged } else { history.promised };
    if generation < floor as u64 || generation >= history.trees.len() as u64 {
        return Err(format!("generation {generation}, at least {floor} was promised; {report:?}"));
    }
    let expected = &history.trees[usize::try_from(generation).unwrap()];
    let is_told = !report.lost.is_empty() || !report.differences.is_empty();
    if loss == Loss::Kill && is_told {
        return Err(format!("nothing can be lost with a process: {report:?}"));
    }
    let generation_index = usize::try_from(generation).unwrap();
    let at_risk = match loss {
        Loss::Kill => BTreeSet::new(),
        // What is recovered and not reported is whole. Of the rest, the power loss may have left
        // nothing but a move.
        Loss::Power if durability != Process && !is_told => history.at_risk(generation_index),
        // An opening with `Process` looks at no more than it must.
        _ => history.at_risk(history.promised),
    };
    let files = disk.files();
    let paths: BTreeSet<&String> = files.keys().chain(expected.keys()).collect();
    for path in paths.into_iter().filter(|path| !at_risk.contains(path.as_str())) {
        // A torn file cannot be told from a stranger's, so it is left.
        let is_litter = path.ends_with(".cosave")
            || path.contains(".cosave/")
            || at_risk.iter().any(|risky| path.starts_with(&format!("{risky}.set-aside-")));
        // Without a wait the power loss may have taken the record that leads a sweep to an original.
        let is_original = |bytes: &Vec<u8>| FILES.iter().any(|(_, content)| content.as_bytes() == bytes);
        let is_hidden = path.ends_with(".cosave") && files.get(path).is_some_and(is_original);
        let may_differ = is_litter && (!at_risk.is_empty() || is_hidden && loss != Loss::Kill);
        if files.get(path) != expected.get(path) && !may_differ {
            let text =
                |bytes: Option<&Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let (found, expected) = (text(files.get(path)), text(expected.get(path)));
            return Err(format!("{path} of {generation} is {found:?}, not {expected:?}; {report:?}"));
        }
    }
    goes_on(&store, disk, generation)
}

/// The next opening finds nothing to do, and can commit.
fn goes_on(store: &Store, disk: &SimDisk, generation: u64) -> Result<(), String> {
    let text = |error: Error| format!("going on: {error:?}");
    let next = open(disk, Full).map_err(text)?;
    let commit = save(&next, &[("a", Some("on")), ("untouched", Some("on"))]).map_err(text)?;
    if commit.generation() != generation + 1 && store.generation().map_err(text)? != generation + 1 {
        return Err(format!("after {generation} came {}", commit.generation()));
    }
    drop(next);
    let last = open(disk, Full).map_err(text)?;
    if !last.last_recovery().lost.is_empty() {
        return Err("what was lost is reported again and again".to_owned());
    }
    Ok(())
}

/// Every crash of a recovery, followed by a power loss.
fn check_nested(disk: &SimDisk, history: &History) -> Result<(), String> {
    for after in 0.. {
        let machine = disk.copy();
        machine.crash_at(Crash { after: machine.steps() + after, reversed: after % 2 == 1 });
        let opened = open(&machine, Full);
        let ended = !machine.has_crashed();
        for (index, outcome) in machine.power_losses(NESTED_OUTCOMES_MAX, after).into_iter().enumerate() {
            check(&outcome, Full, history, Loss::Again)
                .map_err(|problem| format!("recovery crashed after {after}, outcome {index}: {problem}"))?;
        }
        drop(opened);
        if ended {
            break;
        }
    }
    Ok(())
}

/// All crashes of a scenario.
fn explore(model: Model, acts: &[Act], mutation: Option<Mutation>, nested: bool) -> Result<u64, String> {
    let mut recoveries = 0;
    for after in 0.. {
        let machine = disk(model);
        machine.mutate(mutation);
        machine.crash_at(Crash { after, reversed: after % 2 == 1 });
        let history = run(&machine, acts);
        let at = |what: String| format!("{model:?}, {acts:?}, crashed after {after}, {what}");
        check(&machine.kill(), Full, &history, Loss::Kill).map_err(|error| at(format!("killed: {error}")))?;
        for (index, outcome) in machine.power_losses(OUTCOMES_MAX, after).into_iter().enumerate() {
            for durability in [Full, Process] {
                let answer = check(&outcome.copy(), durability, &history, Loss::Power);
                answer.map_err(|error| at(format!("outcome {index}, opened {durability:?}: {error}")))?;
                recoveries += 1;
            }
            if nested && index % 12 == 0 {
                let answer = check_nested(&outcome, &history);
                answer.map_err(|error| at(format!("outcome {index}: {error}")))?;
            }
        }
        if !machine.has_crashed() {
            break;
        }
    }
    Ok(recoveries)
}

#[test]
fn what_a_stronger_commit_rests_on_is_made_durable_with_it() {
    for model in MODELS {
        for acts in SCENARIOS {
            let recoveries = explore(model, acts, None, false).unwrap_or_else(|problem| panic!("{problem}"));
            assert!(recoveries > 100, "only {recoveries} recoveries of {acts:?}");
        }
    }
}

#[test]
fn a_recovery_of_what_was_waived_can_be_cut_short_too() {
    explore(Model::WeakPosix, SCENARIOS[0], None, true).unwrap_or_else(|problem| panic!("{problem}"));
}

/// What is removed from the protocol, and these scenarios must notice.
const MUTATIONS: &[Mutation] = &[
    Mutation::Break(Rule::PayWaived),
    Mutation::Break(Rule::KeepWaived),
    Mutation::Break(Rule::MarkWaived),
    Mutation::Break(Rule::SyncBuilt),
    Mutation::Skip(Barrier::Inherited, Part::Files),
];

#[test]
fn what_keeps_durabilities_apart_is_missed_when_it_is_taken_away() {
    let mut missed = Vec::new();
    for mutation in MUTATIONS {
        let found = without(mutation.rule(), || {
            let all = MODELS.iter().flat_map(|model| SCENARIOS.iter().map(move |acts| (*model, acts)));
            let explored = all.map(|(model, acts)| explore(model, acts, Some(*mutation), false));
            explored.into_iter().find_map(Result::err)
        });
        match found {
            Some(problem) => println!("{mutation:?}: {problem}"),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not missed: {missed:?}");
}

#[test]
fn flush_of_a_store_that_never_waits_waits_all_the_same() {
    for model in MODELS {
        let disk = disk(model);
        let store = open(&disk, Process).unwrap();
        save(&store, &[("a", Some("a1")), ("new/e", Some("e1"))]).unwrap();
        save(&store, &[("a", Some("a2")), ("b", None)]).unwrap();
        store.flush().unwrap();
        for outcome in disk.power_losses(OUTCOMES_MAX, 0) {
            let files = outcome.files();
            assert_eq!(files["a"], b"a2");
            assert_eq!(files["new/e"], b"e1");
            assert!(!files.contains_key("b"));
            assert_eq!(open(&outcome, Full).unwrap().generation().unwrap(), 2);
        }
    }
}

/// Manifests of waived commits must stay, but not in an endless number.
#[test]
fn a_store_that_never_waits_leaves_a_bounded_number_of_manifests() {
    let disk = disk(Model::WeakPosix);
    let store = open(&disk, Process).unwrap();
    for number in 0..400 {
        save(&store, &[("a", Some(if number % 2 == 0 { "even" } else { "odd" }))]).unwrap();
    }
    assert_eq!(store.generation().unwrap(), 400);
    let names = disk.control_names();
    assert!(names.len() < 150, "{} names in the control directory", names.len());
    drop(store);
    assert!(open(&disk, Full).unwrap().last_recovery().differences.is_empty());
}

/// Every file was compared with every later commit that names it: 126 commits of 50 files took 6 s.
#[test]
fn making_durable_what_nobody_waited_for_takes_as_many_calls_as_there_were_commits() {
    let calls = |commits: u32| {
        let disk = disk(Model::OrderedPrefix);
        let store = open(&disk, Process).unwrap();
        for number in 0..commits {
            let content = format!("{number:03}");
            save(&store, &[("a", Some(&content)), ("b", Some(&content)), ("d/c", Some(&content))]).unwrap();
        }
        let before = disk.calls();
        store.flush().unwrap();
        assert!(store.status().unwrap().pending.is_empty());
        disk.calls() - before
    };
    let (few, many) = (calls(16), calls(64));
    assert!(many < 5 * few, "16 commits: {few} calls, 64 commits: {many}");
}
