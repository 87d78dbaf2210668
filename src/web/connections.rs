//! The open connections of the server: at most so many, and none for a peer that keeps the server waiting.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use enum_map::EnumMap;
use futures_util::future::{Either, select};
use tokio::time::Instant;

use super::peer::{Peer, ShedReason};
use crate::Metric;

/// The open connections of all listeners, and how many were closed for which reason.
#[derive(Debug)]
pub(super) struct Connections {
    limit: usize,
    open: Mutex<Open>,
    shed: EnumMap<ShedReason, AtomicU64>,
    logged: Mutex<EnumMap<ShedReason, Logged>>,
}

#[derive(Debug, Default)]
struct Open {
    peers: HashMap<u64, Arc<Peer>>,
    last: u64,
}

/// When a reason was logged, and how many connections were closed since.
#[derive(Debug, Default)]
struct Logged {
    at: Option<Instant>,
    since: u64,
}

/// An open connection: it is counted until this is dropped.
struct Admitted<'a> {
    all: &'a Connections,
    id: u64,
}

/// How often a connection is checked.
const TICK: Duration = Duration::from_secs(1);
/// One log line for each reason in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, open: Mutex::default(), shed: EnumMap::default(), logged: Mutex::default() }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Serves a connection: until it ends, the peer is too slow, or there are too many connections. Dropping `dispatch`
    /// closes it.
    pub(super) async fn serve<E>(
        &self,
        peer: &Arc<Peer>,
        dispatch: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let Some(_admitted) = self.admit(peer) else {
            self.shed(ShedReason::Connections, peer);
            return Ok(());
        };
        let (ended, reason) = match select(pin!(dispatch), pin!(self.overdue(peer))).await {
            // The server's own timers may have fired just before.
            Either::Left((ended, _)) => (ended, peer.overdue(Instant::now() + TICK, false)),
            Either::Right((reason, _)) => (Ok(()), Some(reason)),
        };
        if let Some(reason) = reason {
            self.shed(reason, peer);
        }
        ended
    }

    /// Adds the number of closed connections to the metric of everything that was turned away.
    pub(super) fn count_in(&self, shed_total: &mut Metric) {
        for (reason, count) in &self.shed {
            shed_total.push(&[("reason", reason.into())], count.load(Ordering::Relaxed) as f64);
        }
    }

    /// Makes room for a connection: the peer that has kept the server waiting longest has to go. `None` if the server waits
    /// for none.
    fn admit(&self, peer: &Arc<Peer>) -> Option<Admitted<'_>> {
        let mut open = self.open();
        if open.peers.len() >= self.limit {
            let waiting = open.peers.iter().filter_map(|(id, peer)| Some((peer.waits_since()?, *id)));
            let (_, longest) = waiting.min()?;
            open.peers.remove(&longest)?.evict();
        }
        open.last += 1;
        let id = open.last;
        open.peers.insert(id, peer.clone());
        Some(Admitted { all: self, id })
    }

    /// Resolves when the connection has to be closed.
    #[expect(clippy::disallowed_methods, reason = "the time of sockets is real")]
    async fn overdue(&self, peer: &Peer) -> ShedReason {
        let late = async {
            loop {
                tokio::time::sleep(TICK).await;
                if let Some(reason) = peer.overdue(Instant::now(), self.is_crowded()) {
                    return reason;
                }
            }
        };
        match select(pin!(peer.evicted()), pin!(late)).await {
            Either::Left(_) => ShedReason::Connections,
            Either::Right((reason, _)) => reason,
        }
    }

    /// Whether more than three quarters of the connections are in use.
    fn is_crowded(&self) -> bool {
        self.open().peers.len() * 4 > self.limit * 3
    }

    fn shed(&self, reason: ShedReason, peer: &Peer) {
        self.shed[reason].fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = &mut logged[reason];
        logged.since += 1;
        if logged.at.is_some_and(|at| now < at + LOG_EVERY) {
            return;
        }
        logged.at = Some(now);
        let closed = std::mem::take(&mut logged.since);
        let why = match reason {
            ShedReason::SlowReader => "the peer does not read its response",
            ShedReason::SlowHead => "the peer does not finish its request",
            ShedReason::LargeHead => "the head of the request is too long",
            ShedReason::Connections => "there are too many connections",
        };
        tracing::warn!(peer = %peer, connections.closed = closed, "closed a connection: {why}");
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.all.open().peers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_connection_too_many_closes_the_one_that_waits_longest() {
        let connections = Connections::new(2);
        let peers = [(); 3].map(|()| Peer::new(None, None));
        let serve = |peer| Box::pin(connections.serve(peer, pending::<Result<(), ()>>()));
        let [mut first, mut second, mut third] = [serve(&peers[0]), serve(&peers[1]), serve(&peers[2])];
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(first.await, Ok(()));
        assert_eq!(connections.shed[ShedReason::Connections].load(Ordering::Relaxed), 1);
        drop((second, third));
        assert!(connections.open().peers.is_empty());
    }
}
