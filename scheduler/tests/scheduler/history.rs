//! Random histories: steps that make sense more often than not, applied one after the other and kept as a log.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::prelude::*;
use stepcast_records::UsdMicros;
use stepcast_scheduler::command::{Preemption, Seat};
use stepcast_scheduler::ids::{Epoch, InstanceId, JobId, TeamId, TokenHash, TokenId, WorkerId};
use stepcast_scheduler::model::{Job, JobSpec, Outcome, Prices, TeamRules, Terms};
use stepcast_scheduler::placement::{self, Placement, PlacementNote};
use stepcast_scheduler::policy::Policy;
use stepcast_scheduler::{Applied, Command, Envelope, RequestId, State, codec};

use crate::drawn::{
    Offer, TEAMS, Wish, book, gpus, inventory, label, labels, offer, outcome, rules, spec, staging,
    team_name, wish,
};
use crate::support::Table;

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
    Team {
        team: u8,
        rules: TeamRules,
    },
    RemoveTeam(u8),
    Approve(u8),
    Update {
        job: u8,
        wish: Wish,
    },
    Array {
        wish: Wish,
        tasks: u8,
        parallel: u8,
    },
    CancelArray(u8),
    Prices(Prices),
    Preempt {
        job: u8,
        for_job: Option<u8>,
    },
    Policy(u8),
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
    let workers = (offer(), offer(), any::<bool>()).prop_map(|(first, second, alike)| {
        let second = if alike { first.clone() } else { second };
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
    // Most logs are of the newest format from early on, and some of an older one for long.
    let raised =
        prop::bool::weighted(0.7).prop_map(|raised| vec![Step::Raise; usize::from(raised)]);
    let workers = (workers, raised).prop_map(|(workers, raised)| [raised, workers].concat());
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
        2 => book().prop_map(Step::Prices),
        3 => (0..TEAMS.len() as u8, rules()).prop_map(|(team, rules)| Step::Team { team, rules }),
        1 => (0..TEAMS.len() as u8).prop_map(Step::RemoveTeam),
        1 => number().prop_map(Step::Approve),
        2 => (number(), wish()).prop_map(|(job, wish)| Step::Update { job, wish }),
        1 => (wish(), 0..5_u8, 0..4_u8).prop_map(|(wish, tasks, parallel)| Step::Array { wish, tasks, parallel }),
        1 => number().prop_map(Step::CancelArray),
        1 => (0..30_u8).prop_map(Step::Policy),
        3 => (number(), prop::option::of(number())).prop_map(|(job, for_job)| Step::Preempt { job, for_job }),
    ]
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
                inventory: inventory(offer, self.state.format()),
            },
            Step::Submit { wish, .. } => {
                self.submitted += 1;
                Command::SubmitJob {
                    spec: Box::new(self.spec(wish, self.submitted)),
                }
            }
            Step::Team { team, rules } => Command::SetTeam {
                name: team_name(*team),
                rules: *rules,
            },
            Step::RemoveTeam(team) => Command::RemoveTeam {
                name: team_name(*team),
            },
            Step::Approve(job) => Command::ApproveJob {
                job: self.waiting(*job)?,
                // One of two was looked at when it came.
                seq: job.is_multiple_of(2).then_some(1),
            },
            Step::Update { job, wish } => {
                let job = self.waiting(*job)?;
                Command::UpdateJob {
                    job,
                    spec: Box::new(self.spec(wish, 0)),
                    seq: None,
                }
            }
            Step::Array {
                wish,
                tasks,
                parallel,
            } => {
                let first = self.submitted + 1;
                self.submitted += u64::from(*tasks);
                Command::SubmitArray {
                    spec: Box::new(self.spec(wish, 0)),
                    tasks: (first..=self.submitted).map(staging).collect(),
                    parallel: (*parallel).into(),
                }
            }
            Step::CancelArray(job) => {
                let job = self.job(*job)?;
                let array = job.spec.terms.array.map_or(job.id, |part| part.array);
                Command::CancelArray { array }
            }
            Step::Policy(number) => Command::SetPolicy {
                policy: Policy {
                    preemptions_max: *number,
                    min_run_ms: u64::from(*number) * 60_000,
                    ..Policy::default()
                },
            },
            Step::Preempt { job, for_job } => {
                let (job, epoch) = self.held(*job)?;
                let for_job = for_job.and_then(|number| self.waiting(number));
                Command::Preempt {
                    preemptions: vec![Preemption {
                        job,
                        epoch,
                        for_job,
                    }],
                }
            }
            Step::Cancel(job) => Command::CancelJob {
                job: self.job(*job)?.id,
            },
            Step::Plan => {
                let placements =
                    placement::plan(&self.state, &self.forecast, self.now_ms, 256).placements;
                Command::Place { placements }
            }
            Step::Force { job, worker, gpus } => {
                let job = self.state.open_job(self.waiting(*job)?)?;
                let (attempt, note) = (job.next_attempt(), PlacementNote::default());
                // As many hosts as it asks for, where there are as many: the same one again where there are not.
                let seat = |number: u8| {
                    let worker = self.worker(worker.wrapping_add(number))?;
                    let gpus = gpus.clone();
                    Some(Seat { worker, gpus })
                };
                let placement = Placement {
                    job: job.id,
                    attempt,
                    worker: self.worker(*worker)?,
                    gpus: gpus.clone(),
                    note,
                    others: (1..job.spec.hosts()).filter_map(seat).collect(),
                };
                Command::Place {
                    placements: vec![placement],
                }
            }
            Step::Start(number) => {
                let (job, epoch) = self.held(*number)?;
                match self.part(*number, epoch) {
                    Some(worker) => Command::StartPart { job, epoch, worker },
                    None => Command::StartAttempt { job, epoch },
                }
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
                let (step, detail) = (7, "é".repeat(*detail));
                let (number, outcome) = (*job, *outcome);
                let (job, epoch) = self.held(number)?;
                match self.part(number, epoch) {
                    Some(worker) => Command::EndPart {
                        job,
                        epoch,
                        worker,
                        outcome,
                        step,
                        detail,
                    },
                    None => Command::EndAttempt {
                        job,
                        epoch,
                        outcome,
                        step,
                        detail,
                    },
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
            Step::Expire(number) => {
                let (job, epoch) = self.held(*number)?;
                match self.part(*number, epoch) {
                    Some(worker) => Command::ExpireParts {
                        expired: vec![(job, epoch, worker)],
                    },
                    None => Command::ExpireLeases {
                        expired: vec![(job, epoch)],
                    },
                }
            }
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
            Step::Prices(prices) => Command::SetPrices {
                prices: prices.clone(),
            },
            Step::Raise => Command::Barrier {
                version: codec::VERSION,
            },
        })
    }

    fn job(&self, number: u8) -> Option<Cow<'_, Job>> {
        let count = self.state.jobs().count().max(1);
        self.state.jobs().nth(usize::from(number) % count)
    }

    /// A job that waits.
    fn waiting(&self, number: u8) -> Option<JobId> {
        let count = self.state.pending_count().max(1);
        let job = self.state.pending().nth(usize::from(number) % count)?;
        Some(job.id)
    }

    fn spec(&self, wish: &Wish, number: u64) -> JobSpec {
        let mut spec = spec(wish, number);
        let Some(wish) = &wish.terms else {
            return spec;
        };
        let team = self.state.team_named(&team_name(wish.team));
        spec.terms = Terms {
            team: team.map_or(TeamId::DEFAULT, |team| team.id),
            not_before_ms: wish.wait_ms.map(|ms| self.now_ms + ms),
            finish_by_ms: wish.finish_ms.map(|ms| self.now_ms + ms),
            avoid: labels(wish.avoid),
            spread: wish.spread.map(label),
            min_run_ms: wish.min_run_ms,
            preemptions_max: wish.preemptions_max,
            expected_cost: wish.expected.map(UsdMicros),
            more_hosts: wish.more_hosts,
            ..Terms::default()
        };
        spec
    }

    /// A job with a lease, and its epoch.
    fn held(&self, number: u8) -> Option<(JobId, Epoch)> {
        let count = self.state.leases().count().max(1);
        let lease = self.state.leases().nth(usize::from(number) % count)?;
        Some((lease.job, lease.epoch))
    }

    /// The worker of a part of what runs on several hosts.
    fn part(&self, number: u8, epoch: Epoch) -> Option<WorkerId> {
        let (_, attempt) = self.state.live_attempt(epoch)?;
        let hosts = attempt.hosts();
        // Once in a while somebody speaks of all of it, which nobody may.
        let speaks_of_one = hosts > 1 && number != 0;
        let rank = usize::from(number) / 3 % hosts;
        let part = attempt.parts().nth(rank).filter(|_| speaks_of_one)?;
        Some(part.worker)
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
