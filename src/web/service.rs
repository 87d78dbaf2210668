//! The state that all requests of the HTTP API share.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, watch};

use super::{connections::Connections, counters::RequestCounters, keys::ApiKeys, shed::ShedCounts, throttle::Throttle};
use crate::TokenSupervisor;

/// The HTTP API of a supervisor, to be mounted in an application under any scope. A handle: clones share their state.
///
/// ```
/// use actix_web::{App, web};
/// use token_supervisor::{TokenSupervisor, web::{ApiKey, ApiKeys, Scope, api}};
///
/// fn mount(supervisor: TokenSupervisor, sha256: [u8; 32]) {
///     let api = api(supervisor, ApiKeys::new([ApiKey::new("billing", sha256).scope(Scope::Token)]));
///     let app = move || App::new().service(web::scope("/tokens").service(api.clone()));
/// #   let _ = app();
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Api {
    pub(super) supervisor: TokenSupervisor,
    pub(super) keys: ApiKeys,
    pub(super) counters: Arc<RequestCounters>,
    pub(super) connections: Arc<Connections>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) shed: Arc<ShedCounts>,
    draining: Arc<watch::Sender<bool>>,
    active: Arc<ActiveRequests>,
    /// Whether a load balancer polls `/readyz`.
    watched: Arc<AtomicBool>,
    /// Further host names that it accepts on loopback.
    pub(super) hosts: Arc<[String]>,
    /// Whether every caller may do everything: on a Unix socket.
    pub(super) trusting: bool,
    pub(super) plain_users: bool,
}

/// Returns the HTTP API of this supervisor, to be mounted in an actix-web application (`App::service`, under any scope)
/// or served by a [`Server`](super::Server). A caller needs one of these keys, and may do what that key permits.
pub fn api(supervisor: TokenSupervisor, keys: ApiKeys) -> Api {
    let shed = Arc::<ShedCounts>::default();
    Api {
        supervisor,
        keys,
        counters: Arc::default(),
        connections: Arc::new(Connections::new(MAX_CONNECTIONS, shed.clone())),
        throttle: Arc::default(),
        shed,
        draining: Arc::default(),
        active: Arc::default(),
        watched: Arc::default(),
        hosts: Arc::default(),
        trusting: false,
        plain_users: false,
    }
}

/// As many connections as a server accepts by default.
const MAX_CONNECTIONS: usize = 1_024;

impl Api {
    /// Writes user names as they are into the audit log (target `audit`, field `user`), instead of a digest that takes
    /// the key ring to compute.
    pub fn plain_users(mut self) -> Self {
        self.plain_users = true;
        self
    }

    /// Accepts requests for these hosts on a loopback address, too: the names under which a proxy on this machine forwards
    /// requests. By default only names of loopback are accepted there, so that no web page can reach the API through a
    /// browser on this machine.
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how many connections the listeners of all its [`Server`](super::Server)s may have open at once (1 024). Call
    /// it before the first server is started.
    ///
    /// A further connection closes the one whose peer has kept the server waiting longest. A connection takes a file
    /// descriptor, and up to 64 KiB of memory.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connections = Arc::new(Connections::new(connections.max(1), self.shed.clone()));
        self
    }

    /// Announces that the process will stop: `/readyz` reports not ready, and long polls end. Every other request is served
    /// as before, except that slow request bodies are refused.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.draining.borrow() || self.supervisor.is_stopping()
    }

    /// Resolves once [`drain`](Self::drain) was called.
    pub(super) async fn drained(&self) {
        self.draining.subscribe().wait_for(|draining| *draining).await.ok();
    }

    /// Notes that a load balancer polls `/readyz`.
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Whether a load balancer polls `/readyz`, and so sends requests elsewhere once that reports not ready.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Counts a request, or a change that it started, until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> ActiveRequest {
        self.active.count.fetch_add(1, Ordering::SeqCst);
        ActiveRequest(self.clone())
    }

    /// Resolves when no request is under way and no change is being carried out.
    pub(super) async fn idle(&self) {
        loop {
            let mut ended = pin!(self.active.ended.notified());
            // Before the count is read, so that no end is missed.
            ended.as_mut().enable();
            if self.active.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// The number of requests under way, and of changes that outlive their request.
#[derive(Debug, Default)]
struct ActiveRequests {
    count: AtomicUsize,
    /// Notified when the last one ends.
    ended: Notify,
}

/// Counts a request that is under way, or a change that is being carried out.
pub(super) struct ActiveRequest(Arc<Api>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let active = &self.0.active;
        if active.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            active.ended.notify_waiters();
        }
    }
}
