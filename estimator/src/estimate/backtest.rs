//! The backtest: every measured figure estimated from the others, so that each rung's error is known, not believed.

use std::collections::BTreeMap;

use stepcast_records::{Hardware, Key, Row, TrainingKey};

use super::ladder::{Found, Ladder, Rungs};
use super::width;
use crate::index::Index;

/// Which rung an estimate was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Other figures of exactly the key.
    Exact,
    /// The same recipe and hardware; the other figures differ in the batch size only.
    Batch,
    /// ... in the resolution only.
    Resolution,
    /// ... in the quantisation only.
    Quantization,
    /// The same hardware; the recipe differs in gradient checkpointing only.
    Checkpointing,
    /// The same shape on other hardware.
    OtherHardware,
    /// The nearest of all figures but those of the key itself.
    Nearest,
    /// The nearest of all figures of other hardware.
    NearestElsewhere,
    /// The ratings of the hardware and the kind of model alone.
    Rated,
}

/// How wrong a rung was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RungError {
    /// The rung.
    pub rung: Rung,
    /// Figures that could be estimated from it.
    pub figures: usize,
    /// Half the estimates are off by less, in per cent of the truth.
    pub median_percent: f64,
    /// Nine in ten estimates are off by less, in per cent of the truth.
    pub p90_percent: f64,
    /// The middle of estimate over truth: 1 without a bias.
    pub median_ratio: f64,
    /// The share of truths between p10 and p90, in per cent; the aim is 80.
    pub covered_percent: f64,
}

/// One estimate beside its truth, in milliseconds.
struct Trial {
    truth: f64,
    estimate: f64,
    covered: bool,
}

/// Estimates every training row from the others, rung by rung. Rows of validation are left out.
#[must_use]
pub fn backtest(rows: &[Row]) -> Vec<RungError> {
    let known: Vec<(TrainingKey, Row)> = rows
        .iter()
        .filter_map(|row| match row.key {
            Key::Training(key) => Some((key, *row)),
            Key::Validation(_) => None,
        })
        .collect();
    let mut trials: BTreeMap<Rung, Vec<Trial>> = BTreeMap::new();
    for (place, (key, row)) in known.iter().enumerate() {
        for rung in Rung::ALL {
            if let Some(found) = rung.estimate(&known, place) {
                let trial = Trial::new(&found, f64::from(row.avg_ms));
                trials.entry(rung).or_default().push(trial);
            }
        }
        debug_assert_eq!(row.key, Key::Training(*key));
    }
    trials
        .into_iter()
        .map(|(rung, trials)| RungError::of(rung, &trials))
        .collect()
}

impl Rung {
    /// Every rung.
    pub const ALL: [Self; 9] = [
        Self::Exact,
        Self::Batch,
        Self::Resolution,
        Self::Quantization,
        Self::Checkpointing,
        Self::OtherHardware,
        Self::Nearest,
        Self::NearestElsewhere,
        Self::Rated,
    ];

    /// What a person reads.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Exact => "the same key",
            Self::Batch => "another batch",
            Self::Resolution => "another resolution",
            Self::Quantization => "another quantisation",
            Self::Checkpointing => "other checkpointing",
            Self::OtherHardware => "other hardware",
            Self::Nearest => "nearest, key left out",
            Self::NearestElsewhere => "nearest on other hardware",
            Self::Rated => "ratings alone",
        }
    }

    /// The estimate of one row from those of the others that this rung may see.
    fn estimate(self, known: &[(TrainingKey, Row)], place: usize) -> Option<Found> {
        let (key, _) = known[place];
        let others = known
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != place);
        let seen = others.filter(|(_, (other, _))| self.sees(&key, other));
        let mut records = Index::default();
        records.add(seen.map(|(_, (_, row))| row));
        let published = Index::default();
        let ladder = Ladder {
            records: &records,
            published: &published,
        };
        let rungs = ladder.of(key.shape());
        self.climb(&rungs, key.hardware)
    }

    fn climb(
        self,
        rungs: &Rungs<'_, stepcast_records::TrainingShape>,
        hardware: Hardware,
    ) -> Option<Found> {
        match self {
            Self::Exact => rungs.exact(hardware),
            Self::Batch | Self::Resolution | Self::Quantization => rungs.near(hardware),
            Self::Checkpointing | Self::OtherHardware | Self::NearestElsewhere => {
                rungs.far(hardware)
            }
            Self::Nearest => rungs.measured_on(hardware),
            Self::Rated => rungs.rated(hardware),
        }
    }

    /// Whether another key is one that this rung rests on.
    fn sees(self, key: &TrainingKey, other: &TrainingKey) -> bool {
        let mut alike = *other;
        match self {
            Self::Exact => {}
            Self::Batch => alike.batch_size = key.batch_size,
            Self::Resolution => alike.resolution = key.resolution,
            Self::Quantization => alike.quantization = key.quantization,
            Self::Checkpointing => {
                let checkpointing = key.recipe.checkpointing();
                alike.recipe = alike.recipe.with_checkpointing(checkpointing);
            }
            Self::OtherHardware => alike.hardware = key.hardware,
            Self::Nearest => return other != key,
            Self::NearestElsewhere => return other.hardware.gpu != key.hardware.gpu,
            Self::Rated => return false,
        }
        alike == *key && (self == Self::Exact || other != key)
    }
}

impl Trial {
    fn new(found: &Found, truth: f64) -> Self {
        let (low, high) = width::factors(found.variance);
        Self {
            truth,
            estimate: found.ms,
            covered: (found.ms * low..=found.ms * high).contains(&truth),
        }
    }
}

impl RungError {
    fn of(rung: Rung, trials: &[Trial]) -> Self {
        let mut errors: Vec<f64> = trials
            .iter()
            .map(|trial| (trial.estimate - trial.truth).abs() / trial.truth * 100.0)
            .collect();
        let mut ratios: Vec<f64> = trials
            .iter()
            .map(|trial| trial.estimate / trial.truth)
            .collect();
        errors.sort_by(f64::total_cmp);
        ratios.sort_by(f64::total_cmp);
        let covered = trials.iter().filter(|trial| trial.covered).count();
        Self {
            rung,
            figures: trials.len(),
            median_percent: share(&errors, 0.5),
            p90_percent: share(&errors, 0.9),
            median_ratio: share(&ratios, 0.5),
            covered_percent: covered as f64 / trials.len().max(1) as f64 * 100.0,
        }
    }
}

/// The value that this share of a sorted list does not exceed.
fn share(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len().saturating_sub(1)) as f64;
    sorted.get(place.round() as usize).copied().unwrap_or(0.0)
}

/// The published figures that come with this version, as rows.
#[must_use]
pub fn published_rows() -> Vec<Row> {
    super::published::shipped_rows()
}
