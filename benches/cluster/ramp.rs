//! How many jobs a second a cluster takes and places: more at each step, until p99 is beyond the bar.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::board::{Board, Tally};
use crate::callers::{Load, Pace, Troubles, WARM_UP, Write, connections};
use crate::nodes::Nodes;
use crate::processor::Meter;
use crate::row;
use crate::servers::Servers;
use crate::workers::Workers;

/// p99 of a good step stays within this many milliseconds, for the answer and for the worker alike.
const BAR_MS: f64 = 100.0;

/// So many jobs a second are wanted.
const BAR_PER_SECOND: f64 = 5_000.0;

/// A good step keeps to its pace by this much: jobs that were placed, in the time until the last one was.
const KEPT: f64 = 0.95;

/// What is placed last may take this long.
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// Steps up until p99 is beyond the bar.
#[derive(Debug, Args)]
pub(crate) struct Ramp {
    /// Nodes to start
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Servers that run already, instead
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    servers: Vec<String>,
    /// Callers
    #[arg(long, default_value_t = 1_000)]
    callers: usize,
    /// Pretend workers of eight GPUs
    #[arg(long, default_value_t = 100)]
    workers: usize,
    /// Jobs a second at the first step
    #[arg(long, default_value_t = 1_000.0)]
    from: f64,
    /// How many more at each step
    #[arg(long, default_value_t = 500.0)]
    step: f64,
    /// Jobs a second at the last step
    #[arg(long, default_value_t = 12_000.0)]
    to: f64,
    /// Seconds of each step
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Closed loops with so many callers afterwards, for comparison
    #[arg(long, value_delimiter = ',', default_value = "1,64,1000")]
    closed: Vec<usize>,
}

impl Ramp {
    pub(crate) async fn run(&self, program: &Path, data: &Path) -> anyhow::Result<()> {
        let nodes = match self.servers.is_empty() {
            true => Some(Nodes::start(program, &data.join("ramp"), self.nodes).await?),
            false => None,
        };
        let addresses = nodes
            .as_ref()
            .map_or(&self.servers, |nodes| &nodes.addresses)
            .clone();
        let board = Arc::new(Board::default());
        let workers = Workers::start(&addresses, self.workers, &board).await?;
        let load = jobs(&addresses, self.callers, &board)?;
        println!(
            "{} servers, {} callers, {} workers of 8 GPUs, {} bytes a job",
            addresses.len(),
            self.callers,
            self.workers,
            crate::job::Template::new().bytes()
        );
        heading();
        let servers = nodes.as_ref().map(Nodes::pids).unwrap_or_default();
        self.open(&load, &servers, addresses.len()).await?;
        for callers in &self.closed {
            let load = jobs(&addresses, *callers, &board)?;
            let (tally, troubles, left) =
                self.step(&load, &servers, *callers, Pace::Closed).await?;
            line(&format!("closed {callers}"), &tally, &troubles, left);
        }
        workers.stop().await;
        match nodes {
            Some(nodes) => nodes.stop().await,
            None => Ok(()),
        }
    }

    /// One measurement, with how many jobs had not come to a worker.
    async fn step(
        &self,
        load: &Arc<Load>,
        servers: &[u32],
        callers: usize,
        pace: Pace,
    ) -> anyhow::Result<(Tally, Troubles, usize)> {
        let meter = Meter::begin(servers, load.writes())?;
        let time = Duration::from_secs(self.seconds);
        let troubles = load.go(callers, pace, WARM_UP, time).await?;
        let left = load.board.settled(SETTLES_WITHIN).await;
        let spent = meter.end(load.leader(), load.writes())?;
        let tally = Tally {
            spent,
            ..load.board.take()
        };
        Ok((tally, troubles, left))
    }

    async fn open(&self, load: &Arc<Load>, servers: &[u32], nodes: usize) -> anyhow::Result<()> {
        let (mut rate, mut good, mut again) = (self.from, None, false);
        while rate <= self.to {
            let pace = Pace::Open(rate);
            let (tally, troubles, left) = self.step(load, servers, self.callers, pace).await?;
            line(&format!("open {rate:.0}/s"), &tally, &troubles, left);
            if is_good(&tally, &troubles, left, rate) {
                good = Some(tally);
                (rate, again) = (rate + self.step, false);
            } else if again {
                break;
            } else {
                // One bad moment of a shared machine is no answer; two in a row are.
                again = true;
            }
        }
        let figure = good.as_ref().map_or_else(
            || "not one step was good".to_owned(),
            |tally| {
                format!(
                    "{:.0}/s; answer p50 {:.1} ms, p99 {:.1} ms; at its worker p50 {:.1} ms, p99 {:.1} ms; a job takes {}",
                    tally.placed_per_second(),
                    tally.acked.ms(0.5),
                    tally.acked.ms(0.99),
                    tally.placed.ms(0.5),
                    tally.placed.ms(0.99),
                    tally.spent.words()
                )
            },
        );
        let met = good.is_some_and(|tally| tally.placed_per_second() >= BAR_PER_SECOND * KEPT);
        let question = format!("jobs submitted, committed and placed by {nodes} nodes over gRPC");
        row(
            &question,
            &figure,
            Some(("5,000/s at p99 below 100 ms", met)),
        );
        Ok(())
    }
}

/// Callers of these servers.
pub(crate) fn jobs(
    addresses: &[String],
    callers: usize,
    board: &Arc<Board>,
) -> anyhow::Result<Arc<Load>> {
    let servers = Servers::new(addresses, connections(callers))?;
    Ok(Load::new(servers, Write::jobs()?, board))
}

fn is_good(tally: &Tally, troubles: &Troubles, left: usize, rate: f64) -> bool {
    let quiet = troubles.failed == 0 && troubles.held_back == 0 && !troubles.late && left == 0;
    quiet
        && tally.acked.ms(0.99) <= BAR_MS
        && tally.placed.ms(0.99) <= BAR_MS
        && tally.placed_per_second() >= rate * KEPT
}

fn heading() {
    println!(
        "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  processor time a job",
        "pace", "acked/s", "p50 ms", "p99 ms", "placed/s", "p50 ms", "p99 ms", "max ms"
    );
}

fn line(pace: &str, tally: &Tally, troubles: &Troubles, left: usize) {
    let mut words = String::new();
    if troubles.late {
        words.push_str("  pace not kept");
    }
    if troubles.held_back > 0 {
        words.push_str(&format!("  {} held back", troubles.held_back));
    }
    if troubles.failed > 0 {
        words.push_str(&format!("  {} failed", troubles.failed));
    }
    if let Some(word) = &troubles.word {
        words.push_str(&format!(" ({word})"));
    }
    if left > 0 {
        words.push_str(&format!("  {left} not placed"));
    }
    println!(
        "{pace:<14} {:>9.0} {:>9.1} {:>9.1} {:>9.0} {:>9.1} {:>9.1} {:>9.1}  {}{words}",
        tally.acked_per_second(),
        tally.acked.ms(0.5),
        tally.acked.ms(0.99),
        tally.placed_per_second(),
        tally.placed.ms(0.5),
        tally.placed.ms(0.99),
        tally.placed.ms(1.0),
        tally.spent.words(),
    );
}
