//! Plays seeds: `stepcast-sim --seeds 10000`, and one of them again with its trace: `stepcast-sim --seed 17 --trace`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use stepcast_simulation::{Mutant, Options, play};

/// Plays whole clusters from seeds and checks that nothing is seen that must never be.
#[derive(Parser)]
#[command(name = "stepcast-sim")]
struct Arguments {
    /// How many seeds to play, from the first one on.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Play only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Put this deliberate bug in.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Print everything that happened.
    #[arg(long)]
    trace: bool,
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let (from, many) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    let options = |seed| {
        let mut options = Options::new(seed);
        options.mutant = arguments.mutant;
        options.traced = arguments.trace;
        options
    };
    let (counts, failed) = play(from, many, options);
    if let Some(report) = failed.as_ref().filter(|r| r.violation.is_some()) {
        let mutant = arguments
            .mutant
            .map(|mutant| format!(" --mutant {mutant}"))
            .unwrap_or_default();
        println!(
            "seed {} fails; play it again: stepcast-sim --seed {}{mutant} --trace",
            report.seed, report.seed
        );
    }
    for line in failed.iter().flat_map(|report| &report.trace) {
        println!("{line}");
    }
    if let Some(violation) = failed.as_ref().and_then(|report| report.violation.as_ref()) {
        println!("{violation}");
    }
    for (what, many) in &counts.0 {
        println!("{many:>12} {what}");
    }
    println!("{:.1} s", begun.elapsed().as_secs_f64());
    match failed {
        Some(report) if report.violation.is_some() => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
