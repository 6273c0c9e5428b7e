//! How many cases a property is tried with, and with which seed. And the property that several have in common:
//! that every step of a sequence is as a plain model says.
//!
//! Runs repeat: the seed is fixed unless `PROPTEST_RNG_SEED` sets another, and
//! `PROPTEST_CASES` asks for more cases. A failure prints its smallest case in
//! full, so no files are needed to repeat it. Knows nothing of the models.

use std::fmt::Debug;

use cosave::fs::sim::{Mutation, Rule, SimDisk, without};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

/// Tries at most to make a failing case smaller.
const SHRINKS_MAX: u32 = 4000;

/// The smallest case found for which `property` does not hold, and why.
pub fn counterexample<S: Strategy>(
    cases: u32,
    shrinks_max: u32,
    strategy: &S,
    property: impl Fn(&S::Value) -> Result<(), String>,
) -> Option<(S::Value, String)>
where
    S::Value: Debug,
{
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config.max_shrink_iters = shrinks_max;
    let mut runner = TestRunner::new(config);
    match runner.run(strategy, |case| property(&case).map_err(TestCaseError::fail)) {
        Ok(()) => None,
        Err(TestError::Fail(reason, case)) => Some((case, reason.to_string())),
        Err(TestError::Abort(reason)) => panic!("no case can be made: {reason}"),
    }
}

/// Panics with the smallest case for which `property` does not hold.
pub fn hold<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(&S::Value) -> Result<(), String>)
where
    S::Value: Debug,
{
    if let Some((case, reason)) = counterexample(cases, SHRINKS_MAX, strategy, property) {
        panic!("{reason}\nthe smallest case found: {case:?}");
    }
}

/// A disk, what uses it, and what must be true of both.
pub trait World {
    type Machine: Copy + Debug;
    type Step: Debug;

    fn new(machine: Self::Machine, mutation: Option<Mutation>) -> Self;

    /// Takes a step, and says what is wrong after it.
    fn take(&mut self, step: &Self::Step) -> Result<(), String>;

    /// Says what is wrong after the last step.
    fn end(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Takes all steps, with a part of the protocol removed or with all of it. Says at which step something is wrong.
pub fn check<W: World>(
    machine: W::Machine,
    mutation: Option<Mutation>,
    steps: &[W::Step],
) -> Result<(), String> {
    without(mutation.and_then(Mutation::rule), || {
        let mut world = W::new(machine, mutation);
        for (index, step) in steps.iter().enumerate() {
            world.take(step).map_err(|problem| format!("step {index}, {step:?}: {problem}"))?;
        }
        world.end().map_err(|problem| format!("at the end: {problem}"))
    })
}

/// Panics unless some case shows that each of these is removed.
pub fn miss<W: World>(
    cases: u32,
    strategy: &impl Strategy<Value = (W::Machine, Vec<W::Step>)>,
    mutations: &[Mutation],
) {
    for mutation in mutations {
        let property =
            |(machine, steps): &(W::Machine, Vec<W::Step>)| check::<W>(*machine, Some(*mutation), steps);
        let found = counterexample(cases, 0, strategy, property);
        assert!(found.is_some(), "{mutation:?} is not missed");
    }
}

/// The disk after a crash: a kill, or a power loss with one of its outcomes.
pub fn after(disk: &SimDisk, loss: Option<usize>, outcomes_max: usize) -> SimDisk {
    let Some(which) = loss else { return disk.kill() };
    let outcomes = disk.power_losses(outcomes_max, 1);
    outcomes[which % outcomes.len()].copy()
}

/// Asserts that something holds, and that it does not where a rule of the protocol is broken.
#[track_caller]
pub fn holds_by(rule: Rule, property: impl Fn() -> Result<(), String>) {
    assert_eq!(property(), Ok(()));
    assert!(without(Some(rule), property).is_err(), "nobody noticed that {rule:?} is broken");
}
