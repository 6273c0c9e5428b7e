//! The same save with cosave and with everything else, in one run and one
//! directory.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --dir DIR
//!     [--quick] [--json FILE] [--svg FILE] [--only NAME] [--part latency|turns|inline|threads|large|open|recover|memory]
//!     [--count-saves N [--files K] [--directories D]]
//! ```
//!
//! `--dir` chooses the disk to measure. On many systems `/tmp` is not on a real
//! disk, so name a directory that is. Everything is left as it was.

mod measure;
mod peers;
mod plot;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use peers::{COSAVE, COSAVE_COMMITTED, PEERS, PLAIN, Peer, Result, SQLITE};

const COUNTS: [usize; 5] = [1, 2, 10, 100, 1000];
/// What peers that take turns save: files, directories, and whether each save opens a session of its own.
const TURNS: [(usize, usize, bool); 5] =
    [(2, 1, false), (10, 1, false), (100, 1, false), (2, 1, true), (20, 10, true)];
const THREADS: [usize; 3] = [1, 4, 16];
const LARGE: u64 = 1 << 30;
const LARGE_MEMORY: u64 = 2 << 30;
const PENDING: usize = 10_000;

#[derive(Default)]
struct Arguments {
    dir: Option<PathBuf>,
    quick: bool,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    only: Option<String>,
    part: Option<String>,
    child: Option<String>,
    number: u64,
    count_saves: Option<u64>,
    files: usize,
    directories: usize,
}

fn arguments() -> Result<Arguments> {
    let mut arguments = Arguments { files: 2, directories: 1, ..Arguments::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--quick" {
            arguments.quick = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--dir" => arguments.dir = Some(value.into()),
            "--json" => arguments.json = Some(value.into()),
            "--svg" => arguments.svg = Some(value.into()),
            "--only" => arguments.only = Some(value),
            "--part" => arguments.part = Some(value),
            "--child" => arguments.child = Some(value),
            "--number" => arguments.number = value.parse()?,
            "--count-saves" => arguments.count_saves = Some(value.parse()?),
            "--files" => arguments.files = value.parse()?,
            "--directories" => arguments.directories = value.parse()?,
            _ => return Err(format!("what is {word}?").into()),
        }
    }
    Ok(arguments)
}

impl Arguments {
    /// The peer with exactly the name `--only`, or all whose names contain it.
    fn peers(&self) -> Vec<&'static Peer> {
        let Some(only) = &self.only else { return PEERS.iter().collect() };
        let exactly: Vec<_> = PEERS.iter().filter(|peer| peer.name == only).collect();
        if exactly.is_empty() {
            return PEERS.iter().filter(|peer| peer.name.contains(only.as_str())).collect();
        }
        exactly
    }

    fn wants(&self, part: &str) -> bool {
        self.part.as_ref().is_none_or(|wanted| wanted == part)
    }
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let dir = arguments.dir.clone().ok_or("--dir says which disk to measure")?;
    if let Some(job) = &arguments.child {
        return measure::run_child(&dir, job, arguments.number);
    }
    let dir = dir.join(format!("cosave-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let done = run(&arguments, &dir);
    std::fs::remove_dir_all(&dir)?;
    done
}

fn run(arguments: &Arguments, dir: &std::path::Path) -> Result<()> {
    if let Some(saves) = arguments.count_saves {
        let peers = arguments.peers();
        let peer = peers.first().ok_or("no such peer")?;
        return measure::count(dir, peer, arguments.files, arguments.directories, saves);
    }
    let mut results = serde_json::Map::new();
    let mut keep = |part: &str, rows: Vec<Value>| results.insert(part.to_owned(), Value::Array(rows));
    if arguments.wants("latency") {
        let rows = latencies(arguments, dir);
        if let Some(file) = &arguments.svg {
            std::fs::write(file, picture(&rows))?;
        }
        keep("latency", rows);
    }
    if arguments.wants("turns") {
        keep("turns", turns(arguments, dir));
    }
    if arguments.wants("inline") {
        keep("inline", inline(arguments, dir));
    }
    if arguments.wants("threads") {
        keep("threads", threads(arguments, dir));
    }
    if arguments.wants("large") && !arguments.quick {
        keep("large", large(arguments, dir));
    }
    if arguments.wants("open") {
        keep("open", opening(dir));
    }
    if arguments.wants("recover") {
        keep("recover", recovery(dir));
    }
    if arguments.wants("memory") && !arguments.quick {
        keep("memory", memory(dir));
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&Value::Object(results))?)?;
    }
    Ok(())
}

/// Prints an error in place of the result, so that one failing peer does not stop the others.
fn say<T>(what: &str, result: Result<T>) -> Option<T> {
    result.inspect_err(|error| println!("  {what}: FAILED: {error}")).ok()
}

fn latencies(arguments: &Arguments, dir: &std::path::Path) -> Vec<Value> {
    let budget = Duration::from_millis(if arguments.quick { 400 } else { 2000 });
    let peers = arguments.peers();
    let mut rows: Vec<Value> = Vec::new();
    for directories in [1, 10] {
        println!(
            "\nfiles of 4 KiB in {}, replaced: median milliseconds (times the plain loop's)",
            if directories == 1 { "one directory" } else { "ten directories" }
        );
        print!("{:<22}", "");
        COUNTS.iter().for_each(|count| print!("{:>18}", format!("{count} files")));
        println!("{:>22}", "open + first save of 2");
        let mut plain = [f64::NAN; COUNTS.len()];
        // The plain loop comes first, since the others are compared with it.
        let (first, rest): (Vec<&Peer>, Vec<&Peer>) = peers.iter().partition(|peer| peer.name == PLAIN);
        for peer in first.into_iter().chain(rest) {
            print!("{:<22}", peer.name);
            let mut opened = String::new();
            let mut failures = Vec::new();
            for (index, count) in COUNTS.into_iter().enumerate() {
                if directories > count {
                    print!("{:>18}", "-");
                    continue;
                }
                match measure::latency(dir, peer, count, directories, budget) {
                    Ok(latency) => {
                        if peer.name == PLAIN {
                            plain[index] = latency.median;
                        }
                        let ratio = latency.median / plain[index];
                        let ratio = if ratio.is_nan() { String::new() } else { format!(" ({ratio:.2})") };
                        print!("{:>18}", format!("{:.2}{ratio}", latency.median));
                        if count == 2 {
                            opened = format!("{:.2} + {:.2}", latency.open, latency.first);
                        }
                        rows.push(json!({
                            "peer": peer.name, "files": count, "directories": directories,
                            "milliseconds": latency.median, "least": latency.least, "first": latency.first, "open": latency.open,
                            "all_or_nothing": peer.all_or_nothing, "durable": peer.durable,
                        }));
                    }
                    Err(error) => {
                        print!("{:>18}", "FAILED");
                        failures.push(format!("{count} files: {error}"));
                    }
                }
                let _ = std::io::Write::flush(&mut std::io::stdout());
            }
            println!("{opened:>22}");
            failures.iter().for_each(|failure| println!("  {}: FAILED: {failure}", peer.name));
        }
    }
    println!("all of the files or none after a crash: {}", names(|peer| peer.all_or_nothing));
    println!("each file alone: {}", names(|peer| !peer.all_or_nothing));
    println!("not durable: {}", names(|peer| !peer.durable));
    rows
}

/// Compares with SQLite, which waits for the disk once a save: what a save costs in waits on any disk.
fn turns(arguments: &Arguments, dir: &std::path::Path) -> Vec<Value> {
    let rounds = if arguments.quick { 3 } else { 15 };
    let compared = [SQLITE, COSAVE, COSAVE_COMMITTED, PLAIN];
    let peers: Vec<_> =
        compared.iter().filter_map(|name| PEERS.iter().find(|peer| peer.name == *name)).collect();
    println!(
        "\npeers that take turns: median milliseconds (median of the ratios to SQLite, kept open, in the same round)"
    );
    print!("{:<22}", "");
    peers.iter().for_each(|peer| print!("{:>20}", peer.name));
    println!();
    let mut rows = Vec::new();
    for (files, directories, one_shot) in TURNS {
        let way = if one_shot { "open, save, close" } else { "save" };
        print!("{:<22}", format!("{way} {files}"));
        let Some(times) = say("turns", measure::turns(dir, &peers, (files, directories, one_shot), rounds))
        else {
            continue;
        };
        for (index, peer) in peers.iter().enumerate() {
            let of = |value: fn(f64, f64) -> f64| {
                measure::median(
                    times.iter().map(|round| value(round.peers[index], round.yardstick)).collect(),
                )
            };
            let (milliseconds, ratio) = (of(|time, _| time), of(|time, yardstick| time / yardstick));
            print!("{:>20}", format!("{milliseconds:.2} ({ratio:.2})"));
            rows.push(json!({
                "peer": peer.name, "files": files, "directories": directories, "one_shot": one_shot,
                "milliseconds": milliseconds, "ratio": ratio,
            }));
        }
        println!();
    }
    rows
}

/// Up to which size a small save is faster than a long one.
fn inline(arguments: &Arguments, dir: &std::path::Path) -> Vec<Value> {
    let rounds = if arguments.quick { 10 } else { 50 };
    println!("\nten files together, median milliseconds: as a small save, as a long one");
    let mut rows = Vec::new();
    for kibibytes in [16, 64, 256, 512, 1024, 2048, 4096, 16_384] {
        if let Some((small, long)) = say("inline", measure::small_and_long(dir, kibibytes << 10, rounds)) {
            println!("{kibibytes:>10} KiB {small:>10.2} {long:>10.2}");
            rows.push(json!({"bytes": kibibytes << 10, "small": small, "long": long}));
        }
    }
    rows
}

fn names(which: fn(&Peer) -> bool) -> String {
    let names: Vec<_> = PEERS.iter().filter(|peer| which(peer)).map(|peer| peer.name).collect();
    names.join(", ")
}

fn picture(rows: &[Value]) -> String {
    let line = |peer: &Peer| {
        let points: Vec<_> = rows
            .iter()
            .filter(|row| row["peer"] == peer.name && row["directories"] == 1)
            .filter_map(|row| Some((row["files"].as_f64()?, row["milliseconds"].as_f64()?)))
            .collect();
        plot::Line { name: peer.name.to_owned(), points, strong: peer.name == COSAVE }
    };
    let lines: Vec<_> = PEERS.iter().map(line).filter(|line| !line.points.is_empty()).collect();
    plot::draw("Saving N files of 4 KiB together", &lines)
}

fn threads(arguments: &Arguments, dir: &std::path::Path) -> Vec<Value> {
    let time = Duration::from_millis(if arguments.quick { 1000 } else { 4000 });
    println!("\ncommits of two files, per second (times one thread's)");
    print!("{:<22}", "");
    THREADS.iter().for_each(|threads| print!("{:>18}", format!("{threads} threads")));
    println!();
    let mut rows = Vec::new();
    for peer in arguments.peers() {
        print!("{:<22}", peer.name);
        let mut one = f64::NAN;
        let mut failures = Vec::new();
        for threads in THREADS {
            match measure::throughput(dir, peer, threads, time) {
                Ok(rate) => {
                    if threads == 1 {
                        one = rate;
                    }
                    print!("{:>18}", format!("{rate:.0} ({:.1})", rate / one));
                    rows.push(json!({"peer": peer.name, "threads": threads, "commits_per_second": rate}));
                }
                Err(error) => {
                    print!("{:>18}", "FAILED");
                    failures.push(format!("{threads} threads: {error}"));
                }
            }
        }
        println!();
        failures.iter().for_each(|failure| println!("  {}: FAILED: {failure}", peer.name));
    }
    rows
}

fn large(arguments: &Arguments, dir: &std::path::Path) -> Vec<Value> {
    const ROUNDS: usize = 3;
    println!("\none file of 1 GiB, MB per second");
    let mut rows = Vec::new();
    let mut row = |name: &str, measure: &dyn Fn() -> Result<f64>| {
        let rounds = (0..ROUNDS).map(|_| measure()).collect::<Result<Vec<_>>>();
        if let Some(rounds) = say(name, rounds) {
            let rate = measure::median(rounds);
            println!("{name:<36}{rate:>10.0}");
            rows.push(json!({"peer": name, "megabytes_per_second": rate}));
        }
    };
    // The first file of that size also pays for allocating space on the disk.
    let _warmed_up = say("warming up", measure::large_plain(dir, LARGE));
    row("write and fsync, no checksum", &|| measure::large_plain(dir, LARGE));
    row("cosave full, streamed", &|| measure::large_cosave(dir, LARGE));
    for peer in arguments.peers() {
        if [PLAIN, COSAVE, peers::FSTX, peers::FS_TRANSACTION].contains(&peer.name) {
            row(&format!("{}, from memory", peer.name), &|| measure::large_whole(dir, peer, LARGE));
        }
    }
    rows
}

fn opening(dir: &std::path::Path) -> Vec<Value> {
    println!("\nopening a root that was left clean");
    let mut rows = Vec::new();
    for count in [10, 100_000] {
        if let Some(opening) = say("open", measure::opening(dir, count)) {
            let calls =
                opening.calls.map_or("not counted: no strace".to_owned(), |calls| format!("{calls:.0}"));
            println!("{count:>10} files: {:.3} ms, system calls: {calls}", opening.milliseconds);
            rows.push(json!({"files": count, "milliseconds": opening.milliseconds, "calls": opening.calls}));
        }
    }
    rows
}

fn recovery(dir: &std::path::Path) -> Vec<Value> {
    println!("\nrecovering a commit of {PENDING} files whose process was killed");
    let recovery = say("recovery", measure::recovery(dir, PENDING));
    let show = |recovery: measure::Recovery| {
        println!("{:>10.1} ms, {} of them still to be moved", recovery.milliseconds, recovery.moved);
        json!({"files": PENDING, "milliseconds": recovery.milliseconds, "moved": recovery.moved})
    };
    recovery.map(show).into_iter().collect()
}

fn memory(dir: &std::path::Path) -> Vec<Value> {
    println!("\nmore memory at its peak, for a file of 2 GiB");
    let memory = say("memory", measure::memory(dir, LARGE_MEMORY));
    let show = |mebibytes: f64| {
        println!("{mebibytes:>10.1} MiB");
        json!({"bytes": LARGE_MEMORY, "mebibytes": mebibytes})
    };
    memory.map(show).into_iter().collect()
}
