//! `stepcast dev`: a server and a worker on this machine, for trying things out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use stepcast_proto::v1::{CreateWorkerTokenRequest, ListWorkerTokensRequest};

use super::workers::write_secret;
use crate::child::{Child, Log, asked_to_end};
use crate::client::{Address, Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::style::{Mark, Tone};

/// What the worker of a `dev` server is called.
const WORKER: &str = "dev";

/// Runs a server and a worker on this machine, for trying things out.
///
/// Everything lies in one folder and listens on this host only. Ends both with Ctrl-C.
///
/// Example: stepcast dev --replay 2
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Folder of everything; made if it is missing
    #[arg(long, value_name = "FOLDER", default_value = "stepcast-data")]
    data: PathBuf,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: String,
    /// Offer the processor instead of GPUs
    #[arg(long, conflicts_with = "replay")]
    cpu: bool,
    /// Offer so many pretend devices that play made-up runs
    #[arg(long, value_name = "DEVICES", value_parser = clap::value_parser!(u8).range(1..=8))]
    replay: Option<u8>,
    /// How many times faster pretend devices play; 0 for no waiting at all
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, requires = "replay")]
    replay_speed: f64,
    /// Run no worker
    #[arg(long, conflicts_with_all = ["cpu", "replay"])]
    no_worker: bool,
}

impl Dev {
    /// Runs both until Ctrl-C or until one of them ends.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let output = &context.output;
        let server = arguments(
            &["server", "--data"],
            &[
                self.data.join("server").as_os_str(),
                "--listen".as_ref(),
                self.listen.as_ref(),
            ],
        );
        let (mut server, address) = Child::start_server(&server, Log::Shown).await?;
        let client = Client::connect(&Address {
            server: address.clone(),
            ..Address::default()
        })
        .await?;
        output.marked(
            Mark::Done,
            Tone::Good,
            format!("server on {address}, data in {}", self.data.display()),
        );
        let mut worker = match self.no_worker {
            true => None,
            false => Some(self.start_worker(&client, &address).await?),
        };
        let other = if address == "http://127.0.0.1:7070" {
            String::new()
        } else {
            format!(" --server {address}")
        };
        let replay = if self.replay.is_some() {
            " --trainer replay"
        } else {
            ""
        };
        output.next(format!(
            "in another terminal: stepcast submit PATH{replay}{other}"
        ));
        let worker_ends = async {
            match &mut worker {
                Some(worker) => worker.wait().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            () = server.wait() => Some("server"),
            () = worker_ends => Some("worker"),
            () = asked_to_end(false) => None,
        };
        let failure = match (ended, worker) {
            (Some("worker"), Some(worker)) => Some(
                worker
                    .failed()
                    .await
                    .hint("--cpu offers the processor, --replay 1 a pretend device"),
            ),
            (_, Some(worker)) => {
                worker.stop().await;
                None
            }
            (_, None) => None,
        };
        match (ended, failure) {
            (Some("server"), _) => Err(server.failed().await),
            (_, failure) => {
                server.stop().await;
                failure.map_or_else(|| Err(interrupted()), Err)
            }
        }
    }

    async fn start_worker(&self, client: &Client, address: &str) -> Result<Child, Failure> {
        let state = self.data.join("worker");
        let token = self.data.join("worker.token");
        make_token(client, WORKER, &token).await?;
        let mut words = arguments(
            &["worker", "--server", address, "--state"],
            &[
                state.as_os_str(),
                "--join-token-file".as_ref(),
                token.as_os_str(),
            ],
        );
        if self.cpu {
            words.push("--cpu".into());
        }
        if let Some(devices) = self.replay {
            let (devices, speed) = (devices.to_string(), self.replay_speed.to_string());
            words.extend(["--replay", &devices, "--replay-speed", &speed].map(OsString::from));
        }
        Child::start("worker", &words, Log::Shown)
    }
}

/// Both were ended because a person asked.
fn interrupted() -> Failure {
    Failure::new(crate::failure::Exit::Interrupted, "interrupted")
}

/// Arguments of a process, some of them paths.
pub(crate) fn arguments(words: &[&str], more: &[&std::ffi::OsStr]) -> Vec<OsString> {
    words
        .iter()
        .map(OsString::from)
        .chain(more.iter().map(OsString::from))
        .collect()
}

/// Makes a worker's token, once: the file of an earlier start is used again.
pub(crate) async fn make_token(client: &Client, name: &str, file: &Path) -> Result<(), Failure> {
    let known = client.ask(|| {
        let mut service = client.workers();
        async move {
            service
                .list_worker_tokens(timed(ListWorkerTokensRequest {}))
                .await
        }
    });
    if known
        .await?
        .tokens
        .iter()
        .any(|token| token.display_name == name)
    {
        if file.is_file() {
            return Ok(());
        }
        return Err(Failure::refused(format!(
            "the token of worker {name} is gone: {} is missing",
            file.display()
        ))
        .hint(format!(
            "take it back with `stepcast workers token revoke {name}` and start again"
        )));
    }
    let answer = client.ask_once(|| {
        let request = timed(CreateWorkerTokenRequest {
            display_name: name.to_owned(),
        });
        let mut service = client.workers();
        async move { service.create_worker_token(request).await }
    });
    let answer = answer.await?;
    // A file without a token that the server knows is of another server.
    let _ = std::fs::remove_file(file);
    write_secret(file, &answer.secret)
}
