//! Clients on the caller's own `reqwest` client: of resource servers, with a user's token ([`TokenClient`]), and of the
//! HTTP API of a token-supervisor elsewhere ([`ApiClient`]).

mod api;
mod resource;

pub use self::{
    api::{ApiClient, ApiError, ServerHealth},
    resource::{CallError, TokenClient},
};
