//! Crashes a workload at every step, with every outcome that the model allows.
//! Recovers and checks each, and crashes the recovery at each of its steps in
//! turn.
//!
//! Knows nothing of cosave: a [`Workload`] says how to set up, run, recover and
//! check, over any [`FileSystem`]. Equal states are visited once. A violation
//! is a [`Case`], and its one line of text repeats it. One thread does all the
//! work, so the counts are the same in every run. To use more cores, explore
//! several workloads at once.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::SimDisk;
use super::plan::{Crash, Model, Mutation};
use crate::fs::FileSystem;
use crate::mutation::without;

/// Something to run, crash, recover and check.
pub trait Workload: Sync {
    /// Its name, for messages.
    fn name(&self) -> String;
    /// Sets the disk up. Everything on it is durable afterwards.
    fn prepare(&self, disk: &SimDisk);
    /// Runs, and tells `progress` what was begun and what was acknowledged. Must be deterministic.
    fn run(&self, disk: &SimDisk, fs: Arc<dyn FileSystem>, progress: &Progress);
    /// Changes the disk after the first crash and before any recovery, as a program that knows nothing
    /// of cosave would.
    fn meddle(&self, disk: &SimDisk) {
        let _ = disk;
    }
    /// Looks at the state after a crash, before any recovery.
    ///
    /// # Errors
    /// What is wrong.
    fn glance(&self, disk: &SimDisk, bounds: Bounds) -> Result<(), String> {
        let _ = (disk, bounds);
        Ok(())
    }
    /// Recovers, and returns the generation that it found.
    ///
    /// # Errors
    /// Why it could not recover.
    fn recover(&self, fs: Arc<dyn FileSystem>) -> Result<u64, String>;
    /// Checks a recovered disk.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self, disk: &SimDisk, bounds: Bounds, recovered: u64) -> Result<(), String>;
}

/// What a run has begun, and what has been acknowledged to it.
#[derive(Debug, Default)]
pub struct Progress {
    requested: AtomicU64,
    acknowledged: AtomicU64,
}

impl Progress {
    /// Notes that a commit of this generation is about to begin.
    pub fn request(&self, generation: u64) {
        self.requested.fetch_max(generation, Ordering::SeqCst);
    }

    /// Notes that a commit was acknowledged: from now on it may not be lost.
    pub fn acknowledge(&self, generation: u64) {
        self.acknowledged.fetch_max(generation, Ordering::SeqCst);
    }

    /// The generations that may be found after a crash now.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            floor: self.acknowledged.load(Ordering::SeqCst),
            ceiling: self.requested.load(Ordering::SeqCst),
        }
    }
}

/// The generations that may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// The newest that was acknowledged.
    pub floor: u64,
    /// The newest that was begun.
    pub ceiling: u64,
}

/// How much to explore.
#[derive(Clone, Debug)]
pub struct Explorer {
    /// What the disk may do.
    pub model: Model,
    /// How many recoveries in a row are crashed.
    pub depth: u32,
    /// The most outcomes of one power loss that are looked at.
    pub outcomes_max: usize,
    /// Chooses the sample if there are more outcomes.
    pub seed: u64,
    /// Breaks the protocol.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Crash states, including equal ones that were reached again.
    pub states: u64,
    /// Different crash states. Each was recovered and checked.
    pub distinct: u64,
    /// How many of these were crashes of a recovery.
    pub nested: u64,
    /// Recoveries that were run, including those that were crashed.
    pub recoveries: u64,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.states += other.states;
        self.distinct += other.distinct;
        self.nested += other.nested;
        self.recoveries += other.recoveries;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, distinct, nested, recoveries } = self;
        write!(
            f,
            "{states} crash states, {distinct} of them different ({nested} in a recovery), {recoveries} recoveries"
        )
    }
}

/// One crash: the step, and what it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    crash: Crash,
    /// `None` if the process was killed, otherwise which outcome of a power loss.
    outcome: Option<usize>,
}

/// A case that breaks a promise.
#[derive(Clone, Debug)]
pub struct Case {
    workload: String,
    explorer: Explorer,
    points: Vec<Point>,
    problem: String,
}

impl Case {
    /// The broken promise.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The crashes that lead there, as [`Explorer::replay`] reads them.
    #[must_use]
    pub fn path(&self) -> String {
        let point = |point: &Point| {
            let order = if point.crash.reversed { "r" } else { "f" };
            let outcome = point.outcome.map_or("k".to_owned(), |outcome| format!("p{outcome}"));
            format!("{}{order}{outcome}", point.crash.after)
        };
        self.points.iter().map(point).collect::<Vec<_>>().join(",")
    }
}

impl Case {
    /// The case in one line, which [`Explorer::parse`] reads.
    #[must_use]
    pub fn line(&self) -> String {
        let Explorer { model, outcomes_max, seed, .. } = &self.explorer;
        format!("{}/{model:?}/{outcomes_max}/{seed}/{}", self.workload, self.path())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line(), self.problem)
    }
}

struct Search<'a> {
    explorer: &'a Explorer,
    workload: &'a dyn Workload,
    seen: RefCell<HashSet<([u8; 16], Bounds, u32)>>,
    counts: RefCell<Report>,
    found: RefCell<Option<Case>>,
}

impl Explorer {
    /// An explorer of everything that `model` allows. It crashes two recoveries in a row.
    #[must_use]
    pub fn new(model: Model) -> Self {
        Self { model, depth: 2, outcomes_max: 64, seed: 1, mutation: None }
    }

    /// The workload's name, the explorer and the path of a [`Case::line`].
    #[must_use]
    pub fn parse(line: &str) -> Option<(String, Self, String)> {
        let mut parts = line.rsplitn(5, '/');
        let path = parts.next()?.to_owned();
        let (seed, outcomes_max) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let name = parts.next()?;
        let model = Model::ALL.into_iter().find(|model| format!("{model:?}") == name)?;
        Some((parts.next()?.to_owned(), Self { outcomes_max, seed, ..Self::new(model) }, path))
    }

    /// Explores every crash of a workload.
    ///
    /// # Errors
    /// The first case that the workload's check refuses.
    pub fn explore(&self, workload: &dyn Workload) -> Result<Report, Box<Case>> {
        let search = Search {
            explorer: self,
            workload,
            seen: RefCell::default(),
            counts: RefCell::default(),
            found: RefCell::default(),
        };
        let rule = self.mutation.and_then(Mutation::rule);
        let (disk, steps) = without(rule, || self.rehearse(workload));
        without(rule, || search.crash_run(&disk, steps));
        let found = search.found.into_inner();
        match found {
            Some(case) => Err(Box::new(case)),
            None => Ok(search.counts.into_inner()),
        }
    }

    /// Runs the workload once to its end, and counts its steps.
    fn rehearse(&self, workload: &dyn Workload) -> (SimDisk, u64) {
        let disk = SimDisk::new(self.model);
        workload.prepare(&disk);
        disk.settle();
        disk.mutate(self.mutation);
        let machine = disk.copy();
        workload.run(&machine, machine.process(), &Progress::default());
        (disk, machine.steps())
    }

    /// Repeats one case. `path` is that of a [`Case`].
    ///
    /// # Errors
    /// The case, if the workload's check still refuses it.
    pub fn replay(&self, workload: &dyn Workload, path: &str) -> Result<(), Box<Case>> {
        without(self.mutation.and_then(Mutation::rule), || self.replay_mutated(workload, path))
    }

    fn replay_mutated(&self, workload: &dyn Workload, path: &str) -> Result<(), Box<Case>> {
        let case = |points: &[Point], problem: String| {
            let (workload, points) = (workload.name(), points.to_vec());
            Box::new(Case { workload, explorer: self.clone(), points, problem })
        };
        let points: Option<Vec<Point>> = path.split(',').map(parse_point).collect();
        let points = points.ok_or_else(|| case(&[], format!("{path:?} is no path of crashes")))?;
        let (start, _) = self.rehearse(workload);
        let mut bounds = Bounds { floor: 0, ceiling: 0 };
        let mut disk = start;
        for (index, point) in points.iter().enumerate() {
            let machine = disk.copy();
            machine.crash_at(point.crash);
            if index == 0 {
                let progress = Progress::default();
                workload.run(&machine, machine.process(), &progress);
                bounds = progress.bounds();
            } else if let Ok(recovered) = workload.recover(machine.process()) {
                bounds.floor = bounds.floor.max(recovered);
            }
            disk = match point.outcome {
                None => machine.kill(),
                Some(outcome) => {
                    let losses = machine.power_losses(self.outcomes_max, self.seed);
                    losses
                        .into_iter()
                        .nth(outcome)
                        .ok_or_else(|| case(&points, "no such outcome".to_owned()))?
                }
            };
            if index == 0 {
                workload.meddle(&disk);
            }
        }
        visit(workload, &disk, bounds).map(drop).map_err(|problem| case(&points, problem))
    }
}

fn parse_point(text: &str) -> Option<Point> {
    let at = text.find(['f', 'r'])?;
    let (after, rest) = text.split_at(at);
    let outcome = match rest.get(1..)? {
        "k" => None,
        outcome => Some(outcome.strip_prefix('p')?.parse().ok()?),
    };
    Some(Point { crash: Crash { after: after.parse().ok()?, reversed: rest.starts_with('r') }, outcome })
}

/// Looks, recovers and checks. Returns the recovered machine.
fn visit(workload: &dyn Workload, disk: &SimDisk, bounds: Bounds) -> Result<(SimDisk, u64), String> {
    workload.glance(disk, bounds).map_err(|problem| format!("before recovery: {problem}"))?;
    let machine = disk.copy();
    let recovered = workload.recover(machine.process())?;
    workload.check(&machine, bounds, recovered)?;
    if let Some(path) = machine.retried_syncs().first() {
        return Err(format!("a failed sync of {path} was tried again"));
    }
    Ok((machine, recovered))
}

impl Search<'_> {
    fn crash_run(&self, disk: &SimDisk, steps: u64) {
        for after in 0..=steps {
            self.in_every_order(after, &mut |crash| {
                let machine = disk.copy();
                machine.crash_at(crash);
                let progress = Progress::default();
                self.workload.run(&machine, machine.process(), &progress);
                self.outcomes(&machine, progress.bounds(), self.explorer.depth, crash, &mut Vec::new());
                machine
            });
        }
    }

    /// Crashes after so many steps. If that is in the middle of a wave, it also does so with the wave's
    /// syncs in reverse order; elsewhere their order changes nothing.
    fn in_every_order(&self, after: u64, crash: &mut dyn FnMut(Crash) -> SimDisk) {
        for reversed in [false, true] {
            if self.is_over() || !crash(Crash { after, reversed }).has_crashed_in_wave() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.found.borrow_mut().is_some()
    }

    /// Adds every state that may be found after this crash.
    fn outcomes(&self, machine: &SimDisk, bounds: Bounds, depth: u32, crash: Crash, points: &mut Vec<Point>) {
        let killed = std::iter::once((None, machine.kill()));
        let losses = machine.power_losses(self.explorer.outcomes_max, self.explorer.seed);
        let losses = losses.into_iter().enumerate().map(|(outcome, disk)| (Some(outcome), disk));
        for (outcome, disk) in killed.chain(losses) {
            points.push(Point { crash, outcome });
            if points.len() == 1 {
                self.workload.meddle(&disk);
            }
            self.state(&disk, bounds, depth, points);
            points.pop();
            if self.is_over() {
                return;
            }
        }
    }

    /// Visits one crash state: recovers it, checks it, and crashes the recovery in turn.
    fn state(&self, disk: &SimDisk, bounds: Bounds, depth: u32, points: &mut Vec<Point>) {
        let key = (disk.fingerprint(), bounds, depth);
        let is_new = self.seen.borrow_mut().insert(key);
        self.count(|counts| {
            counts.states += 1;
            if is_new {
                counts.distinct += 1;
                counts.recoveries += 1;
                counts.nested += u64::from(points.len() > 1);
            }
        });
        if !is_new {
            return;
        }
        let (machine, recovered) = match visit(self.workload, disk, bounds) {
            Ok(visited) => visited,
            Err(problem) => return self.report(points, problem),
        };
        if depth == 0 {
            return;
        }
        let steps = machine.steps();
        // What a recovery has reported as committed must stay committed.
        let stable = Bounds { floor: bounds.floor.max(recovered), ceiling: bounds.ceiling };
        self.outcomes(&machine, stable, depth - 1, Crash { after: steps, reversed: false }, points);
        for after in 0..steps {
            self.in_every_order(after, &mut |crash| {
                let machine = disk.copy();
                machine.crash_at(crash);
                self.count(|counts| counts.recoveries += 1);
                let _ = self.workload.recover(machine.process());
                self.outcomes(&machine, bounds, depth - 1, crash, points);
                machine
            });
        }
    }

    fn count(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.counts.borrow_mut());
    }

    fn report(&self, points: &[Point], problem: String) {
        let mut found = self.found.borrow_mut();
        found.get_or_insert_with(|| Case {
            workload: self.workload.name(),
            explorer: self.explorer.clone(),
            points: points.to_vec(),
            problem,
        });
    }
}
