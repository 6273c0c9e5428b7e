//! Whether cosave keeps its promises on the kernel's own ext4, XFS and btrfs when the power fails.
//!
//! ```text
//! cargo run --release --manifest-path tests/powercut/Cargo.toml -- \
//!     [--fs ext4,xfs,btrfs] [--promise full,committed,mixed] [--seconds S] [--cuts N] [--seed N]
//!     [--lying-flush | --without-syncs] [--repeat LINE]
//! ```
//!
//! A round begins with a device that logs every write and every flush ([`device`]). It gets a new
//! file system ([`disk`]). A process commits transactions and saves single files on it, is killed
//! now and then, and goes on ([`workload`]). The log and what the process was told make a
//! [`recording`]. Then, for each of sixty cuts, a disk is made of what was flushed before it and of
//! any part of what was not. The kernel mounts it and replays its journal, and the store is opened.
//! The files must be those of one step ([`check`]). Nothing acknowledged may be lost, nothing may
//! be there that was not begun, and no staged file may be left. With `data=writeback` ext4 gives the
//! blocks of removed files away too early: there a file may be torn before the recovery. Every fifth recovery that had work to do is cut again, four times. Without
//! arguments it runs for 75 seconds, on all three at once, with each of the promises by turns.
//!
//! What no seed can repeat is the kernel's own timing. So a violation stores its recording, and
//! prints the line to give to `--repeat`, which makes the same disk, byte by byte.
//!
//! Two controls show that it can fail. They must find violations, or the run fails. With
//! `--lying-flush` the disk loses writes that it said it had flushed. With `--without-syncs` the
//! kernel answers every sync of the workload with success and does nothing.
//!
//! It needs root, `/dev/fuse`, loop devices, and the `mkfs` of each file system. Where one of them
//! is missing it says so, and exits with 3. Exits: 0 all as promised, 1 violations, 2 wrong
//! arguments, 3 it cannot run here. All mounts are in a namespace of its own, and go with it.

mod campaign;
mod check;
mod child;
mod device;
mod disk;
mod events;
mod image;
mod plan;
mod random;
mod recording;
mod workload;

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use campaign::{Checked, Effort, Tally};
use disk::{Disk, KINDS, Kind};
use events::{Bounds, Event};
use plan::Promise;
use recording::{Cutter, Flushes, Recording};
use workload::Syncs;

/// What the process exits with where it cannot run.
const CANNOT_RUN: u8 = 3;

/// Set in the process that has its own mounts.
const NAMESPACE: &str = "COSAVE_POWERCUT_NAMESPACE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(mount) = std::env::var_os(child::MOUNT) {
        return on_the_disk(Path::new(&mount), &arguments);
    }
    let wishes = match Wishes::parse(&arguments) {
        Ok(wishes) => wishes,
        Err(error) => {
            eprintln!("{error}\nsee the first lines of tests/powercut/src/main.rs");
            return ExitCode::from(2);
        }
    };
    if let Some(why) = missing(&wishes.kinds) {
        eprintln!("cannot run here: {why}");
        return ExitCode::from(CANNOT_RUN);
    }
    if std::env::var_os(NAMESPACE).is_none() {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private"])
            .arg(std::env::current_exe().unwrap_or_default());
        let error = command.args(&arguments).env(NAMESPACE, "1").exec();
        eprintln!("cannot run here: unshare: {error}");
        return ExitCode::from(CANNOT_RUN);
    }
    match with_scratch(&wishes) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cannot run here: {error}");
            ExitCode::from(CANNOT_RUN)
        }
    }
}

/// The part of a child process.
fn on_the_disk(mount: &Path, arguments: &[String]) -> ExitCode {
    let done = match arguments {
        [part, plan, syncs] if part == "workload" => {
            let syncs = if syncs == "--without-syncs" { Syncs::Skipped } else { Syncs::Made };
            plan.parse().and_then(|plan| workload::run(mount, &plan, syncs))
        }
        [part, plan, options, bounds @ ..] if part == "check" => {
            let bounds: Option<Vec<_>> = bounds.iter().map(|bounds| parse_bounds(bounds)).collect();
            let bounds = bounds.ok_or_else(|| "no bounds".to_owned());
            let blocks = check::Blocks::under(options);
            plan.parse().and_then(|plan| bounds.map(|bounds| check::run(mount, &plan, &bounds, blocks)))
        }
        _ => Err("no such part".to_owned()),
    };
    if let Err(error) = done {
        workload::speak(&Event::Violation(error));
    }
    ExitCode::SUCCESS
}

fn parse_bounds(text: &str) -> Option<Bounds> {
    let mut numbers = text.split(',').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Bounds { placed: next()?, kept: next()?, begun: next()? })
}

/// The arguments.
struct Wishes {
    kinds: Vec<&'static Kind>,
    promises: Vec<Promise>,
    seconds: Option<u64>,
    cuts: Option<usize>,
    seed: u64,
    flushes: Flushes,
    syncs: Syncs,
    repeat: Option<(PathBuf, usize)>,
}

impl Wishes {
    fn parse(arguments: &[String]) -> Result<Self, Box<dyn Error>> {
        let mut wishes = Self {
            kinds: KINDS.iter().collect(),
            promises: Promise::ALL.map(|(_, promise)| promise).to_vec(),
            seconds: None,
            cuts: None,
            seed: 1,
            flushes: Flushes::Kept,
            syncs: Syncs::Made,
            repeat: None,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} wants a value"));
            match name.as_str() {
                "--fs" => wishes.kinds = each(value()?, |name| KINDS.iter().find(|kind| kind.name == name))?,
                "--promise" => {
                    let named = |name: &str| Promise::ALL.into_iter().find(|(word, _)| *word == name);
                    wishes.promises = each(value()?, |name| named(name).map(|(_, promise)| promise))?;
                }
                "--seconds" => wishes.seconds = Some(value()?.parse()?),
                "--cuts" => wishes.cuts = Some(value()?.parse()?),
                "--seed" => wishes.seed = value()?.parse()?,
                "--lying-flush" => wishes.flushes = Flushes::Lied,
                "--without-syncs" => wishes.syncs = Syncs::Skipped,
                "--repeat" => {
                    let (path, cut) = value()?.rsplit_once(':').ok_or("--repeat wants FILE:CUT")?;
                    wishes.repeat = Some((PathBuf::from(path), cut.parse()?));
                }
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        Ok(wishes)
    }

    /// Whether a violation is what must be found.
    fn is_control(&self) -> bool {
        self.flushes == Flushes::Lied || self.syncs == Syncs::Skipped
    }
}

fn each<T>(list: &str, find: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    list.split(',').map(|name| find(name).ok_or_else(|| format!("unknown: {name}"))).collect()
}

/// What this machine lacks.
fn missing(kinds: &[&Kind]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root may mount".to_owned());
    }
    let device = ["/dev/fuse", "/dev/loop-control"].into_iter().find(|device| !Path::new(device).exists());
    if let Some(device) = device {
        return Some(format!("there is no {device}"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|directory| directory.join(tool).exists());
    let makes = kinds.iter().map(|kind| kind.tool());
    if let Some(tool) = makes.chain(["mount", "umount", "unshare"]).find(|tool| !is_there(tool)) {
        return Some(format!("there is no {tool} in PATH"));
    }
    // Root in a container may be refused.
    let tried = Command::new("unshare").args(["--mount", "--propagation", "private", "true"]).output();
    match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; ")),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Runs with a directory of its own, which is removed.
fn with_scratch(wishes: &Wishes) -> Result<ExitCode, Box<dyn Error>> {
    let name = "cosave-powercut-";
    for entry in fs::read_dir(beside_this_program("")?)?.filter_map(Result::ok) {
        // A run that was killed leaves its directory, though nothing is mounted there any more.
        let process = entry.file_name().to_str().and_then(|found| found.strip_prefix(name)?.parse().ok());
        if process.is_some_and(|process: u32| !Path::new(&format!("/proc/{process}")).exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let scratch = beside_this_program(&format!("{name}{}", std::process::id()))?;
    fs::create_dir(&scratch)?;
    let code = match &wishes.repeat {
        Some((path, cut)) => repeat(path, *cut, &scratch),
        None => all(wishes, &scratch),
    };
    fs::remove_dir_all(&scratch)?;
    code
}

/// All file systems at once: each waits for its own disk most of the time.
fn all(wishes: &Wishes, scratch: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let started = Instant::now();
    let seconds = wishes.seconds.unwrap_or(if wishes.cuts.is_some() { 24 * 3600 } else { 75 });
    let effort = Effort {
        seed: wishes.seed,
        cuts_max: wishes.cuts.unwrap_or(usize::MAX),
        until: started + Duration::from_secs(seconds),
        promises: wishes.promises.clone(),
        flushes: wishes.flushes,
        syncs: wishes.syncs,
        kept: (!wishes.is_control()).then(|| beside_this_program("recordings")).transpose()?,
    };
    let disks: Vec<Disk> =
        wishes.kinds.iter().map(|kind| Disk::new(kind, scratch)).collect::<Result<_, _>>()?;
    let tallies: Vec<Result<Tally, String>> = thread::scope(|scope| {
        let (effort, stop) = (&effort, &stop);
        let run = |disk| scope.spawn(move || campaign::run(disk, effort, stop));
        let threads: Vec<_> = disks.iter().map(run).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|ended| ended.unwrap_or_else(|_| Err("a thread panicked".to_owned()))).collect()
    });
    let stopped = stop.load(Ordering::Relaxed);
    println!("seed {}, {} s", wishes.seed, started.elapsed().as_secs());
    println!(
        "file system  rounds  kills   cuts  of recoveries  swept  finished a commit  not mounted  violations"
    );
    let mut as_expected = true;
    for (kind, tally) in wishes.kinds.iter().zip(tallies) {
        let tally = tally.unwrap_or_else(|error| {
            println!("{}: {error}", kind.name);
            as_expected = false;
            Tally::default()
        });
        let Tally { rounds, kills, cuts, second_cuts, swept, finished, not_mounted, violations } = tally;
        println!(
            "{:11}  {rounds:6}  {kills:5}  {cuts:5}  {second_cuts:13}  {swept:5}  {finished:17}  \
             {not_mounted:11}  {violations:10}",
            kind.name
        );
        as_expected &= (violations > 0) == wishes.is_control() && (cuts > 0 || stopped);
    }
    if wishes.is_control() {
        let word = if as_expected { "as it must be: the control is" } else { "WRONG: a control is not" };
        println!("{word} found out on every file system");
    } else if stopped {
        println!("stopped early");
    }
    Ok(if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn beside_this_program(name: &str) -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// Makes one cut of a stored recording again.
fn repeat(path: &Path, number: usize, scratch: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let recording = Recording::load(path)?;
    let kind = KINDS.iter().find(|kind| kind.name == recording.file_system).ok_or("unknown file system")?;
    let disk = Disk::new(kind, scratch)?;
    let cut = Cutter::new(&recording).cut(number);
    println!("{}\n{:?}", cut.story, cut.bounds);
    let found = match campaign::check(&disk, &recording, number, &cut)? {
        Checked::Found(found) => found,
        Checked::NotMounted(error) => return Err(error.into()),
    };
    let violations = campaign::violations(&found.events);
    violations.iter().for_each(|text| println!("{text}"));
    println!("{} violations", violations.len());
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
