//! The stream of a job's watch, opened again where it breaks, at another server where there is one.

use std::time::Duration;

use stepcast_proto::v1::{WatchJobRequest, WatchJobResponse, watch_job_response::Update};
use tokio::time::Instant;
use tonic::{Request, Streaming};

use super::Watcher;
use crate::client::Client;
use crate::command::job::get;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Where nothing was heard of the job for so long, however many servers were asked, the watcher gives up: a server that is
/// started anew is back by then, and so is one of several that can lead.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(30);
/// A stream that was open for so long was worth opening, though nothing has happened to the job meanwhile.
const ALIVE_AFTER: Duration = Duration::from_secs(5);
/// So many in a row are told on a pipe.
const TOLD_AFTER: usize = 4;
/// The pause before it is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// Follows a job until it is over.
pub(super) async fn followed<'output>(
    context: &'output Context,
    client: &Client,
    name: &str,
    logs: bool,
) -> Result<Watcher<'output>, Failure> {
    let mut watcher = Watcher::new(&context.output, name);
    let mut trouble = Trouble::none();
    loop {
        let mut stream = Heard::default();
        let opened = Instant::now();
        let followed = follow(&mut watcher, client, name, logs, &mut stream).await;
        if stream.is_alive(opened.elapsed()) {
            trouble = Trouble::none();
        }
        let failure = match followed {
            Ok(()) if watcher.is_over() => break,
            Ok(()) => None,
            Err(failure) if may_go_on(&failure) => {
                client.go_on(&failure);
                Some(failure)
            }
            Err(failure) => return Err(failure),
        };
        trouble.broke(failure, client.server_count());
        // A server that is started anew is back at once; of one that is not, whoever watches wants to know.
        if let Some(failure) = trouble
            .gone
            .as_ref()
            .filter(|_| trouble.broken == TOLD_AFTER)
        {
            let text = client.gone(failure).primary;
            watcher.live.clear();
            context.output.say(format!("{text}; it is asked again"));
        }
        if trouble.since.elapsed() >= GIVEN_UP_AFTER {
            return Err(match (trouble.told, &trouble.gone) {
                (Some((_, told)), _) => told,
                (None, Some(failure)) => client.gone(failure),
                (None, None) => Failure::new(
                    Exit::Unreachable,
                    "the server ended the watch again and again",
                ),
            });
        }
        // Every server is asked once without a pause.
        if trouble.broken.is_multiple_of(client.server_count()) {
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }
    // The stream ends with the job; what it cost in the end is asked for once more.
    watcher.job = get(client, name).await?;
    Ok(watcher)
}

/// What came of one stream.
#[derive(Debug, Default)]
struct Heard {
    /// The job as it is, with which each stream begins.
    job: bool,
    /// Something that has happened since.
    news: bool,
}

impl Heard {
    /// Whether it was worth opening: one that ends behind the job as it is, again and again, is not, unless it was open for long.
    fn is_alive(&self, open: Duration) -> bool {
        self.news || (self.job && open >= ALIVE_AFTER)
    }
}

/// Streams that break one after the other.
#[derive(Debug)]
struct Trouble {
    /// When the first of them broke.
    since: Instant,
    /// How many have broken.
    broken: usize,
    /// That the last server asked does not answer.
    gone: Option<Failure>,
    /// What a server has said that answers, and how many had broken by then: it tells more than that others are silent.
    told: Option<(usize, Failure)>,
}

impl Trouble {
    fn none() -> Self {
        Self {
            since: Instant::now(),
            broken: 0,
            gone: None,
            told: None,
        }
    }

    /// One more has, with this, where so many servers are asked in turn.
    fn broke(&mut self, failure: Option<Failure>, servers: usize) {
        if self.broken == 0 {
            self.since = Instant::now();
        }
        self.broken += 1;
        self.gone = None;
        match failure {
            Some(failure) if failure.exit == Exit::Unreachable && failure.reason.is_empty() => {
                self.gone = Some(failure);
            }
            // The news is what comes of asking that one.
            Some(failure) if leader(&failure).is_some() => self.told = None,
            Some(failure) => self.told = Some((self.broken, failure)),
            None => {}
        }
        // Who has said that has been asked again since.
        let broken = self.broken;
        self.told.take_if(|(at, _)| broken - *at >= servers);
    }
}

/// Who leads, as a server says that does not.
fn leader(failure: &Failure) -> Option<&str> {
    failure.again.as_ref()?.leader.as_deref()
}

/// Whether the watch can be opened again, here or elsewhere, and go on where it was.
fn may_go_on(failure: &Failure) -> bool {
    failure.exit == Exit::Unreachable || matches!(failure.reason.as_str(), "WATCH_BEHIND" | "BUSY")
}

async fn follow(
    watcher: &mut Watcher<'_>,
    client: &Client,
    name: &str,
    logs: bool,
    heard: &mut Heard,
) -> Result<(), Failure> {
    let request = Request::new(WatchJobRequest {
        name: name.to_owned(),
        logs,
        after_seq: watcher.seq,
    });
    let stream = client
        .jobs()
        .watch_job(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut stream: Streaming<WatchJobResponse> = stream.into_inner();
    while let Some(message) = stream
        .message()
        .await
        .map_err(|status| client.failure(&status))?
    {
        if let Some(update) = message.update {
            match &update {
                Update::Current(_) => heard.job = true,
                // These may be what was there before.
                Update::Log(_) => {}
                Update::Event(_) | Update::Progress(_) => heard.news = true,
            }
            watcher.take(update)?;
        }
        watcher.seq = watcher.seq.max(message.seq);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Again;

    fn silent() -> Option<Failure> {
        Some(Failure::new(Exit::Unreachable, "silent"))
    }

    fn says(words: &str, leader: Option<&str>) -> Option<Failure> {
        let again = Again {
            after: None,
            leader: leader.map(str::to_owned),
        };
        let mut failure = Failure::new(Exit::Unreachable, words);
        failure.reason = "NOT_LEADER".to_owned();
        failure.again = Some(Box::new(again));
        Some(failure)
    }

    #[test]
    fn what_one_of_several_servers_says_is_told_before_that_others_are_silent() {
        let mut trouble = Trouble::none();
        trouble.broke(says("no node leads at the moment", None), 3);
        trouble.broke(silent(), 3);
        trouble.broke(silent(), 3);
        let told = trouble.told.as_ref().map(|(_, told)| told.primary.as_str());
        assert_eq!(told, Some("no node leads at the moment"));
        assert!(trouble.gone.is_some());
        // It was its turn, and it is silent as well.
        trouble.broke(silent(), 3);
        assert_eq!(trouble.told, None);
        trouble.broke(says("no node leads at the moment", None), 3);
        trouble.broke(says("n3 leads", Some("http://n3")), 3);
        assert_eq!(trouble.told, None);
    }

    #[test]
    fn a_stream_with_news_or_that_was_open_for_long_begins_the_count_anew() {
        let heard = |job, news| Heard { job, news };
        assert!(heard(true, true).is_alive(Duration::ZERO));
        assert!(heard(true, false).is_alive(ALIVE_AFTER));
        assert!(!heard(true, false).is_alive(REOPEN_AFTER));
        assert!(!heard(false, false).is_alive(GIVEN_UP_AFTER));
    }
}
