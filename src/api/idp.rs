//! The bodies that describe identity providers and the server.

use std::{borrow::Cow, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::time;
use crate::{Cause, Evidence, IdpStatus, KeyLabel, KeyState, Replica, Retried};

/// The state of an identity provider.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Idp"))]
#[non_exhaustive]
pub struct IdpBody {
    /// Its name, as the configuration has it.
    pub idp: String,
    /// Why nothing is sent to it for now.
    pub paused: Option<Cow<'static, str>>,
    /// Until when, at least.
    #[serde(with = "time::optional")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub paused_until: Option<SystemTime>,
    /// Whether the identity provider is on hold.
    pub held: bool,
    /// Why the identity provider is on hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_reason: Option<String>,
    /// The reason for which it is on hold: `people` until they release it, `deployment` until the store is adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Cow<'static, str>>,
    /// Whether tokens can be revoked there.
    pub revokes: bool,
    /// How many refreshes are under way or queued.
    pub refreshing: usize,
    /// What it said when it last gave no token.
    pub last_error: Option<Evidence>,
    /// When that was.
    #[serde(with = "time::optional")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub last_error_at: Option<SystemTime>,
}

impl From<IdpStatus> for IdpBody {
    fn from(status: IdpStatus) -> Self {
        Self {
            idp: status.name,
            paused: status.paused.map(|cause: Cause| cause.as_str().into()),
            paused_until: status.paused_until,
            held: status.held.is_some(),
            held_reason: status.held,
            held_by: status.held_by.map(|by| by.as_str().into()),
            revokes: status.revokes,
            refreshing: status.refreshing,
            last_error: status.last_error,
            last_error_at: status.last_error_at,
        }
    }
}

/// The identity providers that the caller's key reaches.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Idps"))]
#[non_exhaustive]
pub struct IdpsBody {
    /// One for each, in the order of their names.
    pub items: Vec<IdpBody>,
}

impl IdpsBody {
    #[cfg(feature = "web")]
    pub(crate) fn of(idps: Vec<IdpStatus>) -> Self {
        Self { items: idps.into_iter().map(IdpBody::from).collect() }
    }
}

/// How many refused grants of an identity provider are retried.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Retried"))]
#[non_exhaustive]
pub struct RetriedBody {
    /// The number of grants whose refresh token is sent once more.
    pub retried: u64,
    /// Whether refused grants are left: request it again.
    pub left: bool,
}

impl From<Retried> for RetriedBody {
    fn from(Retried { retried, left }: Retried) -> Self {
        Self { retried, left }
    }
}

/// The result of adopting a store.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Adopted"))]
#[non_exhaustive]
pub struct AdoptedBody {
    /// The deployment that the store belonged to; null if it belonged to this one.
    pub adopted_from: Option<String>,
}

impl AdoptedBody {
    #[cfg(feature = "web")]
    pub(crate) fn new(adopted_from: Option<String>) -> Self {
        Self { adopted_from }
    }
}

/// A process that works with the store.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Replica"))]
#[non_exhaustive]
pub struct ReplicaBody {
    /// The name of the process: random, new with each start.
    pub id: String,
    /// The version of the program; empty if it is a later one that reports it otherwise.
    pub version: String,
    /// The keys that the process has, in the order of its key file.
    pub keys: Vec<KeyBody>,
    /// The name of the process's journal, which stays the same over restarts.
    pub journal: String,
    /// How many seconds ago the process has written its report.
    pub last_seen: u64,
    /// Whether it is about to stop.
    pub stopping: bool,
    /// Whether it is the server that responds.
    pub this: bool,
}

/// A key of a process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Key"))]
#[non_exhaustive]
pub struct KeyBody {
    /// The id of the key: 8 hexadecimal digits.
    pub id: String,
    /// `active`: seals; `staged`: becomes active when every replica has it; `retired`: was active.
    pub state: KeyState,
}

impl From<KeyLabel> for KeyBody {
    fn from(KeyLabel { id, state }: KeyLabel) -> Self {
        Self { id, state }
    }
}

impl From<Replica> for ReplicaBody {
    fn from(replica: Replica) -> Self {
        let Replica { id, version, keys, journal, last_seen, is_stopping, is_this } = replica;
        let keys = keys.into_iter().map(KeyBody::from).collect();
        Self { id, version, keys, journal, last_seen: last_seen.as_secs(), stopping: is_stopping, this: is_this }
    }
}

/// The processes that work with the store.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Replicas"))]
#[non_exhaustive]
pub struct ReplicasBody {
    /// In the order of their names.
    pub items: Vec<ReplicaBody>,
}

impl ReplicasBody {
    #[cfg(feature = "web")]
    pub(crate) fn of(replicas: Vec<Replica>) -> Self {
        Self { items: replicas.into_iter().map(ReplicaBody::from).collect() }
    }
}

/// Whether the process lives, or is ready.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Health"))]
#[non_exhaustive]
pub struct HealthBody {
    /// `ok`, or why it is not ready.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::health"))]
    pub status: Cow<'static, str>,
    /// What is degraded: `store_down`, `cut_off` (changes of other replicas do not arrive), `disk_full`, `unreadable_rows`, `journal`, `journal_damaged`, and `REASON:PROVIDER` for each provider that nothing is sent to.
    pub degraded: Vec<String>,
}

impl HealthBody {
    #[cfg(feature = "web")]
    pub(crate) fn new(status: &'static str, degraded: Vec<String>) -> Self {
        Self { status: status.into(), degraded }
    }
}
