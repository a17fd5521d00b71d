//! What must hold of every state, whatever the log was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use stepcast_records::UsdMicros;

use crate::ids::{TeamId, WorkerId};
use crate::model::limits::{
    ATTEMPTS_MAX, Bounds, DETAIL_BYTES_MAX, EVENTS_MAX, HOSTS_MAX, TEAM_MEMBERS_MAX, TEAMS_MAX,
};
use crate::model::{Attempt, AttemptState, EventKind, Job, JobState, PartOf, PartState};
use crate::state::{Indexes, State};

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What must hold.
    pub invariant: &'static str,
    /// Where it does not.
    pub detail: String,
}

/// Everything that is wrong with a state: nothing, unless there is a mistake in the rules.
#[must_use]
pub fn check(state: &State) -> Vec<Violation> {
    let mut found = Found(check_whole(state));
    for (id, kept) in state.jobs.iter() {
        let job = kept.job();
        found.hold("everything is found by its id", id == job.id, || {
            id.to_string()
        });
        found.all_of_job(state, &job);
    }
    found.hold(
        "indexes say what the jobs say",
        state.indexes == Indexes::of(state.jobs()),
        String::new,
    );
    found.0
}

/// What is wrong with one job, as far as it can be said from what is there once and from the job.
pub(crate) fn check_job(state: &State, job: &Job) -> Option<Violation> {
    let mut found = Found(Vec::new());
    found.all_of_job(state, job);
    found.0.into_iter().next()
}

/// What is wrong with a state whose jobs are right, each by itself, and whose indexes were made of them.
pub(crate) fn check_whole(state: &State) -> Vec<Violation> {
    let mut found = Found(Vec::new());
    found.leases(state);
    found.workers(state);
    found.teams(state);
    found.ids(state);
    found.bounds(state);
    found.0
}

struct Found(Vec<Violation>);

impl Found {
    fn hold(&mut self, invariant: &'static str, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Violation {
                invariant,
                detail: detail(),
            });
        }
    }

    fn all_of_job(&mut self, state: &State, job: &Job) {
        self.job(state, job);
        self.attempts(state, job);
        self.events(job);
    }

    fn leases(&mut self, state: &State) {
        let mut used = BTreeSet::new();
        let mut epochs = BTreeSet::new();
        let live = state
            .jobs
            .all_open()
            .filter_map(|job| Some((job, job.live_attempt()?)));
        for (job, attempt) in live {
            self.hold("one epoch, one lease", epochs.insert(attempt.epoch), || {
                attempt.epoch.to_string()
            });
            let mut hosts = BTreeSet::new();
            for part in attempt.parts() {
                self.part(state, job, attempt, part, &mut used);
                hosts.insert(part.worker);
            }
            let count = hosts.len() == usize::from(job.spec.hosts());
            self.hold("as many hosts as asked for", count, || job.id.to_string());
        }
    }

    fn part(
        &mut self,
        state: &State,
        job: &Job,
        attempt: &Attempt,
        part: PartOf<'_>,
        used: &mut BTreeSet<(WorkerId, u8)>,
    ) {
        for gpu in part.gpus {
            let alone = used.insert((part.worker, *gpu));
            self.hold("live leases per GPU at most 1", alone, || {
                format!("{} GPU {gpu}", part.worker)
            });
        }
        let worker = state.workers.get(&part.worker);
        let promised = |gpu: &u8| {
            worker.is_some_and(|worker| {
                worker.inventory.gpus.get(usize::from(*gpu)) == Some(&attempt.gpu)
            })
        };
        let present = part.gpus.iter().all(promised);
        self.hold("GPUs promised are present", present, || {
            format!("{} of {}", part.worker, job.id)
        });
        let count = part.gpus.len() == usize::from(job.spec.gpu_count);
        self.hold("as many GPUs as asked for", count, || job.id.to_string());
    }

    fn workers(&mut self, state: &State) {
        let mut names = BTreeMap::new();
        for (hash, token) in state.tokens.iter() {
            let alone = names.insert(&token.name, token.id).is_none();
            self.hold("one name, one token", alone, || token.name.to_string());
            let bound = token
                .worker
                .is_none_or(|id| state.workers.get(&id).is_some_and(|w| w.token == *hash));
            self.hold("a token's worker came with it", bound, || {
                token.id.to_string()
            });
        }
        for worker in state.workers.values() {
            let leased = state.leases_on(worker.id).next().is_some();
            let token = state
                .tokens
                .get(&worker.token)
                .is_some_and(|token| token.worker == Some(worker.id));
            self.hold(
                "a worker has a token, or a lease to wind up",
                token || leased,
                || worker.id.to_string(),
            );
            let is_same = worker.book == state.prices;
            self.hold("the operator's prices are every worker's", is_same, || {
                worker.id.to_string()
            });
        }
    }

    fn teams(&mut self, state: &State) {
        self.hold(
            "a policy within its bounds",
            state.policy.is_sound(),
            String::new,
        );
        let mut names = BTreeSet::new();
        let first = state.teams.contains_key(&TeamId::DEFAULT);
        self.hold(
            "from format 3 on there is a team",
            first == (state.format >= 3),
            String::new,
        );
        for team in state.teams.values() {
            let (id, name) = (team.id, || team.name.to_string());
            self.hold("one name, one team", names.insert(&team.name), name);
            let parent = team
                .parent
                .and_then(|id| state.team(id))
                .map(|team| team.name.clone());
            self.hold(
                "a team is a part of the one it is named after",
                parent == team.name.parent(),
                name,
            );
            self.hold("ids come from the counter", id.0 <= state.last_team, name);
            self.hold("a team within its bounds", team.rules.check().is_ok(), name);
            let members = team.only.len();
            self.hold("so many members", members <= TEAM_MEMBERS_MAX, name);
            let promised = team
                .spent(state.now_ms)
                .0
                .saturating_add(state.reserved(id).0);
            let kept = team.rules.budget.is_none() || promised <= team.account.ceiling.0;
            self.hold("no budget is overshot", kept, || {
                format!("{} has {promised}", team.name)
            });
            let gpus = state.gpus_in_use(id);
            let kept = team.rules.gpu_quota.is_none() || gpus <= team.account.gpu_ceiling;
            self.hold("no quota is overshot", kept, || {
                format!("{} uses {gpus}", team.name)
            });
        }
        for (array, tasks) in &state.indexes.arrays {
            let part = state.job(*array).and_then(|job| job.spec.terms.array);
            let kept = part.is_none_or(|part| tasks.live <= part.parallel);
            self.hold("an array runs so many at a time", kept, || {
                array.to_string()
            });
        }
        let teamed = state
            .jobs
            .all_open()
            .all(|job| state.team_of(job).is_some() || state.format < 3);
        self.hold("a job that is not over has a team", teamed, String::new);
        let keyed = state
            .leases()
            .filter_map(|lease| state.open_job(lease.job))
            .filter(|job| job.spec.terms.spread.is_some());
        let hosts = |job: &Job| job.live_attempt().map_or(0, Attempt::hosts);
        let keyed: usize = keyed.map(hosts).sum();
        self.hold(
            "jobs with one key run on different workers",
            keyed == state.indexes.keys.len(),
            String::new,
        );
    }

    fn ids(&mut self, state: &State) {
        let workers = state
            .workers
            .iter()
            .all(|(id, worker)| *id == worker.id && id.0 <= state.last_worker);
        let tokens = state
            .tokens
            .values()
            .all(|token| token.id.0 <= state.last_token);
        self.hold(
            "everything is found by its id",
            workers && tokens,
            String::new,
        );
        let unfinished = state.jobs.all_open().count();
        self.hold(
            "one job, its own files",
            unfinished == state.unfinished_count(),
            || unfinished.to_string(),
        );
    }

    fn job(&mut self, state: &State, job: &Job) {
        let running = matches!(job.state, JobState::Running | JobState::Cancelling);
        self.hold(
            "a job runs if an attempt holds a lease",
            running == job.live_attempt().is_some(),
            || job.id.to_string(),
        );
        self.hold(
            "what is over has an end",
            job.state.is_terminal() == job.ended_ms.is_some(),
            || job.id.to_string(),
        );
        let times = job.submitted_ms <= job.queued_ms && job.queued_ms <= state.now_ms;
        let ended = job
            .ended_ms
            .is_none_or(|ended| job.queued_ms <= ended && ended <= state.now_ms);
        self.hold("time does not go back", times && ended, || {
            job.id.to_string()
        });
        self.hold("a job within its bounds", job.spec.check().is_ok(), || {
            job.id.to_string()
        });
        self.hold(
            "ids come from the counter",
            job.id.0 <= state.last_job,
            || job.id.to_string(),
        );
        let price = job.spec.max_price_per_hour;
        // A cap that is lowered while the job waits says nothing about what has ended.
        let dear = job.live_attempt().is_some_and(|attempt| {
            price.is_some_and(|max| attempt.price_per_hour.is_none_or(|p| p > max))
        });
        self.hold("the price cap is kept", !dear, || job.id.to_string());
        // What costs nothing never uses it up.
        let is_free = |a: &Attempt| a.price_per_hour == Some(UsdMicros(0));
        let watched = job
            .live_attempt()
            .is_none_or(|a| a.deadline.is_some() || job.spec.max_cost.is_none() || is_free(a));
        self.hold("what has a budget has a deadline", watched, || {
            job.id.to_string()
        });
        let reserved = job.standing.reserved.0;
        let kept = running || (reserved == 0 && job.standing.yields_to.is_none());
        self.hold("money is set aside for what runs alone", kept, || {
            job.id.to_string()
        });
        let awaits = job.standing.awaits_credentials;
        let kept =
            !awaits || (job.state == JobState::Pending && !job.spec.terms.credentials.is_empty());
        self.hold("only what waits awaits credentials", kept, || {
            job.id.to_string()
        });
        let promised = job.standing.freed.is_some();
        self.hold(
            "GPUs are taken back for what waits alone",
            !promised || job.state == JobState::Pending,
            || job.id.to_string(),
        );
        let own = job.spec.max_cost.is_none_or(|max| reserved <= max.0);
        self.hold("no more is set aside than a job may cost", own, || {
            job.id.to_string()
        });
    }

    fn attempts(&mut self, state: &State, job: &Job) {
        let attempts = &job.attempts;
        let grow = attempts
            .windows(2)
            .all(|pair| pair[0].number < pair[1].number && pair[0].epoch < pair[1].epoch);
        self.hold("attempt numbers and epochs only grow", grow, || {
            job.id.to_string()
        });
        let over = attempts
            .iter()
            .rev()
            .skip(1)
            .all(|attempt| !attempt.is_live());
        self.hold("one unexpired lease per job", over, || job.id.to_string());
        let past = attempts
            .iter()
            .all(|attempt| attempt.epoch.index() <= state.applied_index);
        self.hold("an epoch is a place in the log", past, || {
            job.id.to_string()
        });
        let ended = attempts
            .iter()
            .all(|attempt| attempt.is_live() == attempt.ended_ms.is_none());
        self.hold("what is over has an end", ended, || job.id.to_string());
        let short = attempts.len() <= ATTEMPTS_MAX
            && attempts.iter().all(|a| a.detail.len() <= DETAIL_BYTES_MAX);
        self.hold("attempts are bounded", short, || job.id.to_string());
        let mut parts = attempts.iter().flat_map(Attempt::parts);
        let gpus = parts.all(|part| part.gpus.is_sorted_by(|a, b| a < b));
        self.hold("a GPU counts once", gpus, || job.id.to_string());
        let whole = attempts.iter().all(is_whole);
        self.hold("a gang ends as a whole", whole, || job.id.to_string());
        let retries = job.retries <= job.spec.retry_limit;
        self.hold("no more retries than allowed", retries, || {
            job.id.to_string()
        });
    }

    fn events(&mut self, job: &Job) {
        let events = &job.events;
        let gapless = events
            .iter()
            .zip(events.iter().skip(1))
            .all(|(a, b)| a.seq.checked_add(1) == Some(b.seq) && a.stamp_ms <= b.stamp_ms);
        self.hold(
            "events have no gap and no step back",
            gapless && events.len() <= EVENTS_MAX,
            || job.id.to_string(),
        );
        let lasts = events.iter().filter(|event| event.kind.is_last()).count();
        let last = events.back().map(|event| event.kind);
        let told = match job.state {
            JobState::Succeeded => last == Some(EventKind::Succeeded),
            JobState::Failed { reason } => last == Some(EventKind::Failed { reason }),
            JobState::Cancelled => last == Some(EventKind::Cancelled),
            JobState::Pending | JobState::Running | JobState::Cancelling => lasts == 0,
        };
        self.hold("terminal is final", told && lasts <= 1, || {
            job.id.to_string()
        });
    }

    fn bounds(&mut self, state: &State) {
        let bounds = Bounds::of(state.format);
        for (what, count, max) in [
            ("jobs", state.jobs.len(), bounds.jobs),
            (
                "unfinished jobs",
                state.unfinished_count(),
                bounds.unfinished_jobs,
            ),
            ("workers", state.workers.len(), bounds.workers),
            ("tokens", state.tokens.len(), bounds.tokens),
            ("teams", state.teams.len(), TEAMS_MAX),
            ("requests", state.requests.len(), bounds.requests),
        ] {
            self.hold("every table is bounded", count <= max, || {
                format!("{count} {what}")
            });
        }
    }
}

/// Whether an attempt and its parts say the same: it begins with the last of them and ends with the last of them, and what
/// has ended for good decides how.
fn is_whole(attempt: &Attempt) -> bool {
    let Some(gang) = attempt.gang.as_deref() else {
        return true;
    };
    let all = |state| attempt.parts().all(|part| part.state == state);
    let any = |state| attempt.parts().any(|part| part.state == state);
    let fate = match attempt.state {
        AttemptState::Ended(outcome) => all(PartState::Ended) && gang.fate == Some(outcome),
        AttemptState::Running => !all(PartState::Ended) && !any(PartState::Placed),
        AttemptState::Placed => !all(PartState::Ended) && !all(PartState::Running),
    };
    let stopped = attempt.stop.is_some() || gang.fate.is_none() || !attempt.is_live();
    let bounded = (1..usize::from(HOSTS_MAX)).contains(&gang.others.len());
    fate && stopped && bounded
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.invariant, self.detail)
    }
}
