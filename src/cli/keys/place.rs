//! Where the commands find the key file, and where they ask what needs a key.

use token_supervisor::{Keyring, api::KeysBody, config::Config};

use crate::cli::{
    CliFailure, Exit,
    args::{SourceArgs, server_in_environment},
    backend::{Address, Backend, ServerTarget, Workplace, is_new},
};

/// A key file, and the place to ask about its keys.
#[derive(Debug, clap::Args)]
pub(super) struct KeyFileArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Running server to ask about the keys; without it, the store is opened [env: TOKEN_SUPERVISOR_SERVER]
    ///
    /// The key file is the one of the configuration on this machine. The API key is read from TOKEN_SUPERVISOR_API_KEY.
    #[arg(long, value_name = "URL")]
    server: Option<Address>,
    /// Also use plain http to another machine, which exposes the API key
    #[arg(long)]
    allow_http: bool,
}

impl KeyFileArgs {
    pub(super) fn config(&self) -> Result<Config, CliFailure> {
        loaded(&self.source)
    }

    /// Returns the keys of the store or the server, and who has them.
    pub(super) async fn keys(&self, config: &Config) -> Result<KeysBody, CliFailure> {
        let address = match &self.server {
            Some(address) => Some(address.clone()),
            None => server_in_environment()?,
        };
        let place = match address {
            Some(address) => Workplace::Server(ServerTarget { address, proxy: None }.unexposed(self.allow_http)?),
            None => Workplace::Store(Box::new(config.clone())),
        };
        keys_at(&place).await
    }
}

/// Loads the configuration, and checks its key file.
pub(super) fn loaded(source: &SourceArgs) -> Result<Config, CliFailure> {
    let config = source.load()?;
    config.check()?;
    Ok(config)
}

/// Returns the keys of a place. A store that does not exist needs none of those in the key file.
pub(super) async fn keys_at(place: &Workplace) -> Result<KeysBody, CliFailure> {
    match place {
        Workplace::Store(config) if is_new(config) => {
            config.check()?;
            let keyring = Keyring::from_file(config.keyring()).map_err(unreadable)?;
            Ok(KeysBody::unused(&keyring))
        }
        place => Backend::with(place, async |backend| backend.keys().await).await,
    }
}

/// Reports a key file that cannot be read or written.
pub(super) fn unreadable(error: token_supervisor::Error) -> CliFailure {
    let next = "check keyring.file in the configuration, and the owner and mode of that file and its folder";
    CliFailure::new(Exit::Failed, error.to_string(), next)
}
