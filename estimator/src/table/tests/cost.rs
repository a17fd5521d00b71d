//! What a commit costs after many of them: not more than the first, between two compactions too.

use std::time::{Duration, Instant};

use super::*;

/// Contribution number `number`, of one training row.
fn numbered(number: u32) -> Contribution {
    let key = training_key("flux.dev/lora", "rtx4090");
    Contribution {
        id: u128::from(number).to_be_bytes(),
        rows: vec![row(key, 100 + number % 900, 150)],
    }
}

/// The memory of this process that is in use, in MB.
fn resident_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0u64) * 4_096 / 1_000_000
}

/// Prints a table. `cargo test --workspace --lib -- --ignored --nocapture --test-threads 1 three_hundred_commits`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a minute or more"]
async fn three_hundred_commits_measured() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path().display().to_string();
    let (store, base) = crate::StoreConfig::at(place).open().expect("store");
    let (own, other) = (
        Table::new(Kind::Training, &store, &base).expect("table"),
        Table::new(Kind::Training, &store, &base).expect("table"),
    );
    for hundred in 0..3 {
        let (mut commits, mut looks) = (Duration::ZERO, Duration::ZERO);
        for number in hundred * 100..hundred * 100 + 100 {
            let began = Instant::now();
            own.commit(&[numbered(number)], drop).await.expect("stored");
            commits += began.elapsed();
            let began = Instant::now();
            other.follow().await.expect("followed");
            looks += began.elapsed();
        }
        eprintln!(
            "commits {:>3}: {:>6.1} ms a commit, {:>6.1} ms a look, {} MB",
            (hundred + 1) * 100,
            commits.as_secs_f64() * 10.0,
            looks.as_secs_f64() * 10.0,
            resident_mb()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_as_a_whole_now_and_then() {
    let store = memory();
    let (own, other) = (table(&store), table(&store));
    for number in 0..45 {
        own.commit(&[numbered(number)], drop).await.expect("stored");
        other.follow().await.expect("followed");
    }
    let (own, other) = (own.lock().await, other.lock().await);
    assert_eq!(own.whole, 40, "with the last checkpoint");
    assert_eq!(other.whole, 41, "forty after the first");
    for state in [own, other] {
        let delta = state.delta.as_ref().expect("open");
        assert_eq!(delta.version(), Some(45));
        let files = delta.snapshot().expect("loaded").log_data().iter().count();
        assert_eq!(files, 45);
    }
}
