//! The measurements. Each leaves an empty directory behind.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cosave::{Durability, Store};

use crate::peers::{Files, Peer, Result};

/// The size of each file when many are saved.
const FILE_SIZE: usize = 4096;
/// How much of a large file is written at once.
const CHUNK: usize = 1 << 20;
/// With fewer saves a median means little.
const SAVES_MIN: usize = 5;

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Makes an empty directory, after everything earlier is on disk and removed.
pub fn fresh(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(&root)?;
    Command::new("sync").arg("-f").arg(&root).status()?;
    Ok(root)
}

/// `count` files in `directories` directories. Their content differs from round to round.
pub fn files(count: usize, directories: usize, prefix: &str, round: u64) -> Vec<(PathBuf, Vec<u8>)> {
    let file = |index: usize| {
        let name = format!("{prefix}{index}.json");
        let path = match directories {
            1 => PathBuf::from(name),
            _ => PathBuf::from(format!("directory{}", index % directories)).join(name),
        };
        let mut bytes = vec![b'a' + (round % 26) as u8; FILE_SIZE];
        bytes[..16].copy_from_slice(format!("{round:08}{index:08}").as_bytes());
        (path, bytes)
    };
    (0..count).map(file).collect()
}

pub fn make_directories(root: &Path, files: &Files) -> io::Result<()> {
    files
        .iter()
        .filter_map(|(path, _)| path.parent())
        .try_for_each(|parent| fs::create_dir_all(root.join(parent)))
}

/// What one save takes.
pub struct Latency {
    pub median: f64,
    /// The fastest save: what the machine could reach without other work.
    pub least: f64,
    /// Opening a session.
    pub open: f64,
    /// The first save of a new session over files that exist.
    pub first: f64,
}

/// Replaces the same files again and again, within a budget of time.
pub fn latency(
    dir: &Path,
    peer: &Peer,
    count: usize,
    directories: usize,
    budget: Duration,
) -> Result<Latency> {
    let root = fresh(dir)?;
    let mut round = 0;
    let mut next = || {
        round += 1;
        files(count, directories, "file", round)
    };
    make_directories(&root, &next())?;
    (peer.open)(&root)?.save(&next())?;
    let start = Instant::now();
    let mut saver = (peer.open)(&root)?;
    let open = milliseconds(start.elapsed());
    let mut save = || -> Result<f64> {
        let files = next();
        let start = Instant::now();
        saver.save(&files)?;
        Ok(milliseconds(start.elapsed()))
    };
    let first = save()?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < SAVES_MIN || start.elapsed() < budget {
        times.push(save()?);
        // Slow saves are measured less often.
        if start.elapsed() > 4 * budget {
            break;
        }
    }
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Latency { median: median(times), least, open, first })
}

/// One round of peers that take turns: median milliseconds a save.
pub struct Round {
    /// SQLite kept open, with as many rows as the others save files.
    pub yardstick: f64,
    pub peers: Vec<f64>,
}

/// Lets peers take turns, so that all meet the same moods of the disk.
pub fn turns(dir: &Path, peers: &[&Peer], case: (usize, usize, bool), rounds: usize) -> Result<Vec<Round>> {
    let (count, directories, one_shot) = case;
    let root = fresh(dir)?;
    let player = |name: String, peer: &Peer, one_shot: bool| -> Result<Player> {
        let root = root.join(name);
        fs::create_dir(&root)?;
        make_directories(&root, &files(count, directories, "file", 0))?;
        let saver = (!one_shot).then(|| (peer.open)(&root)).transpose()?;
        Ok(Player { root, open: peer.open, saver, round: 0 })
    };
    let sqlite = crate::peers::PEERS.iter().find(|peer| peer.name == crate::peers::SQLITE);
    let mut yardstick = player("yardstick".to_owned(), sqlite.ok_or("no yardstick")?, false)?;
    let named = |(index, peer): (usize, &&Peer)| player(format!("player{index}"), peer, one_shot);
    let mut players = peers.iter().enumerate().map(named).collect::<Result<Vec<_>>>()?;
    let mut round = || -> Result<Round> {
        let yardstick = yardstick.turn(count, directories)?;
        let peers =
            players.iter_mut().map(|player| player.turn(count, directories)).collect::<Result<_>>()?;
        Ok(Round { yardstick, peers })
    };
    round()?;
    (0..rounds).map(|_| round()).collect()
}

struct Player {
    root: PathBuf,
    open: fn(&Path) -> Result<Box<dyn crate::peers::Saver>>,
    /// None if each save opens a session of its own.
    saver: Option<Box<dyn crate::peers::Saver>>,
    round: u64,
}

impl Player {
    /// Saves for a while, and returns the median milliseconds.
    fn turn(&mut self, count: usize, directories: usize) -> Result<f64> {
        const TIME: Duration = Duration::from_millis(200);
        let (mut times, start) = (Vec::new(), Instant::now());
        while times.len() < SAVES_MIN || start.elapsed() < TIME {
            self.round += 1;
            let files = files(count, directories, "file", self.round);
            let start = Instant::now();
            match &mut self.saver {
                Some(saver) => saver.save(&files)?,
                None => {
                    let mut saver = (self.open)(&self.root)?;
                    saver.save(&files)?;
                    drop(saver);
                }
            }
            times.push(milliseconds(start.elapsed()));
        }
        Ok(median(times))
    }
}

/// Median milliseconds to save ten files of `total` bytes together: as a small save, and as a long one.
pub fn small_and_long(dir: &Path, total: u64, rounds: usize) -> Result<(f64, f64)> {
    const FILES: u64 = 10;
    let root = fresh(dir)?;
    let open = |name: &str, limit: usize| -> Result<Store> {
        fs::create_dir(root.join(name))?;
        Ok(Store::options().inline_max(limit).open(root.join(name))?)
    };
    let (small, long) = (open("small", usize::MAX)?, open("long", 0)?);
    let save = |store: &Store, round: usize| -> Result<f64> {
        let bytes = vec![b'a' + (round % 26) as u8; (total / FILES) as usize];
        let start = Instant::now();
        let mut transaction = store.begin()?;
        for file in 0..FILES {
            transaction.write(format!("file{file}"), &bytes)?;
        }
        transaction.commit()?;
        Ok(milliseconds(start.elapsed()))
    };
    let (mut of_small, mut of_long) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let times = (save(&small, round)?, save(&long, round)?);
        // The first round makes the files.
        if round > 0 {
            of_small.push(times.0);
            of_long.push(times.1);
        }
    }
    Ok((median(of_small), median(of_long)))
}

/// Makes exactly `saves` saves, so that the disk's work for each can be counted from outside.
pub fn count(dir: &Path, peer: &Peer, count: usize, directories: usize, saves: u64) -> Result<()> {
    let root = fresh(dir)?;
    make_directories(&root, &files(count, directories, "file", 0))?;
    let mut saver = (peer.open)(&root)?;
    (0..saves).try_for_each(|round| saver.save(&files(count, directories, "file", round)))
}

/// Commits per second with several threads, each of which saves two files of its own.
pub fn throughput(dir: &Path, peer: &Peer, threads: usize, time: Duration) -> Result<f64> {
    let root = fresh(dir)?;
    let saver = (peer.open)(&root)?;
    let savers = (0..threads).map(|_| saver.another()).collect::<Result<Vec<_>>>()?;
    let (stop, commits) = (AtomicBool::new(false), AtomicU64::new(0));
    let ready = Barrier::new(threads + 1);
    let (stop, commits, ready) = (&stop, &commits, &ready);
    std::thread::scope(|scope| {
        let work = |(thread, mut saver): (usize, Box<dyn crate::peers::Saver>)| -> Result<()> {
            let save = |saver: &mut dyn crate::peers::Saver, round| {
                saver.save(&files(2, 1, &format!("thread{thread}-"), round))
            };
            let warm = save(&mut *saver, 0);
            ready.wait();
            warm?;
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                save(&mut *saver, round)?;
                commits.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let running: Vec<_> =
            savers.into_iter().enumerate().map(|saver| scope.spawn(move || work(saver))).collect();
        ready.wait();
        let start = Instant::now();
        std::thread::sleep(time);
        let done = commits.load(Ordering::Relaxed);
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        for thread in running {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(done as f64 / elapsed.as_secs_f64())
    })
}

fn pour(out: &mut dyn Write, size: u64) -> io::Result<()> {
    // Not zeros: pages that were never written do not count as memory.
    let mut chunk = vec![0x5a_u8; CHUNK];
    for index in 0..size / CHUNK as u64 {
        chunk[..8].copy_from_slice(&index.to_le_bytes());
        out.write_all(&chunk)?;
    }
    Ok(())
}

/// One large file through cosave, in MB per second.
pub fn large_cosave(dir: &Path, size: u64) -> Result<f64> {
    let root = fresh(dir)?;
    let store = Store::open(&root)?;
    let start = Instant::now();
    let mut transaction = store.begin()?;
    let mut writer = transaction.writer("large")?;
    pour(&mut writer, size)?;
    writer.finish()?;
    transaction.commit()?;
    Ok(size as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// The same bytes, only written and synced.
pub fn large_plain(dir: &Path, size: u64) -> Result<f64> {
    let root = fresh(dir)?;
    let start = Instant::now();
    let mut file = File::create_new(root.join("large"))?;
    pour(&mut file, size)?;
    file.sync_all()?;
    Ok(size as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// One large file, through a peer that only takes whole files.
pub fn large_whole(dir: &Path, peer: &Peer, size: u64) -> Result<f64> {
    let root = fresh(dir)?;
    let mut saver = (peer.open)(&root)?;
    let mut bytes = Vec::with_capacity(size as usize);
    pour(&mut bytes, size)?;
    let files = [(PathBuf::from("large"), bytes)];
    let start = Instant::now();
    saver.save(&files)?;
    Ok(size as f64 / 1e6 / start.elapsed().as_secs_f64())
}

// Measurements that need a process of their own.

fn child(dir: &Path, job: &str, number: u64) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--dir").arg(dir).args(["--child", job, "--number", &number.to_string()]);
    Ok(command)
}

/// The body of a child process.
pub fn run_child(dir: &Path, job: &str, number: u64) -> Result<()> {
    match job {
        "open" => {
            for _ in 0..number {
                black_box(Store::open(dir)?);
            }
        }
        "memory" => {
            let store = Store::open(dir)?;
            let mut transaction = store.begin()?;
            transaction.write("small", [0; FILE_SIZE])?;
            transaction.commit()?;
            let before = memory_peak()?;
            let mut transaction = store.begin()?;
            let mut writer = transaction.writer("large")?;
            pour(&mut writer, number)?;
            writer.finish()?;
            transaction.commit()?;
            println!("{}", memory_peak()? - before);
        }
        "pending" => {
            let store = Store::options().durability(Durability::Committed).open(dir)?;
            let mut transaction = store.begin()?;
            for (path, bytes) in files(number as usize, 10, "file", 1) {
                transaction.write(path, bytes)?;
            }
            transaction.commit()?;
        }
        _ => return Err(format!("no such child: {job}").into()),
    }
    Ok(())
}

/// The most memory that this process has ever used, in KiB.
fn memory_peak() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// How much more memory one large file needs, in MiB.
pub fn memory(dir: &Path, size: u64) -> Result<f64> {
    let root = fresh(dir)?;
    let output = child(&root, "memory", size)?.stderr(Stdio::inherit()).output()?;
    let kibibytes: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    Ok(kibibytes / 1024.0)
}

/// What opening a clean root takes.
pub struct Opening {
    pub milliseconds: f64,
    /// System calls, if `strace` is there to count them.
    pub calls: Option<f64>,
}

pub fn opening(dir: &Path, count: usize) -> Result<Opening> {
    const TIMES: u64 = 20;
    let root = fresh(dir)?;
    for directory in 0..count.div_ceil(100) {
        let directory = root.join(format!("directory{directory}"));
        fs::create_dir(&directory)?;
        for file in 0..count.min(100) {
            File::create_new(directory.join(format!("file{file}")))?;
        }
    }
    let store = Store::open(&root)?;
    let mut transaction = store.begin()?;
    transaction.write("directory0/file0", "new")?;
    transaction.commit()?;
    drop(store);
    let once = || -> Result<f64> {
        let start = Instant::now();
        let store = Store::open(&root)?;
        let time = milliseconds(start.elapsed());
        drop(store);
        Ok(time)
    };
    let times = (0..TIMES).map(|_| once()).collect::<Result<Vec<_>>>()?;
    let more = system_calls(&root, 1 + TIMES)?;
    let one = system_calls(&root, 1)?;
    let calls = more.zip(one).map(|(more, one)| (more - one) / TIMES as f64);
    Ok(Opening { milliseconds: median(times), calls })
}

fn system_calls(root: &Path, opens: u64) -> Result<Option<f64>> {
    let report = root.with_extension("strace");
    let plain = child(root, "open", opens)?;
    let mut traced = Command::new("strace");
    traced.args(["-f", "-c", "-o"]).arg(&report).arg(plain.get_program()).args(plain.get_args());
    match traced.status() {
        Ok(status) if status.success() => {}
        _ => return Ok(None),
    }
    let text = fs::read_to_string(&report)?;
    fs::remove_file(&report)?;
    // % time, seconds, usecs/call, calls, [errors,] name
    let total = text.lines().rev().find(|line| line.ends_with("total"));
    Ok(total.and_then(|line| line.split_whitespace().nth(3)).and_then(|calls| calls.parse().ok()))
}

/// What finishing a killed commit takes.
pub struct Recovery {
    pub milliseconds: f64,
    /// How many of the files recovery had to move.
    pub moved: usize,
}

/// Kills a process between its commit point and its end, and opens the root again.
pub fn recovery(dir: &Path, count: usize) -> Result<Recovery> {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        let root = fresh(dir)?;
        let before = files(count, 10, "file", 0);
        make_directories(&root, &before)?;
        for (path, bytes) in before {
            fs::write(root.join(path), bytes)?;
        }
        let running = child(&root, "pending", count as u64)?.spawn()?;
        if !kill_when_published(&root, running)? {
            continue;
        }
        let moved = staged(&root, 10)?;
        let start = Instant::now();
        let store = Store::open(&root)?;
        let time = milliseconds(start.elapsed());
        let rolled_forward = !store.last_recovery().rolled_forward.is_empty();
        drop(store);
        let wrong = files(count, 10, "file", 1)
            .iter()
            .filter(|(path, bytes)| fs::read(root.join(path)).ok().as_ref() != Some(bytes))
            .count();
        if wrong > 0 {
            return Err(format!("recovery left {wrong} of {count} files as they were").into());
        }
        if rolled_forward {
            return Ok(Recovery { milliseconds: time, moved });
        }
    }
    Err("the child always finished before it could be killed".into())
}

fn kill_when_published(root: &Path, mut child: Child) -> Result<bool> {
    // A save of this many files is a small one if its bytes are few.
    let published =
        || ["1.pending", "1.pending-inline"].iter().any(|name| root.join(".cosave").join(name).exists());
    loop {
        if published() {
            child.kill()?;
            child.wait()?;
            return Ok(published());
        }
        if child.try_wait()?.is_some() {
            return Ok(published());
        }
    }
}

/// How many staged files still lie beside their targets.
fn staged(root: &Path, directories: usize) -> Result<usize> {
    let mut found = 0;
    for directory in 0..directories {
        for entry in fs::read_dir(root.join(format!("directory{directory}")))? {
            found += usize::from(entry?.file_name().to_string_lossy().ends_with(".cosave"));
        }
    }
    Ok(found)
}
