//! Arguments that commands share.

use std::path::PathBuf;

use token_supervisor::{
    State, TokenKey,
    config::{Config, Reloader},
};

use super::Failure;

/// Where the settings are.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// The configuration [default: at the usual places, see config --help]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Source {
    pub(super) fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.config.as_deref(), std::env::vars_os())?)
    }

    /// The same, for who reads it again.
    pub(super) fn reloader(&self) -> Result<Reloader, Failure> {
        Ok(Reloader::load(self.config.as_deref(), std::env::vars_os())?)
    }
}

/// Which grant.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The identity provider, by its name in the configuration
    idp: String,
    /// The user, as your application names it
    user: String,
    /// The account, where the user has several at the identity provider
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    account: String,
}

impl Which {
    pub(super) fn key(&self) -> Result<TokenKey, Failure> {
        key(&self.idp, &self.user, &self.account)
    }
}

pub(super) fn key(idp: &str, user: &str, account: &str) -> Result<TokenKey, Failure> {
    let key = TokenKey::new(user, idp).account(account);
    match key.validate() {
        Ok(()) => Ok(key),
        Err(text) => Err(Failure::usage(text, "name the identity provider first, then the user: github alice")),
    }
}

/// The states that a stored grant can be in.
pub(super) const STATES: [State; 7] = [
    State::Fresh,
    State::Due,
    State::Refreshing,
    State::Backoff,
    State::InDoubt,
    State::ReconnectRequired,
    State::Revoked,
];

/// A state by its name.
pub(super) fn state(text: &str) -> Result<State, String> {
    let names = STATES.map(State::as_str).join(", ");
    STATES.into_iter().find(|state| state.as_str() == text).ok_or_else(|| format!("must be of: {names}"))
}
