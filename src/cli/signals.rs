//! Signals: Ctrl-C, the one by which services are stopped, and the one by which they read their configuration again.

use super::{CliFailure, Exit};

/// The signals that end a program.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

/// SIGHUP; where there is none, it never comes.
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

        /// The number of the next one.
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

        /// The number of the next one.
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

/// How a command ends that was told to.
pub(super) fn interrupted(signal: u8) -> CliFailure {
    CliFailure::new(
        Exit::Interrupted(signal),
        "interrupted",
        "run it again: what was in flight is stored, or found in doubt",
    )
}
