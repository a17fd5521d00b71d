//! `stepcast job credentials`: what a job's configuration needs that is kept in memory only, and giving it again.

use std::path::PathBuf;

use clap::Args;
use stepcast_proto::v1::{FileRole, GiveCredentialsRequest};

use super::job::{Named, get};
use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::files;
use crate::output::json;
use crate::output::style::{Mark, Tone};

/// Gives a waiting job its credentials again, or says which it needs.
#[derive(Debug, Args)]
pub(crate) struct Credentials {
    #[command(flatten)]
    job: Named,
    /// The configuration that was submitted: its folder, or its file. What is secret in it is taken, and nothing else
    #[arg(value_name = "CONFIG")]
    config: Option<PathBuf>,
}

impl Credentials {
    /// Does it.
    pub(crate) async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        let name = self.job.name();
        let (output, id) = (&context.output, json::id(name));
        let Some(config) = self.config else {
            let job = get(client, name).await?;
            if output.json {
                return output.json(&json::job(&job));
            }
            let held = match (job.credentials.is_empty(), job.awaits_credentials) {
                (true, _) => return output.data("none\n"),
                (false, true) => "missing",
                (false, false) => "given",
            };
            let lines = job
                .credentials
                .iter()
                .map(|name| format!("{name}  {held}\n"));
            output.data(&lines.collect::<String>())?;
            if job.awaits_credentials {
                output.next(format!("stepcast job credentials {id} CONFIG"));
            }
            return Ok(());
        };
        let mut sent = files::collect(&config)?.files;
        // Secrets stand in these two; the server has the others.
        sent.retain(|file| matches!(file.role(), FileRole::Config | FileRole::DataLoader));
        let answer = client.change(|| {
            let request = timed(GiveCredentialsRequest {
                name: name.to_owned(),
                files: sent.clone(),
                ..GiveCredentialsRequest::default()
            });
            let mut service = client.jobs();
            async move { service.give_credentials(request).await }
        });
        let job = answer.await?.job.unwrap_or_default();
        if output.json {
            return output.json(&json::job(&job));
        }
        let what = format!("job {id} has its credentials again");
        output.marked(Mark::Done, Tone::Good, what);
        output.next(format!("stepcast job watch {id}"));
        Ok(())
    }
}
