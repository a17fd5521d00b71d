//! `stepcast cluster backup|restore`: the cluster's state as a file, and a new cluster from it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use stepcast_proto::v1::{BackupRequest, BackupResponse};
use tonic::{Request, Streaming};

use crate::assembly::{NODE, refused};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::money::{bytes, count, counted};
use crate::output::style::{Mark, Tone};

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
    let mut part = Part::create(file)?;
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
        file.display()
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
        .map_err(|status| client.failure(&status))?
    {
        head.get_or_insert((message.index, message.length));
        received += message.data.len() as u64;
        part.write(&message.data)?;
    }
    match head {
        Some((index, length)) if length == received => Ok((index, length)),
        _ => Err(
            Failure::new(Exit::Unreachable, "the backup ended before it was whole")
                .hint("nothing was kept of it: try again"),
        ),
    }
}

/// A file that is being written, under another name until it is whole; it is removed if it never is.
struct Part {
    path: PathBuf,
    file: File,
    whole: bool,
}

impl Part {
    fn create(file: &Path) -> Result<Self, Failure> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = file.with_file_name(name);
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        match created {
            Ok(file) => Ok(Self {
                path,
                file,
                whole: false,
            }),
            Err(error) => Err(unwritten(&path, &error)),
        }
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(data);
        written.map_err(|error| unwritten(&self.path, &error))
    }

    /// Everything is on disk under its own name when this returns.
    fn finish(mut self, file: &Path) -> Result<(), Failure> {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let done = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, file))
            .and_then(|()| File::open(folder)?.sync_all());
        done.map_err(|error| unwritten(file, &error))?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.whole {
            // What cannot be removed is still named as a part.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::refused(format!("{} cannot be written", path.display())).detail(error.to_string())
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
        }));
    }
    let jobs = restored.jobs as u64;
    output.marked(
        Mark::Done,
        Tone::Good,
        format!(
            "{} is a new cluster of one, n{}, as of entry {} with {}",
            data.display(),
            restored.node_id,
            count(restored.at.index),
            counted(jobs, "job", "jobs")
        ),
    );
    output.say("The nodes of the old cluster must not run any more, or jobs would run twice.");
    output.next(format!("stepcast server --data {}", data.display()));
    Ok(())
}
