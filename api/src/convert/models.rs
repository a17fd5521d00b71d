//! Names of GPUs that the registry does not know, and such as several boards share.

use std::cmp::Reverse;

use stepcast_proto::v1;
use stepcast_records::{GpuModel, Hardware};
use stepcast_scheduler::model::limits::ALLOW_MAX;

/// Names that are told of those alike.
const NAMED: usize = 6;

/// The least of a name's beginning that makes two alike.
const ALIKE: usize = 2;

/// What to write instead of a name that is no GPU's.
pub(crate) fn written_instead(name: &str) -> String {
    let asked = letters(name);
    let known = GpuModel::all().filter(|model| model.is_gpu());
    let near = known.map(|model| {
        let own = letters(model.slug());
        // A part of a name, such as 4090, says as much as a beginning that is as long.
        let part = if own.contains(&asked) { asked.len() } else { 0 };
        (part.max(common(&own, &asked)), model.slug())
    });
    let mut near: Vec<(usize, &str)> = near.filter(|(alike, _)| *alike >= ALIKE).collect();
    near.sort_by_key(|(alike, _)| Reverse(*alike));
    let most = near.first().map_or(0, |(alike, _)| *alike);
    let nearest = near.iter().take_while(|(alike, _)| *alike == most);
    let names: Vec<&str> = nearest.map(|(_, slug)| *slug).take(NAMED).collect();
    match names.as_slice() {
        [] => "write it as h100, or as `stepcast prices` lists it".to_owned(),
        names => format!("did you mean {}?", names.join(", ")),
    }
}

/// Says of names that several boards share, such as `a100`, which one each was read as.
pub(crate) fn read_as(names: &[String]) -> Option<v1::Note> {
    let mut told: Vec<String> = Vec::new();
    for name in names.iter().take(ALLOW_MAX) {
        let (Ok(read), others) = (name.parse::<Hardware>(), GpuModel::also_meant(name)) else {
            continue;
        };
        let others: Vec<&str> = others.into_iter().map(GpuModel::slug).collect();
        if !others.is_empty() {
            let (read, others) = (read.gpu.slug(), others.join(", "));
            told.push(format!(
                "{name} is read as {read}, beside which there are {others}"
            ));
        }
    }
    told.dedup();
    (!told.is_empty()).then(|| v1::Note {
        code: "HARDWARE_READ_AS".to_owned(),
        text: told.join("; "),
    })
}

/// A name without what it may be divided by, and without a number of GPUs.
fn letters(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    let model = match name.rsplit_once('x') {
        Some((model, "1" | "2" | "4" | "8")) => model,
        _ => &name,
    };
    let kept = model.chars().filter(char::is_ascii_alphanumeric);
    kept.collect()
}

/// How many letters two names have in common from their beginning.
fn common(one: &str, other: &str) -> usize {
    let both = one.bytes().zip(other.bytes());
    both.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_several_boards_share_is_told_with_what_it_was_read_as() {
        let told = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            read_as(&names).map(|note| note.text)
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["h100x8", "a100-80", "foo"]), None);
        assert_eq!(
            told(&["h100", "a100x2", "v100"]).as_deref(),
            Some(
                "a100x2 is read as a100-80, beside which there are a100-40, a100-40-pcie, a100-80-pcie; \
                 v100 is read as v100-16, beside which there are v100-16-pcie, v100-32"
            )
        );
    }

    #[test]
    fn a_name_that_is_near_another_says_which() {
        for (name, told) in [
            (
                "a100",
                "did you mean a100-40, a100-40-pcie, a100-80, a100-80-pcie?",
            ),
            (
                "A100x2",
                "did you mean a100-40, a100-40-pcie, a100-80, a100-80-pcie?",
            ),
            ("rtx4099", "did you mean rtx4090?"),
            ("rtx 6000 adda", "did you mean rtx6000ada?"),
            (
                "pro6000",
                "did you mean rtxpro6000, rtxpro6000-server, rtxpro6000-maxq?",
            ),
            ("foo", "write it as h100, or as `stepcast prices` lists it"),
            ("", "write it as h100, or as `stepcast prices` lists it"),
        ] {
            assert_eq!(written_instead(name), told, "{name}");
        }
        // However many are alike, a few are named.
        assert_eq!(written_instead("rtx").matches(',').count(), NAMED - 1);
    }
}
