//! The format of each provider's requests and responses, as data. The presets name the sources.

use crate::testing::refusal::Refusal;

/// The format of a provider's requests and responses.
#[derive(Debug)]
pub(in crate::testing) struct Wire {
    pub(in crate::testing) name: &'static str,
    /// Whether responses are `application/x-www-form-urlencoded` instead of JSON.
    pub(in crate::testing) form: bool,
    pub(in crate::testing) auth: WireAuth,
    pub(in crate::testing) token_type: &'static str,
    pub(in crate::testing) scope: &'static str,
    pub(in crate::testing) scope_field: &'static str,
    /// Whether responses state the lifetime of the access token.
    pub(in crate::testing) expires_in: bool,
    pub(in crate::testing) created_at: bool,
    /// Whether a response without a new refresh token repeats the old one.
    pub(in crate::testing) repeats_refresh_token: bool,
    /// The field with the refresh token's lifetime in seconds (Keycloak's 0 means unlimited).
    pub(in crate::testing) refresh_lifetime: Option<(&'static str, u64)>,
    /// Fields of a success that a client does not need; values are JSON or plain text.
    pub(in crate::testing) noise: &'static [(&'static str, &'static str)],
    /// Status and code for a refused refresh token.
    pub(in crate::testing) refusal: (u16, &'static str),
    pub(in crate::testing) reasons: Reasons,
    /// Status, code and description for wrong client credentials.
    pub(in crate::testing) wrong_client: (u16, &'static str, &'static str),
    /// The status of every error, if the provider uses only one.
    pub(in crate::testing) error_status: Option<u16>,
    /// The names of the fields for an error's code and description.
    pub(in crate::testing) error_fields: (&'static str, Option<&'static str>),
    /// Further fields of errors with this code; an empty code stands for all errors.
    pub(in crate::testing) error_noise: &'static [(&'static str, &'static str, &'static str)],
    /// The response body when a token is revoked that was never issued.
    pub(in crate::testing) unknown_revoked: &'static str,
    /// The header with the request ID, for the provider's support.
    pub(in crate::testing) correlation: &'static str,
}

/// Where the provider accepts the client's ID and secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing) enum WireAuth {
    Params,
    Basic,
    Either,
}

/// The description for each reason of a refusal.
#[derive(Clone, Copy, Debug)]
pub(in crate::testing) struct Reasons {
    unknown: &'static str,
    reused: &'static str,
    dead: &'static str,
    ended: &'static str,
}

impl Reasons {
    const fn one(text: &'static str) -> Self {
        Self { unknown: text, reused: text, dead: text, ended: text }
    }

    pub(in crate::testing) fn of(&self, refusal: Refusal) -> &'static str {
        match refusal {
            Refusal::Unknown => self.unknown,
            Refusal::Reused | Refusal::Superseded => self.reused,
            Refusal::FamilyDead => self.dead,
            Refusal::Ended | Refusal::Revoked => self.ended,
        }
    }
}

pub(super) static OAUTH2: Wire = Wire {
    name: "oauth2",
    form: false,
    auth: WireAuth::Either,
    token_type: "Bearer",
    scope: "read write",
    scope_field: "scope",
    expires_in: true,
    created_at: false,
    repeats_refresh_token: false,
    refresh_lifetime: None,
    noise: &[],
    refusal: (400, "invalid_grant"),
    reasons: Reasons::one("the refresh token is invalid, expired or revoked"),
    wrong_client: (401, "invalid_client", "Invalid client or Invalid client credentials"),
    error_status: None,
    error_fields: ("error", Some("error_description")),
    error_noise: &[],
    unknown_revoked: "",
    correlation: "x-request-id",
};

pub(super) static GITHUB: Wire = Wire {
    name: "github",
    form: true,
    auth: WireAuth::Params,
    token_type: "bearer",
    scope: "",
    refresh_lifetime: Some(("refresh_token_expires_in", 15_897_600)),
    refusal: (200, "bad_refresh_token"),
    reasons: Reasons::one("The refresh token passed is incorrect or expired."),
    wrong_client: (200, "incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect."),
    error_status: Some(200),
    correlation: "x-github-request-id",
    ..OAUTH2
};

pub(super) static GITLAB: Wire = Wire {
    name: "gitlab",
    scope: "api read_user",
    created_at: true,
    reasons: Reasons::one(
        "The provided authorization grant is invalid, expired, revoked, or was issued to another client.",
    ),
    unknown_revoked: "{}",
    ..OAUTH2
};

pub(super) static BITBUCKET: Wire = Wire {
    name: "bitbucket",
    auth: WireAuth::Basic,
    token_type: "bearer",
    scope: "account repository",
    scope_field: "scopes",
    noise: &[("state", "refresh_token")],
    reasons: Reasons::one("Invalid refresh_token"),
    ..OAUTH2
};

pub(super) static KEYCLOAK: Wire = Wire {
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
    wrong_client: (401, "unauthorized_client", "Invalid client or Invalid client credentials"),
    unknown_revoked: r#"{"error":"invalid_token","error_description":"Invalid token"}"#,
    ..OAUTH2
};

pub(super) static GOOGLE: Wire = Wire {
    name: "google",
    auth: WireAuth::Params,
    scope: "https://www.googleapis.com/auth/drive.metadata.readonly",
    reasons: Reasons::one("Token has been expired or revoked."),
    wrong_client: (401, "invalid_client", "The OAuth client was not found."),
    ..OAUTH2
};

pub(super) static ENTRA: Wire = Wire {
    name: "entra",
    auth: WireAuth::Params,
    scope: "https://graph.microsoft.com/User.Read",
    noise: &[("ext_expires_in", "3600"), ("refresh_in", "1800")],
    reasons: Reasons::one("AADSTS50173: The provided grant has expired due to it being revoked."),
    wrong_client: (401, "invalid_client", "AADSTS7000215: Invalid client secret provided."),
    error_noise: &[
        ("invalid_grant", "error_codes", "[50173]"),
        ("invalid_grant", "suberror", "bad_token"),
        ("invalid_client", "error_codes", "[7000215]"),
        ("", "timestamp", "2026-11-01 10:00:00Z"),
        ("", "trace_id", "8d5b3a52-6d1c-4f0f-9b57-0d9d5f6a0100"),
        ("", "correlation_id", "3f1c2c8e-0a0b-4a7b-8a43-6a4f9b7d2200"),
    ],
    correlation: "x-ms-request-id",
    ..OAUTH2
};

pub(super) static OKTA: Wire = Wire {
    name: "okta",
    auth: WireAuth::Basic,
    scope: "openid offline_access",
    reasons: Reasons::one("The refresh token is invalid or expired."),
    wrong_client: (401, "invalid_client", "The client secret supplied for a confidential client is invalid."),
    correlation: "x-okta-request-id",
    ..OAUTH2
};

pub(super) static SLACK: Wire = Wire {
    name: "slack",
    token_type: "bot",
    scope: "chat:write,channels:read",
    noise: &[
        ("ok", "true"),
        ("app_id", "A0123"),
        ("bot_user_id", "U0123"),
        ("team", r#"{"id":"T0123","name":"acme"}"#),
    ],
    refusal: (200, "invalid_refresh_token"),
    wrong_client: (200, "bad_client_secret", ""),
    error_status: Some(200),
    error_fields: ("error", None),
    error_noise: &[("", "ok", "false")],
    correlation: "x-slack-req-id",
    ..OAUTH2
};

pub(super) static SALESFORCE: Wire = Wire {
    name: "salesforce",
    auth: WireAuth::Params,
    scope: "api refresh_token",
    expires_in: false,
    noise: &[
        ("instance_url", "https://acme.my.salesforce.com"),
        ("id", "https://login.salesforce.com/id/00D000000000001EAA/005000000000001AAA"),
        ("issued_at", r#""1796119200000""#),
        ("signature", "0CmxinZir53Yex7nE0TD+zMpvIWYGb/bdJh6XfOH6EQ="),
    ],
    reasons: Reasons::one("expired access/refresh token"),
    wrong_client: (400, "invalid_client", "invalid client credentials"),
    ..OAUTH2
};

pub(super) static HUBSPOT: Wire = Wire {
    name: "hubspot",
    auth: WireAuth::Params,
    token_type: "bearer",
    scope: "oauth crm.objects.contacts.read",
    repeats_refresh_token: true,
    refusal: (400, "BAD_REFRESH_TOKEN"),
    reasons: Reasons::one("missing or invalid refresh token"),
    wrong_client: (400, "BAD_CLIENT_ID", "missing or unknown client id"),
    error_fields: ("status", Some("message")),
    error_noise: &[("", "correlationId", "aeb5f871-7f07-4993-9211-075dc63e7cbf")],
    correlation: "x-hubspot-correlation-id",
    ..OAUTH2
};

pub(super) static ATLASSIAN: Wire = Wire {
    name: "atlassian",
    auth: WireAuth::Params,
    scope: "read:jira-work offline_access",
    refusal: (403, "invalid_grant"),
    reasons: Reasons::one("Unknown or invalid refresh token."),
    wrong_client: (401, "access_denied", "Unauthorized"),
    correlation: "atl-traceid",
    ..OAUTH2
};

pub(super) static BOX: Wire = Wire {
    name: "box",
    auth: WireAuth::Params,
    token_type: "bearer",
    noise: &[("restricted_to", "[]")],
    reasons: Reasons {
        unknown: "Invalid refresh token",
        reused: "Invalid refresh token",
        dead: "Invalid refresh token",
        ended: "Refresh token has expired",
    },
    wrong_client: (400, "invalid_client", "The client credentials are invalid"),
    ..OAUTH2
};

pub(super) static DISCORD: Wire =
    Wire { name: "discord", scope: "identify guilds", error_fields: ("error", None), ..OAUTH2 };

pub(super) static ZOOM: Wire = Wire {
    name: "zoom",
    auth: WireAuth::Basic,
    token_type: "bearer",
    scope: "meeting:read",
    noise: &[("api_url", "https://api.zoom.us")],
    reasons: Reasons::one("Invalid Token!"),
    wrong_client: (400, "invalid_client", "Invalid client_id or client_secret"),
    error_fields: ("error", Some("reason")),
    correlation: "x-zm-trackingid",
    ..OAUTH2
};
