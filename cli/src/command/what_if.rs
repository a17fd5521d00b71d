//! `stepcast what-if`: when jobs start and are done, as it is and if something were different.

use clap::Args;
use serde_json::{Value, json};
use stepcast_proto::v1::{
    JobTimes, JobWishes, Outlook, SupposedTeam, SupposedWishes, SupposedWorkers, WhatIfRequest,
    WhatIfResponse,
};

use super::job::{get, job_name};
use super::teams::wire_name;
use super::update::Changes;
use super::workers::find;
use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{counted, parse_dollars};
use crate::output::style::Tone;
use crate::output::table::{Cell, Side, Table};
use crate::output::{json as shapes, time};

/// What would be different, and whose times are wanted.
#[derive(Debug, Args)]
pub(crate) struct WhatIf {
    /// Jobs whose times are wanted; all that you see and that are not over unless given
    #[arg(value_name = "JOB", value_parser = job_name)]
    jobs: Vec<String>,
    /// Workers that would join: GPU model and how many each has, = and how many workers; may be given several times
    #[arg(long, value_name = "MODELxGPUS=WORKERS", value_parser = added)]
    add: Vec<SupposedWorkers>,
    /// What a GPU of those would cost an hour, in dollars; unless given, the least that one of the same model costs now
    #[arg(long, value_name = "DOLLARS", value_parser = parse_dollars, requires = "add")]
    add_price: Option<u64>,
    /// A worker that would take nothing more; its jobs would go on elsewhere
    #[arg(long, value_name = "WORKER")]
    remove: Vec<String>,
    /// A job that would be cancelled
    #[arg(long, value_name = "JOB", value_parser = job_name)]
    cancel: Vec<String>,
    /// The most GPUs that a team would have at the same time
    #[arg(long, value_name = "TEAM=GPUS", value_parser = quota)]
    quota: Vec<SupposedTeam>,
    /// The most money that a team would have in its period, in dollars
    #[arg(long, value_name = "TEAM=DOLLARS", value_parser = budget)]
    budget: Vec<SupposedTeam>,
    /// What the cluster would aim at: default, fifo, priority, max-min-blind, max-min, makespan, shortest-remaining or cost
    #[arg(long, value_name = "NAME")]
    aim: Option<String>,
    /// When a running job would yield: never, for-priority or priced
    #[arg(long, value_name = "WHEN")]
    preemption: Option<String>,
    /// Show the other jobs too when one of them would ask for something else
    #[arg(long)]
    all: bool,
    #[command(
        flatten,
        next_help_heading = "What the one job that is named would ask for"
    )]
    changes: Changes,
}

/// Seconds by which two times may differ and still be told as the same.
const HARDLY_S: f64 = 30.0;

/// `h100x8=2`.
fn added(text: &str) -> Result<SupposedWorkers, String> {
    let (hardware, count) = match text.split_once('=') {
        Some((hardware, count)) => (hardware, count),
        None => (text, "1"),
    };
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
    let count = number(count).ok_or_else(|| format!("{count} is no number of workers"))?;
    // The x of a name such as rtx4090 is followed by more than a number of GPUs can be.
    let with_gpus = hardware
        .rsplit_once('x')
        .and_then(|(gpu, gpus)| Some((gpu, number(gpus).filter(|gpus| *gpus < 100)?)));
    let (gpu, gpus) = with_gpus
        .filter(|(gpu, _)| !gpu.is_empty())
        .unwrap_or((hardware, 1));
    Ok(SupposedWorkers {
        count,
        gpu: gpu.to_ascii_lowercase(),
        gpus,
        ..SupposedWorkers::default()
    })
}

/// `acme=8`.
fn quota(text: &str) -> Result<SupposedTeam, String> {
    let (name, gpus) = team(text)?;
    let gpus = gpus
        .parse()
        .map_err(|_| format!("{gpus} is no number of GPUs"))?;
    Ok(SupposedTeam {
        name,
        gpu_quota: Some(gpus),
        ..SupposedTeam::default()
    })
}

/// `acme=500`.
fn budget(text: &str) -> Result<SupposedTeam, String> {
    let (name, money) = team(text)?;
    Ok(SupposedTeam {
        name,
        budget_usd_micros: Some(parse_dollars(money)?),
        ..SupposedTeam::default()
    })
}

fn team(text: &str) -> Result<(String, &str), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "write the team, = and a number, such as acme=8".to_owned())?;
    Ok((wire_name(name), value))
}

impl WhatIf {
    /// Asks and tells.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.connect().await?;
        let request = self.request(&client).await?;
        let supposes = request
            != WhatIfRequest {
                jobs: request.jobs.clone(),
                ..WhatIfRequest::default()
            };
        let answer = client.ask(|| {
            let request = timed(request.clone());
            let mut service = client.jobs();
            async move { service.what_if(request).await }
        });
        let answer = answer.await?;
        let output = &context.output;
        if output.json {
            return output.json(&answer_json(&answer));
        }
        if answer.jobs.is_empty() {
            output.say("No job waits or runs.");
            return Ok(());
        }
        output.table(&table(&answer.jobs, supposes))?;
        let notes = answer.jobs.iter().filter_map(|job| {
            let outlook = job.after.as_ref().or(job.before.as_ref())?;
            (!outlook.note.is_empty())
                .then(|| format!("{}: {}", shapes::id(&job.name), outlook.note))
        });
        notes.for_each(|note| output.say(format!("  {}", Tone::Dim.paint(&note))));
        if answer.left_out > 0 {
            let more = counted(answer.left_out.into(), "job is", "jobs are");
            output.say(format!("{more} not shown; name those that you mean"));
        }
        Ok(())
    }

    async fn request(&self, client: &Client) -> Result<WhatIfRequest, Failure> {
        let mut jobs = self.jobs.clone();
        let mut wishes = Vec::new();
        if !self.changes.of(&JobWishes::default())?.1.is_empty() {
            let [name] = jobs.as_slice() else {
                return Err(Failure::usage(
                    "name the one job that would ask for something else",
                ));
            };
            let job = get(client, name).await?;
            let (changed, paths) = self.changes.of(&job.wishes.unwrap_or_default())?;
            wishes.push(SupposedWishes {
                job: name.clone(),
                wishes: Some(changed),
                update_mask: Some(prost_types::FieldMask { paths }),
            });
        }
        if self.all {
            jobs.clear();
        }
        let mut remove_workers = Vec::with_capacity(self.remove.len());
        for worker in &self.remove {
            remove_workers.push(find(client, worker).await?);
        }
        let priced = |workers: &SupposedWorkers| SupposedWorkers {
            price_per_gpu_hour_usd_micros: self.add_price,
            ..workers.clone()
        };
        Ok(WhatIfRequest {
            jobs,
            add_workers: self.add.iter().map(priced).collect(),
            remove_workers,
            wishes,
            cancel_jobs: self.cancel.clone(),
            teams: self.quota.iter().chain(&self.budget).cloned().collect(),
            aim: self.aim.clone().unwrap_or_default(),
            preemption: self.preemption.clone().unwrap_or_default(),
        })
    }
}

fn table(jobs: &[JobTimes], supposes: bool) -> Table {
    let titles: &[(&str, Side)] = if supposes {
        &[
            ("JOB", Side::Left),
            ("TITLE", Side::Left),
            ("STARTS", Side::Left),
            ("WOULD START", Side::Left),
            ("DONE", Side::Left),
            ("WOULD BE DONE", Side::Left),
            ("CHANGE", Side::Right),
        ]
    } else {
        &[
            ("JOB", Side::Left),
            ("TITLE", Side::Left),
            ("STARTS", Side::Left),
            ("STARTS P90", Side::Left),
            ("DONE", Side::Left),
            ("DONE P90", Side::Left),
        ]
    };
    let mut table = Table::new(titles);
    for job in jobs {
        let mut row: Vec<Cell> = vec![shapes::id(&job.name).into(), job.title.as_str().into()];
        let (before, after) = (
            job.before.clone().unwrap_or_default(),
            job.after.clone().unwrap_or_default(),
        );
        if supposes {
            row.extend([start(&before), start(&after), done(&before), done(&after)]);
            row.push(change(&before, &after));
        } else {
            let late = |time: Option<&prost_types::Timestamp>| time::day_and_clock(time);
            row.extend([start(&before), late(before.start_time_p90.as_ref()).into()]);
            row.extend([done(&before), late(before.finish_time_p90.as_ref()).into()]);
        }
        table.row(row);
    }
    table
}

fn start(outlook: &Outlook) -> Cell {
    time::day_and_clock(outlook.start_time_p50.as_ref()).into()
}

fn done(outlook: &Outlook) -> Cell {
    time::day_and_clock(outlook.finish_time_p50.as_ref()).into()
}

/// How much earlier or later it would be done.
fn change(before: &Outlook, after: &Outlook) -> Cell {
    let times = before
        .finish_time_p50
        .as_ref()
        .zip(after.finish_time_p50.as_ref());
    let Some((before, after)) = times else {
        return "-".into();
    };
    let later = time::seconds_between(before, after).unwrap_or(0.0);
    let earlier = time::seconds_between(after, before).unwrap_or(0.0);
    // What a clock without seconds hardly shows is no change.
    if later > HARDLY_S {
        Cell::toned(format!("+{}", time::span(later)), Tone::Warn)
    } else if earlier > HARDLY_S {
        Cell::toned(format!("-{}", time::span(earlier)), Tone::Good)
    } else {
        "same".into()
    }
}

fn answer_json(answer: &WhatIfResponse) -> Value {
    let jobs = answer.jobs.iter().map(|job| {
        json!({
            "job": shapes::id(&job.name),
            "title": job.title,
            "state": job.state().as_str_name().trim_start_matches("JOB_STATE_"),
            "before": job.before.as_ref().map(shapes::outlook),
            "after": job.after.as_ref().map(shapes::outlook),
        })
    });
    json!({ "jobs": jobs.collect::<Vec<_>>(), "left_out": answer.left_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_model_their_gpus_and_how_many() {
        let read = |text| added(text).map(|workers| (workers.gpu, workers.gpus, workers.count));
        assert_eq!(read("h100x8=2"), Ok(("h100".to_owned(), 8, 2)));
        assert_eq!(read("H100"), Ok(("h100".to_owned(), 1, 1)));
        assert_eq!(read("rtx4090x16"), Ok(("rtx4090".to_owned(), 16, 1)));
        assert_eq!(read("rtx4090=3"), Ok(("rtx4090".to_owned(), 1, 3)));
        assert!(read("h100x8=0").is_err() && read("h100=many").is_err());
    }

    #[test]
    fn a_change_is_told_from_half_a_minute_on() {
        let at = |seconds| Outlook {
            finish_time_p50: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..Outlook::default()
        };
        let mut table = Table::new(&[("CHANGE", Side::Right)]);
        for seconds in [10_000, 10_020, 6_400, 13_600] {
            table.row(vec![change(&at(10_000), &at(seconds))]);
        }
        table.row(vec![change(&at(10_000), &Outlook::default())]);
        assert_eq!(table.tabs(), "CHANGE\nsame\nsame\n-1h 00m\n+1h 00m\n-\n");
    }
}
