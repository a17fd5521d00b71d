//! The standard normal distribution: what part lies below a value, and which value a part lies below.

/// The ninth decile.
pub(super) const NINTH_DECILE: f64 = 1.281_551_565_545;

/// The part of the distribution that lies below `x`, to seven digits (Abramowitz and Stegun, 26.2.17).
pub(super) fn below(x: f64) -> f64 {
    const B: [f64; 5] = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let sum = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let above = density * sum;
    if x >= 0.0 { 1.0 - above } else { above }
}

/// The value that a part of the distribution lies below: halved until it is near enough.
pub(super) fn quantile(part: f64) -> f64 {
    let (mut low, mut high) = (-6.0, 6.0);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if below(middle) < part {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_come_out() {
        // From a table of the distribution.
        for (x, part) in [
            (0.0, 0.5),
            (1.0, 0.841_345),
            (-1.0, 0.158_655),
            (NINTH_DECILE, 0.9),
            (2.5, 0.993_790),
        ] {
            assert!((below(x) - part).abs() < 1e-6, "{x}");
            assert!((quantile(part) - x).abs() < 1e-4, "{part}");
        }
        assert!(quantile(0.0) <= -5.9 && quantile(1.0) >= 4.9);
    }
}
