//! People: they submit, ask again, cancel, read and watch, each on a machine of their own.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use stepcast_cluster::{JobUpdate, ProposeError, Runtime};
use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sampling, Sharing, Workload};
use stepcast_records::{FrameClass, HalfMegapixels, Precision, Quantization, Recipe};
use stepcast_scheduler::ids::{JobId, StagingId};
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::policy::Policy;
use stepcast_scheduler::{Command, Rejection, Reply, RequestId};

use crate::calls::{self, Failure, Request, Response, Told};
use crate::checks::{Check, Checks};
use crate::clock::{HostClock, Process};
use crate::kernel::{Host, Micros, Owner};
use crate::network::{self, Network};
use crate::world::World;

/// How long a person waits for an answer.
const PATIENCE: Duration = Duration::from_secs(6);

/// How often the operator tries to set the policy: the log reaches the format for it in the first seconds.
const POLICY_TRIES: u32 = 40;

/// What people know of each other's jobs.
#[derive(Default)]
pub(crate) struct Town {
    /// Jobs that were acknowledged.
    pub(crate) jobs: Vec<JobId>,
    /// Submissions as they were sent, to be sent again much later by somebody in doubt.
    submissions: Vec<(RequestId, Command)>,
    /// Submissions that somebody is still trying.
    pub(crate) trying: usize,
}

/// One person.
#[derive(Clone)]
struct Person {
    process: Arc<Process>,
    network: Arc<Network>,
    checks: Arc<Checks>,
    town: Arc<Mutex<Town>>,
    nodes: u64,
}

/// Lets the people in: they act until `until`, and then wait for what they have asked for.
pub(crate) fn arrive(world: &mut World, until: Micros) {
    let (submitters, jobs_each) = (world.options.submitters, world.options.jobs_each);
    for number in 0..submitters {
        let person = person(world, number);
        let submits = person.clone().submits(jobs_each, until);
        let owner = person.process.owner;
        world.kernel.spawn(owner, submits.boxed());
    }
    for number in submitters..submitters + 2 {
        let person = person(world, number);
        let owner = person.process.owner;
        world.kernel.spawn(owner, person.reads(until).boxed());
    }
    let person = person(world, submitters + 2);
    let owner = person.process.owner;
    world.kernel.spawn(owner, person.cancels(until).boxed());
}

fn person(world: &World, number: u64) -> Person {
    let process = Process {
        kernel: Arc::clone(&world.kernel),
        clock: HostClock::new(&world.kernel, false),
        owner: Owner {
            host: Host::Person(number),
            life: 1,
        },
    };
    Person {
        process: Arc::new(process),
        network: Arc::clone(&world.network),
        checks: Arc::clone(&world.checks),
        town: Arc::clone(&world.town),
        nodes: world.options.most_nodes(),
    }
}

/// Makes the operator, who gives every host its token before anything else.
pub(crate) fn operator(world: &mut World) {
    let workers: Vec<u64> = world.workers.keys().copied().collect();
    let operator = person(world, 1_000);
    let owner = operator.process.owner;
    world.kernel.spawn(owner, operator.admits(workers).boxed());
}

impl Person {
    fn now(&self) -> Micros {
        self.process.kernel.now()
    }

    fn any_node(&self) -> u64 {
        self.process.kernel.roll(|dice| dice.roll(self.nodes)) + 1
    }

    async fn pause(&self, from: u64, to: u64) {
        let ms = self.process.kernel.roll(|dice| dice.between(from, to));
        self.process.sleep(Duration::from_millis(ms)).await;
    }

    /// Asks until there is an answer that settles it. After `tries`, a person gives up, if given.
    async fn propose(
        &self,
        command: &Command,
        request: RequestId,
        tries: Option<u32>,
    ) -> Option<Result<Reply, ProposeError>> {
        let mut server = self.any_node();
        let mut tried = 0;
        loop {
            let asked = Request::Propose(command.clone(), Some(request));
            let answer = calls::call(&self.process, &self.network, server, asked, PATIENCE).await;
            self.checks.count("commands sent");
            match answer {
                Ok(Response::Proposed(Ok(reply))) => return Some(Ok(reply)),
                Ok(Response::Proposed(Err(error @ ProposeError::Rejected(_)))) => {
                    return Some(Err(error));
                }
                Ok(Response::Proposed(Err(ProposeError::NotLeader {
                    leader: Some(leader),
                }))) => server = leader,
                Ok(Response::Proposed(Err(ProposeError::OutcomeUnknown))) => {
                    self.checks.count("outcomes unknown");
                    server = self.any_node();
                }
                Err(Failure::Unknown) => {
                    self.checks.count("outcomes unknown");
                    server = self.any_node();
                }
                _ => server = self.any_node(),
            }
            tried += 1;
            if tries.is_some_and(|tries| tried >= tries) {
                return None;
            }
            self.pause(20, 600).await;
        }
    }

    async fn admits(self, workers: Vec<u64>) {
        for worker in workers {
            let Ok(name) = format!("host-{worker}").parse() else {
                return;
            };
            let command = Command::CreateWorkerToken {
                name,
                hash: crate::worker::token(worker),
            };
            let request = RequestId(self.process.kernel.roll(crate::dice::Dice::wide));
            self.propose(&command, request, None).await;
        }
        // Runs are short here, and so is the time for which they are left in peace.
        let policy = Policy {
            min_run_ms: 1_500,
            ..Policy::default()
        };
        let command = Command::SetPolicy { policy };
        for _ in 0..POLICY_TRIES {
            let request = RequestId(self.process.kernel.roll(crate::dice::Dice::wide));
            if let Some(Ok(_)) = self.propose(&command, request, Some(8)).await {
                break;
            }
            self.pause(500, 2_000).await;
        }
    }

    async fn submits(self, jobs: u64, until: Micros) {
        self.pause(0, 8_000).await;
        for _ in 0..jobs {
            if self.now() >= until {
                break;
            }
            let doubtful = self.process.kernel.roll(|dice| dice.per_mille(150));
            if doubtful {
                self.asks_again().await;
            }
            let (request, command) = self.submission();
            self.town
                .lock()
                .submissions
                .push((request, command.clone()));
            self.submit(request, &command).await;
            self.pause(50, 6_000).await;
        }
        while self.now() < until {
            self.pause(2_000, 8_000).await;
            self.asks_again().await;
        }
    }

    async fn submit(&self, request: RequestId, command: &Command) {
        self.town.lock().trying += 1;
        let answer = self.propose(command, request, None).await;
        self.town.lock().trying -= 1;
        match answer {
            Some(Ok(Reply::JobSubmitted { job })) => {
                self.checks.count("submissions acknowledged");
                self.checks.note("acknowledged", || {
                    format!("job {job} to {:?}", self.process.owner.host)
                });
                let now = self.now();
                let found = {
                    let mut histories = self.checks.histories.lock();
                    let found = histories.submitted(request, job);
                    histories.kept(now, job);
                    found
                };
                self.checks.judge(found);
                let new = {
                    let mut town = self.town.lock();
                    let new = !town.jobs.contains(&job);
                    if new {
                        town.jobs.push(job);
                    }
                    new
                };
                let watches = self.process.kernel.roll(|dice| dice.per_mille(600));
                if new && watches {
                    let task = self.clone().watches(job);
                    self.process.spawn(task.boxed());
                }
            }
            // Some node did not know gangs yet.
            Some(Err(ProposeError::Rejected(Rejection::NotYet))) => {}
            Some(Err(error)) => self.checks.fail(
                Check::OneRequestOneJob,
                format!("a submission that is good was refused for good: {error:?}"),
            ),
            Some(Ok(_)) | None => {}
        }
    }

    /// Somebody is not sure whether an old submission was taken, and sends it once more.
    async fn asks_again(&self) {
        let old = {
            let town = self.town.lock();
            self.process
                .kernel
                .roll(|dice| dice.pick(&town.submissions).cloned())
        };
        if let Some((request, command)) = old {
            self.checks.count("submissions repeated");
            self.submit(request, &command).await;
        }
    }

    fn submission(&self) -> (RequestId, Command) {
        let (id, steps, (gpus, hosts), limit, priority) = self.process.kernel.roll(|dice| {
            let alone = [(1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (4, 1)];
            let gang = dice.per_mille(150).then(|| (1 + dice.roll(2) as u8, 2));
            let wide = gang.unwrap_or_else(|| *dice.pick(&alone).unwrap_or(&(1, 1)));
            let limit = dice.per_mille(60).then(|| dice.between(1_000, 6_000));
            let long = dice.per_mille(300);
            let steps = if long {
                dice.between(20, 70)
            } else {
                dice.between(1, 16)
            };
            let priority = *dice.pick(&[0, 0, 0, 1, 4]).unwrap_or(&0);
            (dice.wide(), steps, wide, limit, priority)
        });
        let mut spec = JobSpec::new(workload(steps), StagingId(id));
        spec.gpu_count = gpus;
        spec.terms.more_hosts = hosts - 1;
        spec.max_runtime_ms = limit;
        spec.priority = priority;
        let command = Command::SubmitJob {
            spec: Box::new(spec),
        };
        (RequestId(id), command)
    }

    async fn cancels(self, until: Micros) {
        while self.now() < until {
            self.pause(500, 9_000).await;
            let job = {
                let town = self.town.lock();
                self.process
                    .kernel
                    .roll(|dice| dice.pick(&town.jobs).copied())
            };
            let Some(job) = job else { continue };
            let request = RequestId(self.process.kernel.roll(crate::dice::Dice::wide));
            let command = Command::CancelJob { job };
            if let Some(Ok(Reply::JobCancelled { .. })) =
                self.propose(&command, request, Some(8)).await
            {
                self.checks.count("cancellations acknowledged");
                let now = self.now();
                self.checks.histories.lock().cancelled(now, job);
            }
        }
    }

    async fn reads(self, until: Micros) {
        while self.now() < until {
            self.pause(5, 700).await;
            let jobs: Vec<JobId> = {
                let town = self.town.lock();
                self.process.kernel.roll(|dice| {
                    (0..3)
                        .filter_map(|_| dice.pick(&town.jobs).copied())
                        .collect()
                })
            };
            let server = self.any_node();
            let begun = self.now();
            let asked = Request::Read(jobs);
            let answer = calls::call(&self.process, &self.network, server, asked, PATIENCE).await;
            if let Ok(Response::Read(Ok(seen))) = answer {
                self.checks.count("reads");
                let now = self.now();
                let found = self.checks.histories.lock().read(begun, now, &seen);
                self.checks.judge(found);
            }
        }
    }

    /// Watches a job to its end, on one node after another.
    async fn watches(self, job: JobId) {
        let mut newest = 0;
        loop {
            let server = self.any_node();
            let (here, there) = (self.process.owner.host, calls::node(server));
            let (to, mut told) = network::pipe(&self.process.kernel, &self.network, there, here);
            calls::deliver(
                &self.process.kernel,
                &self.network,
                here,
                there,
                move |world| {
                    calls::watch(world, server, job, to);
                },
            );
            self.checks.count("watches opened");
            let mut first = true;
            loop {
                let late = self.process.sleep(Duration::from_secs(20));
                let said = tokio::select! { biased; said = told.next() => said, () = late => None };
                let Some(Told::Update(update)) = said else {
                    break;
                };
                match self.hears(job, *update, &mut first, &mut newest) {
                    Heard::More => {}
                    Heard::Over => return,
                    Heard::Again => break,
                }
            }
            self.pause(50, 2_000).await;
        }
    }

    fn hears(&self, job: JobId, update: JobUpdate, first: &mut bool, newest: &mut u64) -> Heard {
        let wrong = |detail: String| self.checks.fail(Check::WatchesAreWhole, detail);
        match update {
            JobUpdate::Current { seq, job: value } => {
                // A node that is behind shows an older value; the watcher knows better and waits for it to catch up.
                if !std::mem::replace(first, false) {
                    wrong(format!("a watch of job {job} begins twice"));
                }
                if seq < *newest {
                    return Heard::Again;
                }
                *newest = seq;
                if value.state.is_terminal() {
                    self.checks.count("watches to the end");
                    return Heard::Over;
                }
            }
            JobUpdate::Event { seq, event } => {
                if *first {
                    wrong(format!("a watch of job {job} begins without its value"));
                }
                if seq != *newest + 1 || event.seq != seq {
                    wrong(format!(
                        "a watch of job {job} shows event {seq} after event {newest}"
                    ));
                }
                *newest = seq;
                self.checks.count("events watched");
                let known = self.checks.trainers.lock().events(job).to_vec();
                if !known.contains(&event) {
                    wrong(format!(
                        "a watch of job {job} shows what never happened: {event:?}"
                    ));
                }
                if event.kind.is_last() {
                    self.checks.count("watches to the end");
                    return Heard::Over;
                }
            }
            JobUpdate::Progress { .. } | JobUpdate::Log { .. } => {}
            JobUpdate::Behind { .. } => return Heard::Again,
        }
        Heard::More
    }
}

enum Heard {
    More,
    Over,
    Again,
}

/// A small training.
fn workload(steps: u64) -> Workload {
    let dataset = Dataset {
        resolution: HalfMegapixels::new(2)
            .unwrap_or_else(|| unreachable!("one megapixel is a bucket")),
        frames: FrameClass::Single,
        batch_size: 4,
        samples: Some(40),
        repeats: 0,
        padded: false,
    };
    Workload {
        recipe: Recipe::parse("flux.dev/lora")
            .unwrap_or_else(|| unreachable!("a recipe of the registry")),
        precision: Precision::Bf16,
        quantization: Quantization::None,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![dataset],
        length: Length::Steps(steps),
        checkpoint_every: None,
        validation: None,
        off_record: Vec::new(),
        // Written by some and not by others, as in real logs.
        preparation: Preparation {
            encoded_at_once: steps.is_multiple_of(3).then_some(1),
            ..Preparation::default()
        },
        sharing: Sharing {
            sampling: match steps.is_multiple_of(5) {
                true => Sampling::Uniform,
                false => Sampling::ByBatches,
            },
            ..Sharing::default()
        },
    }
}
