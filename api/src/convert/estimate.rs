//! Estimates and what to know about them.

use stepcast_proto::v1;
use stepcast_records::hardware::Error as HardwareError;
use stepcast_records::simpletuner::Note as ReadingNote;
use stepcast_records::{Basis, Estimate, Fit, Hardware, Memory, Note, Phase, PhaseKind};
use tonic::Status;

use super::models::written_instead;
use super::quantity::{closed_code, costs, times};
use crate::status::{bad_field, shown};

/// Estimates beside each other, those marked that another beats.
pub(crate) fn estimates(estimates: &[Estimate]) -> Vec<v1::Estimate> {
    let beaten = stepcast_estimator::estimate::dominated(estimates);
    let each = estimates.iter().zip(beaten);
    each.map(|(one, beaten)| estimate(one, beaten)).collect()
}

fn estimate(estimate: &Estimate, dominated: bool) -> v1::Estimate {
    v1::Estimate {
        hardware: estimate.hardware.slug(),
        basis: basis(estimate.basis).into(),
        rows: estimate.rows,
        steps_observed: estimate.observed,
        step_time: estimate.step_ms.map(times),
        train_time: estimate.train_ms.map(times),
        validation_time: estimate.validation_ms.map(times),
        run_time: estimate.run_ms.map(times),
        setup_time: estimate.setup_ms.map(times),
        cost: estimate.cost.map(costs),
        price_per_hour_usd_micros: estimate.price_usd_micros_per_hour,
        headline: estimate.headline(),
        notes: estimate
            .notes
            .iter()
            .map(|note| estimate_note(note, estimate.memory))
            .collect(),
        hardware_title: estimate.hardware.to_string(),
        dominated,
        phases: estimate.phases.iter().map(phase).collect(),
        memory: estimate.memory.map(memory),
        whole_time: estimate.whole_ms().map(times),
        whole_cost: estimate.whole_cost().map(costs),
    }
}

fn memory(memory: Memory) -> v1::MemoryNeed {
    let fit = match memory.fit {
        Fit::Fits => v1::MemoryFit::Fits,
        Fit::MayNot => v1::MemoryFit::MayNot,
        Fit::WillNot => v1::MemoryFit::WillNot,
    };
    v1::MemoryNeed {
        p10_mib: memory.need_mib_p10,
        p50_mib: memory.need_mib_p50,
        p90_mib: memory.need_mib_p90,
        gpu_mib: memory.gpu_mib,
        basis: basis(memory.basis).into(),
        fit: fit.into(),
        phase: phase_kind(memory.phase).into(),
    }
}

fn phase(phase: &Phase) -> v1::EstimatePhase {
    let resolution = phase.resolution;
    v1::EstimatePhase {
        kind: phase_kind(phase.kind).into(),
        half_megapixels: resolution.map(|resolution| resolution.get().into()),
        count: phase.count,
        time: phase.ms.map(times),
        basis: basis(phase.basis).into(),
        rows: phase.rows,
        observed: phase.observed,
    }
}

const fn phase_kind(kind: PhaseKind) -> v1::EstimatePhaseKind {
    match kind {
        PhaseKind::Start => v1::EstimatePhaseKind::Start,
        PhaseKind::Load => v1::EstimatePhaseKind::Load,
        PhaseKind::Quantize => v1::EstimatePhaseKind::Quantize,
        PhaseKind::CacheText => v1::EstimatePhaseKind::CacheText,
        PhaseKind::CacheLatents => v1::EstimatePhaseKind::CacheLatents,
        PhaseKind::Train => v1::EstimatePhaseKind::Train,
        PhaseKind::Validate => v1::EstimatePhaseKind::Validate,
        PhaseKind::Checkpoint => v1::EstimatePhaseKind::Checkpoint,
        PhaseKind::Save => v1::EstimatePhaseKind::Save,
    }
}

/// What was assumed while a configuration was read.
pub(crate) fn note(note: &ReadingNote) -> v1::Note {
    v1::Note {
        code: reading_code(note).to_owned(),
        text: note.to_string(),
    }
}

/// Hardware as a person named it.
pub(crate) fn hardware_list(
    field: &str,
    names: &[String],
    most: usize,
) -> Result<Vec<Hardware>, Status> {
    if names.len() > most {
        return Err(bad_field(field, format!("there are at most {most}")));
    }
    let parse = |(index, name): (usize, &String)| {
        name.parse().map_err(|error| {
            let instead = match error {
                HardwareError::UnknownModel => written_instead(name),
                HardwareError::UnlistedCount => "write it as h100 or h100x2".to_owned(),
            };
            bad_field(
                &format!("{field}[{index}]"),
                format!("{error}: {}; {instead}", shown(name)),
            )
        })
    };
    let mut list: Vec<Hardware> = Vec::new();
    for hardware in names.iter().enumerate().map(parse) {
        let hardware = hardware?;
        if !list.contains(&hardware) {
            list.push(hardware);
        }
    }
    Ok(list)
}

const fn basis(basis: Basis) -> v1::Basis {
    match basis {
        Basis::Exact => v1::Basis::Exact,
        Basis::Near => v1::Basis::Near,
        Basis::Rough => v1::Basis::Rough,
        Basis::None => v1::Basis::None,
    }
}

fn estimate_note(note: &Note, memory: Option<Memory>) -> v1::Note {
    let text = match note {
        Note::BatchScaled { from } => format!("scaled from records of batch size {from}"),
        Note::ResolutionScaled { from } => format!("scaled from records of {from} megapixels"),
        Note::AccumulationScaled => {
            "scaled from records of another gradient accumulation".to_owned()
        }
        Note::PrecisionBorrowed { from } => {
            format!("taken from records of precision {}", from.name())
        }
        Note::QuantizationBorrowed { from } => {
            format!("taken from records of quantisation {}", from.name())
        }
        Note::RecipeBorrowed { from } => format!("taken from records of {from}"),
        Note::HardwareScaled { from } => format!("scaled from {from}"),
        Note::RatedOnly => "from the ratings of the hardware alone: a rough guess".to_owned(),
        Note::PublishedPrior => "from published measurements".to_owned(),
        Note::ValidationDerived => {
            "validation was not measured; its time follows from the step time".to_owned()
        }
        Note::ValidationUnknown => {
            "nothing is known of the validation's time, so it is left out".to_owned()
        }
        Note::StepsAssumed => {
            "the number of steps is assumed, since a data set's size is not known for certain"
                .to_owned()
        }
        Note::SetupExcluded => "loading, caching and saving are not included".to_owned(),
        Note::NoPrice => "nobody has set a price for this hardware".to_owned(),
        Note::MemoryTight { gpu } => format!(
            "the run may not fit the {} GiB of {gpu}{}",
            gpu.memory_gib(),
            needed(memory)
        ),
        Note::MemoryExceeded { gpu } => format!(
            "the run will not fit the {} GiB of {gpu}{}",
            gpu.memory_gib(),
            needed(memory)
        ),
        Note::FewRows => "few records: the interval is widened, and the time is drawn to what similar records say where they are of fewer than a hundred steps".to_owned(),
        Note::Replay => "the times come from the pretend device".to_owned(),
    };
    v1::Note {
        code: closed_code(note),
        text,
    }
}

/// What half of such runs need, behind what is said of it; with when they need it and what makes it less, where that is
/// before the steps.
fn needed(memory: Option<Memory>) -> String {
    let Some(memory) = memory else {
        return String::new();
    };
    let gib = f64::from(memory.need_mib_p50) / 1_024.0;
    match memory.phase {
        PhaseKind::CacheText => format!(
            ": its text encoders need about {gib:.0} GiB before the steps; quantised by the host (quantize_via cpu, \
             text_encoder_1_precision and so on) they need less"
        ),
        PhaseKind::CacheLatents => format!(
            ": encoding its samples needs about {gib:.0} GiB before the steps; a smaller vae_batch_size, \
             vae_enable_tiling or offload_during_startup needs less"
        ),
        PhaseKind::Quantize => format!(
            ": quantising its weights on the GPU needs about {gib:.0} GiB before the steps; with quantize_via cpu the \
             host does it"
        ),
        _ => format!(": it needs about {gib:.0} GiB"),
    }
}

const fn reading_code(note: &ReadingNote) -> &'static str {
    match note {
        ReadingNote::Default { .. } => "DEFAULT_TAKEN",
        ReadingNote::FlavourOfWeights(_) => "FLAVOUR_OF_WEIGHTS",
        ReadingNote::FlavourAssumed(_) => "FLAVOUR_ASSUMED",
        ReadingNote::FlavourGuessed(_) => "FLAVOUR_GUESSED",
        ReadingNote::FlavourOverruled(_) => "FLAVOUR_OVERRULED",
        ReadingNote::TextFalseIgnored(_) => "TEXT_FALSE_IGNORED",
        ReadingNote::NotComparable { .. } => "NOT_COMPARABLE",
        ReadingNote::NotRecorded => "NOT_RECORDED",
        ReadingNote::ValidationNotRecorded => "VALIDATION_NOT_RECORDED",
        ReadingNote::NothingRecorded => "NOTHING_RECORDED",
        ReadingNote::SoundLength => "SOUND_LENGTH",
        ReadingNote::ProcessesFromHardware => "PROCESSES_FROM_HARDWARE",
        ReadingNote::SquareAssumed { .. } => "SQUARE_ASSUMED",
        ReadingNote::PixelsOfModel { .. } => "PIXELS_OF_MODEL",
        ReadingNote::SoundsAlone { .. } => "SOUNDS_ALONE",
        ReadingNote::EncodedAgain { .. } => "ENCODED_AGAIN",
        ReadingNote::FramesAssumed { .. } => "FRAMES_ASSUMED",
        ReadingNote::FramesVary { .. } => "FRAMES_VARY",
        ReadingNote::SamplesFromMaximum { .. } => "SAMPLES_FROM_MAXIMUM",
        ReadingNote::Scheduled { .. } => "SCHEDULED",
        ReadingNote::UnreadKeys { .. } => "UNREAD_KEYS",
        ReadingNote::BucketsUnknown => "BUCKETS_UNKNOWN",
        ReadingNote::SharedEvenly => "SHARED_EVENLY",
        ReadingNote::ValidationSamples(_) => "VALIDATION_SAMPLES",
        ReadingNote::ValidationFramesAssumed(_) => "VALIDATION_FRAMES_ASSUMED",
        ReadingNote::EmptyPrompt => "EMPTY_PROMPT",
        ReadingNote::NoEmptyPrompt => "NO_EMPTY_PROMPT",
        ReadingNote::InferenceStepsOfModel(_) => "INFERENCE_STEPS_OF_MODEL",
        ReadingNote::ExternalValidation => "EXTERNAL_VALIDATION",
        ReadingNote::Resumes => "RESUMES",
        ReadingNote::ResumesElsewhere => "RESUMES_ELSEWHERE",
        ReadingNote::GoesOnFromLora => "GOES_ON_FROM_LORA",
        ReadingNote::FramesFitted { .. } => "FRAMES_FITTED",
        ReadingNote::CheckpointsByEpochs => "CHECKPOINTS_BY_EPOCHS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_stable_codes_and_words() {
        let hardware = Hardware::all().next().expect("the registry is not empty");
        let told = estimate_note(&Note::HardwareScaled { from: hardware }, None);
        assert_eq!(
            (told.code.as_str(), told.text),
            ("HARDWARE_SCALED", format!("scaled from {hardware}"))
        );
        assert_eq!(estimate_note(&Note::NoPrice, None).code, "NO_PRICE");
        assert_eq!(note(&ReadingNote::Resumes).code, "RESUMES");
    }

    #[test]
    fn hardware_is_named_as_people_write_it() {
        let read = |name: &str| hardware_list("hardware", &[name.to_owned()], 4);
        assert_eq!(
            read("H100 x2").map(|list| list[0].slug()).ok().as_deref(),
            Some("h100x2")
        );
        let refused = read("gtx1").err().map(|status| status.message().to_owned());
        assert!(refused.is_some_and(|message| message.starts_with("hardware[0]: ")));
    }
}
