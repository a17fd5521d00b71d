//! Every bound of the state, with its reason. A bound is part of the log's meaning: changing one needs a new format version.

/// The bounds that have changed from one format of the log to another. What stands in the log was decided by those of
/// its format, so the old ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Jobs that are not over. A plan must stay quick, and a queue that nobody will see the end of helps nobody.
    pub unfinished_jobs: usize,
    /// Those of one person: a twelfth of all, so that nobody takes the places of the others. A hundred of the largest sweeps
    /// at once, which no fleet gets through in the month that a job may wait for.
    pub of_one_person: usize,
    /// Jobs altogether. Beyond it the oldest finished ones are forgotten early, so that history never blocks new work.
    pub jobs: usize,
    /// Replies kept for repeated requests of the last day.
    pub requests: usize,
    /// Workers. More than the largest fleet this is made for.
    pub workers: usize,
    /// Tokens of workers: one each, and some spare.
    pub tokens: usize,
}

impl Bounds {
    /// Those of the first format: a few hosts.
    pub const FIRST: Self = Self {
        unfinished_jobs: 50_000,
        of_one_person: usize::MAX,
        jobs: 200_000,
        requests: 500_000,
        workers: 5_000,
        tokens: 10_000,
    };

    /// Those of the second: a finished job takes a few hundred bytes since, and every job may have come with a request.
    pub const SECOND: Self = Self {
        unfinished_jobs: 200_000,
        jobs: 1_500_000,
        requests: 1_500_000,
        ..Self::FIRST
    };

    /// Those of the newest: a look at the queue does not take longer for a longer queue since. A million may wait beside
    /// what the largest fleet runs.
    pub const NEWEST: Self = Self {
        unfinished_jobs: 1_200_000,
        of_one_person: 100_000,
        jobs: 2_000_000,
        requests: 2_000_000,
        workers: 20_000,
        tokens: 40_000,
    };

    /// Those that hold in a log of this format.
    #[must_use]
    pub const fn of(format: u16) -> Self {
        match format {
            0 | 1 => Self::FIRST,
            2 => Self::SECOND,
            _ => Self::NEWEST,
        }
    }
}

/// Teams. Each is looked at when its job is, and an operator can still go through a list of them.
pub const TEAMS_MAX: usize = 5_000;

/// Organisations and people that a team is for: more are an organisation.
pub const TEAM_MEMBERS_MAX: usize = 256;

/// Tasks of one array: what fits into one entry of the log and is still found in a list. A larger sweep is several.
pub const ARRAY_MAX: usize = 1_000;

/// Most taken back in one command.
pub const PREEMPTIONS_PER_COMMAND: usize = 256;

/// Money set aside for an attempt that nobody can tell the cost of: for so long. There is more when it is used up, as far
/// as the budget goes.
pub const RESERVE_UNKNOWN_MS: u64 = HOUR_MS;

/// At least so much time is paid for when more money is set aside for an attempt, unless less is left.
pub const RESERVE_MORE_MS: u64 = 10 * 60_000;

/// Hosts of one job. With eight GPUs on each, 128 GPUs: more than anybody fine-tunes on, and a placement stays small.
pub const HOSTS_MAX: u8 = 16;

/// GPUs of one worker: the largest hosts sold have 16.
pub const GPUS_PER_WORKER_MAX: usize = 16;

/// Credentials of a job: every place in a configuration that may hold one, and some spare.
pub const CREDENTIALS_MAX: usize = 32;

/// Labels of a job or a worker.
pub const LABELS_MAX: usize = 16;

/// GPU models a job may list.
pub const ALLOW_MAX: usize = 64;

/// Events kept of one job; older ones are forgotten, their numbers are not given again.
pub const EVENTS_MAX: usize = 64;

/// Most retries of one job after failures of its own.
pub const RETRIES_MAX: u8 = 10;

/// Retries after losing a worker. Losing one is not the job's fault, but a job that always takes its worker down must end.
pub const LOST_RETRIES_MAX: u8 = 10;

/// Attempts of one job that are kept, and so often it is tried where nobody asks it to stop. Those that were asked are no
/// fault of the job's: the oldest of them makes room for another.
pub const ATTEMPTS_MAX: usize = 32;

/// Smallest and greatest priority of a job.
pub const PRIORITIES: std::ops::RangeInclusive<i8> = -10..=10;

/// Bytes kept of what a worker says about the end of an attempt: the tail of a traceback.
pub const DETAIL_BYTES_MAX: usize = 8 << 10;

/// Bytes kept of it once a later attempt of the job has ended.
pub const EARLIER_DETAIL_BYTES_MAX: usize = 512;

/// Bytes kept of such texts in the whole state. Beyond it new ones are cut to [`EARLIER_DETAIL_BYTES_MAX`].
pub const DETAILS_BYTES_MAX: usize = 64 << 20;

/// How long a request id is known.
pub const REQUEST_RETENTION_MS: u64 = 24 * HOUR_MS;

/// How long a job is kept after its end, as the privacy policy promises.
pub const JOB_RETENTION_MS: u64 = 90 * 24 * HOUR_MS;

/// How long a job may wait in all. What has no end would have no retention either.
pub const QUEUE_AGE_MAX_MS: u64 = 30 * 24 * HOUR_MS;

/// How long a lost worker is remembered, unless it drains.
pub const LOST_WORKER_RETENTION_MS: u64 = 30 * 24 * HOUR_MS;

/// The first wait before a retry; every further one is twice as long.
pub const BACKOFF_MS: u64 = 10_000;

/// The longest wait before a retry.
pub const BACKOFF_MAX_MS: u64 = 600_000;

/// How long before a job's money is spent its attempt is asked to stop: until the next sweep, and the grace a trainer
/// has to save a checkpoint.
pub const BUDGET_MARGIN_MS: u64 = 120_000;

/// Things one sweep ends or forgets, so that applying it stays quick. What is left is found by the next.
pub const SWEEP_MAX: usize = 1_000;

/// Leases in one expiry.
pub const EXPIRED_MAX: usize = 10_000;

/// How much longer a job of the next lower priority waits than one that came at the same time. Since it is a time and
/// not a rank, nothing waits for ever behind what comes later.
pub const PRIORITY_STEP_MS: u64 = 6 * HOUR_MS;

const HOUR_MS: u64 = 3_600_000;
