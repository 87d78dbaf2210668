//! The HTTP API, and what actix-web applications need.
//!
//! [`api()`] is the API as a service of an actix-web application, [`Server`] the same on sockets of its own. A request's
//! way: `api` (its path) -> `serve` -> `guard` (loopback's rules) -> `call` (its key, names, parameters and body) -> its
//! handler (`tokens`, `grants`, `lists`, `idps`, `health`, `metrics`) -> `answer` or `problem`. `routes` is the table of all that is served.
//! [`IdpToken`] gives an application's own handlers the token of who called them.
//!
//! Invariants: nothing is answered before the caller's key was found to reach it; nothing that a caller sent comes back
//! in an answer or a log, but names; every answer that is no success is a problem document; what changes something is done
//! and audited whoever hangs up.

mod answer;
mod api;
mod audit;
mod call;
mod etag;
mod extract;
mod grants;
mod guard;
mod health;
mod idps;
mod keys;
mod lists;
mod metrics;
mod openapi;
mod path;
mod problem;
mod put;
mod routes;
mod schemas;
mod serve;
mod server;
mod time;
mod tokens;
mod wire;

pub use api::{Api, api};
pub use extract::{Caller, IdpName, IdpToken};
pub use keys::ApiKeys;

pub use crate::apikey::{ApiKey, Scope};
pub use problem::Problem;
pub use put::grant_body;
pub use server::Server;
