//! The port to identity providers: their description as data, the requests to them, and the meaning of their responses.
//!
//! An [`Idp`] is data ([`provider`]; [`check`] validates it); [`preset`] holds the known providers. A refresh passes
//! through these files in order: [`gate`] (waits until a request may be sent; [`health`] decides, with [`breaker`], [`suspects`] and [`surge`]), [`http`] (sends one
//! request, written at most once; on a [`lane`] of its provider; [`connecting`] says why there was no connection), [`encoding`], [`body`], [`tolerant`], [`layout`], [`lifetime`] and [`decode`] (bytes
//! to fields), [`outcome`] (fields to an outcome, by the provider's [`rule`]s, without secrets: [`scrub`]), and after a failure [`backoff`] (when to retry). [`consent`] reads the response that starts a
//! grant.
//!
//! Invariants: `reqwest` appears in [`http`] alone, the `backoff` crate in [`backoff`] alone. `body`, `decode` and
//! `outcome` are pure. Nothing here decides about a grant. No message contains a body, a URL or a token. To add a
//! provider, add a function to [`preset`] with the source of each of its facts.

mod backoff;
mod body;
mod breaker;
mod check;
mod connecting;
mod consent;
mod decode;
mod encoding;
mod endpoint;
mod gate;
mod health;
mod http;
mod lane;
mod layout;
mod lifetime;
mod outcome;
mod patience;
pub mod preset;
mod probe;
mod provider;
mod rule;
mod scrub;
mod surge;
mod suspects;
mod tolerant;

#[cfg(any(feature = "config", feature = "client"))]
pub(crate) use self::check::loopback;
#[cfg(feature = "config")]
pub(crate) use self::endpoint::parameters_of;
#[cfg(any(test, fuzzing))]
pub(crate) use self::http::outcome_of;
pub use self::layout::ResponseField;
#[cfg(feature = "config")]
pub(crate) use self::layout::path as path_of_pointer;
#[cfg(feature = "config")]
pub(crate) use self::provider::Credentials;
pub use self::provider::{ClientAuth, Idp, InDoubt, Rotation};
pub use self::rule::{ErrorRule, Meaning};
pub(crate) use self::{
    backoff::{OPERATOR_BACKOFF, SHORTEST_DELAY, delay},
    breaker::GateClosed,
    gate::{Gate, Priority, Slot},
    health::{HealthChange, Observation},
    http::Client,
    outcome::{IdpFailure, Oddities, RefreshLifetime, ResponseOutcome, TokenResponse},
    surge::SurgeSight,
    tolerant::Flaw,
};
