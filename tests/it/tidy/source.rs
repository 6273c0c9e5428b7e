//! The files of `src/` as tokens, without comments and tests, so that no check has to guess where a string ends.

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// One word or sign of a source file. A string is `""` whatever it holds; `::` is one token.
#[derive(Clone, Debug)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// A file of the crate.
#[derive(Debug)]
pub struct Source {
    /// From the crate's directory, with slashes: `src/fs/mod.rs`.
    pub path: String,
    pub text: String,
    /// Without what only tests compile.
    pub tokens: Vec<Token>,
    /// Modules in files of their own that only tests compile.
    test_modules: Vec<String>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let parsed: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut tokens = Vec::new();
        flatten(parsed, &mut tokens);
        let (tokens, test_modules) = without_tests(&tokens);
        Self { path: path.to_owned(), text: text.to_owned(), tokens, test_modules }
    }

    /// The module that the file is: `fs` for `src/fs/mod.rs`, `fs::wave` for `src/fs/wave.rs`, `lib` for the root.
    pub fn module(&self) -> String {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
    }

    fn child(&self, name: &str) -> String {
        match self.module().as_str() {
            "lib" => name.to_owned(),
            module => format!("{module}::{name}"),
        }
    }

    /// Where something is, for a message.
    pub fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path)
    }
}

/// Every file of the crate itself, in order of its path. Files that only tests compile are left out.
pub fn crate_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(root, "src", &mut sources);
    assert!(!sources.is_empty(), "there is no source in {}", root.display());
    let of_tests: Vec<String> =
        sources.iter().flat_map(|source| source.test_modules.iter().map(|name| source.child(name))).collect();
    sources.retain(|source| !of_tests.contains(&source.module()));
    sources
}

fn collect(root: &Path, below: &str, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(root.join(below)).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{below}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, sources);
        } else if path.ends_with(".rs") {
            sources.push(Source::new(&path, &fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut colon = false;
    for tree in stream {
        let line = tree.span().start().line;
        let mut push = |text: String, line| tokens.push(Token { text, line });
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                push(open.to_owned(), line);
                flatten(group.stream(), tokens);
                tokens.push(Token { text: close.to_owned(), line: group.span_close().end().line });
            }
            TokenTree::Ident(word) => push(word.to_string(), line),
            TokenTree::Punct(sign) if sign.as_char() == ':' && colon => {
                // The second of two that stand together.
                tokens.pop();
                tokens.push(Token { text: "::".to_owned(), line });
                colon = false;
                continue;
            }
            TokenTree::Punct(sign) => {
                push(sign.to_string(), line);
                colon = sign.as_char() == ':' && sign.spacing() == Spacing::Joint;
                continue;
            }
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                push(if text.contains('"') { "\"\"".to_owned() } else { text }, line);
            }
        }
        colon = false;
    }
}

/// Whether these tokens stand at `at`.
pub fn stands(tokens: &[Token], at: usize, words: &[&str]) -> bool {
    let found = tokens.iter().skip(at).map(|token| token.text.as_str());
    found.take(words.len()).eq(words.iter().copied())
}

/// The index of the token that closes the group which `open` opens.
pub fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "{" | "[" => depth += 1,
            ")" | "}" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("a group is not closed")
}

/// The index after the item that begins at `at`: after its block, or after its semicolon.
fn after_item(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "{" => return closing(tokens, at) + 1,
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    at
}

/// The tokens without items under `#[cfg(test)]`, and the modules among those items that are files of their own.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut modules, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        let only_tests = stands(tokens, at, &["#", "[", "cfg", "(", "test", ")", "]"])
            || stands(tokens, at, &["#", "[", "cfg", "(", "all", "(", "test", ","]);
        if !only_tests {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = after_item(tokens, closing(tokens, at + 1) + 1);
        if let Some(name) = (at..end).find(|at| stands(tokens, *at, &["mod"])).map(|at| at + 1) {
            if stands(tokens, name + 1, &[";"]) {
                modules.push(tokens[name].text.clone());
            }
        }
        at = end;
    }
    (kept, modules)
}

#[test]
fn a_source_is_read_without_its_comments_strings_and_tests() {
    let text = "//! crate::a\n/* crate::b */ fn f() { g(\"crate::c\"); h::i() }\n\
        #[cfg(test)]\nmod tests { use crate::d; }\n#[cfg(test)]\nmod more;\nfn last() {}";
    let source = Source::new("src/a/b.rs", text);
    let words: Vec<_> = source.tokens.iter().map(|token| token.text.as_str()).collect();
    let expected = r#"# ! [ doc = "" ] fn f ( ) { g ( "" ) ; h :: i ( ) } fn last ( ) { }"#;
    assert_eq!(words.join(" "), expected);
    assert_eq!(source.test_modules, ["more"]);
    assert_eq!(source.tokens.last().unwrap().line, 7);
}

#[test]
fn a_file_is_the_module_that_its_path_says() {
    let module = |path| Source::new(path, "").module();
    assert_eq!(module("src/lib.rs"), "lib");
    assert_eq!(module("src/fs/mod.rs"), "fs");
    assert_eq!(module("src/fs/os/unix.rs"), "fs::os::unix");
    assert_eq!(Source::new("src/lib.rs", "").child("fs"), "fs");
}
