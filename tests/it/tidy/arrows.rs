//! Which module of the crate may know which: the plan of the house as data, held against the code.
//!
//! A module imports only from modules that stand below it in [`PLAN`], so there can be no circle. The table is
//! exact: an arrow that the code does not have any more is struck out of it. A new arrow is a change of the
//! design; whoever adds one says why in its commit.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, Token, crate_sources, stands};

/// Each module, and what it imports. From top to bottom: arrows only point down this list.
const PLAN: &str = "
# what a program sees
lib -> store::locking store transaction::new_directory transaction::operations transaction writer view single reader listed report error manifest options generation path place lease expect checksum progress preserve history
object_store -> object_store::batch object_store::objects
object_store::batch -> object_store::objects object_store::change object_store::refused protocol::root
object_store::store -> object_store::objects object_store::get object_store::list object_store::upload object_store::change object_store::refused protocol::root view error
object_store::upload -> object_store::change object_store::refused tokio writer protocol::root error checksum
object_store::list -> object_store::get object_store::tags object_store::change view listed error fs path
object_store::get -> object_store::tags object_store::change object_store::refused tokio view protocol::snapshot error fs checksum path
object_store::change -> object_store::refused transaction error expect checksum path
object_store::refused -> error expect path
object_store::objects -> object_store::tags tokio error options
object_store::tags -> protocol::snapshot fs checksum path
tokio -> tokio::pool tokio::append tokio::file tokio::store tokio::transaction tokio::view tokio::writer
tokio::store -> tokio::twins tokio::transaction tokio::view tokio::pool store::locking store transaction view history lease reader report error options generation
tokio::transaction -> tokio::twins tokio::writer tokio::pool transaction writer reader listed report error expect generation path
tokio::view -> tokio::twins tokio::pool view reader listed error generation path
tokio::writer -> tokio::pool writer error
tokio::append -> tokio::pool single error
tokio::file -> tokio::pool single error
tokio::pool -> protocol::caller error
tokio::twins -> error
memory -> store error fs::sim options
store::locking -> store protocol::caller protocol::open error
store::history -> store view history protocol::past protocol::history_record report error expect generation
store::maintenance -> store protocol::sweep protocol::verify protocol::control report error generation
store -> path transaction view protocol::caller protocol::resolve protocol::open protocol::root reader report error fs::os fs mutation options lease
history -> protocol::past protocol::history_record protocol::root report error generation path
transaction::restoring -> transaction protocol::past protocol::history_record protocol::root error expect protocol::resolve manifest path
transaction::expecting -> transaction protocol::snapshot protocol::expected protocol::glance protocol::root error expect generation path
transaction::directories -> transaction pruning draft protocol::check protocol::resolve protocol::stage protocol::root error fs manifest path
transaction::new_directory -> transaction error manifest place
transaction::links -> transaction draft draft::built protocol::check protocol::glance protocol::resolve protocol::stage protocol::root error fs manifest mutation path
transaction::planning -> transaction pruning draft protocol::check protocol::resolve protocol::stage protocol::root report error fs generation manifest path
transaction::operations -> transaction writer draft protocol::check protocol::snapshot protocol::stage protocol::resolve protocol::root error fs::os::outside fs::os fs path place transaction::trees
transaction::trees -> transaction protocol::tree protocol::resolve protocol::stage protocol::root error fs manifest path draft
transaction::removing -> transaction draft protocol::check protocol::resolve protocol::stage protocol::root error fs path
transaction::reading -> transaction draft protocol::read protocol::snapshot protocol::glance protocol::stage protocol::resolve protocol::root reader listed error fs path
transaction -> writer draft protocol::caller protocol::open protocol::commit protocol::refused protocol::check protocol::snapshot protocol::stage protocol::lock protocol::resolve protocol::root report error fs options generation path spelling
writer -> protocol::room draft protocol::open protocol::commit protocol::stage protocol::resolve protocol::root error path checksum spelling
pruning -> draft protocol::check protocol::resolve protocol::stage protocol::root error path
draft::built -> draft protocol::built protocol::stage protocol::resolve protocol::root protocol::layout error fs generation path
draft -> draft::building protocol::open protocol::commit protocol::stage protocol::state protocol::resolve protocol::root error fs path protocol::layout manifest
draft::building -> protocol::stage manifest path
view -> protocol::caller protocol::open protocol::snapshot protocol::state protocol::resolve protocol::root reader listed error fs generation path spelling
lease -> protocol::open protocol::lease error
single -> single::sweeping single::append single::atomic single::durable protocol::caller error fs path
single::sweeping -> protocol::root protocol::layout error fs::os fs mutation path
single::append -> single::append::timer single::append::growing single::append::options single::atomic single::durable protocol::caller protocol::root error fs mutation options path place
single::append::timer -> single::append::growing protocol::root
single::append::growing -> single::append::options single::atomic protocol::caller protocol::root protocol::layout error expect fs mutation options path place
single::append::options -> error
single::atomic -> protocol::caller protocol::root protocol::layout error expect fs::os fs mutation options path place
single::durable -> error fs::os fs options path place
# the steps, each of which knows what stands below it
protocol ->
protocol::open -> protocol::caller protocol::flush protocol::commit protocol::apply protocol::gate protocol::lease protocol::refused protocol::read protocol::sweep protocol::recover protocol::stage protocol::lock protocol::session protocol::control protocol::root report error fs mutation options generation protocol::history
protocol::flush -> protocol::commit protocol::recover protocol::lock protocol::control protocol::root error options
protocol::commit -> protocol::built protocol::leading protocol::shift protocol::gate protocol::recover protocol::apply protocol::publish protocol::batch protocol::check protocol::refused protocol::stage protocol::state protocol::queue protocol::lock protocol::deferred protocol::control protocol::root protocol::layout error fs mutation options generation path progress protocol::permissions preserve manifest protocol::history protocol::made protocol::session
protocol::shift -> protocol::recover protocol::publish protocol::lease protocol::lock protocol::root error
protocol::past -> protocol::read protocol::history protocol::history_record protocol::state protocol::layout protocol::root checksum error fs generation manifest mutation path protocol::resolve
protocol::read -> protocol::pending protocol::recover protocol::state protocol::lock protocol::resolve protocol::original protocol::control protocol::root error manifest fs mutation generation path protocol::tree protocol::mounts
protocol::sweep -> protocol::recover protocol::lock protocol::session protocol::control protocol::root protocol::layout error fs mutation path protocol::tree protocol::history
protocol::verify -> protocol::pending protocol::lock protocol::original protocol::copy protocol::control protocol::root protocol::layout report error manifest fs generation protocol::tree path mutation
protocol::recover -> protocol::recover::restore protocol::pending protocol::recover::abandon protocol::recover::doubt protocol::recover::rewrite protocol::recover::set_aside protocol::recover::plan protocol::recover::waived protocol::apply protocol::lock protocol::deferred protocol::control protocol::root protocol::layout report error manifest fs mutation options generation path progress protocol::tree protocol::history protocol::mounts
protocol::recover::abandon -> protocol::recover::restore protocol::recover::set_aside protocol::lock protocol::control protocol::root protocol::layout report error manifest fs generation protocol::tree protocol::mounts
protocol::recover::doubt -> protocol::lock protocol::control protocol::root protocol::layout report error generation
protocol::recover::waived -> protocol::control protocol::root report error manifest fs mutation options generation path
protocol::recover::restore -> protocol::recover::rewrite protocol::recover::set_aside protocol::recover::plan protocol::pending protocol::original protocol::control protocol::root protocol::layout report error manifest fs mutation generation path protocol::mounts
protocol::recover::rewrite -> protocol::apply protocol::copy protocol::resolve protocol::root protocol::layout error manifest fs generation path protocol::tree protocol::new_directory
protocol::recover::set_aside -> protocol::recover::plan protocol::copy protocol::root protocol::layout report error fs generation path
protocol::recover::plan -> protocol::original protocol::copy protocol::root report error manifest fs mutation generation path protocol::recover::trees protocol::tree
protocol::batch -> protocol::twins protocol::stage protocol::queue protocol::root error mutation
protocol::recover::trees -> protocol::tree protocol::root error manifest generation path protocol::original
protocol::apply -> protocol::control protocol::publish protocol::deferred protocol::copy protocol::root protocol::layout error manifest fs mutation generation path progress protocol::tree protocol::new_directory protocol::session
protocol::publish -> protocol::stage protocol::session protocol::control protocol::root protocol::layout error manifest fs mutation options generation path preserve protocol::history protocol::writers protocol::mounts
protocol::mounts -> protocol::tree protocol::original protocol::root error manifest mutation path
protocol::history -> protocol::stage protocol::history_record protocol::state protocol::writers protocol::control protocol::copy protocol::layout protocol::root checksum error fs generation manifest mutation path
protocol::check -> protocol::built protocol::twins protocol::stage protocol::state protocol::original protocol::resolve protocol::root error expect manifest fs mutation path protocol::tree protocol::permissions
protocol::twins -> protocol::stage protocol::resolve protocol::root protocol::layout error fs generation manifest mutation path
protocol::leading -> protocol::stage protocol::queue protocol::lock protocol::root error generation
protocol::permissions -> protocol::stage protocol::root error fs manifest mutation
protocol::refused -> protocol::stage protocol::built error fs mutation
protocol::built -> protocol::stage protocol::resolve protocol::tree protocol::original protocol::root error expect fs manifest mutation path
protocol::staged_trees -> protocol::stage protocol::layout manifest path protocol::resolve
protocol::made -> protocol::stage protocol::session protocol::new_directory protocol::root error expect fs mutation path
protocol::stage -> protocol::caller protocol::queue protocol::cleanup protocol::snapshot protocol::session protocol::resolve protocol::original protocol::root protocol::layout error expect manifest fs mutation generation path checksum progress
protocol::queue -> protocol::sync
protocol::cleanup -> protocol::session protocol::root fs mutation options path
protocol::gate -> protocol::lease protocol::lock protocol::caller protocol::root error mutation
protocol::lease -> protocol::lock protocol::session protocol::control protocol::root protocol::layout error fs mutation
protocol::lock -> protocol::caller protocol::session protocol::control protocol::root protocol::layout error expect fs mutation options path progress
protocol::snapshot -> protocol::expected protocol::glance protocol::state protocol::root error expect fs mutation generation path checksum protocol::history_record
protocol::expected -> protocol::glance protocol::state protocol::root error expect checksum fs generation path
protocol::glance -> protocol::state protocol::root listed error fs path
protocol::history_record -> protocol::layout protocol::root checksum error generation manifest manifest::text path manifest::name
protocol::state -> protocol::root error fs generation path
protocol::session -> protocol::root protocol::layout error manifest::text manifest::name fs mutation generation path
protocol::resolve -> protocol::root error fs manifest path
protocol::new_directory -> protocol::root error fs manifest mutation path
protocol::pending -> protocol::control protocol::root protocol::layout error manifest fs mutation generation
protocol::tree -> protocol::root protocol::layout error expect fs manifest mutation path protocol::original
protocol::original -> protocol::copy protocol::root error manifest fs mutation path checksum
protocol::copy -> protocol::root fs path checksum
protocol::room -> protocol::root error mutation path
protocol::writers -> protocol::root error fs path
protocol::control -> protocol::root protocol::layout error manifest::text manifest::name manifest fs mutation generation path
protocol::root -> protocol::deferred protocol::stamps protocol::layout report error fs mutation options generation path progress preserve
protocol::deferred -> fs mutation generation
protocol::stamps -> fs
protocol::layout -> fs generation path
protocol::sync ->
protocol::caller -> mutation
# plain data
reader -> fs generation
listed -> fs path
report -> options generation path preserve
spelling -> error
error -> error::operation error::reason expect generation path place preserve
error::operation ->
error::reason ->
expect -> checksum generation
manifest::text -> manifest::name manifest generation checksum manifest::tree manifest::directory path
manifest::directory -> manifest::name manifest
manifest::tree -> manifest::name manifest
manifest::name -> manifest path
manifest -> fs generation path checksum
# the real disk
fs::os -> fs::os::writer fs::os::growing fs::os::held fs::os::trees fs::os::sync fs::os::unix fs::os::windows fs::os::written fs::time fs options path
fs::os::writer -> fs::os::held fs::os::unix fs::os::windows fs::os::written fs path
fs::os::growing -> fs::os::unix fs::os::windows fs::os::written fs path
fs::os::permissions -> fs::os::unix fs::os::linux fs path preserve
fs::os::sync -> fs::os::unix fs::os::linux fs::os::windows fs::os::written fs options path
fs::os::trees -> fs::os::renaming fs::os::unix path fs
fs::os::renaming -> fs::os::unix path
fs::os::room -> fs::os::unix path
fs::os::own -> fs::os::unix fs::os::rights path
fs::os::unix -> fs::os::rights fs::os::linux fs path
fs::os::rights ->
fs::os::outside -> fs::os::linux
fs::os::linux -> fs path
fs::os::windows -> fs path
fs::os::written -> fs path
fs::os::held -> fs
# the simulated disk
fs::sim::explore -> fs::sim fs::sim::plan fs mutation
fs::sim::strangers -> fs::sim fs::sim::disk path
fs::sim -> fs::sim::process fs::sim::power fs::sim::directories fs::sim::machine fs::sim::disk fs::sim::plan fs::time fs mutation path
fs::sim::process -> fs::sim::renaming fs::sim::handles fs::sim::directories fs::sim::machine fs::sim::disk fs::sim::plan fs::time fs options path
fs::sim::power -> fs::sim::disk fs::sim::plan
fs::sim::renaming -> fs::sim::machine fs::sim::directories fs::sim::disk fs path
fs::sim::handles -> fs::sim::machine fs::sim::directories fs::sim::disk fs path
fs::sim::machine -> fs::sim::disk fs::sim::plan fs::time fs path
fs::sim::directories -> fs::sim::disk fs path
fs::sim::disk -> fs::sim::plan fs path
fs::sim::plan -> fs mutation
# what the protocol may ask of a disk
fs -> fs::wave fs::metadata options path preserve
fs::metadata ->
fs::time ->
fs::wave -> path
# leaves
checksum ->
mutation ->
options -> preserve progress
progress -> generation path
preserve -> path
generation ->
path ->
place ->
";

/// A plan as it is read: each module, and what it imports.
type Plan<'a> = Vec<(&'a str, Vec<&'a str>)>;

fn parse(text: &str) -> Plan<'_> {
    let rows = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line| str::split_once(line, "->").unwrap_or_else(|| panic!("no arrow in {line:?}"));
    rows.map(row).map(|(module, targets)| (module.trim(), targets.split_whitespace().collect())).collect()
}

/// From each module to those that it names, with one place where it does.
type Arrows = BTreeMap<String, BTreeMap<String, String>>;

/// A path in the code.
struct Named {
    segments: Vec<String>,
    /// The module in which it is resolved.
    within: Vec<String>,
    line: usize,
    /// Whether it stands in a `use`.
    imports: bool,
}

/// Every path of at least two segments or imported alone, with the trees of `use` spread out.
fn named(source: &Source) -> Vec<Named> {
    let tokens = &source.tokens;
    let mut found = Vec::new();
    let mut within = segments(&source.module());
    // Blocks that are open: whether each is that of an inline module.
    let mut blocks = Vec::new();
    let mut imports = false;
    for at in 0..tokens.len() {
        match tokens[at].text.as_str() {
            "use" => imports = true,
            ";" => imports = false,
            "{" => {
                let module = at >= 2 && tokens[at - 2].text == "mod";
                if module {
                    within.push(tokens[at - 1].text.clone());
                }
                blocks.push(module);
            }
            "}" => {
                let modules = usize::from(blocks.pop() == Some(true));
                within.truncate(within.len() - modules);
            }
            _ => {}
        }
        // `use child;` and `use child as other;` have no second segment.
        let alone = at > 0
            && tokens[at - 1].text == "use"
            && (stands(tokens, at + 1, &[";"]) || stands(tokens, at + 1, &["as"]));
        let begins = is_word(&tokens[at]) && (stands(tokens, at + 1, &["::"]) || alone);
        let goes_on = at > 0 && tokens[at - 1].text == "::";
        let limits_visibility = at > 0 && tokens[at - 1].text == "in" && tokens[at - 2].text == "(";
        if begins && !goes_on && !limits_visibility {
            let mut paths = Vec::new();
            spread(tokens, at, &[], &mut paths);
            let line = tokens[at].line;
            let named = |segments| Named { segments, within: within.clone(), line, imports };
            found.extend(paths.into_iter().map(named));
        }
    }
    found
}

fn is_word(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Follows a path from `at` through its groups. Returns the index after it.
fn spread(tokens: &[Token], mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    loop {
        if stands(tokens, at, &["{"]) {
            at += 1;
            while !stands(tokens, at, &["}"]) {
                at = spread(tokens, at, &path, paths);
                while !stands(tokens, at, &["}"]) && !stands(tokens, at, &[","]) {
                    at += 1;
                }
                at += usize::from(stands(tokens, at, &[","]));
            }
            return at + 1;
        }
        let Some(token) = tokens.get(at) else { break };
        let leads_on = is_word(token) || token.text == "*";
        if !leads_on {
            break;
        }
        // `self` in a group is what stands before the group.
        if token.text != "self" || path.is_empty() {
            path.push(token.text.clone());
        }
        at += 1;
        if !stands(tokens, at, &["::"]) {
            break;
        }
        at += 1;
    }
    paths.push(path);
    at
}

fn segments(module: &str) -> Vec<String> {
    match module {
        "lib" => Vec::new(),
        module => module.split("::").map(str::to_owned).collect(),
    }
}

fn name(segments: &[String]) -> String {
    if segments.is_empty() { "lib".to_owned() } else { segments.join("::") }
}

/// What a path means, from the crate's root. `None` if it leads to another crate, or begins with a type.
fn resolve(path: &Named, modules: &BTreeSet<String>) -> Option<Vec<String>> {
    // A program of the package is a crate of its own, which knows the library by its name.
    let program = path.within.first().is_some_and(|first| first == "bin");
    let mut resolved = match path.segments[0].as_str() {
        "cosave" if program => Vec::new(),
        "crate" if program => path.within[..2].to_vec(),
        "crate" => Vec::new(),
        "self" => path.within.clone(),
        "super" => path.within[..path.within.len() - 1].to_vec(),
        child => {
            let mut resolved = path.within.clone();
            resolved.push(child.to_owned());
            if !modules.contains(&name(&resolved)) {
                return None;
            }
            resolved
        }
    };
    for segment in &path.segments[1..] {
        if segment == "super" {
            resolved.pop();
        } else {
            resolved.push(segment.clone());
        }
    }
    Some(resolved)
}

/// The longest part of a resolved path that is a module; the crate's root if nothing else is.
fn owner(resolved: &[String], modules: &BTreeSet<String>) -> usize {
    let is_module = |length: &usize| modules.contains(&name(&resolved[..*length]));
    (1..=resolved.len()).rev().find(is_module).unwrap_or(0)
}

/// The names that a file has from other modules. Those of its own children it may hand on: it is their face.
fn borrowed(source: &Source, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let own = segments(&source.module());
    let mut found = BTreeSet::new();
    for path in named(source).iter().filter(|path| path.imports) {
        let Some(resolved) = resolve(path, modules) else { continue };
        let length = owner(&resolved, modules);
        let is_own = resolved[..length].starts_with(&own) && !own.is_empty();
        found.extend(resolved[length..].last().filter(|_| !is_own).cloned());
    }
    found
}

/// The arrows of the code, and what is taken from a module that does not own it.
fn arrows(sources: &[Source]) -> (Arrows, Vec<String>) {
    let modules: BTreeSet<_> = sources.iter().map(Source::module).collect();
    let borrowed: BTreeMap<_, _> =
        sources.iter().map(|source| (source.module(), borrowed(source, &modules))).collect();
    let (mut arrows, mut detours) = (Arrows::new(), Vec::new());
    for source in sources {
        let from = source.module();
        let known = arrows.entry(from.clone()).or_default();
        for path in named(source) {
            let Some(resolved) = resolve(&path, &modules) else { continue };
            let length = owner(&resolved, &modules);
            let owner = name(&resolved[..length]);
            if owner == from {
                continue;
            }
            let place = source.at(path.line);
            let program = from.starts_with("bin::");
            if resolved.last().is_some_and(|last| last == "*") {
                detours.push(format!("{place}: all of `{owner}` is taken; say what is used"));
            }
            if let Some(item) = resolved.get(length).filter(|_| !program) {
                if owner == "lib" || borrowed[&owner].contains(item) {
                    detours.push(format!("{place}: `{item}` is taken from `{owner}`, which does not own it"));
                }
            }
            known.entry(owner).or_insert(place);
        }
    }
    (arrows, detours)
}

/// What is wrong with the plan, seen beside the code.
fn faults(plan: &Plan<'_>, sources: &[Source]) -> Vec<String> {
    let (arrows, mut faults) = arrows(sources);
    let floor = |module: &str| plan.iter().position(|(name, _)| *name == module);
    for (index, (module, targets)) in plan.iter().enumerate() {
        if floor(module) != Some(index) {
            faults.push(format!("`{module}` is in the plan twice"));
        }
        let Some(known) = arrows.get(*module) else {
            faults.push(format!("the plan has `{module}`, and there is no such file"));
            continue;
        };
        for target in targets {
            if !known.contains_key(*target) {
                faults.push(format!("the plan has {module} -> {target}, and no code does"));
            }
            if floor(target).is_none_or(|below| below <= index) {
                faults.push(format!("{module} -> {target} does not point down"));
            }
        }
    }
    for (module, known) in &arrows {
        let planned = plan.iter().find(|(name, _)| name == module).map(|(_, targets)| targets.as_slice());
        if planned.is_none() {
            faults.push(format!("`{module}` is not in the plan"));
        }
        for (target, place) in known {
            if !planned.unwrap_or_default().contains(&target.as_str()) {
                faults.push(format!("{place}: {module} -> {target} is not in the plan"));
            }
        }
    }
    faults
}

/// The plan as the code has it, in the order of the plan, to be compared or copied.
fn as_code(plan: &Plan<'_>, sources: &[Source]) -> String {
    let (arrows, _) = arrows(sources);
    let floor = |module: &str| plan.iter().position(|(name, _)| *name == module).unwrap_or(usize::MAX);
    let mut rows: Vec<_> = arrows.iter().collect();
    rows.sort_by_key(|(module, _)| floor(module));
    let rows = rows.into_iter().map(|(module, targets)| {
        let mut targets: Vec<_> = targets.keys().collect();
        targets.sort_by_key(|target| floor(target));
        let targets = targets.into_iter().map(|target| format!(" {target}"));
        format!("{module} ->{}\n", targets.collect::<String>())
    });
    rows.collect()
}

#[test]
fn modules_import_only_what_the_plan_allows() {
    let sources = crate_sources();
    let plan = parse(PLAN);
    let faults = faults(&plan, &sources);
    assert!(faults.is_empty(), "{}\nthe code has:\n{}", faults.join("\n"), as_code(&plan, &sources));
}

/// A house of three floors: `a` above `b` above `b::c`.
fn house(a: &str, b: &str, c: &str) -> Vec<Source> {
    let files = [("src/a.rs", a), ("src/b/mod.rs", b), ("src/b/c.rs", c)];
    files.iter().map(|(path, text)| Source::new(path, text)).collect()
}

#[test]
fn a_plan_that_the_code_follows_has_no_faults() {
    let plan = parse("a -> b b::c\nb -> b::c\nb::c ->");
    let sources = house("use crate::b::{self, c::{X, Y as Z}, W};", "fn f() { c::g() }", "use std::fs;");
    assert_eq!(faults(&plan, &sources), Vec::<String>::new());
}

#[test]
fn every_way_to_name_a_module_is_an_arrow() {
    let (arrows_down, _) = arrows(&house("", "use c as child;", ""));
    assert!(arrows_down["b"].contains_key("b::c"), "{arrows_down:?}");
    for (text, module) in [
        ("use crate::a::X;", "a"),
        ("use crate::{a::{X, Y}, z};", "a"),
        ("fn f() -> crate::a::X { todo!() }", "a"),
        ("fn f() { assert!(crate::a::X > 1); }", "a"),
        ("use super::X;", "b"),
        ("use super::super::a;", "a"),
        ("mod inner { use super::super::super::a::X; }", "a"),
        ("mod inner { use super::super::X; }", "b"),
        ("fn f(x: super::X) {}", "b"),
    ] {
        let (arrows, _) = arrows(&house("", "", text));
        assert!(arrows["b::c"].contains_key(module), "{text} gives {arrows:?}");
    }
}

#[test]
fn an_arrow_too_many_or_too_few_is_a_fault() {
    let plan = parse("a -> b\nb -> b::c\nb::c ->");
    let unused = faults(&plan, &house("use crate::b::X;", "", ""));
    assert_eq!(unused, ["the plan has b -> b::c, and no code does"]);
    let new = faults(&plan, &house("use crate::b::X;\nuse crate::b::c::Y;", "use self::c::Y;", ""));
    assert_eq!(new, ["src/a.rs:2: a -> b::c is not in the plan"]);
    let unknown = faults(&plan[1..].to_vec(), &house("", "use self::c::Y;", ""));
    assert_eq!(unknown, ["`a` is not in the plan"]);
    let gone = faults(&[plan, vec![("d", Vec::new())]].concat(), &house("use crate::b::X;", "use c::Y;", ""));
    assert_eq!(gone, ["the plan has `d`, and there is no such file"]);
}

#[test]
fn an_arrow_upwards_is_a_fault_and_so_every_circle_is() {
    let plan = parse("a ->\nb -> b::c\nb::c -> b");
    assert_eq!(faults(&plan, &house("", "use c::Y;", "use super::X;")), ["b::c -> b does not point down"]);
    let other = parse("a ->\nb::c -> b\nb -> b::c");
    assert_eq!(faults(&other, &house("", "use c::Y;", "use super::X;")), ["b -> b::c does not point down"]);
}

#[test]
fn a_name_taken_from_a_module_that_does_not_own_it_is_a_fault() {
    let plan = parse("a -> b\nb -> b::c\nb::c ->");
    let own_child = faults(&plan, &house("use crate::b::Y;", "pub(crate) use c::Y;", ""));
    assert_eq!(own_child, Vec::<String>::new());
    let (_, stranger) = arrows(&house("pub(crate) use crate::b::Y;", "", "use crate::a::{X, Y};"));
    assert_eq!(stranger, ["src/b/c.rs:1: `Y` is taken from `a`, which does not own it"]);
    let (_, all) = arrows(&house("use crate::b::*;", "", ""));
    assert_eq!(all, ["src/a.rs:1: all of `b` is taken; say what is used"]);
    let (_, of_the_root) = arrows(&house("fn f(x: crate::Y) {}", "", ""));
    assert_eq!(of_the_root, ["src/a.rs:1: `Y` is taken from `lib`, which does not own it"]);
}
