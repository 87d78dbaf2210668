//! Arguments that commands share.

use std::{env, path::PathBuf, time::SystemTime};

use clap::value_parser;
use token_supervisor::{
    Cursor, State, TokenKey,
    api::GrantQuery,
    config::{Config, ConfigError, Reloader},
};

use super::{
    CliFailure,
    backend::{Address, Workplace},
    exit::quoted,
    time,
};

/// Where the settings are.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// The configuration [default: at the usual places, see config --help]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SourceArgs {
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), env::vars_os())
    }

    /// The same, for who reads it again.
    pub(super) fn reloader(&self) -> Result<Reloader, CliFailure> {
        Ok(Reloader::load(self.config.as_deref(), env::vars_os())?)
    }
}

/// Where to work: directly on the store, or on a running server.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// A running server to ask: its URL, or unix:PATH [env: TOKEN_SUPERVISOR_SERVER]
    ///
    /// With the API key that stands in TOKEN_SUPERVISOR_API_KEY.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    server: Option<Address>,
}

impl TargetArgs {
    pub(super) fn place(&self) -> Result<Workplace, CliFailure> {
        match self.server()? {
            Some(address) => Ok(Workplace::Server(address)),
            None => Ok(Workplace::Store(Box::new(self.config()?))),
        }
    }

    /// What the store is worked on with.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        self.source.load()
    }

    /// The server that is named, if one is.
    pub(super) fn server(&self) -> Result<Option<Address>, CliFailure> {
        const SERVER: &str = "TOKEN_SUPERVISOR_SERVER";
        // What is said on the command line goes before what is set for all commands.
        let set = env::var_os(SERVER).filter(|url| !url.is_empty() && self.source.config.is_none());
        match (&self.server, set) {
            (Some(address), _) => Ok(Some(address.clone())),
            (None, Some(url)) => {
                let address = url.to_string_lossy().parse();
                let wrong = |text| CliFailure::usage(format!("{SERVER} {text}"), "set it so, or unset it");
                address.map(Some).map_err(wrong)
            }
            (None, None) => Ok(None),
        }
    }

    /// What the next command needs to work in the same place.
    pub(super) fn again(&self) -> String {
        match (&self.server, &self.source.config) {
            (Some(address), _) => format!(" --server {}", quoted(&address.to_string())),
            (None, Some(path)) => format!(" --config {}", quoted(&path.to_string_lossy())),
            (None, None) => String::new(),
        }
    }
}

/// KeyArgs grants.
#[derive(Debug, clap::Args)]
pub(crate) struct GrantArgs {
    /// At this identity provider, configured or not
    #[arg(long, value_name = "NAME")]
    idp: Option<String>,
    /// Of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of users whose names start like this
    #[arg(long, value_name = "PREFIX")]
    user_prefix: Option<String>,
    /// Of this account
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// In this state; may be repeated. Disconnected ones only by --state revoked
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<State>,
    /// That people hold
    #[arg(long)]
    held: bool,
    /// That end before then for want of a consent: RFC 3339, or seconds since the epoch
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    expiring_before: Option<SystemTime>,
    /// How many: 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Goes on where the page before ended, as it said
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

/// KeyArgs grant.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    /// The identity provider, by its name in the configuration
    idp: String,
    /// The user, as your application names it
    user: String,
    /// The account, where the user has several at the identity provider
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
        Err(text) => Err(CliFailure::usage(text, "name the identity provider first, then the user: github alice")),
    }
}
