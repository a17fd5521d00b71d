//! Keeps the log's format as it is while something goes into the log that was made for it.

use tokio::sync::Mutex;

use crate::error::ProposeError;

/// Who may raise the log's format, or needs it as it is, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Format(Mutex<()>);

impl Format {
    /// What comes of some work for the format that the log `is_in`; nothing is begun where it is another one by now, and it is
    /// not raised before the work is done. A newer format that is in the log already and is not applied yet is waited for.
    pub(crate) async fn kept<T>(
        &self,
        is_in: impl FnOnce() -> bool,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let _kept = self.0.lock().await;
        match is_in() {
            true => Some(work.await),
            false => None,
        }
    }

    /// Does the work that raises it, until it is applied. Work that ends without knowing what came of it, as when a slow disk
    /// has the log's answer take too long, may have raised it all the same: then it is `applied` that is waited for.
    pub(crate) async fn raised<T>(
        &self,
        work: impl Future<Output = Result<T, ProposeError>>,
        applied: impl Future<Output = ()>,
    ) -> Result<T, ProposeError> {
        let _raised = self.0.lock().await;
        let raised = work.await;
        if matches!(raised, Err(ProposeError::OutcomeUnknown)) {
            applied.await;
        }
        raised
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    /// A barrier is in the log before it is applied.
    #[tokio::test]
    async fn nothing_is_begun_between_a_newer_format_s_entry_and_that_it_is_applied() {
        let (format, now) = (Format::default(), AtomicU16::new(2));
        let (apply, applied) = oneshot::channel::<()>();
        let work = async {
            applied.await.expect("it is applied");
            now.store(3, Ordering::Relaxed);
            Ok(())
        };
        let mut raised = std::pin::pin!(format.raised(work, async {}));
        assert!(raised.as_mut().now_or_never().is_none(), "it is in the log");
        let is_in = |format| format == now.load(Ordering::Relaxed);
        let mut kept = std::pin::pin!(format.kept(|| is_in(2), async { "placed" }));
        assert!(kept.as_mut().now_or_never().is_none(), "it waits");
        apply.send(()).expect("somebody waits");
        raised.await.expect("it is raised");
        assert_eq!(kept.await, None, "it was made for an older one");
        let kept = format.kept(|| is_in(3), async { "placed" });
        assert_eq!(kept.await, Some("placed"));
    }

    /// Its entry is behind a disk that takes longer than an answer may.
    #[tokio::test]
    async fn nothing_is_begun_either_where_nobody_knows_yet_what_became_of_a_newer_format_s_entry()
    {
        let (format, now) = (Format::default(), AtomicU16::new(2));
        let (apply, applied) = oneshot::channel::<()>();
        let unknown = async { Err::<(), _>(ProposeError::OutcomeUnknown) };
        let mut raised = std::pin::pin!(format.raised(unknown, async {
            applied.await.expect("it is applied");
            now.store(3, Ordering::Relaxed);
        }));
        assert!(raised.as_mut().now_or_never().is_none(), "it is in the log");
        let is_in = || now.load(Ordering::Relaxed) == 2;
        let mut kept = std::pin::pin!(format.kept(is_in, async { "placed" }));
        assert!(kept.as_mut().now_or_never().is_none(), "it waits");
        apply.send(()).expect("somebody waits");
        raised.await.expect_err("it has not heard");
        assert_eq!(kept.await, None, "it was made for an older one");
    }

    /// What was refused never comes.
    #[tokio::test]
    async fn what_is_certainly_not_raised_is_not_waited_for() {
        let format = Format::default();
        let refused = async { Err::<(), _>(ProposeError::Busy { retry_ms: 1 }) };
        let raised = format.raised(refused, std::future::pending());
        assert!(raised.now_or_never().expect("no wait").is_err());
    }

    #[tokio::test]
    async fn the_format_stays_while_something_goes_into_the_log() {
        let format = Format::default();
        let (answer, answered) = oneshot::channel::<()>();
        let mut kept = std::pin::pin!(format.kept(|| true, answered));
        assert!(kept.as_mut().now_or_never().is_none());
        let mut raised = std::pin::pin!(format.raised(async { Ok(()) }, async {}));
        assert!(raised.as_mut().now_or_never().is_none());
        answer.send(()).expect("somebody waits");
        assert_eq!(kept.await, Some(Ok(())));
        raised.await.expect("it is raised");
    }
}
