//! Keeps OAuth tokens alive and never loses one.

mod clock;
mod error;
mod model;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Cause, Error};
pub use model::{
    AccessToken, ClientSecret, Expiry, Freshness, Generation, Grant, RefreshToken, State, Token, TokenKey, Warning,
};
