//! `serve`: serves the HTTP API until it is stopped.
//!
//! The order: bind the listeners, start the supervisor, answer requests. At SIGTERM the server accepts no more connections,
//! answers open requests, and stores the refreshes in flight.
//!
//! Invariants: nothing listens on a network without an API key; an invalid new configuration changes nothing.

mod descriptors;
mod listen;

use std::{convert::Infallible, time::Duration};

use serde_json::json;
use token_supervisor::{
    Keyring, TokenSupervisor,
    config::{Changes, Config, ConfigError, LogUser, Reloader},
    web::{ApiKey, ApiKeys, api},
};

use self::listen::{Listeners, Serving};
use super::{
    CliFailure, Exit, Out,
    args::SourceArgs,
    backend::DRAIN,
    config::exposure,
    log, memory,
    signals::{Hangup, Signals, interrupted},
    time::pause,
};

/// Serve the HTTP API until stopped.
///
/// SIGTERM or Ctrl-C stops it after open requests are answered and running refreshes are stored.
///
/// SIGHUP reloads the configuration. A changed key file is read again by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor serve\n  \
    token-supervisor serve --config /etc/token-supervisor/config.toml")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    source: SourceArgs,
}

/// How often the files that settings are read from are checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: &ServeArgs, verbose: u8, out: Out) -> Result<Exit, CliFailure> {
    let (mut signals, mut hangup) = (Signals::listen()?, Hangup::listen()?);
    let mut reloader = args.source.reloader()?;
    let config = reloader.config();
    if let Some(bind) = config.server().unguarded() {
        return Err(CliFailure::usage(
            format!("server.api_key is not set: {bind} is not served without an API key"),
            "run token-supervisor apikey new NAME --scope token, and add the section it prints to the configuration",
        ));
    }
    let _log = log::of_server(config.log(), verbose)?;
    memory::lock();
    warn_of_exposed_files(config);
    let (wanted, descriptors) = (config.server().max_connections, descriptors::raise());
    let connections = descriptors::for_connections(wanted, descriptors);
    if connections < wanted {
        tracing::warn!(
            connections,
            descriptors,
            "fewer connections than server.max_connections: raise the limit of file descriptors (LimitNOFILE)"
        );
    }
    let builder = config.builder()?;
    let listeners = Listeners::bind(&config.server().bind)?;
    let addresses = listeners.addresses()?;
    let starting = builder.start();
    let supervisor = tokio::select! {
        supervisor = starting => supervisor?,
        signal = signals.next() => return Err(interrupted(signal)),
    };
    let keys = ApiKeys::new(keys_of(config));
    let mut api = api(supervisor.clone(), keys.clone()).max_connections(connections);
    if config.log().user == LogUser::Plain {
        api = api.plain_users();
    }
    let mut serving = Serving::default();
    // From here on the function must not return before refreshes in flight are stored.
    let stopped_by = async {
        listeners.serve(&api, &mut serving)?;
        out.result(&json!({ "serving": addresses, "process": std::process::id() }), || {
            addresses.iter().map(|address| format!("serving {address}\n")).collect()
        })?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), ?addresses, "serving");
        tokio::select! {
            signal = signals.next() => Ok(signal),
            () = serving.ended() => Err(listen::failed("it stopped unexpectedly")),
            never = reloading(&mut reloader, &mut hangup, &supervisor, &keys) => match never {},
        }
    };
    let stopped_by = stopped_by.await;
    tracing::info!("stopping: finishing open requests and refreshes in flight");
    let ended = tokio::select! {
        ended = stop(serving, &supervisor) => ended,
        again = signals.next() => Err(CliFailure::new(
            Exit::Interrupted(again),
            "stopped before all requests and refreshes were finished",
            "start the server again: it finds refreshes in flight in the journal, or marks them as in doubt",
        )),
    };
    let signal = stopped_by?;
    tracing::info!(signal, "stopped");
    ended
}

/// Applies new configurations and keys until it is dropped.
async fn reloading(
    reloader: &mut Reloader,
    hangup: &mut Hangup,
    supervisor: &TokenSupervisor,
    keys: &ApiKeys,
) -> Infallible {
    loop {
        let again = tokio::select! {
            () = hangup.next() => true,
            () = pause(LOOK_EVERY) => false,
        };
        let changes = tokio::task::block_in_place(|| match again {
            true => reloader.reload(supervisor).map(Some),
            false => reloader.poll(supervisor),
        });
        apply(keys, changes, reloader);
        match tokio::task::block_in_place(|| reloader.new_keys(again)) {
            Ok(None) => {}
            Ok(Some(keyring)) => match supervisor.set_keyring(&keyring).await {
                Ok(false) => {}
                Ok(true) => tracing::info!(keys = ?in_short(&keyring), "key file reloaded"),
                Err(error) => reject_keys(&error),
            },
            Err(error) => reject_keys(&error),
        }
    }
}

/// Stops HTTP first, because open requests may wait for a refresh, then the supervisor. Socket files are removed before
/// the store is closed: the process that opens the store next creates its own.
async fn stop(serving: Serving, supervisor: &TokenSupervisor) -> Result<Exit, CliFailure> {
    let stopped = serving.stop().await;
    let ended = supervisor.shutdown(DRAIN).await;
    stopped?;
    if ended.abandoned == 0 {
        return Ok(Exit::Done);
    }
    Err(CliFailure::new(
        Exit::Failed,
        format!("{} refreshes were abandoned: the provider did not respond", ended.abandoned),
        "start the server again: it marks them as in doubt and settles them",
    ))
}

/// Returns the ids and states of the keys, for the log.
fn in_short(keyring: &Keyring) -> Vec<String> {
    keyring.labels().iter().map(|key| format!("{} {}", key.id, key.state.as_str())).collect()
}

fn reject_keys(error: &dyn std::error::Error) {
    tracing::error!(%error, "the new key file is rejected, the old keys stay in effect; next: fix it, then send SIGHUP");
}

fn keys_of(config: &Config) -> Vec<ApiKey> {
    config.server().api_keys.clone()
}

/// Logs which files other users can read or change. The key file is logged where it is read.
fn warn_of_exposed_files(config: &Config) {
    for file in config.exposed_files().iter().filter(|file| file.path != config.keyring()) {
        tracing::warn!("{}", exposure(file));
    }
}

/// Applies the server's part of a new configuration and logs the result.
fn apply(keys: &ApiKeys, changes: Result<Option<Changes>, ConfigError>, reloader: &Reloader) {
    match changes {
        Ok(None) => {}
        Ok(Some(changes)) => {
            if changes.server {
                keys.replace(keys_of(reloader.config()));
            }
            tracing::info!(idps = ?changes.idps, api_keys = changes.server, "configuration reloaded");
            warn_of_exposed_files(reloader.config());
            if !changes.restart.is_empty() {
                tracing::warn!(settings = ?changes.restart, "these changes take effect after a restart");
            }
        }
        Err(error) => {
            tracing::error!(%error, "the new configuration is rejected, the old one stays in effect; next: fix it, then send SIGHUP again")
        }
    }
}
