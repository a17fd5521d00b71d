//! What is said of checkpoints: the newest, no more than there can be, not too often, and once more to each leader.

use super::*;

fn saved(step: u64) -> Event {
    Event::Checkpoint { step: Some(step) }
}

fn told(out: &[Output]) -> Vec<u64> {
    let steps = out.iter().filter_map(|output| match output {
        Output::Checkpointed { epoch: 5, step } => Some(*step),
        _ => None,
    });
    steps.collect()
}

#[test]
fn the_next_leader_is_told_what_was_saved() {
    let mut script = Script::running();
    script.step(20);
    assert_eq!(told(&script.event(saved(20))), [20]);
    let out = script.input(Input::Connected);
    let begun = Output::Started { epoch: 5, from: 3 };
    assert_eq!(
        out[..2],
        [begun, Output::Checkpointed { epoch: 5, step: 20 }]
    );
}

#[test]
fn no_checkpoint_is_newer_than_the_newest_step() {
    let mut script = Script::running();
    assert_eq!(told(&script.event(saved(u64::MAX))), [3], "it began there");
    script.step(20);
    assert_eq!(told(&script.event(saved(u64::MAX))), [20]);
    assert_eq!(script.event(saved(19)), [], "an older one");
    assert_eq!(script.event(saved(20)), [], "the same once more");
    script.step(21);
    assert_eq!(told(&script.event(saved(21))), [21]);
}

#[test]
fn a_flood_of_checkpoints_is_told_at_its_end_and_now_and_then() {
    let mut script = Script::running();
    let mut count = 0;
    for step in 4..=1_003 {
        script.step(step);
        count += told(&script.event(saved(step))).len();
    }
    assert_eq!(count, 16);
    let later = script.run_until_output(60_000, true);
    assert_eq!(told(&later), [1_003], "the newest, when its turn comes");
    assert_eq!(script.now, 5_000);
    script.step(1_004);
    assert!(told(&script.event(saved(1_004))).is_empty());
    let exit = Exit {
        status: ExitStatus::Code(1),
        tail: Vec::new(),
    };
    let out = script.input(Input::Exited { epoch: 5, exit });
    assert_eq!(told(&out), [1_004], "before the end");
    assert!(matches!(out[1], Output::End(5, _)));
}
