//! `stepcast dev`: a server and a worker on this machine, for trying things out.

mod nodes;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use stepcast_proto::v1::{CreateWorkerTokenRequest, ListWorkerTokensRequest};

use self::nodes::Nodes;
use crate::asked::Asked;
use crate::child::{Child, Log};
use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::style::{Mark, Tone};
use crate::secret::SecretFile;

/// What the worker of a `dev` server is called.
const WORKER: &str = "dev";

/// Runs a server and a worker on this machine, for trying things out.
///
/// Everything lies in one folder and listens on this host only; what is set for this host's own server and worker counts for
/// neither. Ends both with Ctrl-C.
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
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, requires = "replay", value_parser = stepcast_worker::options::replay_speed)]
    replay_speed: f64,
    /// The trainer's command, as `stepcast worker` takes it
    #[arg(long, env = "STEPCAST_SIMPLETUNER_COMMAND", value_name = "COMMAND")]
    simpletuner_command: Option<String>,
    /// Run so many servers as one cluster: 3 or 5 to see one of them die
    #[arg(long, value_name = "NODES", default_value_t = 1, value_parser = nodes)]
    nodes: u8,
    /// Run no worker
    #[arg(long, conflicts_with_all = ["cpu", "replay"])]
    no_worker: bool,
}

/// What ended it.
enum Ended {
    /// The last server.
    Servers(Box<Failure>),
    /// The worker.
    Worker,
    /// A person.
    Asked,
}

impl Dev {
    /// Runs both until Ctrl-C or until one of them ends.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let output = &context.output;
        let mut nodes = Nodes::start(&self.data, &self.listen, self.nodes).await?;
        let client = nodes.client().await?;
        let addresses = nodes.addresses();
        let what = match self.nodes {
            1 => "server".to_owned(),
            nodes => format!("{nodes} servers, one cluster,"),
        };
        output.marked(
            Mark::Done,
            Tone::Good,
            format!(
                "{what} on {}, data in {}",
                addresses.replace(',', ", "),
                self.data.display()
            ),
        );
        let mut worker = match self.no_worker {
            true => None,
            false => Some(self.start_worker(&client, &addresses).await?),
        };
        let other = if addresses == "http://127.0.0.1:7070" {
            String::new()
        } else {
            format!(" --server {addresses}")
        };
        let replay = if self.replay.is_some() {
            " --trainer replay"
        } else {
            ""
        };
        output.next(format!(
            "in another terminal: stepcast submit PATH{replay}{other}"
        ));
        let asked = Asked::listen(false);
        let ended = self.watch(context, &mut nodes, &mut worker, &asked).await;
        let ending = async {
            let failure = match (ended, worker) {
                (Ended::Worker, Some(worker)) => worker
                    .failed()
                    .await
                    .hint("--cpu offers the processor, --replay 1 a pretend device"),
                (ended, worker) => {
                    if let Some(worker) = worker {
                        worker.stop().await;
                    }
                    match ended {
                        Ended::Servers(failure) => *failure,
                        Ended::Worker | Ended::Asked => interrupted(),
                    }
                }
            };
            nodes.stop().await;
            Err(failure)
        };
        // What still runs then is killed.
        asked.or_at_once(ending).await
    }

    /// Waits until a person asks for the end, or until nothing is left to wait for. One node of several may go.
    async fn watch(
        &self,
        context: &Context,
        nodes: &mut Nodes,
        worker: &mut Option<Child>,
        asked: &Asked,
    ) -> Ended {
        let worker_ends = async {
            match worker {
                Some(worker) => worker.wait().await,
                None => std::future::pending().await,
            }
        };
        let asked = asked.times(1);
        tokio::pin!(worker_ends, asked);
        loop {
            let (left, failure) = tokio::select! {
                ended = nodes.ended() => ended,
                () = &mut worker_ends => return Ended::Worker,
                () = &mut asked => return Ended::Asked,
            };
            if left == 0 {
                return Ended::Servers(Box::new(failure));
            }
            context.output.marked(
                Mark::Look,
                Tone::Warn,
                format!("{}; {left} of {} go on", failure.primary, self.nodes),
            );
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
        if let Some(command) = self
            .simpletuner_command
            .as_ref()
            .filter(|it| !it.is_empty())
        {
            words.extend(["--simpletuner-command", command].map(OsString::from));
        }
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

/// How many servers one cluster may have here: an even one more lets no more of them die.
fn nodes(text: &str) -> Result<u8, String> {
    let nodes = text.parse().ok();
    let fits = |nodes: &u8| matches!(nodes, 1 | 3 | 5);
    nodes
        .filter(fits)
        .ok_or_else(|| "write 1, 3 or 5".to_owned())
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
    // A file without a token that the server knows is of another server.
    let _ = std::fs::remove_file(file);
    let kept = SecretFile::create(file)?;
    let answer = client.ask_once(|| {
        let request = timed(CreateWorkerTokenRequest {
            display_name: name.to_owned(),
        });
        let mut service = client.workers();
        async move { service.create_worker_token(request).await }
    });
    kept.fill(&answer.await?.secret)
}
