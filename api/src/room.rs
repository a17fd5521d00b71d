//! Room for what a call of gRPC sends, which nobody knows before it is there: it is taken as the bytes come, and given back
//! when the call is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

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
