//! The policy's aggregation and an exact lookup in SQL, here and by DuckDB on the same files, in turns.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stepcast_benches::keys;
use stepcast_estimator::Estimator;
use stepcast_records::TrainingKey;

use crate::{Options, cpu};

/// Each question is asked so often on each side, in turns.
const ROUNDS: usize = 5;
/// Lookups of a round: different keys all over the table.
const LOOKUPS: usize = 40;

/// By recipe, hardware, resolution and precision, as the policy says that records are aggregated.
const AGGREGATION: &str = "SELECT recipe, hardware, resolution_mp, precision, count(*) AS runs, \
     avg(avg_step_ms) AS ms FROM training_steps GROUP BY 1, 2, 3, 4 ORDER BY runs DESC, ms, 1, 2, 3 LIMIT 10";

/// What a question cost: processor time of each round, and the answer for comparison.
struct Cost {
    ours: Vec<Duration>,
    ours_wall: Vec<Duration>,
    duck: Vec<Duration>,
    duck_wall: Vec<Duration>,
}

/// Prints the ratios; returns what a lookup costs DuckDB as it is shipped.
pub(crate) async fn against(
    options: &Options,
    folder: &Path,
    estimator: &Estimator,
) -> Result<Option<Duration>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder.join("training_steps"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "parquet") {
            files.push(path.display().to_string());
        }
    }
    // What a compaction has moved still lies there for a week; only what the table names counts.
    let live = estimator.stats().training.objects;
    let listed = Command::new(&options.python)
        .args(["-c", "import duckdb; print(duckdb.__version__)"])
        .output();
    let version = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => {
            println!("no Python with DuckDB: nothing to compare with");
            return Ok(None);
        }
    };
    ensure!(
        files.len() == live,
        "{} files and {live} in the table: make it without a compaction",
        files.len()
    );
    let all = keys(options.rows / 50);
    let step = (all.len() / (LOOKUPS * (ROUNDS + 1))).max(1);
    let lookups: Vec<String> = all.iter().step_by(step).map(lookup).collect();

    let mut as_shipped = None;
    for (cache, said) in [
        (false, "as it is shipped"),
        (true, "with footers kept, as ours are"),
    ] {
        let mut duck = Duck::start(&options.python, &files, cache)?;
        println!("\nDUCKDB {version}, {said}");
        println!(
            "CPU MS, P50 OF {ROUNDS} ROUNDS        OURS       DUCKDB     RATIO    WALL OURS   WALL DUCKDB"
        );
        let aggregation = cost(estimator, &mut duck, |_| vec![AGGREGATION.to_owned()]).await?;
        show("aggregation by four columns", &aggregation, 1);
        let cost = cost(estimator, &mut duck, |round| {
            let of_round = lookups.iter().skip(round * LOOKUPS).take(LOOKUPS);
            of_round.cloned().collect()
        });
        let cost = cost.await?;
        show("exact lookup", &cost, LOOKUPS);
        as_shipped.get_or_insert(median(&cost.duck) / LOOKUPS as u32);
    }
    Ok(as_shipped)
}

fn lookup(key: &TrainingKey) -> String {
    format!(
        "SELECT count(*) AS runs, avg(avg_step_ms) AS ms, max(avg_step_ms) AS most, sum(steps_observed) AS steps \
         FROM training_steps WHERE recipe = '{}' AND hardware = '{}' AND resolution_mp = {:.1} AND batch_size = {} \
         AND gradient_accumulation_steps = {} AND precision = '{}' AND quantization = '{}'",
        key.recipe,
        hardware(key),
        key.resolution.megapixels(),
        key.batch_size,
        key.accumulation,
        key.precision,
        key.quantization,
    )
}

/// The hardware as its column has it.
fn hardware(key: &TrainingKey) -> String {
    let hardware = key.hardware;
    format!("{}x{}", hardware.gpu.slug(), hardware.count)
}

async fn cost(
    estimator: &Estimator,
    duck: &mut Duck,
    questions: impl Fn(usize) -> Vec<String>,
) -> Result<Cost> {
    let mut cost = Cost {
        ours: Vec::new(),
        ours_wall: Vec::new(),
        duck: Vec::new(),
        duck_wall: Vec::new(),
    };
    // The first round is for caches.
    for round in 0..=ROUNDS {
        let questions = questions(round);
        let (began, used) = (Instant::now(), cpu::used()?);
        let mut ours = Vec::new();
        for question in &questions {
            ours.push(estimator.sql(question).await?.cells());
        }
        let (wall, used) = (began.elapsed(), cpu::used()? - used);
        let theirs = duck.ask(&questions)?;
        for (ours, theirs) in ours.iter().zip(&theirs.answers) {
            ensure!(same(ours, theirs), "{ours:?} is not {theirs:?}");
            // A look for what is not there would cost next to nothing.
            let found = ours.first().and_then(|row| row.first()?.as_deref());
            ensure!(
                found.is_some_and(|first| first != "0"),
                "nothing was found: {ours:?}"
            );
        }
        if round > 0 {
            cost.ours.push(used);
            cost.ours_wall.push(wall);
            cost.duck.push(theirs.cpu);
            cost.duck_wall.push(theirs.wall);
        }
    }
    Ok(cost)
}

/// Numbers may be written differently; they are the same to nine digits.
fn same(ours: &[Vec<Option<String>>], theirs: &[Vec<String>]) -> bool {
    let cell = |(ours, theirs): (&Option<String>, &String)| {
        let ours = ours.as_deref().unwrap_or("None");
        match (ours.parse::<f64>(), theirs.parse::<f64>()) {
            (Ok(a), Ok(b)) => (a - b).abs() <= a.abs() * 1e-9,
            _ => ours == theirs,
        }
    };
    ours.len() == theirs.len()
        && ours
            .iter()
            .zip(theirs)
            .all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(cell))
}

fn show(what: &str, cost: &Cost, calls: usize) {
    let ms = |times: &[Duration]| median(times).as_secs_f64() * 1e3 / calls as f64;
    let (ours, duck) = (ms(&cost.ours), ms(&cost.duck));
    println!(
        "{what:<30} {ours:>8.2} {duck:>12.2} {:>9.2} {:>12.2} {:>13.2}",
        ours / duck,
        ms(&cost.ours_wall),
        ms(&cost.duck_wall),
    );
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

/// DuckDB in a process of its own that stays, with its caches warm.
struct Duck {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

struct Answers {
    answers: Vec<Vec<Vec<String>>>,
    cpu: Duration,
    wall: Duration,
}

impl Duck {
    fn start(python: &Path, files: &[String], cache: bool) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tables/duck.py");
        let mut process = Command::new(python)
            .arg(script)
            .arg(if cache { "cache" } else { "shipped" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = process.stdin.take().context("a pipe")?;
        let output = BufReader::new(process.stdout.take().context("a pipe")?);
        writeln!(input, "{}", json!({ "training_steps": files }))?;
        Ok(Self {
            process,
            input,
            output,
        })
    }

    fn ask(&mut self, questions: &[String]) -> Result<Answers> {
        writeln!(self.input, "{}", json!(questions))?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer: BTreeMap<String, Value> = serde_json::from_str(&line).context(line)?;
        let seconds = |name: &str| {
            let seconds = answer.get(name).and_then(Value::as_f64);
            seconds.map(Duration::from_secs_f64).context("a time")
        };
        Ok(Answers {
            cpu: seconds("cpu")?,
            wall: seconds("wall")?,
            answers: serde_json::from_value(answer.get("answers").cloned().unwrap_or_default())?,
        })
    }
}

impl Drop for Duck {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
