//! Images of controlled sweeps: one row a configuration, as `inference_curated_sweeps.csv` has them.

use serde::Deserialize;

use super::case::Said;
use super::{Reading, number};
use crate::error::Error;

#[derive(Deserialize)]
struct Line {
    model: String,
    gpu: String,
    gpu_count: String,
    #[serde(default)]
    resolution: String,
    megapixels: String,
    frames: String,
    steps: String,
    batch: String,
    precision: String,
    quantization: String,
    compile: String,
    fuse_qkv: String,
    attention: String,
    framework: String,
    ms_per_image: String,
    status: String,
}

pub(super) fn read(file: &[u8]) -> Result<Reading, Error> {
    Reading::of(file, |line: &Line, reading| {
        if line.status != "ok" {
            return Err("not measured");
        }
        let ms = super::time(&line.ms_per_image).ok_or("no time")?;
        if line.model.is_empty() || line.gpu.is_empty() {
            return Err("no model or hardware");
        }
        let batch = number::BATCH.or(1.0, &line.batch)?;
        let megapixels = match number::of_resolution(&line.resolution) {
            Some(said) if line.megapixels.is_empty() => said,
            _ => number::MEGAPIXELS.needed(&line.megapixels)?,
        };
        let (batch_said, megapixels_said) =
            (number::plain(&line.batch), number::plain(&line.megapixels));
        let said = Said {
            recipe: &line.model,
            method: "image",
            gpu: &line.gpu,
            gpus: number::GPUS.or(1.0, &line.gpu_count)?,
            quantization: [&line.quantization, ""],
            precision: &line.precision,
            checkpointing: "none",
            settings: [
                &line.attention,
                &line.compile,
                &line.fuse_qkv,
                &line.framework,
                "",
                "",
                "",
                "",
            ],
            batch,
            megapixels,
            frames: number::FRAMES.or(1.0, &line.frames)?,
            repeats: number::STEPS.needed(&line.steps)?,
            forward_only: true,
            processor: 0.0,
        };
        let unit = format!(
            "{:?}",
            (
                &line.model,
                &line.gpu,
                &megapixels_said,
                &batch_said,
                &line.precision,
                &line.quantization,
                &line.compile,
                &line.attention,
                &line.fuse_qkv
            )
        );
        let groups = [
            vec![
                &*line.model,
                &line.gpu,
                &line.precision,
                &line.quantization,
                &line.compile,
                &batch_said,
            ],
            vec![
                &line.model,
                &line.gpu,
                &line.precision,
                &line.quantization,
                &batch_said,
            ],
            vec![&line.model, &line.gpu, &line.precision],
            vec![&line.model, &line.gpu],
            vec![&line.model],
            vec![],
        ];
        // The time is that of the batch; an image's is its share.
        let mut case = said.case(ms * batch, unit, super::grouped(&groups));
        case.share(batch);
        reading.cases.push(case);
        Ok(())
    })
}
