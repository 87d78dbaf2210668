//! The parts of the supervisor that `crate::testing` reaches.

use super::{TokenSupervisor, command::Ask, refresh::seal};
use crate::{
    error::Error,
    keyring::Keyring,
    model::{RefreshToken, Sealed, TokenKey},
    testing::Hooks,
};

pub(crate) async fn panic_actor(supervisor: &TokenSupervisor, key: &TokenKey) {
    supervisor.rooms.around.router.route(key.clone(), Ask::Panic).await.ok();
}

pub(crate) fn panic_registry(supervisor: &TokenSupervisor) {
    supervisor.rooms.around.router.panic_registry();
}

pub(crate) fn crash_system(supervisor: &TokenSupervisor) {
    supervisor.rooms.life.crash_system();
}

pub(crate) fn hooks(supervisor: &TokenSupervisor) -> &Hooks {
    &supervisor.rooms.refresher.ports().hooks
}

pub(crate) fn attempts(supervisor: &TokenSupervisor) -> usize {
    supervisor.rooms.refresher.ports().attempts.len()
}

pub(crate) fn is_published(supervisor: &TokenSupervisor, key: &TokenKey) -> bool {
    supervisor.rooms.refresher.ports().snapshot.current(key).is_some()
}

pub(crate) async fn stored(supervisor: &TokenSupervisor, key: &TokenKey) -> Result<Option<RefreshToken>, Error> {
    let ports = supervisor.rooms.refresher.ports();
    let read = ports.ledger.store().read(key).await.map_err(|error| Error::Start(error.to_string()))?;
    let token = read.row.and_then(|row| row.refresh_token);
    token.map(|token| open(&ports.keyring, key, &token.sealed)).transpose()
}

pub(crate) fn open(keyring: &Keyring, key: &TokenKey, sealed: &Sealed) -> Result<RefreshToken, Error> {
    seal::open_refresh_token(keyring, key, sealed).map_err(|_| Error::Start("a refresh token does not open".to_owned()))
}
