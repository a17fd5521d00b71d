//! What is said to start a job is as little as does: nothing that takes GPUs from it, and nothing that is not needed.

use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::{InstanceId, JobId, OutputsId, StagingId, TokenHash, WorkerId};
use stepcast_scheduler::model::{
    Budget, Inventory, JobSpec, Outcome, Period, TeamName, TeamRules, TrainerKind,
};
use stepcast_scheduler::sooner::{Change, sooner};
use stepcast_scheduler::{Command, Reply, codec};

use crate::history::History;
use crate::support::{planned, workload};

fn cluster() -> History {
    let mut history = History::new();
    let version = codec::VERSION;
    tell(&mut history, Command::Barrier { version });
    history
}

fn tell(history: &mut History, command: Command) -> Reply {
    history.propose(command, None).reply.expect("taken")
}

/// A host with these GPUs, at a price for each of them an hour.
fn joins(history: &mut History, number: u8, gpus: &[&str], dollars: u64) -> WorkerId {
    let hash = TokenHash([number; 32]);
    let name = format!("w{number}").parse().expect("a label");
    tell(history, Command::CreateWorkerToken { name, hash });
    let inventory = Inventory {
        gpus: gpus.iter().map(|gpu| gpu.parse().expect("a GPU")).collect(),
        trainers: [TrainerKind::SimpleTuner].into(),
        price_per_gpu_hour: Some(UsdMicros(dollars * 1_000_000)),
        labels: Default::default(),
        address: None,
        outputs: Some(OutputsId([number; 16])),
    };
    let joined = tell(
        history,
        Command::RegisterWorker {
            token_hash: hash,
            instance: InstanceId([number; 16]),
            inventory,
        },
    );
    let Reply::WorkerRegistered { worker, .. } = joined else {
        panic!("{joined:?}");
    };
    worker
}

fn submits(history: &mut History, wish: impl FnOnce(&mut JobSpec)) -> JobId {
    let staging = StagingId(u128::from(history.state.applied_index()).to_le_bytes());
    let mut spec = Box::new(JobSpec::new(workload(), staging));
    wish(&mut spec);
    let Reply::JobSubmitted { job } = tell(history, Command::SubmitJob { spec }) else {
        panic!("a job");
    };
    job
}

fn places(history: &mut History) {
    let placements = planned(&history.state, &history.forecast, history.now_ms);
    assert!(!placements.is_empty(), "something starts");
    tell(history, Command::Place { placements });
}

fn said(history: &History, job: JobId) -> Vec<String> {
    let keep = |_: &JobSpec, asked| Some(asked);
    let (state, forecast) = (&history.state, &history.forecast);
    let found = sooner(state, forecast, &keep, job, history.now_ms);
    let words = |changes: &[Change]| {
        let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
        words.join(", ")
    };
    found.iter().map(|found| words(&found.changes)).collect()
}

/// A list of models with the processor alone would leave the job no GPU.
#[test]
fn who_takes_any_gpu_is_not_told_to_allow_what_is_none() {
    let mut history = cluster();
    joins(&mut history, 1, &["h100"], 2);
    joins(&mut history, 2, &["cpu"], 1);
    submits(&mut history, |_| ());
    places(&mut history);
    let waits = submits(&mut history, |_| ());
    assert_eq!(said(&history, waits), [""; 0]);
    let names_one = submits(&mut history, |spec| {
        spec.allow = vec!["h100".parse().expect("a GPU")];
    });
    assert_eq!(said(&history, names_one), ["allow CPU"]);
}

fn team(history: &mut History, rules: TeamRules) -> TeamName {
    let name: TeamName = "acme".parse().expect("a name");
    let named = name.clone();
    tell(history, Command::SetTeam { name: named, rules });
    name
}

#[test]
fn no_quota_is_asked_for_that_fewer_gpus_do_not_need() {
    let mut history = cluster();
    joins(&mut history, 1, &["h100"; 8], 2);
    let rules = TeamRules {
        gpu_quota: Some(8),
        ..TeamRules::default()
    };
    let name = team(&mut history, rules);
    let id = history.state.team_named(&name).expect("a team").id;
    submits(&mut history, |spec| {
        (spec.gpu_count, spec.terms.team) = (4, id);
    });
    places(&mut history);
    let waits = submits(&mut history, |spec| {
        (spec.gpu_count, spec.terms.team) = (8, id);
    });
    assert_eq!(said(&history, waits), ["ask for 4 GPUs"]);
}

/// Eight of its GPUs are in use, and four are free.
#[test]
fn a_quota_is_asked_for_that_fewer_gpus_take() {
    let mut history = cluster();
    joins(&mut history, 1, &["h100"; 8], 2);
    let rules = TeamRules {
        gpu_quota: Some(8),
        ..TeamRules::default()
    };
    let name = team(&mut history, rules);
    let id = history.state.team_named(&name).expect("a team").id;
    for _ in 0..2 {
        submits(&mut history, |spec| {
            (spec.gpu_count, spec.terms.team) = (4, id);
        });
    }
    places(&mut history);
    assert_eq!(history.state.gpus_in_use(id), 8);
    joins(&mut history, 2, &["h100"; 4], 2);
    let waits = submits(&mut history, |spec| {
        (spec.gpu_count, spec.terms.team) = (8, id);
    });
    let keep = |_: &JobSpec, asked| Some(asked);
    let (state, forecast) = (&history.state, &history.forecast);
    let found = sooner(state, forecast, &keep, waits, history.now_ms);
    let quotas = found.iter().flat_map(|found| &found.commands);
    let quotas = quotas.filter_map(|command| match command {
        Command::SetTeam { rules, .. } => rules.gpu_quota,
        _ => None,
    });
    assert_eq!(quotas.collect::<Vec<_>>(), [12]);
    let words = ["let team acme use 12 GPUs, ask for 4 GPUs"];
    assert_eq!(said(&history, waits), words);
}

/// Of two hosts that are alike one has a job with the same key.
#[test]
fn no_wish_is_given_up_that_another_host_meets() {
    let mut history = cluster();
    joins(&mut history, 1, &["h100"; 2], 3);
    let key = "k".parse().expect("a label");
    let spread = |spec: &mut JobSpec| spec.terms.spread = Some(key);
    submits(&mut history, spread.clone());
    places(&mut history);
    joins(&mut history, 2, &["h100"], 3);
    let waits = submits(&mut history, |spec| {
        spread(spec);
        spec.max_price_per_hour = Some(UsdMicros(2_000_000));
    });
    assert_eq!(said(&history, waits), ["allow $3.00 an hour"]);
}

/// Its results are on one of two hosts that are alike: what is left costs less there than all of it on the other.
#[test]
fn no_more_money_is_asked_for_than_it_needs_where_its_checkpoint_is() {
    let mut history = cluster();
    let hardware = "h100".parse().expect("a hardware");
    history.forecast.0.insert(hardware, 600);
    let [other, home] = [1, 2].map(|number| joins(&mut history, number, &["h100"], 3));
    let stops = |worker| Command::DrainWorker {
        worker,
        stop_running: true,
    };
    tell(&mut history, stops(other));
    let rules = |micros| TeamRules {
        budget: Some(Budget {
            amount: UsdMicros(micros),
            period: Period::Once,
        }),
        ..TeamRules::default()
    };
    let name = team(&mut history, rules(1_000_000_000));
    let id = history.state.team_named(&name).expect("a team").id;
    let waits = submits(&mut history, |spec| spec.terms.team = id);
    places(&mut history);
    let running = history.state.job(waits).expect("a job").into_owned();
    let epoch = running.live_attempt().expect("it runs").epoch;
    let (job, step) = (waits, 90);
    tell(&mut history, Command::Checkpoint { job, epoch, step });
    tell(&mut history, stops(home));
    let outcome = Outcome::Cancelled;
    let detail = String::new();
    tell(
        &mut history,
        Command::EndAttempt {
            job,
            epoch,
            outcome,
            step,
            detail,
        },
    );
    for worker in [other, home] {
        tell(&mut history, Command::ResumeWorker { worker });
    }
    let job_now = history.state.job(job).expect("a job").into_owned();
    assert!(history.state.begins_anew_on(&job_now, other) && other < home);
    tell(
        &mut history,
        Command::SetTeam {
            name,
            rules: rules(1_000_000),
        },
    );
    let said = said(&history, job);
    let [one] = &said[..] else {
        panic!("{said:?}");
    };
    let dollars = one.strip_prefix("let team acme spend $").expect(one);
    // Nine in ten such runs take 15 hours at most, of which a tenth is left: $4.50 and a margin, and not $45.
    assert!(
        dollars.parse::<f64>().is_ok_and(|dollars| dollars < 10.0),
        "{one}"
    );
}
