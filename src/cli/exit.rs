//! The end of a command: its exit code and, after a failure, why it failed and what to do next.

use std::{borrow::Cow, process::ExitCode};

use serde::Serialize;
use token_supervisor::{
    Cause, Code, Error, TokenKey,
    api::{ProblemBody, time::rfc3339},
    config::ConfigError,
};

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    /// Wrong usage, or a wrong configuration.
    Usage,
    /// The user must go through consent again.
    Reconnect,
    Later,
    NotConnected,
    /// By the signal with this number; shells add 128 to it.
    Interrupted(u8),
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Reconnect => 3,
            Self::Later => 4,
            Self::NotConnected => 5,
            Self::Interrupted(signal) => 128 + signal,
        }
    }

    /// The outcome of a command that fails with this problem.
    pub(super) fn of(problem: &ProblemBody) -> Self {
        let known = [Self::Usage, Self::Reconnect, Self::Later, Self::NotConnected];
        let same = |exit: &Self| problem.exit_code() == Some(exit.code());
        known.into_iter().find(same).unwrap_or(Self::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command failed, and what to do next.
#[derive(Debug)]
pub(crate) struct CliFailure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
    pub(crate) next: Cow<'static, str>,
    /// The error of the supervisor behind it, if there is one.
    problem: Option<Box<ProblemBody>>,
    /// What prevented the supervisor's start, if it did not start.
    pub(crate) start: Option<StartFailure>,
}

/// What prevented the start of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartFailure {
    /// Another process has the store open.
    StoreInUse,
    Journal,
    /// The store cannot be opened, or the keys do not fit it.
    Store,
}

/// A failure as one JSON object.
#[derive(Serialize)]
struct FailureJson<'a> {
    error: &'a str,
    next: &'a str,
    exit_code: u8,
    #[serde(flatten)]
    problem: Option<ProblemJson<'a>>,
}

/// The members of a problem document that programs evaluate.
#[derive(Serialize)]
struct ProblemJson<'a> {
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_id: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
}

impl<'a> From<&'a ProblemBody> for ProblemJson<'a> {
    fn from(problem: &'a ProblemBody) -> Self {
        Self {
            code: &problem.code,
            reason: problem.reason.as_deref(),
            since: problem.since.map(rfc3339),
            retry_after: problem.retry_after,
            generation: problem.generation,
            valid_until: problem.valid_until.map(rfc3339),
            max_ttl: problem.max_ttl,
            grant_id: problem.grant_id.as_deref(),
            request_id: &problem.request_id,
        }
    }
}

impl CliFailure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>, next: impl Into<Cow<'static, str>>) -> Self {
        Self { exit, text: text.into(), next: next.into(), problem: None, start: None }
    }

    pub(crate) fn usage(text: impl Into<String>, next: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Exit::Usage, text, next)
    }

    /// An error of the supervisor, about this grant if there is one. The next step is a command about the grant.
    pub(crate) fn of(key: Option<&TokenKey>, problem: ProblemBody) -> Self {
        let (code, reason) = (&*problem.code, problem.reason.as_deref().unwrap_or_default());
        let connect = |key| format!("token-supervisor connect {} --stdin", named(key));
        let next = match (problem.code(), key) {
            (Some(Code::NotConnected), Some(key)) => connect(key),
            (Some(Code::ReconnectRequired), Some(key)) => {
                format!("send the user through consent, then {}; token-supervisor why {reason}", connect(key))
            }
            (Some(Code::AccountMismatch), Some(key)) => {
                format!("token-supervisor disconnect {}, or connect with another --account", named(key))
            }
            (Some(Code::UnknownIdp), Some(key)) => {
                format!(
                    "add [idp.{}] to the configuration, or use a name that token-supervisor status lists",
                    key.idp()
                )
            }
            (Some(Code::Unauthorized), _) => {
                "set TOKEN_SUPERVISOR_API_KEY to a key of the server; token-supervisor apikey new creates one"
                    .to_owned()
            }
            (Some(Code::Forbidden), _) => {
                "use an API key with the scope: token-supervisor apikey new --help".to_owned()
            }
            (Some(Code::Unavailable), Some(key)) if reason == Cause::Held.as_str() => {
                format!("token-supervisor release {}", named(key))
            }
            (Some(Code::Unavailable), Some(key)) if reason == Cause::IdpHeld.as_str() => {
                format!("token-supervisor release {}", key.idp())
            }
            (Some(Code::Unavailable), Some(key)) => match problem.cause() {
                // Consent would not help: the grants are well.
                Some(Cause::ClientRefused) => format!(
                    "check client_id, client_secret and scope of [idp.{}]; token-supervisor why {reason}",
                    key.idp()
                ),
                Some(Cause::ClientUnknown) => format!(
                    "add the client that the grant was issued to: clients = [..] of [idp.{}]; token-supervisor why {reason}",
                    key.idp()
                ),
                Some(Cause::UnknownError) => format!(
                    "look at the code in token-supervisor status {}, and say what it means in [[idp.{}.errors]]; \
                     token-supervisor why {reason}",
                    named(key),
                    key.idp()
                ),
                _ => format!("token-supervisor why {reason}"),
            },
            (Some(Code::Unavailable), None) => format!("token-supervisor why {reason}"),
            _ => format!("token-supervisor why {code}"),
        };
        let text = match problem.valid_until {
            Some(end) if problem.code() == Some(Code::Unavailable) => {
                format!("{}; the current token is valid until {}", problem.detail, rfc3339(end))
            }
            _ => problem.detail.to_string(),
        };
        let (exit, next) = (Exit::of(&problem), next.into());
        Self { exit, text, next, problem: Some(Box::new(problem)), start: None }
    }

    /// The same with another next step.
    pub(super) fn then(self, next: impl Into<Cow<'static, str>>) -> Self {
        Self { next: next.into(), ..self }
    }

    /// Prints the failure to stderr, as text or JSON, and returns the outcome. A closed stderr is no error.
    pub(crate) fn tell(self, json: bool) -> Exit {
        use std::io::Write as _;
        let mut stderr = std::io::stderr().lock();
        if json {
            let json = serde_json::to_string(&self.json()).expect("texts and numbers have a JSON form");
            writeln!(stderr, "{json}").ok();
        } else {
            writeln!(stderr, "error: {}\n\nnext: {}", self.text, self.next).ok();
        }
        self.exit
    }

    fn json(&self) -> FailureJson<'_> {
        let problem = self.problem.as_deref().map(ProblemJson::from);
        FailureJson { error: &self.text, next: &self.next, exit_code: self.exit.code(), problem }
    }

    /// The error code, if there is one.
    pub(super) fn code(&self) -> Option<Code> {
        self.problem.as_ref().and_then(|problem| problem.code())
    }
}

/// Writes the key as it stands on a command line.
pub(super) fn named(key: &TokenKey) -> String {
    let account = match key.account_name() {
        "" => String::new(),
        account => format!(" --account {}", quoted(account)),
    };
    format!("{} {}{account}", key.idp(), quoted(key.user()))
}

/// Quotes a text for a shell, unless it is a plain word.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

impl From<Error> for CliFailure {
    fn from(error: Error) -> Self {
        let failure = Self::of(None, ProblemBody::from(&error));
        let start = match error {
            Error::Configuration(_) => {
                let next = "fix the configuration, then run token-supervisor config check".into();
                return Self { exit: Exit::Usage, next, ..failure };
            }
            Error::StoreInUse(_) => StartFailure::StoreInUse,
            Error::Journal(_) => StartFailure::Journal,
            Error::Start(_) => StartFailure::Store,
            _ => return failure,
        };
        let (exit, next) = match start {
            StartFailure::StoreInUse => {
                (Exit::Later, "if that is a server, use it: add --server URL; otherwise wait until it has ended")
            }
            StartFailure::Journal | StartFailure::Store => (Exit::Failed, "do what the error says, then run it again"),
        };
        Self { exit, next: next.into(), start: Some(start), ..failure }
    }
}

impl From<ConfigError> for CliFailure {
    fn from(error: ConfigError) -> Self {
        let next = if error.is_missing() {
            "token-supervisor init --idp github, or give the file with --config FILE"
        } else {
            "fix it, then run token-supervisor config check"
        };
        Self::usage(error.to_string(), next)
    }
}

impl From<std::io::Error> for CliFailure {
    fn from(error: std::io::Error) -> Self {
        Self::new(
            Exit::Failed,
            format!("the operating system reports: {error}"),
            "check the limits for open files and threads, and the free disk space; then retry",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted_for_a_shell() {
        let key = TokenKey::at("github").user("al'ice b").account("work");
        assert_eq!(named(&key), r"github 'al'\''ice b' --account work");
        assert_eq!(named(&TokenKey::at("github").user("acme/alice@example.com")), "github acme/alice@example.com");
    }

    #[test]
    fn only_what_passes_by_itself_is_to_be_tried_again_later() {
        let causes = [
            (Cause::IdpThrottled, 4),
            (Cause::IdpDown, 4),
            (Cause::RefusalSurge, 4),
            (Cause::InDoubt, 4),
            (Cause::StoreDown, 4),
            (Cause::Stopping, 4),
            (Cause::Revoking, 4),
            (Cause::Failing, 4),
            (Cause::Held, 1),
            (Cause::IdpHeld, 1),
            (Cause::ClientRefused, 1),
            (Cause::ClientUnknown, 1),
            (Cause::UnknownError, 1),
        ];
        let key = TokenKey::at("github").user("alice");
        for (cause, code) in causes {
            let error = Error::Unavailable { retry_after: std::time::Duration::from_secs(1), cause };
            assert_eq!(cause.is_transient(), code == 4, "{cause}");
            let failure = CliFailure::of(Some(&key), ProblemBody::from(&error));
            assert_eq!(failure.exit.code(), code, "{cause}");
            assert!(
                !failure.next.contains("consent") && !failure.next.contains("connect"),
                "{cause}: {}",
                failure.next
            );
        }
    }

    #[test]
    fn the_exit_code_is_that_of_the_error_code() {
        let codes = [Code::UnknownIdp, Code::ReconnectRequired, Code::Unavailable, Code::NotConnected, Code::Internal];
        for code in codes {
            assert_eq!(Exit::of(&ProblemBody::new(code, "")).code(), code.exit_code(), "{code}");
        }
        let mut newer = ProblemBody::new(Code::Internal, "");
        newer.code = "of_a_newer_server".into();
        assert_eq!(Exit::of(&newer), Exit::Failed);
        assert_eq!(Exit::Interrupted(2).code(), 130);
    }
}
