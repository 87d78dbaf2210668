//! The flow of a request, in call order.
//!
//! [`handle`] (what callers hold) -> [`snapshot`] (the fast path: no message) -> [`registry`] (one actor, finds,
//! starts or replaces) -> [`token`] (one actor per user and identity provider) -> [`refresh`] (attempts: tasks
//! on our own runtime, in a table that outlives the actors).
//!
//! Invariants: callers wait beside an attempt, never on it; actors decide nothing that is not in
//! `token::machine`; nothing of ours runs on the host's runtime.

mod announce;
mod builder;
mod census;
mod command;
mod core;
#[cfg(feature = "web")]
mod edge;
mod events;
mod expiring;
mod handle;
mod holds;
mod idps;
mod list;
mod metrics;
mod offboard;
mod recover;
mod refresh;
mod registry;
mod runtime;
mod settings;
mod snapshot;
mod status;
mod sweep;
#[cfg(feature = "testing")]
pub(crate) mod testing;
mod token;
mod verbs;
mod watch;

pub use builder::Builder;
pub use command::{
    Acquire, Command, Connect, Disconnect, GetStatus, Hold, Purge, RefreshNow, Refreshed, RejectToken, Release,
    RequireReconnect, Restore, Revoke,
};
#[cfg(feature = "config")]
pub(crate) use core::Limits;
#[cfg(feature = "testing")]
pub use core::Point;
pub use events::{EventKind, Events, Lagged, Subscription, TokenEvent};
pub use handle::{Shutdown, TokenSupervisor};
pub use idps::{IdpStatus, Reached};
pub use list::{Cursor, Filter, Page};
pub use registry::Registry;
pub use settings::RefreshSettings;
pub use status::Status;
pub use watch::TokenWatch;
