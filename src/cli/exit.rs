//! How a command ends: its exit code and, if it failed, why and what to do next.

use std::{borrow::Cow, process::ExitCode, time::Duration};

use serde::Serialize;
use token_supervisor::{
    Error, TokenKey,
    config::{ConfigError, Problem},
};

use super::time::rfc3339;

/// How a command ended.
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
    /// By the signal of this number, as shells count it.
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

    /// What an error of this code means to scripts.
    fn of(code: &str) -> Self {
        match code {
            "unknown_idp" | "invalid_request" | "min_ttl_unsatisfiable" => Self::Usage,
            "reconnect_required" => Self::Reconnect,
            "busy" | "unavailable" | "timeout" => Self::Later,
            "not_connected" => Self::NotConnected,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command could not do what it was asked, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
    pub(crate) next: Cow<'static, str>,
    /// What it comes from, if that is the supervisor: programs are told more of it.
    error: Option<Box<Error>>,
}

/// A failure as one JSON object.
#[derive(Serialize)]
struct Told<'a> {
    error: &'a str,
    next: &'a str,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>, next: impl Into<Cow<'static, str>>) -> Self {
        Self { exit, text: text.into(), next: next.into(), error: None }
    }

    pub(crate) fn usage(text: impl Into<String>, next: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Exit::Usage, text, next)
    }

    /// An error about this grant: what to do next is a command about it.
    pub(crate) fn about(key: &TokenKey, error: &Error) -> Self {
        let failure = Self::from(error.clone());
        let connect = || format!("token-supervisor connect {} --stdin", named(key));
        let next: Cow<'static, str> = match error {
            Error::NotConnected => connect().into(),
            Error::ReconnectRequired { reason, .. } => {
                format!("send the user through consent, then {}; token-supervisor why {reason}", connect()).into()
            }
            Error::AccountMismatch => {
                format!("token-supervisor disconnect {}, or connect with another --account", named(key)).into()
            }
            Error::UnknownIdp => {
                format!("add [idp.{}] to the configuration; its names: token-supervisor status", key.idp()).into()
            }
            _ => failure.next,
        };
        Self { next, ..failure }
    }

    /// Says it where people, or programs, look for it; resolves to how the command ends. Whoever should read it may be gone.
    pub(crate) fn tell(self, json: bool) -> Exit {
        use std::io::Write as _;
        let mut stderr = std::io::stderr().lock();
        if json {
            let told = serde_json::to_string(&self.told()).expect("plain structs have a JSON form");
            writeln!(stderr, "{told}").ok();
        } else {
            writeln!(stderr, "error: {}\n\nnext: {}", self.text, self.next).ok();
        }
        self.exit
    }

    fn told(&self) -> Told<'_> {
        let error = self.error.as_deref();
        let (reason, since) = match error {
            Some(Error::ReconnectRequired { reason, since }) => (Some(reason.clone()), Some(rfc3339(*since))),
            Some(Error::Unavailable { cause, .. }) => (Some(cause.to_string()), None),
            _ => (None, None),
        };
        // At least a second: what is rounded down makes callers come too early.
        let whole = |time: Duration| u64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1);
        Told {
            error: &self.text,
            next: &self.next,
            exit_code: self.exit.code(),
            code: error.map(Error::code),
            reason,
            since,
            retry_after: error.and_then(Error::retry_after).map(whole),
        }
    }
}

/// The key as it is written on a command line.
fn named(key: &TokenKey) -> String {
    let quoted = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&byte);
        if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
    };
    let account = match key.account_name() {
        "" => String::new(),
        account => format!(" --account {}", quoted(account)),
    };
    format!("{} {}{account}", key.idp(), quoted(key.user()))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = error.code();
        let (exit, next): (_, Cow<'static, str>) = match &error {
            Error::Configuration(_) => {
                (Exit::Usage, "fix the configuration, then token-supervisor config check".into())
            }
            Error::Start(_) => (Exit::Failed, "do what it says; token-supervisor doctor looks at everything".into()),
            Error::Unavailable { cause, .. } => (Exit::of(code), format!("token-supervisor why {cause}").into()),
            _ => (Exit::of(code), format!("token-supervisor why {code}").into()),
        };
        Self { exit, text: error.to_string(), next, error: Some(Box::new(error)) }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let missing = |problem: &Problem| problem.text.contains("token-supervisor init");
        let next = if error.problems().iter().any(missing) {
            "token-supervisor init --idp github, or name the file by --config FILE"
        } else {
            "fix it, then token-supervisor config check"
        };
        Self::usage(error.to_string(), next)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(
            Exit::Failed,
            format!("the operating system refused: {error}"),
            "see that there are files, threads and space left, then try again",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_so_that_a_shell_reads_them() {
        let key = TokenKey::new("al'ice b", "github").account("work");
        assert_eq!(named(&key), r"github 'al'\''ice b' --account work");
        assert_eq!(named(&TokenKey::new("acme/alice@example.com", "github")), "github acme/alice@example.com");
    }

    #[test]
    fn scripts_can_tell_what_to_do() {
        let exits = [
            ("unknown_idp", 2),
            ("invalid_request", 2),
            ("reconnect_required", 3),
            ("unavailable", 4),
            ("timeout", 4),
            ("not_connected", 5),
            ("duplicate_grant", 1),
            ("internal", 1),
        ];
        for (code, exit) in exits {
            assert_eq!(Exit::of(code).code(), exit, "{code}");
        }
        assert_eq!(Exit::Interrupted(2).code(), 130);
    }
}
