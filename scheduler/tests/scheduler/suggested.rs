//! What is said to start a job is as little as does: nothing that takes GPUs from it, and nothing that is not needed.

use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::{InstanceId, JobId, OutputsId, StagingId, TokenHash, WorkerId};
use stepcast_scheduler::model::{
    Inventory, JobSpec, TrainerKind,
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
