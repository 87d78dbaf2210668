//! A grant as its user, its operators and its readers know it.

use std::{
    sync::Mutex as StdMutex,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use token_supervisor::TokenKey;
use tokio::sync::Mutex;

use super::{REPLICAS, now};

pub(super) struct Account {
    /// The index of its provider.
    pub(super) provider: usize,
    pub(super) key: TokenKey,
    /// Held by whoever changes the grant: its user or an operator.
    pub(super) changing: Mutex<()>,
    known: StdMutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Each consent has a subject of its own. The last one counts.
    consents: Vec<Consent>,
    /// The generation of the last connect.
    connected: u64,
    /// The highest generation that was handed out.
    seen: u64,
    /// Since when a replica says that the user must reconnect, and none hands out a token without that warning.
    refused: Option<SystemTime>,
    /// When the grant was last without connection.
    gone: Option<SystemTime>,
    /// Until when each replica is left alone: an actor that nobody asks for a while reads its row again.
    avoided: [Option<SystemTime>; REPLICAS],
}

#[derive(Clone, Debug)]
pub(super) struct Consent {
    pub(super) subject: String,
    pub(super) why: Why,
    pub(super) at: SystemTime,
}

#[derive(Clone, Debug)]
pub(super) enum Why {
    First,
    /// An operator disconnected the grant before.
    Disconnected,
    /// The user was told to, for this reason.
    Required(String),
}

/// Longer than an actor stays without a request.
const AVOIDED: Duration = Duration::from_millis(1_500);

/// A replica that was frozen may say of this time that the grant was gone.
const GONE: Duration = Duration::from_secs(30);

impl Account {
    pub(super) fn new(provider: usize, key: TokenKey) -> Self {
        Self { provider, key, changing: Mutex::default(), known: StdMutex::default() }
    }

    pub(super) fn path(&self) -> String {
        format!("/v1/grants/{}/{}", self.key.idp(), self.key.user())
    }

    pub(super) fn consents(&self) -> Vec<Consent> {
        self.known.lock().unwrap().consents.clone()
    }

    /// The subject of the next consent.
    pub(super) fn consent(&self, why: Why) -> String {
        let mut known = self.known.lock().unwrap();
        let subject = format!("{}-{}.{}", self.key.idp(), self.key.user(), known.consents.len() + 1);
        known.consents.push(Consent { subject: subject.clone(), why, at: now() });
        known.refused = None;
        subject
    }

    /// The grant is not connected until it is again.
    pub(super) fn is_going(&self) {
        // As if it lasted: the time of the connect takes its place.
        self.known.lock().unwrap().gone = Some(now() + Duration::from_secs(3_600));
    }

    pub(super) fn was_gone(&self, asked: SystemTime) -> bool {
        self.known.lock().unwrap().gone.is_some_and(|gone| asked < gone + GONE)
    }

    /// A token was handed out.
    pub(super) fn seen(&self, generation: u64, is_refused: bool) {
        let mut known = self.known.lock().unwrap();
        known.seen = known.seen.max(generation);
        if is_refused {
            known.refused.get_or_insert(now());
        } else {
            known.refused = None;
        }
    }

    pub(super) fn highest(&self) -> u64 {
        self.known.lock().unwrap().seen
    }

    /// The grant has this state since its last connect.
    pub(super) fn connected(&self, state: &Value) {
        let mut known = self.known.lock().unwrap();
        known.connected = state["generation"].as_u64().unwrap_or_default();
        known.gone = known.gone.map(|_| now());
    }

    /// Whether a state or a problem is from before that: a replica may not have heard of the connect.
    pub(super) fn is_outdated(&self, answer: &Value) -> bool {
        answer["generation"].as_u64().unwrap_or_default() < self.known.lock().unwrap().connected
    }

    /// A replica says that the user must reconnect.
    pub(super) fn refused(&self, problem: &Value) {
        if !self.is_outdated(problem) {
            self.known.lock().unwrap().refused.get_or_insert(now());
        }
    }

    pub(super) fn is_not_refused(&self) {
        self.known.lock().unwrap().refused = None;
    }

    pub(super) fn refused_since(&self) -> Option<SystemTime> {
        self.known.lock().unwrap().refused
    }

    pub(super) fn avoid(&self, replica: usize) {
        self.known.lock().unwrap().avoided[replica] = Some(now() + AVOIDED);
    }

    pub(super) fn avoids(&self, replica: usize) -> bool {
        self.known.lock().unwrap().avoided[replica].is_some_and(|until| now() < until)
    }
}
