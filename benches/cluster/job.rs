//! The job that is submitted: a FLUX LoRA as people write it, two and a half KiB in two files, of a sweep over 64 settings.

use anyhow::anyhow;
use prost::bytes::Bytes;
use stepcast_proto::v1;
use stepcast_records::simpletuner::{self, File, Files};
use stepcast_scheduler::codec::{self, VERSION};
use stepcast_scheduler::ids::{RequestId, StagingId};
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::{Command, Envelope};

use crate::wire::{Submit, SubmittedFile};

/// What differs from job to job: the name of the run,
const RUN: &str = "@RUN@";

/// and what a person tries out, each standing in quotes in place of a number.
const TRIED: [(&str, [u32; 4]); 3] = [
    ("\"@STEPS@\"", [1_500, 2_000, 3_000, 4_000]),
    ("\"@BATCH@\"", [1, 2, 4, 8]),
    ("\"@RANK@\"", [8, 16, 32, 64]),
];

/// Pictures in each data set.
const SAMPLES: u64 = 480;

/// The files of one job after another.
pub(crate) struct Template {
    /// The configuration, cut where something differs from job to job.
    config: Vec<(String, Differs)>,
    loader: Bytes,
}

/// What stands behind a piece of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Differs {
    /// The name of the run.
    Run,
    /// One of these, by this digit of the job's number in base four.
    Tried([u32; 4], u32),
    /// Nothing: it was the last.
    End,
}

impl Template {
    /// The usual job.
    pub(crate) fn new() -> Self {
        let tried = TRIED.iter().zip(0..);
        let tried = tried.map(|((mark, values), digit)| (*mark, Differs::Tried(*values, digit)));
        let marks: Vec<_> = tried.chain([(RUN, Differs::Run)]).collect();
        let text = pretty(&config());
        let mut config = Vec::new();
        let mut rest = text.as_str();
        loop {
            let found = marks.iter().filter_map(|(mark, differs)| {
                let (piece, behind) = rest.split_once(mark)?;
                Some((piece, *differs, behind))
            });
            let Some((piece, differs, behind)) = found.min_by_key(|(piece, ..)| piece.len()) else {
                break;
            };
            config.push((piece.to_owned(), differs));
            rest = behind;
        }
        config.push((rest.to_owned(), Differs::End));
        Self {
            config,
            loader: pretty(&loader()).into(),
        }
    }

    /// Bytes of both files of one job.
    pub(crate) fn bytes(&self) -> usize {
        self.config(0, 0).len() + self.loader.len()
    }

    /// The configuration of the `number`th job: one of 64 that are tried, under a name of its own.
    fn config(&self, run: u64, number: u64) -> Bytes {
        let name = format!("{run:08x}-{number:08}");
        let mut config = String::with_capacity(2 << 10);
        for (piece, differs) in &self.config {
            config.push_str(piece);
            match differs {
                Differs::Run => config.push_str(&name),
                Differs::Tried(values, digit) => {
                    let at = usize::try_from(number / 4_u64.pow(*digit) % 4).unwrap_or(0);
                    config.push_str(&values[at].to_string());
                }
                Differs::End => {}
            }
        }
        config.into()
    }

    /// The request of the `number`th job. `run` tells apart the runs of this program against one cluster.
    pub(crate) fn request(&self, run: u64, number: u64) -> Submit {
        let file = |role: v1::FileRole, name: &str, content: Bytes| SubmittedFile {
            role: role.into(),
            name: name.to_owned(),
            content,
        };
        Submit {
            request_id: format!("{run:016x}{number:016x}"),
            files: vec![
                file(
                    v1::FileRole::Config,
                    "config.json",
                    self.config(run, number),
                ),
                file(
                    v1::FileRole::DataLoader,
                    "multidatabackend.json",
                    self.loader.clone(),
                ),
            ],
            sample_counts: vec![v1::SampleCount {
                dataset: String::new(),
                samples: SAMPLES,
            }],
        }
    }
}

/// Bytes of such a job's submission as it stands in the log.
pub(crate) fn entry_bytes() -> anyhow::Result<usize> {
    let template = Template::new();
    let config = template.config(0, 0);
    let files = Files {
        config: File {
            name: "config.json",
            bytes: &config,
        },
        data_backend: Some(File {
            name: "multidatabackend.json",
            bytes: &template.loader,
        }),
        lycoris: None,
        prompt_library: None,
    };
    let options = simpletuner::Options {
        samples: [("style-1024", SAMPLES), ("style-512", SAMPLES)]
            .map(|(id, samples)| (id.to_owned(), samples))
            .into(),
        ..Default::default()
    };
    let reading = simpletuner::read(&files, &options)
        .map_err(|problems| anyhow!("the usual job cannot be read: {problems:?}"))?;
    let spec = JobSpec::new(reading.workload, StagingId([0xff; 16]));
    let now = std::time::UNIX_EPOCH.elapsed()?.as_millis();
    let envelope = Envelope {
        version: VERSION,
        stamp_ms: u64::try_from(now)?,
        request_id: Some(RequestId([0xff; 16])),
        command: Command::SubmitJob {
            spec: Box::new(spec),
        },
        actor: None,
    };
    Ok(codec::encode(&envelope).len())
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn config() -> serde_json::Value {
    serde_json::json!({
        "model_family": "flux", "model_flavour": "dev", "model_type": "lora",
        "pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
        "lora_type": "standard", "lora_rank": "@RANK@", "lora_alpha": 16,
        "output_dir": format!("output/{RUN}"), "data_backend_config": "config/multidatabackend.json",
        "optimizer": "adamw_bf16", "learning_rate": 0.000_1, "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 100,
        "mixed_precision": "bf16", "base_model_precision": "int8-quanto", "gradient_checkpointing": true,
        "train_batch_size": "@BATCH@", "gradient_accumulation_steps": 1, "max_grad_norm": 1.0,
        "resolution": 1024, "resolution_type": "pixel_area", "minimum_image_size": 0,
        "aspect_bucket_rounding": 2, "caption_dropout_probability": 0.05,
        "max_train_steps": "@STEPS@", "num_train_epochs": 0,
        "checkpoint_step_interval": 500, "checkpoints_total_limit": 5, "resume_from_checkpoint": "latest",
        "validation_disable": true, "disable_benchmark": true, "seed": 42,
        "push_to_hub": false, "hub_model_id": format!("style-{RUN}"),
        "tracker_project_name": "style-loras", "tracker_run_name": RUN,
    })
}

fn loader() -> serde_json::Value {
    serde_json::json!([
        {"id": "style-1024", "type": "local", "dataset_type": "image", "crop": true, "crop_aspect": "square", "crop_style": "center",
         "resolution": 1024, "minimum_image_size": 768, "maximum_image_size": 2048, "target_downsample_size": 1536,
         "resolution_type": "pixel_area", "cache_dir_vae": "cache/vae/flux/style-1024", "instance_data_dir": "/data/style",
         "caption_strategy": "textfile", "metadata_backend": "discovery", "repeats": 10},
        {"id": "style-512", "type": "local", "dataset_type": "image", "crop": false,
         "resolution": 512, "minimum_image_size": 384, "maximum_image_size": 1024, "target_downsample_size": 768,
         "resolution_type": "pixel_area", "cache_dir_vae": "cache/vae/flux/style-512", "instance_data_dir": "/data/style",
         "caption_strategy": "textfile", "metadata_backend": "discovery", "repeats": 10},
        {"id": "text-embeds", "type": "local", "dataset_type": "text_embeds", "default": true,
         "cache_dir": "cache/text/flux", "write_batch_size": 128},
    ])
}
