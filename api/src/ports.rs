//! The estimator as the node's ports: where forecasts come from, and where samples become records.

use std::sync::Arc;

use futures::future::BoxFuture;
use stepcast_cluster::{Contribution, PortError, RecordSink};
use stepcast_estimator::Estimator;
use stepcast_records::Hardware;
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::placement::{Forecast, ForecastSource};

/// Forecasts from the estimator's index, in memory.
#[derive(Debug, Clone)]
pub struct EstimatedForecasts(pub Arc<Estimator>);

impl ForecastSource for EstimatedForecasts {
    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        let run_ms = self.0.forecast(&spec.workload, hardware)?;
        Some(Forecast {
            run_ms_p50: run_ms.p50,
            run_ms_p90: run_ms.p90,
        })
    }
}

/// Samples into the estimator's tables, as rows without anything else.
#[derive(Debug, Clone)]
pub struct EstimatorSink(pub Arc<Estimator>);

impl RecordSink for EstimatorSink {
    fn record(&self, contributions: Vec<Contribution>) -> BoxFuture<'_, Result<(), PortError>> {
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
            let committed = self.0.record(contributions).await.map_err(PortError::new)?;
            tracing::debug!(
                stored = committed.stored,
                rows = committed.rows,
                "samples became records"
            );
            Ok(())
        })
    }
}
