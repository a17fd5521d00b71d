//! Why a job does not run.

use stepcast_proto::v1;
use stepcast_scheduler::placement::{Line, Tier, Why};

/// An explanation.
pub(crate) fn why(why: Why) -> v1::ExplainJobResponse {
    v1::ExplainJobResponse {
        tier: why.tier.map_or(v1::WhyTier::Unspecified, tier).into(),
        headline: why.headline,
        lines: why.lines.into_iter().map(line).collect(),
        jobs_ahead: u32::try_from(why.jobs_ahead).unwrap_or(u32::MAX),
        hints: why.hints,
        sooner: Vec::new(),
    }
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
