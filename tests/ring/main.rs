//! The ring under kill -9: a real server and a real worker process die at random moments while jobs come in.
//!
//! Afterwards every acknowledged job has ended exactly once, no attempt was started twice under one epoch, and every
//! contribution's rows are in the tables exactly once. The moments come from a seed; `STEPCAST_RING_SEED` and
//! `STEPCAST_RING_KILLS` choose others.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

mod checks;
mod contributions;
mod people;
mod processes;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use people::People;
use processes::Ring;
use stepcast_tests::random::Random;

/// Kills in a plain `cargo test`: enough to meet every kind of moment, few enough to wait for.
const KILLS: u64 = 24;

/// Between two kills: from well before anything is up again to well after.
const BETWEEN_MS: std::ops::Range<u64> = 40..1_900;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ring_survives_kill_9_at_any_moment() {
    let seed = number("STEPCAST_RING_SEED").unwrap_or(20_261_126);
    let kills = number("STEPCAST_RING_KILLS").unwrap_or(KILLS);
    println!("seed {seed}, {kills} kills");
    let mut random = Random::new(seed);
    let mut ring = Ring::start().await;
    let people = People::new(ring.address(), random.fork());
    let closing = Arc::new(AtomicBool::new(false));
    let submitting = tokio::spawn(Arc::clone(&people).submit_until(Arc::clone(&closing)));
    for number in 1..=kills {
        tokio::time::sleep(Duration::from_millis(random.within(BETWEEN_MS))).await;
        match random.within(0..5) {
            0 | 1 => ring.kill_server(),
            2 | 3 => ring.kill_worker(),
            _ => {
                ring.kill_server();
                ring.kill_worker();
            }
        }
        ring.revive();
        if number % 20 == 0 {
            println!(
                "{number} kills, {} jobs acknowledged",
                people.acknowledged()
            );
        }
    }
    closing.store(true, Ordering::Release);
    submitting.await.unwrap();
    let jobs = people.await_ends().await;
    ring.await_recorded().await;
    let rows = ring.client(&["sql", "SELECT count(*) FROM training_steps", "--csv"]);
    let rows = rows.lines().last().unwrap().parse().unwrap();
    ring.stop();
    let told = checks::all(&jobs, &people.wishes(), rows, &ring);
    println!("{told}");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}
