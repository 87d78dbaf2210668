//! Signals: SIGINT (Ctrl-C) and SIGTERM stop the program, SIGHUP reloads the configuration.

use std::time::Duration;

use tokio::sync::watch;

use super::{CliFailure, Exit, time::pause};

/// The signals that stop the program.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

/// SIGHUP. Never arrives on systems without it.
pub(super) struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

#[cfg(unix)]
mod unix {
    use tokio::signal::unix::{SignalKind, signal};

    use super::{CliFailure, Hangup, Signals};

    impl Signals {
        pub(crate) fn listen() -> Result<Self, CliFailure> {
            Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
        }

        /// Waits for the next signal and returns its number.
        pub(crate) async fn next(&mut self) -> u8 {
            tokio::select! {
                _ = self.interrupt.recv() => 2,
                _ = self.terminate.recv() => 15,
            }
        }
    }

    impl Hangup {
        pub(in super::super) fn listen() -> Result<Self, CliFailure> {
            Ok(Self { signal: signal(SignalKind::hangup())? })
        }

        pub(in super::super) async fn next(&mut self) {
            if self.signal.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use super::{CliFailure, Hangup, Signals};

    impl Signals {
        pub(crate) fn listen() -> Result<Self, CliFailure> {
            Ok(Self {})
        }

        /// Waits for the next signal and returns its number.
        pub(crate) async fn next(&mut self) -> u8 {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            2
        }
    }

    impl Hangup {
        pub(in super::super) fn listen() -> Result<Self, CliFailure> {
            Ok(Self {})
        }

        pub(in super::super) async fn next(&mut self) {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs a command that ends early, with a result, at the first signal: `work` gets a flag that is then true. A second signal
/// ends the program without the result.
///
/// # Errors
/// Those of `work`, or a second signal.
pub(crate) async fn ending_early<W>(work: impl FnOnce(watch::Receiver<bool>) -> W) -> Result<Exit, CliFailure>
where
    W: Future<Output = Result<Exit, CliFailure>>,
{
    let (tell, interrupted) = watch::channel(false);
    let mut signals = Signals::listen()?;
    let twice = async {
        signals.next().await;
        tell.send_replace(true);
        // Some wrappers send the signal twice: two signals within a second count as one.
        pause(Duration::from_secs(1)).await;
        signals.next().await
    };
    tokio::select! {
        ended = work(interrupted) => ended,
        signal = twice => Err(CliFailure::new(
            Exit::Interrupted(signal),
            "interrupted before the result was ready",
            "press Ctrl-C once and wait a few seconds",
        )),
    }
}

/// The failure of a command that a signal interrupted.
pub(super) fn interrupted(signal: u8) -> CliFailure {
    CliFailure::new(
        Exit::Interrupted(signal),
        "interrupted",
        "run the command again: a refresh in flight was stored, or is in doubt",
    )
}
