//! Profiles: the differences between real identity providers, as data.
//!
//! To add a profile, write a `static` [`Wire`] with its requests and responses, a constructor on [`Profile`] with its
//! kind and lifetimes, and its preset in [`SimulatedIdp::idp`](super::SimulatedIdp::idp).

mod wire;

use std::time::Duration;

use self::wire::{
    ATLASSIAN, BITBUCKET, BOX, DISCORD, ENTRA, GITHUB, GITLAB, GOOGLE, HUBSPOT, KEYCLOAK, OAUTH2, OKTA, SALESFORCE,
    SLACK, ZOOM,
};
pub(super) use self::wire::{Wire, WireAuth};
use crate::model::ClientSecret;

/// What happens when a spent refresh token is presented again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The whole family ends, including the newest token.
    Strict,
    /// The request is refused; the family stays valid.
    Reject,
    /// Within the grace period, the response repeats the same new tokens; afterwards, the family ends.
    SamePair {
        /// How long after its first use a token may be used again.
        grace: Duration,
    },
    /// Within the grace period, another pair is issued and replaces the earlier one; afterwards, the family ends.
    LastWins {
        /// How long after its first use a token may be used again.
        grace: Duration,
    },
    /// Until the new token is used, the response has another pair, which replaces the earlier one; afterwards, the family ends.
    /// FAPI 2.0 requires such a rotation.
    RetrySafe,
    /// Refresh tokens are not spent: they stay valid, and responses omit them.
    NotRotating,
}

impl Kind {
    /// Returns how long after its first use a token may be used again.
    pub fn grace(self) -> Option<Duration> {
        match self {
            Self::SamePair { grace } | Self::LastWins { grace } => Some(grace),
            Self::Strict | Self::Reject | Self::RetrySafe | Self::NotRotating => None,
        }
    }
}

/// How a simulated identity provider behaves: one of the presets, changed by setters.
///
/// The fields are public for reading, e.g. to configure a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// What a second use of a refresh token does.
    pub kind: Kind,
    /// How long access tokens live. Responses state it in whole seconds, rounded down.
    pub access_lifetime: Duration,
    /// Whether a refresh ends the access tokens issued before it.
    pub ends_old_access: bool,
    /// The ID of the only client that the provider knows.
    pub client_id: String,
    /// The secret of that client.
    pub client_secret: ClientSecret,
    pub(super) wire: &'static Wire,
}

impl Profile {
    /// GitHub App user tokens: responses are form-encoded whatever the client accepts, errors have status 200.
    ///
    /// (The real provider sends JSON if the client accepts it; the form is the harder case.)
    pub fn github() -> Self {
        Self::new(&GITHUB, Kind::Strict, hours(8)).ends_old_access(true)
    }

    /// GitLab: single-use refresh tokens; a refresh also ends the old access token.
    pub fn gitlab() -> Self {
        Self::new(&GITLAB, Kind::Reject, hours(2)).ends_old_access(true)
    }

    /// Bitbucket Cloud: HTTP Basic only, `scopes` instead of `scope`, and a grace period of ten minutes.
    pub fn bitbucket() -> Self {
        Self::new(&BITBUCKET, Kind::SamePair { grace: Duration::from_secs(600) }, hours(2))
    }

    /// Keycloak with "revoke refresh token" and an offline session: a second use ends the session.
    pub fn keycloak() -> Self {
        Self::new(&KEYCLOAK, Kind::Strict, Duration::from_secs(300))
    }

    /// Google: refresh tokens stay valid and are not repeated in responses.
    pub fn google() -> Self {
        Self::new(&GOOGLE, Kind::NotRotating, hours(1))
    }

    /// Microsoft Entra ID: each response has a new refresh token, and the old one stays valid for its 90 days.
    ///
    /// (The real provider keeps every token valid; here a later response replaces the earlier one, the harder case.)
    pub fn entra() -> Self {
        Self::new(&ENTRA, Kind::LastWins { grace: hours(90 * 24) }, hours(1))
    }

    /// Okta, for a client with rotation: after a grace period of 30 seconds, a second use ends the family.
    pub fn okta() -> Self {
        Self::new(&OKTA, Kind::LastWins { grace: Duration::from_secs(30) }, hours(1))
    }

    /// Slack with token rotation: every response has status 200, and `ok` tells success from error.
    pub fn slack() -> Self {
        Self::new(&SLACK, Kind::Reject, hours(12))
    }

    /// Salesforce: responses do not state the lifetime of a token. For an app with rotation, set
    /// [`Kind::Strict`].
    pub fn salesforce() -> Self {
        Self::new(&SALESFORCE, Kind::NotRotating, hours(2))
    }

    /// HubSpot: each response repeats the same refresh token, and errors have their own format.
    pub fn hubspot() -> Self {
        Self::new(&HUBSPOT, Kind::NotRotating, Duration::from_secs(1_800))
    }

    /// Atlassian's cloud: refusals have status 403; after a grace period of ten minutes, a second use ends the family.
    pub fn atlassian() -> Self {
        Self::new(&ATLASSIAN, Kind::LastWins { grace: Duration::from_secs(600) }, hours(1))
    }

    /// Box: single-use refresh tokens.
    pub fn box_com() -> Self {
        Self::new(&BOX, Kind::Reject, hours(1))
    }

    /// Discord: single-use refresh tokens, access tokens that live for a week.
    pub fn discord() -> Self {
        Self::new(&DISCORD, Kind::Reject, hours(7 * 24))
    }

    /// Zoom: HTTP Basic only, and errors have a `reason` instead of a description.
    pub fn zoom() -> Self {
        Self::new(&ZOOM, Kind::Reject, hours(1))
    }

    /// A plain OAuth 2.0 provider of the given kind.
    pub fn oauth2(kind: Kind) -> Self {
        Self::new(&OAUTH2, kind, hours(1))
    }

    fn new(wire: &'static Wire, kind: Kind, access_lifetime: Duration) -> Self {
        Self {
            kind,
            access_lifetime,
            ends_old_access: false,
            client_id: "simulated-client".to_owned(),
            client_secret: "ts-test-secret-client".into(),
            wire,
        }
    }

    /// Returns the preset's name, such as `github`.
    pub fn name(&self) -> &'static str {
        self.wire.name
    }

    /// Returns the scope that [`consent`](super::SimulatedIdp::consent) and refreshes grant.
    pub fn scope(&self) -> &'static str {
        self.wire.scope
    }

    /// Sets what a second use of a refresh token does.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets how long access tokens live.
    pub fn access_lifetime(mut self, lifetime: Duration) -> Self {
        self.access_lifetime = lifetime;
        self
    }

    /// Sets whether a refresh ends the access tokens issued before it.
    pub fn ends_old_access(mut self, ends: bool) -> Self {
        self.ends_old_access = ends;
        self
    }

    /// Sets the client that the provider knows.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        (self.client_id, self.client_secret) = (id.into(), secret.into());
        self
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}
