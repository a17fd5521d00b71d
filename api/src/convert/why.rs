//! Why a job does not run.

use stepcast_proto::v1;
use stepcast_scheduler::State;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::JobState;
use stepcast_scheduler::outlook::{Expected, Outlook};
use stepcast_scheduler::placement::{Line, Tier, Why};

use super::quantity::timestamp_ms;

/// An explanation.
pub(crate) fn why(why: Why) -> v1::ExplainJobResponse {
    v1::ExplainJobResponse {
        tier: why.tier.map_or(v1::WhyTier::Unspecified, tier).into(),
        headline: why.headline,
        lines: why.lines.into_iter().map(line).collect(),
        jobs_ahead: u32::try_from(why.jobs_ahead).unwrap_or(u32::MAX),
        hints: why.hints,
        sooner: Vec::new(),
        outlook: None,
    }
}

/// What jobs are called that the reader of an explanation may not see.
const HIDDEN: &str = "a job of others";

/// Names no job that its reader may not see: to them there is none of that name.
pub(crate) fn hide_jobs(told: &mut v1::ExplainJobResponse, is_hidden: impl Fn(JobId) -> bool) {
    let details = told.lines.iter_mut().map(|line| &mut line.detail);
    for text in details.chain(&mut told.hints).chain([&mut told.headline]) {
        *text = without(text, &is_hidden);
    }
}

fn without(text: &str, is_hidden: impl Fn(JobId) -> bool) -> String {
    let ends_word = |c: char| !c.is_ascii_alphanumeric();
    let pieces = text.split_inclusive(ends_word).map(|piece| {
        let word = piece.trim_end_matches(ends_word);
        match word.parse() {
            Ok(job) if is_hidden(job) => format!("{HIDDEN}{}", &piece[word.len()..]),
            _ => piece.to_owned(),
        }
    });
    pieces.collect()
}

/// When a job is expected to start and to be done; `None` for one that is over, or told to be.
pub(crate) fn outlook(outlook: &Outlook, job: JobId, state: &State) -> Option<v1::Outlook> {
    let job_state = state.open_job(job)?.state;
    if job_state == JobState::Cancelling {
        return None;
    }
    let waits = job_state == JobState::Pending;
    let Expected { start, finish } = outlook.jobs.get(&job).copied().unwrap_or_default();
    let missing = match outlook.worlds {
        0 => "there was no time to run the queue forward: it is too long, or too many ask at once",
        _ if waits && start.p50_ms.is_none() => {
            "it does not start in most of the worlds that were tried"
        }
        _ if finish.p50_ms.is_none() => {
            "its end is not known: there is no history of such runs, or a limit ends it before"
        }
        1 => "the queue is long, so only the middle of what may come was run forward",
        _ => "",
    };
    Some(v1::Outlook {
        start_time_p50: start.p50_ms.map(timestamp_ms),
        start_time_p90: start.p90_ms.map(timestamp_ms),
        finish_time_p50: finish.p50_ms.map(timestamp_ms),
        finish_time_p90: finish.p90_ms.map(timestamp_ms),
        worlds: u32::try_from(outlook.worlds).unwrap_or(u32::MAX),
        note: missing.to_owned(),
    })
}

fn line(line: Line) -> v1::WhyLine {
    v1::WhyLine {
        count: u32::try_from(line.count).unwrap_or(u32::MAX),
        reason: line.reason.code().to_owned(),
        workers: line.workers.iter().map(ToString::to_string).collect(),
        detail: line.detail,
    }
}

const fn tier(tier: Tier) -> v1::WhyTier {
    match tier {
        Tier::Never => v1::WhyTier::Never,
        Tier::Held => v1::WhyTier::Held,
        Tier::Capacity => v1::WhyTier::Capacity,
        Tier::Order => v1::WhyTier::Order,
        Tier::New => v1::WhyTier::New,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_its_reader_may_not_see_has_no_name() {
        let (hidden, seen) = (JobId(1_000), JobId(1_001));
        let text =
            format!("{hidden} (~5 minutes more), {seen}; behind jobs/{hidden}: jump {hidden}");
        assert_eq!(
            without(&text, |job| job == hidden),
            format!(
                "a job of others (~5 minutes more), {seen}; behind jobs/a job of others: jump a job of others"
            )
        );
        assert_eq!(without(&text, |_| false), text);
    }
}
