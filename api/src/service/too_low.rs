//! Limits that are certain to end a job before it is done: said when it is submitted, and taken nevertheless.

use stepcast_proto::v1;
use stepcast_records::{UsdMicros, units};
use stepcast_scheduler::model::limits::BUDGET_MARGIN_MS;

/// What is to be said of a job's limits on time and money: nine in ten such runs take more on whatever hardware it may run
/// on, set-up included. Nothing where that is not known of all of it.
pub(super) fn notes(
    (max_runtime_ms, max_cost): (Option<u64>, Option<UsdMicros>),
    estimates: &[v1::Estimate],
) -> Vec<v1::Note> {
    let short = max_runtime_ms.and_then(|most_ms| too_short(most_ms, estimates));
    let low = max_cost.and_then(|most| too_cheap(most, estimates));
    short.into_iter().chain(low).collect()
}

fn too_short(most_ms: u64, estimates: &[v1::Estimate]) -> Option<v1::Note> {
    let takes: Option<Vec<u64>> = estimates.iter().map(least_ms).collect();
    let least_ms = takes?.into_iter().min()?;
    (most_ms < least_ms).then(|| v1::Note {
        code: "MAX_RUNTIME_TOO_SHORT".to_owned(),
        text: format!(
            "its limit on time ends it after {}, and nine in ten such runs take more than {}, set-up included: allow more time",
            span(most_ms),
            span(least_ms)
        ),
    })
}

fn too_cheap(most: UsdMicros, estimates: &[v1::Estimate]) -> Option<v1::Note> {
    // It starts on nothing that has no price.
    let priced = estimates
        .iter()
        .filter_map(|row| Some((row, UsdMicros(row.price_per_hour_usd_micros?))));
    let costs = priced.map(|(row, price)| {
        let takes_ms = least_ms(row)?.saturating_add(BUDGET_MARGIN_MS);
        Some(units::cost(takes_ms, price))
    });
    let least = costs
        .collect::<Option<Vec<UsdMicros>>>()?
        .into_iter()
        .min()?;
    (most < least).then(|| v1::Note {
        code: "MAX_COST_TOO_LOW".to_owned(),
        text: format!(
            "its limit of {} on the cost ends it before it is done: nine in ten such runs need more than {}, with set-up and {} to save a checkpoint",
            most,
            least,
            span(BUDGET_MARGIN_MS)
        ),
    })
}

/// What nine in ten such runs take more than, set-up included, in milliseconds. Run and set-up vary apart, so the sum of
/// their tenths is no more than the tenth of their sum: nobody is warned for nothing.
fn least_ms(row: &v1::Estimate) -> Option<u64> {
    let ms = |times: Option<&v1::TimeQuantiles>| {
        let p10 = times?.p10.as_ref()?;
        let seconds = u64::try_from(p10.seconds).ok()?;
        let ms = u64::try_from(p10.nanos).ok()? / 1_000_000;
        Some(seconds.saturating_mul(1_000).saturating_add(ms))
    };
    let set_up_ms = ms(row.setup_time.as_ref()).unwrap_or(0);
    Some(ms(row.run_time.as_ref())?.saturating_add(set_up_ms))
}

/// Below two minutes in seconds, since a limit may be that short.
fn span(ms: u64) -> String {
    match ms / 1_000 {
        1 => "1 second".to_owned(),
        seconds @ ..120 => format!("{seconds} seconds"),
        _ => units::display_duration(ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(seconds: i64) -> Option<v1::TimeQuantiles> {
        let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        Some(v1::TimeQuantiles {
            p10: span(seconds),
            p50: span(2 * seconds),
            p90: span(3 * seconds),
        })
    }

    /// Runs of so many seconds, and as long a set-up, at $36 an hour: a cent a second.
    fn row(seconds: i64) -> v1::Estimate {
        v1::Estimate {
            run_time: times(seconds),
            setup_time: times(seconds),
            price_per_hour_usd_micros: Some(36_000_000),
            ..v1::Estimate::default()
        }
    }

    #[test]
    fn a_limit_that_ends_nearly_every_run_is_said() {
        let rows = [row(400), row(100)];
        let said = |ms, usd_micros, rows: &[v1::Estimate]| {
            let notes = notes((Some(ms), Some(UsdMicros(usd_micros))), rows);
            notes.into_iter().map(|note| note.code).collect::<Vec<_>>()
        };
        assert_eq!(notes((None, None), &rows), []);
        // The faster one is done, with two minutes to save a checkpoint.
        assert!(said(200_000, 3_200_000, &rows).is_empty());
        let both = ["MAX_RUNTIME_TOO_SHORT", "MAX_COST_TOO_LOW"];
        assert_eq!(said(199_999, 3_199_999, &rows), both);
        // Where one of several is not known, it may be the one.
        let unknown = v1::Estimate {
            price_per_hour_usd_micros: Some(1),
            ..v1::Estimate::default()
        };
        assert!(said(1, 1, &[row(100), unknown]).is_empty());
        assert!(said(1, 1, &[]).is_empty());
    }

    #[test]
    fn it_is_said_by_how_much() {
        let said = notes((Some(20_000), Some(UsdMicros(1_400_000))), &[row(100)]);
        let said: String = said.into_iter().map(|note| note.text).collect();
        let words = [
            "after 20 seconds",
            "more than ~3 minutes",
            "of $1.40",
            "more than $3.20",
        ];
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
