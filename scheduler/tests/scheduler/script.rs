//! The commands of a script: a line each, applied to a state whose invariants are looked at after every one.

use std::collections::BTreeMap;
use std::fmt::Write;

use stepcast_scheduler::command::{Preemption, Seat};
use stepcast_scheduler::ids::{
    AttemptNumber, Epoch, InstanceId, JobId, OutputsId, TeamId, TokenHash, TokenId, WorkerId,
};
use stepcast_scheduler::model::{FailureReason, Inventory, Outcome, Prices, TrainerKind};
use stepcast_scheduler::placement::{self, Placement, PlacementNote};
use stepcast_scheduler::policy::Policy;
use stepcast_scheduler::{Command, Effect, Envelope, Reply, RequestId, State, codec, invariants};

use crate::show;
use crate::support::Table;
use crate::wishes::{labels, rules, spec, staging, trainer, wish};

/// A script's state, its time, and its names for things.
#[derive(Default)]
pub(crate) struct Script {
    state: State,
    index: u64,
    now_ms: u64,
    forecast: Table,
    jobs: BTreeMap<String, JobId>,
    workers: BTreeMap<String, WorkerId>,
    tokens: BTreeMap<String, TokenId>,
}

/// One line: a verb, what it is about, and settings.
pub(crate) struct Line<'a> {
    verb: &'a str,
    pub(crate) about: &'a str,
    pub(crate) rest: Vec<&'a str>,
    pub(crate) settings: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> Self {
        let (settings, plain): (Vec<_>, Vec<_>) =
            text.split_whitespace().partition(|word| word.contains('='));
        let settings = settings
            .into_iter()
            .filter_map(|word| word.split_once('='))
            .collect();
        let mut plain = plain.into_iter();
        let verb = plain.next().unwrap_or_default();
        Self {
            verb,
            about: plain.next().unwrap_or_default(),
            rest: plain.collect(),
            settings,
        }
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.settings
            .get(key)
            .map(|text| text.parse().ok().unwrap_or_else(|| panic!("{key}={text}")))
    }

    pub(crate) fn list(&self, key: &str) -> Vec<&'a str> {
        self.settings
            .get(key)
            .map(|text| text.split(',').collect())
            .unwrap_or_default()
    }
}

impl Script {
    /// Runs a command and says what came of it.
    pub(crate) fn run(&mut self, text: &str) -> String {
        let line = Line::read(text);
        let said = match line.verb {
            "wait" => {
                self.now_ms += show::duration_ms(line.about);
                String::new()
            }
            "forecast" => {
                let hardware = line.about.parse().expect("a hardware");
                self.forecast
                    .0
                    .insert(hardware, line.number("minutes").expect("minutes"));
                String::new()
            }
            "place" => self.place(&line),
            "why" => self.why(&line),
            "show" => show::job(&self.state, self.job(line.about)),
            "queue" => show::queue(&self.state),
            "workers" => show::workers(&self.state),
            "costs" => show::costs(&self.state, self.job(line.about), self.now_ms),
            "teams" => show::teams(&self.state, self.now_ms),
            "due" => self.state.is_sweep_due(self.now_ms).to_string(),
            "snapshot" => self.snapshot(),
            _ => self.apply(&line),
        };
        assert_eq!(invariants::check(&self.state), [], "after {text}");
        self.with_names(said)
    }

    fn apply(&mut self, line: &Line<'_>) -> String {
        let command = self.command(line);
        let request = line
            .number::<u8>("request")
            .map(|number| RequestId([number; 16]));
        let said = self.propose(command, request);
        let (reply, text) = said;
        match reply {
            Some(Reply::JobSubmitted { job }) => _ = self.jobs.insert(line.about.to_owned(), job),
            Some(Reply::ArraySubmitted { array, tasks }) => {
                let named = |task| (format!("{}.{task}", line.about), JobId(array.0 + task));
                self.jobs.extend((0..u64::from(tasks)).map(named));
            }
            Some(Reply::WorkerRegistered { worker }) => {
                _ = self.workers.insert(line.about.to_owned(), worker)
            }
            Some(Reply::TokenCreated { token }) => {
                _ = self.tokens.insert(line.about.to_owned(), token)
            }
            _ => {}
        }
        text
    }

    fn propose(&mut self, command: Command, request: Option<RequestId>) -> (Option<Reply>, String) {
        self.index += 1;
        let envelope = Envelope::new(self.now_ms, request, command);
        let envelope = codec::decode(&codec::encode(&envelope)).expect("what is written is read");
        let applied = self.state.apply(self.index, &envelope);
        let mut text = match &applied.reply {
            Ok(reply) => show::reply(reply),
            Err(rejection) => format!("{}: {rejection}", rejection.code()),
        };
        for effect in applied.effects {
            match effect {
                // Told by `show` and by the state itself.
                Effect::JobChanged { .. } | Effect::WorkerChanged { .. } | Effect::Plan => {}
                effect => _ = write!(text, "\n  {}", show::effect(effect)),
            }
        }
        (applied.reply.ok(), text)
    }

    fn command(&self, line: &Line<'_>) -> Command {
        let job = || self.job(line.about);
        let epoch = || self.epoch(line);
        let step = line.number("step").unwrap_or_default();
        let detail = line.settings.get("detail").copied().unwrap_or_default();
        let part = || line.settings.get("on").map(|name| self.workers[*name]);
        let end = |outcome| match part() {
            None => Command::EndAttempt {
                job: job(),
                epoch: epoch(),
                outcome,
                step,
                detail: detail.to_owned(),
            },
            Some(worker) => Command::EndPart {
                job: job(),
                epoch: epoch(),
                worker,
                outcome,
                step,
                detail: detail.to_owned(),
            },
        };
        match line.verb {
            "token" => Command::CreateWorkerToken {
                name: line.about.parse().expect("a label"),
                hash: hash(line.about),
            },
            "revoke" => Command::RevokeWorkerToken {
                token: self.tokens[line.about],
            },
            "worker" => self.register(line),
            "drain" => {
                let stop_running = line.rest.contains(&"stop");
                Command::DrainWorker {
                    worker: self.workers[line.about],
                    stop_running,
                }
            }
            "resume" => Command::ResumeWorker {
                worker: self.workers[line.about],
            },
            "lose" => Command::LoseWorker {
                worker: self.workers[line.about],
                instance: instance(line),
            },
            "submit" => Command::SubmitJob {
                spec: Box::new(spec(line, |name| self.team(name))),
            },
            "update" => {
                let mut spec = self.state.job(job()).expect("a job").spec.clone();
                wish(&mut spec, line, |name| self.team(name));
                Command::UpdateJob {
                    job: job(),
                    spec: Box::new(spec),
                    seq: line.number("seq"),
                }
            }
            "array" => {
                let count = line.number("tasks").unwrap_or(1);
                let files = |task: u32| staging(&format!("{}.{task}", line.about));
                Command::SubmitArray {
                    spec: Box::new(spec(line, |name| self.team(name))),
                    tasks: (0..count).map(files).collect(),
                    parallel: line.number("parallel").unwrap_or(0),
                }
            }
            "cancel-array" => Command::CancelArray {
                array: self.job(&format!("{}.0", line.about)),
            },
            "team" => Command::SetTeam {
                name: line.about.parse().expect("a team's name"),
                rules: rules(line),
            },
            "remove-team" => Command::RemoveTeam {
                name: line.about.parse().expect("a team's name"),
            },
            "approve" => Command::ApproveJob {
                job: job(),
                seq: line.number("seq"),
            },
            "give" => Command::GiveCredentials { job: job() },
            "miss" => Command::MissCredentials { jobs: vec![job()] },
            "preempt" => Command::Preempt {
                preemptions: vec![Preemption {
                    job: job(),
                    epoch: epoch(),
                    for_job: line.settings.get("for").map(|name| self.job(name)),
                }],
            },
            "cancel" => Command::CancelJob { job: job() },
            "start" => match part() {
                None => Command::StartAttempt {
                    job: job(),
                    epoch: epoch(),
                },
                Some(worker) => Command::StartPart {
                    job: job(),
                    epoch: epoch(),
                    worker,
                },
            },
            "checkpoint" => Command::Checkpoint {
                job: job(),
                epoch: epoch(),
                step,
            },
            "goes-on" => Command::GoOnFrom {
                job: job(),
                epoch: epoch(),
                step,
            },
            "finish" => end(Outcome::Succeeded),
            "stopped" => end(Outcome::Cancelled),
            "fail" => end(Outcome::Failed(reason(
                line.rest.first().copied().unwrap_or_default(),
            ))),
            "expire" => match part() {
                None => Command::ExpireLeases {
                    expired: vec![(job(), epoch())],
                },
                Some(worker) => Command::ExpireParts {
                    expired: vec![(job(), epoch(), worker)],
                },
            },
            "sweep" => Command::Sweep,
            "barrier" => Command::Barrier {
                version: line.about.parse().expect("a format"),
            },
            "prices" => Command::SetPrices {
                prices: prices(line),
            },
            "policy" => Command::SetPolicy {
                policy: Policy {
                    aim: line.about.parse().expect("an aim"),
                    ..Policy::default()
                },
            },
            "force" => Command::Place {
                placements: vec![self.forced(line)],
            },
            other => panic!("no such command: {other}"),
        }
    }

    fn register(&self, line: &Line<'_>) -> Command {
        let gpus = line
            .list("gpus")
            .into_iter()
            .map(|gpu| gpu.parse().expect("a GPU"));
        let trainers = match line.list("trainers").as_slice() {
            [] => [TrainerKind::SimpleTuner].into(),
            names => names.iter().map(|name| trainer(name)).collect(),
        };
        Command::RegisterWorker {
            token_hash: hash(line.settings.get("token").copied().unwrap_or(line.about)),
            instance: instance(line),
            inventory: Inventory {
                gpus: gpus.collect(),
                trainers,
                labels: labels(line, "labels"),
                price_per_gpu_hour: line.number("price"),
                address: line
                    .settings
                    .get("address")
                    .map(|text| text.parse().expect("a label")),
                outputs: line.settings.get("outputs").map(|text| {
                    OutputsId(std::array::from_fn(|at| {
                        *text.as_bytes().get(at).unwrap_or(&0)
                    }))
                }),
            },
        }
    }

    fn forced(&self, line: &Line<'_>) -> Placement {
        let job = self.job(line.about);
        let attempt = self.state.job(job).expect("a job").next_attempt();
        let gpus = line.list("gpus").into_iter();
        let gpus: Vec<u8> = gpus.map(|gpu| gpu.parse().expect("a position")).collect();
        let mut workers = line.list("on").into_iter().map(|name| self.workers[name]);
        Placement {
            job,
            attempt: line.number("attempt").map_or(attempt, AttemptNumber),
            worker: workers.next().expect("a worker"),
            gpus: gpus.clone(),
            note: PlacementNote::default(),
            others: workers
                .map(|worker| Seat {
                    worker,
                    gpus: gpus.clone(),
                })
                .collect(),
        }
    }

    fn place(&mut self, line: &Line<'_>) -> String {
        let max = line.number("max").unwrap_or(256);
        let plan = placement::plan(&self.state, &self.forecast, self.now_ms, max);
        if plan.is_empty() {
            return "nothing".to_owned();
        }
        let (placements, preemptions) = (plan.placements, plan.preemptions);
        let mut planned: Vec<String> = preemptions.iter().map(show::preemption).collect();
        planned.extend(placements.iter().map(show::placement));
        if !preemptions.is_empty() {
            let (reply, _) = self.propose(Command::Preempt { preemptions }, None);
            let Some(Reply::Preempted { outcomes }) = reply else {
                panic!("a plan is refused")
            };
            assert!(
                outcomes.iter().all(Result::is_ok),
                "what is planned is asked"
            );
        }
        if placements.is_empty() {
            return planned.join("\n");
        }
        let (reply, _) = self.propose(Command::Place { placements }, None);
        let Some(Reply::Placed { outcomes }) = reply else {
            panic!("a plan is refused")
        };
        assert!(
            outcomes.iter().all(Result::is_ok),
            "what is planned is placed"
        );
        planned.join("\n")
    }

    fn why(&self, line: &Line<'_>) -> String {
        let job = self.job(line.about);
        let why = placement::explain(&self.state, &self.forecast, job, self.now_ms);
        why.map_or_else(|| "no such job".to_owned(), |why| show::why(&why))
    }

    fn snapshot(&mut self) -> String {
        let bytes = self.state.snapshot();
        let restored = State::restore(&bytes).expect("a snapshot is restored");
        assert_eq!(restored, self.state);
        assert_eq!(restored.snapshot(), bytes);
        self.state = restored;
        "the same".to_owned()
    }

    fn team(&self, name: &str) -> TeamId {
        let known = self.state.team_named(&name.parse().expect("a team's name"));
        known.map_or(TeamId(99), |team| team.id)
    }

    fn job(&self, name: &str) -> JobId {
        *self
            .jobs
            .get(name)
            .unwrap_or_else(|| panic!("no job is called {name}"))
    }

    /// The epoch of a job's attempt: the newest, or that of the try that is named.
    fn epoch(&self, line: &Line<'_>) -> Epoch {
        let job = self.state.job(self.job(line.about));
        let wanted = line.number("attempt").map(AttemptNumber);
        let mut tries = job.iter().flat_map(|job| job.attempts.iter().rev());
        tries
            .find(|attempt| wanted.is_none_or(|wanted| wanted == attempt.number))
            .map_or(Epoch(0), |attempt| attempt.epoch)
    }

    /// Names for ids, longest first so that none is cut.
    fn with_names(&self, text: String) -> String {
        let jobs = self.jobs.iter().map(|(name, id)| (id.to_string(), name));
        let workers = self.workers.iter().map(|(name, id)| (id.to_string(), name));
        let tokens = self.tokens.iter().map(|(name, id)| (id.to_string(), name));
        jobs.chain(workers)
            .chain(tokens)
            .fold(text, |text, (id, name)| text.replace(&id, name))
    }
}

fn reason(code: &str) -> FailureReason {
    let all = [
        FailureReason::ConfigInvalid,
        FailureReason::OutOfMemory,
        FailureReason::TrainerError,
        FailureReason::Stuck,
        FailureReason::WorkerRestarted,
        FailureReason::Preempted,
        FailureReason::LaunchFailed,
        FailureReason::StagingMissing,
        FailureReason::CredentialsGone,
    ];
    all.into_iter()
        .find(|reason| reason.code() == code)
        .unwrap_or_else(|| panic!("no such reason: {code}"))
}

fn hash(name: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.iter_mut()
        .zip(name.bytes())
        .for_each(|(byte, letter)| *byte = letter);
    TokenHash(hash)
}

/// What the operator's book says.
fn prices(line: &Line<'_>) -> Prices {
    let gpus = line.settings.keys();
    let said = gpus.map(|gpu| {
        let price = line.number(gpu).expect("a price");
        (gpu.parse().expect("a GPU"), price)
    });
    said.collect()
}

fn instance(line: &Line<'_>) -> InstanceId {
    InstanceId([line.number("instance").unwrap_or(1); 16])
}
