//! The port to identity providers: what one is (data), how to ask it, and what its answer means.
//!
//! An [`Idp`] is data ([`provider`]; [`check`] says whether it can work); [`preset`] holds the ones we
//! know. A refresh goes through the files in this order: [`gate`] (may we ask now? [`health`] decides), [`http`] (one
//! request, written at most once), [`body`] and [`decode`] (bytes to fields), [`outcome`] (fields to a verdict, by the
//! provider's [`rule`]s), and after a failure [`backoff`] (when to ask again). [`consent`] reads the answer that starts a grant.
//!
//! Invariants: `reqwest` appears in [`http`] alone, the `backoff` crate in [`backoff`] alone; `body`,
//! `decode` and `outcome` are pure; nothing here decides about a grant, and no body, URL or token is in any
//! message. To add a provider, add a function to [`preset`] with the source of each of its facts.

mod backoff;
mod body;
mod check;
mod consent;
mod decode;
mod gate;
mod health;
mod http;
mod outcome;
mod patience;
pub mod preset;
mod provider;
mod rule;

#[cfg(any(feature = "config", feature = "client"))]
pub(crate) use self::check::loopback;
#[cfg(any(test, fuzzing))]
pub(crate) use self::http::outcome_of;
pub use self::outcome::Meaning;
#[cfg(feature = "config")]
pub(crate) use self::provider::Credentials;
pub use self::provider::{ClientAuth, Idp, InDoubt, Rotation};
pub use self::rule::ErrorRule;
pub(crate) use self::{
    backoff::{OPERATOR_BACKOFF, delay},
    decode::RefreshLifetime,
    gate::{Gate, Priority, Slot},
    health::{GateClosed, HealthChange, Observation},
    http::Client,
    outcome::{IdpFailure, Outcome, TokenResponse},
    provider::RESERVED_PARAMS,
};
