//! What every code means, and what to do about it: those of errors, the reasons beside them, and what stands in for the
//! words of an identity provider that had none.
//!
//! Sorted by when one meets them. To add a code, add it here: a test finds those that are missing.

/// The text behind a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// The code.
    pub code: &'static str,
    /// What has happened.
    pub means: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl Why {
    /// The text behind a code of ours, or of OAuth (RFC 6749). None of a code that is an identity provider's own.
    pub fn of(code: &str) -> Option<Self> {
        let status = code.strip_prefix("http_").and_then(|rest| rest.parse().ok());
        let status = status.is_some_and(|status: u16| (100..600).contains(&status));
        let code = if status { "http_STATUS" } else { code };
        Self::all().find(|why| why.code == code)
    }

    /// All that is known. The status of HTTP in `http_STATUS` stands for any.
    pub fn all() -> impl Iterator<Item = Self> {
        CODES.into_iter().map(|(code, means, advice)| Self { code, means, advice })
    }
}

const CODES: [(&str, &str, &str); 60] = [
    // Errors: the codes of the API.
    (
        "unknown_idp",
        "The key names an identity provider that is not configured.",
        "Add a section [idp.NAME] to the configuration, or fix the name.",
    ),
    (
        "not_connected",
        "Nothing is stored for the key, or it was disconnected.",
        "Send the user through consent, then connect.",
    ),
    (
        "reconnect_required",
        "The grant cannot be refreshed any more: the identity provider ended it, or nobody can know what became \
         of it. Beside it stands a reason and since when. What is stored stays.",
        "Send the user through consent again, then connect. Ask `why` about the reason.",
    ),
    (
        "duplicate_grant",
        "The refresh token is live under another key. Two keys that spend it would log the user out.",
        "Use the other key, or disconnect it first.",
    ),
    (
        "account_mismatch",
        "The tokens belong to another user of the identity provider than those the key holds. Nothing was mixed.",
        "Disconnect the key first if the user has changed, or connect under another account of the key.",
    ),
    ("generation_mismatch", "The grant has changed since it was read.", "Read it again, and decide anew."),
    (
        "invalid_request",
        "Something of the request is not as it should be, as the error says; or an identity provider said so of \
         ours.",
        "Fix the request. If an identity provider said it: check the settings of its section.",
    ),
    (
        "min_ttl_unsatisfiable",
        "No token of this identity provider lives as long as was asked for.",
        "Ask for less; the error says how much can be had.",
    ),
    (
        "unauthorized",
        "The request has no API key, or one that is not known.",
        "Present a key from the configuration: `token-supervisor apikey new` makes one.",
    ),
    (
        "forbidden",
        "The API key is not good for this: its scopes, identity providers or users are others.",
        "Present another key, or give this one the scope.",
    ),
    ("busy", "Too many callers wait already.", "Slow down, and try again after the time that the error says."),
    (
        "unavailable",
        "There is no valid token now, and no telling whether there will be: a reason stands beside it.",
        "Try again after the time that the error says. Ask `why` about the reason.",
    ),
    (
        "timeout",
        "The deadline passed before there was an answer. Of an attempt: the identity provider did not answer.",
        "Try again; what was started goes on. An attempt is settled by itself.",
    ),
    (
        "internal",
        "Something is wrong with the program, its configuration or its store, as the error says.",
        "Do what the error says; if it says nothing else, report it.",
    ),
    // Reasons beside `unavailable`.
    (
        "idp_throttled",
        "The identity provider asked to slow down (429, or Retry-After).",
        "Nothing: it is asked again when it said. If it happens often, lower requests_per_second.",
    ),
    (
        "idp_down",
        "The identity provider does not answer, or not as it should, several times in a row. One request at a \
         time finds out when it does.",
        "Nothing, unless it is well: then look at the network, and at `token-supervisor doctor`.",
    ),
    (
        "idp_held",
        "People hold the identity provider: nothing is sent to it, valid tokens are served.",
        "Release it when the reason is gone.",
    ),
    (
        "held",
        "People hold the grant: nothing is sent for it, its valid token is served.",
        "Release it when the reason is gone: `token-supervisor release IDP USER`.",
    ),
    (
        "in_doubt",
        "A refresh token was sent, and no answer is known: it may be spent. It is found out whether it is; where \
         nobody can, the user must reconnect.",
        "Nothing: it is settled by itself. If it ended in reconnect_required, send the user through consent.",
    ),
    (
        "client_refused",
        "The identity provider refused our client (invalid_client and the like). No grant was touched; one \
         request at a time finds out when it is well.",
        "Check client_id, client_secret and scope in the section of the identity provider.",
    ),
    (
        "client_unknown",
        "The grant was issued to a client that is not configured; another client cannot refresh it.",
        "Configure that client, too (clients = [..]), or send the user through consent again.",
    ),
    (
        "store_down",
        "The store does not answer, or what it answers does not open with the keys.",
        "Look at the database and its disk, and at the key file.",
    ),
    ("stopping", "The process is shutting down.", "Ask again in a moment: the next process answers."),
    (
        "failing",
        "What handles this grant failed several times in a minute, and is left alone for a while.",
        "Report it, with the log.",
    ),
    // Why nothing was changed.
    (
        "just_refreshed",
        "The grant has just been refreshed: another refresh would only cost the identity provider.",
        "Nothing.",
    ),
    ("already_connected", "This very refresh token is what the key holds.", "Nothing."),
    (
        "token_already_spent",
        "This refresh token was spent here before; what came of it is stored. It is an old copy.",
        "Nothing; if the user has to be connected anew, send them through consent.",
    ),
    (
        "refresh_in_flight",
        "A refresh is under way or in doubt, and an access token without a refresh token does not replace it.",
        "Nothing: what comes of it is stored.",
    ),
    // How good a token was.
    (
        "refresh_failing",
        "The token is valid, but its refresh fails and is tried again.",
        "Nothing yet; `status` says why it fails.",
    ),
    (
        "rejected",
        "A resource server refused the token right after it was issued, so that another one would hardly fare \
         better.",
        "Check what the token is allowed to do; it is replaced in a moment.",
    ),
    // What we found ourselves where an identity provider gave no token and no reason.
    (
        "http_STATUS",
        "The identity provider answered with this status of HTTP, and with nothing that says more.",
        "Nothing if it is a 5xx: it is tried again. Else check the URLs in its section.",
    ),
    (
        "connect_failed",
        "No connection to the identity provider could be made: nothing was sent.",
        "Nothing: it is tried again. If it stays, look at the network, DNS and token_url.",
    ),
    (
        "connection_lost",
        "The connection was lost after the request may have been sent.",
        "Nothing: it is settled by itself.",
    ),
    (
        "unanswered",
        "The request was sent, and the process that sent it is gone without an answer.",
        "Nothing: it is settled by itself.",
    ),
    ("incomplete_answer", "The answer ended before its end.", "Nothing: it is settled by itself."),
    (
        "unreadable_answer",
        "The answer is neither JSON nor a form: usually a page of a proxy.",
        "Check token_url, and what stands between here and there.",
    ),
    ("answer_too_large", "The answer is larger than any token answer.", "Check token_url."),
    ("no_access_token", "The answer has no access token.", "Check token_url, and the preset."),
    (
        "no_refresh_token",
        "The answer has no refresh token, although this identity provider gives a new one each time.",
        "Check `rotation` in its section.",
    ),
    (
        "contradictory_answer",
        "The answer has a token and an error.",
        "Report it to the identity provider, with the request's id.",
    ),
    (
        "no_revocation_url",
        "The identity provider has no endpoint to revoke tokens.",
        "Nothing: the tokens end by themselves.",
    ),
    ("bad_request", "The request could not be written.", "Check the URLs and params in its section."),
    (
        "does_not_open",
        "The stored refresh token does not open with the keys of the key file.",
        "Start with the key file it was sealed with; restore it from its backup.",
    ),
    (
        "unknown",
        "The identity provider gave a reason that cannot be shown, because it repeats a secret.",
        "Look at the status beside it.",
    ),
    // OAuth's own (RFC 6749, section 5.2) and the most usual of others.
    (
        "invalid_grant",
        "The identity provider does not accept the refresh token: revoked by the user or an administrator, \
         expired, or spent by somebody else.",
        "Send the user through consent again. If it happens to many users: does another program spend the same \
         grants?",
    ),
    (
        "bad_refresh_token",
        "GitHub's word for invalid_grant: the refresh token is revoked, expired or spent.",
        "Send the user through consent again.",
    ),
    (
        "invalid_client",
        "The identity provider does not know our client, or its secret is wrong. No grant was touched.",
        "Check client_id, client_secret and client_auth in its section.",
    ),
    (
        "incorrect_client_credentials",
        "GitHub's word for invalid_client.",
        "Check client_id and client_secret in its section.",
    ),
    (
        "unauthorized_client",
        "Our client may not do this at the identity provider. No grant was touched.",
        "Allow the client refresh tokens there; check client_id.",
    ),
    (
        "unsupported_grant_type",
        "The identity provider does not do refresh tokens at this URL. No grant was touched.",
        "Check token_url, and what the client is allowed there.",
    ),
    (
        "invalid_scope",
        "The identity provider does not give the scope that was asked for. No grant was touched.",
        "Check `scope` in its section: usually it is best left out.",
    ),
    (
        "invalid_token",
        "The identity provider does not know the token.",
        "Nothing if it was to be revoked: it is gone. Else send the user through consent again.",
    ),
    (
        "interaction_required",
        "The identity provider wants to see the user again.",
        "Send the user through consent again.",
    ),
    (
        "consent_required",
        "The user, or an administrator, has to consent again.",
        "Send the user through consent again.",
    ),
    (
        "login_required",
        "The identity provider wants the user to sign in again.",
        "Send the user through consent again.",
    ),
    (
        "access_denied",
        "The user or an administrator refused.",
        "Ask the user whether they want it; then send them through consent again.",
    ),
    (
        "temporarily_unavailable",
        "The identity provider is overloaded or under maintenance.",
        "Nothing: it is tried again.",
    ),
    ("server_error", "Something failed at the identity provider.", "Nothing: it is tried again."),
    (
        "slow_down",
        "The identity provider is asked too often.",
        "Nothing: it is asked again later. If it happens often, lower requests_per_second.",
    ),
    ("revoking", "Tokens of the grant wait for their revocation at the identity provider.", "Purge it later."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::error::{self, Error};

    /// Where codes of ours are made, and how.
    const SOURCES: [(&str, &[&str]); 5] = [
        (include_str!("idp/http.rs"), &["ours(\"", "never(\"", "Some(\""]),
        (include_str!("idp/outcome.rs"), &["unknown(\"", "&str = \""]),
        (include_str!("protocol/ending.rs"), &["ours(\""]),
        (include_str!("protocol/transition.rs"), &["ours(\""]),
        (include_str!("supervisor/refresh/attempt.rs"), &["ours(\"", "unsendable(\""]),
    ];

    #[test]
    fn every_code_that_is_made_has_its_text() {
        let mut made = BTreeSet::new();
        for (source, marks) in SOURCES {
            for mark in marks {
                made.extend(source.split(mark).skip(1).filter_map(|rest| rest.split_once('"')).map(|(code, _)| code));
            }
        }
        assert!(made.contains("connect_failed") && made.contains("incomplete_answer"), "{made:?}");
        for (error, code, ..) in error::tests::every() {
            made.insert(code);
            made.extend(if let Error::Unavailable { cause, .. } = error { Some(cause.as_str()) } else { None });
        }
        for code in made {
            assert!(Why::of(code).is_some(), "{code}");
        }
        assert_eq!(Why::of("http_502").map(|why| why.code), Some("http_STATUS"));
        assert_eq!([Why::of("http_x"), Why::of("http_999")], [None, None]);
    }

    #[test]
    fn every_text_is_whole_and_stands_once() {
        let mut seen = BTreeSet::new();
        for Why { code, means, advice } in Why::all() {
            assert!(seen.insert(code), "{code} twice");
            assert!([means, advice].iter().all(|text| text.ends_with(['.', '?'])), "{code}");
        }
    }
}
