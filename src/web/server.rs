//! Serves the API on sockets of its own.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    time::Duration,
};

use actix_http::{HttpService, error::DispatchError};
use actix_server::{GracefulShutdownSignal, ServerBuilder, ServerHandle};
use actix_service::{Service, ServiceFactory, apply_fn_factory, map_config};
use actix_web::{App, dev::AppConfig};
use futures_util::future::{Either, select};
use socket2::SockRef;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};

use super::{
    Api, mount,
    peer::{HEAD_WITHIN, Peer},
    slices::SLICE,
    stream::{PacedStream, Socket},
};

/// A running server. Dropping it leaves it running; [`stop`](Self::stop) ends it.
///
/// ```
/// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
/// # doc::with_alice(async |supervisor, _, _| {
/// use std::{net::TcpListener, time::Duration};
/// use token_supervisor::web::{ApiKey, ApiKeys, Scope, Server, api};
///
/// # let sha256 = [0; 32];
/// let keys = ApiKeys::new([ApiKey::new("billing", sha256).scope(Scope::Token)]);
/// let listener = TcpListener::bind("127.0.0.1:0")?; // such as 127.0.0.1:8080
/// let server = Server::start(api(supervisor.clone(), keys), [listener])?;
/// // ... until a signal comes; then:
/// server.stop().await?;
/// supervisor.shutdown(Duration::from_secs(30)).await;
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub struct Server {
    api: Api,
    handle: ServerHandle,
    running: JoinHandle<io::Result<()>>,
    /// Closes when the server has ended.
    alive: watch::Receiver<()>,
}

impl Server {
    /// Serves the API on these listeners, from within a tokio runtime. Signals are left to the caller.
    ///
    /// # Errors
    /// The operating system rejected a listener.
    pub fn start(api: Api, listeners: impl IntoIterator<Item = TcpListener>) -> io::Result<Self> {
        let mut server = builder(&api);
        for listener in listeners {
            let socket = SockRef::from(&listener);
            socket.listen(BACKLOG)?;
            // Connections inherit it.
            socket.set_send_buffer_size(SEND_BUFFER)?;
            let (api, address) = (api.clone(), listener.local_addr()?);
            let stop = server.graceful_shutdown_signal();
            server = server.listen(NAME, listener, move || service::<TcpStream>(&api, &stop, Some(address)))?;
        }
        Ok(Self::running(api, server.run()))
    }

    /// Serves the API on a Unix socket, without API keys: every process that can open the socket may do everything. The
    /// socket's file must be accessible to this user alone (mode 0600).
    ///
    /// # Errors
    /// The operating system rejected the listener.
    #[cfg(unix)]
    pub fn start_trusting(mut api: Api, listener: UnixListener) -> io::Result<Self> {
        api.trusting = true;
        SockRef::from(&listener).listen(BACKLOG)?;
        let (server, served) = (builder(&api), api.clone());
        let stop = server.graceful_shutdown_signal();
        let server = server.listen_uds(NAME, listener, move || service::<UnixStream>(&served, &stop, None))?;
        Ok(Self::running(api, server.run()))
    }

    fn running(api: Api, server: actix_server::Server) -> Self {
        let handle = server.handle();
        let (runs, alive) = watch::channel(());
        let running = tokio::spawn(async move {
            let _runs = runs;
            server.await
        });
        Self { api, handle, running, alive }
    }

    /// Waits until the server has ended without [`stop`](Self::stop): it failed, and `stop` returns the error.
    ///
    /// Dropping the future changes nothing.
    pub async fn ended(&self) {
        self.alive.clone().changed().await.ok();
    }

    /// Stops the server. It first reports not ready, for two seconds if a load balancer polls that ([`Api::drain`]); then it
    /// accepts no more connections, and waits until the requests under way have their responses and their changes are
    /// done. Long polls end at once; a client that neither sends nor reads is not waited for. The supervisor continues:
    /// shut it down next.
    ///
    /// Dropping the future leaves the server stopping.
    ///
    /// # Errors
    /// The server had already failed.
    pub async fn stop(self) -> io::Result<()> {
        tokio::spawn(self.end()).await.map_err(io::Error::other)?
    }

    async fn end(self) -> io::Result<()> {
        let (api, clock) = (&self.api, self.api.supervisor.clock());
        api.drain();
        if api.is_watched() {
            clock.sleep(SEEN_WITHIN).await;
        }
        let end = clock.read().boot + DRAINED_WITHIN;
        let closed = self.handle.stop(true);
        let silent = async {
            api.idle().await;
            clock.sleep(SENT_WITHIN).await;
            api.idle().await;
        };
        if let Either::Right(_) = select(pin!(closed), pin!(silent)).await {
            self.running.abort();
        }
        // A change may still be under way although its connection is gone.
        select(pin!(api.idle()), pin!(clock.sleep(end.since(clock.read().boot)))).await;
        match self.running.await {
            Err(ended) if ended.is_cancelled() => Ok(()),
            ended => ended.map_err(io::Error::other)?,
        }
    }
}

/// Returns the service of a listener at this address, for the connections of one worker.
fn service<S: Socket>(
    api: &Api,
    stop: &GracefulShutdownSignal,
    address: Option<SocketAddr>,
) -> impl ServiceFactory<S, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<S> {
    let (connections, stop) = (api.connections.clone(), stop.clone());
    let app = App::new().service(api.clone()).default_service(mount::nothing(api));
    let http = HttpService::build()
        .keep_alive(KEPT_ALIVE)
        .client_request_timeout(HEAD_WITHIN)
        .client_disconnect_timeout(CLOSED_WITHIN)
        .h1_write_buffer_size(SLICE)
        .graceful_shutdown_signal(move || {
            let stop = stop.clone();
            async move { stop.notified().await }
        })
        .on_connect_ext(|stream: &PacedStream<S>, data| {
            data.insert(stream.peer().clone());
        })
        .h1(map_config(app, |()| AppConfig::default()));
    apply_fn_factory(http, move |socket: S, http: &_| {
        let (connections, peer) = (connections.clone(), Peer::new(socket.address_of_peer(), address));
        let dispatch = Service::call(http, (PacedStream::new(socket, peer.clone()), peer.address()));
        async move { connections.serve(&peer, dispatch).await }
    })
}

fn builder(api: &Api) -> ServerBuilder {
    ServerBuilder::new()
        .workers(WORKERS)
        .max_concurrent_connections(api.connections.limit() / WORKERS + SPARE)
        .disable_signals()
        .shutdown_timeout(DRAINED_WITHIN.as_secs())
}

/// Names the listeners in the log of actix.
const NAME: &str = "token-supervisor";
/// Connections that the operating system accepts before a worker takes them.
const BACKLOG: i32 = 1_024;
/// How much of a response the operating system holds for a connection.
const SEND_BUFFER: usize = 32 * 1024;
/// Connections that a worker may take above its share: each closes another one, unless none can be closed.
const SPARE: usize = 16;
/// Tokens come from a map: two threads produce more responses than a network card sends.
const WORKERS: usize = 2;
/// How long a connection without a request stays open. Longer than the pauses of most clients: one that sends just when the
/// server closes has to send again.
const KEPT_ALIVE: Duration = Duration::from_secs(75);
/// Limit for a client to close a connection that the server has finished.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// By then a load balancer that polls every second has seen that the server is not ready.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// Longer than any request may wait once it was read. Only offboarding a user with very many grants may take longer.
const DRAINED_WITHIN: Duration = Duration::from_secs(65);
/// By then the last responses are sent, unless a client does not read.
const SENT_WITHIN: Duration = Duration::from_secs(5);

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::{
        Keyring, TokenSupervisor,
        web::{ApiKeys, api},
    };

    #[tokio::test]
    async fn ended_resolves_when_the_server_fails() {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", folder.path().join("t.db").display());
        let supervisor = TokenSupervisor::builder().store(store).keyring(Keyring::generate()).start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(api(supervisor.clone(), ApiKeys::new([])), [listener]).unwrap();
        tokio::select! {
            biased;
            () = server.ended() => panic!("the server is running"),
            () = std::future::ready(()) => {}
        }
        server.handle.stop(false).await;
        server.ended().await;
        server.stop().await.unwrap();
        supervisor.shutdown(Duration::from_secs(5)).await;
    }
}
