//! Real configurations rewritten for a host, and what is refused before a trainer is started.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod from;

use serde_json::json;
use stepcast_records::simpletuner::Length;

use super::*;
use crate::agent::Failure;
use crate::config::WorkerConfig;
use crate::gpu::{self, Offer};
use crate::order::{Credential, Gang, JobFile, TrainerKind};

/// A host with a data folder, and what was written there.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("images")).unwrap();
        std::fs::create_dir_all(root.path().join("attempt")).unwrap();
        Self { root }
    }

    fn loader(&self) -> Value {
        json!([
            {"id": "cats", "type": "local", "dataset_type": "image", "instance_data_dir": self.root.path().join("images"),
             "cache_dir_vae": "/home/somebody/vae"},
            {"id": "text", "type": "local", "dataset_type": "text_embeds", "default": true, "cache_dir": "/home/somebody/text"},
            {"id": "far", "type": "aws", "dataset_type": "text_embeds", "cache_dir": "prefix/in/bucket",
             "aws_secret_access_key": "secret-of-a-bucket"},
        ])
    }

    /// Prepares the launch and gives it with the settings that were written.
    fn prepare(&self, files: &[JobFile], length: Length) -> Result<(Launch, Value), Error> {
        self.prepare_with(files, &[], length)
    }

    /// The same with credentials.
    fn prepare_with(
        &self,
        files: &[JobFile],
        credentials: &[Credential],
        length: Length,
    ) -> Result<(Launch, Value), Error> {
        self.prepare_as(None, files, credentials, length)
    }

    /// The same for a part of a gang.
    fn prepare_as(
        &self,
        gang: Option<Gang>,
        files: &[JobFile],
        credentials: &[Credential],
        length: Length,
    ) -> Result<(Launch, Value), Error> {
        let mut config = WorkerConfig::replay(Vec::new(), self.root.path().to_owned(), Vec::new());
        config.offer = Offer::Cpu;
        let (devices, _) = gpu::devices(Offer::Cpu);
        let mut workload = crate::trainer::tests::workload();
        workload.length = length;
        let assignment = Assignment {
            job: "jcats".to_owned(),
            devices: vec![0],
            trainer: TrainerKind::SimpleTuner,
            workload,
            gang,
            ..crate::host::tests::assignment(7)
        };
        let ground = Ground {
            config: &config,
            assignment: &assignment,
            files,
            credentials,
            devices: &devices,
            account: None,
            folder: &self.root.path().join("attempt"),
            outputs: &self.root.path().join("outputs"),
            marker: "m",
            webhook: ("http://127.0.0.1:9/events", "webhook-token"),
        };
        let launch = crate::trainer::prepare(&ground)?;
        let written = std::fs::read(self.root.path().join("attempt/config/config.json")).unwrap();
        Ok((launch, serde_json::from_slice(&written).unwrap()))
    }

    /// Leaves a checkpoint of the job with these files.
    fn checkpoint(&self, name: &str, files: &[&str]) {
        let folder = self.root.path().join("outputs/jcats").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for file in files {
            std::fs::write(folder.join(file), "x").unwrap();
        }
    }

    fn read(&self, path: &Value) -> Value {
        serde_json::from_slice(&std::fs::read(path.as_str().unwrap()).unwrap()).unwrap()
    }
}

fn file(role: FileRole, name: &str, contents: impl ToString) -> JobFile {
    JobFile {
        role,
        name: name.to_owned(),
        bytes: contents.to_string().into_bytes(),
    }
}

fn config() -> Value {
    json!({"--model_family": "flux", "model_type": "lora", "--output_dir": "/home/somebody/out", "mixed_precision": "no",
        "data_backend_config": "config/multidatabackend.json", "lycoris_config": "config/lycoris.json",
        "webhook_config": "config/webhook.json", "--max_train_steps": 30, "max_runtime_minutes": 240,
        "publishing_config": [{"provider": "s3", "secret_key": "publishing-secret"}],
        "resume_from_checkpoint": "checkpoint-20", "report_to": "wandb", "push_to_hub": true})
}

#[test]
fn the_run_s_own_places_replace_the_user_s_and_the_rest_stays() {
    let host = Host::new();
    let files = [
        file(FileRole::Config, "config.json", config()),
        file(FileRole::DataLoader, "multidatabackend.json", host.loader()),
        file(FileRole::Lycoris, "lycoris.json", json!({"algo": "lokr"})),
    ];
    let (launch, written) = host.prepare(&files, Length::Steps(30)).unwrap();
    let root = host.root.path();
    assert_eq!(written["output_dir"], json!(root.join("outputs/jcats")));
    assert_eq!(written["cache_dir"], json!(root.join("attempt/cache")));
    assert_eq!(
        (&written["max_train_steps"], &written["num_train_epochs"]),
        (&json!(30), &json!(0))
    );
    assert_eq!(
        written["resume_from_checkpoint"], "latest",
        "the name is one of the user's own machine"
    );
    assert_eq!(written["webhook_config"][0]["auth_token"], "webhook-token");
    assert_eq!(written["webhook_config"].as_array().unwrap().len(), 1);
    assert_eq!(host.read(&written["lycoris_config"])["algo"], "lokr");
    for (key, value) in [
        ("model_family", json!("flux")),
        ("report_to", json!("wandb")),
        ("push_to_hub", json!(true)),
    ] {
        assert_eq!(written[key], value, "{key}");
    }
    assert_eq!(written["publishing_config"], config()["publishing_config"]);
    assert!(
        written
            .as_object()
            .unwrap()
            .keys()
            .all(|key| !key.starts_with('-') && key != "max_runtime_minutes")
    );
    for name in ["no_proxy", "NO_PROXY"] {
        let mut told = launch.environment.iter().filter(|(told, _)| told == name);
        let value = told.next().unwrap().1.to_string_lossy().into_owned();
        assert!(
            value == "*" || value.ends_with("127.0.0.1"),
            "webhooks stay on this host: {value}"
        );
    }
    let loader = host.read(&written["data_backend_config"]);
    assert_eq!(loader[0]["instance_data_dir"], json!(root.join("images")));
    assert_eq!(
        loader[0]["cache_dir_vae"],
        json!(root.join("attempt/cache/0-cache_dir_vae"))
    );
    assert_eq!(loader[2]["cache_dir"], "prefix/in/bucket");
    // Nothing may be sourced from it.
    let within = std::fs::read_dir(&launch.directory).unwrap();
    let within: Vec<_> = within.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(within, [launch.directory.join("debug.log")]);
    assert_eq!(
        std::fs::read_link(&within[0]).unwrap(),
        Path::new("/dev/null")
    );
    assert_eq!(secrets(&files), ["publishing-secret", "secret-of-a-bucket"]);
}

#[test]
fn secrets_are_found_in_texts_lists_and_headers() {
    let config = json!({
        "publishing_config": r#"[{"bucket": "b", "secret_key": "of-a-text"}]"#,
        "api_key": ["of-a-list"],
        "upload": {"request_headers": {"X-Mine": "of-a-header"}},
        "seed": 1,
    });
    let files = [file(FileRole::Config, "config.json", config)];
    let mut found = secrets(&files);
    found.sort();
    assert_eq!(found, ["of-a-header", "of-a-list", "of-a-text"]);
}

#[test]
fn a_checkpoint_in_a_bucket_is_the_start_until_there_is_one_here() {
    let host = Host::new();
    let mut config = config();
    config["resume_from_checkpoint"] = json!("s3://bucket/checkpoint-500");
    let files = [
        file(FileRole::Config, "config.json", config),
        file(FileRole::DataLoader, "multidatabackend.json", host.loader()),
    ];
    let resume = |host: &Host| host.prepare(&files, Length::Epochs(2)).unwrap().1;
    let written = resume(&host);
    assert_eq!(
        written["resume_from_checkpoint"],
        "s3://bucket/checkpoint-500"
    );
    assert_eq!(
        (&written["max_train_steps"], &written["num_train_epochs"]),
        (&json!(0), &json!(2))
    );
    host.checkpoint("checkpoint-10", &[".guard"]);
    assert_eq!(resume(&host)["resume_from_checkpoint"], "checkpoint-10");
}

/// Killed while it saved step 200, as SimpleTuner 4.10.1 leaves it: it would fail to go on from there at each retry.
#[test]
fn a_checkpoint_that_was_not_written_to_its_end_is_not_gone_on_from() {
    let host = Host::new();
    let files = [
        file(FileRole::Config, "config.json", config()),
        file(FileRole::DataLoader, "multidatabackend.json", host.loader()),
    ];
    let resume =
        || host.prepare(&files, Length::Steps(300)).unwrap().1["resume_from_checkpoint"].clone();
    assert_eq!(resume(), "latest", "there is none");
    let part = ["training_state.json", "ramtorch_prefetch_orders.json"];
    host.checkpoint("checkpoint-50", &part);
    assert_eq!(resume(), "latest");
    let names = || {
        let entries = std::fs::read_dir(host.root.path().join("outputs/jcats")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names(),
        ["checkpoint-50-7-tmp"],
        "SimpleTuner takes no such one for the latest"
    );
    let whole = ["random_states_0.pkl", "training_state.json", ".guard"];
    host.checkpoint("checkpoint-90", &whole);
    host.checkpoint("checkpoint-150-rolling", &whole);
    // All but the last file.
    host.checkpoint("checkpoint-200", &whole[..2]);
    assert_eq!(resume(), "checkpoint-150-rolling");
    assert_eq!(
        names(),
        [
            "checkpoint-150-rolling",
            "checkpoint-200-7-tmp",
            "checkpoint-50-7-tmp",
            "checkpoint-90"
        ]
    );
}

#[test]
fn versions_of_simpletuner_without_a_guard_go_on_from_what_has_their_last_file() {
    let host = Host::new();
    let files = [
        file(FileRole::Config, "config.json", config()),
        file(FileRole::DataLoader, "multidatabackend.json", host.loader()),
    ];
    host.checkpoint("checkpoint-50", &["optimizer.bin", "random_states_0.pkl"]);
    host.checkpoint("checkpoint-100", &["optimizer.bin"]);
    let (_, written) = host.prepare(&files, Length::Steps(300)).unwrap();
    assert_eq!(written["resume_from_checkpoint"], "checkpoint-50");
}

#[test]
fn toml_is_written_as_json_and_env_is_refused_with_a_word_on_what_to_do() {
    let host = Host::new();
    let loader = || file(FileRole::DataLoader, "multidatabackend.json", host.loader());
    let toml = "model_family = \"flux\"\nlearning_rate = 1e-4\n";
    let (_, written) = host
        .prepare(
            &[file(FileRole::Config, "config.toml", toml), loader()],
            Length::Steps(1),
        )
        .unwrap();
    assert_eq!(
        (&written["model_family"], &written["learning_rate"]),
        (&json!("flux"), &json!(1e-4))
    );
    assert_eq!(written["report_to"], "none");
    let refused = host
        .prepare(
            &[file(FileRole::Config, "config.env", "A=1"), loader()],
            Length::Steps(1),
        )
        .unwrap_err();
    assert!(
        refused.to_string().contains("write it as config.json"),
        "{refused}"
    );
}

#[test]
fn what_is_not_on_this_host_is_named_without_its_path() {
    let host = Host::new();
    let refusal = |loader: Value| {
        let files = [
            file(FileRole::Config, "config.json", config()),
            file(FileRole::DataLoader, "loader.json", loader),
        ];
        let error = host.prepare(&files, Length::Steps(1)).unwrap_err();
        (error.failure(), error.to_string())
    };
    let (failure, gone) =
        refusal(json!([{"id": "cats", "instance_data_dir": "/no/such/folder-of-jane"}]));
    // Another host may have it, so the job is tried again.
    assert_eq!(failure, Failure::LaunchFailed);
    assert!(
        gone.contains("loader.json: data set 1 (cats)") && gone.contains("instance_data_dir"),
        "{gone}"
    );
    assert!(!gone.contains("jane"), "{gone}");
    for (settings, why) in [
        (
            json!([{"id": "cats", "instance_data_dir": "images"}]),
            "absolute",
        ),
        (json!([{"id": "cats"}]), "has no instance_data_dir"),
        (json!({"id": "cats"}), "not a list"),
    ] {
        let (failure, told) = refusal(settings);
        assert_eq!(failure, Failure::ConfigInvalid, "{told}");
        assert!(told.contains(why), "{told}");
    }
    let files = [
        file(FileRole::Config, "config.json", "{\"a\": 1 \"b\"}"),
        file(FileRole::DataLoader, "l.json", "[]"),
    ];
    assert!(
        host.prepare(&files, Length::Steps(1))
            .unwrap_err()
            .to_string()
            .contains("line 1")
    );
    assert!(
        host.prepare(&[], Length::Steps(1))
            .unwrap_err()
            .to_string()
            .contains("not submitted")
    );
}

#[test]
fn the_command_follows_the_gpus_and_the_settings() {
    let words = |gpus, gang, configured: Option<&[String]>| -> Vec<String> {
        let assignment = Assignment {
            devices: (0..gpus).collect(),
            trainer: TrainerKind::SimpleTuner,
            gang,
            ..crate::host::tests::assignment(7)
        };
        command(configured, &assignment, "fp16")
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    };
    assert_eq!(words(1, None, None), ["python3", "-m", "simpletuner.train"]);
    let two = words(2, None, None).join(" ");
    assert!(
        two.starts_with(
            "accelerate launch --num_processes 2 --num_machines 1 --mixed_precision fp16"
        ),
        "{two}"
    );
    let own = ["x".to_owned(), "--n={processes}".to_owned()];
    assert_eq!(words(4, None, Some(&own)), ["x", "--n=4"]);
    // Each host has the whole number of processes, its own rank, and the way to the first.
    assert_eq!(
        words(1, Some(second_of(2, 0)), None).join(" "),
        "accelerate launch --num_processes 2 --num_machines 2 --multi_gpu --machine_rank 1 --rdzv_backend static \
         --main_process_ip 10.0.0.5 --main_process_port 29501 --mixed_precision fp16 --dynamo_backend no \
         --module simpletuner.train"
    );
    let own = ["{machines}:{rank}", "{processes}@{main_host}:{main_port}"].map(str::to_owned);
    let filled = words(4, Some(second_of(3, 0)), Some(&own));
    assert_eq!(filled, ["3:1", "12@10.0.0.5:29501"]);
}

/// The second of so many hosts, which go on from a step.
fn second_of(hosts: u8, resume_step: u64) -> Gang {
    Gang {
        rank: 1,
        hosts,
        main_host: "10.0.0.5".to_owned(),
        main_port: 29_501,
        resume_step,
    }
}

#[test]
fn credentials_are_in_the_environment_and_in_no_file() {
    let host = Host::new();
    let mut config = config();
    config["publishing_config"][0]["secret_key"] = json!("{env:STEPCAST_CREDENTIAL_SECRET_KEY}");
    let files = [
        file(FileRole::Config, "config.json", config),
        file(FileRole::DataLoader, "multidatabackend.json", host.loader()),
    ];
    let credentials: Vec<Credential> = ["hub_token", "wandb_api_key", "secret_key"]
        .map(|name| Credential {
            name: name.to_owned(),
            value: format!("canary of {name}").into(),
        })
        .into();
    let (launch, written) = host
        .prepare_with(&files, &credentials, Length::Steps(1))
        .unwrap();
    assert_eq!(
        written["publishing_config"][0]["secret_key"],
        "{env:STEPCAST_CREDENTIAL_SECRET_KEY}"
    );
    let value = |name: &str| {
        let found = launch.environment.iter().rfind(|(known, _)| known == name);
        found.and_then(|(_, value)| value.to_str())
    };
    for (variable, name) in [
        ("STEPCAST_CREDENTIAL_HUB_TOKEN", "hub_token"),
        ("HF_TOKEN", "hub_token"),
        ("WANDB_API_KEY", "wandb_api_key"),
        ("STEPCAST_CREDENTIAL_SECRET_KEY", "secret_key"),
    ] {
        let expected = format!("canary of {name}");
        assert_eq!(value(variable), Some(expected.as_str()), "{variable}");
    }
    let mut folders = vec![host.root.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains("canary"), "{}", path.display());
        }
    }
    assert!(files > 1, "only {files} files were looked at");
    assert!(!format!("{credentials:?}").contains("canary"));
}

#[test]
fn a_credential_is_taken_out_of_what_the_trainer_prints() {
    let handed = crate::order::Handed {
        files: Vec::new(),
        credentials: vec![Credential {
            name: "hub_token".to_owned(),
            value: "no-known-shape-1".to_owned().into(),
        }],
    };
    let redactor = crate::trainer::redactor(&[], &handed, "webhook-token");
    assert_eq!(
        redactor.clean("login with no-known-shape-1"),
        "login with [redacted]"
    );
    assert!(!format!("{redactor:?}").contains("shape"));
}
