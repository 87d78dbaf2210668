//! The log, written to stderr.

use std::{
    io::{self, IsTerminal as _, Stderr},
    os::unix::net::UnixDatagram,
};

use token_supervisor::config::{Log, LogFormat};
use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    CliFailure,
    log_buffer::LogBuffer,
    log_format::{LogTime, TextFields},
    show::colours_wanted,
};

/// Starts the log of a command. Without `--verbose` only the audit lines of changes on the store are written. With `json`,
/// stderr is for the JSON object of an error alone.
pub(crate) fn of_command(verbose: u8, json: bool) {
    match verbose {
        0 => {
            let audit = tracing_subscriber::fmt().with_env_filter(EnvFilter::new("audit=info"));
            audit.with_writer(AuditLog { stderr: !json }).with_ansi(false).init();
        }
        1 => write(EnvFilter::new("token_supervisor=info,audit=info"), LogFormat::Text, io::stderr),
        _ => write(EnvFilter::new("token_supervisor=trace,audit=info"), LogFormat::Text, io::stderr),
    }
}

/// Writes each line to the system's log, as `sudo` does. Where there is none, lines of changes that were made go to stderr
/// if that is wanted; a refused change is the command's error there.
#[derive(Clone, Copy)]
struct AuditLog {
    stderr: bool,
}

impl MakeWriter<'_> for AuditLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Self {
        Self { stderr: self.stderr && *metadata.level() == Level::INFO }
    }
}

impl io::Write for AuditLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Facility authpriv, severity info (RFC 3164, section 4.1.1).
        let mut message = format!("<86>token-supervisor[{}]: ", std::process::id()).into_bytes();
        message.extend(line.trim_ascii_end());
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(&message, "/dev/log"));
        if sent.is_err() && self.stderr {
            io::stderr().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of the server. When it is dropped, all lines are written.
pub(super) struct ServerLog(LogBuffer<Stderr>);

impl Drop for ServerLog {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Starts the log of the server in its configured format. `RUST_LOG` sets the filter.
///
/// # Errors
/// `RUST_LOG` is not a valid filter: better an error now than a missing log when it is needed. Or no thread can be started.
pub(super) fn of_server(log: Log, verbose: u8) -> Result<ServerLog, CliFailure> {
    let unless_said = match verbose {
        0 => "token_supervisor=info,audit=info",
        1 => "token_supervisor=debug,audit=info",
        _ => "token_supervisor=trace,audit=info",
    };
    let said = std::env::var_os(EnvFilter::DEFAULT_ENV).filter(|said| !said.is_empty());
    let filter = match said {
        None => EnvFilter::new(unless_said),
        Some(_) => EnvFilter::try_from_default_env().map_err(|error| {
            CliFailure::usage(
                format!("RUST_LOG is invalid: {error}"),
                format!("unset it, or set it as in {unless_said}"),
            )
        })?,
    };
    let buffer = LogBuffer::start(io::stderr())?;
    write(filter, log.format, buffer.clone());
    Ok(ServerLog(buffer))
}

fn write(filter: EnvFilter, format: LogFormat, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let colours = io::stderr().is_terminal() && colours_wanted();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_timer(LogTime);
    let log = log.with_ansi(colours);
    match format {
        LogFormat::Json => log.json().init(),
        _ => log.fmt_fields(TextFields).init(),
    }
}
