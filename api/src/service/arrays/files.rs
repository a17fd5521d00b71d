//! The files of a sweep's tasks: put at once, and deleted again where no job has come for them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt, stream};
use stepcast_scheduler::State;
use stepcast_scheduler::ids::StagingId;

use crate::service::jobs::Jobs;
use crate::staging::{Error, Put, StagingArea};
use crate::submission::StagedFile;

/// Calls to the staging area at once for one sweep: a thousand tasks are put in the time of sixteen calls, and single
/// submissions find room beside them.
const STAGED_AT_ONCE: usize = 64;

/// What has become of a sweep's files.
pub(super) struct Done {
    /// What this call has put for certain. An earlier try of the same sweep, which may have its jobs by now, has put the rest.
    pub(super) new: Vec<StagingId>,
    /// Of what something may be there.
    pub(super) begun: BTreeSet<StagingId>,
    /// Why one of those that have begun was not put, if any was not. It may be there all the same, whoever has put it, and is
    /// left to the sweep of the area.
    pub(super) error: Option<Error>,
}

/// Puts the files of a sweep's tasks; none that has not begun once one has failed.
pub(super) async fn put(area: &StagingArea, tasks: &[(StagingId, &[StagedFile])]) -> Done {
    let mut done = Done {
        new: Vec::with_capacity(tasks.len()),
        begun: BTreeSet::new(),
        error: None,
    };
    let puts = tasks.iter().map(|(staging, files)| {
        let put = area.put(*staging, files).map_ok(|put| (*staging, put));
        put.map_err(|error| (*staging, error)).boxed()
    });
    for put in together(puts.collect()).await {
        let staging = match put {
            Ok((staging, Put::New)) => {
                done.new.push(staging);
                staging
            }
            Ok((staging, Put::There)) => staging,
            Err((staging, error)) => {
                done.error.get_or_insert(error);
                staging
            }
        };
        done.begun.insert(staging);
    }
    done
}

impl Jobs {
    /// Removes files that no job has come for. What this node cannot be certain of, as when another one may lead by now, is
    /// left to the sweep of the area.
    pub(super) async fn drop_unneeded(&self, staged: &[StagingId]) {
        let handle = &self.context.handle;
        let unneeded = |state: &State| -> Vec<StagingId> {
            let staged = staged.iter().copied();
            staged.filter(|of| !state.needs_staging(of)).collect()
        };
        if handle.read_stale(unneeded).is_empty() {
            return;
        }
        let unneeded = match handle.read(unneeded).await {
            Ok(unneeded) => unneeded,
            Err(error) => {
                tracing::warn!(%error, "files of a sweep that was not taken are left to the sweep");
                return;
            }
        };
        let removals = unneeded.into_iter();
        let removals = removals.map(|staging| self.context.staging.take_back(staging).boxed());
        let removals: Vec<_> = removals.collect();
        let mut removals = stream::iter(removals).buffer_unordered(STAGED_AT_ONCE);
        while let Some(removed) = removals.next().await {
            if let Err(error) = removed {
                tracing::warn!(error = ?error, "files of a sweep that was not taken are left to the sweep");
            }
        }
    }
}

/// Does all of these, so many at once; none that has not begun once one has failed. What comes of each that was begun.
async fn together<T, E>(calls: Vec<BoxFuture<'_, Result<T, E>>>) -> Vec<Result<T, E>> {
    let has_failed = AtomicBool::new(false);
    let calls = calls.into_iter().map(|call| async {
        if has_failed.load(Ordering::Relaxed) {
            return None;
        }
        let done = call.await;
        has_failed.fetch_or(done.is_err(), Ordering::Relaxed);
        Some(done)
    });
    let calls: Vec<_> = calls.collect();
    let calls = stream::iter(calls).buffer_unordered(STAGED_AT_ONCE);
    calls.filter_map(std::future::ready).collect().await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use tokio::sync::Barrier;

    use super::*;
    use crate::submission::Role;

    /// The first try may have an array by now that this node does not know of yet.
    #[tokio::test]
    async fn nothing_that_an_earlier_try_has_put_is_taken_for_new_where_some_cannot_be_put() {
        let folder = tempfile::tempdir().unwrap();
        let area = StagingArea::open(folder.path()).unwrap();
        let files = [StagedFile {
            role: Role::Config,
            name: "config.json".to_owned(),
            content: b"{}".to_vec(),
        }];
        let tasks = [1, 2, 3].map(|task| (StagingId([task; 16]), &files[..]));
        let first = put(&area, &tasks).await;
        let all: BTreeSet<StagingId> = tasks.iter().map(|(staging, _)| *staging).collect();
        assert!(first.error.is_none());
        assert_eq!(first.new.into_iter().collect::<BTreeSet<_>>(), all);
        area.hold(true);
        let again = put(&area, &tasks).await;
        assert!(again.error.is_some());
        assert_eq!(again.new, []);
        assert!(!again.begun.is_empty() && again.begun.is_subset(&all));
        area.hold(false);
        let again = put(&area, &tasks).await;
        assert!(again.error.is_none() && again.new.is_empty());
    }

    #[tokio::test]
    async fn files_of_tasks_are_put_at_once() {
        // Nobody passes it before so many are there.
        let barrier = Barrier::new(STAGED_AT_ONCE);
        let put = |task| {
            let barrier = &barrier;
            async move {
                barrier.wait().await;
                Ok::<_, ()>(task)
            }
            .boxed()
        };
        let puts = together((0..4 * STAGED_AT_ONCE).map(put).collect());
        let put = tokio::time::timeout(Duration::from_secs(60), puts).await;
        let put = put.expect("they wait for each other").into_iter();
        let put: Result<BTreeSet<usize>, ()> = put.collect();
        assert_eq!(put, Ok((0..4 * STAGED_AT_ONCE).collect()));
    }

    /// What is under way when one fails may be there afterwards.
    #[tokio::test]
    async fn what_has_begun_is_waited_for_when_one_fails_and_no_other_begins() {
        let call = |task| {
            async move {
                tokio::task::yield_now().await;
                if task == 0 {
                    return Err(task);
                }
                // The others are done after that one.
                tokio::task::yield_now().await;
                Ok(task)
            }
            .boxed()
        };
        let done = together((0..1_000).map(call).collect()).await;
        assert_eq!(done.len(), STAGED_AT_ONCE);
        assert_eq!(done.iter().filter(|done| done.is_err()).count(), 1);
    }
}
