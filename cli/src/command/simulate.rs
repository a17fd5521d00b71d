//! `stepcast simulate`: a trace of jobs through the real engine under a virtual clock, without any server.

mod gantt;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use stepcast_records::{GpuModel, UsdMicros};
use stepcast_scheduler::policy::{Aim, Policy, Preemption};
use stepcast_scheduler::simulate::{
    BadRow, Group, Kept, Noise, Options, Outcome, Promises, Scene, Speeds, Trace, play,
};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::progress::{Live, bar, percent};
use crate::output::table::{Side, Table};

/// Plays a trace of jobs through the real scheduler under a virtual clock; needs no server.
///
/// Example: stepcast simulate --trace T.csv --throughput S.csv --cluster v100=12,p100=12,k80=12 --policy default
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// Jobs, as job_id,model,batch,total_steps,arrival_s,scale_factor and any other columns; a weight is 1
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Speeds, as gpu,model,batch,scale_factor,steps_per_s and any other columns
    #[arg(long, value_name = "FILE")]
    throughput: PathBuf,
    /// GPUs of each model; each model is hosts of up to 16
    #[arg(
        long,
        value_name = "GPU=COUNT,...",
        value_delimiter = ',',
        required = true
    )]
    cluster: Vec<Count>,
    /// default, fifo, priority, max-min-blind, max-min, makespan, shortest-remaining or cost
    #[arg(long, value_name = "NAME", default_value = "default")]
    policy: Aim,
    /// When running jobs yield: never, for-priority or priced
    #[arg(long, value_name = "WHEN", default_value = "priced")]
    preemption: Preemption,
    /// How wrong estimates are: the standard deviation of the logarithm of their error
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    estimate_error: f64,
    /// What the errors follow from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Seconds between two looks at the queue although nothing happens; 0 for none. Fair shares take turns by it
    #[arg(long, value_name = "SECONDS")]
    round: Option<u64>,
    /// Seconds that every start but a job's first takes before its first step
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    restart_cost: u64,
    /// Seconds that a job is left in peace before it may be asked to yield
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    min_run: u64,
    /// How often a job may be asked to yield
    #[arg(long, value_name = "TIMES", default_value_t = Policy::PREEMPTIONS_MAX, value_parser = clap::value_parser!(u8).range(0..=24))]
    preemptions_max: u8,
    /// Dollars an hour for one GPU of a model. Known without: v100=2.48, p100=1.46, k80=0.45
    #[arg(long, value_name = "GPU=DOLLARS,...", value_delimiter = ',')]
    price: Vec<Price>,
    /// Have the jobs of at most so many moments ask when they come when they start and are done, and tell how much came true
    #[arg(long, value_name = "MOMENTS", default_value_t = 0)]
    outlooks: usize,
    /// Draw who held which GPU when, as an SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// `v100=12`.
#[derive(Debug, Clone, Copy)]
struct Count(GpuModel, u32);

/// `v100=2.48`.
#[derive(Debug, Clone, Copy)]
struct Price(GpuModel, UsdMicros);

/// What Google Cloud asked for one GPU an hour on demand in 2020, for the models that public traces are about.
const PRICES: [(&str, u64); 3] = [("v100", 2_480_000), ("p100", 1_460_000), ("k80", 450_000)];

/// GPUs of one model at most: as many hosts of 16 as a cluster may have workers.
const GPUS_MAX: u32 = 16 * 20_000;

/// The largest error of estimates: one in twenty is then wrong by more than a factor of fifty.
const ERROR_MAX: f64 = 2.0;

/// Fair shares take turns this often unless it is said otherwise, in seconds: as Gavel does.
const FAIR_ROUND_S: u64 = 360;

/// The largest round, in seconds: a day.
const SECONDS_MAX: u64 = 86_400;

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (gpu, count) = named(text)?;
        let count: u32 = count
            .parse()
            .map_err(|_| format!("{count} is no number of GPUs"))?;
        if (1..=GPUS_MAX).contains(&count) {
            Ok(Self(gpu, count))
        } else {
            Err(format!("a model has 1 to {GPUS_MAX} GPUs"))
        }
    }
}

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (gpu, dollars) = named(text)?;
        let dollars: f64 = dollars
            .parse()
            .map_err(|_| format!("{dollars} is no price"))?;
        if (0.0..=1_000.0).contains(&dollars) {
            Ok(Self(gpu, UsdMicros((dollars * 1e6).round() as u64)))
        } else {
            Err("a price is from 0 to 1000 dollars an hour".to_owned())
        }
    }
}

fn named(text: &str) -> Result<(GpuModel, &str), String> {
    let (gpu, value) = text
        .split_once('=')
        .ok_or_else(|| "write a GPU model, = and a number, such as v100=12".to_owned())?;
    let gpu = gpu
        .parse()
        .map_err(|_| format!("there is no GPU called {gpu}"))?;
    Ok((gpu, value))
}

/// Refuses an option that names a model twice: nobody could say which of the two is meant.
fn each_once(option: &str, models: impl Iterator<Item = GpuModel>) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    for gpu in models {
        if !known.insert(gpu) {
            return Err(
                Failure::usage(format!("{option} names {} twice", gpu.slug()))
                    .hint("give each model once, with one number"),
            );
        }
    }
    Ok(())
}

impl Simulate {
    /// Plays it and tells what came of it.
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let scene = self.scene()?;
        let options = self.options()?;
        let output = &context.output;
        let mut plans: Vec<Duration> = Vec::new();
        let mut live = Live::new(output.live, output.columns);
        let jobs = scene.jobs().len() as u64;
        let mut promises = self.promises(&scene);
        let played = play(&scene, options, |forward| {
            if let Some(promises) = &mut promises {
                promises.ask(forward, &scene);
            }
            let begun = Instant::now();
            let looked = forward.look(usize::MAX);
            plans.push(begun.elapsed());
            let counts = forward.state().job_counts();
            let done = (counts.succeeded + counts.failed) as u64;
            live.draw(&format!(
                "{} {}% of {jobs} jobs are done",
                bar(done, jobs),
                percent(done, jobs)
            ));
            Some(looked)
        });
        let outcome = played
            .map_err(|stopped| Failure::refused(format!("the simulation stopped: {stopped}")))?
            .ok_or_else(|| Failure::refused("the simulation was given up"))?;
        live.finish(&format!("{} all {jobs} jobs are done", bar(jobs, jobs)));
        if let Some(path) = &self.plot {
            let drawn = gantt::draw(&outcome, scene.cluster());
            std::fs::write(path, drawn).map_err(|error| {
                Failure::refused(format!("{} cannot be written: {error}", path.display()))
            })?;
        }
        let kept = promises.map(|promises| promises.kept(&scene, &outcome));
        let figures = Figures::of(&outcome, &mut plans, kept);
        if output.json {
            output.json(&figures.json(&outcome, self.policy))
        } else {
            output.table(&figures.table(&outcome))
        }
    }

    fn scene(&self) -> Result<Scene, Failure> {
        if !(0.0..=ERROR_MAX).contains(&self.estimate_error) {
            return Err(Failure::usage(format!(
                "--estimate-error is from 0 to {ERROR_MAX}"
            )));
        }
        each_once("--cluster", self.cluster.iter().map(|Count(gpu, _)| *gpu))?;
        each_once("--price", self.price.iter().map(|Price(gpu, _)| *gpu))?;
        let trace = read(&self.trace, Trace::read)?;
        let speeds = read(&self.throughput, Speeds::read)?;
        let known = |gpu: GpuModel| {
            let given = self.price.iter().find(|Price(model, _)| *model == gpu);
            given.map(|Price(_, price)| *price).or_else(|| {
                let known = PRICES.iter().find(|(name, _)| name.parse() == Ok(gpu));
                known.map(|(_, micros)| UsdMicros(*micros))
            })
        };
        let groups = self.cluster.iter().map(|Count(gpu, count)| Group {
            gpu: *gpu,
            count: *count,
            price_per_hour: known(*gpu),
        });
        let noise = Noise {
            deviation: self.estimate_error,
            seed: self.seed,
        };
        let scene = Scene::new(
            groups.collect(),
            trace,
            &speeds,
            noise,
            self.restart_cost * 1_000,
        );
        scene.map_err(|error| {
            Failure::refused(format!("{}: {error}", self.trace.display()))
                .hint("every job needs a speed on a model of --cluster that has enough GPUs")
        })
    }

    /// Who asks on the way, if anybody is to.
    fn promises(&self, scene: &Scene) -> Option<Promises> {
        let arrivals = scene.jobs().iter().map(|job| job.arrival_ms());
        let moments = arrivals.collect::<BTreeSet<_>>().len();
        let every = moments.div_ceil(self.outlooks.max(1));
        (self.outlooks > 0).then(|| Promises::new(every))
    }

    fn options(&self) -> Result<Options, Failure> {
        let is_fair = matches!(self.policy, Aim::Fair | Aim::FairBlind);
        let round_s = self.round.unwrap_or(if is_fair { FAIR_ROUND_S } else { 0 });
        if [round_s, self.restart_cost, self.min_run]
            .iter()
            .any(|s| *s > SECONDS_MAX)
        {
            return Err(Failure::usage(format!(
                "no more than {SECONDS_MAX} seconds, a day"
            )));
        }
        let is_plain = matches!(self.policy, Aim::Fifo | Aim::Priority);
        Ok(Options {
            policy: Policy {
                aim: self.policy,
                preemption: if is_plain {
                    Preemption::Never
                } else {
                    self.preemption
                },
                min_run_ms: self.min_run * 1_000,
                preemptions_max: self.preemptions_max,
                restart_ms: self.restart_cost * 1_000,
            },
            look_every_ms: round_s * 1_000,
        })
    }
}

fn read<T>(path: &PathBuf, parse: fn(&str) -> Result<T, BadRow>) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::refused(format!("{} cannot be read: {error}", path.display())))?;
    parse(&text).map_err(|bad| Failure::refused(format!("{}, {bad}", path.display())))
}

/// The figures that are told.
struct Figures {
    completion: Spread,
    wait: Spread,
    plan_ms: Spread,
    /// How much came true of what jobs were told, if they asked.
    kept: Option<Kept>,
}

/// A few figures of many.
struct Spread {
    average: f64,
    p50: f64,
    p99: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let index = (part * values.len() as f64).ceil() as usize;
            values.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self {
            average: values.iter().sum::<f64>() / values.len().max(1) as f64,
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}

impl Figures {
    fn of(outcome: &Outcome, plans: &mut Vec<Duration>, kept: Option<Kept>) -> Self {
        let ms = std::mem::take(plans);
        Self {
            completion: Spread::of(outcome.completion_s.clone()),
            wait: Spread::of(outcome.wait_s.clone()),
            plan_ms: Spread::of(ms.iter().map(|took| took.as_secs_f64() * 1e3).collect()),
            kept,
        }
    }

    fn json(&self, outcome: &Outcome, aim: Aim) -> Value {
        let mut figures = json!({
            "policy": aim.name(),
            "jobs": outcome.completion_s.len(),
            "avg_jct_s": self.completion.average,
            "p50_jct_s": self.completion.p50,
            "p99_jct_s": self.completion.p99,
            "makespan_s": outcome.makespan_s,
            "makespan_bound_s": outcome.makespan_bound_s,
            "worst_ftf": outcome.fairness.worst,
            "share_ftf_over_1_05": outcome.fairness.share_over_1_05,
            "gpu_hours": outcome.gpu_hours,
            "usd": outcome.cost.0 as f64 / 1e6,
            "utilisation": outcome.utilisation,
            "restarts_per_job": outcome.restarts_per_job,
            "wait_p50_s": self.wait.p50,
            "wait_p99_s": self.wait.p99,
            "plan_ms_p50": self.plan_ms.p50,
            "plan_ms_p99": self.plan_ms.p99,
        });
        if let (Some(kept), Some(figures)) = (self.kept, figures.as_object_mut()) {
            for (name, value) in [
                ("outlooks", json!(kept.jobs)),
                ("start_p50_coverage", json!(kept.start_p50)),
                ("start_p90_coverage", json!(kept.start_p90)),
                ("finish_p50_coverage", json!(kept.finish_p50)),
                ("finish_p90_coverage", json!(kept.finish_p90)),
            ] {
                figures.insert(name.to_owned(), value);
            }
        }
        figures
    }

    fn table(&self, outcome: &Outcome) -> Table {
        let hours = |s: f64| format!("{:.2} h", s / 3_600.0);
        let mut table = Table::new(&[("FIGURE", Side::Left), ("VALUE", Side::Right)]);
        for (name, value) in [
            ("completion, average", hours(self.completion.average)),
            ("completion, half of the jobs", hours(self.completion.p50)),
            ("completion, 99 in 100", hours(self.completion.p99)),
            ("makespan", hours(outcome.makespan_s)),
            (
                "makespan, no less is possible",
                hours(outcome.makespan_bound_s),
            ),
            (
                "finish-time fairness, worst",
                format!("{:.2}", outcome.fairness.worst),
            ),
            (
                "finish-time fairness over 1.05",
                format!("{:.1} %", outcome.fairness.share_over_1_05 * 100.0),
            ),
            ("GPU hours", format!("{:.0}", outcome.gpu_hours)),
            ("cost", format!("${:.2}", outcome.cost.0 as f64 / 1e6)),
            (
                "utilisation",
                format!("{:.1} %", outcome.utilisation * 100.0),
            ),
            ("restarts a job", format!("{:.2}", outcome.restarts_per_job)),
            ("wait, half of the jobs", hours(self.wait.p50)),
            ("wait, 99 in 100", hours(self.wait.p99)),
            (
                "a plan, half of them",
                format!("{:.2} ms", self.plan_ms.p50),
            ),
            ("a plan, 99 in 100", format!("{:.2} ms", self.plan_ms.p99)),
        ] {
            table.row(vec![name.into(), value.into()]);
        }
        if let Some(kept) = self.kept {
            let percent = |part: f64| format!("{:.1} %", part * 100.0);
            for (name, part) in [
                ("started by the p50 they were told", kept.start_p50),
                ("started by the p90 they were told", kept.start_p90),
                ("done by the p50 they were told", kept.finish_p50),
                ("done by the p90 they were told", kept.finish_p90),
            ] {
                table.row(vec![name.into(), percent(part).into()]);
            }
        }
        table
    }
}
