//! The body of a response, given to the connection in slices: actix-http copies what it is given into the connection's
//! buffer, however slowly the peer reads.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody as _},
    web::Bytes,
};

use super::peer::Exchange;

/// A body of known size. Copies share their bytes.
#[derive(Debug)]
pub(super) struct SlicedBody {
    rest: Bytes,
    /// Ends with the body.
    _exchange: Option<Exchange>,
}

/// The size of a slice.
pub(super) const SLICE: usize = 8 * 1024;

impl SlicedBody {
    /// Returns the body of the response that ends an exchange.
    pub(super) fn of(body: BoxBody, exchange: Option<Exchange>) -> BoxBody {
        match body.try_into_bytes() {
            Ok(rest) => BoxBody::new(Self { rest, _exchange: exchange }),
            Err(body) => body,
        }
    }
}

impl actix_web::body::MessageBody for SlicedBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let slice = SLICE.min(self.rest.len());
        Poll::Ready((slice > 0).then(|| Ok(self.rest.split_to(slice))))
    }
}
