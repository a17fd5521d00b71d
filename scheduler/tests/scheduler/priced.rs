//! Where running jobs yield to what is worth more, whatever is worth little has its turn nevertheless.

use std::collections::BTreeMap;

use stepcast_records::Hardware;
use stepcast_records::simpletuner::Length;
use stepcast_scheduler::forward::{Forward, Truth};
use stepcast_scheduler::ids::{InstanceId, JobId, TokenHash};
use stepcast_scheduler::model::limits::QUEUE_AGE_MAX_MS;
use stepcast_scheduler::model::{Inventory, Job, JobSpec, JobState, TrainerKind};
use stepcast_scheduler::placement::{Forecast, ForecastSource};
use stepcast_scheduler::policy::{Aim, Policy, Preemption};
use stepcast_scheduler::{Command, State, codec};

use crate::drawn::staging;
use crate::support::workload;

const HOUR_MS: u64 = 3_600_000;

/// GPUs of the only host.
const GPUS: u8 = 4;

/// A step takes a minute, on however many GPUs.
struct Minutes;

fn run_ms(spec: &JobSpec) -> u64 {
    match spec.workload.length {
        Length::Steps(steps) => steps * 60_000,
        Length::Epochs(_) => HOUR_MS,
    }
}

impl ForecastSource for Minutes {
    fn forecast(&self, spec: &JobSpec, _: Hardware) -> Option<Forecast> {
        let run_ms = run_ms(spec);
        Some(Forecast {
            run_ms_p50: run_ms,
            run_ms_p90: run_ms,
        })
    }

    fn version(&self) -> Option<u64> {
        Some(0)
    }
}

impl Truth for Minutes {
    fn run_ms(&self, job: &Job, _: Hardware) -> Option<u64> {
        Some(run_ms(&job.spec))
    }

    fn restart_ms(&self) -> u64 {
        0
    }
}

fn cluster(aim: Aim) -> Forward<'static> {
    let mut cluster = Forward::new(State::new(), &Minutes, &Minutes, 1_000_000);
    let policy = Policy {
        aim,
        preemption: Preemption::Priced,
        min_run_ms: 0,
        ..Policy::default()
    };
    let hash = TokenHash([1; 32]);
    let commands = [
        Command::Barrier {
            version: codec::VERSION,
        },
        Command::SetPolicy { policy },
        Command::CreateWorkerToken {
            name: "host".parse().expect("a label"),
            hash,
        },
        Command::RegisterWorker {
            token_hash: hash,
            instance: InstanceId([1; 16]),
            inventory: Inventory {
                gpus: vec!["h100".parse().expect("a GPU"); usize::from(GPUS)],
                trainers: [TrainerKind::SimpleTuner].into(),
                labels: BTreeMap::new(),
                price_per_gpu_hour: None,
                address: None,
                outputs: None,
            },
        },
    ];
    for command in commands {
        cluster.apply(command).expect("it is taken");
    }
    cluster
}

fn submit(cluster: &mut Forward<'_>, number: u64, minutes: u64, gpus: u8) -> JobId {
    let mut spec = JobSpec::new(workload(), staging(number));
    spec.workload.length = Length::Steps(minutes);
    spec.gpu_count = gpus;
    cluster.submit(spec).expect("a job")
}

/// Short jobs come as fast as they end, for ever. The long one is never the shortest, and its GPUs are never free at once;
/// it starts when it has waited for half of the time that a job may wait, and is done while they still come.
#[test]
fn a_long_job_has_its_turn_however_many_short_ones_come() {
    for aim in [Aim::ShortestRemaining, Aim::Balanced] {
        let mut cluster = cluster(aim);
        let long = submit(&mut cluster, 1, 50 * 60, GPUS);
        let came_ms = cluster.now_ms();
        let mut number = 1;
        let mut started_ms = None;
        let end_ms = came_ms + QUEUE_AGE_MAX_MS;
        while cluster.now_ms() < end_ms {
            let state = cluster.state();
            let Some(job) = state.open_job(long) else {
                break;
            };
            if job.state == JobState::Running {
                started_ms = started_ms.or(Some(cluster.now_ms()));
            }
            let waiting = state.pending_count();
            for _ in waiting..2 * usize::from(GPUS) {
                number += 1;
                // Not all of them end at once.
                submit(&mut cluster, number, 240 + number * 37 % 120, 1);
            }
            while !cluster.look(256).plan.is_empty() {}
            cluster.go_on(cluster.now_ms() + HOUR_MS);
        }
        let started_ms = started_ms.expect("it has started");
        let most_ms = QUEUE_AGE_MAX_MS / 2 + 12 * HOUR_MS;
        assert!(started_ms - came_ms <= most_ms, "{aim}: {started_ms}");
        let is_over = cluster.state().open_job(long).is_none();
        assert!(is_over, "{aim}: it has started and is never done");
    }
}
