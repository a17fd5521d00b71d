//! How wrong estimates are: factors that look drawn by chance and follow from a seed alone.

/// Errors of estimates: the logarithm of each factor is normal with this deviation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Noise {
    /// Standard deviation of a factor's logarithm; 0 for perfect estimates.
    pub deviation: f64,
    /// What the factors follow from.
    pub seed: u64,
}

/// Nine in ten values of the standard normal distribution are below.
const NORMAL_P90: f64 = 1.281_551_565_545;

impl Noise {
    /// The factor of one job on one hardware.
    #[must_use]
    pub fn factor(&self, job: u64, hardware: u64) -> f64 {
        (self.deviation * normal(self.seed, job, hardware)).exp()
    }

    /// What nine in ten factors are below.
    #[must_use]
    pub fn p90(&self) -> f64 {
        (self.deviation * NORMAL_P90).exp()
    }
}

/// A number as if drawn from the standard normal distribution (Box and Muller's formula).
fn normal(seed: u64, job: u64, hardware: u64) -> f64 {
    let word = |part: u64| {
        let mut bytes = [0; 32];
        for (chunk, value) in bytes.chunks_exact_mut(8).zip([seed, job, hardware, part]) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
        ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    (-2.0 * word(0).ln()).sqrt() * (std::f64::consts::TAU * word(1)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_spread_as_they_say() {
        let noise = Noise {
            deviation: 0.3,
            seed: 7,
        };
        let mut logs: Vec<f64> = (0..10_000).map(|job| noise.factor(job, 1).ln()).collect();
        let mean = logs.iter().sum::<f64>() / 10_000.0;
        let spread = (logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 10_000.0).sqrt();
        assert!(
            mean.abs() < 0.01 && (spread - 0.3).abs() < 0.01,
            "{mean} {spread}"
        );
        logs.sort_by(f64::total_cmp);
        assert!((logs[9_000] - noise.p90().ln()).abs() < 0.02);
    }
}
