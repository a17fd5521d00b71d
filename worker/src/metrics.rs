//! What a worker measures of itself, in the text format that Prometheus reads. It names no job and no attempt.

mod port;
mod steps;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stepcast_records::metrics::{Exposition, Metric};

pub use self::port::Error as PortError;
pub(crate) use self::port::{Answer, Port};
use self::steps::Steps;
use crate::event::Event;
use crate::webhook::Lost;

const BUILD_INFO: Metric = Metric::gauge("stepcast_build_info", "Which program this is; always 1.");
const CONNECTED: Metric = Metric::gauge(
    "stepcast_worker_connected",
    "Whether the stream to a leader is open.",
);
const ATTEMPTS: Metric = Metric::gauge(
    "stepcast_worker_attempts",
    "Attempts that this worker has taken and whose end is not acknowledged.",
);
const OUTBOX_PENDING: Metric = Metric::gauge(
    "stepcast_outbox_pending",
    "What waits to be taken by the leader: facts about attempts, and samples.",
);
const WEBHOOK_EVENTS_TOTAL: Metric = Metric::counter(
    "stepcast_webhook_events_total",
    "Webhooks of trainers, by what they say.",
);
const WEBHOOK_LOSSES_TOTAL: Metric = Metric::counter(
    "stepcast_webhook_losses_total",
    "Webhooks that went no further, by why.",
);
const STEP_DURATION_SECONDS: Metric = Metric::histogram(
    "stepcast_step_duration_seconds",
    "Times of training steps, as their trainers say them.",
);

const CERTIFICATE_END: Metric = Metric::gauge(
    "stepcast_certificate_end_timestamp_seconds",
    "When the certificate that is shown ends, in seconds since 1970.",
);

/// The commit that the program was built from, if whoever built it has said so.
const COMMIT: Option<&str> = option_env!("STEPCAST_COMMIT");

/// What webhooks say, as the label `type`, in the order of [`number_of`].
const TYPES: [&str; 9] = [
    "ready",
    "step",
    "broken",
    "stage",
    "checkpoint",
    "validation_prompt",
    "error",
    "log",
    "other",
];

/// Numbers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    attempts: AtomicUsize,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    events: [u64; TYPES.len()],
    losses: Lost,
    /// By recipe and GPU: as many as there are in the registries at most.
    steps: BTreeMap<(&'static str, &'static str), Steps>,
}

/// What stands now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) connected: bool,
    pub(crate) reports: usize,
    pub(crate) samples: usize,
    /// When the certificate ends that the port for metrics shows, in seconds since 1970.
    pub(crate) certificate_end: Option<i64>,
}

impl Metrics {
    /// So many attempts are here now.
    pub(crate) fn attempts(&self, count: usize) {
        self.attempts.store(count, Ordering::Relaxed);
    }

    /// A webhook has arrived.
    pub(crate) fn event(&self, event: &Event) {
        self.lock().events[number_of(event)] += 1;
    }

    /// A step was done by this recipe on this GPU.
    pub(crate) fn step(&self, recipe: &'static str, gpu: &'static str, took: Duration) {
        self.lock()
            .steps
            .entry((recipe, gpu))
            .or_default()
            .add(took);
    }

    /// So much of one attempt's webhooks went no further.
    pub(crate) fn lost(&self, lost: Lost) {
        let mut numbers = self.lock();
        let losses = &mut numbers.losses;
        losses.events += lost.events;
        losses.logs += lost.logs;
        losses.unreadable += lost.unreadable;
    }

    /// All of it.
    pub(crate) fn text(&self, moment: &Moment) -> String {
        let numbers = self.lock();
        let (version, commit) = (env!("CARGO_PKG_VERSION"), COMMIT.unwrap_or("unknown"));
        let mut text = Exposition::default();
        text.begin(&BUILD_INFO);
        let program = format!("version=\"{version}\",commit=\"{commit}\"");
        text.value(&BUILD_INFO, &program, 1);
        text.one(&CONNECTED, u64::from(moment.connected));
        text.one(&ATTEMPTS, self.attempts.load(Ordering::Relaxed));
        text.begin(&OUTBOX_PENDING);
        text.value(&OUTBOX_PENDING, "what=\"reports\"", moment.reports);
        text.value(&OUTBOX_PENDING, "what=\"samples\"", moment.samples);
        text.begin(&WEBHOOK_EVENTS_TOTAL);
        for (name, count) in TYPES.iter().zip(numbers.events) {
            text.value(&WEBHOOK_EVENTS_TOTAL, &format!("type=\"{name}\""), count);
        }
        text.begin(&WEBHOOK_LOSSES_TOTAL);
        for (why, count) in [
            ("queue_full", numbers.losses.events),
            ("log_dropped", numbers.losses.logs),
            ("unreadable", numbers.losses.unreadable),
        ] {
            text.value(&WEBHOOK_LOSSES_TOTAL, &format!("why=\"{why}\""), count);
        }
        text.begin(&STEP_DURATION_SECONDS);
        for ((recipe, gpu), steps) in &numbers.steps {
            let labels = format!("model=\"{recipe}\",gpu=\"{gpu}\"");
            steps.write(&mut text, &STEP_DURATION_SECONDS, &labels);
        }
        if let Some(end) = moment.certificate_end {
            text.one(&CERTIFICATE_END, end);
        }
        text.into_text()
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Numbers are whole after any panic.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn number_of(event: &Event) -> usize {
    match event {
        Event::Ready { .. } => 0,
        Event::Step { .. } => 1,
        Event::Broken(_) => 2,
        Event::Stage { .. } => 3,
        Event::Checkpoint { .. } => 4,
        Event::ValidationPrompt => 5,
        Event::Error { .. } => 6,
        Event::Log => 7,
        Event::Other => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told_by_labels_of_a_few_values() {
        let metrics = Metrics::default();
        metrics.attempts(2);
        metrics.event(&Event::Log);
        metrics.event(&Event::ValidationPrompt);
        metrics.step("flux.dev/lora", "h100", Duration::from_millis(730));
        let lost = Lost {
            events: 0,
            logs: 3,
            unreadable: 1,
        };
        metrics.lost(lost);
        metrics.lost(lost);
        let text = metrics.text(&Moment {
            connected: true,
            reports: 1,
            samples: 7,
            certificate_end: Some(1_795_824_000),
        });
        for line in [
            "stepcast_worker_connected 1",
            "stepcast_certificate_end_timestamp_seconds 1795824000",
            "stepcast_worker_attempts 2",
            "stepcast_outbox_pending{what=\"reports\"} 1",
            "stepcast_outbox_pending{what=\"samples\"} 7",
            "stepcast_webhook_events_total{type=\"log\"} 1",
            "stepcast_webhook_events_total{type=\"validation_prompt\"} 1",
            "stepcast_webhook_events_total{type=\"step\"} 0",
            "stepcast_webhook_losses_total{why=\"log_dropped\"} 6",
            "stepcast_webhook_losses_total{why=\"unreadable\"} 2",
            "stepcast_step_duration_seconds_count{model=\"flux.dev/lora\",gpu=\"h100\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
