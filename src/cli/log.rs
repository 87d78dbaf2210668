//! What happens, written to stderr.

use std::io::{self, IsTerminal as _};

use token_supervisor::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

use super::{CliFailure, show::colours_wanted};

/// Of a command: nothing unless asked.
pub(crate) fn of_command(verbose: u8) {
    match verbose {
        0 => {}
        1 => write(EnvFilter::new("token_supervisor=info"), LogFormat::Text),
        _ => write(EnvFilter::new("token_supervisor=trace"), LogFormat::Text),
    }
}

/// Of the server: as it is configured; `RUST_LOG` says how much.
///
/// # Errors
/// It says so wrongly: nobody should find out when the log is needed.
pub(super) fn of_server(log: Log, verbose: u8) -> Result<(), CliFailure> {
    let unless_said = match verbose {
        0 => "token_supervisor=info,audit=info",
        1 => "token_supervisor=debug,audit=info",
        _ => "token_supervisor=trace,audit=info",
    };
    let said = std::env::var_os(EnvFilter::DEFAULT_ENV).filter(|said| !said.is_empty());
    let filter = match said {
        None => EnvFilter::new(unless_said),
        Some(_) => EnvFilter::try_from_default_env().map_err(|error| {
            CliFailure::usage(format!("RUST_LOG: {error}"), format!("unset it, or set it to such as {unless_said}"))
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
