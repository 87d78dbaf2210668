//! Keeps OAuth tokens alive and never loses one.

mod clock;
mod error;
mod idp;
mod model;

pub use error::{Cause, Error};
pub use idp::{ClientAuth, Idp, InDoubt, Rotation, preset as presets};
pub use model::{
    AccessToken, ClientSecret, Expiry, Freshness, Generation, Grant, RefreshToken, State, Token, TokenKey, Warning,
};
