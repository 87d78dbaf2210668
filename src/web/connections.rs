//! The open connections of the server: at most so many, and none for a peer that keeps the server waiting.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::time::Instant;

use super::{
    peer::Peer,
    shed::{ShedCounts, ShedReason},
};

/// The open connections of all listeners.
#[derive(Debug)]
pub(super) struct Connections {
    limit: usize,
    open: Mutex<Open>,
    shed: Arc<ShedCounts>,
}

#[derive(Debug, Default)]
struct Open {
    peers: HashMap<u64, Arc<Peer>>,
    last: u64,
    /// When it was counted last whether the server waits for most peers, and the result.
    crowded: Option<(Instant, bool)>,
}

/// An open connection: it is counted until this is dropped.
struct Admitted<'a> {
    all: &'a Connections,
    id: u64,
}

/// How often a connection is checked.
const TICK: Duration = Duration::from_secs(1);

impl Connections {
    pub(super) fn new(limit: usize, shed: Arc<ShedCounts>) -> Self {
        Self { limit, open: Mutex::default(), shed }
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
            self.shed.count(ShedReason::Connections, peer, None);
            return Ok(());
        };
        let (ended, reason) = match select(pin!(dispatch), pin!(self.overdue(peer))).await {
            // The server's own timers may have fired just before.
            Either::Left((ended, _)) => (ended, peer.overdue(Instant::now() + TICK, false)),
            Either::Right((reason, _)) => (Ok(()), Some(reason)),
        };
        if let Some(reason) = reason {
            self.shed.count(reason, peer, None);
        }
        ended
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

    /// Whether the server waits for the peers of more than three quarters of the connections that it accepts. Counted once a
    /// second.
    fn is_crowded(&self) -> bool {
        let mut open = self.open();
        let most = |count: usize| count * 4 > self.limit * 3;
        if !most(open.peers.len()) {
            return false;
        }
        let now = Instant::now();
        match open.crowded {
            Some((counted, is_crowded)) if now < counted + Duration::from_secs(1) => is_crowded,
            _ => {
                let is_crowded = most(open.peers.values().filter(|peer| peer.waits_since().is_some()).count());
                open.crowded = Some((now, is_crowded));
                is_crowded
            }
        }
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
        let connections = Connections::new(2, Arc::default());
        let peers = [(); 3].map(|()| Peer::new(None, None));
        let serve = |peer| Box::pin(connections.serve(peer, pending::<Result<(), ()>>()));
        let [mut first, mut second, mut third] = [serve(&peers[0]), serve(&peers[1]), serve(&peers[2])];
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(first.await, Ok(()));
        assert_eq!(connections.shed.total(ShedReason::Connections), 1);
        drop((second, third));
        assert!(connections.open().peers.is_empty());
    }
}
