//! People who watch jobs from beginning to end, across every server that goes away in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stepcast_proto::v1;
use stepcast_proto::v1::watch_job_response::Update;
use stepcast_tests::random::Random;
use stepcast_tests::watches::Told;
use tokio::task::JoinSet;

use crate::caller::{Servers, Trouble};
use crate::history::{History, stand};

/// Jobs watched at one time, each by two.
const WATCHED: usize = 6;

/// Between two looks for something to watch, and between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// A stream that tells nothing for so long is left for another server, as a person would.
const SILENCE: Duration = Duration::from_secs(8);

/// Those who watch.
#[derive(Debug)]
pub(crate) struct Watchers {
    servers: Servers,
    history: History,
    closing: AtomicBool,
}

impl Watchers {
    pub(crate) fn new(servers: Servers, history: History) -> Arc<Self> {
        Arc::new(Self {
            servers,
            history,
            closing: AtomicBool::new(false),
        })
    }

    /// Starts them all.
    pub(crate) fn begin(self: &Arc<Self>, random: &mut Random) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..WATCHED {
            tasks.spawn(Arc::clone(self).watch_some(random.fork()));
        }
        tasks
    }

    /// They end with the jobs that they watch now.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    async fn watch_some(self: Arc<Self>, mut random: Random) {
        while !self.closing.load(Ordering::Acquire) {
            let newest = {
                let seen = self.history.seen();
                let newest = seen.wishes.values().rev().take(2 * WATCHED);
                newest
                    .filter_map(|wish| wish.acknowledged.clone())
                    .map(|(_, name)| name)
                    .filter(|name| !seen.watches.contains_key(name))
                    .collect::<Vec<_>>()
            };
            if newest.is_empty() {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let name = random.pick(&newest).clone();
            let (mut one, mut other) = (random.fork(), random.fork());
            let told = tokio::join!(self.watch(&name, &mut one), self.watch(&name, &mut other));
            let mut seen = self.history.seen();
            seen.watches
                .entry(name)
                .or_default()
                .extend([told.0, told.1]);
        }
    }

    /// Watches to the end of the job, on one server after the other.
    async fn watch(&self, name: &str, random: &mut Random) -> Vec<Told> {
        let mut told = Vec::new();
        loop {
            told.push(Told::Opened);
            let mut server = self.servers.any(random.within(0..u64::MAX));
            let request = v1::WatchJobRequest {
                name: name.to_owned(),
                logs: false,
                after_seq: last(&told),
            };
            match self
                .servers
                .ask("watch", server.jobs.watch_job(request))
                .await
            {
                Ok(mut stream) => {
                    while let Some(update) = self.next(&mut stream).await {
                        told.extend(update);
                        if told.last() == Some(&Told::Ended) {
                            return told;
                        }
                    }
                }
                Err(Trouble::NotDone | Trouble::Unknown) => {}
                Err(Trouble::Refused(reason)) => {
                    self.history
                        .wrong(format!("{name} cannot be watched: {reason}"));
                    return told;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the stream tells next, if it is meant for the checker; nothing when the stream broke.
    async fn next(
        &self,
        stream: &mut tonic::Streaming<v1::WatchJobResponse>,
    ) -> Option<Option<Told>> {
        let Ok(message) = tokio::time::timeout(SILENCE, stream.message()).await else {
            return None;
        };
        let update = match message {
            Ok(Some(message)) => message.update?,
            Ok(None) => return Some(Some(Told::Ended)),
            Err(status) => {
                self.servers.trouble("watch", &status);
                return None;
            }
        };
        Some(match update {
            Update::Current(job) => {
                let (seq, stand) = self.history.standing(&job)?;
                Some(Told::Current { seq, stand })
            }
            Update::Event(event) => {
                self.history.answered("event");
                Some(Told::Event {
                    seq: event.seq,
                    stand: stand(event.state())?,
                    // The same for everybody: who is asked in the meantime may have another name for a worker, or none.
                    what: format!(
                        "{} attempt {} epoch {} {} step {} {}",
                        event.kind,
                        event.attempt,
                        event.epoch,
                        event.worker,
                        event.step,
                        event.reason
                    ),
                })
            }
            Update::Progress(_) | Update::Log(_) => None,
        })
    }
}

/// The newest event that a watcher knows.
fn last(told: &[Told]) -> u64 {
    let newest = told.iter().rev().find_map(|told| match told {
        Told::Current { seq, .. } | Told::Event { seq, .. } => Some(*seq),
        Told::Opened | Told::Ended => None,
    });
    newest.unwrap_or(0)
}
