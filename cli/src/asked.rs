//! How often this process was asked to end: once lets it do so in good order, a second time ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Exit, Failure};

/// Counts how often this process is asked to end: by Ctrl-C, by SIGTERM, or because its parent has closed its stdin, which
/// counts as the first time only.
#[derive(Debug, Clone)]
pub(crate) struct Asked(watch::Receiver<u32>);

impl Asked {
    /// Counts from now on: until then the system ends the process by itself.
    pub(crate) fn listen(with_parent: bool) -> Self {
        let (times, asked) = watch::channel(0);
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            // Here and not in the task: what comes from now on counts.
            let Ok(mut signal) = signal(kind) else {
                continue;
            };
            let times = times.clone();
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    times.send_modify(|times| *times += 1);
                }
            });
        }
        if with_parent {
            // A thread of its own: reading stdin cannot be cancelled, and must not keep the runtime.
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                times.send_modify(|times| *times = 1.max(*times));
            });
        }
        Self(asked)
    }

    /// Waits until it was asked so often.
    pub(crate) async fn times(&self, often: u32) {
        let mut asked = self.0.clone();
        if asked.wait_for(|times| *times >= often).await.is_err() {
            // Nobody is left who could ask.
            std::future::pending().await
        }
    }

    /// Does what ends in good order once it is asked to, and says how it was ended where it is asked again meanwhile.
    pub(crate) async fn or_at_once<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            () = self.times(2) => Err(Failure::new(
                Exit::Interrupted,
                "asked to end a second time, so it ends at once; what was acknowledged is on its disk",
            )),
        }
    }
}
