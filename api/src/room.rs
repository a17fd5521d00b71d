//! Room for what a call of gRPC sends, which nobody knows before it is there: it is taken as the bytes come, and given back
//! when the call is answered. And room for what is answered over HTTP, which is given back when it has been sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::response::Response;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;

use crate::limits::{Room, Rooms};

/// A body that takes room for each of its pieces.
pub(crate) struct Counted {
    body: Body,
    rooms: Rooms,
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
            match self.rooms.take(data.len()) {
                Ok(room) => match &mut *self.taken.lock() {
                    Some(taken) => taken.add(room),
                    none => *none = Some(room),
                },
                Err(full) => return Poll::Ready(Some(Err(full))),
            }
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

/// An answer that is no larger is not counted: all callers together have not so many at once that it would matter.
const SMALL: u64 = 64 << 10;

/// A piece of an answer that is handed over at once: the rest stays here, and with it its room.
const PIECE: usize = 16 << 10;

/// That an answer has its room.
#[derive(Clone)]
struct HasRoom;

/// An answer that keeps its room until it has been sent.
struct Held {
    body: axum::body::Body,
    /// What is left of the frame that is being sent.
    frame: Bytes,
    _room: Room,
}

/// The answer with room for it, if it is large and has none; refused where there is none now.
pub(crate) fn for_answer(answer: Response, rooms: &Rooms) -> Result<Response, Status> {
    let bytes = answer.body().size_hint().exact().unwrap_or(0);
    if bytes <= SMALL || answer.extensions().get::<HasRoom>().is_some() {
        return Ok(answer);
    }
    let room = rooms.take(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    Ok(holding(answer, room))
}

/// The answer with the room that was taken for it.
pub(crate) fn holding(mut answer: Response, room: Room) -> Response {
    answer.extensions_mut().insert(HasRoom);
    answer.map(|body| {
        axum::body::Body::new(Held {
            body,
            frame: Bytes::new(),
            _room: room,
        })
    })
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.frame.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.frame = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return other,
            }
        }
        let piece = self.frame.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.frame.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.frame.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.frame.len() as u64;
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
    use axum::response::IntoResponse;
    use futures::StreamExt;

    use super::*;
    use crate::access::Caller;
    use crate::limits::Limits;

    #[tokio::test]
    async fn what_is_answered_keeps_its_room_until_it_is_sent_or_nobody_wants_it() {
        let limits = Limits::default();
        let rooms = limits.rooms_for_answers(&Caller::ANYBODY, None);
        let answer = |bytes: usize| vec![b'x'; bytes].into_response();
        let small = for_answer(answer(60 << 10), &rooms).unwrap();
        assert!(small.extensions().get::<HasRoom>().is_none());
        // More than one caller may have, and taken for as much.
        let large = for_answer(answer(70 << 20), &rooms).unwrap();
        assert_eq!(large.body().size_hint().exact(), Some(70 << 20));
        let refused = for_answer(answer(1 << 20), &rooms).unwrap_err();
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
}
