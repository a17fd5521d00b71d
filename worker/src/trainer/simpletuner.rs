//! Starts SimpleTuner itself: rewritten settings in a private folder, a chosen environment, one process a GPU.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use stepcast_records::Precision;

use super::{Error, Ground, Launch, inherited, variable};
use crate::replay::{JOB_ID_VARIABLE, SIGNAL_FILE_VARIABLE};
use crate::state_dir::{private_folder, write_private};

/// Stands for the number of GPUs in a configured command.
const PROCESSES: &str = "{processes}";

/// Writes the job's files and says how to start the trainer.
pub(super) fn prepare(ground: &Ground<'_>, directory: PathBuf, signal_file: PathBuf) -> Result<Launch, Error> {
    let output = ground.outputs.join(&ground.assignment.job);
    let cache = ground.folder.join("cache");
    private_folder(&output)?;
    private_folder(&cache)?;
    let config = write_files(ground, &directory, &output, &cache)?;
    let devices: Vec<u32> = ground.devices.iter().filter_map(|device| device.index).collect();
    let configured = ground.config.simpletuner_command.as_deref();
    let command = command(configured, devices.len(), ground.assignment.workload.precision);
    let mut environment = inherited();
    environment.extend(variables(&devices, &config));
    environment.push(variable(JOB_ID_VARIABLE, ground.marker));
    environment.push(variable(SIGNAL_FILE_VARIABLE, &signal_file));
    Ok(Launch { command, environment, directory, signal_file })
}

/// The trainer's own command line. Python itself is started, not the `simpletuner` command: that one puts the real
/// trainer into a session of its own and does not pass SIGTERM on.
fn command(configured: Option<&[String]>, gpus: usize, precision: Precision) -> Vec<OsString> {
    let processes = gpus.max(1).to_string();
    if let Some(words) = configured {
        return words.iter().map(|word| word.replace(PROCESSES, &processes).into()).collect();
    }
    let words: &[&str] = match gpus {
        0 | 1 => &["python3", "-m", "simpletuner.train"],
        _ => &[
            "accelerate", "launch", "--num_processes", &processes, "--num_machines", "1", "--mixed_precision",
            precision.name(), "--dynamo_backend", "no", "--module", "simpletuner.train",
        ],
    };
    words.iter().map(OsString::from).collect()
}

/// What steers SimpleTuner, and which GPUs it sees.
fn variables(devices: &[u32], config: &Path) -> Vec<(OsString, OsString)> {
    let visible: Vec<String> = devices.iter().map(u32::to_string).collect();
    let mut variables = vec![
        variable("CONFIG_PATH", config),
        variable("SIMPLETUNER_CONFIG_BACKEND", "json"),
        variable("TOKENIZERS_PARALLELISM", "false"),
        variable("PYTHONUNBUFFERED", "1"),
        // The driver's numbers, which this worker counts by, are CUDA's only in this order.
        variable("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        variable("CUDA_VISIBLE_DEVICES", visible.join(",")),
    ];
    if devices.is_empty() {
        let on_the_processor = [("ACCELERATE_USE_CPU", "true"), ("MIXED_PRECISION", "no"), ("ACCELERATE_MIXED_PRECISION", "no")];
        variables.extend(on_the_processor.map(|(name, value)| variable(name, value)));
    }
    variables
}
