//! `stepcast cluster`: where the cluster stands, who belongs to it, and its backups.

mod backup;
mod nodes;
mod status;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::time::parse_span;

/// What can be done with a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Says where every node of the cluster stands
    Status,
    /// Prints a token with which new nodes may join, and the command that does it
    ///
    /// Example: stepcast cluster token --out join.token
    Token(NewToken),
    /// The same, and waits until a new node has joined and votes
    ///
    /// Example: stepcast cluster add --out join.token
    Add {
        #[command(flatten)]
        token: NewToken,
        /// How long to wait for it
        #[arg(long, value_name = "TIME", value_parser = parse_span, default_value = "30m")]
        wait: Duration,
    },
    /// Takes a node out; its data folder is of no use afterwards
    ///
    /// Example: stepcast cluster remove n3
    Remove {
        /// The node, such as n3
        #[arg(value_parser = nodes::parse)]
        node: u64,
    },
    /// Has the nodes share another secret: join tokens, and access tokens of 15 minutes, that were made before are over
    ///
    /// Example: stepcast cluster rotate
    Rotate,
    /// Has another node lead: the one named, or else the one that is furthest
    ///
    /// Example: stepcast cluster transfer n2
    Transfer {
        /// The node, such as n2
        #[arg(value_parser = nodes::parse)]
        node: Option<u64>,
    },
    /// Writes the cluster's state as of now to a file
    ///
    /// Example: stepcast cluster backup stepcast-2026-11-01.snapshot
    Backup {
        /// The file; one that is there is not replaced
        file: PathBuf,
    },
    /// Makes the data folder of a new cluster of one node from a backup; no server is needed
    ///
    /// Example: stepcast cluster restore --data /var/lib/stepcast stepcast-2026-11-01.snapshot
    Restore {
        /// The backup
        file: PathBuf,
        /// The data folder of the server that will run on it; must hold no node
        #[arg(long, value_name = "FOLDER")]
        data: PathBuf,
    },
}

/// How many nodes vote, as the leader says.
pub(crate) async fn voters(client: &Client) -> Result<usize, Failure> {
    let whole = status::view(client).await?.whole;
    Ok(if whole.leading { whole.voters.len() } else { 0 })
}

/// Where people and workers reach the nodes, as far as these say so.
pub(crate) async fn addresses(client: &Client) -> Result<Vec<String>, Failure> {
    let nodes = status::of(client).await?.nodes.into_iter();
    let addresses = nodes.map(|node| node.client_address);
    Ok(addresses.filter(|address| !address.is_empty()).collect())
}

/// The longest that a token may be good for.
const VALID_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A token to be made.
#[derive(Debug, clap::Args)]
pub(crate) struct NewToken {
    /// How long it lets nodes in, at most 7d
    #[arg(long, value_name = "TIME", value_parser = parse_valid, default_value = "1h")]
    valid: Duration,
    /// Write it to this file, readable by nobody else, instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn parse_valid(text: &str) -> Result<Duration, String> {
    let valid = parse_span(text)?;
    if valid.is_zero() || valid > VALID_MAX {
        return Err("a token is good for a second to seven days".to_owned());
    }
    Ok(valid)
}

impl Cluster {
    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Status => status::show(context, &context.connect().await?).await,
            Self::Token(token) => {
                let client = context.connect().await?;
                nodes::token(context, &client, &token).await.map(drop)
            }
            Self::Add { token, wait } => {
                nodes::add(context, &context.connect().await?, &token, wait).await
            }
            Self::Remove { node } => nodes::remove(context, &context.connect().await?, node).await,
            Self::Rotate => nodes::rotate(context, &context.connect().await?).await,
            Self::Transfer { node } => {
                nodes::transfer(context, &context.connect().await?, node).await
            }
            Self::Backup { file } => backup::write(context, &context.connect().await?, &file).await,
            Self::Restore { file, data } => backup::restore(context, &file, &data).await,
        }
    }
}
