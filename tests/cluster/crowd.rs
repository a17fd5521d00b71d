//! Everybody who uses a cluster while a test does something to it, and the verdict on what they saw.

use std::sync::Arc;

use stepcast_tests::random::Random;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, PATIENCE};
use crate::contributions;
use crate::history::History;
use crate::people::People;
use crate::verdict::{self, Verdict};
use crate::watchers::Watchers;

/// People who call, and people who watch.
pub(crate) struct Crowd {
    people: Arc<People>,
    watchers: Arc<Watchers>,
    calling: JoinSet<()>,
    watching: JoinSet<()>,
}

impl Crowd {
    /// They begin.
    pub(crate) fn begin(cluster: &Cluster, history: &History, random: &mut Random) -> Self {
        let people = People::new(cluster.servers.clone(), history.clone(), true);
        let watchers = Watchers::new(cluster.servers.clone(), history.clone());
        Self {
            calling: people.begin(random),
            watching: watchers.begin(random),
            people,
            watchers,
        }
    }

    /// They finish what they are at, every job ends, and the cluster is stopped.
    pub(crate) async fn settle(
        self,
        cluster: &mut Cluster,
        history: &History,
        random: &mut Random,
    ) -> Verdict {
        self.people.close();
        self.watchers.close();
        join(self.calling).await;
        cluster.until_even().await;
        let jobs = self.people.await_ends(random).await;
        join(self.watching).await;
        cluster.until_recorded().await;
        cluster.until_even().await;
        let different = cluster.differences().await;
        let rows = cluster
            .command_line(&["sql", "SELECT count(*) FROM training_steps", "--csv"])
            .await;
        let rows: u64 = rows.lines().last().unwrap().parse().unwrap();
        cluster.stop().await;
        let mut verdict = verdict::of(history, &jobs, &cluster.trainers.all());
        verdict.add("nodes that differ", different);
        let ids = contributions::stored_once(&cluster.path("store")).len() as u64;
        let stored =
            (ids != rows).then(|| format!("{ids} contributions are stored as {rows} rows"));
        verdict.add("contributions", stored.into_iter().collect());
        println!("{rows} contributions stored");
        verdict
    }
}

/// Waits until everybody has finished.
pub(crate) async fn join(mut tasks: JoinSet<()>) {
    let all = async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    };
    let ended = tokio::time::timeout(2 * PATIENCE, all).await;
    assert!(ended.is_ok(), "somebody waits for an answer for ever");
}
