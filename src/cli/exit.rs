//! How a command ends: its exit code and, if it failed, why and what to do next.

use std::{borrow::Cow, process::ExitCode};

use serde::{Deserialize, Serialize};
use token_supervisor::{Error, TokenKey, config::ConfigError, web::Problem};

use super::{
    body::GrantBody,
    time::{now, rfc3339},
};

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
            "unknown_idp" | "invalid_request" | "min_ttl_unsatisfiable" | "unauthorized" | "forbidden" => Self::Usage,
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
    trouble: Option<Box<Trouble>>,
    /// What could not be opened, if it is that.
    pub(crate) unopened: Option<Unopened>,
}

/// What a supervisor could not open when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// Another process has the store.
    InUse,
    Journal,
    /// The store, or the keys do not fit it.
    Store,
}

/// An error of the supervisor, as a problem document of the HTTP API has it.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Trouble {
    #[serde(skip_serializing)]
    detail: String,
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl From<&Error> for Trouble {
    /// As a server tells it. Some errors of a start are none of a server's.
    fn from(error: &Error) -> Self {
        let problem = serde_json::to_value(Problem::from(error.clone())).expect("a problem is JSON");
        let told: Self = serde_json::from_value(problem).expect("it is told with a problem's fields");
        Self { code: error.code().to_owned(), request_id: None, ..told }
    }
}

impl Trouble {
    /// With what is known of the grant, as a server says it: its public name, its generation, and until when it has a
    /// valid token nonetheless.
    pub(super) fn about(self, grant: &GrantBody) -> Self {
        let valid_until = grant.expires_at.filter(|end| *end > now()).map(rfc3339);
        let generation = self.generation.or(Some(grant.generation));
        Self { grant_id: Some(grant.grant_id.clone()), generation, valid_until, ..self }
    }
}

/// A failure as one JSON object.
#[derive(Serialize)]
struct Told<'a> {
    error: &'a str,
    next: &'a str,
    exit_code: u8,
    #[serde(flatten)]
    trouble: Option<&'a Trouble>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>, next: impl Into<Cow<'static, str>>) -> Self {
        Self { exit, text: text.into(), next: next.into(), trouble: None, unopened: None }
    }

    pub(crate) fn usage(text: impl Into<String>, next: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Exit::Usage, text, next)
    }

    /// An error of the supervisor, about this grant if it is about one: what to do next is a command about it.
    pub(crate) fn of(key: Option<&TokenKey>, trouble: Trouble) -> Self {
        let (code, reason) = (trouble.code.as_str(), trouble.reason.as_deref().unwrap_or_default());
        let connect = |key| format!("token-supervisor connect {} --stdin", named(key));
        let next = match (code, key) {
            ("not_connected", Some(key)) => connect(key),
            ("reconnect_required", Some(key)) => {
                format!("send the user through consent, then {}; token-supervisor why {reason}", connect(key))
            }
            ("account_mismatch", Some(key)) => {
                format!("token-supervisor disconnect {}, or connect with another --account", named(key))
            }
            ("unknown_idp", Some(key)) => {
                format!("add [idp.{}] to the configuration; its names: token-supervisor status", key.idp())
            }
            ("unauthorized", _) => {
                "set TOKEN_SUPERVISOR_API_KEY to a key of that server: token-supervisor apikey new NAME".to_owned()
            }
            ("forbidden", _) => "use an API key that may: token-supervisor apikey new --help".to_owned(),
            ("unavailable", Some(key)) if reason == "held" => format!("token-supervisor release {}", named(key)),
            ("unavailable", Some(key)) if reason == "idp_held" => format!("token-supervisor release {}", key.idp()),
            ("unavailable", _) => format!("token-supervisor why {reason}"),
            _ => format!("token-supervisor why {code}"),
        };
        let text = match &trouble.valid_until {
            Some(end) if code == "unavailable" => format!("{}; a valid token is there until {end}", trouble.detail),
            _ => trouble.detail.clone(),
        };
        let (exit, next) = (Exit::of(code), next.into());
        Self { exit, text, next, trouble: Some(Box::new(trouble)), unopened: None }
    }

    /// The same with another next step.
    pub(super) fn then(self, next: impl Into<Cow<'static, str>>) -> Self {
        Self { next: next.into(), ..self }
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
        let trouble = self.trouble.as_deref();
        Told { error: &self.text, next: &self.next, exit_code: self.exit.code(), trouble }
    }

    /// The code, if it has one.
    pub(super) fn code(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| trouble.code.as_str())
    }
}

/// The key as it is written on a command line.
pub(super) fn named(key: &TokenKey) -> String {
    let account = match key.account_name() {
        "" => String::new(),
        account => format!(" --account {}", quoted(account)),
    };
    format!("{} {}{account}", key.idp(), quoted(key.user()))
}

/// For a shell, where it would read anything but a word.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::of(None, Trouble::from(&error));
        let unopened = match error {
            Error::Configuration(_) => {
                let next = "fix the configuration, then token-supervisor config check".into();
                return Self { exit: Exit::Usage, next, ..failure };
            }
            Error::StoreInUse(_) => Unopened::InUse,
            Error::Journal(_) => Unopened::Journal,
            Error::Start(_) => Unopened::Store,
            _ => return failure,
        };
        let (exit, next) = match unopened {
            Unopened::InUse => {
                (Exit::Later, "if that is a server, ask it: the same with --server URL; else wait until it has ended")
            }
            Unopened::Journal | Unopened::Store => (Exit::Failed, "do what it says, then the same again"),
        };
        Self { exit, next: next.into(), unopened: Some(unopened), ..failure }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let next = if error.is_missing() {
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
        let key = TokenKey::at("github").user("al'ice b").account("work");
        assert_eq!(named(&key), r"github 'al'\''ice b' --account work");
        assert_eq!(named(&TokenKey::at("github").user("acme/alice@example.com")), "github acme/alice@example.com");
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
