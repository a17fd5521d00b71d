//! Starts SimpleTuner itself: rewritten settings in a private folder, a chosen environment, one process a GPU.

mod checkpoint;
mod held;
mod loader;
mod private;
mod settings;
mod state;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::checkpoint::Whole;
use self::loader::Folders;
pub(crate) use self::private::private;
use self::settings::Settings;
use super::{Error, Ground, Launch, credentials, inherited, shared_cache, variable};
use crate::order::{Assignment, FileRole};
use crate::redact::secret_name;
use crate::replay::{JOB_ID_VARIABLE, SIGNAL_FILE_VARIABLE};
use crate::state_dir::{self, private_folder, write_private};

/// Stands for the number of GPUs in a configured command.
const PROCESSES: &str = "{processes}";

/// Where an attempt's files lie on this host.
struct Places {
    /// Where results go, kept when the attempt is over.
    output: PathBuf,
    /// Where encoded images and captions go, removed when the attempt is over.
    cache: PathBuf,
    /// Where the rewritten settings go.
    config: PathBuf,
}

/// Has SimpleTuner's own log of everything go nowhere: it writes `debug.log` into its working directory
/// (`helpers/log_format.py` of 4.10.1), with the keys of buckets as they are, and what it prints is kept without them.
fn keep_no_log(directory: &Path) -> Result<(), Error> {
    let log = directory.join("debug.log");
    match std::os::unix::fs::symlink("/dev/null", &log) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(state_dir::at("make", &log)(error).into())
        }
        _ => Ok(()),
    }
}

/// Writes the job's files and says how to start the trainer.
pub(super) fn prepare(
    ground: &Ground<'_>,
    directory: PathBuf,
    signal_file: PathBuf,
) -> Result<Launch, Error> {
    let output = ground.outputs.join(&ground.assignment.job);
    let account = ground.account;
    let checkpoint = checkpoint::newest_whole(&output, ground.assignment.epoch, account)?;
    let gang = ground.assignment.gang.as_ref();
    if let Some(gang) = gang {
        check_shared(checkpoint.as_ref(), gang.resume_step)?;
    }
    // The others of a gang go on from it only once the first has begun.
    if let (Some(whole), true) = (&checkpoint, gang.is_none_or(|gang| gang.rank == 0)) {
        state::keep_step(&output, whole, account)?;
    }
    let shared = shared_cache(ground.assignment, ground.outputs);
    let places = Places {
        output,
        cache: shared.unwrap_or_else(|| ground.folder.join("cache")),
        // Beside the working directory, which stays empty: SimpleTuner would source a `config/config.env` in it.
        config: ground.folder.join("config"),
    };
    for folder in [&places.output, &places.cache, &places.config] {
        private_folder(folder)?;
    }
    keep_no_log(&directory)?;
    let mut settings = Settings::read(ground.files)?;
    let mixed_precision = settings.mixed_precision();
    settings.resume(checkpoint.as_ref().map(|whole| whole.name.as_str()));
    write_files(ground, &mut settings, &places)?;
    let devices: Vec<u32> = ground
        .devices
        .iter()
        .filter_map(|device| device.index)
        .collect();
    let configured = ground.config.simpletuner_command.as_deref();
    let command = command(configured, ground.assignment, mixed_precision);
    let mut environment = inherited();
    // Behind what is inherited: a job's own token goes before the host's.
    environment.extend(credentials::variables(ground.credentials));
    environment.extend(variables(
        &devices,
        &places.config.join("config.json"),
        mixed_precision,
    ));
    environment.push(variable(JOB_ID_VARIABLE, ground.marker));
    environment.push(variable(SIGNAL_FILE_VARIABLE, &signal_file));
    Ok(Launch {
        command,
        environment,
        directory,
        signal_file,
        from: checkpoint.map_or(0, |whole| whole.step),
    })
}

/// Values in the job's files that must not appear in a log: keys of buckets, tokens of receivers.
pub(crate) fn secrets(files: &[crate::order::JobFile]) -> Vec<String> {
    let readable = files.iter().filter_map(|file| settings::value(file).ok());
    let mut found = Vec::new();
    for value in readable {
        collect_secrets(&value, false, &mut found);
    }
    found
}

/// Everything under the name of a secret is one; headers of requests are, and a text may be a structure itself.
fn collect_secrets(value: &Value, named: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let named = named || secret_name(name) || name == "request_headers";
                collect_secrets(value, named, found);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_secrets(item, named, found)),
        Value::String(text) => {
            let structure = text.trim_start().starts_with(['[', '{']);
            match structure.then(|| serde_json::from_str::<Value>(text)) {
                Some(Ok(value @ (Value::Object(_) | Value::Array(_)))) => {
                    collect_secrets(&value, named, found);
                }
                _ if named => found.push(text.clone()),
                _ => {}
            }
        }
        _ => {}
    }
}

fn write_files(ground: &Ground<'_>, settings: &mut Settings, places: &Places) -> Result<(), Error> {
    let loader = ground
        .files
        .iter()
        .find(|file| file.role == FileRole::DataLoader);
    let loader = loader.ok_or_else(|| {
        Error::Settings("the data loader's file was not submitted with the job".to_owned())
    })?;
    let folders = Folders {
        account: ground.account,
        helper: &ground.config.helper,
    };
    let loader = loader::rewritten(loader, &places.cache, folders)?;
    let loader_path = write(places, "multidatabackend.json", &loader)?;
    settings.set("data_backend_config", path_value(&loader_path));
    for (role, name, key) in [
        (FileRole::Lycoris, "lycoris_config.json", "lycoris_config"),
        (
            FileRole::Prompts,
            "user_prompt_library.json",
            "user_prompt_library",
        ),
    ] {
        if let Some(file) = ground.files.iter().find(|file| file.role == role) {
            let path = write(places, name, &settings::value(file)?)?;
            settings.set(key, path_value(&path));
        }
    }
    settings.set("output_dir", path_value(&places.output));
    settings.set("cache_dir", path_value(&places.cache));
    settings.receive_webhooks(ground.webhook.0, ground.webhook.1);
    settings.run_length(ground.assignment.workload.length);
    write(places, "config.json", settings.value())?;
    Ok(())
}

fn write(places: &Places, name: &str, value: &Value) -> Result<PathBuf, Error> {
    let path = places.config.join(name);
    write_private(&path, value.to_string().as_bytes())?;
    Ok(path)
}

fn path_value(path: &Path) -> Value {
    Value::from(path.to_string_lossy())
}

/// Refuses a gang whose hosts would not all go on from the same step: the newest checkpoint here must be as new as the newest
/// that the leader was told of, whatever its name, or a newer one of which the word was lost.
fn check_shared(newest: Option<&Whole>, step: u64) -> Result<(), Error> {
    if newest.map_or(0, |whole| whole.step) >= step {
        return Ok(());
    }
    Err(Error::Placement(
        "the checkpoint to go on from is not in this worker's outputs: a job over several hosts needs one folder that \
         all of them share (--outputs)",
    ))
}

/// The trainer's own command line. Python itself is started, not the `simpletuner` command: that one puts the real
/// trainer into a session of its own and does not pass SIGTERM on.
fn command(
    configured: Option<&[String]>,
    assignment: &Assignment,
    mixed_precision: &str,
) -> Vec<OsString> {
    let processes = assignment.processes().to_string();
    let gang = assignment.gang.as_ref();
    let machines = gang.map_or(1, |gang| gang.hosts).to_string();
    let rank = gang.map_or(0, |gang| gang.rank).to_string();
    let host = gang.map_or("127.0.0.1", |gang| gang.main_host.as_str());
    let port = gang.map_or(0, |gang| gang.main_port).to_string();
    if let Some(words) = configured {
        let values = [
            (PROCESSES, processes.as_str()),
            ("{machines}", &machines),
            ("{rank}", &rank),
            ("{main_host}", host),
            ("{main_port}", &port),
        ];
        let filled = |word: &String| {
            let filled = values.iter().fold(word.clone(), |word, (name, value)| {
                word.replace(name, value)
            });
            OsString::from(filled)
        };
        return words.iter().map(filled).collect();
    }
    if processes == "1" {
        return ["python3", "-m", "simpletuner.train"]
            .map(OsString::from)
            .into();
    }
    let mut words = vec!["accelerate", "launch", "--num_processes", &processes];
    words.extend(["--num_machines", &machines]);
    if gang.is_some() {
        // One GPU on each of several hosts would not be taken for several.
        words.extend([
            "--multi_gpu",
            "--machine_rank",
            &rank,
            "--rdzv_backend",
            "static",
        ]);
        words.extend(["--main_process_ip", host, "--main_process_port", &port]);
    }
    words.extend([
        "--mixed_precision",
        mixed_precision,
        "--dynamo_backend",
        "no",
    ]);
    words.extend(["--module", "simpletuner.train"]);
    words.into_iter().map(OsString::from).collect()
}

/// What steers SimpleTuner, and which GPUs it sees.
fn variables(devices: &[u32], config: &Path, mixed_precision: &str) -> Vec<(OsString, OsString)> {
    let visible: Vec<String> = devices.iter().map(u32::to_string).collect();
    let mut variables = vec![
        variable("CONFIG_PATH", config),
        variable("SIMPLETUNER_CONFIG_BACKEND", "json"),
        variable("CONFIG_BACKEND", "json"),
        variable("TOKENIZERS_PARALLELISM", "false"),
        variable("PYTHONUNBUFFERED", "1"),
        // The driver's numbers, which this worker counts by, are CUDA's only in this order.
        variable("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        variable("CUDA_VISIBLE_DEVICES", visible.join(",")),
    ];
    if devices.is_empty() {
        let on_the_processor = [
            ("ACCELERATE_USE_CPU", "true"),
            ("MIXED_PRECISION", mixed_precision),
            ("ACCELERATE_MIXED_PRECISION", mixed_precision),
        ];
        variables.extend(on_the_processor.map(|(name, value)| variable(name, value)));
    }
    variables
}

#[cfg(test)]
mod tests;
