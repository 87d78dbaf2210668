//! Keeps OAuth tokens alive and never loses one.

#[cfg(not(feature = "sqlite"))]
compile_error!("token-supervisor needs a store: add the feature `sqlite` (embedded, bundled)");

mod clock;
mod error;
mod idp;
mod journal;
mod keyring;
mod model;
mod protocol;
mod store;
mod supervisor;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Cause, Error};
pub use idp::{ClientAuth, Idp, InDoubt, Rotation, preset as presets};
pub use keyring::Keyring;
pub use model::{
    AccessToken, ClientSecret, Expiry, Freshness, Generation, Grant, RefreshToken, State, Token, TokenKey, Warning,
};
pub use protocol::Unchanged;
pub use supervisor::{
    Acquire, Builder, Command, Connect, Disconnect, GetStatus, RefreshNow, RefreshSettings, Refreshed, Registry,
    RejectToken, RequireReconnect, Revoke, Shutdown, Status, TokenSupervisor, TokenWatch,
};
