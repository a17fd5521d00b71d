//! Plays a stream in place of a trainer, on pretend devices only.

use std::ffi::OsString;
use std::path::PathBuf;

use stepcast_records::simpletuner::Workload;

use super::{Error, Ground, Launch, inherited_without_secrets, variable};
use crate::config::ReplayStream;
use crate::reduce::Pass;
use crate::replay::{JOB_ID_VARIABLE, SIGNAL_FILE_VARIABLE, TOKEN_VARIABLE};
use crate::state_dir::write_private;
use crate::stream::{self, Ending, Script};

/// Steps of a made-up run at most: the stream is written to disk, some 500 bytes a step.
const MAX_STEPS: u64 = 50_000;

/// A made-up step's time for each half megapixel and sample, in milliseconds: about what a good GPU needs for FLUX.
const STEP_MS: u64 = 180;

/// Prompts of one made-up validation at most.
const MAX_PROMPTS: u64 = 4;

/// Images that a made-up prompt takes time for at most.
const MAX_IMAGES: u64 = 100;

/// A made-up image's time.
const PROMPT_MS: u64 = 4_000;

/// Writes the stream down and says how to play it.
pub(super) fn prepare(
    ground: &Ground<'_>,
    directory: PathBuf,
    signal_file: PathBuf,
) -> Result<Launch, Error> {
    let replay = &ground.config.replay;
    let stream = match &replay.stream {
        ReplayStream::File(path) => path.clone(),
        ReplayStream::Shipped(name) => {
            let text = stream::shipped(name).ok_or(Error::Placement(
                "the configured stream is not a shipped one",
            ))?;
            written(ground, text)?
        }
        ReplayStream::Plan => written(
            ground,
            &stream::write(
                &script(&ground.assignment.workload, ground.assignment.processes())?.lines(),
            ),
        )?,
    };
    let (url, token) = ground.webhook;
    let speed = replay.speed.to_string();
    let mut command: Vec<OsString> = ground.config.helper.clone();
    command.extend(["replay".into(), "--stream".into(), stream.into()]);
    command.extend(["--url".into(), url.into(), "--speed".into(), speed.into()]);
    let mut environment = inherited_without_secrets();
    environment.push(variable(TOKEN_VARIABLE, token));
    environment.push(variable(JOB_ID_VARIABLE, ground.marker));
    environment.push(variable(SIGNAL_FILE_VARIABLE, &signal_file));
    Ok(Launch {
        command,
        environment,
        directory,
        signal_file,
        // What is played always begins at its beginning.
        from: 0,
    })
}

fn written(ground: &Ground<'_>, text: &str) -> Result<PathBuf, Error> {
    let path = ground.folder.join("stream.jsonl");
    write_private(&path, text.as_bytes())?;
    Ok(path)
}

/// A run with the job's own steps, checkpoints and validations, at made-up times.
fn script(workload: &Workload, processes: usize) -> Result<Script, Error> {
    let count = u8::try_from(processes).unwrap_or(u8::MAX);
    let plan = workload
        .plan(count)
        .map_err(|missing| Error::Settings(missing.to_string()))?;
    let steps = plan.steps_total.clamp(1, MAX_STEPS);
    let load = plan.training.first().map_or(1, |(shape, _)| {
        u64::from(shape.resolution.get())
            * u64::from(shape.batch_size.get())
            * u64::from(shape.accumulation.get())
    });
    // Few events a pass, each for as many images as the rest needs, as with several images for one prompt.
    let validation = workload.validation.as_ref();
    let images = u64::from(validation.map_or(0, Pass::images_of));
    let prompts = (1..=MAX_PROMPTS)
        .rev()
        .find(|prompts| images.is_multiple_of(*prompts))
        .unwrap_or(1);
    Ok(Script {
        steps,
        step_ms: STEP_MS * load.max(1),
        steps_per_epoch: steps.div_ceil(4),
        validate_every: steps
            .checked_div(plan.validation_passes)
            .unwrap_or(0)
            .max(u64::from(plan.validation_passes > 0)),
        prompts,
        prompt_ms: PROMPT_MS * (images / prompts).clamp(1, MAX_IMAGES),
        save_every: steps.checked_div(plan.checkpoints).unwrap_or(0),
        benchmark: false,
        ending: Ending::Success,
    })
}
