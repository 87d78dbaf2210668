//! `serve`: the HTTP API, until it is told to stop.
//!
//! Its course: listeners are bound, then the supervisor is started, then requests are answered. At SIGTERM no more
//! connections are taken, what is under way is answered, and what is in flight to identity providers is stored.
//!
//! Invariants: nothing listens on a network without an API key; a new configuration that is wrong changes nothing.

mod listen;

use std::{convert::Infallible, time::Duration};

use serde_json::json;
use token_supervisor::{
    TokenSupervisor,
    config::{Changes, Config, ConfigError, LogUser, Reloader},
    web::{ApiKey, ApiKeys, api},
};

use self::listen::{Listeners, Serving};
use super::{
    CliFailure, Exit, Out,
    args::SourceArgs,
    backend::DRAIN,
    log,
    signals::{Hangup, Signals, interrupted},
    time::pause,
};

/// Serves the HTTP API until it is stopped.
///
/// SIGTERM and Ctrl-C end it: requests under way are answered, refreshes in flight stored.
///
/// SIGHUP reads the configuration again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor serve\n  \
    token-supervisor serve --config /etc/token-supervisor/config.toml")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    source: SourceArgs,
}

/// How often the files that values stand in are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: &ServeArgs, verbose: u8, out: Out) -> Result<Exit, CliFailure> {
    let (mut signals, mut hangup) = (Signals::listen()?, Hangup::listen()?);
    let mut reloader = args.source.reloader()?;
    let config = reloader.config();
    if let Some(bind) = config.server().unguarded() {
        return Err(CliFailure::usage(
            format!("server.api_key: without one nothing is served at {bind}"),
            "token-supervisor apikey new NAME --scope token, and put what it prints into the configuration",
        ));
    }
    log::of_server(config.log(), verbose)?;
    let builder = config.builder()?;
    let listeners = Listeners::bind(&config.server().bind)?;
    let addresses = listeners.addresses()?;
    let starting = builder.start();
    let supervisor = tokio::select! {
        supervisor = starting => supervisor?,
        signal = signals.next() => return Err(interrupted(signal)),
    };
    let keys = ApiKeys::new(keys_of(config));
    let mut api = api(supervisor.clone(), keys.clone());
    if config.log().user == LogUser::Plain {
        api = api.plain_users();
    }
    let mut serving = Serving::default();
    // From here on nothing may end before what is in flight is stored.
    let told = async {
        listeners.serve(&api, &mut serving)?;
        out.result(&json!({ "serving": addresses, "process": std::process::id() }), || {
            addresses.iter().map(|address| format!("serving {address}\n")).collect()
        })?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), ?addresses, "serving");
        tokio::select! {
            signal = signals.next() => Ok(signal),
            () = serving.ended() => Err(listen::failed("it ended by itself")),
            never = reloading(&mut reloader, &mut hangup, &supervisor, &keys) => match never {},
        }
    };
    let told = told.await;
    tracing::info!("stopping: what is under way is finished");
    let ended = tokio::select! {
        ended = stop(serving, &supervisor) => ended,
        again = signals.next() => Err(CliFailure::new(
            Exit::Interrupted(again),
            "stopped before everything was finished",
            "start it again: what was in flight is found in the journal, or in doubt",
        )),
    };
    let signal = told?;
    tracing::info!(signal, "stopped");
    ended
}

/// Takes over new configurations, for ever.
async fn reloading(
    reloader: &mut Reloader,
    hangup: &mut Hangup,
    supervisor: &TokenSupervisor,
    keys: &ApiKeys,
) -> Infallible {
    loop {
        let changes = tokio::select! {
            () = hangup.next() => tokio::task::block_in_place(|| reloader.reload(supervisor).map(Some)),
            () = pause(LOOK_EVERY) => tokio::task::block_in_place(|| reloader.poll(supervisor)),
        };
        told(keys, changes, reloader);
    }
}

/// Finishes what is under way, in HTTP first: what waits there may wait for a refresh. The sockets' files go before the
/// store does: whoever has it next puts its own there.
async fn stop(serving: Serving, supervisor: &TokenSupervisor) -> Result<Exit, CliFailure> {
    let stopped = serving.stop().await;
    let ended = supervisor.shutdown(DRAIN).await;
    stopped?;
    if ended.abandoned == 0 {
        return Ok(Exit::Done);
    }
    Err(CliFailure::new(
        Exit::Failed,
        format!("{} refreshes were given up: no answer came", ended.abandoned),
        "start it again: it finds that they are in doubt, and settles them",
    ))
}

fn keys_of(config: &Config) -> Vec<ApiKey> {
    config.server().api_keys.clone()
}

/// Takes over what the server has of a new configuration, and tells operators what became of it.
fn told(keys: &ApiKeys, changes: Result<Option<Changes>, ConfigError>, reloader: &Reloader) {
    match changes {
        Ok(None) => {}
        Ok(Some(changes)) => {
            if changes.server {
                keys.replace(keys_of(reloader.config()));
            }
            tracing::info!(idps = ?changes.idps, api_keys = changes.server, "the configuration was read again");
            if !changes.restart.is_empty() {
                tracing::warn!(settings = ?changes.restart, "these changes wait for a restart");
            }
        }
        Err(error) => {
            tracing::error!(%error, "the new configuration is refused, the old one stays; next: fix it, then send SIGHUP again")
        }
    }
}
