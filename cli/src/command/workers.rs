//! `stepcast workers`: who offers GPUs, and who may.

mod shown;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use stepcast_proto::v1::{
    CreateWorkerTokenRequest, DrainWorkerRequest, ListWorkerTokensRequest, ListWorkersRequest,
    ResumeWorkerRequest, RevokeWorkerTokenRequest, Worker,
};

use super::place::Place;
use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::shell::quoted;
use crate::output::style::{Mark, Tone};
use crate::output::table::{Side, Table};
use crate::output::{json, time};
use crate::secret::SecretFile;

/// Lists workers; lets them in, drains them, takes them out.
#[derive(Debug, Args)]
pub(crate) struct Workers {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The tokens that let workers in
    #[command(subcommand)]
    Token(Token),
    /// Gives a worker nothing new
    Drain {
        /// The worker's name or id
        worker: String,
        /// Stop what runs there too; it goes on elsewhere, from its newest checkpoint where the workers share `--outputs`, else
        /// from the start
        #[arg(long)]
        stop_running: bool,
    },
    /// Gives a drained worker work again
    Resume {
        /// The worker's name or id
        worker: String,
    },
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Makes a token; prints its secret, which is told this once
    Create {
        /// What the worker will be called
        name: String,
        /// Write the secret to a file that only you can read, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Lists tokens, without their secrets
    #[command(visible_alias = "ls")]
    List,
    /// Takes a token back: its worker gets nothing more, and what it runs is stopped
    Revoke {
        /// The token's name or id
        token: String,
    },
}

impl Workers {
    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.connect().await?;
        match self.what {
            None => list(context, &client).await,
            Some(What::Token(Token::Create { name, out })) => {
                create(context, &client, name, out).await
            }
            Some(What::Token(Token::List)) => tokens(context, &client).await,
            Some(What::Token(Token::Revoke { token })) => revoke(context, &client, &token).await,
            Some(What::Drain {
                worker,
                stop_running,
            }) => drain(context, &client, &worker, stop_running).await,
            Some(What::Resume { worker }) => resume(context, &client, &worker).await,
        }
    }
}

/// Every worker.
pub(crate) async fn all(client: &Client) -> Result<Vec<Worker>, Failure> {
    let answer = client.ask(|| {
        let mut service = client.workers();
        async move { service.list_workers(timed(ListWorkersRequest {})).await }
    });
    Ok(answer.await?.workers)
}

async fn list(context: &Context, client: &Client) -> Result<(), Failure> {
    let workers = all(client).await?;
    let output = &context.output;
    if output.json {
        return output
            .json(&json!({ "workers": workers.iter().map(json::worker).collect::<Vec<_>>() }));
    }
    if workers.is_empty() {
        output.say("No workers.");
        output.next("stepcast workers token create NAME, then `stepcast worker` on a GPU host");
        return Ok(());
    }
    output.table(&shown::table(&workers))?;
    output.say(shown::summary(&workers));
    Ok(())
}

/// The resource name of a worker that a person names by id or by what it is called.
pub(super) async fn find(client: &Client, named: &str) -> Result<String, Failure> {
    let workers = all(client).await?;
    let matches = |worker: &&Worker| {
        json::id(&worker.name) == json::id(named) || worker.display_name == named
    };
    let found = workers.iter().find(matches);
    found.map(|worker| worker.name.clone()).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no worker {named}"))
            .hint("`stepcast workers` lists them")
    })
}

async fn drain(
    context: &Context,
    client: &Client,
    worker: &str,
    stop_running: bool,
) -> Result<(), Failure> {
    let name = find(client, worker).await?;
    let answer = client.change(|| {
        let request = timed(DrainWorkerRequest {
            name: name.clone(),
            stop_running,
        });
        let mut service = client.workers();
        async move { service.drain_worker(request).await }
    });
    answer.await?;
    done(
        context,
        "draining",
        &name,
        &format!("{worker} gets nothing new"),
        &format!(
            "stepcast workers resume {}    (to give it work again)",
            quoted(worker)
        ),
    )
}

async fn resume(context: &Context, client: &Client, worker: &str) -> Result<(), Failure> {
    let name = find(client, worker).await?;
    let answer = client.change(|| {
        let request = timed(ResumeWorkerRequest { name: name.clone() });
        let mut service = client.workers();
        async move { service.resume_worker(request).await }
    });
    answer.await?;
    done(
        context,
        "resumed",
        &name,
        &format!("{worker} gets work again"),
        "stepcast workers",
    )
}

async fn create(
    context: &Context,
    client: &Client,
    name: String,
    out: Option<PathBuf>,
) -> Result<(), Failure> {
    let kept = SecretFile::create_if(out.as_deref())?;
    // Not asked again by itself: a second token of the same name is refused, and the first one's secret would be lost.
    let answer = client.ask_once(|| {
        let request = timed(CreateWorkerTokenRequest {
            display_name: name.clone(),
        });
        let mut service = client.workers();
        async move { service.create_worker_token(request).await }
    });
    let answer = answer.await?;
    let token = answer.token.unwrap_or_default();
    let output = &context.output;
    if let Some(kept) = kept {
        kept.fill(&answer.secret)?;
    }
    let file = out
        .as_ref()
        .map_or_else(|| "FILE".to_owned(), |path| path.display().to_string());
    if output.json {
        let secret = out.is_none().then_some(&answer.secret);
        return output.json(&json!({ "token": json::token(&token), "secret": secret, "file": out.map(|path| path.display().to_string()) }));
    }
    if out.is_none() {
        output.data(&format!("{}\n", answer.secret))?;
        output.say(format!("The secret of worker {name}'s token, told this once: keep it in a file that only its host can read."));
    } else {
        output.marked(
            Mark::Done,
            Tone::Good,
            format!("token for worker {name} written to {file}"),
        );
    }
    let place = Place::of(context, client).await?;
    output.next(format!(
        "stepcast worker {} --join-token-file {}    (on the GPU host, {})",
        place.options(),
        quoted(&file),
        place.copies()
    ));
    place.tell_if_here_only(output);
    Ok(())
}

async fn tokens(context: &Context, client: &Client) -> Result<(), Failure> {
    let tokens = list_tokens(client).await?;
    let output = &context.output;
    if output.json {
        return output
            .json(&json!({ "tokens": tokens.iter().map(json::token).collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&[
        ("TOKEN", Side::Left),
        ("NAME", Side::Left),
        ("WORKER", Side::Left),
        ("AGE", Side::Right),
    ]);
    for token in &tokens {
        let worker = if token.worker.is_empty() {
            "not used yet"
        } else {
            json::id(&token.worker)
        };
        table.row(vec![
            json::id(&token.name).into(),
            token.display_name.clone().into(),
            worker.into(),
            time::age(token.create_time.as_ref()).into(),
        ]);
    }
    if table.is_empty() {
        output.say("No tokens.");
        output.next("stepcast workers token create NAME");
        return Ok(());
    }
    output.table(&table)
}

async fn list_tokens(client: &Client) -> Result<Vec<stepcast_proto::v1::WorkerToken>, Failure> {
    let answer = client.ask(|| {
        let mut service = client.workers();
        async move {
            service
                .list_worker_tokens(timed(ListWorkerTokensRequest {}))
                .await
        }
    });
    Ok(answer.await?.tokens)
}

async fn revoke(context: &Context, client: &Client, token: &str) -> Result<(), Failure> {
    let tokens = list_tokens(client).await?;
    let found = tokens
        .iter()
        .find(|known| json::id(&known.name) == json::id(token) || known.display_name == token);
    let name = found.map(|known| known.name.clone()).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no token {token}"))
            .hint("`stepcast workers token list` lists them")
    })?;
    let answer = client.remove(|| {
        let request = timed(RevokeWorkerTokenRequest { name: name.clone() });
        let mut service = client.workers();
        async move { service.revoke_worker_token(request).await }
    });
    answer.await?;
    done(
        context,
        "revoked",
        &name,
        &format!("token {token} revoked; its worker gets nothing more"),
        "stepcast workers",
    )
}

fn done(context: &Context, what: &str, name: &str, text: &str, next: &str) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&json!({ "done": what, "name": name }));
    }
    output.marked(Mark::Done, Tone::Good, text);
    output.next(next);
    Ok(())
}
