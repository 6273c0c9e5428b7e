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
    b"3",
    b" ",
    b"b",
    b"m",
    b"s",
    b"c",
    b"x",
    b"o",
    b"t",
    b"C:",
    b"\\",
];

/// Changes bytes a little: `seed` decides how. Seed 0 leaves them as they are.
fn changed(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut random = fastrand::Rng::with_seed(seed);
    let changes = if seed == 0 { 0 } else { random.usize(1..=4) };
    for _ in 0..changes {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..16)).min(bytes.len());
        match random.usize(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.usize(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => bytes.truncate(at),
            3 => _ = bytes.drain(at..end),
            4 => {
                let piece = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
            5 => drop(bytes.splice(at..at, random.choice(PIECES).unwrap().iter().copied())),
            _ => drop(bytes.splice(at..end, random.choice(PIECES).unwrap().iter().copied())),
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
    run("recovery", checks::recovery, 160);
}
