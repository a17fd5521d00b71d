//! The estimate: time and cost of a run on one hardware, and how far from the exact key it was taken.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hardware::{GpuModel, Hardware};
use crate::key::{BatchSize, Precision, Quantization};
use crate::memory::{Fit, Memory};
use crate::phase::Phase;
use crate::recipe::Recipe;
use crate::resolution::HalfMegapixels;
use crate::units::{self, UsdMicros};

/// Three points of a distribution, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quantiles {
    /// One in ten is below.
    pub p10: u64,
    /// Half are below.
    pub p50: u64,
    /// Nine in ten are below.
    pub p90: u64,
}

/// Three points of a distribution of money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CostQuantiles {
    /// One in ten is below.
    pub p10: UsdMicros,
    /// Half are below.
    pub p50: UsdMicros,
    /// Nine in ten are below.
    pub p90: UsdMicros,
}

/// How far from the exact key an estimate was taken. A later one is worth less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Records of exactly this key.
    Exact,
    /// Records of this recipe and hardware with another batch, resolution, precision or accumulation.
    Near,
    /// Records of other hardware or another variant, or the ratings of the hardware alone.
    Rough,
    /// Nothing to go by; no number is given.
    None,
}

/// One thing to know about how an estimate came about. A closed list: text is written at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// Step times were scaled from records of another batch size.
    BatchScaled {
        /// The batch size of the records.
        from: BatchSize,
    },
    /// Step times were scaled from records of another resolution.
    ResolutionScaled {
        /// The resolution of the records.
        from: HalfMegapixels,
    },
    /// Step times were scaled from records of another number of accumulated batches.
    AccumulationScaled,
    /// Step times were taken from records of another precision.
    PrecisionBorrowed {
        /// The precision of the records.
        from: Precision,
    },
    /// Step times were taken from records of another quantisation.
    QuantizationBorrowed {
        /// The quantisation of the records.
        from: Quantization,
    },
    /// Step times were taken from records of another variant of the recipe.
    RecipeBorrowed {
        /// The recipe of the records.
        from: Recipe,
    },
    /// Step times were scaled from records of other hardware.
    HardwareScaled {
        /// The hardware of the records.
        from: Hardware,
    },
    /// Step times follow from the hardware's ratings and the kind of model alone.
    RatedOnly,
    /// Published measurements stand in for records.
    PublishedPrior,
    /// Validation times were not measured; they follow from the step times.
    ValidationDerived,
    /// Validation runs but nothing is known of its time, so it is left out.
    ValidationUnknown,
    /// The number of samples in a data set is not known, so the number of steps is assumed.
    StepsAssumed,
    /// Loading, caching and saving are not included.
    SetupExcluded,
    /// Nobody has set a price for this hardware.
    NoPrice,
    /// The model may not fit the memory of this GPU.
    MemoryTight {
        /// The GPU.
        gpu: GpuModel,
    },
    /// The model will not fit the memory of this GPU.
    MemoryExceeded {
        /// The GPU.
        gpu: GpuModel,
    },
    /// Fewer records than a narrow interval needs: the interval is widened.
    FewRows,
    /// The times come from the pretend device.
    Replay,
}

/// What a run will take on one hardware.
///
/// An absent number is unknown; it is never filled with a guess that its basis does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Where it would run.
    pub hardware: Hardware,
    /// How far from the exact key it was taken.
    pub basis: Basis,
    /// How many contributions it rests on.
    pub rows: u32,
    /// How many steps these observed.
    pub observed: u64,
    /// One optimizer step.
    pub step_ms: Option<Quantiles>,
    /// All training steps.
    pub train_ms: Option<Quantiles>,
    /// All validation.
    pub validation_ms: Option<Quantiles>,
    /// Training and validation together: what the cost is computed from.
    pub run_ms: Option<Quantiles>,
    /// Loading, caching and saving, shown apart and in no other number.
    pub setup_ms: Option<Quantiles>,
    /// The whole run by what happens in it, in its order.
    pub phases: Vec<Phase>,
    /// The memory of each GPU that it needs; `None` for what has none, and for a run that keeps its weights elsewhere.
    pub memory: Option<Memory>,
    /// What the run costs at the price.
    pub cost: Option<CostQuantiles>,
    /// The price of the whole hardware.
    pub price_usd_micros_per_hour: Option<u64>,
    /// What to know about it.
    pub notes: Vec<Note>,
}

impl Quantiles {
    /// The same number at all three points.
    #[must_use]
    pub const fn constant(ms: u64) -> Self {
        Self {
            p10: ms,
            p50: ms,
            p90: ms,
        }
    }

    /// What each of the three times costs at a price per hour.
    #[must_use]
    pub fn cost(self, price_per_hour: UsdMicros) -> CostQuantiles {
        CostQuantiles {
            p10: units::cost(self.p10, price_per_hour),
            p50: units::cost(self.p50, price_per_hour),
            p90: units::cost(self.p90, price_per_hour),
        }
    }

    /// Each of the three times by a factor that is not negative, rounded down.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        // A float too large for the integer becomes the largest one.
        let scaled = |ms: u64| (ms as f64 * factor) as u64;
        Self {
            p10: scaled(self.p10),
            p50: scaled(self.p50),
            p90: scaled(self.p90),
        }
    }

    /// Each of the three times, so many times over.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self {
            p10: self.p10.saturating_mul(factor),
            p50: self.p50.saturating_mul(factor),
            p90: self.p90.saturating_mul(factor),
        }
    }

    /// The sums point by point, as if both were long together: an interval that is never too narrow.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            p10: self.p10.saturating_add(other.p10),
            p50: self.p50.saturating_add(other.p50),
            p90: self.p90.saturating_add(other.p90),
        }
    }
}

impl Basis {
    /// The words people read.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Near => "near",
            Self::Rough => "rough",
            Self::None => "no history",
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl Estimate {
    /// An estimate that says only that nothing is known.
    #[must_use]
    pub const fn unknown(hardware: Hardware) -> Self {
        Self {
            hardware,
            basis: Basis::None,
            rows: 0,
            observed: 0,
            step_ms: None,
            train_ms: None,
            validation_ms: None,
            run_ms: None,
            setup_ms: None,
            phases: Vec::new(),
            memory: None,
            cost: None,
            price_usd_micros_per_hour: None,
            notes: Vec::new(),
        }
    }

    /// Whether the run needs more memory than the hardware has, as far as is known.
    #[must_use]
    pub fn will_not_fit(&self) -> bool {
        self.memory.is_some_and(|memory| memory.fit == Fit::WillNot)
    }

    /// Sets the price of the whole hardware, and the cost that follows from it.
    #[must_use]
    pub fn priced(mut self, price_per_hour: UsdMicros) -> Self {
        self.price_usd_micros_per_hour = Some(price_per_hour.0);
        self.cost = self.run_ms.map(|run| run.cost(price_per_hour));
        self
    }

    /// The time that hardware is paid for: the run with loading, caching and saving; `None` when the run's is unknown.
    #[must_use]
    pub fn whole_ms(&self) -> Option<Quantiles> {
        let run = self.run_ms?;
        Some(self.setup_ms.map_or(run, |setup| run.plus(setup)))
    }

    /// What that time costs; `None` without a price.
    #[must_use]
    pub fn whole_cost(&self) -> Option<CostQuantiles> {
        let price = self.price_usd_micros_per_hour?;
        Some(self.whole_ms()?.cost(UsdMicros(price)))
    }

    /// The estimate in one line, such as `~38 minutes, ~$0.68`; without a price only the time, and
    /// `no history` when the time is unknown.
    #[must_use]
    pub fn headline(&self) -> String {
        let Some(run) = self.run_ms else {
            return Basis::None.text().to_owned();
        };
        let time = units::display_duration(run.p50);
        match self.cost {
            Some(cost) => format!("{time}, {}", units::display_cost(cost.p50)),
            None => time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example() {
        let training = Quantiles::constant(14_000).times(150);
        let validation = Quantiles::constant(20_000).times(3 * 3);
        let hardware: Hardware = "rtx4090".parse().expect("hardware");
        let mut estimate = Estimate::unknown(hardware);
        assert_eq!(estimate.headline(), "no history");
        estimate.basis = Basis::Exact;
        estimate.run_ms = Some(training.plus(validation));
        assert_eq!(estimate.run_ms.map(|run| run.p50), Some(2_280_000));
        assert_eq!(estimate.headline(), "~38 minutes");
        let price = "1.08".parse().expect("price");
        let estimate = estimate.priced(price);
        assert_eq!(estimate.cost.map(|cost| cost.p50), Some(UsdMicros(684_000)));
        assert_eq!(estimate.headline(), "~38 minutes, ~$0.68");
        assert_eq!(estimate.whole_cost(), estimate.cost);
        let cached = Estimate {
            setup_ms: Some(Quantiles::constant(3_600_000)),
            ..estimate
        };
        assert_eq!(cached.headline(), "~38 minutes, ~$0.68");
        assert_eq!(cached.whole_ms().map(|whole| whole.p50), Some(5_880_000));
        let whole = cached.whole_cost().map(|cost| cost.p50);
        assert_eq!(whole, Some(UsdMicros(1_764_000)));
    }

    #[test]
    fn the_example_holds_over_its_whole_range() {
        let price: UsdMicros = "1.08".parse().expect("price");
        let text = |run_ms| {
            let (time, cost) = (units::display_duration(run_ms), units::cost(run_ms, price));
            format!("{time}, {}", units::display_cost(cost))
        };
        assert_eq!(text(2_250_000), "~38 minutes, ~$0.68");
        assert_eq!(text(2_283_299), "~38 minutes, ~$0.68");
        assert_ne!(text(2_249_999), "~38 minutes, ~$0.68");
        assert_ne!(text(2_283_400), "~38 minutes, ~$0.68");
    }

    #[test]
    fn a_basis_says_its_word_and_a_better_one_comes_first() {
        let all = [Basis::Exact, Basis::Near, Basis::Rough, Basis::None];
        assert!(all.is_sorted());
        assert_eq!(
            all.map(Basis::text),
            ["exact", "near", "rough", "no history"]
        );
    }

    #[test]
    fn absurd_numbers_stay_numbers() {
        let absurd = Quantiles::constant(u64::MAX);
        assert_eq!(absurd.times(2).plus(absurd), absurd);
        let cost = absurd.cost(UsdMicros(u64::MAX));
        assert_eq!(cost.p90, UsdMicros(u64::MAX));
    }

    #[test]
    fn an_estimate_survives_json() {
        let hardware: Hardware = "h100x2".parse().expect("hardware");
        let mut estimate = Estimate::unknown(hardware);
        estimate.notes = vec![
            Note::NoPrice,
            Note::HardwareScaled { from: hardware },
            Note::BatchScaled {
                from: BatchSize::new(8).expect("grid"),
            },
        ];
        let json = serde_json::to_string(&estimate).expect("json");
        assert_eq!(
            serde_json::from_str::<Estimate>(&json).expect("json"),
            estimate
        );
    }
}
