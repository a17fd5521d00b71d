//! Traces and speeds as comma-separated text: read whole or refused whole, with the line and what is wrong with it.

use std::collections::BTreeMap;

use stepcast_records::GpuModel;

/// Jobs at most in one trace.
pub const JOBS_MAX: usize = 1_000_000;

/// The latest that a job comes, in seconds after the beginning: a hundred years, so that times since another century's
/// beginning are taken as well, and no sum of times is too large to be counted in milliseconds.
pub(super) const ARRIVAL_MAX_S: f64 = 100.0 * 365.0 * 86_400.0;

/// Something in a file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadRow {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what to do about it.
    pub what: String,
}

/// Jobs to come, in the order of their file.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace(pub Vec<TraceJob>);

/// One job of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceJob {
    /// Its id in the file.
    pub id: u64,
    /// What is trained, as the speeds name it.
    pub model: String,
    /// The batch size, as the speeds name it; it may be empty.
    pub batch: String,
    /// How much there is to do.
    pub total_steps: f64,
    /// When it comes, in seconds after the beginning.
    pub arrival_s: f64,
    /// GPUs it runs on: 1, 2, 4 or 8.
    pub scale_factor: u8,
}

/// Steps a second by hardware and by what is trained.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Speeds {
    by_work: BTreeMap<(String, String, u8), BTreeMap<GpuModel, f64>>,
}

impl TraceJob {
    /// When it comes, in whole milliseconds after the beginning.
    #[must_use]
    pub fn arrival_ms(&self) -> u64 {
        (self.arrival_s * 1_000.0).round() as u64
    }
}

impl Trace {
    /// Reads `job_id,model,batch,total_steps,arrival_s,scale_factor`; other columns are passed over, but for a `weight`
    /// that is not 1: every job counts once.
    ///
    /// # Errors
    /// The first row that cannot be used.
    pub fn read(text: &str) -> Result<Self, BadRow> {
        let table = Table::of(
            text,
            &[
                "job_id",
                "model",
                "batch",
                "total_steps",
                "arrival_s",
                "scale_factor",
            ],
        )?;
        let weight = table.column("weight");
        let mut jobs = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        for row in table.rows() {
            let row = row?;
            let job = TraceJob {
                id: row.number("job_id", "a whole number")?,
                model: row.text("model").to_owned(),
                batch: row.text("batch").to_owned(),
                total_steps: row.positive("total_steps")?,
                arrival_s: row.at_least_zero("arrival_s")?,
                scale_factor: row.number("scale_factor", "1, 2, 4 or 8")?,
            };
            if weight.is_some() && row.number::<f64>("weight", "1")? != 1.0 {
                return Err(row.bad(format!(
                    "weight is 1, not {}: every job counts once here, and does if the column is left out",
                    row.text("weight")
                )));
            }
            if job.arrival_s > ARRIVAL_MAX_S {
                return Err(row.bad(format!(
                    "arrival_s is at most {ARRIVAL_MAX_S}, a hundred years, not {}",
                    job.arrival_s
                )));
            }
            if !stepcast_records::Hardware::COUNTS.contains(&job.scale_factor) {
                return Err(row.bad(format!(
                    "a job runs on 1, 2, 4 or 8 GPUs, not on {}",
                    job.scale_factor
                )));
            }
            if job.model.is_empty() {
                return Err(row.bad("model is empty: name what is trained".to_owned()));
            }
            if !known.insert(job.id) {
                return Err(row.bad(format!(
                    "job_id {} was there before: give every job its own",
                    job.id
                )));
            }
            if jobs.len() == JOBS_MAX {
                return Err(row.bad(format!("a trace has at most {JOBS_MAX} jobs: cut it")));
            }
            jobs.push(job);
        }
        if jobs.is_empty() {
            return Err(BadRow {
                line: 1,
                what: "there is no job in the trace".to_owned(),
            });
        }
        Ok(Self(jobs))
    }
}

impl Speeds {
    /// Reads `gpu,model,batch,scale_factor,steps_per_s` and more columns that are passed over. Of several rows for the
    /// same work the fastest counts; rows of measurements on real clusters (`kind` is not `simulation`) and of shared
    /// GPUs (`colocated_with` is not empty) do not count.
    ///
    /// # Errors
    /// The first row that cannot be used.
    pub fn read(text: &str) -> Result<Self, BadRow> {
        let table = Table::of(
            text,
            &["gpu", "model", "batch", "scale_factor", "steps_per_s"],
        )?;
        let kind = table.column("kind");
        let shared = table.column("colocated_with");
        let mut speeds = Self::default();
        for row in table.rows() {
            let row = row?;
            let other = kind.is_some() && row.text("kind") != "simulation";
            if other || (shared.is_some() && !row.text("colocated_with").is_empty()) {
                continue;
            }
            let gpu: GpuModel = row
                .text("gpu")
                .parse()
                .map_err(|_| row.bad(format!("there is no GPU called {}", row.text("gpu"))))?;
            let scale: u8 = row.number("scale_factor", "1, 2, 4 or 8")?;
            let speed = row.at_least_zero("steps_per_s")?;
            let work = (
                row.text("model").to_owned(),
                row.text("batch").to_owned(),
                scale,
            );
            let known = speeds
                .by_work
                .entry(work)
                .or_default()
                .entry(gpu)
                .or_default();
            *known = known.max(speed);
        }
        if speeds.by_work.is_empty() {
            return Err(BadRow {
                line: 1,
                what: "there is no speed in the file".to_owned(),
            });
        }
        Ok(speeds)
    }

    /// Steps a second of a job on so many GPUs of a model; `None` where it does not run.
    #[must_use]
    pub fn steps_per_s(&self, job: &TraceJob, gpu: GpuModel) -> Option<f64> {
        let work = (job.model.clone(), job.batch.clone(), job.scale_factor);
        let speed = *self.by_work.get(&work)?.get(&gpu)?;
        (speed > 0.0).then_some(speed)
    }

    /// Whether anything is known of what a job trains on its number of GPUs.
    #[must_use]
    pub fn knows(&self, job: &TraceJob) -> bool {
        let work = (job.model.clone(), job.batch.clone(), job.scale_factor);
        self.by_work.contains_key(&work)
    }

    /// What speeds are known of: model, batch and GPUs.
    pub fn works(&self) -> impl Iterator<Item = (&str, &str, u8)> {
        let works = self.by_work.keys();
        works.map(|(model, batch, scale)| (model.as_str(), batch.as_str(), *scale))
    }
}

/// A file with a line of names and a row on every other line.
struct Table<'a> {
    names: Vec<&'a str>,
    text: &'a str,
}

/// One row.
struct Row<'a> {
    line: usize,
    names: &'a [&'a str],
    cells: Vec<&'a str>,
}

impl<'a> Table<'a> {
    fn of(text: &'a str, wanted: &[&str]) -> Result<Self, BadRow> {
        let first = text.lines().next().unwrap_or_default();
        let names: Vec<&str> = first
            .trim_start_matches('\u{feff}')
            .split(',')
            .map(str::trim)
            .collect();
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|name| !names.contains(name))
            .copied()
            .collect();
        if missing.is_empty() {
            Ok(Self { names, text })
        } else {
            Err(BadRow {
                line: 1,
                what: format!(
                    "the first line names the columns, and these are missing: {}",
                    missing.join(", ")
                ),
            })
        }
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| *known == name)
    }

    fn rows(&self) -> impl Iterator<Item = Result<Row<'_>, BadRow>> {
        let lines = self.text.lines().enumerate().skip(1);
        let lines = lines.filter(|(_, line)| !line.trim().is_empty());
        lines.map(|(index, line)| {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let row = Row {
                line: index + 1,
                names: &self.names,
                cells,
            };
            if row.cells.len() == self.names.len() {
                Ok(row)
            } else {
                Err(row.bad(format!(
                    "{} columns where the first line has {}: values hold no commas",
                    row.cells.len(),
                    self.names.len()
                )))
            }
        })
    }
}

impl Row<'_> {
    fn text(&self, name: &str) -> &str {
        let column = self.names.iter().position(|known| *known == name);
        column
            .and_then(|column| self.cells.get(column).copied())
            .unwrap_or_default()
    }

    fn number<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<T, BadRow> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| self.bad(format!("{name} is {expected}, not {text:?}")))
    }

    fn at_least_zero(&self, name: &str) -> Result<f64, BadRow> {
        let number: f64 = self.number(name, "a number")?;
        if number.is_finite() && number >= 0.0 {
            Ok(number)
        } else {
            Err(self.bad(format!("{name} is a number from 0 on, not {number}")))
        }
    }

    fn positive(&self, name: &str) -> Result<f64, BadRow> {
        let number = self.at_least_zero(name)?;
        if number > 0.0 {
            Ok(number)
        } else {
            Err(self.bad(format!("{name} must be greater than 0")))
        }
    }

    fn bad(&self, what: String) -> BadRow {
        BadRow {
            line: self.line,
            what,
        }
    }
}
