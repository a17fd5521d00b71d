//! How far answers are off, and the same for simpler ways.

use serde::Serialize;

use super::answer::Answer;

/// Errors as fractions of the truth. `None` where there was nothing to judge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Half the estimates are off by less.
    pub median_ape: Option<f64>,
    /// Three in four are off by less.
    pub p75_ape: Option<f64>,
    /// Nine in ten are off by less.
    pub p90_ape: Option<f64>,
    /// Share of truths from p10 to p90.
    pub inside_p10_p90: Option<f64>,
    /// Share of truths below p90.
    pub below_p90: Option<f64>,
    /// Mean pinball loss of p10, p50 and p90 as a share of the truth (Koenker and Bassett 1978).
    pub pinball: Option<f64>,
}

/// Simpler ways to the same answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Baselines {
    /// The median of the nearest group that was measured, between the group's own p10 and p90.
    pub group_median: Score,
    /// The middle of measured over rated time, times the rated time, between p10 and p90 of the same.
    pub flops_ratio: Score,
}

impl Score {
    /// Of p10, p50 and p90 beside the truth.
    pub(super) fn of(answers: &[([f64; 3], f64)]) -> Self {
        let middles: Vec<(f64, f64)> = answers
            .iter()
            .map(|(answer, truth)| (answer[1], *truth))
            .collect();
        let mut score = Self::of_middles(&middles);
        if answers.is_empty() {
            return score;
        }
        let count = answers.len() as f64;
        let share = |holds: &dyn Fn(&[f64; 3], f64) -> bool| {
            answers
                .iter()
                .filter(|(answer, truth)| holds(answer, *truth))
                .count() as f64
                / count
        };
        score.inside_p10_p90 = Some(share(&|answer, truth| {
            (answer[0]..=answer[2]).contains(&truth)
        }));
        score.below_p90 = Some(share(&|answer, truth| truth <= answer[2]));
        let loss = |answer: &[f64; 3], truth: f64| {
            let each = answer.iter().zip([0.1, 0.5, 0.9]).map(|(at, level)| {
                let over = truth - at;
                (level * over).max((level - 1.0) * over)
            });
            each.sum::<f64>() / 3.0 / truth
        };
        let losses: f64 = answers
            .iter()
            .map(|(answer, truth)| loss(answer, *truth))
            .sum();
        score.pinball = Some(losses / count);
        score
    }

    /// Of middles beside the truth.
    pub(super) fn of_middles(answers: &[(f64, f64)]) -> Self {
        let mut errors: Vec<f64> = answers
            .iter()
            .map(|(answer, truth)| (answer - truth).abs() / truth)
            .collect();
        errors.sort_by(f64::total_cmp);
        Self {
            median_ape: quantile(&errors, 0.5),
            p75_ape: quantile(&errors, 0.75),
            p90_ape: quantile(&errors, 0.9),
            inside_p10_p90: None,
            below_p90: None,
            pinball: None,
        }
    }
}

impl Baselines {
    pub(super) fn of(answers: &[Answer]) -> Self {
        let by_group = answers
            .iter()
            .filter_map(|answer| Some((answer.group_ms?, answer.measured_ms)));
        let by_rating = answers
            .iter()
            .map(|answer| (answer.rated_ms, answer.measured_ms));
        Self {
            group_median: Score::of(&by_group.collect::<Vec<_>>()),
            flops_ratio: Score::of(&by_rating.collect::<Vec<_>>()),
        }
    }
}

/// The value that this share of a sorted list does not exceed, between neighbours.
pub(super) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    Some(below + (above - below) * place.fract())
}
