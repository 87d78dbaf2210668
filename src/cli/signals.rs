//! Signals: SIGINT (Ctrl-C) and SIGTERM stop the program, SIGHUP reloads the configuration.

use super::{CliFailure, Exit};

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

/// The failure of a command that a signal interrupted.
pub(super) fn interrupted(signal: u8) -> CliFailure {
    CliFailure::new(
        Exit::Interrupted(signal),
        "interrupted",
        "run the command again: a refresh in flight was stored, or is in doubt",
    )
}
