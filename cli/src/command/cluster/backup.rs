//! `stepcast cluster backup|restore`: the cluster's state as a file, and a new cluster from it.

use std::path::Path;

use serde_json::json;
use stepcast_proto::v1::{BackupRequest, BackupResponse};
use tonic::{Request, Streaming};

use crate::assembly::{NODE, refused};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::money::{bytes, count, counted};
use crate::output::shell::quoted;
use crate::output::style::{Mark, Tone};
use crate::part::Part;

/// Writes a backup. The file is there whole or not at all.
pub(super) async fn write(context: &Context, client: &Client, file: &Path) -> Result<(), Failure> {
    if file.exists() {
        return Err(
            Failure::refused(format!("{} is there already", file.display()))
                .hint("a backup never replaces another: choose another name"),
        );
    }
    let stream = client.open(|| {
        let mut service = client.cluster();
        async move { service.backup(Request::new(BackupRequest {})).await }
    });
    let stream = stream.await?;
    let mut part = Part::create_private(file)?;
    let outcome = receive(client, stream, &mut part).await;
    let (index, length) = match outcome {
        Ok(done) => done,
        Err(failure) => return Err(failure),
    };
    part.finish(file)?;
    let output = &context.output;
    if output.json {
        return output.json(&json!({
            "file": file.display().to_string(),
            "index": index,
            "bytes": length,
        }));
    }
    output.marked(
        Mark::Done,
        Tone::Good,
        format!(
            "the state as of entry {} is in {} ({})",
            count(index),
            file.display(),
            bytes(length)
        ),
    );
    output.say("The benchmark tables and the files of jobs that are not over lie in --store and --staging, and are not in it.");
    output.next(format!(
        "on the day it is needed: stepcast cluster restore --data FOLDER {}",
        quoted(&file.to_string_lossy())
    ));
    Ok(())
}

async fn receive(
    client: &Client,
    mut stream: Streaming<BackupResponse>,
    part: &mut Part,
) -> Result<(u64, u64), Failure> {
    let (mut head, mut received) = (None, 0);
    while let Some(message) = stream
        .message()
        .await
        .map_err(|status| torn(client.failure(&status)))?
    {
        head.get_or_insert((message.index, message.length));
        received += message.data.len() as u64;
        part.write(&message.data)?;
    }
    match head {
        Some((index, length)) if length == received => Ok((index, length)),
        _ => Err(torn(Failure::new(
            Exit::Unreachable,
            "the backup ended before it was whole",
        ))),
    }
}

/// Says of a backup that ended early what to do, where nothing else is said.
fn torn(mut failure: Failure) -> Failure {
    if failure.exit == Exit::Unreachable {
        let again = "nothing was kept of it: try again, at another server if this one has gone";
        failure.hint.get_or_insert_with(|| again.to_owned());
    }
    failure
}

/// Makes a data folder from a backup.
pub(super) async fn restore(context: &Context, file: &Path, data: &Path) -> Result<(), Failure> {
    let (from, node) = (file.to_owned(), data.join(NODE));
    // Reads and checks the whole file, which blocks.
    let restored =
        tokio::task::spawn_blocking(move || stepcast_cluster::restore_into(&node, &from)).await;
    let restored = restored.map_err(|error| Failure::refused(error.to_string()))?;
    let restored = restored
        .map_err(|error| refused(&format!("{} is not restored", file.display()), &error))?;
    let output = &context.output;
    if output.json {
        return output.json(&json!({
            "node_id": restored.node_id,
            "cluster_id": format!("{:016x}", restored.cluster_id),
            "index": restored.at.index,
            "jobs": restored.jobs,
            "jobs_not_over": restored.unfinished,
        }));
    }
    let (jobs, open) = (restored.jobs as u64, restored.unfinished as u64);
    output.marked(
        Mark::Done,
        Tone::Good,
        format!(
            "{} is a new cluster of one, n{}, as of entry {} with {}, {} of them not over",
            data.display(),
            restored.node_id,
            count(restored.at.index),
            counted(jobs, "job", "jobs"),
            count(open)
        ),
    );
    output.say("The nodes of the old cluster must not run any more, or jobs would run twice.");
    output.say(
        "A backup has neither the benchmark tables nor the files of jobs: give it the --store and the --staging of the old \
         cluster. Where that had none, they are `records` and `staging` in its data folder.",
    );
    output.say(
        "Before the first start delete the file or object `cluster` in the staging area: that hands it over. Without the \
         files in it the jobs that are not over fail.",
    );
    // They are hashed with a key that no backup holds.
    output.say(
        "The tokens of people are not valid in it: start it with --access-token-file once, and make them new ones by \
         `stepcast token create NAME`. Those of workers are.",
    );
    output.say(
        "Jobs that were submitted after the backup are not known to it: submit them again. What workers have made for them \
         stays in their folders of results, for 72 hours after they are back unless --outputs-kept says another time.",
    );
    output.next(format!(
        "stepcast server --data {} --store LOCATION --staging LOCATION --access-token-file FILE",
        quoted(&data.to_string_lossy())
    ));
    Ok(())
}
