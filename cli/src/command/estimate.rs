//! `stepcast estimate`: what a run will take and cost on each hardware, before anything is submitted.

mod choice;
mod detail;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use stepcast_proto::v1::{
    Basis, Estimate as Row, EstimateJobRequest, EstimateJobResponse, EstimatePhaseKind, Note,
    SampleCount, TimeQuantiles,
};
use stepcast_records::sample::{TRAINING_COUNT_MIN, WARMUP_STEPS};

use self::choice::{choices, lacks_least};
use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::files::{self, Submission};
use crate::output::money::{counted, dollars};
use crate::output::shell::quoted;
use crate::output::style::{Mark, Tone};
use crate::output::table::{Cell, Side, Table};
use crate::output::{Output, json, time};

/// Rows that are shown unless all are asked for.
const ROWS_SHOWN: usize = 12;

/// Says what a run will take and cost on each hardware.
///
/// Example: stepcast estimate config/flux-cats --on rtx4090,h100x2
#[derive(Debug, Args)]
pub(crate) struct Estimate {
    /// SimpleTuner's configuration: its folder, or its config.json, config.toml or config.env
    path: PathBuf,
    #[command(flatten)]
    question: Question,
    /// Show every hardware, also where nothing is known
    #[arg(long)]
    all: bool,
    /// Show what each estimate is made of
    #[arg(long)]
    detail: bool,
}

/// What `estimate` and `submit` both ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct Question {
    /// Hardware such as rtx4090 or h100x2; several separated by commas
    #[arg(
        long = "on",
        visible_alias = "hardware",
        value_name = "HARDWARE",
        value_delimiter = ','
    )]
    pub(crate) on: Vec<String>,
    /// How many samples a data set has, where the configuration does not say: N for each, or ID=N
    #[arg(long, value_name = "[ID=]N", value_parser = samples)]
    pub(crate) samples: Vec<SampleCount>,
}

fn samples(text: &str) -> Result<SampleCount, String> {
    let (dataset, number) = text.rsplit_once('=').unwrap_or(("", text));
    let samples = number.parse().ok().filter(|count| *count > 0);
    let samples = samples.ok_or("write how many samples there are, as 1200 or my-data-set=1200")?;
    Ok(SampleCount {
        dataset: dataset.to_owned(),
        samples,
    })
}

impl Estimate {
    /// Asks and shows.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let submission = files::collect(&self.path)?;
        let client = context.connect().await?;
        let answer = ask(&client, &submission, &self.question).await?;
        let output = &context.output;
        if output.json {
            return output.json(&answer_json(&answer, &submission));
        }
        show(
            output,
            &answer,
            self.all || !self.question.on.is_empty(),
            self.detail,
        )?;
        missing_files(output, &submission);
        let path = quoted(&self.path.to_string_lossy());
        if let Some((best, fastest)) = choices(&answer.estimates) {
            let other = match fastest {
                Some(fastest) => format!("    (or --on {} for the fastest)", fastest.hardware),
                None => String::new(),
            };
            output.say(format!(
                "{}: {}",
                Tone::Strong.paint(title(best)),
                best.headline
            ));
            if let Some(note) = memory_note(best) {
                output.marked(Mark::Look, Tone::Warn, &note.text);
            }
            output.next(format!("stepcast submit {path}{other}"));
        } else if let Some(nearest) = lacks_least(&answer.estimates) {
            output.marked(Mark::Look, Tone::Warn, too_small(nearest));
            output.next(match self.question.on.is_empty() {
                true => "lower what it needs, and ask again".to_owned(),
                false => format!("stepcast estimate {path}    (all hardware)"),
            });
        } else {
            output.next(format!(
                "import measured figures (`stepcast records import`), or run it for more than {} steps: the next estimate will know",
                WARMUP_STEPS + u64::from(TRAINING_COUNT_MIN)
            ));
        }
        Ok(())
    }
}

/// Asks the server.
pub(crate) async fn ask(
    client: &Client,
    submission: &Submission,
    question: &Question,
) -> Result<EstimateJobResponse, Failure> {
    let message = EstimateJobRequest {
        files: submission.files.clone(),
        sample_counts: question.samples.clone(),
        hardware: question.on.clone(),
    };
    let answer = client.ask(|| {
        let request = timed(message.clone());
        let mut service = client.estimates();
        async move { service.estimate_job(request).await }
    });
    answer
        .await
        .map_err(|failure| with_missing(failure, submission))
}

/// A refusal reads better when the files that were not found are named beside it.
pub(crate) fn with_missing(mut failure: Failure, submission: &Submission) -> Failure {
    failure.details.extend(
        submission
            .missing
            .iter()
            .map(|file| format!("{file}: not found here, so it was not sent")),
    );
    failure
}

/// Names the files that were not sent.
pub(crate) fn missing_files(output: &Output, submission: &Submission) {
    for file in &submission.missing {
        output.marked(
            Mark::Look,
            Tone::Warn,
            format!("{file} was not found, so the server did not see it"),
        );
    }
}

fn answer_json(answer: &EstimateJobResponse, submission: &Submission) -> serde_json::Value {
    json!({
        "title": answer.title,
        "workload": answer.workload.as_ref().map(json::workload),
        "steps_total": answer.steps_total,
        "validation_passes": answer.validation_passes,
        "validation_prompts": answer.validation_prompts,
        "notes": json::notes(&answer.notes),
        "estimates": answer.estimates.iter().map(json::estimate).collect::<Vec<_>>(),
        "prices_date": answer.prices_date,
        "files_missing": submission.missing,
    })
}

/// Draws the answer.
pub(crate) fn show(
    output: &Output,
    answer: &EstimateJobResponse,
    all: bool,
    detail: bool,
) -> Result<(), Failure> {
    output.say(head(answer));
    output.say("");
    let known: Vec<&Row> = answer
        .estimates
        .iter()
        .filter(|row| all || row.run_time.is_some())
        .collect();
    let shown = if all {
        known.len()
    } else {
        known.len().min(ROWS_SHOWN)
    };
    output.table(&table(output, &answer.estimates, &known[..shown]))?;
    if detail {
        known[..shown]
            .iter()
            .for_each(|row| detail::show(output, row));
    }
    output.say("");
    let hidden = answer.estimates.len() - shown;
    if hidden > 0 {
        output.say(format!(
            "{shown} of {}; --all shows the rest.",
            counted(answer.estimates.len() as u64, "hardware", "hardware")
        ));
    }
    output.say(footing(answer));
    show_notes(output, &answer.notes);
    Ok(())
}

/// What is trained, in one line.
fn head(answer: &EstimateJobResponse) -> String {
    let title = Tone::Strong.paint(&answer.title);
    if answer.validation_prompts == 0 {
        return title;
    }
    let images = counted(answer.validation_prompts, "image", "images");
    format!(
        "{title}  {images} in {}",
        counted(answer.validation_passes, "validation", "validations")
    )
}

const COLUMNS: [(&str, Side); 8] = [
    ("HARDWARE", Side::Left),
    ("s/STEP p50", Side::Right),
    ("p90", Side::Right),
    ("RUN TIME", Side::Right),
    ("(p10-p90)", Side::Left),
    ("COST", Side::Right),
    ("EVIDENCE", Side::Left),
    ("", Side::Left),
];

fn table(output: &Output, all: &[Row], shown: &[&Row]) -> Table {
    let best = choices(all);
    let mut table = Table::new(&COLUMNS);
    for row in shown {
        let cheapest = best.is_some_and(|(best, _)| std::ptr::eq(best, *row));
        let fastest = best
            .and_then(|(_, fastest)| fastest)
            .is_some_and(|fastest| std::ptr::eq(fastest, *row));
        let mark = if cheapest {
            output.signs.mark(Mark::Here)
        } else {
            ""
        };
        let chosen = match (cheapest, fastest) {
            (true, _) if row.cost.is_some() => Some("cheapest"),
            (_, true) => Some("fastest"),
            _ => None,
        };
        let remark = match (chosen, memory_note(row)) {
            (Some(word), Some(note)) => Cell::toned(format!("{word}, {}", words(note)), Tone::Warn),
            (Some(word), None) => Cell::toned(word, Tone::Good),
            (None, _) => Cell::toned(remark(row), Tone::Dim),
        };
        let times = row.run_time.as_ref();
        let cells = vec![
            title(row).into(),
            point(row.step_time.as_ref(), |times| times.p50, time::step).into(),
            point(row.step_time.as_ref(), |times| times.p90, time::step).into(),
            point(times, |times| times.p50, time::rough_span).into(),
            times.map_or_else(String::new, range).into(),
            row.cost
                .as_ref()
                .map_or_else(|| "-".to_owned(), |cost| dollars(cost.p50_usd_micros))
                .into(),
            evidence(row).into(),
            remark,
        ];
        table.marked(mark, cells, row.dominated || row.run_time.is_none());
    }
    table
}

/// The name of a row's hardware.
pub(crate) fn title(row: &Row) -> &str {
    if row.hardware_title.is_empty() {
        &row.hardware
    } else {
        &row.hardware_title
    }
}

fn point(
    times: Option<&TimeQuantiles>,
    which: impl Fn(&TimeQuantiles) -> Option<prost_types::Duration>,
    shown: impl Fn(f64) -> String,
) -> String {
    times
        .and_then(which)
        .map_or_else(|| "-".to_owned(), |span| shown(time::seconds(&span)))
}

fn range(times: &TimeQuantiles) -> String {
    match (&times.p10, &times.p90) {
        (Some(low), Some(high)) => {
            format!(
                "({}-{})",
                time::short_span(time::seconds(low)),
                time::short_span(time::seconds(high))
            )
        }
        _ => String::new(),
    }
}

/// How far from the exact key, and how much it rests on.
fn evidence(row: &Row) -> String {
    let runs = || counted(u64::from(row.rows), "run", "runs");
    match row.basis() {
        Basis::Exact => format!("exact, {}", runs()),
        Basis::Near => format!("near, {}", runs()),
        Basis::Rough if row.rows > 0 => format!("rough, {}", runs()),
        Basis::Rough => "rough".to_owned(),
        Basis::None | Basis::Unspecified => "no history".to_owned(),
    }
}

/// The first thing to know about a row, as two or three words; that it may not fit at all goes before everything.
fn remark(row: &Row) -> String {
    let first = memory_note(row).or_else(|| row.notes.first());
    first.map(words).unwrap_or_default()
}

/// What says that the memory may not be enough.
fn memory_note(row: &Row) -> Option<&Note> {
    let tight = |note: &&Note| matches!(note.code.as_str(), "MEMORY_TIGHT" | "MEMORY_EXCEEDED");
    row.notes.iter().find(tight)
}

/// What is said where no row holds the run, by the one that lacks least: what it needs, and what lowers that. Notes name
/// the settings for what comes before the steps.
fn too_small(nearest: &Row) -> String {
    let note = memory_note(nearest).map_or("", |note| note.text.as_str());
    let phase = nearest.memory.unwrap_or_default().phase();
    let lower = match phase {
        EstimatePhaseKind::Quantize
        | EstimatePhaseKind::CacheText
        | EstimatePhaseKind::CacheLatents => "",
        _ => {
            "; a smaller train_batch_size or resolution, gradient_checkpointing, or for a LoRA a base_model_precision of \
              fewer bits needs less"
        }
    };
    format!(
        "no hardware here holds the run; {} lacks least: {note}{lower}",
        title(nearest)
    )
}

fn words(note: &Note) -> String {
    note.code.to_ascii_lowercase().replace('_', " ")
}

fn footing(answer: &EstimateJobResponse) -> String {
    let mut parts = Vec::new();
    if let Some(on_top) = on_top(&answer.estimates) {
        let order = match answer.estimates.len() {
            0 | 1 => "",
            _ => "; what is cheapest counts them",
        };
        parts.push(format!("{on_top}{order}."));
    }
    if !answer.prices_date.is_empty() {
        parts.push(format!("Prices of {}.", answer.prices_date));
    }
    parts.join(" ")
}

/// What comes before and between the steps of these rows, and what it costs there; `None` for nothing that shows.
pub(crate) fn on_top(rows: &[Row]) -> Option<String> {
    let setups = rows
        .iter()
        .filter_map(|row| row.setup_time.as_ref()?.p50.as_ref());
    let setups = setups.map(time::seconds);
    let (low, high) = setups.fold((f64::MAX, 0.0_f64), |(low, high), setup| {
        (low.min(setup), high.max(setup))
    });
    if high <= 0.0 {
        return None;
    }
    let span = if high - low < 1.0 {
        time::span(high)
    } else {
        format!("{} to {}", time::span(low), time::span(high))
    };
    let costs = rows.iter().filter_map(choice::on_top);
    let cost = match (costs.clone().min(), costs.max()) {
        (Some(low), Some(high)) if dollars(low) == dollars(high) => format!(", {}", dollars(high)),
        (Some(low), Some(high)) => format!(", {} to {}", dollars(low), dollars(high)),
        _ => String::new(),
    };
    Some(format!(
        "Loading, caching and saving come on top: about {span}{cost}"
    ))
}

/// What was assumed, one line each.
pub(crate) fn show_notes(output: &Output, notes: &[Note]) {
    for note in notes {
        output.marked(Mark::Dot, Tone::Dim, &note.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_numbers_nothing_is_chosen() {
        let rows = [Row {
            hardware: "rtx4090".to_owned(),
            ..Row::default()
        }];
        assert!(choices(&rows).is_none());
        assert_eq!(evidence(&rows[0]), "no history");
    }

    #[test]
    fn where_no_hardware_holds_the_run_what_lowers_its_need_is_said_once() {
        let row = |phase: EstimatePhaseKind, text: &str| Row {
            hardware: "l40s".to_owned(),
            memory: Some(stepcast_proto::v1::MemoryNeed {
                phase: phase.into(),
                ..Default::default()
            }),
            notes: vec![Note {
                code: "MEMORY_EXCEEDED".to_owned(),
                text: text.to_owned(),
            }],
            ..Row::default()
        };
        let before = row(
            EstimatePhaseKind::Quantize,
            "it needs 55 GiB; with quantize_via cpu the host does it",
        );
        assert_eq!(
            too_small(&before),
            "no hardware here holds the run; l40s lacks least: it needs 55 GiB; with quantize_via cpu the host does it"
        );
        let training = too_small(&row(EstimatePhaseKind::Train, "it needs 55 GiB"));
        assert!(
            training.contains("it needs 55 GiB; a smaller train_batch_size"),
            "{training}"
        );
    }

    #[test]
    fn sample_counts_are_for_one_data_set_or_for_all() {
        assert_eq!(
            samples("cats=12"),
            Ok(SampleCount {
                dataset: "cats".to_owned(),
                samples: 12
            })
        );
        assert_eq!(samples("12").expect("read").dataset, "");
        assert!(samples("cats").is_err());
        assert!(samples("0").is_err());
    }
}
