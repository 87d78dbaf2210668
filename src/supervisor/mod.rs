//! The flow of a request, in call order.
//!
//! [`handle`] (what callers hold) -> [`snapshot`] (the fast path: no message) -> [`front`] and [`router`] (the way to the
//! registry) -> [`registry`] (one actor: finds, starts or replaces) -> [`token`] (one actor per user and identity provider)
//! -> [`refresh`] (attempts: tasks on our own runtime, in a table that outlives the actors).
//!
//! Beside that way: [`provider`] (the identity providers at run time), [`ledger`] (the store and all who must hear of a
//! change), [`upkeep`] (what comes due without a caller), [`runtime`] (the threads). [`builder`] alone knows all of them.
//!
//! Invariants: callers wait beside an attempt, never on it; actors decide nothing that is not in `token::machine`; rows are
//! changed through [`ledger`] alone; nothing of ours runs on the host's runtime; imports run in one direction.

mod adopt;
mod alarm;
#[cfg(test)]
mod bench;
mod builder;
mod by;
mod census;
mod cold;
mod command;
mod disconnect_user;
mod events;
mod exchange;
mod fleet;
mod front;
mod handle;
mod idps;
mod jitter;
mod kept;
mod keys;
mod ledger;
mod list;
mod metrics;
mod point;
mod provider;
mod recipients;
mod recovery;
mod refresh;
mod registry;
mod replicas;
mod retry_idp;
mod revocation;
mod router;
mod runtime;
mod settings;
mod shed;
mod snapshot;
mod status;
#[cfg(feature = "testing")]
pub(crate) mod testing;
mod token;
mod upkeep;
mod verbs;

pub use builder::Builder;
pub use by::By;
pub use command::{
    Acquire, Command, Connect, Disconnect, GetStatus, Hold, Purge, RefreshNow, Refreshed, RejectToken, Release,
    RequireReconnect, Restore, Retry, Revoke,
};
pub use events::{EventKind, Events, Lagged, Subscription, TokenEvent};
pub use handle::TokenSupervisor;
pub use idps::{HeldBy, IdpStatus, Reached};
pub use keys::{KeyNeed, KeyStatus, ResealStep};
pub use list::{Cursor, Filter, Page};
#[cfg(feature = "testing")]
pub use point::Point;
pub use recipients::Registry;
pub use replicas::Replica;
pub use retry_idp::Retried;
pub use revocation::Revocation;
pub use runtime::Shutdown;
#[cfg(feature = "config")]
pub(crate) use settings::Limits;
pub use settings::RefreshSettings;
pub use snapshot::TokenWatch;
pub use status::Status;
