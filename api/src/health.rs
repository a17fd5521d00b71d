//! Keeps the health service honest: serving while a leader is known and what it has committed is applied here.

use std::time::Duration;

use stepcast_cluster::Handle;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::probes::due;

/// How often the node is looked at: a balancer that asks every second sees a change within a quarter more.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Makes these services known before anybody can ask for their health.
pub(crate) async fn register(reporter: &HealthReporter, services: &[&'static str]) {
    for service in services.iter().chain([&""]) {
        reporter
            .set_service_status(*service, ServingStatus::NotServing)
            .await;
    }
}

/// Sets the health of these services, and of the whole under the empty name, for as long as it runs.
pub(crate) async fn report(reporter: HealthReporter, handle: Handle, services: Vec<&'static str>) {
    let mut told = None;
    let mut before = None;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let status = handle.status();
        let due = due(&status).ok();
        // What was committed by the last look is applied by this one, or the node is behind.
        let serving = due.is_some_and(|now| status.applied_index >= before.unwrap_or(now));
        before = due;
        if told == Some(serving) {
            continue;
        }
        told = Some(serving);
        let health = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in services.iter().chain([&""]) {
            reporter.set_service_status(*service, health).await;
        }
    }
}
