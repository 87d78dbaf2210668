//! Profiles: what each real identity provider does differently, as data.
//!
//! To add one: a `static` [`Wire`] with what is sent over the wire, a constructor on [`Profile`] with its kind and
//! lifetimes, and its preset in [`SimulatedIdp::idp`](super::SimulatedIdp::idp).

mod wire;

use std::time::Duration;

use self::wire::{
    ATLASSIAN, BITBUCKET, BOX, DISCORD, ENTRA, GITHUB, GITLAB, GOOGLE, HUBSPOT, KEYCLOAK, OAUTH2, OKTA, SALESFORCE,
    SLACK, ZOOM,
};
pub(super) use self::wire::{Wire, WireAuth};
use crate::model::ClientSecret;

/// What happens when a refresh token that was spent is presented again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It ends the whole family, the newest token included.
    Strict,
    /// It is refused; the family lives.
    Reject,
    /// Within the grace the same new tokens are given again; afterwards it ends the family.
    SamePair {
        /// How long after its first use a token may be used again.
        grace: Duration,
    },
    /// Within the grace another pair is given and the earlier one dies; afterwards it ends the family.
    LastWins {
        /// How long after its first use a token may be used again.
        grace: Duration,
    },
    /// Refresh tokens are not spent: they stay, and answers leave them out.
    NotRotating,
}

impl Kind {
    /// How long after its first use a token may be used again.
    pub fn grace(self) -> Option<Duration> {
        match self {
            Self::SamePair { grace } | Self::LastWins { grace } => Some(grace),
            Self::Strict | Self::Reject | Self::NotRotating => None,
        }
    }
}

/// How a simulated identity provider behaves: one of the presets, changed by setters.
///
/// The fields are there to be read, e.g. to configure a client for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// What a second use of a refresh token does.
    pub kind: Kind,
    /// How long access tokens live. Answers give it in whole seconds, rounded down.
    pub access_lifetime: Duration,
    /// Whether a refresh ends the access tokens given before it.
    pub ends_old_access: bool,
    /// The one client that is known.
    pub client_id: String,
    /// Its secret.
    pub client_secret: ClientSecret,
    pub(super) wire: &'static Wire,
}

impl Profile {
    /// GitHub App user tokens: answers are form-encoded whatever is asked for, errors come with 200.
    ///
    /// (The real one answers in JSON to `Accept: application/json`; the form is the harder case.)
    pub fn github() -> Self {
        Self::new(&GITHUB, Kind::Strict, hours(8)).ends_old_access(true)
    }

    /// GitLab: single-use refresh tokens; a refresh ends the old access token, too.
    pub fn gitlab() -> Self {
        Self::new(&GITLAB, Kind::Reject, hours(2)).ends_old_access(true)
    }

    /// Bitbucket Cloud: HTTP Basic only, `scopes` instead of `scope`, and ten minutes of grace.
    pub fn bitbucket() -> Self {
        Self::new(&BITBUCKET, Kind::SamePair { grace: Duration::from_secs(600) }, hours(2))
    }

    /// Keycloak with "revoke refresh token" and an offline session: a second use ends it.
    pub fn keycloak() -> Self {
        Self::new(&KEYCLOAK, Kind::Strict, Duration::from_secs(300))
    }

    /// Google: refresh tokens stay and are not repeated in answers.
    pub fn google() -> Self {
        Self::new(&GOOGLE, Kind::NotRotating, hours(1))
    }

    /// Microsoft Entra ID: a new refresh token each time, and the old one stays good for its 90 days.
    ///
    /// (The real one leaves every token alive that it gave; that a later answer ends the earlier is the harder case.)
    pub fn entra() -> Self {
        Self::new(&ENTRA, Kind::LastWins { grace: hours(90 * 24) }, hours(1))
    }

    /// Okta, for a client with rotation: 30 seconds of grace, then a second use ends the family.
    pub fn okta() -> Self {
        Self::new(&OKTA, Kind::LastWins { grace: Duration::from_secs(30) }, hours(1))
    }

    /// Slack with token rotation: every answer comes with 200, and `ok` says what it is.
    pub fn slack() -> Self {
        Self::new(&SLACK, Kind::Reject, hours(12))
    }

    /// Salesforce: answers do not say how long a token lives. With rotation, the app's setting, it is
    /// [`Kind::Strict`].
    pub fn salesforce() -> Self {
        Self::new(&SALESFORCE, Kind::NotRotating, hours(2))
    }

    /// HubSpot: the same refresh token comes back each time, and errors have a form of their own.
    pub fn hubspot() -> Self {
        Self::new(&HUBSPOT, Kind::NotRotating, Duration::from_secs(1_800))
    }

    /// Atlassian's cloud: errors come with 403; ten minutes of grace, then a second use ends the family.
    pub fn atlassian() -> Self {
        Self::new(&ATLASSIAN, Kind::LastWins { grace: Duration::from_secs(600) }, hours(1))
    }

    /// Box: single-use refresh tokens.
    pub fn box_com() -> Self {
        Self::new(&BOX, Kind::Reject, hours(1))
    }

    /// Discord: single-use refresh tokens, access tokens for a week.
    pub fn discord() -> Self {
        Self::new(&DISCORD, Kind::Reject, hours(7 * 24))
    }

    /// Zoom: HTTP Basic only, and a `reason` instead of a description.
    pub fn zoom() -> Self {
        Self::new(&ZOOM, Kind::Reject, hours(1))
    }

    /// Plain OAuth 2.0 of the given kind.
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

    /// The preset's name, such as `github`.
    pub fn name(&self) -> &'static str {
        self.wire.name
    }

    /// The scope that [`consent`](super::SimulatedIdp::consent) and refreshes give.
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

    /// Sets whether a refresh ends the access tokens given before it.
    pub fn ends_old_access(mut self, ends: bool) -> Self {
        self.ends_old_access = ends;
        self
    }

    /// Sets the client that is known.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        (self.client_id, self.client_secret) = (id.into(), secret.into());
        self
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}
