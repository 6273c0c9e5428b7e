//! Rounds on one file system: record a workload, cut it in many places, check each.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::child;
use crate::disk::Disk;
use crate::events::{Bounds, Event};
use crate::plan::{Plan, Promise};
use crate::random::Random;
use crate::recording::{Cut, Cutter, Flushes, Recording};
use crate::workload::Syncs;

/// How much is done, and how.
#[derive(Clone)]
pub struct Effort {
    pub seed: u64,
    pub cuts_max: usize,
    pub until: Instant,
    pub promises: Vec<Promise>,
    pub flushes: Flushes,
    pub syncs: Syncs,
    /// Where recordings go that have a violation; nowhere for a control, which has many.
    pub kept: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub rounds: usize,
    pub cuts: usize,
    /// Of these, in a recovery or after it.
    pub second_cuts: usize,
    /// Recoveries that had something to sweep, and no more.
    pub swept: usize,
    /// Recoveries that finished a commit.
    pub finished: usize,
    pub kills: usize,
    /// Disks that the kernel did not mount: these are not among the cuts.
    pub not_mounted: usize,
    pub violations: usize,
}

/// Cuts that are made of one recording.
const CUTS_A_ROUND: usize = 60;

/// Of the recoveries that are cut again, so many times.
const SECOND_CUTS: usize = 4;

/// Runs rounds until time or cuts are used up, or somebody asks to stop.
pub fn run(disk: &Disk, effort: &Effort, stop: &AtomicBool) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let over = |tally: &Tally| {
        tally.cuts >= effort.cuts_max || Instant::now() >= effort.until || stop.load(Ordering::Relaxed)
    };
    while !over(&tally) {
        let seed = Random::of(&[effort.seed, tally.rounds as u64]).next();
        let recording = record(disk, effort, seed, &mut tally)?;
        tally.rounds += 1;
        let mut cuts: Vec<_> = (0..CUTS_A_ROUND).map(|cut| (recording.position(cut), cut)).collect();
        cuts.truncate(effort.cuts_max - tally.cuts.min(effort.cuts_max));
        cuts.sort_unstable();
        let mut cutter = Cutter::new(&recording);
        for (_, number) in cuts {
            if over(&tally) {
                break;
            }
            let again = one(disk, &recording, &mut cutter, number, &mut tally, effort)?;
            let Some(again) = again.filter(|_| number % 5 == 0) else { continue };
            let mut cutter = Cutter::new(&again);
            for number in 0..SECOND_CUTS {
                one(disk, &again, &mut cutter, number, &mut tally, effort)?;
                tally.second_cuts += 1;
            }
        }
    }
    Ok(tally)
}

/// Lets the workload run, kills it now and then, and takes the power away.
fn record(disk: &Disk, effort: &Effort, seed: u64, tally: &mut Tally) -> Result<Recording, String> {
    let mut random = Random::of(&[seed, 1]);
    let promise = effort.promises[tally.rounds % effort.promises.len()];
    let plan = Plan { seed, promise, writers: 1 + random.below(3), steps: 15 + random.below(40) };
    let options =
        disk.kind.options[(tally.rounds / effort.promises.len()) % disk.kind.options.len()].to_owned();
    let mut events = Vec::new();
    disk.device.load(disk.fresh.clone());
    let mounted = disk.mount(&options)?;
    let syncs = if effort.syncs == Syncs::Skipped { "--without-syncs" } else { "--with-syncs" };
    let arguments = ["workload".to_owned(), plan.to_string(), syncs.to_owned()];
    for _ in 0..random.below(6) {
        let kill = (1 + random.below(60), Duration::from_micros(random.below(3_000) as u64));
        child::run(&disk.device, mounted.point(), &arguments, Some(kill), &mut events)
            .map_err(|e| e.to_string())?;
        tally.kills += 1;
    }
    child::run(&disk.device, mounted.point(), &arguments, None, &mut events).map_err(|e| e.to_string())?;
    let log = disk.device.cut();
    drop(mounted);
    let recording = Recording {
        file_system: disk.kind.name.to_owned(),
        options,
        plan,
        seed,
        flushes: effort.flushes,
        base: disk.fresh.clone(),
        log,
        events,
    };
    // What the workload itself found wrong needs no cut.
    let found = violations(&recording.events);
    if !found.is_empty() {
        report(&recording, None, &found, effort, tally);
    }
    Ok(recording)
}

/// Makes one cut and checks it; the recording of its recovery, if that had work to do.
fn one(
    disk: &Disk,
    recording: &Recording,
    cutter: &mut Cutter<'_>,
    number: usize,
    tally: &mut Tally,
    effort: &Effort,
) -> Result<Option<Recording>, String> {
    let cut = cutter.cut(number);
    let found = match check(disk, recording, number, &cut)? {
        Checked::Found(found) => found,
        Checked::NotMounted(error) => {
            println!("not mounted: {error}\n  {}", cut.story);
            tally.not_mounted += 1;
            return Ok(None);
        }
    };
    tally.cuts += 1;
    let wrong = violations(&found.events);
    if !wrong.is_empty() {
        report(recording, Some((number, &cut)), &wrong, effort, tally);
        return Ok(None);
    }
    let worked = found.events.iter().find_map(|(_, event)| match event {
        Event::Worked { finished } => Some(*finished),
        _ => None,
    });
    tally.swept += usize::from(worked == Some(0));
    tally.finished += usize::from(worked.is_some_and(|finished| finished > 0));
    Ok(worked.map(|_| found))
}

/// What became of a cut.
pub enum Checked {
    /// What was found, and all that the check made the disk do.
    Found(Recording),
    /// The file system itself did not survive: no promise of cosave's.
    NotMounted(String),
}

/// Mounts what a cut left, lets a process check it, and takes the power away again.
pub fn check(disk: &Disk, recording: &Recording, number: usize, cut: &Cut) -> Result<Checked, String> {
    let mut events: Vec<_> = Bounds::events(&cut.bounds).into_iter().map(|event| (0, event)).collect();
    disk.device.load(cut.image.clone());
    let mounted = match disk.mount(&recording.options) {
        Ok(mounted) => mounted,
        Err(error) => return Ok(Checked::NotMounted(error)),
    };
    let bounds = cut.bounds.iter().map(|b| format!("{},{},{}", b.placed, b.kept, b.begun));
    let arguments = ["check".to_owned(), recording.plan.to_string(), recording.options.clone()];
    let arguments: Vec<_> = arguments.into_iter().chain(bounds).collect();
    child::run(&disk.device, mounted.point(), &arguments, None, &mut events).map_err(|e| e.to_string())?;
    let log = disk.device.cut();
    drop(mounted);
    Ok(Checked::Found(Recording {
        file_system: recording.file_system.clone(),
        options: recording.options.clone(),
        plan: recording.plan,
        seed: Random::of(&[recording.seed, number as u64]).next(),
        flushes: recording.flushes,
        base: cut.image.clone(),
        log,
        events,
    }))
}

pub fn violations(events: &[(usize, Event)]) -> Vec<&str> {
    let texts = events.iter().filter_map(|(_, event)| match event {
        Event::Violation(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// Recordings that are stored of one file system; each takes some 10 MB.
const STORED_MAX: usize = 20;

/// Stores the recording, and prints what was found with the line that repeats it.
fn report(
    recording: &Recording,
    cut: Option<(usize, &Cut)>,
    found: &[&str],
    effort: &Effort,
    tally: &mut Tally,
) {
    tally.violations += 1;
    let Recording { file_system, options, plan, seed, .. } = recording;
    let mut text = format!("VIOLATION on {file_system} ({options}), plan `{plan}`");
    for found in found.iter().take(8) {
        text += &format!("\n    {found}");
    }
    match cut {
        Some((_, cut)) => text += &format!("\n  {}", cut.story),
        None => text += "\n  said by the workload, before any cut",
    }
    if let Some(directory) = effort.kept.as_ref().filter(|_| tally.violations <= STORED_MAX) {
        let path = directory.join(format!("{file_system}-{seed:016x}-{}.recording", std::process::id()));
        let stored = fs::create_dir_all(directory).and_then(|()| match path.exists() {
            true => Ok(()),
            false => recording.store(&path),
        });
        let number = cut.map_or(0, |(number, _)| number);
        match stored {
            Ok(()) => text += &format!("\n  repeat it with: --repeat '{}:{number}'", path.display()),
            Err(error) => text += &format!("\n  it cannot be stored: {error}"),
        }
    }
    println!("{text}");
}
