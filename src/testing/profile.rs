//! Profiles: what each real identity provider does differently, as data.
//!
//! To add one: a `static` [`Wire`] with what was seen on the wire, and a constructor on [`Profile`]
//! with its kind and lifetimes.

use std::time::Duration;

use super::family::Refusal;
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

    /// The preset's name: `github`, `gitlab`, `bitbucket`, `keycloak` or `oauth2`.
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

/// What an identity provider's requests and answers look like.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) name: &'static str,
    /// Answers as `application/x-www-form-urlencoded` instead of JSON.
    pub(super) form: bool,
    pub(super) auth: ClientAuth,
    pub(super) token_type: &'static str,
    pub(super) scope: &'static str,
    pub(super) scope_field: &'static str,
    pub(super) created_at: bool,
    /// The field with the refresh token's lifetime in seconds (Keycloak's 0 means for ever).
    pub(super) refresh_lifetime: Option<(&'static str, u64)>,
    /// Fields that mean nothing to a client but are there.
    pub(super) noise: &'static [(&'static str, &'static str)],
    /// The word for `invalid_grant`.
    pub(super) refusal: &'static str,
    pub(super) reasons: Reasons,
    pub(super) wrong_client: (u16, &'static str),
    /// The status of every error, for those that do not believe in statuses.
    pub(super) error_status: Option<u16>,
    /// The answer to the revocation of a token never issued.
    pub(super) unknown_revoked: &'static str,
}

/// Where the client's id and secret are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    Params,
    Basic,
    Either,
}

/// The `error_description`s of a refusal.
#[derive(Debug)]
pub(super) struct Reasons {
    unknown: &'static str,
    reused: &'static str,
    dead: &'static str,
    ended: &'static str,
}

impl Reasons {
    const fn one(text: &'static str) -> Self {
        Self { unknown: text, reused: text, dead: text, ended: text }
    }

    pub(super) fn of(&self, refusal: Refusal) -> &'static str {
        match refusal {
            Refusal::Unknown => self.unknown,
            Refusal::Reused | Refusal::Superseded => self.reused,
            Refusal::FamilyDead => self.dead,
            Refusal::Ended | Refusal::Revoked => self.ended,
        }
    }
}

static OAUTH2: Wire = Wire {
    name: "oauth2",
    form: false,
    auth: ClientAuth::Either,
    token_type: "Bearer",
    scope: "read write",
    scope_field: "scope",
    created_at: false,
    refresh_lifetime: None,
    noise: &[],
    refusal: "invalid_grant",
    reasons: Reasons::one("the refresh token is invalid, expired or revoked"),
    wrong_client: (401, "invalid_client"),
    error_status: None,
    unknown_revoked: "",
};

static GITHUB: Wire = Wire {
    name: "github",
    form: true,
    auth: ClientAuth::Params,
    token_type: "bearer",
    scope: "",
    refresh_lifetime: Some(("refresh_token_expires_in", 15_897_600)),
    refusal: "bad_refresh_token",
    reasons: Reasons::one("The refresh token passed is incorrect or expired."),
    wrong_client: (200, "incorrect_client_credentials"),
    error_status: Some(200),
    ..OAUTH2
};

static GITLAB: Wire = Wire {
    name: "gitlab",
    scope: "api read_user",
    created_at: true,
    reasons: Reasons::one(
        "The provided authorization grant is invalid, expired, revoked, or was issued to another client.",
    ),
    unknown_revoked: "{}",
    ..OAUTH2
};

static BITBUCKET: Wire = Wire {
    name: "bitbucket",
    auth: ClientAuth::Basic,
    token_type: "bearer",
    scope: "account repository",
    scope_field: "scopes",
    noise: &[("state", "refresh_token")],
    reasons: Reasons::one("Invalid refresh_token"),
    ..OAUTH2
};

static KEYCLOAK: Wire = Wire {
    name: "keycloak",
    scope: "openid offline_access",
    refresh_lifetime: Some(("refresh_expires_in", 0)),
    noise: &[("session_state", "0f6b2d0e-5d3c-4a67-9b1e-2f1d1c9a7e55"), ("not-before-policy", "0")],
    reasons: Reasons {
        unknown: "Invalid refresh token",
        reused: "Maximum allowed refresh token reuse exceeded",
        dead: "Session doesn't have required client",
        ended: "Session not active",
    },
    wrong_client: (401, "unauthorized_client"),
    unknown_revoked: r#"{"error":"invalid_token","error_description":"Invalid token"}"#,
    ..OAUTH2
};
