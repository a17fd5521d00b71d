//! Options for whom, when and how firmly a job runs, shared by `submit` and `job update`.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use stepcast_proto::v1::JobWishes;

use super::submit::{label, wire_span};
use crate::failure::Failure;
use crate::output::time;

/// For whom, when and how firmly.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Terms {
    /// The team that pays, and in whose share the job runs
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Begin no earlier: a clock time such as 18:00, a time in RFC 3339, or a span from now such as 2h
    #[arg(long, value_name = "WHEN", value_parser = time::parse_moment)]
    not_before: Option<prost_types::Timestamp>,
    /// When it should be done; refused if no hardware could be
    #[arg(long, value_name = "WHEN", value_parser = time::parse_moment)]
    finish_by: Option<prost_types::Timestamp>,
    /// A label that the worker must not carry; may be given several times
    #[arg(long = "avoid", value_name = "KEY=VALUE", value_parser = label)]
    avoid: Vec<(String, String)>,
    /// Jobs with the same key never run on one worker at the same time
    #[arg(long, value_name = "KEY")]
    spread: Option<String>,
    /// How long an attempt is left in peace before its GPUs may be taken back
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    min_run: Option<Duration>,
    /// How often its GPUs may be taken back for other jobs
    #[arg(long, value_name = "TIMES")]
    preemptions: Option<u32>,
}

impl Terms {
    /// Refuses a label that is wanted, or not wanted, with two values: a job has room for one of each name.
    pub(crate) fn check(&self, wanted: &[(String, String)]) -> Result<(), Failure> {
        for labels in [wanted, &self.avoid] {
            let mut known: HashMap<&str, &str> = HashMap::new();
            for (key, value) in labels {
                if known.insert(key, value).is_some_and(|other| other != value) {
                    return Err(Failure::usage(format!("label {key} is given two values"))
                        .hint("give each label once"));
                }
            }
        }
        Ok(())
    }

    /// Writes what was given into the wishes; gives back the names of what it has written.
    pub(crate) fn write(&self, wishes: &mut JobWishes) -> Vec<&'static str> {
        let mut written = Vec::new();
        if let Some(team) = &self.team {
            wishes.team = match team.strip_prefix("teams/").unwrap_or(team) {
                "default" => String::new(),
                team => format!("teams/{team}"),
            };
            written.push("team");
        }
        if self.not_before.is_some() {
            wishes.not_before_time = self.not_before;
            written.push("not_before_time");
        }
        if self.finish_by.is_some() {
            wishes.finish_by_time = self.finish_by;
            written.push("finish_by_time");
        }
        if !self.avoid.is_empty() {
            wishes.avoid_labels = self.avoid.iter().cloned().collect();
            written.push("avoid_labels");
        }
        if let Some(key) = &self.spread {
            wishes.spread_key.clone_from(key);
            written.push("spread_key");
        }
        if self.min_run.is_some() {
            wishes.min_run_time = self.min_run.map(wire_span);
            written.push("min_run_time");
        }
        if self.preemptions.is_some() {
            wishes.preemptions_max = self.preemptions;
            written.push("preemptions_max");
        }
        written
    }
}
