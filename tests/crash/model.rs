//! Random operations of several processes on one disk, with crashes in between.
//! What the library returns and what views show must be what the reference
//! says.
//!
//! `reference` knows what transactions promise. This module knows which
//! processes live, who blocks whom, and what a crash may leave. That is every
//! acknowledged generation, and perhaps the one that was being committed. `past`
//! knows what a power loss may undo of commits that did not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::{self, Write as _};
use std::time::Duration;

use cosave::fs::Barrier;
use cosave::fs::sim::{Crash, Granularity, Model, Mutation, Part, Rule, SimDisk};
use cosave::{
    Checksum, Difference, Durability, Error, Expect, FileWriter, Finding, Lease, LockGuard, Store,
    Transaction, View,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::past::Past;
use crate::property;
use crate::reference::{Draft, Reading, State, Verdict, Wanted};
use crate::script::{found_on, link_bytes, seen_at};

use Durability::{Committed, Full, Process};
use Granularity::{Changes, Fine, Still};
use Model::{JumpingPrefix, OrderedPrefix, WeakPosix};

/// No path lies below another.
const PATHS: [&str; 6] = ["a", "b", "d/c", "d/e", "new/f", "new/g/h"];

/// A directory with nothing but files in it.
const LISTED: &str = "d";

/// Where a symlink is made and removed, and where it may lead. Nothing is done through it.
const LINK: &str = "l";
const LINK_TEXTS: [&str; 3] = ["a", "d", "../outside"];

fn all_paths() -> impl Iterator<Item = &'static str> {
    PATHS.into_iter().chain([LINK])
}

/// The files that exist at first.
const FILES: [(&str, &str); 2] = [("a", "old"), ("d/c", "old")];

const CONTENTS: [&str; 4] = ["one", "two", "longer than those", ""];

const MODES: [u32; 3] = [0o600, 0o640, 0o664];

/// How many bytes of a transaction are kept in memory, in turn: all, none, and so few that many
/// transactions outgrow it.
const KEPT_BYTES: [usize; 3] = [1 << 20, 0, 5];

/// At most so many at once, of each kind: enough to block each other.
const STORES_MAX: usize = 3;
const TRANSACTIONS_MAX: usize = 4;
const WRITERS_MAX: usize = 3;
const VIEWS_MAX: usize = 2;

/// What a file is called that recovery cannot tell from a stranger's, after a dot and the file's name.
const SET_ASIDE: &str = ".set-aside-";

/// How many outcomes of a power loss to choose from.
const OUTCOMES_MAX: usize = 16;

const CASES: u32 = 1500;

/// One call on a transaction.
#[derive(Clone, Copy, Debug)]
enum Change {
    Write(&'static str, &'static str),
    WriteWith(&'static str, &'static str),
    /// A fill function that fails after it has written something.
    FailToWrite(&'static str),
    WriteIfChanged(&'static str, &'static str),
    CreateNew(&'static str, &'static str),
    Remove(&'static str),
    RemoveIfExists(&'static str),
    Read(&'static str),
    CopyTo(&'static str, &'static str),
    Rename(&'static str, &'static str),
    Symlink(&'static str),
    Exists(&'static str),
    ExpectAbsent(&'static str),
    ExpectPresent(&'static str),
    ExpectContent(&'static str, &'static str),
    ExpectUnchanged(&'static str),
    /// Expects the newest generation, or the one before it.
    ExpectGeneration(bool),
    /// The length of a file.
    Measure(&'static str),
    /// Lists the one directory that is there from the beginning, and has no others in it.
    List,
}

/// What a crash does: it kills the processes, or it cuts the power, with one of the outcomes that the
/// model allows.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Kill,
    Power(usize),
}

/// One step. The numbers choose among what is open. If nothing is open, nothing happens.
#[derive(Clone, Debug)]
enum Step {
    Open(Durability),
    Close(usize),
    Begin(usize),
    Tell(usize, Change),
    Commit(usize),
    Abort(usize),
    /// A whole transaction, from begin to commit.
    Save(usize, Vec<Change>),
    OpenWriter(usize, &'static str, &'static str),
    FinishWriter(usize),
    DropWriter(usize),
    View(usize),
    DropView(usize),
    /// A store has the root to itself from now on.
    Lease(usize),
    EndLease,
    /// Others change a file's permissions.
    Chmod(&'static str, u32),
    /// Others make a file append-only, or ordinary again.
    Freeze(&'static str, bool),
    Flush(usize),
    Sweep(usize),
    Recover(usize),
    Crash(Loss),
    /// A crash after so many more changes of the disk. The flag says whether a wave's members are
    /// synced in reverse.
    CrashSoon(u64, bool, Loss),
}

impl Change {
    fn path(self) -> &'static str {
        match self {
            Write(path, _) | WriteWith(path, _) | WriteIfChanged(path, _) | CreateNew(path, _) => path,
            FailToWrite(path) | Remove(path) | RemoveIfExists(path) | Read(path) | Exists(path) => path,
            ExpectAbsent(path) | ExpectPresent(path) | ExpectContent(path, _) => path,
            ExpectUnchanged(path) | Measure(path) => path,
            ExpectGeneration(_) | List => "",
            CopyTo(_, to) | Rename(_, to) => to,
            Symlink(_) => LINK,
        }
    }

    /// Whether it would change one of these files.
    fn would_change(self, files: &BTreeSet<&'static str>) -> bool {
        match self {
            Read(_) | Exists(_) | ExpectAbsent(_) | ExpectPresent(_) | ExpectContent(..) => false,
            ExpectUnchanged(_) | ExpectGeneration(_) | Measure(_) | List => false,
            Rename(from, to) => files.contains(from) || files.contains(to),
            _ => files.contains(self.path()),
        }
    }
}

use Change::{
    CopyTo, CreateNew, Exists, ExpectAbsent, ExpectContent, ExpectGeneration, ExpectPresent, ExpectUnchanged,
    FailToWrite, List, Measure, Read, Remove, RemoveIfExists, Rename, Symlink, Write, WriteIfChanged,
    WriteWith,
};
use Loss::{Kill, Power};
use Step::{
    Abort, Begin, Chmod, Close, Commit, CrashSoon, DropView, DropWriter, EndLease, FinishWriter, Flush,
    Freeze, Open, OpenWriter, Recover, Save, Sweep, Tell,
};

fn plain_change() -> impl Strategy<Value = Change> {
    let path = || select(&PATHS[..]);
    let both = || (path(), select(&CONTENTS[..]));
    prop_oneof![
        6 => both().prop_map(|(path, content)| Write(path, content)),
        1 => both().prop_map(|(path, content)| WriteWith(path, content)),
        1 => path().prop_map(FailToWrite),
        2 => both().prop_map(|(path, content)| WriteIfChanged(path, content)),
        2 => both().prop_map(|(path, content)| CreateNew(path, content)),
        2 => path().prop_map(Remove),
        2 => path().prop_map(RemoveIfExists),
        2 => path().prop_map(Read),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let path = || select(&PATHS[..]);
    let two_paths = || (path(), path()).prop_filter("two paths", |(from, to)| from != to);
    prop_oneof![
        18 => plain_change(),
        1 => path().prop_map(Exists),
        1 => path().prop_map(ExpectAbsent),
        1 => path().prop_map(ExpectPresent),
        1 => (path(), select(&CONTENTS[..])).prop_map(|(path, content)| ExpectContent(path, content)),
        1 => path().prop_map(ExpectUnchanged),
        1 => proptest::bool::weighted(0.8).prop_map(ExpectGeneration),
        1 => path().prop_map(Measure),
        1 => Just(List),
        1 => two_paths().prop_map(|(from, to)| CopyTo(from, to)),
        2 => two_paths().prop_map(|(from, to)| Rename(from, to)),
        2 => select(&LINK_TEXTS[..]).prop_map(Symlink),
        1 => Just(Remove(LINK)),
        1 => Just(RemoveIfExists(LINK)),
    ]
}

fn step<C: Strategy<Value = Change> + 'static>(change: fn() -> C) -> impl Strategy<Value = Step> {
    let any = || 0..8_usize;
    let either = proptest::bool::ANY;
    let durability = prop_oneof![4 => Just(Full), 4 => Just(Committed), 3 => Just(Process)];
    let loss = || prop_oneof![Just(Kill), (0..OUTCOMES_MAX * 8).prop_map(Power)];
    prop_oneof![
        12 => durability.prop_map(Open),
        4 => any().prop_map(Close),
        10 => any().prop_map(Begin),
        20 => (any(), change()).prop_map(|(which, change)| Tell(which, change)),
        10 => any().prop_map(Commit),
        2 => any().prop_map(Abort),
        10 => (any(), vec(change(), 1..4)).prop_map(|(which, changes)| Save(which, changes)),
        3 => (any(), select(&PATHS[..]), select(&CONTENTS[..]))
            .prop_map(|(which, path, content)| OpenWriter(which, path, content)),
        3 => any().prop_map(FinishWriter),
        1 => any().prop_map(DropWriter),
        3 => any().prop_map(Step::View),
        6 => any().prop_map(DropView),
        3 => (select(&PATHS[..]), select(&MODES[..])).prop_map(|(path, mode)| Chmod(path, mode)),
        2 => (select(&PATHS[..]), either).prop_map(|(path, freeze)| Freeze(path, freeze)),
        2 => any().prop_map(Flush),
        2 => any().prop_map(Sweep),
        2 => any().prop_map(Recover),
        2 => loss().prop_map(Step::Crash),
        4 => (0..60_u64, either, loss())
            .prop_map(|(after, reversed, loss)| CrashSoon(after, reversed, loss)),
    ]
}

/// With stores that have the root to themselves.
fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => step(change),
        1 => (0..8_usize).prop_map(Step::Lease),
        2 => Just(EndLease),
    ]
}

/// What a disk may lose, and how finely its time stamps tell.
type Machine = (Model, Granularity);

/// A machine, and the steps on it. Printed as Rust, so that it can be pasted into a call of
/// [`check`].
fn case() -> impl Strategy<Value = (Machine, Vec<Step>)> {
    case_of(any_step())
}

/// Without what is a write, a removal or a read to the protocol, and makes some moments too rare.
fn plain_case() -> impl Strategy<Value = (Machine, Vec<Step>)> {
    case_of(step(plain_change))
}

fn case_of(step: impl Strategy<Value = Step>) -> impl Strategy<Value = (Machine, Vec<Step>)> {
    let model = select(&[OrderedPrefix, JumpingPrefix, WeakPosix][..]);
    let clock = select(&[Fine, Changes(7), Still][..]);
    ((model, clock), vec(step, 1..40))
}

/// Why the library refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    NotFound,
    Unfinished,
    Conflict,
    Locked,
    Failed(String),
}

fn refusal(error: Error) -> Refusal {
    match error {
        error if error.is_not_found() => Refusal::NotFound,
        Error::Caller { source, .. } if source.kind() == io::ErrorKind::NotFound => Refusal::NotFound,
        Error::Unfinished { .. } => Refusal::Unfinished,
        Error::Conflict { .. } => Refusal::Conflict,
        Error::Locked { .. } => Refusal::Locked,
        error => Refusal::Failed(format!("{error}, {error:?}")),
    }
}

type Answer<T> = Result<T, Refusal>;

/// A process and its store.
struct Opened {
    id: u64,
    durability: Durability,
    store: Store,
}

/// An open transaction, which can outlive its store.
struct Begun {
    id: u64,
    owner: u64,
    durability: Durability,
    transaction: Transaction,
    draft: Draft,
}

struct Writing {
    transaction: u64,
    number: u64,
    content: &'static str,
    writer: FileWriter,
}

/// What was being committed at a crash.
struct InFlight {
    state: State,
    durability: Durability,
    changed: Vec<String>,
}

/// How a store has the root to itself.
enum Alone {
    Leased(#[allow(dead_code, reason = "only its end matters")] Lease),
    Locked(#[allow(dead_code, reason = "only its end matters")] LockGuard),
}

/// The disk, the processes on it, and what must be true of them.
struct World {
    disk: SimDisk,
    stores: Vec<Opened>,
    transactions: Vec<Begun>,
    writers: Vec<Writing>,
    views: Vec<(View, State)>,
    /// Which store has the root to itself.
    lease: Option<(u64, Alone)>,
    /// The last acknowledged state.
    committed: State,
    /// What was being committed at the crash: it may exist or not until a recovery decides.
    in_flight: Option<InFlight>,
    /// What a power loss may undo.
    past: Past,
    /// Whether a recovery has finished since the last crash.
    recovered: bool,
    /// What the planned crash will do.
    planned: Option<Loss>,
    /// Paths that a power loss may not change, even for programs that know nothing of cosave.
    in_place: BTreeSet<String>,
    /// Directories made for a transaction that was not committed. It may remove one that is empty, or
    /// recovery may, even if a later commit of another process has used it.
    doubtful: BTreeSet<String>,
    /// The permissions that others gave to files.
    modes: BTreeMap<String, u32>,
    /// Files that others have made append-only.
    frozen: BTreeSet<&'static str>,
    /// Who changed a path last, and who committed a generation.
    changed_by: BTreeMap<String, u64>,
    /// The generation that wrote a path last.
    written_in: BTreeMap<String, u64>,
    committed_by: BTreeMap<u64, u64>,
    /// A store has staged without waiting, so nothing may lead to its files after a power loss. Then
    /// this is what is left.
    stages_unrecorded: bool,
    is_littered: bool,
    ids: u64,
}

/// Chooses one of those that exist.
fn choose<T>(all: &[T], which: usize) -> Option<usize> {
    (!all.is_empty()).then(|| which % all.len())
}

fn is_staged(path: &str) -> bool {
    path.ends_with(".cosave")
}

impl property::World for World {
    type Machine = Machine;
    type Step = Step;

    fn new((model, clock): Machine, mutation: Option<Mutation>) -> Self {
        let disk = SimDisk::new(model);
        disk.clock(clock);
        let mut committed = State::default();
        for (path, content) in FILES {
            committed.put(path, content);
            for directory in &committed.directories {
                disk.make_directory(directory, 0);
            }
            disk.put(path, content.as_bytes(), 0o644);
        }
        disk.settle();
        disk.mutate(mutation);
        let past = Past::new(&committed);
        Self {
            past,
            disk,
            stores: Vec::new(),
            transactions: Vec::new(),
            writers: Vec::new(),
            views: Vec::new(),
            lease: None,
            committed,
            in_flight: None,
            recovered: true,
            planned: None,
            in_place: all_paths().map(str::to_owned).collect(),
            doubtful: BTreeSet::new(),
            modes: BTreeMap::new(),
            frozen: BTreeSet::new(),
            changed_by: BTreeMap::new(),
            written_in: BTreeMap::new(),
            committed_by: BTreeMap::new(),
            stages_unrecorded: false,
            is_littered: false,
            ids: 0,
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        self.act(step)?;
        if self.disk.has_crashed() {
            let loss = self.planned.take().unwrap_or(Kill);
            self.crash(loss)?;
        }
        self.look()
    }

    /// Closes everything. The next opening must find nothing left.
    fn end(&mut self) -> Result<(), String> {
        self.writers.clear();
        self.drop_transactions();
        self.views.clear();
        self.lease = None;
        self.stores.clear();
        if self.disk.has_crashed() {
            let loss = self.planned.take().unwrap_or(Kill);
            self.crash(loss)?;
        }
        self.disk = self.disk.kill();
        self.take(&Open(Full))?;
        self.stores.clear();
        self.look()?;
        self.nothing_is_left()
    }
}

impl World {
    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Compares, unless the process died during the call.
    fn agree<T: PartialEq + Debug>(&self, found: T, expected: T) -> Result<(), String> {
        if found == expected || self.disk.has_crashed() {
            return Ok(());
        }
        Err(format!("found {found:?}, but it should be {expected:?}"))
    }

    fn act(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Open(durability) => self.open(*durability),
            Close(which) => {
                self.close(*which);
                Ok(())
            }
            Begin(which) => self.begin(*which),
            Tell(which, change) => self.tell(*which, *change),
            Commit(which) => self.commit(*which),
            Abort(which) => {
                if let Some(index) = choose(&self.transactions, *which) {
                    self.abort(index);
                }
                Ok(())
            }
            Save(which, changes) => {
                let before = self.transactions.len();
                self.begin(*which)?;
                if self.transactions.len() == before {
                    return Ok(());
                }
                changes.iter().try_for_each(|change| self.tell(before, *change))?;
                if self.disk.has_crashed() { Ok(()) } else { self.commit(before) }
            }
            OpenWriter(which, path, content) => self.open_writer(*which, path, content),
            FinishWriter(which) => self.finish_writer(*which),
            DropWriter(which) => {
                self.drop_writer(*which);
                Ok(())
            }
            Step::View(which) => self.view(*which),
            DropView(which) => {
                choose(&self.views, *which).map(|index| self.views.remove(index));
                Ok(())
            }
            Step::Lease(which) => self.lease(*which),
            EndLease => {
                self.lease = None;
                Ok(())
            }
            Chmod(path, mode) => {
                // A mode is part of what those have seen who looked at the file.
                let looked = |begun: &Begun| begun.draft.has_measured(path);
                while let Some(index) = self.transactions.iter().position(looked) {
                    self.abort(index);
                }
                if self.recovered && self.committed.files.contains_key(*path) {
                    self.disk.set_mode(path, *mode);
                    self.modes.insert((*path).to_owned(), *mode);
                }
                Ok(())
            }
            Freeze(path, freeze) => {
                if self.recovered && self.committed.files.contains_key(*path) {
                    self.freeze(path, *freeze);
                }
                Ok(())
            }
            Flush(which) => self.flush(*which),
            Sweep(which) => self.tidy(*which, Store::sweep),
            Recover(which) => self.tidy(*which, Store::recover),
            Step::Crash(loss) => self.crash(*loss),
            CrashSoon(after, reversed, loss) => {
                self.disk.crash_at(Crash { after: self.disk.steps() + after, reversed: *reversed });
                self.planned = Some(*loss);
                Ok(())
            }
        }
    }

    /// Whether a reader may be refused: a dead writer's commit must be finished first, and another
    /// reader blocks that.
    fn readers_may_wait(&self) -> Result<bool, String> {
        if self.views.is_empty() {
            return Ok(false);
        }
        let status = self.observer(&self.disk)?.status().map_err(|error| error.to_string())?;
        let is_open = |id: &u64| self.stores.iter().any(|opened| opened.id == *id);
        Ok(status.pending.iter().any(|pending| !self.committed_by.get(&pending.get()).is_some_and(is_open)))
    }

    /// A read-only store, to look at the disk.
    fn observer(&self, disk: &SimDisk) -> Result<Store, String> {
        let options = Store::options().read_only(true).lock_timeout(Duration::ZERO);
        options.open_on(disk.process()).map_err(|error| format!("to look: {error}"))
    }

    /// Whether there are commits that nobody has waited for yet.
    fn has_waived(&self) -> bool {
        self.disk.control_names().iter().any(|name| name.ends_with("-waived"))
    }

    fn open(&mut self, durability: Durability) -> Result<(), String> {
        if self.stores.len() == STORES_MAX {
            return Ok(());
        }
        let status = self.observer(&self.disk)?.status().map_err(|error| error.to_string())?;
        let pending = self.disk.control_names().iter().any(|name| name.contains(".pending"));
        let must_wait = !self.views.is_empty() && (pending || status.needs_sweep);
        // Who opens with a promise makes durable first what others never waited for.
        let may_wait = !self.views.is_empty() && self.has_waived();
        let alone = self.stores.is_empty()
            && self.transactions.is_empty()
            && self.writers.is_empty()
            && self.views.is_empty();
        let kept = KEPT_BYTES[usize::try_from(self.ids).unwrap_or(0) % KEPT_BYTES.len()];
        let options = Store::options().durability(durability).lock_timeout(Duration::ZERO);
        let found = options.inline_max(kept).open_on(self.disk.process());
        if self.disk.has_crashed() {
            return Ok(());
        }
        let store = match found.map_err(refusal) {
            Err(Refusal::Locked) if must_wait || may_wait => return Ok(()),
            Ok(store) if !must_wait => store,
            found => return Err(format!("opening gave {found:?}, to wait: {must_wait}")),
        };
        let generation = store.generation().map_err(|error| error.to_string())?;
        self.recovered_to(generation.get(), durability, &store.last_recovery().differences)?;
        if alone {
            self.nothing_is_left()?;
        }
        let id = self.next_id();
        self.stores.push(Opened { id, durability, store });
        Ok(())
    }

    /// An opening has found this generation.
    fn recovered_to(
        &mut self,
        generation: u64,
        durability: Durability,
        differences: &[Difference],
    ) -> Result<(), String> {
        let told = self.told(differences);
        self.touches_only_what_is_at_risk(&told)?;
        let in_flight = self.in_flight.take().map(|in_flight| in_flight.state);
        let found = in_flight.into_iter().find(|state| state.generation == generation);
        let of_past = || self.past.states().find(|state| state.generation == generation).cloned();
        match found.or_else(|| of_past().filter(|_| self.past.is_lost())) {
            Some(state) => self.committed = state,
            None => self.agree(generation, self.committed.generation)?,
        }
        self.past.find(&self.committed, durability, &told);
        let files = self.committed.files.clone();
        self.modes.retain(|path, _| files.contains_key(path) && !self.past.at_risk().contains(path));
        self.adopt_what_was_at_risk();
        self.lose_doubtful_directories();
        if durability != Process {
            self.past.settle(&self.committed);
        }
        if durability != Process || !self.has_waived() {
            self.in_place = all_paths().map(str::to_owned).collect();
        }
        self.recovered = true;
        Ok(())
    }

    /// The paths that a recovery tells of. It cannot know who removed an empty directory.
    fn told(&self, differences: &[Difference]) -> BTreeSet<String> {
        let is_own = |difference: &&Difference| {
            difference.finding == Finding::DirectoryMissing
                && self.doubtful.contains(&difference.path.parent().to_string())
        };
        let told = differences.iter().filter(|difference| !is_own(difference));
        told.map(|difference| difference.path.to_string()).collect()
    }

    /// Nobody else has touched anything, so a recovery can find nothing else.
    fn touches_only_what_is_at_risk(&self, told: &BTreeSet<String>) -> Result<(), String> {
        match told.iter().all(|path| self.past.may_differ(path)) {
            true => Ok(()),
            false => Err(format!("recovery found {told:?}, though nobody touched anything")),
        }
    }

    /// What a power loss may have damaged is from now on what the disk shows.
    fn adopt_what_was_at_risk(&mut self) {
        let files = found_on(&self.disk);
        for path in self.past.at_risk() {
            match files.get(path) {
                Some(bytes) => self.committed.put(path, &String::from_utf8_lossy(bytes)),
                None => _ = self.committed.files.remove(path),
            }
        }
        if self.recovered || !self.is_littered {
            return;
        }
        let (present, promised) = (self.disk.directories(), self.past.promised_directories());
        let made = PATHS.into_iter().flat_map(crate::reference::directories_of);
        for directory in made.filter(|directory| !promised.contains(directory)) {
            match present.contains(&directory) {
                true => _ = self.committed.directories.insert(directory),
                false => _ = self.committed.directories.remove(&directory),
            }
        }
    }

    /// Everything that was committed is now durable and in place.
    fn settle(&mut self) {
        self.adopt_what_was_at_risk();
        self.past.settle(&self.committed);
        self.in_place = all_paths().map(str::to_owned).collect();
    }

    fn lose_doubtful_directories(&mut self) {
        let State { files, directories, .. } = &mut self.committed;
        let present = self.disk.directories();
        directories.retain(|directory| {
            let is_used = files.keys().any(|path| path.starts_with(&format!("{directory}/")));
            is_used || present.contains(directory) || !self.doubtful.contains(directory)
        });
    }

    /// Checks the disk after a recovery while no other process lives.
    fn nothing_is_left(&self) -> Result<(), String> {
        let control = self.disk.control_names().into_iter();
        let mut left = control
            .filter(|name| name.contains("sessions/") || name.ends_with(".tmp") || name.contains(".pending"));
        let mut staged = found_on(&self.disk).into_keys().filter(|path| is_staged(path) && !self.is_littered);
        match left.next().or_else(|| staged.next()) {
            Some(name) => Err(format!("{name} is left")),
            None => Ok(()),
        }
    }

    fn lease(&mut self, which: usize) -> Result<(), String> {
        let Some(index) = choose(&self.stores, which) else { return Ok(()) };
        let Opened { id, store, .. } = &self.stores[index];
        let id = *id;
        if self.lease.as_ref().is_some_and(|(holder, _)| *holder == id) {
            return Ok(());
        }
        let expected = if self.lease.is_none() { Ok(()) } else { Err(Refusal::Locked) };
        let alone = match which % 2 {
            0 => store.exclusive().map(Alone::Leased),
            _ => store.lock().map(Alone::Locked),
        };
        let (found, lease) = match alone {
            Ok(lease) => (Ok(()), Some(lease)),
            Err(error) => (Err(refusal(error)), None),
        };
        self.agree(found, expected)?;
        if let Some(lease) = lease {
            self.lease = Some((id, lease));
        }
        Ok(())
    }

    fn close(&mut self, which: usize) {
        let Some(index) = choose(&self.stores, which) else { return };
        let Opened { id, store, durability } = self.stores.remove(index);
        self.lease = self.lease.take().filter(|(holder, _)| *holder != id);
        drop(store);
        if durability != Process && self.views.is_empty() && !self.disk.has_crashed() {
            self.is_in_place(id);
        }
        // Its aborted transactions may have made them.
        self.lose_doubtful_directories();
    }

    /// Everything that a store committed is now durably in place.
    fn is_in_place(&mut self, store: u64) {
        let own = self.changed_by.iter().filter(|(_, owner)| **owner == store);
        self.in_place.extend(own.map(|(path, _)| path.clone()));
    }

    fn begin(&mut self, which: usize) -> Result<(), String> {
        let Some(index) = choose(&self.stores, which) else { return Ok(()) };
        if self.transactions.len() == TRANSACTIONS_MAX {
            return Ok(());
        }
        let id = self.next_id();
        let Opened { id: owner, durability, store } = &self.stores[index];
        let transaction = store.begin().map_err(|error| error.to_string())?;
        let (owner, durability, draft) = (*owner, *durability, Draft::default());
        self.stages_unrecorded |= durability == Process;
        self.transactions.push(Begun { id, owner, durability, transaction, draft });
        Ok(())
    }

    fn tell(&mut self, which: usize, change: Change) -> Result<(), String> {
        if self.disk.has_crashed() {
            return Ok(());
        }
        if change.would_change(&self.frozen) {
            return Ok(());
        }
        let may_wait = self.readers_may_wait()?;
        self.abort_what_is_in_doubt();
        let Some(index) = choose(&self.transactions, which) else { return Ok(()) };
        let written = self.written_in.clone();
        let written = |path: &str| written.get(path).copied().unwrap_or_default();
        let Begun { transaction: tx, draft, .. } = &mut self.transactions[index];
        let newest = self.committed.generation;
        let found = answer(tx, change, newest);
        if found == Err(Refusal::Locked) && may_wait {
            return Ok(());
        }
        let expected = expect(draft, &self.committed, change, written);
        let planned = tx.changes();
        let drafted = draft.changed();
        self.agree(found, expected).map_err(|problem| format!("{change:?}: {problem}"))?;
        match planned {
            Ok(changes) => {
                self.agree(changes.iter().map(|change| change.path().to_string()).collect(), drafted)
            }
            Err(error @ Error::InvalidPath { .. }) => {
                Err(format!("{change:?}: the plan is refused: {error}"))
            }
            // The commit would be refused for the same reason. And a killed process can do nothing.
            Err(_) => Ok(()),
        }
    }

    /// Ends the transactions that have seen what may have changed, or not.
    fn abort_what_is_in_doubt(&mut self) {
        let written = self.written_in.clone();
        let written = |path: &str| written.get(path).copied().unwrap_or_default();
        let is_in_doubt = |world: &Self| {
            world.transactions.iter().position(|begun| begun.draft.is_in_doubt(&world.committed, written))
        };
        while let Some(index) = is_in_doubt(self) {
            self.abort(index);
        }
    }

    fn commit(&mut self, which: usize) -> Result<(), String> {
        let may_wait = self.readers_may_wait()?;
        self.abort_what_is_in_doubt();
        let Some(index) = choose(&self.transactions, which) else { return Ok(()) };
        let Begun { owner, durability, transaction, draft, .. } = self.transactions.remove(index);
        let verdict = draft.verdict(&self.committed);
        let is_shut_out = self.lease.as_ref().is_some_and(|(holder, _)| *holder != owner);
        let expected = match &verdict {
            Verdict::Unfinished => Err(Refusal::Unfinished),
            _ if draft.is_doomed() => Err(Refusal::Conflict),
            _ if !draft.is_empty() && (is_shut_out || !self.views.is_empty()) => Err(Refusal::Locked),
            Verdict::Conflict => Err(Refusal::Conflict),
            Verdict::Nothing => Ok((self.committed.generation, Vec::new())),
            Verdict::Commits(next) => Ok((next.generation, draft.changed())),
        };
        // These get the modes of other files.
        self.modes.retain(|path, _| !draft.has_copied(path));
        let found = transaction.commit().map_err(refusal).map(|commit| {
            let changed = commit.changes().iter().map(|change| change.path().to_string());
            (commit.generation().get(), changed.collect::<Vec<_>>())
        });
        if found.is_err() {
            self.doubtful.extend(draft.directories());
        }
        if found.is_err() && !self.disk.has_crashed() {
            self.lose_doubtful_directories();
        }
        if self.disk.has_crashed() && found.is_err() {
            if let (Ok(_), Verdict::Commits(next)) = (expected, verdict) {
                let changed = draft.changed();
                if durability == Process {
                    self.in_place.retain(|path| !changed.contains(path));
                }
                self.in_flight = Some(InFlight { state: next, durability, changed });
            }
            return Ok(());
        }
        if found == Err(Refusal::Locked) && draft.is_empty() && may_wait {
            return Ok(());
        }
        let is_frozen = draft.changed().iter().any(|path| self.frozen.contains(path.as_str()));
        if is_frozen && matches!(found, Err(Refusal::Failed(_))) && expected.is_ok() {
            return Ok(());
        }
        let expected = expected.and_then(|expected| match is_frozen {
            true => Err(Refusal::Failed("a file is append-only".to_owned())),
            false => Ok(expected),
        });
        if found != expected {
            return Err(format!("the commit gave {found:?}, but it should be {expected:?}"));
        }
        if let (Ok(_), Verdict::Commits(next)) = (found, verdict) {
            self.committed_by.insert(next.generation, owner);
            let paid = self.past.commit(&next, durability, &draft.changed());
            self.in_place.extend(paid);
            for path in draft.changed() {
                match durability {
                    Full => _ = self.in_place.insert(path.clone()),
                    _ => _ = self.in_place.remove(&path),
                }
                self.written_in.insert(path.clone(), next.generation);
                self.changed_by.insert(path, owner);
            }
            let before = std::mem::replace(&mut self.committed, next);
            self.keep_modes(&before);
        }
        Ok(())
    }

    fn freeze(&mut self, path: &'static str, freeze: bool) {
        self.disk.freeze(path, freeze);
        match freeze {
            true => _ = self.frozen.insert(path),
            false => _ = self.frozen.remove(path),
        }
    }

    /// The permissions of what exists stay as they are. A new file gets its own, or the last known ones
    /// of a file that others have removed.
    fn keep_modes(&mut self, before: &State) {
        let (now, files) = (&self.committed, self.disk.files());
        self.modes.retain(|path, _| now.files.contains_key(path));
        for path in now.files.keys().filter(|path| !before.files.contains_key(*path)) {
            if files.contains_key(path) {
                self.modes.insert(path.clone(), self.disk.mode(path).unwrap());
            }
        }
    }

    fn abort(&mut self, index: usize) {
        let Begun { transaction, draft, .. } = self.transactions.remove(index);
        transaction.abort();
        self.doubtful.extend(draft.directories());
        self.lose_doubtful_directories();
    }

    fn drop_transactions(&mut self) {
        while !self.transactions.is_empty() {
            self.abort(0);
        }
    }

    fn open_writer(&mut self, which: usize, path: &'static str, content: &'static str) -> Result<(), String> {
        let Some(index) = choose(&self.transactions, which) else { return Ok(()) };
        if self.writers.len() == WRITERS_MAX || self.frozen.contains(path) {
            return Ok(());
        }
        let Begun { id, transaction, draft, .. } = &mut self.transactions[index];
        let written = transaction.writer(path).map_err(io::Error::from).and_then(|mut writer| {
            writer.write_all(content.as_bytes())?;
            Ok(writer)
        });
        if self.disk.has_crashed() {
            return Ok(());
        }
        let writer = written.map_err(|error| error.to_string())?;
        let number = draft.begin(path);
        self.writers.push(Writing { transaction: *id, number, content, writer });
        Ok(())
    }

    fn finish_writer(&mut self, which: usize) -> Result<(), String> {
        let Some(index) = choose(&self.writers, which) else { return Ok(()) };
        let Writing { transaction, number, content, writer } = self.writers.remove(index);
        let found = writer.finish().map_err(refusal);
        let begun = self.transactions.iter_mut().find(|begun| begun.id == transaction);
        let expected = match begun {
            Some(begun) => {
                begun.draft.finish(number, content);
                Ok(())
            }
            None => Err(Refusal::Unfinished),
        };
        self.agree(found, expected)
    }

    fn drop_writer(&mut self, which: usize) {
        let Some(index) = choose(&self.writers, which) else { return };
        let Writing { transaction, number, writer, .. } = self.writers.remove(index);
        drop(writer);
        if let Some(begun) = self.transactions.iter_mut().find(|begun| begun.id == transaction) {
            begun.draft.drop_writer(number);
        }
    }

    fn view(&mut self, which: usize) -> Result<(), String> {
        let may_wait = self.readers_may_wait()?;
        let Some(index) = choose(&self.stores, which) else { return Ok(()) };
        if self.views.len() == VIEWS_MAX {
            return Ok(());
        }
        match self.stores[index].store.view().map_err(refusal) {
            _ if self.disk.has_crashed() => {}
            Ok(view) => self.views.push((view, self.committed.clone())),
            Err(Refusal::Locked) if may_wait => {}
            Err(refusal) => return Err(format!("a view was refused: {refusal:?}")),
        }
        Ok(())
    }

    fn flush(&mut self, which: usize) -> Result<(), String> {
        let Some(index) = choose(&self.stores, which) else { return Ok(()) };
        let Opened { store, .. } = &self.stores[index];
        let may_wait = !self.views.is_empty();
        match store.flush().map_err(refusal) {
            _ if self.disk.has_crashed() => {}
            Ok(()) => self.settle(),
            Err(Refusal::Locked) if may_wait => {}
            Err(refusal) => return Err(format!("flushing failed: {refusal:?}")),
        }
        Ok(())
    }

    fn tidy(
        &mut self,
        which: usize,
        tidy: fn(&Store) -> cosave::Result<cosave::RecoveryReport>,
    ) -> Result<(), String> {
        let Some(index) = choose(&self.stores, which) else { return Ok(()) };
        let found = tidy(&self.stores[index].store).map_err(refusal).map(|report| report.differences);
        if self.disk.has_crashed() {
            return Ok(());
        }
        if let Ok(differences) = &found {
            self.touches_only_what_is_at_risk(&self.told(differences))?;
            self.settle();
        }
        let expected = if self.views.is_empty() { Ok(()) } else { Err(Refusal::Locked) };
        self.agree(found.map(drop), expected)
    }

    /// A crash: all processes die, and the disk becomes what the loss leaves.
    fn crash(&mut self, loss: Loss) -> Result<(), String> {
        if !self.recovered {
            self.past.interrupt();
        }
        let next =
            match loss {
                Power(which) => {
                    let disk = property::after(&self.disk, Some(which), OUTCOMES_MAX);
                    self.promised_without_recovery(&disk)?;
                    let in_flight = self.in_flight.as_ref();
                    self.past.cut_power(in_flight.map(|InFlight { state, durability, changed }| {
                        (state, *durability, changed.as_slice())
                    }));
                    self.is_littered |= self.stages_unrecorded;
                    disk
                }
                Kill => self.disk.kill(),
            };
        (self.disk, self.recovered, self.planned) = (next, false, None);
        // Otherwise recovery could not finish what was published. A frozen file whose move was undone
        // has its staged name again.
        let staged = self.disk.files().into_keys();
        for path in staged.chain(PATHS.map(str::to_owned)) {
            self.disk.freeze(&path, false);
        }
        self.frozen.clear();
        self.writers.clear();
        self.drop_transactions();
        self.views.clear();
        self.lease = None;
        self.stores.clear();
        Ok(())
    }

    /// Checks what programs that know nothing of cosave must find after a power loss.
    fn promised_without_recovery(&self, disk: &SimDisk) -> Result<(), String> {
        let files = found_on(disk);
        for path in &self.in_place {
            let found = files.get(path).map(|bytes| String::from_utf8_lossy(bytes));
            let is = |state: &State| state.content(path) == found.as_deref();
            let is_new = self.in_flight.as_ref().is_some_and(|in_flight| is(&in_flight.state));
            if !is(&self.committed) && !is_new {
                return Err(format!("after a power loss {path} is {found:?}, though it was in place"));
            }
        }
        Ok(())
    }

    /// Compares everything visible with the expected state.
    fn look(&self) -> Result<(), String> {
        let text = |error: Error| format!("looking: {error}");
        let observer = self.observer(&self.disk.copy())?;
        let view = observer.view().map_err(text)?;
        let is_shown = |state: &&State| view.generation() == state.generation;
        let in_flight = self.in_flight.as_ref().map(|in_flight| &in_flight.state);
        let before = self.past.states().filter(|_| self.past.is_lost());
        let state = [Some(&self.committed), in_flight].into_iter().flatten().chain(before).find(is_shown);
        let state = state.ok_or_else(|| format!("a view shows generation {}", view.generation()))?;
        let unknown = if self.recovered { &BTreeSet::new() } else { self.past.at_risk() };
        shows(&view, state, unknown)?;
        self.views.iter().try_for_each(|(view, state)| shows(view, state, &BTreeSet::new()))?;
        for opened in &self.stores {
            self.agree(opened.store.generation().map_err(text)?.get(), self.committed.generation)?;
        }
        if !self.recovered {
            return Ok(());
        }
        let mut extra = self.may_be_made();
        if self.is_littered {
            extra.extend(found_on(&self.disk).into_keys().filter(|path| path.contains(SET_ASIDE)));
        }
        lists(&view, state, &extra)?;
        let mut mismatches = observer.verify().map_err(text)?;
        mismatches.retain(|mismatch| !self.past.may_differ(&mismatch.path.to_string()));
        self.agree(mismatches, Vec::new())?;
        let is_kept = |path: &str| self.is_littered && path.contains(SET_ASIDE);
        let files = found_on(&self.disk).into_iter().filter(|(path, _)| !is_staged(path) && !is_kept(path));
        let files: BTreeMap<_, _> =
            files.map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned())).collect();
        let expected = state.files.iter().map(|(path, content)| (path.clone(), content.clone()));
        self.agree(files, expected.collect())?;
        for (path, mode) in &self.modes {
            self.agree((path, self.disk.mode(path)), (path, Some(*mode)))?;
        }
        let found: BTreeSet<_> = self.disk.directories().into_iter().collect();
        let made = extra.into_iter().filter(|directory| found.contains(directory));
        self.agree(found.clone(), state.directories.iter().cloned().chain(made).collect())
    }

    /// Directories that open transactions may have made already.
    fn may_be_made(&self) -> BTreeSet<String> {
        if self.transactions.is_empty() && self.writers.is_empty() {
            return BTreeSet::new();
        }
        PATHS.into_iter().flat_map(crate::reference::directories_of).collect()
    }
}

/// What the library answers to a change.
fn answer(tx: &mut Transaction, change: Change, newest: u64) -> Answer<Option<String>> {
    let truth = |found: bool| Some(found.to_string());
    let found = match change {
        Write(path, content) => tx.write(path, content).map(|()| None),
        WriteWith(path, content) => {
            let fill = |out: &mut FileWriter| out.write_all(content.as_bytes());
            tx.write_with(path, fill).map(|()| None).map_err(Error::from)
        }
        FailToWrite(path) => {
            let fill = |out: &mut FileWriter| {
                out.write_all(b"never")?;
                Err(io::ErrorKind::NotFound.into())
            };
            tx.write_with::<(), io::Error>(path, fill).map(|()| None).map_err(Error::from)
        }
        WriteIfChanged(path, content) => tx.write_if_changed(path, content).map(truth),
        CreateNew(path, content) => tx.create_new(path, content).map(|()| None),
        Remove(path) => tx.remove(path).map(|()| None),
        RemoveIfExists(path) => tx.remove_if_exists(path).map(truth),
        Exists(path) => tx.exists(path).map(truth),
        ExpectAbsent(path) => tx.expect(path, Expect::Absent).map(|()| None),
        ExpectPresent(path) => tx.expect(path, Expect::Present).map(|()| None),
        ExpectContent(path, content) => {
            tx.expect(path, Expect::Checksum(Checksum::of(content.as_bytes()))).map(|()| None)
        }
        ExpectUnchanged(path) => tx.expect(path, Expect::Unchanged).map(|()| None),
        ExpectGeneration(is_newest) => {
            let generation = if is_newest { newest } else { newest.saturating_sub(1) };
            tx.expect_generation(generation).map(|()| None)
        }
        Measure(path) => tx.metadata(path).map(|found| Some(found.length().to_string())),
        List => tx.list(LISTED).map(|found| Some(shown(found.iter().map(ToString::to_string).collect()))),
        Read(path) => tx.read(path).map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())),
        CopyTo(from, to) => tx.copy(from, to).map(|()| None),
        Rename(from, to) => tx.rename(from, to).map(|()| None),
        Symlink(to) => tx.symlink(LINK, to).map(|()| None),
    };
    found.map_err(refusal)
}

/// What the reference answers to it.
fn expect(
    draft: &mut Draft,
    now: &State,
    change: Change,
    written: impl Fn(&str) -> u64,
) -> Answer<Option<String>> {
    let truth = |found: bool| Ok(Some(found.to_string()));
    match change {
        Write(path, content) | WriteWith(path, content) => {
            draft.write(path, content);
            Ok(None)
        }
        FailToWrite(_) => Err(Refusal::NotFound),
        WriteIfChanged(path, content) => {
            draft.write_if_changed(now, path, content).map_or(Err(Refusal::Conflict), truth)
        }
        CreateNew(path, content) => {
            draft.create_new(path, content);
            Ok(None)
        }
        Remove(path) if draft.remove(now, path) => Ok(None),
        Remove(_) => Err(Refusal::NotFound),
        RemoveIfExists(path) => truth(draft.remove_if_exists(now, path)),
        Read(path) => read(draft.read(now, path)),
        ExpectAbsent(path) => met(draft.expect(now, path, Wanted::Nothing)),
        ExpectPresent(path) => met(draft.expect(now, path, Wanted::Something)),
        ExpectContent(path, content) => met(draft.expect(now, path, Wanted::Content(content.to_owned()))),
        ExpectUnchanged(path) => met(draft.expect_unchanged(now, path)),
        ExpectGeneration(is_newest) => {
            let generation = if is_newest { now.generation } else { now.generation.saturating_sub(1) };
            met(draft.expect_generation(now, generation))
        }
        Measure(path) => {
            let content = read(draft.measure(now, path, written(path)))?;
            Ok(content.map(|content| content.len().to_string()))
        }
        List => draft.list(now, LISTED).map_or(Err(Refusal::Conflict), |found| Ok(Some(shown(found)))),
        Exists(path) => match read(draft.exists(now, path)) {
            Err(Refusal::NotFound) => truth(false),
            found => found.and_then(|_| truth(true)),
        },
        CopyTo(from, to) => copied(draft.copy(now, from, to)),
        Rename(from, to) => copied(draft.rename(now, from, to)),
        Symlink(to) => {
            draft.write(LINK, &String::from_utf8_lossy(&link_bytes(to.as_ref())));
            Ok(None)
        }
    }
}

fn met(is_met: bool) -> Answer<Option<String>> {
    is_met.then_some(None).ok_or(Refusal::Conflict)
}

fn shown(paths: BTreeSet<String>) -> String {
    paths.into_iter().collect::<Vec<_>>().join(" ")
}

fn copied(reading: Reading) -> Answer<Option<String>> {
    match reading {
        Reading::Content(_) => Ok(None),
        Reading::NotFound => Err(Refusal::NotFound),
        Reading::Unfinished => Err(Refusal::Unfinished),
        Reading::Conflict => Err(Refusal::Conflict),
    }
}

fn read(reading: Reading) -> Answer<Option<String>> {
    match reading {
        Reading::Content(content) => Ok(Some(content)),
        Reading::NotFound => Err(Refusal::NotFound),
        Reading::Unfinished => Err(Refusal::Unfinished),
        Reading::Conflict => Err(Refusal::Conflict),
    }
}

/// Whether a view shows the files of a state, but for those that are unknown.
fn shows(view: &View, state: &State, unknown: &BTreeSet<String>) -> Result<(), String> {
    for path in all_paths().filter(|path| !unknown.contains(*path)) {
        let text = |error: Error| format!("a view of {path}: {error}");
        let content = seen_at(view, path).map_err(text)?;
        let content = content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // What a symlink leads to may be missing, or outside.
        let exists = if path == LINK { content.is_some() } else { view.exists(path).map_err(text)? };
        if content.as_deref() != state.content(path) || exists != content.is_some() {
            let generation = state.generation;
            return Err(format!("a view of generation {generation} shows {path} as {content:?}"));
        }
    }
    Ok(())
}

/// Whether a view lists the directories of a state.
fn lists(view: &View, state: &State, extra: &BTreeSet<String>) -> Result<(), String> {
    for directory in state.directories.iter().map(String::as_str).chain([""]) {
        let listed = view.list(directory).map_err(|error| format!("a list of {directory:?}: {error}"))?;
        let found: BTreeSet<_> = listed.iter().map(ToString::to_string).collect();
        let expected = state.list(directory);
        let is_odd = |path: &String| !expected.contains(path) && !extra.contains(path);
        let differs = found.iter().any(is_odd) || !expected.is_subset(&found);
        if differs || found.len() != listed.len() || !listed.is_sorted() {
            return Err(format!("a view of generation {} lists {listed:?}", state.generation));
        }
    }
    Ok(())
}

/// Takes all steps, and checks every promise.
fn check(machine: Machine, mutation: Option<Mutation>, steps: &[Step]) -> Result<(), String> {
    property::check::<World>(machine, mutation, steps)
}

fn told(machine: Machine, mutation: Option<Mutation>, steps: &[Step]) -> Result<(), String> {
    check(machine, mutation, steps)
        .map_err(|problem| format!("{problem}\nrepeat it: check({machine:?}, {mutation:?}, &{steps:?})"))
}

#[test]
fn any_sequence_of_operations_is_as_the_reference_says() {
    property::hold(CASES, &case(), |(machine, steps)| told(*machine, None, steps));
}

/// How many cases are tried to notice what was removed.
const MUTATIONS_CASES: u32 = 20_000;

/// What is removed from the protocol. Each must be noticed: in a commit's answer, in a view, or after a
/// crash. Rare moments, and what only concerns other programs, are left to `mutations` and `rules`.
const MUTATIONS: &[Mutation] = &[
    Mutation::Skip(Barrier::Create, Part::Everything),
    Mutation::Skip(Barrier::Session, Part::Everything),
    Mutation::Skip(Barrier::Staged, Part::Everything),
    Mutation::Skip(Barrier::Staged, Part::Directories),
    Mutation::Skip(Barrier::Published, Part::Everything),
    Mutation::Skip(Barrier::Applied, Part::Everything),
    Mutation::Skip(Barrier::Recovered, Part::Everything),
    Mutation::Skip(Barrier::Swept, Part::Everything),
    Mutation::Break(Rule::PublishByRename),
    Mutation::Break(Rule::ApplyAfterPublish),
    Mutation::Break(Rule::CheckPreconditions),
    Mutation::Break(Rule::CheckExpected),
    Mutation::Break(Rule::HonourLease),
    Mutation::Break(Rule::CheckPermissions),
    Mutation::Break(Rule::CheckFlags),
    Mutation::Break(Rule::SweepDeadOnly),
    Mutation::Break(Rule::AttachDeferred),
    Mutation::Break(Rule::PayWaived),
    Mutation::Break(Rule::KeepWaived),
    Mutation::Break(Rule::MarkWaived),
    Mutation::Skip(Barrier::Inherited, Part::Files),
];

#[test]
fn a_broken_protocol_is_told_from_the_reference() {
    let mut missed = Vec::new();
    for mutation in MUTATIONS {
        let property = |(machine, steps): &(Machine, Vec<Step>)| told(*machine, Some(*mutation), steps);
        let cases = match mutation {
            Mutation::Break(Rule::CheckExpected | Rule::HonourLease) => case().boxed(),
            _ => plain_case().boxed(),
        };
        match property::counterexample(MUTATIONS_CASES, 0, &cases, property) {
            Some((_, problem)) => println!("{}", problem.lines().next().unwrap_or_default()),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "these are not missed: {missed:?}");
}

#[test]
fn a_failing_sequence_is_made_small() {
    let mutation = Some(Mutation::Break(Rule::CheckPreconditions));
    let property = |(machine, steps): &(Machine, Vec<Step>)| told(*machine, mutation, steps);
    let (_, problem) = property::counterexample(MUTATIONS_CASES, 4000, &plain_case(), property).unwrap();
    // Open, change, change the same under it, commit.
    assert!(problem.starts_with("step ") && problem.contains("it should be Err(Conflict)"), "{problem}");
    let steps = problem[5..].split(',').next().unwrap().parse::<usize>().unwrap();
    assert!(steps < 6, "{problem}");
}

/// Sequences that were once found to fail.
#[test]
fn what_was_found_once_stays_mended() {
    // A later write had won and the transaction was committed while a writer was still open.
    let superseded = [
        Open(Full),
        Begin(0),
        OpenWriter(0, "new/f", "one"),
        Tell(0, Write("new/f", "two")),
        Commit(0),
        FinishWriter(0),
    ];
    // The second removal found nothing to remove, and dropped what the first one relies on.
    let twice = [
        Open(Full),
        Begin(0),
        Tell(0, Remove("a")),
        Tell(0, Remove("a")),
        Save(0, vec![Remove("a")]),
        Commit(0),
    ];
    // Another process had made a directory, and removed it when its commit failed. A later write to it
    // failed, since the transaction had seen the directory.
    let removed = [
        Open(Full),
        Open(Full),
        Begin(0),
        Begin(1),
        Tell(1, Write("new/f", "one")),
        OpenWriter(1, "a", "one"),
        Tell(0, FailToWrite("new/f")),
        Commit(1),
        Tell(0, Write("new/f", "two")),
        Commit(0),
    ];
    for steps in [superseded.as_slice(), twice.as_slice(), removed.as_slice()] {
        check((WeakPosix, Fine), None, steps).unwrap();
    }
}
