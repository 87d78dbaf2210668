//! The log, written to stderr.

use std::io::{self, IsTerminal as _};

use token_supervisor::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

use super::{Failure, show::colours_wanted};

/// Starts the log of a command. Without `--verbose` nothing is logged.
pub(crate) fn of_command(verbose: u8) {
    match verbose {
        0 => {}
        1 => write(EnvFilter::new("token_supervisor=info"), LogFormat::Text),
        _ => write(EnvFilter::new("token_supervisor=trace"), LogFormat::Text),
    }
}

/// Starts the log of the server in its configured format. `RUST_LOG` sets the filter.
///
/// # Errors
/// `RUST_LOG` is not a valid filter: better an error now than a missing log when it is needed.
pub(super) fn of_server(log: Log, verbose: u8) -> Result<(), Failure> {
    let unless_said = match verbose {
        0 => "token_supervisor=info,audit=info",
        1 => "token_supervisor=debug,audit=info",
        _ => "token_supervisor=trace,audit=info",
    };
    let said = std::env::var_os(EnvFilter::DEFAULT_ENV).filter(|said| !said.is_empty());
    let filter = match said {
        None => EnvFilter::new(unless_said),
        Some(_) => EnvFilter::try_from_default_env().map_err(|error| {
            Failure::usage(format!("RUST_LOG is invalid: {error}"), format!("unset it, or set it as in {unless_said}"))
        })?,
    };
    write(filter, log.format);
    Ok(())
}

fn write(filter: EnvFilter, format: LogFormat) {
    let colours = io::stderr().is_terminal() && colours_wanted();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    match format {
        LogFormat::Json => log.json().init(),
        _ => log.init(),
    }
}
