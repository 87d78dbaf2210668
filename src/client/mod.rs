//! Clients on the caller's own `reqwest` client: of resource servers, with a user's token ([`TokenClient`]), and of the
//! HTTP API of a token-supervisor elsewhere ([`ApiClient`]).

mod api;
mod resource;
mod response;

pub use self::{
    api::{ApiClient, ServerHealth},
    resource::{CallError, TokenClient},
    response::ApiError,
};
