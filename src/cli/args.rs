//! Arguments that commands share.

use std::{
    env,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::value_parser;
use token_supervisor::{
    Cursor, State, TokenKey,
    api::{GrantQuery, time::parse},
    config::{Config, ConfigError, Reloader},
};

use super::{
    CliFailure,
    backend::{Address, ProxyUrl, ServerTarget, Workplace},
    exit::quoted,
};

/// The configuration to use.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// Configuration file [default: the first one found, see config --help]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SourceArgs {
    /// Returns the file that the command line names, if it names one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), env::vars_os())
    }

    /// Loads the configuration so that it can be reloaded later.
    pub(super) fn reloader(&self) -> Result<Reloader, CliFailure> {
        Ok(Reloader::load(self.config.as_deref(), env::vars_os())?)
    }
}

/// The place to work: directly on the store, or on a running server.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Running server to use: its URL or unix:/PATH [env: TOKEN_SUPERVISOR_SERVER]
    ///
    /// The API key is read from TOKEN_SUPERVISOR_API_KEY.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    server: Option<Address>,
    /// Proxy to reach the server through; proxies in the environment are ignored
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    proxy: Option<ProxyUrl>,
    /// Also use plain http to another machine, which exposes the API key and the tokens
    #[arg(long)]
    allow_http: bool,
}

impl TargetArgs {
    pub(super) fn place(&self) -> Result<Workplace, CliFailure> {
        match self.server()? {
            Some(server) => Ok(Workplace::Server(server)),
            None => Ok(Workplace::Store(Box::new(self.config()?))),
        }
    }

    /// Loads the configuration of the store.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        self.source.load()
    }

    /// Returns the server named by `--server` or by the environment, if any.
    ///
    /// # Errors
    /// The server must not be used that way: the API key would be readable on the network.
    pub(super) fn server(&self) -> Result<Option<ServerTarget>, CliFailure> {
        let Some(address) = self.address()? else {
            return match self.proxy {
                Some(_) => Err(CliFailure::usage("--proxy is for a server, and none is named", "add --server URL")),
                None => Ok(None),
            };
        };
        ServerTarget { address, proxy: self.proxy.clone() }.unexposed(self.allow_http).map(Some)
    }

    fn address(&self) -> Result<Option<Address>, CliFailure> {
        // Both options of the command line take precedence over the environment.
        match (&self.server, &self.source.config) {
            (Some(address), _) => Ok(Some(address.clone())),
            (None, Some(_)) => Ok(None),
            (None, None) => server_in_environment(),
        }
    }

    /// Returns the options that make the next command work in the same place.
    pub(super) fn again(&self) -> String {
        let place = match (&self.server, &self.source.config) {
            (Some(address), _) => format!(" --server {}", quoted(&address.to_string())),
            (None, Some(path)) => format!(" --config {}", quoted(&path.to_string_lossy())),
            (None, None) => String::new(),
        };
        let proxy = self.proxy.as_ref().map(|proxy| format!(" --proxy {}", quoted(&proxy.to_string())));
        let allow_http = if self.allow_http { " --allow-http" } else { "" };
        format!("{place}{}{allow_http}", proxy.unwrap_or_default())
    }
}

/// Returns the server that the environment names, if it names one.
///
/// # Errors
/// The variable is no address.
pub(super) fn server_in_environment() -> Result<Option<Address>, CliFailure> {
    const SERVER: &str = "TOKEN_SUPERVISOR_SERVER";
    let Some(url) = env::var_os(SERVER).filter(|url| !url.is_empty()) else { return Ok(None) };
    let wrong = |text| CliFailure::usage(format!("{SERVER} {text}"), "correct the variable, or unset it");
    url.to_string_lossy().parse().map(Some).map_err(wrong)
}

/// The grants to list.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct GrantArgs {
    /// Only grants at this identity provider, configured or not
    #[arg(long, value_name = "NAME")]
    idp: Option<String>,
    /// Only grants of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only grants of users whose names start with this prefix
    #[arg(long, value_name = "PREFIX")]
    user_prefix: Option<String>,
    /// Only grants of this account
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Only grants in this state; may be repeated. Disconnected grants need --state revoked
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<State>,
    /// Only grants on hold
    #[arg(long)]
    held: bool,
    /// Only grants whose refresh token expires before this time: RFC 3339 or epoch seconds
    #[arg(long, value_name = "TIME", value_parser = parse)]
    expiring_before: Option<SystemTime>,
    /// Number of grants on a page: 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Cursor that the previous page printed, to list the next page
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
}

impl GrantArgs {
    pub(super) fn query(&self) -> GrantQuery {
        GrantQuery {
            idp: self.idp.clone(),
            user: self.user.clone(),
            user_prefix: self.user_prefix.clone(),
            account: self.account.clone(),
            states: self.states.clone(),
            held: self.held.then_some(true),
            expiring_before: self.expiring_before,
            after: self.after.clone(),
            limit: Some(self.limit),
        }
    }
}

/// The grant to work on.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    /// Identity provider, by its name in the configuration
    idp: String,
    /// User, by the name your application uses
    user: String,
    /// Account, if the user has several at the identity provider
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    account: String,
}

impl KeyArgs {
    pub(super) fn key(&self) -> Result<TokenKey, CliFailure> {
        key(&self.idp, &self.user, &self.account)
    }
}

pub(super) fn key(idp: &str, user: &str, account: &str) -> Result<TokenKey, CliFailure> {
    let key = TokenKey::at(idp).user(user).account(account);
    match key.validate() {
        Ok(()) => Ok(key),
        Err(text) => {
            Err(CliFailure::usage(text, "give the identity provider first, then the user, as in: github alice"))
        }
    }
}
