//! `stepcast cluster token|add|remove|rotate|transfer`: who belongs to the cluster, and who leads it.

use std::time::Duration;

use serde_json::json;
use stepcast_proto::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, GetClusterStatusResponse, RemoveNodeRequest,
    RotateSecretRequest, TransferLeadershipRequest,
};
use tokio::time::Instant;

use super::{NewToken, status};
use crate::client::{CHANGE_DEADLINE, Client, timed, timed_within};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::shell::quoted;
use crate::output::style::{Mark, Tone};
use crate::output::time;
use crate::secret::SecretFile;

/// How often it is looked whether a node has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A node's number, with or without the letter before it.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix('n').unwrap_or(text).parse();
    number.ok().filter(|id| *id > 0).ok_or_else(|| {
        "a node is called such as n3; `stepcast cluster status` lists them".to_owned()
    })
}

/// Makes a token and says how to join with it.
pub(super) async fn token(
    context: &Context,
    client: &Client,
    wanted: &NewToken,
) -> Result<CreateJoinTokenResponse, Failure> {
    let kept = SecretFile::create_if(wanted.out.as_deref())?;
    let valid_seconds = u32::try_from(wanted.valid.as_secs()).unwrap_or(u32::MAX);
    let answer = client.ask(|| {
        let request = timed(CreateJoinTokenRequest { valid_seconds });
        let mut service = client.cluster();
        async move { service.create_join_token(request).await }
    });
    let answer = answer.await?;
    if let Some(kept) = kept {
        kept.fill(&answer.token)?;
    }
    let file = wanted
        .out
        .as_ref()
        .map_or_else(|| "FILE".to_owned(), |path| path.display().to_string());
    let output = &context.output;
    let command = command(&answer, &file);
    if output.json {
        let token = wanted.out.is_none().then_some(&answer.token);
        output.json(&json!({
            "token": token,
            "file": wanted.out.as_ref().map(|path| path.display().to_string()),
            "valid_seconds": valid_seconds,
            "peer_address": answer.peer_address,
            "store": answer.store,
            "staging": answer.staging,
            "command": command,
        }))?;
        return Ok(answer);
    }
    if wanted.out.is_none() {
        output.data(&format!("{}\n", answer.token))?;
    }
    output.say(format!(
        "Who has this token can join the cluster within {}: keep it in a file that only its host can read.",
        time::rough_span(wanted.valid.as_secs_f64())
    ));
    if answer.store.is_empty() || answer.staging.is_empty() {
        output.marked(
            Mark::Look,
            Tone::Warn,
            "this cluster keeps its tables or the files of jobs in a folder of one node: restart its nodes with --store and \
             --staging that every node reaches, or new ones are refused",
        );
    }
    output.next(format!("on the new host: {command}"));
    Ok(answer)
}

/// What to run on the new host.
fn command(answer: &CreateJoinTokenResponse, file: &str) -> String {
    let place = |location: &str, instead: &str| match location {
        "" => instead.to_owned(),
        location => quoted(location),
    };
    format!(
        "stepcast server --join {} --join-token-file {} --data /var/lib/stepcast --store {} --staging {} --listen \
         HOST:7070 --peer-listen HOST:7071",
        answer.peer_address,
        quoted(file),
        place(&answer.store, "LOCATION"),
        place(&answer.staging, "LOCATION"),
    )
}

/// Makes a token, and waits until a node has joined with it and votes.
pub(super) async fn add(
    context: &Context,
    client: &Client,
    wanted: &NewToken,
    wait: Duration,
) -> Result<(), Failure> {
    let before = newest(&status::view(client).await?.whole);
    let generation = token(context, client, wanted).await?.generation;
    let (output, until) = (&context.output, Instant::now() + wait);
    let mut come = None;
    loop {
        let whole = status::view(client).await.map(|view| view.whole);
        let new = whole.as_ref().ok().and_then(|whole| {
            let new = whole.nodes.iter().find(|node| node.node_id > before);
            new.cloned()
        });
        if let Some(node) = new {
            if come.is_none() {
                output.say(format!(
                    "n{} has joined from {} and catches up",
                    node.node_id, node.peer_address
                ));
                come = Some(node.node_id);
            }
            if node.role == "VOTER" {
                if output.json {
                    return output.json(&json!({ "done": "added", "node_id": node.node_id }));
                }
                output.marked(Mark::Done, Tone::Good, format!("n{} votes", node.node_id));
                output.next("stepcast cluster status");
                return Ok(());
            }
        }
        if come.is_none() && whole.is_ok_and(|whole| whole.generation > generation) {
            return Err(Failure::refused("the join token is over: a node was removed meanwhile, or the cluster's secret renewed")
                .hint("make another one with `stepcast cluster add`"));
        }
        if Instant::now() >= until {
            let waited = time::rough_span(wait.as_secs_f64());
            return Err(match come {
                Some(id) => Failure::refused(format!("n{id} does not vote after {waited}"))
                    .hint("`stepcast cluster status` says how far it is behind; it is given its vote once it has caught up"),
                None => Failure::refused(format!("no node has joined within {waited}"))
                    .hint("its own log says why; the token stays good for its time, or until a node is removed"),
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The greatest id that was ever seen.
fn newest(whole: &GetClusterStatusResponse) -> u64 {
    let ids = whole.nodes.iter().map(|node| node.node_id);
    ids.max().unwrap_or(whole.node_id)
}

/// Takes a node out.
pub(super) async fn remove(context: &Context, client: &Client, node: u64) -> Result<(), Failure> {
    let answer = client.ask_once_within(CHANGE_DEADLINE, || {
        let request = timed_within(CHANGE_DEADLINE, RemoveNodeRequest { node_id: node });
        let mut service = client.cluster();
        async move { service.remove_node(request).await }
    });
    answer.await.map_err(|failure| looked_at(failure, node))?;
    let output = &context.output;
    if output.json {
        return output.json(&json!({ "done": "removed", "node_id": node }));
    }
    output.marked(
        Mark::Done,
        Tone::Good,
        format!("n{node} is out of the cluster; its data folder can be deleted"),
    );
    output.next("stepcast cluster status");
    Ok(())
}

/// Has the nodes share another secret.
pub(super) async fn rotate(context: &Context, client: &Client) -> Result<(), Failure> {
    let answer = client.ask_once_within(CHANGE_DEADLINE, || {
        let request = timed_within(CHANGE_DEADLINE, RotateSecretRequest {});
        let mut service = client.cluster();
        async move { service.rotate_secret(request).await }
    });
    answer.await?;
    let output = &context.output;
    if output.json {
        return output.json(&json!({ "done": "rotated" }));
    }
    output.marked(
        Mark::Done,
        Tone::Good,
        "the nodes share another secret; join tokens and access tokens of 15 minutes from before are over",
    );
    Ok(())
}

/// Has another node lead.
pub(super) async fn transfer(
    context: &Context,
    client: &Client,
    node: Option<u64>,
) -> Result<(), Failure> {
    let answer = client.ask_once_within(CHANGE_DEADLINE, || {
        let request = TransferLeadershipRequest {
            node_id: node.unwrap_or(0),
        };
        let request = timed_within(CHANGE_DEADLINE, request);
        let mut service = client.cluster();
        async move { service.transfer_leadership(request).await }
    });
    let answer = answer.await;
    let leader = answer
        .map_err(|failure| looked_at(failure, node.unwrap_or(0)))?
        .leader_id;
    let output = &context.output;
    if output.json {
        return output.json(&json!({ "done": "transferred", "leader_id": leader }));
    }
    output.marked(Mark::Done, Tone::Good, format!("n{leader} leads"));
    Ok(())
}

/// A change has no request id: whether it came about is to be looked at.
fn looked_at(mut failure: Failure, _node: u64) -> Failure {
    let in_doubt = failure.exit == Exit::Unreachable && failure.reason.is_empty();
    if in_doubt || failure.exit == Exit::Unknown {
        failure.exit = Exit::Unknown;
        failure.hint = Some("`stepcast cluster status` shows whether it came about".to_owned());
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_with_or_without_its_letter() {
        assert_eq!(parse("n3"), Ok(3));
        assert_eq!(parse("12"), Ok(12));
        for wrong in ["n0", "", "n", "node3", "-1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_is_fit_for_a_shell() {
        let answer = CreateJoinTokenResponse {
            peer_address: "a:7071".to_owned(),
            store: "s3://tables/x".to_owned(),
            staging: "/srv/job files".to_owned(),
            ..CreateJoinTokenResponse::default()
        };
        let command = command(&answer, "join.token");
        assert!(
            command.contains("--join a:7071 --join-token-file join.token")
                && command.contains("--store s3://tables/x --staging '/srv/job files'"),
            "{command}"
        );
    }
}
