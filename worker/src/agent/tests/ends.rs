//! How attempts end and what is said on the way: success, kinds of failure, silence, progress.

use super::*;

#[test]
fn success_needs_both_the_stage_and_the_exit_code() {
    let outcome = |complete_seen: bool, code: i32| {
        let mut script = Script::running();
        script.step(1);
        if complete_seen {
            script.event(complete());
        }
        script.exit(ExitStatus::Code(code), &[]).outcome
    };
    assert_eq!(outcome(true, 0), Outcome::Succeeded);
    assert_eq!(outcome(false, 0), Outcome::Failed(Failure::TrainerError));
    assert_eq!(outcome(true, 1), Outcome::Failed(Failure::TrainerError));
}

#[test]
fn failures_are_told_apart() {
    struct Case(
        &'static str,
        Option<Event>,
        bool,
        ExitStatus,
        &'static [&'static str],
        Failure,
        &'static str,
    );
    use ExitStatus::{Code, Signal, Unseen, Unwatched};
    use Failure::{ConfigInvalid, OutOfMemory, TrainerError};
    let cuda = error(
        "Training failed: OutOfMemoryError",
        "CUDA out of memory. Tried to allocate 2 GiB",
    );
    let cases = [
        Case(
            "argparse",
            None,
            false,
            Code(2),
            &[
                "usage: train.py",
                "train.py: error: unrecognized arguments: --x",
            ],
            ConfigInvalid,
            "unrecognized",
        ),
        Case(
            "bad value",
            Some(error("Training failed: ValueError", "no such optimizer")),
            false,
            Code(1),
            &[],
            ConfigInvalid,
            "no such optimizer",
        ),
        Case(
            "bad value later",
            Some(error("Training failed: ValueError", "nan")),
            true,
            Code(1),
            &[],
            TrainerError,
            "nan",
        ),
        Case(
            "no dataset",
            Some(error("Training failed: FileNotFoundError", "no folder")),
            false,
            Code(1),
            &[],
            TrainerError,
            "no folder",
        ),
        Case(
            "gpu memory",
            Some(cuda),
            true,
            Code(1),
            &[],
            OutOfMemory,
            "2 GiB",
        ),
        Case(
            "killed by whomever",
            None,
            true,
            Signal(9),
            &[],
            TrainerError,
            "signal 9",
        ),
        Case(
            "killed after it said why",
            None,
            true,
            Signal(9),
            &["RuntimeError: unable to mmap: Cannot allocate memory (12)"],
            OutOfMemory,
            "mmap",
        ),
        Case(
            "memory in the log",
            None,
            false,
            Code(1),
            &["torch.OutOfMemoryError: x"],
            OutOfMemory,
            "torch",
        ),
        Case(
            "crash",
            None,
            true,
            Signal(11),
            &[],
            TrainerError,
            "signal 11",
        ),
        Case(
            "bad json",
            None,
            false,
            Code(1),
            &["", "json.decoder.JSONDecodeError: x"],
            TrainerError,
            "JSONDecodeError",
        ),
        Case(
            "exit 2 in training",
            None,
            true,
            Code(2),
            &[],
            TrainerError,
            "exited with 2",
        ),
        Case(
            "interrupted",
            Some(Event::Broken(Broken::Interrupted)),
            true,
            Code(0),
            &[],
            TrainerError,
            "interrupted",
        ),
        Case("guard lost", None, true, Unseen, &[], TrainerError, "guard"),
        Case(
            "watched no more",
            None,
            true,
            Unwatched,
            &["no port"],
            TrainerError,
            "a fault in the worker; its last words:\nno port",
        ),
    ];
    for Case(name, event, stepping, status, tail, failure, words) in cases {
        let mut script = Script::running();
        if stepping {
            script.step(1);
        }
        if let Some(event) = event {
            script.event(event);
        }
        let end = script.exit(status, tail);
        assert_eq!(end.outcome, Outcome::Failed(failure), "{name}");
        assert!(end.detail.contains(words), "{name}: {}", end.detail);
    }
}

#[test]
fn a_run_that_completes_while_being_stopped_still_succeeds() {
    let mut script = Script::running();
    script.step(100);
    script.input(Input::Stop {
        epoch: 5,
        why: Why::Cancelled,
        grace_ms: 60_000,
    });
    script.event(complete());
    assert_eq!(
        script.exit(ExitStatus::Code(0), &[]).outcome,
        Outcome::Succeeded
    );
}

/// As when an upload is tried again and again, with a line each time: it would never be taken for stuck.
#[test]
fn a_trainer_that_is_done_and_prints_on_is_ended_when_it_is_to_stop() {
    use Failure::Preempted;
    let done = || {
        let mut script = Script::running();
        script.step(100);
        script.event(complete());
        script
    };
    let cases = [
        (Why::Cancelled, 60_000, 60_000, Outcome::Cancelled),
        (Why::Draining, 5_000, 10_000, Outcome::Succeeded),
        (Why::PartOver, 0, 10_000, Outcome::Succeeded),
    ];
    for (why, grace_ms, ends_at, outcome) in cases {
        let mut script = done();
        let stop = Input::Stop {
            epoch: 5,
            why,
            grace_ms,
        };
        assert_eq!(script.input(stop), [], "it may still end by itself");
        assert_eq!(script.prints_until_output(120_000), [Output::Terminate(5)]);
        assert_eq!(script.now, ends_at, "{why:?}");
        let from = script.now;
        assert_eq!(script.prints_until_output(120_000), [Output::Kill(5)]);
        assert_eq!(script.now, from + 10_000);
        let end = script.exit(ExitStatus::Signal(9), &[]);
        assert_eq!(end.outcome, outcome, "{why:?}");
    }
    // One that fails by itself meanwhile has not succeeded.
    let mut script = done();
    script.input(Input::Drain { grace_ms: 60_000 });
    let end = script.exit(ExitStatus::Code(1), &[]);
    assert_eq!(end.outcome, Outcome::Failed(Preempted));
}

#[test]
fn the_time_limit_holds_for_a_trainer_that_is_done_and_prints_on() {
    let mut script = Script::default();
    script.input(limited(5, 500_000));
    script.renewed(0, &[5]);
    script.input(Input::Launched { epoch: 5, from: 0 });
    script.step(3);
    script.event(complete());
    assert_eq!(
        script.prints_until_output(2_000_000),
        [Output::Terminate(5)]
    );
    assert_eq!(
        script.now, 620_000,
        "the limit, and as long as a checkpoint may take"
    );
    let end = script.exit(ExitStatus::Signal(15), &[]);
    assert_eq!(end.outcome, Outcome::Succeeded, "all was saved before");
}

#[test]
fn silence_is_patience_by_phase() {
    let mut script = Script::running();
    assert_eq!(
        script.run_until_output(50 * 60_000, true),
        [],
        "a quiet download"
    );
    script.input(Input::Output(5));
    script.step(1);
    let from = script.now;
    assert_eq!(
        script.run_until_output(from + 3_600_000, true),
        [Output::Terminate(5)]
    );
    assert_eq!(script.now, from + 10 * 60_000);
    let end = script.exit(ExitStatus::Signal(15), &[]);
    assert_eq!(end.outcome, Outcome::Failed(Failure::Stuck));
    let mut script = Script::running();
    script.event(Event::Step {
        step: 1,
        total: 9,
        step_ms: Some(120_000.0),
        epoch: None,
    });
    assert_eq!(
        script.run_until_output(39 * 60_000, true),
        [],
        "twenty slow steps"
    );
    assert_eq!(
        script.run_until_output(41 * 60_000, true),
        [Output::Terminate(5)]
    );
}

#[test]
fn a_first_step_may_be_as_quiet_as_what_comes_before_it() {
    let mut script = Script::running();
    script.event(Event::Ready {
        step: 0,
        total: 9,
        batches: 9,
    });
    assert_eq!(
        script.run_until_output(50 * 60_000, true),
        [],
        "a compilation"
    );
    script.step(1);
    let from = script.now;
    assert_eq!(
        script.run_until_output(from + 3_600_000, true),
        [Output::Terminate(5)]
    );
    assert_eq!(script.now, from + 10 * 60_000);
}

#[test]
fn progress_is_sent_once_a_second_and_repeats_change_nothing() {
    let mut script = Script::running();
    let progress = |out: &[Output]| -> Vec<u64> {
        out.iter()
            .filter_map(|o| {
                if let Output::Progress(5, p) = o {
                    Some(p.step)
                } else {
                    None
                }
            })
            .collect()
    };
    assert_eq!(progress(&script.step(1)), [1]);
    script.now = 300;
    assert!(progress(&script.step(2)).is_empty());
    assert!(progress(&script.step(3)).is_empty());
    assert_eq!(script.agent.next_wake(), Some(1_000));
    assert_eq!(progress(&script.at(1_000, Input::Tick)), [3]);
    script.now = 5_000;
    assert!(progress(&script.step(3)).is_empty());
    assert!(progress(&script.step(2)).is_empty());
}

#[test]
fn a_run_that_makes_fewer_steps_than_it_announces_ends_at_all_of_them() {
    let totals = |made: u64, step: u64| -> Vec<u64> {
        let Input::Assigned(mut assigned) = assigned(5, 1) else {
            unreachable!("built by the harness")
        };
        let announced = 100;
        assigned.fewer_steps = Some(FewerSteps { announced, made });
        let mut script = Script::default();
        script.input(Input::Assigned(assigned));
        script.renewed(0, &[5]);
        script.input(Input::Launched { epoch: 5, from: 0 });
        let out = script.step(step);
        let said = out.into_iter().filter_map(|output| match output {
            Output::Progress(5, progress) => Some(progress.total),
            _ => None,
        });
        said.collect()
    };
    assert_eq!(totals(96, 1), [96]);
    assert_eq!(totals(96, 97), [100], "it makes more than was thought");
}

/// Ends an attempt that is complete, at 0.
fn complete_at_the_end() -> Script {
    let mut script = Script::running();
    script.step(1);
    script.event(complete());
    let end = script.exit(ExitStatus::Code(0), &[]);
    assert_eq!(end.outcome, Outcome::Succeeded);
    script
}

#[test]
fn a_lease_is_kept_until_the_end_is_on_the_disk() {
    let mut script = complete_at_the_end();
    let renewed = Output::Renew {
        renewal: 1,
        epochs: vec![5],
    };
    assert_eq!(script.at(10_000, Input::Tick), [renewed]);
    assert_eq!(script.renewed(1, &[5]), []);
    assert_eq!(script.input(Input::Kept(5)), []);
    assert_eq!(script.agent.next_wake(), None);
    assert_eq!(script.input(Input::Connected), []);
    assert_eq!(
        script.input(Input::Acknowledged(5)),
        [Output::Clean(5)],
        "it is reported until then"
    );
}

#[test]
fn a_disk_that_never_answers_keeps_no_lease_for_ever() {
    let mut script = complete_at_the_end();
    assert_eq!(script.run_until_output(2 * KEEPING_MS, true), []);
    assert_eq!(script.agent.next_wake(), None);
}

#[test]
fn a_lost_lease_is_not_asked_for_while_the_end_is_written() {
    let mut script = complete_at_the_end();
    script.at(10_000, Input::Tick);
    assert_eq!(script.renewed(1, &[]), []);
    assert_eq!(script.agent.next_wake(), None);
    let mut script = Script::running();
    script.at(10_000, Input::Tick);
    assert_eq!(script.renewed(1, &[]), [Output::Kill(5)]);
    script.exit(ExitStatus::Signal(9), &[]);
    assert_eq!(script.agent.next_wake(), None);
}

#[test]
fn an_attempt_ends_once() {
    let mut script = Script::default();
    script.input(assigned(5, 1));
    let failed = || Input::LaunchFailed {
        epoch: 5,
        failure: Failure::LaunchFailed,
        detail: "late".to_owned(),
    };
    end(script.input(failed()));
    assert_eq!(script.input(failed()), []);
}

#[test]
fn a_trainer_that_says_its_batches_is_told_of_the_steps_that_it_makes() {
    let Input::Assigned(mut assigned) = assigned(5, 1) else {
        unreachable!("built by the harness")
    };
    // What was planned for one bucket of pictures.
    assigned.fewer_steps = Some(FewerSteps {
        announced: 16,
        made: 14,
    });
    assigned.epochs = Some(Epochs {
        count: 4,
        accumulation: 2,
        held_out: 0,
    });
    let mut script = Script::default();
    script.input(Input::Assigned(assigned));
    script.renewed(0, &[5]);
    script.input(Input::Launched { epoch: 5, from: 0 });
    let out = script.event(Event::Ready {
        step: 0,
        total: 20,
        batches: 9,
    });
    let said: Vec<u64> = out
        .into_iter()
        .filter_map(|output| match output {
            Output::Progress(5, progress) => Some(progress.total),
            _ => None,
        })
        .collect();
    assert_eq!(said, [18]);
}
