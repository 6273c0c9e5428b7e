//! How the project is written: sentences that can be read once, and one word for one thing.
//!
//! Each check is a function of a text, so that a made-up text shows that it can fail.

use std::fs;
use std::path::Path;

/// More words than this in one sentence have to be read twice.
const SENTENCE_WORDS_MAX: usize = 30;

/// The texts that are read: files, and directories with Rust sources below them.
const TEXTS: &[&str] =
    &["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "benches", "examples", "fuzz", "src", "tests"];

/// Directories that hold no text of ours.
const LEFT_OUT: &[&str] = &["corpus", "fixtures", "target"];

/// Words that once meant several things, and what to write instead.
const BANNED: &[(&[&str], &str)] = &[
    (&["settle", "settles", "settled", "settling"], "make durable, finish or decide"),
    (
        &["forget", "forgets", "forgot", "forgotten", "forgetting"],
        "drop, discard, leave out or no longer know",
    ),
    (&["teeth", "sabotage", "sabotages"], "mutation"),
    (&["carry", "carries", "carried"], "defer, hold or copy"),
    (&["passenger", "passengers", "board"], "a wave that is attached"),
    (&["leftover", "leftovers"], "what a session or a crash left"),
];

/// Where a banned word is the right one: the file, and the sentence's beginning.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// A part of a text that ends where a sentence must: a paragraph, a heading, a list item, a table's cell.
#[derive(Debug, Default)]
struct Block {
    /// Each word, and the line that it stands in.
    words: Vec<(usize, String)>,
}

/// One sentence, and the line in which it begins.
#[derive(Debug, PartialEq)]
struct Sentence {
    line: usize,
    words: Vec<String>,
}

/// The blocks of a text in Markdown, whose lines are numbered. Blocks of code are left out.
fn blocks<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Block> {
    let mut blocks = vec![Block::default()];
    let mut is_code = false;
    for (number, line) in lines {
        let line = line.trim();
        if line.starts_with("```") {
            is_code = !is_code;
        }
        let is_comment = line.starts_with("<!--");
        if is_code || is_comment || line.is_empty() || line.starts_with("```") {
            blocks.push(Block::default());
            continue;
        }
        let is_heading = line.starts_with('#') && !line.starts_with("#[");
        if is_heading || line.starts_with('|') || is_list_item(line) {
            blocks.push(Block::default());
        }
        // A cell lists things between semicolons.
        let cells = match line.starts_with('|') {
            true => line.replace("\\|", "").replace("; ", "|"),
            false => line.replace('|', ""),
        };
        for (index, cell) in cells.split('|').enumerate() {
            if index > 0 || is_heading {
                blocks.push(Block::default());
            }
            let words = cell.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric));
            let block = blocks.last_mut().unwrap();
            block.words.extend(words.map(|word| (number, word.to_owned())));
        }
        if is_heading {
            blocks.push(Block::default());
        }
    }
    blocks.retain(|block| !block.words.is_empty());
    blocks
}

fn is_list_item(line: &str) -> bool {
    let after_number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_numbered = after_number.len() < line.len() && after_number.starts_with(". ");
    is_numbered || line.starts_with("- ") || line.starts_with("* ")
}

/// The comments of a Rust source as text. What is no comment, or a comment of another kind, ends a block.
fn comments(source: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut last = "";
    for (index, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let marker = ["///", "//!", "//"].into_iter().find(|marker| line.starts_with(marker));
        if marker.unwrap_or_default() != last {
            lines.push((index, ""));
            last = marker.unwrap_or_default();
        }
        if let Some(marker) = marker {
            lines.push((index + 1, &line[marker.len()..]));
        }
    }
    lines
}

fn sentences(blocks: &[Block]) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    for block in blocks {
        let mut words: Vec<&(usize, String)> = Vec::new();
        for word in &block.words {
            words.push(word);
            let bare = word.1.trim_end_matches([')', '*', '"', '_']);
            if bare.ends_with(['.', '!', '?']) {
                sentences.push(sentence(&words));
                words.clear();
            }
        }
        if !words.is_empty() {
            sentences.push(sentence(&words));
        }
    }
    sentences
}

fn sentence(words: &[&(usize, String)]) -> Sentence {
    Sentence { line: words[0].0, words: words.iter().map(|(_, word)| word.clone()).collect() }
}

/// The sentences of a file, by what its name says it is.
fn read(path: &str, text: &str) -> Vec<Sentence> {
    if path.ends_with(".rs") {
        sentences(&blocks(comments(text).into_iter()))
    } else {
        sentences(&blocks(text.lines().enumerate().map(|(index, line)| (index + 1, line))))
    }
}

fn too_long(path: &str, text: &str) -> Vec<String> {
    let long = read(path, text).into_iter().filter(|sentence| sentence.words.len() > SENTENCE_WORDS_MAX);
    long.map(|sentence| {
        let (line, count) = (sentence.line, sentence.words.len());
        format!("{path}:{line}: {count} words in one sentence: {}", sentence.words.join(" "))
    })
    .collect()
}

fn banned(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for sentence in read(path, text) {
        let whole = sentence.words.join(" ");
        if EXCEPTIONS.iter().any(|(file, beginning)| *file == path && whole.starts_with(beginning)) {
            continue;
        }
        let words = whole.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase);
        for word in words {
            for (_, instead) in BANNED.iter().filter(|(words, _)| words.contains(&word.as_str())) {
                found.push(format!("{path}:{}: `{word}` is banned: write {instead}", sentence.line));
            }
        }
    }
    found
}

/// Every text, by its path.
fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for path in TEXTS {
        collect(path, &mut texts);
    }
    assert!(texts.len() > TEXTS.len(), "the sources are not there");
    texts
}

fn collect(path: &str, texts: &mut Vec<(String, String)>) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if !full.is_dir() {
        texts.push((path.to_owned(), fs::read_to_string(full).unwrap()));
        return;
    }
    let mut names: Vec<_> = fs::read_dir(full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let name = name.to_str().unwrap();
        let is_text = name.ends_with(".rs") || name.ends_with(".md") || !name.contains('.');
        if is_text && !LEFT_OUT.contains(&name) {
            collect(&format!("{path}/{name}"), texts);
        }
    }
}

fn found(check: fn(&str, &str) -> Vec<String>) -> Vec<String> {
    texts().iter().flat_map(|(path, text)| check(path, text)).collect()
}

#[test]
fn no_sentence_has_to_be_read_twice() {
    assert_eq!(found(too_long), Vec::<String>::new());
}

#[test]
fn one_word_has_one_meaning() {
    assert_eq!(found(banned), Vec::<String>::new());
}

#[test]
fn every_exception_is_needed() {
    let texts = texts();
    for (path, beginning) in EXCEPTIONS {
        let text = texts.iter().find(|(known, _)| known == path).map(|(_, text)| text.as_str());
        let sentences = read(path, text.unwrap_or_default());
        let stands = sentences.iter().any(|sentence| sentence.words.join(" ").starts_with(beginning));
        assert!(stands, "{path} has no sentence that begins with {beginning:?}");
    }
}

#[test]
fn a_long_sentence_is_found_wherever_it_stands() {
    let (fine, long) = ("word ".repeat(30), "word ".repeat(31));
    for (path, before, between) in [
        ("a.md", "", "\n"),
        ("a.md", "- ", "\n  "),
        ("a.md", "1. ", "\n"),
        ("a.md", "| short | ", "  "),
        ("src/a.rs", "//! ", "\n//! "),
        ("src/a.rs", "    /// ", "\n    /// "),
        ("src/a.rs", "// ", "\n// "),
    ] {
        let text = |words: &str| format!("{before}{}", words.trim_end().replacen(' ', between, 1));
        assert_eq!(too_long(path, &text(&fine)), Vec::<String>::new(), "{path} {before}");
        let found = too_long(path, &text(&long));
        assert_eq!(found.len(), 1, "{path} {before}: {found:?}");
        assert!(found[0].starts_with(&format!("{path}:1: 31 words in one sentence: word")), "{found:?}");
    }
}

#[test]
fn a_sentence_ends_where_a_reader_sees_it_end() {
    let half = "word ".repeat(20);
    let (half, line) = (half.trim_end(), format!("// {half}", half = half.trim_end()));
    for text in [
        format!("{half}. {half}"),
        format!("({half}.) {half}"),
        format!("**{half}!** {half}?"),
        format!("# {half}\n{half}"),
        format!("- {half}\n- {half}"),
        format!("{half}\n\n{half}"),
        format!("| {half} | {half} |\n| {half} | {half} |"),
        format!("| {half}; {half} | {half} |"),
        format!("{half}\n```text\n{half}. {half} {half}\n```\n{half}"),
    ] {
        assert_eq!(too_long("a.md", &text), Vec::<String>::new(), "{text}");
    }
    for text in [format!("{line}\nfn f() {{}}\n{line}"), format!("//! {half}\n/// {half}")] {
        assert_eq!(too_long("src/a.rs", &text), Vec::<String>::new(), "{text}");
    }
    for text in [format!("{half}; {half}"), format!("{half}: {half}"), format!("{half} `.` {half}")] {
        assert_eq!(too_long("a.md", &text).len(), 1, "{text}");
    }
}

#[test]
fn every_banned_word_is_found() {
    for word in BANNED.iter().flat_map(|(words, _)| *words) {
        let found = banned("src/a.rs", &format!("fn f() {{}}\n/// One ({word}).\nfn {word}() {{}}"));
        assert_eq!(found.len(), 1, "{word}: {found:?}");
        assert!(found[0].starts_with(&format!("src/a.rs:2: `{word}` is banned: write ")), "{found:?}");
    }
    assert_eq!(banned("a.md", "Unsettled; `forget_me`.\n```text\nsettle\n```"), Vec::<String>::new());
}
