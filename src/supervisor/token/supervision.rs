//! What passes between the registry and the actors that it starts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize},
};

use actix::{Message, Recipient};

use crate::{
    model::TokenKey,
    supervisor::{refresh::Refresher, router::Router, settings::Limits, shed::ShedRequests},
};

/// What every actor of a key works with; one for each supervisor.
pub(in crate::supervisor) struct Surroundings {
    pub(in crate::supervisor) refresher: Refresher,
    pub(in crate::supervisor) router: Router,
    pub(in crate::supervisor) limits: Limits,
    pub(in crate::supervisor) shed: Arc<ShedRequests>,
    /// The number of actors that are awake.
    pub(in crate::supervisor) awake: AtomicUsize,
    /// The number of actors that panicked and were replaced.
    pub(in crate::supervisor) restarts: AtomicU64,
}

impl Surroundings {
    pub(in crate::supervisor) fn new(refresher: Refresher, router: Router, limits: Limits) -> Self {
        let (awake, restarts) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { refresher, router, limits, shed: Arc::default(), awake, restarts }
    }
}

/// An actor's report to the registry that started it.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::supervisor) struct ActorReport {
    pub(in crate::supervisor) key: TokenKey,
    /// Tells the actor from its predecessors and successors.
    pub(in crate::supervisor) number: u64,
    pub(in crate::supervisor) news: ActorNews,
}

pub(in crate::supervisor) enum ActorNews {
    Ended {
        panicked: bool,
    },
    /// The actor wants to sleep: route nothing to it any more, then let it know.
    Retires(Recipient<Retired>),
}

/// The registry routes nothing to the actor any more: stop as soon as no caller waits.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::supervisor) struct Retired;
