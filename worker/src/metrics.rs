//! What a worker measures of itself, in the text format that Prometheus reads. It names no job and no attempt.

mod port;
mod steps;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::port::Error as PortError;
pub(crate) use self::port::{Answer, Port};
use self::steps::Steps;
use crate::event::Event;
use crate::webhook::Lost;

/// Which program this is; always 1.
const BUILD_INFO: &str = "stepcast_build_info";
/// Whether the stream to a leader is open.
const CONNECTED: &str = "stepcast_worker_connected";
/// Attempts that this worker has taken and whose end is not acknowledged.
const ATTEMPTS: &str = "stepcast_worker_attempts";
/// What waits to be taken by the leader: facts about attempts, and samples.
const OUTBOX_PENDING: &str = "stepcast_outbox_pending";
/// Webhooks of trainers, by what they say.
const WEBHOOK_EVENTS_TOTAL: &str = "stepcast_webhook_events_total";
/// Webhooks that went no further, by why.
const WEBHOOK_LOSSES_TOTAL: &str = "stepcast_webhook_losses_total";
/// Times of training steps, as their trainers say them.
const STEP_DURATION_SECONDS: &str = "stepcast_step_duration_seconds";

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
        let version = env!("CARGO_PKG_VERSION");
        let commit = COMMIT.unwrap_or("unknown");
        let mut text = Text::default();
        text.kind(BUILD_INFO, "gauge");
        text.number(
            BUILD_INFO,
            &format!("version=\"{version}\",commit=\"{commit}\""),
            1,
        );
        text.kind(CONNECTED, "gauge");
        text.number(CONNECTED, "", u64::from(moment.connected));
        text.kind(ATTEMPTS, "gauge");
        let attempts = self.attempts.load(Ordering::Relaxed);
        text.number(ATTEMPTS, "", attempts as u64);
        text.kind(OUTBOX_PENDING, "gauge");
        text.number(OUTBOX_PENDING, "what=\"reports\"", moment.reports as u64);
        text.number(OUTBOX_PENDING, "what=\"samples\"", moment.samples as u64);
        text.kind(WEBHOOK_EVENTS_TOTAL, "counter");
        for (name, count) in TYPES.iter().zip(numbers.events) {
            text.number(WEBHOOK_EVENTS_TOTAL, &format!("type=\"{name}\""), count);
        }
        text.kind(WEBHOOK_LOSSES_TOTAL, "counter");
        for (why, count) in [
            ("queue_full", numbers.losses.events),
            ("log_dropped", numbers.losses.logs),
            ("unreadable", numbers.losses.unreadable),
        ] {
            text.number(WEBHOOK_LOSSES_TOTAL, &format!("why=\"{why}\""), count);
        }
        text.kind(STEP_DURATION_SECONDS, "histogram");
        for ((recipe, gpu), steps) in &numbers.steps {
            let labels = format!("model=\"{recipe}\",gpu=\"{gpu}\"");
            steps.write(&mut text, STEP_DURATION_SECONDS, &labels);
        }
        text.0
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Numbers are whole after any panic.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn kind(&mut self, name: &str, kind: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
    }

    fn number(&mut self, name: &str, labels: &str, value: u64) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
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
        });
        for line in [
            "stepcast_worker_connected 1",
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
