//! `stepcast job update` and `approve`: what a waiting job asks for from here on, and that it may cost what it costs.

use clap::Args;
use prost_types::FieldMask;
use stepcast_proto::v1::{
    ApproveJobRequest, CancelArrayRequest, CancelJobRequest, JobState, JobWishes, UpdateJobRequest,
};

use super::estimate::show_notes;
use super::hardware::models_and_count;
use super::job::get;
use super::jobs::words;
use super::submit::{label, wire_span};
use super::terms::Terms;
use crate::client::{self, Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{counted, parse_dollars};
use crate::output::style::{Mark, Tone};
use crate::output::{json, time};

/// What to change. What is not given stays.
#[derive(Debug, Args)]
pub(crate) struct Changes {
    /// GPU models that it may run on besides those that it allows now, such as a100-80
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    allow: Vec<String>,
    /// The only GPU models that it may run on
    #[arg(
        long,
        value_name = "MODEL",
        value_delimiter = ',',
        conflicts_with = "allow"
    )]
    on: Vec<String>,
    /// GPUs on each of its hosts: 1, 2, 4 or 8
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    gpus: Option<u32>,
    /// Hosts that it runs on at once, 1 to 16
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    hosts: Option<u32>,
    /// Least memory of each GPU, in GiB; 0 for no wish
    #[arg(long, value_name = "GIB")]
    min_memory: Option<u32>,
    /// The labels that the worker must carry, instead of those before
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// No label at all
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Most that all attempts together may cost, in dollars
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true, value_parser = parse_dollars)]
    max_cost: Option<u64>,
    /// Most that the GPUs together may cost an hour, in dollars
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true, value_parser = parse_dollars)]
    max_price: Option<u64>,
    /// No limit on what it costs, in all and an hour
    #[arg(long, conflicts_with_all = ["max_cost", "max_price"])]
    no_limits: bool,
    /// Longest time of one attempt, such as 2h or 45m
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    max_runtime: Option<std::time::Duration>,
    /// -10 to 10; higher goes first
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-10..=10))]
    priority: Option<i32>,
    /// No time before which it may not begin
    #[arg(long, conflicts_with = "not_before")]
    now: bool,
    /// No label to keep away from, and no key that keeps it from others
    #[arg(long, conflicts_with_all = ["avoid", "spread"])]
    anywhere: bool,
    #[command(flatten)]
    terms: Terms,
}

impl Changes {
    /// The wishes with the changes in them, and their names.
    ///
    /// # Errors
    /// A label that is asked for with two values, or more than one number of GPUs.
    pub(super) fn of(&self, now: &JobWishes) -> Result<(JobWishes, Vec<String>), Failure> {
        self.terms.check(&self.labels)?;
        let mut wishes = now.clone();
        let mut paths = self.terms.write(&mut wishes);
        let mut set = |path| paths.push(path);
        let mut count = self.gpus;
        if !self.allow.is_empty() || !self.on.is_empty() {
            // Models that are added are for as many GPUs as those that are there.
            let known = (self.on.is_empty() && now.gpu_count > 0).then_some(now.gpu_count);
            let hardware = [self.allow.as_slice(), &self.on].concat();
            let (models, said) = models_and_count(&hardware, count.or(known))?;
            count = said.filter(|said| *said != now.gpu_count).or(count);
            if !self.on.is_empty() {
                wishes.allow.clear();
            }
            for model in models {
                if !wishes.allow.contains(&model) {
                    wishes.allow.push(model);
                }
            }
            set("allow");
        }
        if let Some(count) = count {
            wishes.gpu_count = count;
            set("gpu_count");
        }
        if let Some(count) = self.hosts {
            wishes.hosts = count;
            set("hosts");
        }
        if let Some(memory) = self.min_memory {
            wishes.min_memory_gib = memory;
            set("min_memory_gib");
        }
        if !self.labels.is_empty() || self.no_labels {
            wishes.labels = self.labels.iter().cloned().collect();
            set("labels");
        }
        if self.max_cost.is_some() || self.no_limits {
            wishes.max_cost_usd_micros = self.max_cost;
            set("max_cost_usd_micros");
        }
        if self.max_price.is_some() || self.no_limits {
            wishes.max_price_per_hour_usd_micros = self.max_price;
            set("max_price_per_hour_usd_micros");
        }
        if self.max_runtime.is_some() {
            wishes.max_runtime = self.max_runtime.map(wire_span);
            set("max_runtime");
        }
        if let Some(priority) = self.priority {
            wishes.priority = priority;
            set("priority");
        }
        if self.now {
            wishes.not_before_time = None;
            set("not_before_time");
        }
        if self.anywhere {
            wishes.avoid_labels.clear();
            wishes.spread_key.clear();
            set("avoid_labels");
            set("spread_key");
        }
        Ok((wishes, paths.into_iter().map(str::to_owned).collect()))
    }
}

/// Has a waiting job ask for something else.
pub(crate) async fn update(
    context: &Context,
    client: &Client,
    name: &str,
    changes: &Changes,
) -> Result<(), Failure> {
    let job = get(client, name).await?;
    let (wishes, paths) = changes.of(&job.wishes.clone().unwrap_or_default())?;
    if paths.is_empty() {
        return Err(
            Failure::usage("nothing to change was given").hint("see `stepcast job update --help`")
        );
    }
    let message = UpdateJobRequest {
        name: name.to_owned(),
        wishes: Some(wishes),
        update_mask: Some(FieldMask { paths }),
        etag: job.etag,
        request_id: client::request_id(),
    };
    let answer = client.change(|| {
        let request = timed(message.clone());
        let mut service = client.jobs();
        async move { service.update_job(request).await }
    });
    let answer = answer.await?;
    let job = answer.job.unwrap_or_default();
    let (output, id) = (&context.output, json::id(name));
    if output.json {
        let mut told = json::job(&job);
        told["notes"] = json::notes(&answer.notes);
        return output.json(&told);
    }
    output.marked(Mark::Done, Tone::Good, format!("job {id} changed"));
    show_notes(output, &answer.notes);
    output.next(format!("stepcast job why {id}"));
    Ok(())
}

/// Lets a job cost what it costs.
pub(crate) async fn approve(
    context: &Context,
    client: &Client,
    name: &str,
    etag: Option<&str>,
) -> Result<(), Failure> {
    let message = ApproveJobRequest {
        name: name.to_owned(),
        request_id: client::request_id(),
        etag: etag.unwrap_or_default().to_owned(),
    };
    let answer = client.change(|| {
        let request = timed(message.clone());
        let mut service = client.jobs();
        async move { service.approve_job(request).await }
    });
    let job = answer.await?.job.unwrap_or_default();
    let (output, id) = (&context.output, json::id(name));
    if output.json {
        return output.json(&json::job(&job));
    }
    output.marked(Mark::Done, Tone::Good, format!("job {id} approved"));
    output.next(format!("stepcast job watch {id}"));
    Ok(())
}

/// Ends a job; the state that it is in now.
pub(crate) async fn cancel(
    context: &Context,
    client: &Client,
    name: &str,
) -> Result<JobState, Failure> {
    let message = CancelJobRequest {
        name: name.to_owned(),
        request_id: client::request_id(),
    };
    let answer = client.change(|| {
        let request = timed(message.clone());
        let mut service = client.jobs();
        async move { service.cancel_job(request).await }
    });
    let job = answer.await?.job.unwrap_or_default();
    let (output, id) = (&context.output, json::id(name));
    if output.json {
        output.json(&json::job(&job))?;
        return Ok(job.state());
    }
    match job.state() {
        JobState::Cancelling => {
            output.marked(
                Mark::Here,
                Tone::Good,
                format!("job {id} is being cancelled; its worker will confirm"),
            );
            output.next(format!("stepcast job watch {id}"));
        }
        JobState::Cancelled => output.marked(Mark::Done, Tone::Good, format!("job {id} cancelled")),
        _ => output.marked(
            Mark::Dot,
            Tone::Dim,
            format!("job {id} was over before: {}", words(json::state(&job))),
        ),
    }
    Ok(job.state())
}

/// Ends every job of an array that is not over.
pub(crate) async fn cancel_array(
    context: &Context,
    client: &Client,
    name: &str,
) -> Result<(), Failure> {
    let message = CancelArrayRequest {
        name: name.to_owned(),
        request_id: client::request_id(),
    };
    let answer = client.change(|| {
        let request = timed(message.clone());
        let mut service = client.jobs();
        async move { service.cancel_array(request).await }
    });
    let count = answer.await?.count;
    let output = &context.output;
    if output.json {
        return output.json(&serde_json::json!({ "array": json::id(name), "cancelled": count }));
    }
    let jobs = counted(count.into(), "job", "jobs");
    output.marked(
        Mark::Done,
        Tone::Good,
        format!("{jobs} of the array cancelled, or asked to end"),
    );
    output.next("stepcast jobs");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::failure::Exit;

    #[derive(Debug, Parser)]
    struct Given {
        #[command(flatten)]
        changes: Changes,
    }

    #[test]
    fn a_number_of_gpus_behind_a_model_counts() {
        let now = JobWishes {
            gpu_count: 1,
            allow: vec!["h100".to_owned()],
            ..JobWishes::default()
        };
        let change = |words: &[&str]| {
            let words = [&["update"], words].concat();
            let given = Given::try_parse_from(words).expect("read");
            let (wishes, paths) = given.changes.of(&now)?;
            Ok::<_, Failure>((wishes.gpu_count, paths.join(" ")))
        };
        let is = |count, paths: &str| Ok((count, paths.to_owned()));
        assert_eq!(change(&["--on", "h100x4"]), is(4, "allow gpu_count"));
        assert_eq!(change(&["--on", "l40s"]), is(1, "allow"));
        assert_eq!(change(&["--allow", "l40s"]), is(1, "allow"));
        assert_eq!(
            change(&["--allow", "l40sx2", "--gpus", "2"]),
            is(2, "allow gpu_count")
        );
        for words in [
            &["--on", "h100x4", "--gpus", "2"][..],
            &["--on", "h100x4,l40s"],
            &["--allow", "l40sx2"],
        ] {
            let failure = change(words).expect_err("two numbers");
            assert_eq!(failure.exit, Exit::Usage, "{words:?}");
        }
    }
}
