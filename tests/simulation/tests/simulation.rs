//! A fixed set of seeds, on every core: nothing is seen that must never be, and a seed plays the same every time.

use stepcast_simulation::{Check, Mutant, Options, play, run};

/// Seeds in every run of the tests. More: `cargo run -p stepcast-simulation -- --seeds N`.
const SEEDS: u64 = 2_000;

#[test]
fn nothing_is_seen_that_must_never_be() {
    let (counts, failed) = play(0, SEEDS, Options::new);
    if let Some(report) = failed {
        let words = report.violation.map(|found| found.to_string());
        panic!(
            "seed {} fails; play it again: cargo run -p stepcast-simulation -- --seed {} --trace\n{}",
            report.seed,
            report.seed,
            words.unwrap_or_default()
        );
    }
    // The world is lively enough for the checks to mean something.
    let least = [
        ("crashes", 5_000),
        ("crashes of workers", 2_000),
        ("partitions", 4_000),
        ("one-way partitions", 2_000),
        ("nodes let in", 1_200),
        ("nodes removed", 800),
        ("pauses of nodes", 1_500),
        ("connections broken", 400),
        ("pauses of workers", 1_500),
        ("snapshots taken", 3_000),
        ("submissions acknowledged", 30_000),
        ("trainers started", 15_000),
        ("parts of gangs started", 2_000),
        ("attempts asked to make room", 1_000),
        ("watches to the end", 10_000),
        ("reads", 200_000),
        ("terms led", 6_000),
    ];
    for (what, least) in least {
        let seen = counts.0.get(what).copied().unwrap_or_default();
        assert!(seen >= least, "only {seen} {what} in {SEEDS} seeds");
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    for seed in 0..8 {
        let once = run(Options::new(seed));
        let again = run(Options::new(seed));
        assert_eq!(once.trace_hash, again.trace_hash, "seed {seed}");
        assert_eq!(once.counts, again.counts, "seed {seed}");
    }
}

/// A deliberate bug is caught within this many seeds: most by one of the first ten, a lost vote by one of some hundred.
const MUTANT_SEEDS: u64 = 2_000;

#[test]
fn every_deliberate_bug_is_caught_by_the_check_it_is_for() {
    for mutant in Mutant::ALL {
        let (_, caught) = play(0, MUTANT_SEEDS, |seed| {
            let mut options = Options::new(seed);
            options.mutant = Some(*mutant);
            options
        });
        let Some(report) = caught else {
            panic!(
                "no seed of {MUTANT_SEEDS} catches `{mutant}`: {}",
                mutant.sentence()
            );
        };
        let found = report.violation.map(|violation| violation.check);
        assert!(
            found.is_some_and(|check| mutant.caught_by().contains(&check)),
            "seed {} catches `{mutant}` with {found:?}",
            report.seed
        );
    }
}

/// Seeds within which a check has to be the first that fails: it is in one of some ten.
const FIRST_SEEDS: u64 = 200;

/// Where a bug may be caught by several checks the first one hides the others, so these are waited for one by one.
#[test]
fn checks_fail_that_others_could_hide() {
    let pairs = [
        (Mutant::AckBeforeSync, Check::CommittedEntriesAgree),
        (Mutant::AppliedTwice, Check::StatesAgree),
        (Mutant::ReadWithoutQuorum, Check::ReadsAreLinearizable),
    ];
    for (mutant, check) in pairs {
        let fails = |seed| {
            let mut options = Options::new(seed);
            options.mutant = Some(mutant);
            let violation = run(options).violation;
            violation.is_some_and(|violation| violation.check == check)
        };
        assert!(
            (0..FIRST_SEEDS).any(fails),
            "{mutant} never shows {check:?}"
        );
    }
}
