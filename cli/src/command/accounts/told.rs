//! How a new token is told: to a file or on stdout, and what whoever it is for does with it, where they are.

use std::path::PathBuf;

use serde_json::json;

use crate::client::Client;
use crate::command::place::Place;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::shell::quoted;
use crate::output::style::{Mark, Tone};
use crate::secret::SecretFile;

/// Where a secret will be kept: on stdout, or in a file that is there before the secret is.
pub(super) struct Kept(Option<(PathBuf, SecretFile)>);

impl Kept {
    pub(super) fn create(out: Option<PathBuf>) -> Result<Self, Failure> {
        let made = out.map(|path| SecretFile::create(&path).map(|file| (path, file)));
        made.transpose().map(Self)
    }
}

/// Whom a token is for.
pub(super) enum Holder<'a> {
    /// Who calls, the first operator.
    First,
    /// Who calls.
    Oneself,
    /// Somebody else, by the name that the caller knows them by.
    Other(&'a str),
}

/// Tells a secret: into a file, or on stdout by itself; with the name of what was made and what to say of it.
pub(super) async fn told(
    context: &Context,
    client: &Client,
    (name, text, secret): (&str, &str, &str),
    kept: Kept,
    holder: Holder<'_>,
) -> Result<(), Failure> {
    let output = &context.output;
    let out = match kept.0 {
        Some((path, file)) => {
            file.fill(secret)?;
            Some(path)
        }
        None => None,
    };
    if output.json {
        let secret = if out.is_some() { None } else { Some(secret) };
        return output.json(&json!({"name": name, "secret": secret}));
    }
    output.marked(Mark::Done, Tone::Good, text);
    if out.is_none() {
        output.data(&format!("{secret}\n"))?;
        output.say("The token, told this once: keep it in a file that only its holder can read.");
    }
    let file = out.map_or_else(|| "FILE".to_owned(), |path| path.display().to_string());
    let file = quoted(&file);
    match holder {
        Holder::First => output.next(format!(
            "stepcast --access-token-file {file} org create NAME    (the file goes with every call from now on)"
        )),
        Holder::Oneself => output.next(format!("stepcast --access-token-file {file} jobs")),
        Holder::Other(who) => {
            let place = Place::of(context, client).await?;
            output.next(format!(
                "stepcast {} --access-token-file {file} jobs    (where {who} is, {})",
                place.options(),
                place.copies()
            ));
            place.tell_if_here_only(output);
        }
    }
    Ok(())
}
