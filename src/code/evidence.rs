//! What this program finds itself, without a token or a reason from the identity provider.

use std::fmt;

use super::{
    error::{Cause, Code},
    why::{Coded, Why, codes},
};

codes! {
    /// What this program finds itself where an identity provider gave no token and no reason.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum EvidenceCode {
        /// Nothing was sent.
        ConnectFailed => Why::new(
            "connect_failed",
            "No connection to the identity provider could be made: nothing was sent. The detail says why: dns, tls, refused, \
             unreachable or connect_timeout.",
            "Nothing: it is retried. If it persists, run `why` with the detail; check the network, DNS and token_url.",
        ),
        ConnectionLost => Why::new(
            "connection_lost",
            "The connection was lost after the request may have been sent.",
            "Nothing: it is settled automatically.",
        ),
        Timeout => Code::Timeout.why(),
        Unanswered => Why::new(
            "unanswered",
            "The request was sent, and the process that sent it ended before a response arrived.",
            "Nothing: it is settled automatically.",
        ),
        IncompleteAnswer => Why::new(
            "incomplete_answer",
            "The response broke off before its end.",
            "Nothing: it is settled automatically.",
        ),
        UnreadableAnswer => Why::new(
            "unreadable_answer",
            "The response is neither JSON nor a form: usually it is the page of a proxy.",
            "Check token_url, and any proxy between this machine and the provider.",
        ),
        AnswerTooLarge => Why::new(
            "answer_too_large",
            "The response is larger than any token response.",
            "Check token_url.",
        ),
        NoAccessToken => Why::new(
            "no_access_token",
            "The response has no access token.",
            "Check token_url, and the preset.",
        ),
        BadRefreshToken => Why::new(
            "bad_refresh_token_value",
            "The response has a refresh token that cannot be one: it contains spaces, control characters or characters \
             that cannot be read for certain.",
            "Report it to the identity provider, with the request's id.",
        ),
        ExpiredAccessToken => Why::new(
            "expired_access_token",
            "The response has an access token that had expired already when it arrived. The refresh token is kept.",
            "Nothing: it is retried. If it persists, check the clocks of this machine and of the provider.",
        ),
        NoRefreshToken => Why::new(
            "no_refresh_token",
            "There is no refresh token. As the reason of reconnect_required, and as a warning: the grant was connected without \
             one, so it ends with its access token. As the error of a refresh: the response has none, although this \
             identity provider issues a new one each time.",
            "Send the user through consent again, and ask the provider for a refresh token there (often the scope \
             offline_access). As the error of a refresh: check `rotation` in the section of the provider.",
        ),
        ContradictoryAnswer => Why::new(
            "contradictory_answer",
            "The response has both a token and an error.",
            "Report it to the identity provider, with the request's id.",
        ),
        NoRevocationUrl => Why::new(
            "no_revocation_url",
            "The identity provider has no endpoint to revoke tokens.",
            "Nothing: the tokens expire.",
        ),
        BadRequest => Why::new(
            "bad_request",
            "The request could not be built.",
            "Check the URLs and params in its section.",
        ),
        DoesNotOpen => Why::new(
            "does_not_open",
            "The stored refresh token cannot be decrypted with the keys of the key file.",
            "Start with the key file that it was sealed with; restore the file from its backup.",
        ),
        InvalidErrorCode => Why::new(
            "invalid_error_code",
            "The identity provider gave an error code that is not shown, because it repeats a secret.",
            "Check the HTTP status beside it. Change the secret at the provider if its responses may be logged elsewhere.",
        ),
        AccountMismatch => Code::AccountMismatch.why(),
        ClientUnknown => Cause::ClientUnknown.why(),
        InDoubt => Cause::InDoubt.why(),
    }
}

impl EvidenceCode {
    /// Codes whose texts stand among the errors and their causes.
    pub(super) const SHARED: [&str; 4] = [
        Code::Timeout.as_str(),
        Code::AccountMismatch.as_str(),
        Cause::ClientUnknown.as_str(),
        Cause::InDoubt.as_str(),
    ];
}

codes! {
    /// Why there is no connection to an identity provider: the detail beside `connect_failed`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum ConnectFault {
        Dns => Why::new(
            "dns",
            "The name of the identity provider's host could not be resolved: nothing was sent.",
            "Check the host in token_url, and the DNS of this machine (/etc/resolv.conf).",
        ),
        Tls => Why::new(
            "tls",
            "The host of the identity provider was reached, but the TLS handshake failed: its certificate is expired, is for \
             another name, or comes from a CA that this machine does not trust; or what responds there speaks no TLS. \
             Nothing was sent.",
            "Check the host and the port in token_url, the clock, and the CA certificates of this machine (package \
             ca-certificates).",
        ),
        Refused => Why::new(
            "refused",
            "The host of the identity provider refused the connection: nothing listens at the port, or a firewall rejects \
             it. Nothing was sent.",
            "Check the host and the port in token_url, and the firewall.",
        ),
        Unreachable => Why::new(
            "unreachable",
            "There is no route to the host of the identity provider. Nothing was sent.",
            "Check the network of this machine, and whether it has IPv6 if the host has no IPv4 address.",
        ),
        ConnectTimeout => Why::new(
            "connect_timeout",
            "The host of the identity provider did not accept the connection in time, TLS included. Nothing was sent.",
            "Check the firewall and the network; raise connect_timeout_seconds if the provider is far away.",
        ),
    }
}
