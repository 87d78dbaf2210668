//! The message API: an address for each kind of command, for actors that only know actix.

use actix::{Addr, Handler, Recipient};

use super::{TokenSupervisor, command::Command, front::FrontActor};
use crate::error::Error;

/// The message API for other actors. Survives the replacement of the registry behind it.
///
/// ```
/// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
/// # doc::with_alice(async |supervisor, alice, _| {
/// use token_supervisor::Acquire;
///
/// // An actor that is given this knows no supervisor.
/// let tokens: actix::Recipient<Acquire> = supervisor.registry().recipient();
/// let token = tokens.send(Acquire::new(&alice)).await??;
/// # assert_eq!(token.generation().get(), 1);
/// # Ok(()) });
/// ```
#[derive(Clone)]
pub struct Registry {
    supervisor: TokenSupervisor,
    front: Addr<FrontActor>,
}

impl TokenSupervisor {
    /// Returns the message API, for other actors.
    pub fn registry(&self) -> Registry {
        Registry { supervisor: self.clone(), front: self.rooms.life.front() }
    }
}

impl Registry {
    /// Sends a command; the same as [`TokenSupervisor::call`].
    ///
    /// # Errors
    /// Those of the command; see [`Error`].
    pub async fn send<C: Command>(&self, command: C) -> Result<C::Answer, Error> {
        self.supervisor.call(command).await
    }

    /// Returns an address for one kind of command.
    pub fn recipient<C>(&self) -> Recipient<C>
    where
        C: Command,
        C::Answer: Send,
        FrontActor: Handler<C>,
    {
        self.front.clone().recipient()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
