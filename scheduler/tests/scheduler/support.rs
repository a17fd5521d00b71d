//! What every test needs: a workload, and forecasts from a table.

use std::collections::BTreeMap;

use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Workload};
use stepcast_records::{FrameClass, HalfMegapixels, Hardware, Precision, Quantization, Recipe};
use stepcast_scheduler::State;
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::placement::{Forecast, ForecastSource, Placement, plan};

/// A small training.
pub(crate) fn workload() -> Workload {
    Workload {
        recipe: Recipe::parse("flux.dev/lora").expect("a recipe"),
        precision: Precision::Bf16,
        quantization: Quantization::None,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(2).expect("a bucket"),
            frames: FrameClass::Single,
            batch_size: 4,
            samples: Some(40),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(100),
        checkpoint_every: None,
        validation: None,
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    }
}

/// Minutes by hardware, the same for every workload; nine in ten runs take at most half as long again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<Hardware, u64>);

impl ForecastSource for Table {
    fn version(&self) -> Option<u64> {
        Some(0)
    }

    fn forecast(&self, _: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        let run_ms_p50 = self.0.get(&hardware)? * 60_000;
        let run_ms_p90 = run_ms_p50 * 3 / 2;
        Some(Forecast {
            run_ms_p50,
            run_ms_p90,
        })
    }
}

/// A minute for every step.
pub(crate) struct BySteps;

impl ForecastSource for BySteps {
    fn version(&self) -> Option<u64> {
        Some(0)
    }

    fn forecast(&self, spec: &JobSpec, _: Hardware) -> Option<Forecast> {
        let Length::Steps(steps) = spec.workload.length else {
            return None;
        };
        Some(Forecast {
            run_ms_p50: steps * 60_000,
            run_ms_p90: steps * 60_000,
        })
    }
}

/// What one look at the queue starts.
pub(crate) fn planned(state: &State, forecast: &Table, now_ms: u64) -> Vec<Placement> {
    plan(state, forecast, now_ms, 256).placements
}
