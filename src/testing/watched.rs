//! Response bodies that are watched until their last part is handed to the connection.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body_util::BodyExt;
use hyper::{
    Response,
    body::{Body as _, Bytes, Frame, SizeHint},
    header::CONTENT_LENGTH,
};

use super::{answer::Body, family::Ticket, state::IdpShared};

/// Logs the response once its body is handed over. If the client disconnects, the connection stops polling it.
pub(super) fn watched(response: Response<Body>, ticket: Ticket, shared: Arc<IdpShared>) -> Response<Body> {
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let left = length.or(response.body().size_hint().exact());
    response.map(|body| Watched { body, left, ticket, shared }.boxed_unsync())
}

struct Watched {
    body: Body,
    /// Remaining bytes, if the length is known: hyper does not poll again after the last byte.
    left: Option<u64>,
    ticket: Ticket,
    shared: Arc<IdpShared>,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let taken = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        self.left = self.left.map(|left| left.saturating_sub(taken as u64));
        if frame.is_none() || self.left == Some(0) {
            self.shared.answered(self.ticket);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
