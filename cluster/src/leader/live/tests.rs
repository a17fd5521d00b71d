//! Of the live board: how an attempt is timed, and what is kept of how many.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn training(step: u64) -> Progress {
    Progress {
        step,
        steps_total: 1_000,
        step_ms: None,
        phase: Phase::Training,
    }
}

#[test]
fn an_attempt_that_goes_on_elsewhere_is_timed_by_its_own_steps_and_by_those_before() {
    let board = LiveBoard::default();
    let hardware: Hardware = "h100".parse().unwrap();
    let begun = |at_ms, step| Begun {
        worker: WorkerId(1),
        hardware,
        course: None,
        at_ms,
        step,
    };
    let (job, other) = (JobId(1), JobId(2));
    assert!(!board.is_timed(Epoch(1)));
    assert_eq!(
        board.progress(job, Epoch(1), training(1), 0),
        None,
        "nobody said when it began"
    );
    board.begin(job, Epoch(1), begun(0, 0));
    board.begin(other, Epoch(2), begun(0, 0));
    assert!(board.is_timed(Epoch(1)));
    let mut left = None;
    for step in 1..=101 {
        left = board.progress(job, Epoch(1), training(step), step * 500);
        board.progress(other, Epoch(2), training(step), step * 3_000);
    }
    assert_eq!(left.unwrap().p50, 899 * 500);
    assert_eq!(board.left(job, Epoch(1), 101 * 500), left);
    assert_eq!(board.left(other, Epoch(1), 101 * 500), None);
    assert_eq!(board.get(Epoch(1), 101 * 500).unwrap().left, left);
    board.begin(job, Epoch(7), begun(100_000, 100));
    let again = board.progress(job, Epoch(7), training(100), 160_000);
    assert_eq!(again.unwrap().p50, 900 * 500, "as the attempt before");
    let mut again = None;
    for step in 101..=200 {
        again = board.progress(
            job,
            Epoch(7),
            training(step),
            160_000 + (step - 100) * 1_000,
        );
    }
    let p50 = again.unwrap().p50;
    assert!((700_000..=800_000).contains(&p50), "slower here: {p50}");
}

/// What the state says may be older: the word of the attempt's worker is on its way into the log, or has no place there.
#[test]
fn what_is_left_goes_by_the_step_that_the_worker_has_said() {
    let begun = |step| Begun {
        worker: WorkerId(1),
        hardware: "h100".parse().unwrap(),
        course: Some(Course {
            step_ms: Some(Quantiles {
                p10: 450,
                p50: 500,
                p90: 550,
            }),
            steps: 1_000,
            ..Course::default()
        }),
        at_ms: 0,
        step,
    };
    let loading = Progress {
        phase: Phase::Loading,
        ..training(0)
    };
    let left = |said: Option<u64>, step| {
        let board = LiveBoard::default();
        if let Some(said) = said {
            board.goes_on_from(JobId(1), Epoch(1), said);
            assert!(!board.is_timed(Epoch(1)));
        }
        board.begin(JobId(1), Epoch(1), begun(step));
        board
            .progress(JobId(1), Epoch(1), loading, 1_000)
            .unwrap()
            .p50
    };
    assert_eq!(left(Some(0), 120), left(None, 0));
    assert_eq!(left(None, 120) + 120 * 500, left(None, 0));
}

#[test]
fn a_worker_whose_attempts_take_longer_than_those_of_others_is_told_as_slow() {
    let board = LiveBoard::default();
    let ms = Quantiles {
        p10: 450,
        p50: 500,
        p90: 550,
    };
    let course = Course {
        step_ms: Some(ms),
        steps: 1_000,
        ..Course::default()
    };
    let slow = WorkerId(3);
    for epoch in 1..=60 {
        let worker = WorkerId(epoch % 4);
        let begun = Begun {
            worker,
            hardware: "h100".parse().unwrap(),
            course: Some(course),
            at_ms: 0,
            step: 0,
        };
        board.begin(JobId(epoch), Epoch(epoch), begun);
        let step_ms = if worker == slow { 750 } else { 500 };
        for step in 1..=80 {
            board.progress(JobId(epoch), Epoch(epoch), training(step), step * step_ms);
        }
    }
    let drifting = board.drifting();
    assert!(drifting[&slow] > 1_150, "{drifting:?}");
    assert!(
        drifting
            .iter()
            .all(|(worker, drift)| *worker == slow || *drift < AS_EXPECTED)
    );
    board.clear();
    assert!(board.drifting().is_empty(), "another node leads");
}

/// Of all that run the progress and the pace are kept: the state bounds how many that are.
#[test]
fn however_many_run_each_is_timed_by_its_own_steps() {
    let board = LiveBoard::default();
    let running = 20_000;
    for epoch in 0..running {
        let begun = Begun {
            worker: WorkerId(epoch),
            hardware: "h100".parse().unwrap(),
            course: None,
            at_ms: 0,
            step: 0,
        };
        board.begin(JobId(epoch), Epoch(epoch), begun);
        board.lines(JobId(epoch), Epoch(epoch), vec!["line".to_owned()]);
    }
    for step in 1..=10 {
        for epoch in (0..running).step_by(1_000) {
            let now_ms = step * (500 + epoch);
            board.progress(JobId(epoch), Epoch(epoch), training(step), now_ms);
        }
    }
    for epoch in (0..running).step_by(1_000) {
        let live = board.get(Epoch(epoch), 10 * (500 + epoch)).unwrap();
        assert_eq!(live.progress, Some(training(10)));
        assert_eq!(live.left.unwrap().p50, 990 * (500 + epoch));
        assert_eq!(live.lines, ["line"]);
    }
    board.forget_ended(|_| true);
    assert!(board.is_timed(Epoch(0)));
}

#[test]
fn of_those_that_have_ended_the_newest_are_kept() {
    let board = LiveBoard::default();
    let all = 4 * ENDED as u64;
    for epoch in 0..all {
        board.lines(JobId(epoch), Epoch(epoch), vec!["line".to_owned()]);
    }
    board.forget_ended(|epoch| epoch == Epoch(9));
    let kept = |epoch| board.get(Epoch(epoch), 0).is_some();
    assert!(kept(9) && !kept(10));
    assert!(!kept(all - 1 - ENDED as u64) && kept(all - ENDED as u64));
    let inner = board.board.lock();
    assert_eq!(inner.attempts.len(), ENDED + 1);
    assert_eq!(inner.of_jobs.len(), ENDED + 1);
    assert_eq!(inner.lines.attempts(), ENDED + 1);
}
