//! Texts of the codes that are not of an enumeration here: notes, and the usual codes of identity providers.

use super::why::Why;

/// The reason beside `"refreshed": false`.
pub(crate) const JUST_REFRESHED: Why = Why::new(
    "just_refreshed",
    "The grant has just been refreshed: another refresh would only burden the identity provider.",
    "Nothing.",
);

/// Why nothing was changed ([`Unchanged`](crate::Unchanged)), and how good a token is ([`Warning`](crate::Warning)).
pub(super) const NOTES: [Why; 6] = [
    JUST_REFRESHED,
    Why::new("already_connected", "The key already holds this refresh token.", "Nothing."),
    Why::new(
        "token_already_spent",
        "This refresh token is an old copy: it was spent here before, and its outcome is stored.",
        "Nothing; if the user has to be connected again, send the user through consent.",
    ),
    Why::new(
        "refresh_in_flight",
        "A refresh is under way or in doubt, and an access token without a refresh token does not replace it.",
        "Nothing: the outcome of the refresh is stored.",
    ),
    Why::new(
        "refresh_failing",
        "The token is valid, but its refresh fails and is retried.",
        "Nothing yet; `status` says why it fails.",
    ),
    Why::new(
        "rejected",
        "A resource server refused the token right after it was issued, so another token would probably be refused too.",
        "Check what the token is allowed to do; it is replaced in a moment.",
    ),
];

/// The states of a grant that are no reasons of their own, how fresh a token is, and what a server reports as degraded.
pub(super) const STATES: [Why; 12] = [
    Why::new("fresh", "The grant has a valid token that is not due for a refresh.", "Nothing."),
    Why::new("due", "The grant is due for a refresh, which starts by itself while a server runs.", "Nothing."),
    Why::new("refreshing", "A refresh of the grant is running.", "Nothing."),
    Why::new(
        "backoff",
        "The last refresh failed, and is retried. The current token is served until it expires.",
        "Look at `last_error` in the status, and run `why` with it: it says who must act.",
    ),
    Why::new(
        "revoked",
        "The grant is disconnected: its tokens are no longer handed out or refreshed.",
        "Nothing; `restore` undoes a disconnect if no token was revoked.",
    ),
    Why::new("absent", "Nothing is stored for the key.", "Send the user through consent, then connect."),
    Why::new("ageing", "The token is valid, and its refresh is running.", "Nothing."),
    Why::new("last_good", "The token is valid, but its refresh fails.", "Look at the warning beside it."),
    Why::new(
        "journal",
        "Responses of identity providers wait in the journal, because the store does not take them.",
        "Check the database and the space on its disk; keep the journal.",
    ),
    Why::new(
        "journal_damaged",
        "A journal was damaged when the process started: it was set aside, and its readable responses were kept. Grants whose \
         response was in the rest are in doubt.",
        "Put back a good copy of the file, or remove the damaged one: `doctor` names it.",
    ),
    Why::new(
        "unreadable_rows",
        "Stored grants cannot be read: they are damaged, or were changed by another program. All others are served.",
        "Run `doctor`, which names them. Restore the rows, or connect their users again.",
    ),
    Why::new("draining", "The server is shutting down.", "Nothing: the next process responds."),
];

pub(super) const HTTP_STATUS: Why = Why::new(
    "http_STATUS",
    "The identity provider responded with this HTTP status, and with nothing more specific.",
    "Nothing if it is a 5xx: it is retried. Otherwise check the URLs in its section.",
);

/// The error codes of OAuth (RFC 6749, section 5.2) and the most common ones of providers.
pub(super) const PROVIDERS: [Why; 26] = [
    Why::new(
        "invalid_grant",
        "The identity provider does not accept the refresh token: the user or an administrator revoked it, it has \
         expired, or another program spent it.",
        "Send the user through consent again. If it happens to many users: does another program spend the same grants?",
    ),
    Why::new(
        "bad_refresh_token",
        "GitHub's code for invalid_grant: the refresh token is revoked, expired or spent.",
        "Send the user through consent again.",
    ),
    Why::new(
        "invalid_client",
        "The identity provider does not know our client, or its secret is wrong. No grant was changed.",
        "Check client_id, client_secret and client_auth in its section.",
    ),
    Why::new(
        "incorrect_client_credentials",
        "GitHub's code for invalid_client.",
        "Check client_id and client_secret in its section.",
    ),
    Why::new(
        "unauthorized_client",
        "The identity provider does not permit our client to do this. No grant was changed.",
        "Allow the client refresh tokens there; check client_id.",
    ),
    Why::new(
        "unsupported_grant_type",
        "The identity provider does not support refresh tokens at this URL. No grant was changed.",
        "Check token_url, and what the client is allowed to do there.",
    ),
    Why::new(
        "invalid_scope",
        "The identity provider does not grant the requested scope. No grant was changed.",
        "Check `scope` in its section: usually it is best omitted.",
    ),
    Why::new(
        "invalid_token",
        "The identity provider does not know the token.",
        "Nothing if it was to be revoked: it is already revoked. Otherwise send the user through consent again.",
    ),
    Why::new(
        "interaction_required",
        "The identity provider requires the user to interact with it again.",
        "Send the user through consent again.",
    ),
    Why::new(
        "consent_required",
        "The user or an administrator must consent again.",
        "Send the user through consent again.",
    ),
    Why::new(
        "login_required",
        "The identity provider requires the user to sign in again.",
        "Send the user through consent again.",
    ),
    Why::new(
        "access_denied",
        "The user or an administrator refused.",
        "Ask the user whether access is wanted; then send the user through consent again.",
    ),
    Why::new(
        "account_selection_required",
        "The identity provider requires the user to select an account again.",
        "Send the user through consent again.",
    ),
    Why::new("token_expired", "The refresh token has expired.", "Send the user through consent again."),
    Why::new(
        "token_revoked",
        "The user or an administrator revoked the refresh token.",
        "Send the user through consent again.",
    ),
    Why::new(
        "invalid_refresh_token",
        "The identity provider does not know the refresh token: it is revoked, expired or spent.",
        "Send the user through consent again.",
    ),
    Why::new(
        "account_inactive",
        "The user's account at the identity provider is disabled.",
        "Ask the user or an administrator to enable it; then send the user through consent again.",
    ),
    Why::new(
        "bad_client_secret",
        "The identity provider does not accept our client's secret. No grant was changed.",
        "Check client_secret in its section.",
    ),
    Why::new(
        "invalid_client_id",
        "The identity provider does not know our client. No grant was changed.",
        "Check client_id in its section.",
    ),
    Why::new(
        "redirect_uri_mismatch",
        "The identity provider does not accept our client's redirect URI. No grant was changed.",
        "Check the client's settings at the identity provider.",
    ),
    Why::new(
        "ratelimited",
        "The identity provider receives requests too often.",
        "Nothing: it is retried later. If it happens often, lower requests_per_second.",
    ),
    Why::new(
        "internal_error",
        "The identity provider reports an internal failure; the refresh token may be spent.",
        "Nothing: it is settled automatically.",
    ),
    Why::new(
        "fatal_error",
        "The identity provider reports an internal failure; the refresh token may be spent.",
        "Nothing: it is settled automatically.",
    ),
    Why::new(
        "temporarily_unavailable",
        "The identity provider is overloaded or under maintenance.",
        "Nothing: it is retried.",
    ),
    Why::new("server_error", "The identity provider reports an internal failure.", "Nothing: it is retried."),
    Why::new(
        "slow_down",
        "The identity provider receives requests too often.",
        "Nothing: it is retried later. If it happens often, lower requests_per_second.",
    ),
];
