//! Values that every other module uses; no I/O.
//!
//! Invariants: nothing here reads a clock or a file; secrets are redacted newtypes; a [`Row`] holds only ciphertext, so
//! that the decisions on it (and the search that drives them) see no secret.

mod evidence;
mod grant;
mod id;
mod issued;
mod key;
mod row;
mod secret;
mod standing;
mod time;
mod token;

pub use evidence::Evidence;
pub use grant::{Expiry, Generation, Grant};
pub(crate) use grant::{Exposed, Lifetime, is_token};
#[cfg(feature = "web")]
pub(crate) use id::public_name;
pub(crate) use id::{Fingerprint, Id};
pub(crate) use issued::{Issued, IssuedBlock, IssuedRef, Publication};
#[cfg(feature = "web")]
pub(crate) use key::valid_user_name;
pub use key::{KeyAt, TokenKey};
pub(crate) use key::{valid_deployment_name, valid_idp_name};
pub(crate) use row::{
    Alt, Attempted, Intent, LastError, Lease, Marks, Row, Sealed, Sender, Spendable, Tombstone, Verdict,
};
pub use row::{State, VerdictBy};
pub use secret::{AccessToken, ClientSecret, RefreshToken};
pub(crate) use standing::TokenStanding;
pub use standing::{Freshness, Warning};
pub(crate) use time::{BootTime, Expires, StoreTime, WallTime};
pub use token::{Token, TokenRef};
