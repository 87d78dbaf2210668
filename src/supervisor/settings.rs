//! The settings: the times of refreshes, with the overrides of identity providers resolved, and the supervisor's limits.

use std::time::Duration;

use crate::{
    idp::{Idp, InDoubt, Rotation},
    protocol::doubt::{ProbeMeans, Rules},
};

/// The times of a refresh. Each can also be set per identity provider.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefreshSettings {
    pub(crate) margin: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) patience: Duration,
    pub(crate) send_window: Duration,
    pub(crate) settle: Duration,
    pub(crate) lease: Duration,
    pub(crate) in_doubt: InDoubt,
    /// What `settle` must be at least: a statement that was given up must not be carried out after it.
    pub(super) least_settle: Duration,
}

impl Default for RefreshSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            margin: seconds(300),
            connect_timeout: seconds(5),
            attempt_timeout: seconds(15),
            patience: seconds(120),
            send_window: seconds(5),
            settle: seconds(30),
            lease: seconds(20),
            in_doubt: InDoubt::Ask,
            least_settle: Duration::ZERO,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: Duration) -> Self {
            self.$name = $name;
            self
        })*
    };
}

impl RefreshSettings {
    setters! {
        /// Sets how long before its expiry a token is refreshed (5 min; at most a quarter of its lifetime).
        margin,
        /// Sets the timeout of connecting to the identity provider (5 s).
        connect_timeout,
        /// Sets how long a response is awaited (15 s).
        attempt_timeout,
        /// Sets how long a response is awaited where a second request would end the grant (120 s).
        patience,
        /// Sets how long after its claim was issued a request may still be written (5 s).
        send_window,
        /// Sets how long after its sender ended a request may still be processed by the identity provider (30 s).
        settle,
        /// Sets how long a lease lasts; it is renewed after a third of that while the attempt runs (20 s).
        lease,
    }

    pub(super) fn with_least_settle(self, least_settle: Duration) -> Self {
        Self { least_settle, ..self }
    }

    /// Sets what happens to a doubt that cannot be resolved ([`InDoubt::Ask`]).
    pub fn in_doubt(mut self, in_doubt: InDoubt) -> Self {
        self.in_doubt = in_doubt;
        self
    }
}

#[cfg(feature = "config")]
impl RefreshSettings {
    /// Returns the identity provider with these times where it has none of its own.
    pub(crate) fn complete(&self, mut idp: Idp) -> Idp {
        let own = &mut idp.timing;
        for (own, common) in [
            (&mut own.margin, self.margin),
            (&mut own.connect_timeout, self.connect_timeout),
            (&mut own.attempt_timeout, self.attempt_timeout),
            (&mut own.patience, self.patience),
            (&mut own.send_window, self.send_window),
            (&mut own.settle, self.settle),
            (&mut own.lease, self.lease),
        ] {
            own.get_or_insert(common);
        }
        idp.in_doubt.get_or_insert(self.in_doubt);
        idp
    }

    /// Checks that the times of an identity provider fit together.
    ///
    /// # Errors
    /// How they contradict each other.
    pub(crate) fn check(&self, idp: &Idp) -> Result<(), String> {
        Times::of(idp, self).map(drop)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) waiters_per_grant: usize,
    pub(crate) idle_after: Duration,
    pub(crate) sweep_every: Duration,
    /// How long a tombstone is kept before it is purged.
    pub(crate) tombstones_kept: Duration,
    /// The sweeper starts no more attempts at a provider while this many run there.
    pub(super) swept_at_once: usize,
    /// The number of requests that may wait for their answers.
    pub(crate) requests_in_flight: usize,
    /// How long copies of what the store has are kept; zero for none.
    pub(crate) history_kept: Duration,
    /// How long published tokens are served while changes by other processes do not reach this one.
    pub(crate) served_unheard: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiters_per_grant: 16_384,
            idle_after: Duration::from_secs(600),
            sweep_every: Duration::from_secs(5),
            tombstones_kept: Duration::from_secs(30 * 24 * 3_600),
            swept_at_once: 1_024,
            requests_in_flight: 131_072,
            history_kept: Duration::from_secs(48 * 3_600),
            served_unheard: Duration::from_secs(300),
        }
    }
}

/// The times of one identity provider: its own where it has some, else the common ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) margin: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) rules: Rules,
}

/// The longest time that can be set: sums of times stay far below what a duration can hold.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);

impl Times {
    /// # Errors
    /// The times contradict each other; the text says how.
    pub(super) fn of(idp: &Idp, common: &RefreshSettings) -> Result<Self, String> {
        let own = &idp.timing;
        let attempt = own.attempt_timeout.unwrap_or(common.attempt_timeout);
        let grace = idp.reuse_grace;
        let never_rotates = idp.rotation == Rotation::Never;
        // The response that is not awaited can be had again.
        let patient = grace.is_zero() && !never_rotates && !idp.retry_safe;
        let rules = Rules {
            settle: own.settle.unwrap_or(common.settle),
            send_window: own.send_window.unwrap_or(common.send_window),
            patience: if patient { own.patience.unwrap_or(common.patience).max(attempt) } else { attempt },
            lease: own.lease.unwrap_or(common.lease),
            grace,
            retry_safe: idp.retry_safe,
            try_in_doubt: idp.in_doubt.unwrap_or(common.in_doubt) == InDoubt::Try,
            never_rotates,
            probe: match (&idp.introspection_url, &idp.userinfo_url) {
                (Some(_), _) => ProbeMeans::Introspection,
                (None, Some(_)) if idp.rotation_ends_access_token => ProbeMeans::AccessToken,
                (None, _) => ProbeMeans::Absent,
            },
        };
        let all = [rules.settle, rules.send_window, rules.patience, rules.lease, grace, attempt];
        if all.iter().any(|time| *time > LONGEST) {
            return Err("no time may be longer than a year".to_owned());
        }
        if rules.lease.is_zero() || attempt.is_zero() || rules.send_window.is_zero() {
            return Err("lease, attempt_timeout and send_window must be longer than zero".to_owned());
        }
        if rules.settle < common.least_settle && !never_rotates {
            return Err(format!(
                "settle ({:?}) must be at least {:?} with a PostgreSQL store, whose statements take up to that long",
                rules.settle, common.least_settle
            ));
        }
        let needed = rules.lease + rules.send_window + rules.settle + attempt;
        if !grace.is_zero() && !never_rotates && needed >= grace {
            return Err(format!(
                "lease + send_window + settle + attempt_timeout ({needed:?}) must be shorter than the reuse grace ({grace:?})"
            ));
        }
        let margin = own.margin.unwrap_or(common.margin);
        Ok(Self { margin, connect_timeout: own.connect_timeout.unwrap_or(common.connect_timeout), rules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::*;

    #[test]
    fn the_times_of_every_preset_fit_together() {
        let secret = "ts-test-secret-client";
        for idp in [
            atlassian("id", secret),
            bitbucket("id", secret),
            box_com("id", secret),
            discord("id", secret),
            entra("common", "id", secret),
            github("id", secret),
            gitlab("id", secret),
            google("id", secret),
            hubspot("id", secret),
            keycloak("https://sso.example", "app", "id", secret),
            okta("https://acme.okta.com/oauth2", "id", secret),
            salesforce("id", secret),
            slack("id", secret),
            zoom("id", secret),
        ] {
            if let Err(error) = Times::of(&idp, &RefreshSettings::default()) {
                panic!("{error}: {idp:?}");
            }
        }
    }
}
