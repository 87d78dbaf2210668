//! The HTTP API, and what actix-web applications need.
//!
//! [`api()`] is the API as a service of an actix-web application, [`Server`] the same on sockets of its own. A request
//! passes `mount` (its path), `serve`, `guard` (the rules of loopback), `call` (its key, names, parameters and body), its
//! handler (`tokens`, `grants`, `lists`, `idps`, `health`, `metrics`), and `response` or `problem`. `routes` is the table
//! of everything that is served: `mount` and `serve` use it, handlers do not. The bodies are in [`crate::api`].
//! `connections` bounds the connections of a [`Server`]; `peer` is what each of them waits for, `stream` its socket.
//! [`IdpToken`] gives an application's own handlers the token of their caller.
//!
//! Invariants: no response depends on a grant before the caller's key was found to reach it; nothing that a caller sent
//! is repeated in a response or a log, except names; every response that is not a success is a problem document; a change
//! is completed and audited even if the caller hangs up.

mod audit;
mod call;
mod connections;
mod counters;
mod endpoint;
mod etag;
mod extract;
mod grants;
mod guard;
mod health;
mod idps;
mod keys;
mod lists;
mod metrics;
mod mount;
mod name;
mod openapi;
mod parameters;
mod path;
mod peer;
mod principal;
mod problem;
mod response;
mod rotation;
mod routes;
mod serve;
mod server;
mod service;
mod shed;
mod slices;
mod stream;
mod throttle;
mod tokens;

pub use audit::TOKEN_LINE;
pub use extract::{Caller, IdpName, IdpToken};
pub use keys::ApiKeys;
pub use service::{Api, api};

pub use crate::{
    api::grant_body,
    apikey::{ApiKey, Scope},
};
pub use problem::Problem;
pub use server::Server;
