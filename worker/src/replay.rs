//! The player: a child process that stands in for a trainer by posting a stream to the attempt's receiver.
//!
//! It is a process of its own, with a guard, a log and real HTTP, so that everything around a trainer is exercised as it
//! is. Like the trainer it reads its signal file after each step, and dies of SIGTERM without a word.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stream::{self, Line};

/// How long a post may take: what SimpleTuner waits.
const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// The variable that holds the receiver's token; a command line can be read by every user of a host.
pub const TOKEN_VARIABLE: &str = "STEPCAST_REPLAY_TOKEN";

/// The variable that names the signal file, as SimpleTuner calls it.
pub const SIGNAL_FILE_VARIABLE: &str = "SIMPLETUNER_ACCELERATE_SIGNAL_FILE";

/// The variable that names the run in every event, as SimpleTuner calls it.
pub const JOB_ID_VARIABLE: &str = "SIMPLETUNER_JOB_ID";

/// What to play, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// A stream or a recording.
    pub stream: PathBuf,
    /// The attempt's receiver.
    pub url: String,
    /// How many times faster than written; 0 for no waiting at all.
    pub speed: f64,
    /// The exit code when the stream names none.
    pub exit: u8,
}

/// Plays the stream to its end.
pub async fn run(options: Options) -> ExitCode {
    match play(&options).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("replay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play(options: &Options) -> anyhow::Result<u8> {
    let text = std::fs::read_to_string(&options.stream)?;
    let mut player = Player {
        url: options.url.clone(),
        token: std::env::var(TOKEN_VARIABLE).unwrap_or_default(),
        job_id: std::env::var(JOB_ID_VARIABLE).ok(),
        signal_file: std::env::var_os(SIGNAL_FILE_VARIABLE).map(PathBuf::from),
        checkpoints_asked: 0,
        http: reqwest::Client::builder()
            .no_proxy()
            .timeout(POST_TIMEOUT)
            .build()?,
    };
    for line in stream::read(&text)? {
        let Line {
            after_ms,
            body,
            exit,
            hang,
        } = line;
        if options.speed > 0.0 && after_ms > 0 {
            tokio::time::sleep(Duration::from_millis(after_ms).div_f64(options.speed)).await;
        }
        if let Some(body) = body {
            player.step(body).await;
        }
        if let Some(code) = exit {
            return Ok(code);
        }
        if hang {
            eprintln!("replay: silent from here on");
            std::future::pending::<()>().await;
        }
    }
    Ok(options.exit)
}

struct Player {
    url: String,
    token: String,
    job_id: Option<String>,
    signal_file: Option<PathBuf>,
    checkpoints_asked: u64,
    http: reqwest::Client,
}

impl Player {
    async fn step(&mut self, body: Value) {
        let timed = body
            .pointer("/progress/metrics/step_speed_seconds")
            .is_some();
        let step = body
            .pointer("/data/global_step")
            .and_then(Value::as_u64)
            .filter(|_| timed);
        self.post(body).await;
        if let Some(step) = step {
            if step % 10 == 0 {
                eprintln!("replay: step {step}");
            }
            if self.checkpoint_asked() {
                self.checkpoint(step).await;
            }
        }
    }

    /// A failed post is lost, as it is with the trainer.
    async fn post(&self, mut body: Value) {
        if let (Some(job_id), Some(members)) = (&self.job_id, body.as_object_mut()) {
            members.insert("job_id".to_owned(), Value::from(job_id.as_str()));
        }
        let request = self
            .http
            .post(&self.url)
            .header("X-API-Key", &self.token)
            .body(body.to_string());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => eprintln!("replay: the receiver answered {}", answer.status()),
            Err(error) => eprintln!("replay: the receiver does not answer: {error}"),
        }
    }

    /// True once for each time the counter in the signal file has grown.
    fn checkpoint_asked(&mut self) -> bool {
        let text = self
            .signal_file
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok());
        let signals: Option<Value> = text.and_then(|text| serde_json::from_str(&text).ok());
        let counter = signals
            .and_then(|signals| signals["manual_checkpoint"].as_u64())
            .unwrap_or(0);
        let grown = counter > self.checkpoints_asked;
        self.checkpoints_asked = self.checkpoints_asked.max(counter);
        grown
    }

    async fn checkpoint(&self, step: u64) {
        for status in ["running", "completed"] {
            self.post(json!({"type": "lifecycle.stage", "stage": {"key": "checkpoint_save", "status": status}})).await;
        }
        let path = format!("output/checkpoint-{step}");
        self.post(
            json!({"type": "training.checkpoint", "checkpoint": {"path": path, "is_final": false}}),
        )
        .await;
    }
}
