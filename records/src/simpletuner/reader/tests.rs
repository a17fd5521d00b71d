//! The reader's script (`testdata/simpletuner.txt`), and what holds for every configuration however wild.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// The configuration that a case of the script changes: the policy's own example.
fn base() -> Map<String, Value> {
    let base = json!({
        "model_family": "flux", "model_flavour": "dev", "model_type": "lora", "lora_type": "standard",
        "lora_rank": 16, "optimizer": "adamw_bf16", "output_dir": "/home/canary/out",
        "data_backend_config": "/home/canary/loader.json", "resolution": 1024, "train_batch_size": 4,
        "mixed_precision": "bf16", "base_model_precision": "int8-quanto", "gradient_checkpointing": true,
        "num_train_epochs": 0, "max_train_steps": 150, "checkpoint_step_interval": 50,
        "validation_prompt": "canary on a lake", "validation_negative_prompt": "canary",
        "validation_disable_unconditional": true, "validation_resolution": "1024x1024", "num_validation_images": 3,
        "validation_num_inference_steps": 20, "validation_step_interval": 75, "hub_model_id": "canary",
        "webhook_config": [{"auth_token": "canary", "callback_url": "http://canary"}],
    });
    base.as_object().cloned().expect("an object")
}

const BASE_LOADER: &str = r#"[
    {"id": "canary-pictures", "type": "local", "instance_data_dir": "/home/canary/pictures", "instance_prompt": "canary"},
    {"id": "text", "type": "local", "dataset_type": "text_embeds", "default": true, "cache_dir": "/home/canary/text"}
]"#;

/// One case of the script.
struct Case {
    settings: Map<String, Value>,
    /// A whole configuration with its name, in place of the settings.
    raw: Option<(&'static str, String)>,
    loader: String,
    lycoris: Option<String>,
    prompts: Option<String>,
    options: Options,
    gpu_count: u8,
}

impl Case {
    fn new() -> Self {
        Self {
            settings: base(),
            raw: None,
            loader: BASE_LOADER.to_owned(),
            lycoris: None,
            prompts: None,
            options: Options::default(),
            gpu_count: 1,
        }
    }

    fn parse(script: &str) -> Self {
        let mut case = Self::new();
        for line in script.lines().filter(|line| !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            case.line(word, rest);
        }
        case
    }

    fn line(&mut self, word: &str, rest: &str) {
        match word {
            "set" => {
                let changes: Map<String, Value> = serde_json::from_str(rest).expect("an object");
                self.settings.extend(changes);
            }
            "without" => rest
                .split(' ')
                .for_each(|key| drop(self.settings.remove(key))),
            "json" => self.raw_line("config.json", rest),
            "toml" => self.raw_line("config.toml", rest),
            "env" => self.raw_line("config.env", rest),
            "loader" => rest.clone_into(&mut self.loader),
            "lycoris" => self.lycoris = Some(rest.to_owned()),
            "prompts" => self.prompts = Some(rest.to_owned()),
            "samples" => {
                let (id, count) = rest.rsplit_once('=').expect("id=count");
                self.options
                    .samples
                    .insert(id.to_owned(), count.parse().expect("a count"));
            }
            "gpus" => self.gpu_count = rest.parse().expect("a count"),
            other => panic!("no such line in the script: {other}"),
        }
    }

    fn raw_line(&mut self, name: &'static str, line: &str) {
        let (_, text) = self.raw.get_or_insert((name, String::new()));
        text.push_str(line);
        text.push('\n');
    }

    fn read(&self) -> Result<Reading, Problems> {
        let settings = serde_json::to_string(&self.settings).expect("JSON");
        let (name, text) = match &self.raw {
            Some((name, text)) => (*name, text.as_str()),
            None => ("config.json", settings.as_str()),
        };
        let file = |name, text: &'_ Option<String>| text.clone().map(|text| (name, text));
        let (lycoris, prompts) = (
            file("lycoris.json", &self.lycoris),
            file("prompts.json", &self.prompts),
        );
        read(
            &Files {
                config: File::new(name, text.as_bytes()),
                data_backend: Some(File::new("loader.json", self.loader.as_bytes())),
                lycoris: lycoris
                    .as_ref()
                    .map(|(name, text)| File::new(name, text.as_bytes())),
                prompt_library: prompts
                    .as_ref()
                    .map(|(name, text)| File::new(name, text.as_bytes())),
            },
            &self.options,
        )
    }

    fn outcome(&self) -> String {
        match self.read() {
            Ok(reading) => described(&reading, self.gpu_count),
            Err(problems) => format!("{problems}\n"),
        }
    }
}

fn described(reading: &Reading, gpu_count: u8) -> String {
    let mut text = format!("{}\n", reading.title);
    match reading.workload.plan(gpu_count) {
        Ok(plan) => {
            for (shape, steps) in &plan.training {
                let (batch, accumulation) = (shape.batch_size, shape.accumulation);
                let (precision, quantization) = (shape.precision, shape.quantization);
                let _ = writeln!(
                    text,
                    "{steps} steps of {} {} MP {batch} × {accumulation} {precision} {quantization}",
                    shape.recipe, shape.resolution
                );
            }
            for (shape, images) in &plan.validation {
                let steps = shape.inference_steps;
                let _ = write!(
                    text,
                    "{} prompts of {} {} MP {steps} steps",
                    images.all, shape.recipe, shape.resolution
                );
                let _ = match images.in_turn == images.all {
                    true => writeln!(text),
                    false => writeln!(text, ", {} of them in turn", images.in_turn),
                };
            }
            if plan.steps_announced != plan.steps_total {
                let _ = writeln!(text, "{} steps are announced", plan.steps_announced);
            }
            let _ = writeln!(
                text,
                "{} passes, {} checkpoints",
                plan.validation_passes, plan.checkpoints
            );
        }
        Err(missing) => {
            let _ = writeln!(text, "asks: {missing}");
        }
    }
    if reading.workload.preparation != Preparation::default() {
        let _ = writeln!(text, "{:?}", reading.workload.preparation);
    }
    let sharing = &reading.workload.sharing;
    if sharing.sampling != Sampling::ByBatches || !sharing.datasets.is_empty() {
        let _ = writeln!(text, "{:?} {:?}", sharing.sampling, sharing.datasets);
    }
    for note in &reading.notes {
        let _ = writeln!(text, "· {note}");
    }
    text
}

#[test]
fn the_script_reads_as_it_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/simpletuner.txt");
    let script = std::fs::read_to_string(path).expect("the script");
    let mut written = String::new();
    for case in script.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let question = case.split("\n----").next().unwrap_or(case).trim_end();
        let outcome = Case::parse(question).outcome();
        let _ = write!(written, "{question}\n----\n{}\n\n", outcome.trim_end());
    }
    let written = format!("{}\n", written.trim_end());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &written).expect("the script is written");
        return;
    }
    assert_eq!(written, script, "run with UPDATE=1 to write what came out");
}

#[test]
fn the_policys_example_is_read_to_the_letter() {
    let reading = Case::new().read().expect("a reading");
    assert_eq!(reading.notes, []);
    let plan = reading.workload.plan(1).expect("a plan");
    assert_eq!(plan.steps_total, 150);
    assert_eq!(
        plan.validation
            .iter()
            .map(|part| part.1.all)
            .collect::<Vec<_>>(),
        [9]
    );
    assert!(reading.workload.on_record());
}

#[test]
fn nothing_of_the_persons_own_reaches_the_workload_or_the_title() {
    let mut case = Case::new();
    case.line(
        "set",
        r#"{"model_type": "lora", "lora_type": "lycoris", "lycoris_config": "canary.json"}"#,
    );
    case.line("set", r#"{"user_prompt_library": "canary.json", "pretrained_model_name_or_path": "canary/canary"}"#);
    case.line(
        "lycoris",
        r#"{"algo": "canary", "multiplier": 1, "linear_dim": 4, "linear_alpha": 1}"#,
    );
    case.line("prompts", r#"{"canary": "canary"}"#);
    case.line("samples", "canary-pictures=10");
    let reading = case.read().expect("a reading");
    let bytes = postcard::to_allocvec(&reading.workload).expect("bytes");
    assert!(!bytes.windows(6).any(|window| window == b"canary"));
    assert!(
        !format!(
            "{:?} {} {:?}",
            reading.workload, reading.title, reading.notes
        )
        .contains("canary")
    );
    assert_eq!(reading.dataset_ids, ["canary-pictures"]);
}

#[test]
fn references_are_what_the_configuration_names() {
    let text = r#"{"--data_backend_config": "a.json", "model_type": "lora", "lora_type": "lycoris",
        "user_prompt_library": "b.json", "lycoris_config": "c.json"}"#;
    let found = references(&File::new("config.json", text.as_bytes())).expect("references");
    let named = |name: &str| Some(name.to_owned());
    let expected = References {
        data_backend: named("a.json"),
        lycoris: named("c.json"),
        prompt_library: named("b.json"),
    };
    assert_eq!(found, expected);
    let plain = references(&File::new("config.json", b"{}")).expect("references");
    assert_eq!(plain, References::default());
    assert!(references(&File::new("config.json", b"[")).is_err());
}

#[test]
fn a_named_file_that_is_not_there_is_a_problem_with_its_name() {
    let settings = serde_json::to_vec(&base()).expect("JSON");
    let config = File::new("config.json", &settings);
    let files = Files {
        config,
        data_backend: None,
        lycoris: None,
        prompt_library: None,
    };
    let problems = read(&files, &Options::default()).expect_err("a problem");
    assert_eq!(problems.0.len(), 1);
    assert_eq!(problems.0[0].path, "$.data_backend_config");
    assert!(problems.0[0].what.contains("/home/canary/loader.json"));
}

/// Readings and problems keep their promises, whatever the bytes.
fn check(config: File<'_>, loader: &[u8]) -> Result<(), TestCaseError> {
    let other = Some(File::new("loader.json", loader));
    let _ = references(&config);
    match read(
        &Files {
            config,
            data_backend: other,
            lycoris: other,
            prompt_library: other,
        },
        &Options::default(),
    ) {
        Ok(reading) => {
            prop_assert_eq!(reading.workload.check(), Ok(()));
            prop_assert_eq!(reading.workload.datasets.len(), reading.dataset_ids.len());
            for gpu_count in [0, 1, 3, 8, 255] {
                let _ = reading.workload.plan(gpu_count);
            }
        }
        Err(problems) => {
            prop_assert!(!problems.0.is_empty());
            prop_assert!(problems.0.len() <= 101);
            for problem in &problems.0 {
                prop_assert!(
                    !problem.path.is_empty()
                        && !problem.what.is_empty()
                        && !problem.hint.is_empty()
                );
                prop_assert!(problem.to_string().len() < 2_000, "{}", problem);
                prop_assert!(!problem.to_string().contains(|c: char| c.is_control()));
            }
        }
    }
    Ok(())
}

#[test]
fn files_that_are_too_large_or_too_deep_are_refused() {
    let large = vec![b' '; File::MAX_BYTES + 1];
    let deep = [
        "[".repeat(400_000),
        "{\"a\":".repeat(200_000),
        format!("resolution = {}", "[".repeat(400_000)),
    ];
    for name in ["config.json", "config.toml", "config.env"] {
        check(File::new(name, &large), b"[]").expect("problems");
        assert!(references(&File::new(name, &large)).is_err());
        for text in &deep {
            check(File::new(name, text.as_bytes()), text.as_bytes()).expect("problems");
        }
    }
}

#[test]
fn a_file_of_nothing_but_slips_is_answered_soon() {
    let keys: String = (0..60_000)
        .map(|n| format!("\"resolutoin{n}\": 1, "))
        .collect();
    let config = format!("{{{keys} \"x\": 1}}");
    let variables: String = (0..60_000).map(|n| format!("RESOLUTON{n}+=1\n")).collect();
    let start = std::time::Instant::now();
    for (name, text) in [("config.json", &config), ("config.env", &variables)] {
        check(
            File::new(name, text.as_bytes()),
            format!("[{config}]").as_bytes(),
        )
        .expect("problems");
    }
    let settings = serde_json::to_vec(&base()).expect("JSON");
    check(
        File::new("config.json", &settings),
        format!("[{config}]").as_bytes(),
    )
    .expect("problems");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(
            &[
                "none",
                "None",
                "true",
                "false",
                "0",
                "-1",
                "1e9",
                "{env:X}",
                "int4-quanto"
            ][..]
        )
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{0,12}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Changes some keys of an object to anything.
fn changed(mut object: Map<String, Value>, changes: Vec<(usize, Value)>) -> Map<String, Value> {
    let keys: Vec<String> = object.keys().cloned().collect();
    for (index, value) in changes {
        object.insert(keys[index % keys.len()].clone(), value);
    }
    object
}

/// Settings that the reader looks at and the base does not have.
const MORE_SETTINGS: [&str; 24] = [
    "gradient_accumulation_steps",
    "context_parallel_size",
    "num_processes",
    "validation_epoch_interval",
    "validate_after_step",
    "validate_after_epoch",
    "validation_prompt_library",
    "validation_adapter_config",
    "validation_adapter_mode",
    "validation_input",
    "validation_using_datasets",
    "num_eval_images",
    "use_ema",
    "ema_validation",
    "validation_num_video_frames",
    "framerate",
    "resolution_type",
    "controlnet",
    "control",
    "allow_dataset_oversubscription",
    "attention_mechanism",
    "musubi_blocks_to_swap",
    "disable_benchmark",
    "user_prompt_library",
];

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(config: Vec<u8>, loader: Vec<u8>, ending in 0usize..3) {
        let name = ["config.json", "config.toml", "config.env"][ending];
        check(File::new(name, &config), &loader)?;
    }

    #[test]
    fn any_text_is_read_or_refused(config: String, ending in 0usize..3) {
        let name = ["config.json", "config.toml", "config.env"][ending];
        check(File::new(name, config.as_bytes()), config.as_bytes())?;
    }

    #[test]
    fn any_json_is_read_or_refused(config in any_json(), loader in any_json()) {
        check(File::new("config.json", config.to_string().as_bytes()), loader.to_string().as_bytes())?;
    }

    #[test]
    fn any_change_of_a_good_configuration_is_read_or_refused(
        changes in prop::collection::vec((any::<usize>(), any_json()), 0..4),
        more in prop::collection::vec((prop::sample::select(&MORE_SETTINGS[..]), any_json()), 0..4),
        family in prop::sample::select(&["flux", "wan", "ltxvideo2", "ace_step", "deepfloyd", "ideogram"][..]),
        entries in prop::collection::vec(prop::collection::vec((any::<usize>(), any_json()), 0..4), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut settings = base();
        settings.insert("model_family".to_owned(), family.into());
        settings.remove("model_flavour");
        let mut settings = changed(settings, changes);
        settings.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let entry = json!({
            "id": "a", "dataset_type": "video", "resolution": 512, "resolution_type": "pixel", "repeats": 1,
            "train_batch_size": 2, "probability": 1.0, "disabled": false, "max_num_samples": 100, "start_epoch": 1,
            "video": {"num_frames": 81, "bucket_strategy": "aspect_ratio"}, "conditioning": [], "conditioning_data": "b",
        });
        let entry = entry.as_object().expect("an object");
        let entries = entries.into_iter().map(|changes| changed(entry.clone(), changes));
        let loader = Value::Array(entries.map(Value::Object).collect()).to_string();
        let mut config = serde_json::to_vec(&settings).expect("JSON");
        if let Some(cut) = cut {
            config.truncate(cut.index(config.len()));
        }
        check(File::new("config.json", &config), loader.as_bytes())?;
    }
}
