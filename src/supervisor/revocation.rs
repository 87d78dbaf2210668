//! How far revocations are, for people: by the queue and the row.

use super::{TokenSupervisor, ledger::unavailable};
use crate::{error::Error, model::TokenKey};

/// How far the revocation of a grant's tokens is. See [`TokenSupervisor::revocation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Revocation {
    /// It is queued when the response to a refresh in flight has arrived or is given up.
    Waiting,
    /// It is queued, and nothing was sent: a restore cancels it.
    Queued,
    /// It was sent and is not confirmed: it is retried.
    Unconfirmed,
    /// The provider has confirmed it.
    Done,
    /// The provider has no revocation endpoint: the tokens stay valid until they expire.
    NoEndpoint,
    /// A restore has canceled it before it was sent.
    Canceled,
}

impl Revocation {
    /// Returns the name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Unconfirmed => "unconfirmed",
            Self::Done => "done",
            Self::NoEndpoint => "no_endpoint",
            Self::Canceled => "canceled",
        }
    }

    /// Returns how far the revocation is after a restore that succeeded.
    pub fn after_restore(self) -> Self {
        match self {
            Self::Waiting | Self::Queued => Self::Canceled,
            other => other,
        }
    }

    /// Returns why a restore was refused, where the revocation was at `before`.
    pub fn refusal(before: Option<Self>) -> &'static str {
        match before {
            Some(Self::Done) => {
                "the grant cannot be restored: its tokens are revoked at the provider; send the user through consent, \
                 then connect"
            }
            Some(Self::Unconfirmed) => {
                "the grant cannot be restored: the revocation of its tokens was sent, and may be carried out; send the \
                 user through consent, then connect"
            }
            _ => {
                "the grant cannot be restored: nothing is stored, a refresh was in flight or a reconnect required when it \
                 was disconnected, or another key holds its refresh token; send the user through consent, then connect"
            }
        }
    }
}

impl TokenSupervisor {
    /// Returns how far the revocation of tokens of this key is, by the store; `None` if none was requested.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not respond.
    pub async fn revocation(&self, key: &TokenKey) -> Result<Option<Revocation>, Error> {
        let store = self.rooms.ledger.store();
        let row = store.read(key).await.map_err(|error| unavailable(&error))?.row;
        // What is queued for a grant that this one replaced is not its own.
        if row.as_ref().and_then(|row| row.tombstone).is_none_or(|gone| !gone.revoke && !gone.unrevocable) {
            return Ok(None);
        }
        let outbox = store.outbox(Some(key.clone())).await.map_err(|error| unavailable(&error))?;
        if outbox.pending > 0 {
            return Ok(Some(if outbox.unconfirmed > 0 { Revocation::Unconfirmed } else { Revocation::Queued }));
        }
        let revokes = self.rooms.providers.get(key.idp()).is_some_and(|provider| provider.idp.revokes());
        Ok(row.and_then(|row| row.tombstone.map(|tombstone| (row, tombstone))).and_then(|(row, tombstone)| match () {
            () if tombstone.revoke && row.intent.is_some() => Some(Revocation::Waiting),
            // A token whose provider has lost its endpoint was dropped from the queue.
            () if tombstone.unrevocable || tombstone.revoke && !revokes => Some(Revocation::NoEndpoint),
            () => tombstone.revoke.then_some(Revocation::Done),
        }))
    }

    /// Returns the number of queued revocations, and of those that were sent and are not confirmed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not respond.
    pub async fn revocations_pending(&self) -> Result<(u64, u64), Error> {
        let outbox = self.rooms.ledger.store().outbox(None).await.map_err(|error| unavailable(&error))?;
        Ok((outbox.pending, outbox.unconfirmed))
    }
}
