//! The HTTP API, on a real port, spoken to byte by byte.

mod allocations;
#[cfg(feature = "client")]
mod api_client;
mod audited;
mod connections;
mod embedding;
mod handing_out;
mod limited_keys;
mod listing;
pub(crate) mod stage;
mod stopping;
mod verbs;
mod wrong_requests;
