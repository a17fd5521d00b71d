//! What is asked for besides the work, in both directions.

use std::collections::{BTreeMap, HashMap};

use stepcast_proto::v1;
use stepcast_records::UsdMicros;
use stepcast_records::secret;
use stepcast_records::simpletuner::Workload;
use stepcast_scheduler::ids::{StagingId, TeamId};
use stepcast_scheduler::model::{JobSpec, Label, Objective, TrainerKind};
use tonic::Status;

use super::models::written_instead;
use super::quantity::{duration_ms, duration_to_ms};
use super::terms::{terms, write_terms};
use super::workload::workload;
use crate::status::{bad_field, shown};

/// A job as it goes into the log, in the team that its wishes name.
pub(crate) fn wishes(
    mut wishes: v1::JobWishes,
    workload: Workload,
    staging: StagingId,
    team: TeamId,
) -> Result<JobSpec, Status> {
    let terms = terms(&mut wishes, team)?;
    let (objective, trainer) = (
        objective(wishes.objective)?,
        trainer_kind("wishes.trainer", wishes.trainer)?,
    );
    let default = JobSpec::new(workload, staging);
    let narrow = |field: &str, what: &str| bad_field(&format!("wishes.{field}"), what);
    let allow = wishes.allow.iter().enumerate().map(|(index, model)| {
        model.parse().map_err(|error| {
            narrow(
                &format!("allow[{index}]"),
                &format!("{error}: {}; {}", shown(model), written_instead(model)),
            )
        })
    });
    let spec = JobSpec {
        name: display_name(&wishes.display_name)?,
        gpu_count: match wishes.gpu_count {
            0 => 1,
            count => u8::try_from(count)
                .map_err(|_| narrow("gpu_count", "a job takes 1, 2, 4 or 8 GPUs"))?,
        },
        allow: allow.collect::<Result<_, _>>()?,
        min_memory_gib: u16::try_from(wishes.min_memory_gib)
            .map_err(|_| narrow("min_memory_gib", "no GPU has that much memory"))?,
        labels: labels("wishes.labels", wishes.labels)?,
        objective,
        max_price_per_hour: wishes.max_price_per_hour_usd_micros.map(UsdMicros),
        max_cost: wishes.max_cost_usd_micros.map(UsdMicros),
        max_runtime_ms: match &wishes.max_runtime {
            None => None,
            Some(limit) => Some(
                duration_to_ms(limit)
                    .ok_or_else(|| narrow("max_runtime", "a length of time is not negative"))?,
            ),
        },
        priority: i8::try_from(wishes.priority)
            .map_err(|_| narrow("priority", "a priority is from -10 to 10"))?,
        retry_limit: match wishes.retry_limit {
            None => default.retry_limit,
            Some(limit) => u8::try_from(limit)
                .map_err(|_| narrow("retry_limit", "a job is retried at most 10 times"))?,
        },
        trainer,
        terms,
        ..default
    };
    spec.check()
        .map_err(|error| bad_field("wishes", error.to_string()))?;
    Ok(spec)
}

/// What a job is called.
fn display_name(name: &str) -> Result<Option<Label>, Status> {
    const FIELD: &str = "wishes.display_name";
    check_public(FIELD, name)?;
    label(FIELD, name)
}

/// Refuses a word that looks like a secret where it would stand in the log and in every list.
pub(crate) fn check_public(field: &str, word: &str) -> Result<(), Status> {
    if secret::is_in(word) {
        let what = "this looks like a secret, and everybody would see it; choose another word";
        return Err(bad_field(field, what));
    }
    Ok(())
}

/// The wishes of a job.
pub(crate) fn spec_wishes(spec: &JobSpec) -> v1::JobWishes {
    let micros = |limit: Option<UsdMicros>| limit.map(|UsdMicros(micros)| micros);
    let mut wishes = v1::JobWishes {
        display_name: spec
            .name
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        gpu_count: spec.gpu_count.into(),
        allow: spec
            .allow
            .iter()
            .map(|model| model.slug().to_owned())
            .collect(),
        min_memory_gib: spec.min_memory_gib.into(),
        labels: written_labels(&spec.labels),
        objective: match spec.objective {
            Objective::Cheapest => v1::Objective::Cheapest,
            Objective::Fastest => v1::Objective::Fastest,
            Objective::Balanced => v1::Objective::Balanced,
        }
        .into(),
        max_price_per_hour_usd_micros: micros(spec.max_price_per_hour),
        max_cost_usd_micros: micros(spec.max_cost),
        max_runtime: spec.max_runtime_ms.map(duration_ms),
        priority: spec.priority.into(),
        retry_limit: Some(spec.retry_limit.into()),
        trainer: trainer(spec.trainer).into(),
        ..v1::JobWishes::default()
    };
    write_terms(&spec.terms, &mut wishes);
    wishes
}

/// A job that was only checked: what it would be, without a name.
pub(crate) fn unsubmitted(spec: &JobSpec) -> v1::Job {
    v1::Job {
        title: spec.workload.recipe.title(),
        workload: Some(workload(&spec.workload)),
        wishes: Some(spec_wishes(spec)),
        state: v1::JobState::Pending.into(),
        ..v1::Job::default()
    }
}

/// The program that trains, to the wire.
pub(crate) const fn trainer(trainer: TrainerKind) -> v1::Trainer {
    match trainer {
        TrainerKind::SimpleTuner => v1::Trainer::Simpletuner,
        TrainerKind::Replay => v1::Trainer::Replay,
    }
}

/// The program that trains, from the wire; SimpleTuner when nothing is said.
pub(crate) fn trainer_kind(field: &str, trainer: i32) -> Result<TrainerKind, Status> {
    match v1::Trainer::try_from(trainer) {
        Ok(v1::Trainer::Unspecified | v1::Trainer::Simpletuner) => Ok(TrainerKind::SimpleTuner),
        Ok(v1::Trainer::Replay) => Ok(TrainerKind::Replay),
        Err(_) => Err(bad_field(field, "this server does not know the trainer")),
    }
}

/// Labels from the wire.
pub(crate) fn labels(
    field: &str,
    labels: HashMap<String, String>,
) -> Result<BTreeMap<Label, Label>, Status> {
    let read = |text: String| {
        check_public(field, &text)?;
        Label::try_from(text).map_err(|error| bad_field(field, error.to_string()))
    };
    labels
        .into_iter()
        .map(|(key, value)| Ok((read(key)?, read(value)?)))
        .collect()
}

/// Labels to the wire.
pub(crate) fn written_labels(labels: &BTreeMap<Label, Label>) -> HashMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

/// A name that a person may give or leave out.
fn label(field: &str, text: &str) -> Result<Option<Label>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error: stepcast_scheduler::model::label::Error| {
            bad_field(field, error.to_string())
        })
}

fn objective(objective: i32) -> Result<Objective, Status> {
    match v1::Objective::try_from(objective) {
        Ok(v1::Objective::Unspecified | v1::Objective::Balanced) => Ok(Objective::Balanced),
        Ok(v1::Objective::Cheapest) => Ok(Objective::Cheapest),
        Ok(v1::Objective::Fastest) => Ok(Objective::Fastest),
        Err(_) => Err(bad_field(
            "wishes.objective",
            "this server does not know the objective",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_is_called_by_a_secret() {
        assert!(display_name("ana's cats").is_ok());
        let refused = display_name("hf_canarycanarycanarycanary").expect_err("a token");
        assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
    }

    #[test]
    fn no_label_is_a_secret() {
        const TOKEN: &str = "hf_canarycanarycanarycanary";
        let labelled = |value: &str| HashMap::from([("zone".to_owned(), value.to_owned())]);
        assert!(labels("labels", labelled("north")).is_ok());
        let refused = labels("labels", labelled(TOKEN)).expect_err("a token");
        assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
        let spread = |key: &str| {
            let mut wishes = v1::JobWishes {
                spread_key: key.to_owned(),
                ..v1::JobWishes::default()
            };
            terms(&mut wishes, TeamId::DEFAULT)
        };
        assert!(spread("mine").is_ok());
        assert!(spread(TOKEN).is_err());
    }
}
