//! The commands as methods of the handle: each is [`TokenSupervisor::call`] with the command that it names.

use super::{
    Status, TokenSupervisor,
    command::{
        Connect, Disconnect, GetStatus, Hold, Purge, RefreshNow, Refreshed, RejectToken, Release, RequireReconnect,
        Restore, Retry, Revoke,
    },
};
use crate::{
    error::Error,
    model::{AccessToken, Generation, Grant, TokenKey},
};

impl TokenSupervisor {
    /// Stores the grant that the user's consent gave. A replay changes nothing and says so in [`Status::unchanged`].
    ///
    /// Dropping the future does not undo the connect: the grant may have been stored or not.
    ///
    /// # Errors
    /// [`Error::DuplicateGrant`] if the refresh token is live under another key, [`Error::AccountMismatch`] if the key
    /// holds a grant of another user of the identity provider; otherwise see [`Error`].
    pub async fn connect(&self, key: &TokenKey, grant: Grant) -> Result<Status, Error> {
        self.call(Connect::new(key, grant)).await
    }

    /// Reads a grant from the unchanged response of this provider's token endpoint, by the provider's settings: see
    /// [`Grant::from_response_of`].
    ///
    /// # Errors
    /// [`Error::UnknownIdp`], or [`Error::InvalidRequest`] with the reason why the response contains no grant.
    pub fn grant_from_response(&self, idp: &str, body: &[u8]) -> Result<Grant, Error> {
        let provider = self.rooms.providers.get(idp).ok_or(Error::UnknownIdp)?;
        Grant::from_response_of(&provider.idp, body)
    }

    /// Refreshes although the token is not due; see [`RefreshNow`].
    ///
    /// # Errors
    /// Why the token could not be refreshed; see [`Error`].
    pub async fn refresh_now(&self, key: &TokenKey) -> Result<Refreshed, Error> {
        self.call(RefreshNow::new(key)).await
    }

    /// Reports that a resource server refused the token of this generation; see [`RejectToken`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn report_rejected(&self, key: &TokenKey, generation: Generation) -> Result<Status, Error> {
        self.call(RejectToken::new(key, generation)).await
    }

    /// Requires that the user goes through consent again; see [`RequireReconnect`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn require_reconnect(&self, key: &TokenKey, reason: &str) -> Result<Status, Error> {
        self.call(RequireReconnect::new(key, reason)).await
    }

    /// Ends the grant; see [`Disconnect`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn disconnect(&self, key: &TokenKey, revoke: Revoke) -> Result<Status, Error> {
        self.call(Disconnect::new(key, revoke)).await
    }

    /// Takes a disconnect back, where no token of the grant is or may be lost; see [`Restore`].
    ///
    /// # Errors
    /// [`Error::NotConnected`] if the grant cannot be restored: connect instead. Otherwise see [`Error`].
    pub async fn restore(&self, key: &TokenKey) -> Result<Status, Error> {
        self.call(Restore::new(key)).await
    }

    /// Sends a refused refresh token once more; see [`Retry`]. All refused grants of an identity provider:
    /// [`retry_idp`](Self::retry_idp).
    ///
    /// # Errors
    /// [`Error::NotConnected`] if nothing is stored for the key, or the grant is disconnected. Otherwise see [`Error`].
    pub async fn retry(&self, key: &TokenKey) -> Result<Status, Error> {
        self.call(Retry::new(key)).await
    }

    /// Deletes the row of a disconnected grant; see [`Purge`]. A later connect of the key starts above its generation.
    ///
    /// Dropping the future does not undo the purge: the row may have been deleted or not.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the grant is not disconnected, [`Error::Unavailable`] while a part of it is outstanding
    /// ([`Cause::InDoubt`](crate::Cause::InDoubt), [`Cause::Revoking`](crate::Cause::Revoking)); otherwise see [`Error`].
    pub async fn purge(&self, key: &TokenKey) -> Result<Status, Error> {
        self.call(Purge::new(key)).await
    }

    /// Reports that a resource server refused this token; see [`RejectToken`]. For callers that do not know its generation: a
    /// report of any token but the current one changes nothing, and has the same result.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn report_rejected_token(&self, key: &TokenKey, token: &AccessToken) -> Result<Status, Error> {
        self.call(RejectToken::token(key, token)).await
    }

    /// Puts the grant on hold: nothing is sent for it until it is released; see [`Hold`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hold(&self, key: &TokenKey, reason: &str) -> Result<Status, Error> {
        self.call(Hold::new(key, reason)).await
    }

    /// Releases a grant that is on hold; see [`Release`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release(&self, key: &TokenKey) -> Result<Status, Error> {
        self.call(Release::new(key)).await
    }

    /// Returns the status of the grant, without its tokens. An absent grant is [`State::Absent`](crate::State), not an error.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(&self, key: &TokenKey) -> Result<Status, Error> {
        self.call(GetStatus::new(key)).await
    }
}
