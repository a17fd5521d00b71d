//! Images that a community measured: one row a measurement, as `inference_sdnext_community.csv` has them. Only those
//! whose work is known count: Stable Diffusion 1.5 of 2023 at 16 bits, which made images of 512 pixels in 20 steps.

use std::collections::HashMap;

use serde::Deserialize;

use super::case::{Case, Said};
use super::{Reading, number, processor};
use crate::error::Error;

const STEPS: f64 = 20.0;

#[derive(Deserialize)]
struct Line {
    timestamp: String,
    submitter: String,
    backend: String,
    gpu: String,
    gpu_count: String,
    vram_gb: String,
    torch: String,
    precision: String,
    optimization: String,
    model_class: String,
    os: String,
    #[serde(default)]
    cpu: String,
    #[serde(default)]
    xformers: String,
    batch: String,
    ms_per_image_20steps: String,
    status: String,
}

pub(super) fn read(file: &[u8]) -> Result<Reading, Error> {
    let mut reading = Reading::of(file, |line: &Line, reading| {
        if line.status != "ok" {
            return Err("not measured");
        }
        if !line.timestamp.starts_with("2023") {
            return Err("not of 2023: resolution and steps are not known");
        }
        if line.precision != "fp16" {
            return Err("precision other than fp16");
        }
        if !line.model_class.starts_with("sd15") {
            return Err("another model");
        }
        if line.gpu.is_empty() {
            return Err("no hardware");
        }
        let ms = super::time(&line.ms_per_image_20steps).ok_or("no time")?;
        let batch = number::BATCH.needed(&line.batch)?;
        let (batch_said, memory_gb) = (number::plain(&line.batch), number::plain(&line.vram_gb));
        let device = format!("{} {memory_gb}GB {}", line.gpu, line.backend);
        let torch: Vec<&str> = line.torch.split(['.', '+']).take(2).collect();
        let torch = torch.join(".");
        let (attention, memory) = line
            .optimization
            .rsplit_once(' ')
            .unwrap_or((&line.optimization, ""));
        let attention = attention.to_lowercase();
        let attention = attention.trim_start_matches("original ");
        let attention = attention.replace("automatic", "auto");
        let processor = processor::generation(&line.cpu);
        let undecoded = if processor.is_some() { "" } else { &line.cpu };
        let said = Said {
            recipe: "sd15",
            method: "image",
            gpu: &line.gpu,
            gpus: number::GPUS.or(1.0, &line.gpu_count)?,
            quantization: ["none", ""],
            precision: "fp16",
            checkpointing: "none",
            settings: [
                &attention,
                memory,
                &device,
                &torch,
                &line.os,
                undecoded,
                &line.xformers,
                "",
            ],
            batch,
            megapixels: 512.0 * 512.0 / 1e6,
            frames: 1.0,
            repeats: STEPS,
            forward_only: true,
            processor: processor.unwrap_or(0.0),
        };
        let unit = line.submitter.clone();
        let groups = [
            vec![&*device, &line.optimization, &batch_said],
            vec![&line.gpu, &batch_said],
            vec![&line.gpu],
            vec![],
        ];
        let mut case = said.case(ms * batch, unit, super::grouped(&groups));
        case.exact = Some([case.narrowest(), &line.os].join("\u{1f}"));
        case.share(batch);
        case.series = Some(format!(
            "{} {device} {} {batch}",
            line.submitter, line.optimization
        ));
        reading.cases.push(case);
        Ok(())
    })?;
    weigh(&mut reading.cases);
    Ok(reading)
}

/// A few people measured one machine hundreds of times: each machine's word grows with the root of that, in however many
/// files its measurements are.
pub(super) fn weigh(cases: &mut [Case]) {
    let mut counts: HashMap<String, f64> = HashMap::new();
    for series in cases.iter().filter_map(|case| case.series.as_ref()) {
        *counts.entry(series.clone()).or_default() += 1.0;
    }
    for case in cases {
        if let Some(series) = &case.series {
            case.weight = counts[series].powf(-0.5);
        }
    }
}
