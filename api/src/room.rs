//! Room for what a call of gRPC sends, which nobody knows before it is there: it is taken as the bytes come, and given back
//! when the call is answered. And room for what is answered, which is given back when it has been sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::response::Response;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

use crate::limits::{Room, Rooms};

/// A body that takes room for each of its pieces.
pub(crate) struct Counted {
    body: Body,
    rooms: Rooms,
    /// Bytes that have come.
    come: usize,
    taken: Taken,
}

/// The room that was taken for a body, as long as this lives or the body does.
pub(crate) type Taken = Arc<Mutex<Option<Room>>>;

/// The body with the room it will take.
pub(crate) fn counted(body: Body, rooms: Rooms) -> (Body, Taken) {
    let taken = Taken::default();
    let counted = Counted {
        body,
        rooms,
        come: 0,
        taken: Arc::clone(&taken),
    };
    (Body::new(counted), taken)
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            match self.rooms.take_after(self.come, data.len()) {
                Ok(room) => match &mut *self.taken.lock() {
                    Some(taken) => taken.add(room),
                    none => *none = Some(room),
                },
                Err(full) => return Poll::Ready(Some(Err(full))),
            }
            self.come += data.len();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer that is handed over at once: the rest stays here, and with it its room.
const PIECE: usize = 16 << 10;

/// That an answer has its room.
#[derive(Clone)]
struct HasRoom;

/// An answer that keeps its room until it has been sent.
struct Held<B> {
    body: B,
    /// What is left of the frame that is being sent.
    data: Bytes,
    /// What comes after it.
    next: Option<Frame<Bytes>>,
    room: Option<Room>,
    /// Where room is taken for each further frame, if it was not for all of them.
    more: Option<Rooms>,
    /// Whether it has ended for want of room.
    cut: bool,
}

/// The answer over HTTP with room for it, if its length is known and it has none; refused where there is none now.
pub(crate) fn for_answer(answer: Response, rooms: &Rooms) -> Result<Response, Status> {
    let bytes = answer.body().size_hint().exact().unwrap_or(0);
    if bytes == 0 || answer.extensions().get::<HasRoom>().is_some() {
        return Ok(answer);
    }
    let room = rooms.take(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    Ok(holding(answer, room))
}

/// The answer over HTTP with the room that was taken for it.
pub(crate) fn holding(mut answer: Response, room: Room) -> Response {
    answer.extensions_mut().insert(HasRoom);
    answer.map(|body| {
        axum::body::Body::new(Held {
            body,
            data: Bytes::new(),
            next: None,
            room: Some(room),
            more: None,
            cut: false,
        })
    })
}

/// The answer to a call of gRPC with room for it; a refusal where there is none now. What is there already is made into bytes,
/// so that nothing waits in a larger form. A stream takes room for one message after the other, and ends with the refusal.
pub(crate) async fn for_call(answer: http::Response<Body>, rooms: Rooms) -> http::Response<Body> {
    let (head, mut body) = answer.into_parts();
    let first = poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context))).await;
    let mut held = Held {
        body,
        data: Bytes::new(),
        next: None,
        room: None,
        more: Some(rooms),
        cut: false,
    };
    match first {
        Poll::Ready(Some(Ok(frame))) => {
            if let Err(full) = held.take(frame) {
                return full.into_http();
            }
        }
        Poll::Ready(Some(Err(failed))) => return failed.into_http(),
        Poll::Ready(None) | Poll::Pending => (),
    }
    http::Response::from_parts(head, Body::new(held))
}

impl<B> Held<B> {
    /// Makes a frame the next to be sent, with room for it.
    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Status> {
        match frame.into_data() {
            Ok(data) => {
                if let Some(rooms) = &self.more {
                    // What the frame before it took is free already.
                    self.room = None;
                    self.room = Some(rooms.take(data.len())?);
                }
                self.data = data;
            }
            Err(other) => self.next = Some(other),
        }
        Ok(())
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            if !self.data.is_empty() {
                let piece = self.data.len().min(PIECE);
                return Poll::Ready(Some(Ok(Frame::data(self.data.split_to(piece)))));
            }
            if let Some(next) = self.next.take() {
                return Poll::Ready(Some(Ok(next)));
            }
            if self.cut {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Err(full) = self.take(frame) {
                        let mut end = http::HeaderMap::new();
                        // It has nothing that does not go into a header.
                        let _ = full.add_header(&mut end);
                        self.next = Some(Frame::trailers(end));
                        self.cut = true;
                    }
                }
                other => return Poll::Ready(other),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.next.is_none() && (self.cut || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.data.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + left);
        } else {
            hint.set_lower(hint.lower() + left);
        }
        hint
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::net::IpAddr;

    use axum::response::IntoResponse;
    use futures::{StreamExt, stream};
    use tonic::Code;

    use super::*;
    use crate::access::Caller;
    use crate::limits::Limits;

    #[tokio::test]
    async fn what_is_answered_keeps_its_room_until_it_is_sent_or_nobody_wants_it() {
        let limits = Limits::default();
        let rooms = limits.rooms_for_answers(&Caller::ANYBODY, None);
        let answer = |bytes: usize| vec![b'x'; bytes].into_response();
        // More than one caller may have, and taken for as much.
        let large = for_answer(answer(70 << 20), &rooms).unwrap();
        assert_eq!(large.body().size_hint().exact(), Some(70 << 20));
        let refused = for_answer(answer(1), &rooms).unwrap_err();
        assert!(refused.message().contains("not being read"), "{refused:?}");
        let again = for_answer(large, &rooms).unwrap();
        let mut pieces = again.into_body().into_data_stream();
        let mut sent = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece.unwrap();
            assert!(piece.len() <= PIECE);
            sent += piece.len();
        }
        assert_eq!(sent, 70 << 20);
        drop(pieces);
        let next = for_answer(answer(64 << 20), &rooms).unwrap();
        drop(next);
        assert!(for_answer(answer(64 << 20), &rooms).is_ok());
    }

    /// The answer of a call that sends messages of so many bytes as they come.
    fn called(
        messages: impl futures::Stream<Item = usize> + Send + 'static,
    ) -> http::Response<Body> {
        let messages = messages.map(|bytes| Ok::<_, Status>(vec![b'x'; bytes]));
        http::Response::new(Body::new(axum::body::Body::from_stream(messages)))
    }

    /// What is sent next, if anything is.
    async fn frame(answer: &mut Body) -> Option<Frame<Bytes>> {
        let frame = poll_fn(|context| Pin::new(&mut *answer).poll_frame(context)).await;
        frame.map(|frame| frame.unwrap())
    }

    fn status(answer: &http::Response<Body>) -> Option<Code> {
        Status::from_header_map(answer.headers()).map(|status| status.code())
    }

    #[tokio::test]
    async fn what_a_call_is_answered_keeps_its_room_and_large_ones_leave_others_the_small() {
        let limits = Limits::default();
        let address = |last| Some(IpAddr::from([127, 0, 0, last]));
        let rooms = |last| limits.rooms_for_answers(&Caller::ANYBODY, address(last));
        let one = |bytes| called(stream::iter([bytes]));
        let mut unread = Vec::new();
        for caller in 1..=4 {
            let large = for_call(one(63 << 20), rooms(caller)).await;
            assert_eq!(status(&large), None);
            let refused = for_call(one(2 << 20), rooms(caller)).await;
            assert_eq!(status(&refused), Some(Code::ResourceExhausted));
            assert_eq!(status(&for_call(one(100), rooms(caller)).await), None);
            unread.push(large);
        }
        let refused = for_call(one(8 << 20), rooms(5)).await;
        assert_eq!(status(&refused), Some(Code::ResourceExhausted));
        let small = for_call(one(60 << 10), rooms(5)).await;
        assert_eq!(status(&small), None);
        let mut read = unread.pop().unwrap().into_body();
        let mut sent = 0;
        while let Some(frame) = frame(&mut read).await {
            sent += frame.into_data().unwrap().len();
        }
        assert_eq!(sent, 63 << 20);
        drop(read);
        assert_eq!(status(&for_call(one(8 << 20), rooms(5)).await), None);
    }

    #[tokio::test]
    async fn small_answers_that_nobody_reads_are_bounded_too() {
        let limits = Limits::default();
        let rooms = limits.rooms_for_answers(&Caller::ANYBODY, None);
        let mut unread = Vec::new();
        let refused = loop {
            let answer = for_call(called(stream::iter([10])), rooms.clone()).await;
            match status(&answer) {
                None => unread.push(answer),
                refused => break refused,
            }
        };
        assert_eq!(refused, Some(Code::ResourceExhausted));
        assert!((10_000..20_000).contains(&unread.len()), "{}", unread.len());
    }

    #[tokio::test]
    async fn a_stream_has_room_for_one_message_and_ends_where_there_is_none() {
        let limits = Limits::default();
        let rooms = limits.rooms_for_answers(&Caller::ANYBODY, None);
        let (messages, receiver) = futures::channel::mpsc::unbounded();
        // Nothing is there yet, which is not waited for.
        let mut answer = for_call(called(receiver), rooms.clone()).await.into_body();
        for _ in 0..3 {
            messages.unbounded_send(40 << 20).unwrap();
            for _ in 0..(40 << 20) / PIECE {
                let frame = frame(&mut answer).await.unwrap();
                assert_eq!(frame.into_data().unwrap().len(), PIECE);
            }
        }
        messages.unbounded_send(10).unwrap();
        assert!(frame(&mut answer).await.unwrap().is_data());
        let other = for_call(called(stream::iter([40 << 20])), rooms.clone()).await;
        messages.unbounded_send(40 << 20).unwrap();
        let end = frame(&mut answer).await.unwrap();
        let end = Status::from_header_map(end.trailers_ref().unwrap()).unwrap();
        assert_eq!(end.code(), Code::ResourceExhausted);
        assert!(frame(&mut answer).await.is_none() && answer.is_end_stream());
        drop(other);
    }
}
