//! What `crate::testing` reaches of the supervisor's inside.

use super::{TokenSupervisor, command::Ask, refresh::seal};
use crate::{
    error::Error,
    keyring::Keyring,
    model::{RefreshToken, Sealed, TokenKey},
    testing::Hooks,
};

pub(crate) async fn panic_actor(supervisor: &TokenSupervisor, key: &TokenKey) {
    supervisor.life().shared.routes.route(key.clone(), Ask::Panic).await.ok();
}

pub(crate) fn panic_registry(supervisor: &TokenSupervisor) {
    supervisor.life().shared.routes.panic_registry();
}

pub(crate) fn hooks(supervisor: &TokenSupervisor) -> &Hooks {
    &supervisor.life().shared.core.testing
}

pub(crate) fn attempts(supervisor: &TokenSupervisor) -> usize {
    supervisor.life().shared.core.attempts.len()
}

pub(crate) fn is_published(supervisor: &TokenSupervisor, key: &TokenKey) -> bool {
    supervisor.life().shared.core.snapshot.current(key).is_some()
}

pub(crate) async fn stored(supervisor: &TokenSupervisor, key: &TokenKey) -> Result<Option<RefreshToken>, Error> {
    let core = &supervisor.life().shared.core;
    let read = core.store.read(key).await.map_err(|error| Error::Start(error.to_string()))?;
    let token = read.row.and_then(|row| row.refresh_token);
    token.map(|token| open(&core.keyring, key, &token.sealed)).transpose()
}

pub(crate) fn open(keyring: &Keyring, key: &TokenKey, sealed: &Sealed) -> Result<RefreshToken, Error> {
    seal::open_refresh_token(keyring, key, sealed).map_err(|_| Error::Start("a refresh token does not open".to_owned()))
}
