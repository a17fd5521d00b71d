//! Images of controlled sweeps: one row a configuration, as `inference_curated_sweeps.csv` has them.

use serde::Deserialize;

use super::Reading;
use super::case::Said;
use crate::error::Error;

#[derive(Deserialize)]
struct Line {
    model: String,
    gpu: String,
    gpu_count: String,
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

pub(super) fn read(text: &str) -> Result<Reading, Error> {
    Reading::of(text, |line: &Line, reading| {
        if line.status != "ok" {
            return Err("not measured");
        }
        let ms = super::time(&line.ms_per_image).ok_or("no time")?;
        let steps = super::positive(&line.steps).ok_or("no number of steps")?;
        let number = |text: &str, otherwise: f64| super::positive(text).unwrap_or(otherwise);
        let batch = number(&line.batch, 1.0);
        let said = Said {
            recipe: &line.model,
            method: "image",
            gpu: &line.gpu,
            gpus: number(&line.gpu_count, 1.0),
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
            megapixels: number(&line.megapixels, 1.0),
            frames: number(&line.frames, 1.0),
            repeats: steps,
            forward_only: true,
            processor: 0.0,
        };
        let unit = format!(
            "{:?}",
            (
                &line.model,
                &line.gpu,
                &line.megapixels,
                &line.batch,
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
                &line.batch,
            ],
            vec![
                &line.model,
                &line.gpu,
                &line.precision,
                &line.quantization,
                &line.batch,
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
