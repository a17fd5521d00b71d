//! Who reads a stream: asked again for as long as it is open, so that it ends with what its reader may.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{Code, Request, Status};

use crate::access::{Caller, Permission, authorise};
use crate::admission::{Admission, is_counted};
use crate::limits::{OpenStream, Rooms};
use crate::status::{self, Refusal};

/// So often it is asked whether a reader of whom nothing is sent to may still read; before something is sent it is asked
/// anyway. It costs a look into memory.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// Somebody who was let in to read, and what they have shown.
#[derive(Clone)]
pub(crate) struct Reader {
    admission: Admission,
    /// The token that was shown, and nothing else of the request.
    shown: HeaderMap,
    permission: Permission,
    caller: Caller,
    peer: Option<IpAddr>,
}

impl Reader {
    pub(crate) fn new(
        admission: Admission,
        headers: &HeaderMap,
        permission: Permission,
        caller: Caller,
        peer: Option<IpAddr>,
    ) -> Self {
        let token = headers.get(AUTHORIZATION).cloned();
        let shown = token.into_iter().map(|token| (AUTHORIZATION, token));
        Self {
            admission,
            shown: shown.collect(),
            permission,
            caller,
            peer,
        }
    }

    /// Who has made this call, which was let in.
    pub(crate) fn by<T>(request: &Request<T>) -> Result<Self, Status> {
        let reader = request.extensions().get::<Self>().cloned();
        reader.ok_or_else(|| status::access_denied("nobody is known to have made this call"))
    }

    /// Who they were when they were let in.
    pub(crate) const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Room for what they send over gRPC.
    pub(crate) fn rooms(&self) -> Rooms {
        let limits = &self.admission.limits;
        if is_counted(&self.caller) {
            limits.rooms(&self.caller, self.peer)
        } else {
            limits.rooms_of_program()
        }
    }

    /// Room for what they are answered over gRPC.
    pub(crate) fn rooms_for_answers(&self) -> Rooms {
        let limits = &self.admission.limits;
        if is_counted(&self.caller) {
            limits.rooms_for_answers(&self.caller, self.peer)
        } else {
            limits.rooms_for_answers_of_program()
        }
    }

    /// Their turn to have a statement run, as long as it lives. Programs that are not counted wait for nobody of their own.
    pub(crate) async fn turn(&self) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if !is_counted(&self.caller) {
            return Ok(None);
        }
        let limits = &self.admission.limits;
        limits.turn(&self.caller, self.peer).await.map(Some)
    }

    /// One more stream over gRPC.
    pub(crate) fn open(self) -> Result<Reading, Status> {
        if is_counted(&self.caller) {
            return self.open_counted();
        }
        Ok(Reading {
            reader: self,
            _open: None,
        })
    }

    /// One more stream, which is counted whoever reads it.
    pub(crate) fn open_counted(self) -> Result<Reading, Status> {
        let open = self.admission.limits.stream(&self.caller, self.peer)?;
        Ok(Reading {
            reader: self,
            _open: Some(open),
        })
    }

    /// Who they are now, if they may still read.
    fn now(&self) -> Result<Caller, Status> {
        let caller = self.admission.people.caller_of(&self.shown);
        let caller = caller.map_err(|_denied| shut_out())?;
        authorise(&caller, self.permission)?;
        Ok(caller)
    }
}

/// A stream that is about to be read, and is counted if its reader's are.
pub(crate) struct Reading {
    reader: Reader,
    _open: Option<OpenStream>,
}

impl Reading {
    /// Who reads, and was let in.
    pub(crate) const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Who reads.
    pub(crate) const fn caller(&self) -> &Caller {
        &self.reader.caller
    }

    /// The stream. It ends with a refusal once its reader may not read any more, or `sees` says that they may not see this.
    pub(crate) fn of<T: Send + 'static>(
        self,
        items: BoxStream<'static, Result<T, Status>>,
        sees: impl Fn(&Caller) -> Result<(), Status> + Send + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        while_allowed(items, move || {
            // All of it, so that it is counted for as long as it is read.
            let reading = &self;
            sees(&reading.reader.now()?)
        })
    }
}

/// The items for as long as they may be read.
fn while_allowed<T: Send + 'static>(
    items: BoxStream<'static, Result<T, Status>>,
    may: impl Fn() -> Result<(), Status> + Send + 'static,
) -> BoxStream<'static, Result<T, Status>> {
    let mut looks = interval_at(Instant::now() + ASKED_EVERY, ASKED_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = Open { items, looks, may };
    stream::unfold(Some(open), |open| async {
        let mut open = open?;
        let item = open.next().await?;
        let goes_on = item.is_ok().then_some(open);
        Some((item, goes_on))
    })
    .boxed()
}

/// A stream that is being read.
struct Open<T, F> {
    items: BoxStream<'static, Result<T, Status>>,
    looks: Interval,
    may: F,
}

impl<T, F: Fn() -> Result<(), Status>> Open<T, F> {
    /// The next item, if it may be read.
    async fn next(&mut self) -> Option<Result<T, Status>> {
        loop {
            let item = tokio::select! {
                item = self.items.next() => Some(item?),
                _ = self.looks.tick() => None,
            };
            match ((self.may)(), item) {
                (Err(refused), _) => return Some(Err(refused)),
                (Ok(()), Some(item)) => return Some(item),
                (Ok(()), None) => {}
            }
        }
    }
}

fn shut_out() -> Status {
    let message = "this stream ends: the token that it was opened with was taken back or is over, or its holder was removed";
    Refusal::new(Code::Unauthenticated, "ACCESS_TOKEN_REQUIRED", message)
        .hint("open it again with a token that is good")
        .into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    type Read = BoxStream<'static, Result<u8, Status>>;

    fn open() -> (mpsc::Sender<Result<u8, Status>>, Arc<AtomicBool>, Read) {
        let (items, received) = mpsc::channel(8);
        let may = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&may);
        let may_read = move || match asked.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(shut_out()),
        };
        let read = while_allowed(ReceiverStream::new(received).boxed(), may_read);
        (items, may, read)
    }

    #[tokio::test]
    async fn a_reader_that_is_shut_out_is_told_so_though_nothing_happens() {
        let (items, may, mut read) = open();
        items.send(Ok(1)).await.expect("it is read");
        assert!(matches!(read.next().await, Some(Ok(1))));
        may.store(false, Ordering::Relaxed);
        let told = read.next().await.expect("a reason").expect_err("a refusal");
        assert_eq!(told.code(), Code::Unauthenticated);
        assert!(read.next().await.is_none());
    }

    #[tokio::test]
    async fn nothing_that_waits_is_handed_to_who_was_shut_out() {
        let (items, may, mut read) = open();
        for item in 1..=3 {
            items.send(Ok(item)).await.expect("there is room");
        }
        assert!(matches!(read.next().await, Some(Ok(1))));
        may.store(false, Ordering::Relaxed);
        assert!(matches!(read.next().await, Some(Err(_))));
        assert!(read.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_may_be_read_is_told_whole_and_ends() {
        let (items, _, mut read) = open();
        for item in 1..=3 {
            items.send(Ok(item)).await.expect("there is room");
        }
        items.send(Err(shut_out())).await.expect("there is room");
        for item in 1..=3 {
            assert_eq!(read.next().await.and_then(Result::ok), Some(item));
        }
        assert!(matches!(read.next().await, Some(Err(_))), "as it came");
        assert!(read.next().await.is_none());
        let (items, _, mut read) = open();
        drop(items);
        assert!(read.next().await.is_none());
    }
}
