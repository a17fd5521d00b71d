//! The estimator as the node's ports: where forecasts and the operator's prices come from, and where samples become records.

use std::sync::Arc;

use futures::future::BoxFuture;
use stepcast_cluster::{Contribution, NotRecorded, PortError, Pricing, RecordSink};
use stepcast_estimator::{Day, Estimator};
use stepcast_records::simpletuner::Validation;
use stepcast_records::{Hardware, PhaseKind, Quantiles};
use stepcast_scheduler::course::Course;
use stepcast_scheduler::model::{JobSpec, Prices};
use stepcast_scheduler::placement::{Forecast, ForecastSource};

/// Forecasts from the estimator's index, in memory.
#[derive(Debug, Clone)]
pub struct EstimatedForecasts(pub Arc<Estimator>);

impl ForecastSource for EstimatedForecasts {
    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        // The records are of one host, and what several do together does not follow from them.
        if spec.hosts() > 1 {
            return None;
        }
        let run_ms = self.0.forecast(&spec.workload, hardware)?;
        Some(Forecast {
            run_ms_p50: run_ms.p50,
            run_ms_p90: run_ms.p90,
        })
    }

    fn version(&self) -> Option<u64> {
        Some(self.0.version())
    }

    fn course(&self, spec: &JobSpec, hardware: Hardware) -> Option<Course> {
        if spec.hosts() > 1 {
            return None;
        }
        let plan = spec.workload.plan(hardware.count).ok()?;
        let phases = self.0.phases(&spec.workload, hardware);
        let of = |kinds: &[PhaseKind]| {
            let parts = phases.iter().filter(|phase| kinds.contains(&phase.kind));
            let times = parts.filter_map(|phase| phase.ms);
            times.reduce(Quantiles::plus)
        };
        let each = |ms: Option<Quantiles>, count: u64| {
            let share = 1.0 / count.max(1) as f64;
            ms.map(|ms| ms.scaled(share))
        };
        // An unknown part leaves the sum too small, so there is none then.
        let known = |kind| {
            let mut parts = phases.iter().filter(|phase| phase.kind == kind);
            parts.all(|phase| phase.ms.is_some())
        };
        let all = |kind| of(&[kind]).filter(|_| known(kind));
        let (early, every) = spec.workload.validation.as_ref().map_or((0, 0), when);
        use PhaseKind as Part;
        Some(Course {
            set_up_ms: of(&[
                Part::Start,
                Part::Load,
                Part::Quantize,
                Part::CacheText,
                Part::CacheLatents,
            ])?,
            step_ms: each(all(Part::Train), plan.steps_total),
            steps: plan.steps_total,
            pass_ms: each(all(Part::Validate), plan.validation_passes),
            passes: plan.validation_passes,
            early_passes: early,
            pass_every: every,
            unvalidated: plan.steps_total - plan.validated_until,
            save_ms: of(&[Part::Save]).unwrap_or_default(),
            checkpoints: plan.checkpoints,
        })
    }
}

/// How many passes come before the first step, and how many steps lie between two others; 0 where epochs decide it.
fn when(validation: &Validation) -> (u64, u64) {
    let early = u64::from(validation.at_start) + u64::from(validation.baseline);
    let by_steps = validation
        .every_steps
        .filter(|_| validation.every_epochs.is_none());
    (early, by_steps.unwrap_or(0))
}

/// The operator's prices: its own book, and what was imported. Not the list that comes with this version.
#[derive(Debug, Clone)]
pub struct EstimatedPrices(pub Arc<Estimator>);

impl Pricing for EstimatedPrices {
    fn prices(&self, now_ms: u64) -> Option<Prices> {
        let said = self.0.said_prices(Day::of_ms(now_ms))?;
        Some(said.into_iter().collect())
    }
}

/// Samples into the estimator's tables, as rows without anything else.
#[derive(Debug, Clone)]
pub struct EstimatorSink(pub Arc<Estimator>);

impl RecordSink for EstimatorSink {
    fn record(&self, contributions: Vec<Contribution>) -> BoxFuture<'_, Result<(), NotRecorded>> {
        // A sample with too few times becomes no row, and a contribution without rows is no contribution.
        let contributions =
            contributions
                .into_iter()
                .map(|contribution| stepcast_estimator::Contribution {
                    id: contribution.id,
                    rows: contribution
                        .samples
                        .iter()
                        .filter_map(|sample| sample.to_row())
                        .collect(),
                });
        let contributions = contributions.collect();
        Box::pin(async move {
            let recorded = self.0.record_each(contributions).await;
            tracing::debug!(
                stored = recorded.committed.stored,
                rows = recorded.committed.rows,
                "samples became records"
            );
            match recorded.failure {
                None => Ok(()),
                Some(error) => Err(NotRecorded {
                    error: PortError::new(error),
                    kept: recorded.kept,
                }),
            }
        })
    }
}
