//! `stepcast policy`: by what the cluster decides who runs where and when, and when a running job yields.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use stepcast_proto::v1::{GetPolicyRequest, Policy as Wire, SetPolicyRequest};

use super::submit::wire_span;
use crate::client::{self, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::style::{Mark, Tone};
use crate::output::time;

/// Shows by what the cluster decides, or has it decide by something else.
#[derive(Debug, Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Has the cluster decide by another policy; what is not given stays
    Set(Set),
}

#[derive(Debug, Args)]
struct Set {
    /// What it aims at: default, fifo, priority, max-min-blind, max-min, makespan, shortest-remaining or cost
    #[arg(long)]
    aim: Option<String>,
    /// When a running job yields: never, for-priority or priced
    #[arg(long)]
    preemption: Option<String>,
    /// How long an attempt is left in peace at least
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    min_run: Option<Duration>,
    /// How often one job may be asked to yield
    #[arg(long, value_name = "TIMES")]
    preemptions: Option<u32>,
    /// What a restart takes before the first new step
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    restart: Option<Duration>,
}

impl Set {
    /// Whether nothing of it was given.
    const fn is_empty(&self) -> bool {
        self.aim.is_none()
            && self.preemption.is_none()
            && self.min_run.is_none()
            && self.preemptions.is_none()
            && self.restart.is_none()
    }
}

impl Policy {
    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(What::Set(set)) = &self.what
            && set.is_empty()
        {
            return Err(Failure::usage("nothing to change was given")
                .hint("see `stepcast policy set --help`"));
        }
        let client = context.connect().await?;
        let output = &context.output;
        let policy = match &self.what {
            None => {
                let answer = client.ask(|| {
                    let mut service = client.scheduling();
                    async move { service.get_policy(timed(GetPolicyRequest {})).await }
                });
                answer.await?.policy
            }
            Some(What::Set(set)) => {
                let message = SetPolicyRequest {
                    policy: Some(Wire {
                        aim: set.aim.clone().unwrap_or_default(),
                        preemption: set.preemption.clone().unwrap_or_default(),
                        min_run_time: set.min_run.map(wire_span),
                        preemptions_max: set.preemptions,
                        restart_time: set.restart.map(wire_span),
                    }),
                    request_id: client::request_id(),
                };
                let answer = client.change(|| {
                    let request = timed(message.clone());
                    let mut service = client.scheduling();
                    async move { service.set_policy(request).await }
                });
                answer.await?.policy
            }
        };
        let policy = policy.unwrap_or_default();
        if output.json {
            return output.json(&policy_json(&policy));
        }
        if self.what.is_some() {
            output.marked(
                Mark::Done,
                Tone::Good,
                "the cluster decides by this policy from here on",
            );
        }
        output.data(&text(&policy))?;
        output.next("stepcast policy set --aim NAME");
        Ok(())
    }
}

fn text(policy: &Wire) -> String {
    let span = |span: Option<&prost_types::Duration>| {
        span.map_or_else(|| "-".to_owned(), |span| time::span(time::seconds(span)))
    };
    let lines = [
        ("aim", policy.aim.clone()),
        ("preemption", policy.preemption.clone()),
        ("left in peace", span(policy.min_run_time.as_ref())),
        (
            "yields at most",
            format!("{} times", policy.preemptions_max.unwrap_or(0)),
        ),
        ("a restart takes", span(policy.restart_time.as_ref())),
    ];
    let lines = lines.map(|(name, value)| format!("  {name:<15} {value}\n"));
    lines.concat()
}

fn policy_json(policy: &Wire) -> Value {
    json!({
        "aim": policy.aim,
        "preemption": policy.preemption,
        "min_run_s": policy.min_run_time.as_ref().map(time::seconds),
        "preemptions_max": policy.preemptions_max,
        "restart_s": policy.restart_time.as_ref().map(time::seconds),
    })
}
