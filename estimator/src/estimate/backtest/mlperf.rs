//! Whole training runs: one row a run, as `mlperf_diffusion_training_runs.csv` has them. The middle step counts.

use serde::Deserialize;

use super::case::Said;
use super::{Reading, number};
use crate::error::Error;

#[derive(Deserialize)]
struct Line {
    org: String,
    system: String,
    benchmark: String,
    resolution: String,
    precision: String,
    gpu: String,
    n_gpus: String,
    framework: String,
    round: String,
    batch_per_gpu: String,
    grad_accum: String,
    p50_step_ms: String,
    duplicate_of: String,
}

pub(super) fn read(file: &[u8]) -> Result<Reading, Error> {
    Reading::of(file, |line: &Line, reading| {
        let ms = super::time(&line.p50_step_ms).ok_or("no step time")?;
        if !line.duplicate_of.is_empty() {
            return Err("a duplicate");
        }
        if line.benchmark.is_empty() || line.gpu.is_empty() {
            return Err("no model or hardware");
        }
        let batch = number::BATCH.needed(&line.batch_per_gpu)?;
        let megapixels = number::of_resolution(&line.resolution);
        let (batch_said, gpus_said) = (
            number::plain(&line.batch_per_gpu),
            number::plain(&line.n_gpus),
        );
        let framework = line.framework.split_whitespace().next().unwrap_or("");
        let framework = if framework == "maxdiffusion" {
            framework
        } else {
            ""
        };
        let said = Said {
            recipe: &line.benchmark,
            method: "full",
            gpu: &line.gpu,
            gpus: number::GPUS.needed(&line.n_gpus)?,
            quantization: ["none", ""],
            precision: if line.precision.starts_with("mxfp8") && batch >= 4.0 {
                "mxfp8"
            } else {
                &line.precision
            },
            checkpointing: "none",
            settings: [framework, &line.round, "", "", "", "", "", ""],
            batch,
            megapixels: megapixels.ok_or("no possible resolution")?,
            frames: 1.0,
            repeats: number::ACCUMULATED.or(1.0, &line.grad_accum)?,
            forward_only: false,
            processor: 0.0,
        };
        let unit = format!(
            "{} {} {} {}",
            line.org, line.system, gpus_said, line.benchmark
        );
        let groups = [
            vec![&*line.benchmark, &line.gpu, &batch_said, &gpus_said],
            vec![&line.benchmark, &line.gpu, &batch_said],
            vec![&line.benchmark, &line.gpu],
            vec![&line.benchmark],
            vec![],
        ];
        reading
            .cases
            .push(said.case(ms, unit, super::grouped(&groups)));
        Ok(())
    })
}
