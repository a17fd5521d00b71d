//! Tests of `watch`: what a person sees while a job runs.

use stepcast_proto::v1::TimeQuantiles;

use super::*;
use crate::output::style::Signs;

fn output() -> Output {
    Output {
        json: false,
        drawn: true,
        telling: false,
        live: false,
        asks: false,
        columns: 100,
        signs: Signs { unicode: true },
    }
}

fn event(seq: u64, kind: &str, state: JobState) -> JobEvent {
    JobEvent {
        seq,
        kind: kind.to_owned(),
        state: state.into(),
        attempt: 1,
        worker: "workers/w1".to_owned(),
        ..JobEvent::default()
    }
}

#[test]
fn a_placement_reads_as_a_change_of_state() {
    let output = output();
    let mut watcher = Watcher::new(&output, "jobs/4f2a");
    watcher.job.state = JobState::Pending.into();
    let placed = event(1, "PLACED", JobState::Running);
    watcher.apply(&placed);
    assert_eq!(
        event_line(&placed, &watcher.job, JobState::Pending),
        "pending -> running (attempt 1, w1)"
    );
}

#[test]
fn an_event_that_comes_twice_is_taken_once() {
    let output = output();
    let mut watcher = Watcher::new(&output, "jobs/4f2a");
    for _ in 0..2 {
        watcher
            .event(&event(3, "PLACED", JobState::Running))
            .expect("shown");
    }
    assert_eq!(watcher.job.attempts.len(), 1);
}

#[test]
fn the_screen_shows_stages_and_the_bar() {
    let output = output();
    let mut watcher = Watcher::new(&output, "jobs/4f2a");
    watcher.apply(&event(1, "PLACED", JobState::Running));
    let training = Progress {
        step: 1650,
        steps_total: 3000,
        step_ms: Some(1410.0),
        phase: Phase::Training.into(),
        remaining_time: Some(TimeQuantiles {
            p50: Some(prost_types::Duration {
                seconds: 1_904,
                nanos: 0,
            }),
            ..TimeQuantiles::default()
        }),
        ..Progress::default()
    };
    watcher.tenth = 10;
    watcher.progress(training).expect("shown");
    let screen = anstream::adapter::strip_str(&watcher.screen()).to_string();
    assert!(
        screen.contains("▸ training [###########.........] 1,650 / 3,000   1.41 s/step   32m left"),
        "{screen}"
    );
}

#[test]
fn lines_of_the_trainer_take_the_place_of_what_is_drawn_again() {
    let output = Output {
        live: true,
        ..output()
    };
    let mut watcher = Watcher::new(&output, "jobs/4f2a");
    watcher.live.draw(&watcher.screen());
    assert!(watcher.live.is_drawn());
    let log = LogLines {
        epoch: 7,
        lines: vec!["step 10".to_owned()],
    };
    watcher.log(&log).expect("shown");
    // Else the next drawing would go up into them.
    assert!(!watcher.live.is_drawn());
    watcher.take(Update::Log(log)).expect("shown");
    assert!(watcher.live.is_drawn(), "it is drawn below them at once");
}

#[test]
fn an_attempt_that_begins_anew_says_its_tenths_again() {
    let output = output();
    let mut watcher = Watcher::new(&output, "jobs/4f2a");
    let at = |epoch, step| Progress {
        epoch,
        step,
        steps_total: 100,
        phase: Phase::Training.into(),
        ..Progress::default()
    };
    watcher.apply(&event(1, "PLACED", JobState::Running));
    watcher.progress(at(1, 95)).expect("shown");
    assert_eq!(watcher.tenth, 9);
    watcher.apply(&event(2, "PLACED", JobState::Running));
    watcher.progress(at(2, 20)).expect("shown");
    assert_eq!(watcher.tenth, 2, "it was said");
}

#[test]
fn lines_that_a_stream_begins_with_again_are_told_once() {
    let output = output();
    let mut watcher = Watcher::new(&output, "jobs/4f2a");
    let job = || {
        Box::new(Job {
            state: JobState::Running.into(),
            ..Job::default()
        })
    };
    let log = |numbers: std::ops::Range<u32>| LogLines {
        epoch: 7,
        lines: numbers.map(|number| format!("step {number}")).collect(),
    };
    watcher.take(Update::Current(job())).expect("shown");
    watcher.take(Update::Log(log(0..3))).expect("shown");
    watcher.take(Update::Current(job())).expect("shown");
    assert_eq!(watcher.lines.take(&log(1..5)), ["step 3", "step 4"]);
}
