//! A run in one line, for screens.

use super::loader::Loader;
use super::model::Model;
use super::workload::{Length, Workload};
use crate::recipe::Method;

/// Different values that a title lists; beyond them it says how many more there are.
const MAX_LISTED: usize = 3;

/// Such as `flux.dev  LoRA r16  1024px  batch 4  bf16  3,000 steps`. It holds words of closed lists and numbers only.
pub(super) fn title(
    workload: &Workload,
    model: &Model,
    loader: &Loader,
    algorithm: Option<&str>,
) -> String {
    let recipe = workload.recipe;
    let mut parts = vec![format!("{}.{}", recipe.family(), recipe.flavour())];
    parts.push(match (recipe.method(), model.lora_rank, algorithm) {
        (method, Some(rank), _) => format!("{} r{rank}", method.title()),
        (Method::Lycoris, None, Some(algorithm)) => format!("LyCORIS {algorithm}"),
        (method, ..) => method.title().to_owned(),
    });
    parts.push(listed(loader.resolutions_said.iter().cloned()));
    let frames = workload
        .datasets
        .iter()
        .map(|dataset| dataset.frames.max_frames())
        .max();
    if let Some(frames @ 2..) = frames {
        parts.push(format!("up to {frames} frames"));
    }
    let batch = listed(
        workload
            .datasets
            .iter()
            .map(|dataset| dataset.batch_size.to_string()),
    );
    parts.push(match workload.accumulation {
        1 => format!("batch {batch}"),
        accumulation => format!("batch {batch} × {accumulation}"),
    });
    parts.push(model.precision_said.to_owned());
    parts.push(model.quantization_said.to_owned());
    parts.push(match workload.length {
        Length::Steps(1) => "1 step".to_owned(),
        Length::Steps(steps) => format!("{} steps", grouped(steps)),
        Length::Epochs(1) => "1 epoch".to_owned(),
        Length::Epochs(epochs) => format!("{} epochs", grouped(epochs.into())),
    });
    parts.retain(|part| !part.is_empty());
    parts.join("  ")
}

/// Different values in the order of their first appearance.
fn listed(values: impl Iterator<Item = String>) -> String {
    let mut different: Vec<String> = Vec::new();
    for value in values {
        if !value.is_empty() && !different.contains(&value) {
            different.push(value);
        }
    }
    let more = different.len().saturating_sub(MAX_LISTED);
    different.truncate(MAX_LISTED);
    let list = different.join("+");
    if more > 0 {
        format!("{list} and {more} more")
    } else {
        list
    }
}

/// A number with a comma after each three digits from the right.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three_digits() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (3_000, "3,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_list_names_each_value_once_and_ends_after_three() {
        let of = |values: &[&str]| listed(values.iter().map(|value| (*value).to_owned()));
        assert_eq!(of(&["512px", "1024px", "512px"]), "512px+1024px");
        assert_eq!(of(&["1", "2", "3", "4", "5"]), "1+2+3 and 2 more");
    }
}
