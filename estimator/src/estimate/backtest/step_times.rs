//! Training steps: one row a configuration, as `training_step_times.csv` has them.

use serde::Deserialize;

use super::case::Said;
use super::{Reading, names, number};
use crate::error::Error;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    trainer: String,
    model: String,
    recipe: String,
    method: String,
    gpu: String,
    gpu_count: String,
    resolution_effective: String,
    frames: String,
    megapixels: String,
    mp_bucket: String,
    batch: String,
    grad_accum: String,
    precision: String,
    quantization: String,
    quant_class: String,
    grad_checkpointing: String,
    attention: String,
    compile: String,
    step_ms: String,
    status: String,
    quality: String,
}

pub(super) fn read(file: &[u8]) -> Result<Reading, Error> {
    Reading::of(file, |line: &Line, reading| {
        if line.status != "ok" {
            return Err("not measured");
        }
        let ms = super::time(&line.step_ms).ok_or("no step time")?;
        if !matches!(line.quality.as_str(), "A" | "B") {
            return Err("quality below B");
        }
        let recipe = if line.recipe.is_empty() {
            &line.model
        } else {
            &line.recipe
        };
        if recipe.is_empty() || line.gpu.is_empty() {
            return Err("no model or hardware");
        }
        let (batch, bucket) = (number::plain(&line.batch), number::plain(&line.mp_bucket));
        let [gpus, frames, accumulated] =
            [&line.gpu_count, &line.frames, &line.grad_accum].map(|cell| number::plain(cell));
        let megapixels = match number::of_resolution(&line.resolution_effective) {
            Some(said) if line.megapixels.is_empty() => said,
            _ if line.megapixels.is_empty() => number::MEGAPIXELS.or(1.0, &line.mp_bucket)?,
            _ => number::MEGAPIXELS.needed(&line.megapixels)?,
        };
        let checkpointing = match names::first_word(&line.grad_checkpointing) {
            "False" | "no" => "none",
            "" | "True" | "on" => "layer",
            other => other,
        };
        let variable = if line.resolution_effective.contains("variable") {
            "variable shape"
        } else {
            ""
        };
        let fine = if line.quant_class == "none" {
            ""
        } else {
            names::first_word(&line.quantization)
        };
        let said = Said {
            recipe,
            method: if line.method.is_empty() {
                "lora"
            } else {
                &line.method
            },
            gpu: &line.gpu,
            gpus: number::GPUS.or(1.0, &line.gpu_count)?,
            quantization: [&line.quant_class, fine],
            precision: &line.precision,
            checkpointing,
            settings: [
                &line.attention,
                &line.compile,
                variable,
                &line.trainer,
                "",
                "",
                "",
                "",
            ],
            batch: number::BATCH.or(1.0, &line.batch)?,
            megapixels,
            frames: number::FRAMES.or(1.0, &line.frames)?,
            repeats: number::ACCUMULATED.or(1.0, &line.grad_accum)?,
            forward_only: false,
            processor: 0.0,
        };
        let unit = super::grouped(&[vec![
            recipe,
            &line.method,
            &line.gpu,
            &gpus,
            &line.resolution_effective,
            &frames,
            &batch,
            &accumulated,
            &line.precision,
            &line.quant_class,
            checkpointing,
        ]])
        .concat();
        let groups = [
            vec![
                recipe,
                &line.gpu,
                &line.quant_class,
                checkpointing,
                &bucket,
                &batch,
            ],
            vec![recipe, &line.gpu, &line.quant_class, checkpointing],
            vec![recipe, &line.gpu, &line.quant_class],
            vec![recipe, &line.gpu],
            vec![recipe],
            vec![&line.gpu],
            vec![],
        ];
        reading
            .cases
            .push(said.case(ms, unit, super::grouped(&groups)));
        Ok(())
    })
}
