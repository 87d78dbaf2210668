//! Keeps OAuth tokens alive and never loses one.

mod clock;
mod error;
mod journal;
mod keyring;
mod model;
mod protocol;
mod store;

pub use error::{Cause, Error};
pub use keyring::Keyring;
pub use model::{
    AccessToken, ClientSecret, Expiry, Freshness, Generation, Grant, RefreshToken, State, Token, TokenKey, Warning,
};
