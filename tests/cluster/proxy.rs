//! A network that can be spoilt while it is used: a TCP proxy before each port, with settings for each direction of each
//! link.
//!
//! A direction is from whoever sends bytes to whoever gets them, whoever opened the connection. A connection's opener is
//! known by its process, which the kernel tells of local sockets. Nothing is ever dropped from the middle of a stream,
//! as TCP would not: a lost piece comes late, and a cut holds everything back until it is healed or the connection reset.

mod link;
mod pump;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};

pub(crate) use self::link::Link;
use self::source::Sources;
use crate::random::SharedRandom;

/// Resets that a slow task may lag behind; one is enough to end it.
const RESETS: usize = 16;

/// Somebody who sends bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// A node, by its number in the test.
    Node(usize),
    /// A worker, by its number in the test.
    Worker(usize),
    /// The callers, who are this process.
    People,
}

/// All proxies and all links of one test.
#[derive(Debug)]
pub(crate) struct Network {
    links: Mutex<BTreeMap<(Party, Party), watch::Sender<Link>>>,
    resets: broadcast::Sender<(Party, Party)>,
    sources: Sources,
    random: SharedRandom,
}

impl Network {
    pub(crate) fn new(random: SharedRandom) -> Arc<Self> {
        Arc::new(Self {
            links: Mutex::default(),
            resets: broadcast::channel(RESETS).0,
            sources: Sources::default(),
            random,
        })
    }

    /// Says which process somebody is from now on.
    pub(crate) fn is_process(&self, party: Party, pid: u32) {
        self.sources.insert(party, pid);
    }

    /// Opens a proxy before `port` of `to`; gives its address.
    pub(crate) async fn before(self: &Arc<Self>, to: Party, port: u16) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = SocketAddr::from(([127, 0, 0, 1], port));
        tokio::spawn(Arc::clone(self).serve(listener, to, upstream));
        address
    }

    /// Changes one direction.
    pub(crate) fn set(&self, from: Party, to: Party, link: Link) {
        self.link(from, to, |sender| {
            sender.send_replace(link);
        });
    }

    /// Makes every direction good again.
    pub(crate) fn heal(&self) {
        for sender in self.links.lock().unwrap().values() {
            sender.send_replace(Link::default());
        }
    }

    /// Resets every connection between two.
    pub(crate) fn reset(&self, one: Party, other: Party) {
        // Nobody listens when there is no connection.
        let _ = self.resets.send((one, other));
    }

    fn link<T>(&self, from: Party, to: Party, then: impl FnOnce(&watch::Sender<Link>) -> T) -> T {
        let mut links = self.links.lock().unwrap();
        then(
            links
                .entry((from, to))
                .or_insert_with(|| watch::channel(Link::default()).0),
        )
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, to: Party, upstream: SocketAddr) {
        while let Ok((opener, peer)) = listener.accept().await {
            let here = listener.local_addr().unwrap();
            let network = Arc::clone(&self);
            tokio::spawn(async move {
                // A connection whose opener has gone in the meantime carries nothing.
                if let Some(from) = network.sources.of(peer, here).await {
                    network.carry(opener, from, to, upstream).await;
                }
            });
        }
    }

    async fn carry(&self, mut opener: TcpStream, from: Party, to: Party, upstream: SocketAddr) {
        let mut resets = self.resets.subscribe();
        let out = self.link(from, to, watch::Sender::subscribe);
        let back = self.link(to, from, watch::Sender::subscribe);
        let Ok(mut server) = TcpStream::connect(upstream).await else {
            return abort(&opener);
        };
        for stream in [&opener, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let both_ways = {
            let (opener_reads, opener_writes) = opener.split();
            let (server_reads, server_writes) = server.split();
            let both = async {
                tokio::try_join!(
                    pump::run(opener_reads, server_writes, out, &self.random),
                    pump::run(server_reads, opener_writes, back, &self.random),
                )
            };
            tokio::select! {
                () = until_reset(&mut resets, from, to) => false,
                both = both => both.is_ok(),
            }
        };
        if !both_ways {
            abort(&opener);
            abort(&server);
        }
    }
}

async fn until_reset(resets: &mut broadcast::Receiver<(Party, Party)>, from: Party, to: Party) {
    // Having missed some is as good a reason as having heard one.
    while let Ok((one, other)) = resets.recv().await {
        if (one, other) == (from, to) || (one, other) == (to, from) {
            return;
        }
    }
}

/// Has the connection end with a reset when it is dropped.
fn abort(stream: &TcpStream) {
    // It may be gone by itself.
    let _ = stream.set_zero_linger();
}
