//! What an estimate is made of: totals, then the run part by part with what each rests on.

use stepcast_proto::v1::{
    Basis, Estimate as Row, EstimatePhase, EstimatePhaseKind, MemoryFit, MemoryNeed,
};

use super::{evidence, point, range, title};
use crate::output::money::{count, counted, dollars};
use crate::output::style::{Mark, Tone};
use crate::output::{Output, time};

/// Shows it.
pub(super) fn show(output: &Output, row: &Row) {
    output.say("");
    output.say(format!(
        "{}  {}  {}",
        Tone::Strong.paint(title(row)),
        evidence(row),
        counted(row.steps_observed, "step", "steps")
    ));
    let parts = [
        ("training", row.train_time.as_ref()),
        ("validation", row.validation_time.as_ref()),
        ("run", row.run_time.as_ref()),
        ("set-up", row.setup_time.as_ref()),
    ];
    for (name, times) in parts {
        let middle = point(times, |times| times.p50, time::span);
        output.say(format!(
            "  {name:<12}{middle:>9}  {}",
            times.map_or_else(String::new, range)
        ));
    }
    if let Some(price) = row.price_per_hour_usd_micros {
        output.say(format!("  {:<12}{:>9}  an hour", "price", dollars(price)));
    }
    if let Some(memory) = &row.memory {
        output.say(format!("  {}", memory_line(memory)));
    }
    for phase in &row.phases {
        output.say(format!("  {}", phase_line(phase)));
    }
    for note in &row.notes {
        output.say(format!("  {} {}", output.signs.mark(Mark::Dot), note.text));
    }
}

/// What each GPU needs, has, and whether that is enough.
fn memory_line(memory: &MemoryNeed) -> String {
    let gib = |mib: u32| f64::from(mib) / 1_024.0;
    let fit = match memory.fit() {
        MemoryFit::Fits | MemoryFit::Unspecified => "fits",
        MemoryFit::MayNot => "may not fit",
        MemoryFit::WillNot => "will not fit",
    };
    let when = match memory.phase() {
        EstimatePhaseKind::Unspecified | EstimatePhaseKind::Train => String::new(),
        before => format!(", while {} before the steps", phase_words(before)),
    };
    format!(
        "{:<12}{:>9}  ({:.0}-{:.0} of {:.0} GiB on each GPU) {fit}, {}{when}",
        "memory",
        format!("{:.0} GiB", gib(memory.p50_mib)),
        gib(memory.p10_mib),
        gib(memory.p90_mib),
        gib(memory.gpu_mib),
        basis_words(memory.basis()),
    )
}

/// One part of a run: how often, how long, and what that rests on.
fn phase_line(phase: &EstimatePhase) -> String {
    let mut name = phase_words(phase.kind()).to_owned();
    if let Some(halves) = phase.half_megapixels {
        name.push_str(&format!(" at {:.1} MP", f64::from(halves) / 2.0));
    }
    let times = phase.time.as_ref();
    let middle = point(times, |times| times.p50, time::span);
    let often = if phase.count > 1 {
        format!("{} x", count(phase.count))
    } else {
        String::new()
    };
    let range = times.map_or_else(String::new, range);
    let evidence = match phase.basis() {
        Basis::Exact | Basis::Near => format!(
            "{}, {}",
            basis_words(phase.basis()),
            counted(u64::from(phase.rows), "run", "runs")
        ),
        basis => basis_words(basis).to_owned(),
    };
    let line = format!("{name:<26}{often:>10}{middle:>10}  {range:<16}{evidence}");
    line.trim_end().to_owned()
}

fn basis_words(basis: Basis) -> &'static str {
    match basis {
        Basis::Exact => "exact",
        Basis::Near => "near",
        Basis::Rough => "rough",
        Basis::None | Basis::Unspecified => "not known",
    }
}

fn phase_words(kind: EstimatePhaseKind) -> &'static str {
    use EstimatePhaseKind as Kind;
    match kind {
        Kind::Unspecified => "something else",
        Kind::Start => "starting the trainer",
        Kind::Load => "loading the model",
        Kind::Quantize => "quantising it",
        Kind::CacheText => "encoding captions",
        Kind::CacheLatents => "encoding samples",
        Kind::Train => "steps",
        Kind::Validate => "images to look at",
        Kind::Checkpoint => "checkpoints",
        Kind::Save => "saving the model",
    }
}

#[cfg(test)]
mod tests {
    use stepcast_proto::v1::TimeQuantiles;

    use super::*;

    fn span(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn memory_says_what_is_needed_and_what_there_is() {
        let memory = MemoryNeed {
            p10_mib: 38 * 1_024,
            p50_mib: 41 * 1_024,
            p90_mib: 44 * 1_024,
            gpu_mib: 24 * 1_024,
            basis: Basis::Exact.into(),
            fit: MemoryFit::WillNot.into(),
            phase: EstimatePhaseKind::Train.into(),
        };
        let line = "memory         41 GiB  (38-44 of 24 GiB on each GPU) will not fit, exact";
        assert_eq!(memory_line(&memory), line);
        let before = MemoryNeed {
            phase: EstimatePhaseKind::CacheLatents.into(),
            ..memory
        };
        assert_eq!(
            memory_line(&before),
            format!("{line}, while encoding samples before the steps")
        );
    }

    #[test]
    fn a_part_says_how_often_how_long_and_on_what_it_rests() {
        let steps = EstimatePhase {
            kind: EstimatePhaseKind::Train.into(),
            half_megapixels: Some(2),
            count: 1_500,
            time: Some(TimeQuantiles {
                p10: span(7_140),
                p50: span(7_380),
                p90: span(7_740),
            }),
            basis: Basis::Exact.into(),
            rows: 1,
            observed: 150,
        };
        assert_eq!(
            phase_line(&steps),
            "steps at 1.0 MP              1,500 x    2h 03m  (1h59-2h09)     exact, 1 run"
        );
        let captions = EstimatePhase {
            kind: EstimatePhaseKind::CacheText.into(),
            basis: Basis::None.into(),
            ..EstimatePhase::default()
        };
        assert_eq!(
            phase_line(&captions),
            "encoding captions                            -                  not known"
        );
    }
}
