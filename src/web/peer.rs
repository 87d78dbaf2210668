//! What the server and the peer of one connection owe each other, and how long the peer may take.
//!
//! The peer owes the head of a request, its body, or room for the response. While it owes nothing, as in a long poll, there
//! is no limit.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use actix_web::{HttpRequest, http::header};
use tokio::{sync::Notify, time::Instant};

use super::shed::ShedReason;

/// The peer of one connection, shared by the connection's socket, its requests, and the table of connections.
#[derive(Debug)]
pub(super) struct Peer {
    address: Option<SocketAddr>,
    /// The address that the connection came to.
    local: Option<SocketAddr>,
    turn: Mutex<Turn>,
    evicted: Notify,
}

/// Whose turn it is.
#[derive(Debug)]
struct Turn {
    phase: Phase,
    /// When the phase began; of a head, when its first byte arrived. Not set while a request is carried out.
    since: Instant,
    /// The length of what has arrived of a head.
    head: usize,
    /// Whether this is the first request of the connection.
    is_first: bool,
    /// The length of what was read of a body before its request was dispatched.
    early: usize,
    /// What has not arrived of the body of the last request.
    unread: UnreadBody,
    /// Set while the socket takes no more bytes: since when, and when the peer is too slow.
    blocked: Option<(Instant, Instant)>,
    /// Reads go on when the response is written.
    held: Option<Waker>,
    failure: Option<ShedReason>,
}

/// What happens on a connection next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The head of a request arrives, or the rest of a body that no handler reads.
    Head,
    /// A handler reads the body of a request.
    Body,
    /// A request is carried out, and its response is sent.
    Response,
}

/// How much of a body has not arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnreadBody {
    Nothing,
    Bytes(usize),
    /// Chunks, until the last one.
    Chunks,
}

/// Limit for a peer to send the head of a request.
pub(super) const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The longest head of a request.
const MAX_HEAD: usize = 32 * 1024;
/// How much is read at once where a head may end, and
pub(super) const PART: usize = 8 * 1024;
/// where a body in chunks may end: requests may follow.
const CHUNK: usize = 1024;
/// Limit for a peer to read anything at all of a response.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// The slowest rate at which a peer may read a response, in bytes per second.
const READ_RATE: f64 = 1024.0;
/// Both limits while most connections are in use.
const WHEN_CROWDED: Duration = Duration::from_secs(1);
/// Limit for a connection without a request. actix-http closes it earlier, unless it waits for the rest of a body.
const IDLE_WITHIN: Duration = Duration::from_secs(80);

impl Peer {
    pub(super) fn new(address: Option<SocketAddr>, local: Option<SocketAddr>) -> Arc<Self> {
        let turn = Turn {
            phase: Phase::Head,
            since: Instant::now(),
            head: 0,
            is_first: true,
            early: 0,
            unread: UnreadBody::Nothing,
            blocked: None,
            held: None,
            failure: None,
        };
        Arc::new(Self { address, local, turn: Mutex::new(turn), evicted: Notify::new() })
    }

    /// The peer of a request; `None` if the connection belongs to an application in which the API is mounted.
    pub(super) fn of(request: &HttpRequest) -> Option<Arc<Self>> {
        request.conn_data().cloned()
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Returns how many bytes of the peer may be read.
    pub(super) fn may_read(&self) -> usize {
        let turn = self.turn();
        match (turn.blocked, turn.phase, turn.unread) {
            (Some(_), ..) | (_, Phase::Response, UnreadBody::Chunks) => 0,
            (_, Phase::Head, _) => PART,
            (_, Phase::Body, UnreadBody::Chunks) => CHUNK,
            (_, Phase::Body | Phase::Response, UnreadBody::Bytes(bytes)) => bytes,
            (_, Phase::Body | Phase::Response, UnreadBody::Nothing) => 0,
        }
    }

    /// Wakes this waker when more bytes may be read: some have arrived, so that the socket does not wake it.
    pub(super) fn hold(&self, waker: &Waker) {
        self.turn().held = Some(waker.clone());
    }

    /// Whether the next bytes belong to the head of a request.
    pub(super) fn reads_head(&self) -> bool {
        let turn = self.turn();
        turn.phase == Phase::Head && turn.unread == UnreadBody::Nothing
    }

    /// Notes that so much of a head was read, and of the body behind its end.
    ///
    /// # Errors
    /// The head is too long.
    pub(super) fn sent_head(&self, head: usize, body: usize) -> Result<(), ShedReason> {
        let mut turn = self.turn();
        turn.early = body;
        turn.arrived(head);
        if turn.head <= MAX_HEAD {
            return Ok(());
        }
        turn.failure = Some(ShedReason::LargeHead);
        Err(ShedReason::LargeHead)
    }

    /// Notes that so much of a body was read.
    pub(super) fn sent(&self, bytes: usize) {
        let mut turn = self.turn();
        match (turn.phase, turn.unread) {
            (Phase::Head, _) => turn.arrived(bytes),
            (_, UnreadBody::Bytes(unread)) if unread > bytes => turn.unread = UnreadBody::Bytes(unread - bytes),
            (_, UnreadBody::Bytes(_)) => turn.unread = UnreadBody::Nothing,
            (_, UnreadBody::Nothing | UnreadBody::Chunks) => {}
        }
    }

    /// Notes that the socket takes no more bytes.
    pub(super) fn blocks(&self) {
        let now = Instant::now();
        self.turn().blocked.get_or_insert((now, now + READ_WITHIN));
    }

    /// Notes that the socket took some bytes, but not all.
    pub(super) fn has_read(&self, bytes: usize) {
        if let Some((_, until)) = &mut self.turn().blocked {
            let earned = Duration::from_secs_f64(bytes as f64 / READ_RATE);
            *until = (*until + earned).min(Instant::now() + READ_WITHIN);
        }
    }

    /// Notes that the socket took all bytes.
    pub(super) fn has_read_all(&self) {
        let mut turn = self.turn();
        turn.blocked = None;
        if turn.phase == Phase::Head && turn.head == 0 {
            // The time for the next request begins when the response was read.
            turn.since = Instant::now();
        }
        turn.go_on();
    }

    /// Resolves when this connection has to make room for another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Why the connection has to be closed at this time, if it has to.
    pub(super) fn overdue(&self, now: Instant, is_crowded: bool) -> Option<ShedReason> {
        let turn = self.turn();
        if turn.failure.is_some() {
            return turn.failure;
        }
        if let Some((_, until)) = turn.blocked {
            let earlier = if is_crowded { READ_WITHIN - WHEN_CROWDED } else { Duration::ZERO };
            return (now + earlier >= until).then_some(ShedReason::SlowReader);
        }
        let within = match turn.phase {
            Phase::Head if turn.head == 0 && !turn.is_first => IDLE_WITHIN,
            Phase::Head if is_crowded => WHEN_CROWDED,
            Phase::Head => HEAD_WITHIN,
            Phase::Body | Phase::Response => return None,
        };
        (now >= turn.since + within).then_some(ShedReason::SlowHead)
    }

    /// Since when the server waits for the peer; `None` while the peer waits for the server.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let turn = self.turn();
        match (turn.blocked, turn.phase) {
            (Some((since, _)), _) => Some(since),
            (None, Phase::Head | Phase::Body) => Some(turn.since),
            (None, Phase::Response) => None,
        }
    }

    /// Begins or ends a request.
    #[cfg(test)]
    pub(super) fn carry_out(&self, begins: bool) {
        self.turn().enter(if begins { Phase::Response } else { Phase::Head });
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("unix socket"),
        }
    }
}

impl Turn {
    fn enter(&mut self, phase: Phase) {
        (self.phase, self.head) = (phase, 0);
        // A response has no limit.
        if phase != Phase::Response {
            self.since = Instant::now();
        }
        self.go_on();
    }

    /// Notes that bytes have arrived while the head of a request is expected.
    fn arrived(&mut self, bytes: usize) {
        if self.head == 0 && bytes > 0 {
            self.since = Instant::now();
        }
        self.head += bytes;
    }

    /// Lets reads go on that had to wait.
    fn go_on(&mut self) {
        if let Some(waker) = self.held.take() {
            waker.wake();
        }
    }
}

/// A request that is carried out, until the guard is dropped with its response.
#[derive(Debug)]
pub(super) struct Exchange(Arc<Peer>);

impl Exchange {
    pub(super) fn begin(request: &HttpRequest) -> Option<Self> {
        let peer = Peer::of(request)?;
        let mut turn = peer.turn();
        turn.enter(Phase::Response);
        turn.is_first = false;
        turn.unread = match request.headers().get(header::CONTENT_LENGTH) {
            _ if request.headers().contains_key(header::TRANSFER_ENCODING) => UnreadBody::Chunks,
            None => UnreadBody::Nothing,
            // actix-http has checked it.
            Some(length) => match length.to_str().ok().and_then(|length| length.parse::<usize>().ok()) {
                Some(length) if length <= turn.early => UnreadBody::Nothing,
                length => UnreadBody::Bytes(length.unwrap_or(usize::MAX) - turn.early),
            },
        };
        turn.early = 0;
        drop(turn);
        Some(Self(peer))
    }

    /// Whether the request has a body that has not arrived completely: no further request can follow it.
    pub(super) fn has_unread_body(&self) -> bool {
        self.0.turn().unread != UnreadBody::Nothing
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.turn().enter(Phase::Head);
    }
}

/// A handler that reads the body of a request, until the guard is dropped.
#[derive(Debug)]
pub(super) struct BodyRead(Arc<Peer>);

impl BodyRead {
    pub(super) fn begin(request: &HttpRequest) -> Option<Self> {
        let peer = Peer::of(request)?;
        peer.turn().enter(Phase::Body);
        Some(Self(peer))
    }

    /// Notes that the body was read to its end.
    pub(super) fn complete(&self) {
        self.0.turn().unread = UnreadBody::Nothing;
    }
}

impl Drop for BodyRead {
    fn drop(&mut self) {
        self.0.turn().enter(Phase::Response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_peer_has_a_limit_for_each_thing_that_it_owes() {
        let peer = Peer::new(None, None);
        let overdue = |seconds, is_crowded| peer.overdue(after(seconds), is_crowded);
        assert_eq!((overdue(4, false), overdue(6, false)), (None, Some(ShedReason::SlowHead)), "no byte yet");
        assert_eq!(overdue(2, true), Some(ShedReason::SlowHead));
        peer.turn().enter(Phase::Response);
        peer.turn().is_first = false;
        assert_eq!((overdue(3_600, true), peer.waits_since()), (None, None), "a long poll");
        peer.blocks();
        assert_eq!((overdue(9, false), overdue(11, false)), (None, Some(ShedReason::SlowReader)));
        assert_eq!((overdue(0, true), overdue(2, true)), (None, Some(ShedReason::SlowReader)));
        peer.has_read(1_000_000);
        assert_eq!((overdue(9, false), overdue(11, false)), (None, Some(ShedReason::SlowReader)), "never longer");
        peer.has_read_all();
        assert_eq!(overdue(3_600, false), None);
        peer.turn().enter(Phase::Head);
        assert_eq!((overdue(79, true), overdue(81, false)), (None, Some(ShedReason::SlowHead)), "kept alive");
        assert_eq!(peer.sent_head(1, 0), Ok(()));
        assert_eq!((overdue(4, false), overdue(6, false)), (None, Some(ShedReason::SlowHead)));
        assert_eq!(peer.sent_head(MAX_HEAD, 0), Err(ShedReason::LargeHead));
        assert_eq!(overdue(0, false), Some(ShedReason::LargeHead));
    }

    #[test]
    fn bytes_that_are_read_one_by_one_do_not_extend_the_limit() {
        let peer = Peer::new(None, None);
        peer.turn().enter(Phase::Response);
        peer.blocks();
        for _ in 0..1_000 {
            peer.has_read(1);
            peer.blocks();
        }
        assert_eq!(peer.overdue(after(11), false), Some(ShedReason::SlowReader));
    }
}
