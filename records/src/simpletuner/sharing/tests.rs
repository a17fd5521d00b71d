//! What is drawn from data sets, and what several GPUs make of a pass.

use proptest::prelude::*;

use super::*;

fn dealt_out(validation_prompts: u32) -> Sharing {
    Sharing {
        validation_prompts,
        ..Sharing::default()
    }
}

#[test]
fn prompts_are_dealt_out_where_each_gpu_gets_one() {
    let in_turn =
        |prompts, images, gpus, group| dealt_out(prompts).images_in_turn(images, gpus, group);
    // Two images of each of five prompts, in three passes.
    assert_eq!(in_turn(5, 30, 1, 1), 30);
    assert_eq!(in_turn(5, 30, 2, 1), 18);
    assert_eq!(in_turn(5, 30, 5, 1), 6);
    assert_eq!(in_turn(5, 30, 6, 1), 30, "not where one would get none");
    assert_eq!(in_turn(0, 30, 2, 1), 30, "not where that is switched off");
    // Three groups of two GPUs.
    assert_eq!(in_turn(5, 30, 6, 2), 12);
    assert_eq!(in_turn(2, 12, 6, 2), 6, "a group may get none");
}

#[test]
fn an_even_chance_empties_the_small_data_set_first() {
    let draw = |count| drawn(count, &[100, 10], &[1.0, 1.0]);
    assert_eq!(draw(10), [5.0, 5.0]);
    assert_eq!(draw(20), [10.0, 10.0]);
    assert_eq!(draw(60), [50.0, 10.0]);
    assert_eq!(draw(110), [100.0, 10.0]);
    assert_eq!(draw(330 + 10), [305.0, 35.0]);
}

#[test]
fn shares_that_say_nothing_are_none() {
    let shares = |sets: &[(f64, bool)]| Sharing::shares(sets.iter().copied());
    assert_eq!(shares(&[(0.5, false), (0.5, false)]), []);
    assert_eq!(shares(&[]), []);
    let unlike = shares(&[(0.25, false), (1e-9, true), (1.0, false)]);
    let chances: Vec<u32> = unlike.iter().map(|share| share.chance).collect();
    assert_eq!(chances, [250_000, 1, 1_000_000]);
    assert!(unlike[1].is_undivided);
}

proptest! {
    #[test]
    fn all_that_is_drawn_is_drawn_from_what_there_is(
        sets in prop::collection::vec((1u64..10_000, 1u32..=Share::MOST), 1..20),
        count in 0u64..1_000_000,
    ) {
        let batches: Vec<u64> = sets.iter().map(|set| set.0).collect();
        let weights: Vec<f64> = sets.iter().map(|set| f64::from(set.1)).collect();
        let drawn = drawn(count, &batches, &weights);
        let sum: f64 = drawn.iter().sum();
        prop_assert!((sum - count as f64).abs() < 1e-3, "{sum} of {count}");
        let epochs = (count / batches.iter().sum::<u64>()) as f64;
        for (drawn, batches) in drawn.iter().zip(&batches) {
            let batches = *batches as f64;
            prop_assert!((epochs * batches..=(epochs + 1.0) * batches + 1e-3).contains(drawn));
        }
    }
}
