//! How long does an estimate take, in process and over gRPC, with 100,000 and with a million cells? One run on one
//! hardware and on 20, p50 and p99. No question is asked twice, but where it says so, since answers are remembered.
//!
//! `cargo bench -p stepcast-benches --bench estimate`
#![expect(clippy::print_stdout, reason = "an example prints its table")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stepcast_api::{ApiConfig, StagingArea};
use stepcast_cluster::{Config, Node};
use stepcast_estimator::{Ask, Contribution, Day, Estimator, PriceBook, StoreConfig};
use stepcast_proto::v1::{self, estimates_service_client::EstimatesServiceClient};
use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Validation, Workload};
use stepcast_records::{
    Accumulation, BatchSize, FrameClass, HalfMegapixels, Hardware, Key, Method, Precision,
    Quantization, Recipe, Row, TrainingKey,
};
use tokio::net::TcpListener;

/// The index holds so many cells.
const CELLS: [usize; 2] = [100_000, 1_000_000];
/// There are so many hardwares.
const HARDWARE: usize = 20;
/// Each kind of question is asked so often.
const ROUNDS: usize = 2_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hardware: Vec<Hardware> = Hardware::all()
        .filter(|hardware| hardware.gpu.is_gpu() && hardware.count == 1)
        .take(HARDWARE)
        .collect();
    for cells in CELLS {
        let estimator =
            Arc::new(Estimator::open(StoreConfig::memory(), PriceBook::shipped()).await?);
        let rows = rows(&hardware, cells)?;
        let contributions = rows.chunks(1_000).enumerate();
        let contributions: Vec<Contribution> = contributions
            .map(|(number, rows)| Contribution {
                id: stepcast_benches::wide(number as u64),
                rows: rows.to_vec(),
            })
            .collect();
        estimator.record(contributions).await?;
        estimator.refresh().await?;
        estimator.learn_anew().await;
        println!(
            "\n{} CELLS{:>33}{:>13}",
            estimator.index().cells(),
            "P50",
            "P99"
        );
        for asked in [1, hardware.len()] {
            in_process(&estimator, &hardware[..asked])?;
        }
        over_grpc(&estimator, &hardware).await?;
    }
    Ok(())
}

fn in_process(estimator: &Estimator, hardware: &[Hardware]) -> Result<(), Box<dyn Error>> {
    for (what, recipe, batch_size) in [
        ("records of the key", "sdxl.base-1.0/lora", 4),
        ("records of another batch", "sdxl.base-1.0/lora", 5),
        (
            "records of relatives, a wide family",
            "wan.t2v-480p-14b-2.1/lycoris+ckpt",
            4,
        ),
        ("ratings alone", "heartmula.3b/full", 4),
    ] {
        let mut took = Vec::with_capacity(ROUNDS);
        for number in 0..ROUNDS {
            let workload = workload(recipe, batch_size, number)?;
            took.push(one(estimator, &workload, hardware)?);
        }
        print(&format!("{what}, on {}", hardware.len()), took);
    }
    let workload = workload("sdxl.base-1.0/lora", 4, 0)?;
    let again = (0..ROUNDS).map(|_| one(estimator, &workload, hardware));
    let again: Result<Vec<Duration>, _> = again.collect();
    print(
        &format!("the same question again, on {}", hardware.len()),
        again?,
    );
    Ok(())
}

/// How long one question takes.
fn one(
    estimator: &Estimator,
    workload: &Workload,
    hardware: &[Hardware],
) -> Result<Duration, Box<dyn Error>> {
    let ask = Ask {
        workload,
        hardware,
        offers: &[],
        day: Day::today(),
    };
    let start = Instant::now();
    let estimates = estimator.estimate(&ask)?;
    let took = start.elapsed();
    assert_eq!(estimates.len(), hardware.len());
    Ok(took)
}

/// The whole call: the configuration's bytes there, the estimates back, over a loopback connection.
async fn over_grpc(
    estimator: &Arc<Estimator>,
    hardware: &[Hardware],
) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(
        Config::new(folder.path().join("node")),
        stepcast_benches::ports(),
    )?;
    node.leading().await;
    let staging = Arc::new(StagingArea::open(folder.path().join("staging"))?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(stepcast_api::serve(
        ApiConfig::default(),
        node.clone(),
        Arc::clone(estimator),
        staging,
        listener,
        Arc::default(),
        std::future::pending(),
    ));
    let mut client = EstimatesServiceClient::connect(address).await?;
    let request = |number: usize| v1::EstimateJobRequest {
        files: files(),
        sample_counts: vec![v1::SampleCount {
            dataset: String::new(),
            samples: 1_000 + number as u64,
        }],
        hardware: hardware.iter().map(|hardware| hardware.slug()).collect(),
    };
    let mut took = Vec::with_capacity(ROUNDS);
    for number in 0..ROUNDS {
        let request = request(number);
        let start = Instant::now();
        let answer = client.estimate_job(request).await?.into_inner();
        took.push(start.elapsed());
        assert_eq!(answer.estimates.len(), hardware.len());
    }
    print("the key over gRPC, with reading, on 20", took);
    serving.abort();
    node.shutdown().await;
    Ok(())
}

fn print(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!(
        "{what:<42}{:>8.1} µs{:>10.1} µs",
        p50.as_secs_f64() * 1e6,
        p99.as_secs_f64() * 1e6
    );
}

/// The configuration of the first kind of question, as a person has it.
fn files() -> Vec<v1::JobFile> {
    let config = serde_json::json!({
        "model_family": "sdxl", "model_flavour": "base-1.0", "model_type": "lora", "lora_type": "standard",
        "output_dir": "output", "data_backend_config": "multidatabackend.json", "optimizer": "adamw_bf16",
        "mixed_precision": "bf16", "base_model_precision": "no_change", "gradient_checkpointing": false,
        "train_batch_size": 4, "resolution": 512, "resolution_type": "pixel_area", "max_train_steps": 1000,
        "num_train_epochs": 0, "validation_prompt": "a photo", "validation_step_interval": 100,
        "validation_resolution": "1024x1024", "validation_num_inference_steps": 20,
    });
    let loader = serde_json::json!([
        {"id": "images", "type": "local", "dataset_type": "image", "instance_data_dir": "images", "resolution": 512,
         "resolution_type": "pixel_area", "caption_strategy": "filename", "cache_dir_vae": "cache/vae"},
        {"id": "text", "type": "local", "dataset_type": "text_embeds", "default": true, "cache_dir": "cache/text"},
    ]);
    [
        (v1::FileRole::Config, "config.json", config),
        (v1::FileRole::DataLoader, "multidatabackend.json", loader),
    ]
    .map(|(role, name, content)| v1::JobFile {
        role: role.into(),
        name: name.to_owned(),
        content: content.to_string().into_bytes(),
    })
    .into()
}

/// Cells of recipes in turn, on every hardware, over resolutions and batches; the last families stay empty.
fn rows(hardware: &[Hardware], cells: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    let grid = "the grid holds it";
    let recipes = Recipe::all().filter(|recipe| recipe.method() == Method::Lora);
    let recipes: Vec<Recipe> = recipes
        .filter(|r| r.family().name() != "heartmula")
        .collect();
    let mut rows = Vec::with_capacity(cells);
    'all: for round in 0.. {
        let resolution = HalfMegapixels::new(1 + round / 4).ok_or(grid)?;
        let batch_size = BatchSize::new(1u32 << (round % 4)).ok_or(grid)?;
        for &recipe in &recipes {
            for &hardware in hardware {
                let key = TrainingKey {
                    recipe,
                    hardware,
                    resolution,
                    batch_size,
                    accumulation: Accumulation::new(1).ok_or(grid)?,
                    precision: Precision::Bf16,
                    quantization: Quantization::None,
                };
                rows.push(Row::new(Key::Training(key), 900, 100)?);
                if rows.len() == cells {
                    break 'all;
                }
            }
        }
    }
    Ok(rows)
}

/// A run of so many samples and 1,000 more; the number of steps is the same.
fn workload(recipe: &str, batch_size: u32, samples: usize) -> Result<Workload, Box<dyn Error>> {
    let megapixel = HalfMegapixels::new(2).ok_or("a bucket")?;
    let recipe = Recipe::parse(recipe).ok_or("a recipe")?;
    Ok(Workload {
        recipe,
        precision: Precision::Bf16,
        quantization: Quantization::None,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(1).ok_or("a bucket")?,
            frames: FrameClass::Single,
            batch_size,
            samples: Some(1_000 + samples as u64),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(1_000),
        checkpoint_every: Some(500),
        validation: Some(Validation {
            every_steps: Some(100),
            every_epochs: None,
            after_step: 0,
            after_epoch: 0,
            at_start: false,
            baseline: true,
            generations: 4,
            resolutions: vec![megapixel],
            frames: FrameClass::Single,
            inference_steps: 20,
        }),
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    })
}
