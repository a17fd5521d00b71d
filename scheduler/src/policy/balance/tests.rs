//! Tests of the balance: what comes out is proved by its prices or by bounds that hold whatever the solver does.

use super::*;

fn work(width: f64, hours: &[f64]) -> Work {
    Work {
        width,
        count: 1.0,
        hours: hours.to_vec(),
    }
}

/// Numbers that look drawn by chance, the same every time.
fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut word = seed;
    move || {
        word = word
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (word >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[test]
fn one_kind_needs_all_the_work_by_all_the_gpus() {
    let pieces = [work(1.0, &[6.0]), work(2.0, &[3.0]), work(1.0, &[4.0])];
    let found = balance(&pieces, &[4.0]);
    assert!((found.horizon - 6.0).abs() < 1e-6, "the longest piece");
    let found = balance(&pieces, &[2.0]);
    assert!((found.horizon - 8.0).abs() < 1e-6, "16 GPU hours on 2");
}

#[test]
fn both_kinds_are_in_use_all_the_time_if_that_is_shortest() {
    let pieces = [work(1.0, &[1.0, 10.0]), work(1.0, &[1.0, 2.0])];
    let found = balance(&pieces, &[1.0, 1.0]);
    assert!((found.horizon - 28.0 / 19.0).abs() < 1e-5, "{found:?}");
    assert!(found.prices[0] > found.prices[1], "{found:?}");
}

#[test]
fn a_long_piece_that_must_be_split_bounds_the_horizon() {
    let pieces = [
        work(1.0, &[10.0, 30.0]),
        work(1.0, &[10.0, 30.0]),
        work(1.0, &[10.0, 30.0]),
    ];
    let found = balance(&pieces, &[2.0, 4.0]);
    // With H hours each piece does at most H/10 on the fast kind; 2 of 3 are there at any time.
    let check: f64 = found.shares.iter().map(|row| row[0]).sum();
    assert!(check <= 2.0 * found.horizon * (1.0 + 1e-6));
    assert!((found.horizon - 90.0 / 7.0).abs() < 1e-3, "{found:?}");
}

#[test]
fn what_comes_out_is_within_the_limits_and_near_the_bound_of_the_prices() {
    for seed in 0..200 {
        let mut next = numbers(seed);
        let kinds = 1 + (next() * 5.0) as usize;
        let capacity: Vec<f64> = (0..kinds).map(|_| 8.0 + (next() * 20.0).floor()).collect();
        let pieces: Vec<Work> = (0..5 + (next() * 60.0) as usize)
            .map(|_| {
                let width = [1.0, 1.0, 2.0, 4.0, 8.0][(next() * 5.0) as usize];
                let base = 10_f64.powf(next() * 3.0 - 1.0);
                let hours = (0..kinds).map(|_| match next() {
                    x if x < 0.1 => f64::INFINITY,
                    x => base * (0.3 + 4.0 * x),
                });
                work(width, &hours.collect::<Vec<_>>())
            })
            .collect();
        let found = balance(&pieces, &capacity);
        let horizon = found.horizon;
        let mut load = vec![0.0; kinds];
        for (piece, share) in pieces.iter().zip(&found.shares) {
            let done: f64 = piece.hours.iter().zip(share).map(|(h, y)| y / h).sum();
            let can = piece.hours.iter().any(|hours| hours.is_finite());
            assert!(!can || (done - 1.0).abs() < 1e-6, "{seed}: {done}");
            let hours: f64 = share.iter().sum();
            assert!(
                hours <= horizon * (1.0 + 1e-5),
                "{seed}: {hours} > {horizon}"
            );
            for (kind, hours) in share.iter().enumerate() {
                load[kind] += piece.width * hours;
            }
        }
        assert!(
            proved(&pieces, &capacity, &found),
            "{seed}: shorter may be possible"
        );
        for (kind, hours) in load.iter().enumerate() {
            let most = capacity[kind] * horizon * (1.0 + 1e-4);
            assert!(*hours <= most, "{seed}: kind {kind} {hours} > {most}");
        }
    }
}

/// Milliseconds of a million jobs are as good as hours of one: by powers of two nothing is rounded, so all comes out the same.
#[test]
fn what_comes_out_is_the_same_in_any_unit() {
    for seed in 0..40 {
        let mut next = numbers(seed);
        let kinds = 1 + (next() * 3.0) as usize;
        let capacity: Vec<f64> = (0..kinds).map(|_| 4.0 + (next() * 9.0).floor()).collect();
        let pieces: Vec<Vec<f64>> = (0..2 + (next() * 20.0) as usize)
            .map(|_| (0..kinds).map(|_| 0.3 + 4.0 * next()).collect())
            .collect();
        let found = |unit: f64| {
            let hours = |hours: &Vec<f64>| hours.iter().map(|x| x * unit).collect();
            let work = pieces.iter().map(|piece| Work {
                width: 1.0,
                count: 3.0,
                hours: hours(piece),
            });
            balance(&work.collect::<Vec<_>>(), &capacity)
        };
        let one = found(1.0);
        for unit in [-10, 22, 45, 60].map(|power| 2_f64.powi(power)) {
            let other = found(unit);
            assert_eq!(other.horizon, one.horizon * unit, "{seed}: {unit}");
            assert_eq!(other.prices, one.prices, "{seed}: {unit}");
        }
    }
}

/// Whether nothing is shorter by a thousandth: by the longest piece, or by duality. At any prices whose GPUs together cost
/// 1, what all pieces cost at least is a time that the work needs; if that is more than a horizon, the horizon is too short.
fn proved(work: &[Work], capacity: &[f64], found: &Balance) -> bool {
    let pieces: Vec<Piece> = (0..)
        .zip(work)
        .map(|(index, work)| Piece::of(index, work, capacity))
        .filter(|piece| !piece.kinds.is_empty())
        .collect();
    let longest = pieces.iter().map(Piece::fastest).fold(0.0, f64::max);
    let shorter = found.horizon * 0.999;
    let whole: f64 = found
        .prices
        .iter()
        .zip(capacity)
        .map(|(price, gpus)| price * gpus)
        .sum();
    assert!(
        (whole - 1.0).abs() < 1e-6,
        "prices are of one GPU hour altogether: {whole}"
    );
    let (_, _, cost) = picked(&pieces, &found.prices, shorter, capacity.len());
    shorter < longest || cost > shorter
}

#[test]
fn fair_shares_serve_the_least_served_as_much_as_can_be() {
    for seed in 1_000..1_200 {
        let mut next = numbers(seed);
        let kinds = 2 + (next() * 4.0) as usize;
        let capacity: Vec<f64> = (0..kinds).map(|_| 8.0 + (next() * 24.0).floor()).collect();
        let jobs = 10 + (next() * 80.0) as usize;
        let needs: Vec<(Vec<f64>, f64, f64)> = (0..jobs)
            .map(|_| {
                let speeds = (0..kinds).map(|_| 0.2 + 5.0 * next()).collect();
                let width = [1.0, 1.0, 2.0, 4.0, 8.0][(next() * 5.0) as usize];
                let weight = if next() < 0.2 { 5.0 } else { 1.0 };
                (speeds, width, weight)
            })
            .collect();
        let work: Vec<Work> = needs
            .iter()
            .map(|(speeds, width, weight)| {
                crate::placement::fair_work(speeds, *width, *weight, &capacity, jobs)
            })
            .collect();
        let found = balance(&work, &capacity);
        assert!(proved(&work, &capacity, &found), "{seed}: more is possible");
        // What each job gets a unit of time, in its own measure, is what the least served gets.
        for (index, piece) in work.iter().enumerate() {
            let shares = found.shares[index].iter().zip(&piece.hours);
            let served: f64 = shares
                .map(|(hours, need)| hours / found.horizon / need)
                .sum();
            assert!(
                served * found.horizon > 1.0 - 1e-3,
                "{seed}: job {index} gets {served}"
            );
        }
    }
}

/// What a job truly gets in a unit of time, in its own measure, by what all claim of their speeds.
fn served(claims: &[Vec<f64>], truth: &[f64], who: usize, capacity: &[f64]) -> f64 {
    let work: Vec<Work> = claims
        .iter()
        .map(|speeds| crate::placement::fair_work(speeds, 1.0, 1.0, capacity, claims.len()))
        .collect();
    let found = balance(&work, capacity);
    let shares = found.shares[who].iter().zip(truth);
    shares
        .map(|(hours, speed)| hours / found.horizon * speed)
        .sum()
}

#[test]
fn who_claims_other_speeds_than_it_has_gains_little_and_nobody_gets_less_than_an_equal_part() {
    let (mut lies, mut sum, mut worst, mut gained) = (0, 0.0, 0.0_f64, 0);
    for seed in 2_000..2_200 {
        let mut next = numbers(seed);
        let kinds = 2 + (next() * 3.0) as usize;
        let capacity: Vec<f64> = (0..kinds).map(|_| 1.0 + (next() * 8.0).floor()).collect();
        let jobs = 4 + (next() * 20.0) as usize;
        let truth: Vec<Vec<f64>> = (0..jobs)
            .map(|_| (0..kinds).map(|_| 0.2 + 5.0 * next()).collect())
            .collect();
        let who = (next() * jobs as f64) as usize;
        let mine = &truth[who];
        let honest = served(&truth, mine, who, &capacity);
        let gpus: f64 = capacity.iter().sum::<f64>() / jobs as f64;
        let whole = mine
            .iter()
            .zip(&capacity)
            .map(|(speed, gpus)| speed * gpus / jobs as f64);
        let equal = whole.sum::<f64>() / gpus.max(1.0);
        assert!(honest > equal * (1.0 - 1e-3), "{seed}: {honest} of {equal}");
        let mut claims = truth.clone();
        for factor in [0.1, 7.0] {
            claims[who] = mine.iter().map(|speed| speed * factor).collect();
            let gain = served(&claims, mine, who, &capacity) / honest - 1.0;
            // Speeds count beside each other only. Which of several equal mixtures is found may differ a little.
            assert!(
                gain < 2e-3,
                "{seed}: {factor} times as fast everywhere gains {gain}"
            );
        }
        for kind in 0..kinds {
            for factor in [0.25, 0.5, 0.8, 1.25, 2.0, 4.0] {
                claims[who].clone_from(mine);
                claims[who][kind] *= factor;
                let gain = served(&claims, mine, who, &capacity) / honest - 1.0;
                (lies, sum, worst) = (lies + 1, sum + gain, worst.max(gain));
                gained += i32::from(gain > 0.01);
            }
        }
    }
    let mean = sum / f64::from(lies);
    // Who knows what all others need can gain by a claim; without knowing it, claims lose. Jobs claim nothing in any case:
    // their speeds are measured.
    assert!(mean < -0.05, "to claim something else pays: {mean}");
    assert!(
        worst < 1.2 && gained * 4 < lies,
        "{lies} claims: {worst} gained at most, {gained} gain more than 1 %"
    );
}
