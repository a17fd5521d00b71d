//! Which row to take: the cheapest and the fastest of those whose memory is enough, as far as is known; loading, caching
//! and saving count, since they are paid for.

use stepcast_proto::v1::{Estimate as Row, MemoryFit, TimeQuantiles};

use crate::output::time;

/// The row to take unless told otherwise, and the fastest one if that is another. What does not fit is neither, and
/// what probably does not fit only where nothing else is left.
pub(super) fn choices(rows: &[Row]) -> Option<(&Row, Option<&Row>)> {
    let timed = || rows.iter().filter(|row| median(row).is_some());
    let any_fits = timed().any(|row| probably_fits(row) == Some(true));
    let wanted = Some(any_fits);
    let known = || timed().filter(move |row| probably_fits(row) == wanted);
    let cheapest = known()
        .filter(|row| price(row).is_some())
        .min_by_key(|row| price(row));
    let fastest = known().min_by(|left, right| {
        f64::total_cmp(
            &median(left).unwrap_or(f64::MAX),
            &median(right).unwrap_or(f64::MAX),
        )
    });
    let best = cheapest.or(fastest)?;
    Some((
        best,
        fastest.filter(|fastest| !std::ptr::eq(*fastest, best)),
    ))
}

/// Of rows of which none is to be taken since their memory is too small, the one that lacks least; `None` where one is to be
/// taken, and where nobody knows how long the run takes.
pub(super) fn lacks_least(rows: &[Row]) -> Option<&Row> {
    if choices(rows).is_some() {
        return None;
    }
    let timed = rows.iter().filter(|row| median(row).is_some());
    timed.min_by_key(|row| {
        let memory = row.memory.unwrap_or_default();
        i64::from(memory.p50_mib) - i64::from(memory.gpu_mib)
    })
}

/// Seconds of the middle run with what comes on top.
fn median(row: &Row) -> Option<f64> {
    let run = middle(row.run_time.as_ref())?;
    Some(run + middle(row.setup_time.as_ref()).unwrap_or(0.0))
}

/// What the middle run costs with what comes on top, in millionths of a dollar.
fn price(row: &Row) -> Option<u64> {
    let cost = row.cost.as_ref()?.p50_usd_micros;
    Some(cost.saturating_add(on_top(row).unwrap_or(0)))
}

/// What loading, caching and saving cost in the middle, in millionths of a dollar; `None` without a price.
pub(crate) fn on_top(row: &Row) -> Option<u64> {
    let hours = middle(row.setup_time.as_ref())? / SECONDS_PER_HOUR;
    Some((hours * row.price_per_hour_usd_micros? as f64).round() as u64)
}

fn middle(times: Option<&TimeQuantiles>) -> Option<f64> {
    times?.p50.as_ref().map(time::seconds)
}

const SECONDS_PER_HOUR: f64 = 3_600.0;

/// Whether the run probably fits the hardware's memory, as far as is known; `None` where it will not.
fn probably_fits(row: &Row) -> Option<bool> {
    let Some(memory) = &row.memory else {
        return Some(true);
    };
    match memory.fit() {
        MemoryFit::WillNot => None,
        MemoryFit::MayNot => Some(memory.p50_mib <= memory.gpu_mib),
        MemoryFit::Fits | MemoryFit::Unspecified => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use stepcast_proto::v1::{Basis, TimeQuantiles};

    use super::*;

    fn span(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn row(hardware: &str, seconds: i64, cents: u64) -> Row {
        Row {
            hardware: hardware.to_owned(),
            basis: Basis::Exact.into(),
            rows: 41,
            run_time: Some(TimeQuantiles {
                p10: span(seconds - 240),
                p50: span(seconds),
                p90: span(seconds + 360),
            }),
            cost: Some(stepcast_proto::v1::CostQuantiles {
                p50_usd_micros: cents * 10_000,
                ..Default::default()
            }),
            ..Row::default()
        }
    }

    #[test]
    fn the_cheapest_is_chosen_and_the_fastest_named() {
        let rows = [
            row("a100-80", 7380, 327),
            row("h100", 4680, 310),
            row("h100x2", 2760, 368),
        ];
        let (best, fastest) = choices(&rows).expect("rows");
        assert_eq!(
            (
                best.hardware.as_str(),
                fastest.expect("another").hardware.as_str()
            ),
            ("h100", "h100x2")
        );
    }

    #[test]
    fn what_is_paid_for_before_the_steps_counts() {
        let mut rows = [row("h100", 600, 40), row("rtx4090", 1800, 50)];
        let chosen = |rows: &[Row]| choices(rows).map(|(best, _)| best.hardware.clone());
        assert_eq!(chosen(&rows).as_deref(), Some("h100"));
        let cached = TimeQuantiles {
            p50: span(7_200),
            ..Default::default()
        };
        for (row, price) in rows.iter_mut().zip([2_400_000, 1_000_000]) {
            row.setup_time = Some(cached);
            row.price_per_hour_usd_micros = Some(price);
        }
        assert_eq!(on_top(&rows[0]), Some(4_800_000));
        assert_eq!(chosen(&rows).as_deref(), Some("rtx4090"));
    }

    #[test]
    fn what_probably_does_not_fit_is_chosen_only_for_want_of_another() {
        let tight = |p50_mib| {
            let mut row = row("rtx4090", 9000, 100);
            row.memory = Some(stepcast_proto::v1::MemoryNeed {
                fit: MemoryFit::MayNot.into(),
                p50_mib,
                gpu_mib: 24_576,
                ..Default::default()
            });
            row
        };
        let chosen = |rows: &[Row]| choices(rows).map(|(best, _)| best.hardware.clone());
        let other = || row("h100", 4680, 310);
        assert_eq!(
            chosen(&[tight(20_000), other()]).as_deref(),
            Some("rtx4090")
        );
        assert_eq!(chosen(&[tight(28_000), other()]).as_deref(), Some("h100"));
        assert_eq!(chosen(&[tight(28_000)]).as_deref(), Some("rtx4090"));
    }

    #[test]
    fn what_does_not_fit_is_not_chosen_however_cheap() {
        let mut small = row("rtx4090", 9000, 100);
        small.memory = Some(stepcast_proto::v1::MemoryNeed {
            fit: MemoryFit::WillNot.into(),
            ..Default::default()
        });
        assert!(choices(std::slice::from_ref(&small)).is_none());
        let rows = [small, row("h100", 4680, 310)];
        assert_eq!(
            choices(&rows).map(|(best, _)| best.hardware.as_str()),
            Some("h100")
        );
    }

    #[test]
    fn where_none_holds_the_run_the_one_that_lacks_least_is_named() {
        let too_small = |hardware, gpu_mib| {
            let mut row = row(hardware, 9000, 100);
            row.memory = Some(stepcast_proto::v1::MemoryNeed {
                fit: MemoryFit::WillNot.into(),
                p50_mib: 56_387,
                gpu_mib,
                ..Default::default()
            });
            row
        };
        let named = |rows: &[Row]| lacks_least(rows).map(|row| row.hardware.clone());
        let mut rows = vec![
            too_small("rtx5090", 32_768),
            too_small("l40s", 49_152),
            too_small("a100-40", 40_960),
        ];
        assert_eq!(named(&rows).as_deref(), Some("l40s"));
        rows.push(row("h100", 4680, 310));
        assert_eq!(named(&rows), None, "one holds it");
        assert_eq!(named(&[Row::default()]), None, "nobody knows its time");
    }
}
