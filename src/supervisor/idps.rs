//! The identity providers at run time: how they are doing, and what people can do about it.

use std::{collections::HashMap, time::SystemTime};

use super::{TokenSupervisor, builder, command::check_reason, holds};
use crate::{
    error::{Cause, Error},
    idp::{HealthChange, Idp},
    model::Evidence,
};

/// How an identity provider is doing, as seen by this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdpStatus {
    /// The name that keys use.
    pub name: String,
    /// Why people hold it, if they do: nothing is started for it.
    pub held: Option<String>,
    /// Why nothing is sent to it for now, if so.
    pub paused: Option<Cause>,
    /// Until when, at least.
    pub paused_until: Option<SystemTime>,
    /// Whether tokens can be revoked there: it has an endpoint for that.
    pub revokes: bool,
    /// How many refreshes are under way or wait for their turn.
    pub refreshing: usize,
    /// What it said when it last gave no token.
    pub last_error: Option<Evidence>,
    /// When that was.
    pub last_error_at: Option<SystemTime>,
}

/// What the token endpoint of an identity provider said to somebody who asked for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// Its HTTP status, or why there was no answer.
    pub answer: Result<u16, Evidence>,
    /// What its clock says.
    pub date: Option<SystemTime>,
}

impl TokenSupervisor {
    /// How every identity provider is doing, in the order of their names.
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
        let core = &self.shared.core;
        let now = core.clock.read();
        let status = |(name, provider): (&String, &std::sync::Arc<super::core::Provider>)| {
            let (closed, last_error) = (provider.gate.closed(now), provider.gate.last_error());
            IdpStatus {
                name: name.clone(),
                held: core.holds.reasons.borrow().get(name).cloned(),
                paused: closed.map(|closed| closed.cause),
                paused_until: closed.map(|closed| (now.wall + closed.wait).into()),
                revokes: provider.idp.revocation_url.is_some(),
                refreshing: core.attempts.running_for(name),
                last_error_at: last_error.as_ref().map(|(_, at)| (*at).into()),
                last_error: last_error.map(|(evidence, _)| evidence),
            }
        };
        let mut all: Vec<_> = core.idps.load().iter().map(status).collect();
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
        let core = &self.shared.core;
        let now = core.clock.read();
        let before = core.provider(name);
        let provider = builder::provider(name, idp, &core.refresh, &core.clock, before.as_deref())?;
        core.idps.rcu(|idps| {
            let mut idps = HashMap::clone(idps);
            idps.insert(name.to_owned(), provider.clone());
            idps
        });
        let ended = before.is_some_and(|before| before.gate.is_paused());
        if ended && provider.gate.closed(now).is_none() {
            core.announce(name, vec![HealthChange::Recovered { cause: Cause::ClientRefused }], None);
        }
        Ok(())
    }

    /// Starts nothing more for this identity provider until it is released, on every replica and after restarts.
    /// Refreshes that run go on and are stored, valid tokens are served, and callers that would need a refresh are
    /// told [`Cause::IdpHeld`] at once. A second hold replaces the reason of the first.
    ///
    /// Dropping the future does not undo it: it may have been held or not.
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
    /// [`Error::UnknownIdp`], [`Error::InvalidRequest`] for a reason that is none, or why it is not stored within 10 s.
    pub async fn hold_idp(&self, name: &str, reason: &str) -> Result<(), Error> {
        check_reason(reason).map_err(Error::InvalidRequest)?;
        holds::set(&self.shared.core, name, Some(reason)).await
    }

    /// Ends a hold of this identity provider: what is due starts with the next sweep. No error if there is none.
    ///
    /// Dropping the future does not undo it: it may have been released or not.
    ///
    /// # Errors
    /// [`Error::UnknownIdp`], or why it is not stored within 10 s.
    pub async fn release_idp(&self, name: &str) -> Result<(), Error> {
        holds::set(&self.shared.core, name, None).await
    }

    /// Lets the next request to this identity provider through, although refreshes are paused because it was in trouble
    /// or refused our client: somebody says that it is well again. Its answer decides.
    ///
    /// # Errors
    /// [`Error::UnknownIdp`].
    pub fn probe_idp(&self, name: &str) -> Result<(), Error> {
        let core = &self.shared.core;
        core.provider(name).ok_or(Error::UnknownIdp)?.gate.probe_now(core.clock.read());
        Ok(())
    }

    /// Looks whether the token endpoint answers, by a GET without credentials: nothing of a user or of our client is sent,
    /// and what is paused stays so. Takes at most 10 s.
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownIdp`].
    pub async fn reach_idp(&self, name: &str) -> Result<Reached, Error> {
        let core = &self.shared.core;
        let provider = core.provider(name).ok_or(Error::UnknownIdp)?;
        let asked = core.runtime.spawn(async move { provider.client.reach(&provider.idp).await });
        let answer = asked.await.map_err(|_| Error::ShutDown)?;
        let date = answer.as_ref().ok().and_then(|(_, date)| date.map(SystemTime::from));
        Ok(Reached { answer: answer.map(|(status, _)| status), date })
    }
}
