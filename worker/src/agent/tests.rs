//! Scripts: inputs at given times, and what the machine said.

mod ends;
mod saving;

use super::*;
use crate::event::{Broken, Event, Stage, StageStatus};
use crate::reduce::{Measures, NoSample};

const TERM_MS: u64 = 30_000;
const MARGIN_MS: u64 = 3_000;

/// The machine with a clock; every answer is checked in full.
#[derive(Default)]
struct Script {
    agent: Agent,
    now: u64,
}

impl Script {
    /// An attempt that runs: assigned, renewed and launched at 0.
    fn running() -> Self {
        let mut script = Self::default();
        script.input(assigned(5, 1));
        script.renewed(0, &[5]);
        script.input(Input::Launched { epoch: 5, from: 3 });
        script
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.agent.handle(input, self.now)
    }

    fn at(&mut self, now: u64, input: Input) -> Vec<Output> {
        self.now = now;
        self.input(input)
    }

    fn renewed(&mut self, renewal: u64, epochs: &[Epoch]) -> Vec<Output> {
        self.input(Input::Renewed {
            renewal,
            epochs: epochs.to_vec(),
            term_ms: TERM_MS,
        })
    }

    fn event(&mut self, event: Event) -> Vec<Output> {
        self.input(Input::Event(
            5,
            Received {
                event,
                sent_ms: None,
            },
        ))
    }

    fn step(&mut self, step: u64) -> Vec<Output> {
        self.event(Event::Step {
            step,
            total: 100,
            step_ms: Some(1_000.0),
            epoch: Some(1),
        })
    }

    fn exit(&mut self, status: ExitStatus, tail: &[&str]) -> End {
        let tail = tail.iter().map(|line| (*line).to_owned()).collect();
        end(self.input(Input::Exited {
            epoch: 5,
            exit: Exit { status, tail },
        }))
    }

    /// Ticks whenever the machine wants to, until it says something but renewals and progress, or until `limit`.
    /// Renewals are granted when `connected`.
    fn run_until_output(&mut self, limit: u64, connected: bool) -> Vec<Output> {
        while let Some(wake) = self.agent.next_wake().filter(|&wake| wake <= limit) {
            self.now = self.now.max(wake);
            let mut out = self.input(Input::Tick);
            for output in &out {
                if let (Output::Renew { renewal, epochs }, true) = (output, connected) {
                    let more = self.agent.handle(
                        Input::Renewed {
                            renewal: *renewal,
                            epochs: epochs.clone(),
                            term_ms: TERM_MS,
                        },
                        self.now,
                    );
                    assert!(
                        more.iter()
                            .all(|output| matches!(output, Output::Deadline { .. })),
                        "{more:?}"
                    );
                }
            }
            out.retain(|output| !matches!(output, Output::Renew { .. } | Output::Progress(..)));
            if !out.is_empty() {
                return out;
            }
        }
        self.now = limit;
        Vec::new()
    }

    /// The same with a trainer that prints a line every second.
    fn prints_until_output(&mut self, limit: u64) -> Vec<Output> {
        while self.now < limit {
            let out = self.run_until_output((self.now + 1_000).min(limit), true);
            if !out.is_empty() {
                return out;
            }
            assert_eq!(self.input(Input::Output(5)), []);
        }
        Vec::new()
    }
}

fn assigned(epoch: Epoch, job: u64) -> Input {
    Input::Assigned(Box::new(Assigned {
        epoch,
        job: job.to_string(),
        lease_term_ms: TERM_MS,
        max_runtime_ms: None,
        is_gang: false,
        is_follower: false,
        fewer_steps: None,
        epochs: None,
        reducer: Reducer::new(Measures::nothing(NoSample::NoKey)),
    }))
}

fn limited(epoch: Epoch, max_runtime_ms: u64) -> Input {
    let Input::Assigned(mut assigned) = assigned(epoch, 1) else {
        unreachable!("built just above")
    };
    assigned.max_runtime_ms = Some(max_runtime_ms);
    Input::Assigned(assigned)
}

fn end(outputs: Vec<Output>) -> End {
    let ends = outputs.into_iter().filter_map(|output| {
        if let Output::End(5, end) = output {
            Some(*end)
        } else {
            None
        }
    });
    let mut ends: Vec<End> = ends.collect();
    assert_eq!(ends.len(), 1, "exactly one end");
    ends.remove(0)
}

fn complete() -> Event {
    Event::Stage {
        stage: Stage::TrainingComplete,
        status: StageStatus::Completed,
    }
}

fn error(title: &str, message: &str) -> Event {
    Event::Error {
        title: title.to_owned(),
        message: message.to_owned(),
    }
}

#[test]
fn nothing_runs_before_the_first_renewal_is_answered() {
    let mut script = Script::default();
    assert_eq!(
        script.input(assigned(5, 1)),
        [Output::Renew {
            renewal: 0,
            epochs: vec![5]
        }]
    );
    script.now = 400;
    // Counted from 0, when the renewal was sent.
    let in_ms = TERM_MS - MARGIN_MS - 400;
    assert_eq!(
        script.renewed(0, &[5]),
        [Output::Launch { epoch: 5, in_ms }]
    );
    let out = script.at(1_000, Input::Launched { epoch: 5, from: 0 });
    // Counted from 0, when the renewal was sent: not from 400, when the answer came.
    assert_eq!(
        out,
        [
            Output::Deadline {
                epoch: 5,
                in_ms: TERM_MS - MARGIN_MS - 1_000
            },
            Output::Started { epoch: 5, from: 0 }
        ]
    );
    assert_eq!(
        script.renewed(0, &[5]),
        [],
        "a repeated answer changes nothing"
    );
    assert_eq!(
        script.input(assigned(5, 1)),
        [],
        "nor does a repeated assignment"
    );
}

#[test]
fn an_assignment_that_is_refused_or_never_confirmed_does_not_run() {
    let mut script = Script::default();
    script.input(assigned(5, 1));
    assert_eq!(end(script.renewed(0, &[])).outcome, Outcome::LeaseExpired);
    let mut script = Script::default();
    script.input(assigned(5, 1));
    assert_eq!(
        end(script.run_until_output(TERM_MS, false)).outcome,
        Outcome::LeaseExpired
    );
    assert!(script.now < TERM_MS);
}

#[test]
fn a_partitioned_worker_ends_its_trainer_before_the_lease_ends() {
    let mut script = Script::running();
    assert_eq!(
        script.run_until_output(TERM_MS, false),
        [Output::Terminate(5)]
    );
    assert_eq!(script.now, TERM_MS - 2 * MARGIN_MS);
    assert_eq!(script.run_until_output(TERM_MS, false), [Output::Kill(5)]);
    assert_eq!(script.now, TERM_MS - MARGIN_MS);
    assert_eq!(
        script.exit(ExitStatus::Signal(9), &[]).outcome,
        Outcome::LeaseExpired
    );
}

#[test]
fn a_connected_worker_renews_for_hours() {
    let mut script = Script::running();
    for step in 1..=100 {
        script.step(step);
        assert_eq!(script.run_until_output(script.now + 300_000, true), []);
    }
    script.event(complete());
    assert_eq!(
        script.exit(ExitStatus::Code(0), &[]).outcome,
        Outcome::Succeeded
    );
}

#[test]
fn a_refused_renewal_and_a_newer_epoch_of_the_job_kill_at_once() {
    let mut script = Script::running();
    let out = script.at(10_000, Input::Tick);
    assert_eq!(
        out,
        [Output::Renew {
            renewal: 1,
            epochs: vec![5]
        }]
    );
    assert_eq!(script.renewed(1, &[]), [Output::Kill(5)]);
    let mut script = Script::running();
    let out = script.input(assigned(8, 1));
    assert_eq!(
        out,
        [
            Output::Kill(5),
            Output::Renew {
                renewal: 1,
                epochs: vec![5, 8]
            }
        ]
    );
    assert_eq!(
        script.input(assigned(3, 1)),
        [],
        "an older epoch is ignored"
    );
}

#[test]
fn a_new_connection_renews_at_once_and_says_again_what_runs() {
    let mut script = Script::running();
    script.input(assigned(6, 2));
    script.now = 50;
    let out = script.input(Input::Connected);
    assert_eq!(
        out,
        [
            Output::Started { epoch: 5, from: 3 },
            Output::Renew {
                renewal: 2,
                epochs: vec![5, 6]
            }
        ]
    );
}

#[test]
fn cancelling_saves_a_checkpoint_then_asks_then_kills() {
    let mut script = Script::running();
    script.step(7);
    let stop = || Input::Stop {
        epoch: 5,
        why: Why::Cancelled,
        grace_ms: 60_000,
    };
    assert_eq!(script.input(stop()), [Output::RequestCheckpoint(5)]);
    assert_eq!(script.input(stop()), [], "asked twice, done once");
    let out = script.event(Event::Checkpoint { step: Some(7) });
    assert_eq!(
        out,
        [
            Output::Checkpointed { epoch: 5, step: 7 },
            Output::Terminate(5)
        ]
    );
    let from = script.now;
    assert_eq!(
        script.run_until_output(from + 60_000, true),
        [Output::Kill(5)]
    );
    assert_eq!(script.now, from + 10_000);
    let end = script.exit(ExitStatus::Signal(9), &[]);
    assert_eq!((end.outcome, end.step), (Outcome::Cancelled, 7));
    assert_eq!(script.input(Input::Acknowledged(5)), [Output::Clean(5)]);
    assert!(script.agent.is_empty());
}

#[test]
fn a_checkpoint_that_does_not_come_is_not_waited_for_longer_than_granted() {
    let mut script = Script::running();
    script.step(7);
    script.input(Input::Stop {
        epoch: 5,
        why: Why::Preempted,
        grace_ms: 45_000,
    });
    assert_eq!(
        script.run_until_output(100_000, true),
        [Output::Terminate(5)]
    );
    assert_eq!(script.now, 45_000);
    assert_eq!(
        script.exit(ExitStatus::Signal(15), &[]).outcome,
        Outcome::Failed(Failure::Preempted)
    );
}

#[test]
fn before_the_first_step_there_is_nothing_to_save() {
    let mut script = Script::running();
    assert_eq!(
        script.input(Input::Drain { grace_ms: 60_000 }),
        [Output::Terminate(5)]
    );
    let refused = script.input(assigned(9, 2));
    assert!(
        matches!(&refused[..], [Output::End(9, end)] if end.outcome == Outcome::Failed(Failure::Preempted))
    );
}

#[test]
fn a_cancel_while_launching_ends_what_is_started_after_all() {
    let mut script = Script::default();
    script.input(assigned(5, 1));
    let in_ms = TERM_MS - MARGIN_MS;
    assert_eq!(
        script.renewed(0, &[5]),
        [Output::Launch { epoch: 5, in_ms }]
    );
    let stop = Input::Stop {
        epoch: 5,
        why: Why::Cancelled,
        grace_ms: 60_000,
    };
    assert_eq!(script.input(stop), [Output::Terminate(5)]);
    assert_eq!(
        script.input(Input::Launched { epoch: 5, from: 0 }),
        [Output::Terminate(5)]
    );
    let failed = Input::LaunchFailed {
        epoch: 5,
        failure: Failure::LaunchFailed,
        detail: "stopped".to_owned(),
    };
    assert_eq!(end(script.input(failed)).outcome, Outcome::Cancelled);
}

#[test]
fn the_time_limit_counts_from_the_launch_and_saves_first() {
    let mut script = Script::default();
    script.input(limited(5, 500_000));
    script.renewed(0, &[5]);
    script.at(1_000, Input::Launched { epoch: 5, from: 0 });
    script.step(3);
    assert_eq!(
        script.run_until_output(2_000_000, true),
        [Output::RequestCheckpoint(5)]
    );
    assert_eq!(script.now, 501_000);
    assert_eq!(
        script.run_until_output(2_000_000, true),
        [Output::Terminate(5)]
    );
    assert_eq!(
        script.exit(ExitStatus::Signal(15), &[]).outcome,
        Outcome::Failed(Failure::MaxRuntime)
    );
}

#[test]
fn attempts_do_not_touch_each_other() {
    let mut script = Script::running();
    script.input(assigned(6, 2));
    let in_ms = TERM_MS - MARGIN_MS;
    assert_eq!(
        script.renewed(1, &[5, 6]),
        [Output::Launch { epoch: 6, in_ms }]
    );
    let failed = Input::LaunchFailed {
        epoch: 6,
        failure: Failure::StagingMissing,
        detail: "gone".to_owned(),
    };
    let out = script.input(failed);
    assert!(
        matches!(&out[..], [Output::End(6, end)] if end.outcome == Outcome::Failed(Failure::StagingMissing))
    );
    assert_eq!(
        script.input(Input::Acknowledged(5)),
        [],
        "a running attempt is not forgotten"
    );
    script.step(1);
    script.event(complete());
    assert_eq!(
        script.exit(ExitStatus::Code(0), &[]).outcome,
        Outcome::Succeeded
    );
    script.input(Input::Kept(5));
    script.input(Input::Kept(6));
    assert_eq!(script.agent.next_wake(), None);
}
