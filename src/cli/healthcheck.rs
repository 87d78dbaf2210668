//! `healthcheck`: whether the server on this machine is ready, for container engines.
//!
//! An engine runs the command every few seconds beside the server. So it opens nothing but a connection, and of the
//! configuration reads nothing but the address: a mistake in another setting, which the running server rejects, must not
//! make the engine stop the server.

use std::{env, time::Duration};

use serde_json::json;
use token_supervisor::config::{Bind, Config};

use super::{
    CliFailure, Exit, Out,
    args::SourceArgs,
    backend::{Address, START, ServerBackend, ServerTarget, own_address},
    time::pause,
};

/// Check whether the server on this machine is ready.
///
/// Requests /readyz at the first address in server.bind, without an API key. Of the configuration only server.bind is read.
///
/// Exit code 0 if the server is ready, also if something is degraded; 4 if it does not respond or is stopping.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor healthcheck\n  \
    token-supervisor healthcheck --server http://127.0.0.1:8080 --timeout 3")]
pub(crate) struct HealthcheckArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Server to check: its URL or unix:/PATH; no configuration is read
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    server: Option<Address>,
    /// Number of seconds to wait for the response
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

pub(crate) async fn run(args: HealthcheckArgs, out: Out) -> Result<Exit, CliFailure> {
    let address = match args.server {
        Some(address) => address,
        None => own(&Config::addresses(args.source.path(), env::vars_os())?)?,
    };
    let server = ServerBackend::without_key(&ServerTarget { address: address.clone(), proxy: None })?;
    let health = tokio::select! {
        health = server.health() => health?,
        () = pause(Duration::from_secs(args.timeout)) => {
            let text = format!("{address} did not respond within {} s", args.timeout);
            return Err(CliFailure::new(Exit::Later, text, "wait until it has started; its log says what it waits for"));
        }
    };
    if health.degraded.iter().any(|what| what == DRAINING) {
        return Err(CliFailure::new(Exit::Later, format!("{address} is stopping"), START));
    }
    let degraded = &health.degraded;
    out.result(&json!({ "server": address.to_string(), "ready": true, "degraded": degraded }), || {
        let but = if degraded.is_empty() { String::new() } else { format!("; degraded: {}", degraded.join(", ")) };
        format!("{address} is ready{but}\n")
    })?;
    Ok(Exit::Done)
}

/// What a server that is stopping reports to be.
const DRAINING: &str = "draining";

fn own(bind: &[Bind]) -> Result<Address, CliFailure> {
    let reachable = bind.iter().find_map(own_address).and_then(|address| address.parse().ok());
    reachable.ok_or_else(|| {
        CliFailure::usage(
            "server.bind has no address with a port",
            "set a port there, or name the server with --server",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_reached_at_an_address_of_this_machine() {
        for (bind, address) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080"),
            ("[::]:8080", "http://[::1]:8080"),
            ("192.0.2.1:80", "http://192.0.2.1"),
            ("unix:/run/ts.sock", "unix:/run/ts.sock"),
        ] {
            let of_any_port: Bind = "127.0.0.1:0".parse().unwrap();
            assert_eq!(own(&[of_any_port.clone(), bind.parse().unwrap()]).unwrap().to_string(), address);
            assert_eq!(own(&[of_any_port]).unwrap_err().exit, Exit::Usage);
        }
    }
}
