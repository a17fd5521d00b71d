//! Random histories: steps that make sense more often than not, applied one after the other and kept as a log.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use stepcast_records::{GpuModel, UsdMicros};
use stepcast_scheduler::ids::{Epoch, InstanceId, JobId, StagingId, TokenHash, TokenId, WorkerId};
use stepcast_scheduler::model::{
    FailureReason, Inventory, Job, JobSpec, Label, Objective, Outcome, TrainerKind,
};
use stepcast_scheduler::placement::{self, Placement, PlacementNote};
use stepcast_scheduler::{Applied, Command, Envelope, RequestId, State, codec};

use crate::support::{Table, workload};

/// One step. Numbers choose among what is there.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Wait(u64),
    Token(u8),
    Register {
        token: u8,
        instance: u8,
        offer: Offer,
    },
    Submit {
        wish: Wish,
        request: Option<u8>,
    },
    Cancel(u8),
    Plan,
    Force {
        job: u8,
        worker: u8,
        gpus: Vec<u8>,
    },
    Start(u8),
    Checkpoint {
        job: u8,
        step: u64,
    },
    End {
        job: u8,
        outcome: Outcome,
        detail: usize,
    },
    /// A worker that has been away speaks of an attempt that is over.
    Late {
        job: u8,
        attempt: u8,
    },
    Expire(u8),
    Drain {
        worker: u8,
        stop: bool,
    },
    Resume(u8),
    Lose(u8),
    Revoke(u8),
    Sweep,
    /// Every node knows the newest format by now.
    Raise,
}

/// What a worker offers.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    gpus: Vec<&'static str>,
    replay: bool,
    price: Option<u64>,
    label: bool,
}

/// What a job asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    gpu_count: u8,
    allow: Vec<&'static str>,
    memory: u16,
    label: bool,
    objective: Objective,
    price: Option<u64>,
    cost: Option<u64>,
    runtime_ms: Option<u64>,
    priority: i8,
    replay: bool,
}

/// A state, how it came about, and the time.
pub(crate) struct History {
    pub(crate) state: State,
    pub(crate) log: Vec<(u64, Envelope)>,
    pub(crate) now_ms: u64,
    pub(crate) forecast: Table,
    submitted: u64,
}

/// At least half of `count` steps, with two workers from the start so that there is something to do.
pub(crate) fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let workers = (offer(), offer()).prop_map(|(first, second)| {
        let join = |token, offer| Step::Register {
            token,
            instance: 0,
            offer,
        };
        vec![
            Step::Token(0),
            Step::Token(1),
            join(0, first),
            join(1, second),
        ]
    });
    (workers, vec(step(), count / 2..count)).prop_map(|(workers, steps)| [workers, steps].concat())
}

fn step() -> impl Strategy<Value = Step> {
    let number = any::<u8>;
    let times = [
        1,
        1_000,
        15_000,
        1_000_000,
        4_000_000,
        90_000_000,
        3_000_000_000,
    ];
    prop_oneof![
        4 => prop::sample::select(times.to_vec()).prop_map(Step::Wait),
        1 => (0..4_u8).prop_map(Step::Token),
        5 => (0..4_u8, 0..2_u8, offer()).prop_map(|(token, instance, offer)| Step::Register { token, instance, offer }),
        8 => (wish(), prop::option::of(0..20_u8)).prop_map(|(wish, request)| Step::Submit { wish, request }),
        1 => number().prop_map(Step::Cancel),
        8 => Just(Step::Plan),
        2 => (number(), number(), gpus()).prop_map(|(job, worker, gpus)| Step::Force { job, worker, gpus }),
        4 => number().prop_map(Step::Start),
        2 => (number(), 0..1_000_u64).prop_map(|(job, step)| Step::Checkpoint { job, step }),
        5 => (number(), outcome(), 0..9_000_usize).prop_map(|(job, outcome, detail)| Step::End { job, outcome, detail }),
        2 => (number(), number()).prop_map(|(job, attempt)| Step::Late { job, attempt }),
        1 => number().prop_map(Step::Expire),
        1 => (number(), any::<bool>()).prop_map(|(worker, stop)| Step::Drain { worker, stop }),
        1 => number().prop_map(Step::Resume),
        1 => number().prop_map(Step::Lose),
        1 => number().prop_map(Step::Revoke),
        1 => Just(Step::Sweep),
        1 => Just(Step::Raise),
    ]
}

/// Positions of GPUs, such as a planner of another version might propose.
fn gpus() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(vec![0]),
        2 => Just(vec![0, 1]),
        1 => vec(0..9_u8, 0..4),
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    let hosts: [&[&str]; 6] = [
        &["h100", "h100"],
        &["rtx4090"; 4],
        &["a100-80", "a100-80", "rtx4090"],
        &["rtx4090"; 8],
        &["cpu"],
        &["replay", "replay"],
    ];
    let price = prop::option::of(100_000..3_000_000_u64);
    (prop::sample::select(hosts.to_vec()), price, any::<bool>()).prop_map(|(gpus, price, label)| {
        Offer {
            gpus: gpus.to_vec(),
            replay: gpus.contains(&"replay"),
            price,
            label,
        }
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    let objectives = [Objective::Cheapest, Objective::Fastest, Objective::Balanced];
    let allow: [&[&str]; 5] = [&[], &[], &["h100"], &["a100-80", "rtx4090"], &["cpu"]];
    let hardware = (
        prop::sample::select(vec![1, 1, 1, 2, 2, 4, 8, 3]),
        prop::sample::select(allow.to_vec()),
        prop::sample::select(vec![0, 0, 24, 80]),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    );
    let limits = (
        prop::option::weighted(0.2, 0..6_000_000_u64),
        prop::option::weighted(0.2, 10_000..6_000_000_u64),
        prop::option::weighted(0.2, 1..8_000_000_u64),
    );
    (
        hardware,
        limits,
        prop::sample::select(objectives.to_vec()),
        -11..=11_i8,
    )
        .prop_map(
            |(
                (gpu_count, allow, memory, label, replay),
                (price, cost, runtime_ms),
                objective,
                priority,
            )| Wish {
                gpu_count,
                allow: if replay { Vec::new() } else { allow.to_vec() },
                memory,
                label,
                objective,
                price,
                cost,
                runtime_ms,
                priority,
                replay,
            },
        )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Succeeded,
        Outcome::Cancelled,
        Outcome::Failed(FailureReason::TrainerError),
        Outcome::Failed(FailureReason::OutOfMemory),
        Outcome::Failed(FailureReason::WorkerRestarted),
        Outcome::Failed(FailureReason::Preempted),
    ])
}

impl History {
    pub(crate) fn new() -> Self {
        let minutes = [
            ("h100", 20),
            ("a100-80", 35),
            ("rtx4090", 60),
            ("rtx4090x2", 35),
        ];
        let table =
            minutes.map(|(hardware, minutes)| (hardware.parse().expect("a hardware"), minutes));
        Self {
            state: State::new(),
            log: Vec::new(),
            now_ms: 1_000,
            forecast: Table(table.into()),
            submitted: 0,
        }
    }

    /// The history of these steps.
    pub(crate) fn of(steps: &[Step]) -> Self {
        let mut history = Self::new();
        for step in steps {
            history.step(step);
        }
        history
    }

    /// Takes one step; `None` if there is nothing it could be about.
    pub(crate) fn step(&mut self, step: &Step) -> Option<Applied> {
        let request = match step {
            Step::Submit { request, .. } => request.map(|number| RequestId([number; 16])),
            _ => None,
        };
        let command = self.command(step)?;
        Some(self.propose(command, request))
    }

    pub(crate) fn propose(&mut self, command: Command, request: Option<RequestId>) -> Applied {
        let index = self.log.last().map_or(0, |(index, _)| *index) + 1;
        let envelope = Envelope::new(self.now_ms, request, command);
        let applied = self.state.apply(index, &envelope);
        self.log.push((index, envelope));
        applied
    }

    /// The state that the log gives when every entry is written and read again.
    pub(crate) fn replayed(&self) -> State {
        let mut state = State::new();
        for (index, envelope) in &self.log {
            let read = codec::decode(&codec::encode(envelope)).expect("what is written is read");
            assert_eq!(&read, envelope);
            state.apply(*index, &read);
        }
        state
    }

    fn command(&mut self, step: &Step) -> Option<Command> {
        Some(match step {
            Step::Wait(ms) => {
                self.now_ms += ms;
                return None;
            }
            Step::Token(name) => Command::CreateWorkerToken {
                name: label(*name),
                hash: TokenHash([*name; 32]),
            },
            Step::Register {
                token,
                instance,
                offer,
            } => Command::RegisterWorker {
                token_hash: TokenHash([*token; 32]),
                instance: InstanceId([*instance; 16]),
                inventory: inventory(offer),
            },
            Step::Submit { wish, .. } => {
                self.submitted += 1;
                Command::SubmitJob {
                    spec: Box::new(spec(wish, self.submitted)),
                }
            }
            Step::Cancel(job) => Command::CancelJob {
                job: self.job(*job)?.id,
            },
            Step::Plan => {
                let placements = placement::plan(&self.state, &self.forecast, self.now_ms, 256);
                Command::Place { placements }
            }
            Step::Force { job, worker, gpus } => {
                let waiting = self.state.pending_count().max(1);
                let job = self.state.pending().nth(usize::from(*job) % waiting)?;
                let (attempt, note) = (job.next_attempt(), PlacementNote::default());
                let placement = Placement {
                    job: job.id,
                    attempt,
                    worker: self.worker(*worker)?,
                    gpus: gpus.clone(),
                    note,
                };
                Command::Place {
                    placements: vec![placement],
                }
            }
            Step::Start(job) => {
                let (job, epoch) = self.held(*job)?;
                Command::StartAttempt { job, epoch }
            }
            Step::Checkpoint { job, step } => {
                let (job, epoch) = self.held(*job)?;
                Command::Checkpoint {
                    job,
                    epoch,
                    step: *step,
                }
            }
            Step::End {
                job,
                outcome,
                detail,
            } => {
                let (job, epoch) = self.held(*job)?;
                Command::EndAttempt {
                    job,
                    epoch,
                    outcome: *outcome,
                    step: 7,
                    detail: "é".repeat(*detail),
                }
            }
            Step::Late { job, attempt } => {
                let job = self.job(*job)?;
                let over: Vec<_> = job
                    .attempts
                    .iter()
                    .filter(|attempt| !attempt.is_live())
                    .collect();
                let attempt = over.get(usize::from(*attempt) % over.len().max(1))?;
                let (job, epoch, outcome) = (job.id, attempt.epoch, Outcome::Succeeded);
                Command::EndAttempt {
                    job,
                    epoch,
                    outcome,
                    step: 9,
                    detail: String::new(),
                }
            }
            Step::Expire(job) => Command::ExpireLeases {
                expired: vec![self.held(*job)?],
            },
            Step::Drain { worker, stop } => Command::DrainWorker {
                worker: self.worker(*worker)?,
                stop_running: *stop,
            },
            Step::Resume(worker) => Command::ResumeWorker {
                worker: self.worker(*worker)?,
            },
            Step::Lose(worker) => {
                let worker = self.worker(*worker)?;
                Command::LoseWorker {
                    worker,
                    instance: self.state.worker(worker)?.instance,
                }
            }
            Step::Revoke(token) => Command::RevokeWorkerToken {
                token: self.token(*token)?,
            },
            Step::Sweep => Command::Sweep,
            Step::Raise => Command::Barrier {
                version: codec::VERSION,
            },
        })
    }

    fn job(&self, number: u8) -> Option<Cow<'_, Job>> {
        let count = self.state.jobs().count().max(1);
        self.state.jobs().nth(usize::from(number) % count)
    }

    /// A job with a lease, and its epoch.
    fn held(&self, number: u8) -> Option<(JobId, Epoch)> {
        let count = self.state.leases().count().max(1);
        let lease = self.state.leases().nth(usize::from(number) % count)?;
        Some((lease.job, lease.epoch))
    }

    fn worker(&self, number: u8) -> Option<WorkerId> {
        let count = self.state.workers().count().max(1);
        self.state
            .workers()
            .nth(usize::from(number) % count)
            .map(|worker| worker.id)
    }

    fn token(&self, number: u8) -> Option<TokenId> {
        let count = self.state.tokens().count().max(1);
        self.state
            .tokens()
            .nth(usize::from(number) % count)
            .map(|token| token.id)
    }
}

fn spec(wish: &Wish, number: u64) -> JobSpec {
    let mut staging = [0; 16];
    staging[..8].copy_from_slice(&number.to_le_bytes());
    let mut spec = JobSpec::new(workload(), StagingId(staging));
    spec.gpu_count = wish.gpu_count;
    spec.allow = wish.allow.iter().map(|gpu| model(gpu)).collect();
    spec.min_memory_gib = wish.memory;
    spec.labels = labels(wish.label);
    spec.objective = wish.objective;
    spec.max_price_per_hour = wish.price.map(UsdMicros);
    spec.max_cost = wish.cost.map(UsdMicros);
    spec.max_runtime_ms = wish.runtime_ms;
    spec.priority = wish.priority;
    spec.trainer = if wish.replay {
        TrainerKind::Replay
    } else {
        TrainerKind::SimpleTuner
    };
    spec
}

fn inventory(offer: &Offer) -> Inventory {
    let trainer = if offer.replay {
        TrainerKind::Replay
    } else {
        TrainerKind::SimpleTuner
    };
    Inventory {
        gpus: offer.gpus.iter().map(|gpu| model(gpu)).collect(),
        trainers: [trainer].into(),
        labels: labels(offer.label),
        price_per_gpu_hour: offer.price.map(UsdMicros),
    }
}

fn labels(carried: bool) -> BTreeMap<Label, Label> {
    let zone = || {
        (
            "zone".parse().expect("a label"),
            "eu".parse().expect("a label"),
        )
    };
    carried.then(zone).into_iter().collect()
}

fn model(name: &str) -> GpuModel {
    name.parse().expect("a GPU model")
}

fn label(number: u8) -> Label {
    format!("host-{number}").parse().expect("a label")
}
