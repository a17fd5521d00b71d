//! People who call the cluster all the time and write down what they saw: they submit, look, list, cancel, and drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stepcast_proto::v1;
use stepcast_tests::drains;
use stepcast_tests::jobs::{Call, Stand};
use stepcast_tests::lists::List;
use stepcast_tests::random::Random;
use tokio::task::JoinSet;

use crate::caller::{Server, Servers, Trouble};
use crate::history::{History, key, stand};
use crate::work;

/// Jobs that are not over at one time: the pretend devices stay busy though many wait for a retry.
const UNFINISHED: usize = 40;

/// Callers at once besides the one who drains and the one who lists.
const CALLERS: usize = 8;

/// Between two calls of one caller: the machine that runs the test runs the cluster too.
const BREATH: Duration = Duration::from_millis(15);

/// A call that is asked again and again is given up after this long, with an unknown outcome.
const GIVE_UP: Duration = Duration::from_secs(20);

/// After the last fault, what waits for a long retry is cancelled after this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything must be over this long after the last fault: leases end, retries start, or are cancelled.
const END: Duration = Duration::from_secs(180);

/// The label of workers that take jobs; the worker that is drained and resumed has none.
pub(crate) const POOL: (&str, &str) = ("pool", "cluster");

/// The number of the first job that any worker may run; those of fewer are for the pool.
const APART: u64 = 1 << 32;

/// The name of the worker that is drained and resumed.
pub(crate) const DRAINED: &str = "drained";

/// Those people.
#[derive(Debug)]
pub(crate) struct People {
    servers: Servers,
    history: History,
    next: AtomicU64,
    closing: AtomicBool,
    /// Whether jobs are cancelled and the worker is drained; the figures want neither.
    eventful: bool,
}

impl People {
    pub(crate) fn new(servers: Servers, history: History, eventful: bool) -> Arc<Self> {
        Arc::new(Self {
            servers,
            history,
            next: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            eventful,
        })
    }

    /// Starts them all.
    pub(crate) fn begin(self: &Arc<Self>, random: &mut Random) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            tasks.spawn(Arc::clone(self).call(random.fork()));
        }
        tasks.spawn(Arc::clone(self).list(random.fork()));
        if self.eventful {
            tasks.spawn(Arc::clone(self).drain(random.fork()));
        }
        tasks
    }

    /// Lets them finish what they are at.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn closed(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    async fn call(self: Arc<Self>, mut random: Random) {
        while !self.closed() {
            let known = self.known();
            let unfinished = known.iter().filter(|(_, over)| !over).count();
            match random.within(0..10) {
                0..4 if unfinished < UNFINISHED => self.submit_new(&mut random).await,
                4 if self.eventful && !known.is_empty() && random.one_in(2) => {
                    let (name, _) = random.pick(&known).clone();
                    self.cancel(&name, &mut random).await;
                }
                5 if !known.is_empty() => self.ask_again(&mut random).await,
                _ if !known.is_empty() => {
                    let (name, _) = random.pick(&known).clone();
                    self.get(&name, &mut random).await;
                }
                _ => {}
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Acknowledged jobs, the newest last, each with its key and whether it was seen to be over. Old ones are looked at
    /// less often.
    fn known(&self) -> Vec<((String, String), bool)> {
        let seen = self.history.seen();
        let newest = seen.wishes.iter().rev().take(2 * UNFINISHED);
        let known = newest.filter_map(|(key, submission)| {
            let (_, name) = submission.acknowledged.clone()?;
            let over = seen.jobs[key]
                .iter()
                .any(|timed| matches!(timed.call, Call::Get { stand, .. } if stand.is_over()));
            Some(((key.clone(), name), over))
        });
        known.collect()
    }

    async fn submit_new(&self, random: &mut Random) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let key = format!("job{number:06}");
        let request_id = random.request_id();
        self.history.submits(&key, &request_id, number);
        self.submit(&key, &request_id, number, random).await;
    }

    /// Submits a job that a worker outside of the pool may run as well, whatever else waits; its key, once it is
    /// acknowledged.
    pub(crate) async fn submit_apart(&self, random: &mut Random) -> Option<String> {
        let number = APART + self.next.fetch_add(1, Ordering::Relaxed);
        let key = format!("apart{number:012}");
        let request_id = random.request_id();
        self.history.submits(&key, &request_id, number);
        self.submit(&key, &request_id, number, random)
            .await
            .then_some(key)
    }

    /// A submission that was acknowledged is sent again: the answer must be the same job.
    async fn ask_again(&self, random: &mut Random) {
        let wishes = {
            let seen = self.history.seen();
            let newest = seen.wishes.iter().rev().take(UNFINISHED);
            let acknowledged = newest.filter(|(_, wish)| wish.acknowledged.is_some());
            acknowledged
                .map(|(key, wish)| (key.clone(), wish.request_id.clone(), wish.number))
                .collect::<Vec<_>>()
        };
        if !wishes.is_empty() {
            let (key, request_id, number) = random.pick(&wishes).clone();
            self.submit(&key, &request_id, number, random).await;
        }
    }

    /// Asks until there is an answer; without one, the outcome stays unknown.
    async fn submit(&self, key: &str, request_id: &str, number: u64, random: &mut Random) -> bool {
        let pool = (number < APART).then(|| (POOL.0.to_owned(), POOL.1.to_owned()));
        let request = v1::SubmitJobRequest {
            request_id: request_id.to_owned(),
            validate_only: false,
            files: work::files(number),
            sample_counts: vec![v1::SampleCount {
                dataset: String::new(),
                samples: 20,
            }],
            wishes: Some(v1::JobWishes {
                display_name: key.to_owned(),
                allow: vec!["replay".to_owned()],
                labels: pool.into_iter().collect(),
                trainer: v1::Trainer::Replay.into(),
                ..v1::JobWishes::default()
            }),
        };
        let (start, begun) = (self.history.now(), Instant::now());
        while begun.elapsed() < GIVE_UP {
            let mut server = self.writer(random);
            let call = server.jobs.submit_job(request.clone());
            match self.servers.ask("submit", call).await {
                Ok(answer) => {
                    let job = answer.job.unwrap_or_default();
                    self.history.submitted(key, start, &job);
                    return true;
                }
                Err(Trouble::NotDone | Trouble::Unknown) => {}
                Err(Trouble::Refused(reason)) => {
                    self.history
                        .wrong(format!("a submission is refused: {reason}"));
                    return false;
                }
            }
        }
        false
    }

    async fn cancel(&self, (key, name): &(String, String), random: &mut Random) {
        let request = v1::CancelJobRequest {
            name: name.clone(),
            request_id: random.request_id(),
        };
        let (start, begun) = (self.history.now(), Instant::now());
        while begun.elapsed() < GIVE_UP {
            let mut server = self.writer(random);
            let call = server.jobs.cancel_job(request.clone());
            let answer = self.servers.ask("cancel", call).await;
            let end = self.history.now();
            match answer {
                Ok(answer) => {
                    self.history.about(key, start, Some(end), Call::Cancel);
                    self.history
                        .saw(start, end, &answer.job.unwrap_or_default());
                    return;
                }
                Err(Trouble::NotDone | Trouble::Unknown) => {}
                Err(Trouble::Refused(reason)) => {
                    let call = match reason.as_str() {
                        "JOB_OVER" => Call::CancelOver,
                        _ => Call::Missing,
                    };
                    return self.history.about(key, start, Some(end), call);
                }
            }
        }
        self.history.about(key, start, None, Call::CancelUnknown);
    }

    async fn get(&self, (key, name): &(String, String), random: &mut Random) {
        let request = v1::GetJobRequest {
            name: name.clone(),
            with_outlook: false,
        };
        let start = self.history.now();
        let mut server = self.servers.any(random.within(0..u64::MAX));
        let answer = self.servers.ask("get", server.jobs.get_job(request)).await;
        let end = self.history.now();
        match answer {
            Ok(answer) => self
                .history
                .saw(start, end, &answer.job.unwrap_or_default()),
            Err(Trouble::NotDone | Trouble::Unknown) => {}
            Err(Trouble::Refused(_)) => self.history.about(key, start, Some(end), Call::Missing),
        }
    }

    async fn list(self: Arc<Self>, mut random: Random) {
        while !self.closed() {
            let server = self.servers.any(random.within(0..u64::MAX));
            let start = self.history.now();
            if let Some((jobs, whole)) = self.page(server, String::new()).await
                && whole.is_empty()
            {
                let names = jobs.iter().map(|job| key(job).to_owned()).collect();
                let end = self.history.now();
                self.history.seen().lists.push(List { start, end, names });
            }
            tokio::time::sleep(4 * BREATH).await;
        }
    }

    /// One page of the list, each job in it written down; and the token of the next one.
    async fn page(&self, mut server: Server, token: String) -> Option<(Vec<v1::Job>, String)> {
        let request = v1::ListJobsRequest {
            page_size: 1_000,
            page_token: token,
            states: Vec::new(),
            with_outlook: false,
        };
        let start = self.history.now();
        let answer = self
            .servers
            .ask("list", server.jobs.list_jobs(request))
            .await
            .ok()?;
        let end = self.history.now();
        for job in &answer.jobs {
            self.history.saw(start, end, job);
        }
        Some((answer.jobs, answer.next_page_token))
    }

    /// Drains and resumes one worker, and looks at it. What happened to a try without an answer stays unknown.
    async fn drain(self: Arc<Self>, mut random: Random) {
        let mut drained = false;
        while !self.closed() {
            let start = self.history.now();
            if random.one_in(3) {
                drained = !drained;
                self.set_drained(drained, &mut random).await;
            } else {
                let mut server = self.servers.any(random.within(0..u64::MAX));
                let call = server.workers.list_workers(v1::ListWorkersRequest {});
                if let Ok(answer) = self.servers.ask("workers", call).await {
                    let end = Some(self.history.now());
                    let worker = answer
                        .workers
                        .iter()
                        .find(|one| one.display_name == DRAINED);
                    let state = worker.map(v1::Worker::state);
                    // A worker that is lost does not show whether it is drained.
                    if let Some(v1::WorkerState::Ready | v1::WorkerState::Draining) = state {
                        let drained = state == Some(v1::WorkerState::Draining);
                        self.history.drain(start, end, drains::Call::Get(drained));
                    }
                }
            }
            tokio::time::sleep(2 * BREATH).await;
        }
    }

    async fn set_drained(&self, drained: bool, random: &mut Random) {
        let Some(name) = self.drained_worker(random).await else {
            return;
        };
        let start = self.history.now();
        let mut server = self.writer(random);
        let answer = if drained {
            let stop_running = false;
            let request = v1::DrainWorkerRequest { name, stop_running };
            let call = server.workers.drain_worker(request);
            self.servers.ask("drain", call).await.map(drop)
        } else {
            let call = server
                .workers
                .resume_worker(v1::ResumeWorkerRequest { name });
            self.servers.ask("resume", call).await.map(drop)
        };
        let end = match answer {
            Ok(()) => Some(self.history.now()),
            Err(Trouble::Unknown) => None,
            Err(Trouble::NotDone | Trouble::Refused(_)) => return,
        };
        self.history.drain(start, end, drains::Call::Set(drained));
    }

    async fn drained_worker(&self, random: &mut Random) -> Option<String> {
        let mut server = self.servers.any(random.within(0..u64::MAX));
        let call = server.workers.list_workers(v1::ListWorkersRequest {});
        let workers = self.servers.ask("workers", call).await.ok()?.workers;
        let worker = workers.into_iter().find(|one| one.display_name == DRAINED);
        worker.map(|worker| worker.name)
    }

    /// Mostly who is said to lead, and sometimes anybody, who then says who leads.
    fn writer(&self, random: &mut Random) -> Server {
        let any = random.within(0..u64::MAX);
        if random.one_in(8) {
            self.servers.any(any)
        } else {
            self.servers.leader(any)
        }
    }

    /// After the last fault: settles every submission whose outcome is unknown, waits until everything is over, and
    /// gives back all jobs there are.
    pub(crate) async fn await_ends(&self, random: &mut Random) -> Vec<v1::Job> {
        let begun = Instant::now();
        let unknown: Vec<_> = {
            let seen = self.history.seen();
            let unknown = seen
                .wishes
                .iter()
                .filter(|(_, wish)| wish.acknowledged.is_none());
            unknown
                .map(|(key, wish)| (key.clone(), wish.request_id.clone(), wish.number))
                .collect()
        };
        for (key, request_id, number) in unknown {
            // Some stay unknown for good: whoever sent them went away.
            if !random.one_in(4) && !self.submit(&key, &request_id, number, random).await {
                self.history
                    .wrong(format!("{key} gets no answer after the last fault"));
            }
        }
        loop {
            let jobs = self.all(random).await;
            let open: Vec<&v1::Job> = jobs
                .iter()
                .filter(|job| !stand(job.state()).is_some_and(Stand::is_over))
                .collect();
            if open.is_empty() || begun.elapsed() > END {
                return jobs;
            }
            if begun.elapsed() > PATIENCE {
                for job in open {
                    let job = (key(job).to_owned(), job.name.clone());
                    self.cancel(&job, random).await;
                }
            }
            tokio::time::sleep(10 * BREATH).await;
        }
    }

    /// The newest jobs, as somebody says who answers at once.
    pub(crate) async fn newest(&self, random: &mut Random) -> Vec<v1::Job> {
        let server = self.servers.any(random.within(0..u64::MAX));
        let page = self.page(server, String::new()).await;
        page.map(|(jobs, _)| jobs).unwrap_or_default()
    }

    async fn all(&self, random: &mut Random) -> Vec<v1::Job> {
        'again: loop {
            let (mut all, mut token) = (Vec::new(), String::new());
            let server = self.servers.any(random.within(0..u64::MAX));
            loop {
                let Some((jobs, next)) = self.page(server.clone(), token).await else {
                    continue 'again;
                };
                all.extend(jobs);
                if next.is_empty() {
                    return all;
                }
                token = next;
            }
        }
    }
}
