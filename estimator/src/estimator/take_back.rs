//! Taking back what should never have come into the tables, and the versions from which one sees what came when.

use std::collections::HashSet;
use std::time::SystemTime;

use super::Estimator;
use crate::error::Error;
use crate::import;
use crate::table::{How, Kind, Span, Table, TakenBack, Version};

/// So many versions of a table are listed at most.
pub const VERSIONS_MAX: usize = 1_000;

impl Estimator {
    /// The newest versions of a table, at most so many and [`VERSIONS_MAX`], the newest first.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the store does not answer.
    pub async fn versions(&self, kind: Kind, newest: usize) -> Result<Vec<Version>, Error> {
        let table = &self.shared.tables[kind as usize];
        let seen = table.versions_with_ids(newest.min(VERSIONS_MAX)).await?;
        let Some((oldest, _)) = seen.last() else {
            return Ok(Vec::new());
        };
        let ids: HashSet<[u8; 16]> = seen
            .iter()
            .flat_map(|(_, ids)| ids.keys().copied())
            .collect();
        // An import is noted once its rows are stored.
        let sources = import::sources_of(self.prefixed(), oldest.at, &ids).await?;
        let versions = seen.into_iter().map(|(mut version, ids)| {
            if let How::Stored { source, .. } = &mut version.how {
                *source = ids.keys().find_map(|id| sources.get(id).cloned());
            }
            version
        });
        Ok(versions.collect())
    }

    /// The versions of a table that were written from one moment on, and until another if there is one, by the store's
    /// clock; nothing where there are none.
    ///
    /// # Errors
    /// [`Error::Config`] when the log does not go back as far, [`Error::Unreachable`] when the store does not answer.
    pub async fn versions_between(
        &self,
        kind: Kind,
        since: SystemTime,
        until: Option<SystemTime>,
    ) -> Result<Option<Span>, Error> {
        self.shared.tables[kind as usize]
            .between(since, until)
            .await
    }

    /// Takes back the rows that came into a table with some of its versions, or says only what it would do. What came
    /// before or after stays, also where it is equal. The contributions stay known: none of them can be sent again. The
    /// same call again takes nothing more. After `Ok` neither estimates nor queries of this process know the rows; other
    /// nodes find that out at their next look.
    ///
    /// # Errors
    /// [`Error::Config`] when it can no longer be told what came with these versions, or when it is too much at once;
    /// [`Error::Damaged`] when some of it lies in an object that cannot be read; otherwise as [`Estimator::record`].
    /// After an error the rows are all there or all gone, and the same call may be repeated.
    pub async fn take_back(
        &self,
        kind: Kind,
        span: Span,
        is_dry: bool,
    ) -> Result<TakenBack, Error> {
        if !is_dry {
            self.check_held()?;
        }
        let _turn = self.shared.taking_back.lock().await;
        let table = &self.shared.tables[kind as usize];
        let taken = table
            .take_back(span, is_dry, |news| self.learn(kind, news))
            .await?;
        if !is_dry {
            self.forget_taken(table).await;
        }
        Ok(taken)
    }

    /// Whether rows came into a table with some of its versions that were not taken back since.
    ///
    /// # Errors
    /// [`Error::Config`] when these are none, or when it can no longer be told what came with them;
    /// [`Error::Unreachable`] when the store does not answer.
    pub async fn has_left(&self, kind: Kind, span: Span) -> Result<bool, Error> {
        let table = &self.shared.tables[kind as usize];
        table.has_left(span, |news| self.learn(kind, news)).await
    }

    /// Has everything that is made of the rows made anew. What fails here is done by the follower and by the next tidying.
    async fn forget_taken(&self, table: &Table) {
        self.learn_anew().await;
        let kind = table.kind();
        let written = async {
            self.write_cells(table).await?;
            if self.index().rows(kind) == 0 {
                super::publish::remove(kind, self.prefixed()).await?;
            }
            self.publish().await
        };
        let written = written.await;
        if let Err(error) = written {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "the cells could not be written after rows were taken back; the next tidying does it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt};
    use stepcast_records::{Cell, Key};
    use url::Url;

    use super::*;
    use crate::estimate::tests::example;
    use crate::testing::{contribution, hardware, row, training_key, validation_key};
    use crate::{Contribution, Mapping, PriceBook};

    fn memory() -> Arc<dyn ObjectStore> {
        Arc::new(InMemory::new())
    }

    fn over(store: &Arc<dyn ObjectStore>) -> Estimator {
        let base = Url::parse("memory:///bench/").expect("url");
        Estimator::over(Arc::clone(store), base, PriceBook::default()).expect("estimator")
    }

    fn run(id: u8, on: &str, avg_ms: u32) -> Contribution {
        let rows = vec![
            row(training_key("flux.dev/lora", on), avg_ms, 150),
            row(validation_key("flux.dev/lora", on), avg_ms, 9),
        ];
        contribution(id, rows)
    }

    fn cells(estimator: &Estimator) -> Vec<(Key, Cell)> {
        let index = estimator.index();
        let cells = Kind::ALL.into_iter().flat_map(|kind| index.cells_of(kind));
        let mut cells: Vec<(Key, Cell)> = cells.map(|(key, cell)| (key, cell.clone())).collect();
        cells.sort_by_key(|(key, _)| *key);
        cells
    }

    /// What estimates of measured and of other hardware say, in seconds.
    fn said(estimator: &Estimator) -> Vec<f64> {
        let on = ["rtx4090", "h100", "l40s"].map(hardware);
        let forecasts = on.map(|on| estimator.forecast(&example(), on).expect("known"));
        forecasts
            .map(|times| (times.p50 as f64 / 1e3).round())
            .into()
    }

    /// After what stands in the tables came a run with wrong times; later the same as often as was taken back, so that
    /// there are as many rows as when everything was learnt last.
    #[tokio::test(flavor = "multi_thread")]
    async fn estimates_are_as_if_the_rows_had_never_come() {
        let store = memory();
        let (node, other) = (over(&store), over(&store));
        let record = |runs| {
            let node = node.clone();
            async move { node.record(runs).await.expect("stored") }
        };
        record(vec![run(1, "rtx4090", 14_000)]).await;
        let after = node.stats().training.version.expect("a table");
        record(vec![run(2, "rtx4090", 90_000)]).await;
        node.learn_anew().await;
        record(vec![run(3, "h100", 5_000)]).await;
        other.refresh().await.expect("read");
        other.learn_anew().await;

        let right = over(&memory());
        let runs = vec![run(1, "rtx4090", 14_000), run(3, "h100", 5_000)];
        right.record(runs).await.expect("stored");
        right.learn_anew().await;
        assert_ne!(said(&node), said(&right));
        let span = Span {
            after,
            to: after + 1,
        };
        for kind in Kind::ALL {
            let dry = node.take_back(kind, span, true).await.expect("told");
            assert_eq!(dry.rows, 1);
            let taken = node.take_back(kind, span, false).await;
            assert_eq!(taken.expect("taken back"), dry);
        }
        assert_eq!(cells(&node), cells(&right));
        assert_eq!(said(&node), said(&right));
        let answer = node
            .sql("SELECT max(avg_step_ms) FROM training_steps")
            .await;
        let answer = answer.expect("answer");
        assert_eq!(answer.cells(), [[Some("14000".to_owned())]]);
        other.refresh().await.expect("read");
        assert!(other.is_behind(), "its follower learns anew at once");
        other.learn_anew().await;
        let started = over(&store);
        started.refresh().await.expect("read");
        started.learn_anew().await;
        for node in [&other, &started] {
            assert_eq!(cells(node), cells(&right));
            assert_eq!(said(node), said(&right));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn when_everything_is_taken_back_nothing_of_it_is_left() {
        let store = memory();
        let node = over(&store);
        let runs = vec![run(1, "rtx4090", 90_000)];
        node.record(runs).await.expect("stored");
        node.learn_anew().await;
        node.compact().await.expect("tidied up");
        let plain = Path::from("bench/public/training_steps.parquet");
        assert!(store.head(&plain).await.is_ok());
        for kind in Kind::ALL {
            let span = Span { after: 0, to: 1 };
            let taken = node.take_back(kind, span, false).await;
            assert_eq!(taken.expect("taken back").rows, 1);
        }
        assert_eq!(cells(&node), []);
        assert!(node.learnt().is_none(), "the published figures alone speak");
        assert!(store.head(&plain).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_import_is_seen_among_the_versions_and_once_taken_back_does_not_come_again() {
        let store = memory();
        let node = over(&store);
        node.record(vec![run(1, "rtx4090", 14_000)])
            .await
            .expect("stored");
        let file = format!(
            "{}\nflux.dev/lora,h100,1.0,4,1,bf16,int8,5,150\nflux.dev/lora,a100-80,1.0,4,1,bf16,int8,9,150\n",
            crate::import::TRAINING_HEADER
        );
        let import = || node.import("desk", Mapping::Records, file.as_bytes());
        assert_eq!(import().await.expect("stored").stored, 2);
        let versions = node.versions(Kind::Training, 20).await.expect("listed");
        let how: Vec<&How> = versions.iter().map(|version| &version.how).collect();
        let stored = |contributions, source: Option<&str>| How::Stored {
            contributions,
            source: source.map(str::to_owned),
        };
        assert_eq!(
            how,
            [&stored(2, Some("desk")), &stored(1, None), &How::Created]
        );
        assert_eq!(versions[0].rows, 2);
        let since = versions[0].at;
        let span = node.versions_between(Kind::Training, since, None);
        let span = span.await.expect("listed").expect("the import");
        assert_eq!(span.to, 2);
        let span = Span { after: 1, to: 2 };
        let taken = node.take_back(Kind::Training, span, false).await;
        assert_eq!(taken.expect("taken back").rows, 2);
        let again = import().await.expect("known");
        assert_eq!((again.stored, again.known), (0, 2));
        let versions = node.versions(Kind::Training, 20).await.expect("listed");
        assert_eq!(versions.len(), 4);
        assert!(versions[1].is_taken_back && !versions[2].is_taken_back);
    }
}
