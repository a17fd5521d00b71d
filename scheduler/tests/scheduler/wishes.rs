//! What a script says about a job, a team and a worker: settings of a line, as the model has them.

use stepcast_scheduler::ids::{StagingId, TeamId};
use stepcast_scheduler::model::{
    Budget, JobSpec, Label, Objective, Period, TeamRules, TrainerKind,
};

use crate::script::Line;
use crate::show;
use crate::support::workload;

/// A job that is to be submitted.
pub(crate) fn spec(line: &Line<'_>, team: impl Fn(&str) -> TeamId) -> JobSpec {
    // Every job has its own files unless it says whose.
    let files = line.settings.get("files").copied().unwrap_or(line.about);
    let mut spec = JobSpec::new(workload(), staging(files));
    spec.name = line.about.parse().ok();
    wish(&mut spec, line, team);
    if line.rest.contains(&"empty") {
        spec.workload.datasets.clear();
    }
    spec
}

/// Files by their name.
pub(crate) fn staging(files: &str) -> StagingId {
    let mut staging = [0; 16];
    let letters = staging.iter_mut().zip(files.bytes());
    letters.for_each(|(byte, letter)| *byte = letter);
    StagingId(staging)
}

/// Has a job ask for what the line says, and leaves the rest as it is.
pub(crate) fn wish(spec: &mut JobSpec, line: &Line<'_>, team: impl Fn(&str) -> TeamId) {
    let says = |key: &str| line.settings.contains_key(key);
    if let Some(count) = line.number("gpus") {
        spec.gpu_count = count;
    }
    if says("allow") {
        let models = line.list("allow").into_iter();
        spec.allow = models.map(|gpu| gpu.parse().expect("a GPU")).collect();
    }
    if let Some(memory) = line.number("memory") {
        spec.min_memory_gib = memory;
    }
    if says("labels") {
        spec.labels = labels(line, "labels");
    }
    match line.settings.get("objective").copied() {
        Some("cheapest") => spec.objective = Objective::Cheapest,
        Some("fastest") => spec.objective = Objective::Fastest,
        _ => {}
    }
    if says("price") {
        spec.max_price_per_hour = line.number("price");
    }
    if says("budget") {
        spec.max_cost = line.number("budget");
    }
    if let Some(runtime) = line.settings.get("runtime") {
        spec.max_runtime_ms = Some(show::duration_ms(runtime));
    }
    if let Some(priority) = line.number("priority") {
        spec.priority = priority;
    }
    if let Some(retries) = line.number("retries") {
        spec.retry_limit = retries;
    }
    if let Some(name) = line.settings.get("trainer") {
        spec.trainer = trainer(name);
    }
    let terms = &mut spec.terms;
    if let Some(name) = line.settings.get("team") {
        terms.team = team(name);
    }
    if let Some(time) = line.settings.get("not_before") {
        terms.not_before_ms = Some(show::duration_ms(time));
    }
    if let Some(time) = line.settings.get("finish_by") {
        terms.finish_by_ms = Some(show::duration_ms(time));
    }
    if says("avoid") {
        terms.avoid = labels(line, "avoid");
    }
    if let Some(key) = line.settings.get("spread") {
        terms.spread = Some(key.parse().expect("a label"));
    }
    if let Some(time) = line.settings.get("min_run") {
        terms.min_run_ms = Some(show::duration_ms(time));
    }
    if says("preemptions") {
        terms.preemptions_max = line.number("preemptions");
    }
    if says("credentials") {
        let names = line.list("credentials").into_iter();
        terms.credentials = names.map(|name| name.parse().expect("a label")).collect();
    }
    if let Some(hosts) = line.number::<u8>("hosts") {
        terms.more_hosts = hosts - 1;
    }
    if says("expected") {
        terms.expected_cost = line.number("expected");
    }
}

/// A team's rules.
pub(crate) fn rules(line: &Line<'_>) -> TeamRules {
    let period = match line.settings.get("period").copied() {
        Some("day") => Period::Day,
        Some("month") => Period::Month,
        _ => Period::Once,
    };
    let default = TeamRules::default();
    TeamRules {
        weight: line.number("weight").unwrap_or(default.weight),
        gpu_quota: line.number("quota"),
        budget: line
            .number("budget")
            .map(|amount| Budget { amount, period }),
        approve_above: line.number("approve"),
        priority_max: line.number("priority").unwrap_or(default.priority_max),
    }
}

/// Labels of a job or a worker.
pub(crate) fn labels<T: FromIterator<(Label, Label)>>(line: &Line<'_>, key: &str) -> T {
    let pair = |text: &str| {
        let (key, value) = text.split_once(':').expect("key:value");
        (
            key.parse().expect("a label"),
            value.parse().expect("a label"),
        )
    };
    line.list(key).into_iter().map(pair).collect()
}

/// A trainer by its name.
pub(crate) fn trainer(name: &str) -> TrainerKind {
    match name {
        "replay" => TrainerKind::Replay,
        "simpletuner" => TrainerKind::SimpleTuner,
        other => panic!("no such trainer: {other}"),
    }
}
