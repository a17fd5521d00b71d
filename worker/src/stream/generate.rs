//! Makes a stream with the shape and the times of a SimpleTuner run: stages, steps, checkpoints, validations, the end.
//!
//! The shape follows what SimpleTuner 4.10 sends (a step with a checkpoint is sent twice, the step after a validation
//! carries its time, there is no "completed" status). Words and numbers are our own. The same script gives the same
//! lines on every machine.

use serde_json::{Value, json};

use super::Line;
use crate::event::format_utc;

/// When a made run starts, by its own clock: 2026-01-01T09:00:00Z. Only differences matter.
const START_MS: u64 = 1_767_258_000_000;

/// A picture as short as base64 allows: the receiver has to drop it all the same.
const PICTURE: &str = "iVBORw0KGgo=";

/// Extra time of the first steps, while kernels are chosen and compiled.
const WARM_UP_MS: [u64; 3] = [14_000, 900, 400];

/// The run to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// A clean step's usual time in milliseconds.
    pub step_ms: u64,
    /// Steps in one epoch.
    pub steps_per_epoch: u64,
    /// Steps between validations; 0 for none.
    pub validate_every: u64,
    /// Prompts of one validation.
    pub prompts: u64,
    /// One prompt's usual time in milliseconds.
    pub prompt_ms: u64,
    /// Steps between checkpoints; 0 for none.
    pub save_every: u64,
    /// True when the base model is rendered before the first step.
    pub benchmark: bool,
    /// How it ends.
    pub ending: Ending,
}

/// How a made run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With `training_complete`.
    Success,
    /// With an out-of-memory exception after this step.
    OutOfMemory(u64),
    /// With silence after this step.
    Silence(u64),
}

/// The scripts of the shipped streams.
#[cfg(test)]
pub(super) fn shipped_scripts() -> [(&'static str, Script); 3] {
    let flux = Script {
        steps: 150,
        step_ms: 1_420,
        steps_per_epoch: 75,
        validate_every: 50,
        prompts: 3,
        prompt_ms: 9_600,
        save_every: 50,
        benchmark: true,
        ending: Ending::Success,
    };
    let out_of_memory = Script {
        ending: Ending::OutOfMemory(40),
        benchmark: false,
        ..flux.clone()
    };
    let stuck = Script {
        ending: Ending::Silence(60),
        benchmark: false,
        ..flux.clone()
    };
    [
        ("flux-lora", flux),
        ("out-of-memory", out_of_memory),
        ("stuck", stuck),
    ]
}

impl Script {
    /// The whole stream.
    pub fn lines(&self) -> Vec<Line> {
        let mut run = Run {
            script: self,
            lines: Vec::new(),
            now_ms: 0,
            wait_ms: 0,
            step_from_ms: 0,
            seed: 7,
        };
        run.start_up();
        match self.ending {
            Ending::Success => {
                run.train(self.steps);
                run.finish();
            }
            Ending::OutOfMemory(step) => {
                run.train(step);
                run.out_of_memory();
            }
            Ending::Silence(step) => {
                run.train(step);
                run.lines.push(Line {
                    after_ms: 0,
                    body: None,
                    exit: None,
                    hang: true,
                });
            }
        }
        run.lines
    }
}

/// A run in the making.
struct Run<'a> {
    script: &'a Script,
    lines: Vec<Line>,
    now_ms: u64,
    /// Passed since the last line.
    wait_ms: u64,
    /// When the last step ended, from which the next one is measured.
    step_from_ms: u64,
    seed: u64,
}

impl Run<'_> {
    fn start_up(&mut self) {
        self.say(json!({"type": "notification", "severity": "info", "title": "A replayed run", "message": "A replayed run"}));
        self.pass(800);
        self.stage("init_data_backend", "running");
        self.pass(1_200);
        self.stage("init_text_embed_cache", "running");
        self.pass(5_000);
        self.stage("init_text_embed_cache", "completed");
        self.stage("init_vae_cache", "running");
        self.pass(24_000);
        self.stage("init_vae_cache", "completed");
        self.stage("init_data_backend", "completed");
        self.log("the data is ready");
        self.stage("init_load_base_model", "running");
        self.pass(38_000);
        self.stage("init_load_base_model", "completed");
        if self.script.benchmark && self.script.validate_every > 0 {
            self.stage("benchmark_base_model", "running");
            self.validation();
            self.stage("benchmark_base_model", "completed");
        }
        self.stage("init_prepare_models", "running");
        self.pass(6_500);
        self.stage("init_prepare_models", "completed");
        self.stage("init_resume_checkpoint", "completed");
        let steps = self.script.steps;
        self.say(json!({"type": "training.status", "title": "Running", "severity": "info",
            "data": {"status": "running", "global_step": 0, "total_num_steps": steps, "current_epoch": 1},
            "progress": {"label": "start", "current": 0, "total": steps, "percent": 0.0}}));
        self.step_from_ms = self.now_ms;
    }

    fn train(&mut self, until: u64) {
        let script = self.script;
        let mut warm_up = WARM_UP_MS.into_iter();
        for step in 1..=until {
            let time = self.around(script.step_ms, 6);
            self.pass(time + warm_up.next().unwrap_or(0));
            let step_ms = self.now_ms - self.step_from_ms;
            self.step_from_ms = self.now_ms;
            self.status(step, step_ms);
            if step % 25 == 0 {
                self.log("still training");
            }
            if script.save_every > 0 && step % script.save_every == 0 {
                self.status(step, step_ms);
                self.checkpoint(step);
            }
            if script.validate_every > 0 && step % script.validate_every == 0 {
                self.validation();
            }
        }
    }

    fn checkpoint(&mut self, step: u64) {
        self.stage("checkpoint_save", "running");
        let time = self.around(2_600, 10);
        self.pass(time);
        self.stage("checkpoint_save", "completed");
        self.say(
            json!({"type": "training.checkpoint", "severity": "info", "title": "Checkpoint",
            "checkpoint": {"path": format!("output/checkpoint-{step}"), "is_final": false}}),
        );
    }

    fn validation(&mut self) {
        self.stage("validation", "running");
        self.pass(2_400);
        for prompt in 1..=self.script.prompts {
            let time = self.around(self.script.prompt_ms, 3);
            self.pass(time);
            self.say(json!({"type": "training.validation", "severity": "info",
                "message": format!("prompt {prompt}"), "images": [PICTURE]}));
        }
        self.pass(350);
        self.stage("validation", "completed");
    }

    fn finish(&mut self) {
        self.stage("model_save", "running");
        self.stage("final_validation", "running");
        self.stage("final_validation", "completed");
        self.pass(4_200);
        self.stage("model_save", "completed");
        self.stage("training_complete", "completed");
        self.leave(0);
    }

    fn out_of_memory(&mut self) {
        self.pass(700);
        self.say(json!({"type": "error", "severity": "error", "title": "Training failed: OutOfMemoryError",
            "message": "CUDA out of memory (replayed): no room for the next batch"}));
        self.say(json!({"type": "training.status", "severity": "error", "status": "failed"}));
        self.leave(1);
    }

    fn status(&mut self, step: u64, step_ms: u64) {
        let total = self.script.steps;
        let epoch = (step - 1) / self.script.steps_per_epoch.max(1) + 1;
        let seconds = std::time::Duration::from_millis(step_ms).as_secs_f64();
        self.say(json!({"type": "training.status", "title": "Running", "severity": "info",
            "data": {"status": "running", "global_step": step, "total_num_steps": total, "current_epoch": epoch},
            "progress": {"current": step, "total": total, "metrics": {"epoch": epoch,
                "iteration_step_time_seconds": seconds, "step_speed_seconds": seconds}}}));
    }

    fn stage(&mut self, key: &str, status: &str) {
        self.say(json!({"type": "lifecycle.stage", "severity": "info",
            "stage": {"key": key, "status": status, "progress": {}}}));
    }

    fn log(&mut self, message: &str) {
        self.say(json!({"type": "log.message", "severity": "info", "logger": "replay", "message": message}));
    }

    fn leave(&mut self, code: u8) {
        self.lines.push(Line {
            after_ms: self.wait_ms + 500,
            body: None,
            exit: Some(code),
            hang: false,
        });
    }

    fn say(&mut self, mut body: Value) {
        let sent_ms = i64::try_from(START_MS + self.now_ms).unwrap_or(i64::MAX);
        body["timestamp"] = Value::from(format_utc(sent_ms));
        let after_ms = std::mem::take(&mut self.wait_ms);
        self.lines.push(Line {
            after_ms,
            body: Some(body),
            exit: None,
            hang: false,
        });
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.wait_ms += ms;
    }

    /// A time near `ms`: within `percent` around it, and one in eight up to twice as far above, as on a shared machine.
    fn around(&mut self, ms: u64, percent: u64) -> u64 {
        let wide = if self.draw(8) == 0 {
            percent * 2
        } else {
            percent
        };
        ms - ms * percent / 200 + ms * self.draw(wide * 10 + 1) / 1000
    }

    /// A number below `below` from a linear congruential generator: plain, and equal everywhere.
    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }
}
