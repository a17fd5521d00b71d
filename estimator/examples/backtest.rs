//! How wrong is each rung of the ladder? Prints a table from a CSV of measured step times, each figure estimated
//! from the others: `cargo run -p stepcast-estimator --example backtest -- [training_step_times.csv]`. Without a
//! file it reads the published figures that ship with Stepcast.
#![expect(clippy::print_stdout, reason = "an example prints its table")]

use std::error::Error;

use serde::Deserialize;
use stepcast_estimator::estimate::backtest::{backtest, published_rows};
use stepcast_records::{
    Accumulation, BatchSize, Checkpointing, FrameClass, HalfMegapixels, Hardware, Key, Precision,
    Quantization, Recipe, Row, TrainingKey, sample,
};

fn main() -> Result<(), Box<dyn Error>> {
    let rows = match std::env::args().nth(1) {
        Some(path) => read(&std::fs::read_to_string(path)?)?,
        None => published_rows(),
    };
    println!("{} figures\n", rows.len());
    println!(
        "{:<28}{:>9}{:>10}{:>9}{:>9}{:>12}",
        "RUNG", "FIGURES", "MEDIAN", "P90", "RATIO", "IN P10-P90"
    );
    for error in backtest(&rows) {
        println!(
            "{:<28}{:>9}{:>8.1} %{:>7.0} %{:>9.2}{:>10.0} %",
            error.rung.text(),
            error.figures,
            error.median_percent,
            error.p90_percent,
            error.median_ratio,
            error.covered_percent
        );
    }
    Ok(())
}

/// The columns of the normalised table that a key is made of.
#[derive(Deserialize)]
struct Line {
    recipe: String,
    model: String,
    method: String,
    gpu: String,
    gpu_count: String,
    frames: String,
    mp_bucket: String,
    batch: String,
    grad_accum: String,
    precision: String,
    quant_class: String,
    grad_checkpointing: String,
    compile: String,
    step_ms: String,
    quality: String,
}

/// What the table calls a configuration or a model, and the family and flavour it trains.
const NAMES: [(&str, &str, &str); 36] = [
    ("auraflow.", "auraflow", "v0.3"),
    ("boogu-image", "boogu_image", "v0.1-base"),
    ("cascade-stage-c", "stable_cascade", "stage-c"),
    ("chroma.", "chroma", "base"),
    ("cosmos2image", "cosmos", "2b"),
    ("cosmos3-edge", "cosmos3", "edge"),
    ("ernie", "ernie", "base"),
    ("hidream", "hidream", "full"),
    ("hunyuanvideo", "hunyuanvideo", "t2v-480p"),
    ("ideogram-fp8", "ideogram", "fp8"),
    ("kandinsky5-image", "kandinsky5_image", "t2i-lite-sft"),
    ("kandinsky5-video", "kandinsky5_video", "t2v-lite-sft-5s"),
    ("kolors", "kolors", "1.0"),
    ("krea2", "krea2", "raw"),
    ("longcat-image", "longcat_image", "final"),
    ("longcat-video", "longcat_video", "final"),
    ("ltxvideo-0.9.5", "ltxvideo", "0.9.5"),
    ("ltxvideo2-2.3", "ltxvideo2", "2.3-dev"),
    ("lumina2", "lumina2", "2.0"),
    ("mageflow", "mageflow", "base"),
    ("omnigen", "omnigen", "v1"),
    ("pixart", "pixart", "900M-1024-v0.6"),
    ("qwen_image", "qwen_image", "v1.0"),
    ("sana.", "sana", "sana1.5-4.8b-1024"),
    ("sanavideo", "sanavideo", "2b-480p"),
    ("sd1x", "sd1x", "dreamshaper"),
    ("sd3", "sd3", "medium"),
    ("sdxl", "sdxl", "base-1.0"),
    ("wan2.1-t2v-1.3b", "wan", "t2v-480p-1.3b-2.1"),
    ("wan2.1-t2v-14b", "wan", "t2v-480p-14b-2.1"),
    ("z-image-turbo", "z_image", "turbo"),
    ("zlab-i1", "zlab_i1", "3b"),
    ("FLUX.1-dev", "flux", "dev"),
    ("FLUX.1-Kontext-dev", "flux", "kontext"),
    ("SDXL", "sdxl", "base-1.0"),
    ("Wan2.1-I2V-14B-480P", "wan", "i2v-14b-2.1"),
];

/// The rows of a key: well measured ones whose settings the records have a place for.
fn read(text: &str) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let lines = reader
        .deserialize::<Line>()
        .collect::<Result<Vec<_>, _>>()?;
    Ok(lines.iter().filter_map(Line::row).collect())
}

impl Line {
    fn row(&self) -> Option<Row> {
        let well_measured = matches!(self.quality.as_str(), "A" | "B");
        let compiled = matches!(self.compile.as_str(), "regional" | "reduce-overhead");
        let step_ms: f64 = self.step_ms.parse().ok().filter(|ms| *ms >= 1.0)?;
        if !well_measured || compiled || self.gpu_count != "1" {
            return None;
        }
        let key = TrainingKey {
            recipe: self.recipe()?,
            hardware: self.gpu.parse().ok().map(Hardware::one)?,
            resolution: HalfMegapixels::from_megapixels_decimal(&self.mp_bucket)?,
            batch_size: BatchSize::new(self.batch.parse::<u32>().ok()?)?,
            accumulation: Accumulation::new(self.grad_accum.parse::<u32>().unwrap_or(1))?,
            precision: Precision::parse(&self.precision)?,
            quantization: Quantization::parse(&self.quant_class)?,
        };
        let avg_ms = sample::three_digits(step_ms.round() as u32);
        Row::new(Key::Training(key), avg_ms, sample::TRAINING_COUNT_MIN).ok()
    }

    fn recipe(&self) -> Option<Recipe> {
        let method = match self.method.as_str() {
            "lora" => "lora",
            "lycoris-lokr" => "lycoris",
            "full" => "full",
            _ => return None,
        };
        let checkpointing = match self.grad_checkpointing.as_str() {
            "none" | "no" | "False" => Checkpointing::Off,
            "layer" | "on" | "True" => Checkpointing::On,
            _ => return None,
        };
        let written = [&self.recipe, &self.model];
        let called = |name: &str| written.iter().any(|text| text.starts_with(name));
        let (_, family, flavour) = NAMES.iter().find(|(name, ..)| called(name))?;
        let recipe = Recipe::parse(&format!("{family}.{flavour}/{method}"))?;
        let recipe = recipe.with_checkpointing(checkpointing);
        let frames = self.frames.parse().unwrap_or(1);
        FrameClass::from_frames(frames)?;
        recipe.at_frames(frames)
    }
}
