//! Whole training runs: one row a run, as `mlperf_diffusion_training_runs.csv` has them. The middle step counts.

use serde::Deserialize;

use super::Reading;
use super::case::Said;
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

pub(super) fn read(text: &str) -> Result<Reading, Error> {
    Reading::of(text, |line: &Line, reading| {
        let ms = super::time(&line.p50_step_ms).ok_or("no step time")?;
        if !line.duplicate_of.is_empty() {
            return Err("a duplicate");
        }
        let gpus = super::positive(&line.n_gpus).ok_or("no number of GPUs")?;
        let batch = super::positive(&line.batch_per_gpu).ok_or("no batch")?;
        let side = super::positive(line.resolution.split('x').next().unwrap_or(""));
        let side = side.ok_or("no resolution")?;
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
            gpus,
            quantization: ["none", ""],
            precision: if line.precision.starts_with("mxfp8") && batch >= 4.0 {
                "mxfp8"
            } else {
                &line.precision
            },
            checkpointing: "none",
            settings: [framework, &line.round, "", "", "", "", "", ""],
            batch,
            megapixels: side * side / 1e6,
            frames: 1.0,
            repeats: super::positive(&line.grad_accum).unwrap_or(1.0),
            forward_only: false,
            processor: 0.0,
        };
        let unit = format!(
            "{} {} {} {}",
            line.org, line.system, line.n_gpus, line.benchmark
        );
        let groups = [
            vec![
                &*line.benchmark,
                &line.gpu,
                &line.batch_per_gpu,
                &line.n_gpus,
            ],
            vec![&line.benchmark, &line.gpu, &line.batch_per_gpu],
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
