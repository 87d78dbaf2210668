//! Keeps OAuth tokens valid, through crashes and outages.
//!
//! **Each grant has at most one refresh at a time. A new refresh token is on disk before any caller sees the access token that
//! came with it. From then on it is not lost, and the one before it is not sent again, even if a caller vanishes, an actor
//! panics, the process is killed or the database is down. A valid token costs nanoseconds.** Each (user, identity
//! provider) pair gets a supervised actor that owns its token's state and serializes its refreshes; a registry routes
//! requests and replaces actors that fail. After a request without a response, the refresh token is sent again, but not at
//! once: when, and what no client can keep, is in `SEMANTICS.md`.
//!
//! ```text
//! caller -- token(key) --> TokenSupervisor -- good? --> snapshot --> token     no message, no lock, no allocation
//!                              | no
//!                              v
//!                         RegistryActor -- finds, starts or replaces --> TokenActor     one per user and provider
//!                                                                           | joins or starts
//!                                                                           v
//!               attempt:  gate > claim > send > seal > commit or journal > publish      outlives all of the above
//! ```
//!
//! It does not run the user's consent (hand in what it gave with [`TokenSupervisor::connect`]), does not verify
//! tokens, and is no secret store for anything else.
//!
//! # The smallest program
//!
//! ```
//! # use token_supervisor::testing::{Profile, SimulatedIdp};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use token_supervisor::{Keyring, TokenKey, TokenSupervisor, presets};
//!
//! # let folder = tempfile::tempdir()?;
//! # let (store, keys) = (format!("sqlite://{}/tokens.db", folder.path().display()), folder.path().join("tokens.keys"));
//! # Keyring::generate().write_new(&keys)?;
//! # let simulated = SimulatedIdp::start(Profile::gitlab())?;
//! # let (client_id, client_secret) = ("simulated-client", "ts-test-secret-client");
//! let supervisor = TokenSupervisor::builder()
//!     .store(store) // such as "sqlite://tokens.db"
//!     .keyring(Keyring::from_file(keys)?)
//!     .idp("gitlab", presets::gitlab(client_id, client_secret))
//!     .start()
//!     .await?;
//!
//! let alice = TokenKey::at("gitlab").user("alice");
//! # let grant = simulated.consent("alice");
//! supervisor.connect(&alice, grant).await?; // once, with what the user's consent gave
//! let token = supervisor.token(&alice).await?; // always: valid, or an error that says what to do
//! assert_eq!(token.token_type(), "Bearer");
//! # supervisor.shutdown(std::time::Duration::from_secs(5)).await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Where to start reading
//!
//! [`TokenSupervisor`] is what callers hold, [`Builder`] what starts it, [`Error`] what can go wrong and what to do
//! then; other actors use [`Registry`]. In the source: `supervisor/handle.rs`, then `protocol/mod.rs`.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `sqlite` | the embedded store, bundled; needs a C compiler |
//! | `postgres` | the store on a PostgreSQL server, for several processes |
//! | `testing` | the simulated identity provider and the manual clock |
//! | `config` | settings from a file and the environment, read again while running |
//! | `web` | the HTTP API and what actix-web applications need |
//! | `client` | calls to resource servers with a user's token, and to the HTTP API, through `reqwest` |
//! | `cli` | what the binary needs beside the library |
//!
//! All are on by default, for the binary; embedders write
//! `default-features = false, features = ["sqlite"]`, or `["postgres"]`; the store's URL chooses between them.

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!(
    "token-supervisor needs a store: add the feature `sqlite` (embedded, bundled) or `postgres` (a PostgreSQL server)"
);

#[cfg(any(feature = "web", feature = "client"))]
pub mod api;
#[cfg(any(feature = "config", feature = "web"))]
mod apikey;
#[cfg(feature = "client")]
pub mod client;
mod clock;
mod code;
#[cfg(feature = "config")]
pub mod config;
mod disk;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod idp;
mod journal;
mod keyring;
mod metrics;
mod model;
mod protocol;
mod store;
mod supervisor;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "web")]
pub mod web;

/// The Rust of the documentation compiles, and runs where it is more than functions.
#[cfg(all(doctest, feature = "client", feature = "testing", feature = "web"))]
mod documentation {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
}

pub use code::{Cause, Code, Why};
pub use error::Error;
pub use idp::{ClientAuth, ErrorRule, Idp, InDoubt, Meaning, ResponseField, Rotation, preset as presets};
pub use keyring::{KeyFileEdit, KeyLabel, KeyState, Keyring, RotationError};
pub use metrics::{Metric, MetricKind, Sample};
pub use model::{
    AccessToken, ClientSecret, Evidence, Expiry, Freshness, Generation, Grant, KeyAt, RefreshToken, State, Token,
    TokenKey, TokenRef, VerdictBy, Warning,
};
pub use protocol::Unchanged;
pub use store::Migrate;
pub use supervisor::{
    Acquire, Builder, By, Command, Connect, Cursor, Disconnect, EventKind, Events, Filter, GetStatus, HeldBy, Hold,
    IdpStatus, KeyNeed, KeyStatus, Lagged, Page, Purge, Reached, RefreshNow, RefreshSettings, Refreshed, Registry,
    RejectToken, Release, Replica, RequireReconnect, ResealStep, Restore, Retried, Retry, Revocation, Revoke, Shutdown,
    Status, Subscription, TokenEvent, TokenSupervisor, TokenWatch,
};
