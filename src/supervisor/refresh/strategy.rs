//! How an attempt obtains a token.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::BoxFuture;

use super::seal;
use crate::{
    idp::{ResponseOutcome, Slot},
    keyring::{Keyring, OpenError},
    model::{RefreshToken, Row},
    supervisor::provider::Provider,
};

/// The seam between an attempt, which claims, seals and commits, and the request by which a token is obtained.
pub(super) trait Strategy: Send + Sync {
    /// Opens what the request carries. Nothing is sent yet.
    ///
    /// # Errors
    /// The row does not open with the key ring's keys.
    fn open(&self, keyring: &Keyring, row: &Row) -> Result<Box<dyn Request>, OpenError>;
}

/// A request that is ready to be sent.
pub(super) trait Request: Send {
    /// Writes the request at most once and waits for the response, for `patience` at most.
    ///
    /// The future must be polled to its end once it was polled: dropping it may lose a refresh token.
    fn send<'a>(
        self: Box<Self>,
        provider: &'a Provider,
        slot: &'a Slot,
        patience: Duration,
    ) -> BoxFuture<'a, ResponseOutcome>;
}

/// Spends the row's refresh token (RFC 6749, section 6).
pub(super) struct RefreshTokenGrant;

struct RefreshRequest {
    token: RefreshToken,
    params: BTreeMap<String, String>,
}

impl Strategy for RefreshTokenGrant {
    fn open(&self, keyring: &Keyring, row: &Row) -> Result<Box<dyn Request>, OpenError> {
        let (token, params) = seal::spendable(keyring, row)?;
        Ok(Box::new(RefreshRequest { token, params }))
    }
}

impl Request for RefreshRequest {
    fn send<'a>(
        self: Box<Self>,
        provider: &'a Provider,
        slot: &'a Slot,
        patience: Duration,
    ) -> BoxFuture<'a, ResponseOutcome> {
        Box::pin(async move {
            provider.client.refresh(&provider.idp, slot.credentials_index(), &self.token, &self.params, patience).await
        })
    }
}
