//! The HTTP API, on a real port, spoken to byte by byte.

mod embedding;
mod handing_out;
mod listing;
pub(crate) mod stage;
mod verbs;
mod wrong_requests;
