//! The house rules that no compiler holds: who may know whom (`arrows`), how long things are, what is not called.
//!
//! Each check is a function of source texts, so that a made-up text shows that it can fail.

mod arrows;
mod source;

use source::{Source, closing, crate_sources, stands};

/// Three hundred lines are comfortable; a file of more than this holds two ideas.
const FILE_LINES_MAX: usize = 600;

/// What fits one screen.
const FUNCTION_LINES_MAX: usize = 70;

/// What no code of the crate calls, as the tokens that stand beside each other, and why.
const BANNED: &[(&[&str], &str)] = &[
    (&[".", "unwrap", "("], "an impossible case is an assertion that says why it is impossible"),
    (&[".", "expect", "("], "an impossible case is an assertion that says why it is impossible"),
    (&["panic", "!"], "an impossible case is an assertion that says why it is impossible"),
    (&["todo", "!"], "unfinished"),
    (&["unimplemented", "!"], "unfinished"),
    (&["dbg", "!"], "left over"),
    (&["print", "!"], "a library does not print"),
    (&["println", "!"], "a library does not print"),
    (&["eprint", "!"], "an error goes to the caller"),
    (&["eprintln", "!"], "an error goes to the caller"),
    (&["unsafe"], "the crate has none"),
];

/// What is called in `src/fs/os` and by the clock alone, and why.
const BANNED_OUTSIDE_OS: &[(&[&str], &str)] = &[
    (&["fs", "::", "write"], "the simulated disk would not see it"),
    (&["fs", "::", "copy"], "the simulated disk would not see it"),
    (&["fs", "::", "rename"], "the simulated disk would not see it"),
    (&["fs", "::", "hard_link"], "the simulated disk would not see it"),
    (&["fs", "::", "remove_file"], "the simulated disk would not see it"),
    (&["fs", "::", "remove_dir"], "the simulated disk would not see it"),
    (&["fs", "::", "remove_dir_all"], "the simulated disk would not see it"),
    (&["fs", "::", "create_dir"], "the simulated disk would not see it"),
    (&["fs", "::", "create_dir_all"], "the simulated disk would not see it"),
    (&["fs", "::", "set_permissions"], "the simulated disk would not see it"),
    (&["File", "::", "create"], "the simulated disk would not see it"),
    (&["File", "::", "create_new"], "the simulated disk would not see it"),
    (&["OpenOptions", "::", "new"], "the simulated disk would not see it"),
    (&[".", "sync_all", "("], "a sync is a wave with a barrier's name"),
    (&[".", "sync_data", "("], "a sync is a wave with a barrier's name"),
    (&["Instant", "::", "now"], "a run would not repeat"),
    (&["SystemTime", "::", "now"], "a run would not repeat"),
    (&["thread", "::", "sleep"], "a run would not repeat"),
    (&["Uuid", "::", "new_v4"], "a run would not repeat"),
    (&["process", "::", "id"], "a run would not repeat"),
];

/// The types whose public methods each have an example, which runs as a test of the documentation.
const WITH_EXAMPLES: &[&str] = &[
    "Store",
    "StoreOptions",
    "Transaction",
    "FileBuilder",
    "FileWriter",
    "View",
    "Commit",
    "AtomicFile",
    "LockGuard",
    "Objects",
    "Batch",
];

/// What no line of a source says, comments included.
const BANNED_WORDS: &[&str] = &["TODO", "FIXME", "XXX", "FIGURES"];

fn too_long(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{} has {lines} lines; {FILE_LINES_MAX} are full", source.path));
        }
        let tokens = &source.tokens;
        for at in (0..tokens.len()).filter(|at| stands(tokens, *at, &["fn"])) {
            let Some(open) = body(source, at) else { continue };
            let lines = tokens[closing(tokens, open)].line - tokens[at].line + 1;
            if lines > FUNCTION_LINES_MAX {
                let (place, name) = (source.at(tokens[at].line), &tokens[at + 1].text);
                found.push(format!("{place}: `{name}` has {lines} lines; {FUNCTION_LINES_MAX} fit a screen"));
            }
        }
    }
    found
}

/// The brace that opens the body of the function at `at`, or none for a declaration or a type.
fn body(source: &Source, mut at: usize) -> Option<usize> {
    while let Some(token) = source.tokens.get(at) {
        match token.text.as_str() {
            "{" => return Some(at),
            ";" | "," | "=" | ")" | "}" => return None,
            "(" | "[" => at = closing(&source.tokens, at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn banned(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let asks_system = source.path.starts_with("src/fs/os/") || source.path == "src/fs/time.rs";
        let outside: &[_] = if asks_system { &[] } else { BANNED_OUTSIDE_OS };
        for (words, reason) in BANNED.iter().chain(outside) {
            for at in (0..source.tokens.len()).filter(|at| stands(&source.tokens, *at, words)) {
                let place = source.at(source.tokens[at].line);
                found.push(format!("{place}: `{}` is banned: {reason}", words.concat()));
            }
        }
        for at in (0..source.tokens.len()).filter(|at| stands(&source.tokens, *at, &["allow", "("])) {
            let end = closing(&source.tokens, at + 1);
            if source.tokens[at..end].iter().any(|token| token.text == "dead_code") {
                let place = source.at(source.tokens[at].line);
                found.push(format!("{place}: `allow(dead_code)` is banned: what is unused goes"));
            }
        }
        for (index, line) in source.text.lines().enumerate() {
            for word in BANNED_WORDS.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}: `{word}` is banned: finish it, or leave it", source.at(index + 1)));
            }
        }
    }
    found
}

/// The trait is what the protocol may ask of a disk. Which of its rules a test takes away is not the disk's.
fn rules_known_to_the_file_system(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let tokens = &source.tokens;
        for at in (0..tokens.len()).filter(|at| stands(tokens, *at, &["trait", "FileSystem"])) {
            let open = (at..tokens.len()).find(|at| stands(tokens, *at, &["{"])).unwrap();
            let body = &tokens[open..closing(tokens, open)];
            found.extend(body.iter().filter(|token| token.text == "Rule").map(|token| source.at(token.line)));
        }
    }
    found
}

/// A module opens with a paragraph: what it does, what it relies on, what it never does.
fn without_a_paragraph(sources: &[Source]) -> Vec<String> {
    let begins = |source: &&Source| !source.text.starts_with("//!") && !source.text.starts_with("#![doc = ");
    sources.iter().filter(begins).map(|source| source.path.clone()).collect()
}

/// Public methods of the types in [`WITH_EXAMPLES`] that have no example, unless nobody finds them or only
/// programs that bring their own file system can call them. The types for tokio have the methods of these,
/// and their examples where they differ.
fn without_an_example(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("src/tokio/")) {
        let (mut owner, mut docs) = ("", String::new());
        for line in source.text.lines() {
            let words = line.trim_start();
            if let Some(block) = line.strip_prefix("impl") {
                let is_inherent = !line.contains(" for ");
                let named = block.trim_start_matches(|c| c != ' ').trim_start();
                let name = named.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
                owner = if is_inherent { name } else { "" };
            }
            if words.starts_with("///") || words.starts_with("#[") {
                docs.push_str(words);
                continue;
            }
            if let Some(function) = words.strip_prefix("pub fn ").filter(|_| WITH_EXAMPLES.contains(&owner)) {
                let name = function.split(['(', '<']).next().unwrap_or("");
                let is_apart = docs.contains("doc(hidden)") || docs.contains("feature = \"sim\"");
                if !docs.contains("# Examples") && !is_apart {
                    found.push(format!("{}: `{owner}::{name}` has no example", source.path));
                }
            }
            docs.clear();
        }
    }
    found
}

#[test]
fn every_method_that_programs_call_has_an_example() {
    let sources = crate_sources();
    for name in WITH_EXAMPLES {
        let defined = format!("pub struct {name}");
        assert!(sources.iter().any(|source| source.text.contains(&defined)), "no `{name}`");
    }
    assert_eq!(without_an_example(&sources), Vec::<String>::new());
}

#[test]
fn a_method_without_an_example_is_found() {
    let text = |docs: &str, block: &str| format!("{block} {{\n    {docs}\n    pub fn f(&self) {{}}\n}}\n");
    let of = |docs: &str, block: &str| without_an_example(&one(&text(docs, block)));
    assert_eq!(of("/// Says.", "impl Store"), ["src/a.rs: `Store::f` has no example"]);
    assert_eq!(of("/// Says.", "impl<T> Commit<T>"), ["src/a.rs: `Commit::f` has no example"]);
    for (docs, block) in [
        ("/// # Examples", "impl Store"),
        ("#[doc(hidden)]", "impl Store"),
        ("/// Says.", "impl Other"),
        ("/// Says.", "impl Deref for Store"),
    ] {
        assert_eq!(of(docs, block), Vec::<String>::new(), "{docs} in {block}");
    }
}

#[test]
fn files_and_functions_are_short_enough_to_be_read() {
    assert_eq!(too_long(&crate_sources()), Vec::<String>::new());
}

#[test]
fn nothing_banned_is_called() {
    assert_eq!(banned(&crate_sources()), Vec::<String>::new());
}

#[test]
fn the_file_system_knows_no_rules_of_the_protocol() {
    let sources = crate_sources();
    let there = sources.iter().any(|source| source.text.contains("pub trait FileSystem"));
    assert!(there, "the trait has another name now: look for that one");
    assert_eq!(rules_known_to_the_file_system(&sources), Vec::<String>::new());
}

#[test]
fn every_module_opens_with_a_paragraph() {
    assert_eq!(without_a_paragraph(&crate_sources()), Vec::<String>::new());
}

fn one(text: &str) -> [Source; 1] {
    [Source::new("src/a.rs", text)]
}

#[test]
fn what_is_too_long_is_found() {
    let long = format!("fn f(g: fn(u8) -> u8) {{\n{}}}\nfn h();\n", "let x = 1;\n".repeat(69));
    assert_eq!(too_long(&one(&long)), ["src/a.rs:1: `f` has 71 lines; 70 fit a screen"]);
    assert_eq!(too_long(&one(&long.replacen("let x = 1;\n", "", 1))), Vec::<String>::new());
    assert_eq!(too_long(&one(&"\n".repeat(601))), ["src/a.rs has 601 lines; 600 are full"]);
    assert_eq!(too_long(&one(&"\n".repeat(600))), Vec::<String>::new());
}

#[test]
fn everything_banned_is_found() {
    for (words, _) in BANNED.iter().chain(BANNED_OUTSIDE_OS) {
        let close = if words.contains(&"(") { ")" } else { "" };
        let text = format!("fn f() {{ x {} {close} }}", words.concat());
        let found = banned(&one(&text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let in_a_test = format!("#[cfg(test)]\nmod tests {{ {text} }}");
        assert_eq!(banned(&one(&in_a_test)), Vec::<String>::new());
    }
    for text in ["#[allow(unused, dead_code, reason = \"\")] fn f() {}", "// TODO\n", "/* FIGURES */"] {
        assert_eq!(banned(&one(text)).len(), 1, "{text}");
    }
    let real = Source::new("src/fs/os/a.rs", "fn f() { std::fs::rename(a, b) }");
    assert_eq!(banned(&[real]), Vec::<String>::new());
}

#[test]
fn a_rule_in_the_trait_is_found() {
    let text =
        "use a::Rule;\npub trait FileSystem: Send {\n fn f(&self);\n fn keeps(&self, rule: Rule) -> bool;\n}";
    assert_eq!(rules_known_to_the_file_system(&one(text)), ["src/a.rs:4"]);
}

#[test]
fn a_module_without_a_paragraph_is_found() {
    assert_eq!(without_a_paragraph(&one("use a::b;\n//! Late.")), ["src/a.rs"]);
}
