//! Generated scripts, explored like the handwritten ones.
//!
//! This module decides what a script may do. `script` runs it, and decides what
//! must be found after each crash. A generated script's name is the script
//! itself, so the line of a failing case is enough to repeat it.

use cosave::Durability;
use cosave::fs::Barrier;
use cosave::fs::sim::explore::Explorer;
use cosave::fs::sim::{Model, Mutation, Part, Rule};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::property;
use crate::script::{Act, Change, Script, move_tree, remove, remove_tree, symlink};

/// No path lies below another. `mnt` can be a file system of its own.
const PATHS: [&str; 8] = ["a", "b", "d/c", "d/e", "mnt/f", "mnt/g/h", "new/i", "new/j/k"];

/// Where a symlink is made and removed, and where it may lead. Nothing is done through it.
const LINK: &str = "l";
const LINK_TEXTS: [&str; 3] = ["a", "d", "../outside"];

/// Up to so many of the paths exist at first. Nothing below `new` ever does.
const INITIAL_MAX: usize = 6;

/// Two of the same length, one longer, and one empty.
const CONTENTS: [&str; 4] = ["one", "two", "longer than those", ""];

const MODELS: [Model; 3] = [Model::OrderedPrefix, Model::JumpingPrefix, Model::WeakPosix];

/// How many scripts have their crashes explored, and how many also the crashes of their recoveries. One
/// of the latter costs as much as five of the former.
const CASES: u32 = 24;
const CASES_DEEP: u32 = 3;

fn change() -> impl Strategy<Value = Change> {
    let path = select(&PATHS[..]).prop_map(str::to_owned);
    let content = select(&CONTENTS[..]).prop_map(str::to_owned);
    prop_oneof![
        3 => (path.clone(), content).prop_map(|(path, content)| Change::Write(path, content)),
        1 => path.prop_map(Change::Remove),
        1 => select(&LINK_TEXTS[..]).prop_map(|to| symlink(LINK, to)),
        1 => Just(remove(LINK)),
    ]
}

/// Two places of one directory, and the file in it.
const TREES: [&str; 2] = ["t", "n/u"];
const FILES_IN_TREES: [&str; 2] = ["t/x", "n/u/x"];

/// Moves and removes a directory, writes in it and beside it, and makes it a file.
fn tree_change() -> impl Strategy<Value = Change> {
    let path = select(&["a", "d/c", FILES_IN_TREES[0], FILES_IN_TREES[1]][..]).prop_map(str::to_owned);
    let place = || select(&TREES[..]).prop_map(str::to_owned);
    let content = || select(&CONTENTS[..]).prop_map(str::to_owned);
    let [here, there] = TREES;
    let moves = prop_oneof![Just(move_tree(here, there)), Just(move_tree(there, here))];
    prop_oneof![
        3 => (path, content()).prop_map(|(path, content)| Change::Write(path, content)),
        2 => (place(), content()).prop_map(|(path, content)| Change::Write(path, content)),
        2 => moves,
        2 => select(&TREES[..]).prop_map(remove_tree),
        1 => place().prop_map(Change::Remove),
    ]
}

/// A script with trees. All its transactions are committed, and one after the other.
fn tree_script() -> impl Strategy<Value = Script> {
    let durability = select(&[Durability::Full, Durability::Committed][..]);
    let acts = vec(vec(tree_change(), 1..=3), 1..=4);
    (durability, select(&KEPT_BYTES[..]), any::<bool>(), acts).prop_map(
        |(durability, kept, is_there, acts)| {
            let files = [("a", "a0"), (FILES_IN_TREES[0], "x0")];
            let files = if is_there { &files[..] } else { &files[..1] };
            let mut script =
                Script::new("", files, valid_trees(is_there, acts)).durability(durability).keeping(kept);
            script.name = text_of(&script);
            script
        },
    )
}

/// What is at one of the places.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    Tree,
    File,
}

/// Removes what no script may do. A tree is moved to a free place. A transaction that moves or removes it puts
/// at most a file there.
fn valid_trees(is_there: bool, acts: Vec<Vec<Change>>) -> Vec<Act> {
    let mut found = [if is_there { There::Tree } else { There::Nothing }, There::Nothing];
    let place = |path: &str| TREES.iter().position(|tree| path.split("/x").next() == Some(tree));
    let mut valid = Vec::new();
    for mut changes in acts {
        let (mut is_written, mut is_over, mut cleared) = (false, false, None);
        changes.retain(|change| {
            let path = path_of(change);
            let Some(place) = place(path) else { return true };
            let (other, is_file) = (1 - place, TREES.contains(&path));
            let becomes = match (change, found[place]) {
                (Change::Write(..), There::Nothing | There::File) if is_file => There::File,
                (Change::Write(..), There::Nothing | There::Tree) if !is_file => There::Tree,
                (Change::MoveTree(..), There::Nothing) if found[other] == There::Tree => There::Tree,
                (Change::RemoveTree(_), There::Tree) | (Change::Remove(_), There::File) => There::Nothing,
                _ => return false,
            };
            let is_write = matches!(change, Change::Write(..));
            let fills = is_write && is_file && cleared == Some(place);
            if is_over && !fills || is_written && !is_write {
                return false;
            }
            found[place] = becomes;
            if matches!(change, Change::MoveTree(..)) {
                found[other] = There::Nothing;
            }
            cleared = matches!(change, Change::RemoveTree(_)).then_some(place);
            is_over |= !is_write;
            is_written |= is_write;
            true
        });
        valid.extend((!changes.is_empty()).then_some(Act::Commit(changes)));
    }
    valid
}

fn act(changes_max: usize) -> impl Strategy<Value = Act> {
    let changes = move || vec(change(), 1..=changes_max);
    prop_oneof![
        4 => changes().prop_map(Act::Commit),
        2 => vec(changes(), 1..=changes_max).prop_map(Act::Together),
        1 => changes().prop_map(Act::Drop),
        1 => changes().prop_map(Act::Beside),
        1 => Just(Act::Reopen),
    ]
}

fn script(acts_max: usize, changes_max: usize) -> impl Strategy<Value = Script> {
    let file = (select(&PATHS[..INITIAL_MAX]), select(&CONTENTS[..]));
    let durability = select(&[Durability::Full, Durability::Committed][..]);
    let options = (durability, select(&KEPT_BYTES[..]));
    (options, any::<bool>(), vec(file, 0..4), vec(act(changes_max), 1..=acts_max)).prop_map(
        |((durability, kept), mounted, mut files, acts)| {
            files.sort_unstable();
            files.dedup_by_key(|(path, _)| *path);
            let mut script =
                Script::new("", &files, valid(&files, acts)).durability(durability).keeping(kept);
            if mounted {
                script = script.mount("mnt");
            }
            script.name = text_of(&script);
            script
        },
    )
}

/// How many bytes are kept in memory: all, none, and so few that most transactions outgrow it.
const KEPT_BYTES: [usize; 3] = [1 << 20, 0, 3];

fn path_of(change: &Change) -> &str {
    match change {
        Change::Write(path, _) | Change::Remove(path) | Change::SetMode(path, _) => path,
        Change::WithMode(path, ..) | Change::SetPermissions(path, _) => path,
        Change::Copy(_, path) | Change::Rename(_, path) | Change::Symlink(path, _) => path,
        Change::MoveTree(_, path) | Change::RemoveTree(path) => path,
        Change::CreateDirectory(path) | Change::RemoveDirectory(path) => path,
        Change::MakeDirectory(path, _) => path,
        Change::Prune => "",
    }
}

/// Removes what no script may do. A transaction without changes has no generation. Transactions that
/// are published together must change different paths. Whether an emptied directory that a script made
/// still exists is not decided by the script.
fn valid(files: &[(&str, &str)], acts: Vec<Act>) -> Vec<Act> {
    let mut present: Vec<String> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
    let mut commit = |mut changes: Vec<Change>, taken: &mut Vec<String>| {
        changes.retain(|change| {
            let path = path_of(change);
            let is_kept = match change {
                Change::Write(..) | Change::Symlink(..) => true,
                Change::Remove(_) => {
                    present.iter().any(|other| other == path)
                        && (path == LINK || PATHS[..INITIAL_MAX].contains(&path))
                        && (path != "mnt/g/h" || files.iter().any(|(other, _)| *other == path))
                }
                _ => false,
            };
            is_kept && !taken.iter().any(|other| other == path)
        });
        for change in &changes {
            present.retain(|other| other != path_of(change));
        }
        for (index, change) in changes.iter().enumerate() {
            let is_last = changes[index + 1..].iter().all(|later| path_of(later) != path_of(change));
            if is_last && matches!(change, Change::Write(..) | Change::Symlink(..)) {
                present.push(path_of(change).to_owned());
            }
        }
        taken.extend(changes.iter().map(|change| path_of(change).to_owned()));
        changes
    };
    let mut valid = Vec::new();
    for act in acts {
        match act {
            Act::Commit(changes) => valid.push(Act::Commit(commit(changes, &mut Vec::new()))),
            Act::Together(sets) => {
                let mut taken = Vec::new();
                let sets = sets.into_iter().map(|changes| commit(changes, &mut taken));
                valid.push(Act::Together(sets.filter(|changes| !changes.is_empty()).collect()));
            }
            other => valid.push(other),
        }
    }
    valid.retain(|act| match act {
        Act::Commit(changes) => !changes.is_empty(),
        Act::Together(sets) => !sets.is_empty(),
        _ => true,
    });
    valid
}

/// Writes a script in one line.
fn text_of(script: &Script) -> String {
    let changes = |changes: &Vec<Change>| -> String {
        let change = |change: &Change| match change {
            Change::Write(path, content) => format!(",{path}={content}"),
            Change::Symlink(path, to) => format!(",{path}>{to}"),
            Change::MoveTree(from, to) => format!(",{from}~{to}"),
            Change::RemoveTree(path) => format!(",{path}~"),
            other => format!(",{}", path_of(other)),
        };
        changes.iter().map(change).collect()
    };
    let act = |act: &Act| match act {
        Act::Commit(set) => format!("commit{}", changes(set)),
        Act::Together(sets) => {
            format!("together{}", sets.iter().map(|set| format!("+{}", changes(set))).collect::<String>())
        }
        Act::Drop(set) => format!("drop{}", changes(set)),
        Act::Beside(set) => format!("beside{}", changes(set)),
        Act::Reopen => "reopen".to_owned(),
    };
    let files: String = script.files.iter().map(|(path, content)| format!(",{path}={content}")).collect();
    let mounts: String = script.mounts.iter().map(|path| format!(",{path}")).collect();
    let acts: Vec<String> = script.acts.iter().map(act).collect();
    let Script { durability, inline_max, .. } = script;
    format!("{durability:?} {inline_max};files{files};mounts{mounts};{}", acts.join(";"))
}

/// Reads what [`text_of`] wrote.
fn parse(text: &str) -> Option<Script> {
    let changes = |text: &str| -> Vec<Change> {
        let change = |text: &str| match (text.split_once('='), text.split_once('~')) {
            (Some((path, content)), _) => Change::Write(path.to_owned(), content.to_owned()),
            (None, Some((path, ""))) => remove_tree(path),
            (None, Some((from, to))) => move_tree(from, to),
            (None, None) => text.split_once('>').map_or_else(|| remove(text), |(path, to)| symlink(path, to)),
        };
        text.split(',').skip(1).map(change).collect()
    };
    let mut parts = text.split(';');
    let (durability, kept) = parts.next()?.split_once(' ')?;
    let durability = match durability {
        "Full" => Durability::Full,
        "Committed" => Durability::Committed,
        _ => return None,
    };
    let mut script = Script::new(text, &[], Vec::new()).durability(durability).keeping(kept.parse().ok()?);
    for change in changes(parts.next()?) {
        let Change::Write(path, content) = change else { return None };
        script.files.push((path, content));
    }
    for change in changes(parts.next()?) {
        script = script.mount(path_of(&change));
    }
    for part in parts.filter(|part| !part.is_empty()) {
        script.acts.push(match part.split([',', '+']).next()? {
            "commit" => Act::Commit(changes(part)),
            "together" => Act::Together(part.split('+').skip(1).map(changes).collect()),
            "drop" => Act::Drop(changes(part)),
            "beside" => Act::Beside(changes(part)),
            "reopen" => Act::Reopen,
            _ => return None,
        });
    }
    Some(script)
}

/// Explores every crash of the script on one model. With a depth of 1, also every crash of every
/// recovery.
fn explore(
    script: &Script,
    model: Model,
    depth: u32,
    outcomes_max: usize,
    mutation: Option<Mutation>,
) -> Result<(), String> {
    let explorer = Explorer { depth, outcomes_max, mutation, ..Explorer::new(model) };
    explorer.explore(script).map(drop).map_err(|case| {
        let line = case.line();
        let problem = case.problem();
        format!("{problem}\nrepeat it: REPEAT={line:?} cargo test --test crash one_generated -- --ignored")
    })
}

#[test]
fn any_script_is_recovered_from_at_any_crash() {
    property::hold(CASES, &script(3, 3), |script| {
        MODELS.into_iter().try_for_each(|model| explore(script, model, 0, 12, None))
    });
}

#[test]
fn any_short_script_is_recovered_from_at_any_crash_of_a_recovery() {
    property::hold(CASES_DEEP, &script(1, 2), |script| {
        MODELS.into_iter().try_for_each(|model| explore(script, model, 1, 3, None))
    });
}

/// What is removed from the protocol, and the depth and model with which the scripts must notice.
const MUTATIONS: &[(Mutation, u32, Model)] = &[
    (Mutation::Skip(Barrier::Session, Part::Everything), 0, Model::WeakPosix),
    (Mutation::Skip(Barrier::Staged, Part::Everything), 0, Model::OrderedPrefix),
    (Mutation::Skip(Barrier::Staged, Part::Directories), 0, Model::WeakPosix),
    (Mutation::Skip(Barrier::Published, Part::Everything), 0, Model::JumpingPrefix),
    (Mutation::Skip(Barrier::Applied, Part::Everything), 0, Model::JumpingPrefix),
    (Mutation::Skip(Barrier::Inherited, Part::Everything), 1, Model::JumpingPrefix),
    (Mutation::Skip(Barrier::Recovered, Part::Everything), 1, Model::WeakPosix),
    (Mutation::Break(Rule::PublishByRename), 0, Model::OrderedPrefix),
    (Mutation::Break(Rule::ApplyAfterPublish), 0, Model::WeakPosix),
    (Mutation::Break(Rule::StopAtGap), 0, Model::WeakPosix),
    (Mutation::Break(Rule::AttachDeferred), 0, Model::WeakPosix),
];

#[test]
fn a_broken_protocol_is_found_by_scripts_alone() {
    for (mutation, depth, model) in MUTATIONS {
        let scripts = if *depth == 0 { script(3, 3).boxed() } else { script(1, 2).boxed() };
        let found = property::counterexample(CASES, 0, &scripts, |script| {
            let script = Script { lenient: true, ..script.clone() };
            explore(&script, *model, *depth, 12, Some(*mutation))
        });
        let (script, problem) =
            found.unwrap_or_else(|| panic!("no script in {model:?} notices {mutation:?}"));
        println!("{mutation:?} in {model:?}: {}: {problem}", script.name);
    }
}

#[test]
fn any_script_with_trees_is_recovered_from_at_any_crash() {
    property::hold(CASES, &tree_script(), |script| {
        MODELS.into_iter().try_for_each(|model| explore(script, model, 0, 12, None))
    });
}

/// What scripts with trees must notice, and the model in which they do.
const TREE_MUTATIONS: &[(Mutation, Model)] = &[
    (Mutation::Break(Rule::SweepTrees), Model::OrderedPrefix),
    (Mutation::Skip(Barrier::Applied, Part::Everything), Model::JumpingPrefix),
    (Mutation::Skip(Barrier::Staged, Part::Directories), Model::WeakPosix),
];

#[test]
fn a_broken_protocol_of_trees_is_found_by_scripts_alone() {
    for (mutation, model) in TREE_MUTATIONS {
        let found = property::counterexample(4 * CASES, 0, &tree_script(), |script| {
            let script = Script { lenient: true, ..script.clone() };
            explore(&script, *model, 0, 12, Some(*mutation))
        });
        let (script, problem) =
            found.unwrap_or_else(|| panic!("no script in {model:?} notices {mutation:?}"));
        println!("{mutation:?} in {model:?}: {}: {problem}", script.name);
    }
}

#[test]
fn a_failing_script_is_made_small_and_can_be_repeated_from_its_line() {
    let mutation = Some(Mutation::Skip(Barrier::Staged, Part::Everything));
    let found = property::counterexample(CASES, 500, &script(3, 3), |script| {
        let script = Script { lenient: true, ..script.clone() };
        explore(&script, Model::OrderedPrefix, 0, 12, mutation)
    });
    let (script, problem) = found.unwrap();
    assert_eq!(script.name, "Full 0;files;mounts;commit,a=one", "{problem}");

    let line = problem.split('"').nth(1).unwrap();
    let (name, explorer, path) = Explorer::parse(line).unwrap();
    let script = Script { lenient: true, ..parse(&name).unwrap() };
    assert!(explorer.replay(&script, &path).is_ok(), "this very case holds with the whole protocol");
    let broken = Explorer { mutation, ..explorer };
    assert!(problem.starts_with(broken.replay(&script, &path).unwrap_err().problem()), "{problem}");
}

#[test]
fn a_script_is_read_from_its_text_as_it_was() {
    property::hold(256, &prop_oneof![script(3, 3), tree_script()], |script| {
        let read = parse(&script.name).ok_or_else(|| format!("{} cannot be read", script.name))?;
        if format!("{read:?}") == format!("{script:?}") { Ok(()) } else { Err(format!("{read:?}")) }
    });
}

/// Runs the one case that `REPEAT` holds.
#[test]
#[ignore = "needs a case to repeat"]
fn one_generated_case_again() {
    let line = std::env::var("REPEAT").unwrap();
    let (name, explorer, path) = Explorer::parse(&line).unwrap();
    explorer.replay(&parse(&name).unwrap(), &path).map_err(|case| case.problem().to_owned()).unwrap();
}
