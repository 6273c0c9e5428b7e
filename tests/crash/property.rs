//! How many cases a property is tried with, and with which seed.
//!
//! Runs repeat: the seed is fixed unless `PROPTEST_RNG_SEED` sets another, and
//! `PROPTEST_CASES` asks for more cases. A failure prints its smallest case in
//! full, so no files are needed to repeat it. Knows nothing of the properties.

use std::fmt::Debug;

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
