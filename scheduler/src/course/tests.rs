//! What is left of runs whose true pace is known.

use proptest::prelude::*;

use super::*;

/// Steps take the expected second, within a factor of 1.5 in eight of ten cases.
fn course() -> Course {
    Course {
        set_up_ms: spread(100_000),
        step_ms: Some(spread(1_000)),
        steps: 1_000,
        pass_ms: Some(spread(20_000)),
        passes: 10,
        early_passes: 0,
        pass_every: 100,
        unvalidated: 0,
        save_ms: spread(5_000),
        checkpoints: 4,
    }
}

fn spread(ms: u64) -> Quantiles {
    Quantiles {
        p10: ms * 2 / 3,
        p50: ms,
        p90: ms * 3 / 2,
    }
}

fn at(step: u64, doing: Doing) -> Heard {
    Heard {
        step,
        steps: 1_000,
        doing,
    }
}

/// An attempt that has stepped from one step to another at this pace, and the time it is then.
fn stepped(mut pace: Pace, from: u64, to: u64, step_ms: u64, mut now_ms: u64) -> (Pace, u64) {
    for step in from..=to {
        pace.hear(at(step, Doing::Stepping), now_ms);
        now_ms += step_ms;
    }
    (pace, now_ms - step_ms)
}

#[test]
fn before_the_first_word_everything_is_left_but_what_was_waited() {
    let pace = Pace::begun(5_000, 0);
    let left = |now_ms| pace.left(Some(&course()), now_ms).expect("known").p50;
    // Set-up, 1,000 steps, 10 passes, 4 checkpoints and the end.
    assert_eq!(left(5_000), 100_000 + 1_000_000 + 200_000 + 25_000);
    assert_eq!(left(45_000), left(5_000) - 40_000);
    let late = left(5_000_000);
    assert!(late >= 1_225_000, "what is overdue is not over: {late}");
    assert_eq!(pace.left(None, 5_000), None);
}

#[test]
fn ten_steps_of_its_own_say_more_than_an_estimate_that_is_off_by_two() {
    let (pace, now_ms) = stepped(Pace::begun(0, 0), 1, 3, 2_000, 100_000);
    let early = pace.left(Some(&course()), now_ms).expect("known").p50;
    let (pace, now_ms) = stepped(Pace::begun(0, 0), 1, 13, 2_000, 100_000);
    let left = pace.left(Some(&course()), now_ms).expect("known");
    let steps_ms = |left: u64| left - 25_000 - 200_000;
    assert!(
        (1_900_000..2_000_000).contains(&steps_ms(left.p50)),
        "{left:?}"
    );
    assert!(early < left.p50, "one step alone moves it less: {early}");
    assert!(left.p10 < left.p50 && left.p50 < left.p90);
}

#[test]
fn the_interval_narrows_with_every_step_down_to_how_a_run_drifts() {
    let width = |steps: u64| {
        let (pace, now_ms) = stepped(Pace::begun(0, 0), 1, 3 + steps, 1_000, 0);
        let course = Course {
            pass_ms: None,
            save_ms: Quantiles::default(),
            ..course()
        };
        let left = pace.left(Some(&course), now_ms).expect("known");
        left.p90 as f64 / left.p10 as f64
    };
    assert!(width(1) > width(5) && width(5) > width(50));
    assert!((1.07..1.15).contains(&width(400)), "{}", width(400));
}

#[test]
fn without_any_history_its_own_steps_are_enough() {
    let (pace, now_ms) = stepped(Pace::begun(0, 0), 1, 2, 500, 0);
    assert_eq!(pace.left(None, now_ms), None, "warm-up");
    let (pace, now_ms) = stepped(Pace::begun(0, 0), 1, 100, 500, 0);
    let left = pace.left(None, now_ms).expect("known");
    assert_eq!(left.p50, 450_000);
}

#[test]
fn a_slow_first_step_says_nothing_of_the_others() {
    let left = |first: &[(u64, u64)]| {
        let mut pace = Pace::begun(0, 0);
        for &(step, at_ms) in first {
            pace.hear(at(step, Doing::Stepping), at_ms);
        }
        let &(step, at_ms) = first.last().expect("a report");
        let (pace, now_ms) = stepped(pace, step + 1, 12, 1_000, at_ms + 1_000);
        pace.left(Some(&course()), now_ms).expect("known").p50
    };
    let usual = left(&[(0, 0), (1, 1_000), (2, 2_000)]);
    // Twenty seconds in which kernels are compiled and chosen, told of by themselves or together with what followed.
    assert_eq!(left(&[(0, 0), (1, 20_000), (2, 21_000)]), usual);
    assert_eq!(left(&[(0, 0), (2, 21_000)]), usual);
    assert!(left(&[(0, 0), (3, 22_000)]).abs_diff(usual) < usual / 100);
}

#[test]
fn validation_and_saving_are_not_taken_for_steps() {
    let (mut pace, now_ms) = stepped(Pace::begun(0, 0), 1, 100, 1_000, 0);
    pace.hear(at(100, Doing::Validating), now_ms);
    let before = pace.left(Some(&course()), now_ms).expect("known").p50;
    let half = pace
        .left(Some(&course()), now_ms + 10_000)
        .expect("known")
        .p50;
    assert_eq!(before - half, 10_000, "a pass goes by");
    pace.hear(at(100, Doing::Stepping), now_ms + 80_000);
    let (pace, now_ms) = stepped(pace, 101, 110, 1_000, now_ms + 81_000);
    let left = pace.left(Some(&course()), now_ms).expect("known").p50;
    // 890 steps of one second, and nine passes that take 80 s and not 20.
    let passes = left - 890_000 - 25_000;
    assert!((9 * 50_000..=9 * 80_000).contains(&passes), "{passes}");
}

/// As SimpleTuner makes them: one before the first step, then one after every twentieth step, the last of them included.
#[test]
fn a_pass_is_left_until_it_has_begun() {
    let every = Course {
        passes: 3,
        early_passes: 1,
        pass_every: 20,
        ..Course::default()
    };
    let evenly = Course {
        pass_every: 0,
        ..every
    };
    for course in [every, evenly] {
        let left = |doing, done| course.passes_left(doing, done, 40);
        assert_eq!(left(Doing::SettingUp, 0), 3);
        assert_eq!(left(Doing::Validating, 0), 2);
        for done in 0..20 {
            assert_eq!(left(Doing::Stepping, done), 2, "{done}");
        }
        assert_eq!(left(Doing::Validating, 20), 1);
        for done in 20..40 {
            assert_eq!(left(Doing::Stepping, done), 1, "{done}");
        }
        assert_eq!(left(Doing::Validating, 40), 0);
    }
    // Of 50 steps the last ten have none, and of those that begin after the 30th step the first is not made.
    assert_eq!(every.passes_left(Doing::Stepping, 41, 50), 0);
    let late = Course { passes: 2, ..every };
    for (done, left) in [(1, 1), (21, 1), (39, 1), (40, 0)] {
        assert_eq!(late.passes_left(Doing::Stepping, done, 40), left, "{done}");
    }
    // With accumulation the last step has none.
    let short = Course {
        unvalidated: 1,
        ..late
    };
    for (done, left) in [(1, 1), (19, 1), (20, 0), (39, 0), (40, 0)] {
        let told = short.passes_left(Doing::Stepping, done, 40);
        assert_eq!(told, left, "{done}");
    }
    assert_eq!(Course::default().passes_left(Doing::Stepping, 1, 40), 0);
}

#[test]
fn a_job_that_goes_on_keeps_its_steps_and_what_they_showed() {
    let (first, _) = stepped(Pace::begun(0, 0), 1, 500, 2_000, 0);
    let again = Pace::begun(2_000_000, 400).after(&first);
    let left = again.left(Some(&course()), 2_000_000).expect("known").p50;
    // 600 steps of two seconds are left, six passes, two checkpoints and the end, and the set-up again.
    let steps = left - 100_000 - 120_000 - 15_000;
    assert!((1_150_000..=1_200_000).contains(&steps), "{steps}");
    let fresh = Pace::begun(2_000_000, 400).left(Some(&course()), 2_000_000);
    assert_eq!(
        fresh.expect("known").p50,
        100_000 + 600_000 + 120_000 + 15_000
    );
}

#[test]
fn a_run_that_changes_its_pace_is_followed() {
    let (pace, now_ms) = stepped(Pace::begun(0, 0), 1, 300, 1_000, 0);
    let (pace, now_ms) = stepped(pace, 301, 900, 2_000, now_ms + 2_000);
    let left = pace.left(None, now_ms).expect("known").p50;
    assert!(
        (180_000..=200_000).contains(&left),
        "100 steps of two seconds: {left}"
    );
}

#[test]
fn a_late_report_changes_nothing() {
    let (mut pace, now_ms) = stepped(Pace::begun(0, 0), 1, 50, 1_000, 0);
    let before = pace.left(Some(&course()), now_ms);
    pace.hear(at(20, Doing::Stepping), now_ms);
    assert_eq!(pace.left(Some(&course()), now_ms), before);
    pace.hear(at(1_000, Doing::Done), now_ms);
    assert_eq!(
        pace.left(Some(&course()), now_ms),
        Some(Quantiles::default())
    );
}

fn any_doing() -> impl Strategy<Value = Doing> {
    prop::sample::select(vec![
        Doing::SettingUp,
        Doing::Stepping,
        Doing::Validating,
        Doing::Saving,
        Doing::Done,
    ])
}

proptest! {
    /// Whatever is reported, the three points are in order, and time alone never makes the rest longer.
    #[test]
    fn points_stay_in_order_and_waiting_never_adds(
        reports in prop::collection::vec((0u64..2_000, 0u64..2_000, any_doing(), 0u64..100_000), 0..40),
        waited in 0u64..1_000_000,
        is_expected in any::<bool>(),
    ) {
        let (mut pace, mut now_ms) = (Pace::begun(0, 7), 0);
        for (step, steps, doing, after) in reports {
            now_ms += after;
            pace.hear(Heard { step, steps, doing }, now_ms);
        }
        let course = course();
        let expected = is_expected.then_some(&course);
        if let Some(left) = pace.left(expected, now_ms) {
            prop_assert!(left.p10 <= left.p50 && left.p50 <= left.p90, "{left:?}");
            let later = pace.left(expected, now_ms + waited).expect("known before");
            prop_assert!(later.p50 <= left.p50 && later.p90 <= left.p90, "{left:?} {later:?}");
        }
    }
}
