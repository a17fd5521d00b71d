//! Whole clusters in one thread from one seed: real consensus, state, planner, leases, sessions and agents in a pretend
//! world that loses messages, writes and power, with checks of everything that must never be seen.
//!
//! [`run`] plays one seed. What is real and what is pretended is in CONTRIBUTING.md under "Simulation".

mod calls;
mod checks;
mod clock;
mod dice;
mod faults;
mod follow;
mod kernel;
mod members;
mod mutant;
mod network;
mod node;
mod options;
mod outside;
mod people;
mod raft_wire;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::checks::{Check, Counts, Violation};
pub use self::mutant::Mutant;
pub use self::options::Options;
use self::world::World;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The first check that failed.
    pub violation: Option<Violation>,
    /// What happened.
    pub counts: Counts,
    /// Equal for equal runs.
    pub trace_hash: u64,
    /// The trace, if it was asked for.
    pub trace: Vec<String>,
}

/// Plays one seed to its end or to the first check that fails.
#[must_use]
pub fn run(options: Options) -> Report {
    let seed = options.seed;
    let mut world = World::new(options);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = outcome {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        world.checks.fail(Check::NoPanic, words);
    }
    world.summarize();
    let (violation, counts, trace_hash, trace) = world.checks.take();
    Report {
        seed,
        violation,
        counts,
        trace_hash,
        trace,
    }
}

/// Plays seeds on every core until one fails; of several that fail the smallest is told. A single seed is always told.
#[must_use]
pub fn play(
    from: u64,
    many: u64,
    options: impl Fn(u64) -> Options + Sync,
) -> (Counts, Option<Report>) {
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let all = Mutex::new((Counts::default(), None::<Report>));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + many {
                        return;
                    }
                    let report = run(options(seed));
                    let mut all = all.lock();
                    for (what, count) in &report.counts.0 {
                        *all.0.0.entry(what).or_default() += count;
                    }
                    if report.violation.is_some() || many == 1 {
                        stop.store(true, Ordering::Relaxed);
                        if all.1.as_ref().is_none_or(|known| report.seed < known.seed) {
                            all.1 = Some(report);
                        }
                    }
                }
            });
        }
    });
    all.into_inner()
}
