//! The servers that `stepcast dev` runs: one alone, or a cluster whose nodes join as an operator would have them join.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stepcast_proto::v1::CreateJoinTokenRequest;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::arguments;
use crate::assembly::NODE;
use crate::child::{Child, Log};
use crate::client::{Address, Client, timed};
use crate::command::cluster::voters;
use crate::failure::Failure;
use crate::secret::SecretFile;

/// What the nodes are called on the screen. Five is as many as a cluster gains from.
pub(super) const NAMES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

/// Between the ports of two nodes, so that each has the one after its own for the others.
const PORTS_APART: u16 = 10;

/// All nodes vote by then: joining takes a second, a busy machine some more.
const VOTES_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked whether they do.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The running servers.
pub(super) struct Nodes {
    running: JoinSet<Option<Failure>>,
    stop: watch::Sender<bool>,
    addresses: Vec<String>,
}

impl Nodes {
    /// Starts so many servers on a folder, and waits until all of them vote.
    pub(super) async fn start(data: &Path, listen: &str, count: u8) -> Result<Self, Failure> {
        let mut nodes = Self {
            running: JoinSet::new(),
            stop: watch::Sender::new(false),
            addresses: Vec::new(),
        };
        if count == 1 {
            let words = arguments(
                &["server", "--data"],
                &[
                    data.join("server").as_os_str(),
                    "--listen".as_ref(),
                    listens(listen, 0)?.as_ref(),
                ],
            );
            nodes.add("server", &words).await?;
            return Ok(nodes);
        }
        // Every node is told the same places, whatever folder it is started from.
        let data = std::path::absolute(data).map_err(|error| {
            Failure::refused(format!("{} cannot be used", data.display())).detail(error.to_string())
        })?;
        let (known, new) = known_first(&data, count);
        // Those of an earlier start lead together, before anybody else is let in.
        for (number, name) in known {
            let words = node(&data, name, &listens(listen, number)?, None);
            nodes.add(name, &words).await?;
        }
        if !new.is_empty() {
            let token = join_token(&nodes.client().await?, &data).await?;
            for (number, name) in new {
                let words = node(&data, name, &listens(listen, number)?, Some(&token));
                nodes.add(name, &words).await?;
            }
        }
        nodes.all_vote(usize::from(count)).await?;
        Ok(nodes)
    }

    async fn add(&mut self, name: &'static str, words: &[OsString]) -> Result<(), Failure> {
        let (mut server, address) = Child::start_server(name, words, Log::Shown).await?;
        self.addresses.push(address);
        let mut stop = self.stop.subscribe();
        self.running.spawn(async move {
            let asked = async {
                // Without its sender everything ends as well.
                let _ = stop.wait_for(|stop| *stop).await;
            };
            let by_itself = tokio::select! {
                () = server.wait() => true,
                () = asked => false,
            };
            if by_itself {
                return Some(server.failed().await);
            }
            server.stop().await;
            None
        });
        Ok(())
    }

    /// All addresses, as `--server` takes them.
    pub(super) fn addresses(&self) -> String {
        self.addresses.join(",")
    }

    /// A client of all of them.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        Client::connect(&Address {
            server: self.addresses(),
            ..Address::default()
        })
        .await
    }

    async fn all_vote(&self, count: usize) -> Result<(), Failure> {
        let client = self.client().await?;
        let until = Instant::now() + VOTES_WITHIN;
        while voters(&client).await? < count {
            if Instant::now() >= until {
                return Err(Failure::refused(format!(
                    "not all of the {count} nodes vote after {} seconds",
                    VOTES_WITHIN.as_secs()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits for the next server that ends by itself; how many are left, and what it has said last.
    pub(super) async fn ended(&mut self) -> (usize, Failure) {
        match self.running.join_next().await {
            Some(Ok(Some(failure))) => (self.running.len(), failure),
            // Nobody was asked to end, and nothing in there panics.
            _ => (
                self.running.len(),
                Failure::refused("a server ended by itself"),
            ),
        }
    }

    /// Ends all of them.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.running.join_next().await.is_some() {}
    }
}

/// A node's number and name.
type Numbered = (u8, &'static str);

/// The nodes that belong to the cluster in this folder already, or the one that founds it; and those that are to join it.
fn known_first(data: &Path, count: u8) -> (Vec<Numbered>, Vec<Numbered>) {
    let all = (0..count).zip(NAMES);
    let (mut known, mut new): (Vec<_>, Vec<_>) =
        all.partition(|(_, name)| stepcast_cluster::is_node(&data.join(name).join(NODE)));
    if known.is_empty() {
        known.extend(new.drain(..1));
    }
    (known, new)
}

/// Where the node of this number listens.
fn listens(first: &str, number: u8) -> Result<String, Failure> {
    let wrong = || {
        Failure::usage(format!("listen `{first}` cannot be used"))
            .detail("write an address and a port, such as 127.0.0.1:7070")
    };
    let mut address: SocketAddr = first.parse().map_err(|_bad| wrong())?;
    if address.port() != 0 {
        let port = address.port().checked_add(u16::from(number) * PORTS_APART);
        address.set_port(port.ok_or_else(wrong)?);
    }
    Ok(address.to_string())
}

/// The arguments of one node of several.
fn node(data: &Path, name: &str, listen: &str, join: Option<&(PathBuf, String)>) -> Vec<OsString> {
    let (folder, store, staging) = (data.join(name), data.join("records"), data.join("staging"));
    let mut words = arguments(
        &["server", "--listen", listen, "--data"],
        &[
            folder.as_os_str(),
            "--store".as_ref(),
            store.as_os_str(),
            "--staging".as_ref(),
            staging.as_os_str(),
        ],
    );
    if let Some((file, through)) = join {
        words.extend(arguments(
            &["--join", through, "--join-token-file"],
            &[file.as_os_str()],
        ));
    }
    words
}

/// A new join token in a file, and where to join with it.
async fn join_token(client: &Client, data: &Path) -> Result<(PathBuf, String), Failure> {
    let file = data.join("join.token");
    // That of an earlier start is of no use any more.
    let _ = std::fs::remove_file(&file);
    let kept = SecretFile::create(&file)?;
    let answer = client.ask(|| {
        let request = timed(CreateJoinTokenRequest { valid_seconds: 0 });
        let mut service = client.cluster();
        async move { service.create_join_token(request).await }
    });
    let answer = answer.await?;
    kept.fill(&answer.token)?;
    Ok((file, answer.peer_address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_room_for_its_own_ports() {
        let at = |number| listens("127.0.0.1:7070", number).expect("an address");
        assert_eq!(at(0), "127.0.0.1:7070");
        assert_eq!(at(2), "127.0.0.1:7090");
        assert_eq!(listens("127.0.0.1:0", 4).expect("any"), "127.0.0.1:0");
        assert!(listens("127.0.0.1:65530", 1).is_err());
        assert!(listens("7070", 0).is_err());
    }
}
