//! For whom, when and how firmly a job is asked for, in both directions.

use prost_types::Timestamp;
use stepcast_proto::v1;
use stepcast_records::UsdMicros;
use stepcast_scheduler::State;
use stepcast_scheduler::ids::TeamId;
use stepcast_scheduler::model::{Job, JobState, Label, Terms};
use tonic::Status;

use super::quantity::{duration_ms, duration_to_ms, timestamp_ms};
use super::wishes::{check_public, labels, written_labels};
use crate::names;
use crate::status::bad_field;

/// The terms in what is asked for, in the team that it names.
pub(crate) fn terms(wishes: &mut v1::JobWishes, team: TeamId) -> Result<Terms, Status> {
    let field = |name: &str| format!("wishes.{name}");
    let spread = match std::mem::take(&mut wishes.spread_key) {
        key if key.is_empty() => None,
        key => {
            check_public(&field("spread_key"), &key)?;
            let read = Label::try_from(key);
            Some(read.map_err(|error| bad_field(&field("spread_key"), error.to_string()))?)
        }
    };
    let min_run_ms = match &wishes.min_run_time {
        None => None,
        Some(span) => Some(duration_to_ms(span).ok_or_else(|| {
            bad_field(&field("min_run_time"), "a length of time is not negative")
        })?),
    };
    let preemptions_max = match wishes.preemptions_max {
        None => None,
        Some(count) => Some(u8::try_from(count).map_err(|_| {
            bad_field(
                &field("preemptions_max"),
                "a job is disturbed at most 255 times",
            )
        })?),
    };
    Ok(Terms {
        team,
        not_before_ms: stamp(&field("not_before_time"), wishes.not_before_time.as_ref())?,
        finish_by_ms: stamp(&field("finish_by_time"), wishes.finish_by_time.as_ref())?,
        avoid: labels(
            &field("avoid_labels"),
            std::mem::take(&mut wishes.avoid_labels),
        )?,
        spread,
        min_run_ms,
        preemptions_max,
        more_hosts: match wishes.hosts {
            0 => 0,
            hosts => u8::try_from(hosts - 1)
                .map_err(|_| bad_field(&field("hosts"), "a job runs on 1 to 16 hosts"))?,
        },
        ..Terms::default()
    })
}

/// Writes the terms of a job into its wishes.
pub(crate) fn write_terms(terms: &Terms, wishes: &mut v1::JobWishes) {
    wishes.not_before_time = terms.not_before_ms.map(timestamp_ms);
    wishes.finish_by_time = terms.finish_by_ms.map(timestamp_ms);
    wishes.avoid_labels = written_labels(&terms.avoid);
    wishes.spread_key = terms
        .spread
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    wishes.min_run_time = terms.min_run_ms.map(duration_ms);
    wishes.preemptions_max = terms.preemptions_max.map(u32::from);
    wishes.hosts = u32::from(terms.more_hosts) + 1;
}

/// What is known of a job beside its wishes: what was decided about it, and what is promised to it.
pub(crate) fn write_standing(job: &Job, state: &State, told: &mut v1::Job) {
    let team = Some(job.spec.terms.team).filter(|team| *team != TeamId::DEFAULT);
    if let (Some(wishes), Some(id)) = (&mut told.wishes, team) {
        let team = state.team(id);
        wishes.team = team.map_or_else(
            || names::of_removed_team(id),
            |team| names::of_team(&team.name),
        );
    }
    let UsdMicros(reserved) = job.standing.reserved;
    told.approve_time = job.standing.approved_ms.map(timestamp_ms);
    told.preemptions = job.standing.preemptions.into();
    told.reserved_usd_micros = reserved;
    let credentials = job.spec.terms.credentials.iter();
    told.credentials = credentials.map(ToString::to_string).collect();
    told.awaits_credentials = job.standing.awaits_credentials;
    let checkpoint = (job.state == JobState::Pending).then(|| state.checkpoint_only_on(job));
    let checkpoint = checkpoint.flatten();
    told.checkpoint_worker = checkpoint.map_or_else(String::new, |worker| worker.name.to_string());
    told.array_task = job.spec.terms.array.map(|part| v1::ArrayTask {
        array: names::of_job(part.array),
        index: part.index,
        tasks: part.of,
        parallel: part.parallel,
    });
}

fn stamp(field: &str, time: Option<&Timestamp>) -> Result<Option<u64>, Status> {
    let Some(time) = time else {
        return Ok(None);
    };
    let ms = u64::try_from(time.seconds).ok().and_then(|seconds| {
        let nanos = u64::try_from(time.nanos).ok()?;
        seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
    });
    let ms = ms.ok_or_else(|| bad_field(field, "this is no time after 1970"))?;
    Ok(Some(ms))
}
