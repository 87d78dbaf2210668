//! The bodies of the HTTP API: one type for each, for the server, the client and the command line.
//!
//! Fields are in the order of their JSON members. `/v1` only grows: a reader ignores members that it does not know, and
//! texts such as `reason` may take further values. The schemas in `openapi.json` are derived from these types.

mod grant;
mod idp;
mod keys;
mod problem;
mod query;
mod requests;
#[cfg(feature = "web")]
pub(crate) mod schema;
mod secret;
mod status;
pub mod time;
mod token;

pub(crate) use self::keys::ResealBody;
pub(crate) use self::requests::{ReasonBody, RejectedBody, Whole};
pub use self::{
    grant::grant_body,
    idp::{AdoptedBody, HealthBody, IdpBody, IdpsBody, KeyBody, ReplicaBody, ReplicasBody, RetriedBody},
    keys::{KeyUseBody, KeysBody, ResealedBody},
    problem::{GrantContext, ProblemBody},
    query::GrantQuery,
    status::{OffboardedBody, OffboardedGrant, PageBody, RefreshedBody, StatusBody},
    token::{TokenBody, TokenResult, TokensBody},
};
#[cfg(feature = "web")]
pub(crate) use self::{
    grant::{GrantBody, OwnMembers},
    requests::{BatchBody, BatchItem, EmptyBody},
    time::TimeInput,
};
