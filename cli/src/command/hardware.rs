//! Hardware that a job may run on, as people write it: models, and how many GPUs it has on whichever of them it runs.

use crate::failure::Failure;

/// `h100x2` is two GPUs of model `h100`; a model's own name may hold an `x` too.
pub(crate) fn split(text: &str) -> (String, Option<u32>) {
    let text = text.trim().to_ascii_lowercase();
    match text.rsplit_once('x') {
        Some((model, count)) if matches!(count, "1" | "2" | "4" | "8") && !model.is_empty() => {
            (model.to_owned(), count.parse().ok())
        }
        _ => (text, None),
    }
}

/// The models, and how many GPUs the job is to have, if that is said: with a model, or by `gpus`.
///
/// # Errors
/// More than one number of them: a job has as many whatever it runs on.
pub(crate) fn models_and_count(
    hardware: &[String],
    gpus: Option<u32>,
) -> Result<(Vec<String>, Option<u32>), Failure> {
    let (models, counts): (Vec<String>, Vec<Option<u32>>) =
        hardware.iter().map(|text| split(text)).unzip();
    let said = gpus.or_else(|| counts.iter().flatten().next().copied());
    let differs = |count: &Option<u32>| match (count, gpus) {
        (None, Some(_)) => false,
        // Beside one with a count, one without is one GPU.
        (count, _) => said.is_some_and(|said| count.unwrap_or(1) != said),
    };
    match (counts.iter().find(|count| differs(count)), said) {
        (Some(other), Some(said)) => Err(Failure::usage(format!(
            "a job has the same number of GPUs whatever it runs on, and {said} and {} are asked for",
            other.unwrap_or(1)
        ))
        .hint("name the models alone, and the number with --gpus")),
        _ => Ok((models, said)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn hardware_is_a_model_and_a_count() {
        assert_eq!(split("H100x2"), ("h100".to_owned(), Some(2)));
        assert_eq!(split("rtx4090"), ("rtx4090".to_owned(), None));
        assert_eq!(split("rtx4090x4"), ("rtx4090".to_owned(), Some(4)));
    }

    #[test]
    fn a_job_has_one_number_of_gpus() {
        let read = |text: &str, gpus| {
            let hardware: Vec<String> = text.split(',').map(str::to_owned).collect();
            models_and_count(&hardware, gpus).map(|(_, count)| count)
        };
        assert_eq!(read("h100,rtx4090", None), Ok(None));
        assert_eq!(read("h100x2,rtx4090x2", None), Ok(Some(2)));
        assert_eq!(read("h100,rtx4090x1", None), Ok(Some(1)));
        assert_eq!(read("h100,rtx4090x4", Some(4)), Ok(Some(4)));
        for (text, gpus) in [
            ("h100x2,rtx4090x8", None),
            ("h100,a100-80x4", None),
            ("a100-80x4,h100", None),
            ("h100x4", Some(1)),
        ] {
            let failure = read(text, gpus).expect_err(text);
            assert_eq!(failure.exit, Exit::Usage, "{text}");
        }
    }
}
