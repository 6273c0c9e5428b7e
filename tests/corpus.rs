//! The fuzzer's corpus, and thousands of small changes of each of its files, as an ordinary test.
//!
//! Knows where the corpus lies and how to change bytes; what must hold is in `fuzz/checks.rs`. Every run
//! makes the same changes. A failure names the file and the change: `CORPUS_CASE=recovery/gap:17` in the
//! environment runs that one alone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "the checks are shared with the fuzz targets, not exported")]

#[path = "../fuzz/checks.rs"]
mod checks;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// A small generator of numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap()
    }
}

/// Pieces that mean something to one check or another.
const PIECES: &[&[u8]] = &[
    b"/",
    b"..",
    b"../",
    b".",
    b"\0",
    b"\n",
    b"|",
    b"\"",
    b"\\u0000",
    b"{",
    b"[",
    b"]",
    b"}",
    b"null",
    b"0",
    b"-1",
    b"18446744073709551615",
    b"1e999",
    b"\xff",
    b".cosave",
    b".pending",
    b".applied",
    b".sync-failed",
    b"%7",
    b"1",
    b"2",
    b" ",
    b"b",
    b"m",
    b"s",
    b"C:",
    b"\\",
];

/// Changes bytes a little: `seed` decides how. Seed 0 leaves them as they are.
fn changed(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut random = Random(seed);
    let changes = if seed == 0 { 0 } else { 1 + random.below(4) };
    for _ in 0..changes {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => bytes.truncate(at),
            3 => _ = bytes.drain(at..end),
            4 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            5 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
            _ => drop(bytes.splice(at..end, PIECES[random.below(PIECES.len())].iter().copied())),
        }
    }
    bytes
}

/// Runs a check on every file of its corpus, and on `seeds` changes of each.
fn run(target: &str, check: fn(&[u8]), seeds: u64) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "there is nothing in {}", corpus.display());
    let wanted = std::env::var("CORPUS_CASE").ok();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&file).unwrap();
        for seed in 0..=seeds {
            let case = format!("{target}/{name}:{seed}");
            if wanted.as_ref().is_some_and(|wanted| *wanted != case) {
                continue;
            }
            let input = changed(&bytes, seed);
            if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
                panic!("{case} fails: {:?}", String::from_utf8_lossy(&input));
            }
        }
    }
}

#[test]
fn manifests() {
    run("manifest", checks::manifest, 3000);
}

#[test]
fn paths() {
    run("path", checks::path, 10_000);
}

#[test]
fn recoveries() {
    run("recovery", checks::recovery, 300);
}
