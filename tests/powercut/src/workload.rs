//! The process that saves files until the power fails.
//!
//! It says on its output what it begins and what it was told. After each beginning it waits for an
//! answer, so that whoever listens can say where in the device's log that was.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cosave::{Durability, Store};

use crate::check;
use crate::events::Event;
use crate::plan::{Change, Plan, Promise, SINGLES, Tree, content};
use crate::random::Random;

/// Where the store and the single files are, below the mount.
pub const ROOT: &str = "project";
pub const SAVES: &str = "saves";
const NEIGHBOUR: &str = "neighbour";

/// What the process does with its syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    Made,
    /// The control: the kernel answers that all is well, and does nothing.
    Skipped,
}

/// Saves what is left of the plan.
pub fn run(mount: &Path, plan: &Plan, syncs: Syncs) -> Result<(), String> {
    if syncs == Syncs::Skipped {
        skip_syncs().map_err(|error| error.to_string())?;
    }
    let voice = Voice(Mutex::new(()));
    let done = AtomicBool::new(false);
    let shared = plan.shares_store().then(|| plan.durability(0, 1));
    let shared = shared.map(|durability| Ok((durability, open(mount, plan, durability)?)));
    let shared: BTreeMap<_, _> = shared.into_iter().collect::<Result<_, String>>()?;
    let (voice, shared) = (&voice, &shared);
    let failed = thread::scope(|scope| {
        scope.spawn(|| disturb(mount, plan, &done));
        let mut threads = vec![scope.spawn(|| save_singles(mount, plan, voice))];
        for writer in 0..plan.writers {
            let stores = Stores { mount, plan, open: shared.clone() };
            threads.push(scope.spawn(move || commit_all(stores, writer, voice)));
        }
        let ended = threads.into_iter().map(|thread| thread.join());
        let failed: Vec<String> = ended
            .filter_map(|ended| ended.unwrap_or_else(|_| Err("a thread panicked".to_owned())).err())
            .collect();
        done.store(true, Ordering::Relaxed);
        failed
    });
    failed.into_iter().for_each(|failure| voice.say(&Event::Violation(failure)));
    Ok(())
}

/// One line at a time.
struct Voice(Mutex<()>);

impl Voice {
    fn say(&self, event: &Event) {
        let _one = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        speak(event);
    }

    /// Says that a step begins, and waits until that is written down.
    fn begin(&self, track: usize, step: usize) {
        let _one = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        speak(&Event::Begun { track, step });
        let heard = io::stdin().lock().read_line(&mut String::new());
        if !heard.is_ok_and(|bytes| bytes > 0) {
            // Nobody listens any more.
            std::process::exit(1);
        }
    }
}

/// Says one event to whoever listens.
pub fn speak(event: &Event) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{event}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// The stores of one writer, one for each durability that it uses.
struct Stores<'a> {
    mount: &'a Path,
    plan: &'a Plan,
    open: BTreeMap<Durability, Store>,
}

impl Stores<'_> {
    fn get(&mut self, durability: Durability) -> Result<&Store, String> {
        if !self.open.contains_key(&durability) {
            self.open.insert(durability, open(self.mount, self.plan, durability)?);
        }
        Ok(&self.open[&durability])
    }

    /// Closes them, unless another writer works with the same.
    fn close(&mut self) {
        if !self.plan.shares_store() {
            self.open.clear();
        }
    }
}

fn open(mount: &Path, plan: &Plan, durability: Durability) -> Result<Store, String> {
    let options = Store::options().create(true).durability(durability).sync_strategy(plan.strategy());
    options.open(mount.join(ROOT)).map_err(|error| told("open for the workload", &error))
}

/// Goes through a writer's steps, from the one that it finds.
fn commit_all(mut stores: Stores<'_>, writer: usize, voice: &Voice) -> Result<(), String> {
    let plan = stores.plan;
    let trees = plan.trees(writer);
    stores.get(plan.durability(writer, 1))?;
    let found = check::versions(&stores.mount.join(ROOT), plan, &trees, plan.steps);
    let Some(found) = trees.iter().rposition(|tree| *tree == found) else {
        return Err(format!("no state of writer {writer} after a kill: {found:?}"));
    };
    if plan.promise != Promise::Mixed {
        voice.say(&Event::Placed { track: writer, step: found });
    }
    let mut random = Random::of(&[plan.seed, 3, writer as u64, found as u64]);
    for step in found + 1..=plan.steps {
        pause(&mut random);
        if random.one_in(10) {
            stores.close();
        }
        commit(&mut stores, writer, step, &trees[step - 1], voice)?;
        if random.one_in(6) && plan.promise == Promise::Committed {
            stores.get(Durability::Committed)?.flush().map_err(|error| told("flush", &error))?;
            voice.say(&Event::Placed { track: writer, step });
        }
    }
    Ok(())
}

fn commit(
    stores: &mut Stores<'_>,
    writer: usize,
    step: usize,
    before: &Tree,
    voice: &Voice,
) -> Result<(), String> {
    let plan = stores.plan;
    let durability = plan.durability(writer, step);
    let store = stores.get(durability)?;
    voice.begin(writer, step);
    let failed = |error| told(&format!("commit of step {step}"), &error);
    let mut transaction = store.begin().map_err(failed)?;
    for (path, change) in plan.changes(writer, step, before) {
        match change {
            Change::Write => transaction.write(&path, content(plan.seed, &path, step)).map_err(failed)?,
            Change::Remove => transaction.remove(&path).map_err(failed)?,
        }
    }
    transaction.commit().map_err(failed)?;
    match durability {
        Durability::Full => voice.say(&Event::Placed { track: writer, step }),
        Durability::Committed => voice.say(&Event::Kept { track: writer, step }),
        _ => {}
    }
    Ok(())
}

/// Saves each of the single files again and again.
fn save_singles(mount: &Path, plan: &Plan, voice: &Voice) -> Result<(), String> {
    let mut versions = [0; SINGLES.len()];
    for (single, version) in versions.iter_mut().enumerate() {
        *version = check::single_version(&mount.join(SAVES), SINGLES[single], plan)
            .ok_or_else(|| format!("{} is torn after a kill", SINGLES[single]))?;
    }
    let mut random = Random::of(&[plan.seed, 4, versions.iter().sum::<usize>() as u64]);
    for _ in 0..plan.steps {
        pause(&mut random);
        let single = random.below(SINGLES.len());
        let (track, step) = (plan.writers + single, versions[single] + 1);
        if step > plan.steps {
            continue;
        }
        voice.begin(track, step);
        let path = SINGLES[single].replace('#', &step.to_string());
        let (place, bytes) = (mount.join(SAVES).join(&path), content(plan.seed, &path, step));
        let is_new = SINGLES[single].contains('#');
        let saved = if is_new { cosave::create_new(place, bytes) } else { cosave::write(place, bytes) };
        saved.map_err(|error| told("save a single file", &error))?;
        versions[single] = step;
        voice.say(&Event::Placed { track, step });
    }
    Ok(())
}

/// Others use the disk too: files come and are synced, cosave's own among them, and now and then
/// everything is. Each of that makes the file system write in another order.
fn disturb(mount: &Path, plan: &Plan, done: &AtomicBool) {
    let mut random = Random::of(&[plan.seed, 5]);
    let quiet = random.one_in(3);
    let own = mount.join(NEIGHBOUR);
    while !quiet && !done.load(Ordering::Relaxed) {
        pause(&mut random);
        // What fails here is not cosave's: most files are gone by the time they would be synced.
        let _ = match random.below(8) {
            0 => File::open(mount).map(|disk| _ = rustix::fs::syncfs(disk)),
            1..4 => sync_any(&mount.join(ROOT), &mut random),
            _ => fs::create_dir_all(&own).and_then(|()| {
                let path = own.join(random.below(20).to_string());
                fs::write(&path, content(plan.seed, "neighbour", random.below(50)))?;
                if random.one_in(2) { File::open(path)?.sync_all() } else { Ok(()) }
            }),
        };
    }
}

fn sync_any(directory: &Path, random: &mut Random) -> io::Result<()> {
    let names: Vec<_> = fs::read_dir(directory)?.filter_map(Result::ok).collect();
    if names.is_empty() || random.one_in(4) {
        return File::open(directory)?.sync_all();
    }
    let path = random.pick(&names).path();
    if path.is_dir() { sync_any(&path, random) } else { File::open(path)?.sync_all() }
}

/// Mostly no time, now and then some, so that threads meet in many ways.
fn pause(random: &mut Random) {
    if random.one_in(3) {
        thread::sleep(Duration::from_micros(random.below(4_000) as u64));
    }
}

/// An error with what caused it.
pub fn told(what: &str, error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    format!("{what}: {}", causes.join(": "))
}

fn skip_syncs() -> Result<(), seccompiler::Error> {
    let calls = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs, libc::SYS_sync_file_range];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into()?;
    let (otherwise, matched) = (seccompiler::SeccompAction::Allow, seccompiler::SeccompAction::Errno(0));
    let filter = seccompiler::SeccompFilter::new(rules, otherwise, matched, arch)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}
