//! Times, durations, money, and the names of closed lists.

use stepcast_proto::v1;
use stepcast_records::{CostQuantiles, Quantiles, UsdMicros};

const MS_PER_S: u64 = 1_000;
const NANOS_PER_MS: u64 = 1_000_000;

/// A moment, from milliseconds since 1970.
pub(crate) fn timestamp_ms(ms: u64) -> prost_types::Timestamp {
    let (seconds, nanos) = split(ms);
    prost_types::Timestamp { seconds, nanos }
}

/// A length of time, from milliseconds.
pub(crate) fn duration_ms(ms: u64) -> prost_types::Duration {
    let (seconds, nanos) = split(ms);
    prost_types::Duration { seconds, nanos }
}

/// Milliseconds of a length of time, fractions cut; `None` for one that is negative or out of bounds.
pub(crate) fn duration_to_ms(duration: &prost_types::Duration) -> Option<u64> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u64::try_from(duration.nanos).ok()?;
    seconds
        .checked_mul(MS_PER_S)?
        .checked_add(nanos / NANOS_PER_MS)
}

/// The name that a value of a closed list has where it is written, such as `batch-size`; empty if it has none.
pub(crate) fn closed_name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        // A variant with facts is an object with the name as its only key.
        Ok(serde_json::Value::Object(map)) => map
            .into_iter()
            .next()
            .map_or_else(String::new, |(name, _)| name),
        _ => String::new(),
    }
}

/// The same as programs read it in a code, such as `BATCH_SIZE`.
pub(crate) fn closed_code(value: &impl serde::Serialize) -> String {
    closed_name(value).replace('-', "_").to_ascii_uppercase()
}

/// Three points of a distribution of time.
pub(crate) fn times(ms: Quantiles) -> v1::TimeQuantiles {
    v1::TimeQuantiles {
        p10: Some(duration_ms(ms.p10)),
        p50: Some(duration_ms(ms.p50)),
        p90: Some(duration_ms(ms.p90)),
    }
}

/// Three points of a distribution of money.
pub(crate) fn costs(cost: CostQuantiles) -> v1::CostQuantiles {
    let CostQuantiles {
        p10: UsdMicros(p10),
        p50: UsdMicros(p50),
        p90: UsdMicros(p90),
    } = cost;
    v1::CostQuantiles {
        p10_usd_micros: p10,
        p50_usd_micros: p50,
        p90_usd_micros: p90,
    }
}

fn split(ms: u64) -> (i64, i32) {
    let seconds = i64::try_from(ms / MS_PER_S).unwrap_or(i64::MAX);
    // Less than a second in nanoseconds fits.
    (seconds, (ms % MS_PER_S * NANOS_PER_MS) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_survive_the_wire() {
        for ms in [0, 1, 999, 1_000, 86_400_123, u64::MAX / 4] {
            assert_eq!(duration_to_ms(&duration_ms(ms)), Some(ms));
        }
        assert_eq!(
            duration_to_ms(&prost_types::Duration {
                seconds: -1,
                nanos: 0
            }),
            None
        );
        assert_eq!(timestamp_ms(1_500).nanos, 500_000_000);
    }
}
