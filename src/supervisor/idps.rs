//! The identity providers as operators see them: their status, and the verbs for them.

use std::{sync::Arc, time::SystemTime};

use super::{
    TokenSupervisor,
    command::{TIMEOUT, check_reason},
    ledger::{Audited, unavailable},
    provider::Provider,
};
use crate::{
    error::{Cause, Error},
    idp::Idp,
    model::Evidence,
};

/// The status of an identity provider, as seen by this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdpStatus {
    /// The name that keys use.
    pub name: String,
    /// Why the provider is on hold, if it is: no refresh is started there.
    pub held: Option<String>,
    /// What the hold comes from.
    pub held_by: Option<HeldBy>,
    /// Why nothing is sent to the provider for now, if so.
    pub paused: Option<Cause>,
    /// Until when, at least.
    pub paused_until: Option<SystemTime>,
    /// Whether the provider has a revocation endpoint.
    pub revokes: bool,
    /// The number of refreshes that are under way or wait for their turn.
    pub refreshing: usize,
    /// What the provider said when it last gave no token.
    pub last_error: Option<Evidence>,
    /// When that was.
    pub last_error_at: Option<SystemTime>,
}

/// What the hold of an identity provider comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBy {
    /// People: it is on hold until [`TokenSupervisor::release_idp`].
    People,
    /// The store belongs to another deployment: all providers are on hold until [`TokenSupervisor::adopt`].
    Deployment,
    /// The store went back in time, because it was restored from a backup or has lost commits: all providers are on hold until
    /// what is missing was brought back from the histories.
    Recovery,
}

impl HeldBy {
    /// Returns its name: `people`, `deployment` or `recovery`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::Deployment => "deployment",
            Self::Recovery => "recovery",
        }
    }
}

/// The response of a token endpoint to an empty, unauthenticated request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// The HTTP status, or why there was no response.
    pub answer: Result<u16, Evidence>,
    /// The time by the provider's clock.
    pub date: Option<SystemTime>,
}

impl TokenSupervisor {
    /// Returns the status of every identity provider, in the order of their names.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, _, _| {
    /// for idp in supervisor.idps() {
    ///     println!("{}: {:?}, {} refreshes under way", idp.name, idp.paused, idp.refreshing);
    /// }
    /// # Ok(()) });
    /// ```
    pub fn idps(&self) -> Vec<IdpStatus> {
        let rooms = &self.rooms;
        let now = self.clock().read();
        let status = |(name, provider): (&String, &Arc<Provider>)| {
            let (closed, last_error) = (provider.gate.closed(now), provider.gate.last_error());
            let held = rooms.providers.held(name);
            let by = match (rooms.providers.foreign().is_some(), rooms.providers.are_recovering()) {
                (true, _) => HeldBy::Deployment,
                (false, true) => HeldBy::Recovery,
                (false, false) => HeldBy::People,
            };
            IdpStatus {
                name: name.clone(),
                held_by: held.as_ref().map(|_| by),
                held,
                paused: closed.map(|closed| closed.cause),
                paused_until: closed.map(|closed| (now.wall + closed.wait).into()),
                revokes: provider.idp.revocation_url.is_some(),
                refreshing: rooms.refresher.ports().attempts.running_for(name),
                last_error_at: last_error.as_ref().map(|(_, at)| (*at).into()),
                last_error: last_error.map(|(evidence, _)| evidence),
            }
        };
        let mut all: Vec<_> = rooms.providers.all().iter().map(status).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Adds an identity provider, or replaces the settings of one, while the supervisor runs. Refreshes under way finish
    /// with the old ones; one that was paused because its client was refused is tried at once.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, _, _| {
    /// use token_supervisor::presets;
    ///
    /// # let (client_id, new_secret) = ("simulated-client", "ts-test-secret-rolled");
    /// supervisor.set_idp("gitlab", presets::gitlab(client_id, new_secret))?;
    /// supervisor.probe_idp("gitlab")?; // at once, if it was paused
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`Error::Configuration`]: what is wrong with the settings; the old ones stay.
    pub fn set_idp(&self, name: &str, idp: Idp) -> Result<(), Error> {
        self.rooms.providers.set(name, idp)
    }

    /// Puts an identity provider on hold: starts no more refreshes there until it is released, on every replica and after
    /// restarts. Refreshes that run go on and are stored, valid tokens are served, and callers that would need a refresh
    /// get [`Cause::IdpHeld`] at once. A second hold replaces the reason of the first.
    ///
    /// Dropping the future does not undo the hold: it may have been stored or not.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, _, _| {
    /// supervisor.hold_idp("gitlab", "maintenance until noon").await?;
    /// assert_eq!(supervisor.idps()[0].held.as_deref(), Some("maintenance until noon"));
    /// supervisor.release_idp("gitlab").await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownIdp`], [`Error::InvalidRequest`] for an invalid reason, or why the hold is not stored within 10 s.
    pub async fn hold_idp(&self, name: &str, reason: &str) -> Result<(), Error> {
        check_reason(reason).map_err(Error::InvalidRequest)?;
        self.set_hold(name, Some(reason)).await
    }

    /// Releases an identity provider: refreshes that are due start with the next sweep. Also ends a pause because of a
    /// surge of refusals ([`Cause::RefusalSurge`]); who was refused is then tried once more. Not an error if there is
    /// neither.
    ///
    /// Dropping the future does not undo the release: it may have been stored or not.
    ///
    /// # Errors
    /// [`Error::UnknownIdp`], [`Error::InvalidRequest`] while the store belongs to another deployment
    /// ([`adopt`](Self::adopt) it), or why the release is not stored within 10 s.
    pub async fn release_idp(&self, name: &str) -> Result<(), Error> {
        self.set_hold(name, None).await
    }

    /// In a task of its own: a caller that is gone must not leave this process behind what was stored.
    async fn set_hold(&self, name: &str, reason: Option<&str>) -> Result<(), Error> {
        if self.rooms.providers.get(name).is_none() {
            return Err(Error::UnknownIdp);
        }
        if reason.is_none() && self.rooms.providers.foreign().is_some() {
            return Err(Error::InvalidRequest(
                "all providers are on hold because the store belongs to another deployment: adopt the store",
            ));
        }
        let (supervisor, name, reason) = (self.clone(), name.to_owned(), reason.map(str::to_owned));
        let set = self.spawn(async move {
            let rooms = &supervisor.rooms;
            let set = rooms.providers.set_hold(&rooms.ledger, &name, reason.as_deref()).await;
            if reason.is_none() && set.is_ok() {
                rooms.providers.end_surge(&name);
            }
            let set = set.map_err(|error| unavailable(&error));
            let action = if reason.is_some() { "hold_idp" } else { "release_idp" };
            let outcome = set.as_ref().map(|()| None).map_err(Error::code);
            rooms.ledger.audit(supervisor.by(), action, Audited::idp(&name), outcome);
            set
        });
        tokio::select! {
            set = set => set.map_err(|_| Error::ShutDown)?,
            () = self.clock().sleep(TIMEOUT) => Err(Error::Timeout),
        }
    }

    /// Lets the next request to this identity provider through, although refreshes are paused because the provider failed
    /// or refused our client. The response decides whether the pause ends.
    ///
    /// # Errors
    /// [`Error::UnknownIdp`].
    pub fn probe_idp(&self, name: &str) -> Result<(), Error> {
        let provider = self.rooms.providers.get(name).ok_or(Error::UnknownIdp)?;
        provider.gate.probe_now(self.clock().read());
        self.rooms.ledger.audit(self.by(), "probe_idp", Audited::idp(name), Ok(None));
        Ok(())
    }

    /// Checks whether the token endpoint responds, by a GET without credentials: nothing of a user or of our client is sent,
    /// and a pause does not end. Takes at most 10 s.
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownIdp`].
    pub async fn reach_idp(&self, name: &str) -> Result<Reached, Error> {
        let provider = self.rooms.providers.get(name).ok_or(Error::UnknownIdp)?;
        let asked = self.spawn(async move { provider.client.reach(&provider.idp).await });
        let answer = asked.await.map_err(|_| Error::ShutDown)?;
        let date = answer.as_ref().ok().and_then(|(_, date)| date.map(SystemTime::from));
        Ok(Reached { answer: answer.map(|(status, _)| status), date })
    }
}
