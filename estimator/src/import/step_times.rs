//! The mapping of `training_step_times.csv`: which of its figures have a key, and which are left out and why.
//!
//! What the collection calls a recipe is the name of one of SimpleTuner's example configurations; the table below
//! says which flavour that configuration trains. Figures whose configuration has no recipe (distillation, weights
//! kept in host memory, partial or offloaded checkpointing) are left out rather than put beside others they do not
//! compare with.

use stepcast_records::{
    Accumulation, BatchSize, Checkpointing, GpuModel, HalfMegapixels, Hardware, Method, Precision,
    Quantization, Recipe, Row, TrainingKey, sample,
};

use super::{Columns, Door, Line, Refused, milliseconds};
use crate::error::Error;

const COLUMNS: [&str; 18] = [
    "trainer",
    "model",
    "recipe",
    "method",
    "gpu",
    "gpu_count",
    "resolution_effective",
    "frames",
    "batch",
    "grad_accum",
    "precision",
    "quant_class",
    "grad_checkpointing",
    "compile",
    "step_ms",
    "n_steps",
    "status",
    "quality",
];

/// Example configurations (or, where none is named, models) and the family and flavour they train.
const MODELS: [(&str, &str, &str); 33] = [
    ("auraflow", "auraflow", "v0.3"),
    ("boogu-image-v0.1", "boogu_image", "v0.1-base"),
    ("cascade-stage-c", "stable_cascade", "stage-c"),
    ("chroma", "chroma", "base"),
    ("cosmos2image", "cosmos", "2b"),
    ("cosmos3-edge-image-24g", "cosmos3", "edge"),
    ("ernie", "ernie", "base"),
    ("FLUX.1-dev", "flux", "dev"),
    ("FLUX.1-Kontext-dev", "flux", "kontext"),
    ("hidream", "hidream", "full"),
    ("hunyuanvideo-1.5-t2v", "hunyuanvideo", "t2v-480p"),
    ("ideogram-fp8", "ideogram", "fp8"),
    (
        "kandinsky5-image-6b-t2i",
        "kandinsky5_image",
        "t2i-lite-sft",
    ),
    (
        "kandinsky5-video-2b-t2v",
        "kandinsky5_video",
        "t2v-lite-sft-5s",
    ),
    ("kolors", "kolors", "1.0"),
    ("krea2", "krea2", "raw"),
    ("longcat-image", "longcat_image", "final"),
    ("ltxvideo-0.9.5-t2v", "ltxvideo", "0.9.5"),
    ("ltxvideo2-2.3-dev-720p-single-gpu", "ltxvideo2", "2.3-dev"),
    ("lumina2", "lumina2", "2.0"),
    ("mageflow-image-24g", "mageflow", "base"),
    ("omnigen", "omnigen", "v1"),
    ("pixart", "pixart", "900M-1024-v0.6"),
    ("qwen_image", "qwen_image", "v1.0"),
    ("sana", "sana", "sana1.5-4.8b-1024"),
    ("sanavideo-2b-480p", "sanavideo", "2b-480p"),
    ("sd1x-dreamshaper", "sd1x", "dreamshaper"),
    ("sd3", "sd3", "medium"),
    ("sdxl", "sdxl", "base-1.0"),
    (
        "wan2.1-t2v-1.3b-480p-single-gpu",
        "wan",
        "t2v-480p-1.3b-2.1",
    ),
    ("wan2.1-t2v-14b-480p-single-gpu", "wan", "t2v-480p-14b-2.1"),
    ("z-image-turbo", "z_image", "turbo"),
    ("zlab-i1", "zlab_i1", "3b"),
];

/// How lines under this header are read.
pub(super) fn door(columns: &Columns) -> Result<Door, Error> {
    let missing = missing(columns);
    if missing.is_empty() {
        return Ok(row);
    }
    Err(Error::Config(format!(
        "the header lacks {}",
        missing.join(", ")
    )))
}

/// Whether a header is that of the collection.
pub(super) fn is_mapped(columns: &Columns) -> bool {
    missing(columns).is_empty()
}

fn missing(columns: &Columns) -> Vec<&'static str> {
    let all = COLUMNS.into_iter();
    all.filter(|name| !columns.has(name)).collect()
}

fn row(line: &Line<'_>) -> Result<Row, Refused> {
    let one_of = |name, known: &'static [&str], reason| {
        line.read(name, |cell| known.contains(&cell).then_some(()), reason)
    };
    one_of("status", &["ok"], "nothing was measured")?;
    one_of("trainer", &["SimpleTuner"], "another trainer")?;
    one_of(
        "quality",
        &["A", "B"],
        "the collection itself doubts the figure",
    )?;
    one_of(
        "compile",
        &["", "no", "unstated"],
        "a compiled model has no recipe",
    )?;
    let key = TrainingKey {
        recipe: recipe(line)?,
        hardware: hardware(line)?,
        resolution: line.read(
            "resolution_effective",
            bucket,
            "the trained resolution is mixed or not known",
        )?,
        batch_size: line.read(
            "batch",
            |cell| BatchSize::new(cell.parse::<u16>().ok()?),
            "the batch size is not on the grid",
        )?,
        accumulation: line.read(
            "grad_accum",
            |cell| Accumulation::new(cell.parse::<u16>().ok()?),
            "the accumulation is not on the grid",
        )?,
        precision: line.read(
            "precision",
            Precision::parse,
            "the policy names bf16 and fp16 only",
        )?,
        quantization: line.read(
            "quant_class",
            Quantization::parse,
            "the policy names none, int8 and nf4 only",
        )?,
    };
    let avg_ms = line.read("step_ms", milliseconds, "nothing was measured")?;
    let count = line.read("n_steps", steps, "too few steps were observed")?;
    Row::new(key.into(), avg_ms, count)
        .map_err(|_| ("the numbers are outside what a row may hold", String::new()))
}

fn recipe(line: &Line<'_>) -> Result<Recipe, Refused> {
    let checkpointing = line.read(
        "grad_checkpointing",
        checkpointing,
        "this kind of gradient checkpointing has no recipe",
    )?;
    let method = line.read("method", method, "this method has no recipe")?;
    let label = if line.cell("recipe").is_empty() {
        "model"
    } else {
        "recipe"
    };
    let (family, flavour) = line.read(label, model, "the model has no recipe")?;
    let frames = line.read(
        "frames",
        |cell| cell.parse().ok(),
        "the number of frames is not known",
    )?;
    let recipe = Recipe::find(family, Some(flavour), method, checkpointing).ok();
    let recipe = recipe.and_then(|recipe| recipe.at_frames(frames));
    recipe.ok_or_else(|| ("the model has no recipe", line.cell(label).to_owned()))
}

/// The part before the method says which model; `+ramtorch` after it keeps the weights in host memory.
fn model(label: &str) -> Option<(&'static str, &'static str)> {
    let name = [".peft-lora", ".lycoris-lokr", ".full"]
        .into_iter()
        .find_map(|method| label.split_once(method));
    let name = match name {
        Some((name, "" | "+sdnq-hadamard")) => name,
        Some(_) => return None,
        None => label,
    };
    MODELS
        .iter()
        .find(|(known, _, _)| *known == name)
        .map(|&(_, family, flavour)| (family, flavour))
}

fn method(cell: &str) -> Option<Method> {
    match cell {
        "lora" => Some(Method::Lora),
        "lycoris-lokr" => Some(Method::Lycoris),
        "full" => Some(Method::Full),
        _ => None,
    }
}

fn checkpointing(cell: &str) -> Option<Checkpointing> {
    match cell {
        "none" | "no" | "False" => Some(Checkpointing::Off),
        "layer" | "on" | "True" => Some(Checkpointing::On),
        _ => None,
    }
}

fn hardware(line: &Line<'_>) -> Result<Hardware, Refused> {
    let gpu = line.read("gpu", gpu, "the GPU is not in the registry")?;
    line.read(
        "gpu_count",
        |cell| Hardware::new(gpu, cell.parse().ok()?),
        "a hardware profile has 1, 2, 4 or 8 GPUs",
    )
}

/// The collection writes the memory behind the model, and sometimes the form; a model that exists with several
/// sizes of memory has them in its registered names.
pub(super) fn gpu(cell: &str) -> Option<GpuModel> {
    if let Ok(gpu) = cell.parse() {
        return Some(gpu);
    }
    let is_memory = |word: &str| {
        word.strip_suffix("GB")
            .is_some_and(|gb| gb.parse::<u16>().is_ok())
    };
    let memory = cell.split(' ').find(|word| is_memory(word))?;
    let words: Vec<&str> = cell
        .split(' ')
        .filter(|word| !is_memory(word) && !word.starts_with("SXM"))
        .collect();
    let gpu: GpuModel = words.join(" ").parse().ok()?;
    // Rated and marketed memory differ by a few GB; a model of another size is another model.
    let gib: u16 = memory.strip_suffix("GB")?.parse().ok()?;
    let differs = u32::from(gpu.memory_gib().abs_diff(gib));
    (differs * 10 <= u32::from(gib)).then_some(gpu)
}

/// `512x512`, or the same with a remark on how pictures of other shapes were cropped to that area.
fn bucket(cell: &str) -> Option<HalfMegapixels> {
    let pixels = ["", " (pixel-area ARB)", " (variable shape)"]
        .into_iter()
        .find_map(|remark| {
            let (width, height) = cell.strip_suffix(remark)?.split_once('x')?;
            Some((width.parse().ok()?, height.parse().ok()?))
        });
    let (width, height) = pixels?;
    HalfMegapixels::from_pixels(width, height)
}

/// How many steps were timed; where nobody says, the fewest that a row may have.
fn steps(cell: &str) -> Option<u32> {
    if cell.is_empty() {
        return Some(sample::TRAINING_COUNT_MIN);
    }
    let steps = cell.parse::<f64>().ok()? as u32;
    (steps >= sample::TRAINING_COUNT_MIN).then(|| steps.min(sample::TRAINING_COUNT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_of_the_table_has_a_recipe() {
        for (label, family, flavour) in MODELS {
            let recipe = Recipe::find(family, Some(flavour), Method::Lora, Checkpointing::On);
            assert!(recipe.is_ok(), "{label}: {recipe:?}");
        }
    }

    #[test]
    fn labels_gpus_and_resolutions_as_the_collection_writes_them() {
        assert_eq!(model("sdxl.lycoris-lokr"), Some(("sdxl", "base-1.0")));
        assert_eq!(model("FLUX.1-dev"), Some(("flux", "dev")));
        assert_eq!(
            model("wan2.1-t2v-1.3b-480p-single-gpu.peft-lora+ramtorch"),
            None,
            "weights in host memory"
        );
        assert_eq!(
            model("anima-anyflow-stage1.peft-lora"),
            None,
            "distillation"
        );
        for (text, slug) in [
            ("H100 80GB", Some("h100")),
            ("H100 80GB SXM5", Some("h100")),
            ("L40S 48GB", Some("l40s")),
            ("RTX 4090 24GB", Some("rtx4090")),
            ("A100 80GB SXM4", Some("a100-80")),
            ("A100 40GB", Some("a100-40")),
            ("H200 141GB SXM", Some("h200")),
            ("A100 (variant unstated)", None),
            ("RTX 4090/3090 24GB (unstated)", None),
            ("Apple M3 Max", None),
            ("RTX 3070 Laptop 8GB", None),
            ("H100 60000GB", None),
            ("H100 6700GB", None),
        ] {
            assert_eq!(gpu(text).map(GpuModel::slug), slug, "{text}");
        }
        for (text, halves) in [
            ("512x512", Some(1)),
            ("1024x1024 (pixel-area ARB)", Some(2)),
            ("1280x704", Some(2)),
            ("mixed 256/512/1024 sq", None),
            ("4096 tokens", None),
            ("1024x1024 (assumed)", None),
        ] {
            assert_eq!(bucket(text).map(HalfMegapixels::get), halves, "{text}");
        }
    }
}
