//! A cluster of real servers under load: how many jobs a second, and how that compares with what people know.
//!
//! `cargo bench --workspace --bench cluster -- ramp|etcd|slurm`, after `cargo build --release`. `--help` says more.
#![expect(clippy::print_stdout, reason = "it is what a person runs it for")]

mod board;
mod callers;
mod etcd;
mod job;
mod nodes;
mod processor;
mod ramp;
mod servers;
mod slurm;
mod wire;
mod workers;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// A cluster of real servers under load.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
    /// The program to measure; the one that was built beside this one unless given
    #[arg(long, value_name = "FILE", global = true)]
    stepcast: Option<PathBuf>,
    /// Folder for everything, on the disk that is measured; removed at the end
    #[arg(long, value_name = "FOLDER", global = true)]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How many jobs a second are submitted, committed and placed, until p99 is beyond 100 ms
    Ramp(ramp::Ramp),
    /// How many submissions and how many puts into etcd a second, side by side
    Etcd(etcd::Etcd),
    /// How long it takes until a number of jobs have started, here and with Slurm
    Slurm(slurm::Slurm),
}

/// The servers' own, so that callers take as little from them as they can.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse_from(std::env::args().filter(|word| word != "--bench"));
    let program = match options.stepcast {
        Some(program) => program,
        None => beside()?,
    };
    let data = options.data.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("stepcast-cluster-{}", std::process::id()))
    });
    std::fs::create_dir_all(&data)?;
    let done = match &options.what {
        What::Ramp(ramp) => ramp.run(&program, &data).await,
        What::Etcd(etcd) => etcd.run(&program, &data).await,
        What::Slurm(slurm) => slurm.run(&program, &data).await,
    };
    // What failed leaves its logs.
    if done.is_ok() {
        std::fs::remove_dir_all(&data)?;
    }
    done
}

/// One row of the table that `benches/cluster/run` puts together.
fn row(question: &str, figure: &str, bar: Option<(&str, bool)>) {
    let bar = match bar {
        Some((bar, true)) => format!("{bar}: met"),
        Some((bar, false)) => format!("{bar}: not met"),
        None => String::new(),
    };
    println!("| {question} | {figure} | {bar} |");
}

/// `target/release/stepcast`, seen from `target/release/deps/cluster-...`.
fn beside() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here
        .parent()
        .and_then(std::path::Path::parent)
        .context("a program lies in a folder")?
        .join("stepcast");
    anyhow::ensure!(
        program.is_file(),
        "{} is not there: build it first (cargo build --release --workspace), or name it with --stepcast",
        program.display()
    );
    Ok(program)
}
